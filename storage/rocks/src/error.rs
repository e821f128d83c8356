//! RocksDB's errors and the file system's, in the words of [`StorageError`]; and the end of a node that can't go on.

use std::{io, path::Path, sync::Arc};

use moorline_storage::StorageError;
use rocksdb::ErrorKind;

/// What to do with a directory that cannot be trusted any more.
pub(crate) const ADVICE: &str = "remove this node from the cluster and join it again with an empty directory and a new \
    node id; never start a known id on an emptied directory";

/// Called with the reason when the disk can't be trusted any more. Should not return.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// Says why and aborts the process: after a failed write nobody knows what is on disk, and nothing may be answered.
#[must_use]
pub fn abort() -> Fatal {
    Arc::new(|why| {
        tracing::error!(why, "the disk cannot be trusted; the process ends");
        std::process::abort()
    })
}

/// An error of a database in use.
pub(crate) fn failed(doing: &'static str, error: rocksdb::Error) -> StorageError {
    if error.kind() == ErrorKind::Corruption {
        let what = format!("{doing}: a file");
        return StorageError::Corrupt { what, why: format!("{}; {ADVICE}", error.into_string()) };
    }
    StorageError::Io { doing, source: io_error(error) }
}

/// An error while a database is opened: who reads it has to know what to do.
pub(crate) fn refused(path: &Path, error: rocksdb::Error) -> StorageError {
    let (kind, why) = (error.kind(), error.to_string());
    if kind == ErrorKind::Corruption {
        let what = path.display().to_string();
        return StorageError::Corrupt { what, why: format!("{why}; {ADVICE}") };
    }
    let path = path.to_owned();
    if kind == ErrorKind::InvalidArgument {
        return StorageError::Identity { path, why: format!("{why}; {ADVICE}") };
    }
    // RocksDB has no kind for this; its text is held by a test (`tests/damage.rs`).
    if why.contains("lock") {
        return StorageError::Identity { path, why: format!("another process uses it: {why}") };
    }
    StorageError::Io { doing: "opening a database", source: io_error(error) }
}

fn io_error(error: rocksdb::Error) -> io::Error {
    let why = error.into_string();
    let kind = if why.contains("No space left") {
        io::ErrorKind::StorageFull
    } else {
        io::ErrorKind::Other
    };
    io::Error::new(kind, why)
}

/// An error of the file system.
pub(crate) fn io_failed(doing: &'static str) -> impl FnOnce(io::Error) -> StorageError {
    move |source| StorageError::Io { doing, source }
}
