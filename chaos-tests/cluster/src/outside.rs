//! A run against a cluster that somebody else runs: the clients of a run of everything work, a command of the owner's takes nodes away
//! and brings them back, and the oracle judges.
//!
//! ```text
//!   HOOK down 2 ──► away ──► HOOK up 2 ──► ready again, or the run ends
//! ```

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use moorline_oracle::history::{FORMAT, Fault, Header, Stage};
use moorline_oracle::{Op, Phase, Wanted};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::process::Command;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::client::{Peer, Shared};
use crate::crowd::{CLIENTS, Clients};
use crate::nemesis::leaders;
use crate::options::LoadOptions;
use crate::recorder::{Actor, Recorder};
use crate::report::Report;
use crate::run::{digests, lateness, machine, mark};
use crate::stress::conclude;
use crate::{admin, usage};

/// How long a hook may take.
const HOOK_MAX: Duration = Duration::from_secs(60);
/// How long a node may take to be ready after its hook brought it back.
const READY_MAX: Duration = Duration::from_secs(120);
/// How often it is asked.
const READY_EVERY: Duration = Duration::from_millis(200);
/// The clients work for so long before the first node is taken away, and after the last one is back.
const QUIET: Duration = Duration::from_secs(10);
/// Requests that a run must have seen answered while some node was away, for each time: publishes, others.
const DURING_EACH: (u64, u64) = (20, 2);

/// Where a node answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    id: u32,
    mqtt: SocketAddr,
    admin: SocketAddr,
    http: SocketAddr,
}

impl FromStr for Place {
    type Err = anyhow::Error;

    /// As `1,mqtt=HOST:PORT,admin=HOST:PORT,http=HOST:PORT`.
    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(',');
        let id = parts.next().unwrap_or_default().parse().context("a node begins with its id")?;
        let (mut mqtt, mut admin, mut http) = (None, None, None);
        for part in parts {
            let (name, address) = part.split_once('=').context("name=address")?;
            let address =
                address.parse().with_context(|| format!("{address}: an IP and a port"))?;
            match name {
                "mqtt" => mqtt = Some(address),
                "admin" => admin = Some(address),
                "http" => http = Some(address),
                _ => bail!("{name}: mqtt, admin or http"),
            }
        }
        let all = mqtt.zip(admin).zip(http);
        let ((mqtt, admin), http) = all.context("a node has mqtt, admin and http")?;
        Ok(Self { id, mqtt, admin, http })
    }
}

/// What a run against somebody's cluster is made of.
#[derive(Debug, Clone, Args)]
pub struct OutsideOptions {
    /// A node, as `1,mqtt=IP:PORT,admin=IP:PORT,http=IP:PORT`; once for each.
    #[arg(long = "node", required = true)]
    pub nodes: Vec<Place>,
    /// A file with a token that may do everything: `moorline token create chaos --only token`.
    #[arg(long)]
    pub token_file: PathBuf,
    /// What takes nodes away and brings them back: called with `down ID`, later with `up ID`. Nobody is taken away without it.
    #[arg(long)]
    pub hook: Option<PathBuf>,
    /// How long the clients work, in seconds.
    #[arg(long, default_value_t = 120)]
    pub seconds: u64,
    /// How often a node is taken away, in seconds.
    #[arg(long, default_value_t = 20)]
    pub every: u64,
    /// How long it stays away, in milliseconds.
    #[arg(long, default_value_t = 3_000)]
    pub away_ms: u64,
    /// How much the clients do.
    #[command(flatten)]
    pub load: LoadOptions,
    /// The seed of everything; drawn and printed if not given.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Where history and report go.
    #[arg(long)]
    pub out: PathBuf,
}

/// Runs it.
pub async fn run(options: &OutsideOptions) -> Result<Report> {
    let seed = options.seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    ensure!(options.every > 0 && options.seconds > 0, "--every and --seconds: at least 1");
    ensure!(options.load.rate > 0, "--rate: at least 1");
    let token = fs::read_to_string(&options.token_file)
        .with_context(|| format!("{}", options.token_file.display()))?;
    fs::create_dir_all(&options.out)?;
    let nodes = u32::try_from(options.nodes.len())?;
    let times = if options.hook.is_some() { options.seconds / options.every } else { 0 };
    let header = Header {
        format: FORMAT,
        seed,
        command: std::env::args().collect(),
        machine: machine(),
        wanted: Some(wanted(options, nodes, times)),
    };
    let recorder = Recorder::create(&options.out.join("history.jsonl"), &header)?;
    let peers = options.nodes.iter().map(|at| {
        let (up, member) = (AtomicBool::new(true), AtomicBool::new(true));
        Peer { id: at.id, mqtt: at.mqtt, admin: at.admin, http: at.http, up, member }
    });
    let many = usize::try_from(CLIENTS)?;
    let shared = Shared::new(recorder.clone(), Arc::new(peers.collect()), many, many);
    let shared = Arc::new(shared);
    let stopped = shared.stop.clone().drop_guard();
    let late = act(options, &shared, token.trim().to_owned(), (seed, times)).await?;
    drop(stopped);
    conclude(&header, &recorder, &options.out, (&[], late))
}

fn wanted(options: &OutsideOptions, nodes: u32, times: u64) -> Wanted {
    let (publishes, others) = DURING_EACH;
    Wanted {
        publishes: publishes * times,
        records: if options.load.records > 0 { others * times } else { 0 },
        mails: if options.load.visits > 0 { others * times } else { 0 },
        faults: [(Fault::Kill, times)].into_iter().filter(|(_, times)| *times > 0).collect(),
        unknown_permille_max: 200,
        replicas: nodes.min(3),
        nodes,
        ..Wanted::default()
    }
}

async fn act(
    options: &OutsideOptions,
    shared: &Arc<Shared>,
    token: String,
    (seed, times): (u64, u64),
) -> Result<Duration> {
    for peer in shared.peers.iter() {
        ensure!(admin::is_ready(peer.admin).await, "node {} is not ready", peer.id);
    }
    let mut clients = Clients::begin(shared, token, seed).await?;
    let lasts = Duration::from_secs(options.seconds);
    clients.publish(shared, (&options.load.load(), lasts), Vec::new());
    let late = Mutex::new(Duration::ZERO);
    let faults = async {
        let began = Instant::now();
        let mut random = StdRng::seed_from_u64(seed);
        for time in 0..times {
            let pause = QUIET + Duration::from_secs(options.every * time);
            sleep_until(began + pause).await;
            let at = random.random_range(0..shared.peers.len());
            strike(options, shared, &shared.peers[at]).await?;
        }
        sleep_until(Instant::now().max(began + lasts) + QUIET).await;
        Ok::<_, anyhow::Error>(())
    };
    tokio::select! {
        done = faults => done?,
        never = lateness(&late) => match never {},
    }
    let drained = clients.drain(shared).await?;
    mark(shared, if drained { Stage::Drained } else { Stage::DrainTimedOut });
    digests(shared).await?;
    clients.end(shared).await?;
    usage::note(shared, true).await;
    Ok(late.into_inner().expect("no panic while it is locked"))
}

async fn strike(options: &OutsideOptions, shared: &Shared, peer: &Peer) -> Result<()> {
    let Some(hook) = &options.hook else { return Ok(()) };
    let leads = leaders(&shared.peers).await.contains(&peer.id);
    let note = |fault| {
        let seconds = shared.recorder.elapsed().as_secs_f64();
        println!("{seconds:>7.1} s  {fault:?} node {}", peer.id);
        let actor = Actor { name: "nemesis", node: Some(peer.id) };
        shared.recorder.note(actor, Phase::Ok, Op::Fault { fault, leader: leads });
    };
    note(Fault::Kill);
    peer.up.store(false, Ordering::Relaxed);
    call(hook, "down", peer.id).await?;
    sleep(Duration::from_millis(options.away_ms)).await;
    call(hook, "up", peer.id).await?;
    note(Fault::Restart);
    peer.up.store(true, Ordering::Relaxed);
    let deadline = Instant::now() + READY_MAX;
    while !admin::is_ready(peer.admin).await {
        ensure!(Instant::now() < deadline, "node {} is not ready again", peer.id);
        sleep(READY_EVERY).await;
    }
    note(Fault::Ready);
    Ok(())
}

async fn call(hook: &Path, what: &str, node: u32) -> Result<()> {
    let mut command = Command::new(hook);
    command.arg(what).arg(node.to_string()).kill_on_drop(true);
    let ended = timeout(HOOK_MAX, command.status()).await;
    let status = ended.with_context(|| format!("{} {what} {node} hangs", hook.display()))??;
    ensure!(status.success(), "{} {what} {node} ended with {status}", hook.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_read_from_its_addresses() {
        let place: Place =
            "2,mqtt=10.0.0.2:1883,admin=10.0.0.2:9400,http=10.0.0.2:8080".parse().unwrap();
        assert_eq!((place.id, place.admin), (2, "10.0.0.2:9400".parse().unwrap()));
        for wrong in ["", "x", "1", "1,mqtt=10.0.0.2:1883", "1,mqtt=host", "1,other=10.0.0.2:1"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
