//! A run of a scenario: all workloads together, every blow, then drain, last questions, digests, verdict.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use moorline_oracle::gaps::{self, Spread};
use moorline_oracle::history::{FORMAT, Header, Stage, Unwanted};
use moorline_oracle::{Event, Op, Phase, Rules, Verdict, judge_with};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::client::Shared;
use crate::client::api::Api;
use crate::client::loads::Loads;
use crate::client::mailbox::Mailboxes;
use crate::client::publisher::{Pace, Publisher};
use crate::client::registry::Registry;
use crate::client::subscriber::{Habit, Subscriber};
use crate::cluster::{Cluster, KEY, Recipe, clock_library};
use crate::http::Http;
use crate::nemesis::Nemesis;
use crate::network::Scope;
use crate::page;
use crate::recorder::{Actor, Recorder};
use crate::report::Report;
use crate::run::{digests, drain, end, lateness, logs, machine, mark, nanos, wait_subscribed};
use crate::scenario::{Net, Scenario};
use crate::{storm, usage, watch};

/// What rates are counted in.
const SECOND: Duration = Duration::from_secs(1);
/// Publishers, and subscribers.
const CLIENTS: u32 = 8;
/// Length of a message, in bytes.
const PAYLOAD: usize = 256;
/// How long messages may take to arrive after the faults.
const DRAIN_MAX: Duration = Duration::from_secs(90);
/// How long requests that are under way may take to end, and last questions to be answered.
const LAST_MAX: Duration = Duration::from_secs(240);
/// How long before the end of a connection a PUBACK may have been lost with it, in nanoseconds: where disks stall and nodes vanish
/// it takes until a group has a leader again.
const ACK_GRACE_NS: u64 = 15_000_000_000;

/// Judges a history by what its own header wants.
pub fn judged(header: &Header, events: &[Event]) -> Verdict {
    let wanted = header.wanted.as_ref();
    let rules = Rules {
        ack_grace_ns: ACK_GRACE_NS,
        acked_min: wanted.map_or(0, |wanted| wanted.publishes),
        // Which faults there must be is the check of coverage's.
        faults_min: 0,
        unknown_permille_max: wanted.map_or(0, |wanted| wanted.unknown_permille_max),
        replicas: wanted.map_or(0, |wanted| wanted.replicas),
    };
    judge_with(events, &rules, wanted)
}

/// Runs a scenario and reports; writes whom it hit back to it. Files stay below `directory`.
pub async fn run(scenario: &mut Scenario, binary: &Path, directory: &Path) -> Result<Report> {
    let schedule = directory.join("run.json");
    fs::write(&schedule, scenario.json())?;
    println!("seed {}: {} blows planned", scenario.seed, scenario.blows.len());
    let header = Header {
        format: FORMAT,
        seed: scenario.seed,
        command: std::env::args().collect(),
        machine: machine(),
        wanted: Some(scenario.wanted()),
    };
    let recorder = Recorder::create(&directory.join("history.jsonl"), &header)?;
    let mut cluster = Cluster::prepare(recipe(scenario, binary)?, directory)?;
    let clients = usize::try_from(CLIENTS)?;
    let peers = Arc::clone(&cluster.peers);
    let shared = Arc::new(Shared::new(recorder.clone(), peers, clients, clients));

    let stopped = shared.stop.clone().drop_guard();
    let ran = act(scenario, &mut cluster, &shared).await;
    drop(stopped);
    let ended = cluster.stop().await;
    // Whom it hit, also of a run that did not come to its end.
    fs::write(&schedule, scenario.json())?;
    let Acted { starts, late, secrets } = ran.with_context(|| logs(&cluster))?;
    ended?;
    look_through(&cluster, &recorder, &secrets)?;

    let events = recorder.finish().context("the history could not be written")?;
    let verdict = judged(&header, &events);
    let summary = page::Summary::of(&header, &events, &verdict);
    fs::write(directory.join("summary.json"), summary.json())?;
    fs::write(directory.join("report.html"), page::html(&header, &events, &summary))?;
    Ok(Report {
        seed: scenario.seed,
        verdict,
        gaps: gaps::measure(&events),
        starts: Spread::of(starts.iter().map(|took| nanos(*took)).collect()),
        late_ns: nanos(late),
        expect_loss: false,
        every_gap: false,
    })
}

fn recipe(scenario: &Scenario, binary: &Path) -> Result<Recipe> {
    let binary: PathBuf =
        binary.canonicalize().with_context(|| format!("{} is not there", binary.display()))?;
    Ok(Recipe {
        binary,
        nodes: scenario.nodes,
        spares: scenario.joins(),
        shards: scenario.shards,
        disk: scenario.disk,
        networks: scenario.net == Net::Netns,
        devices: true,
        clocks: scenario.clocks.then(clock_library).transpose()?,
        environment: Vec::new(),
    })
}

/// Looks through the nodes' logs for what must not be there.
fn look_through(cluster: &Cluster, recorder: &Recorder, secrets: &[String]) -> Result<()> {
    for node in cluster.nodes.iter().filter(|node| node.was_started()) {
        let log = fs::read(node.log()).with_context(|| format!("{}", node.log().display()))?;
        for line in String::from_utf8_lossy(&log).lines() {
            let actor = Actor { name: "harness", node: Some(node.id) };
            let note = |why, line: &str| {
                recorder.note(actor, Phase::Ok, Op::Log { why, line: line.to_owned() });
            };
            if line.contains("panicked at") {
                note(Unwanted::Panic, line);
            }
            if let Some(secret) = secrets.iter().find(|secret| line.contains(secret.as_str())) {
                note(Unwanted::Secret, &line.replace(secret.as_str(), "SECRET"));
            }
        }
    }
    Ok(())
}

/// What a run leaves besides its history.
struct Acted {
    /// How long each start took until the node was ready.
    starts: Vec<Duration>,
    /// How late the harness itself was at worst.
    late: Duration,
    /// What must be in no log.
    secrets: Vec<String>,
}

/// The clients of a run, at work.
struct Clients {
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
    /// Makes what has to be there, and begins.
    async fn begin(scenario: &Scenario, cluster: &Cluster, shared: &Arc<Shared>) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(scenario.seed);
        let http = Http::default();
        let token = cluster.first_token().await?;
        let api = Api::open(http.clone(), shared.peers[0].admin, token).await?;
        let boxes = Mailboxes::open(Arc::clone(shared), api.clone(), random.random()).await?;
        let given = [KEY.to_owned(), api.token().to_owned()];
        let secrets = given.into_iter().chain(boxes.secrets()).collect();
        let mut all = Self {
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
        // What was written before the faults is on disk, as it is after a while.
        cluster.write_back()?;
        mark(shared, Stage::Publishing);
        let load = scenario.load;
        let pace = Pace { period: SECOND * CLIENTS / load.publishes, payload: PAYLOAD };
        for number in 0..CLIENTS {
            let publisher = Publisher::new(Arc::clone(shared), number, random.random(), pace);
            all.publishers.spawn(publisher.run());
        }
        let (lasts, given) = (Duration::from_secs(scenario.seconds), api.clone());
        all.watching.spawn(watch::run(Arc::clone(shared)));
        if load.records > 0 {
            let registry = Registry::new(Arc::clone(shared), api, random.random());
            all.asking.spawn(registry.run(SECOND / load.records));
        }
        if load.inside > 0 {
            for (at, probe) in cluster.probes()?.into_iter().enumerate() {
                let api = given.by(Http::through(probe));
                let inside = Registry::inside(Arc::clone(shared), api, random.random(), at);
                all.asking.spawn(inside.run(SECOND * 10 / load.inside));
            }
        }
        if load.visits > 0 {
            all.visiting.spawn(boxes.run(SECOND / load.visits, lasts, load.revocations));
        }
        all.loads = Loads::begin(&load, lasts, (shared, given.clone()), random.random());
        Ok(all)
    }

    /// No new work; waits for what is under way and for what is owed, and asks the last questions. Whether all came in time.
    async fn drain(&mut self, shared: &Shared) -> Result<bool> {
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

    async fn end(self, shared: &Shared) -> Result<()> {
        shared.stop.cancel();
        self.http.close();
        end(self.publishers).await?;
        end(self.subscribers).await?;
        end(self.loads.into_listeners()).await?;
        end(self.watching).await
    }
}

async fn act(
    scenario: &mut Scenario,
    cluster: &mut Cluster,
    shared: &Arc<Shared>,
) -> Result<Acted> {
    cluster.start().await?;
    let mut clients = Clients::begin(scenario, cluster, shared).await?;
    let recorder = shared.recorder.clone();
    let mut nemesis = Nemesis { cluster, recorder, scope: Scope::All, starts: Vec::new() };
    let began = Instant::now();
    let late = Mutex::new(Duration::ZERO);
    let faults = async {
        storm::run(&mut nemesis, scenario, began).await?;
        sleep_until(began + Duration::from_secs(scenario.seconds)).await;
        Ok::<_, anyhow::Error>(())
    };
    tokio::select! {
        done = faults => done?,
        never = lateness(&late) => match never {},
    }
    let late = late.into_inner().expect("no panic while it is locked");
    nemesis.look_for_deaths()?;
    let drained = clients.drain(shared).await?;
    mark(shared, if drained { Stage::Drained } else { Stage::DrainTimedOut });
    nemesis.look_for_deaths()?;
    digests(shared).await?;
    let mut secrets = std::mem::take(&mut clients.secrets);
    secrets.extend(clients.loads.secrets());
    clients.end(shared).await?;
    usage::note(shared, true).await;
    Ok(Acted { starts: nemesis.starts, late, secrets })
}
