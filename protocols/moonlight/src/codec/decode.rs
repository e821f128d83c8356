//! Bytes to packets.
//!
//! First the packet's length is read, checking on the way what would make the rest meaningless; once all of it is there,
//! it is cut off the input without copying and its fields are read.

use bytes::{Buf, Bytes, BytesMut};
use moorline_core::{
    Text,
    op::{Format, MailId, Settlement},
};
use thiserror::Error;

use super::{
    Connect, ConnectFailedReason, Credentials, DEVICE_BYTES, FLEET_BYTES, Next, PAYLOAD_BYTES_MAX,
    Packet, PacketType, Pulse, PulseError, PulseKind, SECRET_BYTES, Side, UnauthorizedReason,
};

/// Bytes of a CONNECT.
const CONNECT_BYTES: usize = 4 + FLEET_BYTES + DEVICE_BYTES + SECRET_BYTES;
/// Bytes of a pulse before its name.
const PULSE_HEAD_BYTES: usize = 12;
/// Bytes of a MailboxNextResp without a mail.
const NEXT_HEAD_BYTES: usize = 12;
/// Bytes of a payload's length.
const LENGTH_BYTES: usize = 4;
/// The flag of success.
const SUCCESS: u8 = 0b01;
/// The flag of a MailboxNextResp without payload.
const HEADER_ONLY: u8 = 0b10;
/// The flag of a Connected with mail.
const MAIL_AVAILABLE: u8 = 0b10;

/// What was wrong with the bytes. Nothing after it can be read: where the next packet begins is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// No packet of version 1 begins with this byte.
    #[error("packet type {0} is not known")]
    UnknownType(u8),
    /// Only the other side sends this packet.
    #[error("{0:?} goes the other way")]
    WrongSide(PacketType),
    /// A flag is set that this packet does not have.
    #[error("flags {flags:#010b} of {packet:?} are reserved")]
    ReservedFlags {
        /// Which packet.
        packet: PacketType,
        /// All flags it came with.
        flags: u8,
    },
    /// A NewMailEvent whose second byte is not 0.
    #[error("NewMailEvent with {0} in its second byte")]
    NewMailEvent(u8),
    /// A CloseConnection with the other side's flag.
    #[error("CloseConnection with the other side's flag")]
    CloseConnection,
    /// The payload is longer than [`PAYLOAD_BYTES_MAX`].
    #[error("a payload of {0} bytes, the limit is {PAYLOAD_BYTES_MAX}")]
    PayloadTooLong(u32),
    /// A Connect with a serialisation that is neither MessagePack nor JSON.
    #[error("serialisation {0} is not known")]
    Serialisation(u8),
    /// A pulse of no known type.
    #[error("pulse type {0} is not known")]
    PulseType(u8),
    /// A settlement that is neither ack, reject nor requeue.
    #[error("mail operation {0} is not known")]
    Settlement(u8),
    /// A name that is not UTF-8.
    #[error("a name that is no text")]
    Name,
}

/// Reads what one side sends.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    from: Side,
}

impl Decoder {
    /// A decoder of what `from` sends.
    #[must_use]
    pub fn of(from: Side) -> Self {
        Self { from }
    }

    /// Takes the next packet off the front of `input`; `None` if it is not all there yet.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; the connection can't go on.
    pub fn decode(self, input: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        let Some(len) = self.packet_len(input)? else { return Ok(None) };
        if input.len() < len {
            return Ok(None);
        }
        read(input.split_to(len).freeze()).map(Some)
    }

    /// The length of the packet at the front, once enough of it is there to know.
    fn packet_len(self, input: &[u8]) -> Result<Option<usize>, DecodeError> {
        let Some(&first) = input.first() else { return Ok(None) };
        let packet = PacketType::from_byte(first).ok_or(DecodeError::UnknownType(first))?;
        if !packet.sent_by(self.from) {
            return Err(DecodeError::WrongSide(packet));
        }
        let Some(&flags) = input.get(1) else { return Ok(None) };
        if packet == PacketType::NewMailEvent && flags != 0 {
            return Err(DecodeError::NewMailEvent(flags));
        }
        if flags & !packet.flags() != 0 {
            return Err(DecodeError::ReservedFlags { packet, flags });
        }
        Ok(Some(match packet {
            PacketType::CloseConnection => {
                if (flags == 1) != (self.from == Side::Server) {
                    return Err(DecodeError::CloseConnection);
                }
                2
            }
            PacketType::Connected
            | PacketType::Heartbeat
            | PacketType::HeartbeatAck
            | PacketType::NewMailEvent => 2,
            PacketType::Unauthorized | PacketType::ConnectFailed => 3,
            PacketType::Connect => CONNECT_BYTES,
            PacketType::MailboxNext => 10,
            PacketType::PulseResp if flags & SUCCESS != 0 => 10,
            PacketType::PulseResp => 11,
            PacketType::AckMail => 19,
            PacketType::AckMailResp => 21,
            PacketType::Pulse => return named_len(input, PULSE_HEAD_BYTES - 1, true),
            PacketType::MailboxNextResp => return next_len(input, flags),
        }))
    }
}

fn next_len(input: &[u8], flags: u8) -> Result<Option<usize>, DecodeError> {
    let Some(size) = input.get(NEXT_HEAD_BYTES - 2..NEXT_HEAD_BYTES) else { return Ok(None) };
    if flags & SUCCESS == 0 || size == [0, 0] {
        return Ok(Some(NEXT_HEAD_BYTES));
    }
    named_len(input, NEXT_HEAD_BYTES + size_of::<u128>(), flags & HEADER_ONLY == 0)
}

/// The length of a packet whose name's length stands at `at`, with or without a payload behind the name.
fn named_len(input: &[u8], at: usize, payload: bool) -> Result<Option<usize>, DecodeError> {
    let Some(&name) = input.get(at) else { return Ok(None) };
    let after_name = at + 1 + usize::from(name);
    if !payload {
        return Ok(Some(after_name));
    }
    let Some(len) = input.get(after_name..after_name + LENGTH_BYTES) else { return Ok(None) };
    let len = u32::from_be_bytes(len.try_into().expect("four bytes"));
    match usize::try_from(len) {
        Ok(bytes) if bytes <= PAYLOAD_BYTES_MAX => Ok(Some(after_name + LENGTH_BYTES + bytes)),
        _ => Err(DecodeError::PayloadTooLong(len)),
    }
}

/// Reads the fields of a whole packet of a checked type.
fn read(mut packet: Bytes) -> Result<Packet, DecodeError> {
    let first = packet.get_u8();
    let flags = packet.get_u8();
    let success = flags & SUCCESS != 0;
    let packet_type = PacketType::from_byte(first).expect("its length was known");
    Ok(match packet_type {
        PacketType::CloseConnection => {
            Packet::CloseConnection { from: if flags == 1 { Side::Server } else { Side::Client } }
        }
        PacketType::Connect => Packet::Connect(Box::new(read_connect(success, packet)?)),
        PacketType::Connected => {
            Packet::Connected { mail_available: flags & MAIL_AVAILABLE != 0, keep_alive: success }
        }
        PacketType::Unauthorized => Packet::Unauthorized(unauthorized_reason(packet.get_u8())),
        PacketType::ConnectFailed => Packet::ConnectFailed(connect_failed_reason(packet.get_u8())),
        PacketType::Heartbeat => Packet::Heartbeat,
        PacketType::HeartbeatAck => Packet::HeartbeatAck { success },
        PacketType::Pulse => Packet::Pulse(read_pulse(packet)?),
        PacketType::PulseResp => {
            let txn = packet.get_u64();
            let result = if success { Ok(()) } else { Err(pulse_error(packet.get_u8())) };
            Packet::PulseResp { txn, result }
        }
        PacketType::NewMailEvent => Packet::NewMailEvent,
        PacketType::MailboxNext => {
            Packet::MailboxNext { txn: packet.get_u64(), header_only: success }
        }
        PacketType::MailboxNextResp => {
            let (txn, header_only) = (packet.get_u64(), flags & HEADER_ONLY != 0);
            let next = read_next(success, header_only, packet)?;
            Packet::MailboxNextResp { txn, header_only, next }
        }
        PacketType::AckMail => {
            let id = MailId(packet.get_u128());
            Packet::AckMail { id, settlement: settlement(packet.get_u8())? }
        }
        PacketType::AckMailResp => {
            let (size, id) = (packet.get_u16(), MailId(packet.get_u128()));
            Packet::AckMailResp { success, size, id, settlement: settlement(packet.get_u8())? }
        }
    })
}

fn read_connect(keep_alive: bool, mut packet: Bytes) -> Result<Connect, DecodeError> {
    let version = packet.get_u8();
    let format = match packet.get_u8() {
        1 => Format::MsgPack,
        2 => Format::Json,
        other => return Err(DecodeError::Serialisation(other)),
    };
    let mut credentials = Credentials {
        fleet: [0; FLEET_BYTES],
        device: [0; DEVICE_BYTES],
        secret: [0; SECRET_BYTES],
    };
    packet.copy_to_slice(&mut credentials.fleet);
    packet.copy_to_slice(&mut credentials.device);
    packet.copy_to_slice(&mut credentials.secret);
    Ok(Connect { keep_alive, version, format, credentials })
}

fn read_pulse(mut packet: Bytes) -> Result<Pulse, DecodeError> {
    let kind = match packet.get_u8() {
        0 => PulseKind::Unknown,
        1 => PulseKind::System,
        2 => PulseKind::Datapoint,
        3 => PulseKind::Message,
        other => return Err(DecodeError::PulseType(other)),
    };
    let txn = packet.get_u64();
    let name = read_name(&mut packet)?;
    Ok(Pulse { kind, txn, name, payload: packet.split_off(LENGTH_BYTES) })
}

fn read_next(success: bool, header_only: bool, mut packet: Bytes) -> Result<Next, DecodeError> {
    let size = packet.get_u16();
    if !success {
        return Ok(Next::Failed { size });
    }
    if size == 0 {
        return Ok(Next::Empty);
    }
    let id = MailId(packet.get_u128());
    let name = read_name(&mut packet)?;
    let payload = if header_only { Bytes::new() } else { packet.split_off(LENGTH_BYTES) };
    Ok(Next::Mail { size, id, name, payload })
}

fn read_name(packet: &mut Bytes) -> Result<Text, DecodeError> {
    let len = usize::from(packet.get_u8());
    Text::from_utf8(packet.split_to(len)).map_err(|_| DecodeError::Name)
}

fn settlement(byte: u8) -> Result<Settlement, DecodeError> {
    match byte {
        1 => Ok(Settlement::Ack),
        2 => Ok(Settlement::Reject),
        3 => Ok(Settlement::Requeue),
        other => Err(DecodeError::Settlement(other)),
    }
}

fn unauthorized_reason(byte: u8) -> UnauthorizedReason {
    match byte {
        1 => UnauthorizedReason::CredentialsMalformed,
        2 => UnauthorizedReason::FleetNotFound,
        3 => UnauthorizedReason::DeviceNotFound,
        4 => UnauthorizedReason::SecretIncorrect,
        5 => UnauthorizedReason::DeviceDisabled,
        6 => UnauthorizedReason::TemporaryBan,
        _ => UnauthorizedReason::Unknown,
    }
}

fn connect_failed_reason(byte: u8) -> ConnectFailedReason {
    match byte {
        1 => ConnectFailedReason::Restarting,
        2 => ConnectFailedReason::Unavailable,
        3 => ConnectFailedReason::Degraded,
        _ => ConnectFailedReason::Unknown,
    }
}

fn pulse_error(byte: u8) -> PulseError {
    match byte {
        1 => PulseError::DeserializationFailed,
        2 => PulseError::SchemaNotFound,
        3 => PulseError::SchemaTypeMismatch,
        _ => PulseError::Unknown,
    }
}
