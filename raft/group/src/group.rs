//! One replica of one group: its log, its rows, its Raft core, its proposals, and what it is at the moment.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moorline_core::{NodeId, ShardId, planted};
use openraft::{
    LogIdOptionExt, ReadPolicy, ServerState,
    async_runtime::watch::WatchReceiver,
    errors::{LinearizableReadError, RaftError},
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    codec::message::Matched,
    error::BarrierError,
    log_store::LogStore,
    metrics::ShardMetrics,
    order,
    proposer::Proposer,
    receive::Append,
    receive_snapshot::Piece,
    role::Role,
    snapshot::Snapshots,
    state::State,
    types::{Raft, RaftLogId},
};

/// A barrier that a majority does not confirm within this is given up.
const BARRIER_DEADLINE: Duration = Duration::from_secs(5);
/// How long a Raft core may be gone before the process ends with it. It answers nothing meanwhile.
const CORE_GONE_WAIT: Duration = Duration::from_millis(100);

/// See the module.
pub(crate) struct Group {
    pub(crate) shard: ShardId,
    pub(crate) me: NodeId,
    pub(crate) state: Arc<State>,
    pub(crate) log: LogStore,
    pub(crate) raft: Raft,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) snapshots: Snapshots,
    pub(crate) appends: mpsc::Sender<Append>,
    pub(crate) pieces: mpsc::Sender<Piece>,
    pub(crate) role: watch::Sender<Role>,
    pub(crate) ready: watch::Sender<bool>,
    pub(crate) metrics: ShardMetrics,
    /// Who should lead, by the id of a node; 0 if nobody said.
    pub(crate) preferred: AtomicU64,
    /// The last entry of the replica that was here before and was deleted ([`crate::clear`]).
    pub(crate) floor: Option<RaftLogId>,
    /// Cancelled when this replica, or the whole node, stops.
    pub(crate) closing: CancellationToken,
}

/// How a replica stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// Which.
    pub shard: ShardId,
    /// What it is.
    pub role: Role,
    /// Its last entry.
    pub last_log: Option<u64>,
    /// The last entry it knows to be committed.
    pub committed: Option<u64>,
    /// The last entry it has applied.
    pub applied: Option<u64>,
    /// The last entry whose rows are on its disk.
    pub durable: Option<u64>,
    /// The last entry that it has purged.
    pub purged: Option<u64>,
    /// Who votes; empty before the group is initialised.
    pub voters: Vec<NodeId>,
    /// Who gets the log and does not vote.
    pub learners: Vec<NodeId>,
    /// What each other member has confirmed to be on its disk; empty unless this node leads.
    pub confirmed: BTreeMap<NodeId, Option<u64>>,
    /// Whether it has applied everything it could have known committed before it was started.
    pub ready: bool,
    /// The last digest and the entry that asked for it.
    pub digest: Option<(u64, u128)>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("shard", &self.shard).finish_non_exhaustive()
    }
}

fn confirmed(replication: BTreeMap<u64, Option<RaftLogId>>) -> BTreeMap<NodeId, Option<u64>> {
    replication.into_iter().map(|(node, last)| (NodeId(node), last.index())).collect()
}

impl Group {
    pub(crate) fn role(&self) -> Role {
        *self.role.borrow()
    }

    /// Whether the log reaches what this replica had before it was deleted. If not, it has no say in elections.
    pub(crate) fn has_caught_up(&self) -> bool {
        self.log.last_log_id() >= self.floor
    }

    /// Until [`Self::has_caught_up`], or the replica closes.
    pub(crate) async fn wait_caught_up(&self) {
        let mut applied = self.state.applied();
        while !self.has_caught_up() {
            tokio::select! {
                () = self.closing.cancelled() => return,
                changed = applied.changed() => if changed.is_err() { return },
            }
        }
    }

    pub(crate) fn voters(&self) -> Vec<u64> {
        self.raft.server_metrics().borrow_watched().membership_config.voter_ids().collect()
    }

    /// Who should lead, best placed first.
    pub(crate) fn leaders_in_order(&self) -> Vec<u64> {
        let mut leaders = order::leaders(self.shard, &self.voters());
        let preferred = self.preferred.load(Ordering::Relaxed);
        if let Some(at) = leaders.iter().position(|leader| *leader == preferred) {
            leaders[..=at].rotate_right(1);
        }
        leaders
    }

    /// Whether somebody should lead who does not vote yet.
    pub(crate) fn preferred_comes(&self) -> bool {
        let preferred = self.preferred.load(Ordering::Relaxed);
        preferred != 0 && !self.voters().contains(&preferred)
    }

    pub(crate) fn status(&self) -> GroupStatus {
        let metrics = self.raft.metrics().borrow_watched().clone();
        GroupStatus {
            shard: self.shard,
            role: self.role(),
            last_log: self.log.last_log_id().index(),
            committed: metrics.cluster_committed.index(),
            applied: self.state.applied_log_id().index(),
            durable: self.state.durable().log_id.index(),
            purged: metrics.purged.index(),
            voters: self.voters().into_iter().map(NodeId).collect(),
            learners: metrics.membership_config.membership().learner_ids().map(NodeId).collect(),
            confirmed: metrics.replication.map(confirmed).unwrap_or_default(),
            ready: *self.ready.borrow(),
            digest: self.state.digest(),
        }
    }

    /// What this node knows of the log of `from`, for its start-up check.
    pub(crate) fn matched(&self, from: NodeId) -> Matched {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leading = metrics.state == ServerState::Leader;
        let replication = metrics.replication.as_ref().filter(|_| leading);
        let matched = replication.and_then(|all| all.get(&from.0)).cloned().flatten();
        Matched { leading, leader: metrics.current_leader, matched }
    }

    /// How many entries `to` lacks, as this leader knows.
    pub(crate) fn lag_of(&self, to: u64) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref()?.get(&to)?.as_ref()?.index;
        Some(metrics.last_log_index?.saturating_sub(matched))
    }

    /// Waits until this node has confirmed that it leads, and has applied everything that was committed before.
    pub(crate) async fn barrier(&self) -> Result<u64, BarrierError> {
        if planted::is(planted::Bug::StaleRead) {
            return Ok(*self.state.applied().borrow());
        }
        let read = self.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        match timeout(BARRIER_DEADLINE, read).await {
            Ok(Ok(read)) => Ok(read.log_id().index),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to)))) => {
                Err(BarrierError::NotLeader { leader: to.leader_id.map(NodeId) })
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) | Err(_) => {
                Err(BarrierError::NoQuorum)
            }
            Ok(Err(RaftError::Fatal(_))) => Err(BarrierError::Stopped),
        }
    }

    /// Follows what openraft says about leadership and tells the proposer, the sink and whoever watches.
    pub(crate) async fn follow_role(self: Arc<Self>) {
        let stopping = self.closing.clone();
        let mut server = self.raft.server_metrics();
        let mut applied = self.state.applied();
        loop {
            let role = self.role_now(&server.borrow_and_update());
            self.change_role(role);
            // A leader that has not applied its own first entry waits for it.
            let waits = role.leader == Some(self.me) && !role.leading;
            tokio::select! {
                () = stopping.cancelled() => break,
                changed = server.changed() => if changed.is_err() {
                    // A runtime that is dropped ends its tasks in any order: then this one ends here.
                    sleep(CORE_GONE_WAIT).await;
                    if !stopping.is_cancelled() {
                        self.state.fatal(&format!("shard {}: the Raft core has stopped", self.shard));
                    }
                    break;
                },
                _ = applied.changed(), if waits => {}
            }
        }
        self.change_role(Role { leader: None, leading: false, ..self.role() });
    }

    fn role_now(&self, server: &openraft::metrics::RaftServerMetrics<crate::types::Types>) -> Role {
        let leader_id = server.vote.leader_id;
        let applied = self.state.applied_log_id().map(|id| id.leader_id);
        Role {
            leader: server.current_leader.map(NodeId),
            term: leader_id.term,
            leading: server.state == ServerState::Leader && applied == Some(leader_id),
        }
    }

    fn change_role(&self, role: Role) {
        let before = self.role();
        if role == before {
            return;
        }
        if role.leading {
            // The sink first: it must hear of the leadership before the effects of what is proposed under it.
            self.state.tell_role(role);
            self.proposer.set_role(role);
        } else {
            self.proposer.set_role(role);
            self.state.tell_role(role);
        }
        if role.leader.is_some() && role.leader != before.leader {
            self.metrics.leader_changes.inc();
        }
        let leader = role.leader.map_or(0, |node| i64::try_from(node.0).unwrap_or(i64::MAX));
        self.metrics.leader.set(leader);
        self.metrics.term.set(i64::try_from(role.term).unwrap_or(i64::MAX));
        info!(
            shard = %self.shard, leader = ?role.leader.map(|node| node.0), role.term, role.leading, "role"
        );
        self.role.send_replace(role);
    }

    /// Waits until everything that could have been committed before the start is applied.
    pub(crate) async fn follow_recovery(self: Arc<Self>) {
        if self.raft.wait_for_recovery(None).await.is_ok() {
            self.ready.send_replace(true);
            info!(shard = %self.shard, index = ?self.state.applied_log_id().index(), "recovered");
        }
    }
}
