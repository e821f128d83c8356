//! From what the meta group says to what this node does: which replicas it opens, whose directories it trusts.
//!
//! Runs at start and after every change of the meta group. Invariant: a replica is opened when the meta group places it
//! here, and a group is initialised by its first voter alone, so that no group ever has two beginnings.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, bail};
use moorline_core::{NodeId, ShardId, shard::Shards};
use moorline_group::{Groups, wire::Peers};
use moorline_machine::{MemberState, MetaState};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{known, node::Node};

/// What the meta group wants of this node.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    shards: u16,
    /// Shards with a replica here.
    replicas: BTreeSet<ShardId>,
    /// Shards that are wholly elsewhere.
    elsewhere: BTreeSet<ShardId>,
    /// Shards that this node has to begin, and with whom.
    begins: BTreeMap<ShardId, BTreeMap<NodeId, String>>,
    /// Who should lead, where somebody said so.
    preferred: BTreeMap<ShardId, NodeId>,
    /// Nodes that are no part of the cluster any more.
    removed: BTreeSet<NodeId>,
    /// How this node stands.
    own: Option<MemberState>,
    /// Data directories known by node.
    stores: BTreeMap<NodeId, u128>,
}

/// Follows the meta group until `stop`.
#[derive(Debug)]
pub(crate) struct Reconciler {
    pub(crate) node: Arc<Node>,
    pub(crate) peers: Peers,
    pub(crate) known_stores: PathBuf,
    pub(crate) known_addresses: PathBuf,
    /// Cancelled when this node was removed: it stops.
    pub(crate) left: CancellationToken,
}

impl Reconciler {
    /// Runs until told to stop; an error means that the node must stop.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let groups = self.node.groups();
        let mut applied = groups.applied(ShardId::META).context("the meta replica is not open")?;
        let mut trusted = BTreeMap::new();
        let mut known = BTreeMap::new();
        let mut taken_part = false;
        loop {
            applied.mark_unchanged();
            if let Some(wanted) = self.wanted()? {
                if wanted.stores != trusted {
                    known::write(&self.known_stores, &wanted.stores)?;
                    self.peers.expect_stores(wanted.stores.clone());
                    trusted.clone_from(&wanted.stores);
                }
                let addresses = self.node.member_addresses();
                if addresses != known {
                    known::write_addresses(&self.known_addresses, &addresses)?;
                    self.peers.update_peers(addresses.clone());
                    known = addresses;
                }
                self.peers.deny(wanted.removed.clone());
                self.open(&wanted).await?;
                self.close(&wanted).await;
                for (shard, leader) in &wanted.preferred {
                    groups.prefer(*shard, *leader);
                }
                self.node.set_opened();
                if wanted.own == Some(MemberState::Removed) && !taken_part {
                    bail!(
                        "this node was removed from the cluster; to take part again it needs a new id and an empty \
                         data directory"
                    );
                }
                taken_part = true;
                self.stand(wanted.own);
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = applied.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn wanted(&self) -> anyhow::Result<Option<Wanted>> {
        let own = self.node.config().node_id();
        let wanted = self.node.groups().read(ShardId::META, |machine, _| {
            let meta = machine.meta();
            let cluster = meta.cluster()?;
            let mut wanted =
                Wanted { shards: cluster.shards, own: meta.member(own), ..Wanted::default() };
            for shard in Shards::new(cluster.shards).all() {
                wanted.place(meta, shard, own);
            }
            wanted.prefer(meta, ShardId::META);
            wanted.know_nodes(meta);
            Some(wanted)
        });
        let Some(Some(wanted)) = wanted else {
            return Ok(None);
        };
        let configured = self.node.config().cluster.shards;
        if wanted.shards != configured {
            bail!(
                "cluster.shards is {configured} here, and the cluster was made with {}: correct this node's file",
                wanted.shards
            );
        }
        Ok(Some(wanted))
    }

    async fn open(&self, wanted: &Wanted) -> anyhow::Result<()> {
        let groups = self.node.groups();
        let open = groups.shards();
        let mut opening = tokio::task::JoinSet::new();
        for shard in wanted.replicas.iter().filter(|shard| !open.contains(shard)) {
            let (groups, shard) = (groups.clone(), *shard);
            opening.spawn(async move { groups.open(shard).await });
        }
        let any = !opening.is_empty();
        while let Some(opened) = opening.join_next().await {
            opened.context("opening a replica panicked")??;
        }
        if any {
            self.initialize_own(groups, wanted).await?;
            info!(replicas = wanted.replicas.len(), "all replicas of this node are open");
        }
        Ok(())
    }

    /// Closes replicas of groups that have all their votes elsewhere, and are where they should be.
    async fn close(&self, wanted: &Wanted) {
        let groups = self.node.groups();
        for shard in groups.shards() {
            if wanted.elsewhere.contains(&shard) {
                groups.close(shard).await;
            }
        }
    }

    /// What this node does about how it stands.
    fn stand(&self, own: Option<MemberState>) {
        match own {
            None | Some(MemberState::Active) => self.node.set_draining(false),
            Some(MemberState::Draining | MemberState::Leaving) => self.node.set_draining(true),
            Some(MemberState::Removed) => {
                info!("this node has left the cluster");
                self.left.cancel();
            }
        }
    }

    async fn initialize_own(&self, groups: &Groups, wanted: &Wanted) -> anyhow::Result<()> {
        for group in groups.status() {
            let Some(voters) = wanted.begins.get(&group.shard) else {
                continue;
            };
            // A replica that has a log has begun, whatever it has applied of it by now.
            let fresh = group.voters.is_empty() && group.last_log.is_none();
            if fresh {
                groups.initialize(group.shard, voters.clone()).await?;
            }
        }
        Ok(())
    }
}

impl Wanted {
    /// What a shard means for this node.
    fn place(&mut self, meta: &MetaState, shard: ShardId, own: NodeId) {
        let target = meta.target(shard);
        if meta.voters(shard).contains(&own) {
            self.replicas.insert(shard);
        } else if target.is_some_and(|target| target.reached) {
            self.elsewhere.insert(shard);
        }
        match target {
            Some(_) => self.prefer(meta, shard),
            // A target is set only for a group that has begun: beginning it again would make two of it.
            None if meta.founders(shard).first() == Some(&own) => {
                let founders = meta.founders(shard).iter();
                let address = |node: &NodeId| {
                    let known = meta.nodes().get(node);
                    known.map_or_else(String::new, |known| known.record.address.to_string())
                };
                self.begins.insert(shard, founders.map(|node| (*node, address(node))).collect());
            }
            None => {}
        }
    }

    /// Who should lead a group, if somebody said so.
    fn prefer(&mut self, meta: &MetaState, group: ShardId) {
        if let Some(first) = meta.target(group).and_then(|target| target.voters.first()) {
            self.preferred.insert(group, *first);
        }
    }

    fn know_nodes(&mut self, meta: &MetaState) {
        for (node, state) in meta.nodes() {
            if state.record.store != 0 {
                self.stores.insert(*node, state.record.store);
            }
            if meta.member(*node) == Some(MemberState::Removed) {
                self.removed.insert(*node);
            }
        }
    }
}
