//! A scenario: everything that will be done to a cluster under all workloads, expanded from a seed before anything starts.
//!
//! Who leads is known only when the time comes. Whom a blow hit is written back, so that `replay` hits the same nodes.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use moorline_oracle::Wanted;
use moorline_oracle::history::Fault;
use moorline_oracle::loads::Kind;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::options::DiskKind;

/// Version of the file's format.
const FORMAT: u32 = 1;
/// The cluster and the clients run undisturbed for this long first, in milliseconds.
const QUIET_MS: u64 = 6_000;
/// After the last blow begins there is at least this much left, in milliseconds.
const REST_MS: u64 = 12_000;
/// Every blow comes at most this much of its interval late, in percent.
const JITTER_PERCENT: u64 = 20;
/// What a run must do while some node is down, for each of its blows: publishes, record requests, mailbox requests.
const DURING_EACH: [u64; 3] = [20, 5, 5];
/// The same of the other workloads.
const LOADS_DURING_EACH: [(Kind, u64); 4] =
    [(Kind::Shares, 5), (Kind::Wills, 2), (Kind::Retained, 2), (Kind::Churn, 1)];
/// More unknown outcomes in a thousand requests make a run inconclusive.
const UNKNOWN_PERMILLE_MAX: u64 = 200;

/// Whether nodes have networks of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Net {
    /// All on the loopback: nobody can be cut off.
    Plain,
    /// A namespace each (needs root and `ip`).
    Netns,
}

/// What a blow does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// SIGKILL, then start again.
    Kill,
    /// SIGKILL, and what was not fsynced is gone, or torn.
    Power,
    /// SIGSTOP, then SIGCONT.
    Pause,
    /// Off the network, from everybody.
    Cut,
    /// Other nodes do not reach it.
    CutIn,
    /// It does not reach other nodes.
    CutOut,
    /// Every fsync takes 300 ms.
    FsyncStall,
    /// One fsync fails: the node must end, and is started again.
    FsyncError,
    /// No room on the disk for a while.
    DiskFull,
    /// SIGTERM, wait for the end, start again: one node after the other.
    Restart,
    /// Killed, and started with an empty directory: it must be refused. Then its own again.
    Wipe,
    /// All lines between nodes hold packets back for 40 to 120 ms and lose 2 % of them.
    Slow,
    /// Off the other nodes, and each side hears at once that nobody is there.
    Reset,
    /// Clients do not reach it, the other nodes do.
    CutClients,
    /// Off the network for a second, on it for a second, four times.
    Flap,
    /// Its wall clock goes an hour ahead, then an hour behind, and it is killed each time.
    Clock,
    /// Killed for good: a new node takes its place, and its id is refused from then on.
    Replace,
    /// A new node joins, and this one leaves.
    Relieve,
    /// Killed, and a bit of its log is flipped: it must not start. A new node takes its place.
    FlipLog,
    /// Killed, and a bit of its rows is flipped: it must end when it reads them. A new node takes its place.
    FlipRows,
    /// Away until it needs a snapshot, and killed while it takes it.
    SnapshotCut,
    /// Cut off; another one's power gone; joined again while the third is cut off and the other started. Found a loss of data
    /// in another broker.
    PartKill,
    /// The same with SIGSTOP in the place of cuts.
    PauseKill,
}

/// Whom a blow hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whom {
    /// The leader of the group at this draw, modulo how many there are.
    Leader(u32),
    /// At this draw, a node that leads as few groups as any.
    Follower(u32),
    /// Every node.
    All,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blow {
    /// When, in milliseconds since publishing began. Later if the one before has not healed.
    pub at_ms: u64,
    /// What.
    pub what: What,
    /// To whom.
    pub whom: Whom,
    /// For how long, in milliseconds.
    pub for_ms: u64,
    /// A draw for what else is chance: how writes are torn.
    pub draw: u64,
    /// The nodes that it hit, once it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hit: Vec<u32>,
}

/// How much the clients do, in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Messages published (W1).
    pub publishes: u32,
    /// Visits to mailboxes (W3); one is two or three requests.
    pub visits: u32,
    /// Requests about records (W4).
    pub records: u32,
    /// Credentials revoked in the run.
    pub revocations: u32,
    /// Messages published to shared subscriptions (W7).
    #[serde(default)]
    pub shared: u32,
    /// Clients that leave wills (W6); each lives some seconds at a time.
    #[serde(default)]
    pub wills: u32,
    /// Requests about retained messages (W6).
    #[serde(default)]
    pub retained: u32,
    /// Devices whose credentials come and go (W8).
    #[serde(default)]
    pub churn: u32,
    /// Requests about records from inside each node's own network, where it has one, in ten seconds.
    #[serde(default)]
    pub inside: u32,
}

/// Everything about a run but the binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// Version of the format.
    pub format: u32,
    /// What everything was drawn from; clients draw from it again in a replay.
    pub seed: u64,
    /// How long the clients work, in seconds.
    pub seconds: u64,
    /// How many nodes.
    pub nodes: u32,
    /// How many shards.
    pub shards: u32,
    /// What the disks do.
    pub disk: DiskKind,
    /// What the network can do.
    pub net: Net,
    /// Whether the nodes have wall clocks that can be set.
    #[serde(default)]
    pub clocks: bool,
    /// How much the clients do.
    pub load: Load,
    /// What is done, in order.
    pub blows: Vec<Blow>,
}

/// What a scenario is drawn from.
#[derive(Debug, Clone, Copy)]
pub struct Sketch {
    /// The seed.
    pub seed: u64,
    /// How long, in seconds.
    pub seconds: u64,
    /// How often a blow comes, in seconds.
    pub every: u64,
    /// How many nodes.
    pub nodes: u32,
    /// How many shards.
    pub shards: u32,
    /// What the disks do.
    pub disk: DiskKind,
    /// What the network can do.
    pub net: Net,
    /// Whether wall clocks can be set.
    pub clocks: bool,
    /// How much the clients do.
    pub load: Load,
}

/// Whom a kind of blow hits.
#[derive(Debug, Clone, Copy)]
enum Who {
    Leader,
    Follower,
    All,
}

impl Who {
    fn drawn(self, draw: u32) -> Whom {
        match self {
            Self::Leader => Whom::Leader(draw),
            Self::Follower => Whom::Follower(draw),
            Self::All => Whom::All,
        }
    }
}

/// Every kind of blow that such a cluster can be given: what, whom, and how long, in milliseconds.
fn kinds(sketch: &Sketch) -> Vec<(What, Who, u64)> {
    #[rustfmt::skip]
    let mut kinds = vec![
        (What::Kill,        Who::Leader,   1_500),
        (What::Kill,        Who::Follower, 1_500),
        (What::Pause,       Who::Leader,   5_000),
        (What::Kill,        Who::All,      1_000),
        (What::Restart,     Who::All,      0),
        (What::Wipe,        Who::Follower, 1_000),
    ];
    // With fewer there is nobody to go on while one is away.
    let many = sketch.nodes >= REPLICAS;
    if many {
        #[rustfmt::skip]
        kinds.extend([
            (What::PauseKill,   Who::Leader,   5_000),
            (What::Replace,     Who::Leader,   1_000),
            (What::Relieve,     Who::Leader,   0),
            (What::FlipLog,     Who::Follower, 500),
            (What::FlipRows,    Who::Follower, 500),
            (What::SnapshotCut, Who::Follower, 8_000),
        ]);
    }
    if sketch.net == Net::Netns {
        #[rustfmt::skip]
        kinds.extend([
            (What::Cut,         Who::Leader,   6_000),
            (What::CutIn,       Who::Leader,   6_000),
            (What::CutOut,      Who::Leader,   6_000),
            (What::CutClients,  Who::Leader,   5_000),
            (What::Reset,       Who::Leader,   6_000),
            (What::Flap,        Who::Leader,   8_000),
            (What::Slow,        Who::All,      10_000),
        ]);
    }
    if sketch.disk != DiskKind::Plain {
        #[rustfmt::skip]
        kinds.extend([
            (What::Power,       Who::Follower, 1_000),
            (What::Power,       Who::All,      1_000),
            (What::FsyncStall,  Who::Leader,   6_000),
            (What::FsyncError,  Who::Leader,   1_000),
            (What::DiskFull,    Who::Follower, 6_000),
            (What::DiskFull,    Who::Leader,   6_000),
        ]);
    }
    if sketch.net == Net::Netns && sketch.disk != DiskKind::Plain && many {
        kinds.push((What::PartKill, Who::Leader, 5_000));
    }
    if sketch.clocks {
        kinds.push((What::Clock, Who::Leader, 3_000));
    }
    kinds
}

/// Draws a scenario: each kind once in an order of the seed's, then again, until the time is full.
pub fn expand(sketch: &Sketch) -> Scenario {
    let mut random = StdRng::seed_from_u64(sketch.seed);
    let every_ms = sketch.every.max(1) * 1_000;
    let end_ms = (sketch.seconds * 1_000).saturating_sub(REST_MS);
    let (mut blows, mut slot_ms) = (Vec::new(), QUIET_MS);
    let mut round = Vec::new();
    while slot_ms < end_ms {
        if round.is_empty() {
            round = kinds(sketch);
            round.shuffle(&mut random);
        }
        let (what, who, for_ms) = round.pop().expect("there are kinds");
        let at_ms = slot_ms + random.random_range(0..=every_ms * JITTER_PERCENT / 100);
        let (whom, draw) = (who.drawn(random.random()), random.random());
        blows.push(Blow { at_ms, what, whom, for_ms, draw, hit: Vec::new() });
        slot_ms += every_ms;
    }
    let Sketch { seed, seconds, nodes, shards, disk, net, clocks, load, .. } = *sketch;
    Scenario { format: FORMAT, seed, seconds, nodes, shards, disk, net, clocks, load, blows }
}

/// What a fault is called in the history.
fn fault(what: What) -> Fault {
    match what {
        What::Kill => Fault::Kill,
        // Which of two it is follows from the draw.
        What::Power => Fault::Kill,
        What::Pause => Fault::Pause,
        What::Cut => Fault::Cut,
        What::CutIn => Fault::CutIn,
        What::CutOut => Fault::CutOut,
        What::FsyncStall => Fault::FsyncStall,
        What::FsyncError => Fault::FsyncError,
        What::DiskFull => Fault::DiskFull,
        What::Restart => Fault::Terminate,
        What::Wipe => Fault::Refuse,
        What::Slow => Fault::Slow,
        What::Reset => Fault::Reset,
        What::CutClients => Fault::CutClients,
        What::Flap => Fault::Flap,
        What::Clock => Fault::Clock,
        What::Replace => Fault::Remove,
        What::Relieve => Fault::Leave,
        What::FlipLog | What::FlipRows => Fault::Damage,
        What::SnapshotCut => Fault::SnapshotCut,
        What::PartKill => Fault::PartKill,
        What::PauseKill => Fault::PauseKill,
    }
}

impl What {
    /// Whether a new node takes the place of the one that is hit.
    pub fn replaces(self) -> bool {
        matches!(self, Self::Replace | Self::Relieve | Self::FlipLog | Self::FlipRows)
    }
}

impl Scenario {
    /// How many nodes join in the course of it.
    pub fn joins(&self) -> u32 {
        let joins = self.blows.iter().filter(|blow| blow.what.replaces()).count();
        u32::try_from(joins).expect("few blows")
    }

    /// Reads one back.
    pub fn read(text: &str) -> Result<Self> {
        let scenario: Self = serde_json::from_str(text)?;
        ensure!(scenario.format == FORMAT, "a schedule of another version: {}", scenario.format);
        ensure!(scenario.nodes > 0 && scenario.nodes < 100 && scenario.shards > 0, "a schedule");
        ensure!(scenario.load.publishes > 0, "a schedule without publishes");
        Ok(scenario)
    }

    /// As a file.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("only strings and numbers")
    }

    /// The same, before it hit anybody.
    pub fn forget_hits(&mut self) {
        self.blows.iter_mut().for_each(|blow| blow.hit.clear());
    }

    /// What a run of it has to reach.
    pub fn wanted(&self) -> Wanted {
        let mut faults: BTreeMap<Fault, u64> = BTreeMap::new();
        for blow in &self.blows {
            let hits = if blow.what == What::Slow { u64::from(self.nodes) } else { 1 };
            *faults.entry(fault(blow.what)).or_default() += hits;
            if blow.what == What::Power {
                *faults.entry(power(blow)).or_default() += 1;
            }
        }
        let blows = self.blows.len() as u64;
        let [publishes, records, mails] = DURING_EACH;
        let on = |rate: u32, each: u64| if rate > 0 { each * blows } else { 0 };
        let rate = |kind| match kind {
            Kind::Shares => self.load.shared,
            Kind::Wills => self.load.wills,
            Kind::Retained => self.load.retained,
            Kind::Churn => self.load.churn,
        };
        let loads = LOADS_DURING_EACH.map(|(kind, each)| (kind, on(rate(kind), each)));
        let leaders = self.blows.iter().filter(|blow| deposes(blow)).count() as u64;
        let needs = |blow: &&Blow| blow.what == What::SnapshotCut || blow.what.replaces();
        let snapshots = self.blows.iter().filter(needs).count();
        Wanted {
            publishes: on(self.load.publishes, publishes),
            records: on(self.load.records, records),
            mails: on(self.load.visits, mails),
            loads: loads.into_iter().filter(|(_, many)| *many > 0).collect(),
            faults,
            leader_changes: leaders,
            snapshots: u64::from(snapshots > 0),
            unknown_permille_max: UNKNOWN_PERMILLE_MAX,
            replicas: self.nodes.min(REPLICAS),
            nodes: self.nodes,
        }
    }
}

/// Replicas of each shard.
const REPLICAS: u32 = 3;

/// Whether a blow takes a leader's groups from it for sure.
fn deposes(blow: &Blow) -> bool {
    let long = matches!(blow.what, What::Kill | What::Pause | What::Cut);
    long && matches!(blow.whom, Whom::Leader(_))
}

/// How the disk of a node is hit by a power failure: one in three tears.
pub fn power(blow: &Blow) -> Fault {
    if blow.draw.is_multiple_of(3) { Fault::TornWrites } else { Fault::PowerLoss }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(seed: u64, disk: DiskKind, net: Net) -> Sketch {
        let load = Load {
            publishes: 100,
            visits: 30,
            records: 30,
            revocations: 2,
            shared: 9,
            wills: 3,
            retained: 5,
            churn: 3,
            inside: 5,
        };
        Sketch { seed, seconds: 480, every: 14, nodes: 3, shards: 3, disk, net, clocks: true, load }
    }

    #[test]
    fn a_seed_says_everything_and_a_file_reads_back() {
        let of = |seed| expand(&sketch(seed, DiskKind::Lossy, Net::Netns));
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        assert_eq!(Scenario::read(&of(7).json()).unwrap(), of(7));
    }

    #[test]
    fn a_schedule_from_before_some_workloads_reads_without_them() {
        let mut old: serde_json::Value =
            serde_json::from_str(&expand(&sketch(1, DiskKind::Plain, Net::Plain)).json()).unwrap();
        let load = old["load"].as_object_mut().unwrap();
        load.retain(|name, _| {
            ["publishes", "visits", "records", "revocations"].contains(&name.as_str())
        });
        let read = Scenario::read(&old.to_string()).unwrap();
        let Load { shared, wills, retained, churn, inside, .. } = read.load;
        assert_eq!((shared, wills, retained, churn, inside), (0, 0, 0, 0, 0));
        assert!(read.wanted().loads.is_empty());
    }

    #[test]
    fn every_kind_comes_once_before_any_comes_again_and_ends_in_time() {
        let scenario = expand(&sketch(1, DiskKind::Lossy, Net::Netns));
        let kinds = kinds(&sketch(1, DiskKind::Lossy, Net::Netns)).len();
        assert!(scenario.blows.len() >= kinds, "{}", scenario.blows.len());
        let wanted = scenario.wanted();
        for what in [
            Fault::Kill,
            Fault::Pause,
            Fault::CutIn,
            Fault::CutOut,
            Fault::FsyncStall,
            Fault::FsyncError,
            Fault::DiskFull,
            Fault::Terminate,
            Fault::Refuse,
            Fault::Slow,
            Fault::Clock,
            Fault::Damage,
            Fault::PartKill,
            Fault::Remove,
        ] {
            assert!(wanted.faults.contains_key(&what), "{what:?}");
        }
        assert!(scenario.blows.iter().all(|blow| blow.at_ms < 480_000 - REST_MS + 3_000));
    }

    #[test]
    fn what_disks_and_networks_cannot_do_is_not_planned() {
        let scenario = expand(&sketch(1, DiskKind::Plain, Net::Plain));
        let odd =
            [What::Power, What::DiskFull, What::FsyncError, What::Cut, What::CutIn, What::Slow];
        assert!(scenario.blows.iter().all(|blow| !odd.contains(&blow.what)));
    }
}
