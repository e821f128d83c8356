//! From runs to log entries and back to answers: what a leader does with proposals.
//!
//! ```text
//!   propose ─► Collector ─► one batch, stamped ─► openraft (a channel, never waited for)
//!                 ▲                                    │ quorum, apply
//!                 └── a slot is free ◄── answers ◄── Ticket
//! ```
//!
//! # Invariants
//!
//! - **Every reply is called exactly once**: with the answers, or with the reason. An entry whose ticket is dropped, or
//!   that is under way when the leadership is lost, is `Unknown`; what still waits was never appended.
//! - **Entries leave in order.** `order` is held from taking an entry to handing it over.
//! - **No reply under a lock.** A reply may propose again.
//! - **Stamps never go back** within a leadership; the machine clamps them across leaderships.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

use moorline_core::{NodeId, ShardId, UnixMillis};
use moorline_machine::{
    BATCH_BYTES_MAX, RunAnswers,
    batch::{BATCH_HEADER_BYTES, BatchBuilder},
    command::Run,
};
use openraft::{errors::ClientWriteError, raft::ClientWriteResult};

use crate::{
    collector::{BatcherLimits, Collector},
    config::Clock,
    error::ProposeError,
    metrics::ShardMetrics,
    role::Role,
    types::{Commands, Ticket, Types},
};

/// What to call when a run is answered.
pub(crate) type Reply = Box<dyn FnOnce(Result<RunAnswers, ProposeError>) + Send>;
/// What openraft calls when an entry is applied or refused.
pub(crate) type EntryTicket = Ticket<ClientWriteResult<Types>>;

/// What became of an entry that was handed to openraft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handed {
    /// Its ticket will be called or dropped.
    Taken,
    /// Its queue is full: not taken.
    Full,
    /// It is stopped: not taken.
    Stopped,
}

/// Hands an entry over without waiting.
pub(crate) type Hand = Box<dyn Fn(Commands, EntryTicket) -> Handed + Send + Sync>;

/// The proposals of one replica.
pub(crate) struct Proposer {
    shard: ShardId,
    clock: Clock,
    hand: Hand,
    metrics: ShardMetrics,
    order: Mutex<()>,
    state: Mutex<State>,
}

struct State {
    role: Role,
    stopped: bool,
    collector: Collector<Reply>,
    in_flight: VecDeque<Entry>,
    entries: u64,
    stamped: UnixMillis,
}

struct Entry {
    number: u64,
    replies: Vec<Reply>,
    since: Instant,
    /// Whether `send_ready` is done with it: until then only `send_ready` may give up on it, without `order` held.
    handed: bool,
    /// Its ticket was dropped before `handed`.
    dropped: bool,
}

impl fmt::Debug for Proposer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proposer").field("shard", &self.shard).finish_non_exhaustive()
    }
}

impl Proposer {
    pub(crate) fn new(
        shard: ShardId,
        limits: BatcherLimits,
        clock: Clock,
        hand: Hand,
        metrics: ShardMetrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            shard,
            clock,
            hand,
            metrics,
            order: Mutex::new(()),
            state: Mutex::new(State {
                role: Role::default(),
                stopped: false,
                collector: Collector::new(limits),
                in_flight: VecDeque::new(),
                entries: 0,
                stamped: UnixMillis(0),
            }),
        })
    }

    /// Puts a run into the next entry that has room, or says at once why not.
    pub(crate) fn propose(self: &Arc<Self>, run: Run, reply: Reply) {
        let refused = {
            let mut state = self.state();
            match state.refusal(&run) {
                Some(why) => Some((reply, why)),
                None => state.collector.push(run, reply).err().map(|reply| {
                    self.metrics.busy.inc();
                    (reply, ProposeError::Busy)
                }),
            }
        };
        match refused {
            Some((reply, why)) => reply(Err(why)),
            None => self.send_ready(),
        }
    }

    /// What this replica is from now on. A leadership that ended takes its proposals with it.
    pub(crate) fn set_role(&self, role: Role) {
        let (unknown, unsent) = {
            let mut state = self.state();
            let before = std::mem::replace(&mut state.role, role);
            if role.leading && !(before.leading && before.term == role.term) {
                // What an earlier leadership said, perhaps by a wall clock that was wrong, may have reached nobody.
                state.stamped = UnixMillis(0);
            }
            if !before.leading || (role.leading && role.term == before.term) {
                return;
            }
            state.take_all()
        };
        let why = ProposeError::NotLeader { leader: role.leader };
        answer_all(unknown, unsent, why);
    }

    /// Nothing is proposed from now on.
    pub(crate) fn stop(&self) {
        let (unknown, unsent) = {
            let mut state = self.state();
            state.stopped = true;
            state.take_all()
        };
        answer_all(unknown, unsent, ProposeError::Stopped);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while a proposer is locked")
    }

    /// Hands over every entry that may leave now.
    fn send_ready(self: &Arc<Self>) {
        let mut refused = Vec::new();
        {
            let _in_order = self.order.lock().expect("no panic while entries are handed over");
            while let Some((number, commands)) = self.next_entry() {
                let guard = Unanswered { proposer: Arc::clone(self), number, armed: true };
                let ticket = Ticket::new(move |result| guard.answer(result));
                let why = match (self.hand)(commands, ticket) {
                    Handed::Taken if self.is_handed(number) => continue,
                    Handed::Taken => ProposeError::Unknown,
                    Handed::Full => ProposeError::Busy,
                    Handed::Stopped => ProposeError::Stopped,
                };
                refused.extend(self.take(number).map(|entry| (entry, why)));
            }
        }
        for (entry, why) in refused {
            answer(entry, Err(why));
        }
    }

    /// Takes the next entry from the queue and makes it known as under way.
    fn next_entry(&self) -> Option<(u64, Commands)> {
        let now = (self.clock)();
        let mut state = self.state();
        let in_flight = state.in_flight.len();
        let runs = state.collector.next_entry(in_flight)?;
        let mut batch = BatchBuilder::new();
        let mut replies = Vec::with_capacity(runs.len());
        for (run, reply) in runs {
            batch.push(&run);
            replies.push(reply);
        }
        self.metrics.commands_per_entry.observe(batch.len_commands() as f64);
        state.stamped = state.stamped.max(now);
        let commands = Commands(batch.finish(state.stamped));
        state.entries += 1;
        let number = state.entries;
        let entry = Entry { number, replies, since: Instant::now(), handed: false, dropped: false };
        state.in_flight.push_back(entry);
        Some((number, commands))
    }

    /// Notes that openraft has an entry; false if its ticket was dropped meanwhile.
    fn is_handed(&self, number: u64) -> bool {
        let mut state = self.state();
        let Some(entry) = state.in_flight.iter_mut().find(|entry| entry.number == number) else {
            return true; // answered already
        };
        entry.handed = true;
        !entry.dropped
    }

    /// The ticket of an entry is gone without an answer.
    fn dropped(&self, number: u64) -> Option<Entry> {
        let mut state = self.state();
        let at = state.in_flight.iter().position(|entry| entry.number == number)?;
        if !state.in_flight[at].handed {
            state.in_flight[at].dropped = true;
            return None;
        }
        state.in_flight.remove(at)
    }

    fn take(&self, number: u64) -> Option<Entry> {
        let mut state = self.state();
        let at = state.in_flight.iter().position(|entry| entry.number == number)?;
        state.in_flight.remove(at)
    }
}

impl State {
    fn refusal(&self, run: &Run) -> Option<ProposeError> {
        if self.stopped {
            return Some(ProposeError::Stopped);
        }
        if run.encoded_len() > BATCH_BYTES_MAX - BATCH_HEADER_BYTES {
            return Some(ProposeError::TooLarge);
        }
        if self.role.leading {
            return None;
        }
        Some(ProposeError::NotLeader { leader: self.role.leader })
    }

    fn take_all(&mut self) -> (VecDeque<Entry>, Vec<Reply>) {
        let unsent = self.collector.take_all().map(|(_, reply)| reply).collect();
        (std::mem::take(&mut self.in_flight), unsent)
    }
}

/// Held by the ticket of one entry: whatever happens to the ticket, its replies are called.
struct Unanswered {
    proposer: Arc<Proposer>,
    number: u64,
    armed: bool,
}

impl Unanswered {
    fn answer(mut self, result: ClientWriteResult<Types>) {
        self.armed = false;
        let proposer = Arc::clone(&self.proposer);
        let Some(entry) = proposer.take(self.number) else {
            return; // answered when the leadership was lost
        };
        proposer.metrics.propose_seconds.observe(entry.since.elapsed().as_secs_f64());
        answer(entry, result.map(|response| response.data).map_err(|error| refusal(&error)));
        proposer.send_ready();
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        // Dropped uncalled: openraft stopped, or did not take the entry.
        if self.armed
            && let Some(entry) = self.proposer.dropped(self.number)
        {
            answer(entry, Err(ProposeError::Unknown));
        }
    }
}

fn refusal(error: &ClientWriteError<Types>) -> ProposeError {
    match error {
        // Said before the entry is appended.
        ClientWriteError::ForwardToLeader(to) => {
            ProposeError::NotLeader { leader: to.leader_id.map(NodeId) }
        }
        ClientWriteError::LogEntryDiscarded(_)
        | ClientWriteError::ChangeMembershipError(_)
        | ClientWriteError::PreconditionFailed(_) => ProposeError::Unknown,
    }
}

fn answer(entry: Entry, result: Result<Vec<RunAnswers>, ProposeError>) {
    match result {
        Ok(answers) => {
            assert_eq!(answers.len(), entry.replies.len(), "one answer per run");
            for (reply, answers) in entry.replies.into_iter().zip(answers) {
                reply(Ok(answers));
            }
        }
        Err(why) => entry.replies.into_iter().for_each(|reply| reply(Err(why))),
    }
}

fn answer_all(unknown: VecDeque<Entry>, unsent: Vec<Reply>, why: ProposeError) {
    for entry in unknown {
        answer(entry, Err(ProposeError::Unknown));
    }
    for reply in unsent {
        reply(Err(why));
    }
}

#[cfg(test)]
#[path = "proposer_tests.rs"]
mod tests;
