//! `moorline-sim`: runs seeds until the time is up, or one seed twice.

use std::time::{Duration, Instant};

use clap::Parser;
use moorline_sim::{Options, run};

/// Simulates a cluster, seed by seed, and checks its promises at every step.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// For how long; each seed takes a fraction of a second.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Replays this seed, twice, and compares the two runs; "random" begins anywhere.
    #[arg(long, default_value = "random")]
    seed: String,
    /// Steps of chaos per seed.
    #[arg(long, default_value_t = Options::default().steps)]
    steps: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let options = Options { steps: arguments.steps, ..Options::default() };
    if arguments.seed != "random" {
        return replay(arguments.seed.parse()?, &options);
    }
    let begun = Instant::now();
    let (mut seed, mut seeds) = (rand::random::<u32>().into(), 0_u64);
    while begun.elapsed() < Duration::from_secs(arguments.seconds) {
        // Before it runs: a panic must not hide it.
        println!("seed {seed}");
        let report = run(seed, &options)?;
        println!("  {report:?}");
        (seed, seeds) = (seed + 1, seeds + 1);
    }
    println!("{seeds} seeds in {:?}, no violation", begun.elapsed());
    Ok(())
}

fn replay(seed: u64, options: &Options) -> anyhow::Result<()> {
    println!("seed {seed}");
    let first = run(seed, options)?;
    let second = run(seed, options)?;
    println!("  {first:?}");
    anyhow::ensure!(first == second, "the same seed made another run: {second:?}");
    Ok(())
}
