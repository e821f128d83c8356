//! A device's connection: packets of MQTT 5 over the simulated network.
//!
//! # Invariants
//!
//! - **Every wait has a limit**: a network that loses what was sent never says so.

use std::{num::NonZeroU16, time::Duration};

use bytes::BytesMut;
use moorline_core::Text;
use moorline_mqtt::codec::{
    Ack, ConnAck, Connect, ConnectProperties, Decoder, Disconnect, Limits, Outgoing, Packet,
    Reason, Version, encode,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};
use turmoil::net::TcpStream;

use crate::{door, net};

/// How long a node may take to accept a connection, and then to answer the CONNECT.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// How long the network may take to take what is written.
const WRITE_WAIT: Duration = Duration::from_secs(1);
/// How long a node may be silent: it is asked for a sign of life more often.
const SILENCE_MAX: Duration = Duration::from_millis(2_500);
/// Between two such questions.
const PING_EVERY: Duration = Duration::from_millis(700);
/// What a device promises, in seconds.
const KEEP_ALIVE_S: u16 = 2;
/// How long a session outlives its connection, in seconds: longer than every run.
const EXPIRY_S: u32 = 36_000;
/// Deliveries that a device takes unacknowledged.
const RECEIVE_MAX: NonZeroU16 = NonZeroU16::new(12).expect("not 0");

/// See the module.
pub(crate) struct Link {
    stream: TcpStream,
    decoder: Decoder,
    input: BytesMut,
    output: BytesMut,
    heard: Instant,
    pinged: Instant,
}

impl Link {
    /// Connects a device to a node and resumes its session.
    pub(crate) async fn open(client: &str, node: u64) -> Option<(Self, ConnAck)> {
        let address = (net::host(node), door::PORT);
        let stream = timeout(CONNECT_WAIT, TcpStream::connect(address)).await.ok()?.ok()?;
        let now = Instant::now();
        let mut link = Self {
            stream,
            decoder: Decoder::client(Version::V5, Limits::default()),
            input: BytesMut::new(),
            output: BytesMut::new(),
            heard: now,
            pinged: now,
        };
        link.put(&Packet::Connect(Box::new(Connect {
            version: Version::V5,
            clean_start: false,
            keep_alive_s: KEEP_ALIVE_S,
            client_id: Text::from(client),
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties {
                session_expiry_s: Some(EXPIRY_S),
                receive_max: Some(RECEIVE_MAX),
                ..ConnectProperties::default()
            },
        })));
        if !link.flush().await {
            return None;
        }
        let Packet::ConnAck(answer) = timeout(CONNECT_WAIT, link.next()).await.ok()?? else {
            return None;
        };
        (answer.reason == Reason::Success).then_some((link, *answer))
    }

    /// The next packet; `None` if there will be none. Nothing is lost if it is dropped.
    pub(crate) async fn next(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.decoder.decode(&mut self.input).ok()? {
                self.heard = Instant::now();
                return Some(packet);
            }
            if self.stream.read_buf(&mut self.input).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Adds a packet to what is to be sent.
    pub(crate) fn put(&mut self, packet: &Packet) {
        encode(packet, Version::V5, &mut self.output).expect("all that devices say has a form");
    }

    /// The same for a publish.
    pub(crate) fn publish(&mut self, publish: &Outgoing<'_>) {
        publish.encode(Version::V5, &mut self.output).expect("small");
    }

    /// Says goodbye.
    pub(crate) async fn disconnect(&mut self) {
        self.put(&Packet::Disconnect(Box::<Disconnect>::default()));
        self.flush().await;
    }

    /// Sends what there is, with a sign of life if it is time for one. `false` if the connection is over.
    pub(crate) async fn flush(&mut self) -> bool {
        let now = Instant::now();
        if now - self.heard > SILENCE_MAX {
            return false;
        }
        if now - self.pinged > PING_EVERY {
            self.pinged = now;
            self.put(&Packet::PingReq);
        }
        if self.output.is_empty() {
            return true;
        }
        let output = self.output.split();
        matches!(timeout(WRITE_WAIT, self.stream.write_all(&output)).await, Ok(Ok(())))
    }
}

/// Whether an acknowledgement says yes.
pub(crate) fn is_yes(ack: &Ack) -> bool {
    !ack.reason.is_error()
}
