//! Telemetry comes in: latest values, points of the history, and an event, all with one command.

use std::collections::BTreeSet;

use bytes::BufMut;
use moorline_core::{TenantId, Text, Value};
use moorline_storage::{Rows, StorageError, View};

use super::{Histories, History, check_key, check_value, refused};
use crate::{
    answer::Answer,
    codec::put_value,
    effect::Effect,
    events::{Retention, STREAM_BYTES_MAX},
    keys::Place,
    rows::{
        Row,
        values::{Entries, Merge, PointRow, SheetRow, merge, number},
    },
    shard::ShardState,
    step::Step,
    values::{
        HISTORIES_PER_SHARD_MAX, POINT_BYTES_MAX, POINTS_PER_COMMAND_MAX, POINTS_PER_PART_MAX,
        Part, Record, RecordRules, SHEET_BYTES_MAX, SHEET_KEYS_MAX, UNTIMED_AHEAD_MS_MAX,
        UNTIMED_BYTES_LOOKED_MAX, UNTIMED_POINTS_LOOKED_MAX, VALUES_PER_COMMAND_MAX, ValueAnswer,
        ValueRefused,
    },
};

/// What an entry of a latest value has beside its key and value, at most.
const LATEST_BYTES: usize = 19;

/// A key with its value.
type Pair<'a> = (&'a Text, &'a Value);

impl Record {
    fn check(&self) -> Result<(), ValueRefused> {
        let values = self.points.iter().map(|point| point.values.len()).sum::<usize>();
        if self.points.len() > POINTS_PER_COMMAND_MAX || values > VALUES_PER_COMMAND_MAX {
            return Err(ValueRefused::TooManyAtOnce);
        }
        let mut values = self.points.iter().flat_map(|point| &point.values);
        values.try_for_each(|(key, value)| {
            check_key(key)?;
            check_value(value, self.rules.value_bytes_max())
        })
    }

    /// The points in order of their times, each time once; each with its keys in order and once.
    fn timed(&self, untimed: i64) -> Vec<(i64, Vec<Pair<'_>>)> {
        let said = self.points.iter().rev().flat_map(|point| {
            let ts_ms = point.ts_ms.unwrap_or(untimed);
            point.values.iter().rev().map(move |(key, value)| (ts_ms, (key, value)))
        });
        let mut said: Vec<(i64, Pair<'_>)> = said.collect();
        said.sort_by_key(|(ts_ms, (key, _))| (*ts_ms, *key));
        // Of the same key the last one said comes first.
        said.dedup_by_key(|(ts_ms, (key, _))| (*ts_ms, *key));
        let points = said.chunk_by(|(a, _), (b, _)| a == b);
        points.map(|said| (said[0].0, said.iter().map(|(_, pair)| *pair).collect())).collect()
    }
}

impl ShardState {
    pub(super) fn record<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        mut record: Record,
    ) -> Result<Answer, StorageError> {
        if let Err(why) = record.check() {
            return Ok(refused(why));
        }
        let (tenant, born) = (record.tenant, record.born);
        let Some(of) = self.place(&*step.rows, tenant, &record.device, Some(born))? else {
            return Ok(refused(ValueRefused::DeviceGone));
        };
        let with = record.event.take();
        let append = match self.event_of((tenant, &record.device, born), with) {
            Ok(append) => append,
            Err(why) => return Ok(Answer::Refused(why)),
        };
        if record.history.is_some() && !self.histories.has_room_for(tenant) {
            return Ok(refused(ValueRefused::TooManyHistories));
        }
        let sheet = self.sheet(&*step.rows, of, Part::Latest)?;
        let newest = sheet.as_ref().map(|sheet| newest_of(sheet.mark));
        let now = i64::try_from(step.time.0).unwrap_or(i64::MAX);
        let untimed = match (record.rules, &sheet) {
            (RecordRules::First, _) | (RecordRules::Second, None) => untimed(now, newest),
            (RecordRules::Second, Some(sheet)) => {
                let from = from_own(now, sheet, &record)?;
                self.free(&*step.rows, of, from, newest_of(sheet.mark))?
            }
        };
        let points = record.timed(untimed);
        if !points.is_empty() {
            if record.history.is_some() && !self.fit(&*step.rows, of, newest, &points)? {
                return Ok(refused(ValueRefused::Full));
            }
            let latest = match latest(&sheet.unwrap_or_default(), newest, &points)? {
                Ok(latest) => latest,
                Err(why) => return Ok(refused(why)),
            };
            step.put(self.keys.sheet(of, Part::Latest), latest);
            step.effects.push(Effect::Values { tenant, device: record.device.clone() });
            if let Some(retention) = record.history {
                let history = self.histories.of(tenant, retention);
                history.keep(step, (tenant, of), newest, &points)?;
            }
        }
        let event = append.map(|append| self.append_with(step, append));
        Ok(Answer::Values(ValueAnswer::Written { at: step.time, version: 0, event }))
    }
}

impl ShardState {
    /// Whether no point gets too large. One that is there already may: it is said again, with other keys.
    fn fit(
        &self,
        rows: &(impl View + ?Sized),
        of: Place,
        newest: Option<i64>,
        points: &[(i64, Vec<Pair<'_>>)],
    ) -> Result<bool, StorageError> {
        for (ts_ms, values) in points {
            let is_new = newest.is_none_or(|newest| *ts_ms > newest);
            let before = if is_new { None } else { rows.get(&self.keys.point(of, *ts_ms))? };
            let before = before.as_ref().map(PointRow::from_bytes).transpose()?;
            let before = before.map(|row| row.entries).unwrap_or_default();
            let mut bytes = before.len() + PointRow::size(values);
            if bytes > POINT_BYTES_MAX && !before.is_empty() {
                bytes = PointRow::merged(0, &before, values)?.len();
            }
            if bytes > POINT_BYTES_MAX {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl ShardState {
    /// The first millisecond from one on in which a device has no point, if it is found soon; or that behind its newest point.
    fn free(
        &self,
        rows: &(impl View + ?Sized),
        of: Place,
        from_ms: i64,
        newest: i64,
    ) -> Result<i64, StorageError> {
        let (mut points, mut bytes) = (UNTIMED_POINTS_LOOKED_MAX, UNTIMED_BYTES_LOOKED_MAX);
        let (mut free, behind) = (from_ms, newest.saturating_add(1));
        if from_ms > newest {
            return Ok(from_ms);
        }
        self.walk(rows, of, (from_ms, behind), &mut |ts_ms, row| {
            if ts_ms > free {
                return Ok(false);
            }
            free = ts_ms.saturating_add(1);
            points -= 1;
            bytes = bytes.saturating_sub(row.len());
            Ok(points > 0 && bytes > 0)
        })?;
        Ok(if points > 0 && bytes > 0 { free } else { behind })
    }
}

/// The mark of a sheet of latest values: times before 1970 are less than those behind it.
fn mark_of(newest: i64) -> u64 {
    newest.cast_unsigned() ^ (1 << 63)
}

pub(super) fn newest_of(mark: u64) -> i64 {
    (mark ^ (1 << 63)).cast_signed()
}

/// The time of what has none of its own: now; or a moment behind the last, so that it is a point of its own.
fn untimed(now: i64, newest: Option<i64>) -> i64 {
    let ahead = newest.filter(|newest| *newest >= now && newest - now < UNTIMED_AHEAD_MS_MAX);
    ahead.map_or(now, |newest| newest + 1)
}

/// The first time of what has none of its own: now; or behind the last value of its own keys, so that what was said later is later.
fn from_own(now: i64, latest: &SheetRow, record: &Record) -> Result<i64, StorageError> {
    let untimed = record.points.iter().filter(|point| point.ts_ms.is_none());
    let keys: BTreeSet<&[u8]> =
        untimed.flat_map(|point| &point.values).map(|(key, _)| key.as_bytes()).collect();
    let mut from_ms = now;
    if keys.is_empty() {
        return Ok(from_ms);
    }
    for entry in Entries::of(&latest.entries) {
        let entry = entry?;
        if keys.contains(entry.key) {
            let last = newest_of(number(entry.rest)?.0);
            if last >= from_ms && last - now <= UNTIMED_AHEAD_MS_MAX {
                from_ms = last + 1;
            }
        }
    }
    Ok(from_ms)
}

/// The sheet of latest values with points in it.
fn latest(
    before: &SheetRow,
    newest: Option<i64>,
    points: &[(i64, Vec<Pair<'_>>)],
) -> Result<Result<bytes::Bytes, ValueRefused>, StorageError> {
    let all = points.iter().flat_map(|(ts_ms, values)| values.iter().map(|pair| (*ts_ms, *pair)));
    let mut all: Vec<(i64, Pair<'_>)> = all.collect();
    if points.len() > 1 {
        // The newest of each key first.
        all.sort_by(|(at, (a, _)), (bt, (b, _))| a.cmp(b).then(bt.cmp(at)));
        all.dedup_by(|(_, (later, _)), (_, (first, _))| later == first);
    }
    let size = |(_, (key, value)): &(i64, Pair<'_>)| LATEST_BYTES + key.len() + value.len_bytes();
    let more = all.iter().map(size).sum::<usize>();
    let mut out = SheetRow::begin(before.entries.len() + more);
    let mut failed = None;
    let changes = all.iter().map(|(ts_ms, (key, value))| (key.as_bytes(), (*ts_ms, *value)));
    let more = merge(&mut out, &before.entries, changes, |out, known, (ts_ms, value)| {
        let known = match known.map(number).transpose() {
            Ok(known) => known,
            Err(error) => {
                failed = Some(error);
                None
            }
        };
        if known.is_some_and(|(mark, _)| mark > mark_of(ts_ms)) {
            return Merge::Keep;
        }
        out.put_u64(mark_of(ts_ms));
        put_value(out, value);
        Merge::Put
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let len = usize::try_from(i64::from(before.len) + more).unwrap_or(usize::MAX);
    if len > SHEET_KEYS_MAX {
        return Ok(Err(ValueRefused::TooManyKeys));
    }
    if SheetRow::written(&out).len() > SHEET_BYTES_MAX {
        return Ok(Err(ValueRefused::Full));
    }
    let newest = points.iter().map(|(ts_ms, _)| *ts_ms).chain(newest).max().unwrap_or(i64::MIN);
    let len = u32::try_from(len).expect("SHEET_KEYS_MAX fits");
    Ok(Ok(SheetRow::finish(out, mark_of(newest), 0, len)))
}

impl Histories {
    fn has_room_for(&self, tenant: TenantId) -> bool {
        self.known.len() < HISTORIES_PER_SHARD_MAX || self.known.contains_key(&tenant)
    }

    /// A tenant's history, which changes now.
    fn of(&mut self, tenant: TenantId, mut retention: Retention) -> &mut History {
        retention.bytes_max = retention.bytes_max.min(STREAM_BYTES_MAX);
        self.dirty.insert(tenant);
        let history = self.known.entry(tenant).or_insert_with(|| History::new(retention));
        history.row.retention = retention;
        history
    }
}

impl History {
    /// Keeps points of a device. What is newer than `newest` has no row yet.
    fn keep<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        (tenant, of): (TenantId, Place),
        mut newest: Option<i64>,
        points: &[(i64, Vec<Pair<'_>>)],
    ) -> Result<(), StorageError> {
        for (ts_ms, values) in points {
            let key = step.keys.point(of, *ts_ms);
            let is_new = newest.is_none_or(|newest| *ts_ms > newest);
            let before = if is_new { None } else { step.rows.get(&key)? };
            newest = newest.max(Some(*ts_ms));
            self.recorded += 1;
            let part = self.row.tail.0;
            let mut is_pending = false;
            let row = match &before {
                None => PointRow::merged(part, &[], values)?,
                Some(before) => {
                    self.shrink(before.len())?;
                    let before = PointRow::from_bytes(before)?;
                    is_pending = before.part == part;
                    PointRow::merged(part, &before.entries, values)?
                }
            };
            self.row.bytes += row.len() as u64;
            if is_new {
                step.put_fresh(key, row);
            } else {
                step.put(key, row);
            }
            if !is_pending {
                self.pending.push((of, *ts_ms));
                if self.pending.len() >= POINTS_PER_PART_MAX {
                    self.end_part(step, tenant);
                }
            }
        }
        Ok(())
    }
}
