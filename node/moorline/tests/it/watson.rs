//! Clients of Watson IoT over MQTT: devices, gateways and applications, on whichever node, while nodes die.

use std::{net::SocketAddr, time::Duration};

use moorline_core::{TenantId, shard::Shards};
use serde_json::{Value, json};

use crate::harness::{
    api::{Api, text},
    cluster::{SHARDS, Shape},
    mqtt::{Client, Heard},
    packet::{self, Connect, Packet, Publish, Version},
    scenarios,
    wait::{SOON, until_true},
};

pub(crate) const ORG: &str = "abc123";
pub(crate) const APP_KEY: &str = "a-abc123-abcdefghij";
/// How long it is listened whether there is more.
const A_MOMENT: Duration = Duration::from_millis(50);
pub(crate) const LOOK_KEY: &str = "a-abc123-lookonly01";

/// A cluster with an organisation, and what its clients show.
pub(crate) struct Org {
    pub(crate) api: Api,
    pub(crate) tenant: TenantId,
    pub(crate) app: String,
    pub(crate) look: String,
}

impl Org {
    #[track_caller]
    pub(crate) fn start() -> Self {
        // Beside MQTT there is HTTP.
        Self::start_as(&["http"])
    }

    /// With nodes that listen for more: keys of `[listen]`.
    #[track_caller]
    pub(crate) fn start_as(keys: &[&str]) -> Self {
        let api = Api::start_as(&Shape::of(3), keys);
        let tenant = json!({ "name": "acme", "aliases": [format!("watson:{ORG}")] });
        let (status, made) = api.ask(1, "POST", "/tenants", &tenant);
        assert_eq!(status, 201, "{made}");
        let tenant =
            TenantId(made["id"].as_u64().and_then(|id| id.try_into().ok()).expect("an id"));
        let (app, look) = (String::new(), String::new());
        let mut org = Self { api, tenant, app, look };
        (org.app, org.look) = (org.key(APP_KEY, "app"), org.key(LOOK_KEY, "read-only"));
        org
    }

    /// A device's token.
    #[track_caller]
    pub(crate) fn register(&self, kind: &str, id: &str, class: &str) -> String {
        let settings = json!({ "type": kind, "class": class });
        let body = json!({ "name": format!("{kind}:{id}"), "settings": settings });
        let made = self.api.ask(1, "POST", "/devices?tenant=acme", &body);
        assert_eq!(made.0, 201, "{}", made.1);
        let path = format!("/devices/{kind}:{id}/credentials?tenant=acme");
        text(&self.api.ask(1, "POST", &path, &json!({})), 201, "secret")
    }

    /// The secret of an API key of a role.
    #[track_caller]
    pub(crate) fn key(&self, name: &str, role: &str) -> String {
        let body = json!({ "name": name, "role": role });
        let token = text(&self.api.ask(1, "POST", "/tokens?tenant=acme", &body), 201, "token");
        token.split_once(&format!("_{name}_")).unwrap().1.to_owned()
    }

    pub(crate) fn at(&self, node: u64) -> SocketAddr {
        self.api.cluster.mqtt(node)
    }

    pub(crate) fn application(&self, version: Version, name: &str) -> Connect {
        let login = Some((APP_KEY.to_owned(), self.app.clone()));
        Connect { login, ..Connect::clean(version, &format!("a:{ORG}:{name}")) }
    }
}

pub(crate) fn device(version: Version, kind: &str, id: &str, token: &str) -> Connect {
    named(version, &format!("d:{ORG}:{kind}:{id}"), token)
}

pub(crate) fn named(version: Version, client: &str, token: &str) -> Connect {
    let login = Some(("use-token-auth".to_owned(), token.to_owned()));
    Connect { login, ..Connect::clean(version, client) }
}

/// The next message.
#[track_caller]
fn message(client: &mut Client) -> Publish {
    client.message()
}

#[track_caller]
fn json_of(publish: &Publish) -> Value {
    serde_json::from_slice(&publish.payload).unwrap()
}

#[test]
fn an_organisation_moves_in() {
    let mut org = Org::start();
    scenarios(
        &mut org,
        &[
            ("events go up and commands come down", events_and_commands),
            ("who is who is said in CONNACKs", connacks),
            ("what a class does not have is refused as its version says", violations),
            ("a gateway speaks for others and is told what it may not", gateways),
            ("who is connected is known", presence),
            ("instances share, and get each message once", shares),
            ("what waits for an application survives the leader", durable),
            ("a token that is deleted turns its device out", revoked),
        ],
    );
}

fn events_and_commands(org: &mut Org) {
    let token = org.register("pump", "p1", "device");
    let (mut app, _) = org.application(Version::V4, "dash").to(org.at(1));
    assert_eq!(app.subscribe(&[("iot-2/type/+/id/+/evt/+/fmt/+", 1)]), [1]);
    let (mut pump, _) = device(Version::V5, "pump", "p1", &token).to(org.at(2));
    assert_eq!(pump.subscribe(&[("iot-2/cmd/+/fmt/+", 1)]), [1]);
    assert_eq!(pump.subscribe(&[("iot-2/cmd/#", 1)]), [1]);
    pump.publish_acked("iot-2/evt/temp/fmt/json", br#"{"d":{"t":21}}"#);
    let heard = message(&mut app);
    assert_eq!(heard.topic, "iot-2/type/pump/id/p1/evt/temp/fmt/json");
    assert_eq!(heard.payload, br#"{"d":{"t":21}}"#);
    app.ack(&heard);

    app.publish_acked("iot-2/type/pump/id/p1/cmd/reset/fmt/bin", b"\x00\x01");
    let heard = message(&mut pump);
    assert_eq!(
        (heard.topic.as_str(), heard.payload.as_slice()),
        ("iot-2/cmd/reset/fmt/bin", &b"\x00\x01"[..])
    );
    pump.ack(&heard);
    // Of two filters that mean the same, one is enough.
    pump.unsubscribe("iot-2/cmd/#");
    app.publish_acked("iot-2/type/pump/id/p1/cmd/again/fmt/json", b"{}");
    assert_eq!(message(&mut pump).topic, "iot-2/cmd/again/fmt/json");
    // A command is nobody's event, and another device's command nobody else's.
    app.hears_nothing();
    pump.hears_nothing();
}

fn connacks(org: &mut Org) {
    let token = org.register("pump", "p2", "device");
    let to = org.at(3);
    let reason = |connect: Connect| connect.reason(to);
    for (version, [ok, wrong, id, unknown]) in
        [(Version::V4, [0, 5, 2, 5]), (Version::V5, [0, 0x86, 0x85, 0x87])]
    {
        assert_eq!(reason(device(version, "pump", "p2", &token)), ok);
        assert_eq!(reason(device(version, "pump", "p2", "wrong-token")), wrong);
        assert_eq!(reason(device(version, "pump", "p 2", &token)), id);
        assert_eq!(reason(device(version, "pump", "nobody", &token)), unknown);
        assert_eq!(reason(named(version, "d:zzz999:pump:p2", &token)), unknown);
        // Registered as a device.
        assert_eq!(reason(named(version, "g:abc123:pump:p2", &token)), unknown);
    }
    let other = Some(("a-zzz999-abcdefghij".to_owned(), org.app.clone()));
    let app = Connect { login: other, ..org.application(Version::V4, "x") };
    assert_eq!(reason(app), 5, "another organisation's key");
}

fn violations(org: &mut Org) {
    let token = org.register("pump", "p3", "device");
    let (mut old, _) = device(Version::V4, "pump", "p3", &token).to(org.at(1));
    old.publish("iot-2/cmd/reset/fmt/json", b"{}");
    assert_eq!(old.hear(SOON), Heard::Closed, "MQTT 3 can't be told");
    let (mut old, _) = device(Version::V4, "pump", "p3", &token).to(org.at(1));
    old.send(&packet::subscribe(Version::V4, 7, &[("iot-2/evt/#", 1)])).unwrap();
    assert_eq!(old.hear(SOON), Heard::Closed);
    let (mut old, _) = device(Version::V4, "pump", "p3", &token).to(org.at(1));
    old.publish("iot-2/evt/big/fmt/bin", &vec![0; 131_073]);
    assert_eq!(old.hear(SOON), Heard::Closed, "one byte too much");
    let (mut old, _) = device(Version::V4, "pump", "p3", &token).to(org.at(1));
    old.publish_acked("iot-2/evt/big/fmt/bin", &vec![0; 131_072]);

    let (mut new, _) = device(Version::V5, "pump", "p3", &token).to(org.at(2));
    let id = new.publish("iot-2/type/pump/id/p3/evt/e/fmt/json", b"{}");
    assert_eq!(new.puback(id), 0x87, "it stays");
    assert_eq!(new.subscribe(&[("iot-2/type/+/id/+/evt/+/fmt/+", 1)]), [0x87]);
    let id = new.publish("iot-2/evt/e/fmt/json", b"{}");
    assert!(new.puback(id) < 0x80);

    let login = Some((LOOK_KEY.to_owned(), org.look.clone()));
    let look = Connect { login, ..org.application(Version::V5, "look") };
    let (mut look, _) = look.to(org.at(3));
    assert_eq!(look.subscribe(&[("iot-2/type/+/id/+/mon", 0)]), [0]);
    let id = look.publish("iot-2/type/pump/id/p3/cmd/c/fmt/json", b"{}");
    assert_eq!(look.puback(id), 0x87, "a key that only looks");
    assert_eq!(look.subscribe(&[("iot-2/#", 1)]), [0x87]);
}

fn gateways(org: &mut Org) {
    let token = org.register("gw", "g1", "gateway");
    org.register("sensor", "s1", "device");
    let connect = named(Version::V4, "g:abc123:gw:g1", &token);
    let (mut gateway, _) = connect.to(org.at(1));
    assert_eq!(gateway.subscribe(&[("iot-2/type/gw/id/g1/notify", 0)]), [0]);
    assert_eq!(gateway.subscribe(&[("iot-2/type/sensor/id/+/cmd/+/fmt/+", 1)]), [1]);
    let (mut app, _) = org.application(Version::V4, "gwdash").to(org.at(2));
    assert_eq!(app.subscribe(&[("iot-2/type/sensor/id/+/evt/+/fmt/+", 1)]), [1]);
    gateway.publish_acked("iot-2/type/sensor/id/s1/evt/e/fmt/json", b"{}");
    let heard = message(&mut app);
    assert_eq!(heard.topic, "iot-2/type/sensor/id/s1/evt/e/fmt/json");
    app.ack(&heard);
    app.publish_acked("iot-2/type/sensor/id/s1/cmd/c/fmt/json", b"{}");
    let heard = message(&mut gateway);
    assert_eq!(heard.topic, "iot-2/type/sensor/id/s1/cmd/c/fmt/json");
    gateway.ack(&heard);
    // Nobody has made this one: the gateway does, by speaking for it, and nothing changes its place.
    let ids: Vec<u16> = (0..20_u8)
        .map(|number| {
            let id = if number % 3 == 0 { "new" } else { "s1" };
            gateway.publish(&format!("iot-2/type/sensor/id/{id}/evt/e/fmt/bin"), &[number])
        })
        .collect();
    assert!(ids.into_iter().all(|id| gateway.puback(id) == 0));
    let order: Vec<u8> = (0..20)
        .map(|_| {
            let heard = message(&mut app);
            app.ack(&heard);
            heard.payload[0]
        })
        .collect();
    assert_eq!(order, (0..20).collect::<Vec<u8>>());
    let made = org.api.ask(1, "GET", "/devices/sensor:new?tenant=acme", &Value::Null);
    assert_eq!((made.0, &made.1["settings"]["type"]), (200, &json!("sensor")), "{}", made.1);
    // Acknowledged as if it were done, and reported.
    gateway.publish_acked("iot-2/type/sensor/id/s1/cmd/c/fmt/json", b"{}");
    let notice = message(&mut gateway);
    assert_eq!(notice.topic, "iot-2/type/gw/id/g1/notify");
    let said = json_of(&notice);
    assert_eq!(
        (&said["Request"], &said["Type"], &said["RC"]),
        (&json!("Publish"), &json!("sensor"), &json!(276))
    );
    assert_eq!(gateway.subscribe(&[("iot-2/evt/#", 1)]), [0x80]);
    assert_eq!(json_of(&message(&mut gateway))["Request"], "Subscribe");
}

fn presence(org: &mut Org) {
    let token = org.register("pump", "p4", "device");
    let (mut app, _) = org.application(Version::V4, "watch").to(org.at(1));
    assert_eq!(app.subscribe(&[("iot-2/type/pump/id/p4/mon", 0)]), [0]);
    app.hears_nothing();
    let (mut pump, _) = device(Version::V4, "pump", "p4", &token).to(org.at(2));
    let here = message(&mut app);
    let said = json_of(&here);
    assert_eq!(here.topic, "iot-2/type/pump/id/p4/mon");
    assert_eq!(
        (&said["Action"], &said["ClientID"]),
        (&json!("Connect"), &json!("d:abc123:pump:p4"))
    );
    assert_eq!((&said["Protocol"], &said["Secure"]), (&json!("mqtt4"), &json!(false)));
    assert!(said.get("User").is_none() && said.get("CloseCode").is_none(), "{said}");
    pump.publish_acked("iot-2/evt/e/fmt/json", b"{}");
    pump.disconnect();
    let gone = json_of(&message(&mut app));
    assert_eq!((&gone["Action"], &gone["ReadMsg"]), (&json!("Disconnect"), &json!(1)));
    // Who comes later hears the last of it.
    let (mut late, _) = org.application(Version::V4, "late").to(org.at(3));
    assert_eq!(late.subscribe(&[("iot-2/type/+/id/p4/mon", 0)]), [0]);
    let kept = message(&mut late);
    assert!(kept.retain);
    assert_eq!(json_of(&kept)["Action"], "Disconnect");
}

fn shares(org: &mut Org) {
    let token = org.register("pump", "p5", "device");
    let login = Some((APP_KEY.to_owned(), org.app.clone()));
    let mut members: Vec<Client> = ["A:abc123:work", "A:abc123:work:2"]
        .into_iter()
        .zip(1..)
        .map(|(client, node)| {
            let connect = Connect { login: login.clone(), ..Connect::clean(Version::V4, client) };
            let (mut member, _) = connect.to(org.at(node));
            assert_eq!(member.subscribe(&[("iot-2/type/pump/id/p5/evt/+/fmt/+", 1)]), [1]);
            member
        })
        .collect();
    let (mut pump, _) = device(Version::V4, "pump", "p5", &token).to(org.at(3));
    for number in 0..20_u8 {
        pump.publish_acked("iot-2/evt/e/fmt/bin", &[number]);
    }
    let mut heard = Vec::new();
    until_true("all came, to one or the other", SOON, || {
        for member in &mut members {
            while let Heard::Packet(Packet::Publish(publish)) = member.hear(A_MOMENT) {
                member.ack(&publish);
                heard.push(publish.payload[0]);
            }
        }
        heard.len() >= 20
    });
    heard.sort_unstable();
    assert_eq!(heard, (0..20).collect::<Vec<u8>>());
}

fn durable(org: &mut Org) {
    let token = org.register("pump", "p6", "device");
    let connect = Connect { clean: false, ..org.application(Version::V4, "keeps") };
    let (mut app, present) = connect.to(org.at(1));
    assert!(!present);
    assert_eq!(app.subscribe(&[("iot-2/type/pump/id/p6/evt/+/fmt/+", 1)]), [1]);
    app.disconnect();
    let (mut pump, _) = device(Version::V4, "pump", "p6", &token).to(org.at(2));
    for number in 0..10_u8 {
        pump.publish_acked("iot-2/evt/e/fmt/bin", &[number]);
    }
    let shard = Shards::new(SHARDS).of(org.tenant, b"a:abc123:keeps");
    let leader = org.api.cluster.leader(shard.0, 1);
    org.api.cluster.node_mut(leader).kill();
    let elsewhere = if leader == 3 { 1 } else { 3 };
    let (mut app, present) = connect.to_patiently(org.at(elsewhere));
    assert!(present, "its session is there");
    for number in 0..10_u8 {
        let heard = message(&mut app);
        assert_eq!(
            (heard.topic.as_str(), &heard.payload[..]),
            ("iot-2/type/pump/id/p6/evt/e/fmt/bin", &[number][..])
        );
        app.ack(&heard);
    }
    org.api.cluster.node_mut(leader).start_ready();
}

fn revoked(org: &mut Org) {
    let token = org.register("pump", "p7", "device");
    let (mut pump, _) = device(Version::V5, "pump", "p7", &token).to(org.at(2));
    let path = "/devices/pump:p7/credentials?tenant=acme";
    let listed = org.api.ask(3, "GET", path, &Value::Null);
    let id = listed.1[0]["id"].clone();
    let path = format!("/devices/pump:p7/credentials/{id}?tenant=acme").replace('"', "");
    assert_eq!(org.api.ask(3, "DELETE", &path, &Value::Null).0, 204);
    assert_eq!(pump.hear(SOON), Heard::Packet(Packet::Disconnect { reason: 0x87 }));
    assert_eq!(device(Version::V5, "pump", "p7", &token).reason(org.at(1)), 0x86);
}
