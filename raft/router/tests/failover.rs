//! The router over real groups: three nodes in one process, each with its own runtime and disk. The leader is killed
//! under load, and every command counts once, in order.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use moorline_core::{
    ConnId, Incarnation, Message, NodeId, QoS, ShardId, SubscriptionOptions, TenantId, UnixMillis,
};
use moorline_group::{
    Clock, Disk, Groups, GroupsConfig, Role, Sink,
    wire::{Peers, WireConfig},
};
use moorline_machine::{
    Answer, Command, Effect,
    command::{Holder, SessionId, Subscription},
};
use moorline_router::{Answered, At, Done, Outcome, Router, RouterConfig};
use moorline_storage_rocks::{Create, LogConfig, RocksLog, RocksStore, StoreConfig, abort};
use prometheus::Registry;
use tempfile::TempDir;
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

/// Nothing takes longer here, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const SHARD: ShardId = ShardId(1);
const TENANT: TenantId = TenantId(1);

struct Node {
    id: NodeId,
    groups: Groups,
    router: Router,
    runtime: Runtime,
}

/// Nobody listens to what was applied.
struct Deaf;

impl Sink for Deaf {
    fn applied(&self, _: ShardId, _: u64, _: Vec<Effect>) {}
    fn role(&self, _: ShardId, _: Role) {}
}

fn start(dir: &TempDir, id: u64, listener: TcpListener, peers: BTreeMap<NodeId, String>) -> Node {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let inside = runtime.enter();
    let registry = Registry::new();
    let (node, dir) = (NodeId(id), dir.path().join(id.to_string()));
    std::fs::create_dir_all(&dir).unwrap();
    let wire = WireConfig {
        node,
        incarnation: Incarnation(id),
        cluster: 7,
        store: id.into(),
        program: moorline_core::level::Program::this(),
        peers,
        tls: None,
    };
    let peers = Peers::new(wire, &registry).unwrap();
    let clock: Clock = Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        UnixMillis(u64::try_from(since.as_millis()).unwrap())
    });
    let create = Create::IfMissing;
    let (state, log) = (StoreConfig::default(), LogConfig::default());
    let state = RocksStore::open(&dir.join("state"), create, &state, abort(), &registry).unwrap();
    let log = RocksLog::open(&dir.join("raftlog"), create, &log, abort(), &registry).unwrap();
    let disk = Disk { store: Arc::new(state), log: Arc::new(log) };
    let config = GroupsConfig::new(node, dir.join("snap"), clock);
    let groups = Groups::start(config, disk, peers.clone(), Arc::new(Deaf), &registry).unwrap();
    let last = AtomicU64::new(id << 32);
    let producers = Arc::new(move || last.fetch_add(1, Ordering::Relaxed));
    let config = RouterConfig { shards: vec![SHARD], producers };
    let router = Router::start(groups.clone(), peers.clone(), config, &registry).unwrap();
    peers.start(listener).unwrap();
    drop(inside);
    Node { id: node, groups, router, runtime }
}

/// Three nodes with one group, and who leads it.
fn cluster(dir: &TempDir) -> (Vec<Node>, NodeId) {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses: BTreeMap<_, _> = (1..)
        .zip(&listeners)
        .map(|(node, listener)| (NodeId(node), listener.local_addr().unwrap().to_string()))
        .collect();
    let nodes: Vec<_> = (1..)
        .zip(listeners)
        .map(|(id, listener)| start(dir, id, listener, addresses.clone()))
        .collect();
    std::thread::scope(|scope| {
        for node in &nodes {
            scope.spawn(|| node.on(node.groups.open(SHARD)).unwrap());
        }
    });
    nodes[0].on(nodes[0].groups.initialize(SHARD, addresses)).unwrap();
    let mut leaders = nodes[0].router.leaders();
    let known = nodes[0].on(async {
        let known = |leaders: &moorline_router::Leaders| leaders.get(&SHARD)?.node;
        let leaders = leaders.wait_for(|leaders| known(leaders).is_some()).await.unwrap();
        known(&leaders).unwrap()
    });
    (nodes, known)
}

impl Node {
    fn on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { timeout(PATIENCE, future).await }).expect("done in time")
    }

    /// A session that is subscribed to everything below `t/`.
    fn subscribe(&self) -> SessionId {
        let holder = Holder { node: self.id, incarnation: Incarnation(1), conn: ConnId(1) };
        let open = Command::OpenSession {
            tenant: TENANT,
            client: "client".into(),
            clean_start: false,
            expiry_s: 3600,
            holder,
            limits: moorline_core::port::SessionLimits::none(),
            sessions_max: u32::MAX,
            will: None,
        };
        let opened = self.on(self.router.ask(SHARD, &open)).unwrap();
        let Answer::Opened { session, epoch, .. } = opened else { panic!("{opened:?}") };
        let subscriptions = vec![Subscription {
            filter: "t/#".into(),
            options: SubscriptionOptions::of_qos(QoS::AtLeastOnce),
        }];
        let subscribe = Command::Subscribe { session, epoch, subscriptions };
        let subscribed = self.on(self.router.ask(SHARD, &subscribe)).unwrap();
        assert!(matches!(subscribed, Answer::Subscribed { .. }), "{subscribed:?}");
        session
    }

    /// The numbers that the session's queue holds, in its order.
    fn queued(&self, session: SessionId) -> Vec<u64> {
        let read = self.groups.read(SHARD, |machine, rows| {
            let info = machine.session(session).unwrap();
            let items = usize::try_from(info.tail.0).unwrap();
            machine.queue_read(rows, session, info.head, items, usize::MAX).unwrap()
        });
        let payloads = read.unwrap().into_iter().map(|delivery| delivery.message.payload.clone());
        payloads.map(|payload| u64::from_be_bytes(payload[..].try_into().unwrap())).collect()
    }
}

fn publish(number: u64) -> Command {
    let message = Message {
        topic: "t/a".into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Bytes::new(),
        expires_at: None,
        payload: Bytes::copy_from_slice(&number.to_be_bytes()),
    };
    Command::Publish { tenant: TENANT, from: None, message }
}

struct Listener(mpsc::SyncSender<(u64, Outcome)>);

impl Answered for Listener {
    fn answered(&self, token: u64, outcome: Outcome, _: At) {
        self.0.try_send((token, outcome)).unwrap();
    }
}

#[test]
fn a_killed_leader_loses_and_repeats_nothing() {
    const COMMANDS: u64 = 20_000;
    const KILL_AT: u64 = 5_000;
    const WINDOW: u64 = 256;
    let dir = TempDir::new().unwrap();
    let (mut nodes, leader) = cluster(&dir);
    let at = nodes.iter().position(|node| node.id == leader).unwrap();
    let (mut victim, mut killer) = (Some(nodes.remove(at)), None);
    let node = &nodes[0];
    let session = node.subscribe();

    let (sender, told) = mpsc::sync_channel(usize::try_from(COMMANDS).unwrap());
    let listener = Arc::new(Listener(sender));
    let (mut submitted, mut last, mut gap) = (0, Instant::now(), Duration::ZERO);
    for answered in 0..COMMANDS {
        while submitted < COMMANDS && submitted < answered + WINDOW {
            let done = Done::Token(listener.clone(), submitted);
            node.router.submit(SHARD, &publish(submitted), done);
            submitted += 1;
        }
        if answered == KILL_AT {
            let victim = victim.take().unwrap();
            drop((victim.groups, victim.router));
            let kill = || victim.runtime.shutdown_timeout(Duration::from_secs(10));
            killer = Some(std::thread::spawn(kill));
            last = Instant::now();
        }
        let (token, outcome) = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!((token, outcome), (answered, Ok(Answer::Published { sessions: 1 })));
        if answered >= KILL_AT {
            gap = gap.max(last.elapsed());
        }
        last = Instant::now();
    }
    println!("longest gap: {gap:?}");
    killer.unwrap().join().unwrap();
    for node in &nodes {
        let deadline = Instant::now() + PATIENCE;
        let mut queued = node.queued(session);
        while queued.len() < usize::try_from(COMMANDS).unwrap() {
            assert!(Instant::now() < deadline, "{} of the messages at {}", queued.len(), node.id);
            sleep(Duration::from_millis(5));
            queued = node.queued(session);
        }
        assert!(queued.into_iter().eq(0..COMMANDS), "once and in order at {}", node.id);
    }
}
