//! Keeps a node's replica, and leads its group, to where the run says it should be: what `node/moorline` does with the meta
//! group's plan, without one.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use moorline_core::NodeId;
use moorline_group::{GroupError, Groups};
use moorline_machine::placement::{Next, next_step};
use tokio::time::interval;

use crate::{
    net,
    node::{Cluster, SHARD},
    witness::Event,
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Follows the target for ever.
///
/// # Errors
///
/// If the replica cannot be opened: the node must stop.
pub(crate) async fn follow(
    cluster: Arc<Cluster>,
    groups: Groups,
    me: u64,
) -> Result<(), GroupError> {
    let mut look = interval(LOOK_EVERY);
    loop {
        look.tick().await;
        let wanted = cluster.target();
        let open = groups.shards().contains(&SHARD);
        if wanted.contains(&me) && !open {
            groups.open(SHARD).await?;
        }
        if !wanted.contains(&me) && open && is_out(&groups, me) {
            groups.close(SHARD).await;
        }
        step(&cluster, &groups, &wanted).await;
    }
}

/// Whether the replica knows a group that it is no part of.
fn is_out(groups: &Groups, me: u64) -> bool {
    groups.status().iter().any(|status| {
        let members = || status.voters.iter().chain(&status.learners);
        !status.voters.is_empty() && !members().any(|member| member.0 == me)
    })
}

/// One step towards the target, if this node leads.
async fn step(cluster: &Cluster, groups: &Groups, wanted: &BTreeSet<u64>) {
    let Some(members) = groups.members(SHARD) else { return };
    let voters: Vec<NodeId> = wanted.iter().copied().map(NodeId).collect();
    let next = next_step(&members, &voters, &BTreeSet::new());
    let address = match &next {
        Next::Done | Next::Wait => return,
        Next::Learn(node) => format!("{}:{}", net::host(node.0), net::PORT),
        Next::Vote(_) | Next::HandOver(_) | Next::Forget(_) => String::new(),
    };
    // Whatever came of it, the next look decides from what is there.
    let taken = groups.take_step(SHARD, &next, address).await.is_ok();
    let leader = members.leader.0;
    cluster.witness.tell(Event::Step { leader, next, taken });
}
