//! Telemetry and attributes as values: what is kept of what a device wrote.
//!
//! # Invariants
//!
//! - **The type of a number is how it was written**: `42` is a long, `42.0` a double, what fits neither stays text.
//!   Checked by `tests/it/thingsboard/values.rs`.
//! - **Nothing is flattened.** An array or an object is one value. Checked by the same.
//! - **No clock.** What has no time of its own takes the one it is given. Checked by the same.

use moorline_core::{Double, Text, Value as CoreValue};

use super::{
    decimal,
    invalid::Invalid,
    json::{Json, Number},
};

/// The most characters of a key: what the vendor's tables hold.
pub const KEY_CHARS_MAX: usize = 255;

/// A kept value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A truth value.
    Bool(bool),
    /// A 64-bit integer.
    Long(i64),
    /// A double. Always finite.
    Double(f64),
    /// A text, and numbers that fit nothing else.
    Text(String),
    /// An array or an object, whole.
    Json(Json),
}

/// Keys with their values.
pub type Entries = Vec<(String, Value)>;

/// Values of one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When, in milliseconds since the epoch: the device's word, or the server's time.
    pub ts_ms: i64,
    /// What. At least one.
    pub values: Entries,
}

/// How the server is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whether a text that is a plain number is taken as that number. On by default.
    pub cast_texts: bool,
    /// The longest text of a value, in bytes. Not limited by default, but by the packet.
    pub text_bytes_max: Option<usize>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { cast_texts: true, text_bytes_max: None }
    }
}

impl Value {
    /// What is kept of a value of JSON; nothing of `null`.
    ///
    /// # Errors
    ///
    /// A number or text that is too long.
    pub fn of(json: &Json, rules: &Rules) -> Result<Option<Self>, Invalid> {
        Ok(Some(match json {
            Json::Null => return Ok(None),
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => decimal::value(number.as_str())?,
            Json::String(text) if rules.cast_texts && decimal::is_plain(text) => {
                decimal::value(text)?
            }
            Json::String(text) => Self::Text(text_within(text, rules)?),
            Json::Array(_) | Json::Object(_) => Self::Json(json.clone()),
        }))
    }

    /// As a device is told it.
    #[must_use]
    pub fn to_json(&self) -> Json {
        match self {
            Self::Bool(value) => Json::Bool(*value),
            Self::Long(value) => Json::from(*value),
            Self::Double(value) => Number::from_f64(*value).map_or(Json::Null, Json::Number),
            Self::Text(text) => Json::from(text.as_str()),
            Self::Json(json) => json.clone(),
        }
    }

    /// As text: how integrators get it unless they ask for types.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Bool(_) | Self::Long(_) | Self::Double(_) | Self::Json(_) => {
                self.to_json().to_string()
            }
        }
    }
}

impl From<&Value> for CoreValue {
    /// As the core keeps it.
    fn from(value: &Value) -> Self {
        match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::Long(value) => Self::Long(*value),
            Value::Double(value) => Self::Double(Double::nearest(*value)),
            Value::Text(text) => Self::Text(Text::from(text.as_str())),
            Value::Json(json) => Self::Json(Text::from(json.to_string())),
        }
    }
}

impl From<&CoreValue> for Value {
    /// What the core kept, whichever dialect it came by. What is called JSON and is none is a text.
    fn from(value: &CoreValue) -> Self {
        match value {
            CoreValue::Bool(value) => Self::Bool(*value),
            CoreValue::Long(value) => Self::Long(*value),
            CoreValue::Double(value) => Self::Double(value.get()),
            CoreValue::Text(text) => Self::Text(text.to_string()),
            CoreValue::Json(text) => match Json::read(text.as_bytes()) {
                Ok(json) => Self::Json(json),
                Err(_) => Self::Text(text.to_string()),
            },
        }
    }
}

fn text_within(text: &str, rules: &Rules) -> Result<String, Invalid> {
    match rules.text_bytes_max {
        Some(bytes_max) if text.len() > bytes_max => Err(Invalid::TextTooLong { bytes_max }),
        _ => Ok(text.to_owned()),
    }
}

/// Whether this can be a key.
#[must_use]
pub fn is_key(key: &str) -> bool {
    !key.is_empty() && key.chars().take(KEY_CHARS_MAX + 1).count() <= KEY_CHARS_MAX
}

/// Attributes: an object, nothing else.
///
/// # Errors
///
/// What is wrong with them.
pub fn attributes(json: &Json, rules: &Rules) -> Result<Entries, Invalid> {
    let entries = json.as_object().ok_or(Invalid::Shape("attributes are an object"))?;
    entries_of(entries, rules)
}

fn entries_of(entries: &[(String, Json)], rules: &Rules) -> Result<Entries, Invalid> {
    let mut kept = Vec::with_capacity(entries.len());
    for (key, json) in entries {
        if !is_key(key) {
            return Err(Invalid::Key);
        }
        kept.extend(Value::of(json, rules)?.map(|value| (key.clone(), value)));
    }
    Ok(kept)
}

/// Telemetry in its three forms: values, values with a time, an array of both. Objects without values leave nothing.
///
/// # Errors
///
/// What is wrong with it.
pub fn telemetry(json: &Json, now_ms: i64, rules: &Rules) -> Result<Vec<Sample>, Invalid> {
    let one = std::slice::from_ref(json);
    let mut samples = Vec::new();
    for element in json.as_array().unwrap_or(one) {
        let object = element.as_object();
        let object = object.ok_or(Invalid::Shape("telemetry is an object or an array of them"))?;
        let (ts_ms, entries) = match (element.get("ts"), element.get("values")) {
            (Some(ts), Some(values)) => {
                let values = values.as_object();
                (time(ts)?, values.ok_or(Invalid::Shape("values have to be an object"))?)
            }
            _ => (now_ms, object),
        };
        let values = entries_of(entries, rules)?;
        if !values.is_empty() {
            samples.push(Sample { ts_ms, values });
        }
    }
    Ok(samples)
}

/// A time: a number, which some write as a float, or a number as text.
fn time(json: &Json) -> Result<i64, Invalid> {
    let text = match json {
        Json::Number(number) => Some(number.as_str()),
        Json::String(text) if decimal::is_plain(text) => Some(text.as_str()),
        Json::Null | Json::Bool(_) | Json::String(_) | Json::Array(_) | Json::Object(_) => None,
    };
    let ts_ms = text.and_then(decimal::truncated);
    ts_ms.ok_or(Invalid::Shape("ts has to be a number of milliseconds"))
}

/// How many data points these are, as limits count them: each key at each time.
#[must_use]
pub fn data_points(samples: &[Sample]) -> usize {
    samples.iter().map(|sample| sample.values.len()).sum()
}

/// Entries as an object, for a device.
#[must_use]
pub fn object(entries: &[(String, Value)]) -> Json {
    Json::Object(entries.iter().map(|(key, value)| (key.clone(), value.to_json())).collect())
}
