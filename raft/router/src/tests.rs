//! Routers of three nodes over real connections; only Raft is played: one shared log, one leader at a time.

mod speed;

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{Incarnation, NodeId, ShardId};
use moorline_group::{
    ProposeError, Role,
    wire::{Kind, Peers, WireConfig},
};
use moorline_machine::{Answer, Run};
use prometheus::Registry;
use tokio::{sync::watch, time::timeout};

use crate::{
    Answered, At, Done, Leader, Outcome, Router, RouterConfig, SubmitError, TellError,
    forwarder::tests::{Machine, command},
    replicas::{Replicas, Reply},
};

const SHARD: ShardId = ShardId(3);
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The one log, and who leads.
#[derive(Debug)]
struct Log {
    machine: Machine,
    role: watch::Sender<Role>,
    /// Runs so far; faults are planted by their number.
    runs: usize,
    fault: fn(usize) -> Fault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Applied, and the answer is lost.
    AnswerLost,
    /// Not applied, and the proposer can't know.
    RunLost,
    Busy,
}

/// A node's replica.
#[derive(Debug)]
struct Played {
    node: NodeId,
    log: Arc<Mutex<Log>>,
    /// Whether there is a replica here at all.
    replica: bool,
}

impl Replicas for Played {
    fn propose(&self, _: ShardId, run: Run, reply: Reply) {
        let mut log = self.log.lock().unwrap();
        let leader = log.role.borrow().leader;
        let outcome = if !self.replica {
            Err(ProposeError::NoGroup)
        } else if leader == Some(self.node) {
            log.runs += 1;
            match (log.fault)(log.runs) {
                Fault::None => Ok(log.machine.apply(&run)),
                Fault::AnswerLost => {
                    log.machine.apply(&run);
                    Err(ProposeError::Unknown)
                }
                Fault::RunLost => Err(ProposeError::Unknown),
                Fault::Busy => Err(ProposeError::Busy),
            }
        } else {
            Err(ProposeError::NotLeader { leader })
        };
        drop(log);
        reply(outcome);
    }

    fn role(&self, shard: ShardId) -> Option<watch::Receiver<Role>> {
        (self.replica && shard == SHARD).then(|| self.log.lock().unwrap().role.subscribe())
    }
}

struct Node {
    id: NodeId,
    peers: Peers,
    router: Router,
    registry: Registry,
}

impl Node {
    fn metric(&self, line: &str) -> f64 {
        let text =
            prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let found = text.lines().find_map(|found| found.strip_prefix(line)).expect(line);
        found.trim().parse().unwrap()
    }
}

struct Cluster {
    nodes: Vec<Node>,
    log: Arc<Mutex<Log>>,
}

impl Cluster {
    /// Three nodes; `replicas` of them have one. The first leads.
    async fn start(replicas: usize, fault: fn(usize) -> Fault) -> Self {
        let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses: BTreeMap<_, _> = (1..)
            .zip(&listeners)
            .map(|(node, listener)| (NodeId(node), listener.local_addr().unwrap().to_string()))
            .collect();
        let role = watch::Sender::new(Role::default());
        let log = Log { machine: Machine::default(), role, runs: 0, fault };
        let log = Arc::new(Mutex::new(log));
        let mut nodes = Vec::new();
        for (id, listener) in (1..).zip(listeners) {
            let config = WireConfig {
                node: NodeId(id),
                incarnation: Incarnation(id),
                cluster: 7,
                store: id.into(),
                program: moorline_core::level::Program::this(),
                peers: addresses.clone(),
                tls: None,
            };
            let registry = Registry::new();
            let peers = Peers::new(config, &registry).unwrap();
            let replica = usize::try_from(id).unwrap() <= replicas;
            let played = Arc::new(Played { node: NodeId(id), log: log.clone(), replica });
            let numbers = Mutex::new(id * 1_000_000);
            let producers = Arc::new(move || {
                let mut last = numbers.lock().unwrap();
                *last += 1;
                *last
            });
            let config = RouterConfig { shards: vec![SHARD], producers };
            let router = Router::over(played, peers.clone(), config, &registry).unwrap();
            peers.start(listener).unwrap();
            nodes.push(Node { id: NodeId(id), peers, router, registry });
        }
        let cluster = Self { nodes, log };
        for node in &cluster.nodes {
            let mut states = node.peers.state();
            let all_up = states.wait_for(|states| states.iter().all(|(_, state)| state.is_up()));
            timeout(PATIENCE, all_up).await.expect("in time").unwrap();
        }
        cluster.elect(Some(1));
        cluster
    }

    fn elect(&self, leader: Option<u64>) {
        let leader = leader.map(NodeId);
        let log = self.log.lock().unwrap();
        // Each node's own `leading` is filled in where it matters: a real group tells each node its own.
        log.role.send_modify(|role| {
            *role = Role { leader, term: role.term + 1, leading: true };
        });
    }

    fn applied(&self) -> Vec<u32> {
        self.log.lock().unwrap().machine.applied.iter().map(|(_, id)| *id).collect()
    }
}

/// Collects outcomes in the order they are told.
struct Listener(mpsc::SyncSender<(u64, Outcome)>);

impl Answered for Listener {
    fn answered(&self, token: u64, outcome: Outcome, _: At) {
        self.0.try_send((token, outcome)).unwrap();
    }
}

fn listener() -> (Arc<Listener>, mpsc::Receiver<(u64, Outcome)>) {
    let (sender, told) = mpsc::sync_channel(1_000_000);
    (Arc::new(Listener(sender)), told)
}

/// Submits commands with these ids.
fn submit(node: &Node, ids: std::ops::Range<u32>, listener: &Arc<Listener>) {
    for id in ids {
        let done = Done::Token(listener.clone(), id.into());
        node.router.submit(SHARD, &command(id, 100), done);
    }
}

/// All of these are answered with their own success, in order.
fn expect_all(told: &mpsc::Receiver<(u64, Outcome)>, ids: std::ops::Range<u32>) {
    for id in ids.map(u64::from) {
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), (id, Ok(Answer::At(id))));
    }
}

fn of(applied: &[u32], ids: &std::ops::Range<u32>) -> Vec<u32> {
    applied.iter().copied().filter(|id| ids.contains(id)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_all_nodes_apply_once_and_in_order() {
    let cluster = Cluster::start(3, |_| Fault::None).await;
    let mut listeners = Vec::new();
    for (node, begin) in cluster.nodes.iter().zip([0, 10_000, 20_000]) {
        let (listener, told) = listener();
        submit(node, begin..begin + 10_000, &listener);
        listeners.push((begin..begin + 10_000, told));
    }
    for (ids, told) in &listeners {
        expect_all(told, ids.clone());
    }
    let applied = cluster.applied();
    assert_eq!(applied.len(), 30_000);
    for (ids, _) in &listeners {
        assert_eq!(of(&applied, ids), ids.clone().collect::<Vec<_>>());
    }
    let remote = &cluster.nodes[1];
    assert_eq!(remote.metric("moorline_router_outcomes_total{outcome=\"answered\"}"), 10_000.0);
    let runs = remote.metric("moorline_router_runs_total");
    assert!(runs < 2_000.0, "{runs} runs: commands share them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_runs_lost_answers_and_busy_leaders_change_nothing() {
    let fault = |run: usize| match run % 10 {
        3 => Fault::AnswerLost,
        6 => Fault::RunLost,
        9 => Fault::Busy,
        _ => Fault::None,
    };
    let cluster = Cluster::start(3, fault).await;
    let ids = [0..5_000, 5_000..10_000];
    let told = ids.clone().map(|ids| {
        let (listener, told) = listener();
        submit(&cluster.nodes[usize::from(ids.start > 0)], ids, &listener);
        told
    });
    for (told, ids) in told.iter().zip(ids.clone()) {
        expect_all(told, ids);
    }
    for ids in &ids {
        assert_eq!(of(&cluster.applied(), ids), ids.clone().collect::<Vec<_>>());
    }
    // Which node's run meets which fault is a matter of timing, and of several at once only one counts.
    let failures = |node: &Node| -> f64 {
        let of =
            |reason| node.metric(&format!("moorline_router_failures_total{{reason=\"{reason}\"}}"));
        ["busy", "unknown"].into_iter().map(of).sum()
    };
    assert!(failures(&cluster.nodes[0]) + failures(&cluster.nodes[1]) > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_dies_the_next_one_gets_what_is_unanswered() {
    let cluster =
        Cluster::start(3, |run| if run == 5 { Fault::AnswerLost } else { Fault::None }).await;
    cluster.elect(Some(2));
    let (listener, told) = listener();
    let node = &cluster.nodes[0];
    submit(node, 0..1_000, &listener);
    expect_all(&told, 0..500);
    cluster.elect(None);
    cluster.nodes[1].peers.stop(PATIENCE).await;
    submit(node, 1_000..2_000, &listener);
    let elected = Instant::now();
    cluster.elect(Some(3));
    expect_all(&told, 500..2_000);
    println!("all answered {:?} after the election", elected.elapsed());
    assert_eq!(cluster.applied(), (0..2_000).collect::<Vec<_>>());
    assert_eq!(node.router.leader(SHARD), Some(NodeId(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_replica_finds_the_leader() {
    let cluster = Cluster::start(2, |_| Fault::None).await;
    let stranger = &cluster.nodes[2];
    let mut leaders = stranger.router.leaders();
    let expect_leader = async |leaders: &mut watch::Receiver<crate::Leaders>, node: u64, term| {
        let expected = Some(Leader { node: Some(NodeId(node)), term });
        let known = leaders.wait_for(|leaders| leaders.get(&SHARD).copied() == expected);
        timeout(PATIENCE, known).await.expect("in time").unwrap();
    };
    expect_leader(&mut leaders, 1, 1).await;
    let (listener, told) = listener();
    submit(stranger, 0..100, &listener);
    expect_all(&told, 0..100);
    cluster.elect(Some(2));
    submit(stranger, 100..200, &listener);
    expect_all(&told, 100..200);
    assert_eq!(stranger.router.leader(SHARD), Some(NodeId(2)));
    expect_leader(&mut leaders, 2, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_leader_commands_wait_and_are_sent_when_there_is_one() {
    let cluster = Cluster::start(3, |_| Fault::None).await;
    cluster.elect(None);
    let (listener, told) = listener();
    submit(&cluster.nodes[1], 0..1_000, &listener);
    assert_eq!(cluster.nodes[1].router.waiting(SHARD), 1_000);
    assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Empty));
    cluster.elect(Some(2));
    expect_all(&told, 0..1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_may_cause_the_next_command_again_and_again() {
    fn next(router: Router, id: u32, end: mpsc::SyncSender<u32>) {
        let submitting = router.clone();
        let done = Done::Call(Box::new(move |outcome| {
            assert_eq!(outcome, Ok(Answer::At(id.into())));
            if id == 1_000 {
                end.send(id).unwrap();
            } else {
                next(router, id + 1, end);
            }
        }));
        submitting.submit(SHARD, &command(id, 1), done);
    }
    let cluster = Cluster::start(3, |_| Fault::None).await;
    for (node, leader) in [(0, 1), (1, 1)] {
        cluster.elect(Some(leader));
        let (end, ended) = mpsc::sync_channel(1);
        next(cluster.nodes[node].router.clone(), 0, end);
        assert_eq!(ended.recv_timeout(PATIENCE), Ok(1_000));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_find_the_leader() {
    let cluster = Cluster::start(3, |_| Fault::None).await;
    let (sender, taken) = mpsc::sync_channel(10);
    for node in &cluster.nodes {
        let (sender, id) = (sender.clone(), node.id);
        let handler = move |from, shard, body, _| sender.send((id, from, shard, body)).unwrap();
        node.peers.register(Kind::Attachment, Arc::new(handler));
    }
    for leader in [2, 1] {
        cluster.elect(Some(leader));
        let mut leaders = cluster.nodes[0].router.leaders();
        let known = leaders.wait_for(|leaders| {
            leaders.get(&SHARD).is_some_and(|known| known.node == Some(NodeId(leader)))
        });
        timeout(PATIENCE, known).await.expect("in time").unwrap();
        let body = Bytes::from("credit");
        let told = cluster.nodes[0].router.tell_leader(SHARD, Kind::Attachment, body.clone());
        assert_eq!(told, Ok(NodeId(leader)));
        let expected = (NodeId(leader), NodeId(1), SHARD, body);
        assert_eq!(taken.recv_timeout(PATIENCE), Ok(expected));
    }
    let nowhere = cluster.nodes[0].router.tell_leader(ShardId(9), Kind::Attachment, Bytes::new());
    assert_eq!(nowhere, Err(TellError::NoLeader));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_router_answers_what_waits() {
    let cluster = Cluster::start(3, |_| Fault::None).await;
    let router = &cluster.nodes[1].router;
    // No node ever had a replica of it, so nobody can have applied anything.
    let asked = router.ask(ShardId(9), &command(1, 1));
    router.stop().await;
    let outcome = timeout(PATIENCE, asked).await.expect("in time");
    assert_eq!(outcome, Err(SubmitError::Stopped));
    assert_eq!(router.ask(SHARD, &command(2, 1)).await, Err(SubmitError::Stopped));
    assert!(cluster.applied().is_empty());
}
