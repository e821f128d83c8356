//! No secret is anywhere but in the answer that shows it: not in a log at its loudest, a metric, an answer, or a file.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::harness::{
    api::{Api, text},
    http,
    packet::{Connect, Version},
};

/// In every secret of this test that somebody brings, and in no other word.
const CANARY: &str = "canary7f3a9";

#[test]
fn no_secret_is_where_it_can_be_read() {
    let mut api = Api::start();
    loudly(&mut api);
    let settings = json!({ "plaintext": true, "chosen-passwords": true });
    let tenant =
        json!({ "name": "acme", "aliases": ["host:*", "fostrom:FLEET001"], "settings": settings });
    assert_eq!(api.ask(1, "POST", "/tenants", &tenant).0, 201);
    let device = json!({ "name": "DEVICE0001" });
    assert_eq!(api.ask(1, "POST", "/devices?tenant=acme", &device).0, 201);
    let mut secrets = vec![CANARY.to_owned(), api.token.clone()];
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let (token, key) = (format!("{CANARY}-{CANARY}"), hex.repeat(2));
    secrets.push(hex);
    let generated = made(&api, &token, &key);
    let rights = json!({ "name": "line", "devices": ["*"], "devices_max": 3 });
    let line = text(&api.ask(3, "POST", "/provisioning-keys?tenant=acme", &rights), 201, "secret");
    let asked = json!({ "key": line, "device": "made" });
    let made = text(&api.ask_as("", 1, "POST", "/provision", &asked), 201, "secret");
    // All of them are shown, right and wrong, where a log might say so.
    for (user, password) in [
        ("DEVICE0001@acme", generated[0].as_str()),
        ("FLEET001::DEVICE0001", &generated[1]),
        (&generated[2], ""),
        (&token, ""),
        ("generated@acme", &generated[4]),
        ("chosen@acme", CANARY),
        ("chosen@acme", &format!("{CANARY}x")),
        ("nobody@acme", CANARY),
        (&format!("{token}x"), ""),
        ("made@acme", &made),
    ] {
        for (version, node) in [(Version::V4, 1), (Version::V5, 2)] {
            let mut connect = Connect::clean(version, "JSON");
            connect.login = Some((user.to_owned(), password.to_owned()));
            connect.reason(api.cluster.mqtt(node));
        }
    }
    refused(&api);
    secrets.extend(generated.into_iter().chain([line, made]).filter(|secret| !secret.is_empty()));
    // Long parts of them, too: a line that is cut short is as bad.
    let parts: Vec<_> =
        secrets.iter().map(|secret| secret[secret.len().saturating_sub(20)..].to_owned()).collect();
    for node in [1, 2, 3] {
        let metrics = http::get(api.cluster.node(node).admin, "/metrics").unwrap().body;
        let (_, known) = api.ask(node, "GET", "/devices/DEVICE0001?tenant=acme", &Value::Null);
        for part in &parts {
            assert!(!metrics.contains(part.as_str()), "{part} is in metrics");
            assert!(!known.to_string().contains(part.as_str()), "{part} is in an answer");
        }
    }
    for node in [1, 2, 3] {
        api.cluster.node_mut(node).stop();
        let (log, data) = (api.cluster.node(node).log(), api.cluster.node(node).data.clone());
        assert!(log.contains("TRACE") || log.contains("DEBUG"), "it says everything");
        for part in &parts {
            assert!(!log.contains(part.as_str()), "{part} is in the log of node {node}");
        }
        nowhere_in(&data, &parts);
    }
}

/// Makes credentials of every kind that has a secret; what was generated for each.
fn made(api: &Api, token: &str, key: &str) -> Vec<String> {
    let mut generated = Vec::new();
    for wanted in [
        json!({ "kind": "secret" }),
        json!({ "kind": "secret", "style": "fostrom" }),
        json!({ "kind": "token" }),
        json!({ "kind": "token", "token": token }),
        json!({ "kind": "password", "user": "generated" }),
        json!({ "kind": "password", "user": "chosen", "password": CANARY }),
        json!({ "kind": "psk", "key": key }),
        json!({ "kind": "psk", "identity": "generated" }),
    ] {
        let path = "/devices/DEVICE0001/credentials?tenant=acme";
        let made = api.ask(2, "POST", path, &wanted);
        text(&made, 201, "id");
        generated.push(made.1["secret"].as_str().unwrap_or_default().to_owned());
    }
    generated
}

/// And in requests that are refused.
fn refused(api: &Api) {
    for (path, body) in [
        (
            "/devices/DEVICE0001/credentials?tenant=acme",
            json!({ "kind": "token", "token": CANARY }),
        ),
        (
            "/devices/DEVICE0001/credentials?tenant=acme",
            json!({ "kind": "secret", "password": CANARY }),
        ),
        ("/provision", json!({ "key": format!("mlp_1_x_{CANARY}"), "device": "x" })),
    ] {
        let (status, problem) = api.ask(1, "POST", path, &body);
        assert!(status >= 400 && !problem.to_string().contains(CANARY), "{problem}");
    }
}

/// Has all nodes say everything they can.
fn loudly(api: &mut Api) {
    for node in [1, 2, 3] {
        let config = api.cluster.node(node).config.clone();
        let text = fs::read_to_string(&config).unwrap();
        let begin = text.find("level = ").unwrap();
        let end = begin + text[begin..].find('\n').unwrap();
        let text = format!("{}level = \"trace,openraft=info\"{}", &text[..begin], &text[end..]);
        fs::write(&config, text).unwrap();
        api.cluster.node_mut(node).stop();
    }
    for node in [1, 2, 3] {
        api.cluster.node_mut(node).start();
    }
    for node in [1, 2, 3] {
        api.cluster.node_mut(node).wait_ready();
    }
}

/// No file below has any of them.
fn nowhere_in(dir: &Path, parts: &[String]) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            nowhere_in(&path, parts);
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        // What is looked for is ASCII: what is none may be changed.
        let text = String::from_utf8_lossy(&bytes);
        for part in parts {
            assert!(!text.contains(part.as_str()), "{part} is in {}", path.display());
        }
    }
}
