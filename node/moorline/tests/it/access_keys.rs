//! Tokens for some devices of a tenant, and keys by which devices make themselves known.

use std::{
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::harness::{
    api::{Api, problem, text},
    packet::{Connect, Version},
    scenarios,
};

#[test]
fn a_tenant_gives_away_less_than_all_it_has() {
    let mut api = Api::start();
    assert_eq!(api.ask(1, "POST", "/tenants", &json!({ "name": "acme" })).0, 201);
    for (name, label) in [("pump-1", "north"), ("pump-2", "south"), ("valve-1", "north")] {
        let device = json!({ "name": name, "settings": { "labels": [label] } });
        assert_eq!(api.ask(1, "POST", "/devices?tenant=acme", &device).0, 201);
    }
    scenarios(
        &mut api,
        &[
            ("a token for some devices meets no others, by any route", scopes),
            ("a token for some devices makes only such", scopes_make),
            ("what a scope can't be is refused", scopes_refused),
            ("a device makes itself known by a key, and connects", provisioned),
            ("a key is no more than it says, nor for longer", keys_end),
            ("however many ask at once, a key makes as many as it may", counted),
        ],
    );
}

/// A token of acme.
fn token(api: &Api, name: &str, role: &str, scope: &Value) -> String {
    let token = json!({ "name": name, "role": role, "scope": scope });
    text(&api.ask(2, "POST", "/tokens?tenant=acme", &token), 201, "token")
}

fn scopes(api: &mut Api) {
    let names = token(api, "names", "operator", &json!({ "devices": ["pump-*"] }));
    let labels = token(api, "labels", "operator", &json!({ "labels": ["north"] }));
    let both = json!({ "devices": ["pump-*"], "labels": ["north"] });
    let both = token(api, "both", "operator", &both);
    let mine = [
        (&names, ["pump-1", "pump-2"].as_slice()),
        (&labels, &["pump-1", "valve-1"]),
        (&both, &["pump-1"]),
    ];
    let routes = |device: &str| {
        let devices = format!("/devices/{device}");
        let mailbox = format!("{devices}/mailbox");
        let (mail, event) =
            (json!({ "name": "open" }), json!({ "type": "message", "channel": "c" }));
        let no = "018f4d1f-2a55-7f0e-b4ea-5f7c3e6fa001";
        [
            ("GET", devices.clone(), Value::Null, 200),
            ("PATCH", devices.clone(), json!({ "enabled": true }), 200),
            ("GET", mailbox.clone(), Value::Null, 200),
            ("POST", mailbox.clone(), mail, 201),
            ("DELETE", mailbox.clone(), Value::Null, 200),
            ("GET", format!("{mailbox}/{no}"), Value::Null, 404),
            ("DELETE", format!("{mailbox}/{no}"), Value::Null, 404),
            ("POST", format!("{devices}/events"), event, 201),
            ("GET", format!("{devices}/credentials"), Value::Null, 200),
            ("POST", format!("{devices}/credentials"), json!({ "kind": "token" }), 201),
            ("DELETE", format!("{devices}/credentials/0000000000000001"), Value::Null, 404),
        ]
    };
    for (token, mine) in mine {
        let (status, list) = api.ask_as(token, 1, "GET", "/devices", &Value::Null);
        assert_eq!(status, 200);
        let devices = list["devices"].as_array().unwrap();
        let mut seen: Vec<_> = devices.iter().map(|one| one["name"].as_str().unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, mine);
        for device in ["pump-1", "pump-2", "valve-1", "nobody"] {
            let is_mine = mine.contains(&device);
            for (method, path, body, expected) in routes(device) {
                let (status, answer) = api.ask_as(token, 3, method, &path, &body);
                if is_mine {
                    assert_eq!(status, expected, "{method} {path}: {answer}");
                } else {
                    assert_eq!(
                        problem((status, answer)),
                        (404, "not-found".to_owned()),
                        "{method} {path}"
                    );
                }
            }
        }
        // What is about all devices is not for it.
        for (method, path, body) in [
            ("GET", "/tenants/acme", Value::Null),
            ("GET", "/consumers", Value::Null),
            ("GET", "/events", Value::Null),
            ("GET", "/events?device=pump-1&group=g", Value::Null),
            ("GET", "/devices/export", Value::Null),
            ("GET", "/provisioning-keys", Value::Null),
        ] {
            let refused = problem(api.ask_as(token, 2, method, path, &body));
            assert_eq!(refused, (403, "forbidden".to_owned()), "{method} {path}");
        }
    }
    let elsewhere = api.ask_as(&names, 1, "GET", "/events?device=valve-1", &Value::Null);
    assert_eq!(problem(elsewhere).0, 404);
}

fn scopes_make(api: &mut Api) {
    let north =
        token(api, "makes", "operator", &json!({ "devices": ["n-*"], "labels": ["north"] }));
    let make = |name: &str, labels: Value| {
        let device = json!({ "name": name, "settings": { "labels": labels } });
        api.ask_as(&north, 1, "POST", "/devices", &device).0
    };
    assert_eq!(make("n-1", json!(["north"])), 201);
    assert_eq!(make("n-2", json!(["south"])), 404);
    assert_eq!(make("m-1", json!(["north"])), 404);
    // It can't let one of its devices out of its own sight.
    let away = json!({ "settings": { "labels": ["south"] } });
    assert_eq!(api.ask_as(&north, 2, "PATCH", "/devices/n-1", &away).0, 404);
    assert_eq!(api.ask_as(&north, 3, "DELETE", "/devices/n-1", &Value::Null).0, 204);
}

fn scopes_refused(api: &mut Api) {
    let scope = json!({ "devices": ["pump-*"] });
    for (path, role, scope) in [
        ("/tokens?tenant=acme", "admin", &scope),
        ("/tokens", "operator", &scope),
        ("/tokens?tenant=acme", "operator", &json!({ "devices": [""] })),
        ("/tokens?tenant=acme", "operator", &json!({ "device": "pump-*" })),
    ] {
        let token = json!({ "name": "refused", "role": role, "scope": scope });
        let (status, _) = api.ask(1, "POST", path, &token);
        assert!(matches!(status, 400 | 422), "{token}: {status}");
    }
}

fn key(api: &Api, more: &Value) -> String {
    let mut key = json!({ "devices": ["line-*"], "devices_max": 3 });
    key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    text(&api.ask(1, "POST", "/provisioning-keys?tenant=acme", &key), 201, "secret")
}

fn provision(api: &Api, node: u64, key: &str, device: &str) -> (u16, Value) {
    api.ask_as("", node, "POST", "/provision", &json!({ "key": key, "device": device }))
}

fn provisioned(api: &mut Api) {
    let key = key(api, &json!({ "name": "known", "labels": ["new"], "type": "pump" }));
    let made = provision(api, 2, &key, "line-1");
    let secret = text(&made, 201, "secret");
    assert_eq!(made.1["user"], "line-1@acme");
    let (_, device) = api.ask(3, "GET", "/devices/line-1?tenant=acme", &Value::Null);
    assert_eq!(device["settings"]["labels"], json!(["new"]));
    assert_eq!(device["settings"]["type"], "pump");
    let mut connect = Connect::clean(Version::V5, "line-1");
    connect.login = Some(("line-1@acme".to_owned(), secret));
    assert_eq!(connect.reason(api.cluster.mqtt(3)), 0);
    // It is nobody else's from now on.
    assert_eq!(problem(provision(api, 1, &key, "line-1")), (409, "exists".to_owned()));
    assert_eq!(problem(provision(api, 1, &key, "pump-1")).0, 403);
    assert_eq!(connect.reason(api.cluster.mqtt(1)), 0);
    let (_, keys) = api.ask(2, "GET", "/provisioning-keys?tenant=acme", &Value::Null);
    assert_eq!((&keys[0]["name"], &keys[0]["made"]), (&json!("known"), &json!(1)));
    assert!(!keys.to_string().contains(&key));
    // A key is no token, nor the other way round.
    assert_eq!(api.ask_as(&key, 1, "GET", "/devices", &Value::Null).0, 401);
    assert_eq!(api.ask_as(&key.replace("mlp_", "mlt_"), 1, "GET", "/devices", &Value::Null).0, 401);
    assert_eq!(provision(api, 1, &api.token, "line-2").0, 401);
}

fn keys_end(api: &mut Api) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let over =
        key(api, &json!({ "name": "over", "not_after_ms": u64::try_from(now).unwrap() - 1 }));
    let gone = key(api, &json!({ "name": "gone" }));
    assert_eq!(api.ask(3, "DELETE", "/provisioning-keys/gone?tenant=acme", &Value::Null).0, 204);
    let wrong = format!("{}x", &gone[..gone.len() - 1]);
    let keys = [&over, &gone, &wrong, "", "mlp_999_x_y", "mlp_0_root_x"];
    for (number, key) in (0_u64..).zip(keys) {
        // Who fails too often at one node is banned there.
        let refused = problem(provision(api, number % 3 + 1, key, "line-9"));
        assert_eq!(refused, (401, "unauthorised".to_owned()), "{key}");
    }
    let fresh = key(api, &json!({ "name": "fresh" }));
    for name in ["~line", "line-\u{1F}", ""] {
        assert!(matches!(provision(api, 1, &fresh, name).0, 400 | 403), "{name:?}");
    }
}

fn counted(api: &mut Api) {
    let key = key(api, &json!({ "name": "counted", "devices_max": 5 }));
    let api = &*api;
    let made = thread::scope(|scope| {
        let tries: Vec<_> = (0..12_u64)
            .map(|number| {
                let key = &key;
                scope.spawn(move || {
                    provision(api, number % 3 + 1, key, &format!("line-c{number}")).0
                })
            })
            .collect();
        let statuses: Vec<_> = tries.into_iter().map(|one| one.join().unwrap()).collect();
        assert!(statuses.iter().all(|status| matches!(status, 201 | 403 | 429)), "{statuses:?}");
        statuses.iter().filter(|status| **status == 201).count()
    });
    assert_eq!(made, 5);
    let (_, list) = api.ask(1, "GET", "/devices?tenant=acme&limit=1000", &Value::Null);
    let devices = list["devices"].as_array().unwrap().iter();
    let names = devices.filter(|one| one["name"].as_str().unwrap().starts_with("line-c"));
    assert_eq!(names.count(), 5);
}
