//! One node: a process that dies and comes back, with a router to every group and a clock of its own.

use moorline_core::{ConnId, Incarnation, NodeId, UnixMillis};
use moorline_machine::command::Holder;

use crate::{Mutant, network::Process, random::Random, router::Router};

/// How wrong a clock may be: two of them together stay below the time for which producers are remembered.
const CLOCK_SKEW_MS_MAX: u64 = 7 * 60 * 1000;
const BEGINNING_MS: u64 = 1_700_000_000_000;

pub(crate) struct Node {
    pub(crate) alive: bool,
    pub(crate) incarnation: u64,
    pub(crate) routers: Vec<Router>,
    skew_ms: u64,
}

impl Node {
    pub(crate) fn new(random: &mut Random, groups: usize, mutant: Mutant) -> Self {
        let skew_ms = random.below(2 * CLOCK_SKEW_MS_MAX);
        let mut node = Self { alive: false, incarnation: 0, routers: Vec::new(), skew_ms };
        node.start(random, groups, mutant);
        node
    }

    /// A new process: nothing is left of what the earlier one waited for.
    pub(crate) fn start(&mut self, random: &mut Random, groups: usize, mutant: Mutant) {
        self.alive = true;
        self.incarnation = random.next();
        self.routers = (0..groups).map(|_| Router::new(random.next(), mutant)).collect();
    }

    pub(crate) fn clock(&self, now_ms: u64) -> UnixMillis {
        UnixMillis(BEGINNING_MS + now_ms + self.skew_ms)
    }

    pub(crate) fn process(&self, node: usize) -> Process {
        Process { node, incarnation: self.incarnation }
    }

    /// The holder of a session: a connection of this process.
    pub(crate) fn holder(&self, node: usize, conn: u64) -> Holder {
        Holder {
            node: NodeId(node as u64 + 1),
            incarnation: Incarnation(self.incarnation),
            conn: ConnId(conn),
        }
    }
}
