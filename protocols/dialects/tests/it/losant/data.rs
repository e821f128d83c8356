//! Questions about data, and what is made of values.

use moorline_core::{Double, Text, Value as Kept};
use moorline_dialects::losant::data::{Last, Series};
use serde_json::{Value, json};

use super::{DEVICE, NOW};

fn series(said: Value) -> Result<Series, String> {
    let mut whole = json!({ "deviceIds": [DEVICE] });
    for (key, value) in said.as_object().unwrap() {
        whole[key] = value.clone();
    }
    Series::read(whole.to_string().as_bytes(), NOW).map_err(|why| why.0)
}

#[test]
fn a_while_is_said_in_several_ways() {
    const MINUTE: i64 = 60_000;
    #[rustfmt::skip]
    let table = [
        (json!({}),                                          NOW - 60 * MINUTE, NOW),
        (json!({ "duration": 600_000, "end": 0 }),           NOW - 10 * MINUTE, NOW),
        (json!({ "duration": 60_000, "end": -60_000 }),      NOW - 2 * MINUTE,  NOW - MINUTE),
        (json!({ "start": 1_000, "end": 2_000 }),            1_000,             2_000),
        (json!({ "start": -60_000 }),                        NOW - MINUTE,      NOW),
        (json!({ "start": -1e300 }),                         0,                 NOW),
        (json!({ "duration": 1e300 }),                       0,                 NOW),
    ];
    for (said, start, end) in table {
        let read = series(said.clone()).unwrap();
        assert_eq!((read.start_ms, read.end_ms), (start, end), "{said}");
    }
    let read = series(json!({ "aggregation": { "type": "MEAN" }, "limit": 5, "order": "desc" }));
    assert_eq!(read.map(|read| (read.aggregation.name(), read.limit)), Ok(("MEAN", 5)));
    #[rustfmt::skip]
    let wrong = [
        json!({ "start": 2, "end": 1 }), json!({ "start": -1e300, "end": -1e300 }), json!({ "duration": 0 }), json!({ "aggregation": "MODE" }),
        json!({ "aggregation": { "type": "TIMEATVALUE", "options": { "value": 1 } } }), json!({ "order": "up" }),
        json!({ "attributes": ["a b"] }), json!({ "attributes": vec!["a"; 101] }), json!({ "deviceIds": [] }),
        json!({ "colour": 1 }), json!({ "deviceQuery": { "colour": 1 }, "deviceIds": null }),
    ];
    for said in wrong {
        assert!(series(said.clone()).is_err(), "{said:.80}");
    }
}

#[test]
fn values_of_a_step_are_taken_together() {
    let value = |at_ms: i64, key: &str, value: Kept| (at_ms, Text::from(key), value);
    let double = |number: f64| Kept::Double(Double::new(number).unwrap());
    let values = || {
        vec![
            value(1_000, "t", Kept::Long(1)),
            value(1_400, "t", double(2.5)),
            value(1_400, "s", Kept::Text("on".into())),
            value(1_900, "t", Kept::Long(4)),
            value(2_000, "t", Kept::Long(8)),
            value(2_500, "s", Kept::Text("off".into())),
        ]
    };
    // From whenever on: a step is a step.
    let whole = series(json!({ "start": -1e300, "resolution": 1_000, "aggregation": "MEAN" }));
    assert_eq!(whole.unwrap().points(values()).len(), 2);
    let points = |aggregation: &str, more: Value| {
        let mut said = json!({ "start": 1_000, "end": 3_000, "resolution": 1_000, "aggregation": aggregation });
        for (key, value) in more.as_object().unwrap() {
            said[key] = value.clone();
        }
        series(said).unwrap().points(values())
    };
    #[rustfmt::skip]
    let table = [
        ("FIRST",   json!({ "t": 1, "s": "on" }),     json!({ "t": 8, "s": "off" })),
        ("LAST",    json!({ "t": 4, "s": "on" }),     json!({ "t": 8, "s": "off" })),
        ("COUNT",   json!({ "t": 3, "s": 1 }),        json!({ "t": 1, "s": 1 })),
        ("MAX",     json!({ "t": 4 }),                json!({ "t": 8 })),
        ("MIN",     json!({ "t": 1 }),                json!({ "t": 8 })),
        ("SUM",     json!({ "t": 7.5 }),              json!({ "t": 8 })),
        ("MEAN",    json!({ "t": 2.5 }),              json!({ "t": 8 })),
        ("MEDIAN",  json!({ "t": 2.5 }),              json!({ "t": 8 })),
        ("STD_DEV", json!({ "t": 1.5 }),              json!({ "t": 0 })),
    ];
    let (first, second) = ("1970-01-01T00:00:01.000Z", "1970-01-01T00:00:02.000Z");
    for (aggregation, one, two) in table {
        let expected =
            [json!({ "time": first, "data": one }), json!({ "time": second, "data": two })];
        assert_eq!(points(aggregation, json!({})), expected, "{aggregation}");
    }
    let raw = points("NONE", json!({}));
    assert_eq!((raw.len(), &raw[1]["data"]), (5, &json!({ "t": 2.5, "s": "on" })));
    let newest = points("NONE", json!({ "order": "desc", "limit": 2 }));
    assert_eq!((newest.len(), &newest[0]["data"]), (2, &json!({ "s": "off" })));
    let whole = points("COUNT", json!({ "resolution": 0 }));
    assert_eq!(whole, [json!({ "time": first, "data": { "t": 4, "s": 2 } })]);
    let read = series(json!({ "start": 1_000, "end": 3_000, "aggregation": "MAX" })).unwrap();
    let answer = read.answer(vec![(DEVICE.into(), "pump".into(), raw)]);
    assert_eq!((&answer["start"], &answer["aggregation"]), (&json!(first), &json!("MAX")));
    assert_eq!(answer["devices"][DEVICE]["name"], "pump");
}

#[test]
fn steps_of_a_while_that_began_long_ago_have_their_times() {
    let said = json!({ "start": -1e300, "aggregation": "COUNT", "resolution": 1e300 });
    let values = vec![(NOW - 1, Text::from("t"), Kept::Long(1))];
    let points = series(said).unwrap().points(values);
    assert_eq!(points, [json!({ "time": "1970-01-01T00:00:00.000Z", "data": { "t": 1 } })]);
}

#[test]
fn last_values_are_asked_for_by_attribute() {
    let read = |said: Value| Last::read(said.to_string().as_bytes()).is_ok();
    assert!(read(json!({ "attribute": "t", "deviceIds": [DEVICE] })));
    for wrong in [
        json!({ "attribute": "t" }),
        json!({ "deviceIds": [DEVICE] }),
        json!({ "attribute": "a b", "deviceIds": [DEVICE] }),
        json!({ "attribute": "t", "deviceIds": [DEVICE], "start": 1 }),
    ] {
        assert!(!read(wrong.clone()), "{wrong}");
    }
}
