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
//! - **Nobody comes back behind a barrier**: a node without a lease gets one only when it has applied everything that was
//!   committed when it asked, since barriers may have passed without it. From its first question on they wait for it.
//! - **A lease is one process's**: the next one of a node begins without, and may have applied less.
//! - **Only a leader that knows it is one passes barriers, or says who is without a lease**: one whose own lease is not renewed may have
//!   been deposed. One that slept heard nobody meanwhile: silence counts from when it knew again.
//!
//! Pure: time is an argument. Checked by the tests below.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use moorline_core::{Incarnation, NodeId};

use crate::frames::LeaseReport;

/// How long a node may publish after its last confirmed report.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// Clocks of two processes on one machine tick alike; what their rates may differ over a lease on two machines, tenfold.
const DRIFT: Duration = Duration::from_millis(20);
/// Barriers that wait at once; a subscription is refused as unavailable beyond.
pub(crate) const WAITERS_MAX: usize = 65_536;

/// The leader's view of everybody's lease, and who waits for an index.
#[derive(Debug)]
pub(crate) struct Leases<W> {
    /// This node, the leader.
    own: NodeId,
    term: u64,
    began: Instant,
    holders: BTreeMap<NodeId, Holder>,
    waiters: Vec<(u64, W)>,
    /// The highest index of a barrier that was passed.
    passed: u64,
    /// Since when the own lease has not run out.
    sure_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Holder {
    /// The newest process that was heard of, and the one before it.
    process: Option<Incarnation>,
    gone: Option<Incarnation>,
    until: Instant,
    applied: u64,
    /// What it has to have applied to get its first lease; `None` before it was heard of.
    floor: Option<u64>,
    granted: bool,
}

impl Holder {
    /// One that was not heard of, and may have a lease until then.
    fn new(until: Instant) -> Self {
        Self { process: None, gone: None, until, applied: 0, floor: None, granted: false }
    }
}

impl<W> Leases<W> {
    /// A leadership begins.
    pub(crate) fn begin(
        now: Instant,
        own: NodeId,
        term: u64,
        nodes: impl Iterator<Item = NodeId>,
    ) -> Self {
        let unknown = Holder::new(now + LEASE + DRIFT);
        Self {
            own,
            term,
            began: now,
            holders: nodes.map(|node| (node, unknown)).collect(),
            waiters: Vec::new(),
            passed: 0,
            sure_since: None,
        }
    }

    /// The term of the leadership: what was confirmed under another one counts for nothing here.
    pub(crate) fn term(&self) -> u64 {
        self.term
    }

    /// A node reported, and afterwards the leadership was confirmed as of the log's index `confirmed`. Says whether the
    /// node has a lease from now on.
    pub(crate) fn report(
        &mut self,
        now: Instant,
        node: NodeId,
        report: LeaseReport,
        confirmed: u64,
    ) -> bool {
        let LeaseReport { incarnation, applied } = report;
        let floor = confirmed.max(self.passed);
        let holder = self.holders.entry(node).or_insert(Holder::new(now));
        if holder.gone == Some(incarnation) {
            // Its question came late.
            return false;
        }
        if holder.process != Some(incarnation) {
            let (process, gone) = (Some(incarnation), holder.process);
            *holder = Holder { process, gone, ..Holder::new(holder.until) };
        }
        if holder.until <= now {
            // Its lease ran out, and barriers may have passed without it.
            (holder.floor, holder.granted) = (None, false);
        }
        let had = holder.granted;
        // Barriers of earlier leaders may have passed without it as well.
        let floor = *holder.floor.get_or_insert(floor);
        holder.applied = holder.applied.max(applied);
        holder.until = now + LEASE + DRIFT;
        holder.granted |= applied >= floor;
        let has = holder.granted;
        if node == self.own && has && !had {
            self.sure_since = Some(now);
        }
        has
    }

    /// Whether this node certainly leads.
    fn is_sure(&self, now: Instant) -> bool {
        self.holders.get(&self.own).is_some_and(|own| own.granted && own.until > now)
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
        if self.waiters.is_empty() || !self.is_sure(now) {
            return Vec::new();
        }
        let live = self.holders.values().filter(|holder| holder.until > now);
        let safe = live.map(|holder| holder.applied).min().expect("the own one is live");
        let (served, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiters).into_iter().partition(|(index, _)| *index <= safe);
        self.waiters = waiting;
        let highest = served.iter().map(|(index, _)| *index).max().unwrap_or(0);
        self.passed = self.passed.max(highest);
        served.into_iter().map(|(_, waiter)| waiter).collect()
    }

    /// For how long a node has certainly had no lease, and this one was there to hear that it asks for one; `None` if it may have one,
    /// or another node may lead.
    pub(crate) fn without(&self, now: Instant, node: NodeId) -> Option<Duration> {
        let since = self.sure_since.filter(|_| self.is_sure(now))?;
        let until = self.holders.get(&node).map_or(self.began + LEASE + DRIFT, |held| held.until);
        now.checked_duration_since(until.max(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);

    /// Of the first process of a node.
    fn first(applied: u64) -> LeaseReport {
        LeaseReport { incarnation: Incarnation(8), applied }
    }

    fn leases(start: Instant) -> Leases<char> {
        Leases::begin(start, A, 1, [A, B, C].into_iter())
    }

    #[test]
    fn a_barrier_waits_for_every_lease_that_may_run() {
        let start = Instant::now();
        let mut leases = leases(start);
        assert!(leases.wait(10, 'a').is_none());
        assert!(leases.report(start, A, first(10), 9) && leases.report(start, B, first(12), 9));
        assert!(leases.served(start).is_empty(), "node 3 may hold a lease of an earlier leader");
        let soon = start + LEASE / 2;
        assert!(leases.report(soon, A, first(10), 10) && leases.report(soon, B, first(9), 10));
        let later = start + LEASE + DRIFT * 2;
        assert_eq!(leases.served(later), ['a'], "node 3's has run out, and reports never go back");
        assert!(leases.wait(13, 'b').is_none());
        assert!(leases.served(later).is_empty());
        leases.report(later, A, first(13), 12);
        leases.report(later, B, first(13), 12);
        assert_eq!(leases.served(later), ['b']);
    }

    #[test]
    fn a_node_whose_lease_ran_out_comes_back_only_with_what_passed_without_it() {
        let start = Instant::now();
        let mut leases = leases(start);
        assert!(leases.report(start, C, first(10), 10));
        let later = start + LEASE * 2;
        leases.report(later, A, first(11), 11);
        leases.report(later, B, first(11), 11);
        assert!(leases.wait(11, 'a').is_none());
        assert_eq!(leases.served(later), ['a']);
        assert!(
            !leases.report(later, C, first(10), 11),
            "a subscriber was told of a route it lacks"
        );
        assert!(leases.wait(12, 'b').is_none());
        leases.report(later, A, first(12), 12);
        leases.report(later, B, first(12), 12);
        assert!(leases.served(later).is_empty(), "from its first question on it is waited for");
        assert!(leases.report(later, C, first(11), 12), "what passed without it is enough");
        assert!(leases.served(later).is_empty());
        assert!(leases.report(later, C, first(12), 12));
        assert_eq!(leases.served(later), ['b']);
    }

    #[test]
    fn the_next_process_of_a_node_begins_without_a_lease() {
        let start = Instant::now();
        let mut leases = leases(start);
        for node in [A, B, C] {
            assert!(leases.report(start, node, first(12), 12));
        }
        // It came back within its lease, and its rows are those of its last checkpoint.
        let second = |applied| LeaseReport { incarnation: Incarnation(2), applied };
        assert!(!leases.report(start, C, second(5), 12));
        assert!(leases.wait(12, 'a').is_none());
        assert!(leases.served(start).is_empty(), "what the process before knew is not known now");
        assert!(!leases.report(start, C, first(13), 12), "late");
        assert!(leases.report(start, C, second(12), 13));
        assert_eq!(leases.served(start), ['a']);
    }

    #[test]
    fn a_new_leader_trusts_no_report_that_is_behind_its_own_log() {
        let start = Instant::now();
        let mut leases = leases(start);
        assert!(
            !leases.report(start, C, first(10), 11),
            "an earlier leader may have passed 11 without it"
        );
        assert!(leases.report(start, C, first(11), 15));
    }

    #[test]
    fn a_leader_that_may_be_deposed_passes_nothing() {
        let start = Instant::now();
        let mut leases = leases(start);
        leases.report(start, A, first(1), 1);
        assert!(leases.wait(1, 'a').is_none());
        let later = start + LEASE * 2;
        assert!(leases.served(later).is_empty(), "nobody's lease runs, the leader's own neither");
        leases.report(later, A, first(1), 1);
        assert_eq!(leases.served(later), ['a']);
    }

    /// The leader's own reports, four times a lease.
    fn awake(leases: &mut Leases<char>, from: Instant, until: Instant) {
        let mut at = from;
        while at <= until {
            assert!(leases.report(at, A, first(1), 1));
            at += LEASE / 4;
        }
    }

    #[test]
    fn how_long_a_node_is_without_a_lease_is_known() {
        let start = Instant::now();
        let mut leases = leases(start);
        assert_eq!(leases.without(start + LEASE * 3, B), None, "another node may lead by then");
        awake(&mut leases, start, start + LEASE * 3);
        assert_eq!(leases.without(start + LEASE, B), None);
        leases.report(start + LEASE, B, first(1), 1);
        let later = start + LEASE * 3;
        assert_eq!(leases.without(later, B), Some(LEASE - DRIFT));
        assert_eq!(leases.without(later, NodeId(9)), Some(LEASE * 2 - DRIFT));
    }

    #[test]
    fn a_leader_that_slept_says_of_nobody_that_it_is_silent() {
        let start = Instant::now();
        let mut leases = leases(start);
        awake(&mut leases, start, start);
        leases.report(start, B, first(1), 1);
        let woken = start + LEASE * 3;
        assert_eq!(leases.without(woken, B), None, "another one may lead by now");
        awake(&mut leases, woken, woken + LEASE);
        assert_eq!(leases.without(woken, B), Some(Duration::ZERO), "it could not be heard");
        assert_eq!(leases.without(woken + LEASE, B), Some(LEASE), "since then it could");
        leases.report(woken + LEASE, B, first(1), 1);
        assert_eq!(leases.without(woken + LEASE, B), None);
    }
}
