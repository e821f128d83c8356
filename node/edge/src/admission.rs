//! Who may come in now: strangers per address, what the node spends on newcomers ([`budget`](crate::budget)), and how often a
//! client and a tenant connect.
//!
//! All of it is this node's alone: a client that goes from node to node has a bucket on each. A storm meets every node's
//! limit, and no replica has to be asked.
//!
//! # Invariants
//!
//! - **Bounded**: an address is remembered while it has a stranger, clients and tenants as `bucket` says.
//! - **A client is counted once it is known to be itself**, so that nobody uses up another's connects by knowing its id.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use moorline_core::TenantId;
use moorline_mqtt::Millis;

use crate::{
    bucket::{Buckets, Rate, Turn},
    budget::{Budget, Line, Pass},
    clock::Clock,
    limit::EdgeLimit,
    metrics::EdgeMetrics,
    settings::Settings,
};

/// How long a client that connects too often waits for its turn before it is refused: long enough for one that came back
/// twice in a row, too short for a storm to pile up.
pub(crate) const CONNECT_WAIT_MS_MAX: u64 = 2_000;
/// When who was refused for the node's sake is to come again, where that can be said.
const RETRY_AFTER_S: RangeInclusive<u32> = 1..=10;
/// Client ids remembered in each generation: 16 bytes each, and more than come in one at the rate of a tenant.
const CLIENTS_MAX: usize = 65_536;
/// Tenants remembered in each generation.
const TENANTS_MAX: usize = 16_384;

/// Where a stranger comes from: who has one address of an IPv6 network has 2^64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    V4(u32),
    /// The first 64 bits.
    V6(u64),
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => {
                Self::V6(u64::try_from(address.to_bits() >> 64).expect("64 bits"))
            }
        }
    }
}

/// The counts of one edge.
#[derive(Debug)]
pub(crate) struct Admission {
    settings: Settings,
    strangers: Mutex<HashMap<Source, u32>>,
    /// By a hash with a key of this process's own, so that nobody can make two ids meet.
    clients: Mutex<Buckets<u64>>,
    tenants: Mutex<Buckets<TenantId>>,
    hasher: RandomState,
    pub(crate) budget: Budget,
}

/// A connection that has not said who it is, or was not believed yet. Dropped once it was.
#[derive(Debug)]
pub struct Stranger {
    admission: Arc<Admission>,
    source: Source,
}

/// Where those who are to be judged wait, whatever they speak. Clones are the same.
#[derive(Debug, Clone)]
pub struct Judgement(Arc<Line>);

/// The node judges as many as it may. What was asked cost nothing, and may be asked again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeBusy {
    /// When to ask again, in seconds: by chance, so that not all come again at once.
    pub retry_after_s: u32,
}

impl Judgement {
    /// Waits for a turn, in order of arrival and for no longer than `admission-wait-ms`. To be kept while somebody is judged,
    /// if that is soon done.
    ///
    /// # Errors
    ///
    /// [`NodeBusy`]; it is counted already.
    pub async fn pass(&self) -> Result<Pass, NodeBusy> {
        self.0.enter().await.map_err(|_limit| {
            let retry_after_s = rand::random_range(RETRY_AFTER_S);
            NodeBusy { retry_after_s }
        })
    }
}

impl Stranger {
    /// Where it waits before anybody finds out who it is.
    #[must_use]
    pub fn judgement(&self) -> Judgement {
        Judgement(Arc::clone(&self.admission.budget.authentications))
    }
}

/// An address has as many strangers as it may.
#[derive(Debug)]
pub(crate) struct TooMany;

impl Admission {
    pub(crate) fn new(settings: Settings, clock: Clock, metrics: &Arc<EdgeMetrics>) -> Self {
        let (client, tenant) = rates(&settings);
        let budget = Budget::new(&settings.now().config, clock, metrics);
        Self {
            settings,
            strangers: Mutex::default(),
            clients: Mutex::new(Buckets::new(client, CLIENTS_MAX)),
            tenants: Mutex::new(Buckets::new(tenant, TENANTS_MAX)),
            hasher: RandomState::new(),
            budget,
        }
    }

    /// Takes note of a connection that was accepted.
    pub(crate) fn stranger(self: &Arc<Self>, from: IpAddr) -> Result<Stranger, TooMany> {
        let source = Source::of(from);
        let most = self.settings.now().config.unauthenticated_per_address_max;
        let mut strangers = lock(&self.strangers);
        let count = strangers.entry(source).or_default();
        if most > 0 && *count >= most {
            return Err(TooMany);
        }
        *count += 1;
        Ok(Stranger { admission: Arc::clone(self), source })
    }

    /// When a client may open its session, and which limit keeps it if it may not now: the later of its own turn and its
    /// tenant's. Who is refused by one limit takes nothing of the other. A client without an id of its own counts for its
    /// tenant alone.
    pub(crate) fn turn(
        &self,
        tenant: TenantId,
        client: Option<&str>,
        now: Millis,
    ) -> (Turn, EdgeLimit) {
        let (client_rate, tenant_rate) = rates(&self.settings);
        let turn_of_tenant = || {
            let mut tenants = lock(&self.tenants);
            tenants.set_rate(tenant_rate);
            tenants.take(tenant, now)
        };
        let Some(client) = client else {
            return (turn_of_tenant(), EdgeLimit::ConnectsPerTenant);
        };
        let key = self.hasher.hash_one((tenant, client));
        // Held until the tenant has answered, so that what was seen is what is taken.
        let mut clients = lock(&self.clients);
        clients.set_rate(client_rate);
        let of_client = clients.peek(&key, now);
        if of_client == Turn::Refused {
            return (Turn::Refused, EdgeLimit::ConnectsPerClient);
        }
        let of_tenant = turn_of_tenant();
        if of_tenant != Turn::Refused {
            clients.take(key, now);
        }
        if of_client > of_tenant {
            (of_client, EdgeLimit::ConnectsPerClient)
        } else {
            (of_tenant, EdgeLimit::ConnectsPerTenant)
        }
    }
}

/// How often a client and a tenant may connect now.
fn rates(settings: &Settings) -> (Rate, Rate) {
    let current = settings.now();
    let per_s = current.config.connects_per_tenant_s;
    let tenant = Rate { per_s, burst: per_s, wait_ms_max: CONNECT_WAIT_MS_MAX };
    (current.config.client_rate(), tenant)
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut strangers = lock(&self.admission.strangers);
        if let Some(count) = strangers.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                strangers.remove(&self.source);
            }
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is complete before anything can panic.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use crate::config::EdgeConfig;

    use super::*;

    fn admission(change: impl FnOnce(&mut EdgeConfig)) -> Arc<Admission> {
        let mut config = EdgeConfig::default();
        change(&mut config);
        let metrics = Arc::new(EdgeMetrics::register(&Registry::new()).unwrap());
        Arc::new(Admission::new(config.into(), Clock::start(), &metrics))
    }

    #[test]
    fn strangers_are_counted_by_address_and_by_network_and_forgotten() {
        let admission = admission(|config| config.unauthenticated_per_address_max = 2);
        let from = |address: &str| admission.stranger(address.parse().unwrap());
        let one = from("10.0.0.1").unwrap();
        let _two = from("::ffff:10.0.0.1").unwrap();
        assert!(from("10.0.0.1").is_err(), "a mapped address is the same one");
        let _others = [from("10.0.0.2").unwrap(), from("2001:db8::1").unwrap()];
        let same_net = from("2001:db8::ffff:0:0:1").unwrap();
        assert!(from("2001:db8::2").is_err(), "one network is one source");
        assert!(from("2001:db8:0:1::2").is_ok());
        drop(one);
        assert!(from("10.0.0.1").is_ok());
        drop(same_net);
        assert_eq!(lock(&admission.strangers).len(), 3, "who has nobody is forgotten");
    }

    #[test]
    fn other_settings_count_for_who_comes_next() {
        let config = EdgeConfig {
            unauthenticated_per_address_max: 1,
            connects_per_client_s: 1,
            connects_per_client_burst: 1,
            connects_per_tenant_s: 0,
            ..EdgeConfig::default()
        };
        let settings = Settings::from(config.clone());
        let metrics = Arc::new(EdgeMetrics::register(&Registry::new()).unwrap());
        let admission = Arc::new(Admission::new(settings.clone(), Clock::start(), &metrics));
        let stranger = || admission.stranger("10.0.0.1".parse().unwrap());
        let turn = || admission.turn(TenantId(1), Some("a"), Millis(0)).0;
        let _one = stranger().unwrap();
        assert!(stranger().is_err());
        assert_eq!([turn(), turn()], [Turn::Now, Turn::After(1_000)]);
        settings.change(EdgeConfig {
            unauthenticated_per_address_max: 2,
            connects_per_client_s: 0,
            connects_per_tenant_s: 1,
            ..config
        });
        let _two = stranger().unwrap();
        assert!(stranger().is_err());
        assert_eq!([turn(), turn()], [Turn::Now, Turn::After(1_000)], "the tenant's turn now");
    }

    #[test]
    fn a_client_waits_for_its_own_turn_and_then_for_its_tenants() {
        let admission = admission(|config| {
            (config.connects_per_client_s, config.connects_per_client_burst) = (1, 2);
            config.connects_per_tenant_s = 3;
        });
        let turn = |tenant, client| admission.turn(TenantId(tenant), client, Millis(9));
        assert_eq!(turn(1, Some("a")).0, Turn::Now);
        assert_eq!(turn(1, Some("a")).0, Turn::Now);
        assert_eq!(turn(1, Some("a")), (Turn::After(1_000), EdgeLimit::ConnectsPerClient));
        assert_eq!(turn(2, Some("a")).0, Turn::Now, "tenants never meet");
        // The place behind the client's own turn was the tenant's third.
        assert_eq!(turn(1, None), (Turn::After(334), EdgeLimit::ConnectsPerTenant));
    }

    #[test]
    fn who_is_refused_by_one_limit_takes_nothing_of_the_other() {
        let admission = admission(|config| {
            (config.connects_per_client_s, config.connects_per_client_burst) = (1, 1);
            config.connects_per_tenant_s = 1;
        });
        let turn = |client, at| admission.turn(TenantId(1), Some(client), Millis(at));
        let after = |ms| (Turn::After(ms), EdgeLimit::ConnectsPerTenant);
        assert_eq!(turn("a", 0), (Turn::Now, EdgeLimit::ConnectsPerTenant));
        assert_eq!(turn("b", 0), after(1_000));
        assert_eq!(turn("c", 0), after(2_000));
        assert_eq!(turn("d", 0), (Turn::Refused, EdgeLimit::ConnectsPerTenant));
        assert_eq!(turn("d", 1_000), after(2_000), "its own first token is still there");

        let admission = self::admission(|config| {
            (config.connects_per_client_s, config.connects_per_client_burst) = (1, 1);
            config.connects_per_tenant_s = 4;
        });
        let turn = |client| admission.turn(TenantId(1), Some(client), Millis(0)).0;
        let storm: Vec<Turn> = (0..5).map(|_| turn("a")).collect();
        assert_eq!(storm[..3], [Turn::Now, Turn::After(1_000), Turn::After(2_000)]);
        assert_eq!(storm[3..], [Turn::Refused; 2]);
        assert_eq!(turn("b"), Turn::Now, "three of the tenant's four were taken");
    }

    #[test]
    fn a_storm_of_clients_that_retry_gets_no_more_than_the_tenants_rate() {
        let admission = admission(|_| {});
        let rate = u64::from(EdgeConfig::default().connects_per_tenant_s);
        let names: Vec<String> = (0..20_000).map(|client| format!("c{client}")).collect();
        let seconds = 10;
        let mut admitted = 0;
        for at_ms in (0..seconds * 1_000).step_by(500) {
            for name in &names {
                let turn = admission.turn(TenantId(1), Some(name), Millis(at_ms)).0;
                admitted += u64::from(turn != Turn::Refused);
            }
        }
        let most = rate * (1 + seconds + CONNECT_WAIT_MS_MAX / 1_000);
        assert!(admitted <= most, "{admitted} of {most}");
        assert!(admitted >= rate * seconds, "{admitted}: refused ones take nothing");
    }
}
