//! Tenants: made, shown, replaced and forgotten by administrators of the cluster.

use axum::{Json, extract::State, http::StatusCode, response::IntoResponse};
use moorline_core::{TenantId, Text};
use moorline_machine::{
    answer::Refused,
    registry::{DeleteTenant, PutTenant, TENANT_NAME_BYTES_MAX, TenantRecord},
};
use moorline_service::registry::{
    RegistryError,
    settings::{self, TenantSettings},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    Api, Problem,
    auth::{Caller, Role},
    extract::{At, Body},
    paging::{checked, is_small},
    patch::patched,
    repeats::OfKey,
    versions::{IfVersion, Known, etag},
};

/// How often a patch is tried again after somebody else's write came between.
const TRIES_MAX: usize = 5;

/// A tenant as it is written.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTenant {
    /// Small letters, digits and `-`; unique in the cluster.
    #[schema(example = "acme")]
    name: String,
    /// How platforms call it: `fostrom:FLEET001`; `host:NAME` for the host name by which its devices come (SNI), `host:*`
    /// for all that have no other tenant. Unique in the cluster.
    #[serde(default)]
    aliases: Vec<String>,
    /// Whether its clients may connect.
    #[serde(default = "yes")]
    enabled: bool,
    /// Everything else.
    #[serde(default)]
    settings: TenantSettings,
}

fn yes() -> bool {
    true
}

/// A tenant as it is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantView {
    /// Its number in logs and metrics.
    id: u32,
    /// Its name.
    name: String,
    /// How platforms call it.
    aliases: Vec<String>,
    /// Whether its clients may connect.
    enabled: bool,
    /// Grows with every write; also the `ETag`.
    version: u64,
    /// When it was made, in milliseconds since 1970.
    created_ms: u64,
    /// When it was last written.
    updated_ms: u64,
    /// Everything else.
    settings: TenantSettings,
}

fn view(id: TenantId, record: &TenantRecord) -> TenantView {
    TenantView {
        id: id.0,
        name: record.name.to_string(),
        aliases: record.aliases.iter().map(ToString::to_string).collect(),
        enabled: record.enabled,
        version: record.version,
        created_ms: record.created.0,
        updated_ms: record.updated.0,
        settings: settings::read(&record.settings),
    }
}

fn put(new: NewTenant, tenant: TenantId, if_version: Option<u64>) -> Result<PutTenant, Problem> {
    let NewTenant { name, aliases, enabled, settings } = new;
    let why = "a name has 1 to 64 of a-z, 0-9 and -";
    checked(&name, TENANT_NAME_BYTES_MAX, is_small, why)?;
    for alias in &aliases {
        let parts =
            alias.split_once(':').filter(|(platform, id)| !platform.is_empty() && !id.is_empty());
        if parts.is_none() {
            return Err(Problem::malformed(
                "an alias is a platform and its id: `fostrom:FLEET001`",
            ));
        }
    }
    settings.trust_anchors.check().map_err(Problem::malformed)?;
    let settings = settings::written(&settings);
    let aliases = aliases.into_iter().map(Text::from).collect();
    Ok(PutTenant { tenant, name: Text::from(name), aliases, enabled, settings, if_version })
}

/// What can be written of a tenant, as it is.
fn body(record: &TenantRecord) -> NewTenant {
    NewTenant {
        name: record.name.to_string(),
        aliases: record.aliases.iter().map(ToString::to_string).collect(),
        enabled: record.enabled,
        settings: settings::read(&record.settings),
    }
}

/// What is there now, as an answer.
fn answer(
    api: &Api,
    id: TenantId,
    status: StatusCode,
) -> Result<axum::response::Response, Problem> {
    let record = api.registry.tenant(id).ok_or_else(|| Problem::not_found("tenant"))?;
    Ok((status, etag(record.version), Json(view(id, &record))).into_response())
}

/// All tenants.
#[utoipa::path(
    get, path = "/api/v1/tenants",
    responses(
        (status = 200, description = "by id", body = Vec<TenantView>),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
) -> Result<Json<Vec<TenantView>>, Problem> {
    caller.of_cluster(Role::ReadOnly)?;
    Ok(Json(api.registry.tenants().iter().map(|(id, record)| view(*id, record)).collect()))
}

/// Makes a tenant.
#[utoipa::path(
    post, path = "/api/v1/tenants", request_body = NewTenant,
    responses(
        (status = 201, description = "it is made", body = TenantView),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    State(api): State<Api>,
    caller: Caller,
    key: OfKey,
    Body(new): Body<NewTenant>,
) -> Result<axum::response::Response, Problem> {
    caller.of_cluster(Role::Admin)?;
    let wanted = put(new, TenantId(0), Some(0))?;
    let (id, _) = match api.registry.put_tenant(wanted.clone()).await {
        // This request may have made it, when a node died before it said so.
        Err(RegistryError::Refused(Refused::Exists)) if key.is_again() => {
            let (id, record) = caller.tenant(&api, Some(wanted.name.as_str())).await?;
            let PutTenant { name, aliases, enabled, settings, .. } = wanted;
            let asked = TenantRecord { name, aliases, enabled, settings, ..record.clone() };
            if body(&record) != body(&asked) {
                return Err(RegistryError::Refused(Refused::Exists).into());
            }
            (id, record.version)
        }
        done => done?,
    };
    answer(&api, id, StatusCode::CREATED)
}

/// One tenant.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant}", params(("tenant" = String, Path, description = "its name")),
    responses(
        (status = 200, description = "it", body = TenantView),
        (status = 304, description = "it has the version that `If-None-Match` names"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn show(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    known: Known,
) -> Result<axum::response::Response, Problem> {
    let (id, record) = caller.tenant(&api, Some(&name)).await?;
    if known.has(record.version) {
        return Ok((StatusCode::NOT_MODIFIED, etag(record.version)).into_response());
    }
    answer(&api, id, StatusCode::OK)
}

/// Replaces what is known of a tenant. With `If-Match` only that version.
#[utoipa::path(
    put, path = "/api/v1/tenants/{tenant}", params(("tenant" = String, Path, description = "its name")),
    request_body = NewTenant,
    responses(
        (status = 200, description = "as it is now", body = TenantView),
        (status = 412, description = "it has another version", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn replace(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    IfVersion(if_version): IfVersion,
    Body(new): Body<NewTenant>,
) -> Result<axum::response::Response, Problem> {
    caller.at_least(Role::Admin)?;
    let (id, _) = caller.tenant(&api, Some(&name)).await?;
    api.registry.put_tenant(put(new, id, if_version)?).await?;
    answer(&api, id, StatusCode::OK)
}

/// Changes what a merge patch says of a tenant (RFC 7396) and leaves the rest. With `If-Match` only that version.
#[utoipa::path(
    patch, path = "/api/v1/tenants/{tenant}", params(("tenant" = String, Path, description = "its name")),
    request_body(content = NewTenant, content_type = "application/merge-patch+json", description = "what is to change; `null`: back to the default"),
    responses(
        (status = 200, description = "as it is now", body = TenantView),
        (status = 412, description = "it has another version", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn patch(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    IfVersion(if_version): IfVersion,
    Body(patch): Body<Value>,
) -> Result<axum::response::Response, Problem> {
    caller.at_least(Role::Admin)?;
    for _ in 0..TRIES_MAX {
        let (id, record) = caller.tenant(&api, Some(&name)).await?;
        let new: NewTenant = patched(&body(&record), &patch)?;
        let wanted = put(new, id, if_version.or(Some(record.version)))?;
        match api.registry.put_tenant(wanted).await {
            Err(RegistryError::Refused(Refused::VersionMismatch { .. }))
                if if_version.is_none() =>
            {
                // This node may not have applied the other write.
                api.registry.refresh().await;
            }
            Err(error) => return Err(error.into()),
            Ok(_) => return answer(&api, id, StatusCode::OK),
        }
    }
    Err(RegistryError::Busy.into())
}

/// Forgets a tenant, which must have no devices any more.
#[utoipa::path(
    delete, path = "/api/v1/tenants/{tenant}", params(("tenant" = String, Path, description = "its name")),
    responses(
        (status = 204, description = "it is gone"),
        (status = 409, description = "it has devices or tokens", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    IfVersion(if_version): IfVersion,
) -> Result<StatusCode, Problem> {
    caller.of_cluster(Role::Admin)?;
    let (tenant, _) = caller.tenant(&api, Some(&name)).await?;
    if !api.registry.devices(tenant, None, 1).await?.devices.is_empty() {
        let detail = "delete its devices and tokens first";
        return Err(Problem::new(StatusCode::CONFLICT, "not-empty", detail));
    }
    let gone = api.registry.delete_tenant(DeleteTenant { tenant, if_version }).await;
    gone.map_err(|error| Problem::about("tenant", error))?;
    Ok(StatusCode::NO_CONTENT)
}
