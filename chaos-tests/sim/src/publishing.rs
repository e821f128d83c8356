//! Clients that publish: a few messages at a time, each to every shard, again after a broken connection until all have
//! answered.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use moorline_core::{Message, QoS, TenantId};
use moorline_machine::{Answer, Command};

use crate::{
    Violation,
    checks::Copy,
    router::Purpose,
    world::{Phase, World},
};

pub(crate) const TENANT: TenantId = TenantId(1);
/// Messages that wait for their acknowledgement at most: a client's window.
const WINDOW_MESSAGES: usize = 4;

#[derive(Debug)]
pub(crate) struct Publisher {
    /// The node it is connected to, and that node's process then.
    at: Option<(usize, u64)>,
    /// Counts connections: what an earlier one waited for is of no interest.
    link: u64,
    number: u64,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    attempts: u64,
    padding: usize,
    /// Shards that have not answered.
    shards: BTreeSet<usize>,
}

impl Publisher {
    pub(crate) fn new() -> Self {
        Self { at: None, link: 0, number: 0, waiting: VecDeque::new() }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl World {
    pub(crate) fn publisher_acts(&mut self) {
        let n = self.random.index(self.publishers.len());
        let connected = self.publishers[n].at.filter(|&(node, incarnation)| {
            self.nodes[node].alive && self.nodes[node].incarnation == incarnation
        });
        if connected.is_none() || (self.phase == Phase::Chaos && self.random.chance(10)) {
            self.publisher_connects(n);
            return;
        }
        let publisher = &mut self.publishers[n];
        if self.phase != Phase::Chaos || publisher.waiting.len() == WINDOW_MESSAGES {
            return;
        }
        publisher.number += 1;
        let number = publisher.number;
        // Around the size from which queues share a message.
        let padding = self.random.index(250);
        let shards = BTreeSet::new();
        publisher.waiting.push_back(Waiting { number, attempts: 0, padding, shards });
        self.checks.loss.sent(n, number, self.step);
        let last = self.publishers[n].waiting.len() - 1;
        self.attempt(n, last);
    }

    /// A new connection: everything unacknowledged is sent again, in order.
    fn publisher_connects(&mut self, n: usize) {
        let Some(node) = self.any_alive() else { return };
        let publisher = &mut self.publishers[n];
        publisher.at = Some((node, self.nodes[node].incarnation));
        publisher.link += 1;
        for at in 0..self.publishers[n].waiting.len() {
            let number = self.publishers[n].waiting[at].number;
            self.checks.order.repeated(n, number);
            self.attempt(n, at);
        }
    }

    fn attempt(&mut self, n: usize, at: usize) {
        let publisher = &mut self.publishers[n];
        let link = publisher.link;
        let (node, _) = publisher.at.expect("only a connected client sends");
        let waiting = &mut publisher.waiting[at];
        waiting.attempts += 1;
        waiting.shards = (1..=self.options.shards).collect();
        let number = waiting.number;
        let copy = Copy { publisher: n, number, attempt: waiting.attempts };
        let message = Message {
            topic: topic(n).as_str().into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Bytes::new(),
            expires_at: None,
            payload: copy.payload(waiting.padding).into(),
        };
        for shard in 1..=self.options.shards {
            let command = Command::Publish { tenant: TENANT, from: None, message: message.clone() };
            self.submit(node, shard, command, Purpose::Publish { publisher: n, link, number });
        }
    }

    pub(crate) fn published(
        &mut self,
        n: usize,
        link: u64,
        number: u64,
        group: usize,
        answer: Option<Answer>,
    ) -> Result<(), Violation> {
        let publisher = &mut self.publishers[n];
        if publisher.link != link {
            return Ok(());
        }
        match answer {
            Some(Answer::Published { .. }) => {}
            // Unknown: the node closes the connection, and the client comes again.
            None => {
                publisher.at = None;
                return Ok(());
            }
            Some(other) => {
                let what = format!("a publish was answered {other:?}");
                return Err(Violation { invariant: "answers", what });
            }
        }
        let Some(at) = publisher.waiting.iter().position(|waiting| waiting.number == number) else {
            return Ok(());
        };
        let waiting = &mut publisher.waiting[at];
        waiting.shards.remove(&group);
        if waiting.shards.is_empty() {
            publisher.waiting.remove(at);
            self.checks.loss.acknowledged(n, number);
        }
        Ok(())
    }
}

pub(crate) fn topic(publisher: usize) -> String {
    format!("p/{publisher}")
}
