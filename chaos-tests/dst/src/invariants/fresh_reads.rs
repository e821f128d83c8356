//! A linearizable read sees everything that was acknowledged before it began, and no less than a read that ended before.
//!
//! Source: Herlihy & Wing, "Linearizability", 1990, for a queue that only grows: the number of its messages is enough.
//! Jepsen found stale reads in etcd 0.4, Consul and others that answered by a lease or not at all.

use std::collections::BTreeMap;

use super::Invariant;
use crate::witness::Event;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct FreshReads {
    acked: u64,
    /// The most that a finished read saw.
    seen: u64,
    /// What a reader must see at least.
    begun: BTreeMap<u64, u64>,
    reads: u64,
}

impl Invariant for FreshReads {
    fn name(&self) -> &'static str {
        "fresh-reads"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Acked { .. } => self.acked += 1,
            Event::ReadBegan { reader } => {
                self.begun.insert(*reader, self.acked.max(self.seen));
            }
            Event::ReadEnded { reader, seen } => {
                self.reads += 1;
                self.seen = self.seen.max(*seen);
                let least = self.begun.remove(reader).unwrap_or(0);
                if *seen < least {
                    return Err(format!(
                        "a read at node {reader} saw {seen} messages, and {least} were there"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> String {
        format!("{} reads", self.reads)
    }
}
