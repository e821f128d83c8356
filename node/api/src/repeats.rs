//! `Idempotency-Key`: a POST that is sent again with the key of the first time gets the answer of the first time.
//!
//! ```text
//!   first    reserve (key, request) ──► handler ──► keep the answer ──► answer
//!   again    found, with an answer ───────────────────────────────────► the same answer
//!            found, without one: a node died in between ──► handler ──► …, which meets what the first one made
//!            found, of another request ──────────────────────────────► idempotency-key-reused
//! ```
//!
//! What is kept is a row like a token's, in a tenant that nobody has: replicated, and so known to every node and after every
//! election. ([why](../../../docs/decisions/023-idempotency.md))
//!
//! # Invariants
//!
//! - **A key is its token's**: rows are found by a keyed hash of token and key, so nobody meets the key of another.
//! - **No secret is kept**: an answer that shows one is kept as a problem that says so. Checked below.
//! - **Only what was done is kept**: a request that was refused may be corrected and sent again with its key.

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{FromRequestParts, Request, State},
    http::{
        HeaderValue, Method, StatusCode,
        header::{CONTENT_TYPE, ETAG},
        request::Parts,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use moorline_core::{TenantId, Text};
use moorline_machine::{
    answer::Refused,
    registry::{DeleteDevice, DeviceRecord, LookupHash, PutDevice},
};
use moorline_service::registry::RegistryError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{Api, BODY_BYTES_MAX, Problem, auth::Caller, paging::Rows};

/// Whose rows they are: nobody's, as 0 is the administrators'.
const REPEATS: TenantId = moorline_service::registry::audit::NOT_AUDITED;
/// How long a repeat is known as one.
pub(crate) const KEPT_MS: u64 = 24 * 3_600 * 1_000;
/// Requests that are known in each shard: about 1 KiB each.
const REPEATS_PER_SHARD_MAX: u32 = 250_000;
/// Bytes of a key.
const KEY_BYTES_MAX: usize = 255;
/// Bytes of an answer that is kept, as a row has room for; of a larger one only that it was done.
const ANSWER_BYTES_MAX: usize = 6 * 1024;
/// How often somebody else's write may come between finding a row too old and taking it.
const TRIES_MAX: usize = 3;
/// Fields whose value is a secret that is shown once.
const SHOWN_ONCE: [&str; 4] = ["secret", "token", "psk", "password"];

/// What a handler knows of a request with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Repeat {
    /// Random for who does not know the cluster's key, and the same for each repeat.
    seed: [u8; 32],
    /// When it came first, in milliseconds since 1970.
    at_ms: u64,
    /// It may have been done before, and nobody knows.
    pub(crate) again: bool,
}

impl Repeat {
    /// An id that all repeats share.
    pub(crate) fn id(&self) -> Uuid {
        let mut random = [0; 10];
        random.copy_from_slice(&self.seed[..10]);
        uuid::Builder::from_unix_timestamp_millis(self.at_ms, &random).into_uuid()
    }
}

/// The key of the request, if it has one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OfKey(pub(crate) Option<Repeat>);

impl OfKey {
    /// Whether what is found to exist may be what this request made.
    pub(crate) fn is_again(self) -> bool {
        self.0.is_some_and(|repeat| repeat.again)
    }
}

impl<S: Sync> FromRequestParts<S> for OfKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(parts.extensions.get().copied()))
    }
}

/// What is kept of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// A keyed hash of it.
    request: String,
    /// When it came first.
    at_ms: u64,
    /// What was answered, once it was.
    #[serde(default)]
    answer: Option<Said>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    status: u16,
    #[serde(default)]
    etag: Option<String>,
    body: String,
}

/// What was found under a key.
enum Found {
    /// Do it, and keep the answer in this version of the row.
    Reserved(Kept, u64),
    /// It was done.
    Answered(Said),
}

/// Around every handler.
pub(crate) async fn once(State(api): State<Api>, request: Request, next: Next) -> Response {
    match through(&api, request, next).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn through(api: &Api, request: Request, next: Next) -> Result<Response, Problem> {
    let key = request.headers().get("idempotency-key").cloned();
    let Some(key) = key.filter(|_| request.method() == Method::POST && !is_import(&request)) else {
        return Ok(next.run(request).await);
    };
    if key.is_empty() || key.len() > KEY_BYTES_MAX || key.to_str().is_err() {
        return Err(Problem::malformed("Idempotency-Key: 1 to 255 printable characters"));
    }
    let (mut parts, body) = request.into_parts();
    let Ok(caller) = Caller::from_request_parts(&mut parts, api).await else {
        // The handler says what is wrong with it.
        return Ok(next.run(Request::from_parts(parts, body)).await);
    };
    let too_large =
        |_| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the body is too large");
    let body = to_bytes(body, BODY_BYTES_MAX).await.map_err(too_large)?;
    let seed = api.secrets.lookup("idempotency key", &[&caller.id()[..], key.as_bytes()].concat());
    let request = hash_of(api, &parts, &body);
    let (kept, version, again) = match reserve(api, seed, &request).await? {
        (Found::Answered(said), _) => return Ok(said_again(&said)),
        (Found::Reserved(kept, version), again) => (kept, version, again),
    };
    parts.extensions.insert(Repeat { seed: seed.0, at_ms: kept.at_ms, again });
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    keep(api, seed, kept, version, response).await
}

/// It repeats itself: each line is a request of its own.
fn is_import(request: &Request) -> bool {
    request.uri().path().ends_with("/devices/import")
}

fn hash_of(api: &Api, parts: &Parts, body: &[u8]) -> String {
    let head = format!("{}\n{}\n", parts.method, parts.uri);
    let LookupHash(hash) =
        api.secrets.lookup("idempotent request", &[head.as_bytes(), body].concat());
    hexadecimal(&hash)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn row_of(seed: LookupHash) -> Text {
    Text::from(hexadecimal(&seed.0))
}

fn put(seed: LookupHash, kept: &Kept, if_version: u64) -> PutDevice {
    PutDevice {
        tenant: REPEATS,
        device: row_of(seed),
        enabled: true,
        credentials: Vec::new(),
        settings: serde_json::to_vec(kept).expect("a map with string keys").into(),
        if_version: Some(if_version),
        devices_max: REPEATS_PER_SHARD_MAX,
    }
}

/// Finds what is kept under a key, or keeps that the request is being done; and whether it may have been done before.
async fn reserve(api: &Api, seed: LookupHash, request: &str) -> Result<(Found, bool), Problem> {
    let now = (api.now)();
    let fresh = Kept { request: request.to_owned(), at_ms: now, answer: None };
    let mut if_version = 0;
    for _ in 0..TRIES_MAX {
        match api.registry.put_device_plainly(put(seed, &fresh, if_version)).await {
            Ok(made) => return Ok((Found::Reserved(fresh, made.version), false)),
            Err(RegistryError::Refused(Refused::TooMany)) => {
                let detail = "as many requests with a key are known as may be: send it without one";
                return Err(Problem::new(StatusCode::INSUFFICIENT_STORAGE, "quota", detail));
            }
            Err(RegistryError::Refused(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(record) = api.registry.device(REPEATS, &row_of(seed)).await? else {
            if_version = 0;
            continue;
        };
        match kept_in(&record).filter(|kept| kept.at_ms.saturating_add(KEPT_MS) > now) {
            Some(kept) if kept.request != request => return Err(reused()),
            Some(Kept { answer: Some(said), .. }) => return Ok((Found::Answered(said), true)),
            Some(kept) => return Ok((Found::Reserved(kept, record.version), true)),
            None => if_version = record.version,
        }
    }
    Err(RegistryError::Busy.into())
}

fn kept_in(record: &DeviceRecord) -> Option<Kept> {
    serde_json::from_slice(&record.settings).ok()
}

fn reused() -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "idempotency-key-reused",
        "this Idempotency-Key came with another request within 24 hours: take a new one",
    )
}

/// Keeps the answer for who asks again.
async fn keep(
    api: &Api,
    seed: LookupHash,
    kept: Kept,
    version: u64,
    response: Response,
) -> Result<Response, Problem> {
    let (parts, body) = response.into_parts();
    let status = parts.status;
    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
        let delete =
            DeleteDevice { tenant: REPEATS, device: row_of(seed), if_version: Some(version) };
        // A key that stays reserved is tried anew by its next request.
        let _forgotten = api.registry.delete_device(delete).await;
    }
    let is_json = parts.headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if !status.is_success() || !is_json {
        return Ok(Response::from_parts(parts, body));
    }
    let broken = |_| Problem::from(RegistryError::Unavailable);
    let body = to_bytes(body, BODY_BYTES_MAX).await.map_err(broken)?;
    let etag = parts.headers.get(ETAG).and_then(|etag| etag.to_str().ok());
    if let Some(said) = said(status, etag, &body) {
        let kept = Kept { answer: Some(said), ..kept };
        // Without it the request is done again by its repeat, which meets what this one made.
        let _kept = api.registry.put_device_plainly(put(seed, &kept, version)).await;
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// What may be kept of an answer.
fn said(status: StatusCode, etag: Option<&str>, body: &[u8]) -> Option<Said> {
    let parsed: Value = serde_json::from_slice(body).ok()?;
    if SHOWN_ONCE.iter().any(|field| parsed.get(field).is_some()) {
        let which = ["id", "name"].iter().find_map(|field| parsed.get(field)?.as_str());
        let problem = Problem::new(
            StatusCode::CONFLICT,
            "secret-not-kept",
            format!(
                "this was done when it was first asked for ({}); its secret was shown then and is kept nowhere: revoke it \
                 and make another, with another key",
                which.unwrap_or("no id")
            ),
        );
        let body = serde_json::to_string(&problem).ok()?;
        return Some(Said { status: StatusCode::CONFLICT.as_u16(), etag: None, body });
    }
    let body = String::from_utf8(body.to_vec()).ok()?;
    let etag = etag.map(str::to_owned);
    (body.len() <= ANSWER_BYTES_MAX).then_some(Said { status: status.as_u16(), etag, body })
}

fn said_again(said: &Said) -> Response {
    let status = StatusCode::from_u16(said.status).unwrap_or(StatusCode::OK);
    let kind = if status.is_success() { "application/json" } else { "application/problem+json" };
    let headers = [("content-type", kind), ("idempotency-replayed", "true")];
    let mut response = (status, headers, Bytes::from(said.body.clone())).into_response();
    if let Some(etag) = said.etag.as_deref().and_then(|etag| HeaderValue::from_str(etag).ok()) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

/// Forgets what is too old to be repeated: how many. To be called now and then, by any node.
///
/// # Errors
///
/// [`Problem`], if the shards did not answer.
pub async fn forget_old_repeats(api: &Api) -> Result<u64, Problem> {
    let (mut rows, mut gone) = (Rows::new(api, REPEATS), 0);
    let now = (api.now)();
    while let Some(page) = rows.next().await? {
        for (device, record) in page {
            if record.updated.0.saturating_add(KEPT_MS) < now {
                let if_version = Some(record.version);
                let delete = DeleteDevice { tenant: REPEATS, device, if_version };
                gone += u64::from(api.registry.delete_device(delete).await.is_ok());
            }
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_unless_it_shows_a_secret_or_is_large() {
        let kept = said(StatusCode::CREATED, Some("\"7\""), br#"{"name":"pump"}"#).unwrap();
        assert_eq!((kept.status, kept.body.as_str()), (201, r#"{"name":"pump"}"#));
        for shown in [r#"{"id":"ab","secret":"canary"}"#, r#"{"name":"ci","token":"canary"}"#] {
            let kept = said(StatusCode::CREATED, None, shown.as_bytes()).unwrap();
            assert_eq!(kept.status, 409);
            assert!(kept.body.contains("secret-not-kept") && !kept.body.contains("canary"));
        }
        let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(ANSWER_BYTES_MAX));
        assert_eq!(said(StatusCode::OK, None, large.as_bytes()), None);
    }

    #[test]
    fn all_repeats_of_a_request_have_one_id() {
        let repeat = Repeat { seed: [7; 32], at_ms: 1_795_284_000_123, again: false };
        assert_eq!(repeat.id(), Repeat { again: true, ..repeat }.id());
        assert_eq!(repeat.id().get_version_num(), 7);
        assert_ne!(repeat.id(), Repeat { seed: [8; 32], ..repeat }.id());
    }
}
