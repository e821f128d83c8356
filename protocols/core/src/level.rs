//! Levels: which rules all nodes of a cluster know, so that programs of two versions serve beside each other.
//!
//! ```text
//!   program    knows levels MIN..=MAX, and says so in each hello
//!   cluster    is at one level, a row of the meta group; it goes up once every member knows the next
//!   proposer   asks for the cluster's level before it writes what only a later one has
//! ```
//!
//! | level | what may be in logs and rows from there on |
//! |---|---|
//! | 1 | everything that programs wrote which say no levels |
//! | 2 | the command that raises a level; points by the second rules (texts of 64 KiB, what has no time apart); the command that changes
//! |   | how many copies shards have |
//!
//! # Invariants
//!
//! - **Never renumbered, never lowered**: logs and directories hold them. Checked by the tests below and in `raft/machine`.
//! - **A gap is refused**, not guessed at: [`Levels::check`] says it with what to do.

use std::fmt;

use thiserror::Error;

/// The level of clusters and programs that say none.
pub const FIRST: u16 = 1;
/// From here on points may be recorded by the second rules.
pub const RECORD_BY_SECOND: u16 = 2;
/// From here on the number of copies of shards may change.
pub const REPLICAS_CHANGE: u16 = 2;
/// What this program knows.
pub const KNOWN: Levels = Levels { min: FIRST, max: RECORD_BY_SECOND };

/// Which levels a program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// The lowest: clusters below it are too old for the program.
    pub min: u16,
    /// The highest: clusters above it are too new.
    pub max: u16,
}

/// A program and a cluster that are too far apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Misfit {
    /// The program is too old.
    #[error(
        "the cluster is at level {level}, and this program knows {known}: it is older than what the cluster was raised to. \
         Start the newer program here; a level does not go back"
    )]
    ProgramTooOld {
        /// Of the cluster.
        level: u16,
        /// By the program.
        known: Levels,
    },
    /// The program is too new.
    #[error(
        "the cluster is at level {level}, and this program knows {known}: a version between was left out. \
         Start a program on all nodes that knows level {level} and level {}, let the cluster be raised, then come back",
        known.min
    )]
    ProgramTooNew {
        /// Of the cluster.
        level: u16,
        /// By the program.
        known: Levels,
    },
}

impl Levels {
    /// Of programs that say nothing.
    pub const SILENT: Self = Self { min: FIRST, max: FIRST };

    /// Whether a level is among them.
    #[must_use]
    pub fn know(self, level: u16) -> bool {
        (self.min..=self.max).contains(&level)
    }

    /// Whether a program with these may be part of a cluster at this level.
    ///
    /// # Errors
    ///
    /// [`Misfit`], with what to do.
    pub fn check(self, level: u16) -> Result<(), Misfit> {
        if level > self.max {
            Err(Misfit::ProgramTooOld { level, known: self })
        } else if level < self.min {
            Err(Misfit::ProgramTooNew { level, known: self })
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, max } = self;
        if min == max { write!(f, "{min}") } else { write!(f, "{min} to {max}") }
    }
}

/// The highest level above `level` that all of them know; [`None`] if there is none, or if one of them never said what it knows.
#[must_use]
pub fn next(level: u16, all: impl IntoIterator<Item = Option<Levels>>) -> Option<u16> {
    let (mut lowest, mut highest) = (FIRST, None);
    for levels in all {
        let Levels { min, max } = levels?;
        lowest = lowest.max(min);
        highest = Some(highest.map_or(max, |highest: u16| highest.min(max)));
    }
    highest.filter(|highest| *highest > level && *highest >= lowest)
}

/// What a node says of the program it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// What it knows.
    pub levels: Levels,
    /// Its version: major, minor, patch; zeroes if it did not say.
    pub version: [u16; 3],
}

impl Program {
    /// One that says nothing of itself.
    pub const SILENT: Self = Self { levels: Levels::SILENT, version: [0; 3] };

    /// This one.
    #[must_use]
    pub fn this() -> Self {
        let parts = [
            env!("CARGO_PKG_VERSION_MAJOR"),
            env!("CARGO_PKG_VERSION_MINOR"),
            env!("CARGO_PKG_VERSION_PATCH"),
        ];
        Self { levels: KNOWN, version: parts.map(|part| part.parse().unwrap_or_default()) }
    }

    /// Its version, for eyes.
    #[must_use]
    pub fn version(&self) -> String {
        let [major, minor, patch] = self.version;
        if self.version == [0; 3] {
            return "says none".to_owned();
        }
        format!("{major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn of(min: u16, max: u16) -> Levels {
        Levels { min, max }
    }

    #[test]
    fn a_level_is_what_all_know_and_none_said_nothing() {
        let (old, both, newer) = (Some(of(1, 1)), Some(of(1, 2)), Some(of(2, 3)));
        type Case<'a> = (u16, &'a [Option<Levels>], Option<u16>);
        let table: [Case<'_>; 10] = [
            (1, &[both, both, both], Some(2)),
            (1, &[both, old, both], None),
            (1, &[both, None, both], None),
            (1, &[], None),
            (2, &[both, both], None),
            (1, &[both, newer], Some(2)),
            (1, &[newer, newer], Some(3)),
            (2, &[newer, newer], Some(3)),
            (3, &[newer, newer], None),
            (1, &[old, newer], None),
        ];
        for (level, all, expected) in table {
            assert_eq!(next(level, all.iter().copied()), expected, "{level} {all:?}");
        }
    }

    #[test]
    fn a_gap_is_refused_and_says_what_to_do() {
        let table = [
            (of(1, 2), 1, None),
            (of(1, 2), 2, None),
            (of(1, 2), 3, Some("Start the newer program")),
            (of(2, 3), 1, Some("a version between was left out")),
            (of(2, 2), 2, None),
        ];
        for (levels, level, because) in table {
            match (levels.check(level), because) {
                (Ok(()), None) => assert!(levels.know(level)),
                (Err(misfit), Some(because)) => {
                    assert!(misfit.to_string().contains(because), "{misfit}");
                    assert!(!levels.know(level));
                }
                other => panic!("{levels} at {level}: {other:?}"),
            }
        }
    }

    #[test]
    fn this_program_knows_where_clusters_begin() {
        assert!(KNOWN.know(FIRST), "or a cluster of the version before could not be upgraded");
        assert_eq!((FIRST, RECORD_BY_SECOND), (1, 2), "frozen: logs and directories hold them");
        assert_eq!(Program::this().levels, KNOWN);
    }
}
