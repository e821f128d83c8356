//! Case 38, and 37 where tenants share a node: who floods a mailbox, never settles a mail or always requeues it, and a tenant that
//! takes the time of all others.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde_json::{Value, json};

use super::{Raw, Target, is_full};
use crate::harness::{
    api::{Api, text},
    cluster::Shape,
    http,
    packet::{self, Connect, Version, publish, subscribe},
};

/// How often a mail may be requeued.
const REQUEUES: u64 = 20;

/// A node with a registry.
struct Known {
    target: Target,
    token: String,
    listens: BTreeMap<(u64, String), SocketAddr>,
    _key: tempfile::TempDir,
}

impl Known {
    #[track_caller]
    fn start(mqtt: &str) -> Self {
        let extra = "anonymous = true\n".to_owned();
        let shape = Shape { extra, mqtt: mqtt.to_owned(), ..Shape::of(1) };
        let (cluster, token, listens, key) = Api::start_as(&shape, &["http"]).into_parts();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { target: Target::of(cluster, nowhere, nowhere), token, listens, _key: key }
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str())];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let to = self.target.cluster.node(1).admin;
        let answer = http::api(method, to, &format!("/api/v1{path}"), &headers, &body);
        (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null))
    }

    #[track_caller]
    fn tenant(&self, name: &str, more: &Value) {
        let mut tenant = json!({ "name": name });
        tenant.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        tenant["settings"]["plaintext"] = json!(true);
        let made = self.ask("POST", "/tenants", &tenant);
        assert_eq!(made.0, 201, "{}", made.1);
    }

    /// Makes a device; its secret.
    #[track_caller]
    fn device(&self, tenant: &str, name: &str, style: &str) -> String {
        let path = format!("/devices?tenant={tenant}");
        assert_eq!(self.ask("POST", &path, &json!({ "name": name })).0, 201);
        let path = format!("/devices/{name}/credentials?tenant={tenant}");
        text(&self.ask("POST", &path, &json!({ "style": style })), 201, "secret")
    }
}

#[test]
fn a_mailbox_is_bounded_whatever_its_device_does() {
    let mut known = Known::start("");
    let limits = json!({ "items-max": 100, "requeues-max": REQUEUES });
    let settings = json!({ "mail": limits });
    known.tenant("acme", &json!({ "aliases": ["fostrom:FLEET001"], "settings": settings }));
    let secret = known.device("acme", "DEVICE0001", "fostrom");
    let Known { target, token, listens, _key } = &mut known;
    let http = listens[&(1, "http".to_owned())];
    let headers =
        [("x-fleet-id", "FLEET001"), ("x-device-id", "DEVICE0001"), ("x-device-secret", &*secret)];
    let device = |method: &str, path: &str| http::api(method, http, path, &headers, "");
    let bearer = format!("Bearer {token}");
    let admin = target.cluster.node(1).admin;
    let mailbox = "/api/v1/devices/DEVICE0001/mailbox?tenant=acme";
    let api = |method: &str, path: &str, body: &str| {
        http::api(method, admin, path, &[("authorization", bearer.as_str())], body)
    };
    let floods = if is_full() { 20_000 } else { 300 };
    let requeued =
        "moorline_fostrom_ops_total{op=\"settle_mail\",protocol=\"http\",result=\"done\"}";
    target.abused("case 38", requeued, |_| {
        // Nobody fetches: what has room waits, all else is refused.
        let sent: Vec<_> =
            (0..floods).map(|_| api("POST", mailbox, "{\"name\":\"flood\"}").status).collect();
        assert_eq!(sent[..100], [201; 100]);
        assert!(sent[100..].iter().all(|status| *status == 507), "{sent:?}");
        // It fetches and never settles: the same again and again, and the rest stays.
        let front = device("GET", "/v1/mailbox/next").json()["id"].clone();
        for _ in 0..floods / 10 {
            assert_eq!(device("GET", "/v1/mailbox/next").json()["id"], front);
        }
        assert_eq!(device("GET", "/v1/mailbox/size").json(), json!({ "size": 100 }));
        assert_eq!(api("DELETE", mailbox, "").json(), json!({ "removed": 100 }));
        // Two mails that are always requeued: both are dead in the end, and kept for people.
        for _ in 0..2 {
            assert_eq!(api("POST", mailbox, "{\"name\":\"again\"}").status, 201);
        }
        let mut rounds = 0;
        loop {
            let next = device("GET", "/v1/mailbox/next");
            if next.status == 204 {
                break;
            }
            let id = next.json()["id"].as_str().unwrap().to_owned();
            assert_eq!(device("PUT", &format!("/v1/mailbox/requeue/{id}")).status, 200);
            rounds += 1;
            assert!(rounds <= 2 * (REQUEUES + 1), "a requeue loop ends");
        }
        assert_eq!(rounds, 2 * (REQUEUES + 1));
        let dead = api("GET", &format!("{mailbox}&dead=true"), "").json();
        assert_eq!(dead["mails"].as_array().unwrap().len(), 2);
    });
}

/// A connection of a device of the tenant `loud`.
fn of_loud(target: &Target, secret: &str, name: &str) -> Raw {
    let mut connect = Connect::clean(Version::V5, name);
    connect.login = Some(("bomber@loud".to_owned(), secret.to_owned()));
    let mut raw = Raw::to(target.mqtt);
    raw.say(&packet::connect(&connect));
    assert_eq!(raw.packet()[3], 0);
    raw
}

#[test]
fn one_tenant_is_loud() {
    const QUOTA: usize = 1_000;
    let (subscribers, messages) = if is_full() { (1_000, 300) } else { (100, 100) };
    let mut known = Known::start(&format!(
        "deliveries-per-tenant-s = {QUOTA}\nconnects-per-tenant-s = 0\nlive-queue-max = 65535\n"
    ));
    known.tenant("loud", &json!({}));
    let secret = known.device("loud", "bomber", "plain");
    let dropped =
        "moorline_messages_dropped_total{layer=\"service\",reason=\"deliveries_per_tenant_s\"}";
    known.target.abused("case 37, with a quota", dropped, |target| {
        let before = target.metric(dropped);
        let mut all: Vec<_> = (0..subscribers)
            .map(|number| {
                let mut raw = of_loud(target, &secret, &format!("loud-{number}"));
                raw.say(&subscribe(Version::V5, 1, &[("bomber/all", 0)]));
                assert_eq!(*raw.packet().last().unwrap(), 0);
                raw
            })
            .collect();
        let mut sender = of_loud(target, &secret, "sender");
        for _ in 0..messages {
            sender.say(&publish(Version::V5, 0, "bomber/all", b"x", None));
            std::thread::sleep(Duration::from_millis(10));
        }
        sender.say(&[0xC0, 0]);
        assert_eq!(sender.packet(), [0xD0, 0]);
        let lost = usize::try_from(target.metric(dropped) - before).unwrap() / subscribers;
        assert!(lost > messages / 2, "{lost} of {messages} messages went to nobody");
        // The others went to all.
        let expected = publish(Version::V5, 0, "bomber/all", b"x", None);
        for raw in &mut all {
            for _ in 0..messages - lost {
                assert_eq!(raw.packet(), expected);
            }
            raw.say(&[0xC0, 0]);
            assert_eq!(raw.packet(), [0xD0, 0], "and no other");
        }
    });
}
