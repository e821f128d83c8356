//! What is counted of Watson's clients. Labels take few values: an organisation or device is never one.

use moorline_dialects::watson::identity::Class;
use moorline_service::registry::mailman::Fate;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector};

/// What managed devices say, as a label.
const MANAGEMENT: [&str; 8] =
    ["manage", "unmanage", "location", "error_codes", "log", "notify", "response", "unknown"];
/// What the management API is asked for.
const REST: [&str; 13] = [
    "bulk", "types", "devices", "location", "mgmt", "diag", "lec", "security", "states", "status",
    "requests", "bundles", "groups",
];

/// Why something went nowhere.
const DROPPED: [&str; 9] = [
    "management",
    "unregistered",
    "unheard",
    "unnoted",
    "last_event",
    "quickstart",
    "failed_connect",
    "app_state",
    "unkept",
];

/// The metrics; clones are the same.
#[derive(Debug, Clone)]
pub struct WatsonMetrics {
    pub(crate) connections: IntGaugeVec,
    pub(crate) admitted: IntCounterVec,
    pub(crate) violations: IntCounterVec,
    pub(crate) dropped: IntCounterVec,
    pub(crate) requests: IntCounterVec,
    pub(crate) waiting: IntGauge,
    pub(crate) quickstart: IntGauge,
    pub(crate) management: IntCounterVec,
    pub(crate) rest: IntCounterVec,
    pub(crate) mail: IntCounterVec,
}

impl WatsonMetrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// When a metric of the same name is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let connections =
            Opts::new("moorline_watson_connections", "Clients that are connected, by class");
        let counters = |name, help, labels: &[&str]| {
            add(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let metrics = Self {
            connections: add(registry, IntGaugeVec::new(connections, &["class"])?)?,
            admitted: counters(
                "moorline_watson_auth_attempts_total",
                "Clients that said who they are, by class and by what came of it",
                &["class", "result"],
            )?,
            dropped: counters(
                "moorline_watson_dropped_total",
                "Messages that went nowhere and whose client was not told, by why",
                &["why"],
            )?,
            management: counters(
                "moorline_watson_management_total",
                "What managed devices said to the server, by what it was about",
                &["what"],
            )?,
            mail: counters(
                "moorline_watson_mail_total",
                "Mail that was brought to devices and gateways, by what became of it",
                &["result"],
            )?,
            rest: counters(
                "moorline_watson_rest_requests_total",
                "Requests of the management API, by what they asked for and by the status they got",
                &["what", "status"],
            )?,
            requests: counters(
                "moorline_watson_http_requests_total",
                "Requests of HTTP messaging, by what they asked for and by the status they got",
                &["what", "status"],
            )?,
            waiting: gauge(
                registry,
                "moorline_watson_http_waiting",
                "Requests over HTTP that ask for a command and are not answered yet",
            )?,
            quickstart: gauge(
                registry,
                "moorline_watson_quickstart_connections",
                "Connections of quickstart, which nobody registered",
            )?,
            violations: counters(
                "moorline_watson_violations_total",
                "Publishes and subscribes that their class does not have, by class",
                &["class", "what"],
            )?,
        };
        metrics.begin();
        Ok(metrics)
    }

    /// Whoever looks finds them before they count anything.
    fn begin(&self) {
        for why in DROPPED {
            self.dropped.with_label_values(&[why]);
        }
        for what in ["event", "command", "fetch"] {
            self.requests.with_label_values(&[what, "200"]);
        }
        for fate in Fate::ALL {
            self.mail.with_label_values(&[fate.label()]);
        }
        for what in MANAGEMENT {
            self.management.with_label_values(&[what]);
        }
        for what in REST {
            self.rest.with_label_values(&[what, "200"]);
        }
        for class in Class::ALL {
            self.connections.with_label_values(&[label(class)]);
            self.admitted.with_label_values(&[label(class), "accepted"]);
            self.admitted.with_label_values(&[label(class), "wrong_secret"]);
            self.admitted.with_label_values(&[label(class), "certificate"]);
            self.violations.with_label_values(&[label(class), "publish"]);
            self.violations.with_label_values(&[label(class), "subscribe"]);
        }
    }
}

/// A class as a label.
pub(crate) fn label(class: Class) -> &'static str {
    match class {
        Class::Device => "device",
        Class::Gateway => "gateway",
        Class::Application => "application",
        Class::SharedApplication => "shared_application",
    }
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    add(registry, IntGauge::new(name, help)?)
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
