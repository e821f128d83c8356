//! A node's life: what it has to say first, its numbers and aliases, and what its messages mean.

use moorline_dialects::thingsboard::{
    invalid::Invalid,
    sparkplug::{
        messages::{Metric, MetricValue, Payload},
        metrics::{Reading, Report},
        node::{self, DEVICES_MAX, Left, METRICS_MAX, Node, NotANode, Said, Unsaid},
    },
    values::{Sample, Value},
};
use prost::Message;

use super::{Tried, WILL, aliased, bd_seq, metric, only, payload};
use crate::thingsboard::support::{NOW_MS, RULES, entries, text};

const INT: MetricValue = MetricValue::Int(5);

fn sample(ts_ms: i64, values: &[(&str, Value)]) -> Sample {
    Sample { ts_ms, values: entries(values) }
}

fn online() -> Sample {
    sample(NOW_MS, &[("sparkplugConnectionState", text("ONLINE"))])
}

#[test]
fn a_connection_is_a_nodes_by_its_will() {
    let will = Payload { metrics: vec![bd_seq(7)], timestamp: Some(9), seq: None }.encode_to_vec();
    let good = Left { clean: true, topic: WILL, payload: &will, plain: true };
    let by = Reading { attributes: &[], now_ms: NOW_MS, rules: &RULES };
    let connect = |left| Node::connect(left, &by).map(|(_, said)| said);
    assert_eq!(connect(good), Ok(vec![sample(9, &[("NDEATH bdSeq", Value::Long(7))])]));
    #[rustfmt::skip]
    let refused = [
        (Left { clean: false, ..good },                    NotANode::NotClean),
        (Left { topic: "spBv1.0/G/NBIRTH/N", ..good },     NotANode::Will),
        (Left { topic: "", payload: b"", ..good },         NotANode::Will),
        (Left { payload: b"\x12\xff", ..good },            NotANode::Will),
        (Left { plain: false, ..good },                    NotANode::Will),
    ];
    for (left, why) in refused {
        assert_eq!(connect(left), Err(why), "{left:?}");
    }
}

#[test]
fn certificates_come_first() {
    let mut tried = Tried::new(&[]);
    let data = payload(1, &[metric("t", 3, INT)]);
    for topic in ["NDATA/N", "DBIRTH/N/D", "DDATA/N/D", "DDEATH/N/D", "NDEATH/N"] {
        assert_eq!(tried.says(topic, &data), Err(Unsaid::Unborn), "{topic}");
    }
    assert!(tried.is_asked());
    assert!(!tried.is_asked(), "once");
    assert!(!tried.node.is_born(None));

    let said = tried.says("NBIRTH/N", &payload(0, &[bd_seq(7), metric("t", 3, INT)]));
    let at = sample(1_000, &[("NBIRTH bdSeq", Value::Long(7)), ("t", Value::Long(5))]);
    let report = Report { telemetry: vec![at, online()], attributes: Vec::new() };
    assert_eq!(said, Ok(Said::Born(report)));
    assert_eq!(tried.says("DDATA/N/D", &data), Err(Unsaid::Unborn));
    assert!(tried.is_asked(), "again after a certificate");

    let said = tried.says("DBIRTH/N/D", &payload(1, &[metric("t", 3, INT)]));
    let at = sample(1_000, &[("t", Value::Long(5))]);
    let seq = sample(1_000, &[("DBIRTH seq", Value::Long(1))]);
    let report = Report { telemetry: vec![at.clone(), online(), seq], attributes: Vec::new() };
    assert_eq!(said, Ok(Said::DeviceBorn("D".to_owned(), report)));
    let report = Report { telemetry: vec![at], attributes: Vec::new() };
    let said = tried.says("DDATA/N/D", &payload(2, &[metric("t", 3, INT)]));
    assert_eq!(said, Ok(Said::DeviceData("D".to_owned(), report)));
    assert_eq!(tried.node.devices().collect::<Vec<_>>(), ["D"]);

    let said = tried.says("DDEATH/N/D", &payload(3, &[]));
    assert_eq!(said, Ok(Said::DeviceDied("D".to_owned())));
    assert_eq!(tried.says("DDATA/N/D", &payload(4, &[])), Err(Unsaid::Unborn));
}

#[test]
fn a_death_belongs_to_its_birth() {
    let mut tried = Tried::born(&[], &[], &[]);
    let no_number = Invalid::Shape("a death certificate has the bdSeq of the birth");
    for wrong in [vec![], vec![bd_seq(8)], vec![metric("x", 4, MetricValue::Long(7))]] {
        let said = tried.says("NDEATH/N", &payload(0, &wrong));
        assert_eq!(said, Err(Unsaid::Invalid(no_number.clone())), "{wrong:?}");
    }
    assert_eq!(tried.says("NDEATH/N", &payload(0, &[bd_seq(7)])), Ok(Said::Died));
    assert!(!tried.node.is_born(None) && !tried.node.is_born(Some("D")));
    let state = ("sparkplugConnectionState", text("OFFLINE"));
    assert_eq!(node::gone(NOW_MS), sample(NOW_MS, &[state]));
    // It may come again on the same connection.
    assert!(tried.says("NBIRTH/N", &payload(0, &[bd_seq(8)])).is_ok());
}

#[test]
fn a_gap_in_the_numbers_has_it_asked() {
    #[rustfmt::skip]
    let table: [(&[Option<u64>], bool); 7] = [
        (&[Some(2), Some(3)],             false),
        (&[Some(3)],                      true),
        (&[Some(1)],                      true),
        (&[None, Some(2)],                false),
        (&[Some(3), Some(4), Some(9)],    true),
        (&[],                             false),
        (&[Some(0)],                      true),
    ];
    for (numbers, expected) in table {
        let mut tried = Tried::born(&[], &[metric("t", 3, INT)], &[]);
        for seq in numbers {
            let said = Payload { seq: *seq, ..payload(0, &[metric("t", 3, INT)]) };
            assert!(matches!(tried.says("NDATA/N", &said), Ok(Said::Data(_))), "{numbers:?}");
        }
        assert_eq!(tried.is_asked(), expected, "{numbers:?}");
        assert!(!tried.is_asked(), "once");
    }
    // It counts round.
    let mut tried = Tried::new(&[]);
    tried.says("NBIRTH/N", &payload(255, &[bd_seq(7)])).unwrap();
    tried.says("NDATA/N", &payload(0, &[])).unwrap();
    assert!(!tried.is_asked());
    let said = tried.says("NDATA/N", &payload(256, &[]));
    assert_eq!(said, Err(Unsaid::Invalid(Invalid::Shape("seq is a number of 0 to 255"))));
}

#[test]
fn aliases_are_of_certificates() {
    let own = [aliased(1, metric("t", 3, INT)), aliased(2, metric("u", 12, written()))];
    let mut tried =
        Tried::born(&[], &own, &[aliased(3, metric("t", 10, MetricValue::Double(1.0)))]);
    // The type is the certificate's.
    let said = tried.says("NDATA/N", &payload(2, &[only(1, MetricValue::Int(6))]));
    let at = sample(1_000, &[("t", Value::Long(6))]);
    assert_eq!(said, Ok(Said::Data(Report { telemetry: vec![at], attributes: Vec::new() })));
    // An empty name is none.
    let unnamed = Metric { name: Some(String::new()), ..only(2, written()) };
    assert!(tried.says("NDATA/N", &payload(3, &[unnamed])).is_ok());
    assert!(!tried.is_asked());
    for (topic, alias) in [("NDATA/N", 3), ("DDATA/N/D", 1), ("NDATA/N", 9)] {
        let said = tried.says(topic, &payload(4, &[only(alias, INT)]));
        assert_eq!(said, Err(Unsaid::Unborn), "{topic} {alias}");
    }
    assert!(tried.is_asked());
    // The last certificate counts.
    tried.says("NBIRTH/N", &payload(0, &[bd_seq(7), aliased(1, metric("v", 3, INT))])).unwrap();
    let said = tried.says("NDATA/N", &payload(1, &[only(1, INT)]));
    let at = sample(1_000, &[("v", Value::Long(5))]);
    assert_eq!(said, Ok(Said::Data(Report { telemetry: vec![at], attributes: Vec::new() })));
}

fn written() -> MetricValue {
    MetricValue::Text("x".to_owned())
}

#[test]
fn metrics_are_telemetry_or_attributes() {
    let names = ["Properties/*", "fw"];
    let own = [
        metric("Properties/hw", 12, written()),
        metric("fw", 12, written()),
        metric("fw2", 12, written()),
    ];
    let mut tried = Tried::new(&names);
    let said = tried.says("NBIRTH/N", &payload(0, &own));
    let at = sample(1_000, &[("fw2", text("x"))]);
    let attributes = entries(&[("Properties/hw", text("x")), ("fw", text("x"))]);
    let report = Report { telemetry: vec![at, online()], attributes };
    assert_eq!(said, Ok(Said::Born(report)));

    // What steers packages is not set by who loads them.
    let mut all = Tried::new(&["*", "fw_title"]);
    let said = [metric("fw_title", 12, written()), metric("sw_url", 12, written())];
    let said = all.says("NBIRTH/N", &payload(0, &said));
    let at = sample(1_000, &[("fw_title", text("x")), ("sw_url", text("x"))]);
    let report = Report { telemetry: vec![at, online()], attributes: Vec::new() };
    assert_eq!(said, Ok(Said::Born(report)));

    // Times are the metric's, the message's, the server's; nulls leave nothing.
    let at = |ts| Metric { timestamp: Some(ts), ..metric("fw2", 12, written()) };
    let null = Metric { is_null: Some(true), ..metric("fw2", 12, written()) };
    let nothing = Metric { value: None, ..metric("fw2", 12, written()) };
    let said = [at(9), at(8), metric("fw2", 0, written()), null, nothing];
    let said = tried.says("NDATA/N", &payload(1, &said));
    let value = |ts_ms| sample(ts_ms, &[("fw2", text("x"))]);
    let telemetry = vec![value(8), value(9), value(1_000)];
    assert_eq!(said, Ok(Said::Data(Report { telemetry, attributes: Vec::new() })));
    let said = Payload { timestamp: None, ..payload(2, &[metric("fw2", 12, written())]) };
    let telemetry = vec![value(NOW_MS)];
    let report = Report { telemetry, attributes: Vec::new() };
    assert_eq!(tried.says("NDATA/N", &said), Ok(Said::Data(report)));
    assert!(!tried.is_asked());

    // One that no certificate has is taken, and they are asked for.
    let said = tried.says("NDATA/N", &payload(3, &[metric("new", 3, INT)]));
    let at = sample(1_000, &[("new", Value::Long(5))]);
    assert_eq!(said, Ok(Said::Data(Report { telemetry: vec![at], attributes: Vec::new() })));
    assert!(tried.is_asked());
}

#[test]
fn what_cannot_be_read_is_refused() {
    let mut tried = Tried::born(&[], &[metric("t", 3, INT)], &[]);
    let no_name = Metric { name: None, ..metric("", 3, INT) };
    let both = [aliased(1, metric("a", 3, INT)), aliased(1, metric("b", 3, INT))];
    let twice = [aliased(1, metric("a", 3, INT)), aliased(2, metric("a", 3, INT))];
    let late = Metric { timestamp: Some(u64::MAX), ..metric("t", 3, INT) };
    let long = metric(&"k".repeat(256), 3, INT);
    #[rustfmt::skip]
    let table: [(&str, Vec<Metric>); 11] = [
        ("NBIRTH/N",  vec![no_name.clone()]),
        ("NBIRTH/N",  vec![metric("", 3, INT)]),
        ("NBIRTH/N",  both.to_vec()),
        ("NBIRTH/N",  twice.to_vec()),
        ("DBIRTH/N/D", twice.to_vec()),
        ("NBIRTH/N",  vec![long.clone()]),
        ("NDATA/N",   vec![long]),
        ("NDATA/N",   vec![late]),
        ("NDATA/N",   vec![metric("t", 3, written())]),
        ("NDATA/N",   vec![metric("t", 35, INT)]),
        ("NDATA/N",   vec![metric("untyped", 0, INT)]),
    ];
    for (topic, metrics) in table {
        let said = tried.says(topic, &payload(2, &metrics));
        assert!(matches!(said, Err(Unsaid::Invalid(_))), "{topic} {metrics:?} {said:?}");
        assert!(tried.node.is_born(None), "what was known stays");
    }
    assert_eq!(tried.says("NDATA/N", &payload(2, &[no_name])), Err(Unsaid::Unborn));
    let said = tried.says_bytes("spBv1.0/G/NDATA/N", b"\x12\xff");
    assert!(matches!(said, Err(Unsaid::Invalid(_))));
    for topic in ["spBv1.0/G/NCMD/N", "spBv1.0/G/NDATA/M", "v1/devices/me/telemetry", "x"] {
        assert_eq!(tried.says_bytes(topic, b""), Err(Unsaid::Topic), "{topic}");
    }
}

#[test]
fn a_node_has_limits() {
    let many = |from: usize, count: usize| -> Vec<Metric> {
        let name = |number: usize| metric(&number.to_string(), 3, INT);
        (from..from + count).map(name).collect()
    };
    let mut tried = Tried::born(&[], &[], &[]);
    // One is the node's own bdSeq.
    let all = payload(2, &many(0, METRICS_MAX - 1));
    assert!(tried.says("DBIRTH/N/D", &all).is_ok());
    assert!(tried.says("DBIRTH/N/D", &all).is_ok(), "in the place of the earlier ones");
    assert_eq!(tried.says("DBIRTH/N/E", &payload(3, &many(0, 1))), Err(Unsaid::TooMuch));
    assert_eq!(tried.says("NBIRTH/N", &payload(3, &many(0, 2))), Err(Unsaid::TooMuch));
    tried.says("DDEATH/N/D", &payload(3, &[])).unwrap();
    assert!(tried.says("DBIRTH/N/E", &payload(4, &many(0, 1))).is_ok());

    let mut tried = Tried::born(&[], &[], &[]);
    for number in 1..DEVICES_MAX {
        tried.says(&format!("DBIRTH/N/d{number}"), &payload(0, &[])).unwrap();
    }
    assert_eq!(tried.says("DBIRTH/N/more", &payload(0, &[])), Err(Unsaid::TooMuch));
    assert!(tried.says("DBIRTH/N/D", &payload(0, &[])).is_ok(), "one that is there");
    tried.node.forget("D");
    assert!(tried.says("DBIRTH/N/more", &payload(0, &[])).is_ok());
}
