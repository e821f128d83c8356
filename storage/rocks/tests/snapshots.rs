//! A shard's rows, out of one store and into another.
#![allow(clippy::unwrap_used)]

use std::{fs, ops::ControlFlow, path::Path};

use bytes::Bytes;
use moorline_core::ShardId;
use moorline_storage::{
    Batch, ShardStore, SstFile, StorageError, Store, View,
    key::{self, Key, Kind},
};
use moorline_storage_rocks::{Create, RocksStore, StoreConfig, abort};
use prometheus::Registry;

fn open(path: &Path) -> RocksStore {
    let config = StoreConfig::default();
    RocksStore::open(path, Create::IfMissing, &config, abort(), &Registry::new()).unwrap()
}

/// Writes `count` rows, spread over buckets; `seed` makes them differ.
fn fill(store: &RocksStore, shard: u16, count: u64, bytes: usize, seed: u8) {
    let row = |n: u64| {
        let key = Key::new(ShardId(shard), (n % 64) as u16, Kind::Item, 8).u64(n).done();
        // Not compressible, so that files fill up.
        let noise = |at: usize| {
            let mixed = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(at as u32 % 64);
            (mixed.wrapping_mul(at as u64 | 1) >> 56) as u8 ^ seed
        };
        (key, Some((0..bytes).map(noise).collect::<Bytes>()))
    };
    store.write(Batch { changes: (0..count).map(row).collect() }).unwrap();
}

fn rows(view: &impl View, shard: u16) -> Vec<(Bytes, Bytes)> {
    let (from, to) = key::range_of_shard(ShardId(shard));
    let mut rows = Vec::new();
    view.scan(&from, &to, &mut |key, value| {
        rows.push((Bytes::copy_from_slice(key), value.clone()));
        ControlFlow::Continue(())
    })
    .unwrap();
    rows
}

struct Both {
    from: RocksStore,
    to: RocksStore,
    /// The last to go: a compaction that still writes would take a directory that is gone for a disk that failed.
    dir: tempfile::TempDir,
}

impl Both {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (open(&dir.path().join("from")), open(&dir.path().join("to")));
        fs::create_dir(dir.path().join("out")).unwrap();
        Self { dir, from, to }
    }

    fn export(&self, shard: u16) -> Vec<SstFile> {
        self.from.export(ShardId(shard), &self.dir.path().join("out")).unwrap()
    }

    fn reopen(self) -> RocksStore {
        let path = self.dir.path().join("to");
        drop(self.to);
        let store = open(&path);
        // The directory may go: the files stay as long as they are open.
        store
    }
}

#[test]
fn an_installed_shard_is_the_exported_one_and_survives_a_crash() {
    let both = Both::new();
    for shard in [1, 2, 3] {
        fill(&both.from, shard, 500, 40, 1);
        fill(&both.to, shard, 900, 40, 2);
    }
    both.from.flush().unwrap();
    fill(&both.from, 2, 100, 40, 3); // in files and in memory
    let files = both.export(2);
    assert_eq!(files.iter().map(|file| file.keys).sum::<u64>(), 500);
    both.to.install(ShardId(2), &files).unwrap();
    let expected = rows(&both.from, 2);
    let others = [rows(&both.to, 1), rows(&both.to, 3)];
    assert_eq!(rows(&both.to, 2), expected);
    for (key, value) in &expected {
        assert_eq!(both.to.get(key).unwrap().as_ref(), Some(value));
    }
    let (from, to) = key::range_of_kind(ShardId(2), 5, Kind::Item);
    let mut in_bucket = 0;
    both.to
        .scan(&from, &to, &mut |_, _| {
            in_bucket += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(in_bucket, expected.iter().filter(|(key, _)| key[3] == 5).count());
    let both = Both { from: both.from, ..both };
    let to = both.reopen();
    assert_eq!(rows(&to, 2), expected);
    assert_eq!([rows(&to, 1), rows(&to, 3)], others, "others are as they were");
}

#[test]
fn installing_again_and_over_later_writes_gives_the_same() {
    let both = Both::new();
    fill(&both.from, 1, 300, 40, 1);
    let files = both.export(1);
    for round in 0..3 {
        both.to.install(ShardId(1), &files).unwrap();
        assert_eq!(rows(&both.to, 1), rows(&both.from, 1), "round {round}");
        fill(&both.to, 1, 700, 40, round);
        assert_ne!(rows(&both.to, 1), rows(&both.from, 1));
    }
    both.to.install(ShardId(1), &[]).unwrap();
    assert_eq!(rows(&both.to, 1), []);
}

#[test]
fn an_export_is_one_moment_and_may_take_several_files() {
    let both = Both::new();
    fill(&both.from, 1, 40_000, 1_000, 1);
    let files = both.export(1);
    assert!(files.len() >= 2, "{} files", files.len());
    assert!(files.iter().all(|file| file.bytes <= 34 * 1024 * 1024));
    assert!(both.export(9).is_empty(), "a shard without rows");
    let expected = rows(&both.from, 1);
    fill(&both.from, 1, 10, 10, 2);
    both.to.install(ShardId(1), &files).unwrap();
    assert_eq!(rows(&both.to, 1), expected);
}

#[test]
fn a_damaged_file_is_noticed_before_anything_is_touched() {
    let both = Both::new();
    fill(&both.from, 1, 300, 40, 1);
    fill(&both.to, 1, 30, 40, 2);
    let before = rows(&both.to, 1);
    let files = both.export(1);
    let path = &files[0].path;
    let whole = fs::read(path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&whole[..whole.len() - 1], &flipped, b""] {
        fs::write(path, damaged).unwrap();
        let installed = both.to.install(ShardId(1), &files);
        assert!(matches!(installed, Err(StorageError::Corrupt { .. })), "{installed:?}");
        assert_eq!(rows(&both.to, 1), before);
    }
    fs::remove_file(path).unwrap();
    assert!(matches!(both.to.install(ShardId(1), &files), Err(StorageError::Io { .. })));
    assert_eq!(rows(&both.to, 1), before);
}
