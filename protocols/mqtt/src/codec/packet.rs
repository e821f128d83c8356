//! What packets say: one struct for each, for all three protocol versions.
//!
//! A field that a version does not have is empty after decoding and is left out when encoding.

use std::{
    fmt,
    num::{NonZeroU16, NonZeroU32},
};

use bytes::Bytes;
use moorline_core::{QoS, RetainHandling, Text};

use super::{PacketType, Reason};

/// A packet identifier: never 0 (2.2.1).
pub type PacketId = NonZeroU16;

/// User properties in the order they came; names may repeat.
pub type UserProperties = Vec<(Text, Text)>;

/// Which MQTT a connection speaks. The numbers are the protocol levels of CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Version {
    /// MQTT 3.1 (`MQIsdp`).
    V31 = 3,
    /// MQTT 3.1.1.
    V311 = 4,
    /// MQTT 5.0.
    V5 = 5,
}

impl Version {
    /// The name for metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::V31 => "mqtt31",
            Self::V311 => "mqtt311",
            Self::V5 => "mqtt5",
        }
    }

    /// Whether packets carry properties and reason codes.
    #[must_use]
    pub fn is_v5(self) -> bool {
        self == Self::V5
    }
}

/// Any packet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is documented at its struct")]
pub enum Packet {
    Connect(Box<Connect>),
    ConnAck(Box<ConnAck>),
    Publish(Publish),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    Subscribe(Subscribe),
    SubAck(SubAck),
    Unsubscribe(Unsubscribe),
    UnsubAck(UnsubAck),
    PingReq,
    PingResp,
    Disconnect(Box<Disconnect>),
    Auth(Box<Auth>),
}

impl Packet {
    /// Which type of packet it is.
    #[must_use]
    pub fn kind(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }
}

/// CONNECT (3.1): a client asks for a session. Its `Debug` form hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Connect {
    /// Protocol name and level.
    pub version: Version,
    /// Clean Start; Clean Session before MQTT 5.
    pub clean_start: bool,
    /// The longest silence the client promises, in seconds; 0 promises nothing.
    pub keep_alive_s: u16,
    /// May be empty: the server chooses then.
    pub client_id: Text,
    /// What to publish when the connection breaks.
    pub will: Option<Will>,
    /// User name.
    pub username: Option<Text>,
    /// Password: binary, not text.
    pub password: Option<Bytes>,
    /// MQTT 5 only.
    pub properties: ConnectProperties,
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_s", &self.keep_alive_s)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            // It may be an access token.
            .field("username", &Hidden(self.username.as_ref().map(Text::bytes)))
            .field("password", &Hidden(self.password.as_ref()))
            .field("properties", &self.properties)
            .finish()
    }
}

/// Says whether there is a secret, and nothing else about it: packets end up in logs.
pub(crate) struct Hidden<'a>(pub(crate) Option<&'a Bytes>);

impl fmt::Debug for Hidden<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Some(<hidden>)" } else { "None" })
    }
}

/// Properties of CONNECT (3.1.2.11). `None` is "not sent", which is not always the same as the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectProperties {
    /// Session Expiry Interval in seconds.
    pub session_expiry_s: Option<u32>,
    /// Receive Maximum: QoS 1 and 2 messages the client takes unacknowledged.
    pub receive_max: Option<NonZeroU16>,
    /// Maximum Packet Size the client takes, in bytes.
    pub packet_max: Option<NonZeroU32>,
    /// Topic Alias Maximum the client takes.
    pub alias_max: Option<u16>,
    /// Request Response Information.
    pub request_response: Option<bool>,
    /// Request Problem Information.
    pub request_problem: Option<bool>,
    /// User Properties.
    pub user: UserProperties,
    /// Authentication Method.
    pub auth_method: Option<Text>,
    /// Authentication Data.
    pub auth_data: Option<Bytes>,
}

/// The will of a CONNECT (3.1.3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// A topic name: not empty, no wildcard.
    pub topic: Text,
    /// The QoS to publish it with.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
    /// Will Delay Interval in seconds.
    pub delay_s: Option<u32>,
    /// Message Expiry Interval in seconds, from when it is published.
    pub expiry_s: Option<u32>,
    /// The properties that travel with the message, as in [`Publish::properties`].
    pub properties: Bytes,
    /// The body.
    pub payload: Bytes,
}

/// CONNACK (3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnAck {
    /// Whether an earlier session goes on.
    pub session_present: bool,
    /// Success or why not. 3.1.1 knows only five reasons.
    pub reason: Reason,
    /// MQTT 5 only.
    pub properties: ConnAckProperties,
}

/// Properties of CONNACK (3.2.2.3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnAckProperties {
    /// Session Expiry Interval in seconds, if it is not what the client asked for.
    pub session_expiry_s: Option<u32>,
    /// Receive Maximum of the server.
    pub receive_max: Option<NonZeroU16>,
    /// Maximum QoS: only 0 or 1 can be said, absent means 2.
    pub qos_max: Option<QoS>,
    /// Retain Available.
    pub retain: Option<bool>,
    /// Maximum Packet Size the server takes, in bytes.
    pub packet_max: Option<NonZeroU32>,
    /// Assigned Client Identifier.
    pub assigned_client_id: Option<Text>,
    /// Topic Alias Maximum the server takes.
    pub alias_max: Option<u16>,
    /// Reason String.
    pub reason_string: Option<Text>,
    /// User Properties.
    pub user: UserProperties,
    /// Wildcard Subscription Available.
    pub wildcards: Option<bool>,
    /// Subscription Identifiers Available.
    pub subscription_ids: Option<bool>,
    /// Shared Subscription Available.
    pub shared: Option<bool>,
    /// Server Keep Alive in seconds: the client has to use it.
    pub server_keep_alive_s: Option<u16>,
    /// Response Information.
    pub response_information: Option<Text>,
    /// Server Reference: where to go instead.
    pub server_reference: Option<Text>,
    /// Authentication Method.
    pub auth_method: Option<Text>,
    /// Authentication Data.
    pub auth_data: Option<Bytes>,
}

/// PUBLISH (3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Whether it may have been sent before. Says nothing by itself.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// RETAIN flag.
    pub retain: bool,
    /// A topic name; empty only with an [`alias`](Self::alias).
    pub topic: Text,
    /// Present exactly if the QoS is not 0.
    pub id: Option<PacketId>,
    /// Message Expiry Interval in seconds; 0 is legal.
    pub expiry_s: Option<u32>,
    /// Topic Alias.
    pub alias: Option<NonZeroU16>,
    /// Subscription Identifiers, never 0.
    pub subscription_ids: Vec<u32>,
    /// All other properties, validated, in wire form without the length in front: payload format, content type,
    /// response topic, correlation data, user properties, in the order they came.
    pub properties: Bytes,
    /// The body.
    pub payload: Bytes,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP (3.4 to 3.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// What it acknowledges.
    pub id: PacketId,
    /// Always `Success` before MQTT 5.
    pub reason: Reason,
    /// Rarely there.
    pub properties: Option<Box<AckProperties>>,
}

impl Ack {
    /// An acknowledgement without properties.
    #[must_use]
    pub fn new(id: PacketId, reason: Reason) -> Self {
        Self { id, reason, properties: None }
    }
}

/// Properties of the acknowledgements. At least one of the two is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AckProperties {
    /// Reason String.
    pub reason_string: Option<Text>,
    /// User Properties.
    pub user: UserProperties,
}

/// SUBSCRIBE (3.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Packet identifier.
    pub id: PacketId,
    /// Subscription Identifier, never 0.
    pub subscription_id: Option<u32>,
    /// User Properties.
    pub user: UserProperties,
    /// At least one.
    pub filters: Vec<SubscribeFilter>,
}

/// One filter of a SUBSCRIBE with its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeFilter {
    /// Not empty, valid text; whether it is a well-formed filter is the session's question.
    pub filter: Text,
    /// The highest QoS wanted.
    pub qos: QoS,
    /// No Local: do not send me what I publish.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Retain Handling.
    pub retain_handling: RetainHandling,
}

/// SUBACK (3.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck {
    /// What it answers.
    pub id: PacketId,
    /// MQTT 5 only.
    pub properties: Option<Box<AckProperties>>,
    /// One for each filter, in order. Before MQTT 5: a granted QoS or `UnspecifiedError`.
    pub reasons: Vec<Reason>,
}

/// UNSUBSCRIBE (3.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Packet identifier.
    pub id: PacketId,
    /// User Properties.
    pub user: UserProperties,
    /// At least one, none of them empty.
    pub filters: Vec<Text>,
}

/// UNSUBACK (3.11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsubAck {
    /// What it answers.
    pub id: PacketId,
    /// MQTT 5 only.
    pub properties: Option<Box<AckProperties>>,
    /// One for each filter, in order; empty before MQTT 5.
    pub reasons: Vec<Reason>,
}

/// DISCONNECT (3.14).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Disconnect {
    /// Why. `Success` before MQTT 5.
    pub reason: Reason,
    /// Session Expiry Interval in seconds: only clients say it.
    pub session_expiry_s: Option<u32>,
    /// Reason String.
    pub reason_string: Option<Text>,
    /// Server Reference: only servers say it.
    pub server_reference: Option<Text>,
    /// User Properties.
    pub user: UserProperties,
}

/// AUTH (3.15): a step of an enhanced authentication. MQTT 5 only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Auth {
    /// Success, continue or re-authenticate.
    pub reason: Reason,
    /// Authentication Method; absent only in the empty form.
    pub method: Option<Text>,
    /// Authentication Data.
    pub data: Option<Bytes>,
    /// Reason String.
    pub reason_string: Option<Text>,
    /// User Properties.
    pub user: UserProperties,
}
