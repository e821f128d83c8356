//! The logs of all groups of a node, in one RocksDB with a synced write-ahead log.
//!
//! # Invariants
//!
//! - **Synced, then told.** An operation's `Done` is called after the synced write that holds it returned.
//!   Checked by `tests/kill.rs` and `tests/failing_disk.rs`.
//! - **One commit after the other.** Each commit is synced before the next begins, also one that nobody waits for; so a
//!   commit on disk proves all before it. [`wal`] rests on this.
//! - **No second try.** After the first failed write nothing more is written and everybody is told so.
//! - **Read what was written.** Every record carries a checksum over its key and its bytes. Checked by [`record`]'s tests
//!   and `tests/damage.rs`.

mod record;
mod wal;
mod writer;

use std::{fmt, path::Path, sync::Arc, thread};

use bytes::Bytes;
use moorline_core::ShardId;
use moorline_storage::{
    StorageError,
    log::{Done, LogEngine, LogOp, LogRecord, Mark},
};
use prometheus::Registry;
use rocksdb::ReadOptions;

use crate::{
    error::{Fatal, failed, io_failed, refused},
    metrics::{LogMetrics, Sizes},
    options::{self, Create, Database, LogConfig},
    store::BackgroundErrors,
};
use writer::Queue;

/// What the writer's thread is called in a debugger and in `top`.
const THREAD_NAME: &str = "log-writer";

/// The logs of all groups of a node.
pub struct RocksLog {
    database: Arc<Database>,
    queue: Arc<Queue>,
    writer: Option<thread::JoinHandle<()>>,
}

impl fmt::Debug for RocksLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksLog").field("path", &self.database.path()).finish_non_exhaustive()
    }
}

impl RocksLog {
    /// Opens the logs in `path` and starts their writer. `fatal` is called once, when a write fails.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupt`] and [`StorageError::Identity`] with advice for the operator.
    pub fn open(
        path: &Path,
        create: Create,
        config: &LogConfig,
        fatal: Fatal,
        registry: &Registry,
    ) -> Result<Self, StorageError> {
        if cfg!(feature = "danger-skip-fsync") {
            tracing::error!(
                "THIS BUILD DOES NOT SYNC ITS LOG: acknowledged messages will be lost. It is made to be caught by tests"
            );
        }
        wal::check(path)?;
        let mut options = options::log(config, create);
        options.add_event_listener(BackgroundErrors(Arc::clone(&fatal)));
        let database = Database::open(&options, path).map_err(|error| refused(path, error))?;
        let database = Arc::new(database);
        Sizes::of_log(registry, &database)?;
        let queue = Arc::new(Queue::new(LogMetrics::new(registry)?, fatal));
        let writer = {
            let (database, queue) = (Arc::clone(&database), Arc::clone(&queue));
            thread::Builder::new()
                .name(THREAD_NAME.to_owned())
                .spawn(move || writer::run(&database, &queue))
                .map_err(io_failed("starting the log writer"))?
        };
        Ok(Self { database, queue, writer: Some(writer) })
    }

    /// Reads every file and compares its checksums. Slow: for the background.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupt`] if one does not check.
    pub fn verify_checksums(&self) -> Result<(), StorageError> {
        self.database.verify_checksum().map_err(|error| failed("checking the log", error))
    }
}

impl Drop for RocksLog {
    /// Writes what is queued and ends the writer.
    fn drop(&mut self) {
        self.queue.stop();
        if let Some(writer) = self.writer.take()
            // The last owner may be a `Done`, which the writer itself calls.
            && writer.thread().id() != thread::current().id()
            && writer.join().is_err()
        {
            tracing::error!("the log writer had panicked");
        }
    }
}

/// Reads of the log are rare (what is recent is in memory) and cross no bucket.
fn range(from: &[u8], to: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(to);
    options
}

const READING: &str = "reading the log";

impl LogEngine for RocksLog {
    fn submit(&self, group: ShardId, op: LogOp, done: Option<Done>) {
        op.assert_consecutive();
        self.queue.push(group, op, done);
    }

    fn read(
        &self,
        group: ShardId,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<LogRecord>, StorageError> {
        let mut records: Vec<LogRecord> = Vec::new();
        if from >= to {
            return Ok(records);
        }
        let first = record::entry_key(group, from);
        let mut rows = self.database.raw_iterator_opt(range(&first, &record::entry_key(group, to)));
        rows.seek(first);
        let mut bytes = 0_usize;
        let mut next = from;
        while let Some((key, value)) = rows.item() {
            if record::index_of(key)? != next {
                break;
            }
            let body = record::open(key, value)?;
            bytes = bytes.saturating_add(body.len());
            if bytes > bytes_max && !records.is_empty() {
                break;
            }
            records.push(LogRecord { index: next, body });
            next += 1;
            rows.next();
        }
        rows.status().map_err(|error| failed(READING, error))?;
        Ok(records)
    }

    fn mark(&self, group: ShardId, mark: Mark) -> Result<Option<Bytes>, StorageError> {
        let key = record::mark_key(group, mark);
        let found = self.database.get_pinned(key).map_err(|error| failed(READING, error))?;
        found.map(|value| record::open(&key, &value)).transpose()
    }

    fn bounds(&self, group: ShardId) -> Result<Option<(u64, u64)>, StorageError> {
        let (from, to) = record::entries(group);
        let mut rows = self.database.raw_iterator_opt(range(&from, &to));
        rows.seek_to_first();
        let first = rows.key().map(record::index_of).transpose()?;
        rows.status().map_err(|error| failed(READING, error))?;
        rows.seek_to_last();
        let last = rows.key().map(record::index_of).transpose()?;
        rows.status().map_err(|error| failed(READING, error))?;
        Ok(first.zip(last))
    }

    fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }
}
