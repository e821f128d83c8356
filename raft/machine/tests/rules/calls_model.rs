//! Random calls to a device, and what a map of them would hold: after each command, with the replica opened anew now and then.

use std::collections::BTreeMap;

use moorline_core::{CallEvent, CallState, UnixMillis};
use moorline_machine::{Answer, CallAnswer, CallRefused, Command, Refused, calls::CallNote};
use proptest::prelude::*;

use crate::{calls::*, devices::*, harness::*};

#[derive(Debug, Clone)]
enum Do {
    Make { id: u128, one_way: bool },
    Note { number: i32, what: usize },
    Delete { id: u128 },
    Pass { ms: u64 },
    Anew,
    Reopen,
}

fn something() -> impl Strategy<Value = Do> {
    prop_oneof![
        4 => (0..6_u128, any::<bool>()).prop_map(|(id, one_way)| Do::Make { id, one_way }),
        8 => (1..12_i32, 0..5_usize).prop_map(|(number, what)| Do::Note { number, what }),
        1 => (0..6_u128).prop_map(|id| Do::Delete { id }),
        3 => (1..WAIT_MS).prop_map(|ms| Do::Pass { ms }),
        1 => Just(Do::Anew),
        1 => Just(Do::Reopen),
    ]
}

#[derive(Debug, Clone)]
struct Expected {
    id: u128,
    one_way: bool,
    state: CallState,
    resends: u32,
    until: u64,
    ended: Option<u64>,
}

#[derive(Debug, Default)]
struct Model {
    last: i32,
    calls: BTreeMap<i32, Expected>,
}

impl Model {
    fn number_of(&self, id: u128) -> Option<i32> {
        self.calls.iter().find(|(_, call)| call.id == id).map(|(number, _)| *number)
    }

    fn happen(call: &mut Expected, event: CallEvent, now: u64) -> bool {
        let state = call.state.after(event, call.one_way);
        let changed = state != call.state;
        call.resends += u32::from(changed && state == CallState::Timeout);
        call.state = state;
        if changed && state.is_final(call.one_way) {
            call.ended = Some(now);
        }
        changed
    }

    /// What is due goes on until nothing is: one `Tick` does it all, of so few.
    fn tick(&mut self, now: u64) {
        for call in self.calls.values_mut() {
            if call.ended.is_none() && call.until <= now {
                Self::happen(call, CallEvent::Expired, now);
            }
        }
        self.calls.retain(|_, call| call.ended.is_none_or(|ended| ended + KEEP_MS > now));
    }
}

struct Run {
    group: Group,
    born: u64,
    model: Model,
}

impl Run {
    fn make(&mut self, id: u128, one_way: bool) {
        let (now, until) = (self.group.now, self.group.now + WAIT_MS);
        let mut making = making(id);
        making.call.one_way = one_way;
        let answer = self.group.one(make(making));
        let known = self.model.number_of(id);
        let number = known.unwrap_or(self.model.last + 1);
        let call = self.model.calls.entry(number).or_insert(Expected {
            id,
            one_way,
            state: CallState::Queued,
            resends: 0,
            until,
            ended: None,
        });
        let (state, repeat, born) = (call.state, known.is_some(), self.born);
        let at = UnixMillis(call.until - WAIT_MS);
        assert!(repeat || at == UnixMillis(now));
        self.model.last = self.model.last.max(number);
        let expected = CallAnswer::Made { born, number, at, state, repeat };
        assert_eq!(answer, Answer::Calls(expected));
    }

    fn note(&mut self, number: i32, what: usize) {
        let now = self.group.now;
        let notes = [
            (CallNote::Sent, CallEvent::Sent),
            (CallNote::Delivered, CallEvent::Delivered),
            (CallNote::Unacknowledged, CallEvent::Unacknowledged { again: true }),
            (answered(false, b"ok"), CallEvent::Answered { failed: false }),
            (answered(true, b"no"), CallEvent::Answered { failed: true }),
        ];
        let (what, mut event) = notes[what].clone();
        let answer = self.group.one(note(self.born, number, what));
        let Some(call) = self.model.calls.get_mut(&number) else {
            assert_eq!(answer, Answer::Refused(Refused::Calls(CallRefused::NoSuchCall)));
            return;
        };
        if let CallEvent::Unacknowledged { again } = &mut event {
            *again = call.resends < 1;
        }
        let changed = Model::happen(call, event, now);
        let state = call.state;
        assert_eq!(answer, Answer::Calls(CallAnswer::Noted { state, changed }));
    }

    fn delete(&mut self, id: u128) {
        let answer = self.group.one(delete(id));
        let call = self.model.number_of(id).and_then(|number| self.model.calls.remove(&number));
        let expected = match call {
            Some(call) => Answer::Calls(CallAnswer::Deleted { state: call.state }),
            None => Answer::Refused(Refused::Calls(CallRefused::NoSuchCall)),
        };
        assert_eq!(answer, expected);
    }

    fn run(&mut self, step: Do) {
        match step {
            Do::Make { id, one_way } => self.make(id, one_way),
            Do::Note { number, what } => self.note(number, what),
            Do::Delete { id } => self.delete(id),
            Do::Pass { ms } => {
                self.group.now += ms;
                self.group.one(Command::Tick);
                self.model.tick(self.group.now);
            }
            Do::Anew => {
                assert_eq!(self.group.one(delete_plain("d")), Answer::Done);
                let answer = self.group.one(put_plain("d"));
                let Answer::Device { born, .. } = answer else { panic!("{answer:?}") };
                (self.born, self.model) = (born, Model::default());
            }
            Do::Reopen => self.group.reopen(),
        }
    }

    fn check(&self) {
        let all: Vec<i32> = self.model.calls.keys().rev().copied().collect();
        assert_eq!(newest_first(&self.group), all);
        let waits = self.model.calls.iter().filter(|(_, call)| call.state.is_waiting());
        assert_eq!(waiting(&self.group), waits.map(|(number, _)| *number).collect::<Vec<_>>());
        for (number, call) in &self.model.calls {
            let read = found(&self.group, call.id).unwrap();
            assert_eq!(
                (read.number, read.state, read.resends),
                (*number, call.state, call.resends)
            );
            assert_eq!(read.ended, call.ended.map(UnixMillis));
            assert!(call.state != CallState::Successful || read.answer.as_deref() == Some(b"ok"));
        }
        let open = self.model.calls.values().filter(|call| call.ended.is_none()).count();
        let totals = self.group.machine.call_totals();
        assert_eq!((totals.open, totals.open + totals.kept), (open as u64, all.len() as u64));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn calls_are_what_a_map_would_hold(steps in prop::collection::vec(something(), 1..60)) {
        let (group, born) = with_device();
        let mut run = Run { group, born, model: Model::default() };
        for step in steps {
            run.run(step);
            run.check();
        }
    }
}
