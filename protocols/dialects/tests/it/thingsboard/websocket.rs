//! The WebSocket's commands in both forms, and its pushes.

use moorline_dialects::thingsboard::{
    attributes::Scope,
    rest::{
        aggregation::{Aggregation, Range},
        websocket::{
            Auth, COMMANDS_MAX, Command, Entity, Kind, NotAMessage, Past, SubscriptionError, push,
            read, refused,
        },
    },
    values::Value,
};

use super::support::{NOW_MS, text};

fn entity() -> Entity {
    Entity { entity_type: "DEVICE".to_owned(), id: "u".to_owned() }
}

fn past(start_ms: i64, end_ms: i64) -> Past {
    let range = Range { start_ms, end_ms, interval_ms: 0 };
    Past { range, aggregation: Aggregation::None, limit: 100 }
}

fn commands(text: &str) -> Result<Vec<Command>, NotAMessage> {
    read(text, NOW_MS).map(|message| message.commands)
}

#[test]
fn each_command_is_read() {
    let keys = || vec!["t".to_owned(), "u".to_owned()];
    let timeseries = |past| Kind::Timeseries { entity: entity(), keys: keys(), past };
    let attributes = |scope| Kind::Attributes { entity: entity(), scope, keys: vec![] };
    let averaged = Past {
        range: Range { start_ms: 5, end_ms: 9, interval_ms: 2 },
        aggregation: Aggregation::Avg,
        limit: 7,
    };
    let history = Kind::History { entity: entity(), keys: keys(), past: averaged };
    #[rustfmt::skip]
    let table = [
        (r#""type":"TIMESERIES","scope":"LATEST_TELEMETRY","keys":"t,u""#, timeseries(None)),
        (r#""type":"TIMESERIES","keys":"t,u","timeWindow":1000"#,          timeseries(Some(past(NOW_MS - 1000, NOW_MS)))),
        (r#""type":"TIMESERIES","keys":"t,u","startTs":5,"timeWindow":10,"agg":"NONE","limit":0"#, timeseries(Some(past(5, 15)))),
        (r#""type":"TIMESERIES_HISTORY","keys":"t,u","startTs":5,"endTs":9,"interval":2,"limit":7,"agg":"AVG""#, history),
        (r#""type":"ATTRIBUTES","scope":"SHARED_SCOPE""#,                  attributes(Some(Scope::Shared))),
        (r#""type":"ATTRIBUTES","scope":"ANY_SCOPE","keys":"""#,           attributes(None)),
        (r#""type":"ATTRIBUTES""#,                                         attributes(None)),
        (r#""type":"ATTRIBUTES","unsubscribe":true"#,                      Kind::Unsubscribe),
        (r#""type":"ALARM_COUNT","x":{}"#,                                 Kind::Unsupported("ALARM_COUNT".to_owned())),
    ];
    for (fields, kind) in table {
        let text =
            format!(r#"{{"cmds":[{{"cmdId":3,"entityType":"DEVICE","entityId":"u",{fields}}}]}}"#);
        assert_eq!(commands(&text), Ok(vec![Command { id: 3, kind }]), "{fields}");
    }
    let bare = r#"{"cmds":[{"cmdId":3,"unsubscribe":true},{"type":"NOTIFICATIONS"}]}"#;
    let unsupported = Kind::Unsupported("NOTIFICATIONS".to_owned());
    let expected =
        [(3, Kind::Unsubscribe), (0, unsupported)].map(|(id, kind)| Command { id, kind });
    assert_eq!(commands(bare), Ok(expected.into()));
}

#[test]
fn the_older_form_says_the_same() {
    let text = r#"{
        "tsSubCmds":[{"entityType":"DEVICE","entityId":"u","scope":"LATEST_TELEMETRY","cmdId":1}],
        "historyCmds":[{"entityType":"DEVICE","entityId":"u","startTs":1,"endTs":2,"cmdId":2}],
        "attrSubCmds":[{"entityType":"DEVICE","entityId":"u","scope":"CLIENT_SCOPE","cmdId":3}]}"#;
    let scope = Some(Scope::Client);
    let expected = [
        (1, Kind::Timeseries { entity: entity(), keys: vec![], past: None }),
        (2, Kind::History { entity: entity(), keys: vec![], past: past(1, 2) }),
        (3, Kind::Attributes { entity: entity(), scope, keys: vec![] }),
    ];
    assert_eq!(commands(text), Ok(expected.map(|(id, kind)| Command { id, kind }).into()));
}

#[test]
fn who_connects_may_be_said_first() {
    let auth = |text: &str| read(text, NOW_MS).unwrap().auth;
    let by = |token: Option<&str>, api_key: Option<&str>| {
        let (token, api_key) = (token.map(str::to_owned), api_key.map(str::to_owned));
        Some(Auth { cmd_id: 0, token, api_key })
    };
    assert_eq!(auth(r#"{"authCmd":{"cmdId":0,"token":"JWT"},"cmds":[]}"#), by(Some("JWT"), None));
    assert_eq!(auth(r#"{"authCmd":{"apiKey":"K"}}"#), by(None, Some("K")));
    assert_eq!(auth("{}"), None);
    assert_eq!(auth(r#"{"authCmd":null,"cmds":null,"tsSubCmds":null}"#), None);
}

#[test]
fn other_messages_are_refused() {
    #[rustfmt::skip]
    let table = [
        "", "{", "[]", "1", r#"{"cmds":1}"#, r#"{"cmds":[1]}"#, r#"{"cmds":[{}]}"#, r#"{"cmds":[{"type":"TIMESERIES"}]}"#,
        r#"{"cmds":[{"type":"ATTRIBUTES","entityType":"DEVICE","entityId":"u","scope":"X"}]}"#,
        r#"{"cmds":[{"type":"TIMESERIES_HISTORY","entityType":"DEVICE","entityId":"u"}]}"#,
        r#"{"cmds":[{"type":"TIMESERIES","entityType":"DEVICE","entityId":"u","timeWindow":1,"agg":"X"}]}"#,
    ];
    for text in table {
        assert_eq!(commands(text), Err(NotAMessage::Shape), "{text}");
    }
    let many = |count: usize| {
        format!(r#"{{"cmds":[{}]}}"#, vec![r#"{"unsubscribe":true}"#; count].join(","))
    };
    assert_eq!(commands(&many(COMMANDS_MAX)).map(|commands| commands.len()), Ok(COMMANDS_MAX));
    assert_eq!(commands(&many(COMMANDS_MAX + 1)), Err(NotAMessage::TooMany));
}

#[test]
fn pushes_are_written() {
    let series = [("t".to_owned(), vec![(1_451_649_600_512, Value::Long(25)), (1, text("x"))])];
    assert_eq!(
        push(1, &series).to_string(),
        r#"{"subscriptionId":1,"errorCode":0,"errorMsg":null,"data":{"t":[[1451649600512,"25"],[1,"x"]]}}"#
    );
    assert_eq!(
        refused(2, SubscriptionError::BadRequest, "no").to_string(),
        r#"{"subscriptionId":2,"errorCode":2,"errorMsg":"no","data":{}}"#
    );
}
