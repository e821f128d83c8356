//! W7, shared subscriptions: three members a group, of which one dies now and then, without a word; and who publishes to them.
//!
//! The first member of each group has a durable session, so that the share is never without a member, and its messages are owed
//! whatever happens to the others. Members die by a reset, or leave their connection behind in a takeover; now and then one is
//! lazy and acknowledges late, so that it takes something along.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use moorline_oracle::loads::{Load, Share, ShareAct};
use moorline_oracle::{MessageId, Op, Phase, payload};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::courier::{Courier, Letter};
use super::ear::{Ear, Owed, durable, passing};
use super::{EXPIRY_S, Ended, Shared};
use crate::mqtt::{Connect, Packet, Version};
use crate::recorder::Actor;

/// Groups, each with its publisher.
const GROUPS: u32 = 3;
/// Members of a group.
const MEMBERS: u32 = 3;
/// Topics of a group.
const TOPICS: u64 = 4;
/// How long a member stays until it dies, in milliseconds: from, to.
const STAY_MS: (u64, u64) = (4_000, 14_000);
/// How long it is away, in milliseconds: from, to.
const AWAY_MS: (u64, u64) = (50, 1_500);
/// One connection in this many is lazy.
const LAZY_ONE_IN: u32 = 3;
/// How late a lazy one acknowledges.
const LAZY: Duration = Duration::from_millis(150);
/// One end in this many is a takeover: the old connection stands until there is the new one.
const TAKEOVER_ONE_IN: u32 = 4;
/// What rates are counted in.
const SECOND: Duration = Duration::from_secs(1);
/// How often a member looks whether the run drains.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Length of a message, in bytes.
const PAYLOAD: usize = 64;
/// Publishers of other workloads have lower numbers.
const PUBLISHER: u32 = 1_000;

fn topic(group: u32, message: u64) -> String {
    format!("share/{group}/{}", message % TOPICS)
}

/// Starts everybody: members into `listeners`, publishers into `tasks`. What is owed to members is in what is returned.
pub(super) fn begin(
    shared: &Arc<Shared>,
    rate: u32,
    random: &mut StdRng,
    (tasks, listeners): (&mut JoinSet<()>, &mut JoinSet<()>),
) -> Arc<Owed> {
    let owed = Arc::new(Owed::default());
    for group in 0..GROUPS {
        // Before the share has its durable member nothing is owed, and nothing is published.
        let ready = CancellationToken::new();
        for number in 0..MEMBERS {
            let (owed, seed) = (Arc::clone(&owed), random.random());
            let mut member = Member::new(Arc::clone(shared), owed, (group, number), seed);
            member.ready = (number == 0).then(|| ready.clone());
            listeners.spawn(member.run());
        }
        let name = format!("share-p{group}");
        let (letters, courier) =
            Courier::new(Arc::clone(shared), name, Arc::clone(&owed), random.random());
        tasks.spawn(courier.run());
        let period = SECOND * GROUPS / rate;
        tasks.spawn(publish(Arc::clone(shared), group, letters, (period, ready)));
    }
    owed
}

/// Open loop: a message is due when its time has come; when the courier has its hands full it is left out.
async fn publish(
    shared: Arc<Shared>,
    group: u32,
    letters: mpsc::Sender<Letter>,
    (period, ready): (Duration, CancellationToken),
) {
    tokio::select! {
        () = ready.cancelled() => {}
        () = shared.drain.cancelled() => return,
    }
    let mut tick = interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut message = 0;
    loop {
        tokio::select! {
            biased;
            () = shared.drain.cancelled() => return,
            _ = tick.tick() => {}
        }
        message += 1;
        let topic = topic(group, message);
        let id = MessageId { publisher: PUBLISHER + group, seq: message };
        let payload = payload::write(id, &topic, PAYLOAD).into();
        let load = Load::Share(Share { group, act: ShareAct::Publish { message } });
        let owes = Some(number(group, message));
        let _full = letters.try_send(Letter { topic, payload, retain: false, load, owes });
    }
}

/// A message among those of all groups.
fn number(group: u32, message: u64) -> u64 {
    u64::from(group) << 48 | message
}

/// A member of a share.
struct Member {
    shared: Arc<Shared>,
    owed: Arc<Owed>,
    group: u32,
    connect: Connect,
    random: StdRng,
    subscribed: bool,
    /// Cancelled once it has had its SUBACK.
    ready: Option<CancellationToken>,
    /// What it was given and has not acknowledged: when it came, packet and message.
    held: VecDeque<(Instant, u16, Option<u64>)>,
}

impl Member {
    fn new(shared: Arc<Shared>, owed: Arc<Owed>, (group, number): (u32, u32), seed: u64) -> Self {
        let client = format!("share-{group}-{number}");
        // The second is durable in every other group.
        let is_durable = number == 0 || (number == 1 && group.is_multiple_of(2));
        let mut connect = if is_durable { durable(client, EXPIRY_S) } else { passing(client) };
        if number == 1 {
            connect.version = Version::V4;
        }
        let (random, held) = (StdRng::seed_from_u64(seed), VecDeque::new());
        Self { shared, owed, group, connect, random, subscribed: false, ready: None, held }
    }

    /// Lives and dies until told to stop.
    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let (mut left, mut behind) = (None, None::<Ear>);
        while let Some(link) = shared.reach_any(&self.connect, &mut self.random, &mut left).await {
            if let Some(old) = behind.take() {
                self.close(old);
            }
            let conn = link.conn;
            let (durable, present) = (!self.connect.clean, link.connection.present);
            self.note(link.node, ShareAct::Open { conn, durable, present }, None);
            let mut ear = Ear::new(link);
            self.held.clear();
            let ended = self.listen(&mut ear).await;
            if shared.stop.is_cancelled() {
                return;
            }
            if ended.is_ok() && self.random.random_ratio(1, TAKEOVER_ONE_IN) {
                behind = Some(ear);
                continue;
            }
            let err = ended.err().and_then(|ended| ended.err);
            self.note(ear.link.node, ShareAct::Close { conn }, err);
            ear.reset();
            let away = self.random.random_range(AWAY_MS.0..=AWAY_MS.1);
            if !shared.rest(Duration::from_millis(away)).await {
                return;
            }
        }
    }

    /// A connection that was taken over.
    fn close(&self, ear: Ear) {
        let conn = ear.link.conn;
        self.note(ear.link.node, ShareAct::Close { conn }, None);
        ear.reset();
    }

    async fn listen(&mut self, ear: &mut Ear) -> Result<(), Ended> {
        let shared = Arc::clone(&self.shared);
        if self.connect.clean || !self.subscribed || !ear.link.connection.present {
            let group = self.group;
            ear.subscribe(&shared, vec![format!("$share/g{group}/share/{group}/#")]).await?;
            self.subscribed = true;
            self.note(ear.link.node, ShareAct::Granted { conn: ear.link.conn }, None);
            if let Some(ready) = &self.ready {
                ready.cancel();
            }
        }
        let stay = Duration::from_millis(self.random.random_range(STAY_MS.0..=STAY_MS.1));
        let dies = Instant::now() + stay;
        let patience = if self.random.random_ratio(1, LAZY_ONE_IN) { LAZY } else { Duration::ZERO };
        loop {
            // Nobody dies any more when everything is to be delivered.
            let draining = shared.drain.is_cancelled();
            if shared.stop.is_cancelled() || (Instant::now() >= dies && !draining) {
                return Ok(());
            }
            self.acknowledge(ear, patience).await?;
            let next = self.held.front().map(|(came, ..)| *came + patience);
            let look = Instant::now() + LOOK_EVERY;
            let until = next.unwrap_or(look).min(if draining { look } else { dies });
            if let Some(packet) = ear.next(&shared, until).await?
                && let Packet::Publish { topic, packet: Some(packet), dup, payload, .. } = packet
            {
                self.delivered(ear, &topic, packet, dup, &payload);
            }
        }
    }

    fn delivered(&mut self, ear: &Ear, topic: &str, packet: u16, dup: bool, payload: &[u8]) {
        let ours = |id: &MessageId| id.publisher == PUBLISHER + self.group;
        let id = payload::read(payload, topic).ok().filter(ours);
        let message = id.map(|id| id.seq);
        self.note(ear.link.node, ShareAct::Deliver { conn: ear.link.conn, message, dup }, None);
        if let Some(message) = message {
            self.owed.seen(0, number(self.group, message));
        }
        self.held.push_back((Instant::now(), packet, message));
    }

    async fn acknowledge(&mut self, ear: &mut Ear, patience: Duration) -> Result<(), Ended> {
        let mut packets = Vec::new();
        while let Some((came, packet, message)) = self.held.front().copied() {
            if came.elapsed() < patience {
                break;
            }
            self.held.pop_front();
            packets.push(Packet::PubAck { packet, reason: 0 });
            if let Some(message) = message {
                let act = ShareAct::Ack { conn: ear.link.conn, message };
                self.note(ear.link.node, act, None);
            }
        }
        if packets.is_empty() { Ok(()) } else { ear.send(&packets).await }
    }

    fn note(&self, node: u32, act: ShareAct, err: Option<String>) {
        let actor = Actor { name: &self.connect.client, node: Some(node) };
        let op = Op::Load(Load::Share(Share { group: self.group, act }));
        self.shared.recorder.note_error(actor, Phase::Ok, op, err);
    }
}
