//! What the doctor says of clusters that are well, and that are not.

use std::process::Command;

use serde_json::Value;

use crate::harness::{
    cluster::Cluster,
    wait::{READY, until_true},
};

/// What it found, and its exit code.
fn doctor(cluster: &Cluster, nodes: &[u64]) -> (Value, Option<i32>) {
    let node = cluster.node(nodes[0]);
    let admins: Vec<String> = nodes.iter().map(|id| cluster.node(*id).admin.to_string()).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_moorline"))
        .args(["doctor", "--json", "--admin", &admins.join(","), "--config"])
        .arg(&node.config)
        .output()
        .unwrap();
    (serde_json::from_slice(&output.stdout).unwrap(), output.status.code())
}

/// Findings of a check whose words have this in them. What this machine's disk is like is not ours to say.
fn found(said: &Value, check: &str, what: &str) -> usize {
    let findings = said["findings"].as_array().unwrap();
    let matches =
        |one: &&Value| one["check"] == check && one["what"].as_str().unwrap().contains(what);
    findings.iter().filter(matches).count()
}

#[test]
fn the_doctor_finds_who_is_down_and_a_lost_majority_and_nothing_when_they_are_back() {
    let mut cluster = Cluster::start(3);
    until_true("nothing but disks is found", READY, || {
        let (said, _) = doctor(&cluster, &[1, 2, 3]);
        ["config", "ports", "nodes", "groups", "clock", "versions"]
            .iter()
            .all(|check| found(&said, check, "") == 0)
    });
    cluster.node_mut(3).kill();
    until_true("who is down is found", READY, || {
        let (said, code) = doctor(&cluster, &[1, 2]);
        found(&said, "nodes", "node 3 (") == 1
            && found(&said, "groups", "node 3 is down") == 1
            && code.is_some_and(|code| code > 0)
    });
    cluster.node_mut(2).kill();
    until_true("a lost majority is found", READY, || {
        let (said, code) = doctor(&cluster, &[1]);
        found(&said, "groups", "no majority") == 1 && code == Some(2)
    });
    let (said, code) = doctor(&cluster, &[1, 2]);
    assert_eq!((found(&said, "nodes", "nobody answers"), code), (1, Some(2)), "{said}");
    for id in [2, 3] {
        cluster.node_mut(id).start_ready();
    }
    until_true("all is well again", READY, || {
        let (said, _) = doctor(&cluster, &[1, 2, 3]);
        found(&said, "nodes", "") + found(&said, "groups", "") == 0
    });
}
