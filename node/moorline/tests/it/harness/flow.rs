//! Numbered messages that flow while something happens to the cluster, and the check of what came of them.
//!
//! Every message is wanted by one durable session in each shard, so that whatever happens to a shard is felt.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

use super::{
    client_in,
    cluster::{Cluster, SHARDS},
    mqtt::{Client, Heard},
    packet::{Connect, Packet, Version},
    wait::{READY, until_true},
};

/// Between an acknowledgement and the next publish: some load, and time for everybody else on two cores.
const PACE: Duration = Duration::from_millis(3);
/// Before a refused publish is tried again.
const AGAIN: Duration = Duration::from_millis(10);
/// How long a publisher waits for one acknowledgement. Longer than any gap that is allowed.
const ANSWER_WAIT: Duration = Duration::from_secs(20);
/// How often a subscriber looks whether it should stop.
const LOOK: Duration = Duration::from_millis(20);

/// Publishers and subscribers at work.
pub(crate) struct Flow {
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    stop: Arc<AtomicBool>,
}

/// What came of it. Loss and disorder have failed the test already.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) acked: u64,
    /// The longest time between two acknowledgements of one publisher.
    pub(crate) ack_gap: Duration,
    /// The longest time between two deliveries to one subscriber while publishers were at work.
    pub(crate) delivery_gap: Duration,
    /// Connections that broke.
    pub(crate) broken: u64,
}

struct Publisher {
    name: String,
    acked: Arc<AtomicU64>,
    thread: JoinHandle<(Duration, u64)>,
}

struct Subscriber {
    client: String,
    node: SocketAddr,
    /// The last number that came of each publisher; numbers begin at 1 and have no gaps.
    got: Arc<Mutex<BTreeMap<String, u64>>>,
    thread: JoinHandle<(Duration, u64)>,
}

impl Flow {
    /// Starts a publisher on each of `nodes`, and a subscriber per shard, dealt over them. `tag` names topics and sessions.
    pub(crate) fn start(cluster: &Cluster, tag: &str, nodes: &[u64]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let subscribers = (1..=SHARDS)
            .zip(nodes.iter().cycle())
            .map(|(shard, node)| Subscriber::start(tag, shard, cluster.mqtt(*node), &stop))
            .collect();
        let publishers = nodes
            .iter()
            .map(|node| Publisher::start(tag, *node, cluster.mqtt(*node), &stop))
            .collect();
        Self { publishers, subscribers, stop }
    }

    /// Waits until every publisher has so many more acknowledgements.
    #[track_caller]
    pub(crate) fn goes_on(&self, more: u64) {
        for publisher in &self.publishers {
            let wanted = publisher.acked.load(Ordering::Acquire) + more;
            until_true(&format!("{} has {wanted} acknowledged", publisher.name), READY, || {
                publisher.acked.load(Ordering::Acquire) >= wanted
            });
        }
    }

    /// Stops publishing, waits until all that was acknowledged has come to every subscriber.
    #[track_caller]
    pub(crate) fn finish(self) -> Outcome {
        self.stop.store(true, Ordering::Release);
        let mut outcome =
            Outcome { acked: 0, ack_gap: Duration::ZERO, delivery_gap: Duration::ZERO, broken: 0 };
        let mut acked = BTreeMap::new();
        for publisher in self.publishers {
            let (gap, broken) = publisher.thread.join().unwrap();
            let number = publisher.acked.load(Ordering::Acquire);
            outcome.acked += number;
            outcome.ack_gap = outcome.ack_gap.max(gap);
            outcome.broken += broken;
            acked.insert(publisher.name, number);
        }
        for subscriber in self.subscribers {
            let got = Arc::clone(&subscriber.got);
            until_true(&format!("{} has all of {acked:?}", subscriber.client), READY, || {
                let got = got.lock().unwrap();
                let ended = subscriber.thread.is_finished();
                assert!(!ended, "{} gave up with {got:?} of {acked:?}", subscriber.client);
                acked.iter().all(|(name, number)| got.get(name).copied().unwrap_or(0) >= *number)
            });
            // Told to stop by what it waits for: the map is gone.
            got.lock().unwrap().insert(STOP.to_owned(), 0);
            let (gap, broken) = subscriber.thread.join().unwrap();
            outcome.delivery_gap = outcome.delivery_gap.max(gap);
            outcome.broken += broken;
            Connect::clean(Version::V5, &subscriber.client)
                .to_patiently(subscriber.node)
                .0
                .disconnect();
        }
        println!("  {outcome:?}");
        outcome
    }
}

/// No publisher's name: tells a subscriber that it has everything.
const STOP: &str = "stop";

impl Publisher {
    fn start(tag: &str, node: u64, to: SocketAddr, stop: &Arc<AtomicBool>) -> Self {
        let name = format!("{tag}-publisher-{node}");
        let acked = Arc::new(AtomicU64::new(0));
        let connect = Connect::clean(Version::V5, &name);
        let (client, _) = connect.to_patiently(to);
        let topic = format!("flow/{tag}");
        let (count, stop) = (Arc::clone(&acked), Arc::clone(stop));
        let thread =
            thread::spawn(move || publish_numbers(client, &connect, to, &topic, &count, &stop));
        Self { name, acked, thread }
    }
}

/// One message at a time, each until it is acknowledged: what was refused or lost is sent again with the same number.
fn publish_numbers(
    mut client: Client,
    connect: &Connect,
    to: SocketAddr,
    topic: &str,
    acked: &AtomicU64,
    stop: &AtomicBool,
) -> (Duration, u64) {
    let (mut longest, mut broken, mut last) = (Duration::ZERO, 0, Instant::now());
    for number in 1.. {
        let payload = format!("{} {number}", connect.client);
        while !publish_one(&mut client, topic, payload.as_bytes(), &mut broken, || {
            connect.to_patiently(to).0
        }) {
            sleep(AGAIN);
        }
        longest = longest.max(last.elapsed());
        last = Instant::now();
        acked.store(number, Ordering::Release);
        if stop.load(Ordering::Acquire) {
            break;
        }
        sleep(PACE);
    }
    (longest, broken)
}

/// Whether it was acknowledged.
fn publish_one(
    client: &mut Client,
    topic: &str,
    payload: &[u8],
    broken: &mut u64,
    again: impl FnOnce() -> Client,
) -> bool {
    let id = client.publish_unchecked(topic, payload);
    let since = Instant::now();
    loop {
        match client.hear(ANSWER_WAIT.saturating_sub(since.elapsed())) {
            Heard::Packet(Packet::PubAck { id: acked, reason }) if acked == id => {
                return reason < 0x80;
            }
            Heard::Packet(other) => println!("  a publisher hears {other:?}"),
            Heard::Closed => {
                *broken += 1;
                *client = again();
                return false;
            }
            Heard::Nothing => panic!("no answer to a publish in {ANSWER_WAIT:?}"),
        }
    }
}

impl Subscriber {
    fn start(tag: &str, shard: u16, node: SocketAddr, stop: &Arc<AtomicBool>) -> Self {
        let client = client_in(shard, SHARDS, &format!("{tag}-subscriber"));
        let connect = Connect::durable(Version::V5, &client);
        let (mut connection, _) = connect.to_patiently(node);
        connection.subscribe_1(&format!("flow/{tag}"));
        let got = Arc::new(Mutex::new(BTreeMap::new()));
        let (map, stop) = (Arc::clone(&got), Arc::clone(stop));
        let thread = thread::spawn(move || take_numbers(connection, &connect, node, &map, &stop));
        Self { client, node, got, thread }
    }
}

/// Takes everything, in order, until it is told that it has everything.
fn take_numbers(
    mut client: Client,
    connect: &Connect,
    node: SocketAddr,
    got: &Mutex<BTreeMap<String, u64>>,
    stop: &AtomicBool,
) -> (Duration, u64) {
    let (mut longest, mut broken, mut last) = (Duration::ZERO, 0, None::<Instant>);
    loop {
        match client.hear(LOOK) {
            Heard::Packet(Packet::Publish(message)) => {
                client.ack_unchecked(&message);
                note(&connect.client, got, &String::from_utf8(message.payload).unwrap());
                if !stop.load(Ordering::Acquire) {
                    longest = longest.max(last.map_or(Duration::ZERO, |last| last.elapsed()));
                }
                last = Some(Instant::now());
            }
            Heard::Packet(other) => println!("  {} hears {other:?}", connect.client),
            Heard::Nothing => {
                if got.lock().unwrap().contains_key(STOP) {
                    return (longest, broken);
                }
            }
            Heard::Closed => {
                broken += 1;
                client = connect.to_patiently(node).0;
            }
        }
    }
}

/// A number may come again; one that is ahead of its turn means that another was lost or overtaken.
fn note(client: &str, got: &Mutex<BTreeMap<String, u64>>, payload: &str) {
    let (publisher, number) = payload.rsplit_once(' ').unwrap();
    let number: u64 = number.parse().unwrap();
    let mut got = got.lock().unwrap();
    let last = got.entry(publisher.to_owned()).or_insert(0);
    assert!(number <= *last + 1, "{client} got {payload} after number {last}");
    *last = number.max(*last);
}
