//! Publish rules: when they count, and what they do.

use std::collections::BTreeMap;

use bytes::Bytes;
use moorline_dialects::drogue::{
    event::CloudEvent,
    rules::{Answered, InvalidRules, Mode, Next, Place, Rules},
};
use serde_json::{Value, json};

use super::{event::said, fields};

fn rules(rules: &Value) -> Rules {
    let spec = fields(json!({ "publish": { "rules": rules } }));
    Rules::of(&spec, &fields(json!({}))).unwrap()
}

fn run(given: &Value, channel: &str) -> (Next, CloudEvent) {
    let mut event = said(channel, None, b"{}");
    let next = rules(given).run(Place::default(), channel, &mut event);
    (next, event)
}

#[test]
fn rules_count_for_their_channels() {
    let reject = json!([{ "reject": "no" }]);
    #[rustfmt::skip]
    let table = [
        (json!("always"), "a", true),
        (json!({ "isChannel": "a" }), "a", true),
        (json!({ "isChannel": "a" }), "b", false),
        (json!({ "not": { "isChannel": "a" } }), "b", true),
        (json!({ "and": [{ "isChannel": "a" }, { "not": { "or": [{ "isChannel": "b" }, { "isChannel": "c" }] } }] }), "a", true),
        (json!({ "and": [{ "isChannel": "a" }, { "isChannel": "b" }] }), "a", false),
        (json!({ "or": [] }), "a", false),
        (json!({ "and": [] }), "a", true),
    ];
    for (when, channel, expected) in table {
        let (next, _) = run(&json!([{ "when": when, "then": reject }]), channel);
        assert_eq!(next == Next::Rejected("no".to_owned()), expected, "{when}");
    }
    let (next, _) = run(&json!([{ "then": ["drop"] }]), "a");
    assert_eq!(next, Next::Dropped, "without a condition");
}

#[test]
fn steps_change_the_event_in_their_order() {
    let (next, event) = run(
        &json!([
            { "then": [{ "setExtension": { "name": "site", "value": "x" } }, { "removeExtension": "sender" }] },
            { "when": { "isChannel": "other" }, "then": ["drop"] },
            { "then": [{ "setAttribute": { "name": "subject", "value": "b" } }, { "removeAttribute": "time" }] },
            { "then": ["break", "drop"] },
            { "then": ["drop"] },
        ]),
        "a",
    );
    assert_eq!(next, Next::Accepted);
    assert_eq!((event.get("site"), event.get("sender")), (Some("x"), None));
    assert_eq!((event.get("subject"), event.get("time")), (Some("b"), None));
    for step in [
        json!({ "removeAttribute": "id" }),
        json!({ "removeAttribute": "sender" }),
        json!({ "setAttribute": { "name": "sender", "value": "x" } }),
        json!({ "setExtension": { "name": "No Name", "value": "x" } }),
        json!({ "removeExtension": "source" }),
    ] {
        assert_eq!(run(&json!([{ "then": [step] }]), "a").0, Next::Invalid, "{step}");
    }
}

#[test]
fn rules_that_cannot_be_read_let_nothing_through() {
    let nothing = fields(json!({}));
    for wrong in [
        json!({ "publish": 7 }),
        json!({ "publish": { "rules": [{ "when": "sometimes" }] } }),
        json!({ "publish": { "rules": [{ "then": ["explode"] }] } }),
        json!({ "publish": { "rules": [{ "then": [{ "validate": {} }] }] } }),
    ] {
        assert_eq!(Rules::of(&fields(wrong.clone()), &nothing), Err(InvalidRules), "{wrong}");
        assert_eq!(Rules::of(&nothing, &fields(wrong.clone())), Err(InvalidRules), "{wrong}");
    }
    assert!(Rules::of(&nothing, &nothing).unwrap().is_empty());
    let both = Rules::of(
        &fields(json!({ "publish": { "rules": [{ "then": [{ "reject": "application" }] }] } })),
        &fields(json!({ "publish": { "rules": [{ "then": ["drop"] }] } })),
    );
    let next = both.unwrap().run(Place::default(), "a", &mut said("a", None, b"{}"));
    assert_eq!(next, Next::Rejected("application".to_owned()), "the application's come first");
}

fn answered(status: u16, content_type: &str, body: &'static [u8]) -> Answered {
    let headers = [("content-type".to_owned(), content_type.to_owned())];
    Answered { status, headers: headers.into(), body: Bytes::from_static(body) }
}

fn asked(given: &Rules) -> (Place, Mode, u64) {
    match given.run(Place::default(), "a", &mut said("a", None, b"{}")) {
        Next::Ask(at, mode, endpoint) => (at, mode, endpoint.timeout_ms()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_validating_endpoint_decides() {
    let rules = rules(&json!([
        { "then": [{ "validate": { "endpoint": { "url": "https://v.example/", "timeout": "250ms" } } }] },
        { "then": [{ "reject": "later" }] },
    ]));
    let (at, mode, timeout_ms) = asked(&rules);
    assert_eq!((mode, timeout_ms), (Mode::Binary, 250));
    let no = |why: &str| Next::Rejected(why.to_owned());
    #[rustfmt::skip]
    let table = [
        (answered(200, "", b""), no("later")),
        (answered(204, "", b""), no("later")),
        (answered(202, "", b""), Next::Accepted),
        (answered(400, "application/json", br#"{"reason":"too hot"}"#), no("too hot")),
        (answered(406, "text/plain", b" too cold\n"), no("too cold")),
        (answered(404, "", b""), no("refused with status 404")),
        (answered(400, "", &[b'x'; 2_000]), no(&"x".repeat(1_024))),
        (answered(500, "", b""), Next::Failed),
        (answered(302, "", b""), Next::Failed),
    ];
    for (answer, expected) in table {
        let mut event = said("a", None, b"{}");
        assert_eq!(rules.answered(at, &answer, "a", &mut event), expected, "{answer:?}");
    }
}

#[test]
fn an_enriching_endpoint_says_another_event() {
    let of = |response: Value| {
        rules(&json!([{ "then": [{ "enrich": {
            "request": { "type": "cloudEvent", "mode": "structured" },
            "response": response, "endpoint": { "url": "https://e.example/" },
        } }] }]))
    };
    let enriched = |rules: &Rules, answer: &Answered| {
        let mut event = said("a", None, b"{}");
        let (at, mode, timeout_ms) = asked(rules);
        assert_eq!((mode, timeout_ms), (Mode::Structured, 5_000));
        (rules.answered(at, answer, "a", &mut event), event)
    };
    let raw = of(json!({ "type": "raw" }));
    let (next, event) = enriched(&raw, &answered(200, "text/plain", b"more"));
    assert_eq!(next, Next::Accepted);
    assert_eq!(
        (event.get("datacontenttype"), &event.data()[..]),
        (Some("text/plain"), &b"more"[..])
    );
    assert_eq!(event.get("subject"), Some("a"), "the same event");
    let untyped = Answered { headers: BTreeMap::new(), ..answered(200, "", b"more") };
    let (_, event) = enriched(&raw, &untyped);
    assert_eq!(event.get("datacontenttype"), Some("application/octet-stream"));
    let by_name = enriched(&of(json!("raw")), &answered(200, "text/plain", b"more")).1;
    assert_eq!(&by_name.data()[..], b"more", "as earlier versions said it");
    assert_eq!(enriched(&raw, &answered(204, "", b"")).0, Next::Failed);
    assert_eq!(enriched(&raw, &answered(400, "", b"")).0, Next::Failed);

    let other = br#"{"specversion":"1.0","id":"1","type":"t","source":"s","data":{"x":1}}"#;
    let event_form = of(json!({ "type": "cloudEvent" }));
    let (next, event) =
        enriched(&event_form, &answered(200, "application/cloudevents+json", other));
    assert_eq!((next, event.get("type")), (Next::Accepted, Some("t")));
    let assumed = of(json!({ "type": "assumeStructuredCloudEvent" }));
    assert_eq!(enriched(&assumed, &answered(200, "text/plain", other)).1.get("source"), Some("s"));
    assert_eq!(enriched(&assumed, &answered(200, "text/plain", b"x")).0, Next::Failed);
    let names = ["ce-specversion", "ce-id", "ce-type", "ce-source", "ce-site"];
    let headers: BTreeMap<_, _> =
        names.iter().map(|name| ((*name).to_owned(), (*name).to_owned())).collect();
    let binary = Answered { status: 200, headers, body: Bytes::from_static(b"{}") };
    assert_eq!(enriched(&event_form, &binary).1.get("site"), Some("ce-site"));
    assert_eq!(enriched(&event_form, &answered(200, "application/json", b"{}")).0, Next::Failed);
}
