//! Reason codes (MQTT 5, 2.4), and the few return codes that 3.1.1 has instead.

/// A reason code of MQTT 5. `Success` is also "normal disconnection" and "granted QoS 0".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum Reason {
    #[default]
    Success = 0x00,
    GrantedQoS1 = 0x01,
    GrantedQoS2 = 0x02,
    DisconnectWithWill = 0x04,
    NoMatchingSubscribers = 0x10,
    NoSubscriptionExisted = 0x11,
    ContinueAuthentication = 0x18,
    ReAuthenticate = 0x19,
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecificError = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    Banned = 0x8A,
    ServerShuttingDown = 0x8B,
    BadAuthenticationMethod = 0x8C,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    TopicFilterInvalid = 0x8F,
    TopicNameInvalid = 0x90,
    PacketIdentifierInUse = 0x91,
    PacketIdentifierNotFound = 0x92,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    MessageRateTooHigh = 0x96,
    QuotaExceeded = 0x97,
    AdministrativeAction = 0x98,
    PayloadFormatInvalid = 0x99,
    RetainNotSupported = 0x9A,
    QoSNotSupported = 0x9B,
    UseAnotherServer = 0x9C,
    ServerMoved = 0x9D,
    SharedSubscriptionsNotSupported = 0x9E,
    ConnectionRateExceeded = 0x9F,
    MaximumConnectTime = 0xA0,
    SubscriptionIdentifiersNotSupported = 0xA1,
    WildcardSubscriptionsNotSupported = 0xA2,
}

/// The packet types that carry reason codes, each with its own set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    ConnAck,
    /// PUBACK and PUBREC, which share a set.
    PubAck,
    /// PUBREL and PUBCOMP, which share a set.
    PubRel,
    SubAck,
    UnsubAck,
    Disconnect,
    Auth,
}

use Reason as R;

/// All codes, in order of their numbers.
const ALL: [Reason; 43] = [
    R::Success,
    R::GrantedQoS1,
    R::GrantedQoS2,
    R::DisconnectWithWill,
    R::NoMatchingSubscribers,
    R::NoSubscriptionExisted,
    R::ContinueAuthentication,
    R::ReAuthenticate,
    R::UnspecifiedError,
    R::MalformedPacket,
    R::ProtocolError,
    R::ImplementationSpecificError,
    R::UnsupportedProtocolVersion,
    R::ClientIdentifierNotValid,
    R::BadUserNameOrPassword,
    R::NotAuthorized,
    R::ServerUnavailable,
    R::ServerBusy,
    R::Banned,
    R::ServerShuttingDown,
    R::BadAuthenticationMethod,
    R::KeepAliveTimeout,
    R::SessionTakenOver,
    R::TopicFilterInvalid,
    R::TopicNameInvalid,
    R::PacketIdentifierInUse,
    R::PacketIdentifierNotFound,
    R::ReceiveMaximumExceeded,
    R::TopicAliasInvalid,
    R::PacketTooLarge,
    R::MessageRateTooHigh,
    R::QuotaExceeded,
    R::AdministrativeAction,
    R::PayloadFormatInvalid,
    R::RetainNotSupported,
    R::QoSNotSupported,
    R::UseAnotherServer,
    R::ServerMoved,
    R::SharedSubscriptionsNotSupported,
    R::ConnectionRateExceeded,
    R::MaximumConnectTime,
    R::SubscriptionIdentifiersNotSupported,
    R::WildcardSubscriptionsNotSupported,
];

impl Reason {
    /// The code on the wire.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The reason with this code, if there is one.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        ALL.binary_search_by_key(&code, |reason| reason.code()).ok().map(|at| ALL[at])
    }

    /// Whether it reports a failure: 0x80 and above.
    #[must_use]
    pub fn is_error(self) -> bool {
        self.code() >= 0x80
    }

    /// Whether `carrier` may carry this code (the tables in 3.2.2.2 to 3.15.2.1).
    pub(crate) fn fits(self, carrier: Carrier) -> bool {
        let code = self.code();
        match carrier {
            Carrier::ConnAck => matches!(code,
                0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F),
            Carrier::PubAck => {
                matches!(code, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
            }
            Carrier::PubRel => matches!(code, 0x00 | 0x92),
            Carrier::SubAck => matches!(
                code,
                0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2
            ),
            Carrier::UnsubAck => {
                matches!(code, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91)
            }
            Carrier::Disconnect => matches!(code,
                0x00 | 0x04 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B | 0x8D..=0x90 | 0x93..=0xA2),
            Carrier::Auth => matches!(code, 0x00 | 0x18 | 0x19),
        }
    }

    /// The CONNACK return code of 3.1 and 3.1.1 that is nearest (3.2.2.3 there).
    #[must_use]
    pub fn connack_v3(self) -> u8 {
        match self.code() {
            0x00 => 0,
            0x84 => 1,
            0x85 => 2,
            // Bad user name, bad method; not authorised, banned; all else is a server that can't be used now.
            0x86 | 0x8C => 4,
            0x87 | 0x8A => 5,
            _ => 3,
        }
    }

    /// What a 3.1.1 CONNACK return code means.
    pub(crate) fn from_connack_v3(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Success,
            1 => Self::UnsupportedProtocolVersion,
            2 => Self::ClientIdentifierNotValid,
            3 => Self::ServerUnavailable,
            4 => Self::BadUserNameOrPassword,
            5 => Self::NotAuthorized,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_reasons_are_one_to_one() {
        for code in 0..=u8::MAX {
            if let Some(reason) = Reason::from_code(code) {
                assert_eq!(reason.code(), code);
            }
        }
        assert!(ALL.windows(2).all(|pair| pair[0].code() < pair[1].code()));
        let known = (0..=u8::MAX).filter(|&code| Reason::from_code(code).is_some()).count();
        assert_eq!(known, ALL.len());
    }

    #[test]
    fn return_codes_of_311_come_back_as_themselves() {
        for code in 0..=5 {
            assert_eq!(Reason::from_connack_v3(code).unwrap().connack_v3(), code);
        }
        assert_eq!(Reason::from_connack_v3(6), None);
    }
}
