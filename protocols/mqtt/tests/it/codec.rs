//! Packets of every type: there and back, and cut anywhere; limits and what has no form.

use bytes::{BufMut, BytesMut};
use moorline_core::{QoS, Text};
use moorline_mqtt::{
    Packet, Version,
    codec::{Connect, DecodeError, Decoder, Limits, Outgoing, Quota, Unsubscribe, encode},
};
use proptest::{prelude::*, sample::select};

use crate::{
    packets::{any_version_and_packet, decoder_of},
    support::{VERSIONS, id, publish, unhex},
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn packets_come_back_as_they_went((version, packet) in any_version_and_packet(), cut in any::<u16>()) {
        let mut bytes = BytesMut::new();
        encode(&packet, version, &mut bytes).unwrap();
        if let Packet::Publish(publish) = &packet {
            prop_assert_eq!(Outgoing::from(publish).encoded_len(version).unwrap(), bytes.len());
        }

        let mut decoder = decoder_of(&packet, version);
        let mut input = bytes.clone();
        let rest = input.split_off(usize::from(cut) % bytes.len());
        prop_assert_eq!(decoder.decode(&mut input).unwrap(), None);
        input.unsplit(rest);
        prop_assert_eq!(decoder.decode(&mut input).unwrap(), Some(packet));
        prop_assert!(input.is_empty());
    }

    #[test]
    fn no_bytes_make_the_decoder_panic_or_depend_on_cuts(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        first in any::<u8>(),
        version in select(&VERSIONS[..]),
        cut in 0..65usize,
    ) {
        let whole: Vec<u8> = std::iter::once(first)
            .chain([u8::try_from(bytes.len()).unwrap()]).chain(bytes).collect();
        for mut decoder in [
            Decoder::server(Limits::default()),
            Decoder::server_after_connect(version, Limits::default()),
            Decoder::client(version, Limits::default()),
        ] {
            let mut again = decoder.clone();
            let at_once = decoder.decode(&mut BytesMut::from(&whole[..]));
            let mut input = BytesMut::from(&whole[..cut.min(whole.len())]);
            let mut in_parts = again.decode(&mut input);
            if in_parts == Ok(None) {
                input.extend_from_slice(&whole[cut.min(whole.len())..]);
                in_parts = again.decode(&mut input);
            }
            prop_assert_eq!(at_once, in_parts);
        }
    }
}

#[test]
fn a_packet_over_the_limit_is_refused_from_its_header() {
    let limits = Limits { packet_bytes: 100, ..Limits::default() };
    for (header, size) in [("3062", None), ("3063", Some(101)), ("30ffffff7f", Some(268_435_460))] {
        let mut decoder = Decoder::server_after_connect(Version::V5, limits);
        let expected = match size {
            None => Ok(None),
            Some(size) => Err(DecodeError::TooLarge { size, limit: 100 }),
        };
        assert_eq!(decoder.decode(&mut BytesMut::from(&unhex(header)[..])), expected, "{header}");
    }
}

#[test]
fn of_a_connect_over_the_limit_only_the_version_is_waited_for() {
    let limits = Limits { packet_bytes: 100, ..Limits::default() };
    let mut decoder = Decoder::server(limits);
    let mut input = BytesMut::from(&b"\x10\xff\xff\x01\x00\x04MQ"[..]);
    assert_eq!(decoder.decode(&mut input), Ok(None));
    input.extend_from_slice(b"TT\x05\x02\x00\x00");
    let refused = decoder.decode(&mut input).unwrap_err();
    assert!(matches!(refused, DecodeError::TooLarge { .. }), "{refused:?}");
    assert_eq!(decoder.version(), Some(Version::V5));
}

#[test]
fn what_travels_on_is_one_slice_unless_something_stands_in_its_middle() {
    let content_type = b"\x03\x00\x01x";
    let user = b"\x26\x00\x01k\x00\x01v";
    let expiry = b"\x02\x00\x00\x00\x09";
    let alias = b"\x23\x00\x04";
    #[rustfmt::skip]
    let table: [&[&[u8]]; 6] = [
        &[content_type, user],           &[expiry, content_type, user],
        &[content_type, user, alias],    &[expiry, content_type, user, alias],
        &[content_type, expiry, user],   &[content_type, alias, user, expiry],
    ];
    for sections in table {
        let section = sections.concat();
        let mut bytes = BytesMut::from(&b"\x30\x00\x00\x01t"[..]);
        bytes.put_u8(u8::try_from(section.len()).unwrap());
        bytes.put_slice(&section);
        bytes[1] = u8::try_from(bytes.len() - 2).unwrap();
        let mut decoder = Decoder::server_after_connect(Version::V5, Limits::default());
        let Some(Packet::Publish(publish)) = decoder.decode(&mut bytes).unwrap() else { panic!() };
        assert_eq!(publish.properties, [&content_type[..], user].concat());
        assert_eq!(publish.expiry_s.is_some(), sections.contains(&&expiry[..]));
        assert_eq!(publish.alias.is_some(), sections.contains(&&alias[..]));
    }
}

#[test]
fn too_many_of_something_is_a_quota_and_not_memory() {
    let limits = Limits { user_properties: 2, filters: 2, property_bytes: 3, ..Limits::default() };
    let user = "260000 0000".replace(' ', "");
    let long = "260001 61 0001 62".replace(' ', "");
    let two_long = format!("30130001740e{long}{long}");
    let reason = "4009000180071f0004 61616161".replace(' ', "");
    let three = format!("30130001740f{user}{user}{user}");
    let many_filters = "82110001 00 0001610000016200000163 00".replace(' ', "");
    for (hex, what) in [
        (three, Quota::UserProperties),
        (two_long, Quota::PropertyBytes),
        (reason, Quota::PropertyBytes),
        (many_filters, Quota::Filters),
    ] {
        let mut bytes = BytesMut::from(&unhex(&hex)[..]);
        bytes[1] = u8::try_from(bytes.len() - 2).unwrap();
        let mut decoder = Decoder::server_after_connect(Version::V5, limits);
        assert_eq!(decoder.decode(&mut bytes), Err(DecodeError::Quota(what)));
    }
}

#[test]
fn what_has_no_form_on_the_wire_is_refused_and_leaves_nothing() {
    let mut out = BytesMut::new();
    let long = "x".repeat(65_536);
    let too_long = Packet::Publish(publish(&long, QoS::AtMostOnce, 0));
    assert!(encode(&too_long, Version::V5, &mut out).is_err());
    let filters = vec![Text::from(long.as_str())];
    let unsubscribe = Packet::Unsubscribe(Unsubscribe { id: id(1), user: Vec::new(), filters });
    assert!(encode(&unsubscribe, Version::V311, &mut out).is_err());
    assert!(encode(&Packet::Auth(Box::default()), Version::V311, &mut out).is_err());
    assert!(out.is_empty());
}

#[test]
fn mqtt_31_reserved_no_flags() {
    #[rustfmt::skip]
    let table = [
        ("100f00064d514973647003010 00a000170", Version::V31,  true),
        ("140f00064d514973647003000 00a000170", Version::V31,  true),
        ("140d00044d51545404020 00a000170",     Version::V311, false),
        ("8a06123400017000",                    Version::V31,  true),
        ("8a06123400017000",                    Version::V311, false),
        ("8006123400017000",                    Version::V31,  false),
        ("6a021234",                            Version::V31,  true),
        ("6a021234",                            Version::V5,   false),
    ];
    for (hex, version, accepted) in table {
        let bytes = unhex(&hex.replace(' ', ""));
        let mut decoder = match bytes[0] >> 4 {
            1 => Decoder::server(Limits::default()),
            _ => Decoder::server_after_connect(version, Limits::default()),
        };
        assert_eq!(decoder.decode(&mut BytesMut::from(&bytes[..])).is_ok(), accepted, "{hex}");
    }
}

/// CONNECT of client `c` in MQTT 3.1, with these flags and fields after the client id.
fn connect_31(flags: u8, fields: &[u8]) -> Result<Connect, DecodeError> {
    let body = [b"\0\x06MQIsdp\x03", &[flags][..], b"\0\x3c\0\x01c", fields].concat();
    let packet = [&[0x10, u8::try_from(body.len()).unwrap()], &body[..]].concat();
    match Decoder::server(Limits::default()).decode(&mut BytesMut::from(&packet[..]))? {
        Some(Packet::Connect(connect)) => Ok(*connect),
        other => panic!("{other:?}"),
    }
}

#[test]
fn mqtt_31_disregards_the_flags_of_a_will_that_is_not_there() {
    for flags in [0x08, 0x10, 0x18, 0x20, 0x39] {
        let connect = connect_31(flags, b"").unwrap();
        assert_eq!((connect.version, connect.will), (Version::V31, None), "{flags:#x}");
    }
    assert!(connect_31(0x1c, b"\0\x01w\0\0").is_err(), "QoS 3 of a will that is there");
}

/// User name and password.
type Login<'a> = (Option<&'a str>, Option<&'a [u8]>);

#[test]
fn mqtt_31_lets_the_length_decide_whether_a_user_name_follows() {
    #[rustfmt::skip]
    let table: [(u8, &[u8], Option<Login<'_>>); 6] = [
        (0xc0, b"\0\x01u\0\x01p", Some((Some("u"), Some(b"p")))),
        (0xc0, b"\0\x01u",        Some((Some("u"), None))),
        (0xc0, b"",                Some((None, None))),
        (0x80, b"",                Some((None, None))),
        (0x80, b"\0\x02u",        None),
        (0x40, b"\0\x01p",        None),
    ];
    for (flags, fields, expected) in table {
        let read = connect_31(flags, fields).ok();
        let read = read
            .as_ref()
            .map(|c| (c.username.as_ref().map(|name| name.as_str()), c.password.as_deref()));
        assert_eq!(read, expected, "{flags:#x} {fields:x?}");
    }
}
