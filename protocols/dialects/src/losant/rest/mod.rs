//! The REST API: paths, queries, bodies, and what is refused (§2.7).
//!
//! Invariant: **unknown keys of a query mean nothing**: SDKs send some with every request. A value that is not understood does. Checked by `tests/it/losant/rest.rs`.

pub mod auth;
pub mod error;
pub mod list;
pub mod pass;
pub mod query;
pub mod route;
pub mod sse;

pub use error::{Error, Kind};
pub use route::{Asked, Method, Resource, route};

use serde::Deserialize;

use super::{Invalid, PAYLOAD_BYTES_MAX};

/// Bytes of a request's body: a batch of states.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// A message to be published.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToPublish {
    /// Where.
    pub topic: String,
    /// What.
    pub message: String,
}

impl ToPublish {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub fn read(body: &[u8]) -> Result<Self, Invalid> {
        let said: Self = serde_json::from_slice(body).map_err(|why| Invalid(why.to_string()))?;
        if super::topics::publish(said.topic.as_bytes()) != Some(super::topics::Publish::Custom) {
            return Err(Invalid::new("topic: a topic of the application's own"));
        }
        if said.message.len() > PAYLOAD_BYTES_MAX {
            return Err(Invalid(format!("message: {PAYLOAD_BYTES_MAX} bytes at most")));
        }
        Ok(said)
    }

    /// Whether its topic has no more bytes and levels than those of connections may.
    #[must_use]
    pub fn fits(&self, bytes_max: usize, levels_max: usize) -> bool {
        self.topic.len() <= bytes_max && self.topic.split('/').count() <= levels_max
    }
}
