//! `moorline bench`: load against any MQTT broker, Moorline beside its peers in one run, and the disk below them.
//!
//! Rates of one run on one machine are only worth something as ratios; `docs/benchmarks.md` holds those.

pub(crate) mod caller;
mod compare;
mod connect;
mod disk;
mod fan_out;
mod idle;
mod ingest;
mod load;
mod mailbox;
mod peers;
mod process;
mod queueing;
mod registry;
mod report;
mod routes;
mod sizes;
mod storm;
pub(crate) mod wire;

pub(crate) use connect::Way;
pub(crate) use disk::measure as measure_disk;
pub(crate) use report::Fact;

use crate::cli::BenchCommand;

/// Runs `moorline bench …`.
pub(crate) fn run(command: BenchCommand) -> anyhow::Result<()> {
    match command {
        BenchCommand::Load(args) => {
            let result = load::run(&load::Load::from_args(&args))?;
            result.print(args.json)
        }
        BenchCommand::Compare(args) => compare::run(&args),
        BenchCommand::Sizes(args) => sizes::run(&args),
        BenchCommand::Connect(args) => connect::run(&args),
        BenchCommand::Registry(args) => registry::run(&args),
        BenchCommand::Ingest(args) => ingest::run(&args),
        BenchCommand::Mailbox(args) => mailbox::run(&args),
        BenchCommand::Storm(args) => storm::run(&args),
        BenchCommand::Routes(args) => routes::run(&args),
        BenchCommand::Disk(args) => disk::run(&args),
        BenchCommand::Hold(args) => idle::hold(&args),
    }
}
