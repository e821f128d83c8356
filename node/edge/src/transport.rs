//! What carries MQTT between a socket and its connection: TCP as it is, or TLS, WebSocket, or both upon it. And where a
//! listener speaks something else, or something else too.
//!
//! ```text
//!   TCP ──► TLS, or not ──► `mixed`: the first byte ──► no letter ──► MQTT
//!                           a letter, or not `mixed` ──► a request ──► WebSocket ──► MQTT, or HTTP
//! ```
//!
//! # Invariants
//!
//! - **Every handshake has a deadline**: TLS has `tls-handshake-ms` for its first byte, and again from its
//!   turn on ([`budget`](crate::budget)); after it
//!   WebSocket and CONNECT together have `first-packet-ms`. Checked by `tests/tls.rs` and `tests/websocket.rs`.
//! - **Handshakes run in their connection's task**, never in the accept loop: one that stalls holds up nobody.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use moorline_mqtt::{Now, server::Limit};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    admission::Stranger,
    budget::Pass,
    channel::Channel,
    config::WsConfig,
    connection::{Shared, serve},
    edge::Edge,
    foreign::{Begun, Speaks, Stream, Visit},
    limit::EdgeLimit,
    linger::linger,
    mailbox::Mailbox,
    socket::Socket,
    tls::{Failed, Secure, Tls},
    websocket::{Refused, WebSocket},
};

/// The first read where several protocols share a port: a usual CONNECT, or a request.
const BEGINNING_BYTES: usize = 1_024;

/// What a listener speaks below MQTT. Nothing of it: plain TCP.
#[derive(Debug, Clone, Default)]
pub struct Transport {
    /// TLS first, with this certificate.
    pub tls: Option<Tls>,
    /// Then WebSocket.
    pub ws: Option<WsConfig>,
    /// Another protocol: beside WebSocket for HTTP requests that ask for none, or instead of MQTT.
    pub other: Option<Arc<dyn Speaks>>,
    /// Beside WebSocket and HTTP, MQTT as it is: what a client says first tells which. The listener's name then, since what it
    /// speaks does not tell it.
    pub mixed: Option<&'static str>,
}

impl Transport {
    /// The listener's key in the configuration, and its label in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        if let Some(name) = self.mixed {
            return name;
        }
        if let Some(other) = &self.other {
            return other.name(self.tls.is_some());
        }
        match (&self.tls, &self.ws) {
            (None, None) => "mqtt",
            (None, Some(_)) => "ws",
            (Some(_), None) => "mqtts",
            (Some(_), Some(_)) => "wss",
        }
    }
}

/// A socket that was accepted, besides its stream.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) peer: SocketAddr,
    pub(crate) stranger: Stranger,
    pub(crate) mailbox: Arc<Mailbox>,
    /// What its TLS proved; in a box, since plain ones have none.
    pub(crate) channel: Option<Box<Channel>>,
    /// When, or when TLS was there: the first packet's deadline counts from here.
    pub(crate) at: Now,
    /// It speaks MQTT over a WebSocket.
    pub(crate) websocket: bool,
    /// What was read already of what it says.
    pub(crate) beginning: BytesMut,
    pub(crate) shared: Arc<Shared>,
}

/// Serves an accepted socket until it is over.
pub(crate) async fn carry(stream: TcpStream, mut accepted: Accepted, stop: CancellationToken) {
    let shared = Arc::clone(&accepted.shared);
    let opening = Opening::new(&shared.edge);
    let Some(tls) = &shared.transport.tls else {
        return speak(stream, accepted, &stop, opening).await;
    };
    // Handshakes run in boxes that are gone when they are done, and give their streams in others: for as long as a
    // connection lasts its task has no room for what it does not use.
    if !Box::pin(begins(&stream, &accepted, &stop)).await {
        return;
    }
    let Some(place) = Box::pin(turn_to_shake(&shared.edge, &stop)).await else { return };
    accepted.at = shared.edge.clock.now();
    let shaken = Box::pin(shake_tls(stream, tls, &accepted, &stop)).await;
    drop(place);
    let Some(Secure { stream, channel, .. }) = shaken else { return };
    accepted.channel = Some(Box::new(channel));
    accepted.at = shared.edge.clock.now();
    speak(stream, accepted, &stop, opening).await;
}

/// Serves what is spoken over a stream that is there.
async fn speak<S: Socket>(
    stream: S,
    mut accepted: Accepted,
    stop: &CancellationToken,
    opening: Opening<'_>,
) {
    let shared = Arc::clone(&accepted.shared);
    let Transport { ws, other, .. } = &shared.transport;
    let Some(ws) = ws else {
        return match other {
            None => serve(stream, accepted, opening).await,
            Some(other) => visit(other, Box::new(stream), accepted, stop, opening).await,
        };
    };
    let shaken = Box::pin(shake(stream, ws, &accepted, stop)).await;
    match shaken {
        Shaken::Mqtt(stream, beginning) => {
            accepted.beginning = beginning;
            serve(*stream, accepted, opening).await;
        }
        Shaken::WebSocket(stream) => {
            accepted.websocket = true;
            serve(stream, accepted, opening).await;
        }
        Shaken::Http(other, stream) => visit(&other, stream, accepted, stop, opening).await,
        Shaken::Nothing => {}
    }
}

/// Has another protocol serve a stream.
async fn visit(
    other: &Arc<dyn Speaks>,
    stream: Box<dyn Stream>,
    accepted: Accepted,
    stop: &CancellationToken,
    opening: Opening<'_>,
) {
    let Accepted { peer, stranger, channel, shared, .. } = accepted;
    let port = shared.port;
    drop(opening);
    let channel = channel.map_or_else(Channel::default, |channel| *channel);
    let stop = stop.clone();
    let visit = Visit { stream, peer, port, channel, stop, stranger: Some(stranger) };
    other.serve(visit).await;
}

/// What a listener of WebSockets came to.
enum Shaken<S> {
    /// MQTT as it is, and what was read of it.
    Mqtt(Box<S>, BytesMut),
    WebSocket(Box<WebSocket<S>>),
    /// An HTTP request that asks for something else.
    Http(Arc<dyn Speaks>, Box<dyn Stream>),
    Nothing,
}

/// Counts a socket that is in a handshake.
pub(crate) struct Opening<'a>(&'a Edge);

impl<'a> Opening<'a> {
    pub(crate) fn new(edge: &'a Edge) -> Self {
        edge.metrics.opening();
        Self(edge)
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.metrics.never_opened();
    }
}

/// Why a handshake was cut short.
enum Cut {
    Late,
    Stopping,
}

/// Waits for a handshake so long after it was accepted, or until the node stops.
async fn within<T>(
    handshake: impl Future<Output = T>,
    wait_ms: u64,
    accepted: &Accepted,
    stop: &CancellationToken,
) -> Result<T, Cut> {
    let edge = &accepted.shared.edge;
    let deadline = accepted.at.at.plus(wait_ms);
    let deadline = Instant::from_std(edge.clock.instant(deadline));
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(Cut::Stopping),
        done = timeout_at(deadline, handshake) => done.map_err(|_| Cut::Late),
    }
}

/// Waits for the first byte, which stays unread: who says nothing takes no place from those who do.
async fn begins(stream: &TcpStream, accepted: &Accepted, stop: &CancellationToken) -> bool {
    let edge = &accepted.shared.edge;
    let (wait_ms, mut first) = (edge.settings.now().config.tls_handshake_ms, [0]);
    let failed = match within(stream.peek(&mut first), wait_ms, accepted, stop).await {
        Ok(Ok(1..)) => return true,
        Ok(Ok(0) | Err(_)) => Failed::Gone,
        Err(Cut::Late) => {
            edge.metrics.reached(EdgeLimit::TlsHandshake);
            Failed::Timeout
        }
        Err(Cut::Stopping) => return false,
    };
    edge.metrics.tls_failed(failed);
    false
}

/// Waits for its turn; without one it is closed, which is all that can be said before TLS.
async fn turn_to_shake(edge: &Edge, stop: &CancellationToken) -> Option<Pass> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        pass = edge.admission.budget.handshakes.enter() => pass.ok(),
    }
}

async fn shake_tls(
    stream: TcpStream,
    tls: &Tls,
    accepted: &Accepted,
    stop: &CancellationToken,
) -> Option<Secure> {
    let edge = &accepted.shared.edge;
    let (wait_ms, began) = (edge.settings.now().config.tls_handshake_ms, accepted.at.at);
    let failed = match within(tls.accept(stream), wait_ms, accepted, stop).await {
        Ok(Ok(secure)) => {
            let took_ms = edge.clock.now().at.0.saturating_sub(began.0);
            edge.metrics.tls_shook(secure.shook, Duration::from_millis(took_ms));
            return Some(secure);
        }
        Ok(Err((failed, error))) => {
            debug!(peer = %accepted.peer, %error, "TLS handshake failed");
            failed
        }
        Err(Cut::Late) => {
            edge.metrics.reached(EdgeLimit::TlsHandshake);
            Failed::Timeout
        }
        Err(Cut::Stopping) => return None,
    };
    edge.metrics.tls_failed(failed);
    None
}

/// Finds out what a client wants by what it says first.
async fn shake<S: Socket>(
    mut stream: S,
    ws: &WsConfig,
    accepted: &Accepted,
    stop: &CancellationToken,
) -> Shaken<S> {
    let mut beginning = BytesMut::new();
    if accepted.shared.transport.mixed.is_some() {
        let edge = &accepted.shared.edge;
        beginning.reserve(BEGINNING_BYTES);
        let read = stream.read_buf(&mut beginning);
        match within(read, edge.settings.now().config.first_packet_ms, accepted, stop).await {
            Ok(Ok(1..)) if is_http(&beginning) => {}
            Ok(Ok(1..)) => return Shaken::Mqtt(Box::new(stream), beginning),
            // It left before it said anything.
            Ok(_) | Err(Cut::Stopping) => return Shaken::Nothing,
            Err(Cut::Late) => {
                edge.metrics.reached_in_protocol(Limit::FirstPacket, 1);
                return Shaken::Nothing;
            }
        }
    }
    shake_websocket(stream, beginning, ws, accepted, stop).await
}

/// Whether a client's first byte begins a method of HTTP's: all have letters (RFC 9110, 9.1), and a CONNECT begins with 0x10
/// (MQTT 5.0, 3.1.1). What is neither is MQTT that is wrong.
fn is_http(beginning: &[u8]) -> bool {
    beginning.first().is_some_and(u8::is_ascii_alphabetic)
}

async fn shake_websocket<S: Socket>(
    stream: S,
    beginning: BytesMut,
    ws: &WsConfig,
    accepted: &Accepted,
    stop: &CancellationToken,
) -> Shaken<S> {
    let edge = &accepted.shared.edge;
    let other = accepted.shared.transport.other.as_ref();
    let handshake = WebSocket::accept(stream, beginning, ws, edge, other.is_some());
    let wait_ms = edge.settings.now().config.first_packet_ms;
    let refused = match within(handshake, wait_ms, accepted, stop).await {
        Ok(Ok(socket)) => return Shaken::WebSocket(Box::new(socket)),
        Ok(Err((Refused::NotWebSocket, stream, beginning))) if let Some(other) = other => {
            return Shaken::Http(Arc::clone(other), Box::new(Begun { beginning, stream }));
        }
        Ok(Err((refused, mut stream, _))) => {
            linger(&mut stream, accepted.peer).await;
            refused
        }
        Err(Cut::Late) => {
            edge.metrics.reached_in_protocol(Limit::FirstPacket, 1);
            Refused::Timeout
        }
        Err(Cut::Stopping) => return Shaken::Nothing,
    };
    debug!(peer = %accepted.peer, reason = refused.label(), "WebSocket handshake refused");
    edge.metrics.websocket_refused(refused);
    Shaken::Nothing
}
