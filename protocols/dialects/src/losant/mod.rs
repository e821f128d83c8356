//! Losant: devices, gateways and their peripherals over MQTT 3.1.1, and the REST API of devices and of those who manage them.
//!
//! ```text
//!   id           device and application ids      topics    what may be said and heard where
//!   access       keys: which devices, topics     device    classes, attributes and their types, tags
//!   state        what a device reports           when, gps how it writes times and places
//!   command      what it is told                 limits    how much, and for how long it is not heard then
//!   presence     who is connected, and was       rest      paths, queries, bodies and errors
//!   connect      CONNECT, and what it is answered
//!   meant        which devices are meant         data      what they reported, taken together
//! ```
//!
//! # Invariants
//!
//! - **The device id is the identity**, and a topic below `losant/` names one. Checked by `tests/it/losant/topics.rs`.
//! - **What a device does not have is not kept**: attributes are declared, and have a type. Checked by `tests/it/losant/state.rs`.
//! - **Commands carry their time as SDKs read it**: with milliseconds and a zone. Checked by `tests/it/losant/command.rs`.
//!
//! The README beside this file lists all addresses, with what the vendor documents and what we decided where it is silent.

pub mod access;
pub mod command;
pub mod connect;
pub mod data;
pub mod device;
pub mod export;
pub mod gps;
pub mod id;
pub mod limits;
pub mod mail;
pub mod meant;
pub mod presence;
pub mod rest;
pub mod state;
pub mod topics;
pub mod when;

/// The most bytes of a payload (§2.4).
pub const PAYLOAD_BYTES_MAX: usize = 262_144;
/// Bytes of a packet around its payload: header, lengths, packet id, and the longest topic.
const AROUND_BYTES_MAX: usize = 1_024 + 16;
/// The most bytes of a packet: a payload that is a byte too long is still read, so that it can be said why it ends the connection.
pub const PACKET_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + AROUND_BYTES_MAX;

/// What cannot be taken, and why, in words for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Invalid {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}
