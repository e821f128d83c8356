//! Run after run with fresh seeds, a cluster each, until the hours are over or one does not pass; and what all of them came to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use moorline_oracle::Outcome;
use moorline_oracle::recovery::Recovery;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::commands::{once, sketch};
use crate::options::StressOptions;
use crate::page::{KindOfRecovery, by_kind};
use crate::report::Report;
use crate::scenario::{Scenario, What, expand};

/// An hour, in seconds.
const HOUR_S: u64 = 3_600;

/// What a soak came to.
#[derive(Debug, Default, Serialize)]
struct Soaked {
    /// How long it has gone on.
    hours: f64,
    /// Every run.
    runs: Vec<Soak>,
    /// How often each was done, in all runs.
    blows: BTreeMap<What, usize>,
    /// Messages acknowledged.
    acknowledged: u64,
    /// Deliveries.
    delivered: u64,
    /// What checks found that must not be.
    violations: u64,
    /// By kind of fault, how long work was gone.
    recovery: Vec<KindOfRecovery>,
}

/// One run of a soak.
#[derive(Debug, Serialize)]
struct Soak {
    seed: u64,
    outcome: Outcome,
    blows: usize,
    /// What each check looked at.
    checks: BTreeMap<String, String>,
}

/// What a run left.
#[derive(Debug, Deserialize)]
struct Left {
    recoveries: Vec<Recovery>,
}

/// Runs it. Whether every run passed.
pub async fn soak(options: &StressOptions, hours: f64) -> Result<bool> {
    let lasts = Duration::from_secs(HOUR_S).mul_f64(hours);
    let began = Instant::now();
    let mut soaked = Soaked::default();
    let mut recoveries = Vec::new();
    let mut seed = options.seed.unwrap_or_else(rand::random);
    while began.elapsed() < lasts {
        let mut scenario = expand(&sketch(options, seed));
        let number = soaked.runs.len() + 1;
        let out = options.out.as_ref().map(|out| out.join(format!("{number}-{seed}")));
        let report = once(&mut scenario, &options.binary, out.as_ref()).await?;
        soaked.add(&scenario, &report);
        soaked.hours = began.elapsed().as_secs_f64() / 3_600.0;
        if let (Some(all), Some(out)) = (&options.out, &out) {
            let left = fs::read_to_string(out.join("summary.json"))?;
            let left: Left = serde_json::from_str(&left).context("a summary")?;
            recoveries.extend(left.recoveries);
            soaked.recovery = by_kind(&recoveries);
            soaked.write(&all.join("summary.json"))?;
        }
        let blows: usize = soaked.blows.values().sum();
        println!("soak: {number} runs, {blows} blows in {:.2} h", soaked.hours);
        if !report.passed() {
            return Ok(false);
        }
        seed = seed.wrapping_add(1);
    }
    Ok(true)
}

impl Soaked {
    fn add(&mut self, scenario: &Scenario, report: &Report) {
        for blow in &scenario.blows {
            *self.blows.entry(blow.what).or_default() += 1;
        }
        let verdict = &report.verdict;
        self.acknowledged += verdict.counts.acked;
        self.delivered += verdict.counts.delivered;
        self.violations += verdict.checks.iter().map(|check| check.found).sum::<u64>();
        let checks = verdict.checks.iter();
        self.runs.push(Soak {
            seed: scenario.seed,
            outcome: verdict.outcome,
            blows: scenario.blows.len(),
            checks: checks.map(|check| (check.name.clone(), check.detail.clone())).collect(),
        });
    }

    fn write(&self, path: &Path) -> Result<()> {
        Ok(fs::write(path, serde_json::to_string_pretty(self)?)?)
    }
}
