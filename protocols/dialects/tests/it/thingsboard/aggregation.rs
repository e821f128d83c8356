//! Samples taken together, by interval.

use moorline_dialects::thingsboard::{
    rest::aggregation::{Aggregation, Range, aggregate},
    values::Value,
};
use proptest::prelude::*;

use super::support::{json, text};

const ALL: Range = Range { start_ms: 0, end_ms: 1000, interval_ms: 0 };

fn of(values: &[Value], aggregation: Aggregation) -> Option<Value> {
    let samples: Vec<(i64, Value)> = (0..).zip(values.iter().cloned()).collect();
    let result = aggregate(&samples, ALL, aggregation);
    assert!(result.len() <= 1 && result.iter().all(|(ts_ms, _)| *ts_ms == 500));
    result.into_iter().next().map(|(_, value)| value)
}

#[test]
fn values_are_taken_together_by_their_types() {
    let (long, double) = (Value::Long, Value::Double);
    let longs = [long(3), long(1), long(2)];
    let mixed = [long(3), double(1.5), text("x")];
    let texts = [text("b"), text("a"), Value::Bool(true)];
    let bools = [Value::Bool(true), Value::Bool(false)];
    let others = [Value::Json(json("[]"))];
    let large = [long(i64::MAX), long(1)];
    let count = |count| Some(long(count));
    #[rustfmt::skip]
    let table: [(&[Value], [Option<Value>; 5]); 7] = [
        //         MIN                       MAX                      AVG                SUM                COUNT
        (&longs,  [Some(long(1)),            Some(long(3)),           Some(double(2.0)), Some(long(6)),     count(3)]),
        (&mixed,  [Some(double(1.5)),        Some(long(3)),           Some(double(2.25)), Some(double(4.5)), count(3)]),
        (&texts,  [Some(text("a")),          Some(text("b")),         None,              None,              count(3)]),
        (&bools,  [Some(Value::Bool(false)), Some(Value::Bool(true)), None,              None,              count(2)]),
        (&others, [None,                     None,                    None,              None,              count(1)]),
        (&large,  [Some(long(1)),            Some(long(i64::MAX)),    Some(double(4_611_686_018_427_387_904.0)),
                   Some(double(9_223_372_036_854_775_808.0)), count(2)]),
        (&[],     [None,                     None,                    None,              None,              None]),
    ];
    for (values, expected) in table {
        let names = ["MIN", "MAX", "AVG", "SUM", "COUNT"];
        let results = names.map(|name| of(values, Aggregation::by_name(name).unwrap()));
        assert_eq!(results, expected, "{values:?}");
    }
    assert_eq!(Aggregation::by_name("NONE"), Some(Aggregation::None));
    assert_eq!(Aggregation::by_name("avg"), None);
    let largest = of(&[double(f64::MAX), double(f64::MAX)], Aggregation::Sum);
    assert_eq!(largest, Some(double(f64::MAX)), "never infinite");
}

#[test]
fn intervals_have_their_beginning_and_not_their_end() {
    let samples: Vec<(i64, Value)> =
        [10, 0, 99, 100, 250, 349, 350, -1].map(|ts_ms| (ts_ms, Value::Long(ts_ms))).into();
    let range = Range { start_ms: 0, end_ms: 350, interval_ms: 100 };
    let counts = aggregate(&samples, range, Aggregation::Count);
    let expected = [(50, 3), (150, 1), (250, 1), (325, 1)];
    assert_eq!(counts, expected.map(|(ts_ms, count)| (ts_ms, Value::Long(count))));
    let raw = aggregate(&samples, range, Aggregation::None);
    let times: Vec<i64> = raw.iter().map(|(ts_ms, _)| *ts_ms).collect();
    assert_eq!(times, [0, 10, 99, 100, 250, 349]);
    let empty = Range { start_ms: 5, end_ms: 5, interval_ms: 1 };
    assert!(aggregate(&samples, empty, Aggregation::Count).is_empty());
}

proptest! {
    #[test]
    fn nothing_is_lost_and_nothing_panics(
        times in prop::collection::vec(any::<i64>(), 0..20), start_ms: i64, end_ms: i64, interval_ms: u64,
    ) {
        let samples: Vec<(i64, Value)> = times.iter().map(|ts_ms| (*ts_ms, Value::Long(1))).collect();
        let range = Range { start_ms, end_ms, interval_ms };
        let counts = aggregate(&samples, range, Aggregation::Count);
        let counted: i64 = counts.iter().map(|(_, value)| match value { Value::Long(n) => *n, _ => 0 }).sum();
        let within = times.iter().filter(|ts_ms| (start_ms..end_ms).contains(*ts_ms)).count();
        prop_assert_eq!(usize::try_from(counted).unwrap(), within);
        prop_assert!(counts.iter().all(|(ts_ms, _)| (start_ms..end_ms).contains(ts_ms)));
        prop_assert!(counts.is_sorted_by_key(|(ts_ms, _)| *ts_ms));
    }
}
