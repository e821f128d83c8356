//! Types of metrics: what is kept of a value on the wire, and how a value is written for a node.
//!
//! # Invariants
//!
//! - **A value is kept as what its type says, or refused**: none becomes 0 because it came in another form. Checked by
//!   `tests/it/thingsboard/sparkplug/values.rs`.
//! - **What a node is told is within its type's range**, or it is not told. Checked by the same.

use super::messages::MetricValue;
use crate::thingsboard::{
    decimal,
    invalid::Invalid,
    json::{Json, Number},
    values::{Rules, Value},
};

/// Types, by their numbers. Those from 20 on came with Sparkplug 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names say it")]
pub enum DataType {
    Int8 = 1,
    Int16 = 2,
    Int32 = 3,
    Int64 = 4,
    UInt8 = 5,
    UInt16 = 6,
    UInt32 = 7,
    UInt64 = 8,
    Float = 9,
    Double = 10,
    Boolean = 11,
    String = 12,
    DateTime = 13,
    Text = 14,
    Uuid = 15,
    DataSet = 16,
    Bytes = 17,
    File = 18,
    Template = 19,
    PropertySet = 20,
    PropertySetList = 21,
    Int8Array = 22,
    Int16Array = 23,
    Int32Array = 24,
    Int64Array = 25,
    UInt8Array = 26,
    UInt16Array = 27,
    UInt32Array = 28,
    UInt64Array = 29,
    FloatArray = 30,
    DoubleArray = 31,
    BooleanArray = 32,
    StringArray = 33,
    DateTimeArray = 34,
}

impl DataType {
    /// All of them, in the order of their numbers, from 1 on.
    pub const ALL: [Self; 34] = [
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::UInt8,
        Self::UInt16,
        Self::UInt32,
        Self::UInt64,
        Self::Float,
        Self::Double,
        Self::Boolean,
        Self::String,
        Self::DateTime,
        Self::Text,
        Self::Uuid,
        Self::DataSet,
        Self::Bytes,
        Self::File,
        Self::Template,
        Self::PropertySet,
        Self::PropertySetList,
        Self::Int8Array,
        Self::Int16Array,
        Self::Int32Array,
        Self::Int64Array,
        Self::UInt8Array,
        Self::UInt16Array,
        Self::UInt32Array,
        Self::UInt64Array,
        Self::FloatArray,
        Self::DoubleArray,
        Self::BooleanArray,
        Self::StringArray,
        Self::DateTimeArray,
    ];

    /// By its number.
    #[must_use]
    pub fn of(number: u32) -> Option<Self> {
        let at = usize::try_from(number.checked_sub(1)?).ok()?;
        Self::ALL.get(at).copied()
    }

    /// What is kept of a value of this type. Nothing of what has no number in JSON (NaN, infinities), and of files, data sets, templates
    /// and property sets.
    ///
    /// # Errors
    ///
    /// It is of another type, or a text that is too long.
    pub fn read(self, value: &MetricValue, rules: &Rules) -> Result<Option<Value>, Invalid> {
        Ok(Some(match self {
            Self::Int8 => {
                let [byte, ..] = whole(value)?.to_le_bytes();
                Value::Long(i64::from(i8::from_le_bytes([byte])))
            }
            Self::Int16 => {
                let [a, b, ..] = whole(value)?.to_le_bytes();
                Value::Long(i64::from(i16::from_le_bytes([a, b])))
            }
            Self::Int32 => {
                let [a, b, c, d, ..] = whole(value)?.to_le_bytes();
                Value::Long(i64::from(i32::from_le_bytes([a, b, c, d])))
            }
            Self::Int64 => Value::Long(whole(value)?.cast_signed()),
            Self::UInt8 | Self::UInt16 | Self::UInt32 | Self::UInt64 | Self::DateTime => {
                let whole = whole(value)?;
                // As of JSON: what is too large for a long stays text.
                i64::try_from(whole).map_or_else(|_| Value::Text(whole.to_string()), Value::Long)
            }
            Self::Float | Self::Double => return float(value),
            Self::Boolean => {
                let MetricValue::Boolean(value) = value else { return Err(OTHER_TYPE) };
                Value::Bool(*value)
            }
            Self::String | Self::Text | Self::Uuid => {
                let MetricValue::Text(text) = value else { return Err(OTHER_TYPE) };
                let rules = Rules { cast_texts: false, ..*rules };
                return Value::of(&Json::from(text.as_str()), &rules);
            }
            Self::DataSet
            | Self::File
            | Self::Template
            | Self::PropertySet
            | Self::PropertySetList => return Ok(None),
            Self::Bytes
            | Self::Int8Array
            | Self::Int16Array
            | Self::Int32Array
            | Self::Int64Array
            | Self::UInt8Array
            | Self::UInt16Array
            | Self::UInt32Array
            | Self::UInt64Array
            | Self::FloatArray
            | Self::DoubleArray
            | Self::BooleanArray
            | Self::StringArray
            | Self::DateTimeArray => {
                let MetricValue::Bytes(bytes) = value else { return Err(OTHER_TYPE) };
                Value::Json(self.array(bytes)?)
            }
        }))
    }

    /// An array as JSON. Bytes are signed, as from the original.
    fn array(self, bytes: &[u8]) -> Result<Json, Invalid> {
        match self {
            Self::Bytes | Self::Int8Array => {
                items(bytes, |item| i64::from(i8::from_le_bytes(item)).into())
            }
            Self::Int16Array => items(bytes, |item| i64::from(i16::from_le_bytes(item)).into()),
            Self::Int32Array => items(bytes, |item| i64::from(i32::from_le_bytes(item)).into()),
            Self::Int64Array => items(bytes, |item| i64::from_le_bytes(item).into()),
            Self::UInt8Array => items(bytes, |item| i64::from(u8::from_le_bytes(item)).into()),
            Self::UInt16Array => items(bytes, |item| i64::from(u16::from_le_bytes(item)).into()),
            Self::UInt32Array => items(bytes, |item| i64::from(u32::from_le_bytes(item)).into()),
            Self::UInt64Array | Self::DateTimeArray => {
                items(bytes, |item| Json::Number(u64::from_le_bytes(item).into()))
            }
            Self::FloatArray => items(bytes, |item| {
                Number::from_f32(f32::from_le_bytes(item)).map_or(Json::Null, Json::Number)
            }),
            Self::DoubleArray => items(bytes, |item| {
                Number::from_f64(f64::from_le_bytes(item)).map_or(Json::Null, Json::Number)
            }),
            Self::BooleanArray => booleans(bytes),
            Self::StringArray => texts(bytes),
            Self::Int8
            | Self::Int16
            | Self::Int32
            | Self::Int64
            | Self::UInt8
            | Self::UInt16
            | Self::UInt32
            | Self::UInt64
            | Self::Float
            | Self::Double
            | Self::Boolean
            | Self::String
            | Self::DateTime
            | Self::Text
            | Self::Uuid
            | Self::DataSet
            | Self::File
            | Self::Template
            | Self::PropertySet
            | Self::PropertySetList => Err(OTHER_TYPE),
        }
    }

    /// A value as a node is told it; `None` if it does not fit the type. Truth values are 0 and 1 to numbers, texts that are plain numbers
    /// are those, decimals are cut off for integers. What [`DataType::read`] keeps as arrays can't be told, but for bytes.
    #[must_use]
    pub fn write(self, value: &Value) -> Option<MetricValue> {
        Some(match self {
            Self::Int8 => small(i8::try_from(integer(value)?).ok()?.into()),
            Self::Int16 => small(i16::try_from(integer(value)?).ok()?.into()),
            Self::Int32 => small(i32::try_from(integer(value)?).ok()?),
            Self::UInt8 => MetricValue::Int(u8::try_from(integer(value)?).ok()?.into()),
            Self::UInt16 => MetricValue::Int(u16::try_from(integer(value)?).ok()?.into()),
            // In the longer form, as from the original.
            Self::UInt32 => MetricValue::Long(u32::try_from(integer(value)?).ok()?.into()),
            Self::Int64 => MetricValue::Long(i64::try_from(integer(value)?).ok()?.cast_unsigned()),
            Self::UInt64 | Self::DateTime => {
                MetricValue::Long(u64::try_from(integer(value)?).ok()?)
            }
            Self::Float => {
                let single: f32 = number(value)?.to_string().parse().ok()?;
                MetricValue::Float(Some(single).filter(|single| single.is_finite())?)
            }
            Self::Double => MetricValue::Double(number(value)?),
            Self::Boolean => MetricValue::Boolean(truth(value)?),
            Self::String | Self::Text | Self::Uuid => MetricValue::Text(value.to_text()),
            Self::Bytes => MetricValue::Bytes(bytes(value)?),
            Self::DataSet
            | Self::File
            | Self::Template
            | Self::PropertySet
            | Self::PropertySetList
            | Self::Int8Array
            | Self::Int16Array
            | Self::Int32Array
            | Self::Int64Array
            | Self::UInt8Array
            | Self::UInt16Array
            | Self::UInt32Array
            | Self::UInt64Array
            | Self::FloatArray
            | Self::DoubleArray
            | Self::BooleanArray
            | Self::StringArray
            | Self::DateTimeArray => return None,
        })
    }
}

const OTHER_TYPE: Invalid = Invalid::Shape("a metric's value is of its datatype");
const TORN_ARRAY: Invalid = Invalid::Shape("an array has whole items");

/// The bits of an integer: clients write it in either form.
fn whole(value: &MetricValue) -> Result<u64, Invalid> {
    match value {
        MetricValue::Int(value) => Ok(u64::from(*value)),
        MetricValue::Long(value) => Ok(*value),
        MetricValue::Float(_)
        | MetricValue::Double(_)
        | MetricValue::Boolean(_)
        | MetricValue::Text(_)
        | MetricValue::Bytes(_)
        | MetricValue::DataSet(_)
        | MetricValue::Template(_) => Err(OTHER_TYPE),
    }
}

fn float(value: &MetricValue) -> Result<Option<Value>, Invalid> {
    let double = match value {
        // By its shortest decimals: 0.1 is meant, not 0.10000000149.
        MetricValue::Float(value) => value.to_string().parse().unwrap_or(f64::from(*value)),
        MetricValue::Double(value) => *value,
        MetricValue::Int(_)
        | MetricValue::Long(_)
        | MetricValue::Boolean(_)
        | MetricValue::Text(_)
        | MetricValue::Bytes(_)
        | MetricValue::DataSet(_)
        | MetricValue::Template(_) => return Err(OTHER_TYPE),
    };
    Ok(double.is_finite().then_some(Value::Double(double)))
}

/// Items of a fixed width, in little-endian order.
fn items<const WIDTH: usize>(
    bytes: &[u8],
    item: impl Fn([u8; WIDTH]) -> Json,
) -> Result<Json, Invalid> {
    let all = bytes.chunks(WIDTH).map(|bytes| bytes.try_into().map(&item));
    Ok(Json::Array(all.collect::<Result<_, _>>().map_err(|_| TORN_ARRAY)?))
}

/// How many there are, in four bytes; then eight to a byte, the first in its highest bit.
fn booleans(bytes: &[u8]) -> Result<Json, Invalid> {
    let (count, bits) = bytes.split_first_chunk().ok_or(TORN_ARRAY)?;
    let count = usize::try_from(u32::from_le_bytes(*count)).map_err(|_| TORN_ARRAY)?;
    if count.div_ceil(8) != bits.len() {
        return Err(TORN_ARRAY);
    }
    let bit = |at: usize| Json::Bool(bits[at / 8] & (0x80 >> (at % 8)) != 0);
    Ok(Json::Array((0..count).map(bit).collect()))
}

/// Texts with a zero behind each.
fn texts(bytes: &[u8]) -> Result<Json, Invalid> {
    if bytes.is_empty() {
        return Ok(Json::Array(Vec::new()));
    }
    let bytes = bytes.strip_suffix(&[0]).ok_or(TORN_ARRAY)?;
    let text = std::str::from_utf8(bytes).map_err(|_| crate::thingsboard::json::NotJson::Utf8)?;
    Ok(Json::Array(text.split('\0').map(Json::from).collect()))
}

fn small(value: i32) -> MetricValue {
    MetricValue::Int(value.cast_unsigned())
}

fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Bool(value) => Some(i128::from(*value)),
        Value::Long(value) => Some(i128::from(*value)),
        Value::Double(value) => decimal::truncated(&format!("{value:?}")).map(i128::from),
        Value::Text(text) if decimal::is_plain(text) => {
            text.parse().ok().or_else(|| decimal::truncated(text).map(i128::from))
        }
        Value::Text(_) | Value::Json(_) => None,
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::Double(value) => Some(*value),
        Value::Long(value) => value.to_string().parse().ok(),
        Value::Text(text) if decimal::is_plain(text) => {
            text.parse().ok().filter(|value: &f64| value.is_finite())
        }
        Value::Text(_) | Value::Json(_) => None,
    }
}

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::Long(value @ (0 | 1)) => Some(*value == 1),
        Value::Text(text) => text.parse().ok(),
        Value::Long(_) | Value::Double(_) | Value::Json(_) => None,
    }
}

/// An array of numbers that are bytes, signed or not.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    let Value::Json(json) = value else { return None };
    let byte = |item: &Json| match item {
        Json::Number(number) => {
            let number: i16 = number.as_str().parse().ok()?;
            let signed = i8::try_from(number).map(i8::cast_unsigned);
            signed.or_else(|_| u8::try_from(number)).ok()
        }
        Json::Null | Json::Bool(_) | Json::String(_) | Json::Array(_) | Json::Object(_) => None,
    };
    json.as_array()?.iter().map(byte).collect()
}
