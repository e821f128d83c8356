//! Deliveries on their way to the client: the order, the window, the packet ids.
//!
//! # Invariants
//!
//! - At most `window` QoS 1 and 2 deliveries are in flight, each under its own packet id. Checked by `mqtt_session`.
//! - QoS 1 and 2 deliveries leave in the order they came; QoS 0 may overtake them while the window is full.
//! - No retained copy leaves behind a newer retained message of its topic that came here: those that QoS 0 would overtake
//!   are dropped. Checked by `session_deliver`.
//! - What is dropped here (expired, too large) is settled, as if it had been delivered ([MQTT-3.1.2-25]).

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;
use moorline_core::{Delivery, Message, Offset, QoS, ShareNumber, Text, UnixMillis};

use crate::{
    Now,
    codec::{Outgoing, PacketId, PacketType, Reason, put_ack},
};

use super::{
    Config, Connection, Event, Limit, State,
    aliases::{Aliases, Sent},
    close::Ending,
};

/// How many packet ids there are: 1 to 65,535.
const PACKET_IDS: u64 = 65_535;
/// How far from the ids of its own queue a session's shared deliveries begin to take theirs: more than are ever in flight.
const SHARED_IDS_AHEAD: u64 = PACKET_IDS / 2;
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
    /// QoS 1 and 2, in order.
    ordered: VecDeque<Waiting>,
    /// QoS 0.
    passing: VecDeque<Waiting>,
    arrivals: u64,
    live: usize,
    live_bytes: usize,
    live_max: usize,
    live_bytes_max: usize,
    /// Counts live QoS 1 and 2 deliveries as a queue would; the first gets packet id 1.
    next_live: Offset,
    in_flight: BTreeMap<PacketId, Flight>,
    durable: usize,
    /// Of the session's own queue: the first offset that has not left.
    next_queued: Offset,
    /// The end that queue had when the session was opened.
    queued_end: Offset,
    /// Items of shared subscriptions that are here.
    shared: usize,
    shared_max: usize,
    /// The packet id for the next of them follows from it, if that id is free.
    next_shared: Offset,
    /// Which items of shared subscriptions are in flight, beside their ids in `in_flight`.
    shared_in_flight: BTreeMap<PacketId, (ShareNumber, Offset)>,
    pub(super) aliases: Aliases,
    /// Waiting deliveries of a page of retained messages.
    paged: usize,
}

/// A delivery that the client has, or that is on its way to it.
#[derive(Debug, Clone, Copy)]
struct Flight {
    /// If the delivery is a durable one.
    offset: Option<Offset>,
    awaits: Awaits,
}

/// What a delivery in flight waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaits {
    /// The client's PUBACK (QoS 1).
    PubAck,
    /// The client's PUBREC (QoS 2).
    PubRec,
    /// The service: after it the PUBREL may go out.
    Release,
    /// The client's PUBCOMP.
    PubComp,
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
            next_queued: Offset(0),
            queued_end: Offset(0),
            shared: 0,
            shared_max: config.shared_max,
            next_shared: Offset(SHARED_IDS_AHEAD),
            shared_in_flight: BTreeMap::new(),
            aliases: Aliases::default(),
            paged: 0,
        }
    }

    /// What is in the session's own queue at the beginning: from `first` up to and without `end`.
    pub(super) fn set_queue(&mut self, first: Offset, end: Offset) {
        (self.next_queued, self.queued_end) = (first, end);
        self.next_shared = Offset(first.0.saturating_add(SHARED_IDS_AHEAD));
    }

    pub(super) fn set_window(&mut self, window: usize, credit: u32) {
        self.window = window;
        self.credit = usize::try_from(credit).unwrap_or(usize::MAX);
    }

    pub(super) fn clear(&mut self) {
        self.ordered.clear();
        self.passing.clear();
        self.in_flight.clear();
        self.shared_in_flight.clear();
        self.aliases.clear();
        (self.live, self.live_bytes, self.durable) = (0, 0, 0);
        (self.shared, self.paged) = (0, 0);
    }

    /// What the delivery with this packet id waits for, if one is in flight.
    pub(super) fn awaits(&self, id: PacketId) -> Option<Awaits> {
        self.in_flight.get(&id).map(|flight| flight.awaits)
    }

    /// Whether a delivery with this packet id that an earlier connection may have begun is still to leave.
    pub(super) fn is_queued(&self, id: PacketId) -> bool {
        let next = self.next_queued.0;
        let ahead = u64::from(id.get()) + PACKET_IDS - u64::from(packet_id_of(Offset(next)).get());
        next.saturating_add(ahead % PACKET_IDS) < self.queued_end.0
    }

    /// The client has a QoS 2 delivery: the offset to release if it is a durable one; others are released at once.
    pub(super) fn received(&mut self, id: PacketId) -> Option<Offset> {
        let flight = self.in_flight.get_mut(&id)?;
        flight.awaits = if flight.offset.is_some() { Awaits::Release } else { Awaits::PubComp };
        flight.offset
    }

    /// A delivery was released by the service; whether it waited for that.
    pub(super) fn released(&mut self, id: PacketId, offset: Offset) -> bool {
        match self.in_flight.get_mut(&id) {
            Some(flight) if flight.offset == Some(offset) && flight.awaits == Awaits::Release => {
                flight.awaits = Awaits::PubComp;
                true
            }
            Some(_) | None => false,
        }
    }

    /// The delivery with this packet id is over: the offset to settle if it is a durable one.
    pub(super) fn end(&mut self, id: PacketId) -> Option<Offset> {
        let offset = self.in_flight.remove(&id)?.offset;
        self.durable -= usize::from(offset.is_some());
        offset
    }

    /// The item that was in flight under an id that was just acknowledged, if a shared subscription lent it.
    pub(super) fn acknowledge_shared(&mut self, id: PacketId) -> Option<(ShareNumber, Offset)> {
        let item = self.shared_in_flight.remove(&id)?;
        self.shared -= 1;
        Some(item)
    }

    fn push(&mut self, delivery: Delivery) -> Pushed {
        if lent(&delivery).is_some() {
            if self.shared == self.shared_max {
                return Pushed::Overrun;
            }
            self.shared += 1;
        } else if delivery.offset.is_some() {
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
            if delivery.qos == QoS::AtMostOnce && delivery.message.retain {
                self.drop_copies(&delivery.message.topic);
            }
        }
        self.queue(delivery, false);
        Pushed::Queued
    }

    /// Takes a page of retained messages in: the service sends the next when it has left.
    fn push_page(&mut self, page: Vec<Delivery>) {
        self.paged += page.len();
        page.into_iter().for_each(|delivery| self.queue(delivery, true));
    }

    /// Drops the copies of a topic that wait in a page: at most one page is here.
    fn drop_copies(&mut self, topic: &Text) {
        if self.paged > 0 {
            let before = self.ordered.len();
            self.ordered.retain(|one| !(one.paged && one.delivery.message.topic == *topic));
            self.paged -= before - self.ordered.len();
        }
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

    /// Takes the delivery that may leave next, with its packet id if it has QoS 1 or 2.
    fn pop(&mut self) -> Option<(Delivery, Option<PacketId>)> {
        let ordered = self.ordered.front().and_then(|waiting| {
            let id = match lent(&waiting.delivery) {
                Some(_) => self.free_id(),
                None => packet_id_of(waiting.delivery.offset.unwrap_or(self.next_live)),
            };
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
        } else if let (Some(offset), None) = (waiting.delivery.offset, waiting.delivery.share) {
            self.next_queued = offset.next();
        }
        Some((waiting.delivery, id))
    }

    /// An id that is not in flight, if one of the next `window` is free, as one is while less than that is in flight.
    fn free_id(&self) -> PacketId {
        let candidates = (0..=self.window as u64).map(|ahead| self.next_shared.0 + ahead);
        let mut ids = candidates.map(|offset| packet_id_of(Offset(offset)));
        ids.find(|id| !self.in_flight.contains_key(id)).unwrap_or(packet_id_of(self.next_shared))
    }

    /// A delivery that was popped is with the client now, or on its way.
    fn sent(&mut self, delivery: &Delivery, id: PacketId) {
        if let Some(item) = lent(delivery) {
            self.next_shared = self.next_shared.next();
            let taken = self.in_flight.insert(id, Flight { offset: None, awaits: Awaits::PubAck });
            assert!(taken.is_none(), "packet id {id} is in flight twice");
            self.shared_in_flight.insert(id, item);
            return;
        }
        if delivery.offset.is_none() {
            self.next_live = self.next_live.next();
        }
        let awaits = match delivery.qos {
            QoS::ExactlyOnce if delivery.released => Awaits::PubComp,
            QoS::ExactlyOnce => Awaits::PubRec,
            QoS::AtLeastOnce | QoS::AtMostOnce => Awaits::PubAck,
        };
        let taken = self.in_flight.insert(id, Flight { offset: delivery.offset, awaits });
        assert!(taken.is_none(), "packet id {id} is in flight twice");
    }
}

/// What a shared subscription lent with a delivery, if one did.
fn lent(delivery: &Delivery) -> Option<(ShareNumber, Offset)> {
    delivery.share.zip(delivery.offset)
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
        let paged = self.outbound.paged;
        for delivery in deliveries {
            match self.outbound.push(delivery) {
                Pushed::Queued => {}
                Pushed::QueueFull => {
                    self.counters.dropped_queue_full += 1;
                    self.reached(Limit::LiveQueue);
                }
                Pushed::Overrun => return self.fail(now, &Ending::OVERRUN),
            }
        }
        self.note_taken(paged);
    }

    pub(super) fn on_retained(&mut self, page: Vec<Delivery>) {
        if self.state == State::Open {
            self.outbound.push_page(page);
        }
    }

    /// Asks for the next page if the last of `paged` copies is gone now.
    fn note_taken(&mut self, paged: usize) {
        if paged > 0 && self.outbound.paged == 0 {
            self.events.push_back(Event::RetainedTaken);
        }
    }

    pub(super) fn transmit_deliveries(&mut self, now: Now, output: &mut BytesMut) {
        while output.len() < self.config.output_bytes_max {
            let paged = self.outbound.paged;
            let Some((delivery, id)) = self.outbound.pop() else { break };
            if let Some(id) = id.filter(|_| delivery.released) {
                // The client has the message, by an earlier connection.
                put_ack(PacketType::PubRel, id, Reason::Success, self.peer.version, output);
                self.counters.packets_sent += 1;
                self.outbound.sent(&delivery, id);
                continue;
            }
            self.note_taken(paged);
            if self.transmit(now, &delivery, id, output) {
                self.counters.packets_sent += 1;
                self.counters.deliveries_resent += u64::from(delivery.resent && id.is_some());
                self.counters.deliveries_sent[delivery.qos as usize] += 1;
                if let Some(id) = id {
                    self.outbound.sent(&delivery, id);
                    continue;
                }
            }
            // Dropped, or QoS 0: nothing will acknowledge it.
            if let Some(item) = lent(&delivery) {
                self.outbound.shared -= 1;
                self.settled_shared.push(item);
            } else if let Some(offset) = delivery.offset {
                self.outbound.durable -= 1;
                self.settled.push(offset);
            }
        }
    }

    /// What waits goes out before the end that follows, as far as the output has room.
    pub(super) fn say_what_waits(&mut self, now: Now) {
        if self.state == State::Open {
            let mut control = std::mem::take(&mut self.control);
            self.transmit_deliveries(now, &mut control);
            self.control = control;
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
        // The client may have it already, and would take whatever comes next under its packet id for it.
        let begun = delivery.qos == QoS::ExactlyOnce && delivery.resent;
        let expiry_s = match message.expires_at.map(|at| seconds_left(at, now.wall)) {
            Some(0) if !begun => {
                self.counters.expired += 1;
                return false;
            }
            left => left,
        };
        let version = self.peer.version;
        let sent = self.outbound.aliases.of(&message.topic);
        let (topic, alias) = match sent {
            Sent::Plain => (message.topic.as_bytes(), None),
            Sent::Named(alias) => (message.topic.as_bytes(), Some(alias)),
            Sent::Alias(alias) => (&[][..], Some(alias)),
        };
        let mut outgoing = Outgoing {
            topic,
            qos: delivery.qos,
            dup: delivery.resent && id.is_some(),
            retain: delivery.retain,
            id,
            expiry_s,
            alias,
            subscription_ids: delivery.ids.as_slice(),
            properties: &message.properties,
            payload: &message.payload,
        };
        let packet_max = self.peer.packet_max;
        let fits = |of: &Outgoing<'_>| of.encoded_len(version).is_ok_and(|len| len <= packet_max);
        if matches!(sent, Sent::Named(_)) && !fits(&outgoing) {
            // A new alias is no reason to drop anything.
            outgoing.alias = None;
        }
        if !fits(&outgoing) || outgoing.encode(version, output).is_err() {
            self.counters.dropped_too_large += 1;
            return false;
        }
        if let (Sent::Named(alias), Some(_)) = (sent, outgoing.alias) {
            self.outbound.aliases.keep(&message.topic, alias);
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
