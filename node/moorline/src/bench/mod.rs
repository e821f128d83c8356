//! `moorline bench`: load against any MQTT broker, Moorline beside its peers in one run, and the disk below them.
//!
//! Rates of one run on one machine are only worth something as ratios; `docs/benchmarks.md` holds those.

mod compare;
mod disk;
mod load;
mod peers;
mod process;
mod report;

use crate::cli::BenchCommand;

/// Runs `moorline bench …`.
pub(crate) fn run(command: BenchCommand) -> anyhow::Result<()> {
    match command {
        BenchCommand::Load(args) => {
            let result = load::run(&load::Load::from_args(&args))?;
            result.print(args.json)
        }
        BenchCommand::Compare(args) => compare::run(&args),
        BenchCommand::Disk(args) => disk::run(&args),
    }
}
