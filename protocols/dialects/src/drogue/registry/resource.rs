//! Devices and applications as they are shown, and as they are written.
//!
//! # Invariants
//!
//! - **Credentials are never shown.** Written without them, a device keeps those it has; written with them, it has those and no other.
//! - **What is written can be read later**: rules, dialects and gateways that can't are refused.
//!
//! Checked by `tests/it/drogue/registry.rs`.

use moorline_core::{UnixMillis, calendar};
use serde_json::{Map, Value, json};

use super::{
    credentials::{self, Credential},
    device::{GATEWAYS_MAX, Kept, is_disabled},
    patch,
};
use crate::drogue::{rules::Rules, topics::Dialect};

/// What the platform knows of a resource besides what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known<'a> {
    /// The application; [`None`] of one itself.
    pub application: Option<&'a str>,
    /// Its name.
    pub name: &'a str,
    /// Its id.
    pub uid: &'a str,
    /// When it was made.
    pub created: UnixMillis,
    /// Its version.
    pub version: u64,
    /// Whether it is enabled.
    pub enabled: bool,
}

/// A resource as it is shown.
#[must_use]
pub fn shown(known: &Known<'_>, kept: &Kept) -> Value {
    let mut metadata = json!({
        "name": known.name,
        "uid": known.uid,
        "creationTimestamp": calendar::rfc3339(known.created),
        "generation": known.version,
        "resourceVersion": known.version.to_string(),
    });
    if let Some(application) = known.application {
        metadata["application"] = Value::from(application);
    }
    for (name, texts) in [("labels", &kept.labels), ("annotations", &kept.annotations)] {
        if !texts.is_empty() {
            metadata[name] = json!(texts);
        }
    }
    let mut spec = Kept::without_credentials(kept.spec.clone());
    if !known.enabled {
        spec.insert("core".to_owned(), json!({ "disabled": true }));
    }
    let mut said = Map::from_iter([("metadata".to_owned(), metadata)]);
    if !spec.is_empty() {
        said.insert("spec".to_owned(), Value::Object(spec));
    }
    Value::Object(said)
}

/// A resource as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its name.
    pub name: String,
    /// The application that it says it is of.
    pub application: Option<String>,
    /// What is kept with it.
    pub kept: Kept,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Its credentials, if it says any.
    pub credentials: Option<Vec<Credential>>,
    /// Which one it is meant to be.
    pub uid: Option<String>,
    /// Which version of it is meant.
    pub version: Option<String>,
}

impl Written {
    /// What is kept of an application, which has no row to say whether it is enabled.
    #[must_use]
    pub fn of_application(mut self) -> Kept {
        if !self.enabled {
            self.kept.spec.insert("core".to_owned(), json!({ "disabled": true }));
        }
        self.kept
    }
}

/// Reads one.
///
/// # Errors
///
/// Why not.
pub fn read(body: &Value) -> Result<Written, String> {
    if !patch::fits(body) {
        return Err("it is too large, or too deep".to_owned());
    }
    let metadata = body["metadata"].as_object().ok_or("metadata is missing")?;
    let text = |name: &str| {
        let said = metadata.get(name).and_then(Value::as_str);
        said.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let spec = match body.get("spec") {
        None | Some(Value::Null) => Map::new(),
        Some(spec) => spec.as_object().cloned().ok_or("spec is no object")?,
    };
    let has_credentials =
        ["authentication", "credentials"].iter().any(|name| spec.contains_key(*name));
    let listed = has_credentials.then(|| credentials::of(&spec).into_iter().collect());
    let credentials = listed.transpose()?;
    let enabled = !is_disabled(&spec);
    let mut kept = Kept::without_credentials(spec);
    // That is the row's.
    kept.remove("core");
    counts(&kept)?;
    Ok(Written {
        name: text("name").ok_or("metadata.name is missing")?,
        application: text("application"),
        kept: Kept {
            labels: texts(metadata, "labels")?,
            annotations: texts(metadata, "annotations")?,
            spec: kept,
        },
        enabled,
        credentials,
        uid: text("uid"),
        version: text("resourceVersion"),
    })
}

/// Whether what decides something of events and commands can be read: later nobody is there who could be told.
fn counts(spec: &Map<String, Value>) -> Result<(), String> {
    let nothing = Map::new();
    Rules::of(spec, &nothing).map_err(|why| why.to_string())?;
    Dialect::of(spec, &nothing).map_err(|why| why.to_string())?;
    let gateways = spec.get("gatewaySelector").and_then(|of| of["matchNames"].as_array());
    if gateways.is_some_and(|gateways| gateways.len() > GATEWAYS_MAX) {
        return Err(format!("spec.gatewaySelector names more than {GATEWAYS_MAX} gateways"));
    }
    Ok(())
}

fn texts(
    metadata: &Map<String, Value>,
    name: &str,
) -> Result<std::collections::BTreeMap<String, String>, String> {
    match metadata.get(name) {
        None | Some(Value::Null) => Ok(Default::default()),
        Some(texts) => serde_json::from_value(texts.clone())
            .map_err(|_| format!("metadata.{name} has something that is no text")),
    }
}
