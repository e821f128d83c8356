//! Requests and answers, the same for all transports: what the core is asked, and what it says.
//!
//! MQTT, HTTP and CoAP read an address and a payload into a [`Request`] and write an [`Answer`] or a [`Failure`] as theirs.
//! Where an answer goes (a topic, a response) is the transport's, and no part of either.

use bytes::Bytes;

use super::{
    attributes::{Changed, Found, Wanted},
    calls::{DeviceCall, SESSION_LIMITS_METHOD, ServerCall},
    claim::Claim,
    gateway,
    meters::Cost,
    ota::{ChunkError, PackageKind},
    payloads::ProvisionEncoding,
    provision,
    values::{Entries, Sample},
};

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Keep telemetry.
    Telemetry(Vec<Sample>),
    /// Keep client attributes.
    Attributes(Entries),
    /// Attributes: [`Answer::Attributes`].
    ReadAttributes(Wanted),
    /// Wait for a change: [`Answer::Changed`].
    PollAttributes {
        /// For how long.
        timeout_ms: u64,
    },
    /// The device may be claimed.
    Claim(Claim),
    /// Wait for a call: [`Answer::Call`].
    PollCall {
        /// For how long.
        timeout_ms: u64,
    },
    /// The answer to a call.
    CallReply {
        /// The call's id.
        id: i32,
        /// The answer: JSON, if all is well.
        data: String,
    },
    /// A call: [`Answer::CallAnswered`].
    Call(DeviceCall),
    /// A part of a package: [`Answer::Chunk`].
    Package(PackageRequest),
    /// Credentials: [`Answer::Provisioned`].
    Provision {
        /// What for.
        request: Box<provision::Request>,
        /// How it was written: so is the answer.
        encoding: ProvisionEncoding,
    },
    /// What a gateway says. [`Answer::GatewayAttributes`] if it asks for some, [`Answer::Done`] otherwise.
    Gateway(gateway::Request),
}

impl Request {
    /// What it counts as against a device's limits. Nothing, if nobody behind the door is asked; what a gateway says counts for its
    /// devices ([`gateway::Request::costs`]).
    #[must_use]
    pub fn cost(&self) -> Option<Cost> {
        match self {
            Self::Telemetry(samples) => Some(telemetry_cost(samples)),
            Self::Call(call) if call.method == SESSION_LIMITS_METHOD => None,
            // A download that has begun goes on.
            Self::Package(package) if package.chunk > 0 => None,
            Self::Attributes(_)
            | Self::ReadAttributes(_)
            | Self::PollAttributes { .. }
            | Self::Claim(_)
            | Self::PollCall { .. }
            | Self::CallReply { .. }
            | Self::Call(_)
            | Self::Package(_) => Some(Cost::Message),
            Self::Provision { .. } | Self::Gateway(_) => None,
        }
    }
}

/// What telemetry counts as.
pub(super) fn telemetry_cost(samples: &[Sample]) -> Cost {
    Cost::Telemetry { data_points: samples.iter().map(|sample| sample.values.len() as u64).sum() }
}

/// Which part of which package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageRequest {
    /// Which kind.
    pub kind: PackageKind,
    /// Its title, if it was said.
    pub title: Option<String>,
    /// Its version, if it was said.
    pub version: Option<String>,
    /// The size of parts; 0: all in one.
    pub size: u64,
    /// Which part.
    pub chunk: u64,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It is done.
    Done,
    /// The attributes that were asked for.
    Attributes(Found),
    /// Shared attributes have changed.
    Changed(Changed),
    /// A call came.
    Call(ServerCall),
    /// The device's call was answered: any JSON as text.
    CallAnswered(String),
    /// A part of a package; empty beyond its end.
    Chunk {
        /// What the whole is called.
        file_name: String,
        /// The part.
        bytes: Bytes,
    },
    /// What became of a request for credentials.
    Provisioned(provision::Answer),
    /// Attributes that a gateway asked for; over MQTT only.
    GatewayAttributes(Entries),
}

/// Why a request was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The token is nobody's, or its profile is not for this transport.
    Unauthorised,
    /// Nothing came while it was waited for.
    TimedOut,
    /// The device was deleted while it waited.
    Gone,
    /// A limit is reached.
    RateLimited,
    /// No package is assigned, or not here.
    NoPackage,
    /// Another package is assigned than was named.
    OtherPackage,
    /// The part is larger than may be sent.
    ChunkTooLarge,
    /// Something behind the broker failed.
    Failed,
}

impl From<ChunkError> for Failure {
    fn from(error: ChunkError) -> Self {
        match error {
            ChunkError::NotFound => Self::NoPackage,
            ChunkError::TooLarge => Self::ChunkTooLarge,
            ChunkError::Malformed => Self::OtherPackage,
        }
    }
}
