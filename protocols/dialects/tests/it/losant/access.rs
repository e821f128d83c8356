//! What keys are for.

use moorline_dialects::losant::access::{Access, Status, Tag};
use serde_json::{Value, json};

use super::{DEVICE, OTHER, id};

fn access(said: Value) -> Access {
    serde_json::from_value(said).unwrap()
}

fn tag(key: &str, value: &str) -> Tag {
    Tag { key: Some(key.to_owned()), value: Some(value.to_owned()) }
}

fn listed(kind: &str) -> String {
    format!("{kind}list")
}

#[test]
fn a_key_is_for_all_devices_or_for_those_it_names() {
    let north = [tag("site", "north"), tag("floor", "3")];
    #[rustfmt::skip]
    let table = [
        (json!({}),                                              DEVICE, &north[..], true),
        (json!({ "deviceIds": [DEVICE] }),                       DEVICE, &[],        true),
        (json!({ "deviceIds": [DEVICE] }),                       OTHER,  &north,     false),
        (json!({ "deviceTags": [{ "key": "site", "value": "north" }] }), OTHER, &north, true),
        (json!({ "deviceTags": [{ "key": "site", "value": "south" }] }), OTHER, &north, false),
        (json!({ "deviceTags": [{ "key": "site" }] }),           OTHER,  &north,     true),
        (json!({ "deviceTags": [{ "value": "3" }] }),            OTHER,  &north,     true),
        (json!({ "deviceTags": [{ "value": "3" }] }),            OTHER,  &[],        false),
        (json!({ "deviceIds": [DEVICE], "deviceTags": [{ "key": "floor" }] }), OTHER, &north, true),
    ];
    for (said, device, tags, expected) in table {
        assert_eq!(access(said.clone()).is_for(&id(device), tags), expected, "{said} {device}");
    }
}

#[test]
fn custom_topics_are_all_some_all_but_some_or_none() {
    let lists = |kind: &str| {
        let topics = json!(["plant/#"]);
        access(json!({ "filterType": kind, "pubTopics": topics, "subTopics": ["plant/+/in"] }))
    };
    #[rustfmt::skip]
    let table = [
        ("all".to_owned(),    [true,  true,  true,  true,  true]),
        (listed("white"),     [true,  false, true,  false, false]),
        (listed("black"),     [false, true,  false, true,  true]),
        ("none".to_owned(),   [false, false, false, false, false]),
    ];
    for (kind, [says, says_other, hears, hears_other, hears_all]) in table {
        let rules = lists(&kind).rules().unwrap();
        assert_eq!(rules.may_publish(None, b"plant/1"), says, "{kind}");
        assert_eq!(rules.may_publish(None, b"office"), says_other, "{kind}");
        assert_eq!(rules.may_subscribe(None, b"plant/1/in"), hears, "{kind}");
        assert_eq!(rules.may_subscribe(None, b"office"), hears_other, "{kind}");
        assert_eq!(rules.may_subscribe(None, b"#"), hears_all, "{kind}");
        assert_eq!(rules.may_read(None, b"plant/1/in"), hears, "{kind}: what # brings");
    }
    assert!(Access::default().rules().unwrap().may_publish(None, b"a"), "nothing said is all");
}

#[test]
fn what_a_key_says_is_checked() {
    let long = "a".repeat(600);
    let many: Vec<String> = (0..65).map(|at| format!("t/{at}")).collect();
    #[rustfmt::skip]
    let table = [
        (json!({ "deviceIds": ["x"] }),                         "deviceIds"),
        (json!({ "deviceTags": [{}] }),                         "deviceTags"),
        (json!({ "filterType": listed("white"), "pubTopics": ["a/#/b"] }), "no topic filter"),
        (json!({ "filterType": listed("white"), "pubTopics": [long] }),    "more than 512"),
        (json!({ "filterType": listed("white"), "subTopics": many }),      "more than 64"),
        (json!({ "deviceIds": vec![DEVICE; 1_001] }),           "at most 1000"),
    ];
    for (said, expected) in table {
        let why = access(said.clone()).check().unwrap_err().to_string();
        assert!(why.contains(expected), "{said}: {why}");
    }
    for wrong in [json!({ "filterType": "some" }), json!({ "status": "asleep" }), json!({ "x": 1 })]
    {
        assert!(serde_json::from_value::<Access>(wrong.clone()).is_err(), "{wrong}");
    }
    assert_eq!(access(json!({ "status": "inactive" })).status, Status::Inactive);
    let all = access(json!({ "filterType": listed("black"), "deviceTags": [{ "key": "k" }] }));
    assert_eq!(access(serde_json::to_value(&all).unwrap()), all, "kept as it is said");
}
