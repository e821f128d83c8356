//! Node to node: three standing connections from each node to each other one, carrying many messages per frame.
//!
//! ```text
//!   call / request / send ──► SendQueue ──► gRPC stream (control | data | bulk) ──► Handler of the kind, in order
//!                       ◄── answers of the same stream, in frames ◄── SendQueue ◄── Replier
//! ```
//!
//! # Invariants
//!
//! - **Order.** Messages to one node over one lane arrive in the order of the calls. Checked by `tests::traffic`.
//! - **Nothing waits for a connection.** Without one, sending fails at once; when one ends, all that was asked over it
//!   ends with [`CallError::Closed`]. Who wants to send again decides so. Checked by `tests::losses`.
//! - **Every request ends once**, by its answer, its deadline or the connection's end. Checked by `calls::tests`.
//! - **Wrong company is refused** by both sides before any handler sees it. Checked by `tests::refusals`.
//!
//! # Deliberately absent
//!
//! What messages mean: handlers know. Retries: only who asked knows whether a repeat is safe.

mod accept;
mod calls;
mod config;
mod dial;
mod error;
mod handler;
mod hello;
mod incoming;
mod kind;
mod link;
mod message;
mod metrics;
mod send_queue;
mod state;
#[cfg(test)]
mod tests;
mod tls;
mod transport;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::TcpListener,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{Incarnation, NodeId, ShardId, level::Program};
use prometheus::Registry;
use tokio::{
    sync::{Notify, oneshot, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::codegen::http::Uri;
use tracing::{debug, error, warn};

use self::{
    calls::{Calls, Done},
    config::SWEEP_INTERVAL,
    hello::{Expected, Identity, VERSION},
    link::{Link, Peer},
    message::Role,
    metrics::WireMetrics,
    state::States,
    tls::Kept,
    transport::Tcp,
};
pub use self::{
    config::{TlsFiles, WireConfig, node_name},
    error::{CallError, SendError, WireError},
    handler::{Handler, Replier},
    hello::{Refusal, RefusalReason},
    kind::{Kind, Lane},
    message::MESSAGE_BYTES_MAX,
    state::{PeerState, PeerStates},
    tls::TLS_FILES_POLL,
    transport::{Connecting, Listener, Socket, Transport},
};

/// The generated code.
#[expect(unreachable_pub, unused_qualifications, clippy::pedantic)]
mod proto {
    tonic::include_proto!("moorline.peer.v1");
}

/// The way to the other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

/// What all parts of the wire share.
struct Shared {
    own: Identity,
    tls: Option<Kept>,
    /// By the number of the kind.
    handlers: [OnceLock<Arc<dyn Handler>>; 256],
    peers: RwLock<HashMap<NodeId, Arc<Peer>>>,
    stores: Mutex<BTreeMap<NodeId, u128>>,
    /// Nodes that were removed from the cluster.
    removed: Mutex<BTreeSet<NodeId>>,
    /// The level of the cluster; 0 while it is not known.
    level: AtomicU16,
    /// What each node said last of its program, since this process began: nodes of the cluster, as many as there ever were.
    programs: Mutex<BTreeMap<NodeId, Program>>,
    incoming: Mutex<HashMap<(NodeId, Lane), accept::Incoming>>,
    /// Requests of this node to itself.
    local: Calls,
    states: States,
    refusals: watch::Sender<Option<Refusal>>,
    metrics: WireMetrics,
    /// Wakes the sweep when there is something to watch.
    sweep: Notify,
    /// Set when it is started.
    transport: OnceLock<Arc<dyn Transport>>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Peers {
    /// Makes the wire, without connecting anything yet.
    ///
    /// # Errors
    ///
    /// [`WireError`] if the configuration is not usable.
    pub fn new(config: WireConfig, registry: &Registry) -> Result<Self, WireError> {
        let metrics = WireMetrics::register(registry)?;
        let own = Identity {
            version: VERSION,
            cluster: config.cluster,
            node: config.node,
            store: config.store,
            incarnation: config.incarnation,
            program: config.program,
        };
        for (node, address) in &config.peers {
            check_address(*node, address)?;
        }
        let shared = Arc::new(Shared {
            own,
            tls: config.tls.as_ref().map(|files| Kept::read(config.node, files)).transpose()?,
            handlers: [const { OnceLock::new() }; 256],
            peers: RwLock::default(),
            stores: Mutex::default(),
            removed: Mutex::default(),
            level: AtomicU16::new(0),
            programs: Mutex::default(),
            incoming: Mutex::default(),
            local: Calls::new(),
            states: States::new(metrics.peers_up.clone()),
            refusals: watch::Sender::new(None),
            metrics,
            sweep: Notify::new(),
            transport: OnceLock::new(),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let peers = Self { shared };
        peers.update_peers(config.peers);
        Ok(peers)
    }

    /// Gives messages of a kind to a handler. To be done before [`start`](Self::start).
    ///
    /// # Panics
    ///
    /// If the kind has a handler.
    pub fn register(&self, kind: Kind, handler: Arc<dyn Handler>) {
        let slot = &self.shared.handlers[usize::from(kind as u8)];
        assert!(slot.set(handler).is_ok(), "{kind:?} has a handler already");
    }

    /// Takes connections from the listener, and begins to connect to the peers.
    ///
    /// # Errors
    ///
    /// If the listener can't be used.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, and if called twice.
    pub fn start(&self, listener: TcpListener) -> Result<(), WireError> {
        listener.set_nonblocking(true).map_err(WireError::Listen)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(WireError::Listen)?;
        self.start_over(Arc::new(Tcp), Box::new(listener));
        Ok(())
    }

    /// The same over another transport than TCP.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub fn start_over(&self, transport: Arc<dyn Transport>, listener: Box<dyn Listener>) {
        let shared = &self.shared;
        let peers = self.shared.peers_write();
        assert!(shared.transport.set(transport).is_ok(), "the wire is started once");
        for peer in peers.values() {
            shared.dial(peer);
        }
        drop(peers);
        shared.tracker.spawn(accept::run(shared.clone(), listener));
        shared.tracker.spawn(sweep(shared.clone()));
    }

    /// Closes all connections; answers that are ready still leave until the deadline. Nothing can be sent any more.
    pub async fn stop(&self, deadline: Duration) {
        let shared = &self.shared;
        shared.stop.cancel();
        shared.tracker.close();
        if timeout(deadline, shared.tracker.wait()).await.is_err() {
            warn!(tasks = shared.tracker.len(), "connections did not close in time");
        }
        shared.local.close();
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.shared.own.node
    }

    /// This process.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.shared.own.incarnation
    }

    /// The other nodes, ascending.
    #[must_use]
    pub fn peers(&self) -> Vec<NodeId> {
        let peers = self.shared.peers.read().unwrap_or_else(PoisonError::into_inner);
        let mut nodes: Vec<_> = peers.keys().copied().collect();
        nodes.sort_unstable();
        nodes
    }

    /// Asks a node, and awaits its answer. The request is queued before this returns, so that requests made one after
    /// the other arrive so. To the own node, the handler runs inside this call.
    ///
    /// # Errors
    ///
    /// The future gives [`CallError`]: it says whether the request may have been handled.
    pub fn call(
        &self,
        to: NodeId,
        lane: Lane,
        kind: Kind,
        shard: ShardId,
        body: Bytes,
        deadline: Duration,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send + use<> {
        let (sender, answer) = oneshot::channel();
        let begun = self.begin(to, lane, kind, shard, body, Done::Future(sender));
        let waiting = begun.map(|begun| Waiting { begun, answer });
        async move {
            let mut waiting = waiting.map_err(|(_, error)| error)?;
            match timeout(deadline, &mut waiting.answer).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(CallError::Closed),
                Err(_) => Err(CallError::Deadline),
            }
        }
    }

    /// As [`call`](Self::call), but hands the answer over instead of waking a task. `done` runs on the task that
    /// receives, or inside this call if the request can't be sent; it must not wait. The deadline is exact to 50 ms.
    #[expect(clippy::too_many_arguments, reason = "an address, a message, and what to do then")]
    pub fn request(
        &self,
        to: NodeId,
        lane: Lane,
        kind: Kind,
        shard: ShardId,
        body: Bytes,
        deadline: Duration,
        done: impl FnOnce(Result<Bytes, CallError>) + Send + 'static,
    ) {
        let done = Done::Callback { call: Box::new(done), deadline: Instant::now() + deadline };
        match self.begin(to, lane, kind, shard, body, done) {
            Ok(_) => self.shared.sweep.notify_one(),
            Err((done, error)) => done.end(Err(error)),
        }
    }

    /// Tells a node something that it will not answer. To the own node, the handler runs inside this call.
    ///
    /// # Errors
    ///
    /// [`SendError`] if it was not queued. No error does not mean that it will arrive.
    pub fn send(
        &self,
        to: NodeId,
        lane: Lane,
        kind: Kind,
        shard: ShardId,
        body: Bytes,
    ) -> Result<(), SendError> {
        if to == self.node() {
            let handler = self.shared.handler(kind as u8).ok_or(SendError::Unreachable)?;
            handler.handle(to, shard, body, None);
            return Ok(());
        }
        let link = self.shared.link(to, lane).ok_or(SendError::Unreachable);
        let sent = link.and_then(|link| link.push(kind as u8, Role::Oneway, shard, 0, &body));
        sent.inspect_err(|error| self.count_unsent(lane, *error))
    }

    fn begin(
        &self,
        to: NodeId,
        lane: Lane,
        kind: Kind,
        shard: ShardId,
        body: Bytes,
        done: Done,
    ) -> Result<Begun, (Done, CallError)> {
        if to == self.node() {
            return self.begin_locally(kind, shard, body, done);
        }
        let Some(link) = self.shared.link(to, lane) else {
            self.count_unsent(lane, SendError::Unreachable);
            return Err((done, CallError::Unreachable));
        };
        let correlation = link.calls.begin(done, Instant::now())?;
        match link.push(kind as u8, Role::Request, shard, correlation, &body) {
            Ok(()) => Ok(Begun::Wire(link, correlation)),
            Err(error) => {
                self.count_unsent(lane, error);
                match link.calls.forget(correlation) {
                    Some(done) => Err((done, error.into())),
                    // The connection ended meanwhile, and said so.
                    None => Ok(Begun::Wire(link, correlation)),
                }
            }
        }
    }

    fn begin_locally(
        &self,
        kind: Kind,
        shard: ShardId,
        body: Bytes,
        done: Done,
    ) -> Result<Begun, (Done, CallError)> {
        let Some(handler) = self.shared.handler(kind as u8) else {
            let why = format!("no handler for kind {}", kind as u8);
            return Err((done, CallError::Refused(why)));
        };
        let correlation = self.shared.local.begin(done, Instant::now())?;
        let replier = Replier::local(self.shared.clone(), correlation);
        handler.handle(self.node(), shard, body, Some(replier));
        Ok(Begun::Local(self.shared.clone(), correlation))
    }

    fn count_unsent(&self, lane: Lane, error: SendError) {
        let metrics = self.shared.metrics.lane(lane);
        match error {
            SendError::Unreachable => metrics.unreachable.inc(),
            SendError::Full => metrics.full.inc(),
            SendError::TooLarge => {}
        }
    }

    /// How the peers are doing. Changes at once when a connection ends.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<PeerStates> {
        self.shared.states.subscribe()
    }

    /// Whether a node can be reached now. The own node always can.
    #[must_use]
    pub fn is_up(&self, node: NodeId) -> bool {
        node == self.node() || self.shared.states.get(node).is_some_and(PeerState::is_up)
    }

    /// Sets where the other nodes are. Connections to those that moved or left are closed.
    /// An address that is none is logged, and the node is not connected.
    pub fn update_peers(&self, mut addresses: BTreeMap<NodeId, String>) {
        addresses.remove(&self.node());
        let mut peers = self.shared.peers_write();
        peers.retain(|node, peer| {
            let stays = addresses.get(node) == Some(&peer.address);
            if !stays {
                peer.stop.cancel();
                self.shared.states.remove(*node);
            }
            stays
        });
        for (node, address) in addresses {
            if peers.contains_key(&node) {
                continue;
            }
            if let Err(error) = check_address(node, &address) {
                error!(%error, "a peer is not connected");
                continue;
            }
            let peer = Peer::new(node, address, self.shared.stop.child_token());
            self.shared.states.add(node);
            if self.shared.transport.get().is_some() {
                self.shared.dial(&peer);
            }
            peers.insert(node, peer);
        }
        drop(peers);
        let known = self.peers();
        self.shared.end_incoming(|node, _| !known.contains(&node));
    }

    /// Sets which data directory is registered for each node: a node with another one is refused, also if it is
    /// connected now. A node that is absent or has 0 is not registered yet.
    pub fn expect_stores(&self, stores: BTreeMap<NodeId, u128>) {
        *self.shared.stores_lock() = stores;
        for node in self.peers() {
            let expected = self.shared.expected(node).store;
            for link in Lane::ALL.into_iter().filter_map(|lane| self.shared.link(node, lane)) {
                if expected != 0 && link.peer.store != expected {
                    link.stop.cancel();
                }
            }
        }
        self.shared.end_incoming(|node, store| {
            let expected = self.shared.expected(node).store;
            expected != 0 && store != expected
        });
    }

    /// Sets which nodes were removed from the cluster: they are told so when they come. Take them out of the peers too.
    pub fn deny(&self, removed: BTreeSet<NodeId>) {
        *self.shared.removed.lock().unwrap_or_else(PoisonError::into_inner) = removed;
    }

    /// Sets the level of the cluster: a node whose program does not know it is refused, also if it is connected now.
    pub fn set_level(&self, level: u16) {
        if self.shared.level.swap(level, Ordering::AcqRel) == level {
            return;
        }
        let programs = self.programs();
        for node in self.peers() {
            for link in Lane::ALL.into_iter().filter_map(|lane| self.shared.link(node, lane)) {
                if !link.peer.program.levels.know(level) {
                    link.stop.cancel();
                }
            }
        }
        self.shared.end_incoming(|node, _| {
            programs.get(&node).is_some_and(|program| !program.levels.know(level))
        });
    }

    /// What each node that was connected since this process began said last of its program; this one's is among them.
    #[must_use]
    pub fn programs(&self) -> BTreeMap<NodeId, Program> {
        let mut programs = self.shared.programs_lock().clone();
        programs.insert(self.node(), self.shared.own.program);
        programs
    }

    /// The latest peer that would not talk to this node, or that this node would not talk to.
    #[must_use]
    pub fn refusals(&self) -> watch::Receiver<Option<Refusal>> {
        self.shared.refusals.subscribe()
    }
}

impl Shared {
    fn handler(&self, kind: u8) -> Option<&Arc<dyn Handler>> {
        self.handlers[usize::from(kind)].get()
    }

    fn link(&self, to: NodeId, lane: Lane) -> Option<Arc<Link>> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.get(&to)?.link(lane)
    }

    fn dial(self: &Arc<Self>, peer: &Arc<Peer>) {
        for lane in Lane::ALL {
            self.tracker.spawn(dial::run(self.clone(), peer.clone(), lane));
        }
    }

    fn nudge(&self, node: NodeId) {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.get(&node) {
            peer.nudge();
        }
    }

    fn expected(&self, node: NodeId) -> Expected {
        let store = self.stores_lock().get(&node).copied().unwrap_or(0);
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        let known = peers.contains_key(&node);
        let removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner).contains(&node);
        let level = self.level.load(Ordering::Acquire);
        Expected { own: self.own, store, known, removed, level }
    }

    /// A node that was let in, or lets this one in, said what it runs.
    fn heard(&self, from: &Identity) {
        self.programs_lock().insert(from.node, from.program);
    }

    /// Ends streams that were let in. Their slots stay, for the order of those that follow.
    fn end_incoming(&self, wrong: impl Fn(NodeId, u128) -> bool) {
        let incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        for ((node, _), stream) in &*incoming {
            if wrong(*node, stream.store) {
                stream.stop.cancel();
            }
        }
    }

    /// Tells that there was a refusal; loudly if it is news.
    fn refused(&self, refusal: Refusal) {
        self.metrics.hello_refused(refusal.reason);
        let news = self.refusals.send_if_modified(|last| last.replace(refusal) != Some(refusal));
        if news {
            error!(peer = %refusal.peer, "{refusal}");
        } else {
            debug!(peer = %refusal.peer, "{refusal}");
        }
    }

    fn peers_write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<NodeId, Arc<Peer>>> {
        self.peers.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn programs_lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Program>> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stores_lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, u128>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_address(node: NodeId, address: &str) -> Result<(), WireError> {
    let uri = Uri::try_from(format!("http://{address}"));
    let port = uri.ok().and_then(|uri| uri.authority()?.port_u16());
    match port {
        Some(_) => Ok(()),
        None => Err(WireError::Address { node, address: address.to_owned() }),
    }
}

/// A request that is under way.
enum Begun {
    Wire(Arc<Link>, u64),
    Local(Arc<Shared>, u64),
}

/// Somebody awaits an answer; dropped, nobody does any more.
struct Waiting {
    begun: Begun,
    answer: oneshot::Receiver<Result<Bytes, CallError>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        match &self.begun {
            Begun::Wire(link, correlation) => drop(link.calls.forget(*correlation)),
            Begun::Local(shared, correlation) => drop(shared.local.forget(*correlation)),
        }
    }
}

/// Watches the deadlines of [`Peers::request`]. Sleeps while there is none.
async fn sweep(shared: Arc<Shared>) {
    let work = async {
        loop {
            shared.sweep.notified().await;
            while sweep_once(&shared) {
                sleep(SWEEP_INTERVAL).await;
            }
        }
    };
    tokio::select! {
        () = shared.stop.cancelled() => {}
        () = work => {}
    }
}

fn sweep_once(shared: &Shared) -> bool {
    let links: Vec<_> = {
        let peers = shared.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.values().flat_map(|peer| Lane::ALL.map(|lane| peer.link(lane))).flatten().collect()
    };
    let now = Instant::now();
    let mut waiting = shared.local.sweep(now);
    for link in links {
        waiting |= link.calls.sweep(now);
    }
    waiting
}
