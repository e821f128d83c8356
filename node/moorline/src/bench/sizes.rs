//! `moorline bench sizes`: the workloads that show how a broker grows, Moorline beside its peers in one run.

use std::{path::Path, time::Duration};

use anyhow::Context;
use serde::Serialize;

use super::{
    Fact,
    fan_out::{self, FanOut},
    idle::{self, Idle},
    peers::{self, Running},
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
}

/// Runs it.
pub(crate) fn run(args: &SizesArgs) -> anyhow::Result<()> {
    for round in 0..args.peers.rounds {
        for &workload in &args.workloads {
            let mut first: Option<Vec<Fact>> = None;
            for &peer in &args.peers.peers {
                let facts = measure(workload, peer, args)?;
                let measured =
                    Measured { workload: workload.name(), peer: peer.name(), round, facts };
                if args.peers.json {
                    println!("{}", serde_json::to_string(&measured)?);
                } else {
                    print_line(&measured, first.as_deref());
                }
                first.get_or_insert(measured.facts);
            }
        }
    }
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
    println!("{:<16} {:<10} {}", measured.workload, measured.peer, facts.join("  "));
}

fn measure(workload: Workload, peer: Peer, args: &SizesArgs) -> anyhow::Result<Vec<Fact>> {
    let name = format!("moorline-sizes-{}-{}", std::process::id(), peer.name());
    let dir = args.peers.dir.join(name);
    let running = peers::start(peer, &args.peers, &dir)?;
    let facts = offer(workload, &running, args, &dir)
        .with_context(|| format!("{}; its logs are in {}", peer.name(), dir.display()))?;
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
            targets,
            connections: args.connections,
            durable: workload == Workload::IdleDurable,
            pids,
        }),
    }
}
