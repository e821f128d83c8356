//! One HTTP listener for several platforms: HTTP/1.1 by hyper, with all its waits and sizes, and each request to whose path it is.
//!
//! ```text
//!   edge's listener ─► Http: heads, bodies, waits, stops ──┬─► Platform ─► Conversation ─► answers, or streams
//!                      one task per connection             ├─► Platform …      └─► WebSocket ─► Talk
//!                                                          └─► nobody's: 404
//! ```
//!
//! A platform is asked which paths are its own, and meets each connection once: what the requests of one connection share (who was let
//! in, what is under way) is its [`Conversation`].
//!
//! # Invariants
//!
//! - **No body is read before its platform asks for it** ([`Body::read`], [`Body::part`]), and none beyond the size that it says.
//! - **Every wait ends**: a head within `HEAD_WAIT`, which is also how long a connection may rest, a body within `BODY_WAIT`, a
//!   client that takes nothing within `STALL_MAX`. How long an answer takes is its platform's.
//! - **One request of a connection at a time**: the next is not looked at before the answer to the last is on its way.
//! - **What ends a body is not in dispute**: an answer to a request with a Transfer-Encoding ends its connection.
//! - **Nobody is judged beyond what the node spends on that** (`moorline_edge`, `budget`): each request of a connection waits for a
//!   turn until one of them has proved who it is, and hears 503 with a Retry-After by chance when there is none.
//! - **A refusal is not lost**: a connection ends with a goodbye, and what still comes is thrown away for a moment
//!   ([`moorline_edge::linger`]).
//! - **A request for a WebSocket goes to a platform that speaks one there**, and to no other.
//!
//! Checked by `tests/it/connections.rs`, `tests/it/websocket.rs` and the cluster tests (`fostrom.rs`, `watson_http.rs`).
//!
//! # Deliberately absent
//!
//! What a path means, who may ask, and MQTT over WebSocket: a request that offers MQTT does not come here (`node/edge`, `foreign`).

mod answer;
mod connections;
mod request;
mod websocket;

pub use answer::{Answer, Taken};
pub use connections::{Answered, Caller, Conversation, Http, Platform};
pub use request::{Body, Head, Request, Unread};
pub use websocket::{Heard, MESSAGE_BYTES_MAX, Talk, WebSocket};
