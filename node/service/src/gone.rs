//! Nodes that died or fell silent: what their processes held is taken back, by the leaders of the groups.
//!
//! # Invariants
//!
//! - **What a group is told names the dead process**, never the living one: who tells it may have slept since it looked. Checked by
//!   `raft/machine/tests/rules/sessions.rs` (`a_late_word_of_a_death_does_not_touch_who_lives`).
//! - **A dead process is told of at once**: its port refuses, or another process runs in its place.
//! - **A silent node loses its routes only when it has no lease for sure** ([`crate::lease::Leases::without`]): until then
//!   it may take messages for its clean sessions. When it is back it finds its own record gone and ends them
//!   (`keeper::end_live_sessions`). Checked by the cluster tests (`a_silent_node_holds_nobody_up`).

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use moorline_core::{Incarnation, NodeId, ShardId};
use moorline_group::wire::PeerState;
use moorline_machine::{Answer, Command, MemberState};
use tokio::time::sleep;
use tracing::{debug, info};

use crate::service::Inner;

/// How often silent nodes are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How long a node that is not connected keeps its routes after its lease has run out. Publishers whose messages its
/// clean sessions want wait for that, so it is short; a node that only stalls is connected again by then.
const ROUTES_KEPT: Duration = Duration::from_secs(1);
/// The pause between two tries to tell a group.
const TELL_PAUSE: Duration = Duration::from_millis(100);

/// A node, and the process of it that lives.
type News = (NodeId, Option<Incarnation>);

impl Inner {
    /// Tells the groups led here about nodes that died, began again or fell silent.
    pub(crate) async fn detach_the_gone(self: Arc<Self>) {
        let mut peers = self.below().peers.state();
        let mut seen = BTreeMap::new();
        loop {
            let states: Vec<(NodeId, PeerState)> = peers.borrow_and_update().iter().collect();
            // Who attached from a node that is connected as before did so over this connection.
            let as_before = |(node, state): &(NodeId, PeerState)| match state {
                PeerState::Up { since, .. } => seen.insert(*node, *since) == Some(*since),
                PeerState::Suspect | PeerState::Down { .. } => false,
            };
            let (_, changed): (Vec<_>, Vec<_>) = states.iter().copied().partition(as_before);
            for shard in self.led_here() {
                if !changed.is_empty() {
                    self.detach_members(shard, &changed);
                }
                for (node, alive) in self.news(shard, &states) {
                    for gone in self.left_behind(shard, node, alive) {
                        self.tell_group(shard, node, gone).await;
                    }
                }
            }
            tokio::select! {
                changed = peers.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = self.leading_began.notified() => {}
                () = sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// What a group should know of other nodes, and of this one.
    fn news(&self, shard: ShardId, states: &[(NodeId, PeerState)]) -> Vec<News> {
        let of_peer = |(node, state): &(NodeId, PeerState)| match state {
            PeerState::Up { incarnation, .. } => Some((*node, Some(*incarnation))),
            PeerState::Down { refused: true } => Some((*node, None)),
            PeerState::Down { refused: false } | PeerState::Suspect => {
                // The meta group decides that a silent node is gone; the shards follow it.
                let gone = if shard == ShardId::META {
                    self.is_without_lease(*node)
                } else {
                    self.is_known_gone(*node, None)
                };
                gone.then_some((*node, None))
            }
        };
        let own = (self.node, Some(self.incarnation));
        // Nobody is connected to them any more.
        let removed = self.removed_nodes().into_iter().map(|node| (node, None));
        states.iter().filter_map(of_peer).chain(removed).chain([own]).collect()
    }

    fn is_without_lease(&self, node: NodeId) -> bool {
        let leases = self.leases.lock().expect("no panic while leases are locked");
        let without = leases.as_ref().and_then(|leases| leases.without(Instant::now(), node));
        without.is_some_and(|without| without >= ROUTES_KEPT)
    }

    /// Whether the cluster has given up a node, or that process of it.
    pub(crate) fn is_known_gone(&self, node: NodeId, process: Option<Incarnation>) -> bool {
        let gone = self.below().groups.read(ShardId::META, |machine, _| {
            let known = machine.meta().nodes().get(&node)?;
            let replaced = process.is_some_and(|process| process != known.record.incarnation);
            Some(known.gone || replaced)
        });
        gone.flatten().unwrap_or(false)
    }

    fn removed_nodes(&self) -> Vec<NodeId> {
        let removed = self.below().groups.read(ShardId::META, |machine, _| {
            let meta = machine.meta();
            let is_removed = |node: &&NodeId| meta.member(**node) == Some(MemberState::Removed);
            meta.nodes()
                .keys()
                .filter(is_removed)
                .copied()
                .filter(|node| *node != self.node)
                .collect()
        });
        removed.unwrap_or_default()
    }

    pub(crate) fn led_here(&self) -> Vec<ShardId> {
        let all = (0..=self.shards.count()).map(ShardId);
        all.filter(|shard| self.delivery(*shard).is_some_and(|led| led.is_leading())).collect()
    }

    /// The processes of a node other than the one that lives of which a group holds something.
    fn left_behind(
        &self,
        shard: ShardId,
        node: NodeId,
        alive: Option<Incarnation>,
    ) -> Vec<Incarnation> {
        let left = self.below().groups.read(shard, |machine, _| {
            if shard == ShardId::META {
                let known = machine.meta().nodes().get(&node).filter(|known| !known.gone);
                // One that began again says so itself.
                let dead = known.filter(|_| alive.is_none());
                return dead.map(|known| known.record.incarnation).into_iter().collect();
            }
            machine.processes_of(node).into_iter().filter(|gone| Some(*gone) != alive).collect()
        });
        left.unwrap_or_default()
    }

    /// Tells a group until it knows. This may take long, or sleep: what is told is only who is dead.
    async fn tell_group(&self, shard: ShardId, node: NodeId, gone: Incarnation) {
        let command = if shard == ShardId::META {
            Command::DropNodeRoutes { node, gone }
        } else {
            Command::NodeGone { node, gone }
        };
        loop {
            match self.below().router.ask(shard, &command).await {
                Ok(Answer::Partly(_)) => {}
                Ok(_) => {
                    info!(%shard, %node, "what a process held was detached");
                    return;
                }
                Err(problem) => {
                    debug!(%shard, %problem, "a dead process is still held");
                    if !self.led_here().contains(&shard) {
                        return;
                    }
                    sleep(TELL_PAUSE).await;
                }
            }
        }
    }
}
