//! The device-management protocol: what managed devices say, what the server asks of them, and what state that makes (§1.8).
//!
//! ```text
//!   address      topics, both ways                  wire        requests and responses as JSON
//!   attributes   what is known of a device          device      the state machine of one device
//!   task         one request at one device          record      one request at all its devices
//!   bundle       custom actions of an organisation    said, asked   what moves that machine
//!   kept         how all of that is kept
//! ```
//!
//! A gateway speaks for its devices: the same machine, with the device's name in the topics ([`crate::watson::topics`]).

pub mod address;
mod asked;
pub mod attributes;
pub mod bundle;
pub mod device;
pub mod kept;
pub mod record;
mod said;
pub mod task;
pub mod wire;

pub use said::{LIFETIME_S_MIN, claims};
