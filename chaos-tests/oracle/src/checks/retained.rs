//! What a topic retains is a register: set, cleared, and read by whoever subscribes anew, on whichever node. A subscriber is given
//! what was set last, in some order that respects who had heard before whom asked; what was cleared stays so.

use std::collections::BTreeMap;

use porcupine_rs::Model as Steps;

use super::linear::{self, Judged};
use super::{RETAINED, named};
use crate::history::{Event, Phase};
use crate::loads::{Held, Load, RetainAsk};
use crate::requests::{Request, take};
use crate::verdict::Check;

/// The register.
#[derive(Debug, Clone)]
struct Register;

/// A request, as far as the register is concerned.
#[derive(Debug, Clone, Copy)]
enum Act {
    Put(Option<u64>),
    Is(Option<u64>),
}

impl Steps for Register {
    type State = Option<u64>;
    type Op = Act;
    type Metadata = ();

    fn init() -> Option<u64> {
        None
    }

    fn step(state: &Option<u64>, op: &Act) -> (bool, Option<u64>) {
        match *op {
            // A put of which nothing was heard may take effect when everything is over.
            Act::Put(value) => (true, value),
            Act::Is(value) => (value == *state, *state),
        }
    }
}

impl Judged for Register {
    type Ask = RetainAsk;
    type Answer = Held;

    fn op(ask: &RetainAsk, answer: Option<&Held>) -> Option<Act> {
        match *ask {
            RetainAsk::Set { value } => Some(Act::Put(Some(value))),
            RetainAsk::Clear => Some(Act::Put(None)),
            RetainAsk::Read => answer.map(|held| Act::Is(held.value)),
        }
    }
}

/// Looks for retained messages that no order explains.
pub fn check(events: &[Event]) -> Option<Check> {
    let mut topics: BTreeMap<&str, Vec<Request<RetainAsk, Held>>> = BTreeMap::new();
    let mut places = BTreeMap::new();
    let mut check = named(RETAINED);
    let (mut many, mut reads) = (0_u64, 0_u64);
    for event in events {
        let Some(Load::Retained(retained)) = Load::of(event) else { continue };
        many += u64::from(event.ph == Phase::Invoke);
        // A PUBACK says that it was done, and nothing of what is held.
        let done = (event.ph == Phase::Ok && retained.ask != RetainAsk::Read)
            .then_some(Held { value: None });
        reads += u64::from(retained.held.is_some());
        let list = topics.entry(&retained.topic).or_default();
        if !take(list, &mut places, event, retained.op, (retained.ask, retained.held.or(done))) {
            check.unclear(|| format!("event {}: an answer without a question", event.i));
        }
    }
    for (topic, requests) in &topics {
        linear::device::<Register>(&mut check, topic, requests, |one| {
            format!("{} asked {:?} and was given {:?}", one.client, one.ask, one.answer)
        });
    }
    check.detail = format!("{many} requests, {reads} reads, {} topics", topics.len());
    (many > 0).then_some(check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planted::Story;
    use RetainAsk::{Clear, Read, Set};

    fn put(story: &mut Story, op: u64, ask: RetainAsk, outcome: Phase) {
        story.retained(Phase::Invoke, op, ask, None).retained(outcome, op, ask, None);
    }

    fn read(story: &mut Story, op: u64, value: Option<u64>) {
        story.retained(Phase::Invoke, op, Read, None);
        story.retained(Phase::Ok, op, Read, Some(Held { value }));
    }

    /// What was asked, and how it came out.
    type Puts<'a> = &'a [(RetainAsk, Phase)];

    /// What was asked, how it came out, and what fresh subscribers were given then.
    fn found(puts: Puts, reads: &[Option<u64>]) -> u64 {
        let mut story = Story::new();
        for (op, &(ask, outcome)) in (0..).zip(puts) {
            put(&mut story, op, ask, outcome);
        }
        for (op, &value) in (50..).zip(reads) {
            read(&mut story, op, value);
        }
        story.found(RETAINED)
    }

    #[test]
    fn a_fresh_subscriber_is_given_what_was_set_last_and_what_was_cleared_stays_so() {
        let (one, two) = ((Set { value: 1 }, Phase::Ok), (Set { value: 2 }, Phase::Ok));
        let (clear, maybe) = ((Clear, Phase::Ok), (Set { value: 3 }, Phase::Info));
        #[rustfmt::skip]
        let table: [(Puts, &[Option<u64>], u64); 12] = [
            (&[],                  &[None],                   0),
            (&[one],               &[Some(1)],                0),
            (&[one, two],          &[Some(2), Some(2)],       0),
            (&[one, clear],        &[None, None],             0),
            (&[one, maybe],        &[Some(1), Some(3)],       0),
            (&[one, (Set { value: 9 }, Phase::Fail)], &[Some(1)], 0),
            (&[one],               &[None],                   1), // lost
            (&[one, two],          &[Some(1)],                1), // stale
            (&[one, clear],        &[Some(1)],                1), // back again
            (&[one, clear],        &[None, Some(1)],          1),
            (&[one, maybe],        &[Some(3), Some(1)],       1), // it came and went
            (&[one],               &[Some(0)],                1), // nobody set it
        ];
        for (at, (puts, reads, violations)) in table.into_iter().enumerate() {
            assert_eq!(found(puts, reads), violations, "line {at}");
        }
    }

    #[test]
    fn those_at_once_may_come_in_either_order() {
        let mut story = Story::new();
        put(&mut story, 1, Set { value: 1 }, Phase::Ok);
        story.retained(Phase::Invoke, 2, Clear, None);
        read(&mut story, 3, Some(1));
        read(&mut story, 4, None);
        story.retained(Phase::Ok, 2, Clear, None);
        assert_eq!(story.found(RETAINED), 0);
        read(&mut story, 5, Some(1));
        assert_eq!(story.found(RETAINED), 1);
    }
}
