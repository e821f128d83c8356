//! A connection with both ends in one test: packets in, events and packets out, time by hand.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use moorline_core::{
    Delivery, Message, Offset, QoS, Text, UnixMillis,
    port::{Notice, Opened, Published, Token},
};
use moorline_mqtt::{
    Millis, Now, Packet, PacketId, Reason, Version,
    codec::{
        Ack, ConnAck, Connect, ConnectProperties, Decoder, Disconnect, Limits, Publish,
        RetainHandling, SubAck, Subscribe, SubscribeFilter, Unsubscribe, encode,
    },
    server::{CloseReason, Closed, Config, ConnectRequest, Connection, Event},
};

pub(crate) const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// When tests begin.
pub(crate) const START: Now = Now { at: Millis(1_000_000), wall: UnixMillis(1_700_000_000_000) };

pub(crate) fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

pub(crate) fn id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

pub(crate) struct Rig {
    pub(crate) connection: Connection,
    pub(crate) now: Now,
    pub(crate) input: BytesMut,
    pub(crate) output: BytesMut,
    version: Version,
}

/// Whatever a test did: each publish of QoS 1 or 2 waits, or came to one thing.
impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.connection.imbalance(), 0, "{:?}", self.connection);
        }
    }
}

impl Rig {
    /// A connection that waits for its CONNECT.
    pub(crate) fn new(config: Config, version: Version) -> Self {
        config.check().unwrap();
        let connection = Connection::new(Arc::new(config), START, Text::from("spare"));
        let (input, output) = (BytesMut::new(), BytesMut::new());
        Self { connection, now: START, input, output, version }
    }

    /// An open clean session.
    pub(crate) fn open(version: Version) -> Self {
        Self::open_with(Config::default(), connect(version))
    }

    pub(crate) fn open_with(config: Config, connect: Connect) -> Self {
        let mut rig = Self::new(config, connect.version);
        rig.say(&Packet::Connect(Box::new(connect)));
        rig.request();
        rig.opened(false);
        let said = rig.said();
        assert!(matches!(&said[..], [Packet::ConnAck(ack)] if ack.reason == Reason::Success));
        rig
    }

    /// The client sends bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.connection.receive(self.now, &mut self.input);
    }

    /// The client sends a packet.
    pub(crate) fn say(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        encode(packet, self.version, &mut bytes).unwrap();
        self.bytes(&bytes);
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.connection.notice(self.now, notice);
        self.connection.receive(self.now, &mut self.input);
    }

    pub(crate) fn opened(&mut self, present: bool) {
        // What goes on has a queue of eight.
        let end = Offset(if present { 9 } else { 1 });
        self.notice(Notice::Opened(Ok(Opened { present, first: Offset(1), end })));
    }

    pub(crate) fn published(&mut self, token: Token) {
        self.notice(Notice::Published { token, outcome: Ok(Published { matched: true }) });
    }

    pub(crate) fn deliver(&mut self, deliveries: Vec<Delivery>) {
        self.notice(Notice::Deliver(deliveries));
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.connection.poll_event()).collect()
    }

    /// The CONNECT that was handed out.
    pub(crate) fn request(&mut self) -> ConnectRequest {
        match self.connection.poll_event() {
            Some(Event::Connect(request)) => *request,
            other => panic!("no CONNECT but {other:?}"),
        }
    }

    /// The token and message of the one publish that was handed out.
    pub(crate) fn publish(&mut self) -> (Token, Message) {
        match self.connection.poll_event() {
            Some(Event::Publish { token, message }) => (token, message),
            other => panic!("no publish but {other:?}"),
        }
    }

    pub(crate) fn closed(&mut self) -> Closed {
        assert!(self.connection.is_closed(), "it is still open");
        match self.events().pop() {
            Some(Event::Closed(closed)) => closed,
            other => panic!("not closed but {other:?}"),
        }
    }

    /// Lets the connection write, without the client reading.
    pub(crate) fn transmit(&mut self) {
        self.connection.poll_transmit(self.now, &mut self.output);
    }

    /// What the client reads when it takes everything.
    pub(crate) fn said(&mut self) -> Vec<Packet> {
        self.transmit();
        let mut packets = Vec::new();
        let limits = Limits { packet_bytes: 1 << 28, ..Limits::default() };
        let mut decoder = Decoder::client(self.version, limits);
        while let Some(packet) = decoder.decode(&mut self.output).unwrap() {
            packets.push(packet);
        }
        assert!(self.output.is_empty(), "half a packet was written");
        self.connection.poll_transmit(self.now, &mut self.output);
        packets
    }

    /// Whether the server closed with this reason, and with this code in a DISCONNECT or CONNACK if it said one.
    pub(crate) fn ended(&mut self) -> (CloseReason, Option<Reason>) {
        let reason = self.closed().reason;
        let code = match self.said().pop() {
            Some(Packet::Disconnect(disconnect)) => Some(disconnect.reason),
            Some(Packet::ConnAck(ack)) => Some(ack.reason),
            _ => None,
        };
        (reason, code)
    }

    pub(crate) fn wait(&mut self, ms: u64) {
        self.now.at = self.now.at.plus(ms);
        self.now.wall = UnixMillis(self.now.wall.0 + ms);
        self.connection.handle_timeout(self.now);
    }
}

pub(crate) fn connect(version: Version) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 60,
        client_id: Text::from("c"),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

pub(crate) fn publish(topic: &str, qos: QoS, packet_id: u16) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: Text::from(topic),
        id: PacketId::new(packet_id),
        expiry_s: None,
        alias: None,
        subscription_ids: Vec::new(),
        properties: Bytes::new(),
        payload: Bytes::from_static(b"payload"),
    }
}

pub(crate) fn publish1(packet_id: u16) -> Packet {
    Packet::Publish(publish("t", QoS::AtLeastOnce, packet_id))
}

pub(crate) fn puback(packet_id: u16) -> Packet {
    Packet::PubAck(Ack::new(id(packet_id), Reason::Success))
}

pub(crate) fn subscribe(packet_id: u16, filters: &[(&str, QoS)]) -> Subscribe {
    let filters = filters.iter().map(|&(filter, qos)| SubscribeFilter {
        filter: Text::from(filter),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Always,
    });
    Subscribe {
        id: id(packet_id),
        subscription_id: None,
        user: Vec::new(),
        filters: filters.collect(),
    }
}

pub(crate) fn unsubscribe(packet_id: u16, filters: &[&str]) -> Packet {
    let filters = filters.iter().map(|&filter| Text::from(filter)).collect();
    Packet::Unsubscribe(Unsubscribe { id: id(packet_id), user: Vec::new(), filters })
}

pub(crate) fn suback(packet_id: u16, reasons: &[Reason]) -> Packet {
    Packet::SubAck(SubAck { id: id(packet_id), properties: None, reasons: reasons.to_vec() })
}

pub(crate) fn refusal(reason: Reason) -> ConnAck {
    ConnAck { session_present: false, reason, properties: Default::default() }
}

pub(crate) fn disconnect(reason: Reason, session_expiry_s: Option<u32>) -> Packet {
    Packet::Disconnect(Box::new(Disconnect { reason, session_expiry_s, ..Disconnect::default() }))
}

pub(crate) fn message(payload: &[u8]) -> Message {
    Message {
        topic: Text::from("t"),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Bytes::new(),
        expires_at: None,
        payload: Bytes::copy_from_slice(payload),
    }
}

/// A delivery of a durable queue.
pub(crate) fn durable(offset: u64) -> Delivery {
    let message = Arc::new(message(&offset.to_be_bytes()));
    Delivery::new(Some(Offset(offset)), QoS::AtLeastOnce, message)
}

/// A delivery that is stored nowhere.
pub(crate) fn live(qos: QoS, payload: &[u8]) -> Delivery {
    Delivery::new(None, qos, Arc::new(message(payload)))
}

/// QoS, packet id and first payload bytes of the PUBLISHes among `packets`.
pub(crate) fn deliveries(packets: &[Packet]) -> Vec<(QoS, u16, Bytes)> {
    packets
        .iter()
        .filter_map(|packet| match packet {
            Packet::Publish(publish) => {
                let id = publish.id.map_or(0, PacketId::get);
                Some((publish.qos, id, publish.payload.clone()))
            }
            _ => None,
        })
        .collect()
}

/// Packet ids of the PUBLISHes among `packets`.
pub(crate) fn ids(packets: &[Packet]) -> Vec<u16> {
    deliveries(packets).into_iter().map(|(_, id, _)| id).collect()
}
