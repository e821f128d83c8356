//! How much a tenant's devices and applications may say at this node in a second: publishes, their bytes, events, mails.
//!
//! A tenant is a number for each: when it will have paid for all it said. Whoever owes a second is refused until it has paid
//! some of it back, so a burst of a second passes.
//!
//! # Invariants
//!
//! - **Bounded**: [`TENANTS_MAX`] tenants are remembered. When there are more, all are forgotten: somebody gets a second's
//!   worth too much.
//! - **What a tenant may is looked up once a second**, not for each message.
//!
//! Checked by the tests below and by the cluster tests (`quotas.rs`).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use moorline_core::TenantId;
use prometheus::{IntCounter, IntCounterVec};

use crate::registry::settings::QuotaSettings;

/// Tenants that are remembered at once: about 100 bytes each.
const TENANTS_MAX: usize = 16_384;
/// How long it is remembered what a tenant may.
const KNOWN_FOR: Duration = Duration::from_secs(1);
const SECOND_US: u64 = 1_000_000;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rated {
    /// Publishes by MQTT.
    Publishes,
    /// Bytes of their topics and payloads.
    PublishBytes,
    /// Events, of whichever protocol, and writes of attributes and telemetry.
    Events,
    /// Mails that are sent, and calls that are made.
    Mails,
}

impl Rated {
    pub(crate) const ALL: [Self; 4] =
        [Self::Publishes, Self::PublishBytes, Self::Events, Self::Mails];

    /// The setting's name, for the metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Publishes => "publishes-s",
            Self::PublishBytes => "publish-bytes-s",
            Self::Events => "events-s",
            Self::Mails => "mails-s",
        }
    }

    fn of(self, quotas: &QuotaSettings) -> u64 {
        match self {
            Self::Publishes => u64::from(quotas.publishes_s),
            Self::PublishBytes => quotas.publish_bytes_s,
            Self::Events => u64::from(quotas.events_s),
            Self::Mails => u64::from(quotas.mails_s),
        }
    }
}

/// The rates of all tenants at this node.
#[derive(Debug)]
pub(crate) struct Rates {
    began: Instant,
    tenants: Mutex<HashMap<TenantId, Tenant>>,
    refused: [IntCounter; Rated::ALL.len()],
}

#[derive(Debug)]
struct Tenant {
    quotas: QuotaSettings,
    known_at: Instant,
    /// When it will have paid for each, in microseconds.
    paid_at_us: [u64; Rated::ALL.len()],
}

impl Rates {
    pub(crate) fn new(refused: &IntCounterVec) -> Self {
        let refused = Rated::ALL.map(|rated| refused.with_label_values(&[rated.label()]));
        Self { began: Instant::now(), tenants: Mutex::default(), refused }
    }

    /// Whether a tenant may say this now: all of it or nothing. What it may not is counted.
    pub(crate) fn take(
        &self,
        tenant: TenantId,
        what: &[(Rated, u64)],
        quotas: impl FnOnce() -> QuotaSettings,
    ) -> bool {
        let now = Instant::now();
        let now_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if tenants.len() >= TENANTS_MAX && !tenants.contains_key(&tenant) {
            tenants.clear();
        }
        let known = tenants.get(&tenant).is_some_and(|known| known.known_at + KNOWN_FOR > now);
        let entry = tenants.entry(tenant).or_insert_with(|| Tenant {
            quotas: QuotaSettings::default(),
            known_at: now,
            paid_at_us: [0; Rated::ALL.len()],
        });
        if !known {
            (entry.quotas, entry.known_at) = (quotas(), now);
        }
        let refused = entry.take(what, now_us);
        drop(tenants);
        if let Some(rated) = refused {
            self.refused[rated as usize].inc();
        }
        refused.is_none()
    }
}

impl Tenant {
    /// Takes all of it, or says which rate is used up.
    fn take(&mut self, what: &[(Rated, u64)], now_us: u64) -> Option<Rated> {
        for (rated, _) in what {
            let owed_us = self.paid_at_us[*rated as usize].saturating_sub(now_us);
            if rated.of(&self.quotas) > 0 && owed_us >= SECOND_US {
                return Some(*rated);
            }
        }
        for (rated, amount) in what {
            let paid_at_us = &mut self.paid_at_us[*rated as usize];
            let per_s = rated.of(&self.quotas);
            if let Some(cost_us) = amount.saturating_mul(SECOND_US).checked_div(per_s) {
                *paid_at_us = (*paid_at_us).max(now_us).saturating_add(cost_us);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(publishes_s: u32, publish_bytes_s: u64) -> Tenant {
        let quotas = QuotaSettings { publishes_s, publish_bytes_s, ..QuotaSettings::default() };
        Tenant { quotas, known_at: Instant::now(), paid_at_us: [0; Rated::ALL.len()] }
    }

    fn said(tenant: &mut Tenant, bytes: u64, ms: u64) -> bool {
        let what = [(Rated::Publishes, 1), (Rated::PublishBytes, bytes)];
        tenant.take(&what, ms * 1_000).is_none()
    }

    #[test]
    fn in_the_long_run_a_tenant_has_its_rate_and_a_second_at_once() {
        let mut tenant = tenant(100, 0);
        let many = (0..60_000).filter(|ms| said(&mut tenant, 10, *ms)).count();
        assert!((6_000..=6_101).contains(&many), "{many}");
        let burst = (0..1_000).filter(|_| said(&mut tenant, 10, 90_000)).count();
        assert_eq!(burst, 100);
    }

    #[test]
    fn bytes_count_beside_publishes_and_none_means_no_limit() {
        let mut small = tenant(0, 1_000);
        assert!(said(&mut small, 5_000, 0), "what is larger than a second's worth passes once");
        assert!(!said(&mut small, 1, 3_000) && said(&mut small, 1, 4_001));
        let mut free = tenant(0, 0);
        assert!((0..100_000).all(|_| said(&mut free, u64::MAX, 0)));
    }

    #[test]
    fn tenants_do_not_pay_for_each_other_and_all_have_room() {
        let opts = prometheus::Opts::new("refused", "how often");
        let refused = IntCounterVec::new(opts, &["quota"]).unwrap();
        let rates = Rates::new(&refused);
        let one = || QuotaSettings { events_s: 1, ..QuotaSettings::default() };
        let take = |tenant| rates.take(TenantId(tenant), &[(Rated::Events, 1)], one);
        // Of the first a moment is paid by the second.
        let passed = (0..5).filter(|_| take(1)).count();
        assert!((1..=2).contains(&passed) && take(2), "{passed}");
        assert_eq!(refused.with_label_values(&["events-s"]).get(), 5 - passed as u64);
        (0..40_000).for_each(|tenant| _ = take(tenant));
        assert!(rates.tenants.lock().unwrap().len() <= TENANTS_MAX);
    }
}
