//! What carries MQTT between a socket and its connection: TCP as it is, or TLS, WebSocket, or both upon it.
//!
//! # Invariants
//!
//! - **A handshake shares the first packet's deadline**: TLS, WebSocket and CONNECT together have `first-packet-ms`.
//!   Checked by `tests/websocket.rs` and `tests/tls.rs`.
//! - **Handshakes run in their connection's task**, never in the accept loop: one that stalls holds up nobody.

use std::{net::SocketAddr, sync::Arc};

use moorline_mqtt::Now;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    config::WsConfig,
    connection::{Shared, linger, serve},
    edge::Edge,
    mailbox::Mailbox,
    socket::Socket,
    tls::{Failed, Tls},
    websocket::{Refused, WebSocket},
};

/// What a listener speaks below MQTT. Nothing of it: plain TCP.
#[derive(Debug, Clone, Default)]
pub struct Transport {
    /// TLS first, with this certificate.
    pub tls: Option<Tls>,
    /// Then WebSocket.
    pub ws: Option<WsConfig>,
}

impl Transport {
    /// The listener's key in the configuration, and its label in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
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
    pub(crate) mailbox: Arc<Mailbox>,
    /// When: the first packet's deadline counts from here.
    pub(crate) at: Now,
    pub(crate) shared: Arc<Shared>,
}

/// Serves an accepted socket until it is over.
pub(crate) async fn carry(stream: TcpStream, accepted: Accepted, stop: CancellationToken) {
    let shared = Arc::clone(&accepted.shared);
    let opening = Opening::new(&shared.edge);
    // Handshakes run in boxes that are gone when they are done, and give their streams in others: for as long as a
    // connection lasts its task has no room for what it does not use.
    match (&shared.transport.tls, &shared.transport.ws) {
        (None, None) => serve(stream, accepted, opening).await,
        (None, Some(ws)) => {
            let shaken = Box::pin(shake_websocket(stream, ws, &accepted, &stop)).await;
            if let Some(stream) = shaken {
                serve(stream, accepted, opening).await;
            }
        }
        (Some(tls), ws) => {
            let shaken = Box::pin(shake_tls(stream, tls, &accepted, &stop)).await;
            let Some(stream) = shaken else { return };
            let Some(ws) = ws else { return serve(stream, accepted, opening).await };
            let shaken = Box::pin(shake_websocket(stream, ws, &accepted, &stop)).await;
            if let Some(stream) = shaken {
                serve(stream, accepted, opening).await;
            }
        }
    }
}

/// Counts a socket that is in a handshake.
pub(crate) struct Opening<'a>(&'a Edge);

impl<'a> Opening<'a> {
    fn new(edge: &'a Edge) -> Self {
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

/// Waits for a handshake until the first packet's deadline, or until the node stops.
async fn within<T>(
    handshake: impl Future<Output = T>,
    accepted: &Accepted,
    stop: &CancellationToken,
) -> Result<T, Cut> {
    let edge = &accepted.shared.edge;
    let deadline = accepted.at.at.plus(edge.config.first_packet_ms);
    let deadline = Instant::from_std(edge.clock.instant(deadline));
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(Cut::Stopping),
        done = timeout_at(deadline, handshake) => done.map_err(|_| Cut::Late),
    }
}

async fn shake_tls(
    stream: TcpStream,
    tls: &Tls,
    accepted: &Accepted,
    stop: &CancellationToken,
) -> Option<Box<TlsStream<TcpStream>>> {
    let failed = match within(tls.accept(stream), accepted, stop).await {
        Ok(Ok(stream)) => return Some(Box::new(stream)),
        Ok(Err((failed, error))) => {
            debug!(peer = %accepted.peer, %error, "TLS handshake failed");
            failed
        }
        Err(Cut::Late) => Failed::Timeout,
        Err(Cut::Stopping) => return None,
    };
    accepted.shared.edge.metrics.tls_failed(failed);
    None
}

async fn shake_websocket<S: Socket>(
    stream: S,
    ws: &WsConfig,
    accepted: &Accepted,
    stop: &CancellationToken,
) -> Option<Box<WebSocket<S>>> {
    let edge = &accepted.shared.edge;
    let refused = match within(WebSocket::accept(stream, ws, edge), accepted, stop).await {
        Ok(Ok(socket)) => return Some(Box::new(socket)),
        Ok(Err((refused, mut stream))) => {
            linger(&mut stream, accepted.peer).await;
            refused
        }
        Err(Cut::Late) => Refused::Timeout,
        Err(Cut::Stopping) => return None,
    };
    debug!(peer = %accepted.peer, reason = refused.label(), "WebSocket handshake refused");
    edge.metrics.websocket_refused(refused);
    None
}
