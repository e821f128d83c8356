//! The peers: how each is started, on ports from the OS, with data below one directory, and ended by pid.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::runtime::Runtime;

use super::Fact;
use crate::cli::{Peer, PeersArgs};

/// How long a peer may take until it accepts connections.
const START_WAIT: Duration = Duration::from_secs(30);
/// How often that is tried.
const START_PAUSE: Duration = Duration::from_millis(50);
/// How long a peer may take to end after it was asked.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// Nodes of a clustered peer.
const NODES: usize = 3;

/// A running peer. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its MQTT addresses.
    pub(crate) targets: Vec<String>,
    /// Its processes, whose CPU time counts.
    pub(crate) pids: Vec<u32>,
    children: Vec<Child>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.children {
            if let Some(pid) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
                // The child may be gone already, which is what is wanted.
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        let deadline = Instant::now() + STOP_WAIT;
        for child in &mut self.children {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(START_PAUSE);
            }
            if matches!(child.try_wait(), Ok(None)) && child.kill().is_ok() {
                drop(child.wait());
            }
        }
    }
}

/// Starts a peer with its data below `dir` and waits until it takes connections.
pub(crate) fn start(peer: Peer, args: &PeersArgs, dir: &Path) -> anyhow::Result<Running> {
    std::fs::create_dir_all(dir)?;
    match peer {
        Peer::Moorline => moorline(args, dir),
        Peer::NatsSync => nats(args, dir, "always"),
        Peer::Nats => nats(args, dir, "2m"),
        Peer::Mosquitto => mosquitto(args, dir),
        Peer::Rumqttd => rumqttd(args, dir),
    }
}

/// Ports that were free a moment ago.
pub(crate) fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    let held = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<Vec<_>, _>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

fn spawn(command: &mut Command, log: &Path) -> anyhow::Result<Child> {
    let log = File::create(log)?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {:?}", command.get_program()))
}

fn wait_for(port: u16) -> anyhow::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + START_WAIT;
    while TcpStream::connect_timeout(&address, START_PAUSE).is_err() {
        if Instant::now() > deadline {
            bail!("nothing listens on {address} after {START_WAIT:?}");
        }
        std::thread::sleep(START_PAUSE);
    }
    Ok(())
}

fn targets(ports: &[u16]) -> Vec<String> {
    ports.iter().map(|port| format!("127.0.0.1:{port}")).collect()
}

fn moorline(args: &PeersArgs, dir: &Path) -> anyhow::Result<Running> {
    demo(args.shards, dir).map(|(running, _)| running)
}

/// Three nodes of this program with their data below `dir`, and where they are.
pub(crate) fn demo(
    shards: Option<u16>,
    dir: &Path,
) -> anyhow::Result<(Running, Vec<crate::demo::ReadyNode>)> {
    demo_as(shards, None, dir)
}

/// The same, and what `[mqtt]` of the nodes says.
pub(super) fn demo_as(
    shards: Option<u16>,
    mqtt: Option<&str>,
    dir: &Path,
) -> anyhow::Result<(Running, Vec<crate::demo::ReadyNode>)> {
    std::fs::create_dir_all(dir)?;
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    command.args(["demo", "--quiet", "--fresh", "--no-restart", "--dir"]).arg(dir.join("demo"));
    if let Some(shards) = shards {
        command.args(["--shards", &shards.to_string()]);
    }
    if let Some(mqtt) = mqtt {
        command.args(["--mqtt", mqtt]);
    }
    let child = spawn(&mut command, &dir.join("demo.log"))?;
    let mut running = Running { targets: Vec::new(), pids: Vec::new(), children: vec![child] };
    let ready = dir.join("demo").join("ready.json");
    let deadline = Instant::now() + START_WAIT;
    let text = loop {
        match std::fs::read_to_string(&ready) {
            Ok(text) => break text,
            Err(_) if Instant::now() < deadline => std::thread::sleep(START_PAUSE),
            Err(error) => bail!("the demo is not ready after {START_WAIT:?}: {error}"),
        }
    };
    let nodes: Vec<crate::demo::ReadyNode> = serde_json::from_str(&text)?;
    running.targets = nodes.iter().map(|node| node.mqtt.to_string()).collect();
    running.pids = nodes.iter().map(|node| node.pid).collect();
    Ok((running, nodes))
}

/// Measures three nodes of this program with their data below `dir`, which is removed if that goes well, and prints what was found.
pub(super) fn measure_demo(
    name: &str,
    dir: &Path,
    shards: Option<u16>,
    json: bool,
    measure: impl FnOnce(
        &Running,
        &[crate::demo::ReadyNode],
        &Path,
        &Runtime,
    ) -> anyhow::Result<Vec<Fact>>,
) -> anyhow::Result<()> {
    let dir = dir.join(format!("moorline-{name}-{}", std::process::id()));
    let (running, nodes) = demo(shards, &dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let facts = measure(&running, &nodes, &dir, &runtime);
    let facts = facts.with_context(|| format!("its logs are in {}", dir.display()))?;
    drop(running);
    std::fs::remove_dir_all(&dir)?;
    if json {
        println!("{}", serde_json::to_string(&facts)?);
    } else {
        facts.iter().for_each(|fact| println!("{:>14.3} {}", fact.value, fact.name));
    }
    Ok(())
}

fn nats(args: &PeersArgs, dir: &Path, sync: &str) -> anyhow::Result<Running> {
    let ports = free_ports(3 * NODES)?;
    let (clients, rest) = ports.split_at(NODES);
    let (mqtt, routes) = rest.split_at(NODES);
    let peers: Vec<String> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    let mut running = Running { targets: targets(mqtt), pids: Vec::new(), children: Vec::new() };
    for node in 0..NODES {
        let config = dir.join(format!("n{node}.conf"));
        let store = dir.join(format!("n{node}"));
        std::fs::write(
            &config,
            format!(
                "server_name: n{node}\nlisten: 127.0.0.1:{}\n\
                 jetstream {{ store_dir: {:?}, sync_interval: {sync:?} }}\n\
                 cluster {{ name: bench, listen: 127.0.0.1:{}, routes: {peers:?} }}\n\
                 mqtt {{ listen: 127.0.0.1:{}, stream_replicas: 3, consumer_replicas: 3, max_ack_pending: 1000 }}\n",
                clients[node], store, routes[node], mqtt[node]
            ),
        )?;
        let mut command = Command::new(&args.nats_server);
        command.arg("-c").arg(&config);
        running.children.push(spawn(&mut command, &dir.join(format!("n{node}.log")))?);
    }
    running.pids = running.children.iter().map(Child::id).collect();
    for &port in mqtt {
        wait_for(port)?;
    }
    Ok(running)
}

fn mosquitto(args: &PeersArgs, dir: &Path) -> anyhow::Result<Running> {
    let ports = free_ports(1)?;
    let config: PathBuf = dir.join("mosquitto.conf");
    std::fs::write(
        &config,
        format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence false\n\
             max_inflight_messages 1000\nmax_queued_messages 0\nset_tcp_nodelay true\n",
            ports[0]
        ),
    )?;
    let mut command = Command::new(&args.mosquitto);
    command.arg("-c").arg(&config);
    let child = spawn(&mut command, &dir.join("mosquitto.log"))?;
    let running =
        Running { targets: targets(&ports), pids: vec![child.id()], children: vec![child] };
    wait_for(ports[0])?;
    Ok(running)
}

fn rumqttd(args: &PeersArgs, dir: &Path) -> anyhow::Result<Running> {
    let ports = free_ports(1)?;
    let program = match &args.peers_program {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("moorline-peers"),
    };
    let mut command = Command::new(program);
    command.arg("--listen").arg(format!("127.0.0.1:{}", ports[0]));
    let child = spawn(&mut command, &dir.join("rumqttd.log"))?;
    let running =
        Running { targets: targets(&ports), pids: vec![child.id()], children: vec![child] };
    wait_for(ports[0])?;
    Ok(running)
}
