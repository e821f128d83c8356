//! Many runs, each in a process of its own: a run that panics or hangs ends only itself.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Seek as _, Write as _},
    ops::Range,
    path::Path,
    process::{Command, ExitCode, Output},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{self, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{mutant::Mutant, tally::Tally};

/// What a process answers if an invariant was violated.
pub(crate) const VIOLATED: u8 = 2;
/// What the line begins with on which a run says its numbers.
pub(crate) const NUMBERS: &str = "numbers ";
/// How long a run may take: they take a few seconds.
const RUN_MAX: Duration = Duration::from_secs(300);
/// How often it is looked whether one has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Invariants that see a lying disk by themselves, and a cluster that does nothing: a bug counts as caught if one of the others
/// sees it, for those say what a user loses.
const NOT_SAFETY: [&str; 3] = ["promises", "calm", "served"];

/// What a run says of itself.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Numbers {
    pub(crate) virtual_seconds: f64,
    pub(crate) cpu_seconds: f64,
    #[serde(flatten)]
    pub(crate) tally: Tally,
}

/// What many runs say.
#[derive(Debug, Serialize)]
struct Summary {
    /// The revision of this repository, if git can tell.
    revision: String,
    first_seed: u64,
    seeds: u64,
    /// Seeds that violated an invariant.
    violations: Vec<u64>,
    virtual_seconds_per_cpu_second: f64,
    #[serde(flatten)]
    numbers: Numbers,
}

/// `A..B`.
pub(crate) fn range(text: &str) -> anyhow::Result<Range<u64>> {
    let (from, to) = text.split_once("..").context("seeds are given as A..B")?;
    let range = from.parse()?..to.parse()?;
    if range.is_empty() {
        bail!("no seed lies in {text}");
    }
    Ok(range)
}

/// Runs a seed in a process of its own.
fn run(seed: u64, mutant: Option<Mutant>, more: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--seed", &seed.to_string()]).args(more);
    if let Some(mutant) = mutant {
        command.args(["--mutant", &name(mutant)]);
    }
    // Into files: what is said into a pipe that nobody reads holds up who says it.
    let (mut said, mut errors) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdout(said.try_clone()?).stderr(errors.try_clone()?);
    let mut child = command.spawn().context("a process for a seed")?;
    let until = Instant::now() + RUN_MAX;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > until {
            child.kill()?;
            writeln!(said, "seed {seed}: VIOLATION hangs: it has not ended in {RUN_MAX:?}")?;
            break child.wait()?;
        }
        thread::sleep(LOOK_EVERY);
    };
    Ok(Output { status, stdout: read(&mut said)?, stderr: read(&mut errors)? })
}

fn read(file: &mut File) -> anyhow::Result<Vec<u8>> {
    let mut all = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut all)?;
    Ok(all)
}

fn name(mutant: Mutant) -> String {
    mutant.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// The lines that say what is wrong, and the last words of a panic.
fn complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong: Vec<_> = said.lines().filter(|line| line.contains("VIOLATION")).collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    let panicked = errors.lines().skip_while(|line| !line.contains("panicked"));
    let last: Vec<_> = panicked.take(8).collect();
    if wrong.is_empty() || wrong.iter().any(|line| line.contains("panic")) {
        return format!("{}\n{}", wrong.join("\n"), last.join("\n"));
    }
    wrong.join("\n")
}

fn numbers(output: &Output) -> Numbers {
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find_map(|line| line.strip_prefix(NUMBERS));
    // A run that panicked says none.
    line.and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default()
}

/// Runs a seed in two processes and compares their traces.
pub(crate) fn twice(seed: u64, mutant: Option<Mutant>) -> anyhow::Result<ExitCode> {
    let dir = tempfile::tempdir()?;
    let mut traces = Vec::new();
    for file in ["one", "two"] {
        let path = dir.path().join(file);
        let text = path.to_str().context("a path of text")?.to_owned();
        let output = run(seed, mutant, &["--trace", &text])?;
        print!("{}", String::from_utf8_lossy(&output.stdout));
        traces.push(fs::read(path).with_context(|| complaint(&output))?);
    }
    if traces[0].is_empty() {
        bail!("seed {seed}: the trace is empty");
    }
    if traces[0] == traces[1] {
        println!("seed {seed}: the same {} bytes twice", traces[0].len());
        return Ok(ExitCode::SUCCESS);
    }
    let [one, two] = [&traces[0], &traces[1]].map(|trace| String::from_utf8_lossy(trace));
    let at = one.lines().zip(two.lines()).position(|(one, two)| one != two);
    let at = at.unwrap_or_else(|| one.lines().count().min(two.lines().count()));
    println!("seed {seed}: NOT DETERMINISTIC from line {}:", at + 1);
    println!("  {:?}\n  {:?}", one.lines().nth(at), two.lines().nth(at));
    Ok(ExitCode::FAILURE)
}

/// Runs seeds, so many at a time, and shows each one's output in their order, until `see` has seen enough.
fn each(
    seeds: &Range<u64>,
    mutant: Option<Mutant>,
    more: &[&str],
    jobs: usize,
    mut see: impl FnMut(u64, &Output) -> bool,
) -> anyhow::Result<()> {
    let next = AtomicU64::new(seeds.start);
    let (ended, endings) = mpsc::sync_channel(jobs.max(1));
    let work = |ended: SyncSender<(u64, anyhow::Result<Output>)>| {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            // Nobody listens any more once enough was seen.
            if seed >= seeds.end || ended.send((seed, run(seed, mutant, more))).is_err() {
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let ended = ended.clone();
            scope.spawn(|| work(ended));
        }
        drop(ended);
        let endings = endings;
        let (mut waiting, mut first) = (BTreeMap::new(), seeds.start);
        for (seed, output) in &endings {
            waiting.insert(seed, output?);
            while let Some(output) = waiting.remove(&first) {
                if see(first, &output) {
                    return Ok(());
                }
                first += 1;
            }
        }
        Ok(())
    })
}

/// Runs seeds; stops at none.
pub(crate) fn many(
    seeds: &Range<u64>,
    mutant: Option<Mutant>,
    jobs: usize,
    summary: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let (began, revision) = (Instant::now(), revision());
    let (mut violations, mut sums, mut done) = (Vec::new(), Numbers::default(), 0_u64);
    each(seeds, mutant, &[], jobs, |seed, output| {
        done += 1;
        if !output.status.success() {
            violations.push(seed);
            println!("seed {seed}: {}\n{}", output.status, complaint(output));
        }
        let numbers = numbers(output);
        sums.virtual_seconds += numbers.virtual_seconds;
        sums.cpu_seconds += numbers.cpu_seconds;
        sums.tally += numbers.tally;
        false
    })?;
    let wrong = violations.len();
    let took = began.elapsed().as_secs_f64();
    let speed = sums.virtual_seconds / sums.cpu_seconds.max(f64::MIN_POSITIVE);
    println!(
        "{done} seeds, {wrong} violated, {took:.0} s ({:.2} seeds/s), {speed:.1} virtual s per CPU-s",
        done as f64 / took
    );
    if let Some(path) = summary {
        let summary = Summary {
            revision,
            first_seed: seeds.start,
            seeds: done,
            violations,
            virtual_seconds_per_cpu_second: speed,
            numbers: sums,
        };
        let text = serde_json::to_string_pretty(&summary)?;
        fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::from(VIOLATED) })
}

fn revision() -> String {
    let said = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    said.ok().map_or_else(String::new, |said| String::from_utf8_lossy(&said.stdout).trim().into())
}

/// The first seed at which a safety invariant sees a known bug, and what it sees.
fn catch(mutant: Mutant, seeds: &Range<u64>, jobs: usize) -> anyhow::Result<Option<(u64, String)>> {
    let blind: Vec<&str> = NOT_SAFETY.iter().flat_map(|name| ["--blind", name]).collect();
    let mut caught = None;
    each(seeds, Some(mutant), &blind, jobs, |seed, output| {
        if output.status.code() == Some(i32::from(VIOLATED)) {
            caught = Some((seed, complaint(output)));
        }
        caught.is_some()
    })?;
    Ok(caught)
}

/// Puts each known bug back in until a seed sees it.
pub(crate) fn mutants(
    seeds: &Range<u64>,
    jobs: usize,
    only: &[Mutant],
) -> anyhow::Result<ExitCode> {
    let mut missed = 0;
    let wanted = |mutant: &&Mutant| only.is_empty() || only.contains(mutant);
    for &mutant in Mutant::value_variants().iter().filter(wanted) {
        let name = name(mutant);
        match catch(mutant, seeds, jobs)? {
            Some((_, how)) => println!("{name}: caught by {how}"),
            None => {
                missed += 1;
                println!("{name}: NOT caught by {} seeds", seeds.end - seeds.start);
            }
        }
    }
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
