//! What time does to histories: the oldest points go, in pieces, by `Tick`; and what deleted devices left.
//!
//! Points go by when they came, not by the time they name: a device whose clock is wrong neither loses what it says at once nor
//! keeps it for ever. Retention is kept to a sixteenth, as that of streams is.

use std::ops::ControlFlow;

use bytes::Bytes;
use moorline_core::{Offset, TenantId, UnixMillis};
use moorline_storage::{Rows, StorageError};

use super::{Histories, wrong_sum};
use crate::{
    events::RETENTION_SLACK,
    rows::{
        Row, corrupt,
        values::{HistoryPartRow, PointRow},
    },
    step::Step,
    values::{POINT_GARBAGE_PER_TICK_MAX, POINTS_PER_TICK_MAX},
};

impl Histories {
    pub(in crate::shard) fn tick<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
    ) -> Result<(), StorageError> {
        let mut budget = POINTS_PER_TICK_MAX;
        while let Some(&(at, tenant)) = self.due.first()
            && at <= step.time
            && budget > 0
        {
            // A command of this batch may have made room in it, or may have it kept for longer.
            self.refresh_due(tenant);
            if self.due.contains(&(at, tenant)) {
                self.expire(step, tenant, &mut budget)?;
            }
        }
        self.collect_garbage(step)
    }

    fn part<R: Rows + ?Sized>(
        &self,
        step: &Step<'_, R>,
        tenant: TenantId,
        number: Offset,
    ) -> Result<(HistoryPartRow, usize), StorageError> {
        let row = step.rows.get(&self.keys.history_part(tenant, number.0))?;
        let row = row.ok_or_else(|| corrupt(HistoryPartRow::WHAT, &"it is missing"))?;
        Ok((HistoryPartRow::from_bytes(&row)?, row.len()))
    }

    /// Removes the oldest parts of a history of which some are due.
    fn expire<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        budget: &mut usize,
    ) -> Result<(), StorageError> {
        let mut row = self.known.get(&tenant).expect("what is due is known").row;
        let (before, keep_ms, limit) = (row.head, row.keep_ms(), row.retention.bytes_max);
        let target = if row.bytes > limit { limit - limit / RETENTION_SLACK } else { u64::MAX };
        row.oldest = UnixMillis(0);
        while row.head < row.tail {
            let (part, len) = self.part(step, tenant, row.head)?;
            let too_old = part.at.0.saturating_add(keep_ms) <= step.time.0;
            if *budget == 0 || !too_old && row.bytes <= target {
                row.oldest = part.at;
                break;
            }
            let mut gone = len;
            for (of, ts_ms) in &part.points {
                let key = self.keys.point(*of, *ts_ms);
                let Some(point) = step.rows.get(&key)? else { continue };
                // A later part has it otherwise.
                if PointRow::from_bytes(&point)?.part == row.head.0 {
                    gone += point.len();
                    step.delete(key);
                }
            }
            step.delete(self.keys.history_part(tenant, row.head.0));
            row.bytes = row.bytes.checked_sub(gone as u64).ok_or_else(wrong_sum)?;
            row.head = row.head.next();
            *budget = budget.saturating_sub(part.points.len().max(1));
        }
        // What is due and not there would come up for ever.
        if row.head == before {
            return Err(wrong_sum());
        }
        self.known.get_mut(&tenant).expect("it was there").row = row;
        self.dirty.insert(tenant);
        self.refresh_due(tenant);
        Ok(())
    }

    fn collect_garbage<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
    ) -> Result<(), StorageError> {
        let mut budget = POINT_GARBAGE_PER_TICK_MAX;
        while let (Some((&of, &tenant)), true) = (self.garbage.first_key_value(), budget > 0) {
            let (from, to) = self.keys.points(of, i64::MIN, None);
            let (mut keys, mut bytes) = (Vec::new(), 0);
            step.rows.scan(&from, &to, &mut |key, row| {
                keys.push(Bytes::copy_from_slice(key));
                bytes += row.len();
                if keys.len() < budget { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            if keys.len() < budget {
                self.garbage.remove(&of);
                step.delete(self.keys.point_garbage(of));
            }
            // A device without points counts too, so that many of them end.
            budget -= keys.len().max(1);
            keys.into_iter().for_each(|key| step.delete(key));
            if bytes > 0 {
                let history = self.known.get_mut(&tenant).ok_or_else(wrong_sum)?;
                history.shrink(bytes)?;
                self.dirty.insert(tenant);
            }
        }
        Ok(())
    }
}
