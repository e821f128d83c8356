//! Losant's devices at a node, by MQTT and over HTTP.
//!
//! ```text
//!   edge's connection ─► mqtt.rs: whose key, which device? ──► link.rs ──► custom topics: the service's port
//!                        visit.rs: what a connection is  ◄─┬─ desk.rs: states ──► device.rs ──► the registry: values and an event
//!                          (limits, bans, why it ended)    └─ mailman.rs: commands that were kept for it
//!   listener of all platforms ─► rest/: devices, and who manages them ──► the registry, the service
//!   who is let in               pass.rs: access keys and certificates, rows and documents of their application
//! ```
//!
//! An application is the tenant with the alias `losant:ID`; a device of it is its device of that id. What topics, payloads and paths mean
//! is decided by `moorline_dialects::losant`.
//!
//! # Invariants
//!
//! - **A PUBACK of a state means that it is synced on a majority.** Checked by the cluster tests (`losant.rs`).
//! - **A custom topic never leaves its application, and no wildcard reaches commands.** Checked by the same.
//! - **A key that is changed or deleted turns its devices out within moments**, on whichever node. Checked by the same.
//! - **A ban counts on every node**: it is kept with its device. Checked by the same.
//!
//! # Deliberately absent
//!
//! MQTT's packets (`node/edge`, `protocols/mqtt`), HTTP's connections (`node/http`). Workflows.

mod desk;
mod device;
mod door;
mod inbox;
mod link;
mod mailman;
mod metrics;
mod mqtt;
mod pass;
mod rest;
mod stay;
mod visit;

pub use door::Door;
pub use metrics::LosantMetrics;
pub use mqtt::Mqtt;
pub use rest::Http;
