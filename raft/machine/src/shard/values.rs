//! Values: attributes, latest values and history of the devices of this shard.
//!
//! ```text
//!   Values (device, part)           a sheet: attributes of one scope, or latest values, all keys in one row
//!   Values (device, TOLD)           up to which version of its shared attributes it was told, if it asks for changes
//!   Values (device, part, time)     a point: what the device said at that time, all keys in one row
//!   History (tenant)                how far the tenant's history goes, its bytes, what is to be kept
//!   HistoryPart (tenant, number)    which points came in one batch; they go together
//!   PointGarbage (device)           that points of a deleted device are still to be removed
//!
//!   attributes.rs  they are written and deleted
//!   record.rs      telemetry comes in
//!   delete.rs      telemetry of some keys goes, piece by piece
//!   expire.rs      what time does: the oldest points go, in pieces; and what deleted devices left
//!   read.rs        what is asked
//!   marks.rs       whether something has changed
//!   (here)         the state, how it is derived from rows, what is written at the end of a batch
//! ```
//!
//! A device's rows are under its birth: one that is made anew begins with nothing, and what the earlier one left goes by `Tick`
//! without being seen.
//!
//! # Invariants
//!
//! - **A point is in one part**: the last one that names it, whose number it has. Another part that names it lets it be.
//!   Checked by `tests/rules/values_model.rs`.
//! - **Bytes of a history are those of its points and parts.** Checked by the same test after each command.
//! - **What memory holds is the row of each history, and the garbage**; checked by `PartialEq` of [`Histories`] wherever
//!   replicas are tested.
//! - **A command writes all or nothing**: what may be refused is looked at first.

mod attributes;
mod delete;
mod expire;
mod marks;
mod read;
mod record;

use std::collections::{BTreeMap, BTreeSet};

use moorline_core::{TenantId, Text, UnixMillis, shard::bucket_of};
use moorline_storage::{Rows, StorageError, View, key::Kind};

pub use self::read::{AggregateQuery, HistoryQuery};
use super::ShardState;
use crate::{
    answer::{Answer, Refused},
    effect::Effect,
    events::{AppendEvent, EventAnswer, Retention},
    keys::{Keys, Place, each},
    rows::{
        NumberRow, Row, corrupt,
        events::StreamRow,
        values::{HistoryPartRow, SheetRow},
    },
    step::Step,
    values::{Part, VALUE_KEY_BYTES_MAX, ValueCommand, ValueRefused, WithEvent},
};

/// What a shard knows of values without reading rows.
#[derive(Debug, PartialEq)]
pub(super) struct Histories {
    keys: Keys,
    known: BTreeMap<TenantId, History>,
    /// Those of which something is to go, by when.
    due: BTreeSet<(UnixMillis, TenantId)>,
    /// Those that changed in this batch.
    dirty: BTreeSet<TenantId>,
    /// Devices that are gone and have points, with their tenants.
    garbage: BTreeMap<Place, TenantId>,
}

/// A tenant's history in this shard: its row is that of a stream, of parts in the place of events.
#[derive(Debug, PartialEq)]
struct History {
    row: StreamRow,
    /// Under which it is in `due`.
    due: Option<UnixMillis>,
    /// Points of this batch that are in no part yet: those of the part that gets the number `row.tail`.
    pending: Vec<(Place, i64)>,
    /// Points of this batch.
    recorded: u32,
}

/// What of histories there is in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HistoryTotals {
    /// Tenants with a history.
    pub histories: u64,
    /// Bytes of the rows of their points and parts.
    pub bytes: u64,
}

impl History {
    fn new(retention: Retention) -> Self {
        let row = StreamRow::new(retention);
        Self { row, due: None, pending: Vec::new(), recorded: 0 }
    }

    /// Puts the points of this batch so far into a part.
    fn end_part<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>, tenant: TenantId) {
        if self.pending.is_empty() {
            return;
        }
        let part = HistoryPartRow { at: step.time, points: std::mem::take(&mut self.pending) };
        if self.row.head == self.row.tail {
            self.row.oldest = step.time;
        }
        let bytes = part.to_bytes();
        self.row.bytes += bytes.len() as u64;
        step.put_fresh(step.keys.history_part(tenant, self.row.tail.0), bytes);
        self.row.tail = self.row.tail.next();
    }

    /// So many bytes less of points.
    fn shrink(&mut self, bytes: usize) -> Result<(), StorageError> {
        let left = self.row.bytes.checked_sub(bytes as u64);
        self.row.bytes = left.ok_or_else(wrong_sum)?;
        Ok(())
    }
}

impl Histories {
    pub(super) fn new(keys: Keys) -> Self {
        Self {
            keys,
            known: BTreeMap::new(),
            due: BTreeSet::new(),
            dirty: BTreeSet::new(),
            garbage: BTreeMap::new(),
        }
    }

    pub(super) fn open(&mut self, rows: &(impl View + ?Sized)) -> Result<(), StorageError> {
        each(rows, &self.keys.range(Kind::History), |mut suffix, row| {
            let tenant = TenantId(suffix.u32()?);
            let row = StreamRow::from_bytes(row)?;
            self.known.insert(tenant, History { row, ..History::new(row.retention) });
            self.refresh_due(tenant);
            Ok(())
        })
    }

    pub(super) fn open_bucket(
        &mut self,
        rows: &(impl View + ?Sized),
        bucket: u16,
    ) -> Result<(), StorageError> {
        each(rows, &self.keys.range_in(bucket, Kind::PointGarbage), |mut suffix, row| {
            let born = suffix.u64()?;
            let tenant = u32::try_from(NumberRow::from_bytes(row)?.0);
            let tenant = tenant.map_err(|error| corrupt("garbage of points", &error))?;
            self.garbage.insert(Place { bucket, born }, TenantId(tenant));
            Ok(())
        })
    }

    /// A history's row may say another time at which something is to go.
    fn refresh_due(&mut self, tenant: TenantId) {
        let history = self.known.get_mut(&tenant).expect("histories stay");
        let due = history.row.due_at();
        if due != history.due {
            history.due.map(|at| self.due.remove(&(at, tenant)));
            self.due.extend(due.map(|at| (at, tenant)));
            history.due = due;
        }
    }

    /// Writes each history that changed, once, with the part that this batch makes.
    pub(super) fn flush<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>) {
        for tenant in std::mem::take(&mut self.dirty) {
            let history = self.known.get_mut(&tenant).expect("histories stay");
            history.end_part(step, tenant);
            step.put(self.keys.history(tenant), history.row.to_bytes());
            let points = std::mem::take(&mut history.recorded);
            if points > 0 {
                step.effects.push(Effect::Recorded { tenant, points });
            }
            self.refresh_due(tenant);
        }
    }

    /// Other retention for a history that gets no more points.
    pub(super) fn retire(&mut self, tenant: TenantId, retention: Retention) {
        if let Some(history) = self.known.get_mut(&tenant)
            && history.row.retention != retention
        {
            history.row.retention = retention;
            self.dirty.insert(tenant);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<UnixMillis> {
        if !self.garbage.is_empty() {
            return Some(UnixMillis(0));
        }
        self.due.first().map(|(at, _)| *at)
    }

    pub(super) fn totals(&self) -> HistoryTotals {
        let bytes = self.known.values().map(|history| history.row.bytes).sum();
        HistoryTotals { histories: self.known.len() as u64, bytes }
    }
}

impl ShardState {
    pub(crate) fn values<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        command: ValueCommand,
    ) -> Result<Answer, StorageError> {
        match command {
            ValueCommand::WriteAttributes(write) => self.write_attributes(step, write),
            ValueCommand::Record(record) => self.record(step, record),
            ValueCommand::Tell(tell) => self.tell_attributes(step, &tell),
            ValueCommand::Delete(delete) => self.delete_series(step, &delete),
        }
    }

    /// The place of a device, if it is there and is the one that is meant.
    pub(super) fn place(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
        born: Option<u64>,
    ) -> Result<Option<Place>, StorageError> {
        let there = self.born(rows, tenant, device)?;
        let there = there.filter(|there| born.is_none_or(|born| born == *there));
        let bucket = bucket_of(tenant, device.as_bytes());
        Ok(there.map(|born| Place { bucket, born }))
    }

    fn sheet(
        &self,
        rows: &(impl View + ?Sized),
        of: Place,
        part: Part,
    ) -> Result<Option<SheetRow>, StorageError> {
        let row = rows.get(&self.keys.sheet(of, part))?;
        row.map(|row| SheetRow::from_bytes(&row)).transpose()
    }

    /// The event that came with values as it is appended, or why it can't be.
    fn event_of(
        &self,
        (tenant, device, born): (TenantId, &Text, u64),
        with: Option<WithEvent>,
    ) -> Result<Option<AppendEvent>, Refused> {
        let Some(WithEvent { event, retention }) = with else { return Ok(None) };
        let (device, born) = (device.clone(), Some(born));
        let append = AppendEvent { tenant, device, born, event, retention };
        match append.refusal().or_else(|| self.streams.refusal(tenant)) {
            Some(why) => Err(why),
            None => Ok(Some(append)),
        }
    }

    /// Appends what [`Self::event_of`] gave.
    fn append_with<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        append: AppendEvent,
    ) -> moorline_core::Offset {
        let answer = self.streams.append(step, append);
        let Answer::Events(EventAnswer::Appended { offset, .. }) = answer else {
            unreachable!("it was looked at before: {answer:?}")
        };
        offset
    }

    /// Values of a device that is deleted go: what is little at once, its points by `Tick`.
    pub(super) fn forget_values<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        device: &Text,
        born: u64,
    ) -> Result<(), StorageError> {
        let of = Place { bucket: bucket_of(tenant, device.as_bytes()), born };
        for part in Part::ALL {
            let key = self.keys.sheet(of, part);
            if step.rows.get(&key)?.is_some() {
                step.delete(key);
            }
        }
        let told = self.keys.told(of);
        if step.rows.get(&told)?.is_some() {
            step.delete(told);
        }
        let (from, to) = self.keys.points(of, i64::MIN, None);
        let mut has_points = false;
        step.rows.scan(&from, &to, &mut |_, _| {
            has_points = true;
            std::ops::ControlFlow::Break(())
        })?;
        if has_points {
            step.put(self.keys.point_garbage(of), NumberRow(u64::from(tenant.0)).to_bytes());
            self.histories.garbage.insert(of, tenant);
        }
        Ok(())
    }

    pub(crate) fn history_totals(&self) -> HistoryTotals {
        self.histories.totals()
    }
}

/// Whether a key can be one.
fn check_key(key: &Text) -> Result<(), ValueRefused> {
    let fits = !key.is_empty() && key.len() <= VALUE_KEY_BYTES_MAX;
    if fits { Ok(()) } else { Err(ValueRefused::Key) }
}

/// Whether a value is not too large.
fn check_value(value: &moorline_core::Value, bytes_max: usize) -> Result<(), ValueRefused> {
    if value.len_bytes() <= bytes_max { Ok(()) } else { Err(ValueRefused::TooLarge) }
}

fn refused(why: ValueRefused) -> Answer {
    Answer::Refused(Refused::Values(why))
}

fn wrong_sum() -> StorageError {
    corrupt("history row", &"it does not fit its points")
}
