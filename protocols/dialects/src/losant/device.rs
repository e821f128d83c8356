//! What is known of a device: its class, its gateway, its attributes with their types, its tags; as requests say it, as answers show
//! it, and as its registration keeps it.
//!
//! Invariant: **what is kept is read as the same**. Checked by `tests/it/losant/device.rs`.

use std::collections::BTreeMap;

use moorline_core::{Text, UnixMillis, calendar::rfc3339};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Invalid,
    access::{TAGS_MAX, Tag},
    id::Id,
};

/// Under which name a registration's metadata has all this.
const KEPT: &str = "losant";
/// Characters of a device's name.
pub const NAME_CHARS_MAX: usize = 255;
/// Characters of its description.
pub const DESCRIPTION_CHARS_MAX: usize = 4_096;
/// Attributes of a device. Its registration is smaller than so many in most cases.
pub const ATTRIBUTES_MAX: usize = 512;
/// Characters of an attribute's name.
const ATTRIBUTE_CHARS_MAX: usize = 255;

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Class {
    /// It speaks for itself.
    #[default]
    Standalone,
    /// It speaks for its peripherals, too.
    Gateway,
    /// A gateway with workflows of its own.
    EdgeCompute,
    /// One of a gateway.
    Peripheral,
    /// One of whichever gateway there is.
    Floating,
    /// A device of devices: it has no connection.
    System,
    /// An edge agent of a small device.
    Embedded,
}

const CLASSES: [(Class, &str); 7] = [
    (Class::Standalone, "standalone"),
    (Class::Gateway, "gateway"),
    (Class::EdgeCompute, "edgeCompute"),
    (Class::Peripheral, "peripheral"),
    (Class::Floating, "floating"),
    (Class::System, "system"),
    (Class::Embedded, "embedded"),
];

impl Class {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        CLASSES.iter().find(|(class, _)| *class == self).map_or("standalone", |(_, name)| name)
    }

    /// The class of a name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        CLASSES.iter().find(|(_, known)| *known == name).map(|(class, _)| *class)
    }

    /// Whether it may connect by itself.
    #[must_use]
    pub fn connects(self) -> bool {
        match self {
            Self::Standalone | Self::Gateway | Self::EdgeCompute | Self::Embedded => true,
            Self::Peripheral | Self::Floating | Self::System => false,
        }
    }

    /// Whether it speaks for others.
    #[must_use]
    pub fn speaks_for_others(self) -> bool {
        matches!(self, Self::Gateway | Self::EdgeCompute)
    }
}

/// What an attribute's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataType {
    /// A number.
    Number,
    /// A text.
    String,
    /// True or false.
    Boolean,
    /// A place.
    Gps,
    /// Bytes, as text.
    Blob,
}

const TYPES: [(DataType, &str); 5] = [
    (DataType::Number, "number"),
    (DataType::String, "string"),
    (DataType::Boolean, "boolean"),
    (DataType::Gps, "gps"),
    (DataType::Blob, "blob"),
];

impl DataType {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        TYPES.iter().find(|(kind, _)| *kind == self).map_or("string", |(_, name)| name)
    }

    /// The type of a name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        TYPES.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }
}

/// Attributes by name.
pub type Attributes = BTreeMap<String, DataType>;

/// Whether a text may be an attribute's name.
#[must_use]
pub fn is_attribute(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=ATTRIBUTE_CHARS_MAX).contains(&name.len()) && name.bytes().all(plain)
}

/// What is known of a device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// See [`Class`].
    pub class: Class,
    /// Of a peripheral: whose it is.
    pub gateway: Option<Id>,
    /// What it reports.
    pub attributes: Attributes,
    /// For finding it, and for keys and commands to many.
    pub tags: Vec<Tag>,
}

impl About {
    /// Out of a registration's metadata. A device that nobody described is a standalone one without attributes.
    #[must_use]
    pub fn read(metadata: &Map<String, Value>) -> Self {
        let kept = &metadata.get(KEPT).cloned().unwrap_or_default();
        let text = |key: &str| kept[key].as_str().unwrap_or_default().to_owned();
        let known = |(name, kind): (&String, &Value)| {
            Some((name.clone(), DataType::by_name(kind.as_str()?)?))
        };
        let attributes = kept["attributes"].as_object();
        Self {
            name: text("name"),
            description: text("description"),
            class: kept["class"].as_str().and_then(Class::by_name).unwrap_or_default(),
            gateway: kept["gateway"].as_str().and_then(|id| Id::parse(id.as_bytes())),
            attributes: attributes.into_iter().flatten().filter_map(known).collect(),
            tags: Deserialize::deserialize(&kept["tags"]).unwrap_or_default(),
        }
    }

    /// Into a registration's metadata, beside whatever else is there.
    pub fn write(&self, metadata: &mut Map<String, Value>) {
        let mut kept = Map::new();
        let mut keep = |key: &str, value: Value| {
            let is_empty = match &value {
                Value::String(text) => text.is_empty(),
                Value::Object(object) => object.is_empty(),
                Value::Array(array) => array.is_empty(),
                Value::Null => true,
                Value::Bool(_) | Value::Number(_) => false,
            };
            if !is_empty {
                kept.insert(key.to_owned(), value);
            }
        };
        keep("name", json!(self.name));
        keep("description", json!(self.description));
        keep("class", json!(self.class.name()));
        keep("gateway", json!(self.gateway.as_ref().map(Id::as_str)));
        let types = self.attributes.iter().map(|(name, kind)| (name.clone(), json!(kind.name())));
        keep("attributes", Value::Object(types.collect()));
        keep("tags", json!(self.tags));
        metadata.insert(KEPT.to_owned(), Value::Object(kept));
    }

    /// Whether a device of this class, with this id, may speak for that one.
    #[must_use]
    pub fn is_spoken_for_by(&self, class: Class, id: &Id) -> bool {
        class.speaks_for_others()
            && match self.class {
                Class::Floating => true,
                Class::Peripheral => self.gateway.as_ref() == Some(id),
                Class::Standalone
                | Class::Gateway
                | Class::EdgeCompute
                | Class::System
                | Class::Embedded => false,
            }
    }

    /// As answers show it.
    #[must_use]
    pub fn shown(&self, of: &Shown<'_>) -> Value {
        let attribute =
            |(name, kind): (&String, &DataType)| json!({ "name": name, "dataType": kind.name() });
        let attributes: Vec<_> = self.attributes.iter().map(attribute).collect();
        let mut shown = json!({
            "id": of.id.as_str(),
            "deviceId": of.id.as_str(),
            "applicationId": of.application.as_str(),
            "name": self.name,
            "description": self.description,
            "deviceClass": self.class.name(),
            "attributes": attributes,
            "tags": self.tags,
            "creationDate": rfc3339(of.created),
            "lastUpdated": rfc3339(of.updated),
            "connectionInfo": of.connection,
        });
        if let Some(gateway) = &self.gateway {
            shown["gatewayId"] = json!(gateway.as_str());
        }
        shown
    }
}

/// What of a device is not in its description.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Its id.
    pub id: &'a Id,
    /// Its application's.
    pub application: &'a Text,
    /// When it was made.
    pub created: UnixMillis,
    /// When it was last changed.
    pub updated: UnixMillis,
    /// Whether it is connected, and since when.
    pub connection: &'a Value,
}

/// A change of a device, or a new one. What is not said stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Change {
    name: Option<String>,
    description: Option<String>,
    device_class: Option<String>,
    gateway_id: Option<String>,
    attributes: Option<Vec<Attribute>>,
    tags: Option<Vec<Tag>>,
}

/// An attribute as it is said. What describes it further has no place here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attribute {
    name: String,
    data_type: String,
}

impl Change {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// What of it is wrong.
    pub fn read(body: &[u8]) -> Result<Self, Invalid> {
        serde_json::from_slice(body).map_err(|why| Invalid(why.to_string()))
    }

    /// What comes of it.
    ///
    /// # Errors
    ///
    /// What of it cannot be.
    pub fn made(self, mut about: About) -> Result<About, Invalid> {
        let fits = |text: &str, most: usize| text.chars().count() <= most;
        if let Some(name) = self.name {
            if name.is_empty() || !fits(&name, NAME_CHARS_MAX) {
                return Err(Invalid::new("name: 1 to 255 characters"));
            }
            about.name = name;
        }
        if let Some(description) = self.description {
            if !fits(&description, DESCRIPTION_CHARS_MAX) {
                return Err(Invalid::new("description: too long"));
            }
            about.description = description;
        }
        if let Some(class) = self.device_class {
            let known = Class::by_name(&class);
            about.class = known.ok_or_else(|| Invalid(format!("deviceClass: {class:?}")))?;
        }
        if let Some(gateway) = self.gateway_id {
            let id = Id::parse(gateway.as_bytes());
            about.gateway = Some(id.ok_or_else(|| Invalid(format!("gatewayId: {gateway:?}")))?);
        }
        if let Some(attributes) = self.attributes {
            about.attributes = attributes_of(attributes)?;
        }
        if let Some(tags) = self.tags {
            if tags.len() > TAGS_MAX || !tags.iter().all(Tag::is_well_formed) {
                return Err(Invalid(format!("tags: {TAGS_MAX} at most, each with key or value")));
            }
            about.tags = tags;
        }
        if about.name.is_empty() {
            return Err(Invalid::new("name is required"));
        }
        if about.class != Class::Peripheral {
            about.gateway = None;
        }
        Ok(about)
    }
}

fn attributes_of(said: Vec<Attribute>) -> Result<Attributes, Invalid> {
    if said.len() > ATTRIBUTES_MAX {
        return Err(Invalid(format!("attributes: {ATTRIBUTES_MAX} at most")));
    }
    let mut attributes = Attributes::new();
    for Attribute { name, data_type } in said {
        if !is_attribute(&name) {
            return Err(Invalid(format!("attributes: {name:?} is no name")));
        }
        let Some(kind) = DataType::by_name(&data_type) else {
            return Err(Invalid(format!("attributes: {data_type:?} is no dataType")));
        };
        attributes.insert(name, kind);
    }
    Ok(attributes)
}
