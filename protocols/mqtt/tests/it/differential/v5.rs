//! Packets of MQTT 5 in the types of the other codec.

use bytes::{Buf, Bytes, BytesMut};
use moorline_core::{QoS, Text};
use moorline_mqtt::{Packet, Reason, Version, codec};
use rumqttc::v5::mqttbytes::{self as theirs, v5};

use super::{Known, exchange, login};

type Pairs = Vec<(String, String)>;

fn qos(qos: QoS) -> theirs::QoS {
    theirs::qos(qos as u8).unwrap()
}

fn text(text: &Option<Text>) -> Option<String> {
    text.as_ref().map(ToString::to_string)
}

fn byte(flag: Option<bool>) -> Option<u8> {
    flag.map(u8::from)
}

fn pairs(user: &codec::UserProperties) -> Pairs {
    user.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// The one of their reasons that stands where ours stands among the codes.
fn nth<T: Copy, const N: usize>(reason: Reason, codes: [u8; N], theirs: [T; N]) -> T {
    theirs[codes.iter().position(|&code| code == reason.code()).unwrap()]
}

/// Message properties, which we keep in wire form, read once more by hand.
#[derive(Default)]
struct InWireForm {
    payload_format: Option<u8>,
    content_type: Option<String>,
    response_topic: Option<String>,
    correlation: Option<Bytes>,
    user: Pairs,
}

impl InWireForm {
    fn read(mut section: Bytes) -> Self {
        fn field(section: &mut Bytes) -> Bytes {
            let len = section.get_u16();
            section.split_to(len.into())
        }
        let string = |section: &mut Bytes| String::from_utf8(field(section).to_vec()).unwrap();
        let mut read = Self::default();
        while section.has_remaining() {
            match section.get_u8() {
                0x01 => read.payload_format = Some(section.get_u8()),
                0x03 => read.content_type = Some(string(&mut section)),
                0x08 => read.response_topic = Some(string(&mut section)),
                0x09 => read.correlation = Some(field(&mut section)),
                0x26 => read.user.push((string(&mut section), string(&mut section))),
                other => panic!("property {other}"),
            }
        }
        read
    }
}

fn connect(connect: &codec::Connect) -> Result<v5::Packet, Known> {
    let ours = &connect.properties;
    let properties = v5::ConnectProperties {
        session_expiry_interval: ours.session_expiry_s,
        receive_maximum: ours.receive_max.map(Into::into),
        max_packet_size: ours.packet_max.map(Into::into),
        topic_alias_max: ours.alias_max,
        request_response_info: byte(ours.request_response),
        request_problem_info: byte(ours.request_problem),
        user_properties: pairs(&ours.user),
        authentication_method: text(&ours.auth_method),
        authentication_data: ours.auth_data.clone(),
    };
    let none = *ours == codec::ConnectProperties::default();
    let login = login(connect)?.map(|(username, password)| v5::Login { username, password });
    let theirs = v5::Connect {
        keep_alive: connect.keep_alive_s,
        client_id: connect.client_id.to_string(),
        clean_start: connect.clean_start,
        properties: (!none).then_some(properties),
    };
    Ok(v5::Packet::Connect(theirs, connect.will.as_ref().map(will), login))
}

fn will(will: &codec::Will) -> v5::LastWill {
    let kept = InWireForm::read(will.properties.clone());
    let none = will.properties.is_empty() && will.delay_s.is_none() && will.expiry_s.is_none();
    let properties = v5::LastWillProperties {
        delay_interval: will.delay_s,
        payload_format_indicator: kept.payload_format,
        message_expiry_interval: will.expiry_s,
        content_type: kept.content_type,
        response_topic: kept.response_topic,
        correlation_data: kept.correlation,
        user_properties: kept.user,
    };
    v5::LastWill {
        topic: Bytes::copy_from_slice(will.topic.as_bytes()),
        message: will.payload.clone(),
        qos: qos(will.qos),
        retain: will.retain,
        properties: (!none).then_some(properties),
    }
}

fn connack(ack: &codec::ConnAck) -> v5::Packet {
    use v5::ConnectReturnCode as Code;
    #[rustfmt::skip]
    let code = nth(
        ack.reason,
        [0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97,
         0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F],
        [Code::Success, Code::UnspecifiedError, Code::MalformedPacket, Code::ProtocolError,
         Code::ImplementationSpecificError, Code::UnsupportedProtocolVersion, Code::ClientIdentifierNotValid,
         Code::BadUserNamePassword, Code::NotAuthorized, Code::ServerUnavailable, Code::ServerBusy, Code::Banned,
         Code::BadAuthenticationMethod, Code::TopicNameInvalid, Code::PacketTooLarge, Code::QuotaExceeded,
         Code::PayloadFormatInvalid, Code::RetainNotSupported, Code::QoSNotSupported, Code::UseAnotherServer,
         Code::ServerMoved, Code::ConnectionRateExceeded],
    );
    let ours = &ack.properties;
    let properties = v5::ConnAckProperties {
        session_expiry_interval: ours.session_expiry_s,
        receive_max: ours.receive_max.map(Into::into),
        max_qos: ours.qos_max.map(|qos| qos as u8),
        retain_available: byte(ours.retain),
        max_packet_size: ours.packet_max.map(Into::into),
        assigned_client_identifier: text(&ours.assigned_client_id),
        topic_alias_max: ours.alias_max,
        reason_string: text(&ours.reason_string),
        user_properties: pairs(&ours.user),
        wildcard_subscription_available: byte(ours.wildcards),
        subscription_identifiers_available: byte(ours.subscription_ids),
        shared_subscription_available: byte(ours.shared),
        server_keep_alive: ours.server_keep_alive_s,
        response_information: text(&ours.response_information),
        server_reference: text(&ours.server_reference),
        authentication_method: text(&ours.auth_method),
        authentication_data: ours.auth_data.clone(),
    };
    let none = *ours == codec::ConnAckProperties::default();
    let session_present = ack.session_present;
    v5::Packet::ConnAck(v5::ConnAck {
        session_present,
        code,
        properties: (!none).then_some(properties),
    })
}

fn publish(ours: &codec::Publish) -> Result<v5::Packet, Known> {
    if ours.subscription_ids.len() > 1 && !ours.properties.is_empty() {
        return Err(Known::SubscriptionIds);
    }
    let kept = InWireForm::read(ours.properties.clone());
    let none = ours.properties.is_empty()
        && ours.expiry_s.is_none()
        && ours.alias.is_none()
        && ours.subscription_ids.is_empty();
    let properties = v5::PublishProperties {
        payload_format_indicator: kept.payload_format,
        message_expiry_interval: ours.expiry_s,
        topic_alias: ours.alias.map(Into::into),
        response_topic: kept.response_topic,
        correlation_data: kept.correlation,
        user_properties: kept.user,
        subscription_identifiers: ours.subscription_ids.iter().map(|&id| id as usize).collect(),
        content_type: kept.content_type,
    };
    Ok(v5::Packet::Publish(v5::Publish {
        dup: ours.dup,
        qos: qos(ours.qos),
        retain: ours.retain,
        topic: Bytes::copy_from_slice(ours.topic.as_bytes()),
        pkid: ours.id.map_or(0, |id| id.get()),
        payload: ours.payload.clone(),
        properties: (!none).then_some(properties),
    }))
}

/// The codes of PUBACK and PUBREC, as both codecs order them.
const PUBACK: [u8; 9] = [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];

macro_rules! puback_reasons {
    ($kind:ident) => {
        [
            v5::$kind::Success,
            v5::$kind::NoMatchingSubscribers,
            v5::$kind::UnspecifiedError,
            v5::$kind::ImplementationSpecificError,
            v5::$kind::NotAuthorized,
            v5::$kind::TopicNameInvalid,
            v5::$kind::PacketIdentifierInUse,
            v5::$kind::QuotaExceeded,
            v5::$kind::PayloadFormatInvalid,
        ]
    };
}

macro_rules! pubrel_reasons {
    ($kind:ident) => {
        [v5::$kind::Success, v5::$kind::PacketIdentifierNotFound]
    };
}

/// Reason string and user properties in the type that each kind of packet has for them.
macro_rules! ack_properties {
    ($kind:ident, $ours:expr) => {
        $ours.properties.as_ref().map(|ours| v5::$kind {
            reason_string: text(&ours.reason_string),
            user_properties: pairs(&ours.user),
        })
    };
}

fn suback_reason(reason: Reason) -> v5::SubscribeReasonCode {
    use v5::SubscribeReasonCode as Code;
    nth(
        reason,
        [0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2],
        [
            Code::Success(theirs::QoS::AtMostOnce),
            Code::Success(theirs::QoS::AtLeastOnce),
            Code::Success(theirs::QoS::ExactlyOnce),
            Code::Unspecified,
            Code::ImplementationSpecific,
            Code::NotAuthorized,
            Code::TopicFilterInvalid,
            Code::PkidInUse,
            Code::QuotaExceeded,
            Code::SharedSubscriptionsNotSupported,
            Code::SubscriptionIdNotSupported,
            Code::WildcardSubscriptionsNotSupported,
        ],
    )
}

fn unsuback_reason(reason: Reason) -> v5::UnsubAckReason {
    use v5::UnsubAckReason as Code;
    nth(
        reason,
        [0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91],
        [
            Code::Success,
            Code::NoSubscriptionExisted,
            Code::UnspecifiedError,
            Code::ImplementationSpecificError,
            Code::NotAuthorized,
            Code::TopicFilterInvalid,
            Code::PacketIdentifierInUse,
        ],
    )
}

fn subscribe(ours: &codec::Subscribe) -> v5::Packet {
    let filters = ours.filters.iter().map(|filter| v5::Filter {
        path: filter.filter.to_string(),
        qos: qos(filter.qos),
        nolocal: filter.no_local,
        preserve_retain: filter.retain_as_published,
        retain_forward_rule: match filter.retain_handling {
            codec::RetainHandling::Always => v5::RetainForwardRule::OnEverySubscribe,
            codec::RetainHandling::IfNew => v5::RetainForwardRule::OnNewSubscribe,
            codec::RetainHandling::Never => v5::RetainForwardRule::Never,
        },
    });
    let none = ours.subscription_id.is_none() && ours.user.is_empty();
    let properties = v5::SubscribeProperties {
        id: ours.subscription_id.map(|id| id as usize),
        user_properties: pairs(&ours.user),
    };
    v5::Packet::Subscribe(v5::Subscribe {
        pkid: ours.id.get(),
        filters: filters.collect(),
        properties: (!none).then_some(properties),
    })
}

fn unsubscribe(ours: &codec::Unsubscribe) -> v5::Packet {
    let properties = v5::UnsubscribeProperties { user_properties: pairs(&ours.user) };
    v5::Packet::Unsubscribe(v5::Unsubscribe {
        pkid: ours.id.get(),
        filters: ours.filters.iter().map(ToString::to_string).collect(),
        properties: (!ours.user.is_empty()).then_some(properties),
    })
}

fn disconnect(ours: &codec::Disconnect) -> Result<v5::Packet, Known> {
    let bare = codec::Disconnect { reason: ours.reason, ..codec::Disconnect::default() };
    let none = *ours == bare;
    if none {
        return Err(Known::ShortDisconnect);
    }
    let properties = v5::DisconnectProperties {
        session_expiry_interval: ours.session_expiry_s,
        reason_string: text(&ours.reason_string),
        user_properties: pairs(&ours.user),
        server_reference: text(&ours.server_reference),
    };
    Ok(v5::Packet::Disconnect(v5::Disconnect {
        reason_code: ours.reason.code().try_into().unwrap(),
        properties: Some(properties),
    }))
}

fn translate(packet: &Packet) -> Result<v5::Packet, Known> {
    Ok(match packet {
        Packet::Connect(ours) => connect(ours)?,
        Packet::ConnAck(ours) => connack(ours),
        Packet::Publish(ours) => publish(ours)?,
        Packet::PubAck(ours) => v5::Packet::PubAck(v5::PubAck {
            pkid: ours.id.get(),
            reason: nth(ours.reason, PUBACK, puback_reasons!(PubAckReason)),
            properties: ack_properties!(PubAckProperties, ours),
        }),
        Packet::PubRec(ours) => v5::Packet::PubRec(v5::PubRec {
            pkid: ours.id.get(),
            reason: nth(ours.reason, PUBACK, puback_reasons!(PubRecReason)),
            properties: ack_properties!(PubRecProperties, ours),
        }),
        Packet::PubRel(ours) => v5::Packet::PubRel(v5::PubRel {
            pkid: ours.id.get(),
            reason: nth(ours.reason, [0x00, 0x92], pubrel_reasons!(PubRelReason)),
            properties: ack_properties!(PubRelProperties, ours),
        }),
        Packet::PubComp(ours) => v5::Packet::PubComp(v5::PubComp {
            pkid: ours.id.get(),
            reason: nth(ours.reason, [0x00, 0x92], pubrel_reasons!(PubCompReason)),
            properties: ack_properties!(PubCompProperties, ours),
        }),
        Packet::Subscribe(ours) => subscribe(ours),
        Packet::SubAck(ours) => v5::Packet::SubAck(v5::SubAck {
            pkid: ours.id.get(),
            return_codes: ours.reasons.iter().map(|&reason| suback_reason(reason)).collect(),
            properties: ack_properties!(SubAckProperties, ours),
        }),
        Packet::Unsubscribe(ours) => unsubscribe(ours),
        Packet::UnsubAck(ours) => v5::Packet::UnsubAck(v5::UnsubAck {
            pkid: ours.id.get(),
            reasons: ours.reasons.iter().map(|&reason| unsuback_reason(reason)).collect(),
            properties: ack_properties!(UnsubAckProperties, ours),
        }),
        Packet::PingReq => v5::Packet::PingReq(v5::PingReq),
        Packet::PingResp => v5::Packet::PingResp(v5::PingResp),
        Packet::Disconnect(ours) => disconnect(ours)?,
        Packet::Auth(_) => return Err(Known::Auth),
    })
}

#[test]
fn another_codec_reads_and_writes_mqtt_5_as_ours_does() {
    let read = |bytes: &mut BytesMut| v5::Packet::read(bytes, None).ok();
    let write = |packet: &v5::Packet| {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).unwrap();
        bytes
    };
    let known = exchange(Version::V5, translate, read, write);
    let seen: Vec<_> = known.keys().copied().collect();
    let all = [
        Known::BinaryPassword,
        Known::EmptyLogin,
        Known::Auth,
        Known::ShortDisconnect,
        Known::SubscriptionIds,
    ];
    assert_eq!(seen, all, "a known difference that is not met is not known");
}
