//! What a replica leaves on the disk is deleted, also when the process ends in the middle, and the replica may come back.
#![allow(clippy::unwrap_used)]

mod rig;

use std::{
    sync::mpsc,
    thread::sleep,
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::NodeId;
use moorline_group::{Disk, GroupError, GroupStatus};
use moorline_storage::log::{LogOp, Mark};
use rig::{
    Node, Producer,
    moves::{LOOK, SHARD, cluster, move_to, of, same_rows, voters},
};

/// Several elections' time: what did not happen by then does not happen.
const ELECTIONS: Duration = Duration::from_secs(5);

fn delete(node: &Node) -> Result<bool, GroupError> {
    node.delete(SHARD)
}

fn status(node: &Node) -> GroupStatus {
    node.groups().status().remove(0)
}

#[test]
fn a_deleted_replica_leaves_nothing_comes_back_and_votes() {
    let (cluster, mut nodes) = cluster(4, 3);
    let mut producer = Producer::new(1);
    producer.publish(&nodes, SHARD, 100);
    nodes[..3].iter().for_each(Node::checkpoint);
    assert!(matches!(delete(&nodes[0]), Err(GroupError::State { .. })), "never an open one");
    assert!(!delete(of(&nodes, 4)).unwrap(), "there was none");

    of(&nodes, 4).open(SHARD).unwrap();
    move_to(&cluster, &nodes, &mut producer, &[2, 3, 4]);
    let first = of(&nodes, 1);
    first.on(first.groups().close(SHARD));
    assert!(delete(first).unwrap());
    assert!(!delete(first).unwrap(), "all of it went at once");
    producer.publish(&nodes, SHARD, 50);

    first.open(SHARD).unwrap();
    let fresh = status(first);
    assert_eq!((fresh.last_log, fresh.applied, fresh.durable), (None, None, None));
    move_to(&cluster, &nodes, &mut producer, &[1, 2, 4]);
    same_rows(&nodes, &[1, 2, 4]);
    // It counts again: of 1, 2 and 4 one may go.
    let fourth = nodes.remove(3);
    assert_eq!(fourth.id(), NodeId(4));
    fourth.kill();
    producer.publish(&nodes, SHARD, 10);
    same_rows(&nodes, &[1, 2]);
    assert_eq!(voters(of(&nodes, 1)).len(), 3);
}

fn submit(disk: &Disk, op: LogOp) {
    let (done, synced) = mpsc::sync_channel(1);
    disk.log.submit(SHARD, op, Some(Box::new(move |result| drop(done.send(result)))));
    synced.recv().unwrap().unwrap();
}

/// What a crash may leave: the first so many steps of a deletion are done.
fn crash_after(steps: usize, disk: &Disk) {
    let submit = |op| submit(disk, op);
    let deleting = Bytes::from_static(&[1, 1]);
    submit(LogOp::Mark { mark: Mark::Cleared, value: deleting });
    if steps >= 1 {
        disk.store.remove(SHARD).unwrap();
    }
    if steps >= 2 {
        submit(LogOp::PurgeUpTo(u64::MAX));
    }
    if steps >= 3 {
        submit(LogOp::Mark { mark: Mark::Purged, value: Bytes::new() });
    }
}

#[test]
fn a_deletion_that_a_crash_interrupted_is_finished_before_anything_else() {
    let (cluster, mut nodes) = cluster(4, 3);
    let mut producer = Producer::new(1);
    producer.publish(&nodes, SHARD, 100);
    for steps in 0..=3 {
        nodes.iter().filter(|node| !node.groups().status().is_empty()).for_each(Node::checkpoint);
        if of(&nodes, 4).groups().status().is_empty() {
            of(&nodes, 4).open(SHARD).unwrap();
        }
        move_to(&cluster, &nodes, &mut producer, &[2, 3, 4]);
        let at = nodes.iter().position(|node| node.id() == NodeId(1)).unwrap();
        let first = nodes.remove(at);
        first.on(first.groups().close(SHARD));
        first.stop();
        crash_after(steps, &cluster.disk(NodeId(1)));

        let first = cluster.start(NodeId(1));
        first.open(SHARD).unwrap();
        let fresh = status(&first);
        assert_eq!((fresh.last_log, fresh.applied), (None, None), "after {steps} steps");
        nodes.push(first);
        move_to(&cluster, &nodes, &mut producer, &[1, 2, 3]);
        same_rows(&nodes, &[1, 2, 3]);
        let fourth = of(&nodes, 4);
        fourth.on(fourth.groups().close(SHARD));
    }
}

#[test]
fn what_is_left_of_snapshots_goes_too() {
    let (cluster, mut nodes) = cluster(4, 3);
    let staging = cluster.dir_of(NodeId(4)).join("snap");
    let names = ["in-1-7", "out-1-0", "in-11-7"];
    let stage = || {
        names.iter().for_each(|name| std::fs::create_dir_all(staging.join(name)).unwrap());
    };
    let left = || names.map(|name| staging.join(name).exists());
    stage();
    assert!(!delete(of(&nodes, 4)).unwrap(), "no rows, no log");
    assert_eq!(left(), [false, false, true], "but files; another shard's stay");

    // Its first snapshot was being installed when it ended.
    nodes.remove(3).kill();
    let installing = LogOp::Mark { mark: Mark::Installing, value: Bytes::from_static(b"in-1-7") };
    submit(&cluster.disk(NodeId(4)), installing);
    stage();
    let fourth = cluster.start(NodeId(4));
    assert!(delete(&fourth).unwrap());
    assert_eq!(left(), [false, false, true]);
    fourth.open(SHARD).unwrap();
}

#[test]
fn who_was_away_cannot_lead_with_the_vote_of_a_deleted_replica() {
    let (cluster, mut nodes) = cluster(5, 3);
    let mut producer = Producer::new(1);
    producer.publish(&nodes, SHARD, 20);
    same_rows(&nodes, &[1, 2, 3]);
    // Node 2 sleeps through the move of the group away from it and from node 1.
    let at = nodes.iter().position(|node| node.id() == NodeId(2)).unwrap();
    nodes.remove(at).kill();
    for id in [4, 5] {
        of(&nodes, id).open(SHARD).unwrap();
    }
    move_to(&cluster, &nodes, &mut producer, &[3, 4, 5]);
    producer.publish(&nodes, SHARD, 20);
    let first = of(&nodes, 1);
    first.on(first.groups().close(SHARD));
    assert!(delete(first).unwrap());
    let first = nodes.remove(0);
    assert_eq!(first.id(), NodeId(1));
    nodes.into_iter().for_each(Node::kill);

    // The two of them were a majority once. With what they know they must not be one again.
    let second = cluster.start(NodeId(2));
    second.open(SHARD).unwrap();
    first.open(SHARD).unwrap();
    let began = Instant::now();
    while began.elapsed() < ELECTIONS {
        assert!(!second.role(SHARD).leading && !first.role(SHARD).leading, "a group began twice");
        sleep(LOOK);
    }
    // Those that know better go on.
    let mut nodes = vec![first, second];
    for id in [3, 4, 5] {
        let node = cluster.start(NodeId(id));
        node.open(SHARD).unwrap();
        nodes.push(node);
    }
    producer.publish(&nodes, SHARD, 10);
    same_rows(&nodes, &[3, 4, 5]);
}
