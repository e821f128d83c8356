//! `moorline demo`: a real cluster of node processes on this machine, each with its own data directory, and a status
//! screen. A node that dies is started again, so that killing one shows what the cluster does about it.
//!
//! Invariant: the nodes are ordinary `moorline server` processes with ordinary configuration files, which the demo only
//! writes, starts, watches and ends. They end with the demo, also when it is killed: their standard input closes.

mod fleet;
mod nodes;
mod screen;

use std::{
    io::IsTerminal,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use self::nodes::Nodes;
use crate::{cli::DemoArgs, cluster, cluster::ClusterView};

/// How long the cluster may take until all nodes are ready.
const READY_WAIT: Duration = Duration::from_secs(60);
/// How often a node that is not ready is asked again.
const READY_PAUSE: Duration = Duration::from_millis(100);
/// How often the status is drawn.
const STATUS_PAUSE: Duration = Duration::from_secs(1);
/// How long a dead node stays dead, so that one can see it.
const RESTART_PAUSE: Duration = Duration::from_secs(3);

/// One running node, as `ready.json` in the demo's directory tells other programs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReadyNode {
    /// Its id.
    pub(crate) id: u64,
    /// Its MQTT address.
    pub(crate) mqtt: SocketAddr,
    /// Its MQTT address over WebSocket.
    #[serde(default)]
    pub(crate) ws: Option<SocketAddr>,
    /// Where devices speak HTTP.
    #[serde(default)]
    pub(crate) http: Option<SocketAddr>,
    /// Where they speak Moonlight.
    #[serde(default)]
    pub(crate) moonlight: Option<SocketAddr>,
    /// Its MQTT address over TLS.
    #[serde(default)]
    pub(crate) mqtts: Option<SocketAddr>,
    /// Where devices speak HTTP, and MQTT over WebSocket, over TLS.
    #[serde(default)]
    pub(crate) https: Option<SocketAddr>,
    /// Where they speak Moonlight over TLS.
    #[serde(default)]
    pub(crate) moonlights: Option<SocketAddr>,
    /// The API over TLS.
    #[serde(default)]
    pub(crate) api: Option<SocketAddr>,
    /// The authority of all nodes' certificates, a file.
    #[serde(default)]
    pub(crate) ca: Option<PathBuf>,
    /// Its admin address.
    pub(crate) admin: SocketAddr,
    /// Its process.
    pub(crate) pid: u32,
}

/// Runs the demo until it is told to stop.
pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    if args.fleet {
        // Nobody starts a cluster every moment.
        return Box::pin(fleet::run(args)).await;
    }
    if args.nodes.is_multiple_of(2) {
        bail!(
            "--nodes {}: an even number survives no more deaths than one less; use 1, 3 or 5",
            args.nodes
        );
    }
    if args.fresh && args.dir.exists() {
        std::fs::remove_dir_all(&args.dir)
            .with_context(|| format!("cannot remove {}", args.dir.display()))?;
    }
    let mut stop = Stop::new(args.stop_with_stdin)?;
    let mut nodes = Nodes::prepare(&args)?;
    nodes.start_all()?;
    tokio::select! {
        ready = wait_ready(&mut nodes) => ready?,
        () = stop.wait() => return nodes.stop().await,
    }
    write_ready(&args.dir, &nodes)?;
    print!("{}", screen::hello(&nodes.ready_nodes(), &args.dir));
    let watched = watch(&args, &mut nodes, &mut stop).await;
    // Whoever waits for the next demo must not take this one's word.
    std::fs::remove_file(args.dir.join("ready.json"))?;
    nodes.stop().await?;
    watched
}

/// SIGINT, SIGTERM, or the end of standard input if that was asked for.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    with_stdin: bool,
}

impl Stop {
    fn new(with_stdin: bool) -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            with_stdin,
        })
    }

    /// Cancel-safe: a signal that came is not forgotten.
    async fn wait(&mut self) {
        let with_stdin = self.with_stdin;
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = stdin_closed(), if with_stdin => {}
        }
    }
}

async fn stdin_closed() {
    let mut byte = [0];
    while matches!(tokio::io::stdin().read(&mut byte).await, Ok(1..)) {}
}

async fn wait_ready(nodes: &mut Nodes) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_WAIT;
    let mut made = false;
    loop {
        if let Some(dead) = nodes.first_dead()? {
            bail!("node {} ended at once; see {}", dead.id, dead.log.display());
        }
        let views = views(nodes).await;
        if views.iter().all(|view| view.as_ref().is_some_and(|view| view.ready)) {
            return Ok(());
        }
        let all_there = views.iter().all(Option::is_some);
        if all_there && !made {
            made = cluster::init(&nodes.first_admin().to_string()).await.is_ok();
        }
        if Instant::now() > deadline {
            let waiting: Vec<String> = views
                .iter()
                .flatten()
                .filter(|view| !view.ready)
                .map(|view| format!("node {}: {}", view.node, view.waiting_for.join(", ")))
                .collect();
            bail!("the cluster is not ready after {READY_WAIT:?}: {}", waiting.join("; "));
        }
        tokio::time::sleep(READY_PAUSE).await;
    }
}

async fn views(nodes: &Nodes) -> Vec<Option<ClusterView>> {
    let mut views = Vec::new();
    for admin in nodes.admins() {
        views.push(cluster::view(&admin.to_string()).await.ok());
    }
    views
}

/// Tells other programs where the nodes are: written whole, then renamed.
fn write_ready(dir: &Path, nodes: &Nodes) -> anyhow::Result<()> {
    let text = serde_json::to_vec(&nodes.ready_nodes())?;
    let unfinished = dir.join("ready.json.new");
    std::fs::write(&unfinished, text)?;
    std::fs::rename(unfinished, dir.join("ready.json"))?;
    Ok(())
}

async fn watch(args: &DemoArgs, nodes: &mut Nodes, stop: &mut Stop) -> anyhow::Result<()> {
    let live = std::io::stdout().is_terminal() && !args.quiet;
    let mut screen = screen::Screen::new(live);
    loop {
        tokio::select! {
            () = stop.wait() => return Ok(()),
            () = tokio::time::sleep(STATUS_PAUSE) => {}
        }
        if !args.no_restart && nodes.restart_dead(RESTART_PAUSE)? {
            write_ready(&args.dir, nodes)?;
        }
        if live {
            let views = views(nodes).await;
            screen.draw(&nodes.ready_nodes(), &nodes.states()?, &views).await?;
        }
    }
}
