//! Two tenants that do the same things with the same names never observe each other: random operations of both against three nodes,
//! a canary in everything that is written, and none of the other's ever seen.
//!
//! The seed is printed; `MOORLINE_SEED` repeats it.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use crate::harness::{
    api::{Api, text},
    mqtt::{Client, Heard},
    packet::{Connect, Packet, Version},
    sse::Sse,
    wait::SOON,
};

const TENANTS: [&str; 2] = ["alpha", "beta"];
const DEVICES: [&str; 3] = ["d0", "d1", "$share"];
const CLIENTS: [&str; 4] = ["c0", "c1", "d0", "#"];
const TOPICS: [&str; 6] = ["a", "a/b", "a/b/c", "x", "/", "d0/x"];
const FILTERS: [&str; 9] =
    ["#", "a/#", "+/b", "+", "$share/g/#", "$share/g/a/+", "$share/h/x", "a/b", "+/+/#"];
/// Enough that every operation is done some ten times by each.
const STEPS: usize = 400;
/// How long is listened for what should not come.
const QUIET: Duration = Duration::from_millis(50);

/// Numbers by a seed (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn node(&mut self) -> u64 {
        self.below(3) as u64 + 1
    }
}

/// What one tenant has.
struct Side {
    name: &'static str,
    other: &'static str,
    token: String,
    secrets: BTreeMap<&'static str, String>,
    clients: BTreeMap<(&'static str, &'static str), Client>,
    written: usize,
    heard: usize,
}

impl Side {
    fn start(api: &Api, at: usize) -> Self {
        let (name, other) = (TENANTS[at], TENANTS[1 - at]);
        let topics = json!({ "publish": ["#"], "subscribe": ["#"] });
        let made = json!({ "name": name, "settings": { "topics": topics } });
        assert_eq!(api.ask(1, "POST", "/tenants", &made).0, 201);
        let tokens = format!("/tokens?tenant={name}");
        let made = api.ask(1, "POST", &tokens, &json!({ "name": "all", "role": "admin" }));
        let token = text(&made, 201, "token");
        let mut secrets = BTreeMap::new();
        for device in DEVICES {
            let made = json!({ "name": device, "settings": { "labels": [canary(name)] } });
            assert_eq!(api.ask_as(&token, 2, "POST", "/devices", &made).0, 201);
            let path = format!("/devices/{device}/credentials");
            let made = api.ask_as(&token, 3, "POST", &path, &json!({}));
            secrets.insert(device, text(&made, 201, "secret"));
        }
        let clients = BTreeMap::new();
        Self { name, other, token, secrets, clients, written: 0, heard: 0 }
    }

    /// Something that only this tenant writes.
    fn write(&mut self) -> String {
        self.written += 1;
        format!("{}-{}", canary(self.name), self.written)
    }

    #[track_caller]
    fn see(&self, what: &str, seen: &str) {
        let foreign = canary(self.other);
        assert!(!seen.contains(&foreign), "{} sees {foreign} in {what}: {seen}", self.name);
    }

    /// Takes all that came to a client.
    #[track_caller]
    fn drain(&mut self, key: (&'static str, &'static str), within: Duration) {
        let Some(mut client) = self.clients.remove(&key) else { return };
        loop {
            match client.hear(within) {
                Heard::Packet(Packet::Publish(heard)) => {
                    self.heard += 1;
                    self.see("a message", &String::from_utf8_lossy(&heard.payload));
                    match heard.qos {
                        2 => {
                            client.receive(&heard);
                            client.complete(heard.id);
                        }
                        _ => client.ack(&heard),
                    }
                }
                Heard::Packet(_) => {}
                Heard::Nothing => break,
                // Nobody else may end it, least of all a namesake of the other tenant.
                Heard::Closed => panic!("{} {key:?} was closed", self.name),
            }
        }
        self.clients.insert(key, client);
    }

    fn connect(&mut self, api: &Api, chance: &mut Chance) {
        let key = (chance.of(&DEVICES), chance.of(&CLIENTS));
        self.clients.remove(&key);
        let version = chance.of(&[Version::V5, Version::V4]);
        let kind = if chance.below(2) == 0 { Connect::clean } else { Connect::durable };
        let mut connect = kind(version, key.1);
        let user = format!("{}@{}", key.0, self.name);
        connect.login = Some((user, self.secrets[key.0].clone()));
        if chance.below(2) == 0 {
            let (topic, payload) = (chance.of(&TOPICS), self.write());
            connect = connect.leaving(topic, &payload, 0);
        }
        let (client, _) = connect.to_patiently(api.cluster.mqtt(chance.node()));
        self.clients.insert(key, client);
    }

    /// One of its clients, if it has one.
    fn any(&self, chance: &mut Chance) -> Option<(&'static str, &'static str)> {
        let keys: Vec<_> = self.clients.keys().copied().collect();
        (!keys.is_empty()).then(|| chance.of(&keys))
    }

    fn publish(&mut self, chance: &mut Chance) {
        let Some(key) = self.any(chance) else { return };
        self.drain(key, Duration::from_millis(1));
        let (topic, payload) = (chance.of(&TOPICS), self.write());
        let client = self.clients.get_mut(&key).unwrap();
        match chance.below(3) {
            0 => client.retain(topic, payload.as_bytes(), None),
            1 => client.publish_once_any(topic, payload.as_bytes()),
            _ => {
                let id = client.publish(topic, payload.as_bytes());
                assert!(client.puback(id) < 0x80, "{topic}");
            }
        }
    }

    fn subscribe(&mut self, chance: &mut Chance) {
        let Some(key) = self.any(chance) else { return };
        let (filter, qos) = (chance.of(&FILTERS), chance.below(3));
        let qos = u8::try_from(qos).unwrap();
        let client = self.clients.get_mut(&key).unwrap();
        let granted = client.subscribe(&[(filter, qos)]);
        assert!(granted[0] <= qos, "{filter}: {granted:?}");
    }

    /// Writes mail and events, and reads all that there is.
    fn use_api(&self, api: &Api, chance: &mut Chance) {
        let (device, node) = (chance.of(&DEVICES), chance.node());
        let ask = |method: &str, path: &str, body: &Value| {
            api.ask_as(&self.token, node, method, path, body)
        };
        let payload = json!({ "canary": format!("{}-{}", canary(self.name), self.written) });
        let mail = json!({ "name": "open", "payload": payload });
        let mailbox = format!("/devices/{device}/mailbox");
        assert_eq!(ask("POST", &mailbox, &mail).0, 201);
        let event = json!({ "type": "datapoint", "channel": "env", "data": payload });
        let status = ask("POST", &format!("/devices/{device}/events"), &event).0;
        assert!(status < 300, "{status}");
        for path in [
            "/devices",
            &mailbox,
            &format!("/devices/{device}"),
            "/tokens",
            "/consumers",
            &format!("/tenants/{}", self.name),
        ] {
            let (status, seen) = ask("GET", path, &Value::Null);
            assert_eq!(status, 200, "{path}: {seen}");
            self.see(path, &seen.to_string());
        }
        // The other's name opens nothing, and looks like one that nobody has.
        for (method, path) in [
            ("GET", "/devices"),
            ("GET", "/devices/d0"),
            ("GET", "/devices/d0/mailbox"),
            ("DELETE", "/devices/d0"),
            ("POST", "/devices/d0/credentials"),
            ("DELETE", "/devices/d0/mailbox"),
            ("GET", "/tokens"),
            ("GET", "/consumers"),
            ("GET", "/events"),
        ] {
            let body = if method == "POST" { json!({}) } else { Value::Null };
            let answers = [self.other, "nobody"]
                .map(|tenant| ask(method, &format!("{path}?tenant={tenant}"), &body));
            assert_eq!(answers[0].0, 404, "{method} {path}: {}", answers[0].1);
            assert_eq!(answers[0], answers[1], "{method} {path}");
        }
        assert_eq!(ask("GET", &format!("/tenants/{}", self.other), &Value::Null).0, 404);
        assert_eq!(ask("GET", "/tenants", &Value::Null).0, 403);
    }

    /// Its events from the beginning, by a consumer group whose name both have.
    fn read_events(&self, api: &Api, node: u64) {
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str())];
        let path = "/api/v1/events?group=readers";
        let mut events = Sse::open(api.cluster.node(node).admin, path, &headers).unwrap();
        let first = events.next(SOON).expect("it has events");
        self.see("an event", &first.data.unwrap().to_string());
        while let Some(said) = events.next(Duration::from_millis(500)) {
            self.see("an event", &said.data.unwrap_or_default().to_string());
        }
    }
}

fn canary(tenant: &str) -> String {
    format!("canary-of-{tenant}")
}

#[test]
fn two_tenants_never_observe_each_other() {
    let seed = std::env::var("MOORLINE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos()) << 8 | 1
    });
    println!("MOORLINE_SEED={seed}");
    let api = Api::start();
    let mut chance = Chance(seed);
    let mut sides = [Side::start(&api, 0), Side::start(&api, 1)];
    for _ in 0..STEPS {
        let at = chance.below(2);
        let side = &mut sides[at];
        match chance.below(20) {
            0..4 => side.connect(&api, &mut chance),
            4..9 => side.subscribe(&mut chance),
            9..15 => side.publish(&mut chance),
            15 => {
                // Broken off: its will is published.
                if let Some(key) = side.any(&mut chance) {
                    side.clients.remove(&key);
                }
            }
            16 => side.use_api(&api, &mut chance),
            _ => {
                if let Some(key) = side.any(&mut chance) {
                    side.drain(key, QUIET);
                }
            }
        }
    }
    for side in &mut sides {
        let keys: Vec<_> = side.clients.keys().copied().collect();
        keys.into_iter().for_each(|key| side.drain(key, Duration::from_millis(300)));
        // What is retained, by a client that nobody had.
        let mut late = Connect::clean(Version::V5, "late");
        late.login = Some((format!("d1@{}", side.name), side.secrets["d1"].clone()));
        let key = ("d1", "late");
        let (mut client, _) = late.to_patiently(api.cluster.mqtt(chance.node()));
        client.subscribe_1("#");
        side.clients.insert(key, client);
        side.drain(key, Duration::from_millis(500));
        side.use_api(&api, &mut chance);
        side.read_events(&api, chance.node());
        assert!(side.heard > 20, "{} heard {} of {}", side.name, side.heard, side.written);
    }
}
