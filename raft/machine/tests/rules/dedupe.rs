//! A command counts once, in order, and is answered the same way however often it comes.

use std::collections::BTreeMap;

use moorline_core::QoS;
use moorline_machine::{
    ANSWERS_PER_PRODUCER_MAX, Answer, PRODUCER_IDLE_MS_MAX, PRODUCERS_MAX, Run, RunBuilder,
    command::{Command, ProducerId, SessionId},
};
use proptest::prelude::*;

use crate::harness::*;

/// A run of publishes to `t` with the numbers `first..first + count`, each saying who and which it is.
fn run(producer: u64, first: u64, count: u64, answered_below: u64) -> Run {
    let mut builder = RunBuilder::new(ProducerId(producer), first);
    for seq in first..first + count {
        builder.push(&publish("t", &[producer.to_be_bytes(), seq.to_be_bytes()].concat())).unwrap();
    }
    builder.take(answered_below).unwrap()
}

fn group() -> (Group, SessionId) {
    let mut group = Group::new(SHARD);
    let (session, _) = group.subscriber("a", 1, "t");
    (group, session)
}

/// Applied sequence numbers by producer, in queue order.
fn applied(group: &Group, session: SessionId) -> BTreeMap<u64, Vec<u64>> {
    let mut found = BTreeMap::<_, Vec<u64>>::new();
    for (_, payload) in group.queue(session) {
        let (producer, seq) = payload.split_at(8);
        let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
        found.entry(number(producer)).or_default().push(number(seq));
    }
    found
}

fn answers(group: &mut Group, run: &Run) -> Vec<Answer> {
    let answers = group.runs(std::slice::from_ref(run)).pop().unwrap();
    assert_eq!((answers.producer, answers.first_seq), (run.producer, run.first_seq));
    answers.answers
}

const ONE: Answer = Answer::Published { sessions: 1 };

fn again_from(expected: u64) -> Answer {
    Answer::OutOfOrder { expected }
}

#[test]
fn repeats_gaps_and_overlaps_are_told_apart() {
    let (mut group, session) = group();
    #[rustfmt::skip]
    let table = [
        // first, count, answered_below -> answers, applied so far
        ((2, 2, 0), vec![again_from(1); 2],             0),
        ((1, 3, 1), vec![ONE; 3],                       3),
        ((1, 3, 1), vec![ONE; 3],                       3),
        ((2, 1, 1), vec![ONE],                          3),
        ((2, 4, 1), vec![ONE; 4],                       5),
        ((7, 1, 1), vec![again_from(6)],                5),
        // All below 4 have their answers: the row of 1 to 3 goes, that of 4 and 5 stays.
        ((6, 1, 4), vec![ONE],                          6),
        ((4, 3, 4), vec![ONE; 3],                       6),
        ((3, 4, 4), vec![again_from(7); 4],             6),
        ((3, 9, 4), vec![again_from(7); 9],             6),
        ((4, 5, 4), vec![ONE; 5],                       8),
    ];
    for ((first, count, answered_below), expected, so_far) in table {
        let run = run(2, first, count, answered_below);
        assert_eq!(answers(&mut group, &run), expected, "{first} {count} {answered_below}");
        let applied = applied(&group, session).remove(&2).unwrap_or_default();
        assert_eq!(applied, (1..=so_far).collect::<Vec<u64>>(), "{first} {count}");
    }
}

#[test]
fn a_repeat_gets_the_answer_of_its_time() {
    let mut group = Group::new(SHARD);
    let mut builder = RunBuilder::new(ProducerId(2), 1);
    builder.push(&open("c", 1, false, 60)).unwrap();
    builder.push(&publish("t", b"")).unwrap();
    let run = builder.take(1).unwrap();
    let first = answers(&mut group, &run);
    let Answer::Opened { session, epoch, .. } = first[0] else { panic!() };
    group.one(subscribe(session, epoch, &[("t", QoS::AtLeastOnce)]));
    group.one(open("c", 2, false, 60));
    group.reopen();
    assert_eq!(answers(&mut group, &run), first);
    assert!(group.effects.is_empty());
}

#[test]
fn one_batch_can_hold_a_run_twice() {
    let (mut group, session) = group();
    let run = run(2, 1, 2, 1);
    let all = group.runs(&[run.clone(), run]);
    assert_eq!(all[0], all[1]);
    assert_eq!(applied(&group, session)[&2], [1, 2]);
}

#[test]
fn remembered_answers_are_bounded_for_who_never_confirms() {
    let (mut group, session) = group();
    let step = 1000;
    let runs = 2 * ANSWERS_PER_PRODUCER_MAX as u64 / step;
    for n in 0..runs {
        answers(&mut group, &run(2, 1 + n * step, step, 0));
    }
    assert!(group.rows.count(KIND_ANSWERS) <= ANSWERS_PER_PRODUCER_MAX / step as usize + 1);
    let next = runs * step + 1;
    assert_eq!(answers(&mut group, &run(2, 1, 1, 0)), [again_from(next)]);
    assert_eq!(answers(&mut group, &run(2, next - 1, 1, 0)), [ONE]);
    assert_eq!(applied(&group, session)[&2].len() as u64, runs * step);
}

#[test]
fn idle_producers_are_forgotten_and_have_to_begin_anew() {
    let (mut group, session) = group();
    answers(&mut group, &run(2, 1, 3, 1));
    group.now += PRODUCER_IDLE_MS_MAX;
    // The group's own producer proposes the tick: it is not idle, though it was.
    group.one(Command::Tick);
    assert_eq!((group.rows.count(KIND_PRODUCER), group.machine.counts().producers), (1, 1));
    assert_eq!(answers(&mut group, &run(2, 4, 1, 4)), [again_from(1)]);
    assert_eq!(applied(&group, session)[&2], [1, 2, 3]);
}

#[test]
fn the_longest_idle_producer_makes_room_for_a_new_one() {
    let (mut group, _) = group();
    let others = u64::try_from(PRODUCERS_MAX).unwrap();
    let runs: Vec<_> = (0..others - 1).map(|n| run(100 + n, 1, 1, 1)).collect();
    group.now += 1;
    group.runs(&runs);
    assert_eq!(group.machine.counts().producers, PRODUCERS_MAX);
    group.now += 1;
    group.runs(&[run(2, 1, 1, 1)]);
    assert_eq!(group.machine.counts().producers, PRODUCERS_MAX);
    assert_eq!(answers(&mut group, &run(1, 9, 1, 9)), [again_from(1)], "the oldest went");
}

/// What the network does with the runs of a producer that sends all it has, again and again.
#[derive(Debug, Clone)]
struct Send {
    producer: u64,
    /// How far behind what is answered it begins, and how many it sends.
    back: u64,
    ahead: u64,
    count: u64,
    copies: usize,
    confirm: bool,
}

fn send() -> impl Strategy<Value = Send> {
    (2..4_u64, 0..4_u64, 0..3_u64, 1..6_u64, 0..3_usize, any::<bool>()).prop_map(
        |(producer, back, ahead, count, copies, confirm)| Send {
            producer,
            back,
            ahead,
            count,
            copies,
            confirm,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_is_lost_repeated_or_overtaken_counts_once_in_order(
        sends in prop::collection::vec(send(), 1..40),
        reopen_at in 0..40_usize,
    ) {
        let (mut group, session) = group();
        let mut last = BTreeMap::<u64, u64>::new();
        let mut confirmed = BTreeMap::<u64, u64>::new();
        for (n, send) in sends.iter().enumerate() {
            let last = last.entry(send.producer).or_default();
            let confirmed = confirmed.entry(send.producer).or_insert(1);
            let first = (*last + 1 + send.ahead).saturating_sub(send.back).max(1);
            let run = run(send.producer, first, send.count, *confirmed);
            for _ in 0..send.copies {
                let answers = answers(&mut group, &run);
                let whole = first <= *last + 1;
                let known = first >= *confirmed || first > *last;
                if whole && known {
                    prop_assert_eq!(&answers, &vec![ONE; send.count as usize]);
                    *last = (*last).max(first + send.count - 1);
                } else if !whole {
                    prop_assert_eq!(&answers, &vec![again_from(*last + 1); send.count as usize]);
                } else if answers[0] == ONE {
                    // Confirmed, but still remembered: rows go as a whole.
                    *last = (*last).max(first + send.count - 1);
                }
            }
            if send.confirm {
                *confirmed = *last + 1;
            }
            if n == reopen_at {
                group.reopen();
            }
        }
        for (producer, last) in last {
            let applied = applied(&group, session).remove(&producer).unwrap_or_default();
            prop_assert_eq!(applied, (1..=last).collect::<Vec<_>>());
        }
    }
}
