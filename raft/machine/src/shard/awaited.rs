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
//! - **Nothing of it stays**: notes go after [`AWAIT_MS`] without an `Enqueue`, or with the session.

use std::collections::{BTreeMap, BTreeSet};

use moorline_core::{Epoch, Grant, Text, UnixMillis};
use moorline_storage::Rows;

use super::ShardState;
use crate::{
    answer::{Answer, Refused},
    command::{Enqueued, SessionId},
    rows::{NumberRow, Row},
    step::Step,
};

/// How long retained copies of a subscription may take to come, one piece after the other.
pub const AWAIT_MS: u64 = 30_000;
/// Topics noted for one session. With more its notes are given up, and what is still on its way is refused.
pub const AWAITED_TOPICS_MAX: usize = 10_000;
/// Sessions whose notes one `Tick` removes, with up to so many topics each.
const AWAITED_PER_TICK_MAX: usize = 1_024;

/// Sessions that await retained messages.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Awaited {
    sessions: BTreeMap<SessionId, Awaiting>,
    /// By when they are given up.
    ends: BTreeSet<(UnixMillis, SessionId)>,
}

#[derive(Debug, Default, PartialEq)]
struct Awaiting {
    until: UnixMillis,
    /// Topics of messages with RETAIN=1 that were queued meanwhile, with the version of the last.
    topics: BTreeMap<Text, u64>,
}

impl Awaited {
    pub(super) fn next_deadline(&self) -> Option<UnixMillis> {
        self.ends.first().map(|(at, _)| *at)
    }

    fn set_until(&mut self, id: SessionId, until: UnixMillis) {
        let awaiting = self.sessions.entry(id).or_default();
        self.ends.remove(&(awaiting.until, id));
        awaiting.until = until;
        self.ends.insert((until, id));
    }
}

impl ShardState {
    /// Takes a row into memory. The one without a topic says until when.
    pub(super) fn open_awaited(&mut self, id: SessionId, topic: &Text, value: u64) {
        if topic.is_empty() {
            self.awaited.set_until(id, UnixMillis(value));
        } else {
            let awaiting = self.awaited.sessions.entry(id).or_default();
            awaiting.topics.insert(topic.clone(), value);
        }
    }

    /// From now on topics are noted for a session.
    pub(super) fn await_retained<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
    ) {
        let until = UnixMillis(step.time.0.saturating_add(AWAIT_MS));
        self.awaited.set_until(id, until);
        step.put(self.keys.awaited(id, &Text::default()), NumberRow(until.0).to_bytes());
    }

    /// A message with RETAIN=1 was queued for a session.
    pub(super) fn note_queued<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        topic: &Text,
    ) {
        let Some(awaiting) = self.awaited.sessions.get_mut(&id) else { return };
        if awaiting.topics.len() >= AWAITED_TOPICS_MAX && !awaiting.topics.contains_key(topic) {
            return self.forget_awaited(step, id);
        }
        // A copy: the text is a slice of the whole log entry.
        let topic = Text::from(topic.as_str());
        step.put(self.keys.awaited(id, &topic), NumberRow(step.version()).to_bytes());
        awaiting.topics.insert(topic, step.version());
    }

    pub(super) fn forget_awaited<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
    ) {
        let Some(awaiting) = self.awaited.sessions.remove(&id) else { return };
        self.awaited.ends.remove(&(awaiting.until, id));
        step.delete(self.keys.awaited(id, &Text::default()));
        for topic in awaiting.topics.keys() {
            step.delete(self.keys.awaited(id, topic));
        }
    }

    pub(super) fn expire_awaited<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>) {
        for _ in 0..AWAITED_PER_TICK_MAX {
            match self.awaited.ends.first() {
                Some(&(at, id)) if at <= step.time => self.forget_awaited(step, id),
                Some(_) | None => return,
            }
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
        if !self.awaited.sessions.contains_key(&id) {
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
