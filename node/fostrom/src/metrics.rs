//! What the edge of Fostrom counts. Labels take few values: a fleet or device is never one.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, core::Collector};

/// The metrics; clones are the same.
#[derive(Debug, Clone)]
pub struct FostromMetrics {
    pub(crate) connections: IntGaugeVec,
    pub(crate) admitted: IntCounterVec,
    pub(crate) ops: IntCounterVec,
    pub(crate) mismatched: IntCounter,
    pub(crate) closed: IntCounterVec,
    pub(crate) cures: IntCounter,
}

impl FostromMetrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// When a metric of the same name is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counters = |name, help, labels: &[&str]| {
            add(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let connections =
            Opts::new("moorline_fostrom_connections", "Devices that are connected, by protocol");
        let metrics = Self {
            connections: add(registry, IntGaugeVec::new(connections, &["protocol"])?)?,
            admitted: counters(
                "moorline_fostrom_auth_attempts_total",
                "Devices that said who they are, by protocol and by what came of it",
                &["protocol", "result"],
            )?,
            ops: counters(
                "moorline_fostrom_ops_total",
                "What devices asked for, by protocol and by what came of it",
                &["protocol", "op", "result"],
            )?,
            mismatched: add(
                registry,
                IntCounter::new(
                    "moorline_fostrom_packets_mismatched_total",
                    "Packets that do not match their schema and were dropped",
                )?,
            )?,
            closed: counters(
                "moorline_fostrom_closed_total",
                "Moonlight connections that ended, by reason",
                &["reason"],
            )?,
            cures: add(
                registry,
                IntCounter::new(
                    "moorline_fostrom_drain_pauses_total",
                    "How often a device that drains its mailbox was made to begin anew",
                )?,
            )?,
        };
        metrics.begin();
        Ok(metrics)
    }

    /// A series that is not there until something happens can't be watched.
    fn begin(&self) {
        for protocol in ["moonlight", "mqtt", "sse"] {
            self.connections.with_label_values(&[protocol]);
        }
        for protocol in ["http", "moonlight", "mqtt"] {
            self.admitted.with_label_values(&[protocol, "accepted"]);
            self.admitted.with_label_values(&[protocol, "wrong_secret"]);
            self.admitted.with_label_values(&[protocol, "plaintext"]);
            self.ops.with_label_values(&[protocol, "fetch_mail", "done"]);
            self.ops.with_label_values(&[protocol, "settle_mail", "done"]);
        }
        self.closed.with_label_values(&["goodbye"]);
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
