//! Tenants, devices, credentials and mail through the API of every node, while nodes die; and who may connect by them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    api::{Api, problem, text},
    http,
    mqtt::Heard,
    packet::{Connect, Packet, Version},
    scenarios,
    wait::{SOON, until_true},
};

#[test]
fn the_registry_is_one_on_all_nodes() {
    let mut api = Api::start();
    assert_eq!(problem(api.ask(1, "POST", "/tenants", &json!({ "name": "acme" }))).0, 201);
    scenarios(
        &mut api,
        &[
            ("only who has a token is answered", tokens),
            ("what one node made every node has", made_everywhere),
            ("a write depends on the version that was read", versions),
            ("tenants do not see each other", tenants_do_not_meet),
            ("a device connects with its secret until it is revoked", devices_connect),
            ("mail waits in order and tells its story", mail_waits),
            ("mail outlives its leader", mail_outlives_a_leader),
        ],
    );
}

fn tokens(api: &mut Api) {
    let nobody = api.ask_as("", 2, "GET", "/tenants", &Value::Null);
    assert_eq!(problem(nobody), (401, "unauthorised".to_owned()));
    let first = json!({ "name": "second", "role": "admin" });
    let again = api.ask_as("", 2, "POST", "/tokens", &first);
    assert_eq!(problem(again).0, 401, "there is a first one already");
    let wrong = format!("{}x", api.token);
    assert_eq!(problem(api.ask_as(&wrong, 2, "GET", "/tenants", &Value::Null)).0, 401);
    let made =
        api.ask(2, "POST", "/tokens?tenant=acme", &json!({ "name": "ci", "role": "read-only" }));
    let reader = text(&made, 201, "token");
    assert_eq!(api.ask_as(&reader, 3, "GET", "/devices", &Value::Null).0, 200);
    let device = json!({ "name": "not-mine-to-make" });
    let refused = api.ask_as(&reader, 3, "POST", "/devices", &device);
    assert_eq!(problem(refused), (403, "forbidden".to_owned()));
    assert_eq!(problem(api.ask_as(&reader, 3, "GET", "/tenants", &Value::Null)).0, 403);
    assert_eq!(api.ask(1, "DELETE", "/tokens/ci?tenant=acme", &Value::Null).0, 204);
    assert_eq!(problem(api.ask_as(&reader, 3, "GET", "/devices", &Value::Null)).0, 401);
}

fn made_everywhere(api: &mut Api) {
    let names: Vec<_> = (0..30).map(|number| format!("everywhere-{number:02}")).collect();
    for (number, name) in (0_u64..).zip(&names) {
        let device = json!({ "name": name, "settings": { "labels": ["north"] } });
        assert_eq!(api.ask(number % 3 + 1, "POST", "/devices?tenant=acme", &device).0, 201);
        // At once, on another node.
        let path = format!("/devices/{name}?tenant=acme");
        let (status, body) = api.ask((number + 1) % 3 + 1, "GET", &path, &Value::Null);
        assert_eq!((status, &body["settings"]["labels"][0]), (200, &json!("north")));
    }
    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/devices?tenant=acme&limit=7{after}");
        let (status, page) = api.ask(2, "GET", &path, &Value::Null);
        assert_eq!(status, 200, "{page}");
        let devices = page["devices"].as_array().unwrap();
        listed.extend(devices.iter().map(|device| device["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    listed.retain(|name| name.starts_with("everywhere"));
    listed.sort();
    assert_eq!(listed, names, "each once");
    let again = api.ask(1, "POST", "/devices?tenant=acme", &json!({ "name": names[0] }));
    assert_eq!(problem(again), (409, "exists".to_owned()));
}

fn versions(api: &mut Api) {
    let path = "/devices/versioned?tenant=acme";
    let (_, made) = api.ask(1, "POST", "/devices?tenant=acme", &json!({ "name": "versioned" }));
    let version = made["version"].as_u64().unwrap();
    let put = |api: &Api, node: u64, version: u64| {
        let (tag, bearer) = (format!("\"{version}\""), format!("Bearer {}", api.token));
        let headers = [("authorization", bearer.as_str()), ("if-match", tag.as_str())];
        let to = api.cluster.node(node).admin;
        let body = json!({ "enabled": false }).to_string();
        http::api("PUT", to, &format!("/api/v1{path}"), &headers, &body)
    };
    assert_eq!(put(api, 2, version).status, 200);
    let late = put(api, 3, version);
    assert_eq!((late.status, late.json()["code"].as_str()), (412, Some("version-mismatch")));
    let (_, now) = api.ask(1, "GET", path, &Value::Null);
    assert_eq!(now["enabled"], false);
    assert!(now["version"].as_u64().unwrap() > version);
}

fn tenants_do_not_meet(api: &mut Api) {
    assert_eq!(api.ask(1, "POST", "/tenants", &json!({ "name": "other" })).0, 201);
    let made =
        api.ask(2, "POST", "/tokens?tenant=other", &json!({ "name": "op", "role": "admin" }));
    let other = text(&made, 201, "token");
    assert_eq!(api.ask(3, "POST", "/devices?tenant=acme", &json!({ "name": "secret" })).0, 201);
    for (method, path) in [
        ("GET", "/devices/secret"),
        ("GET", "/devices/secret?tenant=acme"),
        ("GET", "/devices?tenant=acme"),
        ("DELETE", "/devices/secret"),
        ("GET", "/devices/secret/mailbox"),
        ("GET", "/tenants/acme"),
    ] {
        let answer = api.ask_as(&other, 1, method, path, &Value::Null);
        assert_eq!(problem(answer), (404, "not-found".to_owned()), "{method} {path}");
    }
    let mail = json!({ "name": "open" });
    assert_eq!(api.ask_as(&other, 2, "POST", "/devices/secret/mailbox", &mail).0, 404);
    // The same name is another device.
    assert_eq!(api.ask_as(&other, 2, "POST", "/devices", &json!({ "name": "secret" })).0, 201);
}

/// A connection as a device would make it.
fn connect(api: &Api, node: u64, user: &str, password: &str, client: &str) -> u8 {
    let mut connect = Connect::clean(Version::V5, client);
    connect.login = Some((user.to_owned(), password.to_owned()));
    connect.reason(api.cluster.mqtt(node))
}

fn devices_connect(api: &mut Api) {
    assert_eq!(api.ask(1, "POST", "/devices?tenant=acme", &json!({ "name": "pump" })).0, 201);
    let credentials = "/devices/pump/credentials?tenant=acme";
    let made = api.ask(2, "POST", credentials, &json!({}));
    let secret = text(&made, 201, "secret");
    assert_eq!(connect(api, 3, "pump@acme", &secret, "pump"), 0);
    let (bad, secret) = (0x86, secret.as_str());
    for (user, password) in [
        ("pump@acme", "wrong"),
        ("pump@other", secret),
        ("pump@nowhere", secret),
        ("nobody@acme", secret),
        ("pump", secret),
    ] {
        assert_eq!(connect(api, 1, user, password, "pump"), bad, "{user}");
    }
    let mut login = Connect::clean(Version::V5, "stays");
    login.login = Some(("pump@acme".to_owned(), secret.to_owned()));
    let mut open: Vec<_> = [1, 2, 3]
        .map(|node| {
            Connect { client: format!("stays-{node}"), ..login.clone() }
                .to(api.cluster.mqtt(node))
                .0
        })
        .into();
    let id = made.1["id"].as_str().unwrap();
    let revoke = format!("/devices/pump/credentials/{id}?tenant=acme");
    assert_eq!(api.ask(3, "DELETE", &revoke, &Value::Null).0, 204);
    let since = Instant::now();
    for client in &mut open {
        assert_eq!(client.hear(SOON), Heard::Packet(Packet::Disconnect { reason: 0x87 }));
    }
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    assert_eq!(connect(api, 1, "pump@acme", secret, "pump"), bad);
    // A device of the same name is another one.
    let again = text(&api.ask(2, "POST", credentials, &json!({})), 201, "secret");
    assert_eq!(connect(api, 2, "pump@acme", &again, "pump"), 0);
    assert_eq!(api.ask(1, "DELETE", "/devices/pump?tenant=acme", &Value::Null).0, 204);
    assert_eq!(api.ask(1, "POST", "/devices?tenant=acme", &json!({ "name": "pump" })).0, 201);
    assert_eq!(connect(api, 2, "pump@acme", &again, "pump"), bad);
}

fn send(api: &Api, node: u64, device: &str, number: usize) -> String {
    let path = format!("/devices/{device}/mailbox?tenant=acme");
    let mail = json!({ "name": "open-gate", "payload": { "n": number } });
    text(&api.ask(node, "POST", &path, &mail), 201, "id")
}

fn waiting(api: &Api, node: u64, device: &str) -> Vec<String> {
    let path = format!("/devices/{device}/mailbox?tenant=acme");
    let (status, list) = api.ask(node, "GET", &path, &Value::Null);
    assert_eq!(status, 200, "{list}");
    let mails = list["mails"].as_array().unwrap().iter();
    mails.map(|mail| mail["id"].as_str().unwrap().to_owned()).collect()
}

fn mail_waits(api: &mut Api) {
    assert_eq!(api.ask(1, "POST", "/devices?tenant=acme", &json!({ "name": "gate" })).0, 201);
    let sent: Vec<_> =
        (0..10).map(|number| send(api, number as u64 % 3 + 1, "gate", number)).collect();
    assert_eq!(waiting(api, 2, "gate"), sent);
    let repeat = json!({ "name": "open-gate", "payload": { "n": 0 }, "id": sent[0] });
    let (status, again) = api.ask(3, "POST", "/devices/gate/mailbox?tenant=acme", &repeat);
    assert_eq!((status, &again["repeat"]), (201, &json!(true)));
    let one = format!("/devices/gate/mailbox/{}?tenant=acme", sent[4]);
    let (_, mail) = api.ask(1, "GET", &one, &Value::Null);
    assert_eq!((&mail["state"], &mail["payload"]["n"]), (&json!("queued"), &json!(4)));
    assert_eq!(api.ask(2, "DELETE", &one, &Value::Null).0, 204);
    let (_, mail) = api.ask(3, "GET", &one, &Value::Null);
    let story: Vec<_> =
        mail["history"].as_array().unwrap().iter().map(|note| note["what"].clone()).collect();
    assert_eq!(story, ["queued", "cancelled"]);
    let (status, purged) = api.ask(1, "DELETE", "/devices/gate/mailbox?tenant=acme", &Value::Null);
    assert_eq!((status, &purged["removed"]), (200, &json!(9)));
    assert!(waiting(api, 3, "gate").is_empty());
}

fn mail_outlives_a_leader(api: &mut Api) {
    assert_eq!(api.ask(1, "POST", "/devices?tenant=acme", &json!({ "name": "far" })).0, 201);
    let mut sent = Vec::new();
    for victim in [1, 2, 3] {
        let others: Vec<_> = [1, 2, 3].into_iter().filter(|node| *node != victim).collect();
        sent.extend((0..5).map(|number| send(api, others[number % 2], "far", number)));
        api.cluster.node_mut(victim).kill();
        until_true("another node leads, and all is there", SOON, || {
            let path = "/devices/far/mailbox?tenant=acme";
            let (status, list) = api.ask(others[0], "GET", path, &Value::Null);
            status == 200 && list["mails"].as_array().unwrap().len() == sent.len()
        });
        assert_eq!(waiting(api, others[1], "far"), sent);
        api.cluster.node_mut(victim).start_ready();
    }
}
