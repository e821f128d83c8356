//! Packets of every type, made up.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::{QoS, Text};
use moorline_mqtt::{
    Packet, PacketId, Reason, Version,
    codec::{
        Ack, AckProperties, Auth, ConnAck, ConnAckProperties, Connect, ConnectProperties, Decoder,
        Disconnect, Limits, Publish, RetainHandling, SubAck, Subscribe, SubscribeFilter, UnsubAck,
        Unsubscribe, UserProperties, Will,
    },
};
use proptest::{option, prelude::*, sample::select};

use crate::support::{VERSIONS, id};

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

/// Any packet that has a form in `version`.
pub(crate) fn any_packet(version: Version) -> BoxedStrategy<Packet> {
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

/// A packet and the version it is in.
pub(crate) fn any_version_and_packet() -> impl Strategy<Value = (Version, Packet)> {
    select(&VERSIONS[..]).prop_flat_map(|version| (Just(version), any_packet(version)))
}

/// A decoder of the side that may get this packet.
pub(crate) fn decoder_of(packet: &Packet, version: Version) -> Decoder {
    match packet {
        Packet::Connect(_) => Decoder::server(Limits::default()),
        Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
            Decoder::client(version, Limits::default())
        }
        _ => Decoder::server_after_connect(version, Limits::default()),
    }
}
