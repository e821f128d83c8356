//! Storage in memory, with a model of what a crash takes: for tests and simulation.
//!
//! Both types share their contents between threads as the ones on disk do, and both do exactly what they are told when
//! they are told: no clock, no thread.

mod log;
mod store;

pub use log::MemLog;
pub use store::MemStore;
