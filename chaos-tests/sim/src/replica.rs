//! One replica: a machine over an overlay over a store, with checkpoints that a crash may cut short.

use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use moorline_core::ShardId;
use moorline_machine::{Effect, Machine, RunAnswers};
use moorline_storage::{
    Batch, Rows, StorageError, Store, View, key,
    mem::MemStore,
    overlay::{Frozen, Overlay},
};

/// What the simulator relies on: rows in memory can always be read.
const IN_MEMORY: &str = "rows in memory can be read";

pub(crate) struct Replica {
    group: ShardId,
    pub(crate) machine: Machine,
    pub(crate) rows: Overlay<Arc<MemStore>>,
    /// Entries below are applied.
    pub(crate) applied: u64,
    /// Entries below are in the store, and flushed.
    durable: u64,
    /// A checkpoint under way: entries below are in it.
    checkpoint: Option<(u64, Frozen)>,
}

impl Replica {
    pub(crate) fn new(group: ShardId) -> Self {
        let rows = Overlay::new(Arc::new(MemStore::new()));
        let machine = Machine::open(group, &rows).expect(IN_MEMORY);
        Self { group, machine, rows, applied: 0, durable: 0, checkpoint: None }
    }

    /// Applies the entry at `applied`.
    pub(crate) fn apply(
        &mut self,
        entry: Option<&Bytes>,
    ) -> Result<(Vec<RunAnswers>, Vec<Effect>), StorageError> {
        let mut effects = Vec::new();
        let answers = match entry {
            Some(batch) => self.machine.apply(&mut self.rows, self.applied, batch, &mut effects)?,
            None => {
                self.machine.blank(self.applied);
                Vec::new()
            }
        };
        self.applied += 1;
        let row = Bytes::copy_from_slice(&self.applied.to_be_bytes());
        self.rows.put(key::applied(self.group), row);
        Ok((answers, effects))
    }

    /// One step of a checkpoint: begin it, write it, or flush it.
    pub(crate) fn checkpoint(&mut self, write: bool) {
        match self.checkpoint.take() {
            None => self.checkpoint = Some((self.applied, self.rows.freeze())),
            Some((applied, frozen)) if write => {
                // Written, but not flushed: a crash here must bring back the earlier checkpoint.
                self.rows.base().write(frozen.to_batch()).expect(IN_MEMORY);
                self.checkpoint = Some((applied, frozen));
            }
            Some((applied, frozen)) => {
                self.rows.base().write(frozen.to_batch()).expect(IN_MEMORY);
                self.rows.base().flush().expect(IN_MEMORY);
                self.rows.thaw_done();
                self.durable = applied;
            }
        }
    }

    /// The process dies and starts again: what was not flushed is applied again from the log.
    pub(crate) fn crash(&mut self) {
        let store = Arc::clone(self.rows.base());
        store.crash();
        self.reopen(store);
        let row = self.rows.get(&key::applied(self.group)).expect(IN_MEMORY);
        let applied = row.map_or(0, |row| u64::from_be_bytes(row[..].try_into().expect("ours")));
        assert_eq!(applied, self.durable, "the store holds another state than was flushed");
        self.applied = applied;
    }

    fn reopen(&mut self, store: Arc<MemStore>) {
        self.rows = Overlay::new(store);
        self.machine = Machine::open(self.group, &self.rows).expect(IN_MEMORY);
        self.checkpoint = None;
    }

    /// All rows, in order.
    pub(crate) fn all(&self) -> Vec<(Bytes, Bytes)> {
        let (from, to) = key::range_of_shard(self.group);
        let mut rows = Vec::new();
        let mut visit = |key: &[u8], value: &Bytes| {
            rows.push((Bytes::copy_from_slice(key), value.clone()));
            ControlFlow::Continue(())
        };
        self.rows.scan(&from, &to, &mut visit).expect(IN_MEMORY);
        rows
    }

    /// The bug: a row disappears.
    pub(crate) fn lose_item(&mut self) {
        let lost = self.all().into_iter().find(|(key, _)| key[4] == key::Kind::Item as u8);
        if let Some((key, _)) = lost {
            self.rows.delete(key);
        }
    }

    /// Takes over another replica's rows, flushed, as from a snapshot.
    pub(crate) fn install(&mut self, applied: u64, rows: Vec<(Bytes, Bytes)>) {
        // Nothing of what was there before may stay, not even what the overlay hid.
        let store = Arc::new(MemStore::new());
        let changes = rows.into_iter().map(|(key, value)| (key, Some(value))).collect();
        store.write(Batch { changes }).expect(IN_MEMORY);
        store.flush().expect(IN_MEMORY);
        self.reopen(store);
        (self.applied, self.durable) = (applied, applied);
    }
}
