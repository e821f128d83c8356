//! The harness's own MQTT 3.1.1 and 5.0: bytes it wrote itself, so that it shares no mistake with the broker.
//!
//! Only what the chaos runs need: QoS 0 and 1, both directions, packet ids and reason codes in the open.

pub mod connection;
pub mod packet;

pub use connection::{Connection, ConnectionError, Reader, Writer};
pub use packet::{Connect, Extras, Malformed, Packet, Version, Will};
