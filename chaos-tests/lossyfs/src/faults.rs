//! The faults that can be switched on, and the counters that say what happened.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// No quota is set.
const NO_QUOTA: u64 = u64::MAX;

/// Faults switched on, and counters. All of it may be changed while the file system serves.
#[derive(Debug)]
pub(crate) struct Faults {
    fsync_errors: AtomicU64,
    write_errors: AtomicU64,
    slow_fsync_ms: AtomicU64,
    lie: AtomicBool,
    quota: AtomicU64,
    pub(crate) counters: Counters,
}

/// What happened since the mount.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) writes: AtomicU64,
    pub(crate) fsyncs: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) losses: AtomicU64,
    pub(crate) written_back: AtomicU64,
}

/// What `status` answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// Files with unsynced changes.
    pub dirty_files: u64,
    /// Unsynced bytes in memory.
    pub pending_bytes: u64,
    /// Names that are not durable yet (strict mode).
    pub pending_names: u64,
    /// Bytes of all files, as readers see them.
    pub used_bytes: u64,
    /// The quota in bytes, if one is set.
    pub quota_bytes: Option<u64>,
    /// Fsyncs that will fail.
    pub fsync_errors_left: u64,
    /// Writes that will fail.
    pub write_errors_left: u64,
    /// How long each fsync takes, in milliseconds.
    pub slow_fsync_ms: u64,
    /// Whether fsync does nothing.
    pub lie: bool,
    /// Writes served.
    pub writes: u64,
    /// Fsyncs asked for.
    pub fsyncs: u64,
    /// Errors injected.
    pub errors: u64,
    /// Writes refused for the quota.
    pub refused: u64,
    /// Power failures played.
    pub losses: u64,
    /// Files written back because too much waited in memory.
    pub written_back: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            fsync_errors: AtomicU64::new(0),
            write_errors: AtomicU64::new(0),
            slow_fsync_ms: AtomicU64::new(0),
            lie: AtomicBool::new(false),
            quota: AtomicU64::new(NO_QUOTA),
            counters: Counters::default(),
        }
    }
}

impl Faults {
    pub(crate) fn fail_fsyncs(&self, times: u64) {
        self.fsync_errors.store(times, Ordering::Relaxed);
    }

    pub(crate) fn fail_writes(&self, times: u64) {
        self.write_errors.store(times, Ordering::Relaxed);
    }

    pub(crate) fn slow_fsyncs(&self, ms: u64) {
        self.slow_fsync_ms.store(ms, Ordering::Relaxed);
    }

    pub(crate) fn set_lie(&self, lie: bool) {
        self.lie.store(lie, Ordering::Relaxed);
    }

    pub(crate) fn set_quota(&self, bytes: Option<u64>) {
        self.quota.store(bytes.unwrap_or(NO_QUOTA), Ordering::Relaxed);
    }

    /// Everything off.
    pub(crate) fn heal(&self) {
        self.fail_fsyncs(0);
        self.fail_writes(0);
        self.slow_fsyncs(0);
        self.set_lie(false);
        self.set_quota(None);
    }

    /// Whether the fsync at hand is to fail.
    pub(crate) fn take_fsync_error(&self) -> bool {
        self.take(&self.fsync_errors)
    }

    /// Whether the write at hand is to fail.
    pub(crate) fn take_write_error(&self) -> bool {
        self.take(&self.write_errors)
    }

    fn take(&self, left: &AtomicU64) -> bool {
        let took = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if took.is_ok() {
            self.counters.errors.fetch_add(1, Ordering::Relaxed);
        }
        took.is_ok()
    }

    pub(crate) fn fsync_pause(&self) -> Option<Duration> {
        let ms = self.slow_fsync_ms.load(Ordering::Relaxed);
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    pub(crate) fn lies(&self) -> bool {
        self.lie.load(Ordering::Relaxed)
    }

    pub(crate) fn quota(&self) -> Option<u64> {
        let bytes = self.quota.load(Ordering::Relaxed);
        (bytes != NO_QUOTA).then_some(bytes)
    }

    /// The part of the status that stands here.
    pub(crate) fn status(&self) -> Status {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Status {
            quota_bytes: self.quota(),
            fsync_errors_left: of(&self.fsync_errors),
            write_errors_left: of(&self.write_errors),
            slow_fsync_ms: of(&self.slow_fsync_ms),
            lie: self.lies(),
            writes: of(&self.counters.writes),
            fsyncs: of(&self.counters.fsyncs),
            errors: of(&self.counters.errors),
            refused: of(&self.counters.refused),
            losses: of(&self.counters.losses),
            written_back: of(&self.counters.written_back),
            ..Status::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_used_up_and_healing_ends_everything() {
        let faults = Faults::default();
        faults.fail_fsyncs(2);
        assert_eq!([(); 3].map(|()| faults.take_fsync_error()), [true, true, false]);
        assert_eq!(faults.status().errors, 2);
        faults.fail_writes(5);
        faults.slow_fsyncs(9);
        faults.set_lie(true);
        faults.set_quota(Some(1));
        faults.heal();
        assert_eq!(faults.status(), Status { errors: 2, ..Status::default() });
    }
}
