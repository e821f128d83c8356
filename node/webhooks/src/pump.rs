//! One shard of a running webhook: what is behind its offset is read, posted, and committed, one request after the other.
//!
//! # Invariants
//!
//! - **The next request goes out when the last one is settled**: taken and committed, or skipped, counted and committed. Between two
//!   requests it looks whether this node still leads the webhook's shard.
//! - **What is committed was settled**, or is not wanted.
//! - **What is missed is counted**: retention was faster.
//! - **Bounded**: a page of its shard is in memory; requests at once of a webhook ([`IN_FLIGHT_MAX`]) and of all webhooks of a node
//!   ([`NODE_IN_FLIGHT_MAX`]).
//!
//! Checked by the cluster tests (`webhooks.rs`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use moorline_core::{Offset, ShardId, TenantId, Text};
use moorline_machine::{EventsPage, documents::Space, events::Event};
use moorline_service::registry::{RegistryError, settings};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    batch::{Batch, batches},
    decide::{Heard, Step, Tries, retry_after},
    hooks::Webhooks,
    kept::Kept,
    metrics::{Fate, Lag, UnderWay, WebhookMetrics},
    sealed::Opened,
    state::{Failing, State},
};

/// Requests of one webhook at once: of as many shards.
pub(crate) const IN_FLIGHT_MAX: usize = 4;
/// Requests of all webhooks of a node at once. Their tenants have shares of their own ([`moorline_outward`]).
pub(crate) const NODE_IN_FLIGHT_MAX: usize = 64;
/// How long a shard's leader may wait for something new before it answers.
const WAIT: Duration = Duration::from_secs(10);
/// Before something is asked again that nobody answered.
const PAUSE: Duration = Duration::from_millis(500);
/// How often an offset is committed behind events that are not wanted.
const COMMIT_EVERY: Duration = Duration::from_secs(5);

/// A running webhook, as all its shards know it.
pub(crate) struct Running {
    pub(crate) hooks: Webhooks,
    pub(crate) metrics: WebhookMetrics,
    pub(crate) tenant: TenantId,
    /// The tenant's name: it stands in events.
    pub(crate) tenant_name: String,
    pub(crate) name: Text,
    /// The version of the document that it runs by.
    pub(crate) version: u64,
    pub(crate) space: Space,
    pub(crate) group: Text,
    pub(crate) kept: Kept,
    pub(crate) opened: Opened,
    pub(crate) in_flight: Semaphore,
    pub(crate) node_in_flight: Arc<Semaphore>,
    pub(crate) told: Mutex<Told>,
    pub(crate) stop: CancellationToken,
}

/// What is known of how it goes.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) state: State,
    /// Something is not written.
    pub(crate) changed: bool,
    /// It should be at once.
    pub(crate) urgent: bool,
}

/// It runs here no more.
struct Stopped;

impl Running {
    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        // Every change is complete when it is unlocked.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        (self.hooks.now)()
    }

    /// Waits, unless it stops.
    async fn pause_for(&self, pause: Duration) -> Result<(), Stopped> {
        tokio::select! {
            () = self.stop.cancelled() => Err(Stopped),
            () = sleep(pause) => Ok(()),
        }
    }

    /// It goes well with a shard.
    fn is_well(&self, shard: ShardId) {
        let mut told = self.told();
        if told.state.failing.remove(&shard.0).is_some() {
            (told.changed, told.urgent) = (true, true);
        }
    }

    /// It does not go well with a shard.
    fn fails(&self, shard: ShardId, attempts: u32, why: String, again: Duration) {
        let (now_ms, mut told) = (self.now_ms(), self.told());
        let again_ms = u64::try_from(again.as_millis()).unwrap_or(u64::MAX).saturating_add(now_ms);
        let since_ms = told.state.failing.get(&shard.0).map_or(now_ms, |known| known.since_ms);
        told.state.failing.insert(shard.0, Failing { since_ms, attempts, why, again_ms });
        (told.changed, told.urgent) = (true, true);
    }

    /// It pauses, as its document says from now on.
    pub(crate) async fn pause(&self, why: &str) {
        let Self { hooks, tenant, name, version, .. } = self;
        let paused = loop {
            match hooks.pause(*tenant, name, *version, why).await {
                Ok(paused) => break paused,
                Err(error) => {
                    warn!(tenant = tenant.0, webhook = %name, %error, "a webhook could not be paused yet");
                    if self.pause_for(PAUSE).await.is_err() {
                        return;
                    }
                }
            }
        };
        if paused {
            self.metrics.paused.inc();
            warn!(tenant = tenant.0, webhook = %name, why, "a webhook is paused");
        }
        self.stop.cancel();
    }
}

/// See the module.
pub(crate) struct Pump {
    of: Arc<Running>,
    shard: ShardId,
    /// Up to where everything is settled.
    at: Offset,
    /// Up to where that is committed.
    committed: Offset,
    commit_at: Instant,
    lag: Lag,
}

impl Pump {
    pub(crate) fn new(of: Arc<Running>, shard: ShardId, at: Offset) -> Self {
        let lag = Lag::of(&of.metrics.lag);
        Self { of, shard, at, committed: at, commit_at: Instant::now(), lag }
    }

    /// Until it is stopped.
    pub(crate) async fn run(mut self) {
        while self.turn().await.is_ok() {}
    }

    async fn turn(&mut self) -> Result<(), Stopped> {
        let of = Arc::clone(&self.of);
        let wait = match self.committed < self.at {
            true => WAIT.min(self.commit_at.saturating_duration_since(Instant::now())),
            false => WAIT,
        };
        let asked = of.hooks.registry.events(self.shard, of.tenant, self.at, None, wait);
        let page = tokio::select! {
            () = of.stop.cancelled() => return Err(Stopped),
            page = asked => page,
        };
        match page {
            Ok(page) => self.page(&page).await?,
            Err(_) => of.pause_for(PAUSE).await?,
        }
        if self.committed < self.at && Instant::now() >= self.commit_at {
            self.commit().await?;
        }
        Ok(())
    }

    async fn page(&mut self, page: &EventsPage) -> Result<(), Stopped> {
        let missed = page.head.0.saturating_sub(self.at.0 + 1);
        if missed > 0 {
            self.missed(missed);
            // Not again when nothing else is there.
            self.at = Offset(self.at.0 + missed);
        }
        self.lag.is(page.tail.0.saturating_sub(self.at.0 + 1));
        let of = Arc::clone(&self.of);
        let wanted = self.wanted(&page.events).await?;
        for batch in batches(&of.tenant_name, self.shard, &wanted, of.kept.settings.batch_max) {
            self.deliver(&batch).await?;
            self.at = batch.last;
            self.commit().await?;
            of.is_well(self.shard);
            self.lag.is(page.tail.0.saturating_sub(self.at.0 + 1));
        }
        self.at = self.at.max(page.upto);
        self.lag.is(page.tail.0.saturating_sub(self.at.0 + 1));
        Ok(())
    }

    fn missed(&self, missed: u64) {
        let Running { metrics, tenant, name, .. } = &*self.of;
        metrics.events(Fate::Missed, missed);
        warn!(tenant = tenant.0, webhook = %name, missed, "events were gone before a webhook sent them");
        let mut told = self.of.told();
        told.state.missed += missed;
        (told.changed, told.urgent) = (true, true);
    }

    /// Those of a page that the webhook wants.
    async fn wanted<'a>(&self, events: &'a [Event]) -> Result<Vec<&'a Event>, Stopped> {
        let filter = &self.of.kept.settings.filter;
        let mut wanted: Vec<_> = events.iter().filter(|event| filter.admits(event)).collect();
        if !filter.asks_labels() {
            return Ok(wanted);
        }
        let mut known: HashMap<&Text, bool> = HashMap::new();
        for event in &wanted {
            if !known.contains_key(&event.device) {
                known.insert(&event.device, self.labelled(&event.device).await?);
            }
        }
        wanted.retain(|event| known.get(&event.device).copied().unwrap_or_default());
        Ok(wanted)
    }

    /// Whether a device has one of the labels: asked until somebody answers, since an event must not be left out for that.
    async fn labelled(&self, device: &Text) -> Result<bool, Stopped> {
        let Running { hooks, tenant, kept, .. } = &*self.of;
        loop {
            match hooks.registry.device(*tenant, device).await {
                Ok(None) => return Ok(false),
                Ok(Some(record)) => {
                    let settings: settings::DeviceSettings = settings::read(&record.settings);
                    return Ok(kept.settings.filter.labelled(&settings.labels));
                }
                Err(_) => self.of.pause_for(PAUSE).await?,
            }
        }
    }

    /// Says a batch until it is settled.
    async fn deliver(&self, batch: &Batch) -> Result<(), Stopped> {
        let Running { metrics, kept, .. } = &*self.of;
        let mut tries = Tries::default();
        loop {
            let heard = self.say(batch, tries.attempts.saturating_add(1)).await?;
            metrics.heard(heard.kind());
            match tries.hear(heard, kept.settings.refused, rand::random()) {
                Step::Done => {
                    metrics.events(Fate::Delivered, batch.events);
                    let (now_ms, mut told) = (self.of.now_ms(), self.of.told());
                    told.state.delivered += batch.events;
                    told.state.delivered_ms = Some(now_ms);
                    told.changed = true;
                    return Ok(());
                }
                Step::Again(after) => {
                    self.of.fails(self.shard, tries.attempts, heard.words(), after);
                    self.of.pause_for(after).await?;
                }
                Step::Skip => {
                    self.skipped(batch, heard);
                    return Ok(());
                }
                Step::Pause(why) => {
                    self.of.fails(self.shard, tries.attempts, heard.words(), Duration::ZERO);
                    self.of.pause(&why).await;
                    return Err(Stopped);
                }
            }
        }
    }

    fn skipped(&self, batch: &Batch, heard: Heard) {
        let Running { metrics, tenant, name, .. } = &*self.of;
        let (shard, first, events) = (self.shard, batch.first.0, batch.events);
        metrics.events(Fate::Skipped, events);
        let why = heard.words();
        warn!(tenant = tenant.0, webhook = %name, %shard, first, events, why, "a webhook skips events");
        let mut told = self.of.told();
        told.state.skipped += events;
        (told.changed, told.urgent) = (true, true);
    }

    /// Says it once.
    async fn say(&self, batch: &Batch, attempt: u32) -> Result<Heard, Stopped> {
        let of = &*self.of;
        let places = async {
            let own = of.in_flight.acquire().await.map_err(|_| Stopped)?;
            Ok((own, of.node_in_flight.acquire().await.map_err(|_| Stopped)?))
        };
        let _places = tokio::select! {
            () = of.stop.cancelled() => return Err(Stopped),
            places = places => places?,
        };
        if !of.hooks.registry.leads_space(&of.space) {
            info!(tenant = of.tenant.0, webhook = %of.name, "another node runs a webhook now");
            of.stop.cancel();
            return Err(Stopped);
        }
        let _under_way = UnderWay::of(&of.metrics.under_way);
        let id = format!("{}-{}", self.shard, batch.first.0);
        let name = of.name.as_str();
        let (settings, opened) = (&of.kept.settings, &of.opened);
        let request = of.hooks.request(name, settings, opened, (&id, attempt), &batch.body);
        // It is not given up half way, whoever stops: what was said is heard to its end, which comes in time.
        Ok(match Box::pin(of.hooks.outward.ask(of.tenant, &request)).await {
            Err(why) => Heard::Unanswered(why),
            Ok(answer) => {
                let mut headers = answer.headers.iter();
                let said = headers.find(|(name, _)| name == "retry-after");
                let retry_after = said.and_then(|(_, value)| retry_after(value, of.now_ms()));
                Heard::Answered { status: answer.status, retry_after }
            }
        })
    }

    /// Commits what is settled, once more after a failure as long as it runs here.
    async fn commit(&mut self) -> Result<(), Stopped> {
        let of = Arc::clone(&self.of);
        let mut attempts = 0;
        loop {
            let registry = &of.hooks.registry;
            let taken = registry.commit_shard(of.tenant, &of.group, self.shard, self.at).await;
            let Err(error) = taken else {
                (self.committed, self.commit_at) = (self.at, Instant::now() + COMMIT_EVERY);
                return Ok(());
            };
            attempts += 1;
            of.metrics.commits_failed.inc();
            self.is_uncommitted(attempts, &error);
            of.pause_for(PAUSE).await?;
        }
    }

    fn is_uncommitted(&self, attempts: u32, error: &RegistryError) {
        let why = format!("how far it is was not committed: {error}");
        if attempts == 1 {
            let Running { tenant, name, .. } = &*self.of;
            warn!(tenant = tenant.0, webhook = %name, shard = %self.shard, why, "a webhook does not get on");
        }
        self.of.fails(self.shard, attempts, why, PAUSE);
    }
}
