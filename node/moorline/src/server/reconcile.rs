//! From what the meta group says to what this node does: which replicas it opens, whose directories it trusts.
//!
//! Runs at start and after every change of the meta group. Invariant: a replica is opened when the meta group places it
//! here, and a group is initialised by its first voter alone, so that no group ever has two beginnings. One that is to go
//! elsewhere is opened until it has, for until then its vote may be needed (`chaos-tests/dst`, seed 20).
//!
//! What a replica leaves behind is deleted once the meta group has said for `storage.moved-keep-s` that the group is wholly
//! elsewhere: its target is reached, so this node is neither voter nor learner of it. Before each deletion a majority of the
//! meta group confirms that this node's rows of it are those of now: after a crash they may be older than what this node
//! knew, and the shard may have come back since, with entries that were acknowledged. That it may come back a moment later
//! does no harm: nothing is sent to a closed replica, and when it is opened it begins with nothing, under the rules of
//! `raft/group/src/clear.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use moorline_core::{NodeId, ShardId, shard::Shards};
use moorline_group::{Groups, wire::Peers};
use moorline_machine::{MemberState, MetaState};
use moorline_storage_rocks::note_level;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{known, node::Node};

/// The pause before a deletion is tried again that nobody could confirm.
const CONFIRM_PAUSE: Duration = Duration::from_secs(1);

/// What the meta group wants of this node.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    shards: u16,
    /// The level of the cluster.
    level: u16,
    /// Shards with a replica here.
    replicas: BTreeSet<ShardId>,
    /// Shards that are to be elsewhere, and are not yet.
    moving: BTreeSet<ShardId>,
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

/// Since when shards have been wholly elsewhere, and whether what they left here is gone.
#[derive(Debug, Default)]
struct Leftovers {
    shards: BTreeMap<ShardId, Leftover>,
    /// Nobody could say whether what is due may go. Logged once.
    unconfirmed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leftover {
    Since(Instant),
    Gone,
}

impl Leftovers {
    /// Takes in where shards are now. Answers whose time is over, and when the next one's will be.
    fn due(
        &mut self,
        elsewhere: &BTreeSet<ShardId>,
        now: Instant,
        keep: Duration,
    ) -> (Vec<ShardId>, Option<Instant>) {
        self.shards.retain(|shard, _| elsewhere.contains(shard));
        for shard in elsewhere {
            self.shards.entry(*shard).or_insert(Leftover::Since(now));
        }
        let since = |(shard, leftover): (&ShardId, &Leftover)| match leftover {
            Leftover::Since(since) => Some((*shard, *since + keep)),
            Leftover::Gone => None,
        };
        let (due, later): (Vec<_>, Vec<_>) =
            self.shards.iter().filter_map(since).partition(|(_, until)| *until <= now);
        (
            due.into_iter().map(|(shard, _)| shard).collect(),
            later.into_iter().map(|(_, until)| until).min(),
        )
    }

    fn gone(&mut self, shard: ShardId) {
        self.shards.insert(shard, Leftover::Gone);
    }
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
        let mut known = None;
        // What the others said when this node joined, or it knew before it started: its rows may be behind that.
        let mut remembered = known::read_addresses(&self.known_addresses)?;
        let mut taken_part = false;
        let mut leftovers = Leftovers::default();
        let mut level = None;
        loop {
            applied.mark_unchanged();
            let mut next_due = None;
            if let Some(wanted) = self.wanted()? {
                if level != Some(wanted.level) {
                    self.keep_level(wanted.level)?;
                    level = Some(wanted.level);
                }
                if wanted.stores != trusted {
                    known::write(&self.known_stores, &wanted.stores)?;
                    self.peers.expect_stores(wanted.stores.clone());
                    trusted.clone_from(&wanted.stores);
                }
                let rows = self.node.member_addresses();
                let addresses = with_remembered(rows, &remembered, &wanted.removed);
                if known.as_ref() != Some(&addresses) {
                    known::write_addresses(&self.known_addresses, &addresses)?;
                    self.peers.update_peers(addresses.clone());
                    remembered.clone_from(&addresses);
                    known = Some(addresses);
                }
                self.peers.deny(wanted.removed.clone());
                self.open(&wanted).await?;
                self.close(&wanted).await;
                next_due = self.delete_leftovers(&wanted, &mut leftovers).await?;
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
                () = due(next_due) => {}
            }
        }
    }

    /// The cluster is at this level, as far as this node's rows say. A program that does not know it must not go on; and no older
    /// program may use this directory from now on.
    fn keep_level(&self, level: u16) -> anyhow::Result<()> {
        let config = self.node.config();
        if level > config.cluster.levels().max {
            config.cluster.fits(level)?;
        }
        // Rows may be behind what this directory has seen before: what counts is the highest.
        let noted = note_level(&config.node.data_dir, level)?;
        config.cluster.fits(noted)?;
        self.peers.set_level(noted);
        info!(level = noted, "the level of the cluster");
        Ok(())
    }

    fn wanted(&self) -> anyhow::Result<Option<Wanted>> {
        let own = self.node.config().node_id();
        let wanted = self.node.groups().read(ShardId::META, |machine, _| {
            let meta = machine.meta();
            let cluster = meta.cluster()?;
            let mut wanted =
                Wanted { shards: cluster.shards, own: meta.member(own), ..Wanted::default() };
            wanted.level = meta.level();
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
        let mut replicas = wanted.replicas.clone();
        for shard in &wanted.moving {
            // Until the target is reached the votes may be where they were: a node that starts anew meanwhile still has its own.
            if groups.holds(*shard)? {
                replicas.insert(*shard);
            }
        }
        for shard in replicas.iter().filter(|shard| !open.contains(shard)) {
            let (groups, shard) = (groups.clone(), *shard);
            opening.spawn(async move { groups.open(shard).await });
        }
        let any = !opening.is_empty();
        while let Some(opened) = opening.join_next().await {
            opened.context("opening a replica panicked")??;
        }
        if any {
            self.initialize_own(groups, wanted).await?;
            info!(replicas = replicas.len(), "all replicas of this node are open");
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

    /// Deletes what shards left here that have been elsewhere for long enough, and are now. Answers when to look again.
    async fn delete_leftovers(
        &self,
        wanted: &Wanted,
        leftovers: &mut Leftovers,
    ) -> anyhow::Result<Option<Instant>> {
        let groups = self.node.groups();
        let keep = Duration::from_secs(self.node.config().storage.moved_keep_s);
        let (due, next) = leftovers.due(&wanted.elsewhere, Instant::now(), keep);
        for shard in due {
            if !self.node.is_meta_current().await {
                if !std::mem::replace(&mut leftovers.unconfirmed, true) {
                    info!(%shard, "what a shard left here stays until the meta group confirms that it is elsewhere");
                }
                let again = Instant::now() + CONFIRM_PAUSE;
                return Ok(Some(next.map_or(again, |next| next.min(again))));
            }
            leftovers.unconfirmed = false;
            // A shard that is not there any more is looked at in the next round: the rows have changed.
            if self.wanted()?.is_some_and(|wanted| wanted.elsewhere.contains(&shard)) {
                groups.delete(shard).await?;
                leftovers.gone(shard);
            }
        }
        Ok(next)
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

/// Where nodes are by the rows here, and those that these do not know yet: a node that joined, or starts anew, reads the log from further
/// back, and would shut out a leader that came later. Who was removed is not among them.
fn with_remembered(
    mut rows: BTreeMap<NodeId, String>,
    remembered: &BTreeMap<NodeId, String>,
    removed: &BTreeSet<NodeId>,
) -> BTreeMap<NodeId, String> {
    for (node, address) in remembered.iter().filter(|(node, _)| !removed.contains(node)) {
        rows.entry(*node).or_insert_with(|| address.clone());
    }
    rows
}

/// Waits for a moment; for ever without one.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
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
        } else if target.is_some() {
            self.moving.insert(shard);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_behind_shut_nobody_out() {
        let of = |nodes: &[(u64, &str)]| -> BTreeMap<NodeId, String> {
            nodes.iter().map(|(node, address)| (NodeId(*node), (*address).to_owned())).collect()
        };
        let remembered = of(&[(1, "a"), (3, "c"), (4, "d")]);
        let behind = of(&[(1, "moved"), (2, "b"), (3, "c")]);
        let all = with_remembered(behind.clone(), &remembered, &BTreeSet::new());
        assert_eq!(all, of(&[(1, "moved"), (2, "b"), (3, "c"), (4, "d")]));
        let removed = BTreeSet::from([NodeId(4)]);
        assert_eq!(with_remembered(behind.clone(), &remembered, &removed), behind);
    }

    #[test]
    fn a_leftover_is_due_when_its_shard_was_elsewhere_all_the_time() {
        let (mut leftovers, begin, keep) =
            (Leftovers::default(), Instant::now(), Duration::from_secs(10));
        let at = |seconds| begin + Duration::from_secs(seconds);
        let elsewhere = |shards: &[u16]| shards.iter().copied().map(ShardId).collect();
        assert_eq!(leftovers.due(&elsewhere(&[1]), at(0), keep), (vec![], Some(at(10))));
        assert_eq!(leftovers.due(&elsewhere(&[1, 2]), at(5), keep), (vec![], Some(at(10))));
        // Shard 1 was here, or on its way, for a moment.
        assert_eq!(leftovers.due(&elsewhere(&[2]), at(6), keep), (vec![], Some(at(15))));
        assert_eq!(
            leftovers.due(&elsewhere(&[1, 2]), at(15), keep),
            (vec![ShardId(2)], Some(at(25)))
        );
        leftovers.gone(ShardId(2));
        assert_eq!(leftovers.due(&elsewhere(&[1, 2]), at(16), keep), (vec![], Some(at(25))));
        // It comes back and goes again: it left something again.
        leftovers.due(&elsewhere(&[1]), at(17), keep);
        assert_eq!(leftovers.due(&elsewhere(&[1, 2]), at(18), keep), (vec![], Some(at(25))));
        assert_eq!(leftovers.due(&elsewhere(&[1, 2]), at(30), keep).0, [ShardId(1), ShardId(2)]);
    }
}
