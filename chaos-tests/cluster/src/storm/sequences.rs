//! Sequences that chance hardly ever makes: they end with a majority of two nodes that were each away while the third one
//! acknowledged. What was acknowledged meanwhile must be on the disk of the one whose power failed.
//!
//! ```text
//!   first   ──away───────────────┐ back ─────────────── the majority, with the second
//!   second  ─────────── no power ┘ started ────────────
//!   third   ─────────────────────┐ away ─────────────── back at the end
//! ```

use std::time::Duration;

use anyhow::{Context, Result};
use moorline_oracle::history::Fault;
use rustix::process::Signal;
use tokio::time::sleep;

use crate::nemesis::{Nemesis, Victims};
use crate::network::Scope;
use crate::scenario::{Blow, What, power};
use crate::schedule::Disk;

/// How a node is put away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Away {
    Cut,
    Stopped,
}

/// Carries one out.
pub(super) async fn run(
    nemesis: &mut Nemesis<'_>,
    blow: &Blow,
    phase: Duration,
    victims: &Victims,
) -> Result<()> {
    let (how, done) = if blow.what == What::PartKill {
        (Away::Cut, Fault::PartKill)
    } else {
        (Away::Stopped, Fault::PauseKill)
    };
    let first = *victims.places.first().context("whom a blow hits")?;
    let members = (0..nemesis.cluster.peers.len())
        .filter(|at| *at != first && nemesis.cluster.peers[*at].is_up());
    let others: Vec<usize> = members.collect();
    let turned = usize::try_from(blow.draw % 2)?;
    let (Some(&second), Some(&third)) = (others.get(turned), others.get(1 - turned)) else {
        anyhow::bail!("it takes three nodes");
    };

    away(nemesis, first, how, victims)?;
    sleep(phase).await;
    nemesis.cluster.kill(second)?;
    nemesis.note(second, Fault::Kill, victims, Ok(()));
    nemesis.cluster.wait_death(second).await?;
    if nemesis.cluster.disk(second).is_some() {
        let torn = power(blow) == Fault::TornWrites;
        let disk = if torn { Disk::Tears(blow.draw) } else { Disk::Loses };
        nemesis.power_failure(second, disk, victims)?;
    }
    away(nemesis, third, how, victims)?;
    back(nemesis, first, how, victims)?;
    nemesis.cluster.start_node(second)?;
    nemesis.note(second, Fault::Restart, victims, Ok(()));
    for at in [first, second] {
        let ready = nemesis.cluster.wait_ready(at).await?;
        nemesis.note(at, Fault::Ready, victims, Ok(()));
        if at == second {
            nemesis.starts.push(ready);
        }
    }
    sleep(phase).await;
    back(nemesis, third, how, victims)?;
    nemesis.cluster.wait_ready(third).await?;
    nemesis.note(third, Fault::Ready, victims, Ok(()));
    nemesis.note(first, done, victims, Ok(()));
    Ok(())
}

fn away(nemesis: &mut Nemesis<'_>, at: usize, how: Away, victims: &Victims) -> Result<()> {
    if how == Away::Cut {
        let (network, id) = nemesis.network(at)?;
        network.cut(id, Scope::All)?;
        nemesis.note(at, Fault::Cut, victims, Ok(()));
    } else {
        nemesis.cluster.signal(at, Signal::STOP)?;
        nemesis.note(at, Fault::Pause, victims, Ok(()));
    }
    Ok(())
}

fn back(nemesis: &mut Nemesis<'_>, at: usize, how: Away, victims: &Victims) -> Result<()> {
    if how == Away::Cut {
        let (network, id) = nemesis.network(at)?;
        network.heal(id, Scope::All)?;
        nemesis.note(at, Fault::Heal, victims, Ok(()));
    } else {
        nemesis.cluster.signal(at, Signal::CONT)?;
        nemesis.note(at, Fault::Resume, victims, Ok(()));
    }
    Ok(())
}
