//! An MQTT client on a plain blocking socket: does what it is told, shows every packet, repairs nothing.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use super::{
    packet::{self, Connect, Packet, Publish, Version, Will},
    wait::{READY, SOON, until},
};

/// How long a broker may take to answer a connection attempt before another node would be tried.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long a quiet connection is watched before it counts as quiet.
const QUIET: Duration = Duration::from_millis(300);
/// Session expiry of durable MQTT 5 sessions.
pub(crate) const AN_HOUR_S: u32 = 3600;

/// What came of waiting for a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Packet(Packet),
    /// The connection is closed.
    Closed,
    /// Nothing came in time.
    Nothing,
}

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    version: Version,
    name: String,
    input: Vec<u8>,
    /// Came while something else was waited for.
    waiting: VecDeque<Packet>,
    next_id: u16,
}

impl Connect {
    /// A clean session: it ends with its connection.
    pub(crate) fn clean(version: Version, client: &str) -> Self {
        let client = client.to_owned();
        Self {
            version,
            client,
            clean: true,
            expiry_s: None,
            receive_max: None,
            keep_alive_s: 60,
            will: None,
            login: None,
        }
    }

    /// A session that outlives its connection.
    pub(crate) fn durable(version: Version, client: &str) -> Self {
        let expiry_s = (version == Version::V5).then_some(AN_HOUR_S);
        Self { clean: false, expiry_s, ..Self::clean(version, client) }
    }

    /// With another session expiry.
    pub(crate) fn expiring(self, expiry_s: u32) -> Self {
        Self { expiry_s: Some(expiry_s), ..self }
    }

    /// With a will of QoS 1.
    pub(crate) fn leaving(self, topic: &str, payload: &str, delay_s: u32) -> Self {
        let will = Will {
            topic: topic.to_owned(),
            payload: payload.into(),
            qos: 1,
            retain: false,
            delay_s: (self.version == Version::V5).then_some(delay_s),
            expiry_s: None,
        };
        Self { will: Some(will), ..self }
    }

    /// Connects, once. `Ok` has the session present flag.
    pub(crate) fn attempt(&self, to: SocketAddr) -> io::Result<(Client, bool)> {
        let mut client = self.begin(to)?;
        match client.hear(CONNECT_WAIT) {
            Heard::Packet(Packet::ConnAck { present, reason: 0 }) => Ok((client, present)),
            other => Err(io::Error::other(format!("{} hears {other:?}", self.client))),
        }
    }

    /// Connects, and goes again: the reason in the CONNACK.
    #[track_caller]
    pub(crate) fn reason(&self, to: SocketAddr) -> u8 {
        match self.begin(to).unwrap().hear(CONNECT_WAIT) {
            Heard::Packet(Packet::ConnAck { reason, .. }) => reason,
            other => panic!("{} hears {other:?}", self.client),
        }
    }

    /// Says CONNECT.
    fn begin(&self, to: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&to, CONNECT_WAIT)?;
        stream.set_nodelay(true)?;
        let mut client = Client {
            stream,
            version: self.version,
            name: self.client.clone(),
            input: Vec::new(),
            waiting: VecDeque::new(),
            next_id: 1,
        };
        client.send(&packet::connect(self))?;
        Ok(client)
    }

    /// Connects; must work at once.
    #[track_caller]
    pub(crate) fn to(&self, to: SocketAddr) -> (Client, bool) {
        self.attempt(to).unwrap_or_else(|error| panic!("{} to {to}: {error}", self.client))
    }

    /// Connects to a broker that may be busy recovering.
    #[track_caller]
    pub(crate) fn to_patiently(&self, to: SocketAddr) -> (Client, bool) {
        until(&format!("{} is connected to {to}", self.client), READY, || self.attempt(to).ok())
    }
}

impl Client {
    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next packet.
    pub(crate) fn hear(&mut self, within: Duration) -> Heard {
        match self.waiting.pop_front() {
            Some(packet) => Heard::Packet(packet),
            None => self.hear_new(within),
        }
    }

    fn hear_new(&mut self, within: Duration) -> Heard {
        let until = Instant::now() + within;
        loop {
            if let Some(packet) = packet::take(self.version, &mut self.input) {
                return Heard::Packet(packet);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Heard::Nothing;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Heard::Closed,
                Ok(read) => self.input.extend(&bytes[..read]),
                Err(error) if is_timeout(&error) => {}
                Err(_) => return Heard::Closed,
            }
        }
    }

    /// Waits for the packet that `wanted` takes; what comes before it waits its turn.
    #[track_caller]
    fn hear_first<T>(&mut self, what: &str, wanted: impl Fn(&Packet) -> Option<T>) -> T {
        let since = Instant::now();
        loop {
            match self.hear_new(SOON.saturating_sub(since.elapsed())) {
                Heard::Packet(packet) => match wanted(&packet) {
                    Some(found) => return found,
                    None => self.waiting.push_back(packet),
                },
                other => panic!(
                    "{} hears {other:?}, not {what}; before it {:?}",
                    self.name, self.waiting
                ),
            }
        }
    }

    /// A packet id that nothing under way has.
    fn new_id(&mut self) -> u16 {
        let id = self.next_id;
        self.next_id = id.checked_add(1).unwrap_or(1);
        id
    }

    /// Publishes with QoS 1 and does not wait; the packet id.
    #[track_caller]
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8]) -> u16 {
        self.publish_expiring(topic, payload, None)
    }

    /// The same with a message expiry.
    #[track_caller]
    pub(crate) fn publish_expiring(
        &mut self,
        topic: &str,
        payload: &[u8],
        expiry_s: Option<u32>,
    ) -> u16 {
        let id = self.new_id();
        self.send(&packet::publish(self.version, id, topic, payload, expiry_s)).unwrap();
        id
    }

    /// Publishes with QoS 1 on a connection that may have broken; hearing will tell.
    pub(crate) fn publish_unchecked(&mut self, topic: &str, payload: &[u8]) -> u16 {
        let id = self.new_id();
        drop(self.send(&packet::publish(self.version, id, topic, payload, None)));
        id
    }

    /// Waits for the acknowledgement of `id`; its reason code.
    #[track_caller]
    pub(crate) fn puback(&mut self, id: u16) -> u8 {
        self.hear_first("PUBACK", |packet| match packet {
            Packet::PubAck { id: acked, reason } if *acked == id => Some(*reason),
            _ => None,
        })
    }

    /// Publishes with QoS 1 and waits until it is acknowledged, which must be with success.
    #[track_caller]
    pub(crate) fn publish_acked(&mut self, topic: &str, payload: &[u8]) {
        let id = self.publish(topic, payload);
        assert_eq!(self.puback(id), 0, "{} publishes to {topic}", self.name);
    }

    /// Sends a QoS 2 publish; with DUP if it was sent before.
    #[track_caller]
    pub(crate) fn publish_2(&mut self, id: u16, topic: &str, payload: &[u8], dup: bool) {
        self.send(&packet::publish_2(self.version, id, topic, payload, dup)).unwrap();
    }

    /// Waits for the PUBREC of `id`; its reason code.
    #[track_caller]
    pub(crate) fn pubrec(&mut self, id: u16) -> u8 {
        self.hear_first("PUBREC", |packet| match packet {
            Packet::PubRec { id: acked, reason } if *acked == id => Some(*reason),
            _ => None,
        })
    }

    /// Sends the PUBREL of `id` and waits for its PUBCOMP; its reason code.
    #[track_caller]
    pub(crate) fn pubrel(&mut self, id: u16) -> u8 {
        self.send(&packet::pubrel(id)).unwrap();
        self.hear_first("PUBCOMP", |packet| match packet {
            Packet::PubComp { id: acked, reason } if *acked == id => Some(*reason),
            _ => None,
        })
    }

    /// Publishes with QoS 2, all four packets, which must end with success.
    #[track_caller]
    pub(crate) fn publish_once(&mut self, topic: &str, payload: &[u8]) {
        let id = self.new_id();
        self.publish_2(id, topic, payload, false);
        assert_eq!(self.pubrec(id), 0, "{} publishes to {topic}", self.name);
        assert_eq!(self.pubrel(id), 0, "{} publishes to {topic}", self.name);
    }

    /// Publishes with QoS 2, all four packets, whether anybody hears it or not.
    #[track_caller]
    pub(crate) fn publish_once_any(&mut self, topic: &str, payload: &[u8]) {
        let id = self.new_id();
        self.publish_2(id, topic, payload, false);
        assert!(self.pubrec(id) < 0x80, "{} publishes to {topic}", self.name);
        assert_eq!(self.pubrel(id), 0, "{} publishes to {topic}", self.name);
    }

    /// Says that a QoS 2 delivery arrived, and waits for its PUBREL.
    #[track_caller]
    pub(crate) fn receive(&mut self, message: &Publish) {
        self.send(&packet::pubrec(message.id)).unwrap();
        self.pubrel_of(message.id);
    }

    /// Waits for the PUBREL of a delivery.
    #[track_caller]
    pub(crate) fn pubrel_of(&mut self, id: u16) {
        self.hear_first("PUBREL", |packet| match packet {
            Packet::PubRel { id: released, reason: 0 } if *released == id => Some(()),
            _ => None,
        });
    }

    /// Says that a QoS 2 delivery is complete.
    #[track_caller]
    pub(crate) fn complete(&mut self, id: u16) {
        self.send(&packet::pubcomp(id)).unwrap();
    }

    /// The payloads of the next messages, as text, each received with all its four packets.
    #[track_caller]
    pub(crate) fn take_once(&mut self, many: usize) -> Vec<String> {
        (0..many)
            .map(|_| {
                let message = self.message();
                assert_eq!(message.qos, 2, "{message:?}");
                self.receive(&message);
                self.complete(message.id);
                String::from_utf8(message.payload).unwrap()
            })
            .collect()
    }

    /// Publishes with QoS 1 and RETAIN=1, and waits until it is acknowledged, which must be with success.
    #[track_caller]
    pub(crate) fn retain(&mut self, topic: &str, payload: &[u8], expiry_s: Option<u32>) {
        let id = self.new_id();
        let publish = packet::publish(self.version, id, topic, payload, expiry_s);
        self.send(&packet::retained(publish)).unwrap();
        assert!(self.puback(id) < 0x80, "{} retains {topic}", self.name);
    }

    /// Subscribes and waits for the SUBACK; the reason codes.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        let id = self.new_id();
        self.send(&packet::subscribe(self.version, id, filters)).unwrap();
        self.suback(id)
    }

    /// Waits for the SUBACK of a packet id: the reasons.
    #[track_caller]
    pub(crate) fn suback(&mut self, id: u16) -> Vec<u8> {
        self.hear_first("SUBACK", |packet| match packet {
            Packet::SubAck { id: acked, reasons } if *acked == id => Some(reasons.clone()),
            _ => None,
        })
    }

    /// Subscribes with QoS 1, which must be granted.
    #[track_caller]
    pub(crate) fn subscribe_1(&mut self, filter: &str) {
        assert_eq!(self.subscribe(&[(filter, 1)]), [1], "{} subscribes to {filter}", self.name);
    }

    /// Subscribes with QoS 2, which must be granted.
    #[track_caller]
    pub(crate) fn subscribe_2(&mut self, filter: &str) {
        assert_eq!(self.subscribe(&[(filter, 2)]), [2], "{} subscribes to {filter}", self.name);
    }

    /// Ends a subscription and waits for the UNSUBACK.
    #[track_caller]
    pub(crate) fn unsubscribe(&mut self, filter: &str) -> Vec<u8> {
        let id = self.new_id();
        self.send(&packet::unsubscribe(self.version, id, filter)).unwrap();
        self.hear_first("UNSUBACK", |packet| match packet {
            Packet::UnsubAck { id: acked, reasons } if *acked == id => Some(reasons.clone()),
            _ => None,
        })
    }

    /// Subscribes with QoS 1 and unsubscribes in one burst, and waits for both answers.
    #[track_caller]
    pub(crate) fn subscribe_briefly(&mut self, filter: &str) {
        let (begin, end) = (self.new_id(), self.new_id());
        let mut burst = packet::subscribe(self.version, begin, &[(filter, 1)]);
        burst.extend_from_slice(&packet::unsubscribe(self.version, end, filter));
        self.send(&burst).unwrap();
        for _ in 0..2 {
            self.hear_first("SUBACK or UNSUBACK", |packet| match packet {
                Packet::SubAck { id, .. } if *id == begin => Some(()),
                Packet::UnsubAck { id, .. } if *id == end => Some(()),
                _ => None,
            });
        }
    }

    /// The next packet, which must be a message. Not acknowledged.
    #[track_caller]
    pub(crate) fn message(&mut self) -> Publish {
        match self.hear(SOON) {
            Heard::Packet(Packet::Publish(publish)) => publish,
            other => panic!("{} hears {other:?}, not a message", self.name),
        }
    }

    /// The payloads of the next messages, as text, each acknowledged.
    #[track_caller]
    pub(crate) fn take(&mut self, many: usize) -> Vec<String> {
        (0..many)
            .map(|_| {
                let message = self.message();
                self.ack(&message);
                String::from_utf8(message.payload).unwrap()
            })
            .collect()
    }

    /// Acknowledges a message.
    #[track_caller]
    pub(crate) fn ack(&mut self, message: &Publish) {
        if message.qos > 0 {
            self.send(&packet::puback(message.id)).unwrap();
        }
    }

    /// Acknowledges a message on a connection that may have broken; hearing will tell.
    pub(crate) fn ack_unchecked(&mut self, message: &Publish) {
        drop(self.send(&packet::puback(message.id)));
    }

    /// Nothing comes for a while.
    #[track_caller]
    pub(crate) fn hears_nothing(&mut self) {
        self.hears_nothing_for(QUIET);
    }

    /// Hears nothing at all for so long.
    #[track_caller]
    pub(crate) fn hears_nothing_for(&mut self, long: Duration) {
        let heard = self.hear(long);
        assert_eq!(heard, Heard::Nothing, "{} should hear nothing", self.name);
    }

    /// A round trip: the broker has read everything before it.
    #[track_caller]
    pub(crate) fn ping(&mut self) {
        self.send(&packet::pingreq()).unwrap();
        self.heard_ping();
    }

    /// The answer to a ping that was sent.
    #[track_caller]
    pub(crate) fn heard_ping(&mut self) {
        self.hear_first("PINGRESP", |packet| (*packet == Packet::PingResp).then_some(()));
    }

    /// Says goodbye and waits until the broker closes.
    #[track_caller]
    pub(crate) fn disconnect(mut self) {
        self.send(&packet::disconnect()).unwrap();
        while let Heard::Packet(_) = self.hear(SOON) {}
    }
}

/// A read that found nothing within its timeout, or was interrupted.
fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// `prefix0`, `prefix1`, …
pub(crate) fn numbered(prefix: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("{prefix}{number}")).collect()
}
