//! Devices that make themselves known: a device shows a provisioning key and its name, and gets a secret of its own.
//!
//! ```text
//!   mlp_<tenant>_<name>_<secret>
//! ```
//!
//! Keys are kept as tokens are, under names that neither a device nor a token can have (`~.name`). What a key may do is in its row, with
//! how many devices it has made.
//!
//! # Invariants
//!
//! - **A key makes devices and nothing else**: it never shows, changes or takes over one that exists.
//! - **No key makes more devices than it may**: each is counted in the key's row, under a condition, before it is made. Checked by the cluster
//!   tests (`access_keys.rs`).
//! - **A wrong key, one that is over, and one that never was are told the same.**

use std::{collections::BTreeSet, fmt};

use axum::{Json, extract::State, http::StatusCode};
use moorline_core::{TenantId, Text, UnixMillis};
use moorline_machine::{
    answer::Refused,
    registry::{Credential, DeleteDevice, DeviceRecord, PutDevice},
};
use moorline_service::registry::{
    RegistryError,
    secrets::Style,
    settings::{self, DeviceSettings},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Api, Problem,
    auth::{Caller, Role},
    credentials::SecretStyle,
    devices::{device_name, devices_max},
    extract::{Asked, At, Body},
    paging::{Rows, checked, forget, is_small},
    scope::Scope,
    tokens::OfTenant,
};

/// What every key begins with, so that secret scanners find lost ones.
const PREFIX: &str = "mlp_";
/// In front of a key's name in its row; no token's name has it.
const KEPT: &str = "~.";
/// Bytes of a key's name.
const NAME_BYTES_MAX: usize = 64;
/// Keys of a tenant, in each shard.
const KEYS_MAX: u32 = 1_000;
/// How often a key that other devices use at the same moment is tried again.
const TRIES_MAX: usize = 32;

/// What a key may do, and has done: the settings of its row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Rights {
    /// Patterns of names.
    devices: Vec<String>,
    labels: BTreeSet<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    style: SecretStyle,
    devices_max: u32,
    made: u32,
}

/// A provisioning key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKey {
    /// Small letters, digits and `-`; unique in its tenant.
    #[schema(example = "line-3")]
    name: String,
    /// Names that its devices may have, in which `*` stands for anything: 1 to 16.
    devices: Vec<String>,
    /// Labels that its devices get.
    #[serde(default)]
    labels: BTreeSet<String>,
    /// What sort of things they are.
    #[serde(default, rename = "type")]
    kind: Option<String>,
    /// How their secrets look.
    #[serde(default)]
    style: SecretStyle,
    /// How many devices it may make.
    devices_max: u32,
    /// From when on it counts, in milliseconds since 1970.
    #[serde(default)]
    not_before_ms: Option<u64>,
    /// Until when.
    #[serde(default)]
    not_after_ms: Option<u64>,
}

/// A provisioning key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyView {
    /// Its name.
    name: String,
    /// Names that its devices may have.
    devices: Vec<String>,
    /// Labels that they get.
    labels: BTreeSet<String>,
    /// What sort of things they are.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// How many it may make.
    devices_max: u32,
    /// How many it has made, or begun to make.
    made: u32,
    /// From when on it counts, in milliseconds since 1970.
    not_before_ms: Option<u64>,
    /// Until when.
    not_after_ms: Option<u64>,
}

/// A key that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadeKey {
    /// Its name.
    name: String,
    /// The key itself: it is never shown again.
    secret: String,
}

/// What a device says.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Provision {
    /// A provisioning key.
    key: String,
    /// The name it is to have.
    device: String,
}

/// A device that is known from now on.
#[derive(Serialize, ToSchema)]
pub(crate) struct Provisioned {
    /// Its tenant's name.
    tenant: String,
    /// Its own.
    device: String,
    /// Its user name over MQTT.
    user: String,
    /// Its secret: it is never shown again.
    secret: String,
}

/// By hand, all three: what is secret is not printed.
impl fmt::Debug for MadeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MadeKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Provision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provision").field("device", &self.device).finish_non_exhaustive()
    }
}

impl fmt::Debug for Provisioned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provisioned").field("device", &self.device).finish_non_exhaustive()
    }
}

fn kept_as(name: &str) -> Text {
    Text::from(format!("{KEPT}{name}"))
}

/// A key in its parts: the tenant, its name, its secret.
fn parts(key: &str) -> Option<(TenantId, &str, &str)> {
    let (tenant, rest) = key.strip_prefix(PREFIX)?.split_once('_')?;
    let (name, secret) = rest.split_once('_')?;
    Some((TenantId(tenant.parse().ok()?), name, secret))
}

fn nobody() -> Problem {
    let detail = "a provisioning key that counts is wanted";
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorised", detail)
}

fn rights(record: &DeviceRecord) -> Option<Rights> {
    serde_json::from_slice(&record.settings).ok()
}

fn row(tenant: TenantId, device: Text, record: &DeviceRecord, rights: &Rights) -> PutDevice {
    PutDevice {
        tenant,
        device,
        enabled: record.enabled,
        credentials: record.credentials.clone(),
        settings: settings::written(rights),
        if_version: Some(record.version),
        devices_max: KEYS_MAX,
    }
}

/// Makes a provisioning key.
#[utoipa::path(
    post, path = "/api/v1/provisioning-keys", params(OfTenant), request_body = NewKey,
    responses(
        (status = 201, description = "it is made; this is the only time it is shown", body = MadeKey),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    State(api): State<Api>,
    caller: Caller,
    Asked(of): Asked<OfTenant>,
    Body(new): Body<NewKey>,
) -> Result<(StatusCode, Json<MadeKey>), Problem> {
    caller.at_least(Role::Operator)?;
    let (tenant, _) = caller.tenant(&api, of.tenant.as_deref()).await?;
    let NewKey { name, devices, labels, kind, style, devices_max, not_before_ms, not_after_ms } =
        new;
    checked(&name, NAME_BYTES_MAX, is_small, "a name has 1 to 64 of a-z, 0-9 and -")?;
    if devices.is_empty() {
        return Err(Problem::malformed("devices: `*` stands for any name"));
    }
    let scope = Scope { devices, labels };
    scope.check()?;
    let Scope { devices, labels } = scope;
    let device = kept_as(&name);
    let (secret, credential) = api.new_secret(tenant, &device, Style::Plain);
    let credential = Credential {
        not_before: not_before_ms.map(UnixMillis),
        not_after: not_after_ms.map(UnixMillis),
        ..credential
    };
    let rights = Rights { devices, labels, kind, style, devices_max, made: 0 };
    let put = PutDevice {
        tenant,
        device,
        enabled: true,
        credentials: vec![credential],
        settings: settings::written(&rights),
        if_version: Some(0),
        devices_max: KEYS_MAX,
    };
    api.registry.put_device(put).await?;
    let secret = format!("{PREFIX}{}_{name}_{secret}", tenant.0);
    Ok((StatusCode::CREATED, Json(MadeKey { name, secret })))
}

/// The provisioning keys there are.
#[utoipa::path(
    get, path = "/api/v1/provisioning-keys", params(OfTenant),
    responses(
        (status = 200, description = "all of them", body = Vec<KeyView>),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Asked(of): Asked<OfTenant>,
) -> Result<Json<Vec<KeyView>>, Problem> {
    caller.at_least(Role::Operator)?;
    let (tenant, _) = caller.tenant(&api, of.tenant.as_deref()).await?;
    let mut views = Vec::new();
    let mut rows = Rows::new(&api, tenant);
    while let Some(page) = rows.next().await? {
        for (name, record) in page {
            let (Some(name), Some(rights)) = (name.as_str().strip_prefix(KEPT), rights(&record))
            else {
                continue;
            };
            let held = record.credentials.first();
            let Rights { devices, labels, kind, devices_max, made, .. } = rights;
            views.push(KeyView {
                name: name.to_owned(),
                devices,
                labels,
                kind,
                devices_max,
                made,
                not_before_ms: held.and_then(|held| held.not_before).map(|at| at.0),
                not_after_ms: held.and_then(|held| held.not_after).map(|at| at.0),
            });
        }
    }
    Ok(Json(views))
}

/// Forgets a provisioning key: it is refused everywhere from the answer on. Its devices stay.
#[utoipa::path(
    delete, path = "/api/v1/provisioning-keys/{name}", params(("name" = String, Path), OfTenant),
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
    let delete = DeleteDevice { tenant, device: kept_as(&name), if_version: None };
    forget(&api, "provisioning key", delete).await
}

/// Makes the device that asks known to its tenant. Wants no token: the key says who may.
#[utoipa::path(
    post, path = "/api/v1/provision", request_body = Provision,
    responses(
        (status = 201, description = "it is known; this is the only time its secret is shown", body = Provisioned),
        (status = 403, description = "the key is not for such a device, or has made as many as it may", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "there is a device of that name", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn provision(
    State(api): State<Api>,
    Body(asked): Body<Provision>,
) -> Result<(StatusCode, Json<Provisioned>), Problem> {
    let (tenant, name, secret) = parts(&asked.key).ok_or_else(nobody)?;
    let of = api.registry.tenant(tenant).filter(|of| of.enabled).ok_or_else(nobody)?;
    let device = device_name(&asked.device)?;
    let rights = count(&api, tenant, name, secret, &device).await?;
    let (secret, credential) = api.new_secret(
        tenant,
        &device,
        match rights.style {
            SecretStyle::Plain => Style::Plain,
            SecretStyle::Fostrom => Style::Fostrom,
        },
    );
    let is =
        DeviceSettings { kind: rights.kind, labels: rights.labels, ..DeviceSettings::default() };
    let put = PutDevice {
        tenant,
        device: device.clone(),
        enabled: true,
        credentials: vec![credential],
        settings: settings::written(&is),
        if_version: Some(0),
        devices_max: devices_max(&of),
    };
    api.registry.put_device(put).await?;
    let (tenant, user) = (of.name.to_string(), format!("{device}@{}", of.name));
    let made = Provisioned { tenant, device: device.to_string(), user, secret };
    Ok((StatusCode::CREATED, Json(made)))
}

/// Counts a device of a key before it is made, if the key may make it: what the key says of it.
async fn count(
    api: &Api,
    tenant: TenantId,
    name: &str,
    secret: &str,
    device: &Text,
) -> Result<Rights, Problem> {
    let kept = kept_as(name);
    for _ in 0..TRIES_MAX {
        let record = api.registry.device(tenant, &kept).await?;
        let record = record.filter(|record| record.enabled).ok_or_else(nobody)?;
        if !api.holds(tenant, &kept, &record, secret.as_bytes()) {
            return Err(nobody());
        }
        let mut rights = rights(&record).ok_or_else(nobody)?;
        let scope = Scope { devices: rights.devices.clone(), labels: BTreeSet::new() };
        if !scope.names(device.as_str()) {
            return Err(Problem::forbidden("the key is not for devices of this name"));
        }
        // Before it counts: who asks again for what it has loses nothing.
        if api.registry.device(tenant, device).await?.is_some() {
            return Err(RegistryError::Refused(Refused::Exists).into());
        }
        if rights.made >= rights.devices_max {
            return Err(RegistryError::Refused(Refused::TooMany).into());
        }
        rights.made += 1;
        match api.registry.put_device(row(tenant, kept.clone(), &record, &rights)).await {
            Ok(_) => return Ok(rights),
            Err(RegistryError::Refused(Refused::VersionMismatch { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(RegistryError::Busy.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_apart_as_they_were_made() {
        assert_eq!(parts("mlp_7_line-3_s_x"), Some((TenantId(7), "line-3", "s_x")));
        for wrong in ["", "mlp_7_line", "mlt_7_line_s", "mlp_x_line_s", "7_line_s"] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let (key, device) = ("canary".to_owned(), "pump".to_owned());
        let asked = Provision { key: key.clone(), device: device.clone() };
        let made = MadeKey { name: device.clone(), secret: key.clone() };
        let known =
            Provisioned { tenant: device.clone(), device, user: String::new(), secret: key };
        assert!(!format!("{asked:?} {made:?} {known:?}").contains("canary"));
    }
}
