//! Groups that change: learner, voter, learner, gone; over the real wire and real RocksDB.
#![allow(clippy::unwrap_used)]

mod rig;

use std::{
    collections::{BTreeMap, BTreeSet},
    thread::sleep,
    time::Duration,
};

use moorline_core::{NodeId, ShardId};
use moorline_machine::placement::{Next, next_step};
use rig::{Cluster, DEADLINE, Node, Producer, within};

const SHARD: ShardId = ShardId(1);
/// Between two looks at who is in a group.
const LOOK: Duration = Duration::from_millis(20);

/// `nodes` connected nodes, of which the first `voters` have the group.
fn cluster(nodes: u64, voters: u64) -> (Cluster, Vec<Node>) {
    let mut cluster = Cluster::new(nodes);
    cluster.configure = |config| config.checkpoint.keep_entries = 10;
    let running: Vec<Node> = (1..=nodes).map(|node| cluster.start(NodeId(node))).collect();
    let all = cluster.voters();
    let voters: BTreeMap<NodeId, String> =
        all.into_iter().filter(|(node, _)| node.0 <= voters).collect();
    for node in running.iter().filter(|node| voters.contains_key(&node.id())) {
        node.open(SHARD).unwrap();
    }
    running[0].on(running[0].groups().initialize(SHARD, voters)).unwrap();
    (cluster, running)
}

fn ids(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// Takes step after step, on whoever leads, until the group is where it should be; publishes meanwhile.
fn move_to(cluster: &Cluster, nodes: &[Node], producer: &mut Producer, voters: &[u64]) {
    let (voters, addresses) = (ids(voters), cluster.voters());
    within(DEADLINE, "the target", || {
        producer.publish(nodes, SHARD, 3);
        let (leader, members) =
            nodes.iter().find_map(|node| Some((node, node.groups().members(SHARD)?)))?;
        let next = next_step(&members, &voters, &BTreeSet::new());
        let address = match &next {
            Next::Done => return Some(()),
            Next::Learn(node) => addresses[node].clone(),
            Next::Wait | Next::Vote(_) | Next::HandOver(_) | Next::Forget(_) => String::new(),
        };
        if let Err(error) = leader.on(leader.groups().take_step(SHARD, &next, address)) {
            println!("{next:?}: {error}");
        }
        sleep(LOOK);
        None
    });
}

fn of(nodes: &[Node], id: u64) -> &Node {
    nodes.iter().find(|node| node.id() == NodeId(id)).unwrap()
}

/// Waits until these replicas have applied the same rows.
fn same_rows(nodes: &[Node], of_nodes: &[u64]) {
    within(DEADLINE, "the same rows", || {
        let mut digests =
            of_nodes.iter().map(|id| of(nodes, *id).digest(SHARD)).collect::<Option<Vec<_>>>()?;
        digests.dedup();
        (digests.len() == 1).then_some(())
    });
}

fn voters(node: &Node) -> BTreeSet<NodeId> {
    let status = node.groups().status();
    status[0].voters.iter().copied().collect()
}

#[test]
fn a_group_moves_from_node_to_node_and_nothing_answered_is_missing() {
    let (cluster, mut nodes) = cluster(4, 3);
    let mut producer = Producer::new(1);
    producer.publish(&nodes, SHARD, 100);
    // The log does not reach back: the new node needs a snapshot.
    nodes[..3].iter().for_each(Node::checkpoint);

    of(&nodes, 4).open(SHARD).unwrap();
    move_to(&cluster, &nodes, &mut producer, &[2, 3, 4]);
    same_rows(&nodes, &[2, 3, 4]);
    assert_eq!(voters(of(&nodes, 2)), ids(&[2, 3, 4]).into_iter().collect());
    assert!(!of(&nodes, 1).role(SHARD).leading, "the leader went last");

    let first = of(&nodes, 1);
    first.on(first.groups().close(SHARD));
    assert!(first.groups().members(SHARD).is_none());
    producer.publish(&nodes, SHARD, 50);

    // A replica that was closed comes back with the log it had.
    of(&nodes, 1).open(SHARD).unwrap();
    move_to(&cluster, &nodes, &mut producer, &[1, 2, 4]);
    same_rows(&nodes, &[1, 2, 4]);

    // And it votes: without another one there is still a majority.
    let gone = nodes.remove(3);
    assert_eq!(gone.id(), NodeId(4));
    gone.kill();
    producer.publish(&nodes, SHARD, 10);
    same_rows(&nodes, &[1, 2]);
}

#[test]
fn a_dead_voter_is_replaced() {
    let (cluster, mut nodes) = cluster(4, 3);
    let mut producer = Producer::new(1);
    producer.publish(&nodes, SHARD, 20);
    nodes.remove(0).kill();
    of(&nodes, 4).open(SHARD).unwrap();
    move_to(&cluster, &nodes, &mut producer, &[2, 3, 4]);
    same_rows(&nodes, &[2, 3, 4]);
}

#[test]
fn one_replica_becomes_three_and_three_become_five() {
    let (cluster, nodes) = cluster(5, 1);
    let mut producer = Producer::new(1);
    producer.publish(&nodes, SHARD, 20);
    for id in 2..=5 {
        of(&nodes, id).open(SHARD).unwrap();
    }
    for target in [&[1, 2, 3][..], &[1, 2, 3, 4, 5], &[3, 4, 5], &[5]] {
        move_to(&cluster, &nodes, &mut producer, target);
        same_rows(&nodes, target);
    }
    producer.publish(&nodes, SHARD, 20);
}
