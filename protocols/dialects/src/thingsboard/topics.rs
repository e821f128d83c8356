//! MQTT topics: what a publish is about, and where an answer goes.
//!
//! There is no tree of topics that clients share: a publish is a request to the platform, what comes down is said to one
//! session, and nobody hears itself.
//!
//! Invariant: each topic has one meaning per kind of session; a profile's own topics come after the fixed ones, so that
//! those keep working. Checked by `tests/it/thingsboard/topics.rs`.

use moorline_core::topic;

use super::ota::PackageKind;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKind {
    /// Somebody without credentials, who wants some.
    Provisioning,
    /// A device.
    Device,
    /// A device that speaks for others, too.
    Gateway,
}

/// In which of its forms a topic was written. What is sent down goes by the form that asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `v1/devices/me/…`: the payload is as the profile says.
    V1,
    /// `v2/…`: the payload is as the profile says.
    V2,
    /// `v2/…/j`: the payload is JSON.
    V2Json,
    /// `v2/…/p`: the payload is protobuf.
    V2Protobuf,
}

/// What a publish is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publish {
    /// Telemetry.
    Telemetry(Form),
    /// Client attributes.
    Attributes(Form),
    /// A request for attributes.
    AttributesRequest(Form, i32),
    /// The device's answer to a call from the server.
    CallReply(Form, i32),
    /// A call from the device.
    Call(Form, i32),
    /// It may be claimed.
    Claim,
    /// A part of a package is asked for.
    Chunk(ChunkTopic),
    /// A request for credentials.
    Provision,
    /// A gateway about its devices.
    Gateway(GatewayPublish),
}

/// What the topic of a chunk says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkTopic {
    /// Which package.
    pub kind: PackageKind,
    /// The device's name for this download: digits.
    pub request: String,
    /// Which part, from 0.
    pub chunk: u32,
}

/// What a gateway publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayPublish {
    /// A device has come.
    Connect,
    /// A device has gone.
    Disconnect,
    /// Telemetry of its devices.
    Telemetry,
    /// Client attributes of its devices.
    Attributes,
    /// A request for a device's attributes.
    AttributesRequest,
    /// A device's answer to a call.
    CallReply,
    /// Its devices may be claimed.
    Claim,
}

/// Why a publish is about nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpublishable {
    /// No such topic. It is acknowledged and dropped, in MQTT 5 with [`super::mqtt::TOPIC_NAME_INVALID`].
    UnknownTopic,
    /// A topic of gateways, by a device that is none. It is acknowledged and dropped.
    NotGateway,
    /// The id in the topic is no number. Like a payload that can't be read.
    RequestId,
    /// The connection has to end: it may only ask for credentials.
    Close,
}

/// A profile's own topics for telemetry and attributes, as filters. Empty ones match nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnTopics<'a> {
    /// Where telemetry is published.
    pub telemetry: &'a str,
    /// Where client attributes are published.
    pub attributes: &'a str,
    /// The filter to which shared attributes are sent.
    pub attributes_subscribe: &'a str,
}

/// What a publish on this topic is about.
///
/// # Errors
///
/// [`Unpublishable`].
pub fn publish(
    topic: &[u8],
    session: SessionKind,
    own: OwnTopics<'_>,
) -> Result<Publish, Unpublishable> {
    let read = std::str::from_utf8(topic).map_or(Ok(None), fixed);
    match (session, read) {
        (SessionKind::Provisioning, Ok(Some(Publish::Provision))) => Ok(Publish::Provision),
        (SessionKind::Provisioning, _) => Err(Unpublishable::Close),
        (_, Err(error)) => Err(error),
        (_, Ok(Some(Publish::Provision))) => Err(Unpublishable::UnknownTopic),
        (SessionKind::Device, Ok(Some(Publish::Gateway(_)))) => Err(Unpublishable::NotGateway),
        (_, Ok(Some(publish))) => Ok(publish),
        (_, Ok(None)) => own_topic(topic, own),
    }
}

fn own_topic(name: &[u8], own: OwnTopics<'_>) -> Result<Publish, Unpublishable> {
    let matches = |filter: &str| !filter.is_empty() && topic::matches(filter.as_bytes(), name);
    if matches(own.telemetry) {
        return Ok(Publish::Telemetry(Form::V1));
    }
    match matches(own.attributes) {
        true => Ok(Publish::Attributes(Form::V1)),
        false => Err(Unpublishable::UnknownTopic),
    }
}

/// The most levels of a fixed topic, and one more.
const LEVELS_MAX: usize = 7;

fn fixed(topic: &str) -> Result<Option<Publish>, Unpublishable> {
    let levels: Vec<&str> = topic.splitn(LEVELS_MAX, '/').collect();
    Ok(Some(match *levels.as_slice() {
        ["", "provision", "request"] => Publish::Provision,
        ["v1", "devices", "me", ref rest @ ..] => match *rest {
            ["telemetry"] => Publish::Telemetry(Form::V1),
            ["attributes"] => Publish::Attributes(Form::V1),
            ["attributes", "request", id] => Publish::AttributesRequest(Form::V1, request(id)?),
            ["rpc", "response", id] => Publish::CallReply(Form::V1, request(id)?),
            ["rpc", "request", id] => Publish::Call(Form::V1, request(id)?),
            ["claim"] => Publish::Claim,
            _ => return Ok(None),
        },
        ["v1", "gateway", ref rest @ ..] => match gateway(rest) {
            Some(publish) => Publish::Gateway(publish),
            None => return Ok(None),
        },
        ["v2", ref rest @ ..] => return short(rest),
        _ => return Ok(None),
    }))
}

fn gateway(rest: &[&str]) -> Option<GatewayPublish> {
    Some(match *rest {
        ["connect"] => GatewayPublish::Connect,
        ["disconnect"] => GatewayPublish::Disconnect,
        ["telemetry"] => GatewayPublish::Telemetry,
        ["attributes"] => GatewayPublish::Attributes,
        ["attributes", "request"] => GatewayPublish::AttributesRequest,
        ["rpc"] => GatewayPublish::CallReply,
        ["claim"] => GatewayPublish::Claim,
        _ => return None,
    })
}

/// What follows `v2/`.
fn short(rest: &[&str]) -> Result<Option<Publish>, Unpublishable> {
    let with = |publish: fn(Form, i32) -> Publish, form, id| Ok(Some(publish(form, request(id)?)));
    match *rest {
        [kind @ ("fw" | "sw"), "request", id, "chunk", chunk] => {
            let kind = if kind == "fw" { PackageKind::Firmware } else { PackageKind::Software };
            let digits = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
            let chunk = number(chunk).filter(|_| digits).ok_or(Unpublishable::RequestId)?;
            Ok(Some(Publish::Chunk(ChunkTopic { kind, request: id.to_owned(), chunk })))
        }
        ["t"] => Ok(Some(Publish::Telemetry(Form::V2))),
        ["t", "j"] => Ok(Some(Publish::Telemetry(Form::V2Json))),
        ["t", "p"] => Ok(Some(Publish::Telemetry(Form::V2Protobuf))),
        ["a"] => Ok(Some(Publish::Attributes(Form::V2))),
        ["a", "j"] => Ok(Some(Publish::Attributes(Form::V2Json))),
        ["a", "p"] => Ok(Some(Publish::Attributes(Form::V2Protobuf))),
        ["a", "req", id] => with(Publish::AttributesRequest, Form::V2, id),
        ["a", "req", "j", id] => with(Publish::AttributesRequest, Form::V2Json, id),
        ["a", "req", "p", id] => with(Publish::AttributesRequest, Form::V2Protobuf, id),
        ["r", "res", id] => with(Publish::CallReply, Form::V2, id),
        ["r", "res", "j", id] => with(Publish::CallReply, Form::V2Json, id),
        ["r", "res", "p", id] => with(Publish::CallReply, Form::V2Protobuf, id),
        ["r", "req", id] => with(Publish::Call, Form::V2, id),
        ["r", "req", "j", id] => with(Publish::Call, Form::V2Json, id),
        ["r", "req", "p", id] => with(Publish::Call, Form::V2Protobuf, id),
        _ => Ok(None),
    }
}

/// An id of a request: a decimal 32-bit integer.
fn request(id: &str) -> Result<i32, Unpublishable> {
    id.parse().map_err(|_| Unpublishable::RequestId)
}

/// A count: decimal digits and nothing else.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// Where attributes go that were asked for.
#[must_use]
pub fn attributes_response(form: Form, id: i32) -> String {
    match form {
        Form::V1 => format!("v1/devices/me/attributes/response/{id}"),
        Form::V2 => format!("v2/a/res/{id}"),
        Form::V2Json => format!("v2/a/res/j/{id}"),
        Form::V2Protobuf => format!("v2/a/res/p/{id}"),
    }
}

/// Where shared attributes go that have changed.
#[must_use]
pub fn attributes_update(form: Form) -> &'static str {
    match form {
        Form::V1 => "v1/devices/me/attributes",
        Form::V2 => "v2/a",
        Form::V2Json => "v2/a/j",
        Form::V2Protobuf => "v2/a/p",
    }
}

/// Where a call from the server goes.
#[must_use]
pub fn call(form: Form, id: i32) -> String {
    match form {
        Form::V1 => format!("v1/devices/me/rpc/request/{id}"),
        Form::V2 => format!("v2/r/req/{id}"),
        Form::V2Json => format!("v2/r/req/j/{id}"),
        Form::V2Protobuf => format!("v2/r/req/p/{id}"),
    }
}

/// Where the answer to a device's call goes.
#[must_use]
pub fn call_reply(form: Form, id: i32) -> String {
    match form {
        Form::V1 => format!("v1/devices/me/rpc/response/{id}"),
        Form::V2 => format!("v2/r/res/{id}"),
        Form::V2Json => format!("v2/r/res/j/{id}"),
        Form::V2Protobuf => format!("v2/r/res/p/{id}"),
    }
}

/// Where a part of a package goes.
#[must_use]
pub fn chunk_response(topic: &ChunkTopic) -> String {
    let ChunkTopic { kind, request, chunk } = topic;
    format!("v2/{}/response/{request}/chunk/{chunk}", kind.prefix())
}

/// Where it goes that a part can't be had. Software's errors go there, too: SDKs listen for no other.
pub const CHUNK_ERROR: &str = "v2/fw/error";
/// Where the answer to a request for credentials goes.
pub const PROVISION_RESPONSE: &str = "/provision/response";
/// Where a gateway hears of shared attributes of its devices.
pub const GATEWAY_ATTRIBUTES: &str = "v1/gateway/attributes";
/// Where a gateway gets attributes that it asked for.
pub const GATEWAY_ATTRIBUTES_RESPONSE: &str = "v1/gateway/attributes/response";
/// Where a gateway gets calls to its devices.
pub const GATEWAY_RPC: &str = "v1/gateway/rpc";
/// Where a gateway hears, in MQTT 5 only, that a device was cut off.
pub const GATEWAY_DISCONNECT: &str = "v1/gateway/disconnect";
