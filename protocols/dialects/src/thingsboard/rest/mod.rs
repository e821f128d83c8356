//! What integrators see: the shapes of the REST API and of its WebSocket, as far as they are pure.
//!
//! ```text
//!   routes        which path asks for what
//!   auth          who an integrator is
//!   errors        bodies of failures
//!   ids           UUIDs that lead to what they name
//!   entities      pages, devices
//!   devices       routes of devices
//!   profiles      device profiles: routes, bodies
//!   packages      packages: routes, bodies
//!   claims        claiming of devices: routes
//!   calls         calls to devices: bodies, states, statuses
//!   telemetry     reading and writing of telemetry and attributes: routes, queries, bodies
//!   aggregation   MIN MAX AVG SUM COUNT by interval
//!   websocket     commands and what is pushed
//!   finding       its commands for many devices
//!   filtering     which of them, by what they say
//!   told          what of a subscription was pushed, and so what is to be
//! ```

pub mod aggregation;
pub mod auth;
pub mod calls;
pub mod claims;
pub mod devices;
pub mod entities;
pub mod errors;
pub mod filtering;
pub mod finding;
pub mod ids;
pub mod packages;
pub mod profiles;
pub mod routes;
pub mod telemetry;
pub mod told;
pub mod websocket;
