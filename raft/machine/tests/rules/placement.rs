//! Plans of placement, and the steps of a group towards them.

use std::collections::{BTreeMap, BTreeSet};

use moorline_core::{NodeId, ShardId};
use moorline_machine::placement::{Members, Next, Place, Voters, next_step, plan};
use proptest::prelude::*;

const ACTIVE: Place = Place { keeps: true, takes: true };
const LEAVING: Place = Place { keeps: false, takes: false };
/// More steps than any change needs: each voter comes, goes, is learnt and forgotten once, and leaders hand over.
const STEPS_MAX: usize = 64;

fn ids(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn set(of: &[u64]) -> BTreeSet<NodeId> {
    ids(of).into_iter().collect()
}

fn everywhere(nodes: &[u64], shards: u16) -> Voters {
    (0..=shards).map(|shard| (ShardId(shard), ids(nodes))).collect()
}

fn active(nodes: &[u64]) -> BTreeMap<NodeId, Place> {
    ids(nodes).into_iter().map(|node| (node, ACTIVE)).collect()
}

fn loads(voters: &Voters) -> BTreeMap<NodeId, usize> {
    let mut loads = BTreeMap::new();
    for (_, voters) in voters.iter().filter(|(group, _)| **group != ShardId::META) {
        for voter in voters {
            *loads.entry(*voter).or_default() += 1;
        }
    }
    loads
}

#[test]
fn three_nodes_stay_as_they_were_made() {
    let now = everywhere(&[1, 2, 3], 3);
    let mut now = now;
    now.insert(ShardId(2), ids(&[2, 3, 1]));
    now.insert(ShardId(3), ids(&[3, 1, 2]));
    assert_eq!(plan(&now, &active(&[1, 2, 3]), 3), now);
}

#[test]
fn a_fourth_node_takes_its_part_and_the_meta_group_keeps_three_votes() {
    let planned = plan(&everywhere(&[1, 2, 3], 12), &active(&[1, 2, 3, 4]), 3);
    assert_eq!(planned[&ShardId::META], ids(&[1, 2, 3]));
    assert_eq!(loads(&planned), ids(&[1, 2, 3, 4]).into_iter().map(|node| (node, 9)).collect());
}

#[test]
fn who_leaves_is_replaced_everywhere() {
    let now = plan(&everywhere(&[1, 2, 3], 3), &active(&[1, 2, 3, 4]), 3);
    let mut places = active(&[2, 3, 4]);
    places.insert(NodeId(1), LEAVING);
    let planned = plan(&now, &places, 3);
    for (group, voters) in planned {
        assert_eq!(voters.into_iter().collect::<BTreeSet<_>>(), set(&[2, 3, 4]), "{group}");
    }
}

#[test]
fn five_replicas_need_five_nodes_and_four_nodes_make_three() {
    let three = everywhere(&[1, 2, 3], 4);
    let table: [(&[u64], usize); 4] =
        [(&[1, 2, 3], 3), (&[1, 2, 3, 4], 3), (&[1, 2, 3, 4, 5], 5), (&[1, 2, 3, 4, 5, 6, 7], 5)];
    for (nodes, expected) in table {
        for (group, voters) in plan(&three, &active(nodes), 5) {
            assert_eq!(voters.len(), expected, "group {group} on {nodes:?}");
        }
    }
}

#[test]
fn nothing_moves_to_a_node_that_was_never_heard_of() {
    let mut places = active(&[1, 2, 3]);
    places.insert(NodeId(4), Place { keeps: true, takes: false });
    let now = everywhere(&[1, 2, 3], 4);
    assert_eq!(loads(&plan(&now, &places, 3)), loads(&now));
}

fn members(leader: u64, voters: &[u64], learners: &[u64], current: &[u64]) -> Members {
    Members {
        leader: NodeId(leader),
        voters: vec![set(voters)],
        learners: set(learners),
        current: set(current),
    }
}

#[test]
fn the_steps_of_a_replacement() {
    let next = |members: &Members, voters: &[u64], learners: &[u64]| {
        next_step(members, &ids(voters), &set(learners))
    };
    let all = [1, 2, 3, 4];
    #[rustfmt::skip]
    let table = [
        // leader, voters, learners, current,          wanted,        learners wanted, next
        (members(1, &[1, 2, 3], &[], &all),            vec![1, 2, 3], vec![],  Next::Done),
        (members(1, &[1, 2, 3], &[], &all),            vec![1, 2, 4], vec![],  Next::Learn(NodeId(4))),
        (members(1, &[1, 2, 3], &[4], &[1, 2, 3]),     vec![1, 2, 4], vec![],  Next::Wait),
        (members(1, &[1, 2, 3], &[4], &all),           vec![1, 2, 4], vec![],  Next::Vote(set(&[1, 2, 4]))),
        (members(1, &[1, 2, 4], &[3], &all),           vec![1, 2, 4], vec![],  Next::Forget(NodeId(3))),
        (members(1, &[1, 2, 4], &[3], &all),           vec![1, 2, 4], vec![3], Next::Done),
        (members(1, &[1, 2, 3], &[], &all),            vec![1, 2, 3], vec![4], Next::Learn(NodeId(4))),
        // the leader itself goes
        (members(1, &[1, 2, 3], &[4], &all),           vec![2, 3, 4], vec![],  Next::HandOver(NodeId(2))),
        (members(1, &[1, 2, 3], &[4], &[1, 3, 4]),     vec![2, 3, 4], vec![],  Next::HandOver(NodeId(3))),
        // node 3 is dead
        (members(1, &[1, 2, 3], &[4], &[1, 2, 4]),     vec![1, 2, 4], vec![],  Next::Vote(set(&[1, 2, 4]))),
        (members(1, &[1, 2, 3], &[], &[1, 2]),         vec![1, 2],    vec![],  Next::Vote(set(&[1, 2]))),
        // no majority of the next voters is up
        (members(1, &[1, 2, 3], &[4], &[1, 4]),        vec![1, 3, 4], vec![],  Next::Vote(set(&[1, 3, 4]))),
        (members(1, &[1, 2, 3, 5], &[], &[1, 2]),      vec![1, 2, 3], vec![],  Next::Vote(set(&[1, 2, 3]))),
        (members(1, &[1, 2, 3], &[], &[1]),            vec![1, 2],    vec![],  Next::Wait),
        // one becomes three, and one another
        (members(1, &[1], &[2], &[1, 2]),              vec![1, 2, 3], vec![],  Next::Learn(NodeId(3))),
        (members(1, &[1], &[2, 3], &[1, 2]),           vec![1, 2, 3], vec![],  Next::Vote(set(&[1, 2]))),
        (members(1, &[1], &[2], &[1, 2]),              vec![2],       vec![],  Next::Vote(set(&[1, 2]))),
        (members(1, &[1, 2], &[], &[1, 2]),            vec![2],       vec![],  Next::HandOver(NodeId(2))),
        (members(2, &[1, 2], &[], &[1, 2]),            vec![2],       vec![],  Next::Vote(set(&[2]))),
    ];
    for (members, wanted, learners, expected) in table {
        assert_eq!(next(&members, &wanted, &learners), expected, "{members:?} to {wanted:?}");
    }
    let mut joint = members(1, &[1, 2, 3], &[], &all);
    joint.voters.push(set(&[1, 2, 4]));
    assert_eq!(next(&joint, &[2, 3, 4], &[]), Next::Vote(set(&[1, 2, 4])), "it is finished first");
}

fn some_nodes() -> impl Strategy<Value = Vec<u64>> {
    prop::sample::subsequence((1..=7).collect::<Vec<u64>>(), 1..=5)
}

proptest! {
    #[test]
    fn a_target_is_reached_from_any_state_and_a_majority_stays_at_every_step(
        voters in some_nodes(), learners in some_nodes(), wanted in some_nodes(),
        kept in some_nodes(), leader in any::<prop::sample::Index>(),
    ) {
        let all = set(&[1, 2, 3, 4, 5, 6, 7]);
        let wanted = ids(&wanted);
        let mut kept = set(&kept);
        kept.retain(|node| !wanted.contains(node));
        let voters = set(&voters);
        let mut now = Members {
            leader: *voters.iter().nth(leader.index(voters.len())).unwrap(),
            learners: set(&learners).difference(&voters).copied().collect(),
            voters: vec![voters],
            current: all,
        };
        let mut steps = 0;
        loop {
            steps += 1;
            prop_assert!(steps < STEPS_MAX, "no end: {now:?} to {wanted:?}");
            let before = now.voters[0].clone();
            match next_step(&now, &wanted, &kept) {
                Next::Done => break,
                Next::Wait => prop_assert!(false, "everybody is up: {now:?} to {wanted:?}"),
                Next::Learn(node) => prop_assert!(now.learners.insert(node)),
                Next::Forget(node) => prop_assert!(now.learners.remove(&node)),
                Next::HandOver(node) => {
                    prop_assert!(before.contains(&node) && wanted.contains(&node));
                    now.leader = node;
                }
                Next::Vote(next) => {
                    prop_assert!(next.contains(&now.leader), "a leader votes itself out");
                    prop_assert!(next.difference(&before).count() <= 1);
                    prop_assert!(before.difference(&next).count() <= 1);
                    let stay = before.intersection(&next).count();
                    prop_assert!(stay > before.len() / 2 || (before.len() == 2 && next.len() == 1));
                    for node in next.difference(&before) {
                        prop_assert!(now.learners.remove(node), "{node} had no log");
                    }
                    now.learners.extend(before.difference(&next));
                    now.voters = vec![next];
                }
            }
        }
        prop_assert_eq!(&now.voters[0], &wanted.iter().copied().collect::<BTreeSet<_>>());
        prop_assert_eq!(&now.learners, &kept);
    }

    #[test]
    fn no_step_needs_somebody_who_is_not_there(
        voters in some_nodes(), learners in some_nodes(), wanted in some_nodes(),
        up in some_nodes(), leader in any::<prop::sample::Index>(),
    ) {
        let voters = set(&voters);
        let leader = *voters.iter().nth(leader.index(voters.len())).unwrap();
        let mut current = set(&up);
        current.insert(leader);
        let now = Members {
            leader,
            learners: set(&learners).difference(&voters).copied().collect(),
            voters: vec![voters.clone()],
            current: current.clone(),
        };
        match next_step(&now, &ids(&wanted), &BTreeSet::new()) {
            Next::Vote(next) => {
                prop_assert!(next.intersection(&current).count() > next.len() / 2);
                prop_assert!(next.difference(&voters).all(|node| current.contains(node)));
            }
            Next::HandOver(to) => prop_assert!(current.contains(&to) && voters.contains(&to)),
            Next::Done | Next::Wait | Next::Learn(_) | Next::Forget(_) => {}
        }
    }

    #[test]
    fn plans_are_even_keep_to_their_nodes_and_do_not_change_once_carried_out(
        voters in prop::collection::vec(some_nodes(), 1..12),
        nodes in prop::collection::vec(0..3_u8, 7), replicas in prop::sample::select(vec![1_u8, 3, 5]),
    ) {
        let now: Voters = (0..).map(ShardId).zip(voters.iter().map(|voters| ids(voters))).collect();
        let places: BTreeMap<NodeId, Place> = (1..=7)
            .map(NodeId)
            .zip(nodes.iter().map(|kind| match kind {
                0 => LEAVING,
                _ => ACTIVE,
            }))
            .collect();
        let planned = plan(&now, &places, replicas);
        prop_assert_eq!(&plan(&planned, &places, replicas), &planned);
        let kept = places.values().filter(|place| place.keeps).count();
        if kept > 0 {
            for (group, voters) in &planned {
                let distinct: BTreeSet<_> = voters.iter().collect();
                prop_assert_eq!(distinct.len(), voters.len());
                prop_assert!(voters.iter().all(|voter| places[voter].keeps), "{group}: {voters:?}");
                let max = if *group == ShardId::META { 5 } else { usize::from(replicas) };
                let wanted = match max.min(kept) { 4 => 3, other => other };
                prop_assert_eq!(voters.len(), wanted);
            }
            let loads = loads(&planned);
            let of = |node: &NodeId| loads.get(node).copied().unwrap_or(0);
            let kept = || places.iter().filter(|(_, place)| place.keeps).map(|(node, _)| of(node));
            let (least, most) = (kept().min().unwrap(), kept().max().unwrap());
            prop_assert!(most <= least + 1, "{loads:?}");
        }
        // Whoever carries it out group by group, and plans anew after each, gets there too.
        let mut step = now;
        for _ in 0..64 {
            let target = plan(&step, &places, replicas);
            let Some((group, voters)) = target.iter().find(|(group, to)| step[group] != **to) else { break };
            step.insert(*group, voters.clone());
        }
        prop_assert_eq!(&plan(&step, &places, replicas), &step, "no end");
    }
}
