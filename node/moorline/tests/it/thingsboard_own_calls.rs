//! Calls that ThingsBoard's devices make and applications answer, at whichever node; calls that go out one by one; and gateways that are
//! told of deleted devices.

use std::{net::SocketAddr, thread};

use serde_json::{Value, json};

use crate::{
    harness::{
        api::{Api, problem},
        cluster::Shape,
        http,
        mqtt::Client,
        packet::Version,
        scenarios,
        sse::Sse,
        wait::{A_WHILE, SOON, until, until_true},
    },
    thingsboard::{device, json_of, register},
    thingsboard_calls::{called, comes_to_stand, make, reply, stands},
    thingsboard_gateway::gateway,
};

const RESPONSES: &str = "v1/devices/me/rpc/response/+";
const REQUESTS: &str = "v1/devices/me/rpc/request/+";

#[test]
fn devices_call() {
    let mut api = Api::start_as(&Shape::of(3), &["http"]);
    api.make_tenants("thingsboard", &["plant", "other"]);
    scenarios(
        &mut api,
        &[
            ("an application answers a call of a device, at any node", answered),
            ("the same over HTTP", over_http),
            ("who does not wait any more gets no answer", gone),
            ("a gateway is told of a device that was deleted", gateway_is_told),
            ("calls go out one by one, as the tenant says", in_turn),
        ],
    );
}

/// What applications hear of a tenant's calls, at a node.
fn listen(api: &Api, node: u64) -> Sse {
    api.events(node, "tenant=plant&type=message&channel=rpc")
}

/// The next call: the device, the id, and all of it.
#[track_caller]
fn heard(events: &mut Sse) -> (String, String, Value) {
    let event = events.next(SOON).unwrap().data.unwrap();
    let call = event["data"].clone();
    let device = event["source"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    (device, call["id"].as_str().unwrap().to_owned(), call)
}

fn answer(api: &Api, node: u64, device: &str, id: &str, answer: &Value) -> (u16, String) {
    let path = format!("/devices/{device}/own-calls/{id}?tenant=plant");
    problem(api.ask(node, "POST", &path, answer))
}

#[track_caller]
fn told(client: &mut Client, id: u32) -> Value {
    let heard = client.message();
    client.ack(&heard);
    assert_eq!(heard.topic, format!("v1/devices/me/rpc/response/{id}"));
    json_of(&heard)
}

fn answered(api: &mut Api) {
    let token = register(api, "clock");
    let mut events = listen(api, 2);
    let (mut clock, _) = device(Version::V4, &token).to(api.cluster.mqtt(1));
    assert_eq!(clock.subscribe(&[(RESPONSES, 1)]), [1]);
    let call = br#"{"method":"getTime","params":{"zone":"UTC"}}"#;
    clock.publish_acked("v1/devices/me/rpc/request/7", call);
    clock.publish_acked("v1/devices/me/rpc/request/8", br#"{"method":"getTime"}"#);
    let (device_of, first, said) = heard(&mut events);
    assert_eq!(device_of, "clock");
    assert_eq!((&said["method"], &said["params"]), (&json!("getTime"), &json!({ "zone": "UTC" })));
    let (_, second, said) = heard(&mut events);
    assert_eq!(said["params"], Value::Null);
    // In another order, at other nodes than the device's.
    assert_eq!(answer(api, 3, "clock", &second, &json!("later")).0, 204);
    assert_eq!(told(&mut clock, 8), json!("later"));
    assert_eq!(answer(api, 2, "clock", &first, &json!({ "now": 1 })).0, 204);
    assert_eq!(told(&mut clock, 7), json!({ "now": 1 }));
    // Once, by whom it concerns, of the device that asked.
    let none = (404, "not-found".to_owned());
    assert_eq!(answer(api, 1, "clock", &first, &json!(2)), none);
    clock.publish_acked("v1/devices/me/rpc/request/9", br#"{"method":"getTime"}"#);
    let (_, third, _) = heard(&mut events);
    register(api, "other-clock");
    assert_eq!(answer(api, 1, "other-clock", &third, &json!(2)), none);
    let path = format!("/devices/clock/own-calls/{third}?tenant=other");
    assert_eq!(api.ask(1, "POST", &path, &json!(2)).0, 404);
    assert_eq!(answer(api, 1, "clock", "no-id", &json!(2)), none);
    let large = json!("x".repeat(61 * 1024));
    assert_eq!(answer(api, 1, "clock", &third, &large), (413, "too-large".to_owned()));
    assert_eq!(answer(api, 1, "clock", &third, &json!(3)).0, 204);
    assert_eq!(told(&mut clock, 9), json!(3));
    // What the transport answers itself is no call.
    clock.publish_acked(
        "v1/devices/me/rpc/request/1",
        br#"{"method":"getSessionLimits","params":{}}"#,
    );
    assert!(told(&mut clock, 1).get("rateLimits").is_some());
}

fn over_http(api: &mut Api) {
    let token = register(api, "http-clock");
    let mut events = listen(api, 1);
    let to: SocketAddr = api.at(3, "http");
    let calling = thread::spawn(move || {
        let path = format!("/api/v1/{token}/rpc");
        http::api("POST", to, &path, &[], r#"{"method":"getTime","params":{}}"#)
    });
    let (_, id, _) = heard(&mut events);
    assert_eq!(answer(api, 2, "http-clock", &id, &json!({ "now": 2 })).0, 204);
    let answer = calling.join().unwrap();
    assert_eq!((answer.status, answer.json()), (200, json!({ "now": 2 })));
}

fn gone(api: &mut Api) {
    let token = register(api, "leaver");
    let mut events = listen(api, 3);
    let (mut leaver, _) = device(Version::V4, &token).to(api.cluster.mqtt(2));
    leaver.publish_acked("v1/devices/me/rpc/request/1", br#"{"method":"m"}"#);
    let (_, id, _) = heard(&mut events);
    leaver.disconnect();
    until("nobody waits", SOON, || {
        // It may be taken while the node has not noticed.
        (answer(api, 1, "leaver", &id, &json!(1)).0 == 404).then_some(())
    });
}

fn gateway_is_told(api: &mut Api) {
    let token = gateway(api, "hub-of-gone");
    let (mut hub, _) = device(Version::V4, &token).to(api.cluster.mqtt(1));
    assert_eq!(hub.subscribe(&[("v1/gateway/rpc", 1), (REQUESTS, 1)]), [1, 1]);
    hub.publish_acked("v1/gateway/connect", br#"{"device":"leaf \"1\""}"#);
    let path = "/devices/leaf%20%221%22?tenant=plant";
    assert_eq!(api.ask(3, "DELETE", path, &Value::Null).0, 204);
    let (heard, number, call) = called(&mut hub);
    hub.ack(&heard);
    assert_eq!(call, json!({ "method": "gateway_device_deleted", "params": "leaf \"1\"" }));
    reply(&mut hub, &number, b"{}");
    // One that is only disabled is not.
    hub.publish_acked("v1/gateway/connect", br#"{"device":"leaf2"}"#);
    let off = json!({ "enabled": false });
    assert_eq!(api.ask(2, "PATCH", "/devices/leaf2?tenant=plant", &off).0, 200);
    hub.hears_nothing_for(A_WHILE);
}

/// How calls of the tenant go out from now on, at all nodes.
#[track_caller]
fn order(api: &Api, order: &str) {
    let patch = json!({ "settings": { "calls": { "order": order } } });
    assert_eq!(api.ask(1, "PATCH", "/tenants/plant", &patch).0, 200);
    for node in 1..=3 {
        until_true("the node knows it", SOON, || {
            let shown = api.ask(node, "GET", "/tenants/plant", &Value::Null).1;
            shown["settings"]["calls"]["order"] == order
        });
    }
}

fn in_turn(api: &mut Api) {
    let call = |n: u32, one_way: bool| json!({ "method": "m", "params": n, "one_way": one_way, "timeout_ms": 600_000 });
    order(api, "after-answer");
    let token = register(api, "one-by-one");
    let (mut pump, _) = device(Version::V4, &token).to(api.cluster.mqtt(2));
    assert_eq!(pump.subscribe(&[(REQUESTS, 1)]), [1]);
    let ids: Vec<_> = (1..=4).map(|n| make(api, 1, "one-by-one", &call(n, n == 2))).collect();
    let (first, number, said) = called(&mut pump);
    assert_eq!(said["params"], 1);
    pump.ack(&first);
    comes_to_stand(api, 3, "one-by-one", &ids[0], "delivered");
    pump.hears_nothing_for(A_WHILE);
    assert_eq!(stands(api, 3, "one-by-one", &ids[1]).0, "queued");
    reply(&mut pump, &number, b"{}");
    // One that wants no answer: the next comes behind its acknowledgement.
    let (second, _, said) = called(&mut pump);
    assert_eq!(said["params"], 2);
    pump.hears_nothing_for(A_WHILE);
    pump.ack(&second);
    let (third, _, said) = called(&mut pump);
    assert_eq!(said["params"], 3);
    pump.ack(&third);
    comes_to_stand(api, 3, "one-by-one", &ids[2], "delivered");
    // Also for who polls, at another node; until it is taken back.
    let path = format!("/api/v1/{token}/rpc?timeout=300");
    assert_eq!(http::api("GET", api.at(3, "http"), &path, &[], "").status, 408);
    let path = format!("/devices/one-by-one/calls/{}?tenant=plant", ids[2]);
    assert_eq!(api.ask(1, "DELETE", &path, &Value::Null).0, 204);
    let (fourth, _, said) = called(&mut pump);
    assert_eq!(said["params"], 4);
    pump.ack(&fourth);

    order(api, "after-acknowledgement");
    let token = register(api, "acked");
    let (mut pump, _) = device(Version::V5, &token).to(api.cluster.mqtt(1));
    assert_eq!(pump.subscribe(&[(REQUESTS, 1)]), [1]);
    for n in 1..=3 {
        make(api, 2, "acked", &call(n, false));
    }
    for n in 1..=3 {
        let (heard, _, said) = called(&mut pump);
        assert_eq!(said["params"], n);
        pump.hears_nothing_for(A_WHILE);
        pump.ack(&heard);
    }
    order(api, "burst");
    for n in 4..=6 {
        make(api, 2, "acked", &call(n, false));
    }
    for n in 4..=6 {
        assert_eq!(called(&mut pump).2["params"], n);
    }
}
