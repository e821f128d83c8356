//! Carries out what the meta group says about votes. Where they should be, and each group's next step, pure functions
//! decide (`moorline_machine::placement`); this asks them on the node that leads, and does what they say.
//!
//! # Invariants
//!
//! - **Nothing is remembered here**: targets are rows of the meta group, progress is the membership of the group itself.
//!   So whoever leads after a crash goes on.
//! - **A target is set only for a group that has begun**: a leader of it was heard of. So nobody begins it a second time.
//! - **At most [`MOVES_MAX`] targets are open at once**, one step per group at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use moorline_core::{NodeId, ShardId, shard::Shards};
use moorline_group::Groups;
use moorline_machine::{
    Command, MemberState, MetaState, NodeState,
    placement::{Next, Voters, next_step, places, plan},
};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::node::Node;

/// How often groups are looked at: each look costs a few maps, and a move takes some steps.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Groups that move at once: each may send a snapshot.
const MOVES_MAX: usize = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct Mover {
    pub(crate) node: Arc<Node>,
}

/// What a group's leader needs of the meta group.
#[derive(Debug)]
struct Wanted {
    voters: Vec<NodeId>,
    learners: BTreeSet<NodeId>,
    /// Whether somebody waits to hear that it is so.
    open: bool,
}

impl Mover {
    /// Runs until told to stop.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut stepping: JoinSet<ShardId> = JoinSet::new();
        let mut busy: BTreeSet<ShardId> = BTreeSet::new();
        loop {
            while let Some(done) = stepping.try_join_next() {
                busy.remove(&done?);
            }
            if self.node.leads(ShardId::META) {
                self.set_targets().await;
                self.see_off().await;
                self.node.note_programs().await;
            }
            self.node.raise_newborn().await;
            for shard in self.node.groups().shards() {
                if self.node.leads(shard)
                    && !busy.contains(&shard)
                    && let Some(step) = self.step_of(shard)
                {
                    busy.insert(shard);
                    stepping.spawn(async move {
                        step.await;
                        shard
                    });
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// As the meta leader: says where votes should be.
    async fn set_targets(&self) {
        let groups = self.node.groups();
        let planned = groups.read(ShardId::META, |machine, _| planned(machine.meta())).flatten();
        let Some((moves, open)) = planned else { return };
        let begun = |group: &ShardId| self.node.router().leader(*group).is_some();
        let own = self.node.config().node_id();
        // A node that was let in and was not started yet: a target that names it would only wait.
        let runs = |node: &NodeId| *node == own || self.node.is_up(*node);
        let comes_to_who_runs =
            |(_, from, to): &Move| to.iter().filter(|node| !from.contains(node)).all(runs);
        for (group, from, to) in moves
            .into_iter()
            .filter(|one| begun(&one.0) && comes_to_who_runs(one))
            .take(MOVES_MAX.saturating_sub(open))
        {
            info!(%group, ?from, ?to, "votes are to move");
            if let Err(problem) = self.node.ask_meta(&Command::Place { group, from, to }).await {
                debug!(%problem, "a target was not set");
            }
        }
    }

    /// As the meta leader: a leaving node without votes is removed.
    async fn see_off(&self) {
        let groups = self.node.groups();
        let ready = groups.read(ShardId::META, |machine, _| without_votes(machine.meta()));
        for node in ready.unwrap_or_default() {
            info!(%node, "a leaving node has no votes any more: it is removed");
            let command = Command::SetMember { node, state: MemberState::Removed };
            if let Err(problem) = self.node.ask_meta(&command).await {
                debug!(%problem, "a leaving node was not removed yet");
            }
        }
    }

    /// As a group's leader: the next step, if there is one to take.
    fn step_of(&self, shard: ShardId) -> Option<impl Future<Output = ()> + Send + use<>> {
        let groups: &Groups = self.node.groups();
        let members = groups.members(shard)?;
        let wanted = groups.read(ShardId::META, |machine, _| wanted(machine.meta(), shard))??;
        let next = next_step(&members, &wanted.voters, &wanted.learners);
        let address = match &next {
            Next::Learn(node) => self.node.member_addresses().remove(node)?,
            Next::Wait => return None,
            Next::Done if !wanted.open => return None,
            Next::Done | Next::Vote(_) | Next::HandOver(_) | Next::Forget(_) => String::new(),
        };
        let node = Arc::clone(&self.node);
        Some(async move {
            let problem = if next == Next::Done {
                let command = Command::Placed { group: shard, voters: wanted.voters };
                node.ask_meta(&command).await.err()
            } else {
                let taken = node.groups().take_step(shard, &next, address).await;
                taken.err().map(anyhow::Error::from)
            };
            if let Some(problem) = problem {
                info!(%shard, ?next, problem = format!("{problem:#}"), "a step came to nothing");
            }
        })
    }
}

type Move = (ShardId, Vec<NodeId>, Vec<NodeId>);

/// Targets that should change, and how many are not reached.
fn planned(meta: &MetaState) -> Option<(Vec<Move>, usize)> {
    let cluster = meta.cluster()?;
    // A cluster that is just being made: its nodes come one after the other, and each would get a part.
    let expected = |(node, known): (&NodeId, &NodeState)| {
        known.record.store == 0 && meta.member(*node) == Some(MemberState::Active)
    };
    if meta.nodes().iter().any(expected) {
        return None;
    }
    let all = || std::iter::once(ShardId::META).chain(Shards::new(cluster.shards).all());
    let now: Voters = all().map(|group| (group, meta.voters(group).to_vec())).collect();
    let open = all().filter(|group| meta.target(*group).is_some_and(|target| !target.reached));
    let open = open.count();
    let planned = plan(&now, &places(meta), cluster.replicas);
    let moves = planned
        .into_iter()
        .filter_map(|(group, to)| {
            let from = now[&group].clone();
            (from != to).then_some((group, from, to))
        })
        .collect();
    Some((moves, open))
}

/// Leaving nodes that no group needs: every target is reached, and none names them.
fn without_votes(meta: &MetaState) -> Vec<NodeId> {
    let Some(cluster) = meta.cluster() else { return Vec::new() };
    let all = || std::iter::once(ShardId::META).chain(Shards::new(cluster.shards).all());
    let settled = all().all(|group| meta.target(group).is_none_or(|target| target.reached));
    let needed = |node: &NodeId| all().any(|group| meta.voters(group).contains(node));
    let leaving = |node: &&NodeId| meta.member(**node) == Some(MemberState::Leaving);
    meta.nodes().keys().filter(leaving).filter(|node| settled && !needed(node)).copied().collect()
}

fn wanted(meta: &MetaState, shard: ShardId) -> Option<Wanted> {
    meta.cluster()?;
    let voters = meta.voters(shard).to_vec();
    let open = meta.target(shard).is_some_and(|target| !target.reached);
    let stays = |node: &&NodeId| {
        meta.member(**node).is_some_and(|state| state != MemberState::Removed)
            && !voters.contains(node)
    };
    let learners = if shard == ShardId::META {
        meta.nodes().keys().filter(stays).copied().collect()
    } else {
        BTreeSet::new()
    };
    Some(Wanted { voters, learners, open })
}

/// Where every node of the cluster is.
pub(super) fn addresses(meta: &MetaState) -> BTreeMap<NodeId, String> {
    meta.nodes()
        .iter()
        .filter(|(node, _)| meta.member(**node) != Some(MemberState::Removed))
        .map(|(node, known)| (*node, known.record.address.as_str().to_owned()))
        .filter(|(_, address)| !address.is_empty())
        .collect()
}
