//! FUSE requests, translated to the volume and back. No decision is made here.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{FallocateFlags, Gid, OFlags, Timespec, Timestamps, Uid};

use crate::node::Node;
use crate::volume::{BLOCK_BYTES, Listed, Volume};

/// The kernel remembers no name and no attribute: after a power failure it must ask again.
const TTL: Duration = Duration::ZERO;
const FIRST: Generation = Generation(0);
/// Longest name, in bytes.
const NAME_BYTES_MAX: u32 = 255;
/// Leave a time as it is (`UTIME_OMIT`).
const OMIT: Timespec = Timespec { tv_sec: 0, tv_nsec: (1 << 30) - 2 };

/// The FUSE side of a volume.
#[derive(Debug)]
pub(crate) struct Fuse {
    volume: Arc<Volume>,
    /// Listings taken when a directory was opened, so that what is removed meanwhile shifts nothing.
    listings: Mutex<HashMap<u64, Arc<Vec<Listed>>>>,
    next_listing: AtomicU64,
}

impl Fuse {
    pub(crate) fn new(volume: Arc<Volume>) -> Self {
        let listings = Mutex::new(HashMap::new());
        Self { volume, listings, next_listing: AtomicU64::new(1) }
    }

    fn set_attributes(&self, node: &Node, wish: &Wish) -> io::Result<fuser::FileAttr> {
        if let Some(len) = wish.size {
            self.volume.truncate(node, len)?;
        }
        if let Some(mode) = wish.mode {
            rustix::fs::fchmod(&node.file, rustix::fs::Mode::from_raw_mode(mode))?;
        }
        if wish.uid.is_some() || wish.gid.is_some() {
            let (uid, gid) = (wish.uid.map(Uid::from_raw), wish.gid.map(Gid::from_raw));
            rustix::fs::fchown(&node.file, uid, gid)?;
        }
        if wish.atime.is_some() || wish.mtime.is_some() {
            let times = Timestamps {
                last_access: wish.atime.map_or(OMIT, timespec),
                last_modification: wish.mtime.map_or(OMIT, timespec),
            };
            rustix::fs::futimens(&node.file, &times)?;
        }
        node.attributes()
    }
}

/// What a `setattr` asks for.
struct Wish {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    atime: Option<TimeOrNow>,
    mtime: Option<TimeOrNow>,
}

fn timespec(time: TimeOrNow) -> Timespec {
    let time = match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    };
    // Times before 1970 are of no use to a database.
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let tv_sec = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Timespec { tv_sec, tv_nsec: i64::from(since.subsec_nanos()) }
}

fn empty(result: io::Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(Errno::from(error)),
    }
}

fn entry(result: io::Result<(Arc<Node>, fuser::FileAttr)>, reply: ReplyEntry) {
    match result {
        Ok((_, attributes)) => reply.entry(&TTL, &attributes, FIRST),
        Err(error) => reply.error(Errno::from(error)),
    }
}

fn attr(result: io::Result<fuser::FileAttr>, reply: ReplyAttr) {
    match result {
        Ok(attributes) => reply.attr(&TTL, &attributes),
        Err(error) => reply.error(Errno::from(error)),
    }
}

impl Filesystem for Fuse {
    fn destroy(&mut self) {
        // An orderly unmount; what cannot be written now is lost, as it would be on any disk.
        if let Err(error) = self.volume.sync_all() {
            eprintln!("lossyfs: the last sync failed: {error}");
        }
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.volume.place(parent.0, name).and_then(|at| self.volume.lookup(&at)), reply);
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        self.volume.forget(ino.0, lookups);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        attr(self.volume.node(ino.0).and_then(|node| node.attributes()), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let wish = Wish { mode, uid, gid, size, atime, mtime };
        let result = self.volume.node(ino.0).and_then(|node| self.set_attributes(&node, &wish));
        attr(result, reply);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.volume.node(ino.0).and_then(|node| Volume::readlink(&node)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let made = self.volume.place(parent.0, name);
        entry(made.and_then(|place| self.volume.mkdir(&place, mode & !umask)), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.volume.place(parent.0, name).and_then(|at| self.volume.unlink(&at)), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.volume.place(parent.0, name).and_then(|at| self.volume.rmdir(&at)), reply);
    }

    fn symlink(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let made = self.volume.place(parent.0, name);
        entry(made.and_then(|place| self.volume.symlink(&place, target)), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let from = self.volume.place(parent.0, name);
        let to = self.volume.place(newparent.0, newname);
        let both = from.and_then(|from| Ok((from, to?)));
        empty(both.and_then(|(from, to)| self.volume.rename(&from, &to, flags)), reply);
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let node = self.volume.node(ino.0);
        let both = node.and_then(|node| Ok((node, self.volume.place(newparent.0, newname)?)));
        entry(both.and_then(|(node, place)| self.volume.link(&node, &place)), reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let flags = OFlags::from_bits_retain(flags.cast_unsigned());
        let place = self.volume.place(parent.0, name);
        match place.and_then(|place| self.volume.create(&place, mode & !umask, flags)) {
            Ok((_, attributes)) => {
                reply.created(&TTL, &attributes, FIRST, FileHandle(0), FopenFlags::empty());
            }
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let truncate = OFlags::from_bits_retain(flags.0.cast_unsigned()).contains(OFlags::TRUNC);
        let opened = self.volume.node(ino.0);
        let opened =
            opened.and_then(|node| if truncate { self.volume.truncate(&node, 0) } else { Ok(()) });
        match opened {
            // Without FOPEN_KEEP_CACHE the kernel drops cached pages here: nobody reads what a power failure took.
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.volume.node(ino.0).and_then(|node| Volume::read(&node, offset, size)) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // O_SYNC and O_DSYNC promise what an fsync after each write would.
        let flags = OFlags::from_bits_retain(flags.0.cast_unsigned());
        let synced = flags.intersects(OFlags::SYNC | OFlags::DSYNC);
        let written = self.volume.node(ino.0).and_then(|node| {
            self.volume.write(&node, offset, data)?;
            if synced { self.volume.fsync(&node) } else { Ok(()) }
        });
        match written {
            Ok(()) => {
                reply.written(u32::try_from(data.len()).expect("FUSE writes are at most 16 MiB"));
            }
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // A close makes nothing durable.
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.volume.node(ino.0).and_then(|node| self.volume.fsync(&node)), reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.volume.node(ino.0).and_then(|node| Volume::list(&node)) {
            Ok(listed) => {
                let handle = self.next_listing.fetch_add(1, Ordering::Relaxed);
                let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
                listings.insert(handle, Arc::new(listed));
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listing = {
            let listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
            listings.get(&fh.0).cloned().unwrap_or_default()
        };
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (listed, next) in listing.iter().zip(1_u64..).skip(skip) {
            if reply.add(INodeNo(listed.ino), next, listed.kind, &listed.name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner).remove(&fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.volume.fsync_directory(ino.0), reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let block = u32::try_from(BLOCK_BYTES).expect("a small constant");
        match self.volume.room() {
            Ok(room) => reply.statfs(
                room.blocks,
                room.free,
                room.free,
                room.files,
                room.files_free,
                block,
                NAME_BYTES_MAX,
                block,
            ),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let flags = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let end = offset.saturating_add(length);
        let node = self.volume.node(ino.0);
        empty(node.and_then(|node| self.volume.allocate(&node, end, flags)), reply);
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        // The kernel asks only for the next data or hole; a file here is all data up to its end.
        let length = self.volume.node(ino.0).map(|node| node.content().len());
        let length = length.map(|length| i64::try_from(length).unwrap_or(i64::MAX));
        match (length, whence) {
            (Err(error), _) => reply.error(Errno::from(error)),
            (Ok(length), _) if offset >= length || offset < 0 => reply.error(Errno::ENXIO),
            (Ok(_), SEEK_DATA) => reply.offset(offset),
            (Ok(length), SEEK_HOLE) => reply.offset(length),
            (Ok(_), _) => reply.error(Errno::EINVAL),
        }
    }
}

const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;
