//! One number for all rows of a group, so that replicas can be compared without moving them.

use std::ops::ControlFlow;

use moorline_storage::{StorageError, View};
use xxhash_rust::xxh3::Xxh3;

use crate::keys::Keys;

/// xxh3-128 over all rows in key order, key and value each with an eight-byte length before it. Not the applied row: the
/// caller writes it, and it names terms and voters besides the index.
pub(crate) fn digest(keys: Keys, rows: &(impl View + ?Sized)) -> Result<u128, StorageError> {
    let mut hash = Xxh3::new();
    let applied = keys.applied();
    let (from, to) = keys.all();
    rows.scan(&from, &to, &mut |key, value| {
        if key != applied {
            for part in [key, value] {
                hash.update(&(part.len() as u64).to_be_bytes());
                hash.update(part);
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(hash.digest128())
}
