//! Devices out of answers of the management API: pages and lists of devices, and of device types, which say who is a gateway.
//!
//! The platform shows a token once, when it makes a device; where an export has them, as `authToken`, they are taken. What a gateway may
//! is in no export: each is listed, so that nobody makes one privileged without knowing.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::identity::DeviceName;
use crate::export::{Carried, Export, Left, Moved, text};

/// Reads pages (`{"results": […]}`), arrays, devices and device types.
#[must_use]
pub fn read(values: &[Value]) -> Export {
    let mut reading = Reading::default();
    for (at, value) in values.iter().enumerate() {
        reading.take(value, &format!("value {}", at + 1));
    }
    reading.done()
}

/// What is said of a device: `metadata`, and `deviceInfo` beside it.
fn metadata(device: &Value) -> Map<String, Value> {
    let mut said = device["metadata"].as_object().cloned().unwrap_or_default();
    if let Some(info) = device["deviceInfo"].as_object().filter(|info| !info.is_empty()) {
        said.insert("deviceInfo".to_owned(), Value::from(info.clone()));
    }
    said
}

#[derive(Default)]
struct Reading<'a> {
    devices: Vec<(DeviceName, &'a Value)>,
    /// Types whose devices are gateways.
    gateways: HashSet<&'a str>,
    left: Vec<Left>,
}

impl<'a> Reading<'a> {
    fn take(&mut self, value: &'a Value, place: &str) {
        let list = value.as_array().or_else(|| value["results"].as_array());
        if let Some(list) = list {
            for (at, value) in list.iter().enumerate() {
                self.take(value, &format!("{place}, item {}", at + 1));
            }
        } else if let (Some(id), Some(class)) = (value["id"].as_str(), value["classId"].as_str()) {
            if class == "Gateway" {
                self.gateways.insert(id);
            }
        } else if let (Some(kind), Some(id)) =
            (value["typeId"].as_str(), value["deviceId"].as_str())
        {
            match DeviceName::new(kind.as_bytes(), id.as_bytes()) {
                Some(name) => self.devices.push((name, value)),
                None => {
                    let why = "a type and an id have 1 to 36 letters, digits, and . _ -";
                    self.leave(&format!("{kind}:{id}"), why);
                }
            }
        } else {
            self.leave(
                place,
                "neither a device (typeId, deviceId), nor a type (id, classId), nor a page of them",
            );
        }
    }

    fn leave(&mut self, what: &str, why: &str) {
        self.left.push(Left { what: what.to_owned(), why: why.to_owned() });
    }

    fn done(mut self) -> Export {
        let mut devices = Vec::with_capacity(self.devices.len());
        for (DeviceName { kind, id }, value) in std::mem::take(&mut self.devices) {
            let name = format!("{kind}:{id}");
            let by_client =
                value["clientId"].as_str().is_some_and(|client| client.starts_with("g:"));
            let token = text(&value["authToken"]);
            if token.is_none() {
                self.leave(&name, "without its authToken, which the platform shows once: it moves, and needs a credential");
            }
            let gateway = by_client || self.gateways.contains(kind.as_str());
            if gateway {
                self.leave(&name, "its role and its group, which the platform does not export: it arrives privileged, and speaks for every device");
            }
            devices.push(Moved {
                gateway,
                name,
                kind: Some(kind.to_string()),
                labels: Vec::new(),
                metadata: metadata(value),
                credentials: token.map(Carried::Secret).into_iter().collect(),
                disabled: false,
            });
        }
        Export { devices, left: self.left }
    }
}
