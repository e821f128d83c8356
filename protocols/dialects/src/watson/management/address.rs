//! Addresses of the device-management protocol (§1.8): what stands behind `iotdevice-1/` and `iotdm-1/`.
//!
//! A device's own topics have nothing between; `type/{t}/id/{d}/` stands there for what a gateway says and hears, and in
//! canonical names.

use std::fmt;

use moorline_core::Text;

use crate::watson::identity::{DeviceName, name};

/// What a device says. Its `Display` form is the end of the topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Upward {
    /// `response`: an answer to the server.
    Response,
    /// `notify`: an observed attribute changed.
    Notify,
    /// `mgmt/manage`
    Manage,
    /// `mgmt/unmanage`
    Unmanage,
    /// `device/update/location`
    UpdateLocation,
    /// `add/diag/errorCodes`
    AddErrorCode,
    /// `clear/diag/errorCodes`
    ClearErrorCodes,
    /// `add/diag/log`
    AddLog,
    /// `clear/diag/log`
    ClearLog,
    /// A topic that may be published to and means nothing: `device/update/{x}`, `add/{x}/{y}`, `clear/{x}/{y}`, `mgmt/{x}`.
    Unknown(Text),
}

impl Upward {
    /// Reads the levels behind `iotdevice-1` (and the gateway's insertion); `None` if nobody may publish there.
    #[must_use]
    pub fn parse(levels: &[&[u8]]) -> Option<Self> {
        let unknown = |levels: &[&[u8]]| {
            let names: Option<Vec<Text>> = levels.iter().map(|level| name(level)).collect();
            let names: Vec<String> = names?.iter().map(ToString::to_string).collect();
            Some(Self::Unknown(Text::from(names.join("/"))))
        };
        Some(match levels {
            [b"response"] => Self::Response,
            [b"notify"] => Self::Notify,
            [b"mgmt", b"manage"] => Self::Manage,
            [b"mgmt", b"unmanage"] => Self::Unmanage,
            [b"device", b"update", b"location"] => Self::UpdateLocation,
            [b"add", b"diag", b"errorCodes"] => Self::AddErrorCode,
            [b"clear", b"diag", b"errorCodes"] => Self::ClearErrorCodes,
            [b"add", b"diag", b"log"] => Self::AddLog,
            [b"clear", b"diag", b"log"] => Self::ClearLog,
            [b"device", b"update", _] | [b"add" | b"clear", _, _] | [b"mgmt", _] => {
                return unknown(levels);
            }
            _ => return None,
        })
    }
}

impl fmt::Display for Upward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Response => "response",
            Self::Notify => "notify",
            Self::Manage => "mgmt/manage",
            Self::Unmanage => "mgmt/unmanage",
            Self::UpdateLocation => "device/update/location",
            Self::AddErrorCode => "add/diag/errorCodes",
            Self::ClearErrorCodes => "clear/diag/errorCodes",
            Self::AddLog => "add/diag/log",
            Self::ClearLog => "clear/diag/log",
            Self::Unknown(rest) => return rest.fmt(f),
        })
    }
}

/// What the server says. Its `Display` form is the end of the topic. All of it is QoS 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Downward {
    /// `response`: an answer to the device.
    Response,
    /// `device/update`: attributes have new values.
    Update,
    /// `observe`: tell what changes.
    Observe,
    /// `cancel`: tell it no more.
    Cancel,
    /// `mgmt/initiate/device/reboot`
    Reboot,
    /// `mgmt/initiate/device/factory_reset`
    FactoryReset,
    /// `mgmt/initiate/firmware/download`
    FirmwareDownload,
    /// `mgmt/initiate/firmware/update`
    FirmwareUpdate,
    /// `mgmt/custom/{bundle}/{action}`
    Custom {
        /// The bundle.
        bundle: Text,
        /// Its action.
        action: Text,
    },
}

/// What a gateway hears stands behind this, and behind its own name.
pub(crate) const THROUGH: &str = "iotdm-1/via";

/// Where a device hears the server, in canonical topics: itself, or the gateway through which it spoke last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel(Text);

impl Channel {
    /// A device's.
    #[must_use]
    pub fn of(device: &DeviceName, gateway: Option<&DeviceName>) -> Self {
        Self(Text::from(match gateway {
            Some(gateway) => format!("{THROUGH}/{gateway}/{device}"),
            None => format!("iotdm-1/{device}"),
        }))
    }

    /// The canonical topic of what stands behind that: a [`Downward`], or what its `Display` wrote.
    #[must_use]
    pub fn topic(&self, said: impl fmt::Display) -> Text {
        Text::from(format!("{}/{said}", self.0))
    }
}

impl fmt::Display for Downward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Response => "response",
            Self::Update => "device/update",
            Self::Observe => "observe",
            Self::Cancel => "cancel",
            Self::Reboot => "mgmt/initiate/device/reboot",
            Self::FactoryReset => "mgmt/initiate/device/factory_reset",
            Self::FirmwareDownload => "mgmt/initiate/firmware/download",
            Self::FirmwareUpdate => "mgmt/initiate/firmware/update",
            Self::Custom { bundle, action } => return write!(f, "mgmt/custom/{bundle}/{action}"),
        })
    }
}
