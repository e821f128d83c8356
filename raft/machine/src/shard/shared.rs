//! Messages that several queues of a shard have: stored once, with a count of the queues that still refer to them.
//!
//! # Invariants
//!
//! - **A message row is there as long as an item refers to it, and no longer.** Checked by `tests/rules/queues.rs`.

use std::collections::{BTreeMap, btree_map::Entry};

use moorline_core::Message;
use moorline_storage::{Rows, StorageError};

use crate::{
    rows::{NumberRow, Row, SharedMessage, corrupt},
    step::Step,
};

/// Counts that changed in this batch, written at its end: a message to many sessions is settled by many.
#[derive(Debug, Default)]
pub(crate) struct SharedRefs {
    touched: BTreeMap<u64, Refs>,
}

#[derive(Debug)]
struct Refs {
    count: u64,
    /// Made in this batch, so that no row has the count.
    fresh: bool,
}

impl SharedRefs {
    /// Stores a message for `count` queues; gives its number.
    pub(crate) fn store<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        message: &Message,
        count: u64,
    ) -> u64 {
        // A version is never given twice, so neither is this number.
        let id = step.version();
        step.put_fresh(step.keys.message(id), SharedMessage::to_bytes(message));
        self.touched.insert(id, Refs { count, fresh: true });
        id
    }

    /// One queue no longer has it.
    pub(crate) fn drop_one<R: Rows + ?Sized>(
        &mut self,
        step: &Step<'_, R>,
        id: u64,
    ) -> Result<(), StorageError> {
        let refs = match self.touched.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let row = step.rows.get(&step.keys.message_refs(id))?;
                let row = row.ok_or_else(|| corrupt("message references", &"they are missing"))?;
                let NumberRow(count) = NumberRow::from_bytes(&row)?;
                unknown.insert(Refs { count, fresh: false })
            }
        };
        refs.count = refs
            .count
            .checked_sub(1)
            .ok_or_else(|| corrupt("message references", &"more than were counted"))?;
        Ok(())
    }

    pub(crate) fn flush<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>) {
        while let Some((id, Refs { count, fresh })) = self.touched.pop_first() {
            let key = step.keys.message_refs(id);
            match (count, fresh) {
                (0, fresh) => {
                    step.delete(step.keys.message(id));
                    if !fresh {
                        step.delete(key);
                    }
                }
                (count, true) => step.put_fresh(key, NumberRow(count).to_bytes()),
                (count, false) => step.put(key, NumberRow(count).to_bytes()),
            }
        }
    }
}
