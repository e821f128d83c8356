//! Cases 1 to 11: bytes that are no MQTT, packets that nobody may send, topics that nobody may use.

use std::{net::Ipv4Addr, time::Instant};

use super::{Raw, Target, connect, is_full, last_words, opened};
use crate::harness::{
    packet::{Connect, Version, frame, publish, put_text, subscribe},
    wait::SOON,
};

const V4: Version = Version::V4;
const V5: Version = Version::V5;
const BAD: &str = "moorline_connections_closed_total{reason=\"malformed\"}";

/// A case, the bytes, what is heard up to the end.
type Row = (u8, Vec<u8>, &'static str);

/// Everything whose first packet is wrong.
#[rustfmt::skip]
fn first_packets() -> Vec<Row> {
    let with_name = |name: &[u8], level: u8| {
        let mut body = u16::try_from(name.len()).unwrap().to_be_bytes().to_vec();
        body.extend(name);
        body.extend([level, 2, 0, 0, 0, 1, b'c']);
        frame(0x10, &body)
    };
    let trailing = |version| connect(version, 2, b"c", b"rest");
    vec![
        (1, b"\x10\xff\xff\xff\xff\x7f".to_vec(),      "closed"),
        (3, publish(V4, 0, "t", b"", None),            "closed"),
        (3, subscribe(V4, 1, &[("t", 0)]),             "closed"),
        (3, b"\xc0\x00".to_vec(),                      "closed"),
        (3, b"\xf0\x00".to_vec(),                      "closed"),
        (3, b"\x00\x00".to_vec(),                      "closed"),
        (6, connect(V4, 0x42, b"c", b"\x00\x01p"),     "closed"),
        (6, connect(V4, 0x03, b"c", b""),              "closed"),
        (6, connect(V4, 0x1e, b"c", b"\x00\x01t\x00\x01p"), "closed"),
        (6, connect(V4, 0x22, b"c", b""),              "closed"),
        (6, connect(V5, 0x03, b"c", b""),              "connack 0x81"),
        (6, connect(V5, 0x1e, b"c", b"\x00\x00\x01t\x00\x01p"), "connack 0x81"),
        (6, connect(V5, 0x22, b"c", b""),              "connack 0x81"),
        (7, trailing(V4),                              "closed"),
        (7, trailing(V5),                              "closed"),
        (8, with_name(b"MQIsdp", 4),                   "connack 0x01"),
        (8, with_name(b"MQTT\0", 4),                   "closed"),
        (8, with_name(b"MQTT", 3),                     "connack 0x01"),
        (8, with_name(b"MQTT", 6),                     "connack 0x01"),
        (8, with_name(b"MQTT", 255),                   "connack 0x01"),
        (9, connect(V5, 2, b"\xff\xfe", b""),          "closed"),
        (9, connect(V5, 2, b"\xed\xa0\x80", b""),      "closed"),
        (9, connect(V5, 2, b"a\0b", b""),              "closed"),
        (9, connect(V5, 2, b"\xc0\xaf", b""),          "closed"),
        (9, connect(V4, 2, b"\xed\xa0\x80", b""),      "closed"),
    ]
}

/// Everything that is wrong on an open connection, of either version.
#[rustfmt::skip]
fn later_packets() -> Vec<Row> {
    let topic = |bytes: &[u8]| {
        let mut body = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        body.extend(bytes);
        body
    };
    let v5 = |bytes: &[u8]| frame(0x30, &[topic(bytes), vec![0]].concat());
    let long = vec![b'/'; 65_535];
    vec![
        (1,  b"\x30\xff\xff\xff\xff\x7f".to_vec(),    "disconnect 0x81"),
        (4,  connect(V5, 2, b"c", b""),               "disconnect 0x82"),
        (5,  b"\x20\x03\x00\x00\x00".to_vec(),        "disconnect 0x82"),
        (5,  b"\x90\x04\x00\x01\x00\x00".to_vec(),    "disconnect 0x82"),
        (5,  b"\xd0\x00".to_vec(),                    "disconnect 0x82"),
        (9,  v5(b"\xed\xa0\x80"),                     "disconnect 0x81"),
        (9,  v5(b"a\0b"),                             "disconnect 0x81"),
        (10, v5(b""),                                 "disconnect 0x82"),
        (10, v5(b"a/+"),                              "disconnect 0x81"),
        (10, v5(b"#"),                                "disconnect 0x81"),
        (10, v5(&long),                               "disconnect 0x90"),
        (10, v5("a/".repeat(16).as_bytes()),          "disconnect 0x90"),
        (11, b"\x32\x06\x00\x01t\x00\x00\x00".to_vec(), "disconnect 0x82"),
    ]
}

#[test]
fn bytes_that_are_no_mqtt_end_their_connection_and_nothing_else() {
    let mut target = Target::start("", "");
    target.abused("cases 1 to 11", BAD, |target| {
        for (case, bytes, expected) in first_packets() {
            let mut raw = Raw::to(target.mqtt);
            raw.say(&bytes);
            let heard = last_words(&raw.rest());
            assert_eq!(heard, expected, "case {case}: {:x?}", &bytes[..bytes.len().min(40)]);
        }
        for (case, bytes, expected) in later_packets() {
            let mut raw = opened(target, V5, "later");
            raw.say(&bytes);
            let heard = last_words(&raw.rest());
            assert_eq!(heard, expected, "case {case}: {:x?}", &bytes[..bytes.len().min(40)]);
            if bytes[0] & 0xF0 == 0x30 {
                continue; // a publish has other bytes before MQTT 5
            }
            let mut raw = opened(target, V4, "later");
            raw.say(&bytes);
            assert_eq!(last_words(&raw.rest()), "closed", "case {case}, 3.1.1");
        }
        // A byte order mark is a character like any other ([MQTT-1.5.4-3]).
        let mut raw = Raw::to(target.mqtt);
        raw.say(&connect(V5, 2, "\u{feff}c".as_bytes(), b""));
        assert_eq!(raw.packet()[3], 0);
    });
}

#[test]
fn what_only_has_to_be_refused_leaves_the_connection_open() {
    let mut target = Target::start("", "");
    target.abused("cases 10 and 11", &super::limit_metric("topic_levels_max"), |target| {
        let mut raw = opened(target, V5, "refused");
        let deep = "a/".repeat(16);
        raw.say(&publish(V5, 7, &deep, b"", None));
        assert_eq!(raw.packet()[..5], [0x40, 3, 0, 7, 0x90], "a topic of 17 levels");
        let slashes = "/".repeat(65_535);
        let filters = [("a/#/b", 1), ("a+", 1), (deep.as_str(), 1), (slashes.as_str(), 1)];
        raw.say(&subscribe(V5, 8, &filters));
        assert_eq!(raw.packet()[5..], [0x8F; 4]);
        // Acknowledgements of what nobody sent.
        for id in (1..=u16::MAX).step_by(1_000) {
            for kind in [0x40, 0x50, 0x70] {
                raw.say(&frame(kind, &id.to_be_bytes()));
            }
            assert_eq!(raw.packet()[..2], [0x62, 2], "to the PUBREC: a PUBREL");
        }
        raw.say(&frame(0x62, &[0, 9]));
        assert_eq!(raw.packet(), [0x70, 2, 0, 9]);
        raw.say(&[0xC0, 0]);
        assert_eq!(raw.packet(), [0xD0, 0]);
    });
    assert!(target.metric("moorline_unknown_acks_total") > 100);
    assert!(target.reached("topic_bytes_max") > 0);
}

#[test]
fn a_second_connect_leaves_the_session_as_it_was() {
    let mut target = Target::start("", "");
    let bad = "moorline_connections_closed_total{reason=\"protocol_error\"}";
    target.abused("case 4", bad, |target| {
        let session = Connect::durable(V5, "twice");
        let (mut client, _) = session.to(target.mqtt);
        client.subscribe_1("twice");
        client.send(&crate::harness::packet::connect(&session)).unwrap();
        let heard = client.hear(SOON);
        assert_eq!(format!("{heard:?}"), "Packet(Disconnect { reason: 130 })");
        let (mut publisher, _) = Connect::clean(V5, "twice-publisher").to(target.mqtt);
        publisher.publish_acked("twice", b"kept");
        let (mut client, present) = session.to(target.mqtt);
        assert!(present);
        assert_eq!(client.take(1), ["kept"]);
    });
}

#[test]
fn a_length_that_is_announced_is_not_memory() {
    let many = if is_full() { 1_000 } else { 200 };
    let mut target = Target::start("", "");
    let limit = super::limit_metric("first_packet_ms");
    target.abused("case 2", &limit, |target| {
        let began = Instant::now();
        let mut raws = Vec::new();
        for number in 0..many {
            // As many from each address as may be strangers.
            let source = Ipv4Addr::new(127, 77, 0, 1 + u8::try_from(number / 50).unwrap());
            let mut raw = Raw::from(source, target.mqtt).unwrap();
            // 268,435,455 bytes, of which the first come one by one.
            raw.say(b"\x10\xff\xff\xff\x7f\x00");
            raws.push(raw);
        }
        for raw in &mut raws {
            raw.say(b"\x04");
        }
        for raw in raws {
            assert_eq!(last_words(&raw.rest()), "closed");
        }
        assert!(began.elapsed() < SOON);
    });
    // Who says its version is told at once.
    let mut raw = Raw::to(target.mqtt);
    let mut bytes = b"\x10\xff\xff\xff\x7f".to_vec();
    put_text(&mut bytes, "MQTT");
    bytes.extend([5, 2, 0]);
    raw.say(&bytes);
    assert_eq!(last_words(&raw.rest()), "connack 0x95");
    assert!(target.reached("connect_bytes_max") > 0);
}
