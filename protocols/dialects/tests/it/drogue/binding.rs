//! Events over HTTP, as endpoints get them and answer with them.

use std::collections::BTreeMap;

use bytes::Bytes;
use moorline_dialects::drogue::{
    binding::{Outgoing, Unaskable, of_command, of_rule},
    command::{Asked, external},
    event::CloudEvent,
    rules::{Answered, Next, Place, Rules},
};
use serde_json::{Value, json};

use super::{event::said, fields};

/// What an endpoint is asked about an event that says this.
fn asked(step: Value, event: &CloudEvent) -> Result<Outgoing, Unaskable> {
    let spec = fields(json!({ "publish": { "rules": [{ "then": [step] }] } }));
    let rules = Rules::of(&spec, &fields(json!({}))).unwrap();
    match rules.run(Place::default(), "a", &mut event.clone()) {
        Next::Ask(_, mode, endpoint) => of_rule(&endpoint, mode, event),
        other => panic!("{other:?}"),
    }
}

fn headers(outgoing: &Outgoing) -> BTreeMap<String, String> {
    outgoing.headers.iter().cloned().collect()
}

#[test]
fn the_binary_form_has_attributes_as_headers() {
    let event = said("a", Some("text/plain"), b"21.5");
    let endpoint = json!({ "url": "https://v.example/check" });
    let outgoing = asked(json!({ "validate": { "endpoint": endpoint } }), &event).unwrap();
    assert_eq!(
        (outgoing.method.as_str(), outgoing.url.as_str()),
        ("POST", "https://v.example/check")
    );
    assert_eq!((&outgoing.body[..], outgoing.timeout_ms), (&b"21.5"[..], 5_000));
    let headers = headers(&outgoing);
    assert_eq!(headers["content-type"], "text/plain");
    for (name, value) in event.attributes() {
        assert_eq!(headers[&format!("ce-{name}")], value, "plain text, and a % stays");
    }
    assert_eq!(headers["ce-specversion"], "1.0");
    assert!(headers["ce-source"].contains('%'), "{headers:?}");
    assert_eq!(headers.len(), event.attributes().count() + 1);
}

#[test]
fn the_structured_form_is_the_whole_event() {
    let event = said("a", None, b"{\"t\":1}");
    let step = json!({ "enrich": {
        "request": { "type": "cloudEvent", "mode": "structured" },
        "endpoint": {
            "url": "https://e.example/", "method": "PUT", "timeout": "250ms",
            "headers": [{ "name": "X-A", "value": "b" }],
        },
    } });
    let outgoing = asked(step, &event).unwrap();
    assert_eq!((outgoing.method.as_str(), outgoing.timeout_ms), ("PUT", 250));
    assert_eq!(CloudEvent::read(&outgoing.body), Some(event));
    let headers = headers(&outgoing);
    assert_eq!(headers["content-type"], "application/cloudevents+json; charset=utf-8");
    assert_eq!((headers["X-A"].as_str(), headers.len()), ("b", 2));
}

#[test]
fn an_endpoint_says_what_it_is_shown() {
    let event = said("a", None, b"1");
    let of = |endpoint: Value| asked(json!({ "validate": { "endpoint": endpoint } }), &event);
    let shown = |auth: Value| {
        let outgoing = of(json!({ "url": "https://v.example/", "auth": auth })).unwrap();
        headers(&outgoing).get("authorization").cloned()
    };
    let basic = shown(json!({ "basic": { "username": "u", "password": "p" } }));
    assert_eq!(basic.as_deref(), Some("Basic dTpw"));
    assert_eq!(shown(json!({ "bearer": { "token": "t" } })).as_deref(), Some("Bearer t"));
    assert_eq!(shown(json!("none")), None);
    for tls in [json!({ "insecure": true }), json!({ "certificate": "x" })] {
        let outgoing = of(json!({ "url": "https://v.example/", "tls": tls }));
        assert_eq!(outgoing, Err(Unaskable), "{tls}");
    }
    assert!(of(json!({ "url": "https://v.example/", "tls": {} })).is_ok());
    let own =
        json!([{ "name": "Content-Type", "value": "x/y" }, { "name": "CE-Id", "value": "7" }]);
    let outgoing = of(json!({ "url": "https://v.example/", "headers": own })).unwrap();
    let same = |wanted: &str| {
        let same = |(name, _): &&(String, String)| name.eq_ignore_ascii_case(wanted);
        outgoing.headers.iter().filter(same).map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    assert_eq!((same("content-type"), same("ce-id")), (vec!["x/y"], vec!["7"]), "once each");
    let debug = format!("{outgoing:?}");
    assert!(!debug.contains("v.example") && !debug.contains("x/y"), "{debug}");
}

#[test]
fn what_cannot_stand_in_a_header_is_escaped_and_comes_back() {
    let spec = fields(json!({ "publish": { "rules": [{ "then": [{ "enrich": {
        "endpoint": { "url": "https://e.example/" },
    } }] }] } }));
    let rules = Rules::of(&spec, &fields(json!({}))).unwrap();
    let mut event = said("a", None, b"1");
    for (value, wire) in [
        ("Würzburg", "W%C3%BCrzburg"),
        ("a\r\nb", "a%0D%0Ab"),
        ("50 % \"x\" %2D", "50 % \"x\" %2D"),
    ] {
        event.set_extension("site", value).unwrap();
        let Next::Ask(at, mode, endpoint) = rules.run(Place::default(), "a", &mut event.clone())
        else {
            panic!("it asks");
        };
        let outgoing = of_rule(&endpoint, mode, &event).unwrap();
        assert_eq!(headers(&outgoing)["ce-site"], wire);
        let mut headers = headers(&outgoing);
        headers.insert("ce-data".to_owned(), "no attribute".to_owned());
        headers.insert("ce-a-b".to_owned(), "no name".to_owned());
        let answered = Answered { status: 200, headers, body: outgoing.body };
        let mut enriched = said("b", None, b"2");
        assert_eq!(rules.answered(at, &answered, "a", &mut enriched), Next::Accepted);
        assert_eq!(enriched, event, "the same event");
    }
    let headers = [("ce-id", "%ff")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let answered = Answered { status: 200, headers: headers.into(), body: Bytes::new() };
    let next = rules.answered(Place::default(), &answered, "a", &mut event);
    assert_eq!(next, Next::Failed, "no text");
}

#[test]
fn a_command_is_told_as_json() {
    let of = |more: Value| {
        let mut endpoint = json!({ "url": "https://hook.example/cmd" });
        endpoint.as_object_mut().unwrap().extend(fields(more));
        let spec = json!({ "commands": { "commands": [{ "external": endpoint }] } });
        let external = external(&fields(spec)).unwrap().unwrap();
        let asked = Asked {
            application: "plant".to_owned(),
            device: "gate-7".to_owned(),
            command: "open".to_owned(),
        };
        of_command(&external, &asked, b"\x01")
    };
    let plain = of(json!({}));
    assert_eq!((plain.method.as_str(), plain.url.as_str()), ("POST", "https://hook.example/cmd"));
    assert_eq!(headers(&plain)["content-type"], "application/json");
    let body: Value = serde_json::from_slice(&plain.body).unwrap();
    assert_eq!((&body["command"], &body["payload"]), (&json!("open"), &json!("AQ==")));
    let own =
        of(json!({ "method": "PUT", "headers": { "X-A": "b", "Content-Type": "text/json" } }));
    let headers = headers(&own);
    assert_eq!((own.method.as_str(), headers["X-A"].as_str()), ("PUT", "b"));
    assert_eq!((headers["Content-Type"].as_str(), headers.len()), ("text/json", 2));
}
