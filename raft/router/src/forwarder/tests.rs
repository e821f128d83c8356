//! The forwarder against a world that loses, repeats, delays and reorders, and changes leaders.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::mpsc,
};

use moorline_core::TenantId;
use proptest::prelude::*;

use super::*;

const SHARD: ShardId = ShardId(1);
const OWN: NodeId = NodeId(1);

fn nodes() -> Vec<NodeId> {
    vec![OWN, NodeId(2), NodeId(3)]
}

/// A command that can be told from every other.
pub(crate) fn command(id: u32, size: usize) -> Command {
    let name = "n".repeat(size.max(1));
    Command::SetTenant { tenant: TenantId(id), name: name.as_str().into() }
}

fn id_of(command: &Command) -> u32 {
    let Command::SetTenant { tenant, .. } = command else { panic!("not ours: {command:?}") };
    tenant.0
}

/// What the replicated log came to: the machine's rule for repeats, as its documentation says it.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    producers: BTreeMap<u64, Producer>,
    /// Ids, in the order they were applied, with their producer.
    pub(crate) applied: Vec<(u64, u32)>,
    /// Answers everything without a look, to measure the rest.
    pub(crate) accept_all: bool,
}

#[derive(Debug, Default)]
struct Producer {
    last: u64,
    answers: BTreeMap<u64, Answer>,
}

impl Machine {
    pub(crate) fn apply(&mut self, run: &Run) -> RunAnswers {
        if self.accept_all {
            let answers = vec![Answer::Done; usize::from(run.count)];
            let (producer, first_seq) = (run.producer, run.first_seq);
            return RunAnswers { producer, first_seq, answers, index: 0 };
        }
        let producer = self.producers.entry(run.producer.0).or_default();
        let mut answers = Vec::new();
        let mut out_of_order = None;
        for (frame, seq) in run.frames().zip(run.first_seq..) {
            let command = Command::decode(&frame.unwrap()).unwrap();
            let answer = match (out_of_order, producer.answers.get(&seq)) {
                (Some(expected), _) => Answer::OutOfOrder { expected },
                (None, Some(answer)) => answer.clone(),
                (None, None) if seq == producer.last + 1 => {
                    producer.last = seq;
                    self.applied.push((run.producer.0, id_of(&command)));
                    let answer = Answer::At(u64::from(id_of(&command)));
                    producer.answers.insert(seq, answer.clone());
                    answer
                }
                (None, None) => {
                    out_of_order = Some(producer.last + 1);
                    Answer::OutOfOrder { expected: producer.last + 1 }
                }
            };
            answers.push(answer);
        }
        producer.answers = producer.answers.split_off(&run.answered_below);
        let index = self.applied.len() as u64;
        RunAnswers { producer: run.producer, first_seq: run.first_seq, answers, index }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Submit {
        count: u32,
        size: usize,
    },
    /// The n-th run under way arrives, and its outcome travels back.
    Arrive(usize),
    /// It arrives, is applied if it can be, and the answer is lost.
    ArriveUnheard(usize),
    /// It does not arrive, for now.
    Lose(usize),
    /// The leader has too much to do.
    Refuse(usize),
    /// One that did not arrive does so now, perhaps once more.
    Ghost(usize),
    /// The n-th outcome on its way back arrives.
    Hear(usize),
    /// Another node leads.
    Elect(u64),
    /// The own replica says who leads.
    Role,
    Pass(u64),
    /// The group forgets the producer, which is idle.
    Forget,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..4_u32, 1..40_usize).prop_map(|(count, size)| Op::Submit { count, size }),
        1 => (200..600_u32, 1..600_usize).prop_map(|(count, size)| Op::Submit { count, size }),
        8 => (0..3_usize).prop_map(Op::Arrive),
        2 => (0..3_usize).prop_map(Op::ArriveUnheard),
        2 => (0..3_usize).prop_map(Op::Lose),
        1 => (0..3_usize).prop_map(Op::Refuse),
        2 => (0..50_usize).prop_map(Op::Ghost),
        8 => (0..3_usize).prop_map(Op::Hear),
        2 => (1..4_u64).prop_map(Op::Elect),
        3 => Just(Op::Role),
        3 => (1..40_u64).prop_map(Op::Pass),
        1 => (5_000..31_000_u64).prop_map(Op::Pass),
        1 => Just(Op::Forget),
    ]
}

struct UnderWay {
    to: NodeId,
    run: Run,
    sent: Sent,
}

struct World {
    forwarder: Forwarder,
    machine: Machine,
    now: Instant,
    leader: NodeId,
    term: u64,
    next_id: u32,
    next_producer: std::cell::Cell<u64>,
    under_way: Vec<UnderWay>,
    sent: usize,
    /// Runs of which nobody will hear; they may still arrive.
    limbo: Vec<Run>,
    outcomes: Vec<(Sent, Result<RunAnswers, Failure>)>,
    done: mpsc::SyncSender<(u32, Outcome)>,
    ended: mpsc::Receiver<(u32, Outcome)>,
    /// Ids and what became of them, in the order they were told.
    told: Vec<(u32, Outcome)>,
}

impl World {
    fn new() -> Self {
        let (done, ended) = mpsc::sync_channel(100_000);
        let now = Instant::now();
        Self {
            forwarder: Forwarder::new(SHARD, OWN, 1, now),
            machine: Machine::default(),
            now,
            leader: OWN,
            term: 1,
            next_id: 0,
            next_producer: std::cell::Cell::new(1),
            under_way: Vec::new(),
            sent: 0,
            limbo: Vec::new(),
            outcomes: Vec::new(),
            done,
            ended,
            told: Vec::new(),
        }
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Submit { count, size } => (0..count).for_each(|_| self.submit(size)),
            Op::Arrive(nth) => self.arrive(nth, true),
            Op::ArriveUnheard(nth) => self.arrive(nth, false),
            Op::Lose(nth) => self.fail(nth, Failure::Unknown),
            Op::Refuse(nth) => self.fail(nth, Failure::Busy),
            Op::Ghost(nth) => {
                if let Some(run) = self.limbo.get(nth % self.limbo.len().max(1)) {
                    self.machine.apply(run);
                }
            }
            Op::Hear(nth) => {
                if !self.outcomes.is_empty() {
                    let (sent, outcome) = self.outcomes.remove(nth % self.outcomes.len());
                    let new_producer = || new_producer(&self.next_producer);
                    self.forwarder.answered(sent, outcome, self.now, &new_producer);
                }
            }
            Op::Elect(leader) => {
                self.leader = NodeId(leader);
                self.term += 1;
            }
            Op::Role => self.heard(),
            Op::Pass(millis) => {
                self.now += Duration::from_millis(millis);
                let new_producer = || new_producer(&self.next_producer);
                self.forwarder.tick(self.now, &new_producer);
            }
            Op::Forget => {
                if self.forwarder.waiting() == 0 {
                    self.machine.producers.clear();
                    self.under_way.clear();
                    self.limbo.clear();
                }
            }
        }
        self.act();
    }

    fn submit(&mut self, size: usize) {
        let id = self.next_id;
        self.next_id += 1;
        let sender = self.done.clone();
        let done = Done::Call(Box::new(move |outcome| sender.try_send((id, outcome)).unwrap()));
        let new_producer = || new_producer(&self.next_producer);
        let submitted = self.forwarder.submit(&command(id, size), done, self.now, &new_producer);
        submitted.expect("far below the limits");
    }

    fn arrive(&mut self, nth: usize, heard: bool) {
        if self.under_way.is_empty() {
            return;
        }
        let UnderWay { to, run, sent } = self.under_way.remove(nth % self.under_way.len());
        let outcome = if to == self.leader {
            Ok(self.machine.apply(&run))
        } else {
            // Replicas know who leads, or nobody, or somebody who did.
            let leader = [None, Some(self.leader), Some(NodeId(3))][nth % 3];
            Err(Failure::NotLeader { leader })
        };
        self.outcomes.push((sent, if heard { outcome } else { Err(Failure::Unknown) }));
    }

    fn fail(&mut self, nth: usize, failure: Failure) {
        if !self.under_way.is_empty() {
            let UnderWay { run, sent, .. } = self.under_way.remove(nth % self.under_way.len());
            if failure == Failure::Unknown {
                self.limbo.push(run);
            }
            self.outcomes.push((sent, Err(failure)));
        }
    }

    fn heard(&mut self) {
        let leading = self.leader == OWN;
        self.forwarder.heard(Role { leader: Some(self.leader), term: self.term, leading });
    }

    fn act(&mut self) {
        while let Some(action) = self.forwarder.next_action(self.now, &nodes) {
            match action {
                Action::Send { to, run, sent } => {
                    assert!(run.encoded_len() < moorline_machine::BATCH_BYTES_MAX);
                    self.sent += 1;
                    self.under_way.push(UnderWay { to, run, sent });
                }
                Action::Complete(completed) => {
                    for (done, outcome, index) in completed {
                        done.end(outcome, crate::At { shard: SHARD, index });
                    }
                }
            }
        }
        self.told.extend(self.ended.try_iter());
    }

    /// Faults are over: everything must come to its end.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.forwarder.waiting() == 0 {
                return;
            }
            if let Some(at) = self.forwarder.retry_at() {
                self.now = self.now.max(at);
            }
            self.heard();
            self.act();
            self.arrive(0, true);
            self.step(&Op::Hear(0));
        }
        panic!("{} commands wait for ever", self.forwarder.waiting());
    }

    fn check(&self) {
        let ids: Vec<_> = self.told.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, (0..self.next_id).collect::<Vec<_>>(), "answered once, in order");

        let applied: BTreeSet<_> = self.machine.applied.iter().map(|(_, id)| *id).collect();
        assert_eq!(applied.len(), self.machine.applied.len(), "applied once");
        let mut last = BTreeMap::new();
        for (producer, id) in &self.machine.applied {
            let before = last.insert(producer, id);
            assert!(before < Some(id), "{id} after {before:?}");
        }
        for (id, outcome) in &self.told {
            match outcome {
                Ok(answer) => {
                    assert_eq!(*answer, Answer::At(u64::from(*id)), "the answer to this command");
                    assert!(applied.contains(id));
                }
                Err(SubmitError::NoLeader { .. }) => assert!(!applied.contains(id), "{id}"),
                Err(SubmitError::Unanswered { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn new_producer(last: &std::cell::Cell<u64>) -> u64 {
    last.set(last.get() + 1);
    last.get()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whatever_happens_commands_apply_once_and_in_order(
        ops in proptest::collection::vec(op(), 1..150),
    ) {
        let mut world = World::new();
        for op in &ops {
            world.step(op);
        }
        world.settle();
        world.check();
    }
}

/// Steps through a schedule without time running out; everything must be answered with success.
fn check(ops: &[Op]) -> World {
    let mut world = World::new();
    world.heard();
    for op in ops {
        world.step(op);
    }
    world.settle();
    world.check();
    assert!(world.told.iter().all(|(_, outcome)| outcome.is_ok()));
    world
}

const ONE: Op = Op::Submit { count: 1, size: 1 };

#[test]
fn a_lost_answer_is_given_again() {
    let world = check(&[ONE, Op::ArriveUnheard(0), Op::Hear(0), Op::Pass(5)]);
    assert_eq!(world.machine.applied.len(), 1);
    assert_eq!(world.sent, 2);
}

#[test]
fn what_follows_a_lost_run_is_sent_again_behind_it() {
    let confirmed = [ONE, Op::Arrive(0), Op::Hear(0)];
    // Two under way; the first is lost without a word, the second comes out of order.
    let lost = [ONE, ONE, Op::Arrive(1), Op::Hear(0), Op::Pass(5)];
    check(&[&confirmed[..], &lost[..]].concat());
}

#[test]
fn a_new_leader_gets_what_the_old_one_had() {
    // The old leader's copy is still under way then, and harmless.
    let world = check(&[ONE, Op::Elect(2), Op::Role]);
    assert_eq!(world.sent, 2);
}

#[test]
fn while_two_runs_are_unanswered_commands_collect() {
    let mut world = World::new();
    world.heard();
    for op in [ONE, Op::Arrive(0), Op::Hear(0), ONE, ONE, ONE, ONE, ONE] {
        world.step(&op);
    }
    let counts: Vec<_> = world.under_way.iter().map(|sent| sent.run.count).collect();
    assert_eq!(counts, [1, 1]);
    world.step(&Op::Arrive(0));
    world.step(&Op::Hear(0));
    let counts: Vec<_> = world.under_way.iter().map(|sent| sent.run.count).collect();
    assert_eq!(counts, [1, 3], "one went back, three go together");
}

#[test]
fn full_runs_fill_the_window_and_no_more() {
    let mut world = World::new();
    world.heard();
    for op in [ONE, Op::Arrive(0), Op::Hear(0), Op::Submit { count: 10_000, size: 1 }] {
        world.step(&op);
    }
    let commands: usize = world.under_way.iter().map(|sent| usize::from(sent.run.count)).sum();
    assert_eq!(commands, WINDOW_COMMANDS);
    assert!(world.under_way.iter().all(|sent| sent.run.count <= 256));
}

#[test]
fn until_a_leader_has_answered_one_run_finds_out() {
    let mut world = World::new();
    world.heard();
    world.step(&Op::Submit { count: 1_000, size: 1 });
    assert_eq!(world.under_way.len(), 1);
    world.step(&Op::Arrive(0));
    world.step(&Op::Hear(0));
    assert_eq!(world.under_way.len(), 2, "and now as many as there may be");
}

#[test]
fn what_waits_is_bounded() {
    let mut world = World::new();
    world.step(&Op::Submit { count: WAITING_COMMANDS_MAX as u32, size: 1 });
    let full = world.forwarder.submit(&command(0, 1), Done::Ignore, world.now, &|| 2);
    let (_, error) = full.unwrap_err();
    assert_eq!(error, SubmitError::Busy { shard: SHARD, waiting: WAITING_COMMANDS_MAX });

    let mut world = World::new();
    world.step(&Op::Submit { count: 1024, size: 32 * 1024 - 1 });
    let full = world.forwarder.submit(&command(0, 1), Done::Ignore, world.now, &|| 2);
    assert!(matches!(full, Err((_, SubmitError::Busy { .. }))));
    assert!(world.forwarder.bytes < WAITING_BYTES_MAX + 33 * 1024, "one more at most");
}

#[test]
fn a_command_past_its_deadline_takes_the_producer_with_it() {
    let mut world = World::new();
    world.heard();
    world.step(&ONE);
    world.step(&Op::Submit { count: 2, size: 1 });
    world.step(&Op::Pass(29_999));
    assert_eq!(world.told, []);
    world.step(&Op::Pass(1));
    let unanswered = (0, Err(SubmitError::Unanswered { shard: SHARD }));
    let unsent = |id| (id, Err(SubmitError::NoLeader { shard: SHARD }));
    assert_eq!(world.told, [unanswered, unsent(1), unsent(2)]);
    world.step(&ONE);
    world.settle();
    world.check();
    assert_eq!(world.told[3].1, Ok(Answer::At(3)));
    assert_eq!(world.machine.applied.last(), Some(&(2, 3)), "a new producer");
}

#[test]
fn what_was_refused_each_time_is_known_not_to_have_happened() {
    let mut world = World::new();
    world.heard();
    for op in [ONE, Op::Refuse(0), Op::Hear(0), Op::Pass(20), Op::Refuse(0), Op::Hear(0)] {
        world.step(&op);
    }
    world.step(&Op::Pass(30_000));
    assert_eq!(world.told, [(0, Err(SubmitError::NoLeader { shard: SHARD }))]);
    for op in [ONE, Op::Refuse(0), Op::Hear(0), Op::Pass(20), Op::Lose(0), Op::Hear(0)] {
        world.step(&op);
    }
    world.step(&Op::Pass(30_000));
    assert_eq!(world.told[1], (1, Err(SubmitError::Unanswered { shard: SHARD })));
}

#[test]
fn a_forgotten_producer_is_not_mistaken_for_success() {
    let mut world = World::new();
    world.heard();
    for op in [ONE, Op::Arrive(0), Op::Hear(0), Op::Forget, ONE, Op::Arrive(0), Op::Hear(0)] {
        world.step(&op);
    }
    assert_eq!(world.told[1], (1, Err(SubmitError::Unanswered { shard: SHARD })));
    world.step(&ONE);
    world.settle();
    assert_eq!(world.told[2], (2, Ok(Answer::At(2))));
}

#[test]
fn a_long_idle_producer_gets_a_new_number_in_time() {
    let mut world = World::new();
    world.heard();
    for op in [ONE, Op::Arrive(0), Op::Hear(0), Op::Pass(601_000), Op::Forget, ONE] {
        world.step(&op);
    }
    world.settle();
    assert_eq!(world.told[1], (1, Ok(Answer::At(1))));
    assert_eq!(world.machine.applied, [(1, 0), (2, 1)]);
}

#[test]
fn a_stopped_forwarder_answers_all_and_takes_nothing() {
    let mut world = World::new();
    world.heard();
    world.step(&ONE);
    world.step(&ONE);
    world.forwarder.stop();
    world.act();
    let unanswered = (0, Err(SubmitError::Unanswered { shard: SHARD }));
    assert_eq!(world.told, [unanswered, (1, Err(SubmitError::Stopped))]);
    let refused = world.forwarder.submit(&command(0, 1), Done::Ignore, world.now, &|| 2);
    assert!(matches!(refused, Err((_, SubmitError::Stopped))));
}

#[test]
fn a_command_that_is_too_large_leaves_no_trace() {
    let mut world = World::new();
    world.heard();
    let large = Command::Publish {
        tenant: TenantId(1),
        from: None,
        message: moorline_core::Message {
            topic: "t".into(),
            qos: moorline_core::QoS::AtLeastOnce,
            retain: false,
            properties: bytes::Bytes::new(),
            expires_at: None,
            payload: vec![0; moorline_machine::COMMAND_BYTES_MAX + 1].into(),
        },
    };
    let refused = world.forwarder.submit(&large, Done::Ignore, world.now, &|| 2);
    assert!(matches!(refused, Err((_, SubmitError::TooLarge { .. }))));
    assert_eq!(world.forwarder.waiting(), 0);
    world.step(&ONE);
    world.settle();
    world.check();
}
