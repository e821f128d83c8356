//! Carries out what the meta group says about votes. Where they should be, and each group's next step, pure functions
//! decide (`moorline_machine::placement`); this asks them on the node that leads, and does what they say.
//!
//! # Invariants
//!
//! - **Nothing is remembered here**: targets are rows of the meta group, progress is the membership of the group itself.
//!   So whoever leads after a crash goes on.
//! - **A target is set only for a group that has begun**: a leader of it was heard of. So nobody begins it a second time.
//! - **At most `MOVES_MAX` groups get other voters at once** (`moorline_machine::placement`), one step per group at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    sync::Arc,
    time::Duration,
};

use moorline_core::{NodeId, ShardId, shard::Shards};
use moorline_group::Groups;
use moorline_machine::{
    Command, MemberState, MetaState,
    placement::{Next, belonging, moves, next_step, without_votes},
};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::node::Node;

/// How often groups are looked at: each look costs a few maps, and a move takes some steps.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug)]
pub(crate) struct Mover {
    pub(crate) node: Arc<Node>,
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
        let config = self.node.config();
        // Asked before the meta replica is read: nothing is waited for in there.
        let all = iter::once(ShardId::META).chain(Shards::new(config.cluster.shards).all());
        let begun: BTreeSet<ShardId> =
            all.filter(|group| self.node.router().leader(*group).is_some()).collect();
        let known = self.node.member_addresses().into_keys();
        let up: BTreeSet<NodeId> =
            known.filter(|node| *node == config.node_id() || self.node.is_up(*node)).collect();
        let moves = groups.read(ShardId::META, |machine, _| {
            moves(machine.meta(), |group| begun.contains(&group), |node| up.contains(&node))
        });
        for (group, from, to) in moves.unwrap_or_default() {
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
        let wanted =
            groups.read(ShardId::META, |machine, _| belonging(machine.meta(), shard))??;
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

/// Where every node of the cluster is.
pub(super) fn addresses(meta: &MetaState) -> BTreeMap<NodeId, String> {
    meta.nodes()
        .iter()
        .filter(|(node, _)| meta.member(**node) != Some(MemberState::Removed))
        .map(|(node, known)| (*node, known.record.address.as_str().to_owned()))
        .filter(|(_, address)| !address.is_empty())
        .collect()
}
