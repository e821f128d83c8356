//! One file, directory or link of the backing directory, held open while the kernel knows it.
//!
//! Held by descriptor, not by path: a rename or an unlink does not change what an open file is.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo};
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::content::Content;

/// The number FUSE gives the root.
pub(crate) const ROOT: u64 = 1;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) ino: u64,
    pub(crate) kind: FileType,
    pub(crate) file: File,
    content: Mutex<Content>,
    /// Whether its last name is gone: its bytes no longer count.
    nameless: AtomicBool,
}

impl Node {
    /// Opens what stands under `name` in `parent`.
    pub(crate) fn open(parent: &Self, name: &std::ffi::OsStr) -> io::Result<Self> {
        let stat = rustix::fs::statat(&parent.file, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let (kind, access) = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            rustix::fs::FileType::RegularFile => (FileType::RegularFile, OFlags::RDWR),
            rustix::fs::FileType::Directory => (FileType::Directory, OFlags::DIRECTORY),
            rustix::fs::FileType::Symlink => (FileType::Symlink, OFlags::PATH),
            rustix::fs::FileType::Fifo
            | rustix::fs::FileType::Socket
            | rustix::fs::FileType::CharacterDevice
            | rustix::fs::FileType::BlockDevice
            | rustix::fs::FileType::Unknown => return Err(rustix::io::Errno::NOTSUP.into()),
        };
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&parent.file, name, flags, Mode::empty())?);
        Self::of(file, kind)
    }

    /// From a descriptor.
    pub(crate) fn of(file: File, kind: FileType) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let content = Mutex::new(Content::new(metadata.len()));
        let nameless = AtomicBool::new(metadata.nlink() == 0);
        Ok(Self { ino: metadata.ino(), kind, file, content, nameless })
    }

    /// The root, under the number FUSE gives it.
    pub(crate) fn root(directory: File) -> io::Result<Self> {
        Ok(Self { ino: ROOT, ..Self::of(directory, FileType::Directory)? })
    }

    pub(crate) fn is_nameless(&self) -> bool {
        self.nameless.load(Ordering::Relaxed)
    }

    pub(crate) fn lose_name(&self) {
        self.nameless.store(true, Ordering::Relaxed);
    }

    pub(crate) fn content(&self) -> MutexGuard<'_, Content> {
        // A panic in another request must not stop this one: the content is never left half changed.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn attributes(&self) -> io::Result<FileAttr> {
        let metadata = self.file.metadata()?;
        let mut attributes = attributes(self.ino, self.kind, &metadata);
        if self.kind == FileType::RegularFile {
            let content = self.content();
            attributes.size = content.len();
            attributes.blocks = content.len().div_ceil(512);
            if let Some(changed) = content.changed() {
                (attributes.mtime, attributes.ctime) = (changed, changed);
            }
        }
        Ok(attributes)
    }
}

fn attributes(ino: u64, kind: FileType, metadata: &Metadata) -> FileAttr {
    let changed = time(metadata.ctime(), metadata.ctime_nsec());
    FileAttr {
        ino: INodeNo(ino),
        size: metadata.len(),
        blocks: metadata.blocks(),
        atime: time(metadata.atime(), metadata.atime_nsec()),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        ctime: changed,
        crtime: changed,
        kind,
        // The upper bits of the mode are the kind.
        perm: u16::try_from(metadata.mode() & 0o7777).expect("twelve bits"),
        nlink: u32::try_from(metadata.nlink()).unwrap_or(u32::MAX),
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn time(seconds: i64, nanos: i64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let part = Duration::from_nanos(nanos.unsigned_abs());
    if seconds < 0 {
        SystemTime::UNIX_EPOCH - whole + part
    } else {
        SystemTime::UNIX_EPOCH + whole + part
    }
}
