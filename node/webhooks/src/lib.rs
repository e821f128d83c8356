//! Webhooks: events of a tenant, posted to a URL that its operator named. At least once, in order of each device.
//!
//! ```text
//!   document "webhooks/NAME" ──► runner.rs: the leader of its shard runs it
//!                                   └─► pump.rs, one for each shard: events behind the offset ─► filter.rs ─► batch.rs
//!                                          │                                                                  │
//!                                          │◄── 2xx: the offset is committed ◄── outward ◄── signature.rs ◄───┘
//!                                          └◄── anything else: decide.rs says again, skip or pause
//!   document "webhook-states/NAME" ◄── state.rs: how it goes, for whoever asks
//! ```
//!
//! # Invariants
//!
//! - **At least once**: the offset of a shard is committed behind an event when the receiver has answered 2xx, when the webhook does
//!   not want it, or when its operator said that refused ones are skipped. Checked by the cluster tests (`webhooks.rs`).
//! - **In order of each device**: a shard's events go out one request after the other, and the next one after the last was settled.
//! - **Nothing is lost silently**: what is skipped, and what retention took before it was sent, is counted in the webhook's state and in
//!   metrics; a webhook that pauses says why.
//! - **One node sends**: the leader of the shard in which the webhook is kept. Who is deposed notices within half a second, or when it
//!   commits; until then an event may come twice, and an old one after newer ones.
//! - **Secrets are sealed** under the cluster's key, and never read back. Checked by `sealed.rs` and the cluster tests.
//! - **Bounded**: [`WEBHOOKS_PER_TENANT_MAX`], 128 at a node, requests of a webhook and a node at once, bytes of a
//!   request, times between two tries.
//!
//! # Deliberately absent
//!
//! Whom a node may ask, names, TLS (`node/outward`); HTTP's side of operators (`node/api`); what an event looks like
//! (`moorline_service::registry::cloud_event`).

mod batch;
mod decide;
mod filter;
mod hooks;
mod kept;
mod metrics;
mod pump;
mod runner;
mod sealed;
mod signature;
mod state;

pub use self::{
    filter::Filter,
    hooks::{SECRET_PREFIX, Tested, WEBHOOKS_PER_TENANT_MAX, WebhookError, Webhooks},
    kept::{Hook, NewHook, Refused, Settings},
    metrics::WebhookMetrics,
    runner::Runner,
    signature::signature,
    state::{Failing, State},
};
