//! A process that is killed while it writes has kept everything it acknowledged. (That the kernel had it is all this
//! shows; `chaos-tests/lossyfs` shows the disk.)
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use moorline_core::ShardId;
use moorline_storage::log::{LogEngine, LogOp, LogRecord};
use moorline_storage_rocks::{Create, LogConfig, RocksLog, abort};
use prometheus::Registry;

const DIR: &str = "MOORLINE_TEST_KILL_DIR";
const GROUPS: u16 = 3;
const ROUNDS: usize = 5;
const LINES_BEFORE_KILL: usize = 400;
/// Operations the child keeps in flight.
const WINDOW: usize = 64;

fn open(path: &Path) -> RocksLog {
    let (config, registry) = (LogConfig::default(), Registry::new());
    RocksLog::open(path, Create::IfMissing, &config, abort(), &registry).unwrap()
}

fn body(group: u16, index: u64) -> Bytes {
    Bytes::from(format!("group {group} entry {index} {}", "x".repeat((index % 700) as usize)))
}

/// The killed process; started by the test below.
#[test]
#[ignore = "a part of the test below"]
fn child_appends_until_it_is_killed() {
    let log = open(Path::new(&std::env::var(DIR).unwrap()));
    let mut next: Vec<u64> = (0..GROUPS)
        .map(|group| log.bounds(ShardId(group)).unwrap().map_or(1, |(_, last)| last + 1))
        .collect();
    let (tell, told) = std::sync::mpsc::sync_channel(WINDOW);
    for step in 0.. {
        let group = step % GROUPS;
        let index = next[usize::from(group)];
        next[usize::from(group)] += 1;
        let record = LogRecord { index, body: body(group, index) };
        let tell = tell.clone();
        log.submit(
            ShardId(group),
            LogOp::Append(vec![record]),
            Some(Box::new(move |result| {
                result.unwrap();
                tell.send((group, index)).unwrap();
            })),
        );
        if step as usize >= WINDOW {
            let (group, index) = told.recv().unwrap();
            println!("acked {group} {index}");
        }
        if step == u16::MAX - 1 {
            return; // nobody killed us
        }
    }
}

fn spawn(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_appends_until_it_is_killed", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn acked(line: &str) -> Option<(u16, u64)> {
    let (group, index) = line.strip_prefix("acked ")?.split_once(' ')?;
    Some((group.parse().ok()?, index.parse().ok()?))
}

#[test]
fn what_was_acknowledged_outlives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut known = [0_u64; GROUPS as usize];
    for round in 0..ROUNDS {
        let mut child = spawn(dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut note = |line: String| {
            if let Some((group, index)) = acked(&line) {
                known[usize::from(group)] = index;
            }
        };
        lines.by_ref().take(LINES_BEFORE_KILL + 97 * round).for_each(&mut note);
        child.kill().unwrap();
        // What it said before it died counts too.
        lines.for_each(&mut note);
        child.wait().unwrap();
        let log = open(dir.path());
        for group in 0..GROUPS {
            let (first, last) = log.bounds(ShardId(group)).unwrap().unwrap();
            let acked = known[usize::from(group)];
            assert!(first == 1 && last >= acked, "group {group}: {last} on disk, {acked} acked");
            let records = log.read(ShardId(group), 1, last + 1, usize::MAX).unwrap();
            assert_eq!(records.len() as u64, last, "no hole");
            for record in records {
                assert_eq!(record.body, body(group, record.index));
            }
        }
        assert!(known.iter().all(|&index| index > 0), "it had written: {known:?}");
    }
}
