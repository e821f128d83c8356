//! Where groups are to be, and the next step of a group towards that. Pure: everybody who asks with the same rows gets
//! the same answer, so whoever leads can go on where another stopped.
//!
//! # Invariants
//!
//! - **One change at a time, and a majority stays.** Of a step's voters at most one is new and at most one goes, and
//!   who stays is a majority of those before (but from two to one). Checked by `tests/rules/placement.rs`.
//! - **Nobody votes who has not caught up**, and no step is taken that those who are up could not commit.
//! - **From any state the target is reached**, if its nodes are up. Checked by `tests/rules/placement.rs`.
//! - **Votes and leaderships are as even as can be**: no node has two votes more than another that can take one, and no chain of
//!   changes of leaders makes them more even. Checked by `tests/rules/growth.rs`.
//! - **A plan that is carried out is not changed again**: [`plan`] of its own result is that result. Checked by the same.
//!
//! # Deliberately absent
//!
//! Whether a node is up: a dead node keeps its votes until an operator removes it, since who moves data because a cable
//! is out makes a small failure large.

mod targets;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use moorline_core::{NodeId, ShardId};

pub use self::targets::{Belonging, MOVES_MAX, Move, belonging, moves, without_votes};
use crate::{command::MemberState, meta::MetaState};

/// Voters of the meta group: it is on every node, but a vote on each would make every change of a route slower.
const META_VOTERS_MAX: usize = 5;

/// A node as a place for votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Votes that are there may stay.
    pub keeps: bool,
    /// Votes may be placed there.
    pub takes: bool,
}

/// Who is to vote where, by group, the preferred leader first.
pub type Voters = BTreeMap<ShardId, Vec<NodeId>>;

/// The places of a cluster.
#[must_use]
pub fn places(meta: &MetaState) -> BTreeMap<NodeId, Place> {
    let of = |(node, known): (&NodeId, &crate::NodeState)| {
        let keeps = meta.member(*node) == Some(MemberState::Active);
        // A node of which nobody has heard yet gets nothing to hold.
        let takes = keeps && !known.gone && known.record.store != 0;
        (*node, Place { keeps, takes })
    };
    meta.nodes().iter().map(of).collect()
}

/// Who should vote where, as near to `now` as balance and the number of replicas allow.
#[must_use]
pub fn plan(now: &Voters, places: &BTreeMap<NodeId, Place>, replicas: u8) -> Voters {
    let mut plan = now.clone();
    let kept = places.values().filter(|place| place.keeps).count();
    let any_takes = places.values().any(|place| place.takes);
    if kept == 0 {
        return plan;
    }
    let mut load: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (group, voters) in &mut plan {
        let stays = |node: &NodeId| places.get(node).is_some_and(|place| place.keeps);
        // Where nobody could take over, who is to go stays.
        if voters.iter().any(stays) || any_takes {
            voters.retain(stays);
        }
        count(&mut load, *group, voters);
    }
    for (group, voters) in &mut plan {
        let before = now[group].len();
        resize(*group, voters, copies(*group, replicas, kept), before, places, &mut load);
    }
    while let Some((group, from, to)) = uneven(&plan, places, &load) {
        let voters = plan.get_mut(&group).expect("it is one of the plan's");
        let at = voters.iter().position(|voter| *voter == from).expect("it is one of the voters");
        voters[at] = to;
        *load.entry(from).or_default() -= 1;
        *load.entry(to).or_default() += 1;
    }
    prefer(&mut plan, |_| true);
    plan
}

/// Voters that a group is to have where `replicas` are wanted of shards, on so many nodes: four survive no more than three do.
#[must_use]
pub fn copies(group: ShardId, replicas: u8, nodes: usize) -> usize {
    let max = if group == ShardId::META { META_VOTERS_MAX } else { usize::from(replicas) };
    let wanted = max.min(nodes);
    if wanted == 4 { 3 } else { wanted }
}

fn count(load: &mut BTreeMap<NodeId, usize>, group: ShardId, voters: &[NodeId]) {
    // The meta group is on every node anyway.
    if group != ShardId::META {
        for voter in voters {
            *load.entry(*voter).or_default() += 1;
        }
    }
}

fn resize(
    group: ShardId,
    voters: &mut Vec<NodeId>,
    wanted: usize,
    before: usize,
    places: &BTreeMap<NodeId, Place>,
    load: &mut BTreeMap<NodeId, usize>,
) {
    let step = usize::from(group != ShardId::META);
    while voters.len() > wanted {
        // Whose node is dead first: it can't be the one that is left.
        let takes = |node: &NodeId| places.get(node).is_some_and(|place| place.takes);
        let load_of = |node: &NodeId| load.get(node).copied().unwrap_or(0);
        let most = |at: &usize| (!takes(&voters[*at]), load_of(&voters[*at]), *at);
        let out = (0..voters.len()).max_by_key(most).expect("there are voters");
        let node = voters.remove(out);
        *load.entry(node).or_default() -= step;
    }
    while voters.len() < wanted {
        let free = places.iter().filter(|(node, place)| place.takes && !voters.contains(node));
        let least = |(node, _): &(&NodeId, &Place)| (load.get(node).copied().unwrap_or(0), **node);
        let Some((node, _)) = free.min_by_key(least) else { break };
        voters.push(*node);
        *load.entry(*node).or_default() += step;
    }
    // Four survive no more than three do, two no more than one: where no more nodes run, it does not grow by half.
    if voters.len() < wanted && voters.len() > before && voters.len().is_multiple_of(2) {
        let last = voters.pop().expect("it grew");
        *load.entry(last).or_default() -= step;
    }
}

/// A vote to move from the fullest node to the emptiest that can take one, if they differ by more than one.
fn uneven(
    plan: &Voters,
    places: &BTreeMap<NodeId, Place>,
    load: &BTreeMap<NodeId, usize>,
) -> Option<(ShardId, NodeId, NodeId)> {
    let of = |node: &NodeId| load.get(node).copied().unwrap_or(0);
    let takers: Vec<NodeId> =
        places.iter().filter(|(_, place)| place.takes).map(|(node, _)| *node).collect();
    let mut givers: Vec<NodeId> =
        places.iter().filter(|(_, place)| place.keeps).map(|(node, _)| *node).collect();
    givers.sort_by_key(|node| (usize::MAX - of(node), *node));
    let to = *takers.iter().min_by_key(|node| (of(node), **node))?;
    let from = *givers.first()?;
    if of(&from) <= of(&to) + 1 {
        return None;
    }
    // The last group first: its leadership is the least likely to be where it was made.
    let movable = |(group, voters): &(&ShardId, &Vec<NodeId>)| {
        **group != ShardId::META && voters.contains(&from) && !voters.contains(&to)
    };
    let (group, _) = plan.iter().rev().find(movable)?;
    Some((*group, from, to))
}

/// Spreads the preferred leaderships of shards evenly over their voters, moving as few as possible of those that may move.
///
/// Of what comes out all has to be done, or none: half a chain makes a node fuller, and who plans anew may take it back.
fn prefer(plan: &mut Voters, movable: impl Fn(ShardId) -> bool) {
    let mut led: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (group, voters) in plan.iter() {
        if *group != ShardId::META {
            for voter in voters {
                led.entry(*voter).or_default();
            }
            if let Some(first) = voters.first() {
                *led.entry(*first).or_default() += 1;
            }
        }
    }
    while let Some(chain) = relieving(plan, &led, &movable) {
        for (group, to) in chain {
            let voters = plan.get_mut(&group).expect("it is one of the plan's");
            let at = voters.iter().position(|voter| *voter == to).expect("it votes there");
            *led.entry(voters[0]).or_default() -= 1;
            *led.entry(to).or_default() += 1;
            voters.swap(0, at);
        }
    }
}

/// The shortest chain of leaderships to hand on from a node to one that leads at least two fewer: each of a chain gets one and gives
/// one. Where there is none, they are as even as they can be. A node that leads two more than another need not vote with it, but with
/// somebody who does.
fn relieving(
    plan: &Voters,
    led: &BTreeMap<NodeId, usize>,
    movable: &impl Fn(ShardId) -> bool,
) -> Option<Vec<(ShardId, NodeId)>> {
    let mut fullest: Vec<NodeId> = led.keys().copied().collect();
    fullest.sort_by_key(|node| (usize::MAX - led[node], *node));
    let mut given: BTreeMap<NodeId, Vec<(ShardId, &[NodeId])>> = BTreeMap::new();
    let of_shards = plan.iter().filter(|(group, _)| **group != ShardId::META);
    for (group, voters) in of_shards.filter(|(group, _)| movable(**group)) {
        if let [first, others @ ..] = voters.as_slice() {
            given.entry(*first).or_default().push((*group, others));
        }
    }
    fullest.into_iter().find_map(|from| {
        let mut came: BTreeMap<NodeId, (NodeId, ShardId)> = BTreeMap::new();
        let mut next = VecDeque::from([from]);
        while let Some(at) = next.pop_front() {
            for (group, others) in given.get(&at).into_iter().flatten() {
                for other in others.iter().filter(|other| **other != from) {
                    if came.contains_key(other) {
                        continue;
                    }
                    came.insert(*other, (at, *group));
                    if led[other] + 1 < led[&from] {
                        return Some(chain(&came, from, *other));
                    }
                    next.push_back(*other);
                }
            }
        }
        None
    })
}

fn chain(
    came: &BTreeMap<NodeId, (NodeId, ShardId)>,
    from: NodeId,
    to: NodeId,
) -> Vec<(ShardId, NodeId)> {
    let (mut chain, mut at) = (Vec::new(), to);
    while at != from {
        let (before, group) = came[&at];
        chain.push((group, at));
        at = before;
    }
    chain
}

/// A group as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// The leader.
    pub leader: NodeId,
    /// Who votes: one set, or two while a change is under way.
    pub voters: Vec<BTreeSet<NodeId>>,
    /// Who gets the log and does not vote.
    pub learners: BTreeSet<NodeId>,
    /// Who is up and lacks next to nothing of the log. The leader itself counts.
    pub current: BTreeSet<NodeId>,
}

/// What a group's leader does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing: all is as it should be.
    Done,
    /// Nothing now: somebody has to catch up or to come back first.
    Wait,
    /// Send the log to this node.
    Learn(NodeId),
    /// Let these vote.
    Vote(BTreeSet<NodeId>),
    /// Give the leadership to this node.
    HandOver(NodeId),
    /// Send no more log to this node.
    Forget(NodeId),
}

/// The next step of a group to `voters`, and to `learners` who do not vote.
#[must_use]
pub fn next_step(members: &Members, voters: &[NodeId], learners: &BTreeSet<NodeId>) -> Next {
    let [now] = members.voters.as_slice() else {
        // Somebody stopped in the middle: the change is finished first.
        return members.voters.last().map_or(Next::Wait, |last| Next::Vote(last.clone()));
    };
    let wanted: BTreeSet<NodeId> = voters.iter().copied().collect();
    if wanted.is_empty() {
        return Next::Wait;
    }
    let known = |node: &&NodeId| now.contains(node) || members.learners.contains(node);
    if let Some(new) = voters.iter().chain(learners).find(|node| !known(node)) {
        return Next::Learn(*new);
    }
    if *now != wanted {
        return change(members, now, &wanted);
    }
    match members.learners.iter().find(|node| !learners.contains(node)) {
        Some(left) => Next::Forget(*left),
        None => Next::Done,
    }
}

fn change(members: &Members, now: &BTreeSet<NodeId>, wanted: &BTreeSet<NodeId>) -> Next {
    let is_current = |node: &&NodeId| members.current.contains(node);
    let missing = wanted.difference(now).collect::<Vec<_>>();
    let comes = missing.iter().copied().find(is_current);
    if !missing.is_empty() && comes.is_none() {
        return Next::Wait;
    }
    // The dead first: while they vote, fewer others may fail.
    let goes = |of: &BTreeSet<NodeId>| {
        let others = of.difference(wanted).filter(|node| **node != members.leader);
        others.min_by_key(|node| (members.current.contains(node), **node)).copied()
    };
    let mut next = now.clone();
    if let Some(comes) = comes {
        next.insert(*comes);
        // With one or two voters nobody goes in the same step: no majority would stay.
        let replaces = now.len() >= 3 && now.len() >= wanted.len();
        if let Some(goes) = goes(now).filter(|_| replaces) {
            next.remove(&goes);
        } else if replaces && let Some(handed_over) = hand_over(members, now, wanted) {
            return handed_over;
        }
    } else {
        match goes(now) {
            Some(goes) => drop(next.remove(&goes)),
            // Only the leader is too many.
            None => return hand_over(members, now, wanted).unwrap_or(Next::Wait),
        }
    }
    let up = next.intersection(&members.current).count();
    if up > next.len() / 2 { Next::Vote(next) } else { Next::Wait }
}

/// The leader is to go: somebody who stays leads from now on.
fn hand_over(members: &Members, now: &BTreeSet<NodeId>, wanted: &BTreeSet<NodeId>) -> Option<Next> {
    let stays = wanted.intersection(now).find(|node| members.current.contains(node))?;
    Some(Next::HandOver(*stays))
}
