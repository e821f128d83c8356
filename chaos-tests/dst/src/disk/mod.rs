//! A node's disk: a log file of bytes and a store of rows, which outlive the process, and what a crash makes of them.
//!
//! ```text
//!   submit ─► queue (process) ─► written (the system's cache) ─► durable, one virtual fsync later
//!   killed:      gone               stays                           stays
//!   power lost:  gone               gone · a prefix · torn          stays
//! ```

mod log;
mod rows;

pub(crate) use self::{
    log::{Crash, LogFile, SimLog},
    rows::SimRows,
};
