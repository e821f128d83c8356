//! Devices over the REST API: routes, and what is shown beside a device.

use serde_json::{Value, json};
use uuid::Uuid;

use super::entities::{Device, PageQuery};
use crate::thingsboard::query::{Query, WrongParameter};

/// How many devices may be asked for by their ids at once.
pub const IDS_MAX: usize = 1_000;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `POST /api/device[?accessToken=]`
    Save {
        /// The token of a device that is to be made; one is generated without it.
        access_token: Option<String>,
    },
    /// `POST /api/device-with-credentials`
    SaveWithCredentials,
    /// `GET /api/device/{id}`
    Get(Uuid),
    /// `GET /api/device/info/{id}`
    Info(Uuid),
    /// `DELETE /api/device/{id}`
    Delete(Uuid),
    /// `GET /api/device/{id}/credentials`
    Credentials(Uuid),
    /// `POST /api/device/credentials`
    SaveCredentials,
    /// `GET /api/tenant/devices`, `GET /api/tenant/deviceInfos`, `GET /api/deviceInfos/all`, `GET /api/user/devices`
    List {
        /// Which page.
        page: PageQuery,
        /// Only those of this profile.
        kind: Option<String>,
        /// With what [`info`] adds.
        infos: bool,
    },
    /// `GET /api/tenant/device?deviceName=`
    ByName(String),
    /// `GET /api/devices?deviceIds=`
    ByIds(Vec<Uuid>),
    /// `GET /api/device/types`
    Types,
}

/// Reads a path; `None` if it is none of devices.
///
/// # Errors
///
/// A parameter is wrong.
pub fn route(method: &str, path: &str, query: &Query<'_>) -> Result<Option<Route>, WrongParameter> {
    let Some(rest) = path.strip_prefix("/api/") else { return Ok(None) };
    let parts: Vec<&str> = rest.split('/').collect();
    let id = |text: &str| text.parse::<Uuid>().map_err(|_| WrongParameter::Value("the id"));
    let list = |infos| {
        let kind = query.get("type").map(str::to_owned);
        PageQuery::read(query).map(|page| Route::List { page, kind, infos })
    };
    Ok(Some(match (method, parts.as_slice()) {
        ("POST", ["device"]) => {
            Route::Save { access_token: query.get("accessToken").map(str::to_owned) }
        }
        ("POST", ["device-with-credentials"]) => Route::SaveWithCredentials,
        ("POST", ["device", "credentials"]) => Route::SaveCredentials,
        ("GET", ["device", "types"]) => Route::Types,
        ("GET", ["device", "info", device]) => Route::Info(id(device)?),
        ("GET", ["device", device]) => Route::Get(id(device)?),
        ("DELETE", ["device", device]) => Route::Delete(id(device)?),
        ("GET", ["device", device, "credentials"]) => Route::Credentials(id(device)?),
        ("GET", ["tenant" | "user", "devices"]) => list(false)?,
        ("GET", ["tenant", "deviceInfos"] | ["deviceInfos", "all"]) => list(true)?,
        ("GET", ["tenant", "device"]) => {
            let name = query.get("deviceName").ok_or(WrongParameter::Missing("deviceName"))?;
            Route::ByName(name.to_owned())
        }
        ("GET", ["devices"]) => {
            let ids = query.list("deviceIds").ok_or(WrongParameter::Missing("deviceIds"))?;
            let ids = ids.split(',').filter(|id| !id.is_empty()).take(IDS_MAX + 1);
            let ids = ids.map(id).collect::<Result<Vec<_>, _>>()?;
            if ids.len() > IDS_MAX {
                return Err(WrongParameter::Value("deviceIds"));
            }
            Route::ByIds(ids)
        }
        _ => return Ok(None),
    }))
}

/// A device with what people want to see of it at a glance.
#[must_use]
pub fn info(device: &Device, active: bool) -> Value {
    let mut shown = json!(device);
    let profile = device.device_type.clone().unwrap_or_default();
    let more = json!({
        "customerTitle": null,
        "customerIsPublic": false,
        "deviceProfileName": profile,
        "active": active,
    });
    if let (Some(shown), Value::Object(more)) = (shown.as_object_mut(), more) {
        shown.extend(more);
    }
    shown
}

/// The body of [`Route::SaveWithCredentials`]: a device, and its credentials.
#[must_use]
pub fn with_credentials(body: &Value) -> Option<(&Value, &Value)> {
    Some((body.get("device")?, body.get("credentials")?))
}
