//! Devices over HTTP: routes, parameters and answers (§3.6).
//!
//! | route | |
//! |---|---|
//! | `GET /` | 200: the endpoint lives |
//! | `POST /v1/CHANNEL[/SUFFIX…]` | an event |
//! | `POST /ttn`, `/ttn/v2`, `/ttn/v3` | an uplink of The Things Network |
//!
//! In two steps, so that nobody's body is read before it is known who that is.

use bytes::Bytes;

use super::{
    event::OCTETS,
    identity::{self, Credentials},
    outcome::Refusal,
    words::{parameter, unescaped},
};

/// The longest that a request waits for a command.
pub const WAIT_S_MAX: u32 = 3_600;
/// The most bytes of a path that is looked at.
const PATH_BYTES_MAX: usize = 4 * 1024;
/// The most bytes of a query that is looked at.
const QUERY_BYTES_MAX: usize = 8 * 1024;
/// In which an answer says which command it is.
pub const COMMAND_HEADER: &str = "command";

/// The head of a request.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// `POST`, …
    pub method: &'a str,
    /// The path, without its query.
    pub path: &'a str,
    /// The query, without its `?`.
    pub query: &'a str,
    /// Headers: names in any case.
    pub headers: &'a [(&'a str, &'a [u8])],
}

impl<'a> Head<'a> {
    /// A header; the first one of its name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| *value)
    }

    /// The same, if it is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.header(name)?).ok()
    }
}

/// Which messages of The Things Network are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttn {
    /// Version 3; what the plain address means.
    V3,
    /// Version 2.
    V2,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Whether the endpoint lives.
    Alive,
    /// An event.
    Publish {
        /// Its channel.
        channel: String,
        /// What stands behind the channel: it is no part of it.
        suffix: Option<String>,
    },
    /// An uplink.
    Ttn(Ttn),
}

/// A request that may be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What for.
    pub route: Route,
    /// Who asks; nobody has to for [`Route::Alive`].
    pub credentials: Option<Credentials>,
    /// For which device it speaks, if not for itself.
    pub speaks_as: Option<String>,
    /// The schema of what it says.
    pub data_schema: Option<String>,
    /// How long it waits for a command, in seconds; 0: not at all.
    pub wait_s: u32,
}

/// Whether a path is one of this endpoint; `/` is too many platforms' to be claimed.
#[must_use]
pub fn is_path(path: &str) -> bool {
    path.starts_with("/v1/") || path == "/ttn" || path.starts_with("/ttn/")
}

/// What a request's head asks for. `proven`: TLS proved a certificate or a pre-shared key.
///
/// # Errors
///
/// [`Refusal`], in this order: path, method, parameters, credentials.
pub fn route(head: &Head<'_>, proven: bool) -> Result<Asked, Refusal> {
    if head.path == "/" {
        let is_get = matches!(head.method, "GET" | "HEAD");
        let alive = Asked {
            route: Route::Alive,
            credentials: None,
            speaks_as: None,
            data_schema: None,
            wait_s: 0,
        };
        return is_get.then_some(alive).ok_or(Refusal::Method);
    }
    let route = path(head.path).ok_or(Refusal::NotFound)?;
    if head.method != "POST" {
        return Err(Refusal::Method);
    }
    if head.query.len() > QUERY_BYTES_MAX {
        return Err(Refusal::Format("The query is too long".to_owned()));
    }
    let said = |name| parameter(head.query, name);
    let wait = said("ct").or_else(|| said("commandTimeout"));
    let wait_s = wait.map_or(Ok(0), |wait| wait.parse::<u64>());
    let wait_s = wait_s.map_err(|_| Refusal::Format("ct is no number of seconds".to_owned()))?;
    let data_schema = said("data_schema");
    if data_schema.as_deref().is_some_and(has_controls) {
        return Err(Refusal::Format("data_schema has control characters".to_owned()));
    }
    let (application, device) = (said("application"), said("device"));
    let credentials = identity::http(
        application.as_deref(),
        device.as_deref(),
        head.header("authorization"),
        proven,
    );
    Ok(Asked {
        route,
        credentials: Some(credentials.ok_or(Refusal::Authentication)?),
        speaks_as: said("as"),
        data_schema,
        wait_s: u32::try_from(wait_s).unwrap_or(WAIT_S_MAX).min(WAIT_S_MAX),
    })
}

/// Whether a text can't be said as a property of MQTT, or would break what shows it.
fn has_controls(text: &str) -> bool {
    text.chars().any(char::is_control)
}

fn path(path: &str) -> Option<Route> {
    if path.len() > PATH_BYTES_MAX {
        return None;
    }
    match path {
        "/ttn" | "/ttn/" | "/ttn/v3" => return Some(Route::Ttn(Ttn::V3)),
        "/ttn/v2" => return Some(Route::Ttn(Ttn::V2)),
        _ => {}
    }
    let rest = path.strip_prefix("/v1/")?;
    let (channel, suffix) = match rest.split_once('/') {
        None => (rest, None),
        Some((channel, suffix)) => (channel, Some(suffix).filter(|suffix| !suffix.is_empty())),
    };
    let channel = unescaped(channel).filter(|channel| !channel.is_empty())?;
    let suffix = suffix.map_or(Some(None), |suffix| unescaped(suffix).map(Some))?;
    if has_controls(&channel) || suffix.as_deref().is_some_and(has_controls) {
        return None;
    }
    Some(Route::Publish { channel, suffix })
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its headers, but for the length.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub body: Bytes,
}

impl Response {
    /// Nothing but a status.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// JSON.
    #[must_use]
    pub fn json(status: u16, body: Bytes) -> Self {
        let headers = vec![("content-type", super::event::JSON.to_owned())];
        Self { status, headers, body }
    }

    /// It was refused.
    #[must_use]
    pub fn refused(refusal: &Refusal) -> Self {
        Self::json(refusal.status(), refusal.body())
    }

    /// The event was accepted, and a command came.
    #[must_use]
    pub fn command(name: &str, payload: Bytes) -> Self {
        let headers = vec![(COMMAND_HEADER, name.to_owned()), ("content-type", OCTETS.to_owned())];
        Self { status: 200, headers, body: payload }
    }
}

/// Whether a command's name can stand in a header: one that can't is not sent over HTTP.
#[must_use]
pub fn fits_header(name: &str) -> bool {
    name.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}
