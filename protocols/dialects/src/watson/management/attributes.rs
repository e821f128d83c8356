//! Attributes of a managed device: what it is, where it is, what went wrong, and its firmware (§1.8, §1.9).
//!
//! # Invariants
//!
//! - **A place is on the globe**: latitude within 90, longitude within 180 degrees. Checked by `places_are_on_the_globe`.
//! - **Moments have one form** once they are taken: [`crate::moments`]'s.
//! - **The firmware has its seven fields, always**: a client throws if one is missing. Checked by
//!   `a_download_goes_its_way`.

use moorline_core::{UnixMillis, calendar::rfc3339};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::moments::parse;

/// What a device is. Any of it may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceInfo {
    /// Its serial number.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// Who made it.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// Which model.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Which class.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub device_class: Option<String>,
    /// In words.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The version of its firmware.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub fw_version: Option<String>,
    /// The version of its hardware.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub hw_version: Option<String>,
    /// Where it is, in words.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub descriptive_location: Option<String>,
}

/// A text, or what SDKs send in its place: the Python one gives versions as numbers.
fn text<'de, D: Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(input)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) => Ok(Some(number.to_string())),
        Value::Bool(value) => Ok(Some(value.to_string())),
        Value::Array(_) | Value::Object(_) => Err(serde::de::Error::custom("not a text")),
    }
}

impl DeviceInfo {
    /// Takes over what is given, and keeps the rest.
    pub fn merge(&mut self, newer: Self) {
        let pairs = [
            (&mut self.serial_number, newer.serial_number),
            (&mut self.manufacturer, newer.manufacturer),
            (&mut self.model, newer.model),
            (&mut self.device_class, newer.device_class),
            (&mut self.description, newer.description),
            (&mut self.fw_version, newer.fw_version),
            (&mut self.hw_version, newer.hw_version),
            (&mut self.descriptive_location, newer.descriptive_location),
        ];
        for (kept, newer) in pairs {
            if newer.is_some() {
                *kept = newer;
            }
        }
    }
}

/// Where a device is. The newest replaces the one before, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Location {
    /// Degrees east.
    pub longitude: f64,
    /// Degrees north.
    pub latitude: f64,
    /// Metres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elevation: Option<f64>,
    /// When it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_date_time: Option<String>,
    /// When it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_date_time: Option<String>,
    /// Metres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
}

impl Location {
    /// The location with both moments; `None` if it is nowhere, or a moment is none.
    #[must_use]
    pub fn taken(self, now: UnixMillis) -> Option<Self> {
        let on_the_globe = self.latitude.abs() <= 90.0 && self.longitude.abs() <= 180.0;
        let updated = moment(self.updated_date_time.as_deref(), now)?;
        let measured = moment(self.measured_date_time.as_deref(), now)?;
        on_the_globe.then_some(Self {
            updated_date_time: Some(updated),
            measured_date_time: Some(measured),
            ..self
        })
    }
}

/// A moment in its one form; `now` without one; `None` if it is none.
pub(in crate::watson) fn moment(text: Option<&str>, now: UnixMillis) -> Option<String> {
    text.map_or(Some(now), parse).map(rfc3339)
}

/// An error code that a device reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorCode {
    /// The code.
    pub error_code: i64,
    /// When.
    pub timestamp: String,
}

/// How grave an entry of a device's log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum Severity {
    /// To know.
    Information = 0,
    /// To look after.
    Warning = 1,
    /// To mend.
    Error = 2,
}

/// An entry of a device's log, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its id, of its own within the device.
    pub id: String,
    /// What happened.
    pub message: String,
    /// How grave.
    pub severity: Severity,
    /// More, in base64 by the documentation; SDKs send any text.
    pub data: String,
    /// When.
    pub timestamp: String,
    /// When it came here; nobody knows it of what an earlier version kept. It is kept, and not shown.
    #[serde(skip)]
    pub came: Option<UnixMillis>,
}

impl LogEntry {
    /// What it counts for [`super::device::LOG_BYTES_MAX`]: as much as it takes where it is kept, in bytes.
    ///
    /// # Panics
    ///
    /// Never: texts and numbers have a form in JSON.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let written = serde_json::to_vec(self).expect("texts and numbers have a form in JSON");
        written.len() + CAME_BYTES
    }
}

/// Bytes of the moment that is kept beside an entry, and of a comma.
const CAME_BYTES: usize = r#","came":1767323045678,"#.len();

/// An entry of a device's log, as it is reported.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NewLogEntry {
    /// What happened.
    pub message: String,
    /// How grave.
    pub severity: Severity,
    /// More.
    #[serde(default)]
    pub data: Option<String>,
    /// When.
    #[serde(default)]
    pub timestamp: Option<String>,
}

/// An error code, as it is reported.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewErrorCode {
    /// The code.
    pub error_code: i64,
    /// When.
    #[serde(default)]
    pub timestamp: Option<String>,
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum FirmwareState {
    /// There is none.
    #[default]
    Idle = 0,
    /// It runs.
    Downloading = 1,
    /// It is over, and the image is there.
    Downloaded = 2,
}

/// What became of the last download or update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum UpdateStatus {
    /// It went well, or there was none.
    #[default]
    Success = 0,
    /// It runs.
    InProgress = 1,
    /// There was no room.
    OutOfMemory = 2,
    /// The line broke.
    ConnectionLost = 3,
    /// The image is not what it should be.
    VerificationFailed = 4,
    /// The image is for something else.
    UnsupportedImage = 5,
    /// There is nothing at the URI.
    InvalidUri = 6,
}

impl UpdateStatus {
    /// Whether it went wrong, and how, in words.
    #[must_use]
    pub fn failure(self) -> Option<&'static str> {
        match self {
            Self::Success | Self::InProgress => None,
            Self::OutOfMemory => Some("The device is out of memory"),
            Self::ConnectionLost => Some("The connection was lost during the download"),
            Self::VerificationFailed => Some("The image did not pass its verification"),
            Self::UnsupportedImage => Some("The image is not supported"),
            Self::InvalidUri => Some("The URI is not valid"),
        }
    }
}

/// The number stands for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} stands for nothing here")]
pub struct Meaningless(u8);

impl TryFrom<u8> for Severity {
    type Error = Meaningless;

    fn try_from(number: u8) -> Result<Self, Meaningless> {
        let all = [Self::Information, Self::Warning, Self::Error];
        all.into_iter().find(|it| *it as u8 == number).ok_or(Meaningless(number))
    }
}

impl TryFrom<u8> for FirmwareState {
    type Error = Meaningless;

    fn try_from(number: u8) -> Result<Self, Meaningless> {
        let all = [Self::Idle, Self::Downloading, Self::Downloaded];
        all.into_iter().find(|it| *it as u8 == number).ok_or(Meaningless(number))
    }
}

impl TryFrom<u8> for UpdateStatus {
    type Error = Meaningless;

    fn try_from(number: u8) -> Result<Self, Meaningless> {
        let all = [
            Self::Success,
            Self::InProgress,
            Self::OutOfMemory,
            Self::ConnectionLost,
            Self::VerificationFailed,
            Self::UnsupportedImage,
            Self::InvalidUri,
        ];
        all.into_iter().find(|it| *it as u8 == number).ok_or(Meaningless(number))
    }
}

impl From<Severity> for u8 {
    fn from(severity: Severity) -> Self {
        severity as Self
    }
}

impl From<FirmwareState> for u8 {
    fn from(state: FirmwareState) -> Self {
        state as Self
    }
}

impl From<UpdateStatus> for u8 {
    fn from(status: UpdateStatus) -> Self {
        status as Self
    }
}

/// `mgmt.firmware`: what is, or will be, installed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Firmware {
    /// Its version.
    pub version: String,
    /// Its name.
    pub name: String,
    /// Where the image is.
    pub uri: String,
    /// What it is verified with.
    pub verifier: String,
    /// How far a download is.
    pub state: FirmwareState,
    /// What became of the last download or update.
    pub update_status: UpdateStatus,
    /// When it changed.
    pub updated_date_time: String,
}

/// Those parts of `mgmt.firmware` that changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FirmwareChange {
    /// Its version.
    #[serde(default, deserialize_with = "text")]
    pub version: Option<String>,
    /// Its name.
    #[serde(default, deserialize_with = "text")]
    pub name: Option<String>,
    /// Where the image is.
    #[serde(default, deserialize_with = "text")]
    pub uri: Option<String>,
    /// What it is verified with.
    #[serde(default, deserialize_with = "text")]
    pub verifier: Option<String>,
    /// How far a download is.
    #[serde(default)]
    pub state: Option<FirmwareState>,
    /// What became of the last download or update.
    #[serde(default)]
    pub update_status: Option<UpdateStatus>,
}

impl Firmware {
    /// Takes over what is given, and keeps the rest.
    pub fn merge(&mut self, newer: FirmwareChange, now: UnixMillis) {
        let pairs = [
            (&mut self.version, newer.version),
            (&mut self.name, newer.name),
            (&mut self.uri, newer.uri),
            (&mut self.verifier, newer.verifier),
        ];
        for (kept, newer) in pairs {
            if let Some(newer) = newer {
                *kept = newer;
            }
        }
        self.state = newer.state.unwrap_or(self.state);
        self.update_status = newer.update_status.unwrap_or(self.update_status);
        self.updated_date_time = rfc3339(now);
    }
}
