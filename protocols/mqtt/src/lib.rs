//! MQTT 3.1, 3.1.1 and 5.0 as pure code: bytes in, events and bytes out.
//!
//! [`codec`] turns bytes into packets and back, strictly: what the standard forbids is an error that carries the reason
//! code to answer with. [`server`] is a broker's side of one connection, [`client`] the other side for the CLI, the
//! benchmarks and tests. Nothing here reads a clock, waits, or touches a socket: the edge does.
//!
//! ```text
//!   socket bytes ──► server::Connection::receive ──► poll_event ──► port::Link calls
//!                                   notice ◄────────────────────── port::Notice
//!   socket bytes ◄── poll_transmit ◄┘
//! ```
//!
//! # Driving a server connection
//!
//! ```
//! use std::sync::Arc;
//! use bytes::BytesMut;
//! use moorline_core::{Offset, Text, port::{Notice, Opened, Published}};
//! use moorline_mqtt::{Millis, Now, server::{Config, Connection, Event}};
//!
//! let now = Now::default(); // the edge passes its monotonic clock and its wall clock
//! let mut connection = Connection::new(Arc::new(Config::default()), now, Text::from("auto-1"));
//! let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
//!
//! // The socket gave a CONNECT and a QoS 1 PUBLISH in one read.
//! input.extend_from_slice(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c");
//! input.extend_from_slice(b"\x32\x07\x00\x01t\x00\x0ahi");
//!
//! connection.receive(now, &mut input);
//! let Some(Event::Connect(request)) = connection.poll_event() else { panic!() };
//! assert_eq!(request.client.as_str(), "c"); // authenticate, then Link::open
//!
//! // The service answers. What the client sent early is still in `input`: receive after each notice.
//! let opened = Opened { present: false, first: Offset(1), end: Offset(1) };
//! connection.notice(now, Notice::Opened(Ok(opened)));
//! connection.receive(now, &mut input);
//! let Some(Event::Publish { token, message }) = connection.poll_event() else { panic!() };
//! assert_eq!(&message.payload[..], b"hi"); // Link::publish
//!
//! connection.notice(now, Notice::Published { token, outcome: Ok(Published { matched: true }) });
//! connection.poll_transmit(now, &mut output);
//! assert_eq!(&output[..], b"\x20\x02\x00\x00\x40\x02\x00\x0a"); // CONNACK, PUBACK: write these
//!
//! output.clear(); // the socket took it all, which the next round's poll_transmit notices
//! connection.poll_transmit(now, &mut output);
//!
//! // Between two rounds the edge waits for: the socket to be readable, if wants_read(); the socket to take `output`,
//! // if there is any; a notice; poll_timeout(), then handle_timeout(). After is_closed(): only for the write.
//! assert!(connection.wants_read() && !connection.is_closed());
//! assert_eq!(connection.poll_timeout(), Some(Millis(90_000))); // keep-alive 60 s, half as much again
//! ```
//!
//! # Invariants
//!
//! - **Split or whole, the same.** How bytes are cut into reads changes nothing. Checked by `tests/it/codec.rs` and
//!   the fuzz target `mqtt_decode`.
//! - **Nothing is allocated by a length that a peer announced**; a packet over the limit is refused from its header.
//! - **PUBACKs leave in the order of their PUBLISHes, and only after the service said yes.** Checked by
//!   `tests/it/session_publish.rs` and the fuzz target `mqtt_session`.
//! - **Never more unacknowledged deliveries than the client's Receive Maximum, all with different packet ids.** Same.
//!
//! # Deliberately absent
//!
//! Who may connect (the edge asks), what a subscription matches (the service), QoS 2 flows, retained messages, wills
//! and shared subscriptions: the codec has them, the session refuses them and says so ([`server::Capabilities`]).

pub mod client;
pub mod codec;
pub mod server;
mod time;

pub use codec::{Packet, PacketId, Reason, Version};
pub use time::{Millis, Now};
