//! Watson IoT: events go up on `iot-2/evt/…`, commands come down on `iot-2/cmd/…`, and a server manages devices on `iotdm-1/…`.
//!
//! ```text
//!   identity     client ids, user names, certificates, host names: who somebody says it is
//!   connect      CONNECT: sessions, wills, keep-alives            close   why a connection ends, in all its numbers
//!   topics       what may be published and subscribed, by class, under which names, and what a violation costs
//!   presence     who is connected, as JSON                        notice  what a gateway is told of its failures
//!   http         messaging over HTTP                              rest    the management API
//!   management   managed devices: their requests, ours, and what state that makes
//!   about        what a registration keeps of a device
//! ```
//!
//! # Invariants
//!
//! - **The client id is the identity.** Whatever a client claims elsewhere (user name, certificate, topic, path) is compared with
//!   it. Checked by `tests/it/watson`.
//! - **Two namespaces.** A device or gateway can subscribe to no name that it can publish to. Checked by
//!   `nothing_that_a_device_or_gateway_publishes_comes_back`.
//! - **One payload, two ways in.** MQTT and HTTP read the same bytes as the same message ([`topics::Message`]).
//!
//! The README beside this file lists all addresses, with what the vendor documents and what we decided where it is silent.

pub mod about;
pub mod close;
pub mod connect;
pub mod export;
pub mod http;
pub mod identity;
pub mod mail;
pub mod management;
pub mod notice;
pub mod presence;
pub mod rest;
pub mod topics;

/// The most bytes of a payload, by MQTT and by HTTP (§1.10).
pub const PAYLOAD_BYTES_MAX: usize = 131_072;
