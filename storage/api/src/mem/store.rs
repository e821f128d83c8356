//! Rows in memory. A crash brings back what was flushed last.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;

use crate::{Batch, StorageError, Store, View};

type Map = BTreeMap<Bytes, Bytes>;

/// A [`Store`] without a disk.
#[derive(Debug, Default)]
pub struct MemStore {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Shared with whoever scans at the moment: a write copies it then, and only then.
    rows: Arc<Map>,
    /// What each change since the last flush replaced, oldest first.
    undo: Vec<(Bytes, Option<Bytes>)>,
}

impl Inner {
    fn set(&mut self, key: Bytes, value: Option<Bytes>) -> Option<Bytes> {
        let rows = Arc::make_mut(&mut self.rows);
        match value {
            Some(value) => rows.insert(key, value),
            None => rows.remove(&key),
        }
    }
}

impl MemStore {
    /// A store without rows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while it is locked")
    }

    /// What a power failure leaves: everything after the last flush is gone.
    pub fn crash(&self) {
        let mut inner = self.inner();
        while let Some((key, value)) = inner.undo.pop() {
            inner.set(key, value);
        }
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner().rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl View for MemStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.inner().rows.get(key).cloned())
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
        let rows = Arc::clone(&self.inner().rows);
        for (key, value) in rows.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Store for MemStore {
    fn write(&self, batch: Batch) -> Result<(), StorageError> {
        let mut inner = self.inner();
        for (key, value) in batch.changes {
            let before = inner.set(key.clone(), value);
            inner.undo.push((key, before));
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.inner().undo.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(changes: &[(&'static str, Option<&'static str>)]) -> Batch {
        let change = |&(key, value): &(&'static str, Option<&'static str>)| {
            (Bytes::from(key), value.map(Bytes::from))
        };
        Batch { changes: changes.iter().map(change).collect() }
    }

    fn rows(store: &MemStore) -> Vec<(Bytes, Bytes)> {
        let mut rows = Vec::new();
        let mut visit = |key: &[u8], value: &Bytes| {
            rows.push((Bytes::copy_from_slice(key), value.clone()));
            ControlFlow::Continue(())
        };
        store.scan(b"", b"~", &mut visit).unwrap();
        rows
    }

    #[test]
    fn a_crash_brings_back_what_was_flushed() {
        let store = MemStore::new();
        store.write(batch(&[("a", Some("1")), ("b", Some("1"))])).unwrap();
        store.flush().unwrap();
        let flushed = rows(&store);
        store.write(batch(&[("a", Some("2")), ("b", None), ("c", Some("2"))])).unwrap();
        store.write(batch(&[("a", None), ("b", Some("3"))])).unwrap();
        assert_ne!(rows(&store), flushed);
        store.crash();
        assert_eq!(rows(&store), flushed);
        store.crash();
        assert_eq!(rows(&store), flushed, "nothing is left to lose");
    }

    #[test]
    fn later_changes_of_a_key_win() {
        let store = MemStore::new();
        store.write(batch(&[("a", Some("1")), ("a", None), ("a", Some("2"))])).unwrap();
        assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"2"[..]));
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn a_scan_may_read_and_is_not_disturbed_by_writes() {
        let store = MemStore::new();
        store.write(batch(&[("a", Some("1")), ("b", Some("1"))])).unwrap();
        let mut seen = 0;
        let mut visit = |key: &[u8], _: &Bytes| {
            seen += 1;
            store.write(batch(&[("b", None), ("aa", Some("2"))])).unwrap();
            assert!(store.get(key).unwrap().is_some() || key == b"b");
            ControlFlow::Continue(())
        };
        store.scan(b"a", b"c", &mut visit).unwrap();
        assert_eq!(seen, 2);
        store.scan(b"c", b"a", &mut |_, _| unreachable!("nothing lies there")).unwrap();
    }
}
