//! A follower that asks its leader something brings along that it still follows it: then no message has to go out and come back
//! before the leader may answer.
//!
//! ```text
//!   barrier        asker ── question ──► leader ── do you follow me? ──► follower ── yes ──► leader ── answer ──► asker
//!   confirmation   asker ── question, and I follow you ──► leader ── answer ──► asker
//! ```
//!
//! What it rests on (Raft, Ongaro's thesis, section 6.4, with the heartbeat's answer sent in advance):
//!
//! - The asker says whom it votes for *after* the question was asked, and the leader looks at its own vote after that. While both
//!   have this vote and are a majority of every set of voters, nobody else has won an election: that takes a vote of one of them.
//! - So whatever was committed before the question was asked, this leader has committed, or found in its log when it began to
//!   lead. What it answered to anybody it has applied before, and leading ([`Role::leading`](crate::Role::leading)) means that it
//!   has applied all that was there when it began. Nothing is left to wait for.
//!
//! # Invariants
//!
//! - **A vote is what is synced**, and a node's reply to a candidate leaves after that: who confirms has not promised another its
//!   vote.
//! - **A replica that was deleted and comes back confirms nothing** until it has what it had: it has no vote till then either.
//!
//! Checked by the tests of this file and of `raft/group/tests/cluster.rs`; under faults by the linearizability checks of
//! `chaos-tests`.

use moorline_core::NodeId;
use openraft::async_runtime::watch::WatchReceiver;

use crate::group::Group;

/// For whom a replica votes, as it says with a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmation {
    /// The term of its vote.
    pub term: u64,
    /// Whose candidacy it is for.
    pub leader: NodeId,
}

impl Group {
    /// For whom this replica votes now; [`None`] if it may not vote.
    pub(crate) fn confirmation(&self) -> Option<Confirmation> {
        let vote = self.log.vote().filter(|_| self.has_caught_up())?;
        let leader_id = vote.leader_id;
        Some(Confirmation { term: leader_id.term, leader: NodeId(leader_id.node_id) })
    }

    /// Whether this replica leads, and no other did when `from` said this: see the module.
    pub(crate) fn is_confirmed(&self, from: NodeId, said: Confirmation) -> bool {
        let role = self.role();
        let leads = role.leading && (role.term, self.me) == (said.term, said.leader);
        leads && self.confirmation() == Some(said) && {
            let server = self.raft.server_metrics();
            let server = server.borrow_watched();
            let voters = server.membership_config.membership().get_joint_config();
            voters.iter().all(|voters| is_majority(self.me, from, voters.iter().copied()))
        }
    }
}

/// Whether two nodes are more than half of the voters.
fn is_majority(leader: NodeId, other: NodeId, voters: impl Iterator<Item = u64>) -> bool {
    let (mut all, mut both) = (0, 0);
    for voter in voters {
        all += 1;
        both += u32::from(voter == leader.0) + u32::from(voter == other.0 && other != leader);
    }
    2 * both > all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_are_a_majority_of_at_most_three_whom_both_belong_to() {
        let is = |leader, other, voters: &[u64]| {
            is_majority(NodeId(leader), NodeId(other), voters.iter().copied())
        };
        for (leader, other, voters, expected) in [
            (1, 2, &[1, 2, 3][..], true),
            (1, 2, &[1, 2], true),
            (1, 2, &[1], true),
            (1, 1, &[1], true),
            (1, 1, &[1, 2, 3], false),
            (1, 1, &[1, 2], false),
            (1, 4, &[1, 2, 3], false),
            (4, 1, &[1, 2, 3], false),
            (1, 2, &[1, 2, 3, 4], false),
            (1, 2, &[1, 2, 3, 4, 5], false),
        ] {
            assert_eq!(is(leader, other, voters), expected, "{leader} {other} {voters:?}");
        }
    }
}
