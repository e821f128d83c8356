//! Any stream of bytes as a [`Socket`]: one that cannot say whether it is readable or writable.
//!
//! # Invariants
//!
//! - **What was taken off the stream is read before what comes later**, and what was taken for it goes out before it is closed.
//! - **Bounded**: at most one read and one write are held here, and an idle stream holds neither.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{foreign::Stream, socket::Socket};

/// Read ahead to find out whether there is something to read.
const READ_BYTES: usize = 2 * 1024;
/// Taken at once for a stream that may not take it at once.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// See the module.
pub(crate) struct Buffered<S> {
    stream: S,
    input: BytesMut,
    /// What the last read ahead came to, if it was not bytes.
    ended: Option<io::Result<()>>,
    output: BytesMut,
}

impl<S: Stream + 'static> Buffered<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, input: BytesMut::new(), ended: None, output: BytesMut::new() }
    }

    /// Gives the stream what is held for it.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.output))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(written);
        }
        self.output = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream + 'static> AsyncRead for Buffered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.input.is_empty() {
            let many = self.input.len().min(into.remaining());
            into.put_slice(&self.input[..many]);
            self.input.advance(many);
            if self.input.is_empty() {
                self.input = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        match self.ended.take() {
            Some(ended) => Poll::Ready(ended),
            None => Pin::new(&mut self.stream).poll_read(cx, into),
        }
    }
}

impl<S: Stream + 'static> AsyncWrite for Buffered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx))?;
        let taken = &bytes[..bytes.len().min(WRITE_BYTES_MAX)];
        self.output.extend_from_slice(taken);
        // What the stream does not take now stays here until it does: it was taken all the same.
        match self.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: Stream + 'static> Socket for Buffered<S> {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.input.is_empty() || self.ended.is_some() {
            return Poll::Ready(());
        }
        let mut bytes = [0; READ_BYTES];
        let mut ahead = ReadBuf::new(&mut bytes);
        match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut ahead)) {
            Ok(()) if ahead.filled().is_empty() => self.ended = Some(Ok(())),
            Ok(()) => self.input.extend_from_slice(ahead.filled()),
            Err(error) => self.ended = Some(Err(error)),
        }
        Poll::Ready(())
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // An error is seen by the write that follows.
        self.poll_drain(cx).map(drop)
    }

    fn node_stops(&mut self) {}
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_was_read_ahead_is_read_and_the_end_is_seen() {
        let (mut near, far) = duplex(64);
        let mut socket = Buffered::new(far);
        near.write_all(b"hello").await.unwrap();
        poll_fn(|cx| socket.poll_readable(cx)).await;
        let mut bytes = [0; 3];
        socket.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hel");
        drop(near);
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"lo");
        poll_fn(|cx| socket.poll_readable(cx)).await;
        assert_eq!(socket.read(&mut bytes).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_a_full_stream_was_given_goes_out_when_it_has_room() {
        let (mut near, far) = duplex(4);
        let mut socket = Buffered::new(far);
        assert_eq!(socket.write(b"0123456789").await.unwrap(), 10);
        let waits = poll_fn(|cx| Poll::Ready(socket.poll_writable(cx).is_pending())).await;
        assert!(waits, "nothing more is taken before that is gone");
        let mut bytes = [0; 10];
        let (read, shut) = tokio::join!(near.read_exact(&mut bytes), socket.shutdown());
        read.unwrap();
        shut.unwrap();
        assert_eq!(&bytes, b"0123456789");
    }
}
