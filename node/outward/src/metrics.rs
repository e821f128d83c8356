//! What is counted of requests to the outside. Labels take few values: a tenant or host is never one.

use std::{
    sync::Arc,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector,
    exponential_buckets,
};

use crate::unanswered::Unanswered;

/// The first bucket of times.
const SECONDS_MIN: f64 = 0.001;
/// Up to half a minute.
const BUCKETS: usize = 16;
/// Between two lines of the log about one reason.
const LOG_EVERY_MS: u64 = 10_000;
/// The first digits of an answer's status.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The metrics; clones are the same.
#[derive(Debug, Clone)]
pub struct OutwardMetrics {
    answered: [IntCounter; CLASSES.len()],
    unanswered: [IntCounter; Unanswered::ALL.len()],
    under_way: IntGauge,
    connections: IntGauge,
    open: Arc<AtomicUsize>,
    seconds: Histogram,
    lines: Arc<Lines>,
}

/// When the next line may be written for each reason, in milliseconds since the start.
#[derive(Debug)]
struct Lines {
    start: Instant,
    next: [AtomicU64; Unanswered::ALL.len()],
}

impl OutwardMetrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// When a metric of the same name is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counters =
            |name, help, label| add(registry, IntCounterVec::new(Opts::new(name, help), &[label])?);
        let answered = counters(
            "moorline_outward_answers_total",
            "Answers of endpoints outside, by class of their status",
            "status",
        )?;
        let refused = counters(
            "moorline_outward_refused_total",
            "Requests to the outside that this node refused to send, by reason",
            "reason",
        )?;
        let failed = counters(
            "moorline_outward_failed_total",
            "Requests to the outside that got no answer, by reason",
            "reason",
        )?;
        let gauge = |name, help| add(registry, IntGauge::new(name, help)?);
        let seconds = HistogramOpts::new(
            "moorline_outward_seconds",
            "From a request to the outside to its answer or failure, waiting for a place included",
        );
        let seconds = seconds.buckets(exponential_buckets(SECONDS_MIN, 2.0, BUCKETS)?);
        let unanswered = |why: Unanswered| {
            let counters = if why.is_refusal() { &refused } else { &failed };
            counters.with_label_values(&[why.name()])
        };
        Ok(Self {
            answered: CLASSES.map(|class| answered.with_label_values(&[class])),
            unanswered: Unanswered::ALL.map(unanswered),
            under_way: gauge(
                "moorline_outward_requests",
                "Requests to the outside that are under way or wait for a place",
            )?,
            connections: gauge("moorline_outward_connections", "Connections to endpoints outside")?,
            open: Arc::default(),
            seconds: add(registry, Histogram::with_opts(seconds)?)?,
            lines: Arc::new(Lines {
                start: Instant::now(),
                next: [const { AtomicU64::new(0) }; Unanswered::ALL.len()],
            }),
        })
    }

    /// A request is under way as long as this is there.
    pub(crate) fn begin(&self) -> UnderWay {
        self.under_way.inc();
        UnderWay(self.under_way.clone())
    }

    pub(crate) fn answered(&self, status: u16, took: Duration) {
        let class = usize::from(status / 100).clamp(1, CLASSES.len());
        self.answered[class - 1].inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Counts it; whether a line may be written.
    pub(crate) fn unanswered(&self, why: Unanswered, took: Duration) -> bool {
        self.unanswered[why as usize].inc();
        if !why.is_refusal() {
            self.seconds.observe(took.as_secs_f64());
        }
        let now = u64::try_from(self.lines.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (place, later) = (&self.lines.next[why as usize], now.saturating_add(LOG_EVERY_MS));
        let next = place.load(Ordering::Relaxed);
        let order = Ordering::Relaxed;
        now >= next && place.compare_exchange(next, later, order, order).is_ok()
    }

    /// Connections that are there.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// A connection is there as long as this is.
    pub(crate) fn connected(&self) -> Connected {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.connections.inc();
        Connected { open: Arc::clone(&self.open), connections: self.connections.clone() }
    }
}

/// Counts a request.
pub(crate) struct UnderWay(IntGauge);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts a connection.
pub(crate) struct Connected {
    open: Arc<AtomicUsize>,
    connections: IntGauge,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.connections.dec();
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
