//! Groups that change: learner, voter, learner, gone; over the real wire and real RocksDB.
#![allow(clippy::unwrap_used)]

mod rig;

use std::thread::sleep;

use moorline_core::NodeId;
use rig::{
    Node, Producer,
    moves::{LOOK, SHARD, cluster, cluster_with, ids, move_to, of, same_rows, voters},
    within,
};

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

/// Of one message: some 6 MiB of rows in all.
const PAYLOAD_BYTES: usize = 60_000;
/// Two at a time.
const MESSAGES: u64 = 100;
/// A piece is 1 MiB, and four are under way.
const PIECES_BYTES: u64 = 5 * 1024 * 1024 / 2;

#[test]
fn a_snapshot_that_breaks_off_goes_on_where_it_stopped() {
    let (cluster, nodes) = cluster_with(4, 3, |config| {
        config.checkpoint.keep_entries = 10;
        config.checkpoint.keep_bytes = 1024;
        config.snapshots.bytes_per_second = 2 * 1024 * 1024;
    });
    let mut producer = Producer::new(1);
    producer.payload_of(PAYLOAD_BYTES);
    for _ in 0..MESSAGES / 2 {
        producer.publish(&nodes, SHARD, 2);
    }
    nodes[..3].iter().for_each(Node::checkpoint);
    of(&nodes, 4).open(SHARD).unwrap();
    let leader = nodes.iter().find(|node| node.role(SHARD).leading).unwrap();
    let learn = moorline_machine::placement::Next::Learn(NodeId(4));
    let address = cluster.voters()[&NodeId(4)].clone();
    leader.on(leader.groups().take_step(SHARD, &learn, address)).unwrap();
    within(rig::DEADLINE, "half of a snapshot", || {
        (leader.snapshot_bytes_sent() > 2 * 1024 * 1024).then_some(())
    });
    leader.cut_off(NodeId(4), &cluster);
    sleep(LOOK);
    let before = leader.snapshot_bytes_sent();
    // A checkpoint meanwhile makes newer rows, and the kept files are taken nevertheless.
    producer.publish(&nodes, SHARD, 2);
    leader.checkpoint();
    leader.reconnect(&cluster);
    same_rows(&nodes, &[1, 2, 3, 4]);
    let (all, rows) = (leader.snapshot_bytes_sent(), MESSAGES * PAYLOAD_BYTES as u64);
    println!("{before} bytes before the cut, {all} in all, of {rows}");
    assert!(before > 2 * 1024 * 1024 && before < rows, "{before}: cut in the middle");
    assert!(all > rows / 2 && all < rows + PIECES_BYTES, "{all} of {rows}: it began anew");
}
