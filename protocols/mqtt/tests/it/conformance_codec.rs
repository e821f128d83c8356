//! Statements of the standard about packets that no other test is about: docs/mqtt-conformance.md names them.

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::QoS;
use moorline_mqtt::{
    Packet, Reason, Version,
    codec::{DecodeError, Decoder, Limits, Publish, SubAck, UnsubAck, encode},
};

use crate::support::{connect, disconnect, id, publish, refusal, subscribe, unhex, unsubscribe};

const BOTH: [Version; 2] = [Version::V311, Version::V5];

fn put_field(out: &mut BytesMut, field: &[u8]) {
    out.put_u16(u16::try_from(field.len()).unwrap());
    out.put_slice(field);
}

/// A packet of a short body.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, u8::try_from(body.len()).unwrap()];
    assert!(bytes[1] < 0x80, "a test's packet has a one-byte length");
    bytes.extend_from_slice(body);
    bytes
}

fn decode(version: Version, bytes: &[u8]) -> Result<Option<Packet>, DecodeError> {
    let mut decoder = match bytes[0] >> 4 {
        1 => Decoder::server(Limits::default()),
        2 | 9 | 11 | 13 => Decoder::client(version, Limits::default()),
        _ => Decoder::server_after_connect(version, Limits::default()),
    };
    decoder.decode(&mut BytesMut::from(bytes))
}

/// A CONNECT with every text there is; `at` is which of them holds `text`, the others hold `t`.
fn connect_with(version: Version, at: usize, text: &[u8]) -> Vec<u8> {
    let text_at = |n: usize| if n == at { text } else { b"t" };
    let mut body = BytesMut::from(&b"\x00\x04MQTT"[..]);
    body.put_u8(version as u8);
    body.put_u8(0b1000_0110);
    body.put_u16(60);
    if version.is_v5() {
        body.put_u8(0);
    }
    put_field(&mut body, text_at(0));
    if version.is_v5() {
        body.put_u8(0);
    }
    put_field(&mut body, text_at(1));
    put_field(&mut body, b"payload");
    put_field(&mut body, text_at(2));
    packet(0x10, &body)
}

/// Each packet that carries text from a client, with `text` in one of its fields.
fn packets_with(version: Version, text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let v5 = version.is_v5();
    let body = |before: &[u8], after: &[u8]| {
        let mut body = BytesMut::from(before);
        put_field(&mut body, text);
        body.put_slice(after);
        body
    };
    let property = |id: &[u8], first: Option<&[u8]>, then: Option<&[u8]>| {
        let mut section = BytesMut::from(id);
        for field in first.into_iter().chain([text]).chain(then) {
            put_field(&mut section, field);
        }
        let mut body = BytesMut::from(&b"\x00\x01t"[..]);
        body.put_u8(u8::try_from(section.len()).unwrap());
        body.put_slice(&section);
        packet(0x30, &body)
    };
    let after_id: &[u8] = if v5 { b"\x00\x01\x00" } else { b"\x00\x01" };
    let mut packets = vec![
        ("client id", connect_with(version, 0, text)),
        ("will topic", connect_with(version, 1, text)),
        ("user name", connect_with(version, 2, text)),
        ("topic name", packet(0x30, &body(b"", if v5 { b"\x00" } else { b"" }))),
        ("topic filter", packet(0x82, &body(after_id, b"\x01"))),
        ("filter to end", packet(0xa2, &body(after_id, b""))),
    ];
    if v5 {
        packets.extend([
            ("content type", property(b"\x03", None, None)),
            ("response topic", property(b"\x08", None, None)),
            ("user property's name", property(b"\x26", None, Some(b"v"))),
            ("user property's value", property(b"\x26", Some(b"n"), None)),
        ]);
    }
    packets
}

#[test]
fn no_text_of_a_client_may_hold_surrogates_or_nul_and_a_byte_order_mark_stays() {
    for version in BOTH {
        for broken in [&b"a\xed\xa0\x80"[..], b"\xed\xbf\xbf", b"\xff", b"\xc0\x80", b"a\0b"] {
            for (field, bytes) in packets_with(version, broken) {
                let refused = decode(version, &bytes).unwrap_err();
                assert_eq!(refused.reason(), Reason::MalformedPacket, "{field} {broken:02x?}");
            }
        }
        for (field, bytes) in packets_with(version, b"\xef\xbb\xbfa") {
            let packet = decode(version, &bytes).unwrap().unwrap();
            let mut again = BytesMut::new();
            encode(&packet, version, &mut again).unwrap();
            assert_eq!(again, bytes, "{field}: nothing was stripped or skipped");
        }
    }
}

#[test]
fn every_reserved_flag_of_every_packet_is_checked() {
    // Type, and what its flags have to be.
    let types = [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15].map(|kind: u8| {
        let expected = if matches!(kind, 6 | 8 | 10) { 0b0010 } else { 0 };
        (kind, expected)
    });
    for version in BOTH {
        for (kind, expected) in types {
            for flags in (0..16).filter(|&flags| flags != expected) {
                let bytes = match kind {
                    1 => {
                        let mut bytes = connect_with(version, 9, b"");
                        bytes[0] |= flags;
                        bytes
                    }
                    _ => packet(kind << 4 | flags, b"\x00\x01\x00\x00\x01t\x00"),
                };
                let refused = decode(version, &bytes).unwrap_err();
                assert_eq!(refused.reason(), Reason::MalformedPacket, "{kind} {flags:04b}");
            }
        }
    }
}

#[test]
fn what_carries_no_properties_and_no_packet_id_says_so() {
    let suback = SubAck { id: id(1), properties: None, reasons: vec![Reason::Success] };
    let unsuback = UnsubAck { id: id(1), properties: None, reasons: vec![Reason::Success] };
    let mut exactly_once = publish("t", QoS::ExactlyOnce, 7);
    exactly_once.payload = Bytes::new();
    let at_most_once = Publish { qos: QoS::AtMostOnce, id: None, ..exactly_once.clone() };
    #[rustfmt::skip]
    let table = [
        (Packet::Connect(Box::new(connect(Version::V5))),   "100e 0004 4d515454 05 02 003c 00 0001 63"),
        (Packet::ConnAck(Box::new(refusal(Reason::Success))), "2003 00 00 00"),
        (Packet::Publish(at_most_once),                     "3004 0001 74 00"),
        (Packet::Publish(exactly_once),                     "3406 0001 74 0007 00"),
        (Packet::Subscribe(subscribe(1, &[("t", QoS::AtLeastOnce)])), "8207 0001 00 0001 74 01"),
        (Packet::SubAck(suback),                            "9004 0001 00 00"),
        (unsubscribe(1, &["t"]),                            "a206 0001 00 0001 74"),
        (Packet::UnsubAck(unsuback),                        "b004 0001 00 00"),
        (disconnect(Reason::Success, None),                 "e000"),
    ];
    for (packet, hex) in table {
        let mut bytes = BytesMut::new();
        encode(&packet, Version::V5, &mut bytes).unwrap();
        assert_eq!(bytes, unhex(&hex.replace(' ', ""))[..], "{packet:?}");
    }
}

/// A CONNECT with these flags and, behind the client id, exactly these parts of the payload.
fn connect_parts(version: Version, flags: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut body = BytesMut::from(&b"\x00\x04MQTT"[..]);
    body.put_u8(version as u8);
    body.put_u8(flags);
    body.put_u16(60);
    if version.is_v5() {
        body.put_u8(0);
    }
    put_field(&mut body, b"id");
    if version.is_v5() && flags & 0b100 != 0 {
        body.put_u8(0);
    }
    parts.iter().for_each(|part| put_field(&mut body, part));
    packet(0x10, &body)
}

#[test]
fn the_flags_of_a_connect_say_exactly_what_its_payload_holds() {
    const USER: u8 = 0x80;
    const PASSWORD: u8 = 0x40;
    const WILL: u8 = 0x04;
    let (topic, body): (&[u8], &[u8]) = (b"will/topic", b"will body");
    let (user, password): (&[u8], &[u8]) = (b"user", b"password");
    #[rustfmt::skip]
    let table: [(u8, &[&[u8]], bool); 14] = [
        (0,                      &[],                            true),
        (0,                      &[user],                        false),
        (USER,                   &[user],                        true),
        (USER,                   &[],                            false),
        (USER,                   &[user, password],              false),
        (USER | PASSWORD,        &[user, password],              true),
        (USER | PASSWORD,        &[user],                        false),
        (WILL,                   &[topic, body],                 true),
        (WILL,                   &[topic],                       false),
        (WILL,                   &[],                            false),
        (WILL | USER | PASSWORD, &[topic, body, user, password], true),
        // Will QoS and RETAIN without a will.
        (0x08,                   &[],                            false),
        (0x10,                   &[],                            false),
        (0x20,                   &[],                            false),
    ];
    for version in BOTH {
        for (flags, parts, accepted) in table {
            let decoded = decode(version, &connect_parts(version, flags, parts));
            assert_eq!(decoded.is_ok(), accepted, "{version:?} {flags:08b} {parts:?}");
        }
        let whole = connect_parts(version, 0b1111_0110, &[topic, body, user, password]);
        let Ok(Some(Packet::Connect(connect))) = decode(version, &whole) else { panic!() };
        let will = connect.will.unwrap();
        assert_eq!((connect.client_id.as_bytes(), will.topic.as_bytes()), (&b"id"[..], topic));
        assert_eq!((&will.payload[..], will.qos, will.retain), (body, QoS::ExactlyOnce, true));
        let login = (connect.username.unwrap(), connect.password.unwrap());
        assert_eq!((login.0.as_bytes(), &login.1[..]), (user, password));
    }
    // Only MQTT 5 allows a password alone.
    let alone = |version| decode(version, &connect_parts(version, PASSWORD, &[password])).is_ok();
    assert_eq!(BOTH.map(alone), [false, true]);
}

#[test]
fn a_client_id_of_1_to_23_letters_and_digits_is_taken_in_every_version() {
    let letters = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for version in BOTH {
        for len in 1..=23 {
            for from in [0, 20, letters.len() - len] {
                let bytes = connect_with(version, 0, &letters[from..from + len]);
                let Ok(Some(Packet::Connect(connect))) = decode(version, &bytes) else { panic!() };
                assert_eq!(connect.client_id.as_bytes(), &letters[from..from + len]);
            }
        }
    }
}

#[test]
fn an_answer_of_311_has_only_the_codes_of_311() {
    let encoded = |packet: &Packet| {
        let mut bytes = BytesMut::new();
        encode(packet, Version::V311, &mut bytes).unwrap();
        bytes.to_vec()
    };
    for code in 0..=u8::MAX {
        let Some(reason) = Reason::from_code(code) else { continue };
        let connack = encoded(&Packet::ConnAck(Box::new(refusal(reason))));
        assert!(connack[3] <= 5 && (connack[3] == 0) == (code == 0), "{reason:?}");
        if reason.is_error() {
            let reasons = vec![Reason::GrantedQoS1, reason];
            let suback = SubAck { id: id(1), properties: None, reasons };
            assert_eq!(encoded(&Packet::SubAck(suback))[4..], [1, 0x80], "{reason:?}");
        }
    }
    let mut named = refusal(Reason::Success);
    named.session_present = true;
    assert_eq!(
        encoded(&Packet::ConnAck(Box::new(named))),
        [0x20, 2, 1, 0],
        "one flag, seven zeros"
    );
}

#[test]
fn a_property_of_another_packet_is_forbidden_once_its_value_is_read() {
    // Receive Maximum, which only CONNECT and CONNACK have; then with its value cut off.
    for (kind, before, readable) in [
        (0x30, &b"\x00\x01t"[..], Reason::ProtocolError),
        (0x40, b"\x00\x01\x00", Reason::ProtocolError),
        (0x62, b"\x00\x01\x00", Reason::ProtocolError),
        (0xe0, b"\x00", Reason::ProtocolError),
        (0x82, b"\x00\x01", Reason::MalformedPacket),
        (0xa2, b"\x00\x01", Reason::MalformedPacket),
    ] {
        for (section, reason) in
            [(&b"\x03\x21\x00\x01"[..], readable), (b"\x02\x21\x00", Reason::MalformedPacket)]
        {
            let body = [before, section].concat();
            let refused = decode(Version::V5, &packet(kind, &body)).unwrap_err();
            assert_eq!(refused.reason(), reason, "{kind:02x} {section:02x?}");
        }
    }
}
