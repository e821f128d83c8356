//! What the layers above may ask of a disk, without saying which: rows of state, and the log.
//!
//! ```text
//!   machine ── Rows ──► Overlay (rows changed since the last checkpoint, in memory)
//!                          │ checkpoint: one atomic Batch with the applied index, then flush
//!                          ▼
//!                       Store   mem (tests, simulation) · rocks (`storage/rocks`)
//!   group ──── LogOp ──► LogEngine: one writer, one group commit for all groups of a node
//! ```
//!
//! # Invariants
//!
//! - **Same answers.** Every [`Store`] behaves as [`mem::MemStore`]; one differential property-test suite runs over all,
//!   with crashes and reopening (`storage/rocks/tests`).
//! - **State is never ahead of its applied index.** A checkpoint is one batch; the log is the write-ahead log of state.
//! - **An overlay is its map.** [`overlay::Overlay`] answers as one plain map would, frozen in the middle or not
//!   (property test in [`overlay`]).
//! - **The same rows make the same pieces**, which is what backups consist of. Frozen by [`pieces`]' tests.
//! - **Key kinds, marks and record framing are never renumbered.** Frozen by golden-bytes tests in [`key`], [`log`] and
//!   [`record`].
//!
//! # Deliberately absent
//!
//! RocksDB (`storage/rocks`), Raft terms and votes (opaque bytes here; `raft/group` knows them).

pub mod files;
pub mod key;
pub mod log;
pub mod mem;
pub mod overlay;
pub mod pieces;
pub mod recent;
pub mod record;
pub mod view;

pub use files::{ShardStore, SstFile};
pub use view::{Batch, Rows, StorageError, Store, View};
