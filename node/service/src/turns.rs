//! The members of a share, in the order in which they are lent items: who holds the least is next, and among equals who was
//! served longest ago.
//!
//! A share may have thousands of members and is asked for the next one with every message, so they are kept in that order.
//!
//! Pure; checked by the tests of `shares`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use moorline_core::SubscriptionOptions;
use moorline_machine::command::SessionId;

use crate::frames::Place;

/// One member that can be lent items.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) place: Place,
    pub(crate) generation: u64,
    pub(crate) since: Instant,
    pub(crate) capacity: u32,
    pub(crate) lent: u32,
    /// How often it was lent something: who was served longest ago is next among equals.
    pub(crate) served: u64,
    pub(crate) pushes: u64,
    pub(crate) options: SubscriptionOptions,
}

impl Member {
    fn room(&self) -> u32 {
        self.capacity.saturating_sub(self.lent)
    }
}

/// Its place in the order: items held, when it was served, who it is.
type Turn = (u32, u64, SessionId);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    members: BTreeMap<SessionId, Member>,
    /// Those that can take more.
    ready: BTreeSet<Turn>,
    /// Those that can't.
    full: BTreeSet<Turn>,
}

impl Turns {
    pub(crate) fn get(&self, id: SessionId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Adds a member, or replaces it.
    pub(crate) fn insert(&mut self, id: SessionId, member: Member) {
        self.leave(id);
        self.members.insert(id, member);
        self.line_up(id);
    }

    /// Changes a member, if it is there.
    pub(crate) fn change<R>(
        &mut self,
        id: SessionId,
        change: impl FnOnce(&mut Member) -> R,
    ) -> Option<R> {
        self.leave(id);
        let changed = self.members.get_mut(&id).map(change);
        self.line_up(id);
        changed
    }

    /// Takes members out.
    pub(crate) fn extract(
        &mut self,
        gone: impl Fn(SessionId, &Member) -> bool,
    ) -> BTreeMap<SessionId, Member> {
        let gone = self.members.iter().filter(|(id, member)| gone(**id, member));
        let gone: Vec<SessionId> = gone.map(|(id, _)| *id).collect();
        let mut taken = BTreeMap::new();
        for id in gone {
            self.leave(id);
            taken.extend(self.members.remove(&id).map(|member| (id, member)));
        }
        taken
    }

    /// Who gets the next item.
    pub(crate) fn next_with_room(&self) -> Option<SessionId> {
        self.ready.first().map(|(.., id)| *id)
    }

    /// Who gets what needs no room.
    pub(crate) fn next(&self) -> Option<SessionId> {
        self.ready.first().into_iter().chain(self.full.first()).min().map(|(.., id)| *id)
    }

    /// How many more items all of them can take, up to `most`.
    pub(crate) fn room(&self, most: usize) -> usize {
        let mut room = 0;
        for (.., id) in &self.ready {
            room += self.members.get(id).map_or(0, |member| member.room() as usize);
            if room >= most {
                return most;
            }
        }
        room
    }

    fn leave(&mut self, id: SessionId) {
        if let Some(member) = self.members.get(&id) {
            let turn = (member.lent, member.served, id);
            let was_there = self.ready.remove(&turn) || self.full.remove(&turn);
            debug_assert!(was_there, "every member has its turn");
        }
    }

    fn line_up(&mut self, id: SessionId) {
        if let Some(member) = self.members.get(&id) {
            let turn = (member.lent, member.served, id);
            let line = if member.room() > 0 { &mut self.ready } else { &mut self.full };
            line.insert(turn);
        }
    }
}
