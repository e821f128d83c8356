//! CONNECT and CONNACK (3.1, 3.2): the packets in which both sides say what they can.

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::{QoS, Text, topic};

use super::{
    ConnAck, ConnAckProperties, Connect, ConnectProperties, DecodeError, EncodeError, Limits,
    Reason, Version, Will,
    encode::put_field,
    properties::{MessageProperties, Place, Properties, Writer, share_text},
    read::Reader,
    reason::Carrier,
};

const USERNAME: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const WILL_RETAIN: u8 = 0x20;
const WILL_QOS: u8 = 0x18;
const WILL: u8 = 0x04;
const CLEAN_START: u8 = 0x02;
const RESERVED: u8 = 0x01;

/// How many bytes of the body [`version`] needs at most: the longest protocol name and the level.
pub(super) const VERSION_BYTES: usize = 2 + 6 + 1;

/// Reads protocol name and level.
pub(super) fn version(body: &[u8]) -> Result<Version, DecodeError> {
    let (name, level) = match body {
        [0, 4, b'M', b'Q', b'T', b'T', level, ..] => (4, *level),
        [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', level, ..] => (6, *level),
        [0, 4, b'M', b'Q', b'T', b'T'] | [0, 6, b'M', b'Q', b'I', b's', b'd', b'p'] => {
            return Err(DecodeError::Malformed("CONNECT ends before its protocol level"));
        }
        _ => return Err(DecodeError::NotConnect),
    };
    match (name, level) {
        (6, 3) => Ok(Version::V31),
        (4, 4) => Ok(Version::V311),
        (4, 5) => Ok(Version::V5),
        (_, level) => Err(DecodeError::UnsupportedVersion(level)),
    }
}

pub(super) fn decode(body: &Bytes, limits: &Limits) -> Result<Connect, DecodeError> {
    let version = version(body)?;
    let mut reader = Reader::new(body);
    reader.field()?;
    reader.u8()?;
    let flags = meant(reader.u8()?, version);
    check_flags(flags, version)?;
    let keep_alive_s = reader.u16()?;
    let properties = if version.is_v5() {
        connect_properties(&mut reader, limits)?
    } else {
        ConnectProperties::default()
    };
    let client_id = reader.name_text().map_err(DecodeError::in_connect)?;
    let will = if flags & WILL == 0 {
        None
    } else {
        Some(decode_will(&mut reader, flags, version, limits)?)
    };
    let (username, password) =
        credentials(reader, flags, version).map_err(DecodeError::in_connect)?;
    let clean_start = flags & CLEAN_START != 0;
    Ok(Connect {
        version,
        clean_start,
        keep_alive_s,
        client_id,
        will,
        username,
        password,
        properties,
    })
}

/// User name and password, and that nothing stands after them.
fn credentials(
    mut reader: Reader<'_>,
    flags: u8,
    version: Version,
) -> Result<(Option<Text>, Option<Bytes>), DecodeError> {
    // MQTT 3.1 lets the packet's length decide: a user name or password that was announced may be missing.
    let follows = |reader: &Reader<'_>, flag| {
        flags & flag != 0 && !(version == Version::V31 && reader.is_empty())
    };
    let username = if follows(&reader, USERNAME) { Some(reader.name_text()?) } else { None };
    let password = if follows(&reader, PASSWORD) { Some(reader.binary()?) } else { None };
    reader.finish()?;
    Ok((username, password))
}

/// The flags that count. MQTT 3.1 does not reserve the lowest one, and disregards those of a will that is not there.
fn meant(flags: u8, version: Version) -> u8 {
    match version {
        Version::V31 if flags & WILL == 0 => flags & !(RESERVED | WILL_QOS | WILL_RETAIN),
        Version::V31 => flags & !RESERVED,
        Version::V311 | Version::V5 => flags,
    }
}

fn check_flags(flags: u8, version: Version) -> Result<(), DecodeError> {
    if flags & RESERVED != 0 {
        return Err(DecodeError::Malformed("the reserved flag of CONNECT"));
    }
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        return Err(DecodeError::Malformed("will flags without a will"));
    }
    if flags & WILL_QOS == WILL_QOS {
        return Err(DecodeError::Malformed("will QoS 3"));
    }
    if flags & PASSWORD != 0 && flags & USERNAME == 0 && !version.is_v5() {
        return Err(DecodeError::Malformed("a password without a user name"));
    }
    Ok(())
}

fn connect_properties(
    reader: &mut Reader<'_>,
    limits: &Limits,
) -> Result<ConnectProperties, DecodeError> {
    let read = Properties::read(reader, Place::CONNECT, limits)?;
    if read.auth_data.is_some() && read.auth_method.is_none() {
        return Err(DecodeError::Protocol("authentication data without a method"));
    }
    Ok(ConnectProperties {
        session_expiry_s: read.session_expiry_s,
        receive_max: read.receive_max,
        packet_max: read.packet_max,
        alias_max: read.alias_max,
        request_response: read.request_response,
        request_problem: read.request_problem,
        user: read.user(reader)?,
        auth_method: share_text(reader, read.auth_method)?,
        auth_data: read.auth_data.map(|data| reader.share(data)),
    })
}

fn decode_will(
    reader: &mut Reader<'_>,
    flags: u8,
    version: Version,
    limits: &Limits,
) -> Result<Will, DecodeError> {
    let properties = if version.is_v5() {
        MessageProperties::read(reader, Place::WILL, limits)?
    } else {
        MessageProperties::default()
    };
    let topic = reader.name_text()?;
    if !topic::is_name(topic.as_bytes()) {
        return Err(DecodeError::Malformed("the will topic is not a topic name"));
    }
    Ok(Will {
        topic,
        qos: QoS::from_bits((flags & WILL_QOS) >> 3).expect("check_flags has refused 3"),
        retain: flags & WILL_RETAIN != 0,
        delay_s: properties.delay_s,
        expiry_s: properties.expiry_s,
        properties: properties.kept,
        payload: reader.binary()?,
    })
}

pub(super) fn encode(connect: &Connect, out: &mut BytesMut) -> Result<(), EncodeError> {
    let name: &[u8] = if connect.version == Version::V31 { b"MQIsdp" } else { b"MQTT" };
    put_field(out, name)?;
    out.put_u8(connect.version as u8);
    out.put_u8(flags_of(connect));
    out.put_u16(connect.keep_alive_s);
    if connect.version.is_v5() {
        let (properties, mut writer) = (&connect.properties, Writer::default());
        writer.u32(0x11, properties.session_expiry_s);
        writer.u16(0x21, properties.receive_max.map(Into::into));
        writer.u32(0x27, properties.packet_max.map(Into::into));
        writer.u16(0x22, properties.alias_max);
        writer.flag(0x19, properties.request_response);
        writer.flag(0x17, properties.request_problem);
        writer.text(0x15, properties.auth_method.as_ref())?;
        writer.bytes(0x16, properties.auth_data.as_deref())?;
        writer.user(&properties.user)?;
        writer.finish(out)?;
    }
    put_field(out, connect.client_id.as_bytes())?;
    if let Some(will) = &connect.will {
        if connect.version.is_v5() {
            let mut writer = Writer::default();
            writer.u32(0x18, will.delay_s);
            writer.u32(0x02, will.expiry_s);
            writer.raw(&will.properties);
            writer.finish(out)?;
        }
        put_field(out, will.topic.as_bytes())?;
        put_field(out, &will.payload)?;
    }
    if let Some(username) = &connect.username {
        put_field(out, username.as_bytes())?;
    }
    if let Some(password) = &connect.password {
        put_field(out, password)?;
    }
    Ok(())
}

fn flags_of(connect: &Connect) -> u8 {
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    let will = connect
        .will
        .as_ref()
        .map_or(0, |will| WILL | (will.qos as u8) << 3 | bit(will.retain, WILL_RETAIN));
    will | bit(connect.clean_start, CLEAN_START)
        | bit(connect.username.is_some(), USERNAME)
        | bit(connect.password.is_some(), PASSWORD)
}

pub(super) fn decode_ack(
    body: &Bytes,
    version: Version,
    limits: &Limits,
) -> Result<ConnAck, DecodeError> {
    let mut reader = Reader::new(body);
    let flags = reader.u8()?;
    if flags & !1 != 0 || flags != 0 && version == Version::V31 {
        return Err(DecodeError::Malformed("the reserved flags of CONNACK"));
    }
    let code = reader.u8()?;
    let reason = if version.is_v5() {
        Reason::from_code(code).filter(|reason| reason.fits(Carrier::ConnAck))
    } else {
        Reason::from_connack_v3(code)
    };
    let reason = reason.ok_or(DecodeError::Protocol("unknown reason code in CONNACK"))?;
    let properties = if version.is_v5() {
        connack_properties(&mut reader, limits)?
    } else {
        ConnAckProperties::default()
    };
    reader.finish()?;
    if flags != 0 && reason != Reason::Success {
        return Err(DecodeError::Protocol("a session is present in a refusal"));
    }
    Ok(ConnAck { session_present: flags != 0, reason, properties })
}

fn connack_properties(
    reader: &mut Reader<'_>,
    limits: &Limits,
) -> Result<ConnAckProperties, DecodeError> {
    let read = Properties::read(reader, Place::CONNACK, limits)?;
    Ok(ConnAckProperties {
        session_expiry_s: read.session_expiry_s,
        receive_max: read.receive_max,
        qos_max: read.qos_max,
        retain: read.retain,
        packet_max: read.packet_max,
        assigned_client_id: share_text(reader, read.assigned_client_id)?,
        alias_max: read.alias_max,
        reason_string: share_text(reader, read.reason_string)?,
        user: read.user(reader)?,
        wildcards: read.wildcards,
        subscription_ids: read.subscription_ids_available,
        shared: read.shared,
        server_keep_alive_s: read.server_keep_alive_s,
        response_information: share_text(reader, read.response_information)?,
        server_reference: share_text(reader, read.server_reference)?,
        auth_method: share_text(reader, read.auth_method)?,
        auth_data: read.auth_data.map(|data| reader.share(data)),
    })
}

pub(super) fn encode_ack(
    ack: &ConnAck,
    version: Version,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    out.put_u8(u8::from(ack.session_present && version != Version::V31));
    if !version.is_v5() {
        out.put_u8(ack.reason.connack_v3());
        return Ok(());
    }
    out.put_u8(ack.reason.code());
    let (properties, mut writer) = (&ack.properties, Writer::default());
    writer.u32(0x11, properties.session_expiry_s);
    writer.u16(0x21, properties.receive_max.map(Into::into));
    // Only 0 and 1 can be said; 2 is the default.
    let qos_max = properties.qos_max.filter(|&qos| qos != QoS::ExactlyOnce);
    writer.flag(0x24, qos_max.map(|qos| qos == QoS::AtLeastOnce));
    writer.flag(0x25, properties.retain);
    writer.u32(0x27, properties.packet_max.map(Into::into));
    writer.text(0x12, properties.assigned_client_id.as_ref())?;
    writer.u16(0x22, properties.alias_max);
    writer.flag(0x28, properties.wildcards);
    writer.flag(0x29, properties.subscription_ids);
    writer.flag(0x2a, properties.shared);
    writer.u16(0x13, properties.server_keep_alive_s);
    writer.text(0x1a, properties.response_information.as_ref())?;
    writer.text(0x1c, properties.server_reference.as_ref())?;
    writer.text(0x15, properties.auth_method.as_ref())?;
    writer.bytes(0x16, properties.auth_data.as_deref())?;
    writer.text(0x1f, properties.reason_string.as_ref())?;
    writer.user(&properties.user)?;
    writer.finish(out)
}
