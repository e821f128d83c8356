//! Damaged files: refused or reported, never read as something else.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};

use bytes::Bytes;
use moorline_core::ShardId;
use moorline_storage::{
    Batch, StorageError, Store, View,
    key::{Key, Kind},
    log::{LogEngine, LogOp, LogRecord, Mark},
};
use moorline_storage_rocks::{Create, Fatal, LogConfig, RocksLog, RocksStore, StoreConfig, abort};
use prometheus::Registry;

const GROUP: ShardId = ShardId(1);
const ENTRIES: u64 = 600;
/// More files of the newest rows than the store leaves uncompacted.
const COMPACTED_FILES: u64 = 12;

fn open_log(path: &Path, create: Create) -> Result<RocksLog, StorageError> {
    RocksLog::open(path, create, &LogConfig::default(), abort(), &Registry::new())
}

fn open_store(path: &Path) -> Result<RocksStore, StorageError> {
    RocksStore::open(path, Create::Never, &StoreConfig::default(), abort(), &Registry::new())
}

/// Appends entries, each in a commit of its own.
fn append(log: &RocksLog, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        let (done, told) = mpsc::sync_channel(1);
        let record = LogRecord { index, body: Bytes::from(format!("entry {index:0100}")) };
        let tell = Box::new(move |result: Result<(), _>| done.send(result).unwrap());
        log.submit(GROUP, LogOp::Append(vec![record]), Some(tell));
        told.recv().unwrap().unwrap();
    }
}

/// A directory as a process leaves it that was killed: copied while the log is open.
fn killed_log(dir: &Path) -> PathBuf {
    let (live, killed) = (dir.join("live"), dir.join("killed"));
    let log = open_log(&live, Create::IfMissing).unwrap();
    append(&log, 1..=ENTRIES);
    copy(&live, &killed);
    killed
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn largest(dir: &Path, extension: &str) -> PathBuf {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let fitting = files.filter(|path| path.extension().is_some_and(|found| found == extension));
    fitting.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

fn flip(path: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn read_all(log: &RocksLog) -> Result<usize, StorageError> {
    let records = log.read(GROUP, 1, ENTRIES + 1, usize::MAX)?;
    for (record, index) in records.iter().zip(1..) {
        assert_eq!(record.index, index);
        assert_eq!(record.body, format!("entry {index:0100}"));
    }
    Ok(records.len())
}

#[test]
fn a_killed_log_opens_with_everything() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(&killed_log(dir.path()), Create::Never).unwrap();
    assert_eq!(read_all(&log).unwrap(), ENTRIES as usize);
    assert_eq!(log.bounds(GROUP).unwrap(), Some((1, ENTRIES)));
}

/// Where commits begin in a write-ahead log whose commits are all alike: by the text of their entries.
fn begin_of(wal: &[u8], index: u64) -> usize {
    let text = format!("entry {index:0100}");
    wal.windows(text.len()).position(|window| window == text.as_bytes()).unwrap()
}

/// Opens a copy of `killed` whose write-ahead log is changed; tells how many entries it has.
fn open_damaged(
    dir: &Path,
    killed: &Path,
    damage: &dyn Fn(&mut Vec<u8>),
) -> Result<usize, StorageError> {
    let damaged = dir.join("damaged");
    if damaged.exists() {
        fs::remove_dir_all(&damaged).unwrap();
    }
    copy(killed, &damaged);
    let path = largest(&damaged, "log");
    let mut bytes = fs::read(&path).unwrap();
    damage(&mut bytes);
    fs::write(path, bytes).unwrap();
    let opened = open_log(&damaged, Create::Never).and_then(|log| read_all(&log));
    if let Err(error) = &opened {
        assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains("new node id"), "advice is missing: {error}");
    }
    opened
}

#[test]
fn damage_in_the_middle_of_the_log_is_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let killed = killed_log(dir.path());
    let wal = fs::read(largest(&killed, "log")).unwrap();
    for index in [2, 100, 300, ENTRIES - 2] {
        let (at, next) = (begin_of(&wal, index), begin_of(&wal, index + 1));
        // Every byte of a commit: headers with their lengths and types, RocksDB's own fields, ours, the body.
        for byte in (at..next).step_by(3).chain(at + 95..next) {
            for bit in [0, 3, 6, 7] {
                let flip = |bytes: &mut Vec<u8>| bytes[byte] ^= 1 << bit;
                let opened = open_damaged(dir.path(), &killed, &flip);
                assert!(opened.is_err(), "bit {bit} of byte {byte}: {opened:?}");
            }
        }
        // A sector that reads as zeros, which RocksDB takes for the end of the log.
        let sector = at / 512 * 512;
        let zeros = |bytes: &mut Vec<u8>| bytes[sector..sector + 512].fill(0);
        if sector + 512 < begin_of(&wal, ENTRIES) {
            assert!(open_damaged(dir.path(), &killed, &zeros).is_err(), "zeros at {sector}");
        }
    }
}

#[test]
fn a_last_commit_that_ends_in_zeros_was_never_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let log = open_log(&live, Create::IfMissing).unwrap();
    append(&log, 1..=ENTRIES);
    let synced = fs::metadata(largest(&live, "log")).unwrap().len() as usize;
    let (done, told) = mpsc::sync_channel(1);
    let large = LogRecord { index: ENTRIES + 1, body: Bytes::from(vec![7; 100_000]) };
    let tell = Box::new(move |result: Result<(), _>| done.send(result).unwrap());
    log.submit(GROUP, LogOp::Append(vec![large]), Some(tell));
    told.recv().unwrap().unwrap();
    for after in [0, 5, 600, 40_000, 90_000] {
        let from = (synced + after).next_multiple_of(512);
        let zeros = |bytes: &mut Vec<u8>| bytes[from..].fill(0);
        let opened = open_damaged(dir.path(), &live, &zeros).unwrap();
        assert_eq!(opened, ENTRIES as usize, "zeros from {from}");
    }
    let rot = |bytes: &mut Vec<u8>| bytes[synced + 50_000] ^= 1;
    assert!(open_damaged(dir.path(), &live, &rot).is_err(), "that is no torn write");
}

#[test]
fn a_torn_tail_is_dropped_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let killed = killed_log(dir.path());
    let wal = fs::File::options().write(true).open(largest(&killed, "log")).unwrap();
    wal.set_len(wal.metadata().unwrap().len() - 100).unwrap();
    let log = open_log(&killed, Create::Never).unwrap();
    let left = read_all(&log).unwrap() as u64;
    assert!((ENTRIES - 2..ENTRIES).contains(&left), "{left}");
    append(&log, left + 1..=ENTRIES);
    drop(log);
    // The next start compares each log file with what its predecessor said of it.
    let log = open_log(&killed, Create::Never).unwrap();
    assert_eq!(read_all(&log).unwrap(), ENTRIES as usize);
}

#[test]
fn a_missing_log_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let killed = killed_log(dir.path());
    fs::remove_file(largest(&killed, "log")).unwrap();
    let opened = open_log(&killed, Create::Never);
    assert!(matches!(opened, Err(StorageError::Corrupt { .. })), "{opened:?}");
}

#[test]
fn a_flipped_bit_in_a_file_of_entries_is_reported_by_reads_and_by_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let killed = killed_log(dir.path());
    // Opening writes the log's contents into a file.
    drop(open_log(&killed, Create::Never).unwrap());
    flip(&largest(&killed, "sst"), |bytes| bytes / 3);
    let log = open_log(&killed, Create::Never).unwrap();
    assert!(matches!(read_all(&log), Err(StorageError::Corrupt { .. })));
    assert!(matches!(log.verify_checksums(), Err(StorageError::Corrupt { .. })));
}

/// A store that was flushed and closed.
fn flushed_store(path: &Path) {
    let config = StoreConfig::default();
    let store =
        RocksStore::open(path, Create::IfMissing, &config, abort(), &Registry::new()).unwrap();
    let row = |n: u64| (key(n), Some(Bytes::from(format!("row {n:050}"))));
    store.write(Batch { changes: (0..5_000).map(row).collect() }).unwrap();
    store.flush().unwrap();
}

fn key(n: u64) -> Bytes {
    Key::new(ShardId(1), 7, Kind::Item, 8).u64(n).done()
}

#[test]
fn a_flipped_bit_in_a_file_of_rows_is_reported_by_reads_and_by_the_check() {
    let dir = tempfile::tempdir().unwrap();
    flushed_store(dir.path());
    flip(&largest(dir.path(), "sst"), |bytes| bytes / 3);
    let store = open_store(dir.path()).unwrap();
    let reads: Vec<_> = (0..5_000).map(|n| store.get(&key(n))).collect();
    let corrupt = |error: &&StorageError| matches!(error, StorageError::Corrupt { .. });
    let damaged = reads.iter().filter_map(|read| read.as_ref().err()).find(corrupt).unwrap();
    assert!(damaged.to_string().contains("new node id"), "advice is missing: {damaged}");
    for (read, n) in reads.into_iter().zip(0_u64..) {
        if let Ok(value) = read {
            assert_eq!(value.unwrap(), format!("row {n:050}"), "what is read is what was written");
        }
    }
    let (from, to) = (key(0), key(5_000));
    let scanned = store.scan(&from, &to, &mut |_, _| std::ops::ControlFlow::Continue(()));
    assert!(matches!(scanned, Err(StorageError::Corrupt { .. })));
    assert!(matches!(store.verify_checksums(), Err(StorageError::Corrupt { .. })));
}

#[test]
fn damage_that_a_compaction_finds_ends_the_node_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    flushed_store(dir.path());
    flip(&largest(dir.path(), "sst"), |bytes| bytes / 3);
    let (said, heard) = mpsc::sync_channel(1);
    let fatal: Fatal = Arc::new(move |why| drop(said.try_send(why.to_owned())));
    let config = StoreConfig::default();
    let store =
        RocksStore::open(dir.path(), Create::Never, &config, fatal, &Registry::new()).unwrap();
    for round in 0..COMPACTED_FILES {
        let row = |n: u64| (key(n), Some(Bytes::from(format!("again {round} {n:050}"))));
        // Once it has been found, nothing more is written.
        let written = store.write(Batch { changes: (0..5_000).map(row).collect() });
        if written.and_then(|()| store.flush()).is_err() {
            break;
        }
    }
    let why = heard.recv_timeout(Duration::from_secs(30)).expect("the damage was not found");
    assert!(why.contains("new node id"), "advice is missing: {why}");
}

#[test]
fn a_damaged_manifest_an_empty_current_and_a_missing_file_are_refused() {
    type Damage = fn(&Path);
    let table: [(&str, Damage); 3] = [
        ("manifest", |dir| {
            let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
            let manifest = |path: &PathBuf| path.to_string_lossy().contains("MANIFEST");
            flip(&files.into_iter().find(manifest).unwrap(), |bytes| bytes / 2);
        }),
        ("current", |dir| fs::write(dir.join("CURRENT"), "").unwrap()),
        ("file", |dir| fs::remove_file(largest(dir, "sst")).unwrap()),
    ];
    for (what, damage) in table {
        let dir = tempfile::tempdir().unwrap();
        flushed_store(dir.path());
        damage(dir.path());
        let opened = open_store(dir.path());
        assert!(matches!(opened, Err(StorageError::Corrupt { .. })), "{what}: {opened:?}");
    }
}

#[test]
fn an_empty_directory_is_not_taken_for_a_database() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open_log(dir.path(), Create::Never);
    assert!(matches!(opened, Err(StorageError::Identity { .. })), "{opened:?}");
    let opened = open_store(dir.path());
    assert!(matches!(opened, Err(StorageError::Identity { .. })), "{opened:?}");
}

#[test]
fn a_second_opener_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(dir.path(), Create::IfMissing).unwrap();
    match open_log(dir.path(), Create::Never) {
        Err(StorageError::Identity { why, .. }) => {
            assert!(why.contains("another process"), "{why}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(log.mark(GROUP, Mark::Vote).unwrap(), None);
}
