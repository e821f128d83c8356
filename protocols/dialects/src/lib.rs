//! How platforms speak: their topics, URLs, payloads and answers, to and from the core's ops.
//!
//! A dialect reads a message into an [`Op`](moorline_core::op::Op) and writes an answer as its platform says it. One
//! folder per platform, each with a README of its addresses.
//!
//! # Invariants
//!
//! - **Stateless and pure.** The same message gives the same op. Checked by `chaos-tests/tidy`.
//! - **Formats stop here.** JSON and MessagePack are read in one file per dialect, with a limit on size and depth.
//!
//! # Deliberately absent
//!
//! Packets (`protocols/mqtt`, `protocols/moonlight`), who may do what (`node/service`).

pub mod drogue;
pub mod export;
pub mod fostrom;
pub mod limits;
pub mod losant;
pub mod moments;
pub mod secret;
#[cfg(feature = "thingsboard")]
pub mod thingsboard;
pub mod watson;
