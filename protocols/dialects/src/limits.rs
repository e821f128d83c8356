//! Rate limits: `capacity:seconds,…` read, and counted with.
//!
//! Invariant: a [`Bucket`] never gives more than its capacity at once, and never more than `capacity` per `seconds` on
//! average; time that runs backwards gives nothing. Checked by `tests/it/thingsboard/limits.rs`.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

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
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Limit(Vec<Rate>);

impl TryFrom<String> for Limit {
    type Error = NotALimit;

    fn try_from(text: String) -> Result<Self, NotALimit> {
        Self::read(&text)
    }
}

impl From<Limit> for String {
    fn from(limit: Limit) -> Self {
        limit.to_string()
    }
}

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
        for (at, rate) in self.0.iter().enumerate() {
            write!(f, "{}{rate}", if at == 0 { "" } else { "," })?;
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
        let has = self.lacks(tokens, now_ms).is_none();
        if has {
            self.spend(tokens);
        }
        has
    }

    /// The first segment that has not so many tokens now.
    pub fn lacks(&mut self, tokens: u64, now_ms: u64) -> Option<Rate> {
        self.refill(now_ms);
        let mut all = self.limit.0.iter().zip(&self.left);
        all.find(|(rate, left)| **left < rate.price(tokens)).map(|(rate, _)| *rate)
    }

    /// Takes what [`Bucket::lacks`] has found to be there.
    pub fn spend(&mut self, tokens: u64) {
        for (rate, left) in self.limit.0.iter().zip(&mut self.left) {
            *left = left.saturating_sub(rate.price(tokens));
        }
    }

    /// Whether it has all that it may have: a new one would be the same.
    pub fn is_full(&mut self, now_ms: u64) -> bool {
        self.refill(now_ms);
        self.limit.0.iter().zip(&self.left).all(|(rate, left)| *left == rate.full())
    }

    fn refill(&mut self, now_ms: u64) {
        let passed = u128::from(now_ms.saturating_sub(self.at_ms));
        self.at_ms = self.at_ms.max(now_ms);
        for (rate, left) in self.limit.0.iter().zip(&mut self.left) {
            *left = (*left + passed * u128::from(rate.capacity)).min(rate.full());
        }
    }
}

impl Rate {
    fn period_ms(&self) -> u128 {
        u128::from(self.seconds * MILLIS_PER_SECOND)
    }

    fn full(&self) -> u128 {
        self.price(self.capacity)
    }

    fn price(&self, tokens: u64) -> u128 {
        u128::from(tokens) * self.period_ms()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.capacity, self.seconds)
    }
}
