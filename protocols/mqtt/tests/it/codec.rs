//! Packets of every type, made up: there and back, and cut anywhere.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::{QoS, Text};
use moorline_mqtt::{
    Packet, PacketId, Reason, Version,
    codec::{
        Ack, AckProperties, Auth, ConnAck, ConnAckProperties, Connect, ConnectProperties,
        DecodeError, Decoder, Disconnect, Limits, Outgoing, Publish, RetainHandling, SubAck,
        Subscribe, SubscribeFilter, UnsubAck, Unsubscribe, UserProperties, Will, encode,
    },
};
use proptest::{option, prelude::*, sample::select};

use crate::support::{VERSIONS, id, publish, unhex};

fn text() -> impl Strategy<Value = Text> {
    "[a-zA-Z0-9é\u{1f600}\u{feff} \\n/+#]{0,12}".prop_map(|text| Text::from(text.as_str()))
}

fn name() -> impl Strategy<Value = Text> {
    "[a-zé\u{1f600}/ ]{0,9}".prop_map(|name| Text::from(format!("t{name}").as_str()))
}

fn binary() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..24).prop_map(Bytes::from)
}

fn user() -> impl Strategy<Value = UserProperties> {
    prop::collection::vec((text(), text()), 0..3)
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(id)
}

fn qos() -> impl Strategy<Value = QoS> {
    select(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][..])
}

fn reason(codes: &'static [u8]) -> impl Strategy<Value = Reason> {
    select(codes).prop_map(|code| Reason::from_code(code).unwrap())
}

/// Message properties in wire form.
fn message_properties() -> impl Strategy<Value = Bytes> {
    (
        option::of(any::<bool>()),
        option::of(text()),
        option::of(name()),
        option::of(binary()),
        user(),
    )
        .prop_map(|(format, content_type, response, correlation, user)| {
            let mut section = BytesMut::new();
            let mut field = |id: u8, field: &[u8]| {
                section.put_u8(id);
                section.put_u16(u16::try_from(field.len()).unwrap());
                section.put_slice(field);
            };
            if let Some(content_type) = content_type {
                field(0x03, content_type.as_bytes());
            }
            if let Some(response) = response {
                field(0x08, response.as_bytes());
            }
            if let Some(correlation) = correlation {
                field(0x09, &correlation);
            }
            if let Some(format) = format {
                section.put_slice(&[0x01, u8::from(format)]);
            }
            for (name, value) in user {
                section.put_u8(0x26);
                for part in [name, value] {
                    section.put_u16(u16::try_from(part.len()).unwrap());
                    section.put_slice(part.as_bytes());
                }
            }
            section.freeze()
        })
}

fn any_publish(v5: bool) -> impl Strategy<Value = Packet> {
    let fifth = move |on: bool| v5 && on;
    (
        (qos(), any::<(bool, bool)>(), name(), packet_id(), binary()),
        (
            option::of(any::<u32>()),
            option::of(1..=u16::MAX),
            prop::collection::vec(1..=268_435_455u32, 0..3),
        ),
        (message_properties(), any::<(bool, bool)>()),
    )
        .prop_map(
            move |((qos, (dup, retain), topic, packet_id, payload), hop, (properties, with))| {
                let (expiry_s, alias, subscription_ids) = hop;
                let alias = alias.and_then(NonZeroU16::new).filter(|_| v5);
                Packet::Publish(Publish {
                    dup: dup && qos != QoS::AtMostOnce,
                    qos,
                    retain,
                    topic: if alias.is_some() && with.0 { Text::default() } else { topic },
                    id: Some(packet_id).filter(|_| qos != QoS::AtMostOnce),
                    expiry_s: expiry_s.filter(|_| v5),
                    alias,
                    subscription_ids: if fifth(with.1) { subscription_ids } else { Vec::new() },
                    properties: if v5 { properties } else { Bytes::new() },
                    payload,
                })
            },
        )
}

fn will(v5: bool) -> impl Strategy<Value = Will> {
    (
        name(),
        qos(),
        any::<bool>(),
        any::<(Option<u32>, Option<u32>)>(),
        message_properties(),
        binary(),
    )
        .prop_map(move |(topic, qos, retain, (delay_s, expiry_s), properties, payload)| Will {
            topic,
            qos,
            retain,
            delay_s: delay_s.filter(|_| v5),
            expiry_s: expiry_s.filter(|_| v5),
            properties: if v5 { properties } else { Bytes::new() },
            payload,
        })
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties> {
    (
        any::<(Option<u32>, Option<NonZeroU16>, Option<NonZeroU32>, Option<u16>)>(),
        any::<(Option<bool>, Option<bool>)>(),
        (user(), option::of((text(), option::of(binary())))),
    )
        .prop_map(|((expiry, receive, packet, alias), (response, problem), (user, auth))| {
            let (auth_method, auth_data) = auth.unzip();
            ConnectProperties {
                session_expiry_s: expiry,
                receive_max: receive,
                packet_max: packet,
                alias_max: alias,
                request_response: response,
                request_problem: problem,
                user,
                auth_method,
                auth_data: auth_data.flatten(),
            }
        })
}

fn any_connect(version: Version) -> impl Strategy<Value = Packet> {
    let v5 = version.is_v5();
    (
        (any::<(bool, u16)>(), name(), option::of(will(v5))),
        (option::of(name()), option::of(binary()), connect_properties()),
    )
        .prop_map(
            move |(
                ((clean_start, keep_alive_s), client_id, will),
                (username, password, properties),
            )| {
                Packet::Connect(Box::new(Connect {
                    version,
                    clean_start,
                    keep_alive_s,
                    client_id,
                    will,
                    password: password.filter(|_| v5 || username.is_some()),
                    username,
                    properties: if v5 { properties } else { ConnectProperties::default() },
                }))
            },
        )
}

const CONNACK: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97,
    0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
];
const CONNACK_V3: &[u8] = &[0x00, 0x84, 0x85, 0x86, 0x87, 0x88];
const PUBACK: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const PUBREL: &[u8] = &[0x00, 0x92];
const SUBACK: &[u8] = &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2];
const SUBACK_V3: &[u8] = &[0x00, 0x01, 0x02, 0x80];
const UNSUBACK: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
const DISCONNECT: &[u8] = &[
    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95,
    0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
];

fn any_connack(version: Version) -> impl Strategy<Value = Packet> {
    let v5 = version.is_v5();
    (
        (any::<bool>(), reason(if v5 { CONNACK } else { CONNACK_V3 })),
        (any::<(Option<u32>, Option<NonZeroU16>, Option<bool>, Option<bool>, Option<NonZeroU32>)>(), option::of(name())),
        (any::<(Option<u16>, Option<bool>, Option<bool>, Option<bool>, Option<u16>)>(), user()),
        (option::of(text()), option::of(text()), option::of(text()), option::of(text()), option::of(binary())),
    )
        .prop_map(move |((present, reason), (first, assigned_client_id), (second, user), texts)| {
            let (session_expiry_s, receive_max, qos, retain, packet_max) = first;
            let (alias_max, wildcards, subscription_ids, shared, server_keep_alive_s) = second;
            let (reason_string, response_information, server_reference, auth_method, auth_data) = texts;
            let qos_max = qos.map(|one| if one { QoS::AtLeastOnce } else { QoS::AtMostOnce });
            let properties = ConnAckProperties {
                session_expiry_s, receive_max, qos_max, retain, packet_max, assigned_client_id, alias_max,
                reason_string, user, wildcards, subscription_ids, shared, server_keep_alive_s,
                response_information, server_reference, auth_method, auth_data,
            };
            Packet::ConnAck(Box::new(ConnAck {
                session_present: present && reason == Reason::Success && version != Version::V31,
                reason,
                properties: if v5 { properties } else { ConnAckProperties::default() },
            }))
        })
}

fn ack_properties(v5: bool) -> impl Strategy<Value = Option<Box<AckProperties>>> {
    (option::of(text()), user()).prop_map(move |(reason_string, user)| {
        let some = v5 && (reason_string.is_some() || !user.is_empty());
        some.then(|| Box::new(AckProperties { reason_string, user }))
    })
}

fn any_ack(v5: bool) -> impl Strategy<Value = Packet> {
    let ack = move |codes: &'static [u8]| {
        (packet_id(), reason(if v5 { codes } else { &[0] }), ack_properties(v5))
            .prop_map(|(id, reason, properties)| Ack { id, reason, properties })
    };
    prop_oneof![
        ack(PUBACK).prop_map(Packet::PubAck),
        ack(PUBACK).prop_map(Packet::PubRec),
        ack(PUBREL).prop_map(Packet::PubRel),
        ack(PUBREL).prop_map(Packet::PubComp),
    ]
}

fn any_subscribe(v5: bool) -> impl Strategy<Value = Packet> {
    let handling =
        select(&[RetainHandling::Always, RetainHandling::IfNew, RetainHandling::Never][..]);
    let filter = (name(), qos(), any::<(bool, bool)>(), handling).prop_map(
        move |(filter, qos, (no_local, retain_as_published), retain_handling)| SubscribeFilter {
            filter,
            qos,
            no_local: v5 && no_local,
            retain_as_published: v5 && retain_as_published,
            retain_handling: if v5 { retain_handling } else { RetainHandling::Always },
        },
    );
    (packet_id(), option::of(1..=268_435_455u32), user(), prop::collection::vec(filter, 1..4))
        .prop_map(move |(id, subscription_id, user, filters)| {
            let subscription_id = subscription_id.filter(|_| v5);
            let user = if v5 { user } else { Vec::new() };
            Packet::Subscribe(Subscribe { id, subscription_id, user, filters })
        })
}

fn any_suback(v5: bool) -> impl Strategy<Value = Packet> {
    let reasons = prop::collection::vec(reason(if v5 { SUBACK } else { SUBACK_V3 }), 1..4);
    (packet_id(), ack_properties(v5), reasons)
        .prop_map(|(id, properties, reasons)| Packet::SubAck(SubAck { id, properties, reasons }))
}

fn any_unsubscribe(v5: bool) -> impl Strategy<Value = Packet> {
    (packet_id(), user(), prop::collection::vec(name(), 1..4)).prop_map(
        move |(id, user, filters)| {
            let user = if v5 { user } else { Vec::new() };
            Packet::Unsubscribe(Unsubscribe { id, user, filters })
        },
    )
}

fn any_unsuback(v5: bool) -> impl Strategy<Value = Packet> {
    (packet_id(), ack_properties(v5), prop::collection::vec(reason(UNSUBACK), 1..4)).prop_map(
        move |(id, properties, reasons)| {
            let reasons = if v5 { reasons } else { Vec::new() };
            Packet::UnsubAck(UnsubAck { id, properties, reasons })
        },
    )
}

fn any_disconnect(v5: bool) -> impl Strategy<Value = Packet> {
    (reason(DISCONNECT), any::<Option<u32>>(), option::of(text()), option::of(text()), user())
        .prop_map(move |(reason, session_expiry_s, reason_string, server_reference, user)| {
            let said =
                Disconnect { reason, session_expiry_s, reason_string, server_reference, user };
            Packet::Disconnect(Box::new(if v5 { said } else { Disconnect::default() }))
        })
}

fn any_auth() -> impl Strategy<Value = Packet> {
    (reason(&[0x00, 0x18, 0x19]), text(), option::of(binary()), option::of(text()), user())
        .prop_map(|(reason, method, data, reason_string, user)| {
            Packet::Auth(Box::new(Auth { reason, method: Some(method), data, reason_string, user }))
        })
}

fn any_packet(version: Version) -> BoxedStrategy<Packet> {
    let v5 = version.is_v5();
    let packets = prop_oneof![
        3 => any_publish(v5),
        2 => any_connect(version),
        2 => any_connack(version),
        2 => any_ack(v5),
        1 => any_subscribe(v5),
        1 => any_suback(v5),
        1 => any_unsubscribe(v5),
        1 => any_unsuback(v5),
        1 => any_disconnect(v5),
        1 => Just(Packet::PingReq),
        1 => Just(Packet::PingResp),
    ];
    if v5 { prop_oneof![12 => packets, 1 => any_auth()].boxed() } else { packets.boxed() }
}

fn any_version_and_packet() -> impl Strategy<Value = (Version, Packet)> {
    select(&VERSIONS[..]).prop_flat_map(|version| (Just(version), any_packet(version)))
}

/// A decoder of the side that may get this packet.
fn decoder_of(packet: &Packet, version: Version) -> Decoder {
    match packet {
        Packet::Connect(_) => Decoder::server(Limits::default()),
        Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
            Decoder::client(version, Limits::default())
        }
        _ => Decoder::server_after_connect(version, Limits::default()),
    }
}

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
    let limits = Limits { user_properties: 2, filters: 2, ..Limits::default() };
    let user = "260000 0000".replace(' ', "");
    let three = format!("30130001740f{user}{user}{user}");
    let many_filters = "82110001 00 0001610000016200000163 00".replace(' ', "");
    for (hex, what) in [(three, "user properties"), (many_filters, "topic filters")] {
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
