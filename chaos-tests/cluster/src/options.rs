//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::network::Scope;
use crate::outside::OutsideOptions;
use crate::scenario::{Load, Net};
use crate::schedule::{Deed, Mode, Plan};

/// Kills, pauses and cuts off the nodes of a real cluster, and judges what its clients saw.
#[derive(Debug, Parser)]
#[command(name = "moorline-chaos", version)]
pub struct Options {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// SIGKILL nodes every few seconds and start them again.
    Kill {
        /// What all runs have in common.
        #[command(flatten)]
        run: RunOptions,
        /// Whom to kill.
        #[arg(long, value_enum, default_value = "mixed")]
        mode: Mode,
    },
    /// SIGSTOP a leader now and then, and let it go on.
    Pause {
        /// What all runs have in common.
        #[command(flatten)]
        run: RunOptions,
        /// How long a pause lasts, in milliseconds.
        #[arg(long, default_value_t = 5_000)]
        for_ms: u64,
    },
    /// Cut a leader off the network now and then (needs root and `ip`).
    Cut {
        /// What all runs have in common.
        #[command(flatten)]
        run: RunOptions,
        /// How long a cut lasts, in milliseconds.
        #[arg(long, default_value_t = 5_000)]
        for_ms: u64,
        /// From whom.
        #[arg(long, value_enum, default_value = "all")]
        from: Scope,
    },
    /// Let nodes join and leave, replace a dead one, and SIGKILL others in the middle of the moves.
    Member {
        /// What all runs have in common.
        #[command(flatten)]
        run: RunOptions,
        /// How many nodes are killed in the middle of each change.
        #[arg(long, default_value_t = 2)]
        kills: u32,
        /// Only: a node joins, and the first leaves.
        #[arg(long)]
        brief: bool,
    },
    /// Let a cluster of three grow to five under load, and measure it.
    Grow {
        /// What all runs have in common.
        #[command(flatten)]
        run: RunOptions,
        /// How many nodes are killed while votes move.
        #[arg(long, default_value_t = 0)]
        kills: u32,
    },
    /// Let a node die with its disk under load, let a new one take its place, and measure it.
    Replace {
        /// What all runs have in common.
        #[command(flatten)]
        run: RunOptions,
        /// How many nodes are killed while votes move.
        #[arg(long, default_value_t = 0)]
        kills: u32,
    },
    /// Upgrade a cluster under load, node by node, raise its level, and measure it.
    Upgrade {
        /// What all runs have in common; `--binary` (or `--from`) is the program that it begins with.
        #[command(flatten)]
        run: RunOptions,
        /// The program that it ends with; the same if not given, which is a rolling restart.
        #[arg(long)]
        to: Option<PathBuf>,
        /// Take one node back to the old program and forward again before the level is raised.
        #[arg(long)]
        back: bool,
    },
    /// Ask a node what standard input says: what a run starts inside a node's network.
    #[command(hide = true)]
    Probe {
        /// Where the node answers.
        #[arg(long)]
        node: SocketAddr,
    },
    /// Publishers, mailboxes and the registry at once, under every kind of fault in turn.
    Run(StressOptions),
    /// The same clients against a cluster that you run, while your own command takes nodes away.
    Outside(OutsideOptions),
    /// Run a schedule again that a run has left, with the same nodes hit.
    Replay {
        /// The broker to run.
        #[arg(long)]
        binary: PathBuf,
        /// The `run.json` of a run.
        #[arg(long)]
        schedule: PathBuf,
        /// How often.
        #[arg(long, default_value_t = 1)]
        times: u32,
        /// Do not hit the nodes that it hit: leaders, whoever they are now.
        #[arg(long)]
        from_draws: bool,
        /// Leave everything here, a folder for each time.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Find few faults of a schedule that still make it fail.
    Shrink {
        /// The broker to run.
        #[arg(long)]
        binary: PathBuf,
        /// The `run.json` of a run that failed.
        #[arg(long)]
        schedule: PathBuf,
        /// How many runs may pass before it counts as not failing.
        #[arg(long, default_value_t = 5)]
        tries: u32,
        /// Where the smaller schedule goes.
        #[arg(long)]
        out: PathBuf,
    },
    /// Run after run with fresh seeds, until one does not pass or the time is over.
    Soak {
        /// What each run is like.
        #[command(flatten)]
        run: StressOptions,
        /// How long.
        #[arg(long, default_value_t = 8.0)]
        hours: f64,
    },
    /// Judge a history again.
    Check {
        /// The `history.jsonl` of a run.
        #[arg(long)]
        history: PathBuf,
        /// How many replicas must have reported digests, if the history does not say; 0 for none.
        #[arg(long, default_value_t = 3)]
        replicas: u32,
    },
    /// Make `report.html` and `summary.json` of a history.
    Report {
        /// The `history.jsonl` of a run.
        #[arg(long)]
        history: PathBuf,
        /// How many replicas must have reported digests, if the history does not say; 0 for none.
        #[arg(long, default_value_t = 3)]
        replicas: u32,
        /// The folder they go to.
        #[arg(long)]
        out: PathBuf,
    },
}

/// What a scenario is drawn from, or read from.
#[derive(Debug, Clone, Args)]
pub struct StressOptions {
    /// The broker to run.
    #[arg(long)]
    pub binary: PathBuf,
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    pub nodes: u32,
    /// How many shards.
    #[arg(long, default_value_t = 3)]
    pub shards: u32,
    /// How long the clients work, in seconds.
    #[arg(long, default_value_t = 240)]
    pub seconds: u64,
    /// How often something happens, in seconds.
    #[arg(long, default_value_t = 15)]
    pub every: u64,
    /// How much the clients do.
    #[command(flatten)]
    pub load: LoadOptions,
    /// The seed of everything; drawn and printed if not given.
    #[arg(long)]
    pub seed: Option<u64>,
    /// A schedule instead of one from the seed: the `run.json` of a run.
    #[arg(long)]
    pub schedule: Option<PathBuf>,
    /// Forget which nodes the schedule hit before.
    #[arg(long)]
    pub from_draws: bool,
    /// What the nodes' disks do with what was not fsynced (all but `plain` need root and FUSE).
    #[arg(long, value_enum, default_value = "plain")]
    pub disk: DiskKind,
    /// Whether each node has a network of its own.
    #[arg(long, value_enum, default_value = "plain")]
    pub net: Net,
    /// Give the nodes wall clocks that can be set (needs libfaketime).
    #[arg(long)]
    pub clocks: bool,
    /// Leave history, schedule, report and logs here, also of a run that passed.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// How much clients do.
#[derive(Debug, Clone, Args)]
pub struct LoadOptions {
    /// Messages published in a second, of all publishers together.
    #[arg(long, default_value_t = 150)]
    pub rate: u32,
    /// Visits to mailboxes in a second; one is two or three requests. 0 for none.
    #[arg(long, default_value_t = 30)]
    pub visits: u32,
    /// Requests about records in a second; 0 for none.
    #[arg(long, default_value_t = 40)]
    pub records: u32,
    /// How many devices lose their credential.
    #[arg(long, default_value_t = 3)]
    pub revocations: u32,
    /// Messages published to shared subscriptions in a second; 0 for none.
    #[arg(long, default_value_t = 30)]
    pub shared: u32,
    /// How many clients leave wills; 0 for none.
    #[arg(long, default_value_t = 9)]
    pub wills: u32,
    /// Requests about retained messages in a second; 0 for none.
    #[arg(long, default_value_t = 12)]
    pub retained: u32,
    /// How many devices have credentials that come and go; 0 for none.
    #[arg(long, default_value_t = 6)]
    pub churn: u32,
    /// Requests about records in ten seconds from inside each node's own network, where it has one; 0 for none.
    #[arg(long, default_value_t = 20)]
    pub inside: u32,
}

impl LoadOptions {
    /// How much the clients do.
    pub fn load(&self) -> Load {
        let Self { rate, visits, records, revocations, shared, wills, retained, churn, inside } =
            *self;
        Load {
            publishes: rate,
            visits,
            records,
            revocations,
            shared,
            wills,
            retained,
            churn,
            inside,
        }
    }
}

impl StressOptions {
    /// Checks what the types cannot.
    pub fn check(&self) -> Result<()> {
        ensure!(self.nodes > 0 && self.nodes < 100, "--nodes: 1 to 99");
        ensure!(self.shards > 0 && self.every > 0, "--shards and --every: at least 1");
        ensure!(self.load.rate > 0 && self.seconds > 0, "--rate and --seconds: at least 1");
        ensure!(
            self.load.revocations < REVOCATIONS_MAX,
            "--revocations: fewer than {REVOCATIONS_MAX}"
        );
        Ok(())
    }
}

/// More would leave too few devices.
const REVOCATIONS_MAX: u32 = 20;

/// What all runs have in common.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// The broker to run.
    #[arg(long, visible_alias = "from")]
    pub binary: PathBuf,
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    pub nodes: u32,
    /// How many shards.
    #[arg(long, default_value_t = 3)]
    pub shards: u32,
    /// How long to publish, in seconds.
    #[arg(long, default_value_t = 120)]
    pub seconds: u64,
    /// How often something happens, in seconds; 5 for kills, 12 for pauses and cuts if not given.
    #[arg(long)]
    pub every: Option<u64>,
    /// How many publishers.
    #[arg(long, default_value_t = 8)]
    pub publishers: u32,
    /// How many subscribers.
    #[arg(long, default_value_t = 8)]
    pub subscribers: u32,
    /// Messages a second, of all publishers together.
    #[arg(long, default_value_t = 400)]
    pub rate: u32,
    /// Length of a payload, in bytes.
    #[arg(long, default_value_t = 256)]
    pub payload: usize,
    /// The seed of everything; drawn and printed if not given.
    #[arg(long)]
    pub seed: Option<u64>,
    /// What the nodes' disks do with what was not fsynced when a node is killed.
    #[arg(long, value_enum, default_value = "plain")]
    pub disk: DiskKind,
    /// Print the gaps of every single fault.
    #[arg(long)]
    pub gap_report: bool,
    /// Pass only if acknowledged messages were lost: for a build that skips fsync.
    #[arg(long)]
    pub expect_loss: bool,
    /// Do not ask for digests.
    #[arg(long)]
    pub no_digests: bool,
    /// Subscribers never leave of their own will.
    #[arg(long)]
    pub no_churn: bool,
    /// How long the drain may take, in seconds.
    #[arg(long, default_value_t = 60)]
    pub drain_seconds: u64,
    /// Leave history, schedule, verdict and logs here, also of a run that passed.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// An environment variable for the nodes, `NAME=VALUE`; may be given again.
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    pub environment: Vec<(String, String)>,
}

/// What a disk does when its node is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskKind {
    /// An ordinary one: keeps what was written.
    Plain,
    /// Loses what was not fsynced (needs root and FUSE).
    Lossy,
    /// The same, and a name is durable only when its directory was fsynced.
    Strict,
}

/// A run, decided.
#[derive(Debug, Clone)]
pub struct Run {
    /// What all runs have in common.
    pub options: RunOptions,
    /// What the schedule is drawn from.
    pub plan: Plan,
    /// What a cut separates a node from.
    pub scope: Scope,
    /// Who joins and leaves, if that is what the run is about.
    pub member: Option<MemberPlan>,
    /// Which programs, if it is about an upgrade.
    pub upgrade: Option<UpgradePlan>,
}

/// What becomes of the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberPlan {
    /// Kills in the middle of each change.
    pub each: u32,
    /// In which order.
    pub course: Course,
}

/// What a run about members does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// Joins, a leave, an emptied node, a dead one.
    Whole,
    /// Only a join and a leave.
    Brief,
    /// Three nodes become five.
    Grow,
    /// A dead node is replaced.
    Replace,
}

/// From which program to which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradePlan {
    /// The one of before.
    pub from: PathBuf,
    /// The one that all nodes have at the end.
    pub to: PathBuf,
    /// Whether a node goes back in between.
    pub back: bool,
}

impl MemberPlan {
    /// How many nodes join.
    pub fn joins(self) -> u32 {
        match self.course {
            Course::Whole | Course::Grow => 2,
            Course::Brief | Course::Replace => 1,
        }
    }

    /// How many kills there will be: in the middle of each change, of the node that dies for good and of the one that is emptied.
    pub fn kills(self) -> u64 {
        let each = u64::from(self.each);
        match self.course {
            Course::Whole => 3 * each + 2,
            Course::Brief => 2 * each,
            Course::Grow => each,
            Course::Replace => each + 1,
        }
    }
}

/// How often kills happen if not said, in seconds.
const KILL_EVERY: u64 = 5;
/// How often pauses and cuts happen if not said, in seconds: they last a while, and the cluster shall rest between.
const PAUSE_EVERY: u64 = 12;

impl Run {
    /// Puts the options together and checks what the types cannot.
    pub fn decide(action: RunAction, options: RunOptions, drawn: u64) -> Result<Self> {
        ensure!(options.nodes > 0 && options.nodes < 100, "--nodes: 1 to 99");
        ensure!(options.shards > 0, "--shards: at least 1");
        ensure!(options.publishers > 0 && options.subscribers > 0, "at least one client of a kind");
        ensure!(options.rate > 0 && options.seconds > 0, "--rate and --seconds: at least 1");
        let (deed, mode, for_ms, scope, every) = match &action {
            RunAction::Kill(mode) => (Deed::Kill, *mode, 0, Scope::All, KILL_EVERY),
            RunAction::Pause(for_ms) => {
                (Deed::Pause, Mode::Leader, *for_ms, Scope::All, PAUSE_EVERY)
            }
            RunAction::Cut(for_ms, scope) => {
                (Deed::Cut, Mode::Leader, *for_ms, *scope, PAUSE_EVERY)
            }
            RunAction::Member(_) | RunAction::Upgrade { .. } => {
                (Deed::Kill, Mode::Random, 0, Scope::All, KILL_EVERY)
            }
        };
        let upgrade = match &action {
            RunAction::Upgrade { to, back } => {
                ensure!(options.nodes == 3, "--nodes: an upgrade is of 3");
                ensure!(options.disk == DiskKind::Plain, "--disk: plain, in an upgrade");
                let from = options.binary.clone();
                Some(UpgradePlan {
                    to: to.clone().unwrap_or_else(|| from.clone()),
                    from,
                    back: *back,
                })
            }
            RunAction::Kill(_)
            | RunAction::Pause(_)
            | RunAction::Cut(..)
            | RunAction::Member(_) => None,
        };
        let member = match action {
            RunAction::Member(plan) => {
                ensure!(options.nodes == 3, "--nodes: a member run begins with 3");
                ensure!(options.disk == DiskKind::Plain, "--disk: plain, in a member run");
                Some(plan)
            }
            RunAction::Kill(_)
            | RunAction::Pause(_)
            | RunAction::Cut(..)
            | RunAction::Upgrade { .. } => None,
        };
        let plan = Plan {
            seed: options.seed.unwrap_or(drawn),
            deed,
            mode,
            seconds: options.seconds,
            every: options.every.unwrap_or(every),
            for_ms,
            lossy: options.disk != DiskKind::Plain,
        };
        ensure!(plan.every > 0, "--every: at least 1");
        Ok(Self { options, plan, scope, member, upgrade })
    }
}

/// The runs among the actions.
#[derive(Debug, Clone)]
pub enum RunAction {
    /// Kill whom.
    Kill(Mode),
    /// Pause for so many milliseconds.
    Pause(u64),
    /// Cut for so many milliseconds, from whom.
    Cut(u64, Scope),
    /// Join, leave, replace.
    Member(MemberPlan),
    /// Another program.
    Upgrade {
        /// Which; none for the same.
        to: Option<PathBuf>,
        /// Whether a node goes back in between.
        back: bool,
    },
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("NAME=VALUE is wanted".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_defaults_are_a_ci_run() {
        Options::command().debug_assert();
        let line = ["x", "kill", "--binary", "b", "--seed", "9", "--env", "A=b=c"];
        let Action::Kill { run, mode } = Options::try_parse_from(line).unwrap().action else {
            panic!("a kill")
        };
        assert_eq!(run.environment, [("A".to_owned(), "b=c".to_owned())]);
        let run = Run::decide(RunAction::Kill(mode), run, 1).unwrap();
        assert_eq!((run.plan.seed, run.plan.every, run.plan.mode), (9, 5, Mode::Mixed));
        assert_eq!((run.options.nodes, run.plan.seconds, run.plan.lossy), (3, 120, false));
        assert!(Options::try_parse_from(["x", "kill", "--binary", "b", "--env", "A"]).is_err());
    }

    #[test]
    fn an_upgrade_to_nothing_is_a_restart_and_its_nodes_are_three() {
        let decided = |line: &[&str]| {
            let Action::Upgrade { run, to, back } = Options::try_parse_from(line).unwrap().action
            else {
                panic!("an upgrade")
            };
            Run::decide(RunAction::Upgrade { to, back }, run, 1)
        };
        let plan = decided(&["x", "upgrade", "--from", "a", "--to", "b", "--back"]).unwrap();
        let plan = plan.upgrade.unwrap();
        assert_eq!((plan.from, plan.to, plan.back), ("a".into(), "b".into(), true));
        let plan = decided(&["x", "upgrade", "--binary", "a"]).unwrap();
        assert!(plan.member.is_none());
        let plan = plan.upgrade.unwrap();
        assert_eq!((plan.from == plan.to, plan.back), (true, false));
        decided(&["x", "upgrade", "--from", "a", "--nodes", "5"]).unwrap_err();
    }

    #[test]
    fn senseless_numbers_are_refused() {
        for wrong in ["--nodes=0", "--rate=0", "--every=0", "--publishers=0", "--shards=0"] {
            let line = ["x", "kill", "--binary", "b", wrong];
            let Action::Kill { run, .. } = Options::try_parse_from(line).unwrap().action else {
                panic!("a kill")
            };
            assert!(Run::decide(RunAction::Kill(Mode::All), run, 1).is_err(), "{wrong}");
        }
    }
}
