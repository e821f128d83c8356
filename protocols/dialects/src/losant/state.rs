//! What a device reports: read, converted to what its attributes are, and written for who hears of it.
//!
//! # Invariants
//!
//! - **An attribute that the device does not have, or whose value cannot become of its type, is left out; the others count.**
//! - **What is too old or too far ahead is ignored as a whole.**
//!
//! Checked by `tests/it/losant/state.rs`.

use moorline_core::{Double, Text, UnixMillis, Value as Kept, calendar::rfc3339};
use serde_json::{Map, Value, json};

use super::{
    Invalid,
    device::{Attributes, DataType, is_attribute},
    gps,
    id::Id,
    when::When,
};

/// Bytes of a text (§2.3).
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Characters of `flowVersion`.
const FLOW_VERSION_CHARS_MAX: usize = 255;
/// Reports of one message or request.
pub const REPORTS_MAX: usize = 1_000;
/// What there may be beside `data`.
const BESIDE: [&str; 4] = ["data", "time", "flowVersion", "meta"];

/// A report, as it was said.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    data: Map<String, Value>,
    when: When,
    flow_version: Option<String>,
    meta: Option<Value>,
}

/// A report that counts.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Values of attributes, in the order of their names.
    pub values: Vec<(Text, Kept)>,
    /// How many were left out.
    pub left_out: usize,
    flow_version: Option<String>,
    meta: Option<Value>,
}

/// Reads what a message says: a report, or an array of them. Other keys mean nothing there.
///
/// # Errors
///
/// Why it is none.
pub fn read(payload: &[u8]) -> Result<Vec<Report>, Invalid> {
    read_as(payload, false)
}

/// The same of a request, in which other keys are refused.
///
/// # Errors
///
/// Why it is none.
pub fn read_strictly(body: &[u8]) -> Result<Vec<Report>, Invalid> {
    read_as(body, true)
}

fn read_as(payload: &[u8], strictly: bool) -> Result<Vec<Report>, Invalid> {
    let said: Value = serde_json::from_slice(payload).map_err(|why| Invalid(why.to_string()))?;
    let all = match said {
        Value::Array(all) => all,
        one @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Object(_)) => vec![one],
    };
    if all.len() > REPORTS_MAX {
        return Err(Invalid(format!("{REPORTS_MAX} states at most")));
    }
    all.into_iter().map(|one| report(one, strictly)).collect()
}

fn report(said: Value, strictly: bool) -> Result<Report, Invalid> {
    let Value::Object(mut said) = said else {
        return Err(Invalid::new("a state is an object"));
    };
    if let Some(other) =
        said.keys().find(|key| !BESIDE.contains(&key.as_str())).filter(|_| strictly)
    {
        return Err(Invalid(format!("{other:?} is no part of a state")));
    }
    let Some(Value::Object(data)) = said.remove("data") else {
        return Err(Invalid::new("data is required, and an object"));
    };
    let flow_version = match said.remove("flowVersion") {
        Some(Value::String(version))
            if (1..=FLOW_VERSION_CHARS_MAX).contains(&version.chars().count()) =>
        {
            Some(version)
        }
        Some(_) if strictly => return Err(Invalid::new("flowVersion: 1 to 255 characters")),
        Some(_) | None => None,
    };
    let meta = said.remove("meta").filter(|meta| !meta.is_null());
    Ok(Report { data, when: When::read(said.get("time")), flow_version, meta })
}

impl Report {
    /// What of it counts for a device with these attributes; [`None`] if nothing of it does, since it is too old or too far ahead.
    #[must_use]
    pub fn counted(self, attributes: &Attributes, now_ms: i64) -> Option<State> {
        let at_ms = self.when.kept_ms(now_ms)?;
        let said = self.data.iter().filter(|(_, value)| !value.is_null()).count();
        let value = |(name, value): (String, Value)| {
            let kind = attributes.get(&name).filter(|_| is_attribute(&name))?;
            Some((Text::from(name), converted(*kind, value)?))
        };
        let mut values: Vec<_> = self.data.into_iter().filter_map(value).collect();
        values.sort_by(|(a, _), (b, _)| a.cmp(b));
        let left_out = said - values.len();
        Some(State { at_ms, values, left_out, flow_version: self.flow_version, meta: self.meta })
    }
}

/// A value as one of a type, if it can become one.
#[must_use]
pub fn converted(kind: DataType, value: Value) -> Option<Kept> {
    match kind {
        DataType::Number => number(value),
        DataType::Boolean => boolean(&value).map(Kept::Bool),
        DataType::String | DataType::Blob => text(value).map(|text| Kept::Text(Text::from(text))),
        DataType::Gps => gps::read(value.as_str()?).map(Kept::Text),
    }
}

fn number(value: Value) -> Option<Kept> {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(long) => Some(Kept::Long(long)),
            None => Double::new(number.as_f64()?).map(Kept::Double),
        },
        Value::Bool(is) => Some(Kept::Long(is.into())),
        Value::String(text) => {
            let text = text.trim();
            // What a parser takes for numbers and nobody else: `inf`, `nan`.
            let digits = text.bytes().any(|byte| byte.is_ascii_digit());
            match text.parse::<i64>() {
                Ok(long) => Some(Kept::Long(long)),
                Err(_) if digits => Double::new(text.parse().ok()?).map(Kept::Double),
                Err(_) => None,
            }
        }
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(is) => Some(*is),
        Value::Number(number) => number.as_f64().map(|number| number != 0.0),
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn text(value: Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Bool(is) => is.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    (text.len() <= TEXT_BYTES_MAX).then_some(text)
}

/// A kept value, as JSON.
#[must_use]
pub fn json_of(value: &Kept) -> Value {
    match value {
        Kept::Bool(is) => json!(is),
        Kept::Long(long) => json!(long),
        Kept::Double(double) => json!(double.get()),
        Kept::Text(text) => json!(text.as_str()),
        Kept::Json(text) => serde_json::from_str(text.as_str()).unwrap_or_default(),
    }
}

/// A time as answers write it; what is before 1970 is 1970.
#[must_use]
pub fn time(at_ms: i64) -> String {
    rfc3339(UnixMillis(u64::try_from(at_ms).unwrap_or(0)))
}

/// A state as lists show it.
#[must_use]
pub fn shown(at_ms: i64, values: &[(Text, Kept)]) -> Value {
    let data: Map<String, Value> =
        values.iter().map(|(key, value)| (key.to_string(), json_of(value))).collect();
    json!({ "time": time(at_ms), "data": data })
}

/// The last value of each attribute, each with its time.
#[must_use]
pub fn composite(values: &[(Text, i64, Kept)]) -> Value {
    let one = |(key, at_ms, value): &(Text, i64, Kept)| {
        (key.to_string(), json!({ "value": json_of(value), "time": time(*at_ms) }))
    };
    let own = values.iter().filter(|(key, ..)| is_attribute(key.as_str()));
    Value::Object(own.map(one).collect())
}

impl State {
    /// For who hears of it.
    #[must_use]
    pub fn event(&self, application: &Text, device: &Id) -> Value {
        let mut event = shown(self.at_ms, &self.values);
        event["applicationId"] = json!(application.as_str());
        event["deviceId"] = json!(device.as_str());
        if let Some(version) = &self.flow_version {
            event["flowVersion"] = json!(version);
        }
        if let Some(meta) = &self.meta {
            event["meta"] = meta.clone();
        }
        event
    }
}
