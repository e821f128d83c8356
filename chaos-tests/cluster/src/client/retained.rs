//! W6, retained messages: set and cleared by two couriers, and read by fresh subscribers at every node.
//!
//! A reader subscribes in a new durable session, to the topic and to a mark of its own, and then publishes the mark: what is
//! retained is in its queue before the SUBACK (docs/guarantees.md), so the mark comes behind it, and what did not come before the
//! mark was not there. Some read in a session that ends with its connection: of these only what they were given counts. A topic is
//! left for a new one after `REQUESTS_MAX` requests, so that the search of the judge stays short.

use std::sync::Arc;
use std::time::Duration;

use moorline_oracle::loads::{Held, Load, RetainAsk, Retained};
use moorline_oracle::{MessageId, Op, Phase, payload};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::courier::{Courier, Letter};
use super::ear::{Ear, Owed, durable, passing};
use super::{Ended, Peer, Shared};
use crate::mqtt::{Connect, Packet};
use crate::recorder::Actor;

/// Topics at once.
const TOPICS: u64 = 8;
/// Requests about a topic before it is left.
const REQUESTS_MAX: u64 = 120;
/// Who publishes.
const COURIERS: usize = 2;
/// Most readers under way; beyond it one is left out.
const READERS_MAX: usize = 60;
/// How long a reader may take.
const READ_MAX: Duration = Duration::from_secs(10);
/// How long one waits whose session ends with its connection, for which there is no mark.
const GLANCE: Duration = Duration::from_millis(500);
/// How long sessions of readers outlive their connections, in seconds.
const SESSION_S: u32 = 5;
/// Length of a message, in bytes.
const PAYLOAD: usize = 48;
/// Publishers of other workloads have other numbers.
const PUBLISHER: u32 = 3_000;
/// What rates are counted in.
const SECOND: Duration = Duration::from_secs(1);
/// The packet id of a mark.
const MARK: u16 = 9;

/// Starts everybody. Ends by itself when told to drain.
pub(super) fn begin(shared: &Arc<Shared>, rate: u32, random: &mut StdRng, tasks: &mut JoinSet<()>) {
    let couriers = (0..COURIERS).map(|number| {
        let (name, owed) = (format!("keep-p{number}"), Arc::new(Owed::default()));
        let (letters, courier) = Courier::new(Arc::clone(shared), name, owed, random.random());
        tasks.spawn(courier.run());
        letters
    });
    let couriers = couriers.collect();
    let random = StdRng::seed_from_u64(random.random());
    let work = Work { shared: Arc::clone(shared), couriers, random, requests: 0 };
    tasks.spawn(work.run(SECOND / rate));
}

/// The workload.
struct Work {
    shared: Arc<Shared>,
    couriers: Vec<mpsc::Sender<Letter>>,
    random: StdRng,
    requests: u64,
}

impl Work {
    async fn run(mut self, period: Duration) {
        let mut tick = interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut readers = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = self.shared.drain.cancelled() => break,
                _ = tick.tick() => {}
            }
            while readers.try_join_next().is_some() {}
            self.ask(&mut readers);
        }
        self.couriers.clear();
        while readers.join_next().await.is_some() {}
    }

    fn ask(&mut self, readers: &mut JoinSet<()>) {
        self.requests += 1;
        let slot = self.random.random_range(0..TOPICS);
        let topic = format!("keep/{slot}/{}", self.requests / (REQUESTS_MAX * TOPICS));
        let op = self.shared.number();
        let draw = self.random.random_range(0..100);
        if draw < 45 {
            if readers.len() < READERS_MAX {
                let is_clean = self.random.random_ratio(1, 4);
                let place = self.random.random();
                let reader = Reader { shared: Arc::clone(&self.shared), op, topic, is_clean };
                readers.spawn(reader.run(place));
            }
            return;
        }
        let (ask, payload) = if draw < 82 {
            let id = MessageId { publisher: PUBLISHER, seq: op };
            (RetainAsk::Set { value: op }, payload::write(id, &topic, PAYLOAD))
        } else {
            (RetainAsk::Clear, Vec::new())
        };
        let load = Load::Retained(Retained { op, topic: topic.clone(), ask, held: None });
        let courier = &self.couriers[self.random.random_range(0..self.couriers.len())];
        let letter = Letter { topic, payload: payload.into(), retain: true, load, owes: None };
        let _full = courier.try_send(letter);
    }
}

/// A fresh subscriber.
struct Reader {
    shared: Arc<Shared>,
    op: u64,
    topic: String,
    /// Whether its session ends with its connection.
    is_clean: bool,
}

/// What a fresh subscriber was given.
#[derive(Debug, Default)]
struct Given {
    held: Option<u64>,
    /// Somebody published while it read: what was retained when it came may have been left out for something newer.
    live: bool,
}

impl Reader {
    /// Asks the node that `place` draws.
    async fn run(self, place: u64) {
        let shared = Arc::clone(&self.shared);
        let peer = shared.draw(&mut StdRng::seed_from_u64(place));
        let client = format!("keep-r{}", self.op);
        let connect = if self.is_clean {
            passing(client)
        } else {
            Connect { clean: true, ..durable(client, SESSION_S) }
        };
        let Ok(link) = shared.reach(&connect, peer).await else { return };
        self.note(peer, Phase::Invoke, None, None);
        let mut ear = Ear::new(link);
        let (held, err) = match self.read(&mut ear).await {
            Ok(given) => (self.judge(&given), None),
            Err(ended) => (None, ended.err),
        };
        let ph = if held.is_some() { Phase::Ok } else { Phase::Info };
        self.note(peer, ph, held, err);
        // Whether it hears that nobody minds.
        let _gone = ear.send(&[Packet::Disconnect { reason: 0 }]).await;
    }

    /// What can be said of the register, if anything.
    fn judge(&self, given: &Given) -> Option<Held> {
        let held = Held { value: given.held };
        let sure = given.held.is_some() || (!self.is_clean && !given.live);
        sure.then_some(held)
    }

    async fn read(&self, ear: &mut Ear) -> Result<Given, Ended> {
        let mark = format!("keep-mark/{}", self.op);
        let mut given = Given::default();
        let deadline = Instant::now() + READ_MAX;
        let until = if self.is_clean {
            ear.subscribe(&self.shared, vec![self.topic.clone()]).await?;
            Instant::now() + GLANCE
        } else {
            ear.subscribe(&self.shared, vec![self.topic.clone(), mark.clone()]).await?;
            let (topic, packet, payload) = (mark.clone(), Some(MARK), Vec::new().into());
            let (dup, once, retain) = (false, false, false);
            ear.send(&[Packet::Publish { topic, packet, dup, once, retain, payload }]).await?;
            deadline
        };
        while let Some(packet) = ear.next(&self.shared, until).await? {
            let Packet::Publish { topic, retain, payload, .. } = packet else { continue };
            if topic == mark {
                return Ok(given);
            }
            if retain {
                let value = payload::read(&payload, &topic).map_or(0, |id| id.seq);
                given.held = Some(value);
                if self.is_clean {
                    return Ok(given);
                }
            } else {
                given.live = true;
            }
        }
        let err = Some("nothing came".to_owned());
        Err(Ended { why: moorline_oracle::history::Leave::TimedOut, err })
    }

    fn note(&self, peer: &Peer, ph: Phase, held: Option<Held>, err: Option<String>) {
        let topic = self.topic.clone();
        let load = Load::Retained(Retained { op: self.op, topic, ask: RetainAsk::Read, held });
        let actor = Actor { name: "keep-r", node: Some(peer.id) };
        self.shared.recorder.note_error(actor, ph, Op::Load(load), err);
    }
}
