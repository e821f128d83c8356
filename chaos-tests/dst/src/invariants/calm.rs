//! When faults are over everybody is served, and leadership settles. Also if one link stays cut in one direction for ever:
//! then at all nodes but one of its ends, for a command goes to the leader straight from the node of its client.
//!
//! Source: TigerBeetle's liveness mode (safety first, then a core that must make progress); Jepsen, "asymmetric partitions";
//! invariant 27 of the chaos tests.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::witness::Event;

/// Leaderships that may begin in calm: the one that ends the faults, and a preferred one that takes over from it.
const LEADERSHIPS_MAX: usize = 6;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Calm {
    calm: bool,
    acked: BTreeMap<u64, u64>,
    leaderships: BTreeSet<(u64, u64)>,
}

impl Invariant for Calm {
    fn name(&self) -> &'static str {
        "calm"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Stuck { why } => return Err(why.clone()),
            Event::Calm { .. } => self.calm = true,
            Event::Acked { client, .. } if self.calm => {
                *self.acked.entry(*client).or_default() += 1
            }
            Event::Role { node, role, .. } if self.calm && role.leading => {
                self.leaderships.insert((role.term, *node));
                if self.leaderships.len() > LEADERSHIPS_MAX {
                    return Err(format!("leadership does not settle: {:?}", self.leaderships));
                }
            }
            Event::End { clients, .. } => {
                let served = |client| self.acked.contains_key(client);
                if let Some(unserved) = clients.iter().find(|any| !any.iter().any(served)) {
                    return Err(format!("of the clients {unserved:x?} none was served"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> String {
        let acked: u64 = self.acked.values().sum();
        format!("{acked} acknowledged in calm")
    }
}
