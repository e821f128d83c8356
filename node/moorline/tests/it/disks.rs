//! Data directories that cannot be trusted: the node says so and ends, the others go on.
//!
//! Every scenario damages the directory of node 3 while it does not run, and puts the good one back afterwards. That is
//! allowed, since the node took part in nothing with the bad one. With a log that lost its tail it may have, in the
//! groups whose log was whole: that scenario is the last, and leaves the node out.

use std::{
    fs::{self, File},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::{
    client_in,
    cluster::{Cluster, SHARDS, config_text, ports},
    mqtt::{Client, numbered},
    node::Node,
    packet::{Connect, Version},
    scenarios,
};

/// The node that suffers.
const VICTIM: u64 = 3;
/// Enough for many log blocks of 32 KiB on every node.
const MESSAGES: usize = 200;
const MESSAGE_BYTES: usize = 2048;
/// Between two damaged bytes: every block of a table has several.
const DAMAGE_EVERY: usize = 512;

#[test]
fn a_directory_that_cannot_be_trusted_is_refused() {
    let mut cluster = Cluster::start(3);
    scenarios(
        &mut cluster,
        &[
            ("two processes never share a directory", two_processes_never_share),
            ("a directory serves one node of one cluster", one_node_of_one_cluster),
            ("a known id on an empty directory is refused", an_empty_directory_is_refused),
            ("damage in the middle of the log is noticed", a_damaged_log_is_noticed),
            ("a damaged table is noticed", a_damaged_table_is_noticed),
            ("a lost log tail is noticed", a_lost_log_tail_is_noticed),
        ],
    );
}

/// Another node of the same cluster on the same directory, with its own ports, its own id and a cluster name.
fn intruder(cluster: &Cluster, id: u64, name: &str) -> Node {
    let ports = ports(3).try_into().unwrap();
    let node =
        Node::new(id, &cluster.dir().join("intruder"), cluster.node(VICTIM).data.clone(), ports);
    fs::create_dir_all(cluster.dir().join("intruder")).unwrap();
    fs::write(&node.config, config_text(&node, cluster.nodes(), name)).unwrap();
    node
}

fn two_processes_never_share(cluster: &mut Cluster) {
    intruder(cluster, VICTIM, "tests").must_refuse_to_run(&["data-dir", "another process uses"]);
    goes_on(cluster);
    assert!(cluster.node(VICTIM).is_ready(), "who was there first is not disturbed");
}

fn one_node_of_one_cluster(cluster: &mut Cluster) {
    assert!(cluster.node_mut(VICTIM).stop().success());
    intruder(cluster, 2, "tests").must_refuse_to_run(&["belongs to node 3, not 2", "node.id"]);
    intruder(cluster, VICTIM, "others").must_refuse_to_run(&["belongs to cluster", "cluster.name"]);
    goes_on(cluster);
    cluster.node_mut(VICTIM).start_ready();
    cluster.digests_agree();
}

fn an_empty_directory_is_refused(cluster: &mut Cluster) {
    assert!(cluster.node_mut(VICTIM).stop().success());
    with_damage(cluster, &["refuses this node", "new id"], |data| {
        fs::remove_dir_all(data).unwrap();
    });
}

fn a_damaged_log_is_noticed(cluster: &mut Cluster) {
    fill_logs(cluster);
    cluster.node_mut(VICTIM).kill();
    with_damage(cluster, &["raftlog", "new node id"], |data| {
        let newest = newest_log(data);
        let mut bytes = fs::read(&newest).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 64].iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(&newest, bytes).unwrap();
    });
}

fn a_damaged_table_is_noticed(cluster: &mut Cluster) {
    // A stop in order writes everything out, so there are tables.
    fill_logs(cluster);
    assert!(cluster.node_mut(VICTIM).stop().success());
    with_damage(cluster, &["state", "new node id"], |data| {
        let tables = files(&data.join("state"), "sst");
        assert!(!tables.is_empty(), "a stop in order writes the rows out");
        for table in tables {
            let mut bytes = fs::read(&table).unwrap();
            bytes.iter_mut().step_by(DAMAGE_EVERY).for_each(|byte| *byte ^= 0x55);
            fs::write(&table, bytes).unwrap();
        }
    });
}

fn a_lost_log_tail_is_noticed(cluster: &mut Cluster) {
    fill_logs(cluster);
    cluster.node_mut(VICTIM).kill();
    let newest = newest_log(&cluster.node(VICTIM).data);
    let file = File::options().write(true).open(&newest).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length / 2).unwrap();
    // Not by luck, and not only the first time.
    for _ in 0..2 {
        let advice = ["part of the log was lost", "new node id"];
        cluster.node_mut(VICTIM).must_refuse_to_run(&advice);
    }
    goes_on(cluster);
}

/// The victim does not run. Its directory is damaged; it must refuse with this advice, the others go on, and with its
/// good directory it is well again.
#[track_caller]
fn with_damage(cluster: &mut Cluster, advice: &[&str], damage: impl FnOnce(&Path)) {
    let data = cluster.node(VICTIM).data.clone();
    let good = data.with_extension("good");
    let copied = Command::new("cp").arg("-a").args([&data, &good]).status().unwrap();
    assert!(copied.success());
    damage(&data);

    let refused = catch_unwind(AssertUnwindSafe(|| {
        cluster.node_mut(VICTIM).must_refuse_to_run(advice);
        // Not by luck, and not only the first time.
        cluster.node_mut(VICTIM).must_refuse_to_run(advice);
        goes_on(cluster);
    }));

    cluster.node_mut(VICTIM).end();
    if data.exists() {
        fs::remove_dir_all(&data).unwrap();
    }
    fs::rename(&good, &data).unwrap();
    cluster.node_mut(VICTIM).start_ready();
    if let Err(failed) = refused {
        resume_unwind(failed);
    }
    goes_on(cluster);
    cluster.digests_agree();
}

/// Publishers and subscribers of the other nodes are served, in all shards.
#[track_caller]
fn goes_on(cluster: &Cluster) {
    let mut sessions = subscribers(cluster, "goes-on");
    let (mut publisher, _) = Connect::clean(Version::V5, "goes-on").to_patiently(cluster.mqtt(2));
    publisher.publish_acked("goes-on", b"still here");
    for session in &mut sessions {
        assert_eq!(session.take(1), ["still here"]);
    }
    for session in sessions {
        session.disconnect();
    }
}

/// Has every shard write much to its log, on every node.
fn fill_logs(cluster: &Cluster) {
    let mut sessions = subscribers(cluster, "fill");
    let (mut publisher, _) = Connect::clean(Version::V5, "filler").to_patiently(cluster.mqtt(2));
    for number in numbered("", 0..MESSAGES) {
        publisher.publish_acked("fill", format!("{number:0>MESSAGE_BYTES$}").as_bytes());
    }
    for session in &mut sessions {
        session.take(MESSAGES);
        session.ping();
    }
}

/// A fresh durable session in every shard, connected to node 1 and subscribed to `topic`.
#[track_caller]
fn subscribers(cluster: &Cluster, topic: &str) -> Vec<Client> {
    (1..=SHARDS)
        .map(|shard| {
            let id = client_in(shard, SHARDS, topic);
            let connect = Connect { clean: true, ..Connect::durable(Version::V5, &id) };
            let (mut client, _) = connect.to_patiently(cluster.mqtt(1));
            client.subscribe_1(topic);
            client
        })
        .collect()
}

/// The log file that was written last.
fn newest_log(data: &Path) -> PathBuf {
    files(&data.join("raftlog"), "log").pop().expect("there is a log")
}

/// Files of a directory with this ending, by name: RocksDB numbers them in order.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == ending))
        .collect();
    files.sort();
    files
}
