//! Drogue Cloud's devices and applications at a node, by MQTT and HTTP.
//!
//! ```text
//!   edge's connection ─► mqtt.rs: who is it? (door.rs) ─► link.rs, session.rs: one task per connection ─► speaker.rs: an event
//!                        inbox.rs: commands, as the device asked for them ◄── the service's port, on canonical topics
//!                        application.rs: commands of applications; feed.rs, groups.rs: events to them ◄── the registry's streams
//!   HTTP listener ────► http.rs: who is it? (door.rs) ─► speaker.rs: an event; wait.rs: a command
//!                                            ├─► rest.rs: the registry's API ─► changes.rs: an event that says so
//!                                            └─► commands.rs: a command to a device, and to its gateways
//!   outside ◄─────────── endpoints.rs: what rules of an event and commands of a device want to be asked there
//!   WebSocket ────────► socket.rs: events to applications, by feed.rs
//!   bounded              places.rs: connections in their order, requests that wait
//!   kept                 kept.rs, spec.rs: what an application says, a document; what a device says stands in its row
//! ```
//!
//! An application is the tenant with the alias `drogue:NAME`; the subject of an authority of its is another alias, `drogue:DN`. A
//! device is the device of its name. What topics, URLs and payloads mean is decided by `moorline_dialects::drogue`.
//!
//! # Invariants
//!
//! - **A PUBACK and a 202 mean that the event is synced on a majority**, in its device's stream. Checked by the cluster tests
//!   (`drogue.rs`).
//! - **A device speaks for another one only while that one's `gatewaySelector` names it**, as of at most 30 seconds ago. Checked by
//!   the same.
//! - **A command reaches whoever listens at that moment**, on whichever node, and is kept nowhere. Checked by the same.
//! - **A device has one connection by MQTT**: a later one ends the earlier. Checked by the same.
//! - **What can't be read lets nobody in, and nothing through.** Checked by the cluster tests (`drogue_mends.rs`).
//!
//! # Deliberately absent
//!
//! MQTT's packets (`node/edge`, `protocols/mqtt`), HTTP's (`node/http`). CoAP.

mod application;
mod changes;
mod commands;
mod door;
mod endpoints;
mod feed;
mod groups;
mod http;
mod inbox;
mod kept;
mod link;
mod metrics;
mod mqtt;
mod places;
mod rest;
mod session;
mod socket;
mod speaker;
mod spec;
mod tokens;
mod wait;

pub use moorline_dialects::drogue::discovery::Listening as Endpoints;

pub use self::{door::Door, http::Http, metrics::DrogueMetrics, mqtt::Mqtt, socket::Sockets};
