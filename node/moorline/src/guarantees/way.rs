//! How far a change of the number of copies is, and of who votes: what is wanted beside what there is.
//!
//! # Invariants
//!
//! - **What cannot be is said with what it waits for**: nodes that are not there, or one that is down.
//! - **Nothing is said of a group that has no majority**: it does not move, and another sentence says why.
//!
//! Checked by this file's tests.

use std::collections::{BTreeMap, BTreeSet};

use moorline_core::ShardId;
use moorline_machine::placement::copies;

use super::{Subject, are_down};
use crate::cluster::{ClusterView, GroupView};

/// What is said of it; nothing when all is as it is wanted, or the answering node does not say what is.
pub(super) fn sentences(view: &ClusterView) -> Vec<String> {
    let active: Vec<u64> =
        view.nodes.iter().filter(|node| node.state == "active").map(|node| node.id).collect();
    if view.replicas == 0 || active.is_empty() {
        return Vec::new();
    }
    let mut said: Vec<String> = too_few(view.replicas, active.len()).into_iter().collect();
    said.extend(on_the_way(view, &active));
    said
}

/// What will be when there are more nodes.
pub(crate) fn too_few(replicas: u8, active: usize) -> Option<String> {
    let full = usize::from(replicas);
    let now = copies(ShardId(1), replicas, active);
    let (are, nodes) = (if now == 1 { "is" } else { "are" }, active);
    (now < full).then(|| {
        format!(
            "{full} copies of each shard are wanted: there {are} {now} until {full} nodes are active, and {nodes} {}.",
            if nodes == 1 { "is" } else { "are" }
        )
    })
}

/// A sentence for the groups that are on the same way.
fn on_the_way(view: &ClusterView, active: &[u64]) -> Vec<String> {
    let up: BTreeSet<u64> =
        view.nodes.iter().filter(|node| node.alive).map(|node| node.id).collect();
    let mut alike: BTreeMap<(bool, usize, usize, Vec<u64>), Vec<u16>> = BTreeMap::new();
    let begun = view.groups.iter().filter(|group| !group.voters.is_empty());
    for group in begun.clone().filter(|group| has_majority(group, &up)) {
        let wanted = copies(ShardId(group.shard), view.replicas, active.len());
        let grows = group.voters.len() != wanted;
        if !grows && !moves(group) {
            continue;
        }
        let to = if group.target.is_empty() { active } else { &group.target };
        let comes = |node: &&u64| !group.voters.contains(node) && !up.contains(*node);
        let waits = wanted > group.voters.len() || moves(group);
        let absent: Vec<u64> = to.iter().filter(comes).filter(|_| waits).copied().collect();
        let key = (!grows, group.voters.len(), wanted, absent);
        alike.entry(key).or_default().push(group.shard);
    }
    let all = begun.count();
    let said = alike.into_iter().map(|((moves, now, wanted, absent), shards)| {
        let who = Subject::of(&shards, all);
        let is = who.verb("is", "are");
        let way = if moves {
            format!("{who} {is} moving to other nodes")
        } else {
            let copies = if wanted == 1 { "copy" } else { "copies" };
            format!("{who} {is} on the way from {now} to {wanted} {copies}")
        };
        match absent.as_slice() {
            [] => format!("{way}."),
            absent => format!("{way}: {}, and nothing moves there.", are_down(absent)),
        }
    });
    said.collect()
}

fn has_majority(group: &GroupView, up: &BTreeSet<u64>) -> bool {
    group.voters.iter().filter(|node| up.contains(*node)).count() > group.voters.len() / 2
}

/// Whether other nodes are to vote than do, not only another one of them to lead.
fn moves(group: &GroupView) -> bool {
    let (now, to): (BTreeSet<_>, BTreeSet<_>) =
        (group.voters.iter().collect(), group.target.iter().collect());
    !to.is_empty() && now != to
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guarantees::tests::{ALL, FIVE, view};

    fn wanting(replicas: u8, mut view: ClusterView) -> ClusterView {
        view.replicas = replicas;
        view
    }

    #[test]
    fn what_is_wanted_is_said_until_it_is_so() {
        let placed = |replicas, mut view: ClusterView, target: &[u64]| {
            view.groups[1].target = target.to_vec();
            wanting(replicas, view)
        };
        const FOUR: &[u64] = &[1, 2, 3, 4];
        #[rustfmt::skip]
        let table: [(ClusterView, &[&str]); 12] = [
            (wanting(3, view(3, &[], &[ALL, ALL])), &[]),
            (wanting(3, view(3, &[3], &[ALL, ALL])), &[]),
            (wanting(1, view(1, &[], &[&[1], &[1]])), &[]),
            (wanting(3, view(1, &[], &[&[1], &[1]])),
                &["3 copies of each shard are wanted: there is 1 until 3 nodes are active, and 1 is."]),
            (wanting(5, view(3, &[], &[ALL, ALL])),
                &["5 copies of each shard are wanted: there are 3 until 5 nodes are active, and 3 are."]),
            (wanting(5, view(4, &[], &[ALL, ALL])),
                &["5 copies of each shard are wanted: there are 3 until 5 nodes are active, and 4 are."]),
            (wanting(5, view(5, &[], &[FIVE, ALL, FIVE, FOUR])),
                &["Shard 1 is on the way from 3 to 5 copies.", "Shard 3 is on the way from 4 to 5 copies."]),
            (wanting(5, view(5, &[5], &[FIVE, ALL, ALL])),
                &["Shards 1 and 2 are on the way from 3 to 5 copies: node 5 is down, and nothing moves there."]),
            (wanting(3, view(5, &[4], &[FIVE, FIVE, ALL])), &["Shard 1 is on the way from 5 to 3 copies."]),
            (placed(3, view(4, &[], &[ALL, ALL]), &[2, 3, 4]), &["Shard 1 is moving to other nodes."]),
            (placed(3, view(4, &[], &[ALL, ALL]), &[3, 2, 1]), &[]),
            // It does not move before it has a majority.
            (wanting(5, view(5, &[2, 3], &[FIVE, ALL])), &[]),
        ];
        for (view, sentences) in table {
            assert_eq!(super::sentences(&view), sentences);
        }
    }

    #[test]
    fn who_says_nothing_of_it_wants_nothing() {
        assert!(sentences(&wanting(0, view(5, &[], &[ALL, ALL]))).is_empty());
    }
}
