//! Rows that changed since the last checkpoint, in memory, over a store.
//!
//! ```text
//!   put, delete ─► active ┐
//!        freeze: a new active one, the old one stays visible while it is written out
//!                  frozen ├─ what is read: the first that knows the key
//!         recent ◄── base ┘  a row of the base that was read stays in memory for a while
//! ```
//!
//! # Invariants
//!
//! - **One map.** Whatever is frozen when, reads answer as one plain map would. Checked by this file's property test.
//! - **What came and went leaves nothing.** A row that was put as fresh and deleted before a checkpoint is written
//!   nowhere: not as a row, not as a removal. Checked by the same test.

use std::{
    collections::{
        BTreeMap,
        btree_map::{Entry, Range},
    },
    iter::Peekable,
    ops::{Bound, ControlFlow},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use crate::{Batch, Rows, StorageError, View, recent::Recent};

/// What a changed row costs in memory besides its key and value: the map's node, two buffers' headers.
const ROW_BYTES: usize = 128;

#[derive(Debug, Clone)]
struct Change {
    /// `None`: the row is removed.
    value: Option<Bytes>,
    /// The row was nowhere below when it was put: to remove it is to forget it.
    fresh: bool,
}

type Changes = BTreeMap<Bytes, Change>;

fn bytes_of(key: &Bytes, value: Option<&Bytes>) -> usize {
    ROW_BYTES + key.len() + value.map_or(0, Bytes::len)
}

/// Changes that a checkpoint writes out. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Frozen {
    changes: Arc<Changes>,
    bytes: usize,
}

impl Frozen {
    /// Every changed row in key order; `None` for a removed one.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Option<Bytes>)> {
        self.changes.iter().map(|(key, change)| (key, &change.value))
    }

    /// How many rows changed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Bytes of memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The changes for a store; keys and values are shared, not copied.
    #[must_use]
    pub fn to_batch(&self) -> Batch {
        let change = |(key, value): (&Bytes, &Option<Bytes>)| (key.clone(), value.clone());
        Batch { changes: self.iter().map(change).collect() }
    }
}

/// Changed rows over a base that does not change but by checkpoints of this overlay.
#[derive(Debug)]
pub struct Overlay<S> {
    active: Changes,
    active_bytes: usize,
    frozen: Option<Frozen>,
    /// Rows of the base that no change above hides. Locked for a look or an entry, never while the base is read.
    recent: Mutex<Recent>,
    base: S,
}

impl<S: View> Overlay<S> {
    /// Nothing is changed yet.
    pub fn new(base: S) -> Self {
        let recent = Mutex::default();
        Self { active: Changes::new(), active_bytes: 0, frozen: None, recent, base }
    }

    /// What is below.
    pub fn base(&self) -> &S {
        &self.base
    }

    /// Takes the changes for a checkpoint; they stay visible until [`Overlay::thaw_done`].
    ///
    /// # Panics
    ///
    /// If others are frozen already: checkpoints of a group come one after the other.
    pub fn freeze(&mut self) -> Frozen {
        assert!(self.frozen.is_none(), "one checkpoint at a time");
        let changes = Arc::new(std::mem::take(&mut self.active));
        let frozen = Frozen { changes, bytes: std::mem::take(&mut self.active_bytes) };
        self.frozen = Some(frozen.clone());
        frozen
    }

    /// Whether changes are frozen.
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// The frozen changes are in the base now, and flushed.
    ///
    /// # Panics
    ///
    /// If nothing is frozen.
    pub fn thaw_done(&mut self) {
        assert!(self.frozen.take().is_some(), "nothing was frozen");
    }

    /// Bytes of memory, about: active and frozen.
    pub fn bytes(&self) -> usize {
        self.active_bytes + self.frozen.as_ref().map_or(0, Frozen::bytes)
    }

    /// Bytes that the next checkpoint would take.
    pub fn active_bytes(&self) -> usize {
        self.active_bytes
    }

    /// Rows that the next checkpoint would write.
    pub fn active_len(&self) -> usize {
        self.active.len()
    }

    fn set(&mut self, key: Bytes, value: Option<Bytes>, fresh: bool) {
        if !fresh {
            // One that is fresh was nowhere to be read.
            self.recent.get_mut().unwrap_or_else(PoisonError::into_inner).forget(&key);
        }
        let key_bytes = key.len();
        self.active_bytes += bytes_of(&key, value.as_ref());
        match self.active.entry(key) {
            Entry::Vacant(free) => {
                free.insert(Change { value, fresh });
            }
            // Whether the row is below does not change with its value here.
            Entry::Occupied(mut taken) => {
                let before = std::mem::replace(&mut taken.get_mut().value, value);
                self.active_bytes -= ROW_BYTES + key_bytes + before.map_or(0, |value| value.len());
            }
        }
    }

    fn changes_in<'a>(&'a self, from: &[u8], to: &[u8]) -> Upper<'a> {
        let range = (Bound::Included(from), Bound::Excluded(to));
        let frozen = self.frozen.as_ref();
        Upper {
            active: self.active.range::<[u8], _>(range).peekable(),
            frozen: frozen.map(|frozen| frozen.changes.range::<[u8], _>(range).peekable()),
        }
    }
}

/// Active and frozen changes of a range, in key order, the active one where both have a key.
struct Upper<'a> {
    active: Peekable<Range<'a, Bytes, Change>>,
    frozen: Option<Peekable<Range<'a, Bytes, Change>>>,
}

impl<'a> Upper<'a> {
    /// The next key.
    fn key(&mut self) -> Option<&'a Bytes> {
        let active = self.active.peek().map(|&(key, _)| key);
        let frozen = self.frozen.as_mut().and_then(|frozen| frozen.peek().map(|&(key, _)| key));
        match (active, frozen) {
            (Some(active), Some(frozen)) => Some(active.min(frozen)),
            (one, other) => one.or(other),
        }
    }
}

impl<'a> Iterator for Upper<'a> {
    type Item = (&'a Bytes, &'a Option<Bytes>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.key()?;
        let hidden = self.frozen.as_mut().and_then(|frozen| frozen.next_if(|&(k, _)| k == key));
        let active = self.active.next_if(|&(k, _)| k == key);
        active.or(hidden).map(|(key, change)| (key, &change.value))
    }
}

impl<S: View> View for Overlay<S> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        if let Some(change) = self.active.get(key) {
            return Ok(change.value.clone());
        }
        if let Some(change) = self.frozen.as_ref().and_then(|frozen| frozen.changes.get(key)) {
            return Ok(change.value.clone());
        }
        // Every change of it is whole, whoever panics.
        let recent = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = recent().get(key) {
            return Ok(Some(value));
        }
        let found = self.base.get(key)?;
        if let Some(value) = &found {
            recent().keep(Bytes::copy_from_slice(key), value.clone());
        }
        Ok(found)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &Bytes) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        if from >= to {
            return Ok(());
        }
        let mut upper = self.changes_in(from, to);
        let mut ended = false;
        self.base.scan(from, to, &mut |base_key, base_value| {
            let mut hidden = false;
            while !hidden && upper.key().is_some_and(|key| key[..] <= *base_key) {
                let (key, value) = upper.next().expect("there is a key");
                hidden = key[..] == *base_key;
                if let Some(value) = value
                    && visit(key, value).is_break()
                {
                    ended = true;
                    return ControlFlow::Break(());
                }
            }
            if !hidden && visit(base_key, base_value).is_break() {
                ended = true;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if !ended {
            for (key, value) in upper {
                if let Some(value) = value
                    && visit(key, value).is_break()
                {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl<S: View> Rows for Overlay<S> {
    fn put(&mut self, key: Bytes, value: Bytes) {
        self.set(key, Some(value), false);
    }

    fn put_fresh(&mut self, key: Bytes, value: Bytes) {
        // Too dear for release: a false claim would let a removed row come back.
        debug_assert!(matches!(self.get(&key), Ok(None)), "a fresh row is not there yet");
        self.set(key, Some(value), true);
    }

    fn delete(&mut self, key: Bytes) {
        if let Entry::Occupied(taken) = self.active.entry(key.clone())
            && taken.get().fresh
        {
            let (key, change) = taken.remove_entry();
            self.active_bytes -= bytes_of(&key, change.value.as_ref());
        } else {
            self.set(key, None, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{Store, mem::MemStore};

    /// One-byte keys, so that everything collides.
    #[derive(Debug, Clone)]
    enum Step {
        Put(u8, u8),
        Delete(u8),
        Freeze,
        /// The checkpoint reaches the base; readers see frozen changes twice for a moment.
        Write,
        Thaw,
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = 0..12_u8;
        prop_oneof![
            6 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
            4 => key.prop_map(Step::Delete),
            1 => Just(Step::Freeze),
            1 => Just(Step::Write),
            1 => Just(Step::Thaw),
        ]
    }

    struct Checked {
        overlay: Overlay<Arc<MemStore>>,
        model: BTreeMap<u8, u8>,
        /// What is frozen, and whether it is in the base.
        checkpoint: Option<(Frozen, bool)>,
    }

    fn key(key: u8) -> Bytes {
        Bytes::copy_from_slice(&[key])
    }

    impl Checked {
        fn new() -> Self {
            let overlay = Overlay::new(Arc::new(MemStore::new()));
            Self { overlay, model: BTreeMap::new(), checkpoint: None }
        }

        fn take(&mut self, step: &Step) {
            match *step {
                Step::Put(k, v) => {
                    let value = Bytes::copy_from_slice(&[v]);
                    match self.model.insert(k, v) {
                        Some(_) => self.overlay.put(key(k), value),
                        None => self.overlay.put_fresh(key(k), value),
                    }
                }
                Step::Delete(k) => {
                    self.model.remove(&k);
                    self.overlay.delete(key(k));
                }
                Step::Freeze => {
                    if self.checkpoint.is_none() {
                        self.checkpoint = Some((self.overlay.freeze(), false));
                    }
                }
                Step::Write => {
                    if let Some((frozen, written @ false)) = &mut self.checkpoint {
                        self.overlay.base().write(frozen.to_batch()).unwrap();
                        *written = true;
                    }
                }
                Step::Thaw => {
                    if let Some((_, true)) = self.checkpoint {
                        self.checkpoint = None;
                        self.overlay.thaw_done();
                    }
                }
            }
        }

        fn scan(&self, from: u8, to: u8, rows_max: usize) -> Vec<(u8, u8)> {
            let mut rows = Vec::new();
            let mut visit = |key: &[u8], value: &Bytes| {
                rows.push((key[0], value[0]));
                if rows.len() == rows_max {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            self.overlay.scan(&[from], &[to], &mut visit).unwrap();
            rows
        }

        fn expected(&self, from: u8, to: u8) -> Vec<(u8, u8)> {
            let model = self.model.iter().map(|(&key, &value)| (key, value));
            model.filter(|&(key, _)| from <= key && key < to).collect()
        }

        fn check(&self) {
            // The second time from memory, wherever it was the first time.
            for k in (0..12).chain(0..12) {
                let found = self.overlay.get(&[k]).unwrap();
                assert_eq!(found.map(|value| value[0]), self.model.get(&k).copied(), "row {k}");
            }
            for (from, to) in [(0, 12), (3, 9), (5, 6), (9, 3)] {
                let mut expected = self.expected(from, to);
                assert_eq!(self.scan(from, to, usize::MAX), expected, "{from} to {to}");
                expected.truncate(2);
                assert_eq!(self.scan(from, to, 2), expected, "two from {from} to {to}");
            }
            let bytes = |(key, change): (&Bytes, &Change)| bytes_of(key, change.value.as_ref());
            let active: usize = self.overlay.active.iter().map(bytes).sum();
            assert_eq!(self.overlay.active_bytes(), active);
        }
    }

    proptest! {
        #[test]
        fn an_overlay_answers_as_one_map_would(steps in vec(step(), 0..120)) {
            let mut checked = Checked::new();
            for step in &steps {
                checked.take(step);
                checked.check();
            }
        }

        #[test]
        fn what_came_and_went_between_checkpoints_is_not_written(steps in vec(step(), 0..60)) {
            let mut checked = Checked::new();
            for step in &steps {
                checked.take(step);
            }
            for step in [Step::Write, Step::Thaw, Step::Freeze, Step::Write, Step::Thaw] {
                checked.take(&step);
            }
            for k in 0..12 {
                checked.take(&Step::Delete(k));
            }
            for step in [Step::Freeze, Step::Write, Step::Thaw] {
                checked.take(&step);
            }
            assert!(checked.overlay.base().is_empty());
            for k in 0..12 {
                checked.take(&Step::Put(k, 1));
                checked.take(&Step::Put(k, 2));
                checked.take(&Step::Delete(k));
            }
            prop_assert_eq!((checked.overlay.bytes(), checked.overlay.freeze().len()), (0, 0));
        }
    }

    #[test]
    fn a_removal_of_what_lies_below_is_written() {
        let mut checked = Checked::new();
        let table = [Step::Put(1, 1), Step::Freeze, Step::Write, Step::Thaw, Step::Delete(1)];
        table.iter().for_each(|step| checked.take(step));
        // Put again while its removal is pending: the row below is still there, so it is not forgotten.
        for step in [Step::Put(1, 2), Step::Delete(1)] {
            checked.take(&step);
        }
        let frozen = checked.overlay.freeze();
        assert_eq!(frozen.iter().collect::<Vec<_>>(), [(&key(1), &None)]);
        assert!(checked.overlay.is_frozen() && !frozen.is_empty() && frozen.bytes() > 0);
    }

    #[test]
    #[should_panic(expected = "one checkpoint at a time")]
    fn two_checkpoints_at_once_are_a_bug() {
        let mut checked = Checked::new();
        checked.overlay.freeze();
        checked.overlay.freeze();
    }
}
