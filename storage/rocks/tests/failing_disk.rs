//! A write that fails ends the node, and nothing is acknowledged from then on.
//!
//! The failure is a limit on file sizes (`RLIMIT_FSIZE`), which the shell sets before it starts this program again; with
//! its signal ignored, writes beyond it fail as on a broken disk.
#![allow(clippy::unwrap_used)]

use std::{
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use bytes::Bytes;
use moorline_core::ShardId;
use moorline_storage::{
    Batch, Store,
    key::{Key, Kind},
    log::{LogEngine, LogOp, LogRecord},
};
use moorline_storage_rocks::{Create, Fatal, LogConfig, RocksLog, RocksStore, StoreConfig, abort};
use prometheus::Registry;

const DIR: &str = "MOORLINE_TEST_FAILING_DIR";
const PATIENCE: Duration = Duration::from_secs(30);
const GROUP: ShardId = ShardId(1);
const ENTRIES: u64 = 2_000;
const ENTRY_BYTES: usize = 2_000;
/// Operations in flight: several commits have to succeed before one fails.
const WINDOW: u64 = 16;
const SIGABRT: i32 = 6;

fn dir() -> std::path::PathBuf {
    std::env::var(DIR).unwrap().into()
}

fn open(dir: &Path, fatal: Fatal) -> RocksLog {
    let (config, registry) = (LogConfig::default(), Registry::new());
    RocksLog::open(&dir.join("log"), Create::IfMissing, &config, fatal, &registry).unwrap()
}

fn entry(index: u64) -> LogOp {
    LogOp::Append(vec![LogRecord { index, body: Bytes::from(vec![index as u8; ENTRY_BYTES]) }])
}

/// Runs one of the children below where files end at 1 MiB.
fn run_limited(child: &str, dir: &Path) -> Output {
    Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", child, "--ignored", "--nocapture"])
        .env(DIR, dir)
        .output()
        .unwrap()
}

/// Appends more than fits, and prints what it is told.
fn append_all(log: &RocksLog) {
    let (tell, told) = mpsc::sync_channel(ENTRIES as usize);
    let print = || match told.recv_timeout(PATIENCE).unwrap() {
        (index, true) => println!("acked {index}"),
        (index, false) => println!("unknown {index}"),
    };
    for index in 1..=ENTRIES {
        let tell = tell.clone();
        let done =
            Box::new(move |result: Result<(), _>| tell.send((index, result.is_ok())).unwrap());
        log.submit(GROUP, entry(index), Some(done));
        if index > WINDOW {
            print();
        }
    }
    (0..WINDOW).for_each(|_| print());
}

#[test]
#[ignore = "a part of a test below"]
fn child_fails_and_goes_on() {
    let fatal: Fatal = Arc::new(|why| println!("fatal {why}"));
    let log = open(&dir(), fatal);
    append_all(&log);
    append_all(&log);
}

#[test]
#[ignore = "a part of a test below"]
fn child_fails_and_aborts() {
    append_all(&open(&dir(), abort()));
}

#[test]
#[ignore = "a part of a test below"]
fn child_cannot_flush() {
    let told = Arc::new(AtomicBool::new(false));
    let fatal: Fatal = {
        let told = Arc::clone(&told);
        Arc::new(move |why| {
            told.store(true, Ordering::SeqCst);
            println!("fatal {why}");
        })
    };
    let (config, registry) = (StoreConfig::default(), Registry::new());
    let store =
        RocksStore::open(&dir().join("state"), Create::IfMissing, &config, fatal, &registry)
            .unwrap();
    let noise = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let row = |n: u64| {
        let key = Key::new(GROUP, 7, Kind::Item, 8).u64(n).done();
        (key, Some((0..100).flat_map(|i| noise(n * 100 + i)).collect::<Bytes>()))
    };
    store.write(Batch { changes: (0..4_000).map(row).collect() }).unwrap();
    assert!(store.flush().is_err());
    assert!(told.load(Ordering::SeqCst));
    println!("refused");
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let output = run_limited("child_fails_and_goes_on", dir.path());
    let said = String::from_utf8(output.stdout).unwrap();
    let acked =
        |line: &str| line.strip_prefix("acked ").and_then(|index| index.parse::<u64>().ok());
    let last = said.lines().filter_map(acked).next_back().unwrap();
    let unknown = said.lines().filter(|line| line.starts_with("unknown ")).count() as u64;
    let fatal: Vec<&str> = said.lines().filter(|line| line.starts_with("fatal ")).collect();
    assert!(last < ENTRIES, "the disk did not fail");
    assert_eq!(last + unknown, 2 * ENTRIES, "the first are acknowledged, all others are not");
    assert!(fatal.iter().any(|line| line.contains("writing the log")), "{fatal:?}");
    let first_unknown = said.find("unknown ").unwrap();
    assert!(!said[first_unknown..].contains("acked "));
    // What was acknowledged is there, once the disk is well again.
    let log = open(dir.path(), abort());
    let records = log.read(GROUP, 1, ENTRIES + 1, usize::MAX).unwrap();
    assert!(records.len() as u64 >= last);
    assert!(records.iter().all(|record| record.body == vec![record.index as u8; ENTRY_BYTES]));
}

#[test]
fn by_default_a_failed_write_ends_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let output = run_limited("child_fails_and_aborts", dir.path());
    assert_eq!(output.status.signal(), Some(SIGABRT), "{output:?}");
    assert!(!String::from_utf8(output.stdout).unwrap().contains("unknown"));
}

#[test]
fn rows_that_cannot_be_flushed_end_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let output = run_limited("child_cannot_flush", dir.path());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("fatal RocksDB failed in the background"), "{said}");
    assert!(said.contains("refused"), "{said}");
}
