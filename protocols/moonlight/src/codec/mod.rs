//! Wire format version 1: packets to bytes and back.
//!
//! A packet is its type byte, a flags byte, and fields; all integers are big-endian. No length stands around it: the
//! type decides the layout. So a packet that nobody knows can't be skipped, and ends the connection.
//!
//! # Invariants
//!
//! - **How bytes are cut does not matter.** Each check looks at bytes in their order, so a stream gives the same packets
//!   and the same error however it arrives. Checked by `tests/it/codec.rs` and `protocols/fuzz` (`moonlight_decode`).
//! - **Bounded.** A packet's length is checked when it is read, before its payload is waited for.
//! - **What is accepted can be sent.** Checked by the same.

mod decode;
mod encode;
mod packet;

pub use decode::{DecodeError, Decoder};
pub use encode::{EncodeError, encode};
pub use packet::{
    Connect, ConnectFailedReason, Credentials, DEVICE_BYTES, FLEET_BYTES, Next, Packet, PacketType,
    Pulse, PulseError, PulseKind, SECRET_BYTES, Side, UnauthorizedReason,
};

/// The version of the wire format that this crate speaks.
pub const WIRE_VERSION: u8 = 1;
/// The most bytes of a payload, either way: what the vendor's agent takes from its SDKs.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// The most bytes of a name: its length is one byte.
pub const NAME_BYTES_MAX: usize = 255;
