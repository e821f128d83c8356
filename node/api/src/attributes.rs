//! Attributes of a device, by scope: shown, set and deleted.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use moorline_core::{AttributeScope, Double, Text, Value};
use moorline_service::registry::AttributeWrite;
use serde::{Deserialize, Serialize};
use serde_json::Value as AnyJson;
use utoipa::{IntoParams, ToSchema};

use crate::{
    Api, Problem,
    auth::{Caller, Role},
    devices::found,
    extract::{Asked, At, Body},
};

/// Who may write an attribute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ScopeName {
    /// The device.
    Client,
    /// Applications; the device is told.
    #[default]
    Shared,
    /// Applications, for themselves.
    Server,
}

impl From<ScopeName> for AttributeScope {
    fn from(name: ScopeName) -> Self {
        match name {
            ScopeName::Client => Self::Client,
            ScopeName::Shared => Self::Shared,
            ScopeName::Server => Self::Server,
        }
    }
}

/// Which attributes.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    /// A tenant's name; not needed with a token of that tenant.
    tenant: Option<String>,
    /// Of which scope; `shared` if it is not said.
    #[serde(default)]
    #[param(inline)]
    scope: ScopeName,
    /// Only these, with commas between them.
    keys: Option<String>,
}

/// An attribute.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AttributeView {
    /// What it holds.
    value: AnyJson,
    /// When it was set, in milliseconds since 1970.
    time_ms: u64,
}

/// Attributes of one scope of a device.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AttributesView {
    // No words of its own: beside an inlined type they become a second schema, of an object.
    #[schema(inline)]
    scope: ScopeName,
    /// The version of the last change of this scope.
    version: u64,
    /// They, by key.
    attributes: BTreeMap<String, AttributeView>,
}

/// What is to become of attributes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Changes {
    /// Keys with their new values; `null` deletes one. At most 256.
    #[schema(example = json!({"interval": 10, "mode": null}))]
    attributes: BTreeMap<String, AnyJson>,
}

/// What was written.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Written {
    /// The version of the change.
    version: u64,
    /// When, in milliseconds since 1970.
    time_ms: u64,
}

/// Keys between commas.
pub(crate) fn keys(list: Option<&str>) -> Vec<Text> {
    let keys = list.unwrap_or_default().split(',').filter(|key| !key.is_empty());
    keys.map(Text::from).collect()
}

/// A value as JSON.
pub(crate) fn shown(value: &Value) -> AnyJson {
    match value {
        Value::Bool(value) => AnyJson::from(*value),
        Value::Long(value) => AnyJson::from(*value),
        Value::Double(value) => AnyJson::from(value.get()),
        Value::Text(text) => AnyJson::from(text.as_str()),
        Value::Json(text) => {
            serde_json::from_str(text.as_str()).unwrap_or_else(|_| AnyJson::from(text.as_str()))
        }
    }
}

/// What is kept of JSON; nothing of `null`.
fn kept(json: AnyJson) -> Option<Value> {
    Some(match json {
        AnyJson::Null => return None,
        AnyJson::Bool(value) => Value::Bool(value),
        AnyJson::Number(number) => match number.as_i64() {
            Some(value) => Value::Long(value),
            None => Value::Double(Double::nearest(number.as_f64().unwrap_or_default())),
        },
        AnyJson::String(text) => Value::Text(text.into()),
        json @ (AnyJson::Array(_) | AnyJson::Object(_)) => Value::Json(json.to_string().into()),
    })
}

/// Attributes of one scope of a device.
#[utoipa::path(
    get, path = "/api/v1/devices/{device}/attributes",
    params(("device" = String, Path, description = "its name"), Which),
    responses(
        (status = 200, description = "they; those that are not there are left out", body = AttributesView),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn show(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(which): Asked<Which>,
) -> Result<Json<AttributesView>, Problem> {
    let (tenant, _) = caller.tenant_of_some(&api, which.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    let keys = keys(which.keys.as_deref());
    let attributes =
        api.registry.attributes(tenant, &device, which.scope.into(), keys, None).await?;
    let attributes = attributes.ok_or_else(|| Problem::not_found("device"))?;
    let set = attributes.set.iter().map(|one| {
        (one.key.to_string(), AttributeView { value: shown(&one.value), time_ms: one.at.0 })
    });
    let (scope, version) = (which.scope, attributes.version);
    Ok(Json(AttributesView { scope, version, attributes: set.collect() }))
}

/// Sets and deletes attributes of one scope, all or none: 200 when they are synced on a majority. A connected device is told
/// of shared ones. Those of the scope `client` only the device writes.
#[utoipa::path(
    patch, path = "/api/v1/devices/{device}/attributes",
    params(("device" = String, Path, description = "its name"), Which), request_body = Changes,
    responses(
        (status = 200, description = "they are written", body = Written),
        (status = 507, description = "the device has as many as it may", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "a problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn patch(
    State(api): State<Api>,
    caller: Caller,
    At(name): At<String>,
    Asked(which): Asked<Which>,
    Body(changes): Body<Changes>,
) -> Result<Json<Written>, Problem> {
    caller.at_least(Role::App)?;
    if which.scope == ScopeName::Client {
        return Err(Problem::forbidden("only the device writes attributes of the scope client"));
    }
    if which.keys.is_some() {
        return Err(Problem::malformed("keys: those of the body are written"));
    }
    let (tenant, _) = caller.tenant_of_some(&api, which.tenant.as_deref()).await?;
    let device = caller.device(&api, tenant, &name).await?;
    let record = found(&api, tenant, &device).await?;
    let changes = changes.attributes.into_iter();
    let changes = changes.map(|(key, value)| (Text::from(key), kept(value))).collect();
    let (born, scope) = (record.born, which.scope.into());
    let write = AttributeWrite { born, scope, changes, event: None };
    let written = api.registry.write_attributes(tenant, &device, write).await?;
    Ok(Json(Written { version: written.version, time_ms: written.at.0 }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_kept_as_what_it_is_and_shown_again() {
        let double = |value| Value::Double(Double::nearest(value));
        #[rustfmt::skip]
        let table = [
            (json!(true), Value::Bool(true)), (json!(-3), Value::Long(-3)), (json!(1.5), double(1.5)),
            (json!("a"), Value::Text("a".into())), (json!([1, {"a": 2}]), Value::Json(r#"[1,{"a":2}]"#.into())),
            (json!({}), Value::Json("{}".into())),
        ];
        for (json, value) in table {
            assert_eq!(kept(json.clone()), Some(value.clone()), "{json}");
            assert_eq!(shown(&value), json);
        }
        assert_eq!(kept(json!(null)), None);
        assert_eq!(kept(json!(u64::MAX)), Some(double(18_446_744_073_709_551_615.0)));
        assert_eq!(shown(&Value::Json("no json".into())), json!("no json"));
        assert_eq!(keys(Some("a,,b")), [Text::from("a"), Text::from("b")]);
        assert_eq!(keys(None), []);
    }
}
