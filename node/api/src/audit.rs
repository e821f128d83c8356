//! The audit: who asks is noted around every request, and read back by whoever may see it.

use std::{fmt::Write, net::SocketAddr};

use axum::{
    Json,
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{
        HeaderValue, StatusCode,
        header::{AUTHORIZATION, RETRY_AFTER},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use moorline_core::{TenantId, Text, UnixMillis, calendar::rfc3339};
use moorline_edge::Doorkeeper;
use moorline_service::registry::audit::{Actor, AuditLine, as_actor};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    Api, Problem,
    auth::{Caller, Role},
    extract::Asked,
    paging::ITEMS_PER_PAGE_MAX,
};

/// Of a header that is no token so much is looked at.
const NAME_BYTES_MAX: usize = 64;
/// The header with a request's number: the client's own if it is a UUID, and in every answer.
const REQUEST_ID: &str = "x-request-id";

/// What stands around every request.
#[derive(Debug, Clone)]
pub(crate) struct Around {
    pub(crate) api: Api,
    /// Who showed wrong tokens too often.
    pub(crate) doors: Doorkeeper,
}

/// The name of the token that a request shows, true or not: for counting.
fn claimed(request: &Request) -> Option<Text> {
    let shown = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    // Without its secret, which is behind the third underscore.
    let end = shown.match_indices('_').nth(2).map_or(shown.len().min(NAME_BYTES_MAX), |(at, _)| at);
    shown.get(..end).map(Text::from)
}

/// Has what a request changes say who asked, counts those that were refused, and turns away who guesses.
pub(crate) async fn noted(
    State(Around { api, doors }): State<Around>,
    request: Request,
    next: Next,
) -> Response {
    let now = || UnixMillis((api.now)());
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let address = address.map(|ConnectInfo(address)| address.ip());
    let claimed = claimed(&request).zip(address);
    if let Some((who, from)) = &claimed
        && let Some(left_s) = doors.banned(who, *from, now())
    {
        api.registry.count_refused(StatusCode::TOO_MANY_REQUESTS.as_u16());
        let why = format!("too many wrong tokens: try again in {left_s} s");
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "banned", why);
        let mut response = problem.into_response();
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(left_s));
        return response;
    }
    let response = asked(&api, request, next).await;
    match (&claimed, response.status()) {
        (Some((who, from)), StatusCode::UNAUTHORIZED) => _ = doors.failed(who, *from, now()),
        (Some((who, from)), _) => doors.succeeded(who, *from),
        (None, _) => {}
    }
    response
}

/// Has what a request changes say who asked.
async fn asked(api: &Api, request: Request, next: Next) -> Response {
    let shown = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let id = shown.and_then(|text| Uuid::parse_str(text).ok());
    let id = id.unwrap_or_else(|| Uuid::from_u128(rand::random()));
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let address = from.map(|ConnectInfo(address)| address.ip().to_string()).unwrap_or_default();
    let path = request.extensions().get::<MatchedPath>();
    let path = path.map_or_else(|| request.uri().path(), MatchedPath::as_str);
    let what = format!("{} {path}", request.method());
    let mut response =
        as_actor(Some(Actor::of(&what, id.as_u128(), &address)), next.run(request)).await;
    if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        api.registry.count_refused(response.status().as_u16());
    }
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// Which records.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    /// A tenant's name; without it all that the token may see.
    tenant: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// At most so many: 1 to 1,000.
    limit: Option<usize>,
}

/// One line of the audit.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RecordView {
    /// Its group and number there: unique in the cluster.
    #[schema(example = "3-17")]
    id: String,
    /// When, by the clock of its group.
    #[schema(example = "2026-11-21T18:00:00.123Z")]
    time: String,
    /// The token that asked: its tenant's number and name; empty for the first token of a cluster.
    #[schema(example = "0/root")]
    actor: String,
    /// `tenant.put`, `tenant.delete`, `device.put`, `device.delete`, `mail.cancel` or `mail.purge`; tokens are devices whose
    /// names begin with `~`.
    action: &'static str,
    /// Whose: the tenant's name, or its number if it is gone; `0` for the cluster.
    tenant: String,
    /// The name of what was changed.
    object: String,
    /// The mail, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    mail: Option<Uuid>,
    /// Its version before.
    before: Option<u64>,
    /// Its version after.
    after: Option<u64>,
    /// What came of it: `done`. What was refused changed nothing and has no record.
    result: &'static str,
    /// The request.
    #[schema(example = "PUT /api/v1/devices/{device}")]
    request: String,
    /// Its number, as the answer's `X-Request-Id` says.
    request_id: Uuid,
    /// Where it came from.
    address: String,
    /// To which node.
    node: u64,
}

/// A piece of the audit.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditList {
    /// The oldest first, by about their time.
    records: Vec<RecordView>,
    /// `?after=` for the next page; absent in the last. A page may be short, or empty, although there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// `?after=` for what comes later than this page.
    cursor: String,
}

/// Who changed what. A token of the cluster sees everything; a tenant's operators what was changed in their tenant.
#[utoipa::path(
    get, path = "/api/v1/audit", params(Which),
    responses(
        (status = 200, description = "a page", body = AuditList),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Asked(which): Asked<Which>,
) -> Result<Json<AuditList>, Problem> {
    caller.at_least(Role::Operator)?;
    let of_all = which.tenant.is_none() && caller.of_cluster(Role::Operator).is_ok();
    let tenant = match of_all {
        true => None,
        false => Some(caller.tenant(&api, which.tenant.as_deref()).await?.0),
    };
    let limit = which.limit.unwrap_or(100);
    if !(1..=ITEMS_PER_PAGE_MAX).contains(&limit) {
        return Err(Problem::malformed("limit: 1 to 1,000"));
    }
    let wrong = || Problem::malformed("after: what the page before said under `next`");
    let after = match &which.after {
        None => api.registry.audit_begin(),
        Some(text) => api.registry.audit_cursor(text).ok_or_else(wrong)?,
    };
    let (lines, upto, more) = api.registry.audit(tenant, &after, limit).await?;
    let records = lines.iter().map(|line| view(&api, line)).collect();
    let cursor = upto.written();
    Ok(Json(AuditList { records, next: more.then(|| cursor.clone()), cursor }))
}

fn view(api: &Api, line: &AuditLine) -> RecordView {
    let AuditLine { group, number, record } = line;
    let mut id = group.to_string();
    write!(id, "-{number}").expect("a string takes everything");
    let name = |tenant: TenantId| {
        let known = api.registry.tenant(tenant);
        known.map_or_else(|| tenant.0.to_string(), |known| known.name.to_string())
    };
    RecordView {
        id,
        time: rfc3339(record.at),
        actor: record.by.actor.to_string(),
        action: record.action.name(),
        tenant: name(record.tenant),
        object: record.object.to_string(),
        mail: record.mail.map(Uuid::from_u128),
        before: record.before,
        after: record.after,
        result: "done",
        request: record.by.request.to_string(),
        request_id: Uuid::from_u128(record.by.request_id),
        address: record.by.address.to_string(),
        node: record.by.node.0,
    }
}
