//! The wire over loopback: two or three nodes in one process, and processes that are killed.

mod losses;
mod refusals;
mod tls;
mod traffic;

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use bytes::Bytes;
use moorline_core::{Incarnation, NodeId, ShardId, level::Program};
use prometheus::Registry;
use tokio::time::timeout;

use super::{Kind, Lane, PeerState, Peers, Replier, TlsFiles, WireConfig, node_name};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const CLUSTER: u128 = 7;
const SHARD: ShardId = ShardId(3);

/// A node under test.
struct Node {
    peers: Peers,
    registry: Registry,
    /// Given to `start`.
    listener: Option<TcpListener>,
}

impl Node {
    fn start(&mut self) {
        self.peers.start(self.listener.take().unwrap()).unwrap();
    }

    async fn stop(&self) {
        self.peers.stop(PATIENCE).await;
    }

    /// Waits until a peer is as wanted.
    async fn wait(&self, peer: u64, wanted: impl Fn(PeerState) -> bool) -> PeerState {
        let mut states = self.peers.state();
        let wanted = states.wait_for(|states| states.get(NodeId(peer)).is_some_and(&wanted));
        let states = timeout(PATIENCE, wanted).await.expect("in time").unwrap().clone();
        states.get(NodeId(peer)).unwrap()
    }

    async fn wait_up(&self, peer: u64) {
        self.wait(peer, PeerState::is_up).await;
    }

    async fn call(
        &self,
        to: u64,
        kind: Kind,
        body: &'static str,
    ) -> Result<Bytes, super::CallError> {
        let body = Bytes::from(body);
        self.peers.call(NodeId(to), Lane::Data, kind, SHARD, body, PATIENCE).await
    }

    /// The sum of a metric over all label values that contain `label`.
    fn metric(&self, name: &str, label: &str) -> f64 {
        let text =
            prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

fn listeners(count: u64) -> (Vec<TcpListener>, BTreeMap<NodeId, String>) {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses = (1..).zip(&listeners);
    let addresses = addresses
        .map(|(node, listener)| (NodeId(node), listener.local_addr().unwrap().to_string()))
        .collect();
    (listeners, addresses)
}

fn config(node: u64, peers: &BTreeMap<NodeId, String>, tls: Option<TlsFiles>) -> WireConfig {
    WireConfig {
        node: NodeId(node),
        incarnation: Incarnation(node * 10),
        cluster: CLUSTER,
        store: u128::from(node) * 100,
        program: Program::this(),
        peers: peers.clone(),
        tls,
    }
}

fn node(config: WireConfig, listener: TcpListener) -> Node {
    let registry = Registry::new();
    let peers = Peers::new(config, &registry).unwrap();
    Node { peers, registry, listener: Some(listener) }
}

/// Nodes 1, 2, …, not started yet.
fn nodes(count: u64) -> Vec<Node> {
    let (listeners, addresses) = listeners(count);
    let nodes = (1..).zip(listeners);
    nodes.map(|(id, listener)| node(config(id, &addresses, None), listener)).collect()
}

/// Starts all and waits until each sees each.
async fn start(nodes: &mut [Node]) {
    for node in &mut *nodes {
        node.start();
    }
    for node in &*nodes {
        for peer in node.peers.peers() {
            node.wait_up(peer.0).await;
        }
    }
}

/// Answers with what was asked.
fn echo(peers: &Peers, kind: Kind) {
    let handler = |_, _, body: Bytes, reply: Option<Replier>| {
        if let Some(reply) = reply {
            reply.send(body);
        }
    };
    peers.register(kind, Arc::new(handler));
}

/// Takes requests and never answers.
fn ignore(peers: &Peers, kind: Kind) {
    let kept = Mutex::new(Vec::new());
    let handler = move |_, _, _, reply: Option<Replier>| kept.lock().unwrap().extend(reply);
    peers.register(kind, Arc::new(handler));
}

type Taken = (NodeId, ShardId, Bytes);

/// Hands on what comes, and answers what is to be answered.
fn collect(peers: &Peers, kind: Kind) -> mpsc::Receiver<Taken> {
    let (sender, taken) = mpsc::sync_channel(100_000);
    let handler = move |from, shard, body: Bytes, reply: Option<Replier>| {
        sender.try_send((from, shard, body)).unwrap();
        if let Some(reply) = reply {
            reply.send(Bytes::new());
        }
    };
    peers.register(kind, Arc::new(handler));
    taken
}
