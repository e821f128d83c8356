//! The deterministic heart of a group: commands in, rows and effects out.
//!
//! Every replica of a group feeds the same committed batches, in the same order, to [`Machine::apply`], and so holds the
//! same rows. Nothing here reads a clock, draws a random number or waits: what a command needs (the time, a fresh id) the
//! proposer put into it.
//!
//! ```text
//!   batch bytes ──► apply ──► Rows      written with the applied index, by the caller, in one overlay
//!                         ├─► Answers   one per command; remembered per producer, so that a repeat gets the same one
//!                         └─► Effects   what only the leader acts on, after commit; losing all of them loses no message
//! ```

pub mod answer;
pub mod command;
pub mod effect;

pub use answer::Answer;
pub use command::Command;
pub use effect::Effect;
