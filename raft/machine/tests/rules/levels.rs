//! The cluster's level: raised only to what every member knows, and never lowered.

use std::collections::BTreeMap;

use moorline_core::{
    Incarnation, NodeId, ShardId,
    level::{FIRST, Levels, Program},
};
use moorline_machine::{
    Answer, MemberState, Refused,
    command::{Command, NodeRecord},
};

use crate::harness::*;

const OLD: Program = Program { levels: Levels { min: 1, max: 1 }, version: [0, 1, 0] };
const NEW: Program = Program { levels: Levels { min: 1, max: 2 }, version: [0, 2, 0] };
const NEXT: Program = Program { levels: Levels { min: 2, max: 3 }, version: [0, 3, 0] };

fn three() -> Group {
    let mut group = Group::new(ShardId::META);
    let nodes = (1..=3).map(|node| NodeRecord {
        node: NodeId(node),
        store: node.into(),
        incarnation: Incarnation(1),
        address: "n:7400".into(),
    });
    let nodes = nodes.collect();
    group.one(Command::CreateCluster { cluster: 9, shards: 2, nodes, replicas: 3 });
    group
}

fn heard(programs: &[(u64, Program)]) -> BTreeMap<NodeId, Program> {
    programs.iter().map(|(node, program)| (NodeId(*node), *program)).collect()
}

fn set(group: &mut Group, level: u16, programs: &[(u64, Program)]) -> Answer {
    let programs = heard(programs).into_iter().collect();
    group.one(Command::SetLevel { level, programs })
}

const REFUSED: Answer = Answer::Refused(Refused::WrongState);

#[test]
fn a_level_is_raised_when_every_member_knows_it() {
    let mut group = three();
    assert_eq!(group.machine.meta().level(), FIRST);
    assert_eq!(set(&mut group, 2, &[(1, NEW), (2, NEW)]), REFUSED, "the third said nothing");
    assert_eq!(set(&mut group, 2, &[(1, NEW), (2, NEW), (3, OLD)]), REFUSED);
    assert_eq!(group.machine.meta().program(NodeId(1)), None, "all or nothing");
    assert_eq!(set(&mut group, 2, &[(1, NEW), (2, NEW), (3, NEW)]), Answer::At(group.index));
    assert_eq!(group.machine.meta().level(), 2);
    assert_eq!(set(&mut group, 1, &[]), REFUSED, "it never goes back");
    assert_eq!(set(&mut group, 3, &[(1, NEXT), (2, NEXT)]), REFUSED, "the third said 2, last");
    let strangers = [(1, NEXT), (2, NEXT), (3, NEXT), (9, OLD)];
    assert_eq!(set(&mut group, 3, &strangers), Answer::At(group.index));
    assert_eq!(group.machine.meta().program(NodeId(9)), None, "no node of the cluster");
}

#[test]
fn who_is_removed_is_not_asked() {
    let mut group = three();
    group.one(Command::SetMember { node: NodeId(3), state: MemberState::Removed });
    assert_eq!(set(&mut group, 2, &[(1, NEW), (2, NEW)]), Answer::At(group.index));
}

#[test]
fn without_a_cluster_there_is_no_level_to_raise() {
    let mut group = Group::new(ShardId::META);
    assert_eq!(set(&mut group, 2, &[]), REFUSED);
    assert_eq!(set(&mut three(), 0, &[]), Answer::Refused(Refused::Malformed));
    assert_eq!(group.machine.meta().level_step(&heard(&[(1, NEW)]), true), None);
}

#[test]
fn at_the_first_level_only_the_raise_is_proposed() {
    let mut group = three();
    let (mixed, all) = ([(1, NEW), (2, NEW), (3, OLD)], [(1, NEW), (2, NEW), (3, NEW)]);
    let meta = group.machine.meta();
    assert_eq!(meta.level_step(&heard(&mixed), true), None, "one of them could not read it");
    assert_eq!(meta.level_step(&heard(&all[..2]), true), None, "nor maybe this one");
    assert_eq!(meta.level_step(&heard(&all), false), None, "not yet");
    assert_eq!(meta.next_level(&heard(&all)), Some(2));
    let step = meta.level_step(&heard(&all), true).unwrap();
    assert_eq!(group.one(step), Answer::At(group.index));
    let meta = group.machine.meta();
    assert_eq!((meta.level(), meta.next_level(&heard(&all))), (2, None));
    assert_eq!(meta.level_step(&heard(&all), true), None, "nothing is new");

    // From here on what nodes say is noted, so that whoever leads next knows it of those that are down.
    let step = meta.level_step(&heard(&[(2, NEXT)]), true).unwrap();
    assert_eq!(step, Command::SetLevel { level: 2, programs: vec![(NodeId(2), NEXT)] });
    group.one(step);
    let meta = group.machine.meta();
    assert_eq!((meta.level(), meta.program(NodeId(2))), (2, Some(NEXT)));
    assert_eq!(
        meta.next_level(&heard(&[(1, NEXT), (3, NEXT)])),
        Some(3),
        "with what 2 said before"
    );
}
