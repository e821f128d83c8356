//! Workloads `idle` and `idle-durable`: many connections that do nothing. How fast they are accepted, and what each costs.
//!
//! A process has only so many file descriptors, so the connections are held by several processes of this program
//! (`moorline bench hold`), each of which says on standard output when it has all of its own, and ends with its
//! standard input.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    rc::Rc,
    sync::mpsc::{self, Receiver},
    thread,
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
/// How long all holders may take to open their connections.
const CONNECTED_WAIT: Duration = Duration::from_secs(300);
/// How long a holder may take to end when its input has, and how often that is looked at.
const END_WAIT: Duration = Duration::from_secs(10);
/// See there.
const END_PAUSE: Duration = Duration::from_millis(20);
/// What a process has open besides its connections: a twentieth of what it may have, and at least this.
const OTHER_DESCRIPTORS_MIN: usize = 256;
const OTHER_DESCRIPTORS_PART: usize = 20;

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

/// How many connections one process holds that may have so many descriptors.
pub(super) fn held_by_one(descriptors: usize) -> usize {
    let others = (descriptors / OTHER_DESCRIPTORS_PART).max(OTHER_DESCRIPTORS_MIN);
    descriptors.saturating_sub(others)
}

/// Connects, rests, measures.
pub(crate) fn run(what: &Idle) -> anyhow::Result<Vec<Fact>> {
    ensure!(what.connections > 0, "no process has descriptors for connections");
    let held_max = HELD_MAX.min(held_by_one(process::descriptors_max())).max(1);
    let before = process::resident_bytes(&what.pids)?;
    let began = Instant::now();
    let mut holders = Vec::new();
    for first in (0..what.connections).step_by(held_max) {
        holders.push(Holder::start(what, first, held_max.min(what.connections - first))?);
    }
    for holder in &holders {
        holder.wait_until_connected(began + CONNECTED_WAIT)?;
    }
    let took = began.elapsed().as_secs_f64();
    thread::sleep(REST);
    let grown = process::resident_bytes(&what.pids)?.saturating_sub(before);
    let connections = what.connections as f64;
    Ok(vec![
        Fact::rate("connects/s", connections / took),
        Fact::cost("KiB each", grown as f64 / 1024.0 / connections),
        Fact::rate("connections", connections),
    ])
}

/// A process that holds connections; they end with it.
struct Holder {
    child: Child,
    /// The first line it says.
    said: Receiver<std::io::Result<String>>,
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
        let mut child = command.spawn()?;
        let said = child.stdout.take().context("it has a standard output")?;
        let (sender, receiver) = mpsc::sync_channel(1);
        // A pipe has no deadline. The thread ends with the process at the latest.
        thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(said).read_line(&mut line);
            // Nobody may be waiting any more.
            let _unheard = sender.send(read.map(|_| line));
        });
        Ok(Self { child, said: receiver })
    }

    fn wait_until_connected(&self, deadline: Instant) -> anyhow::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = self.said.recv_timeout(left);
        let line = line.with_context(|| format!("not connected within {CONNECTED_WAIT:?}"))??;
        ensure!(line.trim() == "connected", "a process that holds connections failed");
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // The end of its input is its end.
        drop(self.child.stdin.take());
        let deadline = Instant::now() + END_WAIT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(END_PAUSE);
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            eprintln!("moorline: a holder of connections does not end, and is killed");
            if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
                eprintln!("moorline: a holder of connections: {error}");
            }
        }
    }
}

/// Runs `moorline bench hold`.
pub(crate) fn hold(args: &HoldArgs) -> anyhow::Result<()> {
    process::raise_descriptors();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        for (descriptors, held) in [(20_000, 19_000), (1_048_576, 996_148), (1_024, 768), (100, 0)]
        {
            assert_eq!(held_by_one(descriptors), held, "{descriptors}");
        }
    }
}
