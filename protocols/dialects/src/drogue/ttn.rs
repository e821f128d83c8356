//! Uplinks of The Things Network, as its webhooks say them: each is an event of a device, sent by the one that was let in (§3.6).
//!
//! The channel is the frame's port. What the event says is all of the message, or what `spec.ttn.payload` of the device says: `raw` the
//! frame's bytes, `fields` what was decoded of it. Its schema is that of `data_schema`, or `spec.lorawan.ports.PORT.data_schema`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::{
    event::{JSON, OCTETS},
    http::Ttn,
    outcome::Refusal,
};

/// An uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// The device.
    pub device: String,
    /// The frame's port.
    pub port: String,
    /// Extensions that the event gets.
    pub extensions: Vec<(&'static str, String)>,
    raw: Bytes,
    fields: Value,
    whole: Bytes,
}

/// Reads one.
///
/// # Errors
///
/// It is none, or another message: 400.
pub fn read(version: Ttn, body: &Bytes) -> Result<Uplink, Refusal> {
    let unreadable = |why: &str| Refusal::Format(why.to_owned());
    let said: Value =
        serde_json::from_slice(body).map_err(|_| unreadable("The body is not JSON"))?;
    match version {
        Ttn::V3 => v3(&said, body),
        Ttn::V2 => v2(&said, body).ok_or_else(|| unreadable("The body is no uplink")),
    }
}

fn v3(said: &Value, body: &Bytes) -> Result<Uplink, Refusal> {
    let ids = &said["end_device_ids"];
    let device = ids["device_id"].as_str().filter(|device| !device.is_empty());
    let device = device.ok_or_else(|| Refusal::Format("There is no device_id".to_owned()))?;
    let Some(uplink) = said["uplink_message"].as_object() else {
        let why = "Invalid message type, expected 'Uplink'".to_owned();
        return Err(Refusal::Request(why));
    };
    let unreadable = || Refusal::Format("The uplink can't be read".to_owned());
    // A port of 0 is not written.
    let port = uplink.get("f_port").map_or(Some(0), Value::as_u64).ok_or_else(unreadable)?;
    let raw = base64(uplink.get("frm_payload")).ok_or_else(unreadable)?;
    let port = port.to_string();
    let address = ids["dev_addr"].as_str().unwrap_or_default().to_owned();
    Ok(Uplink {
        device: device.to_owned(),
        extensions: vec![("lorawanport", port.clone()), ("hwaddr", address)],
        port,
        raw,
        fields: uplink.get("decoded_payload").cloned().unwrap_or_default(),
        whole: body.clone(),
    })
}

fn v2(said: &Value, body: &Bytes) -> Option<Uplink> {
    let device = said["dev_id"].as_str().filter(|device| !device.is_empty())?;
    let port = said["port"].as_u64()?.to_string();
    let raw = base64(said.get("payload_raw"))?;
    let again = said["is_retry"].as_bool().unwrap_or_default();
    let address = said["hardware_serial"].as_str().unwrap_or_default().to_owned();
    Some(Uplink {
        device: device.to_owned(),
        extensions: vec![
            ("lorawanport", port.clone()),
            ("lorawanretry", again.to_string()),
            ("hwaddr", address),
        ],
        port,
        raw,
        fields: said["payload_fields"].clone(),
        whole: body.clone(),
    })
}

fn base64(value: Option<&Value>) -> Option<Bytes> {
    match value {
        None | Some(Value::Null) => Some(Bytes::new()),
        Some(value) => Some(STANDARD.decode(value.as_str()?).ok()?.into()),
    }
}

impl Uplink {
    /// What the event says, and its content type, by the device's `spec`.
    #[must_use]
    pub fn payload(&self, spec: &Map<String, Value>) -> (Option<&'static str>, Bytes) {
        match spec.get("ttn").and_then(|ttn| ttn["payload"].as_str()) {
            Some("raw") => (Some(OCTETS), self.raw.clone()),
            Some("fields") => (Some(JSON), Bytes::from(self.fields.to_string())),
            _ => (None, self.whole.clone()),
        }
    }

    /// The schema that the device's `spec` has for its port.
    #[must_use]
    pub fn schema<'a>(&self, spec: &'a Map<String, Value>) -> Option<&'a str> {
        spec.get("lorawan")?["ports"][&self.port]["data_schema"].as_str()
    }
}
