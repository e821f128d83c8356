//! A backup of a cluster under load, and new clusters of other sizes out of it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::harness::{
    api::Api,
    cluster::{Cluster, SHARDS, Shape},
    flow::Flow,
    http,
    mqtt::numbered,
    node::{MOORLINE, Node},
    packet::{Connect, Version},
    sse::Sse,
    wait::READY,
};

/// Sessions that are away, enough for all shards.
const SESSIONS: usize = 12;
/// Messages that wait for each.
const WAITING: usize = 5;
/// Devices, enough for all shards.
const DEVICES: usize = 12;
/// Events of each.
const EVENTS: usize = 3;
/// Events that the consumer group has committed.
const COMMITTED: usize = 10;
/// Acknowledgements per publisher before and while the backup is made.
const SOME: u64 = 30;

/// What an operator types.
fn moorline(args: &[&str]) -> Output {
    Command::new(MOORLINE).args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[track_caller]
fn done(args: &[&str]) -> String {
    let output = moorline(args);
    assert!(output.status.success(), "{args:?}: {}", said(&output));
    said(&output)
}

#[track_caller]
fn refused(args: &[&str], why: &str) {
    let output = moorline(args);
    let said = said(&output);
    assert!(!output.status.success() && said.contains(why), "{args:?}: no {why:?} in {said}");
}

/// Asks a node's API.
fn ask(at: SocketAddr, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let bearer = format!("Bearer {token}");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let path = format!("/api/v1{path}");
    let answer = http::api(method, at, &path, &[("authorization", &*bearer)], &body);
    (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null))
}

fn events(at: SocketAddr, token: &str) -> Sse {
    let bearer = format!("Bearer {token}");
    Sse::open(at, "/api/v1/events?tenant=acme&group=g", &[("authorization", &*bearer)]).unwrap()
}

fn session(number: usize) -> Connect {
    Connect::durable(Version::V5, &format!("away-{number}"))
}

/// Everything that a backup has to keep, of each kind some in every shard.
fn fill(api: &Api) {
    let at = api.cluster.mqtt(1);
    for number in 0..SESSIONS {
        let (mut client, _) = session(number).to(at);
        client.subscribe_1(&format!("away/{number}"));
        client.disconnect();
    }
    let (mut publisher, _) = Connect::clean(Version::V5, "publisher").to(at);
    for number in 0..SESSIONS {
        for payload in numbered("m", 0..WAITING) {
            publisher.publish_acked(&format!("away/{number}"), payload.as_bytes());
        }
        publisher.retain(&format!("kept/{number}"), format!("r{number}").as_bytes(), None);
    }
    publisher.disconnect();

    let ask = |method, path: &str, body: Value| api.ask(1, method, path, &body);
    assert_eq!(ask("POST", "/tenants", json!({ "name": "acme" })).0, 201);
    for number in 0..DEVICES {
        let name = json!({ "name": format!("d{number}") });
        assert_eq!(ask("POST", "/devices?tenant=acme", name).0, 201);
        let mail = json!({ "name": "open", "payload": { "number": number } });
        let path = format!("/devices/d{number}/mailbox?tenant=acme");
        assert_eq!(ask("POST", &path, mail).0, 201);
        for n in 0..EVENTS {
            let event = json!({ "type": "datapoint", "channel": "env", "data": { "n": n } });
            let path = format!("/devices/d{number}/events?tenant=acme");
            assert_eq!(ask("POST", &path, event).0, 201);
        }
    }
    let mut reader = events(api.cluster.node(1).admin, &api.token);
    for _ in 0..COMMITTED {
        assert!(reader.next(READY).is_some());
    }
    let commit = json!({ "cursor": reader.cursor });
    let (status, answer) = ask("POST", "/consumers/g/commit?tenant=acme", commit);
    assert_eq!(status, 200, "{answer}");
}

/// All of it is there, through the last node.
fn is_whole(cluster: &Cluster, token: &str) {
    let last: &Node = cluster.nodes().last().unwrap();
    for number in 0..SESSIONS {
        let (mut client, present) = session(number).to_patiently(last.mqtt);
        assert!(present, "session {number} is there");
        assert_eq!(client.take(WAITING), numbered("m", 0..WAITING));
        // It subscribes as before, and hears what is published now.
        client.publish_acked(&format!("away/{number}"), b"now");
        assert_eq!(client.take(1), ["now"]);
        client.disconnect();
    }
    let (mut reader, _) = Connect::clean(Version::V5, "reader").to(last.mqtt);
    reader.subscribe_1("kept/+");
    let mut kept = reader.take(SESSIONS);
    kept.sort();
    let mut wanted: Vec<_> = (0..SESSIONS).map(|number| format!("r{number}")).collect();
    wanted.sort();
    assert_eq!(kept, wanted);

    for number in 0..DEVICES {
        let path = format!("/devices/d{number}/mailbox?tenant=acme");
        let (status, mailbox) = ask(last.admin, token, "GET", &path, &Value::Null);
        assert_eq!(status, 200, "{mailbox}");
        assert!(mailbox.to_string().contains("\"open\""), "{mailbox}");
    }
    let (_, groups) = ask(last.admin, token, "GET", "/consumers?tenant=acme", &Value::Null);
    let rest = DEVICES * EVENTS - COMMITTED;
    assert_eq!((&groups[0]["group"], &groups[0]["missed"]), (&json!("g"), &json!(0)), "{groups}");
    assert!(groups[0]["lag"].as_u64().unwrap() >= rest as u64, "{groups}");
    let mut reader = events(last.admin, token);
    for _ in 0..rest {
        let said = reader.next(READY).expect("an event that was not committed");
        assert_eq!(said.event, None, "nothing is missed: {said:?}");
    }
    // What is new has a place behind what was there.
    let event = json!({ "type": "datapoint", "channel": "env", "data": { "n": 99 } });
    assert_eq!(ask(last.admin, token, "POST", "/devices/d1/events?tenant=acme", &event).0, 201);
    let mut all = std::iter::from_fn(|| reader.next(READY));
    assert!(all.any(|said| said.data.is_some_and(|data| data["data"]["n"] == 99)));
}

/// The files of a cluster that has another name than the old one.
fn prepared(nodes: u64, key: &Path) -> Cluster {
    let extra = format!("[security]\nkey-file = {key:?}\nanonymous = true\n");
    let cluster = Cluster::prepare(&Shape { extra, ..Shape::of(nodes) });
    for node in cluster.nodes() {
        let text = fs::read_to_string(&node.config).unwrap();
        let renamed = text.replace("name = \"tests\"", "name = \"restored\"");
        assert_ne!(renamed, text);
        fs::write(&node.config, renamed).unwrap();
    }
    cluster
}

/// A file below a directory.
fn any_piece(dir: &Path) -> PathBuf {
    let prefix = fs::read_dir(dir.join("pieces")).unwrap().next().unwrap().unwrap().path();
    fs::read_dir(prefix).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn a_backup_under_load_becomes_a_cluster_of_another_size() {
    let shape = Shape { extra: "anonymous = true\n".to_owned(), ..Shape::of(3) };
    let api = Api::start_as(&shape, &[]);
    fill(&api);
    let backups = tempfile::tempdir().unwrap();
    let to = backups.path().to_str().unwrap();
    let admin = api.cluster.node(2).admin.to_string();

    let flow = Flow::start(&api.cluster, "load", &[1, 2, 3]);
    flow.goes_on(SOME);
    let create = |name| done(&["backup", "create", "--to", to, "--name", name, "--admin", &admin]);
    let first = create("first");
    assert!(first.contains(&format!("{} groups", SHARDS + 1)), "{first}");
    flow.goes_on(SOME);
    create("second");
    flow.finish();
    create("quiet");
    // Nothing is written but what the groups do by themselves.
    let manifest = fs::read_to_string(backups.path().join("quiet.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["shards"], SHARDS);
    refused(&["backup", "create", "--to", to, "--name", "quiet", "--admin", &admin], "already");
    let verified = done(&["backup", "verify", to]);
    assert_eq!(verified.matches(": whole").count(), 3, "{verified}");

    let (mut old, token, _, key_dir) = api.into_parts();
    let key = key_dir.path().join("cluster.key");
    old.kill_all();
    for nodes in [1, 5] {
        let mut new = prepared(nodes, &key);
        let config = new.node(1).config.to_str().unwrap().to_owned();
        let restored = done(&["backup", "restore", to, "--name", "first", "--config", &config]);
        assert!(restored.contains("start it: moorline server"), "{restored}");
        refused(&["backup", "restore", to, "--config", &config], "not empty");
        new.nodes_mut().iter_mut().for_each(Node::start);
        new.wait_ready();
        is_whole(&new, &token);
    }
}

#[test]
fn what_is_damaged_or_does_not_fit_is_refused() {
    let api = Api::start_as(&Shape { extra: "anonymous = true\n".to_owned(), ..Shape::of(1) }, &[]);
    fill(&api);
    let backups = tempfile::tempdir().unwrap();
    let to = backups.path().to_str().unwrap();
    let admin = api.cluster.node(1).admin.to_string();
    done(&["backup", "create", "--to", to, "--admin", &admin]);

    let (old, _, _, key_dir) = api.into_parts();
    let new = prepared(1, &key_dir.path().join("cluster.key"));
    let config = new.node(1).config.to_str().unwrap();
    let restore = ["backup", "restore", to, "--config", config];
    let text = fs::read_to_string(config).unwrap();
    for (from, to, why) in [
        (format!("shards = {SHARDS}"), "shards = 9".to_owned(), "as many shards"),
        ("name = \"restored\"".to_owned(), "name = \"tests\"".to_owned(), "another cluster.name"),
    ] {
        fs::write(config, text.replace(&from, &to)).unwrap();
        refused(&restore, why);
        assert!(!new.node(1).data.exists(), "nothing was made");
    }
    fs::write(config, text).unwrap();

    let piece = any_piece(backups.path());
    let mut bytes = fs::read(&piece).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&piece, bytes).unwrap();
    refused(&["backup", "verify", to], "is damaged");
    refused(&restore, "is damaged");
    // Half a restore is not started.
    refused(&["server", "--config", config], "is being restored");
    drop(old);
}
