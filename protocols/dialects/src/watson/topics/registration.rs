//! For whom a gateway may speak, and which devices come to be by that (§1.5).

use moorline_core::Text;

use super::{Reach, Subscription};
use crate::watson::{
    identity::{DeviceName, is_org},
    notice,
};

/// Messages of a gateway that wait while a device is registered. Meanwhile PINGRESPs are answered as ever: clients count them.
pub const HELD_MESSAGES_MAX: usize = 128;

/// What the name of a gateway's group begins with.
const GROUP: &str = "gw_def_res_grp";

/// What a gateway may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Role {
    /// `PD_STANDARD_GW_DEVICE`: speak for the devices in its group.
    Standard,
    /// `PD_PRIVILEGED_GW_DEVICE`: speak for any device, and register those that are new.
    #[default]
    Privileged,
}

impl Role {
    /// Reads a role's name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "PD_STANDARD_GW_DEVICE" => Some(Self::Standard),
            "PD_PRIVILEGED_GW_DEVICE" => Some(Self::Privileged),
            _ => None,
        }
    }

    /// The role's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Standard => "PD_STANDARD_GW_DEVICE",
            Self::Privileged => "PD_PRIVILEGED_GW_DEVICE",
        }
    }
}

/// The group of devices that a standard gateway speaks for.
#[must_use]
pub fn resource_group(org: &Text, gateway: &DeviceName) -> String {
    format!("{GROUP}:{org}:{}:{}", gateway.kind, gateway.id)
}

/// A gateway's group, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Whose.
    pub org: Text,
    /// Which gateway's.
    pub gateway: DeviceName,
}

impl Group {
    /// Reads a group's name.
    #[must_use]
    pub fn parse(group: &str) -> Option<Self> {
        let mut parts = group.strip_prefix(GROUP)?.strip_prefix(':')?.split(':');
        let (org, kind, id) = (parts.next()?, parts.next()?, parts.next()?);
        let gateway = DeviceName::new(kind.as_bytes(), id.as_bytes())?;
        let is_whole = parts.next().is_none() && is_org(org.as_bytes());
        is_whole.then(|| Self { org: Text::from(org), gateway })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        resource_group(&self.org, &self.gateway)
    }
}

/// What a standard gateway may ask for: itself, and one device of its group that it names. `None`: a filter that says no device
/// would reach those that are not its own. (The vendor's filter is not known to us.)
#[must_use]
pub fn standard_reach(wanted: &Subscription) -> Option<Asks> {
    match wanted.reach {
        Reach::Itself => Some(Asks::Itself),
        Reach::Gateway | Reach::Org => notice::named(wanted.filter.as_str()).map(Asks::Of),
    }
}

/// Of whom a filter of a standard gateway is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asks {
    /// Its own.
    Itself,
    /// This device.
    Of(DeviceName),
}

/// How a gateway stands to a device that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It may speak for it.
    Speaks,
    /// It may, once the device is registered: now, its type too if there is none.
    Registers,
    /// It may not.
    Refused,
}

/// How a gateway stands to a device. `registered`: whether the device is; `grouped`: whether it is in the gateway's group.
#[must_use]
pub fn standing(
    role: Role,
    gateway: &DeviceName,
    device: &DeviceName,
    registered: bool,
    grouped: bool,
) -> Standing {
    match role {
        _ if gateway == device => Standing::Speaks,
        Role::Privileged if registered => Standing::Speaks,
        Role::Privileged => Standing::Registers,
        Role::Standard if registered && grouped => Standing::Speaks,
        Role::Standard => Standing::Refused,
    }
}
