//! Claiming of devices over the REST API.

use serde_json::Value;

use crate::thingsboard::query::decoded;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `POST /api/customer/device/{name}/claim`
    Claim(String),
    /// `DELETE /api/customer/device/{name}/claim`: it may be claimed anew.
    Release(String),
}

/// Reads a path; `None` if it is none of claims.
#[must_use]
pub fn route(method: &str, path: &str) -> Option<Route> {
    let name = path.strip_prefix("/api/customer/device/")?.strip_suffix("/claim")?;
    let name = Some(name).filter(|name| !name.is_empty() && !name.contains('/'))?;
    let name = decoded(name).into_owned();
    match method {
        "POST" => Some(Route::Claim(name)),
        "DELETE" => Some(Route::Release(name)),
        _ => None,
    }
}

/// The secret of a wish to have a device: `{"secretKey"}`, which may be missing, as may be the whole body.
///
/// # Errors
///
/// It is something else.
pub fn secret(body: &[u8]) -> Result<String, &'static str> {
    if body.is_empty() {
        return Ok(String::new());
    }
    let json: Value = serde_json::from_slice(body).map_err(|_| "the body is no JSON")?;
    match json.get("secretKey") {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(secret)) => Ok(secret.clone()),
        Some(_) => Err("secretKey is a text"),
    }
}
