//! How much of their limits senders have left.
//!
//! A message counts once: one with telemetry against the limits of those, any other against that of messages.
//!
//! # Invariants
//!
//! - **What is refused takes nothing** of the sender's limits.
//! - **Bounded**: when there is no room for another sender, those that have all they may have are forgotten, and if that makes no room for
//!   many, all are: somebody may say a limit's worth too much.
//! - **Who is refused is told of once in a window**, however often it comes.
//!
//! Checked by `tests/it/thingsboard/meters.rs`.

use std::collections::BTreeMap;

use super::limits::{Bucket, Rate, RateLimits};

/// How long after a refusal was told of it is not told of again, if its segment is shorter.
pub const TOLD_MS_MIN: u64 = 60_000;
const MILLIS_PER_SECOND: u64 = 1_000;
/// Of all senders this part has to be forgotten to make room for others, or all are: so that not each newcomer looks through all.
const ROOM: usize = 4;

/// What of a limit is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Messages without telemetry.
    Messages,
    /// Messages with telemetry.
    TelemetryMessages,
    /// Data points.
    TelemetryDataPoints,
}

impl What {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Messages, Self::TelemetryMessages, Self::TelemetryDataPoints];

    /// Its name, for people and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::TelemetryMessages => "telemetry_messages",
            Self::TelemetryDataPoints => "telemetry_data_points",
        }
    }
}

/// What a message counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// A message.
    Message,
    /// A message with telemetry.
    Telemetry {
        /// Keys times moments.
        data_points: u64,
    },
}

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// Which limit.
    pub what: What,
    /// Which segment of it.
    pub rate: Rate,
    /// Whether nobody was told of it in this window.
    pub first: bool,
}

/// What one sender has left.
#[derive(Debug, Clone)]
struct Meter {
    limits: RateLimits,
    messages: Bucket,
    telemetry_messages: Bucket,
    telemetry_data_points: Bucket,
    /// Until when a refusal is not told of again.
    told_until_ms: Option<u64>,
}

impl Meter {
    fn new(limits: &RateLimits, now_ms: u64) -> Self {
        let full = |limit: &super::limits::Limit| Bucket::new(limit.clone(), now_ms);
        Self {
            messages: full(&limits.messages),
            telemetry_messages: full(&limits.telemetry_messages),
            telemetry_data_points: full(&limits.telemetry_data_points),
            limits: limits.clone(),
            told_until_ms: None,
        }
    }

    fn take(&mut self, cost: Cost, now_ms: u64) -> Result<(), Exceeded> {
        let wanted = match cost {
            Cost::Message => vec![(What::Messages, &mut self.messages, 1)],
            Cost::Telemetry { data_points } => vec![
                (What::TelemetryMessages, &mut self.telemetry_messages, 1),
                (What::TelemetryDataPoints, &mut self.telemetry_data_points, data_points),
            ],
        };
        let mut taken = Vec::with_capacity(wanted.len());
        for (what, bucket, tokens) in wanted {
            if let Some(rate) = bucket.lacks(tokens, now_ms) {
                let first = self.told_until_ms.is_none_or(|until| now_ms >= until);
                if first {
                    let window_ms = (rate.seconds * MILLIS_PER_SECOND).max(TOLD_MS_MIN);
                    self.told_until_ms = Some(now_ms.saturating_add(window_ms));
                }
                return Err(Exceeded { what, rate, first });
            }
            taken.push((bucket, tokens));
        }
        taken.into_iter().for_each(|(bucket, tokens)| bucket.spend(tokens));
        Ok(())
    }

    /// Whether a new one would be the same.
    fn is_new(&mut self, now_ms: u64) -> bool {
        self.told_until_ms.is_none_or(|until| now_ms >= until)
            && self.messages.is_full(now_ms)
            && self.telemetry_messages.is_full(now_ms)
            && self.telemetry_data_points.is_full(now_ms)
    }
}

/// What all senders have left.
#[derive(Debug)]
pub struct Meters<K> {
    all: BTreeMap<K, Meter>,
    senders_max: usize,
}

impl<K: Ord> Meters<K> {
    /// For at most so many senders, one at least.
    #[must_use]
    pub fn new(senders_max: usize) -> Self {
        Self { all: BTreeMap::new(), senders_max: senders_max.max(1) }
    }

    /// A sender says something: whether it may. Who has other limits than before begins anew.
    ///
    /// # Errors
    ///
    /// What it has too little of.
    pub fn take(
        &mut self,
        sender: K,
        limits: &RateLimits,
        cost: Cost,
        now_ms: u64,
    ) -> Result<(), Exceeded> {
        if !limits.is_any() {
            return Ok(());
        }
        if self.all.len() >= self.senders_max && !self.all.contains_key(&sender) {
            self.make_room(now_ms);
        }
        let meter = self.all.entry(sender).or_insert_with(|| Meter::new(limits, now_ms));
        if meter.limits != *limits {
            *meter = Meter::new(limits, now_ms);
        }
        meter.take(cost, now_ms)
    }

    fn make_room(&mut self, now_ms: u64) {
        self.all.retain(|_, meter| !meter.is_new(now_ms));
        if self.all.len() > self.senders_max - self.senders_max.div_ceil(ROOM) {
            self.all.clear();
        }
    }

    /// How many senders are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
