//! The leader's side of shares: who of a share's members is lent which item of its queue.
//!
//! ```text
//!   queue (rows)  ──read──► lent to a member ──settled──► gone
//!                    ▲          │ detached, lost, its node died
//!                    └ returned ┘ goes first, to any member, with DUP
//! ```
//!
//! # Invariants
//!
//! - **An item is with one member at a time**, as far as this leader knows: what a member says it holds when it attaches is
//!   lent to nobody else, and what an earlier leader may have lent waits for [`INHERIT_WAIT`] for such words.
//! - **A member holds no more than it said it can**, and who holds the least is next.
//! - **Nothing is kept for those who are away**: what nobody can take stays in rows.
//!
//! Pure: rows and time are given to it. Checked by the tests below and by the cluster tests.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use moorline_core::{ConnId, Delivery, NodeId, Offset, QoS, SubscriptionIds, SubscriptionOptions};
use moorline_machine::command::SessionId;

use crate::{
    delivery::{Collected, READ_ITEMS_MAX, collect},
    frames::Place,
    turns::{Member, Turns},
};

/// How long a new leader waits for members to say what they hold, before it lends what an earlier one may have lent.
/// Nodes attach as soon as they know of the leader; who takes longer may see a copy twice.
const INHERIT_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Share {
    /// The first offset that was not taken from the queue yet.
    next: Offset,
    /// The end of the queue, as far as it was seen.
    tail: Offset,
    /// Items below may have been lent by an earlier leader.
    inherited: Offset,
    members: Turns,
    lent: BTreeMap<Offset, SessionId>,
    returned: BTreeSet<Offset>,
    /// It is in line for the reader of rows, or the reader is at it.
    reading: bool,
    served: u64,
}

/// A member attaches.
#[derive(Debug)]
pub(crate) struct Attaching<'a> {
    pub(crate) share: SessionId,
    pub(crate) member: SessionId,
    pub(crate) node: NodeId,
    pub(crate) conn: ConnId,
    pub(crate) generation: u64,
    pub(crate) capacity: u32,
    pub(crate) options: SubscriptionOptions,
    pub(crate) held: &'a [Offset],
}

/// What to read from rows, without any lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShareWanted {
    pub(crate) share: SessionId,
    pub(crate) from: Offset,
    pub(crate) items: usize,
    returned: bool,
    /// Which leadership asked.
    era: u64,
}

/// All shares of a shard, while this node leads it.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    shares: BTreeMap<SessionId, Share>,
    line: VecDeque<SessionId>,
    /// Until when nothing is lent that an earlier leader may have lent.
    inherit_until: Option<Instant>,
    era: u64,
    redelivered: u64,
    /// Attachments that ended here, and may think they have not: they are told to attach anew.
    untold: Vec<(Place, u64)>,
}

impl Shares {
    /// A leadership begins or ends. `known` are the shares there are, with the heads and tails of their queues.
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        known: impl Iterator<Item = (SessionId, Offset, Offset)>,
    ) {
        self.era += 1;
        self.line.clear();
        self.untold.clear();
        self.inherit_until = Some(now + INHERIT_WAIT);
        let shares = known.map(|(id, head, tail)| (id, Share::new(head, tail)));
        self.shares = shares.collect();
    }

    /// A share came into being, or is known already.
    pub(crate) fn add(&mut self, share: SessionId, head: Offset, tail: Offset) {
        let new = || Share { inherited: Offset(0), ..Share::new(head, tail) };
        self.shares.entry(share).or_insert_with(new);
    }

    pub(crate) fn has(&self, share: SessionId) -> bool {
        self.shares.contains_key(&share)
    }

    /// A share ended.
    pub(crate) fn remove(&mut self, share: SessionId) {
        self.shares.remove(&share);
    }

    /// How many items of a share are with members.
    pub(crate) fn lent(&self, share: SessionId) -> usize {
        self.shares.get(&share).map_or(0, |share| share.lent.len())
    }

    /// Whether a member of a share is attached.
    pub(crate) fn is_attached(&self, share: SessionId, member: SessionId) -> bool {
        self.shares.get(&share).is_some_and(|share| share.members.get(member).is_some())
    }

    /// How many items were lent again since this was last asked.
    pub(crate) fn take_redelivered(&mut self) -> u64 {
        std::mem::take(&mut self.redelivered)
    }

    /// A member can be lent items, in the place of an earlier attachment of its. Two attempts of one connection may come in
    /// the wrong order: the later one stays.
    pub(crate) fn attach(&mut self, now: Instant, attaching: &Attaching<'_>) {
        let Attaching { share: id, member, node, conn, generation, .. } = *attaching;
        let Some(share) = self.shares.get_mut(&id) else { return };
        let place = Place { node, conn };
        if let Some(known) = share.members.get(member)
            && known.place == place
            && known.generation > generation
        {
            return;
        }
        share.release(|with| with == member);
        let mut lent = 0;
        for &offset in attaching.held {
            // What another got meanwhile is with both of them; whoever settles first settles it.
            if !share.lent.contains_key(&offset) {
                share.returned.remove(&offset);
                share.lent.insert(offset, member);
                lent += 1;
            }
        }
        let Attaching { capacity, options, .. } = *attaching;
        let (served, pushes) = (share.served, 0);
        let attached =
            Member { place, generation, since: now, capacity, lent, served, pushes, options };
        share.members.insert(member, attached);
        self.line_up(id);
    }

    /// A member's connection takes no more; what it had goes to others.
    /// Generations are of one connection, so without the share it is looked for.
    pub(crate) fn detach(&mut self, share: Option<SessionId>, place: Place, generation: u64) {
        let all = || self.shares.keys().copied().collect();
        let among: Vec<SessionId> = share.map_or_else(all, |share| vec![share]);
        for share in among {
            let meant = |known: &Member| known.generation == generation && known.place == place;
            drop(self.drop_members(share, |_, known| meant(known)));
        }
    }

    /// The session is no member any more, or it is with other options.
    pub(crate) fn member(
        &mut self,
        share: SessionId,
        member: SessionId,
        options: Option<SubscriptionOptions>,
    ) {
        match options {
            None => drop(self.drop_members(share, |id, _| id == member)),
            Some(options) => {
                if let Some(share) = self.shares.get_mut(&share) {
                    share.members.change(member, |known| known.options = options);
                }
            }
        }
    }

    /// A node is not connected, or was not since `before`: what its members had goes to others. They attach anew.
    pub(crate) fn detach_node(&mut self, node: NodeId, before: Option<Instant>) {
        let gone = |known: &Member| {
            known.place.node == node && before.is_none_or(|before| known.since < before)
        };
        for share in self.shares.keys().copied().collect::<Vec<_>>() {
            let dropped = self.drop_members(share, |_, known| gone(known));
            self.untold.extend(dropped);
        }
    }

    /// A push to this place was lost on the way out.
    pub(crate) fn lose(&mut self, place: Place) {
        for share in self.shares.keys().copied().collect::<Vec<_>>() {
            let dropped = self.drop_members(share, |_, known| known.place == place);
            self.untold.extend(dropped);
        }
    }

    /// Ends attachments; gives their places and generations.
    fn drop_members(
        &mut self,
        id: SessionId,
        gone: impl Fn(SessionId, &Member) -> bool,
    ) -> Vec<(Place, u64)> {
        let Some(share) = self.shares.get_mut(&id) else { return Vec::new() };
        let members = share.members.extract(gone);
        if members.is_empty() {
            return Vec::new();
        }
        share.release(|with| members.contains_key(&with));
        self.line_up(id);
        members.into_values().map(|known| (known.place, known.generation)).collect()
    }

    /// Attachments that are to be told that they ended.
    pub(crate) fn take_untold(&mut self) -> Vec<(Place, u64)> {
        std::mem::take(&mut self.untold)
    }

    /// These items are settled, by whomever.
    pub(crate) fn settled(&mut self, id: SessionId, offsets: &[Offset]) {
        let Some(share) = self.shares.get_mut(&id) else { return };
        for offset in offsets {
            share.returned.remove(offset);
            if let Some(member) = share.lent.remove(offset) {
                share.members.change(member, |member| member.lent -= 1);
            }
        }
        self.line_up(id);
    }

    /// A message was queued for a share, or passes by.
    pub(crate) fn deliver(&mut self, id: SessionId, delivery: Delivery, out: &mut Collected) {
        let Some(share) = self.shares.get_mut(&id) else { return };
        let Some(offset) = delivery.offset else {
            if let Some(member) = share.members.next() {
                share.push(member, delivery, out);
            }
            return;
        };
        share.tail = share.tail.max(offset.next());
        if offset == share.next
            && !share.reading
            && share.returned.is_empty()
            && let Some(member) = share.members.next_with_room()
        {
            share.next = offset.next();
            share.lend(member, delivery, out);
            return;
        }
        self.line_up(id);
    }

    fn line_up(&mut self, id: SessionId) {
        if let Some(share) = self.shares.get_mut(&id)
            && !share.reading
            && (share.next < share.tail || !share.returned.is_empty())
            && share.members.next_with_room().is_some()
        {
            share.reading = true;
            self.line.push_back(id);
        }
    }

    /// Whether the reader has something to do now.
    pub(crate) fn has_line(&self, now: Instant) -> bool {
        !self.line.is_empty() && self.inherit_until.is_none_or(|until| until <= now)
    }

    /// What to read next; gives it to [`Shares::read`] afterwards.
    pub(crate) fn next_wanted(&mut self, now: Instant) -> Option<ShareWanted> {
        if !self.has_line(now) {
            return None;
        }
        while let Some(id) = self.line.pop_front() {
            let Some(share) = self.shares.get_mut(&id) else { continue };
            let items = share.members.room(READ_ITEMS_MAX);
            let (from, items, returned) = match share.returned.first() {
                Some(first) => (*first, items.min(1), true),
                None => (share.next, items, false),
            };
            share.reading = items > 0 && (returned || from < share.tail);
            if share.reading {
                return Some(ShareWanted { share: id, from, items, returned, era: self.era });
            }
        }
        None
    }

    /// What was read, and where the queue ended then: lends it, and lines up for more.
    pub(crate) fn read(
        &mut self,
        wanted: ShareWanted,
        deliveries: Vec<Delivery>,
        tail: Offset,
        out: &mut Collected,
    ) {
        let Some(share) = self.shares.get_mut(&wanted.share).filter(|_| wanted.era == self.era)
        else {
            return;
        };
        share.reading = false;
        if wanted.returned {
            if share.returned.contains(&wanted.from) {
                let first = deliveries.into_iter().next();
                match first.filter(|read| read.offset == Some(wanted.from)) {
                    Some(read) => {
                        if let Some(member) = share.members.next_with_room() {
                            share.returned.remove(&wanted.from);
                            self.redelivered += 1;
                            share.lend(member, Delivery { resent: true, ..read }, out);
                        }
                    }
                    // It was settled after all.
                    None => _ = share.returned.remove(&wanted.from),
                }
            }
        } else if share.next == wanted.from {
            share.tail = share.tail.max(tail);
            if deliveries.is_empty() {
                // Everything up to the end was settled before.
                share.next = share.next.max(tail);
            }
            for mut read in deliveries {
                let offset = read.offset.expect("queued items have offsets");
                if share.lent.contains_key(&offset) {
                    share.next = offset.next();
                    continue;
                }
                let Some(member) = share.members.next_with_room() else { break };
                share.next = offset.next();
                read.resent |= offset < share.inherited;
                share.lend(member, read, out);
            }
        }
        self.line_up(wanted.share);
    }

    /// Nothing could be read: whatever comes next for the share lines it up again.
    pub(crate) fn unread(&mut self, wanted: ShareWanted) {
        if let Some(share) = self.shares.get_mut(&wanted.share) {
            share.reading = false;
        }
    }
}

impl Share {
    fn new(head: Offset, tail: Offset) -> Self {
        Self {
            next: head,
            tail,
            inherited: tail,
            members: Turns::default(),
            lent: BTreeMap::new(),
            returned: BTreeSet::new(),
            reading: false,
            served: 0,
        }
    }

    /// What members had is lent to whoever is next.
    fn release(&mut self, gone: impl Fn(SessionId) -> bool) {
        let returned = &mut self.returned;
        self.lent.retain(|offset, with| {
            let stays = !gone(*with);
            if !stays {
                returned.insert(*offset);
            }
            stays
        });
    }

    fn lend(&mut self, id: SessionId, delivery: Delivery, out: &mut Collected) {
        let offset = delivery.offset.expect("queued items have offsets");
        self.lent.insert(offset, id);
        self.members.change(id, |member| member.lent += 1).expect("it was chosen");
        self.push(id, delivery, out);
    }

    fn push(&mut self, id: SessionId, mut delivery: Delivery, out: &mut Collected) {
        self.served += 1;
        let served = self.served;
        let push = |member: &mut Member| {
            member.served = served;
            delivery.qos = delivery.qos.min(member.options.qos);
            delivery.resent &= delivery.qos > QoS::AtMostOnce;
            delivery.retain &= member.options.retain_as_published;
            delivery.ids = SubscriptionIds::from(member.options.id);
            collect(out, member.place, member.generation, &mut member.pushes, delivery);
        };
        self.members.change(id, push).expect("it was chosen");
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, sync::Arc};

    use moorline_core::Message;

    use super::*;

    const SHARE: SessionId = SessionId { bucket: 1, number: 1 };
    const A: SessionId = SessionId { bucket: 2, number: 1 };
    const B: SessionId = SessionId { bucket: 3, number: 1 };

    struct World {
        shares: Shares,
        now: Instant,
        out: Collected,
    }

    fn delivery(offset: u64) -> Delivery {
        let offset = (offset > 0).then_some(Offset(offset));
        Delivery {
            retain: true,
            ..Delivery::new(offset, QoS::AtLeastOnce, Arc::new(Message::empty()))
        }
    }

    impl World {
        /// A share that came into being under this leader.
        fn new() -> Self {
            let mut world = Self::inheriting(&[]);
            world.shares.inherit_until = None;
            world.shares.add(SHARE, Offset(1), Offset(1));
            world
        }

        fn inheriting(known: &[(SessionId, Offset, Offset)]) -> Self {
            let (mut shares, now) = (Shares::default(), Instant::now());
            shares.begin(now, known.iter().copied());
            Self { shares, now, out: Collected::new() }
        }

        fn attach(&mut self, member: SessionId, capacity: u32, held: &[u64]) {
            let held: Vec<_> = held.iter().copied().map(Offset).collect();
            let options = SubscriptionOptions {
                id: NonZeroU32::new(9),
                ..SubscriptionOptions::of_qos(QoS::AtLeastOnce)
            };
            let attaching = Attaching {
                share: SHARE,
                member,
                node: NodeId(u64::from(member.bucket)),
                conn: ConnId(7),
                generation: 1,
                capacity,
                options,
                held: &held,
            };
            self.shares.attach(self.now, &attaching);
        }

        fn queue(&mut self, offsets: std::ops::Range<u64>) {
            for offset in offsets {
                self.shares.deliver(SHARE, delivery(offset), &mut self.out);
            }
        }

        /// Reads rows for as long as there is something to read; the queue has `offsets` up to `tail`.
        fn read(&mut self, offsets: &[u64], tail: u64) {
            while let Some(wanted) = self.shares.next_wanted(self.now) {
                let from = offsets.iter().copied().filter(|offset| *offset >= wanted.from.0);
                let rows = from.take(wanted.items).map(delivery).collect();
                self.shares.read(wanted, rows, Offset(tail), &mut self.out);
            }
        }

        /// What was sent to a member since this was last asked; negative with DUP.
        fn sent(&mut self, member: SessionId) -> Vec<i64> {
            let place = Place { node: NodeId(u64::from(member.bucket)), conn: ConnId(7) };
            let pushes = self.out.remove(&place).unwrap_or_default();
            let number = |delivery: &Delivery| {
                assert_eq!((delivery.retain, delivery.ids.as_slice()), (false, &[9][..]));
                let offset = delivery.offset.map_or(0, |offset| offset.0.cast_signed());
                if delivery.resent { -offset } else { offset }
            };
            pushes.iter().flat_map(|push| &push.deliveries).map(number).collect()
        }

        fn settle(&mut self, offsets: &[u64]) {
            let offsets: Vec<_> = offsets.iter().copied().map(Offset).collect();
            self.shares.settled(SHARE, &offsets);
        }
    }

    #[test]
    fn members_take_turns_and_who_holds_the_least_is_next() {
        let mut world = World::new();
        world.attach(A, 2, &[]);
        world.attach(B, 9, &[]);
        world.queue(1..5);
        assert_eq!((world.sent(A), world.sent(B)), (vec![1, 3], vec![2, 4]));
        world.queue(5..7);
        assert_eq!((world.sent(A), world.sent(B)), (vec![], vec![5, 6]), "A is full");
        world.settle(&[1, 3]);
        world.queue(7..10);
        assert_eq!((world.sent(A), world.sent(B)), (vec![7, 8], vec![9]));
        assert_eq!(world.shares.lent(SHARE), 7);
        world.queue(0..1);
        assert_eq!(world.sent(A), [0], "what passes by needs no room");
    }

    #[test]
    fn what_nobody_can_take_stays_in_rows_until_somebody_can() {
        let mut world = World::new();
        world.queue(1..4);
        world.read(&[1, 2, 3], 4);
        assert!(world.out.is_empty(), "nobody is there");
        world.attach(A, 2, &[]);
        world.read(&[1, 2, 3], 4);
        assert_eq!(world.sent(A), [1, 2]);
        world.queue(4..5);
        world.settle(&[2]);
        world.read(&[1, 3, 4], 5);
        assert_eq!(world.sent(A), [3]);
        world.settle(&[1, 3]);
        world.read(&[4], 5);
        world.queue(5..6);
        assert_eq!(world.sent(A), [4, 5]);
    }

    #[test]
    fn what_a_lost_member_held_goes_first_and_with_dup_to_another() {
        let mut world = World::new();
        world.attach(A, 4, &[]);
        world.queue(1..4);
        assert_eq!(world.sent(A), [1, 2, 3]);
        world.settle(&[2]);
        world.attach(B, 4, &[]);
        let place = Place { node: NodeId(2), conn: ConnId(7) };
        world.shares.detach(Some(SHARE), place, 9);
        assert_eq!(world.shares.lent(SHARE), 2, "another attachment was meant");
        world.shares.detach(None, place, 1);
        world.queue(4..5);
        world.read(&[1, 3, 4], 5);
        assert_eq!(world.sent(B), [-1, -3, 4]);
        assert_eq!(world.shares.take_redelivered(), 2);
        // A acknowledges one late: it is settled, and B's copy no longer counts.
        world.settle(&[1]);
        assert_eq!(world.shares.lent(SHARE), 2);
    }

    #[test]
    fn every_way_to_lose_a_member_returns_what_it_held() {
        type Lose = fn(&mut World);
        let ways: [Lose; 4] = [
            |world| world.shares.member(SHARE, A, None),
            |world| world.shares.detach_node(NodeId(2), None),
            |world| world.shares.detach_node(NodeId(2), Some(world.now + INHERIT_WAIT)),
            |world| world.shares.lose(Place { node: NodeId(2), conn: ConnId(7) }),
        ];
        for lose in ways {
            let mut world = World::new();
            world.attach(A, 1, &[]);
            world.queue(1..2);
            world.attach(B, 1, &[]);
            world.shares.detach_node(NodeId(2), Some(world.now));
            assert_eq!(world.sent(A), [1], "attached since");
            lose(&mut world);
            assert!(!world.shares.is_attached(SHARE, A));
            world.read(&[1], 2);
            assert_eq!(world.sent(B), [-1]);
        }
    }

    #[test]
    fn a_member_that_attaches_again_keeps_what_it_holds() {
        let mut world = World::new();
        world.attach(A, 4, &[]);
        world.queue(1..4);
        world.sent(A);
        world.attach(A, 4, &[1, 3]);
        world.read(&[1, 2, 3], 4);
        assert_eq!(world.sent(A), [-2], "the second push was lost");
    }

    #[test]
    fn a_new_leader_waits_for_those_who_hold_what_was_lent_before_it() {
        let mut world = World::inheriting(&[(SHARE, Offset(3), Offset(6))]);
        world.attach(A, 9, &[]);
        world.read(&[3, 4, 5], 6);
        assert!(world.out.is_empty(), "another may hold it");
        world.attach(B, 9, &[3, 5]);
        world.now += INHERIT_WAIT;
        world.queue(6..7);
        world.read(&[3, 4, 5, 6], 7);
        assert_eq!((world.sent(A), world.sent(B)), (vec![-4, 6], vec![]));
        world.settle(&[3, 4, 5, 6]);
        assert_eq!(world.shares.lent(SHARE), 0);
    }

    #[test]
    fn what_was_read_for_an_earlier_leadership_is_lent_to_nobody() {
        let mut world = World::new();
        world.queue(1..2);
        world.attach(A, 1, &[]);
        let wanted = world.shares.next_wanted(world.now).unwrap();
        world.shares.begin(world.now, [(SHARE, Offset(1), Offset(2))].into_iter());
        world.attach(A, 1, &[]);
        world.shares.read(wanted, vec![delivery(1)], Offset(2), &mut world.out);
        assert!(world.out.is_empty());
    }

    #[test]
    fn a_share_of_many_members_is_served_in_turns() {
        const MEMBERS: u64 = 4_096;
        const EACH: u64 = 16;
        let mut world = World::new();
        for number in 0..MEMBERS {
            world.attach(SessionId { bucket: 2, number }, 64, &[]);
        }
        let began = Instant::now();
        world.queue(1..MEMBERS * EACH + 1);
        println!("{:?} for {} items, {MEMBERS} members", began.elapsed(), MEMBERS * EACH);
        let members = &world.shares.shares[&SHARE].members;
        let lent = |number| members.get(SessionId { bucket: 2, number }).unwrap().lent;
        assert!((0..MEMBERS).all(|number| u64::from(lent(number)) == EACH));
    }
}
