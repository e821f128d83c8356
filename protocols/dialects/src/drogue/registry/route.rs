//! Paths, methods and parameters of the registry's API.
//!
//! | route | |
//! |---|---|
//! | `/api/registry/v1alpha1/apps` | GET (list), POST |
//! | `/api/registry/v1alpha1/apps/APP` | GET, PUT, PATCH, DELETE |
//! | `/api/registry/v1alpha1/apps/APP/devices` | GET (list), POST |
//! | `/api/registry/v1alpha1/apps/APP/devices/DEVICE` | GET, PUT, PATCH, DELETE |

use super::{
    super::{
        http::Head,
        outcome::Refusal,
        words::{parameter, unescaped},
    },
    labels::Selector,
};

/// What the path begins with.
const PREFIX: &str = "/api/registry/v1alpha1/apps";
/// The longest path that is looked at.
const PATH_BYTES_MAX: usize = 4 * 1024;
/// How many things a list has that says nothing else, and at most.
pub const LIMIT_MAX: usize = 1_000;

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// All applications.
    Applications,
    /// One.
    Application(String),
    /// All devices of one.
    Devices(String),
    /// One.
    Device(String, String),
}

impl Place {
    /// The application that it is, or is in.
    #[must_use]
    pub fn application(&self) -> Option<&str> {
        match self {
            Self::Applications => None,
            Self::Application(application)
            | Self::Devices(application)
            | Self::Device(application, _) => Some(application),
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Listed: by labels, at most so many, behind so many.
    List(Selector, usize, usize),
    /// Shown.
    Get,
    /// Made.
    Create,
    /// Written in the place of what is there.
    Replace,
    /// Changed by a JSON patch.
    Patch,
    /// Changed by a merge patch.
    Merge,
    /// Deleted.
    Delete,
}

/// Whether a path is one of this API.
#[must_use]
pub fn is_path(path: &str) -> bool {
    path.strip_prefix(PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What a request's head asks for.
///
/// # Errors
///
/// [`Refusal`], in this order: path, method, parameters.
pub fn route(head: &Head<'_>) -> Result<(Place, Action), Refusal> {
    let place = place(head.path).ok_or(Refusal::NotFound)?;
    let is_list = matches!(place, Place::Applications | Place::Devices(_));
    let action = match (head.method, is_list) {
        ("GET", true) => list(head.query)?,
        ("GET", false) => Action::Get,
        ("POST", true) => Action::Create,
        ("PUT", false) => Action::Replace,
        ("PATCH", false) => match media(head) {
            "application/json-patch+json" => Action::Patch,
            "application/merge-patch+json" => Action::Merge,
            _ => return Err(Refusal::Request("There is no such kind of patch".to_owned())),
        },
        ("DELETE", false) => Action::Delete,
        _ => return Err(Refusal::Method),
    };
    Ok((place, action))
}

fn media<'a>(head: &Head<'a>) -> &'a str {
    let said = head.text("content-type").unwrap_or_default();
    said.split(';').next().unwrap_or_default().trim()
}

fn list(query: &str) -> Result<Action, Refusal> {
    let wrong = |why: &str| Refusal::Request(why.to_owned());
    let number = |name, usual| match parameter(query, name) {
        None => Ok(usual),
        Some(text) => text.parse().map_err(|_| wrong("limit and offset are numbers")),
    };
    let labels = parameter(query, "labels").unwrap_or_default();
    let selector = Selector::parse(&labels).map_err(|why| wrong(&why.to_string()))?;
    Ok(Action::List(selector, number("limit", LIMIT_MAX)?.min(LIMIT_MAX), number("offset", 0)?))
}

fn place(path: &str) -> Option<Place> {
    if path.len() > PATH_BYTES_MAX || !is_path(path) {
        return None;
    }
    let parts: Option<Vec<String>> =
        path[PREFIX.len()..].split('/').skip(1).map(unescaped).collect();
    let mut parts = parts?;
    if parts.last().is_some_and(String::is_empty) {
        parts.pop();
    }
    if parts.iter().any(String::is_empty) {
        return None;
    }
    match parts.as_slice() {
        [] => Some(Place::Applications),
        [application] => Some(Place::Application(application.clone())),
        [application, devices] if devices == "devices" => Some(Place::Devices(application.clone())),
        [application, devices, device] if devices == "devices" => {
            Some(Place::Device(application.clone(), device.clone()))
        }
        _ => None,
    }
}
