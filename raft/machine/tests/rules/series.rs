//! Telemetry of some keys and a range of time is deleted: what goes with it, what stays, and in which steps.

use moorline_core::Text;
use moorline_machine::{
    Answer, Command, Effect, ValueAnswer, ValueCommand, ValueRefused,
    events::Retention,
    values::{
        DELETE_BYTES_MAX, DeleteSeries, KEYS_PER_DELETE_MAX, NewPoint, POINTS_PER_COMMAND_MAX,
        POINTS_PER_DELETE_MAX, Record, VALUE_KEY_BYTES_MAX,
    },
};

use crate::{devices::delete_plain, harness::*, values::*};

fn deleting(born: u64, keys: &[&str], from_ms: i64, to_ms: i64) -> DeleteSeries {
    let keys = keys.iter().map(|key| Text::from(*key)).collect();
    DeleteSeries { tenant: TENANT, device: "d".into(), born, keys, from_ms, to_ms, latest: true }
}

fn delete(delete: DeleteSeries) -> Command {
    Command::Values(ValueCommand::Delete(delete))
}

/// Where the next command has to begin.
fn next_of(answer: &Answer) -> Option<i64> {
    let Answer::Values(ValueAnswer::Deleted { next, .. }) = answer else { panic!("{answer:?}") };
    *next
}

fn history(group: &Group) -> Vec<(i64, Vec<String>)> {
    let points = pages(group, asking(i64::MIN, i64::MAX, false)).0.into_iter();
    let keys = |point: moorline_machine::values::Point| {
        (point.ts_ms, point.values.iter().map(|(key, _)| key.to_string()).collect())
    };
    points.map(keys).collect()
}

#[test]
fn what_is_deleted_of_a_point_leaves_the_rest_of_it() {
    let (mut group, born) = with_device();
    let points = (1..5).map(|ts_ms| point(ts_ms, &[("t", ts_ms), ("u", 7)])).collect();
    group.one(record(recording(born, points)));
    group.one(record(recording(born, vec![point(5, &[("t", 5)])])));
    let before = group.machine.history_totals().bytes;
    let answer = group.one(delete(deleting(born, &["t", "x", "t"], 3, 6)));
    assert_eq!(next_of(&answer), None);
    let both = || vec!["t".to_owned(), "u".to_owned()];
    let one = || vec!["u".to_owned()];
    assert_eq!(history(&group), [(1, both()), (2, both()), (3, one()), (4, one())]);
    assert!(group.machine.history_totals().bytes < before);
    assert_eq!(latest(&group), [("u".to_owned(), 4, long(7))], "its latest value was at 5");
    let changed = Effect::Values { tenant: TENANT, device: "d".into() };
    assert_eq!(group.effects, [changed]);
    // What comes behind it is new, and what comes late is there as well.
    group.one(record(recording(born, vec![point(5, &[("t", 6)]), point(3, &[("t", 8)])])));
    let expected = [(1, both()), (2, both()), (3, both()), (4, one()), (5, vec!["t".to_owned()])];
    assert_eq!(history(&group), expected);
    assert_eq!(latest(&group)[0], ("t".to_owned(), 5, long(6)));
}

#[test]
fn latest_values_go_only_if_they_are_of_that_time_and_are_meant() {
    for (from_ms, to_ms, is_meant, stays) in
        [(1, 3, true, false), (2, 3, true, false), (1, 2, true, true), (1, 3, false, true)]
    {
        let (mut group, born) = with_device();
        group.one(record(recording(born, vec![point(1, &[("t", 1)]), point(2, &[("t", 2)])])));
        let deleting = deleting(born, &["t"], from_ms, to_ms);
        group.one(delete(DeleteSeries { latest: is_meant, ..deleting }));
        assert_eq!(latest(&group).len(), usize::from(stays), "{from_ms} {to_ms} {is_meant}");
        assert_eq!(group.effects.is_empty(), stays);
    }
    // A latest value without history.
    let (mut group, born) = with_device();
    let points = vec![point(1, &[("t", 1)])];
    group.one(record(Record { history: None, ..recording(born, points) }));
    assert_eq!(next_of(&group.one(delete(deleting(born, &["t"], 0, 9)))), None);
    assert_eq!(latest(&group), []);
}

#[test]
fn nothing_is_deleted_of_another_device_or_birth_or_where_nothing_is_meant() {
    let (mut group, born) = with_device();
    group.one(record(recording(born, vec![point(1, &[("t", 1)])])));
    let table = [
        (deleting(born + 1, &["t"], 0, 9), Some(ValueRefused::DeviceGone)),
        (
            DeleteSeries { device: "e".into(), ..deleting(born, &["t"], 0, 9) },
            Some(ValueRefused::DeviceGone),
        ),
        (deleting(born, &[""], 0, 9), Some(ValueRefused::Key)),
        (
            deleting(born, &["x".repeat(VALUE_KEY_BYTES_MAX + 1).as_str()], 0, 9),
            Some(ValueRefused::Key),
        ),
        (
            deleting(born, &vec!["t"; KEYS_PER_DELETE_MAX + 1], 0, 9),
            Some(ValueRefused::TooManyAtOnce),
        ),
        (deleting(born, &[], 0, 9), None),
        (deleting(born, &["t"], 1, 1), None),
        (deleting(born, &["t"], 9, 0), None),
        (deleting(born, &["u"], 0, 9), None),
    ];
    for (command, why) in table {
        let answer = group.one(delete(command.clone()));
        match why {
            Some(why) => assert_eq!(answer, refused(why), "{command:?}"),
            None => assert_eq!(next_of(&answer), None, "{command:?}"),
        }
        assert!(group.effects.is_empty());
        assert_eq!((times(&group, false), latest(&group).len()), (vec![1], 1), "{command:?}");
    }
    group.one(delete_plain("d"));
    assert_eq!(group.one(delete(deleting(born, &["t"], 0, 9))), refused(ValueRefused::DeviceGone));
}

#[test]
fn a_long_history_goes_in_steps() {
    let (mut group, born) = with_device();
    group.unchecked = true;
    let total = 2 * POINTS_PER_DELETE_MAX + 10;
    let all: Vec<i64> = (0..i64::try_from(total).unwrap()).collect();
    for some in all.chunks(POINTS_PER_COMMAND_MAX) {
        let points = some.iter().map(|ts_ms| point(*ts_ms, &[("t", 1), ("u", 1)]));
        group.one(record(recording(born, points.collect())));
    }
    let (mut from_ms, mut steps) = (i64::MIN, 0);
    while let Some(next) = next_of(&group.one(delete(deleting(born, &["t"], from_ms, i64::MAX)))) {
        (from_ms, steps) = (next, steps + 1);
        let left = history(&group).iter().filter(|(_, keys)| keys.len() == 2).count();
        assert_eq!(left, total - steps * POINTS_PER_DELETE_MAX);
    }
    assert_eq!(steps, 2);
    assert!(history(&group).iter().all(|(_, keys)| keys == &["u"]));
    group.check();

    // Few that are large.
    let large = || moorline_core::Value::Text("x".repeat(30_000).as_str().into());
    let points = (0..20)
        .map(|at| NewPoint { ts_ms: Some(1_000_000 + at), values: vec![("v".into(), large())] });
    points.for_each(|point| drop(group.one(record(recording(born, vec![point])))));
    let next = next_of(&group.one(delete(deleting(born, &["v"], 1_000_000, i64::MAX))));
    let taken = i64::try_from(DELETE_BYTES_MAX.div_ceil(30_000)).unwrap();
    assert_eq!(next, Some(1_000_000 + taken));
}

#[test]
fn what_was_deleted_does_not_hold_up_what_time_does() {
    let (mut group, born) = with_device();
    let history = Some(Retention { keep_s: 1, bytes_max: u64::MAX });
    let points = vec![point(1, &[("t", 1)]), point(2, &[("t", 1), ("u", 1)])];
    group.one(record(Record { history, ..recording(born, points) }));
    group.one(delete(deleting(born, &["t"], 0, 9)));
    // In one batch: said, deleted, and said again.
    let again = || record(Record { history, ..recording(born, vec![point(3, &[("t", 1)])]) });
    group.batch(&[again(), delete(deleting(born, &["t"], 0, 9)), again()]);
    assert_eq!((times(&group, false), points_kept(&group)), (vec![2, 3], 2));
    group.reopen();
    group.now += 5_000;
    group.one(Command::Tick);
    assert_eq!((points_kept(&group), group.rows.count(KIND_PART)), (0, 0));
    assert_eq!(group.machine.history_totals().bytes, 0);
}

#[test]
fn a_history_that_got_room_before_the_tick_of_its_batch_keeps_what_is_left() {
    let roomy = Retention { keep_s: 9, bytes_max: 10_000 };
    let said = |born, ts_ms, history| {
        let points = vec![point(ts_ms, &[("t", 1)])];
        record(Record { history: Some(history), ..recording(born, points) })
    };
    let points = || (1..9).map(|ts_ms| point(ts_ms, &[("t", ts_ms), ("u", 7)])).collect();
    // It has more than it may, or for longer than it may. Then some of it goes, or more may stay.
    for tight in
        [Retention { keep_s: 9, bytes_max: 300 }, Retention { keep_s: 1, bytes_max: 10_000 }]
    {
        let (mut group, born) = with_device();
        group.one(record(Record { history: Some(tight), ..recording(born, points()) }));
        group.now += 2_000;
        group.batch(&[said(born, 9, roomy), Command::Tick]);
        assert_eq!(points_kept(&group), 9);
    }
    let (mut group, born) = with_device();
    let history = Some(Retention { keep_s: 9, bytes_max: 300 });
    group.one(record(Record { history, ..recording(born, points()) }));
    group.batch(&[delete(deleting(born, &["t", "u"], 2, 9)), Command::Tick]);
    assert_eq!(times(&group, false), [1]);
    assert!(group.machine.history_totals().bytes <= 300);
    group.now += 20_000;
    group.one(Command::Tick);
    assert_eq!((points_kept(&group), group.machine.history_totals().bytes), (0, 0));
}
