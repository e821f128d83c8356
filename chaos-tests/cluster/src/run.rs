//! A run from seed to verdict.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use moorline_oracle::gaps::{self, Spread};
use moorline_oracle::history::{FORMAT, Header, Stage};
use moorline_oracle::{Op, Phase, Rules, judge};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, sleep_until};

use crate::admin::{self, Digest};
use crate::change::{self, Change};
use crate::client::publisher::{Pace, Publisher};
use crate::client::subscriber::{Habit, Subscriber};
use crate::client::{Peer, Shared};
use crate::cluster::{Cluster, Recipe, tail};
use crate::member::Membership;
use crate::nemesis::Nemesis;
use crate::options::{Course, Run, UpgradePlan};
use crate::recorder::{Actor, Recorder};
use crate::report::Report;
use crate::schedule::{self, Deed, Step};
use crate::upgrade::Upgrade;
use crate::usage;

/// What rates are counted in.
const SECOND: Duration = Duration::from_secs(1);
/// How long subscribers may take to get their first SUBACK.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(60);
/// How often slow conditions are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// After the last expected message the subscribers listen on for this long: a copy too many would come now.
const QUIET: Duration = Duration::from_millis(1_500);
/// A drain in which nothing arrives for this long has failed; what is missing is lost.
const STALL_MAX: Duration = Duration::from_secs(20);
/// How long clients may take to end once told to.
const STOP_MAX: Duration = Duration::from_secs(10);
/// How long digests may take to be on every node.
const DIGESTS_MAX: Duration = Duration::from_secs(30);
/// How many lines of each node's log are shown when a node fails.
const TAIL_LINES: usize = 20;
/// How much of what was due must have been acknowledged for a run to count, in percent.
const ACKED_PERCENT_MIN: u64 = 20;

/// Runs everything and reports. Files stay below `directory`.
pub async fn run(run: &Run, directory: &Path) -> Result<Report> {
    let options = &run.options;
    // Who is to join and to leave does not wait for the clock: each step of it for the one before.
    let timed = run.member.is_none() && run.upgrade.is_none();
    let steps = if timed { schedule::expand(&run.plan) } else { Vec::new() };
    let text = serde_json::to_string_pretty(&(&run.plan, &steps))?;
    fs::write(directory.join("schedule.json"), text)?;
    let planned = run.member.map_or(steps.len() as u64, |member| member.kills());
    println!("{planned} faults planned, what of them is timed is written to schedule.json");

    let binary = options.binary.canonicalize();
    let recipe = Recipe {
        binary: binary.with_context(|| format!("{} is not there", options.binary.display()))?,
        nodes: options.nodes,
        spares: run.member.map_or(0, |member| member.joins()),
        shards: options.shards,
        disk: options.disk,
        networks: run.plan.deed == Deed::Cut,
        devices: false,
        little_log: measured(run),
        clocks: None,
        environment: options.environment.clone(),
    };
    let recorder = Recorder::create(&directory.join("history.jsonl"), &header(run))?;
    let mut cluster = Cluster::prepare(recipe, directory)?;
    let peers = Arc::clone(&cluster.peers);
    let (publishers, subscribers) = (options.publishers as usize, options.subscribers as usize);
    let shared = Arc::new(Shared::new(recorder.clone(), peers, publishers, subscribers));

    let stopped = shared.stop.clone().drop_guard();
    let ran = act(run, &steps, &mut cluster, &shared).await;
    drop(stopped);
    // Whatever happened, the processes end before their disks and networks go.
    let ended = cluster.stop().await;
    let Acted { starts, late, replicas, change } = ran.with_context(|| logs(&cluster))?;
    ended?;

    let events = recorder.finish().context("the history could not be written")?;
    let due = u64::from(options.rate) * options.seconds;
    let rules = Rules {
        acked_min: due * ACKED_PERCENT_MIN / 100,
        // A change of the cluster is either done as a whole or an error.
        faults_min: (planned / 2).max(u64::from(timed)),
        replicas,
        ..Rules::default()
    };
    let starts = starts.iter().map(|took| nanos(*took)).collect();
    Ok(Report {
        seed: run.plan.seed,
        verdict: judge(&events, &rules),
        gaps: gaps::measure(&events),
        starts: Spread::of(starts),
        late_ns: nanos(late),
        change: change.map(|change| change.measured(&events)),
        expect_loss: options.expect_loss,
        every_gap: options.gap_report,
    })
}

/// What a run leaves besides its history.
struct Acted {
    /// How long each start took until the node was ready.
    starts: Vec<Duration>,
    /// How late the harness itself was at worst.
    late: Duration,
    /// How many digests there must be of each shard.
    replicas: u32,
    /// What was done to the cluster as a whole, if it was.
    change: Option<Change>,
}

/// The run proper: clients on, faults, clients off, digests.
async fn act(
    run: &Run,
    steps: &[Step],
    cluster: &mut Cluster,
    shared: &Arc<Shared>,
) -> Result<Acted> {
    let options = &run.options;
    cluster.start().await?;
    let mut random = StdRng::seed_from_u64(run.plan.seed);
    let mut subscribers = JoinSet::new();
    for number in 0..options.subscribers {
        let (seed, many) = (random.random(), options.publishers as usize);
        let habit = match number {
            _ if options.no_churn => Habit::Stays,
            0 if options.subscribers > 1 => Habit::Sleeps,
            _ => Habit::Churns,
        };
        let subscriber = Subscriber::new(Arc::clone(shared), number, seed, many, habit);
        subscribers.spawn(subscriber.run());
    }
    wait_subscribed(shared, u64::from(options.subscribers)).await?;
    if options.expect_loss {
        // As a kernel does after half a minute: so that the cluster and its sessions survive, and what is lost is
        // acknowledged messages. That a cluster is lost as a whole needs no checker to be seen.
        cluster.write_back()?;
    }

    mark(shared, Stage::Publishing);
    let period = SECOND * options.publishers / options.rate;
    let pace = Pace { period, payload: options.payload };
    let mut publishers = JoinSet::new();
    for number in 0..options.publishers {
        let publisher = Publisher::new(Arc::clone(shared), number, random.random(), pace);
        publishers.spawn(publisher.run());
    }
    let recorder = shared.recorder.clone();
    let mut nemesis = Nemesis { cluster, recorder, scope: run.scope, starts: Vec::new() };
    let began = Instant::now();
    let late = Mutex::new(Duration::ZERO);
    let faults = strike(run, steps, &mut nemesis, (shared, random.random()), began);
    let change = tokio::select! {
        done = faults => done?,
        never = lateness(&late) => match never {},
    };
    let late = late.into_inner().expect("no panic while it is locked");
    nemesis.look_for_deaths()?;

    shared.drain.cancel();
    mark(shared, Stage::Draining);
    let deadline = Instant::now() + Duration::from_secs(options.drain_seconds);
    let drained = drain(shared, &mut publishers, deadline).await;
    mark(shared, if drained { Stage::Drained } else { Stage::DrainTimedOut });
    nemesis.look_for_deaths()?;
    let replicas = if options.no_digests { 0 } else { digests(shared).await? };
    shared.stop.cancel();
    end(publishers).await?;
    end(subscribers).await?;
    Ok(Acted { starts: nemesis.starts, late, replicas, change })
}

/// Does what the run is about, and waits until its seconds are over.
async fn strike(
    run: &Run,
    steps: &[Step],
    nemesis: &mut Nemesis<'_>,
    (shared, seed): (&Arc<Shared>, u64),
    began: Instant,
) -> Result<Option<Change>> {
    let seconds = run.options.seconds;
    let ends = began + Duration::from_secs(seconds);
    let change = match (run.member, &run.upgrade) {
        (Some(plan), _) => Membership::new(nemesis, plan, seed).run(seconds).await?,
        (None, Some(plan)) => {
            let (plan, shared) = (programs(plan)?, Arc::clone(shared));
            Some(Upgrade::new(nemesis, plan, shared, seed).run(seconds).await?)
        }
        (None, None) => {
            nemesis.run(steps, began, ends).await?;
            None
        }
    };
    // As much after a change as before it.
    let rest = change.as_ref().map_or(Duration::ZERO, |_| change::rest(seconds));
    sleep_until(ends.max(Instant::now() + rest)).await;
    Ok(change)
}

/// Whether a run is about a change that is measured: then who is new needs snapshots, as after weeks of work.
fn measured(run: &Run) -> bool {
    let member = run.member.is_some_and(|plan| match plan.course {
        Course::Grow | Course::Replace => true,
        Course::Whole | Course::Brief => false,
    });
    member || run.upgrade.is_some()
}

/// The programs, wherever nodes are started.
fn programs(plan: &UpgradePlan) -> Result<UpgradePlan> {
    let whole = |path: &Path| {
        path.canonicalize().with_context(|| format!("{} is not there", path.display()))
    };
    Ok(UpgradePlan { from: whole(&plan.from)?, to: whole(&plan.to)?, back: plan.back })
}

/// Ticks and notes how late the worst tick was: a harness starved of time measures its own gaps.
pub(crate) async fn lateness(worst: &Mutex<Duration>) -> Infallible {
    let mut tick = interval(LOOK_EVERY);
    loop {
        let due = tick.tick().await;
        let mut worst = worst.lock().expect("no panic while it is locked");
        *worst = worst.max(due.elapsed());
    }
}

pub(crate) async fn wait_subscribed(shared: &Shared, many: u64) -> Result<()> {
    let deadline = Instant::now() + SUBSCRIBE_MAX;
    while shared.progress.subscribed() < many {
        if Instant::now() > deadline {
            bail!("only {} of {many} subscribers got a SUBACK", shared.progress.subscribed());
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Waits until publishers know every outcome and subscribers have everything. Whether that happened in time.
pub(crate) async fn drain(
    shared: &Shared,
    publishers: &mut JoinSet<()>,
    deadline: Instant,
) -> bool {
    let mut moves = shared.progress.moves();
    let mut moved = Instant::now();
    loop {
        while publishers.try_join_next().is_some() {}
        if publishers.is_empty() && shared.progress.has_drained() {
            sleep(QUIET).await;
            return true;
        }
        let now = shared.progress.moves();
        if now != moves {
            (moves, moved) = (now, Instant::now());
        }
        if Instant::now() > deadline || moved.elapsed() > STALL_MAX {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Has every group take a digest and notes what each of its replicas says it is. Returns how many replicas the group
/// with the fewest has.
pub(crate) async fn digests(shared: &Shared) -> Result<u32> {
    // Who was not started, or has left, has none.
    let peers: Vec<&Peer> = shared.peers.iter().filter(|peer| peer.is_up()).collect();
    let voters = voters(&peers).await;
    // A node speaks of the groups that it has: where there are more nodes than replicas, it takes several for all.
    let mut wanted: BTreeMap<u32, Digest> = BTreeMap::new();
    let mut problem = anyhow::anyhow!("there is no node");
    let mut answered = false;
    for peer in &peers {
        match admin::digests(peer.admin).await {
            // Of two the later: it is the one that every replica will have.
            Ok(given) => {
                answered = true;
                wanted.extend(given.groups.into_iter().map(|one| (one.shard, one)));
            }
            Err(error) => problem = error,
        }
        if answered && voters.keys().all(|shard| wanted.contains_key(shard)) {
            break;
        }
    }
    let missed: Vec<&u32> = voters.keys().filter(|shard| !wanted.contains_key(shard)).collect();
    if !answered || !missed.is_empty() {
        return Err(problem.context(format!("no node gave digests of groups {missed:?}")));
    }
    let deadline = Instant::now() + DIGESTS_MAX;
    let mut fewest = peers.len();
    for want in wanted.values() {
        let mut replicas = 0;
        for peer in &peers {
            // Who has no vote there has no replica, or only follows.
            let votes = voters.get(&want.shard).is_none_or(|all| all.contains(&peer.id));
            replicas += usize::from(votes && digest(shared, peer, want, deadline).await);
        }
        fewest = fewest.min(replicas);
    }
    usage::note_accounts(shared).await;
    Ok(u32::try_from(fewest.max(1)).expect("few nodes"))
}

/// Who votes in each group, as its leader says.
async fn voters(peers: &[&Peer]) -> BTreeMap<u32, Vec<u32>> {
    let mut voters = BTreeMap::new();
    for peer in peers {
        let view = admin::view(peer.admin).await.unwrap_or_default();
        let led = view.groups.into_iter().filter(|group| group.leader == Some(peer.id));
        voters.extend(led.map(|group| (group.shard, group.voters)));
    }
    voters
}

/// Waits for one replica's digest and notes it. A replica that never gets there is missed by the judge. Whether this
/// node should have one.
async fn digest(shared: &Shared, peer: &Peer, want: &Digest, deadline: Instant) -> bool {
    loop {
        let view = admin::view(peer.admin).await.unwrap_or_default();
        let here = view.groups.into_iter().find(|group| group.shard == want.shard);
        if let Some(group) = here {
            if !group.voters.is_empty() && !group.voters.contains(&peer.id) {
                return false;
            }
            if let (Some(index), Some(digest)) = (group.digest_index, group.digest)
                && index >= want.index
            {
                let actor = Actor { name: "harness", node: Some(peer.id) };
                let op = Op::Digest { shard: group.shard, index, digest };
                shared.recorder.note(actor, Phase::Ok, op);
                return true;
            }
        }
        if Instant::now() > deadline {
            return true;
        }
        sleep(LOOK_EVERY).await;
    }
}

pub(crate) async fn end(mut clients: JoinSet<()>) -> Result<()> {
    let all = async {
        while let Some(ended) = clients.join_next().await {
            ended.context("a client of the harness failed")?;
        }
        Ok(())
    };
    tokio::time::timeout(STOP_MAX, all).await.context("clients did not end")?
}

pub(crate) fn mark(shared: &Shared, stage: Stage) {
    let actor = Actor { name: "harness", node: None };
    shared.recorder.note(actor, Phase::Ok, Op::Mark { stage });
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("584 years")
}

fn header(run: &Run) -> Header {
    Header {
        format: FORMAT,
        seed: run.plan.seed,
        command: std::env::args().collect(),
        machine: machine(),
        wanted: None,
    }
}

/// The machine, for the header of a history.
pub(crate) fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let (kernel, load) = (read("/proc/sys/kernel/osrelease"), read("/proc/loadavg"));
    format!("{cores} cores, kernel {kernel}, load {load}")
}

pub(crate) fn logs(cluster: &Cluster) -> String {
    let mut text = "the run did not come to its end; the nodes' last words:".to_owned();
    for node in &cluster.nodes {
        text += &format!("\n--- node {}\n{}", node.id, tail(node.log(), TAIL_LINES));
    }
    text
}

/// The directory of a run: temporary, unless something is to be kept.
#[derive(Debug)]
pub struct Workplace {
    temporary: Option<TempDir>,
    path: PathBuf,
}

impl Workplace {
    /// Below the system's temporary directory.
    pub fn create() -> Result<Self> {
        let temporary = tempfile::Builder::new().prefix("moorline-chaos-").tempdir()?;
        Ok(Self { path: temporary.path().to_owned(), temporary: Some(temporary) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies what a reader wants (not the nodes' data) to `out`.
    pub fn copy_to(&self, out: &Path) -> Result<()> {
        fs::create_dir_all(out)?;
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.metadata()?.is_file() {
                fs::copy(entry.path(), out.join(entry.file_name()))?;
            }
        }
        Ok(())
    }

    /// Keeps everything where it is.
    pub fn keep(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            self.path = temporary.keep();
        }
    }
}
