//! An answer, and its bytes.
//!
//! Invariant: nothing that came from elsewhere can end a header early. Checked by this file's tests.

use bytes::{BufMut, Bytes, BytesMut};
use moorline_core::{UnixMillis, calendar::http_date};
use moorline_dialects::fostrom::sse;
use serde_json::json;

use super::{reader::Refused, route::Identity};
use crate::config::VERSION;

/// Milliseconds of a second.
const SECOND_MS: u64 = 1_000;

/// An answer, without what stands in every one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

/// What every answer says of the agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing<'a> {
    pub(crate) identity: &'a Identity,
    /// Whether the uplink is up.
    pub(crate) connected: bool,
    /// Now.
    pub(crate) unix_s: u64,
}

impl Response {
    /// 200 with JSON.
    pub(crate) fn ok(body: &serde_json::Value) -> Self {
        Self { status: 200, headers: Vec::new(), body: Bytes::from(body.to_string()) }
    }

    /// 200 with nothing.
    pub(crate) fn empty() -> Self {
        Self { status: 200, headers: Vec::new(), body: Bytes::new() }
    }

    /// A refusal. One to HEAD has this body, too: that is what the SDKs look at.
    pub(crate) fn error(status: u16, error: &str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::from(json!({ "error": error }).to_string()),
        }
    }

    /// With one more header.
    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// Its bytes.
    pub(crate) fn encode(&self, standing: Standing<'_>) -> Bytes {
        let mut output = head(self.status, standing);
        put(&mut output, "Connection", "close");
        put(&mut output, "Content-Type", "application/json; charset=utf-8");
        put(&mut output, "Content-Length", &self.body.len().to_string());
        for (name, value) in &self.headers {
            put(&mut output, name, value);
        }
        output.put_slice(b"\r\n");
        output.put_slice(&self.body);
        output.freeze()
    }
}

impl From<Refused> for Response {
    fn from(refused: Refused) -> Self {
        let status = match refused {
            Refused::Bad(_) => 400,
            Refused::Version => 505,
        };
        Self::error(status, &refused.to_string())
    }
}

/// What stands before an event stream, which has neither a length nor chunks: the SDKs read until it ends.
pub(crate) fn stream_head(standing: Standing<'_>) -> Bytes {
    let mut output = head(200, standing);
    put(&mut output, "Connection", "keep-alive");
    put(&mut output, "Content-Type", sse::CONTENT_TYPE);
    put(&mut output, "X-Accel-Buffering", "no");
    output.put_slice(b"\r\n");
    output.freeze()
}

fn head(status: u16, standing: Standing<'_>) -> BytesMut {
    let mut output = BytesMut::new();
    output.put_slice(format!("HTTP/1.1 {status} {}\r\n", reason(status)).as_bytes());
    put(&mut output, "Cache-Control", "no-cache");
    put(&mut output, "Date", &http_date(UnixMillis(standing.unix_s * SECOND_MS)));
    put(&mut output, "Server", &format!("Moorline-Device-Agent/{VERSION}"));
    put(&mut output, "X-Powered-By", "Moorline");
    put(&mut output, "X-API-Version", "1");
    put(&mut output, "X-Protocol", "Moonlight");
    put(&mut output, "X-Protocol-Version", "1");
    put(&mut output, "X-Agent-Version", VERSION.trim_start_matches('v'));
    put(&mut output, "X-Connected", if standing.connected { "true" } else { "false" });
    put(&mut output, "X-Fleet-ID", &standing.identity.fleet);
    put(&mut output, "X-Device-ID", &standing.identity.device);
    output
}

fn put(output: &mut BytesMut, name: &str, value: &str) {
    output.put_slice(name.as_bytes());
    output.put_slice(b": ");
    // A mail's name comes from elsewhere.
    let visible = |byte: u8| if matches!(byte, b' '..=b'~') { byte } else { b'?' };
    output.extend(value.bytes().map(visible));
    output.put_slice(b"\r\n");
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(identity: &Identity) -> Standing<'_> {
        Standing { identity, connected: true, unix_s: 784_111_777 }
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    const ALWAYS: &str = "Cache-Control: no-cache\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
        Server: Moorline-Device-Agent/v0.1.0\r\nX-Powered-By: Moorline\r\nX-API-Version: 1\r\n\
        X-Protocol: Moonlight\r\nX-Protocol-Version: 1\r\nX-Agent-Version: 0.1.0\r\n\
        X-Connected: true\r\nX-Fleet-ID: FLEET001\r\nX-Device-ID: DEVICE0001\r\n";

    #[test]
    fn an_answer_has_all_headers_that_sdks_know() {
        let identity = Identity::new("FLEET001", "DEVICE0001");
        let response = Response::ok(&json!({ "ok": true })).with("X-Mail-Available", false);
        let expected = format!(
            "HTTP/1.1 200 OK\r\n{ALWAYS}Connection: close\r\n\
             Content-Type: application/json; charset=utf-8\r\nContent-Length: 11\r\n\
             X-Mail-Available: false\r\n\r\n{{\"ok\":true}}"
        );
        assert_eq!(text(&response.encode(standing(&identity))), expected);
    }

    #[test]
    fn a_stream_has_no_length_and_stays() {
        let identity = Identity::new("FLEET001", "DEVICE0001");
        let expected = format!(
            "HTTP/1.1 200 OK\r\n{ALWAYS}Connection: keep-alive\r\n\
             Content-Type: text/event-stream; charset=utf-8\r\nX-Accel-Buffering: no\r\n\r\n"
        );
        assert_eq!(text(&stream_head(standing(&identity))), expected);
    }

    #[test]
    fn refusals_of_the_reader_have_their_status() {
        for (refused, status) in [(Refused::Bad("x"), 400), (Refused::Version, 505)] {
            let response = Response::from(refused);
            assert_eq!(response.status, status);
            assert_eq!(response.body, json!({ "error": refused.to_string() }).to_string());
        }
    }

    #[test]
    fn nothing_ends_a_header_early() {
        let identity = Identity::new("FLEET001", "DEVICE0001");
        let response = Response::empty().with("X-Mail-Name", "a\r\nX-Evil: é\0\t");
        let bytes = response.encode(standing(&identity));
        assert!(text(&bytes).ends_with("\r\nX-Mail-Name: a??X-Evil: ????\r\n\r\n"), "{bytes:?}");
    }

    #[test]
    fn every_status_has_its_words() {
        for status in [200, 400, 401, 403, 404, 408, 505] {
            assert_ne!(reason(status), reason(500), "{status}");
        }
    }
}
