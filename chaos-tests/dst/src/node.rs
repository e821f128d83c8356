//! One process: the real wire, groups, router, service and edge over a simulated network and disk, and clients inside it that
//! ask one group directly.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use moorline_core::{Incarnation, NodeId, ShardId, Text, shard::Shards};
use moorline_edge::Clock as EdgeClock;
use moorline_explain::Limits;
use moorline_group::{
    CheckpointLimits, Clock, Disk, Fatal, GroupError, Groups, GroupsConfig,
    wire::{Peers, WireConfig},
};
use moorline_machine::{Answer, Command, command::NodeRecord};
use moorline_router::{Router, RouterConfig};
use moorline_service::{Service, ServiceConfig};
use prometheus::Registry;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use crate::{
    client,
    disk::{LogFile, SimLog, SimRows, Switches},
    door::Door,
    ear::Ear,
    mutant::Mutant,
    net::{self, Dialer, Ground},
    os,
    placement::Placement,
    witness::{Event, Witness},
};

/// Shards beside the meta group.
pub(crate) const SHARDS: u16 = 2;
/// The group that clients inside of processes ask directly.
pub(crate) const SHARD: ShardId = ShardId(1);
/// Before something that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How many have it.
pub(crate) const VOTERS: u64 = 3;
/// Checkpoints are made this often, and little log is kept, so that replicas which were away need snapshots.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(2);

/// What all nodes share, and what the one who makes faults turns.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Of the run.
    pub(crate) seed: u64,
    /// How many nodes there are.
    pub(crate) nodes: u64,
    /// Who is to vote where.
    pub(crate) wishes: Mutex<BTreeMap<ShardId, Vec<NodeId>>>,
    /// What is broken on purpose.
    pub(crate) mutant: Option<Mutant>,
    /// Entries of log that are kept for those who lag.
    pub(crate) keep_entries: u64,
    /// What is cut.
    pub(crate) ground: Ground,
    /// Hears everything.
    pub(crate) witness: Witness,
    /// Where snapshots lie in transit.
    pub(crate) staging: PathBuf,
    /// Devices that have said once that they are subscribed.
    pub(crate) subscribed: AtomicU64,
    /// Whether the cluster was made.
    pub(crate) initialized: AtomicBool,
    /// Whether clients may send.
    pub(crate) sending: AtomicBool,
    /// The session that receives, by its row id, when it is open.
    pub(crate) session: Mutex<Option<moorline_machine::command::SessionId>>,
}

impl Cluster {
    /// Who is to vote where.
    pub(crate) fn wishes(&self) -> BTreeMap<ShardId, Vec<NodeId>> {
        self.wishes.lock().expect("no panic while it is locked").clone()
    }

    /// Who is to vote in a group.
    pub(crate) fn target(&self, shard: ShardId) -> BTreeSet<u64> {
        let wishes = self.wishes.lock().expect("no panic while it is locked");
        wishes.get(&shard).into_iter().flatten().map(|node| node.0).collect()
    }
}

/// What outlives the processes of a node.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Which node.
    pub(crate) id: u64,
    /// Its log.
    pub(crate) log: Arc<Mutex<LogFile>>,
    /// Its rows.
    pub(crate) rows: SimRows,
    /// What is done to its disk.
    pub(crate) switches: Arc<Switches>,
    /// How far its wall clock is off, in milliseconds.
    pub(crate) skew: i64,
    /// How many processes there were.
    pub(crate) processes: AtomicU64,
    /// The groups of the process that runs.
    running: Mutex<Option<Groups>>,
}

impl Machine {
    /// A new one.
    pub(crate) fn new(id: u64, skew: i64) -> Arc<Self> {
        Arc::new(Self {
            id,
            log: Arc::default(),
            rows: SimRows::default(),
            switches: Arc::default(),
            skew,
            processes: AtomicU64::new(0),
            running: Mutex::default(),
        })
    }

    /// The groups of the process that runs, if one does.
    pub(crate) fn groups(&self) -> Option<Groups> {
        self.running().clone()
    }

    /// The process is gone.
    pub(crate) fn stopped(&self) {
        *self.running() = None;
    }

    fn running(&self) -> MutexGuard<'_, Option<Groups>> {
        self.running.lock().expect("no panic while it is locked")
    }
}

/// The layers below the edge, as `node/moorline` starts them.
struct Layers {
    groups: Groups,
    router: Router,
    peers: Peers,
    service: Arc<Service>,
    registry: Registry,
    clock: EdgeClock,
}

impl Layers {
    /// All of them but the replicas.
    async fn start(
        cluster: &Arc<Cluster>,
        machine: &Machine,
        process: u64,
        log: Arc<SimLog>,
    ) -> anyhow::Result<Self> {
        let (node, witness) = (machine.id, cluster.witness.clone());
        os::set_wall_skew(machine.skew);
        let clock = EdgeClock::start();
        os::set_wall_skew(0);
        let registry = Registry::new();
        let peers = Peers::new(wire_config(cluster, node, process), &registry)?;
        let service = Service::new(service_config(cluster, node, process, clock), &registry)?;
        let applied = Mutex::default();
        let (ears, heard) = (Arc::clone(&service), Arc::clone(&log));
        let ear = Ear { node, process, log: heard, witness, service: ears, applied };
        let disk = Disk { store: Arc::new(machine.rows.clone()), log };
        let config = groups_config(cluster, machine, clock);
        let groups = Groups::start(config, disk, peers.clone(), Arc::new(ear), &registry)?;
        let last = AtomicU64::new(node << 48 | process << 32);
        let producers = Arc::new(move || last.fetch_add(1, Ordering::Relaxed));
        let router = RouterConfig { shards: all_groups().collect(), producers };
        let router = Router::start(groups.clone(), peers.clone(), router, &registry)?;
        let record = record(node, incarnation(node, process), u128::from(node));
        service.attach(groups.clone(), router.clone(), peers.clone(), record);
        let dialer = Dialer { from: node, ground: cluster.ground.clone() };
        peers.start_over(Arc::new(dialer), Box::new(net::Door::open().await?));
        Ok(Self { groups, router, peers, service, registry, clock })
    }
}

/// Runs until it is killed.
pub(crate) async fn run(cluster: Arc<Cluster>, machine: Arc<Machine>) -> turmoil::Result {
    let node = machine.id;
    let process = machine.processes.fetch_add(1, Ordering::Relaxed) + 1;
    let witness = cluster.witness.clone();
    witness.tell(Event::Started { node, process });
    let log = SimLog::open(
        node,
        Arc::clone(&machine.log),
        cluster.seed ^ (node << 32) ^ process,
        Arc::clone(&machine.switches),
        cluster.mutant,
        witness.clone(),
    );
    let Some(log) = log else {
        // As `storage/rocks`: what cannot be opened is not used any more.
        machine.switches.quarantined.store(true, Ordering::Relaxed);
        witness.tell(Event::Quarantined { node });
        return pending().await;
    };
    let tasks = TaskTracker::new();
    tasks.spawn(Arc::clone(&log).write());
    let layers = Layers::start(&cluster, &machine, process, log).await?;
    let Layers { groups, router, peers, service, registry, clock } = layers;
    let gave_up = |error| {
        witness.tell(Event::Fatal { node, why: chain(&error) });
        pending()
    };
    if let Err(error) = groups.open(ShardId::META).await {
        return gave_up(error).await;
    }
    *machine.running() = Some(groups.clone());
    if node == 1 && !cluster.initialized.swap(true, Ordering::Relaxed) {
        groups.initialize(ShardId::META, addresses(cluster.nodes)).await?;
        tasks.spawn(create(Arc::clone(&cluster), router.clone()));
    }
    let door = Door {
        groups: groups.clone(),
        service: Arc::clone(&service),
        registry,
        clock,
        tasks: tasks.clone(),
    };
    tasks.spawn(async move { door.serve().await.expect("a port of its own, and metrics, too") });
    let placement = Arc::new(Placement {
        cluster: Arc::clone(&cluster),
        node,
        groups: groups.clone(),
        peers,
        router: router.clone(),
        service,
    });
    let steering = Arc::clone(&placement);
    tasks.spawn(async move { steering.steer().await });
    let client = client::Client { cluster, groups, router, node, process, tasks: tasks.clone() };
    tasks.spawn(client.run());
    match placement.follow().await {
        Ok(()) => pending().await,
        Err(error) => gave_up(error).await,
    }
}

/// Makes the nodes a cluster, however often it has to be asked for.
async fn create(cluster: Arc<Cluster>, router: Router) {
    let nodes = (1..=cluster.nodes).map(|node| record(node, Incarnation(0), 0)).collect();
    let replicas = u8::try_from(VOTERS).expect("few");
    let command = Command::CreateCluster { cluster: 7, shards: SHARDS, nodes, replicas };
    while !matches!(
        router.ask(ShardId::META, &command).await,
        Ok(Answer::At(_) | Answer::Done | Answer::Refused(_))
    ) {
        sleep(RETRY_PAUSE).await;
    }
}

/// The meta group, and all shards.
pub(crate) fn all_groups() -> impl Iterator<Item = ShardId> {
    (0..=SHARDS).map(ShardId)
}

fn incarnation(node: u64, process: u64) -> Incarnation {
    Incarnation(process << 8 | node)
}

fn record(node: u64, incarnation: Incarnation, store: u128) -> NodeRecord {
    let address = format!("{}:{}", net::host(node), net::PORT);
    NodeRecord { node: NodeId(node), store, incarnation, address: Text::from(address.as_str()) }
}

fn service_config(cluster: &Cluster, node: u64, process: u64, clock: EdgeClock) -> ServiceConfig {
    let witness = cluster.witness.clone();
    ServiceConfig {
        node: NodeId(node),
        incarnation: incarnation(node, process),
        shards: Shards::new(SHARDS),
        clock: Arc::new(move || clock.wall()),
        deliveries_per_tenant_s: 0,
        remembered: Limits::default(),
        fatal: Arc::new(move |why| witness.tell(Event::Fatal { node, why: why.to_owned() })),
    }
}

fn chain(error: &GroupError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn addresses(nodes: u64) -> BTreeMap<NodeId, String> {
    (1..=nodes).map(|node| (NodeId(node), format!("{}:{}", net::host(node), net::PORT))).collect()
}

fn wire_config(cluster: &Cluster, node: u64, process: u64) -> WireConfig {
    WireConfig {
        node: NodeId(node),
        incarnation: incarnation(node, process),
        cluster: 7,
        store: u128::from(node),
        program: moorline_core::level::Program::this(),
        peers: addresses(cluster.nodes),
        tls: None,
    }
}

fn groups_config(cluster: &Cluster, machine: &Machine, clock: EdgeClock) -> GroupsConfig {
    let (node, witness) = (machine.id, cluster.witness.clone());
    let clock: Clock = Arc::new(move || clock.wall());
    let fatal: Fatal =
        Arc::new(move |why| witness.tell(Event::Fatal { node, why: why.to_owned() }));
    let staging = cluster.staging.join(node.to_string());
    let mut config = GroupsConfig::new(NodeId(node), staging, clock);
    config.fatal = fatal;
    config.checkpoint = CheckpointLimits {
        every: CHECKPOINT_EVERY,
        keep_entries: cluster.keep_entries,
        ..CheckpointLimits::default()
    };
    config
}
