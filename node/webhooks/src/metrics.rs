//! What is counted of webhooks. Labels take few values: a tenant or a webhook is never one.

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector,
};

use crate::decide::Kind;

/// What becomes of events.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// The receiver has it.
    Delivered,
    /// It refused it, and the webhook goes on.
    Skipped,
    /// It was gone before.
    Missed,
}

impl Fate {
    const ALL: [Self; 3] = [Self::Delivered, Self::Skipped, Self::Missed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Skipped => "skipped",
            Self::Missed => "missed",
        }
    }
}

/// What webhooks do.
const DOING: [&str; 3] = ["running", "paused", "waiting"];

/// The metrics; clones are the same.
#[derive(Debug, Clone)]
pub struct WebhookMetrics {
    requests: IntCounterVec,
    events: IntCounterVec,
    webhooks: IntGaugeVec,
    pub(crate) under_way: IntGauge,
    pub(crate) lag: IntGauge,
    pub(crate) commits_failed: IntCounter,
    pub(crate) paused: IntCounter,
}

impl WebhookMetrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// When a metric of the same name is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counters =
            |name, help, label| add(registry, IntCounterVec::new(Opts::new(name, help), &[label])?);
        let counter = |name, help| add(registry, IntCounter::new(name, help)?);
        let gauge = |name, help| add(registry, IntGauge::new(name, help)?);
        let webhooks = Opts::new("moorline_webhooks", "Webhooks of this node, by what they do");
        let metrics = Self {
            requests: counters(
                "moorline_webhook_requests_total",
                "Requests of webhooks, by what came of them",
                "result",
            )?,
            events: counters(
                "moorline_webhook_events_total",
                "Events for webhooks, by what became of them",
                "result",
            )?,
            webhooks: add(registry, IntGaugeVec::new(webhooks, &["state"])?)?,
            under_way: gauge(
                "moorline_webhook_requests",
                "Requests of webhooks that are under way",
            )?,
            lag: gauge(
                "moorline_webhook_lag_events",
                "Events behind the offsets of this node's running webhooks, filters not considered",
            )?,
            commits_failed: counter(
                "moorline_webhook_commits_failed_total",
                "Times that a stream did not take how far a webhook is",
            )?,
            paused: counter(
                "moorline_webhook_pauses_total",
                "Webhooks that paused because of what their receivers answered",
            )?,
        };
        for kind in Kind::ALL {
            metrics.requests.with_label_values(&[kind.name()]);
        }
        for fate in Fate::ALL {
            metrics.events.with_label_values(&[fate.name()]);
        }
        metrics.are([0; DOING.len()]);
        Ok(metrics)
    }

    pub(crate) fn heard(&self, kind: Kind) {
        self.requests.with_label_values(&[kind.name()]).inc();
    }

    pub(crate) fn events(&self, fate: Fate, events: u64) {
        self.events.with_label_values(&[fate.name()]).inc_by(events);
    }

    /// How many run, are paused, and wait for a place.
    pub(crate) fn are(&self, many: [usize; DOING.len()]) {
        for (state, many) in DOING.into_iter().zip(many) {
            self.webhooks.with_label_values(&[state]).set(i64::try_from(many).unwrap_or(i64::MAX));
        }
    }
}

/// What one reader adds to the lag of all, as long as it is there.
pub(crate) struct Lag {
    all: IntGauge,
    own: i64,
}

impl Lag {
    pub(crate) fn of(all: &IntGauge) -> Self {
        Self { all: all.clone(), own: 0 }
    }

    pub(crate) fn is(&mut self, events: u64) {
        let events = i64::try_from(events).unwrap_or(i64::MAX);
        self.all.add(events - self.own);
        self.own = events;
    }
}

impl Drop for Lag {
    fn drop(&mut self) {
        self.all.sub(self.own);
    }
}

/// Counts a request, as long as it is under way.
pub(crate) struct UnderWay(IntGauge);

impl UnderWay {
    pub(crate) fn of(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
