//! The one binary: command line, configuration, wiring. What a node does is in the crates below; this crate only puts
//! them together, and holds the tools that talk to a running cluster.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 not found, 4 refused, 5 nobody there or no quorum. Of `doctor`: 0 all is
//! well, 1 something to look at, 2 something is wrong.

mod admin;
mod backup;
mod bench;
mod ca;
mod cli;
mod cluster;
mod config;
mod demo;
mod doctor;
mod guarantees;
mod http;
mod logging;
mod metrics;
mod pubsub;
mod registry;
mod server;
mod settings;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command, ConfigCommand};

/// Wrong usage or configuration.
const EXIT_USAGE: u8 = 2;
/// Refused: also by us, who do not trust the other side.
const EXIT_REFUSED: u8 = 4;
/// Nobody there, or no quorum.
const EXIT_UNAVAILABLE: u8 = 5;

/// Gives memory back to the system when connections and caches have gone; the C library's keeps most of it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(found) = error.downcast_ref::<doctor::Found>() {
                return ExitCode::from(found.code());
            }
            eprintln!("moorline: {error:#}");
            let code = if error.is::<config::ConfigError>() {
                EXIT_USAGE
            } else if error.is::<http::Unreachable>() {
                EXIT_UNAVAILABLE
            } else if error.is::<http::Distrusted>() {
                EXIT_REFUSED
            } else if let Some(declined) = error.downcast_ref::<registry::Declined>() {
                declined.code
            } else {
                1
            };
            ExitCode::from(code)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Server(args) => server::run(&args),
        Command::Demo(args) => {
            let runtime = client_runtime()?;
            let result = runtime.block_on(demo::run(args));
            // Not dropped: a read of standard input that is still waiting would be waited for.
            runtime.shutdown_background();
            result
        }
        Command::Cluster(command) => client_runtime()?.block_on(cluster::run(command)),
        Command::Backup(command) => client_runtime()?.block_on(backup::run(command)),
        Command::Token(command) => client_runtime()?.block_on(registry::token(command)),
        Command::Tenant(command) => client_runtime()?.block_on(registry::tenant(command)),
        Command::Import(args) => client_runtime()?.block_on(registry::import_moved(args)),
        Command::Device(command) => client_runtime()?.block_on(registry::device(command)),
        Command::Cred(command) => client_runtime()?.block_on(registry::cred(command)),
        Command::Webhook(command) => client_runtime()?.block_on(registry::webhook(command)),
        Command::ProvisioningKey(command) => {
            client_runtime()?.block_on(registry::provisioning_key(command))
        }
        Command::Mail(command) => client_runtime()?.block_on(registry::mail(command)),
        Command::Explain(command) => client_runtime()?.block_on(registry::explain(command)),
        Command::Audit(args) => client_runtime()?.block_on(registry::read_audit(args)),
        Command::Events(args) => client_runtime()?.block_on(registry::read_events(args)),
        Command::Pub(args) => client_runtime()?.block_on(pubsub::publish(args)),
        Command::Sub(args) => client_runtime()?.block_on(pubsub::subscribe(args)),
        Command::Doctor(args) => client_runtime()?.block_on(doctor::run(&args)),
        Command::Bench(command) => bench::run(command),
        Command::Ca(command) => ca::run(command),
        Command::Config(ConfigCommand::Show { config, origin }) => {
            print!("{}", config::show(&config, origin)?);
            Ok(())
        }
        Command::Config(ConfigCommand::Reload(args)) => {
            client_runtime()?.block_on(settings::reload(args))
        }
        Command::Config(ConfigCommand::Diff(args)) => {
            client_runtime()?.block_on(settings::diff(args))
        }
        Command::Log(command) => client_runtime()?.block_on(settings::log(command)),
        Command::Config(ConfigCommand::Check { config }) => {
            let problems = server::check_files(&config::Config::load(&config)?);
            if !problems.is_empty() {
                return Err(config::ConfigError::Wrong { path: config, problems }.into());
            }
            println!("{}: fine", config.display());
            Ok(())
        }
    }
}

/// A runtime for commands that mostly wait.
fn client_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
