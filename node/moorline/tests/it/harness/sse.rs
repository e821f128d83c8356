//! A reader of server-sent events, with a deadline for each.

use std::{
    io::{BufRead, BufReader, ErrorKind, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::Value;

/// How long a node may take to begin to answer.
const BEGIN_WAIT: Duration = Duration::from_secs(30);

/// An event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Said {
    /// Its type, if it is not the usual one.
    pub(crate) event: Option<String>,
    /// What it says; none if it only says where the stream is.
    pub(crate) data: Option<Value>,
    /// The cursor behind it.
    pub(crate) id: Option<String>,
}

/// A stream. It ends with its handle.
pub(crate) struct Sse {
    lines: BufReader<TcpStream>,
    line: String,
    /// The last cursor that was said.
    pub(crate) cursor: String,
}

impl Sse {
    /// Opens a stream; the status and the answer's body if it is none.
    pub(crate) fn open(
        to: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, (u16, String)> {
        let mut stream = TcpStream::connect_timeout(&to, BEGIN_WAIT).unwrap();
        stream.set_read_timeout(Some(BEGIN_WAIT)).unwrap();
        // Of HTTP/1.0, so that the body comes as it is.
        write!(stream, "GET {path} HTTP/1.0\r\nhost: {to}\r\naccept: text/event-stream\r\n")
            .unwrap();
        for (name, value) in headers {
            write!(stream, "{name}: {value}\r\n").unwrap();
        }
        write!(stream, "\r\n").unwrap();
        let mut sse =
            Self { lines: BufReader::new(stream), line: String::new(), cursor: String::new() };
        let deadline = Instant::now() + BEGIN_WAIT;
        let head = sse.until_empty(deadline).expect("a head");
        let status: u16 = head[0].split(' ').nth(1).unwrap().parse().unwrap();
        if status != 200 {
            let mut body = String::new();
            std::io::Read::read_to_string(&mut sse.lines, &mut body).unwrap();
            return Err((status, body));
        }
        assert!(head.iter().any(|line| line == "content-type: text/event-stream"), "{head:?}");
        let greeting = sse.said(deadline).expect("where it begins");
        assert_eq!(greeting.data, None);
        Ok(sse)
    }

    /// The next line, without its end; `None` when the stream ended or the time is over.
    fn next_line(&mut self, deadline: Instant) -> Option<String> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.lines.get_ref().set_read_timeout(Some(left)).unwrap();
            match self.lines.read_line(&mut self.line) {
                Ok(0) => return None,
                Ok(_) => {
                    let line = std::mem::take(&mut self.line);
                    return Some(line.trim_end_matches(['\r', '\n']).to_owned());
                }
                // What was read of the line stays in it.
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return None,
            }
        }
    }

    fn until_empty(&mut self, deadline: Instant) -> Option<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            let line = self.next_line(deadline)?;
            if line.is_empty() {
                return Some(lines);
            }
            lines.push(line);
        }
    }

    pub(crate) fn said(&mut self, deadline: Instant) -> Option<Said> {
        let lines = self.until_empty(deadline)?;
        let field = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name));
        let data = field("data: ").map(|data| serde_json::from_str(data).unwrap());
        let said = Said {
            event: field("event: ").map(str::to_owned),
            data,
            id: field("id: ").map(str::to_owned),
        };
        if let Some(id) = &said.id {
            self.cursor.clone_from(id);
        }
        Some(said)
    }

    /// The next event that says something; `None` when the stream ended or the time is over.
    pub(crate) fn next(&mut self, within: Duration) -> Option<Said> {
        let deadline = Instant::now() + within;
        loop {
            let said = self.said(deadline)?;
            if said.data.is_some() {
                return Some(said);
            }
        }
    }

    /// Whether the other side ends it, whatever comes before.
    pub(crate) fn ends(&mut self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while self.next_line(deadline).is_some() {}
        Instant::now() < deadline
    }
}
