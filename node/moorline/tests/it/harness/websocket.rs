//! A WebSocket client that says and hears JSON, with a deadline for each.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio_tungstenite::tungstenite::{Error, HandshakeError, Message, WebSocket, client::client};

use super::wait::{A_WHILE, SOON};

/// A connection. It ends with its handle.
pub(crate) struct Socket(WebSocket<TcpStream>);

/// What was heard.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    /// A message.
    Said(Value),
    /// The other side has closed it: the code, if it gave one.
    Closed(Option<u16>),
    /// Nothing in time.
    Nothing,
}

impl Socket {
    #[track_caller]
    pub(crate) fn open(to: SocketAddr, path: &str) -> Self {
        let stream = TcpStream::connect_timeout(&to, SOON).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let (socket, answer) = client(format!("ws://{to}{path}"), stream).unwrap();
        assert_eq!(answer.status(), 101);
        Self(socket)
    }

    /// The status of a handshake that is refused.
    #[track_caller]
    pub(crate) fn refused(to: SocketAddr, path: &str) -> u16 {
        let stream = TcpStream::connect_timeout(&to, SOON).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        match client(format!("ws://{to}{path}"), stream) {
            Err(HandshakeError::Failure(Error::Http(answer))) => answer.status().as_u16(),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until all that was said before was taken.
    #[track_caller]
    pub(crate) fn is_taken(&mut self) {
        self.0.send(Message::Ping(b"taken?".to_vec().into())).unwrap();
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            match self.0.read().unwrap() {
                Message::Pong(said) if said.as_ref() == b"taken?" => return,
                _ => {}
            }
        }
        panic!("there is no answer");
    }

    #[track_caller]
    pub(crate) fn say(&mut self, said: &Value) {
        self.0.send(Message::text(said.to_string())).unwrap();
    }

    pub(crate) fn hear(&mut self, within: Duration) -> Heard {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Heard::Nothing;
            }
            self.0.get_ref().set_read_timeout(Some(left)).unwrap();
            match self.0.read() {
                Ok(Message::Text(text)) => {
                    return Heard::Said(serde_json::from_str(text.as_str()).unwrap());
                }
                Ok(Message::Close(frame)) => {
                    return Heard::Closed(frame.map(|frame| u16::from(frame.code)));
                }
                Ok(_) => {}
                Err(Error::Io(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return Heard::Closed(None),
            }
        }
    }

    /// The next message.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Value {
        match self.hear(SOON) {
            Heard::Said(said) => said,
            other => panic!("{other:?}"),
        }
    }

    /// Nothing comes for a while.
    #[track_caller]
    pub(crate) fn hears_nothing(&mut self) {
        assert_eq!(self.hear(A_WHILE), Heard::Nothing);
    }

    /// The code that it is closed with.
    #[track_caller]
    pub(crate) fn closed(&mut self, within: Duration) -> Option<u16> {
        match self.hear(within) {
            Heard::Closed(code) => code,
            other => panic!("{other:?}"),
        }
    }
}
