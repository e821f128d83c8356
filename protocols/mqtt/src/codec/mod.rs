//! Packets from bytes and bytes from packets.
//!
//! [`Decoder`] takes whole packets off the front of a growing buffer; [`encode()`] and [`Outgoing`] append to one. What
//! is decoded shares the buffer it came in: topic, payload and strings are slices of it, so whoever keeps one of them
//! for long keeps the whole read alive and should copy.
//!
//! # Invariants
//!
//! - **Strict**: the rows of `tests/data/mqtt-packets.tsv` say what is refused. Checked by `tests/it/corpus.rs`.
//! - **What is decoded can be encoded, and comes back equal.** Checked by `tests/it/codec.rs` and `mqtt_decode`.
//! - **No allocation follows a length from the wire** before the bytes are there. Lists grow with what was read.

mod connect;
mod decode;
mod encode;
mod error;
mod fixed;
mod packet;
mod properties;
mod publish;
mod read;
mod reason;

pub use decode::{Decoder, Limits};
pub use encode::encode;
pub use error::{DecodeError, EncodeError, Quota};
pub use fixed::PacketType;
pub use packet::{
    Ack, AckProperties, Auth, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect,
    Packet, PacketId, Publish, SubAck, Subscribe, SubscribeFilter, UnsubAck, Unsubscribe,
    UserProperties, Version, Will,
};
pub use publish::Outgoing;
pub use reason::Reason;

pub use moorline_core::RetainHandling;

pub(crate) use encode::put_ack;
pub(crate) use packet::Hidden;
pub(crate) use reason::Carrier;
