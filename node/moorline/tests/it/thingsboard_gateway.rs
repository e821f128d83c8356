//! ThingsBoard's gateways over MQTT: what one says for its devices, and what it is told of them, on whichever node, while nodes die.

use serde_json::{Value, json};

use crate::{
    harness::{
        api::{Api, text},
        mqtt::{Client, Heard},
        packet::{Packet, Version},
        scenarios,
        wait::{SOON, until_true},
    },
    thingsboard::{device, json_of, latest, register, set},
};

const TELEMETRY: &str = "v1/gateway/telemetry";
const ATTRIBUTES: &str = "v1/gateway/attributes";

/// A gateway's access token.
#[track_caller]
pub(crate) fn gateway(api: &Api, name: &str) -> String {
    let made = json!({ "name": name, "settings": { "class": "gateway" } });
    let made = api.ask(1, "POST", "/devices?tenant=plant", &made);
    assert_eq!(made.0, 201, "{}", made.1);
    let path = format!("/devices/{name}/credentials?tenant=plant");
    text(&api.ask(1, "POST", &path, &json!({ "kind": "token" })), 201, "secret")
}

/// A message to the gateway.
#[track_caller]
fn told(client: &mut Client, topic: &str) -> Value {
    let heard = client.message();
    client.ack(&heard);
    assert_eq!(heard.topic, topic);
    json_of(&heard)
}

/// Of a device's record.
#[track_caller]
fn shown(api: &Api, node: u64, name: &str) -> (u16, Value) {
    let path = format!("/devices/{}?tenant=plant", name.replace(' ', "%20"));
    api.ask(node, "GET", &path, &Value::Null)
}

#[test]
fn a_plant_moves_in_with_gateways() {
    let mut api = Api::start();
    let tenant = json!({ "name": "plant", "aliases": ["thingsboard:plant"] });
    assert_eq!(api.ask(1, "POST", "/tenants", &tenant).0, 201);
    scenarios(
        &mut api,
        &[
            ("what it says of its devices is theirs, and those are made", says),
            ("its devices have attributes, and changes of them are told", attributes),
            ("its devices come and go with it", comes_and_goes),
            ("who is no gateway speaks for nobody", no_gateway),
        ],
    );
}

fn says(api: &mut Api) {
    let token = gateway(api, "hub");
    let (mut hub, _) = device(Version::V5, &token).to(api.cluster.mqtt(1));
    hub.publish_acked("v1/gateway/connect", br#"{"device":"Dev-A","type":"thermometer"}"#);
    let body = br#"{"Dev-A":[{"ts":1451649600512,"values":{"t":2}},{"x":1}],"Dev-B":[{"t":3}]}"#;
    hub.publish_acked(TELEMETRY, body);
    let (a, b) = (latest(api, 2, "Dev-A"), latest(api, 3, "Dev-B"));
    assert_eq!((&a["t"]["value"], &a["x"]["value"]), (&json!(2), &json!(1)));
    assert_eq!(b["t"]["value"], 3);
    let (status, record) = shown(api, 3, "Dev-A");
    assert_eq!((status, &record["settings"]["type"]), (200, &json!("thermometer")), "{record}");
    assert_eq!(shown(api, 1, "Dev-B").1["settings"]["type"], "default");
    let audit = api.ask(2, "GET", "/audit?tenant=plant", &Value::Null).1.to_string();
    assert!(audit.contains("registration by a gateway"), "{audit}");

    // It was acknowledged: so it is there when a leader is not. And the gateway goes on.
    hub.publish_acked(TELEMETRY, br#"{"Dev-A":[{"t":4}],"Dev-C":[{"t":5}]}"#);
    let leader = api.cluster.leader(1, 1);
    let other = if leader == 2 { 3 } else { 2 };
    api.cluster.node_mut(leader).kill();
    for (name, value) in [("Dev-A", 4), ("Dev-C", 5)] {
        let path = format!("/devices/{name}/telemetry?tenant=plant&keys=t");
        until_true("it is read elsewhere", SOON, || {
            api.ask(other, "GET", &path, &Value::Null).1["values"]["t"][0]["value"] == value
        });
    }
    api.cluster.node_mut(leader).start_ready();

    // What is wrong: about nobody, names that are none, and a row of the API's.
    let (mut hub, _) = device(Version::V5, &token).to(api.cluster.mqtt(2));
    for wrong in [&b"{}"[..], br#"{"":[{"t":1}]}"#, br#"{"D":{"t":1}}"#, br#"{"~root":[{"t":1}]}"#]
    {
        let id = hub.publish(TELEMETRY, wrong);
        assert_eq!(hub.puback(id), 0x99, "{}", String::from_utf8_lossy(wrong));
    }
}

fn attributes(api: &mut Api) {
    let token = gateway(api, "hub2");
    let (mut hub, _) = device(Version::V4, &token).to(api.cluster.mqtt(3));
    assert_eq!(hub.subscribe(&[(ATTRIBUTES, 1), ("v1/gateway/rpc", 1)]), [1, 1]);
    hub.publish_acked(ATTRIBUTES, br#"{"Dev-K":{"fw":"1.2","n":7},"Dev-L":{"n":8}}"#);
    // Whoever is spoken for is told of changes, whether it was connected before or not.
    set(api, 1, "Dev-K", &json!({ "interval": 10, "mode": "eco" }));
    let changed = json!({ "device": "Dev-K", "data": { "interval": 10, "mode": "eco" } });
    assert_eq!(told(&mut hub, ATTRIBUTES), changed);
    set(api, 2, "Dev-L", &json!({ "mode": 1 }));
    assert_eq!(told(&mut hub, ATTRIBUTES), json!({ "device": "Dev-L", "data": { "mode": 1 } }));
    set(api, 3, "Dev-K", &json!({ "mode": null }));
    let deleted = json!({ "device": "Dev-K", "data": { "deleted": ["mode"] } });
    assert_eq!(told(&mut hub, ATTRIBUTES), deleted);

    let mut asks = |body: &str| {
        hub.publish_acked("v1/gateway/attributes/request", body.as_bytes());
        told(&mut hub, "v1/gateway/attributes/response")
    };
    assert_eq!(
        asks(r#"{"id":1,"device":"Dev-K","client":true,"key":"n"}"#),
        json!({ "id": 1, "device": "Dev-K", "value": 7 })
    );
    assert_eq!(
        asks(r#"{"id":2,"device":"Dev-K","client":false,"keys":["interval","none"]}"#),
        json!({ "id": 2, "device": "Dev-K", "values": { "interval": 10 } })
    );
    assert_eq!(
        asks(r#"{"id":3,"device":"Dev-K","client":false,"key":"none"}"#),
        json!({ "id": 3, "device": "Dev-K" })
    );
    // Its own attributes are its own.
    hub.publish_acked("v1/devices/me/attributes", br#"{"own":1}"#);
    assert_eq!(hub.subscribe(&[("v1/devices/me/attributes", 1)]), [1]);
    set(api, 1, "hub2", &json!({ "own": 2 }));
    assert_eq!(told(&mut hub, "v1/devices/me/attributes"), json!({ "own": 2 }));
}

fn comes_and_goes(api: &mut Api) {
    let connected =
        |api: &Api, name: &str| shown(api, 1, name).1["presence"]["state"] == "connected";
    let token = gateway(api, "hub3");
    let (mut hub, _) = device(Version::V4, &token).to(api.cluster.mqtt(2));
    hub.publish_acked("v1/gateway/connect", br#"{"device":"Dev-X"}"#);
    hub.publish_acked("v1/gateway/connect", br#"{"device":"Dev-Y"}"#);
    until_true("they have come", SOON, || connected(api, "Dev-X") && connected(api, "Dev-Y"));
    hub.publish_acked("v1/gateway/disconnect", br#"{"device":"Dev-X"}"#);
    until_true("one has gone", SOON, || !connected(api, "Dev-X") && connected(api, "Dev-Y"));
    // Who has gone is not told of.
    set(api, 3, "Dev-X", &json!({ "a": 1 }));
    set(api, 3, "Dev-Y", &json!({ "b": 1 }));
    assert_eq!(told(&mut hub, ATTRIBUTES), json!({ "device": "Dev-Y", "data": { "b": 1 } }));
    // One that is deleted is made anew when it is spoken for again.
    let path = "/devices/Dev-Y?tenant=plant";
    assert_eq!(api.ask(3, "DELETE", path, &Value::Null).0, 204);
    until_true("it is made anew", SOON, || {
        // While the node has not heard of the deletion the gateway is sent away, and comes again.
        let (mut again, _) = device(Version::V4, &token).to(api.cluster.mqtt(2));
        again.publish(TELEMETRY, br#"{"Dev-Y":[{"t":6}]}"#);
        let heard = again.hear(SOON);
        matches!(heard, Heard::Packet(Packet::PubAck { .. })) && shown(api, 1, "Dev-Y").0 == 200
    });
    until_true("all have gone with it", SOON, || !connected(api, "Dev-Y"));
}

fn no_gateway(api: &mut Api) {
    let token = register(api, "plain");
    let (mut plain, _) = device(Version::V5, &token).to(api.cluster.mqtt(3));
    assert_eq!(plain.subscribe(&[(ATTRIBUTES, 1)]), [1], "as SDKs want it");
    plain.publish_acked(TELEMETRY, br#"{"Dev-Z":[{"t":1}]}"#);
    assert_eq!(shown(api, 1, "Dev-Z").0, 404);
}
