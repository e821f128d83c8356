//! Packages: what is said of one as attributes and telemetry, and its parts.
//!
//! Invariant: a part is asked for by its number and the size of parts, and begins at their product; beyond the end there
//! is nothing, which is no error. Checked by `tests/it/thingsboard/ota.rs`.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::values::{Entries, Value};

/// The most digits of a part's size as text.
const SIZE_DIGITS_MAX: usize = 10;

/// Two kinds of packages, each with attributes, addresses and an assignment of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PackageKind {
    /// Firmware: `fw_…`.
    Firmware,
    /// Software: `sw_…`.
    Software,
}

impl PackageKind {
    /// What its attributes and topics begin with.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Firmware => "fw",
            Self::Software => "sw",
        }
    }

    /// Both.
    pub const ALL: [Self; 2] = [Self::Firmware, Self::Software];

    /// The field of a device, or of a profile, that holds the id of the package it should have.
    #[must_use]
    pub fn assigned_by(self) -> &'static str {
        match self {
            Self::Firmware => "firmwareId",
            Self::Software => "softwareId",
        }
    }
}

/// How a package's checksum was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ChecksumAlgorithm {
    #[serde(rename = "MD5")]
    Md5,
    #[serde(rename = "SHA256")]
    Sha256,
    #[serde(rename = "SHA384")]
    Sha384,
    #[serde(rename = "SHA512")]
    Sha512,
    #[serde(rename = "CRC32")]
    Crc32,
    #[serde(rename = "MURMUR3_32")]
    Murmur3x32,
    #[serde(rename = "MURMUR3_128")]
    Murmur3x128,
}

impl ChecksumAlgorithm {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Md5,
        Self::Sha256,
        Self::Sha384,
        Self::Sha512,
        Self::Crc32,
        Self::Murmur3x32,
        Self::Murmur3x128,
    ];

    /// Its name in attributes and queries.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
            Self::Crc32 => "CRC32",
            Self::Murmur3x32 => "MURMUR3_32",
            Self::Murmur3x128 => "MURMUR3_128",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// Where a package's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Here.
    Stored {
        /// How many bytes.
        size: u64,
        /// How the checksum was made.
        algorithm: ChecksumAlgorithm,
        /// The checksum, in hexadecimal digits.
        checksum: String,
    },
    /// Elsewhere.
    Url(String),
}

/// A package as devices are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Which kind.
    pub kind: PackageKind,
    /// Its title.
    pub title: String,
    /// Its version.
    pub version: String,
    /// Title and version, or what its owner has chosen.
    pub tag: String,
    /// Its bytes.
    pub source: Source,
}

/// States of an update, as telemetry `fw_state` or `sw_state` says them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum UpdateState {
    Queued,
    Initiated,
    Downloading,
    Downloaded,
    Verified,
    Updating,
    Updated,
    Failed,
}

impl UpdateState {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Initiated => "INITIATED",
            Self::Downloading => "DOWNLOADING",
            Self::Downloaded => "DOWNLOADED",
            Self::Verified => "VERIFIED",
            Self::Updating => "UPDATING",
            Self::Updated => "UPDATED",
            Self::Failed => "FAILED",
        }
    }
}

impl Package {
    /// The shared attributes of a device that it was assigned to.
    #[must_use]
    pub fn attributes(&self) -> Entries {
        let text = |text: &str| Value::Text(text.to_owned());
        let mut entries = vec![
            ("title", text(&self.title)),
            ("version", text(&self.version)),
            ("tag", text(&self.tag)),
        ];
        match &self.source {
            Source::Stored { size, algorithm, checksum } => entries.extend([
                ("size", Value::Long(i64::try_from(*size).unwrap_or(i64::MAX))),
                ("checksum_algorithm", text(algorithm.name())),
                ("checksum", text(checksum)),
            ]),
            Source::Url(url) => entries.push(("url", text(url))),
        }
        let prefix = self.kind.prefix();
        entries.into_iter().map(|(key, value)| (format!("{prefix}_{key}"), value)).collect()
    }

    /// The attributes that go when this package comes: those of the other kind of source.
    #[must_use]
    pub fn stale_attributes(&self) -> Vec<String> {
        let keys: &[&str] = match self.source {
            Source::Stored { .. } => &["url"],
            Source::Url(_) => &["size", "checksum_algorithm", "checksum"],
        };
        keys.iter().map(|key| format!("{}_{key}", self.kind.prefix())).collect()
    }

    /// Its attributes with what is to be deleted beside them, if these are not what a device has.
    #[must_use]
    pub fn missing(&self, held: &Entries) -> Option<(Entries, Vec<String>)> {
        let wanted = self.attributes();
        let has = |wanted: &(String, Value)| held.iter().any(|held| held == wanted);
        let stale = self.stale_attributes();
        let stale: Vec<_> =
            stale.into_iter().filter(|key| held.iter().any(|(held, _)| held == key)).collect();
        (!wanted.iter().all(has) || !stale.is_empty()).then_some((wanted, stale))
    }

    /// Telemetry of the assignment: what it should become, and that it waits.
    #[must_use]
    pub fn target_telemetry(&self, now_ms: i64) -> Entries {
        let prefix = self.kind.prefix();
        let text = |text: &str| Value::Text(text.to_owned());
        vec![
            (format!("target_{prefix}_title"), text(&self.title)),
            (format!("target_{prefix}_version"), text(&self.version)),
            (format!("target_{prefix}_tag"), text(&self.tag)),
            (format!("target_{prefix}_ts"), Value::Long(now_ms)),
            (format!("{prefix}_state"), text(UpdateState::Queued.name())),
        ]
    }
}

/// Telemetry of an assignment that the device's attributes say now.
#[must_use]
pub fn initiated(kind: PackageKind) -> Entries {
    let state = UpdateState::Initiated.name().to_owned();
    vec![(format!("{}_state", kind.prefix()), Value::Text(state))]
}

/// All attributes of a kind: what goes when a package is taken away.
#[must_use]
pub fn attribute_keys(kind: PackageKind) -> Vec<String> {
    let keys = ["title", "version", "tag", "size", "checksum_algorithm", "checksum", "url"];
    keys.map(|key| format!("{}_{key}", kind.prefix())).into()
}

/// Why a part can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChunkError {
    /// Nothing is assigned, or its bytes are elsewhere.
    #[error("NOT_FOUND")]
    NotFound,
    /// The part is larger than a packet may be.
    #[error("PAYLOAD_TOO_LARGE")]
    TooLarge,
    /// The size is no number.
    #[error("BAD_REQUEST")]
    Malformed,
}

/// The size of parts that a request of MQTT asks for: what its payload says, else what an earlier one of its name said,
/// else all in one (0).
///
/// # Errors
///
/// [`ChunkError::Malformed`].
pub fn chunk_size(payload: &[u8], earlier: Option<u64>) -> Result<u64, ChunkError> {
    if payload.is_empty() {
        return Ok(earlier.unwrap_or(0));
    }
    let text = std::str::from_utf8(payload).unwrap_or_default();
    let digits = text.len() <= SIZE_DIGITS_MAX && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits {
        text.parse().map_err(|_| ChunkError::Malformed)
    } else {
        Err(ChunkError::Malformed)
    }
}

/// Which bytes of a package are its part `chunk`. `size` 0: all of it is part 0. Beyond the end there are none.
///
/// # Errors
///
/// [`ChunkError::TooLarge`], if these are more than `bytes_max`.
pub fn chunk(total: u64, size: u64, chunk: u64, bytes_max: u64) -> Result<Range<u64>, ChunkError> {
    let size = if size == 0 { total } else { size };
    let start = size.saturating_mul(chunk).min(total);
    let end = start.saturating_add(size).min(total);
    if end - start > bytes_max { Err(ChunkError::TooLarge) } else { Ok(start..end) }
}

/// Whether a request over HTTP or CoAP names the package that is assigned. Names that are left out are not compared.
#[must_use]
pub fn is_assigned(package: &Package, title: Option<&str>, version: Option<&str>) -> bool {
    title.is_none_or(|title| title == package.title)
        && version.is_none_or(|version| version == package.version)
}

/// What of telemetry says how an update goes: `fw_state`, if there is one.
#[must_use]
pub fn reported_state(kind: PackageKind, values: &[(String, Value)]) -> Option<&str> {
    let key = format!("{}_state", kind.prefix());
    values.iter().rev().find(|(name, _)| *name == key).and_then(|(_, value)| match value {
        Value::Text(text) => Some(text.as_str()),
        Value::Bool(_) | Value::Long(_) | Value::Double(_) | Value::Json(_) => None,
    })
}
