//! A node whose wall clock jumps while it works and while it is away, and one that is killed while it takes a snapshot.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use moorline_oracle::history::Fault;
use tokio::time::{Instant, sleep};

use super::start;
use crate::nemesis::{Nemesis, Victims};

/// Where a wall clock jumps to, in seconds off the true time: it lands there, and the node is started again there.
const JUMPS_S: [i64; 2] = [3_600, -3_600];
/// How long a killed node stays away while its clock is wrong.
const DOWN: Duration = Duration::from_millis(500);
/// How long a node may take to begin with a snapshot after its start, or to show that it needs none.
const SNAPSHOT_MAX: Duration = Duration::from_secs(20);
/// How often its directory is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Where a node keeps what it has of a snapshot, below its directory.
const STAGING: &str = "staging";

/// An hour ahead, an hour behind, killed at each, and right again.
pub(super) async fn clock(
    nemesis: &mut Nemesis<'_>,
    lasts: Duration,
    victims: &Victims,
) -> Result<()> {
    for &at in &victims.places {
        for (number, jump) in JUMPS_S.into_iter().enumerate() {
            nemesis.cluster.set_clock(at, jump)?;
            if number == 0 {
                nemesis.note(at, Fault::Clock, victims, Ok(()));
            }
            sleep(lasts).await;
            nemesis.cluster.kill(at)?;
            nemesis.note(at, Fault::Kill, victims, Ok(()));
            nemesis.cluster.wait_death(at).await?;
            sleep(DOWN).await;
            start(nemesis, at, victims).await?;
            sleep(lasts).await;
        }
        nemesis.cluster.set_clock(at, 0)?;
    }
    Ok(())
}

/// Away until the others have dropped the log that it lacks; killed when there is something of a snapshot in its directory.
pub(super) async fn snapshot_cut(
    nemesis: &mut Nemesis<'_>,
    lasts: Duration,
    victims: &Victims,
) -> Result<()> {
    for &at in &victims.places {
        nemesis.cluster.kill(at)?;
        nemesis.note(at, Fault::Kill, victims, Ok(()));
        nemesis.cluster.wait_death(at).await?;
        let staging = nemesis.cluster.data(at).join(STAGING);
        sleep(lasts).await;
        nemesis.cluster.start_node(at)?;
        nemesis.note(at, Fault::Restart, victims, Ok(()));
        let deadline = Instant::now() + SNAPSHOT_MAX;
        while !has_files(&staging) && Instant::now() < deadline {
            sleep(LOOK_EVERY).await;
        }
        let caught = has_files(&staging);
        nemesis.cluster.kill(at)?;
        nemesis.note(at, Fault::Kill, victims, Ok(()));
        nemesis.cluster.wait_death(at).await?;
        let done = if caught { Ok(()) } else { Err("no snapshot was under way".to_owned()) };
        nemesis.note(at, Fault::SnapshotCut, victims, done);
        start(nemesis, at, victims).await?;
    }
    Ok(())
}

fn has_files(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return false };
    entries.flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() { has_files(&path) } else { true }
    })
}
