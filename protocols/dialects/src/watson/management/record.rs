//! The record of a management request: what was asked of which devices, and what became of it (§1.8, REST side).
//!
//! ```text
//!   Pending ──Moved──► Running ──Ended──► Ended(outcome)       per device; never back
//! ```
//!
//! Invariant: what has ended stays so, whatever is heard later. Checked by `records_follow_their_devices`.

use std::collections::BTreeMap;

use moorline_core::{UnixMillis, calendar::rfc3339};
use serde::Serialize;

use super::task::{Action, Outcome, Parameter, RequestId};
use crate::watson::identity::DeviceName;

/// Where a request stands at one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Nothing was sent yet.
    Pending,
    /// The device was told.
    Running,
    /// It is over.
    Ended(Outcome),
}

/// One device of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRecord {
    /// Where it stands.
    pub progress: Progress,
    /// Since when.
    pub at: UnixMillis,
}

/// A request and its devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its id.
    pub id: RequestId,
    /// What was asked.
    pub action: Action,
    /// With what.
    pub parameters: Vec<Parameter>,
    /// When.
    pub initiated: UnixMillis,
    /// Of whom.
    pub devices: BTreeMap<DeviceName, DeviceRecord>,
}

/// A request as the management API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown<'a> {
    id: String,
    action: String,
    parameters: &'a [Parameter],
    device_count: usize,
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

impl Record {
    /// A new record.
    #[must_use]
    pub fn new(
        id: RequestId,
        action: Action,
        parameters: Vec<Parameter>,
        devices: impl IntoIterator<Item = DeviceName>,
        now: UnixMillis,
    ) -> Self {
        let pending = |device| (device, DeviceRecord { progress: Progress::Pending, at: now });
        let devices = devices.into_iter().map(pending).collect();
        Self { id, action, parameters, initiated: now, devices }
    }

    /// What an effect of one device's machine says of it. Unknown devices and what came late change nothing.
    pub fn note(&mut self, device: &DeviceName, progress: Progress, now: UnixMillis) {
        let Some(known) = self.devices.get_mut(device) else { return };
        let ended = matches!(known.progress, Progress::Ended(_));
        if !ended && known.progress != progress {
            *known = DeviceRecord { progress, at: now };
        }
    }

    /// Whether it is over for every device.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.devices.values().all(|device| matches!(device.progress, Progress::Ended(_)))
    }

    /// The request as the management API shows it.
    #[must_use]
    pub fn shown(&self) -> Shown<'_> {
        let complete = self.is_complete();
        let last = self.devices.values().map(|device| device.at).max();
        Shown {
            id: self.id.to_string(),
            action: self.action.to_string(),
            parameters: &self.parameters,
            device_count: self.devices.len(),
            initiated: rfc3339(self.initiated),
            complete,
            completed: last.filter(|_| complete).map(rfc3339),
        }
    }

    /// One device as the management API shows it.
    #[must_use]
    pub fn shown_device(&self, device: &DeviceName) -> Option<ShownDevice> {
        let DeviceRecord { progress, at } = self.devices.get(device)?;
        let (status, complete, message) = match progress {
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
        Some(ShownDevice {
            type_id: device.kind.to_string(),
            device_id: device.id.to_string(),
            status,
            complete,
            message,
            last_update_date_time: rfc3339(*at),
        })
    }
}
