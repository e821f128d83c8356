//! A WebSocket as a stream of MQTT's bytes (MQTT 5.0, 6; RFC 6455): what is read is the payload of binary frames, what
//! is written becomes binary frames.
//!
//! ```text
//!   stream ──read──► input ──► frames ──payload──► poll_read
//!   stream ◄─write── output ◄── one frame at a time ◄── poll_write
//! ```
//!
//! # Invariants
//!
//! - **Quiet, it owns no buffer**: `input` and `output` are given back when they are empty. Checked by
//!   `tests/memory_websocket.rs`.
//! - **Bounded**: one frame of ours waits at most, and one answer to the client's last ping.
//! - **A client that breaks a rule is told its code**, then nothing of it counts any more. Checked by
//!   `tests/websocket.rs`.

mod frames;
mod handshake;

use std::{
    fmt, io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use moorline_mqtt::server::Limit;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use self::frames::{Incoming, Next};
pub(crate) use self::{frames::Violation, handshake::Refused};
use crate::{config::WsConfig, edge::Edge, metrics::EdgeMetrics, socket::Socket};

/// The first read of a quiet client: a device's usual packet in its frame, and then some.
const READ_BYTES_MIN: usize = 2 * 1024;
/// The largest read of a busy one.
const READ_BYTES_MAX: usize = 64 * 1024;
/// The most payload of one frame of ours: what may wait for a slow client beside the machine's own queue.
const FRAME_BYTES_MAX: usize = 64 * 1024;

/// How far the closing handshake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Both speak.
    Open,
    /// We have said goodbye; what still comes is thrown away up to the client's goodbye.
    Closing,
    /// The client broke a rule: nothing is read any more.
    Failed,
    /// The same, and our side is shut down: what comes is given to whoever throws it away, because closing with unread
    /// bytes would reset the connection, and the client might never see why.
    Draining,
    /// Nothing more comes.
    Ended,
}

/// A server's end of a WebSocket over `stream`.
pub(crate) struct WebSocket<S> {
    stream: S,
    metrics: Arc<EdgeMetrics>,
    incoming: Incoming,
    /// What was read and is not passed on yet.
    input: BytesMut,
    /// Room for the next read.
    chunk: usize,
    /// Frames of ours that the stream has not taken yet.
    output: BytesMut,
    /// A control frame that goes out after them.
    reply: Option<(Control, BytesMut)>,
    state: State,
    /// What is said if we close first.
    goodbye: CloseCode,
}

impl<S> fmt::Debug for WebSocket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("state", &self.state).finish_non_exhaustive()
    }
}

impl<S: Socket> WebSocket<S> {
    /// Makes a WebSocket of a stream that begins with the client's handshake, of which `input` was read. A refusal gives the
    /// stream back, so that it can be closed politely; one for [`Refused::NotWebSocket`] with what was read of it, and unanswered if `http`: then
    /// somebody else answers it.
    pub(crate) async fn accept(
        mut stream: S,
        input: BytesMut,
        config: &WsConfig,
        edge: &Edge,
        http: bool,
    ) -> Result<Self, (Refused, S, BytesMut)> {
        let input = match handshake::accept(&mut stream, input, config, http).await {
            Ok(input) => input,
            Err((refused, read)) => return Err((refused, stream, read)),
        };
        Ok(Self {
            stream,
            metrics: Arc::clone(&edge.metrics),
            incoming: Incoming::new(edge.settings.now().protocol.packet_bytes_max),
            // A copy of its own: the rest would keep the request's memory.
            input: BytesMut::from(&input[..]),
            chunk: READ_BYTES_MIN,
            output: BytesMut::new(),
            reply: None,
            state: State::Open,
            goodbye: CloseCode::Normal,
        })
    }

    /// Reads up to the next payload. `false` if none comes any more.
    fn poll_payload(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if matches!(self.state, State::Failed | State::Draining | State::Ended) {
                // What was said last has to be on its way before anybody drops this.
                ready!(self.poll_drain(cx))?;
                return Poll::Ready(Ok(false));
            }
            // If it can't go out yet, that is no reason not to read.
            if let Poll::Ready(drained) = self.poll_drain(cx) {
                drained?;
            }
            match self.incoming.advance(&mut self.input) {
                Ok(Next::Data) if self.state == State::Closing => {
                    self.incoming.skip(&mut self.input);
                }
                Ok(Next::Data) => return Poll::Ready(Ok(true)),
                Ok(Next::More) => {
                    if !ready!(self.poll_fill(cx))? {
                        self.end(State::Ended);
                    }
                }
                // Only the last ping needs its answer (RFC 6455, 5.5.3).
                Ok(Next::Ping(payload)) => self.reply(Control::Pong, payload),
                Ok(Next::Pong) => {}
                Ok(Next::Close(code)) => {
                    self.say_close(code);
                    self.end(State::Ended);
                }
                Err(violation) => {
                    self.metrics.websocket_violated(violation);
                    if violation == Violation::TooLarge {
                        self.metrics.reached_in_protocol(Limit::PacketBytes, 1);
                    }
                    self.say_close(Some(violation.code()));
                    self.end(State::Failed);
                }
            }
        }
    }

    fn end(&mut self, state: State) {
        self.state = state;
        self.input = BytesMut::new();
    }

    /// Answers with a control frame, unless goodbye was said.
    fn reply(&mut self, control: Control, payload: BytesMut) {
        let closes = matches!(self.reply, Some((Control::Close, _)));
        if self.state == State::Open && !closes {
            self.reply = Some((control, payload));
        }
    }

    fn say_close(&mut self, code: Option<CloseCode>) {
        let payload = code.map(|code| u16::from(code).to_be_bytes());
        self.reply(Control::Close, BytesMut::from(payload.as_ref().map_or(&[][..], |code| code)));
    }

    /// Reads more into the input. `false` at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.stream.poll_readable(cx).is_ready() {
            self.input.reserve(self.chunk);
            let room = self.input.capacity() - self.input.len();
            let read = pin!(self.stream.read_buf(&mut self.input)).poll(cx);
            if let Poll::Ready(read) = read {
                let read = read?;
                let wanted = if read == room { self.chunk * 2 } else { read };
                self.chunk = wanted.clamp(READ_BYTES_MIN, READ_BYTES_MAX);
                return Poll::Ready(Ok(read > 0));
            }
        }
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        Poll::Pending
    }

    /// Writes what waits, and what has to be said after it.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.output.is_empty() {
                match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.output))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    written => self.output.advance(written),
                }
            }
            match self.reply.take() {
                Some((control, payload)) => {
                    frames::put(OpCode::Control(control), &payload, &mut self.output);
                }
                None => break,
            }
        }
        if self.output.capacity() > 0 {
            self.output = BytesMut::new();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

impl<S: Socket> Socket for WebSocket<S> {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_payload(cx).map(drop)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.poll_drain(cx)) {
            Ok(()) => self.stream.poll_writable(cx),
            Err(_) => Poll::Ready(()),
        }
    }

    fn node_stops(&mut self) {
        self.goodbye = CloseCode::Away;
    }
}

impl<S: Socket> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.state == State::Draining {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        if ready!(this.poll_payload(cx))? {
            this.incoming.take(&mut this.input, buf);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket> AsyncWrite for WebSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.state != State::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.poll_drain(cx))?;
        let part = &bytes[..bytes.len().min(FRAME_BYTES_MAX)];
        frames::put(OpCode::Data(Data::Binary), part, &mut this.output);
        if let Poll::Ready(drained) = this.poll_drain(cx) {
            drained?;
        }
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_drain(cx)
    }

    /// Says goodbye. Once the client has as well, or has failed, the stream below is shut down.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.state == State::Open {
            this.say_close(Some(this.goodbye));
            this.state = State::Closing;
        }
        ready!(this.poll_drain(cx))?;
        match this.state {
            State::Open | State::Closing => Poll::Ready(Ok(())),
            State::Failed | State::Draining => {
                this.state = State::Draining;
                Pin::new(&mut this.stream).poll_shutdown(cx)
            }
            State::Ended => Pin::new(&mut this.stream).poll_shutdown(cx),
        }
    }
}
