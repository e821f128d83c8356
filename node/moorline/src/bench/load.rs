//! The load generator: pairs of one publisher and one subscriber, each pair with its own topic, on one thread.
//!
//! A payload begins with its publisher's sequence number and the time it was published, so that a delivery says how long
//! it took and whether any before it was missed. Every sample between the start and the end of the measurement counts,
//! none of the warm-up.

use std::{
    cell::{Cell, RefCell},
    num::NonZeroU16,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::bail;
use hdrhistogram::Histogram;
use moorline_core::{QoS, Text};
use moorline_mqtt::{
    Version,
    client::{Client, Event, Options},
    codec::Outgoing,
};
use tokio::{
    sync::Semaphore,
    task::LocalSet,
    time::{sleep, timeout},
};

use super::{
    process,
    report::{LoadResult, Quantiles},
    wire::Wire,
};
use crate::cli::LoadArgs;

/// How long all clients together may take to connect and subscribe.
const SETUP_WAIT: Duration = Duration::from_secs(60);
/// The pause before a subscriber that was turned away tries again.
const SETUP_PAUSE: Duration = Duration::from_millis(250);
/// How long the load runs before it counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long what was published may take to arrive after the load stopped.
const DRAIN_WAIT: Duration = Duration::from_secs(10);
/// How often that is looked at.
const DRAIN_PAUSE: Duration = Duration::from_millis(20);
/// Sequence number and time, both `u64`.
const HEADER_BYTES: usize = 16;
/// The longest latency told apart: a minute, in nanoseconds.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// What to offer which broker.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// MQTT addresses. Publisher `i` connects to the `i`-th, its subscriber to the next one.
    pub(crate) targets: Vec<String>,
    /// Pairs.
    pub(crate) publishers: usize,
    /// Unacknowledged publishes per publisher.
    pub(crate) window: NonZeroU16,
    /// Payload bytes.
    pub(crate) size: usize,
    /// How long to measure.
    pub(crate) time: Duration,
    /// Of publishes and subscriptions.
    pub(crate) qos: QoS,
    /// Whether subscribers' sessions outlive their connections.
    pub(crate) durable: bool,
    /// The broker's processes.
    pub(crate) pids: Vec<u32>,
}

impl Load {
    /// From the command line.
    pub(crate) fn from_args(args: &LoadArgs) -> Self {
        Self {
            targets: args.target.clone(),
            publishers: args.publishers,
            window: NonZeroU16::new(args.window).unwrap_or(NonZeroU16::MIN),
            size: args.size.max(HEADER_BYTES),
            time: Duration::from_secs(args.seconds),
            qos: QoS::from_bits(args.qos).expect("the command line takes 0 to 2"),
            durable: !args.clean,
            pids: args.pid.clone(),
        }
    }
}

/// What the clients share; one thread, so no lock.
#[derive(Debug)]
struct Shared {
    start: Instant,
    counting: Cell<bool>,
    publishing: Cell<bool>,
    subscribed: Semaphore,
    published: Cell<u64>,
    acked: Cell<u64>,
    delivered: Cell<u64>,
    delivered_in_all: Cell<u64>,
    out_of_order: Cell<u64>,
    broken: Cell<u64>,
    ack: RefCell<Histogram<u64>>,
    end_to_end: RefCell<Histogram<u64>>,
}

impl Shared {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("a run is shorter than 500 years")
    }
}

fn add(cell: &Cell<u64>, count: u64) {
    cell.set(cell.get() + count);
}

/// Offers a load and measures.
pub(crate) fn run(load: &Load) -> anyhow::Result<LoadResult> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, drive(load))
}

async fn drive(load: &Load) -> anyhow::Result<LoadResult> {
    let histogram = || Histogram::new_with_bounds(1_000, LATENCY_MAX_NS, 3);
    let shared = Rc::new(Shared {
        start: Instant::now(),
        counting: Cell::new(false),
        publishing: Cell::new(true),
        subscribed: Semaphore::new(0),
        published: Cell::new(0),
        acked: Cell::new(0),
        delivered: Cell::new(0),
        delivered_in_all: Cell::new(0),
        out_of_order: Cell::new(0),
        broken: Cell::new(0),
        ack: RefCell::new(histogram()?),
        end_to_end: RefCell::new(histogram()?),
    });
    let mut clients = tokio::task::JoinSet::new();
    let run = format!("{:08x}", rand::random::<u32>());
    for pair in 0..load.publishers {
        let peer = Subscriber::new(load, &run, pair);
        clients.spawn_local(guarded(peer.run(Rc::clone(&shared)), Rc::clone(&shared)));
    }
    let count = u32::try_from(load.publishers)?;
    match timeout(SETUP_WAIT, shared.subscribed.acquire_many(count)).await {
        Ok(permit) => permit?.forget(),
        Err(_) => bail!("not all subscribers are subscribed after {SETUP_WAIT:?}"),
    }
    for pair in 0..load.publishers {
        let peer = Publisher::new(load, &run, pair);
        clients.spawn_local(guarded(peer.run(Rc::clone(&shared)), Rc::clone(&shared)));
    }
    sleep(WARM_UP).await;
    let result = measure(load, &shared).await?;
    shared.publishing.set(false);
    let deadline = Instant::now() + DRAIN_WAIT;
    while shared.delivered_in_all.get() < shared.published.get() && Instant::now() < deadline {
        sleep(DRAIN_PAUSE).await;
    }
    clients.shutdown().await;
    Ok(result)
}

async fn measure(load: &Load, shared: &Shared) -> anyhow::Result<LoadResult> {
    let own = [std::process::id()];
    let (before, own_before) = (process::cpu_time(&load.pids)?, process::cpu_time(&own)?);
    let began = Instant::now();
    shared.counting.set(true);
    sleep(load.time).await;
    shared.counting.set(false);
    let took = began.elapsed().as_secs_f64();
    let (after, own_after) = (process::cpu_time(&load.pids)?, process::cpu_time(&own)?);
    let delivered = shared.delivered.get();
    let per_message = |time: Duration| time.as_secs_f64() * 1e6 / (delivered.max(1) as f64);
    let known = !load.pids.is_empty();
    Ok(LoadResult {
        acked_per_s: shared.acked.get() as f64 / took,
        delivered_per_s: delivered as f64 / took,
        ack_ms: Quantiles::of(&shared.ack.borrow()),
        end_to_end_ms: Quantiles::of(&shared.end_to_end.borrow()),
        broker_us_per_message: known.then(|| per_message(after - before)),
        broker_rss_mib: if known {
            Some(process::resident_bytes(&load.pids)? as f64 / f64::from(1 << 20))
        } else {
            None
        },
        generator_us_per_message: per_message(own_after - own_before),
        out_of_order: shared.out_of_order.get(),
        broken: shared.broken.get(),
    })
}

/// A client that breaks is counted and named once.
async fn guarded(client: impl Future<Output = anyhow::Result<()>>, shared: Rc<Shared>) {
    if let Err(error) = client.await {
        if shared.broken.get() == 0 {
            eprintln!("moorline: a client broke: {error:#}");
        }
        add(&shared.broken, 1);
    }
}

struct Subscriber {
    target: String,
    options: Options,
    topic: String,
    qos: QoS,
    next: u64,
    subscribed: bool,
}

impl Subscriber {
    fn new(load: &Load, run: &str, pair: usize) -> Self {
        let options = Options {
            version: Version::V311,
            client_id: Text::from(format!("bench-{run}-s{pair}")),
            clean_start: !load.durable,
            ..Options::default()
        };
        let target = load.targets[(pair + 1) % load.targets.len()].clone();
        Self {
            target,
            options,
            topic: format!("bench/{run}/{pair}"),
            qos: load.qos,
            next: 0,
            subscribed: false,
        }
    }

    /// A cluster that has just begun may turn clients away for a while: until it is subscribed, a subscriber tries again.
    async fn run(mut self, shared: Rc<Shared>) -> anyhow::Result<()> {
        loop {
            match self.attempt(&shared).await {
                Err(_) if !self.subscribed && shared.start.elapsed() < SETUP_WAIT => {
                    sleep(SETUP_PAUSE).await;
                }
                ended => return ended,
            }
        }
    }

    async fn attempt(&mut self, shared: &Shared) -> anyhow::Result<()> {
        let mut wire = Wire::connect(&self.target, self.options.clone(), shared.start).await?;
        loop {
            wire.turn().await?;
            let now = shared.now_ns();
            while let Some(event) = wire.client.poll_event() {
                match event {
                    Event::Connected(_) => {
                        wire.client.subscribe(&[(&self.topic, self.qos)])?;
                    }
                    Event::Subscribed { .. } => {
                        self.subscribed = true;
                        shared.subscribed.add_permits(1);
                    }
                    Event::Message(ref message) => self.count(&message.payload, now, shared),
                    Event::Published { .. }
                    | Event::Unsubscribed { .. }
                    | Event::Refused(_)
                    | Event::Disconnected(_) => bail!("a subscriber was sent {event:?}"),
                }
            }
        }
    }

    fn count(&mut self, payload: &[u8], now: u64, shared: &Shared) {
        let Some((sequence, sent)) = header(payload) else {
            return;
        };
        add(&shared.delivered_in_all, 1);
        if sequence != self.next {
            add(&shared.out_of_order, 1);
        }
        self.next = sequence + 1;
        if shared.counting.get() {
            add(&shared.delivered, 1);
            shared.end_to_end.borrow_mut().saturating_record(now.saturating_sub(sent));
        }
    }
}

struct Publisher {
    target: String,
    options: Options,
    topic: String,
    qos: QoS,
    payload: Vec<u8>,
    next: u64,
    sent: std::collections::VecDeque<u64>,
}

impl Publisher {
    fn new(load: &Load, run: &str, pair: usize) -> Self {
        let options = Options {
            version: Version::V311,
            client_id: Text::from(format!("bench-{run}-p{pair}")),
            clean_start: true,
            window: load.window,
            ..Options::default()
        };
        let target = load.targets[pair % load.targets.len()].clone();
        Self {
            target,
            options,
            topic: format!("bench/{run}/{pair}"),
            qos: load.qos,
            payload: vec![0x5a; load.size.max(HEADER_BYTES)],
            next: 0,
            sent: std::collections::VecDeque::new(),
        }
    }

    async fn run(mut self, shared: Rc<Shared>) -> anyhow::Result<()> {
        let mut wire = Wire::connect(&self.target, self.options.clone(), shared.start).await?;
        let mut connected = false;
        loop {
            if connected {
                self.publish(&mut wire.client, &shared)?;
            }
            if self.qos == QoS::AtMostOnce && connected {
                // Nothing comes back: write, and let the others have their turn.
                wire.flush().await?;
                tokio::task::yield_now().await;
                continue;
            }
            wire.turn().await?;
            let now = shared.now_ns();
            while let Some(event) = wire.client.poll_event() {
                match event {
                    Event::Connected(_) => connected = true,
                    Event::Published { .. } => self.acked(now, &shared),
                    Event::Message(_)
                    | Event::Subscribed { .. }
                    | Event::Unsubscribed { .. }
                    | Event::Refused(_)
                    | Event::Disconnected(_) => bail!("a publisher was sent {event:?}"),
                }
            }
        }
    }

    fn publish(&mut self, client: &mut Client, shared: &Shared) -> anyhow::Result<()> {
        if !shared.publishing.get() {
            return Ok(());
        }
        let now = shared.now_ns();
        let mut room =
            if self.qos == QoS::AtMostOnce { self.options.window.get() } else { u16::MAX };
        while client.can_publish() && room > 0 {
            self.payload[..8].copy_from_slice(&self.next.to_be_bytes());
            self.payload[8..HEADER_BYTES].copy_from_slice(&now.to_be_bytes());
            client.publish(&Outgoing {
                topic: self.topic.as_bytes(),
                qos: self.qos,
                payload: &self.payload,
                ..Outgoing::default()
            })?;
            self.next += 1;
            room -= 1;
            add(&shared.published, 1);
            if self.qos != QoS::AtMostOnce {
                self.sent.push_back(now);
            }
        }
        Ok(())
    }

    /// Brokers acknowledge in order (MQTT 4.6), so the oldest publish is meant.
    fn acked(&mut self, now: u64, shared: &Shared) {
        let Some(sent) = self.sent.pop_front() else {
            return;
        };
        if shared.counting.get() {
            add(&shared.acked, 1);
            shared.ack.borrow_mut().saturating_record(now.saturating_sub(sent));
        }
    }
}

fn header(payload: &[u8]) -> Option<(u64, u64)> {
    let sequence = payload.get(..8)?.try_into().ok()?;
    let sent = payload.get(8..HEADER_BYTES)?.try_into().ok()?;
    Some((u64::from_be_bytes(sequence), u64::from_be_bytes(sent)))
}
