//! One process: the real wire, groups and router over a simulated network and disk, and clients inside it.

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

use moorline_core::{Incarnation, NodeId, ShardId, UnixMillis};
use moorline_group::{
    CheckpointLimits, Clock, Disk, Fatal, GroupError, Groups, GroupsConfig, Role, Sink,
    wire::{Peers, WireConfig},
};
use moorline_machine::Effect;
use moorline_router::{Router, RouterConfig};
use moorline_storage::log::LogEngine;
use prometheus::Registry;
use tokio_util::task::TaskTracker;

use crate::{
    client,
    disk::{LogFile, SimLog, SimRows},
    members,
    mutant::Mutant,
    net::{self, Dialer, Door, Ground},
    os,
    witness::{Event, Witness},
};

/// The one group.
pub(crate) const SHARD: ShardId = ShardId(1);
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
    /// Who is to vote.
    pub(crate) target: Mutex<BTreeSet<u64>>,
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
    /// Whether the group was made.
    pub(crate) initialized: AtomicBool,
    /// Whether clients may send.
    pub(crate) sending: AtomicBool,
    /// The session that receives, by its row id, when it is open.
    pub(crate) session: Mutex<Option<moorline_machine::command::SessionId>>,
}

impl Cluster {
    /// Who is to vote.
    pub(crate) fn target(&self) -> BTreeSet<u64> {
        self.target.lock().expect("no panic while it is locked").clone()
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
    /// Milliseconds that its disk takes longer.
    pub(crate) stall: Arc<AtomicU64>,
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
            stall: Arc::default(),
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

/// Tells the witness what the groups of one process tell.
struct Ear {
    node: u64,
    process: u64,
    log: Arc<SimLog>,
    witness: Witness,
    applied: Mutex<BTreeMap<ShardId, u64>>,
}

impl Sink for Ear {
    fn applied(&self, shard: ShardId, index: u64, effects: Vec<Effect>) {
        let (node, process) = (self.node, self.process);
        let before = {
            let mut applied = self.applied.lock().expect("no panic while it is locked");
            applied.insert(shard, index)
        };
        for index in before.map_or(index, |before| before + 1)..=index {
            // The log engine counts from 1.
            if let Some(entry) = self.log.entry(shard, index + 1) {
                self.witness.tell(Event::Committed { node, shard, index, entry });
            }
        }
        self.witness.tell(Event::Applied { node, process, shard, index });
        for effect in effects {
            if let Effect::Digest { index, digest } = effect {
                self.witness.tell(Event::Digest { node, shard, index, digest });
            }
        }
    }

    fn role(&self, shard: ShardId, role: Role) {
        self.witness.tell(Event::Role { node: self.node, shard, role });
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
        Arc::clone(&machine.stall),
        cluster.mutant,
        witness.clone(),
    );
    let tasks = TaskTracker::new();
    tasks.spawn(Arc::clone(&log).write());

    let registry = Registry::new();
    let peers = Peers::new(wire_config(&cluster, node, process), &registry)?;
    let ear = Ear {
        node,
        process,
        log: Arc::clone(&log),
        witness: witness.clone(),
        applied: Mutex::default(),
    };
    let disk = Disk { store: Arc::new(machine.rows.clone()), log: log.clone() };
    let config = groups_config(&cluster, &machine);
    let groups = Groups::start(config, disk, peers.clone(), Arc::new(ear), &registry)?;
    let last = AtomicU64::new(node << 48 | process << 32);
    let producers = Arc::new(move || last.fetch_add(1, Ordering::Relaxed));
    let router = RouterConfig { shards: vec![SHARD], producers };
    let router = Router::start(groups.clone(), peers.clone(), router, &registry)?;
    let dialer = Dialer { from: node, ground: cluster.ground.clone() };
    peers.start_over(Arc::new(dialer), Box::new(Door::open().await?));

    let gave_up = |error| {
        witness.tell(Event::Fatal { node, why: chain(&error) });
        pending()
    };
    // Who has something of the group goes on with it, wanted or not.
    let wanted = log.bounds(SHARD)?.is_some() || cluster.target().contains(&node);
    if wanted && let Err(error) = groups.open(SHARD).await {
        return gave_up(error).await;
    }
    *machine.running() = Some(groups.clone());
    if node == 1 && !cluster.initialized.swap(true, Ordering::Relaxed) {
        groups.initialize(SHARD, addresses(VOTERS)).await?;
    }
    let following = members::follow(Arc::clone(&cluster), groups.clone(), node);
    let client = client::Client { cluster, groups, router, node, process, tasks: tasks.clone() };
    tasks.spawn(client.run());
    match following.await {
        Ok(()) => pending().await,
        Err(error) => gave_up(error).await,
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
        incarnation: Incarnation(process << 8 | node),
        cluster: 7,
        store: u128::from(node),
        peers: addresses(cluster.nodes),
        tls: None,
    }
}

fn groups_config(cluster: &Cluster, machine: &Machine) -> GroupsConfig {
    let (node, skew, witness) = (machine.id, machine.skew, cluster.witness.clone());
    let clock: Clock = Arc::new(move || {
        let now = u64::try_from((os::WALL_START + os::elapsed()).as_millis()).unwrap_or(u64::MAX);
        UnixMillis(now.saturating_add_signed(skew))
    });
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
