//! Rows of a backup as rows of a new cluster: what of them is carried over, and what takes the place of the rest. Pure.
//!
//! Each group's rows are of one moment, but not of the same as another group's. So whatever one group says of another is not
//! believed, and made again where it can be:
//!
//! | rows | why they stay behind | instead |
//! |---|---|---|
//! | `Route` | the meta group's rows may be older or newer than those of the shards | one for each `Filter` row of the shards ([`route`]) |
//! | `Origin` | numbers that another shard's rows do not know yet would be given out again, and messages with them be dropped | none: exactly once begins anew |
//! | `Node`, `Member`, `Placement`, `Target`, `Token`, the cluster | the old cluster's | the new one's ([`meta_rows`]) |
//! | what nodes said of their programs | the old cluster's | nothing: nodes say it again. The level stays: rows are of it |
//! | `Applied` | the old voters | what `raft/group` writes |
//!
//! # Invariants
//!
//! - **Who was connected to the old cluster is known to be gone**: its nodes stay as removed ones, or as ones whose process is
//!   another, and the leaders of shards detach what they held, as after any death.
//! - **A level is not lowered**: rows that only programs of a level can read are never in a cluster below it.
//!
//! Checked by `tests/rules/restore.rs`.

use std::collections::BTreeMap;

use bytes::Bytes;
use moorline_core::{
    NodeId, ShardId, TenantId, UnixMillis,
    level::{FIRST, Levels, Misfit},
    shard::Shards,
};
use moorline_storage::{
    StorageError,
    key::{self, Kind},
};

use crate::{
    command::{MemberState, NodeRecord, RouteTarget},
    keys::{Keys, Suffix},
    meta::{CLUSTER, LEVEL},
    rows::{ClusterRow, FilterRow, LevelRow, MemberRow, NodeRow, PlacementRow, RouteRow, Row},
};

/// The cluster that is made of a backup.
#[derive(Debug, Clone)]
pub struct NewCluster {
    /// Its id: random.
    pub cluster: u128,
    /// As many as the backup has.
    pub shards: u16,
    /// How many voters each shard is to have.
    pub replicas: u8,
    /// The node whose data directory is made. It begins every group alone.
    pub first: NodeId,
    /// Every node that the cluster is made with, that one included.
    pub nodes: Vec<NodeRecord>,
}

/// What the rows of a backup say of the cluster that they are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldCluster {
    /// Its nodes.
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    /// Its level.
    pub level: u16,
}

impl Default for OldCluster {
    fn default() -> Self {
        Self { nodes: BTreeMap::new(), level: FIRST }
    }
}

impl OldCluster {
    /// Takes in what a row says.
    pub fn note(&mut self, carried: Carried) {
        match carried {
            Carried::AsItIs | Carried::Left => {}
            Carried::OldNode(record) => _ = self.nodes.insert(record.node, record),
            Carried::OldLevel(level) => self.level = level,
        }
    }

    /// Whether a program that knows these levels can read all rows.
    ///
    /// # Errors
    ///
    /// [`Misfit`], with what to do.
    pub fn fits(&self, known: Levels) -> Result<(), Misfit> {
        known.check(self.level)
    }
}

/// What becomes of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carried {
    /// It is a row of the new cluster as it is.
    AsItIs,
    /// It is not.
    Left,
    /// It is not, and says who was a node of the old cluster.
    OldNode(NodeRecord),
    /// It is not, and says at which level the old cluster was.
    OldLevel(u16),
}

/// What becomes of a row of a backup.
///
/// # Errors
///
/// If it is none that this version knows.
pub fn carried(row_key: &[u8], row: &Bytes) -> Result<Carried, StorageError> {
    let kind = key::kind_of(row_key)?;
    if kind == Kind::Node {
        return Ok(Carried::OldNode(NodeRow::from_bytes(row)?.record));
    }
    if kind == Kind::Setting && row_key == Keys::new(ShardId::META).setting(LEVEL) {
        return Ok(Carried::OldLevel(LevelRow::from_bytes(row)?.level));
    }
    let left = [
        Kind::Applied,
        Kind::Route,
        Kind::Origin,
        Kind::Member,
        Kind::Placement,
        Kind::Target,
        Kind::Token,
        Kind::Setting,
    ];
    Ok(if left.contains(&kind) { Carried::Left } else { Carried::AsItIs })
}

/// The row of the meta group that a row of a shard asks for: the route to a filter that a session or a share of it holds.
///
/// # Errors
///
/// If it can't be read.
pub fn route(row_key: &[u8], row: &Bytes) -> Result<Option<(Bytes, Bytes)>, StorageError> {
    if key::kind_of(row_key)? != Kind::Filter {
        return Ok(None);
    }
    let target = RouteTarget::Shard(key::shard_of(row_key)?);
    let mut suffix = Suffix::of(row_key)?;
    let (tenant, filter) = (TenantId(suffix.u32()?), suffix.text()?);
    let version = FilterRow::from_bytes(row)?.version;
    // Every node of the new cluster begins with it, so there is no index at which it came.
    let row = RouteRow { version, present: true, index: 0, at: UnixMillis(0) };
    Ok(Some((Keys::new(ShardId::META).route(tenant, &filter, target), row.to_bytes())))
}

/// The rows of the meta group that say what the new cluster is. `old`: the cluster that the backup is of.
///
/// # Panics
///
/// If there are no shards, or too many: the caller has read the number out of a backup, and compared it.
#[must_use]
pub fn meta_rows(new: &NewCluster, old: &OldCluster) -> Vec<(Bytes, Bytes)> {
    let keys = Keys::new(ShardId::META);
    let NewCluster { cluster, shards, replicas, .. } = *new;
    let row = ClusterRow { cluster, shards, replicas };
    let mut rows = vec![(keys.setting(CLUSTER), row.to_bytes())];
    if old.level > FIRST {
        let row = LevelRow { level: old.level, programs: Vec::new() };
        rows.push((keys.setting(LEVEL), row.to_bytes()));
    }
    for record in &new.nodes {
        let row = NodeRow { record: record.clone(), gone: false };
        rows.push((keys.node(record.node), row.to_bytes()));
    }
    let comes = |node: &NodeId| new.nodes.iter().any(|record| record.node == *node);
    for (node, record) in old.nodes.iter().filter(|(node, _)| !comes(node)) {
        rows.push((keys.node(*node), NodeRow { record: record.clone(), gone: true }.to_bytes()));
        rows.push((keys.member(*node), MemberRow(MemberState::Removed).to_bytes()));
    }
    let groups = std::iter::once(ShardId::META).chain(Shards::new(shards).all());
    rows.extend(
        groups.map(|group| (keys.placement(group), PlacementRow(vec![new.first]).to_bytes())),
    );
    rows
}
