//! What services of different nodes say to each other, as bytes. Versioned; both ends of a rolling upgrade read it.
//!
//! Of a message's lifetime a frame carries what is left, in milliseconds; none left means expired, `u64::MAX` for ever.
//! Writer and reader each say `now` by their own clock (see `expiry`).
//!
//! Invariant: what is read was checked; a frame that does not read is counted and dropped by its handler, never guessed.

use std::{num::NonZeroU32, sync::Arc};

use bytes::Bytes;
use moorline_core::{
    ConnId, Delivery, Epoch, Incarnation, Message, NodeId, Offset, QoS, RetainHandling,
    SubscriptionIds, SubscriptionOptions, TenantId, Text, UnixMillis,
};
use moorline_machine::{
    RetainedPage,
    command::{Origin, SessionId},
};
use moorline_storage::{
    StorageError,
    record::{Reader, Writer},
};

use crate::expiry::{left, over};

const VERSION: u8 = 1;
/// What is left of a message that does not expire.
const FOR_EVER: u64 = u64::MAX;
/// Room that most frames fit into.
const FRAME_BYTES: usize = 512;
/// Flags of a delivery, beside its QoS.
const RESENT: u8 = 1 << 2;
const RELEASED: u8 = 1 << 3;
const RETAIN: u8 = 1 << 4;
const WITH_IDS: u8 = 1 << 5;

/// From the node of a connection to the leader of its session's shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Upward {
    /// This connection takes deliveries from `next` on, `credit` of them at first.
    Attach(Attach),
    /// It can take more.
    Credit {
        /// Whose.
        session: SessionId,
        /// Which attachment.
        generation: u64,
        /// How many more.
        more: u32,
    },
    /// Does this connection still have this session? Nothing is delivered by it: of a clean one.
    Hold(Hold),
}

/// See [`Upward::Attach`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attach {
    pub(crate) session: SessionId,
    pub(crate) epoch: Epoch,
    pub(crate) conn: ConnId,
    /// Tells this attachment from earlier ones of the same connection.
    pub(crate) generation: u64,
    pub(crate) next: Offset,
    pub(crate) credit: u32,
}

/// See [`Upward::Hold`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) session: SessionId,
    pub(crate) epoch: Epoch,
    pub(crate) conn: ConnId,
}

/// A leader's answer to an [`Attach`] or a [`Hold`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attached {
    /// The session's shared subscriptions go with it: each with its version.
    Yes(Vec<(Text, SubscriptionOptions, u64)>),
    /// This node does not lead the shard (any more, or yet).
    NotLeader,
    /// Another connection has the session.
    TakenOver,
    /// The session is not held by this connection any more, nor by another.
    Gone,
}

impl Upward {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::new(VERSION, FRAME_BYTES);
        match self {
            Self::Attach(attach) => {
                out.u8(1);
                session(&mut out, attach.session);
                out.u64(attach.epoch.0);
                out.u64(attach.conn.0);
                out.u64(attach.generation);
                out.u64(attach.next.0);
                out.u32(attach.credit);
            }
            Self::Credit { session: whose, generation, more } => {
                out.u8(2);
                session(&mut out, *whose);
                out.u64(*generation);
                out.u32(*more);
            }
            Self::Hold(hold) => {
                out.u8(3);
                session(&mut out, hold.session);
                out.u64(hold.epoch.0);
                out.u64(hold.conn.0);
            }
        }
        out.done()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, StorageError> {
        let mut from = Reader::new(bytes, VERSION, "attachment frame")?;
        let upward = match from.u8()? {
            1 => Self::Attach(Attach {
                session: read_session(&mut from)?,
                epoch: Epoch(from.u64()?),
                conn: ConnId(from.u64()?),
                generation: from.u64()?,
                next: Offset(from.u64()?),
                credit: from.u32()?,
            }),
            2 => Self::Credit {
                session: read_session(&mut from)?,
                generation: from.u64()?,
                more: from.u32()?,
            },
            3 => Self::Hold(Hold {
                session: read_session(&mut from)?,
                epoch: Epoch(from.u64()?),
                conn: ConnId(from.u64()?),
            }),
            other => return Err(from.corrupt(format!("kind {other}"))),
        };
        from.end()?;
        Ok(upward)
    }
}

impl Attached {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::new(VERSION, FRAME_BYTES);
        match self {
            Self::Yes(shared) => {
                out.u8(1);
                for (filter, options, version) in shared {
                    out.text(filter);
                    let SubscriptionOptions { qos, no_local, retain_as_published, .. } = options;
                    let as_published = u8::from(*retain_as_published) << 3;
                    out.u8(*qos as u8 | u8::from(*no_local) << 2 | as_published);
                    out.u8(options.retain_handling as u8);
                    out.u32(options.id.map_or(0, NonZeroU32::get));
                    out.u64(*version);
                }
            }
            Self::NotLeader => out.u8(2),
            Self::TakenOver => out.u8(3),
            Self::Gone => out.u8(4),
        }
        out.done()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, StorageError> {
        let mut from = Reader::new(bytes, VERSION, "attached frame")?;
        let attached = match from.u8()? {
            1 => {
                let mut shared = Vec::new();
                while !from.is_empty() {
                    shared.push(read_shared(&mut from)?);
                }
                Self::Yes(shared)
            }
            2 => Self::NotLeader,
            3 => Self::TakenOver,
            4 => Self::Gone,
            other => return Err(from.corrupt(format!("kind {other}"))),
        };
        from.end()?;
        Ok(attached)
    }
}

fn read_shared(from: &mut Reader) -> Result<(Text, SubscriptionOptions, u64), StorageError> {
    let (filter, flags, handling) = (from.text()?, from.u8()?, from.u8()?);
    let malformed = || from.corrupt(format!("options {flags:#x} {handling}"));
    let (qos, retain_handling) = QoS::from_bits(flags & 3)
        .zip(RetainHandling::from_number(handling))
        .ok_or_else(malformed)?;
    let options = SubscriptionOptions {
        qos,
        no_local: flags & 1 << 2 != 0,
        retain_as_published: flags & 1 << 3 != 0,
        retain_handling,
        id: NonZeroU32::new(from.u32()?),
    };
    Ok((filter, options, from.u64()?))
}

/// Deliveries for one attachment, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Push {
    pub(crate) conn: ConnId,
    pub(crate) generation: u64,
    /// Counts the pushes of an attachment from 0: a gap means that one was lost on the way.
    pub(crate) number: u64,
    pub(crate) deliveries: Vec<Delivery>,
}

/// Collects the pushes for one node.
pub(crate) struct PushWriter {
    out: Writer,
    now: UnixMillis,
    count: u32,
    bytes: usize,
}

impl PushWriter {
    /// `now` is log time, by which the deliveries expire.
    pub(crate) fn new(now: UnixMillis) -> Self {
        Self { out: Writer::new(VERSION, FRAME_BYTES), now, count: 0, bytes: 0 }
    }

    pub(crate) fn push(&mut self, push: &Push) {
        self.count += 1;
        self.out.u64(push.conn.0);
        self.out.u64(push.generation);
        self.out.u64(push.number);
        self.out.u32(u32::try_from(push.deliveries.len()).expect("credit is a u32"));
        for delivery in &push.deliveries {
            self.out.u64(delivery.offset.map_or(0, |offset| offset.0));
            let Delivery { resent, released, retain, ids, .. } = delivery;
            let mut flags = delivery.qos as u8;
            for (on, bit) in [
                (*resent, RESENT),
                (*released, RELEASED),
                (*retain, RETAIN),
                (!ids.is_empty(), WITH_IDS),
            ] {
                flags |= if on { bit } else { 0 };
            }
            self.out.u8(flags);
            write_ids(&mut self.out, ids);
            message(&mut self.out, &delivery.message, self.now);
            self.bytes += delivery.message.payload.len() + delivery.message.topic.len();
        }
    }

    /// Message bytes so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn done(self) -> Bytes {
        self.out.done()
    }
}

/// Reads what a [`PushWriter`] wrote, push by push.
pub(crate) fn read_pushes(
    bytes: Bytes,
    now: UnixMillis,
    mut visit: impl FnMut(Push),
) -> Result<(), StorageError> {
    let mut from = Reader::new(bytes, VERSION, "delivery frame")?;
    while !from.is_empty() {
        let (conn, generation, number) = (ConnId(from.u64()?), from.u64()?, from.u64()?);
        let count = from.u32()?;
        let mut deliveries = Vec::new();
        for _ in 0..count {
            let offset = from.u64()?;
            let flags = from.u8()?;
            let qos = QoS::from_bits(flags & 3)
                .ok_or_else(|| from.corrupt(format!("delivery flags {flags:#x}")))?;
            let ids = if flags & WITH_IDS == 0 {
                SubscriptionIds::default()
            } else {
                read_ids(&mut from)?
            };
            let message = Arc::new(owned(&read_message(&mut from, now)?));
            deliveries.push(Delivery {
                resent: flags & RESENT != 0,
                released: flags & RELEASED != 0,
                retain: flags & RETAIN != 0,
                ids,
                ..Delivery::new((offset != 0).then_some(Offset(offset)), qos, message)
            });
        }
        visit(Push { conn, generation, number, deliveries });
    }
    Ok(())
}

/// `ids u8 | u32 each`, if there are any.
fn write_ids(out: &mut Writer, ids: &SubscriptionIds) {
    let ids = ids.as_slice();
    if !ids.is_empty() {
        out.u8(u8::try_from(ids.len()).expect("a session has at most 100 subscriptions"));
        ids.iter().for_each(|id| out.u32(*id));
    }
}

fn read_ids(from: &mut Reader) -> Result<SubscriptionIds, StorageError> {
    let mut ids = Vec::new();
    for _ in 0..from.u8()? {
        let id = NonZeroU32::new(from.u32()?);
        ids.push(id.ok_or_else(|| from.corrupt("a subscription identifier of 0".into()))?);
    }
    Ok(ids.into_iter().collect())
}

/// Who publishes a message, and in which topic space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Publisher {
    pub(crate) tenant: TenantId,
    /// Its session, for subscriptions that do not want their own messages.
    pub(crate) session: Option<SessionId>,
}

/// A message for whoever is there: to a shard's leader, or to a node with live sessions.
pub(crate) fn encode_live(publisher: Publisher, live: &Message, now: UnixMillis) -> Bytes {
    let mut out = Writer::new(VERSION, FRAME_BYTES + live.payload.len());
    out.u32(publisher.tenant.0);
    out.u8(u8::from(publisher.session.is_some()));
    if let Some(from) = publisher.session {
        session(&mut out, from);
    }
    message(&mut out, live, now);
    out.done()
}

pub(crate) fn decode_live(
    bytes: Bytes,
    now: UnixMillis,
) -> Result<(Publisher, Message), StorageError> {
    let mut from = Reader::new(bytes, VERSION, "live frame")?;
    let tenant = TenantId(from.u32()?);
    let session = match from.u8()? {
        0 => None,
        1 => Some(read_session(&mut from)?),
        other => return Err(from.corrupt(format!("publisher {other}"))),
    };
    let message = read_message(&mut from, now)?;
    from.end()?;
    Ok((Publisher { tenant, session }, message))
}

/// A QoS 2 message for a node with live sessions.
pub(crate) fn encode_live_once(
    tenant: TenantId,
    origin: Origin,
    live: &Message,
    now: UnixMillis,
) -> Bytes {
    let mut out = Writer::new(VERSION, FRAME_BYTES + live.payload.len());
    out.u32(tenant.0);
    session(&mut out, origin.session);
    out.u64(origin.number);
    out.u64(origin.floor);
    message(&mut out, live, now);
    out.done()
}

pub(crate) fn decode_live_once(
    bytes: Bytes,
    now: UnixMillis,
) -> Result<(TenantId, Origin, Message), StorageError> {
    let mut from = Reader::new(bytes, VERSION, "live frame of QoS 2")?;
    let tenant = TenantId(from.u32()?);
    let session = read_session(&mut from)?;
    let origin = Origin { session, number: from.u64()?, floor: from.u64()? };
    let message = read_message(&mut from, now)?;
    from.end()?;
    Ok((tenant, origin, message))
}

/// Asks for a page of retained messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RetainedQuestion {
    pub(crate) tenant: TenantId,
    pub(crate) filter: Text,
    /// Only topics behind this one.
    pub(crate) after: Option<Text>,
}

impl RetainedQuestion {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::new(VERSION, FRAME_BYTES);
        out.u32(self.tenant.0);
        out.text(&self.filter);
        out.u8(u8::from(self.after.is_some()));
        if let Some(after) = &self.after {
            out.text(after);
        }
        out.done()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, StorageError> {
        let mut from = Reader::new(bytes, VERSION, "retained question")?;
        let (tenant, filter) = (TenantId(from.u32()?), from.text()?);
        let after = match from.u8()? {
            0 => None,
            1 => Some(from.text()?),
            other => return Err(from.corrupt(format!("topic {other}"))),
        };
        from.end()?;
        Ok(Self { tenant, filter, after })
    }
}

/// A page of retained messages; `now` is log time, by which they expire.
pub(crate) fn encode_page(page: &RetainedPage, now: UnixMillis) -> Bytes {
    let mut out = Writer::new(VERSION, FRAME_BYTES);
    out.u8(u8::from(page.more));
    page.messages.iter().for_each(|kept| message(&mut out, kept, now));
    out.done()
}

/// The messages in memory of their own.
pub(crate) fn decode_page(bytes: Bytes, now: UnixMillis) -> Result<RetainedPage, StorageError> {
    let mut from = Reader::new(bytes, VERSION, "retained page")?;
    let mut page = RetainedPage { more: from.u8()? == 1, messages: Vec::new() };
    while !from.is_empty() {
        page.messages.push(owned(&read_message(&mut from, now)?));
    }
    Ok(page)
}

/// The message in memory of its own: a slow client may keep it for long, and a slice of a frame keeps the whole frame.
pub(crate) fn owned(message: &Message) -> Message {
    let (topic, properties) = (message.topic.len(), message.properties.len());
    let mut bytes = Vec::with_capacity(topic + properties + message.payload.len());
    bytes.extend_from_slice(message.topic.as_bytes());
    bytes.extend_from_slice(&message.properties);
    bytes.extend_from_slice(&message.payload);
    let bytes = Bytes::from(bytes);
    Message {
        topic: Text::from_utf8(bytes.slice(..topic)).expect("it was a text before"),
        qos: message.qos,
        retain: message.retain,
        properties: bytes.slice(topic..topic + properties),
        expires_at: message.expires_at,
        payload: bytes.slice(topic + properties..),
    }
}

/// A process's question for a lease: how far it has applied the meta log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeaseReport {
    pub(crate) incarnation: Incarnation,
    pub(crate) applied: u64,
}

impl LeaseReport {
    pub(crate) fn encode(self) -> Bytes {
        [self.incarnation.0.to_be_bytes(), self.applied.to_be_bytes()].concat().into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (incarnation, applied) = bytes.split_first_chunk()?;
        let incarnation = Incarnation(u64::from_be_bytes(*incarnation));
        Some(Self { incarnation, applied: u64::from_be_bytes(applied.try_into().ok()?) })
    }
}

/// An index of the meta log: of a barrier, or up to where the leader confirmed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) applied: u64,
}

impl Report {
    pub(crate) fn encode(self) -> Bytes {
        Bytes::copy_from_slice(&self.applied.to_be_bytes())
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self { applied: u64::from_be_bytes(bytes.try_into().ok()?) })
    }
}

/// Tells a node that another connection has a session of one of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TakenOver {
    pub(crate) incarnation: Incarnation,
    pub(crate) conn: ConnId,
}

impl TakenOver {
    pub(crate) fn encode(self) -> Bytes {
        let mut out = Writer::new(VERSION, 16);
        out.u64(self.incarnation.0);
        out.u64(self.conn.0);
        out.done()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, StorageError> {
        let mut from = Reader::new(bytes, VERSION, "takeover frame")?;
        let over = Self { incarnation: Incarnation(from.u64()?), conn: ConnId(from.u64()?) };
        from.end()?;
        Ok(over)
    }
}

/// Where a push goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) node: NodeId,
    pub(crate) conn: ConnId,
}

pub(crate) fn session(out: &mut Writer, session: SessionId) {
    out.u16(session.bucket);
    out.u64(session.number);
}

pub(crate) fn read_session(from: &mut Reader) -> Result<SessionId, StorageError> {
    Ok(SessionId { bucket: from.u16()?, number: from.u64()? })
}

fn message(out: &mut Writer, message: &Message, now: UnixMillis) {
    out.u8(message.qos as u8 | u8::from(message.retain) << 2);
    out.u64(message.expires_at.map_or(FOR_EVER, |at| left(at, now).min(FOR_EVER - 1)));
    out.text(&message.topic);
    out.blob(&message.properties);
    out.blob(&message.payload);
}

fn read_message(from: &mut Reader, now: UnixMillis) -> Result<Message, StorageError> {
    let flags = from.u8()?;
    let qos = QoS::from_bits(flags & 3)
        .ok_or_else(|| from.corrupt(format!("message flags {flags:#x}")))?;
    let left = from.u64()?;
    Ok(Message {
        qos,
        retain: flags & 4 != 0,
        expires_at: (left != FOR_EVER).then(|| over(left, now)),
        topic: from.text()?,
        properties: from.blob()?,
        payload: from.blob()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The writer's clock, and the reader's.
    const WROTE: UnixMillis = UnixMillis(5_000);
    const READS: UnixMillis = UnixMillis(90_000);

    /// With 7 ms left by the clock that says `now`.
    fn message(now: UnixMillis) -> Message {
        Message {
            topic: Text::from("a/é"),
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: Bytes::from_static(b"\x01\x01"),
            expires_at: Some(UnixMillis(now.0 + 7)),
            payload: Bytes::from_static(b"body"),
        }
    }

    #[test]
    fn pushes_come_back_as_they_were_written() {
        let push = |conn, offset, resent, now| Push {
            conn: ConnId(conn),
            generation: 3,
            number: 4,
            deliveries: vec![Delivery {
                resent,
                retain: resent,
                ids: if resent {
                    [NonZeroU32::MAX, NonZeroU32::MIN].into_iter().collect()
                } else {
                    None.into()
                },
                ..Delivery::new(offset, QoS::AtLeastOnce, Arc::new(message(now)))
            }],
        };
        let pushes = |now| [push(1, Some(Offset(9)), true, now), push(2, None, false, now)];
        let mut writer = PushWriter::new(WROTE);
        pushes(WROTE).iter().for_each(|push| writer.push(push));
        let bytes = writer.done();
        let mut read = Vec::new();
        read_pushes(bytes.clone(), READS, |push| read.push(push)).unwrap();
        assert_eq!(read, pushes(READS));
        for cut in 1..bytes.len() {
            let mut seen = 0;
            let whole = read_pushes(bytes.slice(..cut), READS, |_| seen += 1).is_ok();
            assert!(seen < 2 && (!whole || seen <= 1), "cut at {cut}");
        }
    }

    #[test]
    fn small_frames_come_back_and_damaged_ones_do_not() {
        let attach = Upward::Attach(Attach {
            session: SessionId { bucket: 5, number: 6 },
            epoch: Epoch(7),
            conn: ConnId(8),
            generation: 9,
            next: Offset(10),
            credit: 11,
        });
        let credit =
            Upward::Credit { session: SessionId { bucket: 1, number: 2 }, generation: 3, more: 4 };
        let session = SessionId { bucket: 12, number: 13 };
        let hold = Upward::Hold(Hold { session, epoch: Epoch(14), conn: ConnId(15) });
        for upward in [attach, credit, hold] {
            let bytes = upward.encode();
            assert_eq!(Upward::decode(bytes.clone()).unwrap(), upward);
            assert!(Upward::decode(bytes.slice(..bytes.len() - 1)).is_err());
        }
        let over = TakenOver { incarnation: Incarnation(1), conn: ConnId(2) };
        assert_eq!(TakenOver::decode(over.encode()).unwrap(), over);
        assert_eq!(owned(&message(READS)), message(READS));
        let options = SubscriptionOptions {
            retain_as_published: true,
            retain_handling: RetainHandling::Never,
            id: NonZeroU32::new(3),
            ..SubscriptionOptions::of_qos(QoS::AtLeastOnce)
        };
        let shared = vec![
            (Text::from("$share/g/a"), options, 1),
            (Text::from("$share/g/b"), SubscriptionOptions::default(), 2),
        ];
        let yes = [Attached::Yes(Vec::new()), Attached::Yes(shared)];
        let no = [Attached::NotLeader, Attached::TakenOver, Attached::Gone];
        for attached in yes.into_iter().chain(no) {
            assert_eq!(Attached::decode(attached.encode()).unwrap(), attached);
        }
        assert!(Attached::decode(Bytes::from_static(&[VERSION, 9])).is_err());
    }

    #[test]
    fn questions_and_pages_of_retained_messages_come_back() {
        for after in [None, Some(Text::from("a/b"))] {
            let question =
                RetainedQuestion { tenant: TenantId(3), filter: Text::from("a/+"), after };
            let bytes = question.encode();
            assert_eq!(RetainedQuestion::decode(bytes.clone()).unwrap(), question);
            assert!(RetainedQuestion::decode(bytes.slice(..bytes.len() - 1)).is_err());
        }
        let page = |now, more| RetainedPage { messages: vec![message(now), message(now)], more };
        for more in [false, true] {
            let bytes = encode_page(&page(WROTE, more), WROTE);
            assert_eq!(decode_page(bytes.clone(), READS).unwrap(), page(READS, more));
            assert!(decode_page(bytes.slice(..bytes.len() - 1), READS).is_err());
        }
    }

    #[test]
    fn live_messages_come_with_what_is_left_of_them() {
        let sent = |expires_at: Option<u64>| {
            let live = Message { expires_at: expires_at.map(UnixMillis), ..message(WROTE) };
            let session = expires_at.map(|number| SessionId { bucket: 4, number });
            let publisher = Publisher { tenant: TenantId(3), session };
            let (from, read) = decode_live(encode_live(publisher, &live, WROTE), READS).unwrap();
            assert_eq!(from, publisher);
            assert_eq!(Message { expires_at: live.expires_at, ..read.clone() }, live);
            read.expires_at.map(|at| at.0)
        };
        #[rustfmt::skip]
        let table = [
            (None,                   None),
            (Some(WROTE.0 + 7),      Some(READS.0 + 7)),
            (Some(WROTE.0),          Some(READS.0)), // expired, and still is
            (Some(1),                Some(READS.0)),
            (Some(u64::MAX),         Some(u64::MAX)),
        ];
        for (expires_at, expected) in table {
            assert_eq!(sent(expires_at), expected, "{expires_at:?}");
        }
        let session = SessionId { bucket: 1, number: 2 };
        let origin = Origin { session, number: 4, floor: 3 };
        let bytes = encode_live_once(TenantId(3), origin, &message(WROTE), WROTE);
        let read = decode_live_once(bytes.clone(), READS).unwrap();
        assert_eq!(read, (TenantId(3), origin, message(READS)));
        assert!(decode_live_once(bytes.slice(..bytes.len() - 1), READS).is_err());
    }
}
