//! Other protocols than MQTT at an edge's listeners: they share its sockets, TLS, limits and stops, and nothing else.
//!
//! ```text
//!   listener ──► TLS ──► [`Speaks`]                          a listener of its own (Moonlight)
//!   listener ──► TLS ──► a request for a WebSocket that offers MQTT ──► MQTT
//!                        any other request                          ──► [`Speaks`]     one port for HTTP and MQTT over WebSocket
//! ```
//!
//! # Invariants
//!
//! - **A guest counts like any other connection**: in `connections-max`, and as a stranger of its address until it says who it
//!   is ([`Visit::stranger`]). Checked by `tests/foreign.rs`.
//! - **A stop ends it**: what is left of its task after `drain-ms` is dropped.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::{admission::Stranger, channel::Channel};

/// Bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One connection, served until it is over.
pub type Served = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A protocol that is spoken at listeners of an edge.
pub trait Speaks: fmt::Debug + Send + Sync + 'static {
    /// The listener's key in the configuration, and its label in metrics: with TLS, or without.
    fn name(&self, tls: bool) -> &'static str;

    /// Serves one connection. Ends soon after [`Visit::stop`].
    fn serve(&self, visit: Visit) -> Served;
}

/// An accepted connection: TLS is done.
pub struct Visit {
    /// What it says, and is told.
    pub stream: Box<dyn Stream>,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// To which port of ours.
    pub port: u16,
    /// What its TLS said and proved.
    pub channel: Channel,
    /// The node takes leave.
    pub stop: CancellationToken,
    /// To be dropped when it has said who it is: its address may send another stranger then.
    pub stranger: Option<Stranger>,
}

impl fmt::Debug for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visit")
            .field("peer", &self.peer)
            .field("tls", &self.channel.tls)
            .finish_non_exhaustive()
    }
}

/// A stream of which the beginning was read already.
pub(crate) struct Begun<S> {
    pub(crate) beginning: BytesMut,
    pub(crate) stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.beginning.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let many = self.beginning.len().min(into.remaining());
        into.put_slice(&self.beginning[..many]);
        self.beginning.advance(many);
        if self.beginning.is_empty() {
            self.beginning = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
