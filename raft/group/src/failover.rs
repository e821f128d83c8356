//! When the process of a leader dies, the best-placed voter asks for the leadership at once.
//!
//! Timers must be long (a busy machine stalls), but a dead process is certain: its streams are closed and its port
//! refuses. Only then is the leader's lease overridden; a cut network (no refusal) is left to the timers. The log is
//! safe either way: a vote still needs a majority and an up-to-date log.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use moorline_core::{Incarnation, NodeId};
use openraft::{async_runtime::watch::WatchReceiver, raft::TransferLeaderRequest};
use tokio::time::sleep;
use tracing::{debug, info};

use crate::{
    group::Group,
    groups::Node,
    wire::{PeerState, PeerStates},
};

/// The best-placed voter waits this long: others may hear of the death a little later.
const FIRST_WAITS: Duration = Duration::from_millis(5);
/// Each next one waits this much longer, so that two do not split the votes.
const NEXT_WAITS: Duration = Duration::from_millis(60);
/// If there is still no leader after this, the same once more; then the timers decide.
const AGAIN_AFTER: Duration = Duration::from_millis(300);

/// Watches the peers until the node stops.
pub(crate) async fn run(node: Arc<Node>) {
    let mut states = node.peers.state();
    let mut before = Seen::default();
    loop {
        let now = Seen::of(&states.borrow_and_update());
        for peer in before.died(&now) {
            died(&node, peer, &now.dead);
        }
        before = now;
        if states.changed().await.is_err() {
            return; // the wire has stopped
        }
    }
}

/// What is known of the peers' processes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Their ports refuse.
    dead: BTreeSet<NodeId>,
    /// The process that runs, of those that are connected.
    running: BTreeMap<NodeId, Incarnation>,
}

impl Seen {
    fn of(states: &PeerStates) -> Self {
        let mut seen = Self::default();
        for (peer, state) in states.iter() {
            match state {
                PeerState::Up { incarnation, .. } => {
                    seen.running.insert(peer, incarnation);
                }
                PeerState::Down { refused: true } => {
                    seen.dead.insert(peer);
                }
                PeerState::Suspect | PeerState::Down { refused: false } => {}
            }
        }
        seen
    }

    /// Whose process has ended since: it refuses now, or another one runs in its place.
    fn died(&self, now: &Self) -> BTreeSet<NodeId> {
        let replaced = self.running.iter().filter(|(peer, process)| {
            now.running.get(peer).is_some_and(|running| running != *process)
        });
        now.dead.difference(&self.dead).copied().chain(replaced.map(|(peer, _)| *peer)).collect()
    }
}

fn died(node: &Arc<Node>, peer: NodeId, dead: &BTreeSet<NodeId>) {
    let mut dead = dead.clone();
    dead.insert(peer);
    for group in node.all() {
        if group.role().leader == Some(peer) {
            let (this, dead) = (Arc::clone(node), dead.clone());
            node.spawn(async move { take_over(&this, &group, peer, &dead).await });
        }
    }
}

async fn take_over(node: &Node, group: &Group, died: NodeId, dead: &BTreeSet<NodeId>) {
    let term = group.role().term;
    if !group.has_caught_up() {
        return;
    }
    let Some(rank) = rank(group.leaders_in_order(), node.config.node, dead) else {
        return; // not a voter
    };
    sleep(FIRST_WAITS.max(NEXT_WAITS.saturating_mul(rank))).await;
    for attempt in 1..=2 {
        let role = group.role();
        // A process that was started again does not lead in the term of the one before.
        if role.leader != Some(died) || role.term != term {
            return;
        }
        info!(
            shard = %group.shard, %died, rank, attempt,
            "the leader's process died: asking for the leadership"
        );
        node.metrics.takeovers.inc();
        ask_for_leadership(group).await;
        sleep(AGAIN_AFTER).await;
    }
}

/// This node's place among the living voters.
fn rank(order: Vec<u64>, me: NodeId, dead: &BTreeSet<NodeId>) -> Option<u32> {
    let order = order.into_iter().map(NodeId);
    let at = order.filter(|voter| !dead.contains(voter)).position(|voter| voter == me)?;
    u32::try_from(at).ok()
}

async fn ask_for_leadership(group: &Group) {
    let vote = group.raft.server_metrics().borrow_watched().vote;
    if !vote.is_committed() {
        // A campaign has begun already; leases are void by then.
        if group.raft.trigger().elect(false).await.is_err() {
            debug!(shard = %group.shard, "stopping");
        }
        return;
    }
    let me = group.me.0;
    let request = TransferLeaderRequest::new(vote, me, group.log.last_log_id());
    match group.raft.handle_transfer_leader(request).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(shard = %group.shard, %error, "not asked for the leadership"),
        Err(error) => debug!(shard = %group.shard, %error, "not asked for the leadership"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(dead: &[u64], running: &[(u64, u64)]) -> Seen {
        Seen {
            dead: dead.iter().copied().map(NodeId).collect(),
            running: running.iter().map(|(peer, of)| (NodeId(*peer), Incarnation(*of))).collect(),
        }
    }

    #[test]
    fn a_process_has_died_if_its_port_refuses_or_another_runs_in_its_place() {
        #[rustfmt::skip]
        let table: [(Seen, Seen, &[u64]); 6] = [
            (seen(&[], &[(2, 7)]),  seen(&[2], &[]),        &[2]),
            (seen(&[], &[(2, 7)]),  seen(&[], &[(2, 8)]),   &[2]), // restarted before anybody noticed
            (seen(&[], &[(2, 7)]),  seen(&[], &[]),         &[]),  // only silent
            (seen(&[2], &[]),       seen(&[2], &[]),        &[]),  // known
            (seen(&[2], &[]),       seen(&[], &[(2, 8)]),   &[]),  // back
            (seen(&[], &[]),        seen(&[3], &[(2, 8)]),  &[3]),
        ];
        for (before, now, expected) in table {
            let expected = expected.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
            assert_eq!(before.died(&now), expected, "{before:?} {now:?}");
        }
    }

    #[test]
    fn the_living_are_ranked_without_the_dead() {
        let dead = |peers: &[u64]| peers.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let rank = |me, gone: &[u64]| rank(vec![1, 2, 3], NodeId(me), &dead(gone));
        assert_eq!([rank(2, &[1]), rank(3, &[1])], [Some(0), Some(1)]);
        assert_eq!([rank(1, &[3]), rank(2, &[3])], [Some(0), Some(1)]);
        assert_eq!([rank(3, &[1, 2]), rank(4, &[1])], [Some(0), None]);
    }
}
