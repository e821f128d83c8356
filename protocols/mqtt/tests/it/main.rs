//! The crate as its users see it: packets in, packets and events out.

mod client;
mod codec;
mod corpus;
mod session_connect;
mod session_deliver;
mod session_end;
mod session_publish;
mod session_subscribe;
mod support;
