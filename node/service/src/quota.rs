//! How many copies a tenant's messages may be at this node in a second: a message for many thousands, sent again and again, takes
//! the time of its own tenant and not of all others.
//!
//! A tenant is one number: when it will have paid for all it was given. A message goes to all who want it or to none, and
//! passes while less than a second is owed.
//!
//! # Invariants
//!
//! - **Bounded**: [`TENANTS_MAX`] tenants are remembered. When there are more, those that owe nothing are forgotten, and if
//!   that is not enough all: somebody gets a second's worth too much.
//!
//! Checked by the tests below and by `one_tenant_is_loud` of the abuse cases.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use moorline_core::TenantId;
use prometheus::IntCounter;

/// Tenants that are remembered at once.
const TENANTS_MAX: usize = 16_384;
const SECOND_US: u64 = 1_000_000;

/// The quota of this node's live deliveries.
#[derive(Debug)]
pub(crate) struct Quota {
    /// Copies a second; 0 for as many as there are.
    per_s: AtomicU32,
    began: Instant,
    debts: Mutex<Debts>,
    dropped: IntCounter,
}

impl Quota {
    pub(crate) fn new(per_s: u32, dropped: IntCounter) -> Self {
        let per_s = AtomicU32::new(per_s);
        Self { per_s, began: Instant::now(), debts: Mutex::default(), dropped }
    }

    /// Changes it; what is owed stays owed.
    pub(crate) fn change(&self, per_s: u32) {
        self.per_s.store(per_s, Ordering::Relaxed);
    }

    /// Whether a message may go to so many. Those it may not go to are counted.
    pub(crate) fn take(&self, tenant: TenantId, copies: usize) -> bool {
        let per_s = self.per_s.load(Ordering::Relaxed);
        if per_s == 0 || copies == 0 {
            return true;
        }
        let now_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut debts = self.debts.lock().unwrap_or_else(PoisonError::into_inner);
        let passes = debts.take(tenant, copies as u64, per_s, now_us);
        if !passes {
            self.dropped.inc_by(copies as u64);
        }
        passes
    }
}

/// When each tenant will have paid, in microseconds.
#[derive(Debug, Default)]
struct Debts(HashMap<TenantId, u64>);

impl Debts {
    fn take(&mut self, tenant: TenantId, copies: u64, per_s: u32, now_us: u64) -> bool {
        if self.0.len() >= TENANTS_MAX && !self.0.contains_key(&tenant) {
            self.0.retain(|_, paid_at| *paid_at > now_us);
            if self.0.len() >= TENANTS_MAX {
                self.0.clear();
            }
        }
        let paid_at = self.0.entry(tenant).or_insert(now_us);
        let owed_us = paid_at.saturating_sub(now_us);
        if owed_us >= SECOND_US {
            return false;
        }
        *paid_at = now_us + owed_us + copies.saturating_mul(SECOND_US) / u64::from(per_s);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOUD: TenantId = TenantId(1);

    #[test]
    fn in_the_long_run_a_tenant_gets_its_rate_whole_messages_at_a_time() {
        for (copies, per_s) in [(1, 1_000), (70, 1_000), (5_000, 1_000), (50_000, 100_000)] {
            let mut debts = Debts::default();
            let many = (0..60_000_u64)
                .filter(|ms| debts.take(LOUD, copies, per_s, ms * 1_000))
                .count() as u64;
            let (given, due) = (many * copies, u64::from(per_s) * 60);
            let most = due + u64::from(per_s) + copies;
            assert!(
                given <= most && given + copies >= due.min(60_000 * copies),
                "{copies}: {given}"
            );
        }
    }

    #[test]
    fn tenants_do_not_pay_for_each_other_and_all_have_room() {
        let mut debts = Debts::default();
        assert!(debts.take(LOUD, 1_000_000, 10, 0));
        assert!(!debts.take(LOUD, 1, 10, SECOND_US));
        assert!(debts.take(TenantId(2), 1, 10, SECOND_US));
        for tenant in 3..100_000 {
            assert!(debts.take(TenantId(tenant), 1, 10, SECOND_US));
            assert!(debts.0.len() <= TENANTS_MAX);
        }
    }
}
