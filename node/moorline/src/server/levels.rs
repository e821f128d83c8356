//! The cluster's level, as nodes see it: who raises it, and what an operator is told.
//!
//! ```text
//!   hello of each peer: what its program knows ─┬─► `moorline cluster upgrade`, at any node  ─► Command::SetLevel
//!                                               ├─► who made the cluster, while that is new  ─► Command::SetLevel
//!                                               └─► the meta leader, above the first level: takes note
//! ```
//!
//! # Invariants
//!
//! - **Nobody but an operator raises a cluster that may have something to go back to.** Only the process that was told to make the
//!   cluster raises it by itself, and no more once it has heard an older program. Checked by the cluster tests (`levels.rs`).
//!
//! Whether it may be raised is decided in `moorline_machine` (`MetaState::level_step`), and again when the command is applied.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, bail};
use moorline_core::{
    NodeId, ShardId,
    level::{FIRST, Levels, Program},
};
use moorline_machine::{Command, MemberState, MetaState};
use tokio::time::Instant;
use tracing::{debug, info};

use super::{
    members::{COMMAND_WAIT, Outcome},
    node::Node,
};

/// How long `cluster init` waits for all nodes to have said what they know: a cluster whose nodes are not all there yet is raised
/// when they are.
const INIT_LEVEL_WAIT: Duration = Duration::from_secs(2);
/// How often that is looked at.
const INIT_LEVEL_PAUSE: Duration = Duration::from_millis(50);

impl Node {
    fn meta<T>(&self, read: impl FnOnce(&MetaState) -> T) -> Option<T> {
        self.groups().read(ShardId::META, |machine, _| read(machine.meta()))
    }

    /// The levels that this node takes part in.
    pub(super) fn levels(&self) -> Levels {
        self.config().cluster.levels()
    }

    /// The level of the cluster.
    pub(crate) fn level(&self) -> u16 {
        self.meta(MetaState::level).unwrap_or(FIRST)
    }

    /// The level above it that every node knows, as far as this one knows.
    pub(crate) fn next_level(&self) -> Option<u16> {
        let heard = self.heard();
        self.meta(|meta| meta.next_level(&heard)).flatten()
    }

    /// What nodes said to this process of their programs, and is not older than what the log may have: at the first level the log has
    /// nothing, and what a node said last counts; above it what a node says that is connected.
    fn heard(&self) -> BTreeMap<NodeId, Program> {
        let mut said = self.peers().programs();
        if self.level() > FIRST {
            said.retain(|node, _| self.is_up(*node));
        }
        said
    }

    /// What nodes said last of their programs: to this process, else as the log has it.
    pub(crate) fn programs(&self) -> BTreeMap<NodeId, Program> {
        let noted = self.meta(|meta| {
            let said = |node: &NodeId| meta.program(*node).map(|program| (*node, program));
            meta.nodes().keys().filter_map(said).collect::<BTreeMap<_, _>>()
        });
        let mut all = noted.unwrap_or_default();
        all.extend(self.heard());
        all
    }

    /// As the meta leader: notes what nodes say, so that whoever leads next knows it of those that are down.
    pub(super) async fn note_programs(&self) {
        let heard = self.heard();
        let step = self.meta(|meta| meta.level_step(&heard, false)).flatten();
        let Some(command) = step else { return };
        if let Err(problem) = self.ask_meta(&command).await {
            debug!(%problem, "what nodes run was not noted");
        }
    }

    /// As who made the cluster: raises it once all its nodes have said what they know. Nothing was there before, so there is nothing
    /// to go back to; unless a node runs an older program.
    pub(super) async fn raise_newborn(&self) {
        if !self.is_newborn() {
            return;
        }
        let (heard, most) = (self.heard(), self.levels().max);
        let older = heard.values().any(|program| !program.levels.know(most));
        if older || self.level() >= most {
            self.set_newborn(false);
            return;
        }
        let step = self.meta(|meta| meta.level_step(&heard, true)).flatten();
        let Some(command) = step else { return };
        match self.ask_meta(&command).await {
            Ok(outcome) => info!(?outcome, level = most, "a new cluster is raised"),
            Err(problem) => debug!(%problem, "a new cluster was not raised yet"),
        }
    }

    /// As an operator wants it: raises the cluster now to what every node knows. The level it is at then.
    pub(crate) async fn upgrade(&self) -> anyhow::Result<u16> {
        let heard = self.heard();
        let step = self
            .meta(|meta| (meta.cluster().is_some(), meta.level(), meta.level_step(&heard, true)));
        let (made, level, step) = step.context("the meta replica is not open")?;
        if !made {
            bail!("the cluster is not made yet");
        }
        let Some(Command::SetLevel { level: next, programs }) = step else {
            return self.nothing_above(level);
        };
        if next == level {
            return self.nothing_above(level);
        }
        match self.ask_meta(&Command::SetLevel { level: next, programs }).await? {
            Outcome::At(index) => {
                info!(level = next, "the cluster is raised");
                // So that who asks this node hears of it.
                self.groups().wait_applied(ShardId::META, index, COMMAND_WAIT).await;
                Ok(next)
            }
            Outcome::Refused(_) => {
                bail!("the level changed meanwhile, or a node that does not know {next}: ask again")
            }
            Outcome::Partly => bail!("the meta group answered otherwise than it should"),
        }
    }

    /// The level, if it is the highest of this node; else who is in the way.
    fn nothing_above(&self, level: u16) -> anyhow::Result<u16> {
        let own = self.levels();
        if level >= own.max {
            return Ok(level);
        }
        let programs = self.programs();
        let members = self.meta(|meta| {
            let stays = |node: &NodeId| meta.member(*node) != Some(MemberState::Removed);
            meta.nodes().keys().copied().filter(stays).collect::<Vec<_>>()
        });
        let behind = in_the_way(own.max, &members.unwrap_or_default(), &programs);
        bail!("the cluster stays at level {level}, of {own} here: {}", behind.join("; "))
    }

    /// A cluster that was made just now goes to what its nodes know before it serves, if they are there.
    pub(super) async fn wait_for_level(&self) {
        let give_up = Instant::now() + INIT_LEVEL_WAIT;
        while self.is_newborn() && self.level() < self.levels().max && Instant::now() < give_up {
            tokio::time::sleep(INIT_LEVEL_PAUSE).await;
        }
    }
}

/// Which of the members do not know a level, in words.
fn in_the_way(level: u16, members: &[NodeId], programs: &BTreeMap<NodeId, Program>) -> Vec<String> {
    let problem = |node: &NodeId| match programs.get(node) {
        None => Some(format!("node {node} has not said what it knows: start it, or remove it")),
        Some(program) if program.levels.know(level) => None,
        Some(program) => {
            Some(format!("node {node} knows {} (version {})", program.levels, program.version()))
        }
    };
    members.iter().filter_map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_the_way_is_named() {
        let knows = |min, max| Program { levels: Levels { min, max }, version: [0, 2, 0] };
        let programs = BTreeMap::from([
            (NodeId(1), knows(1, 2)),
            (NodeId(2), Program::SILENT),
            (NodeId(3), knows(3, 4)),
        ]);
        let members = [1, 2, 3, 4].map(NodeId);
        let expected = [
            "node 2 knows 1 (version says none)",
            "node 3 knows 3 to 4 (version 0.2.0)",
            "node 4 has not said what it knows: start it, or remove it",
        ];
        assert_eq!(in_the_way(2, &members, &programs), expected);
        assert!(in_the_way(2, &members[..1], &programs).is_empty());
    }
}
