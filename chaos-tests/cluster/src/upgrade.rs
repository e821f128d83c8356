//! A rolling upgrade under load, as docs/upgrades.md has it: one node after the other is stopped (SIGTERM) and started with the other
//! program; with `back` one goes back and forward again; then the cluster's level is raised.
//!
//! ```text
//!   from from from ─► to from from ─► to to from ─► to to to ─► (from to to ─► to to to) ─► raise ─► from is refused
//!                       must not be raised    digests   digests      digests
//! ```
//!
//! With one program for both it is a rolling restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use moorline_oracle::gaps::Spread;
use moorline_oracle::history::Fault;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::admin::{self, View};
use crate::change::{Change, rest};
use crate::client::Shared;
use crate::members::SETTLE_MAX;
use crate::nemesis::Nemesis;
use crate::options::UpgradePlan;
use crate::run::{digests, nanos};

/// How long a node may take to stop when it is asked to.
const STOP_MAX: Duration = Duration::from_secs(30);
/// How often a level is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The level of clusters whose programs say none.
const FIRST: u16 = 1;
/// What a program says that is too old for a data directory: one that knows of levels, and one of before.
const TOO_OLD: [&str; 2] = ["the cluster is at level", "its format is"];

/// Carries the run out.
#[derive(Debug)]
pub struct Upgrade<'a, 'b> {
    nemesis: &'a mut Nemesis<'b>,
    plan: UpgradePlan,
    shared: Arc<Shared>,
    random: StdRng,
    stops: Vec<Duration>,
}

impl<'a, 'b> Upgrade<'a, 'b> {
    /// Draws everything from `seed`.
    pub fn new(
        nemesis: &'a mut Nemesis<'b>,
        plan: UpgradePlan,
        shared: Arc<Shared>,
        seed: u64,
    ) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { nemesis, plan, shared, random, stops: Vec::new() }
    }

    /// From the one program to the other.
    pub async fn run(mut self, seconds: u64) -> Result<Change> {
        sleep(rest(seconds)).await;
        let two = self.plan.from != self.plan.to;
        let what = if two { "rolling upgrade" } else { "rolling restart" };
        let mut change = Change::begins(what, self.nemesis);
        let all = self.nemesis.cluster.nodes.len();
        let before = self.view(0).await?;
        // Not always in the same order: who is last leads the most by then.
        let first = self.random.random_range(0..all);
        let to = self.plan.to.clone();
        for turn in 0..all {
            let at = (first + turn) % all;
            self.exchange(at, to.clone()).await?;
            if turn == 0 {
                self.is_not_raised(at, &before).await?;
            }
            if two && turn + 1 < all {
                // Two programs have applied the same log: their rows have to be the same.
                digests(&self.shared).await.context("digests, with two programs")?;
            }
        }
        if self.plan.back {
            let at = self.random.random_range(0..all);
            self.exchange(at, self.plan.from.clone()).await?;
            digests(&self.shared).await.context("digests, with one gone back")?;
            self.exchange(at, to).await?;
            change.note(format!("node {} went back and forward again", self.id(at)));
        }
        let raised = self.raise(&mut change).await?;
        change.ends(self.nemesis);
        let stops = Spread::of(self.stops.iter().map(|took| nanos(*took)).collect());
        change.note(format!("asked to stop to ended: {stops}"));
        if raised && two {
            let at = self.random.random_range(0..all);
            self.old_is_refused(at).await?;
            change.note("the program of before is refused on a directory of now".to_owned());
        }
        Ok(change)
    }

    /// A node is stopped and started with another program, and the cluster is whole again.
    async fn exchange(&mut self, at: usize, program: PathBuf) -> Result<()> {
        self.stop(at).await?;
        self.nemesis.cluster.set_program(at, program);
        self.start(at).await?;
        self.nemesis.status_settles().await
    }

    async fn stop(&mut self, at: usize) -> Result<()> {
        let id = self.id(at);
        self.nemesis.tell(Fault::Terminate, id).await?;
        self.nemesis.cluster.signal(at, Signal::TERM)?;
        let began = Instant::now();
        let status = self.nemesis.cluster.wait_end(at, STOP_MAX).await?;
        self.stops.push(began.elapsed());
        ensure!(status.success(), "node {id} was asked to stop and ended with {status}");
        Ok(())
    }

    async fn start(&mut self, at: usize) -> Result<()> {
        let id = self.id(at);
        self.nemesis.cluster.start_node(at)?;
        self.nemesis.tell(Fault::Restart, id).await?;
        let ready = self.nemesis.cluster.wait_ready(at).await?;
        self.nemesis.starts.push(ready);
        self.nemesis.tell(Fault::Ready, id).await
    }

    /// While nodes of the old program are there, nobody raises the cluster above what they know.
    async fn is_not_raised(&self, at: usize, before: &View) -> Result<()> {
        let here = self.view(at).await?;
        // What comes of it is looked at, not what is answered: of one program there is nothing to raise.
        let answer = admin::upgrade(self.nemesis.cluster.peers[at].admin).await;
        let after = self.view(at).await?;
        ensure!(
            after.level == here.level && after.level <= before.level.max(FIRST),
            "level {} while two programs are there, {} before: {answer:?}",
            after.level,
            before.level
        );
        Ok(())
    }

    /// Raises the level and waits until every node has it. Whether it is above what it was.
    async fn raise(&mut self, change: &mut Change) -> Result<bool> {
        let before = self.view(0).await?;
        if before.level == 0 {
            change.note("programs of before there were levels".to_owned());
            return Ok(false);
        }
        let highest = admin::upgrade(self.nemesis.cluster.peers[0].admin).await;
        let highest = highest.context("`cluster upgrade` with the same program everywhere")?;
        let deadline = Instant::now() + SETTLE_MAX;
        for at in 0..self.nemesis.cluster.nodes.len() {
            loop {
                let view = self.view(at).await?;
                if view.level == highest && view.next_level.is_none() {
                    break;
                }
                let id = self.id(at);
                ensure!(Instant::now() < deadline, "node {id} stays at level {}", view.level);
                sleep(LOOK_EVERY).await;
            }
        }
        self.nemesis.status_settles().await?;
        change.note(format!(
            "level {} before the raise, {highest} on every node after it",
            before.level
        ));
        Ok(highest > before.level)
    }

    /// After the raise there is no way back: the old program ends and says why, and the new one goes on where it was.
    async fn old_is_refused(&mut self, at: usize) -> Result<()> {
        self.stop(at).await?;
        self.nemesis.cluster.set_program(at, self.plan.from.clone());
        self.nemesis.refused_saying(self.id(at), &TOO_OLD).await?;
        self.nemesis.cluster.set_program(at, self.plan.to.clone());
        self.start(at).await?;
        self.nemesis.status_settles().await
    }

    async fn view(&self, at: usize) -> Result<View> {
        admin::view(self.nemesis.cluster.peers[at].admin).await
    }

    fn id(&self, at: usize) -> u32 {
        self.nemesis.cluster.nodes[at].id
    }
}
