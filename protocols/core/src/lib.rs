//! The narrow waist: the words every layer shares, and the port between a node's edges and its service.
//!
//! ```text
//!   edge (sockets, MQTT) ──► port::Port / port::Link ──► service (ops → commands, no sockets)
//!                        ◄── port::Notice ◄────────────
//! ```
//!
//! # Invariants
//!
//! - **Pure.** No clock, no random number, no I/O: time and ids are arguments. Checked by `chaos-tests/tidy`.
//! - **Stable arithmetic.** [`shard::bucket_of`] and [`shard::Shards`] decide where data lives on disk, for ever:
//!   frozen by golden tests in [`shard`].
//! - **One matcher.** Topic filters are matched by [`trie::Trie`] and by the naive [`topic::matches`], and a property
//!   test holds them equal.
//!
//! # Deliberately absent
//!
//! Packets (`protocols/mqtt`), rows (`storage/api`), Raft (`raft/`).

pub mod calendar;
pub mod call;
pub mod foreign_hash;
pub mod id;
pub mod level;
pub mod message;
pub mod op;
pub mod planted;
pub mod port;
pub mod rights;
pub mod session_name;
pub mod shard;
pub mod subscription;
pub mod text;
pub mod time;
pub mod topic;
pub mod trie;
pub mod value;

pub use call::{CallEvent, CallState};
pub use id::{ConnId, Epoch, Incarnation, NodeId, Offset, ShardId, TenantId, UnixMillis};
pub use message::{Delivery, Message, QoS, ShareNumber, Will};
pub use subscription::{Grant, RetainHandling, SubscriptionIds, SubscriptionOptions};
pub use text::Text;
pub use time::Millis;
pub use value::{AttributeScope, Double, Value};
