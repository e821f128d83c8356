//! The crate as its users see it: bytes in, actions, events and bytes out.
#![allow(clippy::unwrap_used, reason = "these are tests")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test wants one variant and panics on all others"
)]

mod client;
mod codec;
mod server;
mod support;
mod together;
mod vectors;
