//! Telemetry and attributes over the REST API: routes, queries, and how values are shown.

use uuid::Uuid;

use super::aggregation::{Aggregation, Range};
use crate::thingsboard::{
    attributes::{Scope, keys},
    json::Json,
    query::{Query, WrongParameter},
    values::Value,
};

/// How many samples of a key are answered if the query does not say.
pub const LIMIT_DEFAULT: u64 = 100;
/// How many samples of a key are answered at most.
pub const LIMIT_MAX: u64 = 50_000;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `GET keys/timeseries`
    TimeseriesKeys,
    /// `GET values/timeseries` without a time: the last sample of each key.
    Latest {
        /// Of which keys; none: of all.
        keys: Vec<String>,
        /// Whether values keep their types; they are texts otherwise.
        strict: bool,
    },
    /// `GET values/timeseries` with one, and `…/history`.
    History(History),
    /// `GET keys/attributes[/SCOPE]`
    AttributeKeys(Option<Scope>),
    /// `GET values/attributes[/SCOPE]?keys=`
    Attributes {
        /// Of which scope; `None`: of all.
        scope: Option<Scope>,
        /// Which keys; none: all.
        keys: Vec<String>,
    },
    /// `POST attributes/{SCOPE}`, `POST {SCOPE}`
    SaveAttributes(Scope),
    /// `DELETE {SCOPE}?keys=`
    DeleteAttributes {
        /// Of which scope.
        scope: Scope,
        /// Which. At least one.
        keys: Vec<String>,
    },
    /// `POST timeseries/{any}[/{ttl}]`
    SaveTimeseries {
        /// For how many seconds they are kept; 0: as the tenant says.
        ttl_s: u64,
    },
    /// `DELETE timeseries/delete?keys=`
    DeleteTimeseries {
        /// Of which keys. At least one.
        keys: Vec<String>,
        /// From when until when, the end left out; `None`: all.
        range_ms: Option<(i64, i64)>,
        /// What becomes of the latest values.
        latest: DeletedLatest,
    },
}

/// What becomes of latest values whose samples are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeletedLatest {
    /// They stay.
    Stay,
    /// They are deleted, too.
    Go,
    /// They are deleted, and the newest samples that are left take their place.
    Renew,
}

/// Samples of a range of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Of which keys. At least one.
    pub keys: Vec<String>,
    /// From when until when, and how it is cut.
    pub range: Range,
    /// What is made of an interval's samples.
    pub aggregation: Aggregation,
    /// How many samples of a key.
    pub limit: u64,
    /// Whether the newest comes first.
    pub descending: bool,
    /// Whether values keep their types.
    pub strict: bool,
}

/// Reads a path behind `/api/plugins/telemetry/`: whose, and what. `None`: no such route.
///
/// # Errors
///
/// A parameter is wrong.
pub fn route(
    method: &str,
    rest: &str,
    query: &Query<'_>,
) -> Result<Option<(Uuid, Route)>, WrongParameter> {
    let parts: Vec<&str> = rest.split('/').collect();
    let (device, parts) = match parts.as_slice() {
        ["DEVICE", device, parts @ ..] => (device, parts),
        [device, scope] if Scope::by_name(scope).is_some() => (device, &parts[1..]),
        _ => return Ok(None),
    };
    let Ok(device) = device.parse() else { return Err(WrongParameter::Value("the device's id")) };
    let list = || keys(query.list("keys").as_deref()).map_err(|_| WrongParameter::Value("keys"));
    let some = || match list()? {
        keys if keys.is_empty() => Err(WrongParameter::Missing("keys")),
        keys => Ok(keys),
    };
    let scoped = |name: &str| Scope::by_name(name).ok_or(WrongParameter::Value("the scope"));
    let route = match (method, parts) {
        ("GET", ["keys", "timeseries"]) => Route::TimeseriesKeys,
        ("GET", ["values", "timeseries"]) => match query.get("startTs").or(query.get("endTs")) {
            None => Route::Latest { keys: list()?, strict: query.flag("useStrictDataTypes")? },
            Some(_) => Route::History(history(query, some()?)?),
        },
        ("GET", ["values", "timeseries", "history"]) => Route::History(history(query, some()?)?),
        ("GET", ["keys", "attributes"]) => Route::AttributeKeys(None),
        ("GET", ["keys", "attributes", scope]) => Route::AttributeKeys(Some(scoped(scope)?)),
        ("GET", ["values", "attributes"]) => Route::Attributes { scope: None, keys: list()? },
        ("GET", ["values", "attributes", scope]) => {
            Route::Attributes { scope: Some(scoped(scope)?), keys: list()? }
        }
        ("POST", ["attributes", scope] | [scope]) => match scoped(scope)? {
            // Only the device itself writes these.
            Scope::Client => return Err(WrongParameter::Value("the scope")),
            scope @ (Scope::Shared | Scope::Server) => Route::SaveAttributes(scope),
        },
        ("POST", ["timeseries", _]) => Route::SaveTimeseries { ttl_s: 0 },
        ("POST", ["timeseries", _, ttl]) => {
            let ttl_s = ttl.parse().map_err(|_| WrongParameter::Value("the TTL"))?;
            Route::SaveTimeseries { ttl_s }
        }
        ("DELETE", ["timeseries", "delete"]) => {
            let range_ms = match query.flag("deleteAllDataForKeys")? {
                true => None,
                false => Some((needed(query, "startTs")?, needed(query, "endTs")?)),
            };
            let (goes, renew) =
                (query.flag_or("deleteLatest", true)?, query.flag("rewriteLatestIfDeleted")?);
            let latest = match (goes, renew) {
                (false, _) => DeletedLatest::Stay,
                (true, false) => DeletedLatest::Go,
                (true, true) => DeletedLatest::Renew,
            };
            Route::DeleteTimeseries { keys: some()?, range_ms, latest }
        }
        ("DELETE", [scope]) => Route::DeleteAttributes { scope: scoped(scope)?, keys: some()? },
        _ => return Ok(None),
    };
    Ok(Some((device, route)))
}

fn needed(query: &Query<'_>, name: &'static str) -> Result<i64, WrongParameter> {
    query.time(name)?.ok_or(WrongParameter::Missing(name))
}

fn history(query: &Query<'_>, keys: Vec<String>) -> Result<History, WrongParameter> {
    let range = Range {
        start_ms: needed(query, "startTs")?,
        end_ms: needed(query, "endTs")?,
        interval_ms: query.count("interval")?.unwrap_or(0),
    };
    if range.start_ms > range.end_ms {
        return Err(WrongParameter::Value("endTs"));
    }
    let aggregation = query.get("agg").map_or(Some(Aggregation::None), Aggregation::by_name);
    Ok(History {
        keys,
        range,
        aggregation: aggregation.ok_or(WrongParameter::Value("agg"))?,
        limit: query.count("limit")?.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX),
        descending: match query.get("orderBy") {
            None | Some("DESC") => true,
            Some("ASC") => false,
            Some(_) => return Err(WrongParameter::Value("orderBy")),
        },
        strict: query.flag("useStrictDataTypes")?,
    })
}

/// A value as it is shown: as text, unless types were asked for.
#[must_use]
pub fn shown(value: &Value, strict: bool) -> Json {
    if strict { value.to_json() } else { Json::String(value.to_text()) }
}

/// `{"t":[{"ts":1,"value":"25"}]}`
#[must_use]
pub fn timeseries(series: &[(String, Vec<(i64, Value)>)], strict: bool) -> Json {
    let sample = |(ts_ms, value): &(i64, Value)| {
        Json::object([("ts", Json::from(*ts_ms)), ("value", shown(value, strict))])
    };
    let series = series
        .iter()
        .map(|(key, samples)| (key.clone(), Json::Array(samples.iter().map(sample).collect())));
    Json::Object(series.collect())
}

/// An attribute, and when it was set.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribute {
    /// Its key.
    pub key: String,
    /// What it holds.
    pub value: Value,
    /// When it was set.
    pub updated_ms: i64,
}

/// `[{"lastUpdateTs":1,"key":"k","value":1}]`: here values have their types.
#[must_use]
pub fn attributes(attributes: &[Attribute]) -> Json {
    let attributes = attributes.iter().map(|attribute| {
        Json::object([
            ("lastUpdateTs", Json::from(attribute.updated_ms)),
            ("key", Json::from(attribute.key.as_str())),
            ("value", attribute.value.to_json()),
        ])
    });
    Json::Array(attributes.collect())
}
