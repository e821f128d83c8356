//! One group's replicated log, as Raft promises it: what is committed stays, a leader change may lose the rest.

use bytes::Bytes;
use moorline_core::{ShardId, UnixMillis};
use moorline_machine::{BatchBuilder, Run, command::ProducerId};

use crate::{network::Process, replica::Replica};

/// Entries proposed and not committed at most.
const IN_FLIGHT_MAX: usize = 6;

/// Who waits for the answers to a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) from: Process,
    /// What the run said: the call that is answered remembers it.
    pub(crate) producer: ProducerId,
    pub(crate) first_seq: u64,
    pub(crate) answered_below: u64,
}

impl Origin {
    pub(crate) fn of(from: Process, run: &Run) -> Self {
        let &Run { producer, first_seq, answered_below, .. } = run;
        Self { from, producer, first_seq, answered_below }
    }
}

pub(crate) struct Entry {
    /// `None`: a new leader's first.
    pub(crate) batch: Option<Bytes>,
    /// Who waits for the answers, run by run. The leader's memory: gone with its leadership.
    pub(crate) origins: Vec<Origin>,
}

pub(crate) struct Group {
    pub(crate) id: ShardId,
    pub(crate) entries: Vec<Entry>,
    /// Entries below are committed.
    pub(crate) committed: usize,
    /// The node that leads.
    pub(crate) leader: Option<usize>,
    /// A node that led before and does not know better yet.
    pub(crate) deposed: Option<usize>,
    /// The leader's first entry: before it has applied that, it does not know what was acknowledged.
    pub(crate) leads_from: usize,
    /// Runs that wait for the batcher.
    pub(crate) waiting: Vec<(Run, Origin)>,
    pub(crate) replicas: Vec<Replica>,
}

impl Group {
    pub(crate) fn new(id: ShardId, nodes: usize) -> Self {
        let replicas = (0..nodes).map(|_| Replica::new(id)).collect();
        Self {
            id,
            entries: Vec::new(),
            committed: 0,
            leader: None,
            deposed: None,
            leads_from: 0,
            waiting: Vec::new(),
            replicas,
        }
    }

    /// The leader, if it has applied all that was committed before it led.
    pub(crate) fn ready_leader(&self) -> Option<usize> {
        self.leader.filter(|&node| self.replicas[node].applied > self.leads_from as u64)
    }

    /// `kept` entries survive; the new leader's first one follows them.
    pub(crate) fn elect(&mut self, node: usize, kept: usize) {
        self.entries.truncate(kept);
        for entry in &mut self.entries {
            entry.origins.clear();
        }
        self.waiting.clear();
        self.deposed = self.leader.filter(|&old| old != node);
        self.leader = Some(node);
        self.leads_from = self.entries.len();
        self.entries.push(Entry { batch: None, origins: Vec::new() });
    }

    /// Nobody leads any more.
    pub(crate) fn lose_leader(&mut self) {
        self.leader = None;
        self.waiting.clear();
    }

    /// The leader makes one entry of the `runs` that wait the longest.
    pub(crate) fn propose(&mut self, runs: usize, clock: UnixMillis) {
        let in_flight = self.entries.len() - self.committed;
        if self.leader.is_none() || self.waiting.is_empty() || in_flight >= IN_FLIGHT_MAX {
            return;
        }
        let runs = runs.min(self.waiting.len());
        let mut batch = BatchBuilder::new();
        let mut origins = Vec::with_capacity(runs);
        for (run, origin) in self.waiting.drain(..runs) {
            batch.push(&run);
            origins.push(origin);
        }
        self.entries.push(Entry { batch: Some(batch.finish(clock)), origins });
    }
}
