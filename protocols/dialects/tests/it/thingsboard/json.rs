//! The reader and writer of JSON: what is taken, what is refused, and that numbers stay as they were written.

use moorline_dialects::thingsboard::json::{DEPTH_MAX, Json, NotJson, Number, VALUES_MAX};
use proptest::prelude::*;

use super::support::json;

#[test]
fn what_was_read_is_written_the_same() {
    #[rustfmt::skip]
    let table = [
        ("null", "null"),
        (" true ", "true"),
        ("[ ]", "[]"),
        ("{ }", "{}"),
        ("[1, 2 ,\t3\r\n]", "[1,2,3]"),
        ("-0", "-0"),
        ("1.50", "1.50"),
        ("1E+05", "1E+05"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("0.1234567890123456789", "0.1234567890123456789"),
        (r#"{"b":1,"a":{"c":[]}}"#, r#"{"b":1,"a":{"c":[]}}"#),
        (r#""\u00e9\/\b\f\n\r\t\"\\""#, r#""é/\u0008\u000c\n\r\t\"\\""#),
        (r#""\ud83d\ude00""#, "\"😀\""),
        (r#""\ud83d""#, "\"\u{fffd}\""),
        (r#""\ud83dx""#, "\"\u{fffd}x\""),
        (r#""\ud83d\u0041""#, "\"\u{fffd}A\""),
        (r#""\ude00""#, "\"\u{fffd}\""),
        (r#"{"a":1,"b":2,"a":3}"#, r#"{"a":3,"b":2}"#),
        (r#"{"a":1,"\u0061":null}"#, r#"{"a":null}"#),
    ];
    for (text, expected) in table {
        assert_eq!(json(text).to_string(), expected, "{text}");
    }
}

#[test]
fn what_is_no_json_is_refused_at_its_place() {
    #[rustfmt::skip]
    let table: [(&[u8], NotJson); 34] = [
        (b"",            NotJson::At(0)),  (b"  ",          NotJson::At(2)),
        (b"nul",         NotJson::At(0)),  (b"True",        NotJson::At(0)),
        (b"1 2",         NotJson::At(2)),  (b"01",          NotJson::At(1)),
        (b"+1",          NotJson::At(0)),  (b"-",           NotJson::At(1)),
        (b"1.",          NotJson::At(2)),  (b".5",          NotJson::At(0)),
        (b"1e",          NotJson::At(2)),  (b"1e+",         NotJson::At(3)),
        (b"0x10",        NotJson::At(1)),  (b"NaN",         NotJson::At(0)),
        (b"Infinity",    NotJson::At(0)),  (b"'a'",         NotJson::At(0)),
        (b"[1,]",        NotJson::At(3)),  (b"[1",          NotJson::At(2)),
        (b"[1 2]",       NotJson::At(3)),  (b"{",           NotJson::At(1)),
        (b"{a:1}",       NotJson::At(1)),  (b"{\"a\"}",     NotJson::At(4)),
        (b"{\"a\":}",    NotJson::At(5)),  (b"{\"a\":1,}",  NotJson::At(7)),
        (b"{\"a\":1 1}", NotJson::At(7)),  (b"\"",          NotJson::At(1)),
        (b"\"\n\"",      NotJson::At(1)),  (b"\"\\x\"",     NotJson::At(2)),
        (b"\"\\",        NotJson::At(2)),  (b"\"\\u12\"",   NotJson::At(2)),
        (b"\"\\u+123\"", NotJson::At(2)),  (b"\"\xc3\x28\"", NotJson::Utf8),
        (b"// x\n1",     NotJson::At(0)),  (b"]",           NotJson::At(0)),
    ];
    for (bytes, expected) in table {
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(Json::read(bytes), Err(expected), "{text}");
    }
}

#[test]
fn depth_and_size_are_bounded() {
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    assert!(Json::read(nested(DEPTH_MAX).as_bytes()).is_ok());
    assert_eq!(Json::read(nested(DEPTH_MAX + 1).as_bytes()), Err(NotJson::TooDeep));
    let objects = r#"{"a":"#.repeat(DEPTH_MAX + 1);
    assert_eq!(Json::read(objects.as_bytes()), Err(NotJson::TooDeep));
    let many = |values: usize| format!("[{}1]", "1,".repeat(values - 2));
    assert!(Json::read(many(VALUES_MAX).as_bytes()).is_ok());
    assert_eq!(Json::read(many(VALUES_MAX + 1).as_bytes()), Err(NotJson::TooMany));
}

#[test]
fn doubles_keep_their_point() {
    let table = [(42.0, "42.0"), (0.1, "0.1"), (-2.5e-7, "-2.5e-7"), (1e300, "1e300")];
    for (value, expected) in table {
        assert_eq!(Number::from_f64(value).unwrap().as_str(), expected);
    }
    assert_eq!((Number::from_f64(f64::NAN), Number::from_f64(f64::INFINITY)), (None, None));
    assert_eq!(Number::from_f32(0.1).unwrap().as_str(), "0.1");
    assert_eq!(Number::from(u64::MAX).as_str(), "18446744073709551615");
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(|f| Number::from_f64(f).map_or(Json::Null, Json::Number)),
        any::<String>().prop_map(Json::String),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Json::Array),
            prop::collection::btree_map(any::<String>(), inner, 0..8)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_comes_back(json in any_json()) {
        let text = json.to_string();
        prop_assert_eq!(&Json::read(text.as_bytes()).unwrap(), &json);
        // Another reader agrees that it is JSON.
        prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let ours = Json::read(&bytes).is_ok();
        let theirs = serde_json::from_slice::<serde_json::Value>(&bytes);
        // The other reader refuses half surrogates and numbers beyond a double; nothing else.
        prop_assert!(ours || theirs.is_err());
    }

    #[test]
    fn no_text_makes_it_panic(text in r#"[\[\]{}":,0-9eE+.a\\u \-tfn]{0,40}"#) {
        if let Ok(json) = Json::read(text.as_bytes()) {
            prop_assert_eq!(&Json::read(json.to_string().as_bytes()).unwrap(), &json);
        }
    }
}
