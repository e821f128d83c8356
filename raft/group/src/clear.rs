//! Deleting what a replica left on the disk after its group moved away.
//!
//! ```text
//!   mark "deleting" (synced) ─► rows ─► entries, other marks ─► mark "deleted" (synced)
//!                └── a crash in between: the next opening or deletion begins anew here
//! ```
//!
//! # Invariants
//!
//! - **Never under an open replica**: [`crate::Groups::delete`] holds the place of one that is being opened.
//! - **A replica that comes back does not vote with less than it once had.** The vote stays, and the mark keeps the last
//!   entry that was there (the floor). Until its log reaches that, the replica gives no vote and asks for none: a voter
//!   that was away meanwhile, and does not know that this one was forgotten, could else lead with it, without what was
//!   committed by this one's old log. Checked by `tests/deletion.rs`.
//!
//! # Deliberately absent
//!
//! When to delete: the node above asks the meta group (`node/moorline/src/server/reconcile.rs`).

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::ShardId;
use moorline_storage::{
    ShardStore, StorageError, key,
    log::{LogEngine, LogOp, Mark},
};

use tokio::{sync::oneshot, time::timeout};

use crate::{
    blocking::spawn_blocking,
    codec::{
        Malformed,
        disk::{Applied, decode_entry, decode_log_id, encode_log_id, index},
        parts::Reader,
    },
    groups::Disk,
    types::RaftLogId,
};

/// Of the mark.
const VERSION: u8 = 1;
/// What is there is being deleted.
const DELETING: u8 = 1;
/// All of it is.
const DELETED: u8 = 2;
/// A log that does not sync a mark within this is given up: the node must stop.
const SYNC_DEADLINE: Duration = Duration::from_secs(60);

/// What the mark says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cleared {
    /// Whether a crash may have left something.
    pub(crate) unfinished: bool,
    /// The last entry that was there, if there was one.
    pub(crate) floor: Option<RaftLogId>,
}

impl Cleared {
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32);
        out.put_u8(VERSION);
        out.put_u8(if self.unfinished { DELETING } else { DELETED });
        if let Some(floor) = &self.floor {
            out.put_slice(&encode_log_id(floor));
        }
        out.freeze()
    }

    fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::versioned(bytes, VERSION, "deletion mark")?;
        let unfinished = match reader.u8()? {
            DELETING => true,
            DELETED => false,
            _ => return Err(Malformed("deletion mark")),
        };
        let floor = reader.rest();
        let floor = (!floor.is_empty()).then(|| decode_log_id(floor)).transpose()?;
        Ok(Self { unfinished, floor })
    }
}

/// What the disk says about an earlier deletion.
pub(crate) fn read(log: &dyn LogEngine, shard: ShardId) -> Result<Option<Cleared>, StorageError> {
    let mark = log.mark(shard, Mark::Cleared)?.filter(|mark| !mark.is_empty());
    mark.map(Cleared::decode).transpose().map_err(|error| corrupt(shard, &error))
}

/// Deletes what is there. Answers whether there was anything.
pub(crate) async fn delete(shard: ShardId, disk: &Disk) -> Result<bool, StorageError> {
    let log = &*disk.log;
    let of = disk.clone();
    let found = spawn_blocking(move || find(shard, &*of.store, &*of.log)).await;
    let Some(floor) = found.expect("looking for rows does not panic")? else { return Ok(false) };
    let mark = |unfinished| LogOp::Mark {
        mark: Mark::Cleared,
        value: Cleared { unfinished, floor }.encode(),
    };
    synced(log, shard, mark(true)).await?;
    let store = disk.store.clone();
    let removed = spawn_blocking(move || store.remove(shard)).await;
    removed.expect("removing rows does not panic")?;
    log.submit(shard, LogOp::PurgeUpTo(u64::MAX), None);
    for gone in [Mark::Committed, Mark::Purged, Mark::DurableApplied, Mark::Installing] {
        log.submit(shard, LogOp::Mark { mark: gone, value: Bytes::new() }, None);
    }
    synced(log, shard, mark(false)).await?;
    Ok(true)
}

/// Whether there is something to delete, and then the floor that its mark has to keep.
fn find(
    shard: ShardId,
    store: &dyn ShardStore,
    log: &dyn LogEngine,
) -> Result<Option<Option<RaftLogId>>, StorageError> {
    let before = read(log, shard)?;
    let last = last(shard, store, log)?;
    let unfinished = before.as_ref().is_some_and(|before| before.unfinished);
    // The first rows it ever had may have come by half.
    let installing = log.mark(shard, Mark::Installing)?.is_some_and(|mark| !mark.is_empty());
    let any = last.is_some() || unfinished || installing;
    // Of two deletions the later floor counts; the earlier had been reached, or still holds.
    Ok(any.then(|| last.max(before.and_then(|before| before.floor))))
}

/// Finishes a deletion that a crash interrupted, and answers the floor. Before anything of the group is opened.
pub(crate) async fn finish(shard: ShardId, disk: &Disk) -> Result<Option<RaftLogId>, StorageError> {
    let Some(cleared) = read(&*disk.log, shard)? else { return Ok(None) };
    if cleared.unfinished {
        tracing::info!(%shard, "a replica was being deleted when the process ended: deleting the rest");
        delete(shard, disk).await?;
    }
    Ok(cleared.floor)
}

/// The last entry that this replica knows, from its log or its rows.
fn last(
    shard: ShardId,
    store: &dyn ShardStore,
    log: &dyn LogEngine,
) -> Result<Option<RaftLogId>, StorageError> {
    let malformed = |error: Malformed| corrupt(shard, &error);
    let purged = log.mark(shard, Mark::Purged)?.filter(|mark| !mark.is_empty());
    let purged = purged.map(decode_log_id).transpose().map_err(malformed)?;
    let mut last = None;
    if let Some((_, end)) = log.bounds(shard)? {
        let records = log.read(shard, end, end.saturating_add(1), usize::MAX)?;
        if let [record] = records.as_slice() {
            let entry =
                decode_entry(index(record.index), record.body.clone()).map_err(malformed)?;
            last = Some(entry.log_id);
        }
    }
    let applied = store.get(&key::applied(shard))?;
    let applied = applied.map(Applied::decode).transpose().map_err(malformed)?;
    Ok(last.max(purged).max(applied.and_then(|applied| applied.log_id)))
}

/// Hands over an operation and waits until it is synced.
/// Waits until an operation is on the disk.
pub(crate) async fn synced(
    log: &dyn LogEngine,
    shard: ShardId,
    op: LogOp,
) -> Result<(), StorageError> {
    let (done, synced) = oneshot::channel();
    log.submit(
        shard,
        op,
        Some(Box::new(move |result| {
            // Somebody waits for it, below.
            drop(done.send(result));
        })),
    );
    let failed = |why: String| StorageError::Io {
        doing: "syncing a mark",
        source: std::io::Error::other(why),
    };
    match timeout(SYNC_DEADLINE, synced).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(failed(error.to_string())),
        Ok(Err(_)) => Err(failed("the log writer has stopped".to_owned())),
        Err(_) => Err(failed(format!("no sync within {SYNC_DEADLINE:?}"))),
    }
}

fn corrupt(shard: ShardId, why: &Malformed) -> StorageError {
    StorageError::Corrupt { what: format!("what is left of shard {shard}"), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LeaderId;

    #[test]
    fn the_mark_lies_on_disk_as_it_always_did() {
        let floor = RaftLogId::new(LeaderId { term: 3, node_id: 2 }, 9);
        let with = Cleared { unfinished: true, floor: Some(floor) };
        let without = Cleared { unfinished: false, floor: None };
        assert_eq!(without.encode().as_ref(), [1, 2]);
        assert_eq!(with.encode().len(), 2 + encode_log_id(&floor).len());
        for cleared in [with, without] {
            assert_eq!(Cleared::decode(cleared.encode()).unwrap(), cleared);
        }
        for wrong in [&[][..], &[1], &[2, 1], &[1, 3], &[1, 1, 1]] {
            assert!(Cleared::decode(Bytes::copy_from_slice(wrong)).is_err(), "{wrong:?}");
        }
    }
}
