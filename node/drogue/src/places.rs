//! Who has a place here: connections of devices, each behind the one before it, and requests that wait, of which there are so many.
//!
//! # Invariants
//!
//! - **Of two connections of a device at a node, the later one says nothing before the earlier one has said all**, unless that takes too
//!   long.
//! - **Bounded**: a device has [`WAITS_PER_DEVICE_MAX`] requests that wait, a node [`WAITS_MAX`].
//!
//! Both are checked below.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use moorline_core::{TenantId, Text};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Requests of one device that wait for a command at once.
pub(crate) const WAITS_PER_DEVICE_MAX: usize = 4;
/// Those of a node: each is a session.
pub(crate) const WAITS_MAX: usize = 4_096;
/// How long a connection waits for the one before it.
const TURN_WAIT: Duration = Duration::from_secs(10);

type Whose = (TenantId, Text);

#[derive(Debug, Default)]
struct Taken {
    /// The last connection of each device: a token that ends with it.
    last: HashMap<Whose, CancellationToken>,
    waiting: HashMap<Whose, usize>,
    waits: usize,
}

/// See the module. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Arc<Mutex<Taken>>);

/// A connection that has not said all. Dropped, it has.
#[derive(Debug)]
pub(crate) struct Turn {
    places: Places,
    whose: Whose,
    own: CancellationToken,
    before: Option<CancellationToken>,
}

/// A request that waits, until it is dropped.
#[derive(Debug)]
pub(crate) struct Waits {
    places: Places,
    whose: Whose,
}

impl Places {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Every change is one entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of a device is here.
    pub(crate) fn turn(&self, tenant: TenantId, device: &Text) -> Turn {
        let (whose, own) = ((tenant, device.clone()), CancellationToken::new());
        let before = self.taken().last.insert(whose.clone(), own.clone());
        Turn { places: self.clone(), whose, own, before }
    }

    /// A request of a device may wait, if there is room.
    pub(crate) fn wait(&self, tenant: TenantId, device: &Text) -> Option<Waits> {
        let whose = (tenant, device.clone());
        let mut taken = self.taken();
        let own = taken.waiting.get(&whose).copied().unwrap_or_default();
        if own >= WAITS_PER_DEVICE_MAX || taken.waits >= WAITS_MAX {
            return None;
        }
        taken.waiting.insert(whose.clone(), own + 1);
        taken.waits += 1;
        Some(Waits { places: self.clone(), whose })
    }
}

impl Turn {
    /// Waits until the connection before has said all.
    pub(crate) async fn comes(&mut self) {
        if let Some(before) = self.before.take() {
            // Who takes so long says something late, which may come behind what this one says.
            timeout(TURN_WAIT, before.cancelled()).await.unwrap_or_default();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.own.cancel();
        let mut taken = self.places.taken();
        // A later one may be there.
        if taken.last.get(&self.whose).is_some_and(CancellationToken::is_cancelled) {
            taken.last.remove(&self.whose);
        }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.waits -= 1;
        if let Some(own) = taken.waiting.get_mut(&self.whose) {
            *own -= 1;
            if *own == 0 {
                taken.waiting.remove(&self.whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const TENANT: TenantId = TenantId(7);

    #[tokio::test]
    async fn a_connection_says_nothing_before_the_one_before_it_has_said_all() {
        let (places, device) = (Places::default(), Text::from("gate"));
        let mut first = places.turn(TENANT, &device);
        first.comes().now_or_never().unwrap();
        let mut second = places.turn(TENANT, &device);
        let mut third = places.turn(TENANT, &device);
        let mut other = places.turn(TENANT, &Text::from("other"));
        other.comes().now_or_never().unwrap();
        {
            let mut comes = Box::pin(second.comes());
            assert!(comes.as_mut().now_or_never().is_none());
            drop(first);
            comes.await;
        }
        drop(second);
        third.comes().now_or_never().unwrap();
        drop((third, other));
        assert!(places.taken().last.is_empty());
    }

    #[test]
    fn a_device_has_so_many_requests_that_wait_and_a_node_too() {
        let places = Places::default();
        let wait = |number: usize| places.wait(TENANT, &Text::from(format!("d{number}")));
        let mut held: Vec<_> = (0..WAITS_PER_DEVICE_MAX).map(|_| wait(0).unwrap()).collect();
        assert!(wait(0).is_none());
        held.pop();
        held.push(wait(0).unwrap());
        held.extend((held.len()..WAITS_MAX).map(|number| wait(number).unwrap()));
        assert!(wait(WAITS_MAX).is_none());
        drop(held);
        assert!(wait(0).is_some());
        let taken = places.taken();
        assert_eq!((taken.waits, taken.waiting.len()), (0, 0));
    }
}
