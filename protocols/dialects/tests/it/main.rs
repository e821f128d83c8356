//! The dialects by tables: what is read, what is refused, and what is written.
#![allow(clippy::unwrap_used, reason = "these are tests")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test wants one variant and panics on all others"
)]
#![allow(clippy::type_complexity, reason = "a row of a table is what it is")]

mod drogue;
mod export;
mod http;
mod identity;
mod losant;
mod moments;
mod mqtt;
mod payload;
mod schema;
mod sse;
mod support;
#[cfg(feature = "thingsboard")]
mod thingsboard;
mod watson;
