//! What the node as a whole tells Prometheus; layers below register their own into the same registry.

use std::time::{Duration, Instant, SystemTime};

use hyper::StatusCode;
use moorline_core::NodeId;
use moorline_storage_rocks::space::SpaceState;
use prometheus::{
    Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    process_collector::ProcessCollector,
};

use crate::server::backed_up::BackupMetrics;

/// Metrics that belong to no layer.
#[derive(Debug, Clone)]
pub(crate) struct NodeMetrics {
    /// How many more nodes may die before something stops.
    pub(crate) survivable: Gauge,
    /// Nodes that were not removed.
    pub(crate) members: IntGauge,
    /// Groups that cannot accept anything, wherever they are.
    pub(crate) without_majority: IntGauge,
    /// Free bytes where the data is.
    disk_free: IntGauge,
    /// 1 for how full the disk is.
    disk_state: IntGaugeVec,
    /// By how much the wall clock was set since the process began, and whether it can be right.
    clock_set: Gauge,
    clock_valid: IntGauge,
    /// What both clocks said when the process began.
    began: (Instant, SystemTime),
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

/// No clock says less that is right: 2026 in seconds since 1970. This program is younger.
const CLOCK_S_MIN: u64 = 1_767_225_600;
/// A wall clock that is set by more was wrong before.
const CLOCK_SET_S_MAX: f64 = 5.0;

/// The states of a disk, and their labels.
const DISK_STATES: [(SpaceState, &str); 3] =
    [(SpaceState::Ok, "ok"), (SpaceState::Low, "low"), (SpaceState::Critical, "critical")];

/// By how many seconds the wall clock went further than the monotonic one.
fn set_by(wall: Result<Duration, Duration>, elapsed: Duration) -> f64 {
    let wall = match wall {
        Ok(forward) => forward.as_secs_f64(),
        Err(back) => -back.as_secs_f64(),
    };
    wall - elapsed.as_secs_f64()
}

impl NodeMetrics {
    /// Shows how full the disk is.
    pub(crate) fn show_disk(&self, free: u64, state: SpaceState) {
        self.disk_free.set(i64::try_from(free).unwrap_or(i64::MAX));
        for (of, label) in DISK_STATES {
            self.disk_state.with_label_values(&[label]).set(i64::from(of == state));
        }
    }

    /// Shows what the wall clock says of itself.
    pub(crate) fn show_clock(&self) {
        let (monotonic, wall) = self.began;
        let now = SystemTime::now();
        let went = now.duration_since(wall).map_err(|error| error.duration());
        let set = set_by(went, monotonic.elapsed());
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.clock_set.set(set);
        let valid = seconds >= CLOCK_S_MIN && set.abs() <= CLOCK_SET_S_MAX;
        self.clock_valid.set(i64::from(valid));
    }

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
        let disk_state = Opts::new("moorline_disk_state", "1 for how full the disk is");
        let disk_state = IntGaugeVec::new(disk_state, &["state"])?;
        registry.register(Box::new(disk_state.clone()))?;
        let clock_set = Gauge::new(
            "moorline_clock_set_seconds",
            "By how much the wall clock was set since the process began, which goes on by its own",
        )?;
        registry.register(Box::new(clock_set.clone()))?;
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
            survivable: survivable(registry)?,
            members: gauge("moorline_cluster_members", "Nodes of the cluster, up or not")?,
            without_majority: gauge(
                "moorline_cluster_shards_without_majority",
                "Shards of which this node reaches fewer nodes than a majority",
            )?,
            disk_free: gauge(
                "moorline_disk_free_bytes",
                "Free space on the data directory's file system",
            )?,
            disk_state,
            clock_set,
            clock_valid: gauge(
                "moorline_clock_valid",
                "1 while the wall clock can be right: not before 2026, and not set since the process began",
            )?,
            began: (Instant::now(), SystemTime::now()),
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

/// No number before there is a cluster: neither that all is well nor that something has stopped.
fn survivable(registry: &Registry) -> Result<Gauge, prometheus::Error> {
    let survivable = Gauge::new(
        "moorline_guarantee_survivable_nodes",
        "How many more nodes may die before a shard stops accepting",
    )?;
    survivable.set(f64::NAN);
    registry.register(Box::new(survivable.clone()))?;
    Ok(survivable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_seen_and_the_disk_is_in_one_state() {
        let s = Duration::from_secs;
        for (wall, expected) in [(Ok(s(7)), 0.0), (Ok(s(70)), 63.0), (Err(s(3)), -10.0)] {
            assert!((set_by(wall, s(7)) - expected).abs() < 0.001, "{wall:?}");
        }

        let registry = Registry::new();
        let metrics = NodeMetrics::register(&registry, NodeId(1)).unwrap();
        metrics.show_clock();
        metrics.show_disk(7, SpaceState::Low);
        assert!(metrics.clock_set.get().abs() < CLOCK_SET_S_MAX);
        let shown = DISK_STATES.map(|(_, label)| metrics.disk_state.with_label_values(&[label]));
        assert_eq!(shown.map(|state| state.get()), [0, 1, 0]);
    }
}
