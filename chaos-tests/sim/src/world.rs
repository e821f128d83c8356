//! The whole cluster, and the order in which things happen to it.
//!
//! A run has three parts: chaos, in which anything may happen; recovery, in which nothing bad happens any more and
//! everything owed must arrive; and the end, in which every session is closed and nothing may be left.

use moorline_core::ShardId;
use moorline_machine::{Answer, Command, SessionInfo, command::SessionId};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    Mutant, Violation,
    checks::{Checks, Copy},
    group::{Group, Origin},
    network::{Network, Packet, Process},
    node::Node,
    publishing::Publisher,
    random::Random,
    router::{Outcome, Purpose},
    subscribing::Subscriber,
};

/// Steps within which everything owed must arrive once nothing bad happens any more.
const RECOVERY_STEPS_MAX: u64 = 200_000;
/// Commands of one run.
const RUN_COMMANDS_MAX: u64 = 6;
/// How often something happens to a log, for each time that a client acts.
const MACHINERY_PER_STEP: usize = 8;

/// How large a run is.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nodes, with a replica of each group.
    pub nodes: usize,
    /// Shards besides the meta group.
    pub shards: usize,
    /// Clients that publish.
    pub publishers: usize,
    /// Clients that subscribe.
    pub subscribers: usize,
    /// Steps of chaos.
    pub steps: u64,
    /// The planted bug.
    pub mutant: Mutant,
}

impl Default for Options {
    fn default() -> Self {
        let mutant = Mutant::None;
        Self { nodes: 3, shards: 2, publishers: 3, subscribers: 5, steps: 8_000, mutant }
    }
}

/// What happened in a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// A hash over every step: equal for equal runs.
    pub trace: u64,
    /// Entries in all logs.
    pub entries: u64,
    /// Messages acknowledged to their publishers.
    pub acknowledged: u64,
    /// Deliveries to subscribers.
    pub delivered: u64,
    /// Of those, repeats of a message the subscriber had.
    pub repeated: u64,
    /// Processes that died.
    pub crashes: u64,
    /// Leader changes.
    pub elections: u64,
    /// Entries lost with a leader, none of them committed.
    pub lost_entries: u64,
    /// Snapshots installed.
    pub snapshots: u64,
    /// Commands whose outcome nobody learnt.
    pub unknown: u64,
}

/// Which part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Chaos,
    Recovery,
    End,
}

pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) random: Random,
    pub(crate) phase: Phase,
    pub(crate) step: u64,
    pub(crate) now_ms: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) groups: Vec<Group>,
    pub(crate) network: Network,
    pub(crate) publishers: Vec<Publisher>,
    pub(crate) subscribers: Vec<Subscriber>,
    /// Nodes whose death the shards have not heard of, group by group.
    pub(crate) deaths: Vec<(usize, Process)>,
    pub(crate) checks: Checks,
    pub(crate) report: Report,
    /// Of a hundred things that happen to logs, how many are commits: a slow disk leaves more to lose.
    commit_weight: u64,
    trace: Xxh3,
}

impl World {
    pub(crate) fn new(seed: u64, options: Options) -> Self {
        let mut random = Random::new(seed);
        let count = options.shards + 1;
        let ids = (0..).map(ShardId).take(count);
        let nodes: Vec<_> =
            (0..options.nodes).map(|_| Node::new(&mut random, count, options.mutant)).collect();
        Self {
            phase: Phase::Chaos,
            step: 0,
            now_ms: 0,
            groups: ids.map(|id| Group::new(id, options.nodes)).collect(),
            nodes,
            network: Network::new(),
            publishers: (0..options.publishers).map(|_| Publisher::new()).collect(),
            subscribers: (0..options.subscribers).map(|n| Subscriber::new(n, &options)).collect(),
            deaths: Vec::new(),
            checks: Checks::default(),
            report: Report::default(),
            trace: Xxh3::new(),
            commit_weight: 3 + random.below(12),
            random,
            options,
        }
    }

    pub(crate) fn run(mut self) -> Result<Report, Violation> {
        while self.step < self.options.steps {
            self.advance()?;
        }
        self.recover()?;
        self.check_drained()?;
        self.end()?;
        self.report.trace = self.trace.digest();
        self.report.acknowledged = self.checks.loss.acknowledged_len() as u64;
        self.report.entries = self.groups.iter().map(|group| group.entries.len() as u64).sum();
        Ok(self.report)
    }

    /// One step: what has arrived is received, then something happens somewhere.
    fn advance(&mut self) -> Result<(), Violation> {
        self.step += 1;
        self.now_ms += self.random.below(4);
        while let Some(packet) = self.network.receive(self.now_ms) {
            self.receive(packet)?;
        }
        match self.random.below(100) {
            0..=24 => self.publisher_acts(),
            25..=94 => self.subscriber_acts()?,
            95 => {
                let group = self.random.index(self.groups.len());
                self.housekeeping(group);
            }
            _ => {
                let (node, group) = self.anywhere();
                self.fault(group, node);
            }
        }
        // The machinery turns faster than clients act.
        for _ in 0..MACHINERY_PER_STEP {
            let (node, group) = self.anywhere();
            match self.random.below(100) {
                0..=34 => self.router_acts(node, group)?,
                35..=49 => self.propose(group),
                50..=81 => self.apply(group, node)?,
                82..=84 => self.checkpoint(group, node),
                rest if rest - 85 < self.commit_weight => self.commit(group),
                _ => {}
            }
        }
        Ok(())
    }

    /// A node and a group.
    fn anywhere(&mut self) -> (usize, usize) {
        (self.random.index(self.options.nodes), self.random.index(self.groups.len()))
    }

    /// Something that is part of the run's identity.
    pub(crate) fn note(&mut self, kind: u8, numbers: &[u64]) {
        self.trace.update(&[kind]);
        for number in numbers {
            self.trace.update(&number.to_be_bytes());
        }
    }

    fn receive(&mut self, packet: Packet) -> Result<(), Violation> {
        match packet {
            Packet::Submit { from, to, group, run } => {
                self.note(1, &[to as u64, group as u64, run.producer.0, run.first_seq]);
                if !self.nodes[to].alive || self.groups[group].deposed == Some(to) {
                    return Ok(());
                }
                if self.groups[group].leader == Some(to) {
                    let origin = Origin::of(from, &run);
                    self.groups[group].waiting.push((run, origin));
                } else {
                    let packet = Packet::NotLeader { to: from, group };
                    self.network.send(&mut self.random, self.now_ms, packet);
                }
            }
            Packet::NotLeader { to, group } if self.runs(to) => {
                self.nodes[to.node].routers[group].send_again();
            }
            Packet::Answers { to, group, answered_below, answers } if self.runs(to) => {
                let fresh = self.random.next();
                let router = &mut self.nodes[to.node].routers[group];
                let outcomes = router.answered(self.now_ms, fresh, answered_below, answers);
                self.learn(to.node, group, outcomes)?;
            }
            Packet::NotLeader { .. } | Packet::Answers { .. } => {}
        }
        Ok(())
    }

    fn runs(&self, process: Process) -> bool {
        let node = &self.nodes[process.node];
        node.alive && node.incarnation == process.incarnation
    }

    /// A router sends, or gives up.
    fn router_acts(&mut self, node: usize, group: usize) -> Result<(), Violation> {
        if !self.nodes[node].alive {
            return Ok(());
        }
        let fresh = self.random.next();
        let outcomes = self.nodes[node].routers[group].expire(self.now_ms, fresh);
        self.learn(node, group, outcomes)?;

        let commands_max = self.random.below(RUN_COMMANDS_MAX) + 1;
        let commands_max = usize::try_from(commands_max).expect("a small number");
        let router = &mut self.nodes[node].routers[group];
        if let Some(run) = router.next_run(self.now_ms, commands_max) {
            // Most often it knows the leader.
            let guess = self.random.index(self.options.nodes);
            let known = if self.random.chance(900) { self.groups[group].leader } else { None };
            let from = self.nodes[node].process(node);
            let packet = Packet::Submit { from, to: known.unwrap_or(guess), group, run };
            self.network.send(&mut self.random, self.now_ms, packet);
        }
        Ok(())
    }

    /// Outcomes reach those who wait for them.
    fn learn(
        &mut self,
        node: usize,
        group: usize,
        outcomes: Vec<Outcome>,
    ) -> Result<(), Violation> {
        for (purpose, answer) in outcomes {
            self.report.unknown += u64::from(answer.is_none());
            match purpose {
                Purpose::Publish { publisher, link, number } => {
                    self.published(publisher, link, number, group, answer)?;
                }
                Purpose::Open { subscriber, link } => {
                    self.opened(subscriber, link, answer)?;
                }
                Purpose::Subscribe { subscriber, link } => {
                    self.subscribed(node, subscriber, link, answer)?;
                }
                Purpose::Settle { session, upto, also } => {
                    if answer == Some(Answer::Done) {
                        self.checks.settled.settle((group, session), upto, &also);
                    } else {
                        self.settle_again(group, session, upto, &also);
                    }
                }
                Purpose::Other => {}
            }
        }
        Ok(())
    }

    pub(crate) fn submit(&mut self, node: usize, group: usize, command: Command, purpose: Purpose) {
        self.nodes[node].routers[group].submit(self.now_ms, command, purpose);
    }

    pub(crate) fn alive(&self) -> Vec<usize> {
        (0..self.options.nodes).filter(|&node| self.nodes[node].alive).collect()
    }

    pub(crate) fn any_alive(&mut self) -> Option<usize> {
        let alive = self.alive();
        (!alive.is_empty()).then(|| alive[self.random.index(alive.len())])
    }

    /// Nothing bad happens any more: everything owed has to arrive.
    fn recover(&mut self) -> Result<(), Violation> {
        self.phase = Phase::Recovery;
        self.network.lossy = false;
        for node in 0..self.options.nodes {
            self.restart(node);
        }
        let until = self.step + RECOVERY_STEPS_MAX;
        while !self.is_settled() {
            self.advance()?;
            if self.step > until {
                let what = format!("after {RECOVERY_STEPS_MAX} quiet steps: {}", self.unsettled());
                return Err(Violation { invariant: "liveness", what });
            }
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        // Dear to ask, so not at every step.
        self.step.is_multiple_of(64) && self.unsettled().is_empty()
    }

    /// What is still under way, in words.
    fn unsettled(&self) -> String {
        if !self.deaths.is_empty() {
            return "deaths that shards have not heard of".into();
        }
        if let Some(n) = self.publishers.iter().position(|publisher| !publisher.is_idle()) {
            return format!("publisher {n} waits for answers");
        }
        for group in &self.groups {
            let all = group.entries.len();
            let applied = group.replicas.iter().all(|replica| replica.applied == all as u64);
            if group.leader.is_none() || group.committed != all || !applied {
                return format!("group {} has entries to apply", group.id);
            }
        }
        for (n, node) in self.nodes.iter().enumerate() {
            if !node.routers.iter().all(crate::router::Router::is_idle) {
                return format!("node {n} waits for answers");
            }
        }
        for (n, subscriber) in self.subscribers.iter().enumerate() {
            let queued = self.session_of(n).map(|session| session.queued_items);
            if !subscriber.is_subscribed() || queued != Some(0) {
                return format!("subscriber {n} has {queued:?} to get: {subscriber:?}");
            }
        }
        String::new()
    }

    /// A subscriber's session as the first replica of its shard has it.
    fn session_of(&self, subscriber: usize) -> Option<SessionInfo<'_>> {
        let subscriber = &self.subscribers[subscriber];
        let session: SessionId = subscriber.session()?;
        self.groups[subscriber.group].replicas[0].machine.session(session)
    }

    fn check_drained(&self) -> Result<(), Violation> {
        let subscribers = &self.subscribers;
        self.checks
            .loss
            .drained(|subscriber, publisher| subscribers[subscriber].wants(publisher))?;
        self.check_replicas()?;
        self.check_routes()
    }

    /// Byte for byte, and derived from rows.
    fn check_replicas(&self) -> Result<(), Violation> {
        for group in &self.groups {
            let first = group.replicas[0].all();
            for replica in &group.replicas {
                if replica.all() != first {
                    let what = format!("replicas of group {} differ in their rows", group.id);
                    return Err(Violation { invariant: "agreement", what });
                }
                replica.machine.assert_derived(&replica.rows).expect("rows in memory can be read");
            }
        }
        Ok(())
    }

    /// Every session ends; then nothing may be left but the counters of session ids and who proposed last.
    fn end(&mut self) -> Result<(), Violation> {
        self.phase = Phase::End;
        self.close_all();
        let mut until = self.step + RECOVERY_STEPS_MAX;
        loop {
            self.advance()?;
            if self.step > until {
                let what = "sessions were closed, but something is left to remove".to_owned();
                return Err(Violation { invariant: "liveness", what });
            }
            if !self.step.is_multiple_of(64) || !self.is_quiet() {
                continue;
            }
            if self.nothing_is_due() {
                break;
            }
            self.tick_all();
            until = self.step + RECOVERY_STEPS_MAX;
        }
        self.check_replicas()?;
        self.check_nothing_left()
    }

    /// Whether no command is under way.
    fn is_quiet(&self) -> bool {
        let routers = self.nodes.iter().flat_map(|node| &node.routers);
        let applied = self.groups.iter().all(|group| {
            let all = group.entries.len() as u64;
            group.replicas.iter().all(|replica| replica.applied == all)
        });
        routers.into_iter().all(crate::router::Router::is_idle) && applied
    }

    /// A copy of a message reaches a client.
    pub(crate) fn deliver(&mut self, subscriber: usize, copy: Copy) -> Result<(), Violation> {
        self.report.delivered += 1;
        self.checks.loss.received(subscriber, copy.publisher, copy.number);
        let repeated = self.checks.order.received(subscriber, copy)?;
        self.report.repeated += u64::from(repeated);
        Ok(())
    }
}
