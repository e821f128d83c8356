//! All groups of a node: what the layers above hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    path::Path,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use moorline_core::{NodeId, ShardId, UnixMillis};
use moorline_machine::{Machine, RunAnswers, command::Run};
use moorline_storage::{
    ShardStore,
    log::{LogEngine, Mark},
};
use openraft::raft::VoteRequest;
use prometheus::Registry;
use tokio::{sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    balance,
    blocking::spawn_blocking,
    checkpoint, clear,
    codec::message,
    config::GroupsConfig,
    confirm::Confirmation,
    error::{BarrierError, GroupError, ProposeError},
    failover,
    group::{Group, GroupStatus},
    log_store::RingShare,
    metrics::GroupMetrics,
    open, receive,
    role::{Role, Sink},
    send_snapshot::Throttle,
    state::{Pressure, ShardRows},
    types::{Address, RaftVote},
    wire::{CallError, Kind, Lane, PeerState, Peers},
};

/// Requests of other nodes that are being answered at the same time, beside appends.
const REQUESTS_MAX: usize = 4096;
/// Rows in memory may grow to this many times what starts a checkpoint while it is being written; then applying waits.
const OVERLAYS_FACTOR_MAX: usize = 4;
/// How long another node may take to say whether it has a log.
const LOG_DEADLINE: Duration = Duration::from_millis(500);
/// How long tasks may take to end when the node stops.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// The two stores of a node. Which ones, whoever assembles the node decides.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Rows.
    pub store: Arc<dyn ShardStore>,
    /// The logs of all groups.
    pub log: Arc<dyn LogEngine>,
}

/// What all groups of a node share.
pub(crate) struct Node {
    pub(crate) config: GroupsConfig,
    pub(crate) raft: Arc<openraft::Config>,
    pub(crate) disk: Disk,
    pub(crate) peers: Peers,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) metrics: GroupMetrics,
    pub(crate) throttle: Throttle,
    pub(crate) ring_share: RingShare,
    pub(crate) pressure: Pressure,
    pub(crate) stopping: CancellationToken,
    groups: RwLock<BTreeMap<ShardId, Arc<Group>>>,
    opening: Mutex<BTreeSet<ShardId>>,
    tasks: TaskTracker,
    handing_over: AtomicBool,
}

/// All groups of this node. Cheap to clone.
#[derive(Clone)]
pub struct Groups {
    pub(crate) node: Arc<Node>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("node", &self.config.node).finish_non_exhaustive()
    }
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.node.fmt(f)
    }
}

impl Node {
    pub(crate) fn group(&self, shard: ShardId) -> Option<Arc<Group>> {
        self.groups.read().expect("no panic while it is locked").get(&shard).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Group>> {
        self.groups.read().expect("no panic while it is locked").values().cloned().collect()
    }

    pub(crate) fn is_handing_over(&self) -> bool {
        self.handing_over.load(Ordering::Relaxed)
    }

    pub(crate) fn peer_state(&self, peer: NodeId) -> Option<PeerState> {
        self.peers.state().borrow().get(peer)
    }

    /// A task that ends with the node.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        drop(self.tasks.spawn(async move { stopping.run_until_cancelled(task).await }));
    }

    /// A task that answers another node; dropped if too many are at it.
    pub(crate) fn spawn_request(&self, task: impl Future<Output = ()> + Send + 'static) {
        if self.tasks.len() < REQUESTS_MAX {
            self.spawn(task);
        }
    }

    pub(crate) fn insert(&self, group: Arc<Group>) {
        let mut groups = self.groups.write().expect("no panic while it is locked");
        groups.insert(group.shard, group);
    }

    /// Takes a replica out: no message reaches it any more.
    pub(crate) fn remove(&self, shard: ShardId) -> Option<Arc<Group>> {
        let mut groups = self.groups.write().expect("no panic while it is locked");
        let removed = groups.remove(&shard)?;
        self.ring_share.one_less();
        Some(removed)
    }

    /// Nobody else opens or deletes this replica until [`Node::end_opening`].
    fn begin_opening(&self, shard: ShardId) -> Result<(), GroupError> {
        let open = self.group(shard).is_some();
        let mut opening = self.opening.lock().expect("no panic while it is locked");
        if open || !opening.insert(shard) {
            return Err(GroupError::State { shard, why: "is open already" });
        }
        Ok(())
    }

    fn end_opening(&self, shard: ShardId) {
        self.opening.lock().expect("no panic while it is locked").remove(&shard);
    }
}

impl Groups {
    /// Takes the groups' kinds of messages on `peers` (so before the wire is started) and begins to watch over the groups
    /// that will be opened. Within a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the timers contradict each other, the staging directory cannot be made, or metrics exist already.
    pub fn start(
        config: GroupsConfig,
        disk: Disk,
        peers: Peers,
        sink: Arc<dyn Sink>,
        registry: &Registry,
    ) -> Result<Self, GroupError> {
        let raft = Arc::new(config.timers.raft().map_err(GroupError::Timers)?);
        std::fs::create_dir_all(&config.staging).map_err(GroupError::Staging)?;
        let pressure = Pressure::new(config.checkpoint.bytes.saturating_mul(OVERLAYS_FACTOR_MAX));
        let throttle = Throttle::new(config.snapshots.bytes_per_second);
        let node = Arc::new(Node {
            config,
            raft,
            disk,
            peers: peers.clone(),
            sink,
            metrics: GroupMetrics::register(registry)?,
            throttle,
            ring_share: RingShare::default(),
            pressure,
            stopping: CancellationToken::new(),
            groups: RwLock::default(),
            opening: Mutex::default(),
            tasks: TaskTracker::new(),
            handing_over: AtomicBool::new(false),
        });
        receive::register(&peers, &node);
        node.spawn(checkpoint::run(Arc::clone(&node)));
        node.spawn(failover::run(Arc::clone(&node)));
        node.spawn(balance::run(Arc::clone(&node)));
        Ok(Self { node })
    }

    /// Opens or creates the replica of a shard: compares its log with the leader's, applies what was committed, takes part.
    /// A new replica waits for [`Groups::initialize`] or for a leader. The wire must be started; open all shards at once
    /// (`join_all`): each may wait up to 3 s for its leader.
    ///
    /// # Errors
    ///
    /// [`GroupError::LostLog`], or that storage cannot be trusted: the node must stop.
    pub async fn open(&self, shard: ShardId) -> Result<(), GroupError> {
        self.node.begin_opening(shard)?;
        self.node.ring_share.one_more();
        let opened = open::open(&self.node, shard).await;
        self.node.end_opening(shard);
        opened
    }

    /// Whether this node's disk has a log or rows of a group: then it may be a voter of it, whatever is planned.
    ///
    /// # Errors
    ///
    /// If the disk failed: the node must stop.
    pub fn holds(&self, shard: ShardId) -> Result<bool, GroupError> {
        let storage = |source| GroupError::Storage { shard, source };
        let log = &self.node.disk.log;
        if log.bounds(shard).map_err(storage)?.is_some() {
            return Ok(true);
        }
        let applied = log.mark(shard, Mark::DurableApplied).map_err(storage)?;
        Ok(applied.is_some_and(|mark| !mark.is_empty()))
    }

    /// Deletes the rows, the log and the staged snapshots of a replica that is closed. Only for one that is no part of its
    /// group any more, as voter or learner. Answers whether there were rows or log.
    ///
    /// # Errors
    ///
    /// [`GroupError::State`] if it is open; else the disk failed, and the node must stop.
    pub async fn delete(&self, shard: ShardId) -> Result<bool, GroupError> {
        self.node.begin_opening(shard)?;
        let deleted = self.delete_closed(shard).await;
        self.node.end_opening(shard);
        let deleted = deleted?;
        if deleted {
            info!(%shard, "rows and log of a replica that moved away were deleted");
        }
        Ok(deleted)
    }

    async fn delete_closed(&self, shard: ShardId) -> Result<bool, GroupError> {
        let deleted = clear::delete(shard, &self.node.disk).await;
        let deleted = deleted.map_err(|source| GroupError::Storage { shard, source })?;
        // Behind the mark that could name one of them.
        let staging = self.node.config.staging.clone();
        let cleaned = spawn_blocking(move || clean_staging(&staging, shard)).await;
        cleaned.expect("deleting files does not panic").map_err(GroupError::Staging)?;
        Ok(deleted)
    }

    /// Whether another node has anything of a group's log. Asked as a candidate asks that nobody votes for: it changes nothing there.
    ///
    /// # Errors
    ///
    /// If it can't be reached, or says that the group is not open there.
    pub async fn has_log(&self, shard: ShardId, node: NodeId) -> Result<bool, CallError> {
        let request = VoteRequest::new(RaftVote::new(0, self.node.config.node.0), None);
        let body = message::encode_vote(&request);
        let call =
            self.node.peers.call(node, Lane::Control, Kind::PreVote, shard, body, LOG_DEADLINE);
        let answer = message::decode_voted(call.await?);
        let answer = answer.map_err(|error| CallError::Refused(error.to_string()))?;
        Ok(answer.last_log_id.is_some())
    }

    /// Makes a group of these voters. Once, on one node of them.
    ///
    /// # Errors
    ///
    /// If the replica is not open here, or the group was initialised before.
    pub async fn initialize(
        &self,
        shard: ShardId,
        voters: BTreeMap<NodeId, String>,
    ) -> Result<(), GroupError> {
        let Some(group) = self.node.group(shard) else {
            return Err(GroupError::State { shard, why: "has no replica here" });
        };
        let voters: BTreeMap<u64, Address> =
            voters.into_iter().map(|(node, address)| (node.0, Address(address))).collect();
        let done = group.raft.initialize(voters).await;
        done.map_err(|error| GroupError::Raft { shard, why: error.to_string() })
    }

    /// Proposes a run on the leader. Runs of a shard are appended in the order of the calls. `reply` is called exactly
    /// once: from the apply task, or from inside this call if the run is refused.
    pub fn propose(
        &self,
        shard: ShardId,
        run: Run,
        reply: impl FnOnce(Result<RunAnswers, ProposeError>) + Send + 'static,
    ) {
        match self.node.group(shard) {
            Some(group) => group.proposer.propose(run, Box::new(reply)),
            None => reply(Err(ProposeError::NoGroup)),
        }
    }

    /// What the replica is, now and from now on.
    #[must_use]
    pub fn role(&self, shard: ShardId) -> Option<watch::Receiver<Role>> {
        self.node.group(shard).map(|group| group.role.subscribe())
    }

    /// Calls `f` with what the replica has applied, under a read lock. `None` if there is no replica, or while a snapshot
    /// is being installed.
    pub fn read<R>(&self, shard: ShardId, f: impl FnOnce(&Machine, &ShardRows) -> R) -> Option<R> {
        self.node.group(shard)?.state.read(f)
    }

    /// Log time of the replica, as well as it knows it: what deadlines in its rows are compared with.
    #[must_use]
    pub fn log_time(&self, shard: ShardId) -> Option<UnixMillis> {
        self.node.group(shard).map(|group| group.state.log_time())
    }

    /// Confirms that this node leads, and waits until everything committed before this call is applied. Answers its index.
    ///
    /// # Errors
    ///
    /// If this node does not lead, or no majority confirms it.
    pub async fn barrier(&self, shard: ShardId) -> Result<u64, BarrierError> {
        let group = self.node.group(shard).ok_or(BarrierError::Stopped)?;
        group.barrier().await
    }

    /// What this replica says of its vote with a question to the leader that it asks for from now on. [`None`] if it may not
    /// vote, or is not here.
    #[must_use]
    pub fn confirmation(&self, shard: ShardId) -> Option<Confirmation> {
        self.node.group(shard)?.confirmation()
    }

    /// Whether what `from` said of its vote is a majority with this leader's own: then what is applied here now is everything
    /// that was committed before it said so, and there is no need of a [`Groups::barrier`].
    #[must_use]
    pub fn is_confirmed(&self, shard: ShardId, from: NodeId, said: Confirmation) -> bool {
        self.node.group(shard).is_some_and(|group| group.is_confirmed(from, said))
    }

    /// The index of the last applied entry, now and from now on (not every value is seen).
    #[must_use]
    pub fn applied(&self, shard: ShardId) -> Option<watch::Receiver<u64>> {
        self.node.group(shard).map(|group| group.state.applied())
    }

    /// Waits until the entry at `index` is applied here; whether it was within `deadline`.
    pub async fn wait_applied(&self, shard: ShardId, index: u64, deadline: Duration) -> bool {
        let Some(mut applied) = self.applied(shard) else { return false };
        let reached = applied.wait_for(|applied| *applied >= index);
        matches!(timeout(deadline, reached).await, Ok(Ok(_)))
    }

    /// Whether the replica has applied everything that it could have known committed before it was started.
    #[must_use]
    pub fn ready(&self, shard: ShardId) -> bool {
        self.node.group(shard).is_some_and(|group| *group.ready.borrow())
    }

    /// Waits for [`Groups::ready`]; whether it came within `deadline`.
    pub async fn wait_ready(&self, shard: ShardId, deadline: Duration) -> bool {
        let Some(group) = self.node.group(shard) else { return false };
        let mut ready = group.ready.subscribe();
        matches!(timeout(deadline, ready.wait_for(|ready| *ready)).await, Ok(Ok(_)))
    }

    /// Every replica that is open, in shard order.
    #[must_use]
    pub fn status(&self) -> Vec<GroupStatus> {
        self.node.all().iter().map(|group| group.status()).collect()
    }

    /// The shards whose replicas are open.
    #[must_use]
    pub fn shards(&self) -> Vec<ShardId> {
        self.node.all().iter().map(|group| group.shard).collect()
    }

    /// The groups whose Raft core does not get to a question within `deadline`: it hangs, or what it waits for does. One that
    /// has ended is not among them; the process ends with it (`Group::follow_role`).
    pub async fn stuck(&self, deadline: Duration) -> Vec<ShardId> {
        let groups = self.node.all();
        let turns = groups.iter().map(|group| async move {
            let turn = timeout(deadline, group.raft.with_raft_state(|_| ())).await;
            turn.is_err().then_some(group.shard)
        });
        join_all(turns).await.into_iter().flatten().collect()
    }

    /// Writes out the rows of every group now, and purges what log is not needed.
    pub async fn checkpoint(&self) {
        checkpoint::checkpoint(&self.node, &self.node.all()).await;
    }

    /// Moves every leadership away, as far as somebody can take it. This node does not campaign afterwards.
    pub async fn hand_over(&self, deadline: Duration) {
        self.node.handing_over.store(true, Ordering::Relaxed);
        balance::hand_over(&self.node, deadline).await;
    }

    /// Answers what waits, stops taking part, writes rows out.
    pub async fn stop(self) {
        let groups = self.node.all();
        self.node.stopping.cancel();
        for group in &groups {
            group.proposer.stop();
        }
        let stopped = join_all(groups.iter().map(|group| group.raft.shutdown())).await;
        for error in stopped.into_iter().filter_map(Result::err) {
            warn!(%error, "a Raft core did not stop well");
        }
        checkpoint::checkpoint(&self.node, &groups).await;
        self.node.tasks.close();
        if timeout(STOP_WITHIN, self.node.tasks.wait()).await.is_err() {
            warn!(tasks = self.node.tasks.len(), "tasks of the groups did not end in time");
        }
        self.node.groups.write().expect("no panic while it is locked").clear();
    }
}

/// Removes what earlier transfers of this shard left in the staging directory.
pub(crate) fn clean_staging(staging: &Path, shard: ShardId) -> std::io::Result<()> {
    let mine = [format!("in-{shard}-"), format!("out-{shard}-")];
    for entry in std::fs::read_dir(staging)? {
        let entry = entry?;
        let name = entry.file_name();
        if mine.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
