//! Watson IoT's devices, gateways and applications at a node, by MQTT and HTTP.
//!
//! ```text
//!   edge's connection ─► mqtt.rs: who is it, which session? ──► link.rs ──► the service's port, with canonical topics
//!                        inbox.rs ◄────────────────────────────────────────┘  (topics as the client sees them)
//!                        presence.rs: who is connected, as messages       gateway.rs: devices it brings along
//!                        asking.rs: what it asks to hear                  apps.rs: when applications were there
//!                        stream.rs: events in their tenant's stream, too
//!                        failed.rs: who was not let in, also by HTTP
//!                        quickstart.rs: how many strangers there may be, and how often they may speak
//!                        managed/: what managed devices say, and are asked ──► their documents, answers by no session
//!   HTTP listener ────► http.rs: who is it? ─┬─► publishes by no session ─► the service
//!                     visits.rs: news of it ├─► post.rs: mail
//!                                           ├─► fetch.rs: one command ◄──► its session, by a link of the request's own
//!                       judge.rs: is it so? └─► rest/: the management API ─► the registry, managed/
//! ```
//!
//! An organisation is the tenant with the alias `watson:ORG`; a device of type T with id D is its device `T:D`, an API key a token of
//! its API with the key's name. What topics mean and what a violation costs is decided by `moorline_dialects::watson`.
//!
//! # Invariants
//!
//! - **Sessions, queues, retained messages and shares are the service's own**: only names are changed on the way, so what is
//!   promised of them holds here. Checked by the cluster tests (`watson.rs`).
//! - **Whoever's token or device is gone is turned out within moments**, on whichever node. Checked by the same.
//! - **An identity is the client id's alone**; its organisation is the only tenant it reaches. Checked by the same.
//!
//! # Deliberately absent
//!
//! MQTT's packets (`node/edge`, `protocols/mqtt`), HTTP's connections (`node/http`). Digital twins.

mod apps;
mod asking;
mod door;
mod failed;
mod fetch;
mod gateway;
mod http;
mod inbox;
mod judge;
mod last_events;
mod link;
mod managed;
mod metrics;
mod mqtt;
mod post;
mod presence;
mod quickstart;
mod rest;
mod rules;
mod security;
mod stream;
mod visits;

pub use door::Door;
pub use http::Http;
pub use metrics::WatsonMetrics;
pub use mqtt::Mqtt;
