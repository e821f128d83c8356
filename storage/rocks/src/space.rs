//! Free space: when to refuse new messages, when to stop, and the reserve that makes room for stopping and starting.
//!
//! RocksDB can't even open on a full disk (recovery writes files), so a node stops before and keeps a reserve file that
//! it gives up then.
//!
//! # Invariant
//!
//! - **No flapping.** A state is left only when there is a tenth more free than where it begins. Checked by this
//!   file's tests.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use moorline_storage::StorageError;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::{error::io_failed, identity::sync_dir};

const MIB: u64 = 1024 * 1024;
/// How much of a threshold has to be free before a state is left: a compaction frees and takes this much.
const RECOVERED_PERCENT: u64 = 110;
const RESERVE: &str = "reserve";
/// Where the file system can't allocate without writing, zeros are written, this many at a time.
const ZEROS_BYTES: usize = 1 << 20;

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpaceState {
    /// Enough.
    Ok,
    /// New messages are to be refused; what frees space (acknowledgements) goes on.
    Low,
    /// The node is to give up its reserve and stop cleanly.
    Critical,
}

/// Where the states begin: at the lower of the two numbers each, so that neither a small nor a huge disk is wasted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceLimits {
    /// [`SpaceState::Low`] below this much free,
    pub low_bytes: u64,
    /// and below this part of the disk.
    pub low_percent: u64,
    /// [`SpaceState::Critical`] below this much free,
    pub critical_bytes: u64,
    /// and below this part of the disk.
    pub critical_percent: u64,
}

impl Default for SpaceLimits {
    fn default() -> Self {
        Self {
            low_bytes: 1024 * MIB,
            low_percent: 10,
            critical_bytes: 256 * MIB,
            critical_percent: 5,
        }
    }
}

/// What a file system says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this process may still use.
    pub free: u64,
    /// Bytes of the whole file system.
    pub total: u64,
}

impl SpaceLimits {
    fn low(&self, total: u64) -> u64 {
        self.low_bytes.min(part(total, self.low_percent))
    }

    fn critical(&self, total: u64) -> u64 {
        self.critical_bytes.min(part(total, self.critical_percent))
    }
}

/// A percentage, without overflow.
fn part(bytes: u64, percent: u64) -> u64 {
    u64::try_from(u128::from(bytes) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

/// What free space means, after what it meant before.
#[must_use]
pub fn decide(before: SpaceState, space: Space, limits: &SpaceLimits) -> SpaceState {
    let below = |limit: u64, was: bool| {
        space.free < if was { part(limit, RECOVERED_PERCENT) } else { limit }
    };
    if below(limits.critical(space.total), before == SpaceState::Critical) {
        SpaceState::Critical
    } else if below(limits.low(space.total), before >= SpaceState::Low) {
        SpaceState::Low
    } else {
        SpaceState::Ok
    }
}

/// Asks the file system of `dir`.
///
/// # Errors
///
/// When it does not answer.
pub fn measure(dir: &Path) -> Result<Space, StorageError> {
    let said = statvfs(dir).map_err(|error| io_failed("asking for free space")(error.into()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(said.f_frsize);
    Ok(Space { free: bytes(said.f_bavail), total: bytes(said.f_blocks) })
}

/// [`measure`], then [`decide`].
///
/// # Errors
///
/// When the file system does not answer.
pub fn check(
    dir: &Path,
    before: SpaceState,
    limits: &SpaceLimits,
) -> Result<SpaceState, StorageError> {
    Ok(decide(before, measure(dir)?, limits))
}

/// A file that only takes space, to be given up when the disk is nearly full.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    /// Takes the reserve, `bytes` in size, unless space would be low then: that a node can start is worth more.
    ///
    /// # Errors
    ///
    /// When the file system fails; that it is full is no error.
    pub fn hold(dir: &Path, bytes: u64, limits: &SpaceLimits) -> Result<Self, StorageError> {
        let path = dir.join(RESERVE);
        let held = fs::metadata(&path).map_or(0, |found| found.len());
        if held == bytes && bytes > 0 {
            return Ok(Self { path, bytes });
        }
        let mut reserve = Self { path, bytes: held };
        reserve.release()?;
        let Space { free, total } = measure(dir)?;
        let after = Space { free: free.saturating_sub(bytes), total };
        if bytes == 0 || decide(SpaceState::Ok, after, limits) != SpaceState::Ok {
            return Ok(reserve);
        }
        match allocate(&reserve.path, bytes) {
            Ok(()) => reserve.bytes = bytes,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => reserve.release()?,
            Err(error) => return Err(io_failed("taking the reserve")(error)),
        }
        Ok(reserve)
    }

    /// Gives the space back.
    ///
    /// # Errors
    ///
    /// When the file system fails.
    pub fn release(&mut self) -> Result<(), StorageError> {
        self.bytes = 0;
        match fs::remove_file(&self.path) {
            Ok(()) => sync_dir(self.path.parent().unwrap_or(Path::new(".")))
                .map_err(io_failed("giving up the reserve")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io_failed("giving up the reserve")(error)),
        }
    }

    /// How much is held now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => {}
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let zeros = vec![0; ZEROS_BYTES];
            let mut left = bytes;
            while left > 0 {
                let now = left.min(ZEROS_BYTES as u64);
                file.write_all(&zeros[..usize::try_from(now).unwrap_or(ZEROS_BYTES)])?;
                left -= now;
            }
        }
        Err(error) => return Err(error.into()),
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const GIB: u64 = 1024 * MIB;

    #[test]
    fn the_lower_limit_of_size_and_part_counts() {
        use SpaceState::{Critical, Low, Ok};
        #[rustfmt::skip]
        let table = [
            // total, free, before, after
            (100 * GIB, 2 * GIB,       Ok,       Ok),
            (100 * GIB, GIB - 1,       Ok,       Low),
            (100 * GIB, GIB,           Ok,       Ok),
            (100 * GIB, GIB,           Low,      Low),        // not yet a tenth more
            (100 * GIB, GIB * 12 / 10, Low,      Ok),
            (100 * GIB, 255 * MIB,     Ok,       Critical),
            (100 * GIB, 260 * MIB,     Critical, Critical),
            (100 * GIB, 300 * MIB,     Critical, Low),
            (100 * GIB, 2 * GIB,       Critical, Ok),
            (GIB,       110 * MIB,     Ok,       Ok),         // a tenth is 102 MiB
            (GIB,       100 * MIB,     Ok,       Low),
            (GIB,       50 * MIB,      Ok,       Critical),   // a twentieth is 51 MiB
            (0,         0,             Ok,       Ok),         // a file system that does not tell
            (u64::MAX,  u64::MAX,      Critical, Ok),
        ];
        for (total, free, before, after) in table {
            let space = Space { free, total };
            let found = decide(before, space, &SpaceLimits::default());
            assert_eq!(found, after, "{free} of {total} after {before:?}");
        }
    }

    fn none() -> SpaceLimits {
        SpaceLimits { low_bytes: 0, low_percent: 0, critical_bytes: 0, critical_percent: 0 }
    }

    #[test]
    fn a_reserve_takes_its_space_keeps_it_and_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(RESERVE);
        let mut reserve = Reserve::hold(dir.path(), MIB, &none()).unwrap();
        assert_eq!(reserve.bytes(), MIB);
        assert!(fs::metadata(&path).unwrap().blocks() * 512 >= MIB, "it is no hole");
        assert_eq!(Reserve::hold(dir.path(), MIB, &none()).unwrap().bytes(), MIB);
        assert_eq!(Reserve::hold(dir.path(), 2 * MIB, &none()).unwrap().bytes(), 2 * MIB);
        reserve.release().unwrap();
        assert_eq!((reserve.bytes(), path.exists()), (0, false));
        reserve.release().unwrap();
    }

    #[test]
    fn no_reserve_is_taken_where_space_would_be_low() {
        let dir = tempfile::tempdir().unwrap();
        let greedy = SpaceLimits { low_bytes: u64::MAX, low_percent: 100, ..none() };
        let reserve = Reserve::hold(dir.path(), MIB, &greedy).unwrap();
        assert_eq!((reserve.bytes(), dir.path().join(RESERVE).exists()), (0, false));
    }

    #[test]
    fn the_file_system_answers() {
        let space = measure(Path::new("/")).unwrap();
        assert!(space.total > 0 && space.free <= space.total);
        assert_eq!(check(Path::new("/"), SpaceState::Ok, &none()).unwrap(), SpaceState::Ok);
        assert!(measure(Path::new("/no/such/place")).is_err());
    }
}
