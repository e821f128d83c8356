//! What the commands about scenarios do: `run`, `replay`, `shrink`, and `check` and `report` of a history that was kept.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use moorline_oracle::{Outcome, Rules, Verdict, gaps, history, judge};
use tokio::signal::unix::{SignalKind, signal};

use crate::options::StressOptions;
use crate::page::{self, Summary};
use crate::report::Report;
use crate::run::Workplace;
use crate::scenario::{Blow, Scenario, Sketch, expand};
use crate::stress::{self, judged};

/// The scenario of the options: drawn from a seed, or read from a file.
pub fn scenario(options: &StressOptions) -> Result<Scenario> {
    if let Some(path) = &options.schedule {
        return read(path, options.from_draws);
    }
    Ok(expand(&sketch(options, options.seed.unwrap_or_else(rand::random))))
}

pub(crate) fn sketch(options: &StressOptions, seed: u64) -> Sketch {
    Sketch {
        seed,
        seconds: options.seconds,
        every: options.every,
        nodes: options.nodes,
        shards: options.shards,
        disk: options.disk,
        net: options.net,
        clocks: options.clocks,
        load: options.load.load(),
    }
}

/// Reads a schedule; with `from_draws` who it hit before is forgotten, and drawn again.
pub fn read(path: &Path, from_draws: bool) -> Result<Scenario> {
    let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    let mut scenario = Scenario::read(&text)?;
    if from_draws {
        scenario.forget_hits();
    }
    Ok(scenario)
}

/// Runs a scenario once. Whether it passed; what it left is copied to `out`, and kept if it did not pass.
pub async fn once(scenario: &mut Scenario, binary: &Path, out: Option<&PathBuf>) -> Result<Report> {
    let mut workplace = Workplace::create()?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    // Dropping the run kills its processes, unmounts its disks and takes its networks down.
    let report = tokio::select! {
        report = stress::run(scenario, binary, workplace.path()) => report,
        _ = interrupted.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminated.recv() => Err(anyhow::anyhow!("terminated")),
    };
    if let Ok(report) = &report {
        println!("{report}");
        fs::write(workplace.path().join("report.json"), report.json())?;
    }
    if let Some(out) = out {
        workplace.copy_to(out).with_context(|| format!("cannot write to {}", out.display()))?;
    }
    if !report.as_ref().is_ok_and(Report::passed) {
        workplace.keep();
        println!("everything is kept in {}", workplace.path().display());
    }
    report
}

/// Runs a schedule again and again, and says how often it did not pass: a live run is not the same twice.
pub async fn replay(
    path: &Path,
    binary: &Path,
    (times, from_draws): (u32, bool),
    out: Option<&PathBuf>,
) -> Result<bool> {
    let mut outcomes = Vec::new();
    for time in 1..=times {
        let mut scenario = read(path, from_draws)?;
        let out = out.map(|out| out.join(format!("{time}")));
        let report = once(&mut scenario, binary, out.as_ref()).await;
        println!("replay {time} of {times}: {}", outcome(&report));
        outcomes.push(report.map(|report| report.verdict.outcome).ok());
    }
    let count = |of: Option<Outcome>| outcomes.iter().filter(|one| **one == of).count();
    println!(
        "of {times}: {} passed, {} failed, {} inconclusive, {} did not come to their end",
        count(Some(Outcome::Pass)),
        count(Some(Outcome::Fail)),
        count(Some(Outcome::Inconclusive)),
        count(None)
    );
    Ok(count(Some(Outcome::Pass)) == outcomes.len())
}

fn outcome(report: &Result<Report>) -> String {
    match report {
        Ok(report) => report.verdict.outcome.to_string(),
        Err(error) => format!("{error:#}").lines().next().unwrap_or_default().to_owned(),
    }
}

/// Finds few blows of a schedule that still make some of `tries` runs fail, by halves and complements, and writes them to `out`.
pub async fn shrink(path: &Path, binary: &Path, tries: u32, out: &Path) -> Result<bool> {
    let whole = read(path, false)?;
    if !fails(&whole, whole.blows.clone(), binary, tries).await? {
        bail!("it did not fail in {tries} runs: there is nothing to shrink");
    }
    let (mut blows, mut parts) = (whole.blows.clone(), 2);
    while blows.len() > 1 {
        let mut smaller = None;
        for candidate in candidates(&blows, parts) {
            println!("{} of {} blows…", candidate.len(), blows.len());
            if fails(&whole, candidate.clone(), binary, tries).await? {
                smaller = Some(candidate);
                break;
            }
        }
        match smaller {
            Some(found) => {
                blows = found;
                parts = 2;
                let least = Scenario { blows: blows.clone(), ..whole.clone() };
                fs::write(out, least.json())?;
            }
            None if parts >= blows.len() => break,
            None => parts = (parts * 2).min(blows.len()),
        }
    }
    let least = Scenario { blows, ..whole };
    println!("{} blows are left, in {}", least.blows.len(), out.display());
    fs::write(out, least.json())?;
    Ok(true)
}

/// Each of so many parts alone, and all but each.
fn candidates(blows: &[Blow], parts: usize) -> Vec<Vec<Blow>> {
    let size = blows.len().div_ceil(parts);
    let chunks: Vec<&[Blow]> = blows.chunks(size).collect();
    let alone = chunks.iter().map(|chunk| chunk.to_vec());
    let without = (0..chunks.len()).map(|left_out| {
        let kept = chunks.iter().enumerate().filter(|(at, _)| *at != left_out);
        kept.flat_map(|(_, chunk)| chunk.to_vec()).collect()
    });
    // With two parts, what is left without the one is the other.
    if chunks.len() > 2 { alone.chain(without).collect() } else { alone.collect() }
}

/// Whether some run of these blows fails. One that breaks off does too; one that saw too little does not.
async fn fails(whole: &Scenario, blows: Vec<Blow>, binary: &Path, tries: u32) -> Result<bool> {
    for _ in 0..tries {
        let mut scenario = Scenario { blows: blows.clone(), ..whole.clone() };
        match once(&mut scenario, binary, None).await {
            Ok(report) if report.verdict.outcome != Outcome::Fail => {}
            Ok(_) => return Ok(true),
            Err(error) if ["interrupted", "terminated"].contains(&error.to_string().as_str()) => {
                return Err(error);
            }
            Err(error) => {
                println!("{error:#}");
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Judges a history again: by what it wants itself, or, if it does not say, by the rules of a kill run.
pub fn check(path: &Path, replicas: u32) -> Result<bool> {
    let (header, events) = history_of(path)?;
    let verdict = judged_again(&header, &events, replicas);
    println!("{verdict}\n\n{}\nseed {}", gaps::measure(&events), header.seed);
    Ok(verdict.outcome == Outcome::Pass)
}

/// Makes the report of a history that was kept.
pub fn report(path: &Path, replicas: u32, out: &Path) -> Result<bool> {
    let (header, events) = history_of(path)?;
    let verdict = judged_again(&header, &events, replicas);
    let summary = Summary::of(&header, &events, &verdict);
    fs::create_dir_all(out)?;
    fs::write(out.join("summary.json"), summary.json())?;
    fs::write(out.join("report.html"), page::html(&header, &events, &summary))?;
    println!("verdict: {}; written to {}", verdict.outcome, out.display());
    Ok(verdict.outcome == Outcome::Pass)
}

fn history_of(path: &Path) -> Result<(history::Header, Vec<moorline_oracle::Event>)> {
    let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    Ok(history::read(&text)?)
}

fn judged_again(
    header: &history::Header,
    events: &[moorline_oracle::Event],
    replicas: u32,
) -> Verdict {
    if header.wanted.is_some() {
        return judged(header, events);
    }
    judge(events, &Rules { replicas, ..Rules::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{What, Whom};

    #[test]
    fn candidates_are_parts_and_their_complements() {
        let blow = |at_ms| Blow {
            at_ms,
            what: What::Kill,
            whom: Whom::All,
            for_ms: 1,
            draw: 0,
            hit: Vec::new(),
        };
        let blows: Vec<Blow> = (0..4).map(blow).collect();
        let times = |parts| {
            let all = candidates(&blows, parts).into_iter();
            all.map(|part| part.iter().map(|blow| blow.at_ms).collect::<Vec<_>>())
                .collect::<Vec<_>>()
        };
        assert_eq!(times(2), [vec![0, 1], vec![2, 3]]);
        assert_eq!(times(4).len(), 8);
        assert!(times(4).contains(&vec![0, 1, 3]));
    }
}
