//! Why something was not sent, not answered, or not started: a variant per different reaction.

use std::{io, path::PathBuf};

use moorline_core::NodeId;
use thiserror::Error;

/// Why a oneway message was not queued. It was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// There is no connection to the node, or no such node.
    #[error("the node is not connected")]
    Unreachable,
    /// What waits for the node has reached its limit.
    #[error("too much waits for the node")]
    Full,
    /// The body is larger than [`MESSAGE_BYTES_MAX`](super::MESSAGE_BYTES_MAX).
    #[error("the message is too large")]
    TooLarge,
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    /// There is no connection to the node, or no such node. It was not sent.
    #[error("the node is not connected")]
    Unreachable,
    /// What waits for the node, or for its answers, has reached its limit. It was not sent.
    #[error("too much waits for the node")]
    Full,
    /// The body is larger than [`MESSAGE_BYTES_MAX`](super::MESSAGE_BYTES_MAX). It was not sent.
    #[error("the message is too large")]
    TooLarge,
    /// The connection ended before the answer came. It may have been handled.
    #[error("the connection ended")]
    Closed,
    /// The answer did not come in time. It may have been handled.
    #[error("the node did not answer in time")]
    Deadline,
    /// The other side says that it will not answer: it knows no such kind, or its handler gave up.
    #[error("the node refused: {0}")]
    Refused(String),
}

impl CallError {
    /// Whether the request may have been handled.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Unreachable | Self::Full | Self::TooLarge => false,
            Self::Closed | Self::Deadline | Self::Refused(_) => true,
        }
    }
}

impl From<SendError> for CallError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Unreachable => Self::Unreachable,
            SendError::Full => Self::Full,
            SendError::TooLarge => Self::TooLarge,
        }
    }
}

/// Why the wire could not be set up.
#[derive(Debug, Error)]
pub enum WireError {
    /// A TLS file can't be read.
    #[error("can't read {path}")]
    TlsFile {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A TLS file can be read, and is of no use.
    #[error("{path}: {why}")]
    TlsUnusable {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The listener can't be used.
    #[error("can't listen for peers")]
    Listen(#[source] io::Error),
    /// A peer's address is not `host:port`.
    #[error("node {node}: \"{address}\" is not an address of the form host:port")]
    Address {
        /// Whose.
        node: NodeId,
        /// What it is.
        address: String,
    },
    /// The metrics are registered already.
    #[error("can't register metrics")]
    Metrics(#[from] prometheus::Error),
}
