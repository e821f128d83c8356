//! The life of a session: opened, taken over, resumed, let go, ended.
//!
//! # Invariants
//!
//! - **One holder.** A session has at most one connection, and each opening raises its epoch. Checked by the tables of
//!   `tests/rules/sessions.rs`.
//! - **A wiped session gets a new id**, so that nothing meant for the old one (a settlement, what is left of its queue)
//!   can touch the new one.

use std::collections::BTreeSet;

use moorline_core::{
    Epoch, Incarnation, NodeId, Offset, TenantId, Text, Will, port::SessionLimits, shard::bucket_of,
};
use moorline_storage::{Rows, StorageError, View};

use super::{
    GARBAGE_ROWS_AT_ONCE_MAX, SESSIONS_PER_NODE_GONE_MAX, SESSIONS_PER_SHARD_MAX, ShardState,
};
use crate::{
    answer::{Answer, Refused, RouteChange},
    command::{Holder, SessionId},
    effect::Effect,
    rows::{CountersRow, GarbageRow, NumberRow, Row, SessionRow},
    step::Step,
};

/// What `OpenSession` asks for.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    pub(crate) tenant: TenantId,
    pub(crate) client: Text,
    pub(crate) clean_start: bool,
    pub(crate) expiry_s: u32,
    pub(crate) holder: Holder,
    pub(crate) limits: SessionLimits,
    pub(crate) sessions_max: u32,
    pub(crate) will: Option<Box<Will>>,
}

impl ShardState {
    pub(crate) fn find(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        client: &Text,
    ) -> Result<Option<SessionId>, StorageError> {
        let bucket = bucket_of(tenant, client.as_bytes());
        let Some(row) = rows.get(&self.keys.session(bucket, tenant, client))? else {
            return Ok(None);
        };
        Ok(Some(SessionId { bucket, number: SessionRow::from_bytes(&row)?.number }))
    }

    pub(crate) fn open_session<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        opening: Opening,
    ) -> Result<Answer, StorageError> {
        let Some(id) = self.find(step.rows, opening.tenant, &opening.client)? else {
            let sessions_max = usize::try_from(opening.sessions_max).unwrap_or(usize::MAX);
            if self.counts().sessions >= sessions_max.min(SESSIONS_PER_SHARD_MAX) {
                return Ok(Answer::Refused(Refused::TooManySessions));
            }
            return self.create(step, opening, Epoch(1), None, Vec::new());
        };
        let session = &self.sessions[&id];
        let previous = session.row.holder;
        if previous == Some(opening.holder) {
            return Ok(self.opened(id, None, Vec::new()));
        }
        // A session that ends with its connection ends when another takes its place (MQTT 5, 3.1.2.11.2).
        let ended = match session.ends_at() {
            Some(at) => at <= step.time,
            None => previous.is_some() && session.row.expiry_s == 0,
        };
        let epoch = Epoch(session.row.epoch.0 + 1);
        if opening.clean_start || ended {
            let mut released = Vec::new();
            self.remove(step, id, &mut released)?;
            self.announce(step, &released);
            return self.create(step, opening, epoch, previous, released);
        }

        self.resolve_will(step, id)?;
        self.put_will(step, id, opening.will.as_deref());
        let tail = self.sessions[&id].counters.tail;
        self.update(step, id, |row| {
            row.epoch = epoch;
            row.expiry_s = opening.expiry_s;
            row.limits = opening.limits;
            row.detached_at = None;
            row.present = true;
            // What came while the earlier connection held it may have been offered there.
            if row.holder.replace(opening.holder).is_some() {
                row.offered_below = tail;
            }
        });
        step.effects.push(Effect::Opened { session: id, epoch, holder: opening.holder, previous });
        Ok(self.opened(id, previous, Vec::new()))
    }

    fn create<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        opening: Opening,
        epoch: Epoch,
        previous: Option<Holder>,
        released: Vec<RouteChange>,
    ) -> Result<Answer, StorageError> {
        let Opening {
            tenant,
            client,
            clean_start: _,
            expiry_s,
            holder,
            limits,
            sessions_max: _,
            will,
        } = opening;
        let bucket = bucket_of(tenant, client.as_bytes());
        let number = self.take_number(step, bucket)?;
        let id = SessionId { bucket, number };
        let row = SessionRow {
            number,
            epoch,
            holder: Some(holder),
            expiry_s,
            detached_at: None,
            offered_below: Offset(1),
            present: false,
            limits,
        };
        step.put(self.keys.session(bucket, tenant, &client), row.to_bytes());
        // A copy: the text is a slice of the whole log entry.
        let client = Text::from(client.as_str());
        self.names.insert((tenant, client.clone(), id));
        self.add(id, tenant, client, row);
        self.put_will(step, id, will.as_deref());
        step.effects.push(Effect::Opened { session: id, epoch, holder, previous });
        Ok(self.opened(id, previous, released))
    }

    /// A number for a session or share of a bucket: never given again.
    pub(super) fn take_number<R: Rows + ?Sized>(
        &self,
        step: &mut Step<'_, R>,
        bucket: u16,
    ) -> Result<u64, StorageError> {
        let counter = self.keys.next_session(bucket);
        let number = match step.rows.get(&counter)? {
            Some(row) => NumberRow::from_bytes(&row)?.0,
            None => 1,
        };
        step.put(counter, NumberRow(number + 1).to_bytes());
        Ok(number)
    }

    fn opened(
        &self,
        id: SessionId,
        previous: Option<Holder>,
        released: Vec<RouteChange>,
    ) -> Answer {
        let session = &self.sessions[&id];
        Answer::Opened {
            session: id,
            epoch: session.row.epoch,
            present: session.row.present,
            head: session.counters.head,
            tail: session.counters.tail,
            previous,
            released,
        }
    }

    pub(crate) fn close_session<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        epoch: Epoch,
        expiry_s: Option<u32>,
        forget_will: bool,
    ) -> Result<Answer, StorageError> {
        let mut released = Vec::new();
        if let Some(session) = self.sessions.get(&id)
            && session.row.epoch == epoch
            && session.row.holder.is_some()
        {
            let expiry_s = expiry_s.unwrap_or(session.row.expiry_s);
            if forget_will {
                self.put_will(step, id, None);
            }
            self.let_go(step, id, expiry_s, &mut released)?;
            self.announce(step, &released);
        }
        Ok(Answer::Released(released))
    }

    pub(crate) fn node_gone<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        node: NodeId,
        process: Incarnation,
    ) -> Answer {
        let mut gone: Vec<(SessionId, Holder)> = self
            .held_at(node)
            .filter(|(_, holder)| holder.incarnation == process)
            .take(SESSIONS_PER_NODE_GONE_MAX + 1)
            .collect();
        let more = gone.len() > SESSIONS_PER_NODE_GONE_MAX;
        gone.truncate(SESSIONS_PER_NODE_GONE_MAX);

        // No more than a row each: what is due with it, wills and ends of sessions, is due at the next tick.
        for (id, holder) in gone {
            let expiry_s = self.sessions[&id].row.expiry_s;
            let epoch = self.detach(step, id, expiry_s);
            step.effects.push(Effect::Detached { session: id, epoch, holder });
        }
        if more { Answer::Partly(Vec::new()) } else { Answer::Released(Vec::new()) }
    }

    /// The connection of a held session is gone: the session waits for another, or ends.
    fn let_go<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        expiry_s: u32,
        released: &mut Vec<RouteChange>,
    ) -> Result<(), StorageError> {
        if expiry_s == 0 {
            self.remove(step, id, released)?;
            return Ok(());
        }
        let epoch = self.detach(step, id, expiry_s);
        step.effects.push(Effect::Closed { session: id, epoch });
        // A will without a delay does not wait for the next tick.
        if self.sessions[&id].will_due_at().is_some_and(|at| at <= step.time) {
            self.fire_will(step, id)?;
        }
        Ok(())
    }

    /// Takes a session from its connection. Gives the epoch that ended.
    fn detach<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        expiry_s: u32,
    ) -> Epoch {
        let session = &self.sessions[&id];
        let (epoch, tail, time) = (session.row.epoch, session.counters.tail, step.time);
        self.update(step, id, |row| {
            row.expiry_s = expiry_s;
            row.holder = None;
            row.detached_at = Some(time);
            row.offered_below = tail;
        });
        epoch
    }

    /// The sessions that are held at a node, and by which connection of which process.
    fn held_at(&self, node: NodeId) -> impl Iterator<Item = (SessionId, Holder)> {
        let first = SessionId { bucket: 0, number: 0 };
        let last = SessionId { bucket: u16::MAX, number: u64::MAX };
        let held = self.held.range((node, first)..=(node, last));
        held.filter_map(|(_, id)| Some((*id, self.sessions[id].row.holder?)))
    }

    /// The processes of a node that hold sessions, or devices connected.
    pub(crate) fn processes_of(&self, node: NodeId) -> BTreeSet<Incarnation> {
        let of_sessions = self.held_at(node).map(|(_, holder)| holder.incarnation);
        of_sessions.chain(self.present_processes(node)).collect()
    }

    /// Ends a session. Its rows go now, but for a long queue and many notes, which go in pieces. Its will, if it still has one,
    /// is due. Gives about how many rows went.
    pub(super) fn remove<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        released: &mut Vec<RouteChange>,
    ) -> Result<usize, StorageError> {
        self.fire_will(step, id)?;
        // Its own and its counters; and each filter is a row too.
        let mut rows = 2 + 2 * self.sessions[&id].subscriptions as usize;
        self.remove_subscriptions(step, id, released)?;
        rows += self.forget_inbound(step, id);
        rows += self.forget_awaited(step, id);
        let session = self.sessions.remove(&id).expect("the caller found it");
        self.unindex(id, &session);
        if self.shares.remove(&id).is_none() {
            step.delete(self.keys.session(id.bucket, session.tenant, &session.client));
            self.names.remove(&(session.tenant, session.client.clone(), id));
        }

        let counters = session.counters;
        self.counts.queued_items -= counters.items;
        self.counts.queued_bytes -= counters.bytes;
        if counters != CountersRow::default() {
            step.delete(self.keys.counters(id));
        }
        if counters.items > GARBAGE_ROWS_AT_ONCE_MAX {
            let garbage = GarbageRow { from: counters.head, tail: counters.tail };
            step.put(self.keys.garbage(id), garbage.to_bytes());
            self.garbage.insert(id, garbage);
            self.tally.discarded += counters.items;
        } else if counters.items > 0 {
            let budget = usize::try_from(GARBAGE_ROWS_AT_ONCE_MAX).expect("a small number");
            let (_, items) = self.remove_items(step, id, counters.head, counters.tail, budget)?;
            self.tally.discarded += items as u64;
            rows += items;
        }
        step.effects.push(Effect::Closed { session: id, epoch: session.row.epoch });
        Ok(rows)
    }
}
