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
    /// The last number that the client was asked to say, if any.
    probed: Option<u64>,
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
    /// It has heard all that was said before it was asked with this number ([`WebSocket::probe`]).
    Upto(u64),
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
        let (heard, ping) = (Instant::now(), ping(asks_every));
        Self { stream, heard, ping, silence_max, probed: None }
    }

    /// From now on the client is asked so often whether it is there, and is gone after so long without a word.
    pub fn ask_every(&mut self, asks_every: Duration, silence_max: Duration) {
        self.ping = ping(asks_every);
        self.silence_max = silence_max;
    }

    /// Asks the client to say that it has heard all that was said up to now: [`Heard::Upto`]. Of two numbers the later is the larger; a
    /// client may answer the last one alone. `false`: there is nobody who could hear it. Not to be dropped half way.
    pub async fn probe(&mut self, number: u64) -> bool {
        self.probed = Some(number);
        let asked = Message::Ping(number.to_be_bytes().to_vec().into());
        self.stream.send(asked).await.is_ok()
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
                Some(Ok(Message::Pong(said))) => {
                    let number = <[u8; 8]>::try_from(said.as_ref()).ok().map(u64::from_be_bytes);
                    // Nobody says more than it was asked.
                    if let Some(number) = number.filter(|number| Some(*number) <= self.probed) {
                        return Heard::Upto(number);
                    }
                }
                // The library answers pings, and a goodbye.
                Some(Ok(Message::Ping(_) | Message::Close(_) | Message::Frame(_))) => {}
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

fn ping(every: Duration) -> Interval {
    let mut ping = interval_at(Instant::now() + every, every);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping
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

    #[tokio::test]
    async fn what_a_client_has_heard_it_says_and_no_more() {
        let (far, near) = duplex(64 * 1024);
        let mut socket = WebSocket::new(Box::new(near), Vec::new()).await;
        let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        let pong = |number: u64| Message::Pong(number.to_be_bytes().to_vec().into());
        client.send(pong(0)).await.unwrap();
        client.send(Message::text("first")).await.unwrap();
        assert_eq!(socket.hear().await, Heard::Text("first".to_owned()), "it was not asked");
        assert!(socket.say("event".to_owned()).await && socket.probe(7).await);
        // The library answers what is read.
        assert_eq!(client.next().await.unwrap().unwrap(), Message::text("event"));
        assert!(matches!(client.next().await, Some(Ok(Message::Ping(_)))));
        client.flush().await.unwrap();
        assert_eq!(timeout(DEADLINE, socket.hear()).await.unwrap(), Heard::Upto(7));
        for said in [pong(8), Message::Pong(Vec::new().into()), pong(7)] {
            client.send(said).await.unwrap();
        }
        assert_eq!(timeout(DEADLINE, socket.hear()).await.unwrap(), Heard::Upto(7));
    }
}
