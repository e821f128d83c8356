//! Moonlight's packets, as values. All numbers are the wire's and for ever.

use std::fmt;

use bytes::Bytes;
use moorline_core::{
    Text,
    op::{Format, MailId, Settlement},
};

/// Bytes of a fleet's id.
pub const FLEET_BYTES: usize = 8;
/// Bytes of a device's id.
pub const DEVICE_BYTES: usize = 10;
/// Bytes of a device's secret.
pub const SECRET_BYTES: usize = 36;

/// A packet's first byte. Each says who sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// Both.
    CloseConnection = 1,
    /// Client.
    Connect = 2,
    /// Server.
    Connected = 3,
    /// Server.
    Unauthorized = 4,
    /// Server.
    ConnectFailed = 5,
    /// Client.
    Heartbeat = 8,
    /// Server.
    HeartbeatAck = 9,
    /// Client.
    Pulse = 10,
    /// Server.
    PulseResp = 11,
    /// Server.
    NewMailEvent = 20,
    /// Client.
    MailboxNext = 21,
    /// Server.
    MailboxNextResp = 22,
    /// Client.
    AckMail = 25,
    /// Server.
    AckMailResp = 26,
}

impl PacketType {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::CloseConnection,
        Self::Connect,
        Self::Connected,
        Self::Unauthorized,
        Self::ConnectFailed,
        Self::Heartbeat,
        Self::HeartbeatAck,
        Self::Pulse,
        Self::PulseResp,
        Self::NewMailEvent,
        Self::MailboxNext,
        Self::MailboxNextResp,
        Self::AckMail,
        Self::AckMailResp,
    ];

    /// Reads the first byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as u8 == byte)
    }

    /// Who may send it.
    #[must_use]
    pub fn sent_by(self, side: Side) -> bool {
        match self {
            Self::CloseConnection => true,
            Self::Connect | Self::Heartbeat | Self::Pulse | Self::MailboxNext | Self::AckMail => {
                side == Side::Client
            }
            Self::Connected
            | Self::Unauthorized
            | Self::ConnectFailed
            | Self::HeartbeatAck
            | Self::PulseResp
            | Self::NewMailEvent
            | Self::MailboxNextResp
            | Self::AckMailResp => side == Side::Server,
        }
    }

    /// The bits its flags byte may have. Bit 7 (extended flags) and bit 6 (virtual device) are reserved everywhere.
    #[must_use]
    pub fn flags(self) -> u8 {
        match self {
            Self::CloseConnection
            | Self::Connect
            | Self::HeartbeatAck
            | Self::PulseResp
            | Self::MailboxNext
            | Self::AckMailResp => 0b01,
            Self::Connected | Self::MailboxNextResp => 0b11,
            Self::Unauthorized
            | Self::ConnectFailed
            | Self::Heartbeat
            | Self::Pulse
            | Self::NewMailEvent
            | Self::AckMail => 0,
        }
    }
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The device.
    Client,
    /// The cluster.
    Server,
}

/// Who a device says it is. Its `Debug` form hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The fleet's id, as sent: any bytes.
    pub fleet: [u8; FLEET_BYTES],
    /// The device's id, as sent: any bytes.
    pub device: [u8; DEVICE_BYTES],
    /// The device's secret, as sent: any bytes.
    pub secret: [u8; SECRET_BYTES],
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("fleet", &String::from_utf8_lossy(&self.fleet))
            .field("device", &String::from_utf8_lossy(&self.device))
            .field("secret", &"<hidden>")
            .finish()
    }
}

/// The first packet of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// Whether the connection is to stay. Agents always say so.
    pub keep_alive: bool,
    /// The wire format's version. This crate speaks 1.
    pub version: u8,
    /// How this connection's payloads are written: 1 MessagePack, 2 JSON.
    pub format: Format,
    /// Who it is.
    pub credentials: Credentials,
}

/// Why a client may not come in. A number that nobody knows here is read as `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum UnauthorizedReason {
    /// Anything else.
    Unknown = 0,
    /// The credentials have the wrong shape.
    CredentialsMalformed = 1,
    /// There is no such fleet.
    FleetNotFound = 2,
    /// There is no such device.
    DeviceNotFound = 3,
    /// The secret is wrong.
    SecretIncorrect = 4,
    /// The device is disabled.
    DeviceDisabled = 5,
    /// It failed too often.
    TemporaryBan = 6,
}

/// Why a client can't come in now. A number that nobody knows here is read as `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ConnectFailedReason {
    /// Anything else.
    Unknown = 0,
    /// The server restarts.
    Restarting = 1,
    /// The server can't be reached behind this node.
    Unavailable = 2,
    /// The server lets in less than usual.
    Degraded = 3,
}

/// What kind of news a pulse is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PulseKind {
    /// Has a number, and no meaning.
    Unknown = 0,
    /// Of the agent itself.
    System = 1,
    /// Telemetry.
    Datapoint = 2,
    /// A message.
    Message = 3,
}

/// Why a pulse was not accepted. A number that nobody knows here is read as `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PulseError {
    /// Anything else.
    Unknown = 0,
    /// The payload can't be read.
    DeserializationFailed = 1,
    /// There is no such schema.
    SchemaNotFound = 2,
    /// The payload is not as the schema says.
    SchemaTypeMismatch = 3,
}

/// News from a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// What kind.
    pub kind: PulseKind,
    /// The client's number for it; comes back with the answer.
    pub txn: u64,
    /// The name of its schema: at most 255 bytes.
    pub name: Text,
    /// The payload, in the connection's format: at most [`super::PAYLOAD_BYTES_MAX`].
    pub payload: Bytes,
}

/// What [`Packet::MailboxNext`] brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The mailbox could not be read.
    Failed {
        /// Without meaning; 0 when we send it.
        size: u16,
    },
    /// The mailbox is empty.
    Empty,
    /// The front mail.
    Mail {
        /// How many wait: not 0.
        size: u16,
        /// Its id.
        id: MailId,
        /// Its name: at most 255 bytes.
        name: Text,
        /// Its payload. Not on the wire, and empty, if only the header was asked for.
        payload: Bytes,
    },
}

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Goodbye.
    CloseConnection {
        /// Who says it.
        from: Side,
    },
    /// A client asks to come in.
    Connect(Box<Connect>),
    /// It may.
    Connected {
        /// Whether mail waits.
        mail_available: bool,
        /// What the client said.
        keep_alive: bool,
    },
    /// It may not.
    Unauthorized(UnauthorizedReason),
    /// It can't now.
    ConnectFailed(ConnectFailedReason),
    /// The client lives.
    Heartbeat,
    /// The server too.
    HeartbeatAck {
        /// Whether it was noted.
        success: bool,
    },
    /// News.
    Pulse(Pulse),
    /// What became of them.
    PulseResp {
        /// The client's number.
        txn: u64,
        /// `Ok` once they are safe.
        result: Result<(), PulseError>,
    },
    /// Mail waits: fetch it.
    NewMailEvent,
    /// What is the front mail?
    MailboxNext {
        /// The client's number; comes back with the answer.
        txn: u64,
        /// Whether the payload may be left out.
        header_only: bool,
    },
    /// The front mail.
    MailboxNextResp {
        /// The client's number.
        txn: u64,
        /// Whether the payload is left out.
        header_only: bool,
        /// What there is.
        next: Next,
    },
    /// What became of the front mail.
    AckMail {
        /// Its id.
        id: MailId,
        /// What became of it.
        settlement: Settlement,
    },
    /// Whether that was noted.
    AckMailResp {
        /// Whether it was.
        success: bool,
        /// How many wait now.
        size: u16,
        /// The mail's id.
        id: MailId,
        /// What had become of it.
        settlement: Settlement,
    },
}

impl Packet {
    /// Its first byte.
    #[must_use]
    pub fn packet_type(&self) -> PacketType {
        match self {
            Self::CloseConnection { .. } => PacketType::CloseConnection,
            Self::Connect(_) => PacketType::Connect,
            Self::Connected { .. } => PacketType::Connected,
            Self::Unauthorized(_) => PacketType::Unauthorized,
            Self::ConnectFailed(_) => PacketType::ConnectFailed,
            Self::Heartbeat => PacketType::Heartbeat,
            Self::HeartbeatAck { .. } => PacketType::HeartbeatAck,
            Self::Pulse(_) => PacketType::Pulse,
            Self::PulseResp { .. } => PacketType::PulseResp,
            Self::NewMailEvent => PacketType::NewMailEvent,
            Self::MailboxNext { .. } => PacketType::MailboxNext,
            Self::MailboxNextResp { .. } => PacketType::MailboxNextResp,
            Self::AckMail { .. } => PacketType::AckMail,
            Self::AckMailResp { .. } => PacketType::AckMailResp,
        }
    }
}
