//! Reading and changing rows: the traits every store and every overlay implements.

use std::{ops::ControlFlow, path::PathBuf, sync::Arc};

use bytes::Bytes;

/// Why storage could not answer. None of these may be retried: the replica stops (ARCHITECTURE, failure rules).
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The disk said no, or an earlier no made the store unusable.
    #[error("the disk failed while {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the disk said.
        #[source]
        source: std::io::Error,
    },
    /// Bytes on disk are not what was written.
    #[error("{what} is corrupt: {why}")]
    Corrupt {
        /// Which rows or file.
        what: String,
        /// How it was noticed.
        why: String,
    },
    /// A directory belongs to another node or cluster, or misses what it must have.
    #[error("{path}: {why}")]
    Identity {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
}

/// Rows that can be read. Keys are ordered as bytes.
pub trait View {
    /// The value of a key.
    ///
    /// # Errors
    ///
    /// As [`StorageError`]; the replica must stop.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// Visits the rows with `from <= key < to` in key order until `visit` breaks.
    ///
    /// # Errors
    ///
    /// As [`StorageError`]; the replica must stop.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &Bytes) -> ControlFlow<()>,
    ) -> Result<(), StorageError>;
}

impl<V: View + ?Sized> View for &V {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        (**self).get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &Bytes) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        (**self).scan(from, to, visit)
    }
}

impl<V: View + ?Sized> View for Arc<V> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        (**self).get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &Bytes) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        (**self).scan(from, to, visit)
    }
}

/// Rows that can be changed in memory; what `apply` writes to.
pub trait Rows: View {
    /// Sets a row.
    fn put(&mut self, key: Bytes, value: Bytes);
    /// Sets a row that the caller knows is not there now. If it is removed before it reached the disk, nothing of it
    /// is ever written.
    fn put_fresh(&mut self, key: Bytes, value: Bytes) {
        self.put(key, value);
    }
    /// Removes a row, if it is there.
    fn delete(&mut self, key: Bytes);
}

/// Changes that reach a [`Store`] together or not at all. Later changes of one key win.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// `(key, Some(value))` sets, `(key, None)` removes.
    pub changes: Vec<(Bytes, Option<Bytes>)>,
}

/// A durable home of rows. Shared by all groups of a node; each group's keys start with its shard.
pub trait Store: View + Send + Sync + 'static {
    /// Writes a batch atomically. Not durable before [`Store::flush`].
    ///
    /// # Errors
    ///
    /// As [`StorageError`]; the replica must stop.
    fn write(&self, batch: Batch) -> Result<(), StorageError>;

    /// Makes everything written before this call durable.
    ///
    /// # Errors
    ///
    /// As [`StorageError`]; the replica must stop.
    fn flush(&self) -> Result<(), StorageError>;
}
