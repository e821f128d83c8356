//! What a connection asks of its edge.

use std::fmt;

use bytes::Bytes;
use moorline_core::{
    Message, Offset, ShareNumber, Text,
    port::{Close, Filter, Published, Refusal, Token},
};

use crate::codec::{Hidden, PacketId, UserProperties, Version, Will};

use super::Limit;

/// What the edge has to do. All but settlements and releases come in the order of the packets behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A client asks for a session: authenticate it, then `Link::open` or [`super::Connection::reject`].
    Connect(Box<ConnectRequest>),
    /// `Link::publish` of QoS 0 or 1. Answered by `Notice::Published` if its QoS is not 0.
    Publish {
        /// Comes back with the answer.
        token: Token,
        /// The message. It shares the buffer it was read into.
        message: Message,
    },
    /// `Link::publish_once`. Answered by `Notice::Published`.
    PublishOnce {
        /// Comes back with the answer.
        token: Token,
        /// The packet id it came with.
        packet: PacketId,
        /// The message. It shares the buffer it was read into.
        message: Message,
    },
    /// `Link::complete`. Answered by `Notice::Completed`.
    Complete(PacketId),
    /// `Link::release`. Answered by `Notice::Released`.
    Release(Vec<Offset>),
    /// `Link::subscribe`.
    Subscribe {
        /// Comes back with the answer.
        token: Token,
        /// Well-formed filters; the answer has one result for each of them.
        filters: Vec<Filter>,
        /// User properties of the SUBSCRIBE.
        user: UserProperties,
    },
    /// `Link::unsubscribe`.
    Unsubscribe {
        /// Comes back with the answer.
        token: Token,
        /// Well-formed filters; the answer has one result for each of them.
        filters: Vec<Text>,
    },
    /// `Link::settle`.
    Settled(Vec<Offset>),
    /// `Link::settle_shared`.
    SettledShared(Vec<(ShareNumber, Offset)>),
    /// `Link::retained_taken`.
    RetainedTaken,
    /// The last event, exactly once: `Link::close`.
    Closed(Closed),
}

/// A CONNECT that may become a session. Its `Debug` form hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectRequest {
    /// The protocol version.
    pub version: Version,
    /// The client's id: its own, or the spare one.
    pub client: Text,
    /// Whether it is the spare one.
    pub assigned: bool,
    /// User name.
    pub username: Option<Text>,
    /// Password, binary.
    pub password: Option<Bytes>,
    /// Whether to forget what an earlier session left.
    pub clean_start: bool,
    /// Seconds the session outlives the connection, as `Open::expiry_s`; within the server's limit.
    pub expiry_s: u32,
    /// The keep-alive in force, in seconds; 0 for none.
    pub keep_alive_s: u16,
    /// The one that the client sent.
    pub keep_alive_sent_s: u16,
    /// How many deliveries this connection can hold, for `Open::credit`.
    pub credit: u32,
    /// How many deliveries the client takes unacknowledged, for `Open::window`.
    pub window: u16,
    /// User Properties of the CONNECT.
    pub user_properties: UserProperties,
    /// The will; only with [`super::Capabilities::wills`].
    pub will: Option<Will>,
}

impl fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("version", &self.version)
            .field("client", &self.client)
            .field("assigned", &self.assigned)
            // It may be an access token.
            .field("username", &Hidden(self.username.as_ref().map(Text::bytes)))
            .field("password", &Hidden(self.password.as_ref()))
            .field("clean_start", &self.clean_start)
            .field("expiry_s", &self.expiry_s)
            .field("keep_alive_s", &self.keep_alive_s)
            .field("credit", &self.credit)
            .field("window", &self.window)
            .field("user_properties", &self.user_properties)
            .field("will", &self.will)
            .finish()
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// What to tell the service.
    pub close: Close,
    /// Why, for metrics and logs.
    pub reason: CloseReason,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// The client said goodbye.
    ClientDisconnect,
    /// The client said goodbye with another code than 0, so its will counts.
    ClientDisconnectWithWill,
    /// The client's socket was closed or reset.
    PeerGone,
    /// No CONNECT within the deadline.
    ConnectTimeout,
    /// The service did not open the session within the deadline.
    OpenTimeout,
    /// Nothing was heard for one and a half keep-alives.
    KeepAliveTimeout,
    /// The client took nothing of what it was sent.
    WriteTimeout,
    /// The first packet was no CONNECT.
    NotMqtt,
    /// A protocol version that is not spoken here.
    UnsupportedVersion,
    /// Bytes that are no packet.
    Malformed,
    /// A packet that is forbidden here.
    ProtocolError,
    /// A packet over the limit, or an answer over the client's.
    PacketTooLarge,
    /// Too many of something in one packet.
    QuotaExceeded,
    /// More publishes that were not answered or completed than the Receive Maximum.
    ReceiveMaximumExceeded,
    /// Topic alias 0, or above the maximum.
    TopicAliasInvalid,
    /// A topic with more bytes or levels than this server takes.
    TopicNotAccepted,
    /// Something that this server said it does not have.
    NotSupported,
    /// The CONNECT was refused.
    ConnectRefused,
    /// A publish was refused, and the protocol or its unknown outcome leaves no other way to say so.
    PublishRefused,
    /// A subscribe was refused, and the protocol has no other way to say so.
    SubscribeRefused,
    /// An unsubscribe was refused, and the protocol has no other way to say so.
    UnsubscribeRefused,
    /// Another connection has the session now.
    TakenOver,
    /// The node stops.
    Stopping,
    /// The service can't keep the session's promise here.
    Lost,
    /// The service sent more deliveries than the credit it was given.
    Overrun,
    /// The device may not be here any more.
    Revoked,
    /// It did something that its platform does not have.
    Misused,
    /// All it asked is answered, and it said that it would not stay.
    Finished,
}

impl CloseReason {
    /// All of them.
    pub const ALL: [Self; 28] = [
        Self::ClientDisconnect,
        Self::ClientDisconnectWithWill,
        Self::PeerGone,
        Self::ConnectTimeout,
        Self::OpenTimeout,
        Self::KeepAliveTimeout,
        Self::WriteTimeout,
        Self::NotMqtt,
        Self::UnsupportedVersion,
        Self::Malformed,
        Self::ProtocolError,
        Self::PacketTooLarge,
        Self::QuotaExceeded,
        Self::ReceiveMaximumExceeded,
        Self::TopicAliasInvalid,
        Self::TopicNotAccepted,
        Self::NotSupported,
        Self::ConnectRefused,
        Self::PublishRefused,
        Self::SubscribeRefused,
        Self::UnsubscribeRefused,
        Self::TakenOver,
        Self::Stopping,
        Self::Lost,
        Self::Overrun,
        Self::Revoked,
        Self::Misused,
        Self::Finished,
    ];

    /// The name for metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ClientDisconnect => "client_disconnect",
            Self::ClientDisconnectWithWill => "client_disconnect_with_will",
            Self::PeerGone => "peer_gone",
            Self::ConnectTimeout => "connect_timeout",
            Self::OpenTimeout => "open_timeout",
            Self::KeepAliveTimeout => "keep_alive_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::NotMqtt => "not_mqtt",
            Self::UnsupportedVersion => "unsupported_version",
            Self::Malformed => "malformed",
            Self::ProtocolError => "protocol_error",
            Self::PacketTooLarge => "packet_too_large",
            Self::QuotaExceeded => "quota_exceeded",
            Self::ReceiveMaximumExceeded => "receive_maximum_exceeded",
            Self::TopicAliasInvalid => "topic_alias_invalid",
            Self::TopicNotAccepted => "topic_not_accepted",
            Self::NotSupported => "not_supported",
            Self::ConnectRefused => "connect_refused",
            Self::PublishRefused => "publish_refused",
            Self::SubscribeRefused => "subscribe_refused",
            Self::UnsubscribeRefused => "unsubscribe_refused",
            Self::TakenOver => "taken_over",
            Self::Stopping => "stopping",
            Self::Lost => "lost",
            Self::Overrun => "overrun",
            Self::Revoked => "revoked",
            Self::Misused => "misused",
            Self::Finished => "finished",
        }
    }
}

/// What became of a publish of QoS 1 or 2: each that is received comes to exactly one of these, as soon as that is known
/// ([`super::Connection::imbalance`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Accepted, and somebody wants it.
    Matched,
    /// Accepted, and nobody wants it.
    Unmatched,
    /// [`Refusal::Busy`].
    Busy,
    /// [`Refusal::Unavailable`]: nobody knows whether it happened.
    Unavailable,
    /// [`Refusal::Quota`].
    Quota,
    /// [`Refusal::DiskFull`].
    DiskFull,
    /// [`Refusal::NotAuthorised`].
    NotAuthorised,
    /// [`Refusal::TooLarge`].
    TooLarge,
    /// [`Refusal::Topic`], or a topic with too many bytes or levels.
    Topic,
    /// [`Refusal::Payload`].
    Payload,
    /// [`Refusal::Platform`].
    Platform,
    /// It came before, and the answer to the first copy is for both.
    Repeated,
    /// It broke a rule and ended its connection.
    Broken,
    /// Its connection ended before the service had answered.
    Unanswered,
}

impl Fate {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Matched,
        Self::Unmatched,
        Self::Busy,
        Self::Unavailable,
        Self::Quota,
        Self::DiskFull,
        Self::NotAuthorised,
        Self::TooLarge,
        Self::Topic,
        Self::Payload,
        Self::Platform,
        Self::Repeated,
        Self::Broken,
        Self::Unanswered,
    ];

    /// What the service's answer means.
    pub(super) fn of(outcome: Result<Published, Refusal>) -> Self {
        match outcome {
            Ok(Published { matched: true }) => Self::Matched,
            Ok(Published { matched: false }) => Self::Unmatched,
            Err(Refusal::Busy) => Self::Busy,
            Err(Refusal::Unavailable) => Self::Unavailable,
            Err(Refusal::Quota) => Self::Quota,
            Err(Refusal::DiskFull) => Self::DiskFull,
            Err(Refusal::NotAuthorised) => Self::NotAuthorised,
            Err(Refusal::TooLarge) => Self::TooLarge,
            Err(Refusal::Topic) => Self::Topic,
            Err(Refusal::Payload) => Self::Payload,
            Err(Refusal::Platform(_)) => Self::Platform,
        }
    }

    /// The name for metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Unmatched => "unmatched",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Quota => "quota",
            Self::DiskFull => "disk_full",
            Self::NotAuthorised => "not_authorised",
            Self::TooLarge => "too_large",
            Self::Topic => "topic",
            Self::Payload => "payload",
            Self::Platform => "platform",
            Self::Repeated => "repeated",
            Self::Broken => "broken_rule",
            Self::Unanswered => "connection_ended",
        }
    }
}

/// What happened since it was last asked: numbers to add to the node's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets received, whole and well-formed.
    pub packets_received: u64,
    /// Packets encoded for the client.
    pub packets_sent: u64,
    /// PUBLISHes received, by QoS.
    pub publishes_received: [u64; 3],
    /// QoS 1 and 2 publishes that were answered with success (PUBACK, PUBREC).
    pub publishes_acked: u64,
    /// QoS 1 and 2 publishes that were answered with a refusal, or by closing the connection.
    pub publishes_refused: u64,
    /// PUBLISHes received again before their first copy was answered, or (QoS 2) released.
    pub publishes_repeated: u64,
    /// What became of publishes of QoS 1 and 2, in the order of [`Fate::ALL`].
    pub fates: [u64; Fate::ALL.len()],
    /// PUBLISHes sent, by QoS.
    pub deliveries_sent: [u64; 3],
    /// Of those, with DUP=1.
    pub deliveries_resent: u64,
    /// Deliveries that the client acknowledged.
    pub deliveries_acked: u64,
    /// Live deliveries dropped because their queue was full.
    pub dropped_queue_full: u64,
    /// Deliveries dropped because the client takes no packets that large.
    pub dropped_too_large: u64,
    /// Deliveries dropped because their message had expired.
    pub expired: u64,
    /// Filters granted.
    pub filters_granted: u64,
    /// Filters refused.
    pub filters_refused: u64,
    /// Acknowledgements for nothing that is in flight.
    pub unknown_acks: u64,
    /// How often each limit was reached, in the order of [`Limit::ALL`].
    pub limits: [u64; Limit::ALL.len()],
}

impl Counters {
    /// Publishes of QoS 1 and 2 that came, less those of which it is known what they came to.
    pub(super) fn balance(&self) -> i64 {
        let [_, once, exactly] = self.publishes_received;
        let ended: u64 = self.fates.iter().sum();
        (once + exactly).cast_signed() - ended.cast_signed()
    }
}
