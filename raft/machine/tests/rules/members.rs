//! Who belongs to the cluster: tokens, joining, leaving, and ids that are never used again.

use moorline_core::{
    Incarnation, NodeId, ShardId,
    level::{Program, REPLICAS_CHANGE},
};
use moorline_machine::{
    Answer, MemberState, Refused, Target,
    command::{Command, NodeRecord, RouteTarget},
};

use crate::harness::*;

fn record(node: u64, store: u128) -> NodeRecord {
    let address = format!("n{node}:7400").as_str().into();
    NodeRecord { node: NodeId(node), store, incarnation: Incarnation(1), address }
}

fn three() -> Group {
    let mut group = Group::new(ShardId::META);
    let nodes = (1..=3).map(|node| record(node, 0)).collect();
    group.one(Command::CreateCluster { cluster: 9, shards: 2, nodes, replicas: 3 });
    for node in 1..=3 {
        group.one(Command::RegisterNode(record(node, node.into())));
    }
    group
}

fn token(group: &mut Group, token: u128) {
    let answer = group.one(Command::AddToken { token_hash: token, lifetime_ms: 1000 });
    assert_eq!(answer, Answer::At(group.index));
}

fn join(group: &mut Group, token: u128, record: NodeRecord) -> Answer {
    group.one(Command::JoinNode { token_hash: token, record })
}

fn member(group: &Group, node: u64) -> Option<MemberState> {
    group.machine.meta().member(NodeId(node))
}

fn set(group: &mut Group, node: u64, state: MemberState) -> Answer {
    group.one(Command::SetMember { node: NodeId(node), state })
}

#[test]
fn a_token_lets_one_node_in_until_its_time_is_over() {
    let mut group = three();
    let refused = Answer::Refused(Refused::NoToken);
    assert_eq!(join(&mut group, 5, record(4, 4)), refused);
    token(&mut group, 5);
    assert_eq!(join(&mut group, 6, record(4, 4)), refused);
    assert_eq!(join(&mut group, 5, record(4, 4)), Answer::At(group.index));
    assert_eq!(member(&group, 4), Some(MemberState::Active));
    assert_eq!(join(&mut group, 5, record(4, 4)), Answer::At(group.index), "it asks again");
    assert_eq!(join(&mut group, 5, record(5, 5)), refused, "it was used");
    token(&mut group, 7);
    let rows = group.rows.0.len();
    assert!(group.machine.next_deadline().is_some());
    group.now += 1000;
    assert_eq!(join(&mut group, 7, record(5, 5)), refused, "its time is over");
    group.one(Command::Tick);
    assert_eq!(group.rows.0.len(), rows - 1);
}

#[test]
fn nobody_takes_another_nodes_id() {
    let mut group = three();
    token(&mut group, 5);
    let taken = Answer::Refused(Refused::NodeIdTaken);
    assert_eq!(join(&mut group, 5, record(3, 99)), taken);
    let malformed = Answer::Refused(Refused::Malformed);
    assert_eq!(join(&mut group, 5, record(0, 99)), malformed);
    assert_eq!(join(&mut group, 5, record(4, 0)), malformed);
    assert_eq!(join(&mut group, 5, record(4, 4)), Answer::At(group.index));
}

#[test]
fn a_removed_node_stays_removed_and_so_does_what_its_process_held() {
    let mut group = three();
    let process = RouteTarget::Node(NodeId(3), Incarnation(1));
    let route = Command::SetRoute {
        tenant: TENANT,
        filter: "a".into(),
        target: process,
        version: 1,
        present: true,
    };
    group.one(route.clone());
    assert_eq!(group.machine.meta().routes_len(), 1);
    assert_eq!(set(&mut group, 3, MemberState::Removed), Answer::At(group.index));
    assert_eq!(group.machine.meta().routes_len(), 0);
    assert!(group.machine.meta().nodes()[&NodeId(3)].gone);

    let removed = Answer::Refused(Refused::NodeRemoved);
    token(&mut group, 5);
    assert_eq!(join(&mut group, 5, record(3, 3)), removed);
    assert_eq!(join(&mut group, 5, record(3, 77)), removed);
    assert_eq!(group.one(Command::RegisterNode(record(3, 3))), removed);
    for state in [MemberState::Active, MemberState::Draining, MemberState::Leaving] {
        assert_eq!(set(&mut group, 3, state), removed);
    }
    assert_eq!(group.one(route), Answer::Refused(Refused::NotYours));
    assert_eq!(set(&mut group, 3, MemberState::Removed), Answer::At(group.index), "again");
    assert_eq!(member(&group, 3), Some(MemberState::Removed));
}

#[test]
fn the_last_active_node_stays() {
    let mut group = three();
    for (node, state) in [(1, MemberState::Draining), (2, MemberState::Leaving)] {
        assert_eq!(set(&mut group, node, state), Answer::At(group.index));
    }
    for state in [MemberState::Draining, MemberState::Leaving, MemberState::Removed] {
        assert_eq!(set(&mut group, 3, state), Answer::Refused(Refused::WrongState));
    }
    assert_eq!(set(&mut group, 9, MemberState::Active), Answer::Refused(Refused::WrongState));
    assert_eq!(set(&mut group, 1, MemberState::Active), Answer::At(group.index));
    assert_eq!(set(&mut group, 3, MemberState::Draining), Answer::At(group.index));
}

#[test]
fn copies_change_to_an_odd_number_once_all_programs_can_read_it() {
    let mut group = three();
    let replicas = |group: &Group| group.machine.meta().cluster().unwrap().replicas;
    let set = |group: &mut Group, replicas| group.one(Command::SetReplicas { replicas });
    assert_eq!(set(&mut group, 5), Answer::Refused(Refused::WrongState), "below its level");
    let programs = (1..=3).map(|node| (NodeId(node), Program::this())).collect();
    group.one(Command::SetLevel { level: REPLICAS_CHANGE, programs });
    for even in [0, 2, 4, 6, 255] {
        assert_eq!(set(&mut group, even), Answer::Refused(Refused::Malformed), "{even}");
    }
    assert_eq!(replicas(&group), 3);
    for odd in [5, 5, 1, 3] {
        assert_eq!(set(&mut group, odd), Answer::At(group.index), "{odd}");
        assert_eq!(replicas(&group), odd);
    }
    let none = &mut Group::new(ShardId::META);
    assert_eq!(set(none, 3), Answer::Refused(Refused::WrongState), "there is no cluster");
}

#[test]
fn a_target_changes_only_from_what_its_proposer_saw() {
    let mut group = three();
    let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
    let (old, new) = (nodes(&[1, 2, 3]), nodes(&[2, 3]));
    let place = |from: &[NodeId], to: &[NodeId]| Command::Place {
        group: ShardId(1),
        from: from.to_vec(),
        to: to.to_vec(),
    };
    let placed = |voters: &[u64]| Command::Placed { group: ShardId(1), voters: nodes(voters) };
    let wrong = Answer::Refused(Refused::WrongState);
    assert_eq!(group.machine.meta().target(ShardId(1)), None);
    assert_eq!(group.one(place(&new, &old)), wrong);
    for senseless in [nodes(&[]), nodes(&[1, 1]), nodes(&[1, 9]), nodes(&[1, 2, 3, 4, 5, 6])] {
        assert_eq!(group.one(place(&old, &senseless)), Answer::Refused(Refused::Malformed));
    }
    assert_eq!(group.one(place(&old, &new)), Answer::At(group.index));
    let target = |reached| Target { voters: nodes(&[2, 3]), reached };
    assert_eq!(group.machine.meta().target(ShardId(1)), Some(&target(false)));
    assert_eq!(group.one(placed(&[1, 2, 3])), wrong);
    assert_eq!(group.one(placed(&[3, 2])), Answer::At(group.index));
    assert_eq!(group.machine.meta().target(ShardId(1)), Some(&target(true)));
    assert_eq!(group.machine.meta().voters(ShardId(1)), new);
    assert_eq!(group.machine.meta().founders(ShardId(1)), old);
    assert_eq!(group.one(place(&old, &new)), wrong);
}
