//! What the router needs of this node's replicas: a seam, so that tests lead without Raft.

use moorline_core::ShardId;
use moorline_group::{Groups, ProposeError, Role};
use moorline_machine::{Run, RunAnswers};
use tokio::sync::watch;

/// Hears what became of a run.
pub(crate) type Reply = Box<dyn FnOnce(Result<RunAnswers, ProposeError>) + Send>;

/// This node's replicas.
pub(crate) trait Replicas: Send + Sync + 'static {
    /// Proposes a run, after those proposed before. `reply` may be called inside.
    fn propose(&self, shard: ShardId, run: Run, reply: Reply);

    /// Who leads, as the replica sees it; `None` if there is none (yet).
    fn role(&self, shard: ShardId) -> Option<watch::Receiver<Role>>;
}

impl Replicas for Groups {
    fn propose(&self, shard: ShardId, run: Run, reply: Reply) {
        Self::propose(self, shard, run, reply);
    }

    fn role(&self, shard: ShardId) -> Option<watch::Receiver<Role>> {
        Self::role(self, shard)
    }
}
