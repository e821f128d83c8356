//! What the server asks of one device: a request on its way through its phases (§1.8).
//!
//! ```text
//!   reboot, factory reset   Initiated ─202─► Restarting ─manage─► done
//!   custom                  Initiated ─200─► done
//!                           Initiated ─202─► Working ─notify─► done
//!   firmware download       Updating ─204─► Observing ─200─► Initiated ─202─► Working ─state 2─► Cancelling ─► done
//!   firmware update         (Updating ─204─►) Observing ─200─► Initiated ─202─► Working ─status 1, 0─► Cancelling ─► done
//! ```
//!
//! # Invariants
//!
//! - **One exchange at a time, each with its own id.** The last four bits of a request's id count its exchanges, so that a
//!   repeated answer to an earlier one is not taken for the present one's. Checked by `a_repeated_answer_moves_nothing`.
//! - **Nothing is recalled.** A device that was away answers, and does, what has timed out here; its answer meets no task.
//!   Checked by `what_timed_out_is_still_delivered`.

use std::fmt;

use moorline_core::{Text, UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    address::Downward,
    attributes::{Firmware, FirmwareChange, FirmwareState, UpdateStatus},
    kept,
    wire::Response,
};
use crate::watson::identity;

/// The most parameters of a request.
pub const PARAMETERS_MAX: usize = 64;
/// The attribute that is observed.
pub(super) const FIRMWARE: &str = "mgmt.firmware";
/// The bits of an id that count exchanges.
const EXCHANGE_BITS: u128 = 0xf;
/// Length of a UUID with its dashes.
const UUID_CHARS: usize = 36;

/// A request of the management API: a UUID whose last four bits are left to count exchanges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RequestId(u128);

impl RequestId {
    /// Takes what nobody else was given; the last four bits are dropped.
    #[must_use]
    pub fn new(fresh: u128) -> Self {
        Self(fresh & !EXCHANGE_BITS)
    }

    /// Reads an id as [`RequestId`]'s `Display` writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bits = u128::from_str_radix(&text.replace('-', ""), 16).ok()?;
        (text.len() == UUID_CHARS && Self(bits).to_string() == text && bits & EXCHANGE_BITS == 0)
            .then_some(Self(bits))
    }

    /// The id of one of its exchanges.
    fn exchange(self, number: u8) -> String {
        Self(self.0 | u128::from(number)).to_string()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", self.0);
        let (a, b, c) = (&digits[..8], &digits[8..12], &digits[12..16]);
        write!(f, "{a}-{b}-{c}-{}-{}", &digits[16..20], &digits[20..])
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for RequestId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("no request's id")
    }
}

/// What a device is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Action {
    /// `device/reboot`
    Reboot,
    /// `device/factoryReset`
    FactoryReset,
    /// `firmware/download`
    FirmwareDownload,
    /// `firmware/update`
    FirmwareUpdate,
    /// `{bundle}/{action}`
    Custom {
        /// The bundle.
        bundle: Text,
        /// Its action.
        action: Text,
    },
}

impl Action {
    /// Reads an action's name. Bundles may not be called `device` or `firmware`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "device/reboot" => return Some(Self::Reboot),
            "device/factoryReset" => return Some(Self::FactoryReset),
            "firmware/download" => return Some(Self::FirmwareDownload),
            "firmware/update" => return Some(Self::FirmwareUpdate),
            _ => {}
        }
        let (bundle, action) = name.split_once('/')?;
        let of_ours = matches!(bundle, "device" | "firmware");
        let bundle = identity::name(bundle.as_bytes()).filter(|_| !of_ours)?;
        Some(Self::Custom { bundle, action: identity::name(action.as_bytes())? })
    }

    /// What a device has to support for it, by its `manage`.
    #[must_use]
    pub fn needs(&self) -> &str {
        match self {
            Self::Reboot | Self::FactoryReset => "deviceActions",
            Self::FirmwareDownload | Self::FirmwareUpdate => "firmwareActions",
            Self::Custom { bundle, .. } => bundle.as_str(),
        }
    }

    /// Where the device is told to begin.
    #[must_use]
    pub fn address(&self) -> Downward {
        match self {
            Self::Reboot => Downward::Reboot,
            Self::FactoryReset => Downward::FactoryReset,
            Self::FirmwareDownload => Downward::FirmwareDownload,
            Self::FirmwareUpdate => Downward::FirmwareUpdate,
            Self::Custom { bundle, action } => {
                Downward::Custom { bundle: bundle.clone(), action: action.clone() }
            }
        }
    }

    /// Whether it goes by `mgmt.firmware`.
    #[must_use]
    pub fn is_about_firmware(&self) -> bool {
        match self {
            Self::FirmwareDownload | Self::FirmwareUpdate => true,
            Self::Reboot | Self::FactoryReset | Self::Custom { .. } => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reboot => f.write_str("device/reboot"),
            Self::FactoryReset => f.write_str("device/factoryReset"),
            Self::FirmwareDownload => f.write_str("firmware/download"),
            Self::FirmwareUpdate => f.write_str("firmware/update"),
            Self::Custom { bundle, action } => write!(f, "{bundle}/{action}"),
        }
    }
}

impl From<Action> for String {
    fn from(action: Action) -> Self {
        action.to_string()
    }
}

impl TryFrom<String> for Action {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("no action")
    }
}

/// A parameter of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: Value,
}

/// The firmware that parameters name; others are left out.
#[must_use]
pub fn firmware_of(parameters: &[Parameter]) -> FirmwareChange {
    let text = |name: &str| {
        let found = parameters.iter().find(|parameter| parameter.name == name)?;
        match &found.value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Some(other.to_string())
            }
        }
    };
    FirmwareChange {
        version: text("version"),
        name: text("name"),
        uri: text("uri"),
        verifier: text("verifier"),
        ..FirmwareChange::default()
    }
}

/// Where a task stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The device was told the new firmware.
    Updating,
    /// It was asked to tell what changes.
    Observing,
    /// It was told to begin.
    Initiated,
    /// It will send `manage` when it is back.
    Restarting,
    /// It works, and will tell what becomes of it.
    Working,
    /// It is over; the device was asked to tell no more.
    Cancelling(Outcome),
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is done.
    Succeeded,
    /// It is not.
    Failed {
        /// The device's answer, if that was the reason.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rc: Option<u16>,
        /// Why.
        message: String,
    },
    /// Nothing more was heard in time. The device may have done it, or do it later.
    TimedOut,
    /// Somebody called it off. The device may have done it.
    Cancelled,
}

impl Outcome {
    /// It failed.
    #[must_use]
    pub fn failed(rc: Option<u16>, message: &str) -> Self {
        Self::Failed { rc, message: message.to_owned() }
    }
}

/// A request on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Which.
    pub id: RequestId,
    /// What is to be done.
    pub action: Action,
    /// With what.
    pub parameters: Vec<Parameter>,
    /// Until when.
    #[serde(with = "kept::moment")]
    pub deadline: UnixMillis,
    /// Where it stands.
    pub phase: Phase,
    /// Which exchange is under way.
    pub exchange: u8,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: it waits on.
    Wait,
    /// Ask the device for this phase.
    Enter(Phase),
    /// It is over.
    End(Outcome),
}

impl Task {
    /// The id of the exchange under way.
    #[must_use]
    pub fn exchange_id(&self) -> String {
        self.id.exchange(self.exchange)
    }

    /// The first phase. A download always says which firmware; an update only if it is another.
    pub(super) fn first(action: &Action, parameters: &[Parameter]) -> Phase {
        let updates = match action {
            Action::FirmwareDownload => true,
            Action::FirmwareUpdate => firmware_of(parameters) != FirmwareChange::default(),
            Action::Reboot | Action::FactoryReset | Action::Custom { .. } => {
                return Phase::Initiated;
            }
        };
        if updates { Phase::Updating } else { Phase::Observing }
    }

    /// What an answer to the exchange under way means.
    pub(super) fn answered(&self, response: &Response) -> Next {
        let why = response.message.as_deref().filter(|message| !message.is_empty());
        let why = why.unwrap_or("The device refused");
        let failed = || Next::End(Outcome::failed(Some(response.rc), why));
        match (&self.phase, response.rc) {
            (Phase::Updating, 200 | 204) => Next::Enter(Phase::Observing),
            (Phase::Observing, 200) => Next::Enter(Phase::Initiated),
            (Phase::Initiated, 200 | 202) => match (&self.action, response.rc) {
                (Action::Reboot | Action::FactoryReset, _) => Next::Enter(Phase::Restarting),
                (Action::Custom { .. }, 200) => Next::End(Outcome::Succeeded),
                (Action::Custom { .. }, _) => Next::Enter(Phase::Working),
                (Action::FirmwareDownload | Action::FirmwareUpdate, _) => {
                    Next::Enter(Phase::Working)
                }
            },
            // It observes now, so that it has to be told to stop.
            (Phase::Initiated, rc) if self.action.is_about_firmware() => {
                Next::Enter(Phase::Cancelling(Outcome::failed(Some(rc), why)))
            }
            (Phase::Updating | Phase::Observing | Phase::Initiated, _) => failed(),
            // Whatever it says to the cancel: what it was about is over.
            (Phase::Cancelling(outcome), _) => Next::End(outcome.clone()),
            (Phase::Restarting | Phase::Working, _) => Next::Wait,
        }
    }

    /// What a changed firmware means. It may overtake the answer to what began it.
    pub(super) fn firmware_changed(&self, before: &Firmware, after: &Firmware) -> Next {
        match self.phase {
            Phase::Initiated | Phase::Working if self.action.is_about_firmware() => {}
            Phase::Initiated
            | Phase::Working
            | Phase::Updating
            | Phase::Observing
            | Phase::Restarting
            | Phase::Cancelling(_) => return Next::Wait,
        }
        if let Some(why) = after.update_status.failure() {
            return Next::Enter(Phase::Cancelling(Outcome::failed(None, why)));
        }
        let over = if self.action == Action::FirmwareDownload {
            after.state == FirmwareState::Downloaded
        } else {
            // The Python SDK's callbacks begin with "idle, success", so that only what ran can be over.
            before.update_status == UpdateStatus::InProgress
                && after.update_status == UpdateStatus::Success
        };
        if over { Next::Enter(Phase::Cancelling(Outcome::Succeeded)) } else { Next::Wait }
    }
}
