//! A cluster that grows, and one whose dead node is replaced, under load: what an operator does, measured.
//!
//! ```text
//!   grow:     1 2 3 ── 4 and 5 join ──► votes move onto them ──► 1 2 3 4 5, each with its part
//!   replace:  1 2 3 ── one dies, its disk is thrown away ── 4 joins, the dead one is removed ──► three again
//! ```
//!
//! Kills in the middle are an option: without them what is measured is the move alone.

use anyhow::{Result, ensure};
use moorline_oracle::history::Fault;
use rand::RngExt;
use tokio::time::sleep;

use crate::change::{Change, Moves, rest};
use crate::member::{Membership, place};
use crate::members::{OTHER_DIRECTORY, REMOVED, REPLICAS, Voters};

/// The group of what all nodes have to know: it votes on up to five nodes, whatever shards do.
const META: u32 = 0;

impl Membership<'_, '_> {
    /// From three nodes to five.
    pub(crate) async fn grow(mut self, seconds: u64) -> Result<Change> {
        sleep(rest(seconds)).await;
        let snapshots = self.nemesis.snapshots().await;
        let mut moves = Moves::default();
        moves.see(&self.nemesis.voters().await.0);
        let mut change = Change::begins("3 nodes grow to 5", self.nemesis);
        self.nemesis.join(4, false).await?;
        self.nemesis.join(5, true).await?;
        self.moves_begin().await;
        self.disturb().await?;
        let all = [1, 2, 3, 4, 5];
        self.nemesis
            .settle("each of 5 nodes has its part", None, |voters| {
                moves.see(voters);
                shared_out(voters, &all)
            })
            .await?;
        self.nemesis.status_settles().await?;
        change.ends(self.nemesis);
        change.note(format!("{} votes moved", moves.count));
        let installed = self.nemesis.snapshots().await.since(&snapshots);
        change.note(format!("snapshots installed: {installed}"));
        Ok(change)
    }

    /// A node dies and its disk with it; another takes its place.
    pub(crate) async fn replace(mut self, seconds: u64) -> Result<Change> {
        sleep(rest(seconds)).await;
        let snapshots = self.nemesis.snapshots().await;
        let mut moves = Moves::default();
        moves.see(&self.nemesis.voters().await.0);
        let dead = self.random.random_range(1..=3);
        let mut change = Change::begins("a dead node is replaced", self.nemesis);
        self.nemesis.cluster.kill(place(dead))?;
        self.nemesis.tell(Fault::Kill, dead).await?;
        self.nemesis.cluster.wait_death(place(dead)).await?;
        self.nemesis.cluster.discard(place(dead))?;
        self.nemesis.join(4, true).await?;
        self.nemesis.change("remove", Fault::Remove, dead).await?;
        self.moves_begin().await;
        self.disturb().await?;
        let left: Vec<u32> = (1..=4).filter(|id| *id != dead).collect();
        self.nemesis
            .settle("three nodes have all votes again", None, |voters| {
                moves.see(voters);
                shared_out(voters, &left)
            })
            .await?;
        self.nemesis.status_settles().await?;
        change.ends(self.nemesis);
        change.note(format!("node {dead} died; {} votes moved", moves.count));
        let installed = self.nemesis.snapshots().await.since(&snapshots);
        change.note(format!("snapshots installed: {installed}"));
        // Started again with an empty disk and its old number it must not take part.
        self.nemesis.refused_saying(dead, &[REMOVED, OTHER_DIRECTORY]).await?;
        ensure!(!self.nemesis.cluster.runs(place(dead)), "node {dead} is gone");
        Ok(change)
    }
}

/// Whether these nodes have all votes: each shard three of them, and no node two more than another.
fn shared_out(voters: &Voters, nodes: &[u32]) -> bool {
    let shards = || voters.iter().filter(|(group, _)| **group != META).map(|(_, all)| all);
    let here = voters.values().all(|all| all.iter().all(|node| nodes.contains(node)));
    let whole = shards().all(|all| all.len() == REPLICAS);
    let meta = voters.get(&META).is_some_and(|all| all.len() == nodes.len().min(5));
    let votes = |node: &u32| shards().filter(|all| all.contains(node)).count();
    let least = nodes.iter().map(votes).min().unwrap_or(0);
    let most = nodes.iter().map(votes).max().unwrap_or(0);
    here && whole && meta && least > 0 && most <= least + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_votes_or_with_too_many_is_seen() {
        let of = |all: &[&[u32]]| {
            (0..).zip(all).map(|(group, all)| (group, all.iter().copied().collect())).collect()
        };
        let five = [1, 2, 3, 4, 5];
        let meta: &[u32] = &five;
        #[rustfmt::skip]
        let table: [(Voters, &[u32], bool); 6] = [
            (of(&[meta, &[1, 2, 3], &[3, 4, 5]]), &five, true),
            (of(&[&[1, 2, 3], &[1, 2, 3], &[3, 4, 5]]), &five, false),
            (of(&[meta, &[1, 2, 3], &[2, 3, 4]]), &five, false),
            (of(&[meta, &[1, 2, 3], &[1, 4, 5], &[1, 2, 3]]), &five, false),
            (of(&[meta, &[1, 2, 3, 4], &[3, 4, 5]]), &five, false),
            (of(&[&[2, 3, 4], &[2, 3, 4]]), &[2, 3, 4], true),
        ];
        for (at, (voters, nodes, expected)) in table.into_iter().enumerate() {
            assert_eq!(shared_out(&voters, nodes), expected, "{at}");
        }
    }
}
