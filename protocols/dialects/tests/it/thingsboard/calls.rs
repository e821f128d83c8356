//! Calls, up and down.

use moorline_dialects::thingsboard::{
    calls::{DeviceCall, METHOD_BYTES_MAX, ServerCall, Strategy, reply, timed_out},
    json::Json,
};

use super::support::json;

#[test]
fn calls_go_out_as_the_strategy_says() {
    use Strategy::{Burst, OnAck, OnResponse};
    // Ready, on their way, unanswered: how many go.
    #[rustfmt::skip]
    let table = [
        (0, 0, false, [0, 0, 0]),
        (3, 0, false, [3, 1, 1]),
        (3, 1, false, [3, 0, 0]),
        (3, 0, true,  [3, 1, 0]),
        (3, 2, true,  [3, 0, 0]),
        (1, 0, false, [1, 1, 1]),
    ];
    for (ready, out, unanswered, expected) in table {
        let found = [Burst, OnAck, OnResponse].map(|one| one.go(ready, out, unanswered));
        assert_eq!(found, expected, "{ready} {out} {unanswered}");
    }
}

#[test]
fn an_application_hears_of_a_call_with_its_id() {
    let call = DeviceCall::read(&json(r#"{"method":"getTime","params":{"a":[1]},"x":2}"#)).unwrap();
    let event = call.to_event("7f").to_string();
    assert_eq!(event, r#"{"id":"7f","method":"getTime","params":{"a":[1]}}"#);
}

#[test]
fn a_call_goes_down_with_any_params() {
    #[rustfmt::skip]
    let table = [
        (r#"{"pin":7,"value":1}"#, r#"{"method":"m","params":{"pin":7,"value":1}}"#),
        (r#""on""#,                r#"{"method":"m","params":"on"}"#),
        ("1.50",                   r#"{"method":"m","params":1.50}"#),
        ("null",                   r#"{"method":"m","params":null}"#),
    ];
    for (params, expected) in table {
        let call = ServerCall { id: 3, method: "m".to_owned(), params: json(params) };
        assert_eq!(call.to_json().to_string(), expected);
        let with_id = format!("{{\"id\":3,{}", &expected[1..]);
        assert_eq!(call.to_json_with_id().to_string(), with_id);
    }
}

#[test]
fn a_devices_call_has_a_method() {
    let call = |params| Ok(DeviceCall { method: "getTime".to_owned(), params });
    #[rustfmt::skip]
    let table = [
        (r#"{"method":"getTime","params":{}}"#,    call(Json::Object(vec![]))),
        (r#"{"method":"getTime","params":"x"}"#,   call(Json::from("x"))),
        (r#"{"method":"getTime"}"#,                call(Json::Null)),
        (r#"{"method":"getTime","more":1}"#,       call(Json::Null)),
    ];
    for (written, expected) in table {
        assert_eq!(DeviceCall::read(&json(written)), expected, "{written}");
    }
    let long = format!("{{\"method\":\"{}\"}}", "m".repeat(METHOD_BYTES_MAX + 1));
    for written in ["{}", "[]", "1", r#"{"method":1}"#, r#"{"method":""}"#, &long] {
        assert!(DeviceCall::read(&json(written)).is_err(), "{written}");
    }
}

#[test]
fn an_answer_is_whatever_the_device_says() {
    for text in [r#"{"ok":true}"#, "", "not JSON", "1"] {
        assert_eq!(reply(text.as_bytes()).as_deref(), Ok(text));
    }
    assert!(reply(b"\xff").is_err());
    assert_eq!(timed_out().to_string(), r#"{"error":"timeout"}"#);
}
