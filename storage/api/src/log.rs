//! The log of every group of a node, behind one writer.
//!
//! ```text
//!   group 1 ─┐ submit(op, done)        ┌─► done(Ok)      in submission order
//!   group 2 ─┼────────► queue ─► writer ── one write, at most one sync ──► disk
//!   group 3 ─┘                         └─► a failed write: the node stops, nothing is acknowledged
//! ```
//!
//! Bodies are opaque: `raft/group` knows entries, votes and log ids. An engine adds a version and a checksum to each, and
//! what does not check on reading is [`StorageError::Corrupt`].
//!
//! # Invariants
//!
//! - **Order.** Operations of a group take effect in the order of their submission, on disk too: after a crash the log
//!   is what the first *n* operations made of it, and every acknowledged synced operation is among them.
//!   Checked for [`crate::mem::MemLog`] and the RocksDB engine alike (`storage/rocks/tests/log.rs`).
//! - **Numbers of marks are never reused.** Frozen by this file's golden test.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use moorline_core::ShardId;

use crate::StorageError;

/// Bytes that may wait for the writer: whoever submits looks at [`LogEngine::queued_bytes`] before and waits while it is
/// above. Enough for several group commits on a slow disk; more would only be memory.
pub const QUEUED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What one operation costs the queue besides its bodies.
const OP_BYTES: usize = 64;

/// One entry of a group's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Its place. Places of a log follow each other without a gap.
    pub index: u64,
    /// What is kept there; opaque.
    pub body: Bytes,
}

/// A small named value of a group, kept beside its entries. Frozen: disks hold these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Mark {
    /// Whom this replica voted for. Synced: forgetting it could elect two leaders.
    Vote = 1,
    /// How far the log is known to be committed. An older one only means to learn it again.
    Committed = 2,
    /// How far the log was purged.
    Purged = 3,
    /// How far the rows on disk are.
    DurableApplied = 4,
    /// A snapshot that is being installed, empty when none is. Synced: rows are half replaced until it is cleared.
    Installing = 5,
    /// That what a replica had here was deleted, or is being deleted, and how far it had come. Synced: what is half
    /// deleted is deleted before anything else, and what it once had is what it must have again before it votes.
    Cleared = 6,
}

impl Mark {
    /// Every mark, by number.
    pub const ALL: [Self; 6] = [
        Self::Vote,
        Self::Committed,
        Self::Purged,
        Self::DurableApplied,
        Self::Installing,
        Self::Cleared,
    ];

    /// Whether setting it waits for the disk.
    #[must_use]
    pub fn synced(self) -> bool {
        match self {
            Self::Vote | Self::Installing | Self::Cleared => true,
            Self::Committed | Self::Purged | Self::DurableApplied => false,
        }
    }
}

/// A change of one group's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOp {
    /// Adds entries, each one place after the one before. Synced. The first need not follow the last on disk: a group
    /// goes on after an installed snapshot; it may not lie before or among what is there.
    Append(Vec<LogRecord>),
    /// Drops what lies above this place. Durable at the latest with the next synced operation.
    TruncateAfter(u64),
    /// Drops what lies at or below this place. Durable with the next synced operation or later.
    PurgeUpTo(u64),
    /// Sets a mark. Synced if the mark is.
    Mark {
        /// Which.
        mark: Mark,
        /// Its value.
        value: Bytes,
    },
}

impl LogOp {
    /// Whether it waits for the disk.
    #[must_use]
    pub fn synced(&self) -> bool {
        match self {
            Self::Append(_) => true,
            Self::Mark { mark, .. } => mark.synced(),
            Self::TruncateAfter(_) | Self::PurgeUpTo(_) => false,
        }
    }

    /// Every engine calls this first: a log with a hole could not be replayed.
    ///
    /// # Panics
    ///
    /// If the entries of an append do not follow each other.
    pub fn assert_consecutive(&self) {
        if let Self::Append(records) = self {
            for pair in records.windows(2) {
                let (one, next) = (pair[0].index, pair[1].index);
                assert_eq!(one + 1, next, "entries of one append follow each other");
            }
        }
    }

    /// What it counts against [`QUEUED_BYTES_MAX`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Append(records) => {
                records.iter().map(|record| OP_BYTES + record.body.len()).sum::<usize>() + OP_BYTES
            }
            Self::Mark { value, .. } => OP_BYTES + value.len(),
            Self::TruncateAfter(_) | Self::PurgeUpTo(_) => OP_BYTES,
        }
    }
}

/// Called once when an operation is durable (synced ones) or written (the others), from the writer's thread: it must not
/// wait. An error means that nobody knows whether it is on disk, and the node is stopping.
pub type Done = Box<dyn FnOnce(Result<(), Arc<StorageError>>) + Send>;

/// The logs of all groups of a node.
pub trait LogEngine: Send + Sync + 'static {
    /// Queues an operation and returns at once. See [`QUEUED_BYTES_MAX`].
    ///
    /// # Panics
    ///
    /// If the entries of an [`LogOp::Append`] do not follow each other.
    fn submit(&self, group: ShardId, op: LogOp, done: Option<Done>);

    /// Entries from `from` to before `to`, as far as they are there, until their bodies exceed `bytes_max`: at least one
    /// if there is one at `from`. Ends before a gap. Sees every operation that is done.
    ///
    /// # Errors
    ///
    /// As [`StorageError`]; the replica must stop.
    fn read(
        &self,
        group: ShardId,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<LogRecord>, StorageError>;

    /// The value of a mark.
    ///
    /// # Errors
    ///
    /// As [`StorageError`]; the replica must stop.
    fn mark(&self, group: ShardId, mark: Mark) -> Result<Option<Bytes>, StorageError>;

    /// The first and the last place that hold an entry.
    ///
    /// # Errors
    ///
    /// As [`StorageError`]; the replica must stop.
    fn bounds(&self, group: ShardId) -> Result<Option<(u64, u64)>, StorageError>;

    /// Bytes that wait for the writer.
    fn queued_bytes(&self) -> usize;
}

impl fmt::Debug for dyn LogEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogEngine").field("queued_bytes", &self.queued_bytes()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_keep_their_numbers() {
        // Frozen: a change here would read a vote as something else.
        assert_eq!(Mark::ALL.map(|mark| mark as u8), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn what_elections_and_installs_rest_on_is_synced() {
        let mark = |mark| LogOp::Mark { mark, value: Bytes::new() };
        let synced = [LogOp::Append(Vec::new()), mark(Mark::Vote), mark(Mark::Installing)];
        let rides = [LogOp::TruncateAfter(1), LogOp::PurgeUpTo(1), mark(Mark::Committed)];
        assert!(synced.iter().all(LogOp::synced));
        assert!(!rides.iter().any(LogOp::synced));
    }
}
