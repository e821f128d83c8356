//! Server-sent events: the bytes of the stream, as the vendor's SDKs parse them.
//!
//! Their parsers want a colon and a space behind a field's name, and a blank line at the end of an event.

use bytes::Bytes;
use serde_json::json;

/// The device's link to the cluster is up. The first event of a stream of the cluster itself.
pub const CONNECTED: &[u8] = b"event: connected\n\n";
/// Mail waits.
pub const NEW_MAIL: &[u8] = b"event: new_mail\n\n";
/// The device's link is down, and nobody knows why.
pub const DISCONNECTED: &[u8] = b"event: disconnected\n\n";
/// How long a stream may be silent before [`keep_alive`] goes out.
pub const KEEP_ALIVE_MS: u64 = 15_000;
/// The Content-Type of a stream.
pub const CONTENT_TYPE: &str = "text/event-stream; charset=utf-8";

/// What a stream of the cluster begins with.
#[must_use]
pub fn opening(mail_waits: bool) -> Bytes {
    let mut bytes = CONNECTED.to_vec();
    if mail_waits {
        bytes.extend_from_slice(NEW_MAIL);
    }
    Bytes::from(bytes)
}

/// The device's link is down: why, and in how many milliseconds the agent tries again.
#[must_use]
pub fn disconnected(error: &str, reconnecting_in_ms: u64) -> Bytes {
    let data = json!({ "error": error, "reconnecting_in_ms": reconnecting_in_ms });
    Bytes::from(format!("event: disconnected\ndata: {data}\n\n"))
}

/// The stream lives: with the time, in milliseconds since 1970.
#[must_use]
pub fn keep_alive(unix_ms: u64) -> Bytes {
    Bytes::from(format!("event: keep_alive\ndata: {unix_ms}\n\n"))
}
