//! What `node/moorline` does with the meta group's rows: opens, closes and deletes replicas, and carries out where votes should
//! be. Where that is, the run wishes: whoever leads the meta group sets it as a target there.
//!
//! # Invariants
//!
//! - **A group is begun by its first founder alone**, and never after it had a target.
//! - **What a replica leaves behind is deleted only after a majority of the meta group confirmed** that the group is elsewhere, as
//!   in `node/moorline/src/server/reconcile.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use moorline_core::{NodeId, ShardId, shard::Shards};
use moorline_group::{GroupError, Groups, wire::Peers};
use moorline_machine::{
    Command, MetaState,
    placement::{Next, next_step},
};
use moorline_router::Router;
use moorline_service::Service;
use tokio::time::{Instant, interval, timeout};

use crate::{node::Cluster, witness::Event};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long what a replica left stays after its group has gone elsewhere.
const KEPT_FOR: Duration = Duration::from_secs(2);
/// How long a command to the meta group may take.
const COMMAND_WAIT: Duration = Duration::from_secs(3);

/// The parts of one process that this moves.
pub(crate) struct Placement {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) node: u64,
    pub(crate) groups: Groups,
    pub(crate) peers: Peers,
    pub(crate) router: Router,
    pub(crate) service: Arc<Service>,
}

/// What the meta group wants of this node.
#[derive(Debug, Default)]
struct Wanted {
    replicas: BTreeSet<ShardId>,
    /// Those that are to be elsewhere, and are not yet.
    moving: BTreeSet<ShardId>,
    elsewhere: BTreeSet<ShardId>,
    begins: BTreeMap<ShardId, BTreeMap<NodeId, String>>,
    stores: BTreeMap<NodeId, u128>,
    addresses: BTreeMap<NodeId, String>,
}

impl Wanted {
    fn of(meta: &MetaState, own: NodeId) -> Option<Self> {
        let shards = Shards::new(meta.cluster()?.shards);
        let mut wanted = Self::default();
        let address = |node: &NodeId| {
            let known = meta.nodes().get(node);
            (*node, known.map_or_else(String::new, |known| known.record.address.to_string()))
        };
        for shard in shards.all() {
            let target = meta.target(shard);
            if meta.voters(shard).contains(&own) {
                wanted.replicas.insert(shard);
            } else if target.is_some_and(|target| target.reached) {
                wanted.elsewhere.insert(shard);
            } else if target.is_some() {
                wanted.moving.insert(shard);
            }
            if target.is_none() && meta.founders(shard).first() == Some(&own) {
                let founders = meta.founders(shard).iter().map(address).collect();
                wanted.begins.insert(shard, founders);
            }
        }
        let known = meta.nodes().iter().filter(|(_, known)| known.record.store != 0);
        wanted.stores = known.map(|(node, known)| (*node, known.record.store)).collect();
        wanted.addresses = meta.nodes().keys().map(address).collect();
        Some(wanted)
    }
}

impl Placement {
    fn wanted(&self) -> Option<Wanted> {
        let own = NodeId(self.node);
        self.groups.read(ShardId::META, |machine, _| Wanted::of(machine.meta(), own)).flatten()
    }

    /// Opens, closes and deletes for ever.
    ///
    /// # Errors
    ///
    /// If a replica cannot be opened or deleted: the node must stop.
    pub(crate) async fn follow(&self) -> Result<(), GroupError> {
        let mut look = interval(LOOK_EVERY);
        let mut left: BTreeMap<ShardId, Option<Instant>> = BTreeMap::new();
        loop {
            look.tick().await;
            let Some(mut wanted) = self.wanted() else { continue };
            for shard in std::mem::take(&mut wanted.moving) {
                // Its vote may be needed until it has moved.
                if self.groups.holds(shard)? {
                    wanted.replicas.insert(shard);
                }
            }
            self.peers.expect_stores(wanted.stores.clone());
            self.peers.update_peers(wanted.addresses.clone());
            let open = self.groups.shards();
            for shard in wanted.replicas.iter().filter(|shard| !open.contains(shard)) {
                self.groups.open(*shard).await?;
            }
            self.begin(&wanted).await?;
            for shard in open.iter().filter(|shard| wanted.elsewhere.contains(shard)) {
                self.groups.close(*shard).await;
            }
            left.retain(|shard, _| wanted.elsewhere.contains(shard));
            for shard in wanted.elsewhere {
                let since = left.entry(shard).or_insert_with(|| Some(Instant::now()));
                if since.is_some_and(|since| since.elapsed() >= KEPT_FOR)
                    && self.delete(shard).await?
                {
                    *since = None;
                }
            }
        }
    }

    async fn begin(&self, wanted: &Wanted) -> Result<(), GroupError> {
        for group in self.groups.status() {
            let Some(voters) = wanted.begins.get(&group.shard) else { continue };
            if group.voters.is_empty() && group.last_log.is_none() {
                self.groups.initialize(group.shard, voters.clone()).await?;
            }
        }
        Ok(())
    }

    /// Deletes what a group left here, if it is certain that it is elsewhere now.
    async fn delete(&self, shard: ShardId) -> Result<bool, GroupError> {
        if !self.service.is_meta_current().await {
            return Ok(false);
        }
        if self.wanted().is_none_or(|wanted| !wanted.elsewhere.contains(&shard)) {
            return Ok(false);
        }
        if self.groups.delete(shard).await? {
            self.cluster.witness.tell(Event::Deleted { node: self.node, shard });
        }
        Ok(true)
    }

    /// Moves votes to where they should be, for ever.
    pub(crate) async fn steer(&self) {
        let mut look = interval(LOOK_EVERY);
        loop {
            look.tick().await;
            if self.leads(ShardId::META) {
                self.set_targets().await;
            }
            for shard in self.groups.shards() {
                if self.leads(shard) {
                    self.step(shard).await;
                }
            }
        }
    }

    fn leads(&self, shard: ShardId) -> bool {
        self.groups.role(shard).is_some_and(|role| role.borrow().leading)
    }

    /// Whatever comes of it, the next look decides from what is there.
    async fn command(&self, command: &Command) {
        drop(timeout(COMMAND_WAIT, self.router.ask(ShardId::META, command)).await);
    }

    async fn set_targets(&self) {
        for (group, to) in self.cluster.wishes() {
            let from = self.groups.read(ShardId::META, |machine, _| {
                let meta = machine.meta();
                // A cluster that is being made: everybody registers first.
                let ready = meta.nodes().values().all(|known| known.record.store != 0);
                ready.then(|| meta.voters(group).to_vec())
            });
            let Some(from) = from.flatten().filter(|from| *from != to && !from.is_empty()) else {
                continue;
            };
            // A target is set only for a group that has begun.
            if self.router.leader(group).is_some() {
                self.command(&Command::Place { group, from, to }).await;
            }
        }
    }

    /// One step of a group that this node leads.
    async fn step(&self, shard: ShardId) {
        let Some(members) = self.groups.members(shard) else { return };
        let wanted = self.groups.read(ShardId::META, |machine, _| {
            let meta = machine.meta();
            let voters = meta.voters(shard).to_vec();
            let open = meta.target(shard).is_some_and(|target| !target.reached);
            let stays = |node: &&NodeId| shard == ShardId::META && !voters.contains(node);
            let learners: BTreeSet<NodeId> = meta.nodes().keys().filter(stays).copied().collect();
            let addresses: BTreeMap<NodeId, String> = meta
                .nodes()
                .iter()
                .map(|(node, known)| (*node, known.record.address.to_string()))
                .collect();
            meta.cluster().map(|_| (voters, learners, open, addresses))
        });
        let Some((voters, learners, open, addresses)) = wanted.flatten() else { return };
        let next = next_step(&members, &voters, &learners);
        let address = match &next {
            Next::Wait => return,
            Next::Done if !open => return,
            Next::Done => {
                self.command(&Command::Placed { group: shard, voters }).await;
                return;
            }
            Next::Learn(node) => addresses.get(node).cloned().unwrap_or_default(),
            Next::Vote(_) | Next::HandOver(_) | Next::Forget(_) => String::new(),
        };
        let taken = self.groups.take_step(shard, &next, address).await.is_ok();
        let leader = members.leader.0;
        self.cluster.witness.tell(Event::Step { leader, shard, next, taken });
    }
}
