//! Rows on disk, without a write-ahead log: each group's Raft log is theirs.
//!
//! # Invariants
//!
//! - **A crash leaves a prefix of the batches**, the flushed ones at least: no batch is ever there in part, because a
//!   batch lies in one buffer and buffers are written out whole and in order. Checked by `tests/store.rs`.
//! - **Scans across buckets ignore prefix filters**, which hold only within one. Checked by the same tests.

use std::{fmt, ops::ControlFlow, path::Path, sync::Arc};

use bytes::Bytes;
use moorline_storage::{Batch, StorageError, Store, View, key::BUCKET_PREFIX_BYTES};
use prometheus::Registry;
use rocksdb::{
    ColumnFamily, DBRawIterator, ErrorKind, FlushOptions, ReadOptions, Snapshot, WriteBatch,
    WriteOptions,
    event_listener::{DBBackgroundErrorReason, EventListener, MutableStatus},
};

use crate::{
    error::{ADVICE, Fatal, failed, refused},
    metrics::{Sizes, StoreMetrics},
    options::{self, Create, Database, STATE, StoreConfig},
};

/// The rows of all groups of a node.
pub struct RocksStore {
    pub(crate) database: Arc<Database>,
    pub(crate) config: StoreConfig,
    metrics: StoreMetrics,
}

impl fmt::Debug for RocksStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksStore").field("path", &self.database.path()).finish_non_exhaustive()
    }
}

/// Compactions and flushes fail out of sight; afterwards nothing more would reach the disk.
pub(crate) struct BackgroundErrors(pub(crate) Fatal);

impl EventListener for BackgroundErrors {
    fn on_background_error(&self, reason: DBBackgroundErrorReason, status: MutableStatus) {
        let what = match status.result() {
            Ok(()) => "no reason given".to_owned(),
            // Closing interrupts a flush, and RocksDB reports that too.
            Err(error) if error.kind() == ErrorKind::ShutdownInProgress => return,
            Err(error) if error.kind() == ErrorKind::Corruption => format!("{error}; {ADVICE}"),
            Err(error) => error.to_string(),
        };
        (self.0)(&format!("RocksDB failed in the background ({reason:?}): {what}"));
    }
}

impl RocksStore {
    /// Opens the rows in `path`. `fatal` is called when the disk fails out of sight.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupt`] and [`StorageError::Identity`] with advice for the operator.
    pub fn open(
        path: &Path,
        create: Create,
        config: &StoreConfig,
        fatal: Fatal,
        registry: &Registry,
    ) -> Result<Self, StorageError> {
        let (mut options, families) = options::store(config, create);
        options.add_event_listener(BackgroundErrors(fatal));
        let database = Database::open_cf_descriptors(&options, path, families)
            .map_err(|error| refused(path, error))?;
        let database = Arc::new(database);
        Sizes::of_state(registry, &database)?;
        let metrics = StoreMetrics::new(registry)?;
        Ok(Self { database, config: config.clone(), metrics })
    }

    pub(crate) fn family(&self) -> &ColumnFamily {
        self.database.cf_handle(STATE).expect("it is opened with the database")
    }

    /// The rows as they are now, whatever is written meanwhile.
    #[must_use]
    pub fn snapshot(&self) -> RocksView<'_> {
        RocksView { snapshot: self.database.snapshot(), family: self.family() }
    }

    /// Reads every file and compares its checksums. Slow: for the background.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupt`] if one does not check.
    pub fn verify_checksums(&self) -> Result<(), StorageError> {
        self.database.verify_checksum().map_err(|error| failed("checking rows", error))
    }

    pub(crate) fn write_unlogged(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        let written = self.database.write_opt(batch, &unlogged);
        written.map_err(|error| failed("writing rows", error))?;
        self.metrics.written_bytes.inc_by(batch.size_in_bytes() as u64);
        Ok(())
    }
}

impl View for RocksStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let found = self.database.get_pinned_cf(self.family(), key);
        let found = found.map_err(|error| failed("reading rows", error))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &Bytes) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        if from >= to {
            return Ok(());
        }
        let rows = self.database.raw_iterator_cf_opt(self.family(), range(from, to));
        walk(rows, from, visit)
    }
}

impl Store for RocksStore {
    fn write(&self, batch: Batch) -> Result<(), StorageError> {
        let family = self.family();
        let mut changes = WriteBatch::default();
        for (key, value) in &batch.changes {
            match value {
                Some(value) => changes.put_cf(family, key, value),
                None => changes.delete_cf(family, key),
            }
        }
        self.write_unlogged(&changes)
    }

    fn flush(&self) -> Result<(), StorageError> {
        let _timed = self.metrics.flush_seconds.start_timer();
        let mut and_wait = FlushOptions::default();
        and_wait.set_wait(true);
        let flushed = self.database.flush_cfs_opt(&[&self.family()], &and_wait);
        flushed.map_err(|error| failed("flushing rows", error))
    }
}

/// The rows at one moment.
pub struct RocksView<'a> {
    snapshot: Snapshot<'a>,
    family: &'a ColumnFamily,
}

impl fmt::Debug for RocksView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksView").finish_non_exhaustive()
    }
}

impl View for RocksView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let found = self.snapshot.get_pinned_cf(self.family, key);
        let found = found.map_err(|error| failed("reading rows", error))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &Bytes) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        if from >= to {
            return Ok(());
        }
        walk(self.snapshot.raw_iterator_cf_opt(self.family, range(from, to)), from, visit)
    }
}

fn range(from: &[u8], to: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(to);
    let one_bucket = from.len() >= BUCKET_PREFIX_BYTES
        && to.get(..BUCKET_PREFIX_BYTES) == Some(&from[..BUCKET_PREFIX_BYTES]);
    options.set_total_order_seek(!one_bucket);
    options
}

fn walk(
    mut rows: DBRawIterator<'_>,
    from: &[u8],
    visit: &mut dyn FnMut(&[u8], &Bytes) -> ControlFlow<()>,
) -> Result<(), StorageError> {
    rows.seek(from);
    while let Some((key, value)) = rows.item() {
        if visit(key, &Bytes::copy_from_slice(value)).is_break() {
            return Ok(());
        }
        rows.next();
    }
    rows.status().map_err(|error| failed("reading rows", error))
}
