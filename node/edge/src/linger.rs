//! A goodbye that is heard: closing a socket with unread bytes would reset the connection, and a reset throws away what the other
//! side has not read yet. Whoever refuses something without reading the rest of it has such bytes.
//!
//! Invariant: it ends within [`LINGER_WAIT`], and throws away no more than [`LINGER_BYTES_MAX`]. Checked by this file's test.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use tracing::debug;

/// How long a closed socket waits for the other side to close, so that the last answer is not lost to a reset.
const LINGER_WAIT: Duration = Duration::from_secs(1);
/// How much of what the other side still sends is thrown away meanwhile: more than any body that a client sends before it looks
/// for an answer.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// How much of that is read at a time.
const LINGER_READ_BYTES: usize = 4 * 1024;

/// Closes a stream so that what was written last still arrives.
pub async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, peer: SocketAddr) {
    // A failure to close politely leaves the rude way, which dropping is.
    let lingered = timeout(LINGER_WAIT, say_goodbye(stream)).await;
    debug!(%peer, ?lingered, "socket closed");
}

/// Says that nothing more comes and waits until the other side has closed.
async fn say_goodbye<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = vec![0; LINGER_READ_BYTES];
    let mut thrown = 0;
    while thrown < LINGER_BYTES_MAX {
        match stream.read(&mut rest).await? {
            0 => break,
            bytes => thrown += bytes,
        }
    }
    // A WebSocket's goodbye is answered; then what carries it is closed.
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::{io::duplex, time::Instant};

    use super::*;

    #[tokio::test]
    async fn it_waits_for_the_other_side_and_not_for_long() {
        let (within, peer) = (Duration::from_secs(20), SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        // The other side sends on, reads the end, and closes.
        let (mut near, mut far) = duplex(64);
        near.write_all(b"no").await.unwrap();
        let other = async {
            far.write_all(&[7; 1_000]).await.unwrap();
            let mut heard = Vec::new();
            far.read_to_end(&mut heard).await.unwrap();
            drop(far);
            heard
        };
        let ((), heard) =
            timeout(within, async { tokio::join!(linger(&mut near, peer), other) }).await.unwrap();
        assert_eq!(heard, b"no");
        // The other side does nothing.
        let (mut near, _far) = duplex(64);
        let begun = Instant::now();
        timeout(within, linger(&mut near, peer)).await.unwrap();
        assert!(begun.elapsed() >= LINGER_WAIT);
    }
}
