//! Moorline and its peers one after the other in one run: the same load, the same machine, the same hour.

use std::{num::NonZeroU16, time::Duration};

use anyhow::Context;
use serde::Serialize;

use super::{disk, load, peers, report::LoadResult};
use crate::cli::{CompareArgs, Peer};

/// How long the disk is measured first.
const DISK_TIME: Duration = Duration::from_secs(2);
/// Bytes per sync of that.
const DISK_BLOCK: usize = 512;

/// One peer's result at one load.
#[derive(Debug, Clone, Serialize)]
struct Measured {
    peer: String,
    round: usize,
    throughput: LoadResult,
    /// One publisher, window 1.
    single: LoadResult,
}

/// Runs `moorline bench compare`.
pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let disk = disk::measure(&args.peers.dir, DISK_BLOCK, DISK_TIME)?;
    let disk_p50 = disk.p50.as_secs_f64() * 1e3;
    eprintln!("one fdatasync here: p50 {disk_p50:.3} ms, {:.0}/s", disk.per_second);
    let mut all = Vec::new();
    for round in 0..args.peers.rounds {
        let mut order = args.peers.peers.clone();
        if round % 2 == 1 {
            order.reverse();
        }
        for peer in order {
            let measured = measure(peer, round, args)?;
            eprintln!(
                "round {round} {:<10} {:>8.0} delivered/s, {:>6.1} us/message, window 1 p50 {:.2} ms",
                measured.peer,
                measured.throughput.delivered_per_s,
                measured.throughput.broker_us_per_message.unwrap_or(f64::NAN),
                measured.single.ack_ms.p50,
            );
            if args.peers.json {
                println!("{}", serde_json::to_string(&measured)?);
            }
            all.push(measured);
        }
    }
    if !args.peers.json {
        print!("{}", table(&all, disk_p50));
    }
    Ok(())
}

fn measure(peer: Peer, round: usize, args: &CompareArgs) -> anyhow::Result<Measured> {
    let dir = args.peers.dir.join(format!("moorline-bench-{}-{}", std::process::id(), peer.name()));
    let result = measure_in(&dir, peer, round, args)
        .with_context(|| format!("{}; its logs are in {}", peer.name(), dir.display()))?;
    std::fs::remove_dir_all(&dir)?;
    Ok(result)
}

fn measure_in(
    dir: &std::path::Path,
    peer: Peer,
    round: usize,
    args: &CompareArgs,
) -> anyhow::Result<Measured> {
    let running = peers::start(peer, &args.peers, dir)?;
    let mut load = load::Load {
        targets: running.targets.clone(),
        publishers: 1,
        window: NonZeroU16::MIN,
        size: args.size,
        time: Duration::from_secs(args.seconds),
        qos: moorline_core::QoS::AtLeastOnce,
        durable: true,
        pids: running.pids.clone(),
    };
    let single = load::run(&load)?;
    load.publishers = args.publishers;
    load.window = NonZeroU16::new(args.window).unwrap_or(NonZeroU16::MIN);
    let throughput = load::run(&load)?;
    Ok(Measured { peer: peer.name().to_owned(), round, throughput, single })
}

/// Medians per peer, and ratios of the first peer to each.
fn table(all: &[Measured], disk_p50: f64) -> String {
    let mut names: Vec<&str> = Vec::new();
    for measured in all {
        if !names.contains(&measured.peer.as_str()) {
            names.push(&measured.peer);
        }
    }
    let column = |peer: &str, of: &dyn Fn(&Measured) -> f64| {
        median(all.iter().filter(|measured| measured.peer == peer).map(of).collect())
    };
    let mut out = format!(
        "{:<10} {:>11} {:>8} {:>9} {:>9} {:>9} {:>8} {:>9}\n",
        "peer", "delivered/s", "ratio", "us/msg", "e2e p50", "e2e p99", "w1 p50", "w1/fsync"
    );
    let first =
        names.first().map_or(f64::NAN, |peer| column(peer, &|m| m.throughput.delivered_per_s));
    for peer in &names {
        let rate = column(peer, &|m| m.throughput.delivered_per_s);
        let single = column(peer, &|m| m.single.ack_ms.p50);
        out += &format!(
            "{peer:<10} {rate:>11.0} {:>8.2} {:>9.1} {:>9.2} {:>9.2} {single:>8.2} {:>9.1}\n",
            first / rate,
            column(peer, &|m| m.throughput.broker_us_per_message.unwrap_or(f64::NAN)),
            column(peer, &|m| m.throughput.end_to_end_ms.p50),
            column(peer, &|m| m.throughput.end_to_end_ms.p99),
            single / disk_p50,
        );
    }
    out + "ratio: the first peer's rate over this one's; w1: one publisher, window 1, ack in ms\n"
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
