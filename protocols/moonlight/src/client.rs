//! The device agent's side of one connection, as a state machine.
//!
//! ```text
//!   Connecting ──Connected──► Open ──► Closed
//!        └── Unauthorized, ConnectFailed, no answer ──┘
//! ```
//!
//! # Invariants
//!
//! - **Each request ends once**: by its answer, after [`TRANSACTION_MAX_MS`], or with the connection. An answer that comes
//!   later is dropped. Checked by `tests/it/client.rs`.
//! - **One settlement per mail at a time**, because its answer is known by the mail's id only.
//!
//! # Deliberately absent
//!
//! Connecting again ([`crate::reconnect`]).

use std::{collections::VecDeque, fmt};

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::{
    Millis, Text,
    op::{Format, MailId, Settlement},
};
use thiserror::Error;

use crate::codec::{
    Connect, ConnectFailedReason, Credentials, DecodeError, Decoder, EncodeError, Next, Packet,
    Pulse, PulseError, PulseKind, Side, UnauthorizedReason, WIRE_VERSION, encode,
};

/// How long a server may take to answer the Connect.
pub const CONNECT_DEADLINE_MS: u64 = 10_000;
/// How often the client says that it lives.
pub const HEARTBEAT_MS: u64 = 30_000;
/// How often it says so again while it is not answered.
pub const HEARTBEAT_REPEAT_MS: u64 = 5_000;
/// How long it goes without an answer to any before it gives the connection up.
pub const SILENCE_MAX_MS: u64 = 90_000;
/// How long a request may take.
pub const TRANSACTION_MAX_MS: u64 = 10_000;
/// How long the socket may take nothing of what there is.
pub const STALL_MAX_MS: u64 = 10_000;
/// Requests under way at once. Each has its caller waiting in the agent.
pub const TRANSACTIONS_MAX: usize = 64;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The server let the device in.
    Connected {
        /// Whether mail waits.
        mail_available: bool,
    },
    /// Mail waits.
    NewMail,
    /// The answer to [`Client::pulse`].
    Pulse {
        /// Which one.
        txn: u64,
        /// What became of it.
        result: Result<(), Failure>,
    },
    /// The answer to [`Client::next`].
    Next {
        /// Which one.
        txn: u64,
        /// What there is: never [`Next::Failed`].
        result: Result<Next, Failure>,
    },
    /// The answer to [`Client::settle`].
    Settled {
        /// Which mail.
        id: MailId,
        /// What had become of it.
        settlement: Settlement,
        /// How many mails are left.
        result: Result<u16, Failure>,
    },
    /// The last event, exactly once.
    Closed(Ended),
}

/// Why a request did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Failure {
    /// The server refused the pulse. It was not accepted.
    #[error("refused: {0:?}")]
    Pulse(PulseError),
    /// The server refused the mail op. Nothing happened.
    #[error("refused")]
    Refused,
    /// The server did not answer in time. It may have happened.
    #[error("not answered in time")]
    TimedOut,
    /// The connection ended first. It may have happened.
    #[error("the connection was lost")]
    Lost,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Ended {
    /// The device may not come in.
    #[error("unauthorized: {0:?}")]
    Unauthorized(UnauthorizedReason),
    /// It can't come in now.
    #[error("the server can't let the device in: {0:?}")]
    ConnectFailed(ConnectFailedReason),
    /// The server said goodbye.
    #[error("the server closed the connection")]
    Goodbye,
    /// The server sent what can't be read.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// The server sent what does not belong there.
    #[error("a packet out of turn")]
    OutOfTurn,
    /// The server did not answer the Connect.
    #[error("no answer to the Connect")]
    NoAnswer,
    /// The server did not answer heartbeats.
    #[error("no answer to heartbeats")]
    Silence,
    /// The socket takes nothing.
    #[error("the server takes nothing of what it is sent")]
    Stalled,
    /// [`Client::close`], or the driver saw the socket end.
    #[error("closed by the agent")]
    Own,
}

/// Why a request was not sent. Nothing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// The device is not in.
    #[error("not connected")]
    NotConnected,
    /// [`TRANSACTIONS_MAX`] are under way.
    #[error("too many requests are under way")]
    TooMany,
    /// The mail is being settled already.
    #[error("the mail is being settled")]
    Pending,
    /// It has no form on the wire.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Open,
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Pulse(u64),
    Next(u64),
    Settle(MailId, Settlement),
}

/// One connection of a device agent. Its `Debug` form hides what waits to be sent: the secret may be in it.
pub struct Client {
    state: State,
    since: Millis,
    /// The next transaction's number: they count from 0.
    next_txn: u64,
    /// Oldest first.
    requests: VecDeque<(Millis, Request)>,
    acked: Millis,
    heartbeat_at: Millis,
    events: VecDeque<Event>,
    /// Encoded packets, in order, not handed to the driver yet.
    control: BytesMut,
    /// Since when the socket takes nothing, if something is there to take.
    stalled: Option<Millis>,
    unsent: usize,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("state", &self.state)
            .field("since", &self.since)
            .field("requests", &self.requests)
            .field("acked", &self.acked)
            .field("unsent", &(self.unsent + self.control.len()))
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A connection whose socket is ready: the Connect goes out first.
    #[must_use]
    pub fn new(now: Millis, credentials: Credentials, format: Format) -> Self {
        let connect = Connect { keep_alive: true, version: WIRE_VERSION, format, credentials };
        let mut client = Self {
            state: State::Connecting,
            since: now,
            next_txn: 0,
            requests: VecDeque::new(),
            acked: now,
            heartbeat_at: now,
            events: VecDeque::new(),
            control: BytesMut::new(),
            stalled: None,
            unsent: 0,
        };
        client.send(&Packet::Connect(Box::new(connect)));
        client
    }

    /// Takes packets off the front of `input`, which holds what the socket gave and was not taken yet.
    pub fn receive(&mut self, now: Millis, input: &mut BytesMut) {
        while self.state != State::Closed {
            match Decoder::of(Side::Server).decode(input) {
                Ok(Some(packet)) => self.handle(now, packet),
                Ok(None) => break,
                Err(error) => self.end(error.into()),
            }
        }
    }

    fn handle(&mut self, now: Millis, packet: Packet) {
        match (self.state, packet) {
            (_, Packet::CloseConnection { .. }) => self.end(Ended::Goodbye),
            (_, Packet::Unauthorized(reason)) => self.end(Ended::Unauthorized(reason)),
            (_, Packet::ConnectFailed(reason)) => self.end(Ended::ConnectFailed(reason)),
            (State::Connecting, Packet::Connected { mail_available, .. }) => {
                self.state = State::Open;
                self.acked = now;
                self.heartbeat_at = now.plus(HEARTBEAT_MS);
                self.events.push_back(Event::Connected { mail_available });
            }
            (State::Open, Packet::HeartbeatAck { success: true }) => {
                self.acked = now;
                self.heartbeat_at = now.plus(HEARTBEAT_MS);
            }
            // Not noted: it is said again, and to another node in the end.
            (State::Open, Packet::HeartbeatAck { success: false }) => {}
            (State::Open, Packet::NewMailEvent) => {
                // One that was not looked at yet says as much.
                if self.events.back() != Some(&Event::NewMail) {
                    self.events.push_back(Event::NewMail);
                }
            }
            (State::Open, Packet::PulseResp { txn, result }) => {
                if self.take(Request::Pulse(txn)) {
                    let result = result.map_err(Failure::Pulse);
                    self.events.push_back(Event::Pulse { txn, result });
                }
            }
            (State::Open, Packet::MailboxNextResp { txn, next, .. }) => {
                if self.take(Request::Next(txn)) {
                    let failed = matches!(next, Next::Failed { .. });
                    let result = if failed { Err(Failure::Refused) } else { Ok(next) };
                    self.events.push_back(Event::Next { txn, result });
                }
            }
            (State::Open, Packet::AckMailResp { success, size, id, settlement }) => {
                if self.take(Request::Settle(id, settlement)) {
                    let result = if success { Ok(size) } else { Err(Failure::Refused) };
                    self.events.push_back(Event::Settled { id, settlement, result });
                }
            }
            (
                _,
                Packet::Connect(_)
                | Packet::Connected { .. }
                | Packet::Heartbeat
                | Packet::HeartbeatAck { .. }
                | Packet::Pulse(_)
                | Packet::PulseResp { .. }
                | Packet::NewMailEvent
                | Packet::MailboxNext { .. }
                | Packet::MailboxNextResp { .. }
                | Packet::AckMail { .. }
                | Packet::AckMailResp { .. },
            ) => self.end(Ended::OutOfTurn),
        }
    }

    /// Sends news. The payload is in the connection's format; none is 0 bytes.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was sent.
    pub fn pulse(
        &mut self,
        now: Millis,
        kind: PulseKind,
        name: Text,
        payload: Bytes,
    ) -> Result<u64, SendError> {
        self.may_send()?;
        let txn = self.next_txn;
        encode(&Packet::Pulse(Pulse { kind, txn, name, payload }), &mut self.control)?;
        self.sent(now, Request::Pulse(txn));
        Ok(txn)
    }

    /// Asks for the front mail.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was sent.
    pub fn next(&mut self, now: Millis, header_only: bool) -> Result<u64, SendError> {
        self.may_send()?;
        let txn = self.next_txn;
        encode(&Packet::MailboxNext { txn, header_only }, &mut self.control)?;
        self.sent(now, Request::Next(txn));
        Ok(txn)
    }

    /// Says what became of the front mail.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was sent.
    pub fn settle(
        &mut self,
        now: Millis,
        id: MailId,
        settlement: Settlement,
    ) -> Result<(), SendError> {
        self.may_send()?;
        let pending = |(_, request): &(Millis, Request)| matches!(request, Request::Settle(other, _) if *other == id);
        if self.requests.iter().any(pending) {
            return Err(SendError::Pending);
        }
        encode(&Packet::AckMail { id, settlement }, &mut self.control)?;
        self.requests.push_back((now, Request::Settle(id, settlement)));
        Ok(())
    }

    /// Says goodbye, or notes that the socket ended.
    pub fn close(&mut self) {
        if self.state != State::Closed {
            self.send(&Packet::CloseConnection { from: Side::Client });
            self.end(Ended::Own);
        }
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Appends what is to be sent to `output`, which holds what the socket has not taken yet; always the same buffer, so
    /// that a server that takes nothing is noticed. Call it after each write, too.
    pub fn poll_transmit(&mut self, now: Millis, output: &mut BytesMut) {
        if output.len() < self.unsent || self.unsent == 0 {
            self.stalled = None;
        }
        output.put_slice(&self.control);
        self.control.clear();
        self.unsent = output.len();
        self.stalled = if self.unsent == 0 { None } else { self.stalled.or(Some(now)) };
    }

    /// When [`Client::timeout`] has to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        let stall = self.stalled.map(|at| at.plus(STALL_MAX_MS));
        let state = match self.state {
            State::Connecting => Some(self.since.plus(CONNECT_DEADLINE_MS)),
            State::Open => Some(self.heartbeat_at.min(self.acked.plus(SILENCE_MAX_MS))),
            State::Closed => return None,
        };
        let request = self.requests.front().map(|(at, _)| at.plus(TRANSACTION_MAX_MS));
        [stall, state, request].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Millis) {
        let passed = |since: Millis, ms: u64| now >= since.plus(ms);
        if self.state == State::Closed {
            return;
        }
        if self.stalled.is_some_and(|at| passed(at, STALL_MAX_MS)) {
            return self.end(Ended::Stalled);
        }
        if self.state == State::Connecting {
            if passed(self.since, CONNECT_DEADLINE_MS) {
                self.end(Ended::NoAnswer);
            }
            return;
        }
        if passed(self.acked, SILENCE_MAX_MS) {
            return self.end(Ended::Silence);
        }
        if now >= self.heartbeat_at {
            self.heartbeat_at = now.plus(HEARTBEAT_REPEAT_MS);
            self.send(&Packet::Heartbeat);
        }
        while let Some((_, request)) =
            self.requests.pop_front_if(|(at, _)| passed(*at, TRANSACTION_MAX_MS))
        {
            self.events.push_back(failed(request, Failure::TimedOut));
        }
    }

    /// Whether the device is in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether the connection is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    fn may_send(&self) -> Result<(), SendError> {
        if self.state != State::Open {
            return Err(SendError::NotConnected);
        }
        if self.requests.len() >= TRANSACTIONS_MAX {
            return Err(SendError::TooMany);
        }
        Ok(())
    }

    fn sent(&mut self, now: Millis, request: Request) {
        self.next_txn += 1;
        self.requests.push_back((now, request));
    }

    /// Whether this request was under way; it is not any more.
    fn take(&mut self, request: Request) -> bool {
        let at = self.requests.iter().position(|(_, waiting)| *waiting == request);
        at.is_some_and(|at| self.requests.remove(at).is_some())
    }

    fn send(&mut self, packet: &Packet) {
        encode(packet, &mut self.control).expect("it has neither name nor payload");
    }

    fn end(&mut self, ended: Ended) {
        self.state = State::Closed;
        for (_, request) in std::mem::take(&mut self.requests) {
            self.events.push_back(failed(request, Failure::Lost));
        }
        self.events.push_back(Event::Closed(ended));
    }
}

fn failed(request: Request, failure: Failure) -> Event {
    match request {
        Request::Pulse(txn) => Event::Pulse { txn, result: Err(failure) },
        Request::Next(txn) => Event::Next { txn, result: Err(failure) },
        Request::Settle(id, settlement) => Event::Settled { id, settlement, result: Err(failure) },
    }
}
