//! The rows of one replica: what openraft calls the state machine, around [`moorline_machine::Machine`].
//!
//! ```text
//!   committed entries ─► Machine::apply ─► Overlay (rows since the last checkpoint) ─► answers, effects
//!                                             └─ with the applied row, under one lock
//! ```
//!
//! # Invariants
//!
//! - **One index, one batch.** Rows and the applied row change under one write lock, and a checkpoint takes them
//!   together; so the store is never ahead of or behind its applied row.
//! - **Save, then speak.** Answers and effects leave after the lock: whoever hears them can read the rows.
//! - **A replica that cannot apply stops.** A storage error, a corrupt entry or a panic ends the process
//!   ([`crate::config::Fatal`]): it may not serve a state that nobody else has.

use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt};
use moorline_core::{ShardId, UnixMillis};
use moorline_machine::{Effect, Machine, RunAnswers};
use moorline_storage::{
    Rows, ShardStore, StorageError, View, key,
    overlay::{Frozen, Overlay},
};
use openraft::{
    OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine},
};
use tokio::{sync::watch, time::sleep};

use crate::{
    codec::disk::Applied,
    config::Fatal,
    log_clock::ReplicaClock,
    metrics::ShardMetrics,
    role::{Role, Sink},
    snapshot::{SnapshotData, Snapshots},
    types::{
        Commands, RaftEntry, RaftLogId, RaftPayload, RaftSnapshot, RaftSnapshotMeta,
        RaftStoredMembership, Types,
    },
};

/// Entries applied under one lock: enough to make locking cheap, few enough not to keep readers waiting.
const ENTRIES_PER_LOCK: usize = 16;

/// How often an apply task that waits for memory looks again.
const ROOM_PAUSE: Duration = Duration::from_millis(10);

/// How much memory the rows of all groups of a node take, as of the last look. When a disk is slower than what is applied,
/// applying waits, and so in turn does everybody who proposes.
#[derive(Debug, Clone)]
pub(crate) struct Pressure {
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl Pressure {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes: Arc::default(), bytes_max }
    }

    pub(crate) fn set(&self, bytes: usize) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) async fn room(&self) {
        while self.bytes.load(Ordering::Relaxed) > self.bytes_max {
            sleep(ROOM_PAUSE).await;
        }
    }
}

/// The overlay of a replica, over the store of its node.
pub type ShardRows = Overlay<Arc<dyn ShardStore>>;

/// The rows of one replica. Shared by the apply task, readers, the checkpointer and snapshots.
pub(crate) struct State {
    pub(crate) shard: ShardId,
    store: Arc<dyn ShardStore>,
    /// `None` while a snapshot is being installed.
    rows: RwLock<Option<Replica>>,
    /// How far the rows on disk are.
    durable: Mutex<Applied>,
    applied: watch::Sender<u64>,
    /// Held while the sink is called, so that roles and effects reach it one after the other.
    gate: Mutex<()>,
    clock: ReplicaClock,
    sink: Arc<dyn Sink>,
    fatal: Fatal,
    pressure: Pressure,
    metrics: ShardMetrics,
}

struct Replica {
    machine: Machine,
    rows: ShardRows,
    applied: Applied,
    digest: Option<(u64, u128)>,
}

/// Rows that a checkpoint writes out.
pub(crate) struct Checkpoint {
    pub(crate) rows: Frozen,
    pub(crate) applied: Applied,
}

/// What came out of the entries applied under one lock.
#[derive(Default)]
struct Outcome {
    answers: Vec<Vec<RunAnswers>>,
    effects: Vec<Effect>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("shard", &self.shard).finish_non_exhaustive()
    }
}

impl State {
    /// Reads how far the rows are and rebuilds the machine from them.
    pub(crate) fn open(
        shard: ShardId,
        store: Arc<dyn ShardStore>,
        clock: ReplicaClock,
        sink: Arc<dyn Sink>,
        fatal: Fatal,
        pressure: Pressure,
        metrics: ShardMetrics,
    ) -> Result<Arc<Self>, StorageError> {
        let replica = Replica::open(shard, &store)?;
        clock.recovered(replica.machine.time());
        let applied = replica.applied.clone();
        let index = applied.log_id.as_ref().map_or(0, |id| id.index);
        Ok(Arc::new(Self {
            shard,
            store,
            rows: RwLock::new(Some(replica)),
            durable: Mutex::new(applied),
            applied: watch::Sender::new(index),
            gate: Mutex::new(()),
            clock,
            sink,
            fatal,
            pressure,
            metrics,
        }))
    }

    /// Calls `f` with what is applied; `None` while a snapshot is being installed.
    pub(crate) fn read<R>(&self, f: impl FnOnce(&Machine, &ShardRows) -> R) -> Option<R> {
        let rows = self.rows.read().expect("a replica that panicked ends the process");
        rows.as_ref().map(|replica| f(&replica.machine, &replica.rows))
    }

    /// Log time, also while a snapshot is being installed.
    pub(crate) fn log_time(&self) -> UnixMillis {
        self.clock.now()
    }

    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    pub(crate) fn applied_log_id(&self) -> Option<RaftLogId> {
        self.with(|replica| replica.applied.log_id).flatten()
    }

    pub(crate) fn digest(&self) -> Option<(u64, u128)> {
        self.with(|replica| replica.digest).flatten()
    }

    /// Bytes of rows in memory.
    pub(crate) fn overlay_bytes(&self) -> usize {
        self.with(|replica| replica.rows.bytes()).unwrap_or(0)
    }

    pub(crate) fn durable(&self) -> Applied {
        self.durable.lock().expect("no panic while it is locked").clone()
    }

    pub(crate) fn set_durable(&self, applied: Applied) {
        let index = applied.log_id.as_ref().map_or(0, |id| id.index);
        self.metrics.durable_index.set(i64::try_from(index).unwrap_or(i64::MAX));
        *self.durable.lock().expect("no panic while it is locked") = applied;
    }

    pub(crate) fn store(&self) -> &Arc<dyn ShardStore> {
        &self.store
    }

    pub(crate) fn fatal(&self, why: &str) {
        (self.fatal)(why);
    }

    /// Tells the sink what this replica is now, after every effect that came before.
    pub(crate) fn tell_role(&self, role: Role) {
        let _one_at_a_time = self.gate.lock().expect("a sink does not panic");
        self.sink.role(self.shard, role);
    }

    /// Takes the rows that changed since the last checkpoint; `None` if nothing did. [`State::thaw`] must follow.
    pub(crate) fn freeze(&self) -> Option<Checkpoint> {
        let mut rows = self.rows.write().expect("a replica that panicked ends the process");
        let replica = rows.as_mut()?;
        if replica.applied == self.durable() {
            return None;
        }
        let applied = replica.applied.clone();
        Some(Checkpoint { rows: replica.rows.freeze(), applied })
    }

    /// The rows of the last [`State::freeze`] are on disk.
    pub(crate) fn thaw(&self, applied: Applied) {
        let mut rows = self.rows.write().expect("a replica that panicked ends the process");
        if let Some(replica) = rows.as_mut() {
            replica.rows.thaw_done();
        }
        drop(rows);
        self.set_durable(applied);
    }

    /// Nothing is read or applied until [`State::reopen`].
    pub(crate) fn close(&self) {
        *self.rows.write().expect("a replica that panicked ends the process") = None;
    }

    /// Begins anew from what a snapshot put into the store.
    pub(crate) fn reopen(&self) -> Result<Applied, StorageError> {
        let replica = Replica::open(self.shard, &self.store)?;
        self.clock.received(replica.machine.time());
        let applied = replica.applied.clone();
        *self.rows.write().expect("a replica that panicked ends the process") = Some(replica);
        self.set_durable(applied.clone());
        if let Some(id) = &applied.log_id {
            self.applied.send_replace(id.index);
            self.tell_applied(id.index, Vec::new());
        }
        Ok(applied)
    }

    fn with<R>(&self, f: impl FnOnce(&Replica) -> R) -> Option<R> {
        self.rows.read().expect("a replica that panicked ends the process").as_ref().map(f)
    }

    fn apply(&self, entries: &[RaftEntry]) -> Result<Outcome, StorageError> {
        let mut rows = self.rows.write().expect("a replica that panicked ends the process");
        let replica = rows.as_mut().expect("openraft applies nothing while it installs a snapshot");
        let mut outcome = Outcome::default();
        for entry in entries {
            replica.apply(entry, &mut outcome)?;
        }
        replica.rows.put(key::applied(self.shard), replica.applied.encode());
        let stamped = |entry: &&RaftEntry| matches!(entry.payload, RaftPayload::Normal(_));
        if let Some(last) = entries.iter().rfind(stamped) {
            self.clock.applied(last.log_id, replica.machine.time());
        }
        Ok(outcome)
    }

    /// Applies entries; whatever goes wrong ends the process.
    fn apply_or_end(&self, entries: &[RaftEntry]) -> io::Result<Outcome> {
        let since = Instant::now();
        let outcome = match catch_unwind(AssertUnwindSafe(|| self.apply(entries))) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                self.fatal(&format!("shard {}: applying: {error}", self.shard));
                return Err(io::Error::other(error));
            }
            Err(_) => {
                self.fatal(&format!("shard {}: applying panicked", self.shard));
                return Err(io::Error::other("applying panicked"));
            }
        };
        self.metrics.apply_seconds.observe(since.elapsed().as_secs_f64());
        self.metrics.entries.inc_by(entries.len() as u64);
        if let Some(last) = entries.last() {
            // Before the answers: who has one finds its entry applied.
            self.applied.send_replace(last.log_id.index);
        }
        Ok(outcome)
    }

    fn tell_applied(&self, index: u64, effects: Vec<Effect>) {
        self.metrics.applied_index.set(i64::try_from(index).unwrap_or(i64::MAX));
        let _one_at_a_time = self.gate.lock().expect("a sink does not panic");
        self.sink.applied(self.shard, index, effects);
    }
}

impl Replica {
    fn open(shard: ShardId, store: &Arc<dyn ShardStore>) -> Result<Self, StorageError> {
        let rows = Overlay::new(Arc::clone(store));
        let applied = match rows.get(&key::applied(shard))? {
            None => Applied::default(),
            Some(row) => Applied::decode(row).map_err(|error| StorageError::Corrupt {
                what: format!("the applied row of shard {shard}"),
                why: error.to_string(),
            })?,
        };
        Ok(Self { machine: Machine::open(shard, &rows)?, rows, applied, digest: None })
    }

    fn apply(&mut self, entry: &RaftEntry, outcome: &mut Outcome) -> Result<(), StorageError> {
        let index = entry.log_id.index;
        if let Some(last) = &self.applied.log_id {
            assert_eq!(index, last.index + 1, "entry {index} is not the next one to apply");
        }
        let effects_before = outcome.effects.len();
        let answers = match &entry.payload {
            RaftPayload::Blank => {
                self.machine.blank(index);
                Vec::new()
            }
            RaftPayload::Normal(Commands(batch)) => {
                self.machine.apply(&mut self.rows, index, batch, &mut outcome.effects)?
            }
            RaftPayload::Membership(membership) => {
                self.machine.blank(index);
                let log_id = Some(entry.log_id);
                self.applied.membership = RaftStoredMembership::new(log_id, membership.clone());
                Vec::new()
            }
        };
        self.applied.log_id = Some(entry.log_id);
        for effect in &outcome.effects[effects_before..] {
            if let Effect::Digest { index, digest } = effect {
                self.digest = Some((*index, *digest));
            }
        }
        outcome.answers.push(answers);
        Ok(())
    }
}

/// What openraft drives: one per replica.
#[derive(Debug)]
pub(crate) struct StateMachine {
    pub(crate) state: Arc<State>,
    pub(crate) snapshots: Snapshots,
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Durable;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, RaftStoredMembership)> {
        let applied = self.state.with(|replica| replica.applied.clone()).unwrap_or_default();
        Ok((applied.log_id, applied.membership))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let mut ready = entries.ready_chunks(ENTRIES_PER_LOCK);
        while let Some(items) = ready.next().await {
            self.state.pressure.room().await;
            let mut entries = Vec::with_capacity(items.len());
            let mut responders = Vec::with_capacity(items.len());
            for item in items {
                let (entry, responder) = item?;
                entries.push(entry);
                responders.push(responder);
            }
            let outcome = self.state.apply_or_end(&entries)?;
            for (responder, answers) in responders.into_iter().zip(outcome.answers) {
                if let Some(responder) = responder {
                    responder.send(answers);
                }
            }
            if let Some(last) = entries.last() {
                self.state.tell_applied(last.log_id.index, outcome.effects);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Durable {
        Durable { state: Arc::clone(&self.state) }
    }

    async fn install_snapshot(
        &mut self,
        meta: &RaftSnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        match snapshot {
            SnapshotData::Here => Ok(()),
            SnapshotData::Staged(staged) => self.snapshots.install(meta, staged).await,
        }
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        if let Some(kept) = self.snapshots.kept() {
            return Ok(Some(RaftSnapshot {
                meta: kept.meta.clone(),
                snapshot: SnapshotData::Here,
            }));
        }
        Ok(self.state.snapshot())
    }
}

impl State {
    /// The rows on disk, as a snapshot that need not be built.
    fn snapshot(&self) -> Option<RaftSnapshot> {
        let Applied { log_id, membership } = self.durable();
        log_id.as_ref()?;
        let meta = RaftSnapshotMeta { last_log_id: log_id, last_membership: membership };
        Some(RaftSnapshot { meta, snapshot: SnapshotData::Here })
    }
}

/// "Builds" a snapshot: the rows on disk are one, and the checkpointer has just written them.
#[derive(Debug)]
pub(crate) struct Durable {
    state: Arc<State>,
}

impl RaftSnapshotBuilder<Types> for Durable {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        self.state.snapshot().ok_or_else(|| io::Error::other("no rows were ever written out"))
    }
}
