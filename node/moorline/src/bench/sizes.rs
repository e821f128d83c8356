//! `moorline bench sizes`: the workloads that show how a broker grows, Moorline beside its peers in one run.

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};
use serde::Serialize;

use super::{
    Fact,
    fan_out::{self, FanOut},
    idle::{self, Idle},
    peers::{self, Running},
    process,
    queueing::{self, Queueing},
};
use crate::cli::{Peer, SizesArgs, Workload};

/// One peer's result of one workload.
#[derive(Debug, Clone, Serialize)]
struct Measured {
    workload: &'static str,
    peer: &'static str,
    round: usize,
    facts: Vec<Fact>,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

/// Runs it. A peer that can't start or finish is said in its line, and the run goes on.
///
/// # Errors
///
/// At the end, if there was such a peer.
pub(crate) fn run(args: &SizesArgs) -> anyhow::Result<()> {
    process::raise_descriptors();
    let mut failures = 0;
    for round in 0..args.peers.rounds {
        for &workload in &args.workloads {
            let mut first: Option<Vec<Fact>> = None;
            for (at, &peer) in args.peers.peers.iter().enumerate() {
                let (facts, failed) = match measure(workload, peer, round, args) {
                    Ok(facts) => (facts, None),
                    Err(error) => (Vec::new(), Some(format!("{error:#}"))),
                };
                failures += usize::from(failed.is_some());
                let (workload, peer) = (workload.name(), peer.name());
                let measured = Measured { workload, peer, round, facts, failed };
                if args.peers.json {
                    println!("{}", serde_json::to_string(&measured)?);
                } else {
                    print_line(&measured, first.as_deref());
                }
                if at == 0 {
                    first = Some(measured.facts);
                }
            }
        }
    }
    ensure!(failures == 0, "{failures} measurements failed");
    Ok(())
}

/// What was measured, and how the first peer compares.
fn print_line(measured: &Measured, first: Option<&[Fact]>) {
    let facts: Vec<String> = measured
        .facts
        .iter()
        .enumerate()
        .map(|(at, fact)| {
            let ratio = first.and_then(|first| first.get(at)).map(|first| {
                let better = first.value / fact.value;
                if fact.more_is_better { better } else { better.recip() }
            });
            let ratio = ratio.map_or(String::new(), |ratio| format!(" ({ratio:.2} x)"));
            format!("{:>12.2} {}{ratio}", fact.value, fact.name)
        })
        .collect();
    let result = match &measured.failed {
        Some(why) => format!("failed: {why}"),
        None => facts.join("  "),
    };
    println!("{:<16} {:<10} {result}", measured.workload, measured.peer);
}

fn measure(
    workload: Workload,
    peer: Peer,
    round: usize,
    args: &SizesArgs,
) -> anyhow::Result<Vec<Fact>> {
    // Of its own, since what failed stays there.
    let pid = std::process::id();
    let name = format!("moorline-sizes-{pid}-{}-{}-{round}", workload.name(), peer.name());
    let dir = args.peers.dir.join(name);
    let logs = || format!("its logs are in {}", dir.display());
    let running = peers::start(peer, &args.peers, &dir).with_context(logs)?;
    let facts = offer(workload, &running, args, &dir).with_context(logs)?;
    drop(running);
    std::fs::remove_dir_all(&dir)?;
    Ok(facts)
}

fn offer(
    workload: Workload,
    running: &Running,
    args: &SizesArgs,
    dir: &Path,
) -> anyhow::Result<Vec<Fact>> {
    let (targets, pids) = (running.targets.clone(), running.pids.clone());
    match workload {
        Workload::Queueing => {
            let (sessions, messages, size) = (args.sessions, args.messages, args.size);
            let nodes = targets.len();
            queueing::run(&Queueing { targets, sessions, messages, size }, dir, nodes)
        }
        Workload::FanOut | Workload::FanOutDurable => fan_out::run(&FanOut {
            targets,
            subscribers: args.subscribers,
            size: args.size,
            time: Duration::from_secs(args.seconds),
            durable: workload == Workload::FanOutDurable,
            pids,
        }),
        Workload::Idle | Workload::IdleDurable => idle::run(&Idle {
            connections: connections_of(targets.len(), args.connections),
            targets,
            durable: workload == Workload::IdleDurable,
            pids,
        }),
    }
}

/// The connections that are asked for, or as many as a peer's processes have descriptors for.
fn connections_of(nodes: usize, asked: usize) -> usize {
    let descriptors = process::descriptors_max();
    let most = nodes.saturating_mul(idle::held_by_one(descriptors));
    if most < asked {
        eprintln!(
            "moorline: {most} connections, not {asked}: {nodes} process(es) of {descriptors} descriptors"
        );
    }
    asked.min(most)
}
