//! Values against naive maps: the same attributes, latest values, points and bytes, whatever comes. So a write is whole, the
//! newest value wins, and nothing goes before its time but with its device.

use std::collections::{BTreeMap, BTreeSet};

use moorline_core::{AttributeScope, TenantId, Text, UnixMillis, Value};
use moorline_machine::{
    Answer, Command, HistoryQuery, ValueAnswer, ValueCommand,
    events::{RETENTION_SLACK, Retention},
    registry::{DeleteDevice, PutDevice},
    values::{DeleteSeries, NewPoint, Record, RecordRules, WriteAttributes},
};
use proptest::prelude::*;

use crate::{harness::*, values::*};

const TENANTS: [TenantId; 2] = [TENANT, TenantId(8)];
const DEVICES: [&str; 2] = ["d", "e"];
const KEYS: [&str; 3] = ["k", "l", "m"];
/// What rows have beside their entries, points and values.
const POINT_BYTES: u64 = 9;
const PART_BYTES: u64 = 13;
const ENTRY_BYTES: u64 = 6 + 1 + 9;
const NAMED_BYTES: u64 = 18;

/// When it begins, in log time.
const START_MS: i64 = 1_000_000;

type Slot = (usize, usize);
type Values = Vec<(usize, i64)>;

#[derive(Debug, Clone)]
enum Do {
    Make(Slot),
    Delete(Slot),
    Write {
        slot: Slot,
        scope: usize,
        changes: Vec<(usize, Option<i64>)>,
    },
    Record {
        slot: Slot,
        rules: RecordRules,
        points: Vec<(Option<i64>, Values)>,
        keep_s: u32,
        bytes_max: u64,
    },
    Erase {
        slot: Slot,
        keys: Vec<usize>,
        range: (i64, i64),
        latest: bool,
    },
    Pass(u64),
    Tick,
    Reopen,
}

fn what() -> impl Strategy<Value = Do> {
    let slot = || (0..TENANTS.len(), 0..DEVICES.len());
    let change = (0..KEYS.len(), prop::option::of(0..9_i64));
    let values = prop::collection::vec((0..KEYS.len(), 0..9_i64), 0..4);
    // Long ago, and about when things happen, as of a clock that is ahead.
    let said =
        prop_oneof![3 => -2..4_i64, 1 => START_MS..START_MS + 4, 1 => START_MS..START_MS + 3_000];
    let point = (prop::option::weighted(0.6, said), values);
    let rules = prop::sample::select(&[RecordRules::First, RecordRules::Second][..]);
    // Up to the times of what has none of its own, too.
    let times = || (-3..4_i64, prop_oneof![-2..5_i64, Just(i64::MAX)]);
    prop_oneof![
        2 => slot().prop_map(Do::Make),
        1 => slot().prop_map(Do::Delete),
        4 => (slot(), 0..3_usize, prop::collection::vec(change, 0..4))
            .prop_map(|(slot, scope, changes)| Do::Write { slot, scope, changes }),
        8 => (slot(), rules, prop::collection::vec(point, 0..4), 0..4_u32, 40..400_u64)
            .prop_map(|(slot, rules, points, keep_s, bytes_max)| Do::Record { slot, rules, points, keep_s, bytes_max }),
        3 => (slot(), prop::collection::vec(0..KEYS.len(), 0..3), times(), any::<bool>())
            .prop_map(|(slot, keys, range, latest)| Do::Erase { slot, keys, range, latest }),
        2 => (0..1_500_u64).prop_map(Do::Pass),
        3 => Just(Do::Tick),
        1 => Just(Do::Reopen),
    ]
}

#[derive(Debug, Default)]
struct Device {
    born: u64,
    attributes: [BTreeMap<usize, (i64, u64)>; 3],
    /// By the number of the write.
    gone: BTreeMap<usize, u64>,
    latest: BTreeMap<usize, (i64, i64)>,
    newest: Option<i64>,
}

#[derive(Debug, Default)]
struct KeptPoint {
    part: u64,
    values: BTreeMap<usize, i64>,
}

impl KeptPoint {
    fn bytes(&self) -> u64 {
        POINT_BYTES + self.values.len() as u64 * ENTRY_BYTES
    }
}

#[derive(Debug, Default)]
struct History {
    points: BTreeMap<(u64, i64), KeptPoint>,
    parts: BTreeMap<u64, (u64, Vec<(u64, i64)>)>,
    next_part: u64,
    keep_ms: u64,
    bytes_max: u64,
}

impl History {
    fn bytes(&self) -> u64 {
        let parts = self.parts.values();
        let named = parts.map(|(_, named)| PART_BYTES + named.len() as u64 * NAMED_BYTES);
        self.points.values().map(KeptPoint::bytes).sum::<u64>() + named.sum::<u64>()
    }

    fn tick(&mut self, now: u64) {
        let Some((_, (oldest, _))) = self.parts.first_key_value() else { return };
        let full = self.bytes() > self.bytes_max;
        if !full && oldest + self.keep_ms + self.keep_ms / RETENTION_SLACK > now {
            return;
        }
        let target = self.bytes_max - self.bytes_max / RETENTION_SLACK;
        while let Some(first) = self.parts.first_entry()
            && (first.get().0 + self.keep_ms <= now || full && self.bytes() > target)
        {
            let (number, (_, named)) = self.parts.pop_first().expect("there is a first");
            self.points.retain(|at, point| point.part != number || !named.contains(at));
        }
    }
}

#[derive(Debug, Default)]
struct Model {
    now: u64,
    devices: BTreeMap<Slot, Device>,
    histories: [History; 2],
    garbage: BTreeSet<(usize, u64)>,
    writes: u64,
}

impl Model {
    fn record(
        &mut self,
        slot: Slot,
        (rules, points): (RecordRules, &[(Option<i64>, Values)]),
        keep_s: u32,
        bytes_max: u64,
    ) {
        let device = self.devices.get_mut(&slot).expect("only for those that are there");
        let now = i64::try_from(self.now).unwrap();
        let history = &mut self.histories[slot.0];
        let points = points.iter().filter(|(_, values)| !values.is_empty());
        let untimed = match rules {
            RecordRules::First => {
                let ahead = device.newest.filter(|newest| *newest >= now && newest - now < 1_000);
                ahead.map_or(now, |newest| newest + 1)
            }
            RecordRules::Second => {
                let untimed = points.clone().filter(|(ts_ms, _)| ts_ms.is_none());
                let keys: BTreeSet<_> =
                    untimed.flat_map(|(_, values)| values).map(|(key, _)| key).collect();
                let last = device.latest.iter().filter(|(key, _)| keys.contains(key));
                let last = last.map(|(_, (at, _))| *at).filter(|at| at - now <= 1_000).max();
                let from = last.map_or(now, |last| now.max(last + 1));
                let taken = |at: &i64| history.points.contains_key(&(device.born, *at));
                (from..).find(|at| !taken(at)).unwrap()
            }
        };
        let mut named = Vec::new();
        for (ts_ms, values) in points {
            let ts_ms = ts_ms.unwrap_or(untimed);
            device.newest = device.newest.max(Some(ts_ms));
            let point = history.points.entry((device.born, ts_ms)).or_default();
            point.part = history.next_part;
            if !named.contains(&(device.born, ts_ms)) {
                named.push((device.born, ts_ms));
            }
            for (key, value) in values {
                point.values.insert(*key, *value);
                let latest = device.latest.entry(*key).or_insert((ts_ms, *value));
                if ts_ms >= latest.0 {
                    *latest = (ts_ms, *value);
                }
            }
        }
        if !named.is_empty() {
            (history.keep_ms, history.bytes_max) = (u64::from(keep_s) * 1_000, bytes_max);
            history.parts.insert(history.next_part, (self.now, named));
            history.next_part += 1;
        }
    }

    fn erase(&mut self, slot: Slot, keys: &[usize], (from, to): (i64, i64), latest: bool) {
        let Some(device) = self.devices.get_mut(&slot) else { return };
        let goes = |key: &usize, at: i64| keys.contains(key) && from <= at && at < to;
        if latest {
            device.latest.retain(|key, (at, _)| !goes(key, *at));
        }
        self.histories[slot.0].points.retain(|(born, at), point| {
            if *born == device.born {
                point.values.retain(|key, _| !goes(key, *at));
            }
            !point.values.is_empty()
        });
    }

    fn apply(&mut self, what: &Do) {
        match what {
            Do::Make(_) | Do::Reopen => {}
            Do::Delete(slot) => {
                let Some(device) = self.devices.remove(slot) else { return };
                self.garbage.insert((slot.0, device.born));
            }
            Do::Write { slot, scope, changes } => {
                self.writes += 1;
                let Some(device) = self.devices.get_mut(slot) else { return };
                let mut last = BTreeMap::new();
                last.extend(changes.iter().copied());
                for (key, value) in last {
                    let known = device.attributes[*scope].remove(&key);
                    if let Some(value) = value {
                        device.attributes[*scope].insert(key, (value, self.writes));
                        if *scope == 1 {
                            device.gone.remove(&key);
                        }
                    } else if known.is_some() && *scope == 1 {
                        device.gone.insert(key, self.writes);
                    }
                }
            }
            Do::Record { slot, rules, points, keep_s, bytes_max } => {
                if self.devices.contains_key(slot) {
                    self.record(*slot, (*rules, points), *keep_s, *bytes_max);
                }
            }
            Do::Erase { slot, keys, range, latest } => self.erase(*slot, keys, *range, *latest),
            Do::Pass(ms) => self.now += ms,
            Do::Tick => {
                self.histories.iter_mut().for_each(|history| history.tick(self.now));
                for (tenant, gone) in std::mem::take(&mut self.garbage) {
                    self.histories[tenant].points.retain(|(born, _), _| *born != gone);
                }
            }
        }
    }

    fn compare(&self, group: &Group, seen: &BTreeMap<Slot, (u64, u64)>) {
        for (slot, device) in &self.devices {
            let (tenant, name) = (TENANTS[slot.0], Text::from(DEVICES[slot.1]));
            self.compare_attributes(group, (tenant, &name), device, seen.get(slot));
            let latest = group.machine.latest(&group.rows, tenant, &name, &[]).unwrap().unwrap();
            assert_eq!(latest.born, device.born);
            let known = device.latest.iter();
            let known: Vec<_> =
                known.map(|(key, (at, value))| (KEYS[*key].into(), *at, long(*value))).collect();
            assert_eq!(latest.values, known);
            let points = &self.histories[slot.0].points;
            let mut known: Vec<(i64, Vec<(Text, Value)>)> = points
                .range((device.born, i64::MIN)..=(device.born, i64::MAX))
                .map(|((_, at), point)| {
                    let values = point.values.iter();
                    (*at, values.map(|(key, value)| (KEYS[*key].into(), long(*value))).collect())
                })
                .collect();
            for (descending, points_max) in [(false, 2), (true, 2)] {
                let device = name.clone();
                let asked = asking(i64::MIN, i64::MAX, descending);
                let found = pages(group, HistoryQuery { tenant, device, points_max, ..asked }).0;
                let found: Vec<_> =
                    found.into_iter().map(|point| (point.ts_ms, point.values)).collect();
                assert_eq!(found, known);
                known.reverse();
            }
        }
        let bytes = self.histories.iter().map(History::bytes).sum::<u64>();
        let rows = group.rows.0.iter();
        let rows = rows.filter(|(key, _)| is_point(key) || key[4] == KIND_PART);
        assert_eq!(rows.map(|(_, row)| row.len() as u64).sum::<u64>(), bytes);
        assert_eq!(group.machine.history_totals().bytes, bytes);
        if self.histories.iter().any(|history| {
            history.parts.first_key_value().is_some_and(|_| history.bytes() > history.bytes_max)
        }) {
            assert_eq!(group.machine.next_deadline(), Some(UnixMillis(0)));
        }
    }

    fn compare_attributes(
        &self,
        group: &Group,
        device: (TenantId, &Text),
        known: &Device,
        seen: Option<&(u64, u64)>,
    ) {
        for (scope, known) in AttributeScope::ALL.into_iter().zip(&known.attributes) {
            let found = group.machine.attributes(&group.rows, device, scope, &[], None);
            let set = found.unwrap().unwrap().set.into_iter();
            let set: Vec<_> = set.map(|one| (one.key, one.value)).collect();
            let known = known.iter().map(|(key, (value, _))| (KEYS[*key].into(), long(*value)));
            assert_eq!(set, known.collect::<Vec<_>>());
        }
        let Some((version, write)) = seen else { return };
        let scope = AttributeScope::Shared;
        let found = group.machine.attributes(&group.rows, device, scope, &[], Some(*version));
        let found = found.unwrap().unwrap();
        let since = known.attributes[1].iter().filter(|(_, (_, at))| at > write);
        let set: Vec<Text> = found.set.into_iter().map(|one| one.key).collect();
        assert_eq!(set, since.map(|(key, _)| KEYS[*key].into()).collect::<Vec<Text>>());
        let since = known.gone.iter().filter(|(_, at)| *at > write);
        assert_eq!(found.gone, since.map(|(key, _)| KEYS[*key].into()).collect::<Vec<Text>>());
    }
}

fn command(what: &Do, born: u64) -> Option<Command> {
    let whose = |slot: &Slot| (TENANTS[slot.0], Text::from(DEVICES[slot.1]));
    let key = |key: &usize| Text::from(KEYS[*key]);
    Some(match what {
        Do::Make(slot) => {
            let (tenant, device) = whose(slot);
            Command::PutDevice(PutDevice {
                tenant,
                device,
                enabled: true,
                credentials: Vec::new(),
                settings: bytes::Bytes::new(),
                if_version: None,
                devices_max: 9,
            })
        }
        Do::Delete(slot) => {
            let (tenant, device) = whose(slot);
            Command::DeleteDevice(DeleteDevice { tenant, device, if_version: None })
        }
        Do::Write { slot, scope, changes } => {
            let (tenant, device) = whose(slot);
            let changes = changes.iter().map(|(k, value)| (key(k), value.map(long))).collect();
            let scope = AttributeScope::ALL[*scope];
            write(WriteAttributes { tenant, device, scope, ..writing(born, changes) })
        }
        Do::Record { slot, rules, points, keep_s, bytes_max } => {
            let (tenant, device) = whose(slot);
            let points = points.iter().map(|(ts_ms, values)| {
                let values = values.iter().map(|(k, value)| (key(k), long(*value))).collect();
                NewPoint { ts_ms: *ts_ms, values }
            });
            let history = Some(Retention { keep_s: *keep_s, bytes_max: *bytes_max });
            let points = points.collect();
            record(Record { tenant, device, rules: *rules, history, ..recording(born, points) })
        }
        Do::Erase { slot, keys, range: (from_ms, to_ms), latest } => {
            let (tenant, device) = whose(slot);
            let (keys, from_ms, to_ms) = (keys.iter().map(key).collect(), *from_ms, *to_ms);
            let latest = *latest;
            let delete = DeleteSeries { tenant, device, born, keys, from_ms, to_ms, latest };
            Command::Values(ValueCommand::Delete(delete))
        }
        Do::Tick => Command::Tick,
        Do::Pass(_) | Do::Reopen => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn values_are_what_naive_maps_hold(whats in prop::collection::vec(what(), 1..80)) {
        let mut group = Group::new(SHARD);
        let mut model = Model { now: group.now, ..Model::default() };
        assert_eq!(i64::try_from(group.now), Ok(START_MS));
        for history in &mut model.histories {
            history.next_part = 1;
        }
        // The version and the number of a write to each device that somebody saw.
        let mut seen = BTreeMap::new();
        for what in &whats {
            let born = match what {
                Do::Write { slot, .. } | Do::Record { slot, .. } | Do::Erase { slot, .. } => {
                    model.devices.get(slot).map_or(1, |device| device.born)
                }
                Do::Make(_) | Do::Delete(_) | Do::Pass(_) | Do::Tick | Do::Reopen => 0,
            };
            model.apply(what);
            group.now = model.now;
            if let Some(command) = command(what, born) {
                let answer = group.one(command);
                match (what, answer) {
                    (Do::Make(slot), Answer::Device { born, .. }) => {
                        let device = model.devices.entry(*slot).or_default();
                        prop_assert!(device.born == 0 || device.born == born);
                        device.born = born;
                    }
                    (Do::Delete(slot), _) => drop(seen.remove(slot)),
                    (Do::Write { slot, scope: 1, .. }, Answer::Values(written)) => {
                        let ValueAnswer::Written { version, .. } = written else {
                            panic!("{written:?}")
                        };
                        if model.writes.is_multiple_of(3) {
                            seen.insert(*slot, (version, model.writes));
                        }
                    }
                    _ => {}
                }
            } else if matches!(what, Do::Reopen) {
                group.reopen();
            }
            model.compare(&group, &seen);
        }
    }
}
