//! CloudEvents: what a device said, as applications get it (§3.9).
//!
//! # Invariants
//!
//! - **What is written in structured form is read as the same event**, and JSON that a device wrote stands in it byte by byte.
//! - **What is taken as JSON is JSON to whoever reads the event**: both read all of it, as deep as it stands there.
//!
//! Checked by `tests/it/drogue/event.rs`.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use moorline_core::{UnixMillis, calendar};
use serde_json::{Map, Value};
use thiserror::Error;

use super::words::name_escaped;

/// JSON.
pub const JSON: &str = "application/json";
/// What is nothing else.
pub const OCTETS: &str = "application/octet-stream";
/// An event in structured form.
pub const STRUCTURED: &str = "application/cloudevents+json; charset=utf-8";
/// The channel of connection events.
pub const CONNECTION: &str = "connection";
/// The channel of what is said of the registry.
pub const DEVICES: &str = "devices";
/// What is said of a device's event.
const EVENT_TYPE: &str = "io.drogue.event.v1";
/// That a device came or went.
const CONNECTION_TYPE: &str = "io.drogue.connection.v1";
/// That something in the registry changed.
const REGISTRY_TYPE: &str = "io.drogue.registry.v1";
/// Which cloud it is: the vendor's default.
const INSTANCE: &str = "drogue";
/// Before JSON that is said as it was written, behind all else.
const BEFORE_DATA: &[u8] = br#","data":"#;
/// The member of an event that is data in base64.
const DATA_BASE64: &str = "data_base64";
/// Attributes that an event can't be without.
const REQUIRED: [&str; 4] = ["specversion", "id", "type", "source"];
/// Attributes that are no extensions.
const CONTEXT: [&str; 8] =
    ["specversion", "id", "type", "source", "subject", "time", "datacontenttype", "dataschema"];

/// It says that it is JSON, and is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the payload is not JSON")]
pub struct NotJson;

/// An event can't be without this attribute, or can't have one of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the attribute can't be changed so")]
pub struct WrongAttribute;

/// Whose an event is, and who said it.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// The application, and its id.
    pub application: (&'a str, &'a str),
    /// The device that it is about, and its id.
    pub device: (&'a str, &'a str),
    /// The device that said it, and its id.
    pub sender: (&'a str, &'a str),
}

/// What became of a device in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// It was made.
    Created,
    /// It is another one now.
    Changed,
    /// It is no more.
    Deleted,
}

impl Change {
    /// As events say it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
        }
    }
}

/// What is said.
#[derive(Debug, Clone, Copy)]
pub struct Publish<'a> {
    /// The channel.
    pub channel: &'a str,
    /// The content type that came with it.
    pub content_type: Option<&'a str>,
    /// The schema that came with it.
    pub data_schema: Option<&'a str>,
    /// Extensions besides those that every event has.
    pub extensions: &'a [(&'a str, &'a str)],
    /// What it says.
    pub data: &'a Bytes,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudEvent {
    /// All attributes but the content type, extensions among them.
    attributes: BTreeMap<String, String>,
    content_type: Option<String>,
    data: Bytes,
}

/// Whether a content type is one of JSON.
fn is_json_type(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media == JSON || media == "text/json" || media.ends_with("+json")
}

/// Whether this can stand as JSON in an event: half of a pair of UTF-16, numbers beyond what a double says, and what is too deep can't.
fn is_json(data: &[u8]) -> bool {
    // As deep as it stands in an event.
    let within = [b"[", data, b"]"].concat();
    serde_json::from_slice::<Vec<Value>>(&within).is_ok_and(|all| all.len() == 1)
}

/// The content type of what came with this one, or without any.
///
/// # Errors
///
/// [`NotJson`].
pub fn content_type(declared: Option<&str>, data: &[u8]) -> Result<String, NotJson> {
    match declared.filter(|declared| !declared.is_empty()) {
        Some(declared) if !is_json_type(declared) => Ok(declared.to_owned()),
        Some(_) if is_json(data) => Ok(JSON.to_owned()),
        Some(_) => Err(NotJson),
        None => Ok(if is_json(data) { JSON } else { OCTETS }.to_owned()),
    }
}

/// An extension's name: lower-case letters and digits.
fn is_extension(name: &str) -> bool {
    let is_plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    !name.is_empty() && is_plain && !CONTEXT.contains(&name) && name != "data"
}

impl CloudEvent {
    fn new(kind: &str, id: &str, at: UnixMillis, names: &Names<'_>, subject: &str) -> Self {
        let Names { application, device, sender } = names;
        let source = format!("drogue://{}/{}", application.0, name_escaped(device.0));
        let key = format!("{}/{}", name_escaped(application.0), name_escaped(sender.0));
        let attributes = [
            ("specversion", "1.0"),
            ("id", id),
            ("type", kind),
            ("source", &source),
            ("subject", subject),
            ("time", &calendar::rfc3339(at)),
            ("instance", INSTANCE),
            ("application", application.0),
            ("applicationuid", application.1),
            ("device", device.0),
            ("deviceuid", device.1),
            ("sender", sender.0),
            ("senderuid", sender.1),
            ("partitionkey", &key),
        ];
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { attributes: attributes.into(), content_type: None, data: Bytes::new() }
    }

    /// What a device said. `id` is nobody else's.
    ///
    /// # Errors
    ///
    /// [`NotJson`].
    pub fn said(
        id: &str,
        at: UnixMillis,
        names: &Names<'_>,
        publish: &Publish<'_>,
    ) -> Result<Self, NotJson> {
        let mut event = Self::new(EVENT_TYPE, id, at, names, publish.channel);
        event.content_type = Some(content_type(publish.content_type, publish.data)?);
        event.data = publish.data.clone();
        let extensions = publish.extensions.iter().copied();
        let extensions = extensions.filter(|(name, _)| is_extension(name));
        let schema = publish.data_schema.map(|schema| ("dataschema", schema));
        for (name, value) in extensions.chain(schema) {
            event.attributes.insert(name.to_owned(), value.to_owned());
        }
        Ok(event)
    }

    /// A device came, or went.
    #[must_use]
    pub fn connection(id: &str, at: UnixMillis, names: &Names<'_>, connected: bool) -> Self {
        let mut event = Self::new(CONNECTION_TYPE, id, at, names, CONNECTION);
        event.content_type = Some(JSON.to_owned());
        event.data = Bytes::from(format!(r#"{{"connected":{connected}}}"#));
        event
    }

    /// A device was made, changed or deleted.
    #[must_use]
    pub fn registry(id: &str, at: UnixMillis, names: &Names<'_>, change: Change) -> Self {
        let mut event = Self::new(REGISTRY_TYPE, id, at, names, DEVICES);
        event.content_type = Some(JSON.to_owned());
        event.data = Bytes::from(format!(r#"{{"change":"{}"}}"#, change.name()));
        event
    }

    /// An attribute or extension.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        match name {
            "datacontenttype" => self.content_type.as_deref(),
            name => self.attributes.get(name).map(String::as_str),
        }
    }

    /// Sets an extension; those that every event has, too.
    ///
    /// # Errors
    ///
    /// There is no such name.
    pub fn set_extension(&mut self, name: &str, value: &str) -> Result<(), WrongAttribute> {
        if !is_extension(name) {
            return Err(WrongAttribute);
        }
        self.attributes.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// Removes an extension. One that is not there is as good as removed.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn remove_extension(&mut self, name: &str) -> Result<(), WrongAttribute> {
        if !is_extension(name) {
            return Err(WrongAttribute);
        }
        self.attributes.remove(name);
        Ok(())
    }

    /// Sets an attribute.
    ///
    /// # Errors
    ///
    /// There is no such attribute.
    pub fn set_attribute(&mut self, name: &str, value: &str) -> Result<(), WrongAttribute> {
        match name {
            "specversion" => return Err(WrongAttribute),
            "datacontenttype" => self.content_type = Some(value.to_owned()),
            name if CONTEXT.contains(&name) => {
                self.attributes.insert(name.to_owned(), value.to_owned());
            }
            _ => return Err(WrongAttribute),
        }
        Ok(())
    }

    /// Removes an attribute.
    ///
    /// # Errors
    ///
    /// There is no such attribute, or an event can't be without it.
    pub fn remove_attribute(&mut self, name: &str) -> Result<(), WrongAttribute> {
        if REQUIRED.contains(&name) || !CONTEXT.contains(&name) {
            return Err(WrongAttribute);
        }
        if name == "datacontenttype" {
            self.content_type = None;
        }
        self.attributes.remove(name);
        Ok(())
    }

    /// Something else is said, of another type perhaps.
    #[must_use]
    pub fn with_data(self, content_type: Option<String>, data: Bytes) -> Self {
        Self { content_type, data, ..self }
    }

    /// What it says.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Its attributes and extensions, but for the content type, by name: how the binary form says them.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What stands beside the data in structured form.
    fn beside(&self) -> Map<String, Value> {
        let mut said: Map<String, Value> =
            self.attributes().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
        if let Some(content_type) = &self.content_type {
            said.insert("datacontenttype".to_owned(), Value::from(content_type.as_str()));
        }
        said
    }

    /// The structured form.
    #[must_use]
    pub fn structured(&self) -> Bytes {
        let mut said = self.beside();
        let has_data = self.content_type.is_some() || !self.data.is_empty();
        let json = self.content_type.as_deref().is_some_and(is_json_type) && is_json(&self.data);
        if !has_data || json {
            let mut text = Value::Object(said).to_string().into_bytes();
            if has_data {
                // As it was written: numbers keep their digits.
                text.pop();
                text.extend_from_slice(BEFORE_DATA);
                text.extend_from_slice(self.data.trim_ascii());
                text.push(b'}');
            }
            return text.into();
        }
        said.insert(DATA_BASE64.to_owned(), Value::from(STANDARD.encode(&self.data)));
        Bytes::from(Value::Object(said).to_string())
    }

    /// One out of the parts of its binary form; [`None`] if one is missing that every event has.
    #[must_use]
    pub fn of_binary(
        attributes: BTreeMap<String, String>,
        content_type: Option<String>,
        data: Bytes,
    ) -> Option<Self> {
        let is_whole = REQUIRED.iter().all(|name| attributes.contains_key(*name));
        is_whole.then_some(Self { attributes, content_type, data })
    }

    /// Reads what [`Self::structured`] wrote: JSON is as it was written, with all digits and spaces.
    #[must_use]
    pub fn kept(body: &Bytes) -> Option<Self> {
        let mut event = Self::read(body)?;
        let mut beside = Value::Object(event.beside()).to_string().into_bytes();
        beside.pop();
        beside.extend_from_slice(BEFORE_DATA);
        if let Some(data) = body.strip_prefix(&beside[..]).and_then(|rest| rest.strip_suffix(b"}"))
        {
            event.data = body.slice_ref(data);
        }
        Some(event)
    }

    /// Reads the structured form.
    #[must_use]
    pub fn read(body: &[u8]) -> Option<Self> {
        let Value::Object(said) = serde_json::from_slice(body).ok()? else { return None };
        let mut event =
            Self { attributes: BTreeMap::new(), content_type: None, data: Bytes::new() };
        for (name, value) in said {
            match (name.as_str(), value) {
                ("data", value) => event.data = Bytes::from(value.to_string()),
                (DATA_BASE64, Value::String(encoded)) => {
                    event.data = STANDARD.decode(encoded).ok()?.into();
                }
                ("datacontenttype", Value::String(text)) => event.content_type = Some(text),
                (_, Value::String(text)) => drop(event.attributes.insert(name, text)),
                // Types of CloudEvents that are texts here. Attributes are texts there, too.
                (name, value @ (Value::Bool(_) | Value::Number(_)))
                    if !CONTEXT.contains(&name) && name != DATA_BASE64 =>
                {
                    event.attributes.insert(name.to_owned(), value.to_string());
                }
                (_, Value::Bool(_) | Value::Number(_)) => return None,
                (_, Value::Null) => {}
                (_, Value::Array(_) | Value::Object(_)) => return None,
            }
        }
        REQUIRED.iter().all(|name| event.attributes.contains_key(*name)).then_some(event)
    }
}
