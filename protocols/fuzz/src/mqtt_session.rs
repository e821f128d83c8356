//! A server connection between a client and a service that do anything in any order.
//!
//! Input: a list of operations. What must hold whatever they are:
//!
//! - never more unacknowledged deliveries than the client's Receive Maximum, all with different packet ids;
//! - durable deliveries leave in the order of their offsets, under the packet ids of their offsets, and each is settled
//!   at most once and only after it was acknowledged;
//! - PUBACKs and PUBRECs come in the order of the PUBLISHes, each after the service has answered; one for a publish that
//!   the service refused says so, and before MQTT 5 there is none but for a full queue (docs/decisions/009);
//! - QoS 2: a PUBREL only after the service has released a delivery, and never a PUBLISH after it; a PUBCOMP only after
//!   it has freed the packet id;
//! - a PUBREC of what an earlier connection may have sent is not answered while its PUBLISH may still go out again;
//! - exactly one `Closed`, and nothing after it.
#![no_main]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroU16,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use moorline_core::{
    Delivery, Message, Offset, QoS, Text, UnixMillis,
    port::{Notice, Opened, Published, Refusal, Token},
};
use moorline_mqtt::{
    Millis, Now, Packet, PacketId, Reason, Version,
    codec::{
        Ack, Connect, ConnectProperties, Decoder, Limits, Outgoing, RetainHandling, Subscribe,
        SubscribeFilter, encode,
    },
    server::{Config, Connection, Event, packet_id_of},
};

type Input<'a, 'b> = &'a mut Unstructured<'b>;
type Drawn<T> = libfuzzer_sys::arbitrary::Result<T>;

/// Operations of one run: enough to fill every window.
const OPERATIONS_MAX: usize = 400;
const RECEIVE_MAX: u16 = 4;
const CREDIT: u64 = 4 + 3;
/// Deliveries that a resumed session has queued: one for each packet id.
const QUEUED: u64 = 65_535;

/// A delivery in the client's hands.
#[derive(Debug, Clone, Copy)]
struct Held {
    offset: Option<Offset>,
    stage: Stage,
}

/// What the client has to say next of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    PubAck,
    PubRec,
    /// Nothing: it waits for the PUBREL.
    Waits,
    PubComp,
}

struct World {
    connection: Connection,
    version: Version,
    now: Now,
    input: BytesMut,
    output: BytesMut,
    client: Decoder,
    /// Deliveries the client has and has not acknowledged.
    held: BTreeMap<PacketId, Held>,
    window: usize,
    /// Publishes handed out, in order, with their packet id and the service's answer.
    publishes: VecDeque<(Token, PacketId, Option<Result<(), Refusal>>)>,
    /// Those of QoS 2 among them.
    once: BTreeSet<Token>,
    /// Packet ids that ever had a PUBREC of success: only those may have another, for a repeat.
    received: BTreeSet<PacketId>,
    /// PUBRELs that the service has and has not answered, and those that it has.
    completing: VecDeque<PacketId>,
    completed: Vec<PacketId>,
    /// Deliveries to release, and those that are.
    releasing: VecDeque<Vec<Offset>>,
    released: BTreeSet<Offset>,
    /// Deliveries of which only the release goes out.
    arrived: BTreeMap<PacketId, Offset>,
    requests: Vec<(Token, usize, bool)>,
    next_offset: u64,
    last_delivered: u64,
    acknowledged: BTreeSet<Offset>,
    settled: BTreeSet<Offset>,
    closed: bool,
    /// The session goes on from an earlier connection.
    resumed: bool,
    /// The end of its queue when it was opened.
    queue_end: Offset,
    /// Packet ids whose PUBREC came before the delivery that it is about.
    unanswered: BTreeSet<PacketId>,
    /// The client sent raw bytes or acknowledged nothing, so what the model believes of it is no longer sure.
    raw: bool,
}

impl World {
    fn new(u: Input<'_, '_>) -> Drawn<Self> {
        let version = *u.choose(&[Version::V31, Version::V311, Version::V5])?;
        let config = Config {
            receive_max: NonZeroU16::new(3).expect("not 0"),
            inflight_max: NonZeroU16::new(RECEIVE_MAX).expect("not 0"),
            prefetch_max: 3,
            live_queue_max: 5,
            output_bytes_max: 200,
            requests_max: 2,
            topic_alias_max: 2,
            ..Config::default()
        };
        let now = Now { at: Millis(0), wall: UnixMillis(1_000_000) };
        let window = if version.is_v5() { u.int_in_range(1..=6)? } else { 6u16 };
        let properties = ConnectProperties {
            receive_max: version.is_v5().then(|| NonZeroU16::new(window)).flatten(),
            session_expiry_s: version.is_v5().then_some(u32::from(u.arbitrary::<u8>()?)),
            ..ConnectProperties::default()
        };
        let next_offset = u64::from(u.arbitrary::<u32>()?) + 1;
        let mut world = Self {
            connection: Connection::new(Arc::new(config), now, Text::from("spare")),
            version,
            now,
            input: BytesMut::new(),
            output: BytesMut::new(),
            client: Decoder::client(version, Limits { packet_bytes: 1 << 20, ..Limits::default() }),
            held: BTreeMap::new(),
            window: usize::from(window.min(RECEIVE_MAX)),
            publishes: VecDeque::new(),
            once: BTreeSet::new(),
            received: BTreeSet::new(),
            completing: VecDeque::new(),
            completed: Vec::new(),
            releasing: VecDeque::new(),
            released: BTreeSet::new(),
            arrived: BTreeMap::new(),
            requests: Vec::new(),
            next_offset,
            last_delivered: 0,
            acknowledged: BTreeSet::new(),
            settled: BTreeSet::new(),
            closed: false,
            resumed: u.arbitrary()?,
            queue_end: Offset(next_offset + QUEUED),
            unanswered: BTreeSet::new(),
            raw: false,
        };
        let connect = Connect {
            version,
            clean_start: u.arbitrary()?,
            keep_alive_s: u16::from(u.arbitrary::<u8>()?),
            client_id: Text::from("c"),
            will: None,
            username: None,
            password: None,
            properties,
        };
        world.say(&Packet::Connect(Box::new(connect)));
        Ok(world)
    }

    fn say(&mut self, packet: &Packet) {
        encode(packet, self.version, &mut self.input).expect("it has a form");
    }

    fn notice(&mut self, notice: Notice) {
        self.connection.notice(self.now, notice);
    }

    /// One round of the edge, with a client that reads.
    fn turn(&mut self, reads: bool) {
        self.connection.receive(self.now, &mut self.input);
        while let Some(event) = self.connection.poll_event() {
            self.on_event(event);
        }
        self.connection.poll_transmit(self.now, &mut self.output);
        if !reads {
            return;
        }
        while let Some(packet) = self.client.decode(&mut self.output).expect("a server speaks well")
        {
            self.on_packet(packet);
        }
        assert!(self.output.is_empty(), "half a packet was written");
    }

    fn on_event(&mut self, event: Event) {
        assert!(!self.closed, "{event:?} after the end");
        match event {
            Event::Connect(_) => {
                let (present, first) = (self.resumed, Offset(self.next_offset));
                let opened = Opened { present, first, end: self.queue_end };
                self.notice(Notice::Opened(Ok(opened)));
            }
            Event::Publish { token, message } => {
                assert_ne!(message.qos, QoS::ExactlyOnce);
                if message.qos == QoS::AtLeastOnce {
                    // The client writes the packet id into the payload.
                    let id = message.payload.get(..2).map(|id| u16::from_be_bytes([id[0], id[1]]));
                    let id = id.and_then(PacketId::new).unwrap_or(PacketId::MIN);
                    self.publishes.push_back((token, id, None));
                }
            }
            Event::PublishOnce { token, packet, message } => {
                assert_eq!(message.qos, QoS::ExactlyOnce);
                self.once.insert(token);
                self.publishes.push_back((token, packet, None));
            }
            Event::Complete(id) => self.completing.push_back(id),
            Event::Release(offsets) => {
                assert!(!offsets.is_empty());
                self.releasing.push_back(offsets);
            }
            Event::Subscribe { token, filters, .. } => self.requests.push((token, filters.len(), true)),
            Event::Unsubscribe { token, filters } => {
                self.requests.push((token, filters.len(), false));
            }
            Event::Settled(offsets) => {
                for offset in offsets {
                    assert!(self.settled.insert(offset), "{offset} settled twice");
                    assert!(
                        self.raw || self.acknowledged.contains(&offset),
                        "{offset} settled early"
                    );
                }
            }
            Event::RetainedTaken | Event::SettledShared(_) => panic!("{event:?} for nothing"),
            Event::Closed(_) => self.closed = true,
        }
    }

    fn on_packet(&mut self, packet: Packet) {
        match packet {
            Packet::Publish(publish) => {
                let Some(id) = publish.id else { return };
                let offset =
                    publish.payload.first_chunk().map(|&raw| Offset(u64::from_be_bytes(raw)));
                let offset = offset.filter(|offset| offset.0 > 0);
                if let Some(offset) = offset {
                    assert_eq!(packet_id_of(offset), id);
                    assert!(offset.0 > self.last_delivered, "out of order");
                    self.last_delivered = offset.0;
                }
                let arrived = self.arrived.get(&id).copied();
                assert!(offset.is_none() || offset != arrived, "a PUBLISH that arrived long ago");
                let once = publish.qos == QoS::ExactlyOnce;
                self.hold(
                    id,
                    Held { offset, stage: if once { Stage::PubRec } else { Stage::PubAck } },
                );
            }
            Packet::PubRel(ack) if ack.reason == Reason::Success => self.on_pubrel(ack.id),
            Packet::PubAck(ack) if !self.raw => self.on_answer(&ack),
            Packet::PubRec(ack) if !self.raw => {
                let again = self.received.contains(&ack.id) && !ack.reason.is_error();
                let turn = self.publishes.front().is_some_and(|(token, id, answer)| {
                    let refused = answer.is_some_and(|answer| answer.is_err());
                    *id == ack.id
                        && self.once.contains(token)
                        && answer.is_some()
                        && (refused && self.version.is_v5()) == ack.reason.is_error()
                });
                assert!(turn || again, "a PUBREC out of turn");
                if turn {
                    self.on_answer(&ack);
                }
                if !ack.reason.is_error() {
                    self.received.insert(ack.id);
                }
            }
            Packet::PubComp(ack) if !self.raw && ack.reason == Reason::Success => {
                let known = self.completed.iter().position(|id| *id == ack.id);
                // One for nothing that is under way is answered at once.
                assert!(
                    known.is_some() || !self.completing.contains(&ack.id),
                    "a PUBCOMP too early"
                );
                if let Some(at) = known {
                    self.completed.remove(at);
                }
            }
            _ => {}
        }
    }

    fn hold(&mut self, id: PacketId, held: Held) {
        self.unanswered.remove(&id);
        let before = self.held.insert(id, held);
        assert!(self.raw || before.is_none(), "packet id {id} is used twice");
        assert!(self.raw || self.held.len() <= self.window, "over the receive maximum");
    }

    fn on_answer(&mut self, ack: &Ack) {
        let (_, id, answer) = self.publishes.pop_front().expect("an answer to nothing");
        assert_eq!(ack.id, id, "an answer out of turn");
        let answer = answer.expect("an answer before the service's");
        let v5 = self.version.is_v5();
        assert_eq!(answer.is_err() && v5, ack.reason.is_error());
        assert!(matches!(answer, Ok(()) | Err(Refusal::Quota)) || v5, "a false answer");
    }

    fn on_pubrel(&mut self, id: PacketId) {
        if !self.held.contains_key(&id)
            && let Some(offset) = self.arrived.remove(&id)
        {
            return self.hold(id, Held { offset: Some(offset), stage: Stage::PubComp });
        }
        assert!(self.raw || !self.unanswered.contains(&id), "a PUBREL before its PUBLISH");
        if let Some(held) = self.held.get_mut(&id)
            && held.stage != Stage::PubAck
        {
            let released = held.offset.is_none_or(|offset| self.released.contains(&offset));
            assert!(self.raw || released, "a PUBREL too early");
            assert!(self.raw || held.stage != Stage::PubRec, "a PUBREL before the PUBREC");
            held.stage = Stage::PubComp;
        }
    }

    fn step(&mut self, u: Input<'_, '_>) -> Drawn<()> {
        match u.int_in_range(0..=17)? {
            0 | 1 => self.publish(u)?,
            2 => self.subscribe(u)?,
            3 | 4 => self.acknowledge(u)?,
            5 | 6 => self.answer_publish(u)?,
            7 => self.answer_request(u)?,
            8 | 9 => self.deliver_durable(u)?,
            10 => self.deliver_live(u)?,
            11 => self.wait(u)?,
            12 => {
                let packet = match u.int_in_range(0..=3)? {
                    0 => Packet::PingReq,
                    1 => Packet::PubRel(Ack::new(self.any_id(u)?, Reason::Success)),
                    2 => {
                        let id = self.any_id(u)?;
                        if self.arrived.contains_key(&id) {
                            // Before MQTT 5 its answer looks like the release that is on its way.
                            return Ok(());
                        }
                        if self.has_queued(id) {
                            self.unanswered.insert(id);
                        } else {
                            // Its answer looks like the release of whatever comes under this id next.
                            self.raw = true;
                        }
                        Packet::PubRec(Ack::new(id, Reason::Success))
                    }
                    _ => {
                        // It may meet a release that is on its way.
                        self.raw = true;
                        Packet::PubComp(Ack::new(self.any_id(u)?, Reason::Success))
                    }
                };
                self.say(&packet);
            }
            13 => {
                self.raw = true;
                let len = u.int_in_range(0..=20)?;
                self.input.extend_from_slice(u.bytes(len)?);
            }
            14 => self.turn(false),
            15 => self.release(u)?,
            16 => self.answer_once(u)?,
            _ => self.end(u)?,
        }
        let reads = u.ratio(7, 8)?;
        self.turn(reads);
        Ok(())
    }

    /// Whether a delivery that was queued at the beginning has this packet id and is certainly still to leave.
    fn has_queued(&self, id: PacketId) -> bool {
        let nothing_on_its_way = self.input.is_empty() && self.output.is_empty();
        let takes_it = nothing_on_its_way && self.connection.wants_read();
        // Everything that left had one of the offsets that were pushed.
        let mut to_come = self.next_offset + 1..self.queue_end.0;
        let is_new = !self.held.contains_key(&id) && !self.connection.is_closed();
        self.resumed && is_new && takes_it && to_come.any(|it| packet_id_of(Offset(it)) == id)
    }

    fn any_id(&self, u: Input<'_, '_>) -> Drawn<PacketId> {
        Ok(PacketId::new(u.int_in_range(1..=9)?).expect("not 0"))
    }

    fn publish(&mut self, u: Input<'_, '_>) -> Drawn<()> {
        let qos = *u.choose(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])?;
        let id = self.any_id(u)?;
        let body = [&id.get().to_be_bytes()[..], &[0; 8][..u.int_in_range(0..=8)?]].concat();
        let outgoing = Outgoing {
            topic: u.choose(&["a", "a/b", "$x"])?.as_bytes(),
            qos,
            dup: qos != QoS::AtMostOnce && u.ratio(1, 4)?,
            id: (qos != QoS::AtMostOnce).then_some(id),
            expiry_s: u.arbitrary()?,
            payload: &body,
            ..Outgoing::default()
        };
        outgoing.encode(self.version, &mut self.input).expect("it has a form");
        Ok(())
    }

    fn subscribe(&mut self, u: Input<'_, '_>) -> Drawn<()> {
        let filters = ["a", "a/#", "a#", "+/b"].into_iter().take(u.int_in_range(1..=4)?);
        let filters = filters.map(|filter| SubscribeFilter {
            filter: Text::from(filter),
            qos: QoS::ExactlyOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Always,
        });
        let filters = filters.collect();
        let id = self.any_id(u)?;
        self.say(&Packet::Subscribe(Subscribe {
            id,
            subscription_id: None,
            user: Vec::new(),
            filters,
        }));
        Ok(())
    }

    fn acknowledge(&mut self, u: Input<'_, '_>) -> Drawn<()> {
        let ids: Vec<_> = self.held.keys().copied().collect();
        let id = if !ids.is_empty() && u.ratio(7, 8)? {
            *u.choose(&ids)?
        } else if self.output.is_empty() && self.input.is_empty() && self.connection.wants_read() {
            self.any_id(u)?
        } else {
            // It could meet a delivery that is on its way, which no client can know of.
            return Ok(());
        };
        let Some(held) = self.held.get_mut(&id) else {
            self.say(&Packet::PubAck(Ack::new(id, Reason::Success)));
            return Ok(());
        };
        let refuses = self.version.is_v5() && u.ratio(1, 8)?;
        let reason = if refuses { Reason::UnspecifiedError } else { Reason::Success };
        let stage = held.stage;
        // What stands before it in the input may keep it waiting; the client has let go of it all the same.
        if stage == Stage::PubRec && !refuses {
            held.stage = Stage::Waits;
        } else if stage != Stage::Waits {
            self.acknowledged.extend(held.offset);
            self.held.remove(&id);
        }
        match stage {
            Stage::PubAck => self.say(&Packet::PubAck(Ack::new(id, reason))),
            // Now and then once more.
            Stage::PubRec | Stage::Waits => {
                let reason = if stage == Stage::Waits { Reason::Success } else { reason };
                self.say(&Packet::PubRec(Ack::new(id, reason)));
            }
            Stage::PubComp => self.say(&Packet::PubComp(Ack::new(id, Reason::Success))),
        }
        Ok(())
    }

    /// The client releases what it had a PUBREC for.
    fn release(&mut self, u: Input<'_, '_>) -> Drawn<()> {
        let received: Vec<_> = self.received.iter().copied().collect();
        if !received.is_empty() {
            let id = *u.choose(&received)?;
            self.say(&Packet::PubRel(Ack::new(id, Reason::Success)));
        }
        Ok(())
    }

    /// The service answers a release, or a PUBREL.
    fn answer_once(&mut self, u: Input<'_, '_>) -> Drawn<()> {
        if u.arbitrary()? {
            if let Some(offsets) = self.releasing.pop_front() {
                self.released.extend(&offsets);
                self.notice(Notice::Released(offsets));
            }
        } else if let Some(id) = self.completing.pop_front() {
            let known = u.ratio(3, 4)?;
            self.completed.push(id);
            self.notice(Notice::Completed { packet: id.get(), known });
        }
        Ok(())
    }

    fn answer_publish(&mut self, u: Input<'_, '_>) -> Drawn<()> {
        let open = self.publishes.iter().filter(|(_, _, answer)| answer.is_none()).count();
        if open == 0 {
            return Ok(());
        }
        let at = u.int_in_range(0..=open - 1)?;
        let refusal =
            *u.choose(&[None, None, None, Some(Refusal::Quota), Some(Refusal::Unavailable)])?;
        let open = self.publishes.iter_mut().filter(|(_, _, answer)| answer.is_none()).nth(at);
        let (token, _, answer) = open.expect("there are that many");
        *answer = Some(refusal.map_or(Ok(()), Err));
        let (token, matched) = (*token, u.arbitrary()?);
        let outcome = refusal.map_or(Ok(Published { matched }), Err);
        self.notice(Notice::Published { token, outcome });
        Ok(())
    }

    fn answer_request(&mut self, u: Input<'_, '_>) -> Drawn<()> {
        let Some((token, filters, subscribes)) = self.requests.pop() else { return Ok(()) };
        let refused = u.ratio(1, 4)?;
        self.notice(match (subscribes, refused) {
            (true, false) => {
                Notice::Subscribed { token, granted: Ok(vec![Ok(QoS::AtLeastOnce); filters]) }
            }
            (true, true) => Notice::Subscribed { token, granted: Err(Refusal::Busy) },
            (false, false) => Notice::Unsubscribed { token, existed: Ok(vec![true; filters]) },
            (false, true) => Notice::Unsubscribed { token, existed: Err(Refusal::Busy) },
        });
        Ok(())
    }

    fn deliver_durable(&mut self, u: Input<'_, '_>) -> Drawn<()> {
        let mut deliveries = Vec::new();
        for _ in 0..u.int_in_range(1..=4)? {
            // Now and then a jump to an offset that has the same packet id as another.
            self.next_offset += if u.ratio(1, 16)? { 65_535 } else { 1 };
            let qos = *u.choose(&[QoS::AtLeastOnce, QoS::ExactlyOnce])?;
            let mut delivery = delivery(Some(self.next_offset), qos, u.arbitrary()?);
            let offset = Offset(self.next_offset);
            // Of two that arrived under one id the model could not tell which one comes.
            let id = packet_id_of(offset);
            let is_free = !self.arrived.contains_key(&id) && !self.held.contains_key(&id);
            if qos == QoS::ExactlyOnce && self.resumed && is_free && u.ratio(1, 4)? {
                delivery.released = true;
                self.arrived.insert(id, offset);
            }
            deliveries.push(delivery);
        }
        self.notice(Notice::Deliver(deliveries));
        Ok(())
    }

    fn deliver_live(&mut self, u: Input<'_, '_>) -> Drawn<()> {
        let qos = *u.choose(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])?;
        self.notice(Notice::Deliver(vec![delivery(None, qos, false)]));
        Ok(())
    }

    fn wait(&mut self, u: Input<'_, '_>) -> Drawn<()> {
        let ms = u64::from(u.arbitrary::<u16>()?);
        self.now.at = self.now.at.plus(ms);
        self.now.wall.0 += ms;
        self.connection.handle_timeout(self.now);
        Ok(())
    }

    fn end(&mut self, u: Input<'_, '_>) -> Drawn<()> {
        match u.int_in_range(0..=20)? {
            0 => self.notice(Notice::TakenOver),
            1 => self.notice(Notice::Lost),
            2 => self.notice(Notice::Stopping { instead: None }),
            3 => self.connection.peer_gone(self.now),
            4 => self.say(&Packet::Disconnect(Box::default())),
            _ => {}
        }
        Ok(())
    }
}

fn delivery(offset: Option<u64>, qos: QoS, resent: bool) -> Delivery {
    let message = Message {
        topic: Text::from("t"),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Bytes::new(),
        expires_at: None,
        payload: Bytes::copy_from_slice(&offset.unwrap_or(0).to_be_bytes()),
    };
    Delivery { resent, ..Delivery::new(offset.map(Offset), qos, Arc::new(message)) }
}

fn run(u: Input<'_, '_>) -> Drawn<()> {
    let mut world = World::new(u)?;
    world.turn(true);
    for _ in 0..OPERATIONS_MAX {
        if u.is_empty() {
            break;
        }
        world.step(u)?;
    }
    world.turn(true);
    assert_eq!(world.closed, world.connection.is_closed());
    let durable = world.held.values().filter(|held| held.offset.is_some()).count();
    assert!(world.raw || u64::try_from(durable).expect("few") <= CREDIT);
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    // Running out of input ends a run early; that is no finding.
    run(&mut Unstructured::new(data)).ok();
});
