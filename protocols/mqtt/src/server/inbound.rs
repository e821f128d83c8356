//! What a client publishes (3.3), and when it is answered. The rest of QoS 2 is in [`super::once`].

use std::collections::VecDeque;

use moorline_core::{
    Message, QoS, Text, UnixMillis,
    port::{Published, Refusal, Token},
    topic,
};

use crate::{
    Now,
    codec::{Ack, AckProperties, Packet, PacketId, PacketType, Publish, Reason, put_ack},
};

use super::{
    CloseReason, Config, Connection, Event, Fate, Limit,
    close::{Ending, platform_reason, refusal_text},
    once::{Flows, Stage},
};

/// Publishes that the service has not answered, in the order they came.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    pending: VecDeque<Pending>,
    bytes: usize,
    /// Those of `pending` without a verdict.
    waiting: usize,
    /// QoS 2 publishes that are not complete.
    pub(super) flows: Flows,
    /// Topics by alias - 1; grows up to the topic alias maximum.
    aliases: Vec<Option<Text>>,
}

#[derive(Debug)]
struct Pending {
    token: Token,
    id: PacketId,
    answer: Answer,
    bytes: usize,
    /// The answer, once there is one; it waits here for those before it.
    verdict: Option<Verdict>,
}

/// How a publish is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// By a PUBACK.
    Ack,
    /// By a PUBREC.
    Received,
    /// By a PUBREC, of a publish that came again before its PUBREL.
    ReceivedAgain,
}

#[derive(Debug, Clone, Copy)]
struct Verdict {
    reason: Reason,
    why: Option<&'static str>,
}

impl Inbound {
    /// What waits for the service.
    pub(super) fn unanswered(&self) -> usize {
        self.pending.len() + self.flows.completing()
    }

    /// PUBRELs that wait for the service.
    pub(super) fn completing(&self) -> usize {
        self.flows.completing()
    }

    /// What counts for the Receive Maximum (4.9): from the PUBLISH to its PUBACK, PUBCOMP or PUBREC of a refusal.
    fn under_way(&self) -> usize {
        self.pending.len() + self.flows.received()
    }

    pub(super) fn unanswered_bytes(&self) -> usize {
        self.bytes
    }

    /// Publishes without an answer of the service.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Forgets everything: how many publishes the service had not answered.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(self).waiting
    }

    fn push(&mut self, pending: Pending) {
        self.bytes += pending.bytes;
        self.waiting += usize::from(pending.verdict.is_none());
        self.pending.push_back(pending);
    }

    fn find(&mut self, token: Token) -> Option<&mut Pending> {
        // Tokens only grow, so the queue is sorted by them. Answers mostly come in order.
        let at = self.pending.binary_search_by_key(&token, |pending| pending.token).ok()?;
        self.pending.get_mut(at)
    }

    /// The service has answered a publish, whose verdict is to be set now: how its client is told, and whether that is the
    /// first answer.
    fn answered(&mut self, token: Token) -> Option<(Answer, bool)> {
        let pending = self.find(token)?;
        let (answer, first) = (pending.answer, pending.verdict.is_none());
        self.waiting -= usize::from(first);
        Some((answer, first))
    }

    /// Takes the oldest publish if it was answered.
    fn pop_answered(&mut self) -> Option<(PacketId, Answer, Verdict)> {
        let front = self.pending.front()?;
        let answered = (front.id, front.answer, front.verdict?);
        self.bytes -= front.bytes;
        self.pending.pop_front();
        Some(answered)
    }

    fn set_alias(&mut self, alias: usize, topic: &Text) {
        if self.aliases.len() < alias {
            self.aliases.resize(alias, None);
        }
        // A copy: the topic shares its packet's buffer, which must not stay for as long as the alias.
        self.aliases[alias - 1] = Some(Text::from(topic.as_str()));
    }
}

impl Connection {
    pub(super) fn on_publish(&mut self, now: Now, mut publish: Publish) {
        self.counters.publishes_received[publish.qos as usize] += 1;
        let ends = objection(&publish, &self.config).or_else(|| self.resolve_alias(&mut publish));
        if let Some(ending) = ends {
            return self.break_off(now, publish.qos, &ending);
        }
        if let Some(id) = publish.id
            && !self.admit(now, &publish, id)
        {
            return;
        }
        let over = over_limit(publish.topic.as_bytes(), &self.config);
        over.into_iter().for_each(|limit| self.reached(limit));
        let acceptable = over.is_none();
        if !acceptable && (publish.id.is_none() || !self.peer.version.is_v5()) {
            self.counters.publishes_refused += 1;
            let why = "the topic has too many bytes or levels";
            let (closed, reason) = (CloseReason::TopicNotAccepted, Reason::TopicNameInvalid);
            return self.break_off(now, publish.qos, &Ending::of(closed, reason, why));
        }
        let token = self.take_token();
        let once = publish.id.filter(|_| publish.qos == QoS::ExactlyOnce);
        if let Some(id) = publish.id {
            let answer = if once.is_some() { Answer::Received } else { Answer::Ack };
            let refused = Verdict { reason: Reason::TopicNameInvalid, why: None };
            let verdict = (!acceptable).then_some(refused);
            self.inbound.push(Pending { token, id, answer, bytes: bytes_of(&publish), verdict });
        }
        if let Some(id) = once {
            self.inbound.flows.set(id, Stage::Publishing);
        }
        if acceptable {
            let message = message_of(publish, now.wall);
            self.events.push_back(match once {
                Some(packet) => Event::PublishOnce { token, packet, message },
                None => Event::Publish { token, message },
            });
        } else {
            self.counters.publishes_refused += 1;
            self.came_to(Fate::Topic);
            self.answer_publishes();
        }
    }

    /// Counts what became of a publish of QoS 1 or 2: once for each that was received.
    fn came_to(&mut self, fate: Fate) {
        self.counters.fates[fate as usize] += 1;
    }

    /// A publish breaks a rule, and the connection ends.
    fn break_off(&mut self, now: Now, qos: QoS, ending: &Ending) {
        if qos != QoS::AtMostOnce {
            self.came_to(Fate::Broken);
        }
        self.fail(now, ending);
    }

    /// Whether a publish of QoS 1 or 2 gets a place among those under way.
    fn admit(&mut self, now: Now, publish: &Publish, id: PacketId) -> bool {
        let repeated = match publish.qos {
            QoS::ExactlyOnce => self.inbound.flows.stage(id),
            // Sent again before its answer: that one answer is for both copies.
            QoS::AtMostOnce | QoS::AtLeastOnce => {
                let waits = |one: &Pending| one.id == id && one.answer == Answer::Ack;
                let again = publish.dup && self.inbound.pending.iter().any(waits);
                again.then_some(Stage::Publishing)
            }
        };
        match repeated {
            None => {}
            Some(Stage::Publishing) => {
                self.counters.publishes_repeated += 1;
                self.came_to(Fate::Repeated);
                return false;
            }
            Some(Stage::Received) => {
                self.receive_again(publish, id);
                return false;
            }
            Some(Stage::Completing | Stage::Asked) => {
                let ending = Ending::protocol("a packet id between PUBREL and PUBCOMP");
                self.break_off(now, publish.qos, &ending);
                return false;
            }
        }
        let under_way = match self.peer.version.is_v5() {
            true => self.inbound.under_way(),
            // These are not read from before it comes to that.
            false => self.inbound.pending.len(),
        };
        if under_way >= usize::from(self.config.receive_max.get()) {
            let (closed, reason) =
                (CloseReason::ReceiveMaximumExceeded, Reason::ReceiveMaximumExceeded);
            let ending = Ending::of(closed, reason, "too many unacknowledged publishes");
            self.break_off(now, publish.qos, &ending.by(Limit::ReceiveMax));
            return false;
        }
        true
    }

    /// A QoS 2 publish before its PUBREL: a PUBREC in its turn, and nothing else ([MQTT-4.3.3-10]).
    fn receive_again(&mut self, publish: &Publish, id: PacketId) {
        self.counters.publishes_repeated += 1;
        self.came_to(Fate::Repeated);
        let waits = |one: &Pending| one.id == id && one.answer == Answer::ReceivedAgain;
        if self.inbound.pending.iter().any(waits) {
            // That one answer is for both, so that repeats alone never fill the queue.
            return;
        }
        self.inbound.push(Pending {
            token: self.next_token,
            id,
            answer: Answer::ReceivedAgain,
            bytes: bytes_of(publish),
            verdict: Some(Verdict { reason: Reason::Success, why: None }),
        });
        self.next_token += 1;
        self.answer_publishes();
    }

    /// Finds or keeps the topic behind an alias (3.3.2.3.4). The alias goes no further.
    fn resolve_alias(&mut self, publish: &mut Publish) -> Option<Ending> {
        let alias = publish.alias.take()?.get();
        if alias > self.config.topic_alias_max {
            let (closed, reason) = (CloseReason::TopicAliasInvalid, Reason::TopicAliasInvalid);
            let ending = Ending::of(closed, reason, "the topic alias is above the maximum");
            return Some(ending.by(Limit::TopicAlias));
        }
        let alias = usize::from(alias);
        if !publish.topic.is_empty() {
            self.inbound.set_alias(alias, &publish.topic);
            return None;
        }
        match self.inbound.aliases.get(alias - 1).cloned().flatten() {
            Some(topic) => {
                publish.topic = topic;
                None
            }
            None => Some(Ending::protocol("the topic alias was never set")),
        }
    }

    pub(super) fn on_published(
        &mut self,
        now: Now,
        token: Token,
        outcome: Result<Published, Refusal>,
    ) {
        let v5 = self.peer.version.is_v5();
        if outcome == Err(Refusal::Quota) {
            self.reached(Limit::SessionQueue);
        }
        let Some((answer, first)) = self.inbound.answered(token) else { return };
        if first {
            self.came_to(Fate::of(outcome));
        }
        let verdict = match outcome {
            // Not of QoS 2: a repeat could not be told the same.
            Ok(Published { matched: false }) if v5 && answer == Answer::Ack => {
                Verdict { reason: Reason::NoMatchingSubscribers, why: None }
            }
            Ok(_) => Verdict { reason: Reason::Success, why: None },
            // A refusal can't be said before version 5, and closing the connection would stop everything else this client
            // has to say for as long as somebody stays away. The drop is counted where it happened.
            // Of a topic that it may not publish to the same: the client would send it again whenever it comes back, and never
            // get to what it may say (docs/decisions/022-topic-rights.md).
            Err(Refusal::Quota | Refusal::NotAuthorised) if !v5 => {
                Verdict { reason: Reason::Success, why: None }
            }
            Err(refusal) => {
                self.counters.publishes_refused += 1;
                let Some(reason) = answer_of(refusal).filter(|_| v5) else {
                    // 3.1.1 has no refusal but this, and an unknown outcome must not look like one: the client sends
                    // it again when it is back.
                    let text = refusal_text(refusal);
                    let (closed, reason) = (CloseReason::PublishRefused, Reason::ServerBusy);
                    return self.fail(now, &Ending::of(closed, reason, text));
                };
                Verdict { reason, why: Some(refusal_text(refusal)) }
            }
        };
        if let Some(pending) = self.inbound.find(token) {
            pending.verdict.get_or_insert(verdict);
        }
        self.answer_publishes();
    }

    /// Sends the PUBACKs and PUBRECs whose turn it is.
    fn answer_publishes(&mut self) {
        while let Some((id, answer, verdict)) = self.inbound.pop_answered() {
            match answer {
                Answer::Ack | Answer::ReceivedAgain => {}
                Answer::Received if verdict.reason.is_error() => self.inbound.flows.end(id),
                Answer::Received => self.inbound.flows.set(id, Stage::Received),
            }
            let again = answer == Answer::ReceivedAgain;
            self.counters.publishes_acked += u64::from(!verdict.reason.is_error() && !again);
            let kind = match answer {
                Answer::Ack => PacketType::PubAck,
                Answer::Received | Answer::ReceivedAgain => PacketType::PubRec,
            };
            let why = verdict.why.filter(|_| self.peer.wants_problems);
            if let Some(why) = why {
                let mut ack = Ack::new(id, verdict.reason);
                let reason_string = Some(Text::from(why));
                ack.properties = Some(Box::new(AckProperties { reason_string, user: Vec::new() }));
                let packet = match answer {
                    Answer::Ack => Packet::PubAck(ack),
                    Answer::Received | Answer::ReceivedAgain => Packet::PubRec(ack),
                };
                if self.try_send(&packet) {
                    continue;
                }
            }
            self.send_ack(kind, id, verdict.reason);
        }
    }

    /// Queues an acknowledgement without properties: at most five bytes, and the CONNACK that fitted had more.
    pub(super) fn send_ack(&mut self, kind: PacketType, id: PacketId, reason: Reason) {
        put_ack(kind, id, reason, self.peer.version, &mut self.control);
        self.counters.packets_sent += 1;
    }
}

/// Why this PUBLISH ends the connection, wherever it goes.
fn objection(publish: &Publish, config: &Config) -> Option<Ending> {
    let offered = &config.capabilities;
    let unsupported = |reason, why| Some(Ending::of(CloseReason::NotSupported, reason, why));
    if publish.qos > offered.qos_max {
        return unsupported(Reason::QoSNotSupported, "this QoS is not supported by this server");
    }
    if publish.retain && !offered.retain {
        let why = "retained messages are not supported by this server";
        return unsupported(Reason::RetainNotSupported, why);
    }
    // [MQTT-3.3.4-6] forbids a client even one. One does no harm and goes no further, and there are clients that send
    // it; two are what no client has a reason for.
    if publish.subscription_ids.len() > 1 {
        return Some(Ending::protocol("subscription identifiers from a client"));
    }
    None
}

/// The limit that a well-formed topic name or filter is over, if it is over one.
pub(super) fn over_limit(topic: &[u8], config: &Config) -> Option<Limit> {
    if topic.len() > config.topic_bytes_max {
        return Some(Limit::TopicBytes);
    }
    let levels = topic::levels(topic).take(config.topic_levels_max + 1).count();
    (levels > config.topic_levels_max).then_some(Limit::TopicLevels)
}

fn bytes_of(publish: &Publish) -> usize {
    publish.topic.len() + publish.properties.len() + publish.payload.len()
}

fn message_of(publish: Publish, wall: UnixMillis) -> Message {
    Message {
        topic: publish.topic,
        qos: publish.qos,
        retain: publish.retain,
        properties: publish.properties,
        expires_at: publish
            .expiry_s
            .map(|seconds| UnixMillis(wall.0.saturating_add(u64::from(seconds) * 1_000))),
        payload: publish.payload,
    }
}

/// The answer to a publish that certainly did not happen. `None` if nobody knows whether it did: an answer would end
/// the client's retries (4.4).
fn answer_of(refusal: Refusal) -> Option<Reason> {
    match refusal {
        Refusal::Busy | Refusal::Quota | Refusal::DiskFull | Refusal::TooLarge => {
            Some(Reason::QuotaExceeded)
        }
        Refusal::NotAuthorised => Some(Reason::NotAuthorized),
        Refusal::Topic => Some(Reason::TopicNameInvalid),
        Refusal::Payload => Some(Reason::PayloadFormatInvalid),
        Refusal::Platform(reason) => Some(platform_reason(reason)),
        Refusal::Unavailable => None,
    }
}
