//! Fostrom's devices at a node: HTTP with server-sent events, Moonlight, and MQTT.
//!
//! ```text
//!   edge's listener ──► http.rs ──────┐
//!                  ├──► moonlight.rs ─┤──► door.rs: who is it? ──► moorline_service::registry: what is done
//!   edge's connection ─► mqtt.rs ──────┤
//!                       events.rs ◄───┘
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
//! MQTT's packets (`node/edge`, `protocols/mqtt`): here it is told what they mean to Fostrom.

mod door;
mod events;
mod http;
mod metrics;
mod moonlight;
mod mqtt;

pub use door::Door;
pub use http::Http;
pub use metrics::FostromMetrics;
pub use moonlight::Moonlight;
pub use mqtt::Mqtt;
