//! Packets of MQTT 3.1.1 in the types of the other codec.

use bytes::BytesMut;
use moorline_core::QoS;
use moorline_mqtt::{Packet, Reason, Version, codec};
use rumqttc::mqttbytes::{self as theirs, v4};

use super::{Known, exchange, login};

fn qos(qos: QoS) -> theirs::QoS {
    theirs::qos(qos as u8).unwrap()
}

fn connect(connect: &codec::Connect) -> Result<v4::Connect, Known> {
    let last_will = connect.will.as_ref().map(|will| v4::LastWill {
        topic: will.topic.to_string(),
        message: will.payload.clone(),
        qos: qos(will.qos),
        retain: will.retain,
    });
    let login = login(connect)?.map(|(username, password)| v4::Login { username, password });
    Ok(v4::Connect {
        protocol: theirs::Protocol::V4,
        keep_alive: connect.keep_alive_s,
        client_id: connect.client_id.to_string(),
        clean_session: connect.clean_start,
        last_will,
        login,
    })
}

fn connack(ack: &codec::ConnAck) -> v4::ConnAck {
    let code = match ack.reason.connack_v3() {
        0 => v4::ConnectReturnCode::Success,
        1 => v4::ConnectReturnCode::RefusedProtocolVersion,
        2 => v4::ConnectReturnCode::BadClientId,
        3 => v4::ConnectReturnCode::ServiceUnavailable,
        4 => v4::ConnectReturnCode::BadUserNamePassword,
        _ => v4::ConnectReturnCode::NotAuthorized,
    };
    v4::ConnAck { session_present: ack.session_present, code }
}

fn granted(reason: &Reason) -> v4::SubscribeReasonCode {
    match theirs::qos(reason.code()) {
        Ok(qos) => v4::SubscribeReasonCode::Success(qos),
        Err(_) => v4::SubscribeReasonCode::Failure,
    }
}

fn translate(packet: &Packet) -> Result<v4::Packet, Known> {
    Ok(match packet {
        Packet::Connect(ours) => v4::Packet::Connect(connect(ours)?),
        Packet::ConnAck(ours) => v4::Packet::ConnAck(connack(ours)),
        Packet::Publish(ours) => v4::Packet::Publish(v4::Publish {
            dup: ours.dup,
            qos: qos(ours.qos),
            retain: ours.retain,
            topic: ours.topic.to_string(),
            pkid: ours.id.map_or(0, |id| id.get()),
            payload: ours.payload.clone(),
        }),
        Packet::PubAck(ours) => v4::Packet::PubAck(v4::PubAck { pkid: ours.id.get() }),
        Packet::PubRec(ours) => v4::Packet::PubRec(v4::PubRec { pkid: ours.id.get() }),
        Packet::PubRel(ours) => v4::Packet::PubRel(v4::PubRel { pkid: ours.id.get() }),
        Packet::PubComp(ours) => v4::Packet::PubComp(v4::PubComp { pkid: ours.id.get() }),
        Packet::Subscribe(ours) => {
            let filters = ours.filters.iter();
            let filters = filters
                .map(|f| v4::SubscribeFilter { path: f.filter.to_string(), qos: qos(f.qos) });
            v4::Packet::Subscribe(v4::Subscribe { pkid: ours.id.get(), filters: filters.collect() })
        }
        Packet::SubAck(ours) => v4::Packet::SubAck(v4::SubAck {
            pkid: ours.id.get(),
            return_codes: ours.reasons.iter().map(granted).collect(),
        }),
        Packet::Unsubscribe(ours) => v4::Packet::Unsubscribe(v4::Unsubscribe {
            pkid: ours.id.get(),
            topics: ours.filters.iter().map(ToString::to_string).collect(),
        }),
        Packet::UnsubAck(ours) => v4::Packet::UnsubAck(v4::UnsubAck { pkid: ours.id.get() }),
        Packet::PingReq => v4::Packet::PingReq,
        Packet::PingResp => v4::Packet::PingResp,
        Packet::Disconnect(_) => v4::Packet::Disconnect,
        Packet::Auth(_) => unreachable!("not in 3.1.1"),
    })
}

#[test]
fn another_codec_reads_and_writes_mqtt_311_as_ours_does() {
    let read = |bytes: &mut BytesMut| v4::Packet::read(bytes, usize::MAX).ok();
    let write = |packet: &v4::Packet| {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, usize::MAX).unwrap();
        bytes
    };
    let known = exchange(Version::V311, translate, read, write);
    assert!(known.keys().all(|known| matches!(known, Known::BinaryPassword | Known::EmptyLogin)));
}
