//! Workloads `idle` and `idle-durable`: many connections that do nothing. How fast they are accepted, and what each costs.
//!
//! A process has only so many file descriptors, so the connections are held by several processes of this program
//! (`moorline bench hold`), each of which says on standard output when it has all of its own, and ends with its
//! standard input.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use moorline_core::Text;
use moorline_mqtt::client::Options;
use tokio::{
    sync::Semaphore,
    task::{JoinSet, LocalSet},
};

use super::{Fact, process, wire::Wire};
use crate::cli::HoldArgs;

/// Connections of one holding process.
const HELD_MAX: usize = 10_000;
/// Connections that one holding process opens at a time.
const OPENING_MAX: usize = 64;
/// How long connections rest before memory is looked at.
const REST: Duration = Duration::from_secs(2);

/// What to hold.
#[derive(Debug, Clone)]
pub(crate) struct Idle {
    /// MQTT addresses; connections are dealt over them in turn.
    pub(crate) targets: Vec<String>,
    /// Connections.
    pub(crate) connections: usize,
    /// Whether their sessions outlive them.
    pub(crate) durable: bool,
    /// The broker's processes.
    pub(crate) pids: Vec<u32>,
}

/// Connects, rests, measures.
pub(crate) fn run(what: &Idle) -> anyhow::Result<Vec<Fact>> {
    let before = process::resident_bytes(&what.pids)?;
    let began = Instant::now();
    let mut holders = Vec::new();
    for first in (0..what.connections).step_by(HELD_MAX) {
        holders.push(Holder::start(what, first, HELD_MAX.min(what.connections - first))?);
    }
    for holder in &mut holders {
        holder.wait_until_connected()?;
    }
    let took = began.elapsed().as_secs_f64();
    std::thread::sleep(REST);
    let grown = process::resident_bytes(&what.pids)?.saturating_sub(before);
    let connections = what.connections as f64;
    Ok(vec![
        Fact::rate("connects/s", connections / took),
        Fact::cost("KiB each", grown as f64 / 1024.0 / connections),
    ])
}

/// A process that holds connections; they end with it.
struct Holder {
    child: Child,
}

impl Holder {
    fn start(what: &Idle, first: usize, count: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["bench", "hold", "--target", &what.targets.join(",")])
            .args(["--first", &first.to_string(), "--count", &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if what.durable {
            command.arg("--durable");
        }
        Ok(Self { child: command.spawn()? })
    }

    fn wait_until_connected(&mut self) -> anyhow::Result<()> {
        let said = self.child.stdout.as_mut().context("it has a standard output")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        ensure!(line.trim() == "connected", "a process that holds connections failed");
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // The end of its input is its end.
        drop(self.child.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("moorline: a holder of connections: {error}");
        }
    }
}

/// Runs `moorline bench hold`.
pub(crate) fn hold(args: &HoldArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let held = LocalSet::new().block_on(&runtime, open_all(args))?;
    let mut out = std::io::stdout();
    writeln!(out, "connected")?;
    out.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(held);
    Ok(())
}

async fn open_all(args: &HoldArgs) -> anyhow::Result<Vec<Wire>> {
    let (start, opening) = (Instant::now(), Rc::new(Semaphore::new(OPENING_MAX)));
    let run = format!("{:08x}", rand::random::<u32>());
    let mut connecting = JoinSet::new();
    for at in args.first..args.first + args.count {
        let options = Options {
            client_id: Text::from(format!("idle-{run}-{at}")),
            clean_start: !args.durable,
            keep_alive_s: 0,
            ..Options::default()
        };
        let target = args.target[at % args.target.len()].clone();
        let opening = Rc::clone(&opening);
        connecting.spawn_local(async move {
            let _place = opening.acquire().await?;
            let mut wire = Wire::open(&target, options, start).await?;
            wire.rest();
            anyhow::Ok(wire)
        });
    }
    let mut held = Vec::with_capacity(args.count);
    while let Some(wire) = connecting.join_next().await {
        held.push(wire??);
    }
    Ok(held)
}
