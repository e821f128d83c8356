//! Acts out what the forwarders decide: sends, calls, watches the clock.
//!
//! # Invariants
//!
//! - **One driver per shard.** Whoever finds work drives until there is none; others leave theirs to it. So runs are sent
//!   and commands answered in the order the forwarder decided, without holding its lock.
//! - **A driver stops after [`DRIVE_STEPS_MAX`] steps** and leaves the rest to the clerk, because it may be a task that
//!   has something else to do (a connection's, the apply task).

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{NodeId, ShardId, shard::SHARDS_MAX};
use moorline_group::{
    Groups, Role,
    wire::{CallError, Kind, Lane, Peers, SendError},
};
use moorline_machine::{Command, Run, RunAnswers};
use prometheus::Registry;
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot, watch},
    time::{sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, error, info, warn};

use crate::{
    done::{At, Done, Outcome},
    error::{SubmitError, TellError},
    forwarder::{Action, Failure, Forwarder, Sent, Verdict},
    metrics::RouterMetrics,
    replicas::Replicas,
    roles::{self, Leader, Leaders},
    wire,
};

/// Steps that one driver takes before it leaves the rest to the clerk.
const DRIVE_STEPS_MAX: usize = 64;
/// How often the clerk looks for commands past their deadline.
const DEADLINE_INTERVAL: Duration = Duration::from_secs(1);
/// How long tasks may take to end.
const STOP_DEADLINE: Duration = Duration::from_secs(1);

/// What the router is told at its start.
pub struct RouterConfig {
    /// Shards whose leaders are watched from the start, the meta group among them. Others are when they are first used.
    pub shards: Vec<ShardId>,
    /// Gives random numbers, each a new producer's id.
    pub producers: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl fmt::Debug for RouterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouterConfig").field("shards", &self.shards).finish_non_exhaustive()
    }
}

/// The way to every shard's leader. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    inner: Arc<Inner>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("node", &self.inner.peers.node()).finish_non_exhaustive()
    }
}

/// What all parts of the router share.
pub(crate) struct Inner {
    pub(crate) peers: Peers,
    pub(crate) replicas: Arc<dyn Replicas>,
    producers: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// By the shard's number.
    slots: Vec<OnceLock<Arc<Slot>>>,
    leaders: watch::Sender<Leaders>,
    metrics: RouterMetrics,
    /// Wakes the clerk.
    clerk: Notify,
    tracker: TaskTracker,
    runtime: Handle,
    pub(crate) stop: CancellationToken,
}

/// A shard's forwarder.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) shard: ShardId,
    state: Mutex<State>,
    /// A run had to be sent again.
    pub(crate) failed: Notify,
}

#[derive(Debug)]
struct State {
    forwarder: Forwarder,
    /// Somebody drives.
    driving: bool,
    /// The clerk is to drive.
    left: bool,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Router {
    /// Starts the router; registers its handlers, so before the wire starts.
    ///
    /// # Errors
    ///
    /// If the metrics are registered already.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(
        groups: Groups,
        peers: Peers,
        config: RouterConfig,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        Self::over(Arc::new(groups), peers, config, registry)
    }

    pub(crate) fn over(
        replicas: Arc<dyn Replicas>,
        peers: Peers,
        config: RouterConfig,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let metrics = RouterMetrics::register(registry)?;
        wire::register(&peers, &replicas);
        let slots = (0..=SHARDS_MAX).map(|_| OnceLock::new()).collect();
        let inner = Arc::new(Inner {
            peers,
            replicas,
            producers: config.producers,
            slots,
            leaders: watch::Sender::new(Arc::default()),
            metrics,
            clerk: Notify::new(),
            tracker: TaskTracker::new(),
            runtime: Handle::current(),
            stop: CancellationToken::new(),
        });
        inner.tracker.spawn_on(clerk(inner.clone()), &inner.runtime);
        for shard in config.shards {
            inner.slot(shard);
        }
        Ok(Self { inner })
    }

    /// Sends a command to the shard's leader. Never waits. `done` hears what became of it: inside this call if it can't
    /// be taken (busy, too large, stopped), else later, in the order of the submissions to the shard.
    ///
    /// # Panics
    ///
    /// If there can be no such shard.
    pub fn submit(&self, shard: ShardId, command: &Command, done: Done) {
        let inner = &self.inner;
        let slot = inner.slot(shard);
        inner.metrics.commands.inc();
        let mut state = slot.lock();
        match state.forwarder.submit(command, done, Instant::now(), &*inner.producers) {
            Ok(()) => {
                inner.metrics.waiting.inc();
                inner.drive(slot, state);
            }
            Err((done, error)) => {
                drop(state);
                inner.metrics.command_failed(&error);
                done.end(Err(error), At { shard, index: 0 });
            }
        }
    }

    /// As [`submit`](Self::submit), for somebody who awaits the answer. The command is submitted before this returns.
    ///
    /// # Errors
    ///
    /// The future gives [`SubmitError`].
    pub fn ask(
        &self,
        shard: ShardId,
        command: &Command,
    ) -> impl Future<Output = Outcome> + Send + use<> {
        let (sender, receiver) = oneshot::channel();
        // Nobody waits any more: then nobody misses it.
        let done = Done::Call(Box::new(|outcome| drop(sender.send(outcome))));
        self.submit(shard, command, done);
        async move { receiver.await.unwrap_or(Err(SubmitError::Unanswered { shard })) }
    }

    /// The shard's leader, as far as is known here.
    #[must_use]
    pub fn leader(&self, shard: ShardId) -> Option<NodeId> {
        self.inner.slot(shard).lock().forwarder.leader().leader
    }

    /// Who leads each shard, now and from now on.
    #[must_use]
    pub fn leaders(&self) -> watch::Receiver<Leaders> {
        self.inner.leaders.subscribe()
    }

    /// Sends a oneway message to the shard's leader, whose id it gives. If that is this node, the handler runs inside
    /// this call.
    ///
    /// # Errors
    ///
    /// If there is no leader, or it can't be sent to. Without an error it may still be lost.
    pub fn tell_leader(
        &self,
        shard: ShardId,
        kind: Kind,
        body: Bytes,
    ) -> Result<NodeId, TellError> {
        let leader = self.leader(shard).ok_or(TellError::NoLeader)?;
        self.inner.peers.send(leader, Lane::Data, kind, shard, body)?;
        Ok(leader)
    }

    /// [`Peers::send`].
    ///
    /// # Errors
    ///
    /// If it can't be sent. Without an error it may still be lost.
    pub fn tell(
        &self,
        node: NodeId,
        lane: Lane,
        kind: Kind,
        shard: ShardId,
        body: Bytes,
    ) -> Result<(), SendError> {
        self.inner.peers.send(node, lane, kind, shard, body)
    }

    /// [`Peers::call`].
    ///
    /// # Errors
    ///
    /// The future gives [`CallError`].
    pub fn call(
        &self,
        node: NodeId,
        lane: Lane,
        kind: Kind,
        shard: ShardId,
        body: Bytes,
        deadline: Duration,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send + use<> {
        self.inner.peers.call(node, lane, kind, shard, body, deadline)
    }

    /// How many commands wait for their answers from a shard.
    #[must_use]
    pub fn waiting(&self, shard: ShardId) -> usize {
        self.inner.slot(shard).lock().forwarder.waiting()
    }

    /// Takes no more commands, and answers all that wait: unanswered, or never sent.
    pub async fn stop(&self) {
        let inner = &self.inner;
        for slot in inner.slots() {
            let mut state = slot.lock();
            state.forwarder.stop();
            inner.drive(slot, state);
        }
        inner.stop.cancel();
        inner.tracker.close();
        if timeout(STOP_DEADLINE, inner.tracker.wait()).await.is_err() {
            warn!(tasks = inner.tracker.len(), "tasks of the router did not end in time");
        }
    }
}

impl Inner {
    fn slot(self: &Arc<Self>, shard: ShardId) -> &Arc<Slot> {
        let place = self.slots.get(usize::from(shard.0));
        let place = place.unwrap_or_else(|| panic!("there can be no shard {shard}"));
        place.get_or_init(|| {
            let (own, now) = (self.peers.node(), Instant::now());
            let forwarder = Forwarder::new(shard, own, (self.producers)(), now);
            let state = Mutex::new(State { forwarder, driving: false, left: false });
            let slot = Arc::new(Slot { shard, state, failed: Notify::new() });
            let watch = roles::watch(Arc::downgrade(self), slot.clone());
            self.tracker.spawn_on(watch, &self.runtime);
            slot
        })
    }

    fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.slots.iter().filter_map(OnceLock::get)
    }

    fn nodes(&self) -> Vec<NodeId> {
        let mut nodes = self.peers.peers();
        nodes.push(self.peers.node());
        nodes
    }

    /// Does what the forwarder wants, unless somebody does already.
    fn drive<'a>(self: &Arc<Self>, slot: &'a Arc<Slot>, mut state: MutexGuard<'a, State>) {
        if state.driving {
            return;
        }
        state.driving = true;
        for _ in 0..DRIVE_STEPS_MAX {
            match state.forwarder.next_action(Instant::now(), &|| self.nodes()) {
                None => {
                    state.driving = false;
                    let waits = state.forwarder.retry_at().is_some();
                    drop(state);
                    if waits {
                        self.clerk.notify_one();
                    }
                    return;
                }
                Some(action) => {
                    drop(state);
                    self.act(slot, action);
                    state = slot.lock();
                }
            }
        }
        state.driving = false;
        state.left = true;
        drop(state);
        self.clerk.notify_one();
    }

    fn act(self: &Arc<Self>, slot: &Arc<Slot>, action: Action) {
        match action {
            Action::Send { to, run, sent } => self.send(slot, to, run, sent),
            Action::Complete(completed) => {
                self.metrics.waiting.sub(i64::try_from(completed.len()).unwrap_or(i64::MAX));
                let mut answered = 0;
                for (done, outcome, index) in completed {
                    match &outcome {
                        Ok(_) => answered += 1,
                        Err(error) => self.metrics.command_failed(error),
                    }
                    done.end(outcome, At { shard: slot.shard, index });
                }
                self.metrics.commands_answered(answered);
            }
        }
    }

    fn send(self: &Arc<Self>, slot: &Arc<Slot>, to: NodeId, run: Run, sent: Sent) {
        self.metrics.runs.inc();
        let (inner, of) = (self.clone(), slot.clone());
        let done = move |outcome| inner.answered(&of, sent, outcome);
        if to == self.peers.node() {
            let reply = move |outcome: Result<_, _>| done(outcome.map_err(wire::failure));
            self.replicas.propose(slot.shard, run, Box::new(reply));
        } else {
            wire::submit(&self.peers, to, slot.shard, &run, done);
        }
    }

    fn answered(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        sent: Sent,
        outcome: Result<RunAnswers, Failure>,
    ) {
        let failure = outcome.as_ref().err().copied();
        let mut state = slot.lock();
        let now = Instant::now();
        match state.forwarder.answered(sent, outcome, now, &*self.producers) {
            Verdict::Answered(took) => self.metrics.run_answered(took),
            Verdict::Failed => {
                let failure = failure.unwrap_or(Failure::Unknown);
                self.metrics.run_failed(failure);
                slot.failed.notify_one();
                debug!(shard = %slot.shard, ?failure, "a run has to be sent again");
            }
            Verdict::Stale => {}
        }
        self.drive(slot, state);
    }

    /// Somebody says who leads.
    pub(crate) fn heard(self: &Arc<Self>, slot: &Arc<Slot>, role: Role) {
        let mut state = slot.lock();
        state.forwarder.heard(role);
        // With the lock held: who hears of the leader here finds it there.
        self.tell_leaders(slot.shard, Leader { node: role.leader, term: role.term });
        self.drive(slot, state);
    }

    fn tell_leaders(&self, shard: ShardId, leader: Leader) {
        let changed = self.leaders.send_if_modified(|leaders| {
            let known = leaders.get(&shard).copied();
            let news = known != Some(leader) && known.is_none_or(|known| known.term <= leader.term);
            if news {
                let mut changed = BTreeMap::clone(leaders);
                changed.insert(shard, leader);
                *leaders = Arc::new(changed);
            }
            news
        });
        if changed {
            self.metrics.leader_changes.inc();
            info!(%shard, leader = ?leader.node, term = leader.term, "leader");
        }
    }
}

/// Sends again when a pause is over, gives up what is past its deadline, and drives on what drivers left.
async fn clerk(inner: Arc<Inner>) {
    let mut look = Instant::now() + DEADLINE_INTERVAL;
    loop {
        let now = Instant::now();
        let deadlines = now >= look;
        if deadlines {
            look = now + DEADLINE_INTERVAL;
        }
        let mut wake = look;
        for slot in inner.slots() {
            let mut state = slot.lock();
            if deadlines && state.forwarder.tick(now, &*inner.producers) {
                error!(shard = %slot.shard, "commands were not answered in time");
            }
            let due = state.forwarder.retry_at().is_some_and(|at| at <= now);
            let left = std::mem::take(&mut state.left);
            if due || left || deadlines {
                inner.drive(slot, state);
                state = slot.lock();
            }
            if let Some(at) = state.forwarder.retry_at() {
                wake = wake.min(at);
            }
            if state.left {
                wake = now;
            }
        }
        let woken = async {
            tokio::select! {
                () = inner.clerk.notified() => {}
                () = sleep_until(wake.into()) => {}
            }
        };
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            () = woken => {}
        }
    }
}
