//! Durable sessions that have just subscribed and are still to get what is retained: those copies come by `Enqueue`, from
//! other shards, and must not come behind a newer message of their topic.
//!
//! ```text
//!   Subscribe at version 7 ──► awaits, for a while
//!   Publish t, RETAIN=1    ──► queued; t is noted with its version, 9
//!   Enqueue since 7: t, u  ──► t is left out, u is queued
//! ```
//!
//! # Invariants
//!
//! - **A retained copy never follows a newer message of its topic in a queue.** An `Enqueue` for whose time nothing was noted
//!   is refused. Checked by `tests/rules/retained.rs`.
//! - **Nothing of it stays**: notes go after [`AWAIT_MS`] without an `Enqueue`, or with the session, in pieces if there are many.
//! - **A session is in `ends` while it waits, or in `over` while notes are left, never in both.**

use std::collections::{BTreeMap, BTreeSet};

use moorline_core::{Epoch, Grant, QoS, Text, UnixMillis};
use moorline_storage::Rows;

use super::{GARBAGE_ROWS_PER_TICK_MAX, ShardState};
use crate::{
    answer::{Answer, Refused},
    command::{Enqueued, SessionId},
    rows::{AwaitedRow, NumberRow, Row},
    step::Step,
};

/// How long retained copies of a subscription may take to come, one piece after the other.
pub const AWAIT_MS: u64 = 30_000;
/// Topics noted for one session. With more its notes are given up, and what is still on its way is refused.
pub const AWAITED_TOPICS_MAX: usize = 10_000;
/// Topics noted for all sessions of a shard, about 150 bytes and the topic for each. With more, those of the session that would
/// have one more are given up.
pub const AWAITED_TOPICS_PER_SHARD_MAX: usize = 1_000_000;
/// Notes that go together with their session; more are left to `Tick`.
const NOTES_AT_ONCE_MAX: usize = 64;

/// Sessions that await retained messages.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Awaited {
    sessions: BTreeMap<SessionId, Awaiting>,
    /// By when they are given up.
    ends: BTreeSet<(UnixMillis, SessionId)>,
    /// Those that were given up with more notes than go at once.
    over: BTreeSet<SessionId>,
    /// Topics of all of them.
    noted: usize,
}

#[derive(Debug, Default, PartialEq)]
struct Awaiting {
    /// Nothing, if it was given up and its notes are still to be removed.
    waits: Option<AwaitedRow>,
    /// Topics of messages with RETAIN=1 that were queued meanwhile, with the version of the last. Those from before the
    /// noting began do no harm: whoever asks subscribed later.
    topics: BTreeMap<Text, u64>,
}

impl Awaited {
    /// When there is something to do: at once, while notes are to be removed.
    pub(super) fn next_deadline(&self) -> Option<UnixMillis> {
        if !self.over.is_empty() {
            return Some(UnixMillis(0));
        }
        self.ends.first().map(|(at, _)| *at)
    }

    fn wait(&mut self, id: SessionId, row: AwaitedRow) {
        let awaiting = self.sessions.entry(id).or_default();
        if let Some(before) = awaiting.waits.replace(row) {
            self.ends.remove(&(before.until, id));
        }
        self.ends.insert((row.until, id));
        self.over.remove(&id);
    }

    /// Since which version topics are noted for a session.
    fn began(&self, id: SessionId) -> Option<u64> {
        self.sessions.get(&id)?.waits.map(|row| row.began)
    }
}

impl ShardState {
    /// Takes the row without a topic into memory: it comes before the others of its session.
    pub(super) fn open_awaited(&mut self, id: SessionId, row: AwaitedRow) {
        self.awaited.wait(id, row);
    }

    pub(super) fn open_noted(&mut self, id: SessionId, topic: Text, version: u64) {
        let awaiting = self.awaited.sessions.entry(id).or_default();
        awaiting.topics.insert(topic, version);
        self.awaited.noted += 1;
        if awaiting.waits.is_none() {
            self.awaited.over.insert(id);
        }
    }

    /// From now on topics are noted for a session, if they are not already.
    pub(super) fn await_retained<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
    ) {
        let until = UnixMillis(step.time.0.saturating_add(AWAIT_MS));
        let began = self.awaited.began(id).unwrap_or(step.version());
        let row = AwaitedRow { until, began };
        self.awaited.wait(id, row);
        step.put(self.keys.awaited(id, &Text::default()), row.to_bytes());
    }

    /// A message with RETAIN=1 was queued for these sessions.
    pub(super) fn note_queued<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        to: &[(SessionId, Grant)],
        topic: &Text,
    ) {
        if self.awaited.ends.is_empty() {
            return;
        }
        // One copy for all: the text is a slice of the whole log entry.
        let topic = Text::from(topic.as_str());
        for (id, _) in to.iter().filter(|(_, grant)| grant.qos > QoS::AtMostOnce) {
            let awaiting = self.awaited.sessions.get_mut(id);
            let Some(awaiting) = awaiting.filter(|awaiting| awaiting.waits.is_some()) else {
                continue;
            };
            if !awaiting.topics.contains_key(&topic) {
                if awaiting.topics.len() >= AWAITED_TOPICS_MAX
                    || self.awaited.noted >= AWAITED_TOPICS_PER_SHARD_MAX
                {
                    self.forget_awaited(step, *id);
                    continue;
                }
                self.awaited.noted += 1;
            }
            step.put(self.keys.awaited(*id, &topic), NumberRow(step.version()).to_bytes());
            awaiting.topics.insert(topic.clone(), step.version());
        }
    }

    /// Gives up a session's notes. A few go now, more are left to `Tick`. Gives how many rows went.
    pub(super) fn forget_awaited<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
    ) -> usize {
        let awaiting = self.awaited.sessions.get_mut(&id);
        let waits =
            awaiting.and_then(|awaiting| Some((awaiting.waits.take()?, awaiting.topics.len())));
        let Some((row, notes)) = waits else { return 0 };
        self.awaited.ends.remove(&(row.until, id));
        step.delete(self.keys.awaited(id, &Text::default()));
        self.awaited.over.insert(id);
        if notes > NOTES_AT_ONCE_MAX {
            return 1;
        }
        1 + self.remove_notes(step, id, NOTES_AT_ONCE_MAX)
    }

    /// Removes notes of a session that was given up: how many, at most `max`.
    fn remove_notes<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        max: usize,
    ) -> usize {
        let Some(awaiting) = self.awaited.sessions.get_mut(&id) else { return 0 };
        let mut removed = 0;
        while removed < max
            && let Some((topic, _)) = awaiting.topics.pop_first()
        {
            step.delete(self.keys.awaited(id, &topic));
            removed += 1;
        }
        self.awaited.noted -= removed;
        if awaiting.topics.is_empty() {
            self.awaited.sessions.remove(&id);
            self.awaited.over.remove(&id);
        }
        removed
    }

    /// Gives up what waited for too long, and removes notes of what was given up: a piece of it.
    pub(super) fn expire_awaited<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>) {
        let mut budget = GARBAGE_ROWS_PER_TICK_MAX;
        while budget > 0
            && let Some(&(at, id)) = self.awaited.ends.first()
            && at <= step.time
        {
            budget = budget.saturating_sub(self.forget_awaited(step, id));
        }
        while budget > 0
            && let Some(&id) = self.awaited.over.first()
        {
            budget -= self.remove_notes(step, id, budget);
        }
    }

    /// Retained copies for a session that subscribed at version `since`.
    pub(crate) fn enqueue_retained<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        epoch: Epoch,
        since: u64,
        copies: Vec<Enqueued>,
    ) -> Answer {
        let held = self.sessions.get(&id).map(|session| &session.row);
        if !held.is_some_and(|row| row.epoch == epoch && row.holder.is_some()) {
            return Answer::Refused(Refused::NotYours);
        }
        // Of what came before the noting began nothing is known.
        if self.awaited.began(id).is_none_or(|began| since < began) {
            return Answer::Refused(Refused::TooLate);
        }
        self.await_retained(step, id);
        for Enqueued { qos, ids, mut message } in copies {
            let noted = self.awaited.sessions[&id].topics.get(&message.topic);
            if noted.is_some_and(|version| *version > since) {
                continue;
            }
            if let Some(UnixMillis(in_ms)) = message.expires_at {
                message.expires_at = Some(UnixMillis(step.time.0.saturating_add(in_ms)));
            }
            self.fan_out(step, message, &[(id, Grant { qos, retain: true, ids })]);
        }
        Answer::Done
    }
}
