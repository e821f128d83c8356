//! What a message between two nodes costs, both ends in this process.
//!
//! `cargo run --release -p moorline-group --example wire_bench`

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{Incarnation, NodeId, ShardId};
use moorline_group::wire::{Kind, Lane, Peers, Replier, SendError, WireConfig};
use prometheus::Registry;
use tokio::task::JoinSet;

const SHARD: ShardId = ShardId(1);
const DEADLINE: Duration = Duration::from_secs(10);
const TO: NodeId = NodeId(2);

/// CPU time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>());
    let fields = fields.expect("a process has a name");
    let ticks = [11, 12].map(|field: usize| fields[field].parse::<u64>().expect("a number"));
    Duration::from_millis(ticks.iter().sum::<u64>() * 10)
}

fn frames(registry: &Registry) -> f64 {
    let families = registry.gather();
    let frames = families.iter().filter(|family| family.name() == "moorline_wire_frames_total");
    let frames = frames.flat_map(|family| family.get_metric());
    frames.map(|metric| metric.get_counter().get_value()).sum()
}

async fn nodes() -> (Peers, Registry, Arc<AtomicU64>) {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let addresses: BTreeMap<_, _> = (1..)
        .zip(&listeners)
        .map(|(id, listener)| (NodeId(id), listener.local_addr().expect("bound").to_string()))
        .collect();
    let taken = Arc::new(AtomicU64::new(0));
    let registry = Registry::new();
    let nodes = (1..).zip(listeners).map(|(id, listener)| {
        let config = WireConfig {
            node: NodeId(id),
            incarnation: Incarnation(id),
            cluster: 1,
            store: id.into(),
            program: moorline_core::level::Program::this(),
            peers: addresses.clone(),
            tls: None,
        };
        let registry = if id == 1 { registry.clone() } else { Registry::new() };
        let peers = Peers::new(config, &registry).expect("a good configuration");
        let taken = taken.clone();
        let handler = move |_, _, body: Bytes, reply: Option<Replier>| {
            taken.fetch_add(1, Ordering::Relaxed);
            if let Some(reply) = reply {
                reply.send(body);
            }
        };
        peers.register(Kind::Deliver, Arc::new(handler));
        peers.start(listener).expect("a runtime");
        peers
    });
    let nodes: Vec<_> = nodes.collect();
    let mut state = nodes[0].state();
    let up =
        state.wait_for(|states| states.get(TO).is_some_and(moorline_group::wire::PeerState::is_up));
    drop(tokio::time::timeout(DEADLINE, up).await.expect("they connect"));
    (nodes[0].clone(), registry, taken)
}

async fn measure(name: &str, messages: u64, registry: &Registry, work: impl Future<Output = ()>) {
    let (before, begin, cpu_before) = (frames(registry), Instant::now(), cpu());
    work.await;
    let (took, cpu) = (begin.elapsed(), cpu() - cpu_before);
    let frames = frames(registry) - before;
    println!(
        "{name}: {:.0} messages/s, {:.2} µs CPU per message, {:.1} messages per frame sent",
        messages as f64 / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / messages as f64,
        messages as f64 / frames,
    );
}

async fn send(peers: &Peers, taken: &AtomicU64, body: Bytes, messages: u64) {
    let end = taken.load(Ordering::Relaxed) + messages;
    for _ in 0..messages {
        while let Err(error) = peers.send(TO, Lane::Data, Kind::Deliver, SHARD, body.clone()) {
            assert_eq!(error, SendError::Full);
            tokio::task::yield_now().await;
        }
    }
    while taken.load(Ordering::Relaxed) < end {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn calls(peers: &Peers, callers: u64, body: Bytes, messages: u64) {
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (peers, body) = (peers.clone(), body.clone());
        tasks.spawn(async move {
            for _ in 0..messages / callers {
                let call = peers.call(TO, Lane::Data, Kind::Deliver, SHARD, body.clone(), DEADLINE);
                call.await.expect("an answer");
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let (peers, registry, taken) = nodes().await;
    for size in [64, 1024, 65_536] {
        let body = Bytes::from(vec![7; size]);
        let messages = if size > 10_000 { 20_000 } else { 1_000_000 };
        let name = format!("oneway, {size} B");
        measure(&name, messages, &registry, send(&peers, &taken, body, messages)).await;
    }
    for (callers, messages) in [(1, 20_000), (64, 500_000), (1024, 1_000_000)] {
        let body = Bytes::from(vec![7; 1024]);
        let name = format!("calls, 1 KiB, {callers} at once");
        let messages = messages / callers * callers;
        measure(&name, messages, &registry, calls(&peers, callers, body, messages)).await;
    }
}
