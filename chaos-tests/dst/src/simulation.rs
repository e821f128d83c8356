//! One run: a cluster, a plan of faults from the seed, calm, and the final look at every replica.

use std::{
    collections::BTreeMap,
    fs::File,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use anyhow::bail;
use moorline_core::{NodeId, ShardId};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use turmoil::Sim;

use crate::{
    client, devices,
    faults::Temper,
    invariants::Violation,
    mutant::Mutant,
    net::{Ground, host},
    node::{self, Cluster, Machine, SHARD},
    os,
    tally::Tally,
    witness::{Event, Witness},
};

/// Virtual time moves by this.
const TICK: Duration = Duration::from_millis(1);
/// Longer than every run.
const DURATION_MAX: Duration = Duration::from_secs(3600);
/// Segments that may wait for a reader of a connection.
const SEGMENTS_MAX: usize = 4096;
/// How long faults go on.
const FAULTS_FOR: Duration = Duration::from_secs(30);
/// How long a group may take to be ready at first, and again after the last fault.
const SETTLE_FOR: Duration = Duration::from_secs(15);
/// How long everybody is to be served then.
const CALM_FOR: Duration = Duration::from_secs(10);
/// How long what was acknowledged may take to be delivered at the end.
const DRAINED_WITHIN: Duration = Duration::from_secs(60);
/// How long replicas may take to be equal at the end.
const EQUAL_WITHIN: Duration = Duration::from_secs(20);

/// What to run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Everything follows from it.
    pub(crate) seed: u64,
    /// Members.
    pub(crate) nodes: u64,
    /// What is broken on purpose.
    pub(crate) mutant: Option<Mutant>,
    /// Where snapshots lie in transit. Made by who calls: its name must not take of the seed's randomness.
    pub(crate) staging: PathBuf,
    /// Invariants that are not looked at.
    pub(crate) blind: Vec<String>,
    /// Where the trace goes.
    pub(crate) trace: Option<File>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Report {
    /// The first violation.
    pub(crate) violation: Option<Violation>,
    /// Events of the trace, and their hash.
    pub(crate) events: u64,
    pub(crate) hash: u64,
    /// How long it was, in virtual time.
    pub(crate) elapsed: Duration,
    /// What was covered.
    pub(crate) coverage: String,
    pub(crate) tally: Tally,
}

/// One run, as far as it has come.
pub(crate) struct Run<'a> {
    pub(crate) sim: Sim<'a>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) machines: Vec<Arc<Machine>>,
    pub(crate) random: StdRng,
    /// Processes that do not run, and when they start again.
    pub(crate) down: Vec<(u64, Duration)>,
    /// A node that cannot open its log: it never comes back.
    pub(crate) gone: Option<u64>,
    /// A log was damaged.
    pub(crate) damaged: bool,
    /// The next installation of a snapshot is to be interrupted; whose will be, and when.
    pub(crate) interrupt_install: bool,
    pub(crate) interrupt_at: Option<(u64, Duration)>,
    pub(crate) temper: Temper,
    /// When the cut that is will be mended.
    pub(crate) mend_at: Option<Duration>,
}

/// Runs a plan on this thread, whose time and randomness must be simulated.
pub(crate) fn run(plan: Plan) -> anyhow::Result<Report> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    if let Some(mutant) = plan.mutant {
        mutant.plant();
    }
    let witness = Witness::new(plan.trace, &plan.blind);
    // It is made with all nodes: the first thing that everybody sees is a vote that goes.
    let meta = (1..=node::VOTERS).map(NodeId);
    let cluster = Arc::new(Cluster {
        seed: plan.seed,
        nodes: plan.nodes,
        wishes: Mutex::new(BTreeMap::from([(ShardId::META, meta.collect())])),
        mutant: plan.mutant,
        keep_entries: random.random_range(0..100),
        ground: Ground::default(),
        witness: witness.clone(),
        staging: plan.staging,
        subscribed: AtomicU64::new(0),
        initialized: AtomicBool::new(false),
        sending: AtomicBool::new(true),
        session: Mutex::default(),
    });
    let latency = Duration::from_millis(random.random_range(2..20));
    let mut sim = turmoil::Builder::new()
        .tick_duration(TICK)
        .epoch(UNIX_EPOCH + os::WALL_START)
        .simulation_duration(DURATION_MAX)
        .min_message_latency(TICK)
        .max_message_latency(latency)
        .tcp_capacity(SEGMENTS_MAX)
        .rng_seed(plan.seed)
        .build();
    let machines: Vec<_> =
        (1..=plan.nodes).map(|id| Machine::new(id, random.random_range(-500..500))).collect();
    for machine in &machines {
        let (cluster, machine) = (Arc::clone(&cluster), Arc::clone(machine));
        let name = host(machine.id);
        sim.host(name, move || node::run(Arc::clone(&cluster), Arc::clone(&machine)));
    }
    let devices = Arc::clone(&cluster);
    sim.host(host(devices::MACHINE), move || devices::run(Arc::clone(&devices)));
    let temper = Temper::draw(&mut random);
    let mut run = Run {
        sim,
        cluster,
        machines,
        random,
        down: Vec::new(),
        gone: None,
        damaged: false,
        interrupt_install: false,
        interrupt_at: None,
        temper,
        mend_at: None,
    };
    run.all()?;
    let (events, hash) = witness.finish();
    let (violation, coverage, tally) = (witness.violation(), witness.coverage(), witness.tally());
    Ok(Report { violation, events, hash, elapsed: os::elapsed(), coverage, tally })
}

impl Run<'_> {
    fn all(&mut self) -> anyhow::Result<()> {
        if !self.steps_until(SETTLE_FOR, |run| run.is_served())? {
            return self.give_up("no session was opened");
        }
        let until = os::elapsed() + FAULTS_FOR;
        while os::elapsed() < until {
            self.fault()?;
            let pause =
                Duration::from_millis(self.random.random_range(20..=self.temper.pause_ms_max));
            if self.steps_until(pause, Self::is_violated)? {
                return Ok(());
            }
        }
        self.calm();
        if self.steps_until(SETTLE_FOR, Self::is_violated)? {
            return Ok(());
        }
        let whole = self.cluster.ground.facts().cuts.is_empty();
        self.tell(Event::Calm { whole });
        if self.steps_until(CALM_FOR, Self::is_violated)? {
            return Ok(());
        }
        self.tell(Event::End { clients: self.to_be_served(), whole });
        self.cluster.sending.store(false, Ordering::Relaxed);
        self.mend();
        let owes_nothing = |run: &mut Self| run.cluster.witness.owed() == 0;
        self.steps_until(DRAINED_WITHIN, owes_nothing)?;
        self.tell(Event::Drained);
        if self.is_violated() {
            return Ok(());
        }
        if !self.steps_until(EQUAL_WITHIN, Self::is_equal)? {
            return self.give_up("the replicas did not become equal");
        }
        self.look()
    }

    pub(crate) fn tell(&self, event: Event) {
        self.cluster.witness.tell(event);
    }

    fn give_up(&self, why: &str) -> anyhow::Result<()> {
        self.tell(Event::Stuck { why: why.to_owned() });
        Ok(())
    }

    pub(crate) fn is_violated(&mut self) -> bool {
        self.cluster.witness.violation().is_some()
    }

    fn is_served(&mut self) -> bool {
        let devices = self.cluster.subscribed.load(Ordering::Relaxed);
        let session = self.cluster.session.lock().expect("no panic while it is locked");
        session.is_some() && devices == devices::SUBSCRIPTIONS.len() as u64
    }

    /// Steps until something is so, or the time is over; whether it became so.
    pub(crate) fn steps_until(
        &mut self,
        within: Duration,
        mut is_so: impl FnMut(&mut Self) -> bool,
    ) -> anyhow::Result<bool> {
        let until = os::elapsed() + within;
        while os::elapsed() < until {
            if is_so(self) {
                return Ok(true);
            }
            self.restart_due();
            self.watch();
            if let Err(error) = self.sim.step() {
                bail!("a process ended: {error}");
            }
            os::set_elapsed(self.sim.elapsed());
        }
        Ok(is_so(self))
    }

    fn restart_due(&mut self) {
        let now = os::elapsed();
        if self.mend_at.take_if(|at| *at <= now).is_some() {
            self.mend();
        }
        let due: Vec<u64> =
            self.down.iter().filter(|(_, at)| *at <= now).map(|(node, _)| *node).collect();
        self.down.retain(|(_, at)| *at > now);
        for node in due {
            {
                let mut facts = self.cluster.ground.facts();
                facts.dead.remove(&node);
                facts.dark.remove(&node);
            }
            self.apply_cuts();
            self.sim.bounce(host(node));
        }
    }

    /// Of each list one client at least must have been served in calm.
    fn to_be_served(&self) -> Vec<Vec<u64>> {
        let cut = self.cluster.ground.facts().cuts.first().copied();
        let client =
            |node: u64| client::name(node, self.machine(node).processes.load(Ordering::Relaxed));
        let is_end = |node: &u64| cut.is_some_and(|(from, to)| [from, to].contains(node));
        let others = self.target(SHARD).into_iter().filter(|node| !is_end(node));
        let mut lists: Vec<_> = others.map(|node| vec![client(node)]).collect();
        if let Some((from, to)) = cut {
            // Also if one of them is to vote no more: it may lead still, for the other cannot catch up.
            lists.push(vec![client(from), client(to)]);
        }
        lists
    }

    /// No more faults; but in some runs one link stays cut in one direction for ever.
    fn calm(&mut self) {
        let (from, to) = (self.any(), self.any());
        // With a node gone for good that would be more than a minority.
        let asymmetric = from != to && self.random.random_range(0..2) == 0 && !self.damaged;
        self.tell(Event::Fault(format!("over; {from} to {to} cut for ever: {asymmetric}")));
        let cuts = asymmetric.then_some((from, to)).into_iter().collect();
        self.cluster.ground.facts().cuts = cuts;
        (self.mend_at, self.interrupt_install, self.interrupt_at) = (None, false, None);
        for machine in &self.machines {
            machine.switches.heal();
        }
        self.apply_cuts();
        let now = os::elapsed();
        self.down.iter_mut().for_each(|(_, at)| *at = now);
    }
}
