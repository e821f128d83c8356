//! The log on RocksDB answers as the log in memory does, also after crashes that tear its tail.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Barrier, mpsc},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::ShardId;
use moorline_storage::{
    StorageError,
    log::{Done, LogEngine, LogOp, LogRecord, Mark},
    mem::MemLog,
};
use moorline_storage_rocks::{Create, Fatal, LogConfig, RocksLog, abort};
use prometheus::Registry;
use proptest::{collection::vec, prelude::*};

const PATIENCE: Duration = Duration::from_secs(30);
const GROUPS: u16 = 3;

fn open(path: &Path) -> RocksLog {
    open_with(path, &Registry::new())
}

fn open_with(path: &Path, registry: &Registry) -> RocksLog {
    RocksLog::open(path, Create::IfMissing, &LogConfig::default(), abort(), registry).unwrap()
}

type Told = mpsc::Receiver<Result<(), Arc<StorageError>>>;

fn done() -> (Option<Done>, Told) {
    let (tell, told) = mpsc::sync_channel(1);
    (Some(Box::new(move |result| tell.send(result).unwrap())), told)
}

fn submit_and_wait(log: &dyn LogEngine, group: ShardId, op: LogOp) {
    let (done, told) = done();
    log.submit(group, op, done);
    told.recv_timeout(PATIENCE).unwrap().unwrap();
}

/// A group's bounds, entries and marks.
type Contents = (Option<(u64, u64)>, Vec<LogRecord>, Vec<Option<Bytes>>);

/// Everything a log can be asked.
fn contents(log: &dyn LogEngine) -> Vec<Contents> {
    let group = |group: u16| {
        let group = ShardId(group);
        let bounds = log.bounds(group).unwrap();
        let records = match bounds {
            Some((first, last)) => log.read(group, first, last + 1, usize::MAX).unwrap(),
            None => Vec::new(),
        };
        let marks = Mark::ALL.map(|mark| log.mark(group, mark).unwrap());
        (bounds, records, marks.to_vec())
    };
    (0..GROUPS).map(group).collect()
}

#[derive(Debug, Clone)]
enum Change {
    /// That many entries, at the end of the group's log.
    Append(u16, u8),
    /// Drops that many entries at the end, or at the beginning.
    Truncate(u16, u8),
    Purge(u16, u8),
    Mark(u16, usize, [u8; 2]),
    /// All entries go, and the log may begin anew: a replica is deleted.
    Delete(u16),
}

#[derive(Debug, Clone)]
enum Step {
    Change(Change),
    Read(u16, u8, u8, usize),
    /// A power failure while these are written: a part (of 255) of the last bytes is there, and then nothing, or zeros.
    Crash(Vec<Change>, u8, bool),
}

fn change() -> BoxedStrategy<Change> {
    let group = 0..GROUPS;
    prop_oneof![
        8 => (group.clone(), 1..9_u8).prop_map(|(g, count)| Change::Append(g, count)),
        3 => (group.clone(), 0..5_u8).prop_map(|(g, count)| Change::Truncate(g, count)),
        3 => (group.clone(), 0..9_u8).prop_map(|(g, count)| Change::Purge(g, count)),
        5 => (group.clone(), 0..Mark::ALL.len(), any::<[u8; 2]>())
            .prop_map(|(g, mark, value)| Change::Mark(g, mark, value)),
        1 => group.prop_map(Change::Delete),
    ]
    .boxed()
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        16 => change().prop_map(Step::Change),
        3 => (0..GROUPS, 0..20_u8, 0..20_u8, 0..99_usize)
            .prop_map(|(g, from, count, bytes)| Step::Read(g, from, count, bytes)),
        3 => (vec(change(), 0..6), any::<u8>(), any::<bool>())
            .prop_map(|(changes, kept, zeros)| Step::Crash(changes, kept, zeros)),
    ]
}

/// Both logs, and what is needed to crash them alike.
struct Both {
    dir: tempfile::TempDir,
    lives: u32,
    disk: RocksLog,
    memory: MemLog,
    next: [u64; GROUPS as usize],
}

/// The newest write-ahead log, and its length.
fn wal(dir: &Path) -> (PathBuf, u64) {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let newest = files.filter(|path| path.extension().is_some_and(|found| found == "log")).max();
    let newest = newest.unwrap();
    let bytes = fs::metadata(&newest).unwrap().len();
    (newest, bytes)
}

/// Copies a directory; false if files came or went meanwhile: RocksDB deletes what it needs no more on a thread of its own, and
/// a power failure leaves what was there at one time.
fn copied_at_once(from: &Path, to: &Path) -> bool {
    let names = || -> BTreeSet<OsString> {
        fs::read_dir(from).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    let before = names();
    drop(fs::remove_dir_all(to));
    fs::create_dir(to).unwrap();
    let all = before.iter().all(|name| match fs::copy(from.join(name), to.join(name)) {
        Ok(_) => true,
        Err(problem) if problem.kind() == ErrorKind::NotFound => false,
        Err(problem) => panic!("{problem}"),
    });
    all && names() == before
}

impl Both {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = open(&dir.path().join("0"));
        Self { dir, lives: 0, disk, memory: MemLog::new(), next: [1; GROUPS as usize] }
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join(self.lives.to_string())
    }

    fn first(&self, group: u16) -> u64 {
        let bounds = self.memory.bounds(ShardId(group)).unwrap();
        bounds.map_or(self.next[usize::from(group)], |(first, _)| first)
    }

    /// What a change is to this log, as its owner would ask for it.
    fn op(&mut self, change: Change) -> (ShardId, LogOp) {
        match change {
            Change::Append(group, count) => {
                let next = &mut self.next[usize::from(group)];
                let record = |index: u64| LogRecord { index, body: index.to_string().into() };
                let records = (*next..*next + u64::from(count)).map(record).collect();
                *next += u64::from(count);
                (ShardId(group), LogOp::Append(records))
            }
            Change::Truncate(group, count) => {
                let first = self.first(group);
                let next = &mut self.next[usize::from(group)];
                *next = next.saturating_sub(u64::from(count)).max(first);
                (ShardId(group), LogOp::TruncateAfter(*next - 1))
            }
            Change::Purge(group, count) => {
                let next = self.next[usize::from(group)];
                let upto = (self.first(group) + u64::from(count)).min(next) - 1;
                (ShardId(group), LogOp::PurgeUpTo(upto))
            }
            Change::Mark(group, mark, value) => {
                let value = Bytes::copy_from_slice(&value);
                (ShardId(group), LogOp::Mark { mark: Mark::ALL[mark], value })
            }
            Change::Delete(group) => {
                self.next[usize::from(group)] = 1;
                (ShardId(group), LogOp::PurgeUpTo(u64::MAX))
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Read(group, from, count, bytes) => {
                let (group, from) = (ShardId(group), u64::from(from));
                let read =
                    |log: &dyn LogEngine| log.read(group, from, from + u64::from(count), bytes);
                assert_eq!(read(&self.disk).unwrap(), read(&self.memory).unwrap());
            }
            Step::Crash(changes, kept, zeros) => self.crash(changes, kept, zeros),
            Step::Change(change) => {
                let (group, op) = self.op(change);
                self.memory.submit(group, op.clone(), None);
                submit_and_wait(&self.disk, group, op);
            }
        }
    }

    fn crash(&mut self, changes: Vec<Change>, kept: u8, zeros: bool) {
        let (_, acknowledged) = wal(&self.home());
        let mut unknown = Vec::new();
        let mut told = Vec::new();
        for change in changes {
            let (group, op) = self.op(change);
            unknown.push((group, op.clone()));
            let (done, written) = done();
            self.disk.submit(group, op, done);
            told.push(written);
        }
        told.into_iter().for_each(|told| told.recv_timeout(PATIENCE).unwrap().unwrap());
        self.tear(acknowledged, kept, zeros);
        // Which of the operations made it nobody can say; but the first so many of them did, whole.
        let found = contents(&self.disk);
        let mut unknown = unknown.into_iter();
        while contents(&self.memory) != found || (kept == 255 && unknown.len() > 0) {
            let (group, op) = unknown.next().unwrap_or_else(|| panic!("no prefix gives {found:?}"));
            self.memory.submit(group, op, None);
        }
        for group in 0..GROUPS {
            if let Some((_, last)) = self.memory.bounds(ShardId(group)).unwrap() {
                self.next[usize::from(group)] = last + 1;
            }
        }
    }

    /// Goes on with a copy of the directory as a power failure may leave it.
    fn tear(&mut self, acknowledged: u64, kept: u8, zeros: bool) {
        let home = self.home();
        self.lives += 1;
        let next = self.home();
        let deadline = Instant::now() + PATIENCE;
        while !copied_at_once(&home, &next) {
            assert!(Instant::now() < deadline, "files come and go all the time");
        }
        let (path, bytes) = wal(&next);
        let left = acknowledged + (bytes - acknowledged) * u64::from(kept) / 255;
        let file = fs::File::options().write(true).open(path).unwrap();
        if zeros {
            // Sectors that never reached the disk, of a file whose new length did.
            let left = left.next_multiple_of(512);
            if left < bytes {
                file.set_len(left).unwrap();
                file.set_len(bytes).unwrap();
            }
        } else {
            file.set_len(left).unwrap();
        }
        self.disk = open(&next);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn both_logs_answer_alike_with_torn_tails_in_between(steps in vec(step(), 1..40)) {
        let mut both = Both::new();
        for step in steps {
            both.take(step);
            prop_assert_eq!(contents(&both.disk), contents(&both.memory));
        }
        prop_assert!(both.disk.verify_checksums().is_ok());
    }
}

fn entry(index: u64, bytes: usize) -> LogOp {
    LogOp::Append(vec![LogRecord { index, body: Bytes::from(vec![7; bytes]) }])
}

#[test]
fn many_groups_share_a_sync() {
    const WRITERS: u16 = 16;
    const EACH: u64 = 50;
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::new();
    let log = Arc::new(open_with(dir.path(), &registry));
    let start = Arc::new(Barrier::new(usize::from(WRITERS)));
    let writer = |group: u16| {
        let (log, start) = (Arc::clone(&log), Arc::clone(&start));
        thread::spawn(move || {
            start.wait();
            for index in 1..=EACH {
                submit_and_wait(&*log, ShardId(group), entry(index, 100));
            }
        })
    };
    let writers: Vec<_> = (0..WRITERS).map(writer).collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse::<f64>().unwrap()
    };
    let commits = number("moorline_wal_fsync_seconds_count");
    let operations = number("moorline_wal_commit_operations_sum");
    assert_eq!(operations, f64::from(WRITERS) * EACH as f64);
    assert!(commits * 2.0 < operations, "{operations} operations in {commits} commits");
    let memtables = number("moorline_storage_bytes{database=\"log\",kind=\"memtables\"}");
    assert!(memtables > operations * 100.0, "{memtables} bytes of {operations} entries");
    assert_eq!(log.queued_bytes(), 0);
}

#[test]
fn everybody_is_told_once_and_in_order() {
    const COUNT: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let (tell, told) = mpsc::sync_channel(COUNT as usize);
    for index in 1..=COUNT {
        let tell = tell.clone();
        let op = match index % 4 {
            0 => LogOp::Mark { mark: Mark::Committed, value: Bytes::new() },
            _ => entry(index, 10),
        };
        log.submit(
            ShardId(1),
            op,
            Some(Box::new(move |result| {
                result.unwrap();
                tell.send(index).unwrap();
            })),
        );
    }
    // Dropping writes what waits.
    drop((log, tell));
    assert!(told.iter().eq(1..=COUNT));
}

#[test]
fn an_operation_larger_than_a_commit_is_written_alone() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    submit_and_wait(&log, ShardId(1), entry(1, 20 * 1024 * 1024));
    submit_and_wait(&log, ShardId(1), entry(2, 1));
    assert_eq!(log.read(ShardId(1), 1, 9, usize::MAX).unwrap().len(), 2);
    assert_eq!(log.read(ShardId(1), 1, 9, 1).unwrap().len(), 1);
}

#[test]
fn the_last_owner_may_be_the_writer_itself() {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(open(dir.path()));
    let owner = Arc::clone(&log);
    let (tell, told) = mpsc::sync_channel(1);
    let (let_go, gone) = mpsc::sync_channel::<()>(1);
    log.submit(
        ShardId(1),
        entry(1, 1),
        Some(Box::new(move |result| {
            gone.recv().unwrap();
            drop(owner);
            tell.send(result).unwrap();
        })),
    );
    drop(log);
    let_go.send(()).unwrap();
    told.recv_timeout(PATIENCE).unwrap().unwrap();
    // The writer closes it behind its last answer. A process that ended meanwhile would take the library's globals away from
    // under it.
    let (deadline, config) = (Instant::now() + PATIENCE, LogConfig::default());
    while RocksLog::open(dir.path(), Create::Never, &config, abort(), &Registry::new()).is_err() {
        assert!(Instant::now() < deadline, "it is not closed");
        thread::yield_now();
    }
}

#[test]
fn a_panic_of_the_writer_ends_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let (tell, told) = mpsc::sync_channel(1);
    let fatal: Fatal = Arc::new(move |why| tell.send(why.to_owned()).unwrap());
    let (config, registry) = (LogConfig::default(), Registry::new());
    let log = RocksLog::open(dir.path(), Create::IfMissing, &config, fatal, &registry).unwrap();
    log.submit(ShardId(1), entry(1, 1), Some(Box::new(|_| panic!("on purpose"))));
    assert!(told.recv_timeout(PATIENCE).unwrap().contains("panicked"));
}

#[test]
fn a_log_purged_for_long_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { memtable_bytes: 1024 * 1024, ..LogConfig::default() };
    let registry = Registry::new();
    let log = RocksLog::open(dir.path(), Create::IfMissing, &config, abort(), &registry).unwrap();
    for index in 1..=8_000_u64 {
        log.submit(ShardId(1), entry(index, 20_000), None);
        if index % 100 == 0 {
            log.submit(ShardId(1), LogOp::PurgeUpTo(index - 50), None);
        }
    }
    submit_and_wait(&log, ShardId(1), entry(8_001, 1));
    let files =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    let mib = files.sum::<u64>() >> 20;
    assert!(mib < 60, "160 MiB were written, {mib} MiB are there");
    assert_eq!(log.bounds(ShardId(1)).unwrap(), Some((7_951, 8_001)));
}
