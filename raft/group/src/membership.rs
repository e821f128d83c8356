//! Changing who is in a group, one step at a time. What the steps are is decided elsewhere (`moorline_machine::placement`);
//! this carries one out, on the group's leader.
//!
//! # Invariants
//!
//! - **Every change of votes goes through openraft's joint change**, which a majority of the old and of the new commit.
//! - **A replica that is closed keeps its rows and its log**: should it be opened again it has lost nothing, so nobody
//!   takes it for one that did.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use moorline_core::{NodeId, ShardId};
use moorline_machine::placement::{Members, Next};
use openraft::{ChangeMembers, async_runtime::watch::WatchReceiver};
use tokio::time::timeout;
use tracing::info;

use crate::{
    balance, checkpoint, error::GroupError, groups::Groups, types::Address, wire::PeerState,
};

/// How long one step may take; then it is decided anew.
const STEP_WITHIN: Duration = Duration::from_secs(10);
/// A node that lacks no more entries than this has caught up: what comes while it is made a voter it gets in time.
const LAG_MAX: u64 = 1000;

impl Groups {
    /// Who is in a group, if this node leads it.
    #[must_use]
    pub fn members(&self, shard: ShardId) -> Option<Members> {
        let group = self.node.group(shard).filter(|group| group.role().leading)?;
        let membership = {
            let metrics = group.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.membership().clone()
        };
        let voters: Vec<BTreeSet<NodeId>> = membership
            .get_joint_config()
            .iter()
            .map(|config| config.iter().copied().map(NodeId).collect())
            .collect();
        let me = self.node.config.node;
        let current = |node: &NodeId| {
            let up = self.node.peer_state(*node).is_some_and(PeerState::is_up);
            *node == me || (up && group.lag_of(node.0).is_some_and(|lag| lag <= LAG_MAX))
        };
        let everybody = membership.nodes().map(|(node, _)| NodeId(*node));
        Some(Members {
            leader: me,
            learners: membership.learner_ids().map(NodeId).collect(),
            current: everybody.filter(current).collect(),
            voters,
        })
    }

    /// Takes one step with a group that this node leads. `address` is where the node of [`Next::Learn`] is.
    ///
    /// # Errors
    ///
    /// If it came to nothing, or is not known to have come to something: then the next step is decided from what is there.
    pub async fn take_step(
        &self,
        shard: ShardId,
        next: &Next,
        address: String,
    ) -> Result<(), GroupError> {
        let failed = |why: String| GroupError::Raft { shard, why };
        let Some(group) = self.node.group(shard) else {
            return Err(GroupError::State { shard, why: "has no replica here" });
        };
        let raft = &group.raft;
        let change = match next {
            Next::Done | Next::Wait => return Ok(()),
            Next::HandOver(to) => {
                info!(%shard, %to, "handing the leadership over to a node that stays");
                balance::offer(&self.node, &group, *to).await;
                return Ok(());
            }
            Next::Learn(node) => {
                info!(%shard, %node, "a learner is added");
                let learning = raft.add_learner(node.0, Address(address), false);
                return match timeout(STEP_WITHIN, learning).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => Err(failed(error.to_string())),
                    Err(_) => Err(failed("a learner was not added in time".to_owned())),
                };
            }
            Next::Vote(voters) => {
                info!(%shard, ?voters, "the voters change");
                ChangeMembers::ReplaceAllVoters(voters.iter().map(|node| node.0).collect())
            }
            Next::Forget(node) => {
                info!(%shard, %node, "a learner is removed");
                ChangeMembers::RemoveNodes(BTreeSet::from([node.0]))
            }
        };
        // Who votes no more still hears that it does not, as a learner; the next step forgets it.
        match timeout(STEP_WITHIN, raft.change_membership(change, true)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("a change of the voters was not committed in time".to_owned())),
        }
    }

    /// Who should lead a group, if it votes in it; without a word the votes themselves say it.
    pub fn prefer(&self, shard: ShardId, leader: NodeId) {
        if let Some(group) = self.node.group(shard) {
            group.preferred.store(leader.0, Ordering::Relaxed);
        }
    }

    /// Closes a replica that is no part of its group any more. Its rows and its log stay on the disk.
    pub async fn close(&self, shard: ShardId) {
        let Some(group) = self.node.remove(shard) else { return };
        group.closing.cancel();
        group.proposer.stop();
        if let Err(error) = group.raft.shutdown().await {
            tracing::warn!(%shard, %error, "a Raft core did not stop well");
        }
        checkpoint::checkpoint(&self.node, std::slice::from_ref(&group)).await;
        if self.node.group(shard).is_none() {
            self.node.metrics.forget(shard);
        }
        info!(%shard, "a replica was closed: the group is elsewhere now");
    }
}
