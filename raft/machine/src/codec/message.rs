//! A message in bytes: always the tail of what holds it, so that its payload needs no length.
//!
//! `flags u8 | topic len u32, bytes | properties len u32, bytes | [expires_at u64] | payload`

use bytes::{BufMut, Bytes};
use moorline_core::{Message, QoS, UnixMillis};

use super::{Malformed, Reader};

const QOS_BITS: u8 = 0b0000_0011;
const RETAIN: u8 = 0b0000_0100;
const EXPIRES: u8 = 0b0000_1000;

/// How many bytes [`encode_message`] appends.
pub(crate) fn message_len(message: &Message) -> usize {
    let fixed = 1 + 4 + 4 + if message.expires_at.is_some() { 8 } else { 0 };
    fixed + message.topic.len() + message.properties.len() + message.payload.len()
}

pub(crate) fn encode_message(out: &mut impl BufMut, message: &Message) {
    let mut flags = message.qos as u8;
    if message.retain {
        flags |= RETAIN;
    }
    if message.expires_at.is_some() {
        flags |= EXPIRES;
    }
    out.put_u8(flags);
    out.put_u32(length(message.topic.as_bytes()));
    out.put_slice(message.topic.as_bytes());
    out.put_u32(length(&message.properties));
    out.put_slice(&message.properties);
    if let Some(UnixMillis(at)) = message.expires_at {
        out.put_u64(at);
    }
    out.put_slice(&message.payload);
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("no packet of 4 GiB passed any edge")
}

/// Reads a message up to the end of `bytes`.
pub(crate) fn read_message(bytes: Bytes) -> Result<Message, Malformed> {
    let mut reader = Reader::new(bytes, "message");
    let flags = reader.u8()?;
    let qos = QoS::from_bits(flags & QOS_BITS).ok_or(reader.malformed())?;
    if flags & !(QOS_BITS | RETAIN | EXPIRES) != 0 {
        return Err(reader.malformed());
    }
    let topic = reader.text()?;
    let properties_len = reader.u32()? as usize;
    let properties = reader.slice(properties_len)?;
    let expires_at = if flags & EXPIRES == 0 { None } else { Some(reader.millis()?) };
    Ok(Message {
        topic,
        qos,
        retain: flags & RETAIN != 0,
        properties,
        expires_at,
        payload: reader.tail(),
    })
}
