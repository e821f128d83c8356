//! Which tenants are Losant's applications, and what all their connections and requests share.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use moorline_core::{TenantId, Text, op::Denial};
use moorline_dialects::losant::{
    PACKET_BYTES_MAX, PAYLOAD_BYTES_MAX,
    id::Id,
    limits::{CONNECTIONS, REQUESTS, Shared, Windows},
};
use moorline_edge::{Clock, EdgeConfig, Made, Settings};
use moorline_machine::registry::TenantRecord;
use moorline_mqtt::server;
use moorline_service::{
    Service,
    registry::{Registry, secrets::Secrets},
};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::metrics::LosantMetrics;

/// What an application's tenant is called, before its id.
const ALIAS: &str = "losant:";
/// Applications whose connections are counted at once.
const APPLICATIONS_COUNTED_MAX: usize = 4_096;
/// Devices, topics and callers whose requests are counted at once, of all applications: some hundred bytes each.
const REQUESTED_COUNTED_MAX: usize = 65_536;
/// Lists of an application that are made at once, each of which looks through all of its devices.
const SCANS_MAX: usize = 4;
/// Commands to many of an application that are given at once, each of which holds all whom it is for.
const TOLD_MAX: usize = 4;
/// Questions about data of an application that are answered at once, each of which holds what it has read.
const QUESTIONS_MAX: usize = 4;
/// Long looks into histories of an application at once.
const LOOKS_MAX: usize = 4;
/// How long a node that stops waits for what connections have said.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// Streams that all devices of an application may have open: the others are for who integrates them.
const STREAMS_OF_DEVICES_MAX: usize = 16;
/// Streams that one device may have open, of those that its application may.
const STREAMS_PER_DEVICE_MAX: usize = 4;

/// Where devices are let in. Clones are the same.
#[derive(Clone)]
pub struct Door {
    pub(crate) service: Arc<Service>,
    pub(crate) registry: Registry,
    pub(crate) secrets: Secrets,
    pub(crate) clock: Clock,
    pub(crate) rules: Made<server::Config>,
    pub(crate) metrics: LosantMetrics,
    /// Tasks of connections; each ends with its connection, or with what it writes.
    pub(crate) tasks: TaskTracker,
    counted: Arc<Counted>,
}

/// What comes at this node, by whom. When it is now is an argument.
struct Counted {
    connections: Mutex<Windows<TenantId>>,
    /// By hashes with a key of this process's own: names may be long, and nobody can make two meet.
    requests: Mutex<Shared<TenantId, u64>>,
    hasher: RandomState,
    work: Places<(TenantId, Work)>,
    streams: Places<(TenantId, Text)>,
    streams_of_devices: Places<TenantId>,
}

/// What of an application takes room or time, so that so many of it are at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// Looks through all devices.
    Scan,
    /// Tells many of them something.
    Tell,
    /// Reads what several of them reported.
    Question,
    /// Looks for something far back in a history.
    Look,
}

impl Work {
    fn most(self) -> usize {
        match self {
            Self::Scan => SCANS_MAX,
            Self::Tell => TOLD_MAX,
            Self::Question => QUESTIONS_MAX,
            Self::Look => LOOKS_MAX,
        }
    }
}

/// A place for some work of an application.
pub(crate) type Working = Place<(TenantId, Work)>;
/// Places of a stream: among those of its device, and among those of all devices of its application.
pub(crate) type Streaming = (Place<(TenantId, Text)>, Place<TenantId>);

/// How many there are at once of something, by whose they are.
#[derive(Debug)]
struct Places<K>(Arc<Mutex<HashMap<K, usize>>>);

/// A place; it is free again when this goes.
#[derive(Debug)]
pub(crate) struct Place<K: Eq + Hash> {
    all: Arc<Mutex<HashMap<K, usize>>>,
    key: K,
}

fn locked<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is whole.
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Clone + Eq + Hash> Places<K> {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn take(&self, key: K, most: usize) -> Option<Place<K>> {
        let mut all = locked(&self.0);
        let taken = all.get(&key).copied().unwrap_or(0);
        if taken >= most {
            return None;
        }
        all.insert(key.clone(), taken + 1);
        Some(Place { all: Arc::clone(&self.0), key })
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut all = locked(&self.all);
        if let Some(taken) = all.get_mut(&self.key) {
            *taken -= 1;
            if *taken == 0 {
                all.remove(&self.key);
            }
        }
    }
}

impl Counted {
    fn new() -> Self {
        Self {
            connections: Mutex::new(Windows::new(APPLICATIONS_COUNTED_MAX)),
            requests: Mutex::new(Shared::new(REQUESTED_COUNTED_MAX)),
            hasher: RandomState::new(),
            work: Places::new(),
            streams: Places::new(),
            streams_of_devices: Places::new(),
        }
    }

    fn connection(&self, tenant: TenantId, now_ms: u64) -> bool {
        locked(&self.connections).take(tenant, CONNECTIONS, now_ms)
    }

    fn stream(&self, tenant: TenantId, device: &Text) -> Option<Streaming> {
        let own = self.streams.take((tenant, device.clone()), STREAMS_PER_DEVICE_MAX)?;
        Some((own, self.streams_of_devices.take(tenant, STREAMS_OF_DEVICES_MAX)?))
    }

    fn request(&self, (tenant, whose, what): (TenantId, &Text, &str), now_ms: u64) -> bool {
        let key = self.hasher.hash_one((whose.as_str(), what));
        locked(&self.requests).take(tenant, key, REQUESTS, now_ms)
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl Door {
    /// A door to a service and its registry.
    #[must_use]
    pub fn new(
        service: Arc<Service>,
        secrets: Secrets,
        clock: Clock,
        settings: Settings,
        metrics: LosantMetrics,
    ) -> Self {
        Self {
            registry: service.registry(),
            service,
            secrets,
            clock,
            rules: Made::of(settings, rules),
            metrics,
            tasks: TaskTracker::new(),
            counted: Arc::new(Counted::new()),
        }
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        i64::try_from(self.clock.wall().0).unwrap_or(i64::MAX)
    }

    /// Whether there is any application.
    pub(crate) fn has_applications(&self) -> bool {
        self.registry.any_tenant(|of| of.enabled && application(of).is_some())
    }

    /// The id of a tenant's application, by all that is known here.
    pub(crate) fn application(&self, tenant: TenantId) -> Option<Text> {
        self.registry.tenant(tenant).filter(|of| of.enabled).as_ref().and_then(application)
    }

    /// The tenant of an application.
    pub(crate) async fn tenant(&self, application: &Id) -> Result<TenantId, Denial> {
        let (tenant, _) = self.registry.tenant_meant(&format!("{ALIAS}{application}")).await?;
        Ok(tenant)
    }

    /// Whether one more connection of an application may come.
    pub(crate) fn may_come(&self, tenant: TenantId) -> bool {
        self.counted.connection(tenant, self.clock.wall().0)
    }

    /// Whether one more request of a kind may be done for a device, a topic or a caller.
    pub(crate) fn may_ask(&self, tenant: TenantId, whose: &Text, what: &'static str) -> bool {
        self.counted.request((tenant, whose, what), self.clock.wall().0)
    }

    /// A place for some work of an application, if there is one.
    pub(crate) fn may_work(&self, tenant: TenantId, what: Work) -> Option<Working> {
        self.counted.work.take((tenant, what), what.most())
    }

    /// Waits until what connections have said is written: that they are over, bans, and reports. Their listeners have ended; no other
    /// connection comes.
    pub async fn stop(&self) {
        self.tasks.close();
        if timeout(STOP_WAIT, self.tasks.wait()).await.is_err() {
            warn!(tasks = self.tasks.len(), "connections of Losant's did not end in time");
        }
    }

    /// Places among the streams that a device has open, and all of its application have, if there are any.
    pub(crate) fn may_stream(&self, tenant: TenantId, device: &Text) -> Option<Streaming> {
        self.counted.stream(tenant, device)
    }
}

fn application(of: &TenantRecord) -> Option<Text> {
    let id = of.aliases.iter().find_map(|alias| alias.as_str().strip_prefix(ALIAS));
    id.map(Text::from)
}

/// MQTT as it is there: payloads of 256 KiB, unless the node's operator wants less, and no session that lasts.
fn rules(edge: &EdgeConfig) -> server::Config {
    let config = edge.protocol();
    // What an edge takes by itself is a packet of that size, topic and all.
    let takes = config.packet_bytes_max >= PAYLOAD_BYTES_MAX;
    let packet_bytes_max = if takes { PACKET_BYTES_MAX } else { config.packet_bytes_max };
    server::Config { packet_bytes_max, session_expiry_max_s: 0, ..config }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections and requests that are taken, of so many at each of these moments.
    fn taken(mut take: impl FnMut(u64) -> bool, at: &[(u64, usize)]) -> Vec<usize> {
        let one = |(at_ms, many): &(u64, usize)| (0..*many).filter(|_| take(*at_ms)).count();
        at.iter().map(one).collect()
    }

    #[test]
    fn connections_of_an_application_and_requests_of_a_device_are_counted_apart() {
        let counted = Counted::new();
        let (one, other) = (TenantId(1), TenantId(2));
        let times = [(0, 299), (7_500, 2), (14_999, 1), (15_000, 299), (15_000, 1), (22_500, 9)];
        let came = taken(|at| counted.connection(one, at), &times);
        assert_eq!(came, [299, 1, 0, 299, 0, 1], "300 within any 15 s");
        assert_eq!(taken(|at| counted.connection(other, at), &[(15_000, 301)]), [300]);
        let request = |tenant, device: &str, what| {
            let device = Text::from(device);
            taken(
                |at| counted.request((tenant, &device, what), at),
                &[(0, 31), (14_999, 1), (15_000, 31)],
            )
        };
        #[rustfmt::skip]
        let table = [
            (one, "a", "state"), (one, "a", "command"), (one, "a", "status"), (one, "b", "state"), (other, "a", "state"),
        ];
        for (tenant, device, what) in table {
            assert_eq!(request(tenant, device, what), [30, 0, 30], "{device} {what}");
        }
    }

    #[test]
    fn places_are_free_again_when_they_are_left() {
        let places = Places::new();
        let (one, _two) = (places.take("a", 2).unwrap(), places.take("a", 2).unwrap());
        assert!(places.take("a", 2).is_none());
        let other = places.take("b", 2);
        assert!(other.is_some(), "of others");
        drop(other);
        drop(one);
        assert!(places.take("a", 2).is_some());
        assert_eq!(locked(&places.0).len(), 1, "who has none is forgotten");
    }

    #[test]
    fn devices_leave_streams_to_who_integrates_them() {
        let counted = Counted::new();
        let open = |tenant, at: usize| counted.stream(tenant, &Text::from(format!("d{at}")));
        let four: Vec<_> = (0..5).filter_map(|_| open(TenantId(1), 0)).collect();
        assert_eq!(four.len(), STREAMS_PER_DEVICE_MAX);
        let others: Vec<_> = (1..99).filter_map(|at| open(TenantId(1), at)).collect();
        assert_eq!(others.len(), STREAMS_OF_DEVICES_MAX - STREAMS_PER_DEVICE_MAX);
        assert!(open(TenantId(2), 0).is_some(), "another application's");
        drop(four);
        assert!(open(TenantId(1), 0).is_some());
    }

    #[test]
    fn an_operator_who_wants_less_has_less() {
        let of = |bytes| rules(&EdgeConfig { packet_bytes_max: bytes, ..EdgeConfig::default() });
        for (bytes, expected) in
            [(262_144, PACKET_BYTES_MAX), (480 * 1024, PACKET_BYTES_MAX), (65_536, 65_536)]
        {
            assert_eq!(of(bytes).packet_bytes_max, expected);
        }
        assert_eq!(of(262_144).session_expiry_max_s, 0);
    }
}
