//! One run: a cluster, a plan of faults from the seed, calm, and the final look at every replica.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use moorline_core::{NodeId, ShardId};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use turmoil::Sim;

use crate::{
    client, devices,
    disk::Crash,
    invariants::Violation,
    mutant::Mutant,
    net::{Ground, host},
    node::{self, Cluster, Machine, SHARD},
    os,
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
/// Kinds of faults: a process killed, a node or all nodes without power, links cut, a disk that stalls, other voters.
const KINDS: usize = 6;
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
}

struct Run<'a> {
    sim: Sim<'a>,
    cluster: Arc<Cluster>,
    machines: Vec<Arc<Machine>>,
    random: StdRng,
    /// Processes that do not run, and when they start again.
    down: Vec<(u64, Duration)>,
    faults: [u64; KINDS],
    temper: Temper,
    /// When the cut that is will be mended.
    mend_at: Option<Duration>,
}

/// How a run behaves: a part of the faults only, dense or rare, so that not every run is the same mixture.
#[derive(Debug)]
struct Temper {
    kinds: Vec<usize>,
    pause_ms_max: u64,
    /// How long a node is away at most.
    away_ms_max: u64,
}

impl Temper {
    fn draw(random: &mut StdRng) -> Self {
        let mut kinds: Vec<usize> = (0..KINDS).filter(|_| random.random_bool(0.5)).collect();
        if kinds.is_empty() {
            kinds = (0..KINDS).collect();
        }
        Self {
            kinds,
            pause_ms_max: random.random_range(300..6000),
            away_ms_max: random.random_range(500..12_000),
        }
    }
}

/// Runs a plan on this thread, whose time and randomness must be simulated.
pub(crate) fn run(plan: Plan) -> anyhow::Result<Report> {
    let mut random = StdRng::seed_from_u64(plan.seed);
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
        faults: [0; KINDS],
        temper,
        mend_at: None,
    };
    run.all()?;
    let (events, hash) = witness.finish();
    let coverage = format!("faults {:?}; {}", run.faults, witness.coverage());
    Ok(Report { violation: witness.violation(), events, hash, elapsed: os::elapsed(), coverage })
}

impl Run<'_> {
    fn all(&mut self) -> anyhow::Result<()> {
        if !self.steps_until(SETTLE_FOR, |run| run.is_served())? {
            return self.give_up("no session was opened");
        }
        let until = os::elapsed() + FAULTS_FOR;
        while os::elapsed() < until {
            self.fault();
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
        self.tell(Event::Calm);
        if self.steps_until(CALM_FOR, Self::is_violated)? {
            return Ok(());
        }
        let whole = self.cluster.ground.facts().cuts.is_empty();
        self.tell(Event::End { clients: self.to_be_served(), whole });
        self.cluster.sending.store(false, Ordering::Relaxed);
        self.mend();
        let owes_nothing = |run: &mut Self| run.cluster.witness.owed() == 0;
        self.steps_until(DRAINED_WITHIN, owes_nothing)?;
        self.tell(Event::Drained);
        if !self.steps_until(EQUAL_WITHIN, Self::is_equal)? {
            return self.give_up("the replicas did not become equal");
        }
        self.look()
    }

    fn tell(&self, event: Event) {
        self.cluster.witness.tell(event);
    }

    fn give_up(&self, why: &str) -> anyhow::Result<()> {
        self.tell(Event::Stuck { why: why.to_owned() });
        Ok(())
    }

    fn is_violated(&mut self) -> bool {
        self.cluster.witness.violation().is_some()
    }

    fn is_served(&mut self) -> bool {
        let devices = self.cluster.subscribed.load(Ordering::Relaxed);
        let session = self.cluster.session.lock().expect("no panic while it is locked");
        session.is_some() && devices == devices::SUBSCRIPTIONS.len() as u64
    }

    /// Steps until something is so, or the time is over; whether it became so.
    fn steps_until(
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

    fn crash(&mut self, node: u64, how: Crash, for_ms: u64) {
        if self.down.iter().any(|(down, _)| *down == node) {
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
        let machine = Arc::clone(&self.machines[usize::try_from(node - 1).expect("few nodes")]);
        machine.stopped();
        self.sim.crash(host(node));
        machine.log.lock().expect("no panic while it is locked").crash(how, &mut self.random);
        machine.rows.crash();
        self.down.push((node, os::elapsed() + Duration::from_millis(for_ms)));
    }

    /// Makes the network what the facts say.
    fn apply_cuts(&self) {
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

    fn any(&mut self) -> u64 {
        self.random.random_range(1..=self.cluster.nodes)
    }

    /// Cuts some links, or mends all.
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
        self.tell(Event::Fault(format!("cut {cuts:?}")));
        self.cluster.ground.facts().cuts = cuts;
        self.apply_cuts();
        let ms = self.random.random_range(100..=self.temper.away_ms_max);
        self.mend_at = Some(os::elapsed() + Duration::from_millis(ms));
    }

    /// One voter of a group less, and another one in its place.
    fn replace(&mut self) {
        let shard = ShardId(self.random.random_range(0..=node::SHARDS));
        let mut voters: Vec<u64> = self.target(shard).into_iter().collect();
        let out: Vec<u64> = (1..=self.cluster.nodes).filter(|n| !voters.contains(n)).collect();
        let Some(new) = out.get(self.random.random_range(0..out.len().max(1))).copied() else {
            return;
        };
        let old = self.random.random_range(0..voters.len());
        voters[old] = new;
        self.tell(Event::Fault(format!("voters of {shard} are to be {voters:?}")));
        let voters = voters.into_iter().map(NodeId).collect();
        let mut wishes = self.cluster.wishes.lock().expect("no panic while it is locked");
        wishes.insert(shard, voters);
    }

    /// Who is to vote in a group: whom the run wished for, or whom the group was made with.
    fn target(&self, shard: ShardId) -> BTreeSet<u64> {
        let wished = self.cluster.target(shard);
        if !wished.is_empty() {
            return wished;
        }
        let around = (1..=self.cluster.nodes).cycle().skip(usize::from(shard.0) - 1);
        around.take(usize::try_from(node::VOTERS).expect("few")).collect()
    }

    fn mend(&mut self) {
        self.tell(Event::Fault("mend".to_owned()));
        self.cluster.ground.facts().cuts.clear();
        self.apply_cuts();
    }

    fn fault(&mut self) {
        let kind = self.temper.kinds[self.random.random_range(0..self.temper.kinds.len())];
        self.faults[kind] += 1;
        let node = self.any();
        let ms = self.random.random_range(50..=self.temper.away_ms_max);
        match kind {
            0 => self.crash(node, Crash::Process, ms),
            1 => self.crash(node, Crash::Power, ms),
            2 => {
                for node in 1..=self.cluster.nodes {
                    let ms = self.random.random_range(50..1500);
                    self.crash(node, Crash::Power, ms);
                }
            }
            3 => self.cut(),
            4 => self.replace(),
            _ => {
                let stall = self.random.random_range(0..600);
                self.tell(Event::Fault(format!("syncs of n{node} take {stall} ms longer")));
                self.machines[usize::try_from(node - 1).expect("few nodes")]
                    .stall
                    .store(stall, Ordering::Relaxed);
            }
        }
    }

    /// Of each list one client at least must have been served in calm.
    fn to_be_served(&self) -> Vec<Vec<u64>> {
        let cut = self.cluster.ground.facts().cuts.first().copied();
        let client = |node: u64| {
            let machine = &self.machines[usize::try_from(node - 1).expect("few nodes")];
            client::name(node, machine.processes.load(Ordering::Relaxed))
        };
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
        let asymmetric = from != to && self.random.random_range(0..2) == 0;
        self.tell(Event::Fault(format!("over; {from} to {to} cut for ever: {asymmetric}")));
        let cuts = asymmetric.then_some((from, to)).into_iter().collect();
        self.cluster.ground.facts().cuts = cuts;
        self.mend_at = None;
        for machine in &self.machines {
            machine.stall.store(0, Ordering::Relaxed);
        }
        self.apply_cuts();
        let now = os::elapsed();
        self.down.iter_mut().for_each(|(_, at)| *at = now);
    }

    /// Those that are to vote in a group.
    fn voting(&self, shard: ShardId) -> impl Iterator<Item = &Arc<Machine>> {
        let target = self.target(shard);
        self.machines.iter().filter(move |machine| target.contains(&machine.id))
    }

    /// Whether they do, and no others.
    fn is_moved(&self, shard: ShardId) -> bool {
        let target = self.target(shard).into_iter().map(NodeId).collect::<BTreeSet<_>>();
        let mut groups = self.machines.iter().filter_map(|machine| machine.groups());
        groups.any(|groups| {
            groups.members(shard).is_some_and(|members| members.voters == [target.clone()])
        })
    }

    /// Whether every replica has applied the same, in all groups.
    fn is_equal(&mut self) -> bool {
        node::all_groups().all(|shard| {
            let applied = |machine: &Arc<Machine>| {
                let groups = machine.groups()?;
                groups.applied(shard).map(|applied| *applied.borrow())
            };
            let first = self.voting(shard).next().and_then(applied);
            let all = self.voting(shard).all(|machine| applied(machine) == first);
            first.is_some() && all && self.is_moved(shard)
        })
    }

    /// Looks at every replica of the shards without the clients' queue.
    fn compare(&self) -> anyhow::Result<()> {
        for shard in node::all_groups().filter(|shard| *shard != SHARD) {
            for machine in self.voting(shard) {
                let groups = machine.groups().context("a node that runs")?;
                let applied = groups.applied(shard).context("a replica")?;
                let index = *applied.borrow();
                let read = groups.read(shard, |machine, rows| {
                    machine.assert_derived(rows)?;
                    machine.digest(rows)
                });
                let digest = read.context("rows")??;
                // Not the digests that replicas make by themselves: those are of other indices.
                self.tell(Event::Digest { node: machine.id, shard, index, digest });
            }
        }
        Ok(())
    }

    fn look(&mut self) -> anyhow::Result<()> {
        self.compare()?;
        let session = *self.cluster.session.lock().expect("no panic while it is locked");
        let session = session.context("a session")?;
        for machine in self.voting(SHARD) {
            let groups = machine.groups().context("a node that runs")?;
            let applied = groups.applied(SHARD).context("a replica")?;
            let applied = *applied.borrow();
            let read = groups.read(SHARD, |machine, rows| {
                machine.assert_derived(rows)?;
                let info = machine.session(session).expect("it never expires");
                let items = usize::try_from(info.tail.0).expect("not so many");
                let queue = machine.queue_read(rows, session, info.head, items, usize::MAX)?;
                Ok::<_, moorline_storage::StorageError>((queue, machine.digest(rows)?))
            });
            let (queue, digest) = read.context("rows")??;
            let queue = queue.iter().map(|delivery| client::of_payload(&delivery.message.payload));
            let queue: Option<Vec<_>> = queue.collect();
            let queue = queue.context("a message that no client made")?;
            self.tell(Event::Final { node: machine.id, queue, applied, digest });
        }
        Ok(())
    }
}
