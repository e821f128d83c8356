//! probe
#![allow(clippy::unwrap_used)]
use std::{fs, path::Path, sync::mpsc};
use bytes::Bytes;
use moorline_core::ShardId;
use moorline_storage::log::{LogEngine, LogOp, LogRecord};
use moorline_storage_rocks::{Create, LogConfig, RocksLog, abort};
use prometheus::Registry;
fn open(p: &Path) -> Result<RocksLog, moorline_storage::StorageError> { RocksLog::open(p, Create::IfMissing, &LogConfig::default(), abort(), &Registry::new()) }
#[test]
fn probe() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let log = open(&live).unwrap();
    let mut marks = Vec::new();
    let wal = |d: &Path| fs::read_dir(d).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "log")).max().unwrap();
    for i in 1..=60u64 {
        let (tx, rx) = mpsc::sync_channel(1);
        log.submit(ShardId(1), LogOp::Append(vec![LogRecord { index: i, body: Bytes::from(vec![i as u8; 900]) }]), Some(Box::new(move |r| tx.send(r).unwrap())));
        rx.recv().unwrap().unwrap();
        marks.push(fs::metadata(wal(&live)).unwrap().len() as usize);
    }
    let whole = fs::read(wal(&live)).unwrap();
    let n = whole.len();
    let (a, b) = (marks[58], marks[59]);
    println!("len {n} last record {a}..{b}");
    let mut case = 0;
    let mut run = |what: &str, bytes: Vec<u8>| {
        case += 1;
        let d = dir.path().join(format!("c{case}"));
        fs::create_dir(&d).unwrap();
        for e in fs::read_dir(&live).unwrap() { let e = e.unwrap(); fs::copy(e.path(), d.join(e.file_name())).unwrap(); }
        fs::write(wal(&d), bytes).unwrap();
        match open(&d) { Ok(l) => println!("{what}: opens, {:?}", l.bounds(ShardId(1)).unwrap()), Err(e) => println!("{what}: {e}") }
    };
    let with = |f: &dyn Fn(&mut Vec<u8>)| { let mut w = whole.clone(); f(&mut w); w };
    run("whole", whole.clone());
    run("flip in last body", with(&|w| w[b - 300] ^= 1));
    run("flip in last header crc", with(&|w| w[a + 1] ^= 1));
    run("flip last header len", with(&|w| w[a + 5] ^= 1));
    run("last body zeros", with(&|w| w[a + 7..b].fill(0)));
    run("last record second half zeros", with(&|w| w[a + 400..b].fill(0)));
    run("last record all zeros", with(&|w| w[a..b].fill(0)));
    run("second last zeros, last whole", with(&|w| w[marks[57]..a].fill(0)));
    run("zeros appended", with(&|w| w.extend([0; 5000])));
    run("zeros appended to 2 blocks", with(&|w| w.extend([0; 70000])));
    run("garbage appended", with(&|w| w.extend((0..5000u32).map(|i| (i.wrapping_mul(2654435761) >> 24) as u8))));
    run("cut in header", with(&|w| w.truncate(a + 3)));
    run("cut in body", with(&|w| w.truncate(a + 300)));
}
