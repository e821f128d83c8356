//! Rows on RocksDB answer as rows in memory do, also after crashes.
#![allow(clippy::unwrap_used)]

use std::{ops::ControlFlow, path::Path, sync::Arc};

use bytes::Bytes;
use moorline_core::ShardId;
use moorline_storage::{
    Batch, Rows, StorageError, Store, View,
    key::{self, Key, Kind},
    mem::MemStore,
    overlay::Overlay,
};
use moorline_storage_rocks::{Create, RocksStore, StoreConfig, abort};
use prometheus::Registry;
use proptest::{collection::vec, prelude::*};

fn open(path: &Path) -> RocksStore {
    let config = StoreConfig::default();
    RocksStore::open(path, Create::IfMissing, &config, abort(), &Registry::new()).unwrap()
}

fn rows(view: &impl View, from: &[u8], to: &[u8], rows_max: usize) -> Vec<(Bytes, Bytes)> {
    let mut rows = Vec::new();
    let mut visit = |key: &[u8], value: &Bytes| {
        rows.push((Bytes::copy_from_slice(key), value.clone()));
        if rows.len() == rows_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    view.scan(from, to, &mut visit).unwrap();
    rows
}

fn everything(view: &impl View) -> Vec<(Bytes, Bytes)> {
    rows(view, b"", &[0xff; 8], usize::MAX)
}

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<(Bytes, Option<Bytes>)>),
    Flush,
    Crash,
    Scan(Bytes, Bytes, usize),
}

/// Few keys in few buckets, so that steps meet.
fn some_key() -> impl Strategy<Value = Bytes> {
    (1..3_u16, 0..3_u16, 0..4_u64).prop_map(|(shard, bucket, n)| {
        Key::new(ShardId(shard), bucket, Kind::Item, 8).u64(n).done()
    })
}

fn edge() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        some_key(),
        (1..4_u16).prop_map(|shard| key::range_of_shard(ShardId(shard)).0),
        (1..3_u16, 0..3_u16).prop_map(|(shard, bucket)| key::range_of_kind(
            ShardId(shard),
            bucket,
            Kind::Item
        )
        .1),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let value = proptest::option::of(any::<[u8; 3]>().prop_map(|v| Bytes::copy_from_slice(&v)));
    prop_oneof![
        5 => vec((some_key(), value), 1..6).prop_map(Step::Write),
        1 => Just(Step::Flush),
        1 => Just(Step::Crash),
        4 => (edge(), edge(), 1..20_usize).prop_map(|(from, to, max)| Step::Scan(from, to, max)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn both_stores_answer_alike_with_crashes_in_between(steps in vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let memory = MemStore::new();
        let mut disk = open(dir.path());
        for step in steps {
            match step {
                Step::Write(changes) => {
                    let batch = Batch { changes };
                    memory.write(batch.clone()).unwrap();
                    disk.write(batch).unwrap();
                }
                Step::Flush => {
                    memory.flush().unwrap();
                    disk.flush().unwrap();
                }
                Step::Crash => {
                    memory.crash();
                    drop(disk);
                    disk = open(dir.path());
                }
                Step::Scan(from, to, max) => {
                    prop_assert_eq!(rows(&disk, &from, &to, max), rows(&memory, &from, &to, max));
                    prop_assert_eq!(disk.get(&from).unwrap(), memory.get(&from).unwrap());
                    let view = disk.snapshot();
                    prop_assert_eq!(rows(&view, &from, &to, max), rows(&memory, &from, &to, max));
                }
            }
            prop_assert_eq!(everything(&disk), everything(&memory));
        }
        prop_assert!(disk.verify_checksums().is_ok());
    }
}

fn row(n: u64, value: u8, bytes: usize) -> (Bytes, Option<Bytes>) {
    let key = Key::new(ShardId(1), 7, Kind::Item, 8).u64(n).done();
    (key, Some(Bytes::from(vec![value; bytes])))
}

#[test]
fn a_crash_leaves_whole_batches_only() {
    // Buffers so small that RocksDB writes some out by itself between our flushes.
    let config = StoreConfig { memtable_bytes: 64 * 1024, ..StoreConfig::default() };
    let dir = tempfile::tempdir().unwrap();
    let reopen = || {
        let registry = Registry::new();
        RocksStore::open(dir.path(), Create::IfMissing, &config, abort(), &registry).unwrap()
    };
    let store = reopen();
    for round in 0..=200_u8 {
        // All rows of a batch carry the same value.
        store.write(Batch { changes: (0..8).map(|n| row(n, round, 1_000)).collect() }).unwrap();
        if round == 100 {
            store.flush().unwrap();
        }
    }
    drop(store);
    let found: Vec<u8> = everything(&reopen()).iter().map(|(_, value)| value[0]).collect();
    assert_eq!(found.len(), 8);
    assert!(found.iter().all(|&round| round == found[0] && round >= 100), "{found:?}");
}

#[test]
fn a_view_does_not_see_what_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.write(Batch { changes: vec![row(1, 1, 1)] }).unwrap();
    let view = store.snapshot();
    store.write(Batch { changes: vec![row(1, 2, 1), row(2, 2, 1)] }).unwrap();
    assert_eq!(everything(&view).len(), 1);
    assert_eq!(view.get(&row(1, 0, 0).0).unwrap().as_deref(), Some(&[1][..]));
    assert_eq!(everything(&store).len(), 2);
}

#[test]
fn an_overlay_checkpoints_into_it() -> Result<(), StorageError> {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    let mut overlay = Overlay::new(Arc::clone(&store));
    for n in 0..100 {
        let (key, value) = row(n, 1, 10);
        overlay.put_fresh(key, value.unwrap());
    }
    let frozen = overlay.freeze();
    for n in 0..50 {
        overlay.delete(row(n, 0, 0).0);
    }
    store.write(frozen.to_batch())?;
    store.flush()?;
    overlay.thaw_done();
    drop((overlay, store));
    let store = Arc::new(open(dir.path()));
    assert_eq!(everything(&store).len(), 100, "what was not frozen is for the log to bring back");
    Ok(())
}

#[test]
fn scrapes_tell_how_large_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::new();
    let config = StoreConfig::default();
    let store =
        RocksStore::open(dir.path(), Create::IfMissing, &config, abort(), &registry).unwrap();
    store.write(Batch { changes: vec![row(1, 1, 1_000)] }).unwrap();
    store.flush().unwrap();
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    for line in [
        "moorline_storage_bytes{database=\"state\",kind=\"files\"}",
        "moorline_state_flush_seconds_count 1",
        "moorline_state_written_bytes_total",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    drop(store);
    registry.gather();
}
