//! PUBLISH (3.3): the packet that has to be fast.

use std::num::NonZeroU16;

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::{QoS, topic};

use super::{
    DecodeError, EncodeError, Limits, PacketId, Publish, Version,
    fixed::{self, varint_len},
    properties::{MessageProperties, Place, put_varint},
    read::Reader,
};

/// Reads the body of a PUBLISH whose `flags` the fixed header has checked.
pub(super) fn decode(
    body: &Bytes,
    flags: u8,
    version: Version,
    limits: &Limits,
) -> Result<Publish, DecodeError> {
    let mut reader = Reader::new(body);
    let qos = QoS::from_bits(flags >> 1 & 0b11).expect("the fixed header was checked");
    let topic = reader.name_text()?;
    let id = if qos == QoS::AtMostOnce { None } else { Some(reader.packet_id()?) };
    let properties = if version.is_v5() {
        MessageProperties::read(&mut reader, Place::PUBLISH, limits)?
    } else {
        MessageProperties::default()
    };
    if topic.is_empty() {
        if !version.is_v5() {
            return Err(DecodeError::Malformed("an empty topic name"));
        }
        if properties.alias.is_none() {
            return Err(DecodeError::Protocol("an empty topic name without an alias"));
        }
    } else if !topic::is_name(topic.as_bytes()) {
        return Err(DecodeError::Malformed("a wildcard in a topic name"));
    }
    Ok(Publish {
        dup: flags & 0b1000 != 0,
        qos,
        retain: flags & 1 != 0,
        topic,
        id,
        expiry_s: properties.expiry_s,
        alias: properties.alias,
        subscription_ids: properties.subscription_ids,
        properties: properties.kept,
        payload: reader.share(reader.rest()),
    })
}

/// A PUBLISH to be written, borrowed from wherever its parts are, so that sending a message to a thousand subscribers
/// allocates nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outgoing<'a> {
    /// Topic name; may be empty with an alias.
    pub topic: &'a [u8],
    /// Quality of service.
    pub qos: QoS,
    /// DUP flag.
    pub dup: bool,
    /// RETAIN flag.
    pub retain: bool,
    /// Has to be there exactly if the QoS is not 0.
    pub id: Option<PacketId>,
    /// Message Expiry Interval in seconds.
    pub expiry_s: Option<u32>,
    /// Topic Alias.
    pub alias: Option<NonZeroU16>,
    /// Subscription Identifiers.
    pub subscription_ids: &'a [u32],
    /// The other properties in wire form, as in [`Publish::properties`].
    pub properties: &'a [u8],
    /// The body.
    pub payload: &'a [u8],
}

impl<'a> From<&'a Publish> for Outgoing<'a> {
    fn from(publish: &'a Publish) -> Self {
        Self {
            topic: publish.topic.as_bytes(),
            qos: publish.qos,
            dup: publish.dup,
            retain: publish.retain,
            id: publish.id,
            expiry_s: publish.expiry_s,
            alias: publish.alias,
            subscription_ids: &publish.subscription_ids,
            properties: &publish.properties,
            payload: &publish.payload,
        }
    }
}

impl Outgoing<'_> {
    /// How many bytes [`Outgoing::encode`] would append. Properties count only in MQTT 5.
    ///
    /// # Errors
    ///
    /// When the topic or the whole is longer than the wire can say.
    pub fn encoded_len(&self, version: Version) -> Result<usize, EncodeError> {
        let (properties, remaining) = self.lens(version)?;
        debug_assert!(properties <= remaining, "a part is smaller than the whole");
        let remaining = checked(remaining)?;
        Ok(1 + varint_len(remaining) + usize::try_from(remaining).expect("at most 28 bits"))
    }

    /// Appends the packet. Properties are left out before MQTT 5.
    ///
    /// # Errors
    ///
    /// When the topic or the whole is longer than the wire can say; nothing was appended then.
    ///
    /// # Panics
    ///
    /// If there is a packet id without a QoS or the other way round: such a packet would read as another.
    pub fn encode(&self, version: Version, out: &mut BytesMut) -> Result<(), EncodeError> {
        assert!(
            self.id.is_some() == (self.qos != QoS::AtMostOnce),
            "a packet id stands exactly with QoS 1 and 2"
        );
        let (properties, remaining) = self.lens(version)?;
        let remaining = checked(remaining)?;
        out.reserve(1 + 4 + usize::try_from(remaining).expect("at most 28 bits"));
        let flags = u8::from(self.dup) << 3 | (self.qos as u8) << 1 | u8::from(self.retain);
        out.put_u8(0x30 | flags);
        put_varint(out, remaining);
        out.put_u16(u16::try_from(self.topic.len()).expect("lens has checked it"));
        out.put_slice(self.topic);
        if let Some(id) = self.id {
            out.put_u16(id.get());
        }
        if version.is_v5() {
            put_varint(out, checked(properties)?);
            if let Some(expiry) = self.expiry_s {
                out.put_u8(0x02);
                out.put_u32(expiry);
            }
            if let Some(alias) = self.alias {
                out.put_u8(0x23);
                out.put_u16(alias.get());
            }
            for &id in self.subscription_ids {
                out.put_u8(0x0b);
                put_varint(out, id);
            }
            out.put_slice(self.properties);
        }
        out.put_slice(self.payload);
        Ok(())
    }

    /// Lengths of the property section (without its own length) and of everything after the fixed header.
    fn lens(&self, version: Version) -> Result<(usize, usize), EncodeError> {
        if self.topic.len() > usize::from(u16::MAX) {
            return Err(EncodeError::FieldTooLong);
        }
        let id = if self.id.is_some() { 2 } else { 0 };
        let mut remaining = 2 + self.topic.len() + id + self.payload.len();
        let mut properties = 0;
        if version.is_v5() {
            properties = self.properties.len()
                + self.expiry_s.map_or(0, |_| 5)
                + self.alias.map_or(0, |_| 3)
                + self.subscription_ids.iter().map(|&id| 1 + varint_len(id)).sum::<usize>();
            remaining += varint_len(checked(properties)?) + properties;
        }
        Ok((properties, remaining))
    }
}

fn checked(len: usize) -> Result<u32, EncodeError> {
    u32::try_from(len)
        .ok()
        .filter(|&len| len <= fixed::VARINT_MAX)
        .ok_or(EncodeError::PacketTooLong)
}
