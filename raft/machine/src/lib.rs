//! The deterministic heart of a group: commands in, rows and effects out.
//!
//! Every replica of a group feeds the same committed batches, in the same order, to [`Machine::apply`], and so holds the
//! same rows. Nothing here reads a clock, draws a random number or waits: what a command needs (the time, a fresh id) the
//! proposer put into it.
//!
//! ```text
//!   batch bytes ──► apply ──► Rows      written with the applied index, by the caller, in one overlay
//!                         ├─► Answers   one per command; remembered per producer, so that a repeat gets the same one
//!                         └─► Effects   what only the leader acts on, after commit; losing all of them loses no message
//! ```
//!
//! # Invariants
//!
//! - **Replicas agree.** The same log makes the same rows, answers and effects, through checkpoints, crashes and
//!   snapshots. Checked by `tests/rules/replicas.rs` and `chaos-tests/sim`.
//! - **A command counts once**, in its producer's order, however often it comes. Checked by `tests/rules/dedupe.rs` and
//!   `chaos-tests/sim` (`checks::once`).
//! - **Settled is settled.** A queue's head never goes back. Asserted in `shard::queue`; checked by
//!   `tests/rules/queues.rs` and `chaos-tests/sim` (`checks::settled`).
//! - **Mail is in strict order, one outstanding.** Checked by `tests/rules/mail_model.rs`.
//! - **A device's presence outlives nodes and leaders, and each change of it is one event.** Checked by `tests/rules/presence.rs`.
//! - **A stream has each event once, in order, until retention takes it.** Checked by `tests/rules/events_model.rs`.
//! - **Attributes, latest values and history are what a map would hold**, within retention. Checked by
//!   `tests/rules/values_model.rs`.
//! - **A call's number is of no other call, and what has ended stays as it is.** Checked by `tests/rules/calls_model.rs`.
//! - **What memory holds comes from rows.** Checked by [`Machine::assert_derived`] wherever replicas are tested.
//! - **A batch does a bounded amount of work**: long queues are removed in pieces, by `Tick`. Limits: `shard`, `meta`,
//!   `producers`.
//!
//! # Deliberately absent
//!
//! Raft and the applied index (`raft/group`), the disk (`storage/rocks`), who may do what, credit and attachments
//! (`node/service`), packets (`protocols/mqtt`).

pub mod answer;
pub mod audit;
pub mod batch;
pub mod calls;
mod codec;
pub mod command;
mod digest;
pub mod documents;
pub mod effect;
pub mod events;
pub mod forget;
mod keys;
mod machine;
pub mod mail;
mod meta;
pub mod placement;
pub mod presence;
mod producers;
pub mod query;
pub mod registry;
pub mod restore;
mod rows;
mod shard;
mod step;
pub mod values;

pub use answer::{Answer, Refused, RouteChange};
pub use batch::{BATCH_BYTES_MAX, Batch, BatchBuilder, COMMANDS_PER_BATCH_MAX, RunBuilder};
pub use calls::{CallAnswer, CallCommand, CallEffect, CallRefused};
pub use codec::{COMMAND_BYTES_MAX, Malformed, RunAnswers, TooLarge};
pub use command::{Command, MemberState, Run};
pub use documents::{DocumentAnswer, DocumentCommand, DocumentRefused};
pub use effect::Effect;
pub use events::{EventAnswer, EventCommand, EventRefused};
pub use machine::Machine;
pub use mail::{MAIL_DEAD_KEPT, MAIL_DONE_KEPT, MailAnswer, MailCommand, MailEffect, MailRefused};
pub use meta::{
    ClusterRecord, MetaState, NodeState, REPLICAS, RouteState, TENANTS_BYTES_MAX, TENANTS_MAX,
    TOMBSTONES_MAX, Target,
};
pub use producers::{ANSWERS_PER_PRODUCER_MAX, PRODUCER_IDLE_MS_MAX, PRODUCERS_MAX};
pub use shard::{
    AWAIT_MS, AWAITED_TOPICS_MAX, AWAITED_TOPICS_PER_SHARD_MAX, Counts, DEADLINES_PER_TICK_MAX,
    DUE_WILLS_MAX, DueWill, GARBAGE_ROWS_PER_TICK_MAX, LEFT_MAX, LEFT_MS, MailPage, MailTally,
    Mailboxes, NUMBERS_SPAN_MAX, Numbers, ORIGIN_IDLE_MS_MAX, ORIGINS_MAX,
    RETAINED_BYTES_PER_TENANT_MAX, RETAINED_PER_TENANT_MAX, RetainedPage, RetainedQuery,
    SESSION_LIMITS_MAX, SESSION_QUEUE_BYTES_MAX, SESSION_QUEUE_ITEMS_MAX,
    SESSIONS_PER_NODE_GONE_MAX, SESSIONS_PER_SHARD_MAX, SHARE_MEMBERS_MAX, SHARES_PER_SHARD_MAX,
    SUBSCRIPTIONS_PER_SESSION_MAX, SessionInfo, ShareInfo,
};
pub use shard::{AggregateQuery, HistoryQuery, HistoryTotals};
pub use shard::{CallsFound, CallsQuery};
pub use shard::{ConsumersPage, EventsPage, EventsQuery, StreamTotals, Streams};
pub use shard::{
    DEVICE_BUCKETS_PER_PAGE_MAX, DEVICES_PER_SHARD_MAX, DeviceCursor, DevicesPage, DevicesQuery,
    LOOKUPS_PER_SHARD_MAX, RegistryCounts,
};
pub use shard::{PresenceCounts, QueueTally};
pub use step::version_after;
pub use values::{ValueAnswer, ValueCommand, ValueRefused};
