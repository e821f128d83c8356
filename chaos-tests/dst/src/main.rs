//! Deterministic simulation of real nodes: openraft, the groups, their wire and the router, on turmoil's network and time,
//! with disks that lose, tear and garble what was not synced. One seed is one run, always the same.
//!
//! ```text
//!   moorline-dst run --seed 7 --twice          one run, and whether a second process gives the same trace
//!   moorline-dst many --seeds 0..200           each seed in a process of its own
//!   moorline-dst mutants --seeds 0..200        known bugs put back in: after how many seeds each is caught
//! ```
#[cfg(not(tokio_unstable))]
compile_error!(
    "build this from chaos-tests/dst: its .cargo/config.toml sets `--cfg tokio_unstable`, without which tokio draws its own \
     random numbers and a seed means nothing"
);

mod client;
mod devices;
mod disk;
mod door;
mod ear;
mod ending;
mod faults;
mod invariants;
mod many;
mod mutant;
mod net;
mod node;
mod os;
mod placement;
mod simulation;
mod tally;
mod witness;

use std::{fs::File, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::{many::Numbers, mutant::Mutant, simulation::Plan};

#[derive(Debug, Parser)]
#[command(about = "Simulates clusters of real nodes, by seed")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One seed.
    Run(One),
    /// Seeds from A to before B, each in a process of its own.
    Many {
        /// As `A..B`.
        #[arg(long)]
        seeds: String,
        /// What is broken on purpose.
        #[arg(long)]
        mutant: Option<Mutant>,
        /// Processes at the same time.
        #[arg(long, default_value_t = 1)]
        jobs: usize,
        /// Where the sums of all runs go, as JSON.
        #[arg(long)]
        summary: Option<PathBuf>,
    },
    /// Every known bug, until it is caught.
    Mutants {
        /// As `A..B`.
        #[arg(long)]
        seeds: String,
        /// Processes at the same time.
        #[arg(long, default_value_t = 1)]
        jobs: usize,
        /// Only these; may be given more than once.
        #[arg(long)]
        only: Vec<Mutant>,
    },
}

#[derive(Debug, Args)]
struct One {
    /// Everything follows from it.
    #[arg(long)]
    seed: u64,
    /// Nodes: three of them have the group at any time.
    #[arg(long, default_value_t = 4)]
    nodes: u64,
    /// Where the trace goes.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// An invariant that is not looked at, by its name; may be given more than once.
    #[arg(long)]
    blind: Vec<String>,
    /// Runs it in two more processes and compares their traces, byte by byte.
    #[arg(long)]
    twice: bool,
    /// What is broken on purpose.
    #[arg(long)]
    mutant: Option<Mutant>,
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().what {
        What::Run(one) if one.twice => many::twice(one.seed, one.mutant),
        What::Run(one) => run(one),
        What::Many { seeds, mutant, jobs, summary } => {
            many::many(&many::range(&seeds)?, mutant, jobs, summary.as_deref())
        }
        What::Mutants { seeds, jobs, only } => {
            many::mutants(&many::range(&seeds)?, jobs, only.as_slice())
        }
    }
}

fn run(one: One) -> anyhow::Result<ExitCode> {
    let trace = one.trace.as_ref().map(File::create).transpose().context("the trace")?;
    let One { seed, nodes, mutant, blind, .. } = one;
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let dir = tempfile::tempdir().context("a directory for snapshots")?;
    let staging = dir.path().to_owned();
    let cpu = os::cpu();
    os::simulate(seed);
    // A thread of its own: its hash maps have not drawn their keys yet.
    let simulated = std::thread::spawn(move || {
        simulation::run(Plan { seed, nodes, mutant, staging, blind, trace })
    });
    let report = simulated.join();
    os::end();
    let Ok(report) = report else {
        println!("seed {seed}: VIOLATION panic: see above");
        return Ok(ExitCode::from(many::VIOLATED));
    };
    let report = report?;
    let cpu = (os::cpu() - cpu).as_secs_f64();
    let seconds = report.elapsed.as_secs_f64();
    let made_of = Numbers { virtual_seconds: seconds, cpu_seconds: cpu, tally: report.tally };
    println!("{}{}", many::NUMBERS, serde_json::to_string(&made_of)?);
    println!(
        "seed {seed}: {} events, trace {:016x}, {seconds:.1} virtual s in {cpu:.2} CPU-s ({:.1} per CPU-s)\n  {}",
        report.events,
        report.hash,
        seconds / cpu,
        report.coverage
    );
    match report.violation {
        None => Ok(ExitCode::SUCCESS),
        Some(violation) => {
            println!("seed {seed}: VIOLATION {violation}");
            Ok(ExitCode::from(many::VIOLATED))
        }
    }
}
