//! Requests that wait for the service, and their answers.
//!
//! Invariant: each request gets one answer on the wire, or the connection ends first. Checked by `tests/it/server.rs`.

use std::collections::BTreeMap;

use bytes::Bytes;
use moorline_core::{
    Millis,
    op::{Answer, Declined, Event, EventKind, MailId, Op, Settlement},
    port::Token,
};

use crate::codec::{Next, Packet, Pulse, PulseError, PulseKind, encode};

use super::{
    Action, Server,
    mailbox::{Fetched, capped},
};

/// What is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Request {
    Heartbeat,
    Pulse { txn: u64, bytes: usize },
    Next { txn: u64, header_only: bool },
    Settle { id: MailId, settlement: Settlement },
}

/// All that wait, by token: tokens grow, so the first is the oldest.
#[derive(Debug, Default)]
pub(super) struct Requests {
    waiting: BTreeMap<Token, (Request, Millis)>,
    bytes: usize,
    last: Token,
    heartbeat: bool,
}

impl Requests {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest one came.
    pub(super) fn oldest(&self) -> Option<Millis> {
        self.waiting.first_key_value().map(|(_, (_, at))| *at)
    }

    fn add(&mut self, now: Millis, request: Request) -> Token {
        if let Request::Pulse { bytes, .. } = request {
            self.bytes += bytes;
        }
        self.last += 1;
        self.waiting.insert(self.last, (request, now));
        self.last
    }

    fn take(&mut self, token: Token) -> Option<Request> {
        let (request, _) = self.waiting.remove(&token)?;
        if let Request::Pulse { bytes, .. } = request {
            self.bytes -= bytes;
        }
        Some(request)
    }
}

impl Server {
    /// Agents repeat an unanswered heartbeat every 5 s: all of them get one answer.
    pub(super) fn on_heartbeat(&mut self, now: Millis) {
        if !std::mem::replace(&mut self.requests.heartbeat, true) {
            self.ask(now, Request::Heartbeat, Op::Heartbeat);
        }
    }

    pub(super) fn on_pulse(&mut self, now: Millis, pulse: Pulse) {
        let Pulse { kind, txn, name, payload } = pulse;
        let kind = match kind {
            PulseKind::System => EventKind::System,
            PulseKind::Datapoint => EventKind::Datapoint,
            PulseKind::Message => EventKind::Message,
            PulseKind::Unknown => {
                return self.send(&Packet::PulseResp { txn, result: Err(PulseError::Unknown) });
            }
        };
        let bytes = payload.len() + name.len();
        let event = Event { kind, channel: name, format: self.format, body: payload };
        self.ask(now, Request::Pulse { txn, bytes }, Op::Event(event));
    }

    pub(super) fn on_mailbox_next(&mut self, now: Millis, txn: u64, header_only: bool) {
        self.mailbox.ask();
        self.ask(now, Request::Next { txn, header_only }, Op::FetchMail { header_only });
    }

    pub(super) fn on_ack_mail(&mut self, now: Millis, id: MailId, settlement: Settlement) {
        self.mailbox.ask();
        self.ask(now, Request::Settle { id, settlement }, Op::SettleMail { id, settlement });
    }

    fn ask(&mut self, now: Millis, request: Request, op: Op) {
        let token = self.requests.add(now, request);
        self.timers.waiting_since(self.requests.oldest());
        self.actions.push_back(Action::Ask { token, op });
    }

    pub(super) fn on_answered(&mut self, token: Token, outcome: Result<Answer, Declined>) {
        match self.requests.take(token) {
            None => {}
            Some(Request::Heartbeat) => {
                self.requests.heartbeat = false;
                self.send(&Packet::HeartbeatAck { success: outcome == Ok(Answer::Done) });
            }
            Some(Request::Pulse { txn, .. }) => {
                self.send(&Packet::PulseResp { txn, result: pulse_result(&outcome) });
            }
            Some(Request::Next { txn, header_only }) => {
                self.on_fetched(txn, header_only, outcome);
            }
            Some(Request::Settle { id, settlement }) => {
                let left = match outcome {
                    Ok(Answer::Settled { size }) => Some(size),
                    Ok(Answer::Done | Answer::Mail { .. } | Answer::MailboxSize(_)) | Err(_) => {
                        None
                    }
                };
                let size = self.mailbox.settled(left);
                self.send(&Packet::AckMailResp { success: left.is_some(), size, id, settlement });
            }
        }
    }

    fn on_fetched(&mut self, txn: u64, header_only: bool, outcome: Result<Answer, Declined>) {
        let (next, fetched) = match outcome {
            Ok(Answer::Mail { mail: None, .. }) => (Next::Empty, Fetched::Empty),
            Ok(Answer::Mail { size, mail: Some(mail) }) => {
                let payload = if header_only { Bytes::new() } else { mail.payload };
                let size = capped(size).max(1);
                let fetched = if header_only { Fetched::Header } else { Fetched::Mail };
                (Next::Mail { size, id: mail.id, name: mail.name, payload }, fetched)
            }
            Ok(Answer::Done | Answer::MailboxSize(_) | Answer::Settled { .. }) | Err(_) => {
                (Next::Failed { size: 0 }, Fetched::Failed)
            }
        };
        let packet = Packet::MailboxNextResp { txn, header_only, next };
        if encode(&packet, &mut self.control).is_ok() {
            self.counters.sent += 1;
            return self.mailbox.fetched(fetched);
        }
        // A mail that the wire can't carry: whoever sent it did not go through an API that knows this device.
        let next = Next::Failed { size: 0 };
        self.send(&Packet::MailboxNextResp { txn, header_only, next });
        self.mailbox.fetched(Fetched::Failed);
    }
}

fn pulse_result(outcome: &Result<Answer, Declined>) -> Result<(), PulseError> {
    match outcome {
        Ok(Answer::Done) => Ok(()),
        Err(Declined::Unreadable(_)) => Err(PulseError::DeserializationFailed),
        Err(Declined::UnknownSchema) => Err(PulseError::SchemaNotFound),
        Ok(Answer::Mail { .. } | Answer::MailboxSize(_) | Answer::Settled { .. })
        | Err(
            Declined::InvalidMailId
            | Declined::NotNextMail
            | Declined::UnknownMail
            | Declined::Denied(_)
            | Declined::Refused(_),
        ) => Err(PulseError::Unknown),
    }
}
