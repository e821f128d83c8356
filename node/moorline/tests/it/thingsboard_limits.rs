//! Limits on what ThingsBoard's devices send, in their own notation: who is over one hears so as its protocol wants, and those who run
//! this know why. And which devices may be claimed, as their tenant says.

use serde_json::{Value, json};

use crate::{
    harness::{
        api::Api,
        cluster::Shape,
        http,
        mqtt::{Client, Heard},
        packet::{Packet, Version},
        scenarios,
        sse::Sse,
        wait::{SOON, until_true},
    },
    thingsboard::{device, json_of, latest, register, set},
    thingsboard_gateway::gateway,
    thingsboard_rest::{User, refused},
};

const TELEMETRY: &str = "v1/devices/me/telemetry";
const ATTRIBUTES: &str = "v1/devices/me/attributes";
const OF_DEVICES: &str = "v1/gateway/telemetry";
/// What MQTT 5 says to who is over a limit.
const QUOTA_EXCEEDED: u8 = 0x97;

#[test]
fn who_sends_too_much_is_refused() {
    let mut api = Api::start_as(&Shape::of(3), &["http"]);
    // Nothing comes back while the test runs.
    let limits = json!({
        "device": { "messages": "5:7200", "telemetry-messages": "100:1,6:7200", "telemetry-data-points": "10:7200" },
        "gateway": { "messages": "3:7200" },
        "gateway-device": { "telemetry-messages": "2:7200" },
    });
    let tenant = json!({
        "name": "plant", "aliases": ["thingsboard:plant"],
        "settings": { "plaintext": true, "rate-limits": limits },
    });
    assert_eq!(api.ask(1, "POST", "/tenants", &tenant).0, 201);
    scenarios(
        &mut api,
        &[
            ("a device that sends too much is cut off, and comes back to the same", devices),
            ("over HTTP it hears which limit it was", over_http),
            ("a gateway's device is cut off, and the gateway hears so", gateway_devices),
            ("other limits count at once", changed),
            ("a device is claimed only if its tenant, or its attribute, says so", claiming),
            ("who asks the REST API too much hears so", asked),
        ],
    );
}

/// What a device hears of its limits.
#[track_caller]
fn told_limits(client: &mut Client) -> Value {
    client.publish_acked("v1/devices/me/rpc/request/1", br#"{"method":"getSessionLimits"}"#);
    let answer = client.message();
    client.ack(&answer);
    json_of(&answer)
}

/// How often a limit was reached at a node.
fn refusals(api: &Api, node: u64, limit: &str, what: &str) -> u64 {
    let page = http::get(api.cluster.node(node).admin, "/metrics").unwrap().body;
    let metric =
        format!("moorline_thingsboard_limited_total{{limit=\"{limit}\",what=\"{what}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&metric));
    line.unwrap_or_else(|| panic!("{page}")).parse().unwrap()
}

fn devices(api: &mut Api) {
    let token = register(api, "meter");
    let bearer = format!("Bearer {}", api.token);
    let headers = [("authorization", &*bearer)];
    let events = "/api/v1/events?tenant=plant&type=state&channel=limits";
    let mut events = Sse::open(api.cluster.node(2).admin, events, &headers).unwrap();
    let to = api.cluster.mqtt(1);
    let (mut meter, _) = device(Version::V5, &token).to(to);
    assert_eq!(
        told_limits(&mut meter)["rateLimits"],
        json!({ "messages": "5:7200", "telemetryMessages": "100:1,6:7200", "telemetryDataPoints": "10:7200" })
    );
    // Eight points of ten; then three are one too many, and are not taken.
    let body = br#"[{"ts":1,"values":{"a":1,"b":1,"c":1}},{"d":1,"e":1,"f":1,"g":1,"h":1}]"#;
    meter.publish_acked(TELEMETRY, body);
    let three = br#"{"a":2,"b":2,"c":2}"#;
    meter.publish(TELEMETRY, three);
    assert_eq!(meter.hear(SOON), Heard::Packet(Packet::Disconnect { reason: QUOTA_EXCEEDED }));
    let event = events.next(SOON).expect("an event").data.unwrap();
    let data = json!({
        "device": "meter", "limit": "device", "what": "telemetry_data_points", "rate": "10:7200",
    });
    assert_eq!((&event["device"], &event["data"]), (&json!("meter"), &data));
    // Who connects again has no more; who says less may say it. MQTT 3 hears nothing but the end.
    let (mut meter, _) = device(Version::V4, &token).to(to);
    meter.publish(TELEMETRY, three);
    assert_eq!(meter.hear(SOON), Heard::Closed);
    let (mut meter, _) = device(Version::V4, &token).to(to);
    meter.publish_acked(TELEMETRY, br#"{"a":3,"b":3}"#);
    assert_eq!(latest(api, 3, "meter")["a"]["value"], 3);
    assert_eq!(refusals(api, 1, "device", "telemetry_data_points"), 2);
    // Of what is no telemetry there is a limit of its own.
    (0..5).for_each(|n| meter.publish_acked(ATTRIBUTES, format!(r#"{{"n":{n}}}"#).as_bytes()));
    meter.publish(ATTRIBUTES, br#"{"n":5}"#);
    assert_eq!(meter.hear(SOON), Heard::Closed);
    assert_eq!(refusals(api, 1, "device", "messages"), 1);
    // Another device has its own.
    let (mut other, _) = device(Version::V5, &register(api, "other")).to(to);
    other.publish_acked(TELEMETRY, three);
}

fn over_http(api: &mut Api) {
    let token = register(api, "poster");
    let post = |what: &str, body: &str| {
        http::api("POST", api.at(2, "http"), &format!("/api/v1/{token}/{what}"), &[], body)
    };
    (0..6).for_each(|_| assert_eq!(post("telemetry", r#"{"t":1}"#).status, 200));
    let refused = post("telemetry", r#"{"t":1}"#);
    let why = "DEVICE rate limit reached: 6:7200 telemetry_messages";
    assert_eq!((refused.status, refused.body.as_str()), (500, why));
    assert_eq!(post("attributes", r#"{"n":1}"#).status, 200);
    assert_eq!(refusals(api, 2, "device", "telemetry_messages"), 1);
}

fn gateway_devices(api: &mut Api) {
    let token = gateway(api, "hub");
    let (mut hub, _) = device(Version::V5, &token).to(api.cluster.mqtt(3));
    let limits = told_limits(&mut hub);
    assert_eq!(limits["gatewayRateLimits"]["messages"], "3:7200");
    assert_eq!(limits["rateLimits"]["messages"], "5:7200");
    hub.publish_acked(OF_DEVICES, br#"{"Dev-A":[{"t":1}]}"#);
    hub.publish_acked(OF_DEVICES, br#"{"Dev-A":[{"t":2}]}"#);
    // What it says of another device is taken.
    let id = hub.publish(OF_DEVICES, br#"{"Dev-A":[{"t":3}],"Dev-B":[{"t":4}]}"#);
    let told = hub.message();
    hub.ack(&told);
    let cut_off = json!({ "device": "Dev-A", "reason": 150 });
    assert_eq!((told.topic.as_str(), json_of(&told)), ("v1/gateway/disconnect", cut_off));
    assert_eq!(hub.puback(id), QUOTA_EXCEEDED);
    assert_eq!(latest(api, 1, "Dev-A")["t"]["value"], 2);
    assert_eq!(latest(api, 1, "Dev-B")["t"]["value"], 4);
    let presence = || api.ask(2, "GET", "/devices/Dev-A?tenant=plant", &Value::Null).1;
    until_true("it has gone", SOON, || presence()["presence"]["state"] != "connected");
    // It is told of once. What it says that is no telemetry has it come again.
    let id = hub.publish(OF_DEVICES, br#"{"Dev-A":[{"t":5}]}"#);
    assert_eq!(hub.puback(id), QUOTA_EXCEEDED);
    hub.publish_acked("v1/gateway/attributes", br#"{"Dev-A":{"n":1}}"#);
    set(api, 1, "Dev-A", &json!({ "mode": 1 }));
    let told = hub.message();
    hub.ack(&told);
    assert_eq!(json_of(&told), json!({ "device": "Dev-A", "data": { "mode": 1 } }));
    // What all its devices say is too much: that is the end.
    hub.publish_acked("v1/gateway/attributes", br#"{"Dev-A":{"n":2},"Dev-B":{"n":3}}"#);
    let id = hub.publish("v1/gateway/attributes", br#"{"Dev-B":{"n":4}}"#);
    assert_eq!(hub.puback(id), QUOTA_EXCEEDED);
    assert_eq!(hub.hear(SOON), Heard::Packet(Packet::Disconnect { reason: QUOTA_EXCEEDED }));
    assert_eq!(refusals(api, 3, "gateway", "messages"), 1);
    assert_eq!(refusals(api, 3, "gateway_device", "telemetry_messages"), 2);
}

fn changed(api: &mut Api) {
    let plant = |settings: Value| json!({ "name": "plant", "aliases": ["thingsboard:plant"], "settings": settings });
    let wrong = plant(json!({ "rate-limits": { "device": { "messages": "5" } } }));
    assert_eq!(api.ask(1, "PUT", "/tenants/plant", &wrong).0, 400);
    let (mut meter, _) = device(Version::V5, &register(api, "free")).to(api.cluster.mqtt(1));
    (0..5).for_each(|_| meter.publish_acked(ATTRIBUTES, br#"{"n":1}"#));
    let none = plant(json!({ "plaintext": true, "claims": { "by-default": false } }));
    assert_eq!(api.ask(2, "PUT", "/tenants/plant", &none).0, 200);
    until_true("all nodes know", SOON, || {
        told_limits(&mut meter)["rateLimits"]["messages"] == Value::Null
    });
    (0..20).for_each(|_| meter.publish_acked(ATTRIBUTES, br#"{"n":1}"#));
}

fn claiming(api: &mut Api) {
    let user = User::new(api, "claimer", "operator");
    let (id, token) = user.device(api, "mine");
    let (mut client, _) = device(Version::V4, &token).to(api.cluster.mqtt(3));
    client.publish_acked("v1/devices/me/claim", b"");
    let wish = || {
        let answer = user.ask(api, 1, "POST", "/api/customer/device/mine/claim", &Value::Null);
        (answer.status, answer.json())
    };
    assert_eq!(wish(), (400, json!("FAILURE")));
    let path = format!("/api/plugins/telemetry/DEVICE/{id}/attributes/SERVER_SCOPE");
    let allow = |allowed: Value| {
        let body = json!({ "claimingAllowed": allowed });
        assert_eq!(user.ask(api, 2, "POST", &path, &body).status, 200);
    };
    allow(json!(false));
    assert_eq!(wish(), (400, json!("FAILURE")));
    allow(json!(true));
    assert_eq!(wish().1["response"], "SUCCESS");
}

fn asked(api: &mut Api) {
    let user = User::new(api, "asker", "read-only");
    let list =
        |node| user.ask(api, node, "GET", "/api/tenant/devices?pageSize=1&page=0", &Value::Null);
    assert_eq!(list(1).status, 200);
    let settings = json!({ "plaintext": true, "rate-limits": { "rest": "3:7200" } });
    let plant = json!({ "name": "plant", "aliases": ["thingsboard:plant"], "settings": settings });
    assert_eq!(api.ask(1, "PUT", "/tenants/plant", &plant).0, 200);
    // Three, once the node knows of it.
    until_true("it is too much", SOON, || list(2).status != 200);
    let too_much = list(2);
    refused(&too_much, 429, 33);
    assert_eq!(too_much.json()["message"], "Too many requests for current tenant!");
    assert!(refusals(api, 2, "rest", "messages") >= 2);
    // Devices are not counted with it.
    let token = register(api, "unasked");
    let (mut client, _) = device(Version::V4, &token).to(api.cluster.mqtt(2));
    client.publish_acked(TELEMETRY, br#"{"t":1}"#);
}
