//! What the router counts. Names are an interface (docs/metrics.md); labels take few values.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    exponential_buckets,
};

use crate::{error::SubmitError, forwarder::Failure};

/// All metrics of the router. Cheap to clone; every clone counts into the same cells.
#[derive(Debug, Clone)]
pub(crate) struct RouterMetrics {
    pub(crate) commands: IntCounter,
    pub(crate) runs: IntCounter,
    pub(crate) waiting: IntGauge,
    pub(crate) leader_changes: IntCounter,
    answered: IntCounter,
    busy: IntCounter,
    no_leader: IntCounter,
    unanswered: IntCounter,
    too_large: IntCounter,
    stopped: IntCounter,
    failed_not_leader: IntCounter,
    failed_busy: IntCounter,
    failed_not_taken: IntCounter,
    failed_unknown: IntCounter,
    run_seconds: Histogram,
}

impl RouterMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let counters = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let commands = counter("moorline_router_commands_total", "Commands submitted")?;
        let runs = counter("moorline_router_runs_total", "Runs of commands sent to leaders")?;
        let help = "Changes of a shard's leader, as seen by the router";
        let leader_changes = counter("moorline_router_leader_changes_total", help)?;
        let help = "What became of commands";
        let outcomes = counters("moorline_router_outcomes_total", help, "outcome")?;
        let help = "Runs that have to be sent again, by why";
        let failures = counters("moorline_router_failures_total", help, "reason")?;
        let help = "Commands that wait for their answers";
        let waiting = IntGauge::new("moorline_router_waiting_commands", help)?;
        registry.register(Box::new(waiting.clone()))?;
        let help = "From the first command of a run to its answers";
        let opts = HistogramOpts::new("moorline_router_run_seconds", help)
            // 100 µs to 30 s: below is faster than a disk, above is the deadline.
            .buckets(exponential_buckets(0.000_1, 2.5, 15)?);
        let run_seconds = Histogram::with_opts(opts)?;
        registry.register(Box::new(run_seconds.clone()))?;
        let outcome = |outcome| outcomes.with_label_values(&[outcome]);
        let failure = |reason| failures.with_label_values(&[reason]);
        Ok(Self {
            commands,
            runs,
            waiting,
            leader_changes,
            answered: outcome("answered"),
            busy: outcome("busy"),
            no_leader: outcome("no_leader"),
            unanswered: outcome("unanswered"),
            too_large: outcome("too_large"),
            stopped: outcome("stopped"),
            failed_not_leader: failure("not_leader"),
            failed_busy: failure("busy"),
            failed_not_taken: failure("not_taken"),
            failed_unknown: failure("unknown"),
            run_seconds,
        })
    }

    pub(crate) fn run_answered(&self, took: Duration) {
        self.run_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn commands_answered(&self, count: usize) {
        self.answered.inc_by(count as u64);
    }

    pub(crate) fn command_failed(&self, error: &SubmitError) {
        match error {
            SubmitError::Busy { .. } => self.busy.inc(),
            SubmitError::NoLeader { .. } => self.no_leader.inc(),
            SubmitError::Unanswered { .. } => self.unanswered.inc(),
            SubmitError::TooLarge { .. } => self.too_large.inc(),
            SubmitError::Stopped => self.stopped.inc(),
        }
    }

    pub(crate) fn run_failed(&self, failure: Failure) {
        match failure {
            Failure::NotLeader { .. } => self.failed_not_leader.inc(),
            Failure::Busy => self.failed_busy.inc(),
            Failure::NotTaken => self.failed_not_taken.inc(),
            Failure::Unknown => self.failed_unknown.inc(),
        }
    }
}

#[cfg(test)]
mod tests {
    use moorline_core::ShardId;

    use super::*;

    #[test]
    fn names_are_what_the_dashboards_say() {
        let registry = Registry::new();
        let metrics = RouterMetrics::register(&registry).unwrap();
        metrics.command_failed(&SubmitError::NoLeader { shard: ShardId(1) });
        metrics.commands_answered(5);
        metrics.run_failed(Failure::Unknown);
        metrics.run_answered(Duration::from_millis(1));
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "moorline_router_commands_total 0",
            "moorline_router_runs_total 0",
            "moorline_router_leader_changes_total 0",
            "moorline_router_waiting_commands 0",
            "moorline_router_outcomes_total{outcome=\"answered\"} 5",
            "moorline_router_outcomes_total{outcome=\"no_leader\"} 1",
            "moorline_router_failures_total{reason=\"unknown\"} 1",
            "moorline_router_run_seconds_count 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
