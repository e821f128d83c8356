//! Why a command was not answered, or a message not passed on.

use moorline_core::ShardId;
use moorline_group::wire::SendError;
use thiserror::Error;

/// Why a command has no answer. A variant for each thing a caller can do differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// Too much waits for the shard. Nothing was written.
    #[error("shard {shard} is busy: {waiting} commands are waiting")]
    Busy {
        /// Which.
        shard: ShardId,
        /// How many commands wait.
        waiting: usize,
    },
    /// No leader took it in time. Nothing was written.
    #[error("shard {shard} has no leader")]
    NoLeader {
        /// Which.
        shard: ShardId,
    },
    /// It was sent and not answered in time. It **may** have been applied.
    #[error("shard {shard} did not answer")]
    Unanswered {
        /// Which.
        shard: ShardId,
    },
    /// The command is larger than a command may be. Nothing was written.
    #[error("a command of {bytes} bytes is too large")]
    TooLarge {
        /// How large it is, encoded.
        bytes: usize,
    },
    /// This node is stopping. Nothing was written.
    #[error("the node is stopping")]
    Stopped,
}

/// What to do about a [`SubmitError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Nothing happened: trying again, here or elsewhere, is safe.
    Retry,
    /// It may have happened: only what may happen twice may be tried again.
    MayHaveHappened,
    /// Nothing happened, and trying again changes nothing.
    GiveUp,
}

impl SubmitError {
    /// What to do.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            Self::Busy { .. } | Self::NoLeader { .. } | Self::Stopped => Advice::Retry,
            Self::Unanswered { .. } => Advice::MayHaveHappened,
            Self::TooLarge { .. } => Advice::GiveUp,
        }
    }
}

/// Why a message was not passed on to a shard's leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TellError {
    /// No leader is known.
    #[error("the shard has no leader")]
    NoLeader,
    /// It could not be sent to the leader.
    #[error("the leader can't be sent to")]
    Send(#[from] SendError),
}
