//! Devices of Losant over MQTT, and those who manage them over REST, on whichever node.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};

use crate::harness::{
    api::{Api, text},
    cluster::Shape,
    http::{self, Answer},
    mqtt::{Client, Heard},
    packet::{Connect, Publish, Version},
    scenarios,
    sse::Sse,
    wait::{SOON, until, until_true},
};

pub(crate) const APP: &str = "5f0c9a1b2c3d4e5f60718293";
/// An application of somebody else.
const OTHER: &str = "0123456789abcdef01234567";
/// More messages of a topic than there may be in a window.
pub(crate) const TOO_MANY: usize = 31;
pub(crate) const ALL_AGES: &str = "since=0&limit=100";

/// A cluster with two applications, and what their devices and integrators show.
pub(crate) struct Yard {
    pub(crate) api: Api,
    /// A token of the API for the first one.
    pub(crate) token: String,
    theirs: String,
    /// A key for all devices of the first one.
    pub(crate) key: Key,
}

/// An access key.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) secret: String,
}

impl Yard {
    #[track_caller]
    pub(crate) fn start() -> Self {
        let api = Api::start_as(&Shape::of(3), &["http"]);
        let mut tokens = Vec::new();
        for (name, application) in [("yard", APP), ("theirs", OTHER)] {
            let tenant = json!({ "name": name, "aliases": [format!("losant:{application}")] });
            let (status, made) = api.ask(1, "POST", "/tenants", &tenant);
            assert_eq!(status, 201, "{made}");
            let new = json!({ "name": "ci", "role": "operator" });
            let path = format!("/tokens?tenant={name}");
            tokens.push(text(&api.ask(1, "POST", &path, &new), 201, "token"));
        }
        let theirs = tokens.pop().unwrap();
        let token = tokens.pop().unwrap();
        let key = Key { id: String::new(), key: String::new(), secret: String::new() };
        let mut yard = Self { api, token, theirs, key };
        yard.key = yard.new_key(&json!({}));
        yard
    }

    pub(crate) fn at(&self, node: u64) -> SocketAddr {
        self.api.cluster.mqtt(node)
    }

    #[track_caller]
    pub(crate) fn asked(
        &self,
        token: &str,
        node: u64,
        (method, path): (&str, &str),
        body: &Value,
    ) -> Answer {
        let bearer = format!("Bearer {token}");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let headers = [("authorization", &*bearer)];
        http::api(method, self.api.at(node, "http"), path, &headers, &body)
    }

    /// Asks about the application as its integrator, with what SDKs send with every request.
    #[track_caller]
    pub(crate) fn rest(&self, node: u64, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let mark = if path.contains('?') { '&' } else { '?' };
        let path = format!("/applications/{APP}{path}{mark}_actions=false&_links=true");
        let answer = self.asked(&self.token, node, (method, &path), body);
        (answer.status, answer.json())
    }

    #[track_caller]
    pub(crate) fn get(&self, node: u64, path: &str) -> Value {
        let (status, body) = self.rest(node, "GET", path, &Value::Null);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    #[track_caller]
    pub(crate) fn done(&self, node: u64, method: &str, path: &str, body: &Value) -> Value {
        let (status, said) = self.rest(node, method, path, body);
        assert!(status < 300, "{method} {path}: {status} {said}");
        said
    }

    #[track_caller]
    pub(crate) fn new_key(&self, said: &Value) -> Key {
        let (status, made) = self.rest(1, "POST", "/keys", said);
        assert_eq!(status, 201, "{made}");
        let field = |name: &str| made[name].as_str().unwrap().to_owned();
        Key { id: field("id"), key: field("key"), secret: field("secret") }
    }

    /// A device of a class, with what else is said of it: its id.
    #[track_caller]
    pub(crate) fn device(&self, class: &str, more: &Value) -> String {
        let attributes = json!([
            { "name": "temperature", "dataType": "number" }, { "name": "label", "dataType": "string" },
            { "name": "open", "dataType": "boolean" }, { "name": "position", "dataType": "gps" },
        ]);
        let mut body = json!({ "name": class, "deviceClass": class, "attributes": attributes });
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let made = self.done(2, "POST", "/devices", &body);
        made["deviceId"].as_str().unwrap().to_owned()
    }

    pub(crate) fn connect(&self, device: &str) -> Connect {
        self.connect_by(device, &self.key)
    }

    pub(crate) fn connect_by(&self, device: &str, key: &Key) -> Connect {
        let login = Some((key.key.clone(), key.secret.clone()));
        Connect { login, ..Connect::clean(Version::V4, device) }
    }

    /// The last state of a device, once there is one.
    #[track_caller]
    pub(crate) fn last_state(&self, node: u64, device: &str) -> Value {
        until("there is a state", SOON, || {
            self.get(node, &format!("/devices/{device}/state?limit=1")).get(0).cloned()
        })
    }
}

pub(crate) fn state_of(device: &str) -> String {
    format!("losant/{device}/state")
}

pub(crate) fn commands_of(device: &str) -> String {
    format!("losant/{device}/command")
}

#[track_caller]
pub(crate) fn json_of(publish: &Publish) -> Value {
    serde_json::from_slice(&publish.payload).unwrap()
}

#[test]
fn an_application_moves_in() {
    let mut yard = Yard::start();
    scenarios(
        &mut yard,
        &[
            ("states go up, and are what their attributes are", states),
            ("commands come down with a time that SDKs read", commands),
            ("commands wait if their tenant says so", kept_commands),
            ("who is who is said in CONNACKs", connacks),
            ("custom topics are free within the application, as the key says", custom_topics),
            ("what may not be said ends the connection", violations),
            ("a gateway speaks for its own", gateways),
            ("who says too much is banned, on every node", bans),
            ("who came and went is known", presence),
            ("a device asks for itself over REST", of_devices),
            ("integrators manage devices", managing),
            ("streams bring what happens", streams),
            ("a key that is changed turns its devices out", revoked),
        ],
    );
}

fn states(yard: &mut Yard) {
    let device = yard.device("standalone", &json!({}));
    let (mut client, _) = yard.connect(&device).to(yard.at(1));
    let said = json!({
        "data": {
            "temperature": "21.5", "label": 4, "open": 1, "position": "40:26:46N,79:58:56W", "unknown": 1,
        },
        "time": { "$date": "2001-01-01T00:00:00.000Z" },
    });
    // Too old: it is taken, and ignored.
    client.publish_acked(&state_of(&device), said.to_string().as_bytes());
    let mut said = said;
    said["time"] = json!(-1_000);
    client.publish_acked(&state_of(&device), said.to_string().as_bytes());
    // Acknowledged is written: whichever node is asked.
    let states = yard.get(3, &format!("/devices/{device}/state"));
    let data = json!({
        "temperature": 21.5, "label": "4", "open": true, "position": "40.4461111,-79.9822222",
    });
    assert_eq!((states.as_array().unwrap().len(), &states[0]["data"]), (1, &data));
    let composite = yard.get(2, &format!("/devices/{device}/compositeState"));
    assert_eq!(composite["temperature"]["value"], 21.5);
    assert!(composite["temperature"]["time"].is_string());
    // An array of them, junk, and nothing that the device has: all are taken.
    let both = r#"[{"data":{"temperature":1},"time":-900},{"data":{"temperature":2},"time":-800}]"#;
    for said in [both, "junk", r#"{"data":{"nothing":1}}"#, "{}"] {
        client.publish_acked(&state_of(&device), said.as_bytes());
    }
    let states = yard.get(1, &format!("/devices/{device}/state?attributes=temperature&limit=9"));
    let values: Vec<_> = states.as_array().unwrap().iter().map(|one| &one["data"]).collect();
    let of = |value: Value| json!({ "temperature": value });
    assert_eq!(values, [&of(json!(2)), &of(json!(1)), &of(json!(21.5))], "the newest first");
}

fn commands(yard: &mut Yard) {
    let device = yard.device("standalone", &json!({ "tags": [{ "key": "site", "value": "c" }] }));
    let (mut client, _) = yard.connect(&device).to(yard.at(1));
    // More is asked for than there is.
    assert_eq!(client.subscribe(&[(&commands_of(&device), 1)]), [0]);
    let path = format!("/devices/{device}/command");
    let said = json!({ "name": "set", "payload": { "t": 72 }, "time": { "$date": "2026-11-21T01:02:03.4Z" } });
    yard.done(2, "POST", &path, &said);
    let heard = client.message();
    assert_eq!((heard.topic, heard.qos, heard.retain), (commands_of(&device), 0, false));
    let heard: Value = serde_json::from_slice(&heard.payload).unwrap();
    let time = json!({ "$date": "2026-11-21T01:02:03.400Z" });
    assert_eq!(heard, json!({ "name": "set", "payload": { "t": 72 }, "time": time }));
    let to_all = json!({ "name": "all", "deviceTags": [{ "key": "site", "value": "c" }], "deviceIds": [device] });
    yard.done(3, "POST", "/devices/command", &to_all);
    assert_eq!(json_of(&client.message())["name"], "all", "once, though it is named twice");
    client.hears_nothing();
    client.disconnect();
    // Nobody is there: it is lost to the device, and kept for those who ask.
    yard.done(1, "POST", &path, &json!({ "name": "lost" }));
    let (mut client, _) = yard.connect(&device).to(yard.at(3));
    client.subscribe(&[(&commands_of(&device), 0)]);
    client.hears_nothing();
    let last = yard.get(2, &path);
    assert_eq!((last.as_array().unwrap().len(), &last[0]["name"]), (1, &json!("lost")));
    let all = yard.get(2, &format!("{path}?limit=9"));
    let names: Vec<_> = all.as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["lost", "all", "set"]);
}

fn kept_commands(yard: &mut Yard) {
    let keep = |keep: bool| {
        let change = json!({ "settings": { "commands": { "keep": keep } } });
        let changed = yard.api.ask(1, "PATCH", "/tenants/yard", &change);
        assert_eq!(changed.0, 200, "{}", changed.1);
        until_true("the node knows", SOON, || {
            let shown = yard.api.ask(1, "GET", "/tenants/yard", &Value::Null).1;
            shown["settings"]["commands"]["keep"] == keep
        });
    };
    keep(true);
    let device = yard.device("standalone", &json!({}));
    let path = format!("/devices/{device}/command");
    let send = |node, name: &str| drop(yard.done(node, "POST", &path, &json!({ "name": name })));
    for name in ["a", "b"] {
        send(1, name);
    }
    let (mut client, _) = yard.connect(&device).to(yard.at(2));
    client.subscribe(&[(&commands_of(&device), 0)]);
    let names = [(); 2].map(|()| json_of(&client.message())["name"].clone());
    assert_eq!(names, ["a", "b"], "in the order in which they were given");
    send(1, "c");
    assert_eq!(json_of(&client.message())["name"], "c", "and whoever is there has them at once");
    client.disconnect();
    let (mut client, _) = yard.connect(&device).to(yard.at(1));
    client.subscribe(&[(&commands_of(&device), 0)]);
    client.hears_nothing();
    let mail = |most: u32| {
        let change = json!({ "settings": { "mail": { "items-max": most } } });
        let changed = yard.api.ask(1, "PATCH", "/tenants/yard", &change);
        assert_eq!(changed.0, 200, "{}", changed.1);
        until_true("the node knows", SOON, || {
            let shown = yard.api.ask(1, "GET", "/tenants/yard", &Value::Null).1;
            shown["settings"]["mail"]["items-max"] == most
        });
    };
    mail(1);
    let away = yard.device("standalone", &json!({}));
    let path = format!("/devices/{away}/command");
    let statuses = ["d", "e"].map(|name| yard.rest(1, "POST", &path, &json!({ "name": name })).0);
    assert_eq!(statuses, [200, 429], "its mailbox is full");
    let noted = yard.get(1, &format!("{path}?{ALL_AGES}"));
    let names: Vec<_> = noted.as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["d"], "what was not given is not noted");
    mail(1_000);
    keep(false);
}

fn connacks(yard: &mut Yard) {
    let device =
        yard.device("standalone", &json!({ "tags": [{ "key": "site", "value": "north" }] }));
    let other = yard.device("standalone", &json!({}));
    let peripheral = yard.device("peripheral", &json!({ "gatewayId": other }));
    let floating = yard.device("floating", &json!({}));
    let north = yard.new_key(&json!({ "deviceTags": [{ "key": "site", "value": "north" }] }));
    let none = yard.new_key(&json!({ "filterType": "none" }));
    let inactive = yard.new_key(&json!({ "status": "inactive" }));
    let wrong = Key { secret: "x".repeat(43), ..yard.key.clone() };
    let unknown = Key { key: "1f0ac3d4-0b1c-4d2e-9f3a-5b6c7d8e9f00".to_owned(), ..wrong.clone() };
    let by = |device: &str, key: &Key| yard.connect_by(device, key);
    let v5 = Connect { version: Version::V5, ..yard.connect(&device) };
    let durable = Connect { clean: false, ..yard.connect(&device) };
    let may_not = by(&device, &none).leaving("plant/will", "gone", 0);
    #[rustfmt::skip]
    let table = [
        (by(&device, &yard.key),            0, "as it should be"),
        (durable,                           0, "clean session 0 is taken as 1"),
        (by(&device, &north),               0, "a key for its tag"),
        (v5,                                0x84, "another version"),
        (by("pump", &yard.key),             2, "no id"),
        (by(&"0".repeat(24), &yard.key),    2, "no device"),
        (by(&other, &wrong),                4, "a wrong secret"),
        (by(&other, &unknown),              4, "an unknown key"),
        (by(&other, &inactive),             4, "a key that does not count"),
        (by(&other, &north),                5, "a key for others"),
        (by(&peripheral, &yard.key),        5, "it has a gateway"),
        (by(&floating, &yard.key),          5, "it has any gateway"),
        (may_not,                           5, "a will where it may not"),
        (yard.connect(&other).leaving(&state_of(&other), "{}", 0), 5, "a will as a state"),
    ];
    for (connect, code, what) in table {
        assert_eq!(connect.reason(yard.at(3)), code, "{what}");
    }
    // The same device again, on another node: the newest stays.
    let (mut first, present) = yard.connect(&device).to(yard.at(1));
    assert!(!present);
    let (mut second, _) = yard.connect(&device).to(yard.at(2));
    assert_eq!(first.hear(SOON), Heard::Closed);
    second.ping();
}

fn custom_topics(yard: &mut Yard) {
    let (one, two) = (yard.device("standalone", &json!({})), yard.device("standalone", &json!({})));
    let lists = json!({ "pubTopics": ["plant/#"], "subTopics": ["plant/+/in"] });
    let listed = |kind: &str| {
        let mut said = lists.clone();
        said["filterType"] = json!(format!("{kind}list"));
        yard.new_key(&said)
    };
    let (mut hears, _) = yard.connect(&one).to(yard.at(1));
    assert_eq!(hears.subscribe(&[("#", 1), ("losant/#", 0), ("$SYS/#", 0)]), [0, 0x80, 0x80]);
    assert_eq!(hears.subscribe(&[("$share/g/plant/#", 0), (&state_of(&one), 0)]), [0x80, 0x80]);
    let (mut says, _) = yard.connect_by(&two, &listed("white")).to(yard.at(2));
    assert_eq!(
        says.subscribe(&[("plant/1/in", 0), ("plant/#", 0), ("office", 0)]),
        [0, 0x80, 0x80]
    );
    says.publish_acked("plant/1", b"\x00\x01");
    let heard = hears.message();
    assert_eq!((heard.topic.as_str(), heard.payload, heard.qos), ("plant/1", vec![0, 1], 0));
    hears.publish_acked("plant/1/in", b"x");
    assert_eq!(says.message().topic, "plant/1/in");
    assert_eq!(hears.message().topic, "plant/1/in", "as MQTT has it");
    // Neither states nor commands of others, whatever is subscribed to.
    says.publish_acked(&state_of(&two), br#"{"data":{"temperature":1}}"#);
    yard.done(1, "POST", &format!("/devices/{two}/command"), &json!({ "name": "x" }));
    hears.hears_nothing();
    drop(says);
    let (mut denied, _) = yard.connect_by(&two, &listed("black")).to(yard.at(3));
    assert_eq!(denied.subscribe(&[("#", 0), ("plant/1/in", 0)]), [0, 0x80]);
    hears.publish_acked("plant/1/in", b"x");
    hears.publish_acked("office", b"x");
    assert_eq!(denied.message().topic, "office", "of a wider filter comes what is not denied");
    // An application is its own world; and what a program publishes comes, too.
    let theirs = json!({ "topic": "office", "message": "not ours" });
    let path = format!("/applications/{OTHER}/mqttPublishMessage");
    let answer = yard.asked(&yard.theirs, 1, ("POST", &path), &theirs);
    assert_eq!(answer.status, 200, "{}", answer.body);
    yard.done(2, "POST", "/mqttPublishMessage", &json!({ "topic": "office", "message": "ours" }));
    assert_eq!(denied.message().payload, b"ours");
    assert_eq!(
        yard.rest(1, "POST", "/mqttPublishMessage", &json!({ "topic": "losant/x", "message": "" }))
            .0,
        400
    );
}

fn violations(yard: &mut Yard) {
    let device = yard.device("standalone", &json!({}));
    let other = yard.device("standalone", &json!({}));
    let none = yard.new_key(&json!({ "filterType": "none" }));
    let open = || yard.connect_by(&device, &none).to(yard.at(1)).0;
    for topic in [
        "/losant/not-this-device/state",
        &state_of(&other),
        &commands_of(&device),
        "losant/x",
        "plant/1",
    ] {
        let mut client = open();
        client.publish(topic, b"");
        assert_eq!(client.hear(SOON), Heard::Closed, "{topic}");
        // Not banned for that.
        drop(open());
    }
    let mut client = open();
    client.publish_2(7, &state_of(&device), b"{}", false);
    assert_eq!(client.hear(SOON), Heard::Closed, "QoS 2");
    let data = |bytes: usize| {
        let around = br#"{"data":{"label":""}}"#.len();
        format!(r#"{{"data":{{"label":"{}"}}}}"#, "x".repeat(bytes - around)).into_bytes()
    };
    let mut client = open();
    client.publish_acked(&state_of(&device), &data(262_144));
    client.publish(&state_of(&device), &data(262_145));
    assert_eq!(client.hear(SOON), Heard::Closed, "a byte too much");
}

fn gateways(yard: &mut Yard) {
    let gateway = yard.device("gateway", &json!({}));
    let edge = yard.device("edgeCompute", &json!({}));
    let own = yard.device("peripheral", &json!({ "gatewayId": gateway }));
    let other = yard.device("peripheral", &json!({ "gatewayId": edge }));
    let floating = yard.device("floating", &json!({}));
    let key = yard.new_key(&json!({ "deviceIds": [gateway, edge] }));
    let (mut client, _) = yard.connect_by(&gateway, &key).to(yard.at(1));
    let said = br#"{"data":{"temperature":7}}"#;
    for device in [&gateway, &own, &floating] {
        client.publish_acked(&state_of(device), said);
        assert_eq!(yard.last_state(2, device)["data"], json!({ "temperature": 7 }));
    }
    let granted = [&own, &other, &floating].map(|device| {
        let granted = client.subscribe(&[(&commands_of(device), 0)]);
        granted[0]
    });
    assert_eq!(granted, [0, 0x80, 0]);
    yard.done(3, "POST", &format!("/devices/{own}/command"), &json!({ "name": "go" }));
    assert_eq!(client.message().topic, commands_of(&own));
    client.publish(&state_of(&other), said);
    assert_eq!(client.hear(SOON), Heard::Closed, "of another gateway");
    let (mut client, _) = yard.connect_by(&edge, &key).to(yard.at(2));
    client.publish_acked(&state_of(&other), said);
}

fn bans(yard: &mut Yard) {
    let device = yard.device("standalone", &json!({}));
    let (mut client, _) = yard.connect(&device).to(yard.at(1));
    for _ in 0..TOO_MANY {
        client.publish_unchecked("plant/loud", b"!");
    }
    until_true("it is closed", SOON, || client.hear(SOON) == Heard::Closed);
    // Which is written a moment later, with the device: for every node.
    for node in [2, 3, 1] {
        until_true("it is banned", SOON, || yard.connect(&device).reason(yard.at(node)) == 3);
    }
    until_true("its end is in the log", SOON, || {
        let log = yard.get(2, &format!("/devices/{device}/logs?{ALL_AGES}"));
        let limited = |entry: &Value| entry["disconnectReason"] == "Rate Limit Exceeded";
        log.as_array().unwrap().iter().any(limited)
    });
    // Nobody else is.
    drop(yard.connect(&yard.device("standalone", &json!({}))).to(yard.at(1)));
}

fn presence(yard: &mut Yard) {
    let device = yard.device("standalone", &json!({}));
    let info = |node| yard.get(node, &format!("/devices/{device}"))["connectionInfo"].clone();
    assert_eq!(info(1)["connected"], Value::Null);
    let (mut client, _) = yard.connect(&device).to(yard.at(1));
    client.publish_acked(&state_of(&device), br#"{"data":{"temperature":1}}"#);
    until_true("it is connected", SOON, || info(2)["connected"] == 1);
    client.disconnect();
    until_true("it is gone", SOON, || info(3)["connected"] == 0);
    let log = yard.get(1, &format!("/devices/{device}/logs?limit=9"));
    let entry = &log[0];
    assert_eq!(entry["disconnectReason"], "Client Disconnected");
    assert_eq!((&entry["messagesFromClient"], &entry["messagesToClient"]), (&json!(1), &json!(0)));
    assert_eq!(log[1]["connected"], true);
    // One without a connection says so itself, or somebody does.
    let path = format!("/devices/{device}/setConnectionStatus");
    yard.done(2, "POST", &path, &json!({ "status": "connected" }));
    assert_eq!(info(1)["connected"], 1);
    let gone = json!({ "status": "disconnected", "disconnectReason": "asleep" });
    yard.done(2, "POST", &path, &gone);
    assert_eq!(info(3)["connected"], 0);
    assert_eq!(yard.get(3, &format!("/devices/{device}/logs"))[0]["disconnectReason"], "asleep");
    assert_eq!(yard.rest(1, "POST", &path, &json!({ "status": "asleep" })).0, 400);
}

fn of_devices(yard: &mut Yard) {
    let gateway = yard.device("gateway", &json!({}));
    let own = yard.device("peripheral", &json!({ "gatewayId": gateway }));
    let other = yard.device("standalone", &json!({}));
    let log_in = |node: u64, more: Value| {
        let mut body = json!({
            "deviceId": gateway, "key": yard.key.key, "secret": yard.key.secret,
        });
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        let to = yard.api.at(node, "http");
        http::api("POST", to, "/auth/device", &[], &body.to_string())
    };
    let answer = log_in(1, json!({}));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let said = answer.json();
    let whose = (&said["applicationId"], &said["deviceId"], &said["deviceClass"]);
    assert_eq!(whose, (&json!(APP), &json!(gateway), &json!("gateway")));
    let token = said["token"].as_str().unwrap().to_owned();
    let ask = |token: &str, node, method: &str, path: &str, body: Value| {
        let path = format!("/applications/{APP}{path}");
        let answer = yard.asked(token, node, (method, &path), &body);
        (answer.status, answer.json())
    };
    let state = || json!({ "data": { "temperature": 5 } });
    for device in [&gateway, &own] {
        let path = format!("/devices/{device}/state");
        assert_eq!(ask(&token, 2, "POST", &path, state()), (200, json!({ "success": true })));
        assert_eq!(ask(&token, 3, "GET", &path, Value::Null).1[0]["data"], state()["data"]);
    }
    let refused = ask(&token, 2, "POST", &format!("/devices/{other}/state"), state());
    assert_eq!((refused.0, &refused.1["type"]), (403, &json!("Forbidden")));
    let own_path = format!("/devices/{gateway}");
    #[rustfmt::skip]
    let table = [
        ("PATCH",  own_path.clone(),             json!({ "name": "x" }), 403),
        ("DELETE", own_path.clone(),             Value::Null,            403),
        ("GET",    "/keys".to_owned(),           Value::Null,            403),
        ("POST",   "/mqttPublishMessage".to_owned(), json!({ "topic": "t", "message": "" }), 403),
        ("GET",    format!("{own_path}/nothing"), Value::Null,           404),
        ("POST",   format!("{own_path}/state"),  json!({ "data": 1 }),   400),
        ("POST",   format!("{own_path}/state"),  json!({ "data": {}, "x": 1 }), 400),
        ("GET",    format!("/devices/{}", "0".repeat(24)), Value::Null,  404),
    ];
    for (method, path, body, status) in table {
        let answer = ask(&token, 1, method, &path, body);
        assert_eq!(answer.0, status, "{method} {path}: {}", answer.1);
        assert!(answer.1["type"].is_string() && answer.1["message"].is_string());
    }
    let seen = ask(&token, 2, "GET", "/devices?perPage=1000", Value::Null).1.to_string();
    assert!(seen.contains(&gateway) && seen.contains(&own) && !seen.contains(&other));
    let theirs = format!("/applications/{OTHER}/devices/{gateway}");
    assert_eq!(yard.asked(&token, 1, ("GET", &theirs), &Value::Null).status, 404);
    assert_eq!(ask("nonsense", 1, "GET", &own_path, Value::Null).0, 401);
    // A token that is to send, and nothing else.
    let sends = log_in(3, json!({ "requestedScopes": ["device.sendState"], "tokenTTL": 60 }));
    let sends = sends.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(ask(&sends, 1, "POST", &format!("{own_path}/state"), state()).0, 200);
    assert_eq!(ask(&sends, 1, "GET", &format!("{own_path}/state"), Value::Null).0, 403);
    // Thirty in fifteen seconds; the next is too many.
    let path = format!("{own_path}/setConnectionStatus");
    let statuses: Vec<_> = (0..TOO_MANY)
        .map(|_| ask(&token, 1, "POST", &path, json!({ "status": "connected" })).0)
        .collect();
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 1, "{statuses:?}");
    for (more, status) in [
        (json!({ "secret": "x" }), 401),
        (json!({ "deviceId": "x" }), 400),
        (json!({ "key": 1 }), 400),
    ] {
        assert_eq!(log_in(2, more.clone()).status, status, "{more}");
    }
}

fn managing(yard: &mut Yard) {
    let device = yard.device("standalone", &json!({ "name": "findme", "tags": [{ "key": "k" }] }));
    let path = format!("/devices/{device}");
    let changed = yard.done(1, "PATCH", &path, &json!({ "description": "by the door" }));
    let named = (&changed["description"], &changed["name"]);
    assert_eq!(named, (&json!("by the door"), &json!("findme")));
    let found = yard.get(2, "/devices?filterField=name&filter=FIND*&perPage=5");
    assert_eq!((&found["totalCount"], &found["items"][0]["deviceId"]), (&json!(1), &json!(device)));
    assert_eq!(yard.get(3, "/devices?page=0&perPage=1")["count"], 1);
    assert_eq!(yard.rest(1, "PATCH", &path, &json!({ "attributes": [{ "name": "a b" }] })).0, 400);
    assert_eq!(yard.rest(1, "POST", "/devices", &json!({})).0, 400);
    // Whoever has a token of the API logs in with it, as with a password.
    let body = json!({ "email": "ci@example.com", "password": yard.token }).to_string();
    let user = http::api("POST", yard.api.at(2, "http"), "/auth/user", &[], &body);
    let user = user.json()["token"].as_str().unwrap().to_owned();
    let whole = format!("/applications/{APP}{path}");
    assert_eq!(yard.asked(&user, 3, ("GET", &whole), &Value::Null).status, 200);
    assert_eq!(yard.asked(&yard.theirs, 3, ("GET", &whole), &Value::Null).status, 404);
    // A key that is brought along, as firmware has it.
    let (key, secret) =
        ("1f0ac3d4-0b1c-4d2e-9f3a-aaaaaaaaaaaa", "7c".repeat(8) + "Q5xLw2RtY7uPb5Zk");
    let brought = yard.new_key(&json!({ "key": key, "secret": secret }));
    drop(yard.connect_by(&device, &brought).to(yard.at(2)));
    let again = yard.rest(3, "POST", "/keys", &json!({ "key": key, "secret": secret }));
    assert_eq!(again.0, 400, "{}", again.1);
    assert_eq!(
        yard.rest(1, "POST", "/keys", &json!({ "key": "guess-me", "secret": "guessed" })).0,
        400
    );
    let listed = yard.get(2, "/keys");
    let keys: Vec<_> = listed["items"].as_array().unwrap().iter().map(|one| &one["key"]).collect();
    assert!(keys.contains(&&json!(key)) && !listed.to_string().contains(&secret));
    yard.done(3, "DELETE", &path, &Value::Null);
    assert_eq!(yard.rest(1, "GET", &path, &Value::Null).0, 404);
}

fn streams(yard: &mut Yard) {
    let (device, other) =
        (yard.device("standalone", &json!({})), yard.device("standalone", &json!({})));
    let bearer = format!("Bearer {}", yard.token);
    let open = |node, what: &str| {
        let path = format!("/applications/{APP}/devices/{device}/{what}?keepAliveInterval=1");
        Sse::open(yard.api.at(node, "http"), &path, &[("authorization", &*bearer)]).unwrap()
    };
    let (mut states, mut commands) = (open(2, "stateStream"), open(3, "commandStream"));
    let (mut client, _) = yard.connect(&device).to(yard.at(1));
    let said = br#"{"data":{"temperature":3},"meta":{"batch":17}}"#;
    client.publish_acked(&state_of(&device), said);
    let (mut not_asked_for, _) = yard.connect(&other).to(yard.at(1));
    not_asked_for.publish_acked(&state_of(&other), said);
    let path = format!("/devices/{device}/command");
    yard.done(1, "POST", &path, &json!({ "name": "go" }));
    let state = states.next(SOON).unwrap();
    assert_eq!(state.event.as_deref(), Some("deviceState"));
    let state = state.data.unwrap();
    assert_eq!(
        (&state["data"], &state["meta"]),
        (&json!({ "temperature": 3 }), &json!({ "batch": 17 }))
    );
    let command = commands.next(SOON).unwrap();
    assert_eq!(command.event.as_deref(), Some("deviceCommand"));
    assert_eq!(command.data.unwrap()["name"], "go");
    assert!(states.next(Duration::from_millis(1_500)).is_none(), "nothing of others");
}

fn revoked(yard: &mut Yard) {
    let device = yard.device("standalone", &json!({}));
    let key = yard.new_key(&json!({}));
    let open = |node| -> Client { yard.connect_by(&device, &key).to_patiently(yard.at(node)).0 };
    let path = format!("/keys/{}", key.id);
    let mut client = open(3);
    yard.done(1, "PATCH", &path, &json!({ "description": "changed" }));
    assert_eq!(client.hear(SOON), Heard::Closed, "it is judged anew");
    let mut client = open(2);
    yard.done(1, "DELETE", &path, &Value::Null);
    assert_eq!(client.hear(SOON), Heard::Closed);
    assert_eq!(yard.connect_by(&device, &key).reason(yard.at(3)), 4);
    assert_eq!(yard.rest(2, "GET", &path, &Value::Null).0, 404);
    let mut client = yard.connect(&device).to(yard.at(1)).0;
    yard.done(2, "DELETE", &format!("/devices/{device}"), &Value::Null);
    assert_eq!(client.hear(SOON), Heard::Closed, "the device is gone");
    assert_eq!(yard.connect(&device).reason(yard.at(2)), 2);
}
