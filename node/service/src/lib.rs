//! Who may do what, and where it has to go: the middle of a node. It knows no socket and no packet.
//!
//! ```text
//!   edge ──Link──► publish ─► router ─► shard leader ─► log        routes: the meta replica of this node
//!        ◄─Notice─ conn ◄─── deliveries ◄── effects of the shards led somewhere
//!                  keeper: lease, registration, attachments, settlements · gone: the dead
//! ```
//!
//! # Invariants
//!
//! - **A node without a meta lease accepts nothing**: routes it does not know would be missed. See `lease`.
//! - **A subscription is answered after everybody who may publish knows it.** See `subscribe`.
//! - **Deliveries of a session come in queue order, within the credit its edge gave.** See `delivery` and `conn`.
//! - **Losing everything in memory loses no message**: rows are the truth, and edges attach anew.
//!
//! # Deliberately absent
//!
//! MQTT (`node/edge`, `protocols/mqtt`), rows and their rules (`raft/machine`), how leaders are found (`raft/router`).

mod accounts;
mod conn;
mod delivery;
mod direct;
mod expiry;
mod forget;
mod frames;
mod gone;
mod keeper;
mod leader;
mod lease;
mod live;
mod member;
mod metrics;
mod news;
mod once;
mod parked;
mod publish;
mod quota;
mod rates;
pub mod registry;
mod retained;
mod rights;
mod service;
mod settle;
mod share_frames;
mod shared;
mod shares;
mod subscribe;
mod turns;
mod wills;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use moorline_core::{
    Incarnation, NodeId, ShardId,
    port::{Inbox, Link, Notice, Port, Refusal},
    shard::Shards,
};
use moorline_group::{Groups, Role, Sink, wire::Peers};
use moorline_machine::{Effect, command::NodeRecord};
use moorline_router::{Router, SubmitError};
use prometheus::Registry;
use tokio::time::timeout;
use tracing::warn;

use crate::{
    conn::ConnLink,
    metrics::ServiceMetrics,
    service::{Below, Inner},
};

pub use service::{Clock, Fatal};

/// How long the service's own tasks may take to end.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// What a service is made of.
#[derive(Clone)]
pub struct ServiceConfig {
    /// This node.
    pub node: NodeId,
    /// This process.
    pub incarnation: Incarnation,
    /// The cluster's shards.
    pub shards: Shards,
    /// The process clock, the same that the edges have: wall time at its start and the monotonic clock since.
    pub clock: Clock,
    /// Copies of live messages that one tenant may have at this node in a second; 0 for any number.
    pub deliveries_per_tenant_s: u32,
    /// How much this node remembers of devices, for who asks why something did not arrive.
    pub remembered: moorline_explain::Limits,
    /// Called when rows can't be trusted any more, or the cluster refuses this node.
    pub fatal: Fatal,
}

impl fmt::Debug for ServiceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceConfig").field("node", &self.node).finish_non_exhaustive()
    }
}

/// A node's service.
#[derive(Debug)]
pub struct Service {
    inner: Arc<Inner>,
}

impl Service {
    /// A service that is not attached to the layers below yet.
    ///
    /// # Errors
    ///
    /// When a metric of the same name is registered already.
    pub fn new(config: ServiceConfig, registry: &Registry) -> prometheus::Result<Arc<Self>> {
        let metrics = ServiceMetrics::register(registry)?;
        Ok(Arc::new(Self { inner: Inner::new(config, metrics) }))
    }

    /// Gives it the layers below; before the wire starts and before the first replica is opened. Call it inside a
    /// runtime.
    pub fn attach(&self, groups: Groups, router: Router, peers: Peers, record: NodeRecord) {
        self.inner.register(&peers);
        self.inner.set_below(Below { groups, router, peers, record });
        self.inner.start_keeping();
    }

    /// Tenants, devices, mail and events.
    #[must_use]
    pub fn registry(&self) -> registry::Registry {
        registry::Registry::new(Arc::clone(&self.inner))
    }

    /// Whether this node may accept publishes and connections now.
    #[must_use]
    pub fn has_lease(&self) -> bool {
        self.inner.has_lease()
    }

    /// Asks the meta group's leader, which a majority has to confirm, whether the group's rows here are those of now: all
    /// that was committed when this was called is in them. Takes 2 s at most. `false` also if nobody can say.
    pub async fn is_meta_current(&self) -> bool {
        self.inner.is_meta_current().await
    }

    /// Whether new messages are taken; not while the disk is nearly full. Acknowledgements always are.
    pub fn set_accepting(&self, accepting: bool) {
        self.inner.accepting.store(accepting, Ordering::Release);
    }

    /// Changes how many copies the messages of one tenant may be for clean sessions of this node in a second; 0 for as many as
    /// there are.
    pub fn set_deliveries_per_tenant(&self, per_s: u32) {
        self.inner.live.quota().change(per_s);
    }

    /// Brings up to date what metrics show of what the replicas here have counted.
    pub fn account(&self) {
        self.inner.account();
    }

    /// Tells every connection to go elsewhere, but for those whose listener tells them one after the other.
    pub fn stop(&self) {
        let conns = self.inner.all_conns();
        for conn in conns.into_iter().filter(|conn| !conn.hears_of_stops_elsewhere()) {
            conn.push(Notice::Stopping { instead: None });
        }
    }

    /// Ends what the service does on its own.
    pub async fn end(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        if timeout(STOP_WAIT, self.inner.tasks.wait()).await.is_err() {
            warn!(tasks = self.inner.tasks.len(), "tasks of the service did not end in time");
        }
    }
}

impl Port for Service {
    fn connect(&self, inbox: Arc<dyn Inbox>) -> Box<dyn Link> {
        let conn = self.inner.connect(inbox);
        Box::new(ConnLink { conn, service: Arc::clone(&self.inner), closed: false })
    }
}

impl Sink for Service {
    fn applied(&self, shard: ShardId, index: u64, effects: Vec<Effect>) {
        self.inner.applied(shard, index, effects);
    }

    fn role(&self, shard: ShardId, role: Role) {
        self.inner.role(shard, role);
    }
}

/// What a command that came to nothing means to a client.
fn refusal_of(error: &SubmitError) -> Refusal {
    match error {
        SubmitError::Busy { .. } => Refusal::Busy,
        SubmitError::TooLarge { .. } => Refusal::TooLarge,
        SubmitError::NoLeader { .. } | SubmitError::Unanswered { .. } | SubmitError::Stopped => {
            Refusal::Unavailable
        }
    }
}
