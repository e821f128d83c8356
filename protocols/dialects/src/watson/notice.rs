//! What a gateway is told of what it may not do: JSON on its `notify` topic, QoS 0 (§1.5).

use moorline_core::{Text, UnixMillis, calendar::rfc3339};
use serde::Serialize;

use super::{
    close::Close,
    identity::{ClientId, DeviceName},
};

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Request {
    /// A PUBLISH.
    Publish,
    /// A SUBSCRIBE.
    Subscribe,
}

/// A refusal. The order of its fields is the order on the wire; what is empty is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Notice<'a> {
    request: Request,
    time: String,
    topic: &'a str,
    #[serde(rename = "Type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    client: String,
    #[serde(rename = "RC")]
    rc: u16,
    message: &'a str,
}

/// The canonical topic of a gateway's notices.
#[must_use]
pub fn topic(gateway: &DeviceName) -> Text {
    Text::from(format!("iot-2/{gateway}/notify"))
}

/// The payload of a notice. `device`: whom the refused topic names, if it can be read.
#[must_use]
pub fn payload(
    client: &ClientId,
    request: Request,
    refused: &str,
    device: Option<&DeviceName>,
    why: Close,
    now: UnixMillis,
) -> String {
    let kind = device.map(|device| device.kind.as_str());
    let id = device.map(|device| device.id.as_str());
    let notice = Notice {
        request,
        time: rfc3339(now),
        topic: refused,
        kind,
        id,
        client: client.to_string(),
        rc: why.number(),
        message: why.text(),
    };
    serde_json::to_string(&notice).expect("texts and numbers have a form in JSON")
}

/// Whom a refused topic or filter names: what stands in `type/{t}/id/{d}`, if those are names.
#[must_use]
pub fn named(refused: &str) -> Option<DeviceName> {
    let (_, rest) = refused.split_once("/type/")?;
    let mut levels = rest.split('/');
    match (levels.next()?, levels.next()?, levels.next()?) {
        (kind, "id", id) => DeviceName::new(kind.as_bytes(), id.as_bytes()),
        _ => None,
    }
}
