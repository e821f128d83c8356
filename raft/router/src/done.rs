//! Who hears what became of a command.

use std::{fmt, sync::Arc};

use moorline_core::ShardId;
use moorline_machine::Answer;

use crate::error::SubmitError;

/// What becomes of a command, in one value.
pub type Outcome = Result<Answer, SubmitError>;

/// Where a command is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The shard that it was for.
    pub shard: ShardId,
    /// The index at which it was applied, or came again: it is in the log there or before. 0 if it was not, or nobody knows.
    pub index: u64,
}

/// Hears what became of commands. Many commands share one listener; a token tells them apart, so that a command costs
/// no allocation.
pub trait Answered: Send + Sync {
    /// Called once per command, in the order of the submissions to a shard, on whatever task the answer came to: it
    /// must not wait. No lock of the router is held: it may submit again.
    ///
    /// `at`: where it is.
    fn answered(&self, token: u64, outcome: Outcome, at: At);
}

/// What to do with a command's outcome. Done exactly once, unless the process ends first.
pub enum Done {
    /// Tell a listener.
    Token(Arc<dyn Answered>, u64),
    /// Call once.
    Call(Box<dyn FnOnce(Outcome) + Send>),
    /// Call once, and say where it is.
    Placed(Box<dyn FnOnce(Outcome, At) + Send>),
    /// Nobody waits for it.
    Ignore,
}

impl Done {
    pub(crate) fn end(self, outcome: Outcome, at: At) {
        match self {
            Self::Token(listener, token) => listener.answered(token, outcome, at),
            Self::Placed(call) => call(outcome, at),
            Self::Call(call) => call(outcome),
            Self::Ignore => {}
        }
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_, token) => write!(f, "Token({token})"),
            Self::Call(_) => f.write_str("Call"),
            Self::Placed(_) => f.write_str("Placed"),
            Self::Ignore => f.write_str("Ignore"),
        }
    }
}
