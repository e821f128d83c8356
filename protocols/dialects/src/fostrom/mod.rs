//! Fostrom: heartbeats, datapoints, messages and a sequential mailbox, over MQTT, HTTP with SSE, and Moonlight.
//!
//! ```text
//!   identity   who a device says it is
//!   payload    JSON and MessagePack, and events made of them
//!   mqtt       CONNECT, topics, what is sent back
//!   http       routes, statuses, bodies         sse   the event stream
//!   schema     packet schemas: what fields a payload has
//!   words      refusals as text
//! ```
//!
//! The README beside this file lists all addresses, with what the vendor documents and what we propose where it is silent.

pub mod http;
pub mod identity;
pub mod mqtt;
pub mod payload;
pub mod schema;
pub mod sse;
pub mod words;

/// The longest name of a schema, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// Whether this can be the name of a packet schema, or of a mail: 1 to 255 of `A-Z a-z 0-9 _ -`.
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.iter().all(allowed)
}
