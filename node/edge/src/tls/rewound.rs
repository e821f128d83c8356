//! A socket of which the beginning was read already, and is read again.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::socket::Socket;

/// A stream that begins with what was read of it. Eight bytes more than the stream itself.
pub(crate) struct Rewound {
    beginning: Option<Box<Beginning>>,
    stream: TcpStream,
}

struct Beginning {
    bytes: Vec<u8>,
    /// How much of them was read again.
    at: usize,
}

impl Rewound {
    pub(crate) fn new(bytes: Vec<u8>, stream: TcpStream) -> Self {
        let beginning = (!bytes.is_empty()).then(|| Box::new(Beginning { bytes, at: 0 }));
        Self { beginning, stream }
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(beginning) = &mut self.beginning else {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        };
        let left = &beginning.bytes[beginning.at..];
        let many = left.len().min(into.remaining());
        into.put_slice(&left[..many]);
        beginning.at += many;
        if beginning.at == beginning.bytes.len() {
            self.beginning = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Socket for Rewound {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.beginning.is_some() {
            return Poll::Ready(());
        }
        self.stream.poll_readable(cx)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_writable(cx)
    }

    fn node_stops(&mut self) {}
}
