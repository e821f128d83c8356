//! A profile's schemas: proto3 as text, and messages of theirs to and from JSON.
//!
//! The message of a schema is its last one on the first level (**ours**): those before it are parts of it.
//! JSON has the fields' names as they are written. A field without presence is always in it, `0` as well, since a reading
//! of 0 is one; an `optional` one is if it was sent.
//!
//! # Invariants
//!
//! - **Bounded.** A schema has at most [`SCHEMA_BYTES_MAX`] and imports nothing but what the library brings; messages are
//!   as deep, and have as many values, as JSON may at most. Checked by `tests/it/thingsboard/schema.rs`.
//! - **No text is trusted.** A schema that can't be read is an error of its profile, never a panic. Checked by the same.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use prost::Message;
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage, Value,
};
use protox::{
    Compiler,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver},
};
use thiserror::Error;

use crate::thingsboard::{
    decimal,
    invalid::Invalid,
    json::{DEPTH_MAX, Json, NotJson, Number, VALUES_MAX},
};

/// The longest schema, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// What a schema's file is called while it is read.
const FILE: &str = "schema.proto";

/// The answer to a call, if a profile says nothing.
pub const RPC_RESPONSE_DEFAULT: &str = "syntax =\"proto3\";\npackage rpc;\n\n\
    message RpcResponseMsg {\n  optional string payload = 1;\n}";
/// A call, if a profile says nothing.
pub const RPC_REQUEST_DEFAULT: &str = "syntax =\"proto3\";\npackage rpc;\n\n\
    message RpcRequestMsg {\n  optional string method = 1;\n  optional int32 requestId = 2;\n  \
    optional string params = 3;\n}";

/// One schema, ready to be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    message: MessageDescriptor,
}

/// Why a text is no schema.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotASchema {
    /// Longer than [`SCHEMA_BYTES_MAX`].
    #[error("the schema is longer than {SCHEMA_BYTES_MAX} bytes")]
    TooLong,
    /// It does not compile: where and why.
    #[error("{0}")]
    Text(String),
    /// It is not proto3.
    #[error("the schema has to be proto3")]
    Syntax,
    /// There is no message in it.
    #[error("the schema has no message")]
    Empty,
}

/// One file, in memory.
struct Memory(String);

impl FileResolver for Memory {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match name {
            FILE => File::from_source(name, &self.0),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    ///
    /// [`NotASchema`].
    pub fn read(text: &str) -> Result<Self, NotASchema> {
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(NotASchema::TooLong);
        }
        let mut files = ChainFileResolver::new();
        files.add(Memory(text.to_owned()));
        files.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(files);
        compiler.include_imports(true);
        compiler.open_file(FILE).map_err(|error| NotASchema::Text(error.to_string()))?;
        let pool = compiler.descriptor_pool();
        let file = pool.get_file_by_name(FILE).ok_or(NotASchema::Empty)?;
        if file.syntax() != prost_reflect::Syntax::Proto3 {
            return Err(NotASchema::Syntax);
        }
        let message = file.messages().last().ok_or(NotASchema::Empty)?;
        Ok(Self { message })
    }

    /// A message of it as JSON.
    ///
    /// # Errors
    ///
    /// The bytes are none.
    pub fn to_json(&self, bytes: &[u8]) -> Result<Json, Invalid> {
        let message = DynamicMessage::decode(self.message.clone(), bytes);
        json_of(&message.map_err(|_| NOT_OURS)?, DEPTH_MAX, &mut { VALUES_MAX })
    }

    /// JSON as a message of it. Keys that it does not have are left out, as is `null`.
    ///
    /// # Errors
    ///
    /// A value does not fit its field.
    pub fn from_json(&self, json: &Json) -> Result<Vec<u8>, Invalid> {
        Ok(message_of(&self.message, json)?.encode_to_vec())
    }
}

/// A message is not what its profile's schema says.
const NOT_OURS: Invalid = Invalid::Protobuf("message of the profile's schema");

fn json_of(
    message: &DynamicMessage,
    levels: usize,
    values_left: &mut usize,
) -> Result<Json, Invalid> {
    let levels = levels.checked_sub(1).ok_or(NOT_OURS)?;
    let mut entries = Vec::new();
    for field in message.descriptor().fields() {
        let collection = field.is_list() || field.is_map();
        let implicit = !field.supports_presence() && !collection;
        if implicit || message.has_field(&field) {
            let value = value_json(&message.get_field(&field), &field.kind(), levels, values_left)?;
            entries.push((field.name().to_owned(), value));
        }
    }
    Ok(Json::Object(entries))
}

fn value_json(
    value: &Value,
    kind: &Kind,
    levels: usize,
    values_left: &mut usize,
) -> Result<Json, Invalid> {
    // A part of two bytes may have a thousand fields that are 0.
    *values_left = values_left.checked_sub(1).ok_or(NotJson::TooMany)?;
    Ok(match value {
        Value::Bool(value) => Json::Bool(*value),
        Value::I32(value) => Json::from(i64::from(*value)),
        Value::I64(value) => Json::from(*value),
        Value::U32(value) => Json::from(i64::from(*value)),
        Value::U64(value) => Json::Number(Number::from(*value)),
        // A float is written with as many digits as it has, not with those of a double.
        Value::F32(value) => Number::from_f32(*value).map_or_else(|| odd(*value), Json::Number),
        Value::F64(value) => Number::from_f64(*value).map_or_else(|| odd(*value), Json::Number),
        Value::String(text) => Json::from(text.as_str()),
        Value::Bytes(bytes) => Json::String(STANDARD.encode(bytes)),
        Value::EnumNumber(number) => enum_json(kind, *number),
        Value::Message(message) => json_of(message, levels, values_left)?,
        Value::List(items) => {
            let levels = levels.checked_sub(1).ok_or(NOT_OURS)?;
            let items = items.iter().map(|item| value_json(item, kind, levels, values_left));
            Json::Array(items.collect::<Result<_, _>>()?)
        }
        Value::Map(entries) => {
            let levels = levels.checked_sub(1).ok_or(NOT_OURS)?;
            let entry = kind.as_message().ok_or(NOT_OURS)?;
            let kind = entry.map_entry_value_field().kind();
            // The library's map has no order of its own.
            let mut ordered: BTreeMap<String, &Value> = BTreeMap::new();
            for (key, value) in entries {
                ordered.insert(map_key(key), value);
            }
            let entries = ordered.into_iter().map(|(key, value)| {
                let value = value_json(value, &kind, levels, values_left)?;
                Ok((key, value))
            });
            Json::Object(entries.collect::<Result<_, Invalid>>()?)
        }
    })
}

/// What JSON has no number for, by name.
fn odd(value: impl Into<f64>) -> Json {
    let value: f64 = value.into();
    match (value.is_nan(), value > 0.0) {
        (true, _) => Json::from("NaN"),
        (false, true) => Json::from("Infinity"),
        (false, false) => Json::from("-Infinity"),
    }
}

fn enum_json(kind: &Kind, number: i32) -> Json {
    let name = kind.as_enum().and_then(|kind| kind.get_value(number));
    name.map_or_else(|| Json::from(i64::from(number)), |value| Json::from(value.name()))
}

fn map_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

fn message_of(kind: &MessageDescriptor, json: &Json) -> Result<DynamicMessage, Invalid> {
    let entries = json.as_object().ok_or(Invalid::Shape("the schema wants an object here"))?;
    let mut message = DynamicMessage::new(kind.clone());
    for (key, value) in entries {
        let field = kind.get_field_by_name(key).or_else(|| kind.get_field_by_json_name(key));
        let Some(field) = field.filter(|_| !value.is_null()) else { continue };
        let value = field_of(&field, value)?;
        message.try_set_field(&field, value).map_err(|_| NOT_OURS)?;
    }
    Ok(message)
}

fn field_of(field: &FieldDescriptor, json: &Json) -> Result<Value, Invalid> {
    let wrong = Invalid::Shape("a value does not fit its field in the schema");
    if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
        let entries = json.as_object().ok_or(wrong)?;
        let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
        let entries = entries
            .iter()
            .map(|(name, json)| Ok((map_key_of(&key.kind(), name)?, single(&value.kind(), json)?)));
        return Ok(Value::Map(entries.collect::<Result<_, Invalid>>()?));
    }
    if field.is_list() {
        let items = json.as_array().ok_or(wrong)?;
        let items = items.iter().map(|item| single(&field.kind(), item));
        return Ok(Value::List(items.collect::<Result<_, _>>()?));
    }
    single(&field.kind(), json)
}

fn map_key_of(kind: &Kind, name: &str) -> Result<MapKey, Invalid> {
    let key = match kind {
        Kind::String => Some(MapKey::String(name.to_owned())),
        Kind::Bool => name.parse().ok().map(MapKey::Bool),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => name.parse().ok().map(MapKey::I32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => name.parse().ok().map(MapKey::I64),
        Kind::Uint32 | Kind::Fixed32 => name.parse().ok().map(MapKey::U32),
        Kind::Uint64 | Kind::Fixed64 => name.parse().ok().map(MapKey::U64),
        Kind::Double | Kind::Float | Kind::Bytes | Kind::Message(_) | Kind::Enum(_) => None,
    };
    key.ok_or(Invalid::Shape("a key does not fit its map in the schema"))
}

fn single(kind: &Kind, json: &Json) -> Result<Value, Invalid> {
    let value = match kind {
        Kind::Message(message) => return Ok(Value::Message(message_of(message, json)?)),
        Kind::Bool => json.as_bool().map(Value::Bool),
        // Where a text is wanted, other values come as the text of their JSON.
        Kind::String => {
            Some(Value::String(json.as_str().map_or_else(|| json.to_string(), str::to_owned)))
        }
        Kind::Bytes => json
            .as_str()
            .and_then(|text| STANDARD.decode(text).ok())
            .map(|b| Value::Bytes(b.into())),
        Kind::Enum(kind) => enum_of(kind, json).map(Value::EnumNumber),
        Kind::Double => number(json)
            .and_then(|text| text.parse().ok())
            .filter(|value: &f64| value.is_finite())
            .map(Value::F64),
        Kind::Float => number(json)
            .and_then(|text| text.parse().ok())
            .filter(|value: &f32| value.is_finite())
            .map(Value::F32),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            integer(json).and_then(|value| value.try_into().ok()).map(Value::I32)
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => integer(json).map(Value::I64),
        Kind::Uint32 | Kind::Fixed32 => {
            integer(json).and_then(|value| value.try_into().ok()).map(Value::U32)
        }
        Kind::Uint64 | Kind::Fixed64 => {
            number(json).and_then(|text| text.parse().ok()).map(Value::U64)
        }
    };
    value.ok_or(Invalid::Shape("a value does not fit its field in the schema"))
}

/// The text of a number, or of a text that is one.
fn number(json: &Json) -> Option<&str> {
    match json {
        Json::Number(number) => Some(number.as_str()),
        Json::String(text) if decimal::is_plain(text) => Some(text),
        Json::Null | Json::Bool(_) | Json::String(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

fn integer(json: &Json) -> Option<i64> {
    match decimal::value(number(json)?) {
        Ok(crate::thingsboard::values::Value::Long(value)) => Some(value),
        _ => None,
    }
}

fn enum_of(kind: &EnumDescriptor, json: &Json) -> Option<i32> {
    match json {
        Json::String(name) => kind.get_value_by_name(name).map(|value| value.number()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => {
            integer(json).and_then(|value| value.try_into().ok())
        }
    }
}
