//! Packets to bytes.

use bytes::{BufMut, BytesMut};
use moorline_core::op::Format;
use thiserror::Error;

use super::{Connect, NAME_BYTES_MAX, Next, PAYLOAD_BYTES_MAX, Packet, Pulse, Side};

/// A packet that has no form on the wire. Nothing of it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The name is longer than [`NAME_BYTES_MAX`].
    #[error("the name is longer than {NAME_BYTES_MAX} bytes")]
    NameTooLong,
    /// The payload is longer than [`PAYLOAD_BYTES_MAX`].
    #[error("the payload is longer than {PAYLOAD_BYTES_MAX} bytes")]
    PayloadTooLong,
    /// A mail out of an empty mailbox, or a payload where only the header was asked for.
    #[error("a mail that contradicts itself")]
    Contradiction,
}

/// Appends a packet to `output`.
///
/// # Errors
///
/// [`EncodeError`]; `output` is as it was then.
pub fn encode(packet: &Packet, output: &mut BytesMut) -> Result<(), EncodeError> {
    check(packet)?;
    output.put_u8(packet.packet_type() as u8);
    match packet {
        Packet::CloseConnection { from } => output.put_u8(u8::from(*from == Side::Server)),
        Packet::Connect(connect) => put_connect(connect, output),
        Packet::Connected { mail_available, keep_alive } => {
            output.put_u8(flags(*mail_available, *keep_alive));
        }
        Packet::Unauthorized(reason) => output.put_slice(&[0, *reason as u8]),
        Packet::ConnectFailed(reason) => output.put_slice(&[0, *reason as u8]),
        Packet::Heartbeat | Packet::NewMailEvent => output.put_u8(0),
        Packet::HeartbeatAck { success } => output.put_u8(u8::from(*success)),
        Packet::Pulse(pulse) => put_pulse(pulse, output),
        Packet::PulseResp { txn, result } => {
            output.put_u8(u8::from(result.is_ok()));
            output.put_u64(*txn);
            if let Err(error) = result {
                output.put_u8(*error as u8);
            }
        }
        Packet::MailboxNext { txn, header_only } => {
            output.put_u8(u8::from(*header_only));
            output.put_u64(*txn);
        }
        Packet::MailboxNextResp { txn, header_only, next } => {
            put_next(*txn, *header_only, next, output);
        }
        Packet::AckMail { id, settlement } => {
            output.put_u8(0);
            output.put_u128(id.0);
            output.put_u8(*settlement as u8);
        }
        Packet::AckMailResp { success, size, id, settlement } => {
            output.put_u8(u8::from(*success));
            output.put_u16(*size);
            output.put_u128(id.0);
            output.put_u8(*settlement as u8);
        }
    }
    Ok(())
}

fn flags(bit_1: bool, bit_0: bool) -> u8 {
    u8::from(bit_1) << 1 | u8::from(bit_0)
}

fn check(packet: &Packet) -> Result<(), EncodeError> {
    let (name, payload) = match packet {
        Packet::Pulse(pulse) => (&pulse.name, &pulse.payload),
        Packet::MailboxNextResp {
            header_only,
            next: Next::Mail { size, name, payload, .. },
            ..
        } => {
            if *size == 0 || *header_only && !payload.is_empty() {
                return Err(EncodeError::Contradiction);
            }
            (name, payload)
        }
        Packet::CloseConnection { .. }
        | Packet::Connect(_)
        | Packet::Connected { .. }
        | Packet::Unauthorized(_)
        | Packet::ConnectFailed(_)
        | Packet::Heartbeat
        | Packet::HeartbeatAck { .. }
        | Packet::PulseResp { .. }
        | Packet::NewMailEvent
        | Packet::MailboxNext { .. }
        | Packet::MailboxNextResp { .. }
        | Packet::AckMail { .. }
        | Packet::AckMailResp { .. } => return Ok(()),
    };
    if name.len() > NAME_BYTES_MAX {
        return Err(EncodeError::NameTooLong);
    }
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(EncodeError::PayloadTooLong);
    }
    Ok(())
}

fn put_connect(connect: &Connect, output: &mut BytesMut) {
    let format = match connect.format {
        Format::MsgPack => 1,
        Format::Json => 2,
    };
    output.put_slice(&[u8::from(connect.keep_alive), connect.version, format]);
    output.put_slice(&connect.credentials.fleet);
    output.put_slice(&connect.credentials.device);
    output.put_slice(&connect.credentials.secret);
}

fn put_pulse(pulse: &Pulse, output: &mut BytesMut) {
    output.put_slice(&[0, pulse.kind as u8]);
    output.put_u64(pulse.txn);
    put_name(pulse.name.as_bytes(), output);
    put_payload(&pulse.payload, output);
}

fn put_next(txn: u64, header_only: bool, next: &Next, output: &mut BytesMut) {
    output.put_u8(flags(header_only, !matches!(next, Next::Failed { .. })));
    output.put_u64(txn);
    match next {
        Next::Failed { size } => output.put_u16(*size),
        Next::Empty => output.put_u16(0),
        Next::Mail { size, id, name, payload } => {
            output.put_u16(*size);
            output.put_u128(id.0);
            put_name(name.as_bytes(), output);
            if !header_only {
                put_payload(payload, output);
            }
        }
    }
}

fn put_name(name: &[u8], output: &mut BytesMut) {
    output.put_u8(u8::try_from(name.len()).expect("checked before anything was written"));
    output.put_slice(name);
}

fn put_payload(payload: &[u8], output: &mut BytesMut) {
    output.put_u32(u32::try_from(payload.len()).expect("checked before anything was written"));
    output.put_slice(payload);
}
