//! Log time: what a leader stamps its entries with, and what deadlines in rows are compared with.
//!
//! ```text
//!   the last stamp known ── and the time since it was learnt ──► log time      the wall clock is not asked
//!                   after a start, as long as nobody said better: the later of that and the wall clock
//! ```
//!
//! The process clock is wall time at the process's start and the monotonic clock since, so it serves as both: its value is
//! the wall clock, its differences are time that passed.
//!
//! # Invariants
//!
//! - **A wall clock counts only where nothing else can be known**: how long the whole group was down. The first stamp that
//!   came from a living leader, or was this replica's own, ends that for the life of the process.
//! - **A new stamp never moves log time back** once the wall clock does not count.

use std::{
    fmt,
    sync::{Mutex, MutexGuard},
};

use moorline_core::UnixMillis;

use crate::{config::Clock, types::RaftLogId};

/// The pure part: `now` is the process clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LogClock {
    stamp: UnixMillis,
    learnt: UnixMillis,
    wall_counts: bool,
}

impl LogClock {
    /// Knows nothing but the wall clock.
    fn begin(now: UnixMillis) -> Self {
        Self { stamp: UnixMillis(0), learnt: now, wall_counts: true }
    }

    fn estimate(&self, now: UnixMillis) -> UnixMillis {
        UnixMillis(self.stamp.0.saturating_add(now.0.saturating_sub(self.learnt.0)))
    }

    fn time(&self, now: UnixMillis) -> UnixMillis {
        let estimate = self.estimate(now);
        if self.wall_counts { estimate.max(now) } else { estimate }
    }

    /// Log time was `stamp` a moment ago; a stamp that is behind the estimate was only long on its way.
    fn learn(&mut self, stamp: UnixMillis, now: UnixMillis) {
        if stamp >= self.estimate(now) {
            (self.stamp, self.learnt) = (stamp, now);
        }
    }
}

/// The log clock of one replica.
pub(crate) struct ReplicaClock {
    process: Clock,
    /// The last entry that this process found in its log when it opened the replica: nobody knows how old it is.
    found: Option<RaftLogId>,
    log: Mutex<LogClock>,
}

impl fmt::Debug for ReplicaClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.log().fmt(f)
    }
}

impl ReplicaClock {
    pub(crate) fn new(process: Clock, found: Option<RaftLogId>) -> Self {
        let log = Mutex::new(LogClock::begin(process()));
        Self { process, found, log }
    }

    /// Log time, as well as this replica knows it.
    pub(crate) fn now(&self) -> UnixMillis {
        let now = (self.process)();
        self.log().time(now)
    }

    /// The rows on disk are as of `stamp`.
    pub(crate) fn recovered(&self, stamp: UnixMillis) {
        let now = (self.process)();
        self.log().learn(stamp, now);
    }

    /// A stamped entry was applied. Entries without a stamp (a new leader's first) say nothing about time.
    pub(crate) fn applied(&self, entry: RaftLogId, stamp: UnixMillis) {
        if Some(entry) > self.found {
            self.received(stamp);
        } else {
            self.recovered(stamp);
        }
    }

    /// A living leader said `stamp`, or this replica did as one.
    pub(crate) fn received(&self, stamp: UnixMillis) {
        if stamp == UnixMillis(0) {
            return; // a snapshot of a group in which nothing was stamped yet
        }
        let now = (self.process)();
        let mut log = self.log();
        log.learn(stamp, now);
        log.wall_counts = false;
    }

    fn log(&self) -> MutexGuard<'_, LogClock> {
        self.log.lock().expect("no panic while it is locked")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;
    use crate::types::LeaderId;

    const HOUR: u64 = 3_600_000;
    /// The process clock when a replica is opened.
    const START: u64 = 1_000 * HOUR;
    /// The last stamp in its rows: two hours before.
    const OLD: UnixMillis = UnixMillis(START - 2 * HOUR);

    struct Rig {
        process: Arc<AtomicU64>,
        clock: ReplicaClock,
    }

    /// A replica that finds entry 10 of term 3 in its log and rows as of [`OLD`], with a process clock that is off.
    fn opened(ahead: i64) -> Rig {
        let process = Arc::new(AtomicU64::new(START.saturating_add_signed(ahead)));
        let read = Arc::clone(&process);
        let clock: Clock = Arc::new(move || UnixMillis(read.load(Ordering::Relaxed)));
        let clock = ReplicaClock::new(clock, Some(entry(3, 10)));
        clock.recovered(OLD);
        Rig { process, clock }
    }

    fn entry(term: u64, index: u64) -> RaftLogId {
        RaftLogId::new(LeaderId { term, node_id: 1 }, index)
    }

    impl Rig {
        fn pass(&self, ms: u64) {
            self.process.fetch_add(ms, Ordering::Relaxed);
        }

        fn now(&self) -> u64 {
            self.clock.now().0
        }
    }

    #[test]
    fn a_new_group_begins_with_the_wall_clock() {
        let clock = ReplicaClock::new(Arc::new(|| UnixMillis(START)), None);
        assert_eq!(clock.now(), UnixMillis(START));
    }

    #[test]
    fn after_a_start_the_later_of_stamps_and_wall_clock_counts() {
        let right = opened(0);
        right.pass(5);
        assert_eq!(right.now(), START + 5);
        let behind = opened(-HOUR.cast_signed() * 10);
        behind.pass(5);
        assert_eq!(behind.now(), OLD.0 + 5, "never before the last stamp");
    }

    #[test]
    fn what_was_in_the_log_at_the_start_tells_nothing_of_the_time_since() {
        let rig = opened(0);
        rig.clock.applied(entry(3, 10), UnixMillis(OLD.0 + 7));
        assert_eq!(rig.now(), START);
    }

    #[test]
    fn a_stamp_of_a_living_leader_ends_the_wall_clock() {
        for ahead in [5 * HOUR.cast_signed(), -5 * HOUR.cast_signed(), 0] {
            let rig = opened(ahead);
            rig.pass(100);
            rig.clock.applied(entry(4, 11), UnixMillis(START + 60));
            assert_eq!(rig.now(), START + 60, "{ahead}");
            rig.pass(40);
            assert_eq!(rig.now(), START + 100, "{ahead}: time goes on");
            rig.clock.applied(entry(4, 12), UnixMillis(START + 70));
            assert_eq!(rig.now(), START + 100, "{ahead}: a late stamp moves nothing back");
            rig.clock.applied(entry(4, 13), UnixMillis(START + 200));
            assert_eq!(rig.now(), START + 200, "{ahead}: a later one moves it on");
        }
    }

    #[test]
    fn another_leaders_entry_in_the_place_of_one_that_was_found_is_news() {
        let rig = opened(5 * HOUR.cast_signed());
        rig.clock.applied(entry(4, 9), UnixMillis(START));
        assert_eq!(rig.now(), START);
    }

    #[test]
    fn a_snapshot_is_news() {
        let rig = opened(5 * HOUR.cast_signed());
        rig.clock.received(UnixMillis(0));
        assert_eq!(rig.now(), START + 5 * HOUR, "it has no stamp");
        rig.clock.received(UnixMillis(START));
        assert_eq!(rig.now(), START);
    }
}
