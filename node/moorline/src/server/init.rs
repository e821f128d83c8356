//! `moorline cluster init`: the nodes of `cluster.peers` become a cluster, once.
//!
//! # Invariants
//!
//! - **No second cluster**: the meta group is begun only when every one of `cluster.peers` has said that it has nothing of its log. A majority
//!   is not enough: one node alone may be a cluster, which a backup was restored into. Checked by `tests/it/backup.rs`.
//! - **Whoever is asked again finds it done**, on any node. Checked by `tests/it/operating.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, bail};
use moorline_core::{Incarnation, NodeId, ShardId, Text};
use moorline_machine::{Answer, Command, command::NodeRecord};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::node::Node;

/// How long the other nodes may take to say that they know of no cluster: less than who asks for it waits for an answer.
const PEERS_WAIT: Duration = Duration::from_secs(8);
/// How long it may take until the meta group has a leader and has recorded the cluster.
const INIT_WAIT: Duration = Duration::from_secs(20);
/// How often that is looked at.
const INIT_PAUSE: Duration = Duration::from_millis(50);

impl Node {
    /// Makes the configured peers a cluster; does nothing if they are one.
    pub(crate) async fn init(&self) -> anyhow::Result<()> {
        if self.made() {
            return Ok(());
        }
        let groups = self.groups().status();
        let fresh =
            groups.iter().any(|group| group.shard == ShardId::META && group.last_log.is_none());
        if fresh && !self.begin_meta().await? {
            // It is there, and on its way to this node.
            return self.wait_until_made(PEERS_WAIT).await;
        }
        let cluster = &self.config().cluster;
        let record = |(node, address): (NodeId, String)| NodeRecord {
            node,
            store: 0,
            incarnation: Incarnation(0),
            address: Text::from(address.as_str()),
        };
        let command = Command::CreateCluster {
            cluster: rand::random(),
            shards: cluster.shards,
            nodes: self.configured().into_iter().map(record).collect(),
            replicas: cluster.replicas,
        };
        let asked = timeout(INIT_WAIT, self.router().ask(ShardId::META, &command));
        let answer =
            asked.await.context("the meta group has no leader; are the other nodes running?")??;
        // A refusal means that somebody else was faster, or that it was made long ago, which is as good.
        let by_this = matches!(answer, Answer::At(_) | Answer::Done);
        self.set_newborn(by_this);
        if !by_this && !self.made() {
            bail!("the meta group answered {answer:?}");
        }
        self.wait_until_made(INIT_WAIT).await?;
        self.wait_for_level().await;
        Ok(())
    }

    fn configured(&self) -> BTreeMap<NodeId, String> {
        let peers = self.config().cluster.peers.iter();
        peers.map(|peer| (NodeId(peer.id), peer.address.clone())).collect()
    }

    /// Begins the meta group, if no node has anything of it. Whether it did.
    async fn begin_meta(&self) -> anyhow::Result<bool> {
        let own = self.config().node_id();
        let mut open: BTreeSet<NodeId> = self.configured().into_keys().collect();
        open.remove(&own);
        let until = Instant::now() + PEERS_WAIT;
        loop {
            for node in open.clone() {
                match self.groups().has_log(ShardId::META, node).await {
                    Ok(true) => return Ok(false),
                    Ok(false) => _ = open.remove(&node),
                    Err(problem) => {
                        debug!(%node, %problem, "nobody knows yet whether it has a cluster")
                    }
                }
            }
            if open.is_empty() {
                break;
            }
            if Instant::now() > until {
                let open: Vec<String> = open.iter().map(ToString::to_string).collect();
                bail!(
                    "no answer of the nodes {} of cluster.peers: a cluster is made when all of them run and none has one, so that there are \
                     never two; start them, and ask again. If one is restored from a backup, start that one: nothing is to be made",
                    open.join(" and ")
                );
            }
            sleep(INIT_PAUSE).await;
        }
        self.groups().initialize(ShardId::META, self.configured()).await?;
        Ok(true)
    }

    async fn wait_until_made(&self, wait: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + wait;
        while !self.made() {
            if Instant::now() > until {
                bail!(
                    "there is a cluster, or one is being made, and this node does not see it yet"
                );
            }
            sleep(INIT_PAUSE).await;
        }
        Ok(())
    }
}
