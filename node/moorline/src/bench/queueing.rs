//! Workload `queueing`: sessions that are away, messages that wait for them, and how fast both sides of it are.
//!
//! First every session subscribes and goes; then publishers fill all queues (`enqueue`, counted by PUBACKs); then all
//! come back at once and take what waits, acknowledging it (`drain`).

use std::{
    io::ErrorKind,
    num::NonZeroU16,
    os::unix::fs::MetadataExt,
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use moorline_core::{QoS, Text};
use moorline_mqtt::{
    client::{Event, Options},
    codec::Outgoing,
};
use tokio::{
    task::{JoinSet, LocalSet},
    time::{sleep, timeout},
};

use super::{Fact, wire::Wire};

/// Publishers that fill the queues.
const PUBLISHERS: usize = 8;
/// Unacknowledged publishes of each.
const WINDOW: u16 = 64;
/// How long each of the three parts may take.
const PART_WAIT: Duration = Duration::from_secs(300);

/// How long the disk may take until it comes to rest, and how long it must not change for that.
const SETTLE_WAIT: Duration = Duration::from_secs(120);
/// See there.
const SETTLE_QUIET: Duration = Duration::from_secs(10);
/// How often it is looked at.
const SETTLE_PAUSE: Duration = Duration::from_millis(500);
/// A change smaller than this part is none.
const SETTLE_PART: u64 = 100;
/// The unit of a file's blocks (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// What to queue.
#[derive(Debug, Clone)]
pub(crate) struct Queueing {
    /// MQTT addresses; clients are dealt over them in turn.
    pub(crate) targets: Vec<String>,
    /// Sessions.
    pub(crate) sessions: usize,
    /// Messages for each.
    pub(crate) messages: usize,
    /// Payload bytes.
    pub(crate) size: usize,
}

struct Plan {
    what: Queueing,
    run: String,
    start: Instant,
}

impl Plan {
    fn session(&self, at: usize) -> Options {
        Options {
            client_id: Text::from(format!("queue-{}-{at}", self.run)),
            clean_start: false,
            ..Options::default()
        }
    }

    fn topic(&self, at: usize) -> String {
        format!("queue/{}/{at}", self.run)
    }

    fn target(&self, at: usize) -> &str {
        &self.what.targets[at % self.what.targets.len()]
    }
}

/// Fills the queues. What waits in them then is the caller's to look at; [`Filled::drain`] empties them.
pub(crate) struct Filled {
    plan: Rc<Plan>,
    /// Messages acknowledged per second.
    pub(crate) enqueued_per_s: f64,
}

/// Subscribes, and fills the queues of those who are away.
pub(crate) async fn fill(what: &Queueing) -> anyhow::Result<Filled> {
    let run = format!("{:08x}", rand::random::<u32>());
    let plan = Rc::new(Plan { what: what.clone(), run, start: Instant::now() });
    let sessions = what.sessions;
    all(sessions, |at| subscribe(Rc::clone(&plan), at)).await.context("subscribing")?;
    let began = Instant::now();
    all(PUBLISHERS, |at| publish(Rc::clone(&plan), at)).await.context("publishing")?;
    let took = began.elapsed().as_secs_f64();
    let enqueued_per_s = (sessions * what.messages) as f64 / took;
    Ok(Filled { plan, enqueued_per_s })
}

impl Filled {
    /// All sessions come back and take what waits: messages per second.
    pub(crate) async fn drain(self) -> anyhow::Result<f64> {
        let what = &self.plan.what;
        let began = Instant::now();
        all(what.sessions, |at| take(Rc::clone(&self.plan), at)).await.context("draining")?;
        Ok((what.sessions * what.messages) as f64 / began.elapsed().as_secs_f64())
    }
}

/// Both parts, and in between how much of the disk below `dir` a queued byte takes on each of `nodes`.
pub(crate) fn run(what: &Queueing, dir: &Path, nodes: usize) -> anyhow::Result<Vec<Fact>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let before = disk_bytes(dir)?;
        let filled = fill(what).await?;
        let enqueued = filled.enqueued_per_s;
        let after = settled_disk_bytes(dir).await?;
        let drained = filled.drain().await?;
        let payload = (what.sessions * what.messages * what.size * nodes) as f64;
        Ok(vec![
            Fact::rate("enqueued/s", enqueued),
            Fact::rate("drained/s", drained),
            Fact::cost("x payload on disk", after.saturating_sub(before) as f64 / payload),
        ])
    })
}

/// What is on the disk once nothing changes any more: logs are purged and tables compacted some time later.
pub(super) async fn settled_disk_bytes(dir: &Path) -> anyhow::Result<u64> {
    let deadline = Instant::now() + SETTLE_WAIT;
    let (mut bytes, mut since) = (disk_bytes(dir)?, Instant::now());
    while since.elapsed() < SETTLE_QUIET && Instant::now() < deadline {
        sleep(SETTLE_PAUSE).await;
        let now = disk_bytes(dir)?;
        if now.abs_diff(bytes) > bytes / SETTLE_PART {
            (bytes, since) = (now, Instant::now());
        }
    }
    disk_bytes(dir)
}

/// Blocks of all files below `dir`. What goes away meanwhile, file or directory, counts nothing.
pub(super) fn disk_bytes(dir: &Path) -> anyhow::Result<u64> {
    let (mut bytes, mut dirs) = (0, vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| dir.display().to_string()),
        };
        for entry in entries {
            let Ok(entry) = entry else { continue };
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => dirs.push(entry.path()),
                Ok(metadata) => bytes += metadata.blocks() * BLOCK_BYTES,
                Err(_) => {}
            }
        }
    }
    Ok(bytes)
}

async fn all<F: Future<Output = anyhow::Result<()>> + 'static>(
    count: usize,
    client: impl Fn(usize) -> F,
) -> anyhow::Result<()> {
    let mut clients = JoinSet::new();
    for at in 0..count {
        clients.spawn_local(client(at));
    }
    let ended = async {
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        anyhow::Ok(())
    };
    timeout(PART_WAIT, ended).await.context("it takes too long")?
}

async fn subscribe(plan: Rc<Plan>, at: usize) -> anyhow::Result<()> {
    let mut wire = Wire::open(plan.target(at), plan.session(at), plan.start).await?;
    wire.client.subscribe(&[(&plan.topic(at), QoS::AtLeastOnce)])?;
    let answer = wire.next().await?;
    ensure!(matches!(answer, Event::Subscribed { .. }), "a SUBSCRIBE was answered with {answer:?}");
    wire.close().await
}

async fn publish(plan: Rc<Plan>, at: usize) -> anyhow::Result<()> {
    let options = Options {
        client_id: Text::from(format!("queue-{}-p{at}", plan.run)),
        window: NonZeroU16::new(WINDOW).expect("not 0"),
        ..Options::default()
    };
    let mut wire = Wire::open(plan.target(at), options, plan.start).await?;
    let mut payload = vec![0; plan.what.size];
    let own = (at..plan.what.sessions).step_by(PUBLISHERS);
    let topics: Vec<String> = own.map(|session| plan.topic(session)).collect();
    let count = topics.len() * plan.what.messages;
    let (mut sent, mut acked) = (0, 0);
    while acked < count {
        while sent < count && wire.client.can_publish() {
            // Nothing that a broker could compress.
            rand::fill(&mut payload[..]);
            wire.client.publish(&Outgoing {
                topic: topics[sent % topics.len()].as_bytes(),
                qos: QoS::AtLeastOnce,
                payload: &payload,
                ..Outgoing::default()
            })?;
            sent += 1;
        }
        let answer = wire.next().await?;
        ensure!(matches!(answer, Event::Published { .. }), "a publisher was sent {answer:?}");
        acked += 1;
    }
    wire.close().await
}

/// On another node than the one it subscribed at.
async fn take(plan: Rc<Plan>, at: usize) -> anyhow::Result<()> {
    let mut wire = Wire::open(plan.target(at + 1), plan.session(at), plan.start).await?;
    for _ in 0..plan.what.messages {
        let event = wire.next().await?;
        ensure!(matches!(event, Event::Message(_)), "a session was sent {event:?}");
    }
    wire.flush().await
}
