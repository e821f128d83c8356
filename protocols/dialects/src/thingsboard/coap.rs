//! CoAP's device API: paths to requests, outcomes to codes.
//!
//! Options come taken apart: the path as its segments, the query as its parts. A device that has shown a certificate leaves
//! the token out of the path. How a notice reaches an observer, and what becomes of one that is not acknowledged, is the
//! transport's.
//!
//! Invariant: what is read here is what HTTP reads, but for observing in place of polling. Checked by
//! `tests/it/thingsboard/coap.rs`.

use std::fmt;

use bytes::Bytes;

use super::{
    attributes::Wanted,
    invalid::Invalid,
    ota::PackageKind,
    payloads::{Encoding, ProvisionEncoding, provision_answer, provision_request, write},
    requests::{Answer, Failure, PackageRequest, Request},
    values::Rules,
};

/// How long a request may wait for its answer; then it is [`Code::GatewayTimeout`].
pub const REQUEST_TIMEOUT_MS: u64 = 10_000;
/// How long an answer may take to come with its acknowledgement; later it comes by itself.
pub const PIGGYBACK_MS: u64 = 500;

/// Methods that some path has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// 0.01
    Get,
    /// 0.02
    Post,
}

/// The Observe option of a GET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observe {
    /// 0: be told of changes.
    Register,
    /// 1: no more.
    Deregister,
}

/// Codes of responses: class and detail, as they stand in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum Code {
    Created = 0x41,
    Deleted = 0x42,
    Valid = 0x43,
    Content = 0x45,
    BadRequest = 0x80,
    Unauthorised = 0x81,
    NotFound = 0x84,
    MethodNotAllowed = 0x85,
    TooLarge = 0x8d,
    InternalServerError = 0xa0,
    GatewayTimeout = 0xa4,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `POST telemetry`
    Telemetry,
    /// `POST attributes`
    Attributes,
    /// `POST claim`
    Claim,
    /// `GET attributes`
    ReadAttributes(Wanted),
    /// `GET attributes` with Observe: all shared ones now, and each change.
    ObserveAttributes(Observe),
    /// `GET rpc` with Observe: calls.
    ObserveCalls(Observe),
    /// `POST rpc/{id}`
    CallReply(i32),
    /// `POST rpc`
    Call,
    /// `GET fw/{token}`, `GET sw/{token}`
    Package(PackageRequest),
    /// `POST provision`
    Provision,
}

/// A route, and who asks. Its `Debug` form hides the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Routed {
    /// What is asked for.
    pub route: Route,
    /// The token in the path; `None` for [`Route::Provision`] and for who has shown a certificate.
    pub token: Option<String>,
}

/// The head of a request. Its `Debug` form hides the path, which has the token.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// Its method; `None` for others.
    pub method: Option<Method>,
    /// Its Uri-Path options.
    pub path: &'a [&'a str],
    /// Its Uri-Query options.
    pub query: &'a [&'a str],
    /// Its Observe option.
    pub observe: Option<Observe>,
    /// Whether its DTLS session showed a certificate.
    pub certified: bool,
}

impl fmt::Debug for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head").field("method", &self.method).finish_non_exhaustive()
    }
}

/// Reads the head of a request.
///
/// # Errors
///
/// What to answer.
pub fn route(head: &Head<'_>) -> Result<Routed, Code> {
    let (token, route) = match head.path {
        ["api", "v1", "provision"] => (None, post(head, Route::Provision)?),
        ["api", "v1", rest @ ..] if head.certified => (None, feature(head, rest)?),
        ["api", "v1", token, rest @ ..] => (Some(*token), feature(head, rest)?),
        [kind @ ("fw" | "sw"), token] => {
            let firmware = *kind == "fw";
            let kind = if firmware { PackageKind::Firmware } else { PackageKind::Software };
            (Some(*token), get(head, Route::Package(package(head, kind)?))?)
        }
        _ => return Err(Code::NotFound),
    };
    if token == Some("") {
        return Err(Code::NotFound);
    }
    Ok(Routed { route, token: token.map(str::to_owned) })
}

fn post(head: &Head<'_>, route: Route) -> Result<Route, Code> {
    if head.method == Some(Method::Post) { Ok(route) } else { Err(Code::MethodNotAllowed) }
}

fn get(head: &Head<'_>, route: Route) -> Result<Route, Code> {
    if head.method == Some(Method::Get) { Ok(route) } else { Err(Code::MethodNotAllowed) }
}

fn feature(head: &Head<'_>, rest: &[&str]) -> Result<Route, Code> {
    match (rest, head.method, head.observe) {
        (["telemetry"], _, _) => post(head, Route::Telemetry),
        (["claim"], _, _) => post(head, Route::Claim),
        (["attributes"], Some(Method::Post), _) => Ok(Route::Attributes),
        (["attributes"], _, Some(observe)) => get(head, Route::ObserveAttributes(observe)),
        (["attributes"], _, None) => {
            let wanted = Wanted::of(query(head, "clientKeys"), query(head, "sharedKeys"));
            get(head, Route::ReadAttributes(wanted.map_err(|_| Code::BadRequest)?))
        }
        (["rpc"], Some(Method::Post), _) => Ok(Route::Call),
        (["rpc"], _, Some(observe)) => get(head, Route::ObserveCalls(observe)),
        // Nothing is told to who does not observe.
        (["rpc"], Some(Method::Get), None) => Err(Code::BadRequest),
        (["rpc"], None, None) => Err(Code::MethodNotAllowed),
        (["rpc", id], _, _) => {
            post(head, Route::CallReply(id.parse().map_err(|_| Code::BadRequest)?))
        }
        _ => Err(Code::NotFound),
    }
}

/// A part of the query that says something.
fn query<'a>(head: &Head<'a>, name: &str) -> Option<&'a str> {
    let parts = head.query.iter().filter_map(|part| part.split_once('='));
    let mut named = parts.filter(|(other, _)| *other == name).map(|(_, value)| value);
    named.next().filter(|value| !value.is_empty())
}

fn package(head: &Head<'_>, kind: PackageKind) -> Result<PackageRequest, Code> {
    let text = |name| query(head, name).map(str::to_owned);
    let number = |name| match query(head, name).map(str::parse) {
        None => Ok(0),
        Some(number) => number.map_err(|_| Code::BadRequest),
    };
    let (title, version) = (text("title"), text("version"));
    Ok(PackageRequest { kind, title, version, size: number("size")?, chunk: number("chunk")? })
}

impl fmt::Debug for Routed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routed").field("route", &self.route).finish_non_exhaustive()
    }
}

impl Routed {
    /// What is asked, with the payload. `None`: nothing is, somebody begins or ends to observe.
    ///
    /// # Errors
    ///
    /// The payload can't be read: [`Code::BadRequest`].
    pub fn request(
        &self,
        encoding: Encoding<'_>,
        payload: &[u8],
        now_ms: i64,
        rules: &Rules,
    ) -> Result<Option<Request>, Invalid> {
        Ok(Some(match &self.route {
            Route::Telemetry => Request::Telemetry(encoding.telemetry(payload, now_ms, rules)?),
            Route::Attributes => Request::Attributes(encoding.attributes(payload, rules)?),
            Route::Claim => Request::Claim(encoding.claim(payload)?),
            Route::ReadAttributes(wanted) => Request::ReadAttributes(wanted.clone()),
            Route::CallReply(id) => {
                Request::CallReply { id: *id, data: encoding.call_reply(payload)? }
            }
            Route::Call => Request::Call(encoding.device_call(payload)?),
            Route::Package(request) => Request::Package(request.clone()),
            Route::Provision => {
                let (request, encoding) = provision_request(payload)?;
                Request::Provision { request: Box::new(request), encoding }
            }
            Route::ObserveAttributes(_) | Route::ObserveCalls(_) => return Ok(None),
        }))
    }
}

/// The first response to who begins or ends to observe. `shared`: all shared attributes, for who observes those.
#[must_use]
pub fn observed(
    route: &Route,
    encoding: Encoding<'_>,
    shared: &super::attributes::Changed,
) -> (Code, Bytes) {
    match route {
        Route::ObserveAttributes(Observe::Register) => {
            (Code::Content, encoding.write_changed(shared))
        }
        Route::ObserveCalls(Observe::Register) => (Code::Valid, Bytes::new()),
        Route::ObserveAttributes(Observe::Deregister)
        | Route::ObserveCalls(Observe::Deregister) => (Code::Deleted, Bytes::new()),
        Route::Telemetry
        | Route::Attributes
        | Route::Claim
        | Route::ReadAttributes(_)
        | Route::CallReply(_)
        | Route::Call
        | Route::Package(_)
        | Route::Provision => (Code::InternalServerError, Bytes::new()),
    }
}

/// The response to a request, and each notice to an observer.
#[must_use]
pub fn respond(
    outcome: &Result<Answer, Failure>,
    encoding: Encoding<'_>,
    provisioned: ProvisionEncoding,
) -> (Code, Bytes) {
    let nothing = |code| (code, Bytes::new());
    match outcome {
        Ok(Answer::Done) => nothing(Code::Created),
        Ok(Answer::Attributes(found)) if found.is_empty() => nothing(Code::NotFound),
        Ok(Answer::Attributes(found)) => (Code::Content, encoding.write_found(0, found)),
        Ok(Answer::Changed(changed)) => (Code::Content, encoding.write_changed(changed)),
        Ok(Answer::Call(call)) => match encoding {
            Encoding::Json => (Code::Content, write(&call.to_json_with_id())),
            Encoding::Protobuf(_) | Encoding::FixedProtobuf => match encoding.write_call(call) {
                Ok(bytes) => (Code::Content, bytes),
                Err(_) => nothing(Code::InternalServerError),
            },
        },
        Ok(Answer::CallAnswered(text)) => (Code::Content, encoding.write_call_answer(0, text)),
        Ok(Answer::Chunk { bytes, .. }) => (Code::Content, bytes.clone()),
        Ok(Answer::Provisioned(answer)) => (Code::Created, provision_answer(provisioned, answer)),
        // No path asks for them.
        Ok(Answer::GatewayAttributes(_)) => nothing(Code::InternalServerError),
        Err(failure) => nothing(match failure {
            Failure::Unauthorised | Failure::Gone => Code::Unauthorised,
            Failure::TimedOut => Code::GatewayTimeout,
            Failure::NoPackage => Code::NotFound,
            Failure::OtherPackage => Code::BadRequest,
            Failure::ChunkTooLarge => Code::TooLarge,
            Failure::RateLimited | Failure::Failed => Code::InternalServerError,
        }),
    }
}
