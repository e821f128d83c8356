//! The newest entries of one group in memory, and where its log begins and ends. Pure.
//!
//! # Invariants
//!
//! - **Consecutive**: the entries' indexes follow each other, and the last is `last`. Asserted in [`Ring::append`].
//! - **Never evicted before it is on disk**: [`Ring::evict`] stops at the first entry that is not flushed.

use std::collections::VecDeque;

use crate::{
    codec::disk::entry_bytes,
    types::{RaftEntry, RaftLogId, RaftVote},
};

/// A purge below this many entries and [`PURGE_BYTES_MIN`] is not worth a range delete.
const PURGE_ENTRIES_MIN: u64 = 1024;
/// See [`PURGE_ENTRIES_MIN`].
const PURGE_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) vote: Option<RaftVote>,
    pub(crate) committed: Option<RaftLogId>,
    pub(crate) purged: Option<RaftLogId>,
    /// The last entry, or what was purged if there is none.
    pub(crate) last: Option<RaftLogId>,
    /// Where the log begins: after what was purged, on disk or here.
    pub(crate) first: u64,
    /// Grows with every truncation: completions of writes from before it say nothing about what is there now.
    pub(crate) generation: u64,
    /// The bytes that were counted against the node's memory for entries.
    pub(crate) accounted: usize,
    entries: VecDeque<RaftEntry>,
    bytes: usize,
    /// Entries up to this index are on disk.
    flushed: Option<u64>,
    committed_is_new: bool,
    /// After each append since the start: the last index, and the bytes appended up to it.
    sizes: VecDeque<(u64, u64)>,
    appended: u64,
    /// The bytes appended up to the purge point.
    purged_bytes: u64,
}

impl Ring {
    pub(crate) fn new(
        vote: Option<RaftVote>,
        committed: Option<RaftLogId>,
        purged: Option<RaftLogId>,
        last: Option<RaftLogId>,
    ) -> Self {
        Self {
            vote,
            committed,
            first: purged.as_ref().map_or(0, |purged| purged.index + 1),
            purged,
            flushed: last.as_ref().map(|last| last.index),
            last,
            generation: 0,
            accounted: 0,
            entries: VecDeque::new(),
            bytes: 0,
            committed_is_new: false,
            sizes: VecDeque::new(),
            appended: 0,
            purged_bytes: 0,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.log_id.index)
    }

    /// # Panics
    ///
    /// If the entries do not follow the last one: a hole in the log must stop the replica.
    pub(crate) fn append(&mut self, entries: Vec<RaftEntry>) {
        for entry in entries {
            let index = entry.log_id.index;
            match &self.last {
                Some(last) => assert_eq!(index, last.index + 1, "entry {index} does not follow"),
                None => self.first = index,
            }
            let bytes = entry_bytes(&entry);
            self.bytes += bytes;
            self.appended += bytes as u64;
            self.last = Some(entry.log_id);
            self.entries.push_back(entry);
        }
        if let Some(last) = &self.last {
            self.sizes.push_back((last.index, self.appended));
        }
    }

    /// The write of everything up to `index` is done.
    pub(crate) fn flushed(&mut self, generation: u64, index: u64) {
        if generation == self.generation {
            self.flushed = self.flushed.max(Some(index));
        }
    }

    /// Lets the oldest entries go, until `bytes_max` are left or one is not on disk yet.
    pub(crate) fn evict(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let Some(first) = self.entries.front() else { return };
            if Some(first.log_id.index) > self.flushed {
                return;
            }
            self.bytes -= entry_bytes(first);
            self.entries.pop_front();
        }
    }

    /// The entries with `from <= index < to`, all of which must be here; about `bytes_max`, at least one.
    pub(crate) fn range(&self, from: u64, to: u64, bytes_max: usize) -> Vec<RaftEntry> {
        let Some(first) = self.first_index() else { return Vec::new() };
        assert!(from >= first, "entry {from} is not in memory any more");
        let (skip, take) = ((from - first) as usize, (to - from) as usize);
        let mut found = Vec::with_capacity(take.min(self.entries.len()));
        let mut bytes = 0;
        for entry in self.entries.iter().skip(skip).take(take) {
            bytes += entry_bytes(entry);
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        found
    }

    /// Drops what follows `last`; whether anything did.
    pub(crate) fn truncate_after(&mut self, last: Option<RaftLogId>) -> bool {
        let keep = last.as_ref().map_or(0, |last| last.index + 1);
        if self.last.as_ref().is_none_or(|end| end.index < keep) {
            return false;
        }
        while self.entries.back().is_some_and(|entry| entry.log_id.index >= keep) {
            let entry = self.entries.pop_back().expect("just seen");
            let bytes = entry_bytes(&entry);
            self.bytes -= bytes;
        }
        while self.sizes.back().is_some_and(|(index, _)| *index >= keep) {
            self.sizes.pop_back();
        }
        self.appended = self.sizes.back().map_or(self.purged_bytes, |(_, bytes)| *bytes);
        self.flushed = self.flushed.min(last.as_ref().map(|last| last.index));
        self.last = last.max(self.purged);
        self.generation += 1;
        true
    }

    pub(crate) fn purge(&mut self, upto: RaftLogId) {
        while self.first_index().is_some_and(|index| index <= upto.index) {
            let entry = self.entries.pop_front().expect("just seen");
            self.bytes -= entry_bytes(&entry);
        }
        while let Some((index, bytes)) = self.sizes.front().copied()
            && index <= upto.index
        {
            self.purged_bytes = bytes;
            self.sizes.pop_front();
        }
        self.first = self.first.max(upto.index + 1);
        if self.last.as_ref().is_none_or(|last| last.index < upto.index) {
            self.last = Some(upto);
            self.flushed = Some(upto.index);
        }
        self.purged = Some(upto);
    }

    pub(crate) fn set_committed(&mut self, committed: Option<RaftLogId>) {
        self.committed_is_new |= committed != self.committed;
        self.committed = committed;
    }

    /// The committed log id, if it is newer than the one that was taken last.
    pub(crate) fn take_committed(&mut self) -> Option<RaftLogId> {
        if !std::mem::take(&mut self.committed_is_new) {
            return None;
        }
        self.committed
    }

    /// Everything up to this may be purged; `None` if it is not worth it. Bytes are counted from the start of the
    /// process only, so after a restart the entries decide for a while.
    pub(crate) fn purge_point(
        &self,
        durable: u64,
        keep_entries: u64,
        keep_bytes: u64,
    ) -> Option<u64> {
        let last = self.last.as_ref()?.index;
        let first = self.purged.as_ref().map_or(0, |purged| purged.index + 1);
        let too_many = (last + 1).saturating_sub(keep_entries).checked_sub(1);
        let over = self.appended.saturating_sub(keep_bytes);
        let too_much = self.sizes.iter().take_while(|(_, bytes)| *bytes <= over).last();
        let upto = too_many.max(too_much.map(|(index, _)| *index))?.min(durable);
        let bytes = too_much.map_or(0, |(_, bytes)| bytes - self.purged_bytes);
        let worth_it =
            upto >= first && (upto - first >= PURGE_ENTRIES_MIN || bytes >= PURGE_BYTES_MIN);
        worth_it.then_some(upto)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::{Commands, LeaderId, RaftPayload};

    fn log_id(index: u64) -> RaftLogId {
        RaftLogId::new(LeaderId { term: 1, node_id: 1 }, index)
    }

    fn entries(range: std::ops::Range<u64>, bytes: usize) -> Vec<RaftEntry> {
        let payload = RaftPayload::Normal(Commands(Bytes::from(vec![0; bytes - 18])));
        range.map(|index| RaftEntry { log_id: log_id(index), payload: payload.clone() }).collect()
    }

    fn ring() -> Ring {
        Ring::new(None, None, None, None)
    }

    fn indexes(entries: &[RaftEntry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.log_id.index).collect()
    }

    #[test]
    fn an_entry_stays_until_it_is_on_disk() {
        let mut ring = ring();
        ring.append(entries(0..4, 100));
        ring.evict(0);
        assert_eq!((ring.first_index(), ring.bytes()), (Some(0), 400));
        ring.flushed(0, 2);
        ring.evict(250);
        assert_eq!((ring.first_index(), ring.bytes()), (Some(2), 200));
        ring.evict(0);
        assert_eq!(ring.first_index(), Some(3), "the last is not on disk");
    }

    #[test]
    fn a_write_from_before_a_truncation_says_nothing() {
        let mut ring = ring();
        ring.append(entries(0..4, 100));
        let before = ring.generation;
        ring.truncate_after(Some(log_id(0)));
        ring.append(entries(1..4, 100));
        ring.flushed(before, 3);
        ring.evict(0);
        assert_eq!(ring.first_index(), Some(0));
        ring.flushed(ring.generation, 3);
        ring.evict(0);
        assert_eq!((ring.first_index(), ring.bytes()), (None, 0));
    }

    #[test]
    #[should_panic(expected = "entry 5 does not follow")]
    fn a_hole_is_not_accepted() {
        let mut ring = ring();
        ring.append(entries(0..4, 100));
        ring.append(entries(5..6, 100));
    }

    #[test]
    fn reading_stops_after_the_bytes_but_not_before_the_first() {
        let mut ring = ring();
        ring.append(entries(0..6, 100));
        assert_eq!(indexes(&ring.range(1, 6, usize::MAX)), [1, 2, 3, 4, 5]);
        assert_eq!(indexes(&ring.range(1, 6, 250)), [1, 2]);
        assert_eq!(indexes(&ring.range(3, 6, 1)), [3]);
        assert_eq!(indexes(&ring.range(5, 9, usize::MAX)), [5]);
    }

    #[test]
    fn a_purge_beyond_the_end_moves_the_end() {
        let mut ring = ring();
        ring.append(entries(0..3, 100));
        ring.purge(log_id(9));
        assert_eq!((ring.last, ring.bytes()), (Some(log_id(9)), 0));
        ring.append(entries(10..11, 100));
        ring.truncate_after(Some(log_id(9)));
        assert_eq!(ring.last, Some(log_id(9)));
    }

    #[test]
    fn the_committed_log_id_is_taken_once_per_change() {
        let mut ring = ring();
        assert_eq!(ring.take_committed(), None);
        ring.set_committed(Some(log_id(1)));
        assert_eq!(ring.take_committed(), Some(log_id(1)));
        ring.set_committed(Some(log_id(1)));
        assert_eq!(ring.take_committed(), None);
    }

    #[test]
    fn purging_keeps_what_laggards_need_and_what_is_not_durable() {
        let mut ring = ring();
        for piece in 0..10 {
            ring.append(entries(piece * 1000..(piece + 1) * 1000, 10_000));
        }
        let all = u64::MAX;
        #[rustfmt::skip]
        let table = [
            // durable, keep entries, keep bytes  → purge up to
            (9999, 2000, all,          Some(7999)),
            (5000, 2000, all,          Some(5000)), // the rest is not on disk as rows
            (9999, 20_000, all,        None),
            (9999, 9500, all,          None),       // 500 entries are not worth it
            (9999, 20_000, 25_000_000, Some(6999)), // 30 MB are the least that is not less
            (3000, 20_000, 25_000_000, Some(3000)),
            (9999, 2000, 15_000_000,   Some(7999)),
        ];
        for (durable, keep_entries, keep_bytes, expected) in table {
            let point = ring.purge_point(durable, keep_entries, keep_bytes);
            assert_eq!(point, expected, "{durable} {keep_entries} {keep_bytes}");
        }
        ring.purge(log_id(7999));
        assert_eq!(ring.purge_point(9999, 2000, all), None, "purged already");
    }
}
