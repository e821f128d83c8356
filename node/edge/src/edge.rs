//! What all listeners of a node share.

use std::{fmt, sync::Arc};

use moorline_core::port::Port;
use moorline_mqtt::server;
use tokio::sync::Semaphore;

use crate::{
    admission::Admission, authenticate::Authenticate, clock::Clock, config::EdgeConfig,
    metrics::EdgeMetrics,
};

/// A node's edge: the service behind it, the rules of its clients, and room for so many of them, whichever listener
/// they come to. Cheap to clone; every clone is the same edge.
#[derive(Clone)]
pub struct Edge {
    pub(crate) config: Arc<EdgeConfig>,
    /// One permit for each connection, from accept to end.
    pub(crate) room: Arc<Semaphore>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) clock: Clock,
    pub(crate) protocol: Arc<server::Config>,
    pub(crate) port: Arc<dyn Port>,
    pub(crate) authenticate: Arc<dyn Authenticate>,
    pub(crate) metrics: Arc<EdgeMetrics>,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Edge {
    /// An edge that nobody can reach yet; see [`Listener::bind`](crate::Listener::bind).
    pub fn new(
        config: EdgeConfig,
        port: Arc<dyn Port>,
        authenticate: Arc<dyn Authenticate>,
        metrics: EdgeMetrics,
        clock: Clock,
    ) -> Self {
        let connections_max = usize::try_from(config.connections_max).unwrap_or(usize::MAX);
        Self {
            room: Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS))),
            admission: Arc::new(Admission::new(&config)),
            clock,
            protocol: Arc::new(config.protocol()),
            config: Arc::new(config),
            port,
            authenticate,
            metrics: Arc::new(metrics),
        }
    }
}
