//! Drogue's endpoints outside the cluster: those of publish rules, and those of devices that want their commands there.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned, crypto::aws_lc_rs, pki_types::PrivateKeyDer,
};
use serde_json::{Value, json};

use crate::harness::{
    api::{Api, text},
    cluster::Shape,
    http::{self, Answer},
    packet::{Connect, Version},
    scenarios,
    wait::{SOON, until},
};

/// What endpoints of the test may be at most, and what they answer besides.
const ANSWER_BYTES_MAX: usize = 4_096;
/// How long rules wait for an endpoint that says nothing.
const SLOW: &str = "500ms";
/// How long an endpoint takes that is late.
const LATE: Duration = Duration::from_secs(3);

/// A request as an endpoint heard it: head in lower case, and body.
#[derive(Debug, Clone)]
struct Asked {
    head: String,
    body: String,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(prefix.as_str()))
    }
}

/// An endpoint outside: its paths say what it answers.
struct Endpoint {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Endpoint {
    /// Its threads end with their connections, and with the process.
    fn start(tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, tls) = (Arc::<Mutex<Vec<Asked>>>::default(), tls.map(Arc::new));
        let all = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (asked, tls) = (Arc::clone(&all), tls.clone());
                stream.set_read_timeout(Some(4 * SOON)).unwrap();
                thread::spawn(move || match tls {
                    None => serve(stream, &asked),
                    Some(tls) => {
                        serve(
                            StreamOwned::new(ServerConnection::new(tls).unwrap(), stream),
                            &asked,
                        );
                    }
                });
            }
        });
        Self { address, asked }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// What it heard last of all that has this in its head.
    #[track_caller]
    fn last(&self, with: &str) -> Asked {
        let all = self.asked();
        let found = all.iter().rfind(|asked| asked.head.contains(with)).cloned();
        found.unwrap_or_else(|| panic!("nothing with {with} in {all:?}"))
    }
}

/// Answers one request after the other, until it says nothing or the client is gone.
fn serve(stream: impl std::io::Read + Write, asked: &Mutex<Vec<Asked>>) {
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
        let request = Asked { head, body: String::from_utf8_lossy(&body).into_owned() };
        asked.lock().unwrap().push(request.clone());
        let Some((status, headers, body)) = answer(&path, &request) else {
            // It says nothing, as long as its client waits.
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap_or_default();
            return;
        };
        let length = if status == 204 {
            String::new()
        } else {
            format!("content-length: {}\r\n", body.len())
        };
        let whole = format!("HTTP/1.1 {status} X\r\n{headers}{length}\r\n{body}");
        if stream
            .get_mut()
            .write_all(whole.as_bytes())
            .and_then(|()| stream.get_mut().flush())
            .is_err()
        {
            return;
        }
    }
}

fn answer(path: &str, asked: &Asked) -> Option<(u16, String, String)> {
    let plain =
        |status, headers: &str, body: &str| Some((status, headers.to_owned(), body.to_owned()));
    let json_type = "content-type: application/json\r\n";
    match path {
        "/ok" => plain(200, "", ""),
        "/nothing" => plain(204, "", ""),
        "/accept" | "/taken" => plain(202, "", ""),
        "/reason" => plain(400, json_type, r#"{"reason":"too hot"}"#),
        "/text" => plain(406, "content-type: text/plain\r\n", "too cold"),
        "/redirect" => plain(302, "location: /ok\r\n", ""),
        "/large" => plain(200, "", &"x".repeat(ANSWER_BYTES_MAX + 1)),
        "/silent" => None,
        "/late" => {
            thread::sleep(LATE);
            plain(200, "", "")
        }
        "/raw" => plain(200, "content-type: text/plain\r\n", "raw"),
        "/binary" => {
            let own = asked.head.lines().filter(|line| line.starts_with("ce-"));
            let own: String = own.map(|line| format!("{line}\r\n")).collect();
            plain(200, &format!("{own}ce-site: W%C3%BCrzburg\r\n{json_type}"), r#"{"temp":1.50}"#)
        }
        "/structured" => {
            let mut event: Value = serde_json::from_str(&asked.body).unwrap();
            event["data"] = json!({ "was": event["data"] });
            event["site"] = json!("there");
            plain(200, "content-type: application/cloudevents+json\r\n", &event.to_string())
        }
        _ => plain(500, "", ""),
    }
}

/// A cluster whose nodes may ask this machine, with the application `plant`.
struct Plant {
    api: Api,
    key: String,
    endpoint: Endpoint,
    secure: Endpoint,
    _ca: tempfile::NamedTempFile,
}

impl Plant {
    #[track_caller]
    fn start() -> Self {
        let (ca, tls) = authority();
        let extra = format!(
            "[outward]\nallow = [\"127.0.0.0/8\"]\nca = {:?}\nanswer-bytes-max = {ANSWER_BYTES_MAX}\n",
            ca.path()
        );
        let api = Api::start_as(&Shape { extra, ..Shape::of(3) }, &["http"]);
        let tenant = json!({
            "name": "acme", "aliases": ["drogue:plant"], "settings": { "chosen-passwords": true },
        });
        let (status, made) = api.ask(1, "POST", "/tenants", &tenant);
        assert_eq!(status, 201, "{made}");
        let key = json!({ "name": "key", "role": "app" });
        let key = text(&api.ask(1, "POST", "/tokens?tenant=acme", &key), 201, "token");
        let (endpoint, secure) = (Endpoint::start(None), Endpoint::start(Some(tls)));
        Self { api, key, endpoint, secure, _ca: ca }
    }

    /// A device of this name, whose password it is, too.
    #[track_caller]
    fn device(&self, name: &str, spec: &Value) {
        let settings = json!({ "metadata": { "drogue": { "spec": spec } } });
        let body = json!({ "name": name, "settings": settings });
        let (status, made) = self.api.ask(1, "POST", "/devices?tenant=acme", &body);
        assert_eq!(status, 201, "{made}");
        let path = format!("/devices/{name}/credentials?tenant=acme");
        let credential = json!({ "kind": "password", "user": name, "password": name });
        let (status, made) = self.api.ask(1, "POST", &path, &credential);
        assert_eq!(status, 201, "{made}");
    }

    /// A device with these steps, and one that marks what comes after them.
    #[track_caller]
    fn ruled(&self, name: &str, step: &Value) {
        let mark = json!({ "setExtension": { "name": "after", "value": "yes" } });
        let rules = json!([{ "then": [step] }, { "then": [mark] }]);
        self.device(name, &json!({ "publish": { "rules": rules } }));
    }

    #[track_caller]
    fn post(&self, node: u64, path: &str, authorization: &str, body: &str) -> Answer {
        let headers = [("authorization", authorization)];
        http::api("POST", self.api.at(node, "http"), path, &headers, body)
    }

    #[track_caller]
    fn say(&self, node: u64, device: &str, body: &str) -> Answer {
        let basic = STANDARD.encode(format!("{device}@plant:{device}"));
        self.post(node, "/v1/telemetry", &format!("Basic {basic}"), body)
    }

    #[track_caller]
    fn command(&self, node: u64, device: &str) -> u16 {
        let path = format!("/api/command/v1alpha1/apps/plant/devices/{device}?command=open");
        self.post(node, &path, &format!("Bearer {}", self.key), "now").status
    }

    /// The event that a device is said to have kept, after it was answered.
    #[track_caller]
    fn kept(&self, device: &str, say: impl FnOnce()) -> Value {
        let mut events = self.api.events(2, &format!("tenant=acme&device={device}&type=message"));
        say();
        events.next(SOON).unwrap().data.unwrap()["data"].clone()
    }
}

/// A private authority in a file, and how an endpoint with a certificate of its speaks TLS.
fn authority() -> (tempfile::NamedTempFile, ServerConfig) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = CertifiedIssuer::self_signed(params, key).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), authority.pem()).unwrap();
    (file, tls)
}

#[test]
fn endpoints_outside_are_asked() {
    scenarios(
        &mut Plant::start(),
        &[
            ("an endpoint validates events", validates),
            ("an endpoint enriches events", enriches),
            ("what does not answer as it should lets nothing through", fails),
            ("endpoints are asked over TLS, by the authority of the configuration", secure),
            ("commands go to a device's endpoint", commands),
            ("who waits for an endpoint keeps its order and stops nobody", waits),
            ("who was taken over says nothing that waited for an endpoint", taken_over),
            ("an application acknowledges events while its commands wait", acknowledges),
        ],
    );
}

fn validate(url: &str) -> Value {
    json!({ "validate": { "endpoint": { "url": url, "timeout": SLOW } } })
}

fn validates(plant: &mut Plant) {
    for (path, after) in [("ok", json!("yes")), ("nothing", json!("yes")), ("accept", Value::Null)]
    {
        plant.ruled(path, &validate(&plant.endpoint.url(&format!("/{path}"))));
        let event =
            plant.kept(path, || assert_eq!(plant.say(1, path, r#"{"t":1.50}"#).status, 202));
        assert_eq!(event["after"], after, "{path}");
    }
    let asked = plant.endpoint.last("/ok");
    assert!(asked.head.starts_with("post /ok http/1.1\r\n"), "{}", asked.head);
    assert_eq!(
        (asked.header("ce-device"), asked.header("ce-subject")),
        (Some("ok"), Some("telemetry"))
    );
    assert_eq!(asked.header("ce-source"), Some("drogue://plant/ok"));
    assert_eq!(
        (asked.header("content-type"), asked.body.as_str()),
        (Some("application/json"), r#"{"t":1.50}"#)
    );
    for (path, reason) in [("reason", "too hot"), ("text", "too cold")] {
        plant.ruled(path, &validate(&plant.endpoint.url(&format!("/{path}"))));
        let answer = plant.say(3, path, "{}");
        assert_eq!((answer.status, &answer.json()["message"]), (406, &json!(reason)));
        let login = Some((format!("{path}@plant"), path.to_owned()));
        let connect = Connect { login, ..Connect::clean(Version::V5, "x") };
        let (mut device, _) = connect.to(plant.api.cluster.mqtt(2));
        let id = device.publish("telemetry", b"{}");
        assert_eq!(device.puback(id), 0x80, "{path}");
    }
}

fn enriches(plant: &mut Plant) {
    let enrich = |path: &str, more: &Value| {
        let mut step = json!({ "endpoint": { "url": plant.endpoint.url(path) } });
        step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "enrich": step })
    };
    plant.ruled("binary", &enrich("/binary", &json!({})));
    let event = plant.kept("binary", || assert_eq!(plant.say(1, "binary", "{}").status, 202));
    assert_eq!((&event["device"], &event["site"]), (&json!("binary"), &json!("Würzburg")));
    assert_eq!((&event["data"]["temp"], &event["after"]), (&json!(1.5), &json!("yes")));
    let structured = json!({ "request": { "type": "cloudEvent", "mode": "structured" } });
    plant.ruled("structured", &enrich("/structured", &structured));
    let event =
        plant.kept("structured", || assert_eq!(plant.say(2, "structured", "7").status, 202));
    assert_eq!((&event["data"], &event["site"]), (&json!({ "was": 7 }), &json!("there")));
    let asked = plant.endpoint.last("/structured");
    assert!(asked.header("content-type").unwrap().starts_with("application/cloudevents+json"));
    assert_eq!(asked.header("ce-id"), None);
    plant.ruled("raw", &enrich("/raw", &json!({ "response": { "type": "raw" } })));
    let event = plant.kept("raw", || assert_eq!(plant.say(3, "raw", "7").status, 202));
    assert_eq!(
        (&event["datacontenttype"], &event["subject"]),
        (&json!("text/plain"), &json!("telemetry"))
    );
    plant.ruled("none", &enrich("/ok", &json!({})));
    assert_eq!(plant.say(1, "none", "7").status, 503, "no event came");
}

fn fails(plant: &mut Plant) {
    let port = plant.endpoint.address.port();
    let before = plant.endpoint.asked().len();
    #[rustfmt::skip]
    let table = [
        ("broken",     plant.endpoint.url("/broken"),                1, "moorline_outward_answers_total{status=\"5xx\"}"),
        ("redirect",   plant.endpoint.url("/redirect"),              1, "moorline_outward_answers_total{status=\"3xx\"}"),
        ("silent",     plant.endpoint.url("/silent"),                1, "moorline_outward_failed_total{reason=\"timeout\"}"),
        ("large",      plant.endpoint.url("/large"),                 1, "moorline_outward_failed_total{reason=\"too_large\"}"),
        ("metadata",   "http://169.254.169.254/latest".to_owned(),   0, "moorline_outward_refused_total{reason=\"address\"}"),
        ("six",        format!("http://[::1]:{port}/ok"),            0, "moorline_outward_refused_total{reason=\"address\"}"),
        ("mapped",     format!("http://[::ffff:127.0.0.1]:{port}/"), 0, "moorline_outward_refused_total{reason=\"address\"}"),
        ("private",    "https://10.0.0.1/".to_owned(),               0, "moorline_outward_refused_total{reason=\"address\"}"),
        ("user",       format!("http://a:b@127.0.0.1:{port}/ok"),    0, "moorline_outward_refused_total{reason=\"url\"}"),
        ("file",       "file:///etc/passwd".to_owned(),              0, "moorline_outward_refused_total{reason=\"url\"}"),
    ];
    let admin = plant.api.cluster.node(1).admin;
    let mut expected = before;
    for (name, url, asked, metric) in table {
        let count = || {
            let text = http::get(admin, "/metrics").unwrap().body;
            let line = text.lines().find_map(|line| line.strip_prefix(metric).map(str::to_owned));
            line.unwrap_or_else(|| panic!("no {metric}")).trim().parse::<u64>().unwrap()
        };
        plant.ruled(name, &validate(&url));
        let counted = count();
        assert_eq!(plant.say(1, name, "{}").status, 503, "{name}");
        assert_eq!(count(), counted + 1, "{name}: {metric}");
        expected += asked;
        assert_eq!(plant.endpoint.asked().len(), expected, "{name}");
    }
    for (name, more) in [
        ("host", json!({ "headers": [{ "name": "Host", "value": "a" }] })),
        ("insecure", json!({ "tls": { "insecure": true } })),
        ("method", json!({ "method": "CONNECT" })),
    ] {
        let mut step = validate(&plant.endpoint.url("/ok"));
        let endpoint = step["validate"]["endpoint"].as_object_mut().unwrap();
        endpoint.extend(more.as_object().unwrap().clone());
        plant.ruled(name, &step);
        assert_eq!(plant.say(1, name, "{}").status, 503, "{name}");
    }
    assert_eq!(plant.endpoint.asked().len(), expected, "none of these was asked");
}

fn secure(plant: &mut Plant) {
    let port = plant.secure.address.port();
    plant.ruled("trusted", &validate(&format!("https://localhost:{port}/reason")));
    assert_eq!(plant.say(1, "trusted", "{}").status, 406, "its own answer");
    plant.ruled("misnamed", &validate(&format!("https://127.0.0.1:{port}/reason")));
    assert_eq!(plant.say(1, "misnamed", "{}").status, 503, "it has another name");
    assert_eq!(plant.secure.asked().len(), 1);
}

fn commands(plant: &mut Plant) {
    let external = |path: &str| {
        let external = json!({
            "type": "http", "url": plant.endpoint.url(path), "headers": { "X-A": "b" },
        });
        json!({ "commands": { "commands": [{ "external": external }] } })
    };
    plant.device("away", &external("/taken"));
    let login = Some(("away@plant".to_owned(), "away".to_owned()));
    let connect = Connect { login, ..Connect::clean(Version::V5, "x") };
    let (mut device, _) = connect.to(plant.api.cluster.mqtt(2));
    assert_eq!(device.subscribe(&[("command/inbox/#", 0)]), [0]);
    assert_eq!(plant.command(1, "away"), 202);
    let asked = plant.endpoint.last("/taken");
    let expected =
        json!({ "application": "plant", "device": "away", "command": "open", "payload": "bm93" });
    assert_eq!(serde_json::from_str::<Value>(&asked.body).unwrap(), expected);
    assert_eq!(
        (asked.header("x-a"), asked.header("content-type")),
        (Some("b"), Some("application/json"))
    );
    device.hears_nothing();
    plant.device("refusing", &external("/broken"));
    assert_eq!(plant.command(2, "refusing"), 500);
    let odd = json!({ "commands": { "commands": [{ "external": { "type": "carrier-pigeon" } }] } });
    plant.device("odd", &odd);
    assert_eq!(plant.command(3, "odd"), 500);
}

fn waits(plant: &mut Plant) {
    let silent = json!({ "validate": { "endpoint": { "url": plant.endpoint.url("/silent"), "timeout": "3s" } } });
    let rules = json!([
        { "when": { "isChannel": "slow" }, "then": [silent] },
        { "when": { "isChannel": "quick" }, "then": [validate(&plant.endpoint.url("/ok"))] },
    ]);
    plant.device("patient", &json!({ "publish": { "rules": rules } }));
    let connect = |version| {
        let login = Some(("patient@plant".to_owned(), "patient".to_owned()));
        Connect { login, ..Connect::clean(version, "x") }
    };
    let (mut device, _) = connect(Version::V5).to(plant.api.cluster.mqtt(1));
    let begun = Instant::now();
    let (slow, quick) = (device.publish("slow", b"1"), device.publish("quick", b"2"));
    until("the endpoint is asked", SOON, || {
        plant.endpoint.asked().iter().any(|asked| asked.head.contains("/silent")).then_some(())
    });
    let other = Instant::now();
    assert_eq!(plant.say(1, "ok", "{}").status, 202);
    assert!(other.elapsed() < Duration::from_secs(2), "another device does not wait");
    let quicks = |plant: &Plant| {
        plant.endpoint.asked().iter().filter(|a| a.header("ce-device") == Some("patient")).count()
    };
    assert_eq!(quicks(plant), 1, "its own next event does");
    assert_eq!(device.puback(slow), 0x80);
    assert_eq!(device.puback(quick), 0);
    assert!(begun.elapsed() > Duration::from_secs(2));
    assert_eq!(quicks(plant), 2);
}

/// How often the endpoint that is late was asked by now.
fn lates(plant: &Plant) -> usize {
    plant.endpoint.asked().iter().filter(|asked| asked.head.contains("/late")).count()
}

fn taken_over(plant: &mut Plant) {
    let late = json!({ "validate": { "endpoint": { "url": plant.endpoint.url("/late") } } });
    let rules = json!([{ "when": { "isChannel": "slow" }, "then": [late] }]);
    plant.device("twice", &json!({ "publish": { "rules": rules } }));
    let login = Some(("twice@plant".to_owned(), "twice".to_owned()));
    let connect = Connect { login, ..Connect::clean(Version::V5, "x") };
    let mut events = plant.api.events(3, "tenant=acme&device=twice&type=message");
    let (mut first, _) = connect.to(plant.api.cluster.mqtt(1));
    first.publish("slow", b"1");
    until("the endpoint is asked", SOON, || (lates(plant) > 0).then_some(()));
    let (mut second, _) = connect.to(plant.api.cluster.mqtt(2));
    second.publish_acked("quick", b"2");
    // The endpoint answers the first of these before.
    second.publish_acked("slow", b"3");
    let mut next = || events.next(SOON).unwrap().data.unwrap()["data"]["data"].clone();
    assert_eq!([next(), next()], [json!(2), json!(3)]);
}

fn acknowledges(plant: &mut Plant) {
    let external = json!({ "type": "http", "url": plant.endpoint.url("/late") });
    plant.device("slow", &json!({ "commands": { "commands": [{ "external": external }] } }));
    let login = Some(("ops".to_owned(), plant.key.clone()));
    let connect = Connect { login, ..Connect::clean(Version::V5, "ops") };
    let (mut application, _) = connect.to(plant.api.cluster.mqtt(1));
    assert_eq!(application.subscribe(&[("app/plant", 1)]), [1]);
    let before = lates(plant);
    let command = application.publish("command/plant/slow/open", b"now");
    until("the endpoint is asked", SOON, || (lates(plant) > before).then_some(()));
    for number in ["1", "2", "3"] {
        assert_eq!(plant.say(2, "ok", number).status, 202);
    }
    let mut heard = Vec::new();
    // Each comes when the one before is acknowledged, and the command is under way all the time.
    while heard.len() < 3 {
        let message = application.message();
        application.ack(&message);
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        if event["device"] == "ok" {
            heard.push(event["data"].clone());
        }
    }
    assert_eq!(heard, [json!(1), json!(2), json!(3)]);
    assert_eq!(application.puback(command), 0);
}
