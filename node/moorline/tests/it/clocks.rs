//! Wall clocks that are wrong: what expires does so by time that passed, not by what somebody's clock says.
//!
//! `libfaketime` gives single nodes another wall clock, changed while they run; their monotonic clock stays. Without it
//! the tests are skipped, and say so.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use crate::harness::{
    client_in,
    cluster::{Cluster, SHARDS, Shape},
    mqtt::AN_HOUR_S,
    packet::{Connect, Version},
    scenarios,
    wait::{READY, until_true},
};

/// Where Debian and others put the library.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
];
/// The library looks at the clock file every second, and leaders at what is due ten times as often.
const NOTICED: Duration = Duration::from_millis(3_000);
/// The node whose clock is wrong.
const WRONG: u64 = 2;

#[test]
fn wrong_clocks_expire_nothing_early() {
    let Some(library) = LIBRARIES.iter().find(|path| Path::new(path).exists()) else {
        println!("skipped: there is no libfaketime here");
        return;
    };
    let clock = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let env = vec![
        clock("LD_PRELOAD", library),
        clock("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        clock("FAKETIME_CACHE_DURATION", "1"),
    ];
    let mut cluster = Cluster::prepare(&Shape { env, ..Shape::of(3) });
    for node in cluster.nodes_mut() {
        let file = node.data.with_extension("clock");
        fs::write(&file, "+0").unwrap();
        node.env.push(("FAKETIME_TIMESTAMP_FILE".to_owned(), file.display().to_string()));
    }
    cluster.bring_up();
    scenarios(
        &mut cluster,
        &[
            ("a clock that jumps ahead expires nothing", a_jump_ahead_expires_nothing),
            ("a message outlives the clock of the node it leaves by", a_message_outlives_a_clock),
            ("a leader with a clock ahead expires nothing", a_leader_ahead_expires_nothing),
            ("a clock that jumps back stops nothing", a_jump_back_stops_nothing),
            ("a node that starts with a clock ahead and leads expires nothing", a_start_ahead),
        ],
    );
}

fn clock_of(cluster: &Cluster, node: u64) -> PathBuf {
    cluster.node(node).data.with_extension("clock")
}

/// Sets a node's clock off by so much, and waits until it has noticed.
fn set_clock(cluster: &Cluster, node: u64, offset: &str) {
    fs::write(clock_of(cluster, node), offset).unwrap();
    sleep(NOTICED); // nothing tells when it has
}

/// Sessions of an hour in all shards, with a message of an hour waiting.
fn sessions_that_wait(cluster: &Cluster, topic: &str) -> Vec<Connect> {
    sessions_that_wait_at(cluster, 1, topic)
}

/// The same, made through this node.
fn sessions_that_wait_at(cluster: &Cluster, node: u64, topic: &str) -> Vec<Connect> {
    let mut sessions = Vec::new();
    for shard in 1..=SHARDS {
        let connect = Connect::durable(Version::V5, &client_in(shard, SHARDS, topic));
        let (mut client, _) = connect.to_patiently(cluster.mqtt(node));
        client.subscribe_1(topic);
        client.disconnect();
        sessions.push(connect);
    }
    let (mut publisher, _) = Connect::clean(Version::V5, "clocks").to_patiently(cluster.mqtt(node));
    let id = publisher.publish_expiring(topic, b"an hour", Some(AN_HOUR_S));
    assert_eq!(publisher.puback(id), 0);
    sessions
}

/// They are all there, and so is what waits, whoever delivers it.
#[track_caller]
fn all_still_wait(cluster: &Cluster, sessions: &[Connect], node: u64) {
    for session in sessions {
        let (mut client, present) = session.to_patiently(cluster.mqtt(node));
        assert!(present, "{} expired early", session.client);
        assert_eq!(client.take(1), ["an hour"], "{}", session.client);
        client.ping();
        drop(Connect::clean(Version::V5, &session.client).to_patiently(cluster.mqtt(node)));
    }
}

fn a_jump_ahead_expires_nothing(cluster: &mut Cluster) {
    let sessions = sessions_that_wait(cluster, "ahead");
    set_clock(cluster, WRONG, "+5h");
    all_still_wait(cluster, &sessions, 1);
}

fn a_message_outlives_a_clock(cluster: &mut Cluster) {
    let sessions = sessions_that_wait(cluster, "leaves");
    all_still_wait(cluster, &sessions, WRONG);
}

fn a_leader_ahead_expires_nothing(cluster: &mut Cluster) {
    let sessions = sessions_that_wait(cluster, "leader");
    // Everything is led by somebody else for a while, then by whoever the cluster likes best.
    for node in cluster.others(WRONG) {
        assert!(cluster.node_mut(node).stop().success());
        cluster.node_mut(node).start_ready();
    }
    all_still_wait(cluster, &sessions, 1);
}

fn a_jump_back_stops_nothing(cluster: &mut Cluster) {
    let sessions = sessions_that_wait(cluster, "back");
    set_clock(cluster, WRONG, "-5h");
    all_still_wait(cluster, &sessions, 1);
    let short = Connect::durable(Version::V5, "back-short").expiring(1);
    drop(short.to(cluster.mqtt(1)));
    sleep(NOTICED); // time itself is what is tested
    assert!(!short.to(cluster.mqtt(3)).1, "time goes on for what is due");
}

fn a_start_ahead(cluster: &mut Cluster) {
    let sessions = sessions_that_wait(cluster, "start");
    assert!(cluster.node_mut(WRONG).stop().success());
    fs::write(clock_of(cluster, WRONG), "+5h").unwrap();
    cluster.node_mut(WRONG).start_ready();

    // What it has heard since its start is only that time goes on.
    let [first, last] = cluster.others(WRONG)[..] else { unreachable!("three nodes") };
    assert!(cluster.node_mut(first).stop().success());
    until_true("it leads shards", READY, || leads(cluster, 1) && leads(cluster, 2));
    sleep(NOTICED); // what it did to them shows at the end

    // Now it alone has the whole log of every group: nobody else can be elected.
    drop(sessions_that_wait_at(cluster, WRONG, "more"));
    cluster.node_mut(last).kill();
    cluster.node_mut(first).start();
    until_true("it leads all shards", READY, || (0..=SHARDS).all(|shard| leads(cluster, shard)));
    sleep(NOTICED);
    all_still_wait(cluster, &sessions, WRONG);
    cluster.node_mut(last).start_ready();
}

/// Whether the node whose clock is wrong leads a shard.
fn leads(cluster: &Cluster, shard: u16) -> bool {
    let leader = cluster.node(WRONG).group(shard, "leader");
    leader.is_some_and(|leader| leader == WRONG)
}
