//! Devices out of answers of the REST API: pages and lists of devices, and credentials, whichever comes first.
//!
//! Credentials are those of a device by its id, or stand in it as `credentials`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{
    credentials::{Basic, Credentials, non_empty},
    rest::entities::Device,
};
use crate::export::{Carried, Export, Left, Moved};

/// Why a device profile does not move with its devices.
const PROFILE: &str =
    "a device profile: it moves by the REST API of the platform, as its devices' type";

/// Reads pages (`{"data": […]}`), arrays, devices and credentials.
#[must_use]
pub fn read(values: &[Value]) -> Export {
    let mut reading = Reading::default();
    for (at, value) in values.iter().enumerate() {
        reading.take(value, &format!("value {}", at + 1));
    }
    reading.done()
}

#[derive(Default)]
struct Reading<'a> {
    devices: Vec<(String, Device)>,
    /// By the id of their device.
    credentials: BTreeMap<String, Vec<&'a Value>>,
    left: Vec<Left>,
}

impl<'a> Reading<'a> {
    fn take(&mut self, value: &'a Value, place: &str) {
        let list = value.as_array().or_else(|| value["data"].as_array());
        if let Some(list) = list {
            for (at, value) in list.iter().enumerate() {
                self.take(value, &format!("{place}, item {}", at + 1));
            }
        } else if value["credentialsType"].is_string() {
            let device = value["deviceId"]["id"].as_str().unwrap_or_default().to_owned();
            self.credentials.entry(device).or_default().push(value);
        } else if value["profileData"].is_object() {
            let name = value["name"].as_str().unwrap_or(place);
            self.leave(name, PROFILE);
        } else {
            self.take_device(value, place);
        }
    }

    fn take_device(&mut self, value: &'a Value, place: &str) {
        match Device::deserialize(value) {
            Ok(device) if device.has_name() => {
                let id = device.id.map_or_else(|| place.to_owned(), |id| id.id.to_string());
                if !value["credentials"].is_null() {
                    self.credentials.entry(id.clone()).or_default().push(&value["credentials"]);
                }
                self.devices.push((id, device));
            }
            Ok(_) => self.leave(place, "a device without a name"),
            Err(_) => self.leave(place, "neither a device, nor credentials, nor a page of them"),
        }
    }

    fn leave(&mut self, what: &str, why: impl Into<String>) {
        self.left.push(Left { what: what.to_owned(), why: why.into() });
    }

    fn done(mut self) -> Export {
        let mut devices = Vec::with_capacity(self.devices.len());
        for (id, device) in std::mem::take(&mut self.devices) {
            let mut credentials = Vec::new();
            for json in self.credentials.remove(&id).unwrap_or_default() {
                match carried(json) {
                    Ok(carried) => credentials.push(carried),
                    Err(why) => self.leave(&device.name, why),
                }
            }
            if credentials.is_empty() {
                self.leave(&device.name, "without credentials: it moves, and can't connect");
            }
            devices.push(Moved {
                kind: device.device_type.clone().filter(|kind| !kind.is_empty()),
                gateway: device.is_gateway(),
                labels: device
                    .label
                    .clone()
                    .filter(|label| !label.is_empty())
                    .into_iter()
                    .collect(),
                metadata: device.about(),
                name: device.name,
                credentials,
                disabled: false,
            });
        }
        let nobodys: Vec<_> = self.credentials.keys().cloned().collect();
        for id in nobodys {
            self.leave(&id, "credentials of a device that is not in the export");
        }
        Export { devices, left: self.left }
    }
}

fn carried(json: &Value) -> Result<Carried, String> {
    match Credentials::from_json(json).map_err(|why| why.to_string())? {
        Credentials::AccessToken(token) => Ok(Carried::Token(token)),
        Credentials::MqttBasic(basic) => {
            let Basic { client_id, user_name, password } = &basic;
            let text = |text| non_empty(text).map(str::to_owned);
            Ok(Carried::Login(text(client_id), text(user_name), text(password)))
        }
        Credentials::X509Certificate(pem) => Ok(Carried::Certificate(with_header(pem))),
        Credentials::Lwm2m { .. } => Err("LWM2M_CREDENTIALS are not served yet".to_owned()),
    }
}

/// Some versions answer with the base64 alone.
fn with_header(pem: String) -> String {
    if pem.contains("-----BEGIN") {
        return pem;
    }
    let digits: Vec<u8> = pem.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let lines: Vec<_> = digits.chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
