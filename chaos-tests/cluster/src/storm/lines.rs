//! Blows against the lines between nodes, and between a node and its clients.

use std::time::Duration;

use anyhow::Result;
use moorline_oracle::history::Fault;
use tokio::time::sleep;

use crate::nemesis::{Nemesis, Victims};
use crate::network::Scope;
use crate::scenario::Blow;
use crate::shaper::Line;

/// How bad a bad line is.
const BAD: Line = Line { least_ms: 40, most_ms: 120, lost_permille: 20 };
/// How long a flapping node is off the network, and on it again.
const FLAP: Duration = Duration::from_secs(1);

/// Packets are late, lost and out of order.
pub(super) async fn slow(
    nemesis: &mut Nemesis<'_>,
    blow: &Blow,
    lasts: Duration,
    victims: &Victims,
) -> Result<()> {
    let mut shapers = Vec::new();
    for (number, &at) in (0..).zip(&victims.places) {
        let (network, id) = nemesis.network(at)?;
        shapers.push(network.slow(id, BAD, blow.draw.wrapping_add(number))?);
        nemesis.note(at, Fault::Slow, victims, Ok(()));
    }
    sleep(lasts).await;
    for (&at, shaper) in victims.places.iter().zip(shapers) {
        let (network, id) = nemesis.network(at)?;
        let (passed, lost) = network.unslow(id, shaper)?;
        println!("           node {id}: {passed} packets were late, {lost} lost");
        nemesis.note(at, Fault::Heal, victims, Ok(()));
    }
    nemesis.wait_healed(victims).await
}

/// Other nodes and this one hear at once that nobody is there.
pub(super) async fn reset(
    nemesis: &mut Nemesis<'_>,
    lasts: Duration,
    victims: &Victims,
) -> Result<()> {
    for &at in &victims.places {
        let (network, id) = nemesis.network(at)?;
        network.reset(id)?;
        nemesis.note(at, Fault::Reset, victims, Ok(()));
    }
    sleep(lasts).await;
    for &at in &victims.places {
        let (network, id) = nemesis.network(at)?;
        network.unreset(id)?;
        nemesis.note(at, Fault::Heal, victims, Ok(()));
    }
    nemesis.wait_healed(victims).await
}

/// Clients do not reach it.
pub(super) async fn cut_clients(
    nemesis: &mut Nemesis<'_>,
    lasts: Duration,
    victims: &Victims,
) -> Result<()> {
    for &at in &victims.places {
        let (network, id) = nemesis.network(at)?;
        network.cut(id, Scope::Clients)?;
        nemesis.note(at, Fault::CutClients, victims, Ok(()));
    }
    sleep(lasts).await;
    for &at in &victims.places {
        let (network, id) = nemesis.network(at)?;
        network.heal(id, Scope::Clients)?;
        nemesis.note(at, Fault::Heal, victims, Ok(()));
    }
    nemesis.wait_healed(victims).await
}

/// Off the network and on it again.
pub(super) async fn flap(
    nemesis: &mut Nemesis<'_>,
    lasts: Duration,
    victims: &Victims,
) -> Result<()> {
    for &at in &victims.places {
        nemesis.note(at, Fault::Flap, victims, Ok(()));
    }
    let times = lasts.as_secs().div_ceil(2 * FLAP.as_secs());
    for _ in 0..times {
        for &at in &victims.places {
            let (network, id) = nemesis.network(at)?;
            network.cut(id, Scope::All)?;
        }
        sleep(FLAP).await;
        for &at in &victims.places {
            let (network, id) = nemesis.network(at)?;
            network.heal(id, Scope::All)?;
        }
        sleep(FLAP).await;
    }
    for &at in &victims.places {
        nemesis.note(at, Fault::Heal, victims, Ok(()));
    }
    nemesis.wait_healed(victims).await
}
