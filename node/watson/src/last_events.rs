//! The last event of each name of each device, for organisations that want that: written beside what is published, and behind it.
//!
//! ```text
//!   event ─► note: does its organisation want it? ─► waiting, the newest of each name ─► a task writes some at once ─► documents
//! ```
//!
//! # Invariants
//!
//! - **Nothing waits for it**: an event is published as if there were no cache. What there is no room for is dropped and counted.
//! - **Bounded**: [`WAITING_MAX`] names and [`WAITING_BYTES_MAX`] bytes wait; a device has [`NAMES_MAX`] names.
//! - **Of one node's events of a name the last one stays.** Of two nodes' the one that was written last.
//!
//! Checked by the cluster tests (`watson_rest.rs`).

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use moorline_core::{TenantId, Text, UnixMillis};
use moorline_dialects::watson::{
    management::kept,
    rest::{
        kept::KeptEvent,
        request::{CACHE_DAYS_MAX, CacheSettings},
    },
    topics::Message as Said,
};
use moorline_machine::{
    documents::{DOCUMENT_BYTES_MAX, Expect, Space},
    registry::DeviceRecord,
};
use moorline_service::registry::{RegistryError, documents::is_conflict};
use tracing::debug;

use crate::door::{Door, device_name};

/// A device's space for them.
const SPACE: &str = "watson/lec";
/// An organisation's space for its settings, and which of them these are.
pub(crate) const CONFIG: &str = "watson/config";
const CACHE: &str = "lec";
/// Names of a device (§1.10 of the vendor's wire).
pub(crate) const NAMES_MAX: u16 = 5;
/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// Events that wait to be written.
const WAITING_MAX: usize = 4_096;
/// Bytes of them.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How many are written at once.
const WRITES_AT_ONCE: usize = 16;
/// How long it counts what an organisation's settings said.
const SETTINGS_FOR: Duration = Duration::from_secs(5);
/// Organisations of which that is known; when there are more, all are asked anew.
const KNOWN_MAX: usize = 4_096;

type Whose = (TenantId, Text, Text);

#[derive(Debug, Default)]
struct State {
    wanted: HashMap<TenantId, (CacheSettings, Instant)>,
    waiting: HashMap<Whose, KeptEvent>,
    line: VecDeque<Whose>,
    bytes: usize,
    works: bool,
}

/// What waits. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastEvents(Arc<Mutex<State>>);

impl State {
    fn wants(&self, tenant: TenantId) -> Option<CacheSettings> {
        let known = self.wanted.get(&tenant);
        known.filter(|(_, at)| at.elapsed() < SETTINGS_FOR).map(|(wanted, _)| *wanted)
    }

    /// Puts an event in line, in the place of an earlier one; `false` if there is no room.
    fn put(&mut self, whose: Whose, event: KeptEvent) -> bool {
        let (new, before) = (event.payload.len(), self.waiting.get(&whose));
        let old = before.map_or(0, |event| event.payload.len());
        let is_new = before.is_none();
        if is_new && self.waiting.len() >= WAITING_MAX || self.bytes - old + new > WAITING_BYTES_MAX
        {
            return false;
        }
        self.bytes = self.bytes - old + new;
        if is_new {
            self.line.push_back(whose.clone());
        }
        self.waiting.insert(whose, event);
        true
    }

    /// Takes some out of the line: one of each device, so that its names are counted one after the other.
    fn take(&mut self, most: usize) -> Vec<(Whose, KeptEvent)> {
        let (mut taken, mut later) = (Vec::new(), VecDeque::new());
        let mut devices = HashSet::new();
        while taken.len() < most {
            let Some(whose) = self.line.pop_front() else { break };
            if !devices.insert((whose.0, whose.1.clone())) {
                later.push_back(whose);
            } else if let Some(event) = self.waiting.remove(&whose) {
                self.bytes -= event.payload.len();
                taken.push((whose, event));
            }
        }
        later.append(&mut self.line);
        self.line = later;
        taken
    }
}

fn space(tenant: TenantId, device: &Text, record: &DeviceRecord) -> Space {
    Space::of_device(tenant, device, record.born, SPACE)
}

/// Settings of an organisation that has said nothing.
fn unsaid() -> CacheSettings {
    CacheSettings { enabled: false, ttl_days: CACHE_DAYS_MAX }
}

impl LastEvents {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Door {
    /// An event of an organisation was published, or will be in a moment.
    pub(crate) fn note_event(&self, tenant: TenantId, said: &Said, payload: &Bytes) {
        let Said::Event { device, event, format } = said else { return };
        let mut state = self.last_events.state();
        if state.wants(tenant).is_some_and(|wanted| !wanted.enabled) {
            return;
        }
        let whose = (tenant, device_name(device), event.clone());
        let (format, at, payload) = (format.clone(), self.clock.wall(), payload.clone());
        if !state.put(whose, KeptEvent { format, at, payload }) {
            drop(state);
            return self.drop_event();
        }
        if !state.works {
            state.works = true;
            let door = self.clone();
            self.tasks.spawn(async move { door.write_events().await });
        }
    }

    fn drop_event(&self) {
        self.metrics.dropped.with_label_values(&["last_event"]).inc();
    }

    /// Writes what waits, until nothing does.
    async fn write_events(&self) {
        loop {
            let some = {
                let mut state = self.last_events.state();
                let some = state.take(WRITES_AT_ONCE);
                state.works = !some.is_empty();
                some
            };
            if some.is_empty() {
                return;
            }
            stream::iter(some)
                .for_each_concurrent(WRITES_AT_ONCE, |((tenant, device, event), kept)| async move {
                    match Box::pin(self.write_event(tenant, &device, &event, kept)).await {
                        Ok(true) => {}
                        Ok(false) => self.drop_event(),
                        Err(why) => {
                            debug!(%device, %why, "a last event was not written");
                            self.drop_event();
                        }
                    }
                })
                .await;
        }
    }

    /// `false` if there is no room for it.
    async fn write_event(
        &self,
        tenant: TenantId,
        device: &Text,
        event: &Text,
        kept: KeptEvent,
    ) -> Result<bool, RegistryError> {
        let known = self.last_events.state().wants(tenant);
        let settings = match known {
            Some(settings) => settings,
            None => self.cache_settings(tenant).await?,
        };
        if !settings.enabled {
            return Ok(true);
        }
        let body = kept.written();
        if body.len() > DOCUMENT_BYTES_MAX {
            return Ok(false);
        }
        let Some(record) = self.registry.device(tenant, device).await? else { return Ok(true) };
        let space = space(tenant, device, &record);
        let is_new = self.registry.document(&space, event).await?.is_none();
        if is_new && !self.has_room(&space, self.shown_since(settings)).await? {
            return Ok(false);
        }
        self.registry.put_document(&space, event, body, Expect::Any).await?;
        Ok(true)
    }

    /// Whether a device may have one more name. One that nobody is shown any more makes way.
    async fn has_room(&self, space: &Space, since: UnixMillis) -> Result<bool, RegistryError> {
        let some = self.registry.documents(space, None, NAMES_MAX).await?;
        if some.documents.len() < usize::from(NAMES_MAX) && !some.more {
            return Ok(true);
        }
        let is_old = |body| KeptEvent::read(body).is_ok_and(|event| event.at <= since);
        let Some(old) = some.documents.iter().find(|found| is_old(&found.body)) else {
            return Ok(false);
        };
        // If it came again meanwhile, it stays.
        let deleted =
            self.registry.delete_document(space, &old.id, Expect::Version(old.version)).await;
        match deleted {
            Err(error) if is_conflict(&error) => Ok(false),
            deleted => deleted,
        }
    }

    /// Behind which moment events are shown.
    pub(crate) fn shown_since(&self, settings: CacheSettings) -> UnixMillis {
        let kept_ms = u64::from(settings.ttl_days) * DAY_MS;
        UnixMillis(self.clock.wall().0.saturating_sub(kept_ms))
    }

    // ---- settings

    /// What an organisation says of its cache.
    pub(crate) async fn cache_settings(
        &self,
        tenant: TenantId,
    ) -> Result<CacheSettings, RegistryError> {
        let space = Space::of_tenant(tenant, CONFIG);
        let found = self.registry.document(&space, &Text::from(CACHE)).await?;
        // What a later node wrote is not understood: nothing is cached here then.
        let read = found.and_then(|found| kept::read(&found.body).ok());
        let settings: CacheSettings = read.unwrap_or_else(unsaid);
        let mut state = self.last_events.state();
        if state.wanted.len() >= KNOWN_MAX {
            state.wanted.clear();
        }
        state.wanted.insert(tenant, (settings, Instant::now()));
        drop(state);
        Ok(settings)
    }

    /// Has an organisation's cache be so, here at once and on other nodes within [`SETTINGS_FOR`].
    pub(crate) async fn set_cache(
        &self,
        tenant: TenantId,
        settings: CacheSettings,
    ) -> Result<(), RegistryError> {
        let (space, body) = (Space::of_tenant(tenant, CONFIG), kept::write(&settings));
        self.registry.put_document(&space, &Text::from(CACHE), body, Expect::Any).await?;
        self.last_events.state().wanted.insert(tenant, (settings, Instant::now()));
        Ok(())
    }

    // ---- reading

    /// A device's last event of a name.
    pub(crate) async fn last_event(
        &self,
        tenant: TenantId,
        (device, record): (&Text, &DeviceRecord),
        event: &Text,
    ) -> Result<Option<KeptEvent>, RegistryError> {
        let found = self.registry.document(&space(tenant, device, record), event).await?;
        Ok(found.and_then(|found| KeptEvent::read(&found.body).ok()))
    }

    /// All of them, by name.
    pub(crate) async fn last_events(
        &self,
        tenant: TenantId,
        (device, record): (&Text, &DeviceRecord),
    ) -> Result<Vec<(Text, KeptEvent)>, RegistryError> {
        let (space, mut all, mut after) = (space(tenant, device, record), Vec::new(), None);
        loop {
            let page = self.registry.documents(&space, after.as_ref(), NAMES_MAX).await?;
            after = page.documents.last().map(|found| found.id.clone());
            let read = page.documents.into_iter();
            all.extend(
                read.filter_map(|found| Some((found.id, KeptEvent::read(&found.body).ok()?))),
            );
            if !page.more {
                return Ok(all);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(bytes: usize) -> KeptEvent {
        let payload = vec![0; bytes].into();
        KeptEvent { format: Text::from("bin"), at: UnixMillis(1), payload }
    }

    fn whose(number: usize) -> Whose {
        (TenantId(7), Text::from(format!("t:{number}")), Text::from("e"))
    }

    #[test]
    fn the_newest_waits_and_no_more_than_may() {
        let mut state = State::default();
        assert!(state.put(whose(1), event(5)) && state.put(whose(1), event(3)));
        assert_eq!((state.bytes, state.line.len()), (3, 1));
        assert!(!state.put(whose(2), event(WAITING_BYTES_MAX)));
        for number in 2..=WAITING_MAX {
            assert!(state.put(whose(number), event(0)));
        }
        assert!(!state.put(whose(0), event(0)));
        assert!(state.put(whose(1), event(1)), "in the place of one that waits");
        assert_eq!(state.take(1), [(whose(1), event(1))]);
        assert_eq!((state.take(usize::MAX).len(), state.bytes), (WAITING_MAX - 1, 0));
    }

    #[test]
    fn names_of_a_device_are_written_one_after_the_other() {
        let mut state = State::default();
        let named = |device, name: &str| (TenantId(7), Text::from(device), Text::from(name));
        for (device, name) in [("t:1", "a"), ("t:1", "b"), ("t:2", "a"), ("t:1", "c")] {
            assert!(state.put(named(device, name), event(1)));
        }
        let names = |taken: Vec<(Whose, KeptEvent)>| {
            taken.into_iter().map(|((_, device, name), _)| format!("{device} {name}")).collect()
        };
        let mut taken: Vec<Vec<String>> = Vec::new();
        while !state.line.is_empty() {
            taken.push(names(state.take(2)));
        }
        assert_eq!(taken, [vec!["t:1 a", "t:2 a"], vec!["t:1 b"], vec!["t:1 c"]]);
    }
}
