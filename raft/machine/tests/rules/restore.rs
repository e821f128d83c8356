//! Rows of a backup become those of a new cluster.

use std::collections::BTreeSet;

use bytes::Bytes;
use moorline_core::{
    Incarnation, NodeId, ShardId, Text,
    level::{FIRST, Levels, Program},
};
use moorline_machine::{
    Answer, Command, Machine, MemberState,
    command::{NodeRecord, RouteTarget},
    restore::{Carried, NewCluster, OldCluster, carried, meta_rows, route},
};
use moorline_storage::{Rows, key};

use crate::harness::*;

fn record(node: u64, store: u128, incarnation: u64) -> NodeRecord {
    NodeRecord {
        node: NodeId(node),
        store,
        incarnation: Incarnation(incarnation),
        address: Text::from(format!("n{node}:1").as_str()),
    }
}

/// What is carried over of some groups, and what the new cluster of nodes 1 and 5 has instead of the rest.
fn restored(groups: &[&Map]) -> Map {
    let (mut rows, mut old) = (Map::default(), OldCluster::default());
    for (row_key, row) in groups.iter().flat_map(|rows| &rows.0) {
        match carried(row_key, row).unwrap() {
            Carried::AsItIs => rows.put(row_key.clone(), row.clone()),
            said @ (Carried::Left | Carried::OldNode(_) | Carried::OldLevel(_)) => old.note(said),
        }
        if let Some((key, row)) = route(row_key, row).unwrap() {
            rows.put(key, row);
        }
    }
    let nodes = vec![record(1, 77, 0), record(5, 0, 0)];
    let new = NewCluster { cluster: 99, shards: 2, replicas: 1, first: NodeId(1), nodes };
    meta_rows(&new, &old).into_iter().for_each(|(key, row)| rows.put(key, row));
    rows
}

/// A cluster of three, whose meta group knows a route that the shard has not, and not the one that it has.
fn old() -> (Group, Group) {
    let mut meta = Group::new(ShardId::META);
    let nodes = (1..=3).map(|node| record(node, 0, 0)).collect();
    meta.one(Command::CreateCluster { cluster: 9, shards: 2, nodes, replicas: 3 });
    meta.one(Command::RegisterNode(record(2, 22, 222)));
    meta.one(Command::SetRoute {
        tenant: TENANT,
        filter: "gone".into(),
        target: RouteTarget::Shard(SHARD),
        version: 1 << 40,
        present: true,
    });
    let mut shard = Group::new(SHARD);
    let (session, _) = shard.subscriber("device", 1, "held/+");
    shard.one(publish("held/1", b"waits"));
    assert_eq!(shard.queue(session).len(), 1);
    (meta, shard)
}

#[test]
fn routes_are_those_that_the_shards_hold() {
    let (meta, shard) = old();
    let rows = restored(&[&shard.rows, &meta.rows]);
    let machine = Machine::open(ShardId::META, &rows).unwrap();
    machine.assert_derived(&rows).unwrap();
    let targets = |topic: &str| {
        let mut found = Vec::new();
        machine.meta().routes(TENANT, topic.as_bytes(), &mut found);
        found
    };
    assert_eq!(targets("held/1"), [RouteTarget::Shard(SHARD)]);
    assert!(targets("gone").is_empty());
}

#[test]
fn the_cluster_is_the_new_one_and_begins_on_one_node() {
    let (meta, shard) = old();
    let rows = restored(&[&shard.rows, &meta.rows]);
    let machine = Machine::open(ShardId::META, &rows).unwrap();
    let meta = machine.meta();
    let cluster = meta.cluster().unwrap();
    assert_eq!((cluster.cluster, cluster.shards, cluster.replicas), (99, 2, 1));
    for group in 0..=2 {
        assert_eq!(meta.voters(ShardId(group)), [NodeId(1)]);
        assert!(meta.target(ShardId(group)).is_none());
    }
    let states: Vec<_> = meta.nodes().keys().map(|node| (node.0, meta.member(*node))).collect();
    let (active, removed) = (Some(MemberState::Active), Some(MemberState::Removed));
    assert_eq!(states, [(1, active), (2, removed), (3, removed), (5, active)]);
    // What it held is detached by whoever sees that it is gone.
    assert!(meta.nodes()[&NodeId(2)].gone);
    assert_eq!(meta.nodes()[&NodeId(1)].record.store, 77);
}

#[test]
fn a_shard_keeps_its_sessions_and_their_queues() {
    let (meta, shard) = old();
    let session = shard.machine.sessions().next().unwrap().id;
    let (queue, nodes) = (shard.queue(session), shard.machine.processes_of(NodeId(1)));
    let mut after = Group::new(SHARD);
    after.rows = restored(&[&shard.rows, &meta.rows]);
    after.reopen();
    after.machine.assert_derived(&after.rows).unwrap();
    assert_eq!(after.queue(session), queue);
    assert_eq!(after.machine.processes_of(NodeId(1)), nodes, "until they are known to be gone");
    assert_eq!(nodes, BTreeSet::from([Incarnation(11)]));
}

#[test]
fn what_recognised_repeats_of_other_shards_stays_behind() {
    let left = [key::Kind::Origin, key::Kind::Applied, key::Kind::Token, key::Kind::Target];
    for kind in key::Kind::ALL {
        let row_key = key::Key::new(SHARD, key::WHOLE, kind, 0).done();
        match carried(&row_key, &Bytes::new()) {
            Ok(Carried::Left) => {
                let meta =
                    [key::Kind::Route, key::Kind::Member, key::Kind::Placement, key::Kind::Setting];
                assert!(left.contains(&kind) || meta.contains(&kind), "{kind:?}");
            }
            Ok(Carried::AsItIs) => assert!(!left.contains(&kind), "{kind:?}"),
            Ok(Carried::OldNode(_) | Carried::OldLevel(_)) => panic!("an empty row says nothing"),
            Err(_) => assert_eq!(kind, key::Kind::Node),
        }
    }
    assert!(carried(b"\0\x01\0\x01\xfe", &Bytes::new()).is_err(), "of a later version");
}

#[test]
fn the_level_stays_and_who_knew_it_is_asked_again() {
    let (mut meta, shard) = old();
    let program = Program { levels: Levels { min: 1, max: 2 }, version: [0, 2, 0] };
    let programs = (1..=3).map(|node| (NodeId(node), program)).collect();
    meta.one(Command::SetLevel { level: 2, programs });
    let rows = restored(&[&shard.rows, &meta.rows]);
    let machine = Machine::open(ShardId::META, &rows).unwrap();
    machine.assert_derived(&rows).unwrap();
    assert_eq!(machine.meta().level(), 2);
    assert_eq!(machine.meta().program(NodeId(1)), None, "it said so to the old cluster");

    let mut old = OldCluster::default();
    assert_eq!((old.level, old.fits(Levels::SILENT)), (FIRST, Ok(())));
    for (row_key, row) in &meta.rows.0 {
        old.note(carried(row_key, row).unwrap());
    }
    assert_eq!((old.level, old.nodes.len()), (2, 3));
    assert!(old.fits(Levels::SILENT).is_err(), "a program that can't read its rows");
    assert_eq!(old.fits(program.levels), Ok(()));
}

#[test]
fn numbers_of_qos_2_count_on() {
    let (meta, mut shard) = old();
    let (session, epoch) = shard.open("once", 7, 3600);
    for packet in [5, 6] {
        shard.one(Command::Receive { session, epoch, packet });
    }
    let before = shard.one(Command::Receive { session, epoch, packet: 5 });
    shard.rows = restored(&[&shard.rows, &meta.rows]);
    shard.index += 1 << 28;
    shard.reopen();
    // The client repeats what it did not hear of: the same number. What is new gets one above all.
    assert_eq!(shard.one(Command::Receive { session, epoch, packet: 5 }), before);
    let Answer::Received { number: known, .. } = before else { panic!("{before:?}") };
    let next = shard.one(Command::Receive { session, epoch, packet: 9 });
    assert!(matches!(next, Answer::Received { number, .. } if number == known + 2), "{next:?}");
}
