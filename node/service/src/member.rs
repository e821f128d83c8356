//! The member's side of shares: a connection's shared subscriptions, what each lent it, and what of that is settled.
//!
//! # Invariants
//!
//! - **Items are handed on in the order they were lent, once per attachment**: pushes of other generations are dropped, a
//!   gap in their numbers makes the connection attach anew and say what it has.
//! - **A lost settlement is told again**: [`Members::told`].
//! - **An UNSUBSCRIBE ends the SUBSCRIBEs before it**, whether they are answered or not: [`Ticket`].
//!
//! Pure; checked by the tests below.

use std::collections::{BTreeMap, BTreeSet};

use moorline_core::{Offset, ShardId, ShareNumber, SubscriptionOptions, Text};
use moorline_machine::command::SessionId;

use crate::frames::Push;

/// Settlements of one share that are told at once, without waiting for the sweep.
const SETTLE_AT: usize = 16;

/// One shared subscription of a connection.
#[derive(Debug)]
pub(crate) struct Membership {
    /// The whole filter.
    pub(crate) filter: Text,
    /// Where the share is.
    pub(crate) shard: ShardId,
    pub(crate) options: SubscriptionOptions,
    /// The version of the session's subscription.
    pub(crate) version: u64,
    /// The share, once it is known.
    share: Option<SessionId>,
    generation: u64,
    attached: bool,
    /// The number of the next push of this generation.
    pushes: u64,
    /// With the client.
    hand: BTreeSet<Offset>,
    /// Acknowledged, and the share was not told.
    fresh: BTreeSet<Offset>,
    /// Told, and not heard of yet.
    telling: BTreeSet<Offset>,
    /// What the last attachment said it has.
    said: Vec<Offset>,
}

/// What a share is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SettledShared {
    pub(crate) number: ShareNumber,
    pub(crate) shard: ShardId,
    pub(crate) share: SessionId,
    /// Ascending.
    pub(crate) offsets: Vec<Offset>,
}

/// What a leader is told to attach a membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanting {
    pub(crate) number: ShareNumber,
    pub(crate) shard: ShardId,
    pub(crate) filter: Text,
    pub(crate) generation: u64,
    /// The share that lent what is held.
    pub(crate) share: Option<SessionId>,
    pub(crate) held: Vec<Offset>,
}

/// What a membership that ends leaves to be told.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) shard: ShardId,
    pub(crate) settled: Option<SettledShared>,
    /// The share, once it is known.
    pub(crate) share: Option<SessionId>,
    /// Of the last attachment, whether it was answered or not; 0 if there was none.
    pub(crate) generation: u64,
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Hand its deliveries on, as of this share.
    Next(ShareNumber),
    /// Its attachment is being made anew.
    Stale,
    /// There is no such attachment: its leader should know.
    Unknown,
    /// Others before it were lost: attach anew.
    Gap,
}

/// One filter of a SUBSCRIBE that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// All shared subscriptions of a connection.
#[derive(Debug, Default)]
pub(crate) struct Members {
    held: BTreeMap<ShareNumber, Membership>,
    last_number: u32,
    last_generation: u64,
    /// Subscriptions that are under way, by ticket: as many as the requests that a client may have open have filters.
    asked: BTreeMap<Ticket, Text>,
    last_ticket: u64,
    /// What the session brought from earlier connections is among them.
    known: bool,
    /// What was unsubscribed before that: news of it is late.
    gone: BTreeSet<Text>,
    closed: bool,
}

impl Members {
    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        !self.held.is_empty() || !self.asked.is_empty()
    }

    /// A subscription is asked for: what unsubscribes from now on comes behind it.
    pub(crate) fn ask(&mut self, filter: &Text) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.asked.insert(ticket, filter.clone());
        ticket
    }

    /// It was answered. Whether it was not unsubscribed meanwhile.
    pub(crate) fn answered(&mut self, ticket: Ticket) -> bool {
        self.asked.remove(&ticket).is_some()
    }

    /// Adds or replaces a shared subscription, to be attached. `None` if the connection is closed.
    pub(crate) fn add(
        &mut self,
        filter: &Text,
        shard: ShardId,
        options: SubscriptionOptions,
        version: u64,
    ) -> Option<ShareNumber> {
        if self.closed {
            return None;
        }
        let known = self.held.iter_mut().find(|(_, held)| held.filter == *filter);
        if let Some((number, held)) = known {
            (held.options, held.version, held.attached) = (options, version, false);
            return Some(*number);
        }
        self.last_number += 1;
        let number = ShareNumber(self.last_number);
        let membership = Membership {
            filter: filter.clone(),
            shard,
            options,
            version,
            share: None,
            generation: 0,
            attached: false,
            pushes: 0,
            hand: BTreeSet::new(),
            fresh: BTreeSet::new(),
            telling: BTreeSet::new(),
            said: Vec::new(),
        };
        self.held.insert(number, membership);
        Some(number)
    }

    /// What the session brought from earlier connections; heard once.
    pub(crate) fn resume(
        &mut self,
        shared: impl Iterator<Item = (Text, ShardId, SubscriptionOptions, u64)>,
    ) {
        if std::mem::replace(&mut self.known, true) {
            return;
        }
        let gone = std::mem::take(&mut self.gone);
        for (filter, shard, options, version) in shared {
            let has = self.held.values().any(|held| held.filter == filter);
            if !has && !gone.contains(&filter) {
                self.add(&filter, shard, options, version);
            }
        }
    }

    /// A filter is unsubscribed, whether or not it is known that it was subscribed.
    pub(crate) fn forget(&mut self, filter: &Text) {
        if !self.known {
            self.gone.insert(filter.clone());
        }
    }

    /// Ends a subscription; what is with the client goes to other members. Gives what to tell its leader.
    pub(crate) fn remove(&mut self, filter: &Text) -> Option<Leaving> {
        self.asked.retain(|_, asked| asked != filter);
        let (&number, _) = self.held.iter().find(|(_, held)| held.filter == *filter)?;
        if let Some(held) = self.held.get_mut(&number) {
            // Whatever is under way is told again, so that it is heard before the end.
            held.fresh.append(&mut held.telling);
        }
        let settled = self.take_settled(number);
        let held = self.held.remove(&number)?;
        let Membership { shard, share, generation, .. } = held;
        Some(Leaving { shard, settled, share, generation })
    }

    /// Those that are to be attached, at these shards or at any: each with a new generation.
    pub(crate) fn wanting(&mut self, of: impl Fn(ShardId) -> bool) -> Vec<Wanting> {
        let mut wanting = Vec::new();
        for (number, held) in &mut self.held {
            if held.attached || !of(held.shard) {
                continue;
            }
            self.last_generation += 1;
            (held.generation, held.pushes, held.attached) = (self.last_generation, 0, true);
            let (shard, filter, generation) = (held.shard, held.filter.clone(), held.generation);
            let here: BTreeSet<Offset> =
                held.hand.iter().chain(&held.fresh).chain(&held.telling).copied().collect();
            held.said = here.into_iter().collect();
            let (share, held) = (held.share, held.said.clone());
            wanting.push(Wanting { number: *number, shard, filter, generation, share, held });
        }
        wanting
    }

    /// Attachments at these shards count no more.
    pub(crate) fn lose(&mut self, of: impl Fn(ShardId) -> bool) -> bool {
        let lost = self.held.values_mut().filter(|held| of(held.shard));
        lost.map(|held| held.attached = false).count() > 0
    }

    /// An attachment came to nothing. Whether it is to be tried again.
    pub(crate) fn failed(&mut self, number: ShareNumber, generation: u64) -> bool {
        match self.held.get_mut(&number).filter(|held| held.generation == generation) {
            Some(held) => {
                held.attached = false;
                true
            }
            None => false,
        }
    }

    /// The share knows that this version of the subscription has ended. Whether it is not one that was made since.
    pub(crate) fn ended(&mut self, number: ShareNumber, version: u64) -> bool {
        let ends = self.held.get(&number).is_some_and(|held| held.version == version);
        if ends {
            self.held.remove(&number);
        }
        ends
    }

    /// The share is known by its id from now on. Whether there is something to tell it: pushes may have come before, and
    /// been acknowledged.
    pub(crate) fn attached(
        &mut self,
        number: ShareNumber,
        generation: u64,
        share: SessionId,
    ) -> bool {
        let Some(held) = self.held.get_mut(&number) else { return false };
        if held.generation != generation {
            return false;
        }
        if held.share.replace(share).is_some_and(|before| before != share) {
            // The share ended meanwhile, and another took its place: these are no items of it.
            for offset in std::mem::take(&mut held.said) {
                held.hand.remove(&offset);
                held.fresh.remove(&offset);
                held.telling.remove(&offset);
            }
        }
        !held.fresh.is_empty()
    }

    pub(crate) fn get(&self, number: ShareNumber) -> Option<&Membership> {
        self.held.get(&number)
    }

    /// Messages that a share lent.
    pub(crate) fn take(&mut self, push: &Push) -> Taken {
        let held = self.held.iter_mut().find(|(_, held)| held.generation == push.generation);
        let Some((number, held)) = held else { return Taken::Unknown };
        if !held.attached {
            return Taken::Stale;
        }
        if held.pushes != push.number {
            held.attached = false;
            return Taken::Gap;
        }
        held.pushes += 1;
        held.hand.extend(push.deliveries.iter().filter_map(|delivery| delivery.offset));
        Taken::Next(*number)
    }

    /// The client acknowledged an item. Whether it is so many of that share that they should be told now.
    pub(crate) fn settle(&mut self, number: ShareNumber, offset: Offset) -> bool {
        let Some(held) = self.held.get_mut(&number) else { return false };
        if held.hand.remove(&offset) {
            held.fresh.insert(offset);
        }
        held.fresh.len() >= SETTLE_AT
    }

    /// What a share was not told yet.
    pub(crate) fn take_settled(&mut self, number: ShareNumber) -> Option<SettledShared> {
        let held = self.held.get_mut(&number)?;
        let share = held.share.filter(|_| !held.fresh.is_empty())?;
        let offsets: Vec<Offset> = std::mem::take(&mut held.fresh).into_iter().collect();
        held.telling.extend(&offsets);
        Some(SettledShared { number, shard: held.shard, share, offsets })
    }

    /// What none of them was told yet.
    pub(crate) fn sweep(&mut self) -> Vec<SettledShared> {
        let numbers: Vec<ShareNumber> = self.held.keys().copied().collect();
        numbers.into_iter().filter_map(|number| self.take_settled(number)).collect()
    }

    /// A settlement was heard, or may not have been: then it is told again. Whether there is something to tell.
    pub(crate) fn told(&mut self, settled: &SettledShared, heard: bool) -> bool {
        let held = self.held.get_mut(&settled.number);
        let Some(held) = held.filter(|held| held.share == Some(settled.share)) else {
            return false;
        };
        for offset in &settled.offsets {
            if held.telling.remove(offset) && !heard {
                held.fresh.insert(*offset);
            }
        }
        !heard
    }

    /// The connection ends: what its shares are to be told.
    pub(crate) fn end(&mut self) -> Vec<Leaving> {
        self.closed = true;
        let filters: Vec<Text> = self.held.values().map(|held| held.filter.clone()).collect();
        filters.iter().filter_map(|filter| self.remove(filter)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use moorline_core::{ConnId, Delivery, Message, QoS};

    use super::*;

    const SHARE: SessionId = SessionId { bucket: 1, number: 1 };
    const SHARD: ShardId = ShardId(1);

    fn push(generation: u64, number: u64, offsets: &[u64]) -> Push {
        let delivery = |offset: &u64| {
            Delivery::new(Some(Offset(*offset)), QoS::AtLeastOnce, Arc::new(Message::empty()))
        };
        let deliveries = offsets.iter().map(delivery).collect();
        Push { conn: ConnId(1), generation, number, deliveries }
    }

    fn attached() -> (Members, ShareNumber) {
        let mut members = Members::default();
        let filter = Text::from("$share/g/t");
        let number = members.add(&filter, SHARD, SubscriptionOptions::default(), 1).unwrap();
        let wanting = members.wanting(|_| true);
        assert_eq!((wanting.len(), wanting[0].generation), (1, 1));
        members.attached(number, 1, SHARE);
        (members, number)
    }

    #[test]
    fn pushes_are_taken_in_order_and_what_is_held_is_said_again() {
        let (mut members, number) = attached();
        assert_eq!(members.take(&push(1, 0, &[1, 2])), Taken::Next(number));
        assert_eq!(members.take(&push(7, 1, &[3])), Taken::Unknown);
        assert_eq!(members.take(&push(1, 2, &[4])), Taken::Gap);
        assert_eq!(members.take(&push(1, 1, &[3])), Taken::Stale, "it attaches anew");
        let wanting = members.wanting(|shard| shard == SHARD);
        assert_eq!((wanting[0].generation, &wanting[0].held[..]), (2, &[Offset(1), Offset(2)][..]));
        assert!(members.wanting(|_| true).is_empty(), "once");
        assert!(!members.failed(number, 1) && members.failed(number, 2));
        assert_eq!(members.wanting(|_| true).len(), 1);
    }

    #[test]
    fn settlements_are_told_once_and_again_if_they_were_not_heard() {
        let (mut members, number) = attached();
        members.take(&push(1, 0, &[1, 2, 3]));
        for offset in [3, 1, 1, 9] {
            members.settle(number, Offset(offset));
        }
        let told = members.sweep();
        assert_eq!(told[0].offsets, [Offset(1), Offset(3)]);
        assert!(members.sweep().is_empty());
        members.lose(|_| true);
        let said = members.wanting(|_| true).remove(0).held;
        assert_eq!(said, [Offset(1), Offset(2), Offset(3)], "what may not have been heard too");
        assert!(members.told(&told[0], false));
        let told = members.sweep();
        assert_eq!(told[0].offsets, [Offset(1), Offset(3)]);
        members.settle(number, Offset(2));
        let leaving = members.end().pop().unwrap();
        let of = (leaving.shard, leaving.share, leaving.generation);
        assert_eq!(of, (SHARD, Some(SHARE), 2));
        assert_eq!(leaving.settled.unwrap().offsets, [Offset(1), Offset(2), Offset(3)]);
        assert!(!members.told(&told[0], false));
        assert!(
            members.add(&"$share/g/t".into(), SHARD, SubscriptionOptions::default(), 2).is_none()
        );
    }

    #[test]
    fn what_was_acknowledged_before_the_share_was_known_is_told_once_it_is() {
        let mut members = Members::default();
        let filter = Text::from("$share/g/t");
        let number = members.add(&filter, SHARD, SubscriptionOptions::default(), 1).unwrap();
        members.wanting(|_| true);
        // The answer is lost, and pushes come all the same.
        assert_eq!(members.take(&push(1, 0, &[1, 2])), Taken::Next(number));
        members.settle(number, Offset(1));
        members.settle(number, Offset(2));
        assert!(members.sweep().is_empty(), "nobody knows whom to tell");
        assert!(members.failed(number, 1));
        assert_eq!(members.wanting(|_| true)[0].held, [Offset(1), Offset(2)]);
        assert!(!members.attached(number, 1, SHARE), "a late answer");
        assert!(members.attached(number, 2, SHARE), "a sweep has to come by");
        assert_eq!(members.sweep()[0].offsets, [Offset(1), Offset(2)]);
        assert!(!members.attached(number, 2, SHARE));
    }

    #[test]
    fn what_was_unsubscribed_does_not_come_back_with_what_the_session_brought() {
        let mut members = Members::default();
        let options = SubscriptionOptions::default();
        let brought = || {
            let filters = ["$share/g/t", "$share/g/u"].map(Text::from);
            filters.into_iter().map(move |filter| (filter, SHARD, options, 1))
        };
        members.forget(&"$share/g/t".into());
        members.resume(brought());
        let wanting: Vec<_> = members.wanting(|_| true).into_iter().map(|of| of.filter).collect();
        assert_eq!(wanting, [Text::from("$share/g/u")]);
        members.remove(&"$share/g/u".into());
        members.resume(brought());
        assert!(members.wanting(|_| true).is_empty(), "it is heard once");
    }

    #[test]
    fn what_is_unsubscribed_before_it_is_answered_is_not_added() {
        let mut members = Members::default();
        let filter = Text::from("$share/g/t");
        let (before, other) = (members.ask(&filter), members.ask(&"$share/g/u".into()));
        assert!(members.remove(&filter).is_none());
        let after = members.ask(&filter);
        assert!(!members.answered(before));
        assert!(members.answered(other) && members.answered(after));
        assert!(!members.answered(after) && members.asked.is_empty());
    }

    #[test]
    fn a_subscription_whose_share_knows_its_end_ends_unless_it_was_made_anew() {
        let (mut members, number) = attached();
        assert!(!members.ended(number, 2) && members.get(number).is_some());
        assert!(members.ended(number, 1) && members.get(number).is_none());
        assert!(!members.ended(number, 1));
    }

    #[test]
    fn a_connection_that_ends_before_its_attachment_is_answered_says_so() {
        let mut members = Members::default();
        members.add(&"$share/g/t".into(), SHARD, SubscriptionOptions::default(), 1);
        assert_eq!(members.wanting(|_| true)[0].generation, 1);
        let leaving = members.end().pop().unwrap();
        assert_eq!((leaving.share, leaving.generation), (None, 1));
        assert_eq!(members.take(&push(1, 0, &[1])), Taken::Unknown, "and bounces what comes late");
    }

    #[test]
    fn a_share_that_took_the_place_of_another_has_lent_nothing() {
        let (mut members, number) = attached();
        members.take(&push(1, 0, &[1]));
        assert!(members.lose(|shard| shard == SHARD) && !members.lose(|shard| shard != SHARD));
        let wanting = members.wanting(|_| true);
        let other = SessionId { number: 2, ..SHARE };
        members.attached(number, wanting[0].generation, other);
        members.settle(number, Offset(1));
        assert!(members.sweep().is_empty());
    }
}
