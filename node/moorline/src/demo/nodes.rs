//! The demo's node processes: their files, ports, lives and deaths.

use std::{
    fmt::Write,
    fs::{File, OpenOptions},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    num::NonZero,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context;
use moorline_edge::TlsConfig;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use super::ReadyNode;
use crate::{ca::dev, cli::DemoArgs};

/// Shards when nothing else is said: few cores, few groups.
const SHARDS: u16 = 3;
/// First ports that are tried, so that the printed lines are short on a machine where nothing else runs.
const MQTT_PORT: u16 = 1883;
const WS_PORT: u16 = 8083;
const HTTP_PORT: u16 = 8080;
const MOONLIGHT_PORT: u16 = 8484;
const MQTTS_PORT: u16 = 8883;
const HTTPS_PORT: u16 = 8443;
const MOONLIGHTS_PORT: u16 = 8494;
const API_PORT: u16 = 9443;
const ADMIN_PORT: u16 = 9400;
const CLUSTER_PORT: u16 = 7400;
/// What says to tokio how many threads work in a node; as many as there are cores if nobody does.
const WORKERS: &str = "TOKIO_WORKER_THREADS";
/// A demo is played with, measured and tested, all from one address: limits that keep strangers off would only be in the
/// way.
const LIMITS: &str = "\
    # Measured and tested from one machine: nobody is kept off. A real node has lower limits.\n\
    [mqtt]\n\
    unauthenticated-per-address-max = 0\n\
    connects-per-client-s = 0\n\
    connects-per-tenant-s = 0\n\
    handshakes-per-core-s = 0\n\
    authentications-per-core-s = 0\n\
    authentications-per-core = 10000\n\
    inflight-max = 256\n\
    topic-bytes-max = 4096\n\
    topic-levels-max = 64\n\
    session-queue-max = 100000\n\
    session-queue-bytes-max = 67108864\n";
/// The cluster's key, in the demo's directory and beside the nodes' data.
const KEY_FILE: &str = "cluster.key";
/// How long a node may take to hand over and stop before it is killed.
const STOP_WAIT: Duration = Duration::from_secs(15);

/// Where one node is. Kept in `demo.json`, so that the next demo in the same directory finds its ports again.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    id: u64,
    mqtt: SocketAddr,
    /// None in a directory of an earlier version: its configuration files have none either.
    #[serde(default)]
    ws: Option<SocketAddr>,
    #[serde(default)]
    http: Option<SocketAddr>,
    #[serde(default)]
    moonlight: Option<SocketAddr>,
    #[serde(default)]
    mqtts: Option<SocketAddr>,
    #[serde(default)]
    https: Option<SocketAddr>,
    #[serde(default)]
    moonlights: Option<SocketAddr>,
    #[serde(default)]
    api: Option<SocketAddr>,
    admin: SocketAddr,
    cluster: SocketAddr,
}

/// One node and its process.
#[derive(Debug)]
struct Node {
    place: Place,
    config: PathBuf,
    log: PathBuf,
    /// Threads that work in it.
    workers: usize,
    child: Option<Child>,
    died: Option<Instant>,
}

/// A node that is dead, and where it said why.
#[derive(Debug)]
pub(super) struct Dead {
    pub(super) id: u64,
    pub(super) log: PathBuf,
}

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It runs.
    Up,
    /// It died so long ago.
    Dead(Duration),
}

/// All nodes of the demo.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    /// The authority of their certificates.
    ca: PathBuf,
}

impl Nodes {
    /// Writes the configuration files, or finds those of an earlier demo.
    pub(super) fn prepare(args: &DemoArgs) -> anyhow::Result<Self> {
        let dir = &args.dir;
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let known = dir.join("demo.json");
        let places: Vec<Place> = match std::fs::read(&known) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is not ours; try --fresh", known.display()))?,
            Err(_) => new_places(args.nodes)?,
        };
        std::fs::write(&known, serde_json::to_vec_pretty(&places)?)?;
        write_key(dir)?;
        let dev = dev::prepare(dir, Vec::new())?;
        let ready = dir.join("ready.json");
        if ready.exists() {
            std::fs::remove_file(ready)?;
        }
        // They share the cores: more threads than cores only stand in each other's way.
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let workers = cores.div_ceil(places.len());
        let mqtt = args.mqtt.as_ref().map(|lines| format!("[mqtt]\n{lines}\n"));
        let mqtt = mqtt.as_deref().unwrap_or(LIMITS);
        let mut nodes = Vec::new();
        for place in &places {
            let config = dir.join(format!("node{}.toml", place.id));
            if !config.exists() {
                std::fs::write(
                    &config,
                    config_text(place, &places, dir, &dev.tls, args.shards, mqtt),
                )?;
            }
            let log = dir.join(format!("node{}.log", place.id));
            let place = place.clone();
            nodes.push(Node { place, config, log, workers, child: None, died: None });
        }
        let ca = std::path::absolute(&dev.ca)?;
        Ok(Self { nodes, ca })
    }

    /// Starts every node.
    pub(super) fn start_all(&mut self) -> anyhow::Result<()> {
        self.nodes.iter_mut().try_for_each(Node::start)
    }

    /// Starts those again that have been dead for `pause`; says whether there were any.
    pub(super) fn restart_dead(&mut self, pause: Duration) -> anyhow::Result<bool> {
        let mut any = false;
        for node in &mut self.nodes {
            if let State::Dead(since) = node.state()?
                && since >= pause
            {
                node.start()?;
                any = true;
            }
        }
        Ok(any)
    }

    /// The first node that is dead.
    pub(super) fn first_dead(&mut self) -> anyhow::Result<Option<Dead>> {
        for node in &mut self.nodes {
            if matches!(node.state()?, State::Dead(_)) {
                return Ok(Some(Dead { id: node.place.id, log: node.log.clone() }));
            }
        }
        Ok(None)
    }

    /// Kills one, without a goodbye.
    pub(super) async fn kill(&mut self, id: u64) -> anyhow::Result<()> {
        for node in self.nodes.iter_mut().filter(|node| node.place.id == id) {
            if let Some(child) = &mut node.child {
                child.kill().await?;
            }
            // As one sees it that died by itself.
            node.state()?;
        }
        Ok(())
    }

    /// How every node is.
    pub(super) fn states(&mut self) -> anyhow::Result<Vec<State>> {
        self.nodes.iter_mut().map(Node::state).collect()
    }

    /// Every node's admin address.
    pub(super) fn admins(&self) -> impl Iterator<Item = SocketAddr> {
        self.nodes.iter().map(|node| node.place.admin)
    }

    /// The first node's.
    pub(super) fn first_admin(&self) -> SocketAddr {
        self.nodes[0].place.admin
    }

    /// Where the nodes are, for people and other programs.
    pub(super) fn ready_nodes(&self) -> Vec<ReadyNode> {
        self.nodes
            .iter()
            .map(|node| ReadyNode {
                id: node.place.id,
                mqtt: node.place.mqtt,
                ws: node.place.ws,
                http: node.place.http,
                moonlight: node.place.moonlight,
                mqtts: node.place.mqtts,
                https: node.place.https,
                moonlights: node.place.moonlights,
                api: node.place.api,
                ca: Some(self.ca.clone()),
                admin: node.place.admin,
                pid: node.child.as_ref().and_then(Child::id).unwrap_or(0),
            })
            .collect()
    }

    /// Asks every node to stop, waits, and kills who does not.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.ask_to_stop();
        }
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child
                && tokio::time::timeout(STOP_WAIT, child.wait()).await.is_err()
            {
                eprintln!("moorline: node {} did not stop in {STOP_WAIT:?}; killed", node.place.id);
                child.kill().await?;
            }
        }
        Ok(())
    }
}

impl Node {
    fn start(&mut self) -> anyhow::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(std::env::current_exe()?);
        if std::env::var_os(WORKERS).is_none() {
            command.env(WORKERS, self.workers.to_string());
        }
        let child = command
            .args(["server", "--stop-with-stdin", "--config"])
            .arg(&self.config)
            .stdin(Stdio::piped())
            .stdout(File::try_clone(&log)?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a node")?;
        self.child = Some(child);
        self.died = None;
        Ok(())
    }

    fn state(&mut self) -> anyhow::Result<State> {
        if let Some(child) = &mut self.child
            && child.try_wait()?.is_none()
        {
            return Ok(State::Up);
        }
        let died = *self.died.get_or_insert_with(Instant::now);
        Ok(State::Dead(died.elapsed()))
    }

    fn ask_to_stop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.stdin.take());
            let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
            if let Some(pid) = pid {
                // It may be gone already, which is what is wanted.
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
    }
}

/// Well-known ports where they are free, others from the OS where not.
fn new_places(nodes: u8) -> anyhow::Result<Vec<Place>> {
    let mut held = Vec::new();
    let mut port = |preferred: u16| -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, preferred))
            .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        held.push(listener);
        Ok(address)
    };
    (0..u16::from(nodes))
        .map(|node| {
            Ok(Place {
                id: u64::from(node) + 1,
                mqtt: port(MQTT_PORT + node)?,
                ws: Some(port(WS_PORT + node)?),
                // Beside WebSocket's, of which a demo of three has as many.
                http: Some(port(HTTP_PORT + node)?),
                moonlight: Some(port(MOONLIGHT_PORT + node)?),
                mqtts: Some(port(MQTTS_PORT + node)?),
                https: Some(port(HTTPS_PORT + node)?),
                moonlights: Some(port(MOONLIGHTS_PORT + node)?),
                api: Some(port(API_PORT + node)?),
                admin: port(ADMIN_PORT + node)?,
                cluster: port(CLUSTER_PORT + node)?,
            })
        })
        .collect()
}

fn config_text(
    place: &Place,
    places: &[Place],
    dir: &Path,
    tls: &TlsConfig,
    shards: Option<u16>,
    mqtt: &str,
) -> String {
    let data = dir.join(format!("node{}", place.id));
    let more = [
        ("ws", place.ws),
        ("http", place.http),
        ("moonlight", place.moonlight),
        ("mqtts", place.mqtts),
        ("https", place.https),
        ("moonlights", place.moonlights),
        ("api", place.api),
    ];
    let more = more.into_iter().filter_map(|(key, at)| Some((key, at?)));
    let more: String = more.map(|(key, at)| format!("{key} = \"{at}\"\n")).collect();
    let mut text = format!(
        "# Written by `moorline demo`; change it as you like, it is not written again.\n\
         [node]\nid = {}\ndata-dir = {:?}\n\n\
         [listen]\nmqtt = \"{}\"\n{more}admin = \"{}\"\ncluster = \"{}\"\n\n\
         [cluster]\nname = \"demo\"\nshards = {}\npeers = [\n",
        place.id,
        data,
        place.mqtt,
        place.admin,
        place.cluster,
        shards.unwrap_or(SHARDS),
    );
    for peer in places {
        writeln!(text, "    {{ id = {}, address = \"{}\" }},", peer.id, peer.cluster)
            .expect("a String takes everything");
    }
    let key = dir.join(KEY_FILE);
    text + "]\n\n"
        + mqtt
        + &format!(
            "\n# Of the demo's own authority.\n[tls]\ncert = {:?}\nkey = {:?}\n\
             \n# Everybody may connect, and devices of the registry as themselves.\n[security]\nkey-file = {key:?}\nanonymous = true\n",
            tls.cert, tls.key
        )
}

/// The cluster's key, made once.
fn write_key(dir: &Path) -> anyhow::Result<()> {
    let file = dir.join(KEY_FILE);
    if file.exists() {
        return Ok(());
    }
    let key: [u8; 32] = rand::random();
    let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut out =
        options.open(&file).with_context(|| format!("cannot write {}", file.display()))?;
    std::io::Write::write_all(&mut out, text.as_bytes()).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_files_it_writes_are_good_configurations() {
        let places = new_places(3).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let tls = dev::prepare(&dir.path().join("a \"quoted\" dir"), Vec::new()).unwrap().tls;
        for place in &places {
            let dir = Path::new("a \"quoted\" dir");
            let text = config_text(place, &places, dir, &tls, None, LIMITS);
            let config = Config::parse(&text, Path::new("node.toml")).unwrap();
            assert_eq!((config.node.id, config.cluster.peers.len()), (place.id, 3));
            assert_eq!(config.listen.ws, place.ws);
            assert_eq!(
                (config.listen.http, config.listen.moonlight),
                (place.http, place.moonlight)
            );
            assert_eq!(config.mqtt.connects_per_client_s, 0);
        }
    }
}
