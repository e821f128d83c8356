//! Messages between processes: late, lost, twice, out of order.

use std::collections::BTreeMap;

use moorline_machine::{Run, RunAnswers};

use crate::random::Random;

/// One start of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) node: usize,
    pub(crate) incarnation: u64,
}

#[derive(Debug, Clone)]
pub(crate) enum Packet {
    /// Commands, for the leader.
    Submit { from: Process, to: usize, group: usize, run: Run },
    /// Their answers.
    Answers { to: Process, group: usize, answered_below: u64, answers: RunAnswers },
    /// The receiver does not lead: send again, elsewhere.
    NotLeader { to: Process, group: usize },
}

/// Longest a message takes. Far below the time for which producers are remembered.
const DELAY_MS_MAX: u64 = 400;

pub(crate) struct Network {
    under_way: BTreeMap<(u64, u64), Packet>,
    sent: u64,
    /// Whether messages are lost and doubled.
    pub(crate) lossy: bool,
}

impl Network {
    pub(crate) fn new() -> Self {
        Self { under_way: BTreeMap::new(), sent: 0, lossy: true }
    }

    pub(crate) fn send(&mut self, random: &mut Random, now_ms: u64, packet: Packet) {
        let copies = if !self.lossy {
            1
        } else if random.chance(60) {
            0
        } else {
            1 + u64::from(random.chance(60))
        };
        for _ in 0..copies {
            let slow = self.lossy && random.chance(50);
            let delay = random.below(if slow { DELAY_MS_MAX } else { 6 });
            self.sent += 1;
            self.under_way.insert((now_ms + delay, self.sent), packet.clone());
        }
    }

    /// The next message that has arrived by now.
    pub(crate) fn receive(&mut self, now_ms: u64) -> Option<Packet> {
        let first = self.under_way.first_entry()?;
        (first.key().0 <= now_ms).then(|| first.remove())
    }
}
