//! Which node is tried next, and when. Pure.
//!
//! Nodes are tried one after the other without a wait, then comes a wait ([`Reconnect`]) and the next round. A round ends
//! early where another node would say the same: the credentials are refused, or the device comes too often.
//!
//! Invariant: however connections end, there are at most as many attempts between two waits as there are nodes, and one
//! round without a wait after a connection that held for [`STEADY_MS`]. Checked by this file's tests.

use moorline_moonlight::{client::Ended, codec::ConnectFailedReason, reconnect::Reconnect};

/// How long a connection has to hold to count as one. A node that lets in and drops at once is no better than none.
pub(super) const STEADY_MS: u64 = 5_000;

/// The next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    /// How long to wait before it.
    pub(super) wait_ms: u64,
    /// Which node.
    pub(super) node: usize,
}

/// Plans attempts.
#[derive(Debug)]
pub(super) struct Attempts {
    nodes: usize,
    next: usize,
    /// Attempts of this round. At the number of nodes the round is over.
    tried: usize,
    reconnect: Reconnect,
}

impl Attempts {
    /// For so many nodes: at least one.
    pub(super) fn new(nodes: usize) -> Self {
        assert!(nodes > 0, "configurations name a node");
        Self { nodes, next: 0, tried: nodes, reconnect: Reconnect::default() }
    }

    /// The next one. `chance`: any number.
    pub(super) fn next(&mut self, chance: u64) -> Attempt {
        let wait_ms = if self.tried >= self.nodes {
            self.tried = 0;
            self.reconnect.next_delay_ms(chance)
        } else {
            0
        };
        self.tried += 1;
        let node = self.next;
        self.next = (node + 1) % self.nodes;
        Attempt { wait_ms, node }
    }

    /// The attempt ended: before it came to speak Moonlight (`None`) or as it says, after the device was in for so long.
    pub(super) fn ended(&mut self, ended: Option<&Ended>, open_ms: Option<u64>) {
        self.reconnect.ended(ended);
        if open_ms.is_some_and(|ms| ms >= STEADY_MS) {
            self.reconnect.connected();
            self.tried = self.nodes;
        }
        if ended.is_some_and(everywhere) {
            self.tried = self.nodes;
        }
    }
}

/// Whether another node would say the same.
fn everywhere(ended: &Ended) -> bool {
    match ended {
        Ended::Unauthorized(_) => true,
        Ended::ConnectFailed(reason) => match reason {
            ConnectFailedReason::Unknown | ConnectFailedReason::Degraded => true,
            ConnectFailedReason::Restarting | ConnectFailedReason::Unavailable => false,
        },
        Ended::Goodbye
        | Ended::Malformed(_)
        | Ended::OutOfTurn
        | Ended::NoAnswer
        | Ended::Silence
        | Ended::Stalled
        | Ended::Own => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moorline_moonlight::{codec::UnauthorizedReason, reconnect::UNAUTHORIZED_DELAY_MS};

    const REFUSED: Ended = Ended::Unauthorized(UnauthorizedReason::SecretIncorrect);

    /// The next attempts, each of which ends so: as (wait, node).
    fn run(
        attempts: &mut Attempts,
        count: usize,
        ended: Option<Ended>,
        open_ms: Option<u64>,
    ) -> Vec<(u64, usize)> {
        let mut seen = Vec::new();
        for _ in 0..count {
            let Attempt { wait_ms, node } = attempts.next(0);
            seen.push((wait_ms, node));
            attempts.ended(ended.as_ref(), open_ms);
        }
        seen
    }

    #[test]
    fn one_node_is_tried_as_the_vendors_agent_does() {
        let mut attempts = Attempts::new(1);
        let unavailable = Ended::ConnectFailed(ConnectFailedReason::Unavailable);
        let seen = run(&mut attempts, 5, Some(unavailable), None);
        assert_eq!(seen, [(0, 0), (1_000, 0), (2_500, 0), (5_000, 0), (10_000, 0)]);
    }

    #[test]
    fn all_nodes_are_tried_before_a_wait() {
        let mut attempts = Attempts::new(3);
        let seen = run(&mut attempts, 7, None, None);
        assert_eq!(seen, [(0, 0), (0, 1), (0, 2), (1_000, 0), (0, 1), (0, 2), (2_500, 0)]);
    }

    #[test]
    fn after_a_steady_connection_the_other_nodes_come_first_and_at_once() {
        let mut attempts = Attempts::new(3);
        run(&mut attempts, 7, None, None);
        // Node 1 lets it in, and dies after a while.
        assert_eq!(run(&mut attempts, 1, None, Some(STEADY_MS)), [(0, 1)]);
        assert_eq!(run(&mut attempts, 4, None, None), [(0, 2), (0, 0), (0, 1), (1_000, 2)]);
    }

    #[test]
    fn a_node_that_lets_in_and_drops_at_once_is_not_run_down() {
        let mut attempts = Attempts::new(1);
        let seen = run(&mut attempts, 4, Some(Ended::Goodbye), Some(STEADY_MS - 1));
        assert_eq!(seen, [(0, 0), (1_000, 0), (2_500, 0), (5_000, 0)]);
        let mut attempts = Attempts::new(2);
        let seen = run(&mut attempts, 4, Some(Ended::Goodbye), Some(0));
        assert_eq!(seen, [(0, 0), (0, 1), (1_000, 0), (0, 1)]);
    }

    #[test]
    fn what_every_node_would_say_ends_the_round() {
        let degraded = Ended::ConnectFailed(ConnectFailedReason::Degraded);
        let mut attempts = Attempts::new(3);
        let seen = run(&mut attempts, 3, Some(degraded), None);
        assert_eq!(seen, [(0, 0), (1_000, 1), (2_500, 2)]);
        let mut attempts = Attempts::new(3);
        let seen = run(&mut attempts, 3, Some(REFUSED), None);
        assert_eq!(seen, [(0, 0), (UNAUTHORIZED_DELAY_MS, 1), (UNAUTHORIZED_DELAY_MS, 2)]);
        // A device that is disabled while it is connected.
        let mut attempts = Attempts::new(2);
        let seen = run(&mut attempts, 2, Some(REFUSED), Some(STEADY_MS));
        assert_eq!(seen, [(0, 0), (0, 1)]);
    }
}
