//! What devices reported over a while, taken together: questions about data, and their answers.
//!
//! # Invariants
//!
//! - **Half-open.** A step has its start and not its end; so has the whole.
//! - **Numbers are taken together, other values are counted, the first or the last.** Checked by `tests/it/losant/data.rs`.

use std::collections::BTreeMap;

use moorline_core::{Double, Text, Value as Kept};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Invalid,
    access::Tag,
    device::is_attribute,
    meant::Meant,
    state::{json_of, time},
};

/// How far back, if nothing is said: an hour (ours).
const DURATION_MS: i64 = 3_600_000;
/// Points of the answer for one device, if nothing is said, and the most.
pub const POINTS_MAX: usize = 10_000;
/// Attributes of one question.
const ATTRIBUTES_MAX: usize = 100;

/// What is made of the values of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregation {
    /// They are shown as they are.
    None,
    /// The first of any type.
    First,
    /// The last of any type.
    Last,
    /// How many there are.
    Count,
    /// The greatest number.
    Max,
    /// The least.
    Min,
    /// The middle one, or the mean of both.
    Median,
    /// The mean.
    Mean,
    /// The sum.
    Sum,
    /// The standard deviation of a sample; 0 of one alone.
    StdDev,
}

const AGGREGATIONS: [(&str, Aggregation); 10] = [
    ("NONE", Aggregation::None),
    ("FIRST", Aggregation::First),
    ("LAST", Aggregation::Last),
    ("COUNT", Aggregation::Count),
    ("MAX", Aggregation::Max),
    ("MIN", Aggregation::Min),
    ("MEDIAN", Aggregation::Median),
    ("MEAN", Aggregation::Mean),
    ("SUM", Aggregation::Sum),
    ("STD_DEV", Aggregation::StdDev),
];

impl Aggregation {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        AGGREGATIONS.iter().find(|(_, one)| *one == self).map_or("NONE", |(name, _)| name)
    }

    fn read(said: Option<&Value>) -> Result<Self, Invalid> {
        let name = match said {
            None | Some(Value::Null) => "NONE",
            Some(Value::Object(said)) => said.get("type").and_then(Value::as_str).unwrap_or(""),
            Some(said) => said.as_str().unwrap_or(""),
        };
        let found = AGGREGATIONS.iter().find(|(known, _)| *known == name);
        found.map(|(_, one)| *one).ok_or_else(|| {
            let names = AGGREGATIONS.map(|(name, _)| name).join(", ");
            Invalid(format!("aggregation: one of {names}"))
        })
    }
}

/// A question about a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// Of which devices.
    pub meant: Meant,
    /// Which attributes; none: all that each has.
    pub attributes: Vec<String>,
    /// From when on, in milliseconds since 1970.
    pub start_ms: i64,
    /// Until when, itself not.
    pub end_ms: i64,
    /// How long a step is; 0: the whole is one.
    pub resolution_ms: i64,
    /// What is made of each.
    pub aggregation: Aggregation,
    /// Points of each device.
    pub limit: usize,
    /// Whether the newest is first.
    pub descending: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SaidOfSeries {
    start: Option<f64>,
    end: Option<f64>,
    duration: Option<f64>,
    resolution: Option<f64>,
    aggregation: Option<Value>,
    attributes: Option<Vec<String>>,
    device_ids: Option<Vec<String>>,
    device_tags: Option<Vec<Tag>>,
    device_query: Option<Value>,
    limit: Option<f64>,
    order: Option<String>,
}

impl Series {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub fn read(body: &[u8], now_ms: i64) -> Result<Self, Invalid> {
        let said: SaidOfSeries =
            serde_json::from_slice(body).map_err(|why| Invalid(why.to_string()))?;
        let meant = Meant::read(said.device_ids, said.device_tags, said.device_query.as_ref())?;
        // What is not behind 1970 is before now.
        let moment = |ms: f64| if ms > 0.0 { whole(ms) } else { now_ms.saturating_add(whole(ms)) };
        let end_ms = said.end.map_or(now_ms, moment);
        let duration_ms = said.duration.map_or(DURATION_MS, whole);
        let start_ms = said.start.map_or(end_ms.saturating_sub(duration_ms), moment);
        // Nothing was reported before.
        let start_ms = start_ms.max(0);
        if start_ms >= end_ms {
            return Err(Invalid::new("start is not before end"));
        }
        let attributes = said.attributes.unwrap_or_default();
        if attributes.len() > ATTRIBUTES_MAX || !attributes.iter().all(|name| is_attribute(name)) {
            return Err(Invalid(format!("attributes: at most {ATTRIBUTES_MAX} names")));
        }
        let descending = match said.order.as_deref() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(_) => return Err(Invalid::new("order: asc or desc")),
        };
        let limit = said.limit.map_or(POINTS_MAX, |limit| {
            usize::try_from(whole(limit)).unwrap_or_default().clamp(1, POINTS_MAX)
        });
        Ok(Self {
            meant,
            attributes,
            start_ms,
            end_ms,
            resolution_ms: said.resolution.map_or(0, whole).max(0),
            aggregation: Aggregation::read(said.aggregation.as_ref())?,
            limit,
            descending,
        })
    }

    /// Points of one device, of values with their times, the oldest first.
    #[must_use]
    pub fn points(&self, values: Vec<(i64, Text, Kept)>) -> Vec<Value> {
        let mut steps: BTreeMap<i64, BTreeMap<Text, Vec<Kept>>> = BTreeMap::new();
        for (at_ms, key, value) in values {
            let step = steps.entry(self.step(at_ms)).or_default();
            step.entry(key).or_default().push(value);
        }
        let point = |(at_ms, step): (i64, BTreeMap<Text, Vec<Kept>>)| {
            let of = |(key, values): (Text, Vec<Kept>)| {
                Some((key.to_string(), taken(self.aggregation, &values)?))
            };
            let data: Map<String, Value> = step.into_iter().filter_map(of).collect();
            (!data.is_empty()).then(|| json!({ "time": time(at_ms), "data": data }))
        };
        let points = steps.into_iter().filter_map(point);
        match self.descending {
            false => points.take(self.limit).collect(),
            true => {
                let mut points: Vec<_> = points.collect();
                points.reverse();
                points.truncate(self.limit);
                points
            }
        }
    }

    fn step(&self, at_ms: i64) -> i64 {
        match (self.aggregation, self.resolution_ms) {
            (Aggregation::None, _) => at_ms,
            (_, 0) => self.start_ms,
            (_, step) => at_ms - (at_ms - self.start_ms).rem_euclid(step),
        }
    }

    /// The answer, of each device's id, name and points.
    #[must_use]
    pub fn answer(&self, devices: Vec<(String, String, Vec<Value>)>) -> Value {
        let devices: Map<String, Value> = devices
            .into_iter()
            .map(|(id, name, points)| (id, json!({ "name": name, "points": points })))
            .collect();
        json!({
            "start": time(self.start_ms), "end": time(self.end_ms), "resolution": self.resolution_ms,
            "aggregation": self.aggregation.name(), "devices": devices,
        })
    }
}

/// A question about the last values of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last {
    /// Of which devices.
    pub meant: Meant,
    /// Which attribute.
    pub attribute: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SaidOfLast {
    attribute: String,
    device_ids: Option<Vec<String>>,
    device_tags: Option<Vec<Tag>>,
    device_query: Option<Value>,
}

impl Last {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub fn read(body: &[u8]) -> Result<Self, Invalid> {
        let said: SaidOfLast =
            serde_json::from_slice(body).map_err(|why| Invalid(why.to_string()))?;
        let meant = Meant::read(said.device_ids, said.device_tags, said.device_query.as_ref())?;
        if !is_attribute(&said.attribute) {
            return Err(Invalid::new("attribute: a name"));
        }
        Ok(Self { meant, attribute: said.attribute })
    }
}

fn number(value: &Kept) -> Option<f64> {
    #[allow(clippy::cast_precision_loss, reason = "a mean is no more exact")]
    match value {
        Kept::Long(long) => Some(*long as f64),
        Kept::Double(double) => Some(double.get()),
        Kept::Bool(_) | Kept::Text(_) | Kept::Json(_) => None,
    }
}

fn taken(aggregation: Aggregation, values: &[Kept]) -> Option<Value> {
    let numbers = || values.iter().filter_map(number);
    let of = |number: Option<f64>| {
        // A whole number is shown as one.
        let number = Double::new(number?)?.get();
        let is_whole = number.fract() == 0.0 && number.abs() < 9e15;
        Some(if is_whole { json!(whole(number)) } else { json!(number) })
    };
    match aggregation {
        Aggregation::First => values.first().map(json_of),
        // One of the same moment is the last one that was written.
        Aggregation::None | Aggregation::Last => values.last().map(json_of),
        Aggregation::Count => Some(json!(values.len())),
        Aggregation::Max => of(numbers().reduce(f64::max)),
        Aggregation::Min => of(numbers().reduce(f64::min)),
        Aggregation::Sum => of(numbers().reduce(|sum, more| sum + more)),
        Aggregation::Mean => of(mean(&numbers().collect::<Vec<_>>())),
        Aggregation::Median => of(median(numbers().collect())),
        Aggregation::StdDev => of(deviation(&numbers().collect::<Vec<_>>())),
    }
}

#[allow(clippy::cast_precision_loss, reason = "there are fewer than 2^52")]
fn mean(numbers: &[f64]) -> Option<f64> {
    (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
}

fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() % 2 {
        0 => mean(numbers.get(middle.checked_sub(1)?..=middle)?),
        _ => numbers.get(middle).copied(),
    }
}

#[allow(clippy::cast_precision_loss, reason = "there are fewer than 2^52")]
fn deviation(numbers: &[f64]) -> Option<f64> {
    let mean = mean(numbers)?;
    let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
    let others = numbers.len() - 1;
    Some(if others == 0 { 0.0 } else { (squares / others as f64).sqrt() })
}

/// The whole number next to it.
#[allow(clippy::cast_possible_truncation, reason = "a cast saturates, and so far away is nothing")]
fn whole(number: f64) -> i64 {
    number.round() as i64
}
