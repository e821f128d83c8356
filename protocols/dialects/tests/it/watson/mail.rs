//! Mail, as devices and gateways hear it.

use bytes::Bytes;
use moorline_core::Text;
use moorline_dialects::watson::{mail::said, topics::seen_by};

use super::{client, device};

#[test]
fn mail_is_a_command_in_json() {
    let (long, longest) = ("n".repeat(37), "n".repeat(36));
    let topic_of_longest = format!("iot-2/cmd/{longest}/fmt/json");
    let unnamed = "a command's name has 1 to 36 of A-Z, a-z, 0-9, . _ and -";
    #[rustfmt::skip]
    let table = [
        ("open-gate", r#"{"gate":1}"#, Ok(("iot-2/cmd/open-gate/fmt/json", r#"{"gate":1}"#))),
        ("stop",      "",              Ok(("iot-2/cmd/stop/fmt/json", "{}"))),
        ("stop",      "null",          Ok(("iot-2/cmd/stop/fmt/json", "null"))),
        (&*longest,   "1",             Ok((&*topic_of_longest, "1"))),
        (&*long,      "1",             Err(unnamed)),
        ("a/b",       "1",             Err(unnamed)),
        ("stop",      "\u{1}bytes",    Err("its body is no JSON")),
    ];
    let (own, pump) = (device("pump", "p1"), client("d:abc123:pump:p1"));
    for (name, payload, expected) in table {
        let said = said(&own, &Text::from(name), &Bytes::from(payload.to_owned()));
        let seen = said.map(|(message, payload)| {
            let topic = seen_by(&pump, message.topic().as_bytes()).unwrap();
            (topic.to_string(), String::from_utf8(payload.to_vec()).unwrap())
        });
        let expected = expected.map(|(topic, payload)| (topic.to_owned(), payload.to_owned()));
        assert_eq!(seen, expected, "{name} {payload}");
    }
    let gateway = client("g:abc123:gw:g1");
    let (message, _) = said(&device("gw", "g1"), &Text::from("stop"), &Bytes::new()).unwrap();
    let seen = seen_by(&gateway, message.topic().as_bytes()).unwrap();
    assert_eq!(seen.as_str(), "iot-2/type/gw/id/g1/cmd/stop/fmt/json");
}
