//! `moorline bench connect`: how many devices a cluster lets in in a second, each with its secret; over TCP, with a TLS handshake for
//! each, and with TLS that resumes.
//!
//! A device connects, waits for its CONNACK, says goodbye, and its place is taken by another one. The devices, their tenant and their
//! secrets are made first, in a demo: of its own, or one that runs.

use std::{
    net::Ipv4Addr,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::BytesMut;
use clap::ValueEnum;
use hdrhistogram::Histogram;
use hyper::Method;
use moorline_core::Text;
use moorline_mqtt::{
    Millis, Version,
    client::{Client, Event, Options},
};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{peers, process, report::Quantiles};
use crate::{
    cli::ConnectArgs,
    demo::ReadyNode,
    http::{self, Target},
};

/// How long one connection may take.
const CONNECT_WAIT: Duration = Duration::from_secs(30);
/// The longest latency told apart, in nanoseconds.
const LATENCY_MAX_NS: u64 = 60_000_000_000;
/// Devices for each place: the next one comes while the one before is still being closed.
const DEVICES_PER_PLACE: usize = 2;
/// What an answer to a CONNECT may be.
const READ_BYTES: usize = 1024;
/// The tenant of the devices.
const TENANT: &str = "bench-connect";

/// How devices connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// TCP alone.
    Tcp,
    /// TLS, with all signatures each time.
    Tls,
    /// TLS with a ticket of the time before.
    Resumed,
}

/// What one way came to.
#[derive(Debug, Clone, Serialize)]
struct Measured {
    way: Way,
    connects_per_s: f64,
    /// From the first packet of TCP to the CONNACK.
    connect_ms: Quantiles,
    /// CPU of all nodes per connect.
    nodes_us_per_connect: f64,
    /// CPU of this program per connect.
    generator_us_per_connect: f64,
    /// Handshakes that resumed.
    resumed: u64,
    failed: u64,
}

/// A device of the registry.
struct Device {
    name: String,
    secret: String,
}

/// Runs `moorline bench connect`.
pub(crate) fn run(args: &ConnectArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(demo) = &args.demo {
        return runtime.block_on(drive(args, demo));
    }
    let dir = args.dir.join(format!("moorline-bench-{}-connect", std::process::id()));
    let (running, _) = peers::demo(None, &dir)?;
    let result = runtime.block_on(drive(args, &dir.join("demo")));
    drop(running);
    result.with_context(|| format!("its logs are in {}", dir.display()))?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

async fn drive(args: &ConnectArgs, demo: &Path) -> anyhow::Result<()> {
    let ready = demo.join("ready.json");
    let text =
        std::fs::read(&ready).with_context(|| format!("{}: no demo runs", ready.display()))?;
    let nodes: Vec<ReadyNode> = serde_json::from_slice(&text)?;
    let devices = make_devices(&nodes[0], args.places * DEVICES_PER_PLACE).await?;
    let devices: Arc<[Device]> = devices.into();
    for way in &args.ways {
        let measured = measure(*way, args, &nodes, &devices).await?;
        if args.json {
            println!("{}", serde_json::to_string(&measured)?);
        } else {
            println!("{}", measured.line());
        }
    }
    Ok(())
}

impl Measured {
    fn line(&self) -> String {
        let way =
            self.way.to_possible_value().map_or_else(String::new, |w| w.get_name().to_owned());
        let Quantiles { p50, p99, .. } = self.connect_ms;
        let Self { connects_per_s, nodes_us_per_connect, generator_us_per_connect, .. } = self;
        format!(
            "{way:<8} {connects_per_s:>8.0} connects/s   p50 {p50:.1} ms, p99 {p99:.1}   {nodes_us_per_connect:.0} us CPU of all nodes \
             each, {generator_us_per_connect:.0} here   {} resumed, {} failed",
            self.resumed, self.failed
        )
    }
}

/// A tenant, its devices and a secret for each. A token is made for it, which a demo gives once: MOORLINE_TOKEN is used if it is set.
async fn make_devices(node: &ReadyNode, count: usize) -> anyhow::Result<Vec<Device>> {
    let target = Target::plain(&node.admin.to_string());
    let ask = async |path: &str, token: Option<&str>, body: Value| -> anyhow::Result<Value> {
        let path = format!("/api/v1/{path}");
        let body = serde_json::to_vec(&body)?;
        let (status, answer) = http::request_as(Method::POST, &target, &path, body, token).await?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        ensure!(status.is_success(), "{path}: {status}: {}", answer["detail"]);
        Ok(answer)
    };
    let token = match std::env::var("MOORLINE_TOKEN") {
        Ok(token) => token,
        Err(_) => {
            let made = ask("tokens", None, json!({ "name": "bench", "role": "admin" })).await;
            let made = made.context("a token is needed: set MOORLINE_TOKEN")?;
            made["token"].as_str().context("no token came")?.to_owned()
        }
    };
    let run = format!("{:08x}", rand::random::<u32>());
    let tenant = format!("{TENANT}-{run}");
    let tenant_of_bench = json!({ "name": tenant, "settings": { "plaintext": true } });
    ask("tenants", Some(&token), tenant_of_bench).await?;
    let mut devices = Vec::with_capacity(count);
    for number in 0..count {
        let name = format!("d{number}");
        ask(&format!("devices?tenant={tenant}"), Some(&token), json!({ "name": name })).await?;
        let path = format!("devices/{name}/credentials?tenant={tenant}");
        let made = ask(&path, Some(&token), json!({ "style": "plain" })).await?;
        let secret = made["secret"].as_str().context("no secret came")?.to_owned();
        devices.push(Device { name: format!("{name}@{tenant}"), secret });
    }
    Ok(devices)
}

/// What the places share.
struct Shared {
    devices: Arc<[Device]>,
    until: Instant,
    latencies: Mutex<Histogram<u64>>,
    resumed: AtomicU64,
    failed: AtomicU64,
}

async fn measure(
    way: Way,
    args: &ConnectArgs,
    nodes: &[ReadyNode],
    devices: &Arc<[Device]>,
) -> anyhow::Result<Measured> {
    let pids: Vec<u32> = nodes.iter().map(|node| node.pid).collect();
    let own = [std::process::id()];
    let began = Instant::now();
    let shared = Arc::new(Shared {
        devices: Arc::clone(devices),
        until: began + Duration::from_secs(args.seconds),
        latencies: Mutex::new(Histogram::new_with_bounds(1_000, LATENCY_MAX_NS, 3)?),
        resumed: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    });
    let (before, own_before) = (process::cpu_time(&pids)?, process::cpu_time(&own)?);
    let mut places = JoinSet::new();
    for place in 0..args.places {
        let door = Door::new(way, &nodes[place % nodes.len()])?;
        places.spawn(come_and_go(place, door, Arc::clone(&shared)));
    }
    while let Some(ended) = places.join_next().await {
        ended?;
    }
    let took = began.elapsed().as_secs_f64();
    let (after, own_after) = (process::cpu_time(&pids)?, process::cpu_time(&own)?);
    let latencies = shared.latencies.lock().unwrap_or_else(PoisonError::into_inner);
    let connects = latencies.len();
    ensure!(connects > 0, "nobody was let in");
    let each = |time: Duration| time.as_secs_f64() * 1e6 / connects as f64;
    Ok(Measured {
        way,
        connects_per_s: connects as f64 / took,
        connect_ms: Quantiles::of(&latencies),
        nodes_us_per_connect: each(after - before),
        generator_us_per_connect: each(own_after - own_before),
        resumed: shared.resumed.load(Ordering::Relaxed),
        failed: shared.failed.load(Ordering::Relaxed),
    })
}

/// Devices of one place, one after the other.
async fn come_and_go(place: usize, door: Door, shared: Arc<Shared>) {
    let mut turn = 0;
    while Instant::now() < shared.until {
        let device = &shared.devices[place * DEVICES_PER_PLACE + turn % DEVICES_PER_PLACE];
        turn += 1;
        let began = Instant::now();
        match timeout(CONNECT_WAIT, door.visit(device)).await {
            Ok(Ok((connected, resumed))) => {
                let took = (connected - began).as_nanos().min(u128::from(LATENCY_MAX_NS));
                let took = u64::try_from(took).unwrap_or(LATENCY_MAX_NS);
                let mut latencies = shared.latencies.lock().unwrap_or_else(PoisonError::into_inner);
                latencies.saturating_record(took);
                drop(latencies);
                shared.resumed.fetch_add(u64::from(resumed), Ordering::Relaxed);
            }
            Ok(Err(error)) => shared.fails(&format!("{error:#}")),
            Err(_) => shared.fails("no answer in time"),
        }
    }
}

impl Shared {
    /// Counts, and names the first.
    fn fails(&self, why: &str) {
        if self.failed.fetch_add(1, Ordering::Relaxed) == 0 {
            eprintln!("moorline: a device was not let in: {why}");
        }
    }
}

/// Bytes both ways, in TLS or not.
pub(super) trait Pipe: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Pipe for S {}

/// Where the devices of a place connect, and how.
#[derive(Clone)]
pub(super) struct Door {
    address: String,
    tls: Option<TlsConnector>,
}

impl Door {
    pub(super) fn new(way: Way, node: &ReadyNode) -> anyhow::Result<Self> {
        if way == Way::Tcp {
            return Ok(Self { address: node.mqtt.to_string(), tls: None });
        }
        let (Some(at), Some(ca)) = (node.mqtts, &node.ca) else {
            bail!("node {} of this demo speaks no TLS: begin with a fresh one", node.id);
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca)? {
            roots.add(certificate?)?;
        }
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_no_client_auth();
        if way == Way::Tls {
            config.resumption = Resumption::disabled();
        }
        Ok(Self { address: at.to_string(), tls: Some(TlsConnector::from(Arc::new(config))) })
    }

    /// Connects from one of the addresses that this machine has.
    pub(super) async fn enter(&self, from: Ipv4Addr) -> anyhow::Result<Box<dyn Pipe>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let socket = socket.connect(self.address.parse()?).await?;
        socket.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(socket)) };
        let name = ServerName::try_from("localhost")?;
        Ok(Box::new(tls.connect(name, socket).await?))
    }

    /// Connects, and leaves; says when it was let in, and whether TLS resumed.
    async fn visit(&self, device: &Device) -> anyhow::Result<(Instant, bool)> {
        let socket = TcpStream::connect(&self.address).await?;
        socket.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok((speak(socket, device).await?, false)) };
        let name = ServerName::try_from("localhost")?;
        let stream = tls.connect(name, socket).await?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        Ok((speak(stream, device).await?, resumed))
    }
}

async fn speak(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    device: &Device,
) -> anyhow::Result<Instant> {
    let options = Options {
        version: Version::V311,
        client_id: Text::from(device.name.as_str()),
        username: Some(Text::from(device.name.as_str())),
        password: Some(device.secret.clone().into()),
        ..Options::default()
    };
    let mut client = Client::new(options, Millis(0))?;
    stream.write_all_buf(client.output()).await?;
    stream.flush().await?;
    let mut input = BytesMut::with_capacity(READ_BYTES);
    let connected = loop {
        match client.poll_event() {
            Some(Event::Connected(_)) => break Instant::now(),
            Some(event) => bail!("a CONNECT was answered with {event:?}"),
            None => {}
        }
        ensure!(stream.read_buf(&mut input).await? > 0, "the node closed the connection");
        client.receive(Millis(0), &mut input)?;
    };
    client.disconnect();
    stream.write_all_buf(client.output()).await?;
    stream.shutdown().await?;
    Ok(connected)
}
