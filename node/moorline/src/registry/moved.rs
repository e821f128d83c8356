//! `moorline import`: the devices of another platform, out of what its API said of them.
//!
//! # Invariants
//!
//! - **What does not move is said**, and then the exit code is not 0. Checked by `tests/it/moved.rs`.
//! - **Secrets are in memory only**, and on standard output if they are asked for there (`--print`).

use std::{
    fs,
    io::{self, Read, Write},
    path::PathBuf,
};

use anyhow::{Context, bail};
use clap::{Args, builder::PossibleValuesParser};
use hyper::body::Bytes;
use moorline_dialects::export::{Export, Left, READERS};
use serde_json::Value;

use super::{ApiArgs, bulk};

/// Bytes of all files of an export: about a million devices, which are in memory several times.
const EXPORT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Things that stay behind which are printed; all of them with `--json`.
const LEFT_SHOWN_MAX: usize = 20;

/// `moorline import`.
#[derive(Debug, Args)]
pub(crate) struct MovedArgs {
    /// Where they come from.
    #[arg(value_parser = PossibleValuesParser::new(READERS.iter().map(|(name, _)| *name)))]
    platform: String,
    /// What its API answered: pages or lists of devices and credentials, as JSON, one after the other.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Change devices that are there and differ; otherwise they fail.
    #[arg(long)]
    update: bool,
    /// Print the lines for `moorline device import`, with the credentials in them, and import nothing.
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// Runs it.
pub(crate) async fn run(args: MovedArgs) -> anyhow::Result<()> {
    let values = values(&args.files)?;
    let reader = READERS.iter().find(|(name, _)| *name == args.platform);
    let (_, read) = reader.context("no such platform")?;
    let Export { devices, left } = read(&values);
    drop(values);
    say_left(&left, args.api.json);
    if devices.is_empty() {
        bail!("there are no devices in it");
    }
    let mut lines = String::new();
    for device in &devices {
        lines.push_str(&device.to_line().to_string());
        lines.push('\n');
    }
    if args.print {
        io::stdout().lock().write_all(lines.as_bytes())?;
    } else {
        let lines = bulk::Source::Lines(Bytes::from(lines));
        bulk::import_from(lines, args.update, args.api).await?;
    }
    if !left.is_empty() {
        bail!("{} things did not move, or not whole", left.len());
    }
    Ok(())
}

fn values(files: &[PathBuf]) -> anyhow::Result<Vec<Value>> {
    let (mut values, mut left) = (Vec::new(), EXPORT_BYTES_MAX);
    for file in files {
        let said = || file.display().to_string();
        let mut bytes = Vec::new();
        let opened = fs::File::open(file).with_context(said)?;
        opened.take(left + 1).read_to_end(&mut bytes).with_context(said)?;
        let Some(still) = left.checked_sub(bytes.len() as u64) else {
            bail!("{}: more than 1 GiB at once; import it in parts", file.display());
        };
        left = still;
        for value in serde_json::Deserializer::from_slice(&bytes).into_iter() {
            values.push(value.with_context(said)?);
        }
    }
    Ok(values)
}

fn say_left(left: &[Left], all: bool) {
    let shown = if all { left.len() } else { LEFT_SHOWN_MAX };
    for Left { what, why } in left.iter().take(shown) {
        eprintln!("{what}: {why}");
    }
    if left.len() > shown {
        eprintln!("… and {} more", left.len() - shown);
    }
}
