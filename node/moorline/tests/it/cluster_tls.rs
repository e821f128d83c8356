//! The certificates of nodes are exchanged while the cluster works: another authority takes the old one's place.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::{
    cluster::{Cluster, Shape},
    flow::Flow,
    mqtt::Client,
    node::{MOORLINE, Node},
    packet::{Connect, Version},
    wait::{SOON, until, until_true},
};

/// Acknowledgements of each publisher between two steps.
const SOME: u64 = 20;
const DONE: &str = "moorline_wire_tls_reloads_total{result=\"done\"}";
const FAILED: &str = "moorline_wire_tls_reloads_total{result=\"failed\"}";
const EXPIRES: &str = "moorline_wire_cert_expiry_timestamp_seconds";

fn moorline(arguments: &[&str]) {
    let done = Command::new(MOORLINE).args(arguments).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// An authority in `dir`, and certificates for three nodes that count for so many days.
fn authority(dir: &Path, days: &str) {
    let dir = dir.to_str().unwrap();
    moorline(&["ca", "init", "--dir", dir]);
    for node in ["1", "2", "3"] {
        moorline(&["ca", "issue", "moorline", "--node", node, "--days", days, "--dir", dir]);
    }
}

/// Where a node's own files are.
fn of(cluster: &Cluster, node: u64, name: &str) -> PathBuf {
    cluster.dir().join(format!("tls{node}.{name}"))
}

/// A node is given a certificate that an authority issued.
fn shows(cluster: &Cluster, node: u64, authority: &Path) {
    for end in ["key", "pem"] {
        let from = authority.join(format!("node{node}.{end}"));
        fs::copy(from, of(cluster, node, end)).unwrap();
    }
}

/// A node is told which authorities to trust.
fn trusts(cluster: &Cluster, node: u64, authorities: &[&Path]) {
    let read = |dir: &&Path| fs::read_to_string(dir.join("ca.pem")).unwrap();
    let text: String = authorities.iter().map(read).collect();
    fs::write(of(cluster, node, "ca"), text).unwrap();
}

/// The sum of a metric over its labels.
fn metric(node: &Node, name: &str) -> f64 {
    let answer = crate::harness::http::get(node.admin, "/metrics").unwrap();
    let lines = answer.body.lines().filter(|line| line.starts_with(name));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Has a node read its files again, and waits until it has counted that. It may have looked by itself, too.
#[track_caller]
fn reloads(node: &Node, before: f64, counter: &str) {
    node.hang_up();
    until_true(counter, SOON, || metric(node, counter) > before);
}

fn prepare(authority: &Path) -> Cluster {
    let cluster = Cluster::prepare(&Shape::of(3));
    for node in cluster.nodes() {
        shows(&cluster, node.id, authority);
        trusts(&cluster, node.id, &[authority]);
        let [ca, cert, key] = ["ca", "pem", "key"].map(|name| of(&cluster, node.id, name));
        let text = fs::read_to_string(&node.config).unwrap();
        let tls = format!(
            "[cluster.tls]\nca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\ndomain = \"moorline\"\n"
        );
        fs::write(&node.config, text + &tls).unwrap();
    }
    cluster
}

/// One step on one node after the other; a device that is connected publishes meanwhile, and is refused nothing.
fn on_each(cluster: &Cluster, flow: &Flow, device: &mut Client, step: impl Fn(u64)) {
    for node in cluster.nodes() {
        let before = metric(node, DONE);
        step(node.id);
        reloads(node, before, DONE);
        let id = device.publish("exchange/device", b"I am still here");
        // Nobody is subscribed, which is no refusal.
        assert!(device.puback(id) < 0x80);
    }
    flow.goes_on(SOME);
    for node in cluster.nodes() {
        assert_eq!(metric(node, "moorline_wire_losses_total"), 0.0, "node {}", node.id);
    }
}

#[test]
fn another_authority_of_the_nodes_takes_the_olds_place_and_nobody_notices() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [old, new] = dirs.each_ref().map(tempfile::TempDir::path);
    authority(old, "300");
    authority(new, "100");
    let mut cluster = prepare(old);
    cluster.bring_up();
    let expires = metric(cluster.node(1), EXPIRES);
    let flow = Flow::start(&cluster, "exchange", &[1, 2, 3]);
    let (mut device, _) = Connect::clean(Version::V5, "device").to(cluster.mqtt(2));
    flow.goes_on(SOME);

    on_each(&cluster, &flow, &mut device, |id| trusts(&cluster, id, &[old, new]));

    // As it is for a moment while files are exchanged: the key does not fit.
    let (node, before) = (cluster.node(1), metric(cluster.node(1), FAILED));
    fs::copy(new.join("node1.key"), of(&cluster, 1, "key")).unwrap();
    reloads(node, before, FAILED);
    assert!(node.log().contains("TLS files of the cluster are not usable"));
    assert_eq!(metric(node, EXPIRES), expires);

    on_each(&cluster, &flow, &mut device, |id| shows(&cluster, id, new));
    assert!(metric(cluster.node(1), EXPIRES) < expires);
    on_each(&cluster, &flow, &mut device, |id| trusts(&cluster, id, &[new]));
    device.ping();
    device.disconnect();
    assert_eq!(flow.finish().broken, 0);

    a_node_with_a_certificate_of_the_old_authority_is_refused(&mut cluster, old, new);
}

fn a_node_with_a_certificate_of_the_old_authority_is_refused(
    cluster: &mut Cluster,
    old: &Path,
    new: &Path,
) {
    cluster.node_mut(3).kill();
    shows(cluster, 3, old);
    trusts(cluster, 3, &[old, new]);
    cluster.node_mut(3).start();
    until_true("node 3 answers", SOON, || cluster.node_mut(3).answers());
    until_true("node 1 refuses node 3", SOON, || {
        metric(cluster.node(1), "moorline_wire_failed_handshakes_total") >= 1.0
            && metric(cluster.node(3), "moorline_wire_failed_connects_total") >= 10.0
    });
    assert!(!is_alive(cluster) && !cluster.node(3).is_ready());
    // It finds the new ones by itself.
    shows(cluster, 3, new);
    cluster.wait_ready();
    assert!(is_alive(cluster));
}

/// Whether node 1 is connected with node 3.
fn is_alive(cluster: &Cluster) -> bool {
    until("node 1 sees the cluster", SOON, || {
        let view = cluster.node(1).view()?;
        let nodes = view["nodes"].as_array()?;
        nodes.iter().find(|node| node["id"] == 3)?["alive"].as_bool()
    })
}
