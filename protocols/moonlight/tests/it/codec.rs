//! What the codec refuses, and what holds for any packet and any bytes.

use bytes::{Bytes, BytesMut};
use moorline_core::{
    Text,
    op::{Format, MailId, Settlement},
};
use moorline_moonlight::{
    DecodeError, EncodeError, Packet,
    codec::{
        Connect, ConnectFailedReason, Credentials, NAME_BYTES_MAX, Next, PAYLOAD_BYTES_MAX,
        PacketType, Pulse, PulseError, PulseKind, Side, UnauthorizedReason,
    },
    encode,
};
use proptest::prelude::*;

use crate::support::{MAIL, bytes_of, decode, unhex};

#[test]
fn what_is_not_version_1_is_refused() {
    use Side::{Client, Server};
    let flags = |packet, flags| DecodeError::ReservedFlags { packet, flags };
    #[rustfmt::skip]
    let table = [
        (Client, "00",       DecodeError::UnknownType(0)),
        (Client, "1b",       DecodeError::UnknownType(27)),
        (Client, "47",       DecodeError::UnknownType(b'G')),
        (Server, "06",       DecodeError::UnknownType(6)),
        (Client, "03",       DecodeError::WrongSide(PacketType::Connected)),
        (Server, "08",       DecodeError::WrongSide(PacketType::Heartbeat)),
        (Client, "0880",     flags(PacketType::Heartbeat, 0x80)),
        (Client, "0840",     flags(PacketType::Heartbeat, 0x40)),
        (Client, "0801",     flags(PacketType::Heartbeat, 0x01)),
        (Client, "0281",     flags(PacketType::Connect, 0x81)),
        (Client, "0a40",     flags(PacketType::Pulse, 0x40)),
        (Server, "0304",     flags(PacketType::Connected, 0x04)),
        (Server, "0b02",     flags(PacketType::PulseResp, 0x02)),
        (Client, "0101",     DecodeError::CloseConnection),
        (Server, "0100",     DecodeError::CloseConnection),
        (Server, "1401",     DecodeError::NewMailEvent(1)),
        (Server, "1480",     DecodeError::NewMailEvent(0x80)),
        (Client, "0a0004 0000000000000007 00 00000000", DecodeError::PulseType(4)),
        (Client, "0a0002 0000000000000007 01ff 00000000", DecodeError::Name),
        (Client, "0a0002 0000000000000007 00 00010001", DecodeError::PayloadTooLong(65_537)),
        (Client, "0a0002 0000000000000007 00 ffffffff", DecodeError::PayloadTooLong(u32::MAX)),
        (Server, "1601 0000000000000007 0001 018f4d1f2a557f0eb4ea5f7c3e6fa001 00 00010001", DecodeError::PayloadTooLong(65_537)),
        (Client, "1900 018f4d1f2a557f0eb4ea5f7c3e6fa001 00", DecodeError::Settlement(0)),
        (Client, "1900 018f4d1f2a557f0eb4ea5f7c3e6fa001 04", DecodeError::Settlement(4)),
    ];
    for (from, hex, error) in table {
        for step in [1, usize::MAX] {
            assert_eq!(decode(from, &unhex(hex), step), (vec![], Some(error)), "{hex}");
        }
    }
    for format in [0, 3] {
        let mut connect = unhex("02010100");
        connect[3] = format;
        connect.resize(58, b'A');
        let expected = (vec![], Some(DecodeError::Serialisation(format)));
        assert_eq!(decode(Client, &connect, usize::MAX), expected);
    }
}

#[test]
fn reasons_that_nobody_knows_are_read_as_unknown() {
    #[rustfmt::skip]
    let table = [
        ("040007", Packet::Unauthorized(UnauthorizedReason::Unknown)),
        ("0500ff", Packet::ConnectFailed(ConnectFailedReason::Unknown)),
        ("0b00 0000000000000007 04", Packet::PulseResp { txn: 7, result: Err(PulseError::Unknown) }),
    ];
    for (hex, packet) in table {
        assert_eq!(decode(Side::Server, &unhex(hex), 1), (vec![packet], None));
    }
}

#[test]
fn what_the_wire_cannot_carry_is_not_written() {
    let pulse = |name: usize, payload: usize| {
        Packet::Pulse(Pulse {
            kind: PulseKind::Message,
            txn: 0,
            name: Text::from("n".repeat(name)),
            payload: Bytes::from(vec![0; payload]),
        })
    };
    let next = |size, header_only, payload| {
        let next = Next::Mail { size, id: MAIL, name: Text::from("n"), payload };
        Packet::MailboxNextResp { txn: 0, header_only, next }
    };
    let one = Bytes::from_static(b"1");
    let large = Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]);
    #[rustfmt::skip]
    let table = [
        (pulse(NAME_BYTES_MAX, PAYLOAD_BYTES_MAX),     Ok(())),
        (pulse(NAME_BYTES_MAX + 1, 0),                 Err(EncodeError::NameTooLong)),
        (pulse(0, PAYLOAD_BYTES_MAX + 1),              Err(EncodeError::PayloadTooLong)),
        (next(1, false, one.clone()),                  Ok(())),
        (next(0, false, one.clone()),                  Err(EncodeError::Contradiction)),
        (next(1, true, one),                           Err(EncodeError::Contradiction)),
        (next(1, false, large),                        Err(EncodeError::PayloadTooLong)),
    ];
    for (packet, expected) in table {
        let mut output = BytesMut::from(&b"before"[..]);
        assert_eq!(encode(&packet, &mut output), expected);
        assert_eq!(expected.is_err(), output.len() == b"before".len());
    }
}

fn name() -> impl Strategy<Value = Text> {
    "[A-Za-z0-9_-]{0,255}".prop_map(Text::from)
}

fn payload() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn settlement() -> impl Strategy<Value = Settlement> {
    prop_oneof![Just(Settlement::Ack), Just(Settlement::Reject), Just(Settlement::Requeue)]
}

fn client_packet() -> impl Strategy<Value = Packet> {
    let kinds = [PulseKind::Unknown, PulseKind::System, PulseKind::Datapoint, PulseKind::Message];
    let credentials = (any::<[u8; 8]>(), any::<[u8; 10]>(), any::<[u8; 32]>());
    let credentials = credentials.prop_map(|(fleet, device, end)| {
        let mut secret = [b'x'; 36];
        secret[4..].copy_from_slice(&end);
        Credentials { fleet, device, secret }
    });
    let connect = (any::<bool>(), any::<u8>(), any::<bool>(), credentials).prop_map(
        |(keep_alive, version, json, credentials)| {
            let format = if json { Format::Json } else { Format::MsgPack };
            Packet::Connect(Box::new(Connect { keep_alive, version, format, credentials }))
        },
    );
    let pulse = (proptest::sample::select(kinds.to_vec()), any::<u64>(), name(), payload())
        .prop_map(|(kind, txn, name, payload)| Packet::Pulse(Pulse { kind, txn, name, payload }));
    prop_oneof![
        Just(Packet::CloseConnection { from: Side::Client }),
        Just(Packet::Heartbeat),
        connect,
        pulse,
        (any::<u64>(), any::<bool>())
            .prop_map(|(txn, header_only)| Packet::MailboxNext { txn, header_only }),
        (any::<u128>(), settlement())
            .prop_map(|(id, settlement)| Packet::AckMail { id: MailId(id), settlement }),
    ]
}

fn server_packet() -> impl Strategy<Value = Packet> {
    let mail = (1..=u16::MAX, any::<u128>(), name(), payload());
    let next = (any::<bool>(), mail).prop_map(|(header_only, (size, id, name, payload))| {
        let payload = if header_only { Bytes::new() } else { payload };
        let next = Next::Mail { size, id: MailId(id), name, payload };
        Packet::MailboxNextResp { txn: 1, header_only, next }
    });
    let failed = (any::<u16>(), any::<bool>()).prop_map(|(size, header_only)| {
        Packet::MailboxNextResp { txn: 2, header_only, next: Next::Failed { size } }
    });
    prop_oneof![
        Just(Packet::CloseConnection { from: Side::Server }),
        Just(Packet::NewMailEvent),
        Just(Packet::HeartbeatAck { success: true }),
        Just(Packet::Unauthorized(UnauthorizedReason::DeviceDisabled)),
        Just(Packet::ConnectFailed(ConnectFailedReason::Restarting)),
        Just(Packet::MailboxNextResp { txn: 3, header_only: true, next: Next::Empty }),
        (any::<u64>(), any::<bool>()).prop_map(|(txn, ok)| {
            let result = if ok { Ok(()) } else { Err(PulseError::SchemaTypeMismatch) };
            Packet::PulseResp { txn, result }
        }),
        next,
        failed,
        (any::<bool>(), any::<u16>(), any::<u128>(), settlement()).prop_map(
            |(success, size, id, settlement)| Packet::AckMailResp {
                success,
                size,
                id: MailId(id),
                settlement
            }
        ),
    ]
}

proptest! {
    #[test]
    fn packets_come_back_however_they_are_cut(
        client in proptest::collection::vec(client_packet(), 0..6),
        server in proptest::collection::vec(server_packet(), 0..6),
        step in 1..200usize,
    ) {
        for (side, packets) in [(Side::Client, client), (Side::Server, server)] {
            let stream: Vec<u8> = packets.iter().flat_map(bytes_of).collect();
            prop_assert_eq!(&decode(side, &stream, usize::MAX), &(packets.clone(), None));
            prop_assert_eq!(decode(side, &stream, step), (packets, None));
        }
    }

    #[test]
    fn any_bytes_end_the_same_however_they_are_cut(
        first in proptest::sample::select(PacketType::ALL.to_vec()),
        rest in proptest::collection::vec(any::<u8>(), 0..120),
        step in 1..20usize,
    ) {
        let mut bytes = vec![first as u8];
        bytes.extend(rest);
        for side in [Side::Client, Side::Server] {
            let whole = decode(side, &bytes, usize::MAX);
            prop_assert_eq!(&decode(side, &bytes, step), &whole);
            for packet in whole.0 {
                let again = decode(side, &bytes_of(&packet), 1);
                prop_assert_eq!(again, (vec![packet], None));
            }
        }
    }
}
