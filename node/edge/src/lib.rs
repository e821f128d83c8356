//! Where clients connect: sockets outside, [`moorline_core::port`] inside.
//!
//! An edge knows no Raft and no rows. It accepts sockets ([`Listener`]), takes off what MQTT is wrapped in
//! ([`Transport`]), asks who a client is ([`Authenticate`]), lets
//! `moorline-mqtt` decide what each packet means, and carries the outcome to the service's
//! [`Link`](moorline_core::port::Link) and back.
//!
//! ```text
//!   Listener ──► connection task ──► moorline_mqtt::server::Connection ──► port::Link
//!                      ▲ mailbox ◄──────────────────────────────────────── port::Notice
//! ```
//!
//! # Invariants
//!
//! - **One task per connection, one write per round, one wake-up per burst.** See `connection` and `mailbox`.
//! - **An idle connection owns no buffer.** Checked by `tests/memory.rs` (`idle_connections_are_small`).
//! - **Bounded**: connections, strangers, how often they come and what they cost, packets, windows, queues; see [`EdgeConfig`], `admission`, `budget` and
//!   `mailbox`.
//!
//! # Deliberately absent
//!
//! What other protocols mean: they are served by whoever gives an edge a [`Speaks`].

mod accounts;
mod admission;
mod asked;
pub mod asks;
mod authenticate;
mod bans;
mod bucket;
mod budget;
mod buffered;
mod channel;
mod clock;
mod config;
mod connection;
mod edge;
mod ended;
mod foreign;
mod handed;
mod limit;
mod linger;
mod listener;
mod mailbox;
mod metrics;
mod noting;
mod psk;
mod room;
mod settings;
mod socket;
mod stalling;
mod tls;
mod transport;
mod websocket;

pub use admission::{Judgement, NodeBusy, Stranger};
pub use authenticate::{
    Anonymous, Attempt, Authenticate, Begin, Denial, Identity, Verdict, watch_over,
};
pub use bans::{ADDRESS_RULE, BanRule, Bans, Doorkeeper, IDENTITY_RULE};
pub use bucket::{Buckets, Rate, Turn};
pub use budget::Pass;
pub use channel::{Channel, Proof, PskHolder};
pub use clock::Clock;
pub use config::{EdgeConfig, EdgeConfigError, WsConfig};
pub use edge::Edge;
pub use foreign::{Served, Speaks, Stream, Visit};
pub use handed::Handed;
pub use linger::linger;
pub use listener::Listener;
pub use metrics::EdgeMetrics;
pub use psk::{FoundPsk, PskKeys, PskOffer};
pub use settings::{Made, Settings};
pub use stalling::Stalling;
pub use tls::{ClientCertificates, TLS_FILES_POLL, Tls, TlsConfig, TlsConfigError, TlsMetrics};
pub use transport::Transport;
