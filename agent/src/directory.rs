//! The agent's directory: its socket, and the files by which its commands find each other.
//!
//! ```text
//!   agent.sock    the local API              config.hash   what the running agent was started with
//!   agent.pid     the running agent, which holds its lock  stdout.log, stderr.log   of an agent in the background
//!   start.lock    whoever starts or stops one
//! ```
//!
//! # Invariants
//!
//! - **Nobody else's.** The directory is 0700, what is in it 0600, and one that another user has made is refused: it lies in
//!   `/tmp`, where anybody may make it first. Checked by this file's tests.
//! - **One agent.** Who runs holds the lock of `agent.pid`, and the system frees it however the process ends.

use std::{
    env, fs,
    fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf, absolute},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::failed::Failed;

/// Where the SDKs look.
const DEFAULT: &str = "/tmp/fostrom";
/// Another place, for tests.
pub(crate) const VARIABLE: &str = "MOORLINE_AGENT_DIR";
/// For its owner only.
const DIRECTORY_MODE: u32 = 0o700;
/// For its owner only.
pub(crate) const FILE_MODE: u32 = 0o600;
/// A log that is longer is begun anew.
const LOG_BYTES_MAX: u64 = 1024 * 1024;
/// What the agent says, line by line.
pub(crate) const LOG: &str = "stderr.log";
/// The most bytes of a small file of ours.
const SMALL_BYTES_MAX: u64 = 4096;
/// How often a lock is looked at that another holds.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// The directory.
#[derive(Debug, Clone)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// The one that the environment names, or the SDKs'.
    pub(crate) fn from_env() -> Result<Self, Failed> {
        let named = env::var_os(VARIABLE).filter(|path| !path.is_empty());
        let path = absolute(named.unwrap_or_else(|| DEFAULT.into()));
        path.map(Self).map_err(|error| Failed::new("invalid_config", error))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("agent.sock")
    }

    /// Makes it, or sees to it that it is ours alone.
    pub(crate) fn prepare(&self) -> Result<(), Failed> {
        let failed =
            |error| Failed::new("directory_failed", format!("{}: {error}", self.0.display()));
        match DirBuilder::new().mode(DIRECTORY_MODE).create(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(failed)?,
        }
        // Not through a link: it may lead anywhere.
        let metadata = fs::symlink_metadata(&self.0).map_err(failed)?;
        if !metadata.is_dir() {
            return Err(failed(io::Error::other("this is no directory")));
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(failed(io::Error::other("this is another user's directory")));
        }
        fs::set_permissions(&self.0, Permissions::from_mode(DIRECTORY_MODE)).map_err(failed)
    }

    /// Takes the lock of the agent that runs, and says who that is. `None` if another has it until `patience` is over.
    pub(crate) fn lock_run(&self, patience: Duration) -> io::Result<Option<File>> {
        let Some(mut file) = lock(&self.0.join("agent.pid"), patience)? else { return Ok(None) };
        file.set_len(0)?;
        write!(file, "{}", std::process::id())?;
        Ok(Some(file))
    }

    /// Takes the lock of who starts or stops an agent.
    pub(crate) fn lock_start(&self, patience: Duration) -> io::Result<Option<File>> {
        lock(&self.0.join("start.lock"), patience)
    }

    /// Whether an agent runs; waits for its end until `patience` is over.
    pub(crate) fn is_running(&self, patience: Duration) -> io::Result<bool> {
        let path = self.0.join("agent.pid");
        if !path.exists() {
            return Ok(false);
        }
        // The lock is free again as soon as the file is dropped.
        lock(&path, patience).map(|held| held.is_none())
    }

    /// Who runs. Nobody may have that id any more, unless [`Self::is_running`].
    pub(crate) fn pid(&self) -> Option<i32> {
        self.read("agent.pid")?.trim().parse().ok().filter(|pid| *pid > 1)
    }

    pub(crate) fn hash(&self) -> Option<String> {
        self.read("config.hash").map(|hash| hash.trim().to_owned())
    }

    pub(crate) fn write_hash(&self, hash: &str) -> io::Result<()> {
        let mut file = ours().write(true).truncate(true).open(self.0.join("config.hash"))?;
        file.write_all(hash.as_bytes())
    }

    /// Forgets the agent that ran. The file with the lock stays: another may be waiting for it.
    pub(crate) fn clear(&self) {
        for name in ["agent.sock", "config.hash"] {
            // Gone is what it should be.
            let _gone = fs::remove_file(self.0.join(name));
        }
    }

    /// Begins the agent's log anew if it is long.
    pub(crate) fn shorten_log(&self) {
        // Without a log there is nowhere to say so.
        let _failed = self.log(LOG);
    }

    /// A log, to be written at its end, and how long it is.
    pub(crate) fn log(&self, name: &str) -> io::Result<(File, u64)> {
        let file = ours().append(true).open(self.0.join(name))?;
        if file.metadata()?.len() > LOG_BYTES_MAX {
            file.set_len(0)?;
        }
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    /// The last line of the agent's log behind `from`.
    pub(crate) fn last_line(&self, from: u64) -> Option<String> {
        let mut file = File::open(self.0.join(LOG)).ok()?;
        file.seek(SeekFrom::Start(from)).ok()?;
        let mut text = String::new();
        file.take(SMALL_BYTES_MAX).read_to_string(&mut text).ok()?;
        text.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
    }

    fn read(&self, name: &str) -> Option<String> {
        let mut text = String::new();
        let file = File::open(self.0.join(name)).ok()?;
        file.take(SMALL_BYTES_MAX).read_to_string(&mut text).ok()?;
        Some(text)
    }
}

fn ours() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).mode(FILE_MODE);
    options
}

fn lock(path: &Path, patience: Duration) -> io::Result<Option<File>> {
    let file = ours().read(true).write(true).truncate(false).open(path)?;
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok(None),
            Err(TryLockError::WouldBlock) => sleep(LOCK_PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(temporary: &tempfile::TempDir) -> Directory {
        Directory(temporary.path().join("fostrom"))
    }

    #[test]
    fn the_directory_is_for_its_owner_only() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = within(&temporary);
        directory.prepare().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
        directory.prepare().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(directory.path()), DIRECTORY_MODE);
        directory.write_hash("abc").unwrap();
        assert_eq!(mode(&directory.0.join("config.hash")), FILE_MODE);
        assert_eq!(directory.hash().as_deref(), Some("abc"));
    }

    #[test]
    fn what_is_no_directory_of_ours_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = within(&temporary);
        fs::write(directory.path(), "").unwrap();
        assert!(directory.prepare().is_err());
        fs::remove_file(directory.path()).unwrap();
        std::os::unix::fs::symlink(temporary.path(), directory.path()).unwrap();
        assert!(directory.prepare().is_err(), "a link");
        // Only root can give a directory away.
        if rustix::process::geteuid().is_root() {
            fs::remove_file(directory.path()).unwrap();
            directory.prepare().unwrap();
            std::os::unix::fs::chown(directory.path(), Some(12_345), None).unwrap();
            let refused = directory.prepare().unwrap_err().to_string();
            assert!(refused.contains("another user"), "{refused}");
        }
    }

    #[test]
    fn one_agent_runs() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = within(&temporary);
        directory.prepare().unwrap();
        assert!(!directory.is_running(Duration::ZERO).unwrap());
        let lock = directory.lock_run(Duration::ZERO).unwrap().unwrap();
        assert!(directory.is_running(Duration::ZERO).unwrap());
        assert!(directory.lock_run(Duration::ZERO).unwrap().is_none());
        assert_eq!(directory.pid(), i32::try_from(std::process::id()).ok());
        drop(lock);
        assert!(!directory.is_running(Duration::ZERO).unwrap());
    }

    #[test]
    fn a_log_is_begun_anew_when_it_is_long() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = within(&temporary);
        directory.prepare().unwrap();
        let (mut file, length) = directory.log(LOG).unwrap();
        assert_eq!(length, 0);
        file.write_all(b"one\ntwo\n\n").unwrap();
        let (_, length) = directory.log(LOG).unwrap();
        assert_eq!(length, 9);
        assert_eq!(directory.last_line(0).as_deref(), Some("two"));
        assert_eq!(directory.last_line(9), None);
        file.write_all(&vec![b'x'; usize::try_from(LOG_BYTES_MAX).unwrap()]).unwrap();
        directory.shorten_log();
        assert_eq!(fs::metadata(directory.0.join(LOG)).unwrap().len(), 0);
        file.write_all(b"three\n").unwrap();
        assert_eq!(directory.last_line(0).as_deref(), Some("three"));
    }
}
