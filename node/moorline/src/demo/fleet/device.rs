//! A simulated device: one connection after the other, at one node after the other, until it is told to leave. What was not acknowledged on
//! one is said again on the next.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use anyhow::ensure;
use moorline_core::QoS;
use moorline_mqtt::{
    client::Event,
    codec::{Outgoing, PacketId, Publish},
};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{board::Board, speaks::Device};
use crate::bench::wire::Wire;

/// How long a node may take to let it in.
const OPEN_WAIT: Duration = Duration::from_secs(3);
/// The pause before it goes to another node.
const MOVE_PAUSE: Duration = Duration::from_millis(200);

/// Where nodes are: id and MQTT address.
pub(super) type Places = Vec<(u64, String)>;

/// One of them.
pub(super) struct Living {
    pub(super) device: Device,
    /// Its line on the board.
    pub(super) line: usize,
    pub(super) board: Board,
    pub(super) places: Places,
    /// It says nothing new any more, and listens still.
    pub(super) quiet: CancellationToken,
    /// It goes.
    pub(super) leave: CancellationToken,
}

/// What is to be said, over all connections.
struct Saying {
    next: u64,
    waiting: VecDeque<u64>,
    /// Under way on this connection.
    out: BTreeMap<PacketId, u64>,
    every: Interval,
}

impl Saying {
    fn new(pause: Duration) -> Self {
        let mut every = interval(pause);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { next: 1, waiting: VecDeque::new(), out: BTreeMap::new(), every }
    }

    /// What was under way is said again, in its order.
    fn again(&mut self) {
        let mut again: Vec<u64> = std::mem::take(&mut self.out).into_values().collect();
        again.sort_unstable();
        again.into_iter().rev().for_each(|seq| self.waiting.push_front(seq));
    }
}

impl Living {
    /// Until it is told to leave.
    pub(super) async fn live(self, first: usize) {
        let mut saying = Saying::new(self.device.platform.pause());
        let mut place = first;
        loop {
            let (node, target) = &self.places[place % self.places.len()];
            tokio::select! {
                () = self.leave.cancelled() => return,
                visited = self.visit(*node, target, &mut saying) => drop(visited),
            }
            saying.again();
            place += 1;
            tokio::select! {
                () = self.leave.cancelled() => return,
                () = sleep(MOVE_PAUSE) => {}
            }
        }
    }

    /// One connection: ends when that breaks.
    async fn visit(&self, node: u64, target: &str, saying: &mut Saying) -> anyhow::Result<()> {
        let opening = Wire::open(target, self.device.options(), Instant::now().into_std());
        let mut wire = timeout(OPEN_WAIT, opening).await??;
        wire.client.subscribe(&[(&self.device.listens(), QoS::AtLeastOnce)])?;
        loop {
            self.say(&mut wire, saying)?;
            let event = tokio::select! {
                event = wire.next() => event?,
                _ = saying.every.tick(), if !self.quiet.is_cancelled() => {
                    saying.waiting.push_back(saying.next);
                    saying.next += 1;
                    self.board.note(self.line, |line| line.sent += 1);
                    continue;
                }
            };
            match event {
                Event::Subscribed { reasons, .. } => {
                    ensure!(
                        !reasons.iter().any(|reason| reason.is_error()),
                        "a subscription was refused"
                    );
                    self.board.note(self.line, |line| line.places.push(node));
                }
                Event::Published { id, .. } => {
                    if let Some(seq) = saying.out.remove(&id) {
                        self.board.note(self.line, |line| line.acked.insert(seq));
                    }
                }
                Event::Message(publish) => self.hear(&mut wire, &publish)?,
                Event::Connected(_)
                | Event::Refused(_)
                | Event::Unsubscribed { .. }
                | Event::Disconnected(_) => {}
            }
        }
    }

    /// Says what waits, as far as there is room.
    fn say(&self, wire: &mut Wire, saying: &mut Saying) -> anyhow::Result<()> {
        while wire.client.can_publish()
            && let Some(seq) = saying.waiting.pop_front()
        {
            let (topic, body) = self.device.event(seq);
            let sent = publish(wire, &topic, body.as_bytes());
            match sent {
                Ok(Some(id)) => {
                    saying.out.insert(id, seq);
                }
                Ok(None) => {}
                Err(error) => {
                    saying.waiting.push_front(seq);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn hear(&self, wire: &mut Wire, said: &Publish) -> anyhow::Result<()> {
        let Some((heard, done)) = self.device.hears(said.topic.as_str(), &said.payload) else {
            return Ok(());
        };
        self.board.note(self.line, |line| line.heard.push(heard));
        if let Some(topic) = done {
            publish(wire, &topic, b"")?;
        }
        Ok(())
    }
}

fn publish(wire: &mut Wire, topic: &str, payload: &[u8]) -> anyhow::Result<Option<PacketId>> {
    let outgoing =
        Outgoing { topic: topic.as_bytes(), qos: QoS::AtLeastOnce, payload, ..Outgoing::default() };
    Ok(wire.client.publish(&outgoing)?)
}
