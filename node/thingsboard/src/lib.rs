//! ThingsBoard's devices at a node, by MQTT.
//!
//! ```text
//!   edge's connection ─► mqtt.rs: a port for each device ─► session.rs: one task per connection ─► the registry
//!                                                              ▲ news of the device
//! ```
//!
//! A tenant with an alias `thingsboard:NAME` is one of ThingsBoard's: whichever of its devices proves who it is (an access token is a
//! credential of the kind `token`, user name and password are one of the kind `mqtt-basic`) is served here. What it says becomes
//! telemetry and attributes; what topics and payloads mean is decided by `moorline_dialects::thingsboard`.
//!
//! # Invariants
//!
//! - **A PUBACK means that it is synced on a majority**: telemetry with its event, attributes. Checked by the cluster tests
//!   (`thingsboard.rs`).
//! - **No change of shared attributes is lost** to a device that is connected and subscribed, whichever node wrote it. Of several changes of
//!   one key the last one is told. Checked by the same.
//! - **A device has one connection**: a later one ends the earlier. Checked by the same.
//!
//! # Deliberately absent
//!
//! MQTT's packets (`node/edge`, `protocols/mqtt`). Calls (RPC), gateways, packages, claiming, provisioning, profiles, HTTP and REST: not served
//! yet.

mod convert;
mod door;
mod metrics;
mod mqtt;
mod session;

pub use door::Door;
pub use metrics::ThingsboardMetrics;
pub use mqtt::Mqtt;
