//! What one leadership wrote at one index is one thing, in whichever log it lies.
//!
//! Source: Raft's log matching property (figure 3 of the paper). It fails when two leaders believe in one leadership, which
//! is what a forgotten vote makes possible.

use std::collections::BTreeMap;

use moorline_core::ShardId;
use xxhash_rust::xxh3::xxh3_64;

use super::Invariant;
use crate::witness::Event;

/// Where term and leader lie in an entry (`raft/group/src/codec/disk.rs`): behind its version and kind.
const LEADERSHIP: std::ops::Range<usize> = 2..18;

/// The leadership that wrote an entry.
pub(super) fn leadership(entry: &[u8]) -> Option<(u64, u64)> {
    let bytes: [u8; 16] = entry.get(LEADERSHIP)?.try_into().ok()?;
    let both = u128::from_be_bytes(bytes);
    Some(((both >> 64) as u64, both as u64))
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct LogMatching {
    written: BTreeMap<(ShardId, u64, (u64, u64)), u64>,
    entries: u64,
}

impl Invariant for LogMatching {
    fn name(&self) -> &'static str {
        "log-matching"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        let Event::Appended { node, shard, place, entry } = event else { return Ok(()) };
        let Some(by) = leadership(entry) else {
            return Err(format!("node {node} appends something that is no entry at {place}"));
        };
        self.entries += 1;
        let hash = xxh3_64(entry);
        let known = *self.written.entry((*shard, *place, by)).or_insert(hash);
        if known != hash {
            return Err(format!(
                "node {node} appends another entry at {place} of leadership {by:?}"
            ));
        }
        Ok(())
    }

    fn judged(&self) -> String {
        format!("{} appended", self.entries)
    }
}
