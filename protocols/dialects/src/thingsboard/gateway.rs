//! Gateways: what one says for its devices, and what is sent to it for them.
//!
//! Any of these messages about a device opens the device's session and subscribes it to attributes and calls, whether it
//! was connected before or not; who takes a [`Request`] does that for each of [`Request::devices`].
//!
//! Invariant: a message about nobody is refused. Checked by `tests/it/thingsboard/gateway.rs`.

use super::{
    attributes::{Changed, KEYS_MAX, Scope},
    calls::ServerCall,
    claim::Claim,
    decimal,
    invalid::Invalid,
    json::Json,
    meters::Cost,
    requests::telemetry_cost,
    topics::GatewayPublish,
    values::{self, Entries, Rules, Sample},
};

/// The profile of a device that comes without one.
pub const DEVICE_TYPE_DEFAULT: &str = "default";
/// The method of the call that tells a gateway that a device which it spoke for was deleted. Its parameters are the device's name, and
/// it is a call to the gateway itself.
pub const DEVICE_DELETED_METHOD: &str = "gateway_device_deleted";
/// The longest name of a device or of a type, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The reason told on [`super::topics::GATEWAY_DISCONNECT`]: the device sends too much.
pub const DISCONNECT_RATE_LIMITED: i64 = 150;

/// What a gateway says.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// A device has come.
    Connect {
        /// Its name.
        device: String,
        /// Its type: the name of a profile.
        device_type: String,
    },
    /// A device has gone.
    Disconnect {
        /// Its name.
        device: String,
    },
    /// Telemetry.
    Telemetry(Vec<DeviceTelemetry>),
    /// Client attributes, by device.
    Attributes(Vec<(String, Entries)>),
    /// A request for attributes.
    AttributesRequest(AttributesRequest),
    /// A device's answer to a call.
    CallReply {
        /// Its name.
        device: String,
        /// The call's id.
        id: i32,
        /// The answer: any JSON as text.
        data: String,
    },
    /// Devices that may be claimed.
    Claim(Vec<(String, Claim)>),
}

/// Telemetry of one device.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceTelemetry {
    /// Its name.
    pub device: String,
    /// What it measured.
    pub samples: Vec<Sample>,
    /// How the samples came here, of those that say it.
    pub latencies: Vec<Latency>,
}

/// When a sample passed where, in milliseconds since the epoch: a gateway that measures itself says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latency {
    /// Which part of the gateway got it.
    pub connector: String,
    /// When it did.
    pub received_ms: i64,
    /// When the gateway sent it.
    pub published_ms: i64,
}

/// A request for a device's attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributesRequest {
    /// Echoed in the answer.
    pub id: i32,
    /// The device's name.
    pub device: String,
    /// Client or shared ones.
    pub scope: Scope,
    /// Which. At least one.
    pub keys: Vec<String>,
    /// Whether it asked for a list. The answer has the same form, however many there are.
    pub several: bool,
}

impl Request {
    /// Reads a message of JSON.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(
        publish: GatewayPublish,
        json: &Json,
        now_ms: i64,
        rules: &Rules,
    ) -> Result<Self, Invalid> {
        Ok(match publish {
            GatewayPublish::Connect => Self::Connect {
                device: device_of(json)?,
                device_type: type_of(json.get("type").and_then(Json::as_str))?,
            },
            GatewayPublish::Disconnect => Self::Disconnect { device: device_of(json)? },
            GatewayPublish::Telemetry => Self::Telemetry(by_device(json, |device, json| {
                device_telemetry(device, json, now_ms, rules)
            })?),
            GatewayPublish::Attributes => Self::Attributes(by_device(json, |device, json| {
                Ok((device, values::attributes(json, rules)?))
            })?),
            GatewayPublish::AttributesRequest => Self::AttributesRequest(attributes_request(json)?),
            GatewayPublish::CallReply => {
                let data = json.get("data").ok_or(Invalid::Shape("an answer has data"))?;
                Self::CallReply {
                    device: device_of(json)?,
                    id: id_of(json)?,
                    data: data.to_string(),
                }
            }
            GatewayPublish::Claim => {
                Self::Claim(by_device(json, |device, json| Ok((device, Claim::read(json)?)))?)
            }
        })
    }

    /// Whom it is about.
    #[must_use]
    pub fn devices(&self) -> Vec<&str> {
        match self {
            Self::Connect { device, .. }
            | Self::Disconnect { device }
            | Self::CallReply { device, .. } => vec![device],
            Self::AttributesRequest(request) => vec![&request.device],
            Self::Telemetry(all) => all.iter().map(|one| one.device.as_str()).collect(),
            Self::Attributes(all) => all.iter().map(|(device, _)| device.as_str()).collect(),
            Self::Claim(all) => all.iter().map(|(device, _)| device.as_str()).collect(),
        }
    }
}

impl Request {
    /// What it counts as, against the limits of each device that it is about and of the gateway. That a device comes or goes is free.
    #[must_use]
    pub fn costs(&self) -> Vec<(&str, Cost)> {
        match self {
            Self::Connect { .. } | Self::Disconnect { .. } => Vec::new(),
            Self::Telemetry(all) => {
                all.iter().map(|one| (&*one.device, telemetry_cost(&one.samples))).collect()
            }
            Self::Attributes(_)
            | Self::AttributesRequest(_)
            | Self::CallReply { .. }
            | Self::Claim(_) => {
                self.devices().into_iter().map(|device| (device, Cost::Message)).collect()
            }
        }
    }

    /// The same without what it says of some devices; `None` if nothing is left.
    #[must_use]
    pub fn without(self, devices: &[String]) -> Option<Self> {
        let stays = |device: &String| !devices.contains(device);
        let left = match self {
            Self::Telemetry(mut all) => {
                all.retain(|one| stays(&one.device));
                Self::Telemetry(all)
            }
            Self::Attributes(mut all) => {
                all.retain(|(device, _)| stays(device));
                Self::Attributes(all)
            }
            Self::Claim(mut all) => {
                all.retain(|(device, _)| stays(device));
                Self::Claim(all)
            }
            about_one @ (Self::Connect { .. }
            | Self::Disconnect { .. }
            | Self::AttributesRequest(_)
            | Self::CallReply { .. }) => about_one,
        };
        left.devices()
            .iter()
            .any(|device| !devices.iter().any(|gone| gone == device))
            .then_some(left)
    }
}

/// A name, if it can be one.
pub(super) fn name(text: &str) -> Result<String, Invalid> {
    let name = text.trim();
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Invalid::Shape("a device has a name of 1 to 255 bytes"));
    }
    Ok(name.to_owned())
}

/// A type, if it can be one; [`DEVICE_TYPE_DEFAULT`] without one.
pub(super) fn type_of(text: Option<&str>) -> Result<String, Invalid> {
    name(text.filter(|text| !text.is_empty()).unwrap_or(DEVICE_TYPE_DEFAULT))
}

fn device_of(json: &Json) -> Result<String, Invalid> {
    let device = json.get("device").and_then(Json::as_str);
    name(device.ok_or(Invalid::Shape("device is needed, a text"))?)
}

fn id_of(json: &Json) -> Result<i32, Invalid> {
    let number = match json.get("id") {
        Some(Json::Number(number)) => decimal::truncated(number.as_str()),
        Some(Json::String(text)) => text.parse().ok(),
        _ => None,
    };
    let id = number.and_then(|number| number.try_into().ok());
    id.ok_or(Invalid::Shape("id is needed, an integer of 32 bits"))
}

fn by_device<T>(
    json: &Json,
    read: impl Fn(String, &Json) -> Result<T, Invalid>,
) -> Result<Vec<T>, Invalid> {
    let devices = json.as_object().ok_or(Invalid::Shape("an object by device is needed"))?;
    if devices.is_empty() {
        return Err(Invalid::Shape("the message is about no device"));
    }
    devices.iter().map(|(device, json)| read(name(device)?, json)).collect()
}

fn device_telemetry(
    device: String,
    json: &Json,
    now_ms: i64,
    rules: &Rules,
) -> Result<DeviceTelemetry, Invalid> {
    let elements = json.as_array().ok_or(Invalid::Shape("telemetry of a device is an array"))?;
    let (mut samples, mut latencies) = (Vec::new(), Vec::new());
    for element in elements {
        if element.as_object().is_none() {
            return Err(Invalid::Shape("telemetry of a device is an array of objects"));
        }
        let Some(latency) = element.get("metadata").and_then(latency) else {
            samples.extend(values::telemetry(element, now_ms, rules)?);
            continue;
        };
        latencies.push(latency);
        let others = element.as_object().unwrap_or_default().iter();
        let others = others.filter(|(key, _)| key != "metadata").cloned().collect();
        samples.extend(values::telemetry(&Json::Object(others), now_ms, rules)?);
    }
    Ok(DeviceTelemetry { device, samples, latencies })
}

/// What a gateway says about a sample's way; anything else under that key is a value like others.
fn latency(json: &Json) -> Option<Latency> {
    let time = |key| match json.get(key) {
        Some(Json::Number(number)) => decimal::truncated(number.as_str()),
        _ => None,
    };
    Some(Latency {
        connector: json.get("connector")?.as_str()?.to_owned(),
        received_ms: time("receivedTs")?,
        published_ms: time("publishedTs")?,
    })
}

fn attributes_request(json: &Json) -> Result<AttributesRequest, Invalid> {
    let (keys, several) = match (json.get("keys"), json.get("key")) {
        (Some(Json::Array(keys)), _) => (keys.as_slice(), true),
        (None | Some(Json::Null), Some(key)) => (std::slice::from_ref(key), false),
        _ => return Err(Invalid::Shape("key is needed, or keys, an array")),
    };
    let keys = keys.iter().map(|key| key.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
    let keys = keys.filter(|keys| (1..=KEYS_MAX).contains(&keys.len()));
    Ok(AttributesRequest {
        id: id_of(json)?,
        device: device_of(json)?,
        scope: scope_of(json.get("client").and_then(Json::as_bool).unwrap_or(false)),
        keys: keys.ok_or(Invalid::Shape("keys are texts, at least one"))?,
        several,
    })
}

/// The scope that `client` chooses.
pub(super) fn scope_of(client: bool) -> Scope {
    if client { Scope::Client } else { Scope::Shared }
}

/// The answer to a request for attributes. One that is not there has no `value`.
#[must_use]
pub fn attributes_response(request: &AttributesRequest, found: &Entries) -> Json {
    let mut entries = vec![
        ("id".to_owned(), Json::from(i64::from(request.id))),
        ("device".to_owned(), Json::from(request.device.as_str())),
    ];
    match (request.several, found.first()) {
        (true, _) => entries.push(("values".to_owned(), values::object(found))),
        (false, Some((_, value))) => entries.push(("value".to_owned(), value.to_json())),
        (false, None) => {}
    }
    Json::Object(entries)
}

/// A change of a device's shared attributes.
#[must_use]
pub fn attributes_changed(device: &str, changed: &Changed) -> Json {
    Json::object([("device", Json::from(device)), ("data", changed.to_json())])
}

/// A call to a device.
#[must_use]
pub fn call(device: &str, call: &ServerCall) -> Json {
    Json::object([("device", Json::from(device)), ("data", call.to_json_with_id())])
}

/// A device was cut off; told in MQTT 5 only.
#[must_use]
pub fn disconnected(device: &str, reason: i64) -> Json {
    Json::object([("device", Json::from(device)), ("reason", Json::from(reason))])
}

/// A call to the gateway itself: one of its devices has another name now.
#[must_use]
pub fn renamed(id: i32, old: &str, new: &str) -> ServerCall {
    let params = Json::Object(vec![(old.to_owned(), Json::from(new))]);
    ServerCall { id, method: "gateway_device_renamed".to_owned(), params }
}

/// A call to the gateway itself: one of its devices is no more.
#[must_use]
pub fn deleted(id: i32, device: &str) -> ServerCall {
    ServerCall { id, method: "gateway_device_deleted".to_owned(), params: Json::from(device) }
}
