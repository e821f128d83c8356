//! The judge: a history of what clients asked and saw, in; a verdict, out.
//!
//! ```text
//!   history.jsonl ──► history::read ──► model::Model ──► judge ──► Verdict   (table, JSON)
//!                                                   ├──► gaps::measure ──► Gaps
//!                                                   └──► acks::measure ──► Acks
//! ```
//!
//! Outcomes are three: **ok** (acknowledged), **fail** (the answer promises that nothing happened) and **info**
//! (unknown: a timeout, a reset). Only ok obliges the cluster to deliver, only fail forbids it.
//!
//! # Invariants
//!
//! - **Pure.** No clock, no file, no random number: the same history has the same verdict. One exception: a search for an order
//!   of requests that takes too long is given up, and is inconclusive then (`checks/linear.rs`).
//! - **Every checker can see.** Each file in [`checks`] plants the violation it looks for and finds it, and leaves a
//!   clean history alone: the tests beside it.
//! - **Not ours to trust.** Nothing of the cluster's code is used here, not even its topic matcher ([`filter`]): a
//!   fault shared by judge and judged would hide itself.
//!
//! # Deliberately absent
//!
//! Clients, processes and faults (`chaos-tests/cluster`), the simulator (`chaos-tests/sim`).

pub mod acks;
pub mod checks;
pub mod filter;
pub mod gaps;
pub mod history;
pub mod loads;
pub mod model;
pub mod payload;
pub mod recovery;
pub mod requests;
pub mod verdict;

#[cfg(test)]
mod planted;

pub use checks::{Rules, Wanted, judge, judge_with};
pub use history::{Event, MessageId, Op, Phase};
pub use model::Model;
pub use verdict::{Check, Outcome, Verdict};
