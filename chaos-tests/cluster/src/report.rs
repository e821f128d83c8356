//! What a run says at its end: the verdict's table, the gaps, how long starts took, and whether to believe the times.

use std::fmt;
use std::time::Duration;

use moorline_oracle::gaps::{Gaps, Spread};
use moorline_oracle::{Outcome, Verdict};
use serde::Serialize;

use crate::change::Measured;

/// A harness that was itself late by more than this cannot measure gaps.
pub const LATE_MAX: Duration = Duration::from_millis(200);

/// Everything a run found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The judge's verdict.
    pub verdict: Verdict,
    /// The gaps around every fault.
    pub gaps: Gaps,
    /// From start to ready, of every restart.
    pub starts: Spread,
    /// How late the harness's own clock tick was at worst, in nanoseconds.
    pub late_ns: u64,
    /// The change of the cluster that the run was about, if it was about one.
    pub change: Option<Measured>,
    /// Whether this run was to lose messages.
    pub expect_loss: bool,
    /// Whether to print the gaps of every fault.
    #[serde(skip)]
    pub every_gap: bool,
}

impl Report {
    /// Whether the run is what it should be.
    pub fn passed(&self) -> bool {
        if self.expect_loss {
            self.verdict.caught_loss()
        } else {
            self.verdict.outcome == Outcome::Pass
        }
    }

    /// The report as JSON, in lines.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report holds only strings and numbers")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.verdict)?;
        writeln!(f)?;
        if self.every_gap {
            writeln!(f, "{}", self.gaps)?;
        } else {
            let spreads = [
                ("publisher gap,  leader faults", self.gaps.publishers(true)),
                ("publisher gap,  all faults   ", self.gaps.publishers(false)),
                ("subscriber gap, leader faults", self.gaps.subscribers(true)),
                ("subscriber gap, all faults   ", self.gaps.subscribers(false)),
            ];
            for (name, spread) in spreads {
                writeln!(f, "{name}  {spread}")?;
            }
        }
        writeln!(f, "start to ready                 {}", self.starts)?;
        if let Some(change) = &self.change {
            writeln!(f, "\n{change}\n")?;
        }
        let late = Duration::from_nanos(self.late_ns);
        if late > LATE_MAX {
            writeln!(f, "the harness itself was late by up to {late:.1?}: gaps are upper bounds")?;
        }
        match (self.expect_loss, self.passed()) {
            (true, true) => write!(f, "seed {}: the loss was caught, as it should be", self.seed),
            (true, false) => write!(f, "seed {}: a loss was expected and NOT CAUGHT", self.seed),
            (false, true) => write!(f, "seed {}: passed", self.seed),
            (false, false) => write!(f, "seed {}: NOT PASSED", self.seed),
        }
    }
}

#[cfg(test)]
mod tests {
    use moorline_oracle::verdict::{Check, Counts};

    use super::*;

    fn report(lost: bool, expect_loss: bool) -> Report {
        let mut check = Check::new(moorline_oracle::checks::NO_LOSS);
        if lost {
            check.violated(|| "gone".to_owned());
        }
        let verdict = Verdict::of(vec![check], Counts::default());
        let (gaps, starts) = (Gaps::default(), Spread::default());
        Report {
            seed: 4,
            verdict,
            gaps,
            starts,
            late_ns: 0,
            change: None,
            expect_loss,
            every_gap: false,
        }
    }

    #[test]
    fn an_expected_loss_turns_the_verdict_round() {
        #[rustfmt::skip]
        let table = [
            (false, false, true,  "seed 4: passed"),
            (true,  false, false, "seed 4: NOT PASSED"),
            (true,  true,  true,  "seed 4: the loss was caught, as it should be"),
            (false, true,  false, "seed 4: a loss was expected and NOT CAUGHT"),
        ];
        for (lost, expect_loss, passed, says) in table {
            let report = report(lost, expect_loss);
            assert_eq!(report.passed(), passed);
            assert!(report.to_string().ends_with(says), "{report}");
            assert!(report.json().contains("\"seed\": 4"));
        }
    }

    #[test]
    fn a_late_harness_says_so() {
        let late = Report { late_ns: 900_000_000, ..report(false, false) };
        assert!(late.to_string().contains("late by up to 900.0ms"), "{late}");
    }
}
