//! Commands over HTTP, and external endpoints of devices (§3.9).
//!
//! `POST /api/command/v1alpha1/apps/APP/devices/DEVICE?command=NAME`: the body is the payload.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::{
    http::Head,
    identity::basic,
    inbox::is_command,
    outcome::Refusal,
    words::{parameter, unescaped},
};
use crate::secret::Secret;

/// What the path begins with.
const PREFIX: &str = "/api/command/v1alpha1/apps/";
/// What an Authorization begins with that has a token, in any case.
const BEARER: &str = "bearer ";
/// The longest path that is looked at.
const PATH_BYTES_MAX: usize = 4 * 1024;

/// A command that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Of which application.
    pub application: String,
    /// For which device.
    pub device: String,
    /// Its name.
    pub command: String,
}

/// Whether a path is one of this API.
#[must_use]
pub fn is_path(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// What a request's head asks for.
///
/// # Errors
///
/// [`Refusal`], in this order: path, method, the command's name.
pub fn route(head: &Head<'_>) -> Result<Asked, Refusal> {
    let named = path(head.path).ok_or(Refusal::NotFound)?;
    if head.method != "POST" {
        return Err(Refusal::Method);
    }
    let command = parameter(head.query, "command").filter(|name| is_command(name));
    let command = command.ok_or_else(|| Refusal::Request("There is no such command".to_owned()))?;
    let (application, device) = named;
    Ok(Asked { application, device, command })
}

fn path(path: &str) -> Option<(String, String)> {
    if path.len() > PATH_BYTES_MAX {
        return None;
    }
    let mut parts = path.strip_prefix(PREFIX)?.split('/');
    let application = unescaped(parts.next()?)?;
    if parts.next() != Some("devices") {
        return None;
    }
    let device = unescaped(parts.next()?)?;
    let is_all = parts.next().is_none() && !application.is_empty() && !device.is_empty();
    is_all.then_some((application, device))
}

/// The API key or token that a request shows: as a bearer, or as the password of a user.
#[must_use]
pub fn key(head: &Head<'_>) -> Option<Secret> {
    let authorization = head.header("authorization")?;
    if let Some((_, password)) = basic(authorization) {
        return Some(password);
    }
    let (scheme, token) = authorization.split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER.as_bytes()).then(|| Secret::copied(token.trim_ascii()))
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is on its way, or nobody hears it.
    Sent,
    /// There is no such device, or it or its application is disabled.
    Nobody,
    /// Nobody can say.
    Unavailable,
    /// The device's external endpoint did not take it.
    Failed,
}

impl Outcome {
    /// The status of HTTP.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Sent => 202,
            Self::Nobody => 406,
            Self::Unavailable => 503,
            Self::Failed => 500,
        }
    }

    /// The reason of MQTT 5 for who published it.
    #[must_use]
    pub fn reason(self) -> u8 {
        match self {
            Self::Sent => 0x00,
            Self::Nobody => 0x87,
            Self::Unavailable | Self::Failed => 0x80,
        }
    }
}

/// An external endpoint that can't be read: no command goes anywhere else for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("spec.commands can't be read")]
pub struct InvalidExternal;

/// How an external endpoint is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    #[default]
    Http,
}

/// Where commands for a device go in the place of its inbox.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct External {
    #[serde(default, rename = "type")]
    kind: Kind,
    /// Where.
    pub url: String,
    /// `POST` without it.
    #[serde(default)]
    pub method: String,
    /// Headers that it gets.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// By hand: there are secrets in it.
impl fmt::Debug for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("External").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The external endpoint of a device's `spec`: the first of its `commands`.
///
/// # Errors
///
/// [`InvalidExternal`].
pub fn external(spec: &Map<String, Value>) -> Result<Option<External>, InvalidExternal> {
    let commands = spec.get("commands").map(|section| &section["commands"]);
    let first = commands.and_then(|commands| commands.get(0)?.get("external"));
    first.map(External::deserialize).transpose().map_err(|_| InvalidExternal)
}

/// Whether an external endpoint took a command, by the status of its answer.
#[must_use]
pub fn is_taken(status: u16) -> bool {
    (200..300).contains(&status)
}

/// What it gets.
#[must_use]
pub fn external_body(asked: &Asked, payload: &[u8]) -> Bytes {
    let Asked { application, device, command } = asked;
    let said = json!({
        "application": application,
        "device": device,
        "command": command,
        "payload": STANDARD.encode(payload),
    });
    Bytes::from(said.to_string())
}
