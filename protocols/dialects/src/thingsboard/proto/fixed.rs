//! The fixed messages to and from what the rest of the dialect knows.
//!
//! Invariant: what JSON refuses is refused here, too: names, keys, and their number. Checked by
//! `tests/it/thingsboard/proto.rs`.

use bytes::Bytes;
use prost::Message;

use super::messages as m;
use crate::thingsboard::{
    attributes::{Changed, Found, KEYS_MAX, Wanted},
    calls::{DeviceCall, ServerCall},
    claim::Claim,
    credentials::{Basic, Credentials},
    gateway::{self, AttributesRequest, DeviceTelemetry},
    invalid::Invalid,
    json::Json,
    provision,
    topics::GatewayPublish,
    values::{Entries, Sample, Value, is_key},
};

/// Reads a message of this kind.
fn decode<M: Message + Default>(bytes: &[u8], name: &'static str) -> Result<M, Invalid> {
    M::decode(bytes).map_err(|_| Invalid::Protobuf(name))
}

fn value(kv: &m::KeyValue) -> Result<Value, Invalid> {
    Ok(match kv.value_type() {
        m::KeyValueType::Boolean => Value::Bool(kv.bool_v),
        m::KeyValueType::Long => Value::Long(kv.long_v),
        m::KeyValueType::Double if kv.double_v.is_finite() => Value::Double(kv.double_v),
        m::KeyValueType::Double => return Err(Invalid::Shape("a double that is no number")),
        m::KeyValueType::String => Value::Text(kv.string_v.clone()),
        m::KeyValueType::Json => Value::Json(Json::read(kv.json_v.as_bytes())?),
    })
}

fn entries(kvs: &[m::KeyValue]) -> Result<Entries, Invalid> {
    let entry = |kv: &m::KeyValue| match is_key(&kv.key) {
        true => Ok((kv.key.clone(), value(kv)?)),
        false => Err(Invalid::Key),
    };
    kvs.iter().map(entry).collect()
}

fn key_value(key: &str, value: &Value) -> m::KeyValue {
    let mut kv = m::KeyValue { key: key.to_owned(), ..m::KeyValue::default() };
    match value {
        Value::Bool(value) => {
            kv.set_value_type(m::KeyValueType::Boolean);
            kv.bool_v = *value;
        }
        Value::Long(value) => {
            kv.set_value_type(m::KeyValueType::Long);
            kv.long_v = *value;
        }
        Value::Double(value) => {
            kv.set_value_type(m::KeyValueType::Double);
            kv.double_v = *value;
        }
        Value::Text(text) => {
            kv.set_value_type(m::KeyValueType::String);
            kv.string_v = text.clone();
        }
        Value::Json(json) => {
            kv.set_value_type(m::KeyValueType::Json);
            kv.json_v = json.to_string();
        }
    }
    kv
}

/// Without times: nobody has asked for them.
fn ts_kvs(entries: &[(String, Value)]) -> Vec<m::TsKv> {
    let entry = |(key, value): &(String, Value)| m::TsKv { ts: 0, kv: Some(key_value(key, value)) };
    entries.iter().map(entry).collect()
}

/// A device's request for attributes.
///
/// # Errors
///
/// What is wrong with it.
pub fn attributes_request(bytes: &[u8]) -> Result<Wanted, Invalid> {
    let request: m::AttributesRequest = decode(bytes, "AttributesRequest")?;
    Wanted::of(Some(&request.client_keys), Some(&request.shared_keys))
}

fn found_message(id: i32, found: &Found, several: bool) -> m::GetAttributeResponse {
    m::GetAttributeResponse {
        request_id: id,
        client_attribute_list: ts_kvs(&found.client),
        shared_attribute_list: ts_kvs(&found.shared),
        is_multiple_attributes_request: several,
        ..m::GetAttributeResponse::default()
    }
}

/// Attributes that a device asked for.
#[must_use]
pub fn found(id: i32, found: &Found) -> Bytes {
    found_message(id, found, true).encode_to_vec().into()
}

fn changed_message(changed: &Changed) -> m::AttributeUpdateNotification {
    let shared_deleted = changed.deleted.clone();
    m::AttributeUpdateNotification { shared_updated: ts_kvs(&changed.updated), shared_deleted }
}

/// A change of shared attributes.
#[must_use]
pub fn changed(changed: &Changed) -> Bytes {
    changed_message(changed).encode_to_vec().into()
}

/// A device's call.
///
/// # Errors
///
/// What is wrong with it.
pub fn device_call(bytes: &[u8]) -> Result<DeviceCall, Invalid> {
    let call: m::RpcRequest = decode(bytes, "RpcRequest")?;
    let params = Json::read(call.params.as_bytes());
    DeviceCall::new(&call.method, params.unwrap_or_else(|_| Json::from(call.params.as_str())))
}

/// The answer to a device's call.
#[must_use]
pub fn device_call_answer(id: i32, answer: &str) -> Bytes {
    let payload = answer.to_owned();
    let answer = m::ToServerRpcResponse { request_id: id, payload, error: String::new() };
    answer.encode_to_vec().into()
}

fn claim_of(claim: &m::ClaimDevice) -> Result<Claim, Invalid> {
    Claim::new(&claim.secret_key, Some(claim.duration_ms))
}

/// A claim.
///
/// # Errors
///
/// What is wrong with it.
pub fn claim(bytes: &[u8]) -> Result<Claim, Invalid> {
    claim_of(&decode(bytes, "ClaimDevice")?)
}

/// What a gateway says.
///
/// # Errors
///
/// What is wrong with it.
pub fn gateway(
    publish: GatewayPublish,
    bytes: &[u8],
    now_ms: i64,
) -> Result<gateway::Request, Invalid> {
    Ok(match publish {
        GatewayPublish::Connect => {
            let connect: m::Connect = decode(bytes, "ConnectMsg")?;
            gateway::Request::Connect {
                device: gateway::name(&connect.device_name)?,
                device_type: gateway::type_of(Some(&connect.device_type))?,
            }
        }
        GatewayPublish::Disconnect => {
            let disconnect: m::Disconnect = decode(bytes, "DisconnectMsg")?;
            gateway::Request::Disconnect { device: gateway::name(&disconnect.device_name)? }
        }
        GatewayPublish::Telemetry => {
            let all: m::GatewayTelemetry = decode(bytes, "GatewayTelemetryMsg")?;
            let one = |one| device_telemetry(one, now_ms);
            gateway::Request::Telemetry(each(&all.msg, one)?)
        }
        GatewayPublish::Attributes => {
            let all: m::GatewayAttributes = decode(bytes, "GatewayAttributesMsg")?;
            gateway::Request::Attributes(each(&all.msg, |one| {
                let kvs = one.msg.as_ref().map(|msg| msg.kv.as_slice());
                Ok((gateway::name(&one.device_name)?, entries(kvs.unwrap_or_default())?))
            })?)
        }
        GatewayPublish::AttributesRequest => {
            gateway::Request::AttributesRequest(gateway_attributes_request(bytes)?)
        }
        GatewayPublish::CallReply => {
            let reply: m::GatewayRpcResponse = decode(bytes, "GatewayRpcResponseMsg")?;
            let device = gateway::name(&reply.device_name)?;
            gateway::Request::CallReply { device, id: reply.id, data: reply.data }
        }
        GatewayPublish::Claim => {
            let all: m::GatewayClaim = decode(bytes, "GatewayClaimMsg")?;
            gateway::Request::Claim(each(&all.msg, |one| {
                let claim = one.claim_request.as_ref().map_or(Ok(Claim::default()), claim_of)?;
                Ok((gateway::name(&one.device_name)?, claim))
            })?)
        }
    })
}

fn each<'a, M, T>(
    messages: &'a [M],
    read: impl Fn(&'a M) -> Result<T, Invalid>,
) -> Result<Vec<T>, Invalid> {
    if messages.is_empty() {
        return Err(Invalid::Shape("the message is about no device"));
    }
    messages.iter().map(read).collect()
}

fn device_telemetry(telemetry: &m::Telemetry, now_ms: i64) -> Result<DeviceTelemetry, Invalid> {
    let device = gateway::name(&telemetry.device_name)?;
    let lists = telemetry.msg.as_ref().map(|msg| msg.ts_kv_list.as_slice()).unwrap_or_default();
    let lists = lists.iter().filter(|list| !list.kv.is_empty());
    let samples = lists.map(|list| {
        let ts_ms = if list.ts == 0 { now_ms } else { list.ts };
        Ok(Sample { ts_ms, values: entries(&list.kv)? })
    });
    let samples = samples.collect::<Result<_, Invalid>>()?;
    Ok(DeviceTelemetry { device, samples, latencies: Vec::new() })
}

/// Protobuf can't tell one key from a list of one; the answer can, by its flag.
fn gateway_attributes_request(bytes: &[u8]) -> Result<AttributesRequest, Invalid> {
    let request: m::GatewayAttributesRequest = decode(bytes, "GatewayAttributesRequestMsg")?;
    if !(1..=KEYS_MAX).contains(&request.keys.len()) {
        return Err(Invalid::Shape("keys are needed, not too many"));
    }
    Ok(AttributesRequest {
        id: request.id,
        device: gateway::name(&request.device_name)?,
        scope: gateway::scope_of(request.client),
        several: request.keys.len() > 1,
        keys: request.keys,
    })
}

/// Attributes that a gateway asked for.
#[must_use]
pub fn gateway_found(request: &AttributesRequest, found: &Found) -> Bytes {
    let message = m::GatewayAttributeResponse {
        device_name: request.device.clone(),
        response_msg: Some(found_message(request.id, found, request.several)),
    };
    message.encode_to_vec().into()
}

/// A change of shared attributes of a gateway's device.
#[must_use]
pub fn gateway_changed(device: &str, changed: &Changed) -> Bytes {
    let notification_msg = Some(changed_message(changed));
    let device_name = device.to_owned();
    let message = m::GatewayAttributeUpdateNotification { device_name, notification_msg };
    message.encode_to_vec().into()
}

/// A call to a gateway's device.
#[must_use]
pub fn gateway_call(device: &str, call: &ServerCall) -> Bytes {
    let call = m::ToDeviceRpcRequest {
        request_id: call.id,
        method_name: call.method.clone(),
        params: call.params.to_string(),
        ..m::ToDeviceRpcRequest::default()
    };
    let device_name = device.to_owned();
    let message = m::GatewayDeviceRpcRequest { device_name, rpc_request_msg: Some(call) };
    message.encode_to_vec().into()
}

/// A request for credentials.
///
/// # Errors
///
/// What is wrong with it.
pub fn provision_request(bytes: &[u8]) -> Result<provision::Request, Invalid> {
    let request: m::ProvisionDeviceRequest = decode(bytes, "ProvisionDeviceRequestMsg")?;
    let profile = request.provision_device_credentials.clone().unwrap_or_default();
    if profile.provision_device_key.is_empty() || profile.provision_device_secret.is_empty() {
        return Err(Invalid::Shape("the profile's key and secret are needed"));
    }
    let data = request.credentials_data.clone().unwrap_or_default();
    let text = |text: String| (!text.is_empty()).then_some(text);
    let credentials = match request.credentials_type.map(m::CredentialsType::try_from) {
        None => None,
        Some(Ok(m::CredentialsType::AccessToken)) => {
            data.token.and_then(|token| text(token.token)).map(Credentials::AccessToken)
        }
        Some(Ok(m::CredentialsType::MqttBasic)) => data.basic.map(|basic| {
            Credentials::MqttBasic(Basic {
                client_id: text(basic.client_id),
                user_name: text(basic.user_name),
                password: text(basic.password),
            })
        }),
        Some(Ok(m::CredentialsType::X509Certificate)) => {
            data.certificate.map(|certificate| Credentials::X509Certificate(certificate.hash))
        }
        Some(Ok(m::CredentialsType::Lwm2m) | Err(_)) => {
            return Err(Invalid::Shape("unknown credentialsType"));
        }
    };
    let request = provision::Request {
        device_name: text(request.device_name),
        key: profile.provision_device_key,
        secret: profile.provision_device_secret,
        credentials,
        gateway: request.gateway,
    };
    request.checked()
}

/// The answer to it.
#[must_use]
pub fn provision_answer(answer: &provision::Answer) -> Bytes {
    let mut message = m::ProvisionDeviceResponse::default();
    match answer {
        provision::Answer::NotFound => message.set_status(m::ResponseStatus::NotFound),
        provision::Answer::Failure => message.set_status(m::ResponseStatus::Failure),
        provision::Answer::Success(credentials) => {
            message.set_status(m::ResponseStatus::Success);
            let (kind, value) = match credentials {
                Credentials::AccessToken(token) => (m::CredentialsType::AccessToken, token.clone()),
                Credentials::MqttBasic(basic) => {
                    (m::CredentialsType::MqttBasic, provision::basic_json(basic).to_string())
                }
                Credentials::X509Certificate(pem) => {
                    (m::CredentialsType::X509Certificate, pem.clone())
                }
                Credentials::Lwm2m { config, .. } => (m::CredentialsType::Lwm2m, config.clone()),
            };
            message.set_credentials_type(kind);
            message.credentials_value = value;
        }
    }
    message.encode_to_vec().into()
}
