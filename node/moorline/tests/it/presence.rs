//! Presence: who is connected, active or offline, by each protocol, on whichever node, while nodes die; and mail that says
//! what becomes of it.

use std::{io::Write, net::TcpStream};

use serde_json::{Value, json};

use crate::harness::{
    api::{Api, text},
    cluster::Shape,
    http,
    mqtt::Client,
    packet::{Connect, Version},
    scenarios,
    sse::Sse,
    wait::{READY, SOON, until, until_true},
};

const FLEET: &str = "FLEET001";

/// A tenant whose devices are offline after two seconds.
#[test]
fn presence_is_known_everywhere() {
    let extra = "anonymous = true\n".to_owned();
    let mut api = Api::start_as(&Shape { extra, ..Shape::of(3) }, &["http"]);
    let aliases = [format!("fostrom:{FLEET}")];
    let tenant = json!({
        "name": "acme", "aliases": aliases, "settings": { "offline-after-s": 2 },
    });
    assert_eq!(api.ask(1, "POST", "/tenants", &tenant).0, 201);
    scenarios(
        &mut api,
        &[
            ("a connection speaks for its device", connected),
            ("a request speaks for its device for a while", active),
            ("a device's own threshold counts before its tenant's", own_threshold),
            ("mail says what becomes of it", mail_speaks),
            ("devices of a dead node are disconnected and then offline", node_dies),
        ],
    );
}

#[track_caller]
fn device(api: &Api, name: &str, settings: &Value) -> String {
    let new = json!({ "name": name, "settings": settings });
    assert_eq!(api.ask(1, "POST", "/devices?tenant=acme", &new).0, 201);
    let path = format!("/devices/{name}/credentials?tenant=acme");
    text(&api.ask(1, "POST", &path, &json!({})), 201, "secret")
}

fn connect(api: &Api, node: u64, device: &str, secret: &str) -> Client {
    let mut connect = Connect::clean(Version::V5, device);
    connect.login = Some((format!("{device}@acme"), secret.to_owned()));
    connect.to(api.cluster.mqtt(node)).0
}

#[track_caller]
fn shown(api: &Api, node: u64, device: &str) -> Value {
    let (status, body) =
        api.ask(node, "GET", &format!("/devices/{device}?tenant=acme"), &Value::Null);
    assert_eq!(status, 200, "{body}");
    body
}

/// Waits until a device is so, seen from a node.
#[track_caller]
fn becomes(api: &Api, node: u64, device: &str, state: &str) -> Value {
    let what = format!("{device} is {state}");
    until(&what, SOON, || {
        let path = format!("/devices/{device}?tenant=acme");
        let (status, body) = api.ask(node, "GET", &path, &Value::Null);
        (status == 200 && body["presence"]["state"] == state).then_some(body)
    })
}

fn tail(api: &Api, query: &str) -> Sse {
    api.events(2, &format!("tenant=acme&group=from-the-beginning&{query}"))
}

/// The types of the next events, without what all begin with.
#[track_caller]
fn types(sse: &mut Sse, many: usize) -> Vec<String> {
    let next = |_| {
        let said = sse.next(READY).expect("an event comes");
        let kind = said.data.unwrap()["type"].as_str().unwrap().to_owned();
        kind.trim_start_matches("moorline.").to_owned()
    };
    (0..many).map(next).collect()
}

fn connected(api: &mut Api) {
    let secret = device(api, "pump", &json!({}));
    assert_eq!(shown(api, 2, "pump")["presence"]["state"], "offline");
    let client = connect(api, 3, "pump", &secret);
    let body = becomes(api, 1, "pump", "connected");
    let presence = &body["presence"];
    assert_eq!((&presence["protocol"], &presence["node"]), (&json!("mqtt"), &json!(3)));
    assert!(presence["connected_ms"].as_u64() >= body["created_ms"].as_u64(), "{body}");
    assert!(body["credentials"][0]["last_used_ms"].is_u64(), "{body}");
    let only = |state: &str| {
        let path = format!("/devices?tenant=acme&presence={state}");
        let (status, list) = api.ask(2, "GET", &path, &Value::Null);
        assert_eq!(status, 200, "{list}");
        list["devices"].as_array().unwrap().iter().any(|device| device["name"] == "pump")
    };
    assert!(only("connected") && !only("offline") && !only("active"));
    assert_eq!(api.ask(1, "GET", "/devices?tenant=acme&presence=no", &Value::Null).0, 400);
    drop(client);
    becomes(api, 2, "pump", "offline");
    assert!(only("offline") && !only("connected"));
    let mut sse = tail(api, "device=pump&type=presence");
    let expected = ["presence.connected", "presence.disconnected", "presence.offline"];
    assert_eq!(types(&mut sse, 3), expected);
    let mut offline = tail(api, "device=pump&type=moorline.presence.offline");
    assert_eq!(types(&mut offline, 1), ["presence.offline"]);
}

fn active(api: &mut Api) {
    let name = "DEVICE0001";
    let new = json!({ "name": name });
    assert_eq!(api.ask(1, "POST", "/devices?tenant=acme", &new).0, 201);
    let path = format!("/devices/{name}/credentials?tenant=acme");
    let made = api.ask(1, "POST", &path, &json!({ "style": "fostrom" }));
    let secret = text(&made, 201, "secret");
    let headers =
        [("x-fleet-id", FLEET), ("x-device-id", name), ("x-device-secret", secret.as_str())];
    let beat = http::api("POST", api.at(1, "http"), "/v1/heartbeat", &headers, "");
    assert_eq!(beat.status, 201);
    let body = becomes(api, 2, name, "active");
    assert_eq!(body["presence"]["protocol"], "http");
    assert_eq!(body["presence"]["connected_ms"], Value::Null);
    assert!(body["credentials"][0]["last_used_ms"].is_u64(), "{body}");
    becomes(api, 3, name, "offline");
    let mut stream = TcpStream::connect(api.at(3, "http")).unwrap();
    write!(stream, "GET /v1/events HTTP/1.1\r\nhost: devices\r\naccept: text/event-stream\r\n")
        .unwrap();
    headers.iter().for_each(|(name, value)| write!(stream, "{name}: {value}\r\n").unwrap());
    write!(stream, "\r\n").unwrap();
    becomes(api, 1, name, "connected");
    drop(stream);
    becomes(api, 1, name, "offline");
    let mut sse = tail(api, &format!("device={name}&type=presence"));
    #[rustfmt::skip]
    assert_eq!(types(&mut sse, 5), [
        "presence.active", "presence.offline",
        "presence.connected", "presence.disconnected", "presence.offline",
    ]);
}

fn own_threshold(api: &mut Api) {
    let secret = device(api, "sleeper", &json!({ "offline-after-s": 3_600 }));
    drop(connect(api, 1, "sleeper", &secret));
    let body = becomes(api, 2, "sleeper", "active");
    assert!(body["presence"]["disconnected_ms"].is_u64(), "{body}");
    let (other, secret) = ("waker", device(api, "waker", &json!({})));
    drop(connect(api, 1, other, &secret));
    becomes(api, 2, other, "offline");
    assert_eq!(shown(api, 3, "sleeper")["presence"]["state"], "active");
}

fn mail_speaks(api: &mut Api) {
    device(api, "gate", &json!({}));
    let path = "/devices/gate/mailbox?tenant=acme";
    let send = |name: &str, ttl: Option<u64>| {
        let mail = json!({ "name": name, "ttl_s": ttl });
        text(&api.ask(1, "POST", path, &mail), 201, "id")
    };
    let (first, _) = (send("open", None), send("late", Some(1)));
    let cancel = format!("/devices/gate/mailbox/{first}?tenant=acme");
    assert_eq!(api.ask(2, "DELETE", &cancel, &Value::Null).0, 204);
    let mut sse = tail(api, "device=gate&type=mail");
    let said = sse.next(READY).unwrap().data.unwrap();
    assert_eq!(said["type"], "moorline.mail.queued");
    assert_eq!((&said["data"]["mail"], &said["data"]["name"]), (&json!(first), &json!("open")));
    assert_eq!(types(&mut sse, 3), ["mail.queued", "mail.cancelled", "mail.expired"]);
    // A device that is gone gets no mail, nor does the next one of its name get the earlier's.
    assert_eq!(api.ask(1, "DELETE", "/devices/gate?tenant=acme", &Value::Null).0, 204);
    assert_eq!(api.ask(2, "POST", path, &json!({ "name": "no" })).0, 404);
}

fn node_dies(api: &mut Api) {
    let names: Vec<_> = (0..6).map(|number| format!("far-{number}")).collect();
    let secrets: Vec<_> = names.iter().map(|name| device(api, name, &json!({}))).collect();
    let clients: Vec<_> =
        names.iter().zip(&secrets).map(|(name, secret)| connect(api, 3, name, secret)).collect();
    names.iter().for_each(|name| _ = becomes(api, 1, name, "connected"));
    api.cluster.node_mut(3).kill();
    drop(clients);
    names.iter().for_each(|name| _ = becomes(api, 1, name, "offline"));
    for name in &names {
        let mut sse = tail(api, &format!("device={name}&type=presence"));
        let expected = ["presence.connected", "presence.disconnected", "presence.offline"];
        assert_eq!(types(&mut sse, 3), expected, "each once");
    }
    api.cluster.node_mut(3).start_ready();
    let again = connect(api, 3, &names[0], &secrets[0]);
    becomes(api, 2, &names[0], "connected");
    until_true("what nodes count is theirs", SOON, || {
        let of = |node: u64| {
            let page = http::get(api.cluster.node(node).admin, "/metrics").unwrap().body;
            let line = "moorline_presence_devices{state=\"connected\"} ";
            let found = page.lines().find_map(|found| found.strip_prefix(line));
            found.and_then(|count| count.parse::<u64>().ok()).unwrap_or_default()
        };
        (1..=3).map(of).sum::<u64>() == 1
    });
    drop(again);
    api.cluster.digests_agree();
}
