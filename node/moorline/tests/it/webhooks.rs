//! Webhooks: a receiver on this machine gets what devices say, signed, in order, at least once, whoever dies.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};

use crate::harness::{
    api::{Api, problem, text},
    cluster::Shape,
    http, scenarios,
    wait::{READY, SOON, until, until_true},
};

/// A request as the receiver got it.
#[derive(Debug, Clone)]
struct Got {
    path: String,
    /// In lower case.
    head: String,
    body: String,
    /// What it was answered.
    status: u16,
}

impl Got {
    #[track_caller]
    fn header(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        let found = self.head.lines().find_map(|line| line.strip_prefix(prefix.as_str()));
        found.unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// What the receiver heard, and what it answers next, by path.
#[derive(Debug, Default)]
struct Heard {
    got: Vec<Got>,
    /// These first; then 200.
    answers: BTreeMap<String, Vec<u16>>,
}

/// A receiver: its threads end with their connections, and with the process.
struct Receiver {
    address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::<Mutex<Heard>>::default();
        let all = Arc::clone(&heard);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let heard = Arc::clone(&all);
                stream.set_read_timeout(Some(4 * SOON)).unwrap();
                thread::spawn(move || serve(stream, &heard));
            }
        });
        Self { address, heard }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn answers(&self, path: &str, statuses: &[u16]) {
        self.heard.lock().unwrap().answers.insert(path.to_owned(), statuses.to_vec());
    }

    /// All that came for a path.
    fn got(&self, path: &str) -> Vec<Got> {
        let heard = self.heard.lock().unwrap();
        heard.got.iter().filter(|got| got.path == path).cloned().collect()
    }

    #[track_caller]
    fn wait_for(&self, path: &str, many: usize) -> Vec<Got> {
        until(&format!("{many} requests for {path}"), READY, || {
            Some(self.got(path)).filter(|got| got.len() >= many)
        })
    }
}

/// Answers one request after the other.
fn serve(stream: TcpStream, heard: &Mutex<Heard>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !stream.read_line(&mut head).is_ok_and(|read| read > 0) {
                return;
            }
        }
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let head = head.to_ascii_lowercase();
        let length = head.split_once("content-length: ").and_then(|(_, rest)| rest.lines().next());
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        let status = {
            let mut heard = heard.lock().unwrap();
            let next = heard.answers.get_mut(&path).filter(|next| !next.is_empty());
            let status = next.map_or(200, |next| next.remove(0));
            let body = String::from_utf8_lossy(&body).into_owned();
            heard.got.push(Got { path, head, body, status });
            status
        };
        let whole = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
        if stream.get_mut().write_all(whole.as_bytes()).is_err() {
            return;
        }
    }
}

/// A cluster whose nodes may ask this machine, with two tenants, and a receiver.
struct Site {
    api: Api,
    receiver: Receiver,
}

impl Site {
    #[track_caller]
    fn start() -> Self {
        let extra = "[outward]\nallow = [\"127.0.0.0/8\"]\n".to_owned();
        let api = Api::start_as(&Shape { extra, ..Shape::of(3) }, &[]);
        for tenant in ["acme", "other"] {
            let (status, made) = api.ask(1, "POST", "/tenants", &json!({ "name": tenant }));
            assert_eq!(status, 201, "{made}");
        }
        Self { api, receiver: Receiver::start() }
    }

    #[track_caller]
    fn device(&self, name: &str, labels: &[&str]) {
        let body = json!({ "name": name, "settings": { "labels": labels } });
        let (status, made) = self.api.ask(1, "POST", "/devices?tenant=acme", &body);
        assert_eq!(status, 201, "{made}");
    }

    /// Makes a webhook for a path that is its name; its secret.
    #[track_caller]
    fn webhook(&self, name: &str, more: &Value) -> String {
        let mut body = json!({ "name": name, "url": self.receiver.url(&format!("/{name}")) });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        text(&self.api.ask(1, "POST", "/webhooks?tenant=acme", &body), 201, "secret")
    }

    #[track_caller]
    fn ask(&self, node: u64, method: &str, path: &str, body: &Value) -> Value {
        let path = format!("/webhooks{path}?tenant=acme");
        let (status, said) = self.api.ask(node, method, &path, body);
        assert!(status < 300, "{method} {path}: {status} {said}");
        said
    }

    fn status(&self, node: u64, name: &str) -> Value {
        self.ask(node, "GET", &format!("/{name}/status"), &Value::Null)
    }

    #[track_caller]
    fn says(&self, node: u64, device: &str, channel: &str, n: u64) {
        let path = format!("/devices/{device}/events?tenant=acme");
        let event = json!({ "type": "datapoint", "channel": channel, "data": { "n": n } });
        let (status, said) = self.api.ask(node, "POST", &path, &event);
        assert_eq!(status, 201, "{said}");
    }
}

#[test]
fn webhooks_are_sent() {
    scenarios(
        &mut Site::start(),
        &[
            ("an event comes once, signed, as the stream says it", delivers),
            ("only what is wanted comes", filters),
            ("what the receiver could not take comes again, and what is behind it waits", recovers),
            ("a receiver that is gone pauses its webhook, and nothing is lost", pauses),
            ("several events come in one request", batches),
            ("a webhook is changed, tested and forgotten", changes),
            ("private addresses are refused, and counted", refuses),
            ("a tenant sees nothing of another's webhooks", isolates),
        ],
    );
}

fn delivers(site: &mut Site) {
    site.device("pump-1", &[]);
    let headers = json!({ "Authorization": "Bearer canary-7" });
    let secret = site.webhook("first", &json!({ "headers": headers }));
    assert!(secret.starts_with("mlw_"), "{secret}");
    site.says(2, "pump-1", "env", 1);
    let got = site.receiver.wait_for("/first", 1)[0].clone();
    assert_eq!(got.header("authorization"), "bearer canary-7", "heads are kept in lower case");
    assert_eq!(got.header("content-type"), "application/cloudevents+json");
    assert_eq!((got.header("moorline-webhook"), got.header("moorline-attempt")), ("first", "1"));
    let event = got.json();
    assert_eq!(event["type"], "moorline.datapoint");
    assert_eq!(event["source"], "/tenants/acme/devices/pump-1");
    assert_eq!((&event["subject"], &event["data"]), (&json!("env"), &json!({ "n": 1 })));
    assert_eq!(event["id"], got.header("moorline-delivery"));
    let signature = got.header("moorline-signature").to_owned();
    let at = signature.strip_prefix("t=").unwrap().split(',').next().unwrap().parse().unwrap();
    let expected = moorline_webhooks::signature(secret.as_bytes(), at, got.body.as_bytes());
    assert_eq!(signature, expected);
    until_true("it is settled", SOON, || {
        let status = site.status(3, "first");
        status["lag"] == 0 && status["delivered"] == 1
    });
    // Neither the secret nor the header's value is read back, by anybody.
    for (node, path) in [(1, ""), (2, "/first"), (3, "/first/status")] {
        let said = site.ask(node, "GET", path, &Value::Null).to_string();
        assert!(!said.contains("canary-7") && !said.contains(&secret), "{said}");
    }
    let shown = site.ask(1, "GET", "/first", &Value::Null);
    assert_eq!(shown["headers"], json!(["authorization"]), "{shown}");
    assert_eq!(site.receiver.got("/first").len(), 1);
}

fn filters(site: &mut Site) {
    site.device("pump-n", &["north"]);
    site.device("pump-s", &["south"]);
    site.webhook("north", &json!({ "filter": { "labels": ["north"] } }));
    site.webhook("env", &json!({ "filter": { "channels": ["env*"], "devices": ["pump-*"] } }));
    site.webhook("offline", &json!({ "filter": { "types": ["presence.offline"] } }));
    // In one shard each: what comes last says that all before it came.
    for (device, n) in [("pump-s", 1), ("pump-n", 2)] {
        site.says(1, device, "log", n);
        site.says(2, device, "env/room", n + 10);
    }
    let of = |path: &str| {
        let got = site.receiver.got(path);
        got.iter().map(|got| got.json()["data"]["n"].as_u64().unwrap()).collect::<BTreeSet<_>>()
    };
    until_true("north", SOON, || of("/north") == [2, 12].into());
    until_true("env", SOON, || of("/env") == [11, 12].into());
    until_true("all of it was looked at", SOON, || site.status(1, "offline")["lag"] == 0);
    assert_eq!(site.receiver.got("/offline").len(), 0);
    let wrong = json!({ "name": "x", "url": "http://a.example/", "filter": { "types": ["x"] } });
    let refused = site.api.ask(1, "POST", "/webhooks?tenant=acme", &wrong);
    assert_eq!(problem(refused), (400, "malformed".to_owned()));
}

fn recovers(site: &mut Site) {
    site.device("pump-r", &[]);
    site.receiver.answers("/recovers", &[500, 503, 429]);
    site.webhook("recovers", &json!({}));
    for n in 1..=3 {
        site.says(1, "pump-r", "env", n);
    }
    let failing = until("it says what fails", SOON, || {
        let failing = site.status(2, "recovers")["failing"].clone();
        failing.as_object()?.values().next().cloned()
    });
    assert!(failing["why"].as_str().unwrap().starts_with("the receiver answered "), "{failing}");
    let got = site.receiver.wait_for("/recovers", 6);
    let said = |got: &Got| {
        let attempt: u64 = got.header("moorline-attempt").parse().unwrap();
        (got.json()["data"]["n"].as_u64().unwrap(), attempt, got.status)
    };
    let expected = [(1, 1, 500), (1, 2, 503), (1, 3, 429), (1, 4, 200), (2, 1, 200), (3, 1, 200)];
    assert_eq!(got.iter().map(said).collect::<Vec<_>>(), expected);
    let ids: BTreeSet<_> =
        got[..4].iter().map(|got| got.header("moorline-delivery").to_owned()).collect();
    assert_eq!(ids.len(), 1, "a receiver knows a repeat");
    until_true("it goes well again", SOON, || {
        let status = site.status(3, "recovers");
        status["failing"] == json!({}) && status["lag"] == 0
    });
}

fn pauses(site: &mut Site) {
    site.device("pump-g", &[]);
    site.receiver.answers("/gone", &[410]);
    site.webhook("gone", &json!({ "filter": { "devices": ["pump-g"] } }));
    site.says(1, "pump-g", "env", 1);
    let status = until("it is paused", SOON, || {
        Some(site.status(2, "gone")).filter(|status| status["paused"] == true)
    });
    assert_eq!(status["paused_because"], "the receiver answered 410", "{status}");
    site.says(2, "pump-g", "env", 2);
    let (status, shown) =
        site.api.ask(3, "PATCH", "/webhooks/gone?tenant=acme", &json!({ "paused": false }));
    assert_eq!((status, &shown["paused_because"]), (200, &Value::Null), "{shown}");
    let got = site.receiver.wait_for("/gone", 3);
    let n: Vec<_> = got.iter().map(|got| (got.json()["data"]["n"].clone(), got.status)).collect();
    assert_eq!(n, [(json!(1), 410), (json!(1), 200), (json!(2), 200)]);
}

fn batches(site: &mut Site) {
    site.device("pump-b", &[]);
    let more = json!({
        "batch_max": 3, "paused": true, "filter": { "devices": ["pump-b"], "types": ["datapoint"] },
    });
    site.webhook("batches", &more);
    for n in 1..=5 {
        site.says(1, "pump-b", "env", n);
    }
    site.ask(2, "PATCH", "/batches", &json!({ "paused": false }));
    let got = site.receiver.wait_for("/batches", 2);
    let of = |got: &Got| -> Vec<u64> {
        let list = got.json();
        let list = list.as_array().unwrap().iter();
        list.map(|event| event["data"]["n"].as_u64().unwrap()).collect()
    };
    assert_eq!(got.iter().map(of).collect::<Vec<_>>(), [vec![1, 2, 3], vec![4, 5]]);
    assert_eq!(got[0].header("content-type"), "application/cloudevents-batch+json");
}

fn changes(site: &mut Site) {
    site.device("pump-c", &[]);
    site.webhook("changes", &json!({ "filter": { "devices": ["pump-c"] } }));
    let again = json!({ "name": "changes", "url": site.receiver.url("/changes") });
    let again = site.api.ask(2, "POST", "/webhooks?tenant=acme", &again);
    assert_eq!(problem(again), (409, "exists".to_owned()));
    let tested = site.ask(3, "POST", "/changes/test", &Value::Null);
    assert_eq!((&tested["ok"], &tested["status"]), (&json!(true), &json!(200)), "{tested}");
    let got = site.receiver.wait_for("/changes", 1)[0].clone();
    assert_eq!(got.json()["type"], "moorline.test");
    let patch = json!({ "url": site.receiver.url("/changed"), "headers": { "X-Site": "roof" } });
    let shown = site.ask(1, "PATCH", "/changes", &patch);
    assert_eq!(shown["headers"], json!(["x-site"]), "{shown}");
    site.says(1, "pump-c", "env", 1);
    let seen = || [site.receiver.got("/changed"), site.receiver.got("/changes")].concat();
    until_true("it comes", SOON, || seen().iter().any(|got| got.json()["data"]["n"] == 1));
    until_true("it goes there from then on", SOON, || {
        site.says(1, "pump-c", "env", 2);
        site.receiver.got("/changed").iter().any(|got| got.header("x-site") == "roof")
    });
    site.ask(2, "DELETE", "/changes", &Value::Null);
    let gone = site.api.ask(3, "GET", "/webhooks/changes?tenant=acme", &Value::Null);
    assert_eq!(gone.0, 404);
    until_true("its consumer group is gone", SOON, || {
        let (_, groups) = site.api.ask(1, "GET", "/consumers?tenant=acme", &Value::Null);
        !groups.to_string().contains("webhook:changes:")
    });
}

fn refuses(site: &mut Site) {
    let counted = |node: u64| {
        let text = http::get(site.api.cluster.node(node).admin, "/metrics").unwrap().body;
        let name = "moorline_outward_refused_total{reason=\"address\"} ";
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.parse::<u64>().unwrap()
    };
    let before = counted(2);
    for url in ["http://10.0.0.1/", "http://169.254.169.254/latest/meta-data", "http://[::1]/"] {
        let body = json!({ "name": "private", "url": url });
        let (status, said) = site.api.ask(2, "POST", "/webhooks?tenant=acme", &body);
        assert_eq!((status, &said["code"]), (400, &json!("url-blocked")), "{url}: {said}");
        assert_eq!(said["detail"], "url: no address of the host may be asked");
    }
    assert_eq!(counted(2), before + 3);
    for (url, header) in [("ftp://a.example/", "x-a"), ("http://a.example/", "host")] {
        let body = json!({ "name": "wrong", "url": url, "headers": { (header): "x" } });
        let (status, said) = site.api.ask(2, "POST", "/webhooks?tenant=acme", &body);
        assert_eq!(status, 400, "{said}");
    }
}

fn isolates(site: &mut Site) {
    let make = |tenant: &str, role: &str| {
        let body = json!({ "name": format!("{tenant}-{role}"), "role": role });
        let path = format!("/tokens?tenant={tenant}");
        text(&site.api.ask(1, "POST", &path, &body), 201, "token")
    };
    let (own, other, app) =
        (make("acme", "operator"), make("other", "operator"), make("acme", "app"));
    let ask = |token: &str, method: &str, path: &str| {
        site.api.ask_as(token, 2, method, path, &Value::Null).0
    };
    assert_eq!(ask(&own, "GET", "/webhooks/first"), 200);
    for (method, path) in [
        ("GET", "/webhooks/first"),
        ("GET", "/webhooks/first/status"),
        ("POST", "/webhooks/first/test"),
        ("DELETE", "/webhooks/first"),
        ("GET", "/webhooks?tenant=acme"),
        ("GET", "/webhooks/first?tenant=acme"),
    ] {
        assert_eq!(ask(&other, method, path), 404, "{method} {path}");
        let path = path.replace("?tenant=acme", "");
        assert_eq!(ask(&app, method, &path), 403, "{method} {path}");
    }
    let (status, list) = site.api.ask_as(&other, 2, "GET", "/webhooks", &Value::Null);
    assert_eq!((status, list), (200, json!([])));
}

/// Devices of the test that hurts.
const DEVICES: [&str; 4] = ["a", "b", "c", "d"];

#[test]
fn a_webhook_goes_on_when_its_node_dies() {
    let mut site = Site::start();
    DEVICES.iter().for_each(|device| site.device(device, &[]));
    let secret = site.webhook("flow", &json!({ "timeout_ms": 2_000 }));
    let say = |site: &Site, node: u64, from: u64, to: u64| {
        for n in from..to {
            for device in DEVICES {
                let path = format!("/devices/{device}/events?tenant=acme");
                let event = json!({ "type": "datapoint", "data": { "n": n } });
                // Leaders die on the way: what is not answered is said again.
                until_true("an event is taken", READY, || {
                    site.api.ask(node, "POST", &path, &event).0 == 201
                });
            }
        }
    };
    say(&site, 1, 0, 10);
    site.receiver.wait_for("/flow", 1);
    let node = until("its node says so", SOON, || {
        site.status(1, "flow")["node"].as_u64().filter(|node| *node > 0)
    });
    let other = site.api.cluster.others(node)[0];
    site.api.cluster.node_mut(node).kill();
    say(&site, other, 10, 30);
    let upto = |site: &Site, last: u64| {
        let seen = seen(&site.receiver);
        DEVICES.iter().all(|device| seen.get(*device).is_some_and(|seen| seen.contains(&last)))
    };
    until_true("all of it is there", 2 * READY, || upto(&site, 29));
    in_order(&site.receiver, 30);
    let now = until("another node says so", READY, || {
        site.status(other, "flow")["node"].as_u64().filter(|now| *now != node)
    });
    assert_ne!(now, node);
    site.api.cluster.node_mut(node).start_ready();
    // All of them at once: what was configured is on their disks.
    let before = site.ask(other, "GET", "/flow", &Value::Null);
    site.api.cluster.kill_all();
    site.api.cluster.nodes_mut().iter_mut().for_each(|node| node.start());
    site.api.cluster.wait_ready();
    assert_eq!(site.ask(node, "GET", "/flow", &Value::Null), before);
    say(&site, 1, 30, 35);
    until_true("it goes on", 2 * READY, || upto(&site, 34));
    in_order(&site.receiver, 35);
    for got in site.receiver.got("/flow") {
        let signature = got.header("moorline-signature");
        let at = signature.strip_prefix("t=").unwrap().split(',').next().unwrap().parse().unwrap();
        let own = moorline_webhooks::signature(secret.as_bytes(), at, got.body.as_bytes());
        assert_eq!(signature, own);
    }
}

/// What came of each device, in the order in which it came.
fn seen(receiver: &Receiver) -> BTreeMap<String, Vec<u64>> {
    let mut seen = BTreeMap::<String, Vec<u64>>::new();
    for got in receiver.got("/flow") {
        let event = got.json();
        let device = event["device"].as_str().unwrap().to_owned();
        seen.entry(device).or_default().push(event["data"]["n"].as_u64().unwrap());
    }
    seen
}

/// Each device's events came in order, the first time they came, and none is missing.
#[track_caller]
fn in_order(receiver: &Receiver, many: u64) {
    for (device, seen) in seen(receiver) {
        let mut first = Vec::new();
        for n in seen {
            if !first.contains(&n) {
                first.push(n);
            }
        }
        assert!(first.iter().copied().eq(0..many), "{device}: {first:?}");
    }
}
