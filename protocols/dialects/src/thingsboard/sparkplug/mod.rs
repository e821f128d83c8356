//! Sparkplug B: devices of profiles that ask for it. A connection is a node's; the node speaks for itself and for devices behind it.
//!
//! ```text
//!   bytes ─► messages ─► node: its life, its numbers, whose certificates there are ─► metrics: telemetry and attributes
//!            topics        │                                                            datatypes: values
//!                          └◄─ commands ◄─ shared attributes that change, calls
//! ```
//!
//! # Invariants
//!
//! - **What it means is what it means elsewhere**: telemetry, attributes, a gateway's devices that come and go. Checked by reading: there
//!   is nothing else in [`node::Said`].
//! - **Bounded**: what is remembered of a node is what its birth certificates say, within [`node::METRICS_MAX`] and [`node::DEVICES_MAX`].
//!   Checked by `tests/it/thingsboard/sparkplug/node.rs`.
//!
//! # Deliberately absent
//!
//! The messages that say whether an application is there (`STATE`): none is sent. Files, data sets, templates and properties: nothing is
//! kept of them. Numbers that are refused for QoS 0: the node is asked for its certificates.

pub mod commands;
pub mod datatypes;
pub mod messages;
pub mod metrics;
pub mod node;
pub mod topics;
