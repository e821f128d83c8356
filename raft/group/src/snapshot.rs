//! Snapshots in transit: files of rows, from a leader's store to a follower that the log no longer reaches.
//!
//! ```text
//!   leader                                               follower
//!   checkpoint, export ── Begin(head) ─────────────────► a staging directory
//!   1 MiB pieces, throttled ── Chunk … ────────────────► checked, appended
//!                           ── End ────────────────────► fsync, mark "installing", replace the rows, clear the mark
//!   cut in the middle       ── Resume(head) ───────────► the same files? what is there already
//! ```
//!
//! # Invariants
//!
//! - **Nothing is replaced before it is all there**: sizes and checksums are compared, files and directory are synced,
//!   before the mark is set.
//! - **A crash while rows are replaced is repaired at start** ([`redo`]): the mark names the staged files,
//!   which stay until it is cleared.
//! - **openraft is told of the snapshot that is sent**: while files of one are kept, it is the current one. What a follower
//!   is believed to have is what it was sent ([`Snapshots::kept_or_export`]).

use std::{
    fmt, io,
    mem::ManuallyDrop,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::ShardId;
use moorline_storage::{ShardStore, SstFile, StorageError, log::Mark};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tracing::info;

use crate::{
    blocking::spawn_blocking,
    checkpoint,
    codec::message::{SnapshotFile, SnapshotHead},
    log_store::LogStore,
    metrics::GroupMetrics,
    state::State,
    types::{RaftLogId, RaftSnapshotMeta},
};

/// Of the mark that names what is being installed.
const MARK_VERSION: u8 = 1;

/// What openraft carries as "the snapshot".
#[derive(Debug)]
pub(crate) enum SnapshotData {
    /// The rows on this node's disk.
    Here,
    /// Files that came from a leader.
    Staged(Staged),
}

/// A snapshot that lies in the staging directory, whole and synced.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) dir: StagedDir,
    pub(crate) head: SnapshotHead,
}

/// A directory of its own for one snapshot in transit; gone when dropped, so not to be dropped while a mark names it.
#[derive(Debug)]
pub(crate) struct StagedDir(PathBuf);

impl StagedDir {
    /// `name` need only be telling: a number makes it unique.
    pub(crate) fn create(staging: &Path, name: &str) -> io::Result<Self> {
        static CREATED: AtomicU64 = AtomicU64::new(0);
        let number = CREATED.fetch_add(1, Ordering::Relaxed);
        let dir = staging.join(format!("{name}-{number}"));
        // Left over by an earlier process, and not named by a mark (or it would have been redone).
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the directory's entries durable; its files are synced one by one.
    pub(crate) fn sync(&self) -> io::Result<()> {
        std::fs::File::open(&self.0)?.sync_all()?;
        match self.0.parent() {
            Some(parent) => std::fs::File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }
}

impl Drop for StagedDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "could not remove a staged snapshot");
        }
    }
}

impl From<SstFile> for SnapshotFile {
    fn from(SstFile { path, bytes, crc32c, keys }: SstFile) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, bytes, crc32c, keys }
    }
}

/// The files of `head` in `dir`, as the store wants them.
pub(crate) fn files_in(dir: &Path, head: &SnapshotHead) -> Vec<SstFile> {
    let file = |file: &SnapshotFile| SstFile {
        path: dir.join(&file.name),
        bytes: file.bytes,
        crc32c: file.crc32c,
        keys: file.keys,
    };
    head.files.iter().map(file).collect()
}

/// Rows as files, all of one index.
#[derive(Debug)]
pub(crate) struct Exported {
    pub(crate) dir: StagedDir,
    pub(crate) meta: RaftSnapshotMeta,
    pub(crate) files: Vec<SnapshotFile>,
}

/// Makes files of the rows of one group, and rows of files.
#[derive(Clone)]
pub(crate) struct Snapshots {
    pub(crate) state: Arc<State>,
    pub(crate) log: LogStore,
    /// Held by whoever writes, exports or replaces the rows on disk.
    pub(crate) maintenance: Arc<Mutex<()>>,
    pub(crate) staging: PathBuf,
    pub(crate) metrics: GroupMetrics,
    /// The one that is being sent, or was not taken whole.
    pub(crate) kept: Arc<StdMutex<Option<Kept>>>,
    /// For how long after it was made.
    pub(crate) keep: Duration,
}

/// Rows as files that a receiver may ask for again.
#[derive(Debug)]
pub(crate) struct Kept {
    exported: Arc<Exported>,
    since: Instant,
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Snapshots {
    /// The snapshot whose files are kept, if the log goes on from it.
    pub(crate) fn kept(&self) -> Option<Arc<Exported>> {
        let mut kept = self.kept.lock().expect("no panic while it is locked");
        let purged = self.log.purged();
        kept.take_if(|kept| {
            kept.since.elapsed() >= self.keep || kept.exported.meta.last_log_id < purged
        });
        kept.as_ref().map(|kept| Arc::clone(&kept.exported))
    }

    /// Lets go of the files: they were taken whole. They stay for as long as another is sent them.
    pub(crate) fn release(&self, taken: Arc<Exported>) {
        let mut kept = self.kept.lock().expect("no panic while it is locked");
        // One is kept, one is `taken`. The last of several lets go of all: each drops its own under the lock.
        kept.take_if(|kept| Arc::ptr_eq(&kept.exported, &taken) && Arc::strong_count(&taken) == 2);
        drop(taken);
    }

    /// Files of rows that reach at least as far as openraft was told, and whether they were kept from before.
    pub(crate) async fn kept_or_export(
        &self,
        told: Option<RaftLogId>,
    ) -> Result<(Arc<Exported>, bool), StorageError> {
        let kept_for = || self.kept().filter(|kept| kept.meta.last_log_id >= told);
        if let Some(kept) = kept_for() {
            return Ok((kept, true));
        }
        let alone = Arc::clone(&self.maintenance).lock_owned().await;
        // For another receiver that came at the same time: what openraft was told of it is what this one gets, too.
        if let Some(kept) = kept_for() {
            return Ok((kept, true));
        }
        let (exported, _alone) = self.export_alone(alone).await?;
        let exported = Arc::new(exported);
        let kept = Kept { exported: Arc::clone(&exported), since: Instant::now() };
        // The one before is older than what openraft was told.
        *self.kept.lock().expect("no panic while it is locked") = Some(kept);
        Ok((exported, false))
    }

    /// Writes the rows out and exports them.
    #[cfg(test)]
    pub(crate) async fn export(&self) -> Result<Exported, StorageError> {
        let alone = Arc::clone(&self.maintenance).lock_owned().await;
        self.export_alone(alone).await.map(|(exported, _)| exported)
    }

    /// The same, under `maintenance`: nothing else writes rows of the group meanwhile, so the files are of one index.
    async fn export_alone(
        &self,
        alone: OwnedMutexGuard<()>,
    ) -> Result<(Exported, OwnedMutexGuard<()>), StorageError> {
        let alone = checkpoint::write_out(&self.state, &self.log, alone).await?;
        let applied = self.state.durable();
        let meta =
            RaftSnapshotMeta { last_log_id: applied.log_id, last_membership: applied.membership };
        let (store, shard) = (Arc::clone(self.state.store()), self.state.shard);
        let staging = self.staging.clone();
        let work = move || -> Result<_, StorageError> {
            let dir = StagedDir::create(&staging, &format!("out-{shard}")).map_err(|source| {
                StorageError::Io { doing: "making a staging directory", source }
            })?;
            let files =
                store.export(shard, dir.path())?.into_iter().map(SnapshotFile::from).collect();
            Ok((Exported { dir, meta, files }, alone))
        };
        spawn_blocking(work).await.expect("exporting does not panic")
    }

    /// Replaces the rows by those of a staged snapshot. An error here ends the process; the next start redoes it.
    pub(crate) async fn install(&self, meta: &RaftSnapshotMeta, staged: Staged) -> io::Result<()> {
        let _alone = self.maintenance.lock().await;
        if self.state.applied_log_id() >= meta.last_log_id {
            return Ok(());
        }
        let since = Instant::now();
        let dir = staged.dir.path().file_name().unwrap_or_default().to_string_lossy();
        let mark = mark_of(&dir, &staged.head);
        // The mark names the files as soon as it is on its way to the disk: a process that ends while this waits must leave
        // them where they are, however it ends. What is left over the next start removes.
        let staged = ManuallyDrop::new(staged);
        self.log.set_mark(Mark::Installing, mark).await?;
        self.state.close();
        if let Err(error) = self.replace(meta, &staged).await {
            self.state
                .fatal(&format!("shard {}: installing a snapshot: {error}", self.state.shard));
            return Err(io::Error::other(error));
        }
        self.log.set_mark(Mark::Installing, Bytes::new()).await?;
        drop(ManuallyDrop::into_inner(staged));
        self.metrics
            .snapshot_seconds
            .with_label_values(&["received"])
            .observe(since.elapsed().as_secs_f64());
        info!(shard = %self.state.shard, index = ?meta.last_log_id.as_ref().map(|id| id.index), "snapshot installed");
        Ok(())
    }

    async fn replace(&self, meta: &RaftSnapshotMeta, staged: &Staged) -> Result<(), StorageError> {
        let (store, shard) = (Arc::clone(self.state.store()), self.state.shard);
        let files = files_in(staged.dir.path(), &staged.head);
        let work = move || store.install(shard, &files);
        spawn_blocking(work).await.expect("installing does not panic")?;
        let applied = self.state.reopen()?;
        if applied.log_id != meta.last_log_id {
            return Err(StorageError::Corrupt {
                what: format!("a snapshot of shard {shard}"),
                why: format!("its rows are at {:?}, not {:?}", applied.log_id, meta.last_log_id),
            });
        }
        Ok(())
    }
}

/// Finishes an installation that a crash interrupted. Before anything of the group is opened.
pub(crate) fn redo(
    shard: ShardId,
    store: &dyn ShardStore,
    mark: Option<Bytes>,
    staging: &Path,
) -> Result<bool, StorageError> {
    let Some(mark) = mark.filter(|mark| !mark.is_empty()) else {
        return Ok(false);
    };
    let corrupt = |why: String| StorageError::Corrupt {
        what: format!("the snapshot that shard {shard} was installing"),
        why: format!("{why}; remove this node from the cluster and join it under a new node id"),
    };
    let (dir, head) = read_mark(mark).map_err(|error| corrupt(error.to_string()))?;
    let dir = staging.join(dir);
    for file in files_in(&dir, &head) {
        let found = std::fs::metadata(&file.path).map(|found| found.len());
        if !matches!(found, Ok(bytes) if bytes == file.bytes) {
            return Err(corrupt(format!("{} is not whole", file.path.display())));
        }
    }
    info!(%shard, "a snapshot was being installed when the process ended: installing it again");
    store.install(shard, &files_in(&dir, &head))?;
    Ok(true)
}

/// The mark: version, the directory's name, the head.
pub(crate) fn mark_of(dir: &str, head: &SnapshotHead) -> Bytes {
    let mut out = bytes::BytesMut::new();
    out.extend_from_slice(&[MARK_VERSION]);
    crate::codec::parts::put_text(&mut out, dir);
    out.extend_from_slice(&head.encode());
    out.freeze()
}

fn read_mark(mark: Bytes) -> Result<(String, SnapshotHead), crate::codec::Malformed> {
    let mut reader = crate::codec::parts::Reader::versioned(mark, MARK_VERSION, "installing mark")?;
    let name = reader.text()?;
    Ok((name, SnapshotHead::decode(reader.rest())?))
}
