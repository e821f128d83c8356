//! One batch on its way through the machine: the rows it changes, its place in the log, what it causes outside.

use bytes::Bytes;
use moorline_core::UnixMillis;
use moorline_storage::Rows;

use crate::{effect::Effect, keys::Keys};

/// Handed down to whatever applies a command.
pub(crate) struct Step<'a, R: ?Sized> {
    pub(crate) rows: &'a mut R,
    pub(crate) keys: Keys,
    pub(crate) index: u64,
    /// The command's place in its batch.
    pub(crate) ordinal: u64,
    pub(crate) time: UnixMillis,
    pub(crate) effects: &'a mut Vec<Effect>,
    pub(crate) digest_wanted: &'a mut bool,
}

/// How many bits of a version are the command's place in its batch; [`crate::batch`] limits the commands.
const ORDINAL_BITS: u32 = 16;

/// A route version above every change up to and including `index`, and below every later one: with it a leader withdraws
/// routes that the shard no longer holds, when the news of their end may have been lost.
#[must_use]
pub fn version_after(index: u64) -> u64 {
    index << ORDINAL_BITS | ((1 << ORDINAL_BITS) - 1)
}

impl<R: Rows + ?Sized> Step<'_, R> {
    /// Grows with every command of the group: the index alone does not, when one batch subscribes and unsubscribes.
    pub(crate) fn version(&self) -> u64 {
        self.index << ORDINAL_BITS | self.ordinal
    }

    pub(crate) fn put(&mut self, key: Bytes, value: Bytes) {
        self.rows.put(key, value);
    }

    /// For a key that never had a value: when it goes before the next checkpoint, nothing of it stays.
    pub(crate) fn put_fresh(&mut self, key: Bytes, value: Bytes) {
        self.rows.put_fresh(key, value);
    }

    pub(crate) fn delete(&mut self, key: Bytes) {
        self.rows.delete(key);
    }
}
