//! `moorline backup …`: all rows of a running cluster into a directory, what is there checked, and a new cluster out of it.
//! The page for operators is `docs/backup.md`; what is promised, and why it holds, is in `docs/decisions/046-backup.md`.

mod create;
mod directory;
mod manifest;
mod prune;
mod restore;
mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::AdminArgs;

/// `moorline backup …`.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Put everything that the cluster has acknowledged until now into a directory, beside earlier backups.
    Create(CreateArgs),
    /// Read every backup of a directory again, and say what is damaged or missing.
    Verify(VerifyArgs),
    /// Delete old backups of a directory, and the pieces that no other needs.
    Prune(PruneArgs),
    /// Make the first node of a new cluster out of a backup.
    Restore(RestoreArgs),
}

/// `moorline backup create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The directory; made if it is not there. What its earlier backups have is not fetched again.
    #[arg(long)]
    pub(crate) to: PathBuf,
    /// How the backup is called; the time if it is not said.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// How much is read in a second: MiB of rows.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) mib_s: u32,
    /// Where to ask: any node.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

/// `moorline backup verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The directory.
    pub(crate) dir: PathBuf,
    /// Only this backup of it.
    #[arg(long)]
    pub(crate) name: Option<String>,
}

/// `moorline backup prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// The directory.
    pub(crate) dir: PathBuf,
    /// How many backups stay: the last ones of each cluster.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep: u32,
}

/// `moorline backup restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The directory.
    pub(crate) dir: PathBuf,
    /// Which backup of it; the last one if it is not said.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The file of the node whose data directory is made: one of its `cluster.peers`.
    #[arg(long, short)]
    pub(crate) config: PathBuf,
    /// Give the new cluster the old one's name: only when no node of that can ever start again.
    #[arg(long)]
    pub(crate) same_name: bool,
}

/// Runs `moorline backup …`.
pub(crate) async fn run(command: BackupCommand) -> anyhow::Result<()> {
    match command {
        BackupCommand::Create(args) => create::run(args).await,
        BackupCommand::Verify(args) => verify::run(&args),
        BackupCommand::Prune(args) => prune::run(&args),
        BackupCommand::Restore(args) => restore::run(&args).await,
    }
}
