//! Meta leases: who may publish, and from when a route is known to everybody who may.
//!
//! ```text
//!   node:    report(applied) at t ──► leader confirms that it leads ──► node may publish until t + LEASE
//!   leader:  a route is safe at index i when every node whose lease may still run has reported applied >= i
//! ```
//!
//! # Invariants
//!
//! - **The leader's view of a lease outlives the node's**: it counts from the receipt, the node from before the sending.
//! - **A new leader waits out what it cannot know**: every other node counts as a holder for one lease, unless it reports.
//!
//! Pure: time is an argument. Checked by the tests below.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use moorline_core::NodeId;

/// How long a node may publish after its last confirmed report.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// Clocks of two processes on one machine tick alike; what their rates may differ over a lease on two machines, tenfold.
const DRIFT: Duration = Duration::from_millis(20);
/// Barriers that wait at once; a subscription is refused as unavailable beyond.
pub(crate) const WAITERS_MAX: usize = 65_536;

/// The leader's view of everybody's lease, and who waits for an index.
#[derive(Debug)]
pub(crate) struct Leases<W> {
    holders: BTreeMap<NodeId, Holder>,
    waiters: Vec<(u64, W)>,
}

#[derive(Debug, Clone, Copy)]
struct Holder {
    until: Instant,
    applied: u64,
}

impl<W> Leases<W> {
    /// A leadership begins.
    pub(crate) fn begin(now: Instant, nodes: impl Iterator<Item = NodeId>) -> Self {
        let unknown = Holder { until: now + LEASE + DRIFT, applied: 0 };
        Self { holders: nodes.map(|node| (node, unknown)).collect(), waiters: Vec::new() }
    }

    /// A node reported, and the leadership was confirmed afterwards.
    pub(crate) fn report(&mut self, now: Instant, node: NodeId, applied: u64) {
        let holder = Holder { until: now + LEASE + DRIFT, applied };
        self.holders
            .entry(node)
            .and_modify(|known| {
                known.until = known.until.max(holder.until);
                known.applied = known.applied.max(applied);
            })
            .or_insert(holder);
    }

    /// Somebody waits until every holder has applied `index`; gives it back if too many wait.
    pub(crate) fn wait(&mut self, index: u64, waiter: W) -> Option<W> {
        if self.waiters.len() >= WAITERS_MAX {
            return Some(waiter);
        }
        self.waiters.push((index, waiter));
        None
    }

    /// Who waits no longer.
    pub(crate) fn served(&mut self, now: Instant) -> Vec<W> {
        if self.waiters.is_empty() {
            return Vec::new();
        }
        let live = self.holders.values().filter(|holder| holder.until > now);
        let safe = live.map(|holder| holder.applied).min().unwrap_or(u64::MAX);
        let (served, waiting) =
            std::mem::take(&mut self.waiters).into_iter().partition(|(index, _)| *index <= safe);
        self.waiters = waiting;
        let served: Vec<(u64, W)> = served;
        served.into_iter().map(|(_, waiter)| waiter).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_waits_for_every_lease_that_may_run() {
        let start = Instant::now();
        let nodes = [NodeId(1), NodeId(2), NodeId(3)];
        let mut leases = Leases::begin(start, nodes.into_iter());
        assert!(leases.wait(10, 'a').is_none());
        leases.report(start, NodeId(1), 10);
        leases.report(start, NodeId(2), 12);
        assert!(leases.served(start).is_empty(), "node 3 may hold a lease of an earlier leader");
        let later = start + LEASE + DRIFT * 2;
        leases.report(later, NodeId(1), 10);
        leases.report(later, NodeId(2), 9);
        assert_eq!(leases.served(later), ['a'], "node 3's has run out, and reports never go back");
        assert!(leases.wait(13, 'b').is_none());
        assert!(leases.served(later).is_empty());
        leases.report(later, NodeId(1), 13);
        leases.report(later, NodeId(2), 13);
        assert_eq!(leases.served(later), ['b']);
    }
}
