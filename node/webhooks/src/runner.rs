//! Which webhooks this node runs: those of tenants whose space of webhooks lies in a shard that it leads.
//!
//! ```text
//!   every LOOK   documents of the shards led here ─► begin what is new, stop what changed, is paused or is gone, or is led elsewhere
//! ```
//!
//! # Invariants
//!
//! - **Nothing is remembered**: what should run is read from this node's replicas each time, so whoever leads next goes on, from the
//!   offsets that were committed.
//! - **One version of a webhook runs at a time**: the next begins when the last has ended.
//! - **At most [`RUNNING_MAX`] run here**; the rest waits, and is counted.
//!
//! Checked by the cluster tests (`webhooks.rs`).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use moorline_core::{TenantId, Text};
use moorline_machine::documents::{Document, Expect};
use moorline_service::registry::{RegistryError, documents::is_conflict};
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use crate::{
    hooks::{READ_MAX, Webhooks},
    kept::{Kept, SPACE, space, states},
    metrics::WebhookMetrics,
    pump::{IN_FLIGHT_MAX, NODE_IN_FLIGHT_MAX, Pump, Running, Told},
};

/// How often it is looked at what should run: so long a change takes.
pub(crate) const LOOK: Duration = Duration::from_millis(500);
/// Webhooks that run at a node. Each asks every shard, and holds a page of each (64 KiB) while its receiver is slow: with 12 shards 100 MiB
/// in all, if no receiver takes anything.
pub(crate) const RUNNING_MAX: usize = 128;
/// How often it is written how a webhook goes, if it goes well.
const WRITE_EVERY: Duration = Duration::from_secs(10);
/// How often it is looked whether there is something to write.
const TELL: Duration = Duration::from_secs(1);
/// How long requests that are under way may take to end when the node stops.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// One that runs.
struct One {
    version: u64,
    id: u32,
    group: Text,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

type Id = (TenantId, Text);

/// Runs webhooks, see the module.
pub struct Runner {
    hooks: Webhooks,
    metrics: WebhookMetrics,
    node: u64,
    in_flight: Arc<Semaphore>,
    tasks: TaskTracker,
    running: BTreeMap<Id, One>,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Runner {
    /// Of this node.
    #[must_use]
    pub fn new(hooks: Webhooks, metrics: WebhookMetrics, node: u64) -> Self {
        Self {
            hooks,
            metrics,
            node,
            in_flight: Arc::new(Semaphore::new(NODE_IN_FLIGHT_MAX)),
            tasks: TaskTracker::new(),
            running: BTreeMap::new(),
        }
    }

    /// Until it is told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.look().await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(LOOK) => {}
            }
        }
        self.running.values().for_each(|one| one.stop.cancel());
        self.tasks.close();
        if timeout(STOP_WAIT, self.tasks.wait()).await.is_err() {
            info!("requests of webhooks were under way when the node stopped: they come again");
        }
    }

    async fn look(&mut self) {
        let mut wanted = BTreeMap::new();
        for (tenant, documents) in self.hooks.registry.led_documents(&Text::from(SPACE), READ_MAX) {
            for document in documents {
                match Kept::read(&document) {
                    Some(kept) => {
                        wanted.insert((tenant, document.id.clone()), (document, kept));
                    }
                    None => {
                        error!(tenant = tenant.0, webhook = %document.id, "a webhook can't be read");
                    }
                }
            }
        }
        for (id, one) in &self.running {
            let wanted = wanted.get(id).filter(|(_, kept)| !kept.settings.paused);
            let is_same = wanted.is_some_and(|(document, _)| document.version == one.version);
            if !is_same || !self.sends(id.0) {
                one.stop.cancel();
            }
        }
        self.clear().await;
        let (mut paused, mut waiting) = (0, 0);
        for (id, (document, kept)) in wanted {
            if kept.settings.paused {
                paused += 1;
            } else if self.running.contains_key(&id) {
                // It runs, or the version before it is just ending.
            } else if self.running.len() >= RUNNING_MAX {
                waiting += 1;
            } else {
                self.begin(id, document, kept);
            }
        }
        self.metrics.are([self.running.len(), paused, waiting]);
    }

    /// Forgets those that have ended, and the groups of those that are gone.
    async fn clear(&mut self) {
        let ended: Vec<_> = self.running.extract_if(.., |_, one| one.task.is_finished()).collect();
        for ((tenant, name), one) in ended {
            if !self.hooks.registry.leads_space(&space(tenant)) {
                continue;
            }
            // A shard may just have come here: its leader's answer counts, not what was not seen of it.
            let gone = match self.hooks.registry.document(&space(tenant), &name).await {
                Ok(found) => {
                    found.is_none_or(|of| Kept::read(&of).is_some_and(|of| of.id != one.id))
                }
                Err(_) => false,
            };
            // It may have committed after it was deleted.
            if gone && let Err(error) = self.hooks.forget_group(tenant, &one.group).await {
                warn!(tenant = tenant.0, webhook = %name, %error, "a webhook's group was not forgotten");
            }
        }
    }

    /// A tenant that is disabled sends nothing.
    fn sends(&self, tenant: TenantId) -> bool {
        self.hooks.registry.tenant(tenant).is_some_and(|record| record.enabled)
    }

    fn begin(&mut self, id: Id, document: Document, kept: Kept) {
        let (tenant, name) = id.clone();
        let record = self.hooks.registry.tenant(tenant).filter(|record| record.enabled);
        let Some(record) = record else { return };
        let (stop, group) = (CancellationToken::new(), kept.group(name.as_str()));
        let (version, number) = (document.version, kept.id);
        let begin = Begin {
            hooks: self.hooks.clone(),
            metrics: self.metrics.clone(),
            node: self.node,
            in_flight: Arc::clone(&self.in_flight),
            tenant,
            tenant_name: record.name.to_string(),
            name,
            version,
            group: group.clone(),
            kept,
            stop: stop.clone(),
        };
        let task = self.tasks.spawn(begin.run());
        self.running.insert(id, One { version, id: number, group, stop, task });
    }
}

/// A webhook that is to run.
struct Begin {
    hooks: Webhooks,
    metrics: WebhookMetrics,
    node: u64,
    in_flight: Arc<Semaphore>,
    tenant: TenantId,
    tenant_name: String,
    name: Text,
    version: u64,
    group: Text,
    kept: Kept,
    stop: CancellationToken,
}

impl Begin {
    async fn run(self) {
        let Self { hooks, tenant, name, version, kept, stop, .. } = &self;
        let (tenant, version) = (*tenant, *version);
        let began = async {
            let at = hooks.place(tenant, name.as_str(), kept).await?;
            let (mut state, expect) = hooks.state(tenant, name, kept.id).await?;
            (state.node, state.failing) = (self.node, BTreeMap::new());
            Ok::<_, RegistryError>((at, state, expect))
        };
        let (at, state, expect) = match began.await {
            Ok(began) => began,
            Err(error) => {
                // It is begun again at the next look.
                info!(tenant = tenant.0, webhook = %name, %error, "a webhook has not begun yet");
                return;
            }
        };
        let Some(opened) = hooks.opened(tenant, name.as_str(), kept) else {
            let why = "its secrets were sealed with another key: make it anew";
            if let Err(error) = hooks.pause(tenant, name, version, why).await {
                info!(tenant = tenant.0, webhook = %name, %error, "a webhook could not be paused yet");
            }
            return;
        };
        info!(tenant = tenant.0, webhook = %name, "a webhook runs here");
        let told = Told { state, changed: true, urgent: true };
        let stop = stop.clone();
        let running = Arc::new(Running {
            metrics: self.metrics,
            tenant_name: self.tenant_name,
            space: space(tenant),
            group: self.group,
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
            node_in_flight: self.in_flight,
            told: told.into(),
            stop,
            opened,
            hooks: self.hooks,
            tenant,
            name: self.name,
            version,
            kept: self.kept,
        });
        let mut pumps = JoinSet::new();
        for shard in running.hooks.registry.event_shards(tenant, None) {
            pumps.spawn(Pump::new(Arc::clone(&running), shard, at.of(shard)).run());
        }
        tell(&running, &mut pumps, expect).await;
    }
}

/// Writes how it goes, until it has ended. What somebody else wrote it does not overwrite: another node has taken over, or the webhook is
/// gone, and so it stops.
async fn tell(of: &Running, pumps: &mut JoinSet<()>, mut expect: Expect) {
    let mut written = Instant::now();
    loop {
        let over = tokio::select! {
            ended = pumps.join_next() => match ended {
                None => true,
                Some(Ok(())) => continue,
                Some(Err(problem)) => {
                    error!(tenant = of.tenant.0, webhook = %of.name, %problem, "a webhook's shard ended");
                    of.stop.cancel();
                    continue;
                }
            },
            () = sleep(TELL) => false,
        };
        let due = over || written.elapsed() >= WRITE_EVERY;
        let state = {
            let mut told = of.told();
            let writes = told.changed && (due || told.urgent);
            writes.then(|| {
                (told.changed, told.urgent) = (false, false);
                told.state.written_ms = (of.hooks.now)();
                told.state.clone()
            })
        };
        if let Some(state) = state {
            written = Instant::now();
            let body = serde_json::to_vec(&state).expect("numbers and texts").into();
            let space = states(of.tenant);
            let put = of.hooks.registry.put_document(&space, &of.name, body, expect);
            match put.await {
                Ok(version) => expect = Expect::Version(version),
                Err(error) if is_conflict(&error) => of.stop.cancel(),
                Err(error) => {
                    info!(tenant = of.tenant.0, webhook = %of.name, %error, "how a webhook goes was not written");
                    of.told().changed = true;
                }
            }
        }
        if over {
            return;
        }
    }
}
