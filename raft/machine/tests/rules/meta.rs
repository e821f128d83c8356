//! The meta group: the cluster, its nodes, and routes that never go back.

use moorline_core::{Incarnation, NodeId, ShardId, TenantId};
use moorline_machine::{
    Answer, COMMANDS_PER_BATCH_MAX, Refused, TOMBSTONES_MAX,
    command::{Command, NodeRecord, RouteTarget},
};

use crate::harness::*;

fn record(node: u64, store: u128, incarnation: u64) -> NodeRecord {
    NodeRecord {
        node: NodeId(node),
        store,
        incarnation: Incarnation(incarnation),
        address: format!("n{node}:7400").as_str().into(),
    }
}

fn cluster(nodes: u64, shards: u16, replicas: u8) -> Command {
    let nodes = (1..=nodes).map(|node| record(node, 0, 0)).collect();
    Command::CreateCluster { cluster: 9, shards, nodes, replicas }
}

fn meta(nodes: u64, shards: u16) -> Group {
    let mut group = Group::new(ShardId::META);
    assert_eq!(group.one(cluster(nodes, shards, 3)), Answer::At(1));
    group
}

fn route(filter: &str, target: RouteTarget, version: u64, present: bool) -> Command {
    Command::SetRoute { tenant: TENANT, filter: filter.into(), target, version, present }
}

fn targets(group: &Group, topic: &str) -> Vec<RouteTarget> {
    let mut found = Vec::new();
    group.machine.meta().routes(TENANT, topic.as_bytes(), &mut found);
    found
}

const SHARD_1: RouteTarget = RouteTarget::Shard(ShardId(1));

#[test]
fn a_cluster_is_created_once_with_its_shards_spread_over_its_nodes() {
    let mut group = meta(4, 5);
    let voters = |group: &Group, shard| -> Vec<u64> {
        group.machine.meta().voters(ShardId(shard)).iter().map(|node| node.0).collect()
    };
    #[rustfmt::skip]
    let table: [(u16, &[u64]); 7] = [
        (0, &[1, 2, 3, 4]), (1, &[1, 2, 3]), (2, &[2, 3, 4]), (3, &[3, 4, 1]),
        (4, &[4, 1, 2]), (5, &[1, 2, 3]), (6, &[]),
    ];
    for (shard, expected) in table {
        assert_eq!(voters(&group, shard), expected, "shard {shard}");
    }
    assert_eq!(group.one(cluster(4, 5, 3)), Answer::Refused(Refused::WrongState));
    assert_eq!(group.machine.meta().cluster().unwrap().shards, 5);
}

#[test]
fn small_clusters_have_as_many_voters_as_nodes_and_senseless_ones_are_refused() {
    let two = meta(2, 2);
    assert_eq!(two.machine.meta().voters(ShardId(2)), [NodeId(2), NodeId(1)]);
    let mut none = Group::new(ShardId::META);
    let twice = Command::CreateCluster {
        cluster: 1,
        shards: 1,
        nodes: vec![record(1, 1, 1), record(1, 2, 2)],
        replicas: 1,
    };
    for command in [cluster(0, 1, 1), cluster(3, 0, 3), cluster(3, 129, 3), cluster(3, 1, 0), twice]
    {
        assert_eq!(none.one(command), Answer::Refused(Refused::Malformed));
    }
}

#[test]
fn a_node_registers_its_directory_once_and_its_process_every_time() {
    let mut group = Group::new(ShardId::META);
    let refused = Answer::Refused(Refused::WrongState);
    assert_eq!(group.one(Command::RegisterNode(record(1, 5, 1))), refused);
    group.one(cluster(3, 3, 3));
    #[rustfmt::skip]
    let table = [
        (record(1, 5, 1), true),  (record(1, 5, 1), true), (record(1, 5, 2), true),
        (record(1, 6, 3), false), (record(4, 8, 1), true), (record(4, 9, 1), false),
    ];
    for (record, taken) in table {
        let answer = group.one(Command::RegisterNode(record.clone()));
        let expected =
            if taken { Answer::At(group.index) } else { Answer::Refused(Refused::NodeIdTaken) };
        assert_eq!(answer, expected, "{record:?}");
    }
    let node = &group.machine.meta().nodes()[&NodeId(1)];
    assert_eq!(node.record, record(1, 5, 2));
}

#[test]
fn late_news_of_a_route_change_nothing() {
    let mut group = meta(3, 3);
    #[rustfmt::skip]
    let table = [
        // version, present -> present afterwards, the index that is answered changes
        (10, true,  true,  true),
        (10, true,  true,  false),
        (9,  false, true,  false),
        (12, false, false, true),
        (11, true,  false, false),
        (12, false, false, false),
        (13, true,  true,  true),
    ];
    let mut at = 0;
    for case @ (version, present, there, changes) in table {
        let Answer::At(index) = group.one(route("a/+", SHARD_1, version, present)) else {
            panic!("{case:?}")
        };
        assert_eq!(index == group.index, changes, "{case:?}");
        at = if changes { index } else { at };
        assert_eq!(index, at, "{case:?}");
        assert_eq!(targets(&group, "a/b") == [SHARD_1], there, "{case:?}");
        let known = group.machine.meta().route(TENANT, b"a/+", SHARD_1);
        assert_eq!(known.map(|route| route.index), there.then_some(at), "{case:?}");
    }
}

#[test]
fn removed_routes_are_forgotten_after_a_while() {
    let mut group = meta(3, 3);
    group.one(route("a", SHARD_1, 1, true));
    assert_eq!(group.machine.next_deadline().map(|at| at.0 > group.now + 600_000), Some(true));
    group.one(route("a", SHARD_1, 2, false));
    let rows = group.rows.0.len();
    group.now += 10 * 60 * 1000 - 1;
    group.one(Command::Tick);
    assert_eq!(group.rows.0.len(), rows);
    group.now += 1;
    group.one(Command::Tick);
    assert_eq!(group.rows.0.len(), rows - 1);
}

#[test]
fn only_so_many_removed_routes_are_remembered() {
    let mut group = meta(3, 3);
    let before = group.rows.0.len();
    let many = TOMBSTONES_MAX + 2;
    let removed: Vec<_> = (0..many).map(|n| route(&format!("t/{n}"), SHARD_1, 5, false)).collect();
    group.unchecked = true;
    for commands in removed.chunks(COMMANDS_PER_BATCH_MAX) {
        group.batch(commands);
        group.now += 1;
    }
    group.unchecked = false;
    assert_eq!(group.rows.0.len(), before + TOMBSTONES_MAX);
    // The oldest are gone: old news of them counts. The newest are not.
    group.one(route("t/0", SHARD_1, 4, true));
    assert_eq!(targets(&group, "t/0"), [SHARD_1]);
    let newest = format!("t/{}", many - 1);
    group.one(route(&newest, SHARD_1, 4, true));
    assert!(targets(&group, &newest).is_empty());
}

#[test]
fn a_message_goes_to_each_target_once_and_stays_with_its_tenant() {
    let mut group = meta(3, 3);
    group.one(Command::RegisterNode(record(2, 1, 5)));
    let node = RouteTarget::Node(NodeId(2), Incarnation(5));
    let shard_2 = RouteTarget::Shard(ShardId(2));
    group.batch(&[
        route("#", shard_2, 1, true),
        route("a/+", SHARD_1, 1, true),
        route("a/b", SHARD_1, 1, true),
        route("a/b", node, 1, true),
    ]);
    assert_eq!(targets(&group, "a/b"), [SHARD_1, shard_2, node]);
    assert_eq!(targets(&group, "a"), [shard_2]);
    let mut found = vec![SHARD_1];
    group.machine.meta().routes(TenantId(TENANT.0 + 1), b"a/b", &mut found);
    assert!(found.is_empty());
    assert_eq!(group.machine.meta().routes_len(), 4);
}

#[test]
fn no_route_leads_to_a_dead_process() {
    let mut group = meta(3, 3);
    group.one(Command::RegisterNode(record(2, 1, 5)));
    let process = |incarnation| RouteTarget::Node(NodeId(2), Incarnation(incarnation));
    let refused = Answer::Refused(Refused::NotYours);
    assert_eq!(group.one(route("a", process(4), 1, true)), refused);
    group.one(route("a", process(5), 1, true));
    group.one(route("b", SHARD_1, 1, true));

    // Known to be dead, nobody runs there.
    let gone = Command::DropNodeRoutes { node: NodeId(2), gone: Incarnation(5) };
    assert_eq!(group.one(gone), Answer::At(group.index));
    assert_eq!((targets(&group, "a"), targets(&group, "b")), (vec![], vec![SHARD_1]));
    assert_eq!(group.one(route("a", process(5), 2, true)), refused);
    assert!(group.machine.meta().nodes()[&NodeId(2)].gone);

    // It was only cut off, and says so.
    group.one(Command::RegisterNode(record(2, 1, 5)));
    group.one(route("a", process(5), 1, true));
    assert_eq!(targets(&group, "a"), [process(5)]);

    // A late word of an earlier process changes nothing.
    group.one(Command::DropNodeRoutes { node: NodeId(2), gone: Incarnation(4) });
    assert_eq!(targets(&group, "a"), [process(5)]);
    assert!(!group.machine.meta().nodes()[&NodeId(2)].gone);

    // Its next process ends what the earlier one had.
    group.one(Command::RegisterNode(record(2, 1, 6)));
    assert!(targets(&group, "a").is_empty());
    group.one(route("a", process(6), 1, true));
    group.one(Command::DropNodeRoutes { node: NodeId(2), gone: Incarnation(5) });
    assert_eq!(targets(&group, "a"), [process(6)]);
}

#[test]
fn commands_of_the_other_kind_of_group_are_refused() {
    let mut group = meta(3, 3);
    let refused = |group| Answer::Refused(Refused::WrongGroup { group });
    assert_eq!(group.one(publish("a", b"")), refused(ShardId::META));
    assert_eq!(group.one(Command::Tick), Answer::Released(vec![]));
    let mut shard = Group::new(SHARD);
    assert_eq!(shard.one(route("a", SHARD_1, 1, true)), refused(SHARD));
    assert_eq!(shard.one(Command::RegisterNode(record(1, 1, 1))), refused(SHARD));
}

#[test]
fn tenants_are_named() {
    let mut group = meta(1, 1);
    group.one(Command::SetTenant { tenant: TENANT, name: "demo".into() });
    group.one(Command::SetTenant { tenant: TENANT, name: "show".into() });
    assert_eq!(group.machine.meta().tenants()[&TENANT].name, "show".into());
}
