//! Cases 13 to 16 and 18: properties that stand in the wrong place, too often, or with too much in them.

use super::{Raw, Target, connect_with, last_words, limit_metric, opened};
use crate::harness::packet::{Connect, Version, frame, put_properties, put_text, subscribe};

const V5: Version = Version::V5;

fn user(name: &str, value: &str) -> Vec<u8> {
    let mut property = vec![0x26];
    put_text(&mut property, name);
    put_text(&mut property, value);
    property
}

/// A PUBLISH with properties; `id` is 0 for QoS 0.
fn publish(id: u16, topic: &str, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    put_text(&mut body, topic);
    if id != 0 {
        body.extend(id.to_be_bytes());
    }
    put_properties(&mut body, properties);
    body.extend(payload);
    frame(0x30 | u8::from(id != 0) << 1, &body)
}

fn alias(alias: u8) -> [u8; 3] {
    [0x23, 0, alias]
}

#[test]
fn wrong_properties_and_aliases_end_their_connection() {
    let subscribe_with = |properties: &[u8]| {
        let mut body = vec![0, 1];
        put_properties(&mut body, properties);
        put_text(&mut body, "t");
        body.push(0);
        frame(0x82, &body)
    };
    #[rustfmt::skip]
    let table = [
        (13, publish(0, "t", b"\x01\x00\x01\x00", b""),     "disconnect 0x82"),
        (13, publish(0, "t", b"\x11\x00\x00\x00\x01", b""), "disconnect 0x82"),
        (13, publish(0, "t", b"\x7e\x00", b""),             "disconnect 0x81"),
        (13, b"\x30\x05\x00\x01t\x7f\x01".to_vec(),         "disconnect 0x81"),
        (13, subscribe_with(b"\x0b\x00"),                   "disconnect 0x82"),
        (14, publish(0, "t", &alias(0), b""),               "disconnect 0x94"),
        (14, publish(0, "t", &alias(11), b""),              "disconnect 0x94"),
        (14, publish(0, "", &alias(5), b""),                "disconnect 0x82"),
    ];
    let mut target = Target::start("", "");
    target.abused("cases 13 and 14", &limit_metric("topic_alias_max"), |target| {
        for (case, bytes, expected) in &table {
            let mut raw = opened(target, V5, "properties");
            raw.say(bytes);
            assert_eq!(last_words(&raw.rest()), *expected, "case {case}: {bytes:x?}");
        }
    });
}

#[test]
fn an_alias_ends_with_its_connection_and_goes_to_nobody() {
    let mut target = Target::start("", "");
    let bad = "moorline_connections_closed_total{reason=\"protocol_error\"}";
    target.abused("case 14", bad, |target| {
        let mut hearer = opened(target, V5, "alias-in");
        hearer.say(&subscribe(V5, 1, &[("aliased", 0)]));
        hearer.packet();
        let mut sender = opened(target, V5, "alias-out");
        sender.say(&publish(0, "aliased", &alias(10), b"1"));
        sender.say(&publish(0, "", &alias(10), b"2"));
        for payload in [b'1', b'2'] {
            let expected = publish(0, "aliased", &[], &[payload]);
            assert_eq!(hearer.packet(), expected, "with its topic and without the alias");
        }
        let mut again = opened(target, V5, "alias-out");
        again.say(&publish(0, "", &alias(10), b"3"));
        assert_eq!(last_words(&again.rest()), "disconnect 0x82");
    });
}

#[test]
fn properties_have_a_number_and_a_size() {
    let many = |count: usize| user("", "").repeat(count);
    let long = "x".repeat(4_096);
    let reason = |bytes: usize| {
        let mut property = vec![0x1f];
        put_text(&mut property, &"r".repeat(bytes));
        let mut body = vec![0, 1, 0x80];
        put_properties(&mut body, &property);
        frame(0x40, &body)
    };
    let mut target = Target::start("", "");
    target.abused("case 15", &limit_metric("user_properties_max"), |target| {
        for (bytes, expected) in [
            (publish(0, "t", &many(10_000), b""), "disconnect 0x97"),
            (publish(0, "t", &many(33), b""), "disconnect 0x97"),
            (publish(0, "t", &user("n", &long), b""), "disconnect 0x97"),
            (reason(65_000), "disconnect 0x97"),
        ] {
            let mut raw = opened(target, V5, "many");
            raw.say(&bytes);
            assert_eq!(last_words(&raw.rest()), expected);
        }
        let mut raw = Raw::to(target.mqtt);
        raw.say(&connect_with(V5, 2, &many(33), b"c", &[]));
        assert_eq!(last_words(&raw.rest()), "connack 0x97");
        let mut raw = opened(target, V5, "many");
        raw.say(&publish(1, "t", &[many(31), user("n", &long[..4_000])].concat(), b""));
        assert_eq!(raw.packet()[..2], [0x40, 3], "32 of 4 KiB together pass");
    });
    assert!(target.reached("property_bytes_max") >= 2);
    let log = target.cluster.node(1).log();
    assert!(!log.contains(&"x".repeat(64)) && !log.contains(&"r".repeat(64)), "not into the log");
}

#[test]
fn strange_but_allowed_values_pass_and_mean_nothing_more() {
    let mut target = Target::start("", "");
    let counted = "moorline_messages_received_total{protocol=\"mqtt5\",qos=\"1\"}";
    target.abused("cases 16 and 18", counted, |target| {
        let (mut hearer, _) = Connect::clean(V5, "strange-in").to(target.mqtt);
        hearer.subscribe_1("strange");
        hearer.subscribe_1("elsewhere/#");
        let mut raw = opened(target, V5, "strange-out");
        // No UTF-8 though it says so: a server need not look (3.3.2.3.2).
        raw.say(&publish(1, "strange", b"\x01\x01", b"\xff\xfe"));
        raw.packet();
        assert_eq!(hearer.message().payload, b"\xff\xfe");
        // It has expired before it comes.
        raw.say(&publish(2, "strange", b"\x02\x00\x00\x00\x00", b"gone"));
        raw.packet();
        raw.say(&publish(3, "strange", b"\x02\xff\xff\xff\xff", b"for ever"));
        raw.packet();
        assert_eq!(hearer.message().payload, b"for ever");
        // Where to answer is data for whoever reads it: nothing is sent there, nobody is subscribed to it.
        let mut answer_to = vec![0x08];
        put_text(&mut answer_to, "elsewhere/secret");
        raw.say(&publish(4, "strange", &[&answer_to[..], b"\x09\x00\x02id"].concat(), b"ask"));
        raw.packet();
        let asked = hearer.message();
        assert_eq!((asked.topic.as_str(), &asked.payload[..]), ("strange", &b"ask"[..]));
        hearer.hears_nothing();
    });
}
