//! What a store does with all rows of one shard at once: out as files, in from files, gone.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use moorline_core::ShardId;

use crate::{StorageError, Store};

/// A file of rows in key order. What is in it is the store's own affair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SstFile {
    /// Where it lies.
    pub path: PathBuf,
    /// How large it is.
    pub bytes: u64,
    /// CRC32C over all of it.
    pub crc32c: u32,
    /// How many rows are in it.
    pub keys: u64,
}

/// A [`Store`] whose shards can leave and come as files.
pub trait ShardStore: Store + fmt::Debug {
    /// Writes all rows of a shard, as they are at this moment, into files in `dir`. No rows, no file.
    ///
    /// # Errors
    ///
    /// As [`StorageError`]. What was written so far stays in `dir`.
    fn export(&self, shard: ShardId, dir: &Path) -> Result<Vec<SstFile>, StorageError>;

    /// Removes all rows of a shard, and gives their space back; durable when it returns.
    ///
    /// # Errors
    ///
    /// As [`StorageError`]; it may be done again.
    fn remove(&self, shard: ShardId) -> Result<(), StorageError>;

    /// Replaces all rows of a shard by those of an export; durable when it returns. The files are copied. Without files
    /// the shard's rows are removed.
    ///
    /// # Errors
    ///
    /// [`StorageError::Corrupt`], and nothing was touched, if a file is not what it is said to be. After any other the
    /// rows may be half replaced: it has to be done again.
    fn install(&self, shard: ShardId, files: &[SstFile]) -> Result<(), StorageError>;
}
