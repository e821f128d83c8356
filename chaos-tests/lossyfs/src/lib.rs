//! A file system that loses what was not fsynced, when told to.
//!
//! `kill -9` does not test durability: the kernel keeps what a dead process wrote. Here a write lives in memory until
//! its file is fsynced; `lose` drops what was not, as a power failure would.
//!
//! ```text
//!   process ──► kernel ──► fuse ──► volume ──► content   unsynced changes of one file, in memory
//!                                     │  └───► journal   names not yet durable (strict mode)
//!   control ──► Controller ───────────┘  └───► backing directory: what a power failure leaves
//! ```
//!
//! What is durable when:
//!
//! | | default | strict |
//! |---|---|---|
//! | a file's bytes and length | its fsync | its fsync |
//! | create, rename, unlink, link, mkdir | at once | fsync of the directory |
//!
//! # Invariants
//!
//! - **Reads see every write**, synced or not: `content` against a plain vector, by property test.
//! - **The backing directory holds what was synced and nothing more**, until 512 MiB wait in memory
//!   ([`PENDING_BYTES_MAX`]): then the dirtiest file is written back, as a kernel does under memory pressure.
//! - **A failed fsync forgets.** The bytes stay readable and are never written, as on Linux: a retry that succeeds
//!   proves nothing. Checked in `content` and in `tests/mounted.rs`.
//!
//! # Deliberately absent
//!
//! Permissions (the mount is the mounting user's own), extended attributes, device files, and a real fsync of the
//! backing directory: the power failure is played, and must be fast enough to run RocksDB on.

mod content;
mod control;
mod faults;
mod fuse;
mod journal;
mod mount;
mod node;
mod random;
mod volume;

pub use control::{Command, CommandError, ask, serve};
pub use faults::Status;
pub use mount::{Controller, MountError, Mounted, available};
pub use volume::{Names, PENDING_BYTES_MAX};
