//! The result of one load, for eyes and for machines.

use hdrhistogram::Histogram;
use serde::Serialize;

/// One load against one broker.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LoadResult {
    /// Publishes acknowledged per second.
    pub(crate) acked_per_s: f64,
    /// Messages delivered per second.
    pub(crate) delivered_per_s: f64,
    /// From publish to PUBACK.
    pub(crate) ack_ms: Quantiles,
    /// From publish to delivery.
    pub(crate) end_to_end_ms: Quantiles,
    /// CPU of the broker's processes per delivered message, if their pids were given.
    pub(crate) broker_us_per_message: Option<f64>,
    /// Resident memory of the broker's processes at the end.
    pub(crate) broker_rss_mib: Option<f64>,
    /// CPU of this generator per delivered message.
    pub(crate) generator_us_per_message: f64,
    /// Deliveries out of a publisher's order, or twice.
    pub(crate) out_of_order: u64,
    /// Clients that lost their connection while it ran.
    pub(crate) broken: u64,
}

/// Points of a distribution, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Quantiles {
    /// Half is faster.
    pub(crate) p50: f64,
    /// 99 of 100 are faster.
    pub(crate) p99: f64,
    /// 999 of 1,000 are faster.
    pub(crate) p999: f64,
}

impl Quantiles {
    /// From a histogram of nanoseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }
}

impl LoadResult {
    /// Prints it to standard output.
    pub(crate) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let Quantiles { p50, p99, p999 } = self.ack_ms;
        println!(
            "acked      {:>10.0}/s   p50 {p50:.2} ms, p99 {p99:.2}, p99.9 {p999:.2}",
            self.acked_per_s
        );
        let Quantiles { p50, p99, p999 } = self.end_to_end_ms;
        println!(
            "delivered  {:>10.0}/s   p50 {p50:.2} ms, p99 {p99:.2}, p99.9 {p999:.2}",
            self.delivered_per_s
        );
        if let (Some(cpu), Some(rss)) = (self.broker_us_per_message, self.broker_rss_mib) {
            println!("broker     {cpu:>10.1} us CPU per message, {rss:.0} MiB resident");
        }
        println!("generator  {:>10.1} us CPU per message", self.generator_us_per_message);
        if self.out_of_order + self.broken > 0 {
            println!(
                "TROUBLE    {} out of order, {} connections broken",
                self.out_of_order, self.broken
            );
        }
        Ok(())
    }
}

/// One number of a workload.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Fact {
    /// What it counts, with its unit.
    pub(crate) name: &'static str,
    /// The number.
    pub(crate) value: f64,
    /// Whether more of it is better.
    pub(crate) more_is_better: bool,
}

impl Fact {
    /// More is better.
    pub(crate) fn rate(name: &'static str, value: f64) -> Self {
        Self { name, value, more_is_better: true }
    }

    /// Less is better.
    pub(crate) fn cost(name: &'static str, value: f64) -> Self {
        Self { name, value, more_is_better: false }
    }
}
