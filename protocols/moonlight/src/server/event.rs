//! What a connection asks of its edge, and how it ends.

use moorline_core::{
    op::{Denial, Op},
    port::Token,
};
use thiserror::Error;

use crate::codec::{Connect, DecodeError, PacketType};

/// What the edge has to do, in the order of the packets behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Find out whether this client may come in, and open it: [`super::Server::authenticated`].
    Authenticate(Box<Connect>),
    /// Have this done: [`super::Server::answered`]. An event's body is in the connection's format.
    Ask {
        /// Comes back with the answer.
        token: Token,
        /// What is asked.
        op: Op,
    },
    /// The last action, exactly once: tell the service, write what is left of the output until the next timeout, and
    /// close.
    Close(CloseReason),
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CloseReason {
    /// The client said goodbye.
    #[error("the client closed the connection")]
    Goodbye,
    /// It sent no Connect in time.
    #[error("no Connect in time")]
    NoConnect,
    /// Its first packet is no Connect.
    #[error("the first packet is {0:?}")]
    NotConnect(PacketType),
    /// It sent a second Connect.
    #[error("a second Connect")]
    SecondConnect,
    /// It speaks another version of the wire format.
    #[error("wire format version {0} is not supported")]
    Version(u8),
    /// It sent what can't be read.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// It may not come in, or not any more.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// Nothing was heard for too long.
    #[error("nothing was heard for too long")]
    Silence,
    /// It takes nothing of what it is sent.
    #[error("it takes nothing of what it is sent")]
    Stalled,
    /// The service did not answer in time: what became of its requests is unknown.
    #[error("the service did not answer in time")]
    Unanswered,
    /// Another connection is this device now.
    #[error("taken over by another connection")]
    TakenOver,
    /// The node stops.
    #[error("the node is stopping")]
    Stopping,
}

/// What happened, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets read.
    pub received: u64,
    /// Packets written.
    pub sent: u64,
    /// How often reading stopped because a limit of unanswered requests or unread answers was reached.
    pub paused: u64,
    /// How often a client that drains its mailbox was made to begin anew ([`super::MAIL_OPS_IN_A_ROW_MAX`]).
    pub cures: u64,
}
