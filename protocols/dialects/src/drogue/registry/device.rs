//! What of a device is kept with it: labels, annotations and `spec`, but no credentials. It stands in the metadata of its settings, so
//! that one row says all of it.
//!
//! # Invariants
//!
//! - **What can't be read says nothing**, least of all that a device may come. Checked by `tests/it/drogue/registry.rs`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

/// Under which key of the metadata.
pub const KEY: &str = "drogue";
/// Sections of a `spec` that hold credentials.
const CREDENTIALS: [&str; 2] = ["authentication", "credentials"];

/// The most gateways of one device: each hears each of its commands.
pub const GATEWAYS_MAX: usize = 64;

/// What is kept of a device can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("what is kept of the device can't be read")]
pub struct Unreadable;

/// What is kept of a device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Kept {
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Its sections.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub spec: Map<String, Value>,
}

impl Kept {
    /// Reads it out of a device's metadata. One that has none is as the platform makes it.
    ///
    /// # Errors
    ///
    /// [`Unreadable`].
    pub fn of(metadata: &Map<String, Value>) -> Result<Self, Unreadable> {
        let kept = metadata.get(KEY).map(Self::deserialize).transpose();
        kept.map(Option::unwrap_or_default).map_err(|_| Unreadable)
    }

    /// Writes it into a device's metadata; what is empty leaves none.
    pub fn put(&self, metadata: &mut Map<String, Value>) {
        if *self == Self::default() {
            metadata.remove(KEY);
            return;
        }
        let kept = serde_json::to_value(self).expect("maps with string keys");
        metadata.insert(KEY.to_owned(), kept);
    }

    /// A `spec` without its credentials.
    #[must_use]
    pub fn without_credentials(mut spec: Map<String, Value>) -> Map<String, Value> {
        for section in CREDENTIALS {
            spec.remove(section);
        }
        spec
    }

    /// Gateways that may act for the device.
    pub fn gateways(&self) -> impl Iterator<Item = &str> {
        let names = self.spec.get("gatewaySelector").and_then(|of| of["matchNames"].as_array());
        names.into_iter().flatten().filter_map(Value::as_str)
    }

    /// Whether a gateway may act for the device.
    #[must_use]
    pub fn allows(&self, gateway: &str) -> bool {
        self.gateways().any(|name| name == gateway)
    }

    /// Other names of the device.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        let aliases = self.spec.get("alias").and_then(Value::as_array);
        aliases.into_iter().flatten().filter_map(Value::as_str)
    }
}

/// Whether `spec.core` says that it is disabled. One that can't be read is.
#[must_use]
pub fn is_disabled(spec: &Map<String, Value>) -> bool {
    match spec.get("core") {
        None => false,
        Some(core) if core.is_object() => match core.get("disabled") {
            None => false,
            Some(disabled) => disabled.as_bool().unwrap_or(true),
        },
        Some(_) => true,
    }
}
