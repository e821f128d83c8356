//! Known bugs that a simulation can put back in, to show that its invariants see them (`chaos-tests/dst`).
//!
//! # Invariants
//!
//! - **Never in a node that anybody runs**: without the feature `planted`, which only the simulation's workspace turns on,
//!   [`is`] is a constant `false`, and what stands behind it is compiled out.
//! - **One at a time, and chosen once**, by `plant`.

/// A bug that is known, with where it stood or could stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// A leader answers linearizable reads without asking whether it still leads (`raft/group`).
    StaleRead = 1,
    /// Whoever attaches has the session, also by an epoch that has ended, and nobody is told of a takeover (`node/service`).
    StaleEpoch = 2,
    /// Routes to shards are forgotten when rows are read after a restart (`raft/machine`).
    LostRoute = 3,
    /// What a client has acknowledged stays in its queue (`raft/machine`).
    ResendAfterAck = 4,
    /// Whoever once had a session releases its deliveries of QoS 2 (`raft/machine`; it was there until the simulation's seed 11).
    UnfencedRelease = 5,
}

#[cfg(feature = "planted")]
static PLANTED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Puts a bug back in, for the rest of the process.
#[cfg(feature = "planted")]
pub fn plant(bug: Bug) {
    PLANTED.store(bug as u8, std::sync::atomic::Ordering::SeqCst);
}

/// Whether this bug is in.
#[cfg(feature = "planted")]
#[must_use]
pub fn is(bug: Bug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::Relaxed) == bug as u8
}

/// Whether this bug is in: never.
#[cfg(not(feature = "planted"))]
#[must_use]
#[inline(always)]
pub const fn is(_bug: Bug) -> bool {
    false
}
