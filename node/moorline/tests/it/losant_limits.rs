//! What Losant's devices and their integrators may not do, and what is kept all the same: no acknowledgement without anything behind it,
//! nothing that goes on when it may not, and nobody who uses up what is another's.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    harness::{
        http::{self, Answer},
        mqtt::Heard,
        packet::Connect,
        scenarios,
        sse::Sse,
        wait::{SOON, until, until_true},
    },
    losant::{ALL_AGES, APP, Key, TOO_MANY, Yard, commands_of, json_of, state_of},
};

/// More connections than an application may have begin in a window.
const STORM: usize = 310;
/// Bytes of a text that is a value, and too large for five of them to be.
const LARGE: usize = 30 * 1_024;
/// Streams that a device may have open.
const STREAMS: usize = 4;
/// Messages that a connection may be sent on a topic in a window, and mail among them.
const TOLD: usize = 30;
const BROUGHT: usize = 15;
/// Half of what a connection may say in all.
const SAID: usize = 150;
const BRIEF: Duration = Duration::from_millis(300);

#[test]
fn limits_hold_and_keep_what_they_promise() {
    let mut yard = Yard::start();
    scenarios(
        &mut yard,
        &[
            ("logins are short, and wrong tokens keep out nobody else", logins),
            ("who failed too often hears that it is banned", guessers),
            ("what is acknowledged is kept, also where values have no room", acknowledged),
            ("what cannot be kept is not acknowledged", not_acknowledged),
            ("who is refused takes no place of others", places),
            ("a ban is kept though the tenant may write no more", bans),
            ("a gateway hears and says what it may at that moment", moved),
            ("a stream ends when whoever reads it may not", streams),
            ("a command to many is counted, and told to all it can be", many),
            ("topics of requests are no longer than those of connections", topics),
            ("why a connection is over is logged", reasons),
            ("what waited for a device costs it no ban", brought),
            ("a disabled application does nothing for whoever has logged in", disabled),
        ],
    );
}

fn log_in(yard: &Yard, path: &str, body: &Value) -> Answer {
    http::api("POST", yard.api.at(1, "http"), path, &[], &body.to_string())
}

/// A token of a device, by its key.
#[track_caller]
fn token_of(yard: &Yard, device: &str, key: &Key, ttl_s: u64) -> String {
    let said =
        json!({ "deviceId": device, "key": key.key, "secret": key.secret, "tokenTTL": ttl_s });
    let answer = log_in(yard, "/auth/device", &said);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["token"].as_str().unwrap().to_owned()
}

fn logins(yard: &mut Yard) {
    let device = yard.device("standalone", &json!({}));
    let user = |email: usize| json!({ "email": "e".repeat(email), "password": "mlt_1_a_b" });
    let of =
        |secret: usize| json!({ "deviceId": device, "key": "k", "secret": "s".repeat(secret) });
    #[rustfmt::skip]
    let table = [
        ("/auth/user",   user(254),        401),
        ("/auth/user",   user(255),        400),
        ("/auth/user",   user(17 * 1_024), 413),
        ("/auth/device", of(128),          401),
        ("/auth/device", of(129),          400),
        ("/auth/device", of(17 * 1_024),   413),
    ];
    for (path, body, status) in table {
        let answer = log_in(yard, path, &body);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
    // A program with an old token, and another one of the same address.
    let path = format!("/applications/{APP}/devices/{device}");
    let ask = |token: &str| yard.asked(token, 2, ("GET", &path), &Value::Null);
    let old = "mlt_1_old_secret";
    let statuses: Vec<_> = (0..7).map(|_| ask(old).status).collect();
    assert_eq!(statuses, [401; 7]);
    assert!(ask(old).body.contains("wait a while"), "it is banned");
    assert_eq!(ask(&yard.token).status, 200, "and nobody else");
}

fn guessers(yard: &mut Yard) {
    let device = yard.device("standalone", &json!({}));
    let wrong = Key { secret: "x".repeat(43), ..yard.key.clone() };
    let codes: Vec<_> =
        (0..6).map(|_| yard.connect_by(&device, &wrong).reason(yard.at(3))).collect();
    assert_eq!(codes, [4, 4, 4, 4, 4, 3]);
}

/// A device with five attributes of text beside the usual one, and a state that has too much in them for its values.
fn large(yard: &Yard) -> (String, Value) {
    let names = ["a", "b", "c", "d", "e"];
    let mut attributes = vec![json!({ "name": "temperature", "dataType": "number" })];
    attributes.extend(names.map(|name| json!({ "name": name, "dataType": "string" })));
    let device = yard.device("standalone", &json!({ "attributes": attributes }));
    let mut state = json!({ "data": {} });
    for name in names {
        state["data"][name] = json!(name.repeat(LARGE));
    }
    (device, state)
}

fn stream_of(yard: &Yard, token: &str, device: &str) -> Result<Sse, (u16, String)> {
    let path = format!("/applications/{APP}/devices/{device}/stateStream?keepAliveInterval=1");
    let bearer = format!("Bearer {token}");
    Sse::open(yard.api.at(2, "http"), &path, &[("authorization", &*bearer)])
}

fn acknowledged(yard: &mut Yard) {
    let (device, state) = large(yard);
    let mut stream = stream_of(yard, &yard.token, &device).unwrap();
    let (mut client, _) = yard.connect(&device).to(yard.at(1));
    client.publish_acked(&state_of(&device), state.to_string().as_bytes());
    let heard = stream.next(SOON).unwrap().data.unwrap();
    assert_eq!(heard["data"], state["data"], "the event has all of it");
    // The first of the two has no room; the second has, and is there when it is acknowledged.
    let both = json!([state, { "data": { "temperature": 7 }, "time": -10 }]);
    client.publish_acked(&state_of(&device), both.to_string().as_bytes());
    let composite = yard.get(3, &format!("/devices/{device}/compositeState"));
    assert_eq!(composite["temperature"]["value"], 7);
    // The event of what has no room is written after it was refused as a value.
    let mut heard = [(); 2].map(|()| stream.next(SOON).unwrap().data.unwrap()["data"].clone());
    heard.sort_by_key(|data| data.get("a").is_some());
    assert_eq!(heard, [both[1]["data"].clone(), state["data"].clone()]);
    // A payload of nearly all that one may have, and it is read back.
    let said = json!({ "data": { "temperature": 8 }, "meta": { "log": "m".repeat(250_000) } });
    client.publish_acked(&state_of(&device), said.to_string().as_bytes());
    let heard = stream.next(SOON).unwrap().data.unwrap();
    assert_eq!((&heard["meta"], &heard["data"]), (&said["meta"], &said["data"]));
}

fn not_acknowledged(yard: &mut Yard) {
    let device = yard.device("standalone", &json!({}));
    let (mut client, _) = yard.connect(&device).to(yard.at(1));
    let said = |bytes: usize| {
        let said = json!({ "data": { "temperature": 8 }, "meta": "" }).to_string();
        said.replace("\"\"", &format!("\"{}\"", "m".repeat(bytes - said.len())))
    };
    // As a payload it fits; as an event, with whose it is in it, it does not.
    client.publish(&state_of(&device), said(262_144).as_bytes());
    assert_eq!(client.hear(SOON), Heard::Closed);
    until_true("its end is in the log", SOON, || ended(yard, &device, "Payload Too Large"));
    let token = token_of(yard, &device, &yard.key, 60);
    let path = format!("/applications/{APP}/devices/{device}/state");
    let body = serde_json::from_str(&said(262_144)).unwrap();
    assert_eq!(yard.asked(&token, 2, ("POST", &path), &body).status, 413);
    assert_eq!(yard.get(2, &format!("/devices/{device}/state")), json!([]));
}

/// Whether a connection of a device is over for this reason.
fn ended(yard: &Yard, device: &str, why: &str) -> bool {
    let log = yard.get(2, &format!("/devices/{device}/logs?{ALL_AGES}"));
    log.as_array().unwrap().iter().any(|entry| entry["disconnectReason"] == why)
}

fn places(yard: &mut Yard) {
    let gateway = yard.device("gateway", &json!({}));
    let never = yard.device("peripheral", &json!({ "gatewayId": gateway }));
    for _ in 0..STORM {
        assert_eq!(yard.connect(&never).reason(yard.at(2)), 5);
    }
    assert_eq!(yard.connect(&gateway).reason(yard.at(2)), 0);
}

fn bans(yard: &mut Yard) {
    let events_s = |most: u32| {
        let change = json!({ "settings": { "quotas": { "events-s": most } } });
        let changed = yard.api.ask(1, "PATCH", "/tenants/yard", &change);
        assert_eq!(changed.0, 200, "{}", changed.1);
        for node in 1..=3 {
            until_true("the node knows", SOON, || {
                let shown = yard.api.ask(node, "GET", "/tenants/yard", &Value::Null).1;
                shown["settings"]["quotas"]["events-s"] == most
            });
        }
    };
    let device = yard.device("standalone", &json!({}));
    events_s(1);
    let (mut client, _) = yard.connect(&device).to(yard.at(1));
    for _ in 0..TOO_MANY {
        client.publish_unchecked("plant/loud", b"!");
    }
    until_true("it is closed", SOON, || client.hear(SOON) == Heard::Closed);
    for node in [2, 3, 1] {
        until_true("it is banned", SOON, || yard.connect(&device).reason(yard.at(node)) == 3);
    }
    events_s(0);
}

fn moved(yard: &mut Yard) {
    let gateway = yard.device("gateway", &json!({}));
    let other = yard.device("gateway", &json!({}));
    let own = |of: &str| yard.device("peripheral", &json!({ "gatewayId": of }));
    let (taken, off) = (own(&gateway), own(&gateway));
    let (mut client, _) = yard.connect(&gateway).to(yard.at(1));
    for device in [&taken, &off] {
        assert_eq!(client.subscribe(&[(&commands_of(device), 0)]), [0]);
        yard.done(2, "POST", &format!("/devices/{device}/command"), &json!({ "name": "go" }));
        assert_eq!(client.message().topic, commands_of(device));
    }
    yard.done(2, "PATCH", &format!("/devices/{taken}"), &json!({ "gatewayId": other }));
    let disable = json!({ "enabled": false });
    let path = format!("/devices/{off}?tenant=yard");
    let changed = yard.api.ask(1, "PATCH", &path, &disable);
    assert_eq!(changed.0, 200, "{}", changed.1);
    for device in [&taken, &off] {
        until_true("nothing is heard of it", SOON, || {
            yard.done(3, "POST", &format!("/devices/{device}/command"), &json!({ "name": "no" }));
            client.hear(BRIEF) == Heard::Nothing
        });
    }
    client.ping();
    client.publish(&state_of(&off), br#"{"data":{"temperature":1}}"#);
    assert_eq!(client.hear(SOON), Heard::Closed, "nobody says anything for what is disabled");
    let (mut client, _) = yard.connect(&gateway).to_patiently(yard.at(3));
    yard.done(1, "PATCH", &format!("/devices/{gateway}"), &json!({ "deviceClass": "standalone" }));
    assert_eq!(client.hear(SOON), Heard::Closed, "of another class it comes again");
}

fn streams(yard: &mut Yard) {
    let gateway = yard.device("gateway", &json!({}));
    let other = yard.device("gateway", &json!({}));
    let own = yard.device("peripheral", &json!({ "gatewayId": gateway }));
    let key = yard.new_key(&json!({}));
    let token = token_of(yard, &gateway, &key, 3_600);
    let open = |token: &str, device: &str| stream_of(yard, token, device);
    let mut all: Vec<_> = (0..STREAMS - 1).map(|_| open(&token, &gateway).unwrap()).collect();
    let mut of_own = open(&token, &own).unwrap();
    assert_eq!(open(&token, &gateway).map(drop).unwrap_err().0, 429, "one more than it may");
    yard.done(2, "PATCH", &format!("/devices/{own}"), &json!({ "gatewayId": other }));
    assert!(of_own.ends(SOON), "it is another's");
    // It has a place again, for a login that is short.
    let mut short =
        until("there is a place", SOON, || open(&token_of(yard, &gateway, &key, 2), &gateway).ok());
    assert!(short.ends(SOON), "its login is over");
    yard.done(3, "PATCH", &format!("/keys/{}", key.id), &json!({ "description": "changed" }));
    for stream in &mut all {
        assert!(stream.ends(SOON), "its key is another");
    }
    let new = json!({ "name": "brief", "role": "operator" });
    let (status, made) = yard.api.ask(1, "POST", "/tokens?tenant=yard", &new);
    assert_eq!(status, 201, "{made}");
    let mut stream = open(made["token"].as_str().unwrap(), &gateway).unwrap();
    assert_eq!(yard.api.ask(3, "DELETE", "/tokens/brief?tenant=yard", &Value::Null).0, 204);
    assert!(stream.ends(SOON), "its token is gone");
}

fn many(yard: &mut Yard) {
    let tagged =
        || yard.device("standalone", &json!({ "tags": [{ "key": "many", "value": "1" }] }));
    let (one, two) = (tagged(), tagged());
    let path = format!("/applications/{APP}/devices/command");
    let tell = |token: &str, name: &str| {
        let said =
            json!({ "name": name, "deviceTags": [{ "key": "many" }], "deviceIds": [one, two] });
        yard.asked(token, 1, ("POST", &path), &said)
    };
    let (mut hears, _) = yard.connect(&two).to(yard.at(2));
    hears.subscribe(&[(&commands_of(&two), 0)]);
    // A device's token reaches itself, whatever it names.
    let token = token_of(yard, &one, &yard.key, 3_600);
    assert_eq!(tell(&token, "mine").status, 200);
    hears.hears_nothing();
    assert_eq!(yard.get(2, &format!("/devices/{one}/command"))[0]["name"], "mine");
    // One of them has had as many as it may: the other is told, and it is said that not all were.
    let of_one = format!("/applications/{APP}/devices/{one}/command");
    until_true("it has had enough", SOON, || {
        yard.asked(&yard.token, 1, ("POST", &of_one), &json!({ "name": "x" })).status == 429
    });
    let answer = tell(&yard.token, "both");
    assert_eq!(answer.status, 429, "{}", answer.body);
    assert!(answer.body.contains("1 of 2 devices"), "{}", answer.body);
    assert_eq!(json_of(&hears.message())["name"], "both");
    // And so has who asks.
    until_true("the caller has had enough", SOON, || {
        let answer = tell(&token, "again");
        answer.status == 429 && !answer.body.contains("devices were not told")
    });
}

fn topics(yard: &mut Yard) {
    let publish = |topic: &str| {
        yard.rest(1, "POST", "/mqttPublishMessage", &json!({ "topic": topic, "message": "" })).0
    };
    #[rustfmt::skip]
    let table = [
        ("t".repeat(256),        200),
        ("t".repeat(257),        400),
        (vec!["t"; 16].join("/"), 200),
        (vec!["t"; 17].join("/"), 400),
    ];
    for (topic, status) in table {
        assert_eq!(publish(&topic), status, "{topic}");
    }
}

fn reasons(yard: &mut Yard) {
    let device = yard.device("standalone", &json!({}));
    let silent = Connect { keep_alive_s: 1, ..yard.connect(&device) };
    let (mut client, _) = silent.to(yard.at(1));
    assert_eq!(client.hear(SOON), Heard::Closed);
    until_true("its end is in the log", SOON, || ended(yard, &device, "Keep Alive Timeout"));
}

/// More mail than a connection may be sent in 15 seconds: it comes as fast as half of that, and the connection stays.
fn brought(yard: &mut Yard) {
    let device = yard.device("standalone", &json!({}));
    let path = format!("/devices/{device}/mailbox?tenant=yard");
    for number in 0..TOLD + 2 {
        let mail = json!({ "name": "set", "payload": number });
        let (status, sent) = yard.api.ask(1, "POST", &path, &mail);
        assert_eq!(status, 201, "{sent}");
    }
    let (mut client, _) = yard.connect(&device).to(yard.at(2));
    // However much it says itself.
    for number in 0..SAID {
        client.publish_acked(&format!("plant/{}", number % 10), b"!");
    }
    client.subscribe(&[(&commands_of(&device), 0)]);
    for number in 0..BROUGHT {
        assert_eq!(json_of(&client.message())["payload"], number);
    }
    client.hears_nothing();
    // There is room for what is said now: it does not wait behind them.
    yard.done(1, "POST", &format!("/devices/{device}/command"), &json!({ "name": "now" }));
    assert_eq!(json_of(&client.message())["name"], "now");
    client.disconnect();
}

fn disabled(yard: &mut Yard) {
    let device = yard.device("standalone", &json!({}));
    let login = json!({ "email": "ci", "password": yard.token });
    let answer = log_in(yard, "/auth/user", &login);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    let path = format!("/applications/{APP}/devices/{device}");
    let ask = |node| yard.asked(&token, node, ("GET", &path), &Value::Null).status;
    assert_eq!(ask(2), 200);
    let mut stream = stream_of(yard, &token, &device).unwrap();
    let enable = |is: bool| {
        let changed = yard.api.ask(1, "PATCH", "/tenants/yard", &json!({ "enabled": is }));
        assert_eq!(changed.0, 200, "{}", changed.1);
    };
    enable(false);
    assert!(stream.ends(SOON), "it tells nothing more");
    for node in 1..=3 {
        until_true("it is refused", SOON, || ask(node) == 401);
    }
    enable(true);
    until_true("it is taken again", SOON, || ask(2) == 200);
}
