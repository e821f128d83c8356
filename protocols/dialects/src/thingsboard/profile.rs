//! Device profiles, as far as transports need them, in the JSON of the REST API.
//!
//! Invariant: what is read is written back, fields that nobody here knows among it. Checked by
//! `tests/it/thingsboard/profile.rs`.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;
use uuid::Uuid;

use super::{
    naming::{NamePattern, NotAPattern},
    ota::PackageKind,
    payloads::{Payloads, Schemas},
    proto::schema::{NotASchema, RPC_REQUEST_DEFAULT, RPC_RESPONSE_DEFAULT, Schema},
    provision::Strategy,
    topics::OwnTopics,
};

/// Where a profile's devices publish telemetry if it does not say.
pub const TELEMETRY_TOPIC: &str = "v1/devices/me/telemetry";
/// Where they publish, and are sent, attributes if it does not say.
pub const ATTRIBUTES_TOPIC: &str = "v1/devices/me/attributes";

/// Names of Sparkplug's metrics that are attributes: each metric of a birth certificate is compared with all of them.
pub const METRIC_NAMES_MAX: usize = 1_000;

/// How a profile's devices connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "the names say it")]
pub enum TransportType {
    /// MQTT, HTTP or CoAP, with JSON.
    #[default]
    Default,
    Mqtt,
    Coap,
    Lwm2m,
    Snmp,
}

/// A device profile.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// Its name: the type of its devices.
    #[serde(default)]
    pub name: String,
    /// How its devices connect.
    #[serde(default)]
    pub transport_type: TransportType,
    /// What it does with requests for credentials.
    #[serde(default = "disabled")]
    pub provision_type: Option<Strategy>,
    /// What such requests know it by.
    #[serde(default)]
    pub provision_device_key: Option<String>,
    /// How it is set.
    #[serde(default)]
    pub profile_data: ProfileData,
    /// Everything else.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

#[allow(clippy::unnecessary_wraps, reason = "serde wants the field's type")]
fn disabled() -> Option<Strategy> {
    Some(Strategy::Disabled)
}

/// How a profile is set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileData {
    /// For its transport.
    #[serde(default)]
    pub transport_configuration: Transport,
    /// For requests for credentials.
    #[serde(default)]
    pub provision_configuration: Provisioning,
    /// Everything else.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// How a profile is set for its transport. Fields of MQTT that are not there have their defaults.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transport {
    /// Which transport this is for.
    #[serde(rename = "type", default)]
    pub transport_type: TransportType,
    /// The filter of topics with telemetry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_telemetry_topic: Option<String>,
    /// The filter of topics with client attributes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_attributes_topic: Option<String>,
    /// The filter to which shared attributes are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_attributes_subscribe_topic: Option<String>,
    /// How payloads are written; JSON if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport_payload_type_configuration: Option<PayloadType>,
    /// Whether its devices speak Sparkplug B.
    #[serde(default, skip_serializing_if = "is_false")]
    pub sparkplug: bool,
    /// Of Sparkplug B: names of metrics that are attributes; with `*` at its end, what names begin with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparkplug_attributes_metric_names: Option<Vec<String>>,
    /// Whether MQTT 3 devices get a PUBACK for a payload that can't be read, rather than a closed connection.
    #[serde(default, skip_serializing_if = "is_false")]
    pub send_ack_on_validation_exception: bool,
    /// Everything else.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// How payloads are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "transportPayloadType", rename_all = "UPPERCASE")]
pub enum PayloadType {
    /// As JSON.
    Json {
        /// Everything else.
        #[serde(flatten)]
        others: Map<String, Value>,
    },
    /// As protobuf.
    Protobuf(Protobuf),
}

/// Schemas of protobuf payloads, as text.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protobuf {
    /// Of telemetry.
    #[serde(default)]
    pub device_telemetry_proto_schema: Option<String>,
    /// Of client attributes.
    #[serde(default)]
    pub device_attributes_proto_schema: Option<String>,
    /// Of calls from the server.
    #[serde(default)]
    pub device_rpc_request_proto_schema: Option<String>,
    /// Of answers to them.
    #[serde(default)]
    pub device_rpc_response_proto_schema: Option<String>,
    /// Whether JSON is tried when a payload can't be read.
    #[serde(default)]
    pub enable_compatibility_with_json_payload_format: bool,
    /// Whether what is sent to topics of `v1` is JSON all the same.
    #[serde(default)]
    pub use_json_payload_format_for_default_downlink_topics: bool,
    /// Everything else.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// How a profile is set for requests for credentials. Its `Debug` form hides the secret.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provisioning {
    /// The profile's secret; or, for [`Strategy::CertificateChain`], its authority's certificate.
    #[serde(default)]
    pub provision_device_secret: Option<String>,
    /// How a device's name is found in a common name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_reg_exp_pattern: Option<String>,
    /// Whether devices are made that show a certificate of the authority.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_create_new_devices_by_x509_certificate: bool,
    /// Everything else.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

impl fmt::Debug for Provisioning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Provisioning(<hidden>)")
    }
}

/// What is wrong with a profile.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidProfile {
    /// A schema can't be read.
    #[error("{what}: {why}")]
    Schema {
        /// Which.
        what: &'static str,
        /// Why not.
        why: NotASchema,
    },
    /// A topic can't be a filter.
    #[error("{0} is no filter of MQTT")]
    Topic(&'static str),
    /// The pattern of devices' names can't be read.
    #[error(transparent)]
    Pattern(#[from] NotAPattern),
    /// Telemetry and attributes have one topic.
    #[error("telemetry and attributes need different topics")]
    SameTopic,
    /// More than [`METRIC_NAMES_MAX`] names of metrics.
    #[error("more than {METRIC_NAMES_MAX} names of metrics that are attributes")]
    MetricNames,
}

impl Profile {
    /// The package that its devices should have which say no other, by its id.
    #[must_use]
    pub fn package(&self, kind: PackageKind) -> Option<Uuid> {
        self.others.get(kind.assigned_by())?.get("id")?.as_str()?.parse().ok()
    }

    /// The profile's own topics. Its defaults are the fixed ones, and match before.
    #[must_use]
    pub fn own_topics(&self) -> OwnTopics<'_> {
        let transport = &self.profile_data.transport_configuration;
        OwnTopics {
            telemetry: transport.device_telemetry_topic.as_deref().unwrap_or_default(),
            attributes: transport.device_attributes_topic.as_deref().unwrap_or_default(),
            attributes_subscribe: transport
                .device_attributes_subscribe_topic
                .as_deref()
                .unwrap_or_default(),
        }
    }

    /// If its devices speak Sparkplug B: which of their metrics are attributes.
    #[must_use]
    pub fn sparkplug(&self) -> Option<&[String]> {
        let transport = &self.profile_data.transport_configuration;
        let names = transport.sparkplug_attributes_metric_names.as_deref();
        transport.sparkplug.then(|| names.unwrap_or_default())
    }

    /// Whether its devices may connect with this transport.
    #[must_use]
    pub fn allows(&self, transport: TransportType) -> bool {
        let default = matches!(transport, TransportType::Mqtt | TransportType::Coap);
        self.transport_type == transport
            || self.transport_type == TransportType::Default
                && (default || transport == TransportType::Default)
    }

    /// Reads its schemas. Done once per profile, not per device.
    ///
    /// # Errors
    ///
    /// The first that can't be read.
    pub fn payloads(&self) -> Result<Payloads, InvalidProfile> {
        let transport = &self.profile_data.transport_configuration;
        let protobuf = match &transport.transport_payload_type_configuration {
            Some(PayloadType::Protobuf(protobuf)) => protobuf,
            Some(PayloadType::Json { .. }) | None => return Ok(Payloads::Json),
        };
        let given = |what, text: &Option<String>, default: &str| {
            let text = text.as_deref().filter(|text| !text.trim().is_empty()).unwrap_or(default);
            Schema::read(text).map_err(|why| InvalidProfile::Schema { what, why })
        };
        Ok(Payloads::Protobuf(Box::new(Schemas {
            telemetry: given("telemetry schema", &protobuf.device_telemetry_proto_schema, "")?,
            attributes: given("attributes schema", &protobuf.device_attributes_proto_schema, "")?,
            call: given(
                "RPC request schema",
                &protobuf.device_rpc_request_proto_schema,
                RPC_REQUEST_DEFAULT,
            )?,
            call_reply: given(
                "RPC response schema",
                &protobuf.device_rpc_response_proto_schema,
                RPC_RESPONSE_DEFAULT,
            )?,
            json_too: protobuf.enable_compatibility_with_json_payload_format,
            json_down_v1: protobuf.use_json_payload_format_for_default_downlink_topics,
        })))
    }

    /// Checks what the types cannot. Called once, before anybody uses it.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), InvalidProfile> {
        let own = self.own_topics();
        for (filter, what) in [
            (own.telemetry, "the telemetry topic"),
            (own.attributes, "the attributes topic"),
            (own.attributes_subscribe, "the topic of shared attributes"),
        ] {
            if !filter.is_empty() && !moorline_core::topic::is_filter(filter.as_bytes()) {
                return Err(InvalidProfile::Topic(what));
            }
        }
        if !own.telemetry.is_empty() && own.telemetry == own.attributes {
            return Err(InvalidProfile::SameTopic);
        }
        if self.sparkplug().is_some_and(|names| names.len() > METRIC_NAMES_MAX) {
            return Err(InvalidProfile::MetricNames);
        }
        self.name_pattern()?;
        self.payloads().map(|_| ())
    }

    /// How a device's name is found in its certificate; `None` for profiles that do not look there.
    ///
    /// # Errors
    ///
    /// It can't be read.
    pub fn name_pattern(&self) -> Result<Option<NamePattern>, NotAPattern> {
        let provisioning = &self.profile_data.provision_configuration;
        let pattern = provisioning.certificate_reg_exp_pattern.as_deref();
        pattern
            .filter(|_| self.provision_type == Some(Strategy::CertificateChain))
            .map(NamePattern::read)
            .transpose()
    }
}
