//! What is counted of Losant's devices. Labels take few values: an application or device is never one.

use moorline_dialects::losant::{connect::Refused, rest::route::LABELS};
use moorline_service::registry::mailman::Fate;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector};

/// What becomes of a state.
const STATES: [&str; 6] = ["taken", "nothing_left", "ignored", "unreadable", "refused", "failed"];
/// Why a connection is ended by this side.
const ENDS: [&str; 5] = ["limits", "topic", "misused", "too_large", "refused"];
/// What is noted of a device beside what it says.
const NOTES: [&str; 4] = ["ban", "ban_event", "command", "connection"];

/// The metrics; clones are the same.
#[derive(Debug, Clone)]
pub struct LosantMetrics {
    pub(crate) connections: IntGauge,
    pub(crate) admitted: IntCounterVec,
    pub(crate) states: IntCounterVec,
    pub(crate) commands: IntCounterVec,
    pub(crate) events_alone: IntCounter,
    pub(crate) notes_failed: IntCounterVec,
    pub(crate) ended: IntCounterVec,
    pub(crate) mail: IntCounterVec,
    pub(crate) rest: IntCounterVec,
    pub(crate) streams: IntGauge,
}

impl LosantMetrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// When a metric of the same name is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counters = |name, help, labels: &[&str]| {
            add(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauge = |name, help| add(registry, IntGauge::new(name, help)?);
        let metrics = Self {
            connections: gauge(
                "moorline_losant_connections",
                "Devices that are connected by MQTT",
            )?,
            admitted: counters(
                "moorline_losant_auth_attempts_total",
                "Devices that said who they are, by what came of it",
                &["result"],
            )?,
            states: counters(
                "moorline_losant_states_total",
                "States that devices reported, by what became of them",
                &["result"],
            )?,
            commands: counters(
                "moorline_losant_commands_total",
                "Commands that were given, by how they go to their devices",
                &["how"],
            )?,
            events_alone: add(
                registry,
                IntCounter::new(
                    "moorline_losant_events_alone_total",
                    "Events of what there was no room for among the values of a device",
                )?,
            )?,
            notes_failed: counters(
                "moorline_losant_notes_failed_total",
                "Bans, ends of connections and commands that were not noted, by what they are",
                &["what"],
            )?,
            mail: counters(
                "moorline_losant_mail_total",
                "Mail that was brought to devices, by what became of it",
                &["result"],
            )?,
            ended: counters(
                "moorline_losant_ended_total",
                "Connections that were ended for what their device said, by why",
                &["why"],
            )?,
            rest: counters(
                "moorline_losant_rest_requests_total",
                "Requests of the REST API, by what they asked for and by the status they got",
                &["what", "status"],
            )?,
            streams: gauge(
                "moorline_losant_streams",
                "Streams of states and commands that are open",
            )?,
        };
        metrics.begin();
        Ok(metrics)
    }

    /// Whoever looks finds them before they count anything.
    fn begin(&self) {
        for result in Refused::ALL.map(Refused::label).into_iter().chain(["accepted"]) {
            self.admitted.with_label_values(&[result]);
        }
        STATES.iter().for_each(|result| drop(self.states.with_label_values(&[*result])));
        ENDS.iter().for_each(|why| drop(self.ended.with_label_values(&[*why])));
        NOTES.iter().for_each(|what| drop(self.notes_failed.with_label_values(&[*what])));
        LABELS.iter().for_each(|what| drop(self.rest.with_label_values(&[*what, "200"])));
        for fate in Fate::ALL {
            self.mail.with_label_values(&[fate.label()]);
        }
        for how in ["live", "kept", "too_large"] {
            self.commands.with_label_values(&[how]);
        }
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
