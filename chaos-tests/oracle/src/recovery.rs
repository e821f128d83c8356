//! How fast work goes on after a fault: second by second, what each workload got done, and when it was back.
//!
//! A workload is back in the first whole second after a fault in which it gets at least [`BACK_PERCENT`] of what it gets in the
//! median second in which nothing is wrong.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::history::{Event, Fault, Op, Phase, Stage};

/// A second, in nanoseconds.
const SECOND_NS: u64 = 1_000_000_000;
/// How much of its usual work a workload gets done when it is back, in percent.
pub const BACK_PERCENT: u64 = 80;

/// A workload of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Publishes.
    Publish,
    /// Requests about records.
    Registry,
    /// Requests about mailboxes.
    Mailbox,
}

/// Every workload.
pub const WORKLOADS: [Workload; 3] = [Workload::Publish, Workload::Registry, Workload::Mailbox];

/// What came of requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Done.
    pub ok: u64,
    /// Refused, or not even asked.
    pub fail: u64,
    /// Nobody knows.
    pub unknown: u64,
}

/// One fault and what it did to the work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// When, in nanoseconds since the run began.
    pub ns: u64,
    /// What.
    pub fault: Fault,
    /// To which node.
    pub node: Option<u32>,
    /// Whether it led a group.
    pub leader: bool,
    /// How long until the node was ready again.
    pub ready_ns: Option<u64>,
    /// How many seconds until each workload was back, 0 if it was never gone; none if it did not come back before the next fault.
    pub back_s: BTreeMap<Workload, Option<u64>>,
}

/// What was done, second by second.
#[derive(Debug, Clone, Default)]
pub struct Work {
    /// By workload and second.
    pub seconds: BTreeMap<Workload, BTreeMap<u64, Tally>>,
    /// In the whole run.
    pub totals: BTreeMap<Workload, Tally>,
    /// Fault by fault.
    pub recoveries: Vec<Recovery>,
}

/// Which workload an event is of.
pub fn workload(op: &Op) -> Option<Workload> {
    match op {
        Op::Publish { .. } => Some(Workload::Publish),
        Op::Record { .. } => Some(Workload::Registry),
        Op::Mail { .. } => Some(Workload::Mailbox),
        Op::Connect { .. }
        | Op::Leave { .. }
        | Op::Subscribe { .. }
        | Op::Deliver { .. }
        | Op::Ack { .. }
        | Op::Fault { .. }
        | Op::Digest { .. }
        | Op::Mark { .. }
        | Op::Revoke { .. }
        | Op::Log { .. }
        | Op::Leads { .. }
        | Op::Snapshots { .. }
        | Op::Load(_) => None,
    }
}

impl Work {
    /// In a history.
    pub fn of(events: &[Event]) -> Self {
        let mut work = Self::default();
        let mut struck: BTreeSet<Option<u32>> = BTreeSet::new();
        let mut calm: BTreeSet<u64> = BTreeSet::new();
        let mut restless: BTreeSet<u64> = BTreeSet::new();
        let mut publishing = (u64::MAX, u64::MAX);
        for event in events {
            let second = event.ns / SECOND_NS;
            if let Op::Fault { fault, leader } = &event.op
                && event.ph == Phase::Ok
            {
                restless.insert(second);
                if fault.strikes() {
                    struck.insert(event.node);
                    work.struck(event, *fault, *leader);
                } else if fault.ends() {
                    struck.remove(&event.node);
                    if *fault == Fault::Ready {
                        work.ready(event);
                    }
                }
            }
            if let Op::Mark { stage } = &event.op {
                match stage {
                    Stage::Publishing => publishing.0 = second + 1,
                    Stage::Draining => publishing.1 = second,
                    Stage::Drained | Stage::DrainTimedOut => {}
                }
            }
            work.count(workload(&event.op), event);
            if struck.is_empty() { &mut calm } else { &mut restless }.insert(second);
        }
        calm.retain(|second| {
            !restless.contains(second) && (publishing.0..publishing.1).contains(second)
        });
        work.recover(&calm, publishing.1);
        work
    }

    fn count(&mut self, workload: Option<Workload>, event: &Event) {
        let Some(workload) = workload else { return };
        let second = event.ns / SECOND_NS;
        let of_second = self.seconds.entry(workload).or_default().entry(second).or_default();
        for tally in [of_second, self.totals.entry(workload).or_default()] {
            match event.ph {
                Phase::Invoke => {}
                Phase::Ok => tally.ok += 1,
                Phase::Fail => tally.fail += 1,
                Phase::Info => tally.unknown += 1,
            }
        }
    }

    fn struck(&mut self, event: &Event, fault: Fault, leader: bool) {
        let (ns, node, back_s) = (event.ns, event.node, BTreeMap::new());
        self.recoveries.push(Recovery { ns, fault, node, leader, ready_ns: None, back_s });
    }

    fn ready(&mut self, event: &Event) {
        let open = self.recoveries.iter_mut().filter(|one| one.node == event.node);
        for one in open.filter(|one| one.ready_ns.is_none()) {
            one.ready_ns = Some(event.ns - one.ns);
        }
    }

    fn recover(&mut self, calm: &BTreeSet<u64>, end: u64) {
        let starts: Vec<u64> = self.recoveries.iter().map(|one| one.ns / SECOND_NS).collect();
        for (&workload, seconds) in &self.seconds {
            let done = |second: u64| seconds.get(&second).map_or(0, |tally| tally.ok);
            let mut usual: Vec<u64> = calm.iter().map(|&second| done(second)).collect();
            usual.sort_unstable();
            let usual = usual.get(usual.len() / 2).copied().unwrap_or(0);
            for (one, &start) in self.recoveries.iter_mut().zip(&starts) {
                let next = starts.iter().copied().find(|&other| other > start).unwrap_or(end);
                let mut after = start + 1..next.max(start + 1).min(end);
                let back = after.position(|second| done(second) * 100 >= usual * BACK_PERCENT);
                one.back_s.insert(workload, back.map(|seconds| seconds as u64));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planted::Story;
    use crate::requests::{RecordAnswer, RecordAsk};

    /// Ten requests a second, but for three seconds after a kill.
    #[test]
    fn the_time_without_work_is_measured() {
        let mut story = Story::new();
        story.mark(Stage::Publishing);
        for second in 0..20 {
            if second == 10 {
                story.fault(Fault::Kill, 1);
            }
            if second == 12 {
                story.fault(Fault::Ready, 1);
            }
            for _ in 0..10 {
                if !(10..13).contains(&second) {
                    story.recorded(RecordAsk::Get, RecordAnswer::Absent);
                } else {
                    story.wait(2);
                }
                story.wait(98);
            }
        }
        story.mark(Stage::Draining);
        let work = Work::of(&story.events);
        let [one] = &work.recoveries[..] else { panic!("one fault: {:?}", work.recoveries) };
        let back = one.back_s[&Workload::Registry];
        assert!((2..=3).contains(&back.unwrap()), "{back:?}");
        assert!(one.ready_ns.is_some_and(|ns| (1_900_000_000..2_200_000_000).contains(&ns)));
        assert_eq!(work.totals[&Workload::Registry], Tally { ok: 170, fail: 0, unknown: 0 });
    }
}
