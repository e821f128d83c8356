//! A client's side of one connection, as small as the CLI, the benchmarks and tests need it: QoS 0 to 2 both ways. What
//! is under way when the connection ends is forgotten: exactly once holds for as long as it lasts.
//!
//! The driver writes [`Client::output`] to its socket and gives what it reads to [`Client::receive`]. Publishing
//! encodes straight into the output and allocates nothing.
//!
//! Invariant: no more QoS 1 and 2 publishes under way than both sides allow, each with its own packet id. Checked by
//! `tests/it/client.rs`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry},
    fmt,
    num::NonZeroU16,
};

use bytes::{Bytes, BytesMut};
use moorline_core::{QoS, Text};
use thiserror::Error;

use crate::{
    Millis,
    codec::{
        Ack, ConnAck, Connect, ConnectProperties, DecodeError, Decoder, Disconnect, EncodeError,
        Hidden, Limits, Outgoing, Packet, PacketId, PacketType, Publish, Reason, RetainHandling,
        Subscribe, SubscribeFilter, Unsubscribe, Version, Will, encode, put_ack,
    },
};

/// How long a server may take to answer the CONNECT.
const CONNECT_DEADLINE_MS: u64 = 30_000;

/// How to connect. Its `Debug` form hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// Which MQTT to speak.
    pub version: Version,
    /// Client id; may be empty for a clean session.
    pub client_id: Text,
    /// Clean Start, or Clean Session.
    pub clean_start: bool,
    /// Keep-alive in seconds, 0 for none.
    pub keep_alive_s: u16,
    /// User name.
    pub username: Option<Text>,
    /// Password.
    pub password: Option<Bytes>,
    /// Will.
    pub will: Option<Will>,
    /// MQTT 5 properties of the CONNECT: session expiry, receive maximum, maximum packet size.
    pub properties: ConnectProperties,
    /// Most publishes that wait for their PUBACK or PUBCOMP; the server's Receive Maximum may lower it.
    pub window: NonZeroU16,
    /// Bytes of the largest packet to take.
    pub packet_bytes_max: usize,
    /// Whether each QoS 1 or 2 delivery is acknowledged as soon as it is read. If not: [`Client::acknowledge`].
    pub auto_ack: bool,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_s", &self.keep_alive_s)
            .field("username", &self.username)
            .field("password", &Hidden(self.password.as_ref()))
            .field("will", &self.will)
            .field("properties", &self.properties)
            .field("window", &self.window)
            .field("packet_bytes_max", &self.packet_bytes_max)
            .field("auto_ack", &self.auto_ack)
            .finish()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: Version::V311,
            client_id: Text::default(),
            clean_start: true,
            keep_alive_s: 60,
            username: None,
            password: None,
            will: None,
            properties: ConnectProperties::default(),
            window: NonZeroU16::new(32).expect("not 0"),
            packet_bytes_max: Limits::PACKET_BYTES,
            auto_ack: true,
        }
    }
}

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The session is open.
    Connected(Box<ConnAck>),
    /// The CONNECT was refused; the server closes.
    Refused(Box<ConnAck>),
    /// A QoS 1 publish was answered, or a QoS 2 publish completed or refused.
    Published {
        /// Its packet id.
        id: PacketId,
        /// Success before MQTT 5.
        reason: Reason,
    },
    /// A message came. Its strings and payload share the read buffer.
    Message(Publish),
    /// A SUBSCRIBE was answered.
    Subscribed {
        /// Its packet id.
        id: PacketId,
        /// One for each filter.
        reasons: Vec<Reason>,
    },
    /// An UNSUBSCRIBE was answered.
    Unsubscribed {
        /// Its packet id.
        id: PacketId,
        /// One for each filter; empty before MQTT 5.
        reasons: Vec<Reason>,
    },
    /// The server says goodbye (MQTT 5).
    Disconnected(Box<Disconnect>),
}

/// Why a client can't do what it was asked, or can't go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ClientError {
    /// The server sent what is no packet. The connection can't go on.
    #[error("the server sent what can't be read")]
    Decode(#[from] DecodeError),
    /// The server sent a packet that is not allowed now. The connection can't go on.
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
    /// What was to be sent has no form on the wire. Nothing was sent.
    #[error("this can't be sent")]
    Encode(#[from] EncodeError),
    /// The server has not accepted the connection yet, or it is over. Nothing was sent.
    #[error("not connected")]
    NotConnected,
    /// The window is full: publish again after the next [`Event::Published`]. Nothing was sent.
    #[error("too many publishes wait for their answer")]
    WindowFull,
    /// The server was silent for too long. The connection can't go on.
    #[error("the server does not answer")]
    Silent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// CONNECT is in the output; the answer is due.
    Connecting { due: Millis },
    /// The next PINGREQ is due, if there is a keep-alive; whether one is unanswered.
    Connected { ping: Option<Millis>, unanswered: bool },
    /// Said goodbye, or was told it.
    Over,
}

/// What waits under a packet id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// A QoS 1 publish, for its PUBACK.
    PubAck,
    /// A QoS 2 publish, for its PUBREC.
    PubRec,
    /// A QoS 2 publish that had this PUBREC, for its PUBCOMP.
    PubComp(Reason),
    Request,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    version: Version,
    auto_ack: bool,
    keep_alive_s: u16,
    window: usize,
    state: State,
    decoder: Decoder,
    output: BytesMut,
    events: VecDeque<Event>,
    last_id: u16,
    /// Packet ids of everything that waits for an answer.
    waiting: BTreeMap<PacketId, Waits>,
    publishes: usize,
    /// Packet ids of QoS 2 deliveries that were read and not released.
    received: BTreeSet<PacketId>,
}

impl Client {
    /// A client whose CONNECT is in the output already.
    ///
    /// # Errors
    ///
    /// When the options have no form on the wire.
    pub fn new(options: Options, now: Millis) -> Result<Self, ClientError> {
        let limits = Limits {
            packet_bytes: options.packet_bytes_max,
            user_properties: usize::MAX,
            property_bytes: usize::MAX,
            filters: usize::MAX,
        };
        let mut client = Self {
            version: options.version,
            auto_ack: options.auto_ack,
            keep_alive_s: options.keep_alive_s,
            window: usize::from(options.window.get()),
            state: State::Connecting { due: now.plus(CONNECT_DEADLINE_MS) },
            decoder: Decoder::client(options.version, limits),
            output: BytesMut::new(),
            events: VecDeque::new(),
            last_id: 0,
            waiting: BTreeMap::new(),
            publishes: 0,
            received: BTreeSet::new(),
        };
        let connect = Connect {
            version: options.version,
            clean_start: options.clean_start,
            keep_alive_s: options.keep_alive_s,
            client_id: options.client_id,
            will: options.will,
            username: options.username,
            password: options.password,
            properties: options.properties,
        };
        client.send(&Packet::Connect(Box::new(connect)))?;
        Ok(client)
    }

    /// What the socket has to be given. Leave what it does not take.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Whether the session is open.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected { .. })
    }

    /// How many publishes wait for their PUBACK or PUBCOMP.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.publishes
    }

    /// Whether a publish of QoS 1 or 2 would be taken now.
    #[must_use]
    pub fn can_publish(&self) -> bool {
        self.is_connected() && self.publishes < self.window
    }

    /// Takes all whole packets off the front of `input`.
    ///
    /// # Errors
    ///
    /// When the connection can't go on.
    pub fn receive(&mut self, now: Millis, input: &mut BytesMut) -> Result<(), ClientError> {
        while let Some(packet) = self.decoder.decode(input)? {
            if let State::Connected { unanswered, .. } = &mut self.state {
                *unanswered = false;
            }
            self.handle(now, packet)?;
        }
        Ok(())
    }

    fn handle(&mut self, now: Millis, packet: Packet) -> Result<(), ClientError> {
        if !self.is_connected() {
            return match (self.state, packet) {
                (State::Connecting { .. }, Packet::ConnAck(connack)) => {
                    self.on_connack(now, connack);
                    Ok(())
                }
                // What was on its way when we said goodbye.
                (State::Over, _) => Ok(()),
                _ => Err(ClientError::Protocol("a packet before the CONNACK")),
            };
        }
        match packet {
            Packet::Publish(publish) => return self.on_publish(publish),
            Packet::PubAck(ack) => return self.on_puback(&ack),
            Packet::PubRec(ack) => return self.on_pubrec(&ack),
            Packet::PubRel(ack) => self.on_pubrel(&ack),
            Packet::PubComp(ack) => return self.on_pubcomp(&ack),
            Packet::SubAck(ack) => {
                self.answered(ack.id, Waits::Request)?;
                self.events.push_back(Event::Subscribed { id: ack.id, reasons: ack.reasons });
            }
            Packet::UnsubAck(ack) => {
                self.answered(ack.id, Waits::Request)?;
                self.events.push_back(Event::Unsubscribed { id: ack.id, reasons: ack.reasons });
            }
            Packet::Disconnect(disconnect) => {
                self.state = State::Over;
                self.events.push_back(Event::Disconnected(disconnect));
            }
            Packet::PingResp => {}
            Packet::ConnAck(_)
            | Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq
            | Packet::Auth(_) => {
                return Err(ClientError::Protocol("a packet that this client can't expect"));
            }
        }
        Ok(())
    }

    fn on_connack(&mut self, now: Millis, connack: Box<ConnAck>) {
        if connack.reason != Reason::Success {
            self.state = State::Over;
            return self.events.push_back(Event::Refused(connack));
        }
        if let Some(theirs) = connack.properties.receive_max {
            self.window = self.window.min(usize::from(theirs.get()));
        }
        if let Some(keep_alive_s) = connack.properties.server_keep_alive_s {
            self.keep_alive_s = keep_alive_s;
        }
        self.state = State::Connected { ping: self.next_ping(now), unanswered: false };
        self.events.push_back(Event::Connected(connack));
    }

    fn on_publish(&mut self, publish: Publish) -> Result<(), ClientError> {
        let mut again = false;
        if let (QoS::ExactlyOnce, Some(id)) = (publish.qos, publish.id) {
            again = !self.received.insert(id);
        }
        if let Some(id) = publish.id.filter(|_| self.auto_ack || again) {
            self.acknowledge(id);
        }
        if again {
            return Ok(());
        }
        if publish.alias.is_some() {
            return Err(ClientError::Protocol("a topic alias that was not offered"));
        }
        self.events.push_back(Event::Message(publish));
        Ok(())
    }

    fn on_puback(&mut self, ack: &Ack) -> Result<(), ClientError> {
        self.answered(ack.id, Waits::PubAck)?;
        self.published(ack.id, ack.reason);
        Ok(())
    }

    fn on_pubrec(&mut self, ack: &Ack) -> Result<(), ClientError> {
        self.answered(ack.id, Waits::PubRec)?;
        if ack.reason.is_error() {
            self.published(ack.id, ack.reason);
            return Ok(());
        }
        self.waiting.insert(ack.id, Waits::PubComp(ack.reason));
        put_ack(PacketType::PubRel, ack.id, Reason::Success, self.version, &mut self.output);
        Ok(())
    }

    fn on_pubcomp(&mut self, ack: &Ack) -> Result<(), ClientError> {
        let Some(&Waits::PubComp(reason)) = self.waiting.get(&ack.id) else {
            return Err(ClientError::Protocol("an answer to what was never asked"));
        };
        self.waiting.remove(&ack.id);
        self.published(ack.id, if ack.reason.is_error() { ack.reason } else { reason });
        Ok(())
    }

    fn published(&mut self, id: PacketId, reason: Reason) {
        self.publishes -= 1;
        self.events.push_back(Event::Published { id, reason });
    }

    fn on_pubrel(&mut self, ack: &Ack) {
        let known = self.received.remove(&ack.id);
        let reason = if known { Reason::Success } else { Reason::PacketIdentifierNotFound };
        put_ack(PacketType::PubComp, ack.id, reason, self.version, &mut self.output);
    }

    fn answered(&mut self, id: PacketId, what: Waits) -> Result<(), ClientError> {
        match self.waiting.entry(id) {
            Entry::Occupied(entry) if *entry.get() == what => {
                entry.remove();
                Ok(())
            }
            Entry::Occupied(_) | Entry::Vacant(_) => {
                Err(ClientError::Protocol("an answer to what was never asked"))
            }
        }
    }

    /// What the server said next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Publishes. The client chooses the packet id, and gives it back for QoS 1 and 2.
    ///
    /// # Errors
    ///
    /// [`ClientError::WindowFull`], [`ClientError::NotConnected`], or what can't be encoded; nothing was sent then.
    pub fn publish(&mut self, outgoing: &Outgoing<'_>) -> Result<Option<PacketId>, ClientError> {
        if !self.is_connected() {
            return Err(ClientError::NotConnected);
        }
        let id = match outgoing.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce | QoS::ExactlyOnce if !self.can_publish() => {
                return Err(ClientError::WindowFull);
            }
            QoS::AtLeastOnce => Some(self.take_id(Waits::PubAck)?),
            QoS::ExactlyOnce => Some(self.take_id(Waits::PubRec)?),
        };
        let sent = Outgoing { id, ..*outgoing }.encode(self.version, &mut self.output);
        match (sent, id) {
            (Ok(()), Some(_)) => self.publishes += 1,
            (Ok(()), None) => {}
            (Err(error), id) => {
                if let Some(id) = id {
                    self.waiting.remove(&id);
                }
                return Err(error.into());
            }
        }
        Ok(id)
    }

    /// Subscribes; answered by [`Event::Subscribed`].
    ///
    /// # Errors
    ///
    /// When not connected, or when it can't be encoded.
    pub fn subscribe(&mut self, filters: &[(&str, QoS)]) -> Result<PacketId, ClientError> {
        let filters = filters
            .iter()
            .map(|&(filter, qos)| SubscribeFilter {
                filter: Text::from(filter),
                qos,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::Always,
            })
            .collect();
        self.request(|id| {
            Packet::Subscribe(Subscribe { id, subscription_id: None, user: Vec::new(), filters })
        })
    }

    /// Ends subscriptions; answered by [`Event::Unsubscribed`].
    ///
    /// # Errors
    ///
    /// When not connected, or when it can't be encoded.
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Result<PacketId, ClientError> {
        let filters = filters.iter().map(|&filter| Text::from(filter)).collect();
        self.request(|id| Packet::Unsubscribe(Unsubscribe { id, user: Vec::new(), filters }))
    }

    fn request(
        &mut self,
        packet: impl FnOnce(PacketId) -> Packet,
    ) -> Result<PacketId, ClientError> {
        if !self.is_connected() {
            return Err(ClientError::NotConnected);
        }
        let id = self.take_id(Waits::Request)?;
        let packet = packet(id);
        self.send(&packet).inspect_err(|_| {
            self.waiting.remove(&id);
        })?;
        Ok(id)
    }

    /// Acknowledges a QoS 1 or 2 delivery.
    pub fn acknowledge(&mut self, id: PacketId) {
        let once = self.received.contains(&id);
        let kind = if once { PacketType::PubRec } else { PacketType::PubAck };
        put_ack(kind, id, Reason::Success, self.version, &mut self.output);
    }

    /// Says goodbye: the session's will is not published. The server closes the socket.
    pub fn disconnect(&mut self) {
        if self.state != State::Over {
            self.state = State::Over;
            self.send(&Packet::Disconnect(Box::default())).expect("two bytes have a form");
        }
    }

    /// When [`Client::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        match self.state {
            State::Connecting { due } => Some(due),
            State::Connected { ping, .. } => ping,
            State::Over => None,
        }
    }

    /// Pings, or gives up on a server that is silent.
    ///
    /// # Errors
    ///
    /// [`ClientError::Silent`].
    pub fn handle_timeout(&mut self, now: Millis) -> Result<(), ClientError> {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return Ok(());
        }
        match self.state {
            State::Connecting { .. } | State::Connected { unanswered: true, .. } => {
                self.state = State::Over;
                Err(ClientError::Silent)
            }
            State::Connected { unanswered: false, .. } => {
                self.state = State::Connected { ping: self.next_ping(now), unanswered: true };
                self.send(&Packet::PingReq)
            }
            State::Over => Ok(()),
        }
    }

    /// Three quarters of the keep-alive: early enough for a slow network.
    fn next_ping(&self, now: Millis) -> Option<Millis> {
        (self.keep_alive_s > 0).then(|| now.plus(u64::from(self.keep_alive_s) * 750))
    }

    fn send(&mut self, packet: &Packet) -> Result<(), ClientError> {
        Ok(encode(packet, self.version, &mut self.output)?)
    }

    /// The next packet id that nothing waits under.
    fn take_id(&mut self, what: Waits) -> Result<PacketId, ClientError> {
        if self.waiting.len() == usize::from(u16::MAX) {
            return Err(ClientError::WindowFull);
        }
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            let Some(id) = PacketId::new(self.last_id) else { continue };
            if let Entry::Vacant(entry) = self.waiting.entry(id) {
                entry.insert(what);
                return Ok(id);
            }
        }
    }
}
