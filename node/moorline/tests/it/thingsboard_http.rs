//! ThingsBoard's devices over HTTP: what they say, ask and wait for, on whichever node, while nodes die.

use std::{
    net::SocketAddr,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    harness::{
        api::Api,
        http::{self, Answer},
        scenarios,
        wait::{SOON, until_true},
    },
    thingsboard::{latest, register, set},
};

/// Longer than any test waits for a change.
const LONG_MS: u64 = 60_000;
/// How long a poll for nothing waits here.
const SHORT_MS: u64 = 300;

/// A device, as it asks.
#[derive(Clone)]
struct Device {
    token: String,
}

impl Device {
    #[track_caller]
    fn new(api: &Api, name: &str) -> Self {
        Self { token: register(api, name) }
    }

    fn path(&self, what: &str) -> String {
        format!("/api/v1/{}/{what}", self.token)
    }

    #[track_caller]
    fn post(&self, to: SocketAddr, what: &str, body: &str) -> Answer {
        http::api("POST", to, &self.path(what), &[], body)
    }

    #[track_caller]
    fn get(&self, to: SocketAddr, what: &str) -> Answer {
        http::api("GET", to, &self.path(what), &[], "")
    }

    /// Waits for a change elsewhere.
    fn poll(&self, to: SocketAddr, timeout_ms: u64) -> JoinHandle<Answer> {
        let device = self.clone();
        let (begun, begins) = mpsc::channel();
        let polling = thread::spawn(move || {
            begun.send(()).unwrap();
            device.get(to, &format!("attributes/updates?timeout={timeout_ms}"))
        });
        begins.recv_timeout(SOON).unwrap();
        polling
    }
}

#[track_caller]
fn changed(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

#[test]
fn a_plant_moves_in_by_http() {
    let mut api = Api::start_as(&crate::harness::cluster::Shape::of(3), &["http"]);
    let tenant = json!({ "name": "plant", "aliases": ["thingsboard:plant"] });
    assert_eq!(api.ask(1, "POST", "/tenants", &tenant).0, 201);
    scenarios(
        &mut api,
        &[
            ("telemetry is kept on a majority", telemetry),
            ("attributes are reported and asked for", attributes),
            ("nothing is lost between two polls", polls),
            ("what is wrong is said", refusals),
            ("who may not stay does not wait on", revoked),
        ],
    );
}

fn telemetry(api: &mut Api) {
    let meter = Device::new(api, "http-meter");
    let at = |api: &Api, node| api.at(node, "http");
    let body = r#"{"ts":1451649600512,"values":{"t":25,"old":1}}"#;
    let said = meter.post(at(api, 1), "telemetry", body);
    assert_eq!((said.status, said.body.as_str()), (200, ""));
    assert_eq!(meter.post(at(api, 2), "telemetry", r#"[{"t":26},{"ok":true}]"#).status, 200);
    assert_eq!(meter.post(at(api, 3), "telemetry", "{}").status, 200, "a test of the connection");
    let shown = latest(api, 3, "http-meter");
    assert_eq!((&shown["t"]["value"], &shown["old"]["value"]), (&json!(26), &json!(1)));

    // It was answered: so it is there when its leader is not.
    let leader = api.cluster.leader(1, 1);
    api.cluster.node_mut(leader).kill();
    let other = if leader == 2 { 3 } else { 2 };
    until_true("it is read elsewhere", SOON, || {
        let path = "/devices/http-meter/telemetry?tenant=plant&keys=t";
        api.ask(other, "GET", path, &Value::Null).1["values"]["t"][0]["value"] == 26
    });
    api.cluster.node_mut(leader).start_ready();
}

fn attributes(api: &mut Api) {
    let (valve, to) = (Device::new(api, "http-valve"), api.at(3, "http"));
    assert_eq!(valve.get(to, "attributes").json(), json!({}));
    set(api, 2, "http-valve", &json!({ "interval": 10, "mode": "eco" }));
    assert_eq!(valve.post(to, "attributes", r#"{"fw":"1.2","n":7}"#).status, 200);
    let all =
        json!({ "client": { "fw": 1.2, "n": 7 }, "shared": { "interval": 10, "mode": "eco" } });
    assert_eq!(valve.get(to, "attributes").json(), all);
    // As the vendor's SDK asks: by names that mean nothing.
    assert_eq!(valve.get(to, "attributes?client_keys=n&shared_keys=mode").json(), all);
    assert_eq!(
        valve.get(to, "attributes?clientKeys=n,none&sharedKeys=mode").json(),
        json!({ "client": { "n": 7 }, "shared": { "mode": "eco" } })
    );
}

fn polls(api: &mut Api) {
    let lamp = Device::new(api, "http-lamp");
    let at = |node| api.at(node, "http");
    set(api, 1, "http-lamp", &json!({ "before": 1 }));
    let short = format!("attributes/updates?timeout={SHORT_MS}");
    let begun = Instant::now();
    assert_eq!(lamp.get(at(1), &short).status, 408, "it was told of nothing before it asked");
    assert!(begun.elapsed() >= Duration::from_millis(SHORT_MS));

    // While it waits, from whichever node.
    let polling = lamp.poll(at(2), LONG_MS);
    set(api, 3, "http-lamp", &json!({ "level": 3 }));
    assert_eq!(changed(&polling.join().unwrap()), json!({ "level": 3 }));

    // Between two polls, at other nodes, with the shard's leader killed in between.
    set(api, 1, "http-lamp", &json!({ "level": 4, "on": true }));
    set(api, 1, "http-lamp", &json!({ "before": null }));
    until_true("what was told is noted", SOON, || {
        let answer = lamp.get(at(3), &short);
        answer.status == 200
            && answer.json() == json!({ "level": 4, "on": true, "deleted": ["before"] })
    });
    until_true("it is told once", SOON, || lamp.get(at(1), &short).status == 408);
    set(api, 2, "http-lamp", &json!({ "level": 5 }));
    let leader = api.cluster.leader(1, 1);
    let other = leader % 3 + 1;
    let to = api.at(other, "http");
    api.cluster.node_mut(leader).kill();
    until_true("it is told by the next leader", SOON, || {
        let answer = lamp.get(to, "attributes/updates?timeout=5000");
        answer.status == 200 && answer.json() == json!({ "level": 5 })
    });
    api.cluster.node_mut(leader).start_ready();
}

fn refusals(api: &mut Api) {
    let (device, to) = (Device::new(api, "http-odd"), api.at(1, "http"));
    let stranger = Device { token: "nobodys-token".to_owned() };
    let said = stranger.post(to, "telemetry", "{}");
    assert_eq!((said.status, said.body.as_str()), (401, ""));
    let cases = [
        ("POST", "telemetry", "not json", 400),
        ("POST", "telemetry", "[1,2]", 400),
        ("POST", "attributes", "[]", 400),
        ("PUT", "telemetry", "{}", 405),
        ("GET", "telemetry", "", 405),
        ("POST", "nothing", "{}", 404),
        ("POST", "rpc/one", "{}", 400),
        ("POST", "rpc/1", "{}", 200),
        ("GET", "rpc?timeout=100", "", 408),
        ("GET", "firmware?title=a&version=1", "", 404),
        ("GET", "software", "", 404),
    ];
    for (method, what, body, status) in cases {
        let answer = http::api(method, to, &device.path(what), &[], body);
        assert_eq!(answer.status, status, "{method} {what} {body}: {}", answer.body);
    }
    let large = format!(r#"{{"t":"{}"}}"#, "x".repeat(300 * 1024));
    let answer = device.post(to, "telemetry", &large);
    assert_eq!((answer.status, &answer.json()["status"]), (413, &json!(413)));
    let answer = device.post(to, "telemetry", &format!(r#"{{"{}":1}}"#, "k".repeat(2_000)));
    assert_eq!(answer.status, 400, "{}", answer.body);
    // The vendor's own method.
    let call = r#"{"method":"getSessionLimits","params":{}}"#;
    assert_eq!(device.post(to, "rpc", call).json()["maxPayloadSize"], 65_536);
    let provision = r#"{"provisionDeviceKey":"k","provisionDeviceSecret":"s"}"#;
    let answer = http::api("POST", to, "/api/v1/provision", &[], provision);
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("NOT_FOUND")));
}

fn revoked(api: &mut Api) {
    let device = Device::new(api, "http-gone");
    let polling = device.poll(api.at(2, "http"), LONG_MS);
    let of = "/devices/http-gone?tenant=plant";
    until_true("it is there", SOON, || {
        api.ask(1, "GET", of, &Value::Null).1["presence"]["state"] == "connected"
    });
    assert_eq!(api.ask(3, "DELETE", of, &Value::Null).0, 204);
    assert_eq!(polling.join().unwrap().status, 403);
    assert_eq!(device.post(api.at(1, "http"), "telemetry", "{}").status, 401);
}
