//! A change of a whole cluster that is measured: it grows, a dead node is replaced, it gets another program. When it began and was over,
//! how many votes moved, what publishers waited before, during and after, and that `moorline cluster status` finds nothing amiss.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use moorline_oracle::Event;
use moorline_oracle::acks::{self, Acks};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::members::{SETTLE_MAX, Voters};
use crate::nemesis::Nemesis;
use crate::watch::Snapshots;
use crate::{admin, run::nanos};

/// How often the status is asked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Publishing goes on undisturbed for at least this long before a change that is measured, and after it.
const REST_MIN: Duration = Duration::from_secs(5);
/// The part of a run that is before the change, and the part that is after it.
const REST_PART: u32 = 4;

/// What a change was.
#[derive(Debug, Clone)]
pub struct Change {
    /// What was done.
    what: &'static str,
    /// When it began, since the run did.
    from: Duration,
    /// When it was over.
    until: Duration,
    /// What else is to be said of it, a line each.
    notes: Vec<String>,
}

/// A change and what clients noticed of it.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// What was done.
    pub what: &'static str,
    /// How long it took, in nanoseconds.
    pub took_ns: u64,
    /// What else is to be said of it, a line each.
    pub notes: Vec<String>,
    /// How long publishers waited.
    pub acks: Acks,
}

impl Change {
    /// One that begins now.
    pub(crate) fn begins(what: &'static str, nemesis: &Nemesis<'_>) -> Self {
        let now = nemesis.recorder.elapsed();
        println!("{:>7.1} s  {what}: begins", now.as_secs_f64());
        Self { what, from: now, until: now, notes: Vec::new() }
    }

    /// It is over now.
    pub(crate) fn ends(&mut self, nemesis: &Nemesis<'_>) {
        self.until = nemesis.recorder.elapsed();
        let took = self.until.saturating_sub(self.from).as_secs_f64();
        println!("{:>7.1} s  {}: over, after {took:.1} s", self.until.as_secs_f64(), self.what);
    }

    /// Something else to say of it.
    pub(crate) fn note(&mut self, note: String) {
        println!("           {note}");
        self.notes.push(note);
    }

    /// With what clients noticed.
    pub(crate) fn measured(self, events: &[Event]) -> Measured {
        let (from, until) = (nanos(self.from), nanos(self.until));
        let acks = acks::measure(events, from, until);
        let took_ns = until.saturating_sub(from);
        Measured { what: self.what, took_ns, notes: self.notes, acks }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = Duration::from_nanos(self.took_ns).as_secs_f64();
        writeln!(f, "{}: {took:.1} s", self.what)?;
        for note in &self.notes {
            writeln!(f, "  {note}")?;
        }
        write!(f, "{}", self.acks)
    }
}

/// How long publishing goes on undisturbed before and after, in a run of so many seconds.
pub(crate) fn rest(seconds: u64) -> Duration {
    REST_MIN.max(Duration::from_secs(seconds) / REST_PART)
}

/// Counts votes that came to nodes which had them not, as far as they are looked at.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    seen: Voters,
    /// How many there were.
    pub(crate) count: usize,
}

impl Moves {
    /// Takes in who votes now. A group that nobody leads at the moment stays as it was.
    pub(crate) fn see(&mut self, voters: &Voters) {
        for (group, now) in voters {
            if let Some(before) = self.seen.insert(*group, now.clone()) {
                self.count += now.difference(&before).count();
            }
        }
    }
}

impl Nemesis<'_> {
    /// Waits until `moorline cluster status`, asked of every node that runs, finds nothing amiss.
    pub(crate) async fn status_settles(&mut self) -> Result<()> {
        let deadline = Instant::now() + SETTLE_MAX;
        loop {
            let mut amiss = None;
            for at in 0..self.cluster.nodes.len() {
                if self.cluster.runs(at) && self.cluster.peers[at].is_up() {
                    let said = self.cluster.status(at).await?;
                    amiss = amiss.or(complaint(&said).map(|why| (why, said)));
                }
            }
            let Some((why, said)) = amiss else { return Ok(()) };
            if Instant::now() > deadline {
                bail!("`cluster status` is not settled, {why}:\n{said}");
            }
            self.look_but_at(None)?;
            sleep(LOOK_EVERY).await;
        }
    }

    /// Snapshots that the nodes which run have installed since they were started.
    pub(crate) async fn snapshots(&self) -> Snapshots {
        let mut all = Snapshots::default();
        for peer in self.cluster.peers.iter().filter(|peer| peer.is_up()) {
            if let Ok(text) = admin::metrics(peer.admin).await {
                all.add(Snapshots::installed(&text));
            }
        }
        all
    }
}

/// What a status says that it should not say of a cluster in order.
fn complaint(status: &str) -> Option<&'static str> {
    /// What its table of groups begins with.
    const TABLE: &str = "group  leader";
    /// The words, and what they mean.
    const AMISS: [(&str, &str); 5] = [
        (", not ready", "a node is not ready"),
        ("the loss of no node", "a group survives no loss"),
        ("no majority", "a group has no majority"),
        ("no leader", "a group has no leader"),
        (" for node ", "a group waits for a node"),
    ];
    let words = AMISS.iter().find(|(words, _)| status.contains(words)).map(|(_, why)| *why);
    let down = |line: &str| line.contains(" DOWN ") && !line.contains("removed");
    // Programs of before say nothing of what is survived; the table of groups they have.
    let led = |line: &str| !line.contains(" none ");
    let groups = status.lines().skip_while(|line| !line.contains(TABLE)).skip(1);
    let answered = groups.clone().count() > 0;
    words
        .or_else(|| status.lines().any(down).then_some("a node is down"))
        .or_else(|| (!answered).then_some("it says nothing of groups"))
        .or_else(|| (!groups.clone().all(led)).then_some("nobody leads a group"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn votes_that_come_are_moves_and_groups_without_a_leader_are_not() {
        let of = |all: &[(u32, &[u32])]| {
            let set = |voters: &[u32]| voters.iter().copied().collect::<BTreeSet<_>>();
            all.iter().map(|(group, voters)| (*group, set(voters))).collect::<Voters>()
        };
        let mut moves = Moves::default();
        moves.see(&of(&[(0, &[1, 2, 3]), (1, &[1, 2, 3])]));
        assert_eq!(moves.count, 0, "it is how it began");
        moves.see(&of(&[(1, &[1, 2, 3, 4])]));
        moves.see(&of(&[(0, &[1, 2, 3]), (1, &[2, 3, 4])]));
        assert_eq!(moves.count, 1);
        moves.see(&of(&[(0, &[1, 2, 3, 4, 5]), (1, &[3, 4, 5])]));
        assert_eq!(moves.count, 4);
    }

    #[test]
    fn a_status_in_order_has_no_complaint() {
        let fine = "cluster m seen by node 1, ready\n  level 2\n  Each shard survives the loss of 1 node.\n  \
            node 1   10.0.0.1:7400   up    active\n  node 2   10.0.0.2:7400   DOWN  removed\n  \
            group  leader  term  applied\n  meta   3       2     18\n  1      1       2     19\n";
        assert_eq!(complaint(fine), None);
        let before = fine.replacen("  Each shard survives the loss of 1 node.\n", "", 1);
        assert_eq!(complaint(&before), None, "a program of before");
        #[rustfmt::skip]
        let table = [
            (", ready", ", not ready: no lease"),
            ("loss of 1 node.", "loss of no node: node 3 is down."),
            ("loss of 1 node.", "loss of 1 node.\n  Shard 1 waits for node 3 if another voter is lost."),
            ("loss of 1 node.", "loss of 1 node.\n  Shard 1 has no leader at present."),
            ("meta   3       2", "meta   none    2"),
            ("group  leader", "no answer in time"),
            ("DOWN  removed", "DOWN  active"),
        ];
        for (from, to) in table {
            assert!(complaint(&fine.replacen(from, to, 1)).is_some(), "{to}");
        }
    }

    #[test]
    fn a_part_of_the_run_is_before_and_a_part_after() {
        assert_eq!((rest(4), rest(60)), (Duration::from_secs(5), Duration::from_secs(15)));
    }
}
