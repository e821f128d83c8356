//! Writing rows out: the log is the write-ahead log of the rows, so this decides how much log must be kept.
//!
//! ```text
//!   freeze every overlay ─► one batch per group ─► one flush ─► mark durable ─► openraft learns, log is purged
//! ```
//!
//! # Invariants
//!
//! - **Purged only below what is durable**: the flush is done before openraft hears of the checkpoint, and
//!   [`crate::log_store::LogStore::purge_point`] goes no further.
//! - **One at a time per group**: checkpoints, exports and installs of a group hold its `maintenance` lock.
//! - **What is begun is finished**, also when whoever waits for it goes away: the thread that writes marks it durable and lets go of the
//!   lock. Checked by `tests/cluster.rs` (`a_checkpoint_that_nobody_waits_for_is_finished_all_the_same`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use moorline_storage::{StorageError, log::Mark};
use tokio::{
    sync::OwnedMutexGuard,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{debug, warn};

use crate::{
    blocking::spawn_blocking,
    codec::disk::encode_log_id,
    group::Group,
    groups::Node,
    log_store::LogStore,
    state::{Checkpoint, State},
};

/// How often the memory of the overlays is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long openraft may take to note a checkpoint before the purge is left to the next one.
const NOTED_WITHIN: Duration = Duration::from_secs(5);

/// Makes checkpoints until the node stops.
pub(crate) async fn run(node: Arc<Node>) {
    let limits = node.config.checkpoint;
    let mut look = interval(LOOK_EVERY.min(limits.every));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        look.tick().await;
        let groups = node.all();
        // Files that nobody asked for again go.
        groups.iter().for_each(|group| drop(group.snapshots.kept()));
        let overlays = measure(&node, &groups);
        if overlays >= limits.bytes || last.elapsed() >= limits.every {
            checkpoint(&node, &groups).await;
            measure(&node, &groups);
            last = Instant::now();
        }
    }
}

/// Notes how much memory the groups take. Answers the bytes of rows.
fn measure(node: &Node, groups: &[Arc<Group>]) -> usize {
    let overlays: usize = groups.iter().map(|group| group.state.overlay_bytes()).sum();
    let rings: usize = groups.iter().map(|group| group.log.ring_bytes()).sum();
    node.pressure.set(overlays);
    node.metrics.overlay_bytes.set(i64::try_from(overlays).unwrap_or(i64::MAX));
    node.metrics.ring_bytes.set(i64::try_from(rings).unwrap_or(i64::MAX));
    overlays
}

/// Writes out the rows of these groups. A disk that fails ends the process.
pub(crate) async fn checkpoint(node: &Node, groups: &[Arc<Group>]) {
    let since = Instant::now();
    let mut written = Vec::new();
    for group in groups {
        let alone = Arc::clone(&group.snapshots.maintenance).lock_owned().await;
        if let Some(checkpoint) = group.state.freeze() {
            written.push(Frozen { group: Arc::clone(group), checkpoint, _alone: alone });
        }
    }
    if written.is_empty() {
        return;
    }
    let (noted, bytes) = match spawn_blocking(move || write(written)).await {
        Ok(Ok(done)) => done,
        Ok(Err((group, error))) => {
            return group.state.fatal(&format!("writing out rows: {error}"));
        }
        Err(error) => return (node.config.fatal)(&format!("writing out rows: {error}")),
    };
    node.metrics.checkpoint_bytes.inc_by(bytes);
    node.metrics.checkpoint_seconds.observe(since.elapsed().as_secs_f64());
    debug!(groups = noted.len(), bytes, took = ?since.elapsed(), "rows written out");
    for group in noted {
        note_and_purge(node, &group).await;
    }
}

/// Writes out the rows of one group, whose `maintenance` lock it is given and gives back.
pub(crate) async fn write_out(
    state: &Arc<State>,
    log: &LogStore,
    alone: OwnedMutexGuard<()>,
) -> Result<OwnedMutexGuard<()>, StorageError> {
    let Some(checkpoint) = state.freeze() else {
        return Ok(alone);
    };
    let (state, log) = (Arc::clone(state), log.clone());
    let work = move || {
        state.store().write(checkpoint.rows.to_batch())?;
        state.store().flush()?;
        finish(&state, &log, checkpoint);
        Ok(alone)
    };
    spawn_blocking(work).await.expect("writing rows does not panic")
}

struct Frozen {
    group: Arc<Group>,
    checkpoint: Checkpoint,
    _alone: OwnedMutexGuard<()>,
}

/// Whose rows could not be written, and why.
type Failed = (Arc<Group>, StorageError);

/// The groups that were written out, and how many bytes.
fn write(written: Vec<Frozen>) -> Result<(Vec<Arc<Group>>, u64), Failed> {
    let mut bytes = 0;
    for Frozen { group, checkpoint, .. } in &written {
        bytes += checkpoint.rows.bytes() as u64;
        let batch = checkpoint.rows.to_batch();
        group.state.store().write(batch).map_err(|error| (Arc::clone(group), error))?;
    }
    if let Some(Frozen { group, .. }) = written.first() {
        group.state.store().flush().map_err(|error| (Arc::clone(group), error))?;
    }
    let done = written.into_iter().map(|Frozen { group, checkpoint, _alone }| {
        finish(&group.state, &group.log, checkpoint);
        group
    });
    Ok((done.collect(), bytes))
}

/// The rows are on disk.
fn finish(state: &State, log: &LogStore, Checkpoint { applied, .. }: Checkpoint) {
    if let Some(log_id) = &applied.log_id {
        log.note_mark(Mark::DurableApplied, encode_log_id(log_id));
    }
    state.thaw(applied);
}

/// Tells openraft what is durable, and lets go of log that nobody needs.
async fn note_and_purge(node: &Node, group: &Group) {
    let Some(durable) = group.state.durable().log_id else { return };
    let mut noted = group.raft.watch_snapshot_progress();
    if group.raft.trigger().snapshot().await.is_err() {
        return; // stopping
    }
    let target = Some(durable);
    match timeout(NOTED_WITHIN, noted.wait_until_ge(&target)).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) => return, // stopping
        Err(_) => return warn!(shard = %group.shard, "openraft did not note a checkpoint in time"),
    }
    let limits = node.config.checkpoint;
    let point = group.log.purge_point(durable.index, limits.keep_entries, limits.keep_bytes);
    if let Some(upto) = point
        && group.raft.trigger().purge_log(upto).await.is_ok()
    {
        debug!(shard = %group.shard, upto, "log purged");
    }
}
