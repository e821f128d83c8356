//! Clients of Watson IoT over HTTP: events, commands and fetched commands, on whichever node, while nodes die.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use moorline_core::shard::Shards;
use serde_json::{Value, json};

use crate::{
    harness::{
        cluster::SHARDS,
        http as metrics,
        mqtt::Client,
        packet::{self, Connect, Version},
        scenarios,
        wait::{SOON, until_true},
    },
    watson::{APP_KEY, LOOK_KEY, ORG, Org, device},
};

const HOST: &str = "abc123.messaging.example.com";
const BASE: &str = "/api/v0002";
/// Long enough that nothing else ends a wait.
const LONG: &str = r#"{"waitTimeSecs": 60}"#;
/// How long it is listened whether an answer comes.
const A_MOMENT: Duration = Duration::from_millis(200);

/// An answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Said {
    pub(crate) status: u16,
    /// All of it, in lower case.
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Said {
    fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|line| line.starts_with(&format!("{name}: ")))?;
        Some(&line[name.len() + 2..])
    }

    /// Status, command, content type and body of a fetched command.
    fn command(&self) -> (u16, &str, &str, &[u8]) {
        let header = |name| self.header(name).unwrap_or_default();
        (self.status, header("x-commandid"), header("content-type"), &self.body)
    }
}

/// A request.
#[derive(Clone, Copy)]
struct Ask<'a> {
    method: &'a str,
    path: &'a str,
    host: &'a str,
    /// User and secret.
    user: &'a str,
    content_type: &'a str,
    body: &'a [u8],
}

impl<'a> Ask<'a> {
    fn post(path: &'a str, user: &'a str, body: &'a [u8]) -> Self {
        Self { method: "POST", path, host: HOST, user, content_type: "application/json", body }
    }
}

/// A connection.
struct Line(BufReader<TcpStream>);

impl Line {
    #[track_caller]
    fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&to, SOON).unwrap();
        stream.set_read_timeout(Some(2 * SOON)).unwrap();
        Self(BufReader::new(stream))
    }

    fn say(&mut self, ask: Ask<'_>) {
        let Ask { method, path, host, user, content_type, body } = ask;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n");
        if !user.is_empty() {
            head += &format!("authorization: Basic {}\r\n", STANDARD.encode(user));
        }
        if !content_type.is_empty() {
            head += &format!("content-type: {content_type}\r\n");
        }
        head += &format!("content-length: {}\r\n\r\n", body.len());
        let stream = self.0.get_mut();
        // Whoever is refused may be so before all is said.
        drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)));
    }

    /// The next answer; `None` at the end.
    #[track_caller]
    fn hear(&mut self) -> Option<Said> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head).unwrap() == 0 {
                assert!(head.is_empty(), "broke off after {head:?}");
                return None;
            }
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let head = head.to_ascii_lowercase();
        let mut said = Said { status, head, body: Vec::new() };
        let length = said.header("content-length").map_or(0, |length| length.parse().unwrap());
        said.body = vec![0; length];
        self.0.read_exact(&mut said.body).unwrap();
        Some(said)
    }

    #[track_caller]
    fn ask(&mut self, ask: Ask<'_>) -> Said {
        self.say(ask);
        self.hear().expect("an answer")
    }
}

/// One request by a connection of its own.
#[track_caller]
fn ask(to: SocketAddr, request: Ask<'_>) -> Said {
    Line::open(to).ask(request)
}

#[track_caller]
pub(crate) fn post(to: SocketAddr, path: &str, user: &str, body: &[u8]) -> Said {
    ask(to, Ask::post(path, user, body))
}

pub(crate) fn event(kind: &str, id: &str, event: &str) -> String {
    format!("{BASE}/device/types/{kind}/devices/{id}/events/{event}")
}

pub(crate) fn fetch(kind: &str, id: &str, command: &str) -> String {
    format!("{BASE}/device/types/{kind}/devices/{id}/commands/{command}/request")
}

fn app(what: &str, kind: &str, id: &str, name: &str) -> String {
    format!("{BASE}/application/types/{kind}/devices/{id}/{what}/{name}")
}

fn http(org: &Org, node: u64) -> SocketAddr {
    org.api.at(node, "http")
}

fn key(org: &Org) -> String {
    format!("{APP_KEY}:{}", org.app)
}

/// A device's user and secret.
#[track_caller]
fn user(org: &Org, kind: &str, id: &str) -> String {
    format!("use-token-auth:{}", org.register(kind, id, "device"))
}

/// Until so many requests wait at a node.
#[track_caller]
fn until_waiting(org: &Org, node: u64, many: usize) {
    let admin = org.api.cluster.node(node).admin;
    let expected = format!("moorline_watson_http_waiting {many}\n");
    until_true("requests wait", SOON, || {
        metrics::get(admin, "/metrics").is_ok_and(|answer| answer.body.contains(&expected))
    });
}

/// Until a request has a device's session at a node: one that was begun may still be on its way to it.
#[track_caller]
fn until_held(org: &Org, id: &str, node: u64) {
    let path = format!("/sessions?client=d:{ORG}:pump:{id}&tenant=acme");
    until_true("the session is held there", SOON, || {
        org.api.ask(node, "GET", &path, &Value::Null).1["connected_to"] == json!(node)
    });
}

/// An application that hears what a filter says.
#[track_caller]
fn listener(org: &Org, node: u64, name: &str, filter: &str) -> Client {
    let (mut app, _) = org.application(Version::V4, name).to(org.at(node));
    assert!(app.subscribe(&[(filter, 1)]).iter().all(|granted| *granted < 0x80), "{filter}");
    app
}

#[test]
fn an_organisation_speaks_http() {
    let mut org = Org::start();
    scenarios(
        &mut org,
        &[
            ("what is posted is heard by applications", events),
            ("an application posts events and commands", applications),
            (
                "what is not in the table is refused, without a body, and the connection ends",
                refusals,
            ),
            ("a connection is one client's", one_client),
            ("a queued command is fetched, one by a request", fetches),
            ("who asks for one command leaves the others", one_of_several),
            ("a request waits for a command", waits),
            ("a command that nobody took is there again", untaken),
            ("MQTT is not taken over, and takes over", beside_mqtt),
            ("a gateway posts and fetches for others", gateways),
            ("who speaks HTTP is known, and not retained", presence),
            ("who is revoked hears so while it waits", revoked),
            ("five wrong tokens are a ban, for MQTT too", banned),
            ("commands survive the leader", leader_dies),
            ("without a majority nothing is accepted", nobody_decides),
        ],
    );
}

fn events(org: &mut Org) {
    let user = user(org, "pump", "h1");
    let mut heard = listener(org, 1, "h-events", "iot-2/type/pump/id/h1/evt/+/fmt/+");
    let path = event("pump", "h1", "temp");
    let large = vec![7; 131_072];
    #[rustfmt::skip]
    let table: [(&str, &[u8], &str); 8] = [
        ("application/json",                br#"{"d":{"t":21}}"#, "json"),
        ("Application/JSON; charset=utf-8", b"{}",                "json"),
        ("",                                b"{}",                "json"),
        ("application/xml",                 b"<a/>",              "xml"),
        ("text/plain",                      b"21",                "text"),
        ("text/csv",                        b"2,1",               "text"),
        ("application/octet-stream",        b"\x00\xff",          "bin"),
        ("application/octet-stream",        &large,               "bin"),
    ];
    let mut kept = Line::open(http(org, 2));
    for (content_type, body, format) in table {
        let said = kept.ask(Ask { content_type, ..Ask::post(&path, &user, body) });
        assert_eq!((said.status, said.body.len()), (200, 0), "{content_type}: {}", said.head);
        let message = heard.message();
        heard.ack(&message);
        let topic = format!("iot-2/type/pump/id/h1/evt/temp/fmt/{format}");
        assert_eq!((message.topic, message.payload == body), (topic, true), "{content_type}");
    }
    // On whichever node, and where nobody wants it.
    assert_eq!(post(http(org, 3), &path, &user, b"{}").status, 200);
    assert_eq!(heard.message().payload, b"{}");
    assert_eq!(post(http(org, 1), &event("pump", "h1", "e"), &user, b"{}").status, 200);
}

fn applications(org: &mut Org) {
    let token = org.register("pump", "h2", "device");
    let key = key(org);
    let mut heard = listener(org, 3, "h-apps", "iot-2/type/pump/id/h2/evt/+/fmt/+");
    let (mut pump, _) = device(Version::V4, "pump", "h2", &token).to(org.at(1));
    assert_eq!(pump.subscribe(&[("iot-2/cmd/+/fmt/+", 1)]), [1]);
    assert_eq!(post(http(org, 1), &app("events", "pump", "h2", "e"), &key, b"{}").status, 200);
    assert_eq!(heard.message().topic, "iot-2/type/pump/id/h2/evt/e/fmt/json");
    let path = app("commands", "pump", "h2", "reset");
    let command = Ask { content_type: "text/plain", ..Ask::post(&path, &key, b"now") };
    assert_eq!(ask(http(org, 2), command).status, 200);
    let message = pump.message();
    assert_eq!(
        (message.topic.as_str(), &message.payload[..]),
        ("iot-2/cmd/reset/fmt/text", &b"now"[..])
    );
}

fn refusals(org: &mut Org) {
    let user = user(org, "pump", "h3");
    let (key, look) = (key(org), format!("{LOOK_KEY}:{}", org.look));
    org.register("gw", "h3", "gateway");
    let (good, take) = (event("pump", "h3", "e"), fetch("pump", "h3", "+"));
    let command = app("commands", "pump", "h3", "c");
    let app_event = app("events", "pump", "h3", "e");
    let ok = Ask::post(&good, &user, b"{}");
    let large = vec![b'x'; 131_073];
    let other = user.replace("use-token-auth", "g/abc123/pump/h3");
    #[rustfmt::skip]
    let table = [
        (405, "a method",              Ask { method: "GET", ..ok }),
        (405, "a method",              Ask { method: "PUT", ..ok }),
        (404, "a path",                Ask { path: "/api/v0002/device/types/pump", ..ok }),
        (404, "a name",                Ask { path: "/api/v0002/device/types/pump/devices/h3/events/a%20b", ..ok }),
        (403, "no credentials",        Ask { user: "", ..ok }),
        (403, "a wrong token",         Ask { user: "use-token-auth:nobodys-token", ..ok }),
        (403, "another device",        Ask { path: "/api/v0002/device/types/pump/devices/nobody/events/e", ..ok }),
        (403, "another organisation",  Ask { host: "zzz999.messaging.example.com", ..ok }),
        (403, "no organisation",       Ask { host: "localhost", ..ok }),
        (403, "a device as a gateway", Ask { user: &other, ..ok }),
        (403, "a key for a device",    Ask { user: &key, ..ok }),
        (403, "a device for a key",    Ask { path: &command, ..ok }),
        (403, "a key that only looks", Ask { path: &command, user: &look, ..ok }),
        (403, "a key that only looks", Ask { path: &app_event, user: &look, ..ok }),
        (403, "any device",            Ask { path: "/api/v0002/device/types/pump/devices/+/commands/+/request", ..ok }),
        (413, "one byte too much",     Ask { body: &large, ..ok }),
        (415, "a content type",        Ask { content_type: "image/png", ..ok }),
        (400, "no body",               Ask { body: b"", ..ok }),
        (400, "a wait",                Ask { path: &take, body: br#"{"waitTimeSecs":3601}"#, ..ok }),
        (400, "a wait",                Ask { path: &take, body: br#"{"waitTimeSecs":"1"}"#, ..ok }),
        (400, "another field",         Ask { path: &take, body: br#"{"wait":1}"#, ..ok }),
        (400, "no JSON",               Ask { path: &take, body: b"{", ..ok }),
    ];
    for (status, what, request) in table {
        let mut line = Line::open(http(org, 1));
        let said = line.ask(request);
        assert_eq!((said.status, said.body.len()), (status, 0), "{what}: {}", said.head);
        assert_eq!(said.header("connection"), Some("close"), "{what}");
        assert_eq!(line.hear(), None, "{what}: it is closed");
    }
    assert_eq!(ask(http(org, 1), ok).status, 200, "nothing of that is held against it");
    // What is nobody's path is Fostrom's to answer, as ever.
    assert_eq!(post(http(org, 1), "/api/v00022", "", b"").status, 404);
}

fn one_client(org: &mut Org) {
    let (one, two) = (user(org, "pump", "h4"), user(org, "pump", "h5"));
    let mut line = Line::open(http(org, 1));
    let path = event("pump", "h4", "e");
    for _ in 0..3 {
        assert_eq!(line.ask(Ask::post(&path, &one, b"{}")).status, 200);
    }
    assert_eq!(line.ask(Ask::post(&event("pump", "h5", "e"), &two, b"{}")).status, 403);
    assert_eq!(line.hear(), None);
    // Two at once: the second is looked at when the first is answered.
    let mut line = Line::open(http(org, 1));
    line.say(Ask::post(&path, &one, b"{}"));
    line.say(Ask::post(&path, &one, b"{}"));
    assert_eq!([line.hear().unwrap().status, line.hear().unwrap().status], [200, 200]);
}

fn fetches(org: &mut Org) {
    let (user, key) = (user(org, "pump", "h6"), key(org));
    let take = fetch("pump", "h6", "+");
    let send = |node, name: &str, content_type, body: &[u8]| {
        let path = app("commands", "pump", "h6", name);
        let said = ask(http(org, node), Ask { content_type, ..Ask::post(&path, &key, body) });
        assert_eq!(said.status, 200);
    };
    send(1, "early", "text/plain", b"lost");
    let none = post(http(org, 1), &take, &user, b"");
    assert_eq!((none.status, none.body.len()), (204, 0), "nobody had asked yet: {}", none.head);
    send(2, "reset", "text/plain", b"now");
    send(3, "stop", "application/octet-stream", b"\x00\xff");
    send(1, "go", "application/json", br#"{"n":1}"#);
    let mut kept = Line::open(http(org, 3));
    let first = kept.ask(Ask::post(&take, &user, b"{}"));
    assert_eq!(first.command(), (200, "reset", "text/plain", &b"now"[..]));
    assert_eq!(
        (first.header("x-devicetype"), first.header("x-deviceid")),
        (Some("pump"), Some("h6"))
    );
    let second = kept.ask(Ask::post(&take, &user, br#"{"waitTimeSecs":0}"#));
    assert_eq!(second.command(), (200, "stop", "application/octet-stream", &b"\x00\xff"[..]));
    // Through another node: the same queue.
    let third = post(http(org, 2), &take, &user, b"");
    assert_eq!(third.command(), (200, "go", "application/json", &br#"{"n":1}"#[..]));
    assert_eq!(post(http(org, 1), &take, &user, b"").status, 204);
    assert_eq!(kept.ask(Ask::post(&take, &user, b"")).status, 204, "it stays open");
}

fn one_of_several(org: &mut Org) {
    let (user, key) = (user(org, "pump", "h7"), key(org));
    assert_eq!(post(http(org, 1), &fetch("pump", "h7", "+"), &user, b"").status, 204);
    for name in ["a", "b", "c"] {
        let sent = post(http(org, 2), &app("commands", "pump", "h7", name), &key, name.as_bytes());
        assert_eq!(sent.status, 200);
    }
    let take = |name| post(http(org, 3), &fetch("pump", "h7", name), &user, b"");
    assert_eq!(take("b").command().1, "b");
    assert_eq!(take("b").status, 204);
    assert_eq!([take("+").command().1, take("+").command().1], ["a", "c"]);
    assert_eq!(take("+").status, 204);
}

fn waits(org: &mut Org) {
    let (user, key) = (user(org, "pump", "h8"), key(org));
    let take = fetch("pump", "h8", "+");
    let since = Instant::now();
    assert_eq!(post(http(org, 1), &take, &user, br#"{"waitTimeSecs":1}"#).status, 204);
    assert!(since.elapsed() >= Duration::from_secs(1), "it waited");
    let mut line = Line::open(http(org, 1));
    line.say(Ask::post(&take, &user, LONG.as_bytes()));
    until_held(org, "h8", 1);
    until_waiting(org, 1, 1);
    assert_eq!(post(http(org, 2), &app("commands", "pump", "h8", "go"), &key, b"1").status, 200);
    assert_eq!(line.hear().unwrap().command(), (200, "go", "application/json", &b"1"[..]));
    // Also one that is passing by: MQTT's QoS 0 is not queued.
    line.say(Ask::post(&take, &user, LONG.as_bytes()));
    until_held(org, "h8", 1);
    let (mut sender, _) = org.application(Version::V4, "h-passing").to(org.at(3));
    until_true("one of them passes by while it waits", SOON, || {
        sender.send(&qos_0("iot-2/type/pump/id/h8/cmd/pass/fmt/json")).unwrap();
        sender.ping();
        line.0.get_ref().set_read_timeout(Some(A_MOMENT)).unwrap();
        line.0.fill_buf().is_ok_and(|bytes| !bytes.is_empty())
    });
    line.0.get_ref().set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(line.hear().unwrap().command().1, "pass");
}

/// A PUBLISH of MQTT 3.1.1 with QoS 0.
fn qos_0(topic: &str) -> Vec<u8> {
    let mut body = Vec::new();
    packet::put_text(&mut body, topic);
    packet::frame(0x30, &[&body[..], b"1"].concat())
}

fn untaken(org: &mut Org) {
    let (user, key) = (user(org, "pump", "h9"), key(org));
    let take = fetch("pump", "h9", "+");
    assert_eq!(post(http(org, 2), &take, &user, b"").status, 204);
    let mut line = Line::open(http(org, 1));
    line.say(Ask::post(&take, &user, LONG.as_bytes()));
    until_held(org, "h9", 1);
    // Its client is gone, and comes again by another node before that is known here or there.
    drop(line);
    assert_eq!(post(http(org, 2), &app("commands", "pump", "h9", "go"), &key, b"1").status, 200);
    let said = post(http(org, 3), &take, &user, LONG.as_bytes());
    assert_eq!(said.command().1, "go");
    // One that waits is taken over by another one of its client.
    let mut first = Line::open(http(org, 1));
    first.say(Ask::post(&take, &user, LONG.as_bytes()));
    until_held(org, "h9", 1);
    let mut second = Line::open(http(org, 2));
    second.say(Ask::post(&take, &user, LONG.as_bytes()));
    assert_eq!(first.hear().unwrap().status, 204);
    assert_eq!(post(http(org, 3), &app("commands", "pump", "h9", "on"), &key, b"1").status, 200);
    assert_eq!(second.hear().unwrap().command().1, "on");
}

fn beside_mqtt(org: &mut Org) {
    let token = org.register("pump", "h10", "device");
    let (user, key) = (format!("use-token-auth:{token}"), key(org));
    let (take, send) = (fetch("pump", "h10", "+"), app("commands", "pump", "h10", "go"));
    for connect in [
        device(Version::V4, "pump", "h10", &token),
        Connect { clean: false, ..device(Version::V4, "pump", "h10", &token) },
    ] {
        let (mut pump, _) = connect.to(org.at(2));
        assert_eq!(pump.subscribe(&[("iot-2/cmd/+/fmt/+", 1)]), [1]);
        let since = Instant::now();
        assert_eq!(post(http(org, 1), &take, &user, LONG.as_bytes()).status, 204);
        assert!(since.elapsed() < SOON, "it does not wait");
        assert_eq!(post(http(org, 3), &event("pump", "h10", "e"), &user, b"{}").status, 200);
        assert_eq!(post(http(org, 3), &send, &key, b"1").status, 200);
        let message = pump.message();
        assert_eq!(message.topic, "iot-2/cmd/go/fmt/json", "it is there still");
        pump.ack(&message);
        pump.disconnect();
    }
    // What waits in MQTT's session is fetched by HTTP when MQTT is gone; and MQTT takes the session from who waits.
    until_true("the session is let go", SOON, || {
        assert_eq!(post(http(org, 3), &send, &key, b"2").status, 200);
        post(http(org, 3), &take, &user, b"").status == 200
    });
    while post(http(org, 3), &take, &user, b"").status == 200 {}
    let mut line = Line::open(http(org, 1));
    line.say(Ask::post(&take, &user, LONG.as_bytes()));
    until_held(org, "h10", 1);
    let connect = Connect { clean: false, ..device(Version::V4, "pump", "h10", &token) };
    let (mut pump, present) = connect.to(org.at(2));
    assert!(present, "it is the same session");
    assert_eq!(line.hear().unwrap().status, 204);
    assert_eq!(post(http(org, 3), &send, &key, b"3").status, 200);
    assert_eq!(pump.message().payload, b"3");
}

fn gateways(org: &mut Org) {
    let token = org.register("gw", "h-g1", "gateway");
    org.register("sensor", "h1", "device");
    let key = key(org);
    let mut heard = listener(org, 2, "h-gw", "iot-2/type/sensor/id/+/evt/+/fmt/+");
    // The second form of its name has several readings, of which one is somebody.
    for user in [format!("g/{ORG}/gw/h-g1:{token}"), format!("g-{ORG}-gw-h-g1:{token}")] {
        let mut line = Line::open(http(org, 1));
        for id in ["h1", "h-new"] {
            let said = line.ask(Ask::post(&event("sensor", id, "e"), &user, b"{}"));
            assert_eq!(said.status, 200, "{user} {id}");
            assert_eq!(heard.message().topic, format!("iot-2/type/sensor/id/{id}/evt/e/fmt/json"));
        }
        assert_eq!(post(http(org, 2), &fetch("+", "+", "+"), &user, b"").status, 204);
        for (kind, id) in [("sensor", "h1"), ("sensor", "h-new"), ("gw", "h-g1")] {
            let sent = post(http(org, 3), &app("commands", kind, id, "c"), &key, b"1");
            assert_eq!(sent.status, 200);
        }
        let own = post(http(org, 1), &fetch("gw", "+", "c"), &user, b"");
        assert_eq!(
            (own.header("x-devicetype"), own.header("x-deviceid")),
            (Some("gw"), Some("h-g1"))
        );
        for id in ["h1", "h-new"] {
            let said = post(http(org, 2), &fetch("+", "+", "+"), &user, b"");
            assert_eq!((said.status, said.header("x-deviceid")), (200, Some(id)));
        }
        assert_eq!(post(http(org, 2), &fetch("+", "+", "+"), &user, b"").status, 204);
    }
    let made = org.api.ask(1, "GET", "/devices/sensor:h-new?tenant=acme", &Value::Null);
    assert_eq!((made.0, &made.1["settings"]["type"]), (200, &json!("sensor")), "{}", made.1);
}

fn presence(org: &mut Org) {
    let user = user(org, "pump", "h11");
    let mut heard = listener(org, 1, "h-watch", "iot-2/type/pump/id/h11/mon");
    let mut line = Line::open(http(org, 2));
    assert_eq!(line.ask(Ask::post(&event("pump", "h11", "e"), &user, b"{}")).status, 200);
    let said = |heard: &mut Client| {
        let message = heard.message();
        assert!(!message.retain);
        serde_json::from_slice::<Value>(&message.payload).unwrap()
    };
    let here = said(&mut heard);
    assert_eq!((&here["Action"], &here["Protocol"]), (&json!("Connect"), &json!("http")));
    assert_eq!(here["ClientID"], json!("d:abc123:pump:h11"));
    drop(line);
    let gone = said(&mut heard);
    assert_eq!((&gone["Action"], &gone["ReadMsg"]), (&json!("Disconnect"), &json!(1)), "{gone}");
    let mut late = listener(org, 3, "h-late", "iot-2/type/pump/id/h11/mon");
    late.hears_nothing();
}

fn revoked(org: &mut Org) {
    let user = user(org, "pump", "h12");
    let mut line = Line::open(http(org, 2));
    line.say(Ask::post(&fetch("pump", "h12", "+"), &user, LONG.as_bytes()));
    until_held(org, "h12", 2);
    assert_eq!(org.api.ask(3, "DELETE", "/devices/pump:h12?tenant=acme", &Value::Null).0, 204);
    assert_eq!(line.hear().unwrap().status, 403);
    assert_eq!(line.hear(), None);
    assert_eq!(post(http(org, 1), &event("pump", "h12", "e"), &user, b"{}").status, 403);
}

fn banned(org: &mut Org) {
    let token = org.register("pump", "h13", "device");
    let path = event("pump", "h13", "e");
    for _ in 0..5 {
        assert_eq!(post(http(org, 3), &path, "use-token-auth:wrong-token", b"{}").status, 403);
    }
    let right = format!("use-token-auth:{token}");
    assert_eq!(post(http(org, 3), &path, &right, b"{}").status, 403, "also with its token");
    assert_eq!(device(Version::V4, "pump", "h13", &token).reason(org.at(3)), 5);
    assert_eq!(post(http(org, 1), &path, &right, b"{}").status, 200, "each node counts its own");
}

fn leader_dies(org: &mut Org) {
    let (user, key) = (user(org, "pump", "h14"), key(org));
    let take = fetch("pump", "h14", "+");
    assert_eq!(post(http(org, 1), &take, &user, b"").status, 204);
    for number in 0..10_u8 {
        let sent = post(http(org, 2), &app("commands", "pump", "h14", "go"), &key, &[number]);
        assert_eq!(sent.status, 200);
    }
    let shard = Shards::new(SHARDS).of(org.tenant, b"d:abc123:pump:h14");
    let leader = org.api.cluster.leader(shard.0, 1);
    org.api.cluster.node_mut(leader).kill();
    let elsewhere = if leader == 3 { 1 } else { 3 };
    let mut came = Vec::new();
    until_true("all are fetched", 3 * SOON, || {
        let said = post(http(org, elsewhere), &take, &user, b"");
        match said.status {
            200 => came.push(said.body[0]),
            204 | 503 => {}
            other => panic!("{other}"),
        }
        came.len() >= 10
    });
    assert_eq!(came, (0..10).collect::<Vec<u8>>(), "each once, in order");
    org.api.cluster.node_mut(leader).start_ready();
}

fn nobody_decides(org: &mut Org) {
    let user = user(org, "pump", "h15");
    let path = event("pump", "h15", "e");
    assert_eq!(post(http(org, 1), &path, &user, b"{}").status, 200);
    for node in [2, 3] {
        org.api.cluster.node_mut(node).kill();
    }
    let mut line = Line::open(http(org, 1));
    let said = line.ask(Ask::post(&path, &user, b"{}"));
    assert_eq!((said.status, said.body.len()), (503, 0), "{}", said.head);
    assert_eq!(line.hear(), None);
    for node in [2, 3] {
        org.api.cluster.node_mut(node).start();
    }
    org.api.cluster.wait_ready();
    until_true("it is accepted again", 3 * SOON, || {
        post(http(org, 1), &path, &user, b"{}").status == 200
    });
}
