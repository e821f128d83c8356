//! A node's way into one group: one producer, commands in sequence order, sent again until they are answered.

use std::collections::VecDeque;

use moorline_core::Offset;
use moorline_machine::{
    Answer, Command, Run, RunAnswers, RunBuilder,
    command::{ProducerId, SessionId},
};

use crate::Mutant;

/// Commands of one run at most: small, so that runs are split.
const RUN_COMMANDS_MAX: usize = 6;
/// Commands sent and not answered at most.
const WINDOW_COMMANDS: usize = 24;
/// Nothing was heard for so long: send again.
const RESEND_MS: u64 = 60;
/// Then the outcome is unknown, and the producer begins anew.
const DEADLINE_MS: u64 = 3_000;

/// What a command was for: told back with its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    Publish {
        publisher: usize,
        link: u64,
        number: u64,
    },
    Open {
        subscriber: usize,
        link: u64,
    },
    Subscribe {
        subscriber: usize,
        link: u64,
    },
    Settle {
        session: SessionId,
        upto: Offset,
        also: Vec<Offset>,
    },
    /// Nobody waits for it.
    Other,
}

/// A command's end: its answer, or none if it is unknown.
pub(crate) type Outcome = (Purpose, Option<Answer>);

struct Outstanding {
    command: Command,
    purpose: Purpose,
    since_ms: u64,
    answer: Option<Answer>,
}

pub(crate) struct Router {
    producer: ProducerId,
    /// The sequence number of the first outstanding command.
    first_seq: u64,
    outstanding: VecDeque<Outstanding>,
    /// How many of those were sent.
    sent: usize,
    last_heard_ms: u64,
    mutant: Mutant,
}

impl Router {
    pub(crate) fn new(producer: u64, mutant: Mutant) -> Self {
        Self {
            producer: ProducerId(producer),
            first_seq: 1,
            outstanding: VecDeque::new(),
            sent: 0,
            last_heard_ms: 0,
            mutant,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.outstanding.is_empty()
    }

    pub(crate) fn submit(&mut self, now_ms: u64, command: Command, purpose: Purpose) {
        if self.outstanding.is_empty() {
            self.last_heard_ms = now_ms;
        }
        self.outstanding.push_back(Outstanding {
            command,
            purpose,
            since_ms: now_ms,
            answer: None,
        });
    }

    /// The next run to send, if there is one.
    pub(crate) fn next_run(&mut self, now_ms: u64, commands_max: usize) -> Option<Run> {
        if self.sent > 0 && now_ms >= self.last_heard_ms + RESEND_MS {
            self.last_heard_ms = now_ms;
            self.send_again();
        }
        let end = self.outstanding.len().min(WINDOW_COMMANDS);
        let count = end.saturating_sub(self.sent).min(commands_max).min(RUN_COMMANDS_MAX);
        let mut run = RunBuilder::new(self.producer, self.first_seq + self.sent as u64);
        for outstanding in self.outstanding.range(self.sent..self.sent + count) {
            run.push(&outstanding.command).expect("simulated commands are small");
        }
        self.sent += count;
        run.take(self.first_seq)
    }

    /// Whatever was sent may be lost.
    pub(crate) fn send_again(&mut self) {
        if self.mutant == Mutant::NewestFirst && self.sent > 1 {
            // The bug: what was never answered is taken for the end of the line.
            self.outstanding.make_contiguous()[..].rotate_left(1);
        }
        self.sent = 0;
    }

    /// Takes note of the answers to a run that said `answered_below`; gives the outcomes that are known now, in order.
    pub(crate) fn answered(
        &mut self,
        now_ms: u64,
        fresh: u64,
        answered_below: u64,
        run: RunAnswers,
    ) -> Vec<Outcome> {
        if run.producer != self.producer {
            return Vec::new();
        }
        self.last_heard_ms = now_ms;
        for (seq, answer) in (run.first_seq..).zip(run.answers) {
            if let Answer::OutOfOrder { expected } = answer {
                if expected < answered_below {
                    // When the run was sent the group had come further: it has forgotten this producer.
                    return self.abandon(fresh);
                }
                // An old answer may name what has been answered meanwhile.
                if let Some(known) = expected.checked_sub(self.first_seq) {
                    self.sent = self.sent.min(usize::try_from(known).expect("a short line"));
                }
                break;
            }
            let Some(at) = seq.checked_sub(self.first_seq) else { continue };
            let at = usize::try_from(at).expect("a short line");
            if let Some(outstanding) = self.outstanding.get_mut(at) {
                outstanding.answer = Some(answer);
            }
        }
        let mut outcomes = Vec::new();
        while self.outstanding.front().is_some_and(|first| first.answer.is_some()) {
            let first = self.outstanding.pop_front().expect("there is a first");
            self.first_seq += 1;
            self.sent = self.sent.saturating_sub(1);
            outcomes.push((first.purpose, first.answer));
        }
        outcomes
    }

    /// Gives up when the oldest command waited too long. `fresh` is a producer id never used before.
    pub(crate) fn expire(&mut self, now_ms: u64, fresh: u64) -> Vec<Outcome> {
        match self.outstanding.front() {
            Some(oldest) if now_ms > oldest.since_ms + DEADLINE_MS => self.abandon(fresh),
            Some(_) | None => Vec::new(),
        }
    }

    /// All outcomes are unknown but those heard of out of order; the next command begins a new line.
    fn abandon(&mut self, fresh: u64) -> Vec<Outcome> {
        let given_up = std::mem::take(&mut self.outstanding);
        *self = Self::new(fresh, self.mutant);
        given_up.into_iter().map(|outstanding| (outstanding.purpose, outstanding.answer)).collect()
    }
}
