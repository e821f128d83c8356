//! Devices: MQTT clients on a machine of their own, with sessions that last. Publishers send with QoS 1 and 2 and send again
//! what was not answered; subscribers change nodes, also while their old connection still lives.
//!
//! # Invariants
//!
//! - **A device keeps the standard's rules**: what was not answered is sent again in order and under its packet id; QoS 2 packet
//!   ids are remembered as long as the session.
//! - **A replaced connection is dropped, or goes on for a while**: it takes and acknowledges what it has of QoS 1, as a process does
//!   that does not know yet that it was replaced. What a client has acknowledged counts, on whichever connection it did.

mod link;
mod publisher;
mod subscriber;

use std::sync::Arc;

use moorline_core::QoS;
use rand::{SeedableRng, rngs::StdRng};
use tokio_util::task::TaskTracker;
use xxhash_rust::xxh3::xxh3_64;

use self::{publisher::Publisher, subscriber::Subscriber};
use crate::node::Cluster;

/// The name of the machine that devices are on, as a node: see [`crate::net::host`].
pub(crate) const MACHINE: u64 = 0;
/// Devices that publish.
pub(crate) const PUBLISHERS: u64 = 3;
/// What devices subscribe to, each of them.
pub(crate) const SUBSCRIPTIONS: [(&str, QoS); 4] = [
    ("d/#", QoS::ExactlyOnce),
    ("d/+/a", QoS::AtLeastOnce),
    ("d/0/#", QoS::ExactlyOnce),
    ("d/+/b", QoS::ExactlyOnce),
];
/// Bytes of a message that say which it is; as many again are made of them.
const KEY_BYTES: usize = 16;

/// A message: its publisher, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) publisher: u64,
    pub(crate) number: u64,
}

impl Key {
    /// Every other message or so goes to the second topic, and with QoS 2.
    fn is_second(self) -> bool {
        xxh3_64(&self.number.to_be_bytes()).is_multiple_of(2)
    }

    /// Where it is published.
    pub(crate) fn topic(self) -> String {
        format!("d/{}/{}", self.publisher, if self.is_second() { "b" } else { "a" })
    }

    fn qos(self) -> QoS {
        if self.is_second() { QoS::ExactlyOnce } else { QoS::AtLeastOnce }
    }

    fn payload(self) -> Vec<u8> {
        let mut payload = self.publisher.to_be_bytes().to_vec();
        payload.extend_from_slice(&self.number.to_be_bytes());
        let sum = xxh3_64(&payload).to_be_bytes();
        payload.extend_from_slice(&sum);
        payload.extend_from_slice(&sum);
        payload
    }

    /// Which message this is, and whether it is as it was published.
    fn of(topic: &str, payload: &[u8]) -> (Self, bool) {
        let number = |at: usize| {
            let bytes = payload.get(at..at + KEY_BYTES / 2).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_be_bytes)
        };
        let key = Self { publisher: number(0), number: number(KEY_BYTES / 2) };
        (key, key.topic() == topic && key.payload() == payload)
    }
}

/// Whether a subscriber is to get a message.
pub(crate) fn wants(subscriber: u64, key: Key) -> bool {
    match subscriber {
        0 => true,
        1 => !key.is_second(),
        2 => key.publisher == 0,
        _ => key.is_second(),
    }
}

/// Runs all of them for ever.
pub(crate) async fn run(cluster: Arc<Cluster>) -> turmoil::Result {
    let tasks = TaskTracker::new();
    let random = |device: u64| StdRng::seed_from_u64(cluster.seed ^ (0xde71_ce00 + device));
    for id in 0..PUBLISHERS {
        let publisher = Publisher::new(Arc::clone(&cluster), id, random(id));
        tasks.spawn(publisher.run());
    }
    for id in 0..SUBSCRIPTIONS.len() as u64 {
        let random = random(PUBLISHERS + id);
        let subscriber = Subscriber::new(Arc::clone(&cluster), id, tasks.clone());
        tasks.spawn(subscriber.run(random));
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}
