//! Mounting and unmounting, and the handle through which faults are asked for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{BackgroundSession, Config, INodeNo, MountOption, Notifier};
use rustix::mount::UnmountFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

use crate::faults::Status;
use crate::fuse::Fuse;
use crate::volume::{Names, Volume};

/// Requests served at once. One of them may stand in a slow fsync.
const THREADS: usize = 4;
/// Where FUSE lives.
const DEVICE: &str = "/dev/fuse";

/// Whether this machine can mount at all.
pub fn available() -> bool {
    Path::new(DEVICE).exists()
}

/// Why there is no mount.
#[derive(Debug, Error)]
pub enum MountError {
    /// The backing directory cannot be used.
    #[error("the backing directory {path} cannot be used")]
    Backing {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("{path} cannot be mounted upon")]
    Mount {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct Mounted {
    session: Option<BackgroundSession>,
    path: PathBuf,
    controller: Controller,
}

impl Mounted {
    /// Mounts `backing` at `path`; both must be directories that exist.
    pub fn mount(backing: &Path, path: &Path, names: Names) -> Result<Self, MountError> {
        raise_descriptor_limit();
        let volume = Volume::open(backing, names)
            .map_err(|source| MountError::Backing { path: backing.to_owned(), source })?;
        let volume = Arc::new(volume);
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("lossyfs".to_owned()),
            MountOption::NoAtime,
            MountOption::NoDev,
            MountOption::NoSuid,
        ];
        config.n_threads = Some(THREADS);
        config.clone_fd = true;
        let session = fuser::spawn_mount(Fuse::new(Arc::clone(&volume)), path, &config)
            .map_err(|source| MountError::Mount { path: path.to_owned(), source })?;
        let controller = Controller { volume, notifier: session.notifier() };
        Ok(Self { session: Some(session), path: path.to_owned(), controller })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The handle for faults.
    pub fn controller(&self) -> &Controller {
        &self.controller
    }

    /// Unmounts; what was not synced is written, as by any orderly unmount. If somebody still holds a file, the name
    /// goes at once and the rest when they let go.
    pub fn unmount(mut self) -> io::Result<()> {
        self.end()
    }

    /// Whether somebody else unmounted it (`umount`).
    pub fn has_ended(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.guard.is_finished())
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(session) = self.session.take() else { return Ok(()) };
        match session.umount_and_join() {
            Ok(()) => Ok(()),
            Err(busy) => {
                rustix::mount::unmount(&self.path, UnmountFlags::DETACH).map_err(|_| busy)?;
                self.controller.volume.sync_all()
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("lossyfs: {} stays mounted: {error}", self.path.display());
        }
    }
}

/// A descriptor is held for each file the kernel knows: take as many as are allowed.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        eprintln!("lossyfs: the limit of open files stays as it is: {error}");
    }
}

/// Switches faults on and off. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Controller {
    volume: Arc<Volume>,
    notifier: Notifier,
}

impl Controller {
    /// Power failure: everything not fsynced is gone. Kill the processes that use the mount first.
    pub fn lose(&self) -> io::Result<()> {
        self.power_failure(None)
    }

    /// Power failure in the middle of writes: of what was not fsynced, a random prefix is left.
    pub fn tear(&self, seed: u64) -> io::Result<()> {
        self.power_failure(Some(seed))
    }

    fn power_failure(&self, torn: Option<u64>) -> io::Result<()> {
        for ino in self.volume.lose(torn)? {
            // Files still open somewhere: the kernel forgets their pages too. It may not know the number any more.
            if let Err(error) = self.notifier.inval_inode(INodeNo(ino), 0, 0)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Makes everything durable.
    pub fn sync(&self) -> io::Result<()> {
        self.volume.sync_all()
    }

    /// The next `times` fsyncs fail with EIO, and what they should have written never is.
    pub fn fail_fsyncs(&self, times: u64) {
        self.volume.faults.fail_fsyncs(times);
    }

    /// The next `times` writes fail with EIO.
    pub fn fail_writes(&self, times: u64) {
        self.volume.faults.fail_writes(times);
    }

    /// The file system holds this many bytes and no more; none for as many as the backing one.
    pub fn set_quota(&self, bytes: Option<u64>) {
        self.volume.faults.set_quota(bytes);
    }

    /// Each fsync takes this long, in milliseconds.
    pub fn slow_fsyncs(&self, ms: u64) {
        self.volume.faults.slow_fsyncs(ms);
    }

    /// Whether fsync does nothing and says it did.
    pub fn set_lie(&self, lie: bool) {
        self.volume.faults.set_lie(lie);
    }

    /// All faults off.
    pub fn heal(&self) {
        self.volume.faults.heal();
    }

    /// What is on, what waits, what happened.
    pub fn status(&self) -> Status {
        self.volume.status()
    }
}
