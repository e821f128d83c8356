//! What a replica is at the moment, and who is told about it.

use moorline_core::{NodeId, ShardId};
use moorline_machine::Effect;

/// Who leads a group, as this node knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Role {
    /// The leader, if there is one.
    pub leader: Option<NodeId>,
    /// The Raft term.
    pub term: u64,
    /// This node leads, and has applied the first entry of its own term: what it reads is everything that was
    /// committed before.
    pub leading: bool,
}

/// Who acts on what was applied. Implemented by `node/service`.
pub trait Sink: Send + Sync + 'static {
    /// On every replica, in log order, after the rows can be read. `index` is the last entry that was applied;
    /// `effects` are those of all entries since the call before. A replica that was deleted and comes back begins anew.
    /// Called from the apply task: must not block.
    fn applied(&self, shard: ShardId, index: u64, effects: Vec<Effect>);

    /// Never at the same time as [`Sink::applied`] of the same shard. Must not block.
    fn role(&self, shard: ShardId, role: Role);
}
