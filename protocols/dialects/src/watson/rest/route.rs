//! Paths and methods of the management API, and who asks (§1.8, §1.9).

use moorline_core::Text;

use super::error::Error;
use crate::{
    secret::Secret,
    watson::{
        http::{self, unescape},
        identity::{self, ApiKey, BasicUser, ClientId, DeviceName, name},
        management::task::RequestId,
        topics::Group,
    },
};

pub use crate::watson::http::Head;

/// The most bytes of a path: all its names at their longest, each byte escaped.
const PATH_BYTES_MAX: usize = 1_024;
/// The most parts of a path.
const PARTS_MAX: usize = 12;

/// A method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
}

impl Method {
    /// Reads a method.
    #[must_use]
    pub fn parse(method: &str) -> Option<Self> {
        match method {
            "GET" => Some(Self::Get),
            "POST" => Some(Self::Post),
            "PUT" => Some(Self::Put),
            "DELETE" => Some(Self::Delete),
            _ => None,
        }
    }
}

/// What a path names, behind `/api/v0002`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// `/bulk/devices/add`
    BulkAdd,
    /// `/bulk/devices/remove`
    BulkRemove,
    /// `/bulk/devices`
    BulkDevices,
    /// `/device/types`
    Types,
    /// `/device/types/{t}`
    Type(Text),
    /// `/device/types/{t}/devices`
    Devices(Text),
    /// `/device/types/{t}/devices/{d}`
    Device(DeviceName),
    /// `…/{d}/location`
    Location(DeviceName),
    /// `…/{d}/mgmt`
    Management(DeviceName),
    /// `…/{d}/diag/logs`
    Logs(DeviceName),
    /// `…/{d}/diag/logs/{logId}`
    Log(DeviceName, Text),
    /// `…/{d}/diag/errorCodes`
    ErrorCodes(DeviceName),
    /// `…/{d}/events`: the last event cache.
    Events(DeviceName),
    /// `…/{d}/events/{e}`
    Event(DeviceName, Text),
    /// `/config/lec`
    CacheSettings,
    /// `/config/connection-security`: ours.
    ConnectionSecurity,
    /// `/clientconnectionstates`
    ConnectionStates,
    /// `/clientconnectionstates/{clientId}`
    ConnectionState(ClientId),
    /// `/logs/connection`
    ConnectionLog,
    /// `/service-status`
    ServiceStatus,
    /// `/usage/data-traffic`
    DataTraffic,
    /// `/groups`
    Groups,
    /// `/groups/{groupId}`
    Group(Group),
    /// `/bulk/devices/{groupId}`
    GroupDevices(Group),
    /// `/bulk/devices/{groupId}/ids`
    GroupIds(Group),
    /// `/bulk/devices/{groupId}/add`
    GroupAdd(Group),
    /// `/bulk/devices/{groupId}/remove`
    GroupRemove(Group),
    /// `/authorization/devices/{clientId}`
    Authorization(ClientId),
    /// `/authorization/devices/{clientId}/roles`
    Roles(ClientId),
    /// `/mgmt/requests`
    Requests,
    /// `/mgmt/requests/{id}`
    Request(RequestId),
    /// `/mgmt/requests/{id}/cancel`
    RequestCancel(RequestId),
    /// `/mgmt/requests/{id}/deviceStatus`
    RequestDevices(RequestId),
    /// `/mgmt/requests/{id}/deviceStatus/{t}/{d}`
    RequestDevice(RequestId, DeviceName),
    /// `/mgmt/custom/bundle`
    Bundles,
    /// `/mgmt/custom/bundle/{bundleId}`
    Bundle(Text),
}

impl Resource {
    /// Reads a path.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        if path.len() > PATH_BYTES_MAX {
            return None;
        }
        let rest = path.strip_prefix("/api/v0002/")?;
        // The Python SDK lists a type's devices with a slash at the end.
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let parts: Option<Vec<Vec<u8>>> = rest.split('/').take(PARTS_MAX).map(unescape).collect();
        let parts = parts?;
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Some(match parts.as_slice() {
            [b"bulk", b"devices", b"add"] => Self::BulkAdd,
            [b"bulk", b"devices", b"remove"] => Self::BulkRemove,
            [b"bulk", b"devices"] => Self::BulkDevices,
            [b"bulk", b"devices", group, rest @ ..] => Self::of_group(group, rest)?,
            [b"groups"] => Self::Groups,
            [b"groups", group] => Self::Group(read_group(group)?),
            [b"authorization", b"devices", client] => {
                Self::Authorization(ClientId::parse(client).ok()?)
            }
            // The vendor has two addresses for the same change.
            [b"authorization", b"devices", client, b"roles" | b"withroles"] => {
                Self::Roles(ClientId::parse(client).ok()?)
            }
            [b"device", b"types"] => Self::Types,
            [b"device", b"types", kind] => Self::Type(name(kind)?),
            [b"device", b"types", kind, b"devices"] => Self::Devices(name(kind)?),
            [b"device", b"types", kind, b"devices", id, rest @ ..] => {
                Self::of_device(DeviceName::new(kind, id)?, rest)?
            }
            [b"config", b"lec"] => Self::CacheSettings,
            [b"config", b"connection-security"] => Self::ConnectionSecurity,
            [b"clientconnectionstates"] => Self::ConnectionStates,
            [b"clientconnectionstates", client] => {
                Self::ConnectionState(ClientId::parse(client).ok()?)
            }
            [b"logs", b"connection"] => Self::ConnectionLog,
            [b"service-status"] => Self::ServiceStatus,
            [b"usage", b"data-traffic"] => Self::DataTraffic,
            [b"mgmt", b"requests"] => Self::Requests,
            [b"mgmt", b"requests", id, rest @ ..] => Self::of_request(id, rest)?,
            [b"mgmt", b"custom", b"bundle"] => Self::Bundles,
            [b"mgmt", b"custom", b"bundle", bundle] => Self::Bundle(name(bundle)?),
            _ => return None,
        })
    }

    fn of_device(device: DeviceName, rest: &[&[u8]]) -> Option<Self> {
        Some(match rest {
            [] => Self::Device(device),
            [b"location"] => Self::Location(device),
            [b"mgmt"] => Self::Management(device),
            [b"diag", b"logs"] => Self::Logs(device),
            [b"diag", b"logs", id] => Self::Log(device, name(id)?),
            [b"diag", b"errorCodes"] => Self::ErrorCodes(device),
            [b"events"] => Self::Events(device),
            [b"events", event] => Self::Event(device, name(event)?),
            _ => return None,
        })
    }

    fn of_group(group: &[u8], rest: &[&[u8]]) -> Option<Self> {
        let group = read_group(group)?;
        Some(match rest {
            [] => Self::GroupDevices(group),
            [b"ids"] => Self::GroupIds(group),
            [b"add"] => Self::GroupAdd(group),
            [b"remove"] => Self::GroupRemove(group),
            _ => return None,
        })
    }

    fn of_request(id: &[u8], rest: &[&[u8]]) -> Option<Self> {
        let id = RequestId::parse(std::str::from_utf8(id).ok()?)?;
        Some(match rest {
            [] => Self::Request(id),
            [b"cancel"] => Self::RequestCancel(id),
            [b"deviceStatus"] => Self::RequestDevices(id),
            [b"deviceStatus", kind, device] => {
                Self::RequestDevice(id, DeviceName::new(kind, device)?)
            }
            _ => return None,
        })
    }

    /// The status of success; `None`: there is no such method. Bulk requests of which only a part succeeded say 202.
    #[must_use]
    pub fn success(&self, method: Method) -> Option<u16> {
        use Method::{Delete, Get, Post, Put};
        match (self, method) {
            (Self::BulkAdd, Post) => Some(201),
            (Self::BulkRemove | Self::RequestCancel(_), Post) => Some(200),
            (Self::Requests, Post) => Some(202),
            (
                Self::BulkDevices
                | Self::Types
                | Self::Type(_)
                | Self::Devices(_)
                | Self::Device(_)
                | Self::Location(_)
                | Self::Management(_)
                | Self::Logs(_)
                | Self::Log(..)
                | Self::ErrorCodes(_)
                | Self::Events(_)
                | Self::Event(..)
                | Self::CacheSettings
                | Self::ConnectionSecurity
                | Self::ConnectionStates
                | Self::ConnectionState(_)
                | Self::ConnectionLog
                | Self::ServiceStatus
                | Self::DataTraffic
                | Self::Requests
                | Self::Request(_)
                | Self::RequestDevices(_)
                | Self::RequestDevice(..)
                | Self::Bundles
                | Self::Bundle(_),
                Get,
            ) => Some(200),
            (
                Self::Types
                | Self::Devices(_)
                | Self::Logs(_)
                | Self::ErrorCodes(_)
                | Self::Bundles,
                Post,
            ) => Some(201),
            (
                Self::Type(_)
                | Self::Device(_)
                | Self::Location(_)
                | Self::CacheSettings
                | Self::ConnectionSecurity
                | Self::Bundle(_),
                Put,
            ) => Some(200),
            (
                Self::Type(_)
                | Self::Device(_)
                | Self::Logs(_)
                | Self::Log(..)
                | Self::ErrorCodes(_)
                | Self::Request(_)
                | Self::Bundle(_),
                Delete,
            ) => Some(204),
            (_, Get | Post | Put | Delete) => self.success_of_groups(method),
        }
    }

    /// The same of gateways' groups and roles.
    fn success_of_groups(&self, method: Method) -> Option<u16> {
        use Method::{Get, Put};
        match (self, method) {
            (
                Self::Groups
                | Self::Group(_)
                | Self::GroupDevices(_)
                | Self::GroupIds(_)
                | Self::Authorization(_),
                Get,
            )
            | (Self::GroupAdd(_) | Self::GroupRemove(_), Put)
            | (Self::Roles(_), Get | Put) => Some(200),
            (_, _) => None,
        }
    }
}

fn read_group(group: &[u8]) -> Option<Group> {
    Group::parse(std::str::from_utf8(group).ok()?)
}

/// A request's head, read. Whether the token is right, the registry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Of what.
    pub resource: Resource,
    /// What.
    pub method: Method,
    /// The status of success.
    pub success: u16,
    /// Who asks. The key's organisation is the tenant.
    pub key: ApiKey,
    /// What it proves that with.
    pub secret: Secret,
}

/// Whether a request is for this API and not for messaging, which has the same base and a host name of its own. Where a host names no
/// organisation (an address), what messaging does not know is meant for this one.
#[must_use]
pub fn is_meant(head: &Head<'_>) -> bool {
    match head.header("host").and_then(identity::host) {
        Some(host) => !host.messaging,
        None => head.method != "POST" || !http::is_messaging(head.path),
    }
}

/// Reads a request's head. Devices and gateways have no credentials here: they register by what they publish.
///
/// # Errors
///
/// [`Error`], in this order: credentials, path, method.
pub fn route(head: &Head<'_>) -> Result<Asked, Error> {
    let user = head.header("authorization").and_then(identity::basic);
    let (key, secret) = match user {
        Some((BasicUser::Application(key), secret)) => (key, secret),
        Some((BasicUser::Gateway { .. } | BasicUser::PathDevice, _)) => {
            return Err(Error::Forbidden);
        }
        None => return Err(Error::Unauthorised),
    };
    // A host that names no organisation (an address) says nothing against the key.
    let host = head.header("host").and_then(identity::host);
    if host.is_some_and(|host| host.org != key.org) {
        return Err(Error::Forbidden);
    }
    let resource = Resource::parse(head.path).ok_or(Error::NotFound)?;
    let method = Method::parse(head.method).ok_or(Error::Method)?;
    let success = resource.success(method).ok_or(Error::Method)?;
    Ok(Asked { resource, method, success, key, secret })
}
