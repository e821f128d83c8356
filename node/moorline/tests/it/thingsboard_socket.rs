//! ThingsBoard's WebSocket API: what integrators subscribe to is pushed, whichever node the device and they are at, while nodes die.
//! And telemetry that they delete.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    harness::{
        api::{Api, text},
        cluster::Shape,
        http,
        mqtt::Client,
        packet::Version,
        scenarios,
        wait::{SOON, until, until_true},
        websocket::{Heard, Socket},
    },
    thingsboard::{device, set},
    thingsboard_rest::{User, password, refused},
};

const TELEMETRY: &str = "v1/devices/me/telemetry";
const POLICY: Option<u16> = Some(1008);
/// A token that is deleted ends a connection within this: it is looked at every ten seconds.
const REVOKED: Duration = Duration::from_secs(20);

/// Opens a connection and says who it is, with the first commands.
#[track_caller]
fn connect(api: &Api, node: u64, user: &User, commands: &[Value]) -> Socket {
    let mut socket = Socket::open(api.at(node, "http"), "/api/ws");
    socket.say(&json!({ "authCmd": { "cmdId": 0, "token": user.token }, "cmds": commands }));
    socket
}

fn command(kind: &str, id: i64, device: &str, more: &Value) -> Value {
    let mut command =
        json!({ "type": kind, "cmdId": id, "entityType": "DEVICE", "entityId": device });
    command.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    command
}

fn series(id: i64, device: &str, keys: &str) -> Value {
    command("TIMESERIES", id, device, &json!({ "scope": "LATEST_TELEMETRY", "keys": keys }))
}

fn pushed(id: i64, data: &Value) -> Value {
    json!({ "subscriptionId": id, "errorCode": 0, "errorMsg": null, "data": data })
}

fn say(client: &mut Client, ts: i64, values: &Value) {
    let said = json!({ "ts": ts, "values": values }).to_string();
    client.publish_acked(TELEMETRY, said.as_bytes());
}

#[test]
fn what_changes_is_pushed() {
    let mut api = Api::start_as(&Shape::of(3), &["http"]);
    api.make_tenants("thingsboard", &["plant", "other"]);
    scenarios(
        &mut api,
        &[
            ("who does not say who it is, or is nobody any more, is closed", strangers),
            ("samples are pushed as they come, and no others", samples),
            ("attributes are pushed as they change", attributes),
            ("the past is asked for, also in the older form", past),
            ("what can't be is refused, and the rest goes on", wrong),
            ("telemetry is deleted, and who looks hears it", deleted),
            ("pushes go on when a leader dies", failover),
        ],
    );
}

fn strangers(api: &mut Api) {
    let at = api.at(1, "http");
    let first = |said: Value| {
        let mut socket = Socket::open(at, "/api/ws");
        socket.say(&said);
        socket.closed(SOON)
    };
    assert_eq!(first(json!({ "cmds": [] })), POLICY);
    assert_eq!(first(json!({ "authCmd": { "cmdId": 0, "token": "x.y.z" } })), POLICY);
    assert_eq!(first(json!({ "authCmd": { "cmdId": 0, "apiKey": "mlt_9_nobody_x" } })), POLICY);
    assert_eq!(first(json!([])), POLICY);
    let mut old = Socket::open(at, "/api/ws/plugins/telemetry?token=x.y.z");
    assert_eq!(old.closed(SOON), POLICY);

    let user = User::new(api, "leaving", "read-only");
    let (id, _) = User::new(api, "leaving-maker", "operator").device(api, "left");
    let key = password(api, "by-key", "read-only");
    let mut by_key = Socket::open(api.at(3, "http"), "/api/ws");
    by_key.say(&json!({ "authCmd": { "cmdId": 0, "apiKey": key }, "cmds": [series(1, &id, "")] }));
    assert_eq!(by_key.next(), pushed(1, &json!({})));
    let mut socket = connect(api, 2, &user, &[series(1, &id, "")]);
    assert_eq!(socket.next(), pushed(1, &json!({})));
    for name in ["leaving", "by-key"] {
        let path = format!("/tokens/{name}?tenant=plant");
        assert_eq!(api.ask(1, "DELETE", &path, &Value::Null).0, 204);
    }
    assert_eq!((socket.closed(REVOKED), by_key.closed(REVOKED)), (POLICY, POLICY));
}

fn samples(api: &mut Api) {
    let user = User::new(api, "samples", "operator");
    let (id, token) = user.device(api, "meter");
    let (mut meter, _) = device(Version::V4, &token).to(api.cluster.mqtt(3));
    say(&mut meter, 1_000, &json!({ "t": 1, "u": 1 }));
    let mut socket = connect(api, 1, &user, &[series(1, &id, "t"), series(2, &id, "")]);
    let mut first = [socket.next(), socket.next()];
    first.sort_by_key(|one| one["subscriptionId"].as_i64());
    let all = json!({ "t": [[1_000, "1"]], "u": [[1_000, "1"]] });
    assert_eq!(first, [pushed(1, &json!({ "t": [[1_000, "1"]] })), pushed(2, &all)]);
    socket.say(&json!({ "cmds": [{ "cmdId": 2, "unsubscribe": true }] }));
    // Each of them, however they are put together.
    for n in 2..=20 {
        say(&mut meter, n * 1_000, &json!({ "t": n }));
    }
    let mut heard = Vec::new();
    while heard.len() < 19 {
        let push = socket.next();
        assert_eq!(push["subscriptionId"], 1, "{push}");
        let mut samples: Vec<_> = push["data"]["t"].as_array().unwrap().clone();
        samples.reverse();
        heard.extend(samples);
    }
    let expected: Vec<_> = (2..=20).map(|n| json!([n * 1_000, n.to_string()])).collect();
    assert_eq!(heard, expected);
    // Another key's, late ones, and those of others are not.
    say(&mut meter, 30_000, &json!({ "u": 2 }));
    say(&mut meter, 500, &json!({ "t": 0 }));
    let (_, token) = user.device(api, "meter2");
    let (mut other, _) = device(Version::V4, &token).to(api.cluster.mqtt(1));
    say(&mut other, 40_000, &json!({ "t": 7 }));
    socket.hears_nothing();
}

fn attributes(api: &mut Api) {
    let user = User::new(api, "attributes-socket", "operator");
    let (id, token) = user.device(api, "valve");
    let scoped = |id: i64, device: &str, scope: &str| {
        command("ATTRIBUTES", id, device, &json!({ "scope": scope, "keys": "a,b" }))
    };
    let mut socket = connect(
        api,
        2,
        &user,
        &[
            scoped(1, &id, "SHARED_SCOPE"),
            scoped(2, &id, "CLIENT_SCOPE"),
            scoped(3, &id, "SERVER_SCOPE"),
        ],
    );
    for _ in 0..3 {
        assert_eq!(socket.next()["data"], json!({}));
    }
    set(api, 1, "valve", &json!({ "a": 5, "c": 6 }));
    let push = socket.next();
    assert_eq!((&push["subscriptionId"], &push["data"]["a"][0][1]), (&json!(1), &json!("5")));
    assert!(push["data"]["a"][0][0].as_i64().unwrap() > 0 && push["data"].get("c").is_none());
    let (mut valve, _) = device(Version::V4, &token).to(api.cluster.mqtt(3));
    valve.publish_acked("v1/devices/me/attributes", br#"{"b":true}"#);
    let push = socket.next();
    assert_eq!((&push["subscriptionId"], &push["data"]["b"][0][1]), (&json!(2), &json!("true")));
    let path = format!("/api/plugins/telemetry/DEVICE/{id}/attributes/SERVER_SCOPE");
    assert_eq!(user.ask(api, 3, "POST", &path, &json!({ "b": "x" })).status, 200);
    let push = socket.next();
    assert_eq!((&push["subscriptionId"], &push["data"]["b"][0][1]), (&json!(3), &json!("x")));
    set(api, 1, "valve", &json!({ "a": null }));
    assert_eq!(socket.next(), pushed(1, &json!({ "a": [[0, ""]] })));
}

fn past(api: &mut Api) {
    let user = User::new(api, "past", "operator");
    let (id, token) = user.device(api, "logger");
    let (mut logger, _) = device(Version::V4, &token).to(api.cluster.mqtt(1));
    for n in 1..=4 {
        say(&mut logger, n * 1_000, &json!({ "t": n }));
    }
    let range = json!({ "keys": "t", "startTs": 1_000, "endTs": 4_000 });
    let mut socket = connect(api, 3, &user, &[command("TIMESERIES_HISTORY", 7, &id, &range)]);
    let expected = json!({ "t": [[3_000, "3"], [2_000, "2"], [1_000, "1"]] });
    assert_eq!(socket.next(), pushed(7, &expected));

    let path = format!("/api/ws/plugins/telemetry?token={}", user.token);
    let mut old = Socket::open(api.at(2, "http"), &path);
    let of = |id: i64, device: &str, more: &Value| {
        let mut command = command("", id, device, more);
        command.as_object_mut().unwrap().remove("type");
        command
    };
    let sums =
        json!({ "keys": "t", "startTs": 1, "endTs": 4_001, "agg": "SUM", "interval": 10_000 });
    old.say(&json!({ "historyCmds": [of(1, &id, &sums)] }));
    assert_eq!(old.next()["data"]["t"][0][1], "10");
    // The past first, and then what is new.
    old.say(&json!({ "tsSubCmds": [of(2, &id, &json!({ "keys": "t", "startTs": 3_000, "timeWindow": 10_000 }))] }));
    assert_eq!(old.next(), pushed(2, &json!({ "t": [[4_000, "4"], [3_000, "3"]] })));
    say(&mut logger, 5_000, &json!({ "t": 5 }));
    assert_eq!(old.next(), pushed(2, &json!({ "t": [[5_000, "5"]] })));
    old.say(&json!({ "attrSubCmds": [of(3, &id, &json!({ "scope": "CLIENT_SCOPE" }))] }));
    assert_eq!(old.next(), pushed(3, &json!({})));
}

fn wrong(api: &mut Api) {
    let user = User::new(api, "wrong", "operator");
    let (id, token) = user.device(api, "right");
    let (foreign, _) = {
        let new = json!({ "name": "o", "role": "admin" });
        let secret = text(&api.ask(1, "POST", "/tokens?tenant=other", &new), 201, "token");
        let login = json!({ "username": "o@example.com", "password": secret }).to_string();
        let answer = http::api("POST", api.at(1, "http"), "/api/auth/login", &[], &login);
        let other = User { token: answer.json()["token"].as_str().unwrap().to_owned() };
        other.device(api, "theirs")
    };
    let mut socket = connect(api, 1, &user, &[]);
    let mut refused = |command: Value| {
        socket.say(&json!({ "cmds": [command] }));
        let push = socket.next();
        assert_eq!(push["data"], json!({}));
        (push["subscriptionId"].as_i64().unwrap(), push["errorCode"].as_i64().unwrap())
    };
    assert_eq!(refused(series(1, &foreign, "t")), (1, 2), "another tenant's");
    assert_eq!(refused(series(2, "no-id", "t")), (2, 2));
    assert_eq!(refused(command("ALARM_COUNT", 3, &id, &json!({}))), (3, 2));
    let mut asset = series(4, &id, "t");
    asset["entityType"] = json!("ASSET");
    assert_eq!(refused(asset), (4, 2));
    assert_eq!(refused(json!({ "cmdId": 5 })), (0, 2));
    let all = json!({ "keys": "t", "startTs": 1, "endTs": 2, "agg": "MEDIAN" });
    assert_eq!(refused(command("TIMESERIES_HISTORY", 6, &id, &all)), (0, 2));
    // As many as there may be, and one more.
    let many: Vec<_> = (0..257).map(|n| series(100 + n, &id, "t")).collect();
    socket.say(&json!({ "cmds": many }));
    let (mut done, mut more) = (0, 0);
    for _ in 0..257 {
        if socket.next()["errorCode"] == 0 { done += 1 } else { more += 1 }
    }
    assert_eq!((done, more), (256, 1));
    let (mut right, _) = device(Version::V4, &token).to(api.cluster.mqtt(2));
    say(&mut right, 1_000, &json!({ "t": 1 }));
    for _ in 0..256 {
        assert_eq!(socket.next()["data"], json!({ "t": [[1_000, "1"]] }));
    }
    // A device that goes is told once.
    let mut one = connect(api, 3, &user, &[series(1, &id, "t")]);
    assert_eq!(one.next()["errorCode"], 0);
    let path = format!("/api/device/{id}");
    assert_eq!(user.ask(api, 2, "DELETE", &path, &Value::Null).status, 200);
    assert_eq!(one.next()["errorCode"], 2);
    one.hears_nothing();
}

fn deleted(api: &mut Api) {
    let user = User::new(api, "deleting", "operator");
    let (id, token) = user.device(api, "wrong-meter");
    let (mut meter, _) = device(Version::V4, &token).to(api.cluster.mqtt(2));
    for n in 1..=6 {
        say(&mut meter, n * 1_000, &json!({ "t": n, "u": n }));
    }
    let mut socket = connect(api, 3, &user, &[series(1, &id, "t,u")]);
    socket.next();
    let of = |what: &str| format!("/api/plugins/telemetry/DEVICE/{id}/{what}");
    let delete = |node, query: &str| {
        user.ask(api, node, "DELETE", &of(&format!("timeseries/delete?{query}")), &Value::Null)
    };
    let times = |node, key: &str| -> Vec<i64> {
        let path = of(&format!("values/timeseries?keys={key}&startTs=0&endTs=99000&orderBy=ASC"));
        let found = user.get(api, node, &path);
        let samples = found.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        samples.iter().map(|one| one["ts"].as_i64().unwrap()).collect()
    };
    let latest = |node| user.get(api, node, &of("values/timeseries?keys=t,u"));
    // A piece in the middle: the latest stay.
    let done = delete(1, "keys=t&startTs=2000&endTs=4000");
    assert_eq!((done.status, done.body.as_str()), (200, ""));
    assert_eq!(times(2, "t"), [1_000, 4_000, 5_000, 6_000]);
    assert_eq!(times(3, "u").len(), 6);
    assert_eq!(latest(3)["t"][0]["value"], "6");
    // The end of it: the newest that is left takes its place.
    let query = "keys=t&startTs=5000&endTs=7000&deleteLatest=true&rewriteLatestIfDeleted=true";
    assert_eq!(delete(2, query).status, 200);
    let renewed = json!([{ "ts": 4_000, "value": "4" }]);
    until_true("it is read", SOON, || latest(1)["t"] == renewed);
    assert_eq!(times(1, "t"), [1_000, 4_000]);
    // Who looks hears that it has gone, or that it is an earlier one: both may be one push.
    until("it is pushed", SOON, || match socket.hear(SOON) {
        Heard::Said(push) => (push["data"]["t"] == json!([[4_000, "4"]])).then_some(()),
        other => panic!("{other:?}"),
    });
    // All of one key.
    assert_eq!(delete(3, "keys=u&deleteAllDataForKeys=true").status, 200);
    assert_eq!((times(1, "u"), times(2, "t").len()), (Vec::new(), 2));
    assert_eq!(latest(2).get("u"), None);
    assert_eq!(socket.next(), pushed(1, &json!({ "u": [[0, ""]] })));
    assert_eq!(delete(1, "keys=t&deleteAllDataForKeys=true&deleteLatest=false").status, 200);
    assert_eq!((times(3, "t"), &latest(3)["t"]), (Vec::new(), &renewed));
    // And what is said afterwards is there.
    say(&mut meter, 9_000, &json!({ "u": 9 }));
    assert_eq!(times(1, "u"), [9_000]);
    refused(&delete(1, "keys=t"), 400, 31);
    refused(&delete(1, "startTs=1&endTs=2"), 400, 31);
    let looks = User::new(api, "deleting-eyes", "read-only");
    let path = of("timeseries/delete?keys=u&deleteAllDataForKeys=true");
    refused(&looks.ask(api, 1, "DELETE", &path, &Value::Null), 403, 20);
}

fn failover(api: &mut Api) {
    let user = User::new(api, "failover", "operator");
    let (id, token) = user.device(api, "survivor");
    let leader = api.cluster.leader(1, 1);
    let other = leader % 3 + 1;
    let mut socket = connect(api, other, &user, &[series(1, &id, "t")]);
    assert_eq!(socket.next(), pushed(1, &json!({})));
    api.cluster.node_mut(leader).kill();
    let (mut survivor, _) = device(Version::V4, &token).to_patiently(api.cluster.mqtt(other));
    say(&mut survivor, 1_000, &json!({ "t": 1 }));
    assert_eq!(socket.next(), pushed(1, &json!({ "t": [[1_000, "1"]] })));
    api.cluster.node_mut(leader).start_ready();
    say(&mut survivor, 2_000, &json!({ "t": 2 }));
    assert_eq!(socket.next(), pushed(1, &json!({ "t": [[2_000, "2"]] })));
}
