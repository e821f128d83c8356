//! Bytes of a connection, cut anywhere, to the one request it may carry.
//!
//! First the head's lines are counted and measured as they come, so that nothing is kept that will be refused; once the
//! blank line is there, `httparse` reads it.
//!
//! Invariant: the same bytes give the same request or refusal, however they are cut. Checked by this file's tests.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

/// The longest line of a head, without its end.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// The most headers.
const HEADERS_MAX: usize = 64;
/// The most bytes of a head: far below 64 lines of the longest, because nobody sends those and each connection may hold
/// as much.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The most bytes of a body: what Moonlight carries.
pub(crate) const BODY_BYTES_MAX: usize = moorline_moonlight::codec::PAYLOAD_BYTES_MAX;
/// What a body's Content-Type has to begin with.
const JSON: &[u8] = b"application/json";

/// What may be asked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
}

/// A whole request. Of its headers only those that decide something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// As it stands there, with everything behind a `?`: paths are matched literally.
    pub(crate) path: String,
    /// `X-Fleet-ID`; empty if it is missing.
    pub(crate) fleet: Bytes,
    /// `X-Device-ID`; empty if it is missing.
    pub(crate) device: Bytes,
    pub(crate) body: Bytes,
}

/// Why there will be no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Refused {
    /// Not what is understood here.
    #[error("bad_request: {0}")]
    Bad(&'static str),
    /// Another version of HTTP.
    #[error("HTTP Version Not Supported")]
    Version,
}

/// Reads one request.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    input: BytesMut,
    /// Where looking for line ends goes on.
    scanned: usize,
    /// Where the present line begins.
    line: usize,
    /// Lines that have ended.
    lines: usize,
    /// The request without its body, and how long that is.
    head: Option<(Request, usize)>,
}

impl Reader {
    /// Whether nothing has come yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.input.is_empty() && self.head.is_none()
    }

    /// Takes what the socket gave. What comes after the request's end is ignored: one request per connection.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<Option<Request>, Refused> {
        self.input.extend_from_slice(bytes);
        if self.head.is_none() {
            let Some(end) = self.end_of_head()? else { return Ok(None) };
            let head = self.input.split_to(end).freeze();
            self.head = Some(read_head(&head)?);
        }
        let whole = self.head.take_if(|(_, length)| self.input.len() >= *length);
        Ok(whole.map(|(mut request, length)| {
            request.body = self.input.split_to(length).freeze();
            request
        }))
    }

    /// Where the head ends, if it does.
    fn end_of_head(&mut self) -> Result<Option<usize>, Refused> {
        while let Some(byte) = self.input.get(self.scanned) {
            let ends = *byte == b'\n';
            self.scanned += 1;
            if !ends {
                // One more than the limit: it may be the line's end.
                if self.scanned - self.line > LINE_BYTES_MAX + 1 {
                    return Err(Refused::Bad("a line is too long"));
                }
                if self.scanned > HEAD_BYTES_MAX {
                    return Err(Refused::Bad("the head is too long"));
                }
                continue;
            }
            match self.input[self.line..self.scanned - 1].split_last() {
                Some((b'\r', [])) if self.lines == 0 => {
                    return Err(Refused::Bad("a blank line before the request"));
                }
                Some((b'\r', [])) => return Ok(Some(self.scanned)),
                Some((b'\r', _)) => {}
                _ => return Err(Refused::Bad("a line does not end in CR LF")),
            }
            self.line = self.scanned;
            self.lines += 1;
            if self.lines > 1 + HEADERS_MAX {
                return Err(Refused::Bad("too many headers"));
            }
        }
        Ok(None)
    }
}

fn read_head(head: &Bytes) -> Result<(Request, usize), Refused> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Refused::Bad("the head is malformed")),
        Err(httparse::Error::Version) => return Err(Refused::Version),
        Err(
            httparse::Error::HeaderName
            | httparse::Error::HeaderValue
            | httparse::Error::NewLine
            | httparse::Error::Status
            | httparse::Error::Token
            | httparse::Error::TooManyHeaders,
        ) => return Err(Refused::Bad("the head is malformed")),
    }
    if parsed.version != Some(1) {
        return Err(Refused::Version);
    }
    let method = match parsed.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some("POST") => Method::Post,
        Some("PUT") => Method::Put,
        Some("DELETE") => Method::Delete,
        _ => return Err(Refused::Bad("the method is not supported")),
    };
    let headers = Headers(parsed.headers);
    let length = headers.body_length()?;
    let request = Request {
        method,
        path: parsed.path.unwrap_or_default().to_owned(),
        fleet: Bytes::copy_from_slice(headers.one("x-fleet-id")?),
        device: Bytes::copy_from_slice(headers.one("x-device-id")?),
        body: Bytes::new(),
    };
    Ok((request, length))
}

struct Headers<'a>(&'a [httparse::Header<'a>]);

impl Headers<'_> {
    /// A header's value; empty if it is missing.
    fn one(&self, name: &str) -> Result<&[u8], Refused> {
        let mut found = self.0.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        match (found.next(), found.next()) {
            (None, _) => Ok(b""),
            (Some(header), None) => Ok(header.value),
            (Some(_), Some(_)) => Err(Refused::Bad("a header stands there twice")),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|header| header.name.eq_ignore_ascii_case(name))
    }

    fn body_length(&self) -> Result<usize, Refused> {
        if self.has("transfer-encoding") {
            return Err(Refused::Bad("bodies come with Content-Length only"));
        }
        if !self.has("content-length") {
            return Ok(0);
        }
        let digits = self.one("content-length")?;
        let length =
            std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit));
        let length = length.and_then(|digits| digits.parse::<u64>().ok());
        let length = length.ok_or(Refused::Bad("Content-Length is no number"))?;
        let length = usize::try_from(length).ok().filter(|length| *length <= BODY_BYTES_MAX);
        let length = length.ok_or(Refused::Bad("the body is too long"))?;
        let kind = self.one("content-type")?;
        let json = kind.get(..JSON.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(JSON));
        if length > 0 && !json {
            return Err(Refused::Bad("bodies are application/json"));
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of these bytes, given in parts of `step`.
    fn read(bytes: &[u8], step: usize) -> Result<Option<Request>, Refused> {
        let mut reader = Reader::default();
        for part in bytes.chunks(step) {
            match reader.take(part) {
                Ok(None) => {}
                other => return other,
            }
        }
        Ok(None)
    }

    fn check(bytes: &str, expected: Result<Option<&str>, &str>) {
        for step in [usize::MAX, 1, 2, 7] {
            let request = read(bytes.as_bytes(), step);
            let seen = request.map(|request| {
                request.map(|request| {
                    let Request { method, path, fleet, device, body } = request;
                    format!("{method:?} {path} {fleet:?} {device:?} {body:?}")
                })
            });
            let seen = seen.map_err(|refused| refused.to_string());
            let expected = expected.map(|text| text.map(str::to_owned)).map_err(str::to_owned);
            let shown: String = bytes.chars().take(300).collect();
            assert_eq!(seen, expected, "{shown:?} in parts of {step}");
        }
    }

    #[test]
    fn requests_are_read() {
        #[rustfmt::skip]
        let table = [
            ("GET / HTTP/1.1\r\n\r\n", r#"Get / b"" b"" b"""#),
            ("GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nX-Fleet-ID: F\r\nX-Device-ID: D\r\nConnection: keep-alive\r\n\r\n",
                r#"Get /events b"F" b"D" b"""#),
            ("HEAD /mailbox/next?x=1 HTTP/1.1\r\nx-fleet-id:F\r\nX-DEVICE-ID:  D \r\n\r\n", r#"Head /mailbox/next?x=1 b"F" b"D" b"""#),
            ("PUT /mailbox/ack/x HTTP/1.1\r\nContent-Length: 0\r\n\r\n", r#"Put /mailbox/ack/x b"" b"" b"""#),
            ("DELETE /stop-agent HTTP/1.1\r\n\r\n", r#"Delete /stop-agent b"" b"" b"""#),
            ("POST /p HTTP/1.1\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 4\r\n\r\nnull", r#"Post /p b"" b"" b"null""#),
            ("POST /p HTTP/1.1\r\nContent-Type: APPLICATION/JSON\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\n", r#"Post /p b"" b"" b"{}""#),
        ];
        for (bytes, expected) in table {
            check(bytes, Ok(Some(expected)));
        }
    }

    #[test]
    fn what_is_not_all_there_is_waited_for() {
        let body =
            "POST /p HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nnull";
        for bytes in ["", "G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\n\r", body] {
            check(bytes, Ok(None));
        }
    }

    #[test]
    fn what_is_not_http_1_1_as_sdks_speak_it_is_refused() {
        let version = "HTTP Version Not Supported";
        let malformed = "bad_request: the head is malformed";
        let method = "bad_request: the method is not supported";
        let ending = "bad_request: a line does not end in CR LF";
        let chunked = "bad_request: bodies come with Content-Length only";
        let number = "bad_request: Content-Length is no number";
        let json = "bad_request: bodies are application/json";
        let twice = "bad_request: a header stands there twice";
        #[rustfmt::skip]
        let table = [
            ("GET / HTTP/1.0\r\n\r\n", version),
            ("GET / HTTP/2.0\r\n\r\n", version),
            ("GET / HTTP/1.2\r\n\r\n", version),
            ("GET / http/1.1\r\n\r\n", version),
            ("PRI * HTTP/2.0\r\n\r\n", version),
            ("GET / HTTP/1.1 \r\n\r\n", malformed),
            ("GET  / HTTP/1.1\r\n\r\n", malformed),
            ("GET /a b HTTP/1.1\r\n\r\n", version),
            (" GET / HTTP/1.1\r\n\r\n", malformed),
            ("GET / HTTP/1.1\r\nno colon\r\n\r\n", malformed),
            ("GET / HTTP/1.1\r\nspace : x\r\n\r\n", malformed),
            ("GET / HTTP/1.1\r\na: b\r\n folded\r\n\r\n", malformed),
            ("GET / HTTP/1.1\r\na: b\0\r\n\r\n", malformed),
            ("\r\nGET / HTTP/1.1\r\n\r\n", "bad_request: a blank line before the request"),
            ("GET / HTTP/1.1\n\n", ending),
            ("GET / HTTP/1.1\r\na: b\n\r\n", ending),
            ("\n", ending),
            ("OPTIONS / HTTP/1.1\r\n\r\n", method),
            ("PATCH / HTTP/1.1\r\n\r\n", method),
            ("CONNECT a:1 HTTP/1.1\r\n\r\n", method),
            ("get / HTTP/1.1\r\n\r\n", method),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", chunked),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}", chunked),
            ("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", number),
            ("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", number),
            ("POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", number),
            ("POST / HTTP/1.1\r\nContent-Length: 2, 2\r\n\r\n", number),
            ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", number),
            ("POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", twice),
            ("GET / HTTP/1.1\r\nX-Fleet-ID: F\r\nx-fleet-id: F\r\n\r\n", twice),
            ("POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 65537\r\n\r\n", "bad_request: the body is too long"),
            ("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", json),
            ("POST / HTTP/1.1\r\nContent-Type: text/json\r\nContent-Length: 2\r\n\r\n{}", json),
            ("POST / HTTP/1.1\r\nContent-Type: application/js\r\nContent-Length: 2\r\n\r\n{}", json),
        ];
        for (bytes, expected) in table {
            check(bytes, Err(expected));
        }
    }

    #[test]
    fn limits_are_where_they_are_said_to_be() {
        let with = |headers: &str| format!("GET / HTTP/1.1\r\n{headers}\r\n");
        let line = |length: usize| with(&format!("a: {}\r\n", "x".repeat(length - 3)));
        let path = |length: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(length - 14));
        let body = |length: usize| {
            let head = "POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: ";
            format!("{head}{length}\r\n\r\n{}", "1".repeat(length))
        };
        let wide = format!("a: {}\r\n", "x".repeat(LINE_BYTES_MAX - 3));
        #[rustfmt::skip]
        let table = [
            (line(LINE_BYTES_MAX), None),
            (line(LINE_BYTES_MAX + 1), Some("bad_request: a line is too long")),
            (path(LINE_BYTES_MAX), None),
            (path(LINE_BYTES_MAX + 1), Some("bad_request: a line is too long")),
            ("x".repeat(LINE_BYTES_MAX + 2), Some("bad_request: a line is too long")),
            (with(&"a: b\r\n".repeat(HEADERS_MAX)), None),
            (with(&"a: b\r\n".repeat(HEADERS_MAX + 1)), Some("bad_request: too many headers")),
            (with(&wide.repeat(7)), None),
            (with(&wide.repeat(8)), Some("bad_request: the head is too long")),
            (body(BODY_BYTES_MAX), None),
        ];
        for (bytes, expected) in table {
            for step in [usize::MAX, 1000] {
                let seen = read(bytes.as_bytes(), step).map(|request| assert!(request.is_some()));
                let seen = seen.err().map(|refused| refused.to_string());
                assert_eq!(seen.as_deref(), expected, "{} bytes", bytes.len());
            }
        }
    }
}
