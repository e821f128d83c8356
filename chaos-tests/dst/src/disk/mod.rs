//! A node's disk: a log file of bytes and a store of rows, which outlive the process, and what a crash makes of them.
//!
//! ```text
//!   submit ─► queue (process) ─► written (the system's cache) ─► durable, one virtual fsync later
//!   killed:      gone               stays                           stays
//!   power lost:  gone               gone · a prefix · torn          stays
//!   sync fails:  the process ends   stays · a prefix                stays
//!   damaged:                                                        a bit is another: not opened any more
//! ```

mod log;
mod rows;
mod switches;

pub(crate) use self::{
    log::{Crash, LogFile, SimLog},
    rows::SimRows,
    switches::{Failure, Switches},
};
