//! Devices, of one tenant at a time. Their credentials: `credentials.rs`.

use axum::{Json, extract::State, http::StatusCode, response::IntoResponse};
use moorline_core::{TenantId, Text};
use moorline_machine::{
    answer::Refused,
    presence::PresenceRecord,
    registry::{Credential, DEVICE_NAME_BYTES_MAX, DeleteDevice, DeviceRecord, PutDevice},
};
use moorline_service::registry::{
    RegistryError,
    settings::{self, DeviceSettings, TenantSettings},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::{
    Api, Problem,
    auth::{Caller, Role},
    credentials::CredentialView,
    extract::{Asked, At, Body},
    paging::{Page, forget, is_token},
    patch::patched,
    presence::{self, PresenceView},
    repeats::OfKey,
    tokens::OfTenant,
    versions::{IfVersion, Known, etag},
};

/// What stands in the place of a device's name in a path.
const RESERVED: [&str; 2] = ["import", "export"];
/// How often a change of credentials is tried again after somebody else's came between.
const TRIES_MAX: usize = 5;

/// A device to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewDevice {
    /// Unique in its tenant: printable, without `~` in front; neither `import` nor `export`.
    #[schema(example = "pump-1")]
    name: String,
    /// Whether it may connect.
    #[serde(default = "yes")]
    enabled: bool,
    /// What it is, and its limits.
    #[serde(default)]
    settings: DeviceSettings,
}

/// What can be written of a device.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceBody {
    /// Whether it may connect.
    #[serde(default = "yes")]
    enabled: bool,
    /// What it is, and its limits.
    #[serde(default)]
    settings: DeviceSettings,
}

pub(crate) fn yes() -> bool {
    true
}

/// A device as it is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeviceView {
    /// Its name.
    name: String,
    /// Whether it may connect.
    enabled: bool,
    /// Grows with every write; also the `ETag`.
    version: u64,
    /// When it was made, in milliseconds since 1970.
    created_ms: u64,
    /// When it was last written.
    updated_ms: u64,
    /// What it proves its identity with; secrets are not shown.
    credentials: Vec<CredentialView>,
    /// Whether it is connected, and since when.
    presence: PresenceView,
    /// What it is, and its limits.
    settings: DeviceSettings,
}

/// A piece of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeviceList {
    /// In an order of the cluster's own.
    devices: Vec<DeviceView>,
    /// `?after=` for the next page; absent in the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Which devices.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfPresence {
    /// Only those that are so now. A page may be short, or empty, although there are more.
    presence: Option<presence::State>,
}

fn view(name: &Text, record: &DeviceRecord, presence: Option<&PresenceRecord>) -> DeviceView {
    let credential = |held: &Credential| CredentialView::of(held, presence);
    DeviceView {
        name: name.to_string(),
        enabled: record.enabled,
        version: record.version,
        created_ms: record.created.0,
        updated_ms: record.updated.0,
        credentials: record.credentials.iter().map(credential).collect(),
        presence: PresenceView::of(presence),
        settings: settings::read(&record.settings),
    }
}

/// A name a device may have.
pub(crate) fn device_name(name: &str) -> Result<Text, Problem> {
    let fits = !name.is_empty() && name.len() <= DEVICE_NAME_BYTES_MAX;
    if !fits || name.starts_with('~') || name.chars().any(char::is_control) {
        let why = "a device's name has 1 to 160 bytes, no control characters, and no ~ in front";
        return Err(Problem::malformed(why));
    }
    if RESERVED.contains(&name) {
        let why = "`import` and `export` are no names of devices: they are paths of this API";
        return Err(Problem::malformed(why));
    }
    Ok(Text::from(name))
}

pub(crate) fn devices_max(record: &moorline_machine::registry::TenantRecord) -> u32 {
    settings::read::<TenantSettings>(&record.settings).devices_per_shard_max
}

/// What is known of a device; a problem if it does not exist.
pub(crate) async fn found(
    api: &Api,
    tenant: TenantId,
    device: &Text,
) -> Result<DeviceRecord, Problem> {
    api.registry.device(tenant, device).await?.ok_or_else(|| Problem::not_found("device"))
}

async fn answer(
    api: &Api,
    tenant: TenantId,
    device: &Text,
    status: StatusCode,
) -> Result<axum::response::Response, Problem> {
    let record = found(api, tenant, device).await?;
    shown(api, tenant, (device.clone(), record), status).await
}

async fn shown(
    api: &Api,
    tenant: TenantId,
    one: (Text, DeviceRecord),
    status: StatusCode,
) -> Result<axum::response::Response, Problem> {
    let one = [one];
    let presence = presence::of_devices(api, tenant, &one).await?;
    let [(device, record)] = &one;
    let view = view(device, record, presence.first().and_then(Option::as_ref));
    Ok((status, etag(record.version), Json(view)).into_response())
}

/// A tenant's devices, page by page.
#[utoipa::path(
    get, path = "/api/v1/devices", params(Page, OfPresence),
    responses(
        (status = 200, description = "a page", body = DeviceList),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Asked(page): Asked<Page>,
    Asked(of): Asked<OfPresence>,
) -> Result<Json<DeviceList>, Problem> {
    let (tenant, _) = caller.tenant_of_some(&api, page.tenant.as_deref()).await?;
    let (mut rows, next) = page.read(&api, tenant).await?;
    rows.retain(|(name, record)| {
        !is_token(name) && caller.covers(name, &settings::read(&record.settings)).is_ok()
    });
    let presence = presence::of_devices(&api, tenant, &rows).await?;
    let shown = rows.iter().zip(&presence);
    let shown = shown.map(|((name, record), known)| view(name, record, known.as_ref()));
    let wanted = |view: &DeviceView| of.presence.is_none_or(|state| state == view.presence.state);
    Ok(Json(DeviceList { devices: shown.filter(wanted).collect(), next }))
}

/// Makes a device.
#[utoipa::path(
    post, path = "/api/v1/devices", params(OfTenant), request_body = NewDevice,
    responses(
        (status = 201, description = "it is made", body = DeviceView),
        (status = 409, description = "it exists", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    State(api): State<Api>,
    caller: Caller,
    Asked(of): Asked<OfTenant>,
    key: OfKey,
    Body(new): Body<NewDevice>,
) -> Result<axum::response::Response, Problem> {
    caller.at_least(Role::Operator)?;
    let (tenant, record) = caller.tenant_of_some(&api, of.tenant.as_deref()).await?;
    let device = device_name(&new.name)?;
    caller.covers(&device, &new.settings)?;
    let put = PutDevice {
        tenant,
        device: device.clone(),
        enabled: new.enabled,
        credentials: Vec::new(),
        settings: settings::written(&new.settings),
        if_version: Some(0),
        devices_max: devices_max(&record),
    };
    match api.registry.put_device_plainly(put).await {
        // This request may have made it, when a node died before it said so.
        Err(RegistryError::Refused(Refused::Exists)) if key.is_again() => {
            let record = found(&api, tenant, &device).await?;
            let settings: DeviceSettings = settings::read(&record.settings);
            if (record.enabled, &settings) != (new.enabled, &new.settings) {
                return Err(RegistryError::Refused(Refused::Exists).into());
            }
        }
        done => _ = done?,
    }
    answer(&api, tenant, &device, StatusCode::CREATED).await
}

/// One device. Its `ETag` is of what was written: its presence changes without it.
#[utoipa::path(
    get, path = "/api/v1/devices/{device}",
    params(("device" = String, Path, description = "its name"), OfTenant),
    responses(
        (status = 200, description = "it", body = DeviceView),
        (status = 304, description = "it has the version that `If-None-Match` names"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn show(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(of): Asked<OfTenant>,
    known: Known,
) -> Result<axum::response::Response, Problem> {
    let (tenant, _) = caller.tenant_of_some(&api, of.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    let record = found(&api, tenant, &device).await?;
    if known.has(record.version) {
        return Ok((StatusCode::NOT_MODIFIED, etag(record.version)).into_response());
    }
    shown(&api, tenant, (device, record), StatusCode::OK).await
}

/// Replaces what is known of a device, but for its credentials. With `If-Match` only that version.
#[utoipa::path(
    put, path = "/api/v1/devices/{device}",
    params(("device" = String, Path, description = "its name"), OfTenant), request_body = DeviceBody,
    responses(
        (status = 200, description = "as it is now", body = DeviceView),
        (status = 412, description = "it has another version", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn replace(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(of): Asked<OfTenant>,
    IfVersion(if_version): IfVersion,
    Body(body): Body<DeviceBody>,
) -> Result<axum::response::Response, Problem> {
    caller.at_least(Role::Operator)?;
    let (tenant, of) = caller.tenant_of_some(&api, of.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    let change = |record: &DeviceRecord| {
        caller.covers(&device, &body.settings)?;
        Ok((body.enabled, record.credentials.clone(), settings::written(&body.settings)))
    };
    changed(&api, tenant, &device, devices_max(&of), if_version, change).await?;
    answer(&api, tenant, &device, StatusCode::OK).await
}

/// Changes what a merge patch says of a device (RFC 7396) and leaves the rest. With `If-Match` only that version.
#[utoipa::path(
    patch, path = "/api/v1/devices/{device}",
    params(("device" = String, Path, description = "its name"), OfTenant),
    request_body(content = DeviceBody, content_type = "application/merge-patch+json", description = "what is to change; `null`: back to the default"),
    responses(
        (status = 200, description = "as it is now", body = DeviceView),
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
    Body(patch): Body<Value>,
) -> Result<axum::response::Response, Problem> {
    caller.at_least(Role::Operator)?;
    let (tenant, of) = caller.tenant_of_some(&api, of.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    let change = |record: &DeviceRecord| {
        let settings = settings::read(&record.settings);
        let body = DeviceBody { enabled: record.enabled, settings };
        let body: DeviceBody = patched(&body, &patch)?;
        caller.covers(&device, &body.settings)?;
        Ok((body.enabled, record.credentials.clone(), settings::written(&body.settings)))
    };
    changed(&api, tenant, &device, devices_max(&of), if_version, change).await?;
    answer(&api, tenant, &device, StatusCode::OK).await
}

/// Writes a device as `change` says, from what it is; again if somebody else's write came between.
pub(crate) async fn changed(
    api: &Api,
    tenant: TenantId,
    device: &Text,
    devices_max: u32,
    if_version: Option<u64>,
    change: impl Fn(&DeviceRecord) -> Result<(bool, Vec<Credential>, bytes::Bytes), Problem>,
) -> Result<(), Problem> {
    for _ in 0..TRIES_MAX {
        let record = found(api, tenant, device).await?;
        if if_version.is_some_and(|wanted| wanted != record.version) {
            let refused = Refused::VersionMismatch { version: record.version };
            return Err(RegistryError::Refused(refused).into());
        }
        let (enabled, credentials, settings) = change(&record)?;
        let put = PutDevice {
            tenant,
            device: device.clone(),
            enabled,
            credentials,
            settings,
            if_version: Some(record.version),
            devices_max,
        };
        match api.registry.put_device(put).await {
            Ok(_) => return Ok(()),
            Err(RegistryError::Refused(Refused::VersionMismatch { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(RegistryError::Busy.into())
}

/// Forgets a device with its credentials and its mail.
#[utoipa::path(
    delete, path = "/api/v1/devices/{device}",
    params(("device" = String, Path, description = "its name"), OfTenant),
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
    caller.at_least(Role::Operator)?;
    let (tenant, _) = caller.tenant_of_some(&api, of.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    forget(&api, "device", DeleteDevice { tenant, device, if_version }).await
}
