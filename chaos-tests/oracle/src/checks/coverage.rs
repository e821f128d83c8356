//! Coverage: a run says in its header what it has to reach. One that did not is inconclusive, never passed: no workload that
//! stood still while nodes were down, no fault that was planned and not done.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{COVERAGE, named};
use crate::history::{Event, Fault, Op, Phase};
use crate::loads::{Kind, Load};
use crate::verdict::Check;

/// What a run has to reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Publishes acknowledged while some fault was on.
    pub publishes: u64,
    /// Requests about records with a known outcome while some fault was on.
    pub records: u64,
    /// Requests about mailboxes with a known outcome while some fault was on.
    pub mails: u64,
    /// What other workloads got done while some fault was on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub loads: BTreeMap<Kind, u64>,
    /// How often each fault must have been done.
    pub faults: BTreeMap<Fault, u64>,
    /// How often some group must have got another leader.
    pub leader_changes: u64,
    /// How many snapshots must have been installed.
    pub snapshots: u64,
    /// Most unknown outcomes in a thousand requests.
    pub unknown_permille_max: u64,
    /// How many replicas must have reported a digest for each shard.
    pub replicas: u32,
    /// How many nodes there were at first; 3 in histories that do not say.
    #[serde(default = "three")]
    pub nodes: u32,
}

fn three() -> u32 {
    3
}

/// What a run reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reached {
    /// Requests with an answer while some fault was on: publishes, about records, about mailboxes.
    pub during: [u64; 3],
    /// What other workloads got done while some fault was on.
    pub loads: BTreeMap<Kind, u64>,
    /// Faults done.
    pub faults: BTreeMap<Fault, u64>,
    /// Changes of leaders; the first one of a group is none.
    pub leader_changes: u64,
    /// Snapshots installed.
    pub snapshots: u64,
    /// Requests that ended: all of them, and those with an unknown outcome.
    pub ended: (u64, u64),
}

impl Reached {
    /// In a history.
    pub fn of(events: &[Event]) -> Self {
        let mut reached = Self::default();
        let (mut struck, mut leaders) = (BTreeSet::new(), BTreeMap::new());
        for event in events {
            if let Op::Fault { fault, .. } = &event.op
                && event.ph == Phase::Ok
            {
                *reached.faults.entry(*fault).or_default() += 1;
                if fault.strikes() {
                    struck.insert(event.node);
                } else if fault.ends() {
                    struck.remove(&event.node);
                }
            }
            if let Op::Leads { shard, leader, .. } = &event.op {
                let before = leaders.insert(*shard, *leader);
                reached.leader_changes += u64::from(before.is_some_and(|before| before != *leader));
            }
            if let Op::Snapshots { installed } = &event.op {
                reached.snapshots += installed;
            }
            if let Some(kind) = Load::of(event).and_then(|load| load.done(event.ph))
                && !struck.is_empty()
            {
                *reached.loads.entry(kind).or_default() += 1;
            }
            if let Some((workload, answered)) = workload(&event.op) {
                let known = event.ph == Phase::Ok || answered;
                reached.end(event.ph, workload, known && !struck.is_empty());
            }
        }
        reached
    }

    fn end(&mut self, ph: Phase, workload: usize, during: bool) {
        if ph == Phase::Invoke {
            return;
        }
        self.ended.0 += 1;
        if ph == Phase::Info {
            self.ended.1 += 1;
        } else if during {
            self.during[workload] += 1;
        }
    }
}

/// Which workload an operation is of, and whether it has an answer that says something of the state.
fn workload(op: &Op) -> Option<(usize, bool)> {
    match op {
        Op::Publish { .. } => Some((0, false)),
        Op::Record { answer, .. } => Some((1, answer.is_some())),
        Op::Mail { answer, .. } => Some((2, answer.is_some())),
        Op::Revoke { .. } => Some((2, false)),
        Op::Connect { .. }
        | Op::Leave { .. }
        | Op::Subscribe { .. }
        | Op::Deliver { .. }
        | Op::Ack { .. }
        | Op::Fault { .. }
        | Op::Digest { .. }
        | Op::Mark { .. }
        | Op::Log { .. }
        | Op::Leads { .. }
        | Op::Snapshots { .. }
        | Op::Load(_) => None,
    }
}

/// Looks for what a run did not reach.
pub fn check(events: &[Event], wanted: &Wanted, problems: &[String]) -> Check {
    let mut check = named(COVERAGE);
    let reached = Reached::of(events);
    for problem in problems {
        check.unclear(|| format!("the harness: {problem}"));
    }
    let [publishes, records, mails] = reached.during;
    #[rustfmt::skip]
    let table = [
        ("publishes during faults",         publishes,              wanted.publishes),
        ("record requests during faults",   records,                wanted.records),
        ("mailbox requests during faults",  mails,                  wanted.mails),
        ("changes of leaders",              reached.leader_changes, wanted.leader_changes),
        ("snapshots installed",             reached.snapshots,      wanted.snapshots),
    ];
    for (what, got, wanted) in table {
        if got < wanted {
            check.unclear(|| format!("{got} {what}, {wanted} wanted"));
        }
    }
    for (kind, &wanted) in &wanted.loads {
        let got = reached.loads.get(kind).copied().unwrap_or(0);
        if got < wanted {
            check.unclear(|| format!("{got} {} during faults, {wanted} wanted", kind.word()));
        }
    }
    for (fault, &wanted) in &wanted.faults {
        let got = reached.faults.get(fault).copied().unwrap_or(0);
        if got < wanted {
            check.unclear(|| format!("{fault:?} done {got} times, {wanted} wanted"));
        }
    }
    let others = reached.loads.iter().map(|(kind, many)| format!(", {many} {}", kind.word()));
    let others: String = others.collect();
    let (ended, unknown) = reached.ended;
    if unknown * 1_000 > ended * wanted.unknown_permille_max {
        check.unclear(|| format!("{unknown} of {ended} requests unknown"));
    }
    check.detail = format!(
        "during faults {publishes} publishes, {records} record and {mails} mailbox requests{others}; {} leader changes, {} snapshots, \
         {unknown} of {ended} unknown",
        reached.leader_changes, reached.snapshots
    );
    check
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loads::ShareAct;
    use crate::planted::Story;
    use crate::requests::{MailAnswer, MailAsk, RecordAnswer, RecordAsk};

    fn story() -> Story {
        let mut story = Story::with_clients();
        let leads = |leader| Op::Leads { shard: 1, leader, term: leader.into() };
        story.push("harness", Phase::Ok, None, leads(1)).fault(Fault::Kill, 1);
        story.acked(1, 1).recorded(RecordAsk::Get, RecordAnswer::Absent);
        story.mailed(MailAsk::Next, MailAnswer::Front { mail: None });
        story.share(Phase::Ok, "m", ShareAct::Deliver { conn: 1, message: Some(1), dup: false });
        story.push("harness", Phase::Ok, None, leads(2)).fault(Fault::Ready, 1);
        // What comes when all are well does not count.
        story.acked(1, 2).recorded(RecordAsk::Get, RecordAnswer::Absent);
        story.push("harness", Phase::Ok, Some(1), Op::Snapshots { installed: 1 });
        story
    }

    fn wanted() -> Wanted {
        Wanted {
            nodes: 3,
            publishes: 1,
            records: 1,
            mails: 1,
            loads: [(Kind::Shares, 1)].into(),
            faults: [(Fault::Kill, 1)].into(),
            leader_changes: 1,
            snapshots: 1,
            unknown_permille_max: 200,
            replicas: 0,
        }
    }

    fn found(wanted: &Wanted) -> u64 {
        check(&story().events, wanted, &[]).found
    }

    #[test]
    fn what_was_not_reached_makes_a_run_inconclusive() {
        assert_eq!(found(&wanted()), 0);
        let more: [Wanted; 7] = [
            Wanted { loads: [(Kind::Shares, 2)].into(), ..wanted() },
            Wanted { publishes: 2, ..wanted() },
            Wanted { records: 2, ..wanted() },
            Wanted { mails: 2, ..wanted() },
            Wanted { leader_changes: 2, ..wanted() },
            Wanted { snapshots: 2, ..wanted() },
            Wanted { faults: [(Fault::Pause, 1)].into(), ..wanted() },
        ];
        for wanted in more {
            let check = check(&story().events, &wanted, &[]);
            assert_eq!(
                (check.found, check.outcome),
                (1, crate::Outcome::Inconclusive),
                "{check:?}"
            );
        }
        let mut murky = story();
        murky.publish(Phase::Invoke, 1, 3).publish(Phase::Info, 1, 3);
        let strict = Wanted { unknown_permille_max: 100, ..wanted() };
        assert_eq!(check(&murky.events, &strict, &[]).found, 1);
        assert_eq!(check(&story().events, &wanted(), &["it forgot".to_owned()]).found, 1);
    }
}
