//! The Raft groups of a node: openraft, our log and rows under it, and the wire between nodes.
//!
//! ```text
//!   router, service ─► Groups ─► Proposer ─► openraft core ─► LogStore ─► LogEngine (one fsync for all groups)
//!                         ▲                       │  ▲
//!                         │ answers, effects      │  └──── wire: appends, votes, snapshots ──── other nodes
//!                         └──── State ◄───────────┘ committed entries
//!                                 └─ Overlay ─ checkpoint ─► ShardStore
//! ```
//!
//! # Invariants
//!
//! - **openraft stays inside**: none of its types is in the public interface, on disk or on the wire (`codec`).
//! - **Acknowledged means fsynced on a majority and applied here**: a run is answered from the apply task, after commit.
//! - **What cannot be trusted stops**: a failed write, a corrupt record, a log shorter than what was confirmed
//!   (`startup`), a panic in `apply`.
//!
//! # Deliberately absent
//!
//! What commands mean (`raft/machine`), who sends them where (`raft/router`), RocksDB (`storage/rocks`).

mod backup;
mod balance;
mod blocking;
mod checkpoint;
mod clear;
mod codec;
mod collector;
mod config;
mod confirm;
mod error;
mod failover;
mod group;
mod groups;
mod log_clock;
mod log_store;
mod membership;
mod metrics;
mod network;
mod open;
mod order;
mod proposer;
mod receive;
mod receive_snapshot;
mod ring;
mod role;
mod send_snapshot;
mod snapshot;
mod startup;
mod state;
#[cfg(test)]
mod suite;
mod types;
pub mod wire;

pub use backup::{INDEX_GAP, ReadRowsError, Restored, RowsAt, restore};
pub use config::{
    BatcherLimits, CheckpointLimits, Clock, Fatal, GroupsConfig, SnapshotLimits, Timers, abort,
};
pub use confirm::Confirmation;
pub use error::{BarrierError, GroupError, ProposeError};
pub use group::GroupStatus;
pub use groups::{Disk, Groups};
pub use role::{Role, Sink};
pub use state::ShardRows;
