//! The way to a shard's leader, from any node.
//!
//! ```text
//!   submit(shard, command) ──► Forwarder of the shard ──► leader here: Groups::propose
//!                          ◄── Done, in order ◄──────────  leader there: one run per message, over the standing stream
//! ```
//!
//! Each process numbers its commands per shard, and the machine applies each number once: so what is unanswered when a
//! leader is lost is sent again to the next one, in order, and counts once.
//!
//! # Invariants
//!
//! - **Commands of this process for a shard apply once and in the order of their submission**, whatever happens in
//!   between. Checked by `forwarder::tests` (any schedule of losses) and `tests` (over real connections).
//! - **Every command is answered once.** Checked there too.
//! - **Nobody waits in here.** `submit` returns at once; what waits is bounded.
//!
//! # Deliberately absent
//!
//! What commands mean (`raft/machine`); elections (`raft/group`); who may submit what (`node/service`).

mod done;
mod error;
mod forwarder;
mod metrics;
mod replicas;
mod roles;
mod router;
#[cfg(test)]
mod tests;
mod wire;

pub use done::{Answered, At, Done, Outcome};
pub use error::{Advice, SubmitError, TellError};
pub use roles::{Leader, Leaders};
pub use router::{Router, RouterConfig};
