//! A device that publishes with QoS 1 and 2, and sends again what was not answered.

use std::{collections::BTreeSet, sync::Arc, sync::atomic::Ordering, time::Duration};

use moorline_mqtt::codec::{Ack, Outgoing, Packet, PacketId, Reason};
use rand::{RngExt, rngs::StdRng};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{
    Key,
    link::{Link, is_yes},
};
use crate::{node::Cluster, witness::Event};

/// Between two looks whether there is something to send.
const TICK: Duration = Duration::from_millis(35);
/// Messages that wait for their answer.
const WINDOW: usize = 8;
/// Packet ids that are used: few, so that each is used many times.
const IDS: u16 = 40;
/// Between two attempts to connect, at most.
const RETRY_MS_MAX: u64 = 300;
/// How long a connection is kept at most.
const STAY_MS_MAX: u64 = 8_000;

/// A message that was sent and not answered.
struct Waiting {
    id: PacketId,
    key: Key,
    /// QoS 2: it was received, and is to be released.
    received: bool,
}

/// See the module.
pub(crate) struct Publisher {
    cluster: Arc<Cluster>,
    id: u64,
    random: StdRng,
    next_number: u64,
    next_id: u16,
    /// In the order in which they were sent first.
    waiting: Vec<Waiting>,
}

impl Publisher {
    pub(crate) fn new(cluster: Arc<Cluster>, id: u64, random: StdRng) -> Self {
        Self { cluster, id, random, next_number: 1, next_id: 0, waiting: Vec::new() }
    }

    /// Runs for ever.
    pub(crate) async fn run(mut self) {
        let name = format!("p{}", self.id);
        loop {
            let node = self.random.random_range(1..=self.cluster.nodes);
            if let Some((link, answer)) = Link::open(&name, node).await {
                let present = answer.session_present;
                let device = name.clone();
                self.tell(Event::Resumed { device, node, present });
                self.serve(link).await;
            }
            sleep(Duration::from_millis(self.random.random_range(10..RETRY_MS_MAX))).await;
        }
    }

    fn tell(&self, event: Event) {
        self.cluster.witness.tell(event);
    }

    async fn serve(&mut self, mut link: Link) {
        self.send_again(&mut link);
        let stay = Duration::from_millis(self.random.random_range(200..STAY_MS_MAX));
        let leave = Instant::now() + stay;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while link.flush().await {
            tokio::select! {
                biased;
                packet = link.next() => match packet {
                    Some(packet) => if !self.take(&mut link, packet) { return },
                    None => return,
                },
                _ = tick.tick() => {
                    self.send(&mut link);
                    if Instant::now() >= leave {
                        if self.random.random_bool(0.5) {
                            link.disconnect().await;
                        }
                        return;
                    }
                }
            }
        }
    }

    /// What was not answered before.
    fn send_again(&mut self, link: &mut Link) {
        for Waiting { id, key, received } in &self.waiting {
            if *received {
                link.put(&Packet::PubRel(Ack::new(*id, Reason::Success)));
            } else {
                self.tell(Event::Published { key: *key, again: true });
                put(link, *id, *key, true);
            }
        }
    }

    fn send(&mut self, link: &mut Link) {
        if self.waiting.len() >= WINDOW || !self.cluster.sending.load(Ordering::Relaxed) {
            return;
        }
        let key = Key { publisher: self.id, number: self.next_number };
        self.next_number += 1;
        let id = self.free_id();
        self.tell(Event::Published { key, again: false });
        put(link, id, key, false);
        self.waiting.push(Waiting { id, key, received: false });
    }

    fn free_id(&mut self) -> PacketId {
        let taken: BTreeSet<u16> = self.waiting.iter().map(|waiting| waiting.id.get()).collect();
        loop {
            self.next_id = self.next_id % IDS + 1;
            if let Some(id) = PacketId::new(self.next_id).filter(|id| !taken.contains(&id.get())) {
                return id;
            }
        }
    }

    /// `false` if the node says goodbye.
    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else is for a publisher")]
    fn take(&mut self, link: &mut Link, packet: Packet) -> bool {
        match packet {
            Packet::PubAck(ack) => self.answered(&ack),
            Packet::PubRec(ack) if !is_yes(&ack) => self.answered(&ack),
            Packet::PubRec(ack) => {
                if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.id == ack.id)
                {
                    waiting.received = true;
                }
                link.put(&Packet::PubRel(Ack::new(ack.id, Reason::Success)));
            }
            // Whatever it says: that the message was taken its PUBREC has said.
            Packet::PubComp(ack) => self.answered(&Ack::new(ack.id, Reason::Success)),
            Packet::Disconnect(_) => return false,
            _ => {}
        }
        true
    }

    fn answered(&mut self, ack: &Ack) {
        let Some(at) = self.waiting.iter().position(|waiting| waiting.id == ack.id) else {
            return;
        };
        let Waiting { key, .. } = self.waiting.remove(at);
        self.tell(Event::Answered { key, yes: is_yes(ack) });
    }
}

fn put(link: &mut Link, id: PacketId, key: Key, dup: bool) {
    let (topic, payload) = (key.topic(), key.payload());
    link.publish(&Outgoing {
        topic: topic.as_bytes(),
        qos: key.qos(),
        dup,
        id: Some(id),
        payload: &payload,
        ..Outgoing::default()
    });
}
