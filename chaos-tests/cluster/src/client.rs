//! The clients of a run: publishers that count, subscribers that keep their sessions, devices with mail, and who administers
//! records.

pub mod api;
mod churn;
mod courier;
mod ear;
mod last;
pub mod loads;
pub mod mailbox;
pub mod publisher;
pub mod registry;
mod retained;
mod shared;
pub mod subscriber;
mod wills;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use moorline_oracle::history::Leave;
use moorline_oracle::{MessageId, Op, Phase};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

use crate::mqtt::{Connect, Connection, ConnectionError};
use crate::recorder::{Actor, Recorder};

/// How often a client asks whether the node is there.
const PING_EVERY: Duration = Duration::from_millis(500);
/// A node that says nothing for this long is left for another: a paused or cut one never closes a connection.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How long a client waits before it tries the next node, in milliseconds: from, to.
const RETRY_MS: (u64, u64) = (20, 100);
/// The keep alive a client announces, in seconds: longer than our own patience, so that the client decides.
const KEEP_ALIVE_S: u16 = 30;
/// How long sessions outlive their connections, in seconds (5.0): longer than any run.
const EXPIRY_S: u32 = 86_400;

/// A node, as clients see it.
#[derive(Debug)]
pub struct Peer {
    /// Its number.
    pub id: u32,
    /// Where it speaks MQTT.
    pub mqtt: SocketAddr,
    /// Where it answers about itself.
    pub admin: SocketAddr,
    /// Where it speaks HTTP with Fostrom's devices, if it does.
    pub http: SocketAddr,
    /// Whether the harness believes that it runs.
    pub up: AtomicBool,
    /// Whether it is a part of the cluster: nobody asks who has not joined yet, or has left.
    pub member: AtomicBool,
}

impl Peer {
    /// Whether the harness believes that it runs.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Whether it is a part of the cluster.
    pub fn is_member(&self) -> bool {
        self.member.load(Ordering::Relaxed)
    }
}

/// What all clients of a run share.
#[derive(Debug)]
pub struct Shared {
    /// Where events are noted.
    pub recorder: Recorder,
    /// The nodes.
    pub peers: Arc<Vec<Peer>>,
    /// What was acknowledged and what arrived.
    pub progress: Progress,
    /// Cancelled when no new message may begin.
    pub drain: CancellationToken,
    /// Cancelled when everything is to end.
    pub stop: CancellationToken,
    connections: AtomicU64,
    requests: AtomicU64,
}

/// How far publishers and subscribers are.
#[derive(Debug)]
pub struct Progress {
    /// Highest acknowledged sequence of each publisher.
    acked: Vec<AtomicU64>,
    /// Highest sequence each subscriber got of each publisher.
    delivered: Vec<Vec<AtomicU64>>,
    /// How many subscribers have had a SUBACK.
    subscribed: AtomicU64,
    /// Counts deliveries: whether it moves says whether a drain does.
    moves: AtomicU64,
}

impl Progress {
    fn new(publishers: usize, subscribers: usize) -> Self {
        let counters = |many| (0..many).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        Self {
            acked: counters(publishers),
            delivered: (0..subscribers).map(|_| counters(publishers)).collect(),
            subscribed: AtomicU64::new(0),
            moves: AtomicU64::new(0),
        }
    }

    fn acked(&self, message: MessageId) {
        self.acked[index(message.publisher)].fetch_max(message.seq, Ordering::Relaxed);
    }

    fn delivered(&self, subscriber: u32, message: MessageId) {
        self.moves.fetch_add(1, Ordering::Relaxed);
        // A payload may name a publisher that does not exist: a phantom for the judge, nothing for us.
        if let Some(seen) = self.delivered[index(subscriber)].get(index(message.publisher)) {
            seen.fetch_max(message.seq, Ordering::Relaxed);
        }
    }

    /// How many subscribers have had a SUBACK.
    pub fn subscribed(&self) -> u64 {
        self.subscribed.load(Ordering::Relaxed)
    }

    /// How many deliveries there were.
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    /// Whether every subscriber has seen the last acknowledged message of each of its publishers.
    pub fn has_drained(&self) -> bool {
        self.delivered.iter().zip(0..).all(|(seen, subscriber)| {
            subscriber::publishers(subscriber, self.acked.len()).into_iter().all(|publisher| {
                let acked = self.acked[index(publisher)].load(Ordering::Relaxed);
                seen[index(publisher)].load(Ordering::Relaxed) >= acked
            })
        })
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).expect("32 bits fit")
}

/// A client's hold on a connection.
#[derive(Debug)]
struct Link {
    conn: u64,
    node: u32,
    connection: Connection,
}

/// Why a client's connection ended.
#[derive(Debug)]
struct Ended {
    why: Leave,
    err: Option<String>,
}

impl Ended {
    fn plainly(why: Leave) -> Self {
        Self { why, err: None }
    }
}

impl From<ConnectionError> for Ended {
    fn from(error: ConnectionError) -> Self {
        let why = match &error {
            ConnectionError::Lost(_) | ConnectionError::Closed | ConnectionError::Refused(_) => {
                Leave::Lost
            }
            ConnectionError::TimedOut(_) => Leave::TimedOut,
            ConnectionError::Protocol(_) => Leave::Protocol,
        };
        Self { why, err: Some(anyhow::Error::from(error).to_string()) }
    }
}

impl Shared {
    /// For so many clients.
    pub fn new(
        recorder: Recorder,
        peers: Arc<Vec<Peer>>,
        publishers: usize,
        subscribers: usize,
    ) -> Self {
        Self {
            recorder,
            peers,
            progress: Progress::new(publishers, subscribers),
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
            connections: AtomicU64::new(1),
            requests: AtomicU64::new(1),
        }
    }

    /// The number of a connection, given to no other of the run.
    fn connection_number(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of a request, given to no other of the run.
    fn number(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// The node for one request: any member, but one of those known to be down only now and then.
    fn draw(&self, random: &mut StdRng) -> &Peer {
        let first = self.member(random.random_range(0..self.peers.len()));
        if first.is_up() { first } else { self.member(random.random_range(0..self.peers.len())) }
    }

    /// The member at this place, counted around.
    fn member(&self, at: usize) -> &Peer {
        let members: Vec<&Peer> = self.peers.iter().filter(|peer| peer.is_member()).collect();
        members.get(at % members.len().max(1)).copied().unwrap_or(&self.peers[0])
    }

    /// A node to turn to: one believed to run, not the one just left if there is another.
    fn pick(&self, random: &mut StdRng, left: Option<u32>) -> &Peer {
        let up = |peer: &&Peer| peer.up.load(Ordering::Relaxed);
        let elsewhere = |peer: &&Peer| Some(peer.id) != left;
        let mut choice: Vec<&Peer> = self.peers.iter().filter(up).filter(elsewhere).collect();
        if choice.is_empty() {
            choice = self.peers.iter().filter(|peer| peer.is_member()).collect();
        }
        choice[random.random_range(0..choice.len())]
    }

    /// Connects to some node, trying until it works or the run is over.
    async fn connect(
        &self,
        connect: &Connect,
        random: &mut StdRng,
        left: Option<u32>,
    ) -> Option<Link> {
        let mut left = left;
        loop {
            let peer = self.pick(random, left);
            left = Some(peer.id);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                link = self.try_connect(connect, peer) => if link.is_some() { return link },
            }
            let pause = Duration::from_millis(random.random_range(RETRY_MS.0..=RETRY_MS.1));
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn try_connect(&self, connect: &Connect, peer: &Peer) -> Option<Link> {
        let conn = self.connection_number();
        let actor = Actor { name: &connect.client, node: Some(peer.id) };
        let Connect { clean, receive_max, .. } = *connect;
        let op = |present| Op::Connect { conn, clean, present, receive_max };
        self.recorder.note(actor, Phase::Invoke, op(false));
        match Connection::open(peer.mqtt, connect.clone()).await {
            Ok(connection) => {
                self.recorder.note(actor, Phase::Ok, op(connection.present));
                Some(Link { conn, node: peer.id, connection })
            }
            Err(error) => {
                let err = Some(anyhow::Error::from(error).to_string());
                self.recorder.note_error(actor, Phase::Info, op(false), err);
                None
            }
        }
    }

    fn left(&self, name: &str, link: &Link, ended: Ended) {
        let actor = Actor { name, node: Some(link.node) };
        let op = Op::Leave { conn: link.conn, why: ended.why };
        self.recorder.note_error(actor, Phase::Ok, op, ended.err);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_drained_when_every_watermark_is_reached() {
        let progress = Progress::new(3, 2);
        assert!(progress.has_drained());
        let message = |publisher, seq| MessageId { publisher, seq };
        progress.acked(message(0, 5));
        assert!(!progress.has_drained());
        progress.delivered(0, message(0, 4));
        assert!(!progress.has_drained());
        progress.delivered(0, message(0, 5));
        // Subscriber 1 listens to publishers 1 and 2 only.
        assert!(progress.has_drained());
        progress.acked(message(1, 1));
        progress.delivered(0, message(1, 1));
        assert!(!progress.has_drained());
        progress.delivered(1, message(1, 1));
        assert!(progress.has_drained());
        assert_eq!(progress.moves(), 4);
    }
}
