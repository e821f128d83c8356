//! Why a connection ends: the platform's number, a text, and what MQTT says of it (§1.3, §1.6).
//!
//! The numbers stand in presence messages, where programs look at them. The texts are ours.
//!
//! # Invariants
//!
//! - **MQTT 3 says no more than 1, 2, 3 or 5**; for all else the socket is closed without a CONNACK. Checked by
//!   `close_codes_have_their_numbers`.
//! - **MQTT 5 says only what the packet may say**: what is no reason of a CONNACK becomes 0x80. Checked by the same.

use moorline_core::port::Failure;

/// Why a connection ended, or never began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Close {
    /// A goodbye.
    Normal = 0,
    /// The client hung up.
    ByClient = 91,
    /// The server hung up.
    ByServer = 92,
    /// The server stops.
    Stopping = 93,
    /// An administrator ended it.
    Administrator = 94,
    /// There is no room for it.
    Capacity = 104,
    /// A malformed packet, or one out of turn.
    BadData = 105,
    /// The socket was gone.
    Gone = 106,
    /// The client id has not the form of its class.
    ClientIdInvalid = 119,
    /// A text is not UTF-8.
    BadUnicode = 122,
    /// One subscription too many.
    Subscriptions = 154,
    /// Silence for longer than the keep-alive allows.
    KeepAlive = 160,
    /// TLS failed.
    Tls = 163,
    /// Nothing ever came.
    NoData = 164,
    /// The first packet is too large.
    FirstPacket = 165,
    /// The client id may not be used.
    BadClientId = 166,
    /// What would have to be asked does not answer.
    Unavailable = 167,
    /// There is no certificate where one is required.
    CertificateMissing = 169,
    /// The certificate, or the server name, is another client's.
    CertificateWrong = 170,
    /// One connection too many.
    Connections = 173,
    /// Failed too often: it is let wait.
    Delayed = 175,
    /// Failed too often: it is not heard.
    Throttled = 176,
    /// It may not do that.
    NotAuthorised = 180,
    /// Its authentication failed for another reason.
    Authentication = 188,
    /// Its will is for a topic that it may not publish to.
    Will = 270,
    /// A length is wrong.
    BadLength = 271,
    /// A payload is wrong.
    BadPayload = 273,
    /// There is no such topic.
    BadTopic = 276,
    /// There is no such QoS, or flags are wrong.
    BadQoS = 284,
    /// A message is too large.
    TooLarge = 287,
    /// Another connection has its client id.
    ClientIdReused = 288,
    /// A topic of the system.
    SystemTopic = 289,
    /// A higher QoS than is allowed.
    MaximumQoS = 291,
    /// A session that lasts, where there is none.
    DurableNotAllowed = 292,
}

/// Reasons that a CONNACK of MQTT 5 may have (MQTT 5, 3.2.2.2), from 0x80 on.
const CONNACK_REASONS: [u8; 20] = [
    0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97, 0x99, 0x9a,
    0x9b, 0x9c, 0x9d, 0x9f,
];
/// An error that has no other number.
const UNSPECIFIED: u8 = 0x80;

impl From<Failure> for Close {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Silent => Self::KeepAlive,
            Failure::Malformed => Self::BadData,
            Failure::TooLarge => Self::TooLarge,
            Failure::Revoked => Self::Administrator,
            Failure::Refused | Failure::Slow => Self::ByServer,
        }
    }
}

impl Close {
    /// Every reason.
    #[rustfmt::skip]
    pub const ALL: [Self; 34] = [
        Self::Normal, Self::ByClient, Self::ByServer, Self::Stopping, Self::Administrator, Self::Capacity,
        Self::BadData, Self::Gone, Self::ClientIdInvalid, Self::BadUnicode, Self::Subscriptions, Self::KeepAlive,
        Self::Tls, Self::NoData, Self::FirstPacket, Self::BadClientId, Self::Unavailable, Self::CertificateMissing,
        Self::CertificateWrong, Self::Connections, Self::Delayed, Self::Throttled, Self::NotAuthorised,
        Self::Authentication, Self::Will, Self::BadLength, Self::BadPayload, Self::BadTopic, Self::BadQoS,
        Self::TooLarge, Self::ClientIdReused, Self::SystemTopic, Self::MaximumQoS, Self::DurableNotAllowed,
    ];

    /// The reason with this number, if there is one.
    #[must_use]
    pub fn of_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|close| close.number() == number)
    }

    /// The platform's number.
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The reason as text.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Normal => "The connection ended normally",
            Self::ByClient => "The client closed the connection",
            Self::ByServer => "The server closed the connection",
            Self::Stopping => "The server is stopping",
            Self::Administrator => "An administrator closed the connection",
            Self::Capacity => "There is no capacity left",
            Self::BadData => "A packet is malformed or out of turn",
            Self::Gone => "The connection is closed",
            Self::ClientIdInvalid => "The client id is not valid",
            Self::BadUnicode => "A text is not UTF-8",
            Self::Subscriptions => "Too many subscriptions",
            Self::KeepAlive => "Keep alive time-out",
            Self::Tls => "TLS failed",
            Self::NoData => "No data was received",
            Self::FirstPacket => "The first packet is too large",
            Self::BadClientId => "The client id may not be used",
            Self::Unavailable => "The service is not available",
            Self::CertificateMissing => "A client certificate is required",
            Self::CertificateWrong => "The certificate or server name is another client's",
            Self::Connections => "Too many connections",
            Self::Delayed => "Authentication is delayed after failures",
            Self::Throttled => "Authentication failed too often",
            Self::NotAuthorised => "Not authorized",
            Self::Authentication => "Authentication failed",
            Self::Will => "The will is not allowed",
            Self::BadLength => "A length is not valid",
            Self::BadPayload => "The payload is not valid",
            Self::BadTopic => "The topic is not valid",
            Self::BadQoS => "The QoS or a flag is not valid",
            Self::TooLarge => "The message is too large",
            Self::ClientIdReused => "The client id was used by another connection",
            Self::SystemTopic => "The topic belongs to the system",
            Self::MaximumQoS => "The QoS is too high",
            Self::DurableNotAllowed => "A durable session is not allowed",
        }
    }

    /// The return code of an MQTT 3 CONNACK; `None`: the socket is closed without one.
    #[must_use]
    pub fn connack_v3(self) -> Option<u8> {
        match self {
            Self::ClientIdInvalid | Self::BadClientId | Self::BadUnicode => Some(2),
            Self::Unavailable => Some(3),
            Self::NotAuthorised
            | Self::Authentication
            | Self::DurableNotAllowed
            | Self::ClientIdReused => Some(5),
            Self::Normal
            | Self::ByClient
            | Self::ByServer
            | Self::Stopping
            | Self::Administrator
            | Self::Capacity
            | Self::BadData
            | Self::Gone
            | Self::Subscriptions
            | Self::KeepAlive
            | Self::Tls
            | Self::NoData
            | Self::FirstPacket
            | Self::CertificateMissing
            | Self::CertificateWrong
            | Self::Connections
            | Self::Delayed
            | Self::Throttled
            | Self::Will
            | Self::BadLength
            | Self::BadPayload
            | Self::BadTopic
            | Self::BadQoS
            | Self::TooLarge
            | Self::SystemTopic
            | Self::MaximumQoS => None,
        }
    }

    /// The reason of an MQTT 5 CONNACK.
    #[must_use]
    pub fn connack_v5(self) -> u8 {
        let reason = if self.connack_v3() == Some(2) {
            0x85
        } else if self == Self::Unavailable {
            0x88
        } else if self == Self::ClientIdReused {
            0x87
        } else {
            self.disconnect_v5()
        };
        if CONNACK_REASONS.contains(&reason) { reason } else { UNSPECIFIED }
    }

    /// The reason of an MQTT 5 DISCONNECT.
    #[must_use]
    pub fn disconnect_v5(self) -> u8 {
        match self {
            Self::Normal | Self::ByClient | Self::Gone => 0x00,
            Self::BadData | Self::BadUnicode | Self::BadLength | Self::BadQoS => 0x81,
            Self::NotAuthorised | Self::Authentication | Self::Will | Self::DurableNotAllowed => {
                0x87
            }
            Self::Unavailable => 0x89,
            Self::Stopping => 0x8b,
            Self::KeepAlive => 0x8d,
            Self::ClientIdReused => 0x8e,
            Self::BadTopic | Self::SystemTopic => 0x90,
            Self::FirstPacket | Self::TooLarge => 0x95,
            Self::Capacity | Self::Subscriptions | Self::Connections => 0x97,
            Self::Administrator => 0x98,
            Self::BadPayload => 0x99,
            Self::MaximumQoS => 0x9b,
            Self::Delayed | Self::Throttled => 0x9f,
            Self::ByServer
            | Self::ClientIdInvalid
            | Self::Tls
            | Self::NoData
            | Self::BadClientId
            | Self::CertificateMissing
            | Self::CertificateWrong => UNSPECIFIED,
        }
    }
}
