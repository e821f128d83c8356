//! `ENTITY_DATA` and `ENTITY_COUNT` of the WebSocket: which devices, what of each, and how that is shown.
//!
//! The vendor finds anything by anything; here are the queries that its clients make for devices: one, some, those of a type or of all
//! types, by how their names begin, and by what they say (`filtering.rs`). What would narrow a list further is refused, so that nobody
//! takes a list for what it is not.
//!
//! Invariant: a page has [`DEVICES_MAX`] devices at most. Checked by `tests/it/thingsboard/finding.rs`.

use serde_json::Value as AnyValue;
use uuid::Uuid;

use super::{
    entities::{Page, PageQuery},
    filtering::{self, KeyFilter},
    telemetry::timeseries,
    told::Series,
    websocket::{Past, SubscriptionError},
};
use crate::thingsboard::{
    attributes::{KEYS_MAX, Scope},
    json::Json,
    values::Value,
};

/// The most devices on a page.
pub const DEVICES_MAX: u64 = 100;
/// Devices of a page that does not say how many it has.
const DEVICES_DEFAULT: u64 = 10;
/// In a name that is looked for: anything.
const ANYTHING: char = '%';

/// Which devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    /// These, as far as there are any.
    Ids(Vec<Uuid>),
    /// Those of these types, of all without one; with names that begin so, in whichever case.
    Named {
        /// Types.
        kinds: Vec<String>,
        /// How names begin; `%` in it is anything. Empty: all.
        name: String,
    },
}

impl Devices {
    /// Whether a device is one of those that are named.
    #[must_use]
    pub fn has(&self, id: Uuid, device: &str, kind: &str) -> bool {
        match self {
            Self::Ids(ids) => ids.contains(&id),
            Self::Named { kinds, name } => {
                (kinds.is_empty() || kinds.iter().any(|of| of == kind)) && begins(device, name)
            }
        }
    }
}

/// Whether a name begins as a pattern says.
fn begins(name: &str, pattern: &str) -> bool {
    let (name, pattern) = (name.to_lowercase(), pattern.to_lowercase());
    let mut parts = pattern.split(ANYTHING);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    true
}

/// What of a device is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A field of itself.
    Field(String),
    /// A latest value.
    Series(String),
    /// An attribute, of a scope or of the first that has it.
    Attribute(Option<Scope>, String),
}

impl Wanted {
    /// The vendor's name of its kind, and its key.
    #[must_use]
    pub fn name(&self) -> (&'static str, &str) {
        match self {
            Self::Field(key) => ("ENTITY_FIELD", key),
            Self::Series(key) => ("TIME_SERIES", key),
            Self::Attribute(None, key) => ("ATTRIBUTE", key),
            Self::Attribute(Some(Scope::Client), key) => ("CLIENT_ATTRIBUTE", key),
            Self::Attribute(Some(Scope::Shared), key) => ("SHARED_ATTRIBUTE", key),
            Self::Attribute(Some(Scope::Server), key) => ("SERVER_ATTRIBUTE", key),
        }
    }
}

/// Which devices are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sought {
    /// Those that are named,
    pub devices: Devices,
    /// as far as all of these let them pass.
    pub filters: Vec<KeyFilter>,
}

/// A page of devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub sought: Sought,
    /// Which of them, and in which order.
    pub page: PageQuery,
    /// What of each is shown.
    pub wanted: Vec<Wanted>,
    /// Whether the page follows devices that come and go.
    pub follows: bool,
}

/// What a command wants of devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataCommand {
    /// Which devices; `None`: those that an earlier command with its id has found.
    pub finding: Option<Finding>,
    /// What is pushed when it changes.
    pub latest: Vec<Wanted>,
    /// Samples of these keys, past ones first, and those that come.
    pub series: Option<(Vec<String>, Past)>,
    /// Past samples, once.
    pub past: Option<(Vec<String>, Past)>,
}

pub(super) fn text<'a>(json: &'a AnyValue, field: &str) -> Option<&'a str> {
    json.get(field)?.as_str()
}

fn texts(json: Option<&AnyValue>, what: &str) -> Result<Vec<String>, String> {
    let list = match json {
        None | Some(AnyValue::Null) => return Ok(Vec::new()),
        Some(AnyValue::String(one)) => return Ok(vec![one.clone()]),
        Some(list) => list.as_array().ok_or_else(|| format!("{what}: a list is needed"))?,
    };
    if list.len() > KEYS_MAX {
        return Err(format!("{what}: at most {KEYS_MAX}"));
    }
    let all: Option<Vec<String>> = list.iter().map(|one| one.as_str().map(str::to_owned)).collect();
    all.ok_or_else(|| format!("{what}: texts are needed"))
}

/// Reads which devices a query looks for.
///
/// # Errors
///
/// Why it is none, or none for devices.
pub fn sought(query: &AnyValue) -> Result<Sought, String> {
    let filter = query.get("entityFilter").ok_or("entityFilter is needed")?;
    Ok(Sought { devices: devices(filter)?, filters: filtering::filters(query.get("keyFilters"))? })
}

fn devices(filter: &AnyValue) -> Result<Devices, String> {
    let is_device = |named: Option<&str>| match named {
        Some("DEVICE") => Ok(()),
        other => Err(format!("{} is not served: devices are", other.unwrap_or("nothing"))),
    };
    let id = |text: Option<&str>| {
        text.and_then(|text| text.parse().ok()).ok_or_else(|| "an id is none".to_owned())
    };
    match text(filter, "type").unwrap_or_default() {
        "singleEntity" => {
            let single = filter.get("singleEntity").ok_or("singleEntity is needed")?;
            is_device(text(single, "entityType"))?;
            Ok(Devices::Ids(vec![id(text(single, "id"))?]))
        }
        "entityList" => {
            is_device(text(filter, "entityType"))?;
            let list = texts(filter.get("entityList"), "entityList")?;
            let ids = list.iter().map(|text| id(Some(text))).collect::<Result<_, _>>()?;
            Ok(Devices::Ids(ids))
        }
        "entityType" => {
            is_device(text(filter, "entityType"))?;
            Ok(Devices::Named { kinds: Vec::new(), name: String::new() })
        }
        "entityName" => {
            is_device(text(filter, "entityType"))?;
            let name = text(filter, "entityNameFilter").unwrap_or_default().to_owned();
            Ok(Devices::Named { kinds: Vec::new(), name })
        }
        "deviceType" => {
            let mut kinds = texts(filter.get("deviceTypes"), "deviceTypes")?;
            kinds.extend(text(filter, "deviceType").map(str::to_owned));
            let name = text(filter, "deviceNameFilter").unwrap_or_default().to_owned();
            Ok(Devices::Named { kinds, name })
        }
        other => Err(format!("the filter {other:?} is not served")),
    }
}

/// Reads keys with their kinds.
///
/// # Errors
///
/// Why they are none.
pub fn wanted(list: Option<&AnyValue>) -> Result<Vec<Wanted>, String> {
    let list = match list {
        None | Some(AnyValue::Null) => return Ok(Vec::new()),
        Some(list) => list.as_array().ok_or("keys: a list is needed")?,
    };
    if list.len() > KEYS_MAX {
        return Err(format!("keys: at most {KEYS_MAX}"));
    }
    list.iter().map(one_wanted).collect()
}

pub(super) fn one_wanted(json: &AnyValue) -> Result<Wanted, String> {
    let key = text(json, "key").ok_or("keys: key is needed")?.to_owned();
    Ok(match text(json, "type").unwrap_or_default() {
        "ENTITY_FIELD" => Wanted::Field(key),
        "TIME_SERIES" => Wanted::Series(key),
        "ATTRIBUTE" => Wanted::Attribute(None, key),
        "CLIENT_ATTRIBUTE" => Wanted::Attribute(Some(Scope::Client), key),
        "SHARED_ATTRIBUTE" => Wanted::Attribute(Some(Scope::Shared), key),
        "SERVER_ATTRIBUTE" => Wanted::Attribute(Some(Scope::Server), key),
        other => return Err(format!("keys of the type {other:?} are not served")),
    })
}

/// Reads which devices, which of them, and what of each.
///
/// # Errors
///
/// Why they can't be found.
pub fn finding(query: &AnyValue) -> Result<Finding, String> {
    let (mut shows, values) = (wanted(query.get("entityFields"))?, query.get("latestValues"));
    shows.extend(wanted(values)?);
    let (link, sought) = (query.get("pageLink"), sought(query)?);
    let follows = link.and_then(|link| link.get("dynamic")) == Some(&AnyValue::Bool(true));
    Ok(Finding { sought, page: page(link)?, wanted: shows, follows })
}

fn page(link: Option<&AnyValue>) -> Result<PageQuery, String> {
    let link = link.unwrap_or(&AnyValue::Null);
    let size = link.get("pageSize").and_then(AnyValue::as_u64).unwrap_or(DEVICES_DEFAULT);
    if !(1..=DEVICES_MAX).contains(&size) {
        return Err(format!("pageSize: 1 to {DEVICES_MAX}"));
    }
    let order = link.get("sortOrder").filter(|order| !order.is_null());
    let sorted_by = match order.and_then(|order| order.get("key")) {
        None | Some(AnyValue::Null) => None,
        Some(key) => match (text(key, "type"), text(key, "key")) {
            (Some("ENTITY_FIELD"), Some(key @ ("name" | "createdTime" | "type" | "label"))) => {
                Some(key.to_owned())
            }
            _ => return Err("sortOrder: the fields name, createdTime, type and label".to_owned()),
        },
    };
    let searched = text(link, "textSearch").filter(|searched| !searched.is_empty());
    Ok(PageQuery {
        size,
        page: link.get("page").and_then(AnyValue::as_u64).unwrap_or(0),
        text_search: searched.map(str::to_owned),
        sort_property: sorted_by,
        descending: order.and_then(|order| text(order, "direction")) == Some("DESC"),
    })
}

/// Keys of samples, one at least.
///
/// # Errors
///
/// There is none, or too many.
pub fn series_keys(command: &AnyValue) -> Result<Vec<String>, String> {
    let keys = texts(command.get("keys"), "keys")?;
    if keys.is_empty() { Err("keys are needed".to_owned()) } else { Ok(keys) }
}

// ---- what is shown

/// A device, and what was wanted of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// It.
    pub id: Uuid,
    /// Its values: what was wanted, of which time, and as which text.
    pub latest: Vec<(Wanted, i64, String)>,
    /// Its samples.
    pub series: Series,
}

impl Found {
    fn to_json(&self) -> Json {
        let mut kinds: Vec<(String, Json)> = Vec::new();
        for (wanted, ts_ms, text) in &self.latest {
            let (kind, key) = wanted.name();
            let value = Json::object([("ts", Json::from(*ts_ms)), ("value", Json::from(&**text))]);
            let entry = (key.to_owned(), value);
            match kinds.iter_mut().find(|(known, _)| known == kind) {
                Some((_, Json::Object(entries))) => entries.push(entry),
                Some(_) | None => kinds.push((kind.to_owned(), Json::Object(vec![entry]))),
            }
        }
        let id = Json::from(&*self.id.to_string());
        let id = Json::object([("entityType", Json::from("DEVICE")), ("id", id)]);
        Json::object([
            ("entityId", id),
            ("latest", Json::Object(kinds)),
            ("timeseries", timeseries(&self.series, false)),
        ])
    }
}

/// Values that were pushed of a subscription, as a device's.
#[must_use]
pub fn changed(id: Uuid, scope: Option<Option<Scope>>, series: &Series, whole: bool) -> Found {
    let wanted = |key: &str| match scope {
        None => Wanted::Series(key.to_owned()),
        Some(scope) => Wanted::Attribute(scope, key.to_owned()),
    };
    let newest = |(key, samples): &(String, Vec<(i64, Value)>)| {
        let (ts_ms, value) = samples.first()?;
        Some((wanted(key), *ts_ms, value.to_text()))
    };
    let latest = if whole { Vec::new() } else { series.iter().filter_map(newest).collect() };
    Found { id, latest, series: if whole { series.clone() } else { Series::new() } }
}

fn update(id: i64, data: Json, update: Json) -> Json {
    Json::object([
        ("cmdId", Json::from(id)),
        ("errorCode", Json::from(0)),
        ("errorMsg", Json::Null),
        ("data", data),
        ("update", update),
        ("allowedEntities", Json::from(i64::try_from(DEVICES_MAX).unwrap_or(i64::MAX))),
        ("cmdUpdateType", Json::from(DATA)),
    ])
}

/// Which sort of answer this is.
const DATA: &str = "ENTITY_DATA";
/// See [`DATA`].
const COUNT: &str = "COUNT_DATA";

/// A page of devices, of so many.
#[must_use]
pub fn page_found(id: i64, found: &[Found], total: u64, query: &PageQuery) -> Json {
    let page = Page::of(Vec::<()>::new(), total, query);
    let number = |count: u64| Json::from(i64::try_from(count).unwrap_or(i64::MAX));
    let data = Json::object([
        ("data", Json::Array(found.iter().map(Found::to_json).collect())),
        ("totalPages", number(page.total_pages)),
        ("totalElements", number(page.total_elements)),
        ("hasNext", Json::Bool(page.has_next)),
    ]);
    update(id, data, Json::Null)
}

/// What is new of some devices.
#[must_use]
pub fn news(id: i64, found: &[Found]) -> Json {
    update(id, Json::Null, Json::Array(found.iter().map(Found::to_json).collect()))
}

/// How many devices there are.
#[must_use]
pub fn count(id: i64, count: u64) -> Json {
    Json::object([
        ("cmdId", Json::from(id)),
        ("errorCode", Json::from(0)),
        ("errorMsg", Json::Null),
        ("count", Json::from(i64::try_from(count).unwrap_or(i64::MAX))),
        ("cmdUpdateType", Json::from(COUNT)),
    ])
}

/// Why a command finds nothing. `counts`: it wanted to know how many.
#[must_use]
pub fn not_found(id: i64, code: SubscriptionError, why: &str, counts: bool) -> Json {
    Json::object([
        ("cmdId", Json::from(id)),
        ("errorCode", Json::from(i64::from(code as u8))),
        ("errorMsg", Json::from(why)),
        ("cmdUpdateType", Json::from(if counts { COUNT } else { DATA })),
    ])
}
