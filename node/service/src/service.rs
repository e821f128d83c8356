//! The service's shared part: connections, sessions opened and closed, and the way to the layers below.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, RwLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use moorline_core::{
    ConnId, Incarnation, Message, NodeId, QoS, ShardId, TenantId, Text, UnixMillis, Will,
    port::{Close, Notice, Open, Opened, Refusal, Token},
    rights::Rules,
    session_name,
    shard::Shards,
};
use moorline_explain::{Became, Cause, Trails};
use moorline_group::{Groups, wire::Peers};
use moorline_machine::{
    Answer, Command, Machine,
    command::{Holder, NodeRecord, RouteTarget},
};
use moorline_router::{Done, Router, SubmitError};
use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::{
    ServiceConfig,
    conn::{Conn, Tell, Whose},
    delivery::ShardDelivery,
    lease::Leases,
    live::Live,
    metrics::ServiceMetrics,
    news::News,
    once::Onces,
    parked::Parked,
    quota::Quota,
    rates::{Rated, Rates},
    refusal_of,
    registry::explain::{LOOKUPS_MAX, SEARCHES_MAX},
    registry::{
        Readers,
        notes::Notes,
        own_calls::OwnCalls,
        presence::Reporter,
        settings::Parsed,
        watch::{PendingNews, Watchers},
    },
    retained::{Gate, READS_MAX},
    rights::Holders,
};

/// The layers below, known once they are started.
#[derive(Debug, Clone)]
pub(crate) struct Below {
    pub(crate) groups: Groups,
    pub(crate) router: Router,
    pub(crate) peers: Peers,
    pub(crate) record: NodeRecord,
}

/// The process clock: see [`ServiceConfig::clock`].
pub type Clock = Arc<dyn Fn() -> UnixMillis + Send + Sync>;
/// Called when this node's rows can't be trusted any more.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// What a connection asks for that needs this node's lease.
#[derive(Debug)]
pub(crate) enum Asked {
    /// See [`moorline_core::port::Link::publish`].
    Publish {
        /// Who publishes.
        conn: Arc<Conn>,
        /// What the answer carries.
        token: Token,
        /// What is published.
        message: Message,
    },
    /// See [`moorline_core::port::Link::open`].
    Open {
        /// Who opens.
        conn: Arc<Conn>,
        /// What.
        open: Open,
    },
}

impl Asked {
    fn bytes(&self) -> usize {
        match self {
            Self::Publish { message, .. } => message.topic.len() + message.payload.len(),
            Self::Open { open, .. } => {
                let will = open.will.as_ref();
                open.client.len() + will.map_or(0, |will| will.message.payload.len())
            }
        }
    }
}

/// Sessions that could not be closed yet. More are forgotten: repaired when the process ends or they are opened again.
const UNCLOSED_MAX: usize = 65_536;

/// Who waits for a route barrier.
pub(crate) type BarrierReply = moorline_group::wire::Replier;

/// What all parts of the service share.
pub(crate) struct Inner {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) shards: Shards,
    below: OnceLock<Below>,
    next_conn: AtomicU64,
    conns: RwLock<HashMap<ConnId, Arc<Conn>>>,
    pub(crate) live: Live,
    /// What tenants may say in a second.
    rates: Rates,
    /// Grows with every change of this node's routes.
    route_version: AtomicU64,
    pub(crate) deliveries: Vec<Mutex<ShardDelivery>>,
    /// By shard: wakes who reads rows for attachments that are behind.
    pub(crate) readers: Vec<Notify>,
    pub(crate) leases: Mutex<Option<Leases<BarrierReply>>>,
    /// Until when this node may publish.
    pub(crate) lease_until: Mutex<Option<Instant>>,
    /// What came while this node had no lease.
    pub(crate) parked: Mutex<Parked<Asked>>,
    /// Whether there is any, for those who need not look closer.
    pub(crate) parking: AtomicBool,
    pub(crate) onces: Onces,
    dirty: Mutex<Vec<Arc<Conn>>>,
    pub(crate) dirty_added: Notify,
    unattached: Mutex<BTreeMap<ConnId, Arc<Conn>>>,
    pub(crate) unattached_added: Notify,
    unattached_shares: Mutex<BTreeMap<ConnId, Arc<Conn>>>,
    pub(crate) unattached_shares_added: Notify,
    /// Sessions whose connections ended, and whose shard has not heard it.
    unclosed: Mutex<VecDeque<(Whose, Close)>>,
    /// By shard: who waits for its next barrier.
    pub(crate) gates: Vec<Mutex<Gate>>,
    /// Pages of retained messages that are read at a time.
    pub(crate) reads: Semaphore,
    /// Who serves which device here and wants to hear of it.
    pub(crate) watchers: Watchers,
    /// What they are to be told in a moment.
    pub(crate) pending_news: PendingNews,
    /// How many watches there were.
    pub(crate) watches: AtomicU64,
    /// Places given to connections that each want to be a device: see `registry/watch.rs`.
    pub(crate) places: AtomicU64,
    /// Which mail went out to whom last.
    pub(crate) notes: Notes,
    /// By shard: what it is to be told of presence.
    pub(crate) reporters: Vec<Reporter>,
    /// Settings of tenants.
    pub(crate) parsed: Parsed,
    /// Whose connections are here.
    pub(crate) holders: Holders,
    /// What a device may whose tenant says nothing.
    pub(crate) own_subtree: Rules,
    /// Who waits here for something new in streams.
    pub(crate) news: Arc<News>,
    /// Calls of devices that wait here for answers.
    pub(crate) own_calls: OwnCalls,
    /// Who waits for something new of a device's values.
    pub(crate) value_news: Arc<News>,
    /// Who reads events at this node.
    pub(crate) event_readers: Arc<Readers>,
    /// What is remembered of devices here.
    pub(crate) trails: Arc<Trails>,
    /// Places of those who look up devices that somebody said to be.
    pub(crate) lookups: Arc<Semaphore>,
    /// Messages that are looked for by those who ask this node.
    pub(crate) searches: Semaphore,
    /// The one that is looked for here.
    pub(crate) searching: Arc<Semaphore>,
    /// A will is due in a shard led here.
    pub(crate) wills_due: Notify,
    pub(crate) accepting: AtomicBool,
    pub(crate) metrics: ServiceMetrics,
    pub(crate) tasks: TaskTracker,
    /// Itself, for tasks begun where only a reference is at hand.
    pub(crate) myself: Weak<Self>,
    /// A leadership began here.
    pub(crate) leading_began: Notify,
    /// Called when rows can't be trusted; does not return in the product.
    pub(crate) fatal: Fatal,
    clock: Clock,
    pub(crate) stop: CancellationToken,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Inner {
    pub(crate) fn new(config: ServiceConfig, metrics: ServiceMetrics) -> Arc<Self> {
        let ServiceConfig { node, incarnation, shards, clock, deliveries_per_tenant_s, .. } =
            config;
        let ServiceConfig { remembered, fatal, .. } = config;
        let trails = Arc::new(Trails::new(remembered));
        let dropped = metrics.dropped_quota.clone();
        let rates = Rates::new(&metrics.quota_refused);
        let live = Live::new(Quota::new(deliveries_per_tenant_s, dropped));
        Arc::new_cyclic(|myself| Self {
            node,
            incarnation,
            shards,
            below: OnceLock::new(),
            next_conn: AtomicU64::new(1),
            conns: RwLock::default(),
            live,
            rates,
            route_version: AtomicU64::new(1),
            deliveries: (0..=shards.count()).map(|_| Mutex::default()).collect(),
            readers: (0..=shards.count()).map(|_| Notify::new()).collect(),
            leases: Mutex::new(None),
            lease_until: Mutex::new(None),
            parked: Mutex::default(),
            parking: AtomicBool::new(false),
            onces: Onces::default(),
            dirty: Mutex::default(),
            dirty_added: Notify::new(),
            unattached: Mutex::default(),
            unattached_added: Notify::new(),
            unattached_shares: Mutex::default(),
            unattached_shares_added: Notify::new(),
            unclosed: Mutex::default(),
            gates: (0..=shards.count()).map(|_| Mutex::default()).collect(),
            reads: Semaphore::new(READS_MAX),
            watchers: Watchers::default(),
            pending_news: PendingNews::default(),
            watches: AtomicU64::new(0),
            places: AtomicU64::new(0),
            notes: Notes::default(),
            reporters: (0..=shards.count()).map(|_| Reporter::default()).collect(),
            parsed: Parsed::default(),
            holders: Holders::default(),
            own_subtree: Rules::own_subtree(),
            news: Arc::default(),
            own_calls: OwnCalls::default(),
            value_news: Arc::default(),
            event_readers: Arc::default(),
            trails,
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            searches: Semaphore::new(SEARCHES_MAX),
            searching: Arc::new(Semaphore::new(1)),
            wills_due: Notify::new(),
            accepting: AtomicBool::new(true),
            metrics,
            tasks: TaskTracker::new(),
            myself: Weak::clone(myself),
            leading_began: Notify::new(),
            fatal,
            clock,
            stop: CancellationToken::new(),
        })
    }

    /// The layers below; the node gives them before it lets anybody connect.
    pub(crate) fn below(&self) -> &Below {
        self.below.get().expect("the node attaches the layers below before it serves")
    }

    pub(crate) fn set_below(&self, below: Below) {
        assert!(self.below.set(below).is_ok(), "the layers below are attached once");
    }

    pub(crate) fn delivery(&self, shard: ShardId) -> Option<MutexGuard<'_, ShardDelivery>> {
        let delivery = self.deliveries.get(usize::from(shard.0))?;
        Some(delivery.lock().expect("no panic while deliveries are locked"))
    }

    pub(crate) fn has_lease(&self) -> bool {
        let until = *self.lease_until.lock().expect("no panic while it is locked");
        until.is_some_and(|until| Instant::now() < until)
    }

    /// The process clock.
    pub(crate) fn now(&self) -> UnixMillis {
        (self.clock)()
    }

    /// Log time of a shard with a replica here.
    pub(crate) fn log_time(&self, shard: ShardId) -> UnixMillis {
        // A replica that is just being opened or closed delivers nothing.
        self.below().groups.log_time(shard).unwrap_or_else(|| self.now())
    }

    /// Whether a tenant may say this now.
    pub(crate) fn may_say(&self, tenant: TenantId, what: &[(Rated, u64)]) -> bool {
        self.rates.take(tenant, what, || {
            let found = self.below().groups.read(ShardId::META, |machine, _| {
                let record = machine.meta().tenant(tenant)?;
                Some(self.parsed.get(tenant, record.version, &record.settings).quotas)
            });
            found.flatten().unwrap_or_default()
        })
    }

    /// The same of a publish.
    pub(crate) fn may_publish(&self, tenant: TenantId, message: &Message) -> bool {
        let bytes = (message.topic.len() + message.payload.len()) as u64;
        self.may_say(tenant, &[(Rated::Publishes, 1), (Rated::PublishBytes, bytes)])
    }

    /// A version for a change of this node's routes.
    pub(crate) fn next_route_version(&self) -> u64 {
        self.route_version.fetch_add(1, Ordering::Relaxed)
    }

    /// Where routes to this process lead.
    pub(crate) fn own_target(&self) -> RouteTarget {
        RouteTarget::Node(self.node, self.incarnation)
    }

    // ---- connections

    pub(crate) fn connect(&self, inbox: Arc<dyn moorline_core::port::Inbox>) -> Arc<Conn> {
        let id = ConnId(self.next_conn.fetch_add(1, Ordering::Relaxed));
        let conn = Arc::new(Conn::new(id, inbox, self.metrics.rights.deliveries.clone()));
        self.conns.write().expect("no panic while it is locked").insert(id, Arc::clone(&conn));
        conn
    }

    pub(crate) fn conn(&self, id: ConnId) -> Option<Arc<Conn>> {
        self.conns.read().expect("no panic while it is locked").get(&id).cloned()
    }

    pub(crate) fn all_conns(&self) -> Vec<Arc<Conn>> {
        self.conns.read().expect("no panic while it is locked").values().cloned().collect()
    }

    pub(crate) fn conn_count(&self) -> usize {
        self.conns.read().expect("no panic while it is locked").len()
    }

    // ---- sessions

    /// Does what was asked, if this node has its lease, or lets it wait for it.
    pub(crate) fn ask(self: &Arc<Self>, asked: Asked) {
        if !self.parking.load(Ordering::Acquire) && self.has_lease() {
            return self.act(asked);
        }
        let mut parked = self.parked.lock().expect("no panic while it is locked");
        if parked.is_empty() && self.has_lease() {
            drop(parked);
            return self.act(asked);
        }
        self.parking.store(true, Ordering::Release);
        if let Some(asked) = parked.push(Instant::now(), asked.bytes(), asked) {
            drop(parked);
            self.refuse(asked);
        }
    }

    /// The lease is there: everything that waited goes on, in order, before anything newer.
    pub(crate) fn unpark(self: &Arc<Self>) {
        if !self.parking.load(Ordering::Acquire) {
            return;
        }
        let mut parked = self.parked.lock().expect("no panic while it is locked");
        while let Some(asked) = parked.pop() {
            self.act(asked);
        }
        self.parking.store(false, Ordering::Release);
    }

    /// What has waited too long is refused.
    pub(crate) fn refuse_late(&self) {
        let mut parked = self.parked.lock().expect("no panic while it is locked");
        while let Some(asked) = parked.pop_late(Instant::now()) {
            self.refuse(asked);
        }
        if parked.is_empty() {
            self.parking.store(false, Ordering::Release);
        }
    }

    fn act(self: &Arc<Self>, asked: Asked) {
        match asked {
            Asked::Publish { conn, token, message } => self.publish(&conn, token, message),
            Asked::Open { conn, open } => self.open(&conn, open),
        }
    }

    fn refuse(&self, asked: Asked) {
        match asked {
            Asked::Publish { conn, token, message } if message.qos == QoS::AtMostOnce => {
                self.metrics.dropped_passing.inc();
                conn.note_passed(token, Became::Dropped(Cause::PublishUnavailable));
            }
            Asked::Publish { conn, token, .. } => {
                let outcome = Err(Refusal::Unavailable);
                conn.push(Notice::Published { token, outcome });
            }
            Asked::Open { conn, .. } => {
                conn.push(Notice::Opened(Err(Refusal::Unavailable)));
            }
        }
    }

    fn open(self: &Arc<Self>, conn: &Arc<Conn>, mut open: Open) {
        let refuse = || _ = conn.push(Notice::Opened(Err(Refusal::NotAuthorised)));
        // The edge has it already, if it remembers anything of this client.
        let named = open.who.as_ref().map_or(&open.client, |who| &who.device);
        if let Some(trail) = self.trails.known(open.tenant, named) {
            conn.set_trail(trail, Arc::clone(&self.clock));
        }
        open.client = match &open.who {
            Some(who) => session_name::of_device(&who.device, who.born, &open.client),
            None if session_name::is_free(&open.client) => open.client,
            None => return refuse(),
        };
        if !self.begin_rights(conn, open.tenant, open.who.clone()) {
            self.metrics.quota_refused.with_label_values(&["connections-max"]).inc();
            conn.note_not_opened(Cause::TooManyConnections);
            conn.push(Notice::Opened(Err(Refusal::Quota)));
            return;
        }
        if self.conn(conn.id()).is_none() {
            // It was closed while it waited.
            self.end_rights(conn);
        }
        let denied = |will: &Will| !conn.may_publish(&will.message.topic);
        if open.will.as_ref().is_some_and(denied) {
            self.metrics.rights.wills.inc();
            return refuse();
        }
        let shard = self.shards.of(open.tenant, open.client.as_bytes());
        let command = Command::OpenSession {
            tenant: open.tenant,
            client: open.client.clone(),
            clean_start: open.clean_start,
            expiry_s: open.expiry_s,
            holder: Holder { node: self.node, incarnation: self.incarnation, conn: conn.id() },
            limits: open.limits,
            sessions_max: open.sessions_max,
            will: open.will.clone().map(Box::new),
        };
        let (service, conn) = (Arc::clone(self), Arc::clone(conn));
        let done = move |outcome| service.opened(&conn, shard, &open, outcome);
        self.below().router.submit(shard, &command, Done::Call(Box::new(done)));
    }

    fn opened(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        shard: ShardId,
        open: &Open,
        outcome: Result<Answer, SubmitError>,
    ) {
        let refusal = match outcome {
            Ok(Answer::Opened { session, epoch, present, head, tail, previous, .. }) => {
                // A resumed session keeps its queue also when it is to end with this connection.
                let durable = open.expiry_s > 0 || present;
                let whose = Whose { tenant: open.tenant, shard, session, epoch, durable };
                if previous.is_some() {
                    self.metrics.takeovers.inc();
                }
                if !conn.opened(whose, head, open.credit) {
                    self.close_session(whose, Close::Broken);
                    return;
                }
                let opened = Opened { present, first: head, end: tail };
                if present && !conn.may_all() {
                    let (service, conn) = (Arc::clone(self), Arc::clone(conn));
                    self.tasks.spawn(async move {
                        match service.prune(&conn, whose).await {
                            Ok(()) => service.let_in(&conn, opened, durable),
                            Err(refusal) => _ = conn.push(Notice::Opened(Err(refusal))),
                        }
                    });
                } else {
                    self.let_in(conn, opened, durable);
                }
                return;
            }
            Ok(Answer::Refused(_)) => Refusal::Quota,
            Ok(other) => {
                warn!(?other, "an open was answered with something else");
                Refusal::Unavailable
            }
            Err(error) => refusal_of(&error),
        };
        conn.push(Notice::Opened(Err(refusal)));
    }

    /// A client hears that its session is open.
    fn let_in(self: &Arc<Self>, conn: &Arc<Conn>, opened: Opened, durable: bool) {
        conn.push(Notice::Opened(Ok(opened)));
        if durable {
            self.attach(conn);
        }
    }

    pub(crate) fn close(self: &Arc<Self>, conn: &Arc<Conn>, close: Close) {
        self.end_rights(conn);
        self.conns.write().expect("no panic while it is locked").remove(&conn.id());
        self.drop_live_routes(conn.id());
        let Some((whose, settled)) = conn.end() else {
            return;
        };
        self.end_shares(conn);
        self.tell(conn, whose, Tell { settled, credit: None });
        self.close_session(whose, close);
    }

    /// Ends a connection's hold on its session; as often as it takes, since a session that is held does not expire.
    fn close_session(&self, whose: Whose, close: Close) {
        let Whose { shard, session, epoch, .. } = whose;
        let (expiry_s, forget_will) = match close {
            Close::Clean { expiry_s, with_will } => (expiry_s, !with_will),
            Close::Broken | Close::Failed(_) => (None, false),
        };
        let command = Command::CloseSession { session, epoch, expiry_s, forget_will };
        let service = Weak::clone(&self.myself);
        let done = move |outcome: Result<Answer, SubmitError>| {
            if outcome.is_err()
                && let Some(service) = service.upgrade()
            {
                service.unclosed().push_back((whose, close));
            }
        };
        self.below().router.submit(shard, &command, Done::Call(Box::new(done)));
    }

    /// Closings that failed are tried again, so many at a time.
    pub(crate) fn close_again(&self, most: usize) {
        let again: Vec<_> = {
            let mut unclosed = self.unclosed();
            let excess = unclosed.len().saturating_sub(UNCLOSED_MAX);
            if excess > 0 {
                warn!(
                    excess,
                    "sessions stay held until this process ends or they are opened again"
                );
                unclosed.drain(..excess);
            }
            let most = most.min(unclosed.len());
            unclosed.drain(..most).collect()
        };
        for (whose, close) in again {
            self.close_session(whose, close);
        }
    }

    fn unclosed(&self) -> MutexGuard<'_, VecDeque<(Whose, Close)>> {
        self.unclosed.lock().expect("no panic while it is locked")
    }

    fn drop_live_routes(self: &Arc<Self>, conn: ConnId) {
        for (tenant, filter) in self.live.leave(conn) {
            self.remove_live_route(tenant, filter);
        }
    }

    /// Takes a route to this process back, unless somebody here holds the filter again. Nobody waits for it.
    pub(crate) fn remove_live_route(&self, tenant: TenantId, filter: Text) {
        // The version first: whoever subscribes after the look gets a higher one, and wins.
        let version = self.next_route_version();
        if self.live.holds(tenant, &filter) {
            return;
        }
        let target = self.own_target();
        let command = Command::SetRoute { tenant, filter, target, version, present: false };
        self.below().router.submit(ShardId::META, &command, Done::Ignore);
    }

    // ---- settlements

    pub(crate) fn mark_dirty(&self, conn: &Arc<Conn>) {
        let mut dirty = self.dirty.lock().expect("no panic while it is locked");
        dirty.push(Arc::clone(conn));
        if dirty.len() == 1 {
            self.dirty_added.notify_one();
        }
    }

    pub(crate) fn take_dirty(&self) -> Vec<Arc<Conn>> {
        std::mem::take(&mut *self.dirty.lock().expect("no panic while it is locked"))
    }

    /// Tells a session's shard what its client acknowledged and how much more it can take.
    pub(crate) fn tell(self: &Arc<Self>, conn: &Arc<Conn>, whose: Whose, tell: Tell) {
        if let Some((generation, more)) = tell.credit {
            self.send_credit(conn, whose, generation, more);
        }
        let Some(settled) = tell.settled else {
            return;
        };
        let command =
            Command::Settle { session: whose.session, upto: settled.upto, also: settled.also };
        let (service, conn) = (Arc::clone(self), Arc::clone(conn));
        let done = move |outcome: Result<Answer, SubmitError>| {
            if outcome.is_err() && conn.tell_again() {
                service.mark_dirty(&conn);
            }
        };
        self.below().router.submit(whose.shard, &command, Done::Call(Box::new(done)));
    }

    // ---- attachments that have to be made

    pub(crate) fn mark_unattached(&self, conn: &Arc<Conn>) {
        let mut unattached = self.unattached.lock().expect("no panic while it is locked");
        unattached.insert(conn.id(), Arc::clone(conn));
        self.unattached_added.notify_one();
    }

    pub(crate) fn take_unattached(&self) -> Vec<Arc<Conn>> {
        let mut unattached = self.unattached.lock().expect("no panic while it is locked");
        std::mem::take(&mut *unattached).into_values().collect()
    }

    pub(crate) fn mark_unattached_shares(&self, conn: &Arc<Conn>) {
        let mut unattached = self.unattached_shares.lock().expect("no panic while it is locked");
        unattached.insert(conn.id(), Arc::clone(conn));
        self.unattached_shares_added.notify_one();
    }

    pub(crate) fn take_unattached_shares(&self) -> Vec<Arc<Conn>> {
        let mut unattached = self.unattached_shares.lock().expect("no panic while it is locked");
        std::mem::take(&mut *unattached).into_values().collect()
    }

    /// What metrics show of sessions here and of shards led here.
    pub(crate) fn observe(&self) {
        self.metrics.links.set(i64::try_from(self.conn_count()).unwrap_or(i64::MAX));
        self.metrics.live_subscriptions.set(i64::try_from(self.live.len()).unwrap_or(i64::MAX));
        self.metrics.explain.show(self.trails.held());
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        let (mut lag_max, mut consumer_lag_max) = (0, 0);
        let mut add = |what, count: usize| {
            *counts.entry(what).or_default() += i64::try_from(count).unwrap_or(i64::MAX);
        };
        add("value questions", self.value_news.len());
        add("own calls", self.own_calls.len());
        for shard in self.shards.all() {
            let Some(delivery) = self.delivery(shard).filter(|of| of.is_leading()) else {
                continue;
            };
            add("attached", delivery.len());
            self.below().groups.read(shard, |machine, _| {
                for share in machine.shares() {
                    let queued = usize::try_from(share.queued_items).unwrap_or(usize::MAX);
                    let lag = queued.saturating_sub(delivery.shares.lent(share.id));
                    add("lag", lag);
                    lag_max = lag_max.max(lag);
                    add("shares", 1);
                    add("members", share.len());
                }
                let streams = machine.streams();
                let totals = streams.totals();
                add("events", usize::try_from(totals.events).unwrap_or(usize::MAX));
                add("event bytes", usize::try_from(totals.bytes).unwrap_or(usize::MAX));
                add("consumers", usize::try_from(totals.consumers).unwrap_or(usize::MAX));
                consumer_lag_max = consumer_lag_max.max(streams.lag_max());
                count_registry(machine, &mut add);
                let shard = machine.counts();
                add("sessions", shard.sessions);
                add("held", shard.held);
                add("subscriptions", shard.subscriptions);
                add("retained", shard.retained);
                add("retained bytes", usize::try_from(shard.retained_bytes).unwrap_or(usize::MAX));
                add("wills", shard.wills);
                add("due wills", shard.due_wills);
                add("queued", usize::try_from(shard.queued_items).unwrap_or(usize::MAX));
            });
        }
        self.below().groups.read(ShardId::META, |machine, _| {
            add("removed routes", machine.meta().removed_routes_bytes());
            add("tenants", machine.meta().tenants().len());
        });
        let of = |what| counts.get(what).copied().unwrap_or(0);
        self.metrics.routes_removed_bytes.set(of("removed routes"));
        self.metrics.attachments.set(of("attached"));
        self.metrics.sessions_connected.set(of("held"));
        self.metrics.sessions_away.set(of("sessions") - of("held"));
        self.metrics.subscriptions.set(of("subscriptions"));
        self.metrics.kept.retained.set(of("retained"));
        self.metrics.kept.retained_bytes.set(of("retained bytes"));
        self.metrics.kept.wills.set(of("wills"));
        self.metrics.kept.wills_due.set(of("due wills"));
        self.metrics.queued.set(of("queued"));
        let shares = &self.metrics.shares;
        shares.count.set(of("shares"));
        shares.members.set(of("members"));
        shares.lag.set(of("lag"));
        shares.lag_max.set(i64::try_from(lag_max).unwrap_or(i64::MAX));
        let events = &self.metrics.events;
        events.kept.set(of("events"));
        events.kept_bytes.set(of("event bytes"));
        events.consumers.set(of("consumers"));
        events.lag_max.set(i64::try_from(consumer_lag_max).unwrap_or(i64::MAX));
        events.waiting.set(i64::try_from(self.news.len()).unwrap_or(i64::MAX));
        self.metrics.show_registry(|what| counts.get(what).copied().unwrap_or(0));
        debug!(?counts, "observed");
    }
}

/// Counts what a shard has of the registry, mail and presence.
fn count_registry(machine: &Machine, add: &mut impl FnMut(&'static str, usize)) {
    let whole = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    add("streams", whole(machine.streams().totals().streams));
    let histories = machine.history_totals();
    add("histories", whole(histories.histories));
    add("history bytes", whole(histories.bytes));
    let calls = machine.call_totals();
    add("open calls", whole(calls.open));
    add("kept calls", whole(calls.kept));
    add("call bytes", whole(calls.bytes));
    let documents = machine.document_totals();
    add("documents", whole(documents.documents));
    add("document bytes", whole(documents.bytes));
    for (_, mail) in machine.mailboxes().tenants() {
        add("mailboxes", whole(mail.mailboxes));
        add("mails", whole(mail.mails));
        add("mail bytes", whole(mail.bytes));
        add("dead mails", whole(mail.dead));
    }
    let shard = machine.counts();
    add("devices", whole(shard.registry.devices));
    add("device bytes", whole(shard.registry.device_bytes));
    add("lookups", whole(shard.registry.lookups));
    add("connected", shard.presence.connected);
    add("active", shard.presence.active);
}
