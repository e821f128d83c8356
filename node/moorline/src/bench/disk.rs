//! How fast this disk syncs: the floor under every durable acknowledgement.

use std::{
    fs::OpenOptions,
    io::Write,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::cli::DiskArgs;

/// The longest sync told apart: a minute, in nanoseconds.
const SYNC_MAX_NS: u64 = 60_000_000_000;

/// One append-and-fdatasync loop.
#[derive(Debug)]
pub(crate) struct DiskResult {
    /// Syncs per second.
    pub(crate) per_second: f64,
    /// Half of the syncs are faster.
    pub(crate) p50: Duration,
    /// 99 of 100 are faster.
    pub(crate) p99: Duration,
}

/// Runs `moorline bench disk`.
pub(crate) fn run(args: &DiskArgs) -> anyhow::Result<()> {
    let result = measure(&args.dir, args.size, Duration::from_secs(args.seconds))?;
    println!(
        "append {} B + fdatasync: {:.0}/s, p50 {:.3} ms, p99 {:.3} ms",
        args.size,
        result.per_second,
        result.p50.as_secs_f64() * 1e3,
        result.p99.as_secs_f64() * 1e3
    );
    Ok(())
}

/// Appends and syncs for `time` in a file below `dir`, which is removed again.
pub(crate) fn measure(
    dir: &std::path::Path,
    size: usize,
    time: Duration,
) -> anyhow::Result<DiskResult> {
    let path = dir.join(format!("moorline-bench-disk-{}", std::process::id()));
    let mut file = OpenOptions::new().create_new(true).append(true).open(&path)?;
    let measured = syncs(&mut file, &vec![0x5a; size], time);
    std::fs::remove_file(&path)?;
    let (histogram, took) = measured?;
    Ok(DiskResult {
        per_second: histogram.len() as f64 / took.as_secs_f64(),
        p50: Duration::from_nanos(histogram.value_at_quantile(0.5)),
        p99: Duration::from_nanos(histogram.value_at_quantile(0.99)),
    })
}

fn syncs(
    file: &mut std::fs::File,
    block: &[u8],
    time: Duration,
) -> anyhow::Result<(Histogram<u64>, Duration)> {
    let mut histogram = Histogram::new_with_bounds(1_000, SYNC_MAX_NS, 3)?;
    let start = Instant::now();
    while start.elapsed() < time {
        let before = Instant::now();
        file.write_all(block)?;
        file.sync_data()?;
        histogram.saturating_record(u64::try_from(before.elapsed().as_nanos())?);
    }
    Ok((histogram, start.elapsed()))
}
