//! QoS 2: what makes a publish count once, however often and by whatever way it comes.
//!
//! ```text
//!   PUBLISH 7 ──► Receive(7)      in the shard of the publisher's session: number 41, the same for every repeat
//!             ──► PublishOnce(41) in every shard that wants it, which remembers 41
//!   PUBREC  ◄──
//!   PUBREL  7 ──► Complete(7)     the packet id is free; the next PublishOnce says that nothing below is open
//! ```
//!
//! # Invariants
//!
//! - **A number belongs to one publish for ever**: it counts up with the session and is never given out again.
//! - **A target forgets a number only when its origin has completed it**, after [`ORIGIN_IDLE_MS_MAX`] of silence, or when
//!   it was silent the longest of more than [`ORIGINS_MAX`]. Checked by `tests/rules/once.rs`.
//! - **A number lies less than [`NUMBERS_SPAN_MAX`] above the lowest that is open**: `Receive` gives no other, and nobody
//!   remembers one. Checked by `tests/rules/once.rs`.

use std::collections::{BTreeMap, BTreeSet};

use moorline_core::{Epoch, Message, Offset, QoS, TenantId, UnixMillis, planted};
use moorline_storage::{Rows, StorageError};

use super::{ShardState, numbers::NUMBERS_SPAN_MAX};
use crate::{
    answer::{Answer, Refused},
    command::{Origin, SessionId},
    rows::{Item, NumberRow, OriginRow, Row},
    step::Step,
};

/// How long a shard remembers the publishes of a session that has gone silent: a client that repeats one later than this
/// may be heard twice.
pub const ORIGIN_IDLE_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1000;
/// Origins that a shard remembers, each in memory with about 200 bytes, and up to 8 KiB while its client leaves a publish
/// open. Each connection of a clean session is one, so they come faster than they grow old. Beyond it the one that was
/// silent the longest is forgotten.
pub const ORIGINS_MAX: usize = 250_000;
/// Origins that one `Tick` forgets.
const ORIGINS_PER_TICK_MAX: usize = 256;
/// What a repeat is told: the first answer is not kept.
const REPEATED: Answer = Answer::Published { sessions: 1 };

/// The origins that a shard remembers.
#[derive(Debug, Default)]
pub(super) struct Origins {
    known: BTreeMap<SessionId, OriginRow>,
    /// The same, by when the last publish of each came.
    silent: BTreeSet<(UnixMillis, SessionId)>,
    /// Those that changed in this batch, written at its end: a client publishes many at once.
    touched: BTreeSet<SessionId>,
}

impl PartialEq for Origins {
    /// What was touched is of one batch, and in no row.
    fn eq(&self, other: &Self) -> bool {
        (&self.known, &self.silent) == (&other.known, &other.silent)
    }
}

impl Origins {
    pub(super) fn insert(&mut self, session: SessionId, row: OriginRow) {
        self.silent.insert((row.at, session));
        self.known.insert(session, row);
    }

    fn take(&mut self, session: SessionId) -> Option<OriginRow> {
        let row = self.known.remove(&session)?;
        self.silent.remove(&(row.at, session));
        Some(row)
    }

    /// The one that was silent the longest, and since when.
    fn oldest(&self) -> Option<(UnixMillis, SessionId)> {
        self.silent.first().copied()
    }

    pub(super) fn flush<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>) {
        while let Some(session) = self.touched.pop_first() {
            if let Some(row) = self.known.get(&session) {
                step.put(step.keys.origin(session), row.to_bytes());
            }
        }
    }
}

impl ShardState {
    pub(crate) fn receive<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        epoch: Epoch,
        packet: u16,
    ) -> Answer {
        let Some(session) = self.sessions.get_mut(&id).filter(|held| held.row.epoch == epoch)
        else {
            return Answer::Refused(Refused::NotYours);
        };
        let open = self.open.range((id, 0)..=(id, u64::MAX)).next().map(|(_, number)| *number);
        if let Some(&number) = self.inbound.get(&(id, packet)) {
            return Answer::Received { number, floor: open.expect("this one is open") };
        }
        let number = session.counters.received + 1;
        let floor = open.unwrap_or(number);
        if number - floor >= NUMBERS_SPAN_MAX {
            return Answer::Refused(Refused::TooFarAhead);
        }
        session.counters.received = number;
        session.mark(id, &mut self.dirty);
        self.insert_inbound(id, packet, number);
        step.put(self.keys.inbound(id, packet), NumberRow(number).to_bytes());
        Answer::Received { number, floor }
    }

    /// Takes a publish that is open into memory.
    pub(super) fn insert_inbound(&mut self, id: SessionId, packet: u16, number: u64) {
        self.inbound.insert((id, packet), number);
        self.open.insert((id, number));
    }

    fn remove_inbound(&mut self, id: SessionId, packet: u16) -> bool {
        let number = self.inbound.remove(&(id, packet));
        number.is_some_and(|number| self.open.remove(&(id, number)))
    }

    pub(crate) fn complete<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        epoch: Epoch,
        packets: &[u16],
    ) -> Answer {
        if self.sessions.get(&id).is_none_or(|held| held.row.epoch != epoch) {
            return Answer::Refused(Refused::NotYours);
        }
        let mut known = Vec::with_capacity(packets.len());
        for packet in packets {
            let was_there = self.remove_inbound(id, *packet);
            if was_there {
                step.delete(self.keys.inbound(id, *packet));
            }
            known.push(was_there);
        }
        Answer::Completed { known }
    }

    /// Forgets what a session that ends has received and not completed: how many rows it was.
    pub(super) fn forget_inbound<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
    ) -> usize {
        let open = self.inbound.range((id, 0)..=(id, u16::MAX)).map(|((_, packet), _)| *packet);
        let open: Vec<u16> = open.collect();
        for &packet in &open {
            self.remove_inbound(id, packet);
            step.delete(self.keys.inbound(id, packet));
        }
        open.len()
    }

    pub(crate) fn publish_once<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        origin: Origin,
        message: Message,
    ) -> Answer {
        let from = Some(origin.session);
        self.once(step, origin, |state, step| state.publish(step, tenant, from, message))
    }

    /// Acts only if this number of the origin did not come before.
    pub(super) fn once<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        origin: Origin,
        act: impl FnOnce(&mut Self, &mut Step<'_, R>) -> Answer,
    ) -> Answer {
        let Origin { session, number, floor } = origin;
        let known = self.origins.take(session);
        if known.is_none() && self.origins.known.len() >= ORIGINS_MAX {
            self.forget_oldest(step);
        }
        let mut row = known.unwrap_or_default();
        row.numbers.raise(floor);
        let answer = if row.numbers.contains(number) {
            REPEATED
        } else if row.numbers.has_room(number) {
            act(self, step)
        } else {
            Answer::Refused(Refused::TooFarAhead)
        };
        // Nobody took it: a repeat asks again.
        if !matches!(answer, Answer::Refused(_)) {
            row.numbers.insert(number);
        }
        row.at = step.time;
        self.origins.insert(session, row);
        self.origins.touched.insert(session);
        answer
    }

    fn forget_oldest<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>) {
        if let Some((_, session)) = self.origins.oldest() {
            self.origins.take(session);
            step.delete(self.keys.origin(session));
        }
    }

    /// When the next origin is forgotten.
    pub(super) fn origin_deadline(&self) -> Option<UnixMillis> {
        let (at, _) = self.origins.oldest()?;
        Some(UnixMillis(at.0.saturating_add(ORIGIN_IDLE_MS_MAX)))
    }

    pub(super) fn forget_origins<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>) {
        for _ in 0..ORIGINS_PER_TICK_MAX {
            match self.origins.oldest() {
                Some((at, _)) if at.0.saturating_add(ORIGIN_IDLE_MS_MAX) <= step.time.0 => {
                    self.forget_oldest(step);
                }
                Some(_) | None => return,
            }
        }
    }

    /// The messages of these deliveries have arrived; only their release is left of them.
    pub(crate) fn release<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        epoch: Option<Epoch>,
        offsets: &[Offset],
    ) -> Result<Answer, StorageError> {
        // Who has the session now may have been sent the messages again: its client must not forget their packet ids yet.
        let held = self.sessions.get(&id).map(|held| held.row.epoch);
        if epoch.is_some() && held != epoch && !planted::is(planted::Bug::UnfencedRelease) {
            return Ok(Answer::Refused(Refused::NotYours));
        }
        for &offset in offsets {
            let key = self.keys.item(id, offset);
            let Some(row) = step.rows.get(&key)? else { continue };
            let item = Item::read(&row)?;
            let Some(session) = self.sessions.get_mut(&id) else { break };
            if item.grant.qos != QoS::ExactlyOnce || item.released {
                continue;
            }
            step.put(key, Item::released());
            session.counters.bytes -= item.bytes;
            self.counts.queued_bytes -= item.bytes;
            session.mark(id, &mut self.dirty);
            if let Some(message) = item.shared {
                self.shared.drop_one(step, message)?;
            }
        }
        Ok(Answer::Done)
    }
}
