//! The audit: every change that was answered with success has exactly one record, whichever node was asked and whichever died;
//! what was refused has none, and what nobody answered one or none (docs/decisions/021-audit.md).

use std::collections::BTreeMap;

use super::{AUDIT, named};
use crate::history::{Event, Phase};
use crate::loads::{Audited, Churn, ChurnAct, Load};
use crate::requests::{RecordAnswer, RecordAsk, RecordRequest, Requests};
use crate::verdict::Check;

/// Changes of a device: those that were answered with success, and those of which it is not known.
#[derive(Debug, Default, Clone, Copy)]
struct Changes {
    puts: (u64, u64),
    deletes: (u64, u64),
}

impl Changes {
    fn add(&mut self, deletes: bool, outcome: Phase) {
        let of = if deletes { &mut self.deletes } else { &mut self.puts };
        match outcome {
            Phase::Ok => of.0 += 1,
            Phase::Info => of.1 += 1,
            Phase::Invoke | Phase::Fail => {}
        }
    }
}

/// Compares what clients know of changes with the records that there are of them.
pub fn check(events: &[Event], requests: &Requests) -> Option<Check> {
    let mut changes: BTreeMap<&str, Changes> = BTreeMap::new();
    let mut records: BTreeMap<&str, &Audited> = BTreeMap::new();
    let mut asked = BTreeMap::new();
    for event in events {
        match Load::of(event) {
            Some(Load::Audited(audited)) => {
                records.insert(&audited.device, audited);
            }
            Some(Load::Churn(Churn { device, act: ChurnAct::Change { deletes } })) => {
                let entry = changes.entry(device).or_default();
                let under_way = asked.entry((device, *deletes)).or_insert(0_u64);
                if event.ph == Phase::Invoke {
                    *under_way += 1;
                } else {
                    *under_way -= 1;
                    entry.add(*deletes, event.ph);
                }
            }
            _ => {}
        }
    }
    // Of a request that was cut off with the run nothing was heard.
    for ((device, deletes), many) in asked {
        (0..many).for_each(|_| changes.entry(device).or_default().add(deletes, Phase::Info));
    }
    for (device, all) in &requests.records {
        let entry = changes.entry(device).or_default();
        all.iter().filter_map(changed).for_each(|(deletes, ph)| entry.add(deletes, ph));
    }
    if records.is_empty() {
        return None;
    }
    let mut check = named(AUDIT);
    let (mut sure, mut there) = (0_u64, 0_u64);
    for (device, Changes { puts, deletes }) in &changes {
        let (has_puts, has_deletes) =
            records.get(device).map_or((0, 0), |audited| (audited.puts, audited.deletes));
        sure += puts.0 + deletes.0;
        there += has_puts + has_deletes;
        for (what, has, (done, maybe)) in
            [("changes", has_puts, *puts), ("deletions", has_deletes, *deletes)]
        {
            if has < done || has > done + maybe {
                check.violated(|| {
                    format!("{device}: {has} records of {done} {what}, and of {maybe} that may be")
                });
            }
        }
    }
    check.detail = format!("{there} records of {sure} changes that are sure");
    Some(check)
}

/// Whether a request changed a record, if it may have.
fn changed(one: &RecordRequest) -> Option<(bool, Phase)> {
    let deletes = match one.ask {
        RecordAsk::Get => return None,
        RecordAsk::Create { .. } | RecordAsk::Update { .. } => false,
        RecordAsk::Delete { .. } => true,
    };
    // A write that found its record gone when it read it back may have been done.
    let is_update = matches!(one.ask, RecordAsk::Update { .. });
    let gone = is_update && one.answer == Some(RecordAnswer::Absent);
    Some((deletes, if gone { Phase::Info } else { one.outcome }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Op;
    use crate::planted::Story;

    /// How changes of a device came out, and how many records there are of them.
    fn found(outcomes: &[Phase], puts: u64) -> u64 {
        let mut story = Story::new();
        for &outcome in outcomes {
            let change = ChurnAct::Change { deletes: false };
            story.churn(Phase::Invoke, 1, change.clone()).churn(outcome, 1, change);
        }
        let audited = |device: &str, puts| {
            Op::Load(Load::Audited(Audited { device: device.into(), puts, deletes: 0 }))
        };
        story.push("w8", Phase::Ok, None, audited("d", puts));
        story.push("w8", Phase::Ok, None, audited("other", 1));
        story.found(AUDIT)
    }

    #[test]
    fn every_change_has_one_record() {
        use Phase::{Fail, Info, Ok};
        #[rustfmt::skip]
        let table: [(&[Phase], u64, u64); 8] = [
            (&[Ok, Ok],   2, 0),
            (&[Ok, Info], 1, 0),
            (&[Ok, Info], 2, 0),
            (&[Ok, Fail], 1, 0),
            (&[Ok, Ok],   1, 1), // one is missing
            (&[Ok, Ok],   3, 1), // one is there twice
            (&[Ok, Fail], 2, 1), // what was refused has one
            (&[Ok, Info], 0, 1),
        ];
        for (outcomes, puts, violations) in table {
            assert_eq!(found(outcomes, puts), violations, "{outcomes:?} {puts}");
        }
    }

    #[test]
    fn records_of_the_registry_count_too() {
        let is = RecordAnswer::Is { version: 5, value: 1 };
        let mut story = Story::new();
        story.recorded(RecordAsk::Create { value: 1 }, is).recorded(RecordAsk::Get, is);
        story.recorded(RecordAsk::Create { value: 2 }, RecordAnswer::Exists);
        // The planted answer is `ok`; a refusal is `fail`.
        story.events.last_mut().unwrap().ph = Phase::Fail;
        let audited =
            |puts| Op::Load(Load::Audited(Audited { device: "d".into(), puts, deletes: 0 }));
        story.push("w8", Phase::Ok, None, audited(1));
        assert_eq!(story.found(AUDIT), 0);
        story.push("w8", Phase::Ok, None, audited(2));
        assert_eq!(story.found(AUDIT), 1);
    }
}
