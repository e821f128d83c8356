//! The wire format to the byte: the vectors that a real agent was seen to send and accept.

use bytes::Bytes;
use moorline_core::{Text, op::Settlement};
use moorline_moonlight::{
    Packet,
    codec::{
        ConnectFailedReason, Next, PacketType, Pulse, PulseError, PulseKind, Side,
        UnauthorizedReason,
    },
};

use crate::support::{MAIL, bytes_of, connect, decode, unhex};

fn pulse(kind: PulseKind, name: &str, payload: &'static [u8]) -> Packet {
    let payload = Bytes::from_static(payload);
    Packet::Pulse(Pulse { kind, txn: 7, name: Text::from(name), payload })
}

fn next(header_only: bool, next: Next) -> Packet {
    Packet::MailboxNextResp { txn: 7, header_only, next }
}

fn mail(payload: &'static [u8]) -> Next {
    Next::Mail { size: 3, id: MAIL, name: Text::from("open"), payload: Bytes::from_static(payload) }
}

fn settled(success: bool, size: u16, settlement: Settlement) -> Packet {
    Packet::AckMailResp { success, size, id: MAIL, settlement }
}

#[rustfmt::skip]
fn vectors() -> Vec<(Side, &'static str, Packet)> {
    use Side::{Client, Server};
    vec![
        (Client, "02010102 464c454554303031 44455649434530303031 464f532d 3031323334353637 3839616263646566 6768696a6b6c6d6e 6f70717273747576", Packet::Connect(Box::new(connect()))),
        (Client, "0100",   Packet::CloseConnection { from: Client }),
        (Server, "0101",   Packet::CloseConnection { from: Server }),
        (Server, "0303",   Packet::Connected { mail_available: true, keep_alive: true }),
        (Server, "0301",   Packet::Connected { mail_available: false, keep_alive: true }),
        (Server, "040004", Packet::Unauthorized(UnauthorizedReason::SecretIncorrect)),
        (Server, "040000", Packet::Unauthorized(UnauthorizedReason::Unknown)),
        (Server, "040006", Packet::Unauthorized(UnauthorizedReason::TemporaryBan)),
        (Server, "050002", Packet::ConnectFailed(ConnectFailedReason::Unavailable)),
        (Server, "050003", Packet::ConnectFailed(ConnectFailedReason::Degraded)),
        (Client, "0800",   Packet::Heartbeat),
        (Server, "0901",   Packet::HeartbeatAck { success: true }),
        (Server, "0900",   Packet::HeartbeatAck { success: false }),
        (Client, "0a0002 0000000000000007 03656e76 0000000a 7b2274223a32312e357d", pulse(PulseKind::Datapoint, "env", b"{\"t\":21.5}")),
        (Client, "0a0003 0000000000000007 03656e76 00000004 6e756c6c", pulse(PulseKind::Message, "env", b"null")),
        (Client, "0a0001 0000000000000007 00 00000000", pulse(PulseKind::System, "", b"")),
        (Server, "0b01 0000000000000007",    Packet::PulseResp { txn: 7, result: Ok(()) }),
        (Server, "0b00 0000000000000007 02", Packet::PulseResp { txn: 7, result: Err(PulseError::SchemaNotFound) }),
        (Server, "1400", Packet::NewMailEvent),
        (Client, "1500 0000000000000007", Packet::MailboxNext { txn: 7, header_only: false }),
        (Client, "1501 0000000000000007", Packet::MailboxNext { txn: 7, header_only: true }),
        (Server, "1601 0000000000000007 0003 018f4d1f2a557f0eb4ea5f7c3e6fa001 04 6f70656e 0000000a 7b2267617465223a317d".trim_end(), next(false, mail(b"{\"gate\":1}"))),
        (Server, "1603 0000000000000007 0003 018f4d1f2a557f0eb4ea5f7c3e6fa001 04 6f70656e", next(true, mail(b""))),
        (Server, "1601 0000000000000007 0000", next(false, Next::Empty)),
        (Server, "1600 0000000000000007 0000", next(false, Next::Failed { size: 0 })),
        (Client, "1900 018f4d1f2a557f0eb4ea5f7c3e6fa001 01", Packet::AckMail { id: MAIL, settlement: Settlement::Ack }),
        (Client, "1900 018f4d1f2a557f0eb4ea5f7c3e6fa001 03", Packet::AckMail { id: MAIL, settlement: Settlement::Requeue }),
        (Server, "1a01 0002 018f4d1f2a557f0eb4ea5f7c3e6fa001 01", settled(true, 2, Settlement::Ack)),
        (Server, "1a00 0000 018f4d1f2a557f0eb4ea5f7c3e6fa001 01", settled(false, 0, Settlement::Ack)),
        (Server, "1a01 ffff 018f4d1f2a557f0eb4ea5f7c3e6fa001 02", settled(true, u16::MAX, Settlement::Reject)),
    ]
}

#[test]
fn every_vector_is_written_and_read_to_the_byte() {
    for (from, hex, packet) in vectors() {
        assert_eq!(bytes_of(&packet), unhex(hex), "{packet:?}");
        assert_eq!(decode(from, &unhex(hex), usize::MAX), (vec![packet], None), "{hex}");
    }
}

#[test]
fn every_packet_type_has_a_vector() {
    let all: Vec<PacketType> = vectors().iter().map(|(_, _, p)| p.packet_type()).collect();
    for packet_type in PacketType::ALL {
        assert!(all.contains(&packet_type), "{packet_type:?}");
        assert_eq!(PacketType::from_byte(packet_type as u8), Some(packet_type));
    }
}

#[test]
fn vectors_survive_any_cut_and_coalescing() {
    for side in [Side::Client, Side::Server] {
        let (mut stream, mut packets) = (Vec::new(), Vec::new());
        for (from, hex, packet) in vectors() {
            if from == side {
                stream.extend(unhex(hex));
                packets.push(packet);
            }
        }
        for step in (1..=stream.len()).rev() {
            assert_eq!(decode(side, &stream, step), (packets.clone(), None), "{side:?}, {step}");
        }
    }
}
