//! Workloads `fan-out` and `fan-out-durable`: one publisher, many subscribers of one topic.
//!
//! The publisher is ahead of the subscribers by a few messages at most, so that no broker has a reason to drop any; the
//! rate is that of deliveries.

use std::{
    cell::Cell,
    num::NonZeroU16,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use moorline_core::{QoS, Text};
use moorline_mqtt::{
    client::{Event, Options},
    codec::Outgoing,
};
use tokio::{
    sync::{Notify, Semaphore},
    task::{JoinSet, LocalSet},
    time::{sleep, timeout},
};

use super::{Fact, process, wire::Wire};

/// How long all may take to subscribe.
const SETUP_WAIT: Duration = Duration::from_secs(120);
/// How long the load runs before it counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long what was published may take to arrive after the load stopped.
const DRAIN_WAIT: Duration = Duration::from_secs(20);
/// How often that is looked at.
const DRAIN_PAUSE: Duration = Duration::from_millis(20);
/// Messages that the publisher is ahead of the subscribers, on average.
const AHEAD: u64 = 32;
/// Connections that are being opened at a time.
const OPENING_MAX: usize = 64;

/// What to publish to whom.
#[derive(Debug, Clone)]
pub(crate) struct FanOut {
    /// MQTT addresses; clients are dealt over them in turn.
    pub(crate) targets: Vec<String>,
    /// Subscribers of the topic.
    pub(crate) subscribers: usize,
    /// Payload bytes.
    pub(crate) size: usize,
    /// How long to measure.
    pub(crate) time: Duration,
    /// QoS 1 and sessions that outlive their connections; otherwise QoS 0 and clean ones.
    pub(crate) durable: bool,
    /// The broker's processes.
    pub(crate) pids: Vec<u32>,
}

struct Shared {
    what: FanOut,
    run: String,
    start: Instant,
    opening: Semaphore,
    subscribed: Semaphore,
    publishing: Cell<bool>,
    published: Cell<u64>,
    delivered: Cell<u64>,
    /// The publisher may go on.
    room: Notify,
}

/// Publishes and measures.
pub(crate) fn run(what: &FanOut) -> anyhow::Result<Vec<Fact>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, drive(what))
}

async fn drive(what: &FanOut) -> anyhow::Result<Vec<Fact>> {
    let shared = Rc::new(Shared {
        what: what.clone(),
        run: format!("{:08x}", rand::random::<u32>()),
        start: Instant::now(),
        opening: Semaphore::new(OPENING_MAX),
        subscribed: Semaphore::new(0),
        publishing: Cell::new(true),
        published: Cell::new(0),
        delivered: Cell::new(0),
        room: Notify::new(),
    });
    let mut clients = JoinSet::new();
    for at in 0..what.subscribers {
        clients.spawn_local(subscribe(Rc::clone(&shared), at));
    }
    let all = u32::try_from(what.subscribers)?;
    tokio::select! {
        ready = timeout(SETUP_WAIT, shared.subscribed.acquire_many(all)) => {
            ready.context("not all are subscribed")??.forget();
        }
        ended = clients.join_next() => bail!(why(ended)),
    }
    clients.spawn_local(publish(Rc::clone(&shared)));
    let measured = async {
        sleep(WARM_UP).await;
        let (before, cpu) = (shared.delivered.get(), process::cpu_time(&what.pids)?);
        let began = Instant::now();
        sleep(what.time).await;
        let took = began.elapsed().as_secs_f64();
        let delivered = (shared.delivered.get() - before) as f64;
        let cpu = (process::cpu_time(&what.pids)? - cpu).as_secs_f64() * 1e6;
        everything_arrives(&shared).await?;
        anyhow::Ok(vec![
            Fact::rate("delivered/s", delivered / took),
            Fact::cost("us/delivery", cpu / delivered.max(1.0)),
        ])
    };
    tokio::select! {
        facts = measured => facts,
        ended = clients.join_next() => bail!(why(ended)),
    }
}

/// No client ends by itself.
fn why(ended: Option<Result<anyhow::Result<()>, tokio::task::JoinError>>) -> String {
    match ended {
        Some(Ok(Err(error))) => format!("a client broke: {error:#}"),
        Some(Err(panic)) => format!("a client broke: {panic}"),
        Some(Ok(Ok(()))) | None => "a client ended".to_owned(),
    }
}

/// Nothing was dropped and nothing came twice: otherwise the rate says nothing.
async fn everything_arrives(shared: &Shared) -> anyhow::Result<()> {
    shared.publishing.set(false);
    let deadline = Instant::now() + DRAIN_WAIT;
    let expected = || shared.published.get() * shared.what.subscribers as u64;
    while shared.delivered.get() < expected() && Instant::now() < deadline {
        sleep(DRAIN_PAUSE).await;
    }
    sleep(DRAIN_PAUSE).await;
    let (delivered, expected) = (shared.delivered.get(), expected());
    ensure!(delivered == expected, "{delivered} deliveries came of {expected}");
    Ok(())
}

async fn subscribe(shared: Rc<Shared>, at: usize) -> anyhow::Result<()> {
    let what = &shared.what;
    let options = Options {
        client_id: Text::from(format!("fan-{}-{at}", shared.run)),
        clean_start: !what.durable,
        keep_alive_s: 0,
        ..Options::default()
    };
    let qos = if what.durable { QoS::AtLeastOnce } else { QoS::AtMostOnce };
    let opening = shared.opening.acquire().await?;
    let target = &what.targets[at % what.targets.len()];
    let mut wire = Wire::open(target, options, shared.start).await?;
    wire.client.subscribe(&[(&format!("fan/{}", shared.run), qos)])?;
    let answer = wire.next().await?;
    ensure!(matches!(answer, Event::Subscribed { .. }), "a SUBSCRIBE was answered with {answer:?}");
    drop(opening);
    shared.subscribed.add_permits(1);
    loop {
        let event = wire.next().await?;
        ensure!(matches!(event, Event::Message(_)), "a subscriber was sent {event:?}");
        shared.delivered.set(shared.delivered.get() + 1);
        shared.room.notify_one();
        if what.durable {
            // The client answers in its next write; a read may bring many.
            while let Some(event) = wire.client.poll_event() {
                ensure!(matches!(event, Event::Message(_)), "a subscriber was sent {event:?}");
                shared.delivered.set(shared.delivered.get() + 1);
            }
            wire.flush().await?;
        }
    }
}

async fn publish(shared: Rc<Shared>) -> anyhow::Result<()> {
    let what = &shared.what;
    let options = Options {
        client_id: Text::from(format!("fan-{}-publisher", shared.run)),
        keep_alive_s: 0,
        window: NonZeroU16::new(u16::try_from(AHEAD)?).context("a window of 0")?,
        ..Options::default()
    };
    let qos = if what.durable { QoS::AtLeastOnce } else { QoS::AtMostOnce };
    let mut wire = Wire::open(&what.targets[0], options, shared.start).await?;
    let (topic, payload) = (format!("fan/{}", shared.run), vec![0x5a; what.size]);
    let subscribers = u64::try_from(what.subscribers)?;
    loop {
        let ahead = || shared.published.get() - shared.delivered.get() / subscribers;
        while ahead() < AHEAD && shared.publishing.get() && wire.client.can_publish() {
            wire.client.publish(&Outgoing {
                topic: topic.as_bytes(),
                qos,
                payload: &payload,
                ..Outgoing::default()
            })?;
            shared.published.set(shared.published.get() + 1);
        }
        wire.flush().await?;
        if ahead() >= AHEAD || !shared.publishing.get() {
            shared.room.notified().await;
        } else if qos != QoS::AtMostOnce {
            let event = wire.next().await?;
            ensure!(matches!(event, Event::Published { .. }), "a publisher was sent {event:?}");
        }
        while let Some(event) = wire.client.poll_event() {
            ensure!(matches!(event, Event::Published { .. }), "a publisher was sent {event:?}");
        }
    }
}
