//! What a device is told of its rate limits.

pub use crate::limits::{Bucket, Limit, NotALimit, Rate, SEGMENTS_MAX};

use super::json::Json;

/// Limits on one kind of sender.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RateLimits {
    /// On all messages.
    pub messages: Limit,
    /// On messages with telemetry.
    pub telemetry_messages: Limit,
    /// On data points: keys times moments.
    pub telemetry_data_points: Limit,
}

impl RateLimits {
    /// Whether there is any.
    #[must_use]
    pub fn is_any(&self) -> bool {
        let Self { messages, telemetry_messages, telemetry_data_points } = self;
        [messages, telemetry_messages, telemetry_data_points]
            .iter()
            .any(|one| !one.rates().is_empty())
    }

    fn to_json(&self) -> Json {
        let text = |limit: &Limit| match limit.rates() {
            [] => Json::Null,
            _ => Json::from(limit.to_string().as_str()),
        };
        Json::object([
            ("messages", text(&self.messages)),
            ("telemetryMessages", text(&self.telemetry_messages)),
            ("telemetryDataPoints", text(&self.telemetry_data_points)),
        ])
    }
}

/// The answer to [`super::calls::SESSION_LIMITS_METHOD`]: SDKs wait for it before they are ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionLimits {
    /// The largest payload, in bytes.
    pub payload_bytes_max: u32,
    /// How many publishes may wait for their PUBACK.
    pub inflight_max: u32,
    /// The device's, or the gateway's own.
    pub rate_limits: RateLimits,
    /// What a gateway's devices may send; `None` for who is no gateway. Never `null`: the SDK fails then.
    pub gateway_rate_limits: Option<RateLimits>,
}

impl SessionLimits {
    /// What the device is told. A limit that is not set is `null`, by which SDKs stop to limit themselves.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut entries = vec![
            ("maxPayloadSize".to_owned(), Json::from(i64::from(self.payload_bytes_max))),
            ("maxInflightMessages".to_owned(), Json::from(i64::from(self.inflight_max))),
            ("rateLimits".to_owned(), self.rate_limits.to_json()),
        ];
        let gateway = self.gateway_rate_limits.as_ref().map(RateLimits::to_json);
        entries.extend(gateway.map(|limits| ("gatewayRateLimits".to_owned(), limits)));
        Json::Object(entries)
    }
}
