//! What may be asked: URL, method and headers, before anybody is asked for an address. Pure.
//!
//! # Invariants
//!
//! - **Who asks decides nothing about the connection**: no `Host`, no length, nothing that is meant for the next hop.
//! - **A host is a name or an address in its usual form**: whoever connects reads the same as whoever judged.
//!
//! Checked by this file's tests.

use std::{fmt, net::Ipv6Addr, str::FromStr, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Uri,
    header::{HeaderName, HeaderValue, USER_AGENT},
};

use crate::unanswered::Unanswered;

/// The longest URL.
const URL_BYTES_MAX: usize = 2_048;
/// The longest name of a host, as the domain name system has it.
const HOST_BYTES_MAX: usize = 253;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// Bytes of all of them.
const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// What may be asked for.
const METHODS: [Method; 5] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
/// Headers that are about the connection or the message, not about what it says.
const FORBIDDEN: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Who asks, if the request does not say it.
const AGENT: &str = "moorline";

/// A request to an endpoint, as somebody wants it.
#[derive(Clone)]
pub struct Request {
    /// `POST`, … in any case.
    pub method: String,
    /// Where.
    pub url: String,
    /// Headers, but for the length.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// How long it may take in all. No longer than the configuration allows.
    pub within: Duration,
}

/// By hand: URLs and headers have secrets in them.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, within, .. } = self;
        f.debug_struct("Request")
            .field("method", method)
            .field("within", within)
            .finish_non_exhaustive()
    }
}

/// A request that may be sent, if its host's address may be asked.
pub(crate) type Checked = hyper::Request<Full<Bytes>>;

/// Checks all of a request that can be checked without asking anybody.
pub(crate) fn checked(request: &Request) -> Result<Checked, Unanswered> {
    let mut ready = hyper::Request::new(Full::new(request.body.clone()));
    *ready.uri_mut() = uri(&request.url).ok_or(Unanswered::Url)?;
    *ready.method_mut() = method(&request.method).ok_or(Unanswered::Method)?;
    *ready.headers_mut() = headers(&request.headers).ok_or(Unanswered::Header)?;
    Ok(ready)
}

/// The host of a URL, for logs.
pub(crate) fn host(url: &str) -> String {
    uri(url).and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default()
}

fn uri(url: &str) -> Option<Uri> {
    if url.len() > URL_BYTES_MAX {
        return None;
    }
    let uri = Uri::from_str(url).ok()?;
    let is_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let (authority, host) = (uri.authority()?.as_str(), uri.host()?);
    // A user name would be in front of it.
    let port = authority.strip_prefix(host)?;
    let is_port = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(port) => port.parse::<u16>().is_ok_and(|port| port != 0),
    };
    (is_scheme && is_port && is_host(host)).then_some(uri)
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']');
        return address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !host.is_empty() && host.len() <= HOST_BYTES_MAX && host.bytes().all(is_plain)
}

fn method(name: &str) -> Option<Method> {
    METHODS.into_iter().find(|method| method.as_str().eq_ignore_ascii_case(name))
}

fn headers(wanted: &[(String, String)]) -> Option<HeaderMap> {
    let bytes: usize = wanted.iter().map(|(name, value)| name.len() + value.len()).sum();
    if wanted.len() > HEADERS_MAX || bytes > HEADERS_BYTES_MAX {
        return None;
    }
    let mut headers = HeaderMap::with_capacity(wanted.len() + 1);
    for (name, value) in wanted {
        let name = HeaderName::from_str(name).ok()?;
        if FORBIDDEN.contains(&name.as_str()) {
            return None;
        }
        headers.append(name, HeaderValue::from_str(value).ok()?);
    }
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(method: &str, url: &str, headers: &[(&str, &str)]) -> Option<Unanswered> {
        let headers = headers.iter();
        let request = Request {
            method: method.to_owned(),
            url: url.to_owned(),
            headers: headers.map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            body: Bytes::new(),
            within: Duration::ZERO,
        };
        checked(&request).err()
    }

    #[test]
    fn urls_are_of_hosts_and_of_http() {
        for good in [
            "http://a.example",
            "https://a.example:8443/x?y=z#w",
            "http://a_b-c.example./",
            "http://192.0.2.1:1/",
            "http://[2001:db8::1]:80/",
            "HTTPS://A.example/",
        ] {
            assert_eq!(refused("POST", good, &[]), None, "{good}");
        }
        let (long, name) = (format!("http://a/{}", "x".repeat(2_048)), "n".repeat(254));
        let name = format!("http://{name}/");
        for wrong in [
            "",
            "a.example",
            "/x",
            "ftp://a.example/",
            "file:///etc/passwd",
            "gopher://a/",
            "http://",
            "http:///x",
            "http://user@a.example/",
            "http://user:pw@a.example/",
            "http://a.example@127.0.0.1/",
            "http://a.example:0/",
            "http://a.example:/",
            "http://a.example:99999/",
            "http://a.example:x/",
            "http://[::1%25eth0]/",
            "http://[127.0.0.1]/",
            "http://a b/",
            "http://a%2eexample/",
            "http://ä.example/",
            "http://a.example\r\nx/",
            &long,
            &name,
        ] {
            assert_eq!(refused("POST", wrong, &[]), Some(Unanswered::Url), "{wrong}");
        }
    }

    #[test]
    fn methods_and_headers_say_nothing_of_the_connection() {
        for good in ["GET", "post", "Put", "PATCH", "DELETE"] {
            assert_eq!(refused(good, "http://a/", &[("X-A", "b"), ("x-a", "c")]), None, "{good}");
        }
        for wrong in ["", "CONNECT", "TRACE", "OPTIONS", "HEAD", "GET /x HTTP/1.1"] {
            assert_eq!(refused(wrong, "http://a/", &[]), Some(Unanswered::Method), "{wrong}");
        }
        let header = |name: &str, value: &str| refused("GET", "http://a/", &[(name, value)]);
        for name in FORBIDDEN {
            assert_eq!(header(name, "x"), Some(Unanswered::Header), "{name}");
            assert_eq!(header(&name.to_uppercase(), "x"), Some(Unanswered::Header), "{name}");
        }
        let long = "x".repeat(HEADERS_BYTES_MAX);
        for (name, value) in
            [("", "x"), ("a b", "x"), ("a:", "x"), ("a", "x\r\ny: z"), ("a", "\0"), ("a", &long)]
        {
            assert_eq!(header(name, value), Some(Unanswered::Header), "{name:?}");
        }
        let many = vec![("a", "b"); HEADERS_MAX + 1];
        assert_eq!(refused("GET", "http://a/", &many), Some(Unanswered::Header));
        assert_eq!(header("authorization", "Bearer x"), None);
    }
}
