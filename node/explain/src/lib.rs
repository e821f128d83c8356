//! What a node remembers of each device lately, so that somebody can be told why something did not arrive.
//!
//! ```text
//!   edge, service, platforms ──note──► Trail (one device's ring) ◄── Trails (all of a node's, bounded) ──► explain
//! ```
//!
//! It is always on, and in memory only: a restart forgets it. Names, sizes and topics are kept; payloads and secrets never are.
//!
//! # Invariants
//!
//! - **Bounded**: so many devices a node, so many notes a device, so many bytes of text a note; the longest quiet device goes first.
//!   Checked by `tests/it.rs`.
//! - **It decides nothing**: time is an argument, and nobody waits for it but for the lock of one ring.
//! - **Every cause has words**: what it means, and what to do. Checked by `tests/it.rs`.

mod cause;
mod note;
mod trails;

pub use self::{
    cause::Cause,
    note::{Became, Fingerprint, Note, Stage},
    trails::{Limits, Trail, Trails},
};
