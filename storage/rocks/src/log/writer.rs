//! The one thread that writes: it takes what all groups have, writes it at once, syncs once, and tells everybody.
//!
//! While it syncs, the next operations collect: the slower the disk, the more each sync carries.

use std::{
    collections::VecDeque,
    io::IoSlice,
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use moorline_core::ShardId;
use moorline_storage::{
    StorageError,
    log::{Done, LogOp, LogRecord},
};
use rocksdb::{WriteBatch, WriteOptions};

use super::record;
use crate::{
    error::{Fatal, failed},
    metrics::LogMetrics,
    options::Database,
};

/// The most operations in one commit: enough to share a sync among all groups, few enough to bound what it waits for.
const COMMIT_OPS_MAX: usize = 4096;
/// The most bytes in one commit.
const COMMIT_BYTES_MAX: usize = 8 * 1024 * 1024;

struct Queued {
    group: ShardId,
    op: LogOp,
    bytes: usize,
    done: Option<Done>,
}

#[derive(Default)]
struct Waiting {
    ops: VecDeque<Queued>,
    stopping: bool,
    /// Why nothing is written any more.
    failed: Option<Arc<StorageError>>,
}

/// What waits for the writer. Its limit, `QUEUED_BYTES_MAX`, is kept by those who submit: they can wait, a lock cannot.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    more: Condvar,
    bytes: AtomicUsize,
    metrics: LogMetrics,
    fatal: Fatal,
}

impl Queue {
    pub(super) fn new(metrics: LogMetrics, fatal: Fatal) -> Self {
        Self {
            waiting: Mutex::default(),
            more: Condvar::new(),
            bytes: AtomicUsize::new(0),
            metrics,
            fatal,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no panic while it is locked")
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn push(&self, group: ShardId, op: LogOp, done: Option<Done>) {
        let bytes = op.bytes();
        let mut waiting = self.waiting();
        if let Some(error) = waiting.failed.clone() {
            drop(waiting);
            tell(done, Err(error));
            return;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        waiting.ops.push_back(Queued { group, op, bytes, done });
        drop(waiting);
        self.more.notify_one();
    }

    pub(super) fn stop(&self) {
        self.waiting().stopping = true;
        self.more.notify_one();
    }

    /// The next commit's operations, oldest first; `None` when there is no more to come.
    fn take(&self) -> Option<Vec<Queued>> {
        let mut waiting = self.waiting();
        while waiting.ops.is_empty() {
            if waiting.stopping {
                return None;
            }
            waiting = self.more.wait(waiting).expect("no panic while it is locked");
        }
        let mut bytes = 0;
        let fits = |queued: &&Queued| {
            bytes += queued.bytes;
            bytes <= COMMIT_BYTES_MAX
        };
        // One alone may be larger.
        let count = waiting.ops.iter().take(COMMIT_OPS_MAX).take_while(fits).count().max(1);
        Some(waiting.ops.drain(..count).collect())
    }

    /// From now on every operation is answered with this error. Returns those that waited.
    fn fail(&self, error: &Arc<StorageError>) -> VecDeque<Queued> {
        let mut waiting = self.waiting();
        waiting.failed = Some(Arc::clone(error));
        mem::take(&mut waiting.ops)
    }
}

fn tell(done: Option<Done>, result: Result<(), Arc<StorageError>>) {
    if let Some(done) = done {
        done(result);
    }
}

/// A writer that is gone would leave a node that answers nothing and looks alive.
struct EndsTheNode<'a>(&'a Queue);

impl Drop for EndsTheNode<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            (self.0.fatal)("the log writer panicked");
        }
    }
}

/// The writer's thread.
pub(super) fn run(database: &Database, queue: &Queue) {
    let _guard = EndsTheNode(queue);
    while let Some(ops) = queue.take() {
        match commit(database, &queue.metrics, &ops) {
            Ok(()) => {
                let bytes = ops.iter().map(|queued| queued.bytes).sum();
                let before = queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
                queue.metrics.queued_bytes.set(i64::try_from(before - bytes).unwrap_or(i64::MAX));
                for queued in ops {
                    tell(queued.done, Ok(()));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                let waiting = queue.fail(&error);
                // Not tried again: after a failed sync the kernel may have dropped the pages and would say "done".
                let cause = std::error::Error::source(&*error);
                (queue.fatal)(&match cause {
                    Some(cause) => format!("{error}: {cause}"),
                    None => error.to_string(),
                });
                for queued in ops.into_iter().chain(waiting) {
                    tell(queued.done, Err(Arc::clone(&error)));
                }
                return;
            }
        }
    }
}

fn commit(database: &Database, metrics: &LogMetrics, ops: &[Queued]) -> Result<(), StorageError> {
    let mut batch = WriteBatch::default();
    for queued in ops {
        add(&mut batch, queued.group, &queued.op)?;
    }
    let mut how = WriteOptions::default();
    // Also when no operation asks for it (a purge after a checkpoint): see "one commit after the other".
    how.set_sync(!cfg!(feature = "danger-skip-fsync"));
    metrics.operations.observe(ops.len() as f64);
    metrics.bytes.inc_by(batch.size_in_bytes() as u64);
    let _timed = metrics.sync_seconds.start_timer();
    database.write_opt(&batch, &how).map_err(|error| failed(WRITING, error))
}

const WRITING: &str = "writing the log";

fn put(batch: &mut WriteBatch, key: &[u8], body: &[u8]) -> Result<(), StorageError> {
    let head = record::head(key, body);
    // In parts: an entry is large, and the batch copies it anyway.
    batch
        .put_vectored(&[IoSlice::new(key)], &[IoSlice::new(&head), IoSlice::new(body)])
        .map_err(|error| failed(WRITING, error))
}

fn add(batch: &mut WriteBatch, group: ShardId, op: &LogOp) -> Result<(), StorageError> {
    let (first, end) = record::entries(group);
    match op {
        LogOp::Append(records) => {
            for LogRecord { index, body } in records {
                put(batch, &record::entry_key(group, *index), body)?;
            }
        }
        LogOp::TruncateAfter(last) => {
            if let Some(next) = last.checked_add(1) {
                batch.delete_range(&record::entry_key(group, next)[..], &end[..]);
            }
        }
        LogOp::PurgeUpTo(upto) => match upto.checked_add(1) {
            Some(next) => batch.delete_range(&first[..], &record::entry_key(group, next)[..]),
            None => batch.delete_range(&first[..], &end[..]),
        },
        LogOp::Mark { mark, value } => put(batch, &record::mark_key(group, *mark), value)?,
    }
    Ok(())
}
