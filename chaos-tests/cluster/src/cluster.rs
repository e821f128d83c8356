//! The nodes: real processes, each with its directory, its disk and perhaps its own network.

use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use moorline_lossyfs::{Mounted, Names};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::client::Peer;
use crate::network::Network;
use crate::options::DiskKind;
use crate::probe::Probe;
use crate::{admin, ports};

/// How long a killed process may take to be gone.
const DEATH_MAX: Duration = Duration::from_secs(30);
/// How long a started node may take until it is ready. A debug build on a busy machine is slow.
pub const READY_MAX: Duration = Duration::from_secs(90);
/// How often readiness is asked for.
const READY_EVERY: Duration = Duration::from_millis(50);
/// Ports in a namespace of one's own.
const OWN_PORTS: [u16; 4] = [1883, 9400, 7400, 8080];

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The broker.
    pub binary: PathBuf,
    /// How many nodes the cluster is made of.
    pub nodes: u32,
    /// How many more may join it later: they have a directory and ports, and are not started.
    pub spares: u32,
    /// How many shards.
    pub shards: u32,
    /// What each node's disk does with what was not fsynced.
    pub disk: DiskKind,
    /// Whether each node has a network of its own.
    pub networks: bool,
    /// Whether there are tenants and devices, which speak HTTP: the nodes share a key then.
    pub devices: bool,
    /// Whether so little of the log is kept that who was away for seconds, or is new, needs a snapshot.
    pub little_log: bool,
    /// The library that gives each node a wall clock of its own, if they are to have one.
    pub clocks: Option<PathBuf>,
    /// Environment variables for the nodes.
    pub environment: Vec<(String, String)>,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Its number.
    pub id: u32,
    config: PathBuf,
    data: PathBuf,
    log: PathBuf,
    /// What it is started with.
    program: PathBuf,
    child: Option<Child>,
    /// Its disk, if that can lose something.
    disk: Option<Mounted>,
}

/// All nodes of a run. Dropping it kills them, then unmounts, then takes the network down, in this order.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes, by number.
    pub nodes: Vec<Node>,
    /// The nodes as clients see them.
    pub peers: Arc<Vec<Peer>>,
    /// Their network, if they have one of their own.
    pub network: Option<Network>,
    addresses: Vec<Addresses>,
    recipe: Recipe,
}

#[derive(Debug, Clone, Copy)]
struct Addresses {
    mqtt: SocketAddr,
    admin: SocketAddr,
    cluster: SocketAddr,
    http: SocketAddr,
}

impl Cluster {
    /// Prepares directories, disks, networks and configurations below `directory`. Starts nothing.
    pub fn prepare(recipe: Recipe, directory: &Path) -> Result<Self> {
        let ids: Vec<u32> = (1..=recipe.nodes + recipe.spares).collect();
        let network = recipe.networks.then(|| Network::build(&ids)).transpose()?;
        let addresses = addresses(&recipe, network.as_ref())?;
        let peers = ids.iter().zip(&addresses).map(|(&id, at)| {
            let (up, member) = (AtomicBool::new(false), AtomicBool::new(id <= recipe.nodes));
            Peer { id, mqtt: at.mqtt, admin: at.admin, http: at.http, up, member }
        });
        let peers = Arc::new(peers.collect());
        let mut nodes = Vec::new();
        for &id in &ids {
            let home = directory.join(format!("node-{id}"));
            let data = home.join("data");
            fs::create_dir_all(&data)?;
            let disk = mount(recipe.disk, &home, &data)?;
            if recipe.devices {
                fs::write(key_file(&data), KEY)?;
            }
            if recipe.clocks.is_some() {
                fs::write(clock_file(&data), "+0\n")?;
            }
            let config = home.join("moorline.toml");
            if id <= recipe.nodes {
                fs::write(&config, configuration(&recipe, id, &data, &addresses))?;
            }
            let log = directory.join(format!("node-{id}.log"));
            let program = recipe.binary.clone();
            nodes.push(Node { id, config, data, log, program, child: None, disk });
        }
        Ok(Self { nodes, peers, network, addresses, recipe })
    }

    /// Starts every node but the spare ones, makes the cluster, waits until all are ready.
    pub async fn start(&mut self) -> Result<()> {
        let founders = 0..usize::try_from(self.recipe.nodes)?;
        for at in founders.clone() {
            self.start_node(at)?;
        }
        let deadline = Instant::now() + READY_MAX;
        for at in founders.clone() {
            let address = self.peers[at].admin;
            self.wait(at, "alive", deadline, || admin::is_live(address)).await?;
        }
        while let Err(error) = admin::init(self.peers[0].admin).await {
            if Instant::now() > deadline {
                return Err(error.context("the cluster could not be made"));
            }
            sleep(READY_EVERY).await;
        }
        for at in founders {
            self.wait_ready(at).await?;
        }
        Ok(())
    }

    /// Writes the file of a spare node that joins with a token: by itself when it is started, or, `by_command`, with
    /// `cluster join` here and now.
    pub async fn join(&mut self, at: usize, token: &str, by_command: bool) -> Result<()> {
        let node = &self.nodes[at];
        let members: Vec<SocketAddr> =
            self.peers.iter().filter(|peer| peer.is_up()).map(|peer| peer.admin).collect();
        let mut text = joining(&self.recipe, node.id, &node.data, &self.addresses[at]);
        if !by_command {
            let members: Vec<String> = members.iter().map(ToString::to_string).collect();
            text += &format!("join = {members:?}\ntoken = \"{token}\"\n");
        }
        fs::write(&node.config, text)?;
        if !by_command {
            return Ok(());
        }
        let mut command = Command::new(&self.recipe.binary);
        command.args(["cluster", "join", "--token", token]).arg("--config").arg(&node.config);
        for member in members {
            command.arg("--member").arg(member.to_string());
        }
        let ended = timeout(READY_MAX, command.output()).await.context("cluster join hangs")??;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success(), "cluster join: {}: {said}", ended.status);
        Ok(())
    }

    /// Makes the first token of the cluster, on a node's own machine.
    pub async fn first_token(&self) -> Result<String> {
        let admin = self.addresses[0].admin;
        let (mut command, admin) = match &self.network {
            Some(network) => {
                let mut command = Command::new("ip");
                let space = network.space(self.nodes[0].id);
                command.args(["netns", "exec", &space]).arg(&self.recipe.binary);
                (command, SocketAddr::from(([127, 0, 0, 1], admin.port())))
            }
            None => (Command::new(&self.recipe.binary), admin),
        };
        command.args(["token", "create", "root", "--only", "token", "--admin"]);
        command.arg(admin.to_string());
        let deadline = Instant::now() + READY_MAX;
        loop {
            let made =
                timeout(READY_MAX, command.output()).await.context("token create hangs")??;
            if made.status.success() {
                return Ok(String::from_utf8_lossy(&made.stdout).trim().to_owned());
            }
            let said = String::from_utf8_lossy(&made.stderr);
            ensure!(Instant::now() < deadline, "token create: {}: {said}", made.status);
            sleep(READY_EVERY).await;
        }
    }

    /// Has a node start with a directory that is empty and not its own, whatever its disk is; or, if not, with its own again. It
    /// must not run.
    pub fn set_emptied(&self, at: usize, emptied: bool) -> Result<()> {
        let node = &self.nodes[at];
        let other = node.data.with_extension("emptied");
        if emptied {
            fs::create_dir(&other)?;
        }
        let written = fs::read_to_string(&node.config)?;
        let (from, to) = if emptied { (&node.data, &other) } else { (&other, &node.data) };
        fs::write(&node.config, written.replacen(&text(from), &text(to), 1))?;
        if !emptied {
            fs::remove_dir_all(other)?;
        }
        Ok(())
    }

    /// Puts a node's data directory aside and gives it an empty one; the node must not run.
    pub fn empty(&self, at: usize) -> Result<()> {
        let data = &self.nodes[at].data;
        fs::rename(data, data.with_extension("aside"))?;
        Ok(fs::create_dir(data)?)
    }

    /// Undoes [`Self::empty`].
    pub fn put_back(&self, at: usize) -> Result<()> {
        let data = &self.nodes[at].data;
        fs::remove_dir_all(data)?;
        Ok(fs::rename(data.with_extension("aside"), data)?)
    }

    /// Throws a node's data directory away, for good, and gives it an empty one; the node must not run.
    pub fn discard(&self, at: usize) -> Result<()> {
        let data = &self.nodes[at].data;
        fs::remove_dir_all(data)?;
        Ok(fs::create_dir(data)?)
    }

    /// What a node is started with from its next start on.
    pub fn set_program(&mut self, at: usize, program: PathBuf) {
        self.nodes[at].program = program;
    }

    /// What `moorline cluster status` of a node's own program prints when it asks that node; what went wrong, if that did.
    pub async fn status(&self, at: usize) -> Result<String> {
        let mut command = Command::new(&self.nodes[at].program);
        command.args(["cluster", "status", "--admin"]).arg(self.addresses[at].admin.to_string());
        command.stdin(Stdio::null()).kill_on_drop(true);
        let ended =
            timeout(READY_MAX, command.output()).await.context("cluster status hangs")??;
        let said = if ended.status.success() { ended.stdout } else { ended.stderr };
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// A node's data directory.
    pub fn data(&self, at: usize) -> PathBuf {
        self.nodes[at].data.clone()
    }

    /// Sets a node's wall clock to so many seconds off the true time; it may run.
    pub fn set_clock(&self, at: usize, off_s: i64) -> Result<()> {
        let file = clock_file(&self.nodes[at].data);
        let next = file.with_extension("next");
        // The library may read it at any time: it finds the old or the new text.
        fs::write(&next, format!("{off_s:+}\n"))?;
        Ok(fs::rename(next, file)?)
    }

    /// Starts one node; it is not ready yet.
    pub fn start_node(&mut self, at: usize) -> Result<()> {
        let node = &mut self.nodes[at];
        ensure!(node.child.is_none(), "node {} runs already", node.id);
        let log = OpenOptions::new().create(true).append(true).open(&node.log)?;
        let mut command = match &self.network {
            Some(network) => {
                // `ip netns exec` becomes the program it starts: the process we hold is the node.
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &network.space(node.id)]).arg(&node.program);
                command
            }
            None => Command::new(&node.program),
        };
        command
            .args(["server", "--config"])
            .arg(&node.config)
            .envs(clock(&self.recipe, &node.data))
            .envs(self.recipe.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .kill_on_drop(true);
        let child = command.spawn();
        let program = node.program.display();
        node.child = Some(child.with_context(|| format!("{program} cannot be started"))?);
        self.peers[at].up.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until a node says it serves. Returns how long that took.
    pub async fn wait_ready(&mut self, at: usize) -> Result<Duration> {
        let address = self.peers[at].admin;
        let began = Instant::now();
        self.wait(at, "ready", began + READY_MAX, || admin::is_ready(address)).await?;
        Ok(began.elapsed())
    }

    async fn wait<F: Future<Output = bool>>(
        &mut self,
        at: usize,
        what: &str,
        deadline: Instant,
        is: impl Fn() -> F,
    ) -> Result<()> {
        while !is().await {
            let id = self.nodes[at].id;
            if let Some(status) = self.exited(at)? {
                bail!("node {id} ended by itself ({status}) before it was {what}");
            }
            if Instant::now() > deadline {
                bail!("node {id} was not {what} in time");
            }
            sleep(READY_EVERY).await;
        }
        Ok(())
    }

    /// Sends SIGKILL. The process may need a moment to be gone: [`Self::wait_death`].
    pub fn kill(&mut self, at: usize) -> Result<()> {
        self.peers[at].up.store(false, Ordering::Relaxed);
        let child = self.nodes[at].child.as_mut().context("the node does not run")?;
        Ok(child.start_kill()?)
    }

    /// Waits until a killed process is gone.
    pub async fn wait_death(&mut self, at: usize) -> Result<()> {
        let node = &mut self.nodes[at];
        if let Some(mut child) = node.child.take() {
            timeout(DEATH_MAX, child.wait())
                .await
                .with_context(|| format!("node {} does not die", node.id))??;
        }
        Ok(())
    }

    /// Sends a signal to a node that runs.
    pub fn signal(&mut self, at: usize, signal: Signal) -> Result<()> {
        let child = self.nodes[at].child.as_mut().context("the node does not run")?;
        // Unreaped, so the number is still this child's.
        let pid = child.id().context("the node has ended")?;
        let pid = Pid::from_raw(i32::try_from(pid)?).context("a process number")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits until a node ends by itself.
    pub async fn wait_end(&mut self, at: usize, within: Duration) -> Result<ExitStatus> {
        let node = &mut self.nodes[at];
        let mut child = node.child.take().context("the node does not run")?;
        let ended = timeout(within, child.wait()).await;
        if ended.is_err() {
            // Back to where a stop finds it.
            self.nodes[at].child = Some(child);
            bail!("node {} did not end by itself", self.nodes[at].id);
        }
        self.peers[at].up.store(false, Ordering::Relaxed);
        Ok(ended.expect("looked at above")?)
    }

    /// Whether a process of a node is held here.
    pub fn runs(&self, at: usize) -> bool {
        self.nodes[at].child.is_some()
    }

    /// The status of a node that ended without being told to.
    pub fn exited(&mut self, at: usize) -> Result<Option<ExitStatus>> {
        match &mut self.nodes[at].child {
            Some(child) => Ok(child.try_wait()?),
            None => Ok(None),
        }
    }

    /// The disk of a node, if it can lose something.
    pub fn disk(&self, at: usize) -> Option<&Mounted> {
        self.nodes[at].disk.as_ref()
    }

    /// Has every disk write back what it keeps in memory, synced or not.
    pub fn write_back(&self) -> Result<()> {
        for disk in self.nodes.iter().filter_map(|node| node.disk.as_ref()) {
            disk.controller().sync().context("a disk could not write back")?;
        }
        Ok(())
    }

    /// Starts a probe on every node's own side; none where nodes have no network of their own.
    pub fn probes(&self) -> Result<Vec<Arc<Probe>>> {
        let Some(network) = &self.network else { return Ok(Vec::new()) };
        let founders = usize::try_from(self.recipe.nodes)?;
        let nodes = self.nodes.iter().zip(&self.addresses).take(founders);
        let start = |(node, at): (&Node, &Addresses)| {
            Probe::start(&network.space(node.id), at.admin.port()).map(Arc::new)
        };
        nodes.map(start).collect()
    }

    /// The place in [`Self::nodes`] of a node's number.
    pub fn place(&self, id: u32) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    /// Kills what runs and waits until it is gone, so that disks can be unmounted.
    pub async fn stop(&mut self) -> Result<()> {
        for at in 0..self.nodes.len() {
            if self.nodes[at].child.is_some() {
                self.kill(at)?;
            }
        }
        for at in 0..self.nodes.len() {
            self.wait_death(at).await?;
        }
        Ok(())
    }
}

fn mount(disk: DiskKind, home: &Path, data: &Path) -> Result<Option<Mounted>> {
    let names = match disk {
        DiskKind::Plain => return Ok(None),
        DiskKind::Lossy => Names::AtOnce,
        DiskKind::Strict => Names::WhenSynced,
    };
    let backing = home.join("disk");
    fs::create_dir_all(&backing)?;
    Ok(Some(Mounted::mount(&backing, data, names)?))
}

fn addresses(recipe: &Recipe, network: Option<&Network>) -> Result<Vec<Addresses>> {
    let nodes = recipe.nodes + recipe.spares;
    let many = usize::try_from(nodes)?;
    if let Some(network) = network {
        let [mqtt, admin, cluster, http] = OWN_PORTS;
        return Ok((1..=nodes)
            .map(|id| Addresses {
                mqtt: network.client_address(id, mqtt),
                admin: network.client_address(id, admin),
                cluster: network.peer_address(id, cluster),
                http: network.client_address(id, http),
            })
            .collect());
    }
    let free = ports::free(OWN_PORTS.len() * many)?;
    let each = free.chunks_exact(OWN_PORTS.len());
    let of =
        |at: &[SocketAddr]| Addresses { mqtt: at[0], admin: at[1], cluster: at[2], http: at[3] };
    Ok(each.map(of).collect())
}

/// All clients come from one address and come back as fast as they can, and what waits for those that are away is checked
/// to the last message.
const LIMITS: &str = "[mqtt]\nunauthenticated-per-address-max = 0\nconnects-per-client-s = 0\nconnects-per-tenant-s = 0\n\
    inflight-max = 256\nsession-queue-max = 100000\nsession-queue-bytes-max = 67108864\n";

/// So little of the log is kept that who was away for seconds needs a snapshot.
const LITTLE_LOG: &str = "[storage]\ncheckpoint-s = 3\nlog-keep-entries = 100\n\n";

/// The key that the nodes of a run share; it guards nothing.
pub const KEY: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

/// Where a node has its key: beside its data.
fn key_file(data: &Path) -> PathBuf {
    data.with_file_name("cluster.key")
}

/// Where a node's wall clock is set: beside its data.
fn clock_file(data: &Path) -> PathBuf {
    data.with_file_name("clock")
}

/// What makes a node's wall clock its own. The monotonic one stays the machine's.
fn clock(recipe: &Recipe, data: &Path) -> Vec<(&'static str, PathBuf)> {
    let Some(library) = &recipe.clocks else { return Vec::new() };
    vec![
        ("LD_PRELOAD", library.clone()),
        ("FAKETIME_TIMESTAMP_FILE", clock_file(data)),
        ("FAKETIME_CACHE_DURATION", "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
    ]
}

/// Where libfaketime is, for programs with threads.
pub fn clock_library() -> Result<PathBuf> {
    let places = ["/usr/lib", "/usr/lib64"];
    let below = places.iter().flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten());
    let mut found = below.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    found.find(|path| path.exists()).context("libfaketime is not installed")
}

/// A path as TOML: a JSON string is a TOML basic string.
fn text(path: &Path) -> String {
    serde_json::Value::String(path.display().to_string()).to_string()
}

/// What the files of all nodes begin with; it ends within `[cluster]`.
fn common(recipe: &Recipe, id: u32, data: &Path, own: &Addresses) -> String {
    let (http, security) = if recipe.devices {
        let key = text(&key_file(data));
        let http = format!("http = \"{}\"\n", own.http);
        (http, format!("[security]\nkey-file = {key}\nanonymous = true\n\n"))
    } else {
        (String::new(), String::new())
    };
    let storage = if recipe.little_log { LITTLE_LOG } else { "" };
    // In a namespace of its own a node can be asked from its own machine, which is where the first token is made.
    let admin = if recipe.networks {
        SocketAddr::from(([0, 0, 0, 0], own.admin.port()))
    } else {
        own.admin
    };
    format!(
        "[node]\nid = {id}\ndata-dir = {}\n\n[listen]\nmqtt = \"{}\"\nadmin = \"{}\"\ncluster = \"{}\"\n{http}\n\
         {security}{storage}{LIMITS}\n[cluster]\nshards = {}\n",
        text(data),
        own.mqtt,
        admin,
        own.cluster,
        recipe.shards,
    )
}

fn configuration(recipe: &Recipe, id: u32, data: &Path, addresses: &[Addresses]) -> String {
    let founders = usize::try_from(recipe.nodes).expect("32 bits fit");
    let own = &addresses[usize::try_from(id).expect("32 bits fit") - 1];
    let peers: Vec<String> = (1..)
        .zip(&addresses[..founders])
        .map(|(id, at)| format!("    {{ id = {id}, address = \"{}\" }},\n", at.cluster))
        .collect();
    common(recipe, id, data, own) + &format!("peers = [\n{}]\n", peers.concat())
}

/// The file of a node that joins later.
fn joining(recipe: &Recipe, id: u32, data: &Path, own: &Addresses) -> String {
    common(recipe, id, data, own) + &format!("address = \"{}\"\n", own.cluster)
}

/// The last lines of a log, for whoever has to find out.
pub fn tail(log: &Path, lines: usize) -> String {
    use std::io::{Read, Seek, SeekFrom};
    /// How much of the log is looked at, in bytes.
    const TAIL_BYTES: u64 = 64 << 10;
    let read = || {
        let mut file = File::open(log)?;
        let skip = file.metadata()?.len().saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(skip))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

impl Node {
    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it ever ran.
    pub fn was_started(&self) -> bool {
        self.log.exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            binary: "/bin/sleep".into(),
            nodes: 3,
            spares: 1,
            shards: 4,
            disk: DiskKind::Plain,
            networks: false,
            devices: false,
            little_log: false,
            clocks: None,
            environment: Vec::new(),
        }
    }

    #[test]
    fn a_configuration_names_every_node() {
        let directory = tempfile::tempdir().unwrap();
        let cluster = Cluster::prepare(recipe(), directory.path()).unwrap();
        let text = fs::read_to_string(&cluster.nodes[1].config).unwrap();
        assert!(text.contains("[node]\nid = 2\n"), "{text}");
        assert!(text.contains("shards = 4"), "{text}");
        assert!(text.contains(&format!("mqtt = \"{}\"", cluster.peers[1].mqtt)), "{text}");
        assert_eq!(text.matches("{ id = ").count(), 3, "{text}");
        assert!(text.contains("node-2/data\""), "{text}");
    }

    #[tokio::test]
    async fn a_node_that_ends_by_itself_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let recipe = Recipe { binary: "/bin/false".into(), nodes: 1, ..recipe() };
        let mut cluster = Cluster::prepare(recipe, directory.path()).unwrap();
        let error = cluster.start().await.unwrap_err().to_string();
        assert!(error.contains("node 1 ended by itself"), "{error}");
    }

    #[test]
    fn a_tail_is_the_end_of_a_log() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        fs::write(&log, "1\n2\n3\n").unwrap();
        assert_eq!(tail(&log, 2), "2\n3");
        assert_eq!(tail(&directory.path().join("none"), 2), "");
    }
}
