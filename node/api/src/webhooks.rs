//! Webhooks: where a tenant's events are posted to ([`moorline_webhooks`]).

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use moorline_webhooks::{
    Filter, Hook, NewHook, Refused, Settings, State as Going, Tested, WebhookError,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    Api, Problem,
    auth::{Caller, Role},
    extract::{Asked, At, Body},
    patch::patched,
    tokens::OfTenant,
    versions::{IfVersion, etag},
};

/// The field of a patch that is not among the settings.
const HEADERS: &str = "headers";

/// A webhook to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewWebhook {
    /// 1 to 40 small letters, digits and `-`; unique in its tenant.
    #[schema(example = "orders")]
    name: String,
    /// Where: `https://` or `http://`.
    #[schema(example = "https://hooks.example.org/moorline")]
    url: String,
    /// Which events; all, if it says nothing.
    #[serde(default)]
    filter: Filter,
    /// Headers of each request: their values are never shown again.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Events of one request at most: 1 to 100. With more than 1 a body is an array.
    #[serde(default)]
    batch_max: Option<u16>,
    /// How long the receiver may take, in milliseconds: 100 to 30,000.
    #[serde(default)]
    timeout_ms: Option<u32>,
    /// What happens when it refuses an event again and again.
    #[serde(default)]
    refused: Refused,
    /// Whether nothing is sent for now.
    #[serde(default)]
    paused: bool,
}

/// A webhook that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadeWebhook {
    #[serde(flatten)]
    webhook: Hook,
    /// What its requests are signed with: it is never shown again.
    secret: String,
}

/// How a webhook goes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebhookStatus {
    /// Its name.
    name: String,
    /// Whether nothing is sent for now.
    paused: bool,
    /// Why, if not because an operator said so.
    paused_because: Option<String>,
    /// Events of the tenant behind what it has settled, whether or not it wants them.
    lag: u64,
    #[serde(flatten)]
    state: Going,
}

impl From<WebhookError> for Problem {
    fn from(error: WebhookError) -> Self {
        let detail = error.to_string();
        match error {
            WebhookError::Wrong(_) => Self::malformed(detail),
            WebhookError::Blocked(_) => Self::new(StatusCode::BAD_REQUEST, "url-blocked", detail),
            WebhookError::Exists => Self::new(StatusCode::CONFLICT, "exists", detail),
            WebhookError::TooMany => Self::new(StatusCode::FORBIDDEN, "quota", detail),
            WebhookError::NotFound => Self::not_found("webhook"),
            WebhookError::Version(version) => {
                let detail =
                    format!("it has version {version} now: read it again, and decide again");
                Self::new(StatusCode::PRECONDITION_FAILED, "version-mismatch", detail)
            }
            WebhookError::Registry(error) => error.into(),
        }
    }
}

fn shown(hook: Hook) -> Response {
    (etag(hook.version), Json(hook)).into_response()
}

/// Makes a webhook: what comes from now on is posted to its URL, signed.
#[utoipa::path(
    post, path = "/api/v1/webhooks", params(OfTenant), request_body = NewWebhook,
    responses(
        (status = 201, description = "it is made; this is the only time its secret is shown", body = MadeWebhook),
        (status = 409, description = "there is one of that name", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "a problem; `url-blocked`: a node may not ask there", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    State(api): State<Api>,
    caller: Caller,
    Asked(of): Asked<OfTenant>,
    Body(new): Body<NewWebhook>,
) -> Result<Response, Problem> {
    caller.at_least(Role::Operator)?;
    let (tenant, _) = caller.tenant(&api, of.tenant.as_deref()).await?;
    let NewWebhook { name, url, filter, headers, batch_max, timeout_ms, refused, paused } = new;
    let defaults = Settings::of(url);
    let settings = Settings {
        filter,
        batch_max: batch_max.unwrap_or(defaults.batch_max),
        timeout_ms: timeout_ms.unwrap_or(defaults.timeout_ms),
        refused,
        paused,
        ..defaults
    };
    let (webhook, secret) =
        api.webhooks.create(tenant, NewHook { name, settings, headers }).await?;
    let version = etag(webhook.version);
    Ok((StatusCode::CREATED, version, Json(MadeWebhook { webhook, secret })).into_response())
}

/// The webhooks there are, without their secrets.
#[utoipa::path(
    get, path = "/api/v1/webhooks", params(OfTenant),
    responses(
        (status = 200, description = "all of them, by name", body = Vec<Hook>),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Asked(of): Asked<OfTenant>,
) -> Result<Json<Vec<Hook>>, Problem> {
    caller.at_least(Role::Operator)?;
    let (tenant, _) = caller.tenant(&api, of.tenant.as_deref()).await?;
    Ok(Json(api.webhooks.list(tenant).await?))
}

/// One webhook, without its secrets.
#[utoipa::path(
    get, path = "/api/v1/webhooks/{name}",
    params(("name" = String, Path, description = "its name"), OfTenant),
    responses(
        (status = 200, description = "it", body = Hook),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn show(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(of): Asked<OfTenant>,
) -> Result<Response, Problem> {
    caller.at_least(Role::Operator)?;
    let (tenant, _) = caller.tenant(&api, of.tenant.as_deref()).await?;
    Ok(shown(api.webhooks.show(tenant, &name).await?))
}

/// Changes what a merge patch says of a webhook (RFC 7396) and leaves the rest. `"paused": false` lets one go on that paused by itself; of
/// `headers` those that are named change, `null` takes one away. With `If-Match` only that version.
#[utoipa::path(
    patch, path = "/api/v1/webhooks/{name}",
    params(("name" = String, Path, description = "its name"), OfTenant),
    request_body(content = Settings, content_type = "application/merge-patch+json", description = "what is to change; `null`: back to the default"),
    responses(
        (status = 200, description = "as it is now: it goes on so within a second", body = Hook),
        (status = 412, description = "it has another version", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn patch(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(of): Asked<OfTenant>,
    IfVersion(if_version): IfVersion,
    Body(mut patch): Body<Value>,
) -> Result<Response, Problem> {
    caller.at_least(Role::Operator)?;
    let (tenant, _) = caller.tenant(&api, of.tenant.as_deref()).await?;
    let headers = patch.as_object_mut().and_then(|patch| patch.remove(HEADERS));
    let headers: BTreeMap<String, Option<String>> = match headers {
        None => BTreeMap::new(),
        Some(headers) => {
            let wrong = |_| Problem::malformed("headers: names with values, or `null`");
            serde_json::from_value(headers).map_err(wrong)?
        }
    };
    let change = |settings: &Settings| patched(settings, &patch);
    let webhooks = &api.webhooks;
    Ok(shown(webhooks.change::<Problem>(tenant, &name, if_version, &headers, change).await?))
}

/// Forgets a webhook: what it has not sent is not sent.
#[utoipa::path(
    delete, path = "/api/v1/webhooks/{name}",
    params(("name" = String, Path, description = "its name"), OfTenant),
    responses(
        (status = 204, description = "it is gone"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(of): Asked<OfTenant>,
) -> Result<StatusCode, Problem> {
    caller.at_least(Role::Operator)?;
    let (tenant, _) = caller.tenant(&api, of.tenant.as_deref()).await?;
    api.webhooks.delete(tenant, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How a webhook goes: what it has sent, what it tries again and why, and how far behind it is.
#[utoipa::path(
    get, path = "/api/v1/webhooks/{name}/status",
    params(("name" = String, Path, description = "its name"), OfTenant),
    responses(
        (status = 200, description = "as its node last said: within a second if something fails, else within ten", body = WebhookStatus),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn status(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(of): Asked<OfTenant>,
) -> Result<Json<WebhookStatus>, Problem> {
    caller.at_least(Role::Operator)?;
    let (tenant, _) = caller.tenant(&api, of.tenant.as_deref()).await?;
    let (Hook { name, settings, paused_because, .. }, state, lag) =
        api.webhooks.status(tenant, &name).await?;
    let paused = settings.paused;
    Ok(Json(WebhookStatus { name, paused, paused_because, lag, state }))
}

/// Posts an event of type `moorline.test` to a webhook's URL, once, from this node, also while it is paused.
#[utoipa::path(
    post, path = "/api/v1/webhooks/{name}/test",
    params(("name" = String, Path, description = "its name"), OfTenant),
    responses(
        (status = 200, description = "what came of it", body = Tested),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn test(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(of): Asked<OfTenant>,
) -> Result<Json<Tested>, Problem> {
    caller.at_least(Role::Operator)?;
    let (tenant, record) = caller.tenant(&api, of.tenant.as_deref()).await?;
    Ok(Json(api.webhooks.test(tenant, record.name.as_str(), &name).await?))
}
