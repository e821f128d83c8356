//! Drogue Cloud's devices and applications, over MQTT and HTTP, on whichever node.

use std::{net::SocketAddr, thread, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::harness::{
    api::{Api, text},
    cluster::Shape,
    http::{self, Answer},
    mqtt::{Client, Heard},
    packet::{Connect, Packet, Publish, Version},
    scenarios,
    wait::{SOON, until},
};

/// The one answer of MQTT 3.1.1 to all that is no, and that of MQTT 5.
const REFUSED: [(Version, u8); 2] = [(Version::V4, 4), (Version::V5, 0x86)];

/// A cluster with the application `plant`, and keys of it.
pub(crate) struct Plant {
    pub(crate) api: Api,
    pub(crate) key: String,
    pub(crate) look: String,
}

impl Plant {
    #[track_caller]
    pub(crate) fn start() -> Self {
        let api = Api::start_as(&Shape::of(3), &["http"]);
        let settings = json!({ "chosen-passwords": true });
        for (name, alias) in [("acme", "drogue:plant"), ("other", "drogue:other")] {
            let tenant = json!({ "name": name, "aliases": [alias], "settings": settings });
            let (status, made) = api.ask(1, "POST", "/tenants", &tenant);
            assert_eq!(status, 201, "{made}");
        }
        let mut plant = Self { api, key: String::new(), look: String::new() };
        plant.key = plant.token("acme", "app");
        plant.look = plant.token("acme", "read-only");
        plant
    }

    #[track_caller]
    pub(crate) fn token(&self, tenant: &str, role: &str) -> String {
        let body = json!({ "name": format!("key-{role}"), "role": role });
        let path = format!("/tokens?tenant={tenant}");
        text(&self.api.ask(1, "POST", &path, &body), 201, "token")
    }

    /// A device with a password, and what the registry says of it.
    #[track_caller]
    pub(crate) fn device(&self, name: &str, password: &str, spec: &Value) {
        let settings = json!({ "metadata": { "drogue": { "spec": spec } } });
        let body = json!({ "name": name, "settings": settings });
        let (status, made) = self.api.ask(1, "POST", "/devices?tenant=acme", &body);
        assert_eq!(status, 201, "{made}");
        self.credential(name, &json!({ "kind": "password", "user": name, "password": password }));
    }

    #[track_caller]
    pub(crate) fn credential(&self, device: &str, credential: &Value) -> Value {
        let path = format!("/devices/{device}/credentials?tenant=acme");
        let (status, made) = self.api.ask(1, "POST", &path, credential);
        assert_eq!(status, 201, "{made}");
        made
    }

    pub(crate) fn at(&self, node: u64) -> SocketAddr {
        self.api.cluster.mqtt(node)
    }

    /// An application that hears what comes from now on.
    #[track_caller]
    pub(crate) fn application(&self, node: u64, client: &str, filter: &str) -> Client {
        let login = Some(("ops".to_owned(), self.key.clone()));
        let connect = Connect { login, ..Connect::clean(Version::V4, client) };
        let (mut application, _) = connect.to(self.at(node));
        assert_eq!(application.subscribe(&[(filter, 1)]), [1], "{filter}");
        application
    }

    #[track_caller]
    pub(crate) fn post(&self, node: u64, path: &str, authorization: &str, body: &str) -> Answer {
        let headers = [("authorization", authorization)];
        http::api("POST", self.api.at(node, "http"), path, &headers, body)
    }

    /// Sends a command over HTTP.
    #[track_caller]
    pub(crate) fn command(&self, node: u64, device: &str, command: &str, payload: &str) -> u16 {
        let path = format!("/api/command/v1alpha1/apps/plant/devices/{device}?command={command}");
        self.post(node, &path, &format!("Bearer {}", self.key), payload).status
    }
}

pub(crate) fn login(version: Version, client: &str, user: &str, password: &str) -> Connect {
    let login = Some((user.to_owned(), password.to_owned()));
    Connect { login, ..Connect::clean(version, client) }
}

pub(crate) fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(user))
}

/// The next event of an application, acknowledged.
#[track_caller]
pub(crate) fn event(application: &mut Client) -> Value {
    let heard = application.message();
    application.ack(&heard);
    assert_eq!(heard.topic, "app/plant");
    serde_json::from_slice(&heard.payload).unwrap()
}

/// The next event that a device said; what says that devices come and go is passed over.
#[track_caller]
pub(crate) fn said(application: &mut Client) -> Value {
    loop {
        let event = event(application);
        if event["type"] == "io.drogue.event.v1" {
            return event;
        }
    }
}

/// Waits until the feed of an application reads: it begins with what comes then.
#[track_caller]
pub(crate) fn reads(plant: &Plant, application: &mut Client) {
    let prober = login(Version::V4, "prober", "prober@plant", "prober");
    until("the application reads", 2 * SOON, || {
        prober.to(plant.at(1)).0.disconnect();
        match application.hear(Duration::from_millis(500)) {
            Heard::Packet(Packet::Publish(heard)) => {
                application.ack(&heard);
                Some(())
            }
            _ => None,
        }
    });
    // What the other probes said.
    while let Heard::Packet(Packet::Publish(heard)) = application.hear(Duration::from_secs(1)) {
        application.ack(&heard);
    }
}

/// Waits for the event that says that a device came or went.
#[track_caller]
fn is_connected(application: &mut Client, device: &str, connected: bool) {
    loop {
        let event = event(application);
        let is_it = event["device"] == device && event["type"] == "io.drogue.connection.v1";
        if is_it && event["data"] == json!({ "connected": connected }) {
            return;
        }
    }
}

fn heard(publish: &Publish) -> (&str, &[u8]) {
    (&publish.topic, &publish.payload)
}

#[test]
fn an_application_moves_in() {
    let mut plant = Plant::start();
    plant.device("prober", "prober", &json!({}));
    scenarios(
        &mut plant,
        &[
            ("who is who is said in exact shapes", connacks),
            ("events go up, by the dialect of their device", events),
            ("a gateway speaks for those that name it", gateways),
            ("commands come to whoever listens now", commands),
            ("a request waits for a command", requests),
            ("a will is an event, and a later connection is the device", wills),
            ("events are shared, and go on where they were", shares),
            ("applications hear no more than they may", applications),
            ("devices are made and changed as the registry says", registry),
            ("a device that is disabled is turned out", revoked),
        ],
    );
}

fn connacks(plant: &mut Plant) {
    plant.device("gate-7", "s3cret", &json!({ "alias": ["old-7"] }));
    let fleet =
        json!({ "kind": "mqtt-basic", "client_id": "gate-7", "user": "fleet", "password": "pw" });
    plant.credential("gate-7", &fleet);
    plant.device("odd", "pw", &json!({ "mqtt": { "dialect": { "type": "azure" } } }));
    for (version, refused) in REFUSED {
        #[rustfmt::skip]
        let table = [
            ("any",          "gate-7@plant", "s3cret", 0),
            ("any",          "gate%2D7@plant", "s3cret", 0),
            ("gate-7@plant", "gate-7",       "s3cret", 0),
            ("gate-7@plant", "fleet",        "pw",     0),
            ("old-7@plant",  "fleet",        "pw",     refused),
            ("prober@plant", "fleet",        "pw",     refused),
            ("any",          "gate-7@plant", "wrong",  refused),
            ("any",          "nobody@plant", "s3cret", refused),
            ("any",          "odd@plant",    "pw",     refused),
        ];
        for (client, user, password, expected) in table {
            let connect = login(version, client, user, password);
            assert_eq!(connect.reason(plant.at(2)), expected, "{client} {user} {version:?}");
        }
        let durable = Connect { clean: false, ..login(version, "a", "gate-7@plant", "s3cret") };
        assert_eq!(durable.reason(plant.at(2)), refused, "a session that is to last");
        let by_tenant = login(version, "a", "gate-7@acme", "s3cret");
        assert_eq!(by_tenant.reason(plant.at(2)), refused, "a shape of another platform");
    }
}

fn events(plant: &mut Plant) {
    let plain = json!({ "mqtt": { "dialect": { "type": "plainTopic" } } });
    plant.device("plain", "pw", &plain);
    let mut application = plant.application(1, "events", "app/plant");
    reads(plant, &mut application);
    let (mut gate, _) = login(Version::V5, "x", "gate-7@plant", "s3cret").to(plant.at(2));
    gate.publish_acked("telemetry", br#"{"temp": 21.5}"#);
    let event = said(&mut application);
    assert_eq!(event["source"], "drogue://plant/gate%2D7");
    assert_eq!((&event["subject"], &event["device"]), (&json!("telemetry"), &json!("gate-7")));
    assert_eq!((&event["sender"], &event["data"]), (&json!("gate-7"), &json!({ "temp": 21.5 })));
    gate.publish_once("raw", b"\x00\xff");
    assert_eq!(said(&mut application)["data_base64"], "AP8=");
    for (topic, reason) in [("a/b/c", 0x90), ("/gate-7", 0x90), ("telemetry/nobody", 0x87)] {
        let id = gate.publish(topic, b"{}");
        assert_eq!(gate.puback(id), reason, "{topic}");
    }
    gate.publish_acked("telemetry/gate-7", b"1");
    assert_eq!(said(&mut application)["subject"], "telemetry", "it may name itself");
    let (mut old, _) = login(Version::V4, "x", "plain@plant", "pw").to(plant.at(3));
    old.publish_acked("a/b/c", b"1");
    assert_eq!(said(&mut application)["subject"], "a/b/c");
    let (mut old, _) = login(Version::V4, "x", "prober@plant", "prober").to(plant.at(3));
    old.publish("a/b/c", b"1");
    assert_eq!(old.hear(SOON), Heard::Closed, "MQTT 3.1.1 can't be told");
}

fn gateways(plant: &mut Plant) {
    plant.device("gw", "pw", &json!({}));
    plant.device("sensor", "pw", &json!({ "gatewaySelector": { "matchNames": ["gw"] } }));
    let mut application = plant.application(3, "gateways", "a/plant");
    // Its topic is as it was asked for.
    let (mut gateway, _) = login(Version::V5, "x", "gw@plant", "pw").to(plant.at(2));
    until("an event comes", 2 * SOON, || {
        gateway.publish_acked("telemetry/sensor", b"1");
        match application.hear(Duration::from_millis(500)) {
            Heard::Packet(Packet::Publish(heard)) => {
                application.ack(&heard);
                assert_eq!(heard.topic, "a/plant");
                let event: Value = serde_json::from_slice(&heard.payload).unwrap();
                let named = event["device"] == "sensor" && event["sender"] == "gw";
                named.then_some(())
            }
            _ => None,
        }
    });
    let (mut other, _) = login(Version::V5, "x", "gate-7@plant", "s3cret").to(plant.at(1));
    let id = other.publish("telemetry/sensor", b"1");
    assert_eq!(other.puback(id), 0x87);
}

fn commands(plant: &mut Plant) {
    let (mut gateway, _) = login(Version::V5, "x", "gw@plant", "pw").to(plant.at(1));
    let (mut sensor, _) = login(Version::V4, "x", "sensor@plant", "pw").to(plant.at(2));
    assert_eq!(gateway.subscribe(&[("command/inbox/#", 1)]), [0], "never more than QoS 0");
    assert_eq!(sensor.subscribe(&[("command/inbox/sensor/#", 0), ("command/inbox//#", 0)]), [0, 0]);
    for wrong in ["command/inbox", "command/inbox/+", "#", "app/plant"] {
        assert_eq!(gateway.subscribe(&[(wrong, 0)]), [0x80], "{wrong}");
        assert_eq!(sensor.subscribe(&[(wrong, 0)]), [0x80], "{wrong}");
    }
    assert_eq!(plant.command(3, "sensor", "SET", "1"), 202);
    assert_eq!(heard(&gateway.message()), ("command/inbox/sensor/SET", &b"1"[..]));
    let mut topics = [sensor.message().topic, sensor.message().topic];
    topics.sort_unstable();
    assert_eq!(topics, ["command/inbox//SET", "command/inbox/sensor/SET"]);
    let ops = login(Version::V5, "ops", "ops", &plant.key);
    let (mut ops, _) = ops.to(plant.at(3));
    ops.publish_acked("command/plant/gw/open", b"now");
    assert_eq!(heard(&gateway.message()), ("command/inbox//open", &b"now"[..]));
    for (topic, reason) in
        [("command/plant/nobody/x", 0x87), ("command/other/gw/x", 0x87), ("app/plant", 0x83)]
    {
        let id = ops.publish(topic, b"1");
        assert_eq!(ops.puback(id), reason, "{topic}");
    }
    assert_eq!(gateway.unsubscribe("command/inbox/#"), [0]);
    assert_eq!(gateway.unsubscribe("command/inbox/#"), [0x11]);
    assert_eq!(plant.command(1, "gw", "late", "1"), 202, "nobody listens");
    gateway.hears_nothing();
    assert_eq!(plant.command(1, "nobody", "SET", "1"), 406);
    let look = format!("Bearer {}", plant.look);
    let path = "/api/command/v1alpha1/apps/plant/devices/gw?command=x";
    assert_eq!(plant.post(1, path, &look, "").status, 403, "a key that may only look");
    assert_eq!(plant.post(1, path, "Bearer x", "").status, 403);
}

fn requests(plant: &mut Plant) {
    let gate = basic("gate-7@plant:s3cret");
    let answer = plant.post(1, "/v1/telemetry", &gate, r#"{"t":1}"#);
    assert_eq!((answer.status, answer.body.as_str()), (202, ""));
    let answer = plant.post(2, "/v1/telemetry", &basic("gate-7@plant:wrong"), "{}");
    assert_eq!(answer.status, 403);
    let expected =
        json!({ "code": 403, "error": "AuthenticationError", "message": "Authentication failed" });
    assert_eq!(answer.json(), expected);
    let by_query = "/v1/telemetry?application=plant&device=gate-7";
    assert_eq!(plant.post(1, by_query, &basic("fleet:pw"), "{}").status, 202);
    #[rustfmt::skip]
    let table = [
        ("/v1/telemetry?ct=x", 400), ("/v1/telemetry?as=sensor", 403), ("/ttn/v9", 404),
        ("/v1/telemetry?ct=1", 202),
    ];
    for (path, status) in table {
        assert_eq!(plant.post(1, path, &gate, "{}").status, status, "{path}");
    }
    let not_json = plant.post(1, "/v1/telemetry", &gate, "not json");
    assert_eq!(not_json.status, 406, "it says that it is");
    let gw = basic("gw@plant:pw");
    assert_eq!(plant.post(1, "/v1/telemetry?as=sensor", &gw, "{}").status, 202);
    let uplink = json!({
        "end_device_ids": { "device_id": "sensor", "dev_addr": "01" },
        "uplink_message": { "f_port": 5, "frm_payload": "AQI=" },
    });
    assert_eq!(plant.post(1, "/ttn", &gw, &uplink.to_string()).status, 202);
    let (to, by) = (plant.api.at(2, "http"), gate.clone());
    let waits = thread::spawn(move || {
        http::api("POST", to, "/v1/telemetry?ct=30", &[("authorization", &*by)], "{}")
    });
    until("the command comes", 4 * SOON, || {
        assert_eq!(plant.command(3, "gate-7", "open", "{\"angle\":30}"), 202);
        thread::sleep(Duration::from_millis(100));
        waits.is_finished().then_some(())
    });
    let answer = waits.join().unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "{\"angle\":30}"));
    assert!(answer.head.contains("\r\ncommand: open\r\n"), "{}", answer.head);
    plant.device("aliased", "pw", &json!({ "gatewaySelector": { "matchNames": ["gw"] } }));
    plant.credential("aliased", &json!({ "kind": "alias", "alias": "other-name" }));
    let (to, by) = (plant.api.at(2, "http"), gw.clone());
    let waits = thread::spawn(move || {
        let path = "/v1/telemetry?ct=30&as=other-name";
        http::api("POST", to, path, &[("authorization", &*by)], "{}")
    });
    until("the command comes to who waits by an alias", 4 * SOON, || {
        assert_eq!(plant.command(3, "aliased", "open", "1"), 202);
        thread::sleep(Duration::from_millis(100));
        waits.is_finished().then_some(())
    });
    assert_eq!(waits.join().unwrap().status, 200);
    let found = http::get(plant.api.at(1, "http"), "/.well-known/drogue-endpoints").unwrap();
    assert!(found.status == 200 && found.json()["registry"]["url"].is_string(), "{}", found.body);
}

fn wills(plant: &mut Plant) {
    let mut application = plant.application(1, "wills", "app/plant");
    reads(plant, &mut application);
    let connect = login(Version::V4, "x", "gate-7@plant", "s3cret");
    let (first, _) = connect.clone().leaving("gone/away", "0", 0).to(plant.at(1));
    is_connected(&mut application, "gate-7", true);
    let mut first = first;
    let (second, _) = login(Version::V5, "y", "gate-7@plant", "s3cret").to(plant.at(3));
    assert_eq!(first.hear(SOON), Heard::Closed, "a later connection is the device");
    let will = said(&mut application);
    assert_eq!((&will["subject"], &will["data"]), (&json!("gone/away"), &json!(0)), "verbatim");
    second.disconnect();
    is_connected(&mut application, "gate-7", false);
    let (quiet, _) = connect.leaving("gone", "1", 0).to(plant.at(2));
    quiet.disconnect();
    let (mut gate, _) = login(Version::V4, "x", "gate-7@plant", "s3cret").to(plant.at(1));
    gate.publish_acked("after", b"1");
    assert_eq!(said(&mut application)["subject"], "after", "a goodbye leaves no will");
}

fn shares(plant: &mut Plant) {
    let mut one = plant.application(1, "one", "$share/group/app/plant");
    reads(plant, &mut one);
    let two = plant.application(2, "two", "$share/group/app/plant");
    let (mut gate, _) = login(Version::V5, "x", "plain@plant", "pw").to(plant.at(3));
    for number in 0..5 {
        gate.publish_acked("shared", number.to_string().as_bytes());
    }
    let mut members = vec![one, two];
    for number in 0..5 {
        let (at, heard) = any_said(&mut members);
        members[at].ack(&heard);
        assert_eq!(body(&heard)["data"], json!(number), "one of them reads a device");
    }
    // The sixth is not acknowledged.
    gate.publish_acked("shared", b"5");
    let (at, unsettled) = any_said(&mut members);
    assert_eq!(body(&unsettled)["data"], json!(5));
    drop(members.remove(at));
    let (_, next) = any_said(&mut members);
    members[0].ack(&next);
    assert_eq!((&body(&next)["data"], &body(&next)["subject"]), (&json!(5), &json!("shared")));
}

fn body(heard: &Publish) -> Value {
    serde_json::from_slice(&heard.payload).unwrap()
}

/// The next event that a device said, of whichever member hears it, which has to acknowledge it; others are.
#[track_caller]
fn any_said(members: &mut [Client]) -> (usize, Publish) {
    until("a member hears it", 8 * SOON, || {
        for (at, member) in members.iter_mut().enumerate() {
            if let Heard::Packet(Packet::Publish(heard)) = member.hear(Duration::from_millis(100)) {
                if body(&heard)["type"] == "io.drogue.event.v1" {
                    return Some((at, heard));
                }
                member.ack(&heard);
            }
        }
        None
    })
}

fn applications(plant: &mut Plant) {
    for (version, refused) in REFUSED {
        let wrong = format!("{}x", plant.key);
        assert_eq!(login(version, "a", "ops", &wrong).reason(plant.at(1)), refused);
        let durable = Connect { clean: false, ..login(version, "a", "ops", &plant.key) };
        assert_eq!(durable.reason(plant.at(1)), refused);
    }
    let (mut ops, _) = login(Version::V5, "a", "ops", &plant.look).to(plant.at(1));
    for (filter, reason) in [
        ("app/#", 0xA2),
        ("app/other", 0x87),
        ("app/nobody", 0x87),
        ("apps/plant", 0x8F),
        ("command/inbox/#", 0xA2),
        ("app/plant", 1),
    ] {
        assert_eq!(ops.subscribe(&[(filter, 2)]), [reason], "{filter}");
    }
    let id = ops.publish("command/plant/gw/x", b"1");
    assert_eq!(ops.puback(id), 0x87, "it may only look");
}

fn registry(plant: &mut Plant) {
    let operator = format!("Bearer {}", plant.token("acme", "operator"));
    let look = format!("Bearer {}", plant.look);
    let base = "/api/registry/v1alpha1/apps/plant";
    let ask = |node: u64, method: &str, path: &str, by: &str, kind: &str, body: &Value| {
        let headers = [("authorization", by), ("content-type", kind)];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        http::api(method, plant.api.at(node, "http"), &format!("{base}{path}"), &headers, &body)
    };
    let json_body = "application/json";
    let device = json!({
        "metadata": { "application": "plant", "name": "new", "labels": { "hall": "3" } },
        "spec": { "authentication": { "credentials": [{ "pass": "first" }] } },
    });
    assert_eq!(
        ask(1, "POST", "/devices", &look, json_body, &device).status,
        403,
        "it may only look"
    );
    assert_eq!(ask(1, "POST", "/devices", &operator, json_body, &device).status, 201);
    assert_eq!(ask(2, "POST", "/devices", &operator, json_body, &device).status, 409);
    let connect = |password: &str| login(Version::V4, "a", "new@plant", password);
    assert_eq!(connect("first").reason(plant.at(3)), 0);
    let shown = ask(2, "GET", "/devices/new", &look, json_body, &Value::Null);
    assert!(!shown.body.contains("first") && shown.status == 200, "{}", shown.body);
    let before = shown.json();
    assert_eq!(before["metadata"]["labels"], json!({ "hall": "3" }));
    for (selector, many) in [("hall%3D3", 1), ("hall%3D4", 0)] {
        let found =
            ask(3, "GET", &format!("/devices?labels={selector}"), &look, json_body, &Value::Null);
        assert_eq!(found.json().as_array().unwrap().len(), many, "{selector}");
    }
    let patch = json!([{ "op": "add", "path": "/metadata/labels/floor", "value": "1" }]);
    let patched = ask(1, "PATCH", "/devices/new", &operator, "application/json-patch+json", &patch);
    assert_eq!(patched.status, 204, "{}", patched.body);
    assert_eq!(connect("first").reason(plant.at(3)), 0, "it keeps its credentials");
    assert_eq!(
        ask(1, "PUT", "/devices/new", &operator, json_body, &before).status,
        409,
        "an old version"
    );
    let merge = json!({ "spec": { "credentials": { "credentials": [{ "pass": "second" }] } } });
    let merged = ask(1, "PATCH", "/devices/new", &operator, "application/merge-patch+json", &merge);
    assert_eq!(merged.status, 204, "{}", merged.body);
    assert_eq!(connect("second").reason(plant.at(3)), 0);
    assert_eq!(connect("first").reason(plant.at(3)), 4);
    let rules = json!({ "spec": { "publish": { "rules": [
        { "when": { "isChannel": "secret" }, "then": [{ "reject": "not here" }] },
    ] } } });
    let merged = ask(1, "PATCH", "", &operator, "application/merge-patch+json", &rules);
    assert_eq!(merged.status, 204, "{}", merged.body);
    let new = basic("new@plant:second");
    let rejected = until("the rule counts", SOON, || {
        let answer = plant.post(2, "/v1/secret", &new, "{}");
        (answer.status == 406).then_some(answer)
    });
    assert_eq!(rejected.json()["message"], "not here");
    assert_eq!(ask(1, "DELETE", "", &operator, json_body, &Value::Null).status, 405);
    assert_eq!(ask(1, "DELETE", "/devices/new", &operator, json_body, &Value::Null).status, 204);
    assert_eq!(ask(2, "GET", "/devices/new", &operator, json_body, &Value::Null).status, 404);
    let other = http::api(
        "GET",
        plant.api.at(1, "http"),
        "/api/registry/v1alpha1/apps/other",
        &[("authorization", &operator)],
        "",
    );
    assert_eq!(other.status, 404, "another application is nobody's business");
}

fn revoked(plant: &mut Plant) {
    let (mut gate, _) = login(Version::V5, "x", "gate-7@plant", "s3cret").to(plant.at(2));
    let (status, said) =
        plant.api.ask(1, "PATCH", "/devices/gate-7?tenant=acme", &json!({ "enabled": false }));
    assert_eq!(status, 200, "{said}");
    assert_eq!(gate.hear(SOON), Heard::Packet(Packet::Disconnect { reason: 0x87 }));
    for (version, refused) in REFUSED {
        let connect = login(version, "x", "gate-7@plant", "s3cret");
        assert_eq!(connect.reason(plant.at(3)), refused);
    }
    assert_eq!(plant.post(1, "/v1/a", &basic("gate-7@plant:s3cret"), "{}").status, 403);
    assert_eq!(plant.command(1, "gate-7", "SET", "1"), 406);
}
