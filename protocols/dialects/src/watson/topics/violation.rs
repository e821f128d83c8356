//! What a violation costs, by class and version (§1.5, "What happens on a violation").

use moorline_core::QoS;

use super::Forbidden;
use crate::watson::{PAYLOAD_BYTES_MAX, close::Close, connect::Version, identity::Class};

/// Bytes of a topic that do not count; those beyond it count as payload (MQTT 3).
const TOPIC_BYTES_FREE: usize = 200;
/// MQTT 5: not authorised.
const NOT_AUTHORISED: u8 = 0x87;
/// MQTT 5: the filter is not valid.
const FILTER_INVALID: u8 = 0x8f;
/// MQTT 5: the topic is not valid.
const TOPIC_INVALID: u8 = 0x90;
/// MQTT 5: a quota is used up.
const QUOTA_EXCEEDED: u8 = 0x97;
/// MQTT 5: the protocol was violated.
const PROTOCOL_ERROR: u8 = 0x82;
/// A SUBACK of any version: refused.
const FAILURE: u8 = 0x80;

/// What a client did that it may not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Violation {
    /// It published where it may not.
    Publish {
        /// Why not.
        why: Forbidden,
        /// How.
        qos: QoS,
    },
    /// It subscribed to what it may not.
    Subscribe(Forbidden),
    /// It has too many subscriptions.
    Subscriptions,
    /// Its message is too large ([`fits`]).
    TooLarge,
    /// A QoS or a flag that does not exist.
    BadQoS,
    /// A packet that can't be read.
    Malformed,
    /// A packet out of turn; a second CONNECT.
    OutOfTurn,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Consequence {
    /// The connection ends.
    Close {
        /// Why, in logs and presence.
        close: Close,
        /// MQTT 5: the reason of the DISCONNECT before it.
        reason: u8,
    },
    /// The publish is dropped, and acknowledged with this reason if its QoS is above 0 (MQTT 5: PUBACK, PUBREC).
    Drop {
        /// The reason.
        reason: u8,
    },
    /// The publish is dropped, acknowledged as if it were not, and reported ([`super::super::notice`]).
    DropAndNotify,
    /// The SUBACK says this.
    Refuse {
        /// Its return code or reason.
        code: u8,
        /// Whether it is reported, too.
        notify: bool,
    },
}

/// What a violation costs.
#[must_use]
pub fn consequence(class: Class, version: Version, violation: Violation) -> Consequence {
    let close = |close: Close| Consequence::Close { close, reason: close.disconnect_v5() };
    let code_of = |why, topic| if why == Forbidden::Topic { topic } else { NOT_AUTHORISED };
    let close_of = |why| match why {
        Forbidden::Topic => close(Close::BadTopic),
        Forbidden::NotAuthorised => close(Close::NotAuthorised),
    };
    match (violation, class, version) {
        (Violation::TooLarge, ..) => close(Close::TooLarge),
        (Violation::BadQoS, ..) => close(Close::BadQoS),
        (Violation::Malformed, ..) => close(Close::BadData),
        (Violation::OutOfTurn, ..) => {
            Consequence::Close { close: Close::BadData, reason: PROTOCOL_ERROR }
        }
        (Violation::Publish { .. }, Class::Gateway, _) => Consequence::DropAndNotify,
        (Violation::Publish { why, qos: _ }, _, Version::V5) => {
            Consequence::Drop { reason: code_of(why, TOPIC_INVALID) }
        }
        (Violation::Publish { why, .. }, ..) => close_of(why),
        // MQTT 3.1 has no failure in a SUBACK.
        (Violation::Subscribe(_) | Violation::Subscriptions, Class::Gateway, Version::V31) => {
            Consequence::Refuse { code: 0, notify: true }
        }
        (Violation::Subscribe(_) | Violation::Subscriptions, Class::Gateway, _) => {
            Consequence::Refuse { code: FAILURE, notify: true }
        }
        (Violation::Subscribe(why), _, Version::V5) => {
            Consequence::Refuse { code: code_of(why, FILTER_INVALID), notify: false }
        }
        (Violation::Subscriptions, _, Version::V5) => {
            Consequence::Refuse { code: QUOTA_EXCEEDED, notify: false }
        }
        (Violation::Subscribe(why), ..) => close_of(why),
        (Violation::Subscriptions, ..) => close(Close::Subscriptions),
    }
}

/// Whether a publish is small enough. MQTT 3 counts the payload, and what of the topic is beyond 200 bytes; MQTT 5 counts the
/// packet.
#[must_use]
pub fn fits(
    version: Version,
    topic_bytes: usize,
    payload_bytes: usize,
    packet_bytes: usize,
) -> bool {
    let counted = match version {
        Version::V31 | Version::V311 => {
            payload_bytes.saturating_add(topic_bytes.saturating_sub(TOPIC_BYTES_FREE))
        }
        Version::V5 => packet_bytes,
    };
    counted <= PAYLOAD_BYTES_MAX
}
