//! Many runs, each in a process of its own: a run that panics or hangs ends only itself.

use std::{
    collections::VecDeque,
    fs,
    ops::Range,
    process::{Child, Command, ExitCode, Output, Stdio},
    time::Instant,
};

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::mutant::Mutant;

/// What a process answers if an invariant was violated.
pub(crate) const VIOLATED: u8 = 2;

/// The disk's own count of what it promised sees a lying disk at once: what the others see of it counts, too.
const BLIND: [&str; 2] = ["--blind", "promises"];

/// `A..B`.
pub(crate) fn range(text: &str) -> anyhow::Result<Range<u64>> {
    let (from, to) = text.split_once("..").context("seeds are given as A..B")?;
    let range = from.parse()?..to.parse()?;
    if range.is_empty() {
        bail!("no seed lies in {text}");
    }
    Ok(range)
}

fn begin(seed: u64, mutant: Option<Mutant>, more: &[&str]) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--seed", &seed.to_string()]).args(more);
    if let Some(mutant) = mutant {
        command.args(["--mutant", &name(mutant)]);
    }
    let begun = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    begun.context("a process for a seed")
}

fn name(mutant: Mutant) -> String {
    mutant.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// The lines that say what is wrong, and the last words of a panic.
fn complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong: Vec<_> = said.lines().filter(|line| line.contains("VIOLATION")).collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    let last: Vec<_> = errors.lines().take(8).collect();
    if wrong.is_empty() || wrong.iter().any(|line| line.contains("panic")) {
        return format!("{}\n{}", wrong.join("\n"), last.join("\n"));
    }
    wrong.join("\n")
}

/// Runs a seed in two processes and compares their traces.
pub(crate) fn twice(seed: u64, mutant: Option<Mutant>) -> anyhow::Result<ExitCode> {
    let dir = tempfile::tempdir()?;
    let mut traces = Vec::new();
    for file in ["one", "two"] {
        let path = dir.path().join(file);
        let text = path.to_str().context("a path of text")?.to_owned();
        let output = begin(seed, mutant, &["--trace", &text])?.wait_with_output()?;
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

/// Runs seeds; stops at none.
pub(crate) fn many(
    seeds: &Range<u64>,
    mutant: Option<Mutant>,
    jobs: usize,
) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let mut running = VecDeque::new();
    let (mut wrong, mut done) = (0_u64, 0_u64);
    let mut finish = |seed: u64, child: Child| -> anyhow::Result<()> {
        let output = child.wait_with_output()?;
        done += 1;
        if !output.status.success() {
            wrong += 1;
            println!("seed {seed}: {}\n{}", output.status, complaint(&output));
        }
        Ok(())
    };
    for seed in seeds.clone() {
        running.push_back((seed, begin(seed, mutant, &[])?));
        if running.len() >= jobs.max(1)
            && let Some((seed, child)) = running.pop_front()
        {
            finish(seed, child)?;
        }
    }
    for (seed, child) in running {
        finish(seed, child)?;
    }
    let took = began.elapsed().as_secs_f64();
    println!("{done} seeds, {wrong} violated, {took:.0} s ({:.2} seeds/s)", done as f64 / took);
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::from(VIOLATED) })
}

/// The first seed that sees a known bug, by how many seeds were tried, and what it sees.
fn catch(
    mutant: Mutant,
    seeds: &Range<u64>,
    blind: &[&str],
) -> anyhow::Result<Option<(u64, String)>> {
    for seed in seeds.clone() {
        let output = begin(seed, Some(mutant), blind)?.wait_with_output()?;
        if output.status.code() == Some(i32::from(VIOLATED)) {
            return Ok(Some((seed - seeds.start + 1, complaint(&output))));
        }
    }
    Ok(None)
}

/// Puts each known bug back in until a seed sees it.
pub(crate) fn mutants(seeds: &Range<u64>) -> anyhow::Result<ExitCode> {
    let mut missed = 0;
    for &mutant in Mutant::value_variants() {
        for blind in [&[][..], &BLIND] {
            let caught = catch(mutant, seeds, blind)?;
            let (name, blind) = (name(mutant), blind.join(" "));
            match caught {
                Some((after, how)) => println!("{name} {blind}: caught after {after} seeds: {how}"),
                None => {
                    missed += 1;
                    println!("{name} {blind}: NOT caught by {} seeds", seeds.end - seeds.start);
                }
            }
        }
    }
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
