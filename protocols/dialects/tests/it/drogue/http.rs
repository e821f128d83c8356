//! Requests of devices.

use moorline_dialects::drogue::{
    discovery::{self, Listening},
    http::{Head, Response, Route, Ttn, WAIT_S_MAX, fits_header, is_path, route},
    outcome::Refusal,
};
use serde_json::{Value, json};

/// `gate-7@plant:pw`
const BASIC: (&str, &[u8]) = ("Authorization", b"Basic Z2F0ZS03QHBsYW50OnB3");

fn ask(method: &str, path: &str, query: &str) -> Result<Route, Refusal> {
    let headers = [BASIC];
    route(&Head { method, path, query, headers: &headers }, false).map(|asked| asked.route)
}

fn publish(channel: &str, suffix: Option<&str>) -> Result<Route, Refusal> {
    Ok(Route::Publish { channel: channel.to_owned(), suffix: suffix.map(str::to_owned) })
}

#[test]
fn routes_are_those_that_there_are() {
    #[rustfmt::skip]
    let table = [
        ("GET", "/", Ok(Route::Alive)),
        ("POST", "/", Err(Refusal::Method)),
        ("POST", "/v1/telemetry", publish("telemetry", None)),
        ("POST", "/v1/telemetry/", publish("telemetry", None)),
        ("POST", "/v1/telemetry/a/b", publish("telemetry", Some("a/b"))),
        ("POST", "/v1/a%2Fb", publish("a/b", None)),
        ("POST", "/ttn", Ok(Route::Ttn(Ttn::V3))),
        ("POST", "/ttn/v3", Ok(Route::Ttn(Ttn::V3))),
        ("POST", "/ttn/v2", Ok(Route::Ttn(Ttn::V2))),
        ("GET", "/v1/telemetry", Err(Refusal::Method)),
        ("PUT", "/v1/telemetry", Err(Refusal::Method)),
        ("POST", "/v1/", Err(Refusal::NotFound)),
        ("POST", "/v1/%ff", Err(Refusal::NotFound)),
        ("POST", "/v1/%00", Err(Refusal::NotFound)),
        ("POST", "/v1/a/b%0Ac", Err(Refusal::NotFound)),
        ("POST", "/v1", Err(Refusal::NotFound)),
        ("POST", "/v2/telemetry", Err(Refusal::NotFound)),
        ("POST", "/ttn/v1", Err(Refusal::NotFound)),
    ];
    for (method, path, expected) in table {
        assert_eq!(ask(method, path, ""), expected, "{method} {path}");
    }
    for (path, is) in
        [("/v1/a", true), ("/ttn", true), ("/ttn/v2", true), ("/", false), ("/v1", false)]
    {
        assert_eq!(is_path(path), is, "{path}");
    }
}

#[test]
fn parameters_say_how_long_and_for_whom() {
    let headers = [BASIC];
    let asked = |query| {
        let head = Head { method: "POST", path: "/v1/t", query, headers: &headers };
        route(&head, false).map(|asked| (asked.wait_s, asked.speaks_as, asked.data_schema))
    };
    let text = |text: &str| Some(text.to_owned());
    #[rustfmt::skip]
    let table = [
        ("", Ok((0, None, None))),
        ("ct=30", Ok((30, None, None))),
        ("commandTimeout=5", Ok((5, None, None))),
        ("ct=", Ok((0, None, None))),
        ("ct=99999999999", Ok((WAIT_S_MAX, None, None))),
        ("as=sensor%201&data_schema=urn:x", Ok((0, text("sensor 1"), text("urn:x")))),
        ("x=y", Ok((0, None, None))),
    ];
    for (query, expected) in table {
        assert_eq!(asked(query), expected, "{query}");
    }
    for query in ["ct=x", "ct=-1", "ct=1.5", "data_schema=%00", "data_schema=urn%3A%7F"] {
        assert_eq!(asked(query).unwrap_err().status(), 400, "{query}");
    }
    assert_eq!(asked("device=other").unwrap().0, 0, "a user and password of another device");
    let anonymous = Head { method: "POST", path: "/v1/t", query: "", headers: &[] };
    assert_eq!(route(&anonymous, false).unwrap_err(), Refusal::Authentication);
    assert!(route(&anonymous, true).is_ok(), "by its certificate");
    assert_eq!(
        route(&Head { headers: &headers, ..anonymous }, true).unwrap_err(),
        Refusal::Authentication
    );
}

#[test]
fn a_command_comes_with_its_name() {
    let response = Response::command("open", bytes::Bytes::from_static(b"{}"));
    assert_eq!((response.status, &response.headers[0]), (200, &("command", "open".to_owned())));
    assert!(fits_header("open it") && !fits_header("a\nb") && !fits_header("ü"));
    assert!(Response::empty(202).headers.is_empty());
}

#[test]
fn endpoints_are_discovered() {
    let listening = Listening { mqtt: Some(8883), websocket: Some((443, true)) };
    let said = |listening| {
        let bytes = discovery::endpoints("api.example.com:8443", true, listening);
        serde_json::from_slice::<Value>(&bytes).unwrap()
    };
    let all = said(Some(&listening));
    assert_eq!(all["registry"], json!({ "url": "https://api.example.com:8443" }));
    assert_eq!(all["mqtt"], json!({ "host": "api.example.com", "port": 8883 }));
    assert_eq!(all["mqtt_integration"], all["mqtt"]);
    assert_eq!(all["mqtt_ws"], json!({ "url": "wss://api.example.com:443/mqtt" }));
    let sockets = json!({ "url": "wss://api.example.com:8443" });
    assert_eq!(all["websocket_integration"], sockets, "where they were asked for");
    let few = said(None);
    assert!(few.get("api").is_some() && few.get("registry").is_some() && few.get("mqtt").is_none());
    assert!(discovery::is_path("/.well-known/drogue-endpoints"));
    assert!(serde_json::from_slice::<Value>(&discovery::version()).unwrap()["version"].is_string());
}
