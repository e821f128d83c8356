//! Why bytes are not a packet, and what to answer.

use thiserror::Error;

use super::Reason;

/// What was wrong with the bytes. The connection can't go on after any of these: where the next packet begins, or what
/// the other side believes, is no longer known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// It can't be parsed as the standard says.
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    /// A string or a length of a CONNECT can't be read. It gets no answer: what its sender is, is anybody's guess.
    #[error("unreadable CONNECT: {0}")]
    Unreadable(&'static str),
    /// It can be parsed, and is forbidden.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// It has a topic alias of 0.
    #[error("topic alias 0")]
    TopicAlias,
    /// It is larger than the limit. Known from the fixed header, before the rest was buffered.
    #[error("the packet has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// The whole packet, with its header.
        size: usize,
        /// The most that is taken.
        limit: usize,
    },
    /// It holds more of something than [`super::Limits`] allow.
    #[error("too many {0}")]
    Quota(Quota),
    /// A CONNECT of a protocol version that nobody knows here.
    #[error("protocol version {0} is not supported")]
    UnsupportedVersion(u8),
    /// The first packet is not a CONNECT, or does not even name MQTT: whoever this is, it gets no answer.
    #[error("the first packet is not a CONNECT")]
    NotConnect,
}

/// What a packet holds too many of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Quota {
    /// User properties.
    #[error("user properties")]
    UserProperties,
    /// Bytes of user properties and reason string together.
    #[error("bytes of user properties and reason string")]
    PropertyBytes,
    /// Topic filters.
    #[error("topic filters")]
    Filters,
}

impl DecodeError {
    /// The same, of a field of a CONNECT.
    pub(super) fn in_connect(self) -> Self {
        match self {
            Self::Malformed(what) => Self::Unreadable(what),
            Self::Unreadable(_)
            | Self::Protocol(_)
            | Self::TopicAlias
            | Self::TooLarge { .. }
            | Self::Quota(_)
            | Self::UnsupportedVersion(_)
            | Self::NotConnect => self,
        }
    }

    /// The reason code to answer with, in a CONNACK before the connection is open and in a DISCONNECT after.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Malformed(_) | Self::Unreadable(_) => Reason::MalformedPacket,
            Self::Protocol(_) | Self::NotConnect => Reason::ProtocolError,
            Self::TopicAlias => Reason::TopicAliasInvalid,
            Self::TooLarge { .. } => Reason::PacketTooLarge,
            Self::Quota(_) => Reason::QuotaExceeded,
            Self::UnsupportedVersion(_) => Reason::UnsupportedProtocolVersion,
        }
    }
}

/// A packet that has no form on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// A string or binary field is longer than its two-byte length can say.
    #[error("a field is longer than 65,535 bytes")]
    FieldTooLong,
    /// The packet is longer than its variable byte integer can say.
    #[error("a packet is longer than 268,435,455 bytes")]
    PacketTooLong,
    /// The protocol version has no such packet.
    #[error("AUTH does not exist before MQTT 5")]
    NotInVersion,
}
