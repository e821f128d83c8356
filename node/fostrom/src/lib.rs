//! Fostrom's devices at a node: HTTP with server-sent events, and Moonlight.
//!
//! ```text
//!   edge's listener ──► http.rs ──────┐
//!                  └──► moonlight.rs ─┤──► door.rs: who is it? ──► moorline_service::registry: what is done
//!                       events.rs ◄───┘         ▲ bans.rs
//!                            ▲ news of the device
//! ```
//!
//! What is said over the wire is decided by the pure crates (`protocols/moonlight`, `protocols/dialects`); this one has sockets
//! and clocks.
//!
//! # Invariants
//!
//! - **A device that was let in is turned out within moments of its credential's end**, on whichever node: it hears news of its
//!   row and asks again. Checked by the cluster tests (`fostrom.rs`).
//! - **What is answered with success is synced on a majority.** Checked by the same.
//!
//! # Deliberately absent
//!
//! Fostrom over MQTT, which is a dialect of the MQTT edge.

mod bans;
mod door;
mod events;
mod http;
mod metrics;
mod moonlight;

pub use door::Door;
pub use http::Http;
pub use metrics::FostromMetrics;
pub use moonlight::Moonlight;
