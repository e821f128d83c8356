//! Known bugs that can be put back in, to show that the invariants see them: some in the simulated disk, the others where they
//! would stand in the product (`moorline_core::planted`).

use clap::ValueEnum;
use moorline_core::planted::{self, Bug};

/// What is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mutant {
    /// The log answers before it has synced (Jepsen, NATS 2.12: acknowledged messages lost by power failure).
    AckBeforeFsync,
    /// A vote is answered as soon as it is written.
    SkipVoteFsync,
    /// A leader answers reads without asking whether it still leads.
    StaleRead,
    /// Whoever attaches has a session, also by an epoch that has ended.
    StaleEpoch,
    /// Routes are forgotten by a restart.
    LostRoute,
    /// What was acknowledged stays in the queue.
    ResendAfterAck,
    /// Whoever once had a session releases its deliveries of QoS 2 (ours; found by seed 11).
    UnfencedRelease,
}

impl Mutant {
    /// Puts it into the product, if it belongs there.
    pub(crate) fn plant(self) {
        planted::plant(match self {
            Self::AckBeforeFsync | Self::SkipVoteFsync => return,
            Self::StaleRead => Bug::StaleRead,
            Self::StaleEpoch => Bug::StaleEpoch,
            Self::LostRoute => Bug::LostRoute,
            Self::ResendAfterAck => Bug::ResendAfterAck,
            Self::UnfencedRelease => Bug::UnfencedRelease,
        });
    }
}
