//! What a connection needs of its socket: bytes both ways, and to wait for them without holding a buffer.

use std::task::{Context, Poll};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// A stream of MQTT's bytes, whatever carries them.
///
/// What [`AsyncWrite::poll_write`] took may stay within until it is flushed; it is at most a few records or one frame,
/// because no more is taken before that is gone.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Waits until a read would say something: bytes, the end, or an error.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Waits until a write would take something or fail.
    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The node stops: a stream that says goodbye by itself says why.
    fn node_stops(&mut self);
}

impl<S: Socket> Socket for Box<S> {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        (**self).poll_readable(cx)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        (**self).poll_writable(cx)
    }

    fn node_stops(&mut self) {
        (**self).node_stops();
    }
}

impl Socket for TcpStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // An error is seen by the read that follows.
        self.poll_read_ready(cx).map(drop)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_write_ready(cx).map(drop)
    }

    /// TCP has no words for it.
    fn node_stops(&mut self) {}
}
