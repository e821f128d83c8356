//! What will be done to the nodes, and when: drawn from the seed before anything starts, and written to a file.
//!
//! A leader is named by a draw, not by its number: who leads is known only when the time comes.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

/// How long a killed node stays down, in milliseconds: from, to.
const DOWN_MS: (u64, u64) = (1_000, 2_000);
/// The cluster and the clients run undisturbed for this long first, in milliseconds.
pub const QUIET_MS: u64 = 3_000;
/// Every fault comes at most this much of its interval late, in percent, so that no rhythm hides a bug.
const JITTER_PERCENT: u64 = 40;
/// One power failure in this many tears writes instead of losing them whole.
const TORN_ONE_IN: u32 = 3;
/// One fault in this many of a mixed run hits a random node instead of a leader.
const RANDOM_ONE_IN: u32 = 3;

/// Which nodes a run hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The leader of some group.
    Leader,
    /// Any node.
    Random,
    /// Leaders mostly, any node now and then.
    Mixed,
    /// All nodes at once.
    All,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// SIGKILL, then start again.
    Kill,
    /// SIGSTOP, then SIGCONT.
    Pause,
    /// Cut from the network, then healed.
    Cut,
}

/// Whom a step hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// The leader of the group at this draw, modulo how many there are.
    Leader(u32),
    /// The node at this draw, modulo how many there are.
    Node(u32),
    /// Every node.
    All,
}

/// What becomes of the disk of a killed node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disk {
    /// What was written stays.
    Keeps,
    /// What was not fsynced is gone.
    Loses,
    /// Of that, a random prefix is left.
    Tears(u64),
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When, in milliseconds since publishing began.
    pub at_ms: u64,
    /// What.
    pub deed: Deed,
    /// To whom.
    pub target: Target,
    /// For how long, in milliseconds.
    pub for_ms: u64,
    /// What becomes of the disk, if it is a kill.
    pub disk: Disk,
}

/// What a schedule is drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// What is done.
    pub deed: Deed,
    /// To whom.
    pub mode: Mode,
    /// How long the run is, in seconds.
    pub seconds: u64,
    /// How often, in seconds.
    pub every: u64,
    /// How long a pause or cut lasts, in milliseconds.
    pub for_ms: u64,
    /// Whether the disks lose what was not fsynced.
    pub lossy: bool,
}

/// Draws the whole schedule.
pub fn expand(plan: &Plan) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let every_ms = plan.every.max(1) * 1_000;
    // The last fault must be over before the run is.
    let end_ms = (plan.seconds * 1_000).saturating_sub(every_ms / 2);
    let mut steps = Vec::new();
    let mut slot_ms = QUIET_MS;
    while slot_ms < end_ms {
        let at_ms = slot_ms + random.random_range(0..=every_ms * JITTER_PERCENT / 100);
        let target = draw_target(plan.mode, &mut random);
        let for_ms = match plan.deed {
            Deed::Kill => random.random_range(DOWN_MS.0..=DOWN_MS.1),
            Deed::Pause | Deed::Cut => plan.for_ms,
        };
        let disk = draw_disk(plan, &mut random);
        steps.push(Step { at_ms, deed: plan.deed, target, for_ms, disk });
        slot_ms += every_ms;
    }
    steps
}

fn draw_target(mode: Mode, random: &mut StdRng) -> Target {
    let draw = random.random();
    let any = random.random_ratio(1, RANDOM_ONE_IN);
    match mode {
        Mode::Leader => Target::Leader(draw),
        Mode::Random => Target::Node(draw),
        Mode::Mixed if any => Target::Node(draw),
        Mode::Mixed => Target::Leader(draw),
        Mode::All => Target::All,
    }
}

fn draw_disk(plan: &Plan, random: &mut StdRng) -> Disk {
    let seed = random.random();
    let torn = random.random_ratio(1, TORN_ONE_IN);
    match (plan.lossy, torn) {
        (false, _) => Disk::Keeps,
        (true, false) => Disk::Loses,
        (true, true) => Disk::Tears(seed),
    }
}

impl Step {
    /// When, since publishing began.
    pub fn at(&self) -> Duration {
        Duration::from_millis(self.at_ms)
    }

    /// For how long.
    pub fn lasts(&self) -> Duration {
        Duration::from_millis(self.for_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64, mode: Mode) -> Plan {
        let (deed, lossy) = (Deed::Kill, true);
        Plan { seed, deed, mode, seconds: 120, every: 5, for_ms: 6_000, lossy }
    }

    #[test]
    fn a_seed_says_everything() {
        assert_eq!(expand(&plan(7, Mode::Mixed)), expand(&plan(7, Mode::Mixed)));
        assert_ne!(expand(&plan(7, Mode::Mixed)), expand(&plan(8, Mode::Mixed)));
    }

    #[test]
    fn faults_come_often_in_order_and_end_in_time() {
        let steps = expand(&plan(1, Mode::Mixed));
        assert!((20..=24).contains(&steps.len()), "{}", steps.len());
        assert!(steps.windows(2).all(|pair| pair[0].at_ms < pair[1].at_ms));
        assert!(steps.iter().all(|step| step.at_ms >= QUIET_MS && step.at_ms < 120_000));
        assert!(steps.iter().all(|step| (1_000..=2_000).contains(&step.for_ms)));
    }

    #[test]
    fn a_mode_hits_whom_it_says() {
        let is_leader = |step: &Step| matches!(step.target, Target::Leader(_));
        let all = |mode, is: fn(&Step) -> bool| expand(&plan(3, mode)).iter().all(is);
        assert!(all(Mode::Leader, is_leader));
        assert!(all(Mode::Random, |step| matches!(step.target, Target::Node(_))));
        assert!(all(Mode::All, |step| step.target == Target::All));
        let leaders = expand(&plan(3, Mode::Mixed)).into_iter().filter(is_leader).count();
        assert!((8..22).contains(&leaders), "{leaders}");
    }

    #[test]
    fn lossy_disks_lose_and_tear_and_plain_ones_keep() {
        let disks: Vec<Disk> =
            expand(&plan(5, Mode::All)).into_iter().map(|step| step.disk).collect();
        assert!(disks.contains(&Disk::Loses));
        assert!(disks.iter().any(|disk| matches!(disk, Disk::Tears(_))));
        let plain = Plan { lossy: false, ..plan(5, Mode::All) };
        assert!(expand(&plain).iter().all(|step| step.disk == Disk::Keeps));
    }

    #[test]
    fn a_schedule_reads_back_from_its_file() {
        let steps = expand(&plan(5, Mode::Mixed));
        let text = serde_json::to_string_pretty(&steps).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Step>>(&text).unwrap(), steps);
    }
}
