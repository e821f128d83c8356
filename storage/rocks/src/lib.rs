//! Storage on RocksDB, and what a node's data directory must be. The only code that names RocksDB.
//!
//! ```text
//!   data directory
//!   ├─ LOCK, node.json, node.json.copy    disk.rs, identity.rs: whose directory this is
//!   ├─ raftlog/                           log/: one writer, one fsync for all groups
//!   ├─ state/                             store.rs: rows, no write-ahead log; snapshots.rs: out and in as files
//!   └─ reserve                            space.rs: given up when the disk is nearly full
//! ```
//!
//! # Invariants
//!
//! - **Synced, then acknowledged.** [`RocksLog`] calls back only after `fdatasync` returned. A failed write or sync is
//!   never tried again: the node ends. Checked by `tests/failing_disk.rs` and `tests/kill.rs`.
//! - **Damage is never guessed at.** A log that does not check refuses to open, a row or entry that does not check is
//!   [`StorageError::Corrupt`](moorline_storage::StorageError::Corrupt). Checked by `tests/damage.rs`.
//! - **Same answers as in memory**, with crashes and reopening. Checked by `tests/store.rs` and `tests/log.rs`.
//! - **A directory belongs to one node**, and an emptied one is not taken for a new one. Checked by [`disk`]'s tests.
//!
//! # Deliberately absent
//!
//! What rows and entries mean (`raft/`), the watch that acts on [`space`] (`node/moorline`).

pub mod disk;
mod error;
mod identity;
mod log;
mod metrics;
mod options;
mod snapshots;
pub mod space;
mod store;

pub use error::{Fatal, abort};
pub use identity::{Identity, note_level};
pub use log::RocksLog;
pub use options::{Create, LogConfig, StoreConfig};
pub use store::{RocksStore, RocksView};
