//! Packets to bytes and back.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Longest packet read, in bytes; the harness's own are far shorter.
pub const PACKET_BYTES_MAX: usize = 4 << 20;
/// The receive maximum of somebody who does not say one (MQTT 5.0, 3.1.2.11.3).
pub const RECEIVE_MAX_DEFAULT: u16 = u16::MAX;

/// The protocol spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V4,
    /// MQTT 5.0.
    V5,
}

/// A CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// The protocol spoken from here on.
    pub version: Version,
    /// Who.
    pub client: String,
    /// Clean session (3.1.1) or clean start (5.0).
    pub clean: bool,
    /// Keep alive, in seconds.
    pub keep_alive_s: u16,
    /// How long the session outlives the connection, in seconds (5.0 only).
    pub expiry_s: u32,
    /// Most QoS 1 messages taken unacknowledged (5.0 only).
    pub receive_max: u16,
    /// What most clients leave out.
    pub extras: Extras,
}

/// What most clients leave out of their CONNECT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extras {
    /// What is published when the client does not say goodbye, with QoS 1.
    pub will: Option<Will>,
    /// User name and password.
    pub login: Option<(String, String)>,
}

/// A will, of QoS 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Bytes,
    /// How long after the connection's end, in seconds (5.0 only).
    pub delay_s: u32,
}

/// What can be sent or received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// CONNECT.
    Connect(Connect),
    /// CONNACK.
    ConnAck {
        /// Whether the session was there.
        present: bool,
        /// Return or reason code.
        code: u8,
        /// Most QoS 1 messages the server takes unacknowledged.
        receive_max: u16,
    },
    /// PUBLISH; QoS 1 or 2 if there is a packet id, else QoS 0.
    Publish {
        /// Where to.
        topic: String,
        /// The packet id.
        packet: Option<u16>,
        /// Whether it may have been sent before.
        dup: bool,
        /// Whether with QoS 2.
        once: bool,
        /// Sent: whether it is to be retained; received: whether it had been.
        retain: bool,
        /// What.
        payload: Bytes,
    },
    /// PUBACK.
    PubAck {
        /// The packet id.
        packet: u16,
        /// The reason code; 0 in 3.1.1.
        reason: u8,
    },
    /// PUBREC.
    PubRec {
        /// The packet id.
        packet: u16,
        /// The reason code; 0 in 3.1.1.
        reason: u8,
    },
    /// PUBREL.
    PubRel {
        /// The packet id.
        packet: u16,
        /// The reason code; 0 in 3.1.1.
        reason: u8,
    },
    /// PUBCOMP.
    PubComp {
        /// The packet id.
        packet: u16,
        /// The reason code; 0 in 3.1.1.
        reason: u8,
    },
    /// SUBSCRIBE, QoS 2 for every filter.
    Subscribe {
        /// The packet id.
        packet: u16,
        /// The topic filters.
        filters: Vec<String>,
    },
    /// SUBACK.
    SubAck {
        /// The packet id.
        packet: u16,
        /// A code for each filter.
        codes: Vec<u8>,
    },
    /// PINGREQ.
    PingReq,
    /// PINGRESP.
    PingResp,
    /// DISCONNECT.
    Disconnect {
        /// The reason code; 0 in 3.1.1.
        reason: u8,
    },
}

/// Bytes that are no packet the harness may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed packet: {0}")]
pub struct Malformed(pub &'static str);

/// Writes one packet.
pub fn write(packet: &Packet, version: Version, out: &mut BytesMut) {
    let mut body = BytesMut::new();
    let first = match packet {
        Packet::Connect(connect) => write_connect(connect, &mut body),
        Packet::ConnAck { present, code, receive_max } => {
            body.put_u8(u8::from(*present));
            body.put_u8(*code);
            write_receive_max(version, *receive_max, &mut body);
            0x20
        }
        Packet::Publish { topic, packet, dup, once, retain, payload } => {
            put_string(topic, &mut body);
            if let Some(packet) = packet {
                body.put_u16(*packet);
            }
            put_no_properties(version, &mut body);
            body.put_slice(payload);
            let qos = u8::from(packet.is_some()) + u8::from(*once);
            0x30 | u8::from(*dup) << 3 | qos << 1 | u8::from(*retain)
        }
        Packet::PubAck { packet, reason } => write_ack(0x40, version, *packet, *reason, &mut body),
        Packet::PubRec { packet, reason } => write_ack(0x50, version, *packet, *reason, &mut body),
        Packet::PubRel { packet, reason } => write_ack(0x62, version, *packet, *reason, &mut body),
        Packet::PubComp { packet, reason } => write_ack(0x70, version, *packet, *reason, &mut body),
        Packet::Subscribe { packet, filters } => {
            body.put_u16(*packet);
            put_no_properties(version, &mut body);
            for filter in filters {
                put_string(filter, &mut body);
                body.put_u8(2);
            }
            0x82
        }
        Packet::SubAck { packet, codes } => {
            body.put_u16(*packet);
            put_no_properties(version, &mut body);
            body.put_slice(codes);
            0x90
        }
        Packet::PingReq => 0xc0,
        Packet::PingResp => 0xd0,
        Packet::Disconnect { reason } => {
            if version == Version::V5 && *reason != 0 {
                body.put_u8(*reason);
            }
            0xe0
        }
    };
    out.put_u8(first);
    put_varint(body.len(), out);
    out.put_slice(&body);
}

fn write_ack(first: u8, version: Version, packet: u16, reason: u8, body: &mut BytesMut) -> u8 {
    body.put_u16(packet);
    if version == Version::V5 && reason != 0 {
        body.put_u8(reason);
    }
    first
}

fn write_connect(connect: &Connect, body: &mut BytesMut) -> u8 {
    put_string("MQTT", body);
    body.put_u8(match connect.version {
        Version::V4 => 4,
        Version::V5 => 5,
    });
    let Extras { will, login } = &connect.extras;
    let will_flags = if will.is_some() { WILL | WILL_QOS_1 } else { 0 };
    let login_flags = if login.is_some() { USER_NAME | PASSWORD } else { 0 };
    body.put_u8(u8::from(connect.clean) << 1 | will_flags | login_flags);
    body.put_u16(connect.keep_alive_s);
    if connect.version == Version::V5 {
        put_varint(5 + 3, body);
        body.put_u8(property::SESSION_EXPIRY);
        body.put_u32(connect.expiry_s);
        body.put_u8(property::RECEIVE_MAXIMUM);
        body.put_u16(connect.receive_max);
    }
    put_string(&connect.client, body);
    if let Some(will) = will {
        if connect.version == Version::V5 {
            put_varint(5, body);
            body.put_u8(property::WILL_DELAY);
            body.put_u32(will.delay_s);
        }
        put_string(&will.topic, body);
        put_bytes(&will.payload, body);
    }
    if let Some((user, password)) = login {
        put_string(user, body);
        put_string(password, body);
    }
    0x10
}

fn write_receive_max(version: Version, receive_max: u16, body: &mut BytesMut) {
    if version == Version::V5 {
        put_varint(3, body);
        body.put_u8(property::RECEIVE_MAXIMUM);
        body.put_u16(receive_max);
    }
}

fn put_no_properties(version: Version, body: &mut BytesMut) {
    if version == Version::V5 {
        body.put_u8(0);
    }
}

fn put_string(text: &str, body: &mut BytesMut) {
    put_bytes(text.as_bytes(), body);
}

fn put_bytes(bytes: &[u8], body: &mut BytesMut) {
    body.put_u16(u16::try_from(bytes.len()).expect("the harness's own strings are short"));
    body.put_slice(bytes);
}

fn put_varint(mut value: usize, out: &mut BytesMut) {
    loop {
        let low = u8::try_from(value % 128).expect("less than 128");
        value /= 128;
        out.put_u8(low | u8::from(value > 0) << 7);
        if value == 0 {
            return;
        }
    }
}

/// Takes one packet off the front, if it is whole. `version` is that of the connection; a CONNECT brings its own.
pub fn read(bytes: &mut BytesMut, version: Version) -> Result<Option<Packet>, Malformed> {
    let Some((head, length)) = frame(bytes)? else { return Ok(None) };
    if bytes.len() < head + length {
        bytes.reserve(head + length - bytes.len());
        return Ok(None);
    }
    let first = bytes[0];
    bytes.advance(head);
    let mut body = bytes.split_to(length).freeze();
    let packet = body_of(first, version, &mut body)?;
    if body.has_remaining() {
        return Err(Malformed("bytes are left over"));
    }
    Ok(Some(packet))
}

/// The length of the fixed header and of what follows it, once both are known.
fn frame(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut length = 0_usize;
    for (at, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            if length > PACKET_BYTES_MAX {
                return Err(Malformed("the packet is too long"));
            }
            return Ok(Some((at + 2, length)));
        }
        if at == 3 {
            return Err(Malformed("the length has no end"));
        }
    }
    Ok(None)
}

fn body_of(first: u8, version: Version, body: &mut Bytes) -> Result<Packet, Malformed> {
    Ok(match first {
        0x10 => Packet::Connect(read_connect(body)?),
        0x20 => {
            let flags = byte(body)?;
            if flags > 1 {
                return Err(Malformed("reserved flags are set in a CONNACK"));
            }
            let code = byte(body)?;
            let receive_max = properties(version, body)?.receive_max;
            Packet::ConnAck { present: flags == 1, code, receive_max }
        }
        0x30..=0x3f => read_publish(first, version, body)?,
        0x40 => {
            let packet = packet_id(body)?;
            Packet::PubAck { packet, reason: reason(version, body)? }
        }
        0x50 => {
            let packet = packet_id(body)?;
            Packet::PubRec { packet, reason: reason(version, body)? }
        }
        0x62 => {
            let packet = packet_id(body)?;
            Packet::PubRel { packet, reason: reason(version, body)? }
        }
        0x70 => {
            let packet = packet_id(body)?;
            Packet::PubComp { packet, reason: reason(version, body)? }
        }
        0x82 => {
            let packet = packet_id(body)?;
            properties(version, body)?;
            let mut filters = Vec::new();
            while body.has_remaining() {
                filters.push(string(body)?);
                byte(body)?;
            }
            Packet::Subscribe { packet, filters }
        }
        0x90 => {
            let packet = packet_id(body)?;
            properties(version, body)?;
            Packet::SubAck { packet, codes: body.split_to(body.len()).to_vec() }
        }
        0xc0 => Packet::PingReq,
        0xd0 => Packet::PingResp,
        0xe0 => Packet::Disconnect { reason: reason(version, body)? },
        _ => return Err(Malformed("a packet the harness has no use for, or wrong flags")),
    })
}

fn read_connect(body: &mut Bytes) -> Result<Connect, Malformed> {
    if string(body)? != "MQTT" {
        return Err(Malformed("not MQTT"));
    }
    let version = match byte(body)? {
        4 => Version::V4,
        5 => Version::V5,
        _ => return Err(Malformed("an unknown version")),
    };
    let flags = byte(body)?;
    let (has_will, has_login) = (flags & WILL != 0, flags & USER_NAME != 0);
    let will_flags = if has_will { WILL | WILL_QOS_1 } else { 0 };
    let login_flags = if has_login { USER_NAME | PASSWORD } else { 0 };
    if flags & !0x02 != will_flags | login_flags {
        return Err(Malformed("CONNECT flags the harness never sets"));
    }
    let keep_alive_s = word(body)?;
    let Properties { receive_max, expiry_s, .. } = properties(version, body)?;
    let client = string(body)?;
    let mut extras = Extras::default();
    if has_will {
        let delay_s = properties(version, body)?.will_delay_s;
        extras.will = Some(Will { topic: string(body)?, payload: field(body)?, delay_s });
    }
    if has_login {
        extras.login = Some((string(body)?, string(body)?));
    }
    let clean = flags & 0x02 != 0;
    Ok(Connect { version, client, clean, keep_alive_s, expiry_s, receive_max, extras })
}

fn read_publish(first: u8, version: Version, body: &mut Bytes) -> Result<Packet, Malformed> {
    let topic = string(body)?;
    if topic.is_empty() || topic.contains(['+', '#']) {
        return Err(Malformed("a topic that is none"));
    }
    let packet = match first >> 1 & 3 {
        0 => None,
        1 | 2 => Some(packet_id(body)?),
        _ => return Err(Malformed("a quality of service that there is not")),
    };
    let once = first >> 1 & 3 == 2;
    let dup = first & 0x08 != 0;
    if dup && packet.is_none() {
        return Err(Malformed("DUP on QoS 0"));
    }
    properties(version, body)?;
    let (retain, payload) = (first & 0x01 != 0, body.split_to(body.len()));
    Ok(Packet::Publish { topic, packet, dup, once, retain, payload })
}

/// The properties the harness looks at; the others are skipped.
struct Properties {
    receive_max: u16,
    expiry_s: u32,
    will_delay_s: u32,
}

/// Flags of a CONNECT (MQTT 3.1.1, 3.1.2.3).
const USER_NAME: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const WILL: u8 = 0x04;
const WILL_QOS_1: u8 = 0x08;

mod property {
    pub(super) const SESSION_EXPIRY: u8 = 0x11;
    pub(super) const WILL_DELAY: u8 = 0x18;
    pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(super) const TOPIC_ALIAS: u8 = 0x23;
}

/// Reads past the properties (MQTT 5.0, 2.2.2.2).
fn properties(version: Version, body: &mut Bytes) -> Result<Properties, Malformed> {
    let mut found = Properties { receive_max: RECEIVE_MAX_DEFAULT, expiry_s: 0, will_delay_s: 0 };
    if version == Version::V4 {
        return Ok(found);
    }
    let length = varint(body)?;
    if length > body.len() {
        return Err(Malformed("the properties are cut"));
    }
    let mut list = body.split_to(length);
    while list.has_remaining() {
        match byte(&mut list)? {
            property::SESSION_EXPIRY => found.expiry_s = long(&mut list)?,
            property::WILL_DELAY => found.will_delay_s = long(&mut list)?,
            property::RECEIVE_MAXIMUM => found.receive_max = word(&mut list)?,
            property::TOPIC_ALIAS => return Err(Malformed("a topic alias nobody allowed")),
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => _ = byte(&mut list)?,
            0x13 | 0x22 => _ = word(&mut list)?,
            0x02 | 0x27 => _ = long(&mut list)?,
            0x0b => _ = varint(&mut list)?,
            0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => _ = field(&mut list)?,
            0x26 => _ = (field(&mut list)?, field(&mut list)?),
            _ => return Err(Malformed("an unknown property")),
        }
    }
    Ok(found)
}

/// A reason code and properties that may both be left out (MQTT 5.0, 3.4.2.1).
fn reason(version: Version, body: &mut Bytes) -> Result<u8, Malformed> {
    if version == Version::V4 || !body.has_remaining() {
        return Ok(0);
    }
    let reason = byte(body)?;
    if body.has_remaining() {
        properties(version, body)?;
    }
    Ok(reason)
}

fn packet_id(body: &mut Bytes) -> Result<u16, Malformed> {
    match word(body)? {
        0 => Err(Malformed("packet id 0")),
        id => Ok(id),
    }
}

const CUT: Malformed = Malformed("the packet is cut");

fn byte(body: &mut Bytes) -> Result<u8, Malformed> {
    body.try_get_u8().map_err(|_| CUT)
}

fn word(body: &mut Bytes) -> Result<u16, Malformed> {
    body.try_get_u16().map_err(|_| CUT)
}

fn long(body: &mut Bytes) -> Result<u32, Malformed> {
    body.try_get_u32().map_err(|_| CUT)
}

fn varint(body: &mut Bytes) -> Result<usize, Malformed> {
    let mut value = 0;
    for shift in [0, 7, 14, 21] {
        let next = byte(body)?;
        value |= usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed("the length has no end"))
}

fn field(body: &mut Bytes) -> Result<Bytes, Malformed> {
    let length = usize::from(word(body)?);
    if length > body.len() {
        return Err(CUT);
    }
    Ok(body.split_to(length))
}

fn string(body: &mut Bytes) -> Result<String, Malformed> {
    let field = field(body)?;
    let text = str::from_utf8(&field).map_err(|_| Malformed("not UTF-8"))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(packet: &Packet, version: Version) -> Vec<u8> {
        let mut out = BytesMut::new();
        write(packet, version, &mut out);
        out.to_vec()
    }

    fn connect(version: Version) -> Packet {
        let (expiry_s, receive_max) = match version {
            Version::V4 => (0, RECEIVE_MAX_DEFAULT),
            Version::V5 => (7, 9),
        };
        let client = "c1".to_owned();
        Packet::Connect(Connect {
            version,
            client,
            clean: false,
            keep_alive_s: 5,
            expiry_s,
            receive_max,
            extras: Extras::default(),
        })
    }

    /// A CONNECT with a will and a login.
    fn mortal(version: Version) -> Packet {
        let Packet::Connect(connect) = connect(version) else { unreachable!("it is one") };
        let delay_s = if version == Version::V5 { 3 } else { 0 };
        let will = Will { topic: "w".into(), payload: Bytes::from_static(b"by"), delay_s };
        let extras = Extras { will: Some(will), login: Some(("u".into(), "p".into())) };
        Packet::Connect(Connect { extras, ..connect })
    }

    fn publish(packet: Option<u16>, dup: bool) -> Packet {
        let (topic, payload) = ("a/b".into(), Bytes::from_static(b"hi"));
        Packet::Publish { topic, packet, dup, once: false, retain: false, payload }
    }

    fn publish_once(packet: u16) -> Packet {
        let (topic, payload) = ("t".into(), Bytes::new());
        Packet::Publish {
            topic,
            packet: Some(packet),
            dup: false,
            once: true,
            retain: true,
            payload,
        }
    }

    fn every(version: Version) -> Vec<Packet> {
        let reason = if version == Version::V5 { 0x97 } else { 0 };
        let receive_max = if version == Version::V5 { 3 } else { RECEIVE_MAX_DEFAULT };
        vec![
            connect(version),
            mortal(version),
            Packet::ConnAck { present: true, code: 0, receive_max },
            publish(None, false),
            publish(Some(10), true),
            publish_once(11),
            Packet::PubAck { packet: 10, reason },
            Packet::PubRec { packet: 11, reason },
            Packet::PubRel { packet: 11, reason },
            Packet::PubComp { packet: 11, reason },
            Packet::Subscribe { packet: 2, filters: vec!["a/+".into(), "#".into()] },
            Packet::SubAck { packet: 2, codes: vec![1, 0x80] },
            Packet::PingReq,
            Packet::PingResp,
            Packet::Disconnect { reason },
        ]
    }

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        #[rustfmt::skip]
        let table: [(Packet, Version, &[u8]); 10] = [
            (mortal(Version::V4), Version::V4, b"\x10\x1b\0\x04MQTT\x04\xcc\0\x05\0\x02c1\0\x01w\0\x02by\0\x01u\0\x01p"),
            (mortal(Version::V5), Version::V5, b"\x10\x2a\0\x04MQTT\x05\xcc\0\x05\x08\x11\0\0\0\x07\x21\0\x09\0\x02c1\x05\x18\0\0\0\x03\0\x01w\0\x02by\0\x01u\0\x01p"),
            (connect(Version::V4), Version::V4, b"\x10\x0e\0\x04MQTT\x04\0\0\x05\0\x02c1"),
            (connect(Version::V5), Version::V5, b"\x10\x17\0\x04MQTT\x05\0\0\x05\x08\x11\0\0\0\x07\x21\0\x09\0\x02c1"),
            (publish(Some(10), true), Version::V4, b"\x3a\x09\0\x03a/b\0\x0ahi"),
            (publish(None, false), Version::V5, b"\x30\x08\0\x03a/b\0hi"),
            (Packet::PubAck { packet: 10, reason: 0 }, Version::V5, b"\x40\x02\0\x0a"),
            (Packet::Subscribe { packet: 2, filters: vec!["#".into()] }, Version::V4, b"\x82\x06\0\x02\0\x01#\x02"),
            (publish_once(1), Version::V4, b"\x35\x05\0\x01t\0\x01"),
            (Packet::PubRel { packet: 1, reason: 0 }, Version::V5, b"\x62\x02\0\x01"),
        ];
        for (packet, version, expected) in table {
            assert_eq!(bytes(&packet, version), expected, "{packet:?}");
        }
    }

    #[test]
    fn every_packet_reads_back_also_byte_by_byte() {
        for version in [Version::V4, Version::V5] {
            for packet in every(version) {
                let whole = bytes(&packet, version);
                let mut buffer = BytesMut::new();
                for (at, byte) in whole.iter().enumerate() {
                    buffer.put_u8(*byte);
                    let read = read(&mut buffer, version).unwrap();
                    assert_eq!(read, (at + 1 == whole.len()).then(|| packet.clone()), "{packet:?}");
                }
                assert!(buffer.is_empty());
            }
        }
    }

    #[test]
    fn a_long_packet_has_a_long_length() {
        let payload = Bytes::from(vec![7; 20_000]);
        let packet = Packet::Publish {
            topic: "t".into(),
            packet: Some(1),
            dup: false,
            once: false,
            retain: false,
            payload,
        };
        let mut buffer = BytesMut::from(&bytes(&packet, Version::V5)[..]);
        assert_eq!(read(&mut buffer, Version::V5), Ok(Some(packet)));
    }

    #[test]
    fn properties_are_skipped_and_receive_maximum_is_found() {
        let connack = b"\x20\x14\0\0\x11\x21\0\x05\x12\0\x02id\x26\0\x01k\0\x01v\x2a\x01";
        let mut buffer = BytesMut::from(&connack[..]);
        let packet = Packet::ConnAck { present: false, code: 0, receive_max: 5 };
        assert_eq!(read(&mut buffer, Version::V5), Ok(Some(packet)));
    }

    #[test]
    fn malformed_packets_are_refused() {
        #[rustfmt::skip]
        let table: [(&[u8], Version); 10] = [
            (b"\x30\xff\xff\xff\xff\x01",    Version::V4), // length without end
            (b"\x30\xff\xff\xff\x7f",        Version::V4), // too long
            (b"\x36\x05\0\x01t\0\x01",       Version::V4), // QoS 3
            (b"\x38\x03\0\x01t",             Version::V4), // DUP on QoS 0
            (b"\x32\x05\0\x01t\0\0",         Version::V4), // packet id 0
            (b"\x30\x03\0\x01+",             Version::V4), // wildcard in a topic
            (b"\x30\x07\0\x01t\x03\x23\0\x01", Version::V5), // topic alias
            (b"\x40\x01\0",                  Version::V4), // cut
            (b"\xd0\x01\0",                  Version::V4), // left over
            (b"\x00\0",                      Version::V4), // reserved
        ];
        for (bytes, version) in table {
            assert!(read(&mut BytesMut::from(bytes), version).is_err(), "{bytes:x?}");
        }
    }
}
