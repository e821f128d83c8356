//! openraft's own tests of a log store and a state machine, over ours on RocksDB; and what they leave out: crashes.

use std::{
    io,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use moorline_core::{ShardId, UnixMillis};
use moorline_machine::Effect;
use moorline_storage::log::{LogEngine, Mark};
use moorline_storage_rocks::{
    Create, LogConfig, RocksLog, RocksStore, StoreConfig, abort as abort_on,
};
use openraft::{
    OptionalSend, RaftLogReader, RaftSnapshotBuilder, StorageError,
    storage::{EntryResponder, IOFlushed, RaftLogStorage, RaftStateMachine},
    testing::log::{StoreBuilder, Suite},
    type_config::TypeConfigExt,
};
use prometheus::Registry;
use tempfile::TempDir;

use crate::{
    codec::message::SnapshotHead,
    config::{Fatal, abort},
    log_clock::ReplicaClock,
    log_store::{LogStore, RingShare},
    metrics::GroupMetrics,
    role::{Role, Sink},
    snapshot::{self, Exported, SnapshotData, Snapshots, Staged, StagedDir},
    state::{Pressure, State, StateMachine},
    types::{
        Commands, LeaderId, RaftEntry, RaftLogId, RaftPayload, RaftSnapshot, RaftSnapshotMeta,
        RaftStoredMembership, RaftVote, Types,
    },
};

const SHARD: ShardId = ShardId(1);

struct Nobody;

impl Sink for Nobody {
    fn applied(&self, _: ShardId, _: u64, _: Vec<Effect>) {}
    fn role(&self, _: ShardId, _: Role) {}
}

/// A replica's two halves, on disk in `dir`.
fn open(dir: &Path) -> (LogStore, StateMachine) {
    open_with(dir, abort())
}

fn open_with(dir: &Path, fatal: Fatal) -> (LogStore, StateMachine) {
    let registry = Registry::new();
    let metrics = GroupMetrics::register(&registry).unwrap();
    let staging = dir.join("snap");
    std::fs::create_dir_all(&staging).unwrap();
    let path = dir.join("state");
    let config = StoreConfig::default();
    let store = RocksStore::open(&path, Create::IfMissing, &config, abort_on(), &registry).unwrap();
    let path = dir.join("raftlog");
    let config = LogConfig::default();
    let log = RocksLog::open(&path, Create::IfMissing, &config, abort_on(), &registry).unwrap();
    let (store, log) = (Arc::new(store), Arc::new(log));
    let mark = log.mark(SHARD, Mark::Installing).unwrap();
    snapshot::redo(SHARD, &*store, mark, &staging).unwrap();
    let log = LogStore::open(SHARD, log, RingShare::default(), metrics.of(SHARD)).unwrap();
    let clock = ReplicaClock::new(Arc::new(|| UnixMillis(1)), log.last_log_id());
    let state = State::open(
        SHARD,
        store,
        clock,
        Arc::new(Nobody),
        fatal,
        Pressure::new(usize::MAX),
        metrics.of(SHARD),
    )
    .unwrap();
    let snapshots = Snapshots {
        state: Arc::clone(&state),
        log: log.clone(),
        maintenance: Arc::default(),
        staging,
        metrics,
        kept: Arc::default(),
        keep: std::time::Duration::ZERO,
    };
    (log, StateMachine { state, snapshots })
}

/// Ours, but with snapshots that can be carried from one replica to another without a wire.
struct Carried(StateMachine);

struct Carrier(Snapshots);

impl RaftSnapshotBuilder<Types> for Carrier {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        let Exported { dir, meta, files } = self.0.export().await.map_err(io::Error::other)?;
        let head = SnapshotHead { vote: RaftVote::new(0, 0), meta: meta.clone(), files };
        Ok(RaftSnapshot { meta, snapshot: SnapshotData::Staged(Staged { dir, head }) })
    }
}

impl RaftStateMachine<Types> for Carried {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Carrier;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, RaftStoredMembership)> {
        self.0.applied_state().await
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        // The suite leaves entries out, which ours rightly takes for a replica gone wrong: blank ones stand in.
        let mut next = self.0.state.applied_log_id().map(|id| id.index + 1);
        let whole = entries.flat_map(|item| {
            let mut items = Vec::new();
            if let Ok((entry, _)) = &item {
                let id = entry.log_id;
                let missing = next.unwrap_or(id.index)..id.index;
                items.extend(
                    blanks(id.leader_id, missing).into_iter().map(|blank| Ok((blank, None))),
                );
                next = Some(id.index + 1);
            }
            items.push(item);
            stream::iter(items)
        });
        self.0.apply(Box::pin(whole)).await
    }

    async fn get_snapshot_builder(&mut self) -> Carrier {
        Carrier(self.0.snapshots.clone())
    }

    async fn install_snapshot(
        &mut self,
        meta: &RaftSnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        self.0.install_snapshot(meta, snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        match self.0.get_current_snapshot().await? {
            None => Ok(None),
            Some(_) => Carrier(self.0.snapshots.clone()).build_snapshot().await.map(Some),
        }
    }
}

struct Builder;

impl StoreBuilder<Types, LogStore, Carried, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Carried), StorageError<Types>> {
        let dir = TempDir::new().unwrap();
        let (log, machine) = open(dir.path());
        Ok((dir, log, Carried(machine)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_own_suite_passes() {
    Suite::<Types, LogStore, Carried, Builder, TempDir>::test_all(Builder).await.unwrap();
}

fn entries(term: u64, indexes: Range<u64>) -> Vec<RaftEntry> {
    blanks(LeaderId { term, node_id: 1 }, indexes)
}

fn blanks(leader: LeaderId, indexes: Range<u64>) -> Vec<RaftEntry> {
    let id = |index| RaftLogId::new(leader, index);
    indexes.map(|index| RaftEntry { log_id: id(index), payload: RaftPayload::Blank }).collect()
}

async fn append(log: &mut LogStore, entries: Vec<RaftEntry>) {
    let (done, flushed) = Types::oneshot();
    log.append(entries, IOFlushed::signal(done)).await.unwrap();
    flushed.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_was_flushed_is_there_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let vote = RaftVote::new(3, 2);
    {
        let (mut log, _machine) = open(dir.path());
        append(&mut log, entries(1, 0..10)).await;
        log.truncate_after(Some(entries(1, 7..8)[0].log_id)).await.unwrap();
        append(&mut log, entries(2, 8..12)).await;
        log.purge(entries(1, 3..4)[0].log_id).await.unwrap();
        log.save_committed(Some(entries(2, 9..10)[0].log_id)).await.unwrap();
        log.save_vote(&vote).await.unwrap();
        append(&mut log, entries(2, 12..13)).await;
    }
    let (mut log, _machine) = open(dir.path());
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(log.read_committed().await.unwrap().map(|id| id.index), Some(9));
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id.map(|id| id.index), Some(3));
    assert_eq!(state.last_log_id, Some(entries(2, 12..13)[0].log_id));
    let read = log.try_get_log_entries(0..100).await.unwrap();
    let terms: Vec<(u64, u64)> =
        read.iter().map(|entry| (entry.log_id.leader_id.term, entry.log_id.index)).collect();
    let expected: Vec<(u64, u64)> =
        (4..8).map(|index| (1, index)).chain((8..13).map(|index| (2, index))).collect();
    assert_eq!(terms, expected);
}

#[tokio::test]
async fn reading_goes_on_from_disk_into_memory() {
    let dir = TempDir::new().unwrap();
    {
        let (mut log, _machine) = open(dir.path());
        append(&mut log, entries(1, 0..100)).await;
    }
    let (mut log, _machine) = open(dir.path());
    append(&mut log, entries(1, 100..120)).await;
    for (from, to) in [(0, 120), (50, 110), (99, 101), (100, 120), (0, 1), (119, 500)] {
        let read = log.try_get_log_entries(from..to).await.unwrap();
        let indexes: Vec<u64> = read.iter().map(|entry| entry.log_id.index).collect();
        assert_eq!(indexes, (from..to.min(120)).collect::<Vec<_>>(), "{from}..{to}");
    }
}

#[tokio::test]
async fn an_installation_that_a_crash_interrupted_is_finished_at_the_next_start() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (_log, mut leader) = open(from.path());
    let applied = stream::iter(entries(1, 0..5).into_iter().map(|e| Ok((e, None))));
    leader.apply(Box::pin(applied)).await.unwrap();
    let exported = leader.snapshots.export().await.unwrap();
    let (meta, files) = (exported.meta.clone(), exported.files);
    let head = SnapshotHead { vote: RaftVote::new(1, 1), meta: meta.clone(), files };

    {
        // The files are staged and the mark is set; then the process ends.
        let (log, machine) = open(to.path());
        assert_eq!(machine.state.applied_log_id(), None);
        let staged = to.path().join("snap").join("in-1-0");
        std::fs::create_dir_all(&staged).unwrap();
        for file in &head.files {
            std::fs::copy(exported.dir.path().join(&file.name), staged.join(&file.name)).unwrap();
        }
        let mark = snapshot::mark_of("in-1-0", &head);
        log.set_mark(Mark::Installing, mark).await.unwrap();
    }
    let (log, machine) = open(to.path());
    assert_eq!(machine.state.applied_log_id(), meta.last_log_id);
    log.set_mark(Mark::Installing, Bytes::new()).await.unwrap();
    drop((log, machine));
    let (_log, machine) = open(to.path());
    assert_eq!(machine.state.applied_log_id(), meta.last_log_id);
}

#[tokio::test]
async fn an_installation_that_is_given_up_in_the_middle_is_finished_at_the_next_start() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (_log, mut leader) = open(from.path());
    let applied = stream::iter(entries(1, 0..5).into_iter().map(|e| Ok((e, None))));
    leader.apply(Box::pin(applied)).await.unwrap();
    let exported = leader.snapshots.export().await.unwrap();
    let (meta, files) = (exported.meta.clone(), exported.files);
    let head = SnapshotHead { vote: RaftVote::new(1, 1), meta: meta.clone(), files };

    let (log, machine) = open(to.path());
    let dir = StagedDir::create(&to.path().join("snap"), "in-1").unwrap();
    for file in &head.files {
        std::fs::copy(exported.dir.path().join(&file.name), dir.path().join(&file.name)).unwrap();
    }
    // Polled once it waits for the mark; then it is dropped, as by a runtime that is shut down.
    let installed = machine.snapshots.install(&meta, Staged { dir, head }).now_or_never();
    assert!(installed.is_none(), "it waits for the disk");
    // Written behind the mark.
    log.set_mark(Mark::Cleared, Bytes::new()).await.unwrap();
    drop((log, machine));
    let (_log, machine) = open(to.path());
    assert_eq!(machine.state.applied_log_id(), meta.last_log_id);
}

#[tokio::test]
async fn two_receivers_are_sent_the_same_files_and_they_stay_for_both() {
    let dir = TempDir::new().unwrap();
    let (_log, mut leader) = open(dir.path());
    let applied = stream::iter(entries(1, 0..5).into_iter().map(|e| Ok((e, None))));
    leader.apply(Box::pin(applied)).await.unwrap();
    leader.snapshots.keep = std::time::Duration::from_secs(600);
    let snapshots = &leader.snapshots;
    let told = leader.state.applied_log_id();
    let (one, other) = tokio::join!(snapshots.kept_or_export(told), snapshots.kept_or_export(told));
    let ((one, _), (other, again)) = (one.unwrap(), other.unwrap());
    assert!(Arc::ptr_eq(&one, &other) && again, "exported once");
    let path = one.dir.path().to_owned();
    snapshots.release(one);
    assert!(snapshots.kept().is_some(), "the other may break off and ask again");
    snapshots.release(other);
    assert!(snapshots.kept().is_none() && !path.exists());
}

#[tokio::test]
async fn what_cannot_be_applied_ends_the_process() {
    let id = |index| RaftLogId::new(LeaderId { term: 1, node_id: 1 }, index);
    let garbage = RaftPayload::Normal(Commands(Bytes::from_static(b"not a batch")));
    let table = [
        ("garbage", vec![RaftEntry { log_id: id(0), payload: garbage }]),
        ("a gap", vec![entries(1, 0..1).remove(0), entries(1, 2..3).remove(0)]),
    ];
    for (what, entries) in table {
        let dir = TempDir::new().unwrap();
        let reasons = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&reasons);
        let fatal: Fatal = Arc::new(move |why| heard.lock().unwrap().push(why.to_string()));
        let (_log, mut machine) = open_with(dir.path(), fatal);
        let items = stream::iter(entries.into_iter().map(|entry| Ok((entry, None))));
        assert!(machine.apply(Box::pin(items)).await.is_err(), "{what}");
        let reasons = reasons.lock().unwrap();
        assert!(
            matches!(reasons.as_slice(), [why] if why.contains("shard 1")),
            "{what}: {reasons:?}"
        );
    }
}

#[tokio::test]
async fn applying_waits_while_too_many_rows_are_in_memory() {
    let pressure = Pressure::new(10);
    pressure.set(11);
    assert_eq!(pressure.room().now_or_never(), None);
    pressure.set(10);
    assert_eq!(pressure.room().now_or_never(), Some(()));
}
