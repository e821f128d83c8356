//! Nodes that died or fell silent: what their processes held is taken back, by the leaders of the groups.
//!
//! # Invariants
//!
//! - **What a group is told names the dead process**, never the living one: who tells it may have slept since it looked. Checked by
//!   `raft/machine/tests/rules/sessions.rs` (`a_late_word_of_a_death_does_not_touch_who_lives`).
//! - **Only a process that is dead for sure is named.** A group's rows may hold one of which this node has not heard: it is no proof of
//!   its death that another one was connected, or that a port refused, before. Dead is who was connected here before another was or
//!   before the port refused; who is not the process that the meta group, asked after the rows were read, has of its node, since
//!   nobody has a lease before the meta group has it (`keeper`); and whom the meta group has given up. Checked by
//!   `only_who_was_seen_alive_is_known_to_be_dead`; found by `chaos-tests/cluster/schedules/stale-death.json`.
//! - **A dead process is told of at once** by who was connected to it: its port refuses, or another process runs in its place.
//! - **A silent node loses its routes only when it has no lease for sure** ([`crate::lease::Leases::without`]): until then
//!   it may take messages for its clean sessions. When it is back it finds its own record gone and ends them
//!   (`keeper::end_live_sessions`). Checked by the cluster tests (`a_silent_node_holds_nobody_up`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use moorline_core::{Incarnation, NodeId, ShardId};
use moorline_group::wire::PeerState;
use moorline_machine::{Answer, Command, Machine, MemberState};
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

/// Dead processes of a node that are remembered: more than a cluster restarts while it tells of one.
const DEAD_KEPT: usize = 64;

/// Processes of other nodes: who was connected here last, and who is dead since.
#[derive(Debug, Default)]
struct Processes {
    up: BTreeSet<NodeId>,
    last: BTreeMap<NodeId, Incarnation>,
    dead: BTreeMap<NodeId, Vec<Incarnation>>,
}

impl Processes {
    /// Takes in how a node is.
    fn note(&mut self, node: NodeId, state: PeerState) {
        match state.is_up() {
            true => self.up.insert(node),
            false => self.up.remove(&node),
        };
        let now = match state {
            PeerState::Up { incarnation, .. } => Some(incarnation),
            PeerState::Down { refused: true } => None,
            // It may live.
            PeerState::Down { refused: false } | PeerState::Suspect => return,
        };
        let before = match now {
            Some(now) => self.last.insert(node, now),
            None => self.last.remove(&node),
        };
        if let Some(before) = before.filter(|before| Some(*before) != now) {
            let dead = self.dead.entry(node).or_default();
            if dead.len() >= DEAD_KEPT {
                dead.remove(0);
            }
            dead.push(before);
        }
    }

    fn is_dead(&self, node: NodeId, process: Incarnation) -> bool {
        self.dead.get(&node).is_some_and(|dead| dead.contains(&process))
    }
}

impl Inner {
    /// Tells the groups led here about nodes that died, began again or fell silent.
    pub(crate) async fn detach_the_gone(self: Arc<Self>) {
        let mut peers = self.below().peers.state();
        let (mut seen, mut processes) = (BTreeMap::new(), Processes::default());
        loop {
            let states: Vec<(NodeId, PeerState)> = peers.borrow_and_update().iter().collect();
            states.iter().for_each(|(node, state)| processes.note(*node, *state));
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
                for (node, gone) in self.left_behind(shard, &processes).await {
                    self.tell_group(shard, node, gone).await;
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

    pub(crate) fn led_here(&self) -> Vec<ShardId> {
        let all = (0..=self.shards.count()).map(ShardId);
        all.filter(|shard| self.delivery(*shard).is_some_and(|led| led.is_leading())).collect()
    }

    /// Dead processes of which a group holds something, and their nodes.
    async fn left_behind(
        &self,
        shard: ShardId,
        processes: &Processes,
    ) -> Vec<(NodeId, Incarnation)> {
        if shard == ShardId::META {
            return self.meta_left_behind(processes);
        }
        let nodes = self.known_nodes();
        let held = |machine: &Machine| {
            let of = |node: &NodeId| {
                let node = *node;
                machine.processes_of(node).into_iter().map(move |process| (node, process))
            };
            let own = (self.node, self.incarnation);
            nodes.iter().flat_map(of).filter(|one| *one != own).collect::<Vec<_>>()
        };
        let held = self.below().groups.read(shard, |machine, _| held(machine)).unwrap_or_default();
        let is_sure = |(node, process): &(NodeId, Incarnation)| {
            *node == self.node
                || processes.is_dead(*node, *process)
                || self.is_given_up(*node, *process)
        };
        let (mut dead, unsure): (Vec<_>, Vec<_>) = held.into_iter().partition(is_sure);
        let replaced = |(node, process): &(NodeId, Incarnation)| self.is_replaced(*node, *process);
        if unsure.iter().any(replaced) && self.is_meta_current().await {
            dead.extend(unsure.into_iter().filter(replaced));
        }
        dead
    }

    /// The same of the meta group. A process that began again says so itself.
    fn meta_left_behind(&self, processes: &Processes) -> Vec<(NodeId, Incarnation)> {
        let known = self.below().groups.read(ShardId::META, |machine, _| {
            let known = machine.meta().nodes().iter().filter(|(_, known)| !known.gone);
            known.map(|(node, known)| (*node, known.record.incarnation)).collect::<Vec<_>>()
        });
        let is_gone = |(node, process): &(NodeId, Incarnation)| {
            *node != self.node
                && (processes.is_dead(*node, *process)
                    || self.is_removed(*node)
                    || !processes.up.contains(node) && self.is_without_lease(*node))
        };
        known.unwrap_or_default().into_iter().filter(is_gone).collect()
    }

    fn is_removed(&self, node: NodeId) -> bool {
        let state =
            self.below().groups.read(ShardId::META, |machine, _| machine.meta().member(node));
        state.flatten() == Some(MemberState::Removed)
    }

    /// Whether the meta group, by its rows here, has given up this very process, or its whole node.
    fn is_given_up(&self, node: NodeId, process: Incarnation) -> bool {
        let given_up = self.below().groups.read(ShardId::META, |machine, _| {
            let known = machine.meta().nodes().get(&node)?;
            Some(known.gone && known.record.incarnation == process)
        });
        given_up.flatten().unwrap_or(false) || self.is_removed(node)
    }

    /// Whether the meta group, by its rows here, has another process of its node.
    fn is_replaced(&self, node: NodeId, process: Incarnation) -> bool {
        let replaced = self.below().groups.read(ShardId::META, |machine, _| {
            let known = machine.meta().nodes().get(&node)?;
            Some(known.record.incarnation != process)
        });
        replaced.flatten().unwrap_or(false)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn up(process: u64) -> PeerState {
        PeerState::Up { since: Instant::now(), incarnation: Incarnation(process) }
    }

    #[test]
    fn only_who_was_seen_alive_is_known_to_be_dead() {
        let (node, refused) = (NodeId(2), PeerState::Down { refused: true });
        let mut processes = Processes::default();
        let dead = |processes: &Processes| {
            (1..=4).filter(|one| processes.is_dead(node, Incarnation(*one))).collect::<Vec<_>>()
        };
        processes.note(node, refused);
        assert!(dead(&processes).is_empty(), "whoever it was, another one may have begun");
        processes.note(node, up(1));
        processes.note(node, PeerState::Suspect);
        processes.note(node, PeerState::Down { refused: false });
        processes.note(node, up(1));
        assert!(dead(&processes).is_empty(), "it lives");
        processes.note(node, refused);
        processes.note(node, refused);
        assert_eq!(dead(&processes), [1]);
        processes.note(node, up(2));
        processes.note(node, up(3));
        assert_eq!(dead(&processes), [1, 2], "4 may be the one that lives by now");
        for process in 10..100 {
            processes.note(node, up(process));
        }
        assert_eq!(processes.dead[&node].len(), DEAD_KEPT);
        assert!(!processes.is_dead(NodeId(3), Incarnation(98)));
    }
}
