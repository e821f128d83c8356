//! What a device reports: each type, each conversion, and what is left out.

use moorline_core::{Double, Text, Value as Kept};
use moorline_dialects::losant::{
    device::{Attributes, DataType},
    state::{REPORTS_MAX, TEXT_BYTES_MAX, composite, converted, read, read_strictly, shown},
};
use serde_json::{Value, json};

use super::{DEVICE, NOW, id};

fn attributes() -> Attributes {
    let all = [
        ("n", DataType::Number),
        ("s", DataType::String),
        ("door-open", DataType::Boolean),
        ("at", DataType::Gps),
    ];
    all.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect()
}

fn text(text: &str) -> Option<Kept> {
    Some(Kept::Text(Text::from(text)))
}

fn double(value: f64) -> Option<Kept> {
    Some(Kept::Double(Double::new(value).unwrap()))
}

#[test]
fn values_become_of_their_attributes_type_or_are_left_out() {
    use DataType::{Blob, Boolean, Gps, Number, String};
    let long = "x".repeat(TEXT_BYTES_MAX);
    #[rustfmt::skip]
    let table = [
        (Number,  json!(21.5),          double(21.5)),
        (Number,  json!(21),            Some(Kept::Long(21))),
        (Number,  json!(u64::MAX),      double(18_446_744_073_709_551_615.0)),
        (Number,  json!(" 21.5 "),      double(21.5)),
        (Number,  json!("21"),          Some(Kept::Long(21))),
        (Number,  json!("1e3"),         double(1_000.0)),
        (Number,  json!(true),          Some(Kept::Long(1))),
        (Number,  json!("warm"),        None),
        (Number,  json!(""),            None),
        (Number,  json!("inf"),         None),
        (Number,  json!("1e999"),       None),
        (Number,  json!([1]),           None),
        (Number,  json!({}),            None),
        (Boolean, json!(false),         Some(Kept::Bool(false))),
        (Boolean, json!(0),             Some(Kept::Bool(false))),
        (Boolean, json!(2.5),           Some(Kept::Bool(true))),
        (Boolean, json!(" True "),      Some(Kept::Bool(true))),
        (Boolean, json!("0"),           Some(Kept::Bool(false))),
        (Boolean, json!("open"),        None),
        (Boolean, json!([]),            None),
        (String,  json!("bay 4"),       text("bay 4")),
        (String,  json!(""),            text("")),
        (String,  json!(4.5),           text("4.5")),
        (String,  json!(true),          text("true")),
        (String,  json!({ "a": 1 }),    None),
        (String,  json!(long),          text(&long)),
        (String,  json!(format!("{long}x")), None),
        (Blob,    json!("aGk="),        text("aGk=")),
        (Gps,     json!("37.5,-122"),   text("37.5,-122")),
        (Gps,     json!("40:26:46N,79:58:56W"), text("40.4461111,-79.9822222")),
        (Gps,     json!("nowhere"),     None),
        (Gps,     json!(37.5),          None),
    ];
    for (kind, said, expected) in table {
        assert_eq!(converted(kind, said.clone()), expected, "{kind:?} {said:.80}");
    }
}

#[test]
fn a_report_counts_for_what_the_device_has() {
    let said = json!({
        "data": { "n": 1, "s": null, "other": 2, "door-open": "maybe", "at": "1,2" },
        "time": { "$date": NOW - 5 }, "flowVersion": "v2", "meta": { "batch": 17 }, "extra": 1,
    });
    let reports = read(said.to_string().as_bytes()).unwrap();
    let [report] = &reports[..] else { panic!("one") };
    let state = report.clone().counted(&attributes(), NOW).unwrap();
    assert_eq!((state.at_ms, state.left_out), (NOW - 5, 2), "null is nothing said");
    let keys: Vec<_> = state.values.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["at", "n"]);
    assert_eq!(
        state.event(&Text::from("app"), &id(DEVICE)),
        json!({
            "time": "2026-01-02T03:04:05.673Z", "data": { "n": 1, "at": "1,2" },
            "applicationId": "app", "deviceId": DEVICE, "flowVersion": "v2", "meta": { "batch": 17 },
        })
    );
    let old = json!({ "data": { "n": 1 }, "time": 1_000 });
    let old = read(old.to_string().as_bytes()).unwrap().remove(0);
    assert_eq!(old.counted(&attributes(), NOW), None, "ignored as a whole");
}

#[test]
fn messages_are_lenient_and_requests_are_not() {
    #[rustfmt::skip]
    let table = [
        (json!({ "data": {} }),                         Some(1), Some(1)),
        (json!([{ "data": {} }, { "data": {} }]),       Some(2), Some(2)),
        (json!([]),                                     Some(0), Some(0)),
        (json!({ "data": {}, "x": 1 }),                 Some(1), None),
        (json!({ "data": {}, "flowVersion": 7 }),       Some(1), None),
        (json!({ "data": {}, "flowVersion": "" }),      Some(1), None),
        (json!({ "data": {}, "time": "soon" }),         Some(1), Some(1)),
        (json!({ "data": [] }),                         None,    None),
        (json!({ "data": 1 }),                          None,    None),
        (json!({}),                                     None,    None),
        (json!(1),                                      None,    None),
        (json!([1]),                                    None,    None),
        (json!(vec![json!({ "data": {} }); REPORTS_MAX + 1]), None, None),
    ];
    for (said, lenient, strict) in table {
        let bytes = said.to_string();
        let count = |read: Result<Vec<_>, _>| read.ok().map(|all| all.len());
        assert_eq!(count(read(bytes.as_bytes())), lenient, "{said:.80}");
        assert_eq!(count(read_strictly(bytes.as_bytes())), strict, "{said:.80}");
    }
    for wrong in [&b""[..], b"{", b"\xff", b"{\"data\":{}} x"] {
        assert!(read(wrong).is_err());
    }
}

#[test]
fn what_is_kept_is_shown_as_it_was_said() {
    let values = [(Text::from("n"), Kept::Long(1)), (Text::from("s"), Kept::Text(Text::from("x")))];
    let expected = json!({ "time": "2026-01-02T03:04:05.678Z", "data": { "n": 1, "s": "x" } });
    assert_eq!(shown(NOW, &values), expected);
    let latest =
        [(Text::from("$command"), NOW, Kept::Long(1)), (Text::from("n"), NOW, Kept::Bool(true))];
    let one = json!({ "value": true, "time": "2026-01-02T03:04:05.678Z" });
    assert_eq!(composite(&latest), json!({ "n": one }), "what is no attribute is not shown");
    assert_eq!(composite(&[]), Value::Object(serde_json::Map::new()));
}
