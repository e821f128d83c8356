//! A bit of what a node had synced is another. It must be noticed, and the node must not go on: it says what to do and ends.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use moorline_oracle::history::Fault;
use tokio::time::{Instant, sleep};

use crate::admin;
use crate::cluster::READY_MAX;
use crate::nemesis::{Nemesis, Victims};

/// What a node advises whose data is damaged.
const ADVICE: &str = "new node id";
/// Where a node has its log, and its rows, below its directory. What the log has in files of rows (`.sst`) is read only when another
/// node needs it.
const LOG: &str = "raftlog";
const ROWS: &str = "state";
/// What must be written in a file for a bit of it to be damaged, in bytes.
const WORTH: usize = 4_096;
/// How long a node at work may take to write that much, and how often its files are looked at meanwhile. One that was started
/// just now begins a new file of its log.
const WORTH_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a node may take to end after it has read what is damaged.
const NOTICE_MAX: Duration = Duration::from_secs(30);

/// Waits until a node that runs has a log that can be damaged.
pub(super) async fn worth_it(nemesis: &Nemesis<'_>, at: usize) -> Result<()> {
    let log = nemesis.cluster.data(at).join(LOG);
    let deadline = Instant::now() + WORTH_MAX;
    loop {
        // RocksDB may delete a file just when it is looked at.
        let found = largest(&log, "log").and_then(|file| Ok(written(&fs::read(file)?)));
        match found {
            Ok(bytes) if bytes >= WORTH => return Ok(()),
            found => ensure!(
                Instant::now() < deadline,
                "no log worth damaging in {} after {WORTH_MAX:?}: {found:?}",
                log.display()
            ),
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Flips a bit in the middle of the log of a node that does not run, and has it refuse to start.
pub(super) async fn flip_log(
    nemesis: &mut Nemesis<'_>,
    at: usize,
    draw: u64,
    victims: &Victims,
) -> Result<()> {
    let file = largest(&nemesis.cluster.data(at).join(LOG), "log")?;
    flip(&file, draw)?;
    nemesis.note(at, Fault::Damage, victims, Ok(()));
    nemesis.cluster.start_node(at)?;
    ended(nemesis, at, READY_MAX, victims).await
}

/// Flips a bit in a file of rows of a node that does not run. It must end when it reads it; a digest reads everything.
pub(super) async fn flip_rows(
    nemesis: &mut Nemesis<'_>,
    at: usize,
    draw: u64,
    victims: &Victims,
) -> Result<()> {
    let file = largest(&nemesis.cluster.data(at).join(ROWS), "sst")?;
    flip(&file, draw)?;
    nemesis.note(at, Fault::Damage, victims, Ok(()));
    nemesis.cluster.start_node(at)?;
    if nemesis.cluster.wait_ready(at).await.is_ok() {
        let others = nemesis.cluster.peers.iter().filter(|peer| peer.is_up());
        let others: Vec<_> = others.map(|peer| peer.admin).collect();
        for node in others {
            if admin::digests(node).await.is_ok() {
                break;
            }
        }
    }
    ended(nemesis, at, NOTICE_MAX, victims).await
}

async fn ended(
    nemesis: &mut Nemesis<'_>,
    at: usize,
    within: Duration,
    victims: &Victims,
) -> Result<()> {
    let id = nemesis.cluster.nodes[at].id;
    let status = nemesis.cluster.wait_end(at, within).await;
    let status = status.context("a node goes on with damaged data")?;
    ensure!(
        !status.success() && nemesis.says(id, ADVICE),
        "node {id} has damaged data and ended with {status}, not saying {ADVICE:?}"
    );
    nemesis.note(at, Fault::Ended, victims, Ok(()));
    Ok(())
}

/// The largest file below a directory whose name ends so.
fn largest(directory: &Path, extension: &str) -> Result<PathBuf> {
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    let mut ahead = vec![directory.to_owned()];
    while let Some(directory) = ahead.pop() {
        for entry in fs::read_dir(&directory)? {
            let (entry, path) = entry.map(|entry| (entry.metadata(), entry.path()))?;
            let entry = entry?;
            if entry.is_dir() {
                ahead.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push((entry.len(), path));
            }
        }
    }
    let largest = found.into_iter().max();
    largest.map(|(_, path)| path).with_context(|| format!("no .{extension} below {directory:?}"))
}

/// Flips a bit in the second quarter of what is written in a file: behind it there is more, and it is no trailer.
fn flip(path: &Path, draw: u64) -> Result<()> {
    let bytes = fs::read(path)?;
    let written = written(&bytes);
    if written < WORTH {
        bail!("{} has only {written} bytes: nothing to damage", path.display());
    }
    let quarter = u64::try_from(written / 4)?;
    let place = quarter + draw % quarter;
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(place))?;
    file.read_exact(&mut byte)?;
    byte[0] ^= 1 << ((draw >> 32) % 8);
    file.seek(SeekFrom::Start(place))?;
    file.write_all(&byte)?;
    file.sync_all()?;
    println!("           byte {place} of {written} in {}", path.display());
    Ok(())
}

/// How many bytes are before the zeros at a file's end, which RocksDB allocates ahead.
fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_is_another_and_zeros_at_the_end_do_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep").join("000007.log");
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(directory.path().join("000008.log"), [1; 100]).unwrap();
        let before = [&[7; 8_000][..], &[0; 90_000]].concat();
        fs::write(&path, &before).unwrap();
        assert_eq!(largest(directory.path(), "log").unwrap(), path);
        flip(&path, 0x5_0000_1234).unwrap();
        let after = fs::read(&path).unwrap();
        let other: Vec<usize> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        assert_eq!(other.len(), 1);
        assert!((2_000..4_000).contains(&other[0]), "{other:?}");
        assert_eq!((before[other[0]] ^ after[other[0]]).count_ones(), 1);
        assert!(largest(directory.path(), "sst").is_err());
    }
}
