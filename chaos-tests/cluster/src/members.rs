//! What changes who is a member: a node joins, is told to leave, is given up, is refused; and the wait until every vote is where it
//! should be. Used by member runs and by blows of a run of everything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use moorline_oracle::history::Fault;
use tokio::time::{Instant, sleep};

use crate::admin;
use crate::cluster::{READY_MAX, tail};
use crate::nemesis::{Nemesis, Victims, leaders};

/// How long a change may take until every vote is where it should be, kills included.
pub(crate) const SETTLE_MAX: Duration = Duration::from_secs(120);
/// How often the groups are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Voters of each group.
pub(crate) const REPLICAS: usize = 3;
/// How much of the log of a node that must not run is looked through for the reason, in lines.
const TAIL_LINES: usize = 50;
/// What a node says whose id was removed.
pub(crate) const REMOVED: &str = "removed from the cluster";
/// What a node says whose id the cluster knows with another directory.
pub(crate) const OTHER_DIRECTORY: &str = "data directory";

/// Who votes in each group, as its leader says.
pub(crate) type Voters = BTreeMap<u32, BTreeSet<u32>>;

impl Nemesis<'_> {
    /// Lets a spare node in and waits until it serves clients.
    pub(crate) async fn join(&mut self, id: u32, by_command: bool) -> Result<()> {
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
        let at = self.place_of(id)?;
        self.cluster.join(at, &token, by_command).await?;
        self.cluster.start_node(at)?;
        let ready = self.cluster.wait_ready(at).await?;
        self.starts.push(ready);
        self.cluster.peers[at].member.store(true, Ordering::Relaxed);
        self.tell(Fault::Join, id).await
    }

    /// Asks for a change until somebody takes it: `leave` or `remove`.
    pub(crate) async fn change(&self, verb: &str, fault: Fault, id: u32) -> Result<()> {
        let deadline = Instant::now() + SETTLE_MAX;
        loop {
            let mut problem = anyhow::anyhow!("no node runs");
            for node in self.running() {
                match admin::change(node, verb, id).await {
                    Ok(()) => {
                        let at = self.place_of(id)?;
                        self.cluster.peers[at].member.store(false, Ordering::Relaxed);
                        return self.tell(fault, id).await;
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

    /// Starts a node that must not run, and waits until it has said why and ended.
    pub(crate) async fn refused(&mut self, id: u32, why: &str) -> Result<()> {
        self.refused_saying(id, &[why]).await
    }

    /// The same where one of several reasons is the right one.
    pub(crate) async fn refused_saying(&mut self, id: u32, why: &[&str]) -> Result<()> {
        let at = self.place_of(id)?;
        self.cluster.start_node(at)?;
        // Clients are not to be sent there.
        self.cluster.peers[at].up.store(false, Ordering::Relaxed);
        let status = self.cluster.wait_end(at, READY_MAX).await?;
        ensure!(
            !status.success() && why.iter().any(|why| self.says(id, why)),
            "node {id} ended with {status}, not saying {why:?}"
        );
        self.tell(Fault::Refuse, id).await
    }

    /// Waits until the groups' leaders say that it is so. No node may end meanwhile but `leaving`.
    pub(crate) async fn settle(
        &mut self,
        what: &str,
        leaving: Option<u32>,
        mut is: impl FnMut(&Voters) -> bool,
    ) -> Result<()> {
        let began = Instant::now();
        loop {
            let (voters, moving) = self.voters().await;
            // Asked each time: who counts moves looks on.
            let so = is(&voters);
            if so && moving == 0 && !voters.is_empty() {
                println!("           {what}, after {:.1} s", began.elapsed().as_secs_f64());
                return Ok(());
            }
            if began.elapsed() > SETTLE_MAX {
                bail!(
                    "not so in {SETTLE_MAX:?}: {what}; {moving} groups move, votes are {voters:?}"
                );
            }
            self.look_but_at(leaving)?;
            sleep(LOOK_EVERY).await;
        }
    }

    /// A node that ended by itself ends the run, but for the one that was told to leave.
    pub(crate) fn look_but_at(&mut self, leaving: Option<u32>) -> Result<()> {
        for at in 0..self.cluster.nodes.len() {
            if let Some(status) = self.cluster.exited(at)? {
                let id = self.cluster.nodes[at].id;
                let left = leaving == Some(id) && (status.success() || self.says(id, REMOVED));
                ensure!(left, "node {id} ended by itself: {status}");
            }
        }
        Ok(())
    }

    /// Whether the last lines of a node's log hold this.
    pub(crate) fn says(&self, id: u32, what: &str) -> bool {
        let at = self.cluster.place(id);
        at.is_some_and(|at| tail(self.cluster.nodes[at].log(), TAIL_LINES).contains(what))
    }

    /// Voters by group, and how many groups have a learner that is to vote, or none that leads.
    pub(crate) async fn voters(&self) -> (Voters, usize) {
        let mut voters = Voters::new();
        let mut groups = BTreeSet::new();
        let mut moving = BTreeSet::new();
        for peer in self.cluster.peers.iter().filter(|peer| peer.is_up()) {
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
        let peers = self.cluster.peers.iter().rev();
        peers.filter(|peer| peer.is_up()).map(|peer| peer.admin).collect()
    }

    pub(crate) fn place_of(&self, id: u32) -> Result<usize> {
        self.cluster.place(id).with_context(|| format!("there is no node {id}"))
    }

    /// Notes what was done to a node.
    pub(crate) async fn tell(&self, fault: Fault, id: u32) -> Result<()> {
        let leaders = leaders(&self.cluster.peers).await;
        let place = self.place_of(id)?;
        let victims = Victims { places: vec![place], leaders };
        self.note(place, fault, &victims, Ok(()));
        Ok(())
    }
}
