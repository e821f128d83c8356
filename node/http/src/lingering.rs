//! A goodbye that is heard: closing a socket with unread bytes would reset the connection, and a reset throws away what the other
//! side has not read yet. Whoever refuses a request without reading its body has such bytes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How long the other side is waited for.
const LINGER_WAIT: Duration = Duration::from_secs(1);
/// How much is thrown away meanwhile: more than any body that a client would send before it looks for an answer.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// Bytes thrown away at a time.
const READ_BYTES: usize = 4 * 1024;

/// A stream whose shutdown waits for the other side's, for a moment.
#[derive(Debug)]
pub(crate) struct Lingering<S> {
    stream: S,
    /// Since its own end was said: until when it waits, and how much it threw away.
    said: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S> Lingering<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, said: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
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

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.said.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.said = Some((Box::pin(sleep(LINGER_WAIT)), 0));
        }
        let (ends, thrown) = this.said.as_mut().expect("it was said above");
        while *thrown < LINGER_BYTES_MAX && ends.as_mut().poll(cx).is_pending() {
            let mut rest = [0; READ_BYTES];
            let mut rest = ReadBuf::new(&mut rest);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut rest)) {
                Ok(()) if !rest.filled().is_empty() => *thrown += rest.filled().len(),
                // It is gone, one way or the other.
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::{Instant, timeout},
    };

    use super::*;

    #[tokio::test]
    async fn it_waits_for_the_other_side_and_not_for_long() {
        let within = Duration::from_secs(20);
        // The other side sends on, reads the end, and closes.
        let (near, mut far) = duplex(64);
        let mut near = Lingering::new(near);
        near.write_all(b"no").await.unwrap();
        let other = async {
            far.write_all(&[7; 1_000]).await.unwrap();
            let mut heard = Vec::new();
            far.read_to_end(&mut heard).await.unwrap();
            drop(far);
            heard
        };
        let both = async { tokio::join!(near.shutdown(), other) };
        let (ended, heard) = timeout(within, both).await.unwrap();
        ended.unwrap();
        assert_eq!(heard, b"no");
        // The other side does nothing.
        let (near, _far) = duplex(64);
        let begun = Instant::now();
        timeout(within, Lingering::new(near).shutdown()).await.unwrap().unwrap();
        assert!(begun.elapsed() >= LINGER_WAIT);
    }
}
