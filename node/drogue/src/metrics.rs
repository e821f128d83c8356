//! What is counted of Drogue's clients. Labels take few values: an application or device is never one.

use moorline_dialects::drogue::outcome::Outcome;
use moorline_service::registry::mailman::Fate;
use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector,
};

/// The metrics; clones are the same.
#[derive(Debug, Clone)]
pub struct DrogueMetrics {
    pub(crate) connections: IntGaugeVec,
    pub(crate) admitted: IntCounterVec,
    pub(crate) events: IntCounterVec,
    pub(crate) commands: IntCounterVec,
    pub(crate) filters_refused: IntCounterVec,
    pub(crate) mail: IntCounterVec,
    pub(crate) requests: IntCounterVec,
    pub(crate) waiting: IntGauge,
    pub(crate) groups_refused: IntCounterVec,
    pub(crate) commits_failed: IntCounter,
    pub(crate) unreadable: IntCounter,
    pub(crate) sockets_closed: IntCounterVec,
    pub(crate) changes: IntCounterVec,
}

/// Who has connections.
const CLASSES: [&str; 2] = ["device", "application"];
/// By which way something came.
const WAYS: [&str; 2] = ["mqtt", "http"];
/// What becomes of commands.
const SENT: [&str; 4] = ["sent", "nobody", "unavailable", "failed"];
/// What is asked for over HTTP.
const REQUESTS: [&str; 6] = ["publish", "ttn", "command", "registry", "tokens", "discovery"];
/// The same of handshakes of WebSockets.
pub(crate) const SOCKET: &str = "socket";
/// Why there is no group.
const UNGROUPED: [&str; 2] = ["full", "unavailable"];
/// Why WebSockets of applications end.
const CLOSED: [&str; 5] = ["gone", "slow", "revoked", "invalid", "stopping"];
/// What becomes of an event that says what was changed in the registry.
const CHANGES: [&str; 2] = ["accepted", "failed"];

impl DrogueMetrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// When a metric of the same name is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counters = |name, help, labels: &[&str]| {
            add(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let counter = |name, help| add(registry, IntCounter::new(name, help)?);
        let gauge = |name, help| add(registry, IntGauge::new(name, help)?);
        let connections =
            Opts::new("moorline_drogue_connections", "Clients that are connected, by class");
        let metrics = Self {
            connections: add(registry, IntGaugeVec::new(connections, &["class"])?)?,
            admitted: counters(
                "moorline_drogue_auth_attempts_total",
                "Clients that said who they are, by protocol and by what came of it",
                &["protocol", "result"],
            )?,
            events: counters(
                "moorline_drogue_events_total",
                "Events that devices sent, by protocol and by what became of them",
                &["protocol", "result"],
            )?,
            commands: counters(
                "moorline_drogue_commands_total",
                "Commands that applications sent, by protocol and by what became of them",
                &["protocol", "result"],
            )?,
            mail: counters(
                "moorline_drogue_mail_total",
                "Mail that was brought to devices, by what became of it",
                &["result"],
            )?,
            filters_refused: counters(
                "moorline_drogue_filters_refused_total",
                "Filters of subscriptions that there are not, by class",
                &["class"],
            )?,
            requests: counters(
                "moorline_drogue_http_requests_total",
                "Requests over HTTP, by what they asked for and by the status they got",
                &["what", "status"],
            )?,
            waiting: gauge(
                "moorline_drogue_http_waiting",
                "Requests over HTTP that wait for a command",
            )?,
            groups_refused: counters(
                "moorline_drogue_groups_refused_total",
                "Subscriptions of applications that were refused because there is no group for them, by why",
                &["reason"],
            )?,
            commits_failed: counter(
                "moorline_drogue_commits_failed_total",
                "Times that the streams did not take how far a consumer group is",
            )?,
            unreadable: counter(
                "moorline_drogue_events_unreadable_total",
                "Events that applications were not sent because they can't be read as CloudEvents",
            )?,
            sockets_closed: counters(
                "moorline_drogue_sockets_closed_total",
                "WebSockets of applications that ended, by why",
                &["reason"],
            )?,
            changes: counters(
                "moorline_drogue_registry_events_total",
                "Events that say what was changed in the registry, by what became of them",
                &["result"],
            )?,
        };
        metrics.begin();
        Ok(metrics)
    }

    /// Whoever looks finds them before they count anything.
    fn begin(&self) {
        for class in CLASSES {
            self.connections.with_label_values(&[class]);
            self.filters_refused.with_label_values(&[class]);
        }
        for way in WAYS {
            for result in ["accepted", "refused", "unavailable", "misconfigured"] {
                self.admitted.with_label_values(&[way, result]);
            }
            for outcome in Outcome::ALL {
                self.events.with_label_values(&[way, outcome.name()]);
            }
            for result in SENT {
                self.commands.with_label_values(&[way, result]);
            }
        }
        for status in ["101", "403"] {
            self.requests.with_label_values(&[SOCKET, status]);
        }
        for reason in UNGROUPED {
            self.groups_refused.with_label_values(&[reason]);
        }
        for reason in CLOSED {
            self.sockets_closed.with_label_values(&[reason]);
        }
        for result in CHANGES {
            self.changes.with_label_values(&[result]);
        }
        for fate in Fate::ALL {
            self.mail.with_label_values(&[fate.label()]);
        }
        for what in REQUESTS {
            self.requests.with_label_values(&[what, "200"]);
        }
    }
}

/// Counts a connection or request, as long as there is one.
pub(crate) struct Counted(IntGauge);

impl Counted {
    pub(crate) fn of(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
