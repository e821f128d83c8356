//! What whoever makes faults turns at a disk, and sees of it.

use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use moorline_core::ShardId;

/// How a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A sync ends with an error: what was not synced is there, or in part, or not.
    Sync,
    /// A write ends with an error, for nothing is free.
    Full,
}

/// Outlives the processes of a node, as its log does.
#[derive(Debug, Default)]
pub(crate) struct Switches {
    /// Milliseconds that a sync takes longer.
    pub(crate) stall: AtomicU64,
    /// A snapshot is being installed at this moment.
    pub(crate) installing: AtomicBool,
    /// The log has failed: the process must end.
    pub(crate) failed: AtomicBool,
    /// The log could not be opened: the node takes no part any more.
    pub(crate) quarantined: AtomicBool,
    next: Mutex<Option<Failure>>,
    granted: Mutex<Vec<(ShardId, u64)>>,
}

impl Switches {
    fn granted(&self) -> MutexGuard<'_, Vec<(ShardId, u64)>> {
        self.granted.lock().expect("no panic while it is locked")
    }

    /// The next write fails.
    pub(crate) fn fail(&self, how: Failure) {
        *self.next.lock().expect("no panic while it is locked") = Some(how);
    }

    /// How this write fails, if it does.
    pub(crate) fn take_failure(&self) -> Option<Failure> {
        self.next.lock().expect("no panic while it is locked").take()
    }

    /// A vote for another node was answered.
    pub(crate) fn grant(&self, shard: ShardId, to: u64) {
        self.granted().push((shard, to));
    }

    /// Those since the call before.
    pub(crate) fn take_granted(&self) -> Vec<(ShardId, u64)> {
        std::mem::take(&mut *self.granted())
    }

    /// No failure waits any more.
    pub(crate) fn heal(&self) {
        self.stall.store(0, Ordering::Relaxed);
        self.take_failure();
    }
}
