//! A broker's side of one connection, as a state machine without a socket or a clock.
//!
//! ```text
//!   AwaitConnect ──CONNECT──► Opening ──Opened──► Open ──► Closed
//!        └── no CONNECT, refused, timed out, stopped ────────┘
//! ```
//!
//! The crate's documentation shows how to drive it. Rules worth knowing outside:
//!
//! - **Back-pressure.** [`Connection::receive`] leaves packets in the buffer while too much of this client is
//!   unanswered; [`Connection::wants_read`] is false then, and time spent so does not count as the client's silence.
//! - **Durable deliveries** keep their packet id wherever they are sent from: [`packet_id_of`] their offset. An offset
//!   waits while the one with the same id is in flight.
//! - **QoS 2** is kept by the service, which knows what earlier connections left: a PUBREC waits until a publish is
//!   stored, a PUBREL until it is certain that the PUBLISH will not go out again, a PUBCOMP until the packet id is free.
//! - **Deliveries of shared subscriptions** come from other queues, and take any packet id that is free.
//! - **Answers before the end.** Events of packets that came before a fatal one are still handed out.

mod aliases;
mod close;
mod config;
mod connect;
mod event;
mod inbound;
mod limit;
mod once;
mod outbound;
mod requests;
mod timers;

use std::{collections::VecDeque, sync::Arc};

use bytes::{BufMut, BytesMut};
use moorline_core::{
    Offset, ShareNumber, Text,
    port::{Ended, Notice},
};

use crate::{
    Millis, Now,
    codec::{Decoder, Packet, Version, encode},
};

use close::Ending;
use connect::Peer;
use inbound::Inbound;
use outbound::Outbound;
use requests::Requests;

pub use config::{Capabilities, Config, ConfigError};
pub use event::{CloseReason, Closed, ConnectRequest, Counters, Event, Fate};
pub use limit::Limit;
pub use outbound::packet_id_of;

/// Bytes of answers that wait for the socket. At the limit the client is not read from: it asks faster than it
/// listens.
const CONTROL_BYTES_MAX: usize = 64 * 1024;

/// One connection of a client.
#[derive(Debug)]
pub struct Connection {
    config: Arc<Config>,
    state: State,
    decoder: Decoder,
    peer: Peer,
    inbound: Inbound,
    outbound: Outbound,
    requests: Requests,
    timers: timers::Timers,
    next_token: u64,
    events: VecDeque<Event>,
    /// QoS 2 deliveries whose PUBREC came.
    received: Vec<Offset>,
    settled: Vec<Offset>,
    settled_shared: Vec<(ShareNumber, Offset)>,
    closed: Option<Closed>,
    /// Encoded answers, in order, not handed to the edge yet.
    control: BytesMut,
    counters: Counters,
    /// Publishes of QoS 1 and 2 that were received, less those of which it was counted what they came to: of counters that were
    /// taken. See [`Connection::imbalance`].
    balance: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    AwaitConnect,
    Opening,
    Open,
    Closed,
}

impl Connection {
    /// A connection that was just accepted. `spare_id` is a client id that nobody has, for a client that brings none.
    #[must_use]
    pub fn new(config: Arc<Config>, now: Now, spare_id: Text) -> Self {
        Self {
            state: State::AwaitConnect,
            decoder: Decoder::server(config.connect_limits()),
            peer: Peer::new(spare_id),
            inbound: Inbound::default(),
            outbound: Outbound::new(&config),
            requests: Requests::default(),
            timers: timers::Timers::new(now.at, &config),
            next_token: 1,
            events: VecDeque::new(),
            received: Vec::new(),
            settled: Vec::new(),
            settled_shared: Vec::new(),
            closed: None,
            control: BytesMut::new(),
            counters: Counters::default(),
            balance: 0,
            config,
        }
    }

    /// Takes packets off the front of `input`, which holds what the socket gave and was not taken yet.
    ///
    /// Call it after each read and after each notice: it stops while the service owes too many answers.
    pub fn receive(&mut self, now: Now, input: &mut BytesMut) {
        self.note_pause(now.at);
        while self.takes_packets() {
            match self.decoder.decode(input) {
                Ok(Some(packet)) => {
                    self.counters.packets_received += 1;
                    self.timers.heard(now.at);
                    self.handle(now, packet);
                }
                Ok(None) => break,
                Err(error) => {
                    let mut ending = Ending::from(error);
                    if self.state == State::AwaitConnect && ending.limit == Some(Limit::PacketBytes)
                    {
                        ending.limit = Some(Limit::ConnectBytes);
                    }
                    self.fail(now, &ending);
                }
            }
        }
        self.note_pause(now.at);
    }

    fn handle(&mut self, now: Now, packet: Packet) {
        match packet {
            Packet::Connect(connect) => self.on_connect(now, *connect),
            Packet::Publish(publish) => self.on_publish(now, publish),
            Packet::PubAck(ack) => self.on_puback(now, &ack),
            Packet::PubRec(ack) => self.on_pubrec(now, &ack),
            Packet::PubRel(ack) => self.on_pubrel(now, &ack),
            Packet::PubComp(ack) => self.on_pubcomp(now, &ack),
            Packet::Subscribe(subscribe) => self.on_subscribe(now, subscribe),
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(now, unsubscribe),
            Packet::PingReq => self.send(now, &Packet::PingResp),
            Packet::Disconnect(disconnect) => self.on_disconnect(now, &disconnect),
            Packet::Auth(_) => {
                self.fail(now, &Ending::protocol("AUTH without an authentication method"));
            }
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                self.fail(now, &Ending::protocol("a packet that only servers send"));
            }
        }
    }

    /// Takes what the service says. `Stopping` is [`Connection::stop`] without a server reference.
    pub fn notice(&mut self, now: Now, notice: Notice) {
        match notice {
            Notice::Opened(Ok(opened)) => self.on_opened(now, opened),
            Notice::Opened(Err(refusal)) => self.on_open_refused(now, refusal),
            Notice::Published { token, outcome } => self.on_published(now, token, outcome),
            Notice::Completed { packet, known } => self.on_completed(packet, known),
            Notice::Released(offsets) => self.on_released(&offsets),
            Notice::Subscribed { token, granted } => self.on_subscribed(now, token, granted),
            Notice::Unsubscribed { token, existed } => self.on_unsubscribed(now, token, existed),
            Notice::Deliver(deliveries) => self.on_deliver(now, deliveries),
            Notice::Retained(deliveries) => self.on_retained(deliveries),
            Notice::TakenOver => self.fail(now, &Ending::TAKEN_OVER),
            Notice::Stopping { .. } => self.stop(now, None),
            Notice::Lost => self.fail(now, &Ending::LOST),
            Notice::Ended(Ended::Revoked) => {
                let ending = Ending::revoked(self.config.revoked);
                self.fail(now, &ending);
            }
            Notice::Ended(Ended::Misused) => {
                // A platform may say why before it closes.
                self.say_what_waits(now);
                self.fail(now, &Ending::MISUSED);
            }
            Notice::Ended(Ended::TooLarge) => self.fail(now, &Ending::MESSAGE_TOO_LARGE),
            Notice::Ended(Ended::Limited) => self.fail(now, &Ending::LIMITED),
            Notice::Ended(Ended::Finished) => self.fail(now, &Ending::FINISHED),
        }
        self.note_pause(now.at);
    }

    /// The next thing to do for the edge.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if !self.received.is_empty() {
            return Some(Event::Release(std::mem::take(&mut self.received)));
        }
        if !self.settled.is_empty() {
            return Some(Event::Settled(std::mem::take(&mut self.settled)));
        }
        if !self.settled_shared.is_empty() {
            return Some(Event::SettledShared(std::mem::take(&mut self.settled_shared)));
        }
        self.closed.take().map(Event::Closed)
    }

    /// Appends what is to be sent to `output`, which holds what the socket has not taken yet; always the same buffer,
    /// so that a client that takes nothing is noticed. Stops at [`Config::output_bytes_max`].
    pub fn poll_transmit(&mut self, now: Now, output: &mut BytesMut) {
        self.timers.before_transmit(now.at, output.len());
        let before = output.len();
        if self.state == State::Closed || output.len() < self.config.output_bytes_max {
            output.put_slice(&self.control);
            self.control.clear();
        }
        if self.state == State::Open {
            self.transmit_deliveries(now, output);
        }
        self.timers.after_transmit(now.at, before, output.len());
        self.note_pause(now.at);
    }

    /// Whether the edge should read from the socket. If not, the client is ahead of the service or of its own ears.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        self.takes_packets()
    }

    /// Whether the connection is over: write what is left of the output until [`Connection::poll_timeout`], then close.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// The client's protocol version, once known.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.decoder.version()
    }

    /// How many publishes and PUBRELs wait for the service: an edge that stops may wait for them.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.inbound.unanswered()
    }

    /// What happened since the last call.
    pub fn take_counters(&mut self) -> Counters {
        self.balance += self.counters.balance();
        std::mem::take(&mut self.counters)
    }

    /// How many publishes of QoS 1 and 2 the service has not answered.
    #[must_use]
    pub fn publishes_waiting(&self) -> usize {
        self.inbound.waiting()
    }

    /// By how much the counts of publishes of QoS 1 and 2 differ from each other: each that was received waits, or has come to
    /// one [`Fate`]. 0, unless something is wrong here.
    #[must_use]
    pub fn imbalance(&self) -> u64 {
        let waiting = i64::try_from(self.inbound.waiting()).unwrap_or(i64::MAX);
        (self.balance + self.counters.balance() - waiting).unsigned_abs()
    }

    fn takes_packets(&self) -> bool {
        match self.state {
            State::AwaitConnect => true,
            State::Opening | State::Closed => false,
            State::Open => {
                // An MQTT 5 client knows the Receive Maximum; one that exceeds it is to be caught, not held up.
                let receive_max = usize::from(self.config.receive_max.get());
                let waiting = match self.peer.version.is_v5() {
                    true => self.inbound.completing(),
                    false => self.inbound.unanswered(),
                };
                waiting < receive_max
                    && self.inbound.unanswered_bytes() < self.config.unanswered_bytes_max
                    && self.requests.len() < self.config.requests_max
                    && self.control.len() < CONTROL_BYTES_MAX
            }
        }
    }

    /// Silence while nothing is read is not the client's.
    fn note_pause(&mut self, at: Millis) {
        self.timers.note_pause(at, self.state == State::Open && !self.takes_packets());
    }

    fn take_token(&mut self) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        token
    }

    /// Counts that a limit was reached.
    fn reached(&mut self, limit: Limit) {
        self.counters.limits[limit as usize] += 1;
    }

    /// Queues an answer. If the client takes no packet of that size, the connection can't go on.
    fn send(&mut self, now: Now, packet: &Packet) {
        if !self.try_send(packet) {
            self.fail(now, &Ending::ANSWER_TOO_LARGE);
        }
    }

    /// Queues an answer if the client takes packets of that size.
    fn try_send(&mut self, packet: &Packet) -> bool {
        let before = self.control.len();
        let encoded = encode(packet, self.peer.version, &mut self.control);
        if encoded.is_err() || self.control.len() - before > self.peer.packet_max {
            self.control.truncate(before);
            return false;
        }
        self.counters.packets_sent += 1;
        true
    }
}
