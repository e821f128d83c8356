//! Fostrom's devices over HTTP, server-sent events and Moonlight, on whichever node, while nodes die.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use moorline_core::{
    Text,
    op::{Format, MailId, Settlement},
};
use moorline_moonlight::{
    Decoder, Packet,
    codec::{Connect, ConnectFailedReason, Credentials, Next, Pulse, PulseError, PulseKind, Side},
    encode,
};
use serde_json::{Value, json};

use crate::harness::{
    api::{Api, text},
    cluster::Shape,
    http,
    mqtt::{Client, Heard},
    packet::{self, Version},
    scenarios,
    wait::{SOON, until, until_true},
};

const FLEET: &str = "FLEET001";

/// A device and what it shows.
struct Device {
    id: String,
    secret: String,
}

impl Device {
    /// Made through node 1, as an operator does it.
    #[track_caller]
    fn new(api: &Api, id: &str) -> Self {
        let made = api.ask(1, "POST", "/devices?tenant=acme", &json!({ "name": id }));
        assert_eq!(made.0, 201, "{}", made.1);
        let path = format!("/devices/{id}/credentials?tenant=acme");
        let made = api.ask(1, "POST", &path, &json!({ "style": "fostrom" }));
        Self { id: id.to_owned(), secret: text(&made, 201, "secret") }
    }

    fn headers(&self) -> [(&str, &str); 3] {
        [("X-Fleet-ID", FLEET), ("x-device-id", &*self.id), ("X-DEVICE-SECRET", &*self.secret)]
    }

    fn request(&self, method: &str, to: SocketAddr, path: &str, body: &str) -> http::Answer {
        http::api(method, to, path, &self.headers(), body)
    }

    fn moonlight(&self, to: SocketAddr) -> Moon {
        let mut moon = Moon::open(to);
        moon.say(&self.connect());
        moon
    }

    fn connect(&self) -> Packet {
        let mut secret = [b'x'; 36];
        secret.copy_from_slice(self.secret.as_bytes());
        let mut device = [b'x'; 10];
        device.copy_from_slice(self.id.as_bytes());
        let credentials = Credentials { fleet: *b"FLEET001", device, secret };
        let connect = Connect { keep_alive: true, version: 1, format: Format::Json, credentials };
        Packet::Connect(Box::new(connect))
    }
}

/// A Moonlight connection as an agent has it.
struct Moon {
    stream: TcpStream,
    input: BytesMut,
}

impl Moon {
    fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&to, SOON).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self { stream, input: BytesMut::new() }
    }

    fn say(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        encode(packet, &mut bytes).unwrap();
        // One that is closed already says why.
        drop(self.stream.write_all(&bytes));
    }

    /// The next packet; [`None`] at the end.
    #[track_caller]
    fn hear(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = Decoder::of(Side::Server).decode(&mut self.input).unwrap() {
                return Some(packet);
            }
            let mut more = [0; 4096];
            match self.stream.read(&mut more).unwrap() {
                0 => return None,
                read => self.input.extend_from_slice(&more[..read]),
            }
        }
    }

    /// The answer to a packet; news of mail may come before it.
    #[track_caller]
    fn ask(&mut self, packet: &Packet) -> Packet {
        self.say(packet);
        loop {
            match self.hear().expect("it stays open") {
                Packet::NewMailEvent => {}
                other => return other,
            }
        }
    }

    /// The front mail's id, and how many wait.
    #[track_caller]
    fn next(&mut self) -> (u16, Option<MailId>) {
        let answer = self.ask(&Packet::MailboxNext { txn: 1, header_only: false });
        match answer {
            Packet::MailboxNextResp { next: Next::Empty, .. } => (0, None),
            Packet::MailboxNextResp { next: Next::Mail { size, id, .. }, .. } => (size, Some(id)),
            other => panic!("{other:?}"),
        }
    }

    /// How many are left, if it was done.
    #[track_caller]
    fn settle(&mut self, id: MailId, settlement: Settlement) -> Option<u16> {
        match self.ask(&Packet::AckMail { id, settlement }) {
            Packet::AckMailResp { success, size, .. } => success.then_some(size),
            other => panic!("{other:?}"),
        }
    }
}

/// A stream of server-sent events.
struct Stream(BufReader<TcpStream>);

impl Stream {
    #[track_caller]
    fn open(device: &Device, to: SocketAddr) -> Self {
        let mut stream = TcpStream::connect_timeout(&to, SOON).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let Device { id, secret } = device;
        write!(
            stream,
            "GET /v1/events HTTP/1.1\r\nhost: x\r\nx-fleet-id: {FLEET}\r\nx-device-id: {id}\r\n\
             x-device-secret: {secret}\r\naccept: text/event-stream\r\n\r\n"
        )
        .unwrap();
        let mut stream = Self(BufReader::new(stream));
        assert!(stream.line().starts_with("HTTP/1.1 200 "));
        while !stream.line().is_empty() {}
        stream
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next event's name; what frames the chunks of the answer is passed over.
    #[track_caller]
    fn event(&mut self) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            assert!(Instant::now() < deadline, "no event");
            if let Some(name) = self.line().strip_prefix("event: ") {
                return name.to_owned();
            }
        }
    }
}

#[test]
fn fostroms_devices_are_served() {
    let limits =
        "connects-per-client-s = 4\nconnects-per-client-burst = 4\nconnects-per-tenant-s = 0\n";
    let (extra, mqtt) = ("anonymous = true\n".to_owned(), limits.to_owned());
    let shape = Shape { extra, mqtt, ..Shape::of(3) };
    let mut api = Api::start_as(&shape, &["http", "moonlight"]);
    let number = json!({ "type": "uint8" });
    let schemas = json!({
        "env": { "kind": "datapoint", "direction": "inbound", "fields": { "n": number } },
        "hello": { "kind": "msg", "direction": "both" },
    });
    let settings = json!({ "fostrom": { "schemas": schemas } });
    let aliases = [format!("fostrom:{FLEET}")];
    let tenant = json!({ "name": "acme", "aliases": aliases, "settings": settings });
    assert_eq!(api.ask(1, "POST", "/tenants", &tenant).0, 201);
    scenarios(
        &mut api,
        &[
            ("HTTP answers as its table says", http_answers),
            ("a connection that is kept", kept),
            ("one port has HTTP and MQTT over WebSocket", one_port),
            ("a stream tells of mail that came through another node", streams),
            ("Moonlight fetches and settles", moonlight_mail),
            ("MQTT is pushed mail, and settles it by publishing", mqtt_mail),
            ("MQTT ends what has no place in it", mqtt_ends),
            ("mail may be fetched by one protocol and settled by another", mixed),
            ("what is sent up by any protocol is in the stream, in order", sent_up),
            ("who may not come in hears why", denied),
            ("a device is one connection, the last", taken_over),
            ("who comes again and again has its rate", too_often),
            ("who is revoked is turned out on every node", revoked),
            ("ten wrong secrets are a ban", banned),
            ("mail is settled once each while leaders die", leaders_die),
        ],
    );
}

#[track_caller]
fn send(api: &Api, node: u64, device: &str, name: &str, payload: &Value) -> String {
    let path = format!("/devices/{device}/mailbox?tenant=acme");
    text(&api.ask(node, "POST", &path, &json!({ "name": name, "payload": payload })), 201, "id")
}

/// The states that a mail went through, and by which protocols.
#[track_caller]
fn story(api: &Api, device: &str, mail: &str) -> Vec<String> {
    let path = format!("/devices/{device}/mailbox/{mail}?tenant=acme");
    let (status, mail) = api.ask(2, "GET", &path, &Value::Null);
    assert_eq!(status, 200, "{mail}");
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let notes = mail["history"].as_array().unwrap().iter();
    notes.map(|note| format!("{} by {}", word(&note["what"]), word(&note["by"]))).collect()
}

fn http_answers(api: &mut Api) {
    let device = Device::new(api, "DEVICE0001");
    let at = |node| api.at(node, "http");
    let root = http::api("GET", at(1), "/", &[], "");
    let expected = json!({ "fostrom": true, "endpoint": "device", "latest_endpoint_version": 1 });
    assert_eq!((root.status, root.json()), (200, expected));
    let known = device.request("GET", at(2), "/v1", "");
    assert_eq!(known.json()["device"], json!({ "fleet_id": FLEET, "device_id": device.id }));
    let beat = device.request("POST", at(3), "/v1/heartbeat", "");
    assert_eq!((beat.status, beat.json()), (201, json!({ "ok": true })));
    for line in
        ["cache-control: no-store", "content-type: application/json", "x-messages-available: false"]
    {
        assert!(beat.head.contains(line), "{line} in {}", beat.head);
    }
    assert_eq!(device.request("GET", at(1), "/v1/mailbox/next", "").status, 204);
    let sent = [
        send(api, 2, &device.id, "open-gate", &json!({ "gate": 1 })),
        send(api, 3, &device.id, "close", &Value::Null),
    ];
    let size = device.request("GET", at(1), "/v1/mailbox/size", "");
    assert_eq!((size.status, size.json()), (200, json!({ "size": 2 })));
    assert!(size.head.contains("x-messages-available: true"));
    for node in [1, 2, 3] {
        let next = device.request("GET", at(node), "/v1/mailbox/next", "");
        let mail = json!({ "id": sent[0], "name": "open-gate", "payload": { "gate": 1 } });
        assert_eq!((next.status, next.json()), (200, mail), "the same until it is settled");
    }
    let [first, second] = &sent;
    until_true("each node noted what it gave out", SOON, || {
        let http = "delivered by http";
        story(api, &device.id, first) == ["queued by api", http, http, http]
    });
    let unknown = "018f4d1f-2a55-7f0e-b4ea-5f7c3e6fa001";
    #[rustfmt::skip]
    let table = [
        ("PUT",  format!("/v1/mailbox/ack/{second}"),     "",          409, "not_next_mail"),
        ("PUT",  format!("/v1/mailbox/ack/{unknown}"),    "",          409, "not_next_mail"),
        ("PUT",  "/v1/mailbox/ack/7".to_owned(),          "",          400, "invalid_pulse_id"),
        ("GET",  "/v2".to_owned(),                        "",          404, "not_found"),
        ("POST", "/v1/mailbox/next".to_owned(),           "",          404, "not_found"),
        ("POST", "/v1/datapoint/env".to_owned(),          "[1]",       400, "deserialization_failed"),
        ("POST", "/v1/datapoint/env".to_owned(),          "",          400, "deserialization_failed"),
        ("POST", "/v1/datapoint/no%20name".to_owned(),    "{\"a\":1}", 422, "packet_schema_not_found"),
        ("POST", "/v1/datapoint/unheard".to_owned(),      "{\"a\":1}", 422, "packet_schema_not_found"),
        ("POST", "/v1/msg/env".to_owned(),                "{\"n\":1}", 422, "packet_schema_not_found"),
    ];
    for (method, path, body, status, code) in table {
        let answer = device.request(method, at(1), &path, body);
        let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer.status, status, "{method} {path}: {error}");
        assert!(error.starts_with(code), "{method} {path}: {error}");
    }
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(64 * 1024));
    assert_eq!(device.request("POST", at(1), "/v1/msg/env", &large).status, 413);
    let acked = device.request("PUT", at(2), &format!("/v1/mailbox/requeue/{first}"), "");
    assert_eq!((acked.status, acked.json()), (200, json!({ "ok": true })));
    for (id, op) in [(second, "reject"), (first, "ack")] {
        assert_eq!(device.request("PUT", at(3), &format!("/v1/mailbox/{op}/{id}"), "").status, 200);
    }
    let twice = device.request("PUT", at(3), &format!("/v1/mailbox/ack/{first}"), "");
    assert_eq!(twice.status, 200, "an answer may be lost: {}", twice.body);
    let told = ["queued by api", "delivered by http", "requeued by http", "acked by http"];
    until_true("the story is whole", SOON, || {
        let mut told_first = story(api, &device.id, first);
        // Each node takes note of what it gave out.
        told_first.dedup();
        told_first == told
    });
}

/// One connection for many requests: each is answered by what the registry says then.
fn kept(api: &mut Api) {
    let device = Device::new(api, "DEVICE0031");
    let other = Device::new(api, "DEVICE0032");
    let mails: Vec<_> =
        (0..6).map(|number| send(api, 1, &device.id, "open", &json!({ "n": number }))).collect();
    let mut kept = http::Kept::open(api.at(2, "http"));
    let next = |kept: &mut http::Kept| kept.ask("GET", "/v1/mailbox/next", &device.headers());
    let ack = |kept: &mut http::Kept, mail: &str| {
        kept.ask("PUT", &format!("/v1/mailbox/ack/{mail}"), &device.headers())
    };
    for mail in &mails[..2] {
        assert_eq!(next(&mut kept).json()["id"], json!(mail));
        assert_eq!(ack(&mut kept, mail).status, 200);
        let told = ["queued by api", "delivered by http", "acked by http"];
        assert_eq!(story(api, &device.id, mail), told, "noted by the ack itself");
    }
    // Another device by the same connection, and a wrong secret: nobody is taken for who came before.
    let of_other = kept.ask("GET", "/v1/mailbox/next", &other.headers());
    assert_eq!((of_other.status, of_other.body), (204, String::new()));
    assert_eq!(next(&mut kept).json()["id"], json!(mails[2]));
    let mut wrong = device.headers();
    wrong[2].1 = "FOS-0123456789ABCDEF0123456789ABCDEF";
    for path in ["/v1/mailbox/next", "/v1/mailbox/size"] {
        assert_eq!(kept.ask("GET", path, &wrong).status, 401);
    }
    // Its row changes: that costs nothing but a look.
    let path = format!("/devices/{}?tenant=acme", device.id);
    let labels = json!({ "settings": { "labels": ["changed"] } });
    assert_eq!(api.ask(3, "PUT", &path, &labels).0, 200);
    assert_eq!(ack(&mut kept, &mails[2]).status, 200);
    assert_eq!(next(&mut kept).json()["id"], json!(mails[3]));
    // Disabled and deleted credentials let nobody in from the next request on.
    let enable = |enabled: bool| {
        assert_eq!(api.ask(1, "PUT", &path, &json!({ "enabled": enabled })).0, 200);
    };
    enable(false);
    assert_eq!(ack(&mut kept, &mails[3]).status, 403);
    assert_eq!(next(&mut kept).status, 403);
    enable(true);
    assert_eq!(ack(&mut kept, &mails[3]).status, 200);
    let credentials = format!("/devices/{}/credentials", device.id);
    let listed = api.ask(1, "GET", &format!("{credentials}?tenant=acme"), &Value::Null);
    let id = listed.1[0]["id"].as_str().unwrap().to_owned();
    let gone = api.ask(1, "DELETE", &format!("{credentials}/{id}?tenant=acme"), &Value::Null);
    assert_eq!(gone.0, 204, "{}", gone.1);
    assert_eq!(ack(&mut kept, &mails[4]).status, 401);
    assert_eq!(next(&mut kept).status, 401);
    assert_eq!(story(api, &device.id, &mails[4]), ["queued by api"]);
}

fn one_port(api: &mut Api) {
    let mut stream = TcpStream::connect(api.at(1, "http")).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
        .write_all(
            b"GET /any HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
              sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
              sec-websocket-protocol: mqtt\r\n\r\n",
        )
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    let connect = packet::connect(&packet::Connect::clean(Version::V4, "by-one-port"));
    // A masked binary frame, with a mask that changes nothing.
    let mut frame = vec![0x82, 0x80 | u8::try_from(connect.len()).unwrap(), 0, 0, 0, 0];
    frame.extend(connect);
    stream.write_all(&frame).unwrap();
    let mut connack = [0; 6];
    stream.read_exact(&mut connack).unwrap();
    assert_eq!(connack, [0x82, 4, 0x20, 2, 0, 0]);
}

fn streams(api: &mut Api) {
    let device = Device::new(api, "DEVICE0002");
    let mut stream = Stream::open(&device, api.at(1, "http"));
    assert_eq!(stream.event(), "connected");
    let first = send(api, 2, &device.id, "one", &Value::Null);
    assert_eq!(stream.event(), "new_mail");
    let ack = format!("/v1/mailbox/ack/{first}");
    assert_eq!(device.request("PUT", api.at(3, "http"), &ack, "").status, 200);
    send(api, 3, &device.id, "two", &Value::Null);
    assert_eq!(stream.event(), "new_mail");
    let mut late = Stream::open(&device, api.at(2, "http"));
    assert_eq!([late.event(), late.event()], ["connected", "new_mail"], "mail waits already");
    assert_eq!(
        api.ask(2, "DELETE", &format!("/devices/{}?tenant=acme", device.id), &Value::Null).0,
        204
    );
    for stream in [&mut stream, &mut late] {
        until_true("the stream ends", SOON, || stream.event() == "disconnected");
    }
}

fn moonlight_mail(api: &mut Api) {
    let device = Device::new(api, "DEVICE0003");
    let mut moon = device.moonlight(api.at(1, "moonlight"));
    let connected = Packet::Connected { mail_available: false, keep_alive: true };
    assert_eq!(moon.hear(), Some(connected));
    assert_eq!(moon.ask(&Packet::Heartbeat), Packet::HeartbeatAck { success: true });
    assert_eq!(moon.next(), (0, None));
    let sent: Vec<_> =
        (0..60).map(|n| send(api, n % 3 + 1, &device.id, "do", &json!({ "n": n }))).collect();
    let sent: Vec<_> = sent.iter().map(|id| MailId::parse(id).unwrap()).collect();
    assert_eq!(moon.hear(), Some(Packet::NewMailEvent));
    assert_eq!(moon.next(), (60, Some(sent[0])));
    assert_eq!(moon.settle(sent[1], Settlement::Ack), None, "not the next one");
    // To the tail; then all others, and in the end this one again.
    let order: Vec<_> = sent[1..].iter().chain([&sent[0]]).copied().collect();
    assert_eq!(moon.settle(sent[0], Settlement::Requeue), Some(60));
    for (settled, id) in (1_u16..).zip(order) {
        assert_eq!(moon.next(), (61 - settled, Some(id)));
        // The fiftieth in a row is said to be the last, so that an SDK begins on a fresh stack.
        let said = if settled == 49 { 0 } else { 60 - settled };
        assert_eq!(moon.settle(id, Settlement::Ack), Some(said), "{settled}");
    }
    let goodbye = Packet::CloseConnection { from: Side::Client };
    moon.say(&goodbye);
    until_true("it is closed", SOON, || moon.hear().is_none());
}

impl Device {
    fn hello(&self, format: &str, keep_alive_s: u16) -> packet::Connect {
        let login = Some((format!("{FLEET}::{}", self.id), self.secret.clone()));
        packet::Connect { login, keep_alive_s, ..packet::Connect::clean(Version::V4, format) }
    }
}

/// The payload of what was published to a device.
#[track_caller]
fn pushed(client: &mut Client, topic: &str) -> Value {
    let message = client.message();
    assert_eq!(message.topic, topic);
    client.ack(&message);
    serde_json::from_slice(&message.payload).unwrap()
}

fn mqtt_mail(api: &mut Api) {
    let device = Device::new(api, "DEVICE0009");
    let first = send(api, 1, &device.id, "one", &json!({ "n": 1 }));
    let (mut client, _) = device.hello("JSON", 60).to(api.cluster.mqtt(2));
    assert_eq!(client.subscribe(&[("mailbox/#", 1), ("resp/#", 1), ("other", 1)]), [1, 1, 0x80]);
    let mail = json!({ "id": first, "name": "one", "payload": { "n": 1 }, "mailbox_size": 1 });
    assert_eq!(pushed(&mut client, "mailbox/mail"), mail, "what waits comes by itself");
    let second = send(api, 3, &device.id, "two", &Value::Null);
    client.publish_acked(&format!("mailbox/ack/{second}"), b"");
    let wrong = pushed(&mut client, "resp/error");
    assert!(wrong["error"].as_str().unwrap().starts_with("not_next_mail"), "{wrong}");
    client.publish_acked(&format!("mailbox/requeue/{first}"), b"");
    assert_eq!(pushed(&mut client, "mailbox/mail")["id"], json!(second));
    client.publish_acked(&format!("mailbox/ack/{second}"), b"");
    assert_eq!(pushed(&mut client, "mailbox/mail")["id"], json!(first));
    client.publish_acked(&format!("mailbox/reject/{first}"), b"");
    client.publish_acked("mailbox/next", b"");
    assert_eq!(pushed(&mut client, "mailbox/mail"), json!({ "id": null, "mailbox_size": 0 }));
    client.publish_acked("heartbeat", b"");
    // Nothing of it reaches the topics of other clients, and nothing of theirs comes here.
    client.ping();
    client.disconnect();
}

fn mqtt_ends(api: &mut Api) {
    let device = Device::new(api, "DEVICE0010");
    let at = api.cluster.mqtt(1);
    let reason = |hello: packet::Connect| hello.reason(at);
    assert_eq!(reason(device.hello("JSON", 60)), 0);
    assert_eq!(reason(device.hello("MSGPACK", 60)), 0);
    assert_eq!(reason(device.hello("my-client", 60)), 2, "no such format");
    let mut wrong = device.hello("JSON", 60);
    wrong.login = Some((format!("{FLEET}::{}", device.id), "FOS-wrong".to_owned()));
    assert_eq!(reason(wrong), 5);
    let mut five = device.hello("JSON", 60);
    five.version = Version::V5;
    assert_eq!(reason(five), 0x84);
    for topic in ["elsewhere", "datapoint", "mailbox/ack"] {
        let (mut client, _) = device.hello("JSON", 60).to(at);
        client.publish_unchecked(topic, b"{}");
        assert_eq!(client.hear(SOON), Heard::Closed, "{topic}");
    }
    // Who does not stay is closed after a while, and is pushed nothing.
    send(api, 2, &device.id, "later", &Value::Null);
    let (mut brief, _) = device.hello("JSON", 5).to(at);
    brief.subscribe_1("mailbox/mail");
    brief.publish_acked("heartbeat", b"");
    assert_eq!(brief.hear(SOON), Heard::Closed);
    let (mut stays, _) = device.hello("JSON", 60).to(at);
    let path = format!("/devices/{}?tenant=acme", device.id);
    assert_eq!(api.ask(2, "PUT", &path, &json!({ "enabled": false })).0, 200);
    assert_eq!(stays.hear(SOON), Heard::Closed, "disabled");
}

fn mixed(api: &mut Api) {
    let device = Device::new(api, "DEVICE0004");
    let first = send(api, 1, &device.id, "mixed", &json!({ "deep": [1, { "a": null }] }));
    let next = device.request("GET", api.at(2, "http"), "/v1/mailbox/next", "");
    assert_eq!(next.json()["id"], json!(first));
    until_true("that is noted", SOON, || {
        story(api, &device.id, &first) == ["queued by api", "delivered by http"]
    });
    let mut moon = device.moonlight(api.at(3, "moonlight"));
    let connected = Packet::Connected { mail_available: true, keep_alive: true };
    assert_eq!(moon.hear(), Some(connected));
    let id = MailId::parse(&first).unwrap();
    assert_eq!(moon.next(), (1, Some(id)));
    assert_eq!(moon.settle(id, Settlement::Reject), Some(0));
    until_true("the story is whole", SOON, || {
        story(api, &device.id, &first)
            == [
                "queued by api",
                "delivered by http",
                "delivered by moonlight",
                "rejected by moonlight",
            ]
    });
}

fn sent_up(api: &mut Api) {
    let device = Device::new(api, "DEVICE0011");
    let mut events = api.events(3, &format!("tenant=acme&device={}", device.id));
    let http = |n: u8| {
        let body = json!({ "n": n }).to_string();
        device.request("POST", api.at(1, "http"), "/v1/datapoint/env", &body)
    };
    assert_eq!((http(0).status, http(1).status), (201, 201));
    let mut moon = device.moonlight(api.at(2, "moonlight"));
    moon.hear();
    let pulse = |n: u64, name: &str, payload: &Value| {
        let (name, payload) = (Text::from(name), payload.to_string().into());
        Packet::Pulse(Pulse { kind: PulseKind::Datapoint, txn: n, name, payload })
    };
    // Many at once; the answers come as they are ready.
    (2..40).for_each(|n| moon.say(&pulse(n, "env", &json!({ "n": n }))));
    for _ in 2..40 {
        let answer = moon.hear().unwrap();
        assert!(matches!(answer, Packet::PulseResp { result: Ok(()), .. }), "{answer:?}");
    }
    let refused = moon.ask(&pulse(99, "unheard", &json!({ "n": 1 })));
    let expected = Err(PulseError::SchemaNotFound);
    assert_eq!(refused, Packet::PulseResp { txn: 99, result: expected });
    let (mut client, _) = device.hello("JSON", 60).to(api.cluster.mqtt(3));
    assert_eq!(client.subscribe(&[("resp/#", 0)]), [0]);
    // What does not match its schema is dropped, and its sender can't help it.
    assert_eq!(http(40).status, 201);
    for n in [41, 256, 42] {
        client.publish_acked("datapoint/env", json!({ "n": n }).to_string().as_bytes());
    }
    client.publish_acked("msg/unheard", b"");
    let said = client.message();
    assert!(String::from_utf8_lossy(&said.payload).contains("packet_schema_not_found"));
    client.publish_acked("msg/hello", b"");
    let (mut numbers, mut protocols) = (Vec::new(), BTreeSet::new());
    loop {
        let said = events.next(SOON).expect("an event").data.unwrap();
        if said["type"].as_str().unwrap().starts_with("moorline.presence.") {
            continue;
        }
        protocols.insert(said["protocol"].as_str().unwrap().to_owned());
        let Some(n) = said["data"]["n"].as_u64() else { break };
        numbers.push(n);
    }
    assert_eq!(numbers, (0..=42).collect::<Vec<_>>());
    assert_eq!(protocols, ["http", "moonlight", "mqtt"].map(str::to_owned).into());
}

fn denied(api: &mut Api) {
    let device = Device::new(api, "DEVICE0005");
    let (moonlight, http) = (api.at(1, "moonlight"), api.at(1, "http"));
    let with = |id: &str, secret: &str| Device { id: id.to_owned(), secret: secret.to_owned() };
    let wrong = "FOS-0123456789ABCDEFGHIJKLMNOPQRSTUV";
    #[rustfmt::skip]
    let table = [
        (with(&device.id, wrong),                4, 401),
        (with("DEVICE9999", wrong),              3, 401),
        (with("DEVICE 999", wrong),              1, 400),
    ];
    for (who, reason, status) in table {
        let said = who.moonlight(moonlight).hear().unwrap();
        let Packet::Unauthorized(why) = said else { panic!("{said:?}") };
        assert_eq!(why as u8, reason, "{}", who.id);
        assert_eq!(who.request("POST", http, "/v1/heartbeat", "").status, status, "{}", who.id);
    }
    let path = format!("/devices/{}?tenant=acme", device.id);
    assert_eq!(api.ask(1, "PUT", &path, &json!({ "enabled": false })).0, 200);
    let said = device.moonlight(moonlight).hear().unwrap();
    assert!(matches!(said, Packet::Unauthorized(why) if why as u8 == 5), "{said:?}");
    assert_eq!(device.request("POST", http, "/v1/heartbeat", "").status, 403);
    // Nobody learns that from a wrong secret.
    let said = with(&device.id, wrong).moonlight(moonlight).hear().unwrap();
    assert!(matches!(said, Packet::Unauthorized(why) if why as u8 == 4), "{said:?}");
}

fn taken_over(api: &mut Api) {
    let device = Device::new(api, "DEVICE0012");
    let mut stream = Stream::open(&device, api.at(1, "http"));
    assert_eq!(stream.event(), "connected");
    let mut first = device.moonlight(api.at(1, "moonlight"));
    assert!(matches!(first.hear(), Some(Packet::Connected { .. })));
    // By another protocol, on the same node: the later one is told from the earlier by its number.
    let (mut second, _) = device.hello("JSON", 60).to(api.cluster.mqtt(1));
    assert_eq!(first.hear(), Some(Packet::CloseConnection { from: Side::Server }));
    assert_eq!(first.hear(), None);
    second.ping();
    let mut third = device.moonlight(api.at(1, "moonlight"));
    assert!(matches!(third.hear(), Some(Packet::Connected { .. })));
    assert_eq!(second.hear(SOON), Heard::Closed);
    assert_eq!(third.ask(&Packet::Heartbeat), Packet::HeartbeatAck { success: true });
    // A stream is no connection of the device itself.
    send(api, 2, &device.id, "still", &Value::Null);
    assert_eq!(stream.event(), "new_mail");
    let goodbye = Packet::CloseConnection { from: Side::Client };
    third.say(&goodbye);
}

fn too_often(api: &mut Api) {
    let device = Device::new(api, "DEVICE0013");
    // A burst, then those that wait for their turn, and then none.
    let said: Vec<_> = thread::scope(|scope| {
        let connects: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| device.moonlight(api.at(1, "moonlight")).hear()))
            .collect();
        connects.into_iter().map(|connect| connect.join().unwrap()).collect()
    });
    let refused = Some(Packet::ConnectFailed(ConnectFailedReason::Degraded));
    let refused = said.iter().filter(|said| **said == refused).count();
    assert!((1..20).contains(&refused), "{said:?}");
}

fn revoked(api: &mut Api) {
    let mut open = Vec::new();
    for node in [1, 2, 3] {
        let device = Device::new(api, &format!("DEVICE006{node}"));
        let mut moon = device.moonlight(api.at(node, "moonlight"));
        assert!(matches!(moon.hear(), Some(Packet::Connected { .. })));
        open.push((node, device, moon));
    }
    for (node, device, moon) in &mut open {
        let path = format!("/devices/{}?tenant=acme", device.id);
        let since = Instant::now();
        assert_eq!(api.ask(*node % 3 + 1, "PUT", &path, &json!({ "enabled": false })).0, 200);
        let said = moon.hear();
        let disabled = matches!(said, Some(Packet::Unauthorized(why)) if why as u8 == 5);
        assert!(disabled, "node {node}: {said:?}");
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    }
}

fn banned(api: &mut Api) {
    let device = Device::new(api, "DEVICE0007");
    let http = api.at(1, "http");
    let wrong =
        Device { secret: "FOS-0123456789ABCDEFGHIJKLMNOPQRSTUV".to_owned(), id: device.id.clone() };
    for _ in 0..10 {
        assert_eq!(wrong.request("POST", http, "/v1/heartbeat", "").status, 401);
    }
    let banned = device.request("POST", http, "/v1/heartbeat", "");
    assert_eq!(banned.status, 403, "also with the right one");
    assert!(
        banned.head.contains("retry-after: 900") || banned.head.contains("retry-after: 89"),
        "{}",
        banned.head
    );
    let said = device.moonlight(api.at(1, "moonlight")).hear().unwrap();
    assert!(matches!(said, Packet::Unauthorized(why) if why as u8 == 6), "{said:?}");
    let elsewhere = device.request("POST", api.at(2, "http"), "/v1/heartbeat", "");
    assert_eq!(elsewhere.status, 201, "another node has its own count");
}

fn leaders_die(api: &mut Api) {
    let device = Device::new(api, "DEVICE0008");
    let sent: Vec<_> =
        (0..30).map(|n| send(api, n % 3 + 1, &device.id, "do", &json!({ "n": n }))).collect();
    let mut done = Vec::new();
    while done.len() < sent.len() {
        let (victim, serving) = match done.len() {
            5 => (Some(1), 2),
            15 => (Some(2), 3),
            25 => (Some(3), 1),
            many => (None, many as u64 % 3 + 1),
        };
        let next = device.request("GET", api.at(serving, "http"), "/v1/mailbox/next", "");
        assert_eq!(next.status, 200, "{}", next.body);
        let id = next.json()["id"].as_str().unwrap().to_owned();
        if let Some(victim) = victim {
            // Between next and ack.
            api.cluster.node_mut(victim).kill();
        }
        let ack = format!("/v1/mailbox/ack/{id}");
        until("the mail is settled", SOON, || {
            let answer = device.request("PUT", api.at(serving, "http"), &ack, "");
            assert!([200, 503].contains(&answer.status), "{} {}", answer.status, answer.body);
            (answer.status == 200).then_some(())
        });
        done.push(id);
        if let Some(victim) = victim {
            api.cluster.node_mut(victim).start_ready();
        }
    }
    assert_eq!(done, sent, "in order, each once");
    assert_eq!(device.request("GET", api.at(1, "http"), "/v1/mailbox/next", "").status, 204);
}
