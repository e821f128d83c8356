//! `moorline server`: one node, put together.
//!
//! ```text
//!   disk ─► groups ─► router ─► service ─► edges            start, bottom up; each is ready before the next
//!   edges ─► service ─► leaderships handed over ─► groups ─► disk                      stop, top down
//! ```
//!
//! # Invariants
//!
//! - No client is accepted before this node's replicas are recovered and it holds a meta lease (peers that acknowledge
//!   before that lose messages even with fsync).
//! - Every task is owned by [`run_node`]'s `JoinSet`; one that ends with an error stops the node.

pub(crate) mod auth;
pub(crate) mod backed_up;
pub(crate) mod backup;
mod disk;
mod init;
pub(crate) mod join;
mod known;
mod levels;
mod members;
mod mover;
pub(crate) mod node;
mod reconcile;
mod reload;
mod repeats;
mod stale;
mod supervisor;
mod tls;
mod webhooks;

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use moorline_core::{
    Incarnation, NodeId, ShardId, TenantId,
    level::{FIRST, Program},
    port::Port,
};
use moorline_drogue::DrogueMetrics;
use moorline_edge::{Clock, Doorkeeper, Edge, EdgeMetrics, Listener, Speaks, Tls, Transport};
use moorline_fostrom::{Door, FostromMetrics, Moonlight, Mqtt};
use moorline_group::{
    CheckpointLimits, Groups, GroupsConfig,
    wire::{Peers, Refusal, RefusalReason, TlsFiles, WireConfig},
};
use moorline_http::{Http, Platform};
use moorline_losant::LosantMetrics;
use moorline_outward::{Outward, OutwardMetrics};
use moorline_router::{Router, RouterConfig};
use moorline_service::{
    Service, ServiceConfig,
    registry::{credential::password::Passwords, secrets::Secrets},
};
use moorline_storage_rocks::{
    LogConfig, StoreConfig, abort,
    disk::{Disk, Wanted},
    space::{Reserve, SpaceLimits},
};
use moorline_thingsboard::ThingsboardMetrics;
use moorline_watson::WatsonMetrics;
use moorline_webhooks::WebhookMetrics;
use prometheus::Registry;
use tokio::{
    io::AsyncReadExt,
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use self::{
    disk::{DiskState, Watch},
    mover::Mover,
    node::{Node, Parts},
    reconcile::Reconciler,
    reload::Reloading,
    tls::Certificates,
};
use crate::{admin, cli::ServerArgs, config::Config, logging, metrics::NodeMetrics};

/// Everybody's tenant, until there are credentials.
pub(crate) const DEMO_TENANT: TenantId = TenantId(1);
/// How long leaderships may take to move away at a stop.
const HAND_OVER_WAIT: Duration = Duration::from_secs(3);
/// How long what connections have said may take to end at a stop, besides the `drain-ms` that they have.
const DEVICES_STOP_WAIT: Duration = Duration::from_secs(3);
/// How long the connections between nodes may take to close.
const WIRE_STOP_WAIT: Duration = Duration::from_secs(1);
/// How often a node that waits for its lease looks again.
const LEASE_PAUSE: Duration = Duration::from_millis(20);
/// How long a pause is before "still waiting" is logged.
const WAITING_LOG: Duration = Duration::from_secs(10);

/// Runs a node until it is told to stop.
pub(crate) fn run(args: &ServerArgs) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    logging::start(&config.log, config.node.id);
    for (what, next) in config.left_open() {
        warn!(what, next, "open to strangers");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(run_node(config, args));
    // Not dropped: a read of standard input that is still waiting would be waited for.
    runtime.shutdown_background();
    if let Err(problem) = &result {
        error!(problem = format!("{problem:#}"), "the node stops");
    }
    result
}

/// A started node, bottom up.
struct Started {
    node: Arc<Node>,
    peers: Peers,
    groups: Groups,
    router: Router,
    service: Arc<Service>,
    /// Whom endpoints outside are asked through.
    outward: Outward,
    /// Holds the data directory's lock.
    _disk: Disk,
}

async fn run_node(config: Config, args: &ServerArgs) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let admin_socket = bind(config.listen.admin, "listen.admin").await?;
    let api_socket = match config.listen.api {
        Some(address) => Some(bind(address, "listen.api").await?),
        None => None,
    };
    // The one clock of this process: see `docs/decisions/011-log-time.md`.
    let clock = Clock::start();
    let left = CancellationToken::new();
    let started = start(&config, &args.config, clock, &stop, &left, &mut tasks).await?;

    let certificates = Certificates::prepare(&config)?;
    let (registry, peers) = (started.node.registry(), &started.peers);
    certificates.watch(registry, peers, &mut tasks, stop.child_token())?;
    let admin_stop = CancellationToken::new();
    // The API asks for tokens, not for certificates: a browser would trouble its user with the question.
    let secure = api_socket.zip(certificates.tls.as_ref().map(Tls::silent));
    let secure = secure.map(|(socket, tls)| (socket, Some(tls)));
    for (socket, tls) in [(admin_socket, None)].into_iter().chain(secure) {
        let served = admin::serve(socket, tls, Arc::clone(&started.node), admin_stop.clone());
        tasks.spawn(async move {
            served.await;
            Ok(())
        });
    }
    tasks.spawn(supervisor::tell(Arc::clone(&started.node), stop.child_token()));
    let devices = serve_devices(
        Arc::clone(&started.node),
        Arc::clone(&started.service),
        started.outward.clone(),
        clock,
        certificates.tls.clone(),
        stop.child_token(),
    );
    let left_alone = CancellationToken::new();
    let ends = left_alone.clone().drop_guard();
    tasks.spawn(async move {
        let _ends = ends;
        devices.await
    });

    let ends = Ends { stop: &stop, left: &left, with_stdin: args.stop_with_stdin };
    let result = wait_for_the_end(&ends, &mut tasks, &started, &certificates).await;
    stop_node(started, &stop, &left_alone).await;
    admin_stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        if let Err(problem) = ended.context("a task panicked").and_then(|ended| ended) {
            warn!(problem = format!("{problem:#}"), "while stopping");
        }
    }
    result
}

/// Opens the disk and starts every layer below the edges.
async fn start(
    config: &Config,
    file: &Path,
    clock: Clock,
    stop: &CancellationToken,
    left: &CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Started> {
    let registry = Registry::new();
    let metrics = NodeMetrics::register(&registry, config.node_id())?;
    let incarnation = Incarnation(rand::random());
    let disk = open_disk(config, &registry)?;
    let store = disk.identity.store;
    let cluster_socket = cluster_socket(config)?;
    let known_stores = config.node.data_dir.join("known.json");
    let known_addresses = config.node.data_dir.join(join::MEMBERS_FILE);
    let addresses = join::addresses(config, store, incarnation, &known_addresses).await?;
    let alone = addresses.len() == 1;
    let peers = Peers::new(wire_config(config, incarnation, store, addresses), &registry)?;
    peers.expect_stores(known::read(&known_stores)?);
    peers.set_level(known_level(&disk));

    let service = Service::new(service_config(config, clock, incarnation), &registry)?;
    let groups = Groups::start(
        groups_config(config, clock),
        moorline_group::Disk { store: disk.store.clone(), log: disk.log.clone() },
        peers.clone(),
        Arc::clone(&service) as Arc<dyn moorline_group::Sink>,
        &registry,
    )?;
    let router = Router::start(groups.clone(), peers.clone(), router_config(config), &registry)?;
    let disk_state = DiskState::new();
    let reloading = Reloading::new(file.to_owned(), config, &registry)?;
    let node = Arc::new(Node::new(Parts {
        config: config.clone(),
        reloading,
        store,
        incarnation,
        registry,
        metrics,
        peers: peers.clone(),
        groups: groups.clone(),
        router: router.clone(),
        disk: disk_state.clone(),
        secrets: secrets(config)?,
    }));
    let outward = OutwardMetrics::register(node.registry())?;
    let outward = Outward::new(config.outward.clone(), outward).context("outward")?;
    backup::register(&peers, &node);
    service.attach(groups.clone(), router.clone(), peers.clone(), node.record());
    peers.start(cluster_socket)?;
    node.set_service(Arc::clone(&service), outward.clone());

    info!(node = config.node.id, cluster = config.cluster.name, "opening the meta replica");
    groups.open(ShardId::META).await?;
    if alone {
        warn!("a cluster of one has no second copy: it survives a crash, not the loss of its disk");
    }
    let reconciler = Reconciler {
        node: Arc::clone(&node),
        peers: peers.clone(),
        known_stores,
        known_addresses,
        left: left.clone(),
    };
    tasks.spawn(reconciler.run(stop.child_token()));
    tasks.spawn(Mover { node: Arc::clone(&node) }.run(stop.child_token()));
    watch_disk(config, disk_state, &service, stop, tasks)?;
    tasks.spawn(repeats::forget_old(Arc::clone(&node), stop.child_token()));
    let webhooks = WebhookMetrics::register(node.registry())?;
    tasks.spawn(webhooks::run(Arc::clone(&node), webhooks, stop.child_token()));
    Ok(Started { node, peers, groups, router, service, outward, _disk: disk })
}

fn cluster_socket(config: &Config) -> anyhow::Result<std::net::TcpListener> {
    let socket = std::net::TcpListener::bind(config.listen.cluster)
        .with_context(|| format!("listen.cluster: cannot listen on {}", config.listen.cluster))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The level the cluster was at when this node last heard of it; 0 if it never did.
fn known_level(disk: &Disk) -> u16 {
    // A new directory is of the first level, whatever the cluster is at.
    if disk.identity.format > FIRST { disk.identity.format } else { 0 }
}

fn watch_disk(
    config: &Config,
    state: DiskState,
    service: &Arc<Service>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let limits = space_limits(config);
    let dir = config.node.data_dir.clone();
    let reserve = Reserve::hold(&dir, config.storage.reserve_mib << 20, &limits)?;
    let watch = Watch {
        dir,
        limits,
        reserve,
        state,
        service: Arc::clone(service),
        stop_node: stop.clone(),
    };
    let token = stop.child_token();
    tasks.spawn(async move {
        watch.run(token).await;
        Ok(())
    });
    Ok(())
}

/// In a data directory while a backup is put into it. What is there in part must not take part in a cluster.
pub(crate) const RESTORING: &str = "restoring";

pub(crate) fn open_disk(config: &Config, registry: &Registry) -> anyhow::Result<Disk> {
    if config.node.data_dir.join(RESTORING).exists() {
        bail!(
            "node.data-dir: {} is being restored, or a restore broke off: empty it, and restore again",
            config.node.data_dir.display()
        );
    }
    let disk = open_disk_for_restore(config, registry)?;
    config.cluster.fits(disk.identity.format)?;
    Ok(disk)
}

/// The same for who puts a backup there.
pub(crate) fn open_disk_for_restore(config: &Config, registry: &Registry) -> anyhow::Result<Disk> {
    let wanted = Wanted {
        cluster: cluster_id(&config.cluster.name),
        node: config.node_id(),
        shards: config.cluster.shards,
    };
    let opened = Disk::open(
        &config.node.data_dir,
        &wanted,
        rand::random(),
        &StoreConfig::default(),
        &LogConfig::default(),
        abort(),
        registry,
    );
    opened.with_context(|| format!("node.data-dir: {}", config.node.data_dir.display()))
}

/// Nodes know that they belong together by their cluster's name.
fn cluster_id(name: &str) -> u128 {
    xxhash_rust::xxh3::xxh3_128(name.as_bytes())
}

fn wire_config(
    config: &Config,
    incarnation: Incarnation,
    store: u128,
    peers: BTreeMap<NodeId, String>,
) -> WireConfig {
    WireConfig {
        node: config.node_id(),
        incarnation,
        cluster: cluster_id(&config.cluster.name),
        store,
        program: Program { levels: config.cluster.levels(), ..Program::this() },
        peers,
        tls: cluster_tls(config),
    }
}

fn cluster_tls(config: &Config) -> Option<TlsFiles> {
    config.cluster.tls.as_ref().map(|tls| TlsFiles {
        ca: tls.ca.clone(),
        certificate: tls.cert.clone(),
        key: tls.key.clone(),
        server_name: tls.domain.clone(),
    })
}

/// Reads the files that a configuration names, as a node does when it starts: what is wrong with them.
pub(crate) fn check_files(config: &Config) -> Vec<String> {
    let tls = config.tls.as_ref().map(|files| files.load().map(drop).context("tls"));
    let cluster = cluster_tls(config).map(|files| files.check().context("cluster.tls"));
    let key = Some(secrets(config).map(drop));
    let read = [tls, cluster, key].into_iter().flatten();
    read.filter_map(Result::err).map(|problem| format!("{problem:#}")).collect()
}

fn groups_config(config: &Config, clock: Clock) -> GroupsConfig {
    GroupsConfig {
        node: config.node_id(),
        timers: moorline_group::Timers::default(),
        batcher: moorline_group::BatcherLimits::default(),
        checkpoint: CheckpointLimits {
            bytes: usize::try_from(config.storage.checkpoint_mib << 20).unwrap_or(usize::MAX),
            every: Duration::from_secs(config.storage.checkpoint_s),
            keep_entries: config.storage.log_keep_entries,
            ..CheckpointLimits::default()
        },
        snapshots: moorline_group::SnapshotLimits::default(),
        staging: config.node.data_dir.join("staging"),
        clock: Arc::new(move || clock.wall()),
        fatal: Arc::new(fatal),
    }
}

fn router_config(config: &Config) -> RouterConfig {
    RouterConfig {
        shards: (0..=config.cluster.shards).map(ShardId).collect(),
        producers: Arc::new(rand::random),
    }
}

fn service_config(config: &Config, clock: Clock, incarnation: Incarnation) -> ServiceConfig {
    ServiceConfig {
        node: config.node_id(),
        incarnation,
        shards: moorline_core::shard::Shards::new(config.cluster.shards),
        clock: Arc::new(move || clock.wall()),
        deliveries_per_tenant_s: config.mqtt.deliveries_per_tenant_s,
        remembered: config.explain.into(),
        fatal: Arc::new(fatal),
    }
}

/// The cluster's key, if the configuration says where it is.
fn secrets(config: &Config) -> anyhow::Result<Option<Secrets>> {
    let Some(file) = &config.security.key_file else { return Ok(None) };
    let read = Secrets::load(file);
    read.map(Some).with_context(|| format!("security.key-file: {}", file.display()))
}

fn space_limits(config: &Config) -> SpaceLimits {
    SpaceLimits {
        low_bytes: config.storage.low_mib << 20,
        critical_bytes: config.storage.critical_mib << 20,
        ..SpaceLimits::default()
    }
}

/// This node's memory or disk can't be trusted, or the cluster does not want it: nothing may be said any more.
fn fatal(why: &str) {
    error!(why, "this node cannot go on");
    std::process::abort();
}

async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{key}: cannot listen on {address}"))
}

/// What listens here, for clients that ask.
fn endpoints(config: &Config) -> moorline_drogue::Endpoints {
    let listen = &config.listen;
    let port = |address: Option<SocketAddr>| address.map(|address| address.port());
    let secure = port(listen.wss.or(listen.https)).map(|port| (port, true));
    moorline_drogue::Endpoints {
        mqtt: port(listen.mqtts.or(listen.mqtt)),
        websocket: secure.or(port(listen.ws.or(listen.http)).map(|port| (port, false))),
    }
}

/// Where devices of each platform are let in; none where no secret can be checked.
struct Doors {
    fostrom: Option<Door>,
    watson: Option<moorline_watson::Door>,
    thingsboard: Option<moorline_thingsboard::Door>,
    losant: Option<moorline_losant::Door>,
    drogue: Option<moorline_drogue::Door>,
    /// Who failed too often. Bans outlast a pause of this node, and MQTT's are HTTP's.
    banned: Doorkeeper,
}

impl Doors {
    fn open(
        node: &Node,
        service: &Arc<Service>,
        clock: Clock,
        outward: Outward,
    ) -> anyhow::Result<Self> {
        let registry = node.registry();
        let fostrom = FostromMetrics::register(registry)?;
        let watson = WatsonMetrics::register(registry)?;
        let thingsboard = ThingsboardMetrics::register(registry)?;
        let losant = LosantMetrics::register(registry)?;
        let drogue = DrogueMetrics::register(registry)?;
        let mut doors = Self {
            fostrom: None,
            watson: None,
            thingsboard: None,
            losant: None,
            drogue: None,
            banned: Doorkeeper::default(),
        };
        if let Some(secrets) = node.secrets() {
            let (of, key) = (|| service.registry(), || secrets.clone());
            let now = || node.reloading().settings();
            doors.fostrom = Some(Door::new(of(), key(), clock, now(), fostrom));
            doors.watson = Some(moorline_watson::Door::new(of(), key(), clock, now(), watson));
            let door = moorline_thingsboard::Door::new(of(), key(), clock, now(), thingsboard);
            doors.thingsboard = Some(door);
            let service = Arc::clone(service);
            let of_losant = Arc::clone(&service);
            let door = moorline_losant::Door::new(of_losant, key(), clock, now(), losant);
            doors.losant = Some(door);
            let banned = doors.banned.clone();
            let door =
                moorline_drogue::Door::new(service, key(), clock, now(), drogue, banned, outward);
            doors.drogue = Some(door);
        }
        Ok(doors)
    }

    /// Waits until what connections have said is written, where that goes on behind them.
    async fn stop(&self) {
        let drogue = async {
            if let Some(drogue) = &self.drogue {
                drogue.stop().await;
            }
        };
        let losant = async {
            if let Some(losant) = &self.losant {
                losant.stop().await;
            }
        };
        tokio::join!(drogue, losant);
    }

    /// What is spoken over HTTP, in the order in which paths are offered.
    fn platforms(&self, node: &Node, service: &Arc<Service>) -> Vec<Arc<dyn Platform>> {
        let mut platforms: Vec<Arc<dyn Platform>> = Vec::new();
        let banned = || self.banned.clone();
        platforms.extend(self.watson.clone().map(|door| {
            Arc::new(moorline_watson::Http::new(door, Arc::clone(service), banned())) as _
        }));
        let endpoints = endpoints(node.config());
        let drogue = self.drogue.clone();
        platforms
            .extend(drogue.map(|door| Arc::new(moorline_drogue::Http::new(door, endpoints)) as _));
        if let Some((door, secrets)) = self.thingsboard.as_ref().zip(node.secrets()) {
            platforms.extend(moorline_thingsboard::platforms(door, secrets, &self.banned));
        }
        let losant = self.losant.clone();
        platforms
            .extend(losant.map(|door| Arc::new(moorline_losant::Http::new(door, banned())) as _));
        // To which any path of a WebSocket may belong: behind those who name theirs.
        let drogue = self.drogue.clone();
        platforms.extend(drogue.map(|door| Arc::new(moorline_drogue::Sockets::new(door)) as _));
        platforms
    }

    /// Who judges clients of MQTT.
    fn devices(&self, node: &Node, service: &Arc<Service>) -> auth::Devices {
        let service = Arc::clone(service);
        auth::Devices {
            registry: service.registry(),
            secrets: node.secrets().cloned(),
            fostrom: self.fostrom.clone().map(Mqtt::new),
            losant: self.losant.clone().map(moorline_losant::Mqtt::new),
            thingsboard: self.thingsboard.clone().map(moorline_thingsboard::Mqtt::new),
            drogue: self.drogue.clone().map(moorline_drogue::Mqtt::new),
            watson: self.watson.clone().map(|door| moorline_watson::Mqtt::new(door, service)),
            tasks: TaskTracker::new(),
            anonymous: node.config().security.lets_anybody_in().then_some(DEMO_TENANT),
            doors: self.banned.clone(),
        }
    }
}

/// Serves devices whenever this node may, until told to stop.
async fn serve_devices(
    node: Arc<Node>,
    service: Arc<Service>,
    outward: Outward,
    clock: Clock,
    tls: Option<Tls>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let metrics = EdgeMetrics::register(node.registry())?;
    match node.secrets() {
        Some(secrets) => secrets.passwords().register(node.registry())?,
        // It checks none, and says so.
        None => Passwords::new([0; 32], [0; 32]).register(node.registry())?,
    }
    let doors = Doors::open(&node, &service, clock, outward)?;
    let platforms = doors.platforms(&node, &service);
    let others =
        doors.fostrom.clone().map_or_else(Others::default, |door| Others::new(door, platforms));
    let mut draining = node.draining();
    while wait_until_served(&node, &stop).await {
        let port: Arc<dyn Port> = Arc::clone(&service) as _;
        let devices = auth::ByRegistry(Arc::new(doors.devices(&node, &service)));
        let tls = match &tls {
            Some(tls) if node.secrets().is_some() => {
                Some(tls.with_psk(Arc::new(devices.clone())).context("tls")?)
            }
            tls => tls.clone(),
        };
        let settings = node.reloading().settings();
        let edge = Edge::new(settings, port, Arc::new(devices), metrics.clone(), clock);
        let serving = stop.child_token();
        let mut listeners = listen(node.config(), &edge, tls.as_ref(), &others, &serving)?;
        node.set_listening(true);
        let ended = tokio::select! {
            ended = listeners.join_next() => ended,
            _ = draining.wait_for(|draining| *draining) => None,
        };
        if let Some(ended) = ended {
            ended.context("a listener panicked")?;
            let result = joined(listeners).await;
            doors.stop().await;
            return result;
        }
        info!("clients are told to go elsewhere");
        node.set_listening(false);
        service.stop();
        serving.cancel();
        joined(listeners).await?;
    }
    Ok(())
}

/// Listens wherever the configuration says.
fn listen(
    config: &Config,
    edge: &Edge,
    tls: Option<&Tls>,
    others: &Others,
    stop: &CancellationToken,
) -> anyhow::Result<JoinSet<()>> {
    let mut listeners = JoinSet::new();
    for (address, transport) in transports(config, tls, others) {
        let name = transport.name();
        let listener = Listener::bind(address, transport, edge)
            .with_context(|| format!("listen.{name}: cannot listen on {address}"))?;
        info!(%address, listener = name, "devices may connect");
        listeners.spawn(listener.run(stop.clone()));
    }
    Ok(listeners)
}

/// Waits for the end of all listeners.
async fn joined(mut listeners: JoinSet<()>) -> anyhow::Result<()> {
    while let Some(ended) = listeners.join_next().await {
        ended.context("a listener panicked")?;
    }
    Ok(())
}

/// Waits until this node may serve; false if it is told to stop before.
async fn wait_until_served(node: &Node, stop: &CancellationToken) -> bool {
    let mut waited = Duration::ZERO;
    loop {
        let waiting: Vec<_> = node.prerequisites().into_iter().filter(|check| !check.ok).collect();
        if waiting.is_empty() {
            return true;
        }
        if waited.as_millis().is_multiple_of(WAITING_LOG.as_millis()) {
            let reasons: Vec<_> = waiting.iter().map(|check| check.detail.as_str()).collect();
            info!(reasons = reasons.join("; "), "not ready");
        }
        waited += LEASE_PAUSE;
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(LEASE_PAUSE) => {}
        }
    }
}

/// What is spoken besides MQTT.
#[derive(Clone, Default)]
struct Others {
    http: Option<Arc<dyn Speaks>>,
    moonlight: Option<Arc<dyn Speaks>>,
}

impl Others {
    /// Fostrom is asked last over HTTP: it has the paths that nobody else claims.
    fn new(door: Door, mut platforms: Vec<Arc<dyn Platform>>) -> Self {
        platforms.push(Arc::new(moorline_fostrom::Http::new(door.clone())));
        let http = Http::new(platforms);
        Self { http: Some(Arc::new(http)), moonlight: Some(Arc::new(Moonlight::new(door))) }
    }
}

/// Where to listen, and what is spoken there.
fn transports(config: &Config, tls: Option<&Tls>, others: &Others) -> Vec<(SocketAddr, Transport)> {
    let tls = tls.cloned();
    let (listen, ws) = (&config.listen, Some(config.ws.clone()));
    let Others { http, moonlight } = others.clone();
    let none = Transport::default;
    let mut all = [
        (listen.mqtt, none()),
        (listen.ws, Transport { ws: ws.clone(), ..none() }),
        (listen.mqtts, Transport { tls: tls.clone(), ..none() }),
        (listen.wss, Transport { tls: tls.clone(), ws: ws.clone(), ..none() }),
        (listen.http, Transport { ws: ws.clone(), other: http.clone(), ..none() }),
        (
            listen.https,
            Transport { tls: tls.clone(), ws: ws.clone(), other: http.clone(), ..none() },
        ),
    ];
    if listen.mixed {
        for (_, transport) in &mut all {
            transport.mixed = Some(transport.name());
            (transport.ws, transport.other) = (ws.clone(), http.clone());
        }
    }
    let alone = [
        (listen.moonlight, Transport { other: moonlight.clone(), ..none() }),
        (listen.moonlights, Transport { tls, other: moonlight, ..none() }),
    ];
    let all = all.into_iter().chain(alone);
    all.filter_map(|(address, transport)| Some((address?, transport))).collect()
}

/// What ends a node, besides signals.
struct Ends<'a> {
    stop: &'a CancellationToken,
    left: &'a CancellationToken,
    with_stdin: bool,
}

/// Waits for a signal, the end of standard input, or a task that ends with an error.
async fn wait_for_the_end(
    ends: &Ends<'_>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
    started: &Started,
    certificates: &Certificates,
) -> anyhow::Result<()> {
    let Ends { stop, left, with_stdin } = *ends;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut refusals = started.peers.refusals();
    // One that came while the node started counts too.
    refusals.mark_changed();
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hang_up.recv() => {
                certificates.reload();
                // Whoever sent it reads the log.
                drop(started.node.reload());
            }
            () = stdin_closed(), if with_stdin => return Ok(()),
            () = left.cancelled() => return Ok(()),
            () = stop.cancelled() => bail!("the node stopped itself"),
            Ok(()) = refusals.changed() => {
                let refusal = *refusals.borrow_and_update();
                if let Some(refusal) = refusal.filter(is_final) {
                    // The others may say it before the meta group gets to.
                    if refusal.reason == RefusalReason::Removed && started.node.is_leaving() {
                        info!("this node has left the cluster");
                        return Ok(());
                    }
                    if refusal.reason == RefusalReason::Level {
                        let levels = started.node.levels();
                        bail!("{refusal}; this one knows {levels}: see docs/upgrades.md");
                    }
                    bail!("{refusal}; if this node's disk was replaced, give it a new id");
                }
            }
            Some(ended) = tasks.join_next() => {
                ended.context("a task panicked")??;
            }
        }
    }
}

/// Whether waiting would not help: the cluster knows this node's id with another data directory, or not any more.
fn is_final(refusal: &Refusal) -> bool {
    refusal.by_peer
        && matches!(
            refusal.reason,
            RefusalReason::Store | RefusalReason::Removed | RefusalReason::Level
        )
}

async fn stdin_closed() {
    let mut byte = [0];
    while matches!(tokio::io::stdin().read(&mut byte).await, Ok(1..)) {}
}

/// Top down: clients first, then leaderships, then the replicas. `left_alone`: no client is here any more, and what they said is written.
async fn stop_node(started: Started, stop: &CancellationToken, left_alone: &CancellationToken) {
    info!("stopping");
    supervisor::stopping();
    started.node.set_stopping();
    started.service.stop();
    stop.cancel();
    let hand_over = started.groups.hand_over(HAND_OVER_WAIT);
    // As it is now: listeners go by that, too.
    let drain = started.node.reloading().running().mqtt.drain_ms;
    let drain = Duration::from_millis(drain);
    let devices = tokio::time::timeout(drain + DEVICES_STOP_WAIT, left_alone.cancelled());
    let ((), devices) = tokio::join!(hand_over, devices);
    if devices.is_err() {
        warn!("clients did not end in time");
    }
    started.router.stop().await;
    started.service.end().await;
    started.peers.stop(WIRE_STOP_WAIT).await;
    started.groups.stop().await;
}
