//! The opening handshake (RFC 6455, 4.2): one HTTP request that becomes a stream of frames, or gets a refusal.
//!
//! # Invariants
//!
//! - **A request has at most [`REQUEST_BYTES_MAX`]**, and is parsed once it is whole. The deadline is the caller's.
//! - **The answer names one subprotocol that the client offered and we speak.** MQTT asks for it (5.0, 6.0), and a client
//!   that offers none is something else.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{
    self,
    error::ProtocolError,
    handshake::{
        machine::TryParse,
        server::{Request, create_response, write_response},
    },
    http::HeaderValue,
};

use crate::config::WsConfig;

/// Bytes of a handshake: browsers send 1 KiB, and more where cookies come along.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// The first read: a usual request.
const READ_BYTES: usize = 1_024;
/// What ends a request.
const END: &[u8] = b"\r\n\r\n";
/// The subprotocols that are MQTT. Which version is spoken is said by the CONNECT alone.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
const SUBPROTOCOL: &str = "Sec-WebSocket-Protocol";

/// Why a handshake did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No HTTP, or a wrong header.
    Malformed,
    /// A request over the limit.
    TooLarge,
    /// A request for something else than a WebSocket.
    NotWebSocket,
    /// A version of WebSocket other than 13.
    Version,
    /// No subprotocol of ours was offered.
    Subprotocol,
    /// A web page that may not connect here.
    Origin,
    /// The client left before it had its answer.
    Gone,
    /// The client took too long.
    Timeout,
}

impl Refused {
    /// All of them, for metrics.
    pub(crate) const ALL: [Self; 8] = [
        Self::Malformed,
        Self::TooLarge,
        Self::NotWebSocket,
        Self::Version,
        Self::Subprotocol,
        Self::Origin,
        Self::Gone,
        Self::Timeout,
    ];

    /// For a metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::NotWebSocket => "not_websocket",
            Self::Version => "version",
            Self::Subprotocol => "subprotocol",
            Self::Origin => "origin",
            Self::Gone => "gone",
            Self::Timeout => "timeout",
        }
    }

    /// Status, further headers and explanation; `None` if there is nobody to tell.
    fn answer(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Malformed => Some(("400 Bad Request", "", "not a WebSocket handshake")),
            Self::TooLarge => {
                Some(("431 Request Header Fields Too Large", "", "the request is too large"))
            }
            Self::NotWebSocket => {
                let upgrade = "Upgrade: websocket\r\n";
                Some(("426 Upgrade Required", upgrade, "this is MQTT over WebSocket"))
            }
            Self::Version => {
                let version = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
                Some(("426 Upgrade Required", version, "only WebSocket version 13 is spoken"))
            }
            Self::Subprotocol => {
                Some(("400 Bad Request", "", "offer the subprotocol mqtt or mqttv3.1"))
            }
            Self::Origin => Some(("403 Forbidden", "", "this origin may not connect")),
            Self::Gone | Self::Timeout => None,
        }
    }
}

/// Reads the request, of which `input` is there already, and answers it. What the client sent after its request is returned. With `http`, a request for something
/// else is not answered, nor is one for a WebSocket that is not MQTT: all that was read comes back with [`Refused::NotWebSocket`].
pub(super) async fn accept<S>(
    stream: &mut S,
    mut input: BytesMut,
    config: &WsConfig,
    http: bool,
) -> Result<BytesMut, (Refused, BytesMut)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let judged = match read(stream, &mut input).await {
        Ok((request, len)) => judge(&request, config).map(|answer| (answer, len)),
        Err(refused) => Err(refused),
    };
    if http && matches!(judged, Err(Refused::NotWebSocket | Refused::Subprotocol)) {
        return Err((Refused::NotWebSocket, input));
    }
    let gone = |_| (Refused::Gone, BytesMut::new());
    let (answer, accepted) = match judged {
        Ok((answer, len)) => (answer, Ok(input.split_off(len))),
        Err(refused) => (refusal(refused), Err((refused, BytesMut::new()))),
    };
    stream.write_all(&answer).await.map_err(gone)?;
    stream.flush().await.map_err(gone)?;
    accepted
}

/// Reads up to the end of a request, and a little more: the request, and its length.
async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    input: &mut BytesMut,
) -> Result<(Request, usize), Refused> {
    let mut searched = 0_usize;
    loop {
        // The end may have begun in the read before.
        let from = searched.saturating_sub(END.len() - 1);
        let end = input[from..].windows(END.len()).position(|bytes| bytes == END);
        if let Some(end) = end {
            let len = from + end + END.len();
            let parsed = Request::try_parse(&input[..len]).map_err(reason)?;
            return Ok((parsed.ok_or(Refused::Malformed)?.1, len));
        }
        if input.len() >= REQUEST_BYTES_MAX {
            return Err(Refused::TooLarge);
        }
        searched = input.len();
        input.reserve(READ_BYTES);
        if stream.read_buf(input).await.map_err(|_| Refused::Gone)? == 0 {
            return Err(Refused::Gone);
        }
    }
}

/// The answer to a request that may pass.
fn judge(request: &Request, config: &WsConfig) -> Result<Vec<u8>, Refused> {
    let mut response = create_response(request).map_err(reason)?;
    let headers = request.headers();
    if let Some(origin) = headers.get("Origin") {
        // A client that is no browser sends none, and could send any.
        let is_allowed =
            |allowed: &String| allowed.as_bytes().eq_ignore_ascii_case(origin.as_bytes());
        if !config.origins.is_empty() && !config.origins.iter().any(is_allowed) {
            return Err(Refused::Origin);
        }
    }
    let offered = headers.get_all(SUBPROTOCOL);
    let subprotocol = offered
        .iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(','))
        .find_map(|name| SUBPROTOCOLS.into_iter().find(|ours| *ours == name.trim()))
        .ok_or(Refused::Subprotocol)?;
    response.headers_mut().insert(SUBPROTOCOL, HeaderValue::from_static(subprotocol));
    let mut answer = Vec::new();
    write_response(&mut answer, &response).map_err(|_| Refused::Malformed)?;
    Ok(answer)
}

/// What the library's error means to a client.
fn reason(error: tungstenite::Error) -> Refused {
    let tungstenite::Error::Protocol(error) = error else { return Refused::Malformed };
    if matches!(
        error,
        ProtocolError::WrongHttpMethod
            // Of HTTP/1.0 there are no upgrades, but devices that speak it.
            | ProtocolError::WrongHttpVersion
            | ProtocolError::MissingConnectionUpgradeHeader
            | ProtocolError::MissingUpgradeWebSocketHeader
    ) {
        Refused::NotWebSocket
    } else if error == ProtocolError::MissingSecWebSocketVersionHeader {
        Refused::Version
    } else {
        Refused::Malformed
    }
}

fn refusal(refused: Refused) -> Vec<u8> {
    let Some((status, headers, text)) = refused.answer() else { return Vec::new() };
    let len = text.len() + 1;
    format!(
        "HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Type: text/plain\r\n\
         Content-Length: {len}\r\n\r\n{text}\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /any/path?x HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\
        Sec-WebSocket-Extensions: permessage-deflate\r\n";

    async fn shake(request: &[u8], origins: &[&str]) -> (Result<BytesMut, Refused>, String) {
        let (mut client, mut server) = tokio::io::duplex(64 * 1024);
        let config = WsConfig { origins: origins.iter().map(|&o| o.to_owned()).collect() };
        client.write_all(request).await.unwrap();
        client.shutdown().await.unwrap();
        let accepted = accept(&mut server, BytesMut::new(), &config, false)
            .await
            .map_err(|(refused, _)| refused);
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        (accepted, answer)
    }

    #[tokio::test]
    async fn a_good_request_is_accepted_and_what_follows_is_kept() {
        let (rest, answer) = shake(format!("{GOOD}\r\n\u{82}").as_bytes(), &[]).await;
        assert_eq!(rest.unwrap(), "\u{82}".as_bytes());
        let answer = answer.to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 101 switching protocols\r\n"), "{answer}");
        assert!(answer.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"));
        assert!(answer.contains("\r\nsec-websocket-protocol: mqtt\r\n"));
        assert!(!answer.contains("extensions") && answer.ends_with("\r\n\r\n"));
    }

    #[tokio::test]
    async fn the_first_subprotocol_that_is_ours_is_echoed() {
        for (offered, echoed) in [
            ("mqttv3.1", "mqttv3.1"),
            ("soap, mqttv3.1 ,mqtt", "mqttv3.1"),
            ("soap\r\nSec-WebSocket-Protocol: mqtt", "mqtt"),
        ] {
            let request = GOOD.replace("Protocol: mqtt", &format!("Protocol: {offered}"));
            let (accepted, answer) = shake(format!("{request}\r\n").as_bytes(), &[]).await;
            assert!(accepted.is_ok(), "{offered}");
            let echo = format!("sec-websocket-protocol: {echoed}\r\n");
            assert!(answer.to_ascii_lowercase().contains(&echo), "{answer}");
        }
    }

    #[tokio::test]
    async fn what_is_wrong_is_answered_with_its_status() {
        let without = |line: &str| GOOD.replace(line, "X: ");
        let large = format!("{GOOD}Cookie: {}\r\n", "x".repeat(REQUEST_BYTES_MAX));
        #[rustfmt::skip]
        let table = [
            (without("Sec-WebSocket-Protocol: "),              Refused::Subprotocol,  "400"),
            (GOOD.replace("Protocol: mqtt", "Protocol: MQTT"), Refused::Subprotocol,  "400"),
            (GOOD.replace("Protocol: mqtt", "Protocol: soap"), Refused::Subprotocol,  "400"),
            (without("Upgrade: "),                             Refused::NotWebSocket, "426"),
            (without("Connection: "),                          Refused::NotWebSocket, "426"),
            (GOOD.replace("GET", "POST"),                      Refused::NotWebSocket, "426"),
            (GOOD.replace("Version: 13", "Version: 8"),        Refused::Version,      "426"),
            (without("Sec-WebSocket-Key: "),                   Refused::Malformed,    "400"),
            (GOOD.replace("dGhl", "dGh"),                      Refused::Malformed,    "400"),
            (GOOD.replace("HTTP/1.1", "HTTP/1.0"),             Refused::NotWebSocket, "426"),
            ("\x10\x0d\0\x04MQTT\x04\r\n".to_owned(),          Refused::Malformed,    "400"),
            (large,                                            Refused::TooLarge,     "431"),
        ];
        for (request, refused, status) in table {
            let (accepted, answer) = shake(format!("{request}\r\n").as_bytes(), &[]).await;
            assert_eq!(accepted, Err(refused), "{request}");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}\n{answer}");
        }
        assert_eq!(shake(GOOD.as_bytes(), &[]).await, (Err(Refused::Gone), String::new()));
    }

    #[tokio::test]
    async fn where_http_is_spoken_too_another_request_comes_back_whole() {
        let other = format!("{}\r\nmore", GOOD.replace("Protocol: mqtt", "Protocol: soap"));
        for request in [
            "GET /v1 HTTP/1.1\r\nHost: h\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\n\r\nbody",
            &other,
        ] {
            let (mut client, mut server) = tokio::io::duplex(64 * 1024);
            client.write_all(request.as_bytes()).await.unwrap();
            let read = BytesMut::from(request.as_bytes());
            let accepted = accept(&mut server, BytesMut::new(), &WsConfig::default(), true).await;
            assert_eq!(accepted, Err((Refused::NotWebSocket, read)));
        }
    }

    #[tokio::test]
    async fn a_page_may_connect_if_its_origin_is_listed_or_none_is() {
        let from = |origin: &str| format!("{GOOD}Origin: {origin}\r\n\r\n");
        let table: [(&[&str], &str, bool); 5] = [
            (&[], "https://evil.example", true),
            (&["https://a.example"], "https://a.example", true),
            (&["https://b.example", "https://A.example"], "https://a.example", true),
            (&["https://a.example"], "https://a.example.evil.example", false),
            (&["https://a.example"], "null", false),
        ];
        for (allowed, origin, passes) in table {
            let (accepted, answer) = shake(from(origin).as_bytes(), allowed).await;
            assert_eq!(accepted.is_ok(), passes, "{allowed:?} {origin}");
            assert_eq!(answer.starts_with("HTTP/1.1 403 "), !passes);
        }
        let (accepted, _) = shake(format!("{GOOD}\r\n").as_bytes(), &["https://a.example"]).await;
        assert!(accepted.is_ok(), "no browser, no origin");
    }
}
