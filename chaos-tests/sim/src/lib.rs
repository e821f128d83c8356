//! Machines, producers and a lossy log in one thread, by seed: the same seed is the same run, step for step.
//!
//! ```text
//!   publishers, subscribers ─► routers (one producer a node and group) ─► network: late, lost, twice
//!        ▲                                                                   │
//!        │ deliveries                                                        ▼
//!   leader's replica ◄── apply ◄── committed entries ◄── log: a leader change loses what is not committed
//!   other replicas   ◄── apply, checkpoint, crash, snapshot, at their own pace
//! ```
//!
//! Everything but Raft itself: the log is given, elections are the simulator's whim. The machine, the overlay and the
//! store in memory are the product's own code.
//!
//! # Invariants of the cluster, one file each in [`checks`]
//!
//! agreement · once · settled · order · loss. Each is shown to see by a [`Mutant`] that breaks it (`tests/seeds.rs`).
//!
//! # Deliberately absent
//!
//! Sockets, disks and real time (`chaos-tests/cluster`), Raft's own safety (openraft's tests).

pub mod checks;
mod faults;
mod group;
mod network;
mod node;
mod publishing;
mod random;
mod replica;
mod router;
mod serving;
mod subscribing;
mod world;

pub use world::{Options, Report};

/// A bug that is planted, so that the checks can show that they see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mutant {
    /// None: the product as it is.
    #[default]
    None,
    /// The leader forgets who proposed: a repeated command is a new one.
    NoDedupe,
    /// A leader change loses entries that were committed.
    LostCommit,
    /// A node acknowledges a delivery that its client never got.
    EarlySettle,
    /// One replica skips a row.
    LostRow,
    /// A router sends again from the wrong end after a leader change.
    NewestFirst,
    /// A router answers settlements without proposing them.
    LostSettle,
}

/// Something that must never happen, happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant: the name of its file in [`checks`].
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

impl std::error::Error for Violation {}

/// Runs one seed to its end.
///
/// # Errors
///
/// The first violation.
pub fn run(seed: u64, options: &Options) -> Result<Report, Violation> {
    world::World::new(seed, options.clone()).run()
}
