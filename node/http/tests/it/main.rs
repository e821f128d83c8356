//! HTTP as its platforms and their clients see it.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod connections;
mod harness;
mod websocket;
