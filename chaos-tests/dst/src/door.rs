//! Where devices connect to a node of the simulation: the edge's own connections over turmoil's network, in the order in which
//! `node/moorline` lets them in.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use moorline_core::{TenantId, port::Port};
use moorline_edge::{Anonymous, Clock, Edge, EdgeConfig, EdgeMetrics};
use moorline_group::Groups;
use moorline_service::Service;
use prometheus::Registry;
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use turmoil::net::TcpListener;

/// Where every node listens for devices.
pub(crate) const PORT: u16 = 1883;
/// The devices' tenant.
pub(crate) const TENANT: TenantId = TenantId(1);
/// How often a node that may not serve yet looks again.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Messages that wait for a device which is away: all that a run has.
const QUEUE_MAX: u32 = 100_000;
/// Deliveries that are fetched ahead: few, so that sessions ask for more all the time.
const PREFETCH_MAX: u16 = 16;
/// Deliveries that a device leaves unacknowledged at most.
const INFLIGHT_MAX: NonZeroU16 = NonZeroU16::new(16).expect("not 0");

/// What a door needs of its process.
pub(crate) struct Door {
    pub(crate) groups: Groups,
    pub(crate) service: Arc<Service>,
    pub(crate) registry: Registry,
    pub(crate) clock: Clock,
    /// Connections, each a task.
    pub(crate) tasks: TaskTracker,
}

impl Door {
    /// Serves devices for ever, from when this node may.
    pub(crate) async fn serve(self) -> std::io::Result<()> {
        let config = EdgeConfig {
            connects_per_client_s: 0,
            connects_per_tenant_s: 0,
            session_queue_max: QUEUE_MAX,
            session_queue_bytes_max: u32::MAX,
            prefetch_max: PREFETCH_MAX,
            inflight_max: INFLIGHT_MAX.get(),
            ..EdgeConfig::default()
        };
        let metrics = EdgeMetrics::register(&self.registry).map_err(std::io::Error::other)?;
        let port: Arc<dyn Port> = Arc::clone(&self.service) as _;
        let anybody = Arc::new(Anonymous { tenant: TENANT });
        let edge = Edge::new(config, port, anybody, metrics, self.clock);
        while !self.may_serve() {
            sleep(LOOK_EVERY).await;
        }
        let socket = TcpListener::bind(("0.0.0.0", PORT)).await?;
        let never = CancellationToken::new();
        loop {
            let (stream, peer) = socket.accept().await?;
            let (edge, stop) = (edge.clone(), never.clone());
            self.tasks.spawn(async move { edge.serve(stream, peer, stop).await });
        }
    }

    /// What `node/moorline` asks for before it listens.
    fn may_serve(&self) -> bool {
        let groups = self.groups.status();
        self.service.has_lease() && groups.iter().all(|group| group.role.leader.is_some())
    }
}
