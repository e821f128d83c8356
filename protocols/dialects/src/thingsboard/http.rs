//! HTTP's device API: routes to requests, outcomes to statuses and bodies.
//!
//! In two steps, so that nobody's body is read before it is known who that is: [`route`] takes what the head says, and
//! [`Routed::request`] the body.
//!
//! Invariant: unknown parameters of a query are ignored, since SDKs send some by wrong names. Checked by
//! `tests/it/thingsboard/http.rs`.

use std::fmt;

use bytes::Bytes;

use super::{
    attributes::Wanted,
    invalid::Invalid,
    json::Json,
    ota::PackageKind,
    payloads::{Encoding, Payloads, ProvisionEncoding, write},
    provision,
    query::{Query, WrongParameter, decoded},
    requests::{Answer, Failure, PackageRequest, Request},
    topics::Form,
    values::Rules,
};

/// The most bytes of a body on a path with calls.
pub const CALL_BYTES_MAX: usize = 64 * 1024;
/// The most bytes of any other body.
pub const BODY_BYTES_MAX: usize = 50 * 1024 * 1024;
/// How long a poll waits that does not say it.
pub const POLL_MS_DEFAULT: u64 = 60_000;
/// How long a poll may wait.
pub const POLL_MS_MAX: u64 = 300_000;
/// What all paths begin with.
const PREFIX: &str = "/api/v1/";
/// The most parts of a path behind that, and one more.
const PARTS_MAX: usize = 4;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `POST telemetry`
    Telemetry,
    /// `POST attributes`
    Attributes,
    /// `GET attributes?clientKeys=&sharedKeys=`
    ReadAttributes(Wanted),
    /// `GET attributes/updates?timeout=`: waits for one change.
    PollAttributes {
        /// For how long.
        timeout_ms: u64,
    },
    /// `POST claim`
    Claim,
    /// `GET rpc?timeout=`: waits for one call.
    PollCall {
        /// For how long.
        timeout_ms: u64,
    },
    /// `POST rpc/{id}`
    CallReply(i32),
    /// `POST rpc`
    Call,
    /// `GET firmware`, `GET software`
    Package(PackageRequest),
    /// `POST /api/v1/provision`, the one path without a token.
    Provision,
}

/// A route, and who asks. Its `Debug` form hides the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Routed {
    /// What is asked for.
    pub route: Route,
    /// The token in the path; `None` for [`Route::Provision`].
    pub token: Option<String>,
    /// The most bytes its body may have.
    pub body_bytes_max: usize,
}

/// Media types of protobuf, in lower case.
const PROTOBUF: [&str; 3] =
    ["application/protobuf", "application/x-protobuf", "application/vnd.google.protobuf"];

/// Whether a Content-Type is one of protobuf.
#[must_use]
pub fn is_protobuf(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    PROTOBUF.iter().any(|name| name.eq_ignore_ascii_case(media))
}

/// How a body is written: as the profile says if it [`is_protobuf`], and as JSON otherwise, as the vendor has it.
#[must_use]
pub fn encoding<'a>(payloads: &'a Payloads, content_type: &str) -> Encoding<'a> {
    if is_protobuf(content_type) { payloads.up(Form::V2) } else { Encoding::Json }
}

/// Reads the head of a request. `query`: without its `?`.
///
/// # Errors
///
/// What to answer.
pub fn route(method: &str, path: &str, query: &str) -> Result<Routed, Response> {
    let rest = path.strip_prefix(PREFIX).ok_or_else(not_found)?;
    let parts: Vec<&str> = rest.splitn(PARTS_MAX, '/').collect();
    let (token, parts) = match parts.as_slice() {
        ["provision"] => {
            let body_bytes_max = BODY_BYTES_MAX;
            let routed = Routed { route: Route::Provision, token: None, body_bytes_max };
            return if method == "POST" { Ok(routed) } else { Err(wrong_method()) };
        }
        ["", ..] | [] => return Err(not_found()),
        [token, parts @ ..] => (decoded(token), parts),
    };
    let query = Query::of(query)?;
    let route = match (method, parts) {
        ("POST", ["telemetry"]) => Route::Telemetry,
        ("POST", ["attributes"]) => Route::Attributes,
        ("GET", ["attributes"]) => Route::ReadAttributes(query.wanted()?),
        ("GET", ["attributes", "updates"]) => {
            Route::PollAttributes { timeout_ms: query.timeout_ms()? }
        }
        ("POST", ["claim"]) => Route::Claim,
        ("GET", ["rpc"]) => Route::PollCall { timeout_ms: query.timeout_ms()? },
        ("POST", ["rpc"]) => Route::Call,
        ("POST", ["rpc", id]) => {
            Route::CallReply(id.parse().map_err(|_| bad_request("the id is no integer"))?)
        }
        ("GET", ["firmware"]) => Route::Package(query.package(PackageKind::Firmware)?),
        ("GET", ["software"]) => Route::Package(query.package(PackageKind::Software)?),
        (
            _,
            ["telemetry" | "attributes" | "claim" | "rpc" | "firmware" | "software"]
            | ["attributes", "updates"]
            | ["rpc", _],
        ) => return Err(wrong_method()),
        _ => return Err(not_found()),
    };
    let body_bytes_max =
        if parts.first() == Some(&"rpc") { CALL_BYTES_MAX } else { BODY_BYTES_MAX };
    Ok(Routed { route, token: Some(token.into_owned()), body_bytes_max })
}

impl Query<'_> {
    fn timeout_ms(&self) -> Result<u64, Response> {
        // 0 is what some SDKs mean by "as long as may be".
        let timeout_ms = self.count("timeout")?.filter(|timeout_ms| *timeout_ms > 0);
        Ok(timeout_ms.unwrap_or(POLL_MS_DEFAULT).min(POLL_MS_MAX))
    }

    fn wanted(&self) -> Result<Wanted, Response> {
        let (client, shared) = (self.list("clientKeys"), self.list("sharedKeys"));
        let wanted = Wanted::of(client.as_deref(), shared.as_deref());
        wanted.map_err(|invalid| bad_request(&invalid.to_string()))
    }

    fn package(&self, kind: PackageKind) -> Result<PackageRequest, Response> {
        let text = |name| self.get(name).map(str::to_owned);
        Ok(PackageRequest {
            kind,
            title: text("title"),
            version: text("version"),
            size: self.count("size")?.unwrap_or(0),
            chunk: self.count("chunk")?.unwrap_or(0),
        })
    }
}

impl From<WrongParameter> for Response {
    fn from(wrong: WrongParameter) -> Self {
        bad_request(&wrong.to_string())
    }
}

impl fmt::Debug for Routed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routed").field("route", &self.route).finish_non_exhaustive()
    }
}

impl Routed {
    /// What is asked, with the body, which is written as [`encoding`] says.
    ///
    /// # Errors
    ///
    /// What to answer.
    pub fn request(
        &self,
        encoding: Encoding<'_>,
        body: &[u8],
        now_ms: i64,
        rules: &Rules,
    ) -> Result<Request, Response> {
        if body.len() > self.body_bytes_max {
            return Err(too_large());
        }
        self.read(encoding, body, now_ms, rules).map_err(|why| bad_request(&why.to_string()))
    }

    fn read(
        &self,
        encoding: Encoding<'_>,
        body: &[u8],
        now_ms: i64,
        rules: &Rules,
    ) -> Result<Request, Invalid> {
        Ok(match &self.route {
            Route::Telemetry => Request::Telemetry(encoding.telemetry(body, now_ms, rules)?),
            Route::Attributes => Request::Attributes(encoding.attributes(body, rules)?),
            Route::ReadAttributes(wanted) => Request::ReadAttributes(wanted.clone()),
            Route::PollAttributes { timeout_ms } => {
                Request::PollAttributes { timeout_ms: *timeout_ms }
            }
            Route::Claim => Request::Claim(encoding.claim(body)?),
            Route::PollCall { timeout_ms } => Request::PollCall { timeout_ms: *timeout_ms },
            Route::CallReply(id) => {
                Request::CallReply { id: *id, data: encoding.call_reply(body)? }
            }
            Route::Call => Request::Call(encoding.device_call(body)?),
            Route::Package(request) => Request::Package(request.clone()),
            Route::Provision => {
                let json = Json::read(body)?;
                Request::Provision {
                    request: Box::new(provision::Request::read(&json)?),
                    encoding: ProvisionEncoding::Json,
                }
            }
        })
    }
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Headers, with names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

/// The response to a request.
#[must_use]
pub fn respond(outcome: Result<Answer, Failure>) -> Response {
    match outcome {
        Ok(Answer::Done) => empty(200),
        Ok(Answer::Attributes(found)) => json(200, write(&found.to_json())),
        Ok(Answer::Changed(changed)) => json(200, write(&changed.to_json())),
        Ok(Answer::Call(call)) => json(200, write(&call.to_json_with_id())),
        Ok(Answer::CallAnswered(text)) => json(200, Bytes::from(text)),
        Ok(Answer::Provisioned(answer)) => json(200, write(&answer.to_json())),
        // No route asks for them.
        Ok(Answer::GatewayAttributes(_)) => empty(500),
        Ok(Answer::Chunk { file_name, bytes }) => chunk(&file_name, bytes),
        Err(failure) => failed(failure),
    }
}

fn failed(failure: Failure) -> Response {
    match failure {
        Failure::Unauthorised => empty(401),
        Failure::TimedOut => empty(408),
        Failure::Gone => empty(403),
        Failure::NoPackage => empty(404),
        Failure::OtherPackage => bad_request("another package is assigned"),
        Failure::ChunkTooLarge => too_large(),
        Failure::RateLimited | Failure::Failed => empty(500),
    }
}

fn chunk(file_name: &str, bytes: Bytes) -> Response {
    // A name with other characters could end the header.
    let plain = |char: char| if char.is_ascii_graphic() && char != '"' { char } else { '_' };
    let file_name: String = file_name.chars().map(plain).collect();
    let headers = vec![
        ("content-type", "application/octet-stream".to_owned()),
        ("content-disposition", format!("attachment;filename={file_name}")),
        ("x-filename", file_name),
    ];
    Response { status: 200, headers, body: bytes }
}

fn json(status: u16, body: Bytes) -> Response {
    let headers = vec![("content-type", "application/json".to_owned())];
    Response { status, headers, body }
}

fn empty(status: u16) -> Response {
    Response { status, headers: Vec::new(), body: Bytes::new() }
}

fn not_found() -> Response {
    empty(404)
}

fn wrong_method() -> Response {
    empty(405)
}

/// What can't be read, or not be kept, and why.
#[must_use]
pub fn bad_request(why: &str) -> Response {
    let headers = vec![("content-type", "text/plain;charset=utf-8".to_owned())];
    Response { status: 400, headers, body: Bytes::copy_from_slice(why.as_bytes()) }
}

/// A limit is reached: which. 500, as the original has it (§2.10): what devices do is made for that.
#[must_use]
pub fn limited(why: &str) -> Response {
    Response { status: 500, ..bad_request(why) }
}

/// A body, or a part of a package, that is too large: the one failure with a body of JSON.
#[must_use]
pub fn too_large() -> Response {
    let message = Json::from("Payload size exceeds the limit");
    let body = Json::object([("status", Json::from(413)), ("message", message)]);
    json(413, write(&body))
}
