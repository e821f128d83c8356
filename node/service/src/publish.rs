//! From a published message to everybody who may want it.
//!
//! QoS 1 goes through the log of every shard that holds a matching durable session, and is acknowledged by every node
//! with a matching live one; QoS 0 is handed to both as it passes by.

use std::{
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{
    Incarnation, Message, NodeId, QoS, ShardId, TenantId,
    port::{Notice, Published, Refusal, Token},
};
use moorline_group::wire::{CallError, Kind, Lane, PeerState};
use moorline_machine::{Answer, Command, answer::Refused, command::RouteTarget};
use moorline_router::{Answered, Done, SubmitError};

use crate::{
    conn::{Conn, published},
    expiry,
    frames::{self, Publisher},
    refusal_of,
    service::Inner,
};

/// How long a node with live sessions may take to accept a message, all repeats together. Longer than it takes until a
/// node that is cut off together with the meta leader is given up: an election, a lease, and `gone::ROUTES_KEPT`.
const LIVE_WAIT: Duration = Duration::from_secs(10);
/// How long until it is asked again after its connection broke.
const LIVE_PAUSE: Duration = Duration::from_millis(50);

/// A publish that waits for several answers.
struct Several {
    conn: Arc<Conn>,
    token: Token,
    tally: Mutex<Tally>,
}

impl Several {
    fn answered(&self, outcome: Result<Published, Refusal>) {
        self.answer(self.tally().add(outcome));
    }

    fn retained(&self, outcome: Result<(), Refusal>) {
        self.answer(self.tally().add_retained(outcome));
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no panic while it is locked")
    }

    fn answer(&self, all: Option<Result<Published, Refusal>>) {
        if let Some(outcome) = all {
            self.conn.push(Notice::Published { token: self.token, outcome });
        }
    }
}

/// What a shard's answer means to a publisher who asked it to keep a message.
fn retained(outcome: Result<Answer, SubmitError>) -> Result<(), Refusal> {
    match outcome {
        Ok(Answer::Done) => Ok(()),
        Ok(Answer::Refused(Refused::RetainedFull)) => Err(Refusal::Quota),
        Ok(_) => Err(Refusal::Unavailable),
        Err(error) => Err(refusal_of(&error)),
    }
}

/// What several answers come to.
#[derive(Debug)]
struct Tally {
    waiting: usize,
    accepted: bool,
    matched: bool,
    full: bool,
    /// The tenant's quota of retained messages is used up.
    not_retained: bool,
    refused: Option<Refusal>,
}

impl Tally {
    fn of(waiting: usize) -> Self {
        Self {
            waiting,
            accepted: false,
            matched: false,
            full: false,
            not_retained: false,
            refused: None,
        }
    }

    /// One more answer; what all of them come to when it was the last.
    fn add(&mut self, outcome: Result<Published, Refusal>) -> Option<Result<Published, Refusal>> {
        match outcome {
            Ok(Published { matched }) => {
                self.accepted = true;
                self.matched |= matched;
            }
            // Every queue there is full. That counts only if nobody elsewhere took it.
            Err(Refusal::Quota) => self.full = true,
            // What may have happened outweighs what certainly did not.
            Err(refusal) if self.refused.is_none() || refusal == Refusal::Unavailable => {
                self.refused = Some(refusal);
            }
            Err(_) => {}
        }
        self.one_less()
    }

    /// Whether the message is retained now.
    fn add_retained(&mut self, outcome: Result<(), Refusal>) -> Option<Result<Published, Refusal>> {
        match outcome {
            Ok(()) => self.accepted = true,
            Err(Refusal::Quota) => self.not_retained = true,
            Err(refusal) => return self.add(Err(refusal)),
        }
        self.one_less()
    }

    fn one_less(&mut self) -> Option<Result<Published, Refusal>> {
        self.waiting -= 1;
        if self.waiting > 0 {
            return None;
        }
        Some(match self.refused {
            // Some took it: saying that nothing happened would be untrue.
            Some(_) if self.accepted => Err(Refusal::Unavailable),
            Some(refusal) => Err(refusal),
            // Whoever is there has it, but later ones would not: the publisher should know.
            None if self.not_retained => Err(Refusal::Quota),
            None if self.full && !self.matched => Err(Refusal::Quota),
            None => Ok(Published { matched: self.matched }),
        })
    }
}

impl Inner {
    pub(crate) fn publish(self: &Arc<Self>, conn: &Arc<Conn>, token: Token, message: Message) {
        let answer = message.qos != QoS::AtMostOnce;
        let refuse = |refusal| {
            if answer {
                conn.push(Notice::Published { token, outcome: Err(refusal) });
            }
        };
        let Some(whose) = conn.whose() else {
            return refuse(Refusal::NotAuthorised);
        };
        if !self.accepting.load(Ordering::Acquire) {
            return refuse(Refusal::DiskFull);
        }
        let mut targets = Vec::new();
        self.below().groups.read(ShardId::META, |machine, _| {
            machine.meta().routes(whose.tenant, message.topic.as_bytes(), &mut targets);
        });
        if !answer {
            self.pass(whose.publisher(), &targets, &message);
            if message.retain {
                self.retain(whose.tenant, message, Done::Ignore);
            }
            return;
        }
        match targets[..] {
            _ if message.retain => {
                self.publish_to_several(conn, token, whose.publisher(), &targets, message);
            }
            [] => {
                let outcome = Ok(Published { matched: false });
                conn.push(Notice::Published { token, outcome });
            }
            [RouteTarget::Shard(shard)] => {
                let message = expiry::for_log(message, self.now());
                let Publisher { tenant, session: from } = whose.publisher();
                let command = Command::Publish { tenant, from, message };
                let conn: Arc<dyn Answered> = Arc::clone(conn) as _;
                self.below().router.submit(shard, &command, Done::Token(conn, token));
            }
            _ => self.publish_to_several(conn, token, whose.publisher(), &targets, message),
        }
    }

    fn publish_to_several(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        token: Token,
        publisher: Publisher,
        targets: &[RouteTarget],
        message: Message,
    ) {
        let several = Arc::new(Several {
            conn: Arc::clone(conn),
            token,
            tally: Mutex::new(Tally::of(targets.len() + usize::from(message.retain))),
        });
        if message.retain {
            let several = Arc::clone(&several);
            let done = move |outcome| several.retained(retained(outcome));
            self.retain(publisher.tenant, message.clone(), Done::Call(Box::new(done)));
        }
        let mut live: Option<Bytes> = None;
        let now = self.now();
        let Publisher { tenant, session: from } = publisher;
        let in_log = expiry::for_log(message.clone(), now);
        let command = Command::Publish { tenant, from, message: in_log };
        let message = Arc::new(frames::owned(&message));
        for target in targets {
            let several = Arc::clone(&several);
            match *target {
                RouteTarget::Shard(shard) => {
                    let done = move |outcome| several.answered(published(outcome));
                    self.below().router.submit(shard, &command, Done::Call(Box::new(done)));
                }
                RouteTarget::Node(node, incarnation) if node == self.node => {
                    let matched = incarnation == self.incarnation
                        && self.live.deliver(publisher, &message) > 0;
                    several.answered(Ok(Published { matched }));
                }
                RouteTarget::Node(node, incarnation) => {
                    let body =
                        live.get_or_insert_with(|| frames::encode_live(publisher, &message, now));
                    self.forward(
                        node,
                        incarnation,
                        body.clone(),
                        several,
                        Instant::now() + LIVE_WAIT,
                    );
                }
            }
        }
    }

    /// Has the shard of a message's topic keep it for later subscribers.
    fn retain(&self, tenant: TenantId, message: Message, done: Done) {
        let shard = self.shards.of(tenant, message.topic.as_bytes());
        let message = expiry::for_log(message, self.now());
        let command = Command::Retain { tenant, origin: None, message };
        self.below().router.submit(shard, &command, done);
    }

    /// Hands a message to a node's live sessions, and again if its connection breaks while it lives.
    fn forward(
        self: &Arc<Self>,
        node: NodeId,
        incarnation: Incarnation,
        body: Bytes,
        several: Arc<Several>,
        deadline: Instant,
    ) {
        let service = Arc::clone(self);
        let again = body.clone();
        let done = move |outcome: Result<Bytes, CallError>| match outcome {
            Ok(answer) => several.answered(Ok(Published { matched: answer.first() == Some(&1) })),
            Err(_) if service.is_dead(node, incarnation) => {
                // Its live sessions died with it, so nobody there wants it any more.
                several.answered(Ok(Published { matched: false }));
            }
            Err(_) if Instant::now() >= deadline => several.answered(Err(Refusal::Unavailable)),
            Err(_) => {
                let tasks = service.tasks.clone();
                tasks.spawn(async move {
                    tokio::time::sleep(LIVE_PAUSE).await;
                    service.forward(node, incarnation, again, several, deadline);
                });
            }
        };
        let meta = ShardId::META;
        self.below().peers.request(
            node,
            Lane::Data,
            Kind::LiveForward,
            meta,
            body,
            LIVE_WAIT,
            done,
        );
    }

    /// Whether that process of a node is certainly gone.
    pub(crate) fn is_dead(&self, node: NodeId, incarnation: Incarnation) -> bool {
        let states = self.below().peers.state();
        let state = states.borrow().get(node);
        match state {
            Some(PeerState::Up { incarnation: alive, .. }) => alive != incarnation,
            Some(PeerState::Down { refused: true }) => true,
            Some(PeerState::Down { refused: false } | PeerState::Suspect) => {
                self.is_known_gone(node, Some(incarnation))
            }
            // It left the cluster, or is this node itself.
            None => node != self.node || incarnation != self.incarnation,
        }
    }

    /// QoS 0: whoever is there now, and nobody is told if it does not arrive.
    pub(crate) fn pass(&self, publisher: Publisher, targets: &[RouteTarget], message: &Message) {
        if targets.is_empty() {
            return;
        }
        let (below, now) = (self.below(), self.now());
        let mut body: Option<Bytes> = None;
        let mut encoded =
            || body.get_or_insert_with(|| frames::encode_live(publisher, message, now)).clone();
        for target in targets {
            let sent = match *target {
                RouteTarget::Shard(shard) => {
                    below.router.tell_leader(shard, Kind::Passing, encoded()).is_ok()
                }
                RouteTarget::Node(node, _) if node == self.node => {
                    self.live.deliver(publisher, &Arc::new(frames::owned(message)));
                    true
                }
                RouteTarget::Node(node, _) => {
                    let meta = ShardId::META;
                    below.peers.send(node, Lane::Data, Kind::LiveForward, meta, encoded()).is_ok()
                }
            };
            if !sent {
                self.metrics.dropped_passing.inc();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_could_not_be_kept_is_told_of() {
        let matched = Ok(Published { matched: true });
        for (kept, expected) in [
            (Ok(()), matched),
            (Err(Refusal::Quota), Err(Refusal::Quota)),
            (Err(Refusal::Busy), Err(Refusal::Unavailable)),
        ] {
            for first in [false, true] {
                let mut tally = Tally::of(2);
                let ends = if first {
                    [tally.add_retained(kept), tally.add(matched)]
                } else {
                    [tally.add(matched), tally.add_retained(kept)]
                };
                assert_eq!(ends, [None, Some(expected)]);
            }
        }
    }

    #[test]
    fn several_answers_come_to_one() {
        const HIT: Result<Published, Refusal> = Ok(Published { matched: true });
        const MISS: Result<Published, Refusal> = Ok(Published { matched: false });
        const FULL: Result<Published, Refusal> = Err(Refusal::Quota);
        const BUSY: Result<Published, Refusal> = Err(Refusal::Busy);
        const UNKNOWN: Result<Published, Refusal> = Err(Refusal::Unavailable);
        #[rustfmt::skip]
        let table = [
            (vec![HIT, MISS],           HIT),
            (vec![MISS, MISS],          MISS),
            (vec![BUSY, BUSY],          BUSY),
            (vec![HIT, BUSY],           UNKNOWN),
            (vec![BUSY, UNKNOWN],       UNKNOWN),
            (vec![FULL, HIT],           HIT),
            (vec![FULL, MISS],          FULL), // a node whose live sessions are gone took nothing
            (vec![FULL, FULL],          FULL),
            (vec![FULL, UNKNOWN],       UNKNOWN),
        ];
        for (answers, expected) in table {
            for turn in [false, true] {
                let mut answers = answers.clone();
                if turn {
                    answers.reverse();
                }
                let mut tally = Tally::of(answers.len());
                let ends: Vec<_> = answers.iter().filter_map(|answer| tally.add(*answer)).collect();
                assert_eq!(ends, [expected], "{answers:?}");
            }
        }
    }
}
