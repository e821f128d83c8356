//! One connection's way into the service: custom topics go there, states to the desk.
//!
//! # Invariants
//!
//! - **What a device may not publish ends its connection**, and nothing of it goes anywhere.
//! - **Subscriptions are of QoS 0, nothing is retained, and no session lasts**, whatever is asked for.
//!
//! Checked by the cluster tests (`losant.rs`).

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use moorline_core::{
    ConnId, Message, Offset, QoS, ShareNumber, Text, Will,
    port::{Close, Failure, Filter, Link, Notice, Open, Token},
};
use moorline_dialects::losant::{
    PAYLOAD_BYTES_MAX,
    id::Id,
    limits::Direction,
    presence::Reason,
    topics::{self, Publish},
};
use tokio::sync::{
    Semaphore,
    mpsc::{self, error::TrySendError},
};
use tokio_util::sync::DropGuard;

use crate::{
    desk::{Asked, COMMANDED_MAX, State, WAITING_BYTES_MAX},
    inbox::Outside,
    visit::Visit,
};

/// The service's link, also for who subscribes when it is known whether that may be.
pub(crate) type Below = Arc<Mutex<Box<dyn Link>>>;

/// See the module.
pub(crate) struct LosantLink {
    visit: Arc<Visit>,
    below: Below,
    desk: mpsc::Sender<Asked>,
    /// Bytes of states that may wait.
    room: Arc<Semaphore>,
    /// Ends whatever works for the connection.
    _ends: DropGuard,
}

impl fmt::Debug for LosantLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LosantLink").field("visit", &self.visit).finish_non_exhaustive()
    }
}

pub(crate) fn locked(link: &Below) -> MutexGuard<'_, Box<dyn Link>> {
    // What it holds is the service's own, and whole after every call.
    link.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LosantLink {
    pub(crate) fn new(
        visit: Arc<Visit>,
        below: Below,
        desk: mpsc::Sender<Asked>,
        ends: DropGuard,
    ) -> Self {
        let room = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
        Self { visit, below, desk, room, _ends: ends }
    }

    fn ask(&self, asked: Asked) {
        match self.desk.try_send(asked) {
            Ok(()) => {}
            // It asks faster than it can be served.
            Err(TrySendError::Full(_)) => self.visit.tell(Notice::Lost),
            // It is ending.
            Err(TrySendError::Closed(_)) => {}
        }
    }

    /// Whether a device may speak for one, as far as that can be said without asking: for itself, or somebody else if its class does.
    fn may_speak_for(&self, id: &Id) -> bool {
        *id == self.visit.device.id || self.visit.class.speaks_for_others()
    }
}

/// Whether a will may be: on a custom topic that its client may publish to, and no larger than any message.
pub(crate) fn may_will(visit: &moorline_core::rights::Rules, topic: &Text, bytes: usize) -> bool {
    let is_custom = topics::publish(topic.as_bytes()) == Some(Publish::Custom);
    is_custom && bytes <= PAYLOAD_BYTES_MAX && visit.may_publish(None, topic.as_bytes())
}

/// Why a connection is over that its own side, or the edge, has closed.
fn reason(close: &Close) -> Reason {
    match close {
        Close::Clean { .. } => Reason::Client,
        Close::Broken | Close::Failed(Failure::Slow) => Reason::Lost,
        Close::Failed(Failure::Silent) => Reason::Silent,
        Close::Failed(Failure::Malformed) => Reason::Misused,
        Close::Failed(Failure::TooLarge) => Reason::TooLarge,
        Close::Failed(Failure::Revoked) => Reason::Revoked,
        // What a device may not say ends its connection by this side: what is left is what could not be kept.
        Close::Failed(Failure::Refused) => Reason::Refused,
    }
}

impl Link for LosantLink {
    fn conn(&self) -> ConnId {
        locked(&self.below).conn()
    }

    fn open(&mut self, open: Open) {
        // Whether it may be was judged with the CONNECT.
        let will = open.will.map(|will| {
            let qos = will.message.qos.min(QoS::AtLeastOnce);
            Will { message: Message { retain: false, qos, ..will.message }, ..will }
        });
        let mut limits = open.limits;
        if self.visit.class.speaks_for_others() {
            // One for each peripheral.
            limits.subscriptions = limits.subscriptions.max(COMMANDED_MAX);
        }
        let open = Open { clean_start: true, expiry_s: 0, will, limits, ..open };
        locked(&self.below).open(open);
    }

    fn publish(&mut self, token: Token, message: Message) {
        let visit = &self.visit;
        if !visit.may(Direction::Up, &message.topic) {
            return;
        }
        if message.payload.len() > PAYLOAD_BYTES_MAX {
            return visit.end(Reason::TooLarge);
        }
        match topics::publish(message.topic.as_bytes()) {
            Some(Publish::State(id)) if self.may_speak_for(&id) => {
                let (answered, payload) = (message.qos > QoS::AtMostOnce, message.payload);
                let bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
                match Arc::clone(&self.room).try_acquire_many_owned(bytes) {
                    Ok(room) => {
                        self.ask(Asked::State(State { token, answered, id, payload, room }));
                    }
                    // It says more than can be kept.
                    Err(_) => visit.tell(Notice::Lost),
                }
            }
            Some(Publish::Custom) if visit.rules.may_publish(None, message.topic.as_bytes()) => {
                locked(&self.below).publish(token, Message { retain: false, ..message });
            }
            Some(Publish::State(_) | Publish::Custom) | None => visit.end(Reason::Topic),
        }
    }

    fn publish_once(&mut self, _: Token, _: u16, _: Message) {
        self.visit.end(Reason::Misused);
    }

    fn complete(&mut self, packet: u16) {
        self.visit.tell(Notice::Completed { packet, known: false });
    }

    fn release(&mut self, offsets: Vec<Offset>) {
        self.visit.tell(Notice::Released(offsets));
    }

    fn subscribe(&mut self, token: Token, filters: Vec<Filter>) {
        self.ask(Asked::Subscribe(token, filters));
    }

    fn unsubscribe(&mut self, token: Token, filters: Vec<Text>) {
        self.ask(Asked::Unsubscribe(token, filters));
    }

    fn settle(&mut self, offsets: &[Offset]) {
        locked(&self.below).settle(offsets);
    }

    fn settle_shared(&mut self, items: &[(ShareNumber, Offset)]) {
        // It has no shared subscriptions: this is mail.
        for (_, number) in items {
            self.visit.handed.has(number.0);
        }
    }

    fn retained_taken(&mut self) {
        locked(&self.below).retained_taken();
    }

    fn close(&mut self, close: Close) {
        self.visit.gone(reason(&close));
        locked(&self.below).close(close);
    }
}

impl Drop for LosantLink {
    fn drop(&mut self) {
        self.visit.gone(Reason::Lost);
    }
}

/// What the desk works with.
#[derive(Debug, Clone)]
pub(crate) struct Under {
    pub(crate) below: Below,
    pub(crate) outside: Arc<Outside>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_close_has_its_reason() {
        #[rustfmt::skip]
        let table = [
            (Close::Broken,                     "Connection Lost"),
            (Close::Failed(Failure::Slow),      "Connection Lost"),
            (Close::Failed(Failure::Silent),    "Keep Alive Timeout"),
            (Close::Failed(Failure::Malformed), "Protocol Violation"),
            (Close::Failed(Failure::TooLarge),  "Payload Too Large"),
            (Close::Failed(Failure::Revoked),   "Access Revoked"),
            (Close::Failed(Failure::Refused),   "Message Not Accepted"),
        ];
        for (close, words) in table {
            assert_eq!(reason(&close).text(), words);
        }
    }
}
