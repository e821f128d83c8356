//! Samples of one key taken together, by interval.
//!
//! # Invariants
//!
//! - **Half-open.** A range and each interval have their beginning and not their end. Checked by
//!   `tests/it/thingsboard/aggregation.rs`.
//! - **No more results than samples**, however many intervals a range has: empty ones give nothing. Checked by the same.

use std::cmp::Ordering;

use crate::thingsboard::values::Value;

/// What is made of the samples of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Aggregation {
    /// Nothing: they stay as they are.
    #[default]
    None,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The mean of numbers.
    Avg,
    /// The sum of numbers.
    Sum,
    /// How many.
    Count,
}

impl Aggregation {
    /// The one of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "NONE" => Self::None,
            "MIN" => Self::Min,
            "MAX" => Self::Max,
            "AVG" => Self::Avg,
            "SUM" => Self::Sum,
            "COUNT" => Self::Count,
            _ => return None,
        })
    }
}

/// A range of time, and how it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first moment in it.
    pub start_ms: i64,
    /// The first moment behind it.
    pub end_ms: i64,
    /// How long an interval is; 0: the whole range is one.
    pub interval_ms: u64,
}

impl Range {
    /// The interval of a moment: its beginning and its end, which is not behind the range's.
    fn interval(&self, ts_ms: i64) -> Option<(i64, i64)> {
        if !(self.start_ms..self.end_ms).contains(&ts_ms) {
            return None;
        }
        let Ok(interval) = i64::try_from(self.interval_ms) else {
            return Some((self.start_ms, self.end_ms));
        };
        if interval == 0 {
            return Some((self.start_ms, self.end_ms));
        }
        // In 128 bits: a range may be as long as all times there are.
        let passed = i128::from(ts_ms) - i128::from(self.start_ms);
        let start = ts_ms - i64::try_from(passed % i128::from(interval)).unwrap_or(0);
        Some((start, start.saturating_add(interval).min(self.end_ms)))
    }
}

/// Takes samples together; the oldest interval first. A result's time is the middle of its interval.
#[must_use]
pub fn aggregate(
    samples: &[(i64, Value)],
    range: Range,
    aggregation: Aggregation,
) -> Vec<(i64, Value)> {
    let within = samples.iter().filter_map(|sample| Some((range.interval(sample.0)?, sample)));
    let mut within: Vec<_> = within.collect();
    within.sort_by_key(|(_, sample)| sample.0);
    if aggregation == Aggregation::None {
        return within.into_iter().map(|(_, sample)| sample.clone()).collect();
    }
    let intervals = within.chunk_by(|(a, _), (b, _)| a == b);
    let results = intervals.filter_map(|interval| {
        let (start, end) = interval.first()?.0;
        let values: Vec<&Value> = interval.iter().map(|(_, (_, value))| value).collect();
        let middle = i128::midpoint(i128::from(start), i128::from(end));
        Some((i64::try_from(middle).unwrap_or(start), taken_together(&values, aggregation)?))
    });
    results.collect()
}

fn taken_together(values: &[&Value], aggregation: Aggregation) -> Option<Value> {
    match aggregation {
        Aggregation::None => None,
        Aggregation::Count => Some(Value::Long(i64::try_from(values.len()).unwrap_or(i64::MAX))),
        Aggregation::Min => extreme(values, Ordering::Less),
        Aggregation::Max => extreme(values, Ordering::Greater),
        Aggregation::Sum => sum(values),
        Aggregation::Avg => {
            let numbers: Vec<f64> = values.iter().filter_map(|value| number(value)).collect();
            // A count of samples in memory is far below the 2^53 that a double has.
            let count = u32::try_from(numbers.len()).map(f64::from).unwrap_or(f64::MAX);
            let mean = numbers.iter().map(|number| number / count).sum::<f64>();
            (!numbers.is_empty()).then_some(Value::Double(mean))
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a long among doubles is as exact as a double")]
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Long(value) => Some(*value as f64),
        Value::Double(value) => Some(*value),
        Value::Bool(_) | Value::Text(_) | Value::Json(_) => None,
    }
}

/// A long as long as all are, and it fits; a double otherwise.
fn sum(values: &[&Value]) -> Option<Value> {
    let numbers: Vec<f64> = values.iter().filter_map(|value| number(value)).collect();
    let longs = values.iter().filter_map(|value| match value {
        Value::Long(value) => Some(*value),
        Value::Bool(_) | Value::Double(_) | Value::Text(_) | Value::Json(_) => None,
    });
    let longs: Vec<i64> = longs.collect();
    if numbers.is_empty() {
        return None;
    }
    let exact = longs.iter().try_fold(0_i64, |sum, value| sum.checked_add(*value));
    match exact.filter(|_| longs.len() == numbers.len()) {
        Some(sum) => Some(Value::Long(sum)),
        None => {
            let sum: f64 = numbers.iter().sum();
            Some(Value::Double(sum.clamp(f64::MIN, f64::MAX)))
        }
    }
}

/// The least or greatest number; of texts if there is no number, and of truth values if there is no text either.
fn extreme(values: &[&Value], wanted: Ordering) -> Option<Value> {
    let rank = |value: &Value| match value {
        Value::Long(_) | Value::Double(_) => Some(0),
        Value::Text(_) => Some(1),
        Value::Bool(_) => Some(2),
        Value::Json(_) => None,
    };
    let best = values.iter().filter_map(|value| rank(value)).min()?;
    let alike = values.iter().copied().filter(|value| rank(value) == Some(best));
    alike.reduce(|a, b| if compare(b, a) == wanted { b } else { a }).cloned()
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Long(a), Value::Long(b)) => a.cmp(b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        _ => match (number(a), number(b)) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => Ordering::Equal,
        },
    }
}
