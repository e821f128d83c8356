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

    fn form(self) -> Form {
        FORMS[self as usize - 1]
    }

    /// What is kept of a value of this type. Nothing of what has no number in JSON (NaN, infinities), and of files, data sets, templates
    /// and property sets.
    ///
    /// # Errors
    ///
    /// It is of another type, or a text that is too long.
    pub fn read(self, value: &MetricValue, rules: &Rules) -> Result<Option<Value>, Invalid> {
        Ok(Some(match self.form() {
            Form::One(Kind::Signed(width)) => Value::Long(signed(whole(value)?, width)),
            Form::One(Kind::Unsigned(_)) => {
                let whole = whole(value)?;
                // As of JSON: what is too large for a long stays text.
                i64::try_from(whole).map_or_else(|_| Value::Text(whole.to_string()), Value::Long)
            }
            Form::One(Kind::Single | Kind::Double) => return float(value),
            Form::One(Kind::Truth) => {
                let MetricValue::Boolean(value) = value else { return Err(OTHER_TYPE) };
                Value::Bool(*value)
            }
            Form::One(Kind::Text) => {
                let MetricValue::Text(text) = value else { return Err(OTHER_TYPE) };
                let rules = Rules { cast_texts: false, ..*rules };
                return Value::of(&Json::from(text.as_str()), &rules);
            }
            Form::Bytes => Value::Json(array(value, Kind::Signed(1))?),
            Form::Many(kind) => Value::Json(array(value, kind)?),
            Form::Unkept => return Ok(None),
        }))
    }

    /// A value as a node is told it; `None` if it does not fit the type. Truth values are 0 and 1 to numbers, texts that are plain numbers
    /// are those, decimals are cut off for integers. What [`DataType::read`] keeps as arrays can't be told, but for bytes.
    #[must_use]
    pub fn write(self, value: &Value) -> Option<MetricValue> {
        Some(match self.form() {
            Form::One(Kind::Signed(width)) => {
                let value = i64::try_from(integer(value)?).ok()?;
                if signed(value.cast_unsigned(), width) != value {
                    return None;
                }
                match i32::try_from(value) {
                    Ok(small) if width <= 4 => MetricValue::Int(small.cast_unsigned()),
                    Ok(_) | Err(_) => MetricValue::Long(value.cast_unsigned()),
                }
            }
            Form::One(Kind::Unsigned(width)) => {
                let value = u64::try_from(integer(value)?).ok()?;
                if value.unbounded_shr(8 * width) != 0 {
                    return None;
                }
                match u16::try_from(value) {
                    Ok(small) if width <= 2 => MetricValue::Int(small.into()),
                    // From four bytes on in the longer form, as from the original.
                    Ok(_) | Err(_) => MetricValue::Long(value),
                }
            }
            Form::One(Kind::Single) => {
                let single: f32 = number(value)?.to_string().parse().ok()?;
                MetricValue::Float(Some(single).filter(|single| single.is_finite())?)
            }
            Form::One(Kind::Double) => MetricValue::Double(number(value)?),
            Form::One(Kind::Truth) => MetricValue::Boolean(truth(value)?),
            Form::One(Kind::Text) => MetricValue::Text(value.to_text()),
            Form::Bytes => MetricValue::Bytes(bytes(value)?),
            Form::Many(_) | Form::Unkept => return None,
        })
    }
}

/// What values of a type are made of.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// One of this kind.
    One(Kind),
    /// Some, one behind the other.
    Many(Kind),
    /// Bytes, which are kept as numbers with a sign, as from the original.
    Bytes,
    /// What is not kept.
    Unkept,
}

/// What one value is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A whole number with a sign, of so many bytes.
    Signed(u32),
    /// Without one; also milliseconds since 1970.
    Unsigned(u32),
    Single,
    Double,
    Truth,
    Text,
}

/// In the order of the types' numbers.
const FORMS: [Form; 34] = {
    use Form::{Bytes, Many, One, Unkept};
    use Kind::{Double, Signed, Single, Text, Truth, Unsigned};
    [
        One(Signed(1)),
        One(Signed(2)),
        One(Signed(4)),
        One(Signed(8)),
        One(Unsigned(1)),
        One(Unsigned(2)),
        One(Unsigned(4)),
        One(Unsigned(8)),
        One(Single),
        One(Double),
        One(Truth),
        One(Text),
        One(Unsigned(8)), // DateTime
        One(Text),
        One(Text), // Uuid
        Unkept,    // DataSet
        Bytes,
        Unkept, // File
        Unkept, // Template
        Unkept, // PropertySet
        Unkept, // PropertySetList
        Many(Signed(1)),
        Many(Signed(2)),
        Many(Signed(4)),
        Many(Signed(8)),
        Many(Unsigned(1)),
        Many(Unsigned(2)),
        Many(Unsigned(4)),
        Many(Unsigned(8)),
        Many(Single),
        Many(Double),
        Many(Truth),
        Many(Text),
        Many(Unsigned(8)), // DateTimeArray
    ]
};

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

/// The lowest bytes, the highest of which has the sign.
fn signed(bits: u64, width: u32) -> i64 {
    let above = u64::BITS - 8 * width;
    (bits << above).cast_signed() >> above
}

/// An array as JSON.
fn array(value: &MetricValue, kind: Kind) -> Result<Json, Invalid> {
    let MetricValue::Bytes(bytes) = value else { return Err(OTHER_TYPE) };
    match kind {
        Kind::Signed(width) => items(bytes, width, |bits| signed(bits, width).into()),
        Kind::Unsigned(width) => items(bytes, width, |bits| Json::Number(bits.into())),
        Kind::Single => items(bytes, 4, |bits| {
            let bits = u32::try_from(bits).unwrap_or_default();
            Number::from_f32(f32::from_bits(bits)).map_or(Json::Null, Json::Number)
        }),
        Kind::Double => items(bytes, 8, |bits| {
            Number::from_f64(f64::from_bits(bits)).map_or(Json::Null, Json::Number)
        }),
        Kind::Truth => booleans(bytes),
        Kind::Text => texts(bytes),
    }
}

/// Items of a fixed width of at most eight bytes, in little-endian order.
fn items(bytes: &[u8], width: u32, item: impl Fn(u64) -> Json) -> Result<Json, Invalid> {
    let all = bytes.chunks_exact(width as usize);
    if !all.remainder().is_empty() {
        return Err(TORN_ARRAY);
    }
    let bits = |bytes: &[u8]| bytes.iter().rfold(0, |bits, byte| bits << 8 | u64::from(*byte));
    Ok(Json::Array(all.map(|bytes| item(bits(bytes))).collect()))
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
