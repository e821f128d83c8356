//! What goes wrong: processes die, leaders change, replicas fall behind and get a snapshot.

use crate::{
    Mutant,
    world::{Phase, World},
};

impl World {
    pub(crate) fn fault(&mut self, group: usize, node: usize) {
        if self.groups[group].leader.is_none() {
            self.elect(group);
            return;
        }
        if self.phase != Phase::Chaos {
            return;
        }
        match self.random.below(100) {
            0..=9 => self.elect(group),
            10..=13 => self.crash(node),
            14..=44 => self.restart(node),
            45..=54 => self.install(group, node),
            // The old leader hears of the new one.
            55..=74 => self.groups[group].deposed = None,
            _ => {}
        }
    }

    /// Some node with a majority behind it leads from now on.
    fn elect(&mut self, group: usize) {
        let alive = self.alive();
        if alive.len() * 2 <= self.options.nodes {
            return;
        }
        let node = alive[self.random.index(alive.len())];
        let of = &mut self.groups[group];
        let open = of.entries.len() - of.committed;
        let mut kept = of.committed + self.random.index(open + 1);
        if self.options.mutant == Mutant::LostCommit && of.committed > 1 && self.random.chance(300)
        {
            kept = of.committed - 1;
            of.committed = kept;
        }
        self.report.elections += 1;
        self.report.lost_entries += (of.entries.len() - kept) as u64;
        of.elect(node, kept);
        self.note(4, &[group as u64, node as u64, kept as u64]);
    }

    /// A process dies: what it had only in memory is gone.
    pub(crate) fn crash(&mut self, node: usize) {
        if !self.nodes[node].alive {
            return;
        }
        self.report.crashes += 1;
        self.note(5, &[node as u64]);
        self.nodes[node].alive = false;
        let died = self.nodes[node].process(node);
        for group in &mut self.groups {
            group.replicas[node].crash();
            if group.leader == Some(node) {
                group.lose_leader();
            }
            if group.deposed == Some(node) {
                group.deposed = None;
            }
        }
        self.deaths.extend((1..self.groups.len()).map(|group| (group, died)));
    }

    pub(crate) fn restart(&mut self, node: usize) {
        if !self.nodes[node].alive {
            self.note(6, &[node as u64]);
            let groups = self.groups.len();
            self.nodes[node].start(&mut self.random, groups, self.options.mutant);
        }
    }

    pub(crate) fn checkpoint(&mut self, group: usize, node: usize) {
        if self.nodes[node].alive {
            let write = self.random.chance(300);
            self.groups[group].replicas[node].checkpoint(write);
        }
    }

    /// A replica gets another's rows.
    fn install(&mut self, group: usize, node: usize) {
        let from = self.random.index(self.options.nodes);
        let replicas = &self.groups[group].replicas;
        let (applied, behind) = (replicas[from].applied, replicas[node].applied);
        if !self.nodes[from].alive || !self.nodes[node].alive || applied <= behind {
            return;
        }
        let rows = replicas[from].all();
        self.report.snapshots += 1;
        self.note(7, &[group as u64, node as u64, applied]);
        self.groups[group].replicas[node].install(applied, rows);
    }
}
