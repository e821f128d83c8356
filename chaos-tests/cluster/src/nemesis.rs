//! The nemesis: does to the nodes what the schedule says, and notes what it did.
//!
//! One step after another: a node is back before the next one is hit, so a majority is always there unless the run is
//! meant to hit all. A step that cannot be done is noted as such, never as done.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use moorline_lossyfs::Controller;
use moorline_oracle::history::Fault;
use moorline_oracle::{Op, Phase};
use rustix::process::Signal;
use tokio::time::{Instant, sleep, sleep_until};

use crate::admin;
use crate::client::Peer;
use crate::cluster::Cluster;
use crate::network::Scope;
use crate::recorder::{Actor, Recorder};
use crate::schedule::{Deed, Disk, Step, Target};

/// A node that was paused or cut off is given this long to notice before it must be ready.
const HEALED_PAUSE: Duration = Duration::from_millis(500);

/// What the nemesis works with.
#[derive(Debug)]
pub struct Nemesis<'a> {
    /// The nodes.
    pub cluster: &'a mut Cluster,
    /// Where deeds are noted.
    pub recorder: Recorder,
    /// What a cut separates a node from.
    pub scope: Scope,
    /// How long each start took until the node was ready.
    pub starts: Vec<Duration>,
}

/// Whom a step hits, by place, and who led then.
pub(crate) struct Victims {
    pub(crate) places: Vec<usize>,
    pub(crate) leaders: Vec<u32>,
}

impl Nemesis<'_> {
    /// Does every step in its time. Ends with an error if a node does not come back: then nothing after it means much.
    pub async fn run(&mut self, steps: &[Step], began: Instant, ends: Instant) -> Result<()> {
        for step in steps {
            sleep_until(began + step.at()).await;
            self.look_for_deaths()?;
            if Instant::now() + step.lasts() > ends {
                self.skipped(*step, "the run ends before it would be over");
                continue;
            }
            let victims = self.choose(step.target).await;
            match step.deed {
                Deed::Kill => self.kill(*step, &victims).await?,
                Deed::Pause => self.pause(*step, &victims).await?,
                Deed::Cut => self.cut(*step, &victims).await?,
            }
        }
        Ok(())
    }

    /// Looks for a node that ended without being told to; the run is over then.
    pub fn look_for_deaths(&mut self) -> Result<()> {
        for at in 0..self.cluster.nodes.len() {
            if let Some(status) = self.cluster.exited(at)? {
                let id = self.cluster.nodes[at].id;
                anyhow::bail!("node {id} ended by itself: {status}");
            }
        }
        Ok(())
    }

    async fn choose(&self, target: Target) -> Victims {
        let peers = &self.cluster.peers;
        let leaders = leaders(peers).await;
        let many = u32::try_from(peers.len()).expect("few nodes");
        let leader = |draw: u32| {
            let index = usize::try_from(draw).ok()?.checked_rem(leaders.len())?;
            self.cluster.place(leaders[index])
        };
        let any = |draw: u32| usize::try_from(draw % many).expect("less than the nodes");
        let places = match target {
            // Nobody is known to lead: any node will do, and the note will say that it led nothing.
            Target::Leader(draw) => vec![leader(draw).unwrap_or(any(draw))],
            Target::Node(draw) => vec![any(draw)],
            Target::All => (0..peers.len()).collect(),
        };
        Victims { places, leaders }
    }

    pub(crate) async fn kill(&mut self, step: Step, victims: &Victims) -> Result<()> {
        for &at in &victims.places {
            self.cluster.kill(at)?;
            self.note(at, Fault::Kill, victims, Ok(()));
        }
        for &at in &victims.places {
            self.cluster.wait_death(at).await?;
        }
        for &at in &victims.places {
            self.power_failure(at, step.disk, victims)?;
        }
        sleep(step.lasts()).await;
        for &at in &victims.places {
            let started = self.cluster.start_node(at);
            self.note(at, Fault::Restart, victims, Ok(()));
            started?;
        }
        for &at in &victims.places {
            let ready = self.cluster.wait_ready(at).await?;
            self.note(at, Fault::Ready, victims, Ok(()));
            self.starts.push(ready);
        }
        Ok(())
    }

    pub(crate) fn power_failure(&self, at: usize, disk: Disk, victims: &Victims) -> Result<()> {
        let controller = || self.controller(at);
        let (fault, done): (Fault, io::Result<()>) = match disk {
            Disk::Keeps => return Ok(()),
            Disk::Loses => (Fault::PowerLoss, controller()?.lose()),
            Disk::Tears(seed) => (Fault::TornWrites, controller()?.tear(seed)),
        };
        self.note(at, fault, victims, done.as_ref().map_err(ToString::to_string).copied());
        done.context("a disk could not lose its writes")
    }

    pub(crate) async fn pause(&mut self, step: Step, victims: &Victims) -> Result<()> {
        for &at in &victims.places {
            self.cluster.signal(at, Signal::STOP)?;
            self.note(at, Fault::Pause, victims, Ok(()));
        }
        sleep(step.lasts()).await;
        for &at in &victims.places {
            self.cluster.signal(at, Signal::CONT)?;
            self.note(at, Fault::Resume, victims, Ok(()));
        }
        self.wait_healed(victims).await
    }

    pub(crate) async fn cut(&mut self, step: Step, victims: &Victims) -> Result<()> {
        let scope = self.scope;
        for &at in &victims.places {
            let (network, id) = self.network(at)?;
            network.cut(id, scope)?;
            self.note(at, Fault::Cut, victims, Ok(()));
        }
        sleep(step.lasts()).await;
        for &at in &victims.places {
            let (network, id) = self.network(at)?;
            network.heal(id, scope)?;
            self.note(at, Fault::Heal, victims, Ok(()));
        }
        self.wait_healed(victims).await
    }

    pub(crate) fn network(&self, at: usize) -> Result<(&crate::network::Network, u32)> {
        let network =
            self.cluster.network.as_ref().context("nodes have no network of their own")?;
        Ok((network, self.cluster.nodes[at].id))
    }

    /// Where the disk of a node is told what to do.
    pub(crate) fn controller(&self, at: usize) -> Result<&Controller> {
        let mounted = self.cluster.disk(at).context("the disk of this node loses nothing")?;
        Ok(mounted.controller())
    }

    pub(crate) async fn wait_healed(&mut self, victims: &Victims) -> Result<()> {
        sleep(HEALED_PAUSE).await;
        for &at in &victims.places {
            self.cluster.wait_ready(at).await?;
            self.note(at, Fault::Ready, victims, Ok(()));
        }
        Ok(())
    }

    pub(crate) fn note(
        &self,
        at: usize,
        fault: Fault,
        victims: &Victims,
        done: Result<(), String>,
    ) {
        let id = self.cluster.nodes[at].id;
        let actor = Actor { name: "nemesis", node: Some(id) };
        let op = Op::Fault { fault, leader: victims.leaders.contains(&id) };
        let elapsed = self.recorder.elapsed().as_secs_f64();
        let role = if victims.leaders.contains(&id) { " (leader)" } else { "" };
        println!("{elapsed:>7.1} s  {fault:?} node {id}{role}");
        // What failed half way has an unknown effect.
        let ph = if done.is_ok() { Phase::Ok } else { Phase::Info };
        self.recorder.note_error(actor, ph, op, done.err());
    }

    fn skipped(&self, step: Step, why: &str) {
        let fault = match step.deed {
            Deed::Kill => Fault::Kill,
            Deed::Pause => Fault::Pause,
            Deed::Cut => Fault::Cut,
        };
        let actor = Actor { name: "nemesis", node: None };
        let op = Op::Fault { fault, leader: false };
        self.recorder.note_error(actor, Phase::Fail, op, Some(why.to_owned()));
    }
}

/// The leaders of all groups, group by group, as the first node that answers sees them.
pub(crate) async fn leaders(peers: &Arc<Vec<Peer>>) -> Vec<u32> {
    for peer in peers.iter().filter(|peer| peer.up.load(Ordering::Relaxed)) {
        if let Ok(view) = admin::view(peer.admin).await {
            let leaders: Vec<u32> = view.groups.iter().filter_map(|group| group.leader).collect();
            if !leaders.is_empty() {
                return leaders;
            }
        }
    }
    Vec::new()
}
