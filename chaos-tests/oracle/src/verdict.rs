//! The verdict: one line a check, a table for people, JSON for machines.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Most examples a check keeps; the count says how many there were.
pub const EXAMPLES_MAX: usize = 8;

/// How a check or a run came out. Ordered: the worst one of a run's checks is the run's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Looked, and found nothing.
    Pass,
    /// Could not see enough to say.
    Inconclusive,
    /// A promise was broken.
    Fail,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Inconclusive => "INCONCLUSIVE",
            Self::Fail => "FAIL",
        })
    }
}

/// What one checker found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Which checker.
    pub name: String,
    /// How it came out.
    pub outcome: Outcome,
    /// How many violations.
    pub found: u64,
    /// What was looked at, and how the violations divide.
    pub detail: String,
    /// The first few violations.
    pub examples: Vec<String>,
}

impl Check {
    /// A checker that has found nothing yet.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            outcome: Outcome::Pass,
            found: 0,
            detail: String::new(),
            examples: Vec::new(),
        }
    }

    /// Notes a broken promise.
    pub fn violated(&mut self, example: impl FnOnce() -> String) {
        self.note(Outcome::Fail, example);
    }

    /// Notes a reason why this run cannot say.
    pub fn unclear(&mut self, example: impl FnOnce() -> String) {
        self.note(Outcome::Inconclusive, example);
    }

    fn note(&mut self, outcome: Outcome, example: impl FnOnce() -> String) {
        self.outcome = self.outcome.max(outcome);
        self.found += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }
}

/// How much a run saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Messages somebody tried to publish.
    pub messages: u64,
    /// Attempts to publish them.
    pub attempts: u64,
    /// Messages with an acknowledged attempt.
    pub acked: u64,
    /// Messages that were only refused.
    pub refused: u64,
    /// Attempts with an unknown outcome.
    pub unknown: u64,
    /// Messages never acknowledged that were delivered all the same; allowed.
    pub recovered: u64,
    /// Deliveries, with duplicates.
    pub delivered: u64,
    /// Deliveries beyond the first of a message to a subscriber.
    pub duplicates: u64,
    /// Session interruptions of subscribers.
    pub interruptions: u64,
    /// Faults installed.
    pub faults: u64,
}

/// What the judge says of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The worst outcome of all checks.
    pub outcome: Outcome,
    /// How much was seen.
    pub counts: Counts,
    /// Every check.
    pub checks: Vec<Check>,
}

impl Verdict {
    /// Sums checks up.
    pub fn of(checks: Vec<Check>, counts: Counts) -> Self {
        let worst = checks.iter().map(|check| check.outcome).max();
        Self { outcome: worst.unwrap_or(Outcome::Inconclusive), counts, checks }
    }

    /// The check of this name.
    pub fn check(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name)
    }

    /// Whether the judge saw acknowledged messages go missing: what a build that skips fsync must show.
    pub fn caught_loss(&self) -> bool {
        self.check(crate::checks::NO_LOSS).is_some_and(|check| check.outcome == Outcome::Fail)
    }

    /// The verdict as JSON, in lines.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a verdict holds only strings and numbers")
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(f, "{:<14} {:<13} {:>7}  detail", "check", "outcome", "found")?;
        for check in &self.checks {
            let Check { name, outcome, found, detail, .. } = check;
            writeln!(f, "{name:<14} {outcome:<13} {found:>7}  {detail}")?;
            for example in &check.examples {
                writeln!(f, "{:<14} {:<13} {:>7}    {example}", "", "", "")?;
            }
        }
        writeln!(
            f,
            "messages {}  attempts {}  acked {}  refused {}  unknown {}  recovered {}",
            counts.messages,
            counts.attempts,
            counts.acked,
            counts.refused,
            counts.unknown,
            counts.recovered
        )?;
        writeln!(
            f,
            "delivered {}  duplicates {}  interruptions {}  faults {}",
            counts.delivered, counts.duplicates, counts.interruptions, counts.faults
        )?;
        write!(f, "verdict: {}", self.outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, outcome: Outcome) -> Check {
        let mut check = Check::new(name);
        if outcome != Outcome::Pass {
            check.note(outcome, || "because".to_owned());
        }
        check
    }

    #[test]
    fn the_worst_check_decides() {
        use Outcome::{Fail, Inconclusive, Pass};
        #[rustfmt::skip]
        let table: [(&[Outcome], Outcome); 4] = [
            (&[],                         Inconclusive),
            (&[Pass, Pass],               Pass),
            (&[Pass, Inconclusive],       Inconclusive),
            (&[Fail, Inconclusive, Pass], Fail),
        ];
        for (outcomes, expected) in table {
            let checks = outcomes.iter().map(|&outcome| check("x", outcome)).collect();
            assert_eq!(Verdict::of(checks, Counts::default()).outcome, expected);
        }
    }

    #[test]
    fn the_table_names_what_failed_and_the_json_reads_back() {
        let checks = vec![check("order", Outcome::Pass), check("no-loss", Outcome::Fail)];
        let verdict = Verdict::of(checks, Counts { acked: 3, ..Counts::default() });
        let table = verdict.to_string();
        assert!(table.contains("no-loss        FAIL                1"), "{table}");
        assert!(table.ends_with("verdict: FAIL"), "{table}");
        assert!(verdict.caught_loss());
        assert_eq!(serde_json::from_str::<Verdict>(&verdict.json()).unwrap(), verdict);
    }

    #[test]
    fn examples_stop_where_the_count_goes_on() {
        let mut check = Check::new("x");
        for at in 0..100 {
            check.violated(|| at.to_string());
        }
        assert_eq!((check.found, check.examples.len()), (100, EXAMPLES_MAX));
    }
}
