//! Commands: shared attributes that change, calls, and the wish for certificates.

use moorline_dialects::thingsboard::{
    calls::ServerCall,
    sparkplug::{
        commands::{self, Uncallable},
        messages::{Metric, MetricValue, Payload},
    },
    values::Value,
};
use prost::Message;

use super::{Tried, aliased, metric, payload};
use crate::thingsboard::support::{NOW_MS, entries, json, text};

const NOW: u64 = NOW_MS.cast_unsigned();

/// What a command says: its topic, and its one metric.
fn one(topic: &str, bytes: &[u8]) -> (String, Metric) {
    let Payload { timestamp, metrics, seq } = Payload::decode(bytes).unwrap();
    assert_eq!((timestamp, seq, metrics.len()), (Some(NOW), None, 1));
    (topic.to_owned(), metrics.into_iter().next().unwrap())
}

fn told(name: Option<&str>, alias: Option<u64>, datatype: u32, value: MetricValue) -> Metric {
    let (timestamp, datatype, value) = (Some(NOW), Some(datatype), Some(value));
    Metric { name: name.map(str::to_owned), alias, timestamp, datatype, is_null: None, value }
}

fn tried() -> Tried {
    let int = MetricValue::Int(5);
    let own = [
        metric("a", 3, int.clone()),
        aliased(9, metric("b", 11, MetricValue::Boolean(false))),
        metric("untyped", 0, int.clone()),
        Metric { value: None, ..metric("file", 18, int.clone()) },
    ];
    let mut own: Vec<Metric> = own.into();
    // Without a value there need not be a type.
    own[2].value = None;
    Tried::born(&["a"], &own, &[metric("a", 12, MetricValue::Text("x".to_owned()))])
}

#[test]
fn certificates_are_asked_for_by_name() {
    let mut tried = tried();
    tried.says("NDATA/N", &payload(200, &[])).unwrap();
    let command = tried.node.rebirth(NOW_MS).unwrap();
    let (topic, metric) = one(&command.topic, &command.payload);
    let name = Some("Node Control/Rebirth");
    assert_eq!(topic, "spBv1.0/G/NCMD/N");
    assert_eq!(metric, told(name, None, 11, MetricValue::Boolean(true)));
}

#[test]
fn changes_are_told_of_what_there_is() {
    let int = |value| told(Some("a"), None, 3, MetricValue::Int(value));
    let truth = || told(None, Some(9), 11, MetricValue::Boolean(true));
    let device = told(Some("a"), None, 12, MetricValue::Text("6".to_owned()));
    let json = |written| Value::Json(json(written));
    #[rustfmt::skip]
    let table: [(Option<&str>, &str, Value, Vec<Metric>); 13] = [
        (None,      "a",    Value::Long(6),            vec![int(6)]),
        (None,      "b",    Value::Bool(true),         vec![truth()]),
        (Some("D"), "a",    Value::Long(6),            vec![device.clone()]),
        (None,      "NCMD", json(r#"{"a":6,"b":true,"none":1}"#), vec![int(6), truth()]),
        (Some("D"), "DCMD", json(r#"{"a":"6"}"#),      vec![device]),
        // It said so itself.
        (None,      "a",    Value::Long(5),            vec![]),
        (Some("D"), "a",    text("x"),                 vec![]),
        (None,      "a",    text("x"),                 vec![]),
        (None,      "none", Value::Long(5),            vec![]),
        (None,      "untyped", Value::Long(5),         vec![]),
        (None,      "file", Value::Long(5),            vec![]),
        (None,      "DCMD", json(r#"{"a":6}"#),        vec![]),
        (Some("E"), "a",    Value::Long(6),            vec![]),
    ];
    for (device, key, value, expected) in table {
        let told = tried().node.changed(device, &entries(&[(key, value.clone())]), NOW_MS);
        let topic =
            device.map_or("spBv1.0/G/NCMD/N".to_owned(), |name| format!("spBv1.0/G/DCMD/N/{name}"));
        let told: Vec<_> =
            told.iter().map(|command| one(&command.topic, &command.payload)).collect();
        let expected: Vec<_> = expected.into_iter().map(|metric| (topic.clone(), metric)).collect();
        assert_eq!(told, expected, "{device:?} {key} {value:?}");
    }
}

#[test]
fn what_it_said_counts_until_it_is_told_another() {
    let mut tried = tried();
    let is_told = |tried: &mut Tried, value| {
        !tried.node.changed(None, &entries(&[("a", Value::Long(value))]), NOW_MS).is_empty()
    };
    assert!(!is_told(&mut tried, 5));
    assert!(is_told(&mut tried, 6));
    assert!(is_told(&mut tried, 5), "it may have taken the other");
    tried.says("NDATA/N", &payload(2, &[metric("a", 3, MetricValue::Int(7))])).unwrap();
    assert!(!is_told(&mut tried, 7));
    let call = call("NCMD", r#"{"metricName":"a","value":8}"#);
    tried.node.call(None, &call, NOW_MS).unwrap();
    assert!(is_told(&mut tried, 7));
}

fn call(method: &str, params: &str) -> ServerCall {
    ServerCall { id: 1, method: method.to_owned(), params: json(params) }
}

#[test]
fn calls_are_commands() {
    let set = |value: &str| format!(r#"{{"metricName":"a","value":{value}}}"#);
    let int = told(Some("a"), None, 3, MetricValue::Int(6));
    let said = told(Some("a"), None, 12, MetricValue::Text("6".to_owned()));
    #[rustfmt::skip]
    let table = [
        (None,      "NCMD", set("6"),          Ok(int)),
        (Some("D"), "DCMD", set(r#""6""#),     Ok(said)),
        (None,      "DCMD", set("6"),          Err(Uncallable::Method("NCMD"))),
        (Some("D"), "NCMD", set("6"),          Err(Uncallable::Method("DCMD"))),
        (None,      "setGpio", set("6"),       Err(Uncallable::Method("NCMD"))),
        (None,      "NCMD", "{}".to_owned(),   Err(Uncallable::Params)),
        (None,      "NCMD", "6".to_owned(),    Err(Uncallable::Params)),
        (None,      "NCMD", set("null"),       Err(Uncallable::Params)),
        (None,      "NCMD", r#"{"metricName":1,"value":1}"#.to_owned(), Err(Uncallable::Params)),
        (None,      "NCMD", r#"{"metricName":"c","value":1}"#.to_owned(), Err(Uncallable::NoSuchMetric)),
        (Some("E"), "DCMD", set("6"),          Err(Uncallable::NoSuchMetric)),
        (None,      "NCMD", set(r#""x""#),     Err(Uncallable::Value)),
        (None,      "NCMD", set("3000000000"), Err(Uncallable::Value)),
    ];
    for (device, method, params, expected) in table {
        let made = tried().node.call(device, &call(method, &params), NOW_MS);
        let made = made.map(|command| one(&command.topic, &command.payload).1);
        assert_eq!(made, expected, "{device:?} {method} {params}");
    }
    assert_eq!(commands::done("NCMD"), r#"{"result":"Success: NCMD"}"#);
    let answer = Uncallable::NoSuchMetric.answer();
    assert_eq!(json(&answer).get("result"), Some(&json(r#""BAD_REQUEST_PARAMS""#)));
    assert!(json(&Uncallable::Params.answer()).get("error").is_some());
}
