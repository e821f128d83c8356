//! The crate as its users see it: packets in, packets and events out.
#![allow(clippy::unwrap_used, reason = "these are tests")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test wants one variant and panics on all others"
)]

mod client;
mod codec;
mod conformance_codec;
mod conformance_session;
mod corpus;
mod differential;
mod packets;
mod session_connect;
mod session_deliver;
mod session_end;
mod session_once;
mod session_publish;
mod session_subscribe;
mod support;
