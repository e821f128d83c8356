//! The whole harness against a toy broker: what it must pass it passes, and what it must catch it catches.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use clap::Parser;
use moorline_chaos::options::{Action, Options, Run, RunAction};
use moorline_chaos::report::Report;
use moorline_chaos::run::{Workplace, run};
use moorline_oracle::{Outcome, checks};

/// The toy, where Cargo puts examples.
fn toy() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let toy = profile.join("examples/toy_broker");
    assert!(toy.exists(), "{} is not built: cargo build --examples", toy.display());
    toy
}

/// Runs ten seconds with three clients of a kind, everything killed every three seconds.
async fn report(fault: &str, more: &[&str]) -> Report {
    let (toy, fault) = (toy().display().to_string(), format!("TOY_FAULT={fault}"));
    let line = [
        "moorline-chaos",
        "kill",
        "--mode",
        "all",
        "--nodes",
        "1",
        "--seconds",
        "10",
        "--every",
        "3",
        "--publishers",
        "3",
        "--subscribers",
        "3",
        "--rate",
        "300",
        "--seed",
        "7",
        "--binary",
        &toy,
        "--env",
        &fault,
    ];
    let line = line.iter().chain(more);
    let Action::Kill { run: options, mode } = Options::parse_from(line).action else {
        panic!("a kill")
    };
    let decided = Run::decide(RunAction::Kill(mode), options, 0).unwrap();
    let workplace = Workplace::create().unwrap();
    run(&decided, workplace.path()).await.unwrap()
}

fn outcome(report: &Report, check: &str) -> Outcome {
    println!("{report}");
    report.verdict.check(check).unwrap().outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_broker_passes_on_a_disk_that_keeps() {
    let report = report("", &[]).await;
    assert_eq!(report.verdict.outcome, Outcome::Pass, "{report}");
    assert!(report.verdict.counts.faults >= 2 && report.verdict.counts.acked > 600, "{report}");
    assert!(report.passed() && report.starts.samples >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_broker_passes_on_a_disk_that_loses_and_a_dishonest_one_is_caught() {
    if !moorline_lossyfs::available() {
        println!("skipped: this machine has no /dev/fuse");
        return;
    }
    let (honest, skipping, unseen) = tokio::join!(
        report("", &["--disk", "lossy"]),
        report("skip-fsync", &["--disk", "lossy", "--expect-loss", "--drain-seconds", "5"]),
        report("skip-fsync", &[]),
    );
    assert!(honest.passed(), "{honest}");
    assert!(skipping.passed(), "{skipping}");
    assert_eq!(outcome(&skipping, checks::NO_LOSS), Outcome::Fail);
    // On an ordinary disk nobody would notice: that is why there is the other one.
    assert!(unseen.passed(), "{unseen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_faults_are_caught() {
    let (dropped, repeated, swapped, forgotten) = tokio::join!(
        report("drop", &["--no-churn"]),
        report("repeat", &["--no-churn"]),
        report("swap", &["--no-churn"]),
        report("forget", &["--no-churn", "--drain-seconds", "5"]),
    );
    assert_eq!(outcome(&dropped, checks::NO_LOSS), Outcome::Fail);
    assert_eq!(outcome(&repeated, checks::DUPLICATES), Outcome::Fail);
    assert_eq!(outcome(&swapped, checks::ORDER), Outcome::Fail);
    assert_eq!(outcome(&forgotten, checks::SESSIONS), Outcome::Fail);
}
