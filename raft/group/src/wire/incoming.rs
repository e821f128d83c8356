//! Connections that peers make: accepted, counted, and shaken hands with where there is TLS.
//!
//! # Invariants
//!
//! - **Nobody waits for a stranger**: handshakes go on beside each other, each for [`HELLO_DEADLINE`] at most, and count against the
//!   limit of connections. Checked by `tests/tls.rs`.
//! - **The files of now**: each connection is judged by what was read last. Checked by `tests/tls.rs`.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{Stream, stream};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::{
    Shared,
    config::{ACCEPT_PAUSE, HELLO_DEADLINE, INCOMING_CONNECTIONS_MAX},
    transport::{Listener, Socket},
};

/// The certificate that the other side has shown, and has the key of.
#[derive(Debug, Clone)]
pub(super) struct Shown(pub(super) Option<CertificateDer<'static>>);

/// A connection that counts against the limit while it lives.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Box<dyn Socket>,
    shown: Shown,
    _permit: OwnedSemaphorePermit,
}

/// The way from a listener to connections.
struct Door {
    shared: Arc<Shared>,
    listener: Box<dyn Listener>,
    room: Arc<Semaphore>,
    /// As many as there is room.
    handshakes: JoinSet<io::Result<Connection>>,
}

/// Accepted connections. The listener is closed as soon as the wire stops, so that peers are refused from then on
/// instead of waiting in its backlog.
pub(super) fn connections(
    shared: Arc<Shared>,
    listener: Box<dyn Listener>,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let room = Arc::new(Semaphore::new(INCOMING_CONNECTIONS_MAX));
    let door = Door { shared, listener, room, handshakes: JoinSet::new() };
    stream::unfold(door, |mut door| async move {
        let next = door.next().await?;
        Some((Ok(next), door))
    })
}

impl Door {
    /// The next connection; none when the wire stops.
    async fn next(&mut self) -> Option<Connection> {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => return None,
                Some(done) = self.handshakes.join_next() => {
                    match done {
                        Ok(Ok(connection)) => return Some(connection),
                        Ok(Err(error)) => {
                            self.shared.metrics.tls.failed_handshakes.inc();
                            debug!(%error, "no TLS with who connects as a peer");
                        }
                        Err(error) => warn!(%error, "a handshake panicked"),
                    }
                    continue;
                }
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok(socket) => match Arc::clone(&self.room).try_acquire_owned() {
                    Ok(permit) => match &self.shared.tls {
                        Some(tls) => {
                            self.handshakes.spawn(shake(tls.now().acceptor(), socket, permit));
                        }
                        None => {
                            return Some(Connection {
                                socket,
                                shown: Shown(None),
                                _permit: permit,
                            });
                        }
                    },
                    Err(_) => self.shared.metrics.turned_away.inc(), // dropped: turned away
                },
                Err(error) => {
                    warn!(%error, "could not accept a peer's connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn shake(
    acceptor: TlsAcceptor,
    socket: Box<dyn Socket>,
    permit: OwnedSemaphorePermit,
) -> io::Result<Connection> {
    let stream = timeout(HELLO_DEADLINE, acceptor.accept(socket)).await??;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let shown = Shown(shown.map(|shown| shown.clone().into_owned()));
    Ok(Connection { socket: Box::new(stream), shown, _permit: permit })
}

impl Connected for Connection {
    type ConnectInfo = Shown;

    fn connect_info(&self) -> Shown {
        self.shown.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
