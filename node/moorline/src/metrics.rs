//! What the node as a whole tells Prometheus; layers below register their own into the same registry.

use moorline_core::NodeId;
use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    process_collector::ProcessCollector,
};

/// Metrics that belong to no layer.
#[derive(Debug, Clone)]
pub(crate) struct NodeMetrics {
    /// How many more nodes may die before something stops.
    pub(crate) survivable: IntGauge,
    /// Free bytes where the data is.
    pub(crate) disk_free: IntGauge,
    /// 1 while the node serves clients.
    pub(crate) ready: IntGauge,
    /// Connections to `listen.api` that were turned away because their address has too many.
    pub(crate) api_crowded: IntCounter,
    /// Those whose TLS failed.
    pub(crate) api_tls_failed: IntCounter,
    /// Those whose TLS took too long.
    pub(crate) api_tls_late: IntCounter,
}

impl NodeMetrics {
    /// Registers them, with the process's own.
    pub(crate) fn register(registry: &Registry, node: NodeId) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let info = IntGaugeVec::new(
            Opts::new("moorline_build_info", "Always 1; the labels say what runs"),
            &["version", "node"],
        )?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION"), &node.to_string()]).set(1);
        registry.register(Box::new(info))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let refused = IntCounterVec::new(
            Opts::new("moorline_api_refused_total", "Connections refused at listen.api, by reason"),
            &["reason"],
        )?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Self {
            api_crowded: refused.with_label_values(&["per_address"]),
            api_tls_failed: refused.with_label_values(&["tls"]),
            api_tls_late: refused.with_label_values(&["timeout"]),
            survivable: gauge(
                "moorline_guarantee_survivable_nodes",
                "How many more nodes may die before a shard stops accepting",
            )?,
            disk_free: gauge(
                "moorline_disk_free_bytes",
                "Free space on the data directory's file system",
            )?,
            ready: gauge("moorline_ready", "1 while this node serves clients")?,
        })
    }
}
