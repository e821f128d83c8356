//! No replica gives up without a reason: no fatal error, no log that its leader knows to have been longer. And one that has a
//! reason does: a log that was damaged is not opened.
//!
//! Source: invariant 23 of the chaos tests (no abort but injected ones); Rebello et al., "Can Applications Recover from fsync
//! Failures?", 2020 (after a failed sync a process can only end). A disk that failed is such a reason; a disk that lies is none,
//! and this is how one is noticed.

use std::collections::BTreeSet;

use super::Invariant;
use crate::witness::Event;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    started: u64,
    /// Nodes whose process has to end.
    failed: BTreeSet<u64>,
    damaged: BTreeSet<u64>,
    failures: u64,
}

impl Invariant for Standing {
    fn name(&self) -> &'static str {
        "standing"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Started { node, .. } => {
                self.started += 1;
                self.failed.remove(node);
            }
            Event::DiskFailed { node, .. } => {
                self.failures += 1;
                self.failed.insert(*node);
            }
            Event::Damaged { node } => drop(self.damaged.insert(*node)),
            Event::Quarantined { node } if !self.damaged.contains(node) => {
                return Err(format!("node {node} cannot open its log, which nobody damaged"));
            }
            Event::Role { node, .. } if self.damaged.contains(node) => {
                return Err(format!("node {node} takes part with a damaged log"));
            }
            Event::Fatal { node, .. } if self.failed.contains(node) => {}
            Event::Fatal { node, why } => return Err(format!("node {node} gave up: {why}")),
            _ => {}
        }
        Ok(())
    }

    fn judged(&self) -> String {
        format!(
            "{} processes, {} failures of disks, {} logs damaged",
            self.started,
            self.failures,
            self.damaged.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Failure;

    #[test]
    fn only_who_has_a_reason_may_give_up_and_a_damaged_log_is_one() {
        let mut standing = Standing::default();
        let fatal = |node| Event::Fatal { node, why: String::new() };
        standing.see(&Event::DiskFailed { node: 1, how: Failure::Sync }).unwrap();
        assert_eq!(standing.see(&fatal(1)), Ok(()));
        assert!(standing.see(&fatal(2)).is_err());
        standing.see(&Event::Started { node: 1, process: 2 }).unwrap();
        assert!(standing.see(&fatal(1)).is_err(), "that was the process before");
        assert!(standing.see(&Event::Quarantined { node: 3 }).is_err());
        standing.see(&Event::Damaged { node: 3 }).unwrap();
        assert_eq!(standing.see(&Event::Quarantined { node: 3 }), Ok(()));
        let role = moorline_group::Role::default();
        let role = Event::Role { node: 3, shard: moorline_core::ShardId(1), role };
        assert!(standing.see(&role).is_err());
    }
}
