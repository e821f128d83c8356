//! `moorline-chaos`: see `--help`.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use moorline_chaos::options::{Action, MemberPlan, Options, Run, RunAction};
use moorline_chaos::run::{Workplace, run};
use moorline_oracle::{Outcome, Rules, gaps, history, judge};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    match act(Options::parse().action).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("moorline-chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn act(action: Action) -> Result<bool> {
    let (action, options) = match action {
        Action::Kill { run, mode } => (RunAction::Kill(mode), run),
        Action::Pause { run, for_ms } => (RunAction::Pause(for_ms), run),
        Action::Cut { run, for_ms, from } => (RunAction::Cut(for_ms, from), run),
        Action::Member { run, kills, brief } => {
            (RunAction::Member(MemberPlan { each: kills, brief }), run)
        }
        Action::Check { history, replicas } => return check(&history, replicas),
    };
    let decided = Run::decide(action, options, rand::random())?;
    println!("seed {}", decided.plan.seed);
    let mut workplace = Workplace::create()?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    // Dropping the run kills its processes, unmounts its disks and takes its networks down.
    let report = tokio::select! {
        report = run(&decided, workplace.path()) => report,
        _ = interrupted.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminated.recv() => Err(anyhow::anyhow!("terminated")),
    };
    if let Ok(report) = &report {
        println!("{report}");
        fs::write(workplace.path().join("report.json"), report.json())?;
    }
    if let Some(out) = &decided.options.out {
        workplace.copy_to(out).with_context(|| format!("cannot write to {}", out.display()))?;
    }
    let passed = report.as_ref().is_ok_and(moorline_chaos::report::Report::passed);
    if !passed {
        workplace.keep();
        println!("everything is kept in {}", workplace.path().display());
    }
    report.map(|_| passed)
}

fn check(path: &std::path::Path, replicas: u32) -> Result<bool> {
    let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    let (header, events) = history::read(&text)?;
    let verdict = judge(&events, &Rules { replicas, ..Rules::default() });
    println!("{verdict}\n\n{}\nseed {}", gaps::measure(&events), header.seed);
    Ok(verdict.outcome == Outcome::Pass)
}
