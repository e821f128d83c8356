//! `moorline-chaos`: see `--help`.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use moorline_chaos::options::{Action, Course, MemberPlan, Options, Run, RunAction, RunOptions};
use moorline_chaos::report::Report;
use moorline_chaos::run::{Workplace, run};
use moorline_chaos::{commands, outside, soak};
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
    match action {
        Action::Kill { run, mode } => one_sort(RunAction::Kill(mode), run).await,
        Action::Pause { run, for_ms } => one_sort(RunAction::Pause(for_ms), run).await,
        Action::Cut { run, for_ms, from } => one_sort(RunAction::Cut(for_ms, from), run).await,
        Action::Member { run, kills, brief } => {
            let course = if brief { Course::Brief } else { Course::Whole };
            members(course, kills, run).await
        }
        Action::Grow { run, kills } => members(Course::Grow, kills, run).await,
        Action::Replace { run, kills } => members(Course::Replace, kills, run).await,
        Action::Upgrade { run, to, back } => one_sort(RunAction::Upgrade { to, back }, run).await,
        Action::Run(options) => {
            options.check()?;
            let mut scenario = commands::scenario(&options)?;
            let report = commands::once(&mut scenario, &options.binary, options.out.as_ref()).await;
            report.map(|report| report.passed())
        }
        Action::Outside(options) => {
            let report = outside::run(&options).await?;
            println!("{report}");
            Ok(report.passed())
        }
        Action::Replay { binary, schedule, times, from_draws, out } => {
            commands::replay(&schedule, &binary, (times, from_draws), out.as_ref()).await
        }
        Action::Shrink { binary, schedule, tries, out } => {
            commands::shrink(&schedule, &binary, tries, &out).await
        }
        Action::Soak { run, hours } => {
            run.check()?;
            soak::soak(&run, hours).await
        }
        Action::Probe { node } => moorline_chaos::probe::serve(node).await.map(|()| true),
        Action::Check { history, replicas } => commands::check(&history, replicas),
        Action::Report { history, replicas, out } => commands::report(&history, replicas, &out),
    }
}

/// A run about who is a member.
async fn members(course: Course, each: u32, run: RunOptions) -> Result<bool> {
    one_sort(RunAction::Member(MemberPlan { each, course }), run).await
}

/// A run of one sort of fault.
async fn one_sort(action: RunAction, options: RunOptions) -> Result<bool> {
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
    let passed = report.as_ref().is_ok_and(Report::passed);
    if !passed {
        workplace.keep();
        println!("everything is kept in {}", workplace.path().display());
    }
    report.map(|_| passed)
}
