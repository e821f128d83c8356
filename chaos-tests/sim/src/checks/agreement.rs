//! Replicas that have applied as many entries hold the same rows, whatever happened to them on the way.

use std::collections::BTreeMap;

use super::violation;
use crate::Violation;

/// The first digest seen for each length of each log.
#[derive(Debug, Default)]
pub struct Agreement {
    digests: BTreeMap<(usize, u64), u128>,
}

impl Agreement {
    /// A replica of `group` has this digest after `applied` entries.
    ///
    /// # Errors
    ///
    /// When another had another.
    pub fn digest(&mut self, group: usize, applied: u64, digest: u128) -> Result<(), Violation> {
        let first = *self.digests.entry((group, applied)).or_insert(digest);
        if first == digest {
            return Ok(());
        }
        let what = format!("group {group} after {applied} entries: {first:x} and {digest:x}");
        violation("agreement", what)
    }
}
