//! The record of a management request: what was asked, and what became of it at each device (§1.8, REST side).
//!
//! ```text
//!   Pending ──Moved──► Running ──Ended──► Ended(outcome)       per device; never back
//! ```
//!
//! A request and each of its devices are documents of their own, so that thousands of devices do not wait for each other.
//!
//! Invariant: what has ended stays so, whatever is heard later. Checked by `records_follow_their_devices`.

use moorline_core::{UnixMillis, calendar::rfc3339};
use serde::{Deserialize, Serialize};

use super::{
    kept,
    task::{Action, Outcome, Parameter, RequestId},
};
use crate::watson::identity::DeviceName;

/// Where a request stands at one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// Nothing was sent yet.
    Pending,
    /// The device was told.
    Running,
    /// It is over.
    Ended(Outcome),
}

/// One device of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// Where it stands.
    pub progress: Progress,
    /// Since when.
    #[serde(with = "kept::moment")]
    pub at: UnixMillis,
}

/// A request, without its devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    /// What was asked.
    pub action: Action,
    /// With what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
    /// When.
    #[serde(with = "kept::moment")]
    pub initiated: UnixMillis,
    /// When it is over at the latest.
    #[serde(with = "kept::moment")]
    pub deadline: UnixMillis,
    /// Of how many devices.
    pub devices: u32,
    /// When it was over for all of them, if that is known.
    #[serde(default, with = "kept::moment_if_any", skip_serializing_if = "Option::is_none")]
    pub completed: Option<UnixMillis>,
}

/// A request as the management API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown<'a> {
    id: String,
    action: String,
    parameters: &'a [Parameter],
    device_count: u32,
    initiated: String,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
}

/// A request at one device, as the management API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownDevice {
    type_id: String,
    device_id: String,
    /// 0 under way or done, 1 failed, 2 timed out, 3 called off. The vendor's numbers are not known.
    status: u8,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    last_update_date_time: String,
}

impl DeviceRecord {
    /// Of a device that was told nothing yet.
    #[must_use]
    pub fn pending(now: UnixMillis) -> Self {
        Self { progress: Progress::Pending, at: now }
    }

    /// After what an effect of the device's machine says; [`None`] if that is nothing new, or comes too late.
    #[must_use]
    pub fn noted(&self, progress: &Progress, now: UnixMillis) -> Option<Self> {
        let new = !self.has_ended() && self.progress != *progress;
        new.then(|| Self { progress: progress.clone(), at: now })
    }

    /// Whether it is over.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        match self.progress {
            Progress::Pending | Progress::Running => false,
            Progress::Ended(_) => true,
        }
    }

    /// As the management API shows it.
    #[must_use]
    pub fn shown(&self, device: &DeviceName) -> ShownDevice {
        let (status, complete, message) = match &self.progress {
            Progress::Pending | Progress::Running => (0, false, None),
            Progress::Ended(Outcome::Succeeded) => (0, true, None),
            Progress::Ended(Outcome::Failed { rc: Some(rc), message }) => {
                (1, true, Some(format!("{rc}: {message}")))
            }
            Progress::Ended(Outcome::Failed { rc: None, message }) => {
                (1, true, Some(message.clone()))
            }
            Progress::Ended(Outcome::TimedOut) => {
                (2, true, Some("The device did not answer in time".to_owned()))
            }
            Progress::Ended(Outcome::Cancelled) => {
                (3, true, Some("The request was cancelled".to_owned()))
            }
        };
        ShownDevice {
            type_id: device.kind.to_string(),
            device_id: device.id.to_string(),
            status,
            complete,
            message,
            last_update_date_time: rfc3339(self.at),
        }
    }
}

impl Record {
    /// The request as the management API shows it.
    #[must_use]
    pub fn shown(&self, id: RequestId) -> Shown<'_> {
        Shown {
            id: id.to_string(),
            action: self.action.to_string(),
            parameters: &self.parameters,
            device_count: self.devices,
            initiated: rfc3339(self.initiated),
            complete: self.completed.is_some(),
            completed: self.completed.map(rfc3339),
        }
    }
}

/// When a request was over, by its devices; [`None`] as long as it is not.
#[must_use]
pub fn completed<'a>(devices: impl IntoIterator<Item = &'a DeviceRecord>) -> Option<UnixMillis> {
    devices
        .into_iter()
        .try_fold(UnixMillis(0), |last, device| device.has_ended().then(|| last.max(device.at)))
}
