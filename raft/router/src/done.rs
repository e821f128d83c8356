//! Who hears what became of a command.

use std::{fmt, sync::Arc};

use moorline_machine::Answer;

use crate::error::SubmitError;

/// What becomes of a command, in one value.
pub type Outcome = Result<Answer, SubmitError>;

/// Hears what became of commands. Many commands share one listener; a token tells them apart, so that a command costs
/// no allocation.
pub trait Answered: Send + Sync {
    /// Called once per command, in the order of the submissions to a shard, on whatever task the answer came to: it
    /// must not wait. No lock of the router is held: it may submit again.
    fn answered(&self, token: u64, outcome: Outcome);
}

/// What to do with a command's outcome. Done exactly once, unless the process ends first.
pub enum Done {
    /// Tell a listener.
    Token(Arc<dyn Answered>, u64),
    /// Call once.
    Call(Box<dyn FnOnce(Outcome) + Send>),
    /// Nobody waits for it.
    Ignore,
}

impl Done {
    pub(crate) fn end(self, outcome: Outcome) {
        match self {
            Self::Token(listener, token) => listener.answered(token, outcome),
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
            Self::Ignore => f.write_str("Ignore"),
        }
    }
}
