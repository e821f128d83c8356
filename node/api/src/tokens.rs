//! Tokens of the API itself.

use axum::{Json, extract::State, http::StatusCode};
use moorline_core::TenantId;
use moorline_machine::registry::{DeleteDevice, PutDevice};
use moorline_service::registry::{principal::ApiToken, secrets::Style};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    Api, Problem,
    auth::{self, CLUSTER, Caller, Principal, Role, kept_as},
    extract::{Asked, At, Body},
    paging::{Rows, checked, forget, is_small},
    scope::Scope,
    versions::IfVersion,
};

/// Tokens of the cluster, or of one tenant, in each shard.
const TOKENS_MAX: u32 = 1_000;
/// Bytes of a token's name.
const NAME_BYTES_MAX: usize = 64;

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    /// Small letters, digits and `-`; unique in its tenant.
    #[schema(example = "ci")]
    name: String,
    /// What it may do.
    role: Role,
    /// Of a tenant's token that is no administrator's: for which of its devices. Without it for all.
    #[serde(default)]
    scope: Scope,
}

/// A token that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MadeToken {
    /// Its name.
    name: String,
    /// What it may do.
    role: Role,
    /// The token itself: it is never shown again.
    token: String,
}

/// Which tenant is meant.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfTenant {
    /// A tenant's name; without it the cluster's own tokens, or the caller's tenant.
    pub(crate) tenant: Option<String>,
}

/// A token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenView {
    name: String,
    role: Role,
    #[serde(skip_serializing_if = "Scope::is_all")]
    scope: Scope,
    /// When it was made, in milliseconds since 1970.
    created_ms: u64,
    /// For `If-Match`.
    version: u64,
}

async fn whose(api: &Api, caller: &Caller, named: Option<&str>) -> Result<TenantId, Problem> {
    if named.is_none() && caller.of_cluster(Role::ReadOnly).is_ok() {
        return Ok(CLUSTER);
    }
    caller.tenant(api, named).await.map(|(tenant, _)| tenant)
}

/// Makes a token. The first one of a cluster may be made without any, from the node's own machine.
#[utoipa::path(
    post, path = "/api/v1/tokens", params(OfTenant), request_body = NewToken,
    responses(
        (status = 201, description = "it is made; this is the only time the token is shown", body = MadeToken),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    State(api): State<Api>,
    caller: Result<Caller, Problem>,
    auth::From(from): auth::From,
    Asked(of): Asked<OfTenant>,
    Body(new): Body<NewToken>,
) -> Result<(StatusCode, Json<MadeToken>), Problem> {
    let tenant = match caller {
        Ok(caller) => {
            caller.at_least(Role::Admin)?;
            whose(&api, &caller, of.tenant.as_deref()).await?
        }
        Err(problem) => {
            let first = from.is_loopback() && new.role == Role::Admin && of.tenant.is_none();
            if !first || !api.registry.devices(CLUSTER, None, 1).await?.devices.is_empty() {
                return Err(problem);
            }
            CLUSTER
        }
    };
    let NewToken { name, role, scope } = new;
    scope.check()?;
    if !scope.is_all() && (role == Role::Admin || tenant == CLUSTER) {
        let why =
            "scope: only tokens of a tenant, and none of its administrators, are for some devices";
        return Err(Problem::malformed(why));
    }
    checked(&name, NAME_BYTES_MAX, is_small, "a name has 1 to 64 of a-z, 0-9 and -")?;
    let device = kept_as(&name);
    let (secret, credential) = api.new_secret(tenant, &device, Style::Plain);
    let settings = serde_json::to_vec(&Principal { role, scope }).expect("a map with string keys");
    let put = PutDevice {
        tenant,
        device,
        enabled: true,
        credentials: vec![credential],
        settings: settings.into(),
        if_version: Some(0),
        devices_max: TOKENS_MAX,
    };
    api.registry.put_device(put).await?;
    let token = ApiToken { tenant, name: &name, secret: &secret }.text();
    Ok((StatusCode::CREATED, Json(MadeToken { name, role, token })))
}

/// The tokens there are.
#[utoipa::path(
    get, path = "/api/v1/tokens", params(OfTenant),
    responses(
        (status = 200, description = "all of them", body = Vec<TokenView>),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Asked(of): Asked<OfTenant>,
) -> Result<Json<Vec<TokenView>>, Problem> {
    caller.at_least(Role::Admin)?;
    let tenant = whose(&api, &caller, of.tenant.as_deref()).await?;
    let mut views = Vec::new();
    let mut rows = Rows::new(&api, tenant);
    while let Some(page) = rows.next().await? {
        for (name, record) in page {
            let principal: Option<Principal> = serde_json::from_slice(&record.settings).ok();
            if let (Some(name), Some(Principal { role, scope })) =
                (name.as_str().strip_prefix('~'), principal)
            {
                let (name, created_ms, version) =
                    (name.to_owned(), record.created.0, record.version);
                views.push(TokenView { name, role, scope, created_ms, version });
            }
        }
    }
    Ok(Json(views))
}

/// Forgets a token: it is refused everywhere from the answer on.
#[utoipa::path(
    delete, path = "/api/v1/tokens/{name}", params(("name" = String, Path), OfTenant),
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
    IfVersion(if_version): IfVersion,
) -> Result<StatusCode, Problem> {
    caller.at_least(Role::Admin)?;
    let tenant = whose(&api, &caller, of.tenant.as_deref()).await?;
    let delete = DeleteDevice { tenant, device: kept_as(&name), if_version };
    forget(&api, "token", delete).await
}
