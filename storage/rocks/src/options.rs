//! How both databases are set up. Whatever could lose data silently is fixed here and not configurable.

use std::path::Path;

use moorline_storage::key::BUCKET_PREFIX_BYTES;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType,
    DBRecoveryMode, LogLevel, Options, SliceTransform,
};

/// The column family of all rows.
pub(crate) const STATE: &str = "state";

const MIB: usize = 1024 * 1024;
const BLOCK_BYTES: usize = 16 * 1024;
/// A piece of an index or a filter.
const METADATA_BLOCK_BYTES: usize = 8 * 1024;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// RocksDB's own log files, for whoever looks into a problem: a few, and small.
const INFO_FILES: usize = 3;
const INFO_FILE_BYTES: usize = MIB;
/// A compaction is worth it where half of a stretch of rows are removals: queues that were read.
const DELETION_WINDOW: usize = 1024;
const DELETION_TRIGGER: usize = 512;
/// Most of a log is purged before it would be worth compacting.
const LOG_COMPACTION_FILES: i32 = 8;

/// Whether a database may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// The first start of a node, and tests.
    IfMissing,
    /// Every later start: an empty directory would be a node that forgot what it promised.
    Never,
}

/// Memory and threads of the rows' database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Written rows held in memory before they become a file. A checkpoint flushes anyway, so more helps nothing.
    pub memtable_bytes: usize,
    /// How many such buffers there may be, the one being written out among them.
    pub memtables: u32,
    /// Blocks, indexes and filters of files held in memory.
    pub block_cache_bytes: usize,
    /// Threads that write out and compact.
    pub background_jobs: u32,
    /// Files kept open.
    pub open_files: u32,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            memtable_bytes: 16 * MIB,
            memtables: 2,
            block_cache_bytes: 32 * MIB,
            background_jobs: 2,
            open_files: 256,
        }
    }
}

/// Memory and threads of the logs' database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Entries held in memory before they become a file. Those purged before never do.
    pub memtable_bytes: usize,
    /// How many such buffers there may be; a writer that fills the last waits for the disk.
    pub memtables: u32,
    /// The write-ahead log's size at which buffers are written out.
    pub wal_bytes_max: u64,
    /// Threads that write out and compact.
    pub background_jobs: u32,
    /// Files kept open.
    pub open_files: u32,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            memtable_bytes: 32 * MIB,
            memtables: 3,
            wal_bytes_max: 256 * MIB as u64,
            background_jobs: 2,
            open_files: 128,
        }
    }
}

/// RocksDB takes C's `int`; our limits are far below.
fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn common(create: Create, background_jobs: u32, open_files: u32) -> Options {
    let mut options = Options::default();
    let may_create = create == Create::IfMissing;
    options.create_if_missing(may_create);
    options.create_missing_column_families(may_create);
    options.set_paranoid_checks(true);
    options.set_max_background_jobs(int(background_jobs));
    options.set_max_open_files(int(open_files));
    // A clean stop makes a checkpoint; any other is a crash, and treated like one.
    options.set_avoid_flush_during_shutdown(true);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(INFO_FILES);
    options.set_max_log_file_size(INFO_FILE_BYTES);
    // Statistics that nobody reads would wake an idle node.
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

/// The rows' database, and its column families.
pub(crate) fn store(
    config: &StoreConfig,
    create: Create,
) -> (Options, Vec<ColumnFamilyDescriptor>) {
    let mut options = common(create, config.background_jobs, config.open_files);
    options.set_atomic_flush(true);
    options.set_db_write_buffer_size(config.memtable_bytes * config.memtables as usize);
    let families = vec![
        ColumnFamilyDescriptor::new(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, Options::default()),
        ColumnFamilyDescriptor::new(STATE, rows(config)),
    ];
    (options, families)
}

/// The column family of rows; also how exported files are written.
pub(crate) fn rows(config: &StoreConfig) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_size(BLOCK_BYTES);
    table.set_block_cache(&Cache::new_lru_cache(config.block_cache_bytes));
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // In pieces: the filter of a file with a million rows as a whole has no room in a shard of the cache, so that each read of
    // a row would read all of it from the file and sum it. `tests/reads.rs`.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_metadata_block_size(METADATA_BLOCK_BYTES);
    table.set_pin_top_level_index_and_filter(true);
    // For whole keys, and for shard and bucket: scans stay within one bucket.
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    table.set_whole_key_filtering(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_prefix_extractor(SliceTransform::create_fixed_prefix(BUCKET_PREFIX_BYTES));
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(config.memtable_bytes);
    options.set_max_write_buffer_number(int(config.memtables));
    // A ratio of 0 is none: only the window counts.
    options.add_compact_on_deletion_collector_factory(DELETION_WINDOW, DELETION_TRIGGER, 0.0);
    options
}

/// The logs' database.
pub(crate) fn log(config: &LogConfig, create: Create) -> Options {
    let mut options = common(create, config.background_jobs, config.open_files);
    // Only a torn tail is forgiven: anything else that does not check would un-acknowledge entries. Point-in-time
    // recovery, the default, drops the rest after one flipped bit and says nothing. `tests/damage.rs`.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // A recycled file ends in old records, which this recovery could not tell from damage.
    options.set_recycle_log_file_num(0);
    options.set_track_and_verify_wals(true);
    options.set_max_total_wal_size(config.wal_bytes_max);
    options.set_wal_bytes_per_sync(0);
    options.set_manual_wal_flush(false);
    options.set_enable_pipelined_write(false);
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(config.memtable_bytes);
    options.set_max_write_buffer_number(int(config.memtables));
    options.set_target_file_size_base(config.memtable_bytes as u64);
    options.set_level_zero_file_num_compaction_trigger(LOG_COMPACTION_FILES);
    let mut table = BlockBasedOptions::default();
    table.set_block_size(BLOCK_BYTES);
    // What is read often is in each group's own memory.
    table.disable_cache();
    options.set_block_based_table_factory(&table);
    options
}

/// Whether a database is in this directory.
pub(crate) fn is_database(path: &Path) -> bool {
    path.join("CURRENT").exists()
}

/// What both are.
pub(crate) type Database = rocksdb::DB;
