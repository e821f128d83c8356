//! Why a group did not do what it was asked: one variant per thing a caller can do differently.

use moorline_core::{NodeId, ShardId};
use moorline_storage::StorageError;
use thiserror::Error;

/// Why a replica could not be started or changed.
#[derive(Debug, Error)]
pub enum GroupError {
    /// The timers contradict each other.
    #[error("raft timers: {0}")]
    Timers(String),
    /// There is no replica of this shard here, or it is already open.
    #[error("shard {shard}: {why}")]
    State {
        /// Which.
        shard: ShardId,
        /// What is wrong.
        why: &'static str,
    },
    /// This replica has less log than its leader knows it had: it must not vote. Remove the node and join it anew.
    #[error(
        "shard {shard}: this node's log ends at {last:?}, but the leader, node {leader}, knows that it had {matched}: \
         part of the log was lost. Take no part in votes: remove this node from the cluster, wipe its data directory \
         and join it under a new node id"
    )]
    LostLog {
        /// Which.
        shard: ShardId,
        /// Where the log ends here.
        last: Option<u64>,
        /// Who knows better.
        leader: NodeId,
        /// What it knows.
        matched: u64,
    },
    /// The disk failed, or what it holds cannot be trusted.
    #[error("storage of shard {shard}")]
    Storage {
        /// Which.
        shard: ShardId,
        /// What happened.
        #[source]
        source: StorageError,
    },
    /// The staging directory could not be prepared.
    #[error("the staging directory could not be prepared")]
    Staging(#[source] std::io::Error),
    /// A metric is registered already.
    #[error("metrics could not be registered")]
    Metrics(#[from] prometheus::Error),
    /// openraft refused.
    #[error("shard {shard}: {why}")]
    Raft {
        /// Which.
        shard: ShardId,
        /// What it said.
        why: String,
    },
}

/// Why a run was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// Another node leads, or nobody. The run was not appended.
    #[error("not the leader")]
    NotLeader {
        /// Who might be.
        leader: Option<NodeId>,
    },
    /// Too much waits already. The run was not appended.
    #[error("the group is busy")]
    Busy,
    /// The leadership was lost while the run was on its way: it **may** have been applied.
    #[error("the outcome is unknown")]
    Unknown,
    /// This node is stopping. The run was not appended.
    #[error("stopped")]
    Stopped,
    /// There is no replica of the shard on this node. The run was not appended.
    #[error("no such group here")]
    NoGroup,
    /// The run is larger than an entry may be. It was not appended, and never can be.
    #[error("the run is larger than an entry may be")]
    TooLarge,
}

impl ProposeError {
    /// Whether the run may have been applied all the same.
    #[must_use]
    pub fn may_have_happened(self) -> bool {
        match self {
            Self::Unknown => true,
            Self::NotLeader { .. }
            | Self::Busy
            | Self::Stopped
            | Self::NoGroup
            | Self::TooLarge => false,
        }
    }
}

/// Why a linearizable read cannot be promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BarrierError {
    /// Another node leads, or nobody.
    #[error("not the leader")]
    NotLeader {
        /// Who might be.
        leader: Option<NodeId>,
    },
    /// A majority did not confirm the leadership in time.
    #[error("no quorum")]
    NoQuorum,
    /// This node is stopping, or has no such group.
    #[error("stopped")]
    Stopped,
}
