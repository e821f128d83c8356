//! W6, wills: clients that connect with a will, and die, say goodbye, come back within the delay, or go on at another node; and two
//! who watch for their wills, in durable sessions that move about.
//!
//! Each attempt to connect is a life of its own, whose number is in its will. A client that dies comes back with a clean start:
//! then its will is due for sure, whatever its delay. One that means to come back in time resumes its session.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use moorline_oracle::loads::{Ending, Load, Will, WillAct};
use moorline_oracle::{MessageId, Op, Phase, payload};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ear::{Ear, Owed, durable, passing};
use super::{EXPIRY_S, Ended, RETRY_MS, Shared};
use crate::mqtt::{Connect, ConnectionError, Extras, Packet, Version, Will as Message};
use crate::recorder::Actor;

/// Who watches.
const WATCHERS: u32 = 2;
/// What they subscribe to.
const FILTER: &str = "will/#";
/// How long a watcher stays until it moves, in milliseconds: from, to.
const WATCH_MS: (u64, u64) = (6_000, 20_000);
/// How long a life lasts, in milliseconds: from, to.
const LIFE_MS: (u64, u64) = (300, 3_000);
/// How long a client is away, in milliseconds: from, to.
const AWAY_MS: (u64, u64) = (50, 900);
/// Delays of wills, in seconds.
const DELAYS_S: [u32; 4] = [0, 0, 2, 4];
/// How much of its delay a client waits that means to be back in time, in percent at most.
const BACK_PERCENT: u64 = 40;
/// How long sessions of mortals outlive their connections, in seconds: longer than any delay.
const SESSION_S: u32 = 120;
/// Their keep alive, in seconds: a reset that is lost is noticed so.
const ALIVE_S: u16 = 8;
/// How long a node may take to close a connection after a goodbye.
const GOODBYE_MAX: Duration = Duration::from_secs(2);
/// How long after it was given up a CONNECT may still be taken in, by a node that was paused or cut off.
const STALE: Duration = Duration::from_secs(30);
/// Length of a will, in bytes.
const PAYLOAD: usize = 48;
/// Publishers of other workloads have other numbers.
const PUBLISHER: u32 = 2_000;

/// Starts everybody: those who die into `tasks`, those who watch into `listeners`.
pub(super) fn begin(
    shared: &Arc<Shared>,
    mortals: u32,
    random: &mut StdRng,
    (tasks, listeners): (&mut JoinSet<()>, &mut JoinSet<()>),
) -> Arc<Owed> {
    let owed = Arc::new(Owed::default());
    for number in 0..WATCHERS {
        let random = StdRng::seed_from_u64(random.random());
        let name = format!("will-w{number}");
        let (shared, owed) = (Arc::clone(shared), Arc::clone(&owed));
        listeners.spawn(Watcher { shared, owed, number, name, random, subscribed: false }.run());
    }
    for number in 0..mortals {
        let random = StdRng::seed_from_u64(random.random());
        let (shared, owed, name) =
            (Arc::clone(shared), Arc::clone(&owed), format!("will-{number}"));
        tasks
            .spawn(Mortal { shared, owed, number, name, random, left: None, in_doubt: None }.run());
    }
    owed
}

/// Whether nobody was there to ask.
fn is_refused(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::Lost(error) if error.kind() == ErrorKind::ConnectionRefused)
}

fn note(shared: &Shared, (name, node): (&str, u32), ph: Phase, life: u64, act: WillAct) {
    let actor = Actor { name, node: Some(node) };
    shared.recorder.note(actor, ph, Op::Load(Load::Will(Will { life, act })));
}

/// A client that leaves wills.
struct Mortal {
    shared: Arc<Shared>,
    owed: Arc<Owed>,
    number: u32,
    name: String,
    random: StdRng,
    left: Option<u32>,
    /// Until when an attempt that nobody answered may still be taken in, and save the session.
    in_doubt: Option<Instant>,
}

/// A life that has begun.
struct Alive {
    number: u64,
    delay_s: u32,
    ear: Ear,
}

/// What a client means to do at the end of a life.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// Die, and come back with a clean start.
    Die,
    /// Say goodbye.
    Goodbye,
    /// Die, and be back within the delay.
    Back,
    /// Go on at another node.
    MoveOn,
}

impl Mortal {
    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let (mut clean, mut behind) = (true, None::<Alive>);
        while let Some(mut alive) = self.begin(clean).await {
            if let Some(old) = behind.take() {
                self.end(&old, Ending::TakenOver);
                if old.delay_s == 0 || (clean && !self.doubts()) {
                    self.owe(old.number);
                }
                old.ear.reset();
            }
            let lasts = Duration::from_millis(self.random.random_range(LIFE_MS.0..=LIFE_MS.1));
            let lost = self.live(&mut alive.ear, Instant::now() + lasts).await.is_err();
            if shared.stop.is_cancelled() {
                return;
            }
            // The last life of all ends by a death: its will is owed like any.
            let over = shared.drain.is_cancelled();
            let plan = if over { Plan::Die } else { self.plan() };
            clean = matches!(plan, Plan::Die) || self.is_v4() || self.random.random_ratio(1, 4);
            let delay = Duration::from_secs(alive.delay_s.into());
            let pause = match plan {
                Plan::MoveOn if !lost => {
                    behind = Some(alive);
                    continue;
                }
                Plan::Goodbye if !lost => {
                    self.say_goodbye(alive).await;
                    self.away()
                }
                Plan::Back => {
                    self.die(alive, lost, clean);
                    delay.mul_f64(self.random.random_range(0..=BACK_PERCENT) as f64 / 100.0)
                }
                Plan::Die | Plan::Goodbye | Plan::MoveOn => {
                    clean = true;
                    self.die(alive, lost, true);
                    // Half of them are seen to be due by themselves.
                    if self.random.random() { delay + self.away() } else { self.away() }
                }
            };
            if over || !shared.rest(pause).await {
                return;
            }
        }
    }

    fn is_v4(&self) -> bool {
        self.number % 3 == 2
    }

    fn plan(&mut self) -> Plan {
        match self.random.random_range(0..100) {
            0..40 => Plan::Die,
            40..60 => Plan::Goodbye,
            60..80 => Plan::Back,
            _ => Plan::MoveOn,
        }
    }

    fn away(&mut self) -> Duration {
        Duration::from_millis(self.random.random_range(AWAY_MS.0..=AWAY_MS.1))
    }

    /// Attempts to connect, a life each, until one has begun.
    async fn begin(&mut self, clean: bool) -> Option<Alive> {
        let shared = Arc::clone(&self.shared);
        while !shared.stop.is_cancelled() {
            let peer = shared.pick(&mut self.random, self.left);
            self.left = Some(peer.id);
            let (number, who) = (shared.number(), (self.name.as_str(), peer.id));
            let draw = self.random.random_range(0..DELAYS_S.len());
            let delay_s = if self.number % 3 == 2 { 0 } else { DELAYS_S[draw] };
            let delay_ms = u64::from(delay_s) * 1_000;
            let act = WillAct::Connect { clean, delay_ms };
            note(&shared, who, Phase::Invoke, number, act);
            match shared.reach(&self.connect(number, clean, delay_s), peer).await {
                Ok(link) => {
                    note(&shared, who, Phase::Ok, number, act);
                    return Some(Alive { number, delay_s, ear: Ear::new(link) });
                }
                Err(error) if is_refused(&error) => {
                    note(&shared, who, Phase::Fail, number, act);
                }
                Err(_) => {
                    note(&shared, who, Phase::Info, number, act);
                    if !clean {
                        self.in_doubt = Some(Instant::now() + STALE);
                    }
                }
            }
            let pause = self.random.random_range(RETRY_MS.0..=RETRY_MS.1);
            shared.rest(Duration::from_millis(pause)).await;
        }
        None
    }

    fn connect(&self, life: u64, clean: bool, delay_s: u32) -> Connect {
        let topic = format!("will/{}", self.number);
        let id = MessageId { publisher: PUBLISHER + self.number, seq: life };
        let payload = payload::write(id, &topic, PAYLOAD).into();
        let will = Some(Message { topic, payload, delay_s });
        let version = if self.is_v4() { Version::V4 } else { Version::V5 };
        Connect {
            version,
            clean,
            keep_alive_s: ALIVE_S,
            expiry_s: SESSION_S,
            extras: Extras { will, login: None },
            ..passing(self.name.clone())
        }
    }

    /// Until then, or until it is lost.
    async fn live(&self, ear: &mut Ear, until: Instant) -> Result<(), Ended> {
        while Instant::now() < until && !self.shared.stop.is_cancelled() {
            ear.next(&self.shared, until).await?;
        }
        Ok(())
    }

    /// Whether an attempt that nobody answered may still take the session over.
    fn doubts(&self) -> bool {
        self.in_doubt.is_some_and(|until| Instant::now() < until)
    }

    fn die(&self, alive: Alive, lost: bool, clean: bool) {
        self.end(&alive, if lost { Ending::Lost } else { Ending::Reset });
        if alive.delay_s == 0 || (clean && !self.doubts()) {
            self.owe(alive.number);
        }
        alive.ear.reset();
    }

    async fn say_goodbye(&self, mut alive: Alive) {
        let said = alive.ear.send(&[Packet::Disconnect { reason: 0 }]).await.is_ok();
        let deadline = Instant::now() + GOODBYE_MAX;
        let closed = match alive.ear.link.connection.reader.next_until(deadline).await {
            Ok(_) => false,
            Err(error) => matches!(error, ConnectionError::Closed),
        };
        self.end(&alive, Ending::Goodbye { heard: said && closed });
    }

    fn end(&self, alive: &Alive, how: Ending) {
        let who = (self.name.as_str(), alive.ear.link.node);
        note(&self.shared, who, Phase::Ok, alive.number, WillAct::End { how });
    }

    fn owe(&self, life: u64) {
        for watcher in 0..WATCHERS {
            self.owed.owe(watcher, life);
        }
    }
}

/// Who watches for wills.
struct Watcher {
    shared: Arc<Shared>,
    owed: Arc<Owed>,
    number: u32,
    name: String,
    random: StdRng,
    subscribed: bool,
}

impl Watcher {
    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let (connect, mut left) = (durable(self.name.clone(), EXPIRY_S), None);
        while let Some(link) = shared.reach_any(&connect, &mut self.random, &mut left).await {
            let (conn, present, who) =
                (link.conn, link.connection.present, (self.name.clone(), link.node));
            note(&shared, (&who.0, who.1), Phase::Ok, 0, WillAct::Open { conn, present });
            let mut ear = Ear::new(link);
            let ended = self.watch(&mut ear).await;
            if shared.stop.is_cancelled() {
                return;
            }
            drop(ended);
            note(&shared, (&who.0, who.1), Phase::Ok, 0, WillAct::Close { conn });
            ear.reset();
        }
    }

    async fn watch(&mut self, ear: &mut Ear) -> Result<(), Ended> {
        let shared = Arc::clone(&self.shared);
        let (conn, node) = (ear.link.conn, ear.link.node);
        if !self.subscribed || !ear.link.connection.present {
            ear.subscribe(&shared, vec![FILTER.to_owned()]).await?;
            self.subscribed = true;
            note(&shared, (&self.name, node), Phase::Ok, 0, WillAct::Granted);
        }
        let stay = Duration::from_millis(self.random.random_range(WATCH_MS.0..=WATCH_MS.1));
        let moves = Instant::now() + stay;
        while !shared.stop.is_cancelled() && Instant::now() < moves {
            let Some(packet) = ear.next(&shared, moves).await? else { continue };
            let Packet::Publish { topic, packet: Some(packet), dup, payload, .. } = packet else {
                continue;
            };
            // What is damaged is the will of a life that there is not.
            let life = payload::read(&payload, &topic).map_or(u64::MAX, |id| id.seq);
            note(&shared, (&self.name, node), Phase::Ok, life, WillAct::Seen { conn, dup });
            self.owed.seen(self.number, life);
            note(&shared, (&self.name, node), Phase::Ok, life, WillAct::Ack { conn });
            ear.send(&[Packet::PubAck { packet, reason: 0 }]).await?;
        }
        Ok(())
    }
}
