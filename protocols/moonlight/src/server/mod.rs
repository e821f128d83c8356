//! The cluster's side of one connection, as a state machine.
//!
//! ```text
//!   AwaitConnect ──Connect──► Authenticating ──authenticated──► Open ──► Closed
//!        └── CloseConnection, anything else, too late, denied ────────────┘
//! ```
//!
//! # Invariants
//!
//! - **Back-pressure.** Reading stops while too much is unanswered or unread ([`Server::wants_read`]); time spent so is not
//!   the client's silence.
//! - **One mail op at a time.** A second one waits, and what comes after it. Asserted in `mailbox.rs`.
//! - **Answers before the end.** Actions of packets that came before a fatal one are still handed out, and
//!   [`Action::Close`] is the last.
//!
//! All are checked by `tests/it/server.rs`.

mod event;
mod mailbox;
mod requests;
mod timers;

use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};
use moorline_core::{
    Millis,
    op::{Answer, Declined, Denial, Format},
    port::Token,
};

use crate::codec::{
    Connect, ConnectFailedReason, DecodeError, Decoder, Packet, Side, UnauthorizedReason,
    WIRE_VERSION, encode,
};

use mailbox::Mailbox;
use requests::Requests;
use timers::Timers;

pub use event::{Action, CloseReason, Counters};

/// How long a client may take from connecting to the end of its Connect. Agents send it at once.
pub const CONNECT_DEADLINE_MS: u64 = 10_000;
/// How long finding out who it is may take: less than the 10 s that agents wait, so that they hear why.
pub const AUTHENTICATE_DEADLINE_MS: u64 = 8_000;
/// How long a client may be silent: three heartbeats of an agent, whose own patience is as long.
pub const SILENCE_MAX_MS: u64 = 90_000;
/// How long the service may take for an answer. Agents give up after 10 s; this is for a service that broke its promise
/// to answer, so that such a connection does not stay for ever.
pub const ANSWER_DEADLINE_MS: u64 = 30_000;
/// How long a client may take nothing of what it is sent, as agents do it.
pub const STALL_MAX_MS: u64 = 10_000;
/// How long the last bytes may take to leave.
pub const LINGER_MS: u64 = 5_000;
/// Requests of one client that wait for the service. At the limit it is not read from.
pub const REQUESTS_MAX: usize = 64;
/// Bytes of their payloads: four of the largest.
pub const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Bytes of answers that wait for the client. At the limit it is not read from: it asks faster than it listens. One
/// more mail fits behind it.
pub const OUTPUT_BYTES_MAX: usize = 128 * 1024;
/// Settlements in a row before a client hears "nothing left" and a fresh `NewMailEvent`. The vendor's Python SDK drains a
/// mailbox recursively and, about 247 mails deep, rejects good mail; so it begins anew on a fresh stack.
pub const MAIL_OPS_IN_A_ROW_MAX: u32 = 50;

/// The format before a client has chosen one; nothing is read in it.
const UNCHOSEN: Format = Format::Json;

/// One connection of a client.
#[derive(Debug)]
pub struct Server {
    state: State,
    /// How the client writes payloads.
    format: Format,
    /// A mail op that came while another was under way.
    held: Option<Packet>,
    requests: Requests,
    mailbox: Mailbox,
    timers: Timers,
    actions: VecDeque<Action>,
    /// Encoded answers, in order, not handed to the edge yet.
    control: BytesMut,
    /// What the socket had not taken at the last look.
    backlog: usize,
    counters: Counters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    AwaitConnect,
    Authenticating { keep_alive: bool },
    Open,
    Closed,
}

impl Server {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(now: Millis) -> Self {
        Self {
            state: State::AwaitConnect,
            format: UNCHOSEN,
            held: None,
            requests: Requests::default(),
            mailbox: Mailbox::default(),
            timers: Timers::new(now),
            actions: VecDeque::new(),
            control: BytesMut::new(),
            backlog: 0,
            counters: Counters::default(),
        }
    }

    /// Takes packets off the front of `input`, which holds what the socket gave and was not taken yet.
    ///
    /// Call it after each read, each answer and each write: it stops while too much is under way.
    pub fn receive(&mut self, now: Millis, input: &mut BytesMut) {
        while self.takes_packets() {
            if let Some(held) = self.held.take() {
                self.handle(now, held);
                continue;
            }
            match Decoder::of(Side::Client).decode(input) {
                Ok(Some(packet)) => {
                    self.counters.received += 1;
                    self.timers.heard(now);
                    self.handle(now, packet);
                }
                Ok(None) => break,
                Err(error) => self.fail(now, error.into()),
            }
        }
        self.note_pause(now);
    }

    fn handle(&mut self, now: Millis, packet: Packet) {
        match (self.state, packet) {
            (_, Packet::CloseConnection { .. }) => self.fail(now, CloseReason::Goodbye),
            (State::AwaitConnect, Packet::Connect(connect)) => self.on_connect(now, connect),
            (State::AwaitConnect, other) => {
                self.fail(now, CloseReason::NotConnect(other.packet_type()));
            }
            (_, Packet::Connect(_)) => self.fail(now, CloseReason::SecondConnect),
            (_, Packet::Heartbeat) => self.on_heartbeat(now),
            (_, Packet::Pulse(pulse)) => self.on_pulse(now, pulse),
            (_, packet @ (Packet::MailboxNext { .. } | Packet::AckMail { .. }))
                if self.mailbox.is_asked() =>
            {
                self.held = Some(packet);
            }
            (_, Packet::MailboxNext { txn, header_only }) => {
                self.on_mailbox_next(now, txn, header_only);
            }
            (_, Packet::AckMail { id, settlement }) => self.on_ack_mail(now, id, settlement),
            (
                _,
                other @ (Packet::Connected { .. }
                | Packet::Unauthorized(_)
                | Packet::ConnectFailed(_)
                | Packet::HeartbeatAck { .. }
                | Packet::PulseResp { .. }
                | Packet::NewMailEvent
                | Packet::MailboxNextResp { .. }
                | Packet::AckMailResp { .. }),
            ) => self.fail(now, DecodeError::WrongSide(other.packet_type()).into()),
        }
    }

    fn on_connect(&mut self, now: Millis, connect: Box<Connect>) {
        if connect.version != WIRE_VERSION {
            self.send(&Packet::ConnectFailed(ConnectFailedReason::Unknown));
            return self.close(now, CloseReason::Version(connect.version));
        }
        self.format = connect.format;
        self.state = State::Authenticating { keep_alive: connect.keep_alive };
        self.timers.authenticating(now);
        self.actions.push_back(Action::Authenticate(connect));
    }

    /// The answer to [`Action::Authenticate`]: whether mail waits, or why the client may not come in.
    pub fn authenticated(&mut self, now: Millis, outcome: Result<bool, Denial>) {
        let State::Authenticating { keep_alive } = self.state else { return };
        match outcome {
            Ok(mail_available) => {
                self.state = State::Open;
                self.timers.open(now);
                self.mailbox.open();
                self.send(&Packet::Connected { mail_available, keep_alive });
            }
            Err(denial) => self.deny(now, denial),
        }
        self.note_pause(now);
    }

    /// The answer to [`Action::Ask`]. One that comes too late changes nothing.
    pub fn answered(&mut self, now: Millis, token: Token, outcome: Result<Answer, Declined>) {
        if self.state == State::Open {
            self.on_answered(token, outcome);
            self.timers.waiting_since(self.requests.oldest());
        }
        self.note_pause(now);
    }

    /// New mail is in the device's mailbox.
    pub fn mail_arrived(&mut self) {
        self.mailbox.arrive(self.state == State::Open);
    }

    /// Another connection is this device now.
    pub fn taken_over(&mut self, now: Millis) {
        self.fail(now, CloseReason::TakenOver);
    }

    /// The device may not speak any more. Agents connect again, and hear the reason once more then.
    pub fn revoke(&mut self, now: Millis, denial: Denial) {
        if self.state != State::Closed {
            self.deny(now, denial);
        }
    }

    /// The node stops.
    pub fn stop(&mut self, now: Millis) {
        match self.state {
            State::Authenticating { .. } => {
                self.send(&Packet::ConnectFailed(ConnectFailedReason::Restarting));
                self.close(now, CloseReason::Stopping);
            }
            State::AwaitConnect | State::Open | State::Closed => {
                self.fail(now, CloseReason::Stopping);
            }
        }
    }

    /// The next thing to do for the edge.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Appends what is to be sent to `output`, which holds what the socket has not taken yet; always the same buffer, so
    /// that a client that takes nothing is noticed. Call it after each write, too.
    pub fn poll_transmit(&mut self, now: Millis, output: &mut BytesMut) {
        if self.mailbox.has_event()
            && self.state == State::Open
            && output.len() < OUTPUT_BYTES_MAX
            && self.mailbox.take_event()
        {
            self.send(&Packet::NewMailEvent);
        }
        self.timers.transmitting(now, output.len(), output.len() + self.control.len());
        output.put_slice(&self.control);
        self.control.clear();
        self.backlog = output.len();
        self.note_pause(now);
    }

    /// When [`Server::timeout`] has to be called; after [`Action::Close`], when to stop writing.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        self.timers.next(self.state)
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Millis) {
        let Some(reason) = self.timers.expired(now, self.state) else { return };
        if reason == CloseReason::Unanswered && self.state != State::Open {
            return self.deny(now, Denial::Unavailable);
        }
        self.fail(now, reason);
    }

    /// Whether the edge should read from the socket. If not, the client is ahead of the service or of its own ears.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        self.takes_packets()
    }

    /// Whether the connection is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// How many requests wait for the service: an edge that stops may wait for them.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.requests.len()
    }

    /// What happened since the last call.
    pub fn take_counters(&mut self) -> Counters {
        let cures = self.mailbox.take_cures();
        Counters { cures, ..std::mem::take(&mut self.counters) }
    }

    fn takes_packets(&self) -> bool {
        match self.state {
            State::AwaitConnect => true,
            State::Authenticating { .. } | State::Closed => false,
            State::Open => {
                self.requests.len() < REQUESTS_MAX
                    && self.requests.bytes() < REQUEST_BYTES_MAX
                    && self.control.len() + self.backlog < OUTPUT_BYTES_MAX
                    && !(self.held.is_some() && self.mailbox.is_asked())
            }
        }
    }

    fn note_pause(&mut self, now: Millis) {
        let paused = self.state == State::Open && !self.takes_packets();
        self.counters.paused += u64::from(self.timers.paused(now, paused));
    }

    /// Queues an answer that always fits the wire.
    fn send(&mut self, packet: &Packet) {
        encode(packet, &mut self.control).expect("it has neither name nor payload");
        self.counters.sent += 1;
    }

    fn deny(&mut self, now: Millis, denial: Denial) {
        self.send(&denied(denial));
        self.close(now, CloseReason::Denied(denial));
    }

    /// Says goodbye and closes.
    fn fail(&mut self, now: Millis, reason: CloseReason) {
        if self.state != State::Closed {
            self.send(&Packet::CloseConnection { from: Side::Server });
            self.close(now, reason);
        }
    }

    fn close(&mut self, now: Millis, reason: CloseReason) {
        self.state = State::Closed;
        self.held = None;
        self.requests = Requests::default();
        self.timers.closed(now);
        self.actions.push_back(Action::Close(reason));
    }
}

/// A denial as the wire says it.
fn denied(denial: Denial) -> Packet {
    match denial {
        Denial::Malformed => Packet::Unauthorized(UnauthorizedReason::CredentialsMalformed),
        Denial::UnknownTenant => Packet::Unauthorized(UnauthorizedReason::FleetNotFound),
        Denial::UnknownDevice => Packet::Unauthorized(UnauthorizedReason::DeviceNotFound),
        Denial::WrongSecret => Packet::Unauthorized(UnauthorizedReason::SecretIncorrect),
        Denial::Disabled => Packet::Unauthorized(UnauthorizedReason::DeviceDisabled),
        // It has no reason of its own on the wire.
        Denial::Plaintext => Packet::Unauthorized(UnauthorizedReason::Unknown),
        Denial::Banned { .. } => Packet::Unauthorized(UnauthorizedReason::TemporaryBan),
        Denial::Stopping => Packet::ConnectFailed(ConnectFailedReason::Restarting),
        Denial::Unavailable => Packet::ConnectFailed(ConnectFailedReason::Unavailable),
        Denial::TooOften => Packet::ConnectFailed(ConnectFailedReason::Degraded),
    }
}
