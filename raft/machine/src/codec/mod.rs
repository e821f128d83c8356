//! The bytes of commands, runs, batches and answers: big-endian, length-prefixed, kinds with fixed numbers.
//!
//! # Invariants
//!
//! - **Never renumbered.** Logs and producer rows hold these bytes. Frozen by the golden tests beside each codec.
//! - **Malformed input is an error**, never a panic and never a large allocation: a count is believed only as far as
//!   there are bytes for it. Checked by `codec::command`'s property tests.
//! - **Zero-copy.** What is read stays a slice of the buffer it came in.

mod answer;
mod audit;
mod calls;
mod command;
mod documents;
mod events;
mod mail;
mod message;
mod presence;
mod registry;
mod values;

use std::num::NonZeroU32;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use moorline_core::{
    Epoch, Incarnation, NodeId, Offset, QoS, RetainHandling, ShardId, SubscriptionOptions,
    TenantId, Text, UnixMillis, port::SessionLimits,
};

use crate::command::{Holder, RouteTarget, SessionId};

pub use answer::RunAnswers;
pub(crate) use audit::{put_audited_by, read_audited_by};
pub(crate) use calls::{read_call_number, read_call_state};
pub use command::COMMAND_BYTES_MAX;
pub(crate) use command::{
    FRAME_HEADER_BYTES, PROGRAM_BYTES, frame_len, put_node, put_program, read_node, read_program,
};
pub(crate) use documents::{put_space, read_space};
pub(crate) use events::{put_event, read_event};
pub(crate) use message::{encode_message, message_len, read_message};
pub(crate) use presence::{
    decode_mail_news, decode_presence_news, encode_mail_news, encode_presence_news, put_retention,
    put_time, read_retention,
};
pub(crate) use registry::{
    put_bytes, put_credentials, put_owner, read_bytes, read_credentials, read_owner,
};

pub(crate) use values::{put_value, put_values, read_scope, read_value, read_values};

/// Bytes that no `encode` of this version wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}")]
pub struct Malformed {
    /// What was being read.
    pub what: &'static str,
}

/// A command that does not fit a frame. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a command of {bytes} bytes is larger than {COMMAND_BYTES_MAX}")]
pub struct TooLarge {
    /// How large it would be.
    pub bytes: usize,
}

/// Takes values off the front of a buffer.
#[derive(Debug)]
pub(crate) struct Reader {
    rest: Bytes,
    what: &'static str,
}

impl Reader {
    /// `what` names the thing in errors.
    pub(crate) fn new(bytes: Bytes, what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) fn malformed(&self) -> Malformed {
        Malformed { what: self.what }
    }

    pub(crate) fn need(&self, bytes: usize) -> Result<(), Malformed> {
        if self.rest.len() < bytes { Err(self.malformed()) } else { Ok(()) }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.need(1)?;
        Ok(self.rest.get_u8())
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.need(2)?;
        Ok(self.rest.get_u16())
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.need(4)?;
        Ok(self.rest.get_u32())
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.need(8)?;
        Ok(self.rest.get_u64())
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        self.need(8)?;
        Ok(self.rest.get_i64())
    }

    pub(crate) fn u128(&mut self) -> Result<u128, Malformed> {
        self.need(16)?;
        Ok(self.rest.get_u128())
    }

    /// A byte that is 0 or 1.
    pub(crate) fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed()),
        }
    }

    /// The next `len` bytes.
    pub(crate) fn slice(&mut self, len: usize) -> Result<Bytes, Malformed> {
        self.need(len)?;
        // An empty slice would keep the whole buffer alive for nothing.
        Ok(if len == 0 { Bytes::new() } else { self.rest.split_to(len) })
    }

    /// Text with its length.
    pub(crate) fn text(&mut self) -> Result<Text, Malformed> {
        let len = self.u32()? as usize;
        let bytes = self.slice(len)?;
        Text::from_utf8(bytes).map_err(|_| self.malformed())
    }

    pub(crate) fn qos(&mut self) -> Result<QoS, Malformed> {
        let bits = self.u8()?;
        QoS::from_bits(bits).ok_or_else(|| self.malformed())
    }

    /// See [`put_options`].
    pub(crate) fn options(&mut self) -> Result<SubscriptionOptions, Malformed> {
        let flags = self.u8()?;
        let (qos, handling) = (QoS::from_bits(flags & QOS_BITS), flags >> HANDLING_SHIFT & 0b11);
        let options = SubscriptionOptions {
            qos: qos.ok_or(self.malformed())?,
            no_local: flags & NO_LOCAL != 0,
            retain_as_published: flags & AS_PUBLISHED != 0,
            retain_handling: RetainHandling::from_number(handling).ok_or(self.malformed())?,
            id: None,
        };
        match flags >> WITH_ID_SHIFT {
            0 => Ok(options),
            1 => {
                let id = NonZeroU32::new(self.u32()?).ok_or(self.malformed())?;
                Ok(SubscriptionOptions { id: Some(id), ..options })
            }
            _ => Err(self.malformed()),
        }
    }

    pub(crate) fn tenant(&mut self) -> Result<TenantId, Malformed> {
        self.u32().map(TenantId)
    }

    pub(crate) fn session(&mut self) -> Result<SessionId, Malformed> {
        Ok(SessionId { bucket: self.u16()?, number: self.u64()? })
    }

    pub(crate) fn epoch(&mut self) -> Result<Epoch, Malformed> {
        self.u64().map(Epoch)
    }

    pub(crate) fn offset(&mut self) -> Result<Offset, Malformed> {
        self.u64().map(Offset)
    }

    pub(crate) fn millis(&mut self) -> Result<UnixMillis, Malformed> {
        self.u64().map(UnixMillis)
    }

    pub(crate) fn holder(&mut self) -> Result<Holder, Malformed> {
        Ok(Holder {
            node: NodeId(self.u64()?),
            incarnation: Incarnation(self.u64()?),
            conn: moorline_core::ConnId(self.u64()?),
        })
    }

    pub(crate) fn limits(&mut self) -> Result<SessionLimits, Malformed> {
        Ok(SessionLimits {
            queue_items: self.u32()?,
            queue_bytes: self.u32()?,
            subscriptions: self.u32()?,
        })
    }

    pub(crate) fn target(&mut self) -> Result<RouteTarget, Malformed> {
        match self.u8()? {
            TARGET_SHARD => Ok(RouteTarget::Shard(ShardId(self.u16()?))),
            TARGET_NODE => Ok(RouteTarget::Node(NodeId(self.u64()?), Incarnation(self.u64()?))),
            _ => Err(self.malformed()),
        }
    }

    /// A value that may be missing.
    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// Values with a four-byte count, each at least `least` bytes long.
    pub(crate) fn list<T>(
        &mut self,
        least: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.u32()? as usize;
        self.need(count.checked_mul(least).ok_or_else(|| self.malformed())?)?;
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(read(self)?);
        }
        Ok(list)
    }

    /// Everything that is left, for a reader that is not the caller's own.
    pub(crate) fn take_rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    /// Everything that is left.
    pub(crate) fn tail(self) -> Bytes {
        if self.rest.is_empty() { Bytes::new() } else { self.rest }
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed()) }
    }

    /// Gives the rest back to a caller that reads on.
    pub(crate) fn into_rest(self) -> Bytes {
        self.rest
    }
}

const QOS_BITS: u8 = 0b11;
const NO_LOCAL: u8 = 1 << 2;
const AS_PUBLISHED: u8 = 1 << 3;
const HANDLING_SHIFT: u8 = 4;
const WITH_ID_SHIFT: u8 = 6;

const TARGET_SHARD: u8 = 1;
const TARGET_NODE: u8 = 2;

pub(crate) fn put_text(out: &mut BytesMut, text: &Text) {
    out.put_u32(u32::try_from(text.len()).expect("no text of 4 GiB passed any edge"));
    out.put_slice(text.as_bytes());
}

/// The options byte of a SUBSCRIBE (MQTT 5, 3.8.3.1), with a bit for the identifier that follows if there is one.
pub(crate) fn put_options(out: &mut BytesMut, options: SubscriptionOptions) {
    let SubscriptionOptions { qos, no_local, retain_as_published, retain_handling, id } = options;
    let mut flags = qos as u8 | (retain_handling as u8) << HANDLING_SHIFT;
    for (on, bit) in [(no_local, NO_LOCAL), (retain_as_published, AS_PUBLISHED)] {
        flags |= if on { bit } else { 0 };
    }
    out.put_u8(flags | u8::from(id.is_some()) << WITH_ID_SHIFT);
    if let Some(id) = id {
        out.put_u32(id.get());
    }
}

pub(crate) fn put_session(out: &mut BytesMut, session: SessionId) {
    out.put_u16(session.bucket);
    out.put_u64(session.number);
}

pub(crate) fn put_holder(out: &mut BytesMut, holder: Holder) {
    out.put_u64(holder.node.0);
    out.put_u64(holder.incarnation.0);
    out.put_u64(holder.conn.0);
}

pub(crate) fn put_limits(out: &mut BytesMut, limits: SessionLimits) {
    out.put_u32(limits.queue_items);
    out.put_u32(limits.queue_bytes);
    out.put_u32(limits.subscriptions);
}

pub(crate) fn put_target(out: &mut BytesMut, target: RouteTarget) {
    match target {
        RouteTarget::Shard(shard) => {
            out.put_u8(TARGET_SHARD);
            out.put_u16(shard.0);
        }
        RouteTarget::Node(node, incarnation) => {
            out.put_u8(TARGET_NODE);
            out.put_u64(node.0);
            out.put_u64(incarnation.0);
        }
    }
}

pub(crate) fn put_option<T>(
    out: &mut BytesMut,
    value: Option<T>,
    put: impl FnOnce(&mut BytesMut, T),
) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

pub(crate) fn put_list<T>(out: &mut BytesMut, list: &[T], mut put: impl FnMut(&mut BytesMut, &T)) {
    out.put_u32(u32::try_from(list.len()).expect("lists in commands are bounded by their limits"));
    for item in list {
        put(out, item);
    }
}

/// For the golden tests.
#[cfg(test)]
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
