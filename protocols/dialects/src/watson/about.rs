//! What is known of a device beside its protocols, as its registration keeps it: `metadata`, and beside that `deviceInfo`, who
//! registered it, and its alert, under names of their own.
//!
//! # Invariants
//!
//! - **What an import or an operator wrote is read**: `deviceInfo` lies where [`super::export`] puts it, and all other keys are metadata.
//!   Checked by `what_is_known_of_a_device_comes_back`.
//! - **Metadata takes no name of ours** ([`RESERVED`]). Checked by the same.

use std::collections::BTreeSet;

use moorline_core::UnixMillis;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    identity::{ClientId, DeviceName},
    management::attributes::DeviceInfo,
    rest::request::Status,
    topics::{Group, Role, Standing, standing},
};

/// Keys that no metadata has.
pub const RESERVED: [&str; 6] = [INFO, REGISTERED, STATUS, GROUPS, ROLE, BOUNDS];
const INFO: &str = "deviceInfo";
const REGISTERED: &str = "registeredBy";
const STATUS: &str = "status";
const GROUPS: &str = "resourceGroups";
const ROLE: &str = "gatewayRole";
const BOUNDS: &str = "gatewayChanged";
/// The most groups that a device is in.
pub const GROUPS_MAX: usize = 16;

/// Who registered a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registrar {
    /// Its name: an API key, a gateway's client id, a person.
    pub id: String,
    /// What it is: `app`, `gateway`, `person`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// What is known of a device.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct About {
    /// What it is.
    pub info: DeviceInfo,
    /// What else is known of it.
    pub metadata: Map<String, Value>,
    /// Who registered it, if that was done here.
    pub registered_by: Option<Registrar>,
    /// How it is.
    pub status: Status,
    /// The groups of gateways that it is in, sorted.
    pub groups: BTreeSet<String>,
    /// What it may do, if it is a gateway.
    pub role: Role,
    /// Which change of its role or its group was the last, if it is a gateway; 0: none.
    pub changed: u64,
}

/// What a gateway may when it comes in. Once that is something else it has to come anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Whom it speaks for.
    pub role: Role,
    /// Which change of its group that is by; 0 for a privileged gateway, to which none matters.
    pub changed: u64,
}

fn take<T: DeserializeOwned>(from: &mut Map<String, Value>, key: &str) -> Option<T> {
    from.remove(key).and_then(|value| serde_json::from_value(value).ok())
}

impl About {
    /// What a gateway is as a [`Registrar`].
    pub const BY_GATEWAY: &'static str = "gateway";

    /// The gateway that registered a device, by what it said for it.
    #[must_use]
    pub fn gateway(&self) -> Option<DeviceName> {
        let by = self.registered_by.as_ref().filter(|by| by.kind == Self::BY_GATEWAY)?;
        ClientId::parse(by.id.as_bytes()).ok()?.device().cloned()
    }

    /// What it may, if it is a gateway.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        match self.role {
            Role::Standard => Bounds { role: self.role, changed: self.changed },
            Role::Privileged => Bounds::default(),
        }
    }

    /// What it may is something else from now on.
    pub fn change_bounds(&mut self, now: UnixMillis) {
        self.changed = now.0.max(self.changed.saturating_add(1));
    }

    /// Whether a gateway hears of a device: always, if it may speak for it.
    #[must_use]
    pub fn may_hear_of(&self, gateway: &DeviceName, device: (&DeviceName, &Self)) -> bool {
        let (device, about) = device;
        let is_its = |group: &String| Group::parse(group).is_some_and(|of| of.gateway == *gateway);
        let grouped = about.groups.iter().any(is_its);
        standing(self.role, gateway, device, true, grouped) == Standing::Speaks
    }

    /// Puts it into a group. `false`: it is in there already, or in as many as may be.
    pub fn join(&mut self, group: &str) -> bool {
        self.groups.len() < GROUPS_MAX && self.groups.insert(group.to_owned())
    }

    /// Reads what a registration keeps. What is not of its form under a name of ours is nothing.
    #[must_use]
    pub fn read(mut kept: Map<String, Value>) -> Self {
        Self {
            info: take(&mut kept, INFO).unwrap_or_default(),
            registered_by: take(&mut kept, REGISTERED),
            status: take(&mut kept, STATUS).unwrap_or_default(),
            groups: take(&mut kept, GROUPS).unwrap_or_default(),
            // A name that is none of ours makes nobody more than it was meant to be.
            role: kept.remove(ROLE).map_or(Role::Privileged, |role| {
                role.as_str().and_then(Role::parse).unwrap_or(Role::Standard)
            }),
            changed: take(&mut kept, BOUNDS).unwrap_or_default(),
            metadata: kept,
        }
    }

    /// As it is kept.
    ///
    /// # Panics
    ///
    /// Never: texts and numbers have a form in JSON.
    #[must_use]
    pub fn written(&self) -> Map<String, Value> {
        let value = |of: Result<Value, _>| of.expect("texts and numbers have a form in JSON");
        let mut kept = self.metadata.clone();
        RESERVED.iter().for_each(|key| drop(kept.remove(*key)));
        if self.info != DeviceInfo::default() {
            kept.insert(INFO.to_owned(), value(serde_json::to_value(&self.info)));
        }
        if let Some(by) = &self.registered_by {
            kept.insert(REGISTERED.to_owned(), value(serde_json::to_value(by)));
        }
        if self.status != Status::default() {
            kept.insert(STATUS.to_owned(), value(serde_json::to_value(&self.status)));
        }
        if !self.groups.is_empty() {
            kept.insert(GROUPS.to_owned(), value(serde_json::to_value(&self.groups)));
        }
        if self.role != Role::default() {
            kept.insert(ROLE.to_owned(), Value::from(self.role.name()));
        }
        if self.changed > 0 {
            kept.insert(BOUNDS.to_owned(), Value::from(self.changed));
        }
        kept
    }
}
