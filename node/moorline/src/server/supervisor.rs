//! What a service manager is told, where there is one: systemd with `Type=notify`, and whatever else sets `NOTIFY_SOCKET`.
//!
//! # Invariants
//!
//! - **A ping is a proof.** `WATCHDOG=1` is said only after each replica's Raft core has taken a turn ([`Node::live`]), by a
//!   task of the same runtime: threads that all wait, timers that do not run out and a core that hangs end the pings alike.
//!   What HTTP answers on `/livez` is the same.
//! - **Ready means started, not serving**: a node of a cluster that nobody has made yet has started. What it waits for is its
//!   status, which `systemctl status` shows. Checked by `tests/it/supervised.rs`.

use std::{env, sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::node::Node;

/// Where a service manager listens; without it there is none.
const SOCKET: &str = "NOTIFY_SOCKET";
/// How often a node looks at itself.
const INTERVAL: Duration = Duration::from_secs(5);
/// How often at least within the time after which the manager gives a silent node up.
const PINGS_MIN: u32 = 3;

/// Tells how the node stands, until it stops.
pub(super) async fn tell(node: Arc<Node>, stop: CancellationToken) -> anyhow::Result<()> {
    if env::var_os(SOCKET).is_none() {
        return Ok(());
    }
    let watchdog = sd_notify::watchdog_enabled();
    let pause = watchdog.map_or(INTERVAL, |within| INTERVAL.min(within / PINGS_MIN));
    say(&[NotifyState::Ready]);
    let mut said = String::new();
    loop {
        let failed = node.live().await.into_iter().find(|check| !check.ok);
        match failed {
            Some(check) => error!(check.name, check.detail, "this node does not work"),
            None if watchdog.is_some() => say(&[NotifyState::Watchdog]),
            None => {}
        }
        let status = status(&node);
        if status != said {
            say(&[NotifyState::Status(&status)]);
            said = status;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// From now on the node needs no pings.
pub(super) fn stopping() {
    say(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// One line: whether clients can connect, or why not.
fn status(node: &Node) -> String {
    let waiting: Vec<String> =
        node.readiness().into_iter().filter(|check| !check.ok).map(|check| check.detail).collect();
    if waiting.is_empty() {
        return "serves clients".to_owned();
    }
    format!("not ready: {}", waiting.join("; "))
}

/// A datagram to the manager, if there is one.
fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "could not tell the service manager");
    }
}
