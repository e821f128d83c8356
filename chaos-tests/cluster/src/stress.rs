//! A run of a scenario: all workloads together, every blow, then drain, last questions, digests, verdict.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use moorline_oracle::gaps::{self, Spread};
use moorline_oracle::history::{FORMAT, Header, Stage, Unwanted};
use moorline_oracle::{Event, Op, Phase, Rules, Verdict, judge_with};
use tokio::time::{Instant, sleep_until};

use crate::client::Shared;
use crate::cluster::{Cluster, KEY, Recipe, clock_library};
use crate::crowd::{CLIENTS, Clients};
use crate::nemesis::Nemesis;
use crate::network::Scope;
use crate::page;
use crate::recorder::{Actor, Recorder};
use crate::report::Report;
use crate::run::{digests, lateness, logs, machine, mark, nanos};
use crate::scenario::{Net, Scenario};
use crate::{storm, usage};

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

    conclude(&header, &recorder, directory, (&starts, late))
}

/// Judges what was recorded, and writes the report: the last step of a run. `starts` says how long nodes took to be ready, `late`
/// how late the harness was.
pub(crate) fn conclude(
    header: &Header,
    recorder: &Recorder,
    directory: &Path,
    (starts, late): (&[Duration], Duration),
) -> Result<Report> {
    let events = recorder.clone().finish().context("the history could not be written")?;
    let verdict = judged(header, &events);
    let summary = page::Summary::of(header, &events, &verdict);
    fs::write(directory.join("summary.json"), summary.json())?;
    fs::write(directory.join("report.html"), page::html(header, &events, &summary))?;
    Ok(Report {
        seed: header.seed,
        verdict,
        gaps: gaps::measure(&events),
        starts: Spread::of(starts.iter().map(|took| nanos(*took)).collect()),
        late_ns: nanos(late),
        change: None,
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
        little_log: true,
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

async fn act(
    scenario: &mut Scenario,
    cluster: &mut Cluster,
    shared: &Arc<Shared>,
) -> Result<Acted> {
    cluster.start().await?;
    let token = cluster.first_token().await?;
    let mut clients = Clients::begin(shared, token, scenario.seed).await?;
    // What was written before the faults is on disk, as it is after a while.
    cluster.write_back()?;
    let lasts = Duration::from_secs(scenario.seconds);
    clients.publish(shared, (&scenario.load, lasts), cluster.probes()?);
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
    let mut secrets = clients.secrets();
    secrets.push(KEY.to_owned());
    clients.end(shared).await?;
    usage::note(shared, true).await;
    Ok(Acted { starts: nemesis.starts, late, secrets })
}
