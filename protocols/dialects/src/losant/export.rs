//! Devices out of answers of the REST API: pages and lists of devices. Access keys are named: their secrets are nowhere but in firmware.

use serde_json::{Map, Value};

use super::{
    device::{About, Change},
    id::Id,
};
use crate::export::{Export, Left, Moved};

/// What of a device its description here has.
const TAKEN: [&str; 6] = ["name", "description", "deviceClass", "gatewayId", "attributes", "tags"];

/// Reads pages (`{"items": […]}`), arrays, devices and access keys.
#[must_use]
pub fn read(values: &[Value]) -> Export {
    let mut export = Export::default();
    for (at, value) in values.iter().enumerate() {
        take(&mut export, value, &format!("value {}", at + 1));
    }
    export
}

fn take(export: &mut Export, value: &Value, place: &str) {
    let list = value.as_array().or_else(|| value["items"].as_array());
    if let Some(list) = list {
        for (at, value) in list.iter().enumerate() {
            take(export, value, &format!("{place}, item {}", at + 1));
        }
        return;
    }
    let mut leave = |what: &str, why: String| export.left.push(Left { what: what.to_owned(), why });
    if let Some(key) = value["key"].as_str() {
        let why = "an access key: POST it to /keys with the secret that your firmware has";
        return leave(key, why.to_owned());
    }
    let id = value["deviceId"].as_str().or_else(|| value["id"].as_str());
    let Some(id) = id.and_then(|id| Id::parse(id.as_bytes())) else {
        return leave(place, "neither a device, nor an access key, nor a page of them".to_owned());
    };
    match about(value) {
        Ok(about) => export.devices.push(moved(&id, &about)),
        Err(why) => leave(id.as_str(), why),
    }
}

fn about(value: &Value) -> Result<About, String> {
    let known = value.as_object().into_iter().flatten();
    let known = known.filter(|(key, value)| TAKEN.contains(&key.as_str()) && !value.is_null());
    let said: Map<String, Value> = known.map(|(key, value)| (key.clone(), value.clone())).collect();
    let change = Change::read(Value::Object(said).to_string().as_bytes());
    let made = change.and_then(|change| change.made(About::default()));
    made.map_err(|why| why.to_string())
}

fn moved(id: &Id, about: &About) -> Moved {
    let mut metadata = Map::new();
    about.write(&mut metadata);
    Moved {
        name: id.to_string(),
        kind: None,
        gateway: about.class.speaks_for_others(),
        labels: Vec::new(),
        metadata,
        credentials: Vec::new(),
        disabled: false,
    }
}
