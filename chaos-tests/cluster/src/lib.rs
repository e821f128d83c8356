//! Chaos: a real cluster of `moorline` processes, killed, paused and cut off while clients count their messages.
//!
//! ```text
//!   seed ──► schedule ──► nemesis ──► cluster   processes, disks, networks
//!                                       ▲
//!   client (publishers, subscribers) ───┘ MQTT of our own
//!      └──► recorder ──► history.jsonl ──► oracle ──► verdict
//! ```
//!
//! # Invariants
//!
//! - **The broker is a black box.** It is spoken to over sockets only, with an MQTT written here.
//! - **What is done is known before.** The schedule follows from the seed and is written down before the first process
//!   starts: `schedule`.
//! - **We end only what we began.** Signals go to children we hold; dropping a [`cluster::Cluster`] kills them, unmounts
//!   their disks and takes their networks down.
//! - **No run passes by accident.** Too few messages, faults that did not happen, a harness that contradicts itself:
//!   inconclusive, and exit code 1.

pub mod admin;
pub mod change;
pub mod client;
pub mod cluster;
pub mod commands;
mod crowd;
mod grow;
pub mod http;
pub mod member;
mod members;
pub mod mqtt;
pub mod nemesis;
pub mod network;
pub mod options;
pub mod outside;
pub mod page;
pub mod ports;
pub mod probe;
pub mod recorder;
pub mod report;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod shaper;
pub mod soak;
pub mod storm;
pub mod stress;
pub mod upgrade;
pub mod usage;
pub mod watch;
