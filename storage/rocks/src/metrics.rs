//! What the disk does, in numbers.

use std::sync::{Arc, Weak};

use moorline_storage::StorageError;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    exponential_buckets,
    proto::MetricFamily,
};

use crate::options::{Database, STATE};

/// 50 µs to 26 s: from a disk with a battery to one that is about to die.
fn seconds() -> Vec<f64> {
    exponential_buckets(0.000_05, 2.0, 20).expect("constants that make buckets")
}

fn counted() -> Vec<f64> {
    exponential_buckets(1.0, 2.0, 13).expect("constants that make buckets")
}

/// A registry refuses only a name that is taken: two databases of one kind in one registry.
fn taken(error: &prometheus::Error) -> StorageError {
    let source = std::io::Error::other(error.to_string());
    StorageError::Io { doing: "registering metrics", source }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> Result<C, StorageError> {
    let metric = made.map_err(|error| taken(&error))?;
    registry.register(Box::new(metric.clone())).map_err(|error| taken(&error))?;
    Ok(metric)
}

fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: Vec<f64>,
) -> Result<Histogram, StorageError> {
    let options = HistogramOpts::new(name, help).buckets(buckets);
    register(registry, Histogram::with_opts(options))
}

/// The log writer's numbers.
#[derive(Debug, Clone)]
pub(crate) struct LogMetrics {
    pub(crate) sync_seconds: Histogram,
    pub(crate) operations: Histogram,
    pub(crate) bytes: IntCounter,
    pub(crate) queued_bytes: IntGauge,
}

impl LogMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, StorageError> {
        let sync = "One group commit of the log: its write and its sync";
        let operations = "Operations of all groups that one commit wrote";
        Ok(Self {
            sync_seconds: histogram(registry, "moorline_wal_fsync_seconds", sync, seconds())?,
            operations: histogram(
                registry,
                "moorline_wal_commit_operations",
                operations,
                counted(),
            )?,
            bytes: register(
                registry,
                IntCounter::new("moorline_wal_bytes_total", "Bytes written to the log"),
            )?,
            queued_bytes: register(
                registry,
                IntGauge::new("moorline_wal_queued_bytes", "Bytes that wait for the log writer"),
            )?,
        })
    }
}

/// The rows' numbers.
#[derive(Debug, Clone)]
pub(crate) struct StoreMetrics {
    pub(crate) flush_seconds: Histogram,
    pub(crate) written_bytes: IntCounter,
}

impl StoreMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, StorageError> {
        let flush = "Making written rows durable";
        Ok(Self {
            flush_seconds: histogram(registry, "moorline_state_flush_seconds", flush, seconds())?,
            written_bytes: register(
                registry,
                IntCounter::new("moorline_state_written_bytes_total", "Bytes of rows written"),
            )?,
        })
    }
}

/// What of a database takes space, and RocksDB's name for it.
const SIZES: [(&str, &str); 4] = [
    ("files", "rocksdb.total-sst-files-size"),
    ("live", "rocksdb.estimate-live-data-size"),
    ("memtables", "rocksdb.cur-size-all-mem-tables"),
    ("block_cache", "rocksdb.block-cache-usage"),
];

/// `moorline_storage_bytes`, asked of RocksDB when somebody scrapes.
pub(crate) struct Sizes {
    database: Weak<Database>,
    /// [`None`] for a database that has but one.
    family: Option<&'static str>,
    gauges: IntGaugeVec,
}

impl Sizes {
    /// For the rows' database.
    pub(crate) fn of_state(
        registry: &Registry,
        database: &Arc<Database>,
    ) -> Result<(), StorageError> {
        Self::register(registry, database, "state", Some(STATE))
    }

    /// For the logs' database.
    pub(crate) fn of_log(
        registry: &Registry,
        database: &Arc<Database>,
    ) -> Result<(), StorageError> {
        Self::register(registry, database, "log", None)
    }

    fn register(
        registry: &Registry,
        database: &Arc<Database>,
        name: &str,
        family: Option<&'static str>,
    ) -> Result<(), StorageError> {
        let options = Opts::new("moorline_storage_bytes", "Bytes of a database, by what they are")
            .const_label("database", name);
        let gauges = IntGaugeVec::new(options, &["kind"]).map_err(|error| taken(&error))?;
        let sizes = Self { database: Arc::downgrade(database), family, gauges };
        registry.register(Box::new(sizes)).map_err(|error| taken(&error))
    }
}

impl Collector for Sizes {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Some(database) = self.database.upgrade() {
            let family = self.family.and_then(|family| database.cf_handle(family));
            for (kind, property) in SIZES {
                let size = match &family {
                    Some(family) => database.property_int_value_cf(family, property),
                    None => database.property_int_value(property),
                };
                if let Ok(Some(bytes)) = size {
                    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
                    self.gauges.with_label_values(&[kind]).set(bytes);
                }
            }
        }
        self.gauges.collect()
    }
}
