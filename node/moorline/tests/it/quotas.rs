//! What a tenant may say in a second, and who failed too often: refused in each protocol's own way, counted, and nobody
//! else is touched.

use serde_json::{Value, json};

use crate::harness::{
    api::{Api, problem, text},
    http,
    packet::{Connect, Version},
    scenarios,
    wait::{SOON, until_true},
};

#[test]
fn tenants_have_quotas_and_guessers_are_banned() {
    let mut api = Api::start();
    let few = json!({ "publishes-s": 5, "events-s": 1, "mails-s": 1 });
    let small = json!({ "name": "small", "settings": { "quotas": few } });
    assert_eq!(api.ask(1, "POST", "/tenants", &small).0, 201);
    assert_eq!(api.ask(1, "POST", "/tenants", &json!({ "name": "large" })).0, 201);
    scenarios(
        &mut api,
        &[
            ("publishes beyond a tenant's rate are refused", publishes),
            ("events and mails beyond it are refused", events_and_mails),
            ("clients beyond its number at a node are refused", connections),
            ("who guesses a password is banned, its neighbours are not", guesses),
            ("who guesses a token is banned, other tokens are not", tokens),
        ],
    );
}

/// Makes a device: its secret.
#[track_caller]
fn device(api: &Api, tenant: &str, name: &str) -> String {
    let path = format!("/devices?tenant={tenant}");
    assert_eq!(api.ask(1, "POST", &path, &json!({ "name": name })).0, 201);
    let path = format!("/devices/{name}/credentials?tenant={tenant}");
    text(&api.ask(1, "POST", &path, &json!({})), 201, "secret")
}

fn login(device: &str, tenant: &str, secret: &str) -> Connect {
    let mut connect = Connect::clean(Version::V5, device);
    connect.login = Some((format!("{device}@{tenant}"), secret.to_owned()));
    connect
}

/// A counter of a node.
fn counted(api: &Api, node: u64, series: &str) -> u64 {
    let page = http::get(api.cluster.node(node).admin, "/metrics").unwrap().body;
    let found = page.lines().find_map(|line| line.strip_prefix(series));
    found.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
}

fn publishes(api: &mut Api) {
    let (small, large) = (device(api, "small", "pump"), device(api, "large", "pump"));
    let mut loud = login("pump", "small", &small).to(api.cluster.mqtt(1)).0;
    let mut quiet = login("pump", "large", &large).to(api.cluster.mqtt(1)).0;
    let ids: Vec<_> = (0..16).map(|_| loud.publish("pump/t", b"x")).collect();
    let reasons: Vec<_> = ids.into_iter().map(|id| loud.puback(id)).collect();
    let refused = reasons.iter().filter(|reason| **reason == 0x97).count();
    assert!((3..=11).contains(&refused), "{reasons:?}");
    for _ in 0..20 {
        let id = quiet.publish("pump/t", b"x");
        assert_ne!(quiet.puback(id), 0x97, "another tenant has its own");
    }
    let series = "moorline_tenant_quota_refused_total{quota=\"publishes-s\"}";
    assert_eq!(counted(api, 1, series), refused as u64);
    // It is as it was a moment later.
    until_true("it has paid", SOON, || {
        let id = loud.publish("pump/t", b"x");
        loud.puback(id) != 0x97
    });
}

fn connections(api: &mut Api) {
    let few = json!({ "name": "few", "settings": { "quotas": { "connections-max": 2 } } });
    assert_eq!(api.ask(1, "POST", "/tenants", &few).0, 201);
    let secrets = ["a", "b", "c"].map(|name| (name, device(api, "few", name)));
    let login = |at: usize| login(secrets[at].0, "few", &secrets[at].1);
    let mut first = login(0).to(api.cluster.mqtt(1)).0;
    let mut second = login(1).to(api.cluster.mqtt(1)).0;
    assert_eq!(login(2).reason(api.cluster.mqtt(1)), 0x97);
    let mut old = login(2);
    old.version = Version::V4;
    assert_eq!(old.reason(api.cluster.mqtt(1)), 3);
    let series = "moorline_tenant_quota_refused_total{quota=\"connections-max\"}";
    assert_eq!(counted(api, 1, series), 2);
    // Another node has room, and so has this one when somebody goes.
    let mut third = login(2).to(api.cluster.mqtt(2)).0;
    for client in [&mut first, &mut second, &mut third] {
        client.ping();
    }
    first.disconnect();
    until_true("there is room again", SOON, || login(0).reason(api.cluster.mqtt(1)) == 0);
    let quiet = device(api, "large", "elsewhere");
    self::login("elsewhere", "large", &quiet).to(api.cluster.mqtt(1)).0.ping();
}

fn events_and_mails(api: &mut Api) {
    let event = json!({ "type": "message", "channel": "c" });
    for (path, body, quota) in [
        ("/devices/pump/events", event, "events-s"),
        ("/devices/pump/mailbox", json!({ "name": "n" }), "mails-s"),
    ] {
        let ask = |tenant: &str| {
            let path = format!("{path}?tenant={tenant}");
            problem(api.ask(2, "POST", &path, &body))
        };
        let refused = (0..40).filter(|_| ask("small") == (429, "busy".to_owned())).count();
        assert!(refused > 0, "{quota}");
        assert!((0..10).all(|_| ask("large").0 == 201), "{quota}");
        let series = format!("moorline_tenant_quota_refused_total{{quota=\"{quota}\"}}");
        assert_eq!(counted(api, 2, &series), refused as u64);
    }
}

fn guesses(api: &mut Api) {
    let secret = device(api, "large", "safe");
    let to = api.cluster.mqtt(3);
    for _ in 0..5 {
        assert_eq!(login("safe", "large", "wrong").reason(to), 0x86);
    }
    assert_eq!(login("safe", "large", "wrong").reason(to), 0x8A);
    assert_eq!(login("safe", "large", &secret).reason(to), 0x8A, "nor is it told what is right");
    let mut old = login("safe", "large", &secret);
    old.version = Version::V4;
    assert_eq!(old.reason(to), 5, "3.1.1 has another word for it");
    assert_eq!(login("safe", "large", &secret).reason(api.cluster.mqtt(2)), 0, "each node counts");
    let other = device(api, "large", "other");
    let mut client = login("other", "large", &other).to(to).0;
    client.ping();
    let series = "moorline_auth_attempts_total{method=\"registry\",result=\"banned\"}";
    assert_eq!(counted(api, 3, series), 3);
}

fn tokens(api: &mut Api) {
    let wrong = format!("{}x", api.token);
    for _ in 0..5 {
        assert_eq!(api.ask_as(&wrong, 1, "GET", "/tenants", &Value::Null).0, 401);
    }
    let banned = api.ask_as(&wrong, 1, "GET", "/tenants", &Value::Null);
    assert_eq!(problem(banned), (429, "banned".to_owned()));
    // Whoever shows the right one from there waits, too: it is counted by its name.
    assert_eq!(api.ask(1, "GET", "/tenants", &Value::Null).0, 429);
    let new = json!({ "name": "second", "role": "admin" });
    let second = text(&api.ask(2, "POST", "/tokens", &new), 201, "token");
    assert_eq!(api.ask_as(&second, 1, "GET", "/tenants", &Value::Null).0, 200);
    assert_eq!(counted(api, 1, "moorline_api_unauthorised_total{status=\"429\"}"), 2);
}
