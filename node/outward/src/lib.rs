//! Asking HTTP endpoints outside the cluster, for all platforms: one client, and what it may be used for.
//!
//! ```text
//!   Request ─► checked.rs (pure): URL, method, headers ─► places.rs: a place, of its tenant and of the node
//!                                                            └─► client.rs ─► connect.rs: name ─► addresses ─► judged ─► TCP, TLS
//!                                                                   │                      address.rs (pure)
//!   Answer ◄─ status, headers, at most so many bytes ◄──────────────┘
//! ```
//!
//! Whom a node asks is said by people who run an application, not by those who run the node. So nothing of it is believed.
//!
//! # Invariants
//!
//! - **A connection goes to an address that was judged, and to no other.** A name is resolved once for each connection, by
//!   [`connect`](self), and what is not allowed is left out before anybody connects. Checked by `tests/it` and the tables of `address.rs`.
//! - **Nothing is followed**: a redirect is an answer; no proxy is asked for. Checked by `tests/it`.
//! - **Bounded**: requests at once, those that wait, the time to connect and the time in all, bytes of an answer, connections kept, lookups of
//!   names. Each has a name in [`OutwardConfig`] or here. Checked by `tests/it`.
//! - **No secret is logged**: of a request only its tenant, and the host's name.
//!
//! # Deliberately absent
//!
//! What is asked, and what an answer means: that is its platform's. Trying again. HTTP/2.

mod address;
mod checked;
mod client;
mod config;
mod connect;
mod metrics;
mod places;
mod unanswered;

pub use self::{
    address::Networks,
    checked::Request,
    client::{Answer, Outward},
    config::{OutwardConfig, OutwardConfigError},
    metrics::OutwardMetrics,
    unanswered::Unanswered,
};
