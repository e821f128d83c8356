//! From a published message to everybody who may want it.
//!
//! QoS 1 goes through the log of every shard that holds a matching durable session, and is acknowledged by every node
//! with a matching live one; QoS 2 as well, with a number by which both know a repeat ([`crate::once`]); QoS 0 is handed
//! to both as it passes by.

use std::{
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{
    Incarnation, Message, NodeId, QoS, ShardId, TenantId,
    port::{Notice, Published, Refusal, Token},
};
use moorline_explain::{Became, Cause, Place, Route};
use moorline_group::wire::{CallError, Kind, Lane, PeerState};
use moorline_machine::{
    Answer, Command,
    answer::Refused,
    command::{Origin, RouteTarget},
    registry::Owner,
};
use moorline_router::{Answered, At, Done, SubmitError};

use crate::{
    conn::{Conn, became_of, published, route_to},
    direct::Direct,
    expiry,
    frames::{self, Publisher},
    once::{Flow, Numbered},
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
    waits: Waits,
    tally: Mutex<Tally>,
}

/// Who waits for the answer to a publish.
pub(crate) enum Waits {
    /// Of QoS 1.
    AtLeastOnce(Arc<Conn>, Token),
    /// Of QoS 2.
    ExactlyOnce(Arc<Inner>, Flow),
    /// Of QoS 1, by no session.
    Direct(Direct),
}

impl Several {
    fn answered(&self, outcome: Result<Published, Refusal>) {
        self.answer(self.tally().add(outcome));
    }

    /// A shard answered.
    fn placed(&self, outcome: &Result<Answer, SubmitError>, at: At) {
        self.waits.routed(|| route_to(at, outcome));
        self.answered(published(outcome));
    }

    /// A node answered, for its live sessions.
    fn heard(&self, node: NodeId, outcome: Result<Published, Refusal>) {
        self.waits.routed(|| Route::to(Place::Node(node.0), became_of(outcome)));
        self.answered(outcome);
    }

    fn retained(&self, outcome: Result<Answer, SubmitError>, at: At) {
        let outcome = retained(outcome);
        self.waits.routed(|| kept(at, outcome));
        self.answer(self.tally().add_retained(outcome));
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no panic while it is locked")
    }

    fn answer(&self, all: Option<Result<Published, Refusal>>) {
        if let Some(outcome) = all {
            self.waits.tell(outcome);
        }
    }
}

/// The same to who asks where a message went.
fn kept(at: At, outcome: Result<(), Refusal>) -> Route {
    let became = match outcome {
        Ok(()) => Became::Done,
        Err(Refusal::Quota) => Became::Refused(Cause::RetainedFull),
        Err(refusal) => Became::Refused(Cause::of_publish(refusal)),
    };
    let index = (at.index > 0).then_some(at.index);
    Route { index, ..Route::to(Place::Kept(at.shard.0), became) }
}

/// What a shard's answer means to a publisher who asked it to keep a message.
fn retained(outcome: Result<Answer, SubmitError>) -> Result<(), Refusal> {
    match outcome {
        // To a repeat of QoS 2 as to a publish.
        Ok(Answer::Done | Answer::Published { .. }) => Ok(()),
        Ok(Answer::Refused(Refused::RetainedFull)) => Err(Refusal::Quota),
        Ok(_) => Err(Refusal::Unavailable),
        Err(error) => Err(refusal_of(&error)),
    }
}

impl Waits {
    /// It went somewhere.
    fn routed(&self, route: impl FnOnce() -> Route) {
        match self {
            Self::AtLeastOnce(conn, token) | Self::ExactlyOnce(_, Flow { conn, token, .. }) => {
                conn.note_route(*token, route);
            }
            // It has no session; its platform notes it as an event.
            Self::Direct(_) => {}
        }
    }

    fn tell(&self, outcome: Result<Published, Refusal>) {
        match (self, outcome) {
            // Certainly nothing happened, so the packet id may be used for something else.
            (Self::ExactlyOnce(service, flow), Err(refusal)) if refusal != Refusal::Unavailable => {
                service.give_up(flow.clone(), refusal);
            }
            (
                Self::ExactlyOnce(_, Flow { conn, token, .. }) | Self::AtLeastOnce(conn, token),
                _,
            ) => {
                conn.push(Notice::Published { token: *token, outcome });
            }
            (Self::Direct(direct), _) => direct.tell(outcome),
        }
    }
}

/// What is published, and to whom.
struct Publication<'a> {
    publisher: Publisher,
    targets: &'a [RouteTarget],
    message: Message,
    /// Of QoS 2.
    origin: Option<Origin>,
    /// The device that publishes it.
    owner: Option<Owner>,
}

/// A message for the live sessions of a node.
struct Forward {
    node: NodeId,
    incarnation: Incarnation,
    kind: Kind,
    body: Bytes,
    deadline: Instant,
}

/// What several answers come to.
#[derive(Debug)]
struct Tally {
    waiting: usize,
    accepted: bool,
    matched: bool,
    full: bool,
    /// The message is kept for later subscribers.
    retained: bool,
    /// The tenant's quota of retained messages is used up.
    not_retained: bool,
    refused: Option<Refusal>,
    /// A refusal gives the packet id back (QoS 2): what comes again under it is heard by all who heard it before.
    once: bool,
}

impl Tally {
    fn of(waiting: usize, once: bool) -> Self {
        Self {
            waiting,
            accepted: false,
            matched: false,
            full: false,
            retained: false,
            not_retained: false,
            refused: None,
            once,
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
            Ok(()) => (self.accepted, self.retained) = (true, true),
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
            // The metric of what was not kept, or not queued, tells of the rest.
            None if self.once && (self.matched || self.retained) => {
                Ok(Published { matched: self.matched })
            }
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
            } else {
                conn.note_passed(token, Became::Dropped(Cause::of_publish(refusal)));
            }
        };
        let Some(whose) = conn.whose() else {
            return refuse(Refusal::NotAuthorised);
        };
        if !conn.may_publish(&message.topic) {
            self.metrics.rights.publishes.inc();
            return refuse(Refusal::NotAuthorised);
        }
        if !self.accepting.load(Ordering::Acquire) {
            if !answer {
                self.metrics.dropped_disk_full.inc();
            }
            return refuse(Refusal::DiskFull);
        }
        if !self.may_publish(whose.tenant, &message) {
            return refuse(Refusal::Busy);
        }
        let targets = self.targets(whose.tenant, &message);
        if !answer {
            self.pass_and_note(conn, (token, whose.publisher()), &targets, &message);
            if message.retain {
                let owner = conn.owner(whose.tenant);
                self.retain(whose.tenant, owner, None, message, Done::Ignore);
            }
            return;
        }
        match targets[..] {
            [] if !message.retain => {
                let outcome = Ok(Published { matched: false });
                conn.push(Notice::Published { token, outcome });
            }
            [RouteTarget::Shard(shard)] if !message.retain => {
                let message = expiry::for_log(message, self.now());
                let Publisher { tenant, session: from } = whose.publisher();
                let command = Command::Publish { tenant, from, message };
                let conn: Arc<dyn Answered> = Arc::clone(conn) as _;
                self.below().router.submit(shard, &command, Done::Token(conn, token));
            }
            _ => {
                let waits = Waits::AtLeastOnce(Arc::clone(conn), token);
                let (publisher, targets) = (whose.publisher(), &targets[..]);
                let owner = conn.owner(whose.tenant).filter(|_| message.retain);
                let publication = Publication { publisher, targets, message, origin: None, owner };
                self.publish_to_several(waits, publication);
            }
        }
    }

    /// A publish of QoS 1 by no session goes to everybody who wants it.
    pub(crate) fn publish_to_all(
        self: &Arc<Self>,
        publisher: Publisher,
        message: Message,
        waits: Waits,
    ) {
        let targets = &self.targets(publisher.tenant, &message)[..];
        if targets.is_empty() {
            return waits.tell(Ok(Published { matched: false }));
        }
        let publication = Publication { publisher, targets, message, origin: None, owner: None };
        self.publish_to_several(waits, publication);
    }

    /// A publish of QoS 2 that has its number goes to everybody who wants it.
    pub(crate) fn publish_numbered(self: &Arc<Self>, numbered: Numbered) {
        let Numbered { flow, origin, message } = numbered;
        // It may have waited for its number, or for the lease.
        if !flow.conn.may_publish(&message.topic) {
            self.metrics.rights.publishes.inc();
            return self.give_up(flow, Refusal::NotAuthorised);
        }
        let publisher = flow.whose.publisher();
        let targets = &self.targets(publisher.tenant, &message)[..];
        let owner = flow.conn.owner(publisher.tenant).filter(|_| message.retain);
        let waits = Waits::ExactlyOnce(Arc::clone(self), flow);
        if targets.is_empty() && !message.retain {
            return waits.tell(Ok(Published { matched: false }));
        }
        let origin = Some(origin);
        let publication = Publication { publisher, targets, message, origin, owner };
        self.publish_to_several(waits, publication);
    }

    /// Where a message has to go.
    pub(crate) fn targets(&self, tenant: TenantId, message: &Message) -> Vec<RouteTarget> {
        let mut targets = Vec::new();
        self.below().groups.read(ShardId::META, |machine, _| {
            machine.meta().routes(tenant, message.topic.as_bytes(), &mut targets);
        });
        // Who subscribed here a moment ago hears it too, although only a SUBACK promises that: its client may have seen
        // that publisher's answer to something later.
        let own = self.own_target();
        if !targets.contains(&own) && self.live.wants_early(tenant, message.topic.as_bytes()) {
            targets.push(own);
        }
        targets
    }

    fn publish_to_several(self: &Arc<Self>, waits: Waits, publication: Publication<'_>) {
        let Publication { publisher, targets, message, origin, owner } = publication;
        let waiting = targets.len() + usize::from(message.retain);
        let tally = Mutex::new(Tally::of(waiting, origin.is_some()));
        let several = Arc::new(Several { waits, tally });
        if message.retain {
            let several = Arc::clone(&several);
            let done = move |outcome, at| several.retained(outcome, at);
            let done = Done::Placed(Box::new(done));
            self.retain(publisher.tenant, owner, origin, message.clone(), done);
        }
        let mut live: Option<Bytes> = None;
        let now = self.now();
        let Publisher { tenant, session: from } = publisher;
        let for_log = expiry::for_log(message.clone(), now);
        let command = match origin {
            Some(origin) => Command::PublishOnce { tenant, origin, message: for_log },
            None => Command::Publish { tenant, from, message: for_log },
        };
        let message = Arc::new(frames::owned(&message));
        for target in targets {
            let several = Arc::clone(&several);
            match *target {
                RouteTarget::Shard(shard) => {
                    let done = move |outcome, at| several.placed(&outcome, at);
                    self.below().router.submit(shard, &command, Done::Placed(Box::new(done)));
                }
                RouteTarget::Node(node, incarnation) if node == self.node => {
                    let matched = incarnation == self.incarnation
                        && match origin {
                            Some(origin) => self.deliver_once(tenant, origin, &message),
                            None => self.live.deliver(publisher, &message) > 0,
                        };
                    several.heard(node, Ok(Published { matched }));
                }
                RouteTarget::Node(node, incarnation) => {
                    let body = live.get_or_insert_with(|| match origin {
                        Some(origin) => frames::encode_live_once(tenant, origin, &message, now),
                        None => frames::encode_live(publisher, &message, now),
                    });
                    let kind = match origin {
                        Some(_) => Kind::LiveOnce,
                        None => Kind::LiveForward,
                    };
                    let deadline = Instant::now() + LIVE_WAIT;
                    let forward = Forward { node, incarnation, kind, body: body.clone(), deadline };
                    self.forward(forward, several);
                }
            }
        }
    }

    /// Has the shard of a message's topic keep it for later subscribers.
    fn retain(
        &self,
        tenant: TenantId,
        owner: Option<Owner>,
        origin: Option<Origin>,
        message: Message,
        done: Done,
    ) {
        let shard = self.shards.of(tenant, message.topic.as_bytes());
        let message = expiry::for_log(message, self.now());
        let command = Command::Retain { tenant, owner, origin, message };
        self.below().router.submit(shard, &command, done);
    }

    /// Hands a message to the live sessions here, if they have not heard it. Whether anybody wants it.
    pub(crate) fn deliver_once(
        &self,
        tenant: TenantId,
        origin: Origin,
        message: &Arc<Message>,
    ) -> bool {
        // Who heard it before is not kept: it is taken for somebody, as in a shard.
        let publisher = Publisher { tenant, session: Some(origin.session) };
        !self.onces.is_news(origin) || self.live.deliver(publisher, message) > 0
    }

    /// Hands a message to a node's live sessions, and again if its connection breaks while it lives.
    fn forward(self: &Arc<Self>, forward: Forward, several: Arc<Several>) {
        let service = Arc::clone(self);
        let Forward { node, incarnation, kind, ref body, deadline } = forward;
        let body = body.clone();
        let done = move |outcome: Result<Bytes, CallError>| match outcome {
            Ok(answer) => {
                several.heard(node, Ok(Published { matched: answer.first() == Some(&1) }));
            }
            Err(_) if service.is_dead(node, incarnation) => {
                // Its live sessions died with it, so nobody there wants it any more.
                several.heard(node, Ok(Published { matched: false }));
            }
            Err(_) if Instant::now() >= deadline => {
                several.heard(node, Err(Refusal::Unavailable));
            }
            Err(_) => {
                let tasks = service.tasks.clone();
                tasks.spawn(async move {
                    tokio::time::sleep(LIVE_PAUSE).await;
                    service.forward(forward, several);
                });
            }
        };
        let meta = ShardId::META;
        self.below().peers.request(node, Lane::Data, kind, meta, body, LIVE_WAIT, done);
    }

    /// Whether that process of a node is certainly gone.
    pub(crate) fn is_dead(&self, node: NodeId, incarnation: Incarnation) -> bool {
        let states = self.below().peers.state();
        let state = states.borrow().get(node);
        match state {
            Some(PeerState::Up { incarnation: alive, .. }) => alive != incarnation,
            // A port that refuses may be a firewall's doing: what the cluster says counts.
            Some(PeerState::Down { .. } | PeerState::Suspect) => {
                self.is_known_gone(node, incarnation)
            }
            // It left the cluster, or is this node itself.
            None => node != self.node || incarnation != self.incarnation,
        }
    }

    /// QoS 0: whoever is there now, and nobody is told if it does not arrive.
    pub(crate) fn pass(&self, publisher: Publisher, targets: &[RouteTarget], message: &Message) {
        self.pass_telling(publisher, targets, message, |_, _| {});
    }

    /// The same, for who is asked later where it went.
    fn pass_and_note(
        &self,
        conn: &Conn,
        (token, publisher): (Token, Publisher),
        targets: &[RouteTarget],
        message: &Message,
    ) {
        if targets.is_empty() && !message.retain {
            conn.note_passed(token, Became::DoneBut(Cause::NobodyListens));
        }
        self.pass_telling(publisher, targets, message, |target, sent| {
            conn.note_route(token, || {
                let place = match *target {
                    RouteTarget::Shard(shard) => Place::Shard(shard.0),
                    RouteTarget::Node(node, _) => Place::Node(node.0),
                };
                let lost = Became::Dropped(Cause::NotHandedOn);
                Route::to(place, if sent { Became::Done } else { lost })
            });
        });
    }

    fn pass_telling(
        &self,
        publisher: Publisher,
        targets: &[RouteTarget],
        message: &Message,
        tell: impl Fn(&RouteTarget, bool),
    ) {
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
            tell(target, sent);
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
                let mut tally = Tally::of(2, false);
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
    fn a_packet_id_that_some_took_is_not_given_back() {
        const HIT: Result<Published, Refusal> = Ok(Published { matched: true });
        const MISS: Result<Published, Refusal> = Ok(Published { matched: false });
        const FULL: Result<Published, Refusal> = Err(Refusal::Quota);
        const KEPT: Result<(), Refusal> = Ok(());
        const NOT_KEPT: Result<(), Refusal> = Err(Refusal::Quota);
        for (kept, answer, expected) in [
            (NOT_KEPT, HIT, HIT),
            (KEPT, FULL, MISS),
            (NOT_KEPT, MISS, FULL),
            (NOT_KEPT, FULL, FULL),
            (KEPT, HIT, HIT),
        ] {
            let mut tally = Tally::of(2, true);
            let ends = [tally.add_retained(kept), tally.add(answer)];
            assert_eq!(ends, [None, Some(expected)], "{kept:?} {answer:?}");
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
                let mut tally = Tally::of(answers.len(), false);
                let ends: Vec<_> = answers.iter().filter_map(|answer| tally.add(*answer)).collect();
                assert_eq!(ends, [expected], "{answers:?}");
            }
        }
    }
}
