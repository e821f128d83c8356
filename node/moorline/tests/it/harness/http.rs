//! A very small HTTP client: one request a connection, or one connection that is kept; deadlines, no surprises.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// Longer than `cluster init` may take.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// A paused node accepts connections and says nothing, so only this tells it from a slow one.
const GLANCE_WAIT: Duration = Duration::from_secs(2);

/// Status, head and body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// All of it, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Asks for something that is there at once, or is not to be had now.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    request("GET", address, path, GLANCE_WAIT)
}

/// Asks for something to be done.
pub(crate) fn post(address: SocketAddr, path: &str) -> io::Result<Answer> {
    request("POST", address, path, ANSWER_WAIT)
}

fn request(method: &str, to: SocketAddr, path: &str, wait: Duration) -> io::Result<Answer> {
    send(method, to, path, &[], "", wait)
}

/// Asks the API for something, with more headers and a JSON body.
#[track_caller]
pub(crate) fn api(
    method: &str,
    to: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    send(method, to, path, headers, body, ANSWER_WAIT).unwrap()
}

fn send(
    method: &str,
    to: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
    wait: Duration,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&to, wait)?;
    stream.set_read_timeout(Some(wait))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n")?;
    for (name, value) in headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    if !body.is_empty() {
        write!(stream, "content-type: application/json\r\n")?;
    }
    write!(stream, "content-length: {}\r\n\r\n{body}", body.len())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let head = head.to_ascii_lowercase();
    let is_chunked = head.contains("transfer-encoding: chunked");
    let body = if is_chunked { unchunked(body)? } else { body.to_owned() };
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Answer { status, head, body })
}

/// A connection that stays for more than one request.
pub(crate) struct Kept(BufReader<TcpStream>);

impl Kept {
    pub(crate) fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&to, ANSWER_WAIT).unwrap();
        stream.set_read_timeout(Some(ANSWER_WAIT)).unwrap();
        Self(BufReader::new(stream))
    }

    /// Asks without a body; the answer's body has a length.
    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(self.0.read_line(&mut head).unwrap() > 0, "closed after {head:?}");
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        let head = head.to_ascii_lowercase();
        let length = head.split_once("content-length: ").and_then(|(_, rest)| rest.lines().next());
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.0.read_exact(&mut body).unwrap();
        Answer { status, head, body: String::from_utf8(body).unwrap() }
    }
}

/// A body without the lengths of its chunks, up to the last one.
fn unchunked(mut body: &str) -> io::Result<String> {
    let mut whole = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let length = usize::from_str_radix(length, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        if length == 0 {
            return Ok(whole);
        }
        let chunk = rest.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
        whole.push_str(chunk);
        let rest = &rest[length..];
        body = rest.strip_prefix("\r\n").ok_or(io::ErrorKind::InvalidData)?;
    }
}
