//! A group's rows are read while it works, and become a group of another cluster.
#![allow(clippy::unwrap_used)]

mod rig;

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use moorline_core::NodeId;
use moorline_group::{BarrierError, INDEX_GAP, ReadRowsError, Restored, RowsAt, restore};
use moorline_storage::{Batch, key};
use rig::{
    Cluster, DEADLINE, Node, Producer,
    moves::{SHARD, cluster, move_to, of, same_rows},
    within,
};
use tokio::runtime::Builder;

type Rows = Vec<(Bytes, Bytes)>;

/// Reads all rows, or the first so many.
fn read(node: &Node, most: usize) -> Result<(bool, RowsAt, Rows), ReadRowsError> {
    let (at, rows) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Rows::new())));
    let (begun, came) = (Arc::clone(&at), Arc::clone(&rows));
    let visit = move |row: Option<(&[u8], &Bytes)>| {
        let mut rows = came.lock().unwrap();
        if let Some((key, row)) = row {
            rows.push((Bytes::copy_from_slice(key), row.clone()));
        }
        if rows.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let begun = move |at: RowsAt| *begun.lock().unwrap() = Some(at);
    let whole = node.on(node.groups().read_rows(SHARD, begun, visit))?;
    let at = at.lock().unwrap().unwrap();
    let rows = std::mem::take(&mut *rows.lock().unwrap());
    Ok((whole, at, rows))
}

fn leader(nodes: &[Node]) -> &Node {
    within(DEADLINE, "a leader", || nodes.iter().find(|node| node.role(SHARD).leading))
}

#[test]
fn rows_of_one_cluster_are_a_group_of_another() {
    let (_old, nodes) = cluster(3, 3);
    let mut producer = Producer::new(1);
    producer.publish(&nodes, SHARD, 200);
    let leads = leader(&nodes);
    let (whole, at, rows) = read(leads, usize::MAX).unwrap();
    let (index, digest) = leads.digest(SHARD).unwrap();
    assert!(whole && at.index == index, "all that was acknowledged: {at:?}, {index}");
    let follows = nodes.iter().find(|node| node.id() != leads.id()).unwrap();
    let refused = read(follows, usize::MAX).unwrap_err();
    let expected = matches!(refused, ReadRowsError::Barrier(BarrierError::NotLeader { .. }));
    assert!(expected, "{refused}");

    let mut new = Cluster::new(3);
    new.configure = |config| config.checkpoint.keep_entries = 10;
    let disk = new.disk(NodeId(1));
    let applied = key::applied(SHARD);
    let changes = rows.into_iter().filter(|(key, _)| *key != applied);
    let changes = changes.map(|(key, row)| (key, Some(row))).collect();
    disk.store.write(Batch { changes }).unwrap();
    let address = new.voters()[&NodeId(1)].clone();
    let restored = Restored { shard: SHARD, node: NodeId(1), address, at };
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(restore(&disk, restored)).unwrap();
    drop(disk);

    let mut nodes: Vec<_> = (1..=3).map(|node| new.start(NodeId(node))).collect();
    of(&nodes, 1).open(SHARD).unwrap();
    let leads = leader(&nodes);
    assert_eq!(leads.id(), NodeId(1), "its only voter");
    let (index, restored) = leads.digest(SHARD).unwrap();
    assert_eq!(restored, digest, "the same rows");
    assert!(index > at.index + INDEX_GAP, "{index}");

    // It goes on as any group: who published is known, others get its rows, and it outlives a crash.
    for other in [2, 3] {
        of(&nodes, other).open(SHARD).unwrap();
    }
    move_to(&new, &nodes, &mut producer, &[1, 2, 3]);
    same_rows(&nodes, &[1, 2, 3]);
    nodes.remove(0).kill();
    producer.publish(&nodes, SHARD, 50);
    let first = new.start(NodeId(1));
    first.open(SHARD).unwrap();
    nodes.push(first);
    same_rows(&nodes, &[1, 2, 3]);
}

#[test]
fn who_reads_no_further_holds_nobody_up() {
    let (_cluster, nodes) = cluster(1, 1);
    let mut producer = Producer::new(1);
    producer.publish(&nodes, SHARD, 20);
    let (whole, _, rows) = read(leader(&nodes), 3).unwrap();
    assert_eq!((whole, rows.len()), (false, 3));
    producer.publish(&nodes, SHARD, 20);
    nodes[0].checkpoint();
    let (whole, at, rows) = read(&nodes[0], usize::MAX).unwrap();
    assert!(whole && rows.len() > 20, "{} rows at {at:?}", rows.len());
}
