//! Bodies that integrators send to the management API (§1.8, §1.9).
//!
//! Fields that we do not know are left out, and `null` is nothing: SDKs send all their fields, whatever they hold.
//!
//! Invariant: what is read here is valid but for what only the registry knows. Checked by `bodies_are_read_or_refused`.

use std::collections::BTreeMap;

use moorline_core::UnixMillis;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{BODY_BYTES_MAX, error::Error, query::Query};
use crate::watson::{
    about::RESERVED,
    identity::{DeviceName, TOKEN_CHARS_MAX, TOKEN_CHARS_MIN, is_issuable_token, is_name},
    management::{
        attributes::{DeviceInfo, Location, NewErrorCode, NewLogEntry, moment},
        bundle::Bundle,
        task::{Action, PARAMETERS_MAX, Parameter},
    },
    topics::Role,
};

/// The most devices of a management request (§1.8).
pub const REQUEST_DEVICES_MAX: usize = 5_000;
/// How long a management request may take when nobody says: an hour. The vendor's number is not known.
pub const REQUEST_TIMEOUT_S_DEFAULT: u64 = 3_600;
/// The longest that it may take: the longest that a session lasts.
pub const REQUEST_TIMEOUT_S_MAX: u64 = 7 * 24 * 3_600;

/// The most bytes of a management request's parameters.
pub const PARAMETERS_BYTES_MAX: usize = 16 * 1024;

/// Reads a body as `T`.
///
/// # Errors
///
/// [`Error::TooLarge`] or [`Error::Malformed`].
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    if body.len() > BODY_BYTES_MAX {
        return Err(Error::TooLarge);
    }
    serde_json::from_slice(body)
        .map_err(|_| Error::Malformed("the body is not the JSON it should be"))
}

fn valid(violations: Vec<String>) -> Result<(), Error> {
    if violations.is_empty() { Ok(()) } else { Err(Error::Invalid(violations)) }
}

/// What is wrong with metadata: names that mean something else where they are kept.
#[must_use]
pub fn check_metadata(metadata: Option<&Map<String, Value>>) -> Option<String> {
    let wrong = RESERVED.iter().find(|key| metadata.is_some_and(|all| all.contains_key(**key)));
    wrong.map(|key| format!("metadata can't have the key {key}"))
}

/// A name in a body, or what is wrong with it.
fn check_name(what: &str, given: &str, violations: &mut Vec<String>) {
    if !is_name(given.as_bytes()) {
        violations.push(format!(
            "{what} is between 1 and 36 letters, digits, dots, dashes and underscores"
        ));
    }
}

/// What sort of device a type is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, Deserialize)]
pub enum ClassId {
    /// A device.
    #[default]
    Device,
    /// A gateway.
    Gateway,
}

/// `POST /device/types`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewType {
    /// Its name.
    pub id: String,
    /// What sort.
    #[serde(default)]
    pub class_id: Option<ClassId>,
    /// In words.
    #[serde(default)]
    pub description: Option<String>,
    /// What its devices are, unless they say otherwise when they are registered.
    #[serde(default)]
    pub device_info: Option<DeviceInfo>,
    /// What else is known of it.
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
}

impl NewType {
    /// Reads a new type.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(body: &[u8]) -> Result<Self, Error> {
        let new: Self = read(body)?;
        let mut violations = Vec::new();
        check_name("id", &new.id, &mut violations);
        valid(violations).map(|()| new)
    }
}

/// `PUT /device/types/{t}`: what is missing stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeChange {
    /// In words.
    #[serde(default)]
    pub description: Option<String>,
    /// What its devices are from now on; those registered stay as they are.
    #[serde(default)]
    pub device_info: Option<DeviceInfo>,
    /// What else is known of it.
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
}

/// A device to be registered.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewDevice {
    /// Its type; that of the path where there is one.
    #[serde(default)]
    pub type_id: Option<String>,
    /// Its id.
    pub device_id: String,
    /// Its token; the registry makes one if there is none.
    #[serde(default)]
    pub auth_token: Option<String>,
    /// What it is.
    #[serde(default)]
    pub device_info: Option<DeviceInfo>,
    /// Where it is.
    #[serde(default)]
    pub location: Option<Location>,
    /// What else is known of it.
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
}

/// A part of `POST /bulk/devices/add`: type and id as they came, and what there is to register.
pub type NewPart = ((String, String), Result<NewDevice, Error>);

fn at_most<T>(all: Vec<T>) -> Result<Vec<T>, Error> {
    let fits = all.len() <= REQUEST_DEVICES_MAX;
    let wrong = || Error::Invalid(vec![format!("there are at most {REQUEST_DEVICES_MAX} devices")]);
    fits.then_some(all).ok_or_else(wrong)
}

impl NewDevice {
    /// Reads `POST /device/types/{t}/devices`.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(kind: &str, body: &[u8], now: UnixMillis) -> Result<Self, Error> {
        let mut new: Self = read(body)?;
        let path = new.type_id.get_or_insert_with(|| kind.to_owned());
        if path != kind {
            return Err(Error::Invalid(vec!["typeId is not that of the path".to_owned()]));
        }
        new.checked(now)
    }

    /// Reads `POST /bulk/devices/add`: each is taken or refused for itself. With type and id, as they came.
    ///
    /// # Errors
    ///
    /// When it is no list, or a longer one than [`REQUEST_DEVICES_MAX`].
    pub fn read_all(body: &[u8], now: UnixMillis) -> Result<Vec<NewPart>, Error> {
        let all: Vec<Self> = at_most(read(body)?)?;
        let part = |new: Self| {
            let kind = new.type_id.clone().unwrap_or_default();
            ((kind, new.device_id.clone()), new.checked(now))
        };
        Ok(all.into_iter().map(part).collect())
    }

    fn checked(mut self, now: UnixMillis) -> Result<Self, Error> {
        let mut violations = Vec::new();
        check_name("typeId", self.type_id.as_deref().unwrap_or_default(), &mut violations);
        check_name("deviceId", &self.device_id, &mut violations);
        if self.auth_token.as_deref().is_some_and(|token| !is_issuable_token(token)) {
            violations.push(format!(
                "authToken has between {TOKEN_CHARS_MIN} and {TOKEN_CHARS_MAX} characters"
            ));
        }
        violations.extend(check_metadata(self.metadata.as_ref()));
        if let Some(location) = self.location.take() {
            match location.taken(now) {
                Some(taken) => self.location = Some(taken),
                None => violations.push(NOWHERE.to_owned()),
            }
        }
        valid(violations).map(|()| self)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> Option<DeviceName> {
        DeviceName::new(self.type_id.as_ref()?.as_bytes(), self.device_id.as_bytes())
    }
}

const NOWHERE: &str =
    "latitude is within 90 degrees, longitude within 180, and both moments are ISO 8601";

/// A device that a body names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceUid {
    type_id: String,
    device_id: String,
}

impl DeviceUid {
    /// Reads `POST /bulk/devices/remove`: a name that is none is of no device.
    ///
    /// # Errors
    ///
    /// When it is no list of names, or a longer one than [`REQUEST_DEVICES_MAX`].
    pub fn read_all(body: &[u8]) -> Result<Vec<Self>, Error> {
        at_most(read(body)?)
    }

    /// The name, if it can be one.
    #[must_use]
    pub fn name(&self) -> Option<DeviceName> {
        DeviceName::new(self.type_id.as_bytes(), self.device_id.as_bytes())
    }

    /// Type and id, as they came.
    #[must_use]
    pub fn parts(&self) -> (&str, &str) {
        (&self.type_id, &self.device_id)
    }
}

/// `PUT …/devices/{d}`: what is missing stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceChange {
    /// What it is.
    #[serde(default)]
    pub device_info: Option<DeviceInfo>,
    /// What else is known of it.
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
    /// How it is.
    #[serde(default)]
    pub status: Option<Status>,
}

/// How a device is.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, Deserialize)]
pub struct Status {
    /// Whether somebody should look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<Alert>,
}

/// Whether somebody should look at a device.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, Deserialize)]
pub struct Alert {
    /// Whether.
    #[serde(default)]
    pub enabled: bool,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
}

/// Reads `PUT …/location`.
///
/// # Errors
///
/// What is wrong with it.
pub fn location(body: &[u8], now: UnixMillis) -> Result<Location, Error> {
    let location: Location = read(body)?;
    location.taken(now).ok_or_else(|| Error::Invalid(vec![NOWHERE.to_owned()]))
}

/// Reads `POST …/diag/logs`.
///
/// # Errors
///
/// What is wrong with it.
pub fn log_entry(body: &[u8], now: UnixMillis) -> Result<NewLogEntry, Error> {
    let new: NewLogEntry = read(body)?;
    check_moment(new.timestamp.as_deref(), now).map(|()| new)
}

/// Reads `POST …/diag/errorCodes`.
///
/// # Errors
///
/// What is wrong with it.
pub fn error_code(body: &[u8], now: UnixMillis) -> Result<NewErrorCode, Error> {
    let new: NewErrorCode = read(body)?;
    check_moment(new.timestamp.as_deref(), now).map(|()| new)
}

fn check_moment(text: Option<&str>, now: UnixMillis) -> Result<(), Error> {
    let wrong = || Error::Invalid(vec!["timestamp is a moment of ISO 8601".to_owned()]);
    moment(text, now).map(drop).ok_or_else(wrong)
}

/// `POST /mgmt/requests`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRequest {
    /// What.
    pub action: Action,
    /// With what.
    pub parameters: Vec<Parameter>,
    /// Whom: each once, in order.
    pub devices: Vec<DeviceName>,
    /// For how long.
    pub timeout_s: u64,
    /// Whether requests that are under way make room.
    pub overrides: bool,
}

impl NewRequest {
    /// Reads a management request. Options may stand in the query, too; the body counts more.
    ///
    /// # Errors
    ///
    /// What is wrong with it. Whether the devices are there, and a bundle's parameters, is not asked here.
    pub fn read(body: &[u8], query: &Query) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Body {
            action: String,
            #[serde(default)]
            parameters: Option<Vec<Parameter>>,
            devices: Vec<DeviceUid>,
            #[serde(default)]
            timeout: Option<u64>,
            #[serde(default, rename = "override")]
            overrides: Option<bool>,
        }
        let read: Body = read(body)?;
        let mut violations = Vec::new();
        let action = Action::parse(&read.action);
        if action.is_none() {
            violations.push("there is no such action".to_owned());
        }
        let parameters = read.parameters.unwrap_or_default();
        if parameters.len() > PARAMETERS_MAX {
            violations.push(format!("there are at most {PARAMETERS_MAX} parameters"));
        }
        let bytes = serde_json::to_vec(&parameters).map_or(0, |written| written.len());
        if bytes > PARAMETERS_BYTES_MAX {
            violations.push(format!("parameters have at most {PARAMETERS_BYTES_MAX} bytes"));
        }
        if !(1..=REQUEST_DEVICES_MAX).contains(&read.devices.len()) {
            violations.push(format!("there are between 1 and {REQUEST_DEVICES_MAX} devices"));
        }
        let names: Option<Vec<DeviceName>> = read.devices.iter().map(DeviceUid::name).collect();
        if names.is_none() {
            violations.push("a device's name is none".to_owned());
        }
        let timeout_s = match (read.timeout, query.filter("timeout").map(str::parse)) {
            (Some(seconds), _) | (None, Some(Ok(seconds))) => seconds,
            (None, None) => REQUEST_TIMEOUT_S_DEFAULT,
            (None, Some(Err(_))) => 0,
        };
        if !(1..=REQUEST_TIMEOUT_S_MAX).contains(&timeout_s) {
            violations.push(format!("timeout is between 1 and {REQUEST_TIMEOUT_S_MAX} seconds"));
        }
        let overrides = read.overrides.unwrap_or(query.filter("override") == Some("true"));
        let (Some(action), Some(mut devices), true) = (action, names, violations.is_empty()) else {
            return Err(Error::Invalid(violations));
        };
        devices.sort();
        devices.dedup();
        Ok(Self { action, parameters, devices, timeout_s, overrides })
    }
}

/// Reads `POST /mgmt/custom/bundle`, and `PUT` with the id of the path.
///
/// # Errors
///
/// What is wrong with it.
pub fn bundle(body: &[u8], id: Option<&str>) -> Result<Bundle, Error> {
    let bundle: Bundle = read(body)?;
    if id.is_some_and(|id| id != bundle.bundle_id) {
        return Err(Error::Invalid(vec!["bundleId is not that of the path".to_owned()]));
    }
    let checked = bundle.check();
    checked.map(|()| bundle).map_err(|wrong| Error::Invalid(vec![wrong.to_string()]))
}

/// Reads `PUT /authorization/devices/{clientId}/roles` of a gateway with this group: the role that it gets.
///
/// # Errors
///
/// What is wrong with it.
pub fn role(body: &[u8], group: &str) -> Result<Role, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Held {
        role_id: String,
        #[serde(default)]
        role_status: Option<i64>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        roles: Vec<Held>,
        #[serde(default)]
        roles_to_groups: Option<BTreeMap<String, Vec<String>>>,
    }
    let read: Body = read(body)?;
    let mut violations = Vec::new();
    let role = match &read.roles[..] {
        [Held { role_id, role_status: None | Some(1) }] => Role::parse(role_id),
        _ => None,
    };
    if role.is_none() {
        let (one, other) = (Role::Standard.name(), Role::Privileged.name());
        violations.push(format!("roles has one role, {one} or {other}, with roleStatus 1"));
    }
    let groups = read.roles_to_groups.unwrap_or_default();
    if groups.values().flatten().any(|named| named != group) {
        violations.push(format!("a gateway has no other group than {group}"));
    }
    role.filter(|_| violations.is_empty()).ok_or(Error::Invalid(violations))
}

/// `PUT /config/lec`, and what `GET` answers. The fields are inferred from SDKs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheSettings {
    /// Whether last events are kept.
    pub enabled: bool,
    /// For how many days.
    pub ttl_days: u32,
}

/// The longest that a last event is kept (§1.10).
pub const CACHE_DAYS_MAX: u32 = 45;

impl CacheSettings {
    /// Reads new settings.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn read(body: &[u8]) -> Result<Self, Error> {
        let settings: Self = read(body)?;
        let fits = (1..=CACHE_DAYS_MAX).contains(&settings.ttl_days);
        let wrong = || Error::Invalid(vec![format!("ttlDays is between 1 and {CACHE_DAYS_MAX}")]);
        fits.then_some(settings).ok_or_else(wrong)
    }
}
