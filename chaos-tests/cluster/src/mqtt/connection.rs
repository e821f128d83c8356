//! A TCP connection that speaks MQTT: whole packets in and out, a deadline on every wait.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, timeout, timeout_at};

use super::packet::{self, Connect, Malformed, Packet, Version};

/// How long a node may take to accept and to answer CONNECT. After a restart it first restores its sessions.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a write may stand: a node that does not read is as good as dead.
const WRITE_MAX: Duration = Duration::from_secs(2);

/// Why a connection is over.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The peer or the network ended it.
    #[error("the connection was lost")]
    Lost(#[source] std::io::Error),
    /// The peer ended it in an orderly way.
    #[error("the connection was closed")]
    Closed,
    /// An answer did not come in time.
    #[error("no answer to {0}")]
    TimedOut(&'static str),
    /// CONNECT was refused.
    #[error("the connection was refused with code {0:#04x}")]
    Refused(u8),
    /// The peer said something it must not say.
    #[error("the peer broke the protocol")]
    Protocol(#[from] Malformed),
}

impl From<std::io::Error> for ConnectionError {
    fn from(error: std::io::Error) -> Self {
        Self::Lost(error)
    }
}

/// A connection after its CONNACK.
#[derive(Debug)]
pub struct Connection {
    /// What comes in.
    pub reader: Reader,
    /// What goes out.
    pub writer: Writer,
    /// Whether the node had the session.
    pub present: bool,
    /// Most QoS 1 messages the node takes unacknowledged.
    pub receive_max: u16,
}

impl Connection {
    /// Connects and waits for the CONNACK.
    pub async fn open(address: SocketAddr, connect: Connect) -> Result<Self, ConnectionError> {
        let version = connect.version;
        let opened = timeout(CONNECT_MAX, async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (mut reader, mut writer) = split(stream, version);
            writer.send(&[Packet::Connect(connect)]).await?;
            match reader.next().await? {
                Packet::ConnAck { present, code: 0, receive_max } => {
                    Ok(Self { reader, writer, present, receive_max })
                }
                Packet::ConnAck { code, .. } => Err(ConnectionError::Refused(code)),
                Packet::Connect(_)
                | Packet::Publish { .. }
                | Packet::PubAck { .. }
                | Packet::PubRec { .. }
                | Packet::PubRel { .. }
                | Packet::PubComp { .. }
                | Packet::Subscribe { .. }
                | Packet::SubAck { .. }
                | Packet::PingReq
                | Packet::PingResp
                | Packet::Disconnect { .. } => {
                    Err(Malformed("the first packet was no CONNACK").into())
                }
            }
        });
        opened.await.unwrap_or(Err(ConnectionError::TimedOut("CONNECT")))
    }
}

/// The two halves of a stream.
pub fn split(stream: TcpStream, version: Version) -> (Reader, Writer) {
    let (reader, writer) = stream.into_split();
    let reader = Reader { stream: reader, buffer: BytesMut::new(), version };
    (reader, Writer { stream: writer, version })
}

/// The half that reads packets.
#[derive(Debug)]
pub struct Reader {
    stream: OwnedReadHalf,
    buffer: BytesMut,
    version: Version,
}

impl Reader {
    /// The next packet. Cancel-safe: bytes read so far stay in the buffer.
    pub async fn next(&mut self) -> Result<Packet, ConnectionError> {
        loop {
            if let Some(packet) = self.buffered()? {
                return Ok(packet);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(ConnectionError::Closed);
            }
        }
    }

    /// The next packet if it has arrived already.
    pub fn buffered(&mut self) -> Result<Option<Packet>, ConnectionError> {
        let packet = packet::read(&mut self.buffer, self.version)?;
        if let Some(Packet::Connect(connect)) = &packet {
            self.version = connect.version;
        }
        Ok(packet)
    }

    /// The next packet, unless `deadline` comes first.
    pub async fn next_until(&mut self, deadline: Instant) -> Result<Packet, ConnectionError> {
        let next = timeout_at(deadline, self.next()).await;
        next.unwrap_or(Err(ConnectionError::TimedOut("anything")))
    }
}

/// The half that writes packets.
#[derive(Debug)]
pub struct Writer {
    stream: OwnedWriteHalf,
    version: Version,
}

impl Writer {
    /// Writes packets, in one piece. Not cancel-safe: a packet may be half written.
    pub async fn send(&mut self, packets: &[Packet]) -> Result<(), ConnectionError> {
        let mut bytes = BytesMut::new();
        for packet in packets {
            packet::write(packet, self.version, &mut bytes);
        }
        let written = timeout(WRITE_MAX, self.stream.write_all(&bytes)).await;
        Ok(written.map_err(|_| ConnectionError::TimedOut("a write"))??)
    }

    /// Has the connection reset when its halves are dropped: what a client leaves that dies.
    pub fn reset(self) -> std::io::Result<()> {
        self.stream.as_ref().set_zero_linger()?;
        // Without the FIN that the half would send first.
        self.stream.forget();
        Ok(())
    }

    /// The version that a CONNECT has brought.
    pub fn speak(&mut self, version: Version) {
        self.version = version;
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::packet::Extras;
    use super::*;

    fn connect(version: Version) -> Connect {
        let client = "c".to_owned();
        let (clean, keep_alive_s, expiry_s) = (true, 5, 0);
        Connect {
            version,
            client,
            clean,
            keep_alive_s,
            expiry_s,
            receive_max: 7,
            extras: Extras::default(),
        }
    }

    /// A server that answers CONNECT with `code`, then echoes what it gets.
    async fn server(code: u8) -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (mut reader, mut writer) = split(stream, Version::V4);
            let Packet::Connect(connect) = reader.next().await.unwrap() else { panic!("first") };
            writer.speak(connect.version);
            let receive_max = connect.receive_max;
            writer.send(&[Packet::ConnAck { present: false, code, receive_max }]).await.unwrap();
            while let Ok(packet) = reader.next().await {
                writer.send(&[packet]).await.unwrap();
            }
        });
        (address, tasks)
    }

    #[tokio::test]
    async fn both_versions_shake_hands_and_exchange_packets() {
        for (version, receive_max) in [(Version::V4, packet::RECEIVE_MAX_DEFAULT), (Version::V5, 7)]
        {
            let (address, _tasks) = server(0).await;
            let mut connection = Connection::open(address, connect(version)).await.unwrap();
            assert_eq!((connection.present, connection.receive_max), (false, receive_max));
            let sent = Packet::Publish {
                topic: "t".into(),
                packet: Some(3),
                once: false,
                dup: false,
                retain: false,
                payload: vec![1; 70_000].into(),
            };
            connection.writer.send(&[sent.clone(), Packet::PingResp]).await.unwrap();
            let deadline = Instant::now() + CONNECT_MAX;
            assert_eq!(connection.reader.next_until(deadline).await.unwrap(), sent);
            assert_eq!(connection.reader.next_until(deadline).await.unwrap(), Packet::PingResp);
        }
    }

    #[tokio::test]
    async fn a_refusal_and_a_closed_port_are_told_apart() {
        let (address, _tasks) = server(3).await;
        let refused = Connection::open(address, connect(Version::V4)).await;
        assert!(matches!(refused, Err(ConnectionError::Refused(3))));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let lost = Connection::open(address, connect(Version::V4)).await;
        assert!(matches!(lost, Err(ConnectionError::Lost(_))));
    }
}
