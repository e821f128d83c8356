//! What is remembered of a device beside what its integrators say of it: in its settings, where each list has it at once.
//!
//! Invariant: integrators neither see these keys among what they said, nor write them there. Checked below.

use moorline_dialects::thingsboard::ota::PackageKind;
use moorline_service::registry::settings::DeviceSettings;
use serde_json::{Map, Value};
use uuid::Uuid;

/// What the keys begin with.
const OURS: &str = "thingsboard:";
/// Which integrator has claimed it.
const OWNER: &str = "thingsboard:claimedBy";

/// The type of a device that says none.
pub(crate) const DEFAULT_KIND: &str = "default";

/// A device's type: the name of its profile.
pub(crate) fn kind(settings: &DeviceSettings) -> &str {
    settings.kind.as_deref().unwrap_or(DEFAULT_KIND)
}

fn key(kind: PackageKind) -> String {
    format!("{OURS}{}", kind.assigned_by())
}

/// The package that it should have itself, whatever its profile says.
pub(crate) fn package(settings: &DeviceSettings, kind: PackageKind) -> Option<Uuid> {
    settings.metadata.get(&key(kind))?.as_str()?.parse().ok()
}

/// Says which package it should have.
pub(crate) fn set_package(settings: &mut DeviceSettings, kind: PackageKind, id: Option<Uuid>) {
    set(settings, &key(kind), id.map(|id| id.to_string()));
}

/// The integrator that has claimed it.
pub(crate) fn owner(settings: &DeviceSettings) -> Option<&str> {
    settings.metadata.get(OWNER)?.as_str()
}

/// Says whose it is.
pub(crate) fn set_owner(settings: &mut DeviceSettings, owner: Option<&str>) {
    set(settings, OWNER, owner.map(str::to_owned));
}

fn set(settings: &mut DeviceSettings, key: &str, value: Option<String>) {
    match value {
        Some(value) => drop(settings.metadata.insert(key.to_owned(), Value::String(value))),
        None => drop(settings.metadata.remove(key)),
    }
}

/// What integrators have said of it.
pub(crate) fn said(settings: &DeviceSettings) -> Map<String, Value> {
    let all = settings.metadata.iter().filter(|(key, _)| !key.starts_with(OURS));
    all.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Puts what integrators say in the place of what they said.
pub(crate) fn say(settings: &mut DeviceSettings, said: Map<String, Value>) {
    settings.metadata.retain(|key, _| key.starts_with(OURS));
    settings.metadata.extend(said.into_iter().filter(|(key, _)| !key.starts_with(OURS)));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn integrators_neither_see_nor_write_them() {
        let (mut settings, id) = (DeviceSettings::default(), Uuid::from_u128(7));
        set_package(&mut settings, PackageKind::Firmware, Some(id));
        set_owner(&mut settings, Some("ci"));
        let words = json!({ "description": "d", "thingsboard:claimedBy": "eve" });
        say(&mut settings, words.as_object().unwrap().clone());
        assert_eq!(Value::Object(said(&settings)), json!({ "description": "d" }));
        assert_eq!(package(&settings, PackageKind::Firmware), Some(id));
        assert_eq!(package(&settings, PackageKind::Software), None);
        assert_eq!(owner(&settings), Some("ci"));
        set_owner(&mut settings, None);
        set_package(&mut settings, PackageKind::Firmware, None);
        assert_eq!((owner(&settings), settings.metadata.len()), (None, 1));
    }
}
