//! For whom a gateway may speak, and which devices come to be by that (§1.5).

use moorline_core::Text;

use crate::watson::identity::DeviceName;

/// Messages of a gateway that wait while a device is registered. Meanwhile PINGRESPs are answered as ever: clients count them.
pub const HELD_MESSAGES_MAX: usize = 128;

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
    format!("gw_def_res_grp:{org}:{}:{}", gateway.kind, gateway.id)
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
