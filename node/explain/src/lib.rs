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
//! - **Bounded**: so many devices and bytes a node, so many notes a device, so many bytes of text and places a note; the longest quiet
//!   device goes first. Checked by `tests/it.rs`.
//! - **It decides nothing**: time is an argument, and nobody waits for it but for the lock of one ring.
//! - **Every cause has words**: what it means, and what to do. Checked by `tests/causes.rs`, word by word, which also finds where in
//!   the sources each comes from.

mod cause;
mod note;
mod refusal;
mod trails;

pub use self::{
    cause::Cause,
    note::{Became, Fingerprint, Note, Place, ROUTES_MAX, Route, Stage, TEXT_BYTES_MAX},
    trails::{Held, Limits, Trail, Trails},
};
