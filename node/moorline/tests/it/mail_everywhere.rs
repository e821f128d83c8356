//! Mail in each platform's words, and events of all platforms in one stream: one tenant that has a name on each of them, on whichever
//! node, while one dies.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::{
    api::{Api, text},
    cluster::Shape,
    http,
    mqtt::Client,
    packet::{Connect, Publish, Version},
    scenarios,
    wait::{SOON, until, until_true},
};
use crate::{watson::ORG, watson_http::post};

const APP: &str = "5f0c9a1b2c3d4e5f60718293";

/// A device of one of the platforms.
struct Device {
    platform: &'static str,
    name: String,
    connect: Connect,
    filter: String,
    /// What it says of itself over HTTP.
    secret: String,
}

/// A cluster with a tenant of all platforms.
struct Mix {
    api: Api,
    integrator: String,
    losant: (String, String),
}

impl Mix {
    #[track_caller]
    fn start() -> Self {
        let api = Api::start_as(&Shape::of(3), &["http"]);
        let tenant = json!({
            "name": "mix",
            "aliases": [
                "fostrom:FLEET001", format!("watson:{ORG}"), "thingsboard:mix",
                format!("losant:{APP}"), "drogue:mix",
            ],
            "settings": { "chosen-passwords": true, "events": { "published": true } },
        });
        let (status, made) = api.ask(1, "POST", "/tenants", &tenant);
        assert_eq!(status, 201, "{made}");
        let new = json!({ "name": "ci", "role": "operator" });
        let integrator = text(&api.ask(1, "POST", "/tokens?tenant=mix", &new), 201, "token");
        let mut mix = Self { api, integrator, losant: (String::new(), String::new()) };
        let key = mix.rest("/keys", &json!({}));
        let field = |name: &str| key[name].as_str().unwrap().to_owned();
        mix.losant = (field("key"), field("secret"));
        mix
    }

    fn at(&self, node: u64) -> SocketAddr {
        self.api.cluster.mqtt(node)
    }

    /// Asks the REST API of the platform that has its devices made there.
    #[track_caller]
    fn rest(&self, path: &str, body: &Value) -> Value {
        let bearer = format!("Bearer {}", self.integrator);
        let path = format!("/applications/{APP}{path}");
        let headers = [("authorization", &*bearer)];
        let to = self.api.at(1, "http");
        let answer = http::api("POST", to, &path, &headers, &body.to_string());
        assert!(answer.status < 300, "{path}: {} {}", answer.status, answer.body);
        answer.json()
    }

    #[track_caller]
    fn made(&self, name: &str, credential: &Value) -> String {
        let made = self.api.ask(1, "POST", "/devices?tenant=mix", &json!({ "name": name }));
        assert_eq!(made.0, 201, "{}", made.1);
        let path = format!("/devices/{name}/credentials?tenant=mix");
        let (status, made) = self.api.ask(1, "POST", &path, credential);
        assert_eq!(status, 201, "{made}");
        made["secret"].as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    fn watson(&self, id: &str) -> Device {
        let name = format!("pump:{id}");
        let secret = self.made(&name, &json!({}));
        let login = Some(("use-token-auth".to_owned(), secret.clone()));
        let client = format!("d:{ORG}:{name}");
        let connect = Connect { login, ..Connect::clean(Version::V4, &client) };
        let filter = "iot-2/cmd/+/fmt/+".to_owned();
        Device { platform: "watson", name, connect, filter, secret }
    }

    #[track_caller]
    fn thingsboard(&self, name: &str) -> Device {
        let secret = self.made(name, &json!({ "kind": "token" }));
        let login = Some((secret.clone(), String::new()));
        let connect = Connect { login, ..Connect::clean(Version::V4, name) };
        let (name, filter) = (name.to_owned(), "v1/devices/me/rpc/request/+".to_owned());
        Device { platform: "thingsboard", name, connect, filter, secret }
    }

    #[track_caller]
    fn losant(&self) -> Device {
        let new = json!({ "name": "boiler", "deviceClass": "standalone", "attributes": [
            { "name": "seq", "dataType": "number" },
        ] });
        let made = self.rest("/devices", &new);
        let name = made["deviceId"].as_str().unwrap().to_owned();
        let login = Some(self.losant.clone());
        let connect = Connect { login, ..Connect::clean(Version::V4, &name) };
        let filter = format!("losant/{name}/command");
        Device { platform: "losant", name, connect, filter, secret: String::new() }
    }

    #[track_caller]
    fn drogue(&self, name: &str) -> Device {
        let secret = format!("{name} s3cret");
        let credential = json!({ "kind": "password", "user": name, "password": secret });
        self.made(name, &credential);
        let login = Some((format!("{name}@mix"), secret.clone()));
        let connect = Connect { login, ..Connect::clean(Version::V4, "any") };
        let (name, filter) = (name.to_owned(), "command/inbox//#".to_owned());
        Device { platform: "drogue", name, connect, filter, secret }
    }

    /// One of each, of these names.
    #[track_caller]
    fn one_of_each(&self, name: &str) -> [Device; 4] {
        [
            self.watson(name),
            self.thingsboard(&format!("meter-{name}")),
            self.losant(),
            self.drogue(&format!("gate-{name}")),
        ]
    }

    /// Sends a mail: its id.
    #[track_caller]
    fn mail(&self, node: u64, device: &Device, name: &str, payload: &Value) -> String {
        let path = format!("/devices/{}/mailbox?tenant=mix", device.name);
        let mail = json!({ "name": name, "payload": payload });
        // While a leader is elected nobody can take it.
        let sent = until("the mail is taken", SOON, || {
            let (status, sent) = self.api.ask(node, "POST", &path, &mail);
            assert!(status == 201 || status == 503, "{status} {sent}");
            (status == 201).then_some(sent)
        });
        sent["id"].as_str().unwrap().to_owned()
    }

    /// Waits until a mail has ended: how, and the last note of its history.
    #[track_caller]
    fn ended(&self, node: u64, device: &Device, mail: &str) -> (String, Value) {
        let path = format!("/devices/{}/mailbox/{mail}?tenant=mix", device.name);
        let shown = until("the mail has ended", SOON, || {
            let shown = self.api.ask(node, "GET", &path, &Value::Null).1;
            (shown["state"] != "queued" && shown["state"].is_string()).then_some(shown)
        });
        let last = shown["history"].as_array().and_then(|notes| notes.last()).unwrap().clone();
        (shown["state"].as_str().unwrap().to_owned(), last)
    }
}

impl Device {
    /// Connects to a node and listens for commands.
    #[track_caller]
    fn listens(&self, to: SocketAddr) -> Client {
        let (mut client, _) = self.connect.to_patiently(to);
        let granted = client.subscribe(&[(&self.filter, 1)]);
        assert!(granted[0] <= 1, "{}: {granted:?}", self.platform);
        client
    }

    /// What a mail says here: its name and payload.
    #[track_caller]
    fn said(&self, heard: &Publish) -> (String, Value) {
        let body: Value = serde_json::from_slice(&heard.payload).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        match self.platform {
            "watson" => {
                let name = heard.topic.strip_prefix("iot-2/cmd/").unwrap();
                (name.strip_suffix("/fmt/json").unwrap().to_owned(), body)
            }
            "thingsboard" => {
                assert!(heard.topic.starts_with("v1/devices/me/rpc/request/"), "{}", heard.topic);
                (text(&body["method"]), body["params"].clone())
            }
            "losant" => {
                assert_eq!(heard.topic, self.filter);
                assert!(body["time"]["$date"].as_str().unwrap().ends_with('Z'), "{body}");
                (text(&body["name"]), body["payload"].clone())
            }
            _ => (heard.topic.strip_prefix("command/inbox//").unwrap().to_owned(), body),
        }
    }
}

#[track_caller]
fn heard(client: &mut Client) -> Publish {
    let heard = client.message();
    if heard.qos > 0 {
        client.ack(&heard);
    }
    heard
}

#[test]
fn one_mailbox_speaks_every_dialect() {
    let mut mix = Mix::start();
    scenarios(
        &mut mix,
        &[
            ("mail waits for a device that is not there, and comes in order", waiting),
            ("a mail is settled when its client has it", settling),
            ("what can't be said is rejected, and why is kept", rejected),
            ("mail waits until somebody listens for it", listening),
            ("requests are answered with mail, too", polls),
            ("one mail to all with a label", labelled),
            ("events of all are one stream", events),
        ],
    );
}

fn waiting(mix: &mut Mix) {
    for (number, device) in mix.one_of_each("w").iter().enumerate() {
        let node = number as u64 % 3 + 1;
        let mails: Vec<_> = [("open-gate", json!({ "gate": 1 })), ("stop", json!([1, "x"]))]
            .into_iter()
            .map(|(name, payload)| (mix.mail(node, device, name, &payload), name, payload))
            .collect();
        let mut client = device.listens(mix.at(4 - node));
        for (id, name, payload) in mails {
            assert_eq!(device.said(&heard(&mut client)), (name.to_owned(), payload));
            let (state, last) = mix.ended(node, device, &id);
            assert_eq!((&*state, &last["by"]), ("acked", &json!("mqtt")), "{}", device.platform);
        }
        // And what comes while it is there.
        mix.mail(4 - node, device, "again", &Value::Null);
        assert_eq!(device.said(&heard(&mut client)).0, "again");
        client.hears_nothing();
    }
}

fn settling(mix: &mut Mix) {
    for device in [mix.watson("s"), mix.thingsboard("meter-s")] {
        let mail = mix.mail(1, &device, "first", &json!(1));
        let mut client = device.listens(mix.at(2));
        let first = client.message();
        assert_eq!((first.qos, device.said(&first).0), (1, "first".to_owned()));
        // It was not acknowledged: so it is there again, by the same words.
        drop(client);
        let mut client = device.listens(mix.at(3));
        let again = heard(&mut client);
        assert_eq!((again.topic, again.payload), (first.topic, first.payload));
        assert_eq!(mix.ended(1, &device, &mail).0, "acked");
    }
}

fn rejected(mix: &mut Mix) {
    let device = mix.watson("r");
    let bad = mix.mail(1, &device, &"n".repeat(37), &json!(1));
    let good = mix.mail(1, &device, "good", &json!(1));
    let mut client = device.listens(mix.at(2));
    assert_eq!(device.said(&heard(&mut client)).0, "good", "what can't be said blocks nothing");
    let (state, last) = mix.ended(3, &device, &bad);
    assert_eq!(state, "rejected");
    assert!(last["detail"].as_str().unwrap().contains("1 to 36"), "{last}");
    assert_eq!(mix.ended(3, &device, &good).0, "acked");
}

fn listening(mix: &mut Mix) {
    let device = mix.watson("l");
    mix.mail(1, &device, "other", &json!(1));
    let (mut client, _) = device.connect.to(mix.at(2));
    assert_eq!(client.subscribe(&[("iot-2/cmd/wanted/fmt/json", 1)]), [1]);
    client.hears_nothing();
    assert_eq!(client.subscribe(&[("iot-2/cmd/other/fmt/+", 0)]), [0]);
    let other = heard(&mut client);
    assert_eq!((other.qos, device.said(&other).0), (0, "other".to_owned()));
    mix.mail(1, &device, "wanted", &json!(1));
    assert_eq!(device.said(&heard(&mut client)).0, "wanted");
}

fn polls(mix: &mut Mix) {
    let device = mix.watson("h");
    let user = format!("use-token-auth:{}", device.secret);
    let ask = |mix: &Mix, node: u64, command: &str| {
        let commands = "/api/v0002/device/types/pump/devices/h/commands";
        post(mix.api.at(node, "http"), &format!("{commands}/{command}/request"), &user, b"")
    };
    let mail = mix.mail(1, &device, "open", &json!({ "gate": 1 }));
    assert_eq!(ask(mix, 2, "other").status, 204);
    let open = ask(mix, 3, "+");
    assert_eq!((open.status, &*open.body), (200, &br#"{"gate":1}"#[..]));
    assert_eq!(mix.ended(1, &device, &mail).0, "acked");
    assert_eq!(ask(mix, 1, "+").status, 204);

    let device = mix.thingsboard("meter-h");
    let mail = mix.mail(1, &device, "open", &json!({ "gate": 1 }));
    let path = format!("/api/v1/{}/rpc?timeout=20000", device.secret);
    let answer = http::api("GET", mix.api.at(2, "http"), &path, &[], "");
    let call = answer.json();
    assert_eq!(
        (answer.status, &call["method"], &call["params"]["gate"]),
        (200, &json!("open"), &json!(1))
    );
    assert_eq!(mix.ended(3, &device, &mail).0, "acked");
}

fn labelled(mix: &mut Mix) {
    let devices = mix.one_of_each("b");
    for device in &devices {
        let path = format!("/devices/{}?tenant=mix", device.name);
        let patch = json!({ "settings": { "labels": ["here"] } });
        let (status, said) = mix.api.ask(1, "PATCH", &path, &patch);
        assert_eq!(status, 200, "{said}");
    }
    let mut clients: Vec<_> =
        devices.iter().zip([1, 2, 3, 1]).map(|(of, node)| of.listens(mix.at(node))).collect();
    let mail = json!({ "selector": { "label": "here" }, "mail": { "name": "all", "payload": 7 } });
    assert_eq!(mix.api.ask(2, "POST", "/mail?tenant=mix", &mail).0, 200);
    for (device, client) in devices.iter().zip(&mut clients) {
        assert_eq!(
            device.said(&heard(client)),
            ("all".to_owned(), json!(7)),
            "{}",
            device.platform
        );
    }
}

fn events(mix: &mut Mix) {
    let mut stream = mix.api.events(1, "tenant=mix");
    let devices = mix.one_of_each("e");
    let mut numbers = Vec::new();
    for (seq, device) in devices.iter().enumerate() {
        let (mut client, _) = device.connect.to(mix.at(seq as u64 % 3 + 1));
        let (topic, body) = match device.platform {
            "watson" => ("iot-2/evt/env/fmt/json".to_owned(), json!({ "d": { "seq": seq } })),
            "thingsboard" => ("v1/devices/me/telemetry".to_owned(), json!({ "seq": seq })),
            "losant" => {
                (format!("losant/{}/state", device.name), json!({ "data": { "seq": seq } }))
            }
            _ => ("env".to_owned(), json!({ "seq": seq })),
        };
        client.publish_acked(&topic, body.to_string().as_bytes());
        numbers.push((device.name.clone(), format!("\"seq\":{seq}")));
    }
    until_true("all are in the stream", SOON, || {
        let Some(event) = stream.next(SOON).and_then(|event| event.data) else { return false };
        let is_it = |(name, said): &(String, String)| {
            event["device"] == json!(name) && event["data"].to_string().contains(said)
        };
        if let Some(at) = numbers.iter().position(is_it) {
            numbers.remove(at);
        }
        numbers.is_empty()
    });
}

#[test]
fn mail_outlives_the_node_of_its_device() {
    let mut mix = Mix::start();
    let devices = mix.one_of_each("d");
    let mut clients: Vec<_> = devices.iter().map(|of| of.listens(mix.at(2))).collect();
    for (device, client) in devices.iter().zip(&mut clients) {
        mix.mail(1, device, "first", &json!(1));
        // Whoever has to acknowledge it does not.
        assert_eq!(device.said(&client.message()).0, "first");
    }
    mix.api.cluster.node_mut(2).kill();
    for device in &devices {
        mix.mail(1, device, "second", &json!(2));
        mix.mail(3, device, "third", &json!(3));
    }
    for device in &devices {
        let mut client = device.listens(mix.at(3));
        let mut names = Vec::new();
        while names.last().is_none_or(|name| name != "third") {
            names.push(device.said(&heard(&mut client)).0);
        }
        let is_acknowledged = matches!(device.platform, "watson" | "thingsboard");
        // What was handed to the network may have been settled before the node died, or not.
        if !is_acknowledged && names.len() == 2 {
            names.insert(0, "first".to_owned());
        }
        assert_eq!(names, ["first", "second", "third"], "{}", device.platform);
    }
}
