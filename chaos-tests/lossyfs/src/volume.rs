//! The file system without FUSE: nodes by number, what is pending, and the power failure.
//!
//! Locks are taken in this order, each held for one step: journal, nodes, one content.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::SystemTime;

use fuser::{FileAttr, FileType};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::content::Content;
use crate::faults::{Faults, Status};
use crate::journal::{HIDDEN, Journal, Place, Renaming};
use crate::node::{Node, ROOT};
use crate::random::Random;

/// Most unsynced bytes in memory, over all files. A kernel writes back too when much is dirty; a file that is written
/// to beyond this is.
pub const PENDING_BYTES_MAX: u64 = 512 << 20;
/// The block size that `statfs` speaks of.
pub(crate) const BLOCK_BYTES: u64 = 4096;

/// When a name is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// At once.
    AtOnce,
    /// When its directory is fsynced.
    WhenSynced,
}

#[derive(Debug)]
struct Known {
    node: Arc<Node>,
    /// How often the kernel looked it up and has not yet forgotten it.
    lookups: u64,
}

/// The file system.
#[derive(Debug)]
pub(crate) struct Volume {
    backing: PathBuf,
    root: Arc<Node>,
    nodes: Mutex<HashMap<u64, Known>>,
    journal: Option<Mutex<Journal>>,
    pending: AtomicU64,
    used: AtomicU64,
    pub(crate) faults: Faults,
}

/// One entry of a directory.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) ino: u64,
    pub(crate) kind: FileType,
    pub(crate) name: OsString,
}

/// How much room there is, in blocks of [`BLOCK_BYTES`], and how many more files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) blocks: u64,
    pub(crate) free: u64,
    pub(crate) files: u64,
    pub(crate) files_free: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in another request must not stop this one; every lock is held for one whole step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Volume {
    pub(crate) fn open(backing: &Path, names: Names) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = File::from(rustix::fs::open(backing, flags, Mode::empty())?);
        let root = Arc::new(Node::root(directory)?);
        let journal = match names {
            Names::AtOnce => None,
            Names::WhenSynced => Some(Mutex::new(Journal::open(&root)?)),
        };
        let known = Known { node: Arc::clone(&root), lookups: 1 };
        Ok(Self {
            backing: backing.to_owned(),
            root,
            nodes: Mutex::new(HashMap::from([(ROOT, known)])),
            journal,
            pending: AtomicU64::new(0),
            used: AtomicU64::new(used(backing)?),
            faults: Faults::default(),
        })
    }

    pub(crate) fn node(&self, ino: u64) -> io::Result<Arc<Node>> {
        let nodes = lock(&self.nodes);
        let known = nodes.get(&ino).ok_or(Errno::STALE)?;
        Ok(Arc::clone(&known.node))
    }

    pub(crate) fn place(&self, directory: u64, name: &OsStr) -> io::Result<Place> {
        if directory == ROOT && name == HIDDEN {
            return Err(Errno::NOENT.into());
        }
        Ok(Place::new(&self.node(directory)?, name))
    }

    /// Looks a name up; the kernel will forget it one time more.
    pub(crate) fn lookup(&self, place: &Place) -> io::Result<(Arc<Node>, FileAttr)> {
        let node = Node::open(&place.directory, &place.name)?;
        self.remember(node)
    }

    /// Takes a node in under its number; if that is known, the known one stays, with its pending changes.
    fn remember(&self, node: Node) -> io::Result<(Arc<Node>, FileAttr)> {
        let node = {
            let mut nodes = lock(&self.nodes);
            let known =
                nodes.entry(node.ino).or_insert_with(|| Known { node: Arc::new(node), lookups: 0 });
            known.lookups += 1;
            Arc::clone(&known.node)
        };
        let attributes = node.attributes()?;
        Ok((node, attributes))
    }

    pub(crate) fn forget(&self, ino: u64, lookups: u64) {
        let mut nodes = lock(&self.nodes);
        let Some(known) = nodes.get_mut(&ino) else { return };
        known.lookups = known.lookups.saturating_sub(lookups);
        let dirty = known.node.content().is_dirty();
        // A file that has a name is kept while it has unsynced changes: somebody may sync it yet.
        if known.lookups == 0 && ino != ROOT && (known.node.is_nameless() || !dirty) {
            let bytes = known.node.content().bytes();
            self.pending.fetch_sub(bytes, Ordering::Relaxed);
            nodes.remove(&ino);
        }
    }

    // ---- names ----

    pub(crate) fn create(
        &self,
        place: &Place,
        mode: u32,
        flags: OFlags,
    ) -> io::Result<(Arc<Node>, FileAttr)> {
        let create = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        match rustix::fs::openat(&place.directory.file, &place.name, create, mode) {
            Ok(file) => {
                self.note(|| Renaming::Created(place.clone()))?;
                self.remember(Node::of(File::from(file), FileType::RegularFile)?)
            }
            Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => {
                let (node, _) = self.lookup(place)?;
                if flags.contains(OFlags::TRUNC) {
                    self.truncate(&node, 0)?;
                }
                let attributes = node.attributes()?;
                Ok((node, attributes))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn mkdir(&self, place: &Place, mode: u32) -> io::Result<(Arc<Node>, FileAttr)> {
        let mode = Mode::from_raw_mode(mode);
        rustix::fs::mkdirat(&place.directory.file, &place.name, mode)?;
        self.note(|| Renaming::CreatedDirectory(place.clone()))?;
        self.lookup(place)
    }

    pub(crate) fn symlink(
        &self,
        place: &Place,
        target: &Path,
    ) -> io::Result<(Arc<Node>, FileAttr)> {
        rustix::fs::symlinkat(target, &place.directory.file, &place.name)?;
        self.note(|| Renaming::Created(place.clone()))?;
        self.lookup(place)
    }

    pub(crate) fn readlink(node: &Node) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&node.file, "", Vec::new())?.into_bytes())
    }

    pub(crate) fn link(&self, node: &Node, place: &Place) -> io::Result<(Arc<Node>, FileAttr)> {
        let (directory, name) = (&place.directory.file, &place.name);
        rustix::fs::linkat(&node.file, "", directory, name, AtFlags::EMPTY_PATH)?;
        self.note(|| Renaming::Created(place.clone()))?;
        self.lookup(place)
    }

    pub(crate) fn unlink(&self, place: &Place) -> io::Result<()> {
        let kept = self.keep(place)?;
        self.release(place, kept.is_some())?;
        rustix::fs::unlinkat(&place.directory.file, &place.name, AtFlags::empty())?;
        self.note(|| Renaming::Removed(place.clone(), kept))
    }

    pub(crate) fn rmdir(&self, place: &Place) -> io::Result<()> {
        let (directory, name) = (&place.directory.file, &place.name);
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        self.note(|| Renaming::RemovedDirectory(place.clone(), mode))
    }

    pub(crate) fn rename(&self, from: &Place, to: &Place, flags: RenameFlags) -> io::Result<()> {
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let destroys = !exchange && !flags.contains(RenameFlags::NOREPLACE);
        let replaced = if destroys { self.keep(to)? } else { None };
        if destroys {
            self.release(to, replaced.is_some())?;
        }
        let (old, new) = (&from.directory.file, &to.directory.file);
        rustix::fs::renameat_with(old, &from.name, new, &to.name, flags)?;
        self.note(|| {
            let (from, to) = (from.clone(), to.clone());
            if exchange {
                Renaming::Exchanged(from, to)
            } else {
                Renaming::Moved { from, to, replaced }
            }
        })
    }

    fn note(&self, renaming: impl FnOnce() -> Renaming) -> io::Result<()> {
        self.journal.as_ref().map_or(Ok(()), |journal| lock(journal).note(renaming()))
    }

    fn keep(&self, place: &Place) -> io::Result<Option<OsString>> {
        self.journal.as_ref().map_or(Ok(None), |journal| lock(journal).keep(place))
    }

    /// A name is about to go. If it is the file's last, its bytes no longer count; a name the journal keeps does not.
    fn release(&self, place: &Place, kept: bool) -> io::Result<()> {
        let (directory, name) = (&place.directory.file, &place.name);
        let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let file = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
        if !file || stat.st_nlink > 1 + u64::from(kept) {
            return Ok(());
        }
        let nodes = lock(&self.nodes);
        let len = match nodes.get(&stat.st_ino) {
            Some(known) => {
                // While the journal may bring it back, its changes stay; it is forgotten like any other.
                if !kept {
                    known.node.lose_name();
                }
                known.node.content().len()
            }
            None => u64::try_from(stat.st_size).unwrap_or(0),
        };
        self.shrink(len);
        Ok(())
    }

    pub(crate) fn list(node: &Node) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for entry in rustix::fs::Dir::read_from(&node.file)? {
            let entry = entry?;
            let kind = match entry.file_type() {
                rustix::fs::FileType::RegularFile => FileType::RegularFile,
                rustix::fs::FileType::Directory => FileType::Directory,
                rustix::fs::FileType::Symlink => FileType::Symlink,
                rustix::fs::FileType::Fifo
                | rustix::fs::FileType::Socket
                | rustix::fs::FileType::CharacterDevice
                | rustix::fs::FileType::BlockDevice
                | rustix::fs::FileType::Unknown => continue,
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
            if node.ino != ROOT || name != HIDDEN {
                listed.push(Listed { ino: entry.ino(), kind, name });
            }
        }
        Ok(listed)
    }

    // ---- bytes ----

    pub(crate) fn read(node: &Node, at: u64, size: u32) -> io::Result<Vec<u8>> {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        node.content().read(&node.file, at, size)
    }

    pub(crate) fn write(&self, node: &Node, at: u64, data: &[u8]) -> io::Result<()> {
        self.faults.counters.writes.fetch_add(1, Ordering::Relaxed);
        if self.faults.take_write_error() {
            return Err(Errno::IO.into());
        }
        let mut content = node.content();
        let end = at.checked_add(data.len() as u64).ok_or(Errno::FBIG)?;
        self.grow(node, end.saturating_sub(content.len()))?;
        content.write(at, data, SystemTime::now());
        let added = data.len() as u64;
        let pending = self.pending.fetch_add(added, Ordering::Relaxed) + added;
        drop(content);
        if pending > PENDING_BYTES_MAX { self.write_back() } else { Ok(()) }
    }

    /// Writes back the file with the most unsynced bytes: likely one that nobody means to sync.
    fn write_back(&self) -> io::Result<()> {
        let nodes = self.all();
        let Some(node) = nodes.iter().max_by_key(|node| node.content().bytes()) else {
            return Ok(());
        };
        self.faults.counters.written_back.fetch_add(1, Ordering::Relaxed);
        self.settle(&mut node.content(), |content| content.sync(&node.file))
    }

    pub(crate) fn truncate(&self, node: &Node, len: u64) -> io::Result<()> {
        let mut content = node.content();
        let before = content.len();
        self.grow(node, len.saturating_sub(before))?;
        if !node.is_nameless() {
            self.shrink(before.saturating_sub(len));
        }
        content.truncate(len, SystemTime::now());
        Ok(())
    }

    pub(crate) fn allocate(&self, node: &Node, end: u64, flags: FallocateFlags) -> io::Result<()> {
        let before = node.content().len();
        if flags == FallocateFlags::KEEP_SIZE {
            // Nothing is set aside, but a full disk says so here as elsewhere.
            return self.room_for(end.saturating_sub(before));
        }
        if !flags.is_empty() {
            return Err(Errno::OPNOTSUPP.into());
        }
        if end > before { self.truncate(node, end) } else { Ok(()) }
    }

    pub(crate) fn fsync(&self, node: &Node) -> io::Result<()> {
        if let Some(answer) = self.fsync_fault() {
            if answer.is_err() {
                node.content().fail_sync();
            }
            return answer;
        }
        self.settle(&mut node.content(), |content| content.sync(&node.file))
    }

    pub(crate) fn fsync_directory(&self, directory: u64) -> io::Result<()> {
        if let Some(answer) = self.fsync_fault() {
            return answer;
        }
        self.journal.as_ref().map_or(Ok(()), |journal| lock(journal).commit(directory))
    }

    /// The answer to an fsync, if a fault gives it.
    fn fsync_fault(&self) -> Option<io::Result<()>> {
        self.faults.counters.fsyncs.fetch_add(1, Ordering::Relaxed);
        if let Some(pause) = self.faults.fsync_pause() {
            thread::sleep(pause);
        }
        if self.faults.take_fsync_error() {
            return Some(Err(Errno::IO.into()));
        }
        self.faults.lies().then_some(Ok(()))
    }

    /// Does something to a content that makes pending bytes fewer.
    fn settle(
        &self,
        content: &mut Content,
        act: impl FnOnce(&mut Content) -> io::Result<()>,
    ) -> io::Result<()> {
        let before = content.bytes();
        let result = act(content);
        self.pending.fetch_sub(before - content.bytes(), Ordering::Relaxed);
        result
    }

    fn room_for(&self, more: u64) -> io::Result<()> {
        let quota = self.faults.quota().unwrap_or(u64::MAX);
        if more > 0 && self.used.load(Ordering::Relaxed).saturating_add(more) > quota {
            self.faults.counters.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Errno::NOSPC.into());
        }
        Ok(())
    }

    fn grow(&self, node: &Node, more: u64) -> io::Result<()> {
        self.room_for(more)?;
        if !node.is_nameless() {
            self.used.fetch_add(more, Ordering::Relaxed);
        }
        Ok(())
    }

    fn shrink(&self, less: u64) {
        let shrunk = |used: u64| Some(used.saturating_sub(less));
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, shrunk)
            .expect("the closure always answers");
    }

    pub(crate) fn room(&self) -> io::Result<Room> {
        let stat = rustix::fs::fstatvfs(&self.root.file)?;
        let in_blocks = |blocks: u64| blocks.saturating_mul(stat.f_frsize) / BLOCK_BYTES;
        let (blocks, free) = match self.faults.quota() {
            Some(quota) => {
                let left = quota.saturating_sub(self.used.load(Ordering::Relaxed));
                (quota / BLOCK_BYTES, left / BLOCK_BYTES)
            }
            None => (in_blocks(stat.f_blocks), in_blocks(stat.f_bavail)),
        };
        Ok(Room { blocks, free, files: stat.f_files, files_free: stat.f_ffree })
    }

    // ---- control ----

    /// Every node known, for what concerns all of them.
    fn all(&self) -> Vec<Arc<Node>> {
        lock(&self.nodes).values().map(|known| Arc::clone(&known.node)).collect()
    }

    /// Power failure. With a seed, a random prefix of each file's changes, and of the names, is left.
    /// Returns the numbers of the nodes whose bytes changed.
    pub(crate) fn lose(&self, torn: Option<u64>) -> io::Result<Vec<u64>> {
        self.faults.counters.losses.fetch_add(1, Ordering::Relaxed);
        let mut random = torn.map(Random::new);
        let mut nodes = self.all();
        // The seed decides, not the order of a hash map.
        nodes.sort_unstable_by_key(|node| node.ino);
        let mut changed = Vec::new();
        for node in nodes {
            let mut content = node.content();
            if !content.is_dirty() {
                continue;
            }
            changed.push(node.ino);
            self.settle(&mut content, |content| match &mut random {
                Some(random) => content.tear(&node.file, random),
                None => {
                    content.lose();
                    Ok(())
                }
            })?;
        }
        if let Some(journal) = &self.journal {
            let mut journal = lock(journal);
            let left = random.map_or(0, |mut random| random.up_to(journal.len()));
            journal.lose(left)?;
        }
        self.drop_clean();
        self.used.store(used(&self.backing)?, Ordering::Relaxed);
        Ok(changed)
    }

    /// Makes everything durable, as an orderly unmount does.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        for node in self.all() {
            self.settle(&mut node.content(), |content| content.sync(&node.file))?;
        }
        if let Some(journal) = &self.journal {
            lock(journal).commit_all()?;
        }
        self.drop_clean();
        Ok(())
    }

    /// Lets go of nodes that were kept only for their unsynced changes.
    fn drop_clean(&self) {
        lock(&self.nodes).retain(|_, known| known.lookups > 0 || known.node.content().is_dirty());
    }

    pub(crate) fn status(&self) -> Status {
        let dirty = self.all().iter().filter(|node| node.content().is_dirty()).count();
        let names = self.journal.as_ref().map_or(0, |journal| lock(journal).len());
        Status {
            dirty_files: dirty as u64,
            pending_bytes: self.pending.load(Ordering::Relaxed),
            pending_names: names as u64,
            used_bytes: self.used.load(Ordering::Relaxed),
            ..self.faults.status()
        }
    }
}

/// Bytes of all files below a directory.
fn used(directory: &Path) -> io::Result<u64> {
    let mut sum = 0;
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in directory.read_dir()? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                if entry.file_name() != HIDDEN {
                    left.push(entry.path());
                }
            } else if metadata.is_file() {
                sum += metadata.len();
            }
        }
    }
    Ok(sum)
}
