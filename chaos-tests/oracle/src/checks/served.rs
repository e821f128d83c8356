//! Served: while a majority of the members is itself, somebody is answered. A single fault may take a leader from its groups, so there
//! is a limit for how long no request of a workload is answered; what a run of everything usually needs is much less (see its times
//! to recovery).

use std::collections::{BTreeMap, BTreeSet};

use super::{SERVED, named};
use crate::history::{Event, Fault, Op, Phase, Stage};
use crate::recovery::{Workload, workload};
use crate::verdict::Check;

/// How long a workload may go unanswered while a majority is there, in nanoseconds: an election, leases that run out, and what a
/// machine with two cores is late by when everything starts at once.
const UNANSWERED_NS_MAX: u64 = 15_000_000_000;

/// Who is a member, and who is not itself.
struct Members {
    many: usize,
    struck: BTreeSet<u32>,
}

impl Members {
    fn have_majority(&self) -> bool {
        self.struck.len() * 2 < self.many
    }

    fn hear(&mut self, fault: Fault, node: u32) {
        if fault == Fault::Join {
            self.many += 1;
        } else if matches!(fault, Fault::Leave | Fault::Remove) {
            self.many = self.many.saturating_sub(1);
        }
        // Slow is away for nobody.
        if fault.strikes() && !matches!(fault, Fault::Slow | Fault::FsyncStall) {
            self.struck.insert(node);
        } else if fault.ends() {
            self.struck.remove(&node);
        }
    }
}

/// Looks for a workload that stood still. `nodes` is how many there were at first.
pub fn check(events: &[Event], nodes: u32) -> Check {
    let mut check = named(SERVED);
    let mut members = Members { many: nodes as usize, struck: BTreeSet::new() };
    // Since when somebody should be answered: the last answer, or when a majority was there again.
    let mut since: BTreeMap<Workload, u64> = BTreeMap::new();
    let (mut longest, mut publishing) = (0, false);
    for event in events {
        match (&event.op, event.node) {
            (Op::Mark { stage }, _) => publishing = *stage == Stage::Publishing,
            (Op::Fault { fault, .. }, Some(node)) if event.ph == Phase::Ok => {
                let before = members.have_majority();
                members.hear(*fault, node);
                if !before && members.have_majority() {
                    since.values_mut().for_each(|since| *since = event.ns);
                }
            }
            _ => {}
        }
        let Some(of) = workload(&event.op).filter(|_| event.ph == Phase::Ok) else { continue };
        let waited = event.ns - since.insert(of, event.ns).unwrap_or(event.ns);
        if publishing && members.have_majority() {
            longest = longest.max(waited);
            if waited > UNANSWERED_NS_MAX {
                check.violated(|| {
                    let (seconds, i) = (waited / 1_000_000_000, event.i);
                    format!(
                        "{of:?}: no answer for {seconds} s with a majority there, until event {i}"
                    )
                });
            }
        }
    }
    check.detail =
        format!("at most {} ms without an answer while a majority was there", longest / 1_000_000);
    check
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planted::Story;
    use crate::requests::{RecordAnswer, RecordAsk};

    fn silent(fault: Fault, nodes: &[u32], ms: u64) -> u64 {
        let mut story = Story::new();
        story.mark(Stage::Publishing).recorded(RecordAsk::Get, RecordAnswer::Absent);
        for &node in nodes {
            story.fault(fault, node);
        }
        story.wait(ms).recorded(RecordAsk::Get, RecordAnswer::Absent);
        for &node in nodes {
            story.fault(Fault::Ready, node);
        }
        story.recorded(RecordAsk::Get, RecordAnswer::Absent);
        check(&story.events, 3).found
    }

    #[test]
    fn a_silence_counts_while_a_majority_is_there() {
        assert_eq!(silent(Fault::Kill, &[1], 14_000), 0);
        assert_eq!(silent(Fault::Kill, &[1], 16_000), 1);
        assert_eq!(silent(Fault::Kill, &[1, 2], 16_000), 0);
        assert_eq!(silent(Fault::Slow, &[1, 2, 3], 16_000), 1);
    }
}
