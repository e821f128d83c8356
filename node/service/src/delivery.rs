//! The leader's side of deliveries: which connection holds which session of a shard, and what it was sent.
//!
//! # Invariants
//!
//! - **In order, without gaps**: an attachment is sent the offset it waits for, or rows are read from there on.
//! - **Within credit**: an attachment is never sent more than it said it can take.
//! - **Nothing is kept for a slow one**: what exceeds its credit stays in rows.
//! - **Rows are read without the lock**, by a task of their own: a slow disk stalls nobody who has caught up, and no
//!   frames of other shards. What was queued meanwhile is remembered (`seen`), so that nothing is missed.
//!
//! Pure but for the rows it is given; checked by the tests below and by `chaos-tests/oracle` on clusters.

use std::collections::{BTreeMap, HashMap, VecDeque};

#[cfg(test)]
use moorline_core::ConnId;
use moorline_core::{Delivery, Epoch, NodeId, Offset};
use moorline_machine::command::SessionId;

use crate::{
    frames::{Attach, Place, Push},
    shares::Shares,
};

/// Most items read from rows for one attachment at a time.
pub(crate) const READ_ITEMS_MAX: usize = 256;
/// Most bytes of those.
pub(crate) const READ_BYTES_MAX: usize = 256 * 1024;

/// One connection's hold on one session.
#[derive(Debug)]
struct Attachment {
    place: Place,
    generation: u64,
    epoch: Epoch,
    next: Offset,
    credit: u32,
    pushes: u64,
    /// The queue may hold more than was sent.
    behind: bool,
    /// The end of the queue, as far as it was seen growing while this attachment was behind.
    seen: Offset,
    /// It is in line for the reader of rows, or the reader is at it.
    reading: bool,
}

/// What to read from rows, without any lock: what came of it counts only if nothing changed meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) session: SessionId,
    generation: u64,
    /// From this offset on.
    pub(crate) from: Offset,
    /// At most so many.
    pub(crate) items: usize,
}

/// All attachments of one shard, while this node leads it.
#[derive(Debug, Default)]
pub(crate) struct ShardDelivery {
    /// The term of this node's leadership.
    leading: Option<u64>,
    attachments: HashMap<SessionId, Attachment>,
    /// Attachments whose pushes could not be sent: they are told so when they can be.
    lost: Vec<Place>,
    /// Sessions whose rows the reader is to read: each attachment once.
    line: VecDeque<SessionId>,
    /// Who of the members of shares has what.
    pub(crate) shares: Shares,
}

/// Pushes collected under the shard's lock, by place, each place's in order.
pub(crate) type Collected = BTreeMap<Place, Vec<Push>>;

impl ShardDelivery {
    /// The term of this node's leadership, if it leads: with a new one attachments come anew.
    pub(crate) fn set_leading(&mut self, leading: Option<u64>) -> bool {
        if self.leading == leading {
            return false;
        }
        self.leading = leading;
        self.attachments.clear();
        self.lost.clear();
        self.line.clear();
        true
    }

    pub(crate) fn is_leading(&self) -> bool {
        self.leading.is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.attachments.len()
    }

    /// A connection attaches; it takes the place of an earlier attachment of the session. Two attempts of one connection
    /// may come in the wrong order: the later one stays.
    pub(crate) fn attach(&mut self, node: NodeId, attach: &Attach) {
        let place = Place { node, conn: attach.conn };
        if let Some(held) = self.attachments.get(&attach.session)
            && held.place == place
            && held.epoch == attach.epoch
            && held.generation > attach.generation
        {
            return;
        }
        let attachment = Attachment {
            place,
            generation: attach.generation,
            epoch: attach.epoch,
            next: attach.next,
            credit: attach.credit,
            pushes: 0,
            behind: true,
            seen: Offset(0),
            reading: false,
        };
        self.attachments.insert(attach.session, attachment);
        self.line_up(attach.session);
    }

    /// The session ended, or its connection did. Gives who was attached, and by which generation.
    pub(crate) fn close(&mut self, session: SessionId, epoch: Epoch) -> Option<(Place, u64)> {
        self.attachments.get(&session).filter(|held| held.epoch <= epoch)?;
        self.attachments.remove(&session).map(|held| (held.place, held.generation))
    }

    /// A newer connection has the session.
    pub(crate) fn supersede(&mut self, session: SessionId, epoch: Epoch) {
        if self.attachments.get(&session).is_some_and(|held| held.epoch < epoch) {
            self.attachments.remove(&session);
        }
    }

    /// More credit.
    pub(crate) fn credit(&mut self, session: SessionId, generation: u64, more: u32) {
        if let Some(held) = self.attachments.get_mut(&session)
            && held.generation == generation
        {
            held.credit = held.credit.saturating_add(more);
            self.line_up(session);
        }
    }

    /// A message was queued, or passes by.
    pub(crate) fn deliver(&mut self, session: SessionId, delivery: Delivery, out: &mut Collected) {
        let Some(held) = self.attachments.get_mut(&session) else {
            return;
        };
        if let Some(offset) = delivery.offset {
            if offset < held.next {
                return;
            }
            if held.behind || held.credit == 0 || offset != held.next {
                held.behind = true;
                held.seen = offset.next();
                return self.line_up(session);
            }
            held.next = offset.next();
            held.credit -= 1;
        }
        held.push(delivery, out);
    }

    /// A session whose rows should be read waits for the reader, once.
    fn line_up(&mut self, session: SessionId) {
        if let Some(held) = self.attachments.get_mut(&session)
            && held.behind
            && held.credit > 0
            && !held.reading
        {
            held.reading = true;
            self.line.push_back(session);
        }
    }

    /// Whether the reader has something to do.
    pub(crate) fn has_line(&self) -> bool {
        !self.line.is_empty()
    }

    /// What to read next; gives it to [`ShardDelivery::read`] afterwards.
    pub(crate) fn next_wanted(&mut self) -> Option<Wanted> {
        while let Some(session) = self.line.pop_front() {
            let Some(held) = self.attachments.get_mut(&session) else { continue };
            let items = READ_ITEMS_MAX.min(held.credit as usize);
            held.reading = held.behind && items > 0;
            if held.reading {
                let (generation, from) = (held.generation, held.next);
                return Some(Wanted { session, generation, from, items });
            }
        }
        None
    }

    /// What was read, and where the queue ended then: sends it, and lines up for more.
    pub(crate) fn read(
        &mut self,
        wanted: Wanted,
        deliveries: Vec<Delivery>,
        tail: Offset,
        out: &mut Collected,
    ) {
        let Some(held) = self.attachments.get_mut(&wanted.session) else {
            return;
        };
        if held.generation != wanted.generation || held.next != wanted.from || !held.behind {
            // Somebody else attached meanwhile, and has lined up itself.
            return;
        }
        assert!(deliveries.len() <= wanted.items, "more was read than there is credit for");
        if deliveries.is_empty() {
            // Everything up to the end was settled before.
            held.next = held.next.max(tail);
        }
        for delivery in deliveries {
            let offset = delivery.offset.expect("queued items have offsets");
            assert!(offset >= held.next, "rows went back to {offset} behind {}", held.next);
            held.next = offset.next();
            held.credit -= 1;
            held.push(delivery, out);
        }
        held.behind = held.next < tail.max(held.seen);
        held.reading = false;
        self.line_up(wanted.session);
    }

    /// Nothing could be read: whatever comes next for the session lines it up again.
    pub(crate) fn unread(&mut self, wanted: Wanted) {
        if let Some(held) = self.attachments.get_mut(&wanted.session)
            && held.generation == wanted.generation
        {
            held.reading = false;
        }
    }

    /// Pushes to this place were lost on the way out.
    pub(crate) fn lose(&mut self, place: Place) {
        if !self.lost.contains(&place) {
            self.lost.push(place);
        }
    }

    /// Places that have to be told that pushes were lost, each with its attachment's generation.
    pub(crate) fn take_lost(&mut self) -> Vec<(Place, u64)> {
        let lost = std::mem::take(&mut self.lost);
        let held = self.attachments.values().filter(|held| lost.contains(&held.place));
        held.map(|held| (held.place, held.generation)).collect()
    }

    /// The connection attached to a session, for tests and status.
    #[cfg(test)]
    fn conn(&self, session: SessionId) -> Option<ConnId> {
        self.attachments.get(&session).map(|held| held.place.conn)
    }
}

impl Attachment {
    fn push(&mut self, delivery: Delivery, out: &mut Collected) {
        collect(out, self.place, self.generation, &mut self.pushes, delivery);
    }
}

/// Adds a delivery to the last push for a place, if it is of this generation, or begins one; `pushes` counts those.
pub(crate) fn collect(
    out: &mut Collected,
    place: Place,
    generation: u64,
    pushes: &mut u64,
    delivery: Delivery,
) {
    let collected = out.entry(place).or_default();
    match collected.last_mut() {
        Some(last) if last.generation == generation => last.deliveries.push(delivery),
        Some(_) | None => {
            let (conn, number) = (place.conn, *pushes);
            collected.push(Push { conn, generation, number, deliveries: vec![delivery] });
            *pushes += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use moorline_core::{Message, QoS, Text};

    use super::*;

    const SESSION: SessionId = SessionId { bucket: 1, number: 1 };

    fn delivery(offset: u64) -> Delivery {
        let message = Message {
            topic: Text::from("t"),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Bytes::new(),
            expires_at: None,
            payload: Bytes::new(),
        };
        let offset = (offset > 0).then_some(Offset(offset));
        Delivery::new(offset, QoS::AtLeastOnce, Arc::new(message))
    }

    fn attached(credit: u32) -> ShardDelivery {
        let mut shard = ShardDelivery::default();
        shard.set_leading(Some(1));
        let attach = Attach {
            session: SESSION,
            epoch: Epoch(1),
            conn: ConnId(7),
            generation: 1,
            next: Offset(1),
            credit,
        };
        shard.attach(NodeId(2), &attach);
        shard
    }

    fn offsets(out: &Collected) -> Vec<u64> {
        let pushes = out.values().flatten().flat_map(|push| &push.deliveries);
        pushes.map(|delivery| delivery.offset.map_or(0, |offset| offset.0)).collect()
    }

    #[test]
    fn an_attachment_catches_up_from_rows_and_then_follows() {
        let (mut shard, mut out) = (attached(3), Collected::new());
        shard.deliver(SESSION, delivery(2), &mut out);
        assert!(out.is_empty(), "rows first");
        let wanted = shard.next_wanted().unwrap();
        assert_eq!((wanted.from, wanted.items), (Offset(1), 3));
        assert_eq!(shard.next_wanted(), None, "by one reader");
        shard.read(wanted, vec![delivery(1), delivery(2)], Offset(3), &mut out);
        assert_eq!(shard.next_wanted(), None, "it has caught up");
        shard.deliver(SESSION, delivery(2), &mut out);
        shard.deliver(SESSION, delivery(3), &mut out);
        assert_eq!(offsets(&out), [1, 2, 3]);
        shard.deliver(SESSION, delivery(4), &mut out);
        assert_eq!(shard.next_wanted(), None, "no credit");
        shard.credit(SESSION, 9, 5);
        assert_eq!(shard.next_wanted(), None, "an attachment that is no more");
        shard.credit(SESSION, 1, 5);
        let wanted = shard.next_wanted().unwrap();
        assert_eq!((wanted.from, wanted.items), (Offset(4), 5));
        shard.deliver(SESSION, delivery(0), &mut out);
        assert_eq!(offsets(&out), [1, 2, 3, 0], "what passes by waits for nothing");
    }

    #[test]
    fn what_is_queued_while_rows_are_read_is_read_afterwards() {
        let (mut shard, mut out) = (attached(9), Collected::new());
        let wanted = shard.next_wanted().unwrap();
        // The reader saw the queue end at 2, and then 2 and 3 were queued.
        shard.deliver(SESSION, delivery(2), &mut out);
        shard.deliver(SESSION, delivery(3), &mut out);
        shard.read(wanted, vec![delivery(1)], Offset(2), &mut out);
        assert_eq!(offsets(&out), [1]);
        let wanted = shard.next_wanted().unwrap();
        assert_eq!(wanted.from, Offset(2));
        shard.read(wanted, vec![delivery(2), delivery(3)], Offset(4), &mut out);
        shard.deliver(SESSION, delivery(4), &mut out);
        assert_eq!(offsets(&out), [1, 2, 3, 4]);
    }

    #[test]
    fn what_was_read_for_an_earlier_attachment_is_not_sent_to_a_later_one() {
        let (mut shard, mut out) = (attached(9), Collected::new());
        let wanted = shard.next_wanted().unwrap();
        let attach = Attach {
            session: SESSION,
            epoch: Epoch(1),
            conn: ConnId(7),
            generation: 2,
            next: Offset(1),
            credit: 9,
        };
        shard.attach(NodeId(2), &attach);
        shard.read(wanted, vec![delivery(1)], Offset(2), &mut out);
        assert!(out.is_empty());
        assert!(shard.next_wanted().is_some(), "it reads for itself");
    }

    #[test]
    fn a_gap_in_what_was_queued_is_read_from_rows() {
        let (mut shard, mut out) = (attached(9), Collected::new());
        let wanted = shard.next_wanted().unwrap();
        shard.read(wanted, vec![], Offset(5), &mut out);
        shard.deliver(SESSION, delivery(7), &mut out);
        assert!(out.is_empty());
        assert_eq!(shard.next_wanted().map(|wanted| wanted.from), Some(Offset(5)));
    }

    #[test]
    fn an_earlier_attempt_that_comes_later_changes_nothing() {
        let (mut shard, mut out) = (attached(3), Collected::new());
        let attempt = |generation| Attach {
            session: SESSION,
            epoch: Epoch(1),
            conn: ConnId(7),
            generation,
            next: Offset(1),
            credit: 3,
        };
        shard.attach(NodeId(2), &attempt(5));
        shard.attach(NodeId(2), &attempt(4));
        let wanted = shard.next_wanted().unwrap();
        shard.read(wanted, vec![delivery(1)], Offset(2), &mut out);
        assert_eq!(out.values().next().unwrap()[0].generation, 5);
    }

    #[test]
    fn only_the_epoch_that_ended_is_closed() {
        let mut shard = attached(1);
        shard.close(SESSION, Epoch(0));
        assert_eq!(shard.conn(SESSION), Some(ConnId(7)));
        shard.supersede(SESSION, Epoch(1));
        assert_eq!(shard.conn(SESSION), Some(ConnId(7)));
        shard.supersede(SESSION, Epoch(2));
        assert_eq!(shard.conn(SESSION), None);
    }
}
