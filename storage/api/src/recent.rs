//! Rows that were read from below of late, in memory: nearly every command about a device reads that device's row, which changes
//! seldom and so is seldom among the changed rows above.
//!
//! # Invariants
//!
//! - **At most [`RECENT_BYTES_MAX`]**, in two generations: what is asked for stays, what is not is forgotten by halves. Checked
//!   by this file's tests.
//! - **Never older than the base**: whoever changes a row forgets it here first. Checked by [`crate::overlay`]'s property test.

use std::collections::HashMap;

use bytes::Bytes;

/// Bytes of rows of one overlay. With the usual rows of devices that is some 1,500 of them.
pub const RECENT_BYTES_MAX: usize = 512 * 1024;
/// A larger row would displace many that are asked for more often.
pub const RECENT_ROW_BYTES_MAX: usize = 4 * 1024;
/// What a row costs besides its key and value: its place in the table, two buffers' headers.
const ROW_BYTES: usize = 128;

#[derive(Debug, Default)]
pub(crate) struct Recent {
    young: HashMap<Bytes, Bytes>,
    young_bytes: usize,
    /// Those that were young before these, and were not asked for since.
    old: HashMap<Bytes, Bytes>,
}

fn bytes_of(key: &Bytes, value: &Bytes) -> usize {
    ROW_BYTES + key.len() + value.len()
}

impl Recent {
    /// A row, if it is known.
    pub(crate) fn get(&mut self, key: &[u8]) -> Option<Bytes> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.keep(key, value.clone());
        Some(value)
    }

    /// Remembers a row as it is below.
    pub(crate) fn keep(&mut self, key: Bytes, value: Bytes) {
        let bytes = bytes_of(&key, &value);
        if bytes > RECENT_ROW_BYTES_MAX {
            return;
        }
        if self.young_bytes + bytes > RECENT_BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        // Two readers may have missed it at once: it is the same row.
        if self.young.insert(key, value).is_none() {
            self.young_bytes += bytes;
        }
    }

    /// The row is about to change.
    pub(crate) fn forget(&mut self, key: &[u8]) {
        if let Some((key, value)) = self.young.remove_entry(key) {
            self.young_bytes -= bytes_of(&key, &value);
        }
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Bytes {
        Bytes::from(number.to_be_bytes().to_vec())
    }

    fn row() -> Bytes {
        Bytes::from(vec![7; 1_024])
    }

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let mut recent = Recent::default();
        recent.keep(key(0), row());
        for number in 1..10_000 {
            recent.keep(key(number), row());
            assert_eq!(recent.get(&key(0)), Some(row()), "after {number}");
            let rows = recent.young.len() + recent.old.len();
            assert!(rows * bytes_of(&key(0), &row()) <= RECENT_BYTES_MAX, "{rows} rows");
        }
        assert_eq!(recent.get(&key(1)), None);
        assert_eq!(recent.get(&key(9_999)), Some(row()));
    }

    #[test]
    fn a_row_that_changes_is_forgotten_in_either_generation() {
        let mut recent = Recent::default();
        recent.keep(key(1), row());
        recent.keep(key(1), row());
        recent.old = std::mem::take(&mut recent.young);
        recent.young_bytes = 0;
        recent.keep(key(2), row());
        recent.forget(&key(1));
        recent.forget(&key(2));
        recent.forget(&key(3));
        assert_eq!((recent.get(&key(1)), recent.get(&key(2))), (None, None));
        assert_eq!(recent.young_bytes, 0);
    }

    #[test]
    fn a_large_row_displaces_none() {
        let mut recent = Recent::default();
        recent.keep(key(1), Bytes::from(vec![7; RECENT_ROW_BYTES_MAX]));
        assert_eq!((recent.get(&key(1)), recent.young_bytes), (None, 0));
    }
}
