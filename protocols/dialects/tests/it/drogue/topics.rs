//! Topics by dialect.

use moorline_dialects::drogue::topics::{Dialect, InvalidSection};
use serde_json::json;

use super::fields;

#[test]
fn topics_are_channels_and_devices() {
    let plain = Dialect::PlainTopic { device_prefix: false };
    let prefix = Dialect::PlainTopic { device_prefix: true };
    #[rustfmt::skip]
    let table = [
        (Dialect::V1, "telemetry", Some(("telemetry", None))),
        (Dialect::V1, "telemetry/sensor-1", Some(("telemetry", Some("sensor-1")))),
        (Dialect::V1, "", None),
        (Dialect::V1, "/sensor-1", None),
        (Dialect::V1, "telemetry/", None),
        (Dialect::V1, "a/b/c", None),
        (plain, "a", Some(("a", None))),
        (plain, "a/b/c", Some(("a/b/c", None))),
        (plain, "", None),
        (prefix, "d/a/b", Some(("a/b", Some("d")))),
        (prefix, "/a/b", Some(("a/b", None))),
        (prefix, "d/a", Some(("a", Some("d")))),
        (prefix, "a", None),
        (prefix, "a/", None),
        (prefix, "", None),
    ];
    for (dialect, topic, expected) in table {
        let said = dialect.publish(topic).map(|said| (said.channel, said.device));
        assert_eq!(said, expected, "{dialect:?} {topic:?}");
    }
}

#[test]
fn a_devices_section_counts_before_its_applications() {
    let plain = json!({ "mqtt": { "dialect": { "type": "plainTopic" } } });
    let prefix = json!({ "mqtt": { "dialect": { "type": "plainTopic", "devicePrefix": true } } });
    let v1 = json!({ "mqtt": { "dialect": { "type": "drogue/v1" } } });
    let (nothing, empty) = (json!({}), json!({ "mqtt": {} }));
    let wrong = [
        json!({ "mqtt": 7 }),
        json!({ "mqtt": { "dialect": {} } }),
        json!({ "mqtt": { "dialect": { "type": "azure" } } }),
        json!({ "mqtt": { "dialect": { "type": "plainTopic", "devicePrefix": "yes" } } }),
    ];
    let of = |device: &serde_json::Value, application: &serde_json::Value| {
        Dialect::of(&fields(device.clone()), &fields(application.clone()))
    };
    let plain_topic = |device_prefix| Ok(Dialect::PlainTopic { device_prefix });
    assert_eq!(of(&nothing, &nothing), Ok(Dialect::V1));
    assert_eq!(of(&nothing, &prefix), plain_topic(true));
    assert_eq!(of(&plain, &prefix), plain_topic(false));
    assert_eq!(of(&empty, &prefix), Ok(Dialect::V1), "any section of its own");
    assert_eq!(of(&v1, &prefix), Ok(Dialect::V1));
    for wrong in &wrong {
        assert_eq!(of(wrong, &nothing), Err(InvalidSection), "{wrong}");
        assert_eq!(of(&nothing, wrong), Err(InvalidSection), "{wrong}");
        assert_eq!(of(&v1, wrong), Ok(Dialect::V1), "its own counts alone");
    }
}
