//! From what the meta group says to what this node does: which replicas it opens, whose directories it trusts.
//!
//! Runs at start and after every change of the meta group. Invariant: a replica is opened when the meta group places it
//! here, and a group is initialised by its first voter alone, so that no group ever has two beginnings.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::{Context, bail};
use moorline_core::{NodeId, ShardId, shard::Shards};
use moorline_group::{Groups, wire::Peers};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{known, node::Node};

/// What the meta group wants of this node.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    shards: u16,
    /// Shards with a replica here, and who votes in each.
    replicas: BTreeMap<ShardId, BTreeMap<NodeId, String>>,
    /// Data directories known by node.
    stores: BTreeMap<NodeId, u128>,
}

/// Follows the meta group until `stop`.
#[derive(Debug)]
pub(crate) struct Reconciler {
    pub(crate) node: Arc<Node>,
    pub(crate) peers: Peers,
    pub(crate) known_stores: PathBuf,
}

impl Reconciler {
    /// Runs until told to stop; an error means that the node must stop.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let groups = self.node.groups();
        let mut applied = groups.applied(ShardId::META).context("the meta replica is not open")?;
        let mut trusted = BTreeMap::new();
        loop {
            applied.mark_unchanged();
            if let Some(wanted) = self.wanted()? {
                if wanted.stores != trusted {
                    known::write(&self.known_stores, &wanted.stores)?;
                    self.peers.expect_stores(wanted.stores.clone());
                    trusted.clone_from(&wanted.stores);
                }
                self.open(&wanted).await?;
                self.node.set_opened();
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
            let address = |node: &NodeId| {
                meta.nodes()
                    .get(node)
                    .map_or_else(String::new, |n| n.record.address.as_str().to_owned())
            };
            let mut wanted = Wanted { shards: cluster.shards, ..Wanted::default() };
            for shard in Shards::new(cluster.shards).all() {
                let voters = meta.voters(shard);
                if voters.contains(&own) {
                    let voters = voters.iter().map(|node| (*node, address(node))).collect();
                    wanted.replicas.insert(shard, voters);
                }
            }
            for (node, state) in meta.nodes() {
                if state.record.store != 0 {
                    wanted.stores.insert(*node, state.record.store);
                }
            }
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
        for shard in wanted.replicas.keys().filter(|shard| !open.contains(shard)) {
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

    async fn initialize_own(&self, groups: &Groups, wanted: &Wanted) -> anyhow::Result<()> {
        let own = self.node.config().node_id();
        for group in groups.status() {
            let Some(voters) = wanted.replicas.get(&group.shard) else {
                continue;
            };
            let first = groups
                .read(ShardId::META, |machine, _| {
                    machine.meta().voters(group.shard).first().copied()
                })
                .flatten();
            // A replica that has a log has begun, whatever it has applied of it by now.
            let fresh = group.voters.is_empty() && group.last_log.is_none();
            if fresh && first == Some(own) {
                groups.initialize(group.shard, voters.clone()).await?;
            }
        }
        Ok(())
    }
}
