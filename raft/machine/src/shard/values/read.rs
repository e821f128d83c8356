//! What is asked of values. Nothing here changes anything, and no question reads more than its limits.
//!
//! Rows are read forwards only. Where the newest points come first, windows of time are read one before the other: each four
//! times as long as the one behind it as long as they are nearly empty, and shorter when one has too many points.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use bytes::Bytes;
use moorline_core::{AttributeScope, TenantId, Text};
use moorline_storage::{StorageError, View};

use super::record::newest_of;
use crate::{
    keys::{Place, each_until},
    rows::{
        Row,
        values::{Entries, PointRow, SheetRow, Stamp, key_text, number, value_of},
    },
    shard::ShardState,
    values::{
        AggregatePage, Attribute, Attributes, HistoryPage, INTERVALS_PER_PAGE_MAX,
        KEYS_PER_QUESTION_MAX, Latest, POINTS_PAGE_BYTES_MAX, POINTS_PER_QUESTION_MAX, Part, Point,
        aggregate::{Taken, interval_start},
    },
};

/// Points of one window of time, at most: where there are more, a shorter one is read.
const WINDOW_POINTS_MAX: usize = 256;
/// A window with less is followed by a longer one.
const WINDOW_POINTS_FEW: usize = 32;
/// By how much windows get longer and shorter.
const WINDOW_FACTOR: u64 = 4;
/// Windows of one question: a seek each.
const WINDOWS_MAX: usize = 256;

/// Which points are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Whose device.
    pub tenant: TenantId,
    /// Which.
    pub device: Text,
    /// Only values of these keys, and points that have one of them; none: all.
    pub keys: Vec<Text>,
    /// The first time.
    pub from_ms: i64,
    /// The first time behind it.
    pub to_ms: i64,
    /// Whether the newest come first.
    pub descending: bool,
    /// How many points at most; [`POINTS_PER_QUESTION_MAX`] in any case.
    pub points_max: u16,
}

/// Which values are to be taken together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateQuery {
    /// Whose device.
    pub tenant: TenantId,
    /// Which.
    pub device: Text,
    /// Of which keys; none: of all.
    pub keys: Vec<Text>,
    /// Where the first interval starts.
    pub start_ms: i64,
    /// From here on: the same, or where the page before says.
    pub from_ms: i64,
    /// The first time behind it.
    pub to_ms: i64,
    /// How long an interval is; 0: there is only one.
    pub interval_ms: u64,
}

/// The keys a question is about; all if it names none.
struct Wanted<'a>(BTreeSet<&'a [u8]>);

impl<'a> Wanted<'a> {
    fn of(keys: &'a [Text]) -> Self {
        Self(keys.iter().take(KEYS_PER_QUESTION_MAX).map(Text::as_bytes).collect())
    }

    fn has(&self, key: &[u8]) -> bool {
        self.0.is_empty() || self.0.contains(key)
    }

    fn values(&self, row: &Bytes) -> Result<Vec<(Text, moorline_core::Value)>, StorageError> {
        let row = PointRow::from_bytes(row)?;
        let mut values = Vec::new();
        for entry in Entries::of(&row.entries) {
            let entry = entry?;
            if self.has(entry.key) {
                values.push((key_text(entry.key)?, value_of(entry.rest)?));
            }
        }
        Ok(values)
    }
}

/// What a question may still look at.
struct Budget {
    points: usize,
    bytes: usize,
}

impl Budget {
    fn new() -> Self {
        Self { points: POINTS_PER_QUESTION_MAX, bytes: POINTS_PAGE_BYTES_MAX }
    }

    fn is_spent(&self) -> bool {
        self.points == 0 || self.bytes == 0
    }

    fn spend(&mut self, row: &Bytes) {
        self.points = self.points.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(row.len());
    }
}

impl ShardState {
    pub(crate) fn attributes(
        &self,
        rows: &(impl View + ?Sized),
        (tenant, device): (TenantId, &Text),
        scope: AttributeScope,
        keys: &[Text],
        since: Option<u64>,
    ) -> Result<Option<Attributes>, StorageError> {
        let Some(of) = self.place(rows, tenant, device, None)? else { return Ok(None) };
        let sheet = self.sheet(rows, of, Part::Attributes(scope))?.unwrap_or_default();
        let SheetRow { mark: version, forgotten, entries, .. } = sheet;
        let is_told = scope == AttributeScope::Shared;
        let told = if is_told { self.told(rows, of)? } else { None };
        let (set, gone) = (Vec::new(), Vec::new());
        let mut found = Attributes { born: of.born, version, forgotten, told, set, gone };
        let wanted = Wanted::of(keys);
        for entry in Entries::of(&entries) {
            let entry = entry?;
            let (stamp, value) = Stamp::split(entry.rest)?;
            if !wanted.has(entry.key) || since.is_some_and(|since| stamp.version <= since) {
                continue;
            }
            let key = key_text(entry.key)?;
            match value {
                Some(value) => {
                    found.set.push(Attribute { key, value: value_of(value)?, at: stamp.at });
                }
                None if since.is_some() => found.gone.push(key),
                None => {}
            }
        }
        Ok(Some(found))
    }

    pub(crate) fn latest(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
        keys: &[Text],
    ) -> Result<Option<Latest>, StorageError> {
        let Some(of) = self.place(rows, tenant, device, None)? else { return Ok(None) };
        let sheet = self.sheet(rows, of, Part::Latest)?.unwrap_or_default();
        let (wanted, mut values) = (Wanted::of(keys), Vec::new());
        for entry in Entries::of(&sheet.entries) {
            let entry = entry?;
            if wanted.has(entry.key) {
                let (mark, value) = number(entry.rest)?;
                values.push((key_text(entry.key)?, newest_of(mark), value_of(value)?));
            }
        }
        Ok(Some(Latest { born: of.born, values }))
    }

    pub(crate) fn history(
        &self,
        rows: &(impl View + ?Sized),
        query: &HistoryQuery,
    ) -> Result<Option<HistoryPage>, StorageError> {
        let Some(of) = self.place(rows, query.tenant, &query.device, None)? else {
            return Ok(None);
        };
        if query.from_ms >= query.to_ms || query.points_max == 0 {
            return Ok(Some(HistoryPage::default()));
        }
        let page = if query.descending {
            self.newest_first(rows, of, query)
        } else {
            self.oldest_first(rows, of, query)
        };
        page.map(Some)
    }

    /// Visits points in order of time until `visit` says that there is no room for the next: which that is.
    pub(super) fn walk(
        &self,
        rows: &(impl View + ?Sized),
        of: Place,
        (from_ms, to_ms): (i64, i64),
        visit: &mut dyn FnMut(i64, &Bytes) -> Result<bool, StorageError>,
    ) -> Result<Option<i64>, StorageError> {
        let mut next = None;
        each_until(rows, &self.keys.points(of, from_ms, Some(to_ms)), |suffix, row| {
            let (_, ts_ms) = suffix.point()?;
            if visit(ts_ms, row)? {
                return Ok(ControlFlow::Continue(()));
            }
            next = Some(ts_ms);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(next)
    }

    fn oldest_first(
        &self,
        rows: &(impl View + ?Sized),
        of: Place,
        query: &HistoryQuery,
    ) -> Result<HistoryPage, StorageError> {
        let (wanted, mut budget) = (Wanted::of(&query.keys), Budget::new());
        let (mut points, points_max) = (Vec::new(), usize::from(query.points_max));
        let next = self.walk(rows, of, (query.from_ms, query.to_ms), &mut |ts_ms, row| {
            if budget.is_spent() || points.len() >= points_max {
                return Ok(false);
            }
            budget.spend(row);
            let values = wanted.values(row)?;
            if !values.is_empty() {
                points.push(Point { ts_ms, values });
            }
            Ok(true)
        })?;
        Ok(HistoryPage { points, next })
    }

    fn newest_first(
        &self,
        rows: &(impl View + ?Sized),
        of: Place,
        query: &HistoryQuery,
    ) -> Result<HistoryPage, StorageError> {
        let (wanted, mut budget) = (Wanted::of(&query.keys), Budget::new());
        let mut page = HistoryPage::default();
        let Some(sheet) = self.sheet(rows, of, Part::Latest)? else { return Ok(page) };
        let mut upper = query.to_ms.min(newest_of(sheet.mark).saturating_add(1));
        let mut length = 1;
        for _ in 0..WINDOWS_MAX {
            if upper <= query.from_ms {
                return Ok(page);
            }
            let lower = upper.saturating_sub_unsigned(length).max(query.from_ms);
            let mut window = Vec::new();
            let more = self.walk(rows, of, (lower, upper), &mut |ts_ms, row| {
                let has_room = window.len() < WINDOW_POINTS_MAX;
                if has_room {
                    window.push((ts_ms, row.clone()));
                }
                Ok(has_room)
            })?;
            if more.is_some() {
                length /= WINDOW_FACTOR;
                continue;
            }
            if window.len() < WINDOW_POINTS_FEW {
                length = length.saturating_mul(WINDOW_FACTOR);
            }
            for (ts_ms, row) in window.iter().rev() {
                if budget.is_spent() || page.points.len() >= usize::from(query.points_max) {
                    page.next = Some(ts_ms.saturating_add(1));
                    return Ok(page);
                }
                budget.spend(row);
                let values = wanted.values(row)?;
                if !values.is_empty() {
                    page.points.push(Point { ts_ms: *ts_ms, values });
                }
            }
            upper = lower;
        }
        page.next = Some(upper);
        Ok(page)
    }

    pub(crate) fn aggregate(
        &self,
        rows: &(impl View + ?Sized),
        query: &AggregateQuery,
    ) -> Result<Option<AggregatePage>, StorageError> {
        let Some(of) = self.place(rows, query.tenant, &query.device, None)? else {
            return Ok(None);
        };
        let from_ms = query.from_ms.max(query.start_ms);
        if from_ms >= query.to_ms {
            return Ok(Some(AggregatePage::default()));
        }
        let (wanted, mut budget) = (Wanted::of(&query.keys), Budget::new());
        let (mut intervals, mut bytes) = (0, 0);
        let mut series: BTreeMap<Vec<u8>, Vec<(i64, Taken)>> = BTreeMap::new();
        let next = self.walk(rows, of, (from_ms, query.to_ms), &mut |ts_ms, row| {
            let is_full = intervals >= INTERVALS_PER_PAGE_MAX || bytes >= POINTS_PAGE_BYTES_MAX;
            if budget.is_spent() || is_full {
                return Ok(false);
            }
            budget.spend(row);
            let start = interval_start(query.start_ms, query.interval_ms, ts_ms);
            let row = PointRow::from_bytes(row)?;
            for entry in Entries::of(&row.entries) {
                let entry = entry?;
                if !wanted.has(entry.key) {
                    continue;
                }
                let value = value_of(entry.rest)?;
                let known = match series.get_mut(entry.key) {
                    Some(known) => known,
                    None => series.entry(entry.key.to_vec()).or_default(),
                };
                if known.last().is_none_or(|(last, _)| *last != start) {
                    intervals += 1;
                    known.push((start, Taken::default()));
                }
                // The least and the greatest may be texts.
                bytes += value.len_bytes();
                known.last_mut().expect("it was just pushed").1.add(&value);
            }
            Ok(true)
        })?;
        let series = series.into_iter().map(|(key, intervals)| Ok((key_text(&key)?, intervals)));
        Ok(Some(AggregatePage { series: series.collect::<Result<_, StorageError>>()?, next }))
    }
}
