//! Every kind of credential that needs no certificate, over MQTT: who it lets in, who not, and how it ends.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::harness::{
    api::{Api, problem, text},
    http,
    mqtt::{Client, Heard},
    packet::{Connect, Packet, Version},
    scenarios,
    wait::SOON,
};

/// Reasons of MQTT 5.
const ACCEPTED: u8 = 0;
const BAD_USER_OR_PASSWORD: u8 = 0x86;
const NOT_AUTHORISED: u8 = 0x87;
/// The same in the words of MQTT 3.
const BAD_USER_OR_PASSWORD_3: u8 = 4;
const NOT_AUTHORISED_3: u8 = 5;
/// How soon somebody who may not stay has to be gone.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How long a connection that has to stay is watched.
const STAYS: Duration = Duration::from_millis(300);

#[test]
fn devices_come_by_whatever_they_have() {
    let mut api = Api::start();
    for (name, aliases) in [("acme", json!(["host:*"])), ("other", json!([]))] {
        let settings = json!({ "plaintext": true, "chosen-passwords": true });
        let tenant = json!({ "name": name, "aliases": aliases, "settings": settings });
        assert_eq!(api.ask(1, "POST", "/tenants", &tenant).0, 201);
    }
    scenarios(
        &mut api,
        &[
            ("a token is user name enough", tokens),
            ("a user name and a password, generated or chosen", passwords),
            ("what an MQTT client says, as much of it as is asked for", basic),
            ("a credential counts within its time only", validity),
            ("without TLS nobody is let in where that is not allowed", plaintext),
            ("a client id is its device's, whoever else says it", client_ids),
            ("a token goes with its device", swapped),
            ("revoked is gone at once, whatever it was", revoked),
            ("a chosen password is hashed once, however often it comes", storms),
            ("what is shown has no secret in it", shown),
            ("what can't be is refused in words", refused),
        ],
    );
}

fn device(api: &Api, tenant: &str, name: &str) {
    let path = format!("/devices?tenant={tenant}");
    assert_eq!(api.ask(1, "POST", &path, &json!({ "name": name })).0, 201);
}

/// Makes a credential: its id, and what was generated.
#[track_caller]
fn make(api: &Api, tenant: &str, device: &str, wanted: &Value) -> (String, String) {
    let path = format!("/devices/{device}/credentials?tenant={tenant}");
    let made = api.ask(2, "POST", &path, wanted);
    let id = text(&made, 201, "id");
    (id, made.1["secret"].as_str().unwrap_or_default().to_owned())
}

fn revoke(api: &Api, tenant: &str, device: &str, id: &str) {
    let path = format!("/devices/{device}/credentials/{id}?tenant={tenant}");
    assert_eq!(api.ask(3, "DELETE", &path, &Value::Null).0, 204);
}

fn says(version: Version, client: &str, user: &str, password: &str) -> Connect {
    let mut connect = Connect::clean(version, client);
    connect.login = Some((user.to_owned(), password.to_owned()));
    connect
}

/// What a client of MQTT 5 hears.
#[track_caller]
fn hears(api: &Api, node: u64, client: &str, user: &str, password: &str) -> u8 {
    says(Version::V5, client, user, password).reason(api.cluster.mqtt(node))
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

#[track_caller]
fn is_turned_out(client: &mut Client) {
    let since = Instant::now();
    assert_eq!(client.hear(SOON), Heard::Packet(Packet::Disconnect { reason: NOT_AUTHORISED }));
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
}

fn tokens(api: &mut Api) {
    device(api, "acme", "t1");
    let (_, token) = make(api, "acme", "t1", &json!({ "kind": "token" }));
    for version in [Version::V4, Version::V5] {
        let connect = says(version, "anything", &token, "");
        assert_eq!(connect.reason(api.cluster.mqtt(3)), ACCEPTED);
    }
    let wrong = format!("{}x", &token[1..]);
    for (version, reason) in
        [(Version::V4, BAD_USER_OR_PASSWORD_3), (Version::V5, BAD_USER_OR_PASSWORD)]
    {
        let connect = says(version, "anything", &wrong, "");
        assert_eq!(connect.reason(api.cluster.mqtt(1)), reason);
    }
    // One that a platform gave its devices before.
    let brought = "A1B2C3D4E5F6G7H8I9J0";
    let (_, none) = make(api, "acme", "t1", &json!({ "kind": "token", "token": brought }));
    assert_eq!(none, "", "what is brought is not shown");
    assert_eq!(hears(api, 2, "x", brought, ""), ACCEPTED);
    device(api, "other", "t2");
    let path = "/devices/t2/credentials?tenant=other";
    let taken = api.ask(1, "POST", path, &json!({ "kind": "token", "token": brought }));
    assert_eq!(problem(taken), (409, "credential-taken".to_owned()));
}

fn passwords(api: &mut Api) {
    device(api, "acme", "p1");
    device(api, "other", "p1");
    let (_, secret) = make(api, "acme", "p1", &json!({ "kind": "password", "user": "alice" }));
    let chosen = json!({ "kind": "password", "user": "bob", "password": "hunter2" });
    make(api, "acme", "p1", &chosen);
    // The same name in another tenant is somebody else.
    let (_, theirs) = make(api, "other", "p1", &json!({ "kind": "password", "user": "alice" }));
    #[rustfmt::skip]
    let table = [
        ("alice@acme",  &*secret,  ACCEPTED),
        ("alice",       &*secret,  ACCEPTED), // The tenant of those who ask for no host.
        ("bob@acme",    "hunter2", ACCEPTED),
        ("bob",         "hunter2", ACCEPTED),
        ("alice@other", &*theirs,  ACCEPTED),
        ("alice@acme",  &*theirs,  BAD_USER_OR_PASSWORD),
        ("alice@other", &*secret,  BAD_USER_OR_PASSWORD),
        ("alice",       &*theirs,  BAD_USER_OR_PASSWORD),
        ("alice@acme",  "",        BAD_USER_OR_PASSWORD),
        ("bob@acme",    "hunter3", BAD_USER_OR_PASSWORD),
        ("bob@other",   "hunter2", BAD_USER_OR_PASSWORD),
        ("carol@acme",  "hunter2", BAD_USER_OR_PASSWORD),
        ("bob@nowhere", "hunter2", BAD_USER_OR_PASSWORD),
    ];
    for (user, password, reason) in table {
        assert_eq!(hears(api, 1, "any", user, password), reason, "{user}");
    }
}

fn basic(api: &mut Api) {
    device(api, "acme", "b1");
    let basic = |more: Value| {
        let mut wanted = json!({ "kind": "mqtt-basic" });
        wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        make(api, "acme", "b1", &wanted).1
    };
    basic(json!({ "client_id": "only-client" }));
    let both = basic(json!({ "client_id": "c2", "user": "u2", "generate": true }));
    basic(json!({ "client_id": "c3", "user": "u3", "password": "chosen" }));
    #[rustfmt::skip]
    let table = [
        ("only-client", "", "",        ACCEPTED),
        ("c2", "u2@acme",   &*both,    ACCEPTED),
        ("c2", "u2",        &*both,    ACCEPTED),
        ("c3", "u3",        "chosen",  ACCEPTED),
        ("c3", "u2",        &*both,    BAD_USER_OR_PASSWORD),
        ("c2", "u2",        "",        BAD_USER_OR_PASSWORD),
        ("c2", "u2",        "chosen",  BAD_USER_OR_PASSWORD),
        ("cx", "u2",        &*both,    BAD_USER_OR_PASSWORD),
        ("c4", "",          "",        BAD_USER_OR_PASSWORD),
    ];
    for (client, user, password, reason) in table {
        let mut connect = says(Version::V5, client, user, password);
        connect.login = connect.login.filter(|(user, _)| !user.is_empty());
        assert_eq!(connect.reason(api.cluster.mqtt(2)), reason, "{client} {user} {password}");
    }
}

fn validity(api: &mut Api) {
    device(api, "acme", "v1");
    let now = now_ms();
    for (wanted, reason, reason_3) in [
        (json!({ "not_after_ms": now - 1 }), NOT_AUTHORISED, NOT_AUTHORISED_3),
        (json!({ "not_before_ms": now + 3_600_000 }), NOT_AUTHORISED, NOT_AUTHORISED_3),
        (json!({ "not_before_ms": now - 1 }), ACCEPTED, ACCEPTED),
    ] {
        for kind in ["secret", "token", "password"] {
            let mut wanted = wanted.clone();
            wanted["kind"] = json!(kind);
            let user =
                format!("v-{}", reason.wrapping_add(u8::from(wanted["not_after_ms"].is_u64())));
            if kind == "password" {
                wanted["user"] = json!(user);
            }
            let (id, secret) = make(api, "acme", "v1", &wanted);
            let (user, password) = match kind {
                "secret" => ("v1@acme", &*secret),
                "token" => (&*secret, ""),
                _ => (&*user, &*secret),
            };
            assert_eq!(hears(api, 1, "v", user, password), reason, "{wanted}");
            let old = says(Version::V4, "v", user, password);
            assert_eq!(old.reason(api.cluster.mqtt(2)), reason_3, "{wanted}");
            revoke(api, "acme", "v1", &id);
        }
    }
    // Who is there when it ends has to go.
    let until = now_ms() + 1_500;
    let ends = json!({ "kind": "token", "not_after_ms": until });
    let (_, token) = make(api, "acme", "v1", &ends);
    let (mut client, _) = says(Version::V5, "ends", &token, "").to(api.cluster.mqtt(3));
    assert_eq!(client.hear(SOON), Heard::Packet(Packet::Disconnect { reason: NOT_AUTHORISED }));
    let late = i128::from(now_ms()) - i128::from(until);
    assert!((0..1_000).contains(&late), "{late} ms late");
}

fn attempts(api: &Api, node: u64, result: &str) -> u64 {
    let line = format!("moorline_auth_attempts_total{{method=\"registry\",result=\"{result}\"");
    counted(api, node, &line)
}

/// The value of the series that begins like this.
pub(crate) fn counted(api: &Api, node: u64, series: &str) -> u64 {
    let text = http::get(api.cluster.node(node).admin, "/metrics").unwrap().body;
    let line = text.lines().find(|line| line.starts_with(series));
    let value = line.and_then(|line| line.rsplit_once(' ')).map(|(_, value)| value);
    value.unwrap_or_else(|| panic!("no {series}")).parse().unwrap()
}

fn plaintext(api: &mut Api) {
    let secure = json!({ "name": "secure", "settings": { "plaintext": false } });
    assert_eq!(api.ask(1, "POST", "/tenants", &secure).0, 201);
    device(api, "secure", "s1");
    let (_, secret) = make(api, "secure", "s1", &json!({}));
    let (_, token) = make(api, "secure", "s1", &json!({ "kind": "token" }));
    for node in [1, 2, 3] {
        assert_eq!(api.ask(node, "GET", "/tenants/secure", &Value::Null).0, 200);
    }
    let before = attempts(api, 2, "plaintext");
    assert_eq!(hears(api, 2, "s", "s1@secure", &secret), NOT_AUTHORISED);
    assert_eq!(hears(api, 2, "s", &token, ""), NOT_AUTHORISED);
    let old = says(Version::V4, "s", "s1@secure", &secret);
    assert_eq!(old.reason(api.cluster.mqtt(2)), NOT_AUTHORISED_3);
    assert_eq!(attempts(api, 2, "plaintext"), before + 3);
    // Allowed for a while: when that ends, those who came meanwhile have to go.
    let allowed = json!({ "name": "secure", "settings": { "plaintext": true } });
    assert_eq!(api.ask(1, "PUT", "/tenants/secure", &allowed).0, 200);
    let login = says(Version::V5, "s", "s1@secure", &secret);
    let mut open: Vec<_> = [1, 2, 3]
        .map(|node| {
            let connect = Connect { client: format!("s-{node}"), ..login.clone() };
            connect.to_patiently(api.cluster.mqtt(node)).0
        })
        .into();
    assert_eq!(api.ask(3, "PUT", "/tenants/secure", &secure).0, 200);
    open.iter_mut().for_each(is_turned_out);
}

fn client_ids(api: &mut Api) {
    for (tenant, name) in [("acme", "mine"), ("acme", "yours"), ("other", "mine")] {
        device(api, tenant, name);
    }
    let secret = |tenant: &str, name: &str| make(api, tenant, name, &json!({})).1;
    let secrets = [secret("acme", "mine"), secret("acme", "yours"), secret("other", "mine")];
    let users = ["mine@acme", "yours@acme", "mine@other"];
    for client in ["mine", "a/b", "#", "+", "${tenant}", ".*"] {
        let mut open: Vec<_> = users
            .iter()
            .zip(&secrets)
            .map(|(user, secret)| {
                let durable = Connect::durable(Version::V5, client);
                let login = Some(((*user).to_owned(), secret.clone()));
                Connect { login, ..durable }.attempt(api.cluster.mqtt(1))
            })
            .collect();
        if open.iter().all(Result::is_err) {
            continue; // Client ids that nobody may have.
        }
        for opened in &mut open {
            let (connection, present) = opened.as_mut().unwrap();
            assert!(!*present, "{client} is nobody's session yet");
            assert_eq!(connection.hear(STAYS), Heard::Nothing, "{client} was taken over");
        }
    }
    // Its own session it does find again, and one takes over from the other.
    let again = || {
        let login = Some((users[0].to_owned(), secrets[0].clone()));
        Connect { login, ..Connect::durable(Version::V5, "mine") }.to(api.cluster.mqtt(2))
    };
    let (mut first, present) = again();
    assert!(present);
    let (_second, present) = again();
    assert!(present);
    assert_eq!(first.hear(SOON), Heard::Packet(Packet::Disconnect { reason: 0x8E }));
}

fn swapped(api: &mut Api) {
    for name in ["swap-a", "swap-b"] {
        device(api, "acme", name);
    }
    let token = json!({ "kind": "token", "token": "swapped-token-0123456789" });
    let user = "swapped-token-0123456789";
    let (of_a, _) = make(api, "acme", "swap-a", &token);
    let (mut as_a, _) = says(Version::V5, "swap-b", user, "").to(api.cluster.mqtt(1));
    revoke(api, "acme", "swap-a", &of_a);
    is_turned_out(&mut as_a);
    make(api, "acme", "swap-b", &token);
    let (mut as_b, _) = says(Version::V5, "swap-a", user, "").to(api.cluster.mqtt(1));
    assert_eq!(api.ask(1, "DELETE", "/devices/swap-a?tenant=acme", &Value::Null).0, 204);
    assert_eq!(as_b.hear(STAYS), Heard::Nothing, "it is swap-b, whatever its client id");
    assert_eq!(api.ask(1, "DELETE", "/devices/swap-b?tenant=acme", &Value::Null).0, 204);
    is_turned_out(&mut as_b);
    device(api, "acme", "swap-b");
    assert_eq!(hears(api, 2, "x", user, ""), BAD_USER_OR_PASSWORD, "the new one never had it");
}

fn revoked(api: &mut Api) {
    device(api, "acme", "r1");
    let kinds = [
        json!({ "kind": "secret" }),
        json!({ "kind": "token" }),
        json!({ "kind": "password", "user": "r-generated" }),
        json!({ "kind": "password", "user": "r-chosen", "password": "chosen" }),
        json!({ "kind": "mqtt-basic", "client_id": "r-client" }),
    ];
    for wanted in kinds {
        let (id, secret) = make(api, "acme", "r1", &wanted);
        let (client, user, password) = match wanted["kind"].as_str().unwrap() {
            "secret" => ("r", "r1@acme", &*secret),
            "token" => ("r", &*secret, ""),
            "mqtt-basic" => ("r-client", "", ""),
            _ => (
                "r",
                wanted["user"].as_str().unwrap(),
                wanted["password"].as_str().unwrap_or(&secret),
            ),
        };
        let mut connect = says(Version::V5, client, user, password);
        connect.login = connect.login.filter(|(user, _)| !user.is_empty());
        let mut open: Vec<_> = [1, 2, 3]
            .map(|node| {
                // One with a client id of its own can be there once.
                let client = if client == "r" { format!("r-{node}") } else { client.to_owned() };
                let node = if connect.client == "r" { node } else { 1 };
                Connect { client, ..connect.clone() }.to(api.cluster.mqtt(node)).0
            })
            .into();
        if client != "r" {
            open.drain(..2);
        }
        revoke(api, "acme", "r1", &id);
        open.iter_mut().for_each(is_turned_out);
        for node in [1, 2, 3] {
            assert_eq!(connect.reason(api.cluster.mqtt(node)), BAD_USER_OR_PASSWORD, "{wanted}");
        }
    }
}

fn storms(api: &mut Api) {
    device(api, "acme", "storm");
    make(api, "acme", "storm", &json!({ "kind": "password", "user": "storm", "password": "x" }));
    assert_eq!(hears(api, 1, "storm", "storm", "x"), ACCEPTED);
    let checks = |result: &str| {
        counted(api, 1, &format!("moorline_password_checks_total{{result=\"{result}\""))
    };
    let (hashed, known) = (checks("hashed"), checks("known"));
    for number in 0..50 {
        assert_eq!(hears(api, 1, &format!("storm-{number}"), "storm", "x"), ACCEPTED);
    }
    assert_eq!((checks("hashed"), checks("known")), (hashed, known + 50));
}

fn shown(api: &mut Api) {
    device(api, "acme", "shown");
    let brought = "canary-token-0123456789";
    let sha256 = "ab".repeat(32);
    let key = "c0ffee00".repeat(4);
    for wanted in [
        json!({ "kind": "token", "token": brought }),
        json!({ "kind": "password", "user": "shown", "password": "canary-password" }),
        json!({ "kind": "mqtt-basic", "client_id": "shown-client" }),
        json!({ "kind": "certificate", "sha256": sha256, "pin": "certificate" }),
        json!({ "kind": "psk", "key": key }),
    ] {
        make(api, "acme", "shown", &wanted);
    }
    let (status, list) = api.ask(1, "GET", "/devices/shown/credentials?tenant=acme", &Value::Null);
    assert_eq!(status, 200);
    let field = |at: usize, field: &str| list[at][field].as_str().unwrap_or_default().to_owned();
    let kinds: Vec<_> = (0..5).map(|at| field(at, "kind")).collect();
    assert_eq!(kinds, ["token", "password", "mqtt-basic", "certificate", "psk"]);
    assert_eq!((field(1, "user"), field(2, "client_id")), ("shown".into(), "shown-client".into()));
    assert_eq!((field(3, "sha256"), field(3, "pin")), (sha256, "certificate".into()));
    assert_eq!(field(4, "identity"), "shown@acme");
    let (_, device) = api.ask(1, "GET", "/devices/shown?tenant=acme", &Value::Null);
    for text in [list.to_string(), device.to_string()] {
        assert!(!text.contains("canary") && !text.contains("c0ffee"), "{text}");
    }
}

fn refused(api: &mut Api) {
    device(api, "acme", "refused");
    let ask = |tenant: &str, wanted: Value| {
        let path = format!("/devices/refused/credentials?tenant={tenant}");
        problem(api.ask(1, "POST", &path, &wanted))
    };
    for wanted in [
        json!({ "kind": "password" }),
        json!({ "kind": "token", "token": "short" }),
        json!({ "kind": "certificate", "certificate": "nonsense" }),
        json!({ "kind": "psk", "key": "xyz" }),
        json!({ "kind": "nonsense" }),
        json!({ "kind": "secret", "user": "x" }),
    ] {
        let (status, code) = ask("acme", wanted.clone());
        assert!(matches!(status, 400 | 422), "{wanted}: {status} {code}");
    }
    let strict = json!({ "name": "strict" });
    assert_eq!(api.ask(1, "POST", "/tenants", &strict).0, 201);
    device(api, "strict", "refused");
    let chosen = json!({ "kind": "password", "user": "u", "password": "hunter2" });
    assert_eq!(ask("strict", chosen), (403, "forbidden".to_owned()));
    let anchors = json!({ "name": "anchors", "settings":
        { "plaintext": true, "trust-anchors": { "certificates": "nonsense" } } });
    assert_eq!(api.ask(1, "POST", "/tenants", &anchors).0, 400);
}
