//! A WebSocket that a platform speaks over HTTP's listener: messages of text, both ways. MQTT's is not here (`node/edge`).
//!
//! # Invariants
//!
//! - **A message has at most [`MESSAGE_BYTES_MAX`]**, and a frame no more.
//! - **Whoever says nothing for long, not even to a ping, is gone**: [`SILENCE_MAX`]. And who takes nothing: `STALL_MAX`, as of HTTP.
//! - **A goodbye is heard**: what still comes is thrown away for a moment ([`GOODBYE_WAIT`]).
//!
//! Checked by `tests/it/websocket.rs`, and below.

use std::{fmt, pin::Pin, time::Duration};

use futures_util::{SinkExt, StreamExt};
use moorline_edge::Stream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tracing::debug;

/// Bytes of a message.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// How often a client is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// After how long without a word from it, not even an answer to that, it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// How long the client's own goodbye is waited for.
const GOODBYE_WAIT: Duration = Duration::from_secs(1);
/// What a quiet one keeps for the next read.
const READ_BYTES: usize = 4 * 1024;
/// What is put together for one write: each message is written at once.
const WRITE_BYTES: usize = 0;

/// Says what is to be said on a WebSocket, until it is over.
pub type Talk = Box<dyn FnOnce(WebSocket) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// The server's end of a WebSocket.
pub struct WebSocket {
    stream: WebSocketStream<Box<dyn Stream>>,
    heard: Instant,
    ping: Interval,
    silence_max: Duration,
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").finish_non_exhaustive()
    }
}

/// What was heard.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A message of text.
    Text(String),
    /// One of bytes.
    Bytes,
    /// The client has gone, or has broken the rules: there is nobody to tell.
    Gone,
}

impl WebSocket {
    /// After the handshake; `begun`: what came behind it.
    pub(crate) async fn new(stream: Box<dyn Stream>, begun: Vec<u8>) -> Self {
        Self::patient(stream, begun, PING_INTERVAL, SILENCE_MAX).await
    }

    async fn patient(
        stream: Box<dyn Stream>,
        begun: Vec<u8>,
        asks_every: Duration,
        silence_max: Duration,
    ) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(WRITE_BYTES)
            .max_write_buffer_size(usize::MAX)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let stream =
            WebSocketStream::from_partially_read(stream, begun, Role::Server, Some(config)).await;
        let heard = Instant::now();
        let mut ping = interval_at(heard + asks_every, asks_every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { stream, heard, ping, silence_max }
    }

    /// Waits for the client's next message. Losing the future loses none.
    pub async fn hear(&mut self) -> Heard {
        loop {
            let message = tokio::select! {
                biased; // what it said comes first: this node may have stood still, and not the client
                message = self.stream.next() => message,
                _ = self.ping.tick() => {
                    if self.heard.elapsed() > self.silence_max {
                        return Heard::Gone;
                    }
                    // It goes out with the next read, or write.
                    if self.stream.feed(Message::Ping(Vec::new().into())).await.is_err() {
                        return Heard::Gone;
                    }
                    continue;
                }
            };
            self.heard = Instant::now();
            match message {
                Some(Ok(Message::Text(text))) => return Heard::Text(text.as_str().to_owned()),
                Some(Ok(Message::Binary(_))) => return Heard::Bytes,
                // The library answers pings, and a goodbye.
                Some(Ok(
                    Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_),
                )) => {}
                Some(Err(error)) => {
                    debug!(%error, "a WebSocket ended badly");
                    return Heard::Gone;
                }
                None => return Heard::Gone,
            }
        }
    }

    /// Says something. `false`: there is nobody who could hear it. Not to be dropped half way.
    pub async fn say(&mut self, text: String) -> bool {
        self.stream.send(Message::text(text)).await.is_ok()
    }

    /// Says goodbye, why, and waits a moment for the answer.
    pub async fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        let said = timeout(GOODBYE_WAIT, self.stream.send(Message::Close(Some(frame)))).await;
        if matches!(said, Ok(Ok(()))) {
            let answered = async { while let Some(Ok(_)) = self.stream.next().await {} };
            let heard = timeout(GOODBYE_WAIT, answered).await;
            debug!(?heard, "a WebSocket was closed");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::duplex, task::JoinSet};

    use super::*;

    const ASKS_EVERY: Duration = Duration::from_millis(20);
    const SILENCE: Duration = Duration::from_secs(1);
    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn who_does_not_answer_a_ping_is_gone_and_who_does_is_not() {
        let patient = |stream| WebSocket::patient(stream, Vec::new(), ASKS_EVERY, SILENCE);
        let (silent, near) = duplex(64 * 1024);
        let (mut of_silent, (far, other)) = (patient(Box::new(near)).await, duplex(64 * 1024));
        let mut of_lively = patient(Box::new(other)).await;
        // The library answers, while it is read.
        let mut lively = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        let mut answers = JoinSet::new();
        answers.spawn(async move { while let Some(Ok(_)) = lively.next().await {} });
        let began = Instant::now();
        let heard = timeout(DEADLINE, of_silent.hear());
        let (heard, still) = tokio::join!(heard, timeout(2 * SILENCE, of_lively.hear()));
        assert_eq!(heard.unwrap(), Heard::Gone);
        assert!(began.elapsed() > SILENCE);
        assert!(still.is_err(), "nothing was heard, and it is there");
        drop(silent);
    }
}
