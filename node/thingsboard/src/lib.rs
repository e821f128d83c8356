//! ThingsBoard's devices at a node, by MQTT and HTTP.
//!
//! ```text
//!   edge's connection ─► mqtt.rs: a port for each device ─► session.rs: one task per connection ─► device.rs ─► the registry
//!                        gateway.rs, children.rs: for others too ────┤                            ▲              │ news
//!                        sparkplug.rs, left.rs: nodes of Sparkplug ──┤                            │              │
//!                        outgoing.rs: calls that go out, downloads.rs ┤                           │              │
//!                        ear.rs: mail, as calls ─────────────────────┘                           │              │
//!   listener of all platforms ─► http.rs, polls.rs: a request each ───────────────────────────────┘   ◄──────────┘
//!                          └─► rest/: integrators, by requests and WebSocket ─► the registry
//!   kept as documents        profiles.rs, packages.rs (files.rs: their bytes), claims.rs
//!   who has no credentials   asking.rs, or http.rs ─► provision.rs; with a certificate enrol.rs
//!   who is to have a package assign.rs ─► shared attributes
//!   who sends too much       limits.rs, asked before anything is done
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
//! - **No change of shared attributes is lost** to a device that is connected and subscribed, or that polls for them, whichever node
//!   wrote it. Of several changes of one key the last one is told. Checked by the same, and by `thingsboard_http.rs`.
//! - **A device has one connection by MQTT**: a later one ends the earlier. Checked by the first.
//! - **A call is never forgotten**: what was not acknowledged goes out again, to whichever node the device comes. Checked by
//!   `thingsboard_calls.rs`.
//! - **A device's own call is answered by an application, or not at all**: within its time, on the connection that made it. Checked by
//!   `thingsboard_own_calls.rs`.
//! - **Who has subscribed is told of what changes**, whichever node wrote it. Checked by `thingsboard_socket.rs`.
//! - **A node of Sparkplug is told in commands, and only of metrics that it has**. Checked by `thingsboard_sparkplug.rs`.
//! - **A gateway speaks for devices of its tenant**, which are made when nobody has made them. Checked by `thingsboard_gateway.rs`.
//!
//! # Deliberately absent
//!
//! MQTT's packets (`node/edge`, `protocols/mqtt`), HTTP's (`node/http`).

mod asking;
mod assign;
mod children;
mod claims;
mod convert;
mod device;
mod door;
mod downloads;
mod ear;
mod enrol;
mod files;
mod gateway;
mod granted;
mod http;
mod limits;
mod marks;
mod metrics;
mod mqtt;
mod outgoing;
mod packages;
mod places;
mod polls;
mod profiles;
mod provision;
mod rest;
mod secrets;
mod session;
mod sparkplug;

use std::sync::Arc;

use moorline_edge::Doorkeeper;
use moorline_http::Platform;
use moorline_service::registry::secrets::Secrets;

pub use self::{door::Door, metrics::ThingsboardMetrics, mqtt::Mqtt};
use self::{http::Http, rest::Rest};

/// What is spoken over HTTP, in the order in which paths are offered: what the first ones leave of `/api/` is the last one's.
/// `doors`: who failed too often, counted with those of MQTT.
#[must_use]
pub fn platforms(door: &Door, secrets: &Secrets, doors: &Doorkeeper) -> [Arc<dyn Platform>; 2] {
    let (door, secrets, doors) = (door.clone(), secrets.clone(), doors.clone());
    let devices = Http::new(door.clone(), secrets.clone(), doors.clone());
    [Arc::new(devices), Arc::new(Rest::new(door, secrets, doors))]
}
