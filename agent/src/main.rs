//! The device agent of Fostrom: the program beside a device that the vendor's SDKs talk to over a local socket, and that
//! talks Moonlight with the cluster's nodes, one at a time.
//!
//! ```text
//!   SDK ──HTTP── serve ── api (pure) ── uplink ── moonlight's client machine ──TLS── a node
//!                stream ◄── events ───────┘
//!   start, stop, status: control     which files: directory     settings: config
//! ```
//!
//! It holds nothing: what an SDK hears as done, the cluster has done. The crate's README.md says how to use it.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage.

mod api;
mod clock;
mod config;
mod control;
mod directory;
mod failed;
mod log;
mod probe;
mod question;
mod row;
mod run;
mod serve;
mod stream;
mod uplink;

use std::{env, net::SocketAddr, process::ExitCode};

use crate::failed::Failed;

/// Where the local API is served beside its socket, if it is asked for.
const TCP_DEFAULT: &str = "127.0.0.1:8585";

const HELP: &str = "\
Usage: moorline-agent COMMAND

  start [--tcp[=ADDRESS]]   start the agent in the background
  stop                      stop it
  status                    what it says of itself
  run [--tcp[=ADDRESS]]     run it here
  test-conn                 whether the cluster's nodes answer
  version, help

--tcp serves the local API at 127.0.0.1:8585, too.

Environment: FOSTROM_FLEET_ID, FOSTROM_DEVICE_ID, FOSTROM_DEVICE_SECRET, FOSTROM_RUNTIME_ENV,
FOSTROM_LOCAL_MODE, MOORLINE_NODES (host:port,host:port), MOORLINE_CA (a PEM file),
MOORLINE_PLAINTEXT, MOORLINE_AGENT_DIR (/tmp/fostrom)";

/// Wrong usage.
const EXIT_USAGE: u8 = 2;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Start { tcp: Option<SocketAddr> },
    Stop,
    Status,
    Run { tcp: Option<SocketAddr>, detached: bool },
    TestConnection,
    Version,
    Help,
}

fn main() -> ExitCode {
    let arguments: Vec<String> =
        env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Some(command) = parse(&arguments) else {
        eprintln!("invalid_usage: moorline-agent help says what there is");
        return ExitCode::from(EXIT_USAGE);
    };
    match perform(&command) {
        Ok(text) => {
            if !text.is_empty() {
                println!("{text}");
            }
            ExitCode::SUCCESS
        }
        Err(failed) => {
            eprintln!("{failed}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[&str]) -> Option<Command> {
    Some(match arguments {
        ["start", options @ ..] => {
            let Options { tcp, detached: false } = options_of(options)? else { return None };
            Command::Start { tcp }
        }
        ["run", options @ ..] => {
            let Options { tcp, detached } = options_of(options)?;
            Command::Run { tcp, detached }
        }
        ["stop"] => Command::Stop,
        ["status"] => Command::Status,
        ["test-conn"] => Command::TestConnection,
        ["version" | "--version"] => Command::Version,
        [] | ["help" | "--help" | "-h"] => Command::Help,
        _ => return None,
    })
}

#[derive(Default)]
struct Options {
    tcp: Option<SocketAddr>,
    detached: bool,
}

fn options_of(options: &[&str]) -> Option<Options> {
    let mut found = Options::default();
    for option in options {
        match *option {
            "--detached" => found.detached = true,
            "--tcp" => found.tcp = TCP_DEFAULT.parse().ok(),
            other => {
                // Whoever reaches it speaks for the device: nobody from outside may.
                let address: SocketAddr = other.strip_prefix("--tcp=")?.parse().ok()?;
                found.tcp = Some(address).filter(|address| address.ip().is_loopback());
                found.tcp?;
            }
        }
    }
    Some(found)
}

fn perform(command: &Command) -> Result<String, Failed> {
    match command {
        Command::Start { tcp } => control::start(tcp.map(|address| address.to_string()).as_deref()),
        Command::Stop => control::stop(),
        Command::Status => control::status(),
        Command::Run { tcp, detached } => run::run(*tcp, *detached).map(|()| String::new()),
        Command::TestConnection => probe::test_connection(),
        Command::Version => Ok(config::VERSION.to_owned()),
        Command::Help => Ok(HELP.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_understood_and_nothing_else() {
        let tcp = |address: &str| Some(address.parse().unwrap());
        #[rustfmt::skip]
        let table: [(&[&str], Option<Command>); 17] = [
            (&[], Some(Command::Help)),
            (&["help"], Some(Command::Help)),
            (&["version"], Some(Command::Version)),
            (&["start"], Some(Command::Start { tcp: None })),
            (&["start", "--tcp"], Some(Command::Start { tcp: tcp("127.0.0.1:8585") })),
            (&["run", "--tcp=127.0.0.1:0"], Some(Command::Run { tcp: tcp("127.0.0.1:0"), detached: false })),
            (&["run", "--tcp=[::1]:1", "--detached"], Some(Command::Run { tcp: tcp("[::1]:1"), detached: true })),
            (&["stop"], Some(Command::Stop)),
            (&["status"], Some(Command::Status)),
            (&["test-conn"], Some(Command::TestConnection)),
            (&["start", "--detached"], None),
            (&["run", "--tcp=0.0.0.0:8585"], None),
            (&["run", "--tcp=8585"], None),
            (&["run", "now"], None),
            (&["stop", "now"], None),
            (&["Start"], None),
            (&["help", "start"], None),
        ];
        for (arguments, expected) in table {
            assert_eq!(parse(arguments), expected, "{arguments:?}");
        }
    }
}
