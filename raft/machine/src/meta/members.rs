//! Who belongs to the cluster, and who is to vote where: the meta group's commands that change it.
//!
//! # Invariants
//!
//! - **A removed node stays removed**: its row stays for ever, and its id is refused. Checked by `tests/rules/members.rs`.
//! - **A token lets one node in.** Checked by the same.
//! - **Copies are 1, 3 or 5**: an even number survives no more than the one below. Checked by the same.
//! - **A target changes only from what its proposer saw**, so that two who plan at once do not mix their plans.

use std::collections::BTreeSet;

use moorline_core::{NodeId, ShardId, UnixMillis, level::REPLICAS_CHANGE};
use moorline_storage::{Rows, StorageError, View, key::Kind};

use super::{CLUSTER, ClusterRecord, MetaState, NODES_MAX, REPLICAS, VOTERS_MAX};
use crate::{
    answer::{Answer, Refused},
    command::{MemberState, NodeRecord},
    keys::Suffix,
    rows::{ClusterRow, MemberRow, NumberRow, Row, TargetRow},
    step::Step,
};

/// Tokens that wait to be used: operators let nodes in by hand.
const TOKENS_MAX: usize = 64;
/// The longest life of a token, in log time.
const TOKEN_MS_MAX: u64 = 30 * 24 * 3600 * 1000;

/// Who is to vote in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// They, the preferred leader first.
    pub voters: Vec<NodeId>,
    /// Whether they do.
    pub reached: bool,
}

impl MetaState {
    pub(super) fn open_members(&mut self, rows: &(impl View + ?Sized)) -> Result<(), StorageError> {
        let keys = self.keys;
        super::scan(keys, rows, Kind::Member, &mut |mut suffix: Suffix<'_>, row| {
            self.members.insert(NodeId(suffix.u64()?), MemberRow::from_bytes(row)?.0);
            Ok(())
        })?;
        super::scan(keys, rows, Kind::Token, &mut |mut suffix: Suffix<'_>, row| {
            self.tokens.insert(suffix.u128()?, UnixMillis(NumberRow::from_bytes(row)?.0));
            Ok(())
        })?;
        super::scan(keys, rows, Kind::Target, &mut |mut suffix: Suffix<'_>, row| {
            let TargetRow { voters, reached } = TargetRow::from_bytes(row)?;
            self.targets.insert(ShardId(suffix.u16()?), Target { voters, reached });
            Ok(())
        })
    }

    /// How a node stands; `None` if the cluster does not know it.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<MemberState> {
        let known = self.nodes.contains_key(&node);
        known.then(|| self.members.get(&node).copied().unwrap_or(MemberState::Active))
    }

    /// Who is to vote in a group, once somebody said so; before, it has the voters it was made with.
    #[must_use]
    pub fn target(&self, group: ShardId) -> Option<&Target> {
        self.targets.get(&group)
    }

    /// Who the group was made with, the one who begins it first.
    #[must_use]
    pub fn founders(&self, group: ShardId) -> &[NodeId] {
        self.placement.get(&group).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn add_token<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        token: u128,
        lifetime_ms: u64,
    ) -> Answer {
        if self.tokens.len() >= TOKENS_MAX {
            return Answer::Refused(Refused::TooManyRoutes);
        }
        let until = UnixMillis(step.time.0.saturating_add(lifetime_ms.min(TOKEN_MS_MAX)));
        step.put(self.keys.token(token), NumberRow(until.0).to_bytes());
        self.tokens.insert(token, until);
        Answer::At(step.index)
    }

    pub(crate) fn join<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        token: u128,
        record: &NodeRecord,
    ) -> Result<Answer, StorageError> {
        if self.cluster.is_none() {
            return Ok(Answer::Refused(Refused::WrongState));
        }
        if let Some(known) = self.nodes.get(&record.node) {
            if self.member(record.node) == Some(MemberState::Removed) {
                return Ok(Answer::Refused(Refused::NodeRemoved));
            }
            if known.record.store != record.store {
                return Ok(Answer::Refused(Refused::NodeIdTaken));
            }
            // It asks again, since it did not hear the answer.
            return self.register(step, record);
        }
        let sensible = record.store != 0 && record.node != NodeId(0) && !record.address.is_empty();
        if !sensible {
            return Ok(Answer::Refused(Refused::Malformed));
        }
        if self.nodes.len() >= NODES_MAX {
            return Ok(Answer::Refused(Refused::TooManyRoutes));
        }
        if self.tokens.get(&token).is_none_or(|until| *until <= step.time) {
            return Ok(Answer::Refused(Refused::NoToken));
        }
        self.tokens.remove(&token);
        step.delete(self.keys.token(token));
        self.put_node(step, record, false);
        Ok(Answer::At(step.index))
    }

    pub(crate) fn set_member<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        node: NodeId,
        state: MemberState,
    ) -> Result<Answer, StorageError> {
        let Some(before) = self.member(node) else {
            return Ok(Answer::Refused(Refused::WrongState));
        };
        if before == MemberState::Removed && state != MemberState::Removed {
            return Ok(Answer::Refused(Refused::NodeRemoved));
        }
        let active = |id: &NodeId| self.member(*id) == Some(MemberState::Active);
        let last = !self.nodes.keys().any(|id| *id != node && active(id));
        if state != MemberState::Active && last {
            return Ok(Answer::Refused(Refused::WrongState));
        }
        if before != state {
            let key = self.keys.member(node);
            if state == MemberState::Active {
                self.members.remove(&node);
                step.delete(key);
            } else {
                self.members.insert(node, state);
                step.put(key, MemberRow(state).to_bytes());
            }
        }
        if state == MemberState::Removed {
            return self.drop_node(step, node, |_| true);
        }
        Ok(Answer::At(step.index))
    }

    pub(crate) fn place_voters<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        group: ShardId,
        from: &[NodeId],
        to: Vec<NodeId>,
    ) -> Answer {
        if self.voters(group) != from || from.is_empty() {
            return Answer::Refused(Refused::WrongState);
        }
        let distinct: BTreeSet<NodeId> = to.iter().copied().collect();
        let there =
            |node: &NodeId| self.member(*node).is_some_and(|state| state != MemberState::Removed);
        let sensible = distinct.len() == to.len()
            && (1..=VOTERS_MAX).contains(&to.len())
            && to.iter().all(there);
        if !sensible {
            return Answer::Refused(Refused::Malformed);
        }
        self.put_target(step, group, Target { voters: to, reached: false });
        Answer::At(step.index)
    }

    pub(crate) fn placed<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        group: ShardId,
        voters: &[NodeId],
    ) -> Answer {
        let wanted: BTreeSet<&NodeId> = self.voters(group).iter().collect();
        if wanted.is_empty() || wanted != voters.iter().collect() {
            return Answer::Refused(Refused::WrongState);
        }
        let voters = self.voters(group).to_vec();
        self.put_target(step, group, Target { voters, reached: true });
        Answer::At(step.index)
    }

    pub(crate) fn set_replicas<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        replicas: u8,
    ) -> Answer {
        if !REPLICAS.contains(&replicas) {
            return Answer::Refused(Refused::Malformed);
        }
        let Some(cluster) = self.cluster.filter(|_| self.level() >= REPLICAS_CHANGE) else {
            return Answer::Refused(Refused::WrongState);
        };
        if cluster.replicas != replicas {
            let ClusterRecord { cluster, shards, .. } = cluster;
            self.cluster = Some(ClusterRecord { cluster, shards, replicas });
            let row = ClusterRow { cluster, shards, replicas };
            step.put(self.keys.setting(CLUSTER), row.to_bytes());
        }
        Answer::At(step.index)
    }

    fn put_target<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        group: ShardId,
        target: Target,
    ) {
        let row = TargetRow { voters: target.voters.clone(), reached: target.reached };
        step.put(self.keys.target(group), row.to_bytes());
        self.targets.insert(group, target);
    }

    /// When the next token ends.
    pub(super) fn token_deadline(&self) -> Option<UnixMillis> {
        self.tokens.values().min().copied()
    }

    /// Forgets tokens whose time is over.
    pub(super) fn tick_tokens<R: Rows + ?Sized>(&mut self, step: &mut Step<'_, R>) {
        let over: Vec<u128> = self
            .tokens
            .iter()
            .filter(|(_, until)| **until <= step.time)
            .map(|(token, _)| *token)
            .collect();
        for token in over {
            self.tokens.remove(&token);
            step.delete(self.keys.token(token));
        }
    }
}
