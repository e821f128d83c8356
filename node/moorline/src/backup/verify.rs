//! `moorline backup verify`: reads all pieces of all backups, each once, and checks that they are what they were.

use std::{collections::BTreeMap, path::Path};

use anyhow::bail;
use bytes::Bytes;
use moorline_core::ShardId;
use moorline_storage::{key, pieces};

use super::{
    VerifyArgs,
    directory::Directory,
    manifest::{Group, Manifest, Piece},
};

/// Problems that are said one by one.
const PROBLEMS_SAID_MAX: usize = 100;

pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<()> {
    let directory = Directory::open(&args.dir)?;
    let _reading = directory.reading()?;
    let names = match &args.name {
        Some(name) => vec![name.clone()],
        None => directory.names()?,
    };
    if names.is_empty() {
        bail!("{}: there is no finished backup", args.dir.display());
    }
    let mut problems = Vec::new();
    let mut known = BTreeMap::new();
    for name in &names {
        let found = match directory.manifest(name) {
            Ok(manifest) => {
                let found = verify(&directory, &manifest, &mut known);
                if found.is_empty() {
                    println!("{}", summary(name, &manifest));
                }
                found
            }
            Err(problem) => vec![format!("{problem:#}")],
        };
        problems.extend(found.into_iter().map(|problem| format!("backup {name}: {problem}")));
    }
    said(&args.dir, &problems)
}

fn summary(name: &str, manifest: &Manifest) -> String {
    let Manifest { cluster, shards, program, .. } = manifest;
    let (rows, bytes) = (manifest.rows(), manifest.bytes());
    format!(
        "backup {name}: whole; cluster {cluster}, {shards} shards, {rows} rows, {bytes} bytes, by moorline {program}"
    )
}

/// Says what is wrong; fine if nothing is.
fn said(dir: &Path, problems: &[String]) -> anyhow::Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    for problem in problems.iter().take(PROBLEMS_SAID_MAX) {
        eprintln!("{problem}");
    }
    bail!(
        "{}: {} problems; a damaged piece is fetched again by the next `create` once its file is deleted",
        dir.display(),
        problems.len()
    )
}

/// What is wrong with a backup. `known`: pieces that were read before, and what was wrong with them.
pub(super) fn verify(
    directory: &Directory,
    manifest: &Manifest,
    known: &mut BTreeMap<(u16, Piece), Option<String>>,
) -> Vec<String> {
    let mut problems = Vec::new();
    for group in &manifest.groups {
        for piece in &group.pieces {
            let problem = known
                .entry((group.group, piece.clone()))
                .or_insert_with(|| problem_of(directory, group, piece));
            if let Some(problem) = problem {
                problems.push(format!("group {}: {problem}", group.group));
            }
        }
    }
    problems
}

fn problem_of(directory: &Directory, group: &Group, piece: &Piece) -> Option<String> {
    let path = directory.path(piece);
    let bytes = match directory.read(piece) {
        Ok(bytes) => bytes,
        Err(problem) => return Some(format!("{} {problem}", path.display())),
    };
    let problem = rows(bytes, group, piece).err()?;
    Some(format!("{}: {problem:#}", path.display()))
}

/// The rows of a piece, if they are as many as they should be, and of this group.
pub(super) fn rows(
    bytes: Bytes,
    group: &Group,
    piece: &Piece,
) -> anyhow::Result<Vec<(Bytes, Bytes)>> {
    let rows = pieces::rows(bytes)?;
    if rows.len() as u64 != piece.rows {
        bail!("{} rows, and the manifest says {}", rows.len(), piece.rows);
    }
    for (row_key, _) in &rows {
        if key::shard_of(row_key)? != ShardId(group.group) {
            bail!("a row of another group");
        }
        // One of a later version would be carried over without being understood.
        key::kind_of(row_key)?;
    }
    Ok(rows)
}
