//! What the node as a whole tells Prometheus; layers below register their own into the same registry.

use hyper::StatusCode;
use moorline_core::NodeId;
use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    process_collector::ProcessCollector,
};

use crate::server::backed_up::BackupMetrics;

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
    /// The level of the cluster.
    pub(crate) level: IntGauge,
    /// The level that every node knows; the same if it is not above it.
    pub(crate) level_known: IntGauge,
    /// Nodes that were not let in because their programs do not know the level.
    pub(crate) joins_misfit: IntCounter,
    /// What requests to the admin listener came to.
    pub(crate) answers: IntCounterVec,
    /// Of backups.
    pub(crate) backups: BackupMetrics,
}

/// Classes of answers: of their status, or that the request was no HTTP.
const ANSWERS: [&str; 4] = ["done", "refused", "failed", "malformed"];

impl NodeMetrics {
    /// Counts an answer.
    pub(crate) fn answered(&self, status: StatusCode) {
        let class = match status.as_u16() {
            500.. => "failed",
            400.. => "refused",
            _ => "done",
        };
        self.answers.with_label_values(&[class]).inc();
    }

    /// Counts what was no HTTP, or did not come in time.
    pub(crate) fn malformed(&self) {
        self.answers.with_label_values(&["malformed"]).inc();
    }
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
        let answers = IntCounterVec::new(
            Opts::new(
                "moorline_admin_answers_total",
                "Requests to the admin listener, by what they came to",
            ),
            &["class"],
        )?;
        ANSWERS.iter().for_each(|class| _ = answers.with_label_values(&[*class]));
        registry.register(Box::new(answers.clone()))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let refused = IntCounterVec::new(
            Opts::new("moorline_api_refused_total", "Connections refused at listen.api, by reason"),
            &["reason"],
        )?;
        registry.register(Box::new(refused.clone()))?;
        let joins_misfit = IntCounter::new(
            "moorline_joins_misfit_total",
            "Nodes not let in because their programs do not know the cluster's level",
        )?;
        registry.register(Box::new(joins_misfit.clone()))?;
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
            answers,
            level: gauge("moorline_cluster_level", "The level of the cluster")?,
            level_known: gauge(
                "moorline_cluster_level_known",
                "The level that every node knows: above the cluster's, it can be raised",
            )?,
            joins_misfit,
            backups: BackupMetrics::register(registry)?,
            ready: gauge("moorline_ready", "1 while this node serves clients")?,
        })
    }
}
