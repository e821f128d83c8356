//! Which devices a token is for: access keys of a tenant.
//!
//! # Invariants
//!
//! - **Closed unless a route opens**: [`Caller::tenant`](crate::auth::Caller::tenant) refuses a token with a scope. Routes that are
//!   about one device ask [`Caller::tenant_of_some`](crate::auth::Caller::tenant_of_some) and then
//!   [`Caller::device`](crate::auth::Caller::device). Checked by the cluster tests (`access_keys.rs`).
//! - **What a scope does not cover is answered as what does not exist.**

use std::collections::BTreeSet;

use moorline_service::registry::{pattern::fits, settings::DeviceSettings};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Problem;

/// Patterns of a scope: each is tried with each request.
const PATTERNS_MAX: usize = 16;
/// Bytes of a pattern or a label.
const BYTES_MAX: usize = 255;

/// Which devices of its tenant a token is for: those whose name fits, if there are patterns, and that have one of the labels,
/// if there are any. All, if it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Scope {
    /// Names of devices, in which `*` stands for anything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) devices: Vec<String>,
    /// Labels of devices.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) labels: BTreeSet<String>,
}

impl Scope {
    /// Whether it says nothing.
    pub(crate) fn is_all(&self) -> bool {
        self.devices.is_empty() && self.labels.is_empty()
    }

    /// Whether it may be asked for.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        let said = self.devices.len().max(self.labels.len());
        let mut texts = self.devices.iter().chain(&self.labels);
        if said > PATTERNS_MAX || texts.any(|text| text.is_empty() || text.len() > BYTES_MAX) {
            let why = "devices, labels: at most 16 of each, of 1 to 255 bytes";
            return Err(Problem::malformed(why));
        }
        Ok(())
    }

    /// Whether a device may have this name.
    pub(crate) fn names(&self, device: &str) -> bool {
        self.devices.is_empty() || self.devices.iter().any(|pattern| fits(pattern, device))
    }

    /// Whether it is for a device.
    pub(crate) fn covers(&self, device: &str, settings: &DeviceSettings) -> bool {
        let labelled = self.labels.is_empty() || !self.labels.is_disjoint(&settings.labels);
        labelled && self.names(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_have_to_fit_both() {
        let scope = |devices: &[&str], labels: &[&str]| Scope {
            devices: devices.iter().map(ToString::to_string).collect(),
            labels: labels.iter().map(ToString::to_string).collect(),
        };
        let north =
            DeviceSettings { labels: ["north".to_owned()].into(), ..DeviceSettings::default() };
        #[rustfmt::skip]
        let table = [
            (scope(&[], &[]), true), (scope(&["pump-*"], &[]), true), (scope(&[], &["north", "south"]), true),
            (scope(&["valve", "pump-*"], &["north"]), true), (scope(&["valve"], &["north"]), false),
            (scope(&["pump-*"], &["south"]), false), (scope(&[], &["south"]), false),
        ];
        for (scope, expected) in table {
            assert_eq!(scope.covers("pump-1", &north), expected, "{scope:?}");
        }
        assert!(scope(&[""], &[]).check().is_err());
        assert!(scope(&["x"; PATTERNS_MAX + 1], &[]).check().is_err());
    }
}
