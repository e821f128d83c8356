//! What happens to nodes, and what clients of the others notice.

use std::time::{Duration, Instant};

use crate::harness::{
    client_in,
    cluster::{Cluster, SHARDS},
    flow::{Flow, Outcome},
    mqtt::{Client, Heard, numbered},
    packet::{Connect, Packet, Version},
    scenarios,
    wait::{READY, SOON, until},
};

/// What clients of other nodes may notice of a leader's death.
const DEATH_GAP: Duration = Duration::from_secs(5);
/// What they may notice of one that hangs: nothing but an election timeout tells. It takes 2 s; the rest is for a machine
/// that is busy with other tests (`scripts/verify pause` measures it alone).
const HANG_GAP: Duration = Duration::from_millis(4_000);
/// How long a publisher may wait for a node that hangs and has clean sessions that want its message: when it led the meta
/// group too, an election, a lease and a second.
const SILENCE_GAP: Duration = Duration::from_secs(8);
/// What they may notice of one that stops in order.
const STOP_GAP: Duration = Duration::from_secs(1);
/// How long a minority is watched: longer than its lease of the meta group.
const MINORITY: Duration = Duration::from_secs(4);
/// Acknowledgements per publisher before and after something happens.
const BEFORE: u64 = 50;
const AFTER: u64 = 100;

#[test]
fn a_cluster_outlives_its_nodes() {
    let mut cluster = Cluster::start(3);
    scenarios(
        &mut cluster,
        &[
            ("a stop in order leaves no gap of a second", a_stop_in_order),
            ("a leader's death breaks nobody else's connection", a_leaders_death),
            ("a leader that hangs is replaced", a_leader_that_hangs),
            ("a node that falls silent holds nobody up", a_silent_node_holds_nobody_up),
            ("a minority acknowledges nothing", a_minority_acknowledges_nothing),
            ("all nodes killed at once lose nothing", all_killed_at_once),
        ],
    );
}

fn a_stop_in_order(cluster: &mut Cluster) {
    let victim = cluster.leader(1, 1);
    let at = cluster.mqtt(victim);
    let (mut v4, _) = Connect::clean(Version::V4, "stop-4").to(at);
    let (mut v5, _) = Connect::clean(Version::V5, "stop-5").to(at);
    let outcome = flow_through(cluster, "stop", victim, |cluster| {
        let status = cluster.node_mut(victim).stop();
        assert!(status.success(), "SIGTERM ends a node with {status}");
    });
    assert_eq!(v5.hear(SOON), Heard::Packet(Packet::Disconnect { reason: 0x8B }), "it is told");
    assert_eq!(v5.hear(SOON), Heard::Closed);
    assert_eq!(v4.hear(SOON), Heard::Closed);
    assert!(outcome.ack_gap <= STOP_GAP, "{outcome:?}");
    assert!(outcome.delivery_gap <= STOP_GAP, "{outcome:?}");
}

fn a_leaders_death(cluster: &mut Cluster) {
    let victim = cluster.leader(2, 1);
    let outcome = flow_through(cluster, "death", victim, |cluster| cluster.node_mut(victim).kill());
    assert!(outcome.ack_gap <= DEATH_GAP, "{outcome:?}");
    assert!(outcome.delivery_gap <= DEATH_GAP, "{outcome:?}");
}

fn a_leader_that_hangs(cluster: &mut Cluster) {
    let victim = cluster.leader(3, 1);
    let flow = Flow::start(cluster, "hang", &cluster.others(victim));
    flow.goes_on(BEFORE);
    cluster.node(victim).pause();
    flow.goes_on(AFTER);
    cluster.node(victim).resume();
    flow.goes_on(BEFORE);
    let outcome = flow.finish();
    assert_eq!(outcome.broken, 0, "connections to other nodes stay: {outcome:?}");
    assert!(outcome.ack_gap <= HANG_GAP, "{outcome:?}");
    assert!(outcome.delivery_gap <= HANG_GAP, "{outcome:?}");
    cluster.wait_ready();
    cluster.digests_agree();
}

/// Clean sessions of a node that hangs are given up, and told so.
fn a_silent_node_holds_nobody_up(cluster: &mut Cluster) {
    let victim = cluster.leader(0, 1);
    let [other, _] = cluster.others(victim)[..] else { panic!("three nodes") };
    let connect = Connect::clean(Version::V5, "silent");
    let (mut live, _) = connect.to(cluster.mqtt(victim));
    live.subscribe_1("silent");
    let (mut publisher, _) =
        Connect::clean(Version::V5, "silent-publisher").to(cluster.mqtt(other));
    publisher.publish_acked("silent", b"heard");
    assert_eq!(live.take(1), ["heard"]);

    cluster.node(victim).pause();
    let since = Instant::now();
    let id = publisher.publish("silent", b"missed");
    assert!(publisher.puback(id) < 0x80, "who is gone is not waited for");
    let gap = since.elapsed();
    println!("  acknowledged after {gap:?}");
    assert!(gap <= SILENCE_GAP, "{gap:?}");
    cluster.node(victim).resume();
    until("a clean session that missed something ends", READY, || {
        (live.hear(SOON) == Heard::Closed).then_some(())
    });
    cluster.wait_ready();

    let (mut live, _) = connect.to_patiently(cluster.mqtt(victim));
    live.subscribe_1("silent");
    publisher.publish_acked("silent", b"heard again");
    assert_eq!(live.take(1), ["heard again"]);
}

/// Messages flow between clients of the other nodes while something ends `victim`; then it starts again and catches up.
fn flow_through(
    cluster: &mut Cluster,
    tag: &str,
    victim: u64,
    end: impl FnOnce(&mut Cluster),
) -> Outcome {
    let flow = Flow::start(cluster, tag, &cluster.others(victim));
    flow.goes_on(BEFORE);
    end(cluster);
    flow.goes_on(AFTER);
    cluster.node_mut(victim).start_ready();
    flow.goes_on(BEFORE);
    let outcome = flow.finish();
    assert_eq!(outcome.broken, 0, "connections to other nodes stay: {outcome:?}");
    cluster.digests_agree();
    outcome
}

/// A durable session in every shard, subscribed to `topic`, not connected any more.
fn sessions_in_all_shards(cluster: &Cluster, topic: &str) -> Vec<Connect> {
    let mut sessions = Vec::new();
    for shard in 1..=SHARDS {
        let connect = Connect::durable(Version::V5, &client_in(shard, SHARDS, topic));
        let (mut client, _) = connect.to(cluster.mqtt(1));
        client.subscribe_1(topic);
        client.disconnect();
        sessions.push(connect);
    }
    sessions
}

fn a_minority_acknowledges_nothing(cluster: &mut Cluster) {
    let sessions = sessions_in_all_shards(cluster, "minority");
    let (mut publisher, _) = Connect::clean(Version::V5, "minority-publisher").to(cluster.mqtt(1));
    publisher.publish_acked("minority", b"before");
    // One hangs, one is gone.
    cluster.node(2).pause();
    cluster.node_mut(3).kill();
    for payload in numbered("unknown", 0..5) {
        publisher.publish("minority", payload.as_bytes());
    }
    let since = Instant::now();
    while since.elapsed() < MINORITY {
        match publisher.hear(MINORITY.saturating_sub(since.elapsed())) {
            Heard::Packet(Packet::PubAck { reason, .. }) => {
                assert!(reason >= 0x80, "acknowledged by one node of three");
            }
            Heard::Packet(_) | Heard::Nothing => {}
            Heard::Closed => break,
        }
    }
    assert!(!cluster.node(1).is_ready(), "it knows that it cannot serve");
    cluster.node(2).resume();
    cluster.node_mut(3).start();

    let mut publisher = publish_again(cluster, "minority", b"after");
    publisher.publish_acked("minority", b"and on");
    cluster.wait_ready();
    for session in sessions {
        let (mut client, present) = session.to_patiently(cluster.mqtt(2));
        assert!(present);
        let mut got = Vec::new();
        while got.last().is_none_or(|last| last != "and on") {
            got.extend(client.take(1));
        }
        // What nobody was told of may be there or not; the rest is, in order.
        got.retain(|payload| !payload.starts_with("unknown"));
        got.dedup();
        assert_eq!(got, ["before", "after", "and on"]);
    }
    cluster.digests_agree();
}

/// Publishes until it is acknowledged; a fresh connection each time.
fn publish_again(cluster: &Cluster, topic: &str, payload: &[u8]) -> Client {
    let connect = Connect::clean(Version::V5, "again");
    until("a publish is acknowledged again", READY, || {
        let (mut client, _) = connect.attempt(cluster.mqtt(1)).ok()?;
        let id = client.publish_unchecked(topic, payload);
        match client.hear(READY) {
            Heard::Packet(Packet::PubAck { id: acked, reason: 0 }) if acked == id => Some(client),
            _ => None,
        }
    })
}

fn all_killed_at_once(cluster: &mut Cluster) {
    let sessions = sessions_in_all_shards(cluster, "power");
    let mut publishers: Vec<_> = cluster
        .nodes()
        .iter()
        .map(|node| {
            Connect::clean(Version::V5, &format!("power-publisher-{}", node.id)).to(node.mqtt).0
        })
        .collect();
    let payloads = numbered("m", 0..100);
    for (place, payload) in payloads.iter().enumerate() {
        publishers[place % 3].publish_acked("power", payload.as_bytes());
    }
    cluster.kill_all();
    cluster.nodes_mut().iter_mut().for_each(|node| node.start());
    cluster.wait_ready();
    for (node, session) in (1..).zip(&sessions) {
        let (mut client, present) = session.to(cluster.mqtt(node));
        assert!(present, "{} survived", session.client);
        assert_eq!(client.take(payloads.len()), payloads);
        client.hears_nothing();
        client.disconnect();
    }
    cluster.digests_agree();
}
