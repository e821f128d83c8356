//! MQTT packets as bytes, as far as these tests need them, written from the standard and sharing nothing with the broker:
//! what both sides misread alike no test would find.

/// MQTT 3.1.1 or 5.0, by protocol level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V4 = 4,
    V5 = 5,
}

/// What a broker sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    ConnAck { present: bool, reason: u8 },
    Publish(Publish),
    PubAck { id: u16, reason: u8 },
    PubRec { id: u16, reason: u8 },
    PubRel { id: u16, reason: u8 },
    PubComp { id: u16, reason: u8 },
    SubAck { id: u16, reasons: Vec<u8> },
    UnsubAck { id: u16, reasons: Vec<u8> },
    PingResp,
    Disconnect { reason: u8 },
}

/// An application message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    /// 0 for QoS 0.
    pub(crate) id: u16,
    /// MQTT 5: what is left of its lifetime.
    pub(crate) expiry_s: Option<u32>,
}

/// What a client says first.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client: String,
    pub(crate) clean: bool,
    /// MQTT 5: how long the session outlives the connection.
    pub(crate) expiry_s: Option<u32>,
    /// MQTT 5: how many deliveries may be unacknowledged.
    pub(crate) receive_max: Option<u16>,
    pub(crate) keep_alive_s: u16,
    pub(crate) will: Option<Will>,
    /// User name and password.
    pub(crate) login: Option<(String, String)>,
}

/// What is published when a client is gone.
#[derive(Debug, Clone)]
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// MQTT 5: how long it waits for the client to come back.
    pub(crate) delay_s: Option<u32>,
    /// MQTT 5: how long it lives, once published.
    pub(crate) expiry_s: Option<u32>,
}

const SESSION_EXPIRY: u8 = 0x11;
const RECEIVE_MAX: u8 = 0x21;
const MESSAGE_EXPIRY: u8 = 0x02;
const WILL_DELAY: u8 = 0x18;

/// CONNECT.
pub(crate) fn connect(connect: &Connect) -> Vec<u8> {
    let mut body = Vec::new();
    put_text(&mut body, "MQTT");
    body.push(connect.version as u8);
    let will = connect.will.as_ref();
    let will_flags = will.map_or(0, |will| 1 << 2 | will.qos << 3 | u8::from(will.retain) << 5);
    let login_flags = if connect.login.is_some() { 0xC0 } else { 0 };
    body.push(u8::from(connect.clean) << 1 | will_flags | login_flags);
    body.extend(connect.keep_alive_s.to_be_bytes());
    if connect.version == Version::V5 {
        let mut properties = Vec::new();
        if let Some(expiry_s) = connect.expiry_s {
            properties.push(SESSION_EXPIRY);
            properties.extend(expiry_s.to_be_bytes());
        }
        if let Some(receive_max) = connect.receive_max {
            properties.push(RECEIVE_MAX);
            properties.extend(receive_max.to_be_bytes());
        }
        put_properties(&mut body, &properties);
    }
    put_text(&mut body, &connect.client);
    if let Some(will) = will {
        put_will(&mut body, connect.version, will);
    }
    if let Some((user, password)) = &connect.login {
        put_text(&mut body, user);
        put_text(&mut body, password);
    }
    frame(0x10, &body)
}

fn put_will(body: &mut Vec<u8>, version: Version, will: &Will) {
    if version == Version::V5 {
        let mut properties = Vec::new();
        for (code, value) in [(WILL_DELAY, will.delay_s), (MESSAGE_EXPIRY, will.expiry_s)] {
            if let Some(value) = value {
                properties.push(code);
                properties.extend(value.to_be_bytes());
            }
        }
        put_properties(body, &properties);
    }
    put_text(body, &will.topic);
    body.extend(u16::try_from(will.payload.len()).unwrap().to_be_bytes());
    body.extend(&will.payload);
}

/// PUBLISH; `id` is 0 for QoS 0.
pub(crate) fn publish(
    version: Version,
    id: u16,
    topic: &str,
    payload: &[u8],
    expiry_s: Option<u32>,
) -> Vec<u8> {
    let mut body = Vec::new();
    put_text(&mut body, topic);
    if id != 0 {
        body.extend(id.to_be_bytes());
    }
    if version == Version::V5 {
        let mut properties = Vec::new();
        if let Some(expiry_s) = expiry_s {
            properties.push(MESSAGE_EXPIRY);
            properties.extend(expiry_s.to_be_bytes());
        }
        put_properties(&mut body, &properties);
    }
    body.extend(payload);
    frame(0x30 | (u8::from(id != 0) << 1), &body)
}

/// PUBLISH with QoS 2.
pub(crate) fn publish_2(
    version: Version,
    id: u16,
    topic: &str,
    payload: &[u8],
    dup: bool,
) -> Vec<u8> {
    let mut packet = publish(version, id, topic, payload, None);
    packet[0] = 0x34 | u8::from(dup) << 3;
    packet
}

/// PUBREC.
pub(crate) fn pubrec(id: u16) -> Vec<u8> {
    frame(0x50, &id.to_be_bytes())
}

/// PUBREL.
pub(crate) fn pubrel(id: u16) -> Vec<u8> {
    frame(0x62, &id.to_be_bytes())
}

/// PUBCOMP.
pub(crate) fn pubcomp(id: u16) -> Vec<u8> {
    frame(0x70, &id.to_be_bytes())
}

/// A PUBLISH of [`publish`] with RETAIN=1.
pub(crate) fn retained(mut publish: Vec<u8>) -> Vec<u8> {
    publish[0] |= 1;
    publish
}

/// SUBSCRIBE.
pub(crate) fn subscribe(version: Version, id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    no_properties(&mut body, version);
    for (filter, qos) in filters {
        put_text(&mut body, filter);
        body.push(*qos);
    }
    frame(0x82, &body)
}

/// UNSUBSCRIBE.
pub(crate) fn unsubscribe(version: Version, id: u16, filter: &str) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    no_properties(&mut body, version);
    put_text(&mut body, filter);
    frame(0xA2, &body)
}

/// PUBACK.
pub(crate) fn puback(id: u16) -> Vec<u8> {
    frame(0x40, &id.to_be_bytes())
}

/// PINGREQ.
pub(crate) fn pingreq() -> Vec<u8> {
    frame(0xC0, &[])
}

/// DISCONNECT of MQTT 5, with the will.
pub(crate) fn disconnect_with_will() -> Vec<u8> {
    frame(0xE0, &[0x04])
}

/// DISCONNECT, normal.
pub(crate) fn disconnect() -> Vec<u8> {
    frame(0xE0, &[])
}

/// Takes the first whole packet out of `input`.
///
/// # Panics
///
/// If what is there is no packet that a broker may send.
pub(crate) fn take(version: Version, input: &mut Vec<u8>) -> Option<Packet> {
    let (length, header) = varint(input.get(1..)?)?;
    let end = 1 + header + length;
    if input.len() < end {
        return None;
    }
    let first = input[0];
    let body: Vec<u8> = input.drain(..end).skip(1 + header).collect();
    Some(decode(version, first, &mut Body { bytes: &body }))
}

fn decode(version: Version, first: u8, body: &mut Body<'_>) -> Packet {
    let v5 = version == Version::V5;
    match first {
        0x20 => {
            let present = body.u8() == 1;
            let reason = body.u8();
            if v5 {
                body.properties();
            }
            Packet::ConnAck { present, reason }
        }
        0x30..=0x3F => Packet::Publish(decode_publish(v5, first, body)),
        0x40 | 0x50 | 0x62 | 0x70 => {
            let id = body.u16();
            let reason = if body.bytes.is_empty() { 0 } else { body.u8() };
            match first {
                0x40 => Packet::PubAck { id, reason },
                0x50 => Packet::PubRec { id, reason },
                0x62 => Packet::PubRel { id, reason },
                _ => Packet::PubComp { id, reason },
            }
        }
        0x90 | 0xB0 => {
            let id = body.u16();
            if v5 {
                body.properties();
            }
            let reasons = body.bytes.to_vec();
            if first == 0x90 {
                Packet::SubAck { id, reasons }
            } else {
                Packet::UnsubAck { id, reasons }
            }
        }
        0xD0 => Packet::PingResp,
        0xE0 if v5 => {
            Packet::Disconnect { reason: if body.bytes.is_empty() { 0 } else { body.u8() } }
        }
        other => panic!("a broker sends no packet that begins with {other:#04x}"),
    }
}

fn decode_publish(v5: bool, first: u8, body: &mut Body<'_>) -> Publish {
    let qos = first >> 1 & 3;
    let topic = String::from_utf8(body.text().to_vec()).unwrap();
    let id = if qos == 0 { 0 } else { body.u16() };
    let expiry_s = if v5 { body.properties() } else { None };
    Publish {
        topic,
        payload: body.bytes.to_vec(),
        qos,
        dup: first & 8 != 0,
        retain: first & 1 != 0,
        id,
        expiry_s,
    }
}

/// What is left of a packet.
struct Body<'a> {
    bytes: &'a [u8],
}

impl<'a> Body<'a> {
    fn take(&mut self, many: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(many);
        self.bytes = rest;
        taken
    }

    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn text(&mut self) -> &'a [u8] {
        let length = self.u16();
        self.take(length.into())
    }

    /// Skips properties, but for the message expiry.
    fn properties(&mut self) -> Option<u32> {
        let (length, header) = varint(self.bytes).unwrap();
        self.take(header);
        let mut inside = Body { bytes: self.take(length) };
        let mut expiry_s = None;
        while !inside.bytes.is_empty() {
            match inside.u8() {
                MESSAGE_EXPIRY => expiry_s = Some(inside.u32()),
                0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => drop(inside.u8()),
                0x13 | 0x21 | 0x22 | 0x23 => drop(inside.u16()),
                0x11 | 0x18 | 0x27 => drop(inside.u32()),
                0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => drop(inside.text()),
                0x26 => drop((inside.text(), inside.text())),
                0x0B => {
                    let (_, header) = varint(inside.bytes).unwrap();
                    inside.take(header);
                }
                other => panic!("there is no property {other:#04x}"),
            }
        }
        expiry_s
    }
}

/// A variable byte integer and its length, once it is whole.
fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (place, byte) in bytes.iter().enumerate() {
        assert!(place < 4, "a variable byte integer has at most four bytes");
        value |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, place + 1));
        }
    }
    None
}

pub(crate) fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    put_varint(&mut packet, body.len());
    packet.extend(body);
    packet
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value > 0x7F {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    out.extend(text.as_bytes());
}

pub(crate) fn put_properties(out: &mut Vec<u8>, properties: &[u8]) {
    put_varint(out, properties.len());
    out.extend(properties);
}

fn no_properties(out: &mut Vec<u8>, version: Version) {
    if version == Version::V5 {
        put_properties(out, &[]);
    }
}
