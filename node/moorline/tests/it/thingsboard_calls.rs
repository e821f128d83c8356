//! Calls to ThingsBoard's devices: over MQTT, HTTP and gateways, on whichever node, while nodes die.

use std::{net::SocketAddr, thread};

use serde_json::{Value, json};

use crate::{
    harness::{
        api::Api,
        cluster::Shape,
        http,
        mqtt::Client,
        packet::{Publish, Version},
        scenarios,
        wait::{SOON, until},
    },
    thingsboard::{device, json_of, register},
    thingsboard_gateway::gateway,
};

const REQUESTS: &str = "v1/devices/me/rpc/request/+";

/// Makes a call that is kept; its id.
#[track_caller]
pub(crate) fn make(api: &Api, node: u64, name: &str, call: &Value) -> String {
    let (status, made) = api.ask(node, "POST", &calls_of(name), call);
    assert!(status < 300, "{status} {made}");
    made["id"].as_str().unwrap().to_owned()
}

fn calls_of(name: &str) -> String {
    format!("/devices/{name}/calls?tenant=plant")
}

/// How a call stands, and what was answered.
#[track_caller]
pub(crate) fn stands(api: &Api, node: u64, name: &str, id: &str) -> (String, Value) {
    let path = format!("/devices/{name}/calls/{id}?tenant=plant");
    let (status, call) = api.ask(node, "GET", &path, &Value::Null);
    assert_eq!(status, 200, "{call}");
    (call["state"].as_str().unwrap().to_owned(), call["answer"].clone())
}

#[track_caller]
pub(crate) fn comes_to_stand(api: &Api, node: u64, name: &str, id: &str, state: &str) -> Value {
    until(&format!("it is {state}"), SOON, || {
        let (now, answer) = stands(api, node, name, id);
        (now == state).then_some(answer)
    })
}

/// The next call that a device gets, and its number.
#[track_caller]
pub(crate) fn called(client: &mut Client) -> (Publish, String, Value) {
    let heard = client.message();
    let number = heard.topic.strip_prefix("v1/devices/me/rpc/request/").unwrap().to_owned();
    let call = json_of(&heard);
    (heard, number, call)
}

#[track_caller]
pub(crate) fn reply(client: &mut Client, number: &str, answer: &[u8]) {
    client.publish_acked(&format!("v1/devices/me/rpc/response/{number}"), answer);
}

#[test]
fn devices_are_called() {
    let mut api = Api::start_as(&Shape::of(3), &["http"]);
    let tenant = json!({ "name": "plant", "aliases": ["thingsboard:plant"] });
    assert_eq!(api.ask(1, "POST", "/tenants", &tenant).0, 201);
    scenarios(
        &mut api,
        &[
            ("a call is answered, and its maker waits for it", waited),
            ("a call waits for its device, and outlives a leader", kept),
            ("a call that ends with its delivery", one_way),
            ("calls by polls", polled),
            ("calls to devices of a gateway", through_a_gateway),
        ],
    );
}

fn waited(api: &mut Api) {
    let token = register(api, "pump");
    let (mut pump, _) = device(Version::V4, &token).to(api.cluster.mqtt(1));
    assert_eq!(pump.subscribe(&[(REQUESTS, 1)]), [1]);
    let call =
        json!({ "method": "setGpio", "params": { "pin": 7 }, "wait": true, "timeout_ms": 20_000 });
    let (to, bearer) = (api.cluster.node(3).admin, format!("Bearer {}", api.token));
    let path = format!("/api/v1{}", calls_of("pump"));
    let calling = thread::spawn(move || {
        http::api("POST", to, &path, &[("authorization", &bearer)], &call.to_string())
    });
    let (heard, number, call) = called(&mut pump);
    pump.ack(&heard);
    assert_eq!(call, json!({ "method": "setGpio", "params": { "pin": 7 } }));
    reply(&mut pump, &number, br#"{"ok":true}"#);
    let answer = calling.join().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(
        (&answer.json()["state"], &answer.json()["answer"]),
        (&json!("successful"), &json!({ "ok": true }))
    );
    // An answer to nothing is taken.
    reply(&mut pump, "99", b"{}");
}

fn kept(api: &mut Api) {
    let token = register(api, "valve");
    let call = |n: u32| json!({ "method": "open", "params": n, "timeout_ms": 600_000 });
    let ids = [1, 2, 3].map(|n| make(api, n.into(), "valve", &call(n)));
    assert_eq!(stands(api, 2, "valve", &ids[0]).0, "queued");
    let leader = api.cluster.leader(1, 1);
    let other = leader % 3 + 1;
    api.cluster.node_mut(leader).kill();
    let (mut valve, _) = device(Version::V5, &token).to_patiently(api.cluster.mqtt(other));
    assert_eq!(valve.subscribe(&[(REQUESTS, 1)]), [1]);
    let mut numbers = Vec::new();
    for n in 1..=3 {
        let (heard, number, call) = called(&mut valve);
        assert_eq!(call["params"], n, "in the order they were made");
        if n < 3 {
            valve.ack(&heard);
        }
        numbers.push(number);
    }
    comes_to_stand(api, other, "valve", &ids[0], "delivered");
    assert_eq!(stands(api, other, "valve", &ids[2]).0, "sent", "it was not acknowledged");
    // It is sent again by the next connection, and answered there; the others are not.
    drop(valve);
    let (mut valve, _) = device(Version::V4, &token).to_patiently(api.cluster.mqtt(other));
    assert_eq!(valve.subscribe(&[(REQUESTS, 1)]), [1]);
    let (heard, number, _) = called(&mut valve);
    valve.ack(&heard);
    assert_eq!(number, numbers[2]);
    for (number, id) in numbers.iter().zip(&ids) {
        reply(&mut valve, number, format!("\"{number}\"").as_bytes());
        assert_eq!(comes_to_stand(api, other, "valve", id, "successful"), json!(number));
    }
    api.cluster.node_mut(leader).start_ready();
    let path = format!("{}&states=successful", calls_of("valve"));
    let list = api.ask(leader, "GET", &path, &Value::Null).1;
    assert_eq!(list["calls"].as_array().unwrap().len(), 3, "{list}");
}

fn one_way(api: &mut Api) {
    let token = register(api, "horn");
    let (mut horn, _) = device(Version::V4, &token).to(api.cluster.mqtt(2));
    // With QoS 0 it has what was sent to it. The short topics are other names of the same.
    assert_eq!(horn.subscribe(&[("v2/r/req/j/+", 0)]), [0]);
    let call = json!({ "method": "blow", "one_way": true, "timeout_ms": 60_000 });
    let id = make(api, 1, "horn", &call);
    let heard = horn.message();
    assert!(heard.topic.starts_with("v2/r/req/j/"), "{}", heard.topic);
    assert_eq!(json_of(&heard), json!({ "method": "blow", "params": null }));
    comes_to_stand(api, 3, "horn", &id, "delivered");
    // Nobody is there, and its time is over.
    horn.disconnect();
    let call = json!({ "method": "blow", "one_way": true, "timeout_ms": 1 });
    let id = make(api, 1, "horn", &call);
    comes_to_stand(api, 2, "horn", &id, "expired");
}

fn polled(api: &mut Api) {
    let token = register(api, "http-pump");
    let at = |node| -> SocketAddr { api.at(node, "http") };
    let poll = |node, wait_ms: u32| {
        let path = format!("/api/v1/{token}/rpc?timeout={wait_ms}");
        http::api("GET", at(node), &path, &[], "")
    };
    assert_eq!(poll(1, 100).status, 408);
    let call = json!({ "method": "open", "params": [1], "timeout_ms": 60_000 });
    let id = make(api, 2, "http-pump", &call);
    let answer = poll(3, 20_000);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let number = answer.json()["id"].as_i64().unwrap();
    assert_eq!(answer.json(), json!({ "id": number, "method": "open", "params": [1] }));
    comes_to_stand(api, 1, "http-pump", &id, "delivered");
    let path = format!("/api/v1/{token}/rpc/{number}");
    assert_eq!(http::api("POST", at(2), &path, &[], r#"{"done":1}"#).status, 200);
    let said = comes_to_stand(api, 3, "http-pump", &id, "successful");
    assert_eq!(said, json!({ "done": 1 }));
    assert_eq!(poll(2, 100).status, 408, "it is called once");
}

fn through_a_gateway(api: &mut Api) {
    let token = gateway(api, "call-hub");
    let (mut hub, _) = device(Version::V4, &token).to(api.cluster.mqtt(3));
    hub.publish_acked("v1/gateway/connect", br#"{"device":"child"}"#);
    let call = json!({ "method": "open", "params": {}, "timeout_ms": 60_000 });
    let id = make(api, 1, "child", &call);
    let heard = hub.message();
    hub.ack(&heard);
    assert_eq!(heard.topic, "v1/gateway/rpc");
    let number = json_of(&heard)["data"]["id"].as_i64().unwrap();
    let data = json!({ "id": number, "method": "open", "params": {} });
    assert_eq!(json_of(&heard), json!({ "device": "child", "data": data }));
    let said = json!({ "device": "child", "id": number, "data": { "ok": 1 } });
    hub.publish_acked("v1/gateway/rpc", said.to_string().as_bytes());
    assert_eq!(comes_to_stand(api, 2, "child", &id, "successful"), json!({ "ok": 1 }));
    // One that came before its gateway did.
    hub.disconnect();
    let id = make(api, 1, "child", &call);
    let (mut hub, _) = device(Version::V4, &token).to(api.cluster.mqtt(2));
    hub.publish_acked("v1/gateway/telemetry", br#"{"child":[{"t":1}]}"#);
    let heard = hub.message();
    hub.ack(&heard);
    comes_to_stand(api, 1, "child", &id, "delivered");
}
