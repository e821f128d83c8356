//! What time does to streams: the oldest events go, in pieces, by `Tick`.
//!
//! Retention is kept to a sixteenth ([`RETENTION_SLACK`]), so that a `Tick` has something to do: an event stays until it is
//! that much too old, and a stream that has too many bytes is brought below its limit by as much.

use std::ops::ControlFlow;

use moorline_core::{Offset, TenantId, UnixMillis};
use moorline_storage::{Rows, StorageError};

use super::Streams;
use crate::{
    events::{EVENT_BYTES_PER_TICK_MAX, EVENTS_PER_TICK_MAX, RETENTION_SLACK},
    keys::each_until,
    rows::{
        Row, corrupt,
        events::{EventRow, StreamRow},
    },
    step::Step,
};

impl StreamRow {
    pub(in crate::shard) fn keep_ms(&self) -> u64 {
        u64::from(self.retention.keep_s) * 1_000
    }

    /// When something of it is to go.
    pub(in crate::shard) fn due_at(&self) -> Option<UnixMillis> {
        if self.len() == 0 {
            return None;
        }
        if self.bytes > self.retention.bytes_max {
            return Some(UnixMillis(0));
        }
        let keep_ms = self.keep_ms() + self.keep_ms() / RETENTION_SLACK;
        Some(UnixMillis(self.oldest.0.saturating_add(keep_ms)))
    }
}

/// How much one `Tick` may still remove.
struct Budget {
    events: usize,
    bytes: u64,
}

impl Streams {
    pub(in crate::shard) fn tick<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
    ) -> Result<(), StorageError> {
        let mut budget = Budget { events: EVENTS_PER_TICK_MAX, bytes: EVENT_BYTES_PER_TICK_MAX };
        while let Some(&(at, tenant)) = self.due.first()
            && at <= step.time
            && budget.events > 0
            && budget.bytes > 0
        {
            self.expire(step, tenant, &mut budget)?;
        }
        Ok(())
    }

    /// Removes the oldest events of a stream of which some are due.
    fn expire<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        budget: &mut Budget,
    ) -> Result<(), StorageError> {
        let (keys, time) = (self.keys, step.time);
        let mut row = self.known.get(&tenant).expect("what is due is known").row;
        let before = row.head;
        let (keep_ms, limit) = (row.keep_ms(), row.retention.bytes_max);
        let target = if row.bytes > limit { limit - limit / RETENTION_SLACK } else { u64::MAX };
        let range = (keys.event(tenant, row.head), keys.event(tenant, row.tail));
        row.oldest = UnixMillis(0);
        each_until(&*step.rows, &range, |mut suffix, bytes| {
            suffix.u32()?;
            let EventRow { at, .. } = EventRow::from_bytes(bytes)?;
            if Offset(suffix.u64()?) != row.head {
                return Err(corrupt(EventRow::WHAT, &"an event is missing"));
            }
            let too_old = at.0.saturating_add(keep_ms) <= time.0;
            let goes = (too_old || row.bytes > target) && budget.events > 0 && budget.bytes > 0;
            if !goes {
                row.oldest = at;
                return Ok(ControlFlow::Break(()));
            }
            let len = bytes.len() as u64;
            row.head = row.head.next();
            row.bytes = row.bytes.checked_sub(len).ok_or_else(wrong_sum)?;
            budget.events -= 1;
            budget.bytes = budget.bytes.saturating_sub(len);
            Ok(ControlFlow::Continue(()))
        })?;
        // What is due and not there would come up for ever.
        if row.head == before || (row.len() == 0) != (row.bytes == 0) {
            return Err(wrong_sum());
        }
        for offset in before.0..row.head.0 {
            step.delete(keys.event(tenant, Offset(offset)));
        }
        step.put(keys.stream(tenant), row.to_bytes());
        self.change(tenant, row);
        Ok(())
    }
}

fn wrong_sum() -> StorageError {
    corrupt(StreamRow::WHAT, &"it does not fit its events")
}
