//! Nodes that died or fell silent: what their processes held is taken back, by the leaders of the groups.
//!
//! ```text
//!   meta leader:   a port refuses, another process is connected, ──► DropNodeRoutes ──► rows of the meta group, on every node
//!                  no lease for long enough, a member removed                                     │
//!   each leader:   what those rows have given up, replaced or removed, once they are current ◄────┘ ──► NodeGone, its shard
//! ```
//!
//! # Invariants
//!
//! - **Who is dead is decided in one place**, the meta group: a port that refuses may be a firewall's doing, and the process behind it
//!   lives. It finds its own record gone, ends its clean sessions and is registered again (`keeper::end_live_sessions`); were it only
//!   a shard's leader that gave it up, it would never hear.
//! - **What a group is told names the dead process**, never the living one: who tells it may have slept since it looked. Checked by
//!   `raft/machine/tests/rules/sessions.rs` (`a_late_word_of_a_death_does_not_touch_who_lives`).
//! - **Only a process that is dead for sure is named to a shard.** Its rows may hold one of which this node has not heard: the meta
//!   group is asked after they were read, since nobody has a lease before the meta group has it (`keeper`). Found by
//!   `chaos-tests/cluster/schedules/stale-death.json`.
//! - **Who is connected lives**: a process that was taken for dead, because a port refused, is not once it is connected again.
//!   Checked by `only_who_was_seen_alive_is_known_to_be_dead`; found by `chaos-tests/cluster/schedules/reset-death.json`.
//! - **Who was detached and lives after all hears of it**: each connection whose session a death took is told to ask after it
//!   ([`moorline_machine::Effect::Detached`]).
//! - **A dead process is told of at once** by who was connected to it: its port refuses, or another process runs in its place.
//! - **A silent node loses its routes only when it has no lease for sure** ([`crate::lease::Leases::without`]): until then
//!   it may take messages for its clean sessions. A leader that slept is not sure: it may be the one that was silent. Checked by the
//!   cluster tests (`a_silent_node_holds_nobody_up`: the leader wakes, and a client of another node stays).

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
        if let Some(now) = now {
            self.revive(node, now);
        }
        if let Some(before) = before.filter(|before| Some(*before) != now) {
            let dead = self.dead.entry(node).or_default();
            if dead.len() >= DEAD_KEPT {
                dead.remove(0);
            }
            dead.push(before);
        }
    }

    /// Who is connected lives, whatever answered at its port before.
    fn revive(&mut self, node: NodeId, process: Incarnation) {
        if let Some(dead) = self.dead.get_mut(&node) {
            dead.retain(|one| *one != process);
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
            let of_meta = self.processes_of_meta();
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
                () = self.until_meta_knows_others(&of_meta) => {}
                () = sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// Each node's process that the meta group's rows here have, and whether it was given up.
    fn processes_of_meta(&self) -> Vec<(NodeId, Incarnation, bool)> {
        let known = self.below().groups.read(ShardId::META, |machine, _| {
            let known = machine.meta().nodes().iter();
            known.map(|(node, known)| (*node, known.record.incarnation, known.gone)).collect()
        });
        known.unwrap_or_default()
    }

    async fn until_meta_knows_others(&self, before: &[(NodeId, Incarnation, bool)]) {
        let Some(mut applied) = self.below().groups.applied(ShardId::META) else {
            return std::future::pending().await;
        };
        while self.processes_of_meta() == before {
            if applied.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn is_without_lease(&self, node: NodeId) -> bool {
        let leases = self.leases.lock().expect("no panic while leases are locked");
        let without = leases.as_ref().and_then(|leases| leases.without(Instant::now(), node));
        without.is_some_and(|without| without >= ROUTES_KEPT)
    }

    /// Whether the cluster has given up a node, or that process of it.
    pub(crate) fn is_known_gone(&self, node: NodeId, process: Incarnation) -> bool {
        let gone = self.below().groups.read(ShardId::META, |machine, _| {
            let known = machine.meta().nodes().get(&node)?;
            Some(known.gone || process != known.record.incarnation)
        });
        gone.flatten().unwrap_or(false)
    }

    pub(crate) fn led_here(&self) -> Vec<ShardId> {
        let all = (0..=self.shards.count()).map(ShardId);
        all.filter(|shard| self.delivery(*shard).is_some_and(|led| led.is_leading())).collect()
    }

    /// Dead processes of which a group holds something, and their nodes. Of a shard: those that the meta group knows to be dead.
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
        // An earlier process of this very node is dead.
        let (mut dead, others): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|(node, _)| *node == self.node);
        let is_gone = |(node, process): &(NodeId, Incarnation)| self.is_gone(*node, *process);
        if others.iter().any(is_gone) && self.is_meta_current().await {
            dead.extend(others.into_iter().filter(is_gone));
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

    /// Whether a process is dead by the meta group's rows here.
    fn is_gone(&self, node: NodeId, process: Incarnation) -> bool {
        let earlier = node == self.node && process != self.incarnation;
        earlier || self.is_known_gone(node, process) || self.is_removed(node)
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
                    let leads = self.led_here().contains(&shard);
                    let lives = shard != ShardId::META && !self.is_gone(node, gone);
                    if !leads || lives {
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
        processes.note(node, refused);
        assert_eq!(dead(&processes), [1, 2, 3]);
        processes.note(node, up(3));
        assert_eq!(dead(&processes), [1, 2], "a firewall had refused");
        for process in 10..100 {
            processes.note(node, up(process));
        }
        assert_eq!(processes.dead[&node].len(), DEAD_KEPT);
        assert!(!processes.is_dead(NodeId(3), Incarnation(98)));
    }
}
