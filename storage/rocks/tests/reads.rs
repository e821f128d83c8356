//! What a row costs to read among very many: by the bytes that this process asks the system for, so nothing else may run in it.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::ShardId;
use moorline_storage::{
    Batch, Store, View,
    key::{Key, Kind},
};
use moorline_storage_rocks::{Create, RocksStore, StoreConfig, abort};
use prometheus::Registry;

/// As many as the filter of one file was too large for at 10 bits each, twice over.
const ROWS: u64 = 1_000_000;
const BATCH_ROWS: u64 = 10_000;
/// Files that are written one after the other and mixed, so that RocksDB makes one of them.
const PARTS: u64 = 4;
const READS: u64 = 1_000;
/// A block of rows and a few pieces of index and filter, with room. A whole filter is 1.2 MB.
const BYTES_PER_READ_MAX: u64 = 64 * 1024;

/// Files with rows.
fn tables(dir: &Path) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".sst")).count()
}

fn key(number: u64) -> Bytes {
    Key::new(ShardId(1), 1, Kind::Item, 8).u64(number).done()
}

/// Bytes that were read by system calls, from the page cache or not.
fn bytes_read() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
    line.parse().unwrap()
}

#[test]
fn a_row_among_a_million_is_read_without_reading_whole_filters() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig { memtable_bytes: 256 << 20, ..StoreConfig::default() };
    let create = Create::IfMissing;
    let store = RocksStore::open(dir.path(), create, &config, abort(), &Registry::new()).unwrap();
    let value = Bytes::from_static(b"about as much as a small row");
    // Every other one, so that half of the reads are stopped by the filter alone.
    for part in 0..PARTS {
        for first in (0..ROWS / PARTS).step_by(usize::try_from(BATCH_ROWS).unwrap()) {
            let numbers = (first..first + BATCH_ROWS).map(|number| 2 * (PARTS * number + part));
            let rows = numbers.map(|number| (key(number), Some(value.clone())));
            store.write(Batch { changes: rows.collect() }).unwrap();
        }
        store.flush().unwrap();
    }
    let end = Instant::now() + Duration::from_secs(60);
    while tables(dir.path()) > 1 {
        assert!(Instant::now() < end, "they are not one file yet");
        sleep(Duration::from_millis(20));
    }
    let before = bytes_read();
    for read in 0..READS {
        // A large prime: places far from each other.
        let number = read * 15_485_863 % (2 * ROWS);
        let found = store.get(&key(number)).unwrap();
        assert_eq!(found.is_some(), number.is_multiple_of(2), "{number}");
    }
    let per_read = (bytes_read() - before) / READS;
    println!("{per_read} bytes a read");
    assert!(per_read < BYTES_PER_READ_MAX, "{per_read} bytes a read");
}
