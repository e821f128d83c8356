//! An SDK: the requests it makes, byte for byte as the vendor's Python SDK makes them, and what it does with mail.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bytes::BytesMut;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
};

use super::{
    cluster::{DEVICE, FLEET},
    within,
};

#[derive(Debug, Clone)]
pub(crate) struct Sdk {
    socket: PathBuf,
}

/// An answer. Header names are in lower case.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and error.
    pub(crate) fn error(&self) -> (u16, String) {
        (self.status, self.json()["error"].as_str().unwrap_or_default().to_owned())
    }
}

/// Which device's agent this should be.
pub(crate) fn headers() -> String {
    format!("X-Fleet-ID: {FLEET}\r\nX-Device-ID: {DEVICE}\r\n")
}

impl Sdk {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { socket: directory.join("agent.sock") }
    }

    pub(crate) async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.unwrap()
    }

    /// A request without a body.
    pub(crate) async fn ask(&self, method: &str, path: &str) -> Answer {
        self.send(&format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", headers()))
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        let length = body.len();
        let headers = headers();
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\
             Content-Type: application/json; charset=utf-8\r\nAccept: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ))
        .await
    }

    /// These bytes, and the answer to them.
    pub(crate) async fn send(&self, bytes: &str) -> Answer {
        exchange(self.connect().await, bytes).await
    }

    /// Acknowledges and so on; whether more mail is there.
    pub(crate) async fn mail_op(&self, op: &str, id: &str) -> Answer {
        self.ask("PUT", &format!("/mailbox/{op}/{id}")).await
    }

    pub(crate) async fn events(&self) -> Events {
        let mut stream = self.connect().await;
        let request = format!(
            "GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\
             Cache-Control: no-cache\r\n{}Connection: keep-alive\r\n\r\n",
            headers()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut events = Events { stream, input: BytesMut::new() };
        let head = events.part(b"\r\n\r\n").await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Type: text/event-stream; charset=utf-8\r\n"), "{head}");
        assert!(!head.contains("Content-Length"), "{head}");
        events
    }
}

/// One request and its answer, until the agent closes.
pub(crate) async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    bytes: &str,
) -> Answer {
    let answer = async {
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let answer = within("an answer", answer).await;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let answer = Answer {
        status: status[..3].parse().unwrap(),
        headers: headers.collect(),
        body: answer[end + 4..].to_vec(),
    };
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    assert_eq!(answer.header("connection"), "close");
    answer
}

/// An event stream.
pub(crate) struct Events {
    stream: UnixStream,
    input: BytesMut,
}

impl Events {
    /// Bytes up to and with a mark, or `None` at the stream's end.
    async fn part(&mut self, mark: &[u8]) -> Option<String> {
        let reading = async {
            loop {
                let found = self.input.windows(mark.len()).position(|window| window == mark);
                if let Some(at) = found {
                    let part = self.input.split_to(at + mark.len());
                    return Some(String::from_utf8(part.to_vec()).unwrap());
                }
                if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        };
        within("an event", reading).await
    }

    /// The next event, as its bytes without the blank line; `None` at the stream's end.
    pub(crate) async fn next(&mut self) -> Option<String> {
        self.part(b"\n\n").await.map(|event| event.trim_end().to_owned())
    }

    /// Passes over others until this one, and returns it whole.
    pub(crate) async fn until(&mut self, event: &str) -> String {
        let line = format!("event: {event}");
        let reading = async {
            loop {
                let next = self.next().await.expect("the stream goes on");
                if next.lines().next() == Some(&line) {
                    return next;
                }
            }
        };
        within(event, reading).await
    }

    /// The data of the first `disconnected` that says why.
    pub(crate) async fn until_told_why(&mut self) -> Value {
        loop {
            let event = self.until("disconnected").await;
            if let Some(data) = event.strip_prefix("event: disconnected\ndata: ") {
                return serde_json::from_str(data).unwrap();
            }
        }
    }

    /// Until the uplink is up.
    pub(crate) async fn until_connected(&mut self) {
        self.until("connected").await;
    }
}

/// Takes all mail as the SDK does: from each event on, as long as there is more, and with `op` for each. Until so many
/// were taken; the ids, and how many the longest run had.
pub(crate) async fn drain(
    sdk: &Sdk,
    events: &mut Events,
    op: &str,
    count: usize,
) -> (Vec<String>, usize) {
    let (mut taken, mut longest) = (Vec::new(), 0);
    while taken.len() < count {
        events.until("new_mail").await;
        let mut run = 0;
        loop {
            let mail = sdk.ask("GET", "/mailbox/next").await;
            if mail.header("x-mailbox-empty") == "true" {
                break;
            }
            let id = mail.header("x-mail-id").to_owned();
            let settled = sdk.mail_op(op, &id).await;
            assert_eq!(settled.status, 200, "{settled:?}");
            taken.push(id);
            run += 1;
            longest = longest.max(run);
            if settled.header("x-mail-available") != "true" {
                break;
            }
        }
    }
    (taken, longest)
}
