//! The rows of a group: what they hold, and their bytes. Each begins with a version.
//!
//! # Invariants
//!
//! - **Never renumbered.** Disks hold these bytes. Frozen by the golden tests of this file.
//! - **A row that can't be read stops the replica** ([`StorageError::Corrupt`]): it is rebuilt from the leader, never
//!   guessed at.

pub(crate) mod audit;
pub(crate) mod calls;
pub(crate) mod documents;
pub(crate) mod events;
mod kept;
pub(crate) mod mail;
pub(crate) mod presence;
mod registry;
pub(crate) mod values;

use std::num::NonZeroU32;

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::{
    Epoch, Grant, Message, NodeId, Offset, QoS, SubscriptionIds, SubscriptionOptions, Text,
    UnixMillis, port::SessionLimits,
};
use moorline_storage::StorageError;

use crate::{
    codec::{
        Malformed, Reader, encode_message, message_len, put_holder, put_limits, put_list, put_node,
        put_option, put_options, put_text, read_message, read_node,
    },
    command::{Holder, MemberState, NodeRecord},
    shard::Numbers,
};

pub(crate) use self::kept::{AwaitedRow, DueWillRow, RetainedRow, WillRow};
pub(crate) use self::registry::RegistryCountsRow;

const VERSION: u8 = 1;

/// A row that one version of this crate can write and read.
pub(crate) trait Row: Sized {
    /// What a damaged one is called.
    const WHAT: &'static str;
    /// Bytes it usually has, its version included.
    const BYTES: usize;

    fn write(&self, out: &mut BytesMut);
    fn read(reader: &mut Reader) -> Result<Self, Malformed>;

    fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::BYTES);
        out.put_u8(VERSION);
        self.write(&mut out);
        out.freeze()
    }

    fn from_bytes(bytes: &Bytes) -> Result<Self, StorageError> {
        let mut reader = Reader::new(bytes.clone(), Self::WHAT);
        let row = match reader.u8() {
            Ok(VERSION) => Self::read(&mut reader),
            Ok(_) => Err(Malformed { what: "row version" }),
            Err(error) => Err(error),
        };
        row.and_then(|row| reader.end().map(|()| row)).map_err(|error| corrupt(Self::WHAT, &error))
    }
}

/// A row or entry of this group can't be read.
pub(crate) fn corrupt(what: &str, why: &impl ToString) -> StorageError {
    StorageError::Corrupt { what: what.to_owned(), why: why.to_string() }
}

/// A single number: log time, the next session id of a bucket, the references of a shared message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NumberRow(pub(crate) u64);

impl Row for NumberRow {
    const WHAT: &'static str = "number row";
    const BYTES: usize = 9;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.0);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        reader.u64().map(Self)
    }
}

/// What of a session changes when it is opened and closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionRow {
    pub(crate) number: u64,
    pub(crate) epoch: Epoch,
    pub(crate) holder: Option<Holder>,
    pub(crate) expiry_s: u32,
    pub(crate) detached_at: Option<UnixMillis>,
    /// Items below were queued while a connection held the session that has ended since: they may have been offered.
    pub(crate) offered_below: Offset,
    /// What the last `OpenSession` answered, for its repeat.
    pub(crate) present: bool,
    /// As the last `OpenSession` brought it, within what the shard allows.
    pub(crate) limits: SessionLimits,
}

impl Row for SessionRow {
    const WHAT: &'static str = "session row";
    const BYTES: usize = 76;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.number);
        out.put_u64(self.epoch.0);
        put_option(out, self.holder, put_holder);
        out.put_u32(self.expiry_s);
        put_option(out, self.detached_at, |out, at| out.put_u64(at.0));
        out.put_u64(self.offered_below.0);
        out.put_u8(u8::from(self.present));
        put_limits(out, self.limits);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            number: reader.u64()?,
            epoch: reader.epoch()?,
            holder: reader.option(Reader::holder)?,
            expiry_s: reader.u32()?,
            detached_at: reader.option(Reader::millis)?,
            offered_below: reader.offset()?,
            present: reader.bool()?,
            limits: reader.limits()?,
        })
    }
}

/// What of a session changes with every message: written once per batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CountersRow {
    /// The first offset that is not settled; equal to `tail` when nothing is queued.
    pub(crate) head: Offset,
    /// The offset that the next message gets.
    pub(crate) tail: Offset,
    /// Rows between them.
    pub(crate) items: u64,
    /// Bytes of their messages.
    pub(crate) bytes: u64,
    /// Copies that found the queue full, ever.
    pub(crate) dropped: u64,
    /// Publishes of QoS 2 received, ever: the number of the last one.
    pub(crate) received: u64,
}

impl Default for CountersRow {
    fn default() -> Self {
        Self { head: Offset(1), tail: Offset(1), items: 0, bytes: 0, dropped: 0, received: 0 }
    }
}

impl Row for CountersRow {
    const WHAT: &'static str = "session counters row";
    const BYTES: usize = 49;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.head.0);
        out.put_u64(self.tail.0);
        out.put_u64(self.items);
        out.put_u64(self.bytes);
        out.put_u64(self.dropped);
        out.put_u64(self.received);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            head: reader.offset()?,
            tail: reader.offset()?,
            items: reader.u64()?,
            bytes: reader.u64()?,
            dropped: reader.u64()?,
            received: reader.u64()?,
        })
    }
}

/// A subscription of a durable session: what was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubscriptionRow(pub(crate) SubscriptionOptions);

impl Row for SubscriptionRow {
    const WHAT: &'static str = "subscription row";
    const BYTES: usize = 2;

    fn write(&self, out: &mut BytesMut) {
        put_options(out, self.0);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        reader.options().map(Self)
    }
}

/// A session that takes part in a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MembershipRow {
    pub(crate) options: SubscriptionOptions,
    /// The version of the session's subscription.
    pub(crate) version: u64,
}

impl Row for MembershipRow {
    const WHAT: &'static str = "share member row";
    const BYTES: usize = 14;

    fn write(&self, out: &mut BytesMut) {
        put_options(out, self.options);
        out.put_u64(self.version);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { options: reader.options()?, version: reader.u64()? })
    }
}

/// That a session takes part in a share no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeftRow {
    /// Of the membership that ended, and of all before it.
    pub(crate) version: u64,
    pub(crate) at: UnixMillis,
}

impl Row for LeftRow {
    const WHAT: &'static str = "left share row";
    const BYTES: usize = 17;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.version);
        out.put_u64(self.at.0);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { version: reader.u64()?, at: reader.millis()? })
    }
}

/// How many sessions of the shard hold a filter; the row goes with the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FilterRow {
    pub(crate) sessions: u64,
    /// When the first of them came.
    pub(crate) version: u64,
}

impl Row for FilterRow {
    const WHAT: &'static str = "filter row";
    const BYTES: usize = 17;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.sessions);
        out.put_u64(self.version);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { sessions: reader.u64()?, version: reader.u64()? })
    }
}

/// One message in one queue: the message itself, or the number of a row that several queues share.
///
/// `version u8 | flags u8 | [ids u8, u32 each] | message`, or `… | message id u64 | message bytes u32`, or nothing more when
/// released
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// How it is sent.
    pub(crate) grant: Grant,
    /// What it counts against its session's quota: the encoded message.
    pub(crate) bytes: u64,
    /// The shared row, if the message is not in the item.
    pub(crate) shared: Option<u64>,
    /// The client has the message: only its release is left, and no message.
    pub(crate) released: bool,
    /// Where the message begins in the row, if it is there.
    at: usize,
}

impl Item {
    const WHAT: &'static str = "queue item row";
    const HEADER_BYTES: usize = 2;
    const QOS_BITS: u8 = 0b11;
    const SHARED: u8 = 1 << 2;
    const RELEASED: u8 = 1 << 3;
    const RETAIN: u8 = 1 << 4;
    const WITH_IDS: u8 = 1 << 5;

    /// The row of an item with its message in it.
    pub(crate) fn inline(grant: &Grant, message: &Message) -> Bytes {
        let mut row = Self::begin(grant, 0, message_len(message));
        encode_message(&mut row, message);
        row.into()
    }

    /// The row of an item whose message, of so many encoded bytes, is in the shared row `message`.
    pub(crate) fn shared(grant: &Grant, message: u64, bytes: usize) -> Bytes {
        let mut row = Self::begin(grant, Self::SHARED, 12);
        row.put_u64(message);
        row.put_u32(u32::try_from(bytes).expect("a command is at most COMMAND_BYTES_MAX"));
        row.into()
    }

    fn begin(grant: &Grant, mut flags: u8, body_bytes: usize) -> Vec<u8> {
        let ids = grant.ids.as_slice();
        let mut row = Vec::with_capacity(Self::HEADER_BYTES + 1 + 4 * ids.len() + body_bytes);
        flags |= grant.qos as u8;
        for (on, bit) in [(grant.retain, Self::RETAIN), (!ids.is_empty(), Self::WITH_IDS)] {
            flags |= if on { bit } else { 0 };
        }
        row.put_u8(VERSION);
        row.put_u8(flags);
        if !ids.is_empty() {
            row.put_u8(u8::try_from(ids.len()).expect("SUBSCRIPTIONS_PER_SESSION_MAX fits"));
            ids.iter().for_each(|id| row.put_u32(*id));
        }
        row
    }

    /// The row of an item of QoS 2 whose message the client has.
    pub(crate) fn released() -> Bytes {
        Bytes::from_static(&[VERSION, QoS::ExactlyOnce as u8 | Self::RELEASED])
    }

    /// Reads all but the message.
    pub(crate) fn read(row: &[u8]) -> Result<Self, StorageError> {
        Self::parse(row).ok_or_else(|| corrupt(Self::WHAT, &"it is not what was written"))
    }

    fn parse(row: &[u8]) -> Option<Self> {
        let (&[version, flags], mut rest) = row.split_first_chunk()?;
        let known = Self::QOS_BITS | Self::SHARED | Self::RELEASED | Self::RETAIN | Self::WITH_IDS;
        if version != VERSION || flags & !known != 0 {
            return None;
        }
        let mut ids = SubscriptionIds::default();
        if flags & Self::WITH_IDS != 0 {
            let (&[count], after) = rest.split_first_chunk()?;
            let (encoded, after) = after.split_at_checked(4 * usize::from(count))?;
            let read = |id: &[u8; 4]| NonZeroU32::new(u32::from_be_bytes(*id));
            ids = encoded.as_chunks().0.iter().map(read).collect::<Option<_>>()?;
            rest = after;
        }
        let grant = Grant {
            qos: QoS::from_bits(flags & Self::QOS_BITS)?,
            retain: flags & Self::RETAIN != 0,
            ids,
        };
        let item =
            Self { grant, bytes: 0, shared: None, released: false, at: row.len() - rest.len() };
        match flags & (Self::SHARED | Self::RELEASED) {
            0 => Some(Self { bytes: rest.len() as u64, ..item }),
            Self::RELEASED if flags == QoS::ExactlyOnce as u8 | Self::RELEASED => {
                rest.is_empty().then_some(Self { released: true, ..item })
            }
            Self::SHARED => {
                let (message, rest) = rest.split_first_chunk()?;
                let bytes = u32::from_be_bytes(<[u8; 4]>::try_from(rest).ok()?);
                let shared = Some(u64::from_be_bytes(*message));
                Some(Self { bytes: u64::from(bytes), shared, ..item })
            }
            _ => None,
        }
    }

    /// The message of an inline item, read from `row`; shares the row's buffer.
    pub(crate) fn message(&self, row: &Bytes) -> Result<Message, StorageError> {
        read_message(row.slice(self.at..)).map_err(|error| corrupt(Self::WHAT, &error))
    }
}

/// A message that several queues have.
#[derive(Debug)]
pub(crate) struct SharedMessage;

impl SharedMessage {
    const WHAT: &'static str = "message row";

    pub(crate) fn to_bytes(message: &Message) -> Bytes {
        let mut row = Vec::with_capacity(1 + message_len(message));
        row.put_u8(VERSION);
        encode_message(&mut row, message);
        row.into()
    }

    pub(crate) fn from_bytes(row: &Bytes) -> Result<Message, StorageError> {
        if row.first() != Some(&VERSION) {
            return Err(corrupt(Self::WHAT, &"row version"));
        }
        read_message(row.slice(1..)).map_err(|error| corrupt(Self::WHAT, &error))
    }
}

/// How far a producer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerRow {
    pub(crate) last_seq: u64,
    pub(crate) last_seen: UnixMillis,
}

impl Row for ProducerRow {
    const WHAT: &'static str = "producer row";
    const BYTES: usize = 17;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.last_seq);
        out.put_u64(self.last_seen.0);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { last_seq: reader.u64()?, last_seen: reader.millis()? })
    }
}

/// Which publishes of QoS 2 of a session came to a shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct OriginRow {
    /// Which of its numbers.
    pub(crate) numbers: Numbers,
    /// When the last one came.
    pub(crate) at: UnixMillis,
}

impl Row for OriginRow {
    const WHAT: &'static str = "origin row";
    const BYTES: usize = 29;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.numbers.floor());
        out.put_u64(self.at.0);
        let words: Vec<u64> = self.numbers.words().collect();
        put_list(out, &words, |out, word| out.put_u64(*word));
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let (floor, at) = (reader.u64()?, reader.millis()?);
        let numbers = Numbers::from_words(floor, reader.list(8, Reader::u64)?);
        let numbers = numbers.ok_or(Malformed { what: "numbers of an origin" })?;
        Ok(Self { numbers, at })
    }
}

/// What is left to remove of the queue of a session that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GarbageRow {
    pub(crate) from: Offset,
    pub(crate) tail: Offset,
}

impl Row for GarbageRow {
    const WHAT: &'static str = "garbage row";
    const BYTES: usize = 17;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.from.0);
        out.put_u64(self.tail.0);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { from: reader.offset()?, tail: reader.offset()? })
    }
}

/// Meta: a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeRow {
    pub(crate) record: NodeRecord,
    pub(crate) gone: bool,
}

impl Row for NodeRow {
    const WHAT: &'static str = "node row";
    const BYTES: usize = 64;

    fn write(&self, out: &mut BytesMut) {
        put_node(out, &self.record);
        out.put_u8(u8::from(self.gone));
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { record: read_node(reader)?, gone: reader.bool()? })
    }
}

/// Meta: the voters of a group, in order of preference as its leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlacementRow(pub(crate) Vec<NodeId>);

impl Row for PlacementRow {
    const WHAT: &'static str = "placement row";
    const BYTES: usize = 64;

    fn write(&self, out: &mut BytesMut) {
        put_list(out, &self.0, |out, node| out.put_u64(node.0));
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        reader.list(8, |reader| reader.u64().map(NodeId)).map(Self)
    }
}

/// Meta: who is to vote in a group, in order of preference as its leader, and whether they do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetRow {
    pub(crate) voters: Vec<NodeId>,
    pub(crate) reached: bool,
}

impl Row for TargetRow {
    const WHAT: &'static str = "target row";
    const BYTES: usize = 64;

    fn write(&self, out: &mut BytesMut) {
        out.put_u8(u8::from(self.reached));
        put_list(out, &self.voters, |out, node| out.put_u64(node.0));
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let reached = reader.bool()?;
        let voters = reader.list(8, |reader| reader.u64().map(NodeId))?;
        Ok(Self { voters, reached })
    }
}

/// Meta: how a node stands. A node without this row is active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemberRow(pub(crate) MemberState);

impl Row for MemberRow {
    const WHAT: &'static str = "member row";
    const BYTES: usize = 2;

    fn write(&self, out: &mut BytesMut) {
        out.put_u8(self.0 as u8);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let malformed = Malformed { what: "member state" };
        MemberState::from_number(reader.u8()?).ok_or(malformed).map(Self)
    }
}

/// Meta: the cluster itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClusterRow {
    pub(crate) cluster: u128,
    pub(crate) shards: u16,
    pub(crate) replicas: u8,
}

impl Row for ClusterRow {
    const WHAT: &'static str = "cluster row";
    const BYTES: usize = 20;

    fn write(&self, out: &mut BytesMut) {
        out.put_u128(self.cluster);
        out.put_u16(self.shards);
        out.put_u8(self.replicas);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { cluster: reader.u128()?, shards: reader.u16()?, replicas: reader.u8()? })
    }
}

/// Meta: a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TenantRow(pub(crate) Text);

impl Row for TenantRow {
    const WHAT: &'static str = "tenant row";
    const BYTES: usize = 64;

    fn write(&self, out: &mut BytesMut) {
        put_text(out, &self.0);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        reader.text().map(Self)
    }
}

/// Meta: a route, or for a while what is known of one that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteRow {
    pub(crate) version: u64,
    pub(crate) present: bool,
    /// The meta log index at which it became so.
    pub(crate) index: u64,
    /// The log time at which it became so.
    pub(crate) at: UnixMillis,
}

impl Row for RouteRow {
    const WHAT: &'static str = "route row";
    const BYTES: usize = 26;

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(self.version);
        out.put_u8(u8::from(self.present));
        out.put_u64(self.index);
        out.put_u64(self.at.0);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            version: reader.u64()?,
            present: reader.bool()?,
            index: reader.u64()?,
            at: reader.millis()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use moorline_core::{ConnId, Incarnation, RetainHandling};

    use super::*;
    use crate::codec::hex;

    pub(super) fn check<R: Row + PartialEq + Debug>(row: &R, expected: &str) {
        let bytes = row.to_bytes();
        assert_eq!(hex(&bytes), expected.replace(' ', ""), "{row:?}");
        assert_eq!(&R::from_bytes(&bytes).unwrap(), row);
        for len in 0..bytes.len() {
            assert!(R::from_bytes(&bytes.slice(..len)).is_err(), "{row:?} at {len}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(R::from_bytes(&longer.into()).is_err(), "{row:?} with more");
        let mut newer = bytes.to_vec();
        newer[0] += 1;
        assert!(R::from_bytes(&newer.into()).is_err(), "{row:?} of a later version");
    }

    #[test]
    fn rows_of_membership_keep_their_bytes() {
        // Frozen: disks hold these.
        check(&MemberRow(MemberState::Leaving), "01 02");
        let target = TargetRow { voters: vec![NodeId(2), NodeId(4)], reached: true };
        check(&target, "01 01 00000002 0000000000000002 0000000000000004");
    }

    #[test]
    fn rows_of_subscriptions_keep_their_bytes() {
        // Frozen: disks hold these.
        let options = SubscriptionOptions::of_qos(QoS::AtLeastOnce);
        check(&SubscriptionRow(options), "01 01");
        let options = SubscriptionOptions {
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::Never,
            id: NonZeroU32::new(5),
            ..options
        };
        check(&SubscriptionRow(options), "01 6d 00000005");
        let membership = MembershipRow { options, version: 6 };
        check(&membership, "01 6d 00000005 0000000000000006");
        check(
            &AwaitedRow { until: UnixMillis(1), began: 2 },
            "01 0000000000000001 0000000000000002",
        );
        check(&LeftRow { version: 6, at: UnixMillis(7) }, "01 0000000000000006 0000000000000007");
    }

    #[test]
    fn rows_keep_their_bytes() {
        // Frozen: disks hold these.
        check(&NumberRow(5), "01 0000000000000005");
        let holder = Holder { node: NodeId(4), incarnation: Incarnation(5), conn: ConnId(6) };
        let session = SessionRow {
            number: 1,
            epoch: Epoch(2),
            holder: Some(holder),
            expiry_s: 3,
            detached_at: None,
            offered_below: Offset(7),
            present: true,
            limits: SessionLimits { queue_items: 1, queue_bytes: 2, subscriptions: 3 },
        };
        check(
            &session,
            "01 0000000000000001 0000000000000002 \
             01 0000000000000004 0000000000000005 0000000000000006 00000003 00 0000000000000007 01 \
             00000001 00000002 00000003",
        );
        check(
            &SessionRow { holder: None, detached_at: Some(UnixMillis(9)), ..session },
            "01 0000000000000001 0000000000000002 00 00000003 01 0000000000000009 \
             0000000000000007 01 00000001 00000002 00000003",
        );
        check(
            &CountersRow {
                head: Offset(1),
                tail: Offset(2),
                items: 3,
                bytes: 4,
                dropped: 5,
                received: 6,
            },
            "01 0000000000000001 0000000000000002 0000000000000003 0000000000000004 \
             0000000000000005 0000000000000006",
        );
        let numbers = Numbers::from_words(1, vec![1 << 2 | 1 << 3, 1]).unwrap();
        check(
            &OriginRow { numbers, at: UnixMillis(4) },
            "01 0000000000000001 0000000000000004 00000002 000000000000000c 0000000000000001",
        );
        check(&FilterRow { sessions: 1, version: 2 }, "01 0000000000000001 0000000000000002");
        check(
            &ProducerRow { last_seq: 1, last_seen: UnixMillis(2) },
            "01 0000000000000001 0000000000000002",
        );
        check(
            &GarbageRow { from: Offset(1), tail: Offset(2) },
            "01 0000000000000001 0000000000000002",
        );
        let record = NodeRecord {
            node: NodeId(1),
            store: 2,
            incarnation: Incarnation(3),
            address: "a".into(),
        };
        check(
            &NodeRow { record, gone: true },
            "01 0000000000000001 00000000000000000000000000000002 0000000000000003 00000001 61 01",
        );
        check(&PlacementRow(vec![NodeId(1)]), "01 00000001 0000000000000001");
        check(
            &ClusterRow { cluster: 1, shards: 2, replicas: 3 },
            "01 00000000000000000000000000000001 0002 03",
        );
        check(&TenantRow("n".into()), "01 00000001 6e");
        check(
            &RouteRow { version: 1, present: true, index: 2, at: UnixMillis(3) },
            "01 0000000000000001 01 0000000000000002 0000000000000003",
        );
    }

    #[test]
    fn items_keep_their_bytes() {
        let message = Message {
            topic: "t".into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Bytes::new(),
            expires_at: None,
            payload: Bytes::from_static(b"xyz"),
        };
        let grant = |qos, retain, ids: &[u32]| Grant {
            qos,
            retain,
            ids: ids.iter().filter_map(|id| NonZeroU32::new(*id)).collect(),
        };
        let plain = grant(QoS::AtLeastOnce, false, &[]);
        let inline = Item::inline(&plain, &message);
        assert_eq!(hex(&inline), "0101010000000174000000007879 7a".replace(' ', ""));
        let read = Item::read(&inline).unwrap();
        let bytes = message_len(&message) as u64;
        let expected = Item { grant: plain, bytes, shared: None, released: false, at: 2 };
        assert_eq!((&read, read.message(&inline).unwrap()), (&expected, message.clone()));

        let wanted = grant(QoS::AtLeastOnce, true, &[7, 6]);
        let inline = Item::inline(&wanted, &message);
        let expected = "0131 02 00000006 00000007 01 00000001 74 00000000 78797a";
        assert_eq!(hex(&inline), expected.replace(' ', ""));
        let read = Item::read(&inline).unwrap();
        assert_eq!((&read.grant, read.bytes), (&wanted, bytes));
        assert_eq!(read.message(&inline).unwrap(), message);

        let plain = grant(QoS::ExactlyOnce, false, &[]);
        let shared = Item::shared(&plain, 5, 6);
        assert_eq!(hex(&shared), "0106 0000000000000005 00000006".replace(' ', ""));
        let read = Item::read(&shared).unwrap();
        let expected = Item { grant: plain, bytes: 6, shared: Some(5), released: false, at: 2 };
        assert_eq!(read, expected);
        for len in 0..shared.len() {
            assert!(Item::read(&shared[..len]).is_err());
        }
        for flags in [0x03, 0x08, 0x1a, 0x20, 0x40, 0xFF] {
            assert!(Item::read(&[1, flags]).is_err());
        }

        let row = SharedMessage::to_bytes(&message);
        assert_eq!(hex(&row), "0101 00000001 74 00000000 78797a".replace(' ', ""));
        assert_eq!(SharedMessage::from_bytes(&row).unwrap(), message);
        assert!(SharedMessage::from_bytes(&Bytes::from_static(&[2, 1])).is_err());
    }
}
