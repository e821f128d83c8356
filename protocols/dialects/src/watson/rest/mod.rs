//! The management API that integrators use: paths to requests, bodies both ways, statuses as SDKs insist on them (§1.8, §1.9).
//!
//! ```text
//!   route    who asks, which resource, which method, and what status success has
//!   query    pages and filters            request    bodies that come in
//!   error    bodies of refusals           response   bodies that go out
//!   kept     how types and last events are kept             security  what is asked of connections, by type
//! ```
//!
//! # Invariants
//!
//! - **A status that an SDK does not expect is an exception there**: [`Resource::success`] is the one table. Checked by
//!   `urls_have_their_methods_and_statuses`.
//! - **Tokens are shown once**, in the answer to what made them ([`response::Added`], [`response::Device`]).
//!
//! # Deliberately absent
//!
//! Groups of others than gateways, keys and their roles, digital twins, actions and connectors: their paths are not found.

pub mod error;
pub mod kept;
pub mod query;
pub mod request;
pub mod response;
mod route;
pub mod security;

pub use route::{Asked, Head, Method, Resource, is_meant, route};

/// The most bytes of a body, bulk requests among them (§1.9).
pub const BODY_BYTES_MAX: usize = 512 * 1024;
