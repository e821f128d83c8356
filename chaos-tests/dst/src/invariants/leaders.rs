//! A leadership belongs to one node: whoever leads in a term says so of itself, and the terms that a process sees never go
//! back.
//!
//! Source: Raft's election safety (figure 3 of the paper), as openraft has it with `leader_id_adv`: a leadership is a term
//! *and* a node, ordered by both, so a second node may lead in a term in which a first one led; what the first one had not
//! committed by then it never can. What the two wrote is judged by `log_matching` and `committed`.

use std::collections::BTreeMap;

use moorline_core::ShardId;

use super::Invariant;
use crate::witness::Event;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Leaders {
    /// Who said that it leads, by shard and term.
    led: BTreeMap<(ShardId, u64), Vec<u64>>,
    /// Steps taken with the membership.
    steps: u64,
    /// The last term of a process.
    terms: BTreeMap<(u64, ShardId), u64>,
}

impl Invariant for Leaders {
    fn name(&self) -> &'static str {
        "leaders"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Step { taken, .. } => self.steps += u64::from(*taken),
            Event::Started { node, .. } => self.terms.retain(|(of, _), _| of != node),
            Event::Deleted { node, shard } => drop(self.terms.remove(&(*node, *shard))),
            Event::Role { node, shard, role } => {
                let term = role.term;
                let before = self.terms.insert((*node, *shard), term).unwrap_or(0);
                if term < before {
                    return Err(format!("node {node} went from term {before} back to {term}"));
                }
                if role.leading && role.leader.map(|leader| leader.0) != Some(*node) {
                    return Err(format!("node {node} leads, and says that {:?} does", role.leader));
                }
                let led = self.led.entry((*shard, term)).or_default();
                if role.leading && led.last() != Some(node) {
                    // A later leader of the same term is a larger node, for that is how leaderships are ordered.
                    if led.iter().any(|earlier| earlier >= node) {
                        return Err(format!("node {node} leads in term {term} after {led:?}"));
                    }
                    led.push(*node);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> String {
        let twice = self.led.values().filter(|led| led.len() > 1).count();
        let leaderships: usize = self.led.values().map(Vec::len).sum();
        format!(
            "{leaderships} leaderships ({twice} terms with two), {} steps of members",
            self.steps
        )
    }
}
