//! What an organisation asks of connections, by type: a document, remembered for moments.
//!
//! # Invariants
//!
//! - **Doubt refuses**: policies that can't be read let no device in. What was known not long ago counts while nobody answers.
//! - **Bounded**: [`KNOWN_MAX`] organisations are remembered.
//!
//! Checked below, and by the cluster tests (`watson_certificates.rs`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use moorline_core::{TenantId, Text};
use moorline_dialects::watson::{management::kept, rest::security::ConnectionSecurity};
use moorline_machine::documents::{Expect, Space};
use moorline_service::registry::RegistryError;

use crate::{door::Door, last_events::CONFIG};

/// Which of an organisation's settings these are.
const SECURITY: &str = "connection-security";
/// How long it counts what they said.
const FOR: Duration = Duration::from_secs(5);
/// How long they count while nobody can say: longer than an election takes.
const UNANSWERED_FOR: Duration = Duration::from_secs(60);
/// Organisations of which they are known; when there are more, all are asked anew.
const KNOWN_MAX: usize = 4_096;

type Known = HashMap<TenantId, (Arc<ConnectionSecurity>, Instant)>;

/// What is known. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policies(Arc<Mutex<Known>>);

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unknown {
    /// What is kept can't be read: a later node wrote it.
    #[error("the policies can't be read")]
    Unreadable,
    /// Nobody can say.
    #[error("{0}")]
    Registry(#[from] RegistryError),
}

impl Policies {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Every change is one entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What they said, if that is not too old.
    fn within(&self, tenant: TenantId, age: Duration) -> Option<Arc<ConnectionSecurity>> {
        let known = self.known();
        let (said, at) = known.get(&tenant)?;
        (at.elapsed() < age).then(|| Arc::clone(said))
    }

    fn learn(&self, tenant: TenantId, said: Arc<ConnectionSecurity>) {
        let mut known = self.known();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(tenant, (said, Instant::now()));
    }
}

impl Door {
    /// What an organisation asks of its connections, at most [`FOR`] ago.
    pub(crate) async fn policies(
        &self,
        tenant: TenantId,
    ) -> Result<Arc<ConnectionSecurity>, Unknown> {
        if let Some(said) = self.policies.within(tenant, FOR) {
            return Ok(said);
        }
        let space = Space::of_tenant(tenant, CONFIG);
        let found = self.registry.document(&space, &Text::from(SECURITY)).await;
        let found = match (found, self.policies.within(tenant, UNANSWERED_FOR)) {
            (Err(_), Some(said)) => return Ok(said),
            (found, _) => found?,
        };
        let read = found.map(|found| kept::read(&found.body)).transpose();
        let said: ConnectionSecurity = read.map_err(|_| Unknown::Unreadable)?.unwrap_or_default();
        let said = Arc::new(said);
        self.policies.learn(tenant, Arc::clone(&said));
        Ok(said)
    }

    /// Has an organisation ask for this, here at once and on other nodes within [`FOR`].
    pub(crate) async fn set_policies(
        &self,
        tenant: TenantId,
        asks: ConnectionSecurity,
    ) -> Result<(), RegistryError> {
        let (space, body) = (Space::of_tenant(tenant, CONFIG), kept::write(&asks));
        self.registry.put_document(&space, &Text::from(SECURITY), body, Expect::Any).await?;
        self.policies.learn(tenant, Arc::new(asks));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_gets_old_and_is_bounded() {
        let policies = Policies::default();
        let said = Arc::new(ConnectionSecurity::default());
        assert!(policies.within(TenantId(1), FOR).is_none());
        policies.learn(TenantId(1), Arc::clone(&said));
        assert!(policies.within(TenantId(1), FOR).is_some());
        assert!(policies.within(TenantId(1), Duration::ZERO).is_none());
        assert!(policies.within(TenantId(2), FOR).is_none());
        for tenant in 2..=u32::try_from(KNOWN_MAX).unwrap() {
            policies.learn(TenantId(tenant), Arc::clone(&said));
        }
        assert_eq!(policies.known().len(), KNOWN_MAX);
        policies.learn(TenantId(0), said);
        assert_eq!(policies.known().len(), 1);
    }
}
