//! Commands, as requests say them and devices hear them.

use moorline_core::Text;
use moorline_dialects::losant::command::Command;
use serde_json::json;

use super::{DEVICE, NOW, OTHER, id};

#[test]
fn a_device_hears_the_time_with_milliseconds_and_a_zone() {
    #[rustfmt::skip]
    let table = [
        (json!({ "name": "go" }),
         json!({ "name": "go", "time": { "$date": "2026-01-02T03:04:05.678Z" } })),
        (json!({ "name": "go", "payload": null }),
         json!({ "name": "go", "time": { "$date": "2026-01-02T03:04:05.678Z" } })),
        (json!({ "name": "go", "payload": { "t": 72 }, "time": 1_767_323_045 }),
         json!({ "name": "go", "time": { "$date": "2026-01-02T03:04:05.000Z" }, "payload": { "t": 72 } })),
        (json!({ "name": "go", "payload": [1], "time": { "$date": "2026-01-02T03:04:05.6Z" } }),
         json!({ "name": "go", "time": { "$date": "2026-01-02T03:04:05.600Z" }, "payload": [1] })),
    ];
    for (said, expected) in table {
        let command = Command::read(said.to_string().as_bytes()).unwrap();
        assert_eq!(command.written(NOW), expected, "{said}");
    }
    let command = Command::read(br#"{"name":"go","payload":"x"}"#).unwrap();
    let event = command.event(&Text::from("app"), &id(DEVICE), NOW);
    let expected = json!({
        "name": "go", "payload": "x", "time": "2026-01-02T03:04:05.678Z",
        "applicationId": "app", "deviceId": DEVICE,
    });
    assert_eq!(event, expected);
}

#[test]
fn a_command_is_for_one_or_for_some() {
    let one = |said: &serde_json::Value| Command::read(said.to_string().as_bytes()).is_ok();
    let many = |said: &serde_json::Value| {
        let read = Command::read_for_many(said.to_string().as_bytes());
        read.ok().map(|(_, to)| (to.ids.len(), to.tags.len()))
    };
    #[rustfmt::skip]
    let table = [
        (json!({ "name": "go" }),                                          true,  None),
        (json!({ "name": "go", "deviceIds": [DEVICE, OTHER] }),            false, Some((2, 0))),
        (json!({ "name": "go", "deviceTags": [{ "key": "site" }] }),       false, Some((0, 1))),
        (json!({ "name": "go", "deviceIds": [], "deviceTags": [] }),       false, None),
        (json!({ "name": "go", "deviceIds": ["x"] }),                      false, None),
        (json!({ "name": "go", "deviceTags": [{}] }),                      false, None),
        (json!({ "name": "go", "deviceQuery": { "name": "a" } }),          false, Some((0, 0))),
        (json!({ "name": "go", "deviceQuery": { "colour": "red" } }),      false, None),
        (json!({ "name": "go", "deviceIds": vec![DEVICE; 1_001] }),        false, None),
        (json!({ "name": "" }),                                            false, None),
        (json!({ "name": "n".repeat(256) }),                               false, None),
        (json!({ "payload": 1 }),                                          false, None),
        (json!({ "name": "go", "x": 1 }),                                  false, None),
        (json!([]),                                                        false, None),
    ];
    for (said, for_one, for_many) in table {
        assert_eq!((one(&said), many(&said)), (for_one, for_many), "{said:.80}");
    }
}
