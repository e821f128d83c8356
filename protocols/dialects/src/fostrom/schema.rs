//! Packet schemas: which fields a fleet's datapoints and messages have.
//!
//! An unknown schema is refused. A payload that does not match is answered with success, dropped, counted and shown to the
//! fleet's people: a device in the field can't mend it. So [`Schemas::check`] tells the two apart.
//!
//! # Deliberately absent
//!
//! System pulses, which have no schema. Fleets that have not set any up: their policy decides whether to ask here.

use std::{collections::BTreeMap, fmt};

use moorline_core::op::{Declined, Event, EventKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::{is_name, payload};

/// Schemas of one fleet, at most.
pub const SCHEMAS_MAX: usize = 256;
/// Fields of one schema, at most.
pub const FIELDS_MAX: usize = 64;

/// What a schema is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Telemetry.
    Datapoint,
    /// Messages and mail.
    Msg,
}

/// Which way its packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From devices.
    Inbound,
    /// To devices.
    Outbound,
    /// Either way.
    Both,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum FieldType {
    /// Any number.
    Decimal,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Boolean,
    String,
}

/// One field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// What it holds.
    #[serde(rename = "type")]
    pub field_type: FieldType,
    /// Whether it may be left out, or `null`.
    #[serde(default)]
    pub optional: bool,
}

/// One schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// What it is for.
    pub kind: Kind,
    /// Which way its packets go.
    pub direction: Direction,
    /// Its fields. None: it is its name only.
    #[serde(default)]
    pub fields: BTreeMap<String, Field>,
}

/// A fleet's schemas, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schemas(pub BTreeMap<String, Schema>);

/// Why a payload does not match its schema.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Mismatch {
    /// It is no object.
    #[error("the payload is no object")]
    NoObject,
    /// A field is not there.
    #[error("field {0} is missing")]
    Missing(String),
    /// A field is there that the schema does not have.
    #[error("field {0} is not in the schema")]
    Unexpected(String),
    /// A field holds something else.
    #[error("field {name} is no {expected}")]
    Type {
        /// Which field.
        name: String,
        /// What it should hold.
        expected: FieldType,
    },
}

/// A schema that can't be one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SchemaError {
    /// More than [`SCHEMAS_MAX`].
    #[error("more than {SCHEMAS_MAX} packet schemas")]
    TooMany,
    /// The name is no name.
    #[error("{0:?} is no name of a packet schema: 1 to 255 of A-Z a-z 0-9 _ -")]
    Name(String),
    /// More than [`FIELDS_MAX`] fields.
    #[error("packet schema {0} has more than {FIELDS_MAX} fields")]
    TooManyFields(String),
}

impl Schemas {
    /// Checks what the types cannot. Called once, before a fleet gets them.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), SchemaError> {
        if self.0.len() > SCHEMAS_MAX {
            return Err(SchemaError::TooMany);
        }
        for (name, schema) in &self.0 {
            if !is_name(name.as_bytes()) {
                return Err(SchemaError::Name(name.clone()));
            }
            if schema.fields.len() > FIELDS_MAX {
                return Err(SchemaError::TooManyFields(name.clone()));
            }
        }
        Ok(())
    }

    /// Whether an event is what its schema says: accepted, accepted and to be dropped, or refused.
    ///
    /// # Errors
    ///
    /// [`Declined::UnknownSchema`], or why its body can't be read.
    pub fn check(&self, event: &Event) -> Result<Result<(), Mismatch>, Declined> {
        let kind = match event.kind {
            EventKind::Datapoint => Kind::Datapoint,
            EventKind::Message => Kind::Msg,
            EventKind::System => return Ok(Ok(())),
        };
        let schema = self.0.get(event.channel.as_str());
        let inbound = |schema: &&Schema| {
            schema.kind == kind && matches!(schema.direction, Direction::Inbound | Direction::Both)
        };
        let schema = schema.filter(inbound).ok_or(Declined::UnknownSchema)?;
        Ok(schema.matches(&payload::read(event.format, &event.body)?))
    }
}

impl Schema {
    /// Whether a payload has these fields, and no others.
    ///
    /// # Errors
    ///
    /// The first thing that is different.
    pub fn matches(&self, payload: &Value) -> Result<(), Mismatch> {
        let none = serde_json::Map::new();
        let given = match payload {
            Value::Object(fields) => fields,
            // A message without a payload is one without fields.
            Value::Null => &none,
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(Mismatch::NoObject);
            }
        };
        for (name, field) in &self.fields {
            match given.get(name) {
                None | Some(Value::Null) if field.optional => {}
                None => return Err(Mismatch::Missing(name.clone())),
                Some(value) if field.field_type.holds(value) => {}
                Some(_) => {
                    let expected = field.field_type;
                    return Err(Mismatch::Type { name: name.clone(), expected });
                }
            }
        }
        match given.keys().find(|name| !self.fields.contains_key(*name)) {
            Some(name) => Err(Mismatch::Unexpected(name.clone())),
            None => Ok(()),
        }
    }
}

impl FieldType {
    /// Whether a value is of this type. `1.0` is no integer.
    #[must_use]
    pub fn holds(self, value: &Value) -> bool {
        let signed = |min: i64, max: i64| value.as_i64().is_some_and(|n| (min..=max).contains(&n));
        let unsigned = |max: u64| value.as_u64().is_some_and(|n| n <= max);
        match self {
            Self::Decimal => value.is_number(),
            Self::Int8 => signed(i8::MIN.into(), i8::MAX.into()),
            Self::Int16 => signed(i16::MIN.into(), i16::MAX.into()),
            Self::Int32 => signed(i32::MIN.into(), i32::MAX.into()),
            Self::Int64 => signed(i64::MIN, i64::MAX),
            Self::Uint8 => unsigned(u8::MAX.into()),
            Self::Uint16 => unsigned(u16::MAX.into()),
            Self::Uint32 => unsigned(u32::MAX.into()),
            Self::Uint64 => unsigned(u64::MAX),
            Self::Boolean => value.is_boolean(),
            Self::String => value.is_string(),
        }
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Decimal => "decimal",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Uint8 => "uint8",
            Self::Uint16 => "uint16",
            Self::Uint32 => "uint32",
            Self::Uint64 => "uint64",
            Self::Boolean => "boolean",
            Self::String => "string",
        })
    }
}
