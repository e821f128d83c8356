//! A courier publishes letters with QoS 1 for workloads that judge their messages themselves: each once, in the order they were
//! given, and notes how each came out. A letter is never sent again: what has no answer is unknown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moorline_oracle::history::Leave;
use moorline_oracle::loads::Load;
use moorline_oracle::{Op, Phase};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::ear::{Owed, passing};
use super::publisher::is_definite;
use super::{Ended, Link, PING_EVERY, SILENCE_MAX, Shared};
use crate::mqtt::{Connect, Packet};
use crate::recorder::Actor;

/// Letters that wait for a courier; beyond it they are left out.
const LETTERS_MAX: usize = 64;
/// How long an answer may take before the connection is given up: longer than a node waits for a shard.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A message to be published.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) retain: bool,
    /// What is noted of it.
    pub(super) load: Load,
    /// The number that somebody waits for once it is acknowledged.
    pub(super) owes: Option<u64>,
}

#[derive(Debug)]
struct Sent {
    at: Instant,
    load: Load,
    owes: Option<u64>,
}

/// Who publishes letters.
#[derive(Debug)]
pub(super) struct Courier {
    shared: Arc<Shared>,
    connect: Connect,
    letters: mpsc::Receiver<Letter>,
    owed: Arc<Owed>,
    random: StdRng,
    next: u16,
    sent: BTreeMap<u16, Sent>,
}

impl Courier {
    /// A courier of this name, and where letters are given to it. It ends when nobody can give it any more.
    pub(super) fn new(
        shared: Arc<Shared>,
        name: String,
        owed: Arc<Owed>,
        seed: u64,
    ) -> (mpsc::Sender<Letter>, Self) {
        let (sender, letters) = mpsc::channel(LETTERS_MAX);
        let random = StdRng::seed_from_u64(seed);
        let (connect, sent) = (passing(name), BTreeMap::new());
        (sender, Self { shared, connect, letters, owed, random, next: 1, sent })
    }

    /// Publishes until nobody gives letters any more and all are answered.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut left = None;
        while let Some(mut link) =
            shared.reach_any(&self.connect, &mut self.random, &mut left).await
        {
            let ended = self.exchange(&mut link).await;
            for (_, sent) in std::mem::take(&mut self.sent) {
                self.note(&link, Phase::Info, sent.load, None);
            }
            if ended.is_ok() {
                return;
            }
        }
    }

    async fn exchange(&mut self, link: &mut Link) -> Result<(), Ended> {
        let shared = Arc::clone(&self.shared);
        let window = usize::from(link.connection.receive_max);
        let (mut heard, mut open) = (Instant::now(), true);
        let mut ping = interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if !open && self.sent.is_empty() {
                link.connection.writer.send(&[Packet::Disconnect { reason: 0 }]).await?;
                return Ok(());
            }
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Ok(()),
                packet = link.connection.reader.next() => {
                    heard = Instant::now();
                    self.answered(link, packet?)?;
                }
                _ = ping.tick() => {
                    let late = self.sent.values().any(|sent| sent.at.elapsed() > ANSWER_MAX);
                    if late || heard.elapsed() > SILENCE_MAX {
                        return Err(Ended::plainly(Leave::TimedOut));
                    }
                    link.connection.writer.send(&[Packet::PingReq]).await?;
                }
                letter = self.letters.recv(), if open && self.sent.len() < window => match letter {
                    Some(letter) => self.publish(link, letter).await?,
                    None => open = false,
                }
            }
        }
    }

    async fn publish(&mut self, link: &mut Link, letter: Letter) -> Result<(), Ended> {
        let Letter { topic, payload, retain, load, owes } = letter;
        let packet = self.next;
        self.next = packet.checked_add(1).unwrap_or(1);
        self.note(link, Phase::Invoke, load.clone(), None);
        self.sent.insert(packet, Sent { at: Instant::now(), load, owes });
        let packet = Some(packet);
        let publish = Packet::Publish { topic, packet, dup: false, once: false, retain, payload };
        Ok(link.connection.writer.send(&[publish]).await?)
    }

    fn answered(&mut self, link: &Link, packet: Packet) -> Result<(), Ended> {
        let Packet::PubAck { packet, reason } = packet else {
            if packet == Packet::PingResp {
                return Ok(());
            }
            return Err(Ended { why: Leave::Lost, err: Some(format!("{packet:?}")) });
        };
        let Some(sent) = self.sent.remove(&packet) else {
            return Err(Ended::plainly(Leave::Protocol));
        };
        let (ph, err) = match reason {
            0..0x80 => (Phase::Ok, None),
            _ if is_definite(reason) => (Phase::Fail, Some(format!("PUBACK {reason:#04x}"))),
            _ => (Phase::Info, Some(format!("PUBACK {reason:#04x}"))),
        };
        if let Some(number) = sent.owes.filter(|_| ph == Phase::Ok) {
            self.owed.owe(0, number);
        }
        self.note(link, ph, sent.load, err);
        Ok(())
    }

    fn note(&self, link: &Link, ph: Phase, load: Load, err: Option<String>) {
        let actor = Actor { name: &self.connect.client, node: Some(link.node) };
        self.shared.recorder.note_error(actor, ph, Op::Load(load), err);
    }
}
