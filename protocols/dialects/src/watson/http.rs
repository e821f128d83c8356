//! Messaging over HTTP: routes to messages, outcomes to statuses (§1.7).
//!
//! In two steps, so that nobody's body is read before it is known who that is: [`route`] takes what the head says, and
//! [`message`] or [`wait_s`] the body. Which of the speakers is meant, and whether the token is right, the registry says in
//! between.
//!
//! # Invariants
//!
//! - **The same message as by MQTT.** A route becomes a [`Message`] with the same canonical name. Checked by
//!   `posts_are_the_messages_of_mqtt`.
//! - **A refusal has no body and ends the connection.** Checked by `outcomes_have_their_statuses`.

use bytes::Bytes;
use moorline_core::{Text, topic};
use serde::Deserialize;

use super::{
    PAYLOAD_BYTES_MAX,
    connect::SESSION_EXPIRY_S_DEFAULT,
    identity::{self, BasicUser, ClientId, DeviceName, Who, name},
    topics::Message,
};
use crate::secret::Secret;

/// The longest that a request waits for a command.
pub const WAIT_S_MAX: u32 = 3_600;
/// The most bytes of a path: all its names at their longest, each byte escaped.
const PATH_BYTES_MAX: usize = 512;
/// The most bytes of a body that asks for a command.
pub const WAIT_BODY_BYTES_MAX: usize = 1_024;
/// How long a session lasts that a request for commands has made. No session of MQTT 3 lasts as long, and hardly one of MQTT 5: by
/// this a request knows that whoever has the session is another request.
pub const SESSION_EXPIRY_S: u32 = SESSION_EXPIRY_S_DEFAULT + 1;
/// What every path of this API begins with.
const PREFIX: &str = "/api/v0002";
/// What a path begins with.
const BASE: [&str; 3] = ["", "api", "v0002"];
/// Levels of a command's canonical topic.
const COMMAND_LEVELS: usize = 9;
/// Stands for any name where a command is asked for.
const ANY: &[u8] = b"+";

/// The head of a request.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// `POST`, …
    pub method: &'a str,
    /// The path, without its query.
    pub path: &'a str,
    /// Headers: names in any case.
    pub headers: &'a [(&'a str, &'a [u8])],
}

impl<'a> Head<'a> {
    /// A header that stands there once; `None` if it does not, or several times.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let mut found = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name))
    }
}

/// A name, or any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// `+`
    Any,
    /// This one.
    Name(Text),
}

impl Pattern {
    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes == ANY { Some(Self::Any) } else { name(bytes).map(Self::Name) }
    }

    /// As a level of a filter.
    fn level(&self) -> &str {
        match self {
            Self::Any => "+",
            Self::Name(name) => name.as_str(),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Publish an event. Its format is the content type's.
    Event {
        /// Whose.
        device: DeviceName,
        /// Which.
        event: Text,
    },
    /// Publish a command.
    Command {
        /// For whom.
        device: DeviceName,
        /// Which.
        command: Text,
    },
    /// Take one queued command. Its subscription is durable, and made the first time.
    FetchCommand {
        /// Of which type; a device has its own.
        kind: Pattern,
        /// Of which device; a device has itself.
        id: Pattern,
        /// Which.
        command: Pattern,
    },
}

impl Route {
    /// The canonical filter of the commands that are asked for; `None` of who asks for none.
    #[must_use]
    pub fn filter(&self) -> Option<Text> {
        let Self::FetchCommand { kind, id, command } = self else { return None };
        let (kind, id, command) = (kind.level(), id.level(), command.level());
        Some(Text::from(format!("iot-2/type/{kind}/id/{id}/cmd/{command}/fmt/+")))
    }
}

/// A route, and who may be asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    /// What is asked for.
    pub route: Route,
    /// Who it can be: the one that exists and has the token ([`BasicUser::Gateway`]). Never empty.
    pub speakers: Vec<ClientId>,
    /// What it proves that with. An application's key is its client id, with `-` for `:`.
    pub secret: Secret,
    /// The application's key, if that is who asks.
    pub key: Option<identity::ApiKey>,
}

/// A status that refuses. There is no body, and the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Refusal {
    /// The body is empty, or not what it should be.
    BadRequest = 400,
    /// The credentials, the organisation, or the path and they do not fit together.
    Forbidden = 403,
    /// There is no such path.
    NotFound = 404,
    /// There is no method but POST.
    Method = 405,
    /// The body has more than [`PAYLOAD_BYTES_MAX`].
    TooLarge = 413,
    /// The content type has no format.
    MediaType = 415,
    /// Something broke.
    Failed = 500,
    /// There is no capacity, or no connection to who decides.
    Unavailable = 503,
}

/// Whether a path is one of this API.
#[must_use]
pub fn is_path(path: &str) -> bool {
    path.strip_prefix(PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a path is one of the few that messaging has.
pub(super) fn is_messaging(path: &str) -> bool {
    self::path(path).is_some()
}

/// What a request's head asks for.
///
/// # Errors
///
/// [`Refusal`], in this order: method, path, credentials.
pub fn route(head: &Head<'_>) -> Result<Routed, Refusal> {
    if head.method != "POST" {
        return Err(Refusal::Method);
    }
    let (of_application, route) = path(head.path).ok_or(Refusal::NotFound)?;
    let host = head.header("host").and_then(identity::host).ok_or(Refusal::Forbidden)?;
    let authorization = head.header("authorization").and_then(identity::basic);
    let (user, secret) = authorization.ok_or(Refusal::Forbidden)?;
    let org = host.org;
    if org.as_bytes() == identity::QUICKSTART.as_bytes() {
        // Its devices have no credentials, and this API nothing else.
        return Err(Refusal::Forbidden);
    }
    let client = |who| ClientId { org: org.clone(), who };
    let (speakers, key) = match user {
        BasicUser::Application(key) if of_application && key.org == org => {
            (vec![key.client_id()], Some(key))
        }
        BasicUser::Gateway { org: of, readings } if !of_application && of == org => {
            (readings.into_iter().map(|gateway| client(Who::Gateway(gateway))).collect(), None)
        }
        BasicUser::PathDevice if !of_application => {
            let device = named(&route).ok_or(Refusal::Forbidden)?;
            (vec![client(Who::Device(device))], None)
        }
        BasicUser::Application(_) | BasicUser::Gateway { .. } | BasicUser::PathDevice => {
            return Err(Refusal::Forbidden);
        }
    };
    Ok(Routed { route, speakers, secret, key })
}

/// The one device that a path names.
fn named(route: &Route) -> Option<DeviceName> {
    match route {
        Route::Event { device, .. } | Route::Command { device, .. } => Some(device.clone()),
        Route::FetchCommand { kind: Pattern::Name(kind), id: Pattern::Name(id), .. } => {
            Some(DeviceName { kind: kind.clone(), id: id.clone() })
        }
        Route::FetchCommand { .. } => None,
    }
}

/// What a path asks for, and whether it is for applications.
fn path(path: &str) -> Option<(bool, Route)> {
    if path.len() > PATH_BYTES_MAX {
        return None;
    }
    let mut parts = path.split('/');
    if !BASE.iter().all(|expected| parts.next() == Some(expected)) {
        return None;
    }
    let parts: Option<Vec<Vec<u8>>> = parts.map(unescape).collect();
    let parts = parts?;
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let [who, b"types", kind, b"devices", id, what, word, rest @ ..] = parts.as_slice() else {
        return None;
    };
    let device = || DeviceName::new(kind, id);
    match (*who, *what, rest) {
        (b"device", b"events", []) => {
            Some((false, Route::Event { device: device()?, event: name(word)? }))
        }
        (b"application", b"events", []) => {
            Some((true, Route::Event { device: device()?, event: name(word)? }))
        }
        (b"application", b"commands", []) => {
            Some((true, Route::Command { device: device()?, command: name(word)? }))
        }
        (b"device", b"commands", [b"request"]) => {
            let (kind, id) = (Pattern::parse(kind)?, Pattern::parse(id)?);
            Some((false, Route::FetchCommand { kind, id, command: Pattern::parse(word)? }))
        }
        _ => None,
    }
}

/// A part of a path without its `%xx`; `+` stays what it is.
pub(super) fn unescape(part: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        if *byte == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*byte);
            rest = after;
        }
    }
    Some(bytes)
}

/// The message that a request publishes; `None` for [`Route::FetchCommand`].
///
/// # Errors
///
/// [`Refusal`], in this order: size, content type, emptiness.
pub fn message(route: &Route, head: &Head<'_>, body: &Bytes) -> Result<Option<Message>, Refusal> {
    let fetches = matches!(route, Route::FetchCommand { .. });
    if fetches {
        return Ok(None);
    }
    if body.len() > PAYLOAD_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    let content_type = head.header("content-type");
    if content_type.is_none() && head.has("content-type") {
        return Err(Refusal::MediaType);
    }
    let format = format_of(content_type).ok_or(Refusal::MediaType)?;
    if body.is_empty() {
        return Err(Refusal::BadRequest);
    }
    let format = Text::from(format);
    Ok(match route.clone() {
        Route::Event { device, event } => Some(Message::Event { device, event, format }),
        Route::Command { device, command } => Some(Message::Command { device, command, format }),
        Route::FetchCommand { .. } => None,
    })
}

/// The format of a content type; JSON without one.
#[must_use]
pub fn format_of(content_type: Option<&[u8]>) -> Option<&'static str> {
    let Some(content_type) = content_type else { return Some("json") };
    let kind = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    let kind = kind.trim_ascii().to_ascii_lowercase();
    match kind.as_slice() {
        b"application/json" => Some("json"),
        b"application/xml" => Some("xml"),
        b"application/octet-stream" => Some("bin"),
        text if text.starts_with(b"text/") => Some("text"),
        _ => None,
    }
}

/// The content type of a format. Those without one are bytes.
#[must_use]
pub fn content_type_of(format: &[u8]) -> &'static str {
    match format {
        b"json" => "application/json",
        b"xml" => "application/xml",
        b"text" => "text/plain",
        _ => "application/octet-stream",
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    #[serde(rename = "waitTimeSecs", default)]
    wait_s: u32,
}

/// How many seconds a request waits for a command.
///
/// # Errors
///
/// [`Refusal`].
pub fn wait_s(body: &[u8]) -> Result<u32, Refusal> {
    if body.is_empty() {
        return Ok(0);
    }
    if body.len() > WAIT_BODY_BYTES_MAX {
        return Err(Refusal::BadRequest);
    }
    // As a struct and from nothing else: serde would take `[7]`, too.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Refusal::BadRequest);
    }
    let wait: Wait = serde_json::from_slice(body).map_err(|_| Refusal::BadRequest)?;
    (wait.wait_s <= WAIT_S_MAX).then_some(wait.wait_s).ok_or(Refusal::BadRequest)
}

/// A command by its canonical topic; `None` for any other topic.
#[must_use]
pub fn command(topic: &[u8]) -> Option<(DeviceName, Text, Text)> {
    let levels: Vec<&[u8]> = topic::levels(topic).take(COMMAND_LEVELS + 1).collect();
    let [b"iot-2", b"type", kind, b"id", id, b"cmd", command, b"fmt", format] = levels[..] else {
        return None;
    };
    Some((DeviceName::new(kind, id)?, name(command)?, name(format)?))
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The message is accepted.
    Published,
    /// A command came.
    Command {
        /// For whom.
        device: DeviceName,
        /// Which.
        command: Text,
        /// How its payload is written.
        format: Text,
        /// Its payload.
        payload: Bytes,
    },
    /// No command came in time.
    Nothing,
    /// The client id is connected by MQTT, too: its commands go there.
    ConnectedElsewhere,
    /// It was refused.
    Refused(Refusal),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Headers, without those about length and date.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
    /// Whether the connection ends.
    pub closes: bool,
}

/// The answer to a request.
#[must_use]
pub fn respond(outcome: Outcome) -> Response {
    let (status, headers, body) = match outcome {
        Outcome::Published => (200, Vec::new(), Bytes::new()),
        Outcome::Command { device, command, format, payload } => {
            let headers = vec![
                ("content-type", content_type_of(format.as_bytes()).to_owned()),
                ("X-deviceType", device.kind.to_string()),
                ("X-deviceId", device.id.to_string()),
                ("X-commandId", command.to_string()),
            ];
            (200, headers, payload)
        }
        Outcome::Nothing | Outcome::ConnectedElsewhere => (204, Vec::new(), Bytes::new()),
        Outcome::Refused(refusal) => {
            let headers = vec![("connection", "close".to_owned())];
            return Response { status: refusal as u16, headers, body: Bytes::new(), closes: true };
        }
    };
    Response { status, headers, body, closes: false }
}
