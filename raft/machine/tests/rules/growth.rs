//! A cluster of 128 shards that grows from 3 nodes to 30, loses some, and changes its copies, by seed: the real plans, steps and
//! commands, with nodes, logs and elections that are no more than who is up and who has caught up.
//!
//! # What is checked, and where
//!
//! - After each look (`Cluster::look`): never more than [`MOVES_MAX`] groups get other voters, and at each step a majority of the voters before stays,
//!   each new one with a log that is not behind.
//! - After each event (`Cluster::settles`): within a bounded number of looks nothing is left to do, and the plan of what there is is what
//!   there is; votes differ by at most one between nodes that take them; leaderships too; copies sent are as few as any way there needs, and a few.

use std::collections::{BTreeMap, BTreeSet};

use moorline_core::{
    Incarnation, NodeId, ShardId,
    level::{Program, REPLICAS_CHANGE},
};
use moorline_machine::{
    Answer, MemberState, MetaState,
    command::{Command, NodeRecord},
    placement::{
        MOVES_MAX, Members, Next, Voters, belonging, copies, moves, next_step, places, plan,
        without_votes,
    },
};

use crate::harness::Group;

const SHARDS: u16 = 128;
const NODES: u64 = 30;
/// Seeds that are tried; each is a whole life of a cluster.
const SEEDS: std::ops::Range<u64> = 1..5;
/// Looks within which everything has to settle: a move is some steps, and a learner catches up within [`CATCHES_UP_MAX`] looks.
const LOOKS_MAX: usize = 8_000;
/// Looks in which a learner gets its log, at most.
const CATCHES_UP_MAX: u64 = 4;

/// A small generator: seeds have to mean the same for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn one_of(&mut self, nodes: &BTreeSet<NodeId>) -> NodeId {
        let at = self.below(nodes.len() as u64);
        *nodes.iter().nth(usize::try_from(at).unwrap()).unwrap()
    }
}

/// A group as it is, beside what the meta group wants of it.
struct Replicas {
    leader: NodeId,
    voters: BTreeSet<NodeId>,
    /// Who gets the log, and how many looks it still takes.
    learners: BTreeMap<NodeId, u64>,
}

/// What an event cost.
#[derive(Debug, Default, Clone, Copy)]
struct Cost {
    /// Copies that were sent to a node that had none.
    sent: usize,
    /// Leaderships that changed hands on purpose.
    handed: usize,
    /// Targets that were set.
    targets: usize,
    looks: usize,
}

struct Cluster {
    meta: Group,
    groups: BTreeMap<ShardId, Replicas>,
    up: BTreeSet<NodeId>,
    random: Random,
    cost: Cost,
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let mut meta = Group::new(ShardId::META);
        meta.unchecked = true;
        let nodes = (1..=3).map(record).collect();
        meta.one(Command::CreateCluster { cluster: 9, shards: SHARDS, nodes, replicas: 3 });
        let programs = (1..=3).map(|node| (NodeId(node), Program::this())).collect();
        meta.one(Command::SetLevel { level: REPLICAS_CHANGE, programs });
        let of = |group: ShardId| {
            let voters = meta.machine.meta().voters(group);
            let leader = voters[0];
            let voters = voters.iter().copied().collect();
            (group, Replicas { leader, voters, learners: BTreeMap::new() })
        };
        let groups = (0..=SHARDS).map(ShardId).map(of).collect();
        let up = (1..=3).map(NodeId).collect();
        Self { meta, groups, up, random: Random(seed), cost: Cost::default() }
    }

    fn meta(&self) -> &MetaState {
        self.meta.machine.meta()
    }

    fn done(&mut self, command: Command) {
        let answer = self.meta.one(command);
        assert_eq!(answer, Answer::At(self.meta.index));
    }

    fn join(&mut self, node: u64) {
        let token_hash = u128::from(node);
        self.done(Command::AddToken { token_hash, lifetime_ms: 1000 });
        self.done(Command::JoinNode { token_hash, record: record(node) });
        self.done(Command::SetLevel {
            level: REPLICAS_CHANGE,
            programs: vec![(NodeId(node), Program::this())],
        });
        self.up.insert(NodeId(node));
    }

    fn stand(&mut self, node: NodeId, state: MemberState) {
        self.done(Command::SetMember { node, state });
    }

    fn dies(&mut self, node: NodeId) {
        self.up.remove(&node);
        self.done(Command::DropNodeRoutes { node, gone: Incarnation(1) });
    }

    fn comes_back(&mut self, node: NodeId) {
        self.up.insert(node);
        self.done(Command::RegisterNode(record(node.0)));
    }

    fn active(&self) -> BTreeSet<NodeId> {
        let active = |node: &&NodeId| self.meta().member(**node) == Some(MemberState::Active);
        self.meta().nodes().keys().filter(active).copied().collect()
    }

    /// What nodes do in one look. Whether anything was done or waited for.
    fn look(&mut self) -> bool {
        self.cost.looks += 1;
        let mut busy = self.elect();
        let runs = |node: NodeId| self.up.contains(&node);
        for (group, from, to) in moves(self.meta(), |_| true, runs) {
            self.cost.targets += 1;
            self.done(Command::Place { group, from, to });
            busy = true;
        }
        let moving = self.groups.iter().filter(|(group, replicas)| {
            let voters = self.meta().voters(**group).iter().copied().collect::<BTreeSet<_>>();
            self.is_open(**group) && voters != replicas.voters
        });
        let moving = moving.count();
        assert!(moving <= MOVES_MAX, "{moving} groups move at once");
        for node in without_votes(self.meta()) {
            assert!(self.groups.values().all(|group| !group.voters.contains(&node)));
            self.stand(node, MemberState::Removed);
            self.up.remove(&node);
            busy = true;
        }
        for group in (0..=SHARDS).map(ShardId) {
            busy |= self.step(group);
        }
        busy | self.prefer()
    }

    fn is_open(&self, group: ShardId) -> bool {
        self.meta().target(group).is_some_and(|target| !target.reached)
    }

    /// Who is gone leads no more. Whether somebody was elected.
    fn elect(&mut self) -> bool {
        let mut any = false;
        for (shard, group) in &mut self.groups {
            let mut up = group.voters.intersection(&self.up);
            let votes = up.clone().count();
            assert!(votes > group.voters.len() / 2, "group {shard} has lost its majority");
            if !self.up.contains(&group.leader) {
                group.leader = *up.next().expect("a majority is up");
                any = true;
            }
        }
        any
    }

    /// One step of a group. Whether there was one, or it waits.
    fn step(&mut self, shard: ShardId) -> bool {
        let Some(wanted) = belonging(self.meta(), shard) else { return false };
        let group = self.groups.get_mut(&shard).unwrap();
        for (node, left) in &mut group.learners {
            if self.up.contains(node) {
                *left = left.saturating_sub(1);
            }
        }
        let caught_up = group.learners.iter().filter(|(_, left)| **left == 0);
        let current = group.voters.iter().chain(caught_up.map(|(node, _)| node));
        let members = Members {
            leader: group.leader,
            voters: vec![group.voters.clone()],
            learners: group.learners.keys().copied().collect(),
            current: current.filter(|node| self.up.contains(*node)).copied().collect(),
        };
        match next_step(&members, &wanted.voters, &wanted.learners) {
            Next::Done if wanted.open => {
                self.done(Command::Placed { group: shard, voters: wanted.voters });
            }
            Next::Done => return false,
            Next::Wait => {}
            Next::Learn(node) => {
                let left = 1 + self.random.below(CATCHES_UP_MAX);
                assert!(group.learners.insert(node, left).is_none());
                self.cost.sent += usize::from(shard != ShardId::META);
            }
            Next::Forget(node) => assert!(group.learners.remove(&node).is_some()),
            Next::HandOver(to) => {
                assert!(group.voters.contains(&to) && self.up.contains(&to));
                group.leader = to;
                self.cost.handed += 1;
            }
            Next::Vote(next) => {
                let stay = group.voters.intersection(&next).count();
                let few = group.voters.len() <= 2 && stay == group.voters.len() - 1;
                assert!(
                    stay > group.voters.len() / 2 || few,
                    "{shard}: {:?} {next:?}",
                    group.voters
                );
                assert!(next.contains(&group.leader), "a leader votes itself out");
                for node in next.difference(&group.voters) {
                    assert_eq!(group.learners.remove(node), Some(0), "{node} has no log");
                }
                group.learners.extend(group.voters.difference(&next).map(|node| (*node, 0)));
                group.voters = next;
            }
        }
        true
    }

    /// Leaderships go to who is preferred, one of each node in a look (`raft/group`, `balance.rs`). Whether any did.
    fn prefer(&mut self) -> bool {
        let mut gave = BTreeSet::new();
        for (shard, group) in &mut self.groups {
            let preferred = self.meta.machine.meta().voters(*shard)[0];
            let fit = group.voters.contains(&preferred) && self.up.contains(&preferred);
            if group.leader != preferred && fit && gave.insert(group.leader) {
                group.leader = preferred;
                self.cost.handed += 1;
            }
        }
        !gave.is_empty()
    }

    fn targets(&self) -> Voters {
        (0..=SHARDS).map(ShardId).map(|group| (group, self.meta().voters(group).to_vec())).collect()
    }

    fn replicas(&self) -> u8 {
        self.meta().cluster().unwrap().replicas
    }

    /// Until nothing is left to do. What it cost, and what it costs whoever does it best.
    fn settles(&mut self) -> (Cost, usize) {
        let least = self.least();
        self.cost = Cost::default();
        while self.look() {
            assert!(self.cost.looks < LOOKS_MAX, "no end: {:?}", self.cost);
        }
        let now = self.targets();
        assert_eq!(plan(&now, &places(self.meta()), self.replicas()), now, "it would go on");
        for (shard, group) in &self.groups {
            let target: BTreeSet<NodeId> = now[shard].iter().copied().collect();
            assert_eq!(group.voters, target, "{shard}");
            let wanted = copies(*shard, self.replicas(), self.active().len());
            assert_eq!(target.len(), wanted, "{shard}");
            let leads = now[shard].iter().find(|node| self.up.contains(*node));
            let preferred = self.up.contains(&now[shard][0]);
            assert!(!preferred || leads == Some(&group.leader), "{shard}");
        }
        (self.cost, least)
    }

    /// Until nothing is left to do, where somebody is let in who does not run: what there is meanwhile is not the plan of all.
    fn rests(&mut self) {
        self.cost = Cost::default();
        while self.look() {
            assert!(self.cost.looks < LOOKS_MAX, "no end: {:?}", self.cost);
        }
    }

    /// Shards that are on their way to this node, and have not arrived.
    fn going_to(&self, node: NodeId) -> usize {
        let groups = self.groups.iter().filter(|(shard, group)| {
            let target = self.meta().voters(**shard);
            self.is_open(**shard) && target.contains(&node) && !group.voters.contains(&node)
        });
        groups.count()
    }

    /// The least number of copies that have to be sent until there are as many as are wanted, on active nodes, evenly.
    fn least(&self) -> usize {
        let active = self.active();
        let per_group = copies(ShardId(1), self.replicas(), active.len());
        let total = usize::from(SHARDS) * per_group;
        let (floor, more) = (total / active.len(), total % active.len());
        let mut kept: Vec<usize> = active.iter().map(|node| self.votes(*node)).collect();
        kept.sort_unstable_by(|a, b| b.cmp(a));
        // Each node keeps no more than its share, the fullest the larger shares; whatever is missing then is sent.
        let share = |at: usize| floor + usize::from(at < more);
        let kept: usize = kept.iter().enumerate().map(|(at, votes)| *votes.min(&share(at))).sum();
        total - kept
    }

    fn votes(&self, node: NodeId) -> usize {
        let shards = self.groups.iter().filter(|(shard, _)| **shard != ShardId::META);
        shards.filter(|(_, group)| group.voters.contains(&node)).count()
    }

    /// Votes and leaderships of nodes that are up and stay, and how much each may differ.
    fn assert_even(&self) {
        let nodes = self.active();
        assert!(nodes.is_subset(&self.up), "who is dead keeps what it has");
        let mut led: BTreeMap<NodeId, usize> = nodes.iter().map(|node| (*node, 0)).collect();
        for (shard, group) in &self.groups {
            if *shard != ShardId::META {
                *led.get_mut(&group.leader).unwrap() += 1;
            }
        }
        let votes: Vec<usize> = nodes.iter().map(|node| self.votes(*node)).collect();
        for (what, of) in [("votes", votes), ("leaderships", led.into_values().collect())] {
            let (least, most) = (of.iter().min().unwrap(), of.iter().max().unwrap());
            assert!(most - least <= 1, "{what}: {of:?}");
        }
    }
}

fn record(node: u64) -> NodeRecord {
    let address = format!("n{node}:7400").as_str().into();
    NodeRecord { node: NodeId(node), store: node.into(), incarnation: Incarnation(1), address }
}

/// What a life of a cluster cost, by kind of event: events, copies sent, the least possible, leaderships handed on.
type Costs = BTreeMap<&'static str, [usize; 4]>;

fn count(costs: &mut Costs, what: &'static str, (cost, least): (Cost, usize)) {
    assert!(cost.sent >= least, "{what}: {cost:?} is less than {least}");
    // Who plans group by group, with what there is in between, sends a few more than who knows the end.
    let bound = least + least / 4 + 8;
    assert!(cost.sent <= bound, "{what}: {cost:?}, and {least} would do");
    assert!(cost.targets <= usize::from(SHARDS) * 4, "{what}: {cost:?}");
    let sums = costs.entry(what).or_default();
    for (sum, one) in sums.iter_mut().zip([1, cost.sent, least, cost.handed]) {
        *sum += one;
    }
}

fn live(seed: u64, costs: &mut Costs) {
    let mut cluster = Cluster::new(seed);
    cluster.settles();
    let mut joined = 3;
    while joined < NODES {
        // One by one, or a bunch before the first has got its part.
        let bunch = 1 + cluster.random.below(5).min(NODES - joined - 1);
        for _ in 0..bunch {
            joined += 1;
            cluster.join(joined);
            let looks = if bunch > 1 { cluster.random.below(20) } else { 0 };
            for _ in 0..looks {
                cluster.look();
            }
        }
        let settled = cluster.settles();
        // Of a bunch, some was done before it was whole.
        if bunch == 1 {
            count(costs, "one joins", settled);
        }
        cluster.assert_even();
    }
    for round in 0..2 {
        for replicas in [5, 3] {
            cluster.done(Command::SetReplicas { replicas });
            let what = if replicas == 5 { "3 to 5 copies" } else { "5 to 3 copies" };
            let settled = cluster.settles();
            count(costs, what, settled);
            cluster.assert_even();
        }
        let node = cluster.random.one_of(&cluster.active());
        cluster.stand(node, MemberState::Draining);
        let settled = cluster.settles();
        count(costs, "one drains", settled);
        cluster.stand(node, MemberState::Active);
        let settled = cluster.settles();
        count(costs, "it resumes", settled);
        cluster.assert_even();

        // One dies, comes back, and dies again for good: nobody but an operator moves what it has.
        let node = cluster.random.one_of(&cluster.active());
        let before = cluster.votes(node);
        cluster.dies(node);
        assert_eq!(cluster.settles().0.sent, 0, "a cable is out");
        assert_eq!(cluster.votes(node), before);
        cluster.comes_back(node);
        assert_eq!(cluster.settles().0.sent, 0);
        cluster.assert_even();
        cluster.dies(node);
        cluster.stand(node, MemberState::Removed);
        let settled = cluster.settles();
        count(costs, "a dead one is removed", settled);
        cluster.assert_even();

        let node = cluster.random.one_of(&cluster.active());
        cluster.stand(node, MemberState::Leaving);
        let settled = cluster.settles();
        count(costs, "one leaves", settled);
        assert_eq!(cluster.meta().member(node), Some(MemberState::Removed));
        cluster.assert_even();
        cluster.join(NODES + 1 + round);
        cluster.settles();
        cluster.assert_even();
    }
}

#[test]
fn thirty_nodes_and_128_shards_settle_whatever_happens() {
    let mut costs = Costs::new();
    for seed in SEEDS {
        println!("seed {seed}");
        live(seed, &mut costs);
    }
    println!("what                    events  copies sent  least possible  leaderships handed on");
    for (what, [events, sent, least, handed]) in costs {
        println!("{what:<22}  {events:>6}  {sent:>11}  {least:>14}  {handed:>21}");
    }
}

#[test]
fn what_was_on_its_way_to_a_node_that_is_gone_goes_elsewhere() {
    for seed in SEEDS {
        for state in [MemberState::Removed, MemberState::Leaving, MemberState::Draining] {
            for is_one_more in [false, true] {
                let mut cluster = Cluster::new(seed);
                cluster.settles();
                cluster.join(4);
                cluster.look();
                assert_eq!(cluster.going_to(NodeId(4)), MOVES_MAX);
                cluster.dies(NodeId(4));
                for _ in 0..20 {
                    cluster.look();
                }
                assert_eq!(cluster.going_to(NodeId(4)), MOVES_MAX, "nobody said that it is gone");
                if is_one_more {
                    cluster.join(5);
                }
                cluster.stand(NodeId(4), state);
                cluster.settles();
                assert_eq!(cluster.votes(NodeId(4)), 0);
                cluster.assert_even();
                let stands = cluster.meta().member(NodeId(4));
                let ends = state == MemberState::Draining;
                assert_eq!(stands == Some(MemberState::Draining), ends, "it leaves");
            }
        }
    }
}

#[test]
fn a_node_that_was_never_started_keeps_nobody_waiting() {
    let mut cluster = Cluster::new(1);
    cluster.settles();
    cluster.join(4);
    cluster.settles();
    cluster.join(5);
    cluster.up.remove(&NodeId(5));
    cluster.rests();
    assert_eq!(cluster.votes(NodeId(5)), 0);
    cluster.dies(NodeId(3));
    cluster.stand(NodeId(3), MemberState::Removed);
    cluster.rests();
    let running: BTreeSet<NodeId> = [1, 2, 4].map(NodeId).into();
    assert!(cluster.groups.values().all(|group| group.voters == running), "who runs has them");
    cluster.up.insert(NodeId(5));
    cluster.settles();
    cluster.assert_even();
}

#[test]
fn fewer_copies_are_those_of_nodes_that_run() {
    let mut cluster = Cluster::new(1);
    cluster.settles();
    cluster.dies(NodeId(3));
    cluster.done(Command::SetReplicas { replicas: 1 });
    cluster.settles();
    assert_eq!(cluster.votes(NodeId(3)), 0);
    assert_eq!(cluster.votes(NodeId(1)), cluster.votes(NodeId(2)));
}

#[test]
fn copies_grow_by_two_or_not_at_all() {
    let mut cluster = Cluster::new(1);
    for node in 4..=5 {
        cluster.join(node);
    }
    cluster.settles();
    cluster.dies(NodeId(5));
    cluster.done(Command::SetReplicas { replicas: 5 });
    cluster.rests();
    for (shard, group) in &cluster.groups {
        let odd = group.voters.len() % 2 == 1;
        assert!(odd, "{shard}: {:?} survive no more than one fewer", group.voters);
    }
    cluster.comes_back(NodeId(5));
    cluster.settles();
    cluster.assert_even();
}
