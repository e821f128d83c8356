//! Properties (MQTT 5, 2.2.2): which exist, where they may stand, how often, with which values.
//!
//! An unknown property makes the packet malformed; one that stands twice, or has a forbidden value, is a protocol error
//! (2.2.2.2). For one of another packet see [`Place::refuses_others`].

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::{QoS, Text, topic};

use super::{
    AckProperties, DecodeError, EncodeError, Limits, Quota, UserProperties, encode::put_field,
    fixed, read::Reader,
};

/// Where properties stand, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u16);

impl Place {
    pub(super) const CONNECT: Self = Self(1);
    pub(super) const CONNACK: Self = Self(1 << 1);
    pub(super) const PUBLISH: Self = Self(1 << 2);
    pub(super) const WILL: Self = Self(1 << 3);
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK: the same two properties.
    pub(super) const ACK: Self = Self(1 << 4);
    pub(super) const SUBSCRIBE: Self = Self(1 << 5);
    pub(super) const UNSUBSCRIBE: Self = Self(1 << 6);
    pub(super) const DISCONNECT: Self = Self(1 << 7);
    pub(super) const AUTH: Self = Self(1 << 8);
    const EVERYWHERE: Self = Self(0x1ff);

    const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Where the property `id` may stand (table 2-4); `None` if there is no such property.
    fn of(id: u32) -> Option<Self> {
        const MESSAGE: Place = Place::PUBLISH.or(Place::WILL);
        const OPENING: Place = Place::CONNECT.or(Place::CONNACK);
        Some(match id {
            0x01 | 0x02 | 0x03 | 0x08 | 0x09 => MESSAGE,
            0x0b => Self::PUBLISH.or(Self::SUBSCRIBE),
            0x11 => OPENING.or(Self::DISCONNECT),
            0x15 | 0x16 => OPENING.or(Self::AUTH),
            0x17 | 0x19 => Self::CONNECT,
            0x18 => Self::WILL,
            0x12 | 0x13 | 0x1a | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => Self::CONNACK,
            0x1c => Self::CONNACK.or(Self::DISCONNECT),
            0x1f => Self::CONNACK.or(Self::ACK).or(Self::DISCONNECT).or(Self::AUTH),
            0x21 | 0x22 | 0x27 => OPENING,
            0x23 => Self::PUBLISH,
            0x26 => Self::EVERYWHERE,
            _ => return None,
        })
    }

    fn includes(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// What a property of another packet is here, once its value could be read: docs/decisions/013-which-error.md.
    fn refuses_others(self) -> DecodeError {
        const WHY: &str = "a property of another packet";
        if Self::PUBLISH.or(Self::ACK).or(Self::DISCONNECT).includes(self) {
            DecodeError::Protocol(WHY)
        } else {
            DecodeError::Malformed(WHY)
        }
    }
}

/// The property that may stand often: user properties.
const USER: u32 = 0x26;
/// Subscription identifiers may stand often too, in a PUBLISH.
const SUBSCRIPTION_ID: u32 = 0x0b;

/// All properties of one section, as they stand on the wire.
#[derive(Debug, Default)]
pub(super) struct Properties<'a> {
    pub(super) message_expiry_s: Option<u32>,
    pub(super) subscription_ids: Vec<u32>,
    pub(super) session_expiry_s: Option<u32>,
    pub(super) assigned_client_id: Option<&'a [u8]>,
    pub(super) server_keep_alive_s: Option<u16>,
    pub(super) auth_method: Option<&'a [u8]>,
    pub(super) auth_data: Option<&'a [u8]>,
    pub(super) request_problem: Option<bool>,
    pub(super) will_delay_s: Option<u32>,
    pub(super) request_response: Option<bool>,
    pub(super) response_information: Option<&'a [u8]>,
    pub(super) server_reference: Option<&'a [u8]>,
    pub(super) reason_string: Option<&'a [u8]>,
    pub(super) receive_max: Option<NonZeroU16>,
    pub(super) alias_max: Option<u16>,
    pub(super) alias: Option<NonZeroU16>,
    pub(super) qos_max: Option<QoS>,
    pub(super) retain: Option<bool>,
    pub(super) packet_max: Option<NonZeroU32>,
    pub(super) wildcards: Option<bool>,
    pub(super) subscription_ids_available: Option<bool>,
    pub(super) shared: Option<bool>,
    user: Vec<(&'a [u8], &'a [u8])>,
    user_count: usize,
    /// Of user properties and reason string.
    text_bytes: usize,
    seen: u64,
}

impl<'a> Properties<'a> {
    /// Reads a section with its length in front. Refused if it holds more than `limits` allow.
    pub(super) fn read(
        reader: &mut Reader<'a>,
        place: Place,
        limits: &Limits,
    ) -> Result<Self, DecodeError> {
        let mut properties = Self::default();
        let mut section = section(reader)?;
        while !section.is_empty() {
            properties.read_one(&mut section, place, limits)?;
        }
        Ok(properties)
    }

    /// Reads one property; gives its identifier.
    fn read_one(
        &mut self,
        from: &mut Reader<'a>,
        place: Place,
        limits: &Limits,
    ) -> Result<u32, DecodeError> {
        let id = from.varint()?;
        let places = Place::of(id).ok_or(DecodeError::Malformed("an unknown property"))?;
        if !places.includes(place) {
            self.read_value(id, from, place, limits)?;
            return Err(place.refuses_others());
        }
        let often = id == USER || id == SUBSCRIPTION_ID && place == Place::PUBLISH;
        if !often && self.seen >> id & 1 == 1 {
            return Err(DecodeError::Protocol("a property stands twice"));
        }
        self.seen |= 1 << id;
        self.read_value(id, from, place, limits)?;
        Ok(id)
    }

    fn read_value(
        &mut self,
        id: u32,
        from: &mut Reader<'a>,
        place: Place,
        limits: &Limits,
    ) -> Result<(), DecodeError> {
        match id {
            0x01 => _ = flag(from, "payload format indicator")?,
            0x02 => self.message_expiry_s = Some(from.u32()?),
            0x03 => _ = from.string()?,
            0x08 => {
                if !topic::is_name(from.name()?) {
                    return Err(DecodeError::Protocol("the response topic is not a topic name"));
                }
            }
            0x09 => _ = from.field()?,
            SUBSCRIPTION_ID => match from.varint()? {
                0 => return Err(DecodeError::Protocol("subscription identifier 0")),
                id => self.subscription_ids.push(id),
            },
            0x11 => self.session_expiry_s = Some(from.u32()?),
            0x12 => self.assigned_client_id = Some(from.name()?),
            0x13 => self.server_keep_alive_s = Some(from.u16()?),
            0x15 => self.auth_method = Some(from.string()?),
            0x16 => self.auth_data = Some(from.field()?),
            0x17 => self.request_problem = Some(flag(from, "request problem information")?),
            0x18 => self.will_delay_s = Some(from.u32()?),
            0x19 => self.request_response = Some(flag(from, "request response information")?),
            0x1a => self.response_information = Some(from.string()?),
            0x1c => self.server_reference = Some(from.string()?),
            0x1f => {
                let reason = from.string()?;
                self.count_bytes(reason.len(), limits)?;
                self.reason_string = Some(reason);
            }
            0x21 => self.receive_max = Some(not_zero(from.u16()?, "receive maximum 0")?),
            0x22 => self.alias_max = Some(from.u16()?),
            0x23 => {
                let alias = NonZeroU16::new(from.u16()?);
                self.alias = Some(alias.ok_or(DecodeError::TopicAlias)?);
            }
            0x24 => self.qos_max = Some(qos_max(from)?),
            0x25 => self.retain = Some(flag(from, "retain available")?),
            USER => self.read_user(from, place, limits)?,
            0x27 => self.packet_max = Some(not_zero(from.u32()?, "maximum packet size 0")?),
            0x28 => self.wildcards = Some(flag(from, "wildcard subscription available")?),
            0x29 => {
                let what = "subscription identifiers available";
                self.subscription_ids_available = Some(flag(from, what)?);
            }
            0x2a => self.shared = Some(flag(from, "shared subscription available")?),
            _ => return Err(DecodeError::Malformed("an unknown property")),
        }
        Ok(())
    }

    fn read_user(
        &mut self,
        from: &mut Reader<'a>,
        place: Place,
        limits: &Limits,
    ) -> Result<(), DecodeError> {
        self.user_count += 1;
        if self.user_count > limits.user_properties {
            return Err(DecodeError::Quota(Quota::UserProperties));
        }
        let pair = (from.string()?, from.string()?);
        self.count_bytes(pair.0.len() + pair.1.len(), limits)?;
        // Those of a message stay in wire form.
        if !Place::PUBLISH.or(Place::WILL).includes(place) {
            self.user.push(pair);
        }
        Ok(())
    }

    fn count_bytes(&mut self, more: usize, limits: &Limits) -> Result<(), DecodeError> {
        self.text_bytes += more;
        let fits = self.text_bytes <= limits.property_bytes;
        if fits { Ok(()) } else { Err(DecodeError::Quota(Quota::PropertyBytes)) }
    }

    /// The user properties as shared text.
    pub(super) fn user(&self, from: &Reader<'_>) -> Result<UserProperties, DecodeError> {
        self.user
            .iter()
            .map(|(name, value)| Ok((from.share_text(name)?, from.share_text(value)?)))
            .collect()
    }

    /// Reason string and user properties, if there is either.
    pub(super) fn ack(&self, from: &Reader<'_>) -> Result<Option<Box<AckProperties>>, DecodeError> {
        if self.reason_string.is_none() && self.user.is_empty() {
            return Ok(None);
        }
        let reason_string = share_text(from, self.reason_string)?;
        Ok(Some(Box::new(AckProperties { reason_string, user: self.user(from)? })))
    }
}

/// An optional string as shared text.
pub(super) fn share_text(
    from: &Reader<'_>,
    part: Option<&[u8]>,
) -> Result<Option<Text>, DecodeError> {
    part.map(|part| from.share_text(part)).transpose()
}

fn section<'a>(reader: &mut Reader<'a>) -> Result<Reader<'a>, DecodeError> {
    let len = reader.varint()?;
    reader.part(usize::try_from(len).expect("at most 28 bits"))
}

fn flag(from: &mut Reader<'_>, what: &'static str) -> Result<bool, DecodeError> {
    match from.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Protocol(what)),
    }
}

fn qos_max(from: &mut Reader<'_>) -> Result<QoS, DecodeError> {
    Ok(if flag(from, "maximum QoS")? { QoS::AtLeastOnce } else { QoS::AtMostOnce })
}

fn not_zero<T, N: TryFrom<T>>(value: T, what: &'static str) -> Result<N, DecodeError> {
    N::try_from(value).map_err(|_| DecodeError::Protocol(what))
}

/// The properties of a message: those that concern only this hop, and the rest in wire form.
#[derive(Debug, Default)]
pub(super) struct MessageProperties {
    pub(super) expiry_s: Option<u32>,
    pub(super) alias: Option<NonZeroU16>,
    pub(super) delay_s: Option<u32>,
    pub(super) subscription_ids: Vec<u32>,
    pub(super) kept: Bytes,
}

impl MessageProperties {
    /// Reads the section of a PUBLISH or a will. What travels on stays one slice of the packet, unless something that
    /// doesn't stands in its middle.
    pub(super) fn read(
        reader: &mut Reader<'_>,
        place: Place,
        limits: &Limits,
    ) -> Result<Self, DecodeError> {
        let mut section = section(reader)?;
        if section.is_empty() {
            return Ok(Self::default());
        }
        let mut properties = Properties::default();
        let mut kept = Kept::default();
        while !section.is_empty() {
            let before = section.rest();
            let id = properties.read_one(&mut section, place, limits)?;
            if !matches!(id, 0x02 | SUBSCRIPTION_ID | 0x18 | 0x23) {
                kept.keep(before, before.len() - section.rest().len());
            }
        }
        Ok(Self {
            expiry_s: properties.message_expiry_s,
            alias: properties.alias,
            delay_s: properties.will_delay_s,
            kept: kept.finish(reader),
            subscription_ids: properties.subscription_ids,
        })
    }
}

/// Joins the runs of a section that are kept.
#[derive(Debug, Default)]
struct Kept<'a> {
    /// The first run: from here, this long.
    from: &'a [u8],
    len: usize,
    /// Everything, once there was a second run.
    copied: Option<BytesMut>,
}

impl<'a> Kept<'a> {
    /// Keeps the first `len` bytes of `rest`, which is a suffix of the section.
    fn keep(&mut self, rest: &'a [u8], len: usize) {
        if let Some(copied) = &mut self.copied {
            copied.extend_from_slice(&rest[..len]);
        } else if self.len == 0 {
            (self.from, self.len) = (rest, len);
        } else if self.from.len() - self.len == rest.len() {
            self.len += len;
        } else {
            let mut copied = BytesMut::from(&self.from[..self.len]);
            copied.extend_from_slice(&rest[..len]);
            self.copied = Some(copied);
        }
    }

    fn finish(self, reader: &Reader<'_>) -> Bytes {
        self.copied.map_or_else(|| reader.share(&self.from[..self.len]), BytesMut::freeze)
    }
}

/// Collects a section to be written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    section: BytesMut,
}

impl Writer {
    pub(super) fn flag(&mut self, id: u8, value: Option<bool>) {
        if let Some(value) = value {
            self.section.put_slice(&[id, u8::from(value)]);
        }
    }

    pub(super) fn u16(&mut self, id: u8, value: Option<u16>) {
        if let Some(value) = value {
            self.section.put_u8(id);
            self.section.put_u16(value);
        }
    }

    pub(super) fn u32(&mut self, id: u8, value: Option<u32>) {
        if let Some(value) = value {
            self.section.put_u8(id);
            self.section.put_u32(value);
        }
    }

    pub(super) fn varint(&mut self, id: u8, value: Option<u32>) {
        if let Some(value) = value {
            self.section.put_u8(id);
            put_varint(&mut self.section, value);
        }
    }

    pub(super) fn bytes(&mut self, id: u8, value: Option<&[u8]>) -> Result<(), EncodeError> {
        if let Some(value) = value {
            self.section.put_u8(id);
            put_field(&mut self.section, value)?;
        }
        Ok(())
    }

    pub(super) fn text(&mut self, id: u8, value: Option<&Text>) -> Result<(), EncodeError> {
        self.bytes(id, value.map(Text::as_bytes))
    }

    pub(super) fn user(&mut self, user: &UserProperties) -> Result<(), EncodeError> {
        for (name, value) in user {
            self.section.put_u8(0x26);
            put_field(&mut self.section, name.as_bytes())?;
            put_field(&mut self.section, value.as_bytes())?;
        }
        Ok(())
    }

    pub(super) fn ack(&mut self, ack: Option<&AckProperties>) -> Result<(), EncodeError> {
        if let Some(ack) = ack {
            self.text(0x1f, ack.reason_string.as_ref())?;
            self.user(&ack.user)?;
        }
        Ok(())
    }

    /// Properties that are in wire form already.
    pub(super) fn raw(&mut self, properties: &[u8]) {
        self.section.put_slice(properties);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.section.is_empty()
    }

    /// Appends the section with its length in front.
    pub(super) fn finish(self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let len = u32::try_from(self.section.len()).ok().filter(|&len| len <= fixed::VARINT_MAX);
        put_varint(out, len.ok_or(EncodeError::PacketTooLong)?);
        out.put_slice(&self.section);
        Ok(())
    }
}

/// Appends a variable byte integer of at most 28 bits.
pub(super) fn put_varint(out: &mut BytesMut, mut value: u32) {
    debug_assert!(value <= fixed::VARINT_MAX, "{value} as a variable byte integer");
    while value > 0x7f {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}
