//! Moving leaderships on purpose: to the preferred node while all is well, away from a node that stops.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use moorline_core::{NodeId, ShardId};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout_at};
use tracing::{info, warn};

use crate::{group::Group, groups::Node, wire::PeerState};

/// One leadership is moved this often.
const MOVE_EVERY: Duration = Duration::from_secs(2);
/// And the same one not again before this.
const REST: Duration = Duration::from_secs(30);
/// A node is offered leaderships once it has been up this long.
const SETTLED: Duration = Duration::from_secs(3);
/// And lacks no more entries than this.
const LAG_MAX: u64 = 100;
/// How often a stopping node looks whether its leaderships are gone.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A leadership that was offered and not taken by then is offered to the next node.
const OFFER_FOR: Duration = Duration::from_millis(500);

/// Until the node stops.
pub(crate) async fn run(node: Arc<Node>) {
    let mut tick = interval(MOVE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut moved: BTreeMap<ShardId, Instant> = BTreeMap::new();
    loop {
        tick.tick().await;
        if node.is_handing_over() {
            return;
        }
        let rested = |group: &Arc<Group>| {
            moved.get(&group.shard).is_none_or(|moved| moved.elapsed() >= REST)
        };
        let candidate = node.all().into_iter().filter(rested).find_map(|group| {
            let to = better_leader(&node, &group)?;
            Some((group, to))
        });
        if let Some((group, to)) = candidate {
            info!(shard = %group.shard, %to, "offering the leadership to the preferred node");
            offer(&node, &group, to).await;
            moved.insert(group.shard, Instant::now());
        }
    }
}

/// Who should lead a group that this node leads, if it is not this node.
fn better_leader(node: &Node, group: &Group) -> Option<NodeId> {
    if !group.role().leading {
        return None;
    }
    let me = node.config.node;
    let order = group.leaders_in_order();
    if group.preferred_comes() {
        return None; // the votes are moving
    }
    let first =
        order.into_iter().map(NodeId).find(|voter| *voter == me || fit(node, group, *voter))?;
    (first != me).then_some(first)
}

fn fit(node: &Node, group: &Group, voter: NodeId) -> bool {
    let settled = matches!(
        node.peer_state(voter),
        Some(PeerState::Up { since, .. }) if since.elapsed() >= SETTLED
    );
    settled && group.lag_of(voter.0).is_some_and(|lag| lag <= LAG_MAX)
}

pub(crate) async fn offer(node: &Node, group: &Group, to: NodeId) {
    node.metrics.transfers.inc();
    if let Err(error) = group.raft.trigger().transfer_leader(to.0).await {
        warn!(shard = %group.shard, %error, "the leadership could not be offered");
    }
}

/// Moves every leadership away, as far as there is somebody to take it, until `deadline`.
pub(crate) async fn hand_over(node: &Node, deadline: Duration) {
    let until = tokio::time::Instant::now() + deadline;
    let groups = node.all();
    for group in &groups {
        group.raft.runtime_config().elect(false);
    }
    let moves = groups.iter().map(|group| hand_over_one(node, group));
    if timeout_at(until, futures_util::future::join_all(moves)).await.is_err() {
        let left = groups.iter().filter(|group| group.role().leading).count();
        warn!(left, "not every leadership could be handed over in time");
    }
}

async fn hand_over_one(node: &Node, group: &Group) {
    let voters = group.leaders_in_order();
    let others = voters.into_iter().map(NodeId).filter(|voter| *voter != node.config.node);
    for to in others {
        let up = node.peer_state(to).is_some_and(PeerState::is_up);
        let near = group.lag_of(to.0).is_some_and(|lag| lag <= LAG_MAX);
        if !(group.role().leading && up && near) {
            continue;
        }
        offer(node, group, to).await;
        let offered = Instant::now();
        while group.role().leader == Some(node.config.node) && offered.elapsed() < OFFER_FOR {
            sleep(LOOK_EVERY).await;
        }
    }
}
