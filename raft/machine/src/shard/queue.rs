//! Queues: messages in at the tail, settled offsets out.
//!
//! # Invariants
//!
//! - **Offsets are handed out without gaps, once.** Only `tail` gives them, and it only grows.
//! - **Settled is settled.** `head` only grows, and every offset below it is gone. Asserted in [`ShardState::settle`].
//! - **The counters are those of the rows**: `items` and `bytes` between `head` and `tail`. Checked by `tests/rules/queues.rs`.

use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use moorline_core::{Delivery, Grant, Message, Offset, QoS, TenantId, UnixMillis, planted};
use moorline_storage::{Rows, StorageError, View};

use super::{Session, ShardState};
use crate::{
    answer::{Answer, Refused},
    codec::message_len,
    command::SessionId,
    effect::Effect,
    keys::each_until,
    rows::{CountersRow, Item, SharedMessage, corrupt},
    step::Step,
};

/// Payloads up to this size are put into each queue: a row of their own costs more than the copies.
const INLINE_PAYLOAD_BYTES_MAX: usize = 128;

/// Sees an item; says whether to go on.
type VisitItem<'a> = dyn FnMut(Offset, &Bytes) -> Result<ControlFlow<()>, StorageError> + 'a;

impl Session {
    fn has_room(&self, bytes: u64) -> bool {
        let limits = &self.row.limits;
        self.counters.items < u64::from(limits.queue_items)
            && self.counters.bytes + bytes <= u64::from(limits.queue_bytes)
    }
}

impl ShardState {
    pub(crate) fn publish<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        from: Option<SessionId>,
        mut message: Message,
    ) -> Answer {
        if let Some(UnixMillis(in_ms)) = message.expires_at {
            message.expires_at = Some(UnixMillis(step.time.0.saturating_add(in_ms)));
        }
        let mut found = std::mem::take(&mut self.found);
        self.matching(tenant, &message.topic, from, &mut found);
        found.iter_mut().for_each(|(_, grant)| grant.limit(&message));
        let noted = message.retain.then(|| message.topic.clone());
        let took = if found.is_empty() { 0 } else { self.fan_out(step, message, &found) };
        if let Some(topic) = noted {
            self.note_queued(step, &found, &topic);
        }
        let sessions = u32::try_from(found.len()).expect("SESSIONS_PER_SHARD_MAX fits");
        self.found = found;
        if took == 0 && sessions > 0 {
            return Answer::Refused(Refused::QueueFull);
        }
        Answer::Published { sessions }
    }

    /// Gives a message to each of these sessions: into its queue, or only past it where the QoS is 0. How many took it.
    pub(super) fn fan_out<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        message: Message,
        to: &[(SessionId, Grant)],
    ) -> usize {
        let bytes = message_len(&message);
        let reuse = to.len() > 1;
        let mut rows = ItemRows { queues: 0, shared: None, reuse, made: Default::default() };
        // A single queue needs no counting: whatever its size, the message goes into the item.
        if to.len() > 1 && message.payload.len() > INLINE_PAYLOAD_BYTES_MAX {
            let queues = to.iter().filter(|(id, grant)| {
                grant.qos > QoS::AtMostOnce && self.sessions[id].has_room(bytes as u64)
            });
            rows.queues = queues.count() as u64;
        }
        let message = Arc::new(message);
        let mut took = 0;
        self.tally.matched += to.len() as u64;
        for (id, grant) in to {
            let offset = match grant.qos {
                QoS::AtMostOnce => {
                    self.tally.passed += 1;
                    None
                }
                QoS::AtLeastOnce | QoS::ExactlyOnce => {
                    match self.enqueue(step, *id, grant, &message, bytes, &mut rows) {
                        Some(offset) => Some(offset),
                        None => continue,
                    }
                }
            };
            took += 1;
            if self.sessions[id].row.holder.is_some() || self.shares.contains_key(id) {
                let delivery = Delivery::granted(offset, grant, Arc::clone(&message));
                step.effects.push(Effect::Deliver { session: *id, delivery });
            }
        }
        took
    }

    /// Puts a message at the end of a queue, if there is room.
    fn enqueue<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        grant: &Grant,
        message: &Message,
        bytes: usize,
        rows: &mut ItemRows,
    ) -> Option<Offset> {
        let session = self.sessions.get_mut(&id).expect("the trie holds only sessions");
        session.mark(id, &mut self.dirty);
        if !session.has_room(bytes as u64) {
            session.counters.dropped += 1;
            self.tally.full += 1;
            let (tenant, client) = (session.tenant, session.client.clone());
            step.effects.push(Effect::QueueFull { session: id, tenant, client });
            return None;
        }
        let offset = session.counters.tail;
        session.counters.tail = offset.next();
        session.counters.items += 1;
        session.counters.bytes += bytes as u64;
        self.counts.queued_items += 1;
        self.counts.queued_bytes += bytes as u64;

        let made = usize::from(grant.qos == QoS::ExactlyOnce) | usize::from(grant.retain) << 1;
        let row = match rows.made[made].clone() {
            // Identifiers are of one session alone.
            Some(row) if grant.ids.is_empty() => row,
            Some(_) | None if rows.queues > 1 => {
                let queues = rows.queues;
                let number = match rows.shared {
                    Some(number) => number,
                    None => self.shared.store(step, message, queues),
                };
                rows.shared = Some(number);
                Item::shared(grant, number, bytes)
            }
            Some(_) | None => Item::inline(grant, message),
        };
        if rows.reuse && grant.ids.is_empty() {
            rows.made[made] = Some(row.clone());
        }
        step.put_fresh(self.keys.item(id, offset), row);
        self.tally.enqueued += 1;
        Some(offset)
    }

    pub(crate) fn settle<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        upto: Offset,
        also: &[Offset],
    ) -> Result<Answer, StorageError> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(Answer::Done) };
        if planted::is(planted::Bug::ResendAfterAck) {
            return Ok(Answer::Done);
        }
        let before = session.counters;
        let mut counters = before;
        let end = upto.0.saturating_add(1).min(counters.tail.0);
        if end > counters.head.0 {
            self.settle_until(step, id, Offset(end), &mut counters)?;
        }
        for &offset in also {
            if (counters.head..counters.tail).contains(&offset) {
                self.take_item(step, id, offset, &mut counters)?;
                if offset == counters.head {
                    counters.head = offset.next();
                }
            }
        }
        // What was settled ahead of the head no longer holds it up.
        if counters.items == 0 {
            counters.head = counters.tail;
        } else if counters.items < counters.tail.0 - counters.head.0 {
            counters.head = self.first_item(step.rows, id, &counters)?;
        }

        assert!(before.head <= counters.head && counters.head <= counters.tail, "{id:?}");
        if self.shares.contains_key(&id) {
            step.effects.push(Effect::Settled { share: id, offsets: also.to_vec() });
        }
        if counters != before {
            self.counts.queued_items -= before.items - counters.items;
            self.counts.queued_bytes -= before.bytes - counters.bytes;
            let session = self.sessions.get_mut(&id).expect("it was there above");
            session.counters = counters;
            session.mark(id, &mut self.dirty);
        }
        Ok(Answer::Done)
    }

    fn settle_until<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        end: Offset,
        counters: &mut CountersRow,
    ) -> Result<(), StorageError> {
        if counters.items == counters.tail.0 - counters.head.0 {
            for offset in counters.head.0..end.0 {
                self.take_item(step, id, Offset(offset), counters)?;
            }
        } else {
            // Some between are settled already: only those that are there.
            for (offset, _) in self.items(step.rows, id, counters.head, end, usize::MAX)? {
                self.take_item(step, id, offset, counters)?;
            }
        }
        counters.head = end;
        Ok(())
    }

    /// Removes an item, if it is there.
    fn take_item<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        offset: Offset,
        counters: &mut CountersRow,
    ) -> Result<(), StorageError> {
        let key = self.keys.item(id, offset);
        let Some(row) = step.rows.get(&key)? else { return Ok(()) };
        let item = Item::read(&row)?;
        step.delete(key);
        self.tally.settled += 1;
        counters.items -= 1;
        counters.bytes -= item.bytes;
        match item.shared {
            Some(message) => self.shared.drop_one(step, message),
            None => Ok(()),
        }
    }

    fn first_item(
        &self,
        rows: &(impl View + ?Sized),
        id: SessionId,
        counters: &CountersRow,
    ) -> Result<Offset, StorageError> {
        let items = self.items(rows, id, counters.head, counters.tail, 1)?;
        let first = items.first().ok_or_else(|| corrupt("queue", &"items are missing"))?;
        Ok(first.0)
    }

    /// The items with `from <= offset < to` that are there, at most `max` of them.
    fn items(
        &self,
        rows: &(impl View + ?Sized),
        id: SessionId,
        from: Offset,
        to: Offset,
        max: usize,
    ) -> Result<Vec<(Offset, Bytes)>, StorageError> {
        let mut items = Vec::new();
        self.visit_items(rows, id, from, to, &mut |offset, row| {
            items.push((offset, row.clone()));
            Ok(if items.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(items)
    }

    fn visit_items(
        &self,
        rows: &(impl View + ?Sized),
        id: SessionId,
        from: Offset,
        to: Offset,
        visit: &mut VisitItem<'_>,
    ) -> Result<(), StorageError> {
        let range = (self.keys.item(id, from), self.keys.item(id, to));
        each_until(rows, &range, |mut suffix, row| {
            suffix.u64()?;
            visit(Offset(suffix.u64()?), row)
        })
    }

    /// Removes at most `max` items of a session that is gone: the offset to go on from, and how many it were.
    pub(super) fn remove_items<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        id: SessionId,
        from: Offset,
        to: Offset,
        max: usize,
    ) -> Result<(Offset, usize), StorageError> {
        let items = self.items(step.rows, id, from, to, max)?;
        let next = match items.last() {
            Some((last, _)) if items.len() == max => last.next(),
            Some(_) | None => to,
        };
        for (offset, row) in &items {
            step.delete(self.keys.item(id, *offset));
            if let Some(message) = Item::read(row)?.shared {
                self.shared.drop_one(step, message)?;
            }
        }
        Ok((next, items.len()))
    }

    pub(crate) fn queue_read(
        &self,
        rows: &(impl View + ?Sized),
        id: SessionId,
        from: Offset,
        items_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Delivery>, StorageError> {
        let Some(session) = self.sessions.get(&id) else { return Ok(Vec::new()) };
        let (from, to) = (from.max(session.counters.head), session.counters.tail);
        if from >= to || items_max == 0 {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        let mut bytes = 0;
        self.visit_items(rows, id, from, to, &mut |offset, row| {
            let item = Item::read(row)?;
            bytes += item.bytes;
            if !found.is_empty() && bytes > bytes_max as u64 {
                return Ok(ControlFlow::Break(()));
            }
            found.push((offset, item, row.clone()));
            let more = found.len() < items_max;
            Ok(if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        found
            .into_iter()
            .map(|(offset, item, row)| {
                let message = match item.shared {
                    None if item.released => Message::empty(),
                    None => item.message(&row)?,
                    Some(number) => {
                        let row = rows.get(&self.keys.message(number))?;
                        let row = row.ok_or_else(|| corrupt("message row", &"it is missing"))?;
                        SharedMessage::from_bytes(&row)?
                    }
                };
                Ok(Delivery {
                    resent: offset < session.row.offered_below,
                    released: item.released,
                    ..Delivery::granted(Some(offset), &item.grant, Arc::new(message))
                })
            })
            .collect()
    }
}

/// The item rows of one message: the same bytes for every queue that gets it with the same QoS.
struct ItemRows {
    /// How many queues get it, if that matters.
    queues: u64,
    /// The message's own row.
    shared: Option<u64>,
    /// Whether more than one session gets it.
    reuse: bool,
    /// For QoS 1 and 2, without RETAIN and with it.
    made: [Option<Bytes>; 4],
}
