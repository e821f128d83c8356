//! Bodies that the management API answers with (§1.8, §1.9). Lists without pages are bare arrays; diagnostics are newest first.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use moorline_core::{Text, UnixMillis, calendar::rfc3339};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    kept::KeptFailure,
    request::{ClassId, Status},
};
pub use crate::watson::about::Registrar;
use crate::watson::{
    about::About,
    close::Close,
    identity::{Class, ClientId, DeviceName, Who},
    management::{
        attributes::{DeviceInfo, Firmware},
        device::{self, Standing},
    },
    topics::{Group, Role},
};

/// A page. A client asks again with its bookmark, and stops where there is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page<T> {
    /// The results.
    pub results: Vec<T>,
    /// Where it ends, unless it is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bookmark: Option<String>,
    /// What is known of all results.
    pub meta: Meta,
}

/// What is known of all results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Meta {
    /// How many there are, if somebody counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_rows: Option<u64>,
}

/// Who registered a device, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Registration {
    /// Who.
    pub auth: Registrar,
    /// When.
    pub date: String,
}

/// Where the rest of a device is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct References {
    diag: DiagnosticReferences,
    location: String,
    mgmt: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct DiagnosticReferences {
    error_codes: String,
    logs: String,
}

/// What the registry knows of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Known<'a> {
    /// Its organisation.
    pub org: &'a Text,
    /// Its name.
    pub name: &'a DeviceName,
    /// Device or gateway.
    pub class: ClassId,
    /// What it is.
    pub info: &'a DeviceInfo,
    /// What else is known of it.
    pub metadata: &'a Map<String, Value>,
    /// Who registered it.
    pub registration: Registration,
    /// The groups it is in.
    pub groups: &'a [String],
    /// How it is.
    pub status: &'a Status,
    /// Through which gateway it was registered.
    pub gateway: Option<&'a DeviceName>,
    /// Its token, if it was made just now.
    pub token: Option<&'a str>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device<'a> {
    client_id: String,
    type_id: &'a str,
    device_id: &'a str,
    device_info: &'a DeviceInfo,
    metadata: &'a Map<String, Value>,
    registration: Registration,
    groups: &'a [String],
    status: &'a Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway_type_id: Option<&'a str>,
    refs: References,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<&'a str>,
}

impl<'a> From<Known<'a>> for Device<'a> {
    fn from(known: Known<'a>) -> Self {
        let (kind, id) = (known.name.kind.as_str(), known.name.id.as_str());
        let who = match known.class {
            ClassId::Device => Who::Device(known.name.clone()),
            ClassId::Gateway => Who::Gateway(known.name.clone()),
        };
        let base = format!("/api/v0002/device/types/{kind}/devices/{id}");
        let diag = DiagnosticReferences {
            error_codes: format!("{base}/diag/errorCodes"),
            logs: format!("{base}/diag/logs"),
        };
        Self {
            client_id: ClientId { org: known.org.clone(), who }.to_string(),
            type_id: kind,
            device_id: id,
            device_info: known.info,
            metadata: known.metadata,
            registration: known.registration,
            groups: known.groups,
            status: known.status,
            gateway_id: known.gateway.map(|gateway| gateway.id.as_str()),
            gateway_type_id: known.gateway.map(|gateway| gateway.kind.as_str()),
            refs: References {
                diag,
                location: format!("{base}/location"),
                mgmt: format!("{base}/mgmt"),
            },
            auth_token: known.token,
        }
    }
}

/// A device type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceType<'a> {
    /// Its name.
    pub id: &'a str,
    /// What sort.
    pub class_id: ClassId,
    /// In words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<&'a str>,
    /// What its devices are when they are registered.
    pub device_info: &'a DeviceInfo,
    /// What else is known of it.
    pub metadata: &'a Map<String, Value>,
    /// When it was made.
    pub created_date_time: String,
    /// When it changed.
    pub updated_date_time: String,
}

/// One device of a bulk request that registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Added<'a> {
    /// Its type.
    pub type_id: &'a str,
    /// Its id.
    pub device_id: &'a str,
    /// Whether it is registered.
    pub success: bool,
    /// Its token: shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_token: Option<&'a str>,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exception: Option<String>,
}

/// One device of a bulk request that removes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Removed<'a> {
    /// Its type.
    pub type_id: &'a str,
    /// Its id.
    pub device_id: &'a str,
    /// Whether it is gone. One that never was, is.
    pub success: bool,
}

/// The status of a bulk request: `all` if every part of it succeeded, 202 if not.
#[must_use]
pub fn bulk_status(all: u16, parts: impl IntoIterator<Item = bool>) -> u16 {
    if parts.into_iter().all(|success| success) { all } else { 202 }
}

/// `GET …/mgmt`
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Managed<'a> {
    dormant: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    dormant_date_time: Option<String>,
    supports: Map<String, Value>,
    firmware: &'a Firmware,
}

/// What is known of a managed device; `None` (404) of one that is not, or is dormant.
#[must_use]
pub fn managed(device: &device::Device) -> Option<Managed<'_>> {
    let Standing::Managed(contract) = &device.standing else { return None };
    let supports = contract.supports.iter().map(|what| (what.clone(), Value::Bool(true)));
    Some(Managed {
        dormant: false,
        dormant_date_time: contract.until.map(rfc3339),
        supports: supports.collect(),
        firmware: &device.firmware,
    })
}

/// The last event of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LastEvent {
    device_id: String,
    event_id: String,
    format: String,
    payload: String,
    timestamp: String,
    type_id: String,
}

impl LastEvent {
    /// The event as it is shown: its payload in base64.
    #[must_use]
    pub fn new(
        device: &DeviceName,
        event: &str,
        format: &str,
        payload: &[u8],
        at: UnixMillis,
    ) -> Self {
        Self {
            device_id: device.id.to_string(),
            event_id: event.to_owned(),
            format: format.to_owned(),
            payload: STANDARD.encode(payload),
            timestamp: rfc3339(at),
            type_id: device.kind.to_string(),
        }
    }
}

/// How a client stands. The fields are inferred from SDKs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionState {
    id: String,
    client_type: &'static str,
    connection_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_activity_date_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connected_date_time: Option<String>,
}

impl ConnectionState {
    /// How a client stands. `since`: when it connected last; `heard`: when it was heard from.
    #[must_use]
    pub fn new(
        client: &ClientId,
        connected: bool,
        since: Option<UnixMillis>,
        heard: Option<UnixMillis>,
    ) -> Self {
        Self {
            id: client.to_string(),
            client_type: match client.class() {
                Class::Device => "Device",
                Class::Gateway => "Gateway",
                Class::Application | Class::SharedApplication => "Application",
            },
            connection_status: if connected { "connected" } else { "disconnected" },
            last_activity_date_time: heard.map(rfc3339),
            connected_date_time: since.map(rfc3339),
        }
    }
}

/// An entry of `GET /logs/connection`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConnectionLogEntry {
    /// What happened.
    pub message: String,
    /// When.
    pub timestamp: String,
}

impl ConnectionLogEntry {
    /// A client came or went. The sentences are ours.
    #[must_use]
    pub fn new(client: &ClientId, what: &str, at: UnixMillis) -> Self {
        let message = format!("{client} is {what}");
        Self { message, timestamp: rfc3339(at) }
    }

    /// A client was not let in.
    #[must_use]
    pub fn failed(client: &ClientId, failure: &KeptFailure) -> Self {
        let KeptFailure { at, close, address } = failure;
        let why = Close::of_number(*close).map_or("refused", Close::text);
        let message = format!("{client} was not let in from {address}: {why} ({close})");
        Self { message, timestamp: rfc3339(*at) }
    }
}

/// `GET /groups/{groupId}`: every gateway has one of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceGroup {
    id: String,
    name: String,
    description: String,
    search_tags: [String; 0],
}

impl ResourceGroup {
    /// A gateway's. The sentence is ours.
    #[must_use]
    pub fn of(group: &Group) -> Self {
        let id = group.name();
        let Group { gateway, .. } = group;
        let description =
            format!("Devices that the gateway {}:{} speaks for", gateway.kind, gateway.id);
        Self { name: id.clone(), id, description, search_tags: [] }
    }
}

/// `GET` and `PUT /authorization/devices/{clientId}/roles`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Roles {
    roles: Vec<HeldRole>,
    roles_to_groups: BTreeMap<&'static str, Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct HeldRole {
    role_id: &'static str,
    role_status: u8,
}

impl Roles {
    /// Of a gateway, with its group; of a device, which has none.
    #[must_use]
    pub fn of(held: Option<(Role, &Group)>) -> Self {
        let roles = held.iter().map(|(role, _)| HeldRole { role_id: role.name(), role_status: 1 });
        let groups = held.iter().map(|(role, group)| (role.name(), vec![group.name()]));
        Self { roles: roles.collect(), roles_to_groups: groups.collect() }
    }
}

/// `GET /authorization/devices/{clientId}`: a page with one result, as SDKs read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Authorization {
    client_id: String,
    type_id: String,
    device_id: String,
    resource_groups: Vec<String>,
    #[serde(flatten)]
    roles: Roles,
    status: u8,
}

impl Authorization {
    /// Of a device or gateway that is let in (`enabled`) or not. A gateway's groups begin with its own.
    #[must_use]
    pub fn of(client: &ClientId, about: &About, enabled: bool) -> Option<Self> {
        let name = client.device()?;
        let own = Group { org: client.org.clone(), gateway: name.clone() };
        let held = (client.class() == Class::Gateway).then_some((about.role, &own));
        let own = held.iter().map(|(_, group)| group.name());
        Some(Self {
            client_id: client.to_string(),
            type_id: name.kind.to_string(),
            device_id: name.id.to_string(),
            resource_groups: own.chain(about.groups.iter().cloned()).collect(),
            roles: Roles::of(held),
            status: u8::from(enabled),
        })
    }
}

/// A device as `GET /bulk/devices/{groupId}/ids` and what changes a group name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceId<'a> {
    /// Its type.
    pub type_id: &'a str,
    /// Its id.
    pub device_id: &'a str,
}

/// `POST /mgmt/requests`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Initiated {
    /// The request.
    #[serde(rename = "reqId")]
    pub id: String,
}

/// `GET /service-status`: `green`, `orange` or `red` each. The fields are inferred from SDKs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// The management API.
    pub dashboard: &'static str,
    /// MQTT and HTTP messaging.
    pub messaging: &'static str,
    /// What others provide.
    pub third_party: &'static str,
}

/// `GET /usage/data-traffic`, in bytes. The fields are inferred from SDKs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DataTraffic {
    /// The first day, `YYYY-MM-DD`.
    pub start: String,
    /// The last day.
    pub end: String,
    /// A day on average.
    pub average: u64,
    /// All days.
    pub total: u64,
    /// Each day, if details were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<Vec<Day>>,
}

/// A day's traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Day {
    /// Which.
    pub date: String,
    /// Bytes.
    pub total: u64,
}
