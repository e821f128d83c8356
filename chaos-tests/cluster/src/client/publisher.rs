//! A publisher: numbered messages at a steady pace, each until its outcome is known.
//!
//! Open loop: a message is due when its time has come, not when the one before was acknowledged. After a connection
//! ends, everything unanswered is noted as unknown and sent again, in order, before anything new: so order must hold
//! for the subscribers whatever happened in between. One that publishes with QoS 2 goes on with its session: what had its
//! PUBREC is released there, and never sent again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use moorline_oracle::history::Leave;
use moorline_oracle::{MessageId, Op, Phase, payload};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{EXPIRY_S, Ended, KEEP_ALIVE_S, Link, PING_EVERY, SILENCE_MAX, Shared};
use crate::mqtt::packet::RECEIVE_MAX_DEFAULT;
use crate::mqtt::{Connect, Extras, Packet, Version};
use crate::recorder::Actor;

/// Most messages of a publisher without an answer.
const WINDOW: usize = 16;
/// How far behind its pace a publisher may fall before it forgets what it missed: after an outage it shall not flood.
const LAG_MAX: Duration = Duration::from_millis(500);
/// A node that answers pings but not a publish for this long is left for another.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How many topics a publisher writes to.
const TOPICS: u64 = 4;

/// How a publisher works.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// One message each.
    pub period: Duration,
    /// Length of a payload, in bytes.
    pub payload: usize,
}

/// One publisher.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    number: u32,
    connect: Connect,
    pace: Pace,
    random: StdRng,
    next_seq: u64,
    next_packet: u16,
    unanswered: VecDeque<Unanswered>,
    due: Instant,
    /// Publishes with QoS 2.
    once: bool,
    /// What the packets taken in have to be answered with.
    owed: Vec<Packet>,
}

#[derive(Debug)]
struct Unanswered {
    message: MessageId,
    packet: u16,
    /// When it, or its PUBREL, was last sent on the connection at hand; none if not yet.
    sent: Option<Instant>,
    /// It had its PUBREC.
    received: bool,
}

/// The topic of a message.
fn topic(message: MessageId) -> String {
    format!("chaos/{}/{}", message.publisher, message.seq % TOPICS)
}

/// What a refusal says of its effect. A code that promises nothing leaves the outcome unknown.
pub(super) fn is_definite(reason: u8) -> bool {
    // Not authorised, topic invalid, packet id in use, quota exceeded, payload invalid (MQTT 5.0, 3.4.2.1).
    matches!(reason, 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
}

impl Publisher {
    /// The publisher of this number. Odd ones speak 5.0, every second pair keeps its session, and every fourth pair
    /// publishes with QoS 2.
    pub fn new(shared: Arc<Shared>, number: u32, seed: u64, pace: Pace) -> Self {
        let connect = Connect {
            version: if number.is_multiple_of(2) { Version::V4 } else { Version::V5 },
            client: format!("chaos-p{number}"),
            clean: number % 4 < 2,
            keep_alive_s: KEEP_ALIVE_S,
            expiry_s: if number % 4 < 2 { 0 } else { EXPIRY_S },
            receive_max: RECEIVE_MAX_DEFAULT,
            extras: Extras::default(),
        };
        let random = StdRng::seed_from_u64(seed);
        let (unanswered, due) = (VecDeque::new(), Instant::now());
        Self {
            shared,
            number,
            connect,
            pace,
            random,
            next_seq: 1,
            next_packet: 1,
            unanswered,
            due,
            once: number % 8 >= 6,
            owed: Vec::new(),
        }
    }

    /// Publishes until told to drain and everything is answered, or told to stop.
    pub async fn run(mut self) {
        let mut left = None;
        // Not all at once: messages shall come evenly.
        self.due = Instant::now() + self.pace.period.mul_f64(self.random.random());
        let shared = Arc::clone(&self.shared);
        while let Some(mut link) = shared.connect(&self.connect, &mut self.random, left).await {
            let ended = self.serve(&mut link).await;
            let done = ended.why == Leave::Stopped;
            self.give_up(&link);
            shared.left(&self.connect.client, &link, ended);
            if done {
                return;
            }
            left = Some(link.node);
        }
    }

    /// The connection is over: what it did not answer is unknown.
    fn give_up(&mut self, link: &Link) {
        for at in 0..self.unanswered.len() {
            let was_sent = self.unanswered[at].sent.take().is_some();
            if was_sent && !self.unanswered[at].received {
                let message = self.unanswered[at].message;
                self.note(link, Phase::Info, message, None);
            }
        }
    }

    async fn serve(&mut self, link: &mut Link) -> Ended {
        match self.exchange(link).await {
            Ok(()) => Ended::plainly(Leave::Stopped),
            Err(ended) => ended,
        }
    }

    async fn exchange(&mut self, link: &mut Link) -> Result<(), Ended> {
        let shared = Arc::clone(&self.shared);
        let window = WINDOW.min(usize::from(link.connection.receive_max));
        let again = !self.connect.clean && link.connection.present;
        let mut resend = 0;
        self.owed.clear();
        let mut heard = Instant::now();
        let mut ping = interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // What the last connection left comes first, as far as this one's window allows.
            while resend < self.unanswered.len() && resend < window {
                self.send(link, resend, again).await?;
                resend += 1;
            }
            let draining = shared.drain.is_cancelled();
            if draining && self.unanswered.is_empty() {
                link.connection.writer.send(&[Packet::Disconnect { reason: 0 }]).await?;
                return Ok(());
            }
            let may_begin = !draining && self.unanswered.len() < window;
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Ok(()),
                packet = link.connection.reader.next() => {
                    heard = Instant::now();
                    resend -= usize::from(self.answered(link, &packet?)?);
                    if !self.owed.is_empty() {
                        link.connection.writer.send(&std::mem::take(&mut self.owed)).await?;
                    }
                }
                _ = ping.tick() => {
                    self.check_patience(heard)?;
                    link.connection.writer.send(&[Packet::PingReq]).await?;
                }
                () = shared.drain.cancelled(), if !draining => {}
                () = sleep_until(self.due), if may_begin => {
                    self.begin();
                    self.send(link, self.unanswered.len() - 1, false).await?;
                    resend = self.unanswered.len();
                }
            }
        }
    }

    fn check_patience(&self, heard: Instant) -> Result<(), Ended> {
        let oldest = self.unanswered.iter().find_map(|one| one.sent);
        if heard.elapsed() > SILENCE_MAX {
            return Err(Ended { why: Leave::TimedOut, err: Some("silence".to_owned()) });
        }
        if oldest.is_some_and(|sent| sent.elapsed() > ANSWER_MAX) {
            return Err(Ended { why: Leave::TimedOut, err: Some("no answer".to_owned()) });
        }
        Ok(())
    }

    /// Puts the next message at the end of what is unanswered.
    fn begin(&mut self) {
        let message = MessageId { publisher: self.number, seq: self.next_seq };
        self.next_seq += 1;
        let packet = self.next_packet;
        self.next_packet = packet.checked_add(1).unwrap_or(1);
        self.unanswered.push_back(Unanswered { message, packet, sent: None, received: false });
        self.due += self.pace.period;
        if let Some(earliest) = Instant::now().checked_sub(LAG_MAX) {
            self.due = self.due.max(earliest);
        }
    }

    async fn send(&mut self, link: &mut Link, at: usize, dup: bool) -> Result<(), Ended> {
        let Unanswered { message, packet, ref mut sent, received } = self.unanswered[at];
        *sent = Some(Instant::now());
        if received {
            let released = Packet::PubRel { packet, reason: 0 };
            return Ok(link.connection.writer.send(&[released]).await?);
        }
        let topic = topic(message);
        let payload = payload::write(message, &topic, self.pace.payload).into();
        self.note(link, Phase::Invoke, message, None);
        let once = self.once;
        let packet = Some(packet);
        let publish = Packet::Publish { topic, packet, dup, once, retain: false, payload };
        Ok(link.connection.writer.send(&[publish]).await?)
    }

    /// Takes an answer in; says whether a message is done with.
    fn answered(&mut self, link: &Link, packet: &Packet) -> Result<bool, Ended> {
        let (id, reason) = match packet {
            Packet::PubAck { packet, reason } if !self.once => (*packet, *reason),
            Packet::PubRec { packet, reason } if self.once => (*packet, *reason),
            Packet::PubComp { packet, .. } if self.once => return self.completed(*packet),
            Packet::PingResp => return Ok(false),
            Packet::Disconnect { reason } => {
                let err = Some(format!("DISCONNECT {reason:#04x}"));
                return Err(Ended { why: Leave::Lost, err });
            }
            Packet::Connect(_)
            | Packet::ConnAck { .. }
            | Packet::Publish { .. }
            | Packet::PubAck { .. }
            | Packet::PubRec { .. }
            | Packet::PubRel { .. }
            | Packet::PubComp { .. }
            | Packet::Subscribe { .. }
            | Packet::SubAck { .. }
            | Packet::PingReq => {
                let err = Some(format!("a publisher got {packet:?}"));
                return Err(Ended { why: Leave::Protocol, err });
            }
        };
        let asked = |one: &Unanswered| one.packet == id && one.sent.is_some() && !one.received;
        let Some(at) = self.unanswered.iter().position(asked) else {
            let err = Some(format!("an answer for packet {id}, which waits for none"));
            return Err(Ended { why: Leave::Protocol, err });
        };
        let message = self.unanswered[at].message;
        if reason >= 0x80 && !is_definite(reason) {
            let err = Some(format!("refused with {reason:#04x}: the outcome is unknown"));
            return Err(Ended { why: Leave::Lost, err });
        }
        if reason >= 0x80 {
            self.unanswered.remove(at);
            self.note(link, Phase::Fail, message, Some(format!("refused with {reason:#04x}")));
            return Ok(true);
        }
        self.note(link, Phase::Ok, message, None);
        self.shared.progress.acked(message);
        if self.once {
            self.unanswered[at].received = true;
            self.owed.push(Packet::PubRel { packet: id, reason: 0 });
            return Ok(false);
        }
        self.unanswered.remove(at);
        Ok(true)
    }

    /// A PUBCOMP: the packet id is free, whatever else it says.
    fn completed(&mut self, id: u16) -> Result<bool, Ended> {
        let done = |one: &Unanswered| one.packet == id && one.received;
        let Some(at) = self.unanswered.iter().position(done) else {
            let err = Some(format!("PUBCOMP for packet {id}, which was not released"));
            return Err(Ended { why: Leave::Protocol, err });
        };
        self.unanswered.remove(at);
        Ok(true)
    }

    fn note(&self, link: &Link, ph: Phase, message: MessageId, err: Option<String>) {
        let actor = Actor { name: &self.connect.client, node: Some(link.node) };
        let once = self.once;
        let op = Op::Publish { conn: link.conn, message, topic: topic(message), once };
        self.shared.recorder.note_error(actor, ph, op, err);
    }
}
