//! A backup of a cluster under load, and new clusters of other sizes out of it.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::harness::{
    api::{Api, text},
    cluster::{Cluster, SHARDS, Shape},
    flow::Flow,
    http,
    mqtt::{Client, Heard, numbered},
    node::{MOORLINE, Node},
    packet::{Connect, Packet, Version},
    sse::Sse,
    wait::{READY, SOON, until, until_true},
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

/// What is not in the cluster, and its clients have.
struct Kept {
    /// A token of each device.
    tokens: Vec<String>,
    /// The password of a user of the first one.
    password: String,
    /// A mail that was cancelled.
    cancelled: String,
    /// The packet id of a QoS 2 delivery of which the PUBREL was heard and not answered, and of the one behind it.
    released: u16,
    sent: u16,
    /// Whoever has a will, connected until it is dropped.
    _mourned: Client,
}

/// A session that publishes and hears with QoS 2.
fn once(name: &str) -> Connect {
    Connect::durable(Version::V5, name)
}

fn login(client: &str, user: &str, password: &str) -> Connect {
    let login = Some((user.to_owned(), password.to_owned()));
    Connect { login, ..Connect::clean(Version::V5, client) }
}

/// QoS 2 in the middle, on both sides: the packet ids of what was released and what was sent only.
fn leave_in_the_middle(at: SocketAddr) -> (u16, u16) {
    let (mut hears, _) = once("once-hears").to(at);
    hears.subscribe_2("once/+");
    let (mut says, _) = once("once-says").to(at);
    for payload in ["released", "sent"] {
        says.publish_once("once/1", payload.as_bytes());
    }
    let released = hears.message();
    hears.receive(&released);
    let sent = hears.message();
    hears.ping();
    says.publish_2(4000, "once/2", b"not released", false);
    assert_eq!(says.pubrec(4000), 0);
    (released.id, sent.id)
}

/// Everything that a backup has to keep, of each kind some in every shard.
fn fill(api: &Api) -> Kept {
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
    let (released, sent) = leave_in_the_middle(at);
    let (mut mourner, _) = once("mourner").to(at);
    mourner.subscribe_1("wills/backup");
    mourner.disconnect();
    let will = Connect::clean(Version::V5, "mourned").leaving("wills/backup", "gone", 0);
    let (mourned, _) = will.to(at);

    let ask = |method, path: &str, body: Value| api.ask(1, method, path, &body);
    assert_eq!(ask("POST", "/tenants", json!({ "name": "acme" })).0, 201);
    let (mut tokens, mut cancelled) = (Vec::new(), String::new());
    for number in 0..DEVICES {
        let name = json!({ "name": format!("d{number}") });
        assert_eq!(ask("POST", "/devices?tenant=acme", name).0, 201);
        let path = format!("/devices/d{number}/credentials?tenant=acme");
        tokens.push(text(&ask("POST", &path, json!({ "kind": "token" })), 201, "secret"));
        for mail in ["open", "shut", "never"] {
            let mail = json!({ "name": mail, "payload": { "number": number } });
            let path = format!("/devices/d{number}/mailbox?tenant=acme");
            cancelled = text(&ask("POST", &path, mail), 201, "id");
        }
        let path = format!("/devices/d{number}/mailbox/{cancelled}?tenant=acme");
        let (status, answer) = ask("DELETE", &path, Value::Null);
        assert!(status < 300, "{status}: {answer}");
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
    let password = json!({ "kind": "password", "user": "alice" });
    let made = ask("POST", "/devices/d0/credentials?tenant=acme", password);
    let password = text(&made, 201, "secret");
    Kept { tokens, password, cancelled, released, sent, _mourned: mourned }
}

/// What was in the middle of QoS 2 goes on there, and new publishes count once.
fn goes_on_once(at: SocketAddr, kept: &Kept) {
    let (mut hears, present) = once("once-hears").to_patiently(at);
    assert!(present);
    // What is owed comes first; of "not released" it is not known which side of it comes first.
    let mut ids = BTreeSet::new();
    while ids.len() < 3 {
        match hears.hear(SOON) {
            Heard::Packet(Packet::PubRel { id, reason: 0 }) => {
                assert_eq!(id, kept.released, "only what was released");
                hears.complete(id);
                ids.insert(id);
            }
            Heard::Packet(Packet::Publish(publish)) => {
                let expected: &[u8] =
                    if publish.id == kept.sent { b"sent" } else { b"not released" };
                assert_eq!(publish.payload, expected);
                ids.insert(publish.id);
                hears.receive(&publish);
                hears.complete(publish.id);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(ids.contains(&kept.released) && ids.contains(&kept.sent), "{ids:?}");
    let (mut says, present) = once("once-says").to_patiently(at);
    assert!(present);
    assert_eq!(says.pubrel(4000), 0, "it is known there");
    says.publish_once("once/3", b"new");
    assert_eq!(hears.take_once(1), ["new"]);
    hears.hears_nothing();
    hears.disconnect();
}

/// Devices come in with what they have, and nobody else does.
fn let_in(at: SocketAddr, kept: &Kept) {
    for token in &kept.tokens {
        assert_eq!(login("any", token, "").reason(at), 0);
    }
    assert_eq!(login("any", "alice@acme", &kept.password).reason(at), 0);
    assert_ne!(login("any", "alice@acme", "another").reason(at), 0);
}

/// All of it is there, through the last node.
fn is_whole(cluster: &Cluster, token: &str, kept: &Kept) {
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
    let mut retained = reader.take(SESSIONS);
    retained.sort();
    let mut wanted: Vec<_> = (0..SESSIONS).map(|number| format!("r{number}")).collect();
    wanted.sort();
    assert_eq!(retained, wanted);

    goes_on_once(last.mqtt, kept);
    let (mut mourner, present) = once("mourner").to_patiently(last.mqtt);
    assert!(present);
    assert_eq!(mourner.take(1), ["gone"], "who was connected is known to be gone");
    mourner.disconnect();
    let_in(last.mqtt, kept);

    for number in 0..DEVICES {
        let path = format!("/devices/d{number}/mailbox?tenant=acme");
        let (status, mailbox) = ask(last.admin, token, "GET", &path, &Value::Null);
        assert_eq!(status, 200, "{mailbox}");
        let mails = mailbox["mails"].as_array().unwrap();
        let names: Vec<_> = mails.iter().map(|mail| mail["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["open", "shut"], "{mailbox}");
    }
    let path = format!("/devices/d{}/mailbox/{}?tenant=acme", DEVICES - 1, kept.cancelled);
    let (_, mail) = ask(last.admin, token, "GET", &path, &Value::Null);
    assert_eq!(mail["state"], "cancelled", "{mail}");
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
    let kept = fill(&api);
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
    let metrics = http::get(api.cluster.node(2).admin, "/metrics").unwrap().body;
    for said in [
        "moorline_backups_total{outcome=\"done\"} 3",
        "moorline_backups_total{outcome=\"failed\"} 1",
    ] {
        assert!(metrics.contains(said), "no {said} in {metrics}");
    }
    let pruned = done(&["backup", "prune", to, "--keep", "2"]);
    assert!(pruned.contains("backup first: deleted"), "{pruned}");
    let verified = done(&["backup", "verify", to]);
    assert_eq!(verified.matches(": whole").count(), 2, "{verified}");

    let (mut old, token, _, key_dir) = api.into_parts();
    let key = key_dir.path().join("cluster.key");
    old.kill_all();
    for nodes in [1, 5] {
        let mut new = prepared(nodes, &key);
        let config = new.node(1).config.to_str().unwrap().to_owned();
        let restored = done(&["backup", "restore", to, "--name", "second", "--config", &config]);
        assert!(restored.contains("start it: moorline server"), "{restored}");
        refused(&["backup", "restore", to, "--config", &config], "not empty");
        let data = &new.node(1).data;
        assert_eq!(fs::metadata(data).unwrap().permissions().mode() & 0o777, 0o700);
        let identity = fs::read_to_string(data.join("node.json")).unwrap();
        let identity: Value = serde_json::from_str(&identity).unwrap();
        assert_eq!(identity["format"], manifest["level"], "an older program refuses it");
        new.nodes_mut().iter_mut().for_each(Node::start);
        new.wait_ready();
        is_whole(&new, &token, &kept);
    }
}

/// The restored node is late, and somebody does what one does with new nodes.
fn nobody_makes_another(three: &mut Cluster) {
    for id in [2, 3] {
        three.node_mut(id).start();
        until_true("a new node answers", READY, || three.node_mut(id).answers());
    }
    let init = |three: &Cluster| http::post(three.node(2).admin, "/api/v1/cluster/init").unwrap();
    let refused = init(three);
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert!(refused.body.contains("no answer of the nodes 1"), "{}", refused.body);
    three.node_mut(1).start();
    let there = until("there is a cluster already", READY, || {
        let answer = init(three);
        (answer.status == 200).then_some(answer)
    });
    assert!(there.body.contains("made"), "{}", there.body);
}

#[test]
fn what_is_damaged_or_does_not_fit_is_refused() {
    let api = Api::start_as(&Shape { extra: "anonymous = true\n".to_owned(), ..Shape::of(1) }, &[]);
    let kept = fill(&api);
    let backups = tempfile::tempdir().unwrap();
    let to = backups.path().to_str().unwrap();
    let admin = api.cluster.node(1).admin.to_string();
    done(&["backup", "create", "--to", to, "--admin", &admin]);
    let mode = fs::metadata(any_piece(backups.path())).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else reads it");

    let (mut old, token, _, key_dir) = api.into_parts();
    // One node becomes three, which get their votes as nodes do that join.
    old.kill_all();
    let mut three = prepared(3, &key_dir.path().join("cluster.key"));
    let config = three.node(1).config.to_str().unwrap().to_owned();
    done(&["backup", "restore", to, "--config", &config]);
    nobody_makes_another(&mut three);
    three.wait_ready();
    is_whole(&three, &token, &kept);
    until_true("every group has three voters", READY, || {
        let view = http::get(three.node(1).admin, "/api/v1/cluster").unwrap().json();
        let groups = view["groups"].as_array().unwrap();
        groups.iter().all(|group| group["voters"].as_array().unwrap().len() == 3)
    });
    drop(three);

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
