//! What a node tells Prometheus of backups: what it read for them, and how those ended of which `moorline backup create` told it.
//!
//! The command ends, so a node says it in its place, and keeps it over its own restarts: an alert on backups that are too old must
//! not fall silent with a process. Every node says what it was told; the newest of all counts.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::Context;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::known;

/// Where the end of the last backup is kept, in the data directory.
const FILE: &str = "last-backup.json";
/// How backups end.
const OUTCOMES: [&str; 2] = ["done", "failed"];

/// How `moorline backup create` ended. Programs of two versions may tell it: fields are added, never changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// Whether there is a backup.
    pub(crate) done: bool,
    /// Unix time when it was begun: what was acknowledged before is in it.
    pub(crate) begun_ms: u64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// How much it consists of.
    pub(crate) bytes: u64,
    /// What of it was not there before.
    pub(crate) new_bytes: u64,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct BackupMetrics {
    /// Bytes of pieces that were cut of groups that this node leads.
    pub(crate) read_bytes: IntCounter,
    ended: IntCounterVec,
    last_success: Gauge,
    last_seconds: Gauge,
    last_bytes: IntGauge,
    last_new_bytes: IntGauge,
    file: OnceLock<PathBuf>,
}

impl BackupMetrics {
    /// Registers them.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<Gauge, prometheus::Error> {
            let gauge = Gauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let bytes = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let ended = IntCounterVec::new(
            Opts::new("moorline_backups_total", "Backups that were made through this node"),
            &["outcome"],
        )?;
        OUTCOMES.iter().for_each(|outcome| _ = ended.with_label_values(&[*outcome]));
        registry.register(Box::new(ended.clone()))?;
        let read_bytes = IntCounter::new(
            "moorline_backup_read_bytes_total",
            "Bytes of rows that were read here for backups",
        )?;
        registry.register(Box::new(read_bytes.clone()))?;
        Ok(Self {
            read_bytes,
            ended,
            last_success: gauge(
                "moorline_backup_last_success_timestamp_seconds",
                "When the last backup was begun that succeeded, made through this node; 0 if none was",
            )?,
            last_seconds: gauge(
                "moorline_backup_last_duration_seconds",
                "How long that backup took",
            )?,
            last_bytes: bytes(
                "moorline_backup_last_bytes",
                "How many bytes that backup consists of",
            )?,
            last_new_bytes: bytes(
                "moorline_backup_last_new_bytes",
                "How many bytes of that backup were not in its directory before",
            )?,
            file: OnceLock::new(),
        })
    }

    /// Says what was kept in the data directory, and keeps there what comes.
    pub(crate) fn keep_in(&self, data: &Path) {
        let file = self.file.get_or_init(|| data.join(FILE));
        let kept = match fs::read(file) {
            Ok(kept) => kept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return warn!(%error, file = %file.display(), "when the last backup was"),
        };
        match serde_json::from_slice(&kept) {
            Ok(ended) => self.say(&ended),
            Err(error) => warn!(%error, file = %file.display(), "when the last backup was"),
        }
    }

    fn say(&self, ended: &Ended) {
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.last_success.set(ended.begun_ms as f64 / 1000.0);
        self.last_seconds.set(ended.seconds);
        self.last_bytes.set(number(ended.bytes));
        self.last_new_bytes.set(number(ended.new_bytes));
    }

    /// Takes in how a backup ended.
    pub(crate) fn ended(&self, ended: &Ended) -> anyhow::Result<()> {
        let outcome = if ended.done { "done" } else { "failed" };
        self.ended.with_label_values(&[outcome]).inc();
        if !ended.done {
            return Ok(());
        }
        self.say(ended);
        let Some(file) = self.file.get() else { return Ok(()) };
        let written = known::put(file, &serde_json::to_vec(ended)?);
        written.with_context(|| file.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(done: bool, begun_ms: u64) -> Ended {
        Ended { done, begun_ms, seconds: 2.5, bytes: 70, new_bytes: 7 }
    }

    fn metrics(data: &Path) -> BackupMetrics {
        let metrics = BackupMetrics::register(&Registry::new()).unwrap();
        metrics.keep_in(data);
        metrics
    }

    #[test]
    fn the_last_success_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let before = metrics(dir.path());
        assert!(before.last_success.get().abs() < f64::EPSILON, "none yet");
        before.ended(&ended(true, 1_764_000_000_500)).unwrap();
        before.ended(&ended(false, 1_765_000_000_000)).unwrap();
        let after = metrics(dir.path());
        for metrics in [before, after] {
            assert!((metrics.last_success.get() - 1_764_000_000.5).abs() < 0.001);
            assert!((metrics.last_seconds.get() - 2.5).abs() < f64::EPSILON);
            assert_eq!((metrics.last_bytes.get(), metrics.last_new_bytes.get()), (70, 7));
        }
    }

    #[test]
    fn what_can_not_be_read_is_no_reason_to_stop() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "half").unwrap();
        let metrics = metrics(dir.path());
        metrics.ended(&ended(true, 1000)).unwrap();
        assert!((metrics.last_success.get() - 1.0).abs() < 0.001);
    }

    #[test]
    fn how_a_backup_ended_keeps_its_form() {
        let text = r#"{"done":true,"begun_ms":5,"seconds":2.5,"bytes":70,"new_bytes":7}"#;
        assert_eq!(serde_json::to_string(&ended(true, 5)).unwrap(), text);
    }
}
