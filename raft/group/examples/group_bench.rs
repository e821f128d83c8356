//! How many commands per second the groups take, and what one costs: nodes in one process, over the real wire, with a real
//! fsync on each.
//!
//! `cargo run --release -p moorline-group --example group_bench -- [groups] [commands per run] [clients] [seconds] [nodes]`
//!
//! Each client has a session of its own that subscribes to what the client publishes (256 B, QoS 1); each run also settles
//! what the run before put into the queue. CPU is that of all nodes and the clients.
#![allow(clippy::unwrap_used)]

#[path = "../tests/rig/mod.rs"]
mod rig;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{
    ConnId, Epoch, Incarnation, NodeId, Offset, QoS, ShardId, SubscriptionOptions, TenantId,
};
use moorline_group::Groups;
use moorline_machine::{
    Answer, Command, RunAnswers, RunBuilder,
    command::{Holder, ProducerId, SessionId, Subscription},
};
use rig::{Cluster, Node, message, within};
use tokio::sync::oneshot;

const PAYLOAD_BYTES: usize = 256;
const TENANT: TenantId = TenantId(1);

struct Settings {
    groups: u16,
    batch: u64,
    clients: u64,
    seconds: u64,
    nodes: u64,
}

#[derive(Default)]
struct Counted {
    commands: AtomicU64,
    runs: AtomicU64,
    failed: AtomicU64,
    micros: Mutex<Vec<u32>>,
    stop: AtomicBool,
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>().expect("a number"));
    let mut next = |default| args.next().unwrap_or(default);
    let settings = Settings {
        groups: u16::try_from(next(1)).unwrap(),
        batch: next(1),
        clients: next(64),
        seconds: next(3),
        nodes: next(3),
    };
    let cluster = Cluster::new(settings.nodes);
    let nodes: Vec<Node> = (1..=settings.nodes).map(|node| cluster.start(NodeId(node))).collect();
    let shards: Vec<ShardId> = (1..=settings.groups).map(ShardId).collect();
    for node in &nodes {
        for shard in &shards {
            node.open(*shard).unwrap();
        }
    }
    for shard in &shards {
        // Spread at once, as the balance would after a while.
        let first = usize::from(shard.0 - 1) % nodes.len();
        nodes[first].initialize(*shard, &cluster).unwrap();
    }
    let leads = |shard: &ShardId| nodes.iter().any(|node| node.role(*shard).leading);
    within(Duration::from_secs(10), "leaders", || shards.iter().all(leads).then_some(()));
    println!("{} nodes, {} groups, idle for 5 s:", settings.nodes, settings.groups);
    let idle = cpu_seconds();
    thread::sleep(Duration::from_secs(5));
    println!("  {:.2} % of a core", (cpu_seconds() - idle) / 5.0 * 100.0);
    measure(&settings, &nodes, &shards);
}

fn measure(settings: &Settings, nodes: &[Node], shards: &[ShardId]) {
    let counted = Arc::new(Counted::default());
    let payload = Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.unwrap();
    let mut clients = tokio::task::JoinSet::new();
    for number in 1..=settings.clients {
        let shard = shards[number as usize % shards.len()];
        let leader = nodes.iter().find(|node| node.role(shard).leading).unwrap();
        let client = Client {
            groups: leader.groups().clone(),
            shard,
            number,
            batch: settings.batch,
            payload: payload.clone(),
            counted: Arc::clone(&counted),
        };
        clients.spawn_on(client.run(), runtime.handle());
    }
    thread::sleep(Duration::from_millis(500));
    let before = (counted.commands.load(Ordering::Relaxed), cpu_seconds(), Instant::now());
    counted.micros.lock().unwrap().clear();
    thread::sleep(Duration::from_secs(settings.seconds));
    let commands = (counted.commands.load(Ordering::Relaxed) - before.0) as f64;
    let (cpu, took) = (cpu_seconds() - before.1, before.2.elapsed().as_secs_f64());
    let mut micros = std::mem::take(&mut *counted.micros.lock().unwrap());
    counted.stop.store(true, Ordering::Relaxed);
    micros.sort_unstable();
    let at = |share: f64| micros.get((micros.len() as f64 * share) as usize).copied().unwrap_or(0);
    println!(
        "B = {}, {} clients: {:.0} commands/s, {:.1} µs CPU each ({:.2} cores); a run p50 {} µs, p99 {} µs; {} failed",
        settings.batch,
        settings.clients,
        commands / took,
        cpu / commands * 1e6,
        cpu / took,
        at(0.5),
        at(0.99),
        counted.failed.load(Ordering::Relaxed),
    );
    runtime.block_on(async { while clients.join_next().await.is_some() {} });
}

struct Client {
    groups: Groups,
    shard: ShardId,
    number: u64,
    batch: u64,
    payload: Bytes,
    counted: Arc<Counted>,
}

impl Client {
    async fn run(self) {
        let mut builder = RunBuilder::new(ProducerId(self.number), 1);
        let topic = format!("t/{}", self.number);
        let holder =
            Holder { node: NodeId(1), incarnation: Incarnation(1), conn: ConnId(self.number) };
        let open = Command::OpenSession {
            tenant: TENANT,
            client: topic.clone().into(),
            clean_start: false,
            expiry_s: 3600,
            holder,
            limits: moorline_core::port::SessionLimits::none(),
            sessions_max: u32::MAX,
            will: None,
        };
        let answers = self.propose(&mut builder, &[open]).await.expect("opened");
        let Answer::Opened { session, .. } = answers.answers[0] else { panic!("{answers:?}") };
        let subscriptions = vec![Subscription {
            filter: topic.clone().into(),
            options: SubscriptionOptions::of_qos(QoS::AtLeastOnce),
        }];
        let subscribe = Command::Subscribe { session, epoch: Epoch(1), subscriptions };
        self.propose(&mut builder, &[subscribe]).await.expect("subscribed");
        let mut upto = 0;
        while !self.counted.stop.load(Ordering::Relaxed) {
            upto = self.round(&mut builder, session, &topic, upto).await;
        }
    }

    async fn round(
        &self,
        builder: &mut RunBuilder,
        session: SessionId,
        topic: &str,
        upto: u64,
    ) -> u64 {
        let mut message = message(&self.payload);
        message.topic = topic.into();
        let publish = Command::Publish { tenant: TENANT, from: None, message };
        let mut commands = vec![publish; usize::try_from(self.batch).unwrap()];
        if upto > 0 {
            commands.push(Command::Settle { session, upto: Offset(upto), also: Vec::new() });
        }
        let began = Instant::now();
        if self.propose(builder, &commands).await.is_none() {
            self.counted.failed.fetch_add(1, Ordering::Relaxed);
            return upto;
        }
        let micros = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
        self.counted.micros.lock().unwrap().push(micros);
        self.counted.runs.fetch_add(1, Ordering::Relaxed);
        self.counted.commands.fetch_add(self.batch, Ordering::Relaxed);
        upto + self.batch
    }

    async fn propose(&self, builder: &mut RunBuilder, commands: &[Command]) -> Option<RunAnswers> {
        let mut first = 0;
        for command in commands {
            let seq = builder.push(command).unwrap();
            first = if first == 0 { seq } else { first };
        }
        let run = builder.take(first).unwrap();
        let (answer, answered) = oneshot::channel();
        self.groups.propose(self.shard, run, move |result| drop(answer.send(result)));
        answered.await.unwrap().ok()
    }
}

/// User and system time of this process: fields 14 and 15 of its stat file, in ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
