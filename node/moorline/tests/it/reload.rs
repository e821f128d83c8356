//! Settings that change while a node runs, and what it says in its log.

use std::{
    fs,
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::harness::{
    cluster::{Cluster, Shape},
    http,
    mqtt::Client,
    node::{MOORLINE, Node},
    packet::{Connect, Version},
    wait::{SOON, until, until_true},
};

const V5: Version = Version::V5;
/// What must never be in a log.
const CANARY: &str = "canary-of-a-payload";

/// A node, and its file as it was.
fn start() -> (Cluster, String) {
    let cluster = Cluster::start_as(&Shape::of(1));
    let text = fs::read_to_string(&cluster.node(1).config).unwrap();
    (cluster, text)
}

/// Writes the file anew, with more in `[mqtt]`.
fn write(node: &Node, text: &str, more: &str) {
    assert!(text.contains("[mqtt]\n"));
    fs::write(&node.config, text.replace("[mqtt]\n", &format!("[mqtt]\n{more}\n"))).unwrap();
}

fn says(node: &Node, line: &str) {
    until_true(line, SOON, || {
        http::get(node.admin, "/metrics").is_ok_and(|answer| answer.body.contains(line))
    });
}

fn moorline(node: &Node, arguments: &[&str]) -> Output {
    let admin = node.admin.to_string();
    Command::new(MOORLINE).args(arguments).args(["--admin", &admin]).output().unwrap()
}

fn words(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

fn connect(name: &str, node: &Node) -> Client {
    Connect::clean(V5, name).to_patiently(node.mqtt).0
}

#[test]
fn limits_change_on_sighup_and_a_device_stays_connected() {
    let (cluster, text) = start();
    let node = cluster.node(1);
    let mut device = connect("device", node);
    says(node, "moorline_config_revision 1");

    write(node, &text, "connections-max = 1");
    node.hang_up();
    says(node, "moorline_config_reloads_total{result=\"done\"} 1");
    says(node, "moorline_config_revision 2");
    assert!(Connect::clean(V5, "other").attempt(node.mqtt).is_err(), "there is room for one");
    device.ping();

    // A file that is not usable changes nothing, also not what is good in it.
    write(node, &text, "connections-max = 7\ntls-handshake-ms = 0");
    node.hang_up();
    says(node, "moorline_config_reloads_total{result=\"failed\"} 1");
    fs::write(&node.config, "this is no TOML").unwrap();
    node.hang_up();
    says(node, "moorline_config_reloads_total{result=\"failed\"} 2");
    assert!(node.log().contains("nothing was changed"));
    says(node, "moorline_config_revision 2");
    assert!(Connect::clean(V5, "other").attempt(node.mqtt).is_err(), "there is room for one");
    device.ping();

    write(node, &text, "connections-max = 2");
    node.hang_up();
    says(node, "moorline_config_revision 3");
    let other = connect("other", node);
    let id = device.publish("still/here", b"yes");
    // Nobody is subscribed, which is no refusal.
    assert!(device.puback(id) < 0x80);
    other.disconnect();
    device.disconnect();
}

#[test]
fn what_needs_a_restart_is_named() {
    let (cluster, text) = start();
    let node = cluster.node(1);
    write(node, &text, "receive-max = 5\ndrain-ms = 4000");
    let file = node.config.to_str().unwrap();
    let differs = moorline(node, &["config", "diff", file]);
    let expected = "mqtt.drain-ms: runs 5000, file 4000\nmqtt.receive-max: runs 1024, file 5\n";
    assert_eq!(words(&differs.stdout), expected, "{}", words(&differs.stderr));

    let done = moorline(node, &["config", "reload", "--json"]);
    let done: Value = serde_json::from_slice(&done.stdout).unwrap();
    let expected = json!({ "taken": ["mqtt.drain-ms"], "needs_restart": ["mqtt.receive-max"] });
    assert_eq!(done, expected);
    says(node, "moorline_config_needs_restart 1");
    assert!(node.log().contains("these settings need a restart"));
    let differs = moorline(node, &["config", "diff", file]);
    assert_eq!(words(&differs.stdout), "mqtt.receive-max: runs 1024, file 5\n");

    fs::write(&node.config, text.replace("id = 1\n", "id = 0\n")).unwrap();
    let refused = moorline(node, &["config", "reload"]);
    assert!(!refused.status.success());
    assert!(words(&refused.stderr).contains("node.id"), "{}", words(&refused.stderr));
    fs::write(&node.config, &text).unwrap();
    let done = moorline(node, &["config", "reload"]);
    assert_eq!(words(&done.stdout), "taken          mqtt.drain-ms\n");
    says(node, "moorline_config_needs_restart 0");
}

#[test]
fn a_log_is_json_tells_how_connections_ended_and_no_payload() {
    let (mut cluster, _) = start();
    let node = cluster.node(1);
    for (level, is_good) in [("moorline=loud", false), ("trace,openraft=info", true)] {
        let done = moorline(node, &["log", "level", level]);
        assert_eq!(done.status.success(), is_good, "{level}: {}", words(&done.stderr));
    }
    let mut device = connect("device", node);
    device.subscribe_1("secret/#");
    device.publish_acked("secret/topic", CANARY.as_bytes());
    device.disconnect();
    let ended = until("the end of the connection is told", SOON, || {
        let log = node.log();
        let line = log.lines().find(|line| {
            line.contains("\"connection ended\"") && line.contains("\"device\":\"device\"")
        })?;
        Some(serde_json::from_str::<Value>(line).unwrap())
    });
    for (key, value) in [
        ("level", json!("INFO")),
        ("node", json!(1)),
        ("tenant", json!(1)),
        ("listener", json!("mqtt")),
    ] {
        assert_eq!(ended[key], value, "{key} of {ended}");
    }
    for key in ["conn", "received_bytes", "sent_bytes"] {
        assert!(ended[key].as_u64().unwrap() > 0, "{key} of {ended}");
    }
    assert!(ended["ts"].is_string() && ended["reason"].is_string(), "{ended}");
    assert!(cluster.node_mut(1).stop().success());
    let log = cluster.node(1).log();
    assert!(log.contains("\"level\":\"DEBUG\"") || log.contains("\"level\":\"TRACE\""));
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()), "{line}");
        assert!(!line.contains(CANARY), "{line}");
    }
}
