//! What integrators see: the shapes of the REST API and of its WebSocket, as far as they are pure.
//!
//! ```text
//!   auth          who an integrator is
//!   errors        bodies of failures
//!   entities      ids, pages, devices
//!   calls         calls to devices: bodies, states, statuses
//!   telemetry     reading and writing of telemetry and attributes: routes, queries, bodies
//!   aggregation   MIN MAX AVG SUM COUNT by interval
//!   websocket     subscriptions and what is pushed
//! ```

pub mod aggregation;
pub mod auth;
pub mod calls;
pub mod entities;
pub mod errors;
pub mod telemetry;
pub mod websocket;
