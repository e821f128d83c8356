//! A message on its way through the broker, in the one form that every layer uses.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Grant, Offset, SubscriptionIds, Text, UnixMillis};

/// How sure a publisher wants to be (MQTT 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum QoS {
    /// At most once: not replicated, not stored.
    #[default]
    AtMostOnce = 0,
    /// At least once: acknowledged when a majority has it on disk.
    AtLeastOnce = 1,
    /// Exactly once inside the cluster.
    ExactlyOnce = 2,
}

impl QoS {
    /// Reads the two bits of the wire.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic name: no wildcard, not empty.
    pub topic: Text,
    /// The publisher's QoS.
    pub qos: QoS,
    /// The publisher's RETAIN flag.
    pub retain: bool,
    /// MQTT 5 properties that travel with a message (payload format, content type, response topic, correlation data,
    /// user properties), validated, in wire form without their length prefix; empty for 3.1.1.
    pub properties: Bytes,
    /// When it is no longer worth delivering (MQTT 5, 3.3.2.3.3): by the process clock of the node that has it in hand, in
    /// log time in rows. What is left of it travels between the two.
    pub expires_at: Option<UnixMillis>,
    /// The body, opaque.
    pub payload: Bytes,
}

impl Message {
    /// In the place of one that is not needed any more.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            topic: Text::default(),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Bytes::new(),
            expires_at: None,
            payload: Bytes::new(),
        }
    }
}

/// A message that is published when its client is gone without a goodbye (MQTT 3.1.2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// What is published. Only here and in a log's commands `expires_at` is relative: milliseconds from when it is
    /// published.
    pub message: Message,
    /// Seconds it waits for the client to come back; never longer than the session does.
    pub delay_s: u32,
}

/// Which of a connection's shared subscriptions a delivery came by. Chosen by the service for one connection; only given
/// back to it with what was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareNumber(pub u32);

/// A message for one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its place in a queue, the durable session's or that of `share`; `None` for what is only passing by (live, not
    /// stored).
    pub offset: Option<Offset>,
    /// The shared subscription in whose queue it is, if it is not the session's own.
    pub share: Option<ShareNumber>,
    /// The QoS to send it with: the lower of the published and the granted one.
    pub qos: QoS,
    /// Whether it was offered to a client before, by any node, so that it goes out with DUP=1.
    pub resent: bool,
    /// Whether the client has received it (QoS 2), on this connection or another: only its release goes out then, and
    /// `message` is empty.
    pub released: bool,
    /// The RETAIN flag to send it with (3.3.1.3): whatever `message` says is the publisher's.
    pub retain: bool,
    /// The identifiers of the session's subscriptions that it is for.
    pub ids: SubscriptionIds,
    /// The message, shared by all who get it.
    pub message: Arc<Message>,
}

impl Delivery {
    /// A first copy to a session, without flags.
    #[must_use]
    pub fn new(offset: Option<Offset>, qos: QoS, message: Arc<Message>) -> Self {
        Self {
            offset,
            share: None,
            qos,
            resent: false,
            released: false,
            retain: false,
            ids: SubscriptionIds::default(),
            message,
        }
    }

    /// A first copy to a session, as its subscriptions want it.
    #[must_use]
    pub fn granted(offset: Option<Offset>, grant: &Grant, message: Arc<Message>) -> Self {
        let (retain, ids) = (grant.retain, grant.ids.clone());
        Self { retain, ids, ..Self::new(offset, grant.qos, message) }
    }
}
