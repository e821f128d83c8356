//! Replicas that have applied the same have the same rows.
//!
//! Source: Schneider, "Implementing Fault-Tolerant Services Using the State Machine Approach", 1990; invariant 21 of the
//! chaos tests (equal digests at equal applied index).

use std::collections::BTreeMap;

use moorline_core::ShardId;

use super::Invariant;
use crate::witness::Event;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    known: BTreeMap<(ShardId, u64), u128>,
    compared: u64,
}

impl Invariant for Digests {
    fn name(&self) -> &'static str {
        "digests"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        let (node, shard, index, digest) = match event {
            Event::Digest { node, shard, index, digest } => (node, *shard, *index, *digest),
            Event::Final { node, applied, digest, .. } => {
                (node, ShardId(u16::MAX), *applied, *digest)
            }
            _ => return Ok(()),
        };
        if let Some(known) = self.known.get(&(shard, index)) {
            self.compared += 1;
            if *known != digest {
                return Err(format!(
                    "node {node} has other rows at {index} than a replica before it"
                ));
            }
        }
        self.known.insert((shard, index), digest);
        Ok(())
    }

    fn judged(&self) -> String {
        format!("{} digests compared", self.compared)
    }
}
