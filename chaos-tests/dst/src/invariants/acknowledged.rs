//! An acknowledged message is in the queue of the session, once; one that was refused is not; none was not sent; and those of
//! one client are in the order in which it sent them.
//!
//! Source: invariants 1 to 3 of the chaos tests (no loss, no phantom, order), after Jepsen's checkers of queues; "once" is the
//! router's producer numbers (raft/router: a command is applied once, however often it was sent).

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::witness::Event;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    sent: BTreeSet<(u64, u64)>,
    acked: BTreeSet<(u64, u64)>,
    refused: BTreeSet<(u64, u64)>,
    unknown: u64,
    finals: u64,
}

impl Acknowledged {
    fn judge(&self, node: u64, queue: &[(u64, u64)]) -> Result<(), String> {
        let mut there = BTreeSet::new();
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        for (client, number) in queue {
            let message = (*client, *number);
            if !self.sent.contains(&message) {
                return Err(format!("node {node} has {message:?}, which nobody sent"));
            }
            if self.refused.contains(&message) {
                return Err(format!("node {node} has {message:?}, which was refused"));
            }
            if !there.insert(message) {
                return Err(format!("node {node} has {message:?} twice"));
            }
            let before = last.insert(*client, *number);
            if before >= Some(*number) {
                return Err(format!("node {node} has {message:?} behind {before:?}"));
            }
        }
        let mut lost = self.acked.difference(&there);
        if let Some(message) = lost.next() {
            let more = lost.count();
            return Err(format!(
                "node {node} has not {message:?} and {more} others: acknowledged, and lost"
            ));
        }
        Ok(())
    }
}

impl Invariant for Acknowledged {
    fn name(&self) -> &'static str {
        "acknowledged"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Sent { client, number } => {
                self.sent.insert((*client, *number));
            }
            Event::Acked { client, number } => {
                self.acked.insert((*client, *number));
            }
            Event::Failed { client, number, maybe: false, .. } => {
                self.refused.insert((*client, *number));
            }
            Event::Failed { maybe: true, .. } => self.unknown += 1,
            Event::Final { node, queue, .. } => {
                self.finals += 1;
                return self.judge(*node, queue);
            }
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> String {
        format!(
            "{} acknowledged of {} ({} refused, {} unknown), {} replicas",
            self.acked.len(),
            self.sent.len(),
            self.refused.len(),
            self.unknown,
            self.finals
        )
    }
}
