//! Payloads: JSON and MessagePack, read with limits, and turned into each other.
//!
//! # Invariants
//!
//! - **One form inside.** An event's body is JSON from here on, whatever a device wrote; JSON is passed on as it came, so
//!   that no digit of a number is lost. Checked by `tests/it/payload.rs`.
//! - **Bounded.** No payload is larger than [`PAYLOAD_BYTES_MAX`] in either form, or deeper than [`DEPTH_MAX`].
//!   Checked by the same.

use bytes::Bytes;
use moorline_core::{
    op::{Declined, Event, EventKind, Format, Mail},
    port::Refusal,
};
use serde_json::{Map, Number, Value};

use super::is_name;

/// The most bytes of a payload, either way and in either format: what the vendor's agent takes.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// The most levels of arrays and maps in each other. Readings of sensors have three or four; each costs stack.
pub const DEPTH_MAX: usize = 32;
/// The same as the library counts it, which takes several steps for a level. [`json_of`] counts exactly; this only keeps
/// the library's own recursion short.
const MSGPACK_DEPTH_MAX: usize = 4 * DEPTH_MAX;

/// MessagePack of JavaScript's `undefined`: extension 0 with one zero, as `msgpackr` of the SDK of 2024 writes it.
const UNDEFINED: (i8, &[u8]) = (0, &[0]);

/// Reads a payload. Nothing at all is `null`.
///
/// # Errors
///
/// What is wrong with it.
pub fn read(format: Format, bytes: &[u8]) -> Result<Value, Declined> {
    if bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(Refusal::TooLarge.into());
    }
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    match format {
        Format::Json => {
            let value = serde_json::from_slice(bytes);
            let value = value.map_err(|_| Declined::Unreadable("not JSON, or nested too deep"))?;
            if depth_exceeds(&value, DEPTH_MAX) {
                return Err(Declined::Unreadable("nested too deep"));
            }
            Ok(value)
        }
        Format::MsgPack => json_of(read_msgpack(bytes)?, DEPTH_MAX),
    }
}

/// Reads one MessagePack value that is all there is.
pub(super) fn read_msgpack(mut bytes: &[u8]) -> Result<rmpv::Value, Declined> {
    if bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(Refusal::TooLarge.into());
    }
    let value = rmpv::decode::read_value_with_max_depth(&mut bytes, MSGPACK_DEPTH_MAX);
    let value = value.map_err(|_| Declined::Unreadable("not MessagePack, or nested too deep"))?;
    if !bytes.is_empty() {
        return Err(Declined::Unreadable("bytes after the MessagePack"));
    }
    Ok(value)
}

/// MessagePack as JSON. `levels`: how many arrays and maps may be in each other.
pub(super) fn json_of(value: rmpv::Value, levels: usize) -> Result<Value, Declined> {
    let deeper = || levels.checked_sub(1).ok_or(Declined::Unreadable("nested too deep"));
    Ok(match value {
        rmpv::Value::Nil => Value::Null,
        rmpv::Value::Boolean(value) => Value::Bool(value),
        rmpv::Value::Integer(value) => Value::Number(match value.as_u64() {
            Some(value) => value.into(),
            None => value.as_i64().expect("it is an u64 or an i64").into(),
        }),
        rmpv::Value::F32(value) => float(f64::from(value))?,
        rmpv::Value::F64(value) => float(value)?,
        rmpv::Value::String(text) => Value::String(text_of(text)?),
        rmpv::Value::Binary(_) => return Err(Declined::Unreadable("binary has no form in JSON")),
        rmpv::Value::Ext(kind, data) if (kind, data.as_slice()) == UNDEFINED => Value::Null,
        rmpv::Value::Ext(..) => return Err(Declined::Unreadable("an extension of MessagePack")),
        rmpv::Value::Array(items) => {
            let levels = deeper()?;
            let items = items.into_iter().map(|item| json_of(item, levels));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        rmpv::Value::Map(entries) => {
            let levels = deeper()?;
            let mut map = Map::new();
            for (key, value) in entries {
                let rmpv::Value::String(key) = key else {
                    return Err(Declined::Unreadable("a key that is no text"));
                };
                map.insert(text_of(key)?, json_of(value, levels)?);
            }
            Value::Object(map)
        }
    })
}

fn float(value: f64) -> Result<Value, Declined> {
    let number = Number::from_f64(value);
    number.map(Value::Number).ok_or(Declined::Unreadable("a number that JSON does not have"))
}

fn text_of(text: rmpv::Utf8String) -> Result<String, Declined> {
    text.into_str().ok_or(Declined::Unreadable("a text that is not UTF-8"))
}

fn depth_exceeds(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => {
            levels == 0 || items.iter().any(|item| depth_exceeds(item, levels - 1))
        }
        Value::Object(map) => {
            levels == 0 || map.values().any(|item| depth_exceeds(item, levels - 1))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Writes a value.
#[must_use]
pub fn write(format: Format, value: Value) -> Bytes {
    match format {
        Format::Json => Bytes::from(value.to_string()),
        Format::MsgPack => write_msgpack(&msgpack_of(value)),
    }
}

pub(super) fn write_msgpack(value: &rmpv::Value) -> Bytes {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).expect("a Vec takes everything");
    Bytes::from(bytes)
}

/// JSON as MessagePack.
pub(super) fn msgpack_of(value: Value) -> rmpv::Value {
    match value {
        Value::Null => rmpv::Value::Nil,
        Value::Bool(value) => rmpv::Value::Boolean(value),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(value), _) => value.into(),
            (None, Some(value)) => value.into(),
            (None, None) => number.as_f64().map_or(rmpv::Value::Nil, rmpv::Value::F64),
        },
        Value::String(text) => text.into(),
        Value::Array(items) => rmpv::Value::Array(items.into_iter().map(msgpack_of).collect()),
        Value::Object(map) => {
            let entries = map.into_iter().map(|(key, value)| (key.into(), msgpack_of(value)));
            rmpv::Value::Map(entries.collect())
        }
    }
}

/// An event as a device wrote it, checked and with a JSON body; without any, if it said `null`.
///
/// # Errors
///
/// What is wrong with it. A name that no schema can have is an unknown one.
pub fn event(event: Event) -> Result<Event, Declined> {
    if !is_name(event.channel.as_bytes()) {
        return Err(Declined::UnknownSchema);
    }
    let value = read(event.format, &event.body)?;
    match (event.kind, &value) {
        (EventKind::Datapoint, Value::Object(fields)) if !fields.is_empty() => {}
        (EventKind::Datapoint, _) => {
            return Err(Declined::Unreadable("a datapoint is an object with fields"));
        }
        (EventKind::Message, Value::Object(_) | Value::Null) | (EventKind::System, _) => {}
        (EventKind::Message, _) => {
            return Err(Declined::Unreadable("a message is an object or nothing"));
        }
    }
    let body = match (event.format, value) {
        (_, Value::Null) => Bytes::new(),
        (Format::Json, _) => event.body,
        (Format::MsgPack, value) => write(Format::Json, value),
    };
    if body.len() > PAYLOAD_BYTES_MAX {
        return Err(Refusal::TooLarge.into());
    }
    Ok(Event { format: Format::Json, body, ..event })
}

/// A mail for a connection of this format. A payload that can't be read is left out: the mail has to be settled all the
/// same, or it blocks the mailbox.
#[must_use]
pub fn mail(format: Format, mail: Mail) -> Mail {
    if mail.format == format || mail.payload.is_empty() {
        return Mail { format, ..mail };
    }
    let payload = read(mail.format, &mail.payload).map(|value| write(format, value));
    Mail { format, payload: payload.unwrap_or_default(), ..mail }
}
