//! Clusters that grow, shrink and heal while messages flow.

use std::collections::BTreeSet;

use crate::harness::{
    cluster::{Cluster, SHARDS},
    flow::Flow,
    http,
    mqtt::Heard,
    packet::{Connect, Packet, Version},
    scenarios,
    wait::{READY, SOON, until_true},
};

/// Acknowledgements per publisher before, between and after what happens.
const SOME: u64 = 50;

#[test]
fn a_cluster_grows_and_shrinks_while_messages_flow() {
    let mut cluster = Cluster::start(3);
    scenarios(
        &mut cluster,
        &[
            ("a fourth node joins and takes its part", a_fourth_node_joins),
            ("a leader is moved by hand", a_leader_is_moved_by_hand),
            ("a drained node serves nobody until it is resumed", a_node_drains_and_resumes),
            ("the first node leaves and nothing is lost", the_first_node_leaves),
        ],
    );
}

#[test]
fn a_dead_node_is_replaced_and_its_id_refused() {
    let mut cluster = Cluster::start(3);
    let flow = Flow::start(&cluster, "replace", &[1, 2]);
    flow.goes_on(SOME);
    cluster.node_mut(3).kill();
    flow.goes_on(SOME);
    assert_eq!(cluster.join(), 4);
    let alive = ask(&cluster, 1, "remove?node=2");
    assert_eq!(alive.status, 409, "a node that runs is not given up: {}", alive.body);
    assert_eq!(ask(&cluster, 1, "remove?node=3").status, 200);
    every_group_votes_on(&cluster, &[1, 2, 4]);
    flow.goes_on(SOME);
    let outcome = flow.finish();
    assert_eq!(outcome.broken, 0, "{outcome:?}");
    cluster.digests_agree_on(&[1, 2, 4]);

    // Somebody finds the old machine and switches it on.
    cluster.node_mut(3).must_refuse_to_run(&["removed from the cluster"]);
    // Two of the three that vote now are enough: the new one counts.
    cluster.node_mut(2).kill();
    let (mut publisher, _) = Connect::clean(Version::V5, "after").to_patiently(cluster.mqtt(4));
    until_true("a publish is acknowledged by the old and the new", READY, || {
        let id = publisher.publish_unchecked("after", b"more");
        match publisher.hear(READY) {
            Heard::Packet(Packet::PubAck { id: acked, reason }) => acked == id && reason < 0x80,
            Heard::Packet(_) | Heard::Nothing => false,
            Heard::Closed => {
                publisher = Connect::clean(Version::V5, "after").to_patiently(cluster.mqtt(4)).0;
                false
            }
        }
    });
}

#[test]
fn a_move_goes_on_whoever_dies_in_the_middle() {
    let mut cluster = Cluster::start(3);
    assert_eq!(cluster.join(), 4);
    let flow = Flow::start(&cluster, "midway", &[2, 3, 4]);
    flow.goes_on(SOME);
    assert_eq!(ask(&cluster, 2, "leave?node=1").status, 200);
    // One after the other, the one that leaves among them: whoever leads, leads no more.
    for victim in [2, 1, 3, 4] {
        cluster.node_mut(victim).kill();
        cluster.node_mut(victim).start();
        flow.goes_on(SOME / 2);
    }
    until_true("node 1 is removed", READY, || {
        state_of(&cluster, 2, 1).is_some_and(|state| state == "removed")
    });
    every_group_votes_on(&cluster, &[2, 3, 4]);
    flow.goes_on(SOME);
    flow.finish();
    cluster.digests_agree_on(&[2, 3, 4]);
}

fn ask(cluster: &Cluster, node: u64, what: &str) -> http::Answer {
    http::post(cluster.node(node).admin, &format!("/api/v1/cluster/{what}")).unwrap()
}

/// Waits until every group votes on these nodes alone, and each of them has all groups.
fn every_group_votes_on(cluster: &Cluster, nodes: &[u64]) {
    let wanted: BTreeSet<u64> = nodes.iter().copied().collect();
    for node in nodes {
        until_true(&format!("node {node} sees every group on {nodes:?}"), READY, || {
            let Some(view) = cluster.node(*node).view() else { return false };
            let groups = view["groups"].as_array().unwrap();
            let voters = |group: &serde_json::Value| -> BTreeSet<u64> {
                group["voters"].as_array().unwrap().iter().filter_map(|id| id.as_u64()).collect()
            };
            groups.len() == usize::from(SHARDS) + 1
                && groups.iter().all(|group| voters(group) == wanted)
        });
    }
}

fn state_of(cluster: &Cluster, seen_by: u64, id: u64) -> Option<String> {
    let view = cluster.node(seen_by).view()?;
    let node = view["nodes"].as_array()?.iter().find(|node| node["id"] == id)?.clone();
    Some(node["state"].as_str()?.to_owned())
}

fn a_fourth_node_joins(cluster: &mut Cluster) {
    let flow = Flow::start(cluster, "join", &[1, 2, 3]);
    flow.goes_on(SOME);
    assert_eq!(cluster.join(), 4);
    // It serves clients, of whatever shard, before and while votes move onto it.
    let on_four = Flow::start(cluster, "join-four", &[4, 1]);
    on_four.goes_on(SOME);
    until_true("votes move onto node 4", READY, || {
        (1..=SHARDS).any(|shard| {
            let voters = cluster.node(4).group(shard, "voters");
            voters.is_some_and(|voters| voters.as_array().unwrap().contains(&4.into()))
        })
    });
    flow.goes_on(SOME);
    for flow in [flow, on_four] {
        let outcome = flow.finish();
        assert_eq!(outcome.broken, 0, "{outcome:?}");
    }
}

fn a_leader_is_moved_by_hand(cluster: &mut Cluster) {
    let leader = cluster.leader(0, 1);
    let to = [1, 2, 3].into_iter().find(|node| *node != leader).unwrap();
    assert_eq!(ask(cluster, 4, &format!("transfer?group=0&to={to}")).status, 200);
    // The same leadership is not moved twice in 30 s.
    until_true("the leadership is where it was sent", READY + READY, || {
        cluster.node(2).group(0, "leader").is_some_and(|leader| leader == to)
    });
    assert_eq!(ask(cluster, 4, "transfer?group=0&to=9").status, 409);
}

fn a_node_drains_and_resumes(cluster: &mut Cluster) {
    let flow = Flow::start(cluster, "drain", &[1, 2, 4]);
    let (mut client, _) = Connect::clean(Version::V5, "drained").to(cluster.mqtt(3));
    assert_eq!(ask(cluster, 1, "drain?node=3").status, 200);
    assert_eq!(client.hear(SOON), Heard::Packet(Packet::Disconnect { reason: 0x8B }));
    until_true("no shard is left on node 3", READY, || {
        let view = cluster.node(3).view().unwrap();
        view["groups"].as_array().unwrap().len() == 1
    });
    assert_eq!(state_of(cluster, 3, 3).as_deref(), Some("draining"));
    assert!(!cluster.node(3).is_ready());
    flow.goes_on(SOME);
    assert_eq!(ask(cluster, 1, "resume?node=3").status, 200);
    cluster.node_mut(3).wait_ready();
    let outcome = flow.finish();
    assert_eq!(outcome.broken, 0, "{outcome:?}");
}

fn the_first_node_leaves(cluster: &mut Cluster) {
    let (mut client, _) = Connect::clean(Version::V5, "leaving").to(cluster.mqtt(1));
    let flow = Flow::start(cluster, "leave", &[2, 3, 4]);
    flow.goes_on(SOME);
    assert_eq!(ask(cluster, 3, "leave?node=1").status, 200);
    assert_eq!(client.hear(SOON), Heard::Packet(Packet::Disconnect { reason: 0x8B }), "it is told");
    let status = cluster.node_mut(1).wait_for_end(READY);
    assert!(status.success(), "a node that has left ends with {status}");
    flow.goes_on(SOME);
    every_group_votes_on(cluster, &[2, 3, 4]);
    flow.goes_on(SOME);
    let outcome = flow.finish();
    assert_eq!(outcome.broken, 0, "{outcome:?}");
    cluster.digests_agree_on(&[2, 3, 4]);
    assert_eq!(state_of(cluster, 4, 1).as_deref(), Some("removed"));
    cluster.node_mut(1).must_refuse_to_run(&["removed from the cluster"]);
}
