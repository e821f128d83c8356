//! The local API: HTTP requests of the vendor's SDKs, without sockets or clocks.
//!
//! ```text
//!   bytes ──► reader ──► route ──► (the uplink) ──► answer ──► response ──► bytes
//! ```
//!
//! # Invariants
//!
//! - **Strict.** What is not exactly HTTP/1.1 in the form the SDKs send is refused with a status and a text. Each rule has
//!   a row in the tables of these files' tests.
//! - **Bounded.** A request is 64 KiB and a body of 64 KiB at most, and is refused as soon as it is
//!   known to be larger.
//! - **Pure.** Time is an argument. Checked by `chaos-tests/tidy`.

mod answer;
mod reader;
mod response;
mod route;

pub(crate) use answer::{done, not_done, settled, shown, status};
pub(crate) use reader::{Reader, Request};
pub(crate) use response::{Response, Standing, stream_head};
pub(crate) use route::{EVENTS, Identity, Route, route};
