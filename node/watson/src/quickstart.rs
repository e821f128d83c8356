//! Quickstart: clients that nobody registered, where an operator has switched it on by a tenant with the alias `watson:quickstart` and no
//! other. What they may say and hear is decided by `moorline_dialects::watson::topics`; this file says how many and how often.
//!
//! # Invariants
//!
//! - **Off unless an operator says so**, and off again for those who are connected when that tenant is gone, disabled, or anything else
//!   besides: strangers are no clients of an organisation. Checked by the cluster tests (`watson_quickstart.rs`).
//! - **Nothing of it lasts**: sessions are clean, messages have QoS 0, presence is not retained. Checked by the same.
//! - **Bounded**: [`CONNECTIONS_MAX`] at a node; messages by [`ONE`] of a connection and by [`ALL`] of a node; more go nowhere, as the
//!   platform does it, and are counted. Checked below.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use moorline_core::{QoS, TenantId, UnixMillis, port::SessionLimits};
use moorline_edge::{Buckets, Rate, Turn};
use moorline_mqtt::Millis;
use moorline_service::registry::Registry;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What the tenant is called.
pub(crate) const ALIAS: &str = "watson:quickstart";
/// The service of all that is published and subscribed.
pub(crate) const QOS: QoS = QoS::AtMostOnce;
/// Connections at a node.
pub(crate) const CONNECTIONS_MAX: usize = 1_000;
/// What one connection may say: the platform discards what is more than one message a second; some at once are let pass.
const ONE: Rate = Rate { per_s: 1, burst: 5, wait_ms_max: 0 };
/// What all connections of a node may say together, in parts of [`PART_BYTES`].
const ALL: Rate = Rate { per_s: 500, burst: 500, wait_ms_max: 0 };
/// A message counts once for each of these.
const PART_BYTES: usize = 4_096;
/// The only key of a bucket.
const KEY: () = ();
/// More than there is, so that none is forgotten early.
const KEYS_MAX: usize = 2;
/// What a session may have: no queue to speak of, and a few devices to watch.
pub(crate) const SESSION: SessionLimits =
    SessionLimits { queue_items: 10, queue_bytes: 256 * 1024, subscriptions: 10 };

/// Who is served. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Quickstart {
    seats: Arc<Semaphore>,
    all: Arc<Mutex<Buckets<()>>>,
    taken: IntGauge,
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    _permit: OwnedSemaphorePermit,
    one: Mutex<Buckets<()>>,
    all: Arc<Mutex<Buckets<()>>>,
    taken: IntGauge,
}

fn locked(buckets: &Mutex<Buckets<()>>) -> MutexGuard<'_, Buckets<()>> {
    // Every change is one entry.
    buckets.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bucket(rate: Rate) -> Mutex<Buckets<()>> {
    Mutex::new(Buckets::new(rate, KEYS_MAX))
}

impl Quickstart {
    pub(crate) fn new(taken: IntGauge) -> Self {
        let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { seats, all: Arc::new(bucket(ALL)), taken }
    }

    /// A place; [`None`] if all are taken.
    pub(crate) fn seat(&self) -> Option<Seat> {
        let permit = Arc::clone(&self.seats).try_acquire_owned().ok()?;
        self.taken.inc();
        let (one, all, taken) = (bucket(ONE), Arc::clone(&self.all), self.taken.clone());
        Some(Seat { _permit: permit, one, all, taken })
    }
}

impl Seat {
    /// Whether a message goes on. Who says too much for itself takes nothing of the others' share.
    pub(crate) fn may_say(&self, now: UnixMillis, payload_bytes: usize) -> bool {
        let now = Millis(now.0);
        let passes = |buckets: &Mutex<Buckets<()>>| locked(buckets).take(KEY, now) == Turn::Now;
        passes(&self.one) && (0..=payload_bytes / PART_BYTES).all(|_| passes(&self.all))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.taken.dec();
    }
}

/// The tenant that is for this alone, if there is one.
pub(crate) fn tenant(registry: &Registry) -> Option<TenantId> {
    let (tenant, record) = registry.tenant_by_alias(ALIAS)?;
    let is_alone = record.aliases.iter().all(|alias| alias.as_str() == ALIAS);
    (record.enabled && is_alone).then_some(tenant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quickstart() -> Quickstart {
        Quickstart::new(IntGauge::new("taken", "taken").unwrap())
    }

    #[test]
    fn no_more_connect_than_may() {
        let quickstart = quickstart();
        let mut seats: Vec<Seat> = (0..CONNECTIONS_MAX).filter_map(|_| quickstart.seat()).collect();
        assert_eq!((seats.len(), quickstart.taken.get()), (1_000, 1_000));
        assert!(quickstart.seat().is_none());
        seats.pop();
        assert!(quickstart.seat().is_some());
        drop(seats);
        assert_eq!(quickstart.taken.get(), 0);
    }

    #[test]
    fn a_connection_says_no_more_than_it_may() {
        let seat = quickstart().seat().unwrap();
        let said = |at_ms: u64| seat.may_say(UnixMillis(1_000_000 + at_ms), 10);
        assert_eq!([0; 7].map(said), [true, true, true, true, true, false, false]);
        assert_eq!([1_000, 1_000, 2_000, 2_500].map(said), [true, false, true, false]);
    }

    #[test]
    fn all_together_say_no_more_than_they_may_by_what_they_weigh() {
        let quickstart = quickstart();
        let seats: Vec<Seat> = (0..200).filter_map(|_| quickstart.seat()).collect();
        let passed = |payload_bytes: usize, at_ms: u64| {
            let now = UnixMillis(1_000_000 + at_ms);
            seats.iter().filter(|seat| seat.may_say(now, payload_bytes)).count()
        };
        // 32 parts and one each: 15 of 500.
        assert_eq!(passed(131_072, 0), 15);
        assert_eq!(passed(0, 60_000), 200, "a minute later");
        assert_eq!(passed(0, 60_000), 200);
        assert_eq!(passed(0, 60_000), 100, "and no more");
    }
}
