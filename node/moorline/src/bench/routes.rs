//! `moorline bench routes`: how large the route trie gets, and how long a topic takes to be matched in it.

use std::{hint::black_box, time::Instant};

use hdrhistogram::Histogram;
use moorline_core::{ShardId, trie::Trie};

use super::process;
use crate::cli::RoutesArgs;

/// Topics looked up.
const LOOKUPS: usize = 200_000;
/// The longest lookup told apart, in nanoseconds.
const LOOKUP_MAX_NS: u64 = 10_000_000_000;
/// Filters of one site in the mix.
const DEVICES: usize = 100;

/// Runs it.
pub(crate) fn run(args: &RoutesArgs) -> anyhow::Result<()> {
    let own = [std::process::id()];
    let before = process::resident_bytes(&own)?;
    let mut routes = Trie::new();
    let began = Instant::now();
    for at in 0..args.count {
        routes.insert(filter(at).as_bytes(), ShardId(u16::try_from(at % 12)? + 1), ());
    }
    let built = began.elapsed();
    let bytes = process::resident_bytes(&own)?.saturating_sub(before);
    let mut took = Histogram::<u64>::new_with_bounds(1, LOOKUP_MAX_NS, 3)?;
    let mut found: usize = 0;
    for step in 0..LOOKUPS {
        // A prime walks through all sites in no order that a cache could like.
        let topic = topic(step.wrapping_mul(7_919) % args.count.max(1));
        let began = Instant::now();
        routes.matches(black_box(topic.as_bytes()), |_, ()| found += 1);
        took.saturating_record(u64::try_from(began.elapsed().as_nanos())?);
    }
    let at = |quantile| took.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "{} filters: {:.0} bytes each, built in {:.1} s; a match: p50 {:.1} us, p99 {:.1} us, {:.2} found",
        routes.len(),
        bytes as f64 / args.count.max(1) as f64,
        built.as_secs_f64(),
        at(0.5),
        at(0.99),
        found as f64 / LOOKUPS as f64,
    );
    Ok(())
}

/// Of ten filters eight are exact (a device's commands), one is a device's whole tree, one crosses devices.
fn filter(at: usize) -> String {
    let (site, device) = (at / DEVICES, at % DEVICES);
    match at % 10 {
        8 => format!("site/{site}/device/{device}/#"),
        9 => format!("site/{site}/+/{device}/state"),
        _ => format!("site/{site}/device/{device}/command"),
    }
}

fn topic(at: usize) -> String {
    let (site, device) = (at / DEVICES, at % DEVICES);
    let what = if at.is_multiple_of(2) { "command" } else { "state" };
    format!("site/{site}/device/{device}/{what}")
}
