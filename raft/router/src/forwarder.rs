//! One shard's way to its leader, as a state machine: what is submitted goes in, what to send and whom to answer comes
//! out. No clock, no lock, no I/O: `router` acts.
//!
//! ```text
//!   submit ──► filling ──► runs: [ sent, unanswered … | sealed, not sent … ] ──► Action::Send
//!                             ▲ front: oldest
//!   answered ─► front runs leave in order ──► Action::Complete
//! ```
//!
//! The commands of this process for the shard are numbered by one producer. While fewer than [`RUNS_IN_FLIGHT`] runs are
//! unanswered, what came is sent at once; else it collects, so runs grow exactly when the leader is the bottleneck.
//! After a failure everything unanswered is sent again, to whoever leads now, in the same order and with the same
//! numbers; the machine applies each number once. The oldest run goes alone first: it finds out whether the leader is
//! one.
//!
//! # Invariants
//!
//! - **Once and in order.** Whatever is lost, repeated or late, commands apply once and in the order of submission.
//!   Checked by `tests::whatever_happens_commands_apply_once_and_in_order`.
//! - **Every command is answered once, in order**; "nothing was written" only if it was not sent, or refused each time.
//!   Checked there too.
//! - **Bounded**: [`WAITING_COMMANDS_MAX`], [`WAITING_BYTES_MAX`], and [`COMMAND_DEADLINE`] for the oldest.

mod leader;

use std::{
    collections::VecDeque,
    mem,
    time::{Duration, Instant},
};

use moorline_core::{NodeId, ShardId};
use moorline_group::Role;
use moorline_machine::{
    Answer, COMMANDS_PER_BATCH_MAX, Command, Run, RunAnswers, RunBuilder, command::ProducerId,
};

use self::leader::Search;
use crate::{
    done::{Done, Outcome},
    error::SubmitError,
};

/// Runs that may be unanswered while a smaller run than a full one is sent.
const RUNS_IN_FLIGHT: usize = 2;
/// Commands that may be sent and unanswered; far below the 8,192 answers that the machine remembers per producer.
const WINDOW_COMMANDS: usize = 4096;
/// A run with as many bytes is full.
const RUN_BYTES: usize = 128 * 1024;
/// Commands that may wait for their answers, sent or not.
pub(crate) const WAITING_COMMANDS_MAX: usize = 65_536;
/// Bytes of commands that may wait.
pub(crate) const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long a command may wait for its answer, through leader changes and partitions.
pub(crate) const COMMAND_DEADLINE: Duration = Duration::from_secs(30);
/// A producer that was idle so long gets a new id: the machine forgets idle ones after 15 minutes.
const PRODUCER_IDLE_MAX: Duration = Duration::from_secs(10 * 60);

/// Why a run came back without answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It went to a replica that does not lead; not appended.
    NotLeader {
        /// Who might lead.
        leader: Option<NodeId>,
    },
    /// It went to the leader, which has too much to do; not appended.
    Busy,
    /// It did not get there, or there is no replica; not appended.
    NotTaken,
    /// It went out, and nobody knows what became of it.
    Unknown,
}

impl Failure {
    /// Whether it says that the run was not appended.
    fn is_refusal(self) -> bool {
        match self {
            Self::NotLeader { .. } | Self::Busy | Self::NotTaken => true,
            Self::Unknown => false,
        }
    }
}

/// Names one sending of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    attempt: u64,
    producer: ProducerId,
    first_seq: u64,
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// Send a run; give its outcome to [`Forwarder::answered`], with `sent`.
    Send { to: NodeId, run: Run, sent: Sent },
    /// Tell these what became of their commands, in this order, and at which index.
    Complete(Vec<(Done, Outcome, u64)>),
}

/// What became of a run that was sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answered; so long after the first command of it was submitted.
    Answered(Duration),
    /// To be sent again.
    Failed,
    /// It said nothing new.
    Stale,
}

#[derive(Debug)]
struct Waiting {
    run: Run,
    /// When its first command came.
    since: Instant,
    /// How often it was sent without being refused since: if it was, it may have been applied.
    open: u32,
    /// Answers that came before those of an older run.
    answers: Option<(Vec<Answer>, u64)>,
}

#[derive(Debug)]
pub(crate) struct Forwarder {
    shard: ShardId,
    search: Search,
    filling: RunBuilder,
    /// When the first command of `filling` came.
    filling_since: Instant,
    runs: VecDeque<Waiting>,
    /// How many of `runs`, from the front, this attempt has sent, …
    sent: usize,
    /// … and how many commands they hold.
    sent_commands: usize,
    /// One per command of `runs` and `filling`.
    dones: VecDeque<Done>,
    /// The number of the command of the first of `dones`.
    oldest_seq: u64,
    bytes: usize,
    /// Counts failures, so that what belongs to an earlier attempt can be told.
    attempt: u64,
    completed: Vec<(Done, Outcome, u64)>,
    stopped: bool,
}

impl Forwarder {
    pub(crate) fn new(shard: ShardId, own: NodeId, producer: u64, now: Instant) -> Self {
        Self {
            shard,
            search: Search::new(own),
            filling: RunBuilder::new(ProducerId(producer), 1),
            filling_since: now,
            runs: VecDeque::new(),
            sent: 0,
            sent_commands: 0,
            dones: VecDeque::new(),
            oldest_seq: 1,
            bytes: 0,
            attempt: 0,
            completed: Vec::new(),
            stopped: false,
        }
    }

    /// Takes a command. Gives `done` back, with the reason, if it can't.
    pub(crate) fn submit(
        &mut self,
        command: &Command,
        done: Done,
        now: Instant,
        new_producer: &dyn Fn() -> u64,
    ) -> Result<(), (Done, SubmitError)> {
        if self.stopped {
            return Err((done, SubmitError::Stopped));
        }
        let waiting = self.dones.len();
        if waiting >= WAITING_COMMANDS_MAX || self.bytes >= WAITING_BYTES_MAX {
            return Err((done, SubmitError::Busy { shard: self.shard, waiting }));
        }
        if waiting == 0 && now.saturating_duration_since(self.filling_since) > PRODUCER_IDLE_MAX {
            self.begin_producer(new_producer());
        }
        if self.filling.is_empty() {
            self.filling_since = now;
        }
        let before = self.filling.bytes();
        if let Err(error) = self.filling.push(command) {
            return Err((done, SubmitError::TooLarge { bytes: error.bytes }));
        }
        self.bytes += self.filling.bytes() - before;
        self.dones.push_back(done);
        if self.filling.len() >= COMMANDS_PER_BATCH_MAX || self.filling.bytes() >= RUN_BYTES {
            self.seal();
        }
        Ok(())
    }

    fn seal(&mut self) {
        if let Some(run) = self.filling.take(self.oldest_seq) {
            let since = self.filling_since;
            self.runs.push_back(Waiting { run, since, open: 0, answers: None });
        }
    }

    /// What to do now, if anything. To be asked again until there is nothing.
    pub(crate) fn next_action(
        &mut self,
        now: Instant,
        nodes: &dyn Fn() -> Vec<NodeId>,
    ) -> Option<Action> {
        if !self.completed.is_empty() {
            return Some(Action::Complete(mem::take(&mut self.completed)));
        }
        if !self.may_send() {
            return None;
        }
        let to = self.search.target(now, nodes)?;
        if self.sent == self.runs.len() {
            self.seal();
        }
        let waiting = &mut self.runs[self.sent];
        waiting.open += 1;
        let mut run = waiting.run.clone();
        run.answered_below = self.oldest_seq;
        self.sent += 1;
        self.sent_commands += usize::from(run.count);
        let sent = Sent { attempt: self.attempt, producer: run.producer, first_seq: run.first_seq };
        Some(Action::Send { to, run, sent })
    }

    fn may_send(&self) -> bool {
        let in_flight = if self.search.is_confirmed() { RUNS_IN_FLIGHT } else { 1 };
        match self.runs.get(self.sent) {
            // More than a few in flight only if they are worth it.
            Some(waiting) => {
                let commands = usize::from(waiting.run.count);
                let fits = self.sent_commands + commands <= WINDOW_COMMANDS;
                self.sent < in_flight || (self.search.is_confirmed() && fits)
            }
            None => !self.filling.is_empty() && self.sent < in_flight,
        }
    }

    /// Takes what became of a run that was sent: once per [`Action::Send`].
    pub(crate) fn answered(
        &mut self,
        sent: Sent,
        outcome: Result<RunAnswers, Failure>,
        now: Instant,
        new_producer: &dyn Fn() -> u64,
    ) -> Verdict {
        match outcome {
            Ok(answers) => self.take_answers(sent.attempt, answers, now, new_producer),
            Err(failure) => {
                if failure.is_refusal()
                    && let Some(of) = self.find(sent.producer, sent.first_seq)
                {
                    self.runs[of].open -= 1;
                }
                if sent.attempt != self.attempt {
                    return Verdict::Stale;
                }
                self.fail(failure, now);
                Verdict::Failed
            }
        }
    }

    fn find(&self, producer: ProducerId, first_seq: u64) -> Option<usize> {
        let of = self.runs.partition_point(|waiting| waiting.run.first_seq < first_seq);
        let run = &self.runs.get(of)?.run;
        (run.producer == producer && run.first_seq == first_seq).then_some(of)
    }

    fn take_answers(
        &mut self,
        attempt: u64,
        answers: RunAnswers,
        now: Instant,
        new_producer: &dyn Fn() -> u64,
    ) -> Verdict {
        let RunAnswers { producer, first_seq, answers, index } = answers;
        let Some(of) = self.find(producer, first_seq) else { return Verdict::Stale };
        let waiting = &mut self.runs[of];
        if waiting.answers.is_some() {
            return Verdict::Stale;
        }
        let gap = answers.iter().zip(first_seq..).find_map(|(answer, seq)| {
            let Answer::OutOfOrder { expected } = answer else { return None };
            Some((seq, *expected))
        });
        if gap.is_none() && answers.len() == usize::from(waiting.run.count) {
            // Also of an earlier attempt: what was applied is applied.
            let took = now.saturating_duration_since(waiting.since);
            waiting.answers = Some((answers, index));
            if attempt == self.attempt {
                self.search.confirm();
            }
            self.complete();
            return Verdict::Answered(took);
        }
        if attempt != self.attempt {
            return Verdict::Stale;
        }
        match gap {
            // A run before it was lost on the way: send again from the oldest on.
            Some((seq, expected)) if (self.oldest_seq..=seq).contains(&expected) => {
                self.fail(Failure::Busy, now);
            }
            // The group has forgotten the producer, or the answers: what became of the commands can't be known.
            Some(_) => self.abandon(new_producer()),
            // These are not the answers to this run.
            None => self.fail(Failure::Unknown, now),
        }
        Verdict::Failed
    }

    /// Lets answered runs leave, oldest first.
    fn complete(&mut self) {
        while let Some((answers, index)) =
            self.runs.front_mut().and_then(|front| front.answers.take())
        {
            let run = self.runs.pop_front().expect("it was there").run;
            let count = usize::from(run.count);
            if self.sent > 0 {
                self.sent -= 1;
                self.sent_commands -= count;
            }
            self.bytes -= run.commands.len();
            self.oldest_seq = run.end_seq();
            let ended = self.dones.drain(..count).zip(answers);
            self.completed.extend(ended.map(|(done, answer)| (done, Ok(answer), index)));
        }
    }

    fn fail(&mut self, failure: Failure, now: Instant) {
        self.begin_attempt();
        self.search.failed(failure, now);
    }

    fn begin_attempt(&mut self) {
        self.attempt += 1;
        self.sent = 0;
        self.sent_commands = 0;
    }

    /// Hears who leads, from the replica of this node or from another node.
    pub(crate) fn heard(&mut self, role: Role) {
        if self.search.heard(role) {
            self.begin_attempt();
        }
    }

    /// Time passes. Whether the producer was abandoned.
    pub(crate) fn tick(&mut self, now: Instant, new_producer: &dyn Fn() -> u64) -> bool {
        let oldest = match self.runs.front() {
            Some(front) => front.since,
            None if !self.filling.is_empty() => self.filling_since,
            None => return false,
        };
        let late = now.saturating_duration_since(oldest) >= COMMAND_DEADLINE;
        if late {
            self.abandon(new_producer());
        }
        late
    }

    /// Gives up all that is unanswered, also what was not sent yet: it must not overtake what may be repeated.
    fn abandon(&mut self, producer: u64) {
        let shard = self.shard;
        for waiting in &self.runs {
            let error = match waiting.open {
                0 => SubmitError::NoLeader { shard },
                1.. => SubmitError::Unanswered { shard },
            };
            let dones = self.dones.drain(..usize::from(waiting.run.count));
            self.completed.extend(dones.map(|done| (done, Err(error), 0)));
        }
        let error = SubmitError::NoLeader { shard };
        self.completed.extend(self.dones.drain(..).map(|done| (done, Err(error), 0)));
        self.begin_producer(producer);
    }

    /// The old producer's numbers are never used again, so nothing of it that is still under way can do harm.
    fn begin_producer(&mut self, producer: u64) {
        self.runs.clear();
        self.filling = RunBuilder::new(ProducerId(producer), 1);
        self.oldest_seq = 1;
        self.bytes = 0;
        self.begin_attempt();
        self.search.unconfirm();
    }

    /// Takes nothing more, and answers all that waits.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
        let unsent = self.completed.len();
        self.abandon(0);
        for (_, outcome, _) in &mut self.completed[unsent..] {
            if matches!(outcome, Err(SubmitError::NoLeader { .. })) {
                *outcome = Err(SubmitError::Stopped);
            }
        }
    }

    /// When to ask for the next action again, if nothing else happens.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        if self.may_send() { self.search.retry_at() } else { None }
    }

    /// Who leads, as far as is known here.
    pub(crate) fn leader(&self) -> Role {
        self.search.leader()
    }

    /// How many commands wait.
    pub(crate) fn waiting(&self) -> usize {
        self.dones.len()
    }
}

#[cfg(test)]
pub(crate) mod tests;
