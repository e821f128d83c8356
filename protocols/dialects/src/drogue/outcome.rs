//! What becomes of what a device asks, and how its protocol says so (§3.2, §3.3, §3.6).

use bytes::Bytes;
use moorline_core::QoS;
use serde_json::json;

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is kept, or was dropped by a rule that says so.
    Accepted,
    /// The device may not speak for the other one.
    NotAllowed,
    /// There is no room for it now.
    Full,
    /// The topic has no channel.
    Topic,
    /// A rule rejects it.
    Rejected,
    /// It says that it is JSON, and is not.
    Payload,
    /// There is no such thing here.
    Unsupported,
    /// It is not known what became of it.
    Failed,
    /// What stands in the registry can't be read, or asks for what can't be.
    Misconfigured,
}

/// What a publish of MQTT costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is acknowledged, if that is waited for.
    Acknowledged,
    /// It is refused with this reason.
    Reason(u8),
    /// It is dropped, and nobody is told.
    Dropped,
    /// The connection ends.
    Closed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Accepted,
        Self::NotAllowed,
        Self::Full,
        Self::Topic,
        Self::Rejected,
        Self::Payload,
        Self::Unsupported,
        Self::Failed,
        Self::Misconfigured,
    ];

    /// Its name, for eyes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::NotAllowed => "not_allowed",
            Self::Full => "full",
            Self::Topic => "topic",
            Self::Rejected => "rejected",
            Self::Payload => "payload",
            Self::Unsupported => "unsupported",
            Self::Failed => "failed",
            Self::Misconfigured => "misconfigured",
        }
    }

    /// The reason of MQTT 5.
    #[must_use]
    pub fn reason(self) -> u8 {
        match self {
            Self::Accepted => 0x00,
            Self::NotAllowed => 0x87,
            Self::Full => 0x97,
            Self::Topic => 0x90,
            Self::Rejected | Self::Failed | Self::Misconfigured => 0x80,
            Self::Payload => 0x99,
            Self::Unsupported => 0x83,
        }
    }

    /// What a publish of MQTT is answered with. MQTT 3.1.1 can't be told: its connection ends, so that the fault is seen.
    #[must_use]
    pub fn mqtt(self, is_v5: bool, qos: QoS) -> Answer {
        match (self, is_v5, qos) {
            (Self::Accepted, ..) => Answer::Acknowledged,
            (_, false, _) => Answer::Closed,
            (_, true, QoS::AtMostOnce) => Answer::Dropped,
            (_, true, QoS::AtLeastOnce | QoS::ExactlyOnce) => Answer::Reason(self.reason()),
        }
    }
}

/// Why a request of HTTP is refused: each with its status and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody, or not this device.
    Authentication,
    /// It can't be read.
    Format(String),
    /// It can be read, and is not possible.
    Request(String),
    /// Nobody can say who it is.
    Unavailable,
    /// What stands in the registry can't be read.
    Configuration,
    /// A rule rejects it, or it says that it is JSON, and is not.
    Rejected(String),
    /// There is no room for it now.
    Full,
    /// The body is too large.
    TooLarge,
    /// Somebody else wrote it meanwhile, or it is there already.
    Conflict(String),
    /// There is no such path.
    NotFound,
    /// There is no such method.
    Method,
    /// There is such a thing at the vendor's, and not here: why.
    NotServed(&'static str),
}

impl Refusal {
    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Authentication => 403,
            Self::Format(_) | Self::Request(_) => 400,
            Self::Unavailable | Self::Full => 503,
            Self::Configuration => 500,
            Self::Rejected(_) => 406,
            Self::TooLarge => 413,
            Self::Conflict(_) => 409,
            Self::NotFound => 404,
            Self::Method => 405,
            Self::NotServed(_) => 501,
        }
    }

    /// The body, which is JSON.
    #[must_use]
    pub fn body(&self) -> Bytes {
        let (error, message) = match self {
            Self::Authentication => ("AuthenticationError", "Authentication failed"),
            Self::Format(why) => ("InvalidFormat", why.as_str()),
            Self::Request(why) => ("InvalidRequest", why.as_str()),
            Self::Unavailable => {
                ("AuthenticationServiceError", "The device can't be authenticated now")
            }
            Self::Configuration => ("ConfigurationError", "The device's configuration is invalid"),
            Self::Rejected(why) => ("Rejected", why.as_str()),
            Self::Full => ("QueueFull", "There is no room for the event now"),
            Self::TooLarge => ("PayloadTooLarge", "The body is too large"),
            Self::Conflict(why) => ("Conflict", why.as_str()),
            Self::NotFound => ("NotFound", "There is no such resource"),
            Self::Method => ("MethodNotAllowed", "There is no such method here"),
            Self::NotServed(why) => ("NotImplemented", *why),
        };
        let said = json!({ "code": self.status(), "error": error, "message": message });
        Bytes::from(said.to_string())
    }
}

impl Outcome {
    /// What a request of HTTP is refused with; [`None`] if it is not. `why`: what a rule says.
    #[must_use]
    pub fn http(self, why: &str) -> Option<Refusal> {
        match self {
            Self::Accepted => None,
            Self::NotAllowed => Some(Refusal::Authentication),
            Self::Full => Some(Refusal::Full),
            Self::Topic => Some(Refusal::Request("There is no channel".to_owned())),
            Self::Rejected => Some(Refusal::Rejected(why.to_owned())),
            Self::Payload => Some(Refusal::Rejected("The payload is not JSON".to_owned())),
            Self::Unsupported => Some(Refusal::Request("Not supported".to_owned())),
            Self::Failed => Some(Refusal::Unavailable),
            Self::Misconfigured => Some(Refusal::Configuration),
        }
    }
}
