//! Deliveries on their way to the client: the order, the window, the packet ids.
//!
//! # Invariants
//!
//! - At most `window` QoS 1 deliveries are in flight, each under its own packet id. Checked by `mqtt_session`.
//! - QoS 1 deliveries leave in the order they came; QoS 0 may overtake them while the window is full.
//! - What is dropped here (expired, too large) is settled, as if it had been delivered ([MQTT-3.1.2-25]).

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;
use moorline_core::{Delivery, Message, Offset, QoS, UnixMillis};

use crate::{
    Now,
    codec::{Outgoing, PacketId},
};

use super::{Config, Connection, Event, State, close::Ending};

/// How many packet ids there are: 1 to 65,535.
const PACKET_IDS: u64 = 65_535;
/// What a waiting delivery costs besides its message's bytes.
const DELIVERY_BYTES: usize = 128;

/// The packet id of a delivery: the same from every node, so that a resend is recognised without a replicated table.
#[must_use]
pub fn packet_id_of(offset: Offset) -> PacketId {
    let id = u16::try_from(offset.0 % PACKET_IDS + 1).expect("1 to 65,535");
    PacketId::new(id).expect("not 0")
}

/// Deliveries that wait or are in flight.
#[derive(Debug)]
pub(super) struct Outbound {
    window: usize,
    /// Most durable deliveries that may be here.
    credit: usize,
    /// QoS 1, in order.
    ordered: VecDeque<Waiting>,
    /// QoS 0.
    passing: VecDeque<Waiting>,
    arrivals: u64,
    live: usize,
    live_bytes: usize,
    live_max: usize,
    live_bytes_max: usize,
    /// Counts live QoS 1 deliveries as a queue would; the first gets packet id 1.
    next_live: Offset,
    /// By packet id; the offset if the delivery is a durable one.
    in_flight: BTreeMap<PacketId, Option<Offset>>,
    durable: usize,
    /// Waiting deliveries of a page of retained messages.
    paged: usize,
}

#[derive(Debug)]
struct Waiting {
    arrival: u64,
    delivery: Delivery,
    /// It came as a retained message, in a page of its own: no queue limit drops it.
    paged: bool,
}

impl Outbound {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            window: 0,
            credit: 0,
            ordered: VecDeque::new(),
            passing: VecDeque::new(),
            arrivals: 0,
            live: 0,
            live_bytes: 0,
            live_max: config.live_queue_max,
            live_bytes_max: config.live_queue_bytes_max,
            next_live: Offset(0),
            in_flight: BTreeMap::new(),
            durable: 0,
            paged: 0,
        }
    }

    pub(super) fn set_window(&mut self, window: usize, credit: u32) {
        self.window = window;
        self.credit = usize::try_from(credit).unwrap_or(usize::MAX);
    }

    pub(super) fn clear(&mut self) {
        self.ordered.clear();
        self.passing.clear();
        self.in_flight.clear();
        (self.live, self.live_bytes, self.durable, self.paged) = (0, 0, 0, 0);
    }

    /// Takes note that the client has a delivery; gives its offset if it is a durable one. `None` if nothing with this
    /// id is in flight.
    pub(super) fn acknowledge(&mut self, id: PacketId) -> Option<Option<Offset>> {
        let offset = self.in_flight.remove(&id)?;
        self.durable -= usize::from(offset.is_some());
        Some(offset)
    }

    pub(super) fn is_in_flight(&self, id: PacketId) -> bool {
        self.in_flight.contains_key(&id)
    }

    fn push(&mut self, delivery: Delivery) -> Pushed {
        if delivery.offset.is_some() {
            if self.durable == self.credit {
                return Pushed::Overrun;
            }
            self.durable += 1;
        } else {
            let bytes = bytes_of(&delivery.message);
            if self.live == self.live_max || self.live_bytes + bytes > self.live_bytes_max {
                return Pushed::QueueFull;
            }
            self.live += 1;
            self.live_bytes += bytes;
        }
        self.queue(delivery, false);
        Pushed::Queued
    }

    /// Takes a page of retained messages in: the service sends the next when it has left.
    fn push_page(&mut self, page: Vec<Delivery>) {
        self.paged += page.len();
        page.into_iter().for_each(|delivery| self.queue(delivery, true));
    }

    fn queue(&mut self, delivery: Delivery, paged: bool) {
        let arrival = self.arrivals;
        self.arrivals += 1;
        let queue = match delivery.qos {
            QoS::AtMostOnce => &mut self.passing,
            QoS::AtLeastOnce | QoS::ExactlyOnce => &mut self.ordered,
        };
        queue.push_back(Waiting { arrival, delivery, paged });
    }

    /// Takes the delivery that may leave next, with its packet id if it has QoS 1.
    fn pop(&mut self) -> Option<(Delivery, Option<PacketId>)> {
        let ordered = self.ordered.front().and_then(|waiting| {
            let id = packet_id_of(waiting.delivery.offset.unwrap_or(self.next_live));
            let free = self.in_flight.len() < self.window && !self.in_flight.contains_key(&id);
            free.then_some((waiting.arrival, id))
        });
        let passing = self.passing.front().map(|waiting| waiting.arrival);
        let (waiting, id) = match (ordered, passing) {
            (Some((ours, _)), Some(theirs)) if theirs < ours => (self.passing.pop_front()?, None),
            (Some((_, id)), _) => (self.ordered.pop_front()?, Some(id)),
            (None, Some(_)) => (self.passing.pop_front()?, None),
            (None, None) => return None,
        };
        if waiting.paged {
            self.paged -= 1;
        } else if waiting.delivery.offset.is_none() {
            self.live -= 1;
            self.live_bytes -= bytes_of(&waiting.delivery.message);
        }
        Some((waiting.delivery, id))
    }

    /// A delivery that was popped is with the client now, or on its way.
    fn sent(&mut self, delivery: &Delivery, id: PacketId) {
        if delivery.offset.is_none() {
            self.next_live = self.next_live.next();
        }
        let taken = self.in_flight.insert(id, delivery.offset);
        assert!(taken.is_none(), "packet id {id} is in flight twice");
    }
}

/// What became of a delivery that came.
enum Pushed {
    Queued,
    QueueFull,
    Overrun,
}

fn bytes_of(message: &Message) -> usize {
    DELIVERY_BYTES + message.topic.len() + message.properties.len() + message.payload.len()
}

impl Connection {
    pub(super) fn on_deliver(&mut self, now: Now, deliveries: Vec<Delivery>) {
        if self.state != State::Open {
            return;
        }
        for delivery in deliveries {
            match self.outbound.push(delivery) {
                Pushed::Queued => {}
                Pushed::QueueFull => self.counters.dropped_queue_full += 1,
                Pushed::Overrun => return self.fail(now, &Ending::OVERRUN),
            }
        }
    }

    pub(super) fn on_retained(&mut self, page: Vec<Delivery>) {
        if self.state == State::Open {
            self.outbound.push_page(page);
        }
    }

    pub(super) fn transmit_deliveries(&mut self, now: Now, output: &mut BytesMut) {
        while output.len() < self.config.output_bytes_max {
            let paged = self.outbound.paged;
            let Some((delivery, id)) = self.outbound.pop() else { break };
            if paged > 0 && self.outbound.paged == 0 {
                self.events.push_back(Event::RetainedTaken);
            }
            if self.transmit(now, &delivery, id, output) {
                self.counters.packets_sent += 1;
                self.counters.deliveries_resent += u64::from(delivery.resent && id.is_some());
                if let Some(id) = id {
                    self.counters.deliveries_sent[1] += 1;
                    self.outbound.sent(&delivery, id);
                    continue;
                }
                self.counters.deliveries_sent[0] += 1;
            }
            // Dropped, or QoS 0: nothing will acknowledge it.
            if let Some(offset) = delivery.offset {
                self.outbound.durable -= 1;
                self.settled.push(offset);
            }
        }
    }

    /// Encodes one delivery, if it may still be sent.
    fn transmit(
        &mut self,
        now: Now,
        delivery: &Delivery,
        id: Option<PacketId>,
        output: &mut BytesMut,
    ) -> bool {
        let message = &delivery.message;
        let expiry_s = match message.expires_at.map(|at| seconds_left(at, now.wall)) {
            Some(0) => {
                self.counters.expired += 1;
                return false;
            }
            left => left,
        };
        let version = self.peer.version;
        let outgoing = Outgoing {
            topic: message.topic.as_bytes(),
            qos: if id.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce },
            dup: delivery.resent && id.is_some(),
            retain: delivery.retain,
            id,
            expiry_s,
            alias: None,
            subscription_ids: delivery.ids.as_slice(),
            properties: &message.properties,
            payload: &message.payload,
        };
        let fits = outgoing.encoded_len(version).is_ok_and(|len| len <= self.peer.packet_max);
        if !fits || outgoing.encode(version, output).is_err() {
            self.counters.dropped_too_large += 1;
            return false;
        }
        true
    }
}

/// Whole seconds until `at`, rounded up, so that only what has expired has none.
fn seconds_left(at: UnixMillis, wall: UnixMillis) -> u32 {
    u32::try_from(at.0.saturating_sub(wall.0).div_ceil(1_000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_ids_follow_from_offsets() {
        for (offset, id) in [(0, 1), (1, 2), (65_533, 65_534), (65_534, 65_535), (65_535, 1)] {
            assert_eq!(packet_id_of(Offset(offset)).get(), id, "{offset}");
        }
        assert_eq!(packet_id_of(Offset(u64::MAX)).get(), 1);
    }

    #[test]
    fn seconds_round_up_and_end_at_zero() {
        for (at, wall, left) in
            [(10_000, 0, 10), (10_000, 1, 10), (10_000, 9_999, 1), (5, 5, 0), (5, 9, 0)]
        {
            assert_eq!(seconds_left(UnixMillis(at), UnixMillis(wall)), left, "{at} - {wall}");
        }
    }
}
