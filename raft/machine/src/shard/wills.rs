//! Wills: messages that sessions leave to be published when their clients are gone without a goodbye (MQTT 3.1.2.5).
//!
//! ```text
//!   OpenSession ──► Will row of the session
//!        connection gone ──► pending: due when its delay is over, or the session is (log time, by Tick)
//!        back in time, goodbye ──► forgotten
//!   due ──► DueWill row with a number ──► leader publishes it ──► WillsDone ──► gone
//! ```
//!
//! # Invariants
//!
//! - **A will is published once in every queue.** It becomes due once, since becoming due moves its row; its number makes a
//!   repeat of its publish count once ([`crate::command::Origin::of_wills`]). Checked by `tests/rules/wills.rs`.
//! - **Due does not depend on who leads.** Rows and log time decide; a new leader finds what the last one left.
//!
//! # Deliberately absent
//!
//! Publishing them (`node/service`).

use std::collections::BTreeSet;

use moorline_core::{Message, TenantId, UnixMillis, Will, session_name};
use moorline_storage::{Rows, StorageError, View, key::Kind};

use super::{Session, ShardState};
use crate::{
    answer::Answer,
    command::SessionId,
    effect::Effect,
    keys::each,
    registry::Owner,
    rows::{DueWillRow, NumberRow, Row, WillRow, corrupt},
    step::Step,
};

/// Wills of a shard that wait to be published: a million clients may go at once, and targets may be slow. What becomes due
/// beyond it is dropped and counted.
pub const DUE_WILLS_MAX: usize = 100_000;
/// Wills that one `Tick` makes due: three rows each, so a few milliseconds.
const WILLS_PER_TICK_MAX: usize = 1_024;

/// The wills of a shard, without their messages.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Wills {
    /// Sessions without a connection, by when their will is due.
    pub(super) pending: BTreeSet<(UnixMillis, SessionId)>,
    /// Numbers of those that are due.
    due: BTreeSet<u64>,
    /// How many were ever due.
    counted: u64,
}

impl Wills {
    pub(super) fn due_len(&self) -> usize {
        self.due.len()
    }
}

/// A will that is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueWill {
    /// Counts up within the shard, never given twice.
    pub number: u64,
    /// Whose topic space.
    pub tenant: TenantId,
    /// The device whose will it is.
    pub owner: Option<Owner>,
    /// What. `expires_at` is relative: milliseconds from when it is published.
    pub message: Message,
}

impl Session {
    /// When its will is due, if it has one and no connection.
    pub(super) fn will_due_at(&self) -> Option<UnixMillis> {
        let (detached_at, delay_s) = (self.row.detached_at?, self.will?);
        let at = UnixMillis(detached_at.0.saturating_add(u64::from(delay_s) * 1000));
        Some(self.ends_at().map_or(at, |ends| ends.min(at)))
    }
}

impl ShardState {
    pub(super) fn open_wills(&mut self, rows: &(impl View + ?Sized)) -> Result<(), StorageError> {
        if let Some(row) = rows.get(&self.keys.next_will())? {
            self.wills.counted = NumberRow::from_bytes(&row)?.0;
        }
        each(rows, &self.keys.range(Kind::DueWill), |mut suffix, _| {
            self.wills.due.insert(suffix.u64()?);
            Ok(())
        })
    }

    /// Notes in memory that a session has a will, or none.
    pub(super) fn set_will(&mut self, id: SessionId, delay_s: Option<u32>) {
        let mut session = self.sessions.remove(&id).expect("the caller found it");
        self.unindex(id, &session);
        self.counts.wills -= usize::from(session.will.is_some());
        self.counts.wills += usize::from(delay_s.is_some());
        session.will = delay_s;
        self.index(id, &session);
        self.sessions.insert(id, session);
    }

    /// Gives a session a will in the place of the one it had, which is forgotten.
    pub(super) fn put_will<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        will: Option<&Will>,
    ) {
        let key = self.keys.will(id);
        match will {
            Some(will) => step.put(key, WillRow(will.clone()).to_bytes()),
            None if self.sessions[&id].will.is_some() => step.delete(key),
            None => return,
        }
        self.set_will(id, will.map(|will| will.delay_s));
    }

    /// A session goes on with another connection: what becomes of the will of the one before.
    pub(super) fn resolve_will<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
    ) -> Result<(), StorageError> {
        let session = &self.sessions[&id];
        let late = match session.will_due_at() {
            Some(at) => at <= step.time,
            // Taken over from a living connection (MQTT 5, 3.1.4): only a delay saves it.
            None => session.will == Some(0),
        };
        if late { self.fire_will(step, id) } else { Ok(()) }
    }

    /// Makes a session's will due, if it has one.
    pub(super) fn fire_will<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
    ) -> Result<(), StorageError> {
        let session = &self.sessions[&id];
        if session.will.is_none() {
            return Ok(());
        }
        let tenant = session.tenant;
        let owner = session_name::device_of(&session.client);
        let key = self.keys.will(id);
        let row = step.rows.get(&key)?.ok_or_else(|| corrupt(WillRow::WHAT, &"it is missing"))?;
        let WillRow(Will { message, .. }) = WillRow::from_bytes(&row)?;
        step.delete(key);
        self.set_will(id, None);
        if self.wills.due.len() >= DUE_WILLS_MAX {
            step.effects.push(Effect::WillDropped { session: id });
            return Ok(());
        }
        self.wills.counted += 1;
        let number = self.wills.counted;
        step.put(self.keys.next_will(), NumberRow(number).to_bytes());
        step.put_fresh(self.keys.due_will(number), DueWillRow { tenant, message }.to_bytes());
        if let Some((device, born)) = owner {
            let owner = Owner { tenant, device, born };
            step.put_fresh(self.keys.will_owner(number), owner.to_bytes());
        }
        self.wills.due.insert(number);
        step.effects.push(Effect::WillDue);
        Ok(())
    }

    /// Makes due what waited long enough: a piece of it.
    pub(super) fn fire_due<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
    ) -> Result<(), StorageError> {
        for _ in 0..WILLS_PER_TICK_MAX {
            match self.wills.pending.first() {
                Some(&(at, id)) if at <= step.time => self.fire_will(step, id)?,
                Some(_) | None => break,
            }
        }
        Ok(())
    }

    pub(crate) fn wills_done<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        numbers: &[u64],
    ) -> Answer {
        for &number in numbers {
            if self.wills.due.remove(&number) {
                step.delete(self.keys.due_will(number));
                step.delete(self.keys.will_owner(number));
            }
        }
        Answer::Done
    }

    pub(crate) fn due_wills(
        &self,
        rows: &(impl View + ?Sized),
        from: u64,
        max: usize,
    ) -> Result<Vec<DueWill>, StorageError> {
        let due = self.wills.due.range(from..).take(max);
        due.map(|&number| {
            let row = rows.get(&self.keys.due_will(number))?;
            let row = row.ok_or_else(|| corrupt(DueWillRow::WHAT, &"it is missing"))?;
            let DueWillRow { tenant, message } = DueWillRow::from_bytes(&row)?;
            let owner = rows.get(&self.keys.will_owner(number))?;
            let owner = owner.map(|row| Owner::from_bytes(&row)).transpose()?;
            Ok(DueWill { number, tenant, owner, message })
        })
        .collect()
    }
}
