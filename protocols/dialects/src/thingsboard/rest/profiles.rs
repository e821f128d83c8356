//! Device profiles over the REST API: routes, what is read of a body, and what is shown.
//!
//! Invariant: a profile is shown with all fields that the vendor has, whichever of them were written. Checked by
//! `tests/it/thingsboard/profiles.rs`.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::entities::{EntityId, EntityType, PageQuery};
use crate::thingsboard::{
    profile::Profile,
    provision::Strategy,
    query::{Query, WrongParameter},
};

/// The profile of devices that say no other.
pub const DEFAULT_NAME: &str = "default";
/// The longest name of a profile, in characters.
pub const PROFILE_NAME_CHARS_MAX: usize = 255;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `POST /api/deviceProfile`
    Save,
    /// `GET /api/deviceProfile/{id}`
    Get(Uuid),
    /// `DELETE /api/deviceProfile/{id}`
    Delete(Uuid),
    /// `POST /api/deviceProfile/{id}/default`
    SetDefault(Uuid),
    /// `GET /api/deviceProfileInfo/{id}`
    Info(Uuid),
    /// `GET /api/deviceProfileInfo/default`
    DefaultInfo,
    /// `GET /api/deviceProfiles`, `GET /api/deviceProfileInfos`
    List {
        /// Which page.
        page: PageQuery,
        /// Only those of this transport.
        transport: Option<String>,
        /// What [`info`] shows alone.
        infos: bool,
    },
    /// `GET /api/deviceProfile/names`
    Names,
}

/// Reads a path; `None` if it is none of profiles.
///
/// # Errors
///
/// A parameter is wrong.
pub fn route(method: &str, path: &str, query: &Query<'_>) -> Result<Option<Route>, WrongParameter> {
    let Some(rest) = path.strip_prefix("/api/") else { return Ok(None) };
    let parts: Vec<&str> = rest.split('/').collect();
    let id = |text: &str| text.parse::<Uuid>().map_err(|_| WrongParameter::Value("the id"));
    let list = |infos| {
        let transport = query.get("transportType").map(str::to_owned);
        PageQuery::read(query).map(|page| Route::List { page, transport, infos })
    };
    Ok(Some(match (method, parts.as_slice()) {
        ("POST", ["deviceProfile"]) => Route::Save,
        ("GET", ["deviceProfile", "names"]) => Route::Names,
        ("GET", ["deviceProfile", profile]) => Route::Get(id(profile)?),
        ("DELETE", ["deviceProfile", profile]) => Route::Delete(id(profile)?),
        ("POST", ["deviceProfile", profile, "default"]) => Route::SetDefault(id(profile)?),
        ("GET", ["deviceProfileInfo", "default"]) => Route::DefaultInfo,
        ("GET", ["deviceProfileInfo", profile]) => Route::Info(id(profile)?),
        ("GET", ["deviceProfiles"]) => list(false)?,
        ("GET", ["deviceProfileInfos"]) => list(true)?,
        _ => return Ok(None),
    }))
}

/// Fields that the server says, and nobody else.
const SERVERS: [&str; 6] = ["id", "createdTime", "tenantId", "default", "version", "externalId"];

/// A profile that was written, without what the server says of it; the id and the version that stood there, which say what it is to
/// take the place of.
///
/// # Errors
///
/// Why it is none.
pub fn read(body: Value) -> Result<(Profile, Option<EntityId>, Option<u64>), String> {
    let mut body = body;
    without_nulls(&mut body);
    let id = body.get("id").cloned().map(serde_json::from_value::<EntityId>).transpose();
    let id = id.map_err(|why| format!("id: {why}"))?;
    let version = body.get("version").and_then(Value::as_u64);
    let fields = body.as_object_mut().ok_or("a profile is an object")?;
    for server in SERVERS {
        fields.remove(server);
    }
    let profile: Profile = serde_json::from_value(body).map_err(|why| why.to_string())?;
    let name = profile.name.as_str();
    let chars = name.chars().count();
    let wrong = name.starts_with('~') || name.chars().any(char::is_control);
    if name.trim().is_empty() || chars > PROFILE_NAME_CHARS_MAX || wrong {
        return Err("name: 1 to 255 characters, none of control, no ~ in front".to_owned());
    }
    profile.check().map_err(|why| why.to_string())?;
    Ok((profile, id, version))
}

/// What is not said is as good as `null`: programs write either.
fn without_nulls(json: &mut Value) {
    if let Value::Object(fields) = json {
        fields.retain(|_, value| !value.is_null());
        fields.values_mut().for_each(without_nulls);
    }
}

/// What is said of a profile beside what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: Uuid,
    /// When it was made, in milliseconds since the epoch.
    pub created_ms: i64,
    /// Whether devices have it that say no other.
    pub default: bool,
    /// Which writing of it this is.
    pub version: u64,
}

fn entity(entity_type: EntityType, id: Uuid) -> Value {
    json!(EntityId { entity_type, id })
}

/// A profile with all its fields.
///
/// # Panics
///
/// Never: a profile is a map with text for keys.
#[must_use]
pub fn shown(profile: &Profile, of: &Shown) -> Value {
    let mut all = json!({
        "description": null,
        "image": null,
        "type": "DEFAULT",
        "defaultRuleChainId": null,
        "defaultDashboardId": null,
        "defaultQueueName": null,
        "defaultEdgeRuleChainId": null,
        "firmwareId": null,
        "softwareId": null,
        "externalId": null,
        "profileData": {
            "configuration": { "type": "DEFAULT" },
            "transportConfiguration": {},
            "provisionConfiguration": { "type": "DISABLED" },
            "alarms": null,
        },
        "id": entity(EntityType::DeviceProfile, of.id),
        "tenantId": entity(EntityType::Tenant, of.tenant),
        "createdTime": of.created_ms,
        "default": of.default,
        "version": of.version,
    });
    over(&mut all, json!(profile));
    let strategy = profile.provision_type.unwrap_or(Strategy::Disabled);
    all["provisionType"] = json!(strategy);
    all["profileData"]["provisionConfiguration"]["type"] = json!(strategy);
    all
}

/// Lays what was written over what is there.
fn over(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                over(below.entry(key).or_insert(Value::Null), value);
            }
        }
        (below, above) => *below = above,
    }
}

/// A profile at a glance.
#[must_use]
pub fn info(profile: &Profile, of: &Shown) -> Value {
    let other = |key: &str| profile.others.get(key).cloned().unwrap_or_default();
    json!({
        "id": entity(EntityType::DeviceProfile, of.id),
        "tenantId": entity(EntityType::Tenant, of.tenant),
        "name": profile.name,
        "image": other("image"),
        "defaultDashboardId": other("defaultDashboardId"),
        "type": profile.others.get("type").cloned().unwrap_or_else(|| json!("DEFAULT")),
        "transportType": profile.transport_type,
    })
}

/// The profile of devices for which nobody has written one.
#[must_use]
pub fn unwritten(name: &str) -> Profile {
    let others = if name == DEFAULT_NAME {
        Map::from_iter([("description".to_owned(), json!("Default device profile"))])
    } else {
        Map::new()
    };
    let provision_type = Some(Strategy::Disabled);
    Profile { name: name.to_owned(), provision_type, others, ..Profile::default() }
}
