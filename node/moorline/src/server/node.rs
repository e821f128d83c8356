//! A running node as the admin API sees it: what it checks, shows and can be asked to do.

use std::{
    collections::BTreeMap,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use moorline_api::{Api, Imports};
use moorline_core::{
    Incarnation, NodeId, ShardId, Text,
    level::{Levels, Program},
    shard::Shards,
};
use moorline_group::{
    Groups,
    wire::{PeerState, Peers},
};
use moorline_machine::{Answer, Command, MemberState, command::NodeRecord};
use moorline_outward::Outward;
use moorline_router::Router;
use moorline_service::registry::secrets::Secrets;
use moorline_storage::StorageError;
use moorline_webhooks::Webhooks;
use prometheus::{Registry, proto::MetricFamily};
use serde::Serialize;
use tokio::sync::{Mutex, watch};

use super::{
    DEMO_TENANT, auth::now_ms, backup::Backups, disk::DiskState, mover, reload::Reloading,
};
use crate::{
    cluster::{ClusterView, GroupView, NodeView, ProgramView, SessionView, ShareView},
    config::Config,
    guarantees,
    metrics::NodeMetrics,
};

/// What a node says that knows of no cluster. It may be late alone: the words must not have a second cluster made beside a restored one.
const NOT_MADE: &str = "not made yet, or its first node (a restored one, say) is not here yet; a new cluster: run `moorline cluster init` on one node";
/// Shares in one answer: about 50 KiB.
const SHARES_PER_PAGE_MAX: usize = 200;
/// How long a group's Raft core may take to get to a question, if the node is to count as alive. It waits for its disk
/// at times; many times what a disk needs that works.
const TURN_WAIT: Duration = Duration::from_secs(5);
/// How long what groups were asked counts.
const TURNS_COUNT_FOR: Duration = Duration::from_secs(1);
/// How long a digest may take per group.
const DIGEST_WAIT: Duration = Duration::from_secs(10);

/// What this node is asked through. Made once; parts that come up later are filled in.
#[derive(Debug)]
pub(crate) struct Node {
    config: Config,
    reloading: Reloading,
    store: u128,
    incarnation: Incarnation,
    registry: Registry,
    metrics: NodeMetrics,
    peers: Peers,
    groups: Groups,
    router: Router,
    service: OnceLock<std::sync::Arc<moorline_service::Service>>,
    secrets: Option<Secrets>,
    api: OnceLock<(Api, axum::Router)>,
    disk: DiskState,
    backups: Backups,
    /// Whether every replica this node should have is open.
    opened: AtomicBool,
    /// When its groups were asked for a turn last, and what came of it.
    turns: Mutex<Option<(Instant, Vec<Check>)>>,
    /// Whether this process made the cluster, and has not seen it at its level yet.
    newborn: AtomicBool,
    listening: AtomicBool,
    /// Whether clients ever could connect.
    served: AtomicBool,
    stopping: AtomicBool,
    /// Whether clients are to go elsewhere.
    draining: watch::Sender<bool>,
}

/// One thing a health answer looked at.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    /// What.
    pub(crate) name: String,
    /// Whether it is as it should be.
    pub(crate) ok: bool,
    /// What it is.
    pub(crate) detail: String,
}

/// The digest of one group, as `POST /api/v1/cluster/digest` answers it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DigestView {
    shard: u16,
    index: u64,
    digest: String,
}

/// Parts of a node that exist before it has a service.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) reloading: Reloading,
    pub(crate) store: u128,
    pub(crate) incarnation: Incarnation,
    pub(crate) registry: Registry,
    pub(crate) metrics: NodeMetrics,
    pub(crate) peers: Peers,
    pub(crate) groups: Groups,
    pub(crate) router: Router,
    pub(crate) disk: DiskState,
    pub(crate) secrets: Option<Secrets>,
}

impl Node {
    /// Puts the parts together.
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            config,
            reloading,
            store,
            incarnation,
            registry,
            metrics,
            peers,
            groups,
            router,
            disk,
            secrets,
        } = parts;
        metrics.backups.keep_in(&config.node.data_dir);
        Self {
            config,
            reloading,
            store,
            incarnation,
            registry,
            metrics,
            peers,
            groups,
            router,
            service: OnceLock::new(),
            secrets,
            api: OnceLock::new(),
            disk,
            backups: Backups::default(),
            opened: AtomicBool::new(false),
            turns: Mutex::default(),
            newborn: AtomicBool::new(false),
            listening: AtomicBool::new(false),
            served: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            draining: watch::Sender::new(false),
        }
    }

    /// The replicas here.
    pub(crate) fn groups(&self) -> &Groups {
        &self.groups
    }

    /// What is read here for backups.
    pub(crate) fn backups(&self) -> &Backups {
        &self.backups
    }

    /// The other nodes.
    pub(crate) fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Metrics that belong to no layer.
    pub(crate) fn metrics(&self) -> &NodeMetrics {
        &self.metrics
    }

    /// Where metrics are registered.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What of its configuration changes while it runs, and how.
    pub(crate) fn reloading(&self) -> &Reloading {
        &self.reloading
    }

    /// The service, once it is there.
    pub(crate) fn service(&self) -> Option<&moorline_service::Service> {
        self.service.get().map(|service| &**service)
    }

    /// The configuration it was started with.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// The service, once it is there.
    pub(crate) fn set_service(
        &self,
        service: std::sync::Arc<moorline_service::Service>,
        outward: Outward,
    ) {
        if let Some(secrets) = &self.secrets {
            let (registry, secrets) = (service.registry(), secrets.clone());
            let imports = Imports::default();
            let webhooks = Webhooks {
                registry: registry.clone(),
                secrets: secrets.clone(),
                outward,
                now: now_ms,
            };
            let api = Api { registry, secrets, now: now_ms, imports, webhooks };
            let api = (api.clone(), moorline_api::router(api));
            assert!(self.api.set(api).is_ok(), "a node has one API");
        }
        assert!(self.service.set(service).is_ok(), "a node has one service");
    }

    /// What answers for tenants, devices and mail, if this node has the cluster's key.
    pub(crate) fn api(&self) -> Option<axum::Router> {
        self.api.get().map(|(_, router)| router.clone())
    }

    /// What its handlers work with.
    pub(crate) fn api_state(&self) -> Option<&Api> {
        self.api.get().map(|(api, _)| api)
    }

    /// The cluster's key.
    pub(crate) fn secrets(&self) -> Option<&Secrets> {
        self.secrets.as_ref()
    }

    /// Whether what the meta group says here is what it says now, as a majority of it confirms.
    pub(crate) async fn is_meta_current(&self) -> bool {
        match self.service.get() {
            Some(service) => service.is_meta_current().await,
            None => false,
        }
    }

    /// Every replica this node should have is open.
    pub(crate) fn set_opened(&self) {
        self.opened.store(true, Ordering::Release);
    }

    /// Whether this process made the cluster, and has not seen it at its level yet.
    pub(crate) fn is_newborn(&self) -> bool {
        self.newborn.load(Ordering::Acquire)
    }

    /// See [`Node::is_newborn`].
    pub(crate) fn set_newborn(&self, newborn: bool) {
        self.newborn.store(newborn, Ordering::Release);
    }

    /// Whether clients can connect.
    pub(crate) fn set_listening(&self, listening: bool) {
        self.listening.store(listening, Ordering::Release);
        self.served.fetch_or(listening, Ordering::AcqRel);
    }

    /// Whether clients are to go elsewhere, now and from now on.
    pub(crate) fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Says so.
    pub(crate) fn set_draining(&self, draining: bool) {
        self.draining.send_if_modified(|before| std::mem::replace(before, draining) != draining);
    }

    /// Whether this process has served clients, and was told to leave since.
    pub(crate) fn is_leaving(&self) -> bool {
        let own = self.config.node_id();
        let state = self.groups.read(ShardId::META, |machine, _| machine.meta().member(own));
        self.served.load(Ordering::Acquire)
            && matches!(state.flatten(), Some(MemberState::Leaving | MemberState::Removed))
    }

    /// The way to the groups' leaders.
    pub(crate) fn router(&self) -> &Router {
        &self.router
    }

    /// Whether this node leads a group.
    pub(crate) fn leads(&self, shard: ShardId) -> bool {
        self.groups.role(shard).is_some_and(|role| role.borrow().leading)
    }

    /// Whether a node is connected.
    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.peers.is_up(node)
    }

    /// Where every node of the cluster is: as this node's file says, else as the cluster knows.
    pub(crate) fn member_addresses(&self) -> BTreeMap<NodeId, String> {
        let meta = |machine: &moorline_machine::Machine, _: &_| mover::addresses(machine.meta());
        let mut addresses = self.groups.read(ShardId::META, meta).unwrap_or_default();
        for (node, address) in self.config.cluster.addresses() {
            addresses.entry(node).and_modify(|known| *known = address);
        }
        addresses
    }

    /// From now on the node says that it is not ready.
    pub(crate) fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// What the cluster should know of this node.
    pub(crate) fn record(&self) -> NodeRecord {
        let own = self.config.cluster.peers.iter().find(|peer| peer.id == self.config.node.id);
        let address = own.map(|peer| &peer.address).or(self.config.cluster.address.as_ref());
        let address = address.map_or("", String::as_str);
        NodeRecord {
            node: self.config.node_id(),
            store: self.store,
            incarnation: self.incarnation,
            address: Text::from(address),
        }
    }

    /// Whether the process works: it answers, its timers run out, and each group's Raft core gets to what it is asked.
    ///
    /// Nothing of other nodes: who restarts what is not alive would restart all of them when a network is cut.
    /// Groups are asked once in [`TURNS_COUNT_FOR`], by however many: anybody may ask.
    pub(crate) async fn live(&self) -> Vec<Check> {
        let mut turns = self.turns.lock().await;
        if let Some((at, checks)) = &*turns
            && at.elapsed() < TURNS_COUNT_FOR
        {
            return checks.clone();
        }
        let checks = self.ask_for_turns().await;
        *turns = Some((Instant::now(), checks.clone()));
        checks
    }

    async fn ask_for_turns(&self) -> Vec<Check> {
        let stuck = self.groups.stuck(TURN_WAIT).await;
        let detail = match stuck.as_slice() {
            [] => "all take their turns".to_owned(),
            [shard, ..] => {
                format!(
                    "{} of them took no turn in {TURN_WAIT:?}, group {shard} first",
                    stuck.len()
                )
            }
        };
        let process = Check { name: "process".to_owned(), ok: true, detail: "answers".to_owned() };
        vec![process, Check { name: "groups".to_owned(), ok: stuck.is_empty(), detail }]
    }

    /// Whether clients may be sent here, and everything that says no.
    pub(crate) fn readiness(&self) -> Vec<Check> {
        let listening = self.listening.load(Ordering::Acquire);
        let mut checks = self.prerequisites();
        checks.push(Check {
            name: "mqtt".to_owned(),
            ok: listening,
            detail: if listening { "listens" } else { "does not listen yet" }.to_owned(),
        });
        checks
    }

    /// What has to be true before clients are let in.
    pub(crate) fn prerequisites(&self) -> Vec<Check> {
        let check = |name: &str, ok: bool, good: &str, bad: &str| Check {
            name: name.to_owned(),
            ok,
            detail: if ok { good } else { bad }.to_owned(),
        };
        let made = self.made();
        let opened = self.opened.load(Ordering::Acquire);
        let stopping = self.stopping.load(Ordering::Acquire);
        let [leaders, lease] = self.majorities();
        vec![
            check("cluster", made, "made", NOT_MADE),
            check("replicas", opened, "open and recovered", "opening and recovering"),
            leaders,
            lease,
            check(
                "disk",
                self.disk.accepts(),
                "enough space",
                "nearly full: new messages are refused",
            ),
            check("stopping", !stopping, "no", "this node is stopping"),
            check("draining", !*self.draining.borrow(), "no", "this node is draining or leaving"),
        ]
    }

    /// How far starting is.
    pub(crate) fn startup(&self) -> Vec<Check> {
        let groups = self.groups.status();
        let applied = |group: &moorline_group::GroupStatus| {
            format!("applied {} of {}", group.applied.unwrap_or(0), group.committed.unwrap_or(0))
        };
        groups
            .iter()
            .map(|group| Check {
                name: format!("group {}", group.shard),
                ok: group.ready,
                detail: applied(group),
            })
            .chain([Check {
                name: "replicas".to_owned(),
                ok: self.opened.load(Ordering::Acquire),
                detail: "all of this node's replicas are open".to_owned(),
            }])
            .collect()
    }

    /// Everything Prometheus may know.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        let ready = self.readiness().iter().all(|check| check.ok);
        self.metrics.ready.set(i64::from(ready));
        if let Some(service) = self.service.get() {
            service.account();
        }
        self.show_cluster();
        self.metrics.show_disk(self.disk.free_bytes(), self.disk.state());
        self.metrics.show_clock();
        let level = self.level();
        self.metrics.level.set(level.into());
        self.metrics.level_known.set(self.next_level().unwrap_or(level).into());
        self.registry.gather()
    }

    /// How many more nodes may die, how many there are, and which groups have no majority.
    fn show_cluster(&self) {
        let view = self.seen();
        // Nothing is promised before there is a cluster: that is neither good nor bad.
        let survives = guarantees::of(&view).survives;
        self.metrics.survivable.set(survives.map_or(f64::NAN, |survives| survives as f64));
        self.metrics.members.set(guarantees::members(&view) as i64);
        let alive = self.alive();
        let lost = self.groups.read(ShardId::META, |machine, _| {
            let groups = (0..=view.shards).map(|group| machine.meta().voters(ShardId(group)));
            guarantees::without_majority(groups, &alive)
        });
        let lost = lost.filter(|_| !view.cluster.is_empty()).unwrap_or_default();
        self.metrics.without_majority.set(lost as i64);
    }

    fn alive(&self) -> BTreeMap<NodeId, bool> {
        let states = self.peers.state();
        let mut alive: BTreeMap<NodeId, bool> =
            states.borrow().iter().map(|(node, state)| (node, is_up(state))).collect();
        alive.insert(self.config.node_id(), true);
        alive
    }

    pub(super) fn made(&self) -> bool {
        self.groups
            .read(ShardId::META, |machine, _| machine.meta().cluster().is_some())
            .unwrap_or(false)
    }

    /// The cluster as this node sees it.
    pub(crate) fn view(&self) -> ClusterView {
        let checks = self.readiness();
        ClusterView {
            ready: checks.iter().all(|check| check.ok),
            waiting_for: waiting_for(&checks),
            ..self.seen()
        }
    }

    /// The same without whether clients may be sent here.
    fn seen(&self) -> ClusterView {
        let cluster = self
            .groups
            .read(ShardId::META, |machine, _| machine.meta().cluster().copied())
            .flatten();
        ClusterView {
            node: self.config.node.id,
            clock_ms: now_ms(),
            name: self.config.cluster.name.clone(),
            cluster: cluster.map(|made| format!("{:032x}", made.cluster)).unwrap_or_default(),
            shards: cluster.map_or(0, |made| made.shards),
            replicas: cluster.map_or(0, |made| made.replicas),
            level: self.level(),
            next_level: self.next_level(),
            ready: false,
            waiting_for: Vec::new(),
            nodes: self.node_views(&self.alive()),
            groups: self.group_views(),
        }
    }

    /// Whether each group here has a leader, and this node its lease; if not, which groups have no majority, and what to do.
    fn majorities(&self) -> [Check; 2] {
        let led = self.groups.status().iter().all(|group| group.role.leader.is_some());
        let lease = self.service.get().is_some_and(|service| service.has_lease());
        let lost = if led && lease { None } else { guarantees::lost(&self.seen()) };
        let check = |name: &str, ok: bool, good: &str, bad: &str| {
            let bad = || lost.clone().unwrap_or_else(|| bad.to_owned());
            let detail = if ok { good.to_owned() } else { bad() };
            Check { name: name.to_owned(), ok, detail }
        };
        [
            check("leaders", led, "every group here has one", "a group here knows no leader"),
            check("lease", lease, "held", "no meta lease: a majority is not reachable"),
        ]
    }

    /// Every group with a replica here.
    fn group_views(&self) -> Vec<GroupView> {
        let mut groups: Vec<GroupView> = self.groups.status().into_iter().map(group_view).collect();
        self.groups.read(ShardId::META, |machine, _| {
            for group in &mut groups {
                let target = machine.meta().target(ShardId(group.shard));
                if let Some(target) = target.filter(|target| !target.reached) {
                    group.target = target.voters.iter().map(|voter| voter.0).collect();
                }
            }
        });
        groups
    }

    /// Every node the cluster knows; before it is made, the configured ones.
    fn node_views(&self, alive: &BTreeMap<NodeId, bool>) -> Vec<NodeView> {
        let programs = self.programs();
        let known = self.groups.read(ShardId::META, |machine, _| {
            let meta = machine.meta();
            let state = |node| meta.member(node).unwrap_or(MemberState::Active);
            let address = |known: &moorline_machine::NodeState| known.record.address.to_string();
            let nodes = meta.nodes().iter();
            nodes.map(|(node, known)| (*node, address(known), state(*node))).collect::<Vec<_>>()
        });
        let mut known = known.unwrap_or_default();
        if known.is_empty() {
            let configured = self.config.cluster.addresses().into_iter();
            known = configured.map(|(node, at)| (node, at, MemberState::Active)).collect();
        }
        known
            .into_iter()
            .map(|(node, address, state)| NodeView {
                id: node.0,
                address,
                alive: alive.get(&node).copied().unwrap_or(false),
                state: state.name().to_owned(),
                program: programs.get(&node).map(program_view),
            })
            .collect()
    }

    /// A client's session, if this node has a replica of its shard and knows it. Without a tenant's name it is the demo tenant's.
    pub(crate) fn session(
        &self,
        tenant: Option<&str>,
        client: &str,
    ) -> anyhow::Result<Option<SessionView>> {
        let client = Text::from(client);
        let tenant = match tenant.map(Text::from) {
            None => DEMO_TENANT,
            Some(name) => {
                let found = self.groups.read(ShardId::META, |machine, _| {
                    machine.meta().tenant_by_name(&name).map(|(tenant, _)| tenant)
                });
                let Some(Some(tenant)) = found else { return Ok(None) };
                tenant
            }
        };
        let shards = Shards::new(self.config.cluster.shards);
        let shard = shards.of(tenant, client.as_bytes());
        let found = self.groups.read(shard, |machine, rows| {
            let info = machine.session_of(rows, tenant, &client)?;
            Ok::<_, StorageError>(info.map(|info| SessionView {
                client: info.client.to_string(),
                shard: shard.0,
                connected_to: info.holder.map(|holder| holder.node.0),
                queued_messages: info.queued_items,
                queued_bytes: info.queued_bytes,
                dropped_messages: info.dropped,
                subscriptions: info.subscriptions,
                expiry_s: (info.expiry_s != u32::MAX).then_some(info.expiry_s),
            }))
        });
        found
            .with_context(|| format!("this node has no replica of shard {shard}"))?
            .map_err(Into::into)
    }

    /// A page of the shares of the shards with a replica here: those behind the id `after`.
    pub(crate) fn shares(&self, after: Option<&str>) -> Vec<ShareView> {
        let mut views = Vec::new();
        for shard in Shards::new(self.config.cluster.shards).all() {
            self.groups.read(shard, |machine, _| {
                let page = machine.shares().map(|share| ShareView {
                    // Of fixed width, so that they stand in the order of the list.
                    id: format!("{:05}-{:04}-{:020}", shard.0, share.id.bucket, share.id.number),
                    filter: share.filter.to_string(),
                    shard: shard.0,
                    members: share.len(),
                    queued_messages: share.queued_items,
                });
                let behind = page.filter(|view| after.is_none_or(|after| view.id.as_str() > after));
                views.extend(behind.take(SHARES_PER_PAGE_MAX - views.len()));
            });
        }
        views
    }

    /// Has every replica of every group digest its rows, as of one index each.
    pub(crate) async fn digest(&self) -> anyhow::Result<Vec<DigestView>> {
        let mut digests = Vec::new();
        for shard in self.groups.shards() {
            let asked = tokio::time::timeout(DIGEST_WAIT, self.router.ask(shard, &Command::Digest));
            let Answer::At(index) =
                asked.await.with_context(|| format!("group {shard} did not answer"))??
            else {
                bail!("group {shard} did not digest");
            };
            if !self.groups.wait_applied(shard, index, DIGEST_WAIT).await {
                bail!("group {shard} is not applied up to {index} on this node");
            }
            let status = self.groups.status();
            let of_shard = status.iter().find(|group| group.shard == shard);
            if let Some((index, digest)) = of_shard.and_then(|group| group.digest) {
                digests.push(DigestView {
                    shard: shard.0,
                    index,
                    digest: format!("{digest:032x}"),
                });
            }
        }
        Ok(digests)
    }
}

/// What is not as it should be, each once.
fn waiting_for(checks: &[Check]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for check in checks.iter().filter(|check| !check.ok) {
        if !all.contains(&check.detail) {
            all.push(check.detail.clone());
        }
    }
    all
}

fn is_up(state: PeerState) -> bool {
    match state {
        PeerState::Up { .. } => true,
        PeerState::Suspect | PeerState::Down { .. } => false,
    }
}

fn program_view(program: &Program) -> ProgramView {
    let Levels { min, max } = program.levels;
    ProgramView { version: program.version(), level_min: min, level_max: max }
}

fn group_view(group: moorline_group::GroupStatus) -> GroupView {
    GroupView {
        shard: group.shard.0,
        leader: group.role.leader.map(|leader| leader.0),
        term: group.role.term,
        last_log: group.last_log.unwrap_or(0),
        committed: group.committed.unwrap_or(0),
        applied: group.applied.unwrap_or(0),
        voters: group.voters.iter().map(|voter| voter.0).collect(),
        learners: group.learners.iter().map(|learner| learner.0).collect(),
        target: Vec::new(),
        confirmed: group.confirmed.iter().map(|(node, at)| (node.0, at.unwrap_or(0))).collect(),
        digest_index: group.digest.map(|(index, _)| index),
        digest: group.digest.map(|(_, digest)| format!("{digest:032x}")),
    }
}
