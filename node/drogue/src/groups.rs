//! Which member of a consumer group reads: one of them, as long as it says so. The others wait until it goes, or falls silent.
//!
//! ```text
//!   nobody, or somebody silent ──written in the place of that──► mine for LEASE ──renewed──► … ──given back──► nobody
//! ```
//!
//! # Invariants
//!
//! - **Of two that want it, one has it**: it is a document, written in the place of the version that was read. Clocks of nodes that
//!   differ by more than [`LEASE`] may let two read for a while: then events come twice, and none is lost.

use std::time::Duration;

use bytes::Bytes;
use moorline_core::{TenantId, Text};
use moorline_machine::documents::{Expect, Space};
use moorline_service::registry::Registry;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How long a member reads that says nothing any more.
const LEASE: Duration = Duration::from_secs(10);
/// How often it says so.
pub(crate) const RENEW: Duration = Duration::from_secs(3);
/// How often others look whether there is nobody.
pub(crate) const LOOK: Duration = Duration::from_secs(2);
/// The space of a tenant where groups are.
const SPACE: &str = "drogue-groups";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    owner: String,
    until_ms: u64,
}

/// One member of a group.
#[derive(Debug)]
pub(crate) struct Member {
    space: Space,
    group: Text,
    own: String,
    /// Of the document that says that it reads.
    version: Option<u64>,
}

impl Member {
    pub(crate) fn new(tenant: TenantId, group: Text) -> Self {
        let own = Uuid::from_u128(rand::random()).to_string();
        Self { space: Space::of_tenant(tenant, SPACE), group, own, version: None }
    }

    /// Whether it reads, from now on for [`LEASE`].
    pub(crate) async fn holds(&mut self, registry: &Registry, now_ms: u64) -> bool {
        let expect = match self.version {
            Some(version) => Expect::Version(version),
            None => match registry.document(&self.space, &self.group).await {
                Err(_) => return false,
                Ok(None) => Expect::Absent,
                Ok(Some(found)) => {
                    let held = serde_json::from_slice::<Held>(&found.body).ok();
                    let is_held = |held: Held| held.owner != self.own && held.until_ms > now_ms;
                    if held.is_some_and(is_held) {
                        return false;
                    }
                    Expect::Version(found.version)
                }
            },
        };
        let until_ms = now_ms + u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        let held = Held { owner: self.own.clone(), until_ms };
        let body = Bytes::from(serde_json::to_vec(&held).expect("a text and a number"));
        let written = registry.put_document(&self.space, &self.group, body, expect).await;
        // Whoever was not answered looks again who it is.
        self.version = written.ok();
        self.version.is_some()
    }

    /// It reads no more: the next one may at once.
    pub(crate) async fn give_back(&mut self, registry: &Registry) {
        let Some(version) = self.version.take() else { return };
        let expect = Expect::Version(version);
        // Without an answer it falls silent, which costs the others a while.
        drop(registry.delete_document(&self.space, &self.group, expect).await);
    }
}
