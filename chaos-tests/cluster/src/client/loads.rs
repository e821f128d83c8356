//! The workloads beside messages, mailboxes and records, as one: begun together, drained together.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::api::Api;
use super::churn::{self, Ground, Kept};
use super::ear::Owed;
use super::{Shared, last, retained, shared, wills};
use crate::scenario::Load;

/// How often it is looked whether everything has come.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A copy too many would come so soon after the last that was owed.
const QUIET: Duration = Duration::from_millis(500);

/// Everybody at work.
#[derive(Debug, Default)]
pub struct Loads {
    /// Who asks and publishes: ends by itself once told to drain.
    tasks: JoinSet<()>,
    /// Who listens: until told to stop.
    listeners: JoinSet<()>,
    /// What is waited for, by workload.
    owed: Vec<(&'static str, Arc<Owed>)>,
    /// Who changes credentials.
    keepers: JoinSet<Kept>,
    kept: Vec<Kept>,
    ground: Option<Ground>,
    random: Option<StdRng>,
}

impl Loads {
    /// Begins what a load asks for.
    pub fn begin(load: &Load, lasts: Duration, (all, api): (&Arc<Shared>, Api), seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut loads = Self::default();
        if load.shared > 0 {
            let into = (&mut loads.tasks, &mut loads.listeners);
            let owed = shared::begin(all, load.shared, &mut random, into);
            loads.owed.push(("messages of shares", owed));
        }
        if load.wills > 0 {
            let into = (&mut loads.tasks, &mut loads.listeners);
            let owed = wills::begin(all, load.wills, &mut random, into);
            loads.owed.push(("wills", owed));
        }
        if load.retained > 0 {
            retained::begin(all, load.retained, &mut random, &mut loads.tasks);
        }
        let (shared, secrets) = (Arc::clone(all), Arc::new(Mutex::default()));
        let ground = Ground { shared, api, knocks: Arc::default(), secrets };
        if load.churn > 0 {
            loads.keepers = churn::begin(&ground, load.churn, lasts, &mut random);
        }
        loads.ground = Some(ground);
        loads.random = Some(random);
        loads
    }

    /// Waits for what is under way, and for what is owed to those who listen. Whether everything came in time.
    pub async fn drain(&mut self, deadline: Instant) -> Result<bool> {
        while Instant::now() < deadline {
            while let Some(ended) = self.tasks.try_join_next() {
                ended.context("a client of the harness failed")?;
            }
            while let Some(kept) = self.keepers.try_join_next() {
                self.kept.push(kept.context("a client of the harness failed")?);
            }
            let owed: usize = self.owed.iter().map(|(_, owed)| owed.many()).sum();
            if self.tasks.is_empty() && self.keepers.is_empty() && owed == 0 {
                sleep(QUIET).await;
                return Ok(true);
            }
            sleep(LOOK_EVERY).await;
        }
        for (what, owed) in self.owed.iter().filter(|(_, owed)| owed.many() > 0) {
            println!("          {} {what} did not come", owed.many());
        }
        Ok(false)
    }

    /// When nothing changes any more: last questions.
    pub async fn finish(&mut self) {
        let (Some(ground), Some(random)) = (&self.ground, &mut self.random) else { return };
        if self.kept.is_empty() {
            return;
        }
        if last::ask_all(ground, &self.kept, random).await.is_none() {
            println!("          not all last questions were answered");
        }
        if ground.audit(random).await.is_none() {
            println!("          the audit could not be read");
        }
    }

    /// What must be in no log.
    pub fn secrets(&self) -> Vec<String> {
        let secrets = self.ground.as_ref().map(|ground| &ground.secrets);
        let secrets = secrets.map(|all| all.lock().unwrap_or_else(PoisonError::into_inner).clone());
        secrets.unwrap_or_default()
    }

    /// Everybody who listens; to be waited for once told to stop.
    pub fn into_listeners(self) -> JoinSet<()> {
        self.listeners
    }
}
