//! How many connections a tenant has at this node.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use moorline_core::TenantId;

use super::CONNECTIONS_PER_TENANT_MAX;

/// Those that are taken. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(in crate::rest) struct Places(Arc<Mutex<HashMap<TenantId, usize>>>);

impl Places {
    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, usize>> {
        // Every change is one number.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, unless the tenant has as many as it may.
    pub(super) fn take(&self, tenant: TenantId) -> Option<Place> {
        let mut all = self.lock();
        let taken = all.entry(tenant).or_default();
        if *taken >= CONNECTIONS_PER_TENANT_MAX {
            return None;
        }
        *taken += 1;
        drop(all);
        Some(Place { places: self.clone(), tenant })
    }
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    tenant: TenantId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.places.lock();
        if let Some(taken) = all.get_mut(&self.tenant) {
            *taken -= 1;
            if *taken == 0 {
                all.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_so_many_connections_and_gets_their_places_back() {
        let places = Places::default();
        let take = || places.take(TenantId(1));
        let mut taken: Vec<_> = (0..CONNECTIONS_PER_TENANT_MAX).map(|_| take().unwrap()).collect();
        assert!(take().is_none());
        assert!(places.take(TenantId(2)).is_some(), "another tenant's are its own");
        taken.pop();
        assert!(take().is_some());
        drop(taken);
        assert!(places.lock().is_empty());
    }
}
