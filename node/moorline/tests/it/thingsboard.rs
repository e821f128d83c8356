//! ThingsBoard's devices over MQTT: telemetry, attributes and their changes, on whichever node, while nodes die.

use serde_json::{Value, json};

use crate::harness::{
    api::{Api, text},
    mqtt::{Client, Heard},
    packet::{self, Connect, Packet, Publish, Version},
    scenarios,
    sse::Sse,
    wait::{SOON, until_true},
};

const TELEMETRY: &str = "v1/devices/me/telemetry";
const ATTRIBUTES: &str = "v1/devices/me/attributes";

/// A device's access token.
#[track_caller]
pub(crate) fn register(api: &Api, name: &str) -> String {
    let made = api.ask(1, "POST", "/devices?tenant=plant", &json!({ "name": name }));
    assert_eq!(made.0, 201, "{}", made.1);
    let path = format!("/devices/{name}/credentials?tenant=plant");
    text(&api.ask(1, "POST", &path, &json!({ "kind": "token" })), 201, "secret")
}

pub(crate) fn device(version: Version, token: &str) -> Connect {
    let connect = Connect::clean(version, "any client id");
    Connect { login: Some((token.to_owned(), String::new())), ..connect }
}

#[track_caller]
pub(crate) fn latest(api: &Api, node: u64, name: &str) -> Value {
    let path = format!("/devices/{name}/telemetry?tenant=plant");
    let (status, shown) = api.ask(node, "GET", &path, &Value::Null);
    assert_eq!(status, 200, "{shown}");
    let values = shown["values"].as_object().unwrap().iter();
    values.map(|(key, samples)| (key.clone(), samples[0].clone())).collect()
}

#[track_caller]
pub(crate) fn set(api: &Api, node: u64, name: &str, attributes: &Value) {
    let path = format!("/devices/{name}/attributes?tenant=plant&scope=shared");
    let (status, said) = api.ask(node, "PATCH", &path, &json!({ "attributes": attributes }));
    assert_eq!(status, 200, "{said}");
}

#[track_caller]
pub(crate) fn json_of(publish: &Publish) -> Value {
    serde_json::from_slice(&publish.payload).unwrap()
}

/// Asks for attributes; what was answered.
#[track_caller]
fn ask_attributes(client: &mut Client, id: u32, wanted: &str) -> Value {
    client.publish_acked(&format!("{ATTRIBUTES}/request/{id}"), wanted.as_bytes());
    let answer = client.message();
    client.ack(&answer);
    assert_eq!(answer.topic, format!("{ATTRIBUTES}/response/{id}"));
    json_of(&answer)
}

#[test]
fn a_plant_moves_in() {
    let mut api = Api::start();
    let tenant = json!({ "name": "plant", "aliases": ["thingsboard:plant"] });
    assert_eq!(api.ask(1, "POST", "/tenants", &tenant).0, 201);
    scenarios(
        &mut api,
        &[
            ("telemetry has a latest value, a history and an event", telemetry),
            ("attributes are reported and asked for", attributes),
            ("changes of shared attributes are pushed, none is lost", pushes),
            ("what can't be read is answered as the version wants", invalid),
            ("a device has one connection", taken_over),
            ("calls have an answer", calls),
        ],
    );
}

fn telemetry(api: &mut Api) {
    let token = register(api, "meter");
    let bearer = format!("Bearer {}", api.token);
    let to = api.cluster.node(2).admin;
    let headers = [("authorization", &*bearer)];
    let mut events = Sse::open(to, "/api/v1/events?tenant=plant&type=datapoint", &headers).unwrap();
    let (mut meter, _) = device(Version::V4, &token).to(api.cluster.mqtt(1));
    meter.publish_acked(TELEMETRY, br#"{"ts":1451649600512,"values":{"t":25,"old":1}}"#);
    meter
        .publish_acked(TELEMETRY, br#"[{"ts":1795227218578.032,"values":{"t":"26"}},{"ok":true}]"#);
    // Late data does not become the latest.
    meter.publish_acked("v2/t", br#"{"ts":1451649600000,"values":{"t":1,"f":42.0}}"#);
    let shown = latest(api, 3, "meter");
    assert_eq!(shown["t"]["value"], 26, "{shown}");
    assert_eq!(
        (&shown["t"]["time_ms"], &shown["f"]["value"]),
        (&json!(1_795_227_218_578_i64), &json!(42.0))
    );
    assert_eq!((&shown["ok"]["value"], &shown["old"]["value"]), (&json!(true), &json!(1)));
    let event = events.next(SOON).expect("an event").data.unwrap();
    assert_eq!(
        (&event["device"], &event["data"]["ts"]),
        (&json!("meter"), &json!(1_451_649_600_512_i64))
    );

    // It was acknowledged: so it is there when its leader is not.
    let leader = api.cluster.leader(1, 1);
    api.cluster.node_mut(leader).kill();
    let other = if leader == 2 { 3 } else { 2 };
    until_true("it is read elsewhere", SOON, || {
        let path = "/devices/meter/telemetry?tenant=plant&keys=t";
        api.ask(other, "GET", path, &Value::Null).1["values"]["t"][0]["value"] == 26
    });
    api.cluster.node_mut(leader).start_ready();
}

fn attributes(api: &mut Api) {
    let token = register(api, "valve");
    set(api, 2, "valve", &json!({ "interval": 10, "mode": "eco" }));
    let (mut valve, _) = device(Version::V5, &token).to(api.cluster.mqtt(3));
    valve.publish_acked(ATTRIBUTES, br#"{"fw":"1.2","n":7,"nested":{"a":[1]}}"#);
    assert_eq!(
        ask_attributes(&mut valve, 1, "{}"),
        json!({ "client": { "fw": 1.2, "n": 7, "nested": { "a": [1] } }, "shared": { "interval": 10, "mode": "eco" } })
    );
    let named = r#"{"clientKeys":"n,none","sharedKeys":"mode"}"#;
    assert_eq!(
        ask_attributes(&mut valve, 1, named),
        json!({ "client": { "n": 7 }, "shared": { "mode": "eco" } })
    );
    // What a device reports is never pushed to it.
    assert_eq!(valve.subscribe(&[(ATTRIBUTES, 1)]), [1]);
    valve.publish_acked("v2/a/j", br#"{"n":8}"#);
    valve.hears_nothing();
}

fn pushes(api: &mut Api) {
    let token = register(api, "lamp");
    let (mut lamp, _) = device(Version::V4, &token).to(api.cluster.mqtt(1));
    assert_eq!(lamp.subscribe(&[(ATTRIBUTES, 1)]), [1]);
    set(api, 3, "lamp", &json!({ "on": true, "level": 3 }));
    let heard = lamp.message();
    lamp.ack(&heard);
    assert_eq!(
        (heard.topic.as_str(), json_of(&heard)),
        (ATTRIBUTES, json!({ "level": 3, "on": true }))
    );
    set(api, 2, "lamp", &json!({ "on": null }));
    let heard = lamp.message();
    lamp.ack(&heard);
    assert_eq!(json_of(&heard), json!({ "deleted": ["on"] }));
    // Whatever is told together: the last of each is told.
    for number in 0..30 {
        set(api, number % 3 + 1, "lamp", &json!({ "level": number, format!("k{number}"): number }));
    }
    let mut told = serde_json::Map::new();
    until_true("all of it is told", SOON, || {
        let heard = lamp.message();
        lamp.ack(&heard);
        told.extend(json_of(&heard).as_object().unwrap().clone());
        told.get("level") == Some(&json!(29)) && told.len() == 31
    });
}

fn invalid(api: &mut Api) {
    let token = register(api, "old");
    let to = api.cluster.mqtt(2);
    let (mut old, _) = device(Version::V4, &token).to(to);
    old.publish_acked("any/topic", b"{}");
    assert_eq!(old.subscribe(&[("any/#", 1), ("v1/devices/me/rpc/request/+", 2)]), [0x80, 1]);
    old.publish(TELEMETRY, b"[1,2]");
    assert_eq!(old.hear(SOON), Heard::Closed);
    let (mut new, _) = device(Version::V5, &token).to(to);
    let id = new.publish("any/topic", b"{}");
    assert_eq!(new.puback(id), 0x90);
    let id = new.publish(TELEMETRY, b"not json");
    assert_eq!(new.puback(id), 0x99);
    assert_eq!(new.subscribe(&[("any/#", 1)]), [0x8F]);
    new.publish_acked(TELEMETRY, b"{}");
    assert_ne!(device(Version::V4, "nobodys-token").reason(to), 0);
}

fn taken_over(api: &mut Api) {
    let token = register(api, "twin");
    let (mut first, _) = device(Version::V5, &token).to(api.cluster.mqtt(1));
    first.publish_acked(TELEMETRY, br#"{"a":0}"#);
    let (mut second, _) = device(Version::V5, &token).to(api.cluster.mqtt(2));
    assert_eq!(first.hear(SOON), Heard::Packet(Packet::Disconnect { reason: 0x8E }));
    // Who comes last stays, however fast it goes from node to node.
    for node in [3, 1, 2].repeat(3) {
        let (third, _) = device(Version::V5, &token).to(api.cluster.mqtt(node));
        drop(std::mem::replace(&mut second, third));
        second.publish_acked(TELEMETRY, br#"{"a":0}"#);
    }
    let mut stayed = second;
    stayed.publish_acked(TELEMETRY, br#"{"a":1}"#);
    let path = "/devices/twin?tenant=plant";
    assert_eq!(api.ask(3, "DELETE", path, &Value::Null).0, 204);
    assert_eq!(stayed.hear(SOON), Heard::Packet(Packet::Disconnect { reason: 0x98 }));
}

fn calls(api: &mut Api) {
    let token = register(api, "caller");
    let (mut caller, _) = device(Version::V4, &token).to(api.cluster.mqtt(3));
    caller.publish_acked(
        "v1/devices/me/rpc/request/5",
        br#"{"method":"getSessionLimits","params":{}}"#,
    );
    let answer = caller.message();
    caller.ack(&answer);
    assert_eq!(answer.topic, "v1/devices/me/rpc/response/5");
    assert_eq!(json_of(&answer)["maxPayloadSize"], 65_536);
    // QoS 2 is answered as MQTT wants it.
    caller.publish_once(TELEMETRY, br#"{"b":2}"#);
    caller.send(&packet::pingreq()).unwrap();
    caller.heard_ping();
}
