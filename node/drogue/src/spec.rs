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

use moorline_core::{TenantId, Text};
use moorline_dialects::drogue::registry::device::Kept;
use moorline_machine::documents::Space;
use moorline_service::registry::Registry;

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

/// What is known. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Specs(Arc<Mutex<HashMap<TenantId, (Arc<Kept>, Instant)>>>);

impl Specs {
    fn known(&self) -> MutexGuard<'_, HashMap<TenantId, (Arc<Kept>, Instant)>> {
        // Every change is one entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn within(&self, tenant: TenantId, age: Duration) -> Option<Arc<Kept>> {
        let known = self.known();
        let (said, at) = known.get(&tenant)?;
        (at.elapsed() < age).then(|| Arc::clone(said))
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
        let space = Space::of_tenant(tenant, SPACE);
        let found = registry.document(&space, &Text::from(DOCUMENT)).await;
        let found = match (found, self.within(tenant, UNANSWERED_FOR)) {
            (Err(_), Some(said)) => return Ok(said),
            (Err(_), None) => return Err(Unknown::Unavailable),
            (Ok(found), _) => found,
        };
        let read = found.map(|found| serde_json::from_slice::<Kept>(&found.body)).transpose();
        let said = Arc::new(read.map_err(|_| Unknown::Unreadable)?.unwrap_or_default());
        let mut known = self.known();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(tenant, (Arc::clone(&said), Instant::now()));
        Ok(said)
    }
}
