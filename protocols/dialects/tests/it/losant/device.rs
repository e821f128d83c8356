//! What is known of devices: read, changed, kept and shown.

use moorline_core::{Text, UnixMillis};
use moorline_dialects::losant::{
    device::{About, Change, Class, DataType, Shown, is_attribute},
    presence,
};
use serde_json::{Map, Value, json};

use super::{DEVICE, OTHER, id};

fn made(said: &Value) -> Result<About, String> {
    let change = Change::read(said.to_string().as_bytes());
    change.and_then(|change| change.made(About::default())).map_err(|why| why.to_string())
}

fn of_class(class: Class, gateway: Option<&str>) -> About {
    About { class, gateway: gateway.map(id), ..About::default() }
}

#[test]
fn what_is_kept_is_read_as_the_same() {
    let said = json!({
        "name": "pump", "description": "in the cellar", "deviceClass": "peripheral", "gatewayId": OTHER,
        "attributes": [{ "name": "t", "dataType": "number", "contentType": "x" }, { "name": "p", "dataType": "gps" }],
        "tags": [{ "key": "site", "value": "north" }],
    });
    let about = made(&said).unwrap();
    let mut metadata = Map::new();
    metadata.insert("mine".to_owned(), json!(1));
    about.write(&mut metadata);
    assert_eq!(About::read(&metadata), about);
    assert_eq!((metadata["mine"].clone(), about.attributes["t"]), (json!(1), DataType::Number));
    assert_eq!(About::read(&Map::new()), About::default(), "nobody described it");
    let junk =
        json!({ "losant": { "class": 7, "gateway": "x", "attributes": { "a": "b" }, "tags": 1 } });
    assert_eq!(About::read(junk.as_object().unwrap()), About::default());
    let shown = about.shown(&Shown {
        id: &id(DEVICE),
        application: &Text::from("app"),
        created: UnixMillis(0),
        updated: UnixMillis(0),
        connection: &presence::unknown(),
    });
    for (key, expected) in [
        ("deviceId", json!(DEVICE)),
        ("deviceClass", json!("peripheral")),
        ("gatewayId", json!(OTHER)),
        (
            "attributes",
            json!([{ "name": "p", "dataType": "gps" }, { "name": "t", "dataType": "number" }]),
        ),
        ("connectionInfo", json!({ "time": null, "connected": null })),
    ] {
        assert_eq!(shown[key], expected, "{key}");
    }
}

#[test]
fn a_change_says_what_is_to_be_otherwise() {
    let before = made(&json!({ "name": "a", "tags": [{ "key": "k" }] })).unwrap();
    let after = Change::read(br#"{"description":"b"}"#).unwrap().made(before.clone()).unwrap();
    assert_eq!((after.name, after.description, after.tags), ("a".into(), "b".into(), before.tags));
    #[rustfmt::skip]
    let wrong = [
        (json!({}),                                                "name"),
        (json!({ "name": "" }),                                    "name"),
        (json!({ "name": "n".repeat(256) }),                       "name"),
        (json!({ "name": "a", "deviceClass": "phone" }),           "deviceClass"),
        (json!({ "name": "a", "gatewayId": "x" }),                 "gatewayId"),
        (json!({ "name": "a", "attributes": [{ "name": "a b", "dataType": "number" }] }), "no name"),
        (json!({ "name": "a", "attributes": [{ "name": "a", "dataType": "long" }] }), "no dataType"),
        (json!({ "name": "a", "tags": [{}] }),                     "tags"),
        (json!({ "name": "a", "tags": [{ "key": "k".repeat(256) }] }), "tags"),
        (json!({ "name": "a", "parentId": "x" }),                  "parentId"),
        (json!({ "name": 7 }),                                     "string"),
    ];
    for (said, expected) in wrong {
        let why = made(&said).unwrap_err();
        assert!(why.contains(expected), "{said:.80}: {why}");
    }
    for (name, expected) in [("a_B-9", true), ("", false), ("a.b", false), ("é", false)] {
        assert_eq!(is_attribute(name), expected, "{name}");
    }
}

#[test]
fn classes_say_who_connects_and_who_speaks_for_whom() {
    use Class::{EdgeCompute, Embedded, Floating, Gateway, Peripheral, Standalone, System};
    #[rustfmt::skip]
    let table = [
        (Standalone, "standalone", true, false), (Gateway, "gateway", true, true),
        (EdgeCompute, "edgeCompute", true, true), (Embedded, "embedded", true, false),
        (Peripheral, "peripheral", false, false), (Floating, "floating", false, false),
        (System, "system", false, false),
    ];
    for (class, name, connects, speaks) in table {
        assert_eq!((class.name(), Class::by_name(name)), (name, Some(class)));
        assert_eq!((class.connects(), class.speaks_for_others()), (connects, speaks), "{name}");
    }
    #[rustfmt::skip]
    let table = [
        (of_class(Peripheral, Some(OTHER)), Gateway, OTHER, true),
        (of_class(Peripheral, Some(OTHER)), EdgeCompute, OTHER, true),
        (of_class(Peripheral, Some(OTHER)), Gateway, DEVICE, false),
        (of_class(Peripheral, Some(OTHER)), Standalone, OTHER, false),
        (of_class(Peripheral, None), Gateway, OTHER, false),
        (of_class(Floating, None), Gateway, OTHER, true),
        (of_class(Floating, None), Standalone, OTHER, false),
        (of_class(Standalone, None), Gateway, OTHER, false),
        (of_class(Gateway, None), Gateway, OTHER, false),
    ];
    for (about, class, by, expected) in table {
        assert_eq!(about.is_spoken_for_by(class, &id(by)), expected, "{about:?} {class:?} {by}");
    }
}
