//! API keys over HTTP, and what the vendor has of members and owners of applications.
//!
//! | route | |
//! |---|---|
//! | `/api/tokens/v1alpha1` | GET (list), POST (`description`, and `role`, which is ours) |
//! | `/api/tokens/v1alpha1/PREFIX` | DELETE |
//! | `/api/admin/v1alpha1/apps/APP/members` | GET, PUT: not served |
//! | `/api/admin/v1alpha1/apps/APP/transfer-ownership`, `…/accept-ownership` | GET, PUT, DELETE: not served |
//!
//! # Invariants
//!
//! - **What is not served is told so**, not answered as if it were: there are no users whose applications they could be.
//!
//! Checked by `tests/it/drogue/tokens.rs`.

use serde_json::Value;

use super::{
    http::Head,
    outcome::Refusal,
    words::{parameter, unescaped},
};

/// What the path of keys begins with.
const KEYS: &str = "/api/tokens/v1alpha1";
/// What that of members and owners begins with.
const APPLICATIONS: &str = "/api/admin/v1alpha1/apps";
/// The longest path that is looked at.
const PATH_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a description.
pub const DESCRIPTION_BYTES_MAX: usize = 256;
/// Why members and owners are not served.
const NO_USERS: &str = "There are no users here, and so no members and owners: who shows an API key has its role, and administrators of the \
                        application's tenant make keys, with a role each (/api/tokens/v1alpha1?role=)";

/// What is to be done with keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Listed.
    List,
    /// Made: with this role, if it says one.
    Create {
        /// What it is for.
        description: Option<String>,
        /// What it may do.
        role: Option<String>,
    },
    /// Forgotten: the one of this prefix.
    Delete(String),
}

/// Whether a path is one of these.
#[must_use]
pub fn is_path(path: &str) -> bool {
    [KEYS, APPLICATIONS].into_iter().any(|begin| {
        path.strip_prefix(begin).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// What a request's head asks for.
///
/// # Errors
///
/// [`Refusal`], in this order: path, method, what is said.
pub fn route(head: &Head<'_>) -> Result<Asked, Refusal> {
    if head.path.len() > PATH_BYTES_MAX {
        return Err(Refusal::NotFound);
    }
    if let Some(rest) = head.path.strip_prefix(APPLICATIONS) {
        return Err(unserved(rest, head.method));
    }
    let rest = head.path.strip_prefix(KEYS).ok_or(Refusal::NotFound)?;
    match (head.method, rest.strip_prefix('/').filter(|prefix| !prefix.is_empty())) {
        ("GET", None) => Ok(Asked::List),
        ("POST", None) => {
            let description = parameter(head.query, "description");
            fits(description.as_deref())?;
            Ok(Asked::Create { description, role: parameter(head.query, "role") })
        }
        ("DELETE", Some(prefix)) if !prefix.contains('/') => {
            unescaped(prefix).map(Asked::Delete).ok_or(Refusal::NotFound)
        }
        (_, Some(prefix)) if prefix.contains('/') => Err(Refusal::NotFound),
        (_, Some(_) | None) => Err(Refusal::Method),
    }
}

fn unserved(rest: &str, method: &str) -> Refusal {
    let mut parts = rest.split('/').skip(1);
    let (application, what) = (parts.next().unwrap_or_default(), parts.next());
    if application.is_empty() || parts.next().is_some() {
        return Refusal::NotFound;
    }
    let methods: &[&str] = match what {
        Some("members") => &["GET", "PUT"],
        Some("transfer-ownership") => &["GET", "PUT", "DELETE"],
        Some("accept-ownership") => &["PUT"],
        Some(_) | None => return Refusal::NotFound,
    };
    if methods.contains(&method) { Refusal::NotServed(NO_USERS) } else { Refusal::Method }
}

/// What a body says that a key is for, where its query says nothing: older clients have it there, newer ones here.
///
/// # Errors
///
/// [`Refusal`].
pub fn description(body: &[u8]) -> Result<Option<String>, Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let unreadable = || Refusal::Format("The body is not JSON".to_owned());
    let said: Value = serde_json::from_slice(body).map_err(|_| unreadable())?;
    let description = match said.get("description") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()).filter(|text| !text.is_empty()),
        Some(_) => return Err(Refusal::Request("description is a text".to_owned())),
    };
    fits(description.as_deref())?;
    Ok(description)
}

fn fits(description: Option<&str>) -> Result<(), Refusal> {
    let fits =
        |text: &str| text.len() <= DESCRIPTION_BYTES_MAX && !text.chars().any(char::is_control);
    if description.is_none_or(fits) {
        return Ok(());
    }
    Err(Refusal::Request(
        "A description has 256 bytes at most, and no control characters".to_owned(),
    ))
}
