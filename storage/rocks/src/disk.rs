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

use moorline_core::{NodeId, level::KNOWN};
use moorline_storage::StorageError;
use prometheus::Registry;
use rustix::fs::{FlockOperation, flock};

use crate::{
    Create, Fatal, Identity, LogConfig, RocksLog, RocksStore, StoreConfig,
    error::{ADVICE, io_failed},
    identity::{self, sync_dir},
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
                // What the cluster is at, the node hears of it.
                format: KNOWN.min,
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
    if let Err(misfit) = KNOWN.check(found.format) {
        return refuse(misfit.to_string());
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

#[cfg(test)]
mod tests {
    use moorline_core::ShardId;
    use moorline_storage::{
        Batch, Store, View, key,
        log::{LogEngine, LogOp, Mark},
    };

    use super::*;
    use crate::abort;

    const WANTED: Wanted = Wanted { cluster: 0xabc, node: NodeId(3), shards: 12 };

    fn open_as(dir: &Path, wanted: &Wanted, new_store: u128) -> Result<Disk, StorageError> {
        let (store, log) = (StoreConfig::default(), LogConfig::default());
        Disk::open(dir, wanted, new_store, &store, &log, abort(), &Registry::new())
    }

    fn open(dir: &Path) -> Result<Disk, StorageError> {
        open_as(dir, &WANTED, 77)
    }

    /// The directory of a node that was started once.
    fn used() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        assert!(open(dir.path()).unwrap().fresh);
        dir
    }

    /// Not this one: says why, and what to do.
    fn refused(opened: Result<Disk, StorageError>, because: &str) {
        match opened {
            Err(StorageError::Identity { why, .. }) => assert!(why.contains(because), "{why}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_directory_keeps_its_identity_and_its_data() {
        let dir = used();
        let disk = open_as(dir.path(), &WANTED, 78).unwrap();
        assert_eq!((disk.identity.store, disk.fresh), (77, false), "the id it was made with");
        let row = (key::applied(ShardId(1)), Some("rows".into()));
        disk.store.write(Batch { changes: vec![row.clone()] }).unwrap();
        disk.store.flush().unwrap();
        let vote = LogOp::Mark { mark: Mark::Vote, value: "vote".into() };
        disk.log.submit(ShardId(1), vote, None);
        drop(disk);
        let disk = open(dir.path()).unwrap();
        assert_eq!(disk.store.get(&row.0).unwrap(), row.1);
        assert_eq!(disk.log.mark(ShardId(1), Mark::Vote).unwrap(), Some("vote".into()));
    }

    #[test]
    fn another_cluster_node_or_number_of_shards_is_refused() {
        let dir = used();
        let table = [
            (Wanted { cluster: 1, ..WANTED }, "belongs to cluster"),
            (Wanted { node: NodeId(4), ..WANTED }, "belongs to node 3, not 4"),
            (Wanted { shards: 6, ..WANTED }, "12 shards, not 6"),
        ];
        for (wanted, because) in table {
            refused(open_as(dir.path(), &wanted, 1), because);
        }
        open(dir.path()).unwrap();
    }

    #[test]
    fn an_emptied_directory_of_a_known_node_is_refused() {
        for name in [LOG, STATE] {
            let dir = used();
            fs::remove_dir_all(dir.path().join(name)).unwrap();
            refused(open(dir.path()), "new node id");
            fs::create_dir(dir.path().join(name)).unwrap();
            refused(open(dir.path()), "missing or empty");
            assert_eq!(fs::read_dir(dir.path().join(name)).unwrap().count(), 0, "nothing was made");
        }
    }

    #[test]
    fn data_without_an_owner_is_refused() {
        let dir = used();
        for name in ["node.json", "node.json.copy"] {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        refused(open(dir.path()), "no node.json");
    }

    #[test]
    fn a_first_start_that_was_interrupted_begins_again() {
        let dir = used();
        for name in ["node.json", "node.json.copy"] {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join(CREATING), "").unwrap();
        let disk = open_as(dir.path(), &WANTED, 79).unwrap();
        assert_eq!((disk.identity.store, disk.fresh), (79, true));
        drop(disk);
        assert!(!dir.path().join(CREATING).exists());
        // Interrupted after its last step but one: everything is there.
        fs::write(dir.path().join(CREATING), "").unwrap();
        assert_eq!(open(dir.path()).unwrap().identity.store, 79);
        assert!(!dir.path().join(CREATING).exists());
    }

    #[test]
    fn a_second_process_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).unwrap();
        refused(open(dir.path()), "another process");
        drop(first);
        open(dir.path()).unwrap();
    }

    #[test]
    fn a_directory_of_a_higher_level_is_refused() {
        let dir = used();
        let identity = identity::read(dir.path()).unwrap().unwrap();
        identity::note_level(dir.path(), KNOWN.max).unwrap();
        assert_eq!(open(dir.path()).unwrap().identity.format, KNOWN.max);
        identity::write(dir.path(), Identity { format: KNOWN.max + 1, ..identity }).unwrap();
        refused(open(dir.path()), "Start the newer program");
    }
}
