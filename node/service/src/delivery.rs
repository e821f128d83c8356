//! The leader's side of deliveries: which connection holds which session of a shard, and what it was sent.
//!
//! # Invariants
//!
//! - **In order, without gaps**: an attachment is sent the offset it waits for, or rows are read from there on.
//! - **Within credit**: an attachment is never sent more than it said it can take.
//! - **Nothing is kept for a slow one**: what exceeds its credit stays in rows.
//!
//! Pure but for the rows it is given; checked by the tests below and by `chaos-tests/oracle` on clusters.

use std::collections::{BTreeMap, HashMap};

#[cfg(test)]
use moorline_core::ConnId;
use moorline_core::{Delivery, Epoch, NodeId, Offset};
use moorline_machine::command::SessionId;

use crate::frames::{Attach, Place, Push};

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
}

/// All attachments of one shard, while this node leads it.
#[derive(Debug, Default)]
pub(crate) struct ShardDelivery {
    /// The term of this node's leadership.
    leading: Option<u64>,
    attachments: HashMap<SessionId, Attachment>,
    /// Attachments whose pushes could not be sent: they are told so when they can be.
    lost: Vec<Place>,
    /// Attachments that could take more and no credit will come for: their rows have to be read.
    starving: Vec<SessionId>,
}

/// Pushes collected under the shard's lock, by place, each place's in order.
pub(crate) type Collected = BTreeMap<Place, Vec<Push>>;

impl ShardDelivery {
    /// The term of this node's leadership, if it leads: with a new one attachments come anew.
    pub(crate) fn set_leading(&mut self, leading: Option<u64>) {
        if self.leading == leading {
            return;
        }
        self.leading = leading;
        self.attachments.clear();
        self.lost.clear();
        self.starving.clear();
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
        };
        self.attachments.insert(attach.session, attachment);
    }

    /// The session ended, or its connection did.
    pub(crate) fn close(&mut self, session: SessionId, epoch: Epoch) {
        if self.attachments.get(&session).is_some_and(|held| held.epoch <= epoch) {
            self.attachments.remove(&session);
        }
    }

    /// A newer connection has the session.
    pub(crate) fn supersede(&mut self, session: SessionId, epoch: Epoch) {
        if self.attachments.get(&session).is_some_and(|held| held.epoch < epoch) {
            self.attachments.remove(&session);
        }
    }

    /// More credit; says whether rows should be read for it.
    pub(crate) fn credit(&mut self, session: SessionId, generation: u64, more: u32) -> bool {
        match self.attachments.get_mut(&session) {
            Some(held) if held.generation == generation => {
                held.credit = held.credit.saturating_add(more);
                held.behind
            }
            Some(_) | None => false,
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
                if !held.behind && held.credit > 0 {
                    self.starving.push(session);
                }
                held.behind = true;
                return;
            }
            held.next = offset.next();
            held.credit -= 1;
        }
        held.push(delivery, out);
    }

    /// What to read from rows for a session: from where, and how many.
    pub(crate) fn wanted(&self, session: SessionId) -> Option<(Offset, usize)> {
        let held = self.attachments.get(&session)?;
        let items = READ_ITEMS_MAX.min(held.credit as usize);
        (held.behind && items > 0).then_some((held.next, items))
    }

    /// What was read: sends it; says whether there may be more to read.
    pub(crate) fn read(
        &mut self,
        session: SessionId,
        asked: usize,
        deliveries: Vec<Delivery>,
        tail: Offset,
        out: &mut Collected,
    ) -> bool {
        let Some(held) = self.attachments.get_mut(&session) else {
            return false;
        };
        debug_assert!(deliveries.len() <= asked);
        for delivery in deliveries {
            let offset = delivery.offset.expect("queued items have offsets");
            assert!(offset >= held.next, "rows went back to {offset} behind {}", held.next);
            held.next = offset.next();
            held.credit -= 1;
            held.push(delivery, out);
        }
        held.behind = held.next < tail;
        held.behind && held.credit > 0
    }

    /// There was nothing to read: everything queued was settled.
    pub(crate) fn caught_up(&mut self, session: SessionId, tail: Offset) {
        if let Some(held) = self.attachments.get_mut(&session) {
            held.next = held.next.max(tail);
            held.behind = false;
        }
    }

    /// Pushes to this place were lost on the way out.
    pub(crate) fn lose(&mut self, place: Place) {
        if !self.lost.contains(&place) {
            self.lost.push(place);
        }
    }

    /// Sessions whose rows have to be read now.
    pub(crate) fn take_starving(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.starving)
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
        let pushes = out.entry(self.place).or_default();
        match pushes.last_mut() {
            Some(last) if last.generation == self.generation => last.deliveries.push(delivery),
            Some(_) | None => {
                pushes.push(Push {
                    conn: self.place.conn,
                    generation: self.generation,
                    number: self.pushes,
                    deliveries: vec![delivery],
                });
                self.pushes += 1;
            }
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
        Delivery { offset, qos: QoS::AtLeastOnce, resent: false, message: Arc::new(message) }
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
        assert_eq!(shard.wanted(SESSION), Some((Offset(1), 3)));
        assert!(!shard.read(SESSION, 3, vec![delivery(1), delivery(2)], Offset(3), &mut out));
        shard.deliver(SESSION, delivery(2), &mut out);
        shard.deliver(SESSION, delivery(3), &mut out);
        assert_eq!(offsets(&out), [1, 2, 3]);
        shard.deliver(SESSION, delivery(4), &mut out);
        assert_eq!(shard.wanted(SESSION), None, "no credit");
        assert!(!shard.credit(SESSION, 9, 5), "an attachment that is no more");
        assert!(shard.credit(SESSION, 1, 5));
        assert_eq!(shard.wanted(SESSION), Some((Offset(4), 5)));
        shard.deliver(SESSION, delivery(0), &mut out);
        assert_eq!(offsets(&out), [1, 2, 3, 0], "what passes by waits for nothing");
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
        shard.read(SESSION, 3, vec![delivery(1)], Offset(2), &mut out);
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
