//! Values, telemetry in its three forms, and attributes.

use moorline_dialects::thingsboard::{
    invalid::Invalid,
    values::{KEY_CHARS_MAX, Rules, Sample, Value, attributes, data_points, object, telemetry},
};
use proptest::prelude::*;

use super::support::{NOW_MS, RULES, entries, json, text};

#[test]
fn a_value_is_kept_by_its_type() {
    #[rustfmt::skip]
    let table = [
        ("true",              Some(Value::Bool(true))),
        ("null",              None),
        ("25",                Some(Value::Long(25))),
        ("25.0",              Some(Value::Double(25.0))),
        (r#""25""#,           Some(Value::Long(25))),
        (r#""007""#,          Some(Value::Long(7))),
        (r#""25.0""#,         Some(Value::Double(25.0))),
        (r#""1e3""#,          Some(text("1e3"))),
        (r#""+1""#,           Some(text("+1"))),
        (r#""0x1F""#,         Some(text("0x1F"))),
        (r#""""#,             Some(text(""))),
        (r#""on""#,           Some(text("on"))),
        (r#""true""#,         Some(text("true"))),
        (r#"{"a":{"b":1.0}}"#, Some(Value::Json(json(r#"{"a":{"b":1.0}}"#)))),
        ("[1,null]",          Some(Value::Json(json("[1,null]")))),
    ];
    for (written, expected) in table {
        assert_eq!(Value::of(&json(written), &RULES), Ok(expected), "{written}");
    }
}

#[test]
fn the_server_may_leave_texts_alone_and_limit_them() {
    let rules = Rules { cast_texts: false, text_bytes_max: Some(3) };
    assert_eq!(Value::of(&json(r#""007""#), &rules), Ok(Some(text("007"))));
    let too_long = Value::of(&json(r#""0070""#), &rules);
    assert_eq!(too_long, Err(Invalid::TextTooLong { bytes_max: 3 }));
    assert_eq!(Rules::default(), RULES);
}

fn sample(ts_ms: i64, values: &[(&str, Value)]) -> Sample {
    Sample { ts_ms, values: entries(values) }
}

#[test]
fn telemetry_has_three_forms() {
    let long = Value::Long;
    #[rustfmt::skip]
    let table = [
        (r#"{"temperature":25,"ok":true}"#,
            vec![sample(NOW_MS, &[("temperature", long(25)), ("ok", Value::Bool(true))])]),
        (r#"{"ts":1451649600512,"values":{"temperature":25}}"#,
            vec![sample(1_451_649_600_512, &[("temperature", long(25))])]),
        (r#"{"ts":1795227218578.032,"values":{"a":1}}"#,
            vec![sample(1_795_227_218_578, &[("a", long(1))])]),
        (r#"{"ts":"1451649600512","values":{"a":1}}"#,
            vec![sample(1_451_649_600_512, &[("a", long(1))])]),
        (r#"[{"a":1},{"ts":1,"values":{"b":2}},{"c":3}]"#,
            vec![sample(NOW_MS, &[("a", long(1))]), sample(1, &[("b", long(2))]), sample(NOW_MS, &[("c", long(3))])]),
        (r#"{"ts":5}"#,                         vec![sample(NOW_MS, &[("ts", long(5))])]),
        (r#"{"ts":5,"value":1}"#,               vec![sample(NOW_MS, &[("ts", long(5)), ("value", long(1))])]),
        (r#"{"values":{"a":1}}"#,               vec![sample(NOW_MS, &[("values", Value::Json(json(r#"{"a":1}"#)))])]),
        (r#"{"ts":1,"values":{"a":1},"x":2}"#,  vec![sample(1, &[("a", long(1))])]),
        (r#"{"a":null,"b":1}"#,                 vec![sample(NOW_MS, &[("b", long(1))])]),
        (r#"{"a":1,"a":2}"#,                    vec![sample(NOW_MS, &[("a", long(2))])]),
        (r#"{"a":{"b":1}}"#,                    vec![sample(NOW_MS, &[("a", Value::Json(json(r#"{"b":1}"#)))])]),
        ("{}",                                  vec![]),
        ("[]",                                  vec![]),
        ("[{},{}]",                             vec![]),
        (r#"{"a":null}"#,                       vec![]),
        (r#"{"ts":1,"values":{}}"#,             vec![]),
    ];
    for (written, expected) in table {
        let read = telemetry(&json(written), NOW_MS, &RULES).unwrap();
        let points: usize = expected.iter().map(|sample| sample.values.len()).sum();
        assert_eq!(data_points(&read), points, "{written}");
        assert_eq!(read, expected, "{written}");
    }
}

#[test]
fn telemetry_of_another_shape_is_refused() {
    #[rustfmt::skip]
    let table = [
        "null", "1", "\"a\"", "true", "[1]", "[null]", "[[]]", r#"[{"a":1},2]"#, r#"{"ts":1,"values":1}"#,
        r#"{"ts":1,"values":[1]}"#, r#"{"ts":1,"values":null}"#, r#"{"ts":null,"values":{"a":1}}"#,
        r#"{"ts":"now","values":{"a":1}}"#, r#"{"ts":true,"values":{"a":1}}"#, r#"{"ts":1e99,"values":{"a":1}}"#,
        r#"{"":1}"#,
    ];
    for written in table {
        assert!(telemetry(&json(written), NOW_MS, &RULES).is_err(), "{written}");
    }
}

#[test]
fn attributes_are_one_object() {
    let read = |written: &str| attributes(&json(written), &RULES);
    let expected = entries(&[("a", Value::Long(1)), ("ts", Value::Long(2))]);
    assert_eq!(read(r#"{"a":1,"b":null,"ts":2}"#), Ok(expected));
    assert_eq!(read("{}"), Ok(vec![]));
    for written in ["[]", "[{}]", "1", "null", "\"a\""] {
        assert!(read(written).is_err(), "{written}");
    }
    let key = "é".repeat(KEY_CHARS_MAX);
    assert!(read(&format!("{{\"{key}\":1}}")).is_ok());
    assert_eq!(read(&format!("{{\"{key}x\":1}}")), Err(Invalid::Key));
}

#[test]
fn a_value_is_told_as_json_and_as_text() {
    #[rustfmt::skip]
    let table = [
        (Value::Bool(true),             "true",        "true"),
        (Value::Long(-5),               "-5",          "-5"),
        (Value::Double(42.0),           "42.0",        "42.0"),
        (text("a\"b"),                  r#""a\"b""#,   "a\"b"),
        (Value::Json(json(r#"{"a":1.0}"#)), r#"{"a":1.0}"#, r#"{"a":1.0}"#),
    ];
    for (value, as_json, as_text) in table {
        assert_eq!(
            (value.to_json().to_string(), value.to_text()),
            (as_json.into(), as_text.into())
        );
    }
    assert_eq!(object(&[]).to_string(), "{}");
}

proptest! {
    #[test]
    fn no_payload_makes_it_panic(written in r#"[\[\]{}":,0-9e.a tsvalu\-]{0,60}"#) {
        if let Ok(json) = moorline_dialects::thingsboard::json::Json::read(written.as_bytes()) {
            drop(telemetry(&json, NOW_MS, &RULES));
            drop(attributes(&json, &RULES));
        }
    }

    #[test]
    fn numbers_that_were_kept_come_back_of_their_type(long: i64, double: f64) {
        for value in [Value::Long(long), Value::Double(double)] {
            let decimals = value.to_text().split_once('.').map_or(0, |(_, decimals)| decimals.len());
            if value.to_json().is_null() || decimals > 16 || value.to_text().contains('e') {
                continue;
            }
            prop_assert_eq!(Value::of(&value.to_json(), &RULES), Ok(Some(value)));
        }
    }
}

#[test]
fn what_the_core_keeps_of_a_value_is_that_value() {
    let json = json(r#"{"a":[1,2.50]}"#);
    for value in [
        Value::Bool(true),
        Value::Long(-3),
        Value::Double(1.5),
        Value::Text("t".to_owned()),
        Value::Json(json),
    ] {
        assert_eq!(Value::from(&moorline_core::Value::from(&value)), value);
    }
    let none = moorline_core::Value::Json("{".into());
    assert_eq!(Value::from(&none), Value::Text("{".to_owned()));
}
