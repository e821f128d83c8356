//! Watches the nodes from outside: who leads which group, and how many snapshots were installed. What it sees goes into the
//! history, for the check of coverage and for the report.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use moorline_oracle::{Op, Phase};
use tokio::time::{MissedTickBehavior, interval};

use crate::admin;
use crate::client::Shared;
use crate::recorder::Actor;

/// How often the nodes are asked.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What a node counts their bytes under.
const BYTES: &str = "moorline_snapshot_bytes_total{";
/// What a node counts its snapshots under.
const SNAPSHOTS: &str = "moorline_snapshot_seconds_count{";
/// Those it sent are installed elsewhere.
const SENT: &str = "\"sent\"";

/// Looks until the run is over.
pub async fn run(shared: Arc<Shared>) {
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut leaders: BTreeSet<(u32, u64, u32)> = BTreeSet::new();
    let mut snapshots: BTreeMap<u32, u64> = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        for peer in shared.peers.iter().filter(|peer| peer.is_up()) {
            let view = admin::view(peer.admin).await.unwrap_or_default();
            // What a node says of itself: two that say it of one term would both be noted.
            for group in view.groups.iter().filter(|group| group.leader == Some(peer.id)) {
                if leaders.insert((group.shard, group.term, peer.id)) {
                    let actor = Actor { name: "watch", node: Some(peer.id) };
                    let op = Op::Leads { shard: group.shard, leader: peer.id, term: group.term };
                    shared.recorder.note(actor, Phase::Ok, op);
                }
            }
            if let Ok(text) = admin::metrics(peer.admin).await {
                let now = installed(&text);
                let before = snapshots.insert(peer.id, now).unwrap_or(0);
                // A node that was started again counts anew.
                let more = if now < before { now } else { now - before };
                if more > 0 {
                    let actor = Actor { name: "watch", node: Some(peer.id) };
                    shared.recorder.note(actor, Phase::Ok, Op::Snapshots { installed: more });
                }
            }
        }
    }
}

fn installed(metrics: &str) -> u64 {
    received(metrics, SNAPSHOTS)
}

/// The sum of what a node counts under a name, without what it sent.
fn received(metrics: &str, name: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with(name) && !line.contains(SENT));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Snapshots that nodes have installed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Snapshots {
    count: u64,
    bytes: u64,
}

impl Snapshots {
    /// Those of a node, by its metrics.
    pub(crate) fn installed(metrics: &str) -> Self {
        Self { count: installed(metrics), bytes: received(metrics, BYTES) }
    }

    /// With those of another node.
    pub(crate) fn add(&mut self, other: Self) {
        self.count += other.count;
        self.bytes += other.bytes;
    }

    /// Those that were not there before. A node that was started again counts anew: then it is at least so many.
    pub(crate) fn since(self, before: &Self) -> Self {
        let Self { count, bytes } = *before;
        Self { count: self.count.saturating_sub(count), bytes: self.bytes.saturating_sub(bytes) }
    }
}

impl fmt::Display for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} KiB", self.count, self.bytes >> 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_not_installed_here() {
        let text = "# TYPE x histogram\nmoorline_snapshot_seconds_count{direction=\"sent\"} 3\n\
            moorline_snapshot_seconds_count{direction=\"installed\"} 2\nother 9\n";
        assert_eq!(installed(text), 2);
        let text = format!(
            "{text}moorline_snapshot_bytes_total{{direction=\"sent\"}} 9000\n\
            moorline_snapshot_bytes_total{{direction=\"installed\"}} 4096\n"
        );
        let mut now = Snapshots::installed(&text);
        assert_eq!(now, Snapshots { count: 2, bytes: 4_096 });
        now.add(now);
        assert_eq!(now.since(&Snapshots { count: 1, bytes: 0 }).to_string(), "3, 8 KiB");
    }
}
