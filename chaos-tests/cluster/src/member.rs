//! A member run: nodes join and leave, a dead one is replaced, and others are killed in the middle of the moves.
//!
//! ```text
//!   4 joins ──kills──► has its part   1 leaves ──kills──► has ended, refused for ever   (brief: the end)
//!   3 is killed and emptied: refused, its directory put back   2 dies, 5 joins, 2 is removed ──kills──► 3, 4 and 5
//! ```
//!
//! # Invariants
//!
//! - **A change waits for the one before**, not for the clock: how long votes take to move is not known.
//! - **One node is down at a time**, and the dead one besides while it is being replaced: then a majority waits a moment.
//! - **A kill in the middle is one**: it is said how many groups were on their way when it came.

use std::time::Duration;

use anyhow::{Result, ensure};
use moorline_oracle::history::Fault;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

use crate::admin;
use crate::change::Change;
use crate::members::{OTHER_DIRECTORY, REMOVED, REPLICAS, SETTLE_MAX, Voters};
use crate::nemesis::{Nemesis, Victims, leaders};
use crate::options::{Course, MemberPlan};
use crate::schedule::{Deed, Disk, QUIET_MS, Step, Target};

/// A kill comes this long after the change began, or after the kill before, in milliseconds: from, to.
const MIDDLE_MS: (u64, u64) = (0, 600);
/// How long votes may take to begin to move.
const BEGIN_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether they do.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a killed node stays down, in milliseconds: from, to.
const DOWN_MS: (u64, u64) = (300, 1_500);
/// The node that is told to leave: it may end by itself.
const LEAVING: Option<u32> = Some(1);

/// Carries the run out.
#[derive(Debug)]
pub struct Membership<'a, 'b> {
    pub(crate) nemesis: &'a mut Nemesis<'b>,
    plan: MemberPlan,
    pub(crate) random: StdRng,
}

impl<'a, 'b> Membership<'a, 'b> {
    /// Draws everything from `seed`.
    pub fn new(nemesis: &'a mut Nemesis<'b>, plan: MemberPlan, seed: u64) -> Self {
        Self { nemesis, plan, random: StdRng::seed_from_u64(seed) }
    }

    /// What the plan says, in a run of so many seconds; what there is to be told of it, if it is measured.
    pub async fn run(self, seconds: u64) -> Result<Option<Change>> {
        match self.plan.course {
            Course::Whole | Course::Brief => self.go_round().await.map(|()| None),
            Course::Grow => self.grow(seconds).await.map(Some),
            Course::Replace => self.replace(seconds).await.map(Some),
        }
    }

    /// From three founders to three others.
    async fn go_round(mut self) -> Result<()> {
        sleep(Duration::from_millis(QUIET_MS)).await;
        self.nemesis.join(4, false).await?;
        self.disturb().await?;
        self.nemesis
            .settle("node 4 has its part", LEAVING, |voters| {
                let shards = voters.keys().filter(|group| **group != 0).count();
                let least = shards * REPLICAS / 4;
                voters.values().all(|all| all.len() == REPLICAS)
                    && voters.iter().filter(|(group, all)| **group != 0 && all.contains(&4)).count()
                        >= least
            })
            .await?;

        self.nemesis.change("leave", Fault::Leave, 1).await?;
        self.disturb().await?;
        self.nemesis
            .settle("nobody votes on node 1", LEAVING, |voters| only(voters, &[2, 3, 4]))
            .await?;
        let status = self.nemesis.cluster.wait_end(place(1), SETTLE_MAX).await?;
        // Killed at the very end, it heard of its removal only when it was started again.
        ensure!(
            status.success() || self.nemesis.says(1, REMOVED),
            "node 1 has left and ended with {status}"
        );
        self.nemesis.refused(1, REMOVED).await?;
        if self.plan.course == Course::Brief {
            return Ok(());
        }

        // One that was there from the start, or one that joined: they find the others in different ways.
        let emptied = if self.random.random() { 3 } else { 4 };
        self.refuse_emptied(emptied).await?;

        self.nemesis.cluster.kill(place(2))?;
        self.nemesis.tell(Fault::Kill, 2).await?;
        self.nemesis.cluster.wait_death(place(2)).await?;
        self.nemesis.join(5, true).await?;
        self.nemesis.change("remove", Fault::Remove, 2).await?;
        self.disturb().await?;
        self.nemesis
            .settle("only 3, 4 and 5 vote", LEAVING, |voters| only(voters, &[3, 4, 5]))
            .await?;
        self.nemesis.refused(2, REMOVED).await
    }

    /// Kills nodes one after the other while votes move.
    pub(crate) async fn disturb(&mut self) -> Result<()> {
        for _ in 0..self.plan.each {
            sleep(self.draw(MIDDLE_MS)).await;
            self.nemesis.look_but_at(LEAVING)?;
            let mut running = Vec::new();
            for at in 0..self.nemesis.cluster.nodes.len() {
                if self.nemesis.cluster.runs(at) && self.nemesis.cluster.exited(at)?.is_none() {
                    running.push(at);
                }
            }
            let at = running[self.random.random_range(0..running.len())];
            let moving = self.moving().await;
            println!("           {moving} groups are on their way");
            self.strike(at).await?;
        }
        Ok(())
    }

    /// SIGKILL, and the next start; also of a node that is leaving, which may end by itself at any time.
    async fn strike(&mut self, at: usize) -> Result<()> {
        let id = self.nemesis.cluster.nodes[at].id;
        let leaders = leaders(&self.nemesis.cluster.peers).await;
        let victims = Victims { places: vec![at], leaders };
        let for_ms = u64::try_from(self.draw(DOWN_MS).as_millis()).expect("a second or two");
        if !self.is_leaving(id).await {
            let step = Step {
                at_ms: 0,
                deed: Deed::Kill,
                target: Target::Node(id),
                for_ms,
                disk: Disk::Keeps,
            };
            return self.nemesis.kill(step, &victims).await;
        }
        // It will never be ready again: it comes up, hands over what is left, and ends.
        self.nemesis.cluster.kill(at)?;
        self.nemesis.note(at, Fault::Kill, &victims, Ok(()));
        self.nemesis.cluster.wait_death(at).await?;
        sleep(Duration::from_millis(for_ms)).await;
        self.nemesis.cluster.start_node(at)?;
        self.nemesis.note(at, Fault::Restart, &victims, Ok(()));
        Ok(())
    }

    async fn is_leaving(&self, id: u32) -> bool {
        for peer in self.nemesis.cluster.peers.iter().filter(|peer| peer.is_up()) {
            if let Ok(view) = admin::view(peer.admin).await {
                let state =
                    view.nodes.into_iter().find(|node| node.id == id).map(|node| node.state);
                return state.is_some_and(|state| state != "active");
            }
        }
        false
    }

    /// A node whose directory was emptied must not take part under its old id; with its directory it does.
    async fn refuse_emptied(&mut self, id: u32) -> Result<()> {
        let cluster = &mut *self.nemesis.cluster;
        cluster.kill(place(id))?;
        cluster.wait_death(place(id)).await?;
        cluster.empty(place(id))?;
        self.nemesis.tell(Fault::Kill, id).await?;
        self.nemesis.refused(id, OTHER_DIRECTORY).await?;
        let cluster = &mut *self.nemesis.cluster;
        cluster.put_back(place(id))?;
        cluster.start_node(place(id))?;
        self.nemesis.tell(Fault::Restart, id).await?;
        let ready = self.nemesis.cluster.wait_ready(place(id)).await?;
        self.nemesis.starts.push(ready);
        self.nemesis.tell(Fault::Ready, id).await?;
        Ok(())
    }

    /// Waits until votes move, or for as long as that may take to begin: kills are to come in the middle.
    pub(crate) async fn moves_begin(&self) {
        let deadline = Instant::now() + BEGIN_MAX;
        while self.plan.each > 0 && self.moving().await == 0 && Instant::now() < deadline {
            sleep(LOOK_EVERY).await;
        }
    }

    async fn moving(&self) -> usize {
        self.nemesis.voters().await.1
    }

    fn draw(&mut self, (from, to): (u64, u64)) -> Duration {
        Duration::from_millis(self.random.random_range(from..=to))
    }
}

/// Where a node stands in the cluster's list.
pub(crate) fn place(id: u32) -> usize {
    usize::try_from(id).expect("32 bits fit") - 1
}

/// Whether every group votes on these nodes.
fn only(voters: &Voters, nodes: &[u32]) -> bool {
    voters.values().all(|all| all.iter().eq(nodes.iter()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_vote_elsewhere_or_one_too_few_is_seen() {
        let of = |all: &[u32]| {
            Voters::from([(0, BTreeSet::from([2, 3, 4])), (1, all.iter().copied().collect())])
        };
        assert!(only(&of(&[4, 3, 2]), &[2, 3, 4]));
        assert!(!only(&of(&[1, 2, 3, 4]), &[2, 3, 4]));
        assert!(!only(&of(&[2, 3]), &[2, 3, 4]));
    }
}
