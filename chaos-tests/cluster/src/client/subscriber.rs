//! A subscriber with a durable session: takes what comes, acknowledges in order, comes back to another node.
//!
//! Now and then it leaves a healthy connection without a word and appears elsewhere while the old one still stands: a
//! takeover. And on some connections it is lazy and acknowledges late, so that much is in flight when a node dies.
//!
//! A sleeper subscribes, leaves, and comes back when publishing has ended: everything then comes out of its queue. Those
//! who are there get most messages within a millisecond of their acknowledgement, and would not miss what is lost later.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moorline_oracle::history::Leave;
use moorline_oracle::{Op, Phase, payload};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{EXPIRY_S, Ended, KEEP_ALIVE_S, Link, PING_EVERY, SILENCE_MAX, Shared};
use crate::mqtt::packet::RECEIVE_MAX_DEFAULT;
use crate::mqtt::{Connect, Extras, Packet, Version};
use crate::recorder::Actor;

/// The receive maximum of a 5.0 subscriber.
const RECEIVE_MAX: u16 = 32;
/// One connection in this many is lazy.
const LAZY_ONE_IN: u32 = 4;
/// How late a lazy connection acknowledges.
const LAZY_EVERY: Duration = Duration::from_millis(50);
/// How long a subscriber stays before it leaves of its own will, in milliseconds: from, to.
const STAY_MS: (u64, u64) = (8_000, 30_000);
/// How long it lingers when it never does.
const FOREVER: Duration = Duration::from_secs(86_400);
/// The packet id of SUBSCRIBE.
const SUBSCRIBE: u16 = 1;

/// The publishers a subscriber listens to: its own and the next, of so many.
pub fn publishers(subscriber: u32, of: usize) -> Vec<u32> {
    let of = u32::try_from(of).expect("few publishers").max(1);
    let own = subscriber % of;
    let next = (subscriber + 1) % of;
    if own == next { vec![own] } else { vec![own, next] }
}

/// One filter with a wildcard for a level, one for all levels: both kinds of match.
fn filters(subscriber: u32, of: usize) -> Vec<String> {
    let kinds = ["+", "#"].into_iter();
    let filters = publishers(subscriber, of).into_iter().zip(kinds);
    filters.map(|(publisher, kind)| format!("chaos/{publisher}/{kind}")).collect()
}

/// What a subscriber does of its own will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// Stays where it is.
    Stays,
    /// Leaves now and then, for another node.
    Churns,
    /// Is away while messages are published.
    Sleeps,
}

/// One subscriber.
#[derive(Debug)]
pub struct Subscriber {
    shared: Arc<Shared>,
    number: u32,
    connect: Connect,
    filters: Vec<String>,
    churns: bool,
    sleeps: bool,
    random: StdRng,
    subscribed: bool,
    /// Acknowledgements to send, in the order of arrival; never more than may be in flight.
    owed: Vec<Packet>,
    /// Packet ids of QoS 2, from PUBLISH to PUBREL, across connections (MQTT 4.3.3).
    held: BTreeSet<u16>,
    /// Of these, the ones that came on the connection at hand.
    here: BTreeSet<u16>,
}

impl Subscriber {
    /// The subscriber of this number. Even ones speak 5.0.
    pub fn new(
        shared: Arc<Shared>,
        number: u32,
        seed: u64,
        publishers: usize,
        habit: Habit,
    ) -> Self {
        let (churns, sleeps) = (habit == Habit::Churns, habit == Habit::Sleeps);
        let v5 = number.is_multiple_of(2);
        let connect = Connect {
            version: if v5 { Version::V5 } else { Version::V4 },
            client: format!("chaos-s{number}"),
            clean: false,
            keep_alive_s: KEEP_ALIVE_S,
            expiry_s: EXPIRY_S,
            receive_max: if v5 { RECEIVE_MAX } else { RECEIVE_MAX_DEFAULT },
            extras: Extras::default(),
        };
        let filters = filters(number, publishers);
        let random = StdRng::seed_from_u64(seed);
        Self {
            shared,
            number,
            connect,
            filters,
            churns,
            sleeps,
            random,
            subscribed: false,
            owed: Vec::new(),
            held: BTreeSet::new(),
            here: BTreeSet::new(),
        }
    }

    /// Listens until told to stop.
    pub async fn run(mut self) {
        let mut left = None;
        let shared = Arc::clone(&self.shared);
        // The connection left behind in a takeover: it stands until the new one does.
        let mut behind: Option<Link> = None;
        while let Some(mut link) = shared.connect(&self.connect, &mut self.random, left).await {
            drop(behind.take());
            let ended = self.exchange(&mut link).await.unwrap_or_else(|ended| ended);
            let done = ended.why == Leave::Stopped;
            let churned = ended.why == Leave::Churn;
            shared.left(&self.connect.client, &link, ended);
            if done {
                return;
            }
            left = Some(link.node);
            behind = (churned && !self.sleeps).then_some(link);
            if self.sleeps && self.subscribed {
                tokio::select! {
                    () = shared.drain.cancelled() => {}
                    () = shared.stop.cancelled() => {}
                }
            }
        }
    }

    async fn exchange(&mut self, link: &mut Link) -> Result<Ended, Ended> {
        let shared = Arc::clone(&self.shared);
        self.owed.clear();
        self.here.clear();
        if !self.subscribed || !link.connection.present {
            self.subscribe(link).await?;
        }
        let lazy = self.random.random_ratio(1, LAZY_ONE_IN);
        let mut settle = interval(LAZY_EVERY);
        let stay = Duration::from_millis(self.random.random_range(STAY_MS.0..=STAY_MS.1));
        let leave = Instant::now() + if self.churns { stay } else { FOREVER };
        let mut heard = Instant::now();
        let mut ping = interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let draining = shared.drain.is_cancelled();
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Ok(Ended::plainly(Leave::Stopped)),
                packet = link.connection.reader.next() => {
                    heard = Instant::now();
                    let mut next = Some(packet?);
                    while let Some(packet) = next {
                        self.take(link, packet)?;
                        next = link.connection.reader.buffered()?;
                    }
                    if !lazy {
                        self.acknowledge(link).await?;
                    }
                }
                () = std::future::ready(()), if self.sleeps && self.subscribed && !draining => {
                    return Ok(Ended::plainly(Leave::Churn));
                }
                _ = settle.tick(), if lazy => self.acknowledge(link).await?,
                _ = ping.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        return Err(Ended { why: Leave::TimedOut, err: Some("silence".to_owned()) });
                    }
                    link.connection.writer.send(&[Packet::PingReq]).await?;
                }
                () = sleep_until(leave), if !draining => return Ok(Ended::plainly(Leave::Churn)),
            }
        }
    }

    async fn subscribe(&self, link: &mut Link) -> Result<(), Ended> {
        let filters = self.filters.clone();
        self.note(link, Phase::Invoke, Op::Subscribe { conn: link.conn, filters: filters.clone() });
        Ok(link.connection.writer.send(&[Packet::Subscribe { packet: SUBSCRIBE, filters }]).await?)
    }

    fn take(&mut self, link: &Link, packet: Packet) -> Result<(), Ended> {
        let conn = link.conn;
        match packet {
            Packet::Publish { packet: Some(packet), once: true, .. }
                if !self.held.insert(packet) =>
            {
                // It has not been released: the same message.
                self.owed.push(Packet::PubRec { packet, reason: 0 });
                Ok(())
            }
            Packet::Publish { topic, packet: Some(packet), dup, once, payload, .. } => {
                self.delivered(link, &topic, packet, (dup, once), &payload);
                Ok(())
            }
            Packet::PubRel { packet, .. } => {
                self.held.remove(&packet);
                self.owed.push(Packet::PubComp { packet, reason: 0 });
                Ok(())
            }
            Packet::SubAck { packet: SUBSCRIBE, codes } if codes.len() == self.filters.len() => {
                let granted = |(filter, code): (&String, &u8)| {
                    (*code == 1 || *code == 2).then(|| filter.clone())
                };
                let filters: Vec<String> =
                    self.filters.iter().zip(&codes).filter_map(granted).collect();
                if filters.len() < codes.len() {
                    // Asked again on the next connection; the judge counts only what was granted.
                    let op = Op::Subscribe { conn, filters: self.filters.clone() };
                    self.note(link, Phase::Fail, op);
                    let err = Some(format!("SUBACK {codes:x?}"));
                    return Err(Ended { why: Leave::Lost, err });
                }
                self.note(link, Phase::Ok, Op::Subscribe { conn, filters });
                if !self.subscribed {
                    self.subscribed = true;
                    let count = &self.shared.progress.subscribed;
                    count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                Ok(())
            }
            Packet::PingResp => Ok(()),
            Packet::Disconnect { reason } => {
                Err(Ended { why: Leave::Lost, err: Some(format!("DISCONNECT {reason:#04x}")) })
            }
            Packet::Publish { packet: None, .. }
            | Packet::Connect(_)
            | Packet::ConnAck { .. }
            | Packet::PubAck { .. }
            | Packet::PubRec { .. }
            | Packet::PubComp { .. }
            | Packet::Subscribe { .. }
            | Packet::SubAck { .. }
            | Packet::PingReq => {
                let err = Some(format!("a subscriber got {packet:?}"));
                Err(Ended { why: Leave::Protocol, err })
            }
        }
    }

    fn delivered(
        &mut self,
        link: &Link,
        topic: &str,
        packet: u16,
        (dup, once): (bool, bool),
        payload: &Bytes,
    ) {
        let message = payload::claimed(payload);
        let intact = payload::read(payload, topic).is_ok();
        let topic = topic.to_owned();
        let op = Op::Deliver { conn: link.conn, message, topic, packet, dup, intact, once };
        self.note(link, Phase::Ok, op);
        if let Some(message) = message.filter(|_| intact) {
            self.shared.progress.delivered(self.number, message);
        }
        if once {
            self.here.insert(packet);
            self.owed.push(Packet::PubRec { packet, reason: 0 });
        } else {
            self.owed.push(Packet::PubAck { packet, reason: 0 });
        }
    }

    /// Acknowledges what is owed, in the order it came (MQTT-4.6.0-2).
    async fn acknowledge(&mut self, link: &mut Link) -> Result<(), Ended> {
        if self.owed.is_empty() {
            return Ok(());
        }
        let packets = std::mem::take(&mut self.owed);
        for packet in &packets {
            // What an earlier connection delivered is not in flight on this one, as far as the history knows.
            let acked = if let Packet::PubAck { packet, .. } = *packet {
                Some(packet)
            } else if let Packet::PubComp { packet, .. } = *packet {
                self.here.remove(&packet).then_some(packet)
            } else {
                None
            };
            if let Some(packet) = acked {
                self.note(link, Phase::Ok, Op::Ack { conn: link.conn, packet });
            }
        }
        Ok(link.connection.writer.send(&packets).await?)
    }

    fn note(&self, link: &Link, ph: Phase, op: Op) {
        let actor = Actor { name: &self.connect.client, node: Some(link.node) };
        self.shared.recorder.note(actor, ph, op);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_overlap_between_subscribers_but_not_within_one() {
        assert_eq!(filters(0, 8), ["chaos/0/+", "chaos/1/#"]);
        assert_eq!(filters(7, 8), ["chaos/7/+", "chaos/0/#"]);
        assert_eq!(filters(9, 8), ["chaos/1/+", "chaos/2/#"]);
        assert_eq!(filters(3, 1), ["chaos/0/+"]);
    }
}
