//! One durable session and the connections that take it over from each other, each with a real client at its other end.
//!
//! Input: a list of operations. A client opens, publishes into the session's own queue, acknowledges in any order, and
//! breaks; bytes on their way are lost with their connection. What must hold whatever happens:
//!
//! - a client's publishes reach the queue in their order, and only those get a PUBACK;
//! - an offset has the same packet id on every connection, and DUP exactly if it may have been offered before;
//! - on each connection offsets come in order, and never more at once than the client's window;
//! - only what a client has acknowledged is settled, at most once on each connection;
//! - a connection that lost the session delivers nothing more;
//! - the last client gets everything that is not settled, and then the queue is empty.
#![no_main]

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use moorline_core::{
    Delivery, Message, Offset, QoS, Text, UnixMillis,
    port::{Notice, Opened, Published},
};
use moorline_mqtt::{
    Millis, Now, PacketId, Version,
    client::{self, Client, Options},
    codec::{ConnectProperties, Outgoing},
    server::{Config, Connection, Event, packet_id_of},
};

type Input<'a, 'b> = &'a mut Unstructured<'b>;
type Drawn<T> = libfuzzer_sys::arbitrary::Result<T>;

/// Operations of one run: enough to fill every window several times.
const OPERATIONS_MAX: usize = 300;
/// Connections that are alive at once: the holder of the session and those it was taken from.
const SEATS_MAX: usize = 3;
const NOW: Now = Now { at: Millis(0), wall: UnixMillis(1_000_000) };

/// A connection with its client.
struct Seat {
    connection: Connection,
    client: Client,
    to_server: BytesMut,
    to_client: BytesMut,
    window: usize,
    credit: usize,
    /// The next offset to push.
    next: u64,
    /// What was pushed, and whether it may have been offered before.
    pushed: BTreeMap<u64, bool>,
    /// With the client, unacknowledged.
    held: Vec<(PacketId, u64)>,
    acknowledged: BTreeSet<u64>,
    settled: BTreeSet<u64>,
    last_seen: u64,
    /// The number of the client's last publish that reached the queue.
    last_queued: u64,
    /// Publishes in the queue whose PUBACK has not come.
    owed: usize,
    is_holder: bool,
}

impl Seat {
    fn new(version: Version, window: u16) -> Self {
        let config = Config {
            receive_max: NonZeroU16::new(3).expect("not 0"),
            inflight_max: NonZeroU16::new(4).expect("not 0"),
            prefetch_max: 2,
            output_bytes_max: 100,
            ..Config::default()
        };
        let v5 = version.is_v5();
        let options = Options {
            version,
            client_id: Text::from("c"),
            clean_start: false,
            keep_alive_s: 0,
            properties: ConnectProperties {
                receive_max: NonZeroU16::new(window).filter(|_| v5),
                session_expiry_s: v5.then_some(60),
                ..ConnectProperties::default()
            },
            auto_ack: false,
            ..Options::default()
        };
        Self {
            connection: Connection::new(Arc::new(config), NOW, Text::from("spare")),
            client: Client::new(options, NOW.at).expect("it has a form"),
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
            window: if v5 { usize::from(window.min(4)) } else { 4 },
            credit: 0,
            next: 0,
            pushed: BTreeMap::new(),
            held: Vec::new(),
            acknowledged: BTreeSet::new(),
            settled: BTreeSet::new(),
            last_seen: 0,
            last_queued: 0,
            owed: 0,
            is_holder: false,
        }
    }

    /// What the client makes of what it was sent.
    fn read(&mut self) {
        self.client.receive(NOW.at, &mut self.to_client).expect("a server speaks well");
        while let Some(event) = self.client.poll_event() {
            match event {
                client::Event::Message(publish) => {
                    let offset = publish.payload.first_chunk().map(|raw| u64::from_be_bytes(*raw));
                    let offset = offset.expect("eight bytes");
                    let id = publish.id.expect("QoS 1");
                    assert_eq!(id, packet_id_of(Offset(offset)));
                    assert!(offset > self.last_seen, "{offset} after {}", self.last_seen);
                    assert_eq!(publish.dup, self.pushed[&offset], "DUP of {offset}");
                    self.last_seen = offset;
                    self.held.push((id, offset));
                    assert!(self.held.len() <= self.window, "over the receive maximum");
                }
                client::Event::Published { .. } => {
                    self.owed = self.owed.checked_sub(1).expect("a PUBACK for what is queued");
                }
                client::Event::Connected(_) | client::Event::Disconnected(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn acknowledge(&mut self, at: usize) {
        let (id, offset) = self.held.remove(at);
        self.acknowledged.insert(offset);
        self.client.acknowledge(id);
    }

    /// Sends the next publish, with its number in the payload.
    fn publish(&mut self, number: u64) {
        let payload = number.to_be_bytes();
        let outgoing = Outgoing {
            topic: b"t",
            qos: QoS::AtLeastOnce,
            payload: &payload,
            ..Outgoing::default()
        };
        // Refused while not connected, over, or with a full window.
        self.client.publish(&outgoing).ok();
    }
}

/// The service: one queue, and who holds it.
#[derive(Default)]
struct World {
    /// How many messages were queued; the first has offset 1.
    queued: u64,
    /// Offsets that some connection was given.
    offered: BTreeSet<u64>,
    settled: BTreeSet<u64>,
    seats: Vec<Seat>,
    numbers: u64,
}

impl World {
    fn open(&mut self, version: Version, window: u16) {
        self.seats.push(Seat::new(version, window));
        if self.seats.len() > SEATS_MAX {
            self.seats.remove(0);
        }
        self.turn(self.seats.len() - 1, true, true);
    }

    /// Carries bytes one round; either direction may stand still.
    fn turn(&mut self, at: usize, to_server: bool, to_client: bool) {
        let seat = &mut self.seats[at];
        if to_server {
            let said = seat.client.output().split();
            seat.to_server.unsplit(said);
        }
        seat.connection.receive(NOW, &mut seat.to_server);
        while let Some(event) = self.seats[at].connection.poll_event() {
            self.on_event(at, event);
        }
        self.push(at);
        let seat = &mut self.seats[at];
        seat.connection.poll_transmit(NOW, &mut seat.to_client);
        let counters = seat.connection.take_counters();
        assert!(
            seat.is_holder || counters.deliveries_sent == [0; 3],
            "delivered without the session"
        );
        if to_client {
            seat.read();
        }
    }

    fn on_event(&mut self, at: usize, event: Event) {
        match event {
            Event::Connect(request) => self.take_over(at, request.credit),
            Event::Publish { token, message } => {
                let number = message.payload.first_chunk().map(|raw| u64::from_be_bytes(*raw));
                let number = number.expect("eight bytes");
                let seat = &mut self.seats[at];
                assert!(number > seat.last_queued, "{number} after {}", seat.last_queued);
                seat.last_queued = number;
                seat.owed += 1;
                self.queued += 1;
                let outcome = Ok(Published { matched: true });
                seat.connection.notice(NOW, Notice::Published { token, outcome });
            }
            Event::Settled(offsets) => {
                let seat = &mut self.seats[at];
                for Offset(offset) in offsets {
                    assert!(seat.acknowledged.contains(&offset), "{offset} settled early");
                    assert!(seat.settled.insert(offset), "{offset} settled twice");
                    self.settled.insert(offset);
                }
            }
            Event::Closed(_) => self.seats[at].is_holder = false,
            Event::Subscribe { .. }
            | Event::Unsubscribe { .. }
            | Event::PublishOnce { .. }
            | Event::Complete(_)
            | Event::Release(_)
            | Event::RetainedTaken
            | Event::SettledShared(_) => panic!("{event:?}"),
        }
    }

    fn take_over(&mut self, at: usize, credit: u32) {
        for other in self.seats.iter_mut().filter(|seat| seat.is_holder) {
            other.is_holder = false;
            other.connection.notice(NOW, Notice::TakenOver);
        }
        let first = (1..).find(|offset| !self.settled.contains(offset)).expect("endless");
        let seat = &mut self.seats[at];
        seat.is_holder = true;
        seat.credit = usize::try_from(credit).expect("small");
        seat.next = first;
        let opened = Opened { present: true, first: Offset(first), end: Offset(self.queued + 1) };
        seat.connection.notice(NOW, Notice::Opened(Ok(opened)));
    }

    /// Gives the holder what its credit allows.
    fn push(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        let mut deliveries = Vec::new();
        while seat.is_holder && seat.next <= self.queued {
            let offset = seat.next;
            if self.settled.contains(&offset) {
                seat.next += 1;
                continue;
            }
            if seat.pushed.len() - seat.settled.len() == seat.credit {
                break;
            }
            let resent = !self.offered.insert(offset);
            seat.pushed.insert(offset, resent);
            seat.next += 1;
            deliveries.push(delivery(offset, resent));
        }
        if !deliveries.is_empty() {
            seat.connection.notice(NOW, Notice::Deliver(deliveries));
        }
    }

    fn step(&mut self, u: Input<'_, '_>) -> Drawn<()> {
        if self.seats.is_empty() || u.ratio(1, 16)? {
            let version = *u.choose(&[Version::V31, Version::V311, Version::V5, Version::V5])?;
            self.open(version, u.int_in_range(1..=6)?);
            return Ok(());
        }
        let at = u.int_in_range(0..=self.seats.len() - 1)?;
        let seat = &mut self.seats[at];
        match u.int_in_range(0..=7)? {
            0..=2 => {
                self.numbers += 1;
                seat.publish(self.numbers);
            }
            3 | 4 if !seat.held.is_empty() => {
                let held = u.int_in_range(0..=seat.held.len() - 1)?;
                seat.acknowledge(held);
            }
            5 if u.ratio(1, 4)? => seat.client.disconnect(),
            6 if u.ratio(1, 4)? => seat.connection.peer_gone(NOW),
            _ => {}
        }
        self.turn(at, u.ratio(3, 4)?, u.ratio(3, 4)?);
        Ok(())
    }

    /// A last client takes everything, without a pause.
    fn drain(mut self) {
        self.open(Version::V5, 2);
        let at = self.seats.len() - 1;
        for _ in 0..=2 * self.queued {
            self.turn(at, true, true);
            while !self.seats[at].held.is_empty() {
                self.seats[at].acknowledge(0);
            }
        }
        self.turn(at, true, true);
        assert!(!self.seats[at].connection.is_closed());
        let all: BTreeSet<u64> = (1..=self.queued).collect();
        assert_eq!(self.settled, all, "something is stuck");
    }
}

fn delivery(offset: u64, resent: bool) -> Delivery {
    let message = Message {
        topic: Text::from("t"),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Bytes::new(),
        expires_at: None,
        payload: Bytes::copy_from_slice(&offset.to_be_bytes()),
    };
    Delivery { resent, ..Delivery::new(Some(Offset(offset)), QoS::AtLeastOnce, Arc::new(message)) }
}

fuzz_target!(|data: &[u8]| {
    let mut u = Unstructured::new(data);
    let mut world = World::default();
    // Running out of input ends a run early; that is no finding.
    for _ in 0..OPERATIONS_MAX {
        if u.is_empty() || world.step(&mut u).is_err() {
            break;
        }
    }
    world.drain();
});
