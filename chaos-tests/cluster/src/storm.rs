//! Carries a scenario out: one blow after the other, each healed before the next.

mod away;
mod damage;
mod joins;
mod lines;
mod sequences;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use moorline_oracle::history::Fault;
use rustix::process::Signal;
use tokio::time::{Instant, sleep, sleep_until};

use crate::admin;
use crate::cluster::tail;
use crate::nemesis::{Nemesis, Victims, leaders};
use crate::scenario::{Blow, Scenario, What, Whom, power};
use crate::schedule::{Deed, Disk, Step, Target};

/// How long a node may take to stop when it is asked to.
const STOP_MAX: Duration = Duration::from_secs(30);
/// How long an emptied node may take to hear that nobody wants it.
const REFUSED_MAX: Duration = Duration::from_secs(30);
/// How long a node may take to notice that an fsync failed: it writes all the time.
const NOTICE_MAX: Duration = Duration::from_secs(30);
/// How long each fsync takes while a disk stalls, in milliseconds.
const STALL_MS: u64 = 300;
/// Space that a full disk has left, in bytes: some records, no file.
const LEFT_BYTES: u64 = 64 << 10;
/// What one says that joined by `cluster join`: whom it knows was in its directory.
const KNOWS_NOBODY: &str = "knows no other";
/// What a node says whose id the cluster knows with another directory.
const OTHER_DIRECTORY: &str = "data directory";
/// How much of a log is looked through for the reason, in lines.
const TAIL_LINES: usize = 50;

/// Does every blow in its time and writes back whom it hit. Ends with an error if a node does not come back.
pub async fn run(nemesis: &mut Nemesis<'_>, scenario: &mut Scenario, began: Instant) -> Result<()> {
    for blow in &mut scenario.blows {
        sleep_until(began + Duration::from_millis(blow.at_ms)).await;
        nemesis.look_for_deaths()?;
        let leaders = leaders(&nemesis.cluster.peers).await;
        if blow.hit.is_empty() {
            blow.hit = whom(nemesis, blow.whom, &leaders);
        }
        let places: Option<Vec<usize>> =
            blow.hit.iter().map(|&id| nemesis.cluster.place(id)).collect();
        let places = places.context("the schedule names a node that there is not")?;
        let victims = Victims { places, leaders };
        let struck = strike(nemesis, blow, &victims).await;
        struck.with_context(|| format!("{:?} of nodes {:?}", blow.what, blow.hit))?;
    }
    Ok(())
}

fn whom(nemesis: &Nemesis<'_>, whom: Whom, leaders: &[u32]) -> Vec<u32> {
    let members = nemesis.cluster.peers.iter().filter(|peer| peer.is_member());
    let all: Vec<u32> = members.map(|peer| peer.id).collect();
    let pick = |draw: u32, of: &[u32]| {
        let draw = usize::try_from(draw).expect("32 bits fit");
        of[draw % of.len()]
    };
    match whom {
        Whom::All => all,
        Whom::Leader(draw) if !leaders.is_empty() => vec![pick(draw, leaders)],
        Whom::Leader(draw) => vec![pick(draw, &all)],
        Whom::Follower(draw) => {
            let leads = |id: &u32| leaders.iter().filter(|leader| *leader == id).count();
            let fewest = all.iter().map(leads).min().unwrap_or(0);
            let idle: Vec<u32> = all.iter().copied().filter(|id| leads(id) == fewest).collect();
            vec![pick(draw, &idle)]
        }
    }
}

async fn strike(nemesis: &mut Nemesis<'_>, blow: &Blow, victims: &Victims) -> Result<()> {
    let lasts = Duration::from_millis(blow.for_ms);
    let step = |deed, disk| {
        let (at_ms, for_ms) = (blow.at_ms, blow.for_ms);
        Step { at_ms, deed, target: Target::All, for_ms, disk }
    };
    match blow.what {
        What::Kill => nemesis.kill(step(Deed::Kill, Disk::Keeps), victims).await,
        What::Power => {
            let torn = power(blow) == Fault::TornWrites;
            let disk = if torn { Disk::Tears(blow.draw) } else { Disk::Loses };
            nemesis.kill(step(Deed::Kill, disk), victims).await
        }
        What::Pause => nemesis.pause(step(Deed::Pause, Disk::Keeps), victims).await,
        What::Cut => nemesis.cut(step(Deed::Cut, Disk::Keeps), victims).await,
        What::CutIn => one_way(nemesis, (Fault::CutIn, true), lasts, victims).await,
        What::CutOut => one_way(nemesis, (Fault::CutOut, false), lasts, victims).await,
        What::FsyncStall => stall(nemesis, lasts, victims).await,
        What::FsyncError => fail_fsync(nemesis, lasts, victims).await,
        What::DiskFull => fill(nemesis, lasts, victims).await,
        What::Restart => restart(nemesis, victims).await,
        What::Wipe => wipe(nemesis, lasts, victims).await,
        What::Slow => lines::slow(nemesis, blow, lasts, victims).await,
        What::Reset => lines::reset(nemesis, lasts, victims).await,
        What::CutClients => lines::cut_clients(nemesis, lasts, victims).await,
        What::Flap => lines::flap(nemesis, lasts, victims).await,
        What::Clock => away::clock(nemesis, lasts, victims).await,
        What::SnapshotCut => away::snapshot_cut(nemesis, lasts, victims).await,
        What::PartKill | What::PauseKill => sequences::run(nemesis, blow, lasts, victims).await,
        What::Replace | What::Relieve | What::FlipLog | What::FlipRows => {
            joins::replace(nemesis, blow, lasts, victims).await
        }
    }
}

async fn one_way(
    nemesis: &mut Nemesis<'_>,
    (fault, inward): (Fault, bool),
    lasts: Duration,
    victims: &Victims,
) -> Result<()> {
    for &at in &victims.places {
        let (network, id) = nemesis.network(at)?;
        network.cut_one_way(id, inward)?;
        nemesis.note(at, fault, victims, Ok(()));
    }
    sleep(lasts).await;
    for &at in &victims.places {
        let (network, id) = nemesis.network(at)?;
        network.heal_one_way(id, inward)?;
        nemesis.note(at, Fault::Heal, victims, Ok(()));
    }
    nemesis.wait_healed(victims).await
}

async fn stall(nemesis: &mut Nemesis<'_>, lasts: Duration, victims: &Victims) -> Result<()> {
    for &at in &victims.places {
        nemesis.controller(at)?.slow_fsyncs(STALL_MS);
        nemesis.note(at, Fault::FsyncStall, victims, Ok(()));
    }
    sleep(lasts).await;
    for &at in &victims.places {
        nemesis.controller(at)?.heal();
        nemesis.note(at, Fault::DiskHealed, victims, Ok(()));
    }
    nemesis.wait_healed(victims).await
}

/// A node must not go on after a failed sync: nobody knows what is on its disk.
async fn fail_fsync(nemesis: &mut Nemesis<'_>, lasts: Duration, victims: &Victims) -> Result<()> {
    for &at in &victims.places {
        nemesis.controller(at)?.fail_fsyncs(1);
        nemesis.note(at, Fault::FsyncError, victims, Ok(()));
        let ended = nemesis.cluster.wait_end(at, NOTICE_MAX).await;
        let status = ended.context("a node went on after a failed fsync")?;
        ensure!(!status.success(), "a node took a failed fsync for a reason to stop well");
        nemesis.note(at, Fault::Ended, victims, Ok(()));
        nemesis.controller(at)?.heal();
        sleep(lasts).await;
        start(nemesis, at, victims).await?;
    }
    Ok(())
}

/// A node with a full disk refuses or stops; it does not lose what it said it has.
async fn fill(nemesis: &mut Nemesis<'_>, lasts: Duration, victims: &Victims) -> Result<()> {
    for &at in &victims.places {
        let disk = nemesis.controller(at)?;
        disk.set_quota(Some(disk.status().used_bytes + LEFT_BYTES));
        nemesis.note(at, Fault::DiskFull, victims, Ok(()));
    }
    sleep(lasts).await;
    for &at in &victims.places {
        nemesis.controller(at)?.heal();
        nemesis.note(at, Fault::DiskHealed, victims, Ok(()));
        let ended = nemesis.cluster.exited(at)?.is_some();
        if ended || nemesis.cluster.wait_end(at, NOTICED).await.is_ok() {
            nemesis.cluster.wait_death(at).await?;
            nemesis.note(at, Fault::Ended, victims, Ok(()));
            start(nemesis, at, victims).await?;
        } else {
            nemesis.cluster.wait_ready(at).await?;
            nemesis.note(at, Fault::Ready, victims, Ok(()));
        }
    }
    Ok(())
}

/// A node that stops because its disk was full may be on its way when there is room again.
const NOTICED: Duration = Duration::from_secs(4);

async fn restart(nemesis: &mut Nemesis<'_>, victims: &Victims) -> Result<()> {
    for &at in &victims.places {
        nemesis.cluster.signal(at, Signal::TERM)?;
        nemesis.note(at, Fault::Terminate, victims, Ok(()));
        let status = nemesis.cluster.wait_end(at, STOP_MAX).await?;
        ensure!(status.success(), "a node that was asked to stop ended with {status}");
        start(nemesis, at, victims).await?;
    }
    Ok(())
}

async fn wipe(nemesis: &mut Nemesis<'_>, lasts: Duration, victims: &Victims) -> Result<()> {
    for &at in &victims.places {
        nemesis.cluster.kill(at)?;
        nemesis.note(at, Fault::Kill, victims, Ok(()));
        nemesis.cluster.wait_death(at).await?;
        sleep(lasts).await;
        nemesis.cluster.set_emptied(at, true)?;
        nemesis.cluster.start_node(at)?;
        refused(nemesis, at).await?;
        nemesis.note(at, Fault::Refuse, victims, Ok(()));
        nemesis.cluster.set_emptied(at, false)?;
        start(nemesis, at, victims).await?;
    }
    Ok(())
}

/// An emptied node ends and says why. If all it knows of have left the cluster meanwhile, it asks nobody: then it is let in by nobody.
async fn refused(nemesis: &mut Nemesis<'_>, at: usize) -> Result<()> {
    let Ok(status) = nemesis.cluster.wait_end(at, REFUSED_MAX).await else {
        let ready = admin::is_ready(nemesis.cluster.peers[at].admin).await;
        ensure!(!ready, "an emptied node takes part");
        nemesis.cluster.kill(at)?;
        return nemesis.cluster.wait_death(at).await;
    };
    let said = tail(nemesis.cluster.nodes[at].log(), TAIL_LINES);
    let why = [OTHER_DIRECTORY, KNOWS_NOBODY];
    if status.success() || !why.iter().any(|why| said.contains(why)) {
        bail!("an emptied node ended with {status} and did not say why:\n{said}");
    }
    Ok(())
}

async fn start(nemesis: &mut Nemesis<'_>, at: usize, victims: &Victims) -> Result<()> {
    nemesis.cluster.start_node(at)?;
    nemesis.note(at, Fault::Restart, victims, Ok(()));
    let ready = nemesis.cluster.wait_ready(at).await?;
    nemesis.note(at, Fault::Ready, victims, Ok(()));
    nemesis.starts.push(ready);
    Ok(())
}
