//! How many requests may be under way: of a tenant, and of the node. Who comes later waits, and only so many may.
//!
//! # Invariants
//!
//! - **A tenant takes no more than its share**, of places and of those that wait. First come, first served, of each tenant.
//! - **Tenants that ask nothing are forgotten** when there are [`TENANTS_MAX`].
//!
//! Checked by this file's tests.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use moorline_core::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::unanswered::Unanswered;

/// Tenants that are remembered although they ask nothing.
const TENANTS_MAX: usize = 1_024;

/// Look-ups of names that a tenant may have under way: also those that nobody waits for any more.
const LOOKUPS_PER_TENANT_MAX: usize = 8;

/// How many requests there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    /// Of the node at once.
    pub(crate) node: usize,
    /// Of a tenant at once.
    pub(crate) tenant: usize,
    /// Of a tenant that wait besides.
    pub(crate) waiting: usize,
}

/// What a tenant has.
#[derive(Clone)]
struct Tenant {
    /// Under way and waiting.
    all: Arc<Semaphore>,
    /// Under way.
    at_once: Arc<Semaphore>,
    /// Its look-ups of names.
    lookups: Arc<Semaphore>,
}

impl Tenant {
    /// Whether it has a place, waits for one, or has a name looked up: each has one of these, too.
    fn asks(&self) -> bool {
        Arc::strong_count(&self.all) > 1 || Arc::strong_count(&self.lookups) > 1
    }
}

/// See the module.
pub(crate) struct Places {
    share: Share,
    node: Arc<Semaphore>,
    tenants: Mutex<HashMap<TenantId, Tenant>>,
}

/// A request may be under way as long as it has this.
pub(crate) struct Place {
    /// Its tenant's look-ups of names.
    pub(crate) lookups: Arc<Semaphore>,
    _node: OwnedSemaphorePermit,
    _at_once: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Places {
    pub(crate) fn new(share: Share) -> Self {
        let node = Arc::new(Semaphore::new(share.node));
        Self { share, node, tenants: Mutex::default() }
    }

    fn of(&self, tenant: TenantId) -> Tenant {
        // Every change is one entry.
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if tenants.len() >= TENANTS_MAX && !tenants.contains_key(&tenant) {
            tenants.retain(|_, of| of.asks());
        }
        let Share { tenant: at_once, waiting, .. } = self.share;
        let made = || Tenant {
            all: Arc::new(Semaphore::new(at_once + waiting)),
            at_once: Arc::new(Semaphore::new(at_once)),
            lookups: Arc::new(Semaphore::new(LOOKUPS_PER_TENANT_MAX)),
        };
        tenants.entry(tenant).or_insert_with(made).clone()
    }

    /// Takes a place, and waits for one if there is none.
    pub(crate) async fn take(&self, tenant: TenantId) -> Result<Place, Unanswered> {
        let busy = |_| Unanswered::Busy;
        let Tenant { all, at_once, lookups } = self.of(tenant);
        let all = all.try_acquire_owned().map_err(|_| Unanswered::Busy)?;
        let at_once = at_once.acquire_owned().await.map_err(busy)?;
        // Its tenant's place first: who waits for the node's keeps nobody of another tenant from waiting.
        let node = Arc::clone(&self.node).acquire_owned().await.map_err(busy)?;
        Ok(Place { lookups, _node: node, _at_once: at_once, _all: all })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    fn now(take: impl Future<Output = Result<Place, Unanswered>>) -> Option<bool> {
        match pin!(take).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(taken) => Some(taken.is_ok()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn each_tenant_has_its_share_and_all_of_them_the_nodes() {
        let places = Places::new(Share { node: 3, tenant: 2, waiting: 1 });
        let mut context = Context::from_waker(Waker::noop());
        let mut takes: Vec<_> = (0..2).map(|_| Box::pin(places.take(TenantId(1)))).collect();
        let mut held: Vec<_> = takes
            .iter_mut()
            .map(|take| match take.as_mut().poll(&mut context) {
                Poll::Ready(Ok(place)) => place,
                Poll::Ready(Err(_)) | Poll::Pending => panic!("there is room"),
            })
            .collect();
        let mut third = Box::pin(places.take(TenantId(1)));
        assert!(third.as_mut().poll(&mut context).is_pending(), "it waits");
        assert_eq!(now(places.take(TenantId(1))), Some(false), "no more may wait");
        assert_eq!(now(places.take(TenantId(2))), Some(true), "another tenant has its own");
        held.pop();
        assert!(third.as_mut().poll(&mut context).is_ready(), "it was first in line");
        drop(third);
        drop(held);
        assert_eq!(now(places.take(TenantId(1))), Some(true));
    }

    #[test]
    fn tenants_that_ask_nothing_are_forgotten() {
        let places = Places::new(Share { node: 3, tenant: 2, waiting: 1 });
        for tenant in 0..3_000 {
            assert_eq!(now(places.take(TenantId(tenant))), Some(true));
        }
        assert!(places.tenants.lock().unwrap().len() <= TENANTS_MAX);
        // A look-up that goes on when its request is over.
        let looks_up = Arc::clone(&places.of(TenantId(1)).lookups);
        (3_000..6_000).for_each(|tenant| drop(places.of(TenantId(tenant))));
        assert!(Arc::ptr_eq(&looks_up, &places.of(TenantId(1)).lookups));
    }
}
