//! The cluster's level: which rules all its nodes know.
//!
//! # Invariants
//!
//! - **Never lowered, and raised only to what every member knows** that is not removed, by what it said last. Checked by
//!   `tests/rules/levels.rs`.
//! - **What the first programs can't read comes after the raise**: at the first level nothing of this is proposed but the raise
//!   itself. Checked by `tests/rules/levels.rs`.

use std::collections::BTreeMap;

use moorline_core::{
    NodeId,
    level::{self, FIRST, Program},
};
use moorline_storage::{Rows, StorageError, View};

use super::{MetaState, NODES_MAX};
use crate::{
    answer::{Answer, Refused},
    command::{Command, MemberState},
    rows::{LevelRow, Row},
    step::Step,
};

pub(crate) const LEVEL: &[u8] = b"level";

impl MetaState {
    pub(super) fn open_level(&mut self, rows: &(impl View + ?Sized)) -> Result<(), StorageError> {
        if let Some(row) = rows.get(&self.keys.setting(LEVEL))? {
            let LevelRow { level, programs } = LevelRow::from_bytes(&row)?;
            self.level = level;
            self.programs = programs.into_iter().collect();
        }
        Ok(())
    }

    /// The level of the cluster.
    #[must_use]
    pub fn level(&self) -> u16 {
        self.level
    }

    /// What a node said last of its program, if the log has it: at the first level it never does.
    #[must_use]
    pub fn program(&self, node: NodeId) -> Option<Program> {
        self.programs.get(&node).copied()
    }

    /// The level that all members know, with what was heard of them besides, if it is above the cluster's.
    #[must_use]
    pub fn next_level(&self, heard: &BTreeMap<NodeId, Program>) -> Option<u16> {
        self.cluster?;
        let of = |node: &NodeId| heard.get(node).or_else(|| self.programs.get(node));
        level::next(self.level, self.staying().map(|node| of(&node).map(|of| of.levels)))
    }

    /// What to propose as to levels, by who leads this group: with `raise` the next level, if there is one; else what was heard
    /// and the log does not have.
    #[must_use]
    pub fn level_step(&self, heard: &BTreeMap<NodeId, Program>, raise: bool) -> Option<Command> {
        self.cluster?;
        let next = self.next_level(heard).filter(|_| raise);
        let news = self.staying().filter_map(|node| {
            let said = heard.get(&node)?;
            (self.programs.get(&node) != Some(said)).then_some((node, *said))
        });
        let programs: Vec<_> = news.collect();
        let level = next.unwrap_or(self.level);
        // A program of the first level can't read this command, and would end.
        let worth = next.is_some() || (level > FIRST && !programs.is_empty());
        worth.then_some(Command::SetLevel { level, programs })
    }

    /// Nodes that were not removed.
    fn staying(&self) -> impl Iterator<Item = NodeId> {
        let removed = |node: &NodeId| self.members.get(node) == Some(&MemberState::Removed);
        self.nodes.keys().copied().filter(move |node| !removed(node))
    }

    pub(crate) fn set_level<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        level: u16,
        programs: &[(NodeId, Program)],
    ) -> Answer {
        if programs.len() > NODES_MAX || level == 0 {
            return Answer::Refused(Refused::Malformed);
        }
        if self.cluster.is_none() || level < self.level {
            return Answer::Refused(Refused::WrongState);
        }
        let mut known = self.programs.clone();
        known.extend(programs.iter().filter(|(node, _)| self.nodes.contains_key(node)).copied());
        let knows = |node: NodeId| known.get(&node).is_some_and(|of| of.levels.know(level));
        if level > self.level && !self.staying().all(knows) {
            return Answer::Refused(Refused::WrongState);
        }
        if level != self.level || known != self.programs {
            let programs = known.iter().map(|(node, program)| (*node, *program)).collect();
            step.put(self.keys.setting(LEVEL), LevelRow { level, programs }.to_bytes());
            (self.level, self.programs) = (level, known);
        }
        Answer::At(step.index)
    }
}
