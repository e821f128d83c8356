//! How the groups of a node behave: timers, batches, checkpoints, and the rim (clock, last words) handed in.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use moorline_core::{NodeId, UnixMillis};
use openraft::{Config, SnapshotPolicy};

pub use crate::collector::BatcherLimits;

/// Entries one append request carries at most; its bytes are limited by [`APPEND_BYTES_MAX`].
const APPEND_ENTRIES_MAX: u64 = 256;
/// Bytes of entries one append request carries at most (one entry may be bigger).
pub(crate) const APPEND_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Entries openraft merges into one write of the log.
const WRITE_ENTRIES_MAX: u64 = 1024;
/// Messages that wait for the core task of one group: proposals (8), appends of the leader (64), votes.
const CORE_QUEUE: u64 = 1024;
/// Notices that wait for the core task of one group.
const CORE_NOTICES: u64 = 4096;
/// Commands that wait for the apply task of one group.
const APPLY_QUEUE: u64 = 64;

/// Raft's timers, in milliseconds. A dead process is noticed by its closed streams within milliseconds; these only decide
/// when a peer hangs or the network is cut, so they are long enough for a busy 2-core machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// A leader with nothing to say says so this often.
    pub heartbeat_ms: u64,
    /// Data younger than this makes a heartbeat needless.
    pub heartbeat_min_ms: u64,
    /// A follower waits at least this long for its leader.
    pub election_min_ms: u64,
    /// And at most this long; also the leader's lease.
    pub election_max_ms: u64,
    /// A leader that lost its quorum falls silent for this long, so that those it still reaches may elect.
    pub quorum_loss_probe_ms: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heartbeat_ms: 250,
            heartbeat_min_ms: 200,
            election_min_ms: 750,
            election_max_ms: 1000,
            quorum_loss_probe_ms: 2500,
        }
    }
}

impl Timers {
    pub(crate) fn raft(self) -> Result<Config, String> {
        let config = Config {
            cluster_name: "moorline".into(),
            heartbeat_interval: self.heartbeat_ms,
            heartbeat_min_interval: Some(self.heartbeat_min_ms),
            election_timeout_min: self.election_min_ms,
            election_timeout_max: self.election_max_ms,
            quorum_loss_probe_interval: Some(self.quorum_loss_probe_ms),
            enable_pre_vote: Some(true),
            enable_leader_restore: Some(false),
            allow_log_reversion: Some(false),
            install_snapshot_timeout: u64::try_from(SNAPSHOT_TIMEOUT.as_millis())
                .unwrap_or(u64::MAX),
            max_payload_entries: APPEND_ENTRIES_MAX,
            max_append_entries: Some(WRITE_ENTRIES_MAX),
            // Snapshots are made by the checkpointer and purging is ours: openraft decides neither.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            replication_lag_threshold: u64::MAX / 2,
            api_channel_size: Some(CORE_QUEUE),
            notification_channel_size: Some(CORE_NOTICES),
            state_machine_channel_size: Some(APPLY_QUEUE),
            api_batch_capacity: APPEND_ENTRIES_MAX,
            backoff: "20ms 50ms 100ms ...1s".into(),
            ..Config::default()
        };
        config.validate().map_err(|error| error.to_string())
    }
}

/// A snapshot that takes longer than this is given up and begun anew.
pub(crate) const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(3600);

/// When state is written out, and how much log is kept for replicas that lag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointLimits {
    /// Bytes of rows in memory, all groups together, that start a checkpoint.
    pub bytes: usize,
    /// A checkpoint is made this often if anything was applied.
    pub every: Duration,
    /// Entries kept for lagging replicas.
    pub keep_entries: u64,
    /// Bytes of entries kept for lagging replicas, per group.
    pub keep_bytes: u64,
}

impl Default for CheckpointLimits {
    fn default() -> Self {
        Self {
            bytes: 64 * 1024 * 1024,
            every: Duration::from_secs(60),
            keep_entries: 20_000,
            keep_bytes: 64 * 1024 * 1024,
        }
    }
}

/// How snapshots travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotLimits {
    /// Bytes per second that this node sends of all snapshots together, so that they do not crowd out everything else.
    pub bytes_per_second: u64,
    /// How long the files of one that was not taken whole are kept, so that it goes on where it stopped.
    pub keep: Duration,
}

impl Default for SnapshotLimits {
    fn default() -> Self {
        Self { bytes_per_second: 64 * 1024 * 1024, keep: Duration::from_secs(600) }
    }
}

/// The process clock: wall time at the process's start and the monotonic clock since, so that nobody who sets the wall
/// clock moves it.
pub type Clock = Arc<dyn Fn() -> UnixMillis + Send + Sync>;
/// Called with the reason when a replica cannot trust itself any more; should not return.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// What [`crate::Groups`] need to know.
#[derive(Clone)]
pub struct GroupsConfig {
    /// This node.
    pub node: NodeId,
    /// Raft's timers.
    pub timers: Timers,
    /// How commands are collected into entries.
    pub batcher: BatcherLimits,
    /// When state is written out.
    pub checkpoint: CheckpointLimits,
    /// How snapshots travel.
    pub snapshots: SnapshotLimits,
    /// Where snapshots lie while they travel. On the same file system as the state.
    pub staging: PathBuf,
    /// What log time begins with, and runs on.
    pub clock: Clock,
    /// Ends the process; see [`abort`].
    pub fatal: Fatal,
}

impl GroupsConfig {
    /// The defaults: everything but who and where.
    #[must_use]
    pub fn new(node: NodeId, staging: PathBuf, clock: Clock) -> Self {
        Self {
            node,
            timers: Timers::default(),
            batcher: BatcherLimits::default(),
            checkpoint: CheckpointLimits::default(),
            snapshots: SnapshotLimits::default(),
            staging,
            clock,
            fatal: abort(),
        }
    }
}

impl fmt::Debug for GroupsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupsConfig")
            .field("node", &self.node)
            .field("timers", &self.timers)
            .field("batcher", &self.batcher)
            .field("checkpoint", &self.checkpoint)
            .field("snapshots", &self.snapshots)
            .field("staging", &self.staging)
            .finish_non_exhaustive()
    }
}

/// Says why and aborts the process: nothing may be answered after a replica lost its footing.
#[must_use]
pub fn abort() -> Fatal {
    Arc::new(|why| {
        tracing::error!(why, "this replica cannot go on; the process ends");
        std::process::abort()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_timers_are_valid_for_openraft() {
        let config = Timers::default().raft().unwrap();
        assert_eq!(config.quorum_loss_probe_interval, Some(2500));
    }

    #[test]
    fn timers_that_cannot_work_are_refused() {
        let table = [
            Timers { election_min_ms: 1000, ..Timers::default() },
            Timers { heartbeat_ms: 800, ..Timers::default() },
            Timers { heartbeat_min_ms: 600, ..Timers::default() },
            Timers { quorum_loss_probe_ms: 1900, ..Timers::default() },
        ];
        for timers in table {
            assert!(timers.raft().is_err(), "{timers:?}");
        }
    }
}
