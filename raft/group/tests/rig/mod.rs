//! Nodes in one process, each with its own runtime, wire and disk, so that one can be killed without the others noticing
//! anything but silence. Shared by the tests and the benchmark.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

pub mod moves;

use std::{
    collections::BTreeMap,
    future::Future,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use moorline_core::{
    ConnId, Epoch, Incarnation, Message, NodeId, QoS, ShardId, SubscriptionOptions, TenantId,
    UnixMillis, shard,
};
use moorline_group::{
    BarrierError, Clock, Disk, GroupError, Groups, GroupsConfig, ProposeError, Role, Sink,
    wire::{Peers, WireConfig},
};
use moorline_machine::{
    Answer, Command, Effect, Run, RunAnswers, RunBuilder,
    command::{Holder, ProducerId, SessionId, Subscription},
};
use moorline_storage_rocks::{Create, LogConfig, RocksLog, RocksStore, StoreConfig, abort};
use prometheus::Registry;
use tempfile::TempDir;
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    time::timeout,
};

/// Nothing takes longer here, also on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// How long a killed node's tasks may hold its disk.
const GONE_WITHIN: Duration = Duration::from_secs(10);
const TENANT: TenantId = TenantId(1);
const CLIENT: &str = "client";

/// Asks again and again until there is an answer.
pub fn within<T>(deadline: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < deadline, "no {what} within {deadline:?}");
        sleep(Duration::from_millis(1));
    }
}

/// Where nodes live.
pub struct Cluster {
    dir: TempDir,
    addresses: BTreeMap<NodeId, SocketAddr>,
    pub configure: fn(&mut GroupsConfig),
}

/// A node that runs.
pub struct Node {
    id: NodeId,
    registry: Registry,
    peers: Peers,
    groups: Option<Groups>,
    sink: Arc<Recorder>,
    runtime: Option<Runtime>,
}

/// Counts what the groups tell.
#[derive(Default)]
pub struct Recorder {
    effects: AtomicUsize,
    last: Mutex<BTreeMap<ShardId, u64>>,
}

impl Sink for Recorder {
    fn applied(&self, shard: ShardId, index: u64, effects: Vec<Effect>) {
        self.effects.fetch_add(effects.len(), Ordering::Relaxed);
        let before = self.last.lock().unwrap().insert(shard, index);
        assert!(before < Some(index), "applied {index} after {before:?}");
    }

    fn role(&self, _: ShardId, _: Role) {}
}

impl Cluster {
    pub fn new(nodes: u64) -> Self {
        static LOG: Once = Once::new();
        LOG.call_once(|| {
            tracing_subscriber::fmt()
                .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
                .with_test_writer()
                .init();
        });
        // All ports are held at once, so that no two nodes get the same.
        let free: Vec<TcpListener> =
            (0..nodes).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses = (1..=nodes)
            .map(NodeId)
            .zip(free.iter().map(|listener| listener.local_addr().unwrap()))
            .collect();
        Self { dir: TempDir::new().unwrap(), addresses, configure: |_| {} }
    }

    pub fn voters(&self) -> BTreeMap<NodeId, String> {
        self.addresses.iter().map(|(node, address)| (*node, address.to_string())).collect()
    }

    pub fn dir_of(&self, node: NodeId) -> PathBuf {
        self.dir.path().join(node.to_string())
    }

    pub fn start(&self, id: NodeId) -> Node {
        static STARTS: AtomicU64 = AtomicU64::new(1);
        let incarnation = Incarnation(STARTS.fetch_add(1, Ordering::Relaxed));
        let registry = Registry::new();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let inside = runtime.enter();
        let config = WireConfig {
            node: id,
            incarnation,
            cluster: 7,
            store: u128::from(id.0),
            program: moorline_core::level::Program::this(),
            peers: self.voters(),
            tls: None,
        };
        let peers = Peers::new(config, &registry).unwrap();
        let dir = self.dir_of(id);
        let clock: Clock = Arc::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            UnixMillis(u64::try_from(since.as_millis()).unwrap())
        });
        let mut config = GroupsConfig::new(id, dir.join("snap"), clock);
        (self.configure)(&mut config);
        let sink = Arc::new(Recorder::default());
        let disk = disk(&dir, &registry);
        let groups =
            Groups::start(config, disk, peers.clone(), Arc::clone(&sink) as _, &registry).unwrap();
        let address = self.addresses[&id];
        let listener = within(DEADLINE, "its port to be free", || TcpListener::bind(address).ok());
        peers.start(listener).unwrap();
        drop(inside);
        Node { id, registry, peers, groups: Some(groups), sink, runtime: Some(runtime) }
    }

    /// A copy of the disk of a node that does not run.
    pub fn keep_disk(&self, node: NodeId) -> PathBuf {
        let kept = self.dir.path().join(format!("kept-{node}"));
        copy(&self.dir_of(node), &kept);
        kept
    }

    /// The disk of a node that does not run.
    pub fn disk(&self, node: NodeId) -> Disk {
        disk(&self.dir_of(node), &Registry::new())
    }

    /// As if the state's directory had been deleted.
    pub fn remove_rows(&self, node: NodeId) {
        std::fs::remove_dir_all(self.dir_of(node).join("state")).unwrap();
    }

    pub fn put_back(&self, node: NodeId, kept: &Path) {
        std::fs::remove_dir_all(self.dir_of(node)).unwrap();
        copy(kept, &self.dir_of(node));
    }
}

fn disk(dir: &Path, registry: &Registry) -> Disk {
    std::fs::create_dir_all(dir).unwrap();
    let store = within(GONE_WITHIN, "the state to be free", || {
        let config = StoreConfig::default();
        RocksStore::open(&dir.join("state"), Create::IfMissing, &config, abort(), registry).ok()
    });
    let log = within(GONE_WITHIN, "the log to be free", || {
        let config = LogConfig::default();
        RocksLog::open(&dir.join("raftlog"), Create::IfMissing, &config, abort(), registry).ok()
    });
    Disk { store: Arc::new(store), log: Arc::new(log) }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Node {
    pub fn id(&self) -> NodeId {
        self.id
    }

    pub fn groups(&self) -> &Groups {
        self.groups.as_ref().unwrap()
    }

    /// Deletes a closed replica. What is applied of it begins anew.
    pub fn delete(&self, shard: ShardId) -> Result<bool, GroupError> {
        let deleted = self.on(self.groups().delete(shard));
        if matches!(deleted, Ok(true)) {
            self.sink.last.lock().unwrap().remove(&shard);
        }
        deleted
    }

    /// Runs a future on this node, with a deadline.
    pub fn on<T>(&self, future: impl Future<Output = T>) -> T {
        let runtime = self.runtime.as_ref().unwrap();
        runtime.block_on(async { timeout(DEADLINE, future).await }).expect("done in time")
    }

    pub fn open(&self, shard: ShardId) -> Result<(), GroupError> {
        self.on(self.groups().open(shard))
    }

    pub fn initialize(&self, shard: ShardId, cluster: &Cluster) -> Result<(), GroupError> {
        self.on(self.groups().initialize(shard, cluster.voters()))
    }

    pub fn role(&self, shard: ShardId) -> Role {
        self.groups().role(shard).map(|role| *role.borrow()).unwrap_or_default()
    }

    /// What is applied, and the digest of the rows as of then.
    pub fn digest(&self, shard: ShardId) -> Option<(u64, u128)> {
        let applied = self.groups().applied(shard)?;
        let before = *applied.borrow();
        let digest = self.groups().read(shard, |machine, rows| machine.digest(rows).unwrap())?;
        (before == *applied.borrow()).then_some((before, digest))
    }

    pub fn effects(&self) -> usize {
        self.sink.effects.load(Ordering::Relaxed)
    }

    pub fn wait_ready(&self, shard: ShardId) -> bool {
        self.on(self.groups().wait_ready(shard, DEADLINE))
    }

    pub fn barrier(&self, shard: ShardId) -> Result<u64, BarrierError> {
        self.on(self.groups().barrier(shard))
    }

    pub fn checkpoint(&self) {
        self.on(self.groups().checkpoint());
    }

    /// Begins one, and waits no longer than until it waits.
    pub fn abandon_checkpoint(&self) {
        let groups = self.groups();
        self.on(async {
            tokio::select! {
                biased;
                () = groups.checkpoint() => {}
                () = std::future::ready(()) => {}
            }
        });
    }

    pub fn hand_over(&self, deadline: Duration) {
        self.on(self.groups().hand_over(deadline));
    }

    pub fn propose(&self, shard: ShardId, run: Run) -> Result<RunAnswers, ProposeError> {
        let (answer, answered) = oneshot::channel();
        self.groups().propose(shard, run, move |result| drop(answer.send(result)));
        self.on(answered).expect("every reply is called")
    }

    /// Closes the connections to another node, and makes none.
    pub fn cut_off(&self, from: NodeId, cluster: &Cluster) {
        let mut peers = cluster.voters();
        peers.remove(&from);
        self.peers.update_peers(peers);
    }

    /// Connects to all nodes again.
    pub fn reconnect(&self, cluster: &Cluster) {
        let runtime = self.runtime.as_ref().unwrap();
        let _inside = runtime.enter();
        self.peers.update_peers(cluster.voters());
    }

    /// The bytes of snapshots that were sent from here.
    pub fn snapshot_bytes_sent(&self) -> u64 {
        let families = self.registry.gather();
        let family =
            families.iter().find(|family| family.name() == "moorline_snapshot_bytes_total");
        let sent = family
            .into_iter()
            .flat_map(|family| family.get_metric())
            .filter(|metric| metric.get_label().iter().any(|label| label.value() == "sent"));
        sent.map(|metric| metric.get_counter().get_value() as u64).sum()
    }

    /// The value of a counter or gauge without labels.
    pub fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).expect("it exists");
        let metric = &family.get_metric()[0];
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }

    /// The process is gone from one moment to the next: rows in memory are lost, connections end, the port refuses.
    pub fn kill(mut self) {
        drop(self.groups.take());
        self.runtime.take().unwrap().shutdown_timeout(GONE_WITHIN);
    }

    /// Stops as a process does on SIGTERM, after handing over.
    pub fn stop(mut self) {
        let groups = self.groups.take().unwrap();
        self.on(groups.stop());
        self.on(self.peers.stop(Duration::from_secs(2)));
        self.runtime.take().unwrap().shutdown_timeout(GONE_WITHIN);
    }
}

/// `count` commands from `first_seq` on: a session is opened, subscribes, and is published to.
pub fn run(producer: u64, first_seq: u64, count: u16, payload: &Bytes) -> Run {
    let mut builder = RunBuilder::new(ProducerId(producer), first_seq);
    for seq in first_seq..first_seq + u64::from(count) {
        builder.push(&command(seq, payload)).unwrap();
    }
    builder.take(first_seq).unwrap()
}

fn command(seq: u64, payload: &Bytes) -> Command {
    match seq {
        1 => Command::OpenSession {
            tenant: TENANT,
            client: CLIENT.into(),
            clean_start: false,
            expiry_s: 3600,
            holder: Holder { node: NodeId(1), incarnation: Incarnation(1), conn: ConnId(1) },
            limits: moorline_core::port::SessionLimits::none(),
            sessions_max: u32::MAX,
            will: None,
        },
        2 => Command::Subscribe {
            session: session(),
            epoch: Epoch(1),
            subscriptions: vec![Subscription {
                filter: "t/#".into(),
                options: SubscriptionOptions::of_qos(QoS::AtLeastOnce),
            }],
        },
        _ => Command::Publish { tenant: TENANT, from: None, message: message(payload) },
    }
}

pub fn session() -> SessionId {
    SessionId { bucket: shard::bucket_of(TENANT, CLIENT.as_bytes()), number: 1 }
}

pub fn message(payload: &Bytes) -> Message {
    Message {
        topic: "t/a".into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Bytes::new(),
        expires_at: None,
        payload: payload.clone(),
    }
}

/// Proposes in sequence and repeats what was not answered, as the router does.
pub struct Producer {
    id: u64,
    next: u64,
    payload: Bytes,
}

impl Producer {
    pub fn new(id: u64) -> Self {
        Self { id, next: 1, payload: Bytes::from_static(b"twenty-five bytes of it..") }
    }

    /// What it publishes from now on is so long, and looks random.
    pub fn payload_of(&mut self, bytes: usize) {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()[0]
        };
        self.payload = (0..bytes).map(|_| next()).collect();
    }

    pub fn answered(&self) -> u64 {
        self.next - 1
    }

    /// Sends `count` commands to whoever leads, until they are answered.
    pub fn publish(&mut self, nodes: &[Node], shard: ShardId, count: u16) {
        let run = run(self.id, self.next, count, &self.payload);
        let answers = within(DEADLINE, "an answer", || {
            let leader = nodes.iter().find(|node| node.role(shard).leading)?;
            leader.propose(shard, run.clone()).ok()
        });
        assert_eq!(answers.answers.len(), usize::from(count));
        for answer in &answers.answers {
            let well = matches!(
                answer,
                Answer::Opened { .. } | Answer::Subscribed { .. } | Answer::Published { .. }
            );
            assert!(well, "{answer:?}");
        }
        self.next += u64::from(count);
    }
}
