//! Cases 41, 43 to 48 and 50 against the admin API and Fostrom's HTTP. Streams of case 43 are in `streams`.
//!
//! Case 42 does not apply: neither listener offers HTTP/2. Nor does 51 (there are no JWTs). Case 49 is with webhooks (`webhooks.rs`) and `node/outward`.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::Target;
use crate::harness::{
    api::{Api, text},
    cluster::Shape,
    http,
};

/// How long an answer to something bad may take: longer than any deadline of the node.
const ANSWER_WAIT: Duration = Duration::from_secs(45);
/// What one answer may have.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// How often each place is asked for.
const ASKED: usize = 300;
/// A metric that each case makes grow.
pub(super) const REFUSED: &str = "moorline_admin_answers_total{class=\"refused\"}";
const MALFORMED: &str = "moorline_admin_answers_total{class=\"malformed\"}";

/// A node with two tenants, and a device in each.
pub(super) struct Victim {
    pub(super) target: Target,
    pub(super) admin: SocketAddr,
    pub(super) fostrom: SocketAddr,
    /// Of the cluster, and of the tenant `other`.
    pub(super) root: String,
    other: String,
    _key: tempfile::TempDir,
}

impl Victim {
    #[track_caller]
    pub(super) fn start() -> Self {
        let shape = Shape { extra: "anonymous = true\n".to_owned(), ..Shape::of(1) };
        let api = Api::start_as(&shape, &["http"]);
        for tenant in ["acme", "other"] {
            let path = format!("/devices?tenant={tenant}");
            assert_eq!(api.ask(1, "POST", "/tenants", &json!({ "name": tenant })).0, 201);
            assert_eq!(api.ask(1, "POST", &path, &json!({ "name": "pump" })).0, 201);
        }
        let made = json!({ "name": "op", "role": "admin" });
        let other = text(&api.ask(1, "POST", "/tokens?tenant=other", &made), 201, "token");
        let (fostrom, admin) = (api.at(1, "http"), api.cluster.node(1).admin);
        let (cluster, root, _, key) = api.into_parts();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let target = Target::of(cluster, nowhere, nowhere);
        Self { target, admin, fostrom, root, other, _key: key }
    }

    pub(super) fn ask(&self, token: &str, method: &str, path: &str, body: &str) -> http::Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        http::api(method, self.admin, &format!("/api/v1{path}"), &headers, body)
    }
}

/// Sends bytes as they are; everything that comes back until the other side closes, or until it says no more.
fn raw(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(ANSWER_WAIT)).unwrap();
    // It may be closed before all of it is sent.
    let _sent = stream.write_all(bytes);
    let (mut answer, mut piece) = (Vec::new(), [0; 4_096]);
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        answer.extend_from_slice(&piece[..read]);
        assert!(answer.len() < ANSWER_BYTES_MAX);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn statuses(answer: &str) -> Vec<u16> {
    let lines = answer.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 "));
    lines.filter_map(|line| line.get(..3)?.parse().ok()).collect()
}

#[test]
fn no_request_hides_in_another() {
    let mut victim = Victim::start();
    let (admin, fostrom, root) = (victim.admin, victim.fostrom, victim.root.clone());
    let hidden = "DELETE /api/v1/devices/pump?tenant=acme HTTP/1.1\r\nhost: x\r\n";
    let hidden = format!("{hidden}authorization: Bearer {root}\r\n\r\n");
    let head = "POST /api/v1/devices?tenant=acme HTTP/1.1\r\nhost: x\r\n";
    let both = format!(
        "content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        5 + hidden.len()
    );
    let cases = [
        format!("{head}{both}{hidden}"),
        format!("{head}content-length: 0\r\ncontent-length: 7\r\n\r\n{hidden}"),
        format!("{head}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{head}transfer-encoding : chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{head}a: b\r\n folded: c\r\n\r\n{hidden}"),
        format!("{head}a: b\rc\r\n\r\n{hidden}"),
        format!("{head}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{hidden}"),
        format!("{head}transfer-encoding: chunked\r\n\r\n-1\r\n{hidden}"),
    ];
    victim.target.abused("41: two ways to end a request", REFUSED, |_| {
        for case in &cases {
            for to in [admin, fostrom] {
                let answer = raw(to, case.as_bytes());
                let all = statuses(&answer);
                assert!(
                    all.len() <= 1 && all.iter().all(|status| *status >= 400),
                    "{case}: {answer}"
                );
            }
        }
    });
    assert_eq!(
        victim.ask(&root, "GET", "/devices/pump?tenant=acme", "").status,
        200,
        "nothing that hid was done"
    );
}

#[test]
fn slow_clients_lose_their_place() {
    let mut victim = Victim::start();
    let (admin, fostrom, root) = (victim.admin, victim.fostrom, victim.root.clone());
    let slow = move |to: SocketAddr, head: String| {
        let began = Instant::now();
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut piece = [0; 4_096];
        // A byte now and then, until it is told that this is enough.
        while began.elapsed() < ANSWER_WAIT {
            match stream.read(&mut piece) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                Err(_) => {
                    if stream.write_all(b"x").is_err() {
                        return;
                    }
                }
            }
        }
        panic!("{to} still listens after {ANSWER_WAIT:?}: {head}");
    };
    victim.target.abused("43: slow heads and bodies", MALFORMED, |_| {
        let bearer = format!("authorization: Bearer {root}\r\n");
        let body = |path: &str| format!("POST {path} HTTP/1.1\r\nhost: x\r\n{bearer}content-type: application/json\r\ncontent-length: 9999\r\n\r\n");
        let cases = [
            (admin, "GET /api/v1/tenants HTTP/1.1\r\na: ".to_owned()),
            (fostrom, "GET /v1/mailbox/next HTTP/1.1\r\na: ".to_owned()),
            (admin, body("/api/v1/devices?tenant=acme")),
            (admin, body("/api/v1/cluster/init")),
            (fostrom, body("/v1/pulse")),
        ];
        std::thread::scope(|scope| {
            let threads: Vec<_> = cases.into_iter().map(|(to, head)| scope.spawn(move || slow(to, head))).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    });
    victim.target.abused("43: cursors of somebody else", REFUSED, |target| {
        for id in ["-1", "zzzz", "ffffffffffffffff.ffffffffffffffff", &"7.".repeat(4_000)] {
            let bearer = format!("Bearer {root}");
            let headers = [("authorization", bearer.as_str()), ("last-event-id", id)];
            let answer = http::api(
                "GET",
                target.cluster.node(1).admin,
                "/api/v1/events?tenant=acme",
                &headers,
                "",
            );
            assert_eq!(answer.status, 400, "{id}: {}", answer.body);
        }
    });
}

#[test]
fn a_path_means_one_thing() {
    let mut victim = Victim::start();
    let (admin, root) = (victim.admin, victim.root.clone());
    victim.target.abused("44: paths", REFUSED, |_| {
        for path in [
            "/api/v1/devices/..%2f..%2ftenants",
            "/api/v1/devices/%2e%2e/tenants",
            "/api/v1/devices/a%00b",
            "/api/v1//devices",
            "//api/v1/devices",
            "/api/v1/devices;a=b",
            "/API/V1/DEVICES",
            "/api/v1/devices/%c0%af",
            "/api/v1/devices/%ff",
            "/api/v1/devices/%",
            "/api/v1/devices/",
            "/api/v1/devices/pump/",
            "/api/v1/./devices",
            "/api/v1/devices/..",
            "/metrics/..%2fapi",
            "/api/v1/devices/~root",
        ] {
            let head =
                format!("GET {path}?tenant=acme HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
            let answer =
                raw(admin, format!("{head}authorization: Bearer {root}\r\n\r\n").as_bytes());
            let all = statuses(&answer);
            assert!(matches!(all[..], [400 | 404]), "{path}: {answer}");
        }
    });
}

#[test]
fn a_body_means_one_thing_and_nothing_more() {
    let mut victim = Victim::start();
    let (admin, root) = (victim.admin, victim.root.clone());
    let deep = |open: &str, close: &str| {
        format!("{{\"name\":\"a\",\"payload\":{}1{}}}", open.repeat(10_000), close.repeat(10_000))
    };
    let twice = "{\"name\":\"a\",\"name\":\"b\"}".to_owned();
    let bodies = [
        (400, deep("[", "]")),
        (400, deep("{\"a\":", "}")),
        (400, twice),
        (400, "{\"name\":\"a\",\"payload\":1e400}".to_owned()),
        (400, "{\"name\":\"a\",\"payload\":NaN}".to_owned()),
        (400, "{\"name\":\"a\",\"payload\":\"\\ud800\"}".to_owned()),
        (400, "{\"name\":\"a\",\"__proto__\":{}}".to_owned()),
        (413, format!("{{\"name\":\"a\",\"payload\":\"{}\"}}", "x".repeat(300_000))),
        (400, "\u{feff}{}".to_owned()),
    ];
    victim.target.abused("45: JSON", REFUSED, |_| {
        for (expected, body) in &bodies {
            let answer = raw(
                admin,
                &posted("/api/v1/devices/pump/mailbox?tenant=acme", &root, "", body.as_bytes()),
            );
            assert_eq!(
                statuses(&answer),
                [*expected],
                "{}: {answer}",
                body.get(..40).unwrap_or(body)
            );
        }
    });
    victim.target.abused("46: fields that are not the caller's", REFUSED, |_| {
        for field in [
            "tenant_id",
            "tenant",
            "version",
            "born",
            "credentials",
            "roles",
            "role",
            "created_ms",
            "id",
        ] {
            let of = |name: &str| json!({ "name": name, field: 7 }).to_string();
            for (path, body) in
                [("/api/v1/devices?tenant=acme", of("mass")), ("/api/v1/tenants", of("mass"))]
            {
                let answer = raw(admin, &posted(path, &root, "", body.as_bytes()));
                assert_eq!(statuses(&answer), [400], "{path} {body}: {answer}");
            }
        }
    });
    victim.target.abused("50: bodies that unpack", REFUSED, |_| {
        for encoding in ["gzip", "deflate", "br", "gzip, gzip"] {
            let encoding = format!("content-encoding: {encoding}\r\n");
            let answer = raw(
                admin,
                &posted("/api/v1/devices?tenant=acme", &root, &encoding, &[0x1f, 0x8b, 8, 0]),
            );
            assert_eq!(statuses(&answer), [400], "{encoding}: {answer}");
        }
    });
}

fn posted(path: &str, token: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n{more}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// What an operation wants of a body, so that nothing but the place is wrong.
fn body_of(path: &str, method: &str) -> &'static str {
    match (path.rsplit('/').next().unwrap(), method) {
        (_, "get" | "delete") => "",
        ("{tenant}", "put") | ("tenants", _) => r#"{"name":"acme"}"#,
        ("attributes", "patch") => r#"{"attributes":{"a":1}}"#,
        (_, "put" | "patch") => "{}",
        ("mailbox", _) => r#"{"name":"open"}"#,
        ("calls", _) => r#"{"method":"open"}"#,
        ("settle", _) => r#"{"op":"ack"}"#,
        ("commit", _) => r#"{"cursor":"1"}"#,
        ("events", _) => r#"{"type":"datapoint"}"#,
        ("provisioning-keys", _) => r#"{"name":"made","devices":["*"],"devices_max":1}"#,
        ("tokens", _) => r#"{"name":"made","role":"app"}"#,
        ("devices", _) => r#"{"name":"made"}"#,
        ("mail", _) => r#"{"selector":{"label":"a"},"mail":{"name":"open"}}"#,
        ("webhooks", _) => r#"{"name":"made","url":"https://a.example/"}"#,
        ("import", _) => "{\"name\":\"made\"}",
        _ => "{}",
    }
}

#[test]
fn what_belongs_to_others_is_what_does_not_exist() {
    let mut victim = Victim::start();
    let (root, other) = (victim.root.clone(), victim.other.clone());
    for (path, name) in [
        ("/devices?tenant=acme", "secret"),
        ("/devices?tenant=other", "deleted"),
        ("/tenants", "deleted"),
    ] {
        let made = victim.ask(&root, "POST", path, &json!({ "name": name }).to_string());
        assert_eq!(made.status, 201, "{}", made.body);
    }
    assert_eq!(victim.ask(&root, "DELETE", "/devices/deleted?tenant=other", "").status, 204);
    assert_eq!(victim.ask(&root, "DELETE", "/tenants/deleted", "").status, 204);
    let document = victim.ask(&root, "GET", "/openapi.json", "").json();
    let mut compared = 0;
    let admin = victim.admin;
    let asked = |method: &str, path: &str, body: &str| {
        let bearer = format!("Bearer {other}");
        let answer =
            http::api(&method.to_uppercase(), admin, path, &[("authorization", &bearer)], body);
        let body: Value = serde_json::from_str(&answer.body).unwrap_or(Value::Null);
        (answer.status, body)
    };
    victim.target.abused("47: every operation, with the names of others", REFUSED, |_| {
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                let body = body_of(path, method);
                // A place of somebody else's, one that is gone, one that never was.
                let mail = "0193e7a0-0000-7000-8000-000000000001";
                let in_path = |device: &str, tenant: &str| {
                    let path = path.replace("{device}", device).replace("{tenant}", tenant);
                    path.replace("{mail}", mail)
                        .replace("{call}", mail)
                        .replace("{credential}", "00000000000000ff")
                        .replace("{group}", "g")
                };
                let mut places = BTreeMap::new();
                if path.contains("{device}") || path.contains("{tenant}") {
                    let all = [("secret", "acme"), ("deleted", "deleted"), ("random", "random")];
                    places.insert("path", all.map(|(device, tenant)| in_path(device, tenant)));
                }
                // Who provisions a device has a key, and no tenant to name.
                if !path.starts_with("/api/v1/tenants") && !path.ends_with("/provision") {
                    let path = in_path("pump", "").replace("{name}", "op");
                    places.insert(
                        "query",
                        ["acme", "deleted", "random"]
                            .map(|tenant| format!("{path}?tenant={tenant}")),
                    );
                }
                for (place, paths) in places {
                    let [first, rest @ ..] = paths.map(|path| asked(method, &path, body));
                    // Tenants are forgotten by the cluster's administrators, whichever it is.
                    let forgets = method == "delete" && path.ends_with("{tenant}");
                    let expected = if forgets { 403 } else { 404 };
                    assert_eq!(first.0, expected, "{place} {method} {path}: {}", first.1);
                    for answer in rest {
                        assert_eq!(answer, first, "{place} {method} {path}");
                    }
                    compared += 1;
                }
            }
        }
    });
    assert!(compared > 40, "{compared}");
    assert_eq!(victim.ask(&root, "GET", "/devices/secret?tenant=acme", "").status, 200);
}

#[test]
fn what_belongs_to_others_takes_as_long_as_what_does_not_exist() {
    let mut victim = Victim::start();
    let (root, other, admin) = (victim.root.clone(), victim.other.clone(), victim.admin);
    let made = victim.ask(&root, "POST", "/tenants", &json!({ "name": "deleted" }).to_string());
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(victim.ask(&root, "DELETE", "/tenants/deleted", "").status, 204);
    let made = json!({ "name": "secret" }).to_string();
    assert_eq!(victim.ask(&root, "POST", "/devices?tenant=acme", &made).status, 201);
    let bearer = format!("Bearer {other}");
    let headers = [("authorization", bearer.as_str())];
    // Another tenant's, one that is gone, one that never was.
    let tenants = ["acme", "deleted", "random"];
    let places: [fn(&str) -> String; 5] = [
        |tenant| format!("/devices/secret?tenant={tenant}"),
        |tenant| format!("/devices?tenant={tenant}"),
        |tenant| format!("/devices/secret/mailbox?tenant={tenant}"),
        |tenant| format!("/tokens?tenant={tenant}"),
        |tenant| format!("/tenants/{tenant}"),
    ];
    victim.target.abused("47: how long it takes", REFUSED, |_| {
        let mut kept = http::Kept::open(admin);
        for place in places {
            let paths = tenants.map(|tenant| format!("/api/v1{}", place(tenant)));
            // One after the other and each at every place in turn, so that all have the same weather. How long one takes says little:
            // whether a thread slept before matters more than what is asked. How often it takes longer than another says a lot.
            let mut longer = [[0; 3]; 3];
            for number in 0..ASKED {
                let mut took = [Duration::ZERO; 3];
                for place in (0..3).map(|place| (number + place) % 3) {
                    let began = Instant::now();
                    assert_eq!(kept.ask("GET", &paths[place], &headers).status, 404, "{paths:?}");
                    took[place] = began.elapsed();
                }
                for (one, other) in [(0, 1), (0, 2), (1, 2)] {
                    longer[one][other] += usize::from(took[one] > took[other]);
                }
            }
            println!("{}: {longer:?} of {ASKED}", paths[0]);
            for (one, other) in [(0, 1), (0, 2), (1, 2)] {
                let longer = longer[one][other];
                assert!(
                    (ASKED / 4..=ASKED * 3 / 4).contains(&longer),
                    "{} takes longer than {} {longer} times of {ASKED}",
                    paths[one],
                    paths[other]
                );
            }
        }
    });
}

#[test]
fn a_token_is_said_in_its_header_and_nowhere_else() {
    let mut victim = Victim::start();
    let (admin, fostrom, root) = (victim.admin, victim.fostrom, victim.root.clone());
    let canary = "CANARY0SECRET0CANARY0SECRET0CANARY";
    victim.target.abused("48: secrets in other places", REFUSED, |_| {
        for path in [
            format!("/api/v1/tenants?token={root}"),
            format!("/api/v1/tenants?access_token={root}"),
            format!("/api/v1/tenants?authorization=Bearer%20{root}"),
            format!("/api/v1/devices/{canary}?tenant=acme"),
        ] {
            assert_eq!(http::api("GET", admin, &path, &[], "").status, 401, "{path}");
        }
        let wrong = format!("Bearer mlt_0_root_{canary}");
        let answer = http::api("GET", admin, "/api/v1/tenants", &[("authorization", &wrong)], "");
        assert_eq!(answer.status, 401);
        assert!(!answer.body.contains(canary));
        let headers = [("x-fleet-id", "F1"), ("x-device-id", "D1"), ("x-device-secret", canary)];
        let answer = http::api("GET", fostrom, "/v1/mailbox/next", &headers, "");
        assert!(answer.status >= 400 && !answer.body.contains(canary), "{}", answer.body);
        let line = format!("{{\"name\":\"pump\",\"credentials\":[{{\"secret\":\"{canary}\"}}]}}");
        let imported =
            raw(admin, &posted("/api/v1/devices/import?tenant=acme", &root, "", line.as_bytes()));
        assert!(imported.contains("exists") && !imported.contains(canary), "{imported}");
    });
    let log = victim.target.cluster.node(1).log();
    let metrics = http::get(admin, "/metrics").unwrap().body;
    let secret = root.rsplit('_').next().unwrap();
    for (what, text) in [("log", &log), ("metrics", &metrics)] {
        assert!(!text.contains(canary) && !text.contains(secret), "a secret is in the {what}");
    }
}
