//! The history sorted out: who published what with which outcome, who was given what and when.
//!
//! Building it judges nothing but the harness itself: an answer without a question, or a publisher that did not keep
//! its own order, is a [`Model::problems`] entry and makes a run inconclusive, never passed.

use std::collections::BTreeMap;

use crate::filter;
use crate::history::{Event, Fault, Leave, MessageId, Op, Phase, Stage};

/// How one attempt to publish came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Acknowledged.
    Acked,
    /// Refused, without effect.
    Refused,
    /// Unknown.
    Unknown,
}

/// One attempt to publish a message.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// On which connection.
    pub conn: u64,
    /// To which node.
    pub node: Option<u32>,
    /// Number of the `invoke` event.
    pub invoked: u64,
    /// The outcome.
    pub answer: Answer,
}

/// A message somebody tried to publish.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// Where to.
    pub topic: String,
    /// Whether with QoS 2.
    pub once: bool,
    /// The attempts, in order.
    pub attempts: Vec<Attempt>,
}

impl Published {
    /// Whether some attempt was acknowledged.
    pub fn acked(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.answer == Answer::Acked)
    }
}

/// A PUBLISH a subscriber got.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Number of the event.
    pub at: u64,
    /// On which connection.
    pub conn: u64,
    /// Which message; none if the payload is damaged beyond naming it.
    pub message: Option<MessageId>,
    /// The topic on the packet.
    pub topic: String,
    /// Whether payload and topic belong together and the checksum holds.
    pub intact: bool,
    /// Whether with QoS 2.
    pub once: bool,
    /// When the subscriber acknowledged it, in nanoseconds.
    pub acked_ns: Option<u64>,
}

/// A connection of a client.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Its number.
    pub conn: u64,
    /// The node at the other end.
    pub node: Option<u32>,
    /// Whether the client asked for a new session.
    pub clean: bool,
    /// Whether the node had the session.
    pub present: bool,
    /// When the CONNACK came, as event number and nanoseconds.
    pub opened: (u64, u64),
    /// When it ended and why, if it did.
    pub closed: Option<(u64, Leave)>,
}

/// What is known of one client.
#[derive(Debug, Clone, Default)]
pub struct Client {
    /// Filters it holds, with the number of the first SUBACK event that granted them.
    pub filters: BTreeMap<String, u64>,
    /// Its connections that got a CONNACK, in order.
    pub connections: Vec<Connection>,
    /// What it was given, in order.
    pub deliveries: Vec<Delivery>,
}

impl Client {
    /// Number of the first SUBACK event that made `topic` this client's business.
    pub fn subscribed(&self, topic: &str) -> Option<u64> {
        self.filters
            .iter()
            .filter(|(filter, _)| filter::matches(filter, topic))
            .map(|(_, &granted)| granted)
            .min()
    }
}

/// A digest one replica reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Which node.
    pub node: Option<u32>,
    /// The digest, hex.
    pub digest: String,
}

/// The history sorted out.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Messages by id.
    pub published: BTreeMap<MessageId, Published>,
    /// Clients by id.
    pub clients: BTreeMap<String, Client>,
    /// Digests by shard and index.
    pub digests: BTreeMap<(u32, u64), Vec<Digest>>,
    /// How many faults of each kind were installed.
    pub faults: BTreeMap<Fault, u64>,
    /// How many faults were skipped or of unknown effect.
    pub faults_missed: u64,
    /// The stages reached, in order.
    pub stages: Vec<Stage>,
    /// What the harness did wrong.
    pub problems: Vec<String>,
    /// Last sequence each connection tried, to check the harness's own order.
    last_tried: BTreeMap<(u64, u32), u64>,
    /// Deliveries not yet acknowledged: connection and packet id to the place in the client's deliveries.
    unacked: BTreeMap<(u64, u16), usize>,
}

impl Model {
    /// Sorts a history out.
    pub fn of(events: &[Event]) -> Self {
        let mut model = Self::default();
        for event in events {
            model.take(event);
        }
        model
    }

    fn take(&mut self, event: &Event) {
        match &event.op {
            Op::Connect { conn, clean, present, .. } => {
                if event.ph == Phase::Ok {
                    self.client(event).connections.push(Connection {
                        conn: *conn,
                        node: event.node,
                        clean: *clean,
                        present: *present,
                        opened: (event.i, event.ns),
                        closed: None,
                    });
                }
            }
            Op::Leave { conn, why } => {
                let found = self.client(event).connections.iter_mut().rev();
                for connection in found.filter(|connection| connection.conn == *conn) {
                    connection.closed.get_or_insert((event.ns, *why));
                }
            }
            Op::Subscribe { filters, .. } => {
                if event.ph == Phase::Ok {
                    for filter in filters {
                        self.client(event).filters.entry(filter.clone()).or_insert(event.i);
                    }
                }
            }
            Op::Publish { conn, message, topic, once } => {
                self.publish(event, *conn, *message, topic);
                self.published.entry(*message).or_default().once |= *once;
            }
            Op::Deliver { conn, message, topic, packet, intact, once, .. } => {
                let delivery = Delivery {
                    at: event.i,
                    conn: *conn,
                    message: *message,
                    topic: topic.clone(),
                    intact: *intact,
                    once: *once,
                    acked_ns: None,
                };
                let client = self.client(event);
                client.deliveries.push(delivery);
                let place = client.deliveries.len() - 1;
                self.unacked.insert((*conn, *packet), place);
            }
            Op::Ack { conn, packet } => match self.unacked.remove(&(*conn, *packet)) {
                Some(place) => self.client(event).deliveries[place].acked_ns = Some(event.ns),
                None => self.problem(event, "acknowledged a packet that was not delivered"),
            },
            Op::Fault { fault, .. } => match event.ph {
                Phase::Ok => *self.faults.entry(*fault).or_default() += 1,
                Phase::Fail | Phase::Info => self.faults_missed += 1,
                Phase::Invoke => {}
            },
            Op::Digest { shard, index, digest } => {
                let digest = Digest { node: event.node, digest: digest.clone() };
                self.digests.entry((*shard, *index)).or_default().push(digest);
            }
            Op::Mark { stage } => self.stages.push(*stage),
            // Sorted out by `requests` and by the check of coverage.
            Op::Record { .. }
            | Op::Mail { .. }
            | Op::Revoke { .. }
            | Op::Log { .. }
            | Op::Leads { .. }
            | Op::Snapshots { .. }
            | Op::Load(_) => {}
        }
    }

    fn publish(&mut self, event: &Event, conn: u64, message: MessageId, topic: &str) {
        let answer = match event.ph {
            Phase::Invoke => return self.attempt(event, conn, message, topic),
            Phase::Ok => Answer::Acked,
            Phase::Fail => Answer::Refused,
            Phase::Info => Answer::Unknown,
        };
        let published = self.published.entry(message).or_default();
        match published.attempts.iter_mut().rev().find(|attempt| attempt.conn == conn) {
            Some(attempt) => attempt.answer = answer,
            None => self.problem(event, "an answer without a question"),
        }
    }

    fn attempt(&mut self, event: &Event, conn: u64, message: MessageId, topic: &str) {
        let last = self.last_tried.insert((conn, message.publisher), message.seq).unwrap_or(0);
        if last >= message.seq {
            self.problem(event, "a publisher broke its own order on one connection");
        }
        let published = self.published.entry(message).or_default();
        if published.attempts.is_empty() {
            topic.clone_into(&mut published.topic);
        }
        let attempt = Attempt { conn, node: event.node, invoked: event.i, answer: Answer::Unknown };
        published.attempts.push(attempt);
        if published.topic != topic {
            self.problem(event, "one message went to two topics");
        }
    }

    fn client(&mut self, event: &Event) -> &mut Client {
        self.clients.entry(event.p.clone()).or_default()
    }

    fn problem(&mut self, event: &Event, what: &str) {
        self.problems.push(format!("event {}: {}: {what}", event.i, event.p));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planted::Story;

    #[test]
    fn an_attempt_without_an_answer_is_unknown() {
        let mut story = Story::new();
        story.connect("p0", 1, 1);
        story.publish(Phase::Invoke, 1, 1);
        let model = Model::of(&story.events);
        let published = &model.published[&MessageId { publisher: 0, seq: 1 }];
        assert_eq!(published.attempts[0].answer, Answer::Unknown);
        assert!(!published.acked());
        assert!(model.problems.is_empty());
    }

    #[test]
    fn a_harness_that_contradicts_itself_is_noticed() {
        let mut story = Story::new();
        story.connect("p0", 1, 1);
        story.publish(Phase::Ok, 1, 1);
        story.publish(Phase::Invoke, 1, 3);
        story.publish(Phase::Invoke, 1, 2);
        story.ack("s0", 2, 9);
        assert_eq!(Model::of(&story.events).problems.len(), 3);
    }
}
