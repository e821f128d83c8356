//! Drogue Cloud: devices that send events into channels and hear commands in an inbox, and applications that get CloudEvents.
//!
//! ```text
//!   device      identity.rs: who is it? ─► topics.rs, http.rs, ttn.rs: which channel, for whom? ─► rules.rs ─► event.rs: a CloudEvent
//!               inbox.rs: which commands does it hear, under which names?
//!   application application.rs, socket.rs: which events, which command? ─► command.rs
//!   endpoints   binding.rs: what those of rules and commands are asked, and what they answer
//!   registry/   applications and devices as its API says them: labels, patches, sections
//! ```
//!
//! Addresses are in the README beside this file.
//!
//! # Invariants
//!
//! - **Who sends is never part of a topic or URL**: those name only whom it is sent for, and whether a gateway may do that the
//!   device's own `gatewaySelector` says. Checked by `tests/it/drogue`.
//! - **What no table has is refused, with the vendor's code for it.** Checked by the same.
//!
//! # Deliberately absent
//!
//! CoAP. Dialects that no release of the vendor had (Azure, Cumulocity, Web of Things).

pub mod application;
pub mod binding;
pub mod command;
pub mod discovery;
pub mod event;
pub mod export;
pub mod http;
pub mod identity;
pub mod inbox;
pub mod mail;
pub mod outcome;
pub mod properties;
pub mod registry;
pub mod rules;
pub mod socket;
pub mod tokens;
pub mod topics;
pub mod ttn;
mod words;

/// The most bytes of a packet of MQTT.
pub const PACKET_BYTES_MAX: usize = 16 * 1024;
/// The most bytes of a body over HTTP.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
