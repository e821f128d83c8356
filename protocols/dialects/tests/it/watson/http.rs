//! Messaging over HTTP: every URL, content type and status, and what is refused.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use moorline_core::Text;
use moorline_dialects::watson::{
    http::{
        Head, Outcome, Pattern, Refusal, Response, Route, Routed, command, content_type_of,
        format_of, is_path, message, respond, route, wait_s,
    },
    topics::{self, Message},
};
use proptest::prelude::*;

use super::{client, device};

const HOST: &str = "abc123.messaging.example.com:8883";
const DEVICE: &str = "use-token-auth:12345678";
const GATEWAY: &str = "g/abc123/gw/g1:12345678";
const KEY: &str = "a-abc123-0123456789:12345678";
const EVENT: &str = "/api/v0002/device/types/t1/devices/d1/events/e";
const APP_EVENT: &str = "/api/v0002/application/types/t1/devices/d1/events/e";
const APP_COMMAND: &str = "/api/v0002/application/types/t1/devices/d1/commands/c";
const FETCH: &str = "/api/v0002/device/types/t1/devices/d1/commands/c/request";

fn ask(method: &str, path: &str, host: &str, user: &str) -> Result<Routed, Refusal> {
    let basic = format!("Basic {}", STANDARD.encode(user));
    let headers: [(&str, &[u8]); 2] =
        [("Host", host.as_bytes()), ("AUTHORIZATION", basic.as_bytes())];
    route(&Head { method, path, headers: &headers })
}

fn fetch(kind: Pattern, id: Pattern, command: Pattern) -> Route {
    Route::FetchCommand { kind, id, command }
}

#[test]
fn urls_are_routes() {
    let one = |name: &str| Pattern::Name(name.into());
    let event = Route::Event { device: device("t1", "d1"), event: "e".into() };
    let command = Route::Command { device: device("t1", "d1"), command: "c".into() };
    #[rustfmt::skip]
    let table = [
        (EVENT,       DEVICE,  event.clone(), "d:abc123:t1:d1"),
        (EVENT,       GATEWAY, event.clone(), "g:abc123:gw:g1"),
        (EVENT,       "g-abc123-gw-g1:12345678", event.clone(), "g:abc123:gw:g1"),
        (APP_EVENT,   KEY,     event,         "a:abc123:0123456789"),
        (APP_COMMAND, KEY,     command,       "a:abc123:0123456789"),
        (FETCH,       DEVICE,  fetch(one("t1"), one("d1"), one("c")), "d:abc123:t1:d1"),
        (FETCH,       GATEWAY, fetch(one("t1"), one("d1"), one("c")), "g:abc123:gw:g1"),
        ("/api/v0002/device/types/t1/devices/d1/commands/+/request",   DEVICE,
            fetch(one("t1"), one("d1"), Pattern::Any), "d:abc123:t1:d1"),
        ("/api/v0002/device/types/t1/devices/d1/commands/%2B/request", DEVICE,
            fetch(one("t1"), one("d1"), Pattern::Any), "d:abc123:t1:d1"),
        ("/api/v0002/device/types/+/devices/+/commands/+/request",     GATEWAY,
            fetch(Pattern::Any, Pattern::Any, Pattern::Any), "g:abc123:gw:g1"),
    ];
    for (path, user, expected, speaker) in table {
        let routed = ask("POST", path, HOST, user).unwrap();
        assert_eq!((routed.route, routed.speakers), (expected, vec![client(speaker)]), "{path}");
        assert_eq!((routed.secret.expose(), routed.key.is_some()), (&b"12345678"[..], user == KEY));
    }
    let several = ask("POST", EVENT, HOST, "g-abc123-a-b-c:12345678").unwrap().speakers;
    assert_eq!(several, [client("g:abc123:a:b-c"), client("g:abc123:a-b:c")]);
}

#[test]
fn what_is_not_in_the_table_is_refused() {
    use Refusal::{Forbidden, Method, NotFound};
    let any_device = "/api/v0002/device/types/t1/devices/+/commands/c/request";
    let long = format!("{EVENT}{}", "x".repeat(600));
    #[rustfmt::skip]
    let table = [
        ("GET",    EVENT,       HOST, DEVICE,  Method),    ("PUT",  "/nowhere",  HOST, DEVICE, Method),
        ("DELETE", EVENT,       HOST, DEVICE,  Method),    ("post", EVENT,       HOST, DEVICE, Method),
        ("POST",   "",          HOST, DEVICE,  NotFound),  ("POST", "/",         HOST, DEVICE, NotFound),
        ("POST",   "/api/v0001/device/types/t1/devices/d1/events/e", HOST, DEVICE, NotFound),
        ("POST",   "/device/types/t1/devices/d1/events/e",           HOST, DEVICE, NotFound),
        ("POST",   "/api/v0002/device/types/t1/devices/d1/events",   HOST, DEVICE, NotFound),
        ("POST",   "/api/v0002/device/types/t1/devices/d1/events/",  HOST, DEVICE, NotFound),
        ("POST",   "/api/v0002/device/types/t1/devices/d1/events/e/x", HOST, DEVICE, NotFound),
        ("POST",   "/api/v0002/device/types/t1/devices/d1/events/+", HOST, DEVICE, NotFound),
        ("POST",   "/api/v0002/device/types/t%2F1/devices/d1/events/e", HOST, DEVICE, NotFound),
        ("POST",   "/api/v0002/device/types/t1/devices/d1/events/%zz", HOST, DEVICE, NotFound),
        ("POST",   "/api/v0002/device/types/t1/devices/d1/events/%",  HOST, DEVICE, NotFound),
        ("POST",   "/api/v0002/device/types/t1/devices/d1/commands/c", HOST, DEVICE, NotFound),
        ("POST",   "/api/v0002/application/types/t1/devices/d1/commands/c/request", HOST, KEY, NotFound),
        ("POST",   &long,       HOST, DEVICE,  NotFound),
        ("POST",   EVENT,       HOST, KEY,     Forbidden), ("POST", FETCH,       HOST, KEY,     Forbidden),
        ("POST",   APP_EVENT,   HOST, DEVICE,  Forbidden), ("POST", APP_COMMAND, HOST, GATEWAY, Forbidden),
        ("POST",   any_device,  HOST, DEVICE,  Forbidden),
        ("POST",   EVENT,       HOST, "nobody:12345678",   Forbidden),
        ("POST",   EVENT,       HOST, "use-token-auth:",   Forbidden),
        ("POST",   EVENT,       "localhost:8883", DEVICE,  Forbidden),
        ("POST",   EVENT,       "quickstart.messaging.example.com", DEVICE, Forbidden),
        ("POST",   APP_EVENT,   "zzz999.messaging.example.com", KEY,        Forbidden),
        ("POST",   EVENT,       "zzz999.messaging.example.com", GATEWAY,    Forbidden),
    ];
    for (method, path, host, user, expected) in table {
        assert_eq!(ask(method, path, host, user), Err(expected), "{method} {path} {host} {user}");
    }
    let bare = Head { method: "POST", path: EVENT, headers: &[("host", HOST.as_bytes())] };
    assert_eq!(route(&bare), Err(Forbidden));
    let twice: [(&str, &[u8]); 2] = [("host", HOST.as_bytes()), ("host", HOST.as_bytes())];
    assert_eq!(route(&Head { method: "POST", path: EVENT, headers: &twice }), Err(Forbidden));
}

#[test]
fn posts_are_the_messages_of_mqtt() {
    let sends = |path, user, kind: Option<&'static str>, body: &'static [u8]| {
        let routed = ask("POST", path, HOST, user).unwrap();
        let headers: Vec<(&str, &[u8])> =
            kind.map(|kind| ("Content-Type", kind.as_bytes())).into_iter().collect();
        let head = Head { method: "POST", path, headers: &headers };
        message(&routed.route, &head, &Bytes::from_static(body))
    };
    let said =
        |topic: &str| topics::publish(&client("a:abc123:app"), topic.as_bytes()).map(Some).unwrap();
    #[rustfmt::skip]
    let table: [(&str, &str, Option<&str>, &[u8], Result<Option<Message>, Refusal>); 16] = [
        (EVENT,       DEVICE, None,                             b"{}", Ok(said("iot-2/type/t1/id/d1/evt/e/fmt/json"))),
        (EVENT,       DEVICE, Some("application/json"),         b"{}", Ok(said("iot-2/type/t1/id/d1/evt/e/fmt/json"))),
        (EVENT,       DEVICE, Some("Application/JSON; charset=utf-8"), b"no json", Ok(said("iot-2/type/t1/id/d1/evt/e/fmt/json"))),
        (EVENT,       DEVICE, Some("application/xml"),          b"<a/>", Ok(said("iot-2/type/t1/id/d1/evt/e/fmt/xml"))),
        (EVENT,       DEVICE, Some("text/plain"),               b"x",  Ok(said("iot-2/type/t1/id/d1/evt/e/fmt/text"))),
        (EVENT,       DEVICE, Some("text/csv"),                 b"x",  Ok(said("iot-2/type/t1/id/d1/evt/e/fmt/text"))),
        (EVENT,       DEVICE, Some("application/octet-stream"), b"\xff", Ok(said("iot-2/type/t1/id/d1/evt/e/fmt/bin"))),
        (APP_EVENT,   KEY,    None,                             b"{}", Ok(said("iot-2/type/t1/id/d1/evt/e/fmt/json"))),
        (APP_COMMAND, KEY,    Some("text/plain"),               b"x",  Ok(said("iot-2/type/t1/id/d1/cmd/c/fmt/text"))),
        (FETCH,       DEVICE, Some("image/png"),                b"",   Ok(None)),
        (EVENT,       DEVICE, Some("application/json"),         b"",   Err(Refusal::BadRequest)),
        (EVENT,       DEVICE, Some("image/png"),                b"x",  Err(Refusal::MediaType)),
        (EVENT,       DEVICE, Some("application/jsonx"),        b"x",  Err(Refusal::MediaType)),
        (EVENT,       DEVICE, Some(""),                         b"x",  Err(Refusal::MediaType)),
        (EVENT,       DEVICE, Some("application/x-www-form-urlencoded"), b"x", Err(Refusal::MediaType)),
        (APP_COMMAND, KEY,    Some("text/plain"),               b"",   Err(Refusal::BadRequest)),
    ];
    for (path, user, kind, body, expected) in table {
        assert_eq!(sends(path, user, kind, body), expected, "{path} {kind:?}");
    }
    let event = ask("POST", EVENT, HOST, DEVICE).unwrap().route;
    let head = Head { method: "POST", path: EVENT, headers: &[] };
    let sized = |bytes| message(&event, &head, &Bytes::from(vec![b'x'; bytes]));
    assert!(sized(131_072).is_ok());
    assert_eq!(sized(131_073), Err(Refusal::TooLarge));
    let twice: [(&str, &[u8]); 2] =
        [("content-type", b"text/plain"), ("content-type", b"text/csv")];
    let head = Head { method: "POST", path: EVENT, headers: &twice };
    assert_eq!(message(&event, &head, &Bytes::from_static(b"x")), Err(Refusal::MediaType));
}

#[test]
fn commands_are_asked_for_by_filters_and_found_in_topics() {
    #[rustfmt::skip]
    let table = [
        (EVENT, DEVICE, None),
        (FETCH, DEVICE, Some("iot-2/type/t1/id/d1/cmd/c/fmt/+")),
        ("/api/v0002/device/types/t1/devices/d1/commands/+/request", DEVICE,
            Some("iot-2/type/t1/id/d1/cmd/+/fmt/+")),
        ("/api/v0002/device/types/+/devices/+/commands/+/request", GATEWAY,
            Some("iot-2/type/+/id/+/cmd/+/fmt/+")),
    ];
    for (path, user, filter) in table {
        let route = ask("POST", path, HOST, user).unwrap().route;
        assert_eq!(route.filter().as_ref().map(Text::as_str), filter, "{path}");
    }
    let found = command(b"iot-2/type/t1/id/d1/cmd/c/fmt/bin");
    assert_eq!(found, Some((device("t1", "d1"), "c".into(), "bin".into())));
    for other in [
        "iot-2/type/t1/id/d1/evt/c/fmt/bin",
        "iot-2/cmd/c/fmt/bin",
        "iot-2/type/t1/id/d1/cmd/c/fmt/bin/x",
        "iot-2/type/t1/id/d1/cmd//fmt/bin",
        "iotdm-1/type/t1/id/d1/cancel",
        "",
    ] {
        assert_eq!(command(other.as_bytes()), None, "{other}");
    }
}

#[test]
fn paths_of_this_api_are_known() {
    for (path, expected) in [
        (EVENT, true),
        ("/api/v0002", true),
        ("/api/v0002/", true),
        ("/api/v00022", false),
        ("/api/v1/x/telemetry", false),
        ("/v1/api/v0002", false),
        ("", false),
    ] {
        assert_eq!(is_path(path), expected, "{path}");
    }
}

#[test]
fn formats_have_content_types_and_back() {
    for (format, kind) in [
        ("json", "application/json"),
        ("xml", "application/xml"),
        ("text", "text/plain"),
        ("bin", "application/octet-stream"),
    ] {
        assert_eq!(content_type_of(format.as_bytes()), kind);
        assert_eq!(format_of(Some(kind.as_bytes())), Some(format));
    }
    assert_eq!(content_type_of(b"x-cbor"), "application/octet-stream");
}

#[test]
fn waits_are_bounded() {
    let no = Err(Refusal::BadRequest);
    let long = format!("{{{}}}", " ".repeat(2_000));
    #[rustfmt::skip]
    let table = [
        ("", Ok(0)), ("{}", Ok(0)), (r#"{"waitTimeSecs":0}"#, Ok(0)), (r#" {"waitTimeSecs": 20} "#, Ok(20)),
        (r#"{"waitTimeSecs":3600}"#, Ok(3_600)), (r#"{"waitTimeSecs":3601}"#, no), (r#"{"waitTimeSecs":-1}"#, no),
        (r#"{"waitTimeSecs":1.5}"#, no), (r#"{"waitTimeSecs":"1"}"#, no), (r#"{"waitTimeSecs":null}"#, no),
        (r#"{"waitTimeSecs":1,"x":1}"#, no), (r#"{"x":1}"#, no), (r#"{"waitTimeSecs":1,"waitTimeSecs":2}"#, no),
        ("[7]", no), ("7", no), ("null", no), ("{", no), (" ", no), (r#"{"waitTimeSecs":99999999999}"#, no), (&long, no),
    ];
    for (body, expected) in table {
        assert_eq!(wait_s(body.as_bytes()), expected, "{body}");
    }
}

#[test]
fn outcomes_have_their_statuses() {
    let came = Outcome::Command {
        device: device("t1", "d1"),
        command: "c".into(),
        format: "text".into(),
        payload: Bytes::from_static(b"go"),
    };
    let headers = [
        ("content-type", "text/plain"),
        ("X-deviceType", "t1"),
        ("X-deviceId", "d1"),
        ("X-commandId", "c"),
    ];
    let headers = headers.map(|(name, value)| (name, value.to_owned())).to_vec();
    let body = Bytes::from_static(b"go");
    assert_eq!(respond(came), Response { status: 200, headers, body, closes: false });
    for (outcome, status) in
        [(Outcome::Published, 200), (Outcome::Nothing, 204), (Outcome::ConnectedElsewhere, 204)]
    {
        let response = respond(outcome);
        assert_eq!(
            (response.status, response.closes, response.body),
            (status, false, Bytes::new())
        );
    }
    #[rustfmt::skip]
    let table = [
        (Refusal::BadRequest, 400), (Refusal::Forbidden, 403), (Refusal::NotFound, 404), (Refusal::Method, 405),
        (Refusal::TooLarge, 413), (Refusal::MediaType, 415), (Refusal::Failed, 500), (Refusal::Unavailable, 503),
    ];
    for (refusal, status) in table {
        let response = respond(Outcome::Refused(refusal));
        assert_eq!((response.status, response.closes, response.body), (status, true, Bytes::new()));
    }
}

proptest! {
    #[test]
    fn no_bytes_break_the_routes(path in "(/api/v0002)?(/[a-z%+0-9é]{0,8}){0,9}", body in prop::collection::vec(any::<u8>(), 0..80)) {
        let routed = ask("POST", &path, HOST, DEVICE);
        prop_assert!(routed.is_err() || path.starts_with("/api/v0002/"));
        prop_assert!(wait_s(&body).is_err() || body.is_empty() || body.contains(&0x7b));
    }
}
