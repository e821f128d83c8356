//! How a webhook goes, as its node says it: a document of its own, so that any node can be asked, and the next node goes on counting.
//!
//! What failed and what was skipped or missed is written within a second, what went well every ten seconds. A node that
//! is killed forgets what it counted since; the offsets it committed it does not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How it goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = WebhookState)]
pub struct State {
    /// Of which webhook: another one of the same name begins anew.
    #[serde(rename = "of")]
    #[schema(ignore)]
    pub(crate) id: u32,
    /// The node that sends.
    pub node: u64,
    /// Events that the receiver has taken.
    pub delivered: u64,
    /// Events that it refused, and that were left out since the webhook says so.
    pub skipped: u64,
    /// Events that were gone before they were sent: too old, or too many.
    pub missed: u64,
    /// When it last took one, in milliseconds since 1970.
    pub delivered_ms: Option<u64>,
    /// What is tried again now, by shard.
    pub failing: BTreeMap<u16, Failing>,
    /// When this was written, in milliseconds since 1970.
    pub written_ms: u64,
}

/// A request that is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = WebhookFailing)]
pub struct Failing {
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// What came of the last time.
    pub why: String,
    /// When it is tried again.
    pub again_ms: u64,
}
