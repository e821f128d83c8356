//! The messages in a frame, one after the other.
//!
//! ```text
//!   kind u8 | role u8 | shard u16 | correlation u64 | len u32 | body        all big-endian
//! ```
//!
//! # Invariants
//!
//! - **A frame is whole messages.** Anything else is [`MalformedFrame`], and the connection is closed: after it nothing
//!   on the stream can be trusted.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use moorline_core::ShardId;
use thiserror::Error;

/// What a message has before its body.
pub(super) const HEADER_BYTES: usize = 16;
/// The largest body: a snapshot's piece and a log entry's batch are 1 MiB, and several entries may share a message.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The kind of the first message in each direction.
pub(super) const HELLO_KIND: u8 = 0;

/// What a message is within its conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Role {
    /// Nobody waits for an answer.
    Oneway = 0,
    /// To be answered with the same correlation.
    Request = 1,
    /// The answer.
    Response = 2,
    /// There will be no answer; the body says why, in words.
    Failure = 3,
}

impl Role {
    fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Oneway),
            1 => Some(Self::Request),
            2 => Some(Self::Response),
            3 => Some(Self::Failure),
            _ => None,
        }
    }
}

/// What stands before a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The number of a `Kind`, or [`HELLO_KIND`]. A plain number here: a later version may know more kinds.
    pub(super) kind: u8,
    pub(super) role: Role,
    pub(super) shard: ShardId,
    /// Pairs a response with its request; 0 for a oneway message.
    pub(super) correlation: u64,
}

/// A message that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) header: Header,
    /// A slice of the frame.
    pub(super) body: Bytes,
}

/// A frame is not whole messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a frame is not made of whole messages")]
pub(super) struct MalformedFrame;

/// Appends a message. The caller has checked [`MESSAGE_BYTES_MAX`].
pub(super) fn put(out: &mut BytesMut, header: Header, body: &[u8]) {
    let len = u32::try_from(body.len()).expect("bodies end at MESSAGE_BYTES_MAX");
    out.reserve(HEADER_BYTES + body.len());
    out.put_u8(header.kind);
    out.put_u8(header.role as u8);
    out.put_u16(header.shard.0);
    out.put_u64(header.correlation);
    out.put_u32(len);
    out.put_slice(body);
}

/// Takes the next message off a frame; `None` at its end.
pub(super) fn take(frame: &mut Bytes) -> Result<Option<Message>, MalformedFrame> {
    if frame.is_empty() {
        return Ok(None);
    }
    if frame.len() < HEADER_BYTES {
        return Err(MalformedFrame);
    }
    let kind = frame.get_u8();
    let role = Role::from_number(frame.get_u8()).ok_or(MalformedFrame)?;
    let shard = ShardId(frame.get_u16());
    let correlation = frame.get_u64();
    let len = frame.get_u32() as usize;
    if len > MESSAGE_BYTES_MAX || len > frame.len() {
        return Err(MalformedFrame);
    }
    let body = frame.split_to(len);
    Ok(Some(Message { header: Header { kind, role, shard, correlation }, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(role: Role, correlation: u64) -> Header {
        Header { kind: 16, role, shard: ShardId(7), correlation }
    }

    #[test]
    fn messages_look_on_the_wire_as_they_did() {
        let mut out = BytesMut::new();
        put(&mut out, header(Role::Request, 258), b"hi");
        let golden = [16, 1, 0, 7, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 2, b'h', b'i'];
        assert_eq!(out.as_ref(), golden);
    }

    #[test]
    fn what_was_put_is_taken_in_order() {
        let mut out = BytesMut::new();
        for (role, body) in [(Role::Oneway, "a"), (Role::Response, ""), (Role::Failure, "no")] {
            put(&mut out, header(role, 3), body.as_bytes());
        }
        let mut frame = out.freeze();
        let mut bodies = Vec::new();
        while let Some(message) = take(&mut frame).unwrap() {
            bodies.push((message.header.role, message.body));
        }
        let expected = [(Role::Oneway, "a"), (Role::Response, ""), (Role::Failure, "no")];
        assert_eq!(bodies, expected.map(|(role, body)| (role, Bytes::from(body))));
    }

    #[test]
    fn a_frame_that_is_cut_or_lies_is_refused() {
        let mut out = BytesMut::new();
        put(&mut out, header(Role::Request, 1), b"body");
        let whole = out.freeze();
        for cut in 1..whole.len() {
            assert_eq!(take(&mut whole.slice(..cut)), Err(MalformedFrame), "{cut} bytes");
        }
        let mut lies = BytesMut::from(whole.as_ref());
        lies[1] = 9; // no such role
        assert_eq!(take(&mut lies.freeze()), Err(MalformedFrame));
        let mut lies = BytesMut::from(whole.as_ref());
        lies[12] = 0xff; // longer than anything may be
        assert_eq!(take(&mut lies.freeze()), Err(MalformedFrame));
    }
}
