//! An edge on a port of its own, with a double of the service behind it, and a client of raw bytes.
#![allow(dead_code, missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

pub mod tls;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use moorline_core::{
    ConnId, Delivery, Message, Offset, QoS, TenantId, Text,
    port::{Close, Filter, Inbox, Link, Notice, Open, Opened, Port, Published, Token},
};
use moorline_edge::{
    Anonymous, Attempt, Authenticate, Clock, Denial, Edge as Rules, EdgeConfig, EdgeMetrics,
    Listener, Transport, Verdict,
};
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Nothing takes longer here, also on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(10);
pub const TENANT: TenantId = TenantId(7);

pub const CONNECT_V311: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c";
pub const CONNACK_V311: &[u8] = b"\x20\x02\x00\x00";
pub const CONNECT_V5: &[u8] = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c";
pub const DISCONNECT_V311: &[u8] = b"\xe0\x00";

// ---- the double

#[derive(Debug)]
pub enum Call {
    Connect(Arc<dyn Inbox>),
    Open(Open),
    Publish(Token, Message),
    PublishOnce(Token, u16, Message),
    Complete(u16),
    Release(Vec<Offset>),
    Subscribe(Token, Vec<Filter>),
    Settle(Vec<Offset>),
    RetainedTaken,
    Close(Close),
}

/// A client of a shard that has no leader.
pub const NEVER_OPENS: &str = "never";

/// A service that answers opens by itself, but for that of [`NEVER_OPENS`], and leaves the rest to the test.
struct Double(Sender<Call>);

#[derive(Debug)]
struct DoubleLink {
    calls: Sender<Call>,
    inbox: Arc<dyn Inbox>,
}

impl Port for Double {
    fn connect(&self, inbox: Arc<dyn Inbox>) -> Box<dyn Link> {
        // A test that has ended hears nothing any more; that is no failure.
        drop(self.0.send(Call::Connect(Arc::clone(&inbox))));
        Box::new(DoubleLink { calls: self.0.clone(), inbox })
    }
}

impl DoubleLink {
    fn tell(&self, call: Call) {
        drop(self.calls.send(call));
    }
}

impl Link for DoubleLink {
    fn conn(&self) -> ConnId {
        ConnId(1)
    }
    fn open(&mut self, open: Open) {
        if open.client.as_str() != NEVER_OPENS {
            let opened = Opened { present: false, first: Offset(1), end: Offset(1) };
            self.inbox.push(Notice::Opened(Ok(opened))).expect("the connection is open");
        }
        self.tell(Call::Open(open));
    }
    fn publish(&mut self, token: Token, message: Message) {
        self.tell(Call::Publish(token, message));
    }
    fn publish_once(&mut self, token: Token, packet: u16, message: Message) {
        self.tell(Call::PublishOnce(token, packet, message));
    }
    fn complete(&mut self, packet: u16) {
        self.tell(Call::Complete(packet));
    }
    fn release(&mut self, offsets: Vec<Offset>) {
        self.tell(Call::Release(offsets));
    }
    fn subscribe(&mut self, token: Token, filters: Vec<Filter>) {
        self.tell(Call::Subscribe(token, filters));
    }
    fn unsubscribe(&mut self, _: Token, _: Vec<Text>) {}
    fn settle_shared(&mut self, _: &[(moorline_core::ShareNumber, Offset)]) {}

    fn retained_taken(&mut self) {
        self.tell(Call::RetainedTaken);
    }
    fn settle(&mut self, offsets: &[Offset]) {
        self.tell(Call::Settle(offsets.to_vec()));
    }
    fn close(&mut self, close: Close) {
        self.tell(Call::Close(close));
    }
}

/// Lets everybody in, and tells what their TLS proved.
pub struct Notes(pub Sender<moorline_edge::Channel>);

impl Authenticate for Notes {
    fn authenticate(&self, attempt: Attempt) -> Verdict {
        self.0.send(attempt.channel.clone()).unwrap();
        Anonymous { tenant: TENANT }.authenticate(attempt)
    }
    fn method(&self) -> &'static str {
        "notes"
    }
}

pub struct Refuses;

impl Authenticate for Refuses {
    fn authenticate(&self, _: Attempt) -> Verdict {
        Box::pin(std::future::ready(Err(Denial::BadCredentials)))
    }
    fn method(&self) -> &'static str {
        "refuses"
    }
}

// ---- the edge under test

pub struct Edge {
    pub address: SocketAddr,
    pub calls: Receiver<Call>,
    registry: Registry,
    pub stop: CancellationToken,
    running: JoinHandle<()>,
}

pub fn edge(change: impl FnOnce(&mut EdgeConfig)) -> Edge {
    edge_with(change, Arc::new(Anonymous { tenant: TENANT }))
}

pub fn edge_with(change: impl FnOnce(&mut EdgeConfig), who: Arc<dyn Authenticate>) -> Edge {
    edge_over(Transport::default(), change, who)
}

pub fn edge_over(
    transport: Transport,
    change: impl FnOnce(&mut EdgeConfig),
    who: Arc<dyn Authenticate>,
) -> Edge {
    // All tests come from one address, and most with one client id.
    let mut config = EdgeConfig {
        unauthenticated_per_address_max: 0,
        connects_per_client_s: 0,
        connects_per_tenant_s: 0,
        ..EdgeConfig::default()
    };
    change(&mut config);
    config.check().unwrap();
    let (registry, (sender, calls)) = (Registry::new(), channel());
    let metrics = EdgeMetrics::register(&registry).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let port = Arc::new(Double(sender));
    let rules = Rules::new(config, port, who, metrics, Clock::start());
    let listener = Listener::bind(any, transport, &rules).unwrap();
    let (address, stop) = (listener.address().unwrap(), CancellationToken::new());
    #[allow(clippy::disallowed_methods)] // the handle is kept
    let running = tokio::spawn(listener.run(stop.clone()));
    Edge { address, calls, registry, stop, running }
}

impl Edge {
    pub async fn client(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub async fn connected(&self) -> (TcpStream, Arc<dyn Inbox>) {
        let mut client = self.client().await;
        client.write_all(CONNECT_V311).await.unwrap();
        expect(&mut client, CONNACK_V311).await;
        (client, self.inbox())
    }

    /// The next connection's.
    pub fn inbox(&self) -> Arc<dyn Inbox> {
        self.call(|call| match call {
            Call::Connect(inbox) => Some(inbox),
            _ => None,
        })
    }

    /// The next call of a kind; others before it are passed over.
    pub fn call<T>(&self, pick: impl Fn(Call) -> Option<T>) -> T {
        tokio::task::block_in_place(|| {
            let deadline = Instant::now() + DEADLINE;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                if let Some(found) = pick(self.calls.recv_timeout(left).expect("a call in time")) {
                    return found;
                }
            }
        })
    }

    pub fn published(&self) -> (Token, Message) {
        self.call(|call| match call {
            Call::Publish(token, message) => Some((token, message)),
            _ => None,
        })
    }

    pub fn closed(&self) -> Close {
        self.call(|call| match call {
            Call::Close(close) => Some(close),
            _ => None,
        })
    }

    pub fn metrics(&self) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// Waits until a line is in the scrape.
    pub async fn shows(&self, line: &str) {
        let shown = async {
            while !self.metrics().lines().any(|shown| shown == line) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(timeout(DEADLINE, shown).await.is_ok(), "no {line} in\n{}", self.metrics());
    }

    pub async fn stopped(self) -> Duration {
        let began = Instant::now();
        self.stop.cancel();
        timeout(DEADLINE, self.running).await.unwrap().unwrap();
        began.elapsed()
    }
}

pub async fn expect(client: &mut (impl AsyncRead + Unpin), bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    timeout(DEADLINE, client.read_exact(&mut read)).await.expect("bytes in time").unwrap();
    assert_eq!(read, bytes);
}

/// Everything up to the end of the connection.
pub async fn rest(client: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut read = Vec::new();
    timeout(DEADLINE, client.read_to_end(&mut read)).await.expect("an end in time").unwrap();
    read
}

pub fn publish(id: u8) -> Vec<u8> {
    [b"\x32\x07\x00\x01t\x00", &[id][..], b"hi"].concat()
}

pub fn puback(id: u8) -> [u8; 4] {
    [0x40, 2, 0, id]
}

pub fn answer(inbox: &Arc<dyn Inbox>, token: Token) {
    let outcome = Ok(Published { matched: true });
    inbox.push(Notice::Published { token, outcome }).unwrap();
}

pub fn delivery(offset: Option<u64>, payload: Bytes) -> Notice {
    let message = Message {
        topic: Text::from("t"),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Bytes::new(),
        expires_at: None,
        payload,
    };
    let (offset, message) = (offset.map(Offset), Arc::new(message));
    Notice::Deliver(vec![Delivery::new(offset, QoS::AtLeastOnce, message)])
}
