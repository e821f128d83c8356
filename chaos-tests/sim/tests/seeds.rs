//! The product holds its promises for some seeds, a seed is one run, and every check sees the bug that is planted for it.

use moorline_sim::{Mutant, Options, run};

/// Enough for a quick look; `moorline-sim` runs for as long as it is told.
const SEEDS: u64 = 12;
/// Within so many seeds a planted bug must show.
const SEEDS_TO_SEE: u64 = 40;

fn options(mutant: Mutant) -> Options {
    Options { steps: 3_000, mutant, ..Options::default() }
}

#[test]
fn promises_hold_for_fixed_seeds() {
    for seed in 0..SEEDS {
        if let Err(violation) = run(seed, &options(Mutant::None)) {
            panic!("seed {seed}: {violation}");
        }
    }
}

#[test]
fn larger_clusters_hold_them_too() {
    let options = Options { nodes: 5, shards: 3, ..options(Mutant::None) };
    for seed in 0..SEEDS / 3 {
        if let Err(violation) = run(seed, &options) {
            panic!("seed {seed}: {violation}");
        }
    }
}

#[test]
fn a_run_is_its_seed() {
    let [first, second, other] = [7, 7, 8].map(|seed| run(seed, &options(Mutant::None)).ok());
    assert!(first.is_some());
    assert_eq!(first, second);
    assert_ne!(first.map(|report| report.trace), other.map(|report| report.trace));
}

#[test]
fn runs_meet_what_they_are_for() {
    let reports: Vec<_> =
        (0..SEEDS).filter_map(|seed| run(seed, &options(Mutant::None)).ok()).collect();
    let sum = |of: fn(&moorline_sim::Report) -> u64| reports.iter().map(of).sum::<u64>();
    assert!(sum(|report| report.acknowledged) > 500);
    assert!(sum(|report| report.crashes) > 10);
    assert!(sum(|report| report.lost_entries) > 5);
    assert!(sum(|report| report.snapshots) > 0);
    assert!(sum(|report| report.repeated) > 10);
    assert!(sum(|report| report.unknown) > 0);
}

#[test]
fn planted_bugs_are_seen() {
    // Which checks may be the first to see each.
    let table: [(Mutant, &[&str]); 6] = [
        (Mutant::NoDedupe, &["once", "order"]),
        (Mutant::LostCommit, &["agreement", "loss", "answers", "order"]),
        (Mutant::EarlySettle, &["loss", "order"]),
        (Mutant::LostRow, &["agreement"]),
        (Mutant::NewestFirst, &["loss", "order", "answers"]),
        (Mutant::LostSettle, &["settled"]),
    ];
    for (mutant, checks) in table {
        let seen = (0..SEEDS_TO_SEE).find_map(|seed| run(seed, &options(mutant)).err());
        let seen = seen.unwrap_or_else(|| panic!("nobody saw {mutant:?}"));
        assert!(checks.contains(&seen.invariant), "{mutant:?} was seen as {seen}");
    }
}
