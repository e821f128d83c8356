//! ThingsBoard's nodes of Sparkplug B: what one says of itself and of its devices, and what it is told, on whichever node of the cluster.
//! Its protobuf is written here by hand: what reads it is not asked.

use serde_json::{Value, json};

use crate::{
    harness::{
        api::{Api, text},
        cluster::Shape,
        mqtt::{Client, Heard},
        packet::{Connect, Packet, Publish, Version, Will},
        scenarios,
        wait::{SOON, until_true},
    },
    thingsboard::{device, latest, set},
    thingsboard_calls::{comes_to_stand, make},
    thingsboard_rest::User,
};

const INT32: u64 = 3;
const INT64: u64 = 4;
const BOOLEAN: u64 = 11;
const STRING: u64 = 12;

/// A field with an integer.
fn int(field: u8, mut value: u64) -> Vec<u8> {
    let mut bytes = vec![field << 3];
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
    bytes
}

/// A field with bytes, which are few.
fn field(number: u8, inner: &[u8]) -> Vec<u8> {
    let length = u8::try_from(inner.len()).unwrap();
    assert!(length < 0x80, "a length of one byte");
    [&[number << 3 | 2, length], inner].concat()
}

fn metric(parts: &[Vec<u8>]) -> Vec<u8> {
    field(2, &parts.concat())
}

fn named(name: &str, datatype: u64, value: Vec<u8>) -> Vec<u8> {
    metric(&[field(1, name.as_bytes()), int(4, datatype), value])
}

fn bd_seq(number: u64) -> Vec<u8> {
    named("bdSeq", INT64, int(11, number))
}

fn payload(seq: u64, metrics: &[Vec<u8>]) -> Vec<u8> {
    [int(1, 1_700_000_000_000), metrics.concat(), int(3, seq)].concat()
}

/// How a node connects.
fn node(version: Version, token: &str, name: &str) -> Connect {
    let will = Will {
        topic: format!("spBv1.0/plant/NDEATH/{name}"),
        payload: bd_seq(1),
        qos: 1,
        retain: false,
        delay_s: None,
        expiry_s: None,
    };
    Connect { will: Some(will), ..device(version, token) }
}

/// A device of the profile: its access token.
#[track_caller]
fn register(api: &Api, name: &str) -> String {
    let made = json!({ "name": name, "settings": { "type": "spark" } });
    let made = api.ask(1, "POST", "/devices?tenant=plant", &made);
    assert_eq!(made.0, 201, "{}", made.1);
    let path = format!("/devices/{name}/credentials?tenant=plant");
    text(&api.ask(1, "POST", &path, &json!({ "kind": "token" })), 201, "secret")
}

/// Says NBIRTH with `level`, `fw` and, by the alias 9, `on`; and DBIRTH of a device with `t`.
#[track_caller]
fn is_born(client: &mut Client, name: &str, child: &str) {
    let on = metric(&[field(1, b"on"), int(2, 9), int(4, BOOLEAN), int(14, 0)]);
    let own =
        [bd_seq(1), named("level", INT32, int(10, 5)), named("fw", STRING, field(15, b"1.2")), on];
    client.publish_acked(&format!("spBv1.0/plant/NBIRTH/{name}"), &payload(0, &own));
    let of_child = [named("t", INT32, int(10, 20))];
    client.publish_acked(&format!("spBv1.0/plant/DBIRTH/{name}/{child}"), &payload(1, &of_child));
}

#[track_caller]
fn told(client: &mut Client, topic: &str) -> Publish {
    let heard = client.message();
    client.ack(&heard);
    assert_eq!(heard.topic, topic);
    heard
}

fn has(heard: &Publish, part: &[u8]) -> bool {
    heard.payload.windows(part.len()).any(|window| window == part)
}

fn is(api: &Api, at: u64, name: &str, key: &str, value: &Value) -> bool {
    latest(api, at, name)[key]["value"] == *value
}

#[test]
fn a_plant_speaks_sparkplug() {
    let mut api = Api::start_as(&Shape::of(3), &["http"]);
    let tenant = json!({
        "name": "plant", "aliases": ["thingsboard:plant"],
        "settings": { "plaintext": true },
    });
    assert_eq!(api.ask(1, "POST", "/tenants", &tenant).0, 201);
    let user = User::new(&api, "sparkplug", "operator");
    let profile = json!({ "name": "spark", "transportType": "MQTT", "profileData": {
        "transportConfiguration": {
            "type": "MQTT", "sparkplug": true, "sparkplugAttributesMetricNames": ["fw*"],
        },
    } });
    let made = user.ask(&api, 1, "POST", "/api/deviceProfile", &profile);
    assert_eq!(made.status, 200, "{}", made.body);
    scenarios(
        &mut api,
        &[
            ("what a node says of itself and of devices is theirs", says),
            ("certificates come first, and are asked for", asked),
            ("the same of MQTT 3, whose connections stay", asked_of_v4),
            ("who is no node is not heard", no_node),
            ("changes and calls are commands", commands),
            ("who goes is said to be gone", goes),
        ],
    );
}

fn says(api: &mut Api) {
    let token = register(api, "edge1");
    let (mut edge, _) = node(Version::V4, &token, "E1").to(api.cluster.mqtt(1));
    is_born(&mut edge, "E1", "press");
    let own = latest(api, 2, "edge1");
    assert_eq!((&own["level"]["value"], &own["fw"]), (&json!(5), &Value::Null), "{own}");
    assert_eq!(own["level"]["time_ms"], 1_700_000_000_000_i64);
    assert_eq!((&own["NBIRTH bdSeq"]["value"], &own["on"]["value"]), (&json!(1), &json!(false)));
    assert_eq!(own["sparkplugConnectionState"]["value"], "ONLINE");
    let child = latest(api, 3, "press");
    assert_eq!((&child["t"]["value"], &child["DBIRTH seq"]["value"]), (&json!(20), &json!(1)));
    let path = "/devices/press?tenant=plant";
    let (status, record) = api.ask(3, "GET", path, &Value::Null);
    assert_eq!((status, &record["settings"]["type"]), (200, &json!("spark device")), "{record}");
    // An attribute can be set, too: it is a shared one. Who said it is not told it.
    let path = "/devices/edge1/attributes?tenant=plant&scope=shared";
    let shown = api.ask(2, "GET", path, &Value::Null).1.to_string();
    assert!(shown.contains("fw") && shown.contains("1.2"), "{shown}");
    edge.hears_nothing();

    let by_alias = metric(&[int(2, 9), int(14, 1)]);
    edge.publish_acked("spBv1.0/plant/NDATA/E1", &payload(2, &[by_alias]));
    let data = payload(3, &[named("t", INT32, int(10, 21))]);
    edge.publish_acked("spBv1.0/plant/DDATA/E1/press", &data);
    assert!(is(api, 3, "edge1", "on", &json!(true)) && is(api, 1, "press", "t", &json!(21)));
    // Nobody is killed by what is not read.
    edge.publish_acked("v1/devices/me/telemetry", br#"{"x":1}"#);
    assert_eq!(latest(api, 1, "edge1")["x"], Value::Null);
}

fn asked(api: &mut Api) {
    let (token, version) = (register(api, "edge2"), Version::V5);
    let (mut edge, _) = node(version, &token, "E2").to(api.cluster.mqtt(2));
    is_asked(&mut edge, "E2", "drill", version);
    let id = edge.publish("spBv1.0/plant/NDATA/E2", b"\x12\xff");
    assert_eq!(edge.puback(id), 0x99);
    edge.ping();
    // One filter for each of its devices, which are many.
    let filters: Vec<String> =
        (0..100).map(|number| format!("spBv1.0/plant/DCMD/E2/d{number}")).collect();
    let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 1)).collect();
    assert_eq!(edge.subscribe(&filters), [1; 100]);
}

fn asked_of_v4(api: &mut Api) {
    let (token, version) = (register(api, "edge6"), Version::V4);
    let (mut edge, _) = node(version, &token, "E6").to(api.cluster.mqtt(3));
    is_asked(&mut edge, "E6", "plane", version);
    // What can't be read is refused in the only way there is.
    edge.publish("spBv1.0/plant/NDATA/E6", b"\x12\xff");
    assert_eq!(edge.hear(SOON), Heard::Closed);
}

/// Says things before its certificates, and with numbers left out: it is asked, and stays.
#[track_caller]
fn is_asked(edge: &mut Client, name: &str, child: &str, version: Version) {
    // MQTT 3 has no reasons.
    let reason = |reason| if version == Version::V5 { reason } else { 0 };
    let refused = if version == Version::V5 { 0x8f } else { 0x80 };
    let of = |what: &str| format!("spBv1.0/plant/{what}");
    let (own, all) = (of(&format!("NCMD/{name}/#")), of(&format!("DCMD/{name}/+")));
    let filters = [(own.as_str(), 1), (all.as_str(), 2), ("spBv1.0/STATE/scada", 1)];
    assert_eq!(edge.subscribe(&filters), [1, 1, 1]);
    let others = [("spBv1.0/#", 1), ("v1/devices/me/attributes", 1)];
    assert_eq!(edge.subscribe(&others), [refused, refused]);
    let (ndata, ncmd) = (of(&format!("NDATA/{name}")), of(&format!("NCMD/{name}")));
    let data = payload(0, &[named("level", INT32, int(10, 6))]);
    let id = edge.publish(&ndata, &data);
    assert_eq!(edge.puback(id), reason(0x99));
    let heard = told(edge, &ncmd);
    let wanted = field(1, b"Node Control/Rebirth");
    assert!(has(&heard, &wanted) && has(&heard, &[int(4, BOOLEAN), int(14, 1)].concat()));
    is_born(edge, name, child);
    // A number was left out: it is taken, and asked for all the same.
    edge.publish_acked(&ndata, &payload(7, &[]));
    assert!(has(&told(edge, &ncmd), &wanted));
    let unborn = of(&format!("DDATA/{name}/unborn"));
    for (topic, why) in
        [(of("NDATA/other").as_str(), 0x90), (ncmd.as_str(), 0x90), (unborn.as_str(), 0x99)]
    {
        let id = edge.publish(topic, &data);
        assert_eq!(edge.puback(id), reason(why), "{topic}");
    }
}

fn no_node(api: &mut Api) {
    let token = register(api, "edge3");
    let to = api.cluster.mqtt(3);
    let good = node(Version::V4, &token, "E3");
    let will = good.will.clone().unwrap();
    let topic = "spBv1.0/plant/NBIRTH/E3".to_owned();
    for wrong in [
        None,
        Some(Will { topic, ..will.clone() }),
        Some(Will { qos: 0, ..will.clone() }),
        Some(Will { payload: b"\x12\xff".to_vec(), ..will }),
    ] {
        let (mut client, _) = Connect { will: wrong.clone(), ..good.clone() }.to(to);
        assert_eq!(client.hear(SOON), Heard::Closed, "{wrong:?}");
    }
    let (mut client, _) = good.to(to);
    client.publish_acked("spBv1.0/plant/NBIRTH/E3", &payload(0, &[bd_seq(1)]));
}

fn commands(api: &mut Api) {
    let token = register(api, "edge4");
    // One call comes before the node does.
    let call = json!({ "method": "NCMD", "timeout_ms": 60_000,
        "params": { "metricName": "on", "value": true } });
    // Before it as many as go out at once, none of which can be a command.
    let wrong = json!({ "method": "reboot", "timeout_ms": 60_000, "params": {} });
    let wrong: Vec<_> = (0..32).map(|_| make(api, 2, "edge4", &wrong)).collect();
    let early = make(api, 2, "edge4", &call);
    let (mut edge, _) = node(Version::V5, &token, "E4").to(api.cluster.mqtt(1));
    is_born(&mut edge, "E4", "lathe");
    let heard = told(&mut edge, "spBv1.0/plant/NCMD/E4");
    assert!(has(&heard, &int(2, 9)) && has(&heard, &[int(4, BOOLEAN), int(14, 1)].concat()));
    let done = json!({ "result": "Success: NCMD" });
    assert_eq!(comes_to_stand(api, 3, "edge4", &early, "successful"), done);
    let why = comes_to_stand(api, 1, "edge4", &wrong[31], "failed");
    assert_eq!(why["result"], "INVALID_ARGUMENTS", "{why}");

    set(api, 3, "edge4", &json!({ "level": 7, "unknown": 1 }));
    let heard = told(&mut edge, "spBv1.0/plant/NCMD/E4");
    assert!(has(&heard, &field(1, b"level")));
    assert!(has(&heard, &[int(4, INT32), int(10, 7)].concat()));
    set(api, 2, "edge4", &json!({ "fw": "2.0" }));
    assert!(has(&told(&mut edge, "spBv1.0/plant/NCMD/E4"), &field(15, b"2.0")));
    set(api, 1, "lathe", &json!({ "t": 30 }));
    let heard = told(&mut edge, "spBv1.0/plant/DCMD/E4/lathe");
    assert!(has(&heard, &[int(4, INT32), int(10, 30)].concat()));

    let call = json!({ "method": "DCMD", "timeout_ms": 60_000,
        "params": { "metricName": "t", "value": 31 } });
    let id = make(api, 3, "lathe", &call);
    let heard = told(&mut edge, "spBv1.0/plant/DCMD/E4/lathe");
    assert!(has(&heard, &int(10, 31)));
    let done = json!({ "result": "Success: DCMD" });
    assert_eq!(comes_to_stand(api, 2, "lathe", &id, "successful"), done);
    let call = json!({ "method": "DCMD", "timeout_ms": 60_000,
        "params": { "metricName": "none", "value": 31 } });
    let id = make(api, 3, "lathe", &call);
    let why = comes_to_stand(api, 1, "lathe", &id, "failed");
    assert_eq!(why["result"], "BAD_REQUEST_PARAMS", "{why}");
}

fn goes(api: &mut Api) {
    let token = register(api, "edge5");
    let offline = json!("OFFLINE");
    let state = "sparkplugConnectionState";
    let (mut edge, _) = node(Version::V5, &token, "E5").to(api.cluster.mqtt(2));
    is_born(&mut edge, "E5", "saw");
    edge.publish_acked("spBv1.0/plant/DDEATH/E5/saw", &payload(2, &[]));
    assert!(is(api, 1, "saw", state, &offline) && is(api, 1, "edge5", state, &json!("ONLINE")));
    is_born(&mut edge, "E5", "saw");
    assert!(is(api, 3, "saw", state, &json!("ONLINE")));
    // By word, with the number of its birth; and without one.
    let id = edge.publish("spBv1.0/plant/NDEATH/E5", &bd_seq(2));
    assert_eq!(edge.puback(id), 0x99);
    edge.publish_acked("spBv1.0/plant/NDEATH/E5", &bd_seq(1));
    let both =
        |api: &Api| is(api, 1, "saw", state, &offline) && is(api, 3, "edge5", state, &offline);
    until_true("both are gone", SOON, || both(api));
    is_born(&mut edge, "E5", "saw");
    assert!(!both(api));
    drop(edge);
    until_true("both are gone with the connection", SOON, || both(api));
    // Who takes over is there.
    let (mut edge, _) = node(Version::V5, &token, "E5").to(api.cluster.mqtt(3));
    is_born(&mut edge, "E5", "saw");
    edge.publish_acked("spBv1.0/plant/DBIRTH/E5/lost", &payload(2, &[]));
    assert!(is(api, 1, "lost", state, &json!("ONLINE")));
    let (mut again, _) = node(Version::V5, &token, "E5").to(api.cluster.mqtt(1));
    assert!(matches!(edge.hear(SOON), Heard::Packet(Packet::Disconnect { .. })));
    is_born(&mut again, "E5", "saw");
    again.ping();
    // What only the earlier one bore is gone; what both did is there, whichever of them is written first.
    until_true("it is gone", SOON, || is(api, 2, "lost", state, &offline));
    assert!(is(api, 2, "edge5", state, &json!("ONLINE")));
    assert!(is(api, 3, "saw", state, &json!("ONLINE")));
}
