//! What leaders do: answer, announce routes, hand queues to connections, and keep the house.

use std::collections::BTreeSet;

use moorline_core::{Incarnation, NodeId};
use moorline_machine::{
    Command, Effect, RouteChange, RunAnswers,
    command::{ProducerId, RouteTarget},
    version_after,
};

use crate::{
    Mutant, Violation,
    checks::Copy,
    group::Origin,
    network::{Packet, Process},
    publishing::TENANT,
    router::Purpose,
    subscribing::{CREDIT, State},
    world::{Phase, World},
};

const IN_MEMORY: &str = "rows in memory can be read";
/// Rows that may be left when every session has ended: log time, session numbers, producers and their answers.
const KINDS_LEFT: [u8; 5] = [1, 2, 3, 10, 11];
/// Longer than anything is remembered.
const LONG_MS: u64 = 60 * 60 * 1000;

impl World {
    pub(crate) fn propose(&mut self, group: usize) {
        let runs = 1 + self.random.index(4);
        let Some(leader) = self.groups[group].leader else { return };
        let clock = self.nodes[leader].clock(self.now_ms);
        if self.options.mutant == Mutant::NoDedupe {
            // Each copy of a run counts as the first of another producer.
            for (run, _) in &mut self.groups[group].waiting {
                if run.first_seq > 1 || self.random.chance(500) {
                    run.producer = ProducerId(self.random.next());
                    (run.first_seq, run.answered_below) = (1, 1);
                }
            }
        }
        self.groups[group].propose(runs, clock);
    }

    /// A majority has some more entries on disk.
    pub(crate) fn commit(&mut self, group: usize) {
        if self.alive().len() * 2 <= self.options.nodes || self.groups[group].leader.is_none() {
            return;
        }
        let group = &mut self.groups[group];
        let open = group.entries.len() - group.committed;
        group.committed += open.min(1 + self.random.index(4));
    }

    /// A replica applies the next committed entry.
    pub(crate) fn apply(&mut self, group: usize, node: usize) -> Result<(), Violation> {
        let at = self.groups[group].replicas[node].applied;
        if !self.nodes[node].alive || at >= self.groups[group].committed as u64 {
            return Ok(());
        }
        let of = &mut self.groups[group];
        let entry = &of.entries[usize::try_from(at).expect("an index")];
        let origins = entry.origins.clone();
        let (answers, effects) =
            of.replicas[node].apply(entry.batch.as_ref()).expect("the simulator made the entry");
        if self.options.mutant == Mutant::LostRow && node == 0 && self.random.chance(10) {
            of.replicas[node].lose_item();
        }
        self.note(2, &[group as u64, node as u64, at]);
        self.check_replica(group, node, &effects)?;

        if self.groups[group].leader == Some(node) {
            for (origin, answers) in origins.into_iter().zip(answers) {
                let Origin { from: to, producer, first_seq, answered_below } = origin;
                let answers = RunAnswers { producer, first_seq, ..answers };
                let packet = Packet::Answers { to, group, answered_below, answers };
                self.network.send(&mut self.random, self.now_ms, packet);
            }
            for effect in effects {
                if let Effect::Routes(changes) = effect {
                    self.announce(node, changes);
                }
            }
            if self.groups[group].leads_from as u64 == at {
                self.reconcile(group, node);
            }
        }
        Ok(())
    }

    /// What must hold whenever a replica has applied an entry.
    fn check_replica(
        &mut self,
        group: usize,
        node: usize,
        effects: &[Effect],
    ) -> Result<(), Violation> {
        let replica = &self.groups[group].replicas[node];
        for effect in effects {
            let Effect::Deliver { session, delivery } = effect else { continue };
            let Some(offset) = delivery.offset else { continue };
            let read = replica.machine.queue_read(&replica.rows, *session, offset, 1, usize::MAX);
            let read = read.expect(IN_MEMORY);
            // Unless the same batch has settled it, it is in the queue.
            if let Some(first) = read.first().filter(|first| first.offset == Some(offset))
                && first.message != delivery.message
            {
                let what = format!("{session:?} at {offset}: the effect and the row differ");
                return Err(Violation { invariant: "effects", what });
            }
        }
        if replica.applied.is_multiple_of(8) {
            let digest = replica.machine.digest(&replica.rows).expect(IN_MEMORY);
            self.checks.agreement.digest(group, replica.applied, digest)?;
        }
        if self.options.mutant == Mutant::None && self.random.chance(10) {
            let replica = &self.groups[group].replicas[node];
            replica.machine.assert_derived(&replica.rows).expect(IN_MEMORY);
        }
        Ok(())
    }

    /// A client gets what its queue has, from whoever thinks that it leads.
    pub(crate) fn fetch(&mut self, n: usize) -> Result<(), Violation> {
        if !self.is_linked(n) {
            return Ok(());
        }
        let group = self.subscribers[n].group;
        let ready = self.groups[group].ready_leader().filter(|&node| self.nodes[node].alive);
        let deposed = self.groups[group].deposed.filter(|&node| self.nodes[node].alive);
        let Some(server) = (if self.random.chance(100) { deposed } else { ready }) else {
            return Ok(());
        };
        let items_max = 1 + self.random.index(4);
        let replica = &self.groups[group].replicas[server];
        let Some(attachment) = self.subscribers[n].attachment() else { return Ok(()) };
        let mine = replica.machine.session(attachment.session).filter(|session| {
            session.epoch == attachment.epoch
                && session.holder.is_some_and(|holder| holder.conn.0 == attachment.link.conn)
        });
        if mine.is_none() {
            // Taken over or let go. Only who surely leads can know.
            if Some(server) == ready {
                self.subscribers[n].state = State::Offline;
            }
            return Ok(());
        }
        let credit = CREDIT - attachment.unacknowledged.len();
        let (session, from) = (attachment.session, attachment.cursor);
        let read =
            replica.machine.queue_read(&replica.rows, session, from, items_max.min(credit), 700);
        for delivery in read.expect(IN_MEMORY) {
            let offset = delivery.offset.expect("what is queued has an offset");
            let copy = Copy::of(&delivery.message.payload);
            self.note(3, &[n as u64, offset.0, copy.number]);
            if Some(server) == ready {
                // A deposed leader may not have heard of a settlement: a repeat at most, and never to the connection
                // that settled.
                self.checks.settled.sent((group, session), offset)?;
            }
            self.checks.once.at((group, session), copy, offset)?;
            let swallowed = self.options.mutant == Mutant::EarlySettle && self.random.chance(30);
            if !swallowed {
                self.deliver(n, copy)?;
            }
            let attachment = self.subscribers[n].attachment().expect("it is attached");
            assert!(offset >= attachment.cursor, "{offset} came again on one connection");
            attachment.cursor = offset.next();
            attachment.unacknowledged.insert(offset);
        }
        Ok(())
    }

    /// Tells the meta group which filters a shard holds.
    pub(crate) fn announce(&mut self, node: usize, changes: Vec<RouteChange>) {
        for RouteChange { tenant, filter, target, version, present } in changes {
            let command = Command::SetRoute { tenant, filter, target, version, present };
            self.submit(node, 0, command, Purpose::Other);
        }
    }

    /// A leader compares what its shard holds with what the meta group knows: news may be lost with an earlier leader.
    fn reconcile(&mut self, group: usize, node: usize) {
        if group == 0 {
            return;
        }
        let replica = &self.groups[group].replicas[node];
        let mut changes = replica.machine.held_filters(&replica.rows).expect(IN_MEMORY);
        let held: BTreeSet<_> = changes.iter().map(|change| change.filter.clone()).collect();
        let meta = self.groups[0].replicas[node].machine.meta();
        let version = version_after(replica.applied - 1);
        let target = RouteTarget::Shard(self.groups[group].id);
        for filter in FILTERS.map(moorline_core::Text::from) {
            let known = meta.route(TENANT, filter.as_bytes(), target).is_some();
            if known && !held.contains(&filter) {
                let present = false;
                changes.push(RouteChange { tenant: TENANT, filter, target, version, present });
            }
        }
        self.announce(node, changes);
    }

    /// When everything is quiet, and leaders have compared once more, the meta group knows what shards hold.
    pub(crate) fn check_routes(&self) -> Result<(), Violation> {
        for group in 1..self.groups.len() {
            let replica = &self.groups[group].replicas[0];
            let held = replica.machine.held_filters(&replica.rows).expect(IN_MEMORY);
            let meta = self.groups[0].replicas[0].machine.meta();
            for change in held {
                let known = meta.route(TENANT, change.filter.as_bytes(), change.target);
                if known.map(|route| route.version) != Some(change.version) {
                    let what = format!("group {group} holds {change:?}, meta knows {known:?}");
                    return Err(Violation { invariant: "routes", what });
                }
            }
        }
        Ok(())
    }

    /// Ticks, digests, and the news of deaths.
    pub(crate) fn housekeeping(&mut self, group: usize) {
        let Some(leader) = self.groups[group].ready_leader().filter(|&node| self.nodes[node].alive)
        else {
            return;
        };
        if let Some(at) = self.deaths.iter().position(|(of, _)| *of == group) {
            let (_, Process { node, incarnation }) = self.deaths.swap_remove(at);
            let gone = Incarnation(incarnation);
            let command = Command::NodeGone { node: NodeId(node as u64 + 1), gone };
            self.submit(leader, group, command, Purpose::Other);
        } else if self.phase == Phase::Chaos {
            let command = if self.random.chance(500) { Command::Tick } else { Command::Digest };
            self.submit(leader, group, command, Purpose::Other);
        }
    }

    /// Whether no group has a deadline within a long time.
    pub(crate) fn nothing_is_due(&self) -> bool {
        self.groups.iter().all(|group| {
            let machine = &group.replicas[0].machine;
            let later = machine.time().0 + LONG_MS / 2;
            machine.next_deadline().is_none_or(|due| due.0 > later)
                || machine.counts().producers <= 1
        })
    }

    /// A long time passes, and every leader says so.
    pub(crate) fn tick_all(&mut self) {
        self.now_ms += LONG_MS;
        for group in 0..self.groups.len() {
            if let Some(leader) = self.groups[group].leader {
                self.submit(leader, group, Command::Tick, Purpose::Other);
            }
        }
    }

    pub(crate) fn check_nothing_left(&self) -> Result<(), Violation> {
        for group in self.groups.iter().skip(1) {
            for (key, _) in group.replicas[0].all() {
                if !KINDS_LEFT.contains(&key[4]) {
                    let what = format!("all sessions of group {} ended, {key:?} is left", group.id);
                    return Err(Violation { invariant: "leftovers", what });
                }
            }
        }
        Ok(())
    }
}

/// Every filter that a subscriber may have.
const FILTERS: [&str; 4] = ["p/+", "p/0", "#", "p/1"];
