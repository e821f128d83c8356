//! Consumer groups: how far applications have read, kept for them.

use axum::{Json, extract::State, http::StatusCode};
use moorline_core::Text;
use moorline_machine::events::CONSUMER_NAME_BYTES_MAX;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Api, Problem,
    auth::{Caller, Role},
    extract::{Asked, At, Body},
    paging::checked,
    tokens::OfTenant,
};

/// How far somebody has read.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Commit {
    /// The `id` of an event as the stream said it, which is a place in all shards.
    #[schema(example = "3f.0.1z")]
    cursor: String,
}

/// What a consumer group has committed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Committed {
    /// Its name.
    group: String,
    /// Where `group=` begins from now on: never before what was committed earlier.
    cursor: String,
}

/// A consumer group.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConsumerView {
    /// Its name.
    group: String,
    /// Where it goes on.
    cursor: String,
    /// Events that it has not committed.
    lag: u64,
    /// Of those, events that are gone: they were too old, or too many.
    missed: u64,
    /// When it last committed, in milliseconds since 1970.
    committed_ms: u64,
}

/// A name a consumer group may have.
pub(crate) fn group_name(name: &str) -> Result<Text, Problem> {
    let is_of = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let why = "a consumer group's name has 1 to 64 of A-Z, a-z, 0-9, _, - and .";
    checked(name, CONSUMER_NAME_BYTES_MAX, is_of, why)?;
    Ok(Text::from(name))
}

/// The consumer groups there are, each once it has committed something.
#[utoipa::path(
    get, path = "/api/v1/consumers", params(OfTenant),
    responses(
        (status = 200, description = "all of them, by name", body = Vec<ConsumerView>),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Asked(of): Asked<OfTenant>,
) -> Result<Json<Vec<ConsumerView>>, Problem> {
    let (tenant, _) = caller.tenant(&api, of.tenant.as_deref()).await?;
    let groups = api.registry.consumers(tenant).await?.into_iter().map(|group| ConsumerView {
        group: group.name.to_string(),
        cursor: group.cursor.to_string(),
        lag: group.lag,
        missed: group.missed,
        committed_ms: group.committed.0,
    });
    Ok(Json(groups.collect()))
}

/// Says how far a consumer group has read: 200 when that is synced on a majority. To say it again, or less, changes nothing.
#[utoipa::path(
    post, path = "/api/v1/consumers/{group}/commit",
    params(("group" = String, Path, description = "its name"), OfTenant), request_body = Commit,
    responses(
        (status = 200, description = "what it has committed now", body = Committed),
        (status = 409, description = "there are no such events yet", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn commit(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(of): Asked<OfTenant>,
    Body(commit): Body<Commit>,
) -> Result<Json<Committed>, Problem> {
    caller.at_least(Role::App)?;
    let (tenant, _) = caller.tenant(&api, of.tenant.as_deref()).await?;
    let group = group_name(&name)?;
    let cursor = api.registry.cursor(&commit.cursor);
    let cursor = cursor.ok_or_else(|| Problem::malformed("cursor: the `id` of an event"))?;
    let committed = api.registry.commit_events(tenant, &group, &cursor).await?;
    Ok(Json(Committed { group: name, cursor: committed.to_string() }))
}

/// Forgets a consumer group: it would begin with the oldest event again.
#[utoipa::path(
    delete, path = "/api/v1/consumers/{group}",
    params(("group" = String, Path, description = "its name"), OfTenant),
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
    api.registry.delete_consumer(tenant, &group_name(&name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
