//! Moonlight, Fostrom's own protocol over TCP: the codec, and both ends' session machines, without sockets or clocks.
//!
//! ```text
//!   socket bytes ──► Server::receive ──► poll_action ──► the service
//!                ◄── poll_transmit   ◄── authenticated, answered, mail_arrived, …
//! ```
//!
//! A driver does, after each thing that happened (bytes, an answer, a timeout): call the method for it, then
//! `poll_action` (or `poll_event`) until there is none, `poll_transmit`, and sleep until `poll_timeout` at most.
//!
//! # Invariants
//!
//! - **Pure.** Time is an argument, nothing waits. Checked by `chaos-tests/tidy`.
//! - **Nothing unknown is sent.** Agents of version 1 break off at any packet they don't know, so newer layouts are never
//!   used here. Test vectors in `tests/it/vectors.rs` hold every layout to the byte.
//! - **Success is said once the service said it.** Checked by `tests/it/server.rs`.
//!
//! # Deliberately absent
//!
//! Who may come in and what payloads mean (`protocols/dialects`, folder `fostrom`), TLS and sockets (`node/edge`).

pub mod client;
pub mod codec;
pub mod reconnect;
pub mod server;

pub use codec::{DecodeError, Decoder, EncodeError, Packet, encode};
pub use moorline_core::Millis;
