//! What an application says of all its devices: a document, remembered for moments.
//!
//! # Invariants
//!
//! - **Doubt refuses**: what can't be read lets no device in. What was known not long ago counts while nobody answers.
//! - **Bounded**: [`KNOWN_MAX`] applications are remembered.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{TenantId, Text};
use moorline_dialects::drogue::registry::device::Kept;
use moorline_machine::documents::{Expect, Space};
use moorline_service::registry::{Registry, RegistryError};

/// The space of a tenant that has it, and its name there.
const SPACE: &str = "drogue";
/// See [`SPACE`].
const DOCUMENT: &str = "application";
/// How long it counts what was said.
const FOR: Duration = Duration::from_secs(5);
/// How long it counts while nobody can say: longer than an election takes.
const UNANSWERED_FOR: Duration = Duration::from_secs(60);
/// Applications of which it is known; when there are more, all are asked anew.
const KNOWN_MAX: usize = 4_096;

/// Why nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// It can't be read.
    Unreadable,
    /// Nobody can say.
    Unavailable,
}

type Known = HashMap<TenantId, (Arc<Kept>, Instant)>;

/// What is known. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Specs(Arc<Mutex<Known>>);

impl Specs {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Every change is one entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn within(&self, tenant: TenantId, age: Duration) -> Option<Arc<Kept>> {
        let known = self.known();
        let (said, at) = known.get(&tenant)?;
        (at.elapsed() < age).then(|| Arc::clone(said))
    }

    /// What an application says now, and its version.
    pub(crate) async fn read(
        &self,
        registry: &Registry,
        tenant: TenantId,
    ) -> Result<(Kept, Option<u64>), Unknown> {
        let space = Space::of_tenant(tenant, SPACE);
        let found = registry.document(&space, &Text::from(DOCUMENT)).await;
        let Some(found) = found.map_err(|_| Unknown::Unavailable)? else {
            return Ok((Kept::default(), None));
        };
        let kept = serde_json::from_slice(&found.body).map_err(|_| Unknown::Unreadable)?;
        Ok((kept, Some(found.version)))
    }

    /// Has an application say this, in the place of what is expected: here at once, on other nodes within [`FOR`].
    pub(crate) async fn write(
        &self,
        registry: &Registry,
        tenant: TenantId,
        body: Bytes,
        expect: Expect,
    ) -> Result<(), RegistryError> {
        let space = Space::of_tenant(tenant, SPACE);
        registry.put_document(&space, &Text::from(DOCUMENT), body, expect).await?;
        self.known().remove(&tenant);
        Ok(())
    }

    /// What an application says, at most [`FOR`] ago.
    pub(crate) async fn of(
        &self,
        registry: &Registry,
        tenant: TenantId,
    ) -> Result<Arc<Kept>, Unknown> {
        if let Some(said) = self.within(tenant, FOR) {
            return Ok(said);
        }
        let said = match (self.read(registry, tenant).await, self.within(tenant, UNANSWERED_FOR)) {
            (Err(Unknown::Unavailable), Some(said)) => return Ok(said),
            (read, _) => Arc::new(read?.0),
        };
        let mut known = self.known();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(tenant, (Arc::clone(&said), Instant::now()));
        Ok(said)
    }
}
