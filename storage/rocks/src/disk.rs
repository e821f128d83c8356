//! A node's data directory: whether it may be used, and both databases in it.
//!
//! ```text
//!   first start   mark "creating" ─► raftlog/, state/ ─► node.json ─► remove the mark
//!   later starts  node.json ─► is it ours? is everything there? ─► open, never create
//! ```
//!
//! # Invariants
//!
//! - **An emptied directory is not a new one.** Once `node.json` exists nothing is created, and without it a directory
//!   with data in it is refused: a node that forgot its votes could elect two leaders.
//! - **One process.** `LOCK` is held as long as [`Disk`] lives.
//!
//! Checked by this file's tests.

use std::{
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use moorline_core::NodeId;
use moorline_storage::StorageError;
use prometheus::Registry;
use rustix::fs::{FlockOperation, flock};

use crate::{
    Create, Fatal, Identity, LogConfig, RocksLog, RocksStore, StoreConfig,
    error::{ADVICE, io_failed},
    identity::{self, FORMAT, sync_dir},
    options::is_database,
};

const LOCK: &str = "LOCK";
const LOG: &str = "raftlog";
const STATE: &str = "state";
/// Here while the directory is made: a crash then leaves nothing worth keeping.
const CREATING: &str = "creating";

/// Who wants to use a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The cluster it belongs to.
    pub cluster: u128,
    /// The node that it is.
    pub node: NodeId,
    /// Into how many shards the cluster's data is divided.
    pub shards: u16,
}

/// A node's data directory, opened and locked.
pub struct Disk {
    /// Whose it is.
    pub identity: Identity,
    /// Whether it was made just now.
    pub fresh: bool,
    /// The rows.
    pub store: Arc<RocksStore>,
    /// The logs.
    pub log: Arc<RocksLog>,
    _lock: File,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Disk {
    /// Opens the directory, or makes it on a node's first start, with `new_store` (random) as its store id.
    ///
    /// # Errors
    ///
    /// [`StorageError::Identity`] and [`StorageError::Corrupt`] say what is wrong and what to do.
    pub fn open(
        dir: &Path,
        wanted: &Wanted,
        new_store: u128,
        store: &StoreConfig,
        log: &LogConfig,
        fatal: Fatal,
        registry: &Registry,
    ) -> Result<Self, StorageError> {
        fs::create_dir_all(dir).map_err(io_failed("making the data directory"))?;
        let lock = lock(dir)?;
        let known = identity::read(dir)?;
        let create = match &known {
            Some(identity) => {
                check(dir, identity, wanted)?;
                check_whole(dir)?;
                Create::Never
            }
            None => {
                begin(dir)?;
                Create::IfMissing
            }
        };
        let state_fatal = Arc::clone(&fatal);
        let opened = Self {
            identity: known.unwrap_or(Identity {
                format: FORMAT,
                cluster: wanted.cluster,
                node: wanted.node,
                store: new_store,
                shards: wanted.shards,
            }),
            fresh: known.is_none(),
            log: Arc::new(RocksLog::open(&dir.join(LOG), create, log, fatal, registry)?),
            store: Arc::new(RocksStore::open(
                &dir.join(STATE),
                create,
                store,
                state_fatal,
                registry,
            )?),
            _lock: lock,
        };
        if opened.fresh {
            identity::write(dir, opened.identity)?;
        }
        end(dir)?;
        Ok(opened)
    }
}

fn lock(dir: &Path) -> Result<File, StorageError> {
    let path = dir.join(LOCK);
    let file = File::options().create(true).append(true).open(&path);
    let file = file.map_err(io_failed("opening LOCK"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StorageError::Identity {
            path,
            why: "another process uses this directory: stop it, or give this one its own"
                .to_owned(),
        }),
        Err(error) => Err(io_failed("locking the data directory")(error.into())),
    }
}

fn check(dir: &Path, found: &Identity, wanted: &Wanted) -> Result<(), StorageError> {
    let refuse = |why: String| Err(StorageError::Identity { path: dir.join("node.json"), why });
    if found.format != FORMAT {
        return refuse(format!(
            "its format is {}, this version knows {FORMAT}: use the version that wrote it",
            found.format
        ));
    }
    if found.cluster != wanted.cluster {
        return refuse(format!(
            "it belongs to cluster {:032x}, not {:032x}: is cluster.name or the directory wrong?",
            found.cluster, wanted.cluster
        ));
    }
    if found.node != wanted.node {
        return refuse(format!(
            "it belongs to node {}, not {}: is node.id or the directory wrong?",
            found.node, wanted.node
        ));
    }
    if found.shards != wanted.shards {
        return refuse(format!(
            "it was made for {} shards, not {}: their number is fixed when a cluster is made",
            found.shards, wanted.shards
        ));
    }
    Ok(())
}

/// The directory of a node that started before has everything, or it is not that directory any more.
fn check_whole(dir: &Path) -> Result<(), StorageError> {
    for path in [LOG, STATE].map(|name| dir.join(name)) {
        if !is_database(&path) {
            let why = format!("it is missing or empty, though this node has used it; {ADVICE}");
            return Err(StorageError::Identity { path, why });
        }
    }
    Ok(())
}

/// Makes sure that nothing is there which somebody may miss, and says that the rest may be thrown away.
fn begin(dir: &Path) -> Result<(), StorageError> {
    let mark = dir.join(CREATING);
    let databases = [LOG, STATE].map(|name| dir.join(name));
    if mark.exists() {
        for path in databases.iter().filter(|path| path.exists()) {
            fs::remove_dir_all(path).map_err(io_failed("clearing a half-made directory"))?;
        }
    } else if let Some(path) = databases.into_iter().find(|path| path.exists()) {
        let why = format!("there is data, but no node.json that says whose; {ADVICE}");
        return Err(StorageError::Identity { path, why });
    }
    let marked = File::create(&mark).and_then(|file| file.sync_all()).and_then(|()| sync_dir(dir));
    marked.map_err(io_failed("making the data directory"))
}

/// The directory is whole.
fn end(dir: &Path) -> Result<(), StorageError> {
    let mark: PathBuf = dir.join(CREATING);
    let removed = match fs::remove_file(mark) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other,
    };
    removed.and_then(|()| sync_dir(dir)).map_err(io_failed("making the data directory"))
}
