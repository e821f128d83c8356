//! When the process of a leader dies, the best-placed voter asks for the leadership at once.
//!
//! Timers must be long (a busy machine stalls), but a dead process is certain: its streams are closed and its port
//! refuses. Only then is the leader's lease overridden; a cut network (no refusal) is left to the timers. The log is
//! safe either way: a vote still needs a majority and an up-to-date log.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use moorline_core::NodeId;
use openraft::{async_runtime::watch::WatchReceiver, raft::TransferLeaderRequest};
use tokio::time::sleep;
use tracing::{debug, info};

use crate::{
    group::Group,
    groups::Node,
    order,
    wire::PeerState,
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
    let mut dead = BTreeSet::new();
    loop {
        let now: BTreeSet<NodeId> = {
            let states = states.borrow_and_update();
            states.iter().filter(|(_, state)| is_dead(*state)).map(|(peer, _)| peer).collect()
        };
        for peer in now.difference(&dead) {
            died(&node, *peer, &now);
        }
        dead = now;
        if states.changed().await.is_err() {
            return; // the wire has stopped
        }
    }
}

fn is_dead(state: PeerState) -> bool {
    state == PeerState::Down { refused: true }
}

fn died(node: &Arc<Node>, peer: NodeId, dead: &BTreeSet<NodeId>) {
    for group in node.all() {
        if group.role().leader == Some(peer) {
            let (node, dead) = (Arc::clone(node), dead.clone());
            node.clone().spawn(async move { take_over(&node, &group, peer, &dead).await });
        }
    }
}

async fn take_over(node: &Node, group: &Group, died: NodeId, dead: &BTreeSet<NodeId>) {
    let alive = |voter: &u64| !dead.contains(&NodeId(*voter));
    let order: Vec<u64> = order::leaders(group.shard, &group.voters()).into_iter().filter(alive).collect();
    let Some(rank) = order.iter().position(|voter| *voter == node.config.node.0) else {
        return; // not a voter
    };
    let steps = u32::try_from(rank).unwrap_or(u32::MAX);
    sleep(FIRST_WAITS.max(NEXT_WAITS.saturating_mul(steps))).await;
    for attempt in 1..=2 {
        if group.role().leader != Some(died) || !node.peer_state(died).is_some_and(is_dead) {
            return; // somebody leads, or it lives
        }
        info!(shard = %group.shard, %died, rank, attempt, "the leader's process died: asking for the leadership");
        node.metrics.takeovers.inc();
        ask_for_leadership(group).await;
        sleep(AGAIN_AFTER).await;
    }
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
