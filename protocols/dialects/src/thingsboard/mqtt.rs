//! MQTT: what a publish asks, and how its two versions say what became of it.
//!
//! Invariant: a device of MQTT 3 has no other refusal than a closed connection, one of MQTT 5 gets a reason and stays, but
//! for limits, which end the connection in both unless they are of a gateway's single devices. What is only dropped ends neither. Checked by `tests/it/thingsboard/mqtt.rs`.

use super::{
    invalid::Invalid,
    ota::{self, ChunkError},
    payloads::{self, Payloads},
    requests::{PackageRequest, Request},
    topics::{Form, Publish},
    values::Rules,
};

/// The largest packet, by default; a larger one ends the connection with [`PACKET_TOO_LARGE`].
pub const PACKET_BYTES_MAX: u32 = 65_536;
/// Packets that wait until it is known who sent them; one more ends the connection with [`QUOTA_EXCEEDED`].
pub const EARLY_PACKETS_MAX: usize = 100;

/// PUBACK: taken.
pub const SUCCESS: u8 = 0x00;
/// DISCONNECT: the packet can't be read, or is larger than [`PACKET_BYTES_MAX`].
pub const PACKET_TOO_LARGE: u8 = 0x81;
/// DISCONNECT: something behind the broker failed.
pub const IMPLEMENTATION_SPECIFIC_ERROR: u8 = 0x83;
/// DISCONNECT: the device has connected elsewhere.
pub const SESSION_TAKEN_OVER: u8 = 0x8e;
/// SUBACK: no such filter.
pub const TOPIC_FILTER_INVALID: u8 = 0x8f;
/// PUBACK: no such topic. It was dropped.
pub const TOPIC_NAME_INVALID: u8 = 0x90;
/// UNSUBACK: there was no such subscription.
pub const NO_SUBSCRIPTION: u8 = 0x11;
/// PUBACK and DISCONNECT: a limit is reached.
pub const QUOTA_EXCEEDED: u8 = 0x97;
/// DISCONNECT: the device or its credentials are not what they were.
pub const ADMINISTRATIVE_ACTION: u8 = 0x98;
/// PUBACK: the payload can't be read.
pub const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
/// SUBACK of MQTT 3: no such filter.
const SUBSCRIBE_FAILURE_V3: u8 = 0x80;

/// Versions of MQTT, as far as they differ here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 3.1 and 3.1.1.
    V3,
    /// 5.
    V5,
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken, by all devices that it is about.
    Done,
    /// No such topic.
    UnknownTopic,
    /// A topic of gateways, by a device that is none.
    NotGateway,
    /// The payload, or the id in the topic, can't be read.
    Invalid,
    /// What has to be said before it was not: it is dropped, and the device is asked for that.
    TooEarly,
    /// A limit on the device's messages or data points.
    RateLimited,
    /// A limit on a gateway's messages, or on the tenant's devices.
    GatewayLimited,
    /// A limit on some of the devices that a gateway speaks for: what was said of the others was taken.
    ChildLimited,
    /// Something behind the broker failed.
    Failed,
}

/// What to do about a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The reason of the PUBACK (MQTT 3 shows none); `None`: no PUBACK.
    pub puback: Option<u8>,
    /// Whether the connection ends: with this reason, which only MQTT 5 sends.
    pub disconnect: Option<u8>,
}

/// How a publish is acknowledged. `ack_invalid`: the profile's `sendAckOnValidationException`.
#[must_use]
pub fn ack(outcome: Outcome, version: Version, ack_invalid: bool) -> Ack {
    let stays = |reason| Ack { puback: Some(reason), disconnect: None };
    let ends = |reason| Ack { puback: None, disconnect: Some(reason) };
    match (outcome, version) {
        (Outcome::Done | Outcome::NotGateway, _) => stays(SUCCESS),
        // Who is to say it again has to be there to be asked.
        (Outcome::UnknownTopic | Outcome::TooEarly, Version::V3) => stays(SUCCESS),
        (Outcome::TooEarly, Version::V5) => stays(PAYLOAD_FORMAT_INVALID),
        (Outcome::UnknownTopic, Version::V5) => stays(TOPIC_NAME_INVALID),
        (Outcome::Invalid, Version::V3) if !ack_invalid => ends(PAYLOAD_FORMAT_INVALID),
        (Outcome::Invalid, _) => stays(PAYLOAD_FORMAT_INVALID),
        (Outcome::RateLimited, _) => ends(QUOTA_EXCEEDED),
        (Outcome::GatewayLimited, Version::V5) => {
            Ack { puback: Some(QUOTA_EXCEEDED), disconnect: Some(QUOTA_EXCEEDED) }
        }
        (Outcome::ChildLimited, Version::V5) => stays(QUOTA_EXCEEDED),
        // A PUBACK of MQTT 3 would say that it was taken.
        (Outcome::GatewayLimited | Outcome::ChildLimited, Version::V3) => ends(QUOTA_EXCEEDED),
        (Outcome::Failed, _) => ends(IMPLEMENTATION_SPECIFIC_ERROR),
    }
}

/// How an unknown filter is refused.
#[must_use]
pub fn subscribe_refused(version: Version) -> u8 {
    match version {
        Version::V3 => SUBSCRIBE_FAILURE_V3,
        Version::V5 => TOPIC_FILTER_INVALID,
    }
}

/// Why the payload of a known topic asks nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// It can't be read: [`Outcome::Invalid`].
    Invalid(Invalid),
    /// It is no size of a part: said on [`super::topics::CHUNK_ERROR`], and the connection ends.
    Chunk(ChunkError),
}

impl From<Invalid> for Unreadable {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

/// What a publish asks. `earlier_size`: what an earlier one of the same download said, for [`Publish::Chunk`].
///
/// # Errors
///
/// [`Unreadable`].
pub fn request(
    publish: &Publish,
    payloads: &Payloads,
    body: &[u8],
    earlier_size: Option<u64>,
    now_ms: i64,
    rules: &Rules,
) -> Result<Request, Unreadable> {
    let up = |form: &Form| payloads.up(*form);
    Ok(match publish {
        Publish::Telemetry(form) => Request::Telemetry(up(form).telemetry(body, now_ms, rules)?),
        Publish::Attributes(form) => Request::Attributes(up(form).attributes(body, rules)?),
        Publish::AttributesRequest(form, _) => {
            Request::ReadAttributes(up(form).attributes_request(body)?)
        }
        Publish::CallReply(form, id) => {
            Request::CallReply { id: *id, data: up(form).call_reply(body)? }
        }
        Publish::Call(form, _) => Request::Call(up(form).device_call(body)?),
        Publish::Claim => Request::Claim(payloads.up(Form::V1).claim(body)?),
        Publish::Gateway(publish) => {
            Request::Gateway(payloads.up(Form::V1).gateway(*publish, body, now_ms, rules)?)
        }
        Publish::Chunk(topic) => Request::Package(PackageRequest {
            kind: topic.kind,
            title: None,
            version: None,
            size: ota::chunk_size(body, earlier_size).map_err(Unreadable::Chunk)?,
            chunk: u64::from(topic.chunk),
        }),
        Publish::Provision => {
            let (request, encoding) = payloads::provision_request(body)?;
            Request::Provision { request: Box::new(request), encoding }
        }
    })
}
