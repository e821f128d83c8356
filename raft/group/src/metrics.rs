//! What the groups count. Handles of each shard are made once; nothing on a hot path looks a label up.

use moorline_core::ShardId;
use prometheus::{
    Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, core::Collector, exponential_buckets,
};

/// 50 µs to about 6.5 s: below, no disk answers; above, devices hang up.
fn seconds() -> Vec<f64> {
    exponential_buckets(0.000_05, 2.0, 18).expect("positive start, factor above one")
}

/// The metrics of all groups of a node.
#[derive(Debug, Clone)]
pub(crate) struct GroupMetrics {
    term: IntGaugeVec,
    leader: IntGaugeVec,
    commit_index: IntGaugeVec,
    applied_index: IntGaugeVec,
    durable_index: IntGaugeVec,
    leader_changes: IntCounterVec,
    entries: IntCounterVec,
    commands_per_entry: Histogram,
    propose_seconds: Histogram,
    append_seconds: Histogram,
    apply_seconds: Histogram,
    busy: IntCounter,
    pub(crate) ring_bytes: IntGauge,
    pub(crate) overlay_bytes: IntGauge,
    pub(crate) checkpoint_seconds: Histogram,
    pub(crate) checkpoint_bytes: IntCounter,
    pub(crate) snapshot_seconds: HistogramVec,
    pub(crate) snapshot_bytes: IntCounterVec,
    pub(crate) takeovers: IntCounter,
    pub(crate) transfers: IntCounter,
}

/// The cells of one shard.
#[derive(Debug, Clone)]
pub(crate) struct ShardMetrics {
    pub(crate) term: IntGauge,
    /// The leader's node id, 0 if there is none.
    pub(crate) leader: IntGauge,
    pub(crate) commit_index: IntGauge,
    pub(crate) applied_index: IntGauge,
    pub(crate) durable_index: IntGauge,
    pub(crate) leader_changes: IntCounter,
    pub(crate) entries: IntCounter,
    pub(crate) commands_per_entry: Histogram,
    pub(crate) propose_seconds: Histogram,
    pub(crate) append_seconds: Histogram,
    pub(crate) apply_seconds: Histogram,
    pub(crate) busy: IntCounter,
}

impl GroupMetrics {
    /// Makes them and adds them to `registry`.
    pub(crate) fn register(registry: &Registry) -> Result<Self, Error> {
        let make = Make { registry };
        let metrics = Self {
            term: make.gauges("moorline_raft_term", "The Raft term")?,
            leader: make.gauges("moorline_raft_leader", "Node id of the leader, 0 for none")?,
            commit_index: make.gauges("moorline_raft_commit_index", "Last committed entry")?,
            applied_index: make.gauges("moorline_raft_applied_index", "Last applied entry")?,
            durable_index: make
                .gauges("moorline_raft_durable_index", "Last entry whose rows are on disk")?,
            leader_changes: make.counters(
                "moorline_raft_leader_changes_total",
                "Leaders seen",
                "shard",
            )?,
            entries: make.counters("moorline_raft_entries_total", "Entries applied", "shard")?,
            commands_per_entry: make.histogram(
                "moorline_raft_commands_per_entry",
                "Commands in each entry proposed here",
                exponential_buckets(1.0, 2.0, 9)?,
            )?,
            propose_seconds: make.histogram(
                "moorline_raft_propose_seconds",
                "From proposing an entry to its answers",
                seconds(),
            )?,
            append_seconds: make.histogram(
                "moorline_raft_append_seconds",
                "From appending entries to their being on the disk of this node",
                seconds(),
            )?,
            apply_seconds: make.histogram(
                "moorline_raft_apply_seconds",
                "Applying the entries that were ready",
                seconds(),
            )?,
            busy: make.counter("moorline_raft_busy_total", "Runs refused: too much waits")?,
            ring_bytes: make.gauge("moorline_raft_ring_bytes", "Log entries held in memory")?,
            overlay_bytes: make
                .gauge("moorline_raft_overlay_bytes", "Rows in memory since the last checkpoint")?,
            checkpoint_seconds: make.histogram(
                "moorline_raft_checkpoint_seconds",
                "Writing out the rows of all groups",
                exponential_buckets(0.001, 2.0, 16)?,
            )?,
            checkpoint_bytes: make
                .counter("moorline_raft_checkpoint_bytes_total", "Bytes of rows written out")?,
            snapshot_seconds: make.histograms(
                "moorline_snapshot_seconds",
                "Sending or installing a snapshot",
                exponential_buckets(0.01, 2.0, 16)?,
                "direction",
            )?,
            snapshot_bytes: make.counters(
                "moorline_snapshot_bytes_total",
                "Bytes of snapshots",
                "direction",
            )?,
            takeovers: make.counter(
                "moorline_raft_takeovers_total",
                "Leaderships asked for because the leader's process died",
            )?,
            transfers: make.counter(
                "moorline_raft_transfers_total",
                "Leaderships offered to another node (balance, clean stop)",
            )?,
        };
        metrics.begin();
        Ok(metrics)
    }

    /// A scrape shows these also before the first.
    fn begin(&self) {
        for direction in ["sent", "received"] {
            self.snapshot_seconds.with_label_values(&[direction]);
            self.snapshot_bytes.with_label_values(&[direction]);
        }
    }

    pub(crate) fn of(&self, shard: ShardId) -> ShardMetrics {
        let shard = shard.to_string();
        let label = [shard.as_str()];
        ShardMetrics {
            term: self.term.with_label_values(&label),
            leader: self.leader.with_label_values(&label),
            commit_index: self.commit_index.with_label_values(&label),
            applied_index: self.applied_index.with_label_values(&label),
            durable_index: self.durable_index.with_label_values(&label),
            leader_changes: self.leader_changes.with_label_values(&label),
            entries: self.entries.with_label_values(&label),
            commands_per_entry: self.commands_per_entry.clone(),
            propose_seconds: self.propose_seconds.clone(),
            append_seconds: self.append_seconds.clone(),
            apply_seconds: self.apply_seconds.clone(),
            busy: self.busy.clone(),
        }
    }

    /// A shard that has no replica here any more says nothing: what it said last would be taken for a replica that does not get on.
    pub(crate) fn forget(&self, shard: ShardId) {
        let shard = shard.to_string();
        let label = [shard.as_str()];
        let gauges = [
            &self.term,
            &self.leader,
            &self.commit_index,
            &self.applied_index,
            &self.durable_index,
        ];
        // One that is not there is no mistake: it is gone, too.
        gauges.into_iter().for_each(|gauge| _ = gauge.remove_label_values(&label));
        [&self.leader_changes, &self.entries]
            .into_iter()
            .for_each(|counter| _ = counter.remove_label_values(&label));
    }
}

struct Make<'a> {
    registry: &'a Registry,
}

impl Make<'_> {
    fn add<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, Error> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.add(IntGauge::new(name, help)?)
    }

    fn gauges(&self, name: &str, help: &str) -> Result<IntGaugeVec, Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), &["shard"])?)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.add(IntCounter::new(name, help)?)
    }

    fn counters(&self, name: &str, help: &str, label: &str) -> Result<IntCounterVec, Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), &[label])?)
    }

    fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram, Error> {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: Vec<f64>,
        label: &str,
    ) -> Result<HistogramVec, Error> {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), &[label])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_dashboards_say() {
        let registry = Registry::new();
        let metrics = GroupMetrics::register(&registry).unwrap();
        let shard = metrics.of(ShardId(3));
        shard.leader.set(2);
        shard.leader_changes.inc();
        metrics.snapshot_bytes.with_label_values(&["sent"]).inc_by(7);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "moorline_raft_leader{shard=\"3\"} 2",
            "moorline_raft_leader_changes_total{shard=\"3\"} 1",
            "moorline_snapshot_bytes_total{direction=\"sent\"} 7",
            "moorline_raft_takeovers_total 0",
            "moorline_snapshot_bytes_total{direction=\"received\"} 0",
            "moorline_snapshot_seconds_count{direction=\"received\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_shard_that_was_closed_says_nothing_and_begins_anew() {
        let registry = Registry::new();
        let metrics = GroupMetrics::register(&registry).unwrap();
        let text = || prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let (gone, stays) = (metrics.of(ShardId(3)), metrics.of(ShardId(30)));
        gone.commit_index.set(88_123);
        gone.entries.inc();
        stays.commit_index.set(1);
        metrics.forget(ShardId(3));
        // Whoever still holds a cell writes where nobody reads.
        gone.commit_index.set(88_124);
        assert!(!text().contains("shard=\"3\""), "{}", text());
        assert!(text().contains("moorline_raft_commit_index{shard=\"30\"} 1"), "{}", text());
        metrics.forget(ShardId(3));
        metrics.of(ShardId(3));
        assert!(text().contains("moorline_raft_commit_index{shard=\"3\"} 0"), "{}", text());
    }
}
