//! The cluster's level, as nodes see it: who raises it and when, and what an operator is told.
//!
//! ```text
//!   hello of each peer: what its program knows ─► the meta leader: do all know the next? since when? ─► Command::SetLevel
//! ```
//!
//! Whether it may be raised is decided in `moorline_machine` (`MetaState::level_step`), and again when the command is applied.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use moorline_core::{
    NodeId, ShardId,
    level::{FIRST, KNOWN, Program},
};
use moorline_machine::{Command, MemberState, MetaState};
use tracing::{debug, info};

use super::{members::Outcome, node::Node};
use crate::config::Raise;

/// How long `cluster init` waits for all nodes to have said what they know: a cluster whose nodes are not all there yet is raised
/// when they are.
const INIT_LEVEL_WAIT: Duration = Duration::from_secs(2);
/// How often that is looked at.
const INIT_LEVEL_PAUSE: Duration = Duration::from_millis(50);

/// Since when this leader has seen that all know the next level. Another leader begins anew.
#[derive(Debug, Default)]
pub(super) struct Raising {
    known: Option<(u16, Instant)>,
}

impl Raising {
    /// Takes in what all know now. Whether that has been so for long enough.
    fn look(&mut self, next: Option<u16>, now: Instant, wait: Option<Duration>) -> bool {
        self.known = match (next, self.known) {
            (None, _) => None,
            (Some(next), Some((known, since))) if known == next => Some((known, since)),
            (Some(next), _) => Some((next, now)),
        };
        let (Some((_, since)), Some(wait)) = (self.known, wait) else { return false };
        now.saturating_duration_since(since) >= wait
    }
}

impl Node {
    fn meta<T>(&self, read: impl FnOnce(&MetaState) -> T) -> Option<T> {
        self.groups().read(ShardId::META, |machine, _| read(machine.meta()))
    }

    /// The level of the cluster.
    pub(super) fn level(&self) -> u16 {
        self.meta(MetaState::level).unwrap_or(FIRST)
    }

    /// The level above it that every node knows, as far as this one knows.
    pub(super) fn next_level(&self) -> Option<u16> {
        let heard = self.heard();
        self.meta(|meta| meta.next_level(&heard)).flatten()
    }

    /// What nodes said last of their programs: to this process, else as the log has it.
    pub(super) fn programs(&self) -> BTreeMap<NodeId, Program> {
        let noted = self.meta(|meta| {
            let said = |node: &NodeId| meta.program(*node).map(|program| (*node, program));
            meta.nodes().keys().filter_map(said).collect::<BTreeMap<_, _>>()
        });
        let mut all = noted.unwrap_or_default();
        all.extend(self.heard());
        all
    }

    /// As the meta leader: raises the level when it is time, and notes what nodes say.
    pub(super) async fn keep_levels(&self, raising: &mut Raising) {
        let heard = self.heard();
        let cluster = &self.config().cluster;
        let wait = match cluster.level {
            // Nothing was there before, so there is nothing to go back to.
            Raise::Automatic | Raise::Manual if self.is_newborn() => Some(Duration::ZERO),
            Raise::Automatic => Some(Duration::from_secs(cluster.level_after_s)),
            Raise::Manual => None,
        };
        let next = self.meta(|meta| meta.next_level(&heard)).flatten();
        let raise = raising.look(next, Instant::now(), wait);
        let step = self.meta(|meta| meta.level_step(&heard, raise)).flatten();
        let Some(command) = step else { return };
        if raise {
            info!(level = ?next, "every node knows the next level: the cluster is raised");
        }
        if let Err(problem) = self.ask_meta(&command).await {
            debug!(%problem, "a level was not set");
        }
    }

    /// As an operator wants it: raises the cluster now to what every node knows. The level it is at then.
    pub(crate) async fn upgrade(&self) -> anyhow::Result<u16> {
        let heard = self.heard();
        let step = self.meta(|meta| (meta.level(), meta.level_step(&heard, true)));
        let (level, step) = step.context("the meta replica is not open")?;
        let Some(Command::SetLevel { level: next, programs }) = step else {
            return self.nothing_above(level);
        };
        if next == level {
            return self.nothing_above(level);
        }
        match self.ask_meta(&Command::SetLevel { level: next, programs }).await? {
            Outcome::At(_) => Ok(next),
            Outcome::Refused(_) => {
                bail!("the level changed meanwhile, or a node that does not know {next}: ask again")
            }
            Outcome::Partly => bail!("the meta group answered otherwise than it should"),
        }
    }

    /// The level, if it is the highest of this program; else who is in the way.
    fn nothing_above(&self, level: u16) -> anyhow::Result<u16> {
        if level >= KNOWN.max {
            return Ok(level);
        }
        let programs = self.programs();
        let members = self.meta(|meta| {
            let stays = |node: &NodeId| meta.member(*node) != Some(MemberState::Removed);
            meta.nodes().keys().copied().filter(stays).collect::<Vec<_>>()
        });
        let behind =
            members.unwrap_or_default().into_iter().filter_map(|node| match programs.get(&node) {
                None => {
                    Some(format!("node {node} has not said what it knows: start it, or remove it"))
                }
                Some(program) if program.levels.know(KNOWN.max) => None,
                Some(program) => Some(format!(
                    "node {node} knows {} (version {})",
                    program.levels,
                    program.version()
                )),
            });
        let behind: Vec<String> = behind.collect();
        bail!("the cluster stays at level {level}, of {KNOWN} here: {}", behind.join("; "))
    }

    /// A cluster that was made just now goes to what its nodes know before it serves, if they are there.
    pub(super) async fn wait_for_level(&self) {
        let give_up = tokio::time::Instant::now() + INIT_LEVEL_WAIT;
        while self.level() < KNOWN.max && tokio::time::Instant::now() < give_up {
            tokio::time::sleep(INIT_LEVEL_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_to_know_it_for_as_long_as_is_wanted() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let wait = Some(Duration::from_secs(10));
        let mut raising = Raising::default();
        assert!(!raising.look(None, at(0), wait));
        assert!(!raising.look(Some(2), at(1), wait));
        assert!(!raising.look(Some(2), at(10), wait));
        assert!(!raising.look(None, at(10), wait), "one went back");
        assert!(!raising.look(Some(2), at(11), wait), "and begins anew");
        assert!(!raising.look(Some(3), at(20), wait), "another level is another matter");
        assert!(raising.look(Some(3), at(30), wait));
        assert!(!raising.look(Some(3), at(90), None), "by hand alone");
        assert!(Raising::default().look(Some(2), at(0), Some(Duration::ZERO)), "a new cluster");
    }
}
