//! Rows of sessions: what they are, what they asked for, and what is left of those that are gone.

use bytes::{BufMut, BytesMut};
use moorline_core::{Epoch, Offset, SubscriptionOptions, UnixMillis, port::SessionLimits};

use super::Row;
use crate::{
    codec::{Malformed, Reader, put_holder, put_limits, put_list, put_option, put_options},
    command::Holder,
    shard::Numbers,
};

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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use moorline_core::{ConnId, Incarnation, NodeId, QoS, RetainHandling};

    use super::{
        super::{AwaitedRow, golden::check},
        *,
    };

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
    fn rows_of_sessions_keep_their_bytes() {
        // Frozen: disks hold these.
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
            &GarbageRow { from: Offset(1), tail: Offset(2) },
            "01 0000000000000001 0000000000000002",
        );
    }
}
