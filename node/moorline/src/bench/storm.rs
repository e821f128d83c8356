//! `moorline bench storm`: a node of three dies, and its devices come back at once to the others, with durable sessions and a
//! subscription each. How long that takes, what those hear who are refused, and what steady devices at the other nodes notice.
//!
//! ```text
//!   all connect ─► steady devices publish: "before" ─► SIGKILL (or --cut) ─► devices come back, again and again: "during" ─► all back
//! ```
//!
//! A device comes back at once, which is the worst it can do; if it is refused or closed, after a pause by chance of up to
//! [`PAUSE_MIN`], which doubles up to [`PAUSE_MAX`], at the next node. Nodes have the limits that they have by default, 50
//! strangers of one address among them, so the devices come from many addresses of this machine's loopback network. The nodes, which
//! are processes of their own, and this one, which holds all devices, have 20,000 descriptors each where this was written.
//!
//! Steady devices run in a thread of their own: what they measure is the nodes, not how busy this program is with the storm.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::{Bytes, BytesMut};
use hdrhistogram::Histogram;
use hyper::Method;
use moorline_core::{QoS, Text};
use moorline_mqtt::{
    Millis, Version,
    client::{Client, Event, Options},
    codec::{ConnectProperties, Outgoing},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Fact,
    caller::Caller,
    connect::{Door, Pipe},
    idle::held_by_one,
    peers, process,
    registry::{self, Share},
    report::Quantiles,
};
use crate::{cli::StormArgs, demo::ReadyNode, http};

/// What rates are counted in.
const SECOND: Duration = Duration::from_secs(1);
/// Devices of one address: fewer than there may be strangers.
const DEVICES_PER_ADDRESS: usize = 32;
/// How long one attempt to connect may take.
const ATTEMPT_WAIT: Duration = Duration::from_secs(20);
/// The pause after the first attempt that fails, at most, and after many.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// See there.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// Devices that connect at a time before it begins.
const OPENING_MAX: usize = 64;
/// How long they may take for that.
const FIRST_WAIT: Duration = Duration::from_secs(300);
/// How often it is looked whether all are back, and how much memory the nodes have.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// How long "during" is at least: a storm that is over in no time is measured all the same.
const DURING_MIN: Duration = Duration::from_secs(3);
/// The longest time told apart: ten minutes, in nanoseconds.
const TOOK_MAX_NS: u64 = 600_000_000_000;
/// How long a session outlives its connection.
const EXPIRY_S: u32 = 3_600;
/// What a read may bring.
const READ_BYTES: usize = 1_024;
/// Bytes of a steady device's publish.
const PAYLOAD: [u8; 64] = [7; 64];

/// Runs it.
pub(crate) fn run(args: &StormArgs) -> anyhow::Result<()> {
    process::raise_descriptors();
    let held = held_by_one(process::descriptors_max());
    let connections = args.devices + args.steady;
    ensure!(connections <= held, "this process may hold {held} connections, not {connections}");
    ensure!(args.devices > 0 && args.steady > 0 && args.tenants > 0, "none of them is not enough");
    let dir = args.dir.join(format!("moorline-storm-{}", std::process::id()));
    let (running, nodes) = peers::demo_as(args.shards, Some(&args.mqtt.join("\n")), &dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let facts = measure(args, &nodes, &runtime);
    let facts = facts.with_context(|| format!("its logs are in {}", dir.display()))?;
    runtime.shutdown_background();
    drop(running);
    std::fs::remove_dir_all(&dir)?;
    if args.json {
        println!("{}", serde_json::to_string(&facts)?);
    } else {
        facts.iter().for_each(|fact| println!("{:>14.3} {}", fact.value, fact.name));
    }
    Ok(())
}

fn measure(args: &StormArgs, nodes: &[ReadyNode], runtime: &Runtime) -> anyhow::Result<Vec<Fact>> {
    ensure!(nodes.len() == 3, "a storm has three nodes");
    runtime.block_on(make_devices(args, &nodes[0].admin.to_string()))?;
    let doors =
        nodes.iter().map(|node| Door::new(args.way, node)).collect::<anyhow::Result<Vec<_>>>()?;
    let fleet = Arc::new(Fleet::new(args, doors)?);
    let mut devices = JoinSet::new();
    runtime.block_on(fleet.all_come(&mut devices))?;
    let steady = {
        let fleet = Arc::clone(&fleet);
        thread::spawn(move || keep_steady(&fleet))
    };
    let victim = nodes[2].pid;
    let living: Vec<u32> =
        nodes.iter().map(|node| node.pid).filter(|pid| args.cut || *pid != victim).collect();
    let measured = runtime.block_on(async {
        sleep(Duration::from_secs(args.before_s)).await;
        let resting = process::resident_bytes(&living)?;
        fleet.begin();
        if !args.cut {
            let pid = rustix::process::Pid::from_raw(victim.cast_signed()).context("a process")?;
            rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        }
        let peak = fleet.until_back(&living, Duration::from_secs(args.within_s)).await?;
        anyhow::Ok((resting, peak))
    });
    fleet.over.store(true, Ordering::Release);
    let ended = steady.join();
    let (resting, peak) = measured?;
    ended.map_err(|_| anyhow::anyhow!("the steady devices panicked"))??;
    drop(devices);
    fleet.facts(resting, peak)
}

/// A token, tenants, and all devices in them.
async fn make_devices(args: &StormArgs, admin: &str) -> anyhow::Result<()> {
    let mut nobody = Caller::connect(admin, Vec::new()).await?;
    let first = json!({ "name": "bench", "role": "admin" });
    let made = nobody.done(Method::POST, "/api/v1/tokens", &first).await?;
    let token = made["token"].as_str().context("no token")?.to_owned();
    let mut caller = Caller::connect(admin, http::bearer(Some(&token))).await?;
    let mut imports = JoinSet::new();
    for at in 0..args.tenants {
        let tenant = tenant_of(at, args.tenants);
        let body = json!({ "name": tenant, "settings": { "plaintext": true } });
        caller.done(Method::POST, "/api/v1/tenants", &body).await?;
        let devices = (args.devices + args.steady) as u64;
        let share = Share { first: at as u64, step: args.tenants as u64, devices };
        imports.spawn(registry::import(admin.to_owned(), token.clone(), tenant, share));
    }
    let mut made = 0;
    while let Some(ended) = imports.join_next().await {
        made += ended??;
    }
    eprintln!("{made} devices of {} tenants are made", args.tenants);
    Ok(())
}

fn tenant_of(device: usize, tenants: usize) -> String {
    format!("storm{}", device % tenants)
}

/// From where a device comes: `127.64.0.1` and those behind it, without the last of each network.
fn address_of(device: usize) -> Ipv4Addr {
    let at = device / DEVICES_PER_ADDRESS;
    let part = |of: usize| u8::try_from(of % 250).expect("less than 250");
    Ipv4Addr::new(127, 64, part(at / 250), part(at) + 1)
}

/// What came of the storm, as the devices have seen it.
#[derive(Default)]
struct Tally {
    /// Why attempts came to nothing, and how often.
    refused: BTreeMap<String, u64>,
    retried: u64,
    /// Came back to nothing.
    forgotten: u64,
}

/// What steady devices have measured.
struct Steady {
    before: Histogram<u64>,
    during: Histogram<u64>,
    broken: u64,
}

impl Steady {
    fn published(&mut self, during: bool, took: Duration) {
        let of = if during { &mut self.during } else { &mut self.before };
        of.saturating_record(nanos(took));
    }
}

/// All of them.
struct Fleet {
    devices: usize,
    steady: usize,
    tenants: usize,
    /// How many nodes take those that come back.
    onto: usize,
    all: bool,
    /// Devices subscribe again when they come back, with a wildcard.
    wildcard: bool,
    between: Duration,
    doors: Vec<Door>,
    start: Instant,
    storm: watch::Sender<Option<Instant>>,
    over: AtomicBool,
    back: AtomicUsize,
    took: Mutex<Histogram<u64>>,
    tally: Mutex<Tally>,
    measured: Mutex<Steady>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is complete before anything can panic.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1_000, TOOK_MAX_NS, 3)?)
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(TOOK_MAX_NS)
}

impl Fleet {
    fn new(args: &StormArgs, doors: Vec<Door>) -> anyhow::Result<Self> {
        let steady = Steady { before: histogram()?, during: histogram()?, broken: 0 };
        Ok(Self {
            devices: args.devices,
            steady: args.steady,
            tenants: args.tenants,
            onto: args.onto.into(),
            all: args.all,
            wildcard: args.wildcard,
            between: SECOND / args.rate.max(1),
            doors,
            start: Instant::now(),
            storm: watch::Sender::new(None),
            over: AtomicBool::new(false),
            back: AtomicUsize::new(0),
            took: Mutex::new(histogram()?),
            tally: Mutex::default(),
            measured: Mutex::new(steady),
        })
    }

    /// Whether the storm takes its connection.
    fn is_hit(&self, device: usize) -> bool {
        device < self.devices && (self.all || device % self.doors.len() + 1 == self.doors.len())
    }

    fn hit(&self) -> usize {
        (0..self.devices).filter(|device| self.is_hit(*device)).count()
    }

    fn options(&self, device: usize) -> Options {
        let name = registry::name(device as u64);
        let tenant = tenant_of(device, self.tenants);
        Options {
            version: Version::V5,
            client_id: Text::from(name.as_str()),
            clean_start: false,
            keep_alive_s: 0,
            username: Some(Text::from(format!("{name}@{tenant}"))),
            password: Some(Bytes::from(registry::secret(device as u64))),
            properties: ConnectProperties {
                session_expiry_s: Some(EXPIRY_S),
                ..ConnectProperties::default()
            },
            ..Options::default()
        }
    }

    /// One attempt; the connection, and whether its session was there.
    async fn attempt(&self, device: usize, at: usize) -> anyhow::Result<(Line, bool)> {
        let attempt = async {
            let stream = self.doors[at].enter(address_of(device)).await?;
            let client = Client::new(self.options(device), self.now())?;
            let mut line = Line { stream, client, input: BytesMut::new(), start: self.start };
            match line.next().await? {
                Event::Connected(connack) => anyhow::Ok((line, connack.session_present)),
                Event::Refused(connack) => bail!("CONNACK {:?}", connack.reason),
                other @ (Event::Published { .. }
                | Event::Message(_)
                | Event::Subscribed { .. }
                | Event::Unsubscribed { .. }
                | Event::Disconnected(_)) => bail!("{other:?}"),
            }
        };
        timeout(ATTEMPT_WAIT, attempt).await.map_err(|_| anyhow::anyhow!("no answer in time"))?
    }

    /// As often as it takes. Attempts count from the second on.
    async fn come(&self, device: usize, nodes: usize) -> (Line, bool) {
        let mut pause = PAUSE_MIN;
        let mut at = device;
        loop {
            match self.attempt(device, at % nodes).await {
                Ok(came) => return came,
                Err(error) => {
                    let why = match error.downcast_ref::<std::io::Error>() {
                        Some(error) => format!("{:?}", error.kind()),
                        None => error.to_string(),
                    };
                    let mut tally = lock(&self.tally);
                    *tally.refused.entry(why).or_default() += 1;
                    tally.retried += 1;
                }
            }
            sleep(pause.mul_f64(rand::random_range(0.2..1.0))).await;
            (pause, at) = ((pause * 2).min(PAUSE_MAX), at + 1);
        }
    }

    /// Connects all devices, each with its subscription, and lets them rest.
    async fn all_come(self: &Arc<Self>, devices: &mut JoinSet<()>) -> anyhow::Result<()> {
        let (opening, came) = (Arc::new(Semaphore::new(OPENING_MAX)), Instant::now());
        for device in 0..self.devices {
            devices.spawn(Arc::clone(self).live(device, Arc::clone(&opening)));
        }
        while self.back.load(Ordering::Acquire) < self.devices {
            ensure!(came.elapsed() < FIRST_WAIT, "not all are connected after {FIRST_WAIT:?}");
            sleep(LOOK_PAUSE).await;
        }
        eprintln!("{} devices are connected after {:.1?}", self.devices, came.elapsed());
        self.back.store(0, Ordering::Release);
        *lock(&self.tally) = Tally::default();
        Ok(())
    }

    /// One device: connected, hit by the storm or not, and back.
    async fn live(self: Arc<Self>, device: usize, opening: Arc<Semaphore>) {
        let mut line = {
            let _place = opening.acquire().await.expect("nobody closes it");
            loop {
                let (mut line, _) = self.come(device, self.doors.len()).await;
                if line.subscribe(&self.filter(device)).await.is_ok() {
                    break line;
                }
            }
        };
        self.back.fetch_add(1, Ordering::AcqRel);
        let mut storm = self.storm.subscribe();
        let begun = loop {
            let broken = tokio::select! {
                biased;
                changed = storm.changed() => changed.is_err(),
                heard = line.next() => heard.is_err(),
            };
            let begun = *storm.borrow();
            match begun {
                Some(begun) if self.is_hit(device) => break begun,
                // Not the storm's doing: it is connected again, at a node that lives on.
                _ if broken => (line, _) = self.come(device, 2).await,
                _ => {}
            }
        };
        drop(line);
        let (mut line, present) = loop {
            let (mut line, present) = self.come(device, self.onto).await;
            if !self.wildcard || line.subscribe(&self.filter(device)).await.is_ok() {
                break (line, present);
            }
        };
        lock(&self.took).saturating_record(nanos(begun.elapsed()));
        lock(&self.tally).forgotten += u64::from(!present);
        self.back.fetch_add(1, Ordering::AcqRel);
        while line.next().await.is_ok() {}
    }

    fn topic(&self, device: usize) -> String {
        format!("{}/storm", registry::name(device as u64))
    }

    fn filter(&self, device: usize) -> String {
        if self.wildcard {
            return format!("{}/#", registry::name(device as u64));
        }
        self.topic(device)
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Now.
    fn begin(&self) {
        self.storm.send_replace(Some(Instant::now()));
    }

    /// Waits until all are back: the most memory that the nodes had meanwhile.
    async fn until_back(&self, living: &[u32], within: Duration) -> anyhow::Result<u64> {
        let (hit, begun, mut peak) = (self.hit(), Instant::now(), 0);
        loop {
            let back = self.back.load(Ordering::Acquire);
            peak = peak.max(process::resident_bytes(living)?);
            if back >= hit && begun.elapsed() >= DURING_MIN {
                return Ok(peak);
            }
            let refused = || format!("{:?}", lock(&self.tally).refused);
            ensure!(begun.elapsed() < within, "{back} of {hit} are back: {}", refused());
            sleep(LOOK_PAUSE).await;
        }
    }

    fn facts(&self, resting: u64, peak: u64) -> anyhow::Result<Vec<Fact>> {
        let (took, tally, steady) = (lock(&self.took), lock(&self.tally), lock(&self.measured));
        for (why, times) in &tally.refused {
            eprintln!("{times:>14} attempts: {why}");
        }
        ensure!(!steady.before.is_empty() && !steady.during.is_empty(), "nobody was steady");
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let of = Quantiles::of(&took);
        let (before, during) = (Quantiles::of(&steady.before), Quantiles::of(&steady.during));
        Ok(vec![
            Fact::rate("devices came back", took.len() as f64),
            Fact::cost("s p50 until a device is back", of.p50 / 1e3),
            Fact::cost("s p99 until a device is back", of.p99 / 1e3),
            Fact::cost("s until all are back", took.max() as f64 / 1e9),
            Fact::cost("attempts were refused or failed, and tried again", tally.retried as f64),
            Fact::cost("came back to no session", tally.forgotten as f64),
            Fact::cost("ms p50 of a steady device's publish before", before.p50),
            Fact::cost("ms p99 of the same", before.p99),
            Fact::cost("ms p50 of a steady device's publish during the storm", during.p50),
            Fact::cost("ms p99 of the same", during.p99),
            Fact::cost("x p99 before", during.p99 / before.p99),
            Fact::cost("steady connections were lost", steady.broken as f64),
            Fact::cost("MiB resident, living nodes, before", mib(resting)),
            Fact::cost("MiB resident, living nodes, at most", mib(peak)),
        ])
    }
}

/// A connection of a device.
struct Line {
    stream: Box<dyn Pipe>,
    client: Client,
    input: BytesMut,
    start: Instant,
}

impl Line {
    /// What comes next; writes what is to be written first. Losing the future loses nothing that was read.
    async fn next(&mut self) -> anyhow::Result<Event> {
        loop {
            if let Some(event) = self.client.poll_event() {
                return Ok(event);
            }
            self.stream.write_all_buf(self.client.output()).await?;
            self.stream.flush().await?;
            if self.input.is_empty() {
                // A device that rests has no buffer.
                let mut first = [0; READ_BYTES];
                let read = self.stream.read(&mut first).await?;
                self.input.extend_from_slice(&first[..read]);
                ensure!(read > 0, "closed");
            } else {
                ensure!(self.stream.read_buf(&mut self.input).await? > 0, "closed");
            }
            let now = Millis(u64::try_from(self.start.elapsed().as_millis())?);
            self.client.receive(now, &mut self.input)?;
            if self.input.is_empty() {
                self.input = BytesMut::new();
            }
        }
    }

    async fn subscribe(&mut self, topic: &str) -> anyhow::Result<()> {
        self.client.subscribe(&[(topic, QoS::AtLeastOnce)])?;
        loop {
            if let Event::Subscribed { reasons, .. } = timeout(ATTEMPT_WAIT, self.next()).await?? {
                ensure!(reasons.iter().all(|reason| !reason.is_error()), "{reasons:?}");
                return Ok(());
            }
        }
    }

    /// Publishes one, and waits for its answer.
    async fn publish(&mut self, topic: &str) -> anyhow::Result<()> {
        self.client.publish(&Outgoing {
            topic: topic.as_bytes(),
            qos: QoS::AtLeastOnce,
            payload: &PAYLOAD,
            ..Outgoing::default()
        })?;
        loop {
            if let Event::Published { reason, .. } = timeout(ATTEMPT_WAIT, self.next()).await?? {
                ensure!(!reason.is_error(), "{reason:?}");
                return Ok(());
            }
        }
    }
}

/// The steady devices, until it is over.
fn keep_steady(fleet: &Arc<Fleet>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut steady = JoinSet::new();
        for at in 0..fleet.steady {
            steady.spawn(Arc::clone(fleet).publish_steadily(fleet.devices + at));
        }
        while let Some(ended) = steady.join_next().await {
            ended?;
        }
        anyhow::Ok(())
    })
}

impl Fleet {
    /// To its own session, at one of the first two nodes.
    async fn publish_steadily(self: Arc<Self>, device: usize) {
        let topic = self.topic(device);
        while !self.over.load(Ordering::Acquire) {
            // Not counted among those of the storm: nobody is refused before it begins.
            let (mut line, _) = self.come(device, 2).await;
            let lost = self.publish_while_connected(&mut line, &topic).await.is_err();
            lock(&self.measured).broken += u64::from(lost);
        }
    }

    async fn publish_while_connected(&self, line: &mut Line, topic: &str) -> anyhow::Result<()> {
        line.subscribe(topic).await?;
        while !self.over.load(Ordering::Acquire) {
            let begun = Instant::now();
            line.publish(topic).await?;
            let (took, during) = (begun.elapsed(), self.storm.borrow().is_some());
            lock(&self.measured).published(during, took);
            sleep(self.between.saturating_sub(took)).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn no_address_has_more_devices_than_there_may_be_strangers() {
        let mut of = HashMap::new();
        for device in 0..20_000 {
            let address = address_of(device);
            assert!(address.is_loopback() && address != Ipv4Addr::LOCALHOST);
            *of.entry(address).or_insert(0) += 1;
        }
        assert!(of.values().all(|devices| *devices <= DEVICES_PER_ADDRESS));
    }
}
