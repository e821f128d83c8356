//! Packets to bytes.

use bytes::{BufMut, BytesMut};

use super::{
    Ack, Auth, Disconnect, EncodeError, Outgoing, Packet, PacketId, PacketType, Reason, SubAck,
    Subscribe, SubscribeFilter, UnsubAck, Unsubscribe, Version, connect,
    fixed::{VARINT_MAX, varint_len},
    properties::{Writer, put_varint},
};

/// Appends `packet` in the form of `version`. What the version has no field for is left out.
///
/// # Errors
///
/// When it has no form on the wire; nothing was appended then.
pub fn encode(packet: &Packet, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
    match packet {
        Packet::Publish(publish) => return Outgoing::from(publish).encode(version, out),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack)
            if ack.properties.is_none() =>
        {
            put_ack(packet.kind(), ack.id, ack.reason, version, out);
            return Ok(());
        }
        Packet::PubAck(_)
        | Packet::PubRec(_)
        | Packet::PubRel(_)
        | Packet::PubComp(_)
        | Packet::Connect(_)
        | Packet::ConnAck(_)
        | Packet::Subscribe(_)
        | Packet::SubAck(_)
        | Packet::Unsubscribe(_)
        | Packet::UnsubAck(_)
        | Packet::PingReq
        | Packet::PingResp
        | Packet::Disconnect(_)
        | Packet::Auth(_) => {}
    }
    let mut body = BytesMut::new();
    encode_body(packet, version, &mut body)?;
    let len = u32::try_from(body.len()).ok().filter(|&len| len <= VARINT_MAX);
    let len = len.ok_or(EncodeError::PacketTooLong)?;
    out.reserve(1 + varint_len(len) + body.len());
    out.put_u8(packet.kind().first_byte());
    put_varint(out, len);
    out.put_slice(&body);
    Ok(())
}

fn encode_body(packet: &Packet, version: Version, body: &mut BytesMut) -> Result<(), EncodeError> {
    match packet {
        Packet::Connect(connect) => connect::encode(connect, body),
        Packet::ConnAck(ack) => connect::encode_ack(ack, version, body),
        Packet::Publish(_) | Packet::PingReq | Packet::PingResp => Ok(()),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            encode_ack(ack, version, body)
        }
        Packet::Subscribe(subscribe) => encode_subscribe(subscribe, version, body),
        Packet::SubAck(ack) => encode_suback(ack, version, body),
        Packet::Unsubscribe(unsubscribe) => encode_unsubscribe(unsubscribe, version, body),
        Packet::UnsubAck(ack) => encode_unsuback(ack, version, body),
        Packet::Disconnect(disconnect) => encode_disconnect(disconnect, version, body),
        Packet::Auth(auth) => encode_auth(auth, version, body),
    }
}

/// Appends a PUBACK, PUBREC, PUBREL or PUBCOMP without properties.
pub(crate) fn put_ack(
    kind: PacketType,
    id: PacketId,
    reason: Reason,
    version: Version,
    out: &mut BytesMut,
) {
    let [high, low] = id.get().to_be_bytes();
    if reason == Reason::Success || !version.is_v5() {
        out.put_slice(&[kind.first_byte(), 2, high, low]);
    } else {
        out.put_slice(&[kind.first_byte(), 3, high, low, reason.code()]);
    }
}

fn encode_ack(ack: &Ack, version: Version, body: &mut BytesMut) -> Result<(), EncodeError> {
    body.put_u16(ack.id.get());
    if !version.is_v5() {
        return Ok(());
    }
    body.put_u8(ack.reason.code());
    let mut writer = Writer::default();
    writer.ack(ack.properties.as_deref())?;
    writer.finish(body)
}

fn encode_subscribe(
    subscribe: &Subscribe,
    version: Version,
    body: &mut BytesMut,
) -> Result<(), EncodeError> {
    body.put_u16(subscribe.id.get());
    if version.is_v5() {
        let mut writer = Writer::default();
        writer.varint(0x0b, subscribe.subscription_id);
        writer.user(&subscribe.user)?;
        writer.finish(body)?;
    }
    for filter in &subscribe.filters {
        put_field(body, filter.filter.as_bytes())?;
        body.put_u8(options_of(filter, version));
    }
    Ok(())
}

fn options_of(filter: &SubscribeFilter, version: Version) -> u8 {
    let qos = filter.qos as u8;
    if !version.is_v5() {
        return qos;
    }
    qos | u8::from(filter.no_local) << 2
        | u8::from(filter.retain_as_published) << 3
        | (filter.retain_handling as u8) << 4
}

fn encode_suback(ack: &SubAck, version: Version, body: &mut BytesMut) -> Result<(), EncodeError> {
    body.put_u16(ack.id.get());
    if version.is_v5() {
        let mut writer = Writer::default();
        writer.ack(ack.properties.as_deref())?;
        writer.finish(body)?;
        body.extend(ack.reasons.iter().map(|reason| reason.code()));
    } else {
        // Before MQTT 5 there is one way to say no.
        body.extend(ack.reasons.iter().map(|reason| reason.code().min(0x80)));
    }
    Ok(())
}

fn encode_unsubscribe(
    unsubscribe: &Unsubscribe,
    version: Version,
    body: &mut BytesMut,
) -> Result<(), EncodeError> {
    body.put_u16(unsubscribe.id.get());
    if version.is_v5() {
        let mut writer = Writer::default();
        writer.user(&unsubscribe.user)?;
        writer.finish(body)?;
    }
    unsubscribe.filters.iter().try_for_each(|filter| put_field(body, filter.as_bytes()))
}

fn encode_unsuback(
    ack: &UnsubAck,
    version: Version,
    body: &mut BytesMut,
) -> Result<(), EncodeError> {
    body.put_u16(ack.id.get());
    if version.is_v5() {
        let mut writer = Writer::default();
        writer.ack(ack.properties.as_deref())?;
        writer.finish(body)?;
        body.extend(ack.reasons.iter().map(|reason| reason.code()));
    }
    Ok(())
}

fn encode_disconnect(
    disconnect: &Disconnect,
    version: Version,
    body: &mut BytesMut,
) -> Result<(), EncodeError> {
    if !version.is_v5() {
        return Ok(());
    }
    let mut writer = Writer::default();
    writer.u32(0x11, disconnect.session_expiry_s);
    writer.text(0x1c, disconnect.server_reference.as_ref())?;
    writer.text(0x1f, disconnect.reason_string.as_ref())?;
    writer.user(&disconnect.user)?;
    put_reason_and(writer, disconnect.reason, body)
}

fn encode_auth(auth: &Auth, version: Version, body: &mut BytesMut) -> Result<(), EncodeError> {
    if !version.is_v5() {
        return Err(EncodeError::NotInVersion);
    }
    let mut writer = Writer::default();
    writer.text(0x15, auth.method.as_ref())?;
    writer.bytes(0x16, auth.data.as_deref())?;
    writer.text(0x1f, auth.reason_string.as_ref())?;
    writer.user(&auth.user)?;
    put_reason_and(writer, auth.reason, body)
}

/// DISCONNECT and AUTH end as soon as all that follows is the default.
fn put_reason_and(writer: Writer, reason: Reason, body: &mut BytesMut) -> Result<(), EncodeError> {
    if writer.is_empty() {
        if reason != Reason::Success {
            body.put_u8(reason.code());
        }
        return Ok(());
    }
    body.put_u8(reason.code());
    writer.finish(body)
}

/// Appends bytes with their two-byte length in front.
pub(super) fn put_field(out: &mut BytesMut, field: &[u8]) -> Result<(), EncodeError> {
    out.put_u16(u16::try_from(field.len()).map_err(|_| EncodeError::FieldTooLong)?);
    out.put_slice(field);
    Ok(())
}
