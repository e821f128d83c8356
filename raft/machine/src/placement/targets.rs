//! What the meta group's rows say there is to do: targets to set, nodes that may go, who belongs to a group.
//!
//! # Invariants
//!
//! - **At most [`MOVES_MAX`] groups get other voters at once**, whoever leads. Checked by `tests/rules/growth.rs`.
//! - **A target that names a node which is to keep no votes is planned anew**, in the place of its own: it may never be reached, and would
//!   hold that place for ever. Checked by the same.
//! - **Nobody is planned in who does not run**, so that who does gets what is missing. Checked by the same.
//! - **Leaderships are spread when no votes move, and all at once**: chains of them that were begun and planned anew in the middle went back
//!   and forth for ever. Checked by the same.
//! - **A node goes only when no group needs it**: every target is reached, and none names it. Checked by the same.

use std::collections::BTreeSet;

use moorline_core::{NodeId, ShardId, shard::Shards};

use super::{Voters, places, plan, prefer};
use crate::{
    command::MemberState,
    meta::{MetaState, NodeState},
};

/// Groups that move at once: each may send a snapshot.
pub const MOVES_MAX: usize = 2;

/// A target that should be another one: of which group, what it is, what it should be.
pub type Move = (ShardId, Vec<NodeId>, Vec<NodeId>);

/// Who belongs to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Belonging {
    /// Who is to vote, the preferred leader first.
    pub voters: Vec<NodeId>,
    /// Who is to get the log without a vote.
    pub learners: BTreeSet<NodeId>,
    /// Whether somebody waits to hear that it is so.
    pub open: bool,
}

fn groups(meta: &MetaState) -> impl Iterator<Item = ShardId> + use<> {
    let shards = meta.cluster().map(|cluster| Shards::new(cluster.shards));
    let shards = shards.into_iter().flat_map(|shards| shards.all());
    std::iter::once(ShardId::META).chain(shards)
}

/// Targets to set now, all of them: other voters, or where nobody is to get any, other leaders. As far as their groups have begun, and as nobody has to come who does not run.
#[must_use]
pub fn moves(
    meta: &MetaState,
    begun: impl Fn(ShardId) -> bool,
    runs: impl Fn(NodeId) -> bool,
) -> Vec<Move> {
    let Some(cluster) = meta.cluster() else { return Vec::new() };
    // A cluster that is just being made: its nodes come one after the other, and each would get a part.
    let expected = |(node, known): (&NodeId, &NodeState)| {
        known.record.store == 0 && meta.member(*node) == Some(MemberState::Active)
    };
    if meta.nodes().iter().any(expected) {
        return Vec::new();
    }
    let mut places = places(meta);
    for (node, place) in &mut places {
        // A node that was let in and was not started yet: a target that names it would only wait.
        place.takes &= runs(*node);
    }
    let keeps = |node: &NodeId| places.get(node).is_some_and(|place| place.keeps);
    let is_open = |group: &ShardId| meta.target(*group).is_some_and(|target| !target.reached);
    let is_lost = |group: &ShardId| is_open(group) && !meta.voters(*group).iter().all(keeps);
    let free = MOVES_MAX.saturating_sub(groups(meta).filter(is_open).count());
    if free == 0 && !groups(meta).any(|group| is_lost(&group)) {
        return Vec::new();
    }
    let now: Voters = groups(meta).map(|group| (group, meta.voters(group).to_vec())).collect();
    let changed = |to: Voters| -> Vec<Move> {
        let changed = to.into_iter().filter_map(|(group, to)| {
            let from = now[&group].clone();
            (from != to && begun(group)).then_some((group, from, to))
        });
        changed.collect()
    };
    let votes = changed(plan(&now, &places, cluster.replicas)).into_iter();
    let votes = votes.filter(|one| !is_same_set(&one.1, &one.2));
    // Whoever went to a node that is gone keeps its place, and goes elsewhere.
    let (mut votes, mut others): (Vec<Move>, Vec<Move>) = votes.partition(|one| is_lost(&one.0));
    others.truncate(free);
    votes.append(&mut others);
    if free == 0 || !votes.is_empty() {
        return votes;
    }
    // Nothing is sent for another leader, and half of these changes would be worse than none: see `prefer`.
    let mut leaders = now.clone();
    prefer(&mut leaders, &begun);
    changed(leaders)
}

fn is_same_set(one: &[NodeId], other: &[NodeId]) -> bool {
    one.len() == other.len() && one.iter().all(|node| other.contains(node))
}

/// Leaving nodes that no group needs.
#[must_use]
pub fn without_votes(meta: &MetaState) -> Vec<NodeId> {
    if meta.cluster().is_none() {
        return Vec::new();
    }
    let settled = groups(meta).all(|group| meta.target(group).is_none_or(|target| target.reached));
    let needed = |node: &NodeId| groups(meta).any(|group| meta.voters(group).contains(node));
    let leaving = |node: &&NodeId| meta.member(**node) == Some(MemberState::Leaving);
    meta.nodes().keys().filter(leaving).filter(|node| settled && !needed(node)).copied().collect()
}

/// Who belongs to a group; nothing before there is a cluster.
#[must_use]
pub fn belonging(meta: &MetaState, group: ShardId) -> Option<Belonging> {
    meta.cluster()?;
    let voters = meta.voters(group).to_vec();
    let open = meta.target(group).is_some_and(|target| !target.reached);
    let stays = |node: &&NodeId| {
        meta.member(**node).is_some_and(|state| state != MemberState::Removed)
            && !voters.contains(node)
    };
    // The meta group is on every node.
    let learners = if group == ShardId::META {
        meta.nodes().keys().filter(stays).copied().collect()
    } else {
        BTreeSet::new()
    };
    Some(Belonging { voters, learners, open })
}
