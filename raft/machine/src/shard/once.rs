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
//! - **A target forgets a number only when its origin has completed it**, or after [`ORIGIN_IDLE_MS_MAX`] of silence.
//!   Checked by `tests/rules/once.rs`.

use moorline_core::{Epoch, Message, Offset, QoS, TenantId, UnixMillis};
use moorline_storage::{Rows, StorageError};

use super::ShardState;
use crate::{
    answer::{Answer, Refused},
    command::{Origin, SessionId},
    rows::{Item, NumberRow, OriginRow, Row},
    step::Step,
};

/// How long a shard remembers the publishes of a session that has gone silent: a client that repeats one later than this
/// may be heard twice.
pub const ORIGIN_IDLE_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1000;
/// Origins that one `Tick` forgets.
const ORIGINS_PER_TICK_MAX: usize = 256;
/// What a repeat is told: the first answer is not kept.
const REPEATED: Answer = Answer::Published { sessions: 1 };

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
        let number = match self.inbound.get(&(id, packet)) {
            Some(number) => *number,
            None => {
                session.counters.received += 1;
                let number = session.counters.received;
                session.mark(id, &mut self.dirty);
                self.inbound.insert((id, packet), number);
                step.put(self.keys.inbound(id, packet), NumberRow(number).to_bytes());
                number
            }
        };
        let open = self.inbound.range((id, 0)..=(id, u16::MAX)).map(|(_, number)| *number);
        Answer::Received { number, floor: open.min().expect("this one is open") }
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
            let was_there = self.inbound.remove(&(id, *packet)).is_some();
            if was_there {
                step.delete(self.keys.inbound(id, *packet));
            }
            known.push(was_there);
        }
        Answer::Completed { known }
    }

    /// What a session that ends has received and not completed.
    pub(super) fn forget_inbound<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
    ) {
        let open = self.inbound.range((id, 0)..=(id, u16::MAX)).map(|((_, packet), _)| *packet);
        for packet in open.collect::<Vec<_>>() {
            self.inbound.remove(&(id, packet));
            step.delete(self.keys.inbound(id, packet));
        }
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
        let mut row = match self.origins.remove(&session) {
            Some(known) => {
                self.silent.remove(&(known.at, session));
                known
            }
            None => OriginRow::default(),
        };
        let repeated = number < row.floor || row.seen.contains(&number);
        let answer = if repeated { REPEATED } else { act(self, step) };
        if row.floor < floor {
            row.floor = floor;
            row.seen.retain(|seen| *seen >= floor);
        }
        // Nobody took it: a repeat asks again.
        let took = !matches!(answer, Answer::Refused(_));
        if took && !repeated && number >= row.floor {
            row.seen.push(number);
        }
        row.at = step.time;
        step.put(self.keys.origin(session), row.to_bytes());
        self.silent.insert((row.at, session));
        self.origins.insert(session, row);
        answer
    }

    /// When the next origin is forgotten.
    pub(super) fn origin_deadline(&self) -> Option<UnixMillis> {
        let (at, _) = self.silent.first()?;
        Some(UnixMillis(at.0.saturating_add(ORIGIN_IDLE_MS_MAX)))
    }

    pub(super) fn forget_origins<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>) {
        for _ in 0..ORIGINS_PER_TICK_MAX {
            match self.silent.first() {
                Some(&(at, session)) if at.0.saturating_add(ORIGIN_IDLE_MS_MAX) <= step.time.0 => {
                    self.silent.remove(&(at, session));
                    self.origins.remove(&session);
                    step.delete(self.keys.origin(session));
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
        offsets: &[Offset],
    ) -> Result<Answer, StorageError> {
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
