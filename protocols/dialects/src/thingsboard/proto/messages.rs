//! The fixed messages, by their field numbers. Fields are added, never renumbered: devices in the field have them.
//!
//! Names end without the vendor's `Msg` and `Proto`. Numbers marked **ours** are not in what we know of the vendor's.

use prost::{Enumeration, Message};

/// Which value of a [`KeyValue`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
#[allow(missing_docs, reason = "the names say it")]
pub enum KeyValueType {
    Boolean = 0,
    Long = 1,
    Double = 2,
    String = 3,
    Json = 4,
}

/// Types of credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
#[allow(missing_docs, reason = "the names say it")]
pub enum CredentialsType {
    AccessToken = 0,
    X509Certificate = 1,
    MqttBasic = 2,
    Lwm2m = 3,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ResponseStatus {
    Unknown = 0,
    Success = 1,
    NotFound = 2,
    Failure = 3,
}

/// Which attributes a device asks for.
#[derive(Clone, PartialEq, Message)]
pub struct AttributesRequest {
    /// Keys of client attributes, with commas.
    #[prost(string, tag = "1")]
    pub client_keys: String,
    /// Keys of shared ones.
    #[prost(string, tag = "2")]
    pub shared_keys: String,
}

/// A device may be claimed.
#[derive(Clone, PartialEq, Message)]
pub struct ClaimDevice {
    /// What its customer has to know.
    #[prost(string, tag = "1")]
    pub secret_key: String,
    /// For how long.
    #[prost(int64, tag = "2")]
    pub duration_ms: i64,
}

/// A gateway's device has come.
#[derive(Clone, PartialEq, Message)]
pub struct Connect {
    /// Its name.
    #[prost(string, tag = "1")]
    pub device_name: String,
    /// Its profile.
    #[prost(string, tag = "2")]
    pub device_type: String,
}

/// A gateway's device has gone.
#[derive(Clone, PartialEq, Message)]
pub struct Disconnect {
    /// Its name.
    #[prost(string, tag = "1")]
    pub device_name: String,
}

/// A key with its value.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// The key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Which of the values counts.
    #[prost(enumeration = "KeyValueType", tag = "2")]
    pub value_type: i32,
    /// A truth value.
    #[prost(bool, tag = "3")]
    pub bool_v: bool,
    /// An integer.
    #[prost(int64, tag = "4")]
    pub long_v: i64,
    /// A double.
    #[prost(double, tag = "5")]
    pub double_v: f64,
    /// A text.
    #[prost(string, tag = "6")]
    pub string_v: String,
    /// JSON as text.
    #[prost(string, tag = "7")]
    pub json_v: String,
}

/// A key with its value at a time. Its numbers are **ours**.
#[derive(Clone, PartialEq, Message)]
pub struct TsKv {
    /// When.
    #[prost(int64, tag = "1")]
    pub ts: i64,
    /// What.
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

/// Values of one time.
#[derive(Clone, PartialEq, Message)]
pub struct TsKvList {
    /// When; 0: now.
    #[prost(int64, tag = "1")]
    pub ts: i64,
    /// What.
    #[prost(message, repeated, tag = "2")]
    pub kv: Vec<KeyValue>,
}

/// Telemetry.
#[derive(Clone, PartialEq, Message)]
pub struct PostTelemetry {
    /// Values by time.
    #[prost(message, repeated, tag = "1")]
    pub ts_kv_list: Vec<TsKvList>,
}

/// Attributes.
#[derive(Clone, PartialEq, Message)]
pub struct PostAttribute {
    /// Which.
    #[prost(message, repeated, tag = "1")]
    pub kv: Vec<KeyValue>,
    /// Never set by devices.
    #[prost(bool, tag = "2")]
    pub shared: bool,
}

/// Telemetry of a gateway's device.
#[derive(Clone, PartialEq, Message)]
pub struct Telemetry {
    /// Its name.
    #[prost(string, tag = "1")]
    pub device_name: String,
    /// What. Field 2 was another, once.
    #[prost(message, optional, tag = "3")]
    pub msg: Option<PostTelemetry>,
}

/// Telemetry of a gateway's devices.
#[derive(Clone, PartialEq, Message)]
pub struct GatewayTelemetry {
    /// By device.
    #[prost(message, repeated, tag = "1")]
    pub msg: Vec<Telemetry>,
}

/// Attributes of a gateway's device.
#[derive(Clone, PartialEq, Message)]
pub struct Attributes {
    /// Its name.
    #[prost(string, tag = "1")]
    pub device_name: String,
    /// Which.
    #[prost(message, optional, tag = "2")]
    pub msg: Option<PostAttribute>,
}

/// Attributes of a gateway's devices.
#[derive(Clone, PartialEq, Message)]
pub struct GatewayAttributes {
    /// By device.
    #[prost(message, repeated, tag = "1")]
    pub msg: Vec<Attributes>,
}

/// A gateway's device may be claimed. Its numbers are **ours**.
#[derive(Clone, PartialEq, Message)]
pub struct GatewayClaimDevice {
    /// Its name.
    #[prost(string, tag = "1")]
    pub device_name: String,
    /// How.
    #[prost(message, optional, tag = "2")]
    pub claim_request: Option<ClaimDevice>,
}

/// A gateway's devices may be claimed. Its numbers are **ours**.
#[derive(Clone, PartialEq, Message)]
pub struct GatewayClaim {
    /// By device.
    #[prost(message, repeated, tag = "1")]
    pub msg: Vec<GatewayClaimDevice>,
}

/// An answer of a gateway's device.
#[derive(Clone, PartialEq, Message)]
pub struct GatewayRpcResponse {
    /// Its name.
    #[prost(string, tag = "1")]
    pub device_name: String,
    /// The call's id.
    #[prost(int32, tag = "2")]
    pub id: i32,
    /// The answer.
    #[prost(string, tag = "3")]
    pub data: String,
}

/// Which attributes a gateway asks for.
#[derive(Clone, PartialEq, Message)]
pub struct GatewayAttributesRequest {
    /// Echoed.
    #[prost(int32, tag = "1")]
    pub id: i32,
    /// Whose.
    #[prost(string, tag = "2")]
    pub device_name: String,
    /// Client ones, or shared ones.
    #[prost(bool, tag = "3")]
    pub client: bool,
    /// Which.
    #[prost(string, repeated, tag = "4")]
    pub keys: Vec<String>,
}

/// Attributes that were asked for.
#[derive(Clone, PartialEq, Message)]
pub struct GetAttributeResponse {
    /// Which request.
    #[prost(int32, tag = "1")]
    pub request_id: i32,
    /// Client ones.
    #[prost(message, repeated, tag = "2")]
    pub client_attribute_list: Vec<TsKv>,
    /// Shared ones.
    #[prost(message, repeated, tag = "3")]
    pub shared_attribute_list: Vec<TsKv>,
    /// Whether a list was asked for.
    #[prost(bool, tag = "4")]
    pub is_multiple_attributes_request: bool,
    /// Why there are none.
    #[prost(string, tag = "5")]
    pub error: String,
    /// Whether this is all shared ones, unasked.
    #[prost(bool, tag = "6")]
    pub shared_state_msg: bool,
}

/// Attributes that a gateway asked for.
#[derive(Clone, PartialEq, Message)]
pub struct GatewayAttributeResponse {
    /// Whose.
    #[prost(string, tag = "1")]
    pub device_name: String,
    /// Which.
    #[prost(message, optional, tag = "2")]
    pub response_msg: Option<GetAttributeResponse>,
}

/// A change of shared attributes.
#[derive(Clone, PartialEq, Message)]
pub struct AttributeUpdateNotification {
    /// Set.
    #[prost(message, repeated, tag = "1")]
    pub shared_updated: Vec<TsKv>,
    /// Deleted.
    #[prost(string, repeated, tag = "2")]
    pub shared_deleted: Vec<String>,
}

/// A change of shared attributes of a gateway's device. Its numbers are **ours**.
#[derive(Clone, PartialEq, Message)]
pub struct GatewayAttributeUpdateNotification {
    /// Whose.
    #[prost(string, tag = "1")]
    pub device_name: String,
    /// Which.
    #[prost(message, optional, tag = "2")]
    pub notification_msg: Option<AttributeUpdateNotification>,
}

/// A call from the server.
#[derive(Clone, PartialEq, Message)]
pub struct ToDeviceRpcRequest {
    /// Its id.
    #[prost(int32, tag = "1")]
    pub request_id: i32,
    /// What to do.
    #[prost(string, tag = "2")]
    pub method_name: String,
    /// With what: JSON as text.
    #[prost(string, tag = "3")]
    pub params: String,
    /// Until when, in milliseconds since the epoch.
    #[prost(int64, tag = "4")]
    pub expiration_time: i64,
    /// The first half of its UUID.
    #[prost(int64, tag = "5")]
    pub request_id_msb: i64,
    /// The second half.
    #[prost(int64, tag = "6")]
    pub request_id_lsb: i64,
    /// Whether no answer is expected.
    #[prost(bool, tag = "7")]
    pub oneway: bool,
    /// Whether it is kept.
    #[prost(bool, tag = "8")]
    pub persisted: bool,
    /// How often it may be sent again.
    #[prost(int32, optional, tag = "9")]
    pub retries: Option<i32>,
    /// Whatever its sender added.
    #[prost(string, tag = "10")]
    pub additional_info: String,
}

/// A call to a gateway's device.
#[derive(Clone, PartialEq, Message)]
pub struct GatewayDeviceRpcRequest {
    /// Its name.
    #[prost(string, tag = "1")]
    pub device_name: String,
    /// The call.
    #[prost(message, optional, tag = "2")]
    pub rpc_request_msg: Option<ToDeviceRpcRequest>,
}

/// A call from a device. Its numbers are **ours**: the specification has none.
#[derive(Clone, PartialEq, Message)]
pub struct RpcRequest {
    /// What to do.
    #[prost(string, tag = "1")]
    pub method: String,
    /// With what: JSON as text.
    #[prost(string, tag = "2")]
    pub params: String,
}

/// The answer to a call from a device. Its numbers are **ours**.
#[derive(Clone, PartialEq, Message)]
pub struct ToServerRpcResponse {
    /// The call's id.
    #[prost(int32, tag = "1")]
    pub request_id: i32,
    /// The answer: JSON as text.
    #[prost(string, tag = "2")]
    pub payload: String,
    /// Why there is none.
    #[prost(string, tag = "3")]
    pub error: String,
}

/// What a profile is known by.
#[derive(Clone, PartialEq, Message)]
pub struct ProvisionDeviceCredentials {
    /// Its key.
    #[prost(string, tag = "1")]
    pub provision_device_key: String,
    /// Its secret.
    #[prost(string, tag = "2")]
    pub provision_device_secret: String,
}

/// A token. Its numbers are **ours**.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceToken {
    /// The token.
    #[prost(string, tag = "1")]
    pub token: String,
}

/// A certificate. Its numbers are **ours**.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceCertificate {
    /// The certificate as text.
    #[prost(string, tag = "1")]
    pub hash: String,
}

/// Client id, user name, password. Its numbers are **ours**.
#[derive(Clone, PartialEq, Message)]
pub struct BasicMqttCredentials {
    /// The client id.
    #[prost(string, tag = "1")]
    pub client_id: String,
    /// The user name.
    #[prost(string, tag = "2")]
    pub user_name: String,
    /// The password.
    #[prost(string, tag = "3")]
    pub password: String,
}

/// Credentials that a device has chosen. Its numbers are **ours**.
#[derive(Clone, PartialEq, Message)]
pub struct CredentialsData {
    /// A token.
    #[prost(message, optional, tag = "1")]
    pub token: Option<DeviceToken>,
    /// A certificate.
    #[prost(message, optional, tag = "2")]
    pub certificate: Option<DeviceCertificate>,
    /// Any of three.
    #[prost(message, optional, tag = "3")]
    pub basic: Option<BasicMqttCredentials>,
}

/// A request for credentials.
#[derive(Clone, PartialEq, Message)]
pub struct ProvisionDeviceRequest {
    /// The device's name.
    #[prost(string, tag = "1")]
    pub device_name: String,
    /// Which the device has chosen.
    #[prost(enumeration = "CredentialsType", optional, tag = "2")]
    pub credentials_type: Option<i32>,
    /// The profile's.
    #[prost(message, optional, tag = "3")]
    pub provision_device_credentials: Option<ProvisionDeviceCredentials>,
    /// The device's.
    #[prost(message, optional, tag = "4")]
    pub credentials_data: Option<CredentialsData>,
    /// Whether it is to be a gateway.
    #[prost(bool, tag = "5")]
    pub gateway: bool,
}

/// The answer to it.
#[derive(Clone, PartialEq, Message)]
pub struct ProvisionDeviceResponse {
    /// What became of it.
    #[prost(enumeration = "ResponseStatus", tag = "1")]
    pub status: i32,
    /// Which credentials.
    #[prost(enumeration = "CredentialsType", tag = "2")]
    pub credentials_type: i32,
    /// These.
    #[prost(string, tag = "3")]
    pub credentials_value: String,
}
