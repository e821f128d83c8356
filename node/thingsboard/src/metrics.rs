//! What is counted of ThingsBoard's devices. Labels take few values: a tenant or device is never one.

use moorline_service::registry::mailman::Fate;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry, core::Collector};

use crate::limits;

/// The metrics; clones are the same.
#[derive(Debug, Clone)]
pub struct ThingsboardMetrics {
    pub(crate) connections: IntGauge,
    pub(crate) sockets: IntGauge,
    pub(crate) requests: IntCounterVec,
    pub(crate) http_requests: IntCounterVec,
    pub(crate) provisions: IntCounterVec,
    pub(crate) limited: IntCounterVec,
    pub(crate) mail: IntCounterVec,
}

/// What is asked, as a label.
const WHAT: [&str; 9] = [
    "telemetry",
    "attributes",
    "attributes_request",
    "call",
    "claim",
    "package",
    "gateway",
    "sparkplug",
    "other",
];
/// The same over HTTP.
const HTTP_WHAT: [&str; 17] = [
    "telemetry",
    "attributes",
    "attributes_request",
    "attributes_poll",
    "call",
    "call_poll",
    "claim",
    "package",
    "provision",
    "rest_auth",
    "rest_devices",
    "rest_telemetry",
    "rest_calls",
    "rest_socket",
    "rest_profiles",
    "rest_packages",
    "rest_claims",
];
/// What came of requests for credentials.
const PROVISIONS: [&str; 3] = ["success", "not_found", "failure"];
/// What came of it.
const RESULTS: [&str; 5] = ["done", "unknown_topic", "invalid", "limited", "failed"];

impl ThingsboardMetrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// When a metric of the same name is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let connections = IntGauge::new(
            "moorline_thingsboard_connections",
            "Devices that are connected by MQTT",
        )?;
        let sockets = IntGauge::new(
            "moorline_thingsboard_websockets",
            "Integrators that are connected by WebSocket",
        )?;
        let requests = Opts::new(
            "moorline_thingsboard_requests_total",
            "What devices published, by what it was about and by what came of it",
        );
        let http_requests = Opts::new(
            "moorline_thingsboard_http_requests_total",
            "Requests of devices and integrators over HTTP, by what they asked for and by the status they got",
        );
        let provisions = Opts::new(
            "moorline_thingsboard_provisions_total",
            "Requests for a device's credentials, by what came of them",
        );
        let limited = Opts::new(
            "moorline_thingsboard_limited_total",
            "Messages that were refused by a rate limit of the tenant, by whose limit and by what there was too much of",
        );
        let mail = Opts::new(
            "moorline_thingsboard_mail_total",
            "Mail that was brought to devices, by what became of it",
        );
        let metrics = Self {
            connections: add(registry, connections)?,
            sockets: add(registry, sockets)?,
            requests: add(registry, IntCounterVec::new(requests, &["what", "result"])?)?,
            http_requests: add(registry, IntCounterVec::new(http_requests, &["what", "status"])?)?,
            provisions: add(registry, IntCounterVec::new(provisions, &["result"])?)?,
            limited: add(registry, IntCounterVec::new(limited, &["limit", "what"])?)?,
            mail: add(registry, IntCounterVec::new(mail, &["result"])?)?,
        };
        limits::count_all(&metrics.limited);
        for fate in Fate::ALL {
            metrics.mail.with_label_values(&[fate.label()]);
        }
        for what in HTTP_WHAT {
            metrics.http_requests.with_label_values(&[what, "200"]);
        }
        for result in PROVISIONS {
            metrics.provisions.with_label_values(&[result]);
        }
        for what in WHAT {
            for result in RESULTS {
                metrics.requests.with_label_values(&[what, result]);
            }
        }
        Ok(metrics)
    }
}

impl ThingsboardMetrics {
    /// Counts what became of a mail.
    pub(crate) fn count_mail(&self, fate: Fate) {
        self.mail.with_label_values(&[fate.label()]).inc();
    }
}

/// Counts a connection, as long as there is one.
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
