//! `moorline doctor`: what is wrong, or soon will be, on this machine and in the cluster, and what to type about it.
//!
//! ```text
//!   file, ports, disk, certificates ─► facts::Machine ─┐
//!   GET /api/v1/cluster, /metrics   ─► facts::Asked   ─┴─► judge ─► findings ─► text or JSON, exit code
//! ```
//!
//! # Invariants
//!
//! - **Nothing is changed**, but for a file in the data directory that is written, synced and removed again.
//! - **What could not be looked at is a finding**, not a silence.
//!
//! What is a finding is decided in [`judge`], which is pure, and checked there.

mod facts;
mod judge;

use std::{fmt::Write, path::PathBuf};

use serde::Serialize;

use self::judge::{Finding, Severity};
use crate::cli::DoctorArgs;

/// Where a node is asked if nothing says where.
const ADMIN_DEFAULT: &str = "127.0.0.1:9400";

/// Something was found, and has been printed.
#[derive(Debug, thiserror::Error)]
#[error("{errors} errors and {warnings} warnings")]
pub(crate) struct Found {
    errors: usize,
    warnings: usize,
}

impl Found {
    /// The exit code that says so.
    pub(crate) fn code(&self) -> u8 {
        if self.errors > 0 { 2 } else { 1 }
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    looked_at: Vec<String>,
    errors: usize,
    warnings: usize,
    findings: Vec<Finding>,
}

/// Runs `moorline doctor`.
pub(crate) async fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    let report = report(args).await;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", text(&report));
    }
    let Report { errors, warnings, .. } = report;
    if errors + warnings > 0 {
        return Err(Found { errors, warnings }.into());
    }
    Ok(())
}

async fn report(args: &DoctorArgs) -> Report {
    let config = args.config.as_ref().map(|file| (file.clone(), facts::read(file)));
    let of_file = config.as_ref().and_then(|(_, read)| read.as_ref().ok());
    let admins = if args.admins.is_empty() {
        vec![of_file.map_or_else(|| ADMIN_DEFAULT.to_owned(), |of| of.listen.admin.to_string())]
    } else {
        args.admins.clone()
    };
    let mut asked = Vec::new();
    for admin in &admins {
        asked.push(facts::ask(admin).await);
    }
    let machine = config.as_ref().map(|(file, read)| facts::machine(file, read, &asked));
    let findings = judge::judge(machine.as_ref(), &asked, facts::now_s());
    let count = |severity| findings.iter().filter(|one| one.severity == severity).count();
    let mut looked_at: Vec<String> =
        args.config.iter().map(|file: &PathBuf| file.display().to_string()).collect();
    looked_at.extend(admins);
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    Report { looked_at, errors, warnings, findings }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    for Finding { severity, check, what, means, next } in &report.findings {
        let name = severity.name();
        writeln!(out, "{name:<7}  {check}: {what}").expect("a string takes all");
        for line in [means, next].into_iter().filter(|line| !line.is_empty()) {
            writeln!(out, "         {line}").expect("a string takes all");
        }
    }
    let Report { errors, warnings, looked_at, .. } = report;
    writeln!(out, "looked at {}: {errors} errors, {warnings} warnings", looked_at.join(", "))
        .expect("a string takes all");
    out
}
