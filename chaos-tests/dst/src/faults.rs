//! What is done to nodes, links and disks while a run goes on.
//!
//! # Invariants
//!
//! - **What a fault needs to know of the cluster it takes from the seed or from what happened**, so that it happens again.
//! - **At most one node is lost for good** in a run: of three copies two are left.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use moorline_core::{NodeId, ShardId};
use rand::{RngExt, rngs::StdRng};

use crate::{
    devices,
    disk::{Crash, Failure},
    net::host,
    node::{self, Machine},
    os,
    simulation::Run,
    witness::Event,
};

/// How long a node whose disk failed is away at most.
const FAILED_MS_MAX: u64 = 3_000;
/// How long an installation of a snapshot may go on before its process ends.
const INSTALL_MS_MAX: u64 = 12;
/// How long a split of votes waits for one to be given.
const GRANT_WITHIN: Duration = Duration::from_secs(12);
/// How long the one with the vote is cut off: a node that comes back looks for a leader for 3 s before it votes, and then the
/// other one has to be elected, and to commit something.
const APART_MS_MIN: u64 = 5_000;
const APART_MS_MAX: u64 = 12_000;
/// How long a vote may take to arrive.
const GRANT_MS_MAX: u64 = 22;

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A process is killed.
    Process,
    /// A node has no power.
    Power,
    /// All of them have none.
    AllPower,
    /// Links are cut, in one or both directions, also those of devices.
    Cut,
    /// Another voter takes the place of one.
    Replace,
    /// A disk takes its time.
    Stall,
    /// A voter loses power just after it gave its vote, while the others cannot hear of each other.
    SplitVote,
    /// A write or a sync fails.
    DiskFailure,
    /// A bit of what was synced is another.
    Damage,
    /// A process ends in the middle of installing a snapshot.
    InstallCrash,
}

impl Fault {
    const ALL: [Self; 10] = [
        Self::Process,
        Self::Power,
        Self::AllPower,
        Self::Cut,
        Self::Replace,
        Self::Stall,
        Self::SplitVote,
        Self::DiskFailure,
        Self::Damage,
        Self::InstallCrash,
    ];

    /// In how many of a hundred runs it belongs to the mixture.
    fn percent(self) -> u32 {
        match self {
            Self::Process
            | Self::Power
            | Self::AllPower
            | Self::Cut
            | Self::Replace
            | Self::Stall => 50,
            Self::SplitVote | Self::DiskFailure | Self::InstallCrash => 35,
            Self::Damage => 10,
        }
    }
}

/// How a run behaves: a part of the faults only, dense or rare, so that not every run is the same mixture.
#[derive(Debug)]
pub(crate) struct Temper {
    kinds: Vec<Fault>,
    pub(crate) pause_ms_max: u64,
    /// How long a node is away at most.
    away_ms_max: u64,
}

impl Temper {
    pub(crate) fn draw(random: &mut StdRng) -> Self {
        let drawn = Fault::ALL.into_iter().filter(|kind| {
            let percent = kind.percent();
            random.random_ratio(percent, 100)
        });
        let mut kinds: Vec<Fault> = drawn.collect();
        if kinds.is_empty() {
            kinds = Fault::ALL.to_vec();
        }
        Self {
            kinds,
            pause_ms_max: random.random_range(300..6000),
            away_ms_max: random.random_range(500..12_000),
        }
    }
}

impl Run<'_> {
    /// One of them.
    pub(crate) fn fault(&mut self) -> anyhow::Result<()> {
        let kind = self.temper.kinds[self.random.random_range(0..self.temper.kinds.len())];
        self.cluster.witness.count(&format!("{kind:?}"));
        let node = self.any();
        let ms = self.random.random_range(50..=self.temper.away_ms_max);
        match kind {
            Fault::Process => self.crash(node, Crash::Process, ms),
            Fault::Power => self.crash(node, Crash::Power, ms),
            Fault::AllPower => {
                for node in 1..=self.cluster.nodes {
                    let ms = self.random.random_range(50..1500);
                    self.crash(node, Crash::Power, ms);
                }
            }
            Fault::Cut => self.cut(),
            Fault::Replace => self.replace(),
            Fault::Stall => {
                let stall = self.random.random_range(0..600);
                self.tell(Event::Fault(format!("syncs of n{node} take {stall} ms longer")));
                self.machine(node).switches.stall.store(stall, Ordering::Relaxed);
            }
            Fault::SplitVote => self.split_vote()?,
            Fault::DiskFailure => {
                let full = self.random.random_bool(0.5);
                let how = if full { Failure::Full } else { Failure::Sync };
                self.tell(Event::Fault(format!("the next write of n{node} fails: {how:?}")));
                self.machine(node).switches.fail(how);
            }
            Fault::Damage => self.damage(node, ms),
            Fault::InstallCrash => {
                self.tell(Event::Fault("the next installation is interrupted".to_owned()));
                self.interrupt_install = true;
            }
        }
        Ok(())
    }

    /// What follows from what happens by itself: processes whose disk failed end, as do those that are interrupted, and a node
    /// that cannot open its log is replaced.
    pub(crate) fn watch(&mut self) {
        let now = os::elapsed();
        for machine in self.machines.clone() {
            let (node, switches) = (machine.id, &machine.switches);
            if switches.failed.swap(false, Ordering::Relaxed) {
                let ms = self.random.random_range(50..FAILED_MS_MAX);
                self.crash(node, Crash::Process, ms);
            }
            if switches.quarantined.load(Ordering::Relaxed) && self.gone.is_none() {
                self.gone = Some(node);
                self.replace_everywhere(node);
            }
            if self.interrupt_install && switches.installing.load(Ordering::Relaxed) {
                self.interrupt_install = false;
                let in_ms = self.random.random_range(0..INSTALL_MS_MAX);
                self.interrupt_at = Some((node, now + Duration::from_millis(in_ms)));
            }
        }
        if let Some((node, _)) = self.interrupt_at.take_if(|(_, at)| *at <= now) {
            let how = if self.random.random_bool(0.5) { Crash::Power } else { Crash::Process };
            let ms = self.random.random_range(50..FAILED_MS_MAX);
            self.crash(node, how, ms);
        }
    }

    pub(crate) fn machine(&self, node: u64) -> Arc<Machine> {
        Arc::clone(&self.machines[usize::try_from(node - 1).expect("few nodes")])
    }

    fn is_down(&self, node: u64) -> bool {
        self.gone == Some(node) || self.down.iter().any(|(down, _)| *down == node)
    }

    fn crash(&mut self, node: u64, how: Crash, for_ms: u64) {
        if self.is_down(node) {
            return;
        }
        self.tell(Event::Fault(format!("{how:?} of n{node} for {for_ms} ms")));
        {
            let mut facts = self.cluster.ground.facts();
            facts.dead.insert(node);
            if how == Crash::Power {
                facts.dark.insert(node);
            }
        }
        // A machine without power says no farewell.
        self.apply_cuts();
        let machine = self.machine(node);
        machine.stopped();
        self.sim.crash(host(node));
        machine.log.lock().expect("no panic while it is locked").crash(how, &mut self.random);
        machine.rows.crash();
        machine.switches.failed.store(false, Ordering::Relaxed);
        self.down.push((node, os::elapsed() + Duration::from_millis(for_ms)));
    }

    /// A bit of the node's log is another one when it comes back.
    fn damage(&mut self, node: u64, ms: u64) {
        if self.damaged || self.is_down(node) {
            return;
        }
        self.crash(node, Crash::Process, ms);
        let machine = self.machine(node);
        let mut log = machine.log.lock().expect("no panic while it is locked");
        if log.damage(&mut self.random) {
            self.damaged = true;
            self.tell(Event::Damaged { node });
        }
    }

    /// Makes the network what the facts say.
    pub(crate) fn apply_cuts(&self) {
        let facts = self.cluster.ground.facts();
        let nodes = self.cluster.nodes;
        for from in devices::MACHINE..=nodes {
            for to in (devices::MACHINE..=nodes).filter(|to| *to != from) {
                let dark = facts.dark.contains(&from) || facts.dark.contains(&to);
                if dark || facts.cuts.contains(&(from, to)) {
                    self.sim.partition_oneway(host(from), host(to));
                } else {
                    self.sim.repair_oneway(host(from), host(to));
                }
            }
        }
    }

    pub(crate) fn any(&mut self) -> u64 {
        self.random.random_range(1..=self.cluster.nodes)
    }

    fn set_cuts(&mut self, cuts: BTreeSet<(u64, u64)>) {
        self.tell(Event::Fault(format!("cut {cuts:?}")));
        self.cluster.ground.facts().cuts = cuts;
        self.apply_cuts();
    }

    /// Cuts some links.
    fn cut(&mut self) {
        let (one, other) = (self.any(), self.any());
        let nodes = self.cluster.nodes;
        let others = (1..=nodes).filter(move |node| *node != one);
        let devices = devices::MACHINE;
        let cuts: BTreeSet<(u64, u64)> = match self.random.random_range(0..6) {
            0 => others.flat_map(|node| [(one, node), (node, one)]).collect(),
            1 => others.map(|node| (one, node)).collect(),
            2 => others.map(|node| (node, one)).collect(),
            3 => BTreeSet::from([(devices, one), (one, devices)]),
            4 => BTreeSet::from([(devices, one)]),
            _ if one == other => BTreeSet::new(),
            _ => BTreeSet::from([(one, other)]),
        };
        self.set_cuts(cuts);
        let ms = self.random.random_range(100..=self.temper.away_ms_max);
        self.mend_at = Some(os::elapsed() + Duration::from_millis(ms));
    }

    /// Mends every cut.
    pub(crate) fn mend(&mut self) {
        self.tell(Event::Fault("mend".to_owned()));
        self.cluster.ground.facts().cuts.clear();
        self.apply_cuts();
    }

    /// One voter of a group less, and another one in its place.
    fn replace(&mut self) {
        let shard = ShardId(self.random.random_range(0..=node::SHARDS));
        let voters: Vec<u64> = self.target(shard).into_iter().collect();
        let old = voters[self.random.random_range(0..voters.len())];
        self.replace_in(shard, old);
    }

    fn replace_everywhere(&mut self, old: u64) {
        for shard in node::all_groups() {
            if self.target(shard).contains(&old) {
                self.replace_in(shard, old);
            }
        }
    }

    fn replace_in(&self, shard: ShardId, old: u64) {
        let mut voters = self.target(shard);
        let free = |node: &u64| !voters.contains(node) && self.gone != Some(*node);
        let Some(new) = (1..=self.cluster.nodes).find(free) else { return };
        voters.remove(&old);
        voters.insert(new);
        self.tell(Event::Fault(format!("voters of {shard} are to be {voters:?}")));
        let voters = voters.into_iter().map(NodeId).collect();
        let mut wishes = self.cluster.wishes.lock().expect("no panic while it is locked");
        wishes.insert(shard, voters);
    }

    /// Who is to vote in a group: whom the run wished for, or whom the group was made with.
    pub(crate) fn target(&self, shard: ShardId) -> BTreeSet<u64> {
        let wished = self.cluster.target(shard);
        if !wished.is_empty() {
            return wished;
        }
        let around = (1..=self.cluster.nodes).cycle().skip(usize::from(shard.0) - 1);
        around.take(usize::try_from(node::VOTERS).expect("few")).collect()
    }

    /// Two voters cannot hear of each other, and the third one, their leader before, loses power. When it is back and has given
    /// its vote to one of them, it loses power again, and that one is cut off: its vote is all that forbids the other one a
    /// leadership that comes before the first one, and what the two of them commit then the first one would undo.
    fn split_vote(&mut self) -> anyhow::Result<()> {
        let shard = ShardId(self.random.random_range(1..=node::SHARDS));
        let voters = self.target(shard);
        let leads = |node: &u64| {
            let groups = self.machine(*node).groups();
            groups.and_then(|groups| groups.role(shard)).is_some_and(|role| role.borrow().leading)
        };
        let Some(judge) = voters.iter().copied().find(leads) else { return Ok(()) };
        let others: Vec<u64> = voters.into_iter().filter(|node| *node != judge).collect();
        let &[one, other] = others.as_slice() else { return Ok(()) };
        self.mend_at = None;
        self.set_cuts(BTreeSet::from([(one, other), (other, one)]));
        let away = self.random.random_range(1_000..3_500);
        self.crash(judge, Crash::Power, away);
        drop(self.machine(judge).switches.take_granted());
        let mut granted = None;
        self.steps_until(GRANT_WITHIN, |run| {
            let votes = run.machine(judge).switches.take_granted();
            granted = votes.into_iter().find(|(of, to)| *of == shard && others.contains(to));
            granted.is_some() || run.is_violated()
        })?;
        if let Some((_, to)) = granted {
            let mut cuts: BTreeSet<_> =
                (1..=self.cluster.nodes).flat_map(|node| [(node, to), (to, node)]).collect();
            // Its vote still arrives.
            cuts.remove(&(judge, to));
            self.set_cuts(cuts.clone());
            let arrives = Duration::from_millis(self.random.random_range(2..GRANT_MS_MAX));
            self.steps_until(arrives, Self::is_violated)?;
            let away = self.random.random_range(20..200);
            self.crash(judge, Crash::Power, away);
            cuts.insert((judge, to));
            self.set_cuts(cuts);
            let apart = Duration::from_millis(self.random.random_range(APART_MS_MIN..APART_MS_MAX));
            self.steps_until(apart, Self::is_violated)?;
        }
        self.mend();
        Ok(())
    }
}
