//! Bytes to packets.

use bytes::{Buf, Bytes, BytesMut};
use moorline_core::QoS;

use super::{
    Ack, Auth, DecodeError, Disconnect, Packet, PacketId, PacketType, Quota, Reason,
    RetainHandling, SubAck, Subscribe, SubscribeFilter, UnsubAck, Unsubscribe, Version, connect,
    fixed,
    properties::{Place, Properties, share_text},
    publish,
    read::Reader,
    reason::Carrier,
};

/// What a decoder takes at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one packet with its header. Refused from the header alone.
    pub packet_bytes: usize,
    /// User properties in one packet.
    pub user_properties: usize,
    /// Bytes of user properties and reason string in one packet.
    pub property_bytes: usize,
    /// Filters in one SUBSCRIBE or UNSUBSCRIBE.
    pub filters: usize,
}

impl Limits {
    /// Bytes of one packet, if nobody says otherwise.
    pub const PACKET_BYTES: usize = 256 * 1024;
    /// User properties of one packet, if nobody says otherwise: each costs more memory than bytes on the wire.
    pub const USER_PROPERTIES: usize = 32;
    /// Bytes of user properties and reason string of one packet, if nobody says otherwise: each copy of a message carries
    /// them.
    pub const PROPERTY_BYTES: usize = 4 * 1024;
    /// Filters of one SUBSCRIBE, if nobody says otherwise: each is a write to the session and to the routes.
    pub const FILTERS: usize = 256;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_bytes: Self::PACKET_BYTES,
            user_properties: Self::USER_PROPERTIES,
            property_bytes: Self::PROPERTY_BYTES,
            filters: Self::FILTERS,
        }
    }
}

/// Who is reading: each side refuses what only it may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Server,
    Client,
}

/// Takes packets off the front of a buffer.
///
/// A server's decoder learns the version from the CONNECT, which it takes once and first. After an error the stream
/// is lost and the decoder must not be asked again.
#[derive(Debug, Clone)]
pub struct Decoder {
    side: Side,
    version: Option<Version>,
    limits: Limits,
}

/// The header of a packet that is in the buffer completely, or not yet.
struct Frame {
    kind: PacketType,
    flags: u8,
    /// Length of the fixed header.
    header: usize,
    /// Length of the whole packet.
    total: usize,
}

impl Decoder {
    /// A server's decoder, which waits for a CONNECT.
    #[must_use]
    pub fn server(limits: Limits) -> Self {
        Self { side: Side::Server, version: None, limits }
    }

    /// A server's decoder after the CONNECT.
    #[must_use]
    pub fn server_after_connect(version: Version, limits: Limits) -> Self {
        Self { side: Side::Server, version: Some(version), limits }
    }

    /// A client's decoder.
    #[must_use]
    pub fn client(version: Version, limits: Limits) -> Self {
        Self { side: Side::Client, version: Some(version), limits }
    }

    /// The version in use. After an error in a CONNECT: the version it had asked for, if it came that far.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Changes the limits for the packets to come.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes the next packet; `None` if more bytes are needed. Leaves an incomplete packet where it is.
    ///
    /// # Errors
    ///
    /// When what stands at the front can't become a packet, however many bytes follow.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        let Some(frame) = self.frame(input)? else { return Ok(None) };
        if input.len() < frame.total {
            return Ok(None);
        }
        let Some(version) = self.version else {
            let body = take_body(input, &frame);
            return self.decode_connect(&frame, &body).map(Some);
        };
        if let Some(packet) = decode_small(input, &frame)? {
            return Ok(Some(packet));
        }
        let body = take_body(input, &frame);
        self.decode_body(&frame, &body, version).map(Some)
    }

    fn frame(&mut self, input: &[u8]) -> Result<Option<Frame>, DecodeError> {
        let Some(&first) = input.first() else { return Ok(None) };
        if self.version.is_none() && first >> 4 != PacketType::Connect as u8 {
            return Err(DecodeError::NotConnect);
        }
        let kind = fixed::kind(first)?;
        // Whatever its flags, a packet that this side never sends is forbidden.
        self.check_direction(kind)?;
        let flags = fixed::flags(first, kind, self.version)?;
        let Some((remaining, len)) = fixed::varint(&input[1..])? else { return Ok(None) };
        let header = 1 + len;
        let total = header + usize::try_from(remaining).expect("at most 28 bits");
        let frame = Frame { kind, flags, header, total };
        if total > self.limits.packet_bytes {
            return self.refuse_size(input, &frame);
        }
        Ok(Some(frame))
    }

    fn check_direction(&self, kind: PacketType) -> Result<(), DecodeError> {
        let Some(version) = self.version else { return Ok(()) };
        match self.side {
            Side::Server if kind == PacketType::Connect => {
                Err(DecodeError::Protocol("a second CONNECT"))
            }
            Side::Server if kind.is_from_server() => {
                Err(DecodeError::Protocol("a packet that only servers send"))
            }
            Side::Client if kind.is_from_client() => {
                Err(DecodeError::Protocol("a packet that only clients send"))
            }
            _ if kind == PacketType::Auth && !version.is_v5() => {
                Err(DecodeError::Malformed("packet type 15 before MQTT 5"))
            }
            Side::Server | Side::Client => Ok(()),
        }
    }

    /// A packet over the limit. Of a CONNECT the first few bytes are waited for: only they say how to answer.
    fn refuse_size(&mut self, input: &[u8], frame: &Frame) -> Result<Option<Frame>, DecodeError> {
        if self.version.is_none() {
            if input.len() < frame.header + connect::VERSION_BYTES {
                return Ok(None);
            }
            self.version = Some(connect::version(&input[frame.header..])?);
        }
        Err(DecodeError::TooLarge { size: frame.total, limit: self.limits.packet_bytes })
    }

    fn decode_connect(&mut self, frame: &Frame, body: &Bytes) -> Result<Packet, DecodeError> {
        let version = connect::version(body)?;
        self.version = Some(version);
        fixed::check_flags(frame.kind, frame.flags, version)?;
        connect::decode(body, &self.limits).map(|connect| Packet::Connect(Box::new(connect)))
    }

    fn decode_body(
        &self,
        frame: &Frame,
        body: &Bytes,
        version: Version,
    ) -> Result<Packet, DecodeError> {
        let limits = &self.limits;
        Ok(match frame.kind {
            PacketType::Connect => Packet::Connect(Box::new(connect::decode(body, limits)?)),
            PacketType::ConnAck => {
                Packet::ConnAck(Box::new(connect::decode_ack(body, version, limits)?))
            }
            PacketType::Publish => {
                Packet::Publish(publish::decode(body, frame.flags, version, limits)?)
            }
            PacketType::PubAck => Packet::PubAck(ack(body, Carrier::PubAck, version, limits)?),
            PacketType::PubRec => Packet::PubRec(ack(body, Carrier::PubAck, version, limits)?),
            PacketType::PubRel => Packet::PubRel(ack(body, Carrier::PubRel, version, limits)?),
            PacketType::PubComp => Packet::PubComp(ack(body, Carrier::PubRel, version, limits)?),
            PacketType::Subscribe => Packet::Subscribe(subscribe(body, version, limits)?),
            PacketType::SubAck => Packet::SubAck(suback(body, version, limits)?),
            PacketType::Unsubscribe => Packet::Unsubscribe(unsubscribe(body, version, limits)?),
            PacketType::UnsubAck => Packet::UnsubAck(unsuback(body, version, limits)?),
            PacketType::PingReq => empty(body, Packet::PingReq)?,
            PacketType::PingResp => empty(body, Packet::PingResp)?,
            PacketType::Disconnect => {
                Packet::Disconnect(Box::new(disconnect(body, version, limits)?))
            }
            PacketType::Auth => Packet::Auth(Box::new(auth(body, limits)?)),
        })
    }
}

fn take_body(input: &mut BytesMut, frame: &Frame) -> Bytes {
    let mut packet = input.split_to(frame.total);
    packet.advance(frame.header);
    packet.freeze()
}

/// The acknowledgements in their two-byte form, which are half of all packets, without sharing the buffer.
fn decode_small(input: &mut BytesMut, frame: &Frame) -> Result<Option<Packet>, DecodeError> {
    let make = match frame.kind {
        PacketType::PubAck => Packet::PubAck,
        PacketType::PubRec => Packet::PubRec,
        PacketType::PubRel => Packet::PubRel,
        PacketType::PubComp => Packet::PubComp,
        PacketType::Connect
        | PacketType::ConnAck
        | PacketType::Publish
        | PacketType::Subscribe
        | PacketType::SubAck
        | PacketType::Unsubscribe
        | PacketType::UnsubAck
        | PacketType::PingReq
        | PacketType::PingResp
        | PacketType::Disconnect
        | PacketType::Auth => return Ok(None),
    };
    if frame.total != frame.header + 2 {
        return Ok(None);
    }
    let id = u16::from_be_bytes([input[frame.header], input[frame.header + 1]]);
    let id = PacketId::new(id).ok_or(DecodeError::Protocol("packet identifier 0"))?;
    input.advance(frame.total);
    Ok(Some(make(Ack::new(id, Reason::Success))))
}

fn empty(body: &Bytes, packet: Packet) -> Result<Packet, DecodeError> {
    Reader::new(body).finish()?;
    Ok(packet)
}

fn reason(code: u8, carrier: Carrier) -> Result<Reason, DecodeError> {
    Reason::from_code(code)
        .filter(|reason| reason.fits(carrier))
        .ok_or(DecodeError::Protocol("a reason code that this packet does not have"))
}

fn ack(
    body: &Bytes,
    carrier: Carrier,
    version: Version,
    limits: &Limits,
) -> Result<Ack, DecodeError> {
    let mut reader = Reader::new(body);
    let mut ack = Ack::new(reader.packet_id()?, Reason::Success);
    if version.is_v5() && !reader.is_empty() {
        ack.reason = reason(reader.u8()?, carrier)?;
        if !reader.is_empty() {
            let read = Properties::read(&mut reader, Place::ACK, limits)?;
            ack.properties = read.ack(&reader)?;
        }
    }
    reader.finish()?;
    Ok(ack)
}

fn subscribe(body: &Bytes, version: Version, limits: &Limits) -> Result<Subscribe, DecodeError> {
    let mut reader = Reader::new(body);
    let id = reader.packet_id()?;
    let (mut subscription_id, mut user) = (None, Vec::new());
    if version.is_v5() {
        let read = Properties::read(&mut reader, Place::SUBSCRIBE, limits)?;
        subscription_id = read.subscription_ids.first().copied();
        user = read.user(&reader)?;
    }
    let mut filters = Vec::new();
    while !reader.is_empty() || filters.is_empty() {
        check_filters(filters.len(), limits)?;
        let filter = filter_text(&mut reader)?;
        let options = reader.u8()?;
        filters.push(subscribe_filter(filter, options, version)?);
    }
    Ok(Subscribe { id, subscription_id, user, filters })
}

fn check_filters(already: usize, limits: &Limits) -> Result<(), DecodeError> {
    if already < limits.filters { Ok(()) } else { Err(DecodeError::Quota(Quota::Filters)) }
}

fn filter_text(reader: &mut Reader<'_>) -> Result<moorline_core::Text, DecodeError> {
    let filter = reader.name_text()?;
    if filter.is_empty() {
        return Err(DecodeError::Malformed("an empty topic filter"));
    }
    Ok(filter)
}

fn subscribe_filter(
    filter: moorline_core::Text,
    options: u8,
    version: Version,
) -> Result<SubscribeFilter, DecodeError> {
    let reserved = if version.is_v5() { 0xc0 } else { 0xfc };
    if options & reserved != 0 {
        return Err(DecodeError::Malformed("reserved subscription options"));
    }
    let qos =
        QoS::from_bits(options & 0b11).ok_or(DecodeError::Malformed("a filter with QoS 3"))?;
    let retain_handling = RetainHandling::from_number(options >> 4 & 0b11)
        .ok_or(DecodeError::Malformed("retain handling 3"))?;
    Ok(SubscribeFilter {
        filter,
        qos,
        no_local: options & 0b100 != 0,
        retain_as_published: options & 0b1000 != 0,
        retain_handling,
    })
}

fn suback(body: &Bytes, version: Version, limits: &Limits) -> Result<SubAck, DecodeError> {
    let mut reader = Reader::new(body);
    let id = reader.packet_id()?;
    let mut properties = None;
    if version.is_v5() {
        let read = Properties::read(&mut reader, Place::ACK, limits)?;
        properties = read.ack(&reader)?;
    }
    let mut reasons = Vec::new();
    while !reader.is_empty() || reasons.is_empty() {
        let reason = reason(reader.u8()?, Carrier::SubAck)?;
        if !version.is_v5() && reason.code() > Reason::UnspecifiedError.code() {
            return Err(DecodeError::Malformed("a return code that SUBACK does not have"));
        }
        reasons.push(reason);
    }
    Ok(SubAck { id, properties, reasons })
}

fn unsubscribe(
    body: &Bytes,
    version: Version,
    limits: &Limits,
) -> Result<Unsubscribe, DecodeError> {
    let mut reader = Reader::new(body);
    let id = reader.packet_id()?;
    let mut user = Vec::new();
    if version.is_v5() {
        let read = Properties::read(&mut reader, Place::UNSUBSCRIBE, limits)?;
        user = read.user(&reader)?;
    }
    let mut filters = Vec::new();
    while !reader.is_empty() || filters.is_empty() {
        check_filters(filters.len(), limits)?;
        filters.push(filter_text(&mut reader)?);
    }
    Ok(Unsubscribe { id, user, filters })
}

fn unsuback(body: &Bytes, version: Version, limits: &Limits) -> Result<UnsubAck, DecodeError> {
    let mut reader = Reader::new(body);
    let id = reader.packet_id()?;
    let (mut properties, mut reasons) = (None, Vec::new());
    if version.is_v5() {
        let read = Properties::read(&mut reader, Place::ACK, limits)?;
        properties = read.ack(&reader)?;
        while !reader.is_empty() || reasons.is_empty() {
            reasons.push(reason(reader.u8()?, Carrier::UnsubAck)?);
        }
    }
    reader.finish()?;
    Ok(UnsubAck { id, properties, reasons })
}

fn disconnect(body: &Bytes, version: Version, limits: &Limits) -> Result<Disconnect, DecodeError> {
    let mut reader = Reader::new(body);
    let mut disconnect = Disconnect::default();
    if version.is_v5() && !reader.is_empty() {
        disconnect.reason = reason(reader.u8()?, Carrier::Disconnect)?;
        if !reader.is_empty() {
            let read = Properties::read(&mut reader, Place::DISCONNECT, limits)?;
            disconnect.session_expiry_s = read.session_expiry_s;
            disconnect.reason_string = share_text(&reader, read.reason_string)?;
            disconnect.server_reference = share_text(&reader, read.server_reference)?;
            disconnect.user = read.user(&reader)?;
        }
    }
    reader.finish()?;
    Ok(disconnect)
}

fn auth(body: &Bytes, limits: &Limits) -> Result<Auth, DecodeError> {
    let mut reader = Reader::new(body);
    let mut auth = Auth::default();
    if reader.is_empty() {
        return Ok(auth);
    }
    auth.reason = reason(reader.u8()?, Carrier::Auth)?;
    if !reader.is_empty() {
        let read = Properties::read(&mut reader, Place::AUTH, limits)?;
        auth.method = share_text(&reader, read.auth_method)?;
        auth.data = read.auth_data.map(|data| reader.share(data));
        auth.reason_string = share_text(&reader, read.reason_string)?;
        auth.user = read.user(&reader)?;
        reader.finish()?;
    }
    let needs_method = auth.reason != Reason::Success || auth.data.is_some();
    if needs_method && auth.method.is_none() {
        return Err(DecodeError::Protocol("AUTH without an authentication method"));
    }
    Ok(auth)
}
