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

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use moorline_oracle::history::Fault;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

use crate::admin;
use crate::cluster::{READY_MAX, tail};
use crate::nemesis::{Nemesis, Victims, leaders};
use crate::options::MemberPlan;
use crate::schedule::{Deed, Disk, QUIET_MS, Step, Target};

/// How long a change may take until every vote is where it should be, kills included.
const SETTLE_MAX: Duration = Duration::from_secs(120);
/// How often the groups are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A kill comes this long after the change began, or after the kill before, in milliseconds: from, to.
const MIDDLE_MS: (u64, u64) = (0, 600);
/// How long a killed node stays down, in milliseconds: from, to.
const DOWN_MS: (u64, u64) = (300, 1_500);
/// Voters of each group.
const REPLICAS: usize = 3;
/// How much of the log of a node that must not run is looked through for the reason, in lines.
const TAIL_LINES: usize = 50;
/// What a node says whose id was removed.
const REMOVED: &str = "removed from the cluster";
/// What a node says whose id the cluster knows with another directory.
const OTHER_DIRECTORY: &str = "data directory";

/// Carries the run out.
#[derive(Debug)]
pub struct Membership<'a, 'b> {
    nemesis: &'a mut Nemesis<'b>,
    plan: MemberPlan,
    random: StdRng,
}

/// Who votes in each group, as its leader says.
type Voters = BTreeMap<u32, BTreeSet<u32>>;

impl<'a, 'b> Membership<'a, 'b> {
    /// Draws everything from `seed`.
    pub fn new(nemesis: &'a mut Nemesis<'b>, plan: MemberPlan, seed: u64) -> Self {
        Self { nemesis, plan, random: StdRng::seed_from_u64(seed) }
    }

    /// From three founders to three others.
    pub async fn run(mut self) -> Result<()> {
        sleep(Duration::from_millis(QUIET_MS)).await;
        self.join(4, false).await?;
        self.disturb().await?;
        self.settle("node 4 has its part", |voters| {
            let shards = voters.keys().filter(|group| **group != 0).count();
            let least = shards * REPLICAS / 4;
            voters.values().all(|all| all.len() == REPLICAS)
                && voters.iter().filter(|(group, all)| **group != 0 && all.contains(&4)).count()
                    >= least
        })
        .await?;

        self.change("leave", Fault::Leave, 1).await?;
        self.disturb().await?;
        self.settle("nobody votes on node 1", |voters| only(voters, &[2, 3, 4])).await?;
        let status = self.nemesis.cluster.wait_end(place(1), SETTLE_MAX).await?;
        // Killed at the very end, it heard of its removal only when it was started again.
        ensure!(
            status.success() || self.says(1, REMOVED),
            "node 1 has left and ended with {status}"
        );
        self.refused(1, REMOVED).await?;
        if self.plan.brief {
            return Ok(());
        }

        // One that was there from the start, or one that joined: they find the others in different ways.
        let emptied = if self.random.random() { 3 } else { 4 };
        self.refuse_emptied(emptied).await?;

        self.nemesis.cluster.kill(place(2))?;
        self.note(Fault::Kill, 2).await;
        self.nemesis.cluster.wait_death(place(2)).await?;
        self.join(5, true).await?;
        self.change("remove", Fault::Remove, 2).await?;
        self.disturb().await?;
        self.settle("only 3, 4 and 5 vote", |voters| only(voters, &[3, 4, 5])).await?;
        self.refused(2, REMOVED).await
    }

    /// Lets a spare node in and waits until it serves clients.
    async fn join(&mut self, id: u32, by_command: bool) -> Result<()> {
        let mut given = Err(anyhow::anyhow!("no node runs"));
        let deadline = Instant::now() + READY_MAX;
        while given.is_err() && Instant::now() < deadline {
            for node in self.running() {
                given = admin::token(node).await;
                if given.is_ok() {
                    break;
                }
            }
            sleep(LOOK_EVERY).await;
        }
        let token = given.context("no node gave a token")?;
        let cluster = &mut *self.nemesis.cluster;
        cluster.join(place(id), &token, by_command).await?;
        cluster.start_node(place(id))?;
        let ready = cluster.wait_ready(place(id)).await?;
        self.nemesis.starts.push(ready);
        self.note(Fault::Join, id).await;
        Ok(())
    }

    /// Asks for a change until somebody takes it.
    async fn change(&self, verb: &str, fault: Fault, id: u32) -> Result<()> {
        let deadline = Instant::now() + SETTLE_MAX;
        loop {
            let mut problem = anyhow::anyhow!("no node runs");
            for node in self.running() {
                match admin::change(node, verb, id).await {
                    Ok(()) => {
                        self.note(fault, id).await;
                        return Ok(());
                    }
                    Err(error) => problem = error,
                }
            }
            if Instant::now() > deadline {
                return Err(problem.context(format!("nobody lets node {id} {verb}")));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Kills nodes one after the other while votes move.
    async fn disturb(&mut self) -> Result<()> {
        for _ in 0..self.plan.each {
            sleep(self.draw(MIDDLE_MS)).await;
            self.nemesis_looks()?;
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
        for node in self.running() {
            if let Ok(view) = admin::view(node).await {
                let state =
                    view.nodes.into_iter().find(|node| node.id == id).map(|node| node.state);
                return state.is_some_and(|state| state != "active");
            }
        }
        false
    }

    /// Starts a node that must not run, and waits until it has said why and ended.
    async fn refused(&mut self, id: u32, why: &str) -> Result<()> {
        let cluster = &mut *self.nemesis.cluster;
        cluster.start_node(place(id))?;
        // Clients are not to be sent there.
        cluster.peers[place(id)].up.store(false, std::sync::atomic::Ordering::Relaxed);
        let status = cluster.wait_end(place(id), READY_MAX).await?;
        ensure!(
            !status.success() && self.says(id, why),
            "node {id} ended with {status}, not saying {why:?}"
        );
        self.note(Fault::Refuse, id).await;
        Ok(())
    }

    /// A node whose directory was emptied must not take part under its old id; with its directory it does.
    async fn refuse_emptied(&mut self, id: u32) -> Result<()> {
        let cluster = &mut *self.nemesis.cluster;
        cluster.kill(place(id))?;
        cluster.wait_death(place(id)).await?;
        cluster.empty(place(id))?;
        self.note(Fault::Kill, id).await;
        self.refused(id, OTHER_DIRECTORY).await?;
        let cluster = &mut *self.nemesis.cluster;
        cluster.put_back(place(id))?;
        cluster.start_node(place(id))?;
        self.note(Fault::Restart, id).await;
        let ready = self.nemesis.cluster.wait_ready(place(id)).await?;
        self.nemesis.starts.push(ready);
        self.note(Fault::Ready, id).await;
        Ok(())
    }

    /// Waits until the groups' leaders say that it is so.
    async fn settle(&mut self, what: &str, is: impl Fn(&Voters) -> bool) -> Result<()> {
        let began = Instant::now();
        loop {
            let (voters, moving) = self.voters().await;
            if moving == 0 && !voters.is_empty() && is(&voters) {
                println!("           {what}, after {:.1} s", began.elapsed().as_secs_f64());
                return Ok(());
            }
            if began.elapsed() > SETTLE_MAX {
                bail!(
                    "not so in {SETTLE_MAX:?}: {what}; {moving} groups move, votes are {voters:?}"
                );
            }
            self.nemesis_looks()?;
            sleep(LOOK_EVERY).await;
        }
    }

    /// A node that ended by itself ends the run, but for the one that was told to leave.
    fn nemesis_looks(&mut self) -> Result<()> {
        for at in 0..self.nemesis.cluster.nodes.len() {
            if let Some(status) = self.nemesis.cluster.exited(at)? {
                let id = self.nemesis.cluster.nodes[at].id;
                let left = id == 1 && (status.success() || self.says(id, REMOVED));
                ensure!(left, "node {id} ended by itself: {status}");
            }
        }
        Ok(())
    }

    fn says(&self, id: u32, what: &str) -> bool {
        tail(self.nemesis.cluster.nodes[place(id)].log(), TAIL_LINES).contains(what)
    }

    async fn moving(&self) -> usize {
        self.voters().await.1
    }

    /// Voters by group, and how many groups have a learner that is to vote, or none that leads.
    async fn voters(&self) -> (Voters, usize) {
        let mut voters = Voters::new();
        let mut groups = BTreeSet::new();
        let mut moving = BTreeSet::new();
        for peer in self.nemesis.cluster.peers.iter().filter(|peer| peer.is_up()) {
            let view = admin::view(peer.admin).await.unwrap_or_default();
            for group in view.groups {
                groups.insert(group.shard);
                if group.leader == Some(peer.id) {
                    // Who does not vote in the meta group has it nevertheless.
                    if group.shard != 0 && !group.learners.is_empty() {
                        moving.insert(group.shard);
                    }
                    voters.insert(group.shard, group.voters.into_iter().collect());
                }
            }
        }
        moving.extend(groups.into_iter().filter(|group| !voters.contains_key(group)));
        (voters, moving.len())
    }

    /// Admin addresses of the nodes that run, the last first: the first is on its way out.
    fn running(&self) -> Vec<SocketAddr> {
        let peers = self.nemesis.cluster.peers.iter().rev();
        peers.filter(|peer| peer.is_up()).map(|peer| peer.admin).collect()
    }

    fn draw(&mut self, (from, to): (u64, u64)) -> Duration {
        Duration::from_millis(self.random.random_range(from..=to))
    }

    async fn note(&self, fault: Fault, id: u32) {
        let leaders = leaders(&self.nemesis.cluster.peers).await;
        let victims = Victims { places: vec![place(id)], leaders };
        self.nemesis.note(place(id), fault, &victims, Ok(()));
    }
}

/// Where a node stands in the cluster's list.
fn place(id: u32) -> usize {
    usize::try_from(id).expect("32 bits fit") - 1
}

/// Whether every group votes on these nodes.
fn only(voters: &Voters, nodes: &[u32]) -> bool {
    voters.values().all(|all| all.iter().eq(nodes.iter()))
}

#[cfg(test)]
mod tests {
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
