//! The clients of a run of everything: made, set to work, drained, ended; whoever runs the nodes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use moorline_oracle::history::Stage;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::client::Shared;
use crate::client::api::Api;
use crate::client::loads::Loads;
use crate::client::mailbox::Mailboxes;
use crate::client::publisher::{Pace, Publisher};
use crate::client::registry::Registry;
use crate::client::subscriber::{Habit, Subscriber};
use crate::http::Http;
use crate::probe::Probe;
use crate::run::{drain, end, mark, wait_subscribed};
use crate::scenario::Load;
use crate::{usage, watch};

/// What rates are counted in.
const SECOND: Duration = Duration::from_secs(1);
/// Publishers, and subscribers.
pub(crate) const CLIENTS: u32 = 8;
/// Length of a message, in bytes.
const PAYLOAD: usize = 256;
/// How long messages may take to arrive after the faults.
const DRAIN_MAX: Duration = Duration::from_secs(90);
/// How long requests that are under way may take to end, and last questions to be answered.
const LAST_MAX: Duration = Duration::from_secs(240);

/// The clients of a run, at work.
pub(crate) struct Clients {
    random: StdRng,
    api: Api,
    boxes: Option<Mailboxes>,
    subscribers: JoinSet<()>,
    publishers: JoinSet<()>,
    /// The registry's.
    asking: JoinSet<()>,
    /// The mailboxes'.
    visiting: JoinSet<Mailboxes>,
    watching: JoinSet<()>,
    /// The other workloads'.
    loads: Loads,
    http: Http,
    secrets: Vec<String>,
}

impl Clients {
    /// Makes what has to be there; subscribers come. What else there is to do begins with [`Self::publish`].
    pub(crate) async fn begin(shared: &Arc<Shared>, token: String, seed: u64) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let http = Http::default();
        let api = Api::open(http.clone(), shared.peers[0].admin, token).await?;
        let boxes = Mailboxes::open(Arc::clone(shared), api.clone(), random.random()).await?;
        let secrets = [api.token().to_owned()].into_iter().chain(boxes.secrets()).collect();
        let mut all = Self {
            random: StdRng::seed_from_u64(random.random()),
            api,
            boxes: Some(boxes),
            subscribers: JoinSet::new(),
            publishers: JoinSet::new(),
            asking: JoinSet::new(),
            visiting: JoinSet::new(),
            watching: JoinSet::new(),
            loads: Loads::default(),
            http,
            secrets,
        };
        let many = usize::try_from(CLIENTS)?;
        for number in 0..CLIENTS {
            let habit = if number == 0 { Habit::Sleeps } else { Habit::Churns };
            let seed = random.random();
            let subscriber = Subscriber::new(Arc::clone(shared), number, seed, many, habit);
            all.subscribers.spawn(subscriber.run());
        }
        wait_subscribed(shared, u64::from(CLIENTS)).await?;
        usage::note(shared, false).await;
        Ok(all)
    }

    /// Everybody begins. `probes` are ways to nodes from inside their own networks.
    pub(crate) fn publish(
        &mut self,
        shared: &Arc<Shared>,
        (load, lasts): (&Load, Duration),
        probes: Vec<Arc<Probe>>,
    ) {
        let api = self.api.clone();
        let all = self;
        mark(shared, Stage::Publishing);
        let pace = Pace { period: SECOND * CLIENTS / load.publishes, payload: PAYLOAD };
        for number in 0..CLIENTS {
            let publisher = Publisher::new(Arc::clone(shared), number, all.random.random(), pace);
            all.publishers.spawn(publisher.run());
        }
        all.watching.spawn(watch::run(Arc::clone(shared)));
        if load.records > 0 {
            let registry = Registry::new(Arc::clone(shared), api.clone(), all.random.random());
            all.asking.spawn(registry.run(SECOND / load.records));
        }
        if load.inside > 0 {
            for (at, probe) in probes.into_iter().enumerate() {
                let api = api.by(Http::through(probe));
                let inside = Registry::inside(Arc::clone(shared), api, all.random.random(), at);
                all.asking.spawn(inside.run(SECOND * 10 / load.inside));
            }
        }
        if let Some(boxes) = all.boxes.take().filter(|_| load.visits > 0) {
            all.visiting.spawn(boxes.run(SECOND / load.visits, lasts, load.revocations));
        }
        all.loads = Loads::begin(load, lasts, (shared, api), all.random.random());
    }

    /// No new work; waits for what is under way and for what is owed, and asks the last questions. Whether all came in time.
    pub(crate) async fn drain(&mut self, shared: &Shared) -> Result<bool> {
        shared.drain.cancel();
        mark(shared, Stage::Draining);
        let deadline = Instant::now() + DRAIN_MAX;
        let drained = drain(shared, &mut self.publishers, deadline).await;
        let drained = self.loads.drain(deadline).await? && drained;
        let last = async {
            while let Some(ended) = self.asking.join_next().await {
                ended.context("the registry's clients failed")?;
            }
            while let Some(boxes) = self.visiting.join_next().await {
                boxes.context("the mailboxes' clients failed")?.finish().await;
            }
            self.loads.finish().await;
            Ok::<_, anyhow::Error>(())
        };
        match timeout(LAST_MAX, last).await {
            Ok(asked) => asked.map(|()| drained),
            Err(_) => Ok(false),
        }
    }

    /// What must be in no log.
    pub(crate) fn secrets(&mut self) -> Vec<String> {
        let mut secrets = std::mem::take(&mut self.secrets);
        secrets.extend(self.loads.secrets());
        secrets
    }

    /// Everybody goes.
    pub(crate) async fn end(self, shared: &Shared) -> Result<()> {
        shared.stop.cancel();
        self.http.close();
        end(self.publishers).await?;
        end(self.subscribers).await?;
        end(self.loads.into_listeners()).await?;
        end(self.watching).await
    }
}
