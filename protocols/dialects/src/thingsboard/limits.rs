//! Rate limits: `capacity:seconds,…` read, counted with, and told to devices.
//!
//! Invariant: a [`Bucket`] never gives more than its capacity at once, and never more than `capacity` per `seconds` on
//! average; time that runs backwards gives nothing. Checked by `tests/it/thingsboard/limits.rs`.

use std::fmt;

use thiserror::Error;

use super::json::Json;

/// The most segments of one limit.
pub const SEGMENTS_MAX: usize = 8;

/// One segment: so much in so many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How much. At least 1.
    pub capacity: u64,
    /// In how many seconds. At least 1.
    pub seconds: u64,
}

/// Segments that all have to agree. None: no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limit(Vec<Rate>);

/// A text that is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a limit: capacity:seconds, several with commas, {SEGMENTS_MAX} at most")]
pub struct NotALimit;

impl Limit {
    /// Reads `100:1,3000:60`. Nothing is no limit.
    ///
    /// # Errors
    ///
    /// [`NotALimit`].
    pub fn read(text: &str) -> Result<Self, NotALimit> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let rates: Vec<Rate> = text.split(',').map(rate).collect::<Result<_, _>>()?;
        if rates.len() > SEGMENTS_MAX { Err(NotALimit) } else { Ok(Self(rates)) }
    }

    /// Its segments.
    #[must_use]
    pub fn rates(&self) -> &[Rate] {
        &self.0
    }
}

fn rate(segment: &str) -> Result<Rate, NotALimit> {
    let (capacity, seconds) = segment.split_once(':').ok_or(NotALimit)?;
    let number = |text: &str| match text.trim().parse() {
        Ok(number) if number > 0 && number <= u64::from(u32::MAX) => Ok(number),
        _ => Err(NotALimit),
    };
    Ok(Rate { capacity: number(capacity)?, seconds: number(seconds)? })
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Rate { capacity, seconds }) in self.0.iter().enumerate() {
            write!(f, "{}{capacity}:{seconds}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// A token counts as many parts as its segment has milliseconds, so that what a millisecond refills is a whole number.
const MILLIS_PER_SECOND: u64 = 1_000;

/// How much of a limit is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    limit: Limit,
    /// Per segment: tokens, times its milliseconds.
    left: Vec<u128>,
    at_ms: u64,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn new(limit: Limit, now_ms: u64) -> Self {
        let left = limit.0.iter().map(Rate::full).collect();
        Self { limit, left, at_ms: now_ms }
    }

    /// Takes `tokens`, if each segment has them; takes none otherwise.
    pub fn take(&mut self, tokens: u64, now_ms: u64) -> bool {
        let passed = u128::from(now_ms.saturating_sub(self.at_ms));
        self.at_ms = self.at_ms.max(now_ms);
        let rates = self.limit.0.iter();
        for (rate, left) in rates.clone().zip(&mut self.left) {
            *left = (*left + passed * u128::from(rate.capacity)).min(rate.full());
        }
        let price = |rate: &Rate| u128::from(tokens) * rate.period_ms();
        if rates.clone().zip(&self.left).any(|(rate, left)| *left < price(rate)) {
            return false;
        }
        for (rate, left) in rates.zip(&mut self.left) {
            *left -= price(rate);
        }
        true
    }
}

impl Rate {
    fn period_ms(&self) -> u128 {
        u128::from(self.seconds * MILLIS_PER_SECOND)
    }

    fn full(&self) -> u128 {
        u128::from(self.capacity) * self.period_ms()
    }
}

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
