//! What violations cost, by class and version.

use moorline_core::QoS;
use moorline_dialects::watson::{
    close::Close,
    connect::Version::{self, V5, V31, V311},
    identity::Class::{self, Application, Device, Gateway, SharedApplication},
    topics::{Consequence, Forbidden, Violation, consequence, fits},
};

#[test]
fn violations_cost_what_the_table_says() {
    use Forbidden::{NotAuthorised, Topic};
    let publish = |why| Violation::Publish { why, qos: QoS::AtLeastOnce };
    let close = |close, reason| Consequence::Close { close, reason };
    let refuse = |code, notify| Consequence::Refuse { code, notify };
    let topic = close(Close::BadTopic, 0x90);
    let rights = close(Close::NotAuthorised, 0x87);
    let many = close(Close::Subscriptions, 0x97);
    let unsubscribed = [refuse(0, true), refuse(0x80, true), refuse(0x80, true)];
    let same = |cost| (cost, cost, [cost; 3]);
    let told = [Consequence::DropAndNotify; 3];
    #[rustfmt::skip]
    let table = [
        // MQTT 3 and 5 of d, a and A; a gateway by MQTT 3.1, 3.1.1 and 5
        (publish(Topic),                   (topic,  Consequence::Drop { reason: 0x90 }, told)),
        (publish(NotAuthorised),           (rights, Consequence::Drop { reason: 0x87 }, told)),
        (Violation::Subscribe(Topic),      (topic,  refuse(0x8f, false), unsubscribed)),
        (Violation::Subscribe(NotAuthorised), (rights, refuse(0x87, false), unsubscribed)),
        (Violation::Subscriptions,         (many,   refuse(0x97, false), unsubscribed)),
        (Violation::TooLarge,              same(close(Close::TooLarge, 0x95))),
        (Violation::BadQoS,                same(close(Close::BadQoS, 0x81))),
        (Violation::Malformed,             same(close(Close::BadData, 0x81))),
        (Violation::OutOfTurn,             same(close(Close::BadData, 0x82))),
    ];
    for (violation, (v3, v5, gateway)) in table {
        let check = |class: Class, version: Version, expected| {
            let said = consequence(class, version, violation);
            assert_eq!(said, expected, "{class:?} {version:?} {violation:?}");
        };
        for class in [Device, Application, SharedApplication] {
            check(class, V31, v3);
            check(class, V311, v3);
            check(class, V5, v5);
        }
        for (version, expected) in [V31, V311, V5].into_iter().zip(gateway) {
            check(Gateway, version, expected);
        }
    }
}

#[test]
fn sizes_are_counted_by_version() {
    let max = 131_072;
    #[rustfmt::skip]
    let table = [
        (V311, 20,  max,     max + 30,  true),
        (V31,  200, max,     max + 210, true),
        (V311, 201, max,     max + 210, false),
        (V311, 201, max - 1, max + 210, true),
        (V311, 20,  max + 1, max + 30,  false),
        (V5,   20,  max - 30, max,      true),
        (V5,   20,  max - 29, max + 1,  false),
    ];
    for (version, topic, payload, packet, expected) in table {
        assert_eq!(
            fits(version, topic, payload, packet),
            expected,
            "{version:?} {topic} {payload}"
        );
    }
}
