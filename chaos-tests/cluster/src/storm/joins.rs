//! Blows after which a new node stands where another stood: a node dies for good, leaves, or has a damaged disk.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use moorline_oracle::history::Fault;
use tokio::time::sleep;

use super::damage;
use crate::members::{REMOVED, REPLICAS, SETTLE_MAX, Voters};
use crate::nemesis::{Nemesis, Victims};
use crate::scenario::{Blow, What};

/// Carries one out.
pub(super) async fn replace(
    nemesis: &mut Nemesis<'_>,
    blow: &Blow,
    lasts: Duration,
    victims: &Victims,
) -> Result<()> {
    for &at in &victims.places {
        let old = nemesis.cluster.nodes[at].id;
        if blow.what == What::Relieve {
            relieve(nemesis, old).await?;
            continue;
        }
        if blow.what == What::FlipLog {
            damage::worth_it(nemesis, at).await?;
        }
        nemesis.cluster.kill(at)?;
        nemesis.note(at, Fault::Kill, victims, Ok(()));
        nemesis.cluster.wait_death(at).await?;
        if blow.what == What::FlipLog {
            damage::flip_log(nemesis, at, blow.draw, victims).await?;
        } else if blow.what == What::FlipRows {
            damage::flip_rows(nemesis, at, blow.draw, victims).await?;
        }
        sleep(lasts).await;
        let new = spare(nemesis)?;
        nemesis.join(new, true).await?;
        nemesis.change("remove", Fault::Remove, old).await?;
        settled(nemesis, old, None).await?;
        if blow.what == What::Replace {
            nemesis.refused(old, REMOVED).await?;
        }
    }
    Ok(())
}

/// A new node joins, and the old one leaves while it works.
async fn relieve(nemesis: &mut Nemesis<'_>, old: u32) -> Result<()> {
    let new = spare(nemesis)?;
    nemesis.join(new, false).await?;
    nemesis.change("leave", Fault::Leave, old).await?;
    settled(nemesis, old, Some(old)).await?;
    let at = nemesis.place_of(old)?;
    let status = nemesis.cluster.wait_end(at, SETTLE_MAX).await?;
    ensure!(status.success(), "node {old} has left and ended with {status}");
    nemesis.refused(old, REMOVED).await
}

/// The first node that was never a member.
fn spare(nemesis: &Nemesis<'_>) -> Result<u32> {
    let peers = nemesis.cluster.peers.iter().zip(&nemesis.cluster.nodes);
    let fresh = peers.filter(|(peer, node)| !peer.is_member() && !node.was_started());
    fresh.map(|(peer, _)| peer.id).next().context("there is no spare node left")
}

async fn settled(nemesis: &mut Nemesis<'_>, old: u32, leaving: Option<u32>) -> Result<()> {
    let members: BTreeSet<u32> =
        nemesis.cluster.peers.iter().filter(|peer| peer.is_member()).map(|peer| peer.id).collect();
    let replicas = REPLICAS.min(members.len());
    let what = format!("every vote of node {old} is with others");
    let is = |voters: &Voters| {
        voters.values().all(|all| all.len() == replicas && all.is_subset(&members))
    };
    nemesis.settle(&what, leaving, is).await
}
