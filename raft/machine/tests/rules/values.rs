//! Attributes, latest values and history: who may write what, what is refused, and how it is read.

use bytes::Bytes;
use moorline_core::{AttributeScope, Double, Offset, Text, UnixMillis, Value};
use moorline_machine::{
    AggregateQuery, Answer, Command, Effect, EventRefused, HistoryQuery, Refused, ValueAnswer,
    ValueCommand, ValueRefused,
    events::{EVENT_BODY_BYTES_MAX, EventKind, NewEvent, Retention},
    forget::{Forget, whole},
    query::{Found, Query},
    values::{
        ATTRIBUTES_GONE_KEPT, ATTRIBUTES_PER_COMMAND_MAX, AttributesChanged, LONG_VALUE_BYTES_MAX,
        Marks, NewPoint, POINT_GARBAGE_PER_TICK_MAX, POINTS_PER_COMMAND_MAX, POINTS_PER_PART_MAX,
        POINTS_PER_QUESTION_MAX, POINTS_PER_TICK_MAX, Point, Record, RecordRules, SHEET_BYTES_MAX,
        SHEET_KEYS_MAX, TellAttributes, UNTIMED_POINTS_LOOKED_MAX, VALUE_BYTES_MAX,
        VALUE_KEY_BYTES_MAX, VALUES_PER_COMMAND_MAX, WithEvent, WriteAttributes,
        aggregate::{Aggregation, Taken},
    },
};

use crate::{
    devices::{delete_plain, put_plain},
    events,
    harness::*,
};

const KIND_VALUES: u8 = 90;
pub(crate) const KIND_PART: u8 = 92;
const KIND_GARBAGE: u8 = 93;
/// What a point's key has behind its birth.
const POINTS: u8 = 4;
pub(crate) const KEEP_ALL: Retention = Retention { keep_s: u32::MAX, bytes_max: u64::MAX };
const SHARED: AttributeScope = AttributeScope::Shared;

/// Whether a key is a point's.
pub(crate) fn is_point(key: &Bytes) -> bool {
    key[4] == KIND_VALUES && key[13] == POINTS
}

pub(crate) fn points_kept(group: &Group) -> usize {
    group.rows.0.keys().filter(|key| is_point(key)).count()
}

fn sheets(group: &Group) -> usize {
    group.rows.count(KIND_VALUES) - points_kept(group)
}

pub(crate) fn long(value: i64) -> Value {
    Value::Long(value)
}

fn text(bytes: usize) -> Text {
    Text::from("x".repeat(bytes).as_str())
}

pub(crate) fn writing(born: u64, changes: Vec<(Text, Option<Value>)>) -> WriteAttributes {
    let device = "d".into();
    WriteAttributes { tenant: TENANT, device, born, scope: SHARED, changes, event: None }
}

pub(crate) fn write(write: WriteAttributes) -> Command {
    Command::Values(ValueCommand::WriteAttributes(write))
}

pub(crate) fn recording(born: u64, points: Vec<NewPoint>) -> Record {
    let (device, rules, history) = ("d".into(), RecordRules::First, Some(KEEP_ALL));
    Record { tenant: TENANT, device, born, rules, points, history, event: None }
}

pub(crate) fn record(record: Record) -> Command {
    Command::Values(ValueCommand::Record(record))
}

pub(crate) fn point(ts_ms: impl Into<Option<i64>>, values: &[(&str, i64)]) -> NewPoint {
    let values = values.iter().map(|(key, value)| ((*key).into(), long(*value)));
    NewPoint { ts_ms: ts_ms.into(), values: values.collect() }
}

fn set(key: &str, value: i64) -> (Text, Option<Value>) {
    (key.into(), Some(long(value)))
}

fn gone(key: &str) -> (Text, Option<Value>) {
    (key.into(), None)
}

pub(crate) fn refused(why: ValueRefused) -> Answer {
    Answer::Refused(Refused::Values(why))
}

/// A group with the device `d`: its birth.
pub(crate) fn with_device() -> (Group, u64) {
    let mut group = Group::new(SHARD);
    let born = make(&mut group);
    (group, born)
}

fn make(group: &mut Group) -> u64 {
    let answer = group.one(put_plain("d"));
    let Answer::Device { born, .. } = answer else { panic!("{answer:?}") };
    born
}

fn version_of(answer: &Answer) -> u64 {
    let Answer::Values(ValueAnswer::Written { version, .. }) = answer else { panic!("{answer:?}") };
    *version
}

fn event() -> WithEvent {
    let event = NewEvent {
        kind: EventKind::Datapoint,
        channel: "c".into(),
        content_type: 1,
        body: Bytes::from_static(b"{}"),
        by: 3,
    };
    WithEvent { event, retention: KEEP_ALL }
}

/// Keys and numbers of attributes; deleted ones since `since`.
fn attributes(
    group: &Group,
    scope: AttributeScope,
    since: Option<u64>,
) -> (Vec<(String, Value)>, Vec<String>) {
    let device = (TENANT, &"d".into());
    let found = group.machine.attributes(&group.rows, device, scope, &[], since);
    let found = found.unwrap().expect("it is there");
    let set = found.set.into_iter().map(|one| (one.key.to_string(), one.value)).collect();
    (set, found.gone.iter().map(ToString::to_string).collect())
}

pub(crate) fn latest(group: &Group) -> Vec<(String, i64, Value)> {
    let found = group.machine.latest(&group.rows, TENANT, &"d".into(), &[]).unwrap();
    let values = found.expect("it is there").values.into_iter();
    values.map(|(key, ts_ms, value)| (key.to_string(), ts_ms, value)).collect()
}

pub(crate) fn asking(from_ms: i64, to_ms: i64, descending: bool) -> HistoryQuery {
    let (device, keys) = ("d".into(), Vec::new());
    HistoryQuery { tenant: TENANT, device, keys, from_ms, to_ms, descending, points_max: u16::MAX }
}

/// A history, page by page, and how many pages that took.
pub(crate) fn pages(group: &Group, mut query: HistoryQuery) -> (Vec<Point>, usize) {
    let (mut points, mut count) = (Vec::new(), 0);
    loop {
        let page = group.machine.history(&group.rows, &query).unwrap().expect("it is there");
        points.extend(page.points);
        count += 1;
        match page.next {
            None => return (points, count),
            Some(next) if query.descending => query.to_ms = next,
            Some(next) => query.from_ms = next,
        }
    }
}

pub(crate) fn times(group: &Group, descending: bool) -> Vec<i64> {
    let points = pages(group, asking(i64::MIN, i64::MAX, descending)).0;
    points.into_iter().map(|point| point.ts_ms).collect()
}

#[test]
fn attributes_are_written_together_and_read_by_key() {
    let (mut group, born) = with_device();
    let all = vec![set("b", 2), set("a", 1), set("b", 3), gone("c")];
    let answer = group.one(write(writing(born, all)));
    let version = version_of(&answer);
    let at = UnixMillis(group.now);
    assert_eq!(answer, Answer::Values(ValueAnswer::Written { at, version, event: None }));
    let changes = vec![set("a", 1), set("b", 3)];
    let changed = AttributesChanged { tenant: TENANT, device: "d".into(), born, version, changes };
    assert_eq!(group.effects, [Effect::Attributes(Box::new(changed))]);
    let expected = vec![("a".to_owned(), long(1)), ("b".to_owned(), long(3))];
    assert_eq!(attributes(&group, SHARED, None), (expected, vec![]));
    assert_eq!(attributes(&group, AttributeScope::Client, None), (vec![], vec![]));

    let (tenant, device, scope) = (TENANT, || Text::from("d"), SHARED);
    let keys = vec!["b".into(), "z".into()];
    let query = Query::Attributes { tenant, device: device(), scope, keys, since: None };
    let Found::Attributes(Some(found)) = group.machine.query(&group.rows, &query).unwrap() else {
        panic!()
    };
    assert_eq!((found.born, found.version, found.set.len()), (born, version, 1));
    assert_eq!(found.set[0].at, at);
    let query = Query::Latest { tenant, device: "e".into(), keys: Vec::new() };
    assert_eq!(group.machine.query(&group.rows, &query).unwrap(), Found::Latest(None));
}

#[test]
fn who_has_seen_a_version_is_told_what_was_set_and_deleted_since() {
    let (mut group, born) = with_device();
    let first = version_of(&group.one(write(writing(born, vec![set("a", 1), set("b", 1)]))));
    let second = version_of(&group.one(write(writing(born, vec![gone("a"), set("c", 1)]))));
    assert!(first < second);
    let set_of = |keys: &[&str]| keys.iter().map(|key| ((*key).to_owned(), long(1))).collect();
    assert_eq!(attributes(&group, SHARED, Some(first)), (set_of(&["c"]), vec!["a".into()]));
    assert_eq!(attributes(&group, SHARED, Some(second)), (vec![], vec![]));
    assert_eq!(attributes(&group, SHARED, None), (set_of(&["b", "c"]), vec![]));
    group.one(write(writing(born, vec![gone("a"), gone("z")])));
    assert_eq!(group.effects, [], "nothing of that was there");
    group.one(write(writing(born, vec![set("b", 1)])));
    assert_eq!(group.effects.len(), 1, "the same value again is news");
    group.one(write(writing(born, vec![set("a", 1)])));
    assert_eq!(attributes(&group, SHARED, Some(second)), (set_of(&["a", "b"]), vec![]));
}

#[test]
fn what_a_device_was_told_of_is_remembered_until_it_is_deleted() {
    let (mut group, born) = with_device();
    let tell = |born, version| {
        let tell = TellAttributes { tenant: TENANT, device: "d".into(), born, version };
        Command::Values(ValueCommand::Tell(tell))
    };
    let told = |group: &Group, scope| {
        let device = (TENANT, &"d".into());
        group.machine.attributes(&group.rows, device, scope, &[], None).unwrap().unwrap().told
    };
    assert_eq!(told(&group, SHARED), None, "it never asked");
    let rows = group.rows.0.len();
    assert_eq!(version_of(&group.one(tell(born, 7))), 7);
    assert_eq!(version_of(&group.one(tell(born, 5))), 7, "an earlier one came late");
    assert_eq!((told(&group, SHARED), told(&group, AttributeScope::Client)), (Some(7), None));
    assert_eq!(group.one(tell(born + 1, 9)), refused(ValueRefused::DeviceGone));
    assert_eq!(group.rows.0.len(), rows + 1);
    group.one(delete_plain("d"));
    assert_eq!(group.rows.count(KIND_VALUES), 0);
}

#[test]
fn so_many_deletions_are_remembered_and_then_it_is_said_that_some_are_not() {
    let (mut group, born) = with_device();
    let of = |range: std::ops::Range<usize>, set: bool| -> Vec<(Text, Option<Value>)> {
        range.map(|n| (format!("k{n:05}").into(), set.then(|| long(1)))).collect()
    };
    let most = ATTRIBUTES_GONE_KEPT;
    let begun = version_of(&group.one(write(writing(born, of(0..most, true)))));
    let deleted = version_of(&group.one(write(writing(born, of(0..most, false)))));
    assert_eq!(attributes(&group, SHARED, Some(begun)).1.len(), most, "one command's are told");
    group.one(write(writing(born, of(most..most + 3, true))));
    group.one(write(writing(born, of(most..most + 3, false))));
    assert_eq!(attributes(&group, SHARED, Some(begun)).1.len(), most);
    let device = (TENANT, &"d".into());
    let found = group.machine.attributes(&group.rows, device, SHARED, &[], Some(begun)).unwrap();
    let found = found.unwrap();
    assert_eq!((found.forgotten, found.set.len()), (deleted, 0));
    // Of other scopes nothing has to be told.
    let scope = AttributeScope::Server;
    group.one(write(WriteAttributes { scope, ..writing(born, of(0..2, true)) }));
    group.one(write(WriteAttributes { scope, ..writing(born, of(0..2, false)) }));
    // Who looks at the device's values hears that they changed, as of every write.
    assert_eq!(group.effects, [Effect::Values { tenant: TENANT, device: "d".into() }]);
    assert_eq!(sheets(&group), 1, "nothing is left of it");
}

#[test]
fn values_are_of_one_device_and_go_with_it() {
    let (mut group, born) = with_device();
    let written = |born| write(writing(born, vec![set("a", 1)]));
    let recorded = |born| record(recording(born, vec![point(5, &[("t", 1)])]));
    let gone = refused(ValueRefused::DeviceGone);
    for wrong in [0, born + 1] {
        assert_eq!(group.batch(&[written(wrong), recorded(wrong)]), [gone.clone(), gone.clone()]);
    }
    group.batch(&[written(born), recorded(born)]);
    assert_eq!((sheets(&group), points_kept(&group)), (2, 1));
    group.one(delete_plain("d"));
    assert_eq!((sheets(&group), group.rows.count(KIND_GARBAGE)), (0, 1));
    assert_eq!(group.one(written(born)), gone);
    assert_eq!(group.machine.latest(&group.rows, TENANT, &"d".into(), &[]).unwrap(), None);
    let again = make(&mut group);
    assert_eq!((latest(&group), times(&group, false)), (vec![], vec![]), "it begins anew");
    assert_eq!(group.one(recorded(born)), gone, "another one of its name");
    group.one(recorded(again));
    group.reopen();
    assert_eq!(group.machine.next_deadline(), Some(UnixMillis(0)));
    group.one(Command::Tick);
    assert_eq!((points_kept(&group), group.rows.count(KIND_GARBAGE)), (1, 0));
    assert_eq!(times(&group, false), [5]);
}

#[test]
fn what_a_device_that_is_gone_left_goes_in_pieces() {
    let (mut group, born) = with_device();
    group.unchecked = true;
    let mut ts_ms = 0;
    let points = |ts_ms: &mut i64| -> Vec<NewPoint> {
        let points = (0..POINTS_PER_COMMAND_MAX).map(|_| {
            *ts_ms += 1;
            point(*ts_ms, &[("t", 1)])
        });
        points.collect()
    };
    for _ in 0..=POINT_GARBAGE_PER_TICK_MAX / POINTS_PER_COMMAND_MAX {
        group.one(record(recording(born, points(&mut ts_ms))));
    }
    let before = points_kept(&group);
    group.one(delete_plain("d"));
    group.one(Command::Tick);
    assert_eq!(points_kept(&group), before - POINT_GARBAGE_PER_TICK_MAX);
    group.reopen();
    group.one(Command::Tick);
    assert_eq!((points_kept(&group), group.rows.count(KIND_GARBAGE)), (0, 0));
    group.one(Command::Forget(Forget { owners: vec![whole(TENANT)] }));
    group.one(Command::Tick);
    assert_eq!((group.rows.count(KIND_PART), group.machine.history_totals().bytes), (0, 0));
    group.check();
}

#[test]
fn the_newest_value_of_a_key_is_the_latest() {
    let (mut group, born) = with_device();
    group.one(record(recording(born, vec![point(10, &[("a", 1), ("b", 1)])])));
    group.one(record(recording(born, vec![point(5, &[("a", 2), ("c", 2)])])));
    let of = |key: &str, ts_ms, value| (key.to_owned(), ts_ms, long(value));
    assert_eq!(latest(&group), [of("a", 10, 1), of("b", 10, 1), of("c", 5, 2)]);
    group.one(record(recording(born, vec![point(10, &[("a", 3), ("a", 4)])])));
    assert_eq!(latest(&group)[0], of("a", 10, 4), "of the same time the last one said");
    let several = vec![point(12, &[("a", 5)]), point(11, &[("a", 6), ("d", 6)])];
    group.one(record(recording(born, several)));
    assert_eq!(latest(&group)[0], of("a", 12, 5));
    let points = pages(&group, asking(i64::MIN, i64::MAX, false)).0;
    let ten = points.iter().find(|point| point.ts_ms == 10).unwrap();
    assert_eq!(ten.values, [("a".into(), long(4)), ("b".into(), long(1))], "one point");
    assert_eq!(times(&group, false), [5, 10, 11, 12]);
    assert_eq!(times(&group, true), [12, 11, 10, 5]);
}

#[test]
fn what_has_no_time_of_its_own_is_a_point_of_its_own() {
    let (mut group, born) = with_device();
    let now = i64::try_from(group.now).unwrap();
    let untimed = || record(recording(born, vec![point(None, &[("a", 1)])]));
    group.batch(&[untimed(), untimed()]);
    group.one(untimed());
    assert_eq!(times(&group, false), [now, now + 1, now + 2]);
    let both = vec![point(None, &[("a", 1)]), point(None, &[("b", 1)])];
    group.one(record(recording(born, both)));
    assert_eq!(times(&group, false).len(), 4, "those of one command have one time");
    // A device whose clock is far ahead does not take others' with it.
    group.one(record(recording(born, vec![point(now + 100_000, &[("a", 1)])])));
    group.now += 50;
    group.one(untimed());
    assert_eq!(times(&group, false)[4], now + 50);
}

/// A point without a time of its own, by the rules that keep two of them apart.
fn apart(born: u64, keys: &[(&str, i64)]) -> Command {
    let recording = recording(born, vec![point(None, keys)]);
    record(Record { rules: RecordRules::Second, ..recording })
}

#[test]
fn two_of_one_millisecond_are_kept_in_order_however_far_ahead_the_clock_is() {
    // Points that the device says, and how the log time goes on before each of what is told it: where they come.
    #[rustfmt::skip]
    let table: [(&[i64], &[u64], &[i64]); 9] = [
        (&[],                             &[0, 0, 0],       &[0, 1, 2]),
        (&[500],                          &[0, 0, 0],       &[0, 1, 2]),
        (&[100_000],                      &[0, 0, 0],       &[0, 1, 2]),
        (&[i64::MAX - 5_000_000_000_000], &[0, 0],          &[0, 1]),
        (&[0, 1, 100_000],                &[0, 0],          &[2, 3]),
        (&[1, 3, 100_000],                &[0, 0, 0],       &[0, 2, 4]),
        (&[1, 100_000],                   &[0, 0, 1, 0, 2], &[0, 2, 3, 4, 5]),
        (&[1, 2, 3, 100_000],             &[1, 1, 0, 1],    &[4, 5, 6, 7]),
        (&[100_000],                      &[0, 7, 0, 1],    &[0, 7, 8, 9]),
    ];
    for (said, told, expected) in table {
        let (mut group, born) = with_device();
        let began = group.now;
        let now = i64::try_from(began).unwrap();
        for ahead in said {
            group.one(record(recording(born, vec![point(now + ahead, &[("t", 1)])])));
        }
        group.now = began;
        for (n, ms) in told.iter().enumerate() {
            group.now += ms;
            group.one(apart(born, &[("told", i64::try_from(n).unwrap())]));
        }
        let points = pages(&group, asking(i64::MIN, i64::MAX, false)).0;
        let points = points.iter().flat_map(|point| {
            let told = point.values.iter().filter(|(key, _)| key.as_str() == "told");
            told.map(|(_, value)| (point.ts_ms - now, value.clone()))
        });
        let expected: Vec<_> = expected.iter().zip(0..).map(|(at, n)| (*at, long(n))).collect();
        assert_eq!(points.collect::<Vec<_>>(), expected, "{said:?} {told:?}");
        let last = latest(&group).into_iter().find(|(key, ..)| key == "told");
        assert_eq!(last.unwrap().2, expected.last().unwrap().1, "{said:?} {told:?}");
    }
}

#[test]
fn two_of_one_millisecond_were_one_point_by_the_first_rules() {
    // Logs hold such commands: what became of them stays.
    let (mut group, born) = with_device();
    let now = i64::try_from(group.now).unwrap();
    group.one(record(recording(born, vec![point(now + 100_000, &[("t", 1)])])));
    let told = |n| record(recording(born, vec![point(None, &[("told", n)])]));
    group.batch(&[told(1), told(2)]);
    let points = pages(&group, asking(i64::MIN, i64::MAX, false)).0;
    assert_eq!(points.len(), 2);
    assert_eq!(points[0].values, [("told".into(), long(2))]);
}

#[test]
fn looking_for_a_free_millisecond_has_an_end_and_loses_nothing() {
    let (mut group, born) = with_device();
    let now = i64::try_from(group.now).unwrap();
    let row = |len: usize| (0..i64::try_from(len).unwrap()).map(|n| point(now + n, &[("t", n)]));
    // One less than are looked at, then as many.
    group.one(record(recording(born, row(UNTIMED_POINTS_LOOKED_MAX - 1).collect())));
    group.one(apart(born, &[("told", 1)]));
    let free = now + i64::try_from(UNTIMED_POINTS_LOOKED_MAX).unwrap() - 1;
    assert_eq!(latest(&group)[1], ("told".to_owned(), free, long(1)));
    group.one(record(recording(born, vec![point(now + 100_000, &[("t", 1)])])));
    group.one(apart(born, &[("other", 1)]));
    assert_eq!(latest(&group)[0], ("other".to_owned(), now + 100_001, long(1)), "behind all");
    assert_eq!(points_kept(&group), UNTIMED_POINTS_LOOKED_MAX + 2);
}

#[test]
fn long_texts_are_taken_by_the_second_rules_alone() {
    use RecordRules::{First, Second};
    let text_of = |bytes: usize| NewPoint {
        ts_ms: Some(7),
        values: vec![("t".into(), Value::Text(text(bytes)))],
    };
    #[rustfmt::skip]
    let table = [
        (VALUE_BYTES_MAX,          First,  First,  true),
        (VALUE_BYTES_MAX + 1,      Second, First,  false),
        (VALUE_BYTES_MAX + 1,      Second, Second, true),
        (LONG_VALUE_BYTES_MAX,     Second, First,  false),
        (LONG_VALUE_BYTES_MAX,     Second, Second, true),
        (LONG_VALUE_BYTES_MAX + 1, Second, Second, false),
    ];
    for (bytes, least, rules, taken) in table {
        let (mut group, born) = with_device();
        let points = vec![text_of(bytes)];
        assert_eq!(RecordRules::least(&points), least, "{bytes}");
        let answer = group.one(record(Record { rules, ..recording(born, points.clone()) }));
        if !taken {
            assert_eq!(answer, refused(ValueRefused::TooLarge), "{bytes} {rules:?}");
            assert_eq!((sheets(&group), points_kept(&group)), (0, 0));
            continue;
        }
        assert!(matches!(answer, Answer::Values(_)), "{bytes} {rules:?}: {answer:?}");
        let value = &points[0].values[0].1;
        assert_eq!(latest(&group), [("t".to_owned(), 7, value.clone())]);
        let found = pages(&group, asking(0, 8, true)).0;
        assert_eq!((&found[0].values[0].1, found.len()), (value, 1));
        // An attribute is no longer than before.
        let changes = vec![("t".into(), Some(value.clone()))];
        let written = group.one(write(writing(born, changes)));
        assert_eq!(written == refused(ValueRefused::TooLarge), bytes > VALUE_BYTES_MAX, "{bytes}");
        group.check();
    }
}

#[test]
fn a_page_of_long_texts_is_bounded_and_the_next_goes_on() {
    let (mut group, born) = with_device();
    let of = |ts_ms: i64| NewPoint {
        ts_ms: Some(ts_ms),
        values: vec![("t".into(), Value::Text(text(LONG_VALUE_BYTES_MAX)))],
    };
    for ts_ms in 1..=9 {
        let long = Record { rules: RecordRules::Second, ..recording(born, vec![of(ts_ms)]) };
        assert!(matches!(group.one(record(long)), Answer::Values(_)));
    }
    for descending in [false, true] {
        let (points, asked) = pages(&group, asking(0, 10, descending));
        assert_eq!((points.len(), asked), (9, 3), "four of them are a page");
    }
}

#[test]
fn an_event_comes_with_values_or_neither_does() {
    let (mut group, born) = with_device();
    let of = |points, event| record(Record { event, ..recording(born, points) });
    let at = UnixMillis(group.now);
    let some = || vec![point(5, &[("t", 1)])];
    let answer = group.one(of(some(), Some(event())));
    let written = |offset| {
        Answer::Values(ValueAnswer::Written { at, version: 0, event: Some(Offset(offset)) })
    };
    assert_eq!(answer, written(1));
    let points = Effect::Recorded { tenant: TENANT, points: 1 };
    let changed = Effect::Values { tenant: TENANT, device: "d".into() };
    assert_eq!(group.effects, [changed, points, Effect::Events { tenant: TENANT, appended: 1 }]);
    assert_eq!(group.one(of(Vec::new(), Some(event()))), written(2), "an event alone");
    let mut large = event();
    large.event.body = Bytes::from(vec![0; EVENT_BODY_BYTES_MAX + 1]);
    let answer = group.one(of(vec![point(6, &[("t", 2)])], Some(large)));
    assert_eq!(answer, events::refused(EventRefused::TooLarge));
    assert_eq!((times(&group, false), group.rows.count(events::KIND_EVENT)), (vec![5], 2));
    let full = vec![(text(1), Some(Value::Text(text(VALUE_BYTES_MAX + 1))))];
    let answer = group.one(write(WriteAttributes { event: Some(event()), ..writing(born, full) }));
    assert_eq!(answer, refused(ValueRefused::TooLarge));
    let small = WriteAttributes { event: Some(event()), ..writing(born, vec![set("a", 1)]) };
    let Answer::Values(ValueAnswer::Written { event, .. }) = group.one(write(small)) else {
        panic!()
    };
    assert_eq!(event, Some(Offset(3)));
    let page = events::page(&group, TENANT, 0, 9);
    assert!(page.events.iter().all(|event| event.born == Some(born)));
}

#[test]
fn what_is_too_much_is_refused_and_changes_nothing() {
    let (mut group, born) = with_device();
    let many = |count: usize| (0..count).map(|n| set(&format!("k{n:05}"), 1)).collect::<Vec<_>>();
    let values = |count: usize| {
        let values = (0..count).map(|n| (Text::from(format!("k{n:05}")), long(1))).collect();
        vec![NewPoint { ts_ms: Some(1), values }]
    };
    let points = |count: usize| vec![point(1, &[("t", 1)]); count];
    let one = |key: Text, value: Value| vec![(key, Some(value))];
    let (long_key, long_text) = (text(VALUE_KEY_BYTES_MAX + 1), text(VALUE_BYTES_MAX + 1));
    let recorded = |points| record(recording(born, points));
    let written = |changes| write(writing(born, changes));
    let first =
        |key: Text, value| recorded(vec![NewPoint { ts_ms: None, values: vec![(key, value)] }]);
    #[rustfmt::skip]
    let table = [
        (written(one(text(0), long(1))),                            ValueRefused::Key),
        (written(one(long_key.clone(), long(1))),                   ValueRefused::Key),
        (written(one(text(1), Value::Json(long_text.clone()))),     ValueRefused::TooLarge),
        (written(many(ATTRIBUTES_PER_COMMAND_MAX + 1)),             ValueRefused::TooManyAtOnce),
        (first(text(0), long(1)),                                   ValueRefused::Key),
        (first(long_key, long(1)),                                  ValueRefused::Key),
        (first(text(1), Value::Text(long_text)),                    ValueRefused::TooLarge),
        (recorded(points(POINTS_PER_COMMAND_MAX + 1)),              ValueRefused::TooManyAtOnce),
        (recorded(values(VALUES_PER_COMMAND_MAX + 1)),              ValueRefused::TooManyAtOnce),
        (recorded(values(SHEET_KEYS_MAX + 1)),                      ValueRefused::TooManyKeys),
    ];
    let before = group.rows.0.len();
    for (command, why) in table {
        assert_eq!(group.one(command), refused(why));
        assert!(group.effects.is_empty(), "{why:?}");
    }
    assert_eq!((sheets(&group), points_kept(&group)), (0, 0));
    assert!(group.rows.0.len() <= before + 2, "but for what the producer was answered");

    for n in 0..SHEET_KEYS_MAX / 256 {
        let keys = (n * 256..(n + 1) * 256).map(|n| set(&format!("k{n:05}"), 1)).collect();
        assert!(matches!(group.one(write(writing(born, keys))), Answer::Values(_)));
    }
    let more = || written(vec![set("more", 1)]);
    assert_eq!(group.one(more()), refused(ValueRefused::TooManyKeys));
    group.one(written(vec![gone("k00000")]));
    assert!(matches!(group.one(more()), Answer::Values(_)), "what is deleted counts no more");
    let (largest, scope) = (Value::Text(text(VALUE_BYTES_MAX)), AttributeScope::Client);
    let of = |n: usize| {
        let changes = one(Text::from(format!("l{n}")), largest.clone());
        write(WriteAttributes { scope, ..writing(born, changes) })
    };
    for n in 0..SHEET_BYTES_MAX / VALUE_BYTES_MAX - 1 {
        assert!(matches!(group.one(of(n)), Answer::Values(_)));
    }
    assert_eq!(group.one(of(9)), refused(ValueRefused::Full));
}

#[test]
fn a_point_that_is_said_again_and_again_has_an_end() {
    let (mut group, born) = with_device();
    let of = |ts_ms, key: &str, bytes| {
        let values = vec![(key.into(), Value::Text(text(bytes)))];
        record(recording(born, vec![NewPoint { ts_ms: Some(ts_ms), values }]))
    };
    // Newer and small, so that the latest values say nothing of the old point.
    let newer: Vec<_> = ["a", "b", "c", "d"].map(|key| of(9, key, 1)).into();
    group.batch(&newer);
    for key in ["a", "b", "c"] {
        assert!(matches!(group.one(of(1, key, VALUE_BYTES_MAX)), Answer::Values(_)), "{key}");
    }
    assert_eq!(group.one(of(1, "d", VALUE_BYTES_MAX)), refused(ValueRefused::Full));
    let again = group.one(of(1, "a", VALUE_BYTES_MAX - 1));
    assert!(matches!(again, Answer::Values(_)), "it is in the place of what was there: {again:?}");
}

#[test]
fn deleted_attributes_make_room_for_others() {
    let (mut group, born) = with_device();
    let keys = |from: usize| {
        let keys = (0..100).map(|n| Text::from(format!("{:0>1000}", from + n)));
        keys.collect::<Vec<_>>()
    };
    for from in [0, 100, 200, 300] {
        let changes = keys(from).into_iter().map(|key| (key, Some(long(1)))).collect();
        let answer = group.one(write(writing(born, changes)));
        assert!(matches!(answer, Answer::Values(_)), "{from}: {answer:?}");
        let changes = keys(from).into_iter().map(|key| (key, None)).collect();
        group.one(write(writing(born, changes)));
    }
    assert_eq!(attributes(&group, SHARED, None).0, []);
}

#[test]
fn history_goes_when_it_is_too_old_or_too_much_and_what_was_said_again_stays() {
    let (mut group, born) = with_device();
    let keep = |keep_s, bytes_max| Some(Retention { keep_s, bytes_max });
    let of = |ts_ms: i64, history| {
        record(Record { history, ..recording(born, vec![point(ts_ms, &[("t", 1)])]) })
    };
    group.one(of(1, keep(16, u64::MAX)));
    group.now += 8_000;
    group.batch(&[of(2, keep(16, u64::MAX)), of(3, keep(16, u64::MAX))]);
    group.one(of(1, keep(16, u64::MAX)));
    group.now += 8_999;
    group.one(Command::Tick);
    assert_eq!(times(&group, false), [1, 2, 3]);
    assert_eq!(group.rows.count(KIND_PART), 3, "kept to a sixteenth");
    group.now += 1;
    group.one(Command::Tick);
    assert_eq!((times(&group, false), group.rows.count(KIND_PART)), (vec![1, 2, 3], 2));
    group.now += 8_000;
    group.one(Command::Tick);
    assert_eq!((times(&group, false), group.rows.count(KIND_PART)), (vec![], 0));
    assert_eq!(group.machine.history_totals().bytes, 0);
    assert_eq!(latest(&group).len(), 1, "the latest values stay");

    for ts_ms in 0..100 {
        group.one(of(ts_ms, keep(16, 1_000)));
    }
    assert_eq!(group.machine.next_deadline(), Some(UnixMillis(0)));
    group.one(Command::Tick);
    let kept = group.machine.history_totals().bytes;
    assert!(kept <= 1_000 - 1_000 / 16 && kept > 800, "{kept}");
    assert_eq!(times(&group, true)[0], 99);
    group.one(record(Record { history: None, ..recording(born, vec![point(500, &[("t", 7)])]) }));
    assert_eq!((times(&group, true)[0], latest(&group)[0].1), (99, 500), "not in the history");
}

#[test]
fn a_tick_removes_so_many_points_and_no_more() {
    let (mut group, born) = with_device();
    group.unchecked = true;
    let history = Some(Retention { keep_s: 0, bytes_max: u64::MAX });
    let mut total = 0;
    while total <= POINTS_PER_TICK_MAX + POINTS_PER_PART_MAX {
        let points = (total..total + POINTS_PER_COMMAND_MAX)
            .map(|ts_ms| point(i64::try_from(ts_ms).unwrap(), &[("t", 1)]));
        let recorded = Record { history, ..recording(born, points.collect()) };
        group.one(record(recorded));
        total += POINTS_PER_COMMAND_MAX;
    }
    group.one(Command::Tick);
    let left = points_kept(&group);
    assert!(left > 0 && left >= total - POINTS_PER_TICK_MAX - POINTS_PER_PART_MAX, "{left}");
    group.check();
    group.one(Command::Tick);
    assert_eq!(points_kept(&group), 0);
    group.check();
}

#[test]
fn a_long_history_is_read_in_pieces_from_either_end() {
    let (mut group, born) = with_device();
    group.unchecked = true;
    // Dense, with a gap of a year, and some stragglers before 1970.
    let mut all: Vec<i64> =
        (0..6_000).chain((0..700).map(|n| 31_536_000_000 + n * 60_000)).collect();
    all.extend([-5, -1_000_000]);
    for some in all.chunks(POINTS_PER_COMMAND_MAX) {
        let points = some.iter().map(|ts_ms| point(*ts_ms, &[("t", *ts_ms), ("u", 1)]));
        group.one(record(recording(born, points.collect())));
    }
    all.sort_unstable();
    let (points, count) = pages(&group, asking(i64::MIN, i64::MAX, false));
    assert_eq!(points.iter().map(|point| point.ts_ms).collect::<Vec<_>>(), all);
    assert_eq!(count, all.len().div_ceil(POINTS_PER_QUESTION_MAX));
    let (mut points, count) = pages(&group, asking(i64::MIN, i64::MAX, true));
    points.reverse();
    assert_eq!(points.iter().map(|point| point.ts_ms).collect::<Vec<_>>(), all);
    assert!(count <= 3, "{count}");
    let few = HistoryQuery { points_max: 3, keys: vec!["t".into()], ..asking(0, 100, true) };
    let page = group.machine.history(&group.rows, &few).unwrap().unwrap();
    assert_eq!(page.points.iter().map(|point| point.ts_ms).collect::<Vec<_>>(), [99, 98, 97]);
    assert_eq!((page.next, page.points[0].values.len()), (Some(97), 1));
    let none = HistoryQuery { keys: vec!["z".into()], ..asking(0, 100, false) };
    assert_eq!(pages(&group, none).0, []);
    assert_eq!(pages(&group, asking(5, 5, false)).0, []);
}

#[test]
fn values_are_taken_together_page_by_page() {
    let (mut group, born) = with_device();
    group.unchecked = true;
    let all: Vec<i64> = (0..10_000).collect();
    for some in all.chunks(POINTS_PER_COMMAND_MAX) {
        let points = some.iter().map(|ts_ms| point(*ts_ms, &[("t", *ts_ms)]));
        group.one(record(recording(born, points.collect())));
    }
    let half = vec![NewPoint {
        ts_ms: Some(9_999),
        values: vec![("h".into(), Value::Double(Double::new(0.5).unwrap()))],
    }];
    group.one(record(recording(born, half)));
    let mut query = AggregateQuery {
        tenant: TENANT,
        device: "d".into(),
        keys: vec!["t".into()],
        start_ms: 1,
        from_ms: 1,
        to_ms: 9_001,
        interval_ms: 3_000,
    };
    let (mut found, mut count): (Vec<(i64, Taken)>, _) = (Vec::new(), 0);
    loop {
        let page = group.machine.aggregate(&group.rows, &query).unwrap().unwrap();
        for (start, taken) in page.series.into_iter().flat_map(|(_, intervals)| intervals) {
            match found.last_mut().filter(|(last, _)| *last == start) {
                Some((_, known)) => known.join(&taken),
                None => found.push((start, taken)),
            }
        }
        count += 1;
        let Some(next) = page.next else { break };
        query.from_ms = next;
    }
    assert_eq!((count, found.len()), (3, 3));
    for (n, (start, taken)) in (0..).zip(&found) {
        assert_eq!(*start, 1 + n * 3_000);
        let of = |aggregation| taken.result(aggregation);
        assert_eq!(of(Aggregation::Count), Some(long(3_000)));
        assert_eq!(
            (of(Aggregation::Min), of(Aggregation::Max)),
            (Some(long(*start)), Some(long(start + 2_999)))
        );
    }
}

#[test]
fn marks_are_others_after_each_change_and_only_then() {
    let (mut group, born) = with_device();
    let marks = |group: &Group| group.machine.marks(&group.rows, TENANT, &"d".into()).unwrap();
    let mut before = marks(&group).expect("it is there");
    assert_eq!(before, Marks { born, attributes: [0; 3], latest: 0 });
    for (at, scope) in AttributeScope::ALL.into_iter().enumerate() {
        for change in [set("a", 1), set("a", 2), gone("a")] {
            group.one(write(WriteAttributes { scope, ..writing(born, vec![change]) }));
            let now = marks(&group).unwrap();
            assert_ne!(now.attributes[at], before.attributes[at]);
            before.attributes[at] = now.attributes[at];
            assert_eq!(now, before, "the others are the same");
        }
    }
    for (said, is_change) in [(point(5, &[("t", 1)]), true), (point(4, &[("t", 2)]), false)] {
        group.one(record(recording(born, vec![said])));
        let now = marks(&group).unwrap();
        assert_eq!(now.latest != before.latest, is_change, "late samples are no latest values");
        before.latest = now.latest;
        assert_eq!(now, before);
    }
    group.reopen();
    assert_eq!(marks(&group), Some(before));
    group.one(delete_plain("d"));
    assert_eq!(marks(&group), None);
    let anew = make(&mut group);
    assert_eq!(marks(&group), Some(Marks { born: anew, attributes: [0; 3], latest: 0 }));
}
