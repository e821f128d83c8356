//! Fostrom over HTTP: routes to ops, outcomes to statuses and bodies.
//!
//! In two steps, so that nobody's body is read before it is known who that is: [`route`] takes what the head says, and
//! [`op`] the body.

use bytes::Bytes;
use moorline_core::{
    Text,
    op::{Answer, Declined, Denial, Event, EventKind, Format, MailId, Op, Settlement},
    port::Refusal,
};
use serde_json::{Value, json};

use super::{
    identity::{Credentials, Identity},
    payload::{self, PAYLOAD_BYTES_MAX},
    sse, words,
};

/// The most bytes of a request's body: for an edge that has to stop reading.
pub const BODY_BYTES_MAX: usize = PAYLOAD_BYTES_MAX;
/// Seconds after which to try again, when nobody knows better.
const RETRY_AFTER_S: u32 = 1;
/// What a body's Content-Type has to begin with.
const JSON: &str = "application/json";
/// The most parts of a path in the table.
const PARTS_MAX: usize = 5;

/// The head of a request.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// `GET`, `POST`, …
    pub method: &'a str,
    /// The path, without its query.
    pub path: &'a str,
    /// Headers: names in any case.
    pub headers: &'a [(&'a str, &'a [u8])],
}

impl<'a> Head<'a> {
    /// A header that stands there once; empty if it does not, or several times.
    fn header(&self, name: &str) -> &'a [u8] {
        let mut found = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        match (found.next(), found.next()) {
            (Some((_, value)), None) => value,
            _ => b"",
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `GET /`: without credentials.
    Root,
    /// `GET /v1`
    Describe,
    /// `POST /v1/heartbeat`
    Heartbeat,
    /// `POST /v1/datapoint/:schema_name`
    Datapoint(Text),
    /// `POST /v1/msg/:schema_name`
    Message(Text),
    /// `GET /v1/mailbox/size`
    MailboxSize,
    /// `GET /v1/mailbox/next`
    NextMail,
    /// `PUT /v1/mailbox/{ack,reject,requeue}/:id`
    Settle(Settlement, Text),
    /// `GET /v1/events`: a stream ([`super::sse`]).
    Events,
}

impl Route {
    /// Whether it asks for mail, or settles it.
    #[must_use]
    pub fn is_about_mail(&self) -> bool {
        match self {
            Self::MailboxSize | Self::NextMail | Self::Settle(..) => true,
            Self::Root
            | Self::Describe
            | Self::Heartbeat
            | Self::Datapoint(_)
            | Self::Message(_)
            | Self::Events => false,
        }
    }
}

/// A route, and who asks; nobody in particular for [`Route::Root`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    /// What is asked for.
    pub route: Route,
    /// Who asks.
    pub credentials: Option<Credentials>,
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
}

/// What a request's head asks for.
///
/// # Errors
///
/// The answer: 404 for what is not in the table, 400 for missing or malformed credentials.
pub fn route(head: &Head<'_>) -> Result<Routed, Response> {
    let parts: Vec<&str> = head.path.split('/').take(PARTS_MAX + 1).collect();
    let name = |name: &str| Text::from(name);
    let route = match (head.method, parts.as_slice()) {
        ("GET", ["", ""]) => return Ok(Routed { route: Route::Root, credentials: None }),
        ("GET", ["", "v1"]) => Route::Describe,
        ("POST", ["", "v1", "heartbeat"]) => Route::Heartbeat,
        ("POST", ["", "v1", "datapoint", schema]) => Route::Datapoint(name(schema)),
        ("POST", ["", "v1", "msg", schema]) => Route::Message(name(schema)),
        ("GET", ["", "v1", "mailbox", "size"]) => Route::MailboxSize,
        ("GET", ["", "v1", "mailbox", "next"]) => Route::NextMail,
        ("PUT", ["", "v1", "mailbox", "ack", id]) => Route::Settle(Settlement::Ack, name(id)),
        ("PUT", ["", "v1", "mailbox", "reject", id]) => Route::Settle(Settlement::Reject, name(id)),
        ("PUT", ["", "v1", "mailbox", "requeue", id]) => {
            Route::Settle(Settlement::Requeue, name(id))
        }
        ("GET", ["", "v1", "events"]) => Route::Events,
        _ => return Err(failure(404, "not_found: there is no such route")),
    };
    let header = |name| head.header(name);
    let credentials =
        Credentials::new(header("x-fleet-id"), header("x-device-id"), header("x-device-secret"));
    let credentials = credentials.map_err(|misshapen| failure(400, &misshapen.to_string()))?;
    Ok(Routed { route, credentials: Some(credentials) })
}

/// What a request asks of the cluster; `None` for routes that ask nothing.
///
/// # Errors
///
/// The answer.
pub fn op(route: &Route, head: &Head<'_>, body: Bytes) -> Result<Option<Op>, Response> {
    Ok(Some(match route {
        Route::Root | Route::Describe | Route::Events => return Ok(None),
        Route::Heartbeat => Op::Heartbeat,
        Route::Datapoint(schema) => event(EventKind::Datapoint, schema, head, body)?,
        Route::Message(schema) => event(EventKind::Message, schema, head, body)?,
        Route::MailboxSize => Op::CountMail,
        Route::NextMail => Op::FetchMail { header_only: false },
        Route::Settle(settlement, id) => {
            let id = MailId::parse(id.as_str());
            let id = id.ok_or_else(|| declined(&Declined::InvalidMailId))?;
            Op::SettleMail { id, settlement: *settlement }
        }
    }))
}

fn event(kind: EventKind, schema: &Text, head: &Head<'_>, body: Bytes) -> Result<Op, Response> {
    if body.len() > BODY_BYTES_MAX {
        return Err(declined(&Refusal::TooLarge.into()));
    }
    let content_type = head.header("content-type");
    let json = content_type.get(..JSON.len());
    if !body.is_empty() && !json.is_some_and(|start| start.eq_ignore_ascii_case(JSON.as_bytes())) {
        return Err(failure(415, "unsupported_media_type: bodies are application/json"));
    }
    let event = Event { kind, channel: schema.clone(), format: Format::Json, body };
    payload::event(event).map(Op::Event).map_err(|why| declined(&why))
}

/// The answer to a request. `mail_available`: whether mail waits, if that is known.
#[must_use]
pub fn respond(
    route: &Route,
    identity: Option<&Identity>,
    outcome: Result<Answer, Declined>,
    mail_available: Option<bool>,
) -> Response {
    let mut response = match outcome {
        Ok(answer) => success(route, identity, answer),
        Err(why) => declined(&why),
    };
    if let Some(available) = mail_available {
        response.headers.push(("x-messages-available", available.to_string()));
    }
    response
}

fn success(route: &Route, identity: Option<&Identity>, answer: Answer) -> Response {
    let ok = json!({ "ok": true });
    match (route, answer) {
        (Route::Root, _) => body(
            200,
            &json!({ "fostrom": true, "endpoint": "device", "latest_endpoint_version": 1 }),
        ),
        (Route::Describe, _) => {
            let device = identity.map(|identity| {
                let (fleet, device) = (identity.fleet.as_str(), identity.device.as_str());
                json!({ "fleet_id": fleet, "device_id": device })
            });
            let value = json!({
                "fostrom": true, "endpoint": "device", "endpoint_version": 1, "device": device,
            });
            body(200, &value)
        }
        (Route::Events, _) => stream(),
        (Route::Heartbeat | Route::Datapoint(_) | Route::Message(_), Answer::Done) => {
            body(201, &ok)
        }
        (Route::Settle(..), Answer::Settled { .. }) => body(200, &ok),
        (Route::MailboxSize, Answer::MailboxSize(size)) => body(200, &json!({ "size": size })),
        (Route::NextMail, Answer::Mail { mail: None, .. }) => {
            Response { status: 204, headers: always(), body: Bytes::new() }
        }
        (Route::NextMail, Answer::Mail { mail: Some(mail), .. }) => {
            let payload = payload::read(mail.format, &mail.payload).unwrap_or(Value::Null);
            let (id, name) = (mail.id.to_string(), mail.name.as_str());
            body(200, &json!({ "id": id, "name": name, "payload": payload }))
        }
        // The service answered another question.
        (
            _,
            Answer::Done | Answer::Mail { .. } | Answer::MailboxSize(_) | Answer::Settled { .. },
        ) => failure(500, "failed: the service gave a strange answer"),
    }
}

/// The answer to who may not come in.
#[must_use]
pub fn denied(denial: Denial) -> Response {
    let (status, retry_after_s) = match denial {
        Denial::Malformed => (400, None),
        Denial::UnknownTenant | Denial::UnknownDevice | Denial::WrongSecret => (401, None),
        Denial::Disabled | Denial::Plaintext => (403, None),
        Denial::Banned { retry_after_s } => (403, Some(retry_after_s)),
        Denial::TooOften => (429, Some(RETRY_AFTER_S)),
        Denial::Stopping | Denial::Unavailable => (503, Some(RETRY_AFTER_S)),
    };
    retry_after(failure(status, &words::denied(denial)), retry_after_s)
}

/// The answer to an op that was not done.
#[must_use]
pub fn declined(declined: &Declined) -> Response {
    let (status, retry_after_s) = match declined {
        Declined::Denied(denial) => return denied(*denial),
        Declined::Unreadable(_) | Declined::InvalidMailId => (400, None),
        Declined::UnknownSchema => (422, None),
        Declined::NotNextMail => (409, None),
        Declined::UnknownMail => (404, None),
        Declined::Refused(Refusal::TooLarge) => (413, None),
        Declined::Refused(Refusal::Topic) => (404, None),
        Declined::Refused(Refusal::Payload | Refusal::Platform(_)) => (400, None),
        Declined::Refused(Refusal::NotAuthorised) => (403, None),
        Declined::Refused(Refusal::Quota) => (429, Some(RETRY_AFTER_S)),
        Declined::Refused(Refusal::Busy | Refusal::Unavailable | Refusal::DiskFull) => {
            (503, Some(RETRY_AFTER_S))
        }
    };
    retry_after(failure(status, &words::declined(declined)), retry_after_s)
}

fn retry_after(mut response: Response, seconds: Option<u32>) -> Response {
    response.headers.extend(seconds.map(|seconds| ("retry-after", seconds.to_string())));
    response
}

fn failure(status: u16, error: &str) -> Response {
    body(status, &json!({ "error": error }))
}

fn body(status: u16, value: &Value) -> Response {
    let mut headers = always();
    headers.push(("content-type", JSON.to_owned()));
    Response { status, headers, body: Bytes::from(value.to_string()) }
}

fn stream() -> Response {
    let mut headers = always();
    headers.push(("content-type", sse::CONTENT_TYPE.to_owned()));
    // Proxies hold a stream back otherwise.
    headers.push(("x-accel-buffering", "no".to_owned()));
    Response { status: 200, headers, body: Bytes::new() }
}

fn always() -> Vec<(&'static str, String)> {
    vec![("cache-control", "no-store".to_owned()), ("connection", "keep-alive".to_owned())]
}
