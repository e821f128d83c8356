//! A node that is cut off from everybody takes no writes, and answers no reads that have to be the latest, once its lease is over:
//! asked by clients on its own side, who reach nobody else (docs/guarantees.md: it does not guess).

use std::collections::BTreeMap;

use super::{MINORITY, named};
use crate::history::{Event, Fault, Op, Phase};
use crate::requests::{RecordAsk, Requests};
use crate::verdict::Check;

/// What clients on a node's own side are called, in the history.
pub const INSIDE: &str = "inside-";
/// A leader that is cut off may answer reads for so long: nobody else leads before its lease is over.
const LEASE_NS: u64 = 3_500_000_000;

/// A node off the network: from and until which event, and since when.
#[derive(Debug, Clone, Copy)]
struct Cut {
    from: u64,
    from_ns: u64,
    until: u64,
}

fn cuts(events: &[Event]) -> BTreeMap<Option<u32>, Vec<Cut>> {
    let mut cuts: BTreeMap<Option<u32>, Vec<Cut>> = BTreeMap::new();
    for event in events.iter().filter(|event| event.ph == Phase::Ok) {
        let Op::Fault { fault, .. } = event.op else { continue };
        let here = cuts.entry(event.node).or_default();
        if fault == Fault::Cut {
            here.push(Cut { from: event.i, from_ns: event.ns, until: u64::MAX });
        }
        if let (Fault::Heal, Some(cut)) = (fault, here.last_mut()) {
            cut.until = cut.until.min(event.i);
        }
    }
    cuts.retain(|_, cuts| !cuts.is_empty());
    cuts
}

/// Looks for answers that a node on its own must not give. None of a run in which nobody asked from inside.
pub fn check(events: &[Event], requests: &Requests) -> Option<Check> {
    let all = || {
        requests.records.iter().flat_map(|(device, all)| all.iter().map(move |one| (device, one)))
    };
    if !all().any(|(_, one)| one.client.starts_with(INSIDE)) {
        return None;
    }
    let mut check = named(MINORITY);
    let cuts = cuts(events);
    let (mut asked, mut many) = (0_u64, 0_u64);
    for (node, cuts) in &cuts {
        for cut in cuts {
            many += 1;
            let within = all().filter(|(_, one)| {
                one.node == *node && one.invoked > cut.from && one.invoked < cut.until
            });
            for (device, one) in within {
                asked += 1;
                let answered = one.returned.is_some_and(|at| at < cut.until);
                if !answered || one.answer.is_none() {
                    continue;
                }
                let writes = one.outcome == Phase::Ok && one.ask != RecordAsk::Get;
                let late = one.asked_ns > cut.from_ns.saturating_add(LEASE_NS);
                if writes || late {
                    let node = node.unwrap_or(0);
                    check.violated(|| {
                        format!("{device}: event {}: node {node}, cut off at {}, answered {:?} with {:?}", one.invoked, cut.from, one.ask, one.answer)
                    });
                }
            }
        }
    }
    if many > 0 && asked == 0 {
        check.unclear(|| format!("{many} cuts, and nobody asked on the node's side"));
    }
    check.detail = format!("{asked} requests to nodes on their own, {many} cuts");
    Some(check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planted::Story;
    use crate::requests::RecordAnswer;

    fn ask(story: &mut Story, op: u64, ask: RecordAsk, answer: Option<RecordAnswer>) {
        let record = |answer| Op::Record { op, device: "d".into(), ask, answer };
        story.push("inside-1", Phase::Invoke, Some(1), record(None));
        let ph = if answer.is_some() { Phase::Ok } else { Phase::Info };
        story.push("inside-1", ph, Some(1), record(answer));
    }

    #[test]
    fn a_node_on_its_own_answers_nothing_that_has_to_be_true() {
        let is = Some(RecordAnswer::Is { version: 5, value: 1 });
        let create = RecordAsk::Create { value: 1 };
        #[rustfmt::skip]
        let table = [
            (0,     create,         None, 0),
            (0,     create,         is,   1),
            (0,     RecordAsk::Get, is,   0), // within its lease
            (9_000, RecordAsk::Get, is,   1),
            (9_000, RecordAsk::Get, None, 0),
        ];
        for (at, (wait_ms, asks, answer, violations)) in table.into_iter().enumerate() {
            let mut story = Story::new();
            story.fault(Fault::Cut, 1).wait(wait_ms);
            ask(&mut story, 1, asks, answer);
            story.fault(Fault::Heal, 1);
            ask(&mut story, 2, RecordAsk::Get, is);
            assert_eq!(story.found(MINORITY), violations, "line {at}");
        }
    }

    #[test]
    fn a_cut_in_which_nobody_asked_says_nothing() {
        let mut story = Story::new();
        ask(&mut story, 1, RecordAsk::Get, Some(RecordAnswer::Absent));
        story.fault(Fault::Cut, 1).fault(Fault::Heal, 1);
        assert_eq!(story.found(MINORITY), 1);
    }
}
