//! A group's rows out of a running node, and into the data directory of a new cluster.
//!
//! ```text
//!   barrier (this node leads) ─► rows written out ─► a view of the store ─► every row of the group, in order
//! ```
//!
//! # Invariants
//!
//! - **One moment, and a late enough one**: the rows are those of one index, and everything that was acknowledged before the call
//!   is among them: a majority confirms after the call that this node leads, and what it leads with is applied.
//! - **Nobody waits for the reader**: checkpoints go on as soon as the view is there. Its price is disk: what changes meanwhile does
//!   not take the place of what the view shows until the last row was read.
//! - **A restored group goes on beyond everything of the old one**: its log begins [`INDEX_GAP`] above. Rows of other groups, whose
//!   moment was a little later, may speak of indexes that this group's rows have not reached.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::Arc,
};

use bytes::Bytes;
use moorline_core::{NodeId, ShardId, UnixMillis};
use moorline_storage::{
    Batch, StorageError, key,
    log::{LogOp, Mark},
};

use crate::{
    checkpoint, clear,
    codec::disk::{Applied, encode_log_id, encode_vote},
    error::BarrierError,
    groups::{Disk, Groups},
    types::{Address, LeaderId, RaftLogId, RaftMembership, RaftStoredMembership, RaftVote},
};

/// How far above the rows' index the log of a restored group begins: more entries than a cluster writes while a backup runs. Versions are
/// 65,536 times that, and stay below what JSON takes for a number (2⁵³) for hundreds of restores.
pub const INDEX_GAP: u64 = 1 << 28;

/// Of which moment rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowsAt {
    /// The term of the last entry in them.
    pub term: u64,
    /// Its index.
    pub index: u64,
    /// Log time then.
    pub time: UnixMillis,
}

/// Why rows were not read, or not to the end.
#[derive(Debug, thiserror::Error)]
pub enum ReadRowsError {
    /// This node does not lead the group, or can't know that it does.
    #[error(transparent)]
    Barrier(#[from] BarrierError),
    /// The disk failed: the node must stop.
    #[error("reading the rows")]
    Storage(#[from] StorageError),
}

impl Groups {
    /// Reads all rows of a group that this node leads, in order, on a thread that may wait. `begun` hears of which moment they
    /// are, before the first row; `visit` gets each row, and nothing behind the last; a break ends it.
    ///
    /// Answers whether nobody broke it off.
    ///
    /// # Errors
    ///
    /// As [`ReadRowsError`].
    pub async fn read_rows(
        &self,
        shard: ShardId,
        begun: impl FnOnce(RowsAt) + Send + 'static,
        mut visit: impl FnMut(Option<(&[u8], &Bytes)>) -> ControlFlow<()> + Send + 'static,
    ) -> Result<bool, ReadRowsError> {
        let group = self.node.group(shard).ok_or(BarrierError::Stopped)?;
        group.barrier().await?;
        let alone = Arc::clone(&group.snapshots.maintenance).lock_owned().await;
        let alone = checkpoint::write_out(&group.state, &group.log, alone).await?;
        let log_id = group.state.durable().log_id.ok_or(BarrierError::Stopped)?;
        // Log time runs on while this looks: it is for eyes.
        let time = group.state.log_time();
        let at = RowsAt { term: log_id.leader_id.term, index: log_id.index, time };
        let store = Arc::clone(group.state.store());
        let read = move || {
            let mut first = Some((begun, alone));
            let mut flow = ControlFlow::Continue(());
            let (from, to) = key::range_of_shard(shard);
            store.scan(&from, &to, &mut |key, row| {
                // The view exists by now: others may write.
                if let Some((begun, alone)) = first.take() {
                    drop(alone);
                    begun(at);
                }
                flow = visit(Some((key, row)));
                flow
            })?;
            let ended = if flow.is_continue() { visit(None) } else { flow };
            Ok::<bool, StorageError>(ended.is_continue())
        };
        // Not `crate::blocking`: whoever reads may take long, which a simulation's only thread could not.
        let read = tokio::task::spawn_blocking(read).await;
        Ok(read.expect("reading rows does not panic")?)
    }
}

/// What a restored group begins with.
#[derive(Debug, Clone)]
pub struct Restored {
    /// Which.
    pub shard: ShardId,
    /// Its only voter.
    pub node: NodeId,
    /// Where that is reached.
    pub address: String,
    /// Of which moment the backup's rows are.
    pub at: RowsAt,
}

/// Makes the rows of a group that lie in a store the rows of a group of one voter, who has applied them. Behind all other rows of
/// the group, before the node's first start.
///
/// # Errors
///
/// If the disk fails: then the directory is not usable.
pub async fn restore(disk: &Disk, restored: Restored) -> Result<(), StorageError> {
    let Restored { shard, node, address, at } = restored;
    let log_id = RaftLogId::new(LeaderId { term: at.term, node_id: node.0 }, at.index + INDEX_GAP);
    let nodes = BTreeMap::from([(node.0, Address(address))]);
    let membership = RaftMembership::new(vec![BTreeSet::from([node.0])], nodes);
    let membership = membership.map_err(|error| StorageError::Corrupt {
        what: format!("the members of shard {shard}"),
        why: error.to_string(),
    })?;
    let membership = RaftStoredMembership::new(Some(log_id), membership);
    let applied = Applied { log_id: Some(log_id), membership };
    let changes = vec![(key::applied(shard), Some(applied.encode()))];
    disk.store.write(Batch { changes })?;
    disk.store.flush()?;
    let log = &*disk.log;
    for mark in [Mark::Purged, Mark::Committed, Mark::DurableApplied] {
        log.submit(shard, LogOp::Mark { mark, value: encode_log_id(&log_id) }, None);
    }
    // Higher than the last entry's, and nobody's but its own.
    let vote = RaftVote::new(at.term + 1, node.0);
    clear::synced(log, shard, LogOp::Mark { mark: Mark::Vote, value: encode_vote(&vote) }).await
}
