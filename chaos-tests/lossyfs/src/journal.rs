//! Names that are not durable yet, and how to take them back (strict mode).
//!
//! Every change of a name is done on the backing directory at once and noted here with its undoing. Syncing a directory
//! forgets the notes that touch it; a power failure undoes those left, newest first. What an unlink or a rename would
//! destroy is kept under a second name in [`HIDDEN`] until it is certain.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::node::Node;

/// The directory in the backing root that keeps what may have to come back. Not visible in the mount.
pub(crate) const HIDDEN: &str = ".lossyfs-undo";
/// Most names that may wait. One more makes the oldest durable, as a file system's own journal would after a while.
const NAMES_MAX: usize = 65_536;
/// Deepest directory that is taken back with all below it; a path this deep does not fit into `PATH_MAX` anyway.
const DEPTH_MAX: usize = 1024;

/// A name in a directory.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) directory: Arc<Node>,
    pub(crate) name: OsString,
}

impl Place {
    pub(crate) fn new(directory: &Arc<Node>, name: &OsStr) -> Self {
        Self { directory: Arc::clone(directory), name: name.to_owned() }
    }
}

/// What was done to a name.
#[derive(Debug)]
pub(crate) enum Renaming {
    /// A file or link came to be.
    Created(Place),
    /// A directory came to be.
    CreatedDirectory(Place),
    /// A file is gone; its second name, if it could be kept.
    Removed(Place, Option<OsString>),
    /// An empty directory is gone.
    RemovedDirectory(Place, Mode),
    /// A name became another; the second name of what it replaced.
    Moved { from: Place, to: Place, replaced: Option<OsString> },
    /// Two names changed places.
    Exchanged(Place, Place),
}

impl Renaming {
    fn touches(&self, directory: u64) -> bool {
        match self {
            Self::Created(place)
            | Self::CreatedDirectory(place)
            | Self::Removed(place, _)
            | Self::RemovedDirectory(place, _) => place.directory.ino == directory,
            Self::Moved { from, to, .. } | Self::Exchanged(from, to) => {
                from.directory.ino == directory || to.directory.ino == directory
            }
        }
    }

    fn kept(&self) -> Option<&OsStr> {
        match self {
            Self::Removed(_, kept) | Self::Moved { replaced: kept, .. } => kept.as_deref(),
            Self::Created(_)
            | Self::CreatedDirectory(_)
            | Self::RemovedDirectory(..)
            | Self::Exchanged(..) => None,
        }
    }
}

/// The notes, oldest first.
#[derive(Debug)]
pub(crate) struct Journal {
    hidden: Arc<Node>,
    notes: Vec<Renaming>,
    kept: u64,
}

impl Journal {
    /// Opens the journal, emptying what an earlier one kept.
    pub(crate) fn open(root: &Node) -> io::Result<Self> {
        remove_all(&root.file, OsStr::new(HIDDEN), 0)?;
        rustix::fs::mkdirat(&root.file, HIDDEN, Mode::RWXU)?;
        let hidden = Arc::new(Node::open(root, OsStr::new(HIDDEN))?);
        Ok(Self { hidden, notes: Vec::new(), kept: 0 })
    }

    /// Gives a file a second name, so that it can come back. None if there is no file, or it is a directory.
    pub(crate) fn keep(&mut self, place: &Place) -> io::Result<Option<OsString>> {
        let name = OsString::from(self.kept.to_string());
        let (from, to) = (&place.directory.file, &self.hidden.file);
        match rustix::fs::linkat(from, &place.name, to, &name, AtFlags::empty()) {
            Ok(()) => {
                self.kept += 1;
                Ok(Some(name))
            }
            Err(Errno::NOENT | Errno::PERM) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn note(&mut self, renaming: Renaming) -> io::Result<()> {
        if self.notes.len() == NAMES_MAX {
            let oldest = self.notes.remove(0);
            self.forget(&oldest)?;
        }
        self.notes.push(renaming);
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.notes.len()
    }

    /// Names in this directory are durable.
    pub(crate) fn commit(&mut self, directory: u64) -> io::Result<()> {
        let (done, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.notes).into_iter().partition(|note| note.touches(directory));
        self.notes = left;
        done.iter().try_for_each(|note| self.forget(note))
    }

    /// All names are durable.
    pub(crate) fn commit_all(&mut self) -> io::Result<()> {
        let done = std::mem::take(&mut self.notes);
        done.iter().try_for_each(|note| self.forget(note))
    }

    /// Power failure: all but the first `left` renamings are taken back.
    pub(crate) fn lose(&mut self, left: usize) -> io::Result<()> {
        for note in self.notes.split_off(left.min(self.notes.len())).into_iter().rev() {
            self.undo(&note)?;
        }
        self.commit_all()
    }

    fn forget(&self, note: &Renaming) -> io::Result<()> {
        match note.kept() {
            Some(name) => Ok(rustix::fs::unlinkat(&self.hidden.file, name, AtFlags::empty())?),
            None => Ok(()),
        }
    }

    /// Takes one renaming back. A name that a later, durable change moved away has nothing to take back.
    fn undo(&self, note: &Renaming) -> io::Result<()> {
        let undone = match note {
            Renaming::Created(Place { directory, name }) => {
                rustix::fs::unlinkat(&directory.file, name, AtFlags::empty())
            }
            Renaming::CreatedDirectory(Place { directory, name }) => {
                return remove_all(&directory.file, name, 0);
            }
            Renaming::Removed(place, kept) => self.bring_back(place, kept.as_deref()),
            Renaming::RemovedDirectory(Place { directory, name }, mode) => {
                rustix::fs::mkdirat(&directory.file, name, *mode)
            }
            Renaming::Moved { from, to, replaced } => {
                let (back, to_file) = (&from.directory.file, &to.directory.file);
                rustix::fs::renameat(to_file, &to.name, back, &from.name)
                    .and_then(|()| self.bring_back(to, replaced.as_deref()))
            }
            Renaming::Exchanged(a, b) => {
                let (a_file, b_file) = (&a.directory.file, &b.directory.file);
                let flags = RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(a_file, &a.name, b_file, &b.name, flags)
            }
        };
        match undone {
            Ok(()) | Err(Errno::NOENT | Errno::EXIST | Errno::NOTDIR | Errno::ISDIR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn bring_back(&self, place: &Place, kept: Option<&OsStr>) -> rustix::io::Result<()> {
        match kept {
            Some(kept) => {
                rustix::fs::renameat(&self.hidden.file, kept, &place.directory.file, &place.name)
            }
            None => Ok(()),
        }
    }
}

/// Removes a name and all below it; a name that is not there is no error.
fn remove_all(directory: impl AsFd, name: &OsStr, depth: usize) -> io::Result<()> {
    let directory = directory.as_fd();
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) if depth < DEPTH_MAX => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let below = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&below)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            use std::os::unix::ffi::OsStrExt;
            remove_all(&below, OsStr::from_bytes(name.to_bytes()), depth + 1)?;
        }
    }
    Ok(rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}
