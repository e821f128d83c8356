//! What was applied once at an index is what everybody applies there, for ever, and the terms along the log never go back.
//!
//! Source: Raft's state machine safety and leader completeness (figure 3 of the paper).

use std::collections::BTreeMap;

use moorline_core::ShardId;
use xxhash_rust::xxh3::xxh3_64;

use super::{Invariant, log_matching::leadership};
use crate::witness::Event;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    /// Hash and leadership of what was applied.
    applied: BTreeMap<(ShardId, u64), (u64, (u64, u64))>,
    /// How far a process has come.
    reached: BTreeMap<(u64, u64, ShardId), u64>,
    judged: u64,
}

impl Invariant for Committed {
    fn name(&self) -> &'static str {
        "committed"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Applied { node, process, shard, index } => {
                let before = self.reached.insert((*node, *process, *shard), *index);
                if before >= Some(*index) {
                    return Err(format!("node {node} applied {index} after {before:?}"));
                }
            }
            Event::Deleted { node, shard } => {
                self.reached.retain(|(of, _, what), _| (of, what) != (node, shard));
            }
            Event::Committed { node, shard, index, entry } => {
                self.judged += 1;
                let by = leadership(entry).ok_or("what is applied is no entry")?;
                let this = (xxh3_64(entry), by);
                let known = *self.applied.entry((*shard, *index)).or_insert(this);
                if known != this {
                    return Err(format!(
                        "node {node} applied an entry of {by:?} at {index}, where one of {:?} was applied before",
                        known.1
                    ));
                }
                let earlier =
                    index.checked_sub(1).and_then(|index| self.applied.get(&(*shard, index)));
                if earlier.is_some_and(|(_, earlier)| *earlier > by) {
                    return Err(format!(
                        "entry {index} is of {by:?}, the one before it of a later one"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> String {
        format!("{} of {} committed", self.judged, self.applied.len())
    }
}
