//! Known bugs that can be put back in, to show that the invariants see them.

use clap::ValueEnum;

/// What is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mutant {
    /// The log answers before it has synced (Jepsen, NATS 2.12: acknowledged messages lost by power failure).
    AckBeforeFsync,
    /// A vote is answered as soon as it is written.
    SkipVoteFsync,
    /// A leader answers reads without asking whether it still leads.
    StaleRead,
}
