//! QoS 2: what is asked of the publisher's and the subscriber's shards, step by step, and what live sessions have heard.
//!
//! ```text
//!   PUBLISH ─► Receive in the publisher's shard ─► a number ─► PublishOnce in each shard that wants it  ─► PUBREC
//!                                                          └─► LiveOnce to each node with live sessions ─┘
//!   PUBREL  ─► Complete ─► PUBCOMP                 PUBREC of a delivery ─► Release ─► PUBREL
//! ```
//!
//! # Invariants
//!
//! - **In order**: `Receive`s are answered in the order they were submitted, on one task at a time, and what they lead to
//!   is submitted there. What waits for the lease meanwhile keeps everything that comes after it waiting.
//! - **A refusal is said after the packet id is free**: the client may use it for something else at once.
//! - **A live session hears a number once**: what its process has heard lives as long as the session does. Checked by the
//!   tests below.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use moorline_core::{
    Message, Offset,
    port::{Notice, Refusal, Token},
};
use moorline_machine::{
    Answer, Command, Numbers,
    answer::Refused,
    command::{Origin, SessionId},
};
use moorline_router::{Done, SubmitError};

use crate::{
    conn::{Conn, Whose},
    parked::Parked,
    refusal_of,
    service::Inner,
};

/// Publishers whose QoS 2 publishes this node's live sessions remember, about 150 B each, and up to 8 KiB while one leaves a
/// publish open. Of one that was silent while so many others published, a repeat is heard again.
const HEARD_ORIGINS_MAX: usize = 65_536;

/// A QoS 2 publish under way.
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    pub(crate) conn: Arc<Conn>,
    pub(crate) token: Token,
    pub(crate) whose: Whose,
    pub(crate) packet: u16,
}

/// A QoS 2 publish that has its number.
#[derive(Debug)]
pub(crate) struct Numbered {
    pub(crate) flow: Flow,
    pub(crate) origin: Origin,
    pub(crate) message: Message,
}

/// What the service keeps for QoS 2.
#[derive(Debug, Default)]
pub(crate) struct Onces {
    /// What got its number while this node had no lease.
    parked: Mutex<Parked<Numbered>>,
    /// Whether there is any; changed under the lock of `parked` only.
    parking: AtomicBool,
    heard: Mutex<Heard>,
}

impl Onces {
    fn parked(&self) -> MutexGuard<'_, Parked<Numbered>> {
        self.parked.lock().expect("no panic while it is locked")
    }

    /// Whether live sessions of this process are to hear this.
    pub(crate) fn is_news(&self, origin: Origin) -> bool {
        self.heard.lock().expect("no panic while it is locked").is_news(origin)
    }
}

impl Flow {
    pub(crate) fn refuse(&self, refusal: Refusal) {
        self.conn.push(Notice::Published { token: self.token, outcome: Err(refusal) });
    }
}

impl Inner {
    pub(crate) fn publish_once(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        token: Token,
        packet: u16,
        message: Message,
    ) {
        let Some(whose) = conn.whose() else {
            let outcome = Err(Refusal::NotAuthorised);
            conn.push(Notice::Published { token, outcome });
            return;
        };
        let flow = Flow { conn: Arc::clone(conn), token, whose, packet };
        if !conn.may_publish(&message.topic) {
            self.metrics.rights.publishes.inc();
            // It may be the repeat of one that has its number: then that goes.
            return self.give_up(flow, Refusal::NotAuthorised);
        }
        if !self.accepting.load(Ordering::Acquire) {
            return flow.refuse(Refusal::DiskFull);
        }
        if !self.may_publish(whose.tenant, &message) {
            return flow.refuse(Refusal::Busy);
        }
        let Whose { shard, session, epoch, .. } = whose;
        let command = Command::Receive { session, epoch, packet };
        let service = Arc::clone(self);
        let done = move |outcome| service.received(flow, message, outcome);
        self.below().router.submit(shard, &command, Done::Call(Box::new(done)));
    }

    fn received(
        self: &Arc<Self>,
        flow: Flow,
        message: Message,
        outcome: Result<Answer, SubmitError>,
    ) {
        match outcome {
            Ok(Answer::Received { number, floor }) => {
                let origin = Origin { session: flow.whose.session, number, floor };
                self.publish_or_park(Numbered { flow, origin, message });
            }
            Ok(Answer::Refused(Refused::NotYours)) => {
                flow.conn.push(Notice::TakenOver);
            }
            // The packet id is free. It is this client's own doing: one that can't be refused is closed, and resumes with the
            // release that is missing.
            Ok(Answer::Refused(Refused::TooFarAhead)) => flow.refuse(Refusal::Busy),
            Ok(_) => flow.refuse(Refusal::Unavailable),
            Err(error) => flow.refuse(refusal_of(&error)),
        }
    }

    /// Routes are good only with a lease.
    fn publish_or_park(self: &Arc<Self>, numbered: Numbered) {
        let onces = &self.onces;
        let goes = || !onces.parking.load(Ordering::Acquire) && self.has_lease();
        if goes() {
            return self.publish_numbered(numbered);
        }
        let mut parked = onces.parked();
        if goes() {
            drop(parked);
            return self.publish_numbered(numbered);
        }
        onces.parking.store(true, Ordering::Release);
        let bytes = numbered.message.topic.len() + numbered.message.payload.len();
        if let Some(refused) = parked.push(Instant::now(), bytes, numbered) {
            drop(parked);
            refused.flow.refuse(Refusal::Unavailable);
        }
    }

    /// The lease is there. One task calls this: what it publishes is not locked, because answers may lead back here.
    pub(crate) fn unpark_onces(self: &Arc<Self>) {
        while self.onces.parking.load(Ordering::Acquire) {
            let next = {
                let mut parked = self.onces.parked();
                let next = parked.pop();
                if next.is_none() {
                    self.onces.parking.store(false, Ordering::Release);
                }
                next
            };
            if let Some(next) = next {
                self.publish_numbered(next);
            }
        }
    }

    /// What has waited too long for the lease is refused: the client asks again, under the same number.
    pub(crate) fn refuse_late_onces(&self) {
        let now = Instant::now();
        while let Some(late) = self.onces.parked().pop_late(now) {
            late.flow.refuse(Refusal::Unavailable);
        }
    }

    /// Nothing has become of a publish: its packet id is freed, then the client is told.
    pub(crate) fn give_up(&self, flow: Flow, refusal: Refusal) {
        let Whose { shard, session, epoch, .. } = flow.whose;
        let command = Command::Complete { session, epoch, packets: vec![flow.packet] };
        let done = move |outcome| match outcome {
            Ok(Answer::Completed { .. }) => flow.refuse(refusal),
            Ok(_) | Err(_) => flow.refuse(Refusal::Unavailable),
        };
        self.below().router.submit(shard, &command, Done::Call(Box::new(done)));
    }

    pub(crate) fn complete(&self, conn: &Arc<Conn>, packet: u16) {
        let Some(Whose { shard, session, epoch, .. }) = conn.whose() else {
            conn.push(Notice::Lost);
            return;
        };
        let command = Command::Complete { session, epoch, packets: vec![packet] };
        let conn = Arc::clone(conn);
        let done = move |outcome| {
            conn.push(match outcome {
                Ok(Answer::Completed { known }) => {
                    Notice::Completed { packet, known: known.contains(&true) }
                }
                Ok(Answer::Refused(Refused::NotYours)) => Notice::TakenOver,
                Ok(_) | Err(_) => Notice::Lost,
            });
        };
        self.below().router.submit(shard, &command, Done::Call(Box::new(done)));
    }

    pub(crate) fn release(&self, conn: &Arc<Conn>, offsets: Vec<Offset>) {
        let Some(Whose { shard, session, epoch, .. }) = conn.whose() else {
            conn.push(Notice::Lost);
            return;
        };
        let command = Command::Release { session, epoch: Some(epoch), offsets: offsets.clone() };
        let conn = Arc::clone(conn);
        let done = move |outcome: Result<Answer, SubmitError>| {
            // Without an answer the client has to come back: it is sent the message again, under the same packet id.
            // So it has if another connection has taken the session over: that one may have been sent it again already.
            conn.push(match outcome {
                Ok(Answer::Done) => Notice::Released(offsets),
                Ok(_) | Err(_) => Notice::Lost,
            });
        };
        self.below().router.submit(shard, &command, Done::Call(Box::new(done)));
    }
}

/// Which QoS 2 publishes the live sessions of this process have heard.
#[derive(Debug, Default)]
struct Heard {
    origins: HashMap<SessionId, OfPublisher>,
    /// The same by the time they were last heard of.
    by_turn: BTreeMap<u64, SessionId>,
    turn: u64,
}

/// What was heard of one publisher.
#[derive(Debug, Default)]
struct OfPublisher {
    numbers: Numbers,
    turn: u64,
}

impl Heard {
    fn is_news(&mut self, origin: Origin) -> bool {
        let Origin { session, number, floor } = origin;
        self.turn += 1;
        let heard = self.origins.entry(session).or_default();
        self.by_turn.remove(&heard.turn);
        heard.turn = self.turn;
        self.by_turn.insert(self.turn, session);
        heard.numbers.raise(floor);
        let news = heard.numbers.insert(number);
        if self.origins.len() > HEARD_ORIGINS_MAX
            && let Some((_, oldest)) = self.by_turn.pop_first()
        {
            self.origins.remove(&oldest);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(session: u64, number: u64, floor: u64) -> Origin {
        Origin { session: SessionId { bucket: 1, number: session }, number, floor }
    }

    #[test]
    fn a_number_is_news_once() {
        let mut heard = Heard::default();
        #[rustfmt::skip]
        let table = [
            (origin(1, 1, 1), true),
            (origin(1, 2, 1), true),
            (origin(1, 1, 1), false),
            (origin(2, 1, 1), true),  // another publisher
            (origin(1, 4, 3), true),
            (origin(1, 2, 1), false), // completed long ago: a straggler
            (origin(1, 3, 3), true),
            (origin(1, 4, 3), false),
        ];
        for (at, (origin, news)) in table.into_iter().enumerate() {
            assert_eq!(heard.is_news(origin), news, "{at}");
        }
    }

    #[test]
    fn the_publisher_that_was_silent_the_longest_is_forgotten() {
        let mut heard = Heard::default();
        for session in 0..=HEARD_ORIGINS_MAX as u64 {
            assert!(heard.is_news(origin(session, 1, 1)));
            assert!(session == 0 || !heard.is_news(origin(1, 1, 1)) || session == 1);
        }
        assert_eq!(
            (heard.origins.len(), heard.by_turn.len()),
            (HEARD_ORIGINS_MAX, HEARD_ORIGINS_MAX)
        );
        assert!(!heard.is_news(origin(1, 1, 1)), "it was heard of all the time");
        assert!(heard.is_news(origin(0, 1, 1)), "it was not");
    }
}
