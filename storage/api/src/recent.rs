//! Rows that were read from below of late, in memory: nearly every command about a device reads that device's row, which changes
//! seldom and so is seldom among the changed rows above.
//!
//! # Invariants
//!
//! - **At most [`RECENT_BYTES_MAX`]**; which rows go is `quick_cache`'s to say, and one that is asked for stays. Checked by this file's
//!   tests.
//! - **Never older than the base**: whoever changes a row forgets it here first. Checked by [`crate::overlay`]'s property test.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use quick_cache::{Weighter, unsync::Cache};

/// Bytes of rows of one overlay. With the usual rows of devices that is some 1,500 of them.
pub const RECENT_BYTES_MAX: usize = 512 * 1024;
/// A larger row would displace many that are asked for more often.
pub const RECENT_ROW_BYTES_MAX: usize = 4 * 1024;
/// What a row costs besides its key and value: its place in the table, two buffers' headers.
const ROW_BYTES: usize = 128;
/// For how many rows there is room from the beginning; more is made as they come.
const ROWS_AT_FIRST: usize = 64;

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Bytes, Bytes> for ByBytes {
    fn weight(&self, key: &Bytes, value: &Bytes) -> u64 {
        (ROW_BYTES + key.len() + value.len()) as u64
    }
}

/// Locked for a look or an entry, never while the base is read.
pub(crate) struct Recent(Mutex<Cache<Bytes, Bytes, ByBytes>>);

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").field("bytes", &self.rows().weight()).finish_non_exhaustive()
    }
}

impl Default for Recent {
    fn default() -> Self {
        let cache = Cache::with_weighter(ROWS_AT_FIRST, RECENT_BYTES_MAX as u64, ByBytes);
        Self(Mutex::new(cache))
    }
}

impl Recent {
    fn rows(&self) -> MutexGuard<'_, Cache<Bytes, Bytes, ByBytes>> {
        // Every change of it is whole, whoever panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A row, if it is known.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.rows().get(key).cloned()
    }

    /// Remembers a row as it is below.
    pub(crate) fn keep(&self, key: &[u8], value: &Bytes) {
        if key.len() + value.len() <= RECENT_ROW_BYTES_MAX {
            self.rows().insert(Bytes::copy_from_slice(key), value.clone());
        }
    }

    /// The row is about to change.
    pub(crate) fn forget(&mut self, key: &[u8]) {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> [u8; 8] {
        number.to_be_bytes()
    }

    fn row() -> Bytes {
        Bytes::from(vec![7; 1_024])
    }

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let recent = Recent::default();
        recent.keep(&key(0), &row());
        for number in 1..10_000 {
            recent.keep(&key(number), &row());
            assert_eq!(recent.get(&key(0)), Some(row()), "after {number}");
            let bytes = recent.rows().weight();
            assert!(bytes <= RECENT_BYTES_MAX as u64, "{bytes}");
        }
        let known = (0..10_000).filter(|number| recent.get(&key(*number)).is_some()).count();
        let fit = RECENT_BYTES_MAX / (ROW_BYTES + 8 + 1_024);
        assert!((fit / 2..=fit).contains(&known), "{known} of {fit}");
    }

    #[test]
    fn a_row_that_changes_is_forgotten() {
        let mut recent = Recent::default();
        recent.keep(&key(1), &row());
        recent.keep(&key(1), &row());
        recent.forget(&key(1));
        recent.forget(&key(2));
        assert_eq!((recent.get(&key(1)), recent.rows().weight()), (None, 0));
    }

    #[test]
    fn a_large_row_displaces_none() {
        let recent = Recent::default();
        recent.keep(&key(1), &Bytes::from(vec![7; RECENT_ROW_BYTES_MAX]));
        assert_eq!((recent.get(&key(1)), recent.rows().weight()), (None, 0));
    }
}
