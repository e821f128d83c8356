//! Payloads of devices, whatever they came by: JSON or protobuf, as the profile or the address says.
//!
//! ```text
//!   address ──► Form ──┐
//!   profile ──► Payloads ──► Encoding ──► telemetry, attributes, calls, claims, gateways
//! ```
//!
//! MQTT, HTTP and CoAP use this; none of the functions knows which.
//!
//! Invariant: an empty payload is refused, but for a claim and the answer to a call. Checked by
//! `tests/it/thingsboard/payloads.rs`.

use bytes::Bytes;

use super::{
    attributes::{Changed, Found, Wanted},
    calls::{self, DeviceCall, ServerCall},
    claim::Claim,
    gateway,
    invalid::Invalid,
    json::Json,
    proto::{fixed, schema::Schema},
    provision,
    topics::{Form, GatewayPublish},
    values::{self, Entries, Rules, Sample},
};

/// How a profile's devices write payloads.
#[derive(Debug, Clone, PartialEq)]
pub enum Payloads {
    /// As JSON.
    Json,
    /// As protobuf.
    Protobuf(Box<Schemas>),
}

/// A profile's schemas.
#[derive(Debug, Clone, PartialEq)]
pub struct Schemas {
    /// Of telemetry.
    pub telemetry: Schema,
    /// Of client attributes.
    pub attributes: Schema,
    /// Of calls from the server.
    pub call: Schema,
    /// Of answers to them.
    pub call_reply: Schema,
    /// Whether JSON is tried when a payload can't be read.
    pub json_too: bool,
    /// Whether what is sent to topics of `v1` is JSON all the same.
    pub json_down_v1: bool,
}

/// How one payload is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Encoding<'a> {
    /// As JSON.
    Json,
    /// As protobuf, by these schemas; with [`Schemas::json_too`], perhaps as JSON.
    Protobuf(&'a Schemas),
    /// As protobuf, of a profile without schemas: only the fixed messages are known.
    FixedProtobuf,
}

impl Payloads {
    /// How a payload is written that came to an address of this form.
    #[must_use]
    pub fn up(&self, form: Form) -> Encoding<'_> {
        match (form, self) {
            (Form::V2Json, _) | (Form::V1 | Form::V2, Self::Json) => Encoding::Json,
            (Form::V2Protobuf, Self::Json) => Encoding::FixedProtobuf,
            (Form::V1 | Form::V2 | Form::V2Protobuf, Self::Protobuf(schemas)) => {
                Encoding::Protobuf(schemas)
            }
        }
    }

    /// How a payload is written that goes to an address of this form.
    #[must_use]
    pub fn down(&self, form: Form) -> Encoding<'_> {
        match (form, self) {
            (Form::V1, Self::Protobuf(schemas)) if schemas.json_down_v1 => Encoding::Json,
            _ => self.up(form),
        }
    }
}

/// Why there is none of what only a schema could say.
const NO_SCHEMA: Invalid = Invalid::Shape("the profile has no schemas");

fn json(bytes: &[u8]) -> Result<Json, Invalid> {
    if bytes.is_empty() {
        return Err(Invalid::Shape("the payload is empty"));
    }
    Ok(Json::read(bytes)?)
}

impl Encoding<'_> {
    /// Reads protobuf or JSON; protobuf first, and JSON then if the profile says so.
    fn read<T>(
        self,
        protobuf: impl FnOnce() -> Result<T, Invalid>,
        from_json: impl FnOnce() -> Result<T, Invalid>,
    ) -> Result<T, Invalid> {
        match self {
            Self::Json => from_json(),
            Self::FixedProtobuf => protobuf(),
            Self::Protobuf(schemas) => match protobuf() {
                Err(_) if schemas.json_too => from_json(),
                read => read,
            },
        }
    }

    /// What a schema makes of a payload.
    fn dynamic(
        self,
        bytes: &[u8],
        schema: impl FnOnce(&Schemas) -> &Schema,
    ) -> Result<Json, Invalid> {
        match self {
            Self::Json | Self::FixedProtobuf => Err(NO_SCHEMA),
            Self::Protobuf(_) if bytes.is_empty() => Err(Invalid::Shape("the payload is empty")),
            Self::Protobuf(schemas) => schema(schemas).to_json(bytes),
        }
    }

    /// Telemetry.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn telemetry(
        self,
        bytes: &[u8],
        now_ms: i64,
        rules: &Rules,
    ) -> Result<Vec<Sample>, Invalid> {
        let read = |json: &Json| values::telemetry(json, now_ms, rules);
        self.read(
            || read(&self.dynamic(bytes, |schemas| &schemas.telemetry)?),
            || read(&json(bytes)?),
        )
    }

    /// Client attributes.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn attributes(self, bytes: &[u8], rules: &Rules) -> Result<Entries, Invalid> {
        let read = |json: &Json| values::attributes(json, rules);
        self.read(
            || read(&self.dynamic(bytes, |schemas| &schemas.attributes)?),
            || read(&json(bytes)?),
        )
    }

    /// A request for attributes. In protobuf an empty one asks for all.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn attributes_request(self, bytes: &[u8]) -> Result<Wanted, Invalid> {
        self.read(|| fixed::attributes_request(bytes), || Wanted::read(&json(bytes)?))
    }

    /// A device's answer to a call, as text: JSON if all is well.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn call_reply(self, bytes: &[u8]) -> Result<String, Invalid> {
        let dynamic = || Ok(self.dynamic(bytes, |schemas| &schemas.call_reply)?.to_string());
        self.read(dynamic, || calls::reply(bytes))
    }

    /// A device's call.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn device_call(self, bytes: &[u8]) -> Result<DeviceCall, Invalid> {
        self.read(|| fixed::device_call(bytes), || DeviceCall::read(&json(bytes)?))
    }

    /// A claim; empty: without a secret.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn claim(self, bytes: &[u8]) -> Result<Claim, Invalid> {
        if bytes.is_empty() {
            return Ok(Claim::default());
        }
        self.read(|| fixed::claim(bytes), || Claim::read(&json(bytes)?))
    }

    /// What a gateway says.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn gateway(
        self,
        publish: GatewayPublish,
        bytes: &[u8],
        now_ms: i64,
        rules: &Rules,
    ) -> Result<gateway::Request, Invalid> {
        self.read(
            || fixed::gateway(publish, bytes, now_ms),
            || gateway::Request::read(publish, &json(bytes)?, now_ms, rules),
        )
    }

    /// Attributes that a device asked for, as the request `id`.
    #[must_use]
    pub fn write_found(self, id: i32, found: &Found) -> Bytes {
        match self {
            Self::Json => write(&found.to_json()),
            Self::Protobuf(_) | Self::FixedProtobuf => fixed::found(id, found),
        }
    }

    /// A change of shared attributes.
    #[must_use]
    pub fn write_changed(self, changed: &Changed) -> Bytes {
        match self {
            Self::Json => write(&changed.to_json()),
            Self::Protobuf(_) | Self::FixedProtobuf => fixed::changed(changed),
        }
    }

    /// A call from the server.
    ///
    /// # Errors
    ///
    /// It does not fit the profile's schema: it fails, and the device hears nothing.
    pub fn write_call(self, call: &ServerCall) -> Result<Bytes, Invalid> {
        match self {
            Self::Json => Ok(write(&call.to_json())),
            Self::FixedProtobuf => Err(NO_SCHEMA),
            Self::Protobuf(schemas) => {
                let method = Json::from(call.method.as_str());
                let id = Json::from(i64::from(call.id));
                let params = call.params.clone();
                let call = [("method", method), ("requestId", id), ("params", params)];
                Ok(schemas.call.from_json(&Json::object(call))?.into())
            }
        }
    }

    /// The answer to a device's call `id`: any JSON, as text.
    #[must_use]
    pub fn write_call_answer(self, id: i32, answer: &str) -> Bytes {
        match self {
            Self::Json => Bytes::copy_from_slice(answer.as_bytes()),
            Self::Protobuf(_) | Self::FixedProtobuf => fixed::device_call_answer(id, answer),
        }
    }

    /// Attributes that a gateway asked for.
    #[must_use]
    pub fn write_gateway_found(
        self,
        request: &gateway::AttributesRequest,
        entries: &Entries,
    ) -> Bytes {
        if self == Encoding::Json {
            return write(&gateway::attributes_response(request, entries));
        }
        let mut found = Found::default();
        match request.scope {
            super::attributes::Scope::Client => found.client.clone_from(entries),
            super::attributes::Scope::Shared | super::attributes::Scope::Server => {
                found.shared.clone_from(entries);
            }
        }
        fixed::gateway_found(request, &found)
    }

    /// A change of shared attributes of a gateway's device.
    #[must_use]
    pub fn write_gateway_changed(self, device: &str, changed: &Changed) -> Bytes {
        match self {
            Self::Json => write(&gateway::attributes_changed(device, changed)),
            Self::Protobuf(_) | Self::FixedProtobuf => fixed::gateway_changed(device, changed),
        }
    }

    /// A call to a gateway's device.
    #[must_use]
    pub fn write_gateway_call(self, device: &str, call: &ServerCall) -> Bytes {
        match self {
            Self::Json => write(&gateway::call(device, call)),
            Self::Protobuf(_) | Self::FixedProtobuf => fixed::gateway_call(device, call),
        }
    }
}

/// JSON as bytes.
#[must_use]
pub fn write(json: &Json) -> Bytes {
    Bytes::from(json.to_string())
}

/// A request for credentials: JSON, or protobuf if it is no JSON at all. The answer is written the same way.
///
/// # Errors
///
/// What is wrong with it.
pub fn provision_request(bytes: &[u8]) -> Result<(provision::Request, ProvisionEncoding), Invalid> {
    match Json::read(bytes) {
        Ok(json) => Ok((provision::Request::read(&json)?, ProvisionEncoding::Json)),
        Err(not_json) => match fixed::provision_request(bytes) {
            Ok(request) => Ok((request, ProvisionEncoding::Protobuf)),
            Err(_) => Err(not_json.into()),
        },
    }
}

/// How a request for credentials was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProvisionEncoding {
    /// As JSON.
    Json,
    /// As protobuf.
    Protobuf,
}

/// The answer to a request for credentials.
#[must_use]
pub fn provision_answer(encoding: ProvisionEncoding, answer: &provision::Answer) -> Bytes {
    match encoding {
        ProvisionEncoding::Json => write(&answer.to_json()),
        ProvisionEncoding::Protobuf => fixed::provision_answer(answer),
    }
}
