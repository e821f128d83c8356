//! openraft's log of one group, on the log engine that all groups of the node share.
//!
//! ```text
//!   append ─► ring (readable at once) ─► LogEngine: one writer, one fsync for all groups
//!                │                              └─► IOFlushed, from the writer's thread
//!   replication, apply ◄── ring, or the engine for what is older
//! ```
//!
//! # Invariants
//!
//! - **What is not on disk is in the ring.** An entry leaves the ring only after its write is done; a truncation makes
//!   earlier completions void (`Ring::generation`).
//! - **Votes are synced before `save_vote` returns**; the committed log id only rides along with the next append
//!   (a flush for it alone costs a third of the throughput, and re-applying from an older one is harmless).
//! - **No hole.** Every read returns each index of the range that the log holds, or an error.
//!
//! openraft's own suite runs over this, on RocksDB, in `suite.rs`.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{Stream, stream};
use moorline_core::ShardId;
use moorline_storage::{
    StorageError,
    log::{LogEngine, LogOp, LogRecord, Mark, QUEUED_BYTES_MAX},
};
use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use tokio::{sync::oneshot, time::sleep};

use crate::{
    blocking::spawn_blocking,
    codec::disk::{
        decode_entry, decode_log_id, decode_vote, encode_entry, encode_log_id, encode_vote,
        entry_bytes, index, position,
    },
    config::APPEND_BYTES_MAX,
    metrics::ShardMetrics,
    ring::Ring,
    types::{RaftEntry, RaftLogId, RaftVote, Types},
};

/// Bytes of entries that all groups of a node keep in memory, beside those not yet on disk.
const RING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How often a waiting append looks again.
const QUEUED_PAUSE: Duration = Duration::from_millis(1);
/// Entries that the apply task is given at a time.
const APPLY_ENTRIES: u64 = 64;
/// Bytes read from disk at a time.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// The log of one group. Clones share it: the store, its readers, the checkpointer.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
}

struct Shared {
    shard: ShardId,
    engine: Arc<dyn LogEngine>,
    ring_share: RingShare,
    metrics: ShardMetrics,
    ring: Mutex<Ring>,
}

/// The memory for log entries that all groups of a node share. While there is enough, a busy group may use what the others
/// do not; else each keeps to its even part.
#[derive(Debug, Clone, Default)]
pub(crate) struct RingShare(Arc<RingsOfNode>);

#[derive(Debug, Default)]
struct RingsOfNode {
    groups: AtomicUsize,
    bytes: AtomicUsize,
}

impl RingShare {
    /// A group more shares it.
    pub(crate) fn one_more(&self) {
        self.0.groups.fetch_add(1, Ordering::Relaxed);
    }

    /// A group less shares it; what its ring holds goes with its last reader.
    pub(crate) fn one_less(&self) {
        self.0.groups.fetch_sub(1, Ordering::Relaxed);
    }

    /// Lets the oldest entries of a ring go, if the memory is full. Called after every change of the ring.
    fn settle(&self, ring: &mut Ring) {
        self.account(ring);
        if self.0.bytes.load(Ordering::Relaxed) > RING_BYTES_MAX {
            ring.evict(RING_BYTES_MAX / self.0.groups.load(Ordering::Relaxed).max(1));
            self.account(ring);
        }
    }

    fn account(&self, ring: &mut Ring) {
        let now = ring.bytes();
        let before = std::mem::replace(&mut ring.accounted, now);
        self.0.bytes.fetch_add(now, Ordering::Relaxed);
        self.0.bytes.fetch_sub(before, Ordering::Relaxed);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Of a replica that was closed; the others may have the memory.
        let ring = self.ring.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.ring_share.0.bytes.fetch_sub(ring.accounted, Ordering::Relaxed);
    }
}

impl LogStore {
    /// Reads where the log begins and ends, and the marks.
    pub(crate) fn open(
        shard: ShardId,
        engine: Arc<dyn LogEngine>,
        ring_share: RingShare,
        metrics: ShardMetrics,
    ) -> Result<Self, StorageError> {
        // An empty one is one that was taken back.
        let mark =
            |mark| engine.mark(shard, mark).map(|found| found.filter(|mark| !mark.is_empty()));
        let vote = mark(Mark::Vote)?.map(decode_vote).transpose().map_err(corrupt(shard))?;
        let purged = mark(Mark::Purged)?.map(decode_log_id).transpose().map_err(corrupt(shard))?;
        let committed =
            mark(Mark::Committed)?.map(decode_log_id).transpose().map_err(corrupt(shard))?;
        let mut last = purged;
        if let Some((first, end)) = engine.bounds(shard)? {
            let next = purged.as_ref().map_or(0, |purged| purged.index + 1);
            if index(first) > next {
                return Err(StorageError::Corrupt {
                    what: format!("the log of shard {shard}"),
                    why: format!("it begins at {}, but was purged only below {next}", index(first)),
                });
            }
            // A purge that a crash interrupted leaves entries below the purge mark: they are gone.
            if index(end) >= next {
                let records = engine.read(shard, end, end + 1, usize::MAX)?;
                let [record] = records.as_slice() else {
                    return Err(hole(shard, index(end)));
                };
                let entry = decode_entry(index(record.index), record.body.clone())
                    .map_err(corrupt(shard))?;
                last = Some(entry.log_id);
            }
        }
        let ring = Mutex::new(Ring::new(vote, committed, purged, last));
        Ok(Self { shared: Arc::new(Shared { shard, engine, ring_share, metrics, ring }) })
    }

    /// The last entry, or what was purged if there is none.
    pub(crate) fn last_log_id(&self) -> Option<RaftLogId> {
        self.ring().last
    }

    /// The last entry that was purged.
    pub(crate) fn purged(&self) -> Option<RaftLogId> {
        self.ring().purged
    }

    pub(crate) fn vote(&self) -> Option<RaftVote> {
        self.ring().vote
    }

    /// Everything up to this may be purged, if rows up to `durable` are on disk and this much log is to be kept.
    pub(crate) fn purge_point(
        &self,
        durable: u64,
        keep_entries: u64,
        keep_bytes: u64,
    ) -> Option<u64> {
        self.ring().purge_point(durable, keep_entries, keep_bytes)
    }

    /// Bytes of entries in memory.
    pub(crate) fn ring_bytes(&self) -> usize {
        self.ring().bytes()
    }

    /// Sets a mark and waits until it is on disk.
    pub(crate) async fn set_mark(&self, mark: Mark, value: bytes::Bytes) -> io::Result<()> {
        let (done, synced) = oneshot::channel();
        self.shared.engine.submit(
            self.shared.shard,
            LogOp::Mark { mark, value },
            Some(Box::new(move |result| {
                // Nobody waits any more if the replica is stopping.
                drop(done.send(result));
            })),
        );
        match synced.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::other("the log writer has stopped")),
        }
    }

    /// Sets a mark that becomes durable with whatever is synced next.
    pub(crate) fn note_mark(&self, mark: Mark, value: bytes::Bytes) {
        self.shared.engine.submit(self.shared.shard, LogOp::Mark { mark, value }, None);
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.shared.ring()
    }

    /// The entries with `start <= index < end` that the log holds: from the ring, and from disk what is older.
    /// Stops after about `bytes_max`, but not before the first.
    async fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<RaftEntry>> {
        let (from, disk_end, newer) = {
            let ring = self.ring();
            let from = start.max(ring.first);
            let to = end.min(ring.last.as_ref().map_or(0, |last| last.index + 1));
            if from >= to {
                return Ok(Vec::new());
            }
            let ring_start = ring.first_index().unwrap_or(to).clamp(from, to);
            let newer =
                if from == ring_start { ring.range(from, to, bytes_max) } else { Vec::new() };
            (from, ring_start, newer)
        };
        if from == disk_end {
            return Ok(newer);
        }
        let mut entries = self.read_disk(from, disk_end, bytes_max).await?;
        let read: usize = entries.iter().map(entry_bytes).sum();
        let whole = entries.last().is_some_and(|last| last.log_id.index + 1 == disk_end);
        if whole && read < bytes_max && disk_end < end {
            // What was in the ring is there still, or on disk by now.
            let more = Box::pin(self.read(disk_end, end, bytes_max - read)).await?;
            entries.extend(more);
        }
        Ok(entries)
    }

    async fn read_disk(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<RaftEntry>> {
        let shared = Arc::clone(&self.shared);
        let work = move || -> io::Result<Vec<RaftEntry>> {
            let mut entries = Vec::new();
            let mut next = from;
            let mut room = bytes_max;
            while next < to && (room > 0 || entries.is_empty()) {
                let records = shared
                    .engine
                    .read(shared.shard, position(next), position(to), room.clamp(1, READ_BYTES))
                    .map_err(io::Error::other)?;
                if records.is_empty() {
                    return Err(io::Error::other(hole(shared.shard, next)));
                }
                for LogRecord { index: at, body } in records {
                    if index(at) != next {
                        return Err(io::Error::other(hole(shared.shard, next)));
                    }
                    room = room.saturating_sub(body.len());
                    entries.push(decode_entry(next, body)?);
                    next += 1;
                }
            }
            Ok(entries)
        };
        spawn_blocking(work).await.map_err(io::Error::other)?
    }
}

impl Debug for LogStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogStore").field("shard", &self.shared.shard).finish_non_exhaustive()
    }
}

impl Shared {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().expect("no panic while a ring is locked")
    }
}

fn corrupt<E: std::fmt::Display>(shard: ShardId) -> impl Fn(E) -> StorageError {
    move |error| StorageError::Corrupt {
        what: format!("the log of shard {shard}"),
        why: error.to_string(),
    }
}

fn hole(shard: ShardId, index: u64) -> StorageError {
    StorageError::Corrupt {
        what: format!("the log of shard {shard}"),
        why: format!("entry {index} is missing"),
    }
}

/// A range as `start..end`.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<RaftEntry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<RaftEntry>> {
        self.read(start, end, APPEND_BYTES_MAX).await
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // Read piece by piece: an apply after a long lag must not hold the whole log in memory.
        let (start, end) = bounds(&range);
        let pieces = stream::unfold((self.clone(), start), move |(log, next)| async move {
            if next >= end {
                return None;
            }
            match log.read(next, end.min(next + APPLY_ENTRIES), READ_BYTES).await {
                Ok(entries) => {
                    let after = entries.last().map_or(end, |last| last.log_id.index + 1);
                    let piece: Vec<io::Result<RaftEntry>> = entries.into_iter().map(Ok).collect();
                    Some((piece, (log, after)))
                }
                Err(error) => Some((vec![Err(error)], (log, end))),
            }
        });
        futures_util::StreamExt::flat_map(pieces, stream::iter)
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        Ok(self.vote())
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let ring = self.ring();
        Ok(LogState { last_purged_log_id: ring.purged, last_log_id: ring.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        self.set_mark(Mark::Vote, encode_vote(vote)).await?;
        self.ring().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> io::Result<()> {
        if let Some(committed) = &committed {
            self.shared
                .metrics
                .commit_index
                .set(i64::try_from(committed.index).unwrap_or(i64::MAX));
        }
        self.ring().set_committed(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<RaftLogId>> {
        Ok(self.ring().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<RaftEntry> = entries.into_iter().collect();
        while self.shared.engine.queued_bytes() > QUEUED_BYTES_MAX {
            sleep(QUEUED_PAUSE).await;
        }
        let Some(last) = entries.last().map(|entry| entry.log_id.index) else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let records = entries
            .iter()
            .map(|entry| LogRecord {
                index: position(entry.log_id.index),
                body: encode_entry(entry),
            })
            .collect();
        let (generation, committed) = {
            let mut ring = self.ring();
            ring.append(entries);
            self.shared.ring_share.settle(&mut ring);
            (ring.generation, ring.take_committed())
        };
        let shard = self.shared.shard;
        if let Some(committed) = committed {
            self.note_mark(Mark::Committed, encode_log_id(&committed));
        }
        let shared = Arc::clone(&self.shared);
        let since = Instant::now();
        let done = move |result: Result<(), Arc<StorageError>>| {
            if result.is_ok() {
                shared.metrics.append_seconds.observe(since.elapsed().as_secs_f64());
                let mut ring = shared.ring();
                ring.flushed(generation, last);
                shared.ring_share.settle(&mut ring);
            }
            callback.io_completed(result.map_err(io::Error::other));
        };
        self.shared.engine.submit(shard, LogOp::Append(records), Some(Box::new(done)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> io::Result<()> {
        let after = last.as_ref().map_or(0, |last| position(last.index));
        let truncated = {
            let mut ring = self.ring();
            let truncated = ring.truncate_after(last);
            self.shared.ring_share.settle(&mut ring);
            truncated
        };
        if truncated {
            self.shared.engine.submit(self.shared.shard, LogOp::TruncateAfter(after), None);
        }
        Ok(())
    }

    async fn purge(&mut self, upto: RaftLogId) -> io::Result<()> {
        self.note_mark(Mark::Purged, encode_log_id(&upto));
        let op = LogOp::PurgeUpTo(position(upto.index));
        self.shared.engine.submit(self.shared.shard, op, None);
        let mut ring = self.ring();
        ring.purge(upto);
        self.shared.ring_share.settle(&mut ring);
        Ok(())
    }
}
