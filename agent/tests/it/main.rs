//! The real agent binary over real sockets: SDKs' requests on one side, nodes in this process on the other, made of
//! Moonlight's server machine and a mailbox in memory.
#![allow(clippy::unwrap_used)]

mod support;

mod failures;
mod local;
mod mailbox;
mod process;
mod tls;
