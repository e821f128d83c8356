//! Applications of Drogue Cloud: events over a WebSocket and in binary form, events of the registry, and other names of devices.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    drogue::{Plant, event, login, reads, said},
    harness::{
        api::text,
        http::{self, Answer},
        mqtt::Client,
        packet::{self, Connect, Version},
        scenarios,
        wait::{SOON, until},
        websocket::{Heard, Socket},
    },
};

const POLICY: Option<u16> = Some(1008);
/// A key that is deleted ends a connection within this, also if the news of it are lost.
const REVOKED: Duration = Duration::from_secs(60);
/// A member that is dead is followed within this: its time has to be over.
const FOLLOWED: Duration = Duration::from_secs(40);

fn path(key: &str, place: &str) -> String {
    format!("{place}token={key}")
}

fn open(plant: &Plant, node: u64, place: &str) -> Socket {
    Socket::open(plant.api.at(node, "http"), &path(&plant.key, place))
}

fn device(plant: &Plant, node: u64, name: &str) -> Client {
    login(Version::V5, "x", &format!("{name}@plant"), name).to(plant.at(node)).0
}

/// The next event that a device said.
#[track_caller]
fn next(socket: &mut Socket) -> Value {
    loop {
        let event = socket.next();
        if event["type"] == "io.drogue.event.v1" {
            return event;
        }
    }
}

/// Waits until a WebSocket reads: it begins with what comes then.
#[track_caller]
fn follows(device: &mut Client, socket: &mut Socket, channel: &str) {
    until("the WebSocket reads", FOLLOWED, || {
        device.publish_acked(channel, b"\"probe\"");
        match socket.hear(Duration::from_millis(500)) {
            Heard::Said(_) => Some(()),
            Heard::Nothing => None,
            closed @ Heard::Closed(_) => panic!("{closed:?}"),
        }
    });
    quiet(socket);
}

/// Hears what else comes, until nothing does.
#[track_caller]
fn quiet(socket: &mut Socket) {
    loop {
        match socket.hear(Duration::from_secs(1)) {
            Heard::Said(_) => {}
            Heard::Nothing => return,
            closed @ Heard::Closed(_) => panic!("{closed:?}"),
        }
    }
}

fn operator(plant: &Plant) -> impl Fn(&str, &str, &Value) -> Answer {
    let by = format!("Bearer {}", plant.token("acme", "operator"));
    let to = plant.api.at(2, "http");
    move |method, path, body| {
        let kind =
            if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let headers = [("authorization", by.as_str()), ("content-type", kind)];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let path = format!("/api/registry/v1alpha1/apps/plant/devices{path}");
        http::api(method, to, &path, &headers, &body)
    }
}

#[test]
fn applications_are_told() {
    let mut plant = Plant::start();
    for name in ["prober", "gate"] {
        plant.device(name, name, &json!({}));
    }
    scenarios(
        &mut plant,
        &[
            ("who shows no key of the application has no WebSocket", strangers),
            ("events come over a WebSocket, of all channels or of one", sockets),
            ("a key that is deleted closes a WebSocket, unless another one was shown", refreshed),
            ("events come in binary form", binary),
            ("members of a group have their parts", members),
            ("what is changed in the registry is an event, and devices have other names", changes),
        ],
    );
}

fn strangers(plant: &mut Plant) {
    let at = plant.api.at(1, "http");
    let key = plant.key.clone();
    for (asked, status) in [
        ("/plant".to_owned(), 403),
        (path("mlt_9_nobody_x", "/plant?"), 403),
        (path("drg_x", "/plant?"), 403),
        (path(&key, "/other?"), 403),
        (path(&key, "/nobody?"), 403),
        // Nobody's: MQTT is told so by its subprotocol.
        (path(&key, "/plant/a/b?"), 400),
    ] {
        assert_eq!(Socket::refused(at, &asked), status, "{asked}");
    }
    let plain = http::api("GET", at, &path(&key, "/plant?"), &[], "");
    assert!(plain.status >= 400, "it is no handshake: {}", plain.head);
    let mut socket = open(plant, 1, "/plant?");
    socket.say(&json!({ "Subscribe": "all" }));
    assert_eq!(socket.closed(SOON), Some(1007), "there is no such message");
}

fn sockets(plant: &mut Plant) {
    let mut gate = device(plant, 3, "gate");
    let mut all = open(plant, 1, "/plant?");
    follows(&mut gate, &mut all, "telemetry");
    let query = format!("/plant/telemetry?group_id=one&username=ops&api_key={}", plant.key);
    let mut one = Socket::open(plant.api.at(2, "http"), &query);
    follows(&mut gate, &mut one, "telemetry");
    quiet(&mut all);
    for (channel, data) in [("other", 1), ("telemetry", 2), ("a", 3), ("telemetry", 4)] {
        gate.publish_acked(channel, data.to_string().as_bytes());
    }
    for (channel, data) in [("other", 1), ("telemetry", 2), ("a", 3), ("telemetry", 4)] {
        let event = next(&mut all);
        assert_eq!((&event["subject"], &event["data"]), (&json!(channel), &json!(data)));
        assert_eq!((&event["application"], &event["device"]), (&json!("plant"), &json!("gate")));
    }
    assert_eq!([next(&mut one)["data"].clone(), next(&mut one)["data"].clone()], [2, 4]);
    // What was heard is not heard again, what comes while nobody reads is.
    one.is_taken();
    drop(one);
    for data in 5..25 {
        gate.publish_acked("telemetry", data.to_string().as_bytes());
    }
    let mut one = open(plant, 3, "/plant/telemetry?group_id=one&");
    let mut heard = Vec::new();
    until("it goes on where it was", FOLLOWED, || {
        match one.hear(SOON) {
            Heard::Said(event) => heard.push(event["data"].as_i64().unwrap_or(-1)),
            Heard::Nothing => {}
            closed @ Heard::Closed(_) => panic!("{closed:?}"),
        }
        (heard.last() == Some(&24)).then_some(())
    });
    let fresh: Vec<_> = heard.iter().copied().filter(|data| *data > 4).collect();
    assert_eq!(fresh, (5..25).collect::<Vec<_>>(), "{heard:?}");
}

fn refreshed(plant: &mut Plant) {
    let token = |plant: &Plant, name: &str| {
        let body = json!({ "name": name, "role": "read-only" });
        text(&plant.api.ask(1, "POST", "/tokens?tenant=acme", &body), 201, "token")
    };
    let delete = |plant: &Plant, name: &str| {
        let path = format!("/tokens/{name}?tenant=acme");
        assert_eq!(plant.api.ask(1, "DELETE", &path, &Value::Null).0, 204);
    };
    let (first, second) = (token(plant, "first"), token(plant, "second"));
    let at = plant.api.at(2, "http");
    let connect = |key: &str| Socket::open(at, &path(key, "/plant?"));
    let (mut stays, mut leaves, mut wrong) = (connect(&first), connect(&first), connect(&second));
    stays.say(&json!({ "RefreshAccessToken": second }));
    stays.is_taken();
    delete(plant, "first");
    assert_eq!(leaves.closed(REVOKED), POLICY);
    wrong.say(&json!({ "RefreshAccessToken": first }));
    assert_eq!(wrong.closed(SOON), POLICY, "it is nobody's any more");
    let mut gate = device(plant, 1, "gate");
    follows(&mut gate, &mut stays, "telemetry");
    delete(plant, "second");
    assert_eq!(stays.closed(REVOKED), POLICY);
}

fn binary(plant: &mut Plant) {
    let (mut ops, _) = {
        let login = Some(("ops".to_owned(), plant.key.clone()));
        Connect { login, ..Connect::clean(Version::V5, "binary") }.to(plant.at(2))
    };
    let (mut body, mut properties) = (7_u16.to_be_bytes().to_vec(), vec![0x0B, 3, 0x26]);
    packet::put_text(&mut properties, "content-mode");
    packet::put_text(&mut properties, "binary");
    packet::put_properties(&mut body, &properties);
    packet::put_text(&mut body, "app/plant");
    body.push(1);
    ops.send(&packet::frame(0x82, &body)).unwrap();
    assert_eq!(ops.suback(7), [1]);
    let mut gate = device(plant, 1, "gate");
    reads(plant, &mut ops);
    for said in [&b"{\"t\": 1.50}"[..], b"\x00\xff", b"plain"] {
        gate.publish_acked("telemetry", said);
        let heard = ops.message();
        ops.ack(&heard);
        assert_eq!((heard.topic.as_str(), heard.payload.as_slice()), ("app/plant", said));
    }
}

/// What members heard, by device: each with who heard it.
type Parts = BTreeMap<String, Vec<(usize, i64)>>;

/// Hears what devices said, of each member in turn, until there is enough.
#[track_caller]
fn parts(members: &mut [Socket], is_enough: impl Fn(&Parts) -> bool) -> Parts {
    let mut heard = Parts::new();
    until("the members hear enough", FOLLOWED, || {
        for (at, member) in members.iter_mut().enumerate() {
            match member.hear(Duration::from_millis(200)) {
                Heard::Said(event) if event["type"] == "io.drogue.event.v1" => {
                    let device = event["device"].as_str().unwrap().to_owned();
                    let data = event["data"].as_i64().unwrap_or(-1);
                    heard.entry(device).or_default().push((at, data));
                }
                Heard::Said(_) | Heard::Nothing => {}
                closed @ Heard::Closed(_) => panic!("{closed:?}"),
            }
        }
        is_enough(&heard).then_some(())
    });
    heard
}

fn members(plant: &mut Plant) {
    const DEVICES: usize = 12;
    let names: Vec<_> = (0..DEVICES).map(|number| format!("part-{number}")).collect();
    let mut devices: Vec<_> = names
        .iter()
        .map(|name| {
            plant.device(name, name, &json!({}));
            device(plant, 1, name)
        })
        .collect();
    let mut say = |data: i64| {
        for device in &mut devices {
            device.publish_acked("parts", data.to_string().as_bytes());
        }
    };
    let place = "/plant/parts?group_id=parts&";
    let mut members = vec![open(plant, 1, place), open(plant, 2, place)];
    until("both have a part", FOLLOWED, || {
        say(-1);
        let mut both = [false; 2];
        for _ in 0..2 * DEVICES {
            for (at, member) in members.iter_mut().enumerate() {
                both[at] |= matches!(member.hear(Duration::from_millis(20)), Heard::Said(_));
            }
        }
        (both == [true; 2]).then_some(())
    });
    members.iter_mut().for_each(quiet);
    for data in 0..5 {
        say(data);
    }
    let all =
        |many: usize| move |heard: &Parts| heard.values().map(Vec::len).sum::<usize>() >= many;
    let heard = parts(&mut members, all(5 * DEVICES));
    for (device, heard) in &heard {
        let data: Vec<_> = heard.iter().map(|(_, data)| *data).collect();
        assert_eq!(data, [0, 1, 2, 3, 4], "{device}");
    }
    assert_eq!(heard.len(), DEVICES);
    let readers = heard.values().flatten().map(|(at, _)| *at).collect::<BTreeSet<_>>();
    assert_eq!(readers.len(), 2, "{heard:?}");
    drop(members.pop());
    say(5);
    let is_last = |heard: &&(usize, i64)| **heard == (0, 5);
    let heard = parts(&mut members, |heard| {
        heard.values().filter(|of| of.iter().any(|one| is_last(&one))).count() == DEVICES
    });
    assert_eq!(heard.len(), DEVICES, "what one has left another one reads");
}

/// The next event that says what was changed.
#[track_caller]
fn change(application: &mut Client) -> (String, String) {
    loop {
        let event = event(application);
        if event["type"] == "io.drogue.registry.v1" {
            assert_eq!(event["subject"], "devices");
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            return (text(&event["device"]), text(&event["data"]["change"]));
        }
    }
}

fn changes(plant: &mut Plant) {
    let ask = operator(plant);
    let mut application = plant.application(1, "changes", "app/plant");
    reads(plant, &mut application);
    let new = |name: &str, alias: &str| {
        json!({
            "metadata": { "application": "plant", "name": name },
            "spec": {
                "alias": [alias],
                "gatewaySelector": { "matchNames": ["gate"] },
                "authentication": { "credentials": [
                    { "pass": "pw" }, { "user": { "username": "fleet", "password": "fleet" } },
                ] },
            },
        })
    };
    assert_eq!(ask("POST", "", &new("named", "old-name")).status, 201);
    assert_eq!(change(&mut application), ("named".to_owned(), "created".to_owned()));
    for (name, alias) in [("second", "old-name"), ("old-name", "x"), ("second", "gate")] {
        assert_eq!(ask("POST", "", &new(name, alias)).status, 409, "{name} {alias}");
    }
    let reason = |client: &str, user: &str, password: &str| {
        login(Version::V4, client, user, password).reason(plant.at(3))
    };
    assert_eq!(reason("x", "named@plant", "pw"), 0);
    assert_eq!(reason("x", "old-name@plant", "pw"), 0);
    assert_eq!(reason("old-name@plant", "fleet", "fleet"), 0);
    assert_eq!(reason("x", "old-name@plant", "wrong"), 4);
    let mut gate = device(plant, 1, "gate");
    gate.publish_acked("telemetry/old-name", b"1");
    let by_alias = said(&mut application);
    assert_eq!((&by_alias["device"], &by_alias["sender"]), (&json!("named"), &json!("gate")));
    let patch = json!({ "spec": { "alias": ["new-name"] } });
    assert_eq!(ask("PATCH", "/named", &patch).status, 204);
    assert_eq!(change(&mut application), ("named".to_owned(), "changed".to_owned()));
    assert_eq!(reason("x", "new-name@plant", "pw"), 0);
    assert_eq!(reason("x", "old-name@plant", "pw"), 4, "it is nobody's now");
    let second = json!({ "metadata": { "name": "second" }, "spec": { "alias": ["old-name"] } });
    assert_eq!(ask("POST", "", &second).status, 201, "so another one may have it");
    assert_eq!(change(&mut application), ("second".to_owned(), "created".to_owned()));
    assert_eq!(ask("DELETE", "/named", &Value::Null).status, 204);
    assert_eq!(change(&mut application), ("named".to_owned(), "deleted".to_owned()));
    assert_eq!(reason("x", "new-name@plant", "pw"), 4);
}

#[test]
fn a_group_goes_on_over_another_node() {
    let mut plant = Plant::start();
    plant.device("gate", "gate", &json!({}));
    let mut gate = device(&plant, 2, "gate");
    let place = "/plant/telemetry?group_id=group&";
    let mut first = open(&plant, 1, place);
    follows(&mut gate, &mut first, "telemetry");
    for data in 0..10 {
        gate.publish_acked("telemetry", data.to_string().as_bytes());
    }
    for data in 0..10 {
        assert_eq!(next(&mut first)["data"], data);
    }
    plant.api.cluster.node_mut(1).kill();
    assert_eq!(first.hear(SOON), Heard::Closed(None));
    let (mut gate, _) = login(Version::V4, "x", "gate@plant", "gate").to_patiently(plant.at(2));
    for data in 10..20 {
        gate.publish_acked("telemetry", data.to_string().as_bytes());
    }
    // Also while the cluster finds new leaders.
    let mut second = until("a WebSocket of another node", FOLLOWED, || {
        let key = plant.key.clone();
        let to = plant.api.at(3, "http");
        let opened = thread::spawn(move || Socket::open(to, &path(&key, place)));
        opened.join().ok()
    });
    let mut heard = Vec::new();
    until("it goes on", FOLLOWED, || {
        match second.hear(SOON) {
            Heard::Said(event) => heard.push(event["data"].as_i64().unwrap_or(-1)),
            Heard::Nothing => {}
            closed @ Heard::Closed(_) => panic!("{closed:?}"),
        }
        (heard.last() == Some(&19)).then_some(())
    });
    // At least once: what the dead node had not said to be heard may come again.
    let fresh: Vec<_> = heard.iter().copied().filter(|data| *data >= 10).collect();
    assert_eq!(fresh, (10..20).collect::<Vec<_>>(), "{heard:?}");
}
