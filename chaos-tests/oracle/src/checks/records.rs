//! The registry is one register a device, with versions, wherever it is asked: made, read, written if the version is still the
//! one, deleted, in some order that respects who had heard before whom asked.
//!
//! The answer to a write shows the record as it was read a moment later. So it counts as two requests: a write that was done,
//! and a read.

use std::collections::BTreeMap;

use porcupine_rs::Model as Steps;

use super::linear::{self, Judged};
use super::{REGISTRY, named};
use crate::requests::{RecordAnswer, RecordAsk, RecordRequest, Requests};
use crate::verdict::Check;

/// The register.
#[derive(Debug, Clone)]
struct Register;

/// What a device's record is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct State {
    /// Its version, if anybody ever saw it, and what it holds.
    now: Option<(Option<u64>, u64)>,
    /// The highest version there was: it never goes back, not even when the record is made anew.
    highest: u64,
}

/// How a write came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    Done,
    /// Refused for this reason, which says something of the state.
    Refused(RecordAnswer),
    Unknown,
}

/// A request, with the version that its value was seen with.
#[derive(Debug, Clone, Copy)]
enum Act {
    Create { value: u64, version: Option<u64>, came: Came },
    Update { value: u64, version: Option<u64>, if_version: Option<u64>, came: Came },
    Delete { if_version: Option<u64>, came: Came },
    Read(RecordAnswer),
}

impl State {
    fn written(self, version: Option<u64>, value: u64) -> Self {
        Self { now: Some((version, value)), highest: version.unwrap_or(0).max(self.highest) }
    }

    /// Whether a version that was seen can be the one of a write here.
    fn can_become(self, version: Option<u64>) -> bool {
        version.is_none_or(|version| version > self.highest)
    }

    /// Whether a condition holds, of a record that is there. A version that nobody saw is nobody's condition.
    fn fits(self, if_version: Option<u64>) -> bool {
        match (self.now, if_version) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some((version, _)), Some(wanted)) => version == Some(wanted),
        }
    }
}

/// A write: done only where it may be, refused only for a reason, and whatever it can be if that is not known.
fn write(state: State, may: bool, came: Came, then: State) -> (bool, State) {
    match came {
        Came::Done => (may, then),
        Came::Refused(why) => {
            let so = match why {
                RecordAnswer::Absent => state.now.is_none(),
                RecordAnswer::Exists => state.now.is_some(),
                // The condition was wrong when it was looked at.
                RecordAnswer::OtherVersion => state.now.is_some() && !may,
                RecordAnswer::Is { .. } | RecordAnswer::Deleted => false,
            };
            (so, state)
        }
        Came::Unknown => (true, if may { then } else { state }),
    }
}

impl Steps for Register {
    type State = State;
    type Op = Act;
    type Metadata = ();

    fn init() -> State {
        State::default()
    }

    fn step(state: &State, op: &Act) -> (bool, State) {
        let state = *state;
        match *op {
            Act::Create { value, version, came } => {
                let may = state.now.is_none() && state.can_become(version);
                write(state, may, came, state.written(version, value))
            }
            Act::Update { value, version, if_version, came } => {
                let may = state.fits(if_version) && state.can_become(version);
                write(state, may, came, state.written(version, value))
            }
            Act::Delete { if_version, came } => {
                write(state, state.fits(if_version), came, State { now: None, ..state })
            }
            Act::Read(RecordAnswer::Is { version, value }) => {
                (state.now == Some((Some(version), value)), state)
            }
            Act::Read(_) => (state.now.is_none(), state),
        }
    }
}

/// A request, cut to what it says, with the version its value was seen with.
type Question = (RecordAsk, Option<u64>);

impl Judged for Register {
    type Ask = Question;
    type Answer = RecordAnswer;

    fn op((ask, version): &Question, answer: Option<&RecordAnswer>) -> Option<Act> {
        let came = match answer {
            Some(RecordAnswer::Is { .. } | RecordAnswer::Deleted) => Came::Done,
            Some(
                &why @ (RecordAnswer::Absent | RecordAnswer::Exists | RecordAnswer::OtherVersion),
            ) => Came::Refused(why),
            None => Came::Unknown,
        };
        let version = *version;
        Some(match *ask {
            RecordAsk::Create { value } => Act::Create { value, version, came },
            RecordAsk::Update { value, if_version } => {
                // A write that was done and read back when the record was gone says the same.
                let came =
                    if came == Came::Refused(RecordAnswer::Absent) { Came::Unknown } else { came };
                Act::Update { value, version, if_version, came }
            }
            RecordAsk::Delete { if_version } => Act::Delete { if_version, came },
            RecordAsk::Get => Act::Read(*answer?),
        })
    }
}

/// The version that each value was seen with.
fn versions(requests: &[RecordRequest]) -> BTreeMap<u64, u64> {
    let seen = requests.iter().filter_map(|one| match one.answer {
        Some(RecordAnswer::Is { version, value }) => Some((value, version)),
        Some(
            RecordAnswer::Deleted
            | RecordAnswer::Absent
            | RecordAnswer::Exists
            | RecordAnswer::OtherVersion,
        )
        | None => None,
    });
    seen.collect()
}

/// Requests as the register takes them: a write's answer is a read besides.
fn questions(requests: &[RecordRequest]) -> Vec<crate::requests::Request<Question, RecordAnswer>> {
    let versions = versions(requests);
    let mut all = Vec::new();
    for one in requests {
        let of = |ask: RecordAsk| {
            let version = match ask {
                RecordAsk::Create { value } | RecordAsk::Update { value, .. } => {
                    versions.get(&value).copied()
                }
                RecordAsk::Get | RecordAsk::Delete { .. } => None,
            };
            one.asking((ask, version))
        };
        all.push(of(one.ask));
        if one.ask != RecordAsk::Get && matches!(one.answer, Some(RecordAnswer::Is { .. })) {
            all.push(of(RecordAsk::Get));
        }
    }
    all
}

/// Looks for answers that no order explains.
pub fn check(requests: &Requests) -> Check {
    let mut check = named(REGISTRY);
    let mut many = 0;
    for (device, all) in &requests.records {
        many += all.len();
        linear::device::<Register>(&mut check, device, &questions(all), |one| {
            format!("{} asked {:?} and heard {:?}", one.client, one.ask.0, one.answer)
        });
    }
    check.detail = format!("{many} requests about {} records", requests.records.len());
    check
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Phase;
    use crate::planted::Story;
    use RecordAnswer::{Absent, Deleted, Exists, OtherVersion};
    use RecordAsk::{Create, Delete, Get, Update};

    fn is(version: u64, value: u64) -> RecordAnswer {
        RecordAnswer::Is { version, value }
    }

    fn found(all: &[(RecordAsk, RecordAnswer)]) -> u64 {
        let mut story = Story::new();
        for &(ask, answer) in all {
            story.recorded(ask, answer);
        }
        story.found(REGISTRY)
    }

    #[test]
    fn one_after_the_other_only_what_a_register_does_is_right() {
        let (create, get) = ((Create { value: 1 }, is(5, 1)), |answer| (Get, answer));
        let update = |value, version| Update { value, if_version: Some(version) };
        #[rustfmt::skip]
        let table: [(&[(RecordAsk, RecordAnswer)], u64); 14] = [
            (&[create, get(is(5, 1)), (update(2, 5), is(9, 2)), get(is(9, 2))],            0),
            (&[create, (Delete { if_version: Some(5) }, Deleted), get(Absent)],            0),
            (&[create, (Create { value: 2 }, Exists), get(is(5, 1))],                      0),
            (&[create, (update(2, 5), is(9, 2)), (update(3, 5), OtherVersion)],            0),
            (&[get(Absent), create, (Delete { if_version: None }, Deleted), (Create { value: 2 }, is(9, 2))], 0),
            (&[create, (update(2, 5), is(9, 2)), get(is(5, 1))],                           1), // a stale read
            (&[create, get(Absent)],                                                       1), // a lost write
            (&[create, (Create { value: 2 }, is(9, 2))],                                   1), // made twice
            (&[create, (update(2, 5), is(9, 2)), (update(3, 5), is(12, 3))],               1), // a lost update
            (&[create, (update(2, 5), OtherVersion)],                                      1), // a refusal without reason
            (&[create, (Delete { if_version: None }, Deleted), get(is(5, 1))],             1), // back from the dead
            (&[create, (update(2, 5), is(4, 2))],                                          1), // a version that goes back
            (&[create, (Delete { if_version: None }, Deleted), (Create { value: 2 }, is(5, 2))], 1), // a version given twice
            (&[(Create { value: 1 }, Exists)],                                             1), // of nothing
        ];
        for (at, (story, violations)) in table.into_iter().enumerate() {
            assert_eq!(found(story), violations, "story {at}");
        }
    }

    #[test]
    fn what_is_unknown_may_have_happened_or_not_but_not_come_and_go() {
        let get = |answer| (Get, answer);
        #[rustfmt::skip]
        let table: [(&[(RecordAsk, RecordAnswer)], u64); 4] = [
            (&[get(is(5, 1)), get(is(5, 1))],              0),
            (&[get(is(5, 1)), get(is(9, 2))],              0),
            (&[get(is(5, 1)), get(is(9, 2)), get(is(5, 1))], 1),
            (&[get(is(9, 3))],                             1), // nobody wrote it
        ];
        for (at, (later, violations)) in table.into_iter().enumerate() {
            let mut story = Story::new();
            story.recorded(Create { value: 1 }, is(5, 1));
            let update = Update { value: 2, if_version: Some(5) };
            story.record(Phase::Invoke, 90, update, None).record(Phase::Info, 90, update, None);
            for &(ask, answer) in later {
                story.recorded(ask, answer);
            }
            assert_eq!(story.found(REGISTRY), violations, "story {at}");
        }
    }

    #[test]
    fn those_at_once_may_come_in_either_order_and_the_example_names_the_first_wrong_answer() {
        let mut story = Story::new();
        story.recorded(Create { value: 1 }, is(5, 1));
        let update = Update { value: 2, if_version: None };
        story.record(Phase::Invoke, 90, update, None);
        story.recorded(Get, is(5, 1)).recorded(Get, is(9, 2));
        story.record(Phase::Ok, 90, update, Some(is(9, 2)));
        assert_eq!(story.found(REGISTRY), 0);
        story.recorded(Get, is(5, 1)).recorded(Get, is(5, 1));
        let verdict = story.judged();
        let example = &verdict.check(REGISTRY).unwrap().examples[0];
        let wrong = story.events.iter().filter(|event| event.p == "w4").nth_back(2).unwrap().i;
        assert!(example.starts_with(&format!("d: no order explains event {wrong}:")), "{example}");
    }
}
